"""Compare sampling by powergrid's runner with RLlib's stock runner: same scenario, networks, environments and seeds.

Usage: python benchmarks/sampling.py [SCENARIO ...] [--feeders FEEDER ...] [--envs N] [--rounds N] [--profile]
"""

from __future__ import annotations

import cProfile
import functools
import pstats
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.common import machine_line, make_parser, median_ratio, parse, print_table, take_turns
from powergrid.training.rllib.config import ppo_config
from powergrid.training.runs.session import ray_session

STEPS = 96


def make_runner(env_runner: str, scenario: str, envs: int, feeders: Sequence[str] = ()) -> Any:
    """Make a runner as ``powergrid train`` would in one process; with feeders, each episode draws one of them."""
    from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

    several = {"feeders": list(feeders), "placement": {"rule": "load"}} if feeders else {}
    given = {"env_name": scenario, **several}
    config = ppo_config(given, env_runner=env_runner, num_env_runners=0, num_envs_per_env_runner=envs)
    return (config.env_runner_cls or MultiAgentEnvRunner)(config=config, worker_index=0)


def sample(runner: Any, envs: int) -> float:
    """Sample a day in every environment and give the seconds of one environment step."""
    start = time.perf_counter()
    runner.sample(num_timesteps=envs * STEPS, explore=True)
    runner.get_metrics()
    return (time.perf_counter() - start) / (envs * STEPS)


def measure(scenario: str, envs: int, rounds: int, feeders: Sequence[str] = ()) -> tuple[float, ...]:
    """Measure one scenario and give the cells of its row."""
    runners = {name: make_runner(name, scenario, envs, feeders) for name in ("stock", "grid")}
    for runner in runners.values():
        sample(runner, envs)
    times = take_turns(rounds, {name: functools.partial(sample, runner, envs) for name, runner in runners.items()})
    for runner in runners.values():
        runner.stop()
    stock, grid = (1.0 / statistics.median(times[name]) for name in ("stock", "grid"))
    return envs, stock, grid, median_ratio(times, "stock", "grid")


def profile(scenario: str, envs: int, feeders: Sequence[str] = ()) -> None:
    """Say where powergrid's runner spends its time."""
    runner = make_runner("grid", scenario, envs, feeders)
    sample(runner, envs)
    with cProfile.Profile() as profiler:
        for _ in range(4):
            sample(runner, envs)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
    runner.stop()


def main() -> None:
    """Measure scenarios and print the table."""
    parser = make_parser(__doc__, ["ieee13_mg", "ieee123_mg"], rounds=7)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--feeders", nargs="+", default=[], metavar="FEEDER", help="each episode draws one of these")
    parser.add_argument("--profile", action="store_true", help="say where our runner spends its time instead")
    args = parse(parser)
    with ray_session():
        torch.set_num_threads(1)
        print(machine_line("ray", "torch"))
        if args.profile:
            for scenario in args.scenarios:
                profile(scenario, args.envs, args.feeders)
            return
        print_table(
            args.scenarios, lambda scenario: measure(scenario, args.envs, args.rounds, args.feeders), ("envs", "5d"),
            ("stock steps/s", "14.0f"), ("grid steps/s", "14.0f"), ("grid/stock", "11.2f"),
        )  # fmt: skip


if __name__ == "__main__":
    main()
