"""Circuits at the edges: what is open, held or switched off in the model, and circuits without loads or controls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import powergrid
from powergrid.check.inspection import inspect_feeder
from powergrid.errors import FeederError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.scenario import load_scenario
from tests.scenario.discovery.models import write

HEAD = """New Circuit.c basekv=12.47 pu=0.97 bus1=s
New Line.l bus1=s bus2=b r1=.3 x1=.6 r0=.6 x0=1.6 c1=0 c0=0 length=4 normamps=400
New Transformer.r buses=(b e) kvs=(12.47 12.47) kvas=(5000 5000) xhl=1 taps=[1 1.025]
New RegControl.r transformer=r winding=2 vreg=122 band=2 ptratio=60
New Capacitor.k bus1=e kv=12.47 kvar=300
New CapControl.k element=Line.l capacitor=k type=kvar onsetting=100 offsetting=-900
New Load.e bus1=e kv=12.47 kw=2000 kvar=600
New Generator.g bus1=e kv=12.47 kw=400 kva=500 pf=1
New PVSystem.p bus1=e kv=12.47 pmpp=300 kva=330
New Storage.t bus1=e kv=12.47 kwrated=100 kwhrated=400
"""
TAIL = "Set VoltageBases=[12.47]\nCalcVoltageBases\n"


@pytest.mark.parametrize("element", ["Generator.g", "PVSystem.p", "Storage.t", "Transformer.r"])
def test_what_is_open_in_the_model_is_no_device(element: str, tmp_path: Path) -> None:
    master = write(tmp_path, HEAD + TAIL + f"Open {element} 1\n")
    elements = {str(spec.element).lower() for spec in load_scenario(str(master)).devices.values()}
    assert len(elements) == 4
    assert element.lower().replace("transformer", "regcontrol") not in elements
    assert inspect_feeder(master).exit_code() == 0


def test_open_capacitor_is_one_that_is_off_and_can_be_switched_on_and_back(tmp_path: Path) -> None:
    text = "\n".join(line for line in HEAD.splitlines() if "CapControl" not in line)
    circuit = Circuit(read_feeder(write(tmp_path, f"{text}\n{TAIL}Open Capacitor.k 1\n")), tolerance=1e-9)
    closed = Circuit(read_feeder(write(tmp_path, f"{text}\n{TAIL}", "closed.dss")), tolerance=1e-9)
    try:
        for each in (circuit, closed):
            each.switchgear.write_taps(each.taps * 0)
            assert each.solve()
        start = circuit.v.copy()
        assert (circuit.steps_on.tolist(), closed.steps_on.tolist()) == ([0], [1])
        circuit.switchgear.write_steps(np.array([1]))
        assert circuit.solve()
        np.testing.assert_allclose(circuit.v, closed.v, rtol=1e-7)
        circuit.switchgear.write_steps(np.array([0]))
        assert circuit.solve()
        np.testing.assert_allclose(circuit.v, start, rtol=1e-7)
    finally:
        circuit.close()
        closed.close()


def test_device_on_an_open_element_is_refused(tmp_path: Path) -> None:
    master = write(tmp_path, HEAD + TAIL + "Open Storage.t 1\n")
    with pytest.raises(FeederError, match=r"Storage\.t is open in the model: its power would go nowhere"):
        powergrid.make(master, discover={"storage": ["t"]})


def test_open_generator_feeds_nothing(tmp_path: Path) -> None:
    volts = []
    for words in ("Open Generator.g 1\n", "Disable Generator.g\n"):
        circuit = Circuit(read_feeder(write(tmp_path, HEAD + TAIL + words)))
        volts.append(np.abs(circuit.v))
        circuit.close()
    np.testing.assert_array_equal(volts[0], volts[1])


@pytest.mark.parametrize(
    ("change", "device", "note"),
    [
        (("band=2", "band=2 maxtapchange=0"), "reg_r", "RegControl.r left out: MaxTapChange=0"),
        (("taps=[1 1.025]", "taps=[1 1] numtaps=0"), "reg_r", "RegControl.r left out: its winding has one tap"),
        (("New Load.e", "New SwtControl.s switchedobj=Line.x lock=yes\nNew Load.e"), "sw_x", "locked by SwtControl.s"),
    ],
)
def test_control_that_cannot_move_makes_no_device_and_that_is_told(
    change: tuple[str, str], device: str, note: str, tmp_path: Path
) -> None:
    more = "New Line.x bus1=b bus2=e switch=y\nNew Line.y bus1=e bus2=f switch=y\n"
    text = HEAD.replace("New Load.e", more + "New Load.e") if device == "sw_x" else HEAD
    master = write(tmp_path, text.replace(*change) + TAIL)
    assert device not in load_scenario(str(master)).devices
    assert note in "\n".join(finding.message for finding in inspect_feeder(master).findings)


def test_control_that_cannot_move_is_nobody_to_leave_a_device_to(tmp_path: Path) -> None:
    held = {"devices.reg_r.control": "opendss"}
    with pytest.raises(ScenarioError, match=r"RegControl\.r moves nothing: ControlMode=OFF"):
        powergrid.make(write(tmp_path, HEAD + TAIL + "Set ControlMode=Off\n"), **held)
    master = write(tmp_path, HEAD.replace("band=2", "band=2 maxtapchange=0") + TAIL)
    with pytest.raises(ScenarioError, match=r"RegControl\.r moves nothing: MaxTapChange=0"):
        powergrid.make(master, discover={"regulators": ["r"]}, **held)


def solve_in_the_engine(text: str) -> np.ndarray:
    engine = Engine()
    try:
        engine.clear()
        for line in text.splitlines():
            engine.command(line)
        engine.command("set tolerance=1e-9")
        assert engine.solve(controls=True)
        return np.abs(engine.voltages(len(engine.node_names())))
    finally:
        engine.close()


@pytest.mark.parametrize("mode", ["OFF", "Static", "Time", "EVENT"])
def test_control_mode_off_keeps_the_taps_of_the_model_and_other_modes_let_controls_act(
    mode: str, tmp_path: Path
) -> None:
    text = HEAD + TAIL + f"Set ControlMode={mode}\n"
    circuit = Circuit(read_feeder(write(tmp_path, text)), tolerance=1e-9)
    try:
        # With time or events alone, and none passing, the engine's controls would never act.
        expected = solve_in_the_engine(text if mode == "OFF" else text.replace(mode, "Static"))
        np.testing.assert_allclose(np.abs(circuit.v), expected, rtol=1e-6)
        assert (circuit.taps.tolist() == [4]) == (mode == "OFF")
    finally:
        circuit.close()


def test_native_day_with_control_mode_off_stands_at_the_taps_of_the_model(tmp_path: Path) -> None:
    master = write(tmp_path, HEAD + TAIL + "Set ControlMode=OFF\n")
    scenario = load_scenario(str(master))
    assert (scenario.taps, scenario.steps_on) == ({}, {})
    simulation = load_scenario(str(master), {"native_controls": True}).simulate()
    try:
        simulation.reset(0, np.random.default_rng(0), 20)
        for _ in range(24):
            simulation.step(simulation.neutral())
            assert simulation.circuits[0].taps.tolist() == [4]
            assert simulation.circuits[0].steps_on.tolist() == [1]
    finally:
        simulation.close()


def test_generator_has_the_power_of_its_model_whatever_a_dispatcher_makes_of_it(tmp_path: Path) -> None:
    dispatcher = "New GenDispatcher.d element=Line.l kwlimit=10 genlist=[g]\n"
    master = write(tmp_path, HEAD + dispatcher + TAIL)
    assert load_scenario(str(master)).devices["gen_g"].p_max_kw == 400.0


NO_LOAD = """New Circuit.plant basekv=34.5 pu=1.0
New Line.collector bus1=sourcebus bus2=b r1=.1 x1=.3 r0=.3 x0=.9 length=3 normamps=300
New Transformer.gsu buses=(b lv) conns=(wye wye) kvs=(34.5 .6) kvas=(5000 5000) xhl=6
New PVSystem.pv bus1=lv kv=.6 pmpp=4000 kva=4400
New Capacitor.c bus1=b kv=34.5 kvar=600
Set VoltageBases=[34.5 .6]
CalcVoltageBases
"""


def test_circuit_without_a_load_plays_and_says_what_needs_demand(tmp_path: Path) -> None:
    master = write(tmp_path, NO_LOAD)
    assert inspect_feeder(master).exit_code() == 0
    frame = evaluate({"feeder": str(master)}, ["no_control", "native", "rule_based", "random"], days=1).frame
    assert (frame["converged_share"] == 1.0).all()
    assert frame["import_kwh"].iloc[0] < -1000.0
    with pytest.raises(ScenarioError, match="no load with active power"):
        powergrid.make(master, add_der={"penetration": 0.3})


#: Circuits of what is rare, each with a capacitor to be moved.
RARE = {
    "two sources": "New Vsource.two bus1=e basekv=12.47 pu=.97 r1=1 x1=5 r0=1 x0=5\n",
    "a current source": "New Isource.i bus1=e amps=15 angle=30\n",
    "an autotransformer": "New AutoTrans.a buses=(e f) kvs=(12.47 7.2) kvas=(900 900)\nNew Load.f bus1=f kv=7.2 kw=9\n",
    "a current source that is controlled": "New VCCS.v bus1=e.1 phases=1 prated=1000 vrated=7200 ppct=100\n",
    "an induction machine": "New IndMach012.m bus1=e kv=12.47 kw=100 kva=150\n",
}


@pytest.mark.parametrize("what", RARE)
def test_rare_elements_solve_the_same_each_time_and_as_in_the_engine(what: str, tmp_path: Path) -> None:
    text = HEAD + RARE[what] + TAIL
    circuits = [Circuit(read_feeder(write(tmp_path, text)), tolerance=1e-9) for _ in range(2)]
    try:
        first, second = (np.abs(circuit.v) for circuit in circuits)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, solve_in_the_engine(text), rtol=1e-5)
    finally:
        for circuit in circuits:
            circuit.close()


def test_transformer_of_a_held_control_is_no_tap_changer_beside_one_that_acts(tmp_path: Path) -> None:
    second = (
        "New Transformer.r2 phases=3 windings=2 buses=[b r2] conns=[wye wye] kvs=[12.47 12.47] kvas=[2000 2000] xhl=1\n"
        "New RegControl.r2 transformer=r2 winding=2 vreg=122 band=2 ptratio=60 maxtapchange=0\nNew Load.e"
    )
    devices = load_scenario(str(write(tmp_path, HEAD.replace("New Load.e", second, 1) + TAIL))).devices
    assert "reg_r" in devices
    assert not [name for name, spec in devices.items() if "r2" in getattr(spec, "element", "").lower()]


def test_load_at_ground_alone_draws_nothing_and_is_where_its_name_says(tmp_path: Path) -> None:
    master = write(tmp_path, HEAD + "New Load.grounded bus1=b.0.0.0 kv=12.47 kw=50\n" + TAIL)
    env = powergrid.make(str(master), agents={"layout": "per_zone", "zones": 2}, episode_length=2)
    network = env.task.simulation.network
    assert network.buses[network.loads.bus[network.loads.names.index("grounded")]] == "b"
    env.close()
