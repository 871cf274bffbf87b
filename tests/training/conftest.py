from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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


def rows_of(folder: Path, file: str = "progress.csv") -> list[dict[str, str]]:
    """Return the rows of a run, or of a tuning's trials, as far as they are written."""
    if not (folder / file).is_file():
        return []
    with (folder / file).open(newline="") as stream:
        return list(csv.DictReader(stream))


def start_driver(code: str) -> subprocess.Popen[str]:
    """Start code that trains, in a session of its own: what is sent to its group does not reach the tests."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(root)}, start_new_session=True,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], driver: subprocess.Popen[str], most_s: float = 150.0) -> None:
    """Wait until something is so, as long as the driver runs."""
    deadline = time.monotonic() + most_s
    while not condition():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
