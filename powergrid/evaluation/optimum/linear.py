"""A linear program that is put together part by part, solved by HiGHS; it knows nothing of what it is about."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: How near to the best the search for whole numbers has to come.
_GAP = 1e-3
#: How far from a whole number one may be.
_WHOLE = 1e-6


class LinearProgram:
    """A linear program; costs are made least."""

    def __init__(self) -> None:
        self._cost: list[FloatArray] = []
        self._bounds: list[tuple[FloatArray, FloatArray]] = []
        self._rows: list[tuple[FloatArray, FloatArray]] = []
        self._parts: list[tuple[IntArray, IntArray, FloatArray]] = []
        self._whole: list[IntArray] = []
        self.n_columns = self.n_rows = 0

    def columns(
        self, cost: FloatArray, low: FloatArray | float, high: FloatArray | float, *, whole: bool = False
    ) -> IntArray:
        """Add unknowns with their costs and bounds, of the shape of the costs; return their numbers in it."""
        numbers = self.n_columns + np.arange(cost.size).reshape(cost.shape)
        self.n_columns += cost.size
        self._cost.append(cost.ravel())
        low, high = (np.broadcast_to(np.asarray(each, dtype=np.float64), cost.shape).ravel() for each in (low, high))
        self._bounds.append((low, high))
        if whole:
            self.make_whole(numbers)
        return numbers

    def make_whole(self, columns: IntArray) -> None:
        """Let unknowns be whole numbers."""
        self._whole += [columns.ravel()] * bool(columns.size)

    def rows(self, low: FloatArray | Sequence[float], high: FloatArray | Sequence[float]) -> IntArray:
        """Add rows with their bounds; return their numbers."""
        numbers = self.n_rows + np.arange(len(low))
        self.n_rows += len(low)
        self._rows.append((np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)))
        return numbers

    def put(self, rows: IntArray, columns: IntArray, values: FloatArray | float) -> None:
        """Put one value in each of some rows."""
        values = np.broadcast_to(np.asarray(values, dtype=np.float64), rows.shape)
        told = values != 0.0
        self._parts.append((rows[told], columns[told], values[told]))

    def solve(self, nodes: int) -> tuple[FloatArray, float] | None:
        """Return the unknowns and their cost.

        Those that shall be whole numbers are so where that is found in a tree of so many nodes, else they are not.
        With no nodes they are not looked for.
        """
        cost, (low, high) = np.concatenate(self._cost), map(np.concatenate, zip(*self._bounds, strict=True))
        rows, columns, values = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        matrix = sparse.csr_array((values, (rows, columns)), shape=(self.n_rows, self.n_columns))
        least, most = map(np.concatenate, zip(*self._rows, strict=True))
        constraint, bounds = LinearConstraint(matrix, least, most), Bounds(low, high)
        found = milp(cost, bounds=bounds, constraints=constraint)
        if found.x is None or not self._whole or not nodes:
            return None if found.x is None else (found.x, float(found.fun))
        whole = np.concatenate(self._whole)
        if np.abs(found.x[whole] - np.rint(found.x[whole])).max() > _WHOLE:
            integrality = np.zeros(self.n_columns, dtype=np.int64)
            integrality[whole] = 1
            # nodes and not seconds: what is found must not depend on how busy a machine is
            limits: Any = {"node_limit": nodes, "mip_rel_gap": _GAP}
            with _no_stdout():
                best = milp(cost, integrality=integrality, bounds=bounds, constraints=constraint, options=limits)
            found = found if best.x is None else best
        return found.x, float(found.fun)


@contextmanager
def _no_stdout() -> Iterator[None]:
    """Let nothing through to standard output meanwhile: HiGHS prints lines there that nobody can switch off."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
