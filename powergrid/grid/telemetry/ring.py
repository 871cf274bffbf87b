"""What was sent and what is told of it: readings wait in one array, and a step takes all that has arrived in one go."""

from __future__ import annotations

from collections.abc import Sequence
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
        middles: What may stand for numbers that are missing, shape (n_middles, n_sent).
        n_marks: How many numbers are told besides, of each step known when an episode starts.
        width: How many numbers are told.
        inexact: Whether errors are multiplied.
        rounding: Multiples that numbers are rounded to, one after the other, 0 for none, each shape (n_sent,).

    Attributes:
        values: Put here what is measured, before :meth:`tell`, shape (n_envs, n_sent).
        marks: What is told besides, shape (n_envs, n_times, n_marks).
        factor: What is multiplied, shape (n_envs, n_times, n_sent); None where nothing is.
        newest: What is told in each step: a place in what is kept, shape (n_envs, n_times, width).
    """

    def __init__(
        self,
        n_envs: int,
        n_times: int,
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
        self._sent = self._kept[: self._middles_at].reshape(n_rows, n_sent)
        self.marks = self._kept[self._marks_at :].reshape(n_envs, n_times, n_marks)
        self.newest = np.zeros((n_envs, n_times, width), dtype=np.int64)
        self._newest = self.newest.reshape(n_rows, width)
        self.factor = np.ones((n_envs, n_times, n_sent)) if inexact else None
        self._factor = None if self.factor is None else self.factor.reshape(n_rows, n_sent)
        self.values, self._places = np.zeros((n_envs, n_sent)), np.zeros((n_envs, width), dtype=np.int64)
        self._rounded = [
            (self.values[:, part], np.tile(steps[part], (n_envs, 1))) for steps in rounding for part in _runs(steps)
        ]
        self._alone, self._told = n_envs == 1, np.zeros((n_envs, width))

    def places_of(self, env: int, step: IntArray, column: IntArray) -> IntArray:
        """Return where lie what one environment sent in some steps, given with columns that fit them."""
        places: IntArray = (env * self.newest.shape[1] + step) * self.values.shape[1] + column
        return places

    def middles_of(self, which: int, column: IntArray) -> IntArray:
        """Return where lies what stands for columns that are missing."""
        places: IntArray = self._middles_at + which * self.values.shape[1] + column
        return places

    def marks_of(self, env: int) -> IntArray:
        """Return where lies what is told besides in one environment, shape (n_times, n_marks)."""
        size = self.marks[env].size
        places: IntArray = self._marks_at + env * size + np.arange(size).reshape(self.marks.shape[1:])
        return places

    def tell(self, row: IntArray) -> FloatArray:
        """Return what is told in a step in which ``values`` are measured, which are written over; reused at each call.

        Args:
            row: The step in the rows of all environments laid end to end, shape (n_envs,).
        """
        values = self.values
        if self._factor is not None:
            np.multiply(values, self._factor.take(row, 0, None, "clip"), out=values)
        for own, steps in self._rounded:
            np.rint(np.divide(own, steps, out=own), out=own)
            np.multiply(own, steps, out=own)
        # rows by an array take three times as long
        self._sent[row.item() if self._alone else row] = values
        places = self._newest.take(row, 0, self._places, "clip")
        return self._kept.take(places, None, self._told, "clip")

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was drawn and sent, the arrays themselves."""
        kept = {"sent": self._kept, "newest": self.newest, "factor": self.factor}
        return {key: array for key, array in kept.items() if array is not None}


def _runs(steps: FloatArray) -> list[slice]:
    """Return where numbers that are not 0 stand side by side."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], steps != 0.0, [False])))).tolist()
    return [slice(first, end) for first, end in zip(edges[::2], edges[1::2], strict=True)]
