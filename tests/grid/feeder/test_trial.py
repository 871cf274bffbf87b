"""The first compile of a foreign feeder: in a process of its own, once a content; a typed error whatever happens."""

from __future__ import annotations

from pathlib import Path

import pytest

import powergrid
from powergrid.errors import FeederError
from powergrid.grid.circuit import Circuit
from powergrid.grid.feeder import read_feeder, trial

_CIRCUIT = """New Circuit.small basekv=12.47
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4 normamps=100
New Load.a bus1=b kV=12.47 kW=200 kvar=100
New Capacitor.k bus1=b kV=12.47 kvar=100
{}
Set VoltageBases=[12.47]
CalcVoltageBases
"""
#: OpenDSS asks for an array of 80 GB, is refused, and goes on all the same.
_CRASH = "New Line.q phases=100000 bus1=b bus2=c"


def write(folder: Path, *lines: str) -> Path:
    """Write a feeder of one file, with lines of its own as the fifth and the following ones."""
    folder.mkdir(exist_ok=True)
    master = folder / "Master.dss"
    master.write_text(_CIRCUIT.format("\n".join(lines)))
    return master


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Switch trials on, with a cache of their own."""
    monkeypatch.setenv("POWERGRID_TRIAL_S", "60")
    monkeypatch.setenv("POWERGRID_CACHE", str(tmp_path / "cache"))
    trial.tried.forget()


def count_tried(tmp_path: Path) -> int:
    return len(list((tmp_path / "cache").glob("tried-*.npz")))


def test_foreign_feeder_is_tried_once_for_each_content(tmp_path: Path) -> None:
    master = write(tmp_path / "net")
    for _ in range(2):
        Circuit(read_feeder(master)).close()
    assert count_tried(tmp_path) == 1
    write(tmp_path / "net", "New Load.b bus1=b kV=12.47 kW=10")
    Circuit(read_feeder(master)).close()
    assert count_tried(tmp_path) == 2


def test_shipped_feeder_and_one_that_the_caller_trusts_are_not_tried(tmp_path: Path) -> None:
    Circuit(read_feeder("ieee13")).close()
    Circuit(read_feeder(write(tmp_path / "net"), trust=True)).close()
    assert count_tried(tmp_path) == 0


def test_crash_is_an_error_with_the_line(tmp_path: Path) -> None:
    master = write(tmp_path / "net", _CRASH)
    with pytest.raises(FeederError) as caught:
        powergrid.make(str(master))
    (problem,) = caught.value.details
    assert (problem.code, problem.where) == ("engine-crashed", f"{master}:5")
    assert _CRASH in problem.text
    assert count_tried(tmp_path) == 0


def test_what_takes_too_long_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERGRID_TRIAL_S", "0.05")  # less than Python takes to start
    with pytest.raises(FeederError, match=r"0\.05 s") as caught:
        Circuit(read_feeder(write(tmp_path / "net")))
    assert caught.value.details[0].code == "timed-out"


def test_refusal_of_the_engine_is_the_same_error_as_without_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder = read_feeder(write(tmp_path / "net", "New Load.c bus1=b colour=red"))
    errors = []
    for seconds in ("60", "0"):
        monkeypatch.setenv("POWERGRID_TRIAL_S", seconds)
        with pytest.raises(FeederError) as caught:
            Circuit(feeder)
        errors.append((caught.value.where, caught.value.details))
    assert errors[0] == errors[1]


def test_feeder_that_does_not_solve_came_through_its_trial(tmp_path: Path) -> None:
    feeder = read_feeder(write(tmp_path / "net", "New Load.q bus1=b kV=12.47 kW=600000 vminpu=0.01 vlowpu=0.001"))
    with pytest.raises(FeederError, match="does not converge"):
        Circuit(feeder)
    assert count_tried(tmp_path) == 1


def test_variable_that_is_no_number_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERGRID_TRIAL_S", "long")
    with pytest.raises(FeederError, match=r"POWERGRID_TRIAL_S: is 'long', not a number of seconds"):
        Circuit(read_feeder(write(tmp_path / "net")))
