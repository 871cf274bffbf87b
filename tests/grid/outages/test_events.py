"""Events on a feeder: outages, faults, steps of load and sun, by hand and against the engine alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.errors import ScenarioError
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.feeder import find_feeder, read_feeder
from powergrid.grid.simulation import Simulation
from powergrid.scenario import load_scenario
from tests.envs.worlds import read_loads

Simulate = Callable[..., Simulation]

TAPS = {"reg1": 3, "reg2": 0, "reg3": 3}
ESS: dict[str, Any] = {"ess": {"kind": "storage", "bus": "675", "e_max_kwh": 1000, "p_max_kw": 250}}
PV: dict[str, Any] = {"pv": {"kind": "inverter", "bus": "680", "p_max_kw": 500, "s_max_kva": 550}}
GEN: dict[str, Any] = {"gen": {"kind": "generator", "bus": "634", "p_max_kw": 300, "s_max_kva": 400}}


def world(events: dict[str, Any], devices: dict[str, Any] = ESS, **keys: Any) -> dict[str, Any]:
    agents = {"A": {"devices": list(devices), "zone": {"buses": ["671"]}, "pcc": "671"}}
    return {
        "name": "test", "feeder": "ieee13", "taps": TAPS, "devices": devices, "agents": agents, "events": events,
        "episode_length": 24, "split": "all",
    } | keys  # fmt: skip


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Make simulations with events; they are closed at the end."""
    made: list[Simulation] = []

    def make(events: dict[str, Any], devices: dict[str, Any] = ESS, n_envs: int = 1, **keys: Any) -> Simulation:
        made.append(load_scenario(world(events, devices, **keys)).simulate(n_envs))
        return made[-1]

    yield make
    for simulation in made:
        simulation.close()


def start(simulation: Simulation, day: int | None = 30, seed: int = 0) -> Simulation:
    for env in range(simulation.n_envs):
        simulation.reset(env, np.random.default_rng(seed), day)
    return simulation


def step(simulation: Simulation, n: int = 1, action: Any = None) -> None:
    for _ in range(n):
        simulation.step(simulation.neutral() if action is None else np.array(action, dtype=float))
        assert simulation.snapshot.converged.all()


def v_at(simulation: Simulation, node: str) -> float:
    return float(simulation.snapshot.v_pu[0, simulation.network.nodes.index(node)])


def out(simulation: Simulation) -> Any:
    assert simulation.events is not None
    return simulation.events


def unserved_kwh(simulation: Simulation) -> Any:
    """Return the demand of the last step that was not served, load by load."""
    assert simulation.islands is not None
    return simulation.islands.unserved_kw * simulation.dt_h


# -- outages


def test_outage_of_a_lateral_takes_exactly_its_loads_out(simulate: Simulate) -> None:
    event = {"kind": "line_outage", "element": "Line.671684", "at_step": 2, "duration_steps": 3}
    simulation = start(simulate({"lateral": event}))
    names = simulation.network.loads.names
    behind = [names.index("611"), names.index("652")]
    others = [i for i in range(len(names)) if i not in behind]
    for t in range(7):
        demand_kw = simulation.day_load_kw[0, t].copy()
        step(simulation)
        drawn = read_loads(simulation).real
        assert (drawn[others] > 0.5 * demand_kw[others]).all()
        if 2 <= t < 5:
            assert np.abs(drawn[behind]).max() < 1e-6
            assert unserved_kwh(simulation).sum() == pytest.approx(0.25 * demand_kw[behind].sum(), rel=1e-12)
            assert np.flatnonzero(unserved_kwh(simulation)[0]).tolist() == sorted(behind)
            assert {simulation.network.nodes[i] for i in np.flatnonzero(~simulation.energised[0])} == {
                "684.1", "684.3", "611.3", "652.1",
            }  # fmt: skip
        else:
            assert (drawn[behind] > 0.5 * demand_kw[behind]).all()
            assert not unserved_kwh(simulation).any()
            assert simulation.energised.all()


def test_outage_of_a_transformer_opens_and_comes_back(simulate: Simulate) -> None:
    event = {"kind": "line_outage", "element": "Transformer.xfm1", "at_step": 1, "duration_steps": 2}
    simulation, plain = start(simulate({"xfm": event})), start(simulate({}))
    for t in range(5):
        step(simulation)
        step(plain)
        xfm = simulation.network.branches.names.index("transformer.xfm1")
        assert (simulation.snapshot.loading_pu[0, xfm] < 1e-6) == (t in (1, 2))
        assert (v_at(simulation, "634.1") < 1e-6) == (t in (1, 2))
    np.testing.assert_allclose(simulation.snapshot.v_pu, plain.snapshot.v_pu, atol=2e-5)


def test_generator_outage_trips_a_device_and_shows_as_projection(simulate: Simulate) -> None:
    event = {"kind": "generator_outage", "device": "gen", "at_step": 1, "duration_steps": 2}
    simulation = start(simulate({"trip": event}, GEN))
    delivered = []
    for _ in range(4):
        step(simulation, action=[[1.0] * len(simulation.actions)])
        delivered.append(simulation.snapshot.device_kva[0, 0].real)
    assert delivered[0] > 100.0
    assert delivered[3] > 100.0
    assert np.abs(delivered[1:3]).max() < 1e-6


#: Without a shape there is no sun at midnight, when episodes begin.
NOON = "New LoadShape.noon npts=1 interval=24 mult=(1)\n"


@pytest.mark.parametrize(
    ("line", "element"),
    [
        ("New Generator.own Bus1=680 Phases=3 kV=4.16 kW=300 kvar=50 Model=1", "Generator.own"),
        (f"{NOON}New PVSystem.own Bus1=680 Phases=3 kV=4.16 Pmpp=300 kVA=330 irradiance=1 daily=noon", "PVSystem.own"),
        (f"{NOON}New Generator.own Bus1=680 Phases=3 kV=4.16 kW=300 kvar=50 Model=1 daily=noon", "Generator.own"),
    ],
)
def test_generator_outage_trips_an_element_of_the_feeder(
    line: str, element: str, simulate: Simulate, tmp_path: Path
) -> None:
    master = tmp_path / "own.dss"
    master.write_text(f'Redirect "{find_feeder("ieee13")}"\n{line}\n')
    event = {"kind": "generator_outage", "element": element, "at_step": 1, "duration_steps": 2}
    keys = {"feeder": str(master), "trust": True, "solver": {"tolerance": 1e-8}}
    simulation, plain = start(simulate({"trip": event}, **keys)), start(simulate({}, **keys))
    for t in range(4):
        step(simulation)
        step(plain)
        more = simulation.snapshot.source_kva[0] - plain.snapshot.source_kva[0]
        if t in (1, 2):
            assert more.real == pytest.approx(300, abs=15)  # and the change of losses
        else:
            assert abs(more) < 0.02


def test_devices_behind_an_outage_deliver_nothing(simulate: Simulate) -> None:
    event = {"kind": "line_outage", "element": "Line.692675", "at_step": 1, "duration_steps": 2}
    simulation = start(simulate({"out": event}))
    for t in range(4):
        step(simulation, action=[[1.0]])
        assert simulation.snapshot.device_kva[0, 0].real == pytest.approx(0.0 if t in (1, 2) else 250.0, abs=0.01)
        assert (v_at(simulation, "675.1") < 1e-6) == (t in (1, 2))  # no island that feeds itself


def test_flexible_load_without_supply_is_not_served_and_what_it_asked_for_counts(simulate: Simulate) -> None:
    flex = {"flex": {"kind": "flexible_load", "element": "Load.652", "owed_max_kwh": 500}}
    event = {"kind": "line_outage", "element": "Line.684652", "at_step": 1, "duration_steps": 2}
    simulation = start(simulate({"out": event}, flex))
    load = simulation.network.loads.names.index("652")
    for t in range(4):
        step(simulation)
        asked_kwh = 0.25 * simulation.day_load_kw[0, t, load]
        lost = unserved_kwh(simulation)[0]
        assert lost[load] == pytest.approx(asked_kwh if t in (1, 2) else 0.0, rel=1e-12)
        assert lost.sum() == lost[load]
        delivered = -simulation.snapshot.device_kva[0, 0].real
        assert abs(delivered) < 1e-6 if t in (1, 2) else delivered > 0.5 * 4 * asked_kwh


def test_vehicles_without_supply_are_left_to_what_they_lack_when_they_leave(simulate: Simulate) -> None:
    cars = {
        "cars": {"kind": "ev_charger", "element": "Load.652", "ports": 10, "p_max_kw": 11, "arrival_hour_mean": 1,
                 "arrival_hour_std": 0.5, "stay_hours_mean": 4}
    }  # fmt: skip
    event = {"kind": "line_outage", "element": "Line.684652", "at_step": 8}
    simulation = start(simulate({"out": event}, cars))
    step(simulation, 8, action=[[0.0]])
    assert simulation.fleets[0].owed_kwh[0, 0] > 10.0
    owed = simulation.fleets[0].owed_kwh[0, 0]
    step(simulation, action=[[1.0]])
    assert simulation.fleets[0].owed_kwh[0, 0] == pytest.approx(owed, rel=0.2)  # a car may come or go
    assert not unserved_kwh(simulation).any()


# -- steps of load and sun


def test_load_step_multiplies_the_demand_of_its_loads(simulate: Simulate) -> None:
    event = {"kind": "load_step", "loads": "67*", "factor": 1.4, "at_hour": 0.5, "duration_hours": 0.75}
    simulation, plain = start(simulate({"more": event})), start(simulate({}))
    names = simulation.network.loads.names
    chosen = np.array([name.startswith("67") for name in names])
    constant_power = [names.index(name) for name in ("671", "675a", "675c")]
    for t in range(6):
        step(simulation)
        step(plain)
        factor = 1.4 if 2 <= t < 5 else 1.0
        np.testing.assert_allclose(simulation.day_load_kw[0, t, chosen], factor * plain.day_load_kw[0, t, chosen])
        np.testing.assert_array_equal(simulation.day_load_kw[0, t, ~chosen], plain.day_load_kw[0, t, ~chosen])
        drawn, before = read_loads(simulation)[constant_power], read_loads(plain)[constant_power]
        np.testing.assert_allclose(drawn, factor * before, rtol=1e-4)


def test_pv_step_takes_sun_away(simulate: Simulate) -> None:
    event = {"kind": "pv_step", "factor": 0.25, "at_step": 50, "duration_steps": 2}
    simulation = start(simulate({"cloud": event}, PV, episode_length=96), day=171)
    plain = start(simulate({}, PV, episode_length=96), day=171)
    for t in range(54):
        step(simulation)
        step(plain)
        if t >= 48:
            sunny = plain.snapshot.device_kva[0, 0].real
            assert sunny > 100.0
            factor = 0.25 if 50 <= t < 52 else 1.0
            assert simulation.snapshot.device_kva[0, 0].real == pytest.approx(factor * sunny, rel=1e-4)


# -- faults


def solve_by_text(bus: str, phases: str, r_ohm: float, demand: Any, taps: Any, network: Any) -> Any:
    """Solve the feeder with a fault by OpenDSS commands alone; give the node voltages [V]."""
    engine = Engine()
    for command in read_feeder("ieee13").commands:
        engine.set_folder(command.file.parent)
        engine.command(command.text)
    n = phases.count(".") + 1
    engine.command(f"New Fault.f Bus1={bus}.{phases} Phases={n} R={r_ohm}")
    for name, kw, kvar in zip(network.loads.names, *demand, strict=True):
        engine.command(f"Edit Load.{name} kW={float(kw)!r} kvar={float(kvar)!r}")
    for name, tap in zip(network.regulators, taps, strict=True):
        engine.command(f"Edit Transformer.{name} Wdg=2 Tap={1 + 0.00625 * int(tap)!r}")
    engine.command("Set MaxIterations=200 Tolerance=1e-10 ControlMode=Off Mode=Snapshot")
    engine.command("Solve")
    assert engine.node_names() == network.nodes
    voltages = engine.voltages(len(network.nodes))[1:].copy()
    engine.close()
    return voltages


@pytest.mark.parametrize(("bus", "phases"), [("671", (1, 2, 3)), ("692", (2,)), ("633", (1, 3))])
def test_fault_is_what_the_engine_alone_solves(bus: str, phases: tuple[int, ...], simulate: Simulate) -> None:
    event = {
        "kind": "fault", "bus": bus, "phases": phases, "r_ohm": 0.05, "at_step": 2, "clearing_steps": 3,
    }  # fmt: skip
    simulation = start(simulate({"short": event}, solver={"tolerance": 1e-10}))
    step(simulation, 2)
    before = simulation.snapshot.v_pu[0].copy()
    rated = np.abs(simulation.snapshot.loading_pu[0]).max()
    demand = simulation.day_load_kw[0, 2], simulation.day_load_kvar[0, 2]
    step(simulation)
    network = simulation.network
    expected = solve_by_text(bus, ".".join(map(str, phases)), 0.05, demand, simulation.circuits[0].taps, network)
    np.testing.assert_allclose(np.abs(expected) / network.v_base, simulation.snapshot.v_pu[0], atol=1e-6)
    at = [network.nodes.index(f"{bus}.{phase}") for phase in phases]
    assert (simulation.snapshot.v_pu[0, at] < 0.3 * before[at]).all()
    assert simulation.snapshot.loading_pu[0].max() > 3.0 * rated
    amps = np.abs(simulation.snapshot.v[0, np.array(at) + 1]) / 0.05
    assert (amps > 1000.0).all()


def test_fault_is_cleared_repaired_and_comes_back_from_the_start_when_fed_again(simulate: Simulate) -> None:
    devices = ESS | {"sw": {"kind": "switch", "element": "Line.671692"}}
    event = {"kind": "fault", "bus": "675", "at_step": 2, "clearing_steps": 1, "repair_steps": 3}
    simulation = start(simulate({"short": event}, devices))
    seen = []
    for _ in range(9):
        step(simulation, action=[[0.0, 1.0]])  # asks for closed all the time
        seen.append(
            (bool(out(simulation).on[0, 0]), v_at(simulation, "675.1") > 0.9, simulation.fleets[1].position[0, 0])
        )
    # on at 2 with collapsed voltage, the nearest switch opens at 3, three steps of repair, closes again at 6
    assert (
        seen
        == [(False, True, 1)] * 2
        + [(True, False, 1)]
        + [(True, False, 0)] * 3
        + [(False, False, 0)]
        + [(False, True, 1)] * 2
    )
    assert simulation.fleets[1].operations[0, 0] == 1  # closing; what protection does is no operation of the agent's


def test_fault_left_to_agents_lasts_until_they_open(simulate: Simulate) -> None:
    devices = ESS | {"sw": {"kind": "switch", "element": "Line.671692"}}
    event = {"kind": "fault", "bus": "675", "at_step": 1, "cleared_by": "agents", "repair_steps": 2}
    simulation = start(simulate({"short": event}, devices))
    step(simulation, 5, action=[[0.0, 1.0]])
    assert out(simulation).on[0, 0]
    assert v_at(simulation, "671.1") < 0.5
    assert unserved_kwh(simulation).sum() > 0.0
    step(simulation, action=[[0.0, 0.0]])
    assert v_at(simulation, "671.1") > 0.9
    step(simulation, action=[[0.0, 1.0]])  # closed onto the fault: its repair starts anew
    assert v_at(simulation, "671.1") < 0.5
    step(simulation, 2, action=[[0.0, 0.0]])
    assert out(simulation).on[0, 0]
    step(simulation, action=[[0.0, 1.0]])
    assert not out(simulation).on[0, 0]
    assert v_at(simulation, "675.1") > 0.9


# -- draws, resets, states


DRAWN: dict[str, Any] = {
    "line": {"kind": "line_outage", "element": ["Line.671684", "Line.692675", "Transformer.xfm1"], "probability": 0.7,
             "between_hours": [1, 4], "duration_steps": [2, 6]},
    "short": {"kind": "fault", "bus": ["611", "652", "646"], "probability": 0.5, "repair_steps": [2, 4]},
    "trip": {"kind": "generator_outage", "device": "ess", "probability": 0.5, "duration_hours": [0.5, 1]},
    "more": {"kind": "load_step", "factor": 1.3, "between_hours": [0, 2]},
}  # fmt: skip


def drawn(simulation: Simulation, env: int) -> list[list[int]]:
    table = out(simulation).timetable
    return [getattr(table, name)[env].tolist() for name in ("start", "end", "target", "repair_steps")]


def test_draws_depend_on_the_seed_alone(simulate: Simulate) -> None:
    one, three = simulate(DRAWN), simulate(DRAWN, n_envs=3)
    for env in (2, 0, 1):
        three.reset(env, np.random.default_rng(env + 10))
    found = set()
    for seed in (10, 11, 12):
        start(one, day=None, seed=seed)
        assert drawn(one, 0) == drawn(three, seed - 10)
        assert one.day[0] == three.day[seed - 10]
        found.add(str(drawn(one, 0)))
    assert len(found) == 3
    start(one, day=30, seed=7)  # the same in every process
    assert drawn(one, 0) == EXPECTED


EXPECTED = [[15, 20, 24, 2], [20, 24, 24, 24], [2, 0, 0, 0], [1, 2, 1, 1]]


def test_draws_keep_their_probability_and_bounds(simulate: Simulate) -> None:
    simulation = simulate(DRAWN)
    table, rng = out(simulation).timetable, np.random.default_rng(0)
    rows = []
    for _ in range(2000):
        table.draw(0, rng)
        rows.append((table.start[0].copy(), table.end[0].copy(), table.target[0].copy(), table.repair_steps[0].copy()))
    starts, ends, which, repairs = (np.array(column) for column in zip(*rows, strict=True))
    happens = starts < 24
    np.testing.assert_allclose(happens.mean(axis=0), [0.7, 0.5, 0.5, 1.0], atol=0.04)
    assert set(starts[happens[:, 0], 0].tolist()) == set(range(4, 17))
    assert set((ends - starts)[happens[:, 0], 0].tolist()) == {2, 3, 4, 5, 6}
    assert set(repairs[:, 1].tolist()) == {2, 3, 4}
    assert set((ends - starts)[happens[:, 2] & (ends[:, 2] < 24), 2].tolist()) == {2, 3, 4}
    assert (ends[:, 3] == 24).all()
    np.testing.assert_allclose(np.bincount(which[:, 0]) / 2000, 1 / 3, atol=0.04)


def play(simulation: Simulation, seed: int, n: int = 24) -> list[Any]:
    rng = np.random.default_rng(seed)
    trace = []
    for _ in range(n):
        simulation.step(rng.uniform(-1, 1, (simulation.n_envs, len(simulation.actions))))
        trace.append({name: value.copy() for name, value in vars(simulation.snapshot).items()})
        trace[-1]["unserved"] = unserved_kwh(simulation).copy()
    return trace


def assert_same(first: list[Any], second: list[Any]) -> None:
    for one, other in zip(first, second, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_reset_in_the_midst_of_events_clears_everything(simulate: Simulate) -> None:
    used, fresh = simulate(DRAWN), simulate(DRAWN)
    for seed in range(4):
        start(used, seed=seed)
        play(used, 0, n=9)
    assert_same(play(start(used, seed=9), 1), play(start(fresh, seed=9), 1))


@pytest.mark.parametrize("after", [5, 9, 13])
def test_restore_of_a_state_in_events_plays_the_same_future(after: int, simulate: Simulate) -> None:
    simulation = start(simulate(DRAWN, n_envs=2), seed=7)
    play(simulation, 0, n=after)
    kept = simulation.state()
    first = play(simulation, 3, n=10)
    simulation.restore(kept)
    assert_same(first, play(simulation, 3, n=10))


def test_event_that_does_not_happen_changes_no_bit(simulate: Simulate) -> None:
    event = {"kind": "line_outage", "element": "Line.671684", "probability": 1e-12}
    with_event, without = start(simulate({"never": event})), start(simulate({}))
    assert without.events is None
    for _ in range(5):
        step(with_event)
        step(without)
        for name, value in vars(without.snapshot).items():
            np.testing.assert_array_equal(value, getattr(with_event.snapshot, name), err_msg=name)


# -- what is refused


def test_events_wrong_are_all_told_at_once(simulate: Simulate) -> None:
    events = {
        "a": {"kind": "line_outage", "element": "Line.671685"},
        "b": {"kind": "generator_outage", "device": "es"},
        "c": {"kind": "fault", "bus": "611", "phases": [1]},
        "d": {"kind": "fault", "bus": "671", "cleared_by": "Line.nowhere"},
        "e": {"kind": "load_step", "factor": 2, "loads": "x*"},
        "f": {"kind": "pv_step", "factor": 0.5, "at_hour": 99},
    }
    with pytest.raises(ScenarioError) as caught:
        simulate(events)
    text = str(caught.value)
    for part in (
        "events.a", "line.671684", "events.b", "'ess'", "events.c: bus '611' has phases [3], not [1]", "events.d",
        "line.nowhere", "events.e", "events.f: starts at 99 h",
    ):  # fmt: skip
        assert part.lower() in text.lower()


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"kind": "line_outage", "element": "Line.671684", "at_step": 1, "at_hour": 2}, "at most one of at_step"),
        ({"kind": "line_outage", "element": "Line.671684", "duration_steps": [5, 2]}, "least to the most"),
        ({"kind": "line_outage", "element": "Line.671684", "duration_step": 5}, "duration_steps"),
        ({"kind": "line_outag", "element": "Line.671684"}, "line_outage"),
        ({"element": "Line.671684"}, "kind is required"),
        ({"kind": "generator_outage"}, "exactly one of device and element"),
        ({"kind": "fault", "bus": "671", "grounded": False}, "two phases"),
        ({"kind": "pv_step", "factor": -1}, "events.x.factor"),
        ({"kind": "price_spike", "factor": -1}, "events.x.factor"),
        (
            {"kind": "price_spike", "factor": 2, "rate_per_day": 1, "at_step": 2, "probability": 0.5},
            "leave out at_step and probability",
        ),
        ({"kind": "pv_step", "factor": 0, "rate_per_day": 0}, "events.x.rate_per_day"),
    ],
)
def test_event_wrong_in_itself_names_key_and_remedy(event: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=r"events\.x") as caught:
        load_scenario(world({"x": event}))
    assert message in str(caught.value)


# -- prices and rates


def test_price_spike_multiplies_what_is_paid_and_not_what_was_announced(simulate: Simulate) -> None:
    spike = {"kind": "price_spike", "factor": 8.0, "at_step": 5, "duration_steps": 3}
    more = {"kind": "price_spike", "factor": 0.5, "at_step": 7, "duration_steps": 2}
    plain, spiked = start(simulate({})), start(simulate({"spike": spike, "more": more}))
    for i in range(24):
        for simulation in (plain, spiked):
            step(simulation)
        factor = {5: 8.0, 6: 8.0, 7: 4.0, 8: 0.5}.get(i, 1.0)
        assert spiked.paid_price[0] == factor * plain.paid_price[0]
        assert spiked.snapshot.v.tobytes() == plain.snapshot.v.tobytes()
    np.testing.assert_array_equal(spiked.day_price, plain.day_price)
    assert start(spiked).paid_price[0] == plain.day_price[0, 0]


def test_price_spike_is_seen_as_the_price_of_the_step_to_come_and_paid_in_the_reward() -> None:
    events = {"spike": {"kind": "price_spike", "factor": 10.0, "at_step": 4, "duration_steps": 1}}
    costs, seen = [], []
    for own in ({}, events):
        env = powergrid.make(world(own))
        env.reset(seed=0, options={"day": 30})
        row = env.describe().observations.query("agent == 'A'")["name"].tolist().index("world.price_usd_per_kwh")
        for _ in range(5):
            observations, _, _, _, infos = env.step({"A": np.zeros(1, dtype=np.float32)})
            seen.append(observations["A"][row])
            costs.append(infos["A"]["energy_cost_usd"])
        env.close()
    assert costs[9] == pytest.approx(10.0 * costs[4])
    assert costs[5:9] == pytest.approx(costs[:4])
    assert all(-1.0 <= value <= 1.0 for value in seen)
    assert seen[8] > max(seen[5:8]) + 0.1


def test_spikes_that_overlap_count_once_and_other_events_besides(simulate: Simulate) -> None:
    spike = {"kind": "price_spike", "factor": 3.0, "rate_per_day": 20, "duration_steps": 4}
    simulation = start(simulate({"spike": spike}))
    factors = simulation.day_paid_price[0] / simulation.day_price[0]
    assert set(np.round(factors, 9).tolist()) == {1.0, 3.0}
    table = out(simulation).timetable
    lengths = (table.end - table.start)[table.start < 24]
    assert lengths.sum() > np.count_nonzero(factors[:-1] > 2.0)  # some do overlap


def test_rate_draws_as_many_times_as_poisson_within_the_hours(simulate: Simulate) -> None:
    storm = {
        "kind": "line_outage", "element": ["Line.671684", "Line.692675"], "rate_per_day": 12,
        "between_hours": [1, 4.75], "duration_steps": 2,
    }  # fmt: skip
    simulation = simulate({"storm": storm, "always": {"kind": "load_step", "factor": 1.1, "at_step": 3}})
    table, counts, starts, targets = out(simulation).timetable, [], [], []
    rng = np.random.default_rng(5)
    for _ in range(3000):
        table.draw(0, rng)
        happens = (table.start[0] < 24) & (table.of_event == 0)
        counts.append(int(happens.sum()))
        starts += table.start[0, happens].tolist()
        targets += table.target[0, happens].tolist()
    assert np.mean(counts) == pytest.approx(2.0, abs=0.1)  # 12 a day in the 4 hours of 16 steps
    assert np.var(counts) == pytest.approx(2.0, abs=0.2)
    assert np.mean(np.array(counts) == 0) == pytest.approx(np.exp(-2.0), abs=0.02)
    assert (min(starts), max(starts)) == (4, 19)
    assert np.mean(starts) == pytest.approx(11.5, abs=0.2)
    assert np.mean(targets) == pytest.approx(0.5, abs=0.03)
    assert table.names[:2] == ("storm", "storm#2")
    assert table.names[-1] == "always"
    assert table.start[0, -1] == 3


def test_every_time_of_an_event_with_a_rate_strikes_and_ends(simulate: Simulate) -> None:
    storm = {
        "kind": "line_outage", "element": ["Line.671684", "Line.692675"], "rate_per_day": 30, "duration_steps": 2,
    }  # fmt: skip
    simulation = simulate({"storm": storm})
    struck = 0
    for seed in range(4):
        start(simulation, seed=seed)
        table = out(simulation).timetable
        for i in range(24):
            step(simulation)
            on = (table.start[0] <= i) & (i < table.end[0])
            assert out(simulation).on[0].tolist() == on.tolist()
            out_now = {out(simulation).effect_of(0, k).place for k in np.flatnonzero(on)}
            for line, node in (("line.671684", "652.1"), ("line.692675", "675.1")):
                assert (v_at(simulation, node) < 1e-3) is (line in out_now)
        struck += int((table.start[0] < 24).sum())
    assert struck > 12
