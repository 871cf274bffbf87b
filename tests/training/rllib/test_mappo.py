"""The critic sees what all agents see and the actor what its own agent sees, wherever values are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from powergrid.errors import PowerGridError
from powergrid.training import algorithm_config
from powergrid.training.rllib.modules import JOINT_OBSERVATION, CentralCriticModule, JointObservations
from powergrid.training.runs.session import RaySession, build_algorithm
from tests.training.toy import ToyGridEnv

pytestmark = pytest.mark.usefixtures("ray_session")

GAMMA, LAMBDA = 0.9, 0.7
SETTINGS: dict[str, Any] = {
    "num_env_runners": 0, "num_envs_per_env_runner": 2, "train_batch_size": 120, "minibatch_size": 60,
    "num_epochs": 1, "hidden": [16], "critic_hidden": [16], "gamma": GAMMA, "lambda_": LAMBDA,
}  # fmt: skip


@pytest.fixture(params=["shared", "independent"])
def algorithm(request: pytest.FixtureRequest):
    width = 6 if request.param == "shared" else 9
    config = algorithm_config(
        {"mg2_width": width}, "mappo", env=ToyGridEnv, policies=request.param, **SETTINGS
    )  # fmt: skip
    built = build_algorithm(config, RaySession(None))
    yield built
    built.stop()


def learner_batch(algorithm: Any, episodes: list[Any]) -> Any:
    """Return what the learner makes of episodes."""
    learner = algorithm.learner_group._learner
    return learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=episodes, shared_data={}, metrics=learner.metrics
    )


def test_every_step_is_joined_with_what_the_others_saw_then(algorithm: Any) -> None:
    episodes = algorithm.env_runner.sample(num_timesteps=120)
    seen = [{a: np.asarray(e.get_observations()) for a, e in each.agent_episodes.items()} for each in episodes]
    modules = {a: e.module_id for a, e in episodes[0].agent_episodes.items()}
    batch = learner_batch(algorithm, episodes)
    for agent, module in modules.items():
        who = np.eye(2)[["MG1", "MG2"].index(agent)]
        expected = {
            tuple(np.concatenate([each[agent][t], each["MG1"][t], each["MG2"][t], who]).astype(np.float32).tolist())
            for each in seen
            for t in range(len(each[agent]))
        }
        joint = batch[module][JOINT_OBSERVATION]
        np.testing.assert_array_equal(joint[:, : batch[module]["obs"].shape[1]], batch[module]["obs"])
        rows = {tuple(row) for row in joint.tolist()}
        assert expected <= rows


def test_advantages_and_their_bootstrap_are_of_the_joint_state(algorithm: Any) -> None:
    """Two environments of 96 steps, sampled for 60, then on to 120: pieces cut on the way and ends of the horizon."""
    for ends in (False, True):
        episodes = algorithm.env_runner.sample(num_timesteps=120)
        by_hand: dict[str, list[np.ndarray]] = {}
        module = algorithm.learner_group._learner.module
        assert any(each.is_truncated for each in episodes) == ends
        for each in episodes:
            seen = {a: np.asarray(e.get_observations(), np.float32) for a, e in each.agent_episodes.items()}
            for agent in each.agent_ids:  # RLlib's order, which is a set's
                piece, place = each.agent_episodes[agent], ["MG1", "MG2"].index(agent)
                who = np.tile(np.eye(2, dtype=np.float32)[place], (len(seen[agent]), 1))
                joint = np.concatenate([seen[agent], seen["MG1"], seen["MG2"], who], axis=1)
                with torch.no_grad():
                    values = module[piece.module_id].compute_values({JOINT_OBSERVATION: torch.from_numpy(joint)})
                targets = _value_targets(np.asarray(piece.get_rewards()), values.numpy())
                by_hand.setdefault(piece.module_id, []).append(targets)
        batch = learner_batch(algorithm, episodes)
        for name, pieces in by_hand.items():
            kept = batch[name]["loss_mask"].numpy()
            np.testing.assert_allclose(
                batch[name]["value_targets"].numpy()[kept], np.concatenate(pieces), rtol=1e-4, atol=1e-5
            )


def _value_targets(rewards: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return GAE's targets; ``values`` has one more entry, of the state after the last step."""
    advantage, targets = 0.0, np.zeros(len(rewards))
    for t in reversed(range(len(rewards))):
        advantage = rewards[t] + GAMMA * values[t + 1] - values[t] + GAMMA * LAMBDA * advantage
        targets[t] = advantage + values[t]
    return targets


def test_values_change_with_anothers_observation_and_actions_do_not(algorithm: Any) -> None:
    module = algorithm.learner_group._learner.module[
        "MG1_policy" if "MG1_policy" in algorithm.config.policies else "grid_policy"
    ]
    width = module.vf[0].in_features
    joint = torch.zeros(2, width)
    joint[1, 12] = 3.0  # the first entry of what MG2 sees, after MG1's twice
    obs = torch.zeros(2, 6)
    with torch.no_grad():
        values = module.compute_values({"obs": obs, JOINT_OBSERVATION: joint})
        outputs = module.forward_train({"obs": obs, JOINT_OBSERVATION: joint})["action_dist_inputs"]
    assert abs(float(values[0] - values[1])) > 1e-3
    assert torch.equal(outputs[0], outputs[1])


def test_what_acts_has_no_critic(algorithm: Any) -> None:
    for name in algorithm.config.policies:
        learning = algorithm.learner_group._learner.module[name]
        assert any(key.startswith("vf") for key in learning.get_state())
        assert not any("critic_encoder" in key for key in learning.get_state())
        acting = CentralCriticModule(
            observation_space=learning.observation_space, action_space=learning.action_space, inference_only=True,
            model_config=learning.model_config,
        )  # fmt: skip
        sent = learning.get_state(inference_only=True)
        assert set(sent) == set(acting.get_state())
        assert not any(key.startswith("vf") for key in sent)


def test_an_agent_that_is_missing_is_told() -> None:
    from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

    episode = MultiAgentEpisode(
        observations=[{"MG1": np.zeros(2)}, {"MG1": np.zeros(2)}], actions=[{"MG1": 0}], rewards=[{"MG1": 1.0}],
        agent_to_module_mapping_fn=lambda *_: "p",
    )  # fmt: skip
    with pytest.raises(PowerGridError, match="mappo needs all agents in every step"):
        JointObservations(agents=["MG1", "MG2"])(batch={}, episodes=[episode])


@pytest.mark.parametrize("runner", ["grid", "stock"])
def test_both_runners_give_the_critic_the_joint_state_of_a_scenario(runner: str) -> None:
    settings = {**SETTINGS, "train_batch_size": 192, "env_runner": runner}
    built = build_algorithm(algorithm_config("ieee13_mg", "mappo", **settings), RaySession(None))
    try:
        if runner == "grid":
            assert built.env_runner.slow_because is None
            assert not built.env_runner.keeps_infos
        batch = learner_batch(built, built.env_runner.sample(num_timesteps=192))["grid_policy"]
        width = batch["obs"].shape[1]
        joint = batch[JOINT_OBSERVATION]
        np.testing.assert_array_equal(joint[:, :width], batch["obs"])
        place = joint[:, -2:].argmax(1)
        for i in range(2):  # the own observation is there again in its place among all
            mine = joint[place == i]
            np.testing.assert_array_equal(mine[:, :width], mine[:, width * (1 + i) : width * (2 + i)])
        assert np.isfinite(built.train()["learners"]["grid_policy"]["vf_loss"])
    finally:
        built.stop()
