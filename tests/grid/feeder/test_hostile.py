"""Hostile feeders end in a typed error or in an environment, and never end the process that reads them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import powergrid
from powergrid.cli import main
from powergrid.errors import FeederError, PowerGridError
from tests.grid.feeder.hostile_feeders import FILES, LINES, write_hostile

#: One of each kind, for every run.
_FEW = ("line_phases", "load_phases", "shape_points", "slow_pattern", "redirects_to_itself", "pipe_as_data", "binary")
#: Names of those that crash or hang OpenDSS; the line is the sixth or, of two, the seventh.
_CRASHING = ("_phases", "_windings", "_points", "_conductors", "node_b", "pattern")


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch trials on, with nothing kept between them."""
    monkeypatch.setenv("POWERGRID_TRIAL_S", "5")
    monkeypatch.setenv("POWERGRID_CACHE", "")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that goes at once: some of what is in it would be a trouble for whoever looks at it later."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    yield folder / "net"
    shutil.rmtree(folder)


def outcome_of(name: str, folder: Path) -> PowerGridError | None:
    """Make an environment of a hostile feeder; return its error, None where it became one."""
    try:
        powergrid.make(str(write_hostile(name, folder))).close()
    except PowerGridError as error:
        return error
    return None


@pytest.mark.parametrize("name", _FEW)
def test_hostile_feeder_ends_in_a_typed_error(name: str, folder: Path) -> None:
    error = outcome_of(name, folder)
    assert isinstance(error, FeederError)
    assert all(problem.code for problem in error.details)


@pytest.mark.slow
def test_every_hostile_feeder_ends_in_a_typed_error_or_an_environment(folder: Path) -> None:
    for name in (*LINES, *FILES):
        error = outcome_of(name, folder)
        if name in LINES and any(part in name for part in _CRASHING):
            assert isinstance(error, FeederError), name
            where = f"{error.where} {' '.join(problem.where for problem in error.details)}"
            assert "Master.dss:6" in where or "Master.dss:7" in where, error


def test_describe_and_train_end_with_one_message_and_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    master = write_hostile("line_phases", folder)
    for command in (["describe", str(master)], ["train", str(master), "--out", str(folder / "runs")]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 1
        (message,) = (line for line in "".join(capsys.readouterr()).splitlines() if line != "Starting Ray ...")
        assert message.startswith("FeederError: ")
        assert f"{master}:6: OpenDSS died of SIGSEGV" in message
    assert not (folder / "runs").exists()
