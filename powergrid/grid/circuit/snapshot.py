"""One solved state of n environments as arrays, and how it is read off their node voltages and element powers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.flows import BranchFlows
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

    Args:
        network: The feeder's description.
        starts: First conductor of each element whose power is read: the feeder's own sources, forming sources, devices.
        n_sources: Number of the feeder's own sources.
        n_forming: Number of forming sources.
        n_envs: Number of circuits.

    Attributes:
        flows: What flows in the circuits' branches.
    """

    def __init__(
        self, network: Network, starts: Sequence[int] | IntArray, n_sources: int, n_forming: int, n_envs: int
    ) -> None:
        self.flows = BranchFlows(network.branches, len(network.nodes), n_envs)
        self._starts, self._n_forming = np.append(0, starts[n_sources:]), n_forming  # the feeder's sources as one
        # of the full shape: a product that broadcasts takes longer
        self._scale = np.tile(1.0 / network.v_base, (n_envs, 1))
        self._v_pu = np.zeros((n_envs, len(network.nodes)))

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
        self.flows.read(snapshot.v, snapshot.terminal_kva, snapshot.loading_pu)
        if snapshot.conductor_kva.size:
            snapshot.conductor_kva.reshape(-1)[...] = self.flows.conductor_kva
        np.add.reduce(snapshot.terminal_kva.real, axis=1, out=snapshot.losses_kw)
        of_elements, first = np.add.reduceat(delivered, self._starts, axis=1), 1 + self._n_forming
        snapshot.device_kva[...], snapshot.source_kva[...] = of_elements[:, first:], of_elements[:, 0]
        if self._n_forming:  # exactly 0 from those that are open
            np.multiply(of_elements[:, 1:first], np.array(forming), out=snapshot.forming_kva)
