"""Names with dots, blanks, brackets, quotes: what refers to them is found, moved, left alone as under plain ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.own.controls import ControlPlan
from powergrid.grid.feeder.compose import compose
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.feeder.microgrid import MicrogridSpec
from powergrid.scenario import load_scenario

#: One of each control, its elements all of one name; beside each stands one that is called like the end of it.
MODEL = """New Circuit.c basekv=12.47 pu=1.03 bus1=src
New LineCode.oh nphases=3 r1=.3 x1=.6 r0=.6 x0=1.6 c1=0 c0=0 units=km normamps=300
New Line.a bus1=src bus2=b linecode=oh length=6 units=km
New {q}Line.{n}{r} bus1=b bus2=h linecode=oh length=1 units=km switch=y
New {q}Line.sw {n}{r} bus1=b bus2=k linecode=oh length=1 units=km switch=y
New {q}Transformer.{n}{r} buses=[b e] kvs=[12.47 12.47] kvas=[5000 5000] xhl=1
New Transformer.2 buses=[b e2] kvs=[12.47 12.47] kvas=[2000 2000] xhl=1 taps=[1 1.0125]
New {q}RegControl.{n}{r} transformer={q}{n}{r} winding=2 vreg=122 band=2 ptratio=60
New {q}Capacitor.{n}{r} bus1=e kv=12.47 kvar=600 states=[0]
New Capacitor.2 bus1=e kv=12.47 kvar=30
New {q}CapControl.{n}{r} element={q}Line.a{r} capacitor={q}{n}{r} type=kvar onsetting=400 offsetting=-900
New {q}Recloser.{n}{r} monitoredobj={q}Line.{n}{r} phasetrip=900
New {q}SwtControl.{n}{r} switchedobj={q}Line.sw {n}{r} normal=closed
New XYCurve.vv npts=4 xarray=[.5 .95 1.02 1.2] yarray=[1 1 0 -1]
New {q}PVSystem.{n}{r} bus1=e kv=12.47 kva=900 pmpp=700 irradiance=1
New {q}Storage.{n}{r} bus1=e kv=12.47 kwrated=200 kwhrated=800
New Storage.2 bus1=e kv=12.47 kwrated=200 kwhrated=800
New {q}InvControl.{n}{r} derlist=({q}PVSystem.{n}{r}) mode=voltvar vvc_curve1=vv
New {q}StorageController.{n}{r} element=line.a elementlist=({q}{n}{r}) modedischarge=peakshave kwtarget=1500
New {q}Load.{n}{r} bus1=e kv=12.47 kw=2500 kvar=900
New Load.h bus1=h kv=12.47 kw=100 kvar=30
New Load.k bus1=k kv=12.47 kw=100 kvar=30
Set VoltageBases=[12.47]
CalcVoltageBases
"""
PLAIN = "plain"
ODD = (
    *(
        "vr.2",
        "load.x",
        "a b",
        "a,b",
        "shop[2]",
        "a@b",
        "Süd",
        "a:b",
        "o'neil",
        "#2",
        "[2]",
        "変電所",
        "a*",
        "50%",
    ),
)


def write(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    master = folder / "Master.dss"
    master.write_text(MODEL.format(n=name, q='"', r='"'), encoding="utf-8")
    return master


def look(folder: Path, name: str, plan: ControlPlan) -> tuple[list[tuple[str, ...]], list[float]]:
    """Return what each control moves, its name put back to the plain one, and what the circuit solves to."""
    circuit = Circuit(read_feeder(write(folder, name)), plan=plan)
    try:
        circuit.controls.prepare(0.0)
        assert circuit.solve(controls=True)
        moved = [
            (c.class_name, *(each.replace(name.lower(), PLAIN) for each in (c.name, *c.targets)))
            for c in (*circuit.network.controls, *circuit.controls.controls)
        ]
        numbers = [*np.abs(circuit.v), *circuit.powers.read(), *circuit.taps, *circuit.steps_on, *circuit.closed]
        return moved, [float(abs(number)) for number in numbers]
    finally:
        circuit.close()


def plan_of(name: str) -> ControlPlan:
    """Return a plan that leaves all to the feeder but one of the two batteries, which a controller must leave alone."""
    return ControlPlan(held=frozenset({f"capacitor.{name}".lower(), "storage.2"}), others=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[tuple[str, ...]], list[float]]]:
    folder = tmp_path_factory.mktemp("plain")
    return [look(folder, PLAIN, ControlPlan(others=True)), look(folder, PLAIN, plan_of(PLAIN))]


@pytest.mark.parametrize("name", ODD)
def test_controls_of_elements_with_odd_names_move_what_they_do_under_plain_ones(
    name: str, plain: list[tuple[list[tuple[str, ...]], list[float]]], tmp_path: Path
) -> None:
    moved, numbers = look(tmp_path, name, ControlPlan(others=True))
    assert len(moved) == 2 * 6
    assert (moved, numbers) == plain[0]
    assert look(tmp_path, name, plan_of(name)) == plain[1]


@pytest.mark.parametrize("name", ["vr.2", "a,b [2]"])
def test_discovery_takes_each_element_of_an_odd_name_once_and_leaves_it_to_its_control(
    name: str, tmp_path: Path
) -> None:
    master = str(write(tmp_path, name))
    devices = load_scenario(master).devices
    elements = [str(spec.element) for spec in devices.values()]
    assert len(elements) == len(set(elements))
    own = {f"Storage.{name}", f"PVSystem.{name}", f"Capacitor.{name}", f"RegControl.{name}"}
    assert own < set(elements)
    assert {"Transformer.2", "Capacitor.2", "Storage.2"} < set(elements)
    assert f"Line.{name}" not in elements  # a recloser's
    native = {key: {"control": "opendss"} for key, spec in devices.items() if spec.element in own}
    simulation = load_scenario({"feeder": master, "devices": native}).simulate()
    try:
        simulation.reset(0, np.random.default_rng(0), 20)
        before = simulation.circuits[0].taps.copy()
        for _ in range(8):
            simulation.step(simulation.neutral())
        assert len(simulation.circuits[0].controls.controls) == len(own)
        assert simulation.circuits[0].taps.tolist()[1:] == before.tolist()[1:]  # the other transformer's stays
    finally:
        simulation.close()


def test_load_of_an_odd_name_takes_a_class_and_an_event_by_its_name(tmp_path: Path) -> None:
    master = str(write(tmp_path, "shop[2]"))
    data = {
        "feeder": master,
        "profiles": {"source": "builtin", "load_classes": {"shop[2]": "commercial"}},
        "events": {"peak": {"kind": "load_step", "loads": ["shop[2]"], "factor": 2.0, "at_hour": 1.0}},
    }
    assert load_scenario(data).simulate().network.loads.names[0] == "shop[2]"


@pytest.mark.parametrize("name", ["vr.2", "a b", "shop[2]", "load.x"])
def test_composing_keeps_what_refers_to_odd_names(name: str, tmp_path: Path) -> None:
    own = write(tmp_path, name)
    host = tmp_path / "host.dss"
    host.write_text(
        "New Circuit.h basekv=12.47 pu=1.03 bus1=src\nNew Line.h bus1=src bus2=t r1=.1 x1=.1 length=1\n"
        "New Load.h bus1=t kv=12.47 kw=100\nSet VoltageBases=[12.47]\nCalcVoltageBases\n"
    )
    ohm = dict.fromkeys(("r1_ohm_per_km", "x1_ohm_per_km", "r0_ohm_per_km", "x0_ohm_per_km"), 0.1)
    tie = {"kind": "line", "length_km": 1.0, "norm_amps": 900, **ohm}
    spec = MicrogridSpec.model_validate({"feeder": str(own), "bus": "t", "tie": tie})
    alone, whole = Circuit(read_feeder(own)), Circuit(compose(read_feeder(host), {"MG": spec}))
    try:
        expected = [
            (c.class_name, *(f"{t.partition('.')[0]}.mg_{t.partition('.')[2]}" for t in c.targets))
            for c in alone.network.controls
        ]
        assert [(c.class_name, *c.targets) for c in whole.network.controls] == expected
        assert whole.steps_on.tolist() == alone.steps_on.tolist()
    finally:
        alone.close()
        whole.close()
