"""One check from its files to its findings: in a process of its own, whatever the engine does to it, or in this one."""

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
from pathlib import Path
from typing import Any

from powergrid.check.report import FeederReport, Recorder, read_events
from powergrid.errors import EngineError, FeederError
from powergrid.grid.feeder.feeder import find_feeder, scan_feeder

_MEMORY_BYTES = 8 * 2**30
_FILE_BYTES = 512 * 2**20
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "PYTHONPATH")
_MAIN = "from powergrid.check.inspection import main; main()"


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
        report.master = str(find_feeder(path))
    except FeederError as error:
        Recorder(report).find_all(error.details, error.where)
        return report
    options = {"model_root": str(Path(model_root).expanduser().absolute()) if model_root else None, "trust": trust}
    with tempfile.TemporaryDirectory(prefix="powergrid-check-", ignore_cleanup_errors=True) as folder:
        events, stderr = Path(folder) / "events.jsonl", Path(folder) / "stderr.txt"
        request = [str(events), report.master, json.dumps(options), str(timeout_s)]
        status = _run(Path(folder), request, stderr, timeout_s)
        report = read_events(events, report)
        said = stderr.read_text(encoding="utf-8", errors="replace").strip()
    _judge(report, status, said, timeout_s)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _run(folder: Path, request: list[str], stderr: Path, timeout_s: float) -> int | None:
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
    with stderr.open("wb") as stream:
        child = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *request], cwd=folder / "work", env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stream, start_new_session=True,
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


def _judge(report: FeederReport, status: int | None, said: str, timeout_s: float) -> None:
    """Say what became of the process that checked."""
    if status == 0:
        return
    where, _, text = report.last_command.rpartition("\t")
    during = f"at {text!r}" if where else f"while {text or 'starting'}"
    # Busy waiting meets the limit on processor time, sleep the parent's.
    slow = status is None or (status < 0 and -status == getattr(signal, "SIGXCPU", None))
    report.outcome = "timed out" if slow else "crashed"
    report.last_command = report.last_command.replace("\t", ": ")
    what = f"OpenDSS was still busy after {timeout_s:g} s" if slow else _describe_status(status or 0, said)
    Recorder(report).find("timed-out" if slow else "engine-crashed", f"{what} {during}", where)


def _describe_status(status: int, said: str) -> str:
    if status >= 0:
        return f"the check ended with status {status}" + (f" ({said.splitlines()[-1]})" if said else "")
    try:
        return f"OpenDSS died of {signal.Signals(-status).name} ({(signal.strsignal(-status) or 'signal').lower()})"
    except ValueError:
        return f"OpenDSS died of signal {-status}"


# -- in the process that a check runs in


def main() -> None:
    """Check the feeder that the arguments name and write what is found to a file: events, feeder, options, seconds."""
    events, feeder, options, seconds = sys.argv[1:]
    _limit_process(float(seconds))
    recorder = Recorder(FeederReport(feeder), events)
    inspect_feeder(feeder, recorder, **json.loads(options))
    recorder.state(last_command="")  # it came to its end


def _limit_process(timeout_s: float) -> None:
    """Limit this process in memory, time and the size of files, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    # A file can make OpenDSS take all memory or never return; the parent's timeout ends what merely waits.
    seconds = math.ceil(timeout_s) + 1
    limits = {"AS": _MEMORY_BYTES, "CPU": seconds, "FSIZE": _FILE_BYTES, "CORE": 0}
    for name, limit in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, hard))


def inspect_feeder(reference: str | Path, recorder: Recorder | None = None, **options: Any) -> FeederReport:
    """Check a feeder in this process, which a crash of the engine ends.

    Args:
        reference: Name of a shipped feeder or path of a master file.
        recorder: Where findings go as they are found.
        options: As :func:`~powergrid.grid.feeder.feeder.read_feeder` takes them.
    """
    # Not in the parent, which needs no engine for it.
    from powergrid.check.elements import Model, check_elements, check_files, compile_all
    from powergrid.grid.engine import Engine

    recorder = recorder or Recorder(FeederReport(str(reference)))
    recorder.at("reading the files")
    try:
        feeder, problems = scan_feeder(reference, **options)
    except FeederError as error:
        recorder.find_all(error.details, error.where)
        return recorder.report
    recorder.state(master=str(feeder.master))
    recorder.find_all(problems, str(feeder.master))
    definitions = check_files(feeder, recorder)
    if not definitions.one_circuit:
        return recorder.report
    model = Model(feeder, Engine(), definitions, recorder, broken=bool(problems))
    try:
        compile_all(model)
        recorder.at("looking at the elements")
        check_elements(model)
        recorder.at("solving")
        from powergrid.check.solution import check_solution  # most of the time it takes to start: not before it is due

        check_solution(model)
    except EngineError as error:
        model.find("not-usable", str(error))
    finally:
        model.engine.close()
    return recorder.report
