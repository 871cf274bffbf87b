"""A benchmark of one small task of two days, with who plays it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

from powergrid.envs.core import GridTask
from powergrid.evaluation.benchmark import Benchmark, Entrant, Result, Task, play_task, read_benchmark
from powergrid.evaluation.benchmark.result import Training
from powergrid.evaluation.benchmark.verify import hash_policy, weights_folders
from powergrid.training.policies.inference import Network, Policy, load_policy

DAYS = [15, 219]
TRAINED = Training(algorithm="ppo", env_steps=1000, minutes=1.0)


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    folder = tmp_path_factory.mktemp("benchmark")
    shipped = read_benchmark()
    task: dict[str, Any] = {"title": "Small", "scenario": "ieee13_mg", "env_steps": 1000, "minutes": 2}
    digests = Task.model_validate({**task, "digests": dict.fromkeys(("trained", "played", "feeder", "profiles"), "")})
    data = {
        "name": "Small",
        "version": 1,
        "days": {"train": [[0, 13]], "validation": [[35, 41]], "test": DAYS},
        "training_seeds": [0, 1],
        "day_seed": 0,
        "metrics": shipped.metrics,
        "tasks": {"small": {**task, "digests": digests.take_digests()}},
    }
    (folder / "tasks.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    bare = read_benchmark(folder)
    # Of the optimum only where it stands: 0.5 above whoever does nothing.
    nothing = play_task(bare, "small", Entrant("no_control")).results["-"]["reward"]
    rewards = {"no_control": nothing, "optimum": [each + 0.5 for each in nothing]}
    kept = {"small": {"task_digest": bare.digest("small"), "rewards": rewards}}
    (folder / "references.json").write_text(json.dumps(kept), encoding="utf-8")
    read_benchmark.cache_clear()
    return read_benchmark(folder)


@pytest.fixture(scope="session")
def baseline(benchmark: Benchmark) -> Result:
    return play_task(benchmark, "small", Entrant("rule_based"), command="powergrid benchmark run small")


@pytest.fixture(scope="session")
def trained(benchmark: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a result of two policies, which lie beside it."""
    folder = tmp_path_factory.mktemp("results")
    policies, weights = {}, {}
    for seed in ("0", "1"):
        own = folder / "small.mine" / seed
        make_policy(benchmark, int(seed)).save(own)
        policies[seed], weights[seed] = load_policy(own), hash_policy(own)
    training = dict.fromkeys(policies, TRAINED)
    result = play_task(benchmark, "small", Entrant("mine", policies, {}, weights, training))
    assert weights_folders(folder / "small.mine.json", result) == {s: folder / "small.mine" / s for s in policies}
    return result.write(folder)


def make_policy(benchmark: Benchmark, seed: int) -> Policy:
    """Return a policy that nobody trained, of the task's spaces."""
    rng = np.random.default_rng(seed)
    with closing(GridTask(benchmark.tasks["small"].build_trained())) as task:
        spaces = {agent.name: (len(agent.observed), agent.action_space) for agent in task.agents}
    networks = {
        name: Network(
            (rng.normal(0.0, 0.1, (2 * gym.spaces.flatdim(space), width)).astype(np.float32),),
            (np.zeros(2 * gym.spaces.flatdim(space), np.float32),),
            ("linear",),
        )
        for name, (width, space) in spaces.items()
    }
    return Policy(networks, {name: name for name in spaces}, {name: space for name, (_, space) in spaces.items()})
