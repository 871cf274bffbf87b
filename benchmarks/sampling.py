"""Compare sampling by powergrid's runner with RLlib's stock runner: same scenario, networks, environments and seeds.

Usage: python benchmarks/sampling.py [SCENARIO ...] [--envs N] [--rounds N] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import pstats
import statistics
import time
from importlib.metadata import version
from typing import Any

import torch

from powergrid.grid.engine import engine_version
from powergrid.training.config import ppo_config
from powergrid.training.session import ray_session

STEPS = 96


def make_runner(env_runner: str, scenario: str, envs: int) -> Any:
    """Make a runner as ``powergrid train`` would in one process."""
    from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

    config = ppo_config(scenario, env_runner=env_runner, num_env_runners=0, num_envs_per_env_runner=envs)
    return (config.env_runner_cls or MultiAgentEnvRunner)(config=config, worker_index=0)


def sample(runner: Any, envs: int) -> float:
    """Sample a day in every environment and give the seconds of one environment step."""
    start = time.perf_counter()
    runner.sample(num_timesteps=envs * STEPS, explore=True)
    runner.get_metrics()
    return (time.perf_counter() - start) / (envs * STEPS)


def measure(scenario: str, envs: int, rounds: int) -> str:
    """Measure one scenario and give its row."""
    runners = {name: make_runner(name, scenario, envs) for name in ("stock", "grid")}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for runner in runners.values():
        sample(runner, envs)
    for _ in range(rounds):  # interleaved, so that a drifting machine meets both alike
        for name, runner in runners.items():
            times[name].append(sample(runner, envs))
    ratio = statistics.median(a / b for a, b in zip(times["stock"], times["grid"], strict=True))
    stock, grid = (1.0 / statistics.median(times[name]) for name in ("stock", "grid"))
    for runner in runners.values():
        runner.stop()
    return f"{scenario:14s} {envs:5d} {stock:14.0f} {grid:14.0f} {ratio:11.2f}"


def profile(scenario: str, envs: int) -> None:
    """Say where powergrid's runner spends its time."""
    runner = make_runner("grid", scenario, envs)
    sample(runner, envs)
    with cProfile.Profile() as profiler:
        for _ in range(4):
            sample(runner, envs)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
    runner.stop()


def main() -> None:
    """Measure scenarios and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=["ieee13_mg", "ieee123_mg"])
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    with ray_session():
        torch.set_num_threads(1)
        print(
            f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {engine_version()}, ",
            end="",
        )
        print(f"ray {version('ray')}, torch {version('torch')}")
        print(f"{'scenario':14s} {'envs':>5s} {'stock steps/s':>14s} {'grid steps/s':>14s} {'grid/stock':>11s}")
        for scenario in args.scenarios:
            if args.profile:
                profile(scenario, args.envs)
            else:
                print(measure(scenario, args.envs, args.rounds), flush=True)


if __name__ == "__main__":
    main()
