"""A link that is not perfect: which of what was sent has arrived, known for a whole episode once it is drawn."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem, describe_unknown
from powergrid.grid.telemetry.spec import LinkSpec

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: A time on the way that is a whole number of steps shall count as so many.
_EXACT = 1e-9


class Link:
    """Say what has arrived by each step.

    Args:
        spec: How often, how long, how much is lost.
        step_minutes: Length of a step [min].

    Attributes:
        every: Steps between two that are sent.
    """

    def __init__(self, spec: LinkSpec, step_minutes: int) -> None:
        self._spec, self._step_minutes = spec, step_minutes
        self.every = max(1, spec.every_minutes // step_minutes)

    @property
    def longest(self) -> int:
        """Steps on the way at the most."""
        minutes = self._spec.delay_minutes + self._spec.delay_spread_minutes
        return math.ceil(minutes / self._step_minutes - _EXACT)

    def draw(self, rng: np.random.Generator, n_times: int, n: int, *, first: int) -> tuple[IntArray, BoolArray]:
        """Draw one episode.

        Args:
            rng: Draws what is lost and how long it takes, where that is not the same each time.
            n_times: Number of steps.
            n: Number of senders, each drawn for itself.
            first: What has arrived where nothing has: 0, what was sent in step 0, or -1, nothing.

        Returns:
            The step in which the newest of what has arrived was sent, and whether a newer one was due; both of
            shape (n_times, n).
        """
        spec, sent = self._spec, np.arange(0, n_times, self.every)
        minutes = np.full((len(sent), n), spec.delay_minutes)
        if spec.delay_spread_minutes:
            minutes += rng.uniform(0.0, spec.delay_spread_minutes, minutes.shape)
        arrives = sent[:, None] + np.ceil(minutes / self._step_minutes - _EXACT).astype(np.int64)
        if spec.loss:
            arrives[rng.random(arrives.shape) < spec.loss] = n_times
        newest = np.full((n_times + 1, n), first)
        np.maximum.at(newest, (np.minimum(arrives, n_times), np.arange(n)), sent[:, None])
        newest = np.maximum.accumulate(newest[:n_times], axis=0)
        due = (np.arange(n_times) - self.longest) // self.every * self.every
        return newest, newest < np.maximum(due, first)[:, None]


def find_together(n_envs: int, n_times: int) -> dict[bytes, int]:
    """Return the step that all environments are at by their rows, as bytes, in all episodes laid end to end.

    Of arrays of steps, then environments, it then picks a view, in a part of the time that picking rows takes.
    """
    first = np.arange(n_envs) * n_times
    return {(first + step).tobytes(): step for step in range(n_times)}


def assign(
    kind: str,
    where: str,
    names: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    problems: list[Problem],
    also: Callable[[str], str] = str,
) -> dict[str, IntArray]:
    """Share names out among groups by their patterns: each to the first that names it.

    Args:
        kind: ``channel`` or ``device``, for the problems.
        where: Place of the groups in the scenario.
        names: The names; empty where there is nothing to assign.
        groups: Patterns of each group.
        problems: Where patterns are told that fit none, and groups that get none.
        also: What else a name is known as.

    Returns:
        Places of the names of each group.
    """
    taken = dict[int, str]()
    for group, patterns in groups.items():
        at = f"{where}.{group}"
        for pattern in patterns:
            fits = [i for i, name in enumerate(names) if name and any(_fits(pattern, n) for n in (name, also(name)))]
            if not fits:
                text = describe_unknown(kind, pattern, [name for name in names if name])
                problems.append(Problem(f"unknown-{kind}", at, text))
            for i in fits:
                taken.setdefault(i, group)
        if group not in taken.values() and not any(p.where == at for p in problems):
            problems.append(Problem("no-effect", at, f"other groups before it have all of its {kind}s"))
    return {group: np.array([i for i in range(len(names)) if taken.get(i) == group], np.int64) for group in groups}


def _fits(pattern: str, name: str) -> bool:
    return fnmatch.fnmatchcase(name.lower(), pattern.lower())
