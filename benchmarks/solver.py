"""Price what the solver can be told, feeder by feeder: tolerance, algorithm, and what is kept between factorisations.

A day of each volt-var scenario, every capacitor and tap moving at random, is solved time and again by the engine alone,
each time with other options, in turn. What an option costs stands beside what it leaves of the voltages: the largest
difference from a solution at the tolerance of 1e-10.

Usage: python benchmarks/solver.py [SCENARIO ...] [--rounds N]
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common import Table, machine_line, make_parser, parse
from benchmarks.floor import Day, Floor, start_day
from powergrid.envs.core import GridTask

SCENARIOS = ("ieee13_voltvar", "ieee34_voltvar", "ieee123_voltvar", "ieee8500_voltvar")
#: The tolerance whose solution the others are compared with [pu].
EXACT = 1e-10
NORMAL, NEWTON = 0, 1


@dataclass(frozen=True)
class Options:
    """What the solver is told."""

    name: str
    tolerance: float = 1e-5
    algorithm: int = NORMAL
    keeps_symbols: bool = True


DEFAULT = Options("default: 1e-5")
TRIED = (
    DEFAULT,
    Options("tolerance 1e-4", tolerance=1e-4),
    Options("tolerance 1e-6", tolerance=1e-6),
    Options("tolerance 1e-8", tolerance=1e-8),
    Options("Newton, 1e-5", algorithm=NEWTON),
    Options("analyse anew, 1e-5", keeps_symbols=False),
)


class Run:
    """A day solved with some options.

    Attributes:
        least_s: Least time of each solve so far, shape (n_steps,).
        iterations: Of each solve, shape (n_steps,).
        v_pu: Voltages of the day, shape (n_steps, n_nodes).
    """

    def __init__(self, day: tuple[GridTask, Day], options: Options) -> None:
        self._floor = floor = Floor(*day, tolerance=options.tolerance)
        engine = floor.circuit.engine
        engine.direct.Solution.Algorithm(options.algorithm)
        if not options.keeps_symbols:
            engine.direct.YMatrix.SolverOptions(0)
        n = len(floor.steps)
        self.least_s = np.full(n, np.inf)
        self.iterations: list[int] = []
        self.v_pu: Any = []
        floor.play(self._keep)
        self.v_pu = np.array(self.v_pu)

    def _keep(self) -> None:
        self._floor.read_by_matrix()
        self.v_pu.append(self._floor.v_pu.copy())
        self.iterations.append(self._floor.circuit.engine.iterations)

    def play(self) -> None:
        """Solve the day once more."""
        self._floor.play(self._floor.read_by_matrix)
        np.minimum(self.least_s, self._floor.part_s[:, 1], out=self.least_s)


def measure(scenario: str, rounds: int, table: Table) -> None:
    """Measure one scenario and print a row for each of the options."""
    env, _, played = start_day(scenario)
    day = (env.task, played)
    exact = Run(day, Options("exact", tolerance=EXACT)).v_pu
    runs = {options: Run(day, options) for options in TRIED}
    gc.collect()
    for _ in range(rounds):
        for run in runs.values():
            run.play()
    base = runs[DEFAULT].least_s.mean()
    for options, run in runs.items():
        us, off = run.least_s.mean() * 1e6, np.abs(run.v_pu - exact).max()
        table.add(scenario, options.name, np.mean(run.iterations), us, run.least_s.mean() / base, off)
    env.close()


def main() -> None:
    """Measure scenarios and print the table."""
    args = parse(make_parser(__doc__, SCENARIOS, rounds=8))
    print(machine_line())
    table = Table(
        ("scenario", "18s"), ("options", "18s"), ("iterations", "10.1f"), ("solve us", "9.1f"), ("/default", "8.2f"),
        ("|dV| pu", "9.1e"),
    )  # fmt: skip
    for scenario in args.scenarios:
        measure(scenario, args.rounds, table)


if __name__ == "__main__":
    main()
