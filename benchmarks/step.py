"""Price one environment step in engine floors, and one reset in steps, both from one run.

The floor is what no environment can avoid: write every demand and setpoint in bulk, solve, read voltages, loadings
and losses, by calls on the engine alone (``benchmarks/floor.py``). It plays the very numbers that the environment's
step played.

Usage: python benchmarks/step.py [SCENARIO ...] [--rounds N] [--profile]
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import machine_line, make_parser, median_ratio, parse, print_table
from benchmarks.floor import Floor, draw_actions, start_day
from powergrid.envs import NetworkedGridEnv


def play_env(env: NetworkedGridEnv, actions: list[dict[str, Any]], step_s: Any = None) -> float:
    """Play a day through the environment and give the seconds its steps took; ``step_s`` is filled with each one's."""
    env.reset(options={"day": 200})
    clock = time.perf_counter
    start = last = clock()
    for i, action in enumerate(actions):
        env.step(action)
        if step_s is not None:
            now = clock()
            step_s[i], last = now - last, now
    return clock() - start


def play_resets(env: NetworkedGridEnv, n: int) -> float:
    """Reset n times to drawn days and give the seconds it took."""
    start = time.perf_counter()
    for _ in range(n):
        env.reset()
    return time.perf_counter() - start


def measure(name: str, rounds: int) -> tuple[float, ...]:
    """Measure one scenario and give the cells of its row."""
    env, actions, day = start_day(name)
    n, floor = len(actions), Floor(env.task, day)
    floor.play(floor.read_by_matrix)
    difference = float(np.abs(floor.v_pu - day.voltages[-1]).max())
    times: dict[str, list[float]] = {"env": [], "matrix": [], "engine": [], "reset": []}
    step_s = np.zeros(n)
    least = {what: np.full(n, np.inf) for what in ("env", "matrix", "engine")}
    gc.collect()
    for _ in range(rounds):  # interleaved, so that a drifting machine meets all alike
        times["env"].append(play_env(env, actions, step_s) / n)
        np.minimum(least["env"], step_s, out=least["env"])
        for what, read in (("matrix", floor.read_by_matrix), ("engine", floor.read_by_engine)):
            times[what].append(floor.play(read) / n)
            np.minimum(least[what], floor.part_s.sum(axis=1), out=least[what])
        times["reset"].append(play_resets(env, 24) / 24)
    times["floor"] = [min(pair) for pair in zip(times["matrix"], times["engine"], strict=True)]
    ratio, reset = median_ratio(times, "env", "floor"), median_ratio(times, "reset", "env")
    undisturbed = {what: float(values.mean()) for what, values in least.items()}
    floor_s = min(undisturbed["matrix"], undisturbed["engine"])
    network = env.task.simulation.network
    env.close()
    size, env_s = (len(network.nodes), len(network.loads.names)), undisturbed["env"]
    return (*size, floor_s * 1e6, env_s * 1e6, env_s / floor_s, ratio, reset, difference)


class _Profile:
    """Take the time of parts of a step, by functions in place of an object's own."""

    def __init__(self) -> None:
        self.step_s: dict[str, float] = {}

    def watch(self, owner: Any, method: str, label: str) -> None:
        """Time every call of a method under a label; calls of one step add up."""
        function: Callable[..., Any] = getattr(owner, method)
        clock = time.perf_counter
        self.step_s.setdefault(label, 0.0)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self.step_s[label] += clock() - start

        setattr(owner, method, timed)


def _watch_parts(env: NetworkedGridEnv) -> _Profile:
    task, simulation, taken = env.task, env.task.simulation, _Profile()
    taken.watch(env._writer, "write", "check and write actions")
    taken.watch(simulation._devices, "project", "devices: feasible setpoints")
    for method, label in (
        ("fill_demand", "take demand and setpoints"), ("fill_injections", "take demand and setpoints"),
        ("aim", "compare switchgear"),
        ("solve", "write, move and solve"), ("read", "read voltages, flows, powers"),
    ):  # fmt: skip
        taken.watch(simulation.circuits, method, label)
    taken.watch(simulation._devices, "advance", "devices: move on")
    taken.watch(task.channels, "measure", "metrics and channels")
    taken.watch(task._rewards, "take", "rewards")
    taken.watch(task, "observation_dict", "observations")
    taken.watch(task, "info_dicts", "infos")
    return taken


def profile(name: str, rounds: int) -> list[str]:
    """Return the parts of a step of one scenario: for each, the least time of each step over the rounds, their mean."""
    env = NetworkedGridEnv({"env_name": name})
    env.reset(seed=0)
    actions = draw_actions(env)
    taken, step_s = _watch_parts(env), np.zeros(len(actions))
    least = np.full((len(actions), len(taken.step_s) + 1), np.inf)
    for _ in range(rounds):
        env.reset(options={"day": 200})
        for i, action in enumerate(actions):
            taken.step_s = dict.fromkeys(taken.step_s, 0.0)
            start = time.perf_counter()
            env.step(action)
            step_s[i] = time.perf_counter() - start
            now = np.array([*taken.step_s.values(), step_s[i]])
            np.minimum(least[i], now, out=least[i])
    *parts, total = (least.mean(axis=0) * 1e6).tolist()
    env.close()
    rows = zip([*taken.step_s, "everything else"], [*parts, total - sum(parts)], strict=True)
    return [f"{name}: {total:.1f} us", *(f"  {label:30s} {us:9.1f} {100 * us / total:6.1f} %" for label, us in rows)]


def main() -> None:
    """Measure scenarios and print the table, or the parts of their steps."""
    parser = make_parser(__doc__, ["ieee13_mg", "ieee34_mg", "ieee123_mg"], rounds=30)
    parser.add_argument("--profile", action="store_true", help="print where a step spends its time instead")
    args = parse(parser)
    print(machine_line())
    if args.profile:
        for name in args.scenarios:
            print("\n".join(profile(name, args.rounds)), flush=True)
        return
    print_table(
        args.scenarios, lambda name: measure(name, args.rounds), ("nodes", "6d"), ("loads", "6d"), ("floor us", "9.1f"),
        ("step us", "9.1f"), ("step/floor", "10.2f"), ("same, median", "12.2f"), ("reset/step", "10.2f"),
        ("|dV| pu", "9.1e"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
