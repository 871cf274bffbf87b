"""Opened ties: what a forming source feeds, what is shed or curtailed for it, and what goes dark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from powergrid.grid.simulation import Simulation
from powergrid.scenario import load_scenario
from tests.envs.worlds import find_imbalance

NOON_DAY, EVENING = 171, 76


def simulate(n_envs: int = 1, **overrides: Any) -> Simulation:
    defaults = {"split": "all", "solver.tolerance": 1e-8}
    simulation = load_scenario("ieee34_ieee13", defaults | overrides).simulate(n_envs)
    for env in range(n_envs):
        simulation.reset(env, np.random.default_rng(0), NOON_DAY)
    return simulation


def no_forming() -> dict[str, Any]:
    return {"microgrids": {"MG1": {"forming": None}}}


def act(simulation: Simulation, **values: float) -> Any:
    """Return neutral actions with some changed, by ``device__action``."""
    action = simulation.neutral()
    for name, value in values.items():
        device, what = name.split("__")
        column = next(i for i, s in enumerate(simulation.actions) if (s.device, s.name) == (device, what))
        action[:, column] = value
    return action


def play(simulation: Simulation, steps: int, **values: float) -> None:
    for _ in range(steps):
        simulation.step(act(simulation, **values))
        assert simulation.snapshot.converged.all()


def nodes_of(simulation: Simulation, prefix: str) -> Any:
    return np.array(
        [node.startswith(prefix) and not node.startswith(f"{prefix}tie") for node in simulation.network.nodes]
    )


def loads_of(simulation: Simulation, prefix: str) -> Any:
    return np.array([name.startswith(prefix) for name in simulation.network.loads.names])


def test_tie_open_island_runs_on_its_source_and_the_host_is_rid_of_it() -> None:
    simulation = simulate()
    play(simulation, 12)  # 3 o'clock: little demand
    tied, before = simulation.snapshot.source_kva[0].real, simulation.snapshot.v_pu[0].copy()
    play(simulation, 1, tie_1__closed=0)
    snapshot, network, islands = simulation.snapshot, simulation.network, simulation.islands
    assert islands is not None
    assert islands.islanded[0].tolist() == [True, False, False]
    given = snapshot.forming_kva[0].real
    assert 0.0 < given[0] <= 150.0
    assert given[1:] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert tied - snapshot.source_kva[0].real == pytest.approx(given[0], rel=0.15)  # less the losses on the way
    entry = network.nodes_of([network.bus_index["mg1_650"]])
    np.testing.assert_allclose(snapshot.v_pu[0, entry], 1.0, atol=1e-3)
    switch = network.branches.names.index("line.mg1_tie")
    np.testing.assert_allclose(snapshot.terminal_kva[0, network.branches.terminal_branch == switch], 0.0, atol=1e-6)
    pcc = network.nodes_of([network.bus_index["mg1_tie"]])
    assert (np.abs(snapshot.v_pu[0, pcc] - before[pcc]) > 1e-4).all()
    assert (snapshot.v_pu[0, pcc] > 0.9).all()  # the host's side is alive
    assert abs(find_imbalance(simulation)) < 1e-3
    assert islands.unserved_kw[0].sum() == 0.0


def test_tie_open_demand_beyond_the_source_is_shed_until_it_is_at_its_rating() -> None:
    simulation = simulate(microgrids={"MG1": {"forming": {"p_max_kw": 60}}})
    play(simulation, EVENING)
    play(simulation, 1, tie_1__closed=0, pv_1__p_kw=-1.0)
    snapshot, islands = simulation.snapshot, simulation.islands
    assert islands is not None
    assert 60.0 * (1 - 1e-3) <= snapshot.forming_kva[0, 0].real <= 60.0
    inside = loads_of(simulation, "mg1_")
    served = islands.served[0]
    assert served[inside].min() == served[inside].max()
    assert 0.1 < served[inside].max() < 0.9
    assert (served[~inside] == 1.0).all()
    asked = simulation.day_load_kw[0, EVENING, inside]
    np.testing.assert_allclose(islands.unserved_kw[0, inside], (1 - served[inside]) * asked)
    assert islands.unserved_kw[0, ~inside].sum() == 0.0
    assert abs(find_imbalance(simulation)) < 1e-3


def test_tie_open_own_generation_is_used_before_anything_is_shed() -> None:
    simulation = simulate(microgrids={"MG1": {"forming": {"p_max_kw": 60}}})
    play(simulation, EVENING)
    state = simulation.state()
    play(simulation, 1, tie_1__closed=0)
    assert simulation.islands is not None
    alone = simulation.islands.unserved_kw[0].sum()
    simulation.restore(state)
    play(simulation, 1, tie_1__closed=0, ess_1__p_kw=0.1)
    assert alone - simulation.islands.unserved_kw[0].sum() == pytest.approx(15.0, rel=0.1)


def test_tie_open_surplus_is_curtailed_or_taken_in_as_far_as_the_source_may() -> None:
    for p_min_kw in (0.0, -40.0):
        forming = {"p_max_kw": 150, "p_min_kw": p_min_kw}
        simulation = simulate(microgrids={"MG1": {"forming": forming}})
        play(simulation, 48)
        play(simulation, 1, tie_1__closed=0, pv_1__p_kw=1.0, gen_1__p_kw=1.0)
        snapshot = simulation.snapshot
        assert p_min_kw <= snapshot.forming_kva[0, 0].real <= p_min_kw + 0.15 + 1e-6
        device = simulation.power_device_names.index("pv_1")
        assert 0.0 < snapshot.device_kva[0, device].real < simulation.setpoints[0, 0, device] - 10.0
        inverters = next(fleet for fleet in simulation.fleets if fleet.kind == "inverter")
        lost_kw = simulation.setpoints[0, 0, device] - snapshot.device_kva[0, device].real
        assert inverters.terms["curtailed_kwh"][0, 0] == pytest.approx(0.25 * lost_kw, rel=1e-3)
        assert simulation.islands is not None
        assert simulation.islands.unserved_kw.sum() == 0.0
        assert abs(find_imbalance(simulation)) < 1e-3


def test_tie_open_charging_is_shed_like_demand_and_the_cells_know() -> None:
    simulation = simulate(microgrids={"MG1": {"forming": {"p_max_kw": 60}}})
    play(simulation, EVENING)
    storage = next(fleet for fleet in simulation.fleets if fleet.kind == "storage")
    before = storage.soc[0, 0]
    play(simulation, 1, tie_1__closed=0, ess_1__p_kw=-0.5)
    assert simulation.islands is not None
    served = simulation.islands.served[0, loads_of(simulation, "mg1_")][0]
    device = simulation.power_device_names.index("ess_1")
    assert simulation.setpoints[0, 0, device] == pytest.approx(-75.0)
    assert simulation.snapshot.device_kva[0, device].real == pytest.approx(-75.0 * served, rel=1e-4)
    assert 0.0 < storage.soc[0, 0] - before < 75.0 * served * 0.25 / 600
    assert simulation.snapshot.forming_kva[0, 0].real <= 60.0


def test_tie_open_without_a_forming_source_is_dark_and_counted() -> None:
    simulation = simulate(**no_forming())
    play(simulation, 48)
    reference = simulation.state()
    play(simulation, 1, tie_1__closed=0, pv_1__p_kw=1.0, gen_1__p_kw=1.0)
    snapshot, islands = simulation.snapshot, simulation.islands
    assert islands is not None
    inside = nodes_of(simulation, "mg1_")
    np.testing.assert_array_equal(~islands.energised[0], inside)
    assert snapshot.v_pu[0, inside].max() < 1e-6
    assert snapshot.v_pu[0, ~inside].min() > 0.8
    loads = loads_of(simulation, "mg1_")
    np.testing.assert_allclose(islands.unserved_kw[0, loads], simulation.day_load_kw[0, 48, loads])
    assert islands.unserved_kw[0, ~loads].sum() == 0.0
    own = [i for i, name in enumerate(simulation.power_device_names) if name.endswith("_1")]
    np.testing.assert_allclose(snapshot.device_kva[0, own], 0.0, atol=1e-6)
    assert np.isfinite(snapshot.loading_pu).all()
    assert snapshot.loading_pu.max() < 5.0
    play(simulation, 4, tie_1__closed=0)  # dwell
    play(simulation, 1, tie_1__closed=1)
    woken = snapshot.v_pu[0].copy()
    assert islands.energised.all()
    assert islands.unserved_kw.sum() == 0.0
    simulation.restore(reference)
    play(simulation, 6)
    np.testing.assert_allclose(woken, snapshot.v_pu[0], atol=1e-5)


def test_island_state_restored_repeats_bit_for_bit() -> None:
    simulation = simulate(microgrids={"MG1": {"forming": {"p_max_kw": 60}}})
    play(simulation, 70, tie_1__closed=0)
    state = simulation.state()

    def go() -> Any:
        play(simulation, 3, tie_1__closed=0, ess_1__p_kw=0.2)
        play(simulation, 2, tie_1__closed=1, tie_2__closed=0)
        return (
            simulation.snapshot.v.copy(),
            simulation.snapshot.forming_kva.copy(),
            simulation.islands.unserved_kw.copy(),
        )

    first = go()
    play(simulation, 4, tie_3__closed=0)
    simulation.restore(state)
    for one, other in zip(first, go(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_islands_of_environments_do_not_touch_each_other() -> None:
    alone, both = simulate(1), simulate(2)
    action = both.neutral()
    tie = next(i for i, spec in enumerate(both.actions) if spec.device == "tie_2")
    for _ in range(30):
        action = both.neutral()
        action[0, tie] = 0.0
        both.step(action)
        alone.step(alone.neutral())
    assert both.islands is not None
    assert both.islands.islanded.tolist() == [[False, True, False], [False, False, False]]
    np.testing.assert_array_equal(both.snapshot.v[1], alone.snapshot.v[0])


def test_reset_puts_an_island_back_to_the_host() -> None:
    simulation = simulate(**no_forming())
    first = simulation.snapshot.v.copy()
    play(simulation, 8, tie_1__closed=0, tie_2__closed=0)
    simulation.reset(0, np.random.default_rng(0), NOON_DAY)
    np.testing.assert_array_equal(simulation.snapshot.v, first)
    assert simulation.islands is not None
    assert not simulation.islands.islanded.any()
    assert simulation.islands.energised.all()


def test_switch_inside_a_plain_feeder_leaves_what_is_behind_it_dark() -> None:
    simulation = load_scenario(
        {
            "name": "plain",
            "feeder": "ieee13",
            "devices": {"sw": {"kind": "switch", "element": "Line.671692"}},
            "agents": {"A": {"devices": ["sw"], "zone": {"buses": ["671"]}, "pcc": "671"}},
        }
    ).simulate()
    simulation.reset(0, np.random.default_rng(0))
    play(simulation, 1, sw__closed=0)
    assert simulation.islands is not None
    dark = {
        node.partition(".")[0]
        for node, is_dark in zip(simulation.network.nodes, ~simulation.islands.energised[0], strict=True)
        if is_dark
    }
    assert dark == {"692", "675"}
    loads = np.isin(simulation.network.loads.names, ["692", "675a", "675b", "675c"])
    np.testing.assert_allclose(simulation.islands.unserved_kw[0], simulation.day_load_kw[0, 0] * loads)


def test_simulation_without_switches_has_no_islands() -> None:
    assert load_scenario("ieee13_mg").simulate().islands is None


def test_islanded_power_flows_take_few_more_solves() -> None:
    simulation = simulate()
    assert simulation.islands is not None
    play(simulation, 10)
    start = simulation.islands.solves
    play(simulation, 86, tie_1__closed=0, tie_2__closed=0, tie_3__closed=0)
    assert (simulation.islands.solves - start) / 86 < 4.0
