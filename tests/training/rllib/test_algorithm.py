from __future__ import annotations

import csv
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray.rllib.algorithms.ppo as rllib

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.quantities import MONEY_TERMS
from powergrid.training import PPO, GridMetricsCallback, PPOConfig, ppo_config
from powergrid.training.rllib.planning.policies import AgentMapping
from powergrid.training.runs.checkpoints import FOLDER_VARIABLE
from tests.training.toy import ToyGridEnv

AGENTS = ("MG1", "MG2")
SMALL = {"train_batch_size": 384, "sgd_minibatch_size": 192, "num_sgd_iter": 1}


@pytest.fixture
def small_config(ray_session: None) -> PPOConfig:
    config = PPOConfig().environment(ToyGridEnv).training(**SMALL, model={})
    return config.rollouts(num_rollout_workers=0, rollout_fragment_length=96, num_envs_per_worker=4)


@pytest.fixture
def trainer(small_config: PPOConfig) -> Iterator[PPO]:
    algorithm = small_config.build()
    yield algorithm
    algorithm.stop()


def test_config_takes_the_names_of_older_versions(small_config: PPOConfig) -> None:
    assert (small_config.minibatch_size, small_config.num_epochs) == (192, 1)
    assert (small_config.num_env_runners, small_config.num_envs_per_env_runner) == (0, 4)
    assert small_config.rollout_fragment_length == 96


def test_config_with_a_setting_under_two_names_refuses() -> None:
    with pytest.raises(ScenarioError, match="'sgd_minibatch_size' and 'minibatch_size' are the same setting"):
        PPOConfig().training(sgd_minibatch_size=1, minibatch_size=1)


def test_config_without_policies_gives_all_agents_one(small_config: PPOConfig) -> None:
    assert set(small_config.policies) == {"grid_policy"}
    assert {small_config.policy_mapping_fn(agent, None) for agent in ("MG1", "MG2")} == {"grid_policy"}
    for_tune = small_config.to_dict()
    assert set(for_tune["policies"]) == {"grid_policy"}
    assert rllib.PPOConfig().update_from_dict(for_tune).is_multi_agent


def test_config_keeps_the_policies_given_before_or_after_the_environment() -> None:
    def mine(agent_id: str, *args: object, **kwargs: object) -> str:
        return f"{agent_id}_policy"

    given = {"policies": {"MG1_policy", "MG2_policy"}, "policy_mapping_fn": mine}
    for config in (
        PPOConfig().multi_agent(**given).environment(ToyGridEnv),
        PPOConfig().environment(ToyGridEnv, env_config={"mg2_width": 9}).multi_agent(**given),
    ):
        assert set(config.policies) == {"MG1_policy", "MG2_policy"}
        assert set(config.to_dict()["policies"]) == {"MG1_policy", "MG2_policy"}


def test_config_whose_agents_have_unequal_spaces_gives_each_group_a_policy() -> None:
    config = PPOConfig().environment(ToyGridEnv, env_config={"mg2_width": 9})
    assert {agent: config.policy_mapping_fn(agent, None) for agent in ("MG1", "MG2")} == {
        "MG1": "grid_policy_1",
        "MG2": "grid_policy_2",
    }
    assert config.policies["grid_policy_2"][1].shape == (9,)


def test_config_with_too_many_workers_takes_what_fits_and_says_so(
    small_config: PPOConfig, caplog: pytest.LogCaptureFixture
) -> None:
    small_config.rollouts(num_rollout_workers=4)
    with caplog.at_level(logging.WARNING, "powergrid.training"):
        assert small_config.to_dict()["num_env_runners"] == 1
    assert caplog.messages == ["4 env runners need 4 CPUs beside 1 for Tune and Ray has 2: training with 1."]
    assert small_config.num_env_runners == 4


def test_config_keeps_its_environment_where_only_its_configuration_is_given_again() -> None:
    config = PPOConfig().environment(NetworkedGridEnv, env_config={"env_name": "ieee13_mg"})
    config.environment(env_config={"episode_length": 8})
    assert config.env is NetworkedGridEnv
    assert config.env_config == {"env_name": "ieee13_mg", "episode_length": 8}
    config.evaluation(evaluation_interval=1, evaluation_config={"env_config": {"split": "test"}})
    evaluated = config.get_evaluation_config_object()
    assert evaluated.env is NetworkedGridEnv
    assert evaluated.env_config["split"] == "test"
    assert set(evaluated.policies) == {"grid_policy"}


def test_checkpoint_of_rllibs_own_class_loads(ray_session: None, tmp_path: Path) -> None:
    stock = (
        rllib.PPOConfig()
        .environment(ToyGridEnv, disable_env_checking=True)
        .multi_agent(policies={"grid_policy"}, policy_mapping_fn=AgentMapping(dict.fromkeys(AGENTS, "grid_policy")))
        .env_runners(num_env_runners=0)
        .build_algo()
    )
    try:
        saved = stock.save(str(tmp_path / "saved"))
        with pytest.raises(PowerGridError, match="not written by this user"):
            PPO.from_checkpoint(saved.checkpoint.path)
        PPO.from_checkpoint(saved).stop()
    finally:
        stock.stop()


@pytest.fixture
def held_cpus(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let somebody else hold all CPUs."""
    import ray

    @ray.remote(num_cpus=2)
    class Holder:
        def here(self) -> bool:
            return True

    monkeypatch.setattr("powergrid.training.rllib.sampling.processes.FREE_CPUS_PATIENCE_S", 2.0)
    holder = Holder.remote()
    assert ray.get(holder.here.remote())
    yield
    ray.kill(holder)


def test_algorithm_whose_workers_find_no_free_cpu_trains_without_them_and_says_so(
    held_cpus: None, small_config: PPOConfig, caplog: pytest.LogCaptureFixture
) -> None:
    small_config.rollouts(num_rollout_workers=2, rollout_fragment_length=48)
    with caplog.at_level(logging.WARNING, "powergrid.training"):
        algorithm = small_config.build_algo()
    try:
        (told,) = [record.message for record in caplog.records if record.name == "powergrid.training"]
        assert told.startswith("2 env runners need 2 CPUs, and 0 of Ray's 2 are free: training with 0.")
        assert algorithm.train()["num_env_steps_sampled_lifetime"] > 0
        assert algorithm.config.num_env_runners == 0
    finally:
        algorithm.stop()


@pytest.mark.slow
def test_checkpoint_loads_beside_the_algorithm_that_still_holds_the_cpus(
    small_config: PPOConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    first = small_config.rollouts(num_rollout_workers=2, rollout_fragment_length=48).build_algo()
    try:
        checkpoint = first.save(str(tmp_path / "saved"))
        with caplog.at_level(logging.WARNING, "powergrid.training"):
            second = PPO.from_checkpoint(checkpoint)
        try:
            assert "0 of Ray's 2 are free: training with 0" in caplog.text
            assert second.train()["training_iteration"] == 1
        finally:
            second.stop()
    finally:
        first.stop()


def test_save_gives_a_path_that_loads_with_all_its_state(trainer: PPO, tmp_path: Path) -> None:
    for _ in range(2):
        trainer.train()
    checkpoint_dir = trainer.save(str(tmp_path / "saved"))
    assert isinstance(checkpoint_dir, str)
    assert pickle.loads(pickle.dumps(checkpoint_dir)).checkpoint.path == checkpoint_dir
    weights = trainer.get_module("grid_policy").get_state()
    third = trainer.train()
    for load in (PPO.from_checkpoint, rllib.PPO.from_checkpoint):
        again = load(checkpoint_dir)
        try:
            assert isinstance(again, PPO)
            for name, value in again.get_module("grid_policy").get_state().items():
                if "critic" not in name and not name.startswith("vf"):  # the acting copy's critic is never kept up
                    np.testing.assert_array_equal(value, weights[name])
            result = again.train()
        finally:
            again.stop()
        for counter in ("training_iteration", "num_env_steps_sampled_lifetime"):
            assert result[counter] == third[counter]
    trainer.restore(checkpoint_dir)
    assert trainer.iteration == 2
    assert powergrid.load_policy(checkpoint_dir).policy_of == {"MG1": "grid_policy", "MG2": "grid_policy"}


def test_checkpoint_of_another_user_is_loaded_only_with_trust(
    trainer: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint_dir = trainer.save(str(tmp_path / "saved"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "someone else"))
    with pytest.raises(PowerGridError, match="not written by this user"):
        PPO.from_checkpoint(checkpoint_dir)
    PPO.from_checkpoint(checkpoint_dir, trust=True).stop()
    assert powergrid.load_policy(checkpoint_dir)


class CustomEnv(NetworkedGridEnv):
    """The Training page's, as it stands there."""

    def step(self, actions):
        obs, rewards, terms, truncs, infos = super().step(actions)

        # Add custom metrics
        for agent_id in self.agents:
            infos[agent_id]['voltage_violations'] = self.count_violations()  # fmt: skip
            infos[agent_id]['energy_cost'] = self.compute_cost()  # fmt: skip

        return obs, rewards, terms, truncs, infos


def test_metrics_of_a_custom_environment_are_in_the_result(ray_session: None) -> None:
    algorithm = ppo_config(
        {"env_name": "ieee13_mg"}, env=CustomEnv, num_env_runners=0, num_envs_per_env_runner=2, train_batch_size=192,
        minibatch_size=192, num_epochs=1,
    ).build_algo()  # fmt: skip
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    custom = result["env_runners"]["custom"]
    for agent in ("MG1", "MG2"):
        assert custom[agent]["voltage_violations"] == custom["network_violations"] > 0
    day = sum(custom[agent][name] for agent in ("MG1", "MG2") for name in MONEY_TERMS)
    assert custom["energy_cost"] == custom["MG1"]["energy_cost"] == pytest.approx(day)


@pytest.mark.slow
def test_plain_rllib_trains_the_environment_in_tune(ray_session: None, tmp_path: Path) -> None:
    from ray import tune

    env_config = {"env_name": "ieee13_mg"}
    env = NetworkedGridEnv(env_config)
    obs_space, act_space = env.observation_spaces["MG1"], env.action_spaces["MG1"]
    env.close()
    config = (
        rllib.PPOConfig()
        .environment(NetworkedGridEnv, env_config=env_config)
        .multi_agent(
            policies={"grid_policy": (None, obs_space, act_space, {})},
            policy_mapping_fn=lambda agent_id, *args, **kwargs: "grid_policy",
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(train_batch_size=192, minibatch_size=192, num_epochs=1)
        .callbacks(GridMetricsCallback)
    )
    done = tune.run(
        "PPO", config=config.to_dict(), stop={"training_iteration": 2}, storage_path=str(tmp_path), verbose=0
    )
    (trial,) = done.trials
    assert trial.last_result["training_iteration"] == 2
    with (Path(trial.path) / "progress.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    for name in ("episode_reward_mean", "policy_loss", "vf_loss", "entropy", "env_runners/custom/MG2/energy_cost_usd"):
        assert np.isfinite(float(rows[-1][name]))
    assert float(rows[-1]["episode_reward_mean"]) == float(rows[-1]["env_runners/episode_return_mean"])
    assert {"ray/tune/entropy", "ray/tune/env_runners/custom/voltage_violations"} <= tags_of(Path(trial.path))


def tags_of(folder: Path) -> set[str]:
    """Read the names in a folder's TensorBoard files."""
    import struct

    from tensorboardX.proto import event_pb2

    tags: set[str] = set()
    for file in folder.glob("events.out.tfevents.*"):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            tags |= {value.tag for value in event.summary.value}
            at += length + 16
    return tags
