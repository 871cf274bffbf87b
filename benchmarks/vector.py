"""Price a step of the vector environment, per environment, in engine floors and in steps of a single environment.

The floor is that of ``benchmarks/step.py``: bulk writes, a solve and bulk reads by calls on the engine alone.

Usage: python benchmarks/vector.py [SCENARIO ...] [--envs N] [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import time
from typing import Any

import numpy as np
from step import STEPS, Floor, play_env, record

from powergrid.envs import GridVectorEnv, NetworkedGridEnv
from powergrid.grid.engine import engine_version


def play_vector(env: GridVectorEnv, actions: list[dict[str, Any]]) -> float:
    """Play a day in every environment and give the seconds its steps took, all but the last, which resets."""
    env.reset(options={"day": 200})
    start = time.perf_counter()
    for action in actions[:-1]:
        env.step(action)
    return (time.perf_counter() - start) / (len(actions) - 1) / env.num_envs


def play_resets(env: GridVectorEnv) -> float:
    """Reset every environment to a drawn day and give the seconds for each."""
    start = time.perf_counter()
    env.reset()
    return (time.perf_counter() - start) / env.num_envs


def measure(name: str, n: int, rounds: int) -> str:
    """Measure one scenario and give its row."""
    single, vector = NetworkedGridEnv({"env_name": name}), GridVectorEnv(name, n)
    single.reset(seed=0)
    rng = np.random.default_rng(0)
    spaces = single.action_spaces
    actions = [{a: rng.uniform(-1.0, 1.0, s.shape).astype(np.float32) for a, s in spaces.items()} for _ in range(STEPS)]
    stacked = [{agent: np.stack([action] * n) for agent, action in step.items()} for step in actions]
    demand, setpoints, _ = record(single, actions)
    floor = Floor(single.task, demand, setpoints)
    times: dict[str, list[float]] = {"floor": [], "single": [], "vector": [], "reset": []}
    gc.collect()
    for _ in range(rounds):  # interleaved, so that a drifting machine meets all alike
        times["floor"].append(min(floor.play(floor.read_by_matrix), floor.play(floor.read_by_engine)) / STEPS)
        times["single"].append(play_env(single, actions) / STEPS)
        times["vector"].append(play_vector(vector, stacked))
        times["reset"].append(play_resets(vector))

    def ratio(what: str, base: str) -> float:
        return statistics.median(a / b for a, b in zip(times[what], times[base], strict=True))

    row = (
        f"{name:14s} {n:5d} {statistics.median(times['floor']) * 1e6:9.1f} "
        f"{statistics.median(times['vector']) * 1e6:11.1f} {ratio('vector', 'floor'):13.2f} "
        f"{ratio('single', 'vector'):14.2f} {ratio('reset', 'vector'):12.2f}"
    )
    single.close()
    vector.close()
    return row


def main() -> None:
    """Measure scenarios and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=["ieee13_mg", "ieee34_mg", "ieee123_mg"])
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {engine_version()}")
    print(f"{'scenario':14s} {'envs':>5s} {'floor us':>9s} {'step/env us':>11s} ", end="")
    print(f"{'(step/env)/floor':>13s} {'single/vector':>11s} {'reset/step':>12s}")
    for name in args.scenarios:
        print(measure(name, args.envs, args.rounds), flush=True)


if __name__ == "__main__":
    main()
