"""Currents, loadings and terminal powers of all branches of n circuits from their node voltages, in one product.

Knows admittances, not the engine: of a circuit whose tap, step or switch moved they are handed in again.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from powergrid.grid.feeder.network import Branches

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class BranchLayout:
    """Where the admittances of one circuit's branches lie in a flat array, block after block.

    Args:
        branches: The branch table.

    Attributes:
        columns: Node of each entry, ground 0, shape (n_entries,).
        row_starts: First entry of each row, and the number of all, shape (n_rows + 1,).
    """

    def __init__(self, branches: Branches) -> None:
        n_rows = len(branches.row_node)
        sizes = np.diff(np.append(branches.branch_rows, n_rows))
        ends = np.cumsum(sizes * sizes)
        self._slices = [slice(int(end - size * size), int(end)) for end, size in zip(ends, sizes, strict=True)]
        self.columns = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.int64)
        for first, size, entries in zip(branches.branch_rows.tolist(), sizes.tolist(), self._slices, strict=True):
            self.columns[entries] = np.tile(branches.row_node[first : first + size], size)
        self.row_starts = np.concatenate([[0], np.cumsum(np.repeat(sizes, sizes))])

    def entries_of(self, branch: int) -> slice:
        """Return the places of a branch's entries."""
        return self._slices[branch]

    def nodes_of(self, branch: int) -> frozenset[int]:
        """Return the nodes of a branch, ground left out."""
        return frozenset(self.columns[self._slices[branch]].tolist()) - {0}

    def places_of(self, branch: int, which: BoolArray) -> list[tuple[int, int]]:
        """Return row and column in the circuit's matrix of some of a branch's entries, those to ground left out."""
        size = math.isqrt(len(which))
        nodes = self.columns[self._slices[branch]][:size].tolist()
        pairs = itertools.product(nodes, nodes)
        return [pair for pair, wanted in zip(pairs, which.tolist(), strict=True) if wanted and all(pair)]


class BranchFlows:
    """Turn node voltages into what flows in every branch of n circuits of one feeder.

    The matrix holds the conjugate admittances in 1/1000 S: from conjugate voltages it gives conjugate currents
    in kA, so that voltage times current is kVA without another pass over the rows.

    Args:
        branches: The branch table; the phase currents of a branch's first terminal count against its rating.
        n_nodes: Number of nodes of a circuit, ground not counted.
        n_circuits: Number of circuits.

    Attributes:
        conductor_kva: Complex power into each conductor of each terminal at the last read [kVA], shape
            (n_circuits * n_rows,).
    """

    def __init__(self, branches: Branches, n_nodes: int, n_circuits: int = 1) -> None:
        layout, n, width, n_rows = BranchLayout(branches), n_circuits, n_nodes + 1, len(branches.row_node)
        columns, row_starts = layout.columns, layout.row_starts
        starts = np.append(0, _repeat(row_starts[1:], n, len(columns)))
        entries = np.zeros(n * len(columns), dtype=complex)
        self._matrix = csr_array((entries, _repeat(columns, n, width), starts), shape=(n * n_rows, n * width))
        self._entries = self._matrix.data.reshape(n, -1)
        self._row_node = _repeat(branches.row_node, n, width)
        self._v_conj = np.empty(n * width, dtype=complex)
        self._power = np.zeros(n * n_rows + 1, dtype=complex)  # the last one stays 0: what short terminals lack
        self.conductor_kva: ComplexArray = self._power[:-1]
        firsts = _repeat(branches.terminal_rows, n, n_rows)
        sizes = np.diff(np.append(firsts, n * n_rows))
        conductor = np.arange(sizes.max(initial=1))[:, None]
        self._terminal_rows = np.where(conductor < sizes, firsts + conductor, n * n_rows)
        self._parts = np.empty(self._terminal_rows.shape, dtype=complex)
        rated = np.flatnonzero(branches.norm_amps > 0.0)
        first, phases = branches.branch_rows[rated], np.maximum(branches.phases[rated], 1)
        # one row for each phase; a branch with fewer phases shows its last one again
        phase = np.minimum(np.arange(phases.max(initial=1))[:, None], phases - 1)
        self._phase_rows = np.stack([_repeat(rows, n, n_rows) for rows in (first + phase).astype(np.int64)])
        self._rated = _repeat(rated, n, len(branches.names))
        self._per_rating = np.tile(1000.0 / branches.norm_amps[rated], n)
        self._phase_ka, self._amps = np.empty(self._phase_rows.shape, dtype=complex), np.empty(self._phase_rows.shape)
        self._loading = np.empty(len(self._per_rating))

    def write(self, circuit: int, entries: ComplexArray) -> None:
        """Take over a circuit's admittances, as :class:`Admittance` keeps them, shape (n_entries,)."""
        self._entries[circuit] = entries

    def read(self, v: ComplexArray, terminal_kva: ComplexArray, loading_pu: FloatArray) -> None:
        """Fill in the power into each branch terminal and the loading of each branch.

        Args:
            v: Node voltages with ground first [V], shape (n_circuits, n_nodes + 1).
            terminal_kva: Filled with the complex power into each terminal [kVA], shape (n_circuits, n_terminals).
            loading_pu: Filled with current over normal rating where there is one, shape (n_circuits, n_branches).
        """
        if not terminal_kva.size:
            return
        v, terminal_kva, loading_pu = v.reshape(-1), terminal_kva.reshape(-1), loading_pu.reshape(-1)
        # SciPy checks 1.8 us long before it multiplies, 1.2 % of a step of ieee13_mg and less of any other
        current = self._matrix @ np.conjugate(v, out=self._v_conj)
        power = v.take(self._row_node, None, self.conductor_kva, "clip")
        np.multiply(power, current, out=power)
        # conductor by conductor, in this order: 1.1 us less than a product with ones on one ieee13
        parts = self._power.take(self._terminal_rows, None, self._parts, "clip")
        np.add.reduce(parts, axis=0, out=terminal_kva)
        if len(self._loading):
            np.absolute(current.take(self._phase_rows, None, self._phase_ka, "clip"), out=self._amps)
            np.maximum.reduce(self._amps, axis=0, out=self._loading)
            if len(self._rated) == len(loading_pu):
                np.multiply(self._loading, self._per_rating, out=loading_pu)
            else:
                loading_pu[self._rated] = np.multiply(self._loading, self._per_rating, out=self._loading)


def _repeat(index: IntArray, n: int, step: int) -> IntArray:
    """Return an index n times, each time a step further on, one after the other."""
    repeated: IntArray = np.add.outer(np.arange(n) * step, index).reshape(-1)
    return repeated
