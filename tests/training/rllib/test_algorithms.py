"""Every algorithm, from its settings to a policy that acts without RLlib; what it learns is at the end."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from powergrid.errors import ScenarioError
from powergrid.training import RunResult, algorithm_config, export_policy, load_policy, resume, train
from powergrid.training.runs.session import RaySession, build_algorithm
from powergrid.training.runs.settings import (
    SETTINGS,
    dump_settings,
    fields_of,
    make_settings,
)
from tests.training.toy import ToyGridEnv

pytestmark = pytest.mark.usefixtures("ray_session")

TINY: dict[str, Any] = {"num_env_runners": 0, "num_envs_per_env_runner": 4, "hidden": [16], "validation_episodes": 2}
ON_POLICY = {**TINY, "train_batch_size": 384, "minibatch_size": 192, "num_epochs": 2}
OFF_POLICY = {
    **TINY,
    "steps_per_iteration": 192,
    "learning_starts": 96,
    "train_batch_size": 32,
    "updates_per_step": 0.1,
}
SMALL = {"ppo": ON_POLICY, "mappo": {**ON_POLICY, "critic_hidden": [16]}, "sac": OFF_POLICY, "dqn": OFF_POLICY}
ACTIONS = {"ppo": "dict", "mappo": "box", "sac": "wide_box", "dqn": "multi_discrete"}


@pytest.fixture
def build(request: pytest.FixtureRequest):
    built = []

    def make(algorithm: str, env_config: dict, policies: object = "shared", **settings: object):
        config = algorithm_config(
            env_config, algorithm, env=ToyGridEnv, policies=policies, **{**SMALL[algorithm], **settings}
        )
        built.append(build_algorithm(config, RaySession(None)))
        return built[-1]

    yield make
    for each in built:
        each.stop()


# -- settings


def test_a_setting_that_the_algorithm_has_not_names_those_that_have_it() -> None:
    with pytest.raises(ScenarioError) as raised:
        make_settings("sac", {"clip_param": 0.1, "sgd_minibatch_size": 64, "epsilon_end": 0.1, "taw": 1})
    text = str(raised.value)
    assert "sac has no setting 'clip_param'; it is one of ppo, mappo" in text
    assert "sac has no setting 'sgd_minibatch_size'; it is one of ppo, mappo" in text
    assert "sac has no setting 'epsilon_end'; it is one of dqn" in text
    assert "unknown setting 'taw' (did you mean 'tau'" in text


def test_an_unknown_algorithm_names_the_nearest() -> None:
    with pytest.raises(ScenarioError, match=r"unknown algorithm 'mapo' \(did you mean 'mappo'"):
        algorithm_config({}, "mapo", env=ToyGridEnv)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_settings_come_back_from_what_a_run_writes_down(algorithm: str) -> None:
    settings = make_settings(algorithm, {"lr": 0.5, "gamma": 0.5})
    written = json.loads(json.dumps(dump_settings(settings)))
    assert set(written) == set(fields_of(algorithm))
    assert make_settings(algorithm, written) == settings


# -- what does not go


@pytest.mark.parametrize(
    ("algorithm", "actions", "message"),
    [
        ("sac", "discrete", "agent 'MG1': sac learns continuous actions alone, not Discrete"),
        ("sac", "dict", "agent 'MG2': sac learns continuous actions alone, not Dict"),
        ("dqn", "box", "agent 'MG1': dqn learns positions alone, not Box"),
        ("dqn", "multi_discrete", "3 x 5 = 15 is more than max_flat_actions = 14; give each device an agent"),
    ],
)
def test_actions_that_an_algorithm_cannot_learn_are_refused(algorithm: str, actions: str, message: str) -> None:
    settings = {"max_flat_actions": 14} if algorithm == "dqn" else {}
    with pytest.raises(ScenarioError) as raised:
        algorithm_config({"actions": actions}, algorithm, env=ToyGridEnv, **settings)
    assert message in str(raised.value)


# -- a run


@pytest.fixture(scope="module", params=list(SETTINGS))
def run(request: pytest.FixtureRequest, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Train each algorithm on agents of unequal spaces that share a policy, two iterations and a third resumed."""
    algorithm = request.param
    settings = {**SMALL[algorithm], "iterations": 2, "validate_every": 1, "share_unequal": True}
    env_config = {"env_name": "toy", "actions": ACTIONS[algorithm], "mg2_width": 9}
    first = train(
        env_config, settings, algorithm=algorithm, env=ToyGridEnv, out_dir=tmp_path_factory.mktemp("runs"), name="run"
    )
    return resume(first.folder, iterations=3)


def test_a_run_records_its_algorithm_and_goes_on_with_it(run: RunResult) -> None:
    manifest = json.loads((run.folder / "run.json").read_text())
    assert set(manifest["settings"]) == set(fields_of(manifest["algorithm"]))
    assert manifest["policies"] == {"MG1": "grid_policy", "MG2": "grid_policy"}
    assert run.iterations == 3
    with (run.folder / "progress.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["iteration"] for row in rows] == ["1", "2", "3"]
    steps = [int(row["env_steps"]) for row in rows]
    assert steps[2] - steps[1] == steps[1] - steps[0] == steps[0] > 0
    loss = {"dqn": "qf_loss"}.get(manifest["algorithm"], "policy_loss")
    assert all(np.isfinite(float(row[loss])) for row in rows)
    assert np.isfinite(float(rows[-1]["validation/episode_return_mean"]))


def test_a_runs_policy_takes_each_agents_own_observation_and_gives_its_own_action(run: RunResult) -> None:
    policy = load_policy(run.folder)
    manifest = json.loads((run.folder / "run.json").read_text())
    env = ToyGridEnv(manifest["env_config"])
    observations, _ = env.reset(seed=1)
    for agent, action in policy.act(observations).items():
        assert env.action_spaces[agent].contains(action), (agent, action)
    alone = policy.act({"MG2": observations["MG2"]})["MG2"]
    together = policy.act(observations)["MG2"]
    for ours, theirs in zip(_parts(alone), _parts(together), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def _parts(action: Any) -> list[Any]:
    return list(action.values()) if isinstance(action, dict) else [action]


# -- the policy is RLlib's


@pytest.mark.parametrize(
    ("algorithm", "env_config", "settings"),
    [
        ("mappo", {"actions": "wide_box"}, {}),
        ("mappo", {"actions": "multi_discrete", "mg2_actions": "discrete"}, {"share_unequal": True}),
        ("sac", {"actions": "box"}, {}),
        ("sac", {"actions": "wide_box", "mg2_actions": "box", "mg2_width": 8}, {"share_unequal": True}),
        ("dqn", {"actions": "discrete"}, {"dueling": False}),
        ("dqn", {"actions": "multi_discrete", "mg2_actions": "discrete"}, {"share_unequal": True}),
    ],
)
def test_loaded_policy_acts_like_rllibs_runner(
    build, tmp_path: Path, algorithm: str, env_config: dict, settings: dict
) -> None:
    trained = build(algorithm, env_config, **settings)
    trained.train()
    export_policy(trained, tmp_path)
    policy = load_policy(tmp_path)
    (episode, *_) = trained.env_runner.sample(num_episodes=1, explore=False)
    own = ToyGridEnv(env_config)
    for agent, piece in episode.agent_episodes.items():
        seen = np.asarray(piece.get_observations())[:-1]
        acted = np.asarray(piece.get_actions())
        fit = policy.fits.get(agent)
        if fit is not None:
            seen, expected = seen[:, : fit.own_width], fit.act(acted)
        else:
            expected = acted
            if isinstance(own.action_spaces[agent], gym.spaces.Box):
                low, high = own.action_spaces[agent].low, own.action_spaces[agent].high
                expected = np.clip(low + (acted + 1.0) * (high - low) / 2.0, low, high)
        np.testing.assert_allclose(policy.act_batch(agent, seen), expected, rtol=1e-4, atol=1e-5)


# -- state


@pytest.mark.parametrize("algorithm", ["mappo", "sac", "dqn"])
def test_a_checkpoint_holds_all_that_was_learnt(build, tmp_path: Path, algorithm: str) -> None:
    env_config = {"actions": ACTIONS[algorithm]}
    settings = {"store_buffer": True} if algorithm in ("sac", "dqn") else {}
    first = build(algorithm, env_config, **settings)
    for _ in range(2):
        first.train()
    first.save_to_path(str(tmp_path / "state"))
    second = build(algorithm, env_config, seed=5, **settings)
    second.restore_from_path(str(tmp_path / "state"))
    learnt = [each.learner_group._learner.module["grid_policy"].get_state() for each in (first, second)]
    assert any("vf" in key or "target" in key for key in learnt[0])  # critics and targets too
    for key, value in learnt[0].items():
        np.testing.assert_array_equal(learnt[1][key], value)
    if algorithm == "sac":
        alphas = [each.learner_group._learner.curr_log_alpha["grid_policy"].item() for each in (first, second)]
        assert alphas[0] == alphas[1] != pytest.approx(np.log(0.1), abs=1e-9)
    if settings:
        drawn = [each.replay.sample(16)["grid_policy"] for each in (first, second)]
        for name, values in drawn[0].items():
            np.testing.assert_array_equal(drawn[1][name], values)


def test_without_its_buffer_a_checkpoint_fills_it_before_it_learns(build, tmp_path: Path) -> None:
    first = build("sac", {"actions": "box"}, learning_starts=192)
    first.train()
    first.save_to_path(str(tmp_path / "state"))
    second = build("sac", {"actions": "box"}, learning_starts=384)
    second.restore_from_path(str(tmp_path / "state"))
    assert not second.replay.buffers
    before = second.learner_group._learner.module["grid_policy"].get_state()
    second.train()
    assert second.replay.env_steps == 192
    after = second.learner_group._learner.module["grid_policy"].get_state()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    second.train()
    assert second.learner_group._learner.get_optimizer("grid_policy", "qf").state_dict()["state"]
    changed = second.learner_group._learner.module["grid_policy"].get_state()
    assert any(not np.array_equal(changed[key], value) for key, value in before.items())


def test_gradient_steps_follow_updates_per_step(build) -> None:
    algorithm = build("dqn", {"actions": "discrete"}, learning_starts=16, updates_per_step=0.125)
    result = algorithm.train()
    assert result["env_runners"]["num_env_steps_sampled"] == 192
    optimiser = algorithm.learner_group._learner.get_optimizer("grid_policy")
    assert float(next(iter(optimiser.state_dict()["state"].values()))["step"]) == 192 * 0.125


# -- learning

LEARNERS = [
    ("ppo", "shared", {"minibatch_size": 192, "num_epochs": 8, "lr": 3e-3, "lr_end": None, "gamma": 0.9}, "box", 12),
    ("ppo", "independent", {"num_epochs": 8, "lr": 3e-3, "lr_end": None, "gamma": 0.9}, "box", 12),
    ("mappo", "shared", {"num_epochs": 8, "lr": 3e-3, "lr_end": None, "gamma": 0.9}, "box", 12),
    ("sac", "shared", {"lr": 1e-3, "alpha_lr": 1e-3, "initial_alpha": 0.01, "gamma": 0.9}, "box", 9),
    (
        "dqn",
        "shared",
        {"lr": 1e-3, "gamma": 0.9, "epsilon_steps": 2000, "target_network_update_freq": 200},
        "multi_discrete",
        9,
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "policies", "settings", "actions", "iterations"), LEARNERS)
def test_training_betters_the_first_and_the_random_policy(
    tmp_path: Path, algorithm: str, policies: str, settings: dict, actions: str, iterations: int
) -> None:
    off = {"steps_per_iteration": 384, "learning_starts": 384, "train_batch_size": 128, "updates_per_step": 0.25}
    on = {"train_batch_size": 384, "minibatch_size": 192}
    chosen = {**TINY, **(off if algorithm in ("sac", "dqn") else on), **settings, "hidden": [32, 32]}
    env_config = {"env_name": "toy", "actions": actions}
    first = train(
        env_config, {**chosen, "lr": 1e-12, "iterations": 1, "validate_every": 1}, algorithm=algorithm,
        policies=policies, env=ToyGridEnv, out_dir=tmp_path, name="first",
    )  # fmt: skip
    trained = train(
        env_config, {**chosen, "iterations": iterations, "validate_every": iterations}, algorithm=algorithm,
        policies=policies, env=ToyGridEnv, out_dir=tmp_path, name="trained",
    )  # fmt: skip
    score = trained.metrics["validation/episode_return_mean"]
    assert score > 0.6 * first.metrics["validation/episode_return_mean"]  # returns are below zero
    assert score > 0.5 * _random_return(env_config)


def _random_return(env_config: dict) -> float:
    env = ToyGridEnv(env_config)
    totals = []
    for seed in range(3):
        env.reset(seed=seed)
        total, over = 0.0, False
        for space in env.action_spaces.values():
            space.seed(seed)
        while not over:
            actions = {agent: space.sample() for agent, space in env.action_spaces.items()}
            _, rewards, _, truncateds, _ = env.step(actions)
            total += sum(rewards.values())
            over = truncateds["__all__"]
        totals.append(total)
    return float(np.mean(totals))
