"""Events and rules of switching on a host with microgrids: who is fed, what is not served, by hand from the drawing.

::

    800 - ... - 850 - 816 - ... - 854 - 852 - 832 - 858 - 834 - ...
                 |                       x           |     |
                MG1                     out         MG2   MG3
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from powergrid.grid.simulation import Simulation
from powergrid.scenario import load_scenario
from tests.envs.worlds import find_imbalance, read_loads

Simulate = Callable[..., Simulation]

OUTAGE = {"kind": "line_outage", "element": "Line.l27", "at_step": 2, "duration_steps": 6}  # 854 to 852
BEYOND = {
    *("852", "852r", "832", "888", "890", "mid858", "858", "mid864", "864", "mid834", "834", "842", "mid844", "844"),
    *("mid846", "846", "mid848", "848", "mid860", "860", "mid836", "836", "mid840", "840", "862", "mid838", "838"),
}
DAY = 171


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Make simulations of microgrids with events; they are closed at the end."""
    made: list[Simulation] = []

    def make(n_envs: int = 1, seed: int = 0, **overrides: Any) -> Simulation:
        keys: dict[str, Any] = {"split": "all", "solver.tolerance": 1e-8, "episode_length": 24}
        made.append(load_scenario("ieee34_ieee13", keys | overrides).simulate(n_envs))
        for env in range(n_envs):
            made[-1].reset(env, np.random.default_rng(seed + env), DAY)
        return made[-1]

    yield make
    for simulation in made:
        simulation.close()


def step(simulation: Simulation, n: int = 1, **values: float) -> Any:
    """Play neutral actions with some changed, by device; a tie is 0 open or 1 closed."""
    for _ in range(n):
        action = simulation.neutral()
        for column, spec in enumerate(simulation.actions):
            if spec.device in values:
                action[:, column] = values[spec.device]
        simulation.step(action)
        assert simulation.snapshot.converged.all()
        for env in range(simulation.n_envs):
            assert abs(find_imbalance(simulation, env)) < 2e-3
    return simulation.islands


def demand_at(simulation: Simulation, t: int, buses: set[str]) -> float:
    """Return the demand at some buses of the host, or of microgrids by prefix with a star [kW]."""
    network = simulation.network
    kw = 0.0
    for i, bus in enumerate(network.loads.bus.tolist()):
        name = network.buses[bus]
        kw += simulation.day_load_kw[0, t, i] if name in buses or f"{name.partition('_')[0]}_*" in buses else 0.0
    return float(kw)


def dark_buses(simulation: Simulation) -> set[str]:
    assert simulation.islands is not None
    nodes = np.array([node.partition(".")[0] for node in simulation.network.nodes])
    return set(nodes[~simulation.islands.energised[0]].tolist())


def test_outage_of_a_host_line_leaves_the_island_beyond_served_and_the_tied_one_dark(simulate: Simulate) -> None:
    simulation = simulate(events={"storm": OUTAGE})
    assert simulation.events is not None
    islands = step(simulation, 2, tie_2=0)
    assert islands.islanded[0].tolist() == [False, True, False]
    assert not islands.unserved_kw.any()
    islands = step(simulation, tie_2=0)
    mg3 = {bus for bus in simulation.network.buses if bus.startswith("mg3_")}
    assert dark_buses(simulation) == BEYOND | mg3 | {"mg2_tie"}
    lost_kwh = 0.25 * demand_at(simulation, 2, {*BEYOND, "mg3_*"})
    assert lost_kwh > 50.0
    assert 0.25 * islands.unserved_kw.sum() == pytest.approx(lost_kwh, rel=1e-12)
    v_pu, network = simulation.snapshot.v_pu[0], simulation.network
    assert v_pu[~islands.energised[0]].max() < 1e-6
    assert v_pu[islands.energised[0]].min() > 0.8
    drawn, asked = read_loads(simulation).real, simulation.day_load_kw[0, 2]
    inside = np.array([name.startswith("mg2_") for name in network.loads.names])
    assert drawn[inside].sum() == pytest.approx(asked[inside].sum(), rel=0.05)  # some are constant impedances
    assert simulation.snapshot.forming_kva[0, 1].real == pytest.approx(drawn[inside].sum(), rel=0.05)
    assert simulation.snapshot.forming_kva[0, [0, 2]].tolist() == [0.0, 0.0]
    dead = [i for i, name in enumerate(simulation.power_device_names) if name.endswith("_3")]
    np.testing.assert_allclose(simulation.snapshot.device_kva[0, dead], 0.0, atol=1e-6)


def test_microgrid_in_the_dark_is_islanded_by_its_agent_and_ties_again_after_the_repair(simulate: Simulate) -> None:
    simulation = simulate(events={"storm": OUTAGE})
    step(simulation, 3)
    islands = step(simulation, tie_3=0)
    assert islands.islanded[0].tolist() == [False, False, True]
    lost_kw = demand_at(simulation, 3, {*BEYOND, "mg2_*"})
    assert islands.unserved_kw.sum() == pytest.approx(lost_kw, rel=1e-12)
    assert dark_buses(simulation) >= BEYOND | {"mg2_650", "mg3_tie"}
    assert "mg3_650" not in dark_buses(simulation)
    islands = step(simulation, 5, tie_3=0)  # the line is back at step 8
    assert islands.energised.all()
    assert islands.islanded[0].tolist() == [False, False, True]
    assert not islands.unserved_kw.any()
    islands = step(simulation, tie_3=1)
    assert not islands.islanded.any()
    plain = simulate()
    step(plain, 10)
    np.testing.assert_allclose(simulation.snapshot.v_pu, plain.snapshot.v_pu, atol=1e-6)


def test_island_that_lacks_power_in_a_dead_host_counts_what_is_shed_and_what_is_dark(simulate: Simulate) -> None:
    simulation = simulate(events={"storm": OUTAGE}, microgrids={"MG2": {"forming": {"p_max_kw": 40}}})
    islands = step(simulation, 4, tie_2=0)
    assert 40.0 * (1 - 1e-3) <= simulation.snapshot.forming_kva[0, 1].real <= 40.0
    inside = np.array([name.startswith("mg2_") for name in simulation.network.loads.names])
    share = islands.served[0, inside][0]
    assert 0.1 < share < 0.9
    lost_kw = demand_at(simulation, 3, {*BEYOND, "mg3_*"}) + (1 - share) * demand_at(simulation, 3, {"mg2_*"})
    assert islands.unserved_kw.sum() == pytest.approx(lost_kw, rel=1e-12)
    assert islands.unserved_kw[0, inside].sum() == pytest.approx(demand_at(simulation, 3, {"mg2_*"}) - 40.0, abs=4.0)


@pytest.mark.parametrize("element", ["Line.mg1_tie", "Transformer.mg1_tie"])
def test_outage_of_a_tie_islands_where_its_switch_opens_with_it(element: str, simulate: Simulate) -> None:
    event = {"kind": "line_outage", "element": element, "at_step": 1, "duration_steps": 2}
    simulation = simulate(events={"storm": event})
    islands = step(simulation, 2)
    if element.startswith("Line"):
        assert islands.islanded[0].tolist() == [True, False, False]
        assert not islands.unserved_kw.any()
    else:  # the switch still ties it to a dead winding
        assert not islands.islanded.any()
        assert islands.unserved_kw.sum() == pytest.approx(demand_at(simulation, 1, {"mg1_*"}), rel=1e-12)
        islands = step(simulation, tie_1=0)
        assert islands.islanded[0].tolist() == [True, False, False]
        assert not islands.unserved_kw.any()


def test_fault_in_an_island_trips_its_source_until_it_is_repaired(simulate: Simulate) -> None:
    event = {"kind": "fault", "bus": "mg1_671", "at_step": 2, "cleared_by": "agents", "repair_steps": 3}
    simulation = simulate(events={"short": event})
    islands = step(simulation, 2, tie_1=0)
    assert islands.islanded[0, 0]
    for t in (2, 3, 4):
        islands = step(simulation, tie_1=0)
        assert not islands.islanded.any()
        assert dark_buses(simulation) == {
            bus for bus in simulation.network.buses if bus.startswith("mg1_") and bus != "mg1_tie"
        }
        assert islands.unserved_kw.sum() == pytest.approx(demand_at(simulation, t, {"mg1_*"}), rel=1e-12)
    islands = step(simulation, tie_1=0)
    assert islands.islanded[0, 0]
    assert not islands.unserved_kw.any()


def test_keep_served_lets_a_microgrid_leave_only_with_a_source_of_its_own(simulate: Simulate) -> None:
    rules = {"radial": "keep", "keep_served": True}
    simulation = simulate(reconfiguration=rules, microgrids={"MG1": {"forming": None}})
    islands = step(simulation, tie_1=0, tie_2=0)
    assert simulation.events is not None
    assert simulation.events.held[0].tolist() == [True, False, False]
    assert islands.islanded[0].tolist() == [True, False]  # of the two that have one
    assert islands.energised[0, ~np.char.startswith(np.array(simulation.network.nodes), "mg2_tie")].all()


def test_transformer_under_rules_of_switching_comes_back_after_its_outage(simulate: Simulate) -> None:
    event = {"kind": "line_outage", "element": "Transformer.mg3_tie", "at_step": 1, "duration_steps": 2}
    simulation = simulate(events={"storm": event}, reconfiguration={"radial": "keep"})
    islands = step(simulation, 3)
    assert islands.unserved_kw.sum() == pytest.approx(demand_at(simulation, 2, {"mg3_*"}), rel=1e-12)
    islands = step(simulation)
    assert islands.energised.all()
    assert simulation.snapshot.v_pu.min() > 0.8


DRAWN = {
    "storm": {"kind": "line_outage", "element": ["Line.l27", "Line.l24", "Line.mg2_tie"], "between_hours": [0, 2],
              "duration_steps": [2, 8]},
    "short": {"kind": "fault", "bus": ["mg1_671", "mg3_675", "834"], "probability": 0.7, "repair_steps": [2, 4]},
    "trip": {"kind": "generator_outage", "device": "ess_*", "duration_hours": [0.5, 1]},
}  # fmt: skip


def play(simulation: Simulation, steps: int, seed: int = 5, env: int = 0) -> list[dict[str, Any]]:
    """Play random actions, the same in every environment, and keep what one of them gave."""
    rng, trace = np.random.default_rng(seed), []
    for _ in range(steps):
        action = rng.uniform(-1, 1, len(simulation.actions))
        ties = [i for i, spec in enumerate(simulation.actions) if spec.n]
        action[ties] = rng.random(len(ties)) > 0.4
        simulation.step(np.tile(action, (simulation.n_envs, 1)))
        trace.append({name: value[env].copy() for name, value in vars(simulation.snapshot).items()})
        assert simulation.islands is not None
        for name in ("unserved_kw", "energised", "islanded", "served"):
            trace[-1][name] = getattr(simulation.islands, name)[env].copy()
    return trace


def assert_same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    for one, other in zip(first, second, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.mark.parametrize("after", [3, 8])
def test_state_amid_events_and_islands_restored_repeats_bit_for_bit(after: int, simulate: Simulate) -> None:
    simulation = simulate(events=DRAWN, seed=2)
    play(simulation, after, seed=1)
    kept = simulation.state()
    first = play(simulation, 9)
    assert any(not moment["energised"].all() for moment in first)
    assert any(moment["islanded"].any() for moment in first)
    play(simulation, 3, seed=9)
    simulation.restore(kept)
    assert_same(first, play(simulation, 9))


def test_environments_with_events_and_islands_do_not_touch_each_other(simulate: Simulate) -> None:
    three = simulate(3, events=DRAWN)
    kept = three.state()
    for env in range(3):
        three.restore(kept)
        assert_same(play(three, 16, env=env), play(simulate(1, seed=env, events=DRAWN), 16))
