"""Who moves what: an agent, the feeder's own control, or nobody; each against what OpenDSS does by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.envs.parallel import ParallelGridEnv
from powergrid.errors import ScenarioError
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.compile import compile_feeder, prepare_circuit
from powergrid.grid.simulation import Simulation
from powergrid.scenario import load_scenario

Simulate = Callable[..., Simulation]

#: A source, two lines and a load, with a regulator at the head; capacitors, PV and storage at the end.
FEEDER = """New Circuit.small basekv=12.47 pu={pu} bus1=src r1=0.5 x1=2 r0=0.5 x0=2
New Transformer.reg phases=3 windings=2 buses=(src a) kvs=(12.47 12.47) kvas=(10000 10000) xhl=0.5 %loadloss=0.01
New RegControl.reg transformer=reg winding=2 vreg=122 band=2 ptratio=60
New Line.l1 bus1=a bus2=b length=4 units=km r1=0.3 x1=0.6 r0=0.6 x0=1.2
New Load.big bus1=b kv=12.47 kw=4000 kvar=2400 vminpu=0.8
New Load.small bus1=b kv=12.47 kw=10 kvar=3
New Capacitor.volt bus1=b kv=12.47 kvar=900 states=[0]
New Capacitor.kvar bus1=b kv=12.47 kvar=600 states=[0]
New Capacitor.clock bus1=b kv=12.47 kvar=300 states=[0]
New PVSystem.pv bus1=b kv=12.47 kva=3000 pmpp=2500 irradiance=0 kvarmax=1500 kvarmaxabs=1500
New PVSystem.pv2 bus1=a kv=12.47 kva=300 pmpp=250 irradiance=0 kvarmax=150 kvarmaxabs=150
New XYCurve.vv npts=6 yarray=[1 1 0 0 -1 -1] xarray=[0.5 0.92 0.98 1.02 1.08 1.5]
New Storage.bat bus1=b kv=12.47 kwrated=800 kva=800 kwhrated=1000 %reserve=40
{controls}
Set VoltageBases=[12.47]
CalcVoltageBases
"""
VOLT = (
    "New CapControl.volt capacitor=volt element=Line.l1 terminal=2 type=voltage ptratio=60 onsetting=118 offsetting=126"
)
KVAR = "New CapControl.kvar capacitor=kvar element=Line.l1 type=kvar onsetting=700 offsetting=-200"
CLOCK = "New CapControl.clock capacitor=clock element=Line.l1 type=time onsetting=6 offsetting=18"
VOLT_VAR = "New InvControl.vv derlist=[PVSystem.pv PVSystem.pv2] mode=voltvar vvc_curve1=vv refreactivepower=varmax"
SHAVE = (
    "New StorageController.sc element=Line.l1 elementlist=[bat] modedischarge=peakshave modecharge=time "
    "timechargetrigger=2 kwtarget={target} resetlevel=0.8"
)


@pytest.fixture
def simulate(tmp_path: Path) -> Iterator[Simulate]:
    """Make simulations of the small feeder with some controls and devices; they are closed at the end."""
    made: list[Simulation] = []

    def make(
        devices: dict[str, Any], *controls: str, n_envs: int = 1, pu: float = 1.03, day: int = 20, **keys: Any
    ) -> Simulation:
        master = tmp_path / f"small{len(made)}.dss"
        master.write_text(FEEDER.format(pu=pu, controls="\n".join(controls)))
        agents = {"A": {"devices": list(devices), "zone": {"buses": ["b"]}, "pcc": "b"}}
        data = {"name": "small", "feeder": str(master), "devices": devices, "agents": agents} | keys
        made.append(load_scenario(data).simulate(n_envs))
        for env in range(n_envs):
            made[-1].reset(env, np.random.default_rng(0), day)
        return made[-1]

    yield make
    for simulation in made:
        simulation.close()


def regulator(control: str = "agent", **keys: Any) -> dict[str, Any]:
    return {"reg": {"kind": "regulator", "element": "RegControl.reg", "control": control} | keys}


def capacitor(name: str, control: str = "opendss") -> dict[str, Any]:
    return {name: {"kind": "capacitor", "element": f"Capacitor.{name}", "control": control}}


def battery(control: str = "opendss", **keys: Any) -> dict[str, Any]:
    spec = {"kind": "storage", "element": "Storage.bat", "control": control, "eta_discharge": 0.9, "eta_charge": 0.8}
    return {"bat": spec | keys}


def solar(control: str = "opendss", name: str = "pv", **keys: Any) -> dict[str, Any]:
    return {name: {"kind": "inverter", "element": f"PVSystem.{name}", "control": control} | keys}


def trace(simulation: Simulation, steps: int) -> list[tuple[Any, ...]]:
    """Play neutral actions and give every step's voltages, powers and positions, bit for bit."""
    rows = []
    for _ in range(steps):
        simulation.step(simulation.neutral())
        snapshot, circuits = simulation.snapshot, simulation.circuits
        moved = [circuit.taps.tolist() + circuit.steps_on.tolist() for circuit in circuits]
        rows.append((snapshot.v.tobytes(), snapshot.device_kva.tobytes(), str(moved), simulation.operations.tolist()))
    return rows


def solve_alone(simulation: Simulation, row: int) -> tuple[list[int], list[int], np.ndarray]:
    """Let OpenDSS find taps, steps and voltages of a row of demand in a context of its own, from nominal demand."""
    engine = Engine()
    try:
        compile_feeder(simulation.feeder, engine)
        prepare_circuit(simulation.feeder, engine, tolerance=1e-9, max_iterations=100)
        dss = engine.direct
        dss.Solution.Solve()
        kw, kvar = simulation.day_load_kw[0, row], simulation.day_load_kvar[0, row]
        for i, name in enumerate(simulation.network.loads.names):
            engine.command(f'edit "Load.{name}" kw={float(kw[i])!r} kvar={float(kvar[i])!r}')
        dss.Solution.Solve()
        taps, steps = [], []
        for name in simulation.network.regulator_controls:
            dss.RegControls.Name(name)
            taps.append(int(dss.RegControls.TapNumber()))
        for name in simulation.network.capacitors:
            dss.Capacitors.Name(name)
            steps.append(sum(dss.Capacitors.States()))
        volts = dict(zip(engine.node_names(), np.abs(engine.voltages(len(engine.node_names())))[1:], strict=True))
        return taps, steps, np.array([volts[node] for node in simulation.network.nodes])
    finally:
        engine.close()


@pytest.mark.parametrize("feeder", ["ieee13", "ieee34", "ieee123"])
@pytest.mark.parametrize("scale", [0.6, 1.3])
def test_all_left_to_opendss_finds_what_opendss_finds_by_itself(feeder: str, scale: float) -> None:
    network = load_scenario("ieee13_mg" if feeder == "ieee13" else _bare(feeder, {"x": {}})).simulate().network
    devices = {
        name: {"kind": "regulator", "element": f"RegControl.{name}", "control": "opendss"}
        for name in network.regulator_controls
    }
    simulation = load_scenario(_bare(feeder, devices), {"load_scale": scale, "native_controls": True}).simulate()
    try:
        start = simulation.circuits[0].taps.copy()
        simulation.reset(0, np.random.default_rng(0), 30)
        taps, steps, volts = solve_alone(simulation, 0)
        circuit = simulation.circuits[0]
        assert circuit.taps.tolist() == taps
        assert circuit.steps_on.tolist() == steps
        np.testing.assert_allclose(simulation.snapshot.v_pu[0], volts / simulation.network.v_base, atol=1e-6)
        assert circuit.taps.tolist() != start.tolist()  # there was something to find
        fleet = simulation.fleets[0]
        assert fleet.position[0].tolist() == taps
        assert simulation.operations[0] == 0  # what is found at the start is no operation
    finally:
        simulation.close()


def _bare(feeder: str, devices: dict[str, Any]) -> dict[str, Any]:
    network = {"ieee13": "671", "ieee34": "850", "ieee123": "67"}[feeder]
    if devices == {"x": {}}:
        devices = {"x": {"kind": "storage", "bus": network, "e_max_kwh": 10, "p_max_kw": 10}}
    agents = {"A": {"devices": list(devices), "zone": {"buses": [network]}, "pcc": network}}
    return {
        "name": "law", "feeder": feeder, "devices": devices, "agents": agents, "solver": {"tolerance": 1e-9},
    }  # fmt: skip


def test_control_of_an_agents_regulator_stays_silent(simulate: Simulate) -> None:
    simulation = simulate(regulator() | capacitor("volt"), VOLT, pu=0.95)
    simulation.step(np.array([[16.0 - 12.0]]))  # as low as -12: far out of the control's band
    assert simulation.circuits[0].taps.tolist() == [-12]
    for _ in range(4):
        simulation.step(simulation.neutral())
        assert simulation.circuits[0].taps.tolist() == [-12]
    assert simulation.snapshot.v_pu[0].min() < 0.9
    assert simulation.circuits[0].steps_on[0] == 1  # the capacitor's own control did act


def test_regulator_left_to_opendss_takes_no_action_and_keeps_its_band(simulate: Simulate) -> None:
    simulation = simulate(regulator("opendss", cost_usd_per_operation=2.0) | battery("agent"), pu=1.0, load_scale=3.0)
    fleet = simulation.fleets[-1]
    assert [(action.device, action.name) for action in simulation.actions] == [("bat", "p_kw")]
    moved, wear = 0, 0.0
    for step in range(40):
        before = simulation.circuits[0].taps[0]
        simulation.step(np.full((1, 1), -1.0 if step % 8 < 4 else 1.0))
        tap = simulation.circuits[0].taps[0]
        moved += abs(int(tap - before))
        wear += float(fleet.terms["switching_wear_usd"][0, 0])
        assert fleet.position[0, 0] == fleet.requested_position[0, 0] == tap
        assert simulation.operations[0] == abs(int(tap - before))
        bus = simulation.network.nodes_of([simulation.network.bus_index["a"]])
        volts = simulation.snapshot.v_pu[0, bus] * 7200.0 / 60.0
        assert np.all(np.abs(volts - 122.0) < 1.0 + 0.4)
    assert moved > 1
    assert fleet.operations[0, 0] == moved
    assert wear == pytest.approx(2.0 * moved)


def test_opendss_regulator_knows_the_limits_of_the_element_alone(simulate: Simulate) -> None:
    simulation = simulate(regulator("opendss", tap_min=-1, tap_max=1) | battery("agent"), pu=0.93)
    simulation.step(simulation.neutral())
    assert simulation.circuits[0].taps[0] > 5
    assert simulation.fleets[-1].position[0, 0] == simulation.circuits[0].taps[0]


def test_mixed_fleet_moves_each_by_its_own_hand() -> None:
    devices = {
        f"r{i}": {"kind": "regulator", "element": f"RegControl.reg{i}", "control": who, "tap_initial": tap}
        for i, who, tap in ((1, "agent", 3), (2, "opendss", -16), (3, "frozen", -5))
    }
    agents = {"A": {"devices": list(devices), "zone": {"buses": ["671"]}, "pcc": "671"}}
    data = {"name": "mixed", "feeder": "ieee13", "devices": devices, "agents": agents}
    simulation = load_scenario(data).simulate(2)
    try:
        for env in range(2):
            simulation.reset(env, np.random.default_rng(0), 20)
        assert len(simulation.actions) == 1
        assert simulation.circuits[0].taps[1] > -16  # it has moved into its band already
        simulation.step(np.array([[16.0 + 9.0], [16.0 - 9.0]]))
        taps = np.array([circuit.taps for circuit in simulation.circuits])
        assert taps[:, 0].tolist() == [9, -9]
        assert taps[:, 2].tolist() == [-5, -5]
        assert np.array_equal(simulation.fleets[0].position, taps)
        env = ParallelGridEnv(load_scenario(data))
        assert env.action_space("A").nvec.tolist() == [33]
        assert env.task.agents[0].devices == ("r1", "r2", "r3")  # it still sees all of them
        env.close()
    finally:
        simulation.close()


def test_capacitors_under_voltage_and_kvar_control_act_as_set(simulate: Simulate) -> None:
    devices, taps = capacitor("volt") | capacitor("kvar") | battery("frozen"), {"reg": 0}
    low = simulate(devices, VOLT, KVAR, pu=0.95, taps=taps, load_scale=3.0)
    high = simulate(devices, VOLT, KVAR, pu=1.08, taps=taps, load_scale=0.05)
    for simulation, on in ((low, True), (high, False)):
        simulation.step(simulation.neutral())
        steps = dict(zip(simulation.network.capacitors, simulation.circuits[0].steps_on.tolist(), strict=True))
        assert (steps["volt"], steps["kvar"], steps["clock"]) == (int(on), int(on), 0)
        fleet = next(fleet for fleet in simulation.fleets if fleet.kind == "capacitor")
        assert fleet.position[0].tolist() == [int(on)] * 2


def test_capacitor_under_a_clock_follows_the_time_of_day(simulate: Simulate) -> None:
    simulation = simulate(capacitor("clock"), CLOCK)
    on = []
    for _ in range(96):
        simulation.step(simulation.neutral())
        on.append(int(simulation.circuits[0].steps_on[2]))
    assert on[:23] == [0] * 23
    assert on[25:71] == [1] * 46
    assert on[73:] == [0] * 23


def test_inverter_under_volt_var_stays_on_its_curve(simulate: Simulate) -> None:
    simulation = simulate(solar(), VOLT_VAR, pu=1.05, day=180, load_scale=0.2)
    bus = simulation.network.nodes_of([simulation.network.bus_index["b"]])
    absorbed = []
    for _ in range(72):
        simulation.step(simulation.neutral())
        assert simulation.snapshot.converged[0]
        v = simulation.snapshot.v_pu[0, bus].mean()
        p, q = simulation.snapshot.device_kva[0, 0].real, simulation.snapshot.device_kva[0, 0].imag
        curve = np.interp(v, [0.5, 0.92, 0.98, 1.02, 1.08, 1.5], [1, 1, 0, 0, -1, -1])
        assert q == pytest.approx(1500.0 * curve, abs=0.025 * 1500.0)
        assert p == pytest.approx(simulation.fleets[0].available_kw[0, 0], abs=0.1)
        absorbed.append(q)
    assert min(absorbed) < -500.0


def test_inverter_control_leaves_an_agents_inverter_alone(simulate: Simulate) -> None:
    devices = solar("agent", reactive="kva") | solar("opendss", "pv2")
    simulation = simulate(devices, VOLT_VAR, pu=1.07, day=180, load_scale=0.2)
    for _ in range(3):
        simulation.step(np.array([[1.0, 0.1]]))
        assert simulation.snapshot.device_kva[0, 0].imag == pytest.approx(0.1 * 1500.0, rel=1e-3)
        assert simulation.snapshot.device_kva[0, 1].imag < -50.0


def test_storage_under_peak_shaving_holds_its_target_with_our_energy(simulate: Simulate) -> None:
    spec = battery(soc_initial=0.9, soc_min=0.2, soc_max=0.9)
    simulation = simulate(spec, SHAVE.format(target=2900), load_scale=3.0)
    fleet, line = simulation.fleets[0], simulation.network.branches.names.index("line.l1")
    first = int(np.flatnonzero(simulation.network.branches.terminal_branch == line)[0])
    held = 0
    for step in range(96):
        before = float(fleet.soc[0, 0])
        simulation.step(simulation.neutral())
        p = float(simulation.snapshot.device_kva[0, 0].real)
        through = float(simulation.snapshot.terminal_kva[0, first].real)
        after = float(fleet.soc[0, 0])
        gone = p * 0.25 / 0.9 if p > 0 else p * 0.25 * 0.8
        assert before - after == pytest.approx(gone / 1000.0, abs=1e-12)
        assert 0.2 - 1e-9 <= after <= 0.9 + 1e-9
        if 0.0 < p < 790.0 and after > 0.2 + 1e-6:
            assert through == pytest.approx(2900.0, rel=0.02)  # the controller's own band
            held += 1
        if step in (8, 9, 10) and before < 0.89:
            assert p < 0.0  # charging from two o'clock on
    assert held > 5


def test_spent_storage_resets_bit_for_bit(simulate: Simulate) -> None:
    devices = regulator("opendss") | battery(soc_initial=0.3) | solar()
    simulation = simulate(devices, VOLT_VAR, SHAVE.format(target=600), pu=0.98, day=150)
    first = trace(simulation, 12)
    assert simulation.fleets[0].soc[0, 0] < 0.2
    for steps in (7, 8, 9, 10):
        trace(simulation, steps)
        simulation.reset(0, np.random.default_rng(0), 150)
        assert trace(simulation, 12) == first


def test_capacitor_that_its_control_had_opened_closes_for_an_agent(simulate: Simulate) -> None:
    opening = VOLT.replace("onsetting=118 offsetting=126", "onsetting=90 offsetting=110")
    simulation = simulate(capacitor("volt", "agent"), opening.replace("\n", " "), "Capacitor.volt.states=[1]")
    kvar = []
    for on in (0, 1, 0):
        simulation.step(np.array([[float(on)]]))
        branch = simulation.network.branches.names.index("capacitor.volt")
        first = int(np.flatnonzero(simulation.network.branches.terminal_branch == branch)[0])
        kvar.append(float(simulation.snapshot.terminal_kva[0, first].imag))
    assert kvar[1] < -700.0
    assert max(abs(kvar[0]), abs(kvar[2])) < 1e-6


def test_frozen_devices_stay_where_they_start(simulate: Simulate) -> None:
    devices = regulator("frozen", tap_initial=4) | battery("frozen") | solar("frozen", reactive="kva")
    devices |= {"gen": {"kind": "generator", "bus": "b", "p_max_kw": 500, "control": "frozen"}}
    devices |= capacitor("volt", "agent")
    simulation = simulate(devices, VOLT, VOLT_VAR, SHAVE.format(target=100), pu=0.95, day=180)
    assert [action.device for action in simulation.actions] == ["volt"]
    for _ in range(60):
        simulation.step(np.array([[1.0]]))
        power = dict(zip(simulation.power_device_names, simulation.snapshot.device_kva[0], strict=True))
        assert simulation.circuits[0].taps.tolist() == [4]
        assert abs(power["bat"]) < 1e-6
        assert abs(power["gen"]) < 1e-6
        assert power["pv"].real == pytest.approx(simulation.fleets[1].available_kw[0, 0], abs=0.1)
        assert abs(power["pv"].imag) < 1.0
    assert simulation.fleets[0].soc[0, 0] == 0.5


def test_resets_and_restored_states_play_the_same_bit_for_bit(simulate: Simulate) -> None:
    devices = regulator("opendss") | capacitor("volt") | battery(soc_initial=0.3) | solar()
    simulation = simulate(devices, VOLT, VOLT_VAR, SHAVE.format(target=900), pu=0.98, day=150)
    first = trace(simulation, 96)
    assert any(row[3] != [0] for row in first)
    simulation.reset(0, np.random.default_rng(0), 150)
    assert trace(simulation, 30) == first[:30]
    state = simulation.state()
    assert trace(simulation, 50) == first[30:80]
    simulation.restore(state)
    assert trace(simulation, 50) == first[30:80]


def test_environments_do_not_touch_each_other(simulate: Simulate) -> None:
    devices = regulator("opendss") | battery(soc_initial=0.3) | solar()
    controls = (VOLT_VAR, SHAVE.format(target=900))
    alone = trace(simulate(devices, *controls, pu=0.98, day=150), 60)
    pair = simulate(devices, *controls, n_envs=2, pu=0.98, day=150)
    pair.reset(1, np.random.default_rng(0), 40)
    rows = []
    for _ in range(60):
        pair.step(pair.neutral())
        rows.append((pair.snapshot.v[:1].tobytes(), pair.snapshot.device_kva[:1].tobytes()))
    assert rows == [row[:2] for row in alone]


def test_rest_of_the_feeders_controls_follow_native_controls(simulate: Simulate) -> None:
    for native in (False, True):
        positions = {"steps_on": {"volt": 0}, "taps": {"reg": -8}}
        simulation = simulate(capacitor("kvar", "agent"), VOLT, KVAR, pu=0.95, native_controls=native, **positions)
        simulation.step(np.array([[0.0]]))
        steps = dict(zip(simulation.network.capacitors, simulation.circuits[0].steps_on.tolist(), strict=True))
        assert (steps["volt"], steps["kvar"]) == (int(native), 0)


def test_device_without_a_control_of_the_feeders_is_an_error_that_names_those_there_are(simulate: Simulate) -> None:
    with pytest.raises(ScenarioError) as caught:
        simulate(capacitor("kvar") | battery() | solar(), VOLT)
    text = str(caught.value)
    assert "devices.kvar: control 'opendss', but no CapControl moves 'Capacitor.kvar'" in text
    assert "the feeder has CapControl.volt (capacitor.volt)" in text
    assert "devices.bat: control 'opendss', but no StorageController moves 'Storage.bat'; the feeder has none" in text
    assert "devices.pv:" in text


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"kind": "storage", "bus": "b", "e_max_kwh": 9, "p_max_kw": 9}, "for a device added at a bus"),
        ({"kind": "generator", "bus": "b", "p_max_kw": 9}, "here it is agent or frozen"),
        ({"kind": "flexible_load", "element": "Load.big", "owed_max_kwh": 9}, "here it is agent or frozen"),
    ],
)
def test_opendss_is_refused_where_no_feeder_can_have_a_control(device: dict[str, Any], message: str) -> None:
    agents = {"A": {"devices": ["d"], "zone": {"buses": ["b"]}, "pcc": "b"}}
    with pytest.raises(ScenarioError, match=message):
        load_scenario(
            {"name": "x", "feeder": "ieee13", "devices": {"d": device | {"control": "opendss"}}, "agents": agents}
        )


def test_agent_with_nothing_to_decide_is_an_error_with_the_remedy() -> None:
    scenario = load_scenario("ieee13_mg")
    names = [name for name, agent in scenario.agents.items() if agent.devices]
    override = {f"devices.{device}.control": "frozen" for device in scenario.agents[names[0]].devices}
    with pytest.raises(ScenarioError, match=f"agents.{names[0]}: none of its devices .* set control: agent"):
        ParallelGridEnv(load_scenario("ieee13_mg", override))


# -- switches

#: A spur with a load of its own; it draws 23 A at nominal demand.
SPUR = """New Line.spur bus1=b bus2=z length=1 units=km r1=0.1 x1=0.1
New Load.z bus1=z kv=12.47 kw=500 kvar=100 vminpu=0.5
New TCC_Curve.fast npts=2 c_array=[1 10] t_array=[0.1 0.01]"""
TRIPS = {
    "Fuse": "New Fuse.p monitoredobj=Line.spur ratedcurrent=40 fusecurve=fast",
    "Relay": "New Relay.p monitoredobj=Line.spur type=current phasecurve=fast phasetrip=40 shots=1",
    "Recloser": "New Recloser.p monitoredobj=Line.spur phasetrip=40 shots=2 recloseintervals=[2]",
}
#: So that the demand of the spur crosses 40 A during the day, and not at its start.
BUSY = {"load_scale": 2.4, "profiles": {"load_classes": {"z": "residential"}}}


def switch(control: str = "opendss") -> dict[str, Any]:
    return {"sw": {"kind": "switch", "element": "Line.spur", "control": control}}


def spur(simulation: Simulation) -> tuple[bool, float, float]:
    """Whether the spur's line is closed, the voltage behind it [pu] and the current in it [A]."""
    network, circuit = simulation.network, simulation.circuits[0]
    closed = bool(circuit.closed[network.switches.index("spur")])
    terminal = network.branches.terminal_branch.tolist().index(network.branch_index["line.spur"])
    v_pu = float(simulation.snapshot.v_pu[0, network.nodes.index("z.1")])
    at_b = float(simulation.snapshot.v_pu[0, network.nodes.index("b.1")])
    return closed, v_pu, abs(simulation.snapshot.terminal_kva[0, terminal]) / (3**0.5 * 12.47 * at_b)


@pytest.mark.parametrize("protection", TRIPS)
def test_protection_left_to_opendss_opens_its_line_at_the_current_that_it_is_set_to(
    simulate: Simulate, protection: str
) -> None:
    tied = simulate(switch("agent") | battery("agent"), SPUR, TRIPS[protection], **BUSY)
    amps = []
    for _ in range(96):
        tied.step(tied.neutral())
        closed, _, drawn = spur(tied)
        assert closed  # the feeder's own protection leaves an agent's switch alone
        amps.append(drawn)
    due = next(i for i, drawn in enumerate(amps) if drawn > 40.0)
    assert 0 < due < 90
    simulation = simulate(switch() | battery("agent"), SPUR, TRIPS[protection], **BUSY)
    assert [action.device for action in simulation.actions] == ["bat"]
    for i in range(96):
        simulation.step(simulation.neutral())
        closed, v_pu, drawn = spur(simulation)
        assert closed is (i < due)
        assert simulation.operations[0] == (i == due)
        if i >= due:
            assert v_pu < 1e-3
            assert drawn == pytest.approx(0.0, abs=1e-6)
        else:
            assert drawn == pytest.approx(amps[i], abs=1e-3)


@pytest.mark.parametrize("protection", TRIPS)
def test_protection_that_tripped_is_whole_again_in_the_next_episode(simulate: Simulate, protection: str) -> None:
    simulation = simulate(switch() | battery("agent"), SPUR, TRIPS[protection], **BUSY)
    first = trace(simulation, 96)
    assert not spur(simulation)[0]
    for _ in range(2):
        simulation.reset(0, np.random.default_rng(0), 20)
        assert trace(simulation, 96) == first


def test_fuse_that_blew_in_one_phase_is_restored_with_a_state_and_gone_after_a_reset(simulate: Simulate) -> None:
    lone = "New Load.lone bus1=z.2 phases=1 kv=7.2 kw=250 kvar=50 vminpu=0.5"
    simulation = simulate(switch() | battery("agent"), SPUR, lone, TRIPS["Fuse"], **BUSY)
    network, start = simulation.network, simulation.snapshot.v.copy()
    two, one = (network.nodes.index(node) for node in ("z.2", "z.1"))
    for _ in range(96):
        if simulation.snapshot.v_pu[0, two] < 0.5:
            break
        simulation.step(simulation.neutral())
    assert simulation.snapshot.v_pu[0, one] > 0.8
    circuit, state = simulation.circuits[0], simulation.circuits[0].state()
    assert state["open_conductors"].tolist() == [False, True, False, False, False, False]
    simulation.reset(0, np.random.default_rng(0), 20)
    assert simulation.snapshot.v.tobytes() == start.tobytes()
    circuit.restore(state)
    assert circuit.state()["open_conductors"].tolist() == state["open_conductors"].tolist()
    assert circuit.state()["v"].tobytes() == state["v"].tobytes()


def test_switch_control_left_to_opendss_takes_the_position_it_is_told(simulate: Simulate) -> None:
    control = "New SwtControl.p switchedobj=Line.spur switchedterm=1 action=open delay=0"
    simulation = simulate(switch() | battery("agent"), SPUR, control)
    for _ in range(3):
        simulation.step(simulation.neutral())
        assert spur(simulation)[:2] == (False, pytest.approx(0.0, abs=1e-3))
    by_hand = simulate(switch("agent") | battery("agent"), SPUR, control)
    column = [action.device for action in by_hand.actions].index("sw")
    action = by_hand.neutral()
    for position in (1, 0, 1):
        action[0, column] = position
        by_hand.step(action)
        assert spur(by_hand)[0] is bool(position)


# -- ExpControl


def test_inverter_under_an_exponential_control_follows_its_slope(simulate: Simulate) -> None:
    control = "New ExpControl.e derlist=[PVSystem.pv] vreg=1.0 slope=5 vregtau=0 deltaq_factor=0.3"
    devices = solar(reactive="kva") | solar("agent", "pv2", reactive="kva")
    simulation = simulate(devices, control, pu=1.05, day=180, load_scale=0.2)
    bus = simulation.network.nodes_of([simulation.network.bus_index["b"]])
    action = simulation.neutral()
    assert {spec.device for spec in simulation.actions} == {"pv2"}
    seen = []
    for _ in range(60):
        simulation.step(action)
        assert simulation.snapshot.converged[0]
        v = simulation.snapshot.v_pu[0, bus].mean()
        p, q = simulation.snapshot.device_kva[0].real, simulation.snapshot.device_kva[0].imag
        assert q[0] == pytest.approx(-5.0 * (v - 1.0) * 3000.0, rel=0.02, abs=2.0)
        assert p[0] == pytest.approx(simulation.fleets[0].available_kw[0, 0], abs=0.5)
        assert q[1] == pytest.approx(0.0, abs=0.1)  # what the agent asks of the other
        seen.append(q[0])
    assert min(seen) < -400.0
    simulation.reset(0, np.random.default_rng(0), 180)
    once = trace(simulation, 30)
    simulation.reset(0, np.random.default_rng(0), 180)
    assert trace(simulation, 30) == once


def test_exponential_control_leaves_an_agents_inverter_alone(simulate: Simulate) -> None:
    simulation = simulate(
        solar("agent", reactive="kva") | solar("opendss", "pv2"), "New ExpControl.e slope=5 vregtau=0", pu=1.07
    )
    for _ in range(3):
        simulation.step(np.array([[0.1]]))
        assert simulation.snapshot.device_kva[0, 0].imag == pytest.approx(0.1 * 1500.0, rel=1e-3)
        assert simulation.snapshot.device_kva[0, 1].imag < -20.0


FOUR_WIRE = """New Circuit.four basekv=0.4 pu=1.07 bus1=src.1.2.3.4 r1=0.01 x1=0.02 r0=0.01 x0=0.02
New Reactor.ground phases=1 bus1=src.4 bus2=src.0 r=0.1 x=0
New Linecode.lc nphases=4 units=km rmatrix=[0.4|0.05 0.4|0.05 0.05 0.4|0.05 0.05 0.05 0.4]
~ xmatrix=[0.3|0.1 0.3|0.1 0.1 0.3|0.1 0.1 0.1 0.3] cmatrix=[0|0 0|0 0 0|0 0 0 0]
New Line.l1 phases=4 bus1=src.1.2.3.4 bus2=a.1.2.3.4 linecode=lc length=0.2 units=km
New Line.l2 phases=4 bus1=a.1.2.3.4 bus2=b.1.2.3.4 linecode=lc length=0.2 units=km
New Load.a phases=1 bus1=a.1.4 kv=0.23 kw=10 kvar=3
New Load.b phases=1 bus1=b.2.4 kv=0.23 kw=8 kvar=2
New PVSystem.p1 phases=3 bus1=a.1.2.3.4 kv=0.4 kva=24 pmpp=20
New PVSystem.p2 phases=1 bus1=b.2.4 kv=0.23 kva=12 pmpp=10
New XYCurve.vv npts=6 yarray=[1 1 0 0 -1 -1] xarray=[0.5 0.92 0.98 1.02 1.08 1.5]
New InvControl.vv mode=voltvar vvc_curve1=vv refreactivepower=varmax
Set VoltageBases=[0.4]
CalcVoltageBases
"""


def test_volt_var_control_of_two_inverters_on_four_wires_keeps_voltages_sane_and_the_same(tmp_path: Path) -> None:
    master = tmp_path / "four.dss"
    master.write_text(FOUR_WIRE)
    devices = {f"p{i}": solar("opendss", f"p{i}")[f"p{i}"] for i in (1, 2)}
    devices |= {"ess": {"kind": "storage", "bus": "a", "p_max_kw": 1, "e_max_kwh": 2}}
    agents = {"A": {"devices": list(devices), "zone": {"buses": ["a", "b"]}, "pcc": "a"}}
    simulation = load_scenario({"name": "four", "feeder": str(master), "devices": devices, "agents": agents}).simulate(
        2
    )
    for env in range(2):
        simulation.reset(env, np.random.default_rng(0), 180)
    phases = simulation.network.node_phase <= 3
    for _ in range(60):
        simulation.step(simulation.neutral())
        snapshot = simulation.snapshot
        assert snapshot.converged.all()
        assert snapshot.v[0].tobytes() == snapshot.v[1].tobytes()
        assert ((snapshot.v_pu[:, phases] > 0.9) & (snapshot.v_pu[:, phases] < 1.1)).all()
        assert (snapshot.v_pu[:, ~phases] < 0.05).all()
    p1, p2 = (simulation.power_device_names.index(name) for name in ("p1", "p2"))
    assert snapshot.device_kva[0, p1].imag < -5.0
    assert snapshot.device_kva[0, p2].imag < -2.0
    simulation.close()
