"""Currents, loadings, losses and terminal powers of all branches from the node voltages, in one product.

Knows admittances, not the engine: a branch whose tap, step or switch moved is handed in again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import _sparsetools, csr_array

from powergrid.grid.feeder.network import Branches

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
IntArray = npt.NDArray[np.int64]


class BranchFlows:
    """Turn node voltages into what flows in every branch.

    The matrix holds the conjugate admittances in 1/1000 S: from conjugate voltages it gives conjugate currents
    in kA, so that voltage times current is kVA without another pass over the rows.

    Args:
        branches: The branch table.
        yprims: Primitive admittance matrix of each branch [S], in the order of the table.
        n_nodes: Number of nodes, ground not counted.

    Attributes:
        conductor_kva: Complex power into each conductor of each terminal at the last read [kVA], shape (n_rows,).
    """

    def __init__(self, branches: Branches, yprims: Sequence[ComplexArray], n_nodes: int) -> None:
        self._branches, self._n_nodes, n_rows = branches, n_nodes, len(branches.row_node)
        sizes = np.array([len(block) for block in yprims], dtype=np.int64)
        ends = np.cumsum(sizes * sizes)
        self._slices = [slice(int(end - size * size), int(end)) for end, size in zip(ends, sizes, strict=True)]
        columns = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.int64)
        for first, size, entries in zip(branches.branch_rows.tolist(), sizes.tolist(), self._slices, strict=True):
            columns[entries] = np.tile(branches.row_node[first : first + size], size)
        row_starts = np.concatenate([[0], np.cumsum(np.repeat(sizes, sizes))])
        self._pattern = columns, row_starts
        self._bind(np.zeros((1, len(columns)), dtype=complex))
        for branch, block in enumerate(yprims):
            self.refresh(branch, self.per_kv(block))
        self._v_conj = np.empty(n_nodes + 1, dtype=complex)
        self.conductor_kva: ComplexArray = np.empty(n_rows, dtype=complex)
        self._conductor_ka: ComplexArray = np.empty(n_rows, dtype=complex)
        self._row_node = branches.row_node
        self._terminal_rows = np.append(branches.terminal_rows, n_rows)
        self._bind_sums()
        self.set_ratings(branches)

    def _bind(self, admittances: ComplexArray) -> None:
        """Make the matrix of circuits, block by block, of their admittances, shape (n_circuits, n_entries)."""
        n, (columns, row_starts) = len(admittances), self._pattern
        width, data = self._n_nodes + 1, admittances.reshape(-1)
        starts = np.append(0, _repeat(row_starts[1:], n, len(columns)))
        shape = (n * (len(row_starts) - 1), n * width)
        self._matrix = csr_array((data, _repeat(columns, n, width), starts), shape=shape)
        self._matrix.data = data  # the very memory: what refreshes one refreshes the other

    def _bind_sums(self) -> None:
        """Write the sums over terminals as a product with ones, which is faster than to reduce them row by row."""
        n_rows = int(self._terminal_rows[-1])
        self._sums = self._terminal_rows, np.arange(n_rows), np.ones(n_rows, dtype=complex)

    @classmethod
    def stack(cls, parts: Sequence[BranchFlows]) -> BranchFlows:
        """Return the flows of several circuits of one feeder, read in one product.

        Args:
            parts: The flows of each circuit; what refreshes one of them refreshes the whole.
        """
        first, n = parts[0], len(parts)
        whole = object.__new__(cls)
        vars(whole).update(vars(first))
        admittances = np.stack([part._matrix.data for part in parts])
        whole._bind(admittances)
        for part, row in zip(parts, admittances, strict=True):
            part._matrix.data = row
        n_rows, n_nodes = len(first._row_node), first._n_nodes + 1
        whole._v_conj = np.empty(n * n_nodes, dtype=complex)
        whole.conductor_kva, whole._conductor_ka = np.empty((2, n * n_rows), dtype=complex)
        whole._row_node = _repeat(first._row_node, n, n_nodes)
        whole._terminal_rows = np.append(_repeat(first._terminal_rows[:-1], n, n_rows), n * n_rows)
        whole._bind_sums()
        whole._rated = _repeat(first._rated, n, len(first._branches.names))
        whole._bind_loadings(
            np.stack([_repeat(rows, n, n_rows) for rows in first._loading_rows]), np.tile(first._per_rating, n)
        )
        return whole

    def set_ratings(self, branches: Branches) -> None:
        """Take over the table's normal ratings; the phase currents of a branch's first terminal count against it."""
        self._rated = rated = np.flatnonzero(branches.norm_amps > 0.0)
        first, phases = branches.branch_rows[rated], np.maximum(branches.phases[rated], 1)
        # one row for each phase; a branch with fewer phases shows its last one again
        phase = np.minimum(np.arange(phases.max(initial=1))[:, None], phases - 1)
        self._bind_loadings((first + phase).astype(np.int64), 1000.0 / branches.norm_amps[rated])

    def _bind_loadings(self, rows: IntArray, per_rating: FloatArray) -> None:
        """Take over the rows of each phase's current, shape (n_phases, n), and what makes amperes a loading, (n,)."""
        self._loading_rows, self._per_rating = rows, per_rating
        self._current, self._amps = np.empty(rows.shape, dtype=complex), np.empty(rows.shape)
        self._loading = np.empty(len(per_rating))

    @staticmethod
    def per_kv(yprim: ComplexArray) -> ComplexArray:
        """Return a branch's admittance [S] as :meth:`refresh` takes it, which is how it stands in the matrix."""
        entries: ComplexArray = 1e-3 * yprim.conj().ravel()
        return entries

    def refresh(self, branch: int, entries: ComplexArray) -> None:
        """Take over a branch's changed admittance, as :meth:`per_kv` gives it."""
        self._matrix.data[self._slices[branch]] = entries

    def find_ties(self, branches: Sequence[int]) -> list[IntArray]:
        """Find where others could tie the nodes of some branches to each other.

        Args:
            branches: Indices of the branches.

        Returns:
            For each pair of nodes of one of these branches the places of the matrix, in any but them, that tie the
            pair; for :meth:`has_ties`.
        """
        n_columns, size = self._matrix.shape[1], np.diff(self._matrix.indptr)
        pair = np.repeat(self._row_node, size) * n_columns + self._matrix.indices
        of_others = np.ones(len(pair), dtype=bool)
        wanted = [np.empty(0, dtype=np.int64)]
        for branch in branches:
            of_others[self._slices[branch]] = False
            wanted.append(pair[self._slices[branch]])
        needed = np.unique(np.concatenate(wanted))
        needed = needed[(needed // n_columns > 0) & (needed % n_columns > 0)]  # none is to ground
        places = np.flatnonzero(of_others & np.isin(pair, needed))
        return [places[pair[places] == each] for each in needed.tolist()]

    def has_ties(self, ties: Sequence[IntArray]) -> bool:
        """Whether at present some other branch ties each pair of nodes that :meth:`find_ties` gave places for."""
        return all(self._matrix.data[places].any() for places in ties)

    def read(self, v: ComplexArray, terminal_kva: ComplexArray, loading_pu: FloatArray) -> None:
        """Fill in the power into each branch terminal and the loading of each branch.

        Args:
            v: Node voltages with ground first [V], shape (n_nodes + 1,); of stacked circuits one row each, as of all.
            terminal_kva: Filled with the complex power into each terminal [kVA], shape (n_terminals,).
            loading_pu: Filled with current over normal rating where there is one, shape (n_branches,).
        """
        if not terminal_kva.size:
            return
        v, terminal_kva, loading_pu = v.reshape(-1), terminal_kva.reshape(-1), loading_pu.reshape(-1)
        np.conjugate(v, out=self._v_conj)
        current, matrix = self._conductor_ka, self._matrix
        current.fill(0.0)
        # what `matrix @ v` comes to after several microseconds of checks
        n_rows, n_columns = matrix.shape
        _sparsetools.csr_matvec(n_rows, n_columns, matrix.indptr, matrix.indices, matrix.data, self._v_conj, current)
        power = v.take(self._row_node, None, self.conductor_kva, "clip")
        np.multiply(power, current, out=power)
        terminal_kva.fill(0.0)
        starts, conductors, ones = self._sums
        _sparsetools.csr_matvec(len(terminal_kva), n_rows, starts, conductors, ones, power, terminal_kva)
        if len(self._loading):
            np.absolute(current.take(self._loading_rows, None, self._current, "clip"), out=self._amps)
            np.maximum.reduce(self._amps, axis=0, out=self._loading)
            if len(self._rated) == len(loading_pu):
                np.multiply(self._loading, self._per_rating, out=loading_pu)
            else:
                loading_pu[self._rated] = np.multiply(self._loading, self._per_rating, out=self._loading)


def _repeat(index: IntArray, n: int, step: int) -> IntArray:
    """Return an index n times, each time a step further on, one after the other."""
    repeated: IntArray = np.add.outer(np.arange(n) * step, index).reshape(-1)
    return repeated
