"""One solved state of n environments as arrays, and how it is read off their node voltages and element powers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.admittance import BranchLayout
from powergrid.grid.feeder.network import Network

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass
class Snapshot:
    """The solved state of n environments; the first axis is the environment.

    Attributes:
        v_pu: Node voltage magnitudes [pu], shape (n_envs, n_nodes).
        v: Node voltage phasors with ground first [V], shape (n_envs, n_nodes + 1).
        loading_pu: Branch current over normal rating, 0 where unrated, shape (n_envs, n_branches).
        terminal_kva: Complex power into each branch terminal [kVA], shape (n_envs, n_terminals).
        device_kva: Complex power each device delivered into the grid [kVA], shape (n_envs, n_devices).
        losses_kw: Losses of all delivering elements [kW], shape (n_envs,).
        source_kva: Complex power imported from the feeder's own sources [kVA], shape (n_envs,).
        forming_kva: Complex power that each microgrid's forming source delivers [kVA], shape (n_envs, n_forming).
        converged: Whether the last solve converged, shape (n_envs,).
        conductor_kva: Complex power into each conductor of each branch terminal [kVA], shape (n_envs, n_rows); no
            columns where nobody asked for it.
    """

    v_pu: FloatArray
    v: ComplexArray
    loading_pu: FloatArray
    terminal_kva: ComplexArray
    device_kva: ComplexArray
    losses_kw: FloatArray
    source_kva: ComplexArray
    forming_kva: ComplexArray
    converged: BoolArray
    conductor_kva: ComplexArray

    @classmethod
    def allocate(cls, n_envs: int, network: Network, n_devices: int, *, conductors: bool = False) -> Snapshot:
        """Make a snapshot of zeros of the right shapes; ``conductors`` asks for the flows conductor by conductor."""
        n_nodes, b = len(network.nodes), network.branches
        return cls(
            v_pu=np.zeros((n_envs, n_nodes)),
            v=np.zeros((n_envs, n_nodes + 1), dtype=complex),
            loading_pu=np.zeros((n_envs, len(b.names))),
            terminal_kva=np.zeros((n_envs, len(b.terminal_rows)), dtype=complex),
            device_kva=np.zeros((n_envs, n_devices), dtype=complex),
            losses_kw=np.zeros(n_envs),
            source_kva=np.zeros(n_envs, dtype=complex),
            forming_kva=np.zeros((n_envs, sum(bool(m.source) for m in network.microgrids)), dtype=complex),
            converged=np.zeros(n_envs, dtype=bool),
            conductor_kva=np.zeros((n_envs, len(b.row_node) if conductors else 0), dtype=complex),
        )

    def rows(self, first: int, last: int) -> Snapshot:
        """Return some environments' part of it, the same memory."""
        return Snapshot(**{name: array[first:last] for name, array in vars(self).items()})


class SnapshotReader:
    """Fill snapshots of n solved circuits of one feeder, all in one pass.

    What flows in branches is one product: the matrix holds the conjugate admittances of all of them in 1/1000 S, so
    from conjugate voltages come conjugate currents in kA, and voltage times current is kVA without another pass.

    Args:
        network: The feeder's description; the phase currents of a branch's first terminal count against its rating.
        starts: First conductor of each element whose power is read: the feeder's own sources, forming sources, devices.
        n_sources: Number of the feeder's own sources.
        n_forming: Number of forming sources.
        n: Number of circuits.
    """

    def __init__(
        self, network: Network, starts: Sequence[int] | IntArray, n_sources: int, n_forming: int, n: int
    ) -> None:
        self._starts, self._n_forming = np.append(0, starts[n_sources:]), n_forming  # the feeder's sources as one
        # of the full shape: a product that broadcasts takes longer
        self._scale = np.tile(1.0 / network.v_base, (n, 1))
        self._v_pu = np.zeros((n, len(network.nodes)))
        self._bind_branches(network, n)

    def _bind_branches(self, network: Network, n: int) -> None:
        """Lay out the matrix of branches, and where each branch's terminals and phases are among its rows."""
        branches = network.branches
        layout, width, n_rows = BranchLayout(branches), len(network.nodes) + 1, len(branches.row_node)
        columns, row_starts = layout.columns, layout.row_starts
        starts = np.append(0, _repeat(row_starts[1:], n, len(columns)))
        entries = np.zeros(n * len(columns), dtype=complex)
        from scipy.sparse import csr_array  # only who reads needs it: a trial of a foreign feeder does not

        self._matrix = csr_array((entries, _repeat(columns, n, width), starts), shape=(n * n_rows, n * width))
        self._entries = self._matrix.data.reshape(n, -1)
        self._row_node = _repeat(branches.row_node, n, width)
        self._v_conj = np.empty(n * width, dtype=complex)
        self._power = np.zeros(n * n_rows + 1, dtype=complex)  # the last one stays 0: what short terminals lack
        self._conductor_kva: ComplexArray = self._power[:-1]
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

    def write_admittances(self, circuit: int, entries: ComplexArray) -> None:
        """Take over those of a circuit's branches, as :class:`Admittance` keeps them, shape (n_entries,)."""
        self._entries[circuit] = entries

    def set_ratings(self, circuit: int, norm_amps: FloatArray) -> None:
        """Reckon a circuit's loadings by other ratings [A], shape (n_branches,); unrated branches stay so."""
        per_circuit = self._per_rating.reshape(len(self._entries), -1)
        per_circuit[circuit] = 1000.0 / norm_amps[self._rated[: per_circuit.shape[1]]]

    def magnitudes(self, v: ComplexArray) -> FloatArray:
        """Return node voltage magnitudes [pu], shape (n_envs, n_nodes); overwritten by the next."""
        np.absolute(v[:, 1:], out=self._v_pu)
        return np.multiply(self._v_pu, self._scale, out=self._v_pu)

    def read(
        self,
        snapshot: Snapshot,
        v: ComplexArray,
        v_pu: FloatArray,
        delivered: ComplexArray,
        forming: Sequence[IntArray],
    ) -> None:
        """Fill a snapshot.

        Args:
            snapshot: Is filled.
            v: Node voltages, ground first [V], shape (n_envs, n_nodes + 1).
            v_pu: Their magnitudes, see :meth:`magnitudes`.
            delivered: What elements deliver to the circuit, conductor by conductor [kVA], shape (n_envs, n_conductors).
            forming: 1 where a forming source is on, of each circuit, shape (n_forming,).
        """
        snapshot.v[...], snapshot.v_pu[...] = v, v_pu
        if snapshot.terminal_kva.size:
            self._read_flows(v.reshape(-1), snapshot.terminal_kva.reshape(-1), snapshot.loading_pu.reshape(-1))
        if snapshot.conductor_kva.size:
            snapshot.conductor_kva.reshape(-1)[...] = self._conductor_kva
        np.add.reduce(snapshot.terminal_kva.real, axis=1, out=snapshot.losses_kw)
        of_elements, first = np.add.reduceat(delivered, self._starts, axis=1), 1 + self._n_forming
        snapshot.device_kva[...], snapshot.source_kva[...] = of_elements[:, first:], of_elements[:, 0]
        if self._n_forming:  # exactly 0 from those that are open
            np.multiply(of_elements[:, 1:first], np.array(forming), out=snapshot.forming_kva)

    def _read_flows(self, v: ComplexArray, terminal_kva: ComplexArray, loading_pu: FloatArray) -> None:
        """Fill in the power into each branch terminal and the loading of each branch that has a rating, all flat."""
        # SciPy checks 1.8 us long before it multiplies, 1.2 % of a step of ieee13_mg and less of any other
        current = self._matrix @ np.conjugate(v, out=self._v_conj)
        power = v.take(self._row_node, None, self._conductor_kva, "clip")
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
