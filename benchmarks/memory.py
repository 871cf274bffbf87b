"""Weigh environments: a worker with its first one, each further one, and what thousands of steps add.

Each scenario is weighed in a process of its own, by its resident memory.

Usage: python benchmarks/memory.py [SCENARIO ...] [--envs N] [--steps N]      (--steps 1000000 takes minutes)
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

SETTLE_STEPS = 500


def resident_mb() -> float:
    """Give this process's resident memory, what is free handed back first [MB]."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def play(env: Any, actions: list[dict[str, Any]], n_steps: int) -> None:
    """Play steps with episodes as they end."""
    env.reset()
    for i in range(n_steps):
        _, _, terminateds, truncateds, _ = env.step(actions[i % len(actions)])
        if terminateds["__all__"] or truncateds["__all__"]:
            env.reset()


def weigh(name: str, n_envs: int, n_steps: int) -> tuple[float, float, float, float]:
    """Give what a bare process, its first environment, each further one and the steps weigh [MB]."""
    from powergrid.envs import GridVectorEnv, NetworkedGridEnv

    bare = resident_mb()
    env = NetworkedGridEnv({"env_name": name})
    for i, space in enumerate(env.action_spaces.values()):
        space.seed(i)
    actions = [{agent: space.sample() for agent, space in env.action_spaces.items()} for _ in range(96)]
    env.reset(seed=0)
    play(env, actions, SETTLE_STEPS)
    one = resident_mb()
    play(env, actions, n_steps)
    grown = resident_mb()
    vector = GridVectorEnv(name, n_envs)
    vector.reset(seed=0)
    stacked = {agent: _stack(action, n_envs) for agent, action in actions[0].items()}
    for _ in range(SETTLE_STEPS // n_envs):
        vector.step(stacked)
    further = (resident_mb() - grown) / n_envs
    return bare, one - bare, further, grown - one


def _stack(action: Any, n: int) -> Any:
    if isinstance(action, dict):
        return {key: _stack(value, n) for key, value in action.items()}
    return np.stack([action] * n)


def main() -> None:
    """Weigh scenarios and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=["ieee13_mg", "ieee34_mg", "ieee123_mg"])
    parser.add_argument("--envs", type=int, default=16, help="further environments in one process")
    parser.add_argument("--steps", type=int, default=20_000, help="steps over which growth is taken")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(
        f"{'scenario':18s} {'bare MB':>8s} {'first MB':>9s} {'further MB each':>16s} {'growth MB':>10s} {'steps':>8s}"
    )
    context = multiprocessing.get_context("spawn")
    for name in args.scenarios:
        with context.Pool(1) as pool:
            bare, first, further, growth = pool.apply(weigh, (name, args.envs, args.steps))
        print(f"{name:18s} {bare:8.1f} {first:9.1f} {further:16.2f} {growth:10.2f} {args.steps:8d}", flush=True)


if __name__ == "__main__":
    main()
