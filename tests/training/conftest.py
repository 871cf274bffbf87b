from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from powergrid.training import RunResult, train
from powergrid.training.rllib.config import ppo_config
from powergrid.training.runs.session import RaySession, build_algorithm
from tests.training.toy import ToyGridEnv

TINY = {
    "num_env_runners": 0,
    "num_envs_per_env_runner": 4,
    "train_batch_size": 384,
    "minibatch_size": 192,
    "num_epochs": 2,
    "hidden": [16, 16],
    "validation_episodes": 2,
}


@pytest.fixture
def build(ray_session: None) -> Iterator:
    """Build tiny algorithms on the toy grid, and stop them."""
    built = []

    def make(env_config: dict | None = None, **settings: object):
        policies = settings.pop("policies", "shared")
        config = ppo_config(env_config or {}, env=ToyGridEnv, policies=policies, **{**TINY, **settings})
        built.append(build_algorithm(config, RaySession(None)))
        return built[-1]

    yield make
    for algorithm in built:
        algorithm.stop()


@pytest.fixture(scope="session")
def trained(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Train three tiny iterations, once for every test that only reads the run."""
    out: Path = tmp_path_factory.mktemp("runs")
    settings = {**TINY, "iterations": 3, "checkpoint_every": 2, "keep_checkpoints": 1, "validate_every": 2}
    return train({"env_name": "toy"}, settings, env=ToyGridEnv, out_dir=out, name="toy")
