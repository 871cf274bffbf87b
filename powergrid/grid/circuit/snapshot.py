"""One solved state of n environments as arrays; plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powergrid.grid.feeder.network import Network

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
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
