from __future__ import annotations

import logging
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch

from powergrid.errors import ScenarioError
from powergrid.training.rllib.config import initial_bias, ppo_config
from powergrid.training.rllib.planning.policies import AgentMapping, policy_names
from powergrid.training.rllib.sampling.processes import fit_env_runners
from powergrid.training.runs.settings import ALIASES, TrainSettings, make_settings
from tests.training.toy import ToyGridEnv

pytestmark = pytest.mark.usefixtures("ray_session")


def test_ppo_config_takes_the_names_of_older_versions() -> None:
    config = ppo_config(
        {}, env=ToyGridEnv, lr=1e-3, lr_end=None, train_batch_size=4000, sgd_minibatch_size=128, num_sgd_iter=10,
        lambda_=0.9, num_rollout_workers=1, rollout_fragment_length=200, vf_clip_param=10.0, entropy_coeff=0.01,
    )  # fmt: skip
    assert config.lr == 1e-3
    assert config.train_batch_size_per_learner == 4000
    assert (config.minibatch_size, config.num_epochs, config.lambda_) == (128, 10, 0.9)
    assert (config.num_env_runners, config.rollout_fragment_length) == (1, 200)
    assert (config.vf_clip_param, config.entropy_coeff) == (10.0, 0.01)


def test_ppo_config_sets_what_rllib_gets_wrong_by_default() -> None:
    config = ppo_config({"a": 1}, env=ToyGridEnv, seed=7)
    assert config.env is ToyGridEnv
    assert config.env_config == {"a": 1}
    assert config.disable_env_checking
    assert config.restart_failed_env_runners
    assert config.restart_failed_sub_environments
    assert config.delay_between_env_runner_restarts_s == 0
    assert config.vf_clip_param == float("inf")
    assert config.seed == 7


def test_ppo_config_with_wrong_settings_tells_all_of_them() -> None:
    one = {"MG1": "grid_policy", "MG2": "grid_policy"}
    with pytest.raises(ScenarioError) as raised:
        ppo_config({"mg2_width": 9}, env=ToyGridEnv, policies=one, learning_rate=1.0, num_epoch=3, gamma=2.0)
    text = str(raised.value)
    assert "unknown setting 'num_epoch' (did you mean 'num_epochs'" in text
    assert "unknown setting 'learning_rate'" in text
    assert "gamma = 2.0" in text
    assert "'MG1' has Box(-5.0, 5.0, (6,), float32), 'MG2' has Box(-5.0, 5.0, (9,), float32)" in text
    assert len(raised.value.problems) == 4


def test_make_settings_with_one_setting_under_two_names_refuses() -> None:
    with pytest.raises(ScenarioError, match="same setting"):
        make_settings("ppo", {"minibatch_size": 64, "sgd_minibatch_size": 128})


def test_ppo_config_with_the_pages_preset_has_the_pages_values() -> None:
    config = ppo_config({}, env=ToyGridEnv, preset="page", num_rollout_workers=2, gamma=0.9)
    assert (config.lr, config.train_batch_size_per_learner, config.minibatch_size, config.num_epochs) == (
        3e-4, 4000, 128, 10,
    )  # fmt: skip
    assert (config.lambda_, config.clip_param, config.vf_clip_param, config.entropy_coeff) == (0.95, 0.2, 10.0, 0.01)
    assert (config.num_env_runners, config.rollout_fragment_length, config.gamma) == (2, 200, 0.9)


def test_ppo_config_with_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ScenarioError, match=r"unknown preset 'pages' \(did you mean 'page'"):
        ppo_config({}, env=ToyGridEnv, preset="pages")


def test_make_settings_with_a_preset_changes_what_was_set_before() -> None:
    before = make_settings("ppo", {"hidden": [8], "lr": 1.0})
    after = make_settings("ppo", {"preset": "page", "clip_param": 0.3}, base=before)
    assert (after.hidden, after.lr, after.clip_param, after.minibatch_size) == ((8,), 3e-4, 0.3, 128)


def test_ppo_config_with_a_filter_that_cannot_serve_refuses() -> None:
    with pytest.raises(ScenarioError, match="needs observations of one shape"):
        ppo_config({"mg2_width": 9}, env=ToyGridEnv, policies="independent", observation_filter="mean_std")


def test_aliases_lead_to_settings() -> None:
    assert set(ALIASES.values()) <= set(TrainSettings.model_fields)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ("shared", {"MG1": "grid_policy", "MG2": "grid_policy"}),
        ("independent", {"MG1": "MG1_policy", "MG2": "MG2_policy"}),
        ({"MG1": "big", "MG2": "small"}, {"MG1": "big", "MG2": "small"}),
    ],
)
def test_ppo_config_maps_agents_to_policies(policies: object, expected: dict[str, str]) -> None:
    config = ppo_config({}, env=ToyGridEnv, policies=policies)
    assert set(config.policies) == set(expected.values())
    mapping = pickle.loads(pickle.dumps(config.policy_mapping_fn))
    assert {agent: mapping(agent, object()) for agent in expected} == expected


def test_independent_policies_keep_unequal_spaces() -> None:
    config = ppo_config({"mg2_width": 9}, env=ToyGridEnv, policies="independent")
    assert config.policies["MG2_policy"][1] == gym.spaces.Box(-5.0, 5.0, (9,))


def test_shared_policies_of_unequal_spaces_are_one_a_group_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "powergrid.training"):
        config = ppo_config({"mg2_width": 9}, env=ToyGridEnv)
    mapping = config.policy_mapping_fn
    assert {agent: mapping(agent) for agent in ("MG1", "MG2")} == {"MG1": "grid_policy_1", "MG2": "grid_policy_2"}
    assert config.policies["grid_policy_2"][1] == gym.spaces.Box(-5.0, 5.0, (9,))
    assert "grid_policy_1 for MG1; grid_policy_2 for MG2" in caplog.text


def test_initial_bias_prefers_the_neutral_position() -> None:
    space = gym.spaces.Dict({"continuous": gym.spaces.Box(-1, 1, (2,)), "discrete": gym.spaces.MultiDiscrete([33, 2])})
    neutral = {"continuous": np.array([1.0, -1.0]), "discrete": np.array([20, 1])}
    bias = initial_bias(space, [neutral], 0.5)
    assert len(bias) == 2 + 33 + 2
    assert bias[:2].tolist() == [0.5, -0.5]
    assert int(bias[2:35].argmax()) == 20
    assert bias[36] > bias[35]
    assert not initial_bias(space, [neutral], 0.0).any()


def test_policy_names_with_a_wrong_mapping_tells_what_is_missing_and_unknown() -> None:
    with pytest.raises(ScenarioError) as raised:
        policy_names({"MG1": "a", "MG3": ["a"]}, ("MG1", "MG2"))  # names that are none are told as well
    assert "unknown agent 'MG3' (did you mean" in str(raised.value)
    assert "agent 'MG2' has no policy; map it to one of ['a']" in str(raised.value)
    with pytest.raises(ScenarioError, match="did you mean 'shared'"):
        policy_names("share", ("MG1",))


def test_agent_mapping_of_an_unknown_agent_refuses() -> None:
    with pytest.raises(ScenarioError, match="unknown agent 'MG9'"):
        AgentMapping({"MG1": "a"})("MG9")


def test_ppo_config_with_too_many_workers_takes_what_fits_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "powergrid.training"):
        config = ppo_config({}, env=ToyGridEnv, num_workers=64)
    assert config.num_env_runners == 2
    assert caplog.messages == ["64 env runners need 64 CPUs and Ray has 2: training with 2."]


def test_fit_env_runners_leaves_what_fits() -> None:
    assert fit_env_runners(2, 2) == (2, None)
    assert fit_env_runners(0, 1) == (0, None)
    assert [fit_env_runners(None, cpus)[0] for cpus in (1, 2, 4, 64)] == [0, 0, 3, 8]


def test_first_policy_of_a_scenario_is_part_of_the_way_to_leaving_devices_alone(ray_session: None) -> None:
    from powergrid.envs import NetworkedGridEnv

    env_config = {"env_name": "ieee13_mg"}
    algorithm = ppo_config(env_config, num_env_runners=0, initial_neutral=0.5, initial_log_std=-0.7).build_algo()
    try:
        env = NetworkedGridEnv(env_config)
        observations, _ = env.reset(seed=3)
        module = algorithm.get_module("grid_policy")
        for agent, neutral in env.neutral_actions().items():
            inputs = module.forward_inference({"obs": torch.as_tensor(observations[agent])[None]})["action_dist_inputs"]
            mean, log_std = inputs[0].detach().numpy().reshape(2, -1)
            np.testing.assert_allclose(mean, 0.5 * neutral, atol=0.05)
            np.testing.assert_allclose(log_std, -0.7, atol=1e-6)
        env.close()
    finally:
        algorithm.stop()


@pytest.mark.parametrize(("given", "environments"), [({}, 10), ({"num_envs_per_worker": 5}, 5)])
def test_config_takes_the_pages_figures_and_as_many_environments_as_suit_them(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, int], environments: int
) -> None:
    monkeypatch.setattr("powergrid.training.rllib.config.available_cpus", lambda: 2)
    config = ppo_config(
        {}, env=ToyGridEnv, rollout_fragment_length=200, num_rollout_workers=4, train_batch_size=4000,
        sgd_minibatch_size=128, **given,
    )  # fmt: skip
    assert (config.num_env_runners, config.num_envs_per_env_runner) == (2, environments)
    assert config.get_rollout_fragment_length() == 200
    config.validate()


def test_config_without_a_fragment_length_has_16_environments() -> None:
    assert ppo_config({}, env=ToyGridEnv, num_env_runners=0).num_envs_per_env_runner == 16
