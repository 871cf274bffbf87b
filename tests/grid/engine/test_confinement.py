"""What a process that is shut in can do and what it cannot, on the kernel at hand and on older ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from powergrid.grid.engine.confinement import describe_kill

linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are of Linux")

_PROBE = """
import json, os, socket, sys
from pathlib import Path
from powergrid.grid.engine.confinement import confine, library_files

inside, own, outside, options, last = json.loads(sys.argv[1])
held = confine([*library_files(), inside], [own], 30.0, **options)

def may(what):
    try:
        what()
    except PermissionError:
        return False
    return True

import email.mime.text  # Python's own modules are there as before
print(json.dumps({
    "holds": held.holds, "missing": held.missing,
    "read inside": may(lambda: Path(inside, "a.txt").read_text()),
    "write inside": may(lambda: Path(inside, "b.txt").write_text("x")),
    "write own": may(lambda: Path(own, "b.txt").write_text("x")),
    "read outside": may(lambda: Path(outside, "a.txt").read_text()),
    "list outside": may(lambda: os.listdir(outside)),
    "write outside": may(lambda: Path(outside, "b.txt").write_text("x")),
    "rename out": may(lambda: os.rename(Path(own, "b.txt"), Path(outside, "c.txt"))),
}), flush=True)
exec(last)
"""


def probe(tmp_path: Path, last: str = "", **options: object) -> tuple[dict[str, object], int]:
    """Return what a process finds that it may do, and its exit status after a last statement."""
    folders = [tmp_path / name for name in ("inside", "own", "outside")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / "a.txt").write_text("x")
    request = json.dumps([*map(str, folders), options, last])
    ended = subprocess.run([sys.executable, "-c", _PROBE, request], capture_output=True, text=True, timeout=60)
    return json.loads(ended.stdout), ended.returncode


@linux
def test_shut_in_process_reads_what_it_is_given_and_writes_in_its_own_folder(tmp_path: Path) -> None:
    found, status = probe(tmp_path)
    if not any(each.startswith("Landlock ") for each in found["holds"]):  # type: ignore[attr-defined]
        pytest.skip("this kernel has no Landlock")
    may = {name for name, allowed in found.items() if allowed is True}
    assert (status, may) == (0, {"read inside", "write own"})


@linux
@pytest.mark.parametrize("abi", [1, 3, 5])
def test_older_landlock_holds_as_far_as_it_goes_and_says_how_far(tmp_path: Path, abi: int) -> None:
    found, _ = probe(tmp_path, landlock_abi=abi)
    if found["missing"]:
        pytest.skip("this kernel has no Landlock")
    assert f"Landlock {abi} (without" in " ".join(found["holds"])  # type: ignore[arg-type]
    assert not found["read outside"]
    assert not found["write outside"]


@linux
def test_without_landlock_the_rest_holds_and_what_is_missing_is_said(tmp_path: Path) -> None:
    found, _ = probe(tmp_path, landlock_abi=0)
    assert found["missing"] == ["Landlock: not in this kernel, so files outside can be read and written"]
    assert [each.split(" ")[0] for each in found["holds"]] == ["limits:", "seccomp"]  # type: ignore[attr-defined]
    assert found["read outside"]


@linux
@pytest.mark.parametrize(
    "last",
    [
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "socket.socket()",
        "os.kill(1, 0)",
        "os.chmod(own, 0o777)",
        "import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0)",
    ],
)
def test_forbidden_system_call_ends_the_process(tmp_path: Path, last: str) -> None:
    _, status = probe(tmp_path, last)
    assert -status == signal.SIGSYS
    assert "start a program" in describe_kill(status)


@linux
def test_threads_and_a_signal_to_itself_are_left_to_a_process_that_is_shut_in(tmp_path: Path) -> None:
    last = "import threading; t = threading.Thread(target=os.getpid); t.start(); t.join(); os.kill(os.getpid(), 0)"
    assert probe(tmp_path, last)[1] == 0
    assert -probe(tmp_path, "os.abort()")[1] == signal.SIGABRT


@linux
def test_memory_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    last = f"b = bytearray({os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') * 4})"
    assert probe(tmp_path, last)[1] == 1
