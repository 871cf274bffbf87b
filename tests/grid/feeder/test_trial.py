"""The first compile of a foreign feeder: in a process of its own, once a content; a typed error whatever happens."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import powergrid
from powergrid.errors import FeederError
from powergrid.grid.circuit import Circuit
from powergrid.grid.engine import Engine
from powergrid.grid.engine.cache_folder import write_packed
from powergrid.grid.feeder import read_feeder, trial
from powergrid.grid.feeder.compile import compile_feeder, encode_network, known_network, networks
from powergrid.grid.feeder.compose import compose
from powergrid.grid.feeder.microgrid import MicrogridSpec
from powergrid.grid.feeder.reading.syntax import Command

_CIRCUIT = """New Circuit.small basekv=12.47
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4 normamps=100
New Load.a bus1=b kV=12.47 kW=200 kvar=100
New Capacitor.k bus1=b kV=12.47 kvar=100
{}
Set VoltageBases=[12.47]
CalcVoltageBases
"""
_TIE = {"kind": "transformer", "s_max_kva": 1000}
#: OpenDSS asks for an array of 80 GB, is refused, and goes on all the same.
_CRASH = "New Line.q phases=100000 bus1=b bus2=c"


def write(folder: Path, *lines: str) -> Path:
    """Write a feeder of one file, with lines of its own as the fifth and the following ones."""
    folder.mkdir(exist_ok=True, parents=True)
    master = folder / "Master.dss"
    master.write_text(_CIRCUIT.format("\n".join(lines)))
    return master


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Switch trials on, with a cache of their own."""
    monkeypatch.setenv("POWERGRID_TRIAL_S", "60")
    monkeypatch.setenv("POWERGRID_CACHE", str(tmp_path / "cache"))
    trial.tried.forget()
    networks.forget()


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


def test_trial_hands_back_the_network_as_it_would_be_described_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = "New LoadShape.s npts=3 interval=1 mult=[0.999778 0.5 0.23859]"
    feeder = read_feeder(write(tmp_path / "net", shape, "New Load.b bus1=b.1.2 phases=1 kV=12.47 kW=10 yearly=s"))
    engine = Engine()
    assert known_network(feeder) is None
    compile_feeder(feeder, engine)
    tried = known_network(feeder)
    engine.close()
    monkeypatch.setenv("POWERGRID_TRIAL_S", "0")
    monkeypatch.setenv("POWERGRID_CACHE", "")
    networks.forget()
    here = Circuit(feeder)
    (text, arrays), (own_text, own_arrays) = map(encode_network, (tried, here.network))
    assert text == own_text
    assert arrays.keys() == own_arrays.keys()
    assert all(array.tobytes() == own_arrays[name].tobytes() for name, array in arrays.items())
    here.close()


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\x03\x04", None])
def test_network_that_a_trial_spoils_is_none(tmp_path: Path, damage: bytes | None) -> None:
    feeder, packed = read_feeder(write(tmp_path / "net")), io.BytesIO()
    write_packed(packed, '{"\\u0000table": "Loads"}', {})
    networks.keep_packed(feeder.key, packed.getvalue() if damage is None else damage)
    assert known_network(feeder) is None


def test_shipped_feeder_and_one_that_is_trusted_to_act_are_not_tried(tmp_path: Path) -> None:
    Circuit(read_feeder("ieee13")).close()
    Circuit(read_feeder(write(tmp_path / "net", "Solve", "Export Voltages"), trust=True)).close()
    assert count_tried(tmp_path) == 0


def test_trusted_feeder_that_describes_a_circuit_is_tried_with_the_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "outside.dss").write_text("New Load.b bus1=b kV=12.47 kW=10\n")
    master = write(tmp_path / "net" / "deep", f"Redirect {tmp_path}/outside.dss")
    Circuit(read_feeder(master, trust=True)).close()
    assert count_tried(tmp_path) == 1
    with pytest.raises(FeederError, match="OpenDSS"):
        Circuit(read_feeder(write(tmp_path / "net", _CRASH), trust=True))


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


def test_composed_feeder_is_tried_where_a_part_is_foreign(tmp_path: Path) -> None:
    spec = {"MG1": MicrogridSpec(feeder="ieee13", bus="850", entry="650", load_scale=0.1, tie=_TIE)}
    Circuit(compose(read_feeder("ieee34"), spec)).close()
    assert count_tried(tmp_path) == 0
    feeder = compose(read_feeder(write(tmp_path / "net")), {"MG1": spec["MG1"].model_copy(update={"bus": "b"})})
    Circuit(feeder).close()
    assert count_tried(tmp_path) == 2  # by itself, and tied to the other


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is of Linux")
@pytest.mark.parametrize(
    "line",
    [
        "New LoadShape.s npts=3 interval=1 csvfile={}/s.csv",
        "New LoadShape.s npts=3 interval=1 mult=(file={}/s.csv)",
        "Redirect {}/s.csv",
        "Save Circuit dir={}/saved",
        "New LoadShape.s npts=3 interval=1 mult=(1 2 3) action=dblsave",
        "New Generator.g bus1=b kv=12.47 kw=1 UserModel={}/s.csv",
    ],
)
def test_what_the_reader_would_have_to_refuse_is_refused_by_the_system_too(tmp_path: Path, line: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "s.csv").write_text("1\n2\n3\n")
    feeder = read_feeder(write(tmp_path / "net"))
    # As if the reader had let it through: it comes last but for what closes the circuit.
    extra = Command(feeder.master, 99, line.format(outside))
    with pytest.raises(FeederError) as caught:
        Circuit(replace(feeder, commands=(*feeder.commands[:-2], extra, *feeder.commands[-2:]), digest="tampered"))
    assert "Master.dss:99" in caught.value.where
    assert [file.name for folder in (outside, tmp_path / "net") for file in folder.iterdir()] == ["s.csv", "Master.dss"]
    assert count_tried(tmp_path) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is of Linux")
@pytest.mark.parametrize("line", ["mult=(file={})", "csvfile={}"])
def test_file_that_the_system_withholds_is_told_as_such_and_not_as_missing(tmp_path: Path, line: str) -> None:
    (tmp_path / "s.csv").write_text("1\n2\n3\n")
    feeder = read_feeder(write(tmp_path / "net"))
    # As if the reader had let it through; OpenDSS says of some that there is no such file, of others nothing.
    text = f"New LoadShape.s npts=3 interval=1 {line.format(tmp_path / 's.csv')}"
    commands = (*feeder.commands[:-2], Command(feeder.master, 99, text), *feeder.commands[-2:])
    with pytest.raises(FeederError, match=r"s\.csv is there, and its trial was not let open it") as caught:
        Circuit(replace(feeder, commands=commands, digest="tampered"))
    assert [problem.code for problem in caught.value.details] == ["refused"]


def test_variable_that_is_no_number_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERGRID_TRIAL_S", "long")
    with pytest.raises(FeederError, match=r"POWERGRID_TRIAL_S: is 'long', not a number of seconds"):
        Circuit(read_feeder(write(tmp_path / "net")))
