"""What every shipped scenario promises in both modes: spaces, lengths, live channels, actions that act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.grid.devices.switchgear import SwitchgearFleet
from powergrid.grid.simulation import Simulation
from tests.envs.worlds import draw_actions, find_imbalance, play

MakeEnv = Callable[..., NetworkedGridEnv]


@pytest.mark.parametrize(("name", "least", "most"), [("ieee13_mg", 2, 2), ("ieee34_mg", 3, 3), ("ieee123_mg", 5, 99)])
def test_scenario_shipped_has_its_agents(name: str, least: int, most: int, make_env: MakeEnv) -> None:
    if name not in powergrid.list_scenarios():
        pytest.skip(f"{name} is not shipped yet")
    env = make_env(name)
    assert least <= len(env.possible_agents) <= most
    if name == "ieee13_mg":
        assert env.possible_agents == ["MG1", "MG2"]


@pytest.mark.parametrize("name", [name for name in powergrid.list_scenarios() if not name.endswith("_voltvar")])
def test_scenario_of_microgrids_has_equal_spaces_and_a_day_of_quarter_hours(
    name: str, mode: str, make_env: MakeEnv
) -> None:
    env = make_env(name, mode=mode)
    assert len(set(map(repr, env.observation_spaces.values()))) == 1
    assert len(set(map(repr, env.action_spaces.values()))) == 1
    assert (env.scenario.episode_length, env.scenario.step_minutes) == (96, 15)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ieee13_voltvar", (2, 3, 1)),
        ("ieee34_voltvar", (2, 6, 2)),
        ("ieee123_voltvar", (4, 7, 4)),
        ("ieee8500_voltvar", (10, 12, 10)),
    ],
)
def test_scenario_of_volt_var_has_the_field_s_devices_and_a_day_of_hours(
    name: str, counts: tuple[int, ...], make_env: MakeEnv
) -> None:
    env = make_env(name)
    assert env.possible_agents == ["capacitors", "regulators", "batteries"]
    sizes = [space.nvec.tolist() for space in env.action_spaces.values()]
    assert sizes == [[n] * count for n, count in zip((2, 33, 33), counts, strict=True)]
    assert (env.scenario.episode_length, env.scenario.step_minutes, env.scenario.mode) == (24, 60, "centralized")
    zones = [set(spec.zone.find_buses(env.task.simulation.network)) for spec in env.scenario.agents.values()]
    assert not zones[0] & zones[1] | zones[0] & zones[2] | zones[1] & zones[2]


def test_scenario_shipped_is_a_day_in_the_mode_asked_for(shipped: str, mode: str, make_env: MakeEnv) -> None:
    env = make_env(shipped, mode=mode)
    assert env.scenario.episode_length * env.scenario.step_minutes == 24 * 60
    assert env.scenario.mode == mode
    assert list(env.observation_spaces) == list(env.action_spaces) == env.possible_agents
    assert env.get_observation_space(env.agents[0]) is env.observation_spaces[env.agents[0]]
    assert env.get_action_space(env.agents[0]) is env.action_spaces[env.agents[0]]


def test_check_multiagent_environments_accepts_every_scenario(shipped: str, mode: str, make_env: MakeEnv) -> None:
    from ray.rllib.utils.pre_checks.env import check_multiagent_environments

    check_multiagent_environments(make_env(shipped, mode=mode))


def test_centralized_mode_shows_all_that_distributed_shows_and_the_network(shipped: str, make_env: MakeEnv) -> None:
    own, all_of_it = make_env(shipped, mode="distributed"), make_env(shipped, mode="centralized")
    first, _ = own.reset(seed=1)
    second, _ = all_of_it.reset(seed=1)
    nodes = set(own.task.simulation.network.nodes)
    for agent in own.agents:
        np.testing.assert_array_equal(first[agent], second[agent][: len(first[agent])])
        seen = set(all_of_it.describe().observations.query("agent == @agent")["name"])
        assert {f"network.{node}.v_pu" for node in nodes} <= seen


def test_step_random_actions_keeps_every_promise_of_an_episode(shipped: str, mode: str, make_env: MakeEnv) -> None:
    env = make_env(shipped, mode=mode)
    agents = env.possible_agents
    horizon = env.scenario.episode_length
    arrays: list[Any] = []
    for t, moment in enumerate(play(env, seed=5)):
        assert list(moment.observations) == list(moment.infos) == agents == env.agents
        for agent, seen in moment.observations.items():
            assert seen.dtype == np.float32
            assert env.observation_spaces[agent].contains(seen)
            assert np.isfinite(seen).all()
            arrays.append((seen, seen.copy()))
        if t:
            assert moment.terminateds == {"__all__": False}
            assert moment.truncateds == {"__all__": t == horizon}
            assert all(type(reward) is float and np.isfinite(reward) for reward in moment.rewards.values())
            assert all(np.isfinite(v) for info in moment.infos.values() for v in info.values() if type(v) is float)
            assert abs(find_imbalance(env.task.simulation)) < 1e-4 * env.task.simulation.network.loads.kw.sum()
    # no array was written again after it was handed out, and none shares memory with another
    assert all(np.array_equal(seen, before) for seen, before in arrays)
    seen_last = [seen for seen, _ in arrays[-2 * len(agents) :]]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(seen_last) for b in seen_last[:i])
    assert t == horizon


def test_observation_over_days_leaves_no_channel_dead(shipped: str, mode: str, make_env: MakeEnv) -> None:
    env = make_env(shipped, mode=mode, split="all")
    low = {agent: np.full(space.shape, np.inf) for agent, space in env.observation_spaces.items()}
    high = {agent: np.full(space.shape, -np.inf) for agent, space in env.observation_spaces.items()}
    for day in (5, 100, 191):  # a Saturday in winter, weekdays in spring and summer
        for moment in play(env, seed=day, actions=day, options={"day": day}):
            for agent, seen in moment.observations.items():
                np.minimum(low[agent], seen, out=low[agent])
                np.maximum(high[agent], seen, out=high[agent])
    table, network = env.describe().observations, env.task.simulation.network
    # The transmission side is stiff: voltages at the source and right behind its transformer hardly move, and no more
    # behind a switch there.
    near = {network.source_bus, *network.graph.neighbors(network.source_bus)}
    switched = [set(network.branches.buses[k]) for k in np.flatnonzero(network.branches.is_switch)]
    stiff = network.nodes_of(sorted(near.union(*(ends for ends in switched if ends & near))))
    constant = {f"network.{network.nodes[node]}.v_pu" for node in stiff}
    for agent in env.possible_agents:
        names = table.query("agent == @agent")["name"].to_numpy()
        still = set(names[high[agent] - low[agent] < 1e-4])
        assert still <= constant, f"{agent} sees channels that stand still"
        bound = (low[agent] >= 1.0) | (high[agent] <= -1.0)
        assert not bound.any(), f"{agent}: bounds too narrow for {names[bound]}"


def measure(simulation: Simulation, state: Any, action: Any) -> tuple[Any, Any, Any]:
    """Step once from a state; give devices' power, positions, voltages."""
    simulation.restore(state)
    simulation.step(action)
    assert simulation.snapshot.converged.all()
    positions = [fleet.position.copy() for fleet in simulation.fleets if isinstance(fleet, SwitchgearFleet)]
    return (
        simulation.snapshot.device_kva.copy(),
        np.concatenate([[[]], *positions], axis=1),
        simulation.snapshot.v_pu[0].copy(),
    )


def find_idle_actions(env: NetworkedGridEnv) -> set[str]:
    """Name the actions that move neither their device nor the voltages, at noon or in the evening."""
    simulation = env.task.simulation
    env.reset(seed=3, options={"day": 171})
    idle = {f"{spec.device}.{spec.name}" for spec in simulation.actions}
    for hour in range(24):
        for _ in range(60 // env.scenario.step_minutes):
            simulation.step(simulation.neutral())
        if hour + 1 not in (12, 15, 19):
            continue
        state = simulation.state()
        base = simulation.neutral()
        discrete = np.array([spec.discrete for spec in simulation.actions])
        base[:, ~discrete] = 0.0
        gear = np.array([spec.discrete and spec.name != "p_kw" for spec in simulation.actions])
        devices, positions, v_pu = measure(simulation, state, base)
        again = measure(simulation, state, base)
        np.testing.assert_array_equal(again[2], v_pu)  # restoring restores
        for column, spec in enumerate(simulation.actions):
            for value in (0, spec.n - 1) if spec.discrete else (-1.0, 1.0):
                action = base.copy()
                action[:, column] = value
                new_devices, new_positions, new_v_pu = measure(simulation, state, action)
                moved = (new_positions != positions).any()
                acted = moved if gear[column] else _delivers(simulation, spec, new_devices - devices)
                if acted and np.abs(new_v_pu - v_pu).max() > 1e-6:
                    idle.discard(f"{spec.device}.{spec.name}")
        simulation.restore(state)
    return idle


def _delivers(simulation: Simulation, spec: Any, change: Any) -> bool:
    change = change[0, simulation.power_device_names.index(spec.device)]
    return bool(abs(change.imag if spec.name == "q_kvar" else change.real) > 0.1)


def test_action_every_dimension_moves_device_and_voltages(shipped: str, make_env: MakeEnv) -> None:
    env = make_env(shipped, split="all", **{"solver.tolerance": 1e-9})
    assert find_idle_actions(env) == set()


def test_action_every_dimension_of_every_kind_moves_device_and_voltages(
    every_kind_scenario: dict[str, Any], make_env: MakeEnv
) -> None:
    env = make_env(every_kind_scenario, split="all", **{"solver.tolerance": 1e-9})
    assert len(env.task.simulation.fleets) == 8
    assert find_idle_actions(env) == set()


def test_profiles_over_a_day_really_move(shipped: str, make_env: MakeEnv) -> None:
    simulation = make_env(shipped).task.simulation
    simulation.reset(0, np.random.default_rng(2))
    loads = simulation.network.loads
    assert ((simulation.day_load_kw[0].std(axis=0) > 0.01 * loads.kw) == ~loads.fixed).all()
    assert simulation.day_price[0].max() > 1.5 * simulation.day_price[0].min()
    assert simulation.day_pv_pu[0].max() > 0.05
    assert simulation.day_pv_pu[0].min() == 0.0
    drawn = []
    for _ in range(12):
        simulation.step(simulation.neutral())
        drawn.append(simulation.snapshot.source_kva[0].real)
    assert np.ptp(drawn) > 1.0


def test_step_of_all_kinds_keeps_the_power_balance(every_kind_scenario: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(every_kind_scenario)
    rated = env.task.simulation.network.loads.kw.sum()
    converged = 0
    for t, moment in enumerate(play(env, seed=4, steps=96)):
        for agent, seen in moment.observations.items():
            assert env.observation_spaces[agent].contains(seen)
        if t and moment.infos["North"]["converged"]:
            converged += 1
            assert abs(find_imbalance(env.task.simulation)) < 2e-4 * rated
        assert not moment.terminateds.get("__all__")
    assert converged == 96


def test_step_of_all_kinds_shows_what_was_projected_and_locked(
    every_kind_scenario: dict[str, Any], make_env: MakeEnv
) -> None:
    env = make_env(every_kind_scenario)
    env.reset(seed=0)
    table = env.describe().observations
    rng = np.random.default_rng(0)
    simulation = env.task.simulation
    circuit = simulation.circuits[0]
    place = circuit.switchgear.find_regulator(simulation.devices["reg"].element.lower())
    assert circuit.taps[place] == 3
    actions = draw_actions(env, rng)
    actions["North"] = {"continuous": np.ones(6, np.float32), "discrete": np.array([0])}  # full power, capacitor off
    actions["South"] = {"continuous": np.zeros(2, np.float32), "discrete": np.array([32, 1])}  # tap 16
    observations, _, _, _, infos = env.step(actions)

    def see(agent: str, name: str) -> float:
        row = table.query("agent == @agent and name == @name").iloc[0]
        share = (float(observations[agent][row["position"]]) + 1.0) / 2.0
        return float(row["low"] + share * (row["high"] - row["low"]))

    assert see("North", "cap.steps_on") == 0.0
    assert see("North", "cap.locked_steps") == pytest.approx(3.0, abs=1e-5)
    assert see("South", "reg.tap") == pytest.approx(5.0, abs=1e-5)  # two taps at once, from 3
    assert circuit.taps[place] == 5
    assert infos["North"]["operations"] == 3.0  # one bank, two taps
    assert infos["North"]["switching_wear_usd"] == 1.0
    # the generator starts at its ramp of 150 kW instead of 500; at full discharge the battery has 1.1 of its kVA left
    assert infos["North"]["projected_devices"] >= 2.0
    assert infos["North"]["projection_kw"] >= 350.0
    assert infos["North"]["projection_kvar"] > 0.0
    assert infos["South"]["projection_kw"] == 0.0
    actions["North"]["discrete"] = np.array([1])  # locked: it stays off
    observations, _, _, _, infos = env.step(actions)
    assert see("North", "cap.steps_on") == 0.0
    assert see("North", "cap.locked_steps") == pytest.approx(2.0, abs=1e-5)
