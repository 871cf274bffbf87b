"""Weigh environments: a worker with its first one, each further one, and what steps add.

Each scenario is weighed in a process of its own, by its resident memory, what is free handed back first. Growth is
that of ``--steps`` environment steps with their resets, played alone or in ``--envs`` environments at once.

Usage: python benchmarks/memory.py [SCENARIO ...] [--envs N] [--steps N] [--vector] [--minutes M] [--quick]
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.common import machine_line, make_parser, parse, print_table

SETTLE_STEPS = 2000


def resident_mb() -> float:
    """Return this process's resident memory, what is free handed back first [MB]."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def grow(play: Callable[[int], None], steps: int, minutes: float) -> tuple[float, int]:
    """Let an environment settle, and give what so many steps then add [MB], and the steps that there was time for."""
    play(SETTLE_STEPS)
    before, end, played = resident_mb(), time.monotonic() + 60.0 * minutes, 0
    while played < steps and time.monotonic() < end:
        portion = min(steps - played, 10_000)
        play(portion)
        played += portion
    return resident_mb() - before, played


def weigh(name: str, n_envs: int, steps: int, minutes: float, *, vector: bool) -> tuple[float, ...]:
    """Return what a bare process, its first environment and each further one weigh, and what steps add [MB]."""
    from benchmarks.floor import draw_actions
    from benchmarks.vector import stack_actions
    from powergrid.envs import GridVectorEnv, NetworkedGridEnv

    bare = resident_mb()
    env = NetworkedGridEnv({"env_name": name})
    actions = draw_actions(env)
    env.reset(seed=0)

    def play_one(n_steps: int) -> None:
        for i in range(n_steps):
            _, _, terminateds, truncateds, _ = env.step(actions[i % len(actions)])
            if terminateds["__all__"] or truncateds["__all__"]:
                env.reset()

    play_one(SETTLE_STEPS)
    one = resident_mb()
    envs = GridVectorEnv(name, n_envs)
    envs.reset(seed=0)
    stacked = [stack_actions([step] * n_envs) for step in actions]

    def play_all(n_steps: int) -> None:
        for i in range(max(1, n_steps // n_envs)):
            envs.step(stacked[i % len(stacked)])
            envs.infos()

    play_all(SETTLE_STEPS)
    further = (resident_mb() - one) / n_envs
    growth, played = grow(play_all if vector else play_one, steps, minutes)
    return bare, one - bare, further, growth, played


def main() -> None:
    """Weigh scenarios and print the table."""
    parser = make_parser(__doc__, ["ieee13_mg", "ieee34_mg", "ieee123_mg"], rounds=1)
    parser.add_argument("--envs", type=int, default=16, help="further environments in one process")
    parser.add_argument("--steps", type=float, default=20_000, help="steps over which growth is taken, as 1e6")
    parser.add_argument("--vector", action="store_true", help="play them in all environments at once")
    parser.add_argument("--minutes", type=float, default=30.0, help="when to end for want of time, each scenario")
    args = parse(parser)
    if args.quick:
        args.envs, args.steps = 2, 1000
    print(machine_line())

    def weigh_alone(name: str) -> tuple[float, ...]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(weigh, (name, args.envs, int(args.steps), args.minutes), {"vector": args.vector})

    print_table(
        args.scenarios, weigh_alone, ("bare MB", "8.1f"), ("first MB", "9.1f"), ("further MB each", "16.2f"),
        ("growth MB", "10.2f"), ("steps", "8d"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
