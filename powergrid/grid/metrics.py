"""What a utility would say of a solved state: violations, loadings, losses, unbalance, zone by zone.

Array functions of a snapshot; knows no prices, agents or rewards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit import Snapshot
from powergrid.grid.network import Network

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_OPERATOR_A = np.exp(2j * np.pi / 3)


class Metrics:
    """Measure snapshots of one network, split into zones of buses.

    Args:
        network: The network.
        zones: Bus indices of each zone; zones may overlap and need not cover the network.
        v_min_pu: Lower voltage limit [pu].
        v_max_pu: Upper voltage limit [pu].
        n_envs: Number of environments in a snapshot.

    Attributes:
        violation_pu: How far each node is outside the limits [pu], shape (n_envs, n_nodes).
        violation_count: Nodes outside the limits, shape (n_envs,).
        violation_sum_pu: Sum of ``violation_pu``, shape (n_envs,).
        overload_count: Branches above their normal rating, shape (n_envs,).
        overload_sum_pu: Sum of what branches carry above 1 pu, shape (n_envs,).
        v_min_pu, v_max_pu: Lowest and highest node voltage [pu], shape (n_envs,).
        worst_node: Node farthest outside the limits, or nearest to one, shape (n_envs,).
        unbalance_pu: Highest negative over positive sequence voltage of a three-phase bus, shape (n_envs,).
        zone_v_min_pu, zone_v_mean_pu, zone_v_max_pu: Voltages by zone [pu], shape (n_envs, n_zones).
        zone_violation_count, zone_violation_pu: Violations by zone, shape (n_envs, n_zones).
        shared_violation_pu: As ``zone_violation_pu``, plus an equal part of the nodes in no zone.
        shared_overload_pu: The same for overloads.
        zone_overload_count: Overloaded branches by zone, shape (n_envs, n_zones).
        zone_loading_pu: Highest loading by zone, shape (n_envs, n_zones).
        zone_kva: Complex power imported by each zone [kVA], shape (n_envs, n_zones).

    Source:
        Limits: ANSI C84.1 range A is 0.95 to 1.05 pu. Unbalance: IEC 61000-4-30, negative-sequence ratio.
    """

    def __init__(
        self, network: Network, zones: Sequence[Sequence[int]], v_min_pu: float, v_max_pu: float, n_envs: int
    ) -> None:
        self.limits = (v_min_pu, v_max_pu)
        n_zones = len(zones)
        node_in = np.array([np.isin(network.node_bus, list(zone)) for zone in zones], dtype=float).reshape(n_zones, -1)
        b = network.branches
        first = b.terminal_bus[np.searchsorted(b.terminal_branch, np.arange(len(b.names)))]
        branch_in = np.array([np.isin(first, list(zone)) for zone in zones], dtype=float).reshape(n_zones, -1)
        self._node_in, self._branch_in = node_in.T.copy(), branch_in.T.copy()
        self._node_share, self._branch_share = _share(self._node_in), _share(self._branch_in)
        self._boundary = np.array([network.boundary(list(zone)) for zone in zones]).reshape(n_zones, -1).T.copy()
        members = [np.flatnonzero(row) for row in node_in]
        if any(len(nodes) == 0 for nodes in members):
            raise ValueError("a zone has no node")
        self._members = np.concatenate(members) if members else np.array([], dtype=np.int64)
        sizes = np.array([len(nodes) for nodes in members], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if n_zones else sizes
        self._per_size = 1.0 / sizes
        self._zone_branches = [np.flatnonzero(row) for row in branch_in]
        self._n_zones = n_zones
        self._three_phase = _three_phase_nodes(network)
        self._to_sequence = np.array([[1, _OPERATOR_A, _OPERATOR_A**2], [1, _OPERATOR_A**2, _OPERATOR_A]]).T / 3.0
        self.take(Snapshot.allocate(n_envs, network, 0))

    def take(self, snapshot: Snapshot) -> None:
        """Measure a snapshot; results stay until the next."""
        v_pu = snapshot.v_pu
        low, high = self.limits
        above = v_pu - high
        below = np.subtract(low, v_pu)
        outside = np.maximum(above, below)
        self.worst_node = outside.argmax(axis=1)
        self.violation_pu = np.maximum(outside, 0.0, out=outside)
        violated = outside > 0.0
        self.violation_count = violated.sum(axis=1)
        self.violation_sum_pu = outside.sum(axis=1)
        self.v_min_pu, self.v_max_pu = v_pu.min(axis=1), v_pu.max(axis=1)
        over = np.maximum(snapshot.loading_pu - 1.0, 0.0)
        overloaded = over > 0.0
        self.overload_count = overloaded.sum(axis=1)
        self.overload_sum_pu = over.sum(axis=1)
        self.unbalance_pu = self._unbalance(snapshot)
        self._take_zones(snapshot, outside, violated, over, overloaded)

    def _take_zones(
        self,
        snapshot: Snapshot,
        outside: FloatArray,
        violated: npt.NDArray[np.bool_],
        over: FloatArray,
        overloaded: npt.NDArray[np.bool_],
    ) -> None:
        members = snapshot.v_pu[:, self._members]
        if self._n_zones:
            self.zone_v_min_pu = np.minimum.reduceat(members, self._starts, axis=1)
            self.zone_v_max_pu = np.maximum.reduceat(members, self._starts, axis=1)
            self.zone_v_mean_pu = np.add.reduceat(members, self._starts, axis=1) * self._per_size
        else:
            self.zone_v_min_pu = self.zone_v_max_pu = self.zone_v_mean_pu = members
        self.zone_violation_count = violated @ self._node_in
        self.zone_violation_pu = outside @ self._node_in
        self.shared_violation_pu = outside @ self._node_share
        self.zone_overload_count = overloaded @ self._branch_in
        self.shared_overload_pu = over @ self._branch_share
        self.zone_loading_pu = np.stack(
            [snapshot.loading_pu[:, branches].max(axis=1, initial=0.0) for branches in self._zone_branches], axis=1
        ) if self._n_zones else members  # fmt: skip
        self.zone_kva = snapshot.terminal_kva @ self._boundary

    def _unbalance(self, snapshot: Snapshot) -> FloatArray:
        if not len(self._three_phase):
            return np.zeros(len(snapshot.v))
        sequence = np.abs(snapshot.v[:, self._three_phase] @ self._to_sequence)
        ratio = sequence[..., 1] / np.maximum(sequence[..., 0], 1e-9)
        return np.asarray(ratio.max(axis=1))


def _share(membership: FloatArray) -> FloatArray:
    """Divide what is in no zone equally among the zones, shape kept (n_things, n_zones)."""
    if not membership.shape[1]:
        return membership
    shared = membership.copy()
    shared[membership.sum(axis=1) == 0.0] = 1.0 / membership.shape[1]
    return shared


def _three_phase_nodes(network: Network) -> IntArray:
    """Give the entries of ``Snapshot.v`` of each bus with phases 1, 2 and 3, shape (n_buses, 3)."""
    found: dict[int, dict[int, int]] = {}
    for node, (bus, phase) in enumerate(zip(network.node_bus.tolist(), network.node_phase.tolist(), strict=True)):
        found.setdefault(bus, {})[phase] = node + 1
    rows = [[phases[1], phases[2], phases[3]] for phases in found.values() if {1, 2, 3} <= phases.keys()]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)
