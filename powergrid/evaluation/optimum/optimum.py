"""How good a day could have been: its perfect-foresight optimum, always played in the environment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.optimum.program import find_slopes, improve
from powergrid.evaluation.optimum.stacked import StackedDay, Trajectory
from powergrid.scenario import Scenario

_FIRST_RADIUS, _LEAST_RADIUS, _FIRST_POSITIONS = 0.3, 2e-3, 4.0


@dataclass(frozen=True)
class Optimum:
    trajectory: Trajectory
    upper: float
    rounds: int


def play_baseline(day: StackedDay, name: str) -> Trajectory:
    policy, first = BASELINES[name].make(0), True

    def choose(step):
        nonlocal first
        if first:
            policy.reset(day.task, 0)
            first = False
        return policy.act(day.task)[0].copy()

    return day.play(choose)


def find_optimum(day: StackedDay, start: Trajectory, rounds: int = 40, log=print) -> Optimum:
    best, radius, promise = start, 1.0, np.inf
    specs = day.task.simulation.actions
    unit = np.array([_FIRST_POSITIONS if s.discrete else _FIRST_RADIUS for s in specs])
    stalled = 0
    slopes = find_slopes(day, best)
    for r in range(rounds):
        t0 = time.time()
        reach = np.where([s.discrete for s in specs], np.maximum(np.round(unit * radius), 1.0), unit * radius)
        change, promise = improve(day, best, slopes, reach)
        t1 = time.time()
        found = None
        for share in (1.0, 0.5, 0.25):
            moved = best.actions + share * change
            moved = np.where([s.discrete for s in specs], np.round(moved), np.clip(moved, -1, 1))
            tried = day.play(lambda step: moved[step])
            if tried.reward > best.reward + 1e-7:
                found = tried
                break
        t2 = time.time()
        gain = (found.reward - best.reward) if found else 0.0
        if found:
            best = found
            slopes = find_slopes(day, best)
            radius = min(radius * 1.5, 3.0) if share == 1.0 and gain > 0.5 * promise else radius * (0.9 if share == 1.0 else 0.6)
        else:
            radius *= 0.3
        log(f"{r:3} {best.reward:.5f} +{gain:.5f} promise {promise:.5f} radius {radius:.3f} share {share if found else 0} LP {t1-t0:.2f} play {t2-t1:.2f} FD {time.time()-t2:.2f}")
        if radius * _FIRST_RADIUS < _LEAST_RADIUS or promise < 1e-4:
            break
    return Optimum(best, best.reward + promise, r)


if __name__ == "__main__":
    import sys

    from powergrid.grid.profiles.profiles import split_days
    from powergrid.scenario import scenario_from_config

    sc = scenario_from_config({"env_name": sys.argv[1], "split": "test"})
    days = split_days(sc.read_profiles(), split="test")
    d = int(days[int(sys.argv[2])])
    t0 = time.time()
    with closing(StackedDay(sc, d)) as day:
        print("made", time.time() - t0, [(s.device, s.name, s.n) for s in day.task.simulation.actions][:30])
        plays = {n: play_baseline(day, n) for n in ("no_control", "rule_based")}
        print({n: p.reward for n, p in plays.items()})
        best = max(plays.values(), key=lambda p: p.reward)
        t0 = time.time()
        o = find_optimum(day, best, int(sys.argv[3]) if len(sys.argv) > 3 else 40, lambda t: print(t, flush=True))
        print("optimum", o.trajectory.reward, "upper", o.upper, f"{time.time()-t0:.1f}s")
