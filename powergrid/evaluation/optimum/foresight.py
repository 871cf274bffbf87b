"""The perfect-foresight optimum of a day: linear programs on slopes of the environment, each result played in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from powergrid.envs.core import GridTask
from powergrid.errors import Problem, ScenarioError
from powergrid.evaluation.optimum.devices import SPAN
from powergrid.evaluation.optimum.program import improve, price
from powergrid.evaluation.optimum.slopes import Slopes, find_slopes
from powergrid.evaluation.optimum.stacked import BY_SLOPE, OTHERWISE, FloatArray, StackedDay, Trajectory
from powergrid.quantities import TERMS

#: How far actions may change at first, of -1..1 and in positions, and how far at most.
_RADIUS, _POSITIONS, _WIDEST = 0.3, 4.0, 3.0
#: Below this part of it, and of the reward's own size, nothing more is looked for.
_NARROWEST, _ENOUGH = 0.007, 1e-4
#: The first of it where a day of rounded positions is gone on from with whole ones: a position.
_FINER = 0.25
#: What part of a promise has to be kept for wider changes, and less than what part makes them narrower.
_HELD, _POOR = 0.5, 0.3
#: Parts of a change that are tried, the whole first.
_SHARES = (1.0, 0.5, 0.25)
#: Numbers of a scenario that a program knows by what the environment does with them.
_PLAYED = ("load_scale", "start_hour", "rating_scale", "norm_amps", "feeder_changes", "taps", "steps_on", "divergence")
#: Rounds at most: the last third of them brings less than a hundredth of what the first does.
ROUNDS = 40


class Starter(Protocol):
    """A baseline that a search starts from."""

    def reset(self, task: GridTask, env: int) -> None:
        """Get ready for the episode that an environment has just started."""

    def act(self, task: GridTask) -> FloatArray:
        """Return the actions of the step to come, shape (n_envs, n_actions)."""


@dataclass(frozen=True)
class Optimum:
    """The best day that was found.

    Attributes:
        actions: What was done, shape (n_steps, n_actions); as a task takes them.
        reward: What the environment gave for it, mean over agents.
        priced: What the program says that this day is worth, each term priced as it prices it; were it not the reward,
            to what the power flow's tolerance leaves open, something would be priced wrongly.
        model: The best that the last program says can be had near this day: ``priced`` and what small changes promise.
        promised: What could be gained on top if slopes held however far actions change, and positions of gear could be
            anywhere in between: no proof, for power flow is not linear, but of the size of what is left.
        start: Reward of the baseline that the search started from.
        rounds: Linear programs that were solved.
        cpu_s: Processor time that it took to find [s].
    """

    actions: FloatArray
    reward: float
    priced: float
    model: float
    promised: float
    start: float
    rounds: int
    cpu_s: float


def find_optimum(day: StackedDay, starters: Sequence[Starter], rounds: int = ROUNDS) -> Optimum:
    """Find the best that could have been done on a day, all of it known beforehand.

    From the best of some baselines on, the day is made better round by round: what follows from small changes of every
    action at every step is measured in the environment; the linear program of the whole day says which changes promise
    most, positions of gear being whole numbers; and they are played. What does not make the day better is tried again
    with smaller changes.
    So the result is a local optimum, and never worse than the baselines.

    Args:
        day: The day.
        starters: Baselines; the best one's day is where the search starts.
        rounds: Linear programs at most.
    """
    began = time.process_time()
    first = play_best(day, starters)
    best, before = first, 0
    if day.devices.gear:
        best, *_, before = climb(day, first, rounds, whole=False)
    best, slopes, promised, done = climb(day, best, rounds, _FINER if before else 1.0)
    if slopes is None:  # the last round made the day better: what it promised is no more
        slopes = find_slopes(day, best)
        _, promised = improve(day, best, slopes, _reach(day, _NARROWEST))
    priced = price(day, best, slopes)
    anywhere = np.where(day.devices.discrete, _WIDEST * _POSITIONS, SPAN)
    _, wide = improve(day, best, slopes, anywhere, whole=False)
    return Optimum(
        best.actions,
        best.reward,
        priced,
        priced + promised,
        max(wide, promised),
        first.reward,
        before + done,
        time.process_time() - began,
    )


def play_best(day: StackedDay, starters: Sequence[Starter]) -> Trajectory:
    """Play a day as each baseline does and return the best."""
    return max((_play(day, each) for each in starters), key=lambda each: each.worth)


def climb(
    day: StackedDay, best: Trajectory, rounds: int, radius: float = 1.0, *, whole: bool = True
) -> tuple[Trajectory, Slopes | None, float, int]:
    """Make a day better round by round.

    Args:
        day: The day.
        best: Where to start.
        rounds: Linear programs at most.
        radius: How far actions may change at first, in parts of the usual.
        whole: Whether programs have whole numbers, else what they say is rounded.

    Returns:
        The day, its slopes where they are known, what small changes promised last, and the rounds.
    """
    gear, done = day.devices.discrete, 0
    slopes, promised = None, 0.0
    while done < rounds and radius > _NARROWEST:
        done, slopes = done + 1, slopes or find_slopes(day, best)
        change, promised = improve(day, best, slopes, _reach(day, radius), whole=whole)
        if promised < _ENOUGH * max(1.0, abs(best.worth)):
            break
        found, share = None, 0.0
        for share in _SHARES:
            found = _play_better(day, best, np.where(gear, np.rint(share * change), share * change))
            if found is not None:
                break
        if found is None:
            radius *= 0.3
            continue
        kept = (found.worth - best.worth) / promised
        wider = share == _SHARES[0] and kept > _HELD
        radius = min(1.5 * radius, _WIDEST) if wider else radius * (0.9 if kept > _POOR else 0.6)
        best, slopes = found, None
    return best, slopes, promised, done


def _reach(day: StackedDay, radius: float) -> FloatArray:
    """Return how far each action may change, a position at least."""
    return np.where(day.devices.discrete, np.maximum(np.rint(_POSITIONS * radius), 1.0), _RADIUS * radius)


def _play(day: StackedDay, starter: Starter) -> Trajectory:
    """Play a day as a baseline does."""

    def choose(step: int) -> FloatArray:
        if step == 0:
            starter.reset(day.task, 0)
        chosen: FloatArray = starter.act(day.task)[0]
        return chosen

    return day.play(choose, planned=False)


def _play_better(day: StackedDay, best: Trajectory, change: FloatArray) -> Trajectory | None:
    """Play a day with changes; None where it is not better."""
    plan = np.clip(best.plan + change, day.devices.low, day.devices.high)
    played = day.play(lambda step: plan[step])
    return played if played.worth > best.worth else None


def _reaches(path: tuple[str, ...]) -> bool:
    """Whether a number that is drawn is the environment's alone, and none that a program is put together with."""
    return path[0] in _PLAYED or path == ("profiles", "price_scale") or path[-1].endswith("_initial")


def require_foreseeable(task: GridTask) -> None:
    """Refuse a scenario in which more is carried from step to step, or priced, than a program tells.

    Raises:
        ScenarioError: It has events, controls of the feeder's own that act, or a term with a weight that is not priced;
            all that is there.
    """
    scenario, circuit = task.scenario, task.simulation.circuits[0]
    found = {
        "events or rules of switching": task.simulation.events is not None,
        "controls of the feeder's own that act": bool(circuit.controls.controls),
        "devices that are handed back": scenario.never_worse_than is not None,
        **{
            f"a price on {term}": bool(scenario.weight_of(term))
            for term in TERMS
            if term in task.info_names and term not in (*BY_SLOPE, *OTHERWISE)
        },
        "buildings, whose temperatures are carried": any(fleet.kind == "building" for fleet in task.simulation.fleets),
    }
    drawn = task.draws.draw([np.random.default_rng(0)], {})[0]
    found |= {f"a range for {'.'.join(path)}, which its program reads once": not _reaches(path) for path in drawn}
    problems = [
        Problem("not-foreseeable", "optimum", f"it has {what}", "the optimum of such a day is not found yet")
        for what, there in found.items()
        if there
    ]
    if problems:
        raise ScenarioError(scenario.name, problems)
