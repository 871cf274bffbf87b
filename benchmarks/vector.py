"""Price a step of the vector environment, per environment, in engine floors and in steps of a single environment.

The floor is that of ``benchmarks/step.py``: bulk writes, a solve and bulk reads by calls on the engine alone, on one
circuit. Many circuits in turn do not stay in the processor's caches as one does, so that there is a second floor: the
same calls on as many circuits as there are environments, step by step. With ``--backends`` it compares where
environments are played: two workers with one, and with none.

Usage: python benchmarks/vector.py [SCENARIO ...] [--envs N] [--rounds N] [--backends]
"""

from __future__ import annotations

import functools
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.common import Table, machine_line, make_parser, median_ratio, parse, take_turns
from benchmarks.step import STEPS, Floor, play_env, record
from powergrid.envs import GridVectorEnv, NetworkedGridEnv


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


def play_floors(floors: list[Floor], how: str) -> float:
    """Play the floor's day in many circuits in lockstep and give the seconds of a step of one."""
    calls = [(f.circuit, getattr(f, how)) for f in floors]
    for floor in floors:
        floor.circuit.reset()
    start = time.perf_counter()
    for (kw, kvar), (p_kw, q_kvar) in floors[0].steps:
        for circuit, read in calls:
            circuit.write_demand(kw, kvar)
            circuit.write_injections(p_kw, q_kvar)
            circuit.solve()
            read()
    return (time.perf_counter() - start) / STEPS / len(floors)


def measure(name: str, n: int, rounds: int) -> tuple[float, ...]:
    """Measure one scenario and give the cells of its row."""
    single, vector = NetworkedGridEnv({"env_name": name}), GridVectorEnv(name, n)
    single.reset(seed=0)
    rng = np.random.default_rng(0)
    spaces = single.action_spaces
    actions = [{a: rng.uniform(-1.0, 1.0, s.shape).astype(np.float32) for a, s in spaces.items()} for _ in range(STEPS)]
    stacked = [{agent: np.stack([action] * n) for agent, action in step.items()} for step in actions]
    demand, setpoints, _ = record(single, actions)
    floors = [Floor(single.task, demand, setpoints) for _ in range(n)]
    floor = floors[0]
    times = take_turns(
        rounds,
        {
            "floor": lambda: min(floor.play(floor.read_by_matrix), floor.play(floor.read_by_engine)) / STEPS,
            "floors": lambda: min(play_floors(floors, how) for how in ("read_by_matrix", "read_by_engine")),
            "single": lambda: play_env(single, actions) / STEPS,
            "vector": lambda: play_vector(vector, stacked),
            "reset": lambda: play_resets(vector),
        },
    )
    single.close()
    vector.close()
    pairs = (("vector", "floor"), ("vector", "floors"), ("single", "vector"), ("reset", "vector"))
    us = (statistics.median(times[what]) * 1e6 for what in ("floor", "floors", "vector"))
    return (n, *us, *(median_ratio(times, *pair) for pair in pairs))


def compare_backends(name: str, n: int, rounds: int) -> tuple[float, ...]:
    """Measure one scenario in this process, in one other and in two, and give the cells of its row."""
    envs = {"inline": GridVectorEnv(name, n)}
    envs |= {kind: GridVectorEnv(name, n, backend="processes", workers=k) for k, kind in ((1, "one"), (2, "two"))}
    rng = np.random.default_rng(0)
    spaces = envs["inline"].single_action_spaces
    shapes = {agent: (n, *(space.shape or ())) for agent, space in spaces.items()}
    actions = [{a: rng.uniform(-1.0, 1.0, s).astype(np.float32) for a, s in shapes.items()} for _ in range(STEPS)]
    times = take_turns(rounds, {kind: functools.partial(play_vector, env, actions) for kind, env in envs.items()})
    for env in envs.values():
        env.close()
    inline = statistics.median(times["inline"]) * 1e6
    return n, inline, *(median_ratio(times, *pair) for pair in (("inline", "one"), ("one", "two"), ("inline", "two")))


def main() -> None:
    """Measure scenarios and print the table."""
    parser = make_parser(__doc__, ["ieee13_mg", "ieee34_mg", "ieee123_mg"], rounds=20)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--backends", action="store_true", help="compare worker processes with none")
    args = parse(parser)
    print(machine_line())
    if args.backends:
        table = Table(
            ("scenario", "18s"), ("envs", "5d"), ("inline us/env", "12.1f"), ("inline/1 process", "16.2f"),
            ("1/2 processes", "13.2f"), ("inline/2 processes", "18.2f"),
        )  # fmt: skip
        for name in args.scenarios:
            table.add(name, *compare_backends(name, args.envs, args.rounds))
        return
    table = Table(
        ("scenario", "18s"), ("envs", "5d"), ("floor us", "9.1f"), ("floors us", "9.1f"), ("step/env us", "11.1f"),
        ("(step/env)/floor", "13.2f"), ("/floors", "7.2f"), ("single/vector", "11.2f"), ("reset/step", "12.2f"),
    )  # fmt: skip
    for name in args.scenarios:
        table.add(name, *measure(name, args.envs, args.rounds))


if __name__ == "__main__":
    main()
