"""What was sent and what is told of it: readings wait in one array, and a step takes all that has arrived in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.telemetry.links import IntArray

FloatArray = npt.NDArray[np.float64]


class Ring:
    """Keep what is sent of the episodes of all environments, with what is told besides and known before.

    Args:
        n_envs: Number of environments.
        n_times: Steps of an episode, and one for the state after the last.
        together: See :func:`powergrid.grid.telemetry.links.find_together`.
        middles: What may stand for numbers that are missing, shape (n_middles, n_sent).
        n_marks: How many numbers are told besides, of each step known when an episode starts.
        width: How many numbers are told.
        inexact: Whether errors are multiplied.
        rounding: Multiples that numbers are rounded to, one after the other, 0 for none, each shape (n_sent,).

    Attributes:
        marks: What is told besides, shape (n_times, n_envs, n_marks).
        factor: What is multiplied, shape (n_times, n_envs, n_sent); None where nothing is.
        newest: What is told in each step: a place in what is kept, shape (n_times, n_envs, width).
    """

    def __init__(
        self,
        n_envs: int,
        n_times: int,
        together: Mapping[bytes, int],
        middles: FloatArray,
        n_marks: int,
        width: int,
        *,
        inexact: bool,
        rounding: Sequence[FloatArray],
    ) -> None:
        n_rows, n_sent = n_envs * n_times, middles.shape[1]
        # one after the other: what is sent, what stands for what is missing, what is told besides
        self._middles_at = n_rows * n_sent
        self._marks_at = self._middles_at + middles.size
        self._kept = np.zeros(self._marks_at + n_rows * n_marks)
        self._kept[self._middles_at : self._marks_at] = middles.reshape(-1)
        self._sent = self._kept[: self._middles_at].reshape(n_times, n_envs, n_sent)
        self.marks = self._kept[self._marks_at :].reshape(n_times, n_envs, n_marks)
        self.newest = np.zeros((n_times, n_envs, width), dtype=np.int64)
        self.factor = np.ones((n_times, n_envs, n_sent)) if inexact else None
        self._rounded = [(part, np.tile(own[part], (n_envs, 1))) for own in rounding for part in _runs(own)]
        self._envs, self._told = np.arange(n_envs), np.zeros((n_envs, width))
        factors = [None] * n_times if self.factor is None else [*self.factor]
        views = [*zip(self._sent, factors, self.newest, strict=True)]
        self._together = {row: views[step] for row, step in together.items()}

    def places_of(self, env: int, step: IntArray, column: IntArray) -> IntArray:
        """Return where lie what one environment sent in some steps, given with columns that fit them."""
        _, n_envs, n_sent = self._sent.shape
        places: IntArray = (step * n_envs + env) * n_sent + column
        return places

    def middles_of(self, which: int, column: IntArray) -> IntArray:
        """Return where lies what stands for columns that are missing."""
        places: IntArray = self._middles_at + which * self._sent.shape[2] + column
        return places

    def marks_of(self, env: int) -> IntArray:
        """Return where lies what is told besides in one environment, shape (n_times, n_marks)."""
        places: IntArray = self._marks_at + np.arange(self.marks.size).reshape(self.marks.shape)[:, env]
        return places

    def tell(self, measured: FloatArray, places: IntArray, row: IntArray, out: FloatArray) -> None:
        """Write what is told in a step.

        Args:
            measured: What was measured, shape (n_envs, n_measured).
            places: Which of it is sent, shape (n_sent,).
            row: The step in the rows of all environments laid end to end, shape (n_envs,).
            out: Where it is written, shape (n_envs, width).
        """
        views = self._together.get(row.tobytes())
        sent, factor, newest = self._pick(row) if views is None else views
        measured.take(places, 1, sent, "clip")
        if factor is not None:
            np.multiply(sent, factor, out=sent)
        for part, steps in self._rounded:
            own = sent[:, part]
            np.rint(np.divide(own, steps, out=own), out=own)
            np.multiply(own, steps, out=own)
        if views is None:
            self._sent[row % len(self.newest), self._envs] = sent
        if len(out) == 1:
            self._kept.take(newest, None, out, "clip")
        else:  # rows that do not lie side by side would be copied twice
            out[...] = self._kept.take(newest, None, self._told, "clip")

    def _pick(self, row: IntArray) -> tuple[FloatArray, FloatArray | None, IntArray]:
        """Return copies of what belongs to the steps of environments that are not at the same."""
        at = row % len(self.newest), self._envs
        return self._sent[at], None if self.factor is None else self.factor[at], self.newest[at]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was drawn and sent, the arrays themselves."""
        kept = {"sent": self._kept, "newest": self.newest, "factor": self.factor}
        return {key: array for key, array in kept.items() if array is not None}


def _runs(steps: FloatArray) -> list[slice]:
    """Return where numbers that are not 0 stand side by side."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], steps != 0.0, [False])))).tolist()
    return [slice(first, end) for first, end in zip(edges[::2], edges[1::2], strict=True)]
