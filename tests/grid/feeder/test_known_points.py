"""Points of LoadShapes that were read before are handed over as numbers, and nothing is otherwise for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from powergrid.grid.circuit.circuit import Circuit, network_of
from powergrid.grid.engine import Engine
from powergrid.grid.engine.own_process import TRIAL_VARIABLE
from powergrid.grid.feeder.compile import compile_feeder
from powergrid.grid.feeder.feeder import Feeder, read_feeder
from powergrid.grid.feeder.known_points import find_known

#: Of six digits behind the point, one in 4,000 is read by OpenDSS otherwise than by Python.
P = " ".join(f"0.{(i * 76543 + 999778) % 1000000:06d}" for i in range(5000))
FEEDER = """Clear
New Circuit.tiny basekv=12.47 pu=1.0 R1=0.01 X1=0.1
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4
{shape}
New LoadShape.idle npts=3 interval=1 mult=[1 2 3]
New Load.a bus1=b kV=12.47 kW=200 kvar=100 yearly=s
Set VoltageBases=[12.47]
CalcVoltageBases
"""


def read(folder: Path, shape: str) -> Feeder:
    (folder / "few.csv").write_text("0.5\n" * 24)
    (folder / "Master.dss").write_text(FEEDER.format(shape=shape))
    return read_feeder(folder / "Master.dss")


@pytest.mark.parametrize(
    ("shape", "known"),
    [
        (f"New LoadShape.s npts=5000 interval=1 mult=[{P}]", True),
        (f"New LoadShape.S npts=5000 minterval=15 pmult=({P}) useactual=yes", True),
        (f"New LoadShape.s npts=5000 interval=1 useactual=yes mult=[{P}] qmult=[{P}]", True),
        (f"New LoadShape.s npts=5000 interval=1 mult=[{P}] qmult=[{P}] useactual=yes", True),
        (f"New LoadShape.s npts=24 interval=1 mult=[{P}]", True),  # the engine cuts
        (f"New LoadShape.s npts=6000 interval=1 mult=[{P}]", True),  # the engine fills with 0
        (
            "New LoadShape.s npts=48 interval=1 mult=(file=few.csv)",
            False,
        ),  # of which the engine takes as many as there are
        (f"New LoadShape.s interval=1 mult=[{P}] npts=100", False),  # which has no points
        (f"New LoadShape.s npts=5000 interval=1 mult=[{P}] qmult=[.1 .2]", True),  # filled likewise
        (f"New LoadShape.s npts=5000 interval=1 mult=[{P}] action=normalize", False),
        (f"New LoadShape.s npts=5000 interval=1 mult=[{P}]\nEdit LoadShape.s action=normalize", False),
        (f"New LoadShape.s npts=5000 interval=1 mult=[{P}]\nNew LoadShape.S npts=2 mult=[3 4]", False),
        ("New LoadShape.s npts=3 hour=[1 2 5] mult=[.1 .2 .3]", False),
        ("New LoadShape.s like=default", False),
    ],
)
@pytest.mark.usefixtures("folder")
def test_circuit_is_the_same_with_points_that_are_known(
    shape: str, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRIAL_VARIABLE, "0")  # which would know them before
    feeder, engine, found = read(tmp_path, shape), Engine(), []
    for _ in range(2):
        compile_feeder(feeder, engine)
        data = engine.to_json()
        data["PreCommands"] = data["PreCommands"][1:]  # the first is the time of day
        found.append(data)
        assert bool(find_known(feeder.commands, network_of(feeder).shapes)) is known
    assert found[0] == found[1]
    engine.close()


@pytest.mark.usefixtures("folder")
def test_points_from_a_file_are_handed_over_as_numbers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRIAL_VARIABLE, "0")
    (tmp_path / "s.csv").write_text("\n".join(P.split()))
    feeder = read(tmp_path, "New LoadShape.s npts=5000 interval=1 mult=(file=s.csv)")
    before = Circuit(feeder)
    assert len(find_known(feeder.commands, before.network.shapes)) == 1
    after = Circuit(feeder)
    shapes = [c.engine.get_floats(c.engine.handles("LoadShape")["s"], "LoadShape", "PMult") for c in (before, after)]
    assert shapes[0].tobytes() == shapes[1].tobytes() == before.network.shapes.p.tobytes()
