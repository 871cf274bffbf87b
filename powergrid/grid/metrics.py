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
BoolArray = npt.NDArray[np.bool_]

_OPERATOR_A = np.exp(2j * np.pi / 3)


class Metrics:
    """Measure snapshots of one network, split into zones of buses.

    Args:
        network: The network.
        zones: Bus indices of each zone; zones may overlap and need not cover the network.
        v_min_pu: Lower voltage limit [pu].
        v_max_pu: Upper voltage limit [pu].
        n_envs: Number of environments in a snapshot.
        phases: Phases that each zone is limited to, empty for all; None where no zone is limited.

    Attributes:
        violation_pu: How far each node is outside the limits [pu], shape (n_envs, n_nodes).
        violation_count: Nodes outside the limits, shape (n_envs,).
        violation_sum_pu: Sum of ``violation_pu``, shape (n_envs,).
        overload_count: Branches above their normal rating, shape (n_envs,).
        overload_sum_pu: Sum of what branches carry above 1 pu, shape (n_envs,).
        v_min_pu, v_max_pu: Lowest and highest node voltage [pu], shape (n_envs,).
        zone_v_min_pu, zone_v_mean_pu, zone_v_max_pu: Voltages by zone [pu], shape (n_envs, n_zones).
        zone_violation_count, zone_violation_pu: Violations by zone, shape (n_envs, n_zones).
        shared_violation_pu: As ``zone_violation_pu``, plus an equal part of the nodes in no zone.
        shared_overload_pu: The same for overloads.
        zone_overload_count: Overloaded branches by zone, shape (n_envs, n_zones).
        zone_loading_pu: Highest loading by zone, shape (n_envs, n_zones).
        zone_kva: Complex power imported by each zone [kVA], shape (n_envs, n_zones).
        dead: Nodes that nothing feeds, which violate no limit and count in no voltage of a zone that has others, shape
            (n_envs, n_nodes); None where all are always fed.

    Source:
        Limits: ANSI C84.1 range A is 0.95 to 1.05 pu. Unbalance: IEC 61000-4-30, negative-sequence ratio.
    """

    def __init__(
        self,
        network: Network,
        zones: Sequence[Sequence[int]],
        v_min_pu: float,
        v_max_pu: float,
        n_envs: int,
        phases: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.limits = (v_min_pu, v_max_pu)
        self._low, self._high = _node_limits(network, v_min_pu, v_max_pu)
        self.dead: BoolArray | None = None
        self._n_zones = n_zones = len(zones)
        n_nodes, b = len(network.nodes), network.branches
        phases = [()] * n_zones if phases is None else [tuple(own) for own in phases]
        node_in = np.zeros((n_zones, n_nodes))
        first = b.terminal_bus[np.searchsorted(b.terminal_branch, np.arange(len(b.names)))]
        branch_in = np.array([np.isin(first, list(zone)) for zone in zones], dtype=float)
        branch_in = branch_in.reshape(n_zones, len(b.names))
        for zone, (buses, own) in enumerate(zip(zones, phases, strict=True)):
            node_in[zone, network.nodes_within(buses, own)] = 1.0
            if own:
                branch_in[zone] *= _carries(network, own)
        if not node_in.any(axis=1).all():
            raise ValueError("a zone has no node")
        # one product with these gives zones, zones with their part of what is in none, and the network
        self._node_sums = _sum_matrix(node_in, n_nodes)
        self._branch_sums = _sum_matrix(branch_in, len(b.names))
        self._intake = np.array([network.intake(list(zone)) for zone in zones])
        self._intake = self._intake.reshape(n_zones, len(b.terminal_bus)).T.copy()
        self._limited = np.array([zone for zone in range(n_zones) if phases[zone]], dtype=np.int64)
        conductors = [network.conductor_intake(list(zones[zone]), phases[zone]) for zone in self._limited]
        self._conductor_intake = np.array(conductors, dtype=complex).T.copy()
        nodes = [np.flatnonzero(row) for row in (*node_in, np.ones(n_nodes))]
        live = [np.setdiff1d(own, network.neutrals) for own in nodes]
        self._members, self._starts, sizes = _chain([a if len(a) else b for a, b in zip(live, nodes, strict=True)])
        self._per_size = 1.0 / sizes
        branches = [np.flatnonzero(row) for row in branch_in]
        self._loaded = np.array([i for i, group in enumerate(branches) if len(group)], dtype=np.int64)
        self._loaded_branches, self._loaded_starts, _ = _chain([branches[i] for i in self._loaded])
        self.zone_loading_pu = np.zeros((n_envs, n_zones))
        self._outside = np.zeros((2, n_envs, n_nodes))  # amounts, then counts
        self._over = np.zeros((2, n_envs, len(b.names)))
        self._outside_rows = self._outside.reshape(2 * n_envs, -1)  # two axes: a product of three is slower
        self._over_rows = self._over.reshape(2 * n_envs, -1)
        self._three_phase = _three_phase_nodes(network)
        self._to_sequence = np.array([[1, _OPERATOR_A, _OPERATOR_A**2], [1, _OPERATOR_A**2, _OPERATOR_A]]).T / 3.0
        self.take(Snapshot.allocate(n_envs, network, 0, conductors=bool(len(self._limited))))

    def take(self, snapshot: Snapshot) -> None:
        """Measure a snapshot; results stay until the next."""
        v_pu, n_zones = snapshot.v_pu, self._n_zones
        self._snapshot = snapshot
        beyond = np.maximum(v_pu - self._high, self._low - v_pu)
        dead = self.dead if self.dead is not None and self.dead.any() else None
        if dead is not None:
            beyond[dead] = -self.limits[0]
        self._beyond = beyond
        amount, count = self._outside
        np.maximum(beyond, 0.0, out=amount)
        np.greater(beyond, 0.0, out=count)
        self.violation_pu = amount
        sums = self._outside_rows @ self._node_sums
        amounts, counts = sums[: len(v_pu)], sums[len(v_pu) :]
        self.zone_violation_pu, self.shared_violation_pu = amounts[:, :n_zones], amounts[:, n_zones:-1]
        self.violation_sum_pu = amounts[:, -1]
        self.zone_violation_count, self.violation_count = counts[:, :n_zones], counts[:, -1]
        amount, count = self._over
        np.maximum(np.subtract(snapshot.loading_pu, 1.0, out=amount), 0.0, out=amount)
        np.greater(amount, 0.0, out=count)
        sums = self._over_rows @ self._branch_sums
        amounts, counts = sums[: len(v_pu)], sums[len(v_pu) :]
        self.shared_overload_pu, self.overload_sum_pu = amounts[:, n_zones:-1], amounts[:, -1]
        self.zone_overload_count, self.overload_count = counts[:, :n_zones], counts[:, -1]
        self._take_extremes(snapshot)
        if dead is not None:
            self._leave_out(snapshot.v_pu, dead)
        self.zone_kva = snapshot.terminal_kva @ self._intake
        if len(self._limited):
            self.zone_kva[:, self._limited] = snapshot.conductor_kva @ self._conductor_intake

    def _take_extremes(self, snapshot: Snapshot) -> None:
        members = snapshot.v_pu.take(self._members, axis=1)
        lowest = np.minimum.reduceat(members, self._starts, axis=1)
        highest = np.maximum.reduceat(members, self._starts, axis=1)
        means = np.add.reduceat(members, self._starts, axis=1)
        means *= self._per_size
        self.zone_v_min_pu, self.v_min_pu = lowest[:, :-1], lowest[:, -1]
        self.zone_v_max_pu, self.v_max_pu = highest[:, :-1], highest[:, -1]
        self.zone_v_mean_pu = means[:, :-1]
        if len(self._loaded):
            loading = snapshot.loading_pu.take(self._loaded_branches, axis=1)
            self.zone_loading_pu[:, self._loaded] = np.maximum.reduceat(loading, self._loaded_starts, axis=1)

    def _leave_out(self, v_pu: FloatArray, dead: BoolArray) -> None:
        """Take lowest and mean voltages anew without the nodes that nothing feeds; 0 where a zone has no other."""
        fed = ~dead.take(self._members, axis=1)
        members = v_pu.take(self._members, axis=1)
        lowest = np.minimum.reduceat(np.where(fed, members, np.inf), self._starts, axis=1)
        lowest[np.isinf(lowest)] = 0.0
        counts = np.add.reduceat(fed, self._starts, axis=1, dtype=np.float64)
        means = np.add.reduceat(members * fed, self._starts, axis=1) / np.maximum(counts, 1.0)
        self.zone_v_min_pu, self.v_min_pu = lowest[:, :-1], lowest[:, -1]
        self.zone_v_mean_pu = means[:, :-1]

    @property
    def worst_node(self) -> IntArray:
        """Node farthest outside the limits, or nearest to one, shape (n_envs,)."""
        worst: IntArray = self._beyond.argmax(axis=1)
        return worst

    @property
    def unbalance_pu(self) -> FloatArray:
        """Highest negative over positive sequence voltage of a three-phase bus, shape (n_envs,)."""
        v = self._snapshot.v
        if not len(self._three_phase):
            return np.zeros(len(v))
        sequence = np.abs(v.take(self._three_phase, axis=1) @ self._to_sequence)
        ratio = sequence[..., 1] / np.maximum(sequence[..., 0], 1e-9)
        if self.dead is not None:
            ratio[self.dead.take(self._three_phase - 1, axis=1).any(axis=2)] = 0.0
        return np.asarray(ratio.max(axis=1))


def _node_limits(network: Network, low: float, high: float) -> tuple[FloatArray | float, FloatArray | float]:
    """Give the limits of the nodes' voltages [pu]: none of neutrals, shape (n_nodes,); one number without any."""
    if not len(network.neutrals):
        return low, high
    limits = np.empty((2, len(network.nodes)))
    limits[0], limits[1] = low, high
    limits[0, network.neutrals], limits[1, network.neutrals] = -np.inf, np.inf
    return limits[0], limits[1]


def _sum_matrix(membership: FloatArray, n: int) -> FloatArray:
    """Give the columns that sum things by zone, by zone with an equal part of what is in none, and over all.

    Args:
        membership: 1 where a thing is in a zone, shape (n_zones, n).
        n: Number of things.

    Returns:
        Shape (n, 2 n_zones + 1).
    """
    shared = membership.copy()
    if len(membership):
        shared[:, membership.sum(axis=0) == 0.0] = 1.0 / len(membership)
    return np.concatenate([membership, shared, np.ones((1, n))]).T.copy()


def _chain(groups: Sequence[IntArray]) -> tuple[IntArray, IntArray, IntArray]:
    """Give groups of indices one after the other, where each starts, and how long each is."""
    sizes = np.array([len(group) for group in groups], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
    return np.concatenate([np.empty(0, dtype=np.int64), *groups]), starts, sizes


def _carries(network: Network, phases: Sequence[int]) -> FloatArray:
    """Give 1 for the branches whose first terminal has a node of some phases, shape (n_branches,)."""
    b = network.branches
    fed_by = np.concatenate([[0], network.served_phase])
    ends = np.append(b.terminal_rows, len(b.row_node))[np.searchsorted(b.terminal_branch, np.arange(len(b.names))) + 1]
    rows = zip(b.branch_rows.tolist(), ends.tolist(), strict=True)
    return np.array([float(np.isin(fed_by[b.row_node[first:end]], list(phases)).any()) for first, end in rows])


def _three_phase_nodes(network: Network) -> IntArray:
    """Give the entries of ``Snapshot.v`` of each bus with phases 1, 2 and 3, shape (n_buses, 3)."""
    found: dict[int, dict[int, int]] = {}
    for node, (bus, phase) in enumerate(zip(network.node_bus.tolist(), network.node_phase.tolist(), strict=True)):
        found.setdefault(bus, {})[phase] = node + 1
    rows = [[phases[1], phases[2], phases[3]] for phases in found.values() if {1, 2, 3} <= phases.keys()]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)
