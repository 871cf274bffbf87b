"""Time training iterations by workers and batch size, fit what one costs, and say what more workers would bring.

The model of an iteration of N steps with W >= 1 workers on as many CPUs (the driver learns while they wait):

    T(W, N) = s N / W + q N + c W + f

s: a worker plays a step; q: the driver takes a step in and learns from it; c: weights go to a worker and its episodes
come back; f: what an iteration costs besides. The four are >= 0 and fitted by least squares to the points printed, of
relative errors; a point is the least time of the rounds. Beyond the CPUs there are the model speaks alone.

Usage: python -m benchmarks.workers [SCENARIO ...] [--rounds N] [--quick]
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from benchmarks.common import Table, machine_line, make_parser, parse
from powergrid.training.rllib.config import ppo_config
from powergrid.training.rllib.sampling.processes import available_cpus
from powergrid.training.runs.session import RaySession, build_algorithm, ray_session, stop_algorithm

BATCHES = (1536, 3072, 6144)
ENVS = 16
MOST_OFF = 0.15  # of a point, for the model to speak of what was not measured
BEYOND = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class IterationModel:
    """Return the seconds of an iteration, s, q, c and f as above, and how far the points are from it.

    Attributes:
        s: A worker's time for a step [s].
        q: The driver's time for a step [s].
        c: Time for each worker and iteration [s].
        f: Time for each iteration [s].
        worst: Largest relative distance of a point.
    """

    s: float
    q: float
    c: float
    f: float
    worst: float = 0.0

    def seconds(self, workers: int, steps: int) -> float:
        """Return the time of an iteration of some steps."""
        return self.s * steps / workers + self.q * steps + self.c * workers + self.f

    def best_workers(self, steps: int) -> float:
        """Return how many workers make an iteration shortest; more of them cost more than they bring."""
        return math.sqrt(self.s * steps / self.c) if self.c else math.inf

    def cpu_hours(self, workers: int, steps: int) -> float:
        """Return the CPU-hours of a million steps, of as many CPUs as workers, at work or waiting."""
        return workers * self.seconds(workers, steps) / steps * 1e6 / 3600.0


def fit_model(points: Sequence[tuple[int, int, float]]) -> IterationModel:
    """Fit the model to points (workers, steps, seconds); at least four, of two numbers of each."""
    workers, steps, seconds = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    terms = np.stack([steps / workers, steps, workers, np.ones(len(points))], axis=1)
    size = np.abs(terms).max(axis=0)
    found, _ = nnls(terms / size / seconds[:, None], np.ones(len(points)))
    factors = found / size
    worst = float(np.abs(terms @ factors / seconds - 1.0).max())
    s, q, c, f = (float(factor) for factor in factors)
    return IterationModel(s, q, c, f, worst)


def time_iterations(scenario: str, workers: int, steps: int, rounds: int, session: RaySession) -> float:
    """Train some iterations and give the least time of one [s]."""
    config = ppo_config(
        scenario,
        num_env_runners=workers,
        num_envs_per_env_runner=ENVS,
        train_batch_size=steps,
        sample_timeout_s=600.0,
    )
    algorithm = build_algorithm(config, session)
    try:
        if algorithm.config.num_env_runners != workers:
            raise SystemExit(f"{workers} workers find no CPUs: free some, or run on a machine with more")
        algorithm.train()  # starts environments, warms caches
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            algorithm.train()
            times.append(time.perf_counter() - start)
    finally:
        stop_algorithm(algorithm)
    return min(times)


def measure(scenario: str, rounds: int, batches: Sequence[int], session: RaySession) -> None:
    """Measure a scenario, fit the model, and print both."""
    cpus = available_cpus()
    table = Table(
        ("scenario", "16s"), ("workers", "7d"), ("steps", "6d"), ("iteration s", "11.3f"), ("steps/s", "8.0f")
    )
    points: list[tuple[int, int, float]] = []
    for workers in range(cpus + 1):
        for steps in batches:
            seconds = time_iterations(scenario, workers, steps, rounds, session)
            table.add(scenario, workers, steps, seconds, steps / seconds)
            if workers:
                points.append((workers, steps, seconds))
    if len(points) < 4 or cpus < 2:
        print("too few points for a fit: it takes two CPUs, and two batch sizes")
        return
    model = fit_model(points)
    print(
        f"\n{scenario}: s = {model.s * 1e6:.0f} us, q = {model.q * 1e6:.0f} us, c = {model.c * 1e3:.1f} ms, "
        f"f = {model.f * 1e3:.0f} ms; points off by at most {model.worst:.0%}; "
        f"shortest iteration of {batches[-1]} steps with {model.best_workers(batches[-1]):.0f} workers\n"
    )
    if model.worst > MOST_OFF or not model.s:
        print("The points are not those of the model, so it says nothing of more workers: is the machine free?\n")
        return
    table = Table(("workers", "7d"), ("iteration s", "11.3f"), ("steps/s", "8.0f"), ("speed-up", "8.2f"),
                  ("CPU h/1e6 steps", "15.3f"), ("", "s"))  # fmt: skip
    first = model.seconds(1, batches[-1])
    for workers in BEYOND:
        seconds = model.seconds(workers, batches[-1])
        told = "" if workers <= cpus else "by the model alone"
        cost = model.cpu_hours(workers, batches[-1])
        table.add(workers, seconds, batches[-1] / seconds, first / seconds, cost, told)
    print()


def main() -> None:
    """Measure scenarios."""
    args = parse(make_parser(__doc__, ["ieee13_mg", "ieee123_mg"], rounds=5))
    with ray_session() as session:
        print(machine_line("ray", "torch"))
        for scenario in args.scenarios:
            measure(scenario, args.rounds, BATCHES[:2] if args.quick else BATCHES, session)


if __name__ == "__main__":
    main()
