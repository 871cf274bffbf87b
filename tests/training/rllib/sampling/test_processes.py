"""What goes wrong in training and what it costs: each test says what was injected and what was lost.

The loss of a node is in test_cluster, that of a driver that is asked to stop in test_run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.scenario import load_scenario
from powergrid.training import ppo_config, resume, train
from powergrid.training.rllib.env_runner import GridEnvRunner
from powergrid.training.runs.records import stable_metrics
from powergrid.training.runs.session import RaySession, build_algorithm, stop_algorithm
from tests.conftest import marked_processes
from tests.training.conftest import TINY, rows_of, wait_for
from tests.training.faulty import FaultyGridEnv, MortalToyEnv

ROOT = Path(__file__).parents[4]
BATCH = 384
DAY = {"env_name": "ieee13_mg", "episode_length": 24}


@pytest.fixture
def build(ray_session: None, tmp_path: Path) -> Iterator[Any]:
    """Build tiny algorithms on an environment with a fault, and stop them."""
    built: list[Any] = []

    def make(fault: str, on_worker: int = 0, **settings: Any) -> Any:
        config = {**DAY, "fault": fault, "marker": str(tmp_path / "it happened"), "on_worker": on_worker}
        built.append(build_algorithm(ppo_config(config, env=FaultyGridEnv, **TINY | settings), RaySession(None)))
        return built[-1]

    yield make
    for algorithm in built:
        stop_algorithm(algorithm)


def iterate(algorithm: Any) -> dict[str, float]:
    result = algorithm.train()
    return stable_metrics(result) | {"sampled": float(result.get("env_runners", {}).get("num_env_steps_sampled", 0))}


def look_at(runner: Any) -> tuple[int, int, str, list[np.ndarray]]:
    env = runner.env.envs[0].unwrapped
    weights = runner.get_state(components="rl_module")["rl_module"]["grid_policy"]
    acting = [weights[name] for name in sorted(weights) if "critic" not in name and not name.startswith("vf")]
    return os.getpid(), runner.worker_index, env.scenario.digest(), acting


@pytest.mark.slow
def test_worker_killed_in_mid_iteration_costs_its_own_steps_and_comes_back_to_the_same_scenario(
    build: Any, tmp_path: Path
) -> None:
    """Injected: SIGKILL in a step of one of two workers. Lost: its piece of the batch, which the other one plays."""
    algorithm = build("kill", on_worker=2, num_env_runners=2, num_envs_per_env_runner=2, lr=1e-3)
    ask = algorithm.env_runner_group.foreach_env_runner
    before = {worker: (process, digest) for process, worker, digest, _ in ask(look_at, local_env_runner=False)}
    rows = [iterate(algorithm)]
    assert int((tmp_path / "it happened").read_text()) == before[2][0]
    assert (rows[0]["env_runners"], rows[0]["env_runner_losses"], rows[0]["env_runner_restarts"]) == (1, 1, 0)
    deadline = time.monotonic() + 120
    while rows[-1]["env_runner_restarts"] == 0 and time.monotonic() < deadline:
        rows.append(iterate(algorithm))
    rows.append(iterate(algorithm))
    assert (rows[-1]["env_runners"], rows[-1]["env_runner_losses"], rows[-1]["env_runner_restarts"]) == (2, 1, 1)
    assert all(row["sampled"] >= BATCH and np.isfinite(row["policy_loss"]) for row in rows)
    after = {worker: rest for _, worker, *rest in ask(look_at, local_env_runner=False)}
    assert {worker: digest for worker, (digest, _) in after.items()} == {1: before[1][1], 2: before[2][1]}
    processes = {worker: process for process, worker, *_ in ask(look_at, local_env_runner=False)}
    assert processes[1] == before[1][0]
    assert processes[2] != before[2][0]
    assert len(after[1][1]) > 4
    for ours, theirs in zip(after[1][1], after[2][1], strict=True):  # it acts with the present weights
        np.testing.assert_array_equal(ours, theirs)


def test_environment_that_raises_costs_the_episodes_under_way_and_is_counted(build: Any, tmp_path: Path) -> None:
    """Injected: an exception in the 5th step of one of four environments. Lost: the 16 steps the process had under way.

    They are counted as sampled, and the batch is filled with others.
    """
    algorithm = build("raise")
    rows = [iterate(algorithm) for _ in range(2)]
    assert (tmp_path / "it happened").exists()
    assert [row["sampled"] for row in rows] == [BATCH + 16, BATCH]
    assert rows[-1]["env_step_failures"] == 1
    scenario = algorithm.env_runner.env.envs[0].unwrapped.scenario
    assert scenario.digest() == load_scenario("ieee13_mg", {"episode_length": 24}).digest()


@pytest.mark.parametrize("policy", ["terminate", "hold", "raise"])
def test_power_flow_that_does_not_converge_costs_what_the_scenario_says(ray_session: None, policy: str) -> None:
    """Injected: loads that are no numbers in one step of one environment of four.

    Lost: with ``terminate`` the rest of that episode, with ``hold`` nothing but the penalty, with ``raise`` what the
    process had under way. The batch is full all the same, and ``custom/converged`` or ``env_step_failures`` says so.
    """
    config = ppo_config({**DAY, "divergence": {"policy": policy}}, **TINY)
    algorithm = build_algorithm(config, RaySession(None))
    try:
        algorithm.env_runner.sample(num_timesteps=4, explore=True)
        algorithm.env_runner.get_metrics()
        simulation = algorithm.env_runner.env.vector.task.simulation
        simulation.day_load_kw[1, 5] = np.nan
        rows = [iterate(algorithm) for _ in range(2)]
    finally:
        algorithm.stop()
    assert [row["sampled"] for row in rows] == [BATCH + (16 if policy == "raise" else 0), BATCH]
    assert all(np.isfinite(row["policy_loss"]) for row in rows)
    if policy == "raise":
        assert (rows[0]["env_step_failures"], rows[0]["custom/converged"]) == (1, 1)
        return
    assert rows[0]["env_step_failures"] == 0
    length = 6 if policy == "terminate" else 24  # of the episode in which it happened
    episodes = rows[0]["episodes"]
    assert rows[0]["custom/converged"] == pytest.approx(1 - 1 / length / episodes, abs=2e-3)
    assert rows[0]["episode_return_min"] < rows[1]["episode_return_max"] - 40  # the penalty is 50 for each agent


@pytest.mark.slow
def test_only_worker_killed_as_often_as_it_comes_back_does_not_end_the_training(
    ray_session: None, tmp_path: Path
) -> None:
    """Injected: SIGKILL of the only worker, in its first sample, five times out of five. Lost: these iterations."""
    settings = {**TINY, "num_env_runners": 1, "iterations": 7, "validate_every": 0}
    config = {"deaths": 5, "where": str(tmp_path)}
    result = train(config, settings, env=MortalToyEnv, out_dir=tmp_path, name="run")
    assert (result.stopped, result.iterations) == ("finished", 7)
    rows = rows_of(tmp_path / "run")
    assert len(list(tmp_path.glob("death-*"))) == 5
    assert (rows[-1]["env_runner_losses"], rows[-1]["env_runner_restarts"]) == ("5", "5")
    assert int(rows[-1]["env_steps"]) == 2 * BATCH


@pytest.mark.slow
def test_worker_that_hangs_is_killed_and_comes_back(
    build: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Injected: a step of the only worker that does not end. Lost: its sample, after the time that is given."""
    algorithm = build("hang", on_worker=1, num_env_runners=1, sample_timeout_s=5.0)
    rows = [iterate(algorithm) for _ in range(2)]
    assert (tmp_path / "it happened").exists()
    assert [row["sampled"] for row in rows[1:]] == [BATCH]
    assert (rows[-1]["env_runner_losses"], rows[-1]["env_runner_restarts"]) == (1, 1)
    assert "Sampling process 1 gave nothing for sample_timeout_s = 5 s" in caplog.text


@pytest.mark.slow
def test_driver_that_is_killed_costs_at_most_the_iteration_under_way(ray_session: None, tmp_path: Path) -> None:
    """Injected: SIGKILL of the training process. Lost, with a checkpoint each iteration: the one under way."""
    settings = {**TINY, "iterations": 100_000, "checkpoint_every": 1, "keep_checkpoints": 2, "validate_every": 0}
    code = (
        "from powergrid.training import train\n"
        "from tests.training.toy import ToyGridEnv\n"
        f"train({{}}, {settings!r}, env=ToyGridEnv, out_dir={str(tmp_path)!r}, name='run')\n"
    )
    mark = f"DRIVER_OF_TEST={uuid.uuid4().hex}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **dict([mark.split("=")])}
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    run = tmp_path / "run"
    try:
        wait_for(lambda: len(rows_of(run)) >= 4, driver)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait(20)
        for process in marked_processes(mark):  # its Ray's, some of which live on for a minute
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    played = len(rows_of(run))
    latest = int((run / "checkpoints" / "latest").read_text().strip().removeprefix("iteration_"))
    assert played - 1 <= latest <= played
    result = resume(run, iterations=latest + 2)
    assert result.iterations == latest + 2
    assert [int(row["iteration"]) for row in rows_of(run)] == list(range(1, latest + 3))
    assert [int(row["env_steps"]) for row in rows_of(run)] == [BATCH * (i + 1) for i in range(latest + 2)]


def test_streams_of_workers_and_their_environments_differ_and_come_again(ray_session: None) -> None:
    """Injected: a worker that is made anew. Lost: nothing; it plays the days that its predecessor began with."""
    config = ppo_config({"env_name": "ieee13_mg", "episode_length": 2}, **TINY)

    def days_of(worker: int) -> list[tuple[int, ...]]:
        runner = GridEnvRunner(config=config, worker_index=worker)
        try:
            days = []
            for _ in range(5):
                runner.sample(num_timesteps=4 * 2, explore=True)
                days.append(runner.env.vector.days.tolist())
        finally:
            runner.stop()
        return list(zip(*days, strict=True))

    streams = [days_of(worker) for worker in (1, 2, 3)]
    flat = [stream for each in streams for stream in each]
    assert len(set(flat)) == len(flat) == 12
    assert len({day for stream in flat for day in stream}) > 30  # of sixty draws
    assert [days_of(worker) for worker in (1, 2, 3)] == streams
