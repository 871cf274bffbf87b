from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from powergrid.training.policies.spaces import FIT_KEY, AgentFit, common_space, fit_policy, flattened, plain_fit

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
WIDE = gym.spaces.Box(np.float32([0.0, -2.0, 5.0]), np.float32([10.0, 2.0, 6.0]))
TAPS = gym.spaces.MultiDiscrete([33, 2])
BOTH = gym.spaces.Dict({"continuous": BOX, "discrete": gym.spaces.MultiDiscrete([3])})


def test_observations_are_padded_and_followed_by_who_sees_them() -> None:
    fits = fit_policy(["a", "b"], {"a": BOX, "b": WIDE}, {"a": 2, "b": 3})
    assert fits["a"].observe(np.array([[5.0, 6.0]])).tolist() == [[5.0, 6.0, 0.0, 1.0, 0.0]]
    assert fits["b"].observe(np.array([[5.0, 6.0, 7.0]])).tolist() == [[5.0, 6.0, 7.0, 0.0, 1.0]]


def test_continuous_actions_are_cut_and_scaled_to_the_agents_own_bounds() -> None:
    fits = fit_policy(["a", "b"], {"a": BOX, "b": WIDE}, {"a": 2, "b": 3})
    policys = np.float32([[0.5, -1.0, 1.0], [3.0, 0.0, -1.0]])
    np.testing.assert_allclose(fits["a"].act(policys), [[0.5, -1.0], [1.0, 0.0]])
    np.testing.assert_allclose(fits["b"].act(policys), [[7.5, -2.0, 6.0], [10.0, 0.0, 5.0]])


def test_a_position_past_an_agents_last_is_its_last() -> None:
    spaces = {"a": TAPS, "b": gym.spaces.Discrete(3, start=1)}
    fits = fit_policy(["a", "b"], spaces, {"a": 1, "b": 1})
    assert fits["a"].action_space == gym.spaces.MultiDiscrete([33, 2])
    assert fits["a"].act(np.array([[32, 1]])).tolist() == [[32, 1]]
    assert fits["b"].act(np.array([[1, 1], [32, 0]])).tolist() == [2, 3]


def test_common_space_of_both_kinds_has_both_and_each_agent_takes_its_own() -> None:
    common = common_space([BOX, TAPS, BOTH])
    assert common == gym.spaces.Dict({"continuous": BOX, "discrete": gym.spaces.MultiDiscrete([33, 2])})
    fits = fit_policy(["a", "b", "c"], {"a": BOX, "b": TAPS, "c": BOTH}, {"a": 1, "b": 1, "c": 1})
    policys = {"continuous": np.float32([[0.25, -0.5]]), "discrete": np.array([[7, 1]])}
    np.testing.assert_allclose(fits["a"].act(policys), [[0.25, -0.5]])
    assert fits["b"].act(policys).tolist() == [[7, 1]]
    both = fits["c"].act(policys)
    np.testing.assert_allclose(both["continuous"], [[0.25, -0.5]])
    assert both["discrete"].tolist() == [[2]]


def test_one_number_stands_for_every_combination_of_positions() -> None:
    fit = flattened(plain_fit(TAPS, 4), [plain_fit(TAPS, 4)])
    assert fit.action_space == gym.spaces.Discrete(66)
    acted = fit.act(np.arange(66))
    assert len({tuple(row) for row in acted.tolist()}) == 66
    assert [fit.undo(row) for row in acted] == list(range(66))


@pytest.mark.parametrize("space", [BOX, WIDE, TAPS, BOTH, gym.spaces.Discrete(5, start=2)])
def test_undo_gives_what_act_made_the_action_of(space: gym.Space) -> None:
    mates = {"me": space, "other": gym.spaces.Dict({"x": WIDE, "y": gym.spaces.MultiDiscrete([40, 40, 40])})}
    fit: AgentFit = fit_policy(["me", "other"], mates, {"me": 1, "other": 1})["me"]
    space.seed(3)
    for _ in range(20):
        action = space.sample()
        fitted = fit.undo(action)
        assert fit.action_space.contains(fitted)
        again = fit.act({name: part[None] for name, part in fitted.items()})
        if isinstance(space, gym.spaces.Dict):
            for name, part in action.items():
                np.testing.assert_allclose(again[name][0], part, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_allclose(again[0], action, rtol=1e-5, atol=1e-6)


def test_fitted_environments_of_a_worker_play_unequal_days() -> None:
    from ray.rllib.env.env_context import EnvContext

    from powergrid.envs import NetworkedGridEnv
    from powergrid.training.rllib.sampling.environments import FittedEnv

    spaces = {"MG1": gym.spaces.Box(-1.0, 1.0, (28,)), "MG2": gym.spaces.Box(-1.0, 1.0, (28,))}
    fit = {"env": NetworkedGridEnv, "fits": {}, "observation_spaces": spaces, "action_spaces": spaces}
    config = {"env_name": "ieee13_mg", FIT_KEY: fit}
    context = EnvContext(config, worker_index=2, num_workers=3)
    envs = [FittedEnv(context) for _ in range(2)]
    try:
        first, second = (env.reset(seed=5)[0]["MG1"] for env in envs)
        assert not np.array_equal(first, second)
        assert "__fit__" not in envs[0].inner._config
    finally:
        for env in envs:
            env.close()
