"""Price a step of the vector environment, per environment, in engine floors and in steps of a single environment.

The floor is that of ``benchmarks/step.py``: bulk writes, a solve and bulk reads by calls on the engine alone, on one
circuit. Many circuits in turn do not stay in the processor's caches as one does, so that there is a second floor: the
same calls on as many circuits as there are environments, step by step. With ``--backends`` it compares where
environments are played: two processes with one, and what two processes bring to the floor, half of its circuits in
each.

Usage: python benchmarks/vector.py [SCENARIO ...] [--envs N] [--rounds N] [--backends]
"""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.common import machine_line, make_parser, median_ratio, parse, print_table, take_turns
from benchmarks.floor import MOST_STEPS, Floor, start_day
from benchmarks.step import play_env
from powergrid.envs import GridVectorEnv


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
    calls = [(floor, getattr(floor, how)) for floor in floors]
    for floor in floors:
        floor.circuit.reset()
    start = time.perf_counter()
    for step in floors[0].steps:
        for floor, read in calls:
            floor.write(step)
            floor.circuit.solve()
            read()
    return (time.perf_counter() - start) / len(floors[0].steps) / len(floors)


def measure(name: str, n: int, rounds: int) -> tuple[float, ...]:
    """Measure one scenario and give the cells of its row."""
    (single, actions, day), vector = start_day(name), GridVectorEnv(name, n)
    stacked = [stack_actions([step] * n) for step in actions]
    floors = [Floor(single.task, day) for _ in range(n)]
    floor, steps = floors[0], len(actions)
    times = take_turns(
        rounds,
        {
            "floor": lambda: min(floor.play(floor.read_by_matrix), floor.play(floor.read_by_engine)) / steps,
            "floors": lambda: min(play_floors(floors, how) for how in ("read_by_matrix", "read_by_engine")),
            "single": lambda: play_env(single, actions) / steps,
            "vector": lambda: play_vector(vector, stacked),
            "reset": lambda: play_resets(vector),
        },
    )
    single.close()
    vector.close()
    pairs = (("vector", "floor"), ("vector", "floors"), ("single", "vector"), ("reset", "vector"))
    us = (statistics.median(times[what]) * 1e6 for what in ("floor", "floors", "vector"))
    return (n, *us, *(median_ratio(times, *pair) for pair in pairs))


def stack_actions(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the actions of environments as the vector environment takes them: an array for each agent or part."""
    first = steps[0]
    return {
        key: stack_actions([step[key] for step in steps])
        if isinstance(first[key], Mapping)
        else np.stack([step[key] for step in steps])
        for key in first
    }


class FloorPair:
    """Play the floor in as many circuits as there are environments: all here, or half of them in another process."""

    def __init__(self, name: str, n: int) -> None:
        self._here = make_floors(name, n)
        self._half = self._here[: n - n // 2]
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._other = context.Process(target=_play_when_asked, args=(theirs, name, n // 2), daemon=True)
        self._other.start()
        self._pipe.recv()

    def play_alone(self) -> float:
        """Play all circuits here and give the seconds of a step of one."""
        return play_floors(self._here, "read_by_matrix")

    def play_together(self) -> float:
        """Play half of them here and half there at once and give the same."""
        start = time.perf_counter()
        self._pipe.send(True)
        play_floors(self._half, "read_by_matrix")
        self._pipe.recv()
        return (time.perf_counter() - start) / len(self._here[0].steps) / len(self._here)

    def close(self) -> None:
        """End the other process."""
        self._pipe.send(False)
        self._other.join()


def make_floors(name: str, n: int) -> list[Floor]:
    """Record a day of a scenario and make the floor for it n times."""
    env, _, day = start_day(name)
    return [Floor(env.task, day) for _ in range(n)]


def _play_when_asked(pipe: Any, name: str, n: int) -> None:
    floors = make_floors(name, n)
    pipe.send(True)
    while pipe.recv():
        play_floors(floors, "read_by_matrix")
        pipe.send(True)


def compare_backends(name: str, n: int, rounds: int) -> tuple[float, ...]:
    """Measure one scenario in one process, and with another beside, and return the cells of its row."""
    envs = {"inline": GridVectorEnv(name, n)}
    envs |= {kind: GridVectorEnv(name, n, backend="processes", workers=k) for k, kind in ((1, "one"), (2, "two"))}
    floors = FloorPair(name, n)
    steps = min(MOST_STEPS, envs["inline"].task.simulation.options.horizon_steps)
    spaces = envs["inline"].single_action_space
    spaces.seed(0)
    actions = [stack_actions([spaces.sample() for _ in range(n)]) for _ in range(steps)]
    plays = {kind: functools.partial(play_vector, env, actions) for kind, env in envs.items()}
    times = take_turns(rounds, plays | {"floor": floors.play_alone, "floors": floors.play_together})
    floors.close()
    for env in envs.values():
        env.close()
    inline = statistics.median(times["inline"]) * 1e6
    pairs = (("inline", "one"), ("one", "two"), ("inline", "two"), ("floor", "floors"))
    return n, inline, *(median_ratio(times, *pair) for pair in pairs)


def main() -> None:
    """Measure scenarios and print the table."""
    parser = make_parser(__doc__, ["ieee13_mg", "ieee34_mg", "ieee123_mg"], rounds=20)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--backends", action="store_true", help="compare two processes with one")
    args = parse(parser)
    print(machine_line())
    if args.backends:
        print_table(
            args.scenarios, lambda name: compare_backends(name, args.envs, args.rounds), ("envs", "5d"),
            ("inline us/env", "12.1f"), ("inline/1 process", "16.2f"), ("1/2 processes", "13.2f"),
            ("inline/2 processes", "18.2f"), ("floor 1/2 processes", "19.2f"),
        )  # fmt: skip
        return
    print_table(
        args.scenarios, lambda name: measure(name, args.envs, args.rounds), ("envs", "5d"), ("floor us", "9.1f"),
        ("floors us", "9.1f"), ("step/env us", "11.1f"), ("(step/env)/floor", "13.2f"), ("/floors", "7.2f"),
        ("single/vector", "11.2f"), ("reset/step", "12.2f"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
