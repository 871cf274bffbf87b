"""How an agent's action becomes the action vector, and the table that says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from powergrid.envs import NetworkedGridEnv
from powergrid.envs.agents import ActionWriter
from powergrid.grid.profiles.profiles import builtin_profiles
from tests.envs.worlds import fill_actions

MakeEnv = Callable[..., NetworkedGridEnv]


def test_action_space_matches_the_devices_of_the_agent(every_kind_scenario: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(every_kind_scenario)
    north, south = env.action_spaces["North"], env.action_spaces["South"]
    assert north == gym.spaces.Dict(
        {"continuous": gym.spaces.Box(-1, 1, (6,), np.float32), "discrete": gym.spaces.MultiDiscrete([2])}
    )
    assert south["continuous"].shape == (2,)
    assert south["discrete"].nvec.tolist() == [33, 2]


def test_action_space_of_positions_only_is_multidiscrete_and_of_numbers_only_a_box(make_env: MakeEnv) -> None:
    scenario = {
        "name": "two", "feeder": "ieee13",
        "devices": {
            "reg": {"kind": "regulator", "element": "RegControl.reg2", "tap_min": 0, "tap_max": 12},
            "cap": {"kind": "capacitor", "element": "Capacitor.cap1"},
            "ess": {"kind": "storage", "bus": "675", "e_max_kwh": 100, "p_max_kw": 40},
        },
        "agents": {
            "U": {"devices": ["reg", "cap"], "zone": {"buses": ["632"]}, "pcc": "632"},
            "B": {"devices": ["ess"], "zone": {"buses": ["675"]}, "pcc": "675"},
        },
    }  # fmt: skip
    env = make_env(scenario)
    assert env.action_spaces == {
        "U": gym.spaces.MultiDiscrete([2, 13]),
        "B": gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
    }
    env.reset(seed=0)
    for action in (np.array([0, 12]), [0, 12], (0.0, 12.0)):
        env.step({"U": action, "B": [-1.0]})
        circuit = env.task.simulation.circuits[0]
        assert circuit.taps[1] == 12
        assert circuit.steps_on[0] == 0


def test_describe_actions_names_what_each_number_sets(every_kind_scenario: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(every_kind_scenario)
    table = env.describe().actions
    simulation, writer = env.task.simulation, ActionWriter(env.task.agents)
    for agent in env.possible_agents:
        space = env.action_spaces[agent]
        rows = table.query("agent == @agent")
        assert (rows["part"] == "continuous").sum() == space["continuous"].shape[0]
        assert rows.query("part == 'discrete'")["n"].tolist() == space["discrete"].nvec.tolist()
        for part, group in rows.groupby("part"):
            for row in group.itertuples():
                env.reset(seed=0)
                actions = fill_actions(env, 0.0)
                before = env.task.action_buffer().copy()
                actions[agent][part][row.position] = 1
                writer.write(fill_actions(env, 0.0), before)
                after = before.copy()
                writer.write(actions, after)
                (column,) = np.flatnonzero((before != after)[0])
                spec = simulation.actions[column]
                assert f"{spec.device}.{spec.name}" == row.name
                assert (spec.low, spec.high, spec.unit, spec.n) == (row.low, row.high, row.unit, row.n)
                assert spec.device in env.scenario.agents[agent].devices


def test_action_of_a_battery_maps_linearly_to_kilowatts(make_env: MakeEnv) -> None:
    env = make_env()
    for value in (-1.0, -0.25, 0.0, 0.5):
        env.reset(seed=0)
        *_, infos = env.step({"MG1": [value, 0, -1, 0, -1], "MG2": [0, 0, -1, 0, -1]})
        assert infos["MG1"]["delivered_kw"] == pytest.approx(800 * value, abs=0.5)
        assert infos["MG1"]["throughput_kwh"] == pytest.approx(200 * abs(value), abs=0.2)


def test_action_a_hair_beyond_its_bound_counts_as_the_bound(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset(seed=0)
    *_, infos = env.step({"MG1": np.full(5, 1.00005), "MG2": np.zeros(5)})
    env.reset(seed=0)
    *_, expected = env.step({"MG1": np.ones(5), "MG2": np.zeros(5)})
    assert infos == expected


def test_action_arrays_of_the_caller_are_left_alone(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset(seed=0)
    actions = {"MG1": np.linspace(-1, 1, 5), "MG2": np.ones(5)}
    env.step(actions)
    np.testing.assert_array_equal(actions["MG1"], np.linspace(-1, 1, 5))
    np.testing.assert_array_equal(actions["MG2"], np.ones(5))


def test_device_of_no_agent_is_left_to_itself(make_env: MakeEnv) -> None:
    env = make_env()
    data = env.scenario.to_dict()
    del data["agents"]["MG2"]
    alone = make_env(data)
    alone.reset(seed=0, options={"day": 171})
    for _ in range(50):
        *_, infos = alone.step({"MG1": np.zeros(5)})
    simulation = alone.task.simulation
    power = dict(zip(simulation.power_device_names, simulation.snapshot.device_kva[0], strict=True))
    sun = builtin_sun(171, 49)
    assert power["ess_2"] == pytest.approx(0.0, abs=1e-3)
    assert power["gen_2"] == pytest.approx(0.0, abs=1e-3)
    assert power["pv_2"].real == pytest.approx(1500 * sun, rel=1e-3)
    assert sun > 0.3
    assert list(infos) == ["MG1"]
    assert alone.describe().devices.set_index("device")["owner"].to_dict()["pv_2"] == ""


def builtin_sun(day: int, step: int) -> float:
    return float(builtin_profiles().pv_pu[96 * day + step])
