"""Weighted sums of many numbers by group: zones of nodes, agents of devices. One product a step for all groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

IntArray = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

#: Entries up to which a matrix is written out whole: below it a dense product takes less than SciPy's checks do, and
#: beyond it most is zeros: 100 zones of 100,000 nodes would be 0.5 GB that are read in each step.
_MOST_DENSE = 100_000


class GroupSums:
    """Sum numbers by group.

    Args:
        groups: Places of each group's numbers, and the weight of each, shape (n_members,) or one for all.
        n: How many numbers there are.
        dtype: Of the numbers that are summed.

    Attributes:
        of: Returns the sums of numbers of shape (..., n), shape (..., n_groups).
    """

    def __init__(
        self, groups: Sequence[tuple[IntArray, Array | float]], n: int, dtype: npt.DTypeLike = np.float64
    ) -> None:
        places = np.concatenate([np.empty(0, dtype=np.int64), *(places for places, _ in groups)])
        weights = [np.broadcast_to(weight, places.shape) for places, weight in groups]
        ends = np.cumsum([0, *(len(places) for places, _ in groups)])
        entries = np.concatenate([np.empty(0), *weights]).astype(dtype)
        matrix = csr_array((entries, places, ends), shape=(len(groups), n))
        if matrix.shape[0] * matrix.shape[1] <= _MOST_DENSE:
            # Complex numbers of few rows take half as long where each group's weights lie side by side.
            whole = matrix.toarray().T.copy(order="F" if dtype is complex else "C")
            self.of: Callable[[Array], Array] = lambda v: v.dot(whole) if v.ndim == 2 else np.matmul(v, whole)
        else:
            self.of = lambda v: (matrix @ v.reshape(-1, n).T).T.reshape(*v.shape[:-1], -1)
