"""Lists of elements that controls are for: whatever way members are written, the same ones are meant, or none is."""

from __future__ import annotations

from pathlib import Path

import pytest

from powergrid.errors import FeederError
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.feeder import read_feeder

MODEL = """
Clear
New Circuit.members basekv=12.47
New Line.l1 bus1=sourcebus bus2=b length=1 units=km r1=0.3 x1=0.4
New Transformer.t buses=(b c) kvs=(12.47 12.47) kvas=(1000 1000)
New Load.a bus1=c kv=12.47 kw=200 kvar=100
New Capacitor.k bus1=c kv=12.47 kvar=100
New PVSystem.p bus1=c kv=12.47 kva=100 pmpp=80
New PVSystem.both bus1=c kv=12.47 kva=100 pmpp=80
New Storage.s bus1=c kv=12.47 kwrated=50 kwhrated=100
New Storage.both bus1=c kv=12.47 kwrated=50 kwhrated=100
New Generator.g bus1=c kv=12.47 kw=50
New XYCurve.vv npts=4 xarray=(0.9 0.95 1.05 1.1) yarray=(1 0 0 -1)
{}
Set VoltageBases=[12.47]
CalcVoltageBases
"""
INVERTERS = "New InvControl.i mode=voltvar vvc_curve1=vv "
DISPATCH = "New GenDispatcher.d element=Line.l1 kwlimit=100 "


def write(folder: Path, line: str) -> Path:
    (folder / "Master.dss").write_text(MODEL.replace("{}", line))
    return folder / "Master.dss"


@pytest.mark.parametrize(
    ("line", "understood"),
    [
        (INVERTERS + "DERList=[p]", "DERList=PVSystem.p"),
        (INVERTERS + "DERList=p", "DERList=PVSystem.p"),
        (INVERTERS + "DERList=[p, PVSystem.both, s]", "DERList=[PVSystem.p PVSystem.both Storage.s]"),
        (INVERTERS + "DERList=[pvsystem.P]", "DERList=PVSystem.P"),
        (INVERTERS + "DERList=[]", ""),
        (INVERTERS + "PVSystemList=[PVSystem.p both]", "PVSystemList=[p both]"),
        ("New ExpControl.e PVSystemList=[PVSystem.p both]", "PVSystemList=[p both]"),
        ("New ExpControl.e DERList=[PVSystem.p]", "DERList=p"),
        ("New StorageController.c element=Line.l1 ElementList=[Storage.both]", "ElementList=both"),
        (DISPATCH + "GenList=[Generator.g]", "GenList=g"),
        ("New RegControl.r transformer=Transformer.t winding=2 vreg=120 ptratio=60", "transformer=t"),
        ("New CapControl.c element=Line.l1 capacitor=Capacitor.k type=kvar on=5 off=1", "capacitor=k"),
    ],
)
def test_members_are_handed_on_as_the_engine_takes_them(tmp_path: Path, line: str, understood: str) -> None:
    feeder = read_feeder(write(tmp_path, line))
    assert understood in feeder.commands[11].text
    circuit = Circuit(feeder)  # of a list in the other form the engine dies, or takes no member
    try:
        assert circuit.solve()
    finally:
        circuit.close()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (INVERTERS + "DERList=[PVSystem.p nope]", "unknown PVSystem or Storage 'nope'"),
        (INVERTERS + "DERList=[PVSystem.pp]", "unknown PVSystem 'pp'"),
        (INVERTERS + "DERList=[Generator.g]", "unknown PVSystem or Storage 'Generator.g'"),
        (INVERTERS + "DERList=[both]", "may be PVSystem.both or Storage.both"),
        (INVERTERS + "PVSystemList=[Storage.s]", "unknown PVSystem 'Storage.s'"),
        ("New ExpControl.e DERList=[nope]", "unknown PVSystem 'nope'"),
        ("New ExpControl.e PVSystemList=[later]\nNew PVSystem.later bus1=c kv=12.47", "unknown PVSystem 'later'"),
        ("New StorageController.c element=Line.l1 ElementList=[Storage.x]", "unknown Storage 'x'"),
    ],
)
def test_member_that_is_not_there_is_a_problem_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(FeederError) as error:
        read_feeder(write(tmp_path, line))
    (problem,) = error.value.details
    assert problem.code == "unknown-name"
    assert problem.where.endswith("Master.dss:14")
    assert told in problem.text


@pytest.mark.parametrize(
    ("monitored", "told"),
    [
        ("MonBus=[b]", "unknown node 'b'"),
        ("MonBus=[nowhere.1]", "unknown node 'nowhere.1'"),
        ("MonBus=[b.1 c.1]", "2 buses"),
    ],
)
def test_bus_that_cannot_be_watched_is_a_problem_with_its_line(tmp_path: Path, monitored: str, told: str) -> None:
    line = f"{INVERTERS} DERList=[p] {monitored} MonBusesVbase=[7200]"
    with pytest.raises(FeederError, match=told) as error:
        Circuit(read_feeder(write(tmp_path, line)))
    assert error.value.details[0].where.endswith("Master.dss:14")


def test_bases_of_watched_buses_may_stand_before_the_buses(tmp_path: Path) -> None:
    line = f"{INVERTERS} DERList=[p] MonBusesVbase=[7200 7200] MonBus=[b.1.2.3 c.1]"
    circuit = Circuit(read_feeder(write(tmp_path, line)))
    control = circuit.engine.handles("InvControl")["i"]
    assert circuit.solve()
    assert circuit.engine.get_floats(control, "InvControl", "MonBusesVbase").tolist() == [7200.0, 7200.0]
    circuit.close()
