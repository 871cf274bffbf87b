from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

import powergrid
from powergrid.adapters.sb3 import GridVecEnv
from powergrid.errors import ScenarioError


@pytest.fixture(scope="module")
def envs() -> Iterator[GridVecEnv]:
    with closing(GridVecEnv("ieee13_voltvar", 3, info_names=["losses_kwh"])) as made:
        yield made


def test_checker_of_the_library_accepts_every_scenario(shipped: str) -> None:
    with closing(powergrid.make_central(shipped)) as env:
        check_env(env, skip_render_check=True)


def test_environments_give_what_each_gives_alone(envs: GridVecEnv) -> None:
    """Observations, rewards, infos and ends over a day and into the next, bit for bit but for float32 of rewards."""
    assert isinstance(envs, VecEnv)
    envs.seed(5)
    seen = envs.reset()
    alone = [powergrid.make_central("ieee13_voltvar") for _ in range(3)]
    for i, env in enumerate(alone):
        np.testing.assert_array_equal(env.reset(seed=5 + i)[0], seen[i])
    total = np.zeros(3)
    envs.action_space.seed(0)
    for step in range(30):
        actions = np.array([envs.action_space.sample() for _ in alone])
        seen, rewards, over, infos = envs.step(actions)
        for i, env in enumerate(alone):
            observation, reward, _, truncated, info = env.step(actions[i])
            total[i] += reward
            assert rewards[i] == np.float32(reward)
            assert infos[i]["losses_kwh"] == info["losses_kwh"]
            assert over[i] == truncated == (step == 23)
            if truncated:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], observation)
                assert infos[i]["TimeLimit.truncated"] is True
                assert infos[i]["episode"]["l"] == 24
                assert infos[i]["episode"]["r"] == pytest.approx(total[i], abs=1e-12)
                assert infos[i]["network_losses_kw"] == info["network_losses_kw"]
                observation, _ = env.reset()
            np.testing.assert_array_equal(observation, seen[i])
    for env in alone:
        env.close()


def test_seed_and_options_hold_for_the_next_reset_only(envs: GridVecEnv) -> None:
    envs.seed(1)
    envs.set_options({"day": 40})
    first = envs.reset()
    assert envs.get_attr("days") == [40, 40, 40]
    envs.set_options([{"day": 40}, {"day": 41}, {"day": 40}])
    with pytest.raises(ScenarioError, match="set_options: options of environments differ"):
        envs.reset()
    envs.set_options()
    assert np.abs(envs.reset() - first).max() > 0.0
    assert set(envs.get_attr("days")) != {40}


def test_rows_of_attributes_and_methods_are_those_of_environments(envs: GridVecEnv) -> None:
    envs.reset()
    assert envs.get_attr("num_envs", [0, 2]) == [3, 3]
    neutral = envs.env_method("neutral_actions", indices=[1])
    assert len(neutral) == 1
    assert neutral[0] in envs.action_space
    assert envs.env_is_wrapped(Monitor) == [True] * 3
    assert envs.env_is_wrapped(VecNormalize, 1) == [False]
    with pytest.raises(AttributeError, match="make the environments anew"):
        envs.set_attr("days", 1)


def test_unknown_info_is_told_with_the_nearest() -> None:
    told = pytest.raises(ScenarioError, match=r"unknown info 'loses_kwh' \(did you mean 'losses_kwh'")
    with closing(GridVecEnv("ieee13_voltvar", 1, info_names=["loses_kwh"])) as made, told:
        made.reset()


def test_learner_and_evaluation_take_the_environments(envs: GridVecEnv) -> None:
    """Also that SB3 sees episodes without a wrapper: it warns where it does not, which fails here."""
    model = PPO("MlpPolicy", envs, n_steps=24, batch_size=72, n_epochs=1, seed=0, device="cpu")
    model.learn(72)
    assert model.num_timesteps == 72
    assert len(model.ep_info_buffer) == 3
    mean, _ = evaluate_policy(model, envs, n_eval_episodes=3)
    assert mean < 0.0


def test_library_makes_an_environment_by_its_name() -> None:
    envs = make_vec_env("powergrid.envs:powergrid/ieee13_voltvar-v1", 2)  # it asks for pictures first
    assert np.asarray(envs.reset()).shape[0] == 2
    envs.close()


@pytest.mark.parametrize("key", ["view", "autoreset_mode"])
def test_what_the_library_asks_for_is_not_to_be_chosen(key: str) -> None:
    with pytest.raises(ScenarioError, match=f"GridVecEnv: {key}: the library asks for one alone; leave it out"):
        GridVecEnv("ieee13_mg", 2, **{key: "agents"})
