"""Fit how a step's cost grows with nodes, agents, environments and processes: exponents with intervals.

A cost that grows as x^a has the exponent a: 1 is in proportion, 0 not at all, -1 is what workers give at best. Fits are
least squares of logarithms over the points printed; the interval is of 95 %. Each series is measured in turn, point
by point, and a point is the least time of each step over the rounds, their mean.

- nodes: shipped feeders with one agent, devices discovered and panels and batteries added
- microgrids: the 34-node feeder with one to five 13-node microgrids, one agent each: nodes of one kind
- agents: the 123-node feeder under the layouts single, per_zone and per_device
- environments: GridVectorEnv in this process, time for each environment
- workers: the same 16 environments in one process to as many as there are processors, this one among them

Usage: python benchmarks/scaling.py [SERIES ...] [--rounds N] [--quick]
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import linregress, t

from benchmarks.common import Table, machine_line, make_parser, parse
from benchmarks.floor import draw_actions
from powergrid.envs import GridVectorEnv, NetworkedGridEnv

FloatArray = npt.NDArray[np.float64]
#: What is measured: the size x of a point, its label, and the seconds of each step in one round.
Point = tuple[int, str, Callable[[], FloatArray]]
STEPS = 48
FEEDERS = ("ieee13", "ieee34", "ieee37", "ieee123", "ieee8500")
TIES = ("850", "858", "834", "860", "836")
ENVS = 16


def fit_exponent(sizes: FloatArray, seconds: FloatArray) -> tuple[float, float]:
    """Return the exponent of a power law through some points, and half its interval of 95 %; NaN from two points."""
    fit = linregress(np.log(sizes), np.log(seconds))
    freedom = len(sizes) - 2
    return float(fit.slope), float(t.ppf(0.975, freedom) * fit.stderr) if freedom else float("nan")


def compose(n_microgrids: int) -> dict[str, Any]:
    """Return a scenario of the 34-node feeder with some 13-node microgrids, each with a battery, sun and an agent."""
    numbers = range(1, n_microgrids + 1)
    return {
        "name": f"ieee34_{n_microgrids}x13",
        "feeder": "ieee34",
        "load_scale": 0.6,
        "microgrids": {
            f"MG{i}": {
                "feeder": "ieee13", "bus": bus, "entry": "650", "load_scale": 0.05,
                "tie": {"kind": "transformer", "s_max_kva": 750, "x_percent": 5.75, "r_percent": 1.0},
            }
            for i, bus in zip(numbers, TIES, strict=False)
        },
        "devices": {
            name: spec
            for i in numbers
            for name, spec in (
                (f"ess_{i}", {"kind": "storage", "bus": f"mg{i}_675", "e_max_kwh": 300, "p_max_kw": 75}),
                (f"pv_{i}", {"kind": "inverter", "bus": f"mg{i}_671", "p_max_kw": 130, "s_max_kva": 143}),
            )
        },
        "agents": {
            f"MG{i}": {"devices": [f"ess_{i}", f"pv_{i}"], "zone": {"microgrid": f"MG{i}"}, "pcc": f"mg{i}_tie"}
            for i in numbers
        },
    }  # fmt: skip


def time_steps(step: Callable[[Any], Any], actions: list[Any]) -> FloatArray:
    """Play some steps and give the seconds of each."""
    clock, marks = time.perf_counter, [time.perf_counter()]
    for action in actions:
        step(action)
        marks.append(clock())
    return np.diff(marks)


def make_single(stack: ExitStack, env_config: Mapping[str, Any]) -> tuple[NetworkedGridEnv, Callable[[], FloatArray]]:
    """Make an environment, and what plays the start of a day in it."""
    env = NetworkedGridEnv(dict(env_config))
    stack.callback(env.close)
    actions = draw_actions(env)[:STEPS]

    def play() -> FloatArray:
        env.reset(seed=0, options={"day": 200})
        return time_steps(env.step, actions)

    return env, play


def make_vector(stack: ExitStack, n_envs: int, **backend: Any) -> Callable[[], FloatArray]:
    """Make what plays the start of a day in several environments; seconds for each environment."""
    envs = GridVectorEnv("ieee13_mg", n_envs, **backend)
    stack.callback(envs.close)
    rng = np.random.default_rng(0)
    shapes = {agent: (n_envs, *(space.shape or ())) for agent, space in envs.single_action_space.items()}
    actions = [{a: rng.uniform(-1.0, 1.0, s).astype(np.float32) for a, s in shapes.items()} for _ in range(STEPS)]

    def play() -> FloatArray:
        envs.reset(seed=0, options={"day": 200})
        return time_steps(envs.step, actions) / n_envs

    return play


def by_nodes(stack: ExitStack) -> Iterator[Point]:
    """Return the shipped feeders by their nodes."""
    for feeder in FEEDERS:
        env, play = make_single(stack, {"env_name": feeder, "agents": "single", "add_der": {"penetration": 0.3}})
        yield len(env.task.simulation.network.nodes), feeder, play


def by_microgrids(stack: ExitStack) -> Iterator[Point]:
    """Return composed circuits by their nodes."""
    for n in range(1, len(TIES) + 1):
        env, play = make_single(stack, {"scenario": compose(n)})
        yield len(env.task.simulation.network.nodes), f"ieee34 + {n} x ieee13", play


def by_agents(stack: ExitStack) -> Iterator[Point]:
    """Return layouts of one feeder by their agents."""
    for layout in ("single", "per_zone", "per_device"):
        env, play = make_single(stack, {"env_name": "ieee123", "agents": layout, "add_der": {"penetration": 0.3}})
        yield len(env.possible_agents), f"ieee123 {layout}", play


def by_environments(stack: ExitStack) -> Iterator[Point]:
    """Return vector environments by how many they are."""
    for n in (1, 2, 4, 8, 16, 32):
        yield n, f"ieee13_mg, {n} at once", make_vector(stack, n)


def by_workers(stack: ExitStack) -> Iterator[Point]:
    """Return the same environments by the workers that play them."""
    for n in range(1, max(2, len(os.sched_getaffinity(0))) + 1):
        yield n, f"ieee13_mg, {n} processes", make_vector(stack, ENVS, backend="processes", workers=n)


SERIES = {
    "nodes": by_nodes,
    "microgrids": by_microgrids,
    "agents": by_agents,
    "environments": by_environments,
    "workers": by_workers,
}


def measure(name: str, rounds: int, *, quick: bool) -> None:
    """Measure a series, and print its points and the exponent through them."""
    table = Table((name, "12d"), ("", "24s"), ("step us", "9.1f"))
    with ExitStack() as stack:
        points = []
        for point in SERIES[name](stack):
            points.append(point)
            if quick and len(points) == 2:
                break
        least = [point[2]() for point in points]
        for _ in range(rounds):
            least = [np.minimum(so_far, point[2]()) for so_far, point in zip(least, points, strict=True)]
        seconds = np.array([each.mean() for each in least])
    for (size, label, _), s in zip(points, seconds.tolist(), strict=True):
        table.add(size, label, s * 1e6)
    exponent, half = fit_exponent(np.array([point[0] for point in points], dtype=float), seconds)
    interval = f" +- {half:.2f}" if len(points) > 2 else ", of two points"
    print(f"{name}: cost grows with the power {exponent:.2f}{interval}\n", flush=True)


def main() -> None:
    """Measure the series that were named, all if none was."""
    args = parse(make_parser(__doc__, list(SERIES), rounds=10, metavar="SERIES"))
    print(machine_line())
    for name in args.scenarios:
        if name not in SERIES:
            raise SystemExit(f"no series {name!r}; there are {', '.join(SERIES)}")
        measure(name, args.rounds, quick=args.quick)


if __name__ == "__main__":
    main()
