"""Price a step of the vector environment, per environment, in engine floors and in steps of a single environment.

The floor is that of ``benchmarks/step.py``: bulk writes, a solve and bulk reads by calls on the engine alone. With
``--backends`` it compares where environments are played: two workers with one, and with none.

Usage: python benchmarks/vector.py [SCENARIO ...] [--envs N] [--rounds N] [--backends]
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

from benchmarks.step import STEPS, Floor, play_env, record
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


def compare_backends(name: str, n: int, rounds: int) -> str:
    """Measure one scenario in this process, in one other and in two, and give its row."""
    envs = {"inline": GridVectorEnv(name, n)}
    envs |= {kind: GridVectorEnv(name, n, backend="processes", workers=k) for k, kind in ((1, "one"), (2, "two"))}
    rng = np.random.default_rng(0)
    spaces = envs["inline"].single_action_spaces
    shapes = {agent: (n, *(space.shape or ())) for agent, space in spaces.items()}
    actions = [{a: rng.uniform(-1.0, 1.0, s).astype(np.float32) for a, s in shapes.items()} for _ in range(STEPS)]
    times: dict[str, list[float]] = {kind: [] for kind in envs}
    gc.collect()
    for _ in range(rounds):
        for kind, env in envs.items():
            times[kind].append(play_vector(env, actions))
    for env in envs.values():
        env.close()

    def ratio(what: str, base: str) -> float:
        return statistics.median(a / b for a, b in zip(times[what], times[base], strict=True))

    return (
        f"{name:14s} {n:5d} {statistics.median(times['inline']) * 1e6:12.1f} "
        f"{ratio('one', 'two'):16.2f} {ratio('inline', 'two'):18.2f}"
    )


def main() -> None:
    """Measure scenarios and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=["ieee13_mg", "ieee34_mg", "ieee123_mg"])
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--backends", action="store_true", help="compare worker processes with none")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {engine_version()}")
    if args.backends:
        print(f"{'scenario':14s} {'envs':>5s} {'inline us/env':>12s} ", end="")
        print(f"{'1/2 processes':>15s} {'inline/2 processes':>18s}")
        for name in args.scenarios:
            print(compare_backends(name, args.envs, args.rounds), flush=True)
        return
    print(f"{'scenario':14s} {'envs':>5s} {'floor us':>9s} {'step/env us':>11s} ", end="")
    print(f"{'(step/env)/floor':>13s} {'single/vector':>11s} {'reset/step':>12s}")
    for name in args.scenarios:
        print(measure(name, args.envs, args.rounds), flush=True)


if __name__ == "__main__":
    main()
