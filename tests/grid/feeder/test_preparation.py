"""What the engine would play as something else is played as meant, or refused with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.check.inspection import inspect_feeder
from powergrid.errors import FeederError
from powergrid.grid.circuit.circuit import Circuit, Injection, Snapshot
from powergrid.grid.engine import FloatArray
from powergrid.grid.feeder.feeder import read_feeder

HEAD = """
Clear
New Circuit.meant bus1=s basekv=12.47 pu=1.02 mvasc3=200 mvasc1=150
New Line.a bus1=s bus2=b r1=0.3 x1=0.6 r0=0.6 x0=1.6 c1=0 c0=0 length=6 units=km normamps=300
"""
TAIL = """
Set VoltageBases=[12.47]
CalcVoltageBases
"""
LOADS = """
New Load.one bus1=b kv=12.47 kw=900 kvar=300 model=1
New Load.two bus1=b.1.2 phases=1 conn=delta kv=12.47 kw=200 kvar=50 model=5
New Load.zip bus1=b kv=12.47 kw=300 kvar=100 model=8 zipv=[0.5 0.3 0.2 0.4 0.3 0.3 0.8]
"""


def build(folder: Path, text: str, injections: tuple[Injection, ...] = (), tolerance: float = 1e-9) -> Circuit:
    path = folder / "Master.dss"
    path.write_text(HEAD + text + TAIL)
    return Circuit(read_feeder(path), injections, tolerance=tolerance)


def voltages(circuit: Circuit) -> FloatArray:
    assert circuit.solve()
    return np.abs(circuit.v[1:])


@pytest.mark.parametrize("written", ["a", "adm", "Admittance"])
def test_loads_as_admittances_follow_demand_as_constant_impedances(tmp_path: Path, written: str) -> None:
    circuit = build(tmp_path, f"{LOADS}\nSet LoadModel={written}")
    engine = build(tmp_path, LOADS).engine.direct  # the referee, in its own mode, its matrix built anew each time
    engine.Text.Command("set loadmodel=admittance")
    loads = circuit.network.loads
    for share in (0.2, 1.0, 0.6):
        circuit.write_demand(share * loads.kw, share * loads.kvar)
        for name, kw, kvar in zip(loads.names, loads.kw, loads.kvar, strict=True):
            engine.Text.Command(f"edit load.{name} kw={share * kw} kvar={share * kvar}")
        engine.Text.Command("solve")
        snapshot = Snapshot.allocate(1, circuit.network, 0)
        assert circuit.solve()
        circuit.read(snapshot)
        assert snapshot.source_kva[0].real == pytest.approx(-engine.Circuit.TotalPower()[0], rel=1e-6)


def test_devices_deliver_what_is_asked_where_loads_are_admittances(tmp_path: Path) -> None:
    text = "New Generator.g bus1=b kv=12.47 kw=300 kva=400\nSet LoadModel=Adm"
    circuit = build(tmp_path, LOADS + text, (Injection("g", element="Generator.g"),))
    snapshot = Snapshot.allocate(1, circuit.network, 1)
    for kw in (0.0, 150.0, 300.0):
        circuit.write_demand(circuit.network.loads.kw, circuit.network.loads.kvar)
        circuit.write_injections(np.array([kw]), np.array([-40.0]))
        assert circuit.solve()
        circuit.read(snapshot)
        assert snapshot.device_kva[0, 0] == pytest.approx(kw - 40j, rel=1e-6, abs=1e-5)


def test_check_says_that_loads_are_admittances(tmp_path: Path) -> None:
    build(tmp_path, f"{LOADS}\nSet LoadModel=Adm")
    (found,) = inspect_feeder(tmp_path / "Master.dss").of_code("played-otherwise")
    assert "LoadModel=Admittance" in found.message


def test_check_says_which_models_a_device_does_not_have(tmp_path: Path) -> None:
    build(
        tmp_path, LOADS + "New Storage.z bus1=b kv=12.47 kwrated=50 kwhrated=90 model=2\nNew PVSystem.p bus1=b kv=12.47"
    )
    (found,) = inspect_feeder(tmp_path / "Master.dss").of_code("played-otherwise")
    assert found.message == "storage.z: of another Model than 1; as devices they deliver the power asked for"


#: A load with some phases open, and what is left of it: to both engines a constant impedance.
OPENED = {
    "New Load.x bus1=b kv=12.47 kw=600 kvar=150\nOpen Load.x 1": "",
    "New Load.x bus1=b.2 phases=1 kv=7.2 kw=200 kvar=50\nOpen Load.x 1 1": "",
    "New Load.x bus1=b kv=12.47 kw=600 kvar=150\nOpen Load.x 1 2": (
        "New Load.x1 bus1=b.1 phases=1 kv=7.199557856794634 kw=200 kvar=50 model=2\n"
        "New Load.x3 bus1=b.3 phases=1 kv=7.199557856794634 kw=200 kvar=50 model=2"
    ),
    "New Load.x bus1=b.3.2.1.0 kv=12.47 kw=600 kvar=150\nOpen Load.x 1 2\nOpen Load.x 1 3": (
        "New Load.x3 bus1=b.3 phases=1 kv=7.199557856794634 kw=200 kvar=50 model=2"
    ),
    "New Load.x bus1=b.2 phases=1 kv=7.2 kw=200 kvar=50\nOpen Load.x 1 2": "",
    "New Load.x bus1=b.1.2 phases=1 conn=delta kv=12.47 kw=200 kvar=50\nOpen Load.x 1 2": "",
    "New Load.x bus1=b conn=delta kv=12.47 kw=600 kvar=150\nOpen Load.x 1": "",
    "New Load.x bus1=b conn=delta kv=12.47 kw=600 kvar=150\nOpen Load.x 1 2\nOpen Load.x 1 3": "",
    "New Load.x bus1=b.2.3.1 conn=delta kv=12.47 kw=600 kvar=150\nOpen Load.x 1 2": (
        "New Load.x1 bus1=b.2.1 phases=1 conn=delta kv=12.47 kw=200 kvar=50 model=2\n"  # what lies between these two
        "New Load.x2 bus1=b.2.1 phases=1 conn=delta kv=12.47 kw=100 kvar=25 model=2"  # two legs in series
    ),
    "New Load.x bus1=b phases=2 conn=delta kv=12.47 kw=600 kvar=150\nOpen Load.x 1 1": (
        "New Load.x1 bus1=b.2.3 phases=1 conn=delta kv=12.47 kw=300 kvar=75 model=2"
    ),
    "New Load.x bus1=b phases=2 conn=delta kv=12.47 kw=600 kvar=150\nOpen Load.x 1 2": (
        "New Load.x1 bus1=b.1.3 phases=1 conn=delta kv=12.47 kw=150 kvar=37.5 model=2"
    ),
    "New Load.x bus1=b phases=2 conn=delta kv=12.47 kw=600 kvar=150\nOpen Load.x 1 3": (
        "New Load.x1 bus1=b.1.2 phases=1 conn=delta kv=12.47 kw=300 kvar=75 model=2"
    ),
}


@pytest.mark.parametrize(("opened", "left"), OPENED.items())
def test_open_load_is_what_is_left_of_it(tmp_path: Path, opened: str, left: str) -> None:
    town = "New Load.town bus1=b kv=12.47 kw=500 kvar=100\n"
    expected = voltages(build(tmp_path, town + left))
    for _ in range(3):  # of an open load the engine reads memory that it never wrote: each time something else
        assert voltages(build(tmp_path, town + opened)) == pytest.approx(expected, abs=1e-4)
    assert not inspect_feeder(tmp_path / "Master.dss").errors


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("New Generator.x bus1=b kv=12.47 kw=600\nOpen Generator.x 1 2", r"Generator\.x is open in part"),
        ("New Load.x bus1=b kv=12.47 kw=600 kvar=150\nOpen Load.x 1 4", r"Load\.x is open at its neutral"),
    ],
)
def test_what_cannot_be_played_open_in_part_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(FeederError, match=told) as error:
        build(tmp_path, text)
    assert error.value.details[0].where.endswith("Master.dss:6")
    findings = inspect_feeder(tmp_path / "Master.dss").errors
    assert [(finding.code, finding.line) for finding in findings] == [("impossible-element", 6)]


#: Controls that open what they are told at once, or because more flows than they bear.
OPENERS = (
    "New SwtControl.c SwitchedObj={} SwitchedTerm=1 Normal=open State=open",
    "New Relay.c MonitoredObj=Line.a SwitchedObj={} State=open",
    "New Recloser.c MonitoredObj=Line.a SwitchedObj={} PhaseTrip=1 Shots=1 PhaseFast=d PhaseDelayed=d",
    "New Fuse.c MonitoredObj=Line.a SwitchedObj={} RatedCurrent=1",
)


@pytest.mark.parametrize("control", OPENERS)
@pytest.mark.parametrize(
    ("element", "draws_kw"),
    [
        ("Load.x bus1=b kv=12.47 kw=300", 300.0),
        ("Generator.x bus1=b kv=12.47 kw=300 kvar=0", -300.0),
        ("PVSystem.x bus1=b kv=12.47 kva=300 pmpp=300", 0.0),
        ("Capacitor.x bus1=b kv=12.47 kvar=300", 0.0),
    ],
)
def test_protection_that_opens_one_element_is_played_or_left_out_by_name(
    tmp_path: Path, control: str, element: str, draws_kw: float
) -> None:
    name = element.partition(" ")[0]
    opened = "State=open" in control  # as compiled: then loads and generators are out
    text = f"New Load.town bus1=b kv=12.47 kw=500 kvar=100\nNew {element}\n{control.format(name)}"
    circuit = build(tmp_path, text)
    for _ in range(3):  # OpenDSS takes an open load out of the first solve alone
        assert circuit.engine.solve(controls=True)
    source = circuit.engine.direct.Circuit.TotalPower()[0]
    assert -source == pytest.approx(500.0 + (0.0 if opened else draws_kw), abs=15.0)
    left_out = [note for note in circuit.network.notes if "is left out" in note and name in note]
    assert len(left_out) == (draws_kw != 0.0)


@pytest.mark.parametrize(
    "element",
    [
        "New PVSystem.own bus1=b kv=12.47 kva=100 pmpp=100 model=3",
        "New Storage.own bus1=b kv=12.47 kwrated=100 kwhrated=200 model=3",
        'New "Generator.own" bus1=b kv=12.47 kw=100 model=6',
    ],
)
def test_model_of_the_users_own_is_refused_with_its_line(tmp_path: Path, element: str) -> None:
    class_name = element.split(".")[0].rpartition(" ")[2].strip('"').lower()
    with pytest.raises(FeederError, match=rf"Master\.dss:5: {class_name}\.own has Model=\d, a program of the user's"):
        build(tmp_path, element)
    (found,) = inspect_feeder(tmp_path / "Master.dss").errors
    assert (found.code, found.line) == ("no-user-model", 5)


def test_step_that_diverges_is_solved_from_the_start_with_its_setpoints_in_the_matrix(tmp_path: Path) -> None:
    """A wye of constant power behind a delta: 1 kW at the start, 150 kW later."""
    text = """
New Transformer.t buses=(b lv) conns=(wye delta) kvs=(12.47 0.48) kvas=(500 500) xhl=5.75
New Load.house bus1=lv kv=0.48 kw={} kvar={}
Set VoltageBases=[12.47 0.48]
"""
    circuit = build(tmp_path, text.format(1, 0.1))
    circuit.write_demand(np.array([150.0]), np.array([-20.0]))
    assert not (circuit.run() and circuit.v[1:].max() < 1e5)
    circuit.fall_back()
    assert circuit.solve()
    bus = circuit.network.nodes_of([circuit.network.bus_index["b"]])
    found = np.abs(circuit.v[1:][bus])
    assert found == pytest.approx(voltages(build(tmp_path, text.format(150, -20)))[bus], rel=1e-6)
    circuit.write_demand(np.array([1.0]), np.array([0.1]))  # and play goes on as ever
    first = circuit.state()["v"] if circuit.solve() else None
    circuit.reset()
    circuit.write_demand(np.array([1.0]), np.array([0.1]))
    assert circuit.solve()
    assert first == pytest.approx(circuit.v, abs=1e-3)


def test_node_beyond_those_of_the_engine_is_refused_by_its_bus(tmp_path: Path) -> None:
    text = f"{LOADS}\nNew Line.far phases=1 bus1=b.99999 bus2=c.99999"
    with pytest.raises(FeederError, match=r"bus1=b.99999': there is no node 99999; nodes are 0 to 32767"):
        build(tmp_path, text)
    assert "no node 99999" in str(inspect_feeder(tmp_path / "Master.dss").errors)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Set %growth=1e300\nSet Year=2000000000", "multiply demand by inf"),
        ("Set LoadMult=1e308", r"multiply demand by 1e\+308"),
        ("New GrowthShape.g npts=1 year=(1) mult=(9)\nEdit Load.one growth=g\nSet Year=99", "multiply demand by"),
        (
            "New GrowthShape.g npts=1 year=(1) mult=(1)\nEdit Load.one growth=g\nSet %growth=0\nSet Year=99999",
            "years after",
        ),
    ],
)
def test_demand_that_grows_beyond_all_is_refused_with_the_line_that_has_it_grow(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(FeederError, match=told) as error:
        build(tmp_path, f"{LOADS}\n{text}")
    assert error.value.details[0].where.endswith(f"Master.dss:{10 + text.count(chr(10))}")


def test_regulator_of_more_steps_than_a_device_may_have_is_a_finding(tmp_path: Path) -> None:
    tapped = "New Transformer.t buses=(b c) kvs=(12.47 12.47) kvas=(500 500) numtaps=2147483647"
    path = tmp_path / "Master.dss"
    path.write_text(f"{HEAD}{LOADS}{tapped}{TAIL}")
    report = inspect_feeder(path)
    assert any("can be no device: tap_" in finding.message for finding in report.of_code("extremes"))


def test_control_that_is_not_played_and_can_end_the_process_is_not_handed_to_the_engine(tmp_path: Path) -> None:
    control = "New ESPVLControl.e element=Line.a terminal=1\n~ type=systemcontroller"
    text = f"{LOADS}\n{control}\nNew Load.after bus1=b kv=12.47 kw=1"
    circuit = build(tmp_path, text)
    assert not circuit.engine.handles("ESPVLControl")
    assert "after" in circuit.handles["Load"]
    found = inspect_feeder(tmp_path / "Master.dss").findings
    assert sum(finding.code == "left-out" and "not run" in finding.message for finding in found) == 2
