"""Files: read with a typed error whatever they hold, written whole or not at all, and folders held by one process."""

from __future__ import annotations

import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

import powergrid
from powergrid.cli import main
from powergrid.errors import PowerGridError
from powergrid.evaluation import evaluate
from powergrid.evaluation.drawing import save
from powergrid.files import (
    append_whole,
    path_of,
    read_arrays,
    read_json,
    real_path,
    replacing,
    sole_use,
    write_whole,
)
from powergrid.scenario import load_scenario, write_scenario
from powergrid.training import resume, train
from powergrid.training.policies.export import export_run
from powergrid.training.runs.records import EventFile, ProgressFile, write_manifest
from powergrid.training.runs.train import claim
from tests.training.conftest import TINY
from tests.training.toy import ToyGridEnv

RUN = Path(__file__).parent / "training" / "runs" / "data" / "run_010"


class Form(BaseModel):
    n: int


@contextmanager
def full_disk(left: int = 40) -> Iterator[None]:
    """Let no file grow past some bytes: writing ends as on a full disk, with ``File too large``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def write_report(folder: Path) -> None:
    _report.write(folder / "report")


def draw(folder: Path) -> None:
    from matplotlib.figure import Figure

    save(Figure(), folder / "figure.png")


WRITERS: dict[str, Callable[[Path], object]] = {
    "whole": lambda folder: write_whole(folder / "old", "new" * 1000),
    "append": lambda folder: append_whole(folder / "old", "new" * 1000),
    "manifest": lambda folder: write_manifest(folder, {"name": "x" * 1000}),
    "progress": lambda folder: ProgressFile(folder / "progress.csv").add({f"c{i}": 1.0 for i in range(100)}),
    "scenario": lambda folder: write_scenario(load_scenario("ieee13_mg"), folder / "own.yaml"),
    "policy": lambda folder: powergrid.load_policy(RUN).save(folder / "policy"),
    "torchscript": lambda folder: export_run(RUN, folder / "export", format="torchscript"),
    "report": write_report,
    "drawing": draw,
}
_report = evaluate({"env_name": "ieee13_mg", "episode_length": 2}, ["no_control"], days=1)


@pytest.mark.parametrize("what", list(WRITERS))
def test_full_disk_is_one_line_and_leaves_nothing_half_written(what: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("as it was\n")
    with pytest.raises(PowerGridError, match="File too large") as error, full_disk():
        WRITERS[what](tmp_path)
    assert "\n" not in str(error.value)
    assert files_in(tmp_path) == {"old": b"as it was\n"}


def test_events_on_a_full_disk_are_an_error_and_no_hang(tmp_path: Path) -> None:
    events = EventFile(tmp_path)
    with pytest.raises(PowerGridError, match="File too large"), full_disk(200):
        events.add({f"a{i}": 1.0 for i in range(1000)}, {}, 1)


def test_folder_that_cannot_be_made_ends_a_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["ieee13_mg", "--set", "episode_length=2", "--policy", "no_control", "--days", "1"]
    with pytest.raises(SystemExit, match="1"):
        main(["evaluate", *arguments, "--out", "/dev/null/report"])
    told = capsys.readouterr().err.strip()
    assert told.startswith("PowerGridError: /dev/null/report")
    assert "\n" not in told


def test_training_on_a_disk_that_fills_up_ends_with_one_line_and_keeps_its_last_checkpoint(
    ray_session: None, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(report: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))

    settings = {**TINY, "iterations": 3, "checkpoint_every": 1, "validate_every": 0}
    try:
        with pytest.raises(PowerGridError, match="cannot be written: File too large") as error:
            train({}, settings, env=ToyGridEnv, out_dir=tmp_path, name="run", progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    run = tmp_path / "run"
    assert [entry.name for entry in (run / "checkpoints").glob("*iteration*")] == ["iteration_000001"]
    assert (run / "checkpoints" / "latest").read_text() == "iteration_000001\n"
    assert resume(run, iterations=2).iterations == 2


def test_training_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PowerGridError, match="File too large"), full_disk():
        train({}, {**TINY, "validate_every": 0}, env=ToyGridEnv, out_dir=tmp_path, name="run")
    assert list(tmp_path.iterdir()) == []


def test_second_training_in_a_folder_is_told_at_once_with_the_process(tmp_path: Path) -> None:
    code = (
        f"from powergrid.files import sole_use\nwith sole_use(__import__('pathlib').Path({str(tmp_path / 'run')!r})):\n"
    )
    code += "    print('held', flush=True)\n    input()"
    (tmp_path / "run").mkdir()
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(PowerGridError, match=rf"run: is in use by process {other.pid} on .*; wait until") as error:
            train({}, {**TINY, "validate_every": 0}, env=ToyGridEnv, out_dir=tmp_path, name="run")
        assert "\n" not in str(error.value)
    finally:
        other.communicate("\n", timeout=60)
    with sole_use(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_resume_and_tune_of_a_folder_in_use_are_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.symlink_to(RUN)
    with sole_use(RUN), pytest.raises(PowerGridError, match="is in use by process"):
        resume(run)
    (tmp_path / "tuning").mkdir()
    with (
        sole_use(tmp_path / "tuning"),
        pytest.raises(PowerGridError, match="is in use by process"),
        claim(tmp_path, "tuning", "tune", taken_by="trials.csv", remedy=""),
    ):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"n": "x"}', b"\xff\xfe", b"[" * 100_000, b'{"n": ' + b"1" * 6000 + b"}", b"null"]
)
def test_damaged_json_is_a_typed_error_with_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(PowerGridError, match=r"a\.json"):
        read_json(tmp_path / "a.json", Form)


def test_arrays_that_claim_more_than_they_hold_or_hold_objects_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, a=np.arange(6.0).reshape(2, 3), b=np.asfortranarray(np.eye(3)), c=np.float32(1))
    with np.load(file) as expected:
        for name, array in read_arrays(file).items():
            np.testing.assert_array_equal(array, expected[name])
    np.savez(file, a=np.array([{}], dtype=object))
    with pytest.raises(PowerGridError, match="Python objects"):
        read_arrays(file)
    with zipfile.ZipFile(file, "w") as archive, archive.open("a.npy", "w") as entry:
        np.lib.format.write_array_header_1_0(entry, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    with pytest.raises(PowerGridError, match=r"a\.npz"):
        read_arrays(file)


def test_what_breaks_off_while_it_writes_leaves_the_file_before(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(file) as whole:
        whole.write_text(f"half{1 // (whole.write_text('half') - 4)}")
    assert files_in(tmp_path) == {"a.txt": b"before"}
    (tmp_path / "link").symlink_to(file)
    write_whole(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert file.read_text() == "after"
    write_whole(Path("/dev/null"), "nothing")  # written to, not replaced
    assert not Path("/dev/null").is_file()


def test_file_that_is_a_link_in_a_circle_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "a"
    link.symlink_to("a")
    write_whole(link, "whole")
    assert link.read_text() == "whole"


@pytest.mark.parametrize("written", ["~no-such-user/x", "\0", "x" * 5000])
def test_what_can_be_no_path_is_told(written: str) -> None:
    for find in (path_of, real_path):
        with pytest.raises(PowerGridError, match="is no path"):
            find(written)


@pytest.mark.parametrize("written", ["circle", "circle/x", "~no-such-user/x", "\0", "x" * 5000])
def test_place_that_leads_nowhere_is_a_typed_error_wherever_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    readers: tuple[Callable[[], object], ...] = (
        lambda: resume(written, iterations=1),
        lambda: powergrid.load_policy(written),
        lambda: powergrid.make(f"{written}.dss"),
        lambda: powergrid.make("ieee13_mg", model_root=written),
        lambda: write_scenario(load_scenario("ieee13_mg"), f"{written}/own.yaml"),
    )
    for read in readers:
        with pytest.raises(PowerGridError):
            read()
