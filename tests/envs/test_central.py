"""The single-agent view: Gymnasium's own checks, action forms that mean the same, rewards that add up."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import powergrid
from powergrid.errors import ActionError, ScenarioError
from powergrid.scenario import list_versions
from tests.envs.worlds import draw_action, every_kind, find_imbalance, shaky

MakeCentral = Callable[..., Any]
FORMS = ["auto", "multidiscrete", "box", "mixed"]


def test_check_env_accepts_every_scenario(shipped: str, make_central: MakeCentral) -> None:
    check_env(make_central(shipped), skip_render_check=True)


@pytest.mark.parametrize("form", FORMS)
def test_check_env_accepts_every_form_of_mixed_devices(form: str, tmp_path: Any, make_central: MakeCentral) -> None:
    env = make_central(every_kind("ieee13", tmp_path), actions=form)
    kinds = {"mixed": gym.spaces.Dict, "multidiscrete": gym.spaces.MultiDiscrete}
    assert isinstance(env.action_space, kinds.get(form, gym.spaces.Box))
    check_env(env, skip_render_check=True)
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(30):
        seen, _, terminated, _, _ = env.step(draw_action(env.action_space, rng))
        assert env.observation_space.contains(seen)
        assert not terminated
    assert abs(find_imbalance(env.task.simulation)) < 0.7


@pytest.mark.parametrize("name", ["ieee13_voltvar", "ieee34_mg"])
def test_step_plays_as_the_agents_do_and_adds_their_rewards(name: str, make_central: MakeCentral) -> None:
    env, team = make_central(name), powergrid.make(name)
    seen, info = env.reset(seed=4)
    _, told = team.reset(seed=4)
    assert info["day"] == next(iter(told.values()))["day"]
    rng = np.random.default_rng(1)
    for _ in range(env.scenario.episode_length):
        action = draw_action(env.action_space, rng)
        seen, reward, _, truncated, info = env.step(action)
        vector = env.task.action_buffer()[0]
        parts = {agent.name: agent.read_action(vector) for agent in team.task.agents}
        _, rewards, _, truncations, infos = team.step(parts)
        assert reward == pytest.approx(sum(rewards.values()), rel=1e-6, abs=1e-9)
        assert info["network_violation_pu"] == pytest.approx(infos[next(iter(infos))]["network_violation_pu"], abs=1e-6)
        assert truncated == all(truncations.values())
    assert truncated
    assert seen.shape == (len(team.task.channels.table),)
    team.close()


def test_reward_of_volt_var_is_the_documented_sum(make_central: MakeCentral) -> None:
    env = make_central()
    env.reset(seed=0, options={"day": 20})
    rng = np.random.default_rng(0)
    simulation = env.task.simulation
    battery = simulation.fleets[0]
    positions = [fleet.position.copy() for fleet in simulation.fleets[1:]]
    for t in range(24):
        _, reward, _, truncated, info = env.step(draw_action(env.action_space, rng))
        violation = np.maximum(np.abs(simulation.snapshot.v_pu[0] - 1.0) - 0.05, 0.0).sum()
        moves = [np.abs(f.position - was).sum() for f, was in zip(simulation.fleets[1:], positions, strict=True)]
        positions = [fleet.position.copy() for fleet in simulation.fleets[1:]]
        control = 0.2 * moves[0] + 0.05 * moves[1] + 0.02 * abs(simulation.snapshot.device_kva[0, 0].real)
        control += 0.1 * 1000.0 * abs(battery.soc[0, 0] - 0.5) if t == 23 else 0.0
        losses = 0.1 * simulation.snapshot.losses_kw[0]
        assert reward == pytest.approx(-0.01 * (100.0 * violation + control + losses), rel=1e-9)
        assert info["operations"] == sum(moves)
    assert truncated
    assert abs(battery.soc[0, 0] - 0.5) > 0.01


@pytest.mark.parametrize("form", FORMS)
def test_neutral_action_in_every_form_moves_nothing(form: str, tmp_path: Any, make_central: MakeCentral) -> None:
    env = make_central("ieee34_voltvar", actions=form)
    env.reset(seed=2)
    for _ in range(5):
        action = env.neutral_action()
        assert env.action_space.contains(action)
        *_, info = env.step(action)
        assert info["operations"] == 0.0
        assert info["throughput_kwh"] == pytest.approx(0.0, abs=1e-6)


def test_forms_of_an_action_mean_the_same(make_central: MakeCentral) -> None:
    mixed, bins, box = (make_central(actions=form) for form in ("mixed", "multidiscrete", "box"))
    rng = np.random.default_rng(3)
    for env in (mixed, bins, box):
        env.reset(seed=1)
    for _ in range(24):
        action = rng.integers(mixed.action_space.nvec)
        sizes = np.array(mixed.action_space.nvec)
        results = [mixed.step(action), bins.step(action), box.step(((2 * action + 1) / sizes - 1).astype(np.float32))]
        assert results[0][1] == results[1][1] == results[2][1]
        np.testing.assert_array_equal(results[0][0], results[2][0])


def test_box_and_bins_reach_both_ends_of_everything(tmp_path: Any, make_central: MakeCentral) -> None:
    for form, low, high in (("box", -1.0, 1.0), ("multidiscrete", 0, None)):
        env = make_central(every_kind("ieee13", tmp_path), actions=form, levels=5)
        env.reset(seed=0)
        table = env.task.simulation.actions
        least = np.array([0.0 if spec.discrete else -1.0 for spec in table])
        most = np.array([spec.n - 1.0 if spec.discrete else 1.0 for spec in table])
        top = env.action_space.nvec - 1 if high is None else np.full(len(table), high, np.float32)
        for action, expected in ((np.full(len(table), low, top.dtype), least), (top, most)):
            env.step(action)
            np.testing.assert_array_equal(env.task.action_buffer()[0], expected)


def test_battery_continuous_gives_a_box_and_discrete_gives_levels(make_central: MakeCentral) -> None:
    assert make_central().action_space == gym.spaces.MultiDiscrete([33, 2, 2, 33, 33, 33])
    spaces = make_central(battery="continuous", actions="mixed").action_space
    assert spaces["continuous"].shape == (1,)
    assert spaces["discrete"] == gym.spaces.MultiDiscrete([2, 2, 33, 33, 33])
    same = make_central(actions="mixed", **{"devices.battery_1.levels": None}).action_space
    assert same == spaces
    assert make_central(battery="discrete", levels=5).action_space.nvec[0] == 5
    microgrids = make_central("ieee13_mg", battery="discrete", levels=5, actions="mixed").action_space
    assert microgrids["discrete"] == gym.spaces.MultiDiscrete([5, 5])


def test_reset_same_seed_is_bitwise_equal_after_pickling(make_central: MakeCentral) -> None:
    env = make_central(actions="box")
    copy = pickle.loads(pickle.dumps(env))
    first, _ = env.reset(seed=9)
    second, _ = copy.reset(seed=9)
    np.testing.assert_array_equal(first, second)
    action = np.full(env.action_space.shape, 0.5, np.float32)
    assert env.step(action)[1] == copy.step(action)[1]
    copy.close()


def test_divergence_terminates_and_a_new_episode_is_needed(make_central: MakeCentral) -> None:
    env = make_central(shaky())
    env.reset(seed=1)
    _, reward, terminated, truncated, info = env.step(np.ones(env.action_space.shape, np.float32))
    assert terminated
    assert not truncated
    assert info["converged"] == 0.0
    assert reward < -14.0 + 1.0  # 7 from each of two agents
    with pytest.raises(ScenarioError, match=r"call reset\(\) before step\(\)"):
        env.step(env.neutral_action())


def test_wrong_input_is_told_clearly(make_central: MakeCentral) -> None:
    with pytest.raises(ScenarioError, match="actions: unknown form 'boxes'"):
        make_central(actions="boxes")
    with pytest.raises(ScenarioError, match="levels 1 is not"):
        make_central(levels=1)
    with pytest.raises(ScenarioError, match="battery: unknown form 'off'"):
        make_central(battery="off")
    with pytest.raises(ScenarioError, match=r"levels 4 leaves no level for 0 kW; give an odd number, such as 5"):
        make_central(battery="discrete", levels=4)
    env = make_central()
    with pytest.raises(ScenarioError, match=r"call reset\(\) before step\(\)"):
        env.step(np.zeros(6, int))
    env.reset(seed=0)
    with pytest.raises(ActionError, match=r"action\[1\] is 2; allowed are the whole numbers 0..1"):
        env.step(np.array([0, 2, 0, 0, 0, 0]))
    with pytest.raises(ActionError, match=r"action has shape \(2,\), expected \(6,\)"):
        env.step(np.zeros(2, int))


def test_gymnasium_makes_every_version_of_the_shipped_scenarios() -> None:
    assert {f"powergrid/{name}" for name in list_versions()} <= set(gym.registry)
    env = gym.make("powergrid.envs:powergrid/ieee13_voltvar-v1", split="test", actions="box")
    assert env.spec is not None
    assert env.spec.id == "powergrid/ieee13_voltvar-v1"
    assert gym.envs.registration.EnvSpec.from_json(env.spec.to_json()).kwargs["split"] == "test"
    check_env(env.unwrapped, skip_render_check=True)
    several = gym.make_vec("powergrid/ieee13_voltvar-v1", num_envs=2, split="test", actions="box")
    seen, _ = several.reset(seed=4)
    np.testing.assert_array_equal(seen[0], env.reset(seed=4)[0])
    assert several.step(several.action_space.sample())[1].shape == (2,)
    several.close()
    env.close()


def test_day_made_by_gymnasium_ends_by_itself_also_after_steps_taken_back() -> None:
    env = gym.make("powergrid.envs:powergrid/ieee13_voltvar-v1", episode_length=5)
    env.reset(seed=0)
    grid: Any = env.unwrapped
    start = grid.get_state()
    for _ in range(4):
        env.step(grid.neutral_action())
    grid.set_state(start)
    assert [env.step(grid.neutral_action())[3] for _ in range(5)] == [False] * 4 + [True]
    env.close()


def test_render_mode_may_be_named_and_is_none() -> None:
    name = "powergrid.envs:powergrid/ieee13_voltvar-v1"
    for made in (gym.make(name, render_mode=None), gym.make_vec(name, 2, render_mode=None)):
        assert made.render_mode is None
        made.close()
    for make in (
        powergrid.make,
        powergrid.make_central,
        lambda *_, **keys: powergrid.make_vector("ieee13_mg", 2, **keys),
    ):
        with pytest.raises(TypeError, match="render_mode is 'rgb_array'; allowed is None"):
            make("ieee13_mg", render_mode="rgb_array")
