"""When events happen: drawn for every episode from its own generator, kept as arrays; knows no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import pdtr

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Beyond how small a probability more occurrences of an event in an episode are left out.
_NEVER = 1e-6


class Timetable:
    """The events of n environments.

    Args:
        specs: Spec of each event by name.
        n_targets: How many targets each event may have, of which one is drawn.
        dt_h: Length of a step [h].
        horizon_steps: Steps of an episode.
        n_envs: Number of environments.

    Attributes:
        names: Names of the events; one that has a rate is there as often as it may happen, from the second time on
            with its number, as ``storm#2``.
        of_event: Which of the events each is, shape (n_times,).
        start: First step of each event, the horizon where it does not happen, shape (n_envs, n_times).
        end: Step after its last by the timetable; a fault ends by repair, shape (n_envs, n_times).
        target: Which of its targets, shape (n_envs, n_times).
        repair_steps: Steps that a fault takes to repair, shape (n_envs, n_times).
        left_steps: Steps that are left of them; 1 for all other events, shape (n_envs, n_times).
    """

    memory: ClassVar[tuple[str, ...]] = ("start", "end", "target", "repair_steps", "left_steps")

    def __init__(
        self, specs: Mapping[str, Any], n_targets: Sequence[int], dt_h: float, horizon_steps: int, n_envs: int
    ) -> None:
        self._dt_h, self._horizon = dt_h, horizon_steps
        self._odds = [self._odds_of(spec) for spec in specs.values()]
        times = [range(len(odds)) for odds in self._odds]
        self.names = tuple(f"{name}#{k + 1}" if k else name for name, ks in zip(specs, times, strict=True) for k in ks)
        self.of_event = np.repeat(np.arange(len(times)), [len(ks) for ks in times])
        self._nth = [k for ks in times for k in ks]
        self._specs = tuple([*specs.values()][event] for event in self.of_event.tolist())
        self._n_targets = tuple(n_targets[event] for event in self.of_event.tolist())
        self.is_fault = np.array([spec.kind == "fault" for spec in self._specs], dtype=bool)
        self._clearing = np.array([getattr(spec, "clearing_steps", 0) for spec in self._specs], dtype=np.int64)
        shape = (n_envs, len(self.names))
        self.start, self.end, self.target, self.repair_steps, self.left_steps = np.zeros((5, *shape), dtype=np.int64)

    def draw(self, env: int, rng: np.random.Generator) -> None:
        """Draw the events of an episode; as many numbers whatever they say, so that one does not shift the others."""
        count = 0
        for i, (spec, n_targets) in enumerate(zip(self._specs, self._n_targets, strict=True)):
            luck, when, how_long = rng.random(3)
            self.target[env, i] = rng.integers(n_targets)
            if self._nth[i] == 0:
                count = self._count(int(self.of_event[i]), spec, luck)
            start = self._start_of(spec, when) if self._nth[i] < count else self._horizon
            lasts = self._steps_of(spec, how_long)
            self.start[env, i] = start
            self.end[env, i] = self._horizon if lasts is None or self.is_fault[i] else min(start + lasts, self._horizon)
            self.repair_steps[env, i] = self.left_steps[env, i] = lasts if lasts and self.is_fault[i] else 1

    def _odds_of(self, spec: Any) -> FloatArray:
        """Return the probability that an event happens at most 0, 1, ... times, up to the most reckoned with."""
        if spec.rate_per_day is None:
            return np.array([1.0 - spec.probability])
        first, last = self._window(spec)
        mean = spec.rate_per_day * max(last - first + 1, 0) * self._dt_h / 24.0
        counts = np.arange(int(mean + 10.0 * mean**0.5) + 10, dtype=np.float64)
        odds: FloatArray = np.asarray(pdtr(counts, mean), dtype=np.float64)  # Poisson's distribution
        return odds[: max(1, int(np.searchsorted(odds, 1.0 - _NEVER)))]

    def _count(self, event: int, spec: Any, luck: float) -> int:
        """Return how often an event happens in an episode."""
        if spec.rate_per_day is None:
            return int(luck < spec.probability)
        return int(np.searchsorted(self._odds[event], luck, side="right"))

    def _window(self, spec: Any) -> tuple[int, int]:
        """Return the first and the last step that an event may start with."""
        first, last = spec.between_hours or (0.0, np.inf)
        low = int(np.ceil(first / self._dt_h - 1e-9))
        return low, int(min(np.floor(last / self._dt_h + 1e-9), self._horizon - 1))

    def _start_of(self, spec: Any, when: float) -> int:
        if spec.at_step is not None:
            return int(spec.at_step)
        if spec.at_hour is not None:
            return int(np.rint(spec.at_hour / self._dt_h))
        low, high = self._window(spec)
        return low + int(when * (max(high - low, 0) + 1))

    def _steps_of(self, spec: Any, how_long: float) -> int | None:
        """Return how long an event lasts, or a fault takes to repair; None is to the end."""
        steps = getattr(spec, "repair_steps", None) or getattr(spec, "duration_steps", None)
        hours = getattr(spec, "duration_hours", None)
        if steps is None and hours is not None:
            steps = tuple(max(1, round(value / self._dt_h)) for value in hours)
        if steps is None:
            return None
        low, high = steps
        return int(low + int(how_long * (high - low + 1)))

    def happening(self, step: IntArray) -> BoolArray:
        """Whether each event is on at a step of each environment, shape (n_envs, n_times)."""
        now = step[:, None]
        on: BoolArray = (self.start <= now) & (now < self.end) & (self.left_steps > 0)
        return on

    def clearing(self, step: IntArray, on: BoolArray) -> BoolArray:
        """Whether what clears each fault that is on has opened, shape (n_envs, n_times)."""
        opened: BoolArray = on & self.is_fault & (step[:, None] >= self.start + self._clearing)
        return opened

    def next_change(self, step: IntArray, on: BoolArray) -> IntArray:
        """Return the next step in which any event may begin, end or be cleared, shape (n_envs,).

        Args:
            step: Step of each environment, shape (n_envs,).
            on: Events that are on in it, shape (n_envs, n_times).
        """
        moments = np.concatenate((self.start, self.start + self._clearing, self.end), axis=1)
        later = np.where(moments > step[:, None], moments, self._horizon).min(axis=1, initial=self._horizon)
        # a fault may be repaired in any step, which who is fed decides
        soonest: IntArray = np.where((on & self.is_fault).any(axis=1), step + 1, later)
        return soonest

    def repair(self, on: BoolArray, without_voltage: BoolArray) -> None:
        """Go on with the repair of faults that have no voltage; one that gets it back is repaired from the start.

        Args:
            on: Events that are on, shape (n_envs, n_times).
            without_voltage: Events whose place has no voltage, shape (n_envs, n_times).
        """
        working = on & self.is_fault
        self.left_steps[:] = np.where(
            working, np.where(without_voltage, self.left_steps - 1, self.repair_steps), self.left_steps
        )
