"""Compare steps a second of the faces that learners take with single environments in a row, as SB3 makes them.

All play the same scenario in as many environments in turn, in one process, with actions drawn beforehand. The ratio is
of steps a second to Stable-Baselines3's ``DummyVecEnv`` of ``powergrid.make_central``, round by round.

Usage: python benchmarks/learners.py [SCENARIO ...] [--rounds N] [--quick]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import machine_line, make_parser, median_ratio, parse, print_table, take_turns

N_ENVS, N_STEPS = 16, 96


def play(step: Callable[[Any], Any], actions: list[Any]) -> float:
    """Return the seconds of a step of one environment."""
    start = time.perf_counter()
    for action in actions:
        step(action)
    return (time.perf_counter() - start) / len(actions) / N_ENVS


def measure(name: str, rounds: int) -> tuple[float, ...]:
    """Measure one scenario and give the cells of its row."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    import powergrid
    from powergrid.adapters.sb3 import GridVecEnv
    from powergrid.adapters.torchrl import TorchGridEnv

    dummy = DummyVecEnv([lambda: powergrid.make_central(name)] * N_ENVS)
    vec, gymnasium = GridVecEnv(name, N_ENVS), powergrid.make_vector(name, N_ENVS, view="central")
    tensors = TorchGridEnv(name, N_ENVS, view="central")
    gymnasium.action_space.seed(0)
    actions = [gymnasium.action_space.sample() for _ in range(N_STEPS)]
    for env in (dummy, vec, gymnasium):
        env.reset()
    moment = tensors.reset()
    tables = [moment.empty().set("action", tensors.rand_action(moment)["action"]) for _ in range(N_STEPS)]

    def step_tensors(table: Any) -> None:
        tensors.step_and_maybe_reset(table)

    times = take_turns(
        rounds,
        {
            "dummy": lambda: play(dummy.step, actions),
            "sb3": lambda: play(vec.step, actions),
            "gymnasium": lambda: play(gymnasium.step, actions),
            "torchrl": lambda: play(step_tensors, tables),
        },
    )
    for each in (dummy, vec, gymnasium, tensors):
        each.close()
    ratios = (median_ratio(times, "dummy", face) for face in ("sb3", "gymnasium", "torchrl"))
    return (1.0 / statistics.median(times["dummy"]), *ratios)


def main() -> None:
    """Print the table."""
    args = parse(make_parser(__doc__, ["ieee13_voltvar", "ieee13_mg", "ieee123_mg"], rounds=7))
    print(machine_line("stable-baselines3", "torchrl", "gymnasium"))
    print(f"{N_ENVS} environments, one process")
    columns = (("DummyVecEnv steps/s", ".0f"), ("GridVecEnv", ".2f"), ("make_vec", ".2f"), ("TorchGridEnv", ".2f"))
    print_table(args.scenarios, lambda name: measure(name, args.rounds), *columns)


if __name__ == "__main__":
    main()
