"""A check in a process of its own: what the engine does to it, be it a crash or no end, is part of the report."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from powergrid.check.report import FeederReport, Finding, Recorder, take_facts
from powergrid.errors import FeederError
from powergrid.grid.feeder.feeder import find_feeder

_MEMORY_BYTES = 8 * 2**30
_FILE_BYTES = 512 * 2**20
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "PYTHONPATH")
_EVENTS = "events.jsonl"
_STDERR = "stderr.txt"


def check_feeder(
    path: str | Path, *, model_root: str | Path | None = None, trust: bool = False, timeout_s: float = 120.0
) -> FeederReport:
    """Report everything that is wrong with a feeder; nothing is written and nothing of it runs in this process.

    The feeder is compiled and solved in a process of its own, with its own empty home and working folder, limited
    in memory and time. Where OpenDSS crashes or does not come to an end, the report says so, with the command that
    ran last and all that was found until then.

    Args:
        path: Name of a shipped feeder or path of a master file.
        model_root: The folder that no file may be read outside of.
        trust: Lift what keeps a feeder from doing more than describe a circuit.
        timeout_s: When to give up [s].
    """
    report = FeederReport(str(path))
    began = time.monotonic()
    try:
        master = find_feeder(path)
    except FeederError as error:
        for problem in error.details:
            Recorder(report).find(problem.code, problem.message, error.where)
        return report
    options = {"model_root": str(Path(model_root).expanduser().absolute()) if model_root else None, "trust": trust}
    request = [str(master), json.dumps({key: value for key, value in options.items() if value}), str(timeout_s)]
    with tempfile.TemporaryDirectory(prefix="powergrid-check-", ignore_cleanup_errors=True) as folder:
        status = _run(Path(folder), request, timeout_s)
        report = _read_events(Path(folder) / _EVENTS, FeederReport(str(path), master=str(master)))
        said = (Path(folder) / _STDERR).read_text(encoding="utf-8", errors="replace").strip()
    _judge(report, status, said, timeout_s)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _run(folder: Path, request: list[str], timeout_s: float) -> int | None:
    """Run the check and return its exit status, None where it took too long."""
    for name in ("home", "work", "tmp"):
        (folder / name).mkdir()
    # The child sees nothing of the user's: no home, no cache (whose entries it could spoil), no other variables.
    package = Path(__file__).parents[2]
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    below = [str(Path(each).absolute()) for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(package), *below]),
        "HOME": str(folder / "home"), "USERPROFILE": str(folder / "home"), "TMPDIR": str(folder / "tmp"),
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1",
        "POWERGRID_CACHE": "",
    }  # fmt: skip
    command = [sys.executable, "-m", "powergrid.check", str(folder / _EVENTS), *request]
    with (folder / _STDERR).open("wb") as stderr:
        child = subprocess.Popen(
            command, cwd=folder / "work", env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
        )  # fmt: skip
        try:
            return child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if hasattr(os, "killpg"):  # with whatever it may have started
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
            child.kill()
            child.wait()


def _read_events(file: Path, report: FeederReport) -> FeederReport:
    recorder = Recorder(report)
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []
    for line in lines:  # the last, if cut short, has no line end
        kind, content = json.loads(line)
        if kind == "finding":
            report.findings.append(Finding(**content))
        elif kind == "facts":
            recorder.state(**take_facts(content))
        elif kind == "at":
            recorder.at(*content)
        else:
            report.last_command = ""
    return report


def _judge(report: FeederReport, status: int | None, said: str, timeout_s: float) -> None:
    """Say what became of the process that checked."""
    if status == 0:
        return
    where, _, text = report.last_command.rpartition("\t")
    during = f"at {text!r}" if where else f"while {text or 'starting'}"
    file, _, line = where.rpartition(":")
    slow = status is None or (status < 0 and -status == getattr(signal, "SIGXCPU", None))
    if slow:
        message = f"OpenDSS was still busy after {timeout_s:g} s {during}"
    else:
        message = f"{_describe_status(status or 0, said)} {during}"
    report.outcome = "timed out" if slow else "crashed"
    report.last_command = report.last_command.replace("\t", ": ")
    Recorder(report).find("timed-out" if slow else "engine-crashed", message, file, int(line or 0))


def _describe_status(status: int, said: str) -> str:
    if status < 0:
        try:
            return f"OpenDSS died of {signal.Signals(-status).name} ({(signal.strsignal(-status) or 'signal').lower()})"
        except ValueError:
            return f"OpenDSS died of signal {-status}"
    return f"the check ended with status {status}" + (f" ({said.splitlines()[-1]})" if said else "")


class EventRecorder(Recorder):
    """Write down at once what is found, so that it outlives the process."""

    def __init__(self, report: FeederReport, file: Path) -> None:
        super().__init__(report)
        # Not buffered: what is written is there when the engine ends the process.
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def at(self, file: str, line: int, text: str) -> None:
        """Say which command is about to run."""
        self._write("at", [file, line, text])

    def state(self, **facts: Any) -> None:
        """Fill in fields of the report."""
        super().state(**facts)
        snapshot = facts.get("snapshot")
        self._write("facts", {**facts, "snapshot": asdict(snapshot)} if snapshot else facts)

    def _take(self, finding: Finding) -> None:
        super()._take(finding)
        self._write("finding", asdict(finding))

    def end(self) -> None:
        """Say that the check came to its end."""
        self._write("end", None)
        os.close(self._fd)

    def _write(self, kind: str, content: Any) -> None:
        os.write(self._fd, json.dumps([kind, content]).encode("ascii") + b"\n")


def limit_process(timeout_s: float) -> None:
    """Limit this process in memory, time and the size of files, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    # A file can make OpenDSS take all memory or never return; the parent's timeout ends what merely waits.
    seconds = math.ceil(timeout_s) + 1
    for name, limit in (
        ("RLIMIT_AS", _MEMORY_BYTES),
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_FSIZE", _FILE_BYTES),
        ("RLIMIT_CORE", 0),
    ):
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, hard))
