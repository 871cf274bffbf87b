"""The way of setpoints to devices: sent now and then, late, or lost; and what a device does meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem
from powergrid.grid.telemetry.links import IntArray, Link, assign
from powergrid.grid.telemetry.readings import Mark
from powergrid.grid.telemetry.spec import SetpointsSpec

FloatArray = npt.NDArray[np.float64]


class Setpoints:
    """Say what devices do of what they are asked.

    Args:
        specs: The groups.
        devices: Kind of each device that an agent owns, by name.
        columns: Device of each action, shape (n_actions,).
        n_envs: Number of environments.
        n_times: Steps of an episode, and one more.
        together: See :func:`powergrid.grid.telemetry.links.find_together`.
        step_minutes: Length of a step [min].
        problems: Where groups are told that name nothing.

    Attributes:
        late: Whether devices ever go by anything else than what they are asked.
        marks: What tells agents whether the action of the step to come will be sent, where not all are; owned by the
            device.
        decides: That, of each step, shape (n_times, n_marks).
    """

    def __init__(
        self,
        specs: Mapping[str, SetpointsSpec],
        devices: Mapping[str, str],
        columns: Sequence[str],
        n_envs: int,
        n_times: int,
        together: Mapping[bytes, int],
        step_minutes: int,
        problems: list[Problem],
    ) -> None:
        self._n_envs, self._n_times, self._n_actions = n_envs, n_times, len(columns)
        patterns = {name: spec.devices for name, spec in specs.items()}
        names = list(devices)
        found = assign("device", "telemetry.setpoints", names, patterns, problems, devices.__getitem__)
        self._groups = list[tuple[SetpointsSpec, Link, IntArray, IntArray, int]]()
        decides = list[tuple[Mark, int]]()
        for group, own in found.items():
            spec, link = specs[group], Link(specs[group], step_minutes)
            if spec.ideal:
                continue
            place = {names[i]: sender for sender, i in enumerate(own.tolist())}
            taken = [(column, place[device]) for column, device in enumerate(columns) if device in place]
            column, sender = np.array(taken, dtype=np.int64).reshape(-1, 2).T
            self._groups.append((spec, link, column, sender, len(own)))
            if link.every > 1:
                decides += [(Mark(f"{names[i]}.decides", "", 0.0, 1.0, names[i]), link.every) for i in own.tolist()]
        self.late = bool(self._groups)
        self.marks = [mark for mark, _ in decides]
        periods = np.array([every for _, every in decides], dtype=np.int64)
        self.decides = (np.arange(n_times)[:, None] % periods == 0).astype(np.float64)
        # one after the other: what was asked in each step, and what leaves every device to itself in the one played
        self._sent = np.zeros((n_times + 1, n_envs, self._n_actions))
        self._played, self._neutral_at = self._sent[-1].copy(), self._sent[:-1].size
        self._newest = np.arange(self._neutral_at).reshape(n_times, n_envs, -1)
        self._left_alone = np.zeros((n_times, n_envs), dtype=bool)
        views = [*zip(self._sent, self._newest, range(n_times), strict=False)]
        self._together, self._envs = {row: views[step] for row, step in together.items()}, np.arange(n_envs)
        self._any_alone: Sequence[Any] = [False] * n_times  # whether any is, by step

    def start(self, env: int, rng: np.random.Generator) -> None:
        """Draw an episode of one environment."""
        n_times = self._n_times
        newest = self._newest[:, env]
        for (spec, link, column, sender, n), own_rng in zip(self._groups, rng.spawn(len(self._groups)), strict=True):
            step, missing = link.draw(own_rng, n_times, n, first=-1)
            if spec.fallback == "neutral":
                step = np.where(missing, -1, step)
            step = step[:, sender]
            row = np.where(step < 0, n_times, step)
            newest[:, column] = (row * self._n_envs + env) * self._n_actions + column
        self._left_alone[:, env] = (newest >= self._neutral_at).any(axis=1)
        self.resume()

    def resume(self) -> None:
        """Find the steps in which any device is left to itself: in most episodes the first few alone."""
        self._any_alone = [each.any() for each in self._left_alone]

    def follow(self, action: FloatArray, row: IntArray, neutral: Callable[[], FloatArray]) -> FloatArray:
        """Return the actions that devices go by in a step; the array is reused in the next.

        Args:
            action: What agents ask for in it, shape (n_envs, n_actions).
            row: The step in the rows of all environments laid end to end, shape (n_envs,).
            neutral: Returns the actions that leave every device to itself, of the same shape.
        """
        if (views := self._together.get(row.tobytes())) is not None:
            sent, newest, step = views
            sent[...], alone = action, self._any_alone[step]
        else:
            at = row % self._n_times, self._envs
            self._sent[at], newest, alone = action, self._newest[at], self._left_alone[at].any()
        if alone:
            self._sent[-1] = neutral()
        return self._sent.take(newest, None, self._played, "clip")

    def kept(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was drawn and sent, the arrays themselves."""
        return {"sent": self._sent, "newest": self._newest, "left_alone": self._left_alone}
