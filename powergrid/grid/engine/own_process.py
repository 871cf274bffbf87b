"""Do a piece of work in a process of its own, and learn how it ended, whatever the engine does to that process.

The process starts with an empty home, working and temporary folder and with no variable of the user's but those that
find programs and languages. It shuts itself in before it touches what is foreign: see ``confinement``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powergrid.grid.engine.cache_folder import FOLDER_VARIABLE
from powergrid.grid.engine.confinement import Confinement, confine, describe_kill, library_files

#: Environment variable: how long the first compile of a foreign feeder may take [s], 0 to leave the trial out.
TRIAL_VARIABLE = "POWERGRID_TRIAL_S"
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "PYTHONPATH")
_OWN_FOLDERS = ("home", "work", "tmp")
_REQUEST, _ANSWER, _STDERR = "request.json", "answer", "stderr.txt"
_LAST_WORDS_BYTES = 4096


@dataclass(frozen=True)
class Ended:
    """How a process of its own ended.

    Attributes:
        status: Its exit status, below 0 the signal that ended it, None where it took too long.
        last_words: The last line that it or the engine wrote to its standard error.
        answer: The file that it wrote its answer to; gone once the folder is.
        timeout_s: What it had [s].
    """

    status: int | None
    last_words: str
    answer: Path
    timeout_s: float

    def explain(self) -> tuple[str, str]:
        """Return code and text of why it did not come to its end."""
        status = self.status
        # Busy waiting meets the limit on processor time, sleep that of who waits for it.
        if status is None or (status < 0 and -status == getattr(signal, "SIGXCPU", None)):
            return "timed-out", f"OpenDSS was still busy after {self.timeout_s:g} s"
        if forbidden := describe_kill(status):
            return "refused", f"the system ended OpenDSS: {forbidden}"
        said = f" ({self.last_words})" if self.last_words else ""
        if status >= 0:
            return "engine-crashed", f"the process of OpenDSS ended with status {status}{said}"
        try:
            name, meaning = signal.Signals(-status).name, (signal.strsignal(-status) or "signal").lower()
        except ValueError:
            return "engine-crashed", f"OpenDSS died of signal {-status}"
        return "engine-crashed", f"OpenDSS died of {name} ({meaning})"


@contextlib.contextmanager
def run_apart(module: str, request: Mapping[str, Any], timeout_s: float) -> Iterator[Ended]:
    """Run ``main`` of a module in a process of its own, and tell how it ended.

    Args:
        module: The module; its ``main`` is called with the folder, of which :func:`receive` makes the request.
        request: What it is asked, as JSON can say it.
        timeout_s: When to give up [s].

    Raises:
        OSError: it cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="powergrid-apart-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for own in _OWN_FOLDERS:
            (folder / own).mkdir()
        (folder / _REQUEST).write_text(json.dumps(request), encoding="ascii")
        status = _run(module, folder, timeout_s)
        yield Ended(status, _last_words(folder / _STDERR), folder / _ANSWER, timeout_s)


def _run(module: str, folder: Path, timeout_s: float) -> int | None:
    """Run the process and return its exit status, None where it took too long."""
    # It sees nothing of the user's: no home, no cache (whose entries it could spoil), no other variables.
    package = Path(__file__).parents[3]
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # It imports what this one can, wherever that lies.
    below = [str(Path(each).absolute()) for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]
    below += [each for each in sys.path if os.path.isabs(each) and each not in below]
    home, work, temporary = (str(folder / own) for own in _OWN_FOLDERS)
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(package), *below]), "HOME": home, "USERPROFILE": home, "TMPDIR": temporary,
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1",
        FOLDER_VARIABLE: "", TRIAL_VARIABLE: "0",
    }  # fmt: skip
    if not sys.executable:
        raise OSError("this Python does not know its own program")
    command = [sys.executable, "-c", f"from {module} import main; main({str(folder)!r})"]
    with (folder / _STDERR).open("wb") as stream:
        child = subprocess.Popen(
            command, cwd=work, env=environment,
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


def _last_words(file: Path) -> str:
    with contextlib.suppress(OSError), file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _LAST_WORDS_BYTES))
        lines = stream.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


# -- in that process


def receive(folder: str) -> tuple[dict[str, Any], Path]:
    """Return what this process was asked, and the file that takes its answer."""
    return json.loads((Path(folder) / _REQUEST).read_bytes()), Path(folder) / _ANSWER


def shut_in(folder: str, readable: Iterable[str | Path], timeout_s: float) -> Confinement:
    """Shut this process in: it reads Python's own files and those given, and writes in its own folders alone."""
    own = [Path(folder) / each for each in _OWN_FOLDERS]
    return confine([*library_files(), *own, *readable], own, timeout_s)
