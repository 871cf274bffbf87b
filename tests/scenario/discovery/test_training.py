"""PPO on a feeder that nobody wrote a scenario for: it trains, keeps, loads and plays every kind of action space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from powergrid.envs import NetworkedGridEnv
from powergrid.evaluation import evaluate
from powergrid.training import load_policy, train
from tests.scenario.discovery.models import LOOPED, write

SLOW = ("per_zone", "per_device", "single")
TINY: dict[str, Any] = {
    "iterations": 2, "train_batch_size": 24, "minibatch_size": 12, "num_epochs": 1, "num_envs_per_env_runner": 1,
    "num_env_runners": 0, "validate_every": 0, "hidden": [8],
}  # fmt: skip


@pytest.mark.parametrize("layout", ["per_phase", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_train_on_any_feeder_loads_and_plays(tmp_path: Path, layout: str) -> None:
    small = LOOPED.replace("New Load.lc", "New Capacitor.one bus1=b.1 phases=1 kv=2.4 kvar=50\nNew Load.lc")
    config = {"feeder": str(write(tmp_path, small)), "agents": layout, "episode_length": 12}
    result = train(config, TINY, out_dir=tmp_path, name="run")
    assert result.iterations == 2
    assert np.isfinite(result.metrics["episode_return_mean"])
    policy = load_policy(result.folder)
    env = NetworkedGridEnv(json.loads((result.folder / "run.json").read_text())["env_config"])  # shows what it saw
    spaces = {type(space) for space in env.action_spaces.values()}
    assert spaces & {gym.spaces.MultiDiscrete, gym.spaces.Dict}
    observations, _ = env.reset(seed=0)
    for agent, action in policy.act(observations).items():
        assert env.action_spaces[agent].contains(action)
    env.close()
    report = evaluate(config, ["no_control", ("mine", policy)], days=1)
    assert report.table().row_count == 2


def test_first_policy_of_switchgear_stays_near_where_it_stands(tmp_path: Path) -> None:
    """Before any learning the most likely positions are those that move nothing."""
    config = {"feeder": "ieee13", "agents": "per_device", "episode_length": 4}
    result = train(config, {**TINY, "iterations": 1, "lr": 1e-9, "lr_end": 1e-9}, out_dir=tmp_path, name="run")
    policy = load_policy(result.folder)
    env = NetworkedGridEnv(config)
    observations, _ = env.reset(seed=0)
    actions = policy.act(observations)
    for agent, neutral in env.neutral_actions().items():
        assert np.abs(actions[agent] - neutral).max() <= (
            3 if agent.startswith("reg") else 0
        )  # of 33; the three share a policy
    env.close()
