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
#: Turns the phasors of three phases, in a row, into positive and negative sequence.
_TO_SEQUENCE = np.array([[1, _OPERATOR_A, _OPERATOR_A**2], [1, _OPERATOR_A**2, _OPERATOR_A]]).T / 3.0


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
        limits: Lower and upper voltage limit [pu].
        violation_pu: How far each node is outside the limits [pu], shape (n_envs, n_nodes).
        node_excess_pu, branch_excess_pu: What nodes, or branches, are beyond their limits: by zone, by zone with an
            equal part of what is in no zone, and of the network [pu], shape (n_envs, 2 n_zones + 1).
        node_counts, branch_counts: How many are, in the same order.
        lowest, highest, means: Of the voltages of each zone, of the network and of watched nodes, then of the loadings
            of zones and of watched branches [pu], shape (n_envs, n_groups).
        zone_loading_pu: Highest loading by zone, shape (n_envs, n_zones).
        zone_kva: Complex power imported by each zone [kVA], shape (n_envs, n_zones).

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
        self._no_branch = np.zeros((n_envs, n_both - n_nodes - len(b.names)))
        self._high, self._low = np.ones((n_envs, n_both)), np.full((n_envs, n_both), -np.inf)
        self._high[:, :n_nodes], self._low[:, :n_nodes] = highest, lowest
        self._three_phase = _three_phase_nodes(network)
        self._snapshot = Snapshot.allocate(n_envs, network, 0, conductors=bool(len(self._limited)))
        self.watch([], [])

    def watch(self, node_groups: Sequence[IntArray], branch_groups: Sequence[IntArray]) -> None:
        """Take means of voltages and highest loadings of more groups, in the same passes as those of the zones.

        Args:
            node_groups: Nodes of each group, one or more.
            branch_groups: Branches of each group, one or more.
        """
        nodes = [*self._node_groups, *node_groups]
        groups = [*nodes, *(self._n_nodes + own for own in (*self._branch_groups, *branch_groups))]
        self._members, self._starts, sizes = _chain(groups)
        self._n_node_groups = len(nodes)
        self._per_size = np.tile(1.0 / sizes, (len(self._high), 1))
        self.take(self._snapshot)

    def take(self, snapshot: Snapshot, energised: BoolArray | None = None) -> None:
        """Measure a snapshot; results stay until the next.

        Args:
            snapshot: The solved state.
            energised: Whether a source feeds each node, shape (n_envs, n_nodes), all where not given; those that none
                feeds violate no limit and count in no voltage of a zone that has others.
        """
        dead = None if energised is None or np.count_nonzero(energised) == energised.size else ~energised
        self._snapshot, self._dead = snapshot, dead
        n_envs, n_nodes, n_zones = len(self._high), self._n_nodes, self._n_zones
        levels = np.concatenate(
            (snapshot.v_pu, self._no_branch if self._no_branch.size else snapshot.loading_pu), axis=1
        )
        self._beyond = beyond = np.maximum(levels - self._high, self._low - levels)
        if dead is not None:
            beyond[:, :n_nodes][dead] = -self.limits[0]
        excess = np.empty((2, *beyond.shape))  # amounts, then counts
        np.sign(np.maximum(beyond, 0.0, out=excess[0]), out=excess[1])
        self.violation_pu = excess[0, :, :n_nodes]
        rows = excess.reshape(2 * n_envs, -1)  # two axes: a product of three is slower
        totals: FloatArray = np.dot(rows[:, :n_nodes], self._node_sums)
        self.node_excess_pu, self.node_counts = totals[:n_envs], totals[n_envs:]
        of_branches = rows[:, n_nodes : n_nodes + snapshot.loading_pu.shape[1]]
        totals = np.dot(of_branches, self._branch_sums)
        self.branch_excess_pu, self.branch_counts = totals[:n_envs], totals[n_envs:]
        chosen = levels.take(self._members, 1)
        self.lowest = np.minimum.reduceat(chosen, self._starts, axis=1)
        self.highest = np.maximum.reduceat(chosen, self._starts, axis=1)
        self.means = np.add.reduceat(chosen, self._starts, axis=1) * self._per_size
        of_zones = self.highest[:, self._n_node_groups : self._n_node_groups + len(self._loaded)]
        if len(self._loaded) == n_zones:
            self.zone_loading_pu = of_zones
        else:
            self.zone_loading_pu = np.zeros((n_envs, n_zones))
            self.zone_loading_pu[:, self._loaded] = of_zones
        if dead is not None:
            self._leave_out(snapshot.v_pu, dead)
        self.zone_kva = np.dot(snapshot.terminal_kva, self._intake)
        if len(self._limited):
            self.zone_kva[:, self._limited] = snapshot.conductor_kva @ self._conductor_intake

    def _leave_out(self, v_pu: FloatArray, dead: BoolArray) -> None:
        """Take lowest and mean voltages anew without the nodes that nothing feeds; 0 where a zone has no other."""
        n = self._n_zones + 1  # zones and network, which come first
        nodes, starts = self._members[: np.append(self._starts, len(self._members))[n]], self._starts[:n]
        fed = ~dead.take(nodes, axis=1)
        members = v_pu.take(nodes, axis=1)
        lowest = np.minimum.reduceat(np.where(fed, members, np.inf), starts, axis=1)
        self.lowest[:, :n] = np.where(np.isinf(lowest), 0.0, lowest)
        counts = np.add.reduceat(fed, starts, axis=1, dtype=np.float64)
        self.means[:, :n] = np.add.reduceat(members * fed, starts, axis=1) / np.maximum(counts, 1.0)

    # parts of what was measured, by the names of the field

    @property
    def zone_violation_pu(self) -> FloatArray:
        """Sum of what the nodes of each zone are outside the limits [pu], shape (n_envs, n_zones)."""
        return self.node_excess_pu[:, : self._n_zones]

    @property
    def shared_violation_pu(self) -> FloatArray:
        """The same with an equal part of the nodes in no zone."""
        return self.node_excess_pu[:, self._n_zones : -1]

    @property
    def violation_sum_pu(self) -> FloatArray:
        """Sum of ``violation_pu``, shape (n_envs,)."""
        return self.node_excess_pu[:, -1]

    @property
    def zone_violation_count(self) -> FloatArray:
        """Nodes of each zone outside the limits, shape (n_envs, n_zones)."""
        return self.node_counts[:, : self._n_zones]

    @property
    def violation_count(self) -> FloatArray:
        """Nodes outside the limits, shape (n_envs,)."""
        return self.node_counts[:, -1]

    @property
    def shared_overload_pu(self) -> FloatArray:
        """Sum of what branches of each zone carry above 1 pu, with an equal part of those in none."""
        return self.branch_excess_pu[:, self._n_zones : -1]

    @property
    def overload_sum_pu(self) -> FloatArray:
        """Sum of what branches carry above 1 pu, shape (n_envs,)."""
        return self.branch_excess_pu[:, -1]

    @property
    def zone_overload_count(self) -> FloatArray:
        """Overloaded branches by zone, shape (n_envs, n_zones)."""
        return self.branch_counts[:, : self._n_zones]

    @property
    def overload_count(self) -> FloatArray:
        """Branches above their normal rating, shape (n_envs,)."""
        return self.branch_counts[:, -1]

    @property
    def zone_v_min_pu(self) -> FloatArray:
        """Lowest voltage of each zone [pu], shape (n_envs, n_zones)."""
        return self.lowest[:, : self._n_zones]

    @property
    def v_min_pu(self) -> FloatArray:
        """Lowest node voltage [pu], shape (n_envs,)."""
        return self.lowest[:, self._n_zones]

    @property
    def zone_v_max_pu(self) -> FloatArray:
        """Highest voltage of each zone [pu], shape (n_envs, n_zones)."""
        return self.highest[:, : self._n_zones]

    @property
    def v_max_pu(self) -> FloatArray:
        """Highest node voltage [pu], shape (n_envs,)."""
        return self.highest[:, self._n_zones]

    @property
    def zone_v_mean_pu(self) -> FloatArray:
        """Mean voltage of each zone [pu], shape (n_envs, n_zones)."""
        return self.means[:, : self._n_zones]

    @property
    def watched_mean_pu(self) -> FloatArray:
        """Mean voltages of what :meth:`watch` was told of [pu], shape (n_envs, n_groups)."""
        return self.means[:, self._n_zones + 1 : self._n_node_groups]

    @property
    def watched_loading_pu(self) -> FloatArray:
        """Highest loadings of what :meth:`watch` was told of, shape (n_envs, n_groups)."""
        return self.highest[:, self._n_node_groups + len(self._loaded) :]

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
        phasors = v.take(self._three_phase, 1)
        sequence = np.abs(np.dot(phasors.reshape(-1, 3), _TO_SEQUENCE))
        ratio = (sequence[:, 1] / np.maximum(sequence[:, 0], 1e-9)).reshape(len(v), -1)
        if self._dead is not None:
            ratio[self._dead.take(self._three_phase - 1, axis=1).any(axis=2)] = 0.0
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
