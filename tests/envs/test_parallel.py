"""PettingZoo's own tests on every scenario, and what differs from RLlib's environment."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test, parallel_seed_test

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ActionError, ScenarioError
from tests.envs.worlds import digest, draw_actions, every_kind, fill_actions, play, shaky

MakeParallel = Callable[..., Any]
#: Keys by which agents see, do or are told something else.
FACES: list[dict[str, Any]] = [
    {"observations": "summary"},
    {"observations": "graph"},
    {"outlook": {}},
    {"costs": {}},
    {"infos": "none"},
    {"infos": "full"},
    {"agent_names": "underscored"},
    {"plain_discrete": True, "devices.ess_1.levels": 5},
    {"action_masks": "infos", "devices.ess_*.levels": 5},
    {"telemetry": {"readings": {"all": {"delay_minutes": 15, "loss": 0.1, "on_loss": "both", "age": True}}}},
    {"ranges": {"load_scale": {"uniform": [0.8, 1.3]}, "start_hour": {"choice": [0.0, 6.0]}}},
]


def test_parallel_api_test_accepts_every_scenario(shipped: str, mode: str, make_parallel: MakeParallel) -> None:
    parallel_api_test(make_parallel(shipped, mode=mode), num_cycles=200)


@pytest.mark.parametrize("keys", FACES, ids=lambda keys: next(iter(keys)))
def test_checkers_accept_every_form_of_what_is_seen_and_done(keys: dict[str, Any], make_parallel: MakeParallel) -> None:
    from ray.rllib.utils.pre_checks.env import check_multiagent_environments

    short: dict[str, Any] = {"env_name": "ieee13_mg", "episode_length": 8, **keys}
    parallel_api_test(make_parallel("ieee13_mg", episode_length=8, **keys), num_cycles=20)
    with closing(NetworkedGridEnv(short)) as env:
        check_multiagent_environments(env)
    with closing(powergrid.make_central("ieee13_mg", episode_length=8, **keys)) as central:
        check_env(central, skip_render_check=True)


def test_parallel_seed_test_accepts_every_scenario(shipped: str, mode: str) -> None:
    parallel_seed_test(lambda: powergrid.make(shipped, mode=mode), num_cycles=100)


def test_parallel_api_test_accepts_every_kind_of_device(every_kind_scenario: dict[str, Any]) -> None:
    env = powergrid.make(every_kind_scenario)
    parallel_api_test(env, num_cycles=200)
    env.close()
    parallel_seed_test(lambda: powergrid.make(every_kind_scenario), num_cycles=100)


def test_parallel_trajectory_equals_that_of_networked(make_parallel: MakeParallel) -> None:
    env = NetworkedGridEnv({"env_name": "ieee13_mg"})
    assert digest(play(make_parallel(), seed=2)) == digest(play(env, seed=2))
    env.close()


def test_step_last_of_the_horizon_truncates_every_agent(make_parallel: MakeParallel) -> None:
    env = make_parallel()
    for t, moment in enumerate(play(env, seed=0)):
        if t:
            assert moment.terminateds == {"MG1": False, "MG2": False}
            assert moment.truncateds == {"MG1": t == 96, "MG2": t == 96}
    assert env.agents == []
    assert env.step({}) == ({}, {}, {}, {}, {})
    env.reset()
    assert env.agents == env.possible_agents == ["MG1", "MG2"]


def test_step_that_diverges_terminates_every_agent(make_parallel: MakeParallel) -> None:
    env = make_parallel(shaky())
    env.reset(seed=0)
    _, rewards, terminations, truncations, _ = env.step(fill_actions(env, 1.0))
    assert terminations == {"A": True, "B": True}
    assert truncations == {"A": False, "B": False}
    assert max(rewards.values()) < -7.0
    assert env.agents == []


def test_step_before_reset_raises(make_parallel: MakeParallel) -> None:
    with pytest.raises(ScenarioError, match=r"ieee13_mg: no episode is being played; call reset\(\) before step\(\)"):
        make_parallel().step({})


def test_step_wrong_agent_raises(make_parallel: MakeParallel) -> None:
    env = make_parallel()
    env.reset(seed=0)
    with pytest.raises(ActionError, match="agent 'MG2' has no action"):
        env.step({"MG1": np.zeros(5)})


def test_reset_unknown_option_raises_but_pettingzoos_own_passes(make_parallel: MakeParallel) -> None:
    env = make_parallel()
    env.reset(options={"options": 1})
    with pytest.raises(ScenarioError, match=r"options: unknown option 'dya' \(did you mean 'day'\?\)"):
        env.reset(options={"dya": 3})


def test_spaces_are_one_object_an_agent_and_methods_return_them(make_parallel: MakeParallel) -> None:
    env = make_parallel()
    for agent in env.possible_agents:
        assert env.observation_space(agent) is env.observation_spaces[agent]
        assert env.action_space(agent) is env.action_spaces[agent]
    env.render()
    assert env.render_mode is None


def test_state_is_what_one_controller_of_all_sees(make_parallel: MakeParallel, make_central: Any) -> None:
    env, central = make_parallel("ieee13_voltvar"), make_central("ieee13_voltvar")
    env.reset(seed=3)
    seen, _ = central.reset(seed=3)
    assert env.state_space.contains(env.state())
    np.testing.assert_array_equal(env.state(), seen)
    env.step({name: space.sample() for name, space in env.action_spaces.items()})
    assert (env.state() != seen).any()
    assert env.state_space == central.observation_space


def test_pickle_of_an_environment_rebuilds_it(make_parallel: MakeParallel, tmp_path: Any) -> None:
    for scenario in ("ieee13_mg", every_kind("ieee13", tmp_path)):
        env = make_parallel(scenario, split="test")
        draw_actions(env, np.random.default_rng(0))
        copy = pickle.loads(pickle.dumps(env))
        assert copy.scenario == env.scenario
        assert digest(play(copy, seed=4, steps=30)) == digest(play(env, seed=4, steps=30))
        copy.close()


def test_close_twice_is_harmless(make_parallel: MakeParallel) -> None:
    env = make_parallel()
    env.close()
    env.close()
    with pytest.raises(ScenarioError, match="closed"):
        env.reset()
