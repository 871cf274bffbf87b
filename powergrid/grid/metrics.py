"""What a utility would say of a solved state: violations, loadings, losses, unbalance, zone by zone.

Array functions of a snapshot; knows no prices, agents or rewards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Snapshot
from powergrid.grid.feeder.network import Network

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
        watched_mean_pu, watched_loading_pu: Mean voltages and highest loadings of what :meth:`watch` was told of, shape
            (n_envs, n_groups).
        zone_kva: Complex power imported by each zone [kVA], shape (n_envs, n_zones).
        losses_kw, source_kva: As in the snapshot, shape (n_envs,).
        results: All of these numbers one after the other, but for those of nodes; each of the arrays is a view.
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
        lowest, highest = _node_limits(network, v_min_pu, v_max_pu)
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
        self._intake = self._intake.reshape(n_zones, len(b.terminal_bus)).T.astype(
            complex
        )  # no conversion at each take
        self._limited = np.array([zone for zone in range(n_zones) if phases[zone]], dtype=np.int64)
        conductors = [network.conductor_intake(list(zones[zone]), phases[zone]) for zone in self._limited]
        self._conductor_intake = np.array(conductors, dtype=complex).T.copy()
        nodes = [np.flatnonzero(row) for row in (*node_in, np.ones(n_nodes))]
        live = [np.setdiff1d(own, network.neutrals) for own in nodes]
        self._node_groups = [a if len(a) else b for a, b in zip(live, nodes, strict=True)]
        branches = [np.flatnonzero(row) for row in branch_in]
        self._loaded = np.array([i for i, group in enumerate(branches) if len(group)], dtype=np.int64)
        self._branch_groups = [branches[i] for i in self._loaded]
        self._n_nodes, n_both = n_nodes, n_nodes + max(len(b.names), 1)  # a place to look at where no branch is
        self._levels = np.zeros((n_envs, n_both))  # node voltages, then loadings
        self._level_of_nodes = self._levels[:, :n_nodes]
        self._level_of_branches = self._levels[:, n_nodes : n_nodes + len(b.names)]
        self._beyond = np.zeros((n_envs, n_both))
        self._high, self._low = np.ones((n_envs, n_both)), np.full((n_envs, n_both), -np.inf)
        self._high[:, :n_nodes], self._low[:, :n_nodes] = highest, lowest
        self._zero = np.zeros((n_envs, n_both))
        self._excess = np.zeros((2, n_envs, n_both))  # amounts, then counts
        rows = self._excess.reshape(2 * n_envs, -1)  # two axes: a product of three is slower
        self._node_rows, self._branch_rows = rows[:, :n_nodes], rows[:, n_nodes : n_nodes + len(b.names)]
        self._three_phase = _three_phase_nodes(network)
        self._bind_unbalance(n_envs)
        self._to_sequence = np.array([[1, _OPERATOR_A, _OPERATOR_A**2], [1, _OPERATOR_A**2, _OPERATOR_A]]).T / 3.0
        self.watch([], [])
        self.take(Snapshot.allocate(n_envs, network, 0, conductors=bool(len(self._limited))))

    def _bind_results(self, n_groups: int) -> None:
        """Name the parts of the results, which every take fills anew."""
        n_envs, n_zones, n_nodes = len(self._levels), self._n_zones, self._n_nodes
        of_sums = (2, n_envs, 2 * n_zones + 1)
        shapes = [of_sums, of_sums, (n_envs, self._n_minima), (n_envs, n_groups), (n_envs, self._n_means)]
        shapes += [(n_envs, n_zones), (n_envs, n_zones, 2), (n_envs,), (n_envs, 2)]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        self.results = np.zeros(int(ends[-1]))
        parts = zip(np.split(self.results, ends[:-1]), shapes, strict=True)
        node_totals, branch_totals, self._lowest, self._highest, self._means, loading, zone_kva, losses, source = (
            part.reshape(shape) for part, shape in parts
        )
        self._node_totals_rows = node_totals.reshape(2 * n_envs, -1)
        self._branch_totals_rows = branch_totals.reshape(2 * n_envs, -1)
        self.zone_loading_pu, self.losses_kw = loading, losses
        self.zone_kva = zone_kva.view(np.complex128)[..., 0]
        self.source_kva = source.view(np.complex128)[..., 0]
        self.violation_pu = self._excess[0, :, :n_nodes]
        amounts, counts = node_totals
        self.zone_violation_pu, self.shared_violation_pu = amounts[:, :n_zones], amounts[:, n_zones:-1]
        self.violation_sum_pu = amounts[:, -1]
        self.zone_violation_count, self.violation_count = counts[:, :n_zones], counts[:, -1]
        amounts, counts = branch_totals
        self.shared_overload_pu, self.overload_sum_pu = amounts[:, n_zones:-1], amounts[:, -1]
        self.zone_overload_count, self.overload_count = counts[:, :n_zones], counts[:, -1]

    def _bind_unbalance(self, n_envs: int) -> None:
        """Make room for what :attr:`unbalance_pu` passes through."""
        n_buses = len(self._three_phase)
        self._phasors = np.zeros((n_envs, n_buses, 3), dtype=complex)
        self._phasors_rows = self._phasors.reshape(-1, 3)
        self._sequences = np.zeros((n_envs * n_buses, 2), dtype=complex)
        self._sequence = np.zeros((n_envs * n_buses, 2))
        self._positive, self._negative = self._sequence.T.reshape(2, n_envs, n_buses)
        self._ratio, self._tiny = np.zeros((n_envs, n_buses)), np.full((n_envs, n_buses), 1e-9)

    def watch(self, node_groups: Sequence[IntArray], branch_groups: Sequence[IntArray]) -> None:
        """Take means of voltages and highest loadings of more groups, in the same passes as those of the zones.

        Args:
            node_groups: Nodes of each group, one or more.
            branch_groups: Branches of each group, one or more.
        """
        n_zones, branches = self._n_zones, [*self._branch_groups, *branch_groups]
        nodes = [*self._node_groups, *node_groups]
        groups = [*nodes, *(self._n_nodes + own for own in branches)]
        self._members, self._starts, sizes = _chain(groups)
        self._n_minima, self._n_means = n_zones + 1, len(nodes)  # of zones and network; of all groups of nodes
        ends = np.append(self._starts, len(self._members))
        self._min_members, self._mean_members = int(ends[self._n_minima]), int(ends[self._n_means])
        self._min_starts, self._mean_starts = self._starts[: self._n_minima], self._starts[: self._n_means]
        n_envs = len(self._levels)
        self._per_size = np.tile(1.0 / sizes[: self._n_means], (n_envs, 1))
        self._chosen = np.zeros((n_envs, len(self._members)))
        self._bind_results(len(groups))
        self._to_lowest = self._chosen[:, : self._min_members]
        self._to_means = self._chosen[:, : self._mean_members]
        first = len(nodes) + len(self._branch_groups)
        self._highest_loading = self._highest[:, len(nodes) : first]
        self.watched_mean_pu, self.watched_loading_pu = self._means[:, n_zones + 1 :], self._highest[:, first:]
        self.zone_v_max_pu, self.v_max_pu = self._highest[:, :n_zones], self._highest[:, n_zones]
        self.zone_v_min_pu, self.v_min_pu = self._lowest[:, :-1], self._lowest[:, -1]
        self.zone_v_mean_pu = self._means[:, :n_zones]
        if len(self._loaded) == n_zones:
            self.zone_loading_pu = self._highest_loading

    def take(self, snapshot: Snapshot) -> None:
        """Measure a snapshot; results stay until the next."""
        self._snapshot = snapshot
        levels, beyond = self._levels, self._beyond
        self._level_of_nodes[...], self._level_of_branches[...] = snapshot.v_pu, snapshot.loading_pu
        amount, count = self._excess
        np.subtract(self._low, levels, out=amount)
        np.maximum(np.subtract(levels, self._high, out=beyond), amount, out=beyond)
        dead = self.dead if self.dead is not None and self.dead.any() else None
        if dead is not None:
            beyond[:, : self._n_nodes][dead] = -self.limits[0]
        np.maximum(beyond, self._zero, out=amount)
        np.sign(amount, out=count)
        np.dot(self._node_rows, self._node_sums, self._node_totals_rows)
        np.dot(self._branch_rows, self._branch_sums, self._branch_totals_rows)
        levels.take(self._members, 1, self._chosen, "clip")
        np.minimum.reduceat(self._to_lowest, self._min_starts, axis=1, out=self._lowest)
        np.maximum.reduceat(self._chosen, self._starts, axis=1, out=self._highest)
        np.add.reduceat(self._to_means, self._mean_starts, axis=1, out=self._means)
        np.multiply(self._means, self._per_size, out=self._means)
        if self.zone_loading_pu is not self._highest_loading:
            self.zone_loading_pu[:, self._loaded] = self._highest_loading
        if dead is not None:
            self._leave_out(snapshot.v_pu, dead)
        self.losses_kw[...] = snapshot.losses_kw
        self.source_kva[...] = snapshot.source_kva
        np.dot(snapshot.terminal_kva, self._intake, self.zone_kva)
        if len(self._limited):
            self.zone_kva[:, self._limited] = snapshot.conductor_kva @ self._conductor_intake

    def _leave_out(self, v_pu: FloatArray, dead: BoolArray) -> None:
        """Take lowest and mean voltages anew without the nodes that nothing feeds; 0 where a zone has no other."""
        nodes, starts = self._members[: self._min_members], self._min_starts
        fed = ~dead.take(nodes, axis=1)
        members = v_pu.take(nodes, axis=1)
        np.minimum.reduceat(np.where(fed, members, np.inf), starts, axis=1, out=self._lowest)
        self._lowest[np.isinf(self._lowest)] = 0.0
        counts = np.add.reduceat(fed, starts, axis=1, dtype=np.float64)
        self._means[:, : self._n_minima] = np.add.reduceat(members * fed, starts, axis=1) / np.maximum(counts, 1.0)

    @property
    def worst_node(self) -> IntArray:
        """Node farthest outside the limits, or nearest to one, shape (n_envs,)."""
        worst: IntArray = self._beyond[:, : self._n_nodes].argmax(axis=1)
        return worst

    @property
    def unbalance_pu(self) -> FloatArray:
        """Highest negative over positive sequence voltage of a three-phase bus, shape (n_envs,)."""
        v = self._snapshot.v
        if not len(self._three_phase):
            return np.zeros(len(v))
        v.take(self._three_phase, 1, self._phasors, "clip")
        np.absolute(np.dot(self._phasors_rows, self._to_sequence, self._sequences), out=self._sequence)
        positive, ratio = self._positive, self._ratio
        np.divide(self._negative, np.maximum(positive, self._tiny, out=positive), out=ratio)
        if self.dead is not None:
            ratio[self.dead.take(self._three_phase - 1, axis=1).any(axis=2)] = 0.0
        highest: FloatArray = np.maximum.reduce(ratio, axis=1)
        return highest


def _node_limits(network: Network, low: float, high: float) -> tuple[FloatArray | float, FloatArray | float]:
    """Return the limits of the nodes' voltages [pu]: none of neutrals, shape (n_nodes,); one number without any."""
    if not len(network.neutrals):
        return low, high
    limits = np.empty((2, len(network.nodes)))
    limits[0], limits[1] = low, high
    limits[0, network.neutrals], limits[1, network.neutrals] = -np.inf, np.inf
    return limits[0], limits[1]


def _sum_matrix(membership: FloatArray, n: int) -> FloatArray:
    """Return the columns that sum things by zone, by zone with an equal part of what is in none, and over all.

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
    """Return groups of indices one after the other, where each starts, and how long each is."""
    sizes = np.array([len(group) for group in groups], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
    return np.concatenate([np.empty(0, dtype=np.int64), *groups]), starts, sizes


def _carries(network: Network, phases: Sequence[int]) -> FloatArray:
    """Return 1 for the branches whose first terminal has a node of some phases, shape (n_branches,)."""
    b = network.branches
    fed_by = np.concatenate([[0], network.served_phase])
    ends = np.append(b.terminal_rows, len(b.row_node))[np.searchsorted(b.terminal_branch, np.arange(len(b.names))) + 1]
    rows = zip(b.branch_rows.tolist(), ends.tolist(), strict=True)
    return np.array([float(np.isin(fed_by[b.row_node[first:end]], list(phases)).any()) for first, end in rows])


def _three_phase_nodes(network: Network) -> IntArray:
    """Return the entries of ``Snapshot.v`` of each bus with phases 1, 2 and 3, shape (n_buses, 3)."""
    found: dict[int, dict[int, int]] = {}
    for node, (bus, phase) in enumerate(zip(network.node_bus.tolist(), network.node_phase.tolist(), strict=True)):
        found.setdefault(bus, {})[phase] = node + 1
    rows = [[phases[1], phases[2], phases[3]] for phases in found.values() if {1, 2, 3} <= phases.keys()]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)
