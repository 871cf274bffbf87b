from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from powergrid.errors import PowerGridError
from powergrid.training import RunResult, export_policy, load_policy
from tests.training.toy import ToyGridEnv

ACTIONS = ["box", "wide_box", "discrete", "multi_discrete", "dict"]


def actions_of_rllib(algorithm, observations: list[dict[str, np.ndarray]]) -> list[dict]:
    """Act through RLlib's own pipelines, as its env runner does with explore=False."""
    from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

    runner = algorithm.env_runner
    acted = []
    for observed in observations:
        episode = MultiAgentEpisode(
            observation_space={a: runner.env.unwrapped.envs[0].unwrapped.observation_spaces[a] for a in observed},
            action_space={a: runner.env.unwrapped.envs[0].unwrapped.action_spaces[a] for a in observed},
            agent_to_module_mapping_fn=algorithm.config.policy_mapping_fn,
        )
        episode.add_env_reset(observations=observed, infos={})
        shared: dict = {}
        batch = runner._env_to_module(
            rl_module=runner.module, episodes=[episode], batch={}, explore=False, shared_data=shared
        )
        output = runner.module.forward_inference(batch)
        for data in output.values():
            # RLlib 2.60 cannot take the log-probability of a greedy Dict action; it does not need it here.
            data["action_logp"] = torch.zeros(len(data["action_dist_inputs"]))
        output = runner._module_to_env(
            rl_module=runner.module, batch=output, episodes=[episode], explore=False, shared_data=shared
        )
        acted.append(output.get("actions_for_env", output["actions"])[0])
    return acted


def assert_same(ours: object, theirs: object) -> None:
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for name, part in theirs.items():
            assert_same(ours[name], part)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("actions", ACTIONS)
def test_loaded_policy_acts_like_rllib(build, tmp_path: Path, actions: str) -> None:
    algorithm = build({"actions": actions}, policies="independent")
    algorithm.train()
    export_policy(algorithm, tmp_path)
    policy = load_policy(tmp_path)
    rng = np.random.default_rng(3)
    spaces = ToyGridEnv({"actions": actions}).action_spaces
    observations = [{a: rng.uniform(-5, 5, 6).astype(np.float32) for a in ("MG1", "MG2")} for _ in range(20)]
    for observed, expected in zip(observations, actions_of_rllib(algorithm, observations), strict=True):
        ours = policy.act(observed)
        for agent in observed:
            assert_same(ours[agent], expected[agent])
            assert spaces[agent].contains(ours[agent])


@pytest.mark.parametrize("settings", [{"free_log_std": True}, {"activation": "relu"}, {"normalize_actions": False}])
def test_loaded_policy_acts_like_rllib_with_other_settings(build, tmp_path: Path, settings: dict) -> None:
    algorithm = build({"actions": "wide_box"}, clip_actions=True, **settings)
    export_policy(algorithm, tmp_path)
    observations = [{a: np.linspace(-9, 9, 6, dtype=np.float32) for a in ("MG1", "MG2")}]
    ours = load_policy(tmp_path).act(observations[0])
    assert_same(ours, actions_of_rllib(algorithm, observations)[0])


@pytest.mark.parametrize("actions", ACTIONS)
def test_policy_loaded_with_torch_is_rllib_bit_for_bit(build, tmp_path: Path, actions: str) -> None:
    algorithm = build({"actions": actions}, policies="independent")
    algorithm.train()
    export_policy(algorithm, tmp_path)
    policy = load_policy(tmp_path, backend="torch")
    rng = np.random.default_rng(3)
    observations = [{a: rng.uniform(-5, 5, 6).astype(np.float32) for a in ("MG1", "MG2")} for _ in range(50)]
    for observed, expected in zip(observations, actions_of_rllib(algorithm, observations), strict=True):
        ours = policy.act(observed)
        for agent in observed:
            for mine, theirs in zip(parts_of(ours[agent]), parts_of(expected[agent]), strict=True):
                np.testing.assert_array_equal(mine, theirs, strict=np.asarray(theirs).dtype == np.float32)


def parts_of(action: object) -> list:
    return list(action.values()) if isinstance(action, dict) else [action]


def test_load_policy_with_an_unknown_backend_says_which_there_are(trained: RunResult) -> None:
    with pytest.raises(PowerGridError, match="unknown backend 'jax'"):
        load_policy(trained.folder, backend="jax")  # type: ignore[arg-type]


def test_filter_of_observations_is_learnt_saved_loaded_and_exported(build, tmp_path: Path) -> None:
    import powergrid

    first = build(observation_filter="mean_std", policies="independent")
    for _ in range(2):
        first.train()
    checkpoint = first.save(str(tmp_path / "saved"))
    policy = powergrid.load_policy(checkpoint)
    uniform = 1 / np.sqrt(3)  # the spread of what the toy grid shows, uniform in -1..1
    for agent in ("MG1", "MG2"):
        np.testing.assert_allclose(policy.filters[agent].mean, 0.0, atol=0.1)
        np.testing.assert_allclose(policy.filters[agent].divisor, uniform, rtol=0.1)
    learnt = first.env_runner._env_to_module.get_state()
    second = build(observation_filter="mean_std", policies="independent", seed=9)
    second.restore_from_path(checkpoint)
    assert_states_equal(second.env_runner._env_to_module.get_state(), learnt)
    observations = [{a: np.linspace(-3, 3, 6, dtype=np.float32) for a in ("MG1", "MG2")}]
    connector = next(c for c in first.env_runner._env_to_module.connectors if type(c).__name__ == "MeanStdFilter")
    connector._update_stats = False
    expected = actions_of_rllib(first, observations)[0]
    assert_same(policy.act(observations[0]), expected)
    policy.filters.clear()
    with pytest.raises(AssertionError):
        assert_same(policy.act(observations[0]), expected)


def assert_states_equal(ours: object, theirs: object) -> None:
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for name in theirs:
            assert_states_equal(ours[name], theirs[name])
    elif isinstance(theirs, list | tuple):
        for mine, their in zip(ours, theirs, strict=True):
            assert_states_equal(mine, their)
    else:
        np.testing.assert_array_equal(ours, theirs)


def test_act_batch_equals_act(trained: RunResult) -> None:
    policy = load_policy(trained.folder)
    observations = np.random.default_rng(0).uniform(-1, 1, (5, 6)).astype(np.float32)
    batch = policy.act_batch("MG1", observations)
    assert batch.shape == (5, 3)
    for row, action in zip(observations, batch, strict=True):
        np.testing.assert_allclose(policy.act({"MG1": row})["MG1"], action, rtol=1e-5, atol=1e-6)


def test_load_policy_needs_neither_ray_nor_torch(trained: RunResult) -> None:
    code = (
        "import sys, numpy as np\n"
        "from powergrid.training import load_policy\n"
        f"action = load_policy({str(trained.folder)!r}).act({{'MG2': np.zeros(6)}})['MG2']\n"
        "assert action.shape == (3,), action\n"
        "assert not {'ray', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_act_with_a_wrong_agent_or_width_says_so(trained: RunResult) -> None:
    policy = load_policy(trained.best)
    with pytest.raises(PowerGridError, match=r"unknown agent 'MG3' \(did you mean"):
        policy.act({"MG3": np.zeros(6)})
    with pytest.raises(PowerGridError, match=r"shape \(1, 7\); the policy was trained on \(n, 6\)"):
        policy.act({"MG1": np.zeros(7)})


def test_load_policy_where_there_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(PowerGridError, match="no such run or checkpoint"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(PowerGridError, match="holds no checkpoint"):
        load_policy(tmp_path)
    for place in ("iteration_000020", "iteration_000040"):
        (tmp_path / "checkpoints" / place).mkdir(parents=True)
        (tmp_path / "checkpoints" / place / "powergrid.json").write_text("{}")
    (tmp_path / "checkpoints" / "latest").write_text("iteration_000060")
    with pytest.raises(PowerGridError, match=r"that is there; the last one that is: .*iteration_000040"):
        load_policy(tmp_path)
