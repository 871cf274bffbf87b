"""What a utility would say of a solved state: violations, loadings, losses, unbalance, zone by zone.

Array functions of a snapshot; knows no prices, agents or rewards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Snapshot
from powergrid.grid.feeder.network import Network, count_once
from powergrid.grid.sums import GroupSums

if TYPE_CHECKING:
    from typing_extensions import Self

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_OPERATOR_A = np.exp(2j * np.pi / 3)
#: Turns the phasors of three phases, in a row, into positive and negative sequence.
_TO_SEQUENCE = np.array([[1, _OPERATOR_A, _OPERATOR_A**2], [1, _OPERATOR_A**2, _OPERATOR_A]]).T / 3.0

#: What is summed over zones, shared out, and over the network, with the name of the last.
_SUMS = {
    "violation_pu": "violation_sum_pu",
    "overload_pu": "overload_sum_pu",
    "violation_count": "violation_count",
    "overload_count": "overload_count",
}


class _Parts(NamedTuple):
    """What :meth:`Metrics.take` writes: the array of all results and its parts, and one of what is beyond limits.

    Attributes:
        whole, sums, lowest, means, highest, kva, source, losses, v_pu, loading_pu, levels, beside: ``results``, and
            its columns by what they are; ``levels`` are voltages and loadings.
        both, excess: How far each level is beyond its limit, then whether it is, shape (2 n_envs, n_levels), and the
            two halves.
    """

    whole: FloatArray
    sums: tuple[FloatArray, FloatArray]
    lowest: FloatArray
    means: FloatArray
    highest: FloatArray
    kva: npt.NDArray[np.complex128]
    source: npt.NDArray[np.complex128]
    losses: FloatArray
    v_pu: FloatArray
    loading_pu: FloatArray
    levels: FloatArray
    beside: list[FloatArray]
    both: FloatArray
    excess: tuple[FloatArray, FloatArray]

    @classmethod
    def of(cls, whole: FloatArray, columns: Mapping[str, slice], widths: Sequence[int | tuple[int, int]]) -> _Parts:
        """Cut results into parts."""

        def span(first: str, last: str) -> FloatArray:
            return whole[:, columns[first].start : columns[last].stop]

        n_envs = len(whole)
        beside, first = list[FloatArray](), columns["beside"].start
        for width in widths:
            shape = width if isinstance(width, tuple) else (1, width)
            part = whole[:, first : first + shape[0] * shape[1]].reshape(n_envs, *shape).swapaxes(0, 1)
            beside.append(part if isinstance(width, tuple) else part[0])
            first += shape[0] * shape[1]
        levels = span("v_pu", "no_branch")
        both = np.zeros((2 * n_envs, levels.shape[1]))
        return cls(
            whole,
            (span("zone_violation_pu", "overload_sum_pu"), span("zone_violation_count", "overload_count")),
            span("zone_v_min_pu", "metered_min_pu"),
            span("zone_v_mean_pu", "watched_mean_pu"),
            span("zone_v_max_pu", "watched_loading_pu"),
            span("zone_kva", "zone_kva").view(np.complex128),
            span("source_kva", "source_kva").view(np.complex128)[:, 0],
            span("losses_kw", "losses_kw")[:, 0],
            span("v_pu", "v_pu"),
            span("loading_pu", "loading_pu"),
            levels,
            beside,
            both,
            (both[:n_envs], both[n_envs:]),
        )


class _Columns:
    """Columns of ``results``, of the name that they have in :class:`Metrics`: a copy, (n_envs, n_zones or n_groups)."""

    def __init__(self, meaning: str) -> None:
        self.__doc__ = meaning

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, metrics: None, owner: type) -> Self: ...

    @overload
    def __get__(self, metrics: Metrics, owner: type) -> FloatArray: ...

    def __get__(self, metrics: Metrics | None, owner: type) -> FloatArray | Self:
        return self if metrics is None else self._of(metrics.results, metrics.columns[self._name]).copy()

    @staticmethod
    def _of(results: FloatArray, columns: slice) -> FloatArray:
        return results[:, columns]


class _Column(_Columns):
    """One column of ``results``: a copy, shape (n_envs,)."""

    @staticmethod
    def _of(results: FloatArray, columns: slice) -> FloatArray:
        column: FloatArray = results[:, columns.start]
        return column


class Metrics:
    """Measure snapshots of one network, split into zones of buses.

    Args:
        network: The network.
        zones: Bus indices of each zone; zones may overlap and need not cover the network.
        v_min_pu: Lower voltage limit [pu].
        v_max_pu: Upper voltage limit [pu].
        n_envs: Number of environments in a snapshot.
        phases: Phases that each zone is limited to, empty for all; None where no zone is limited.
        device_buses: Names of the buses where devices are added, which part lines that were in series.

    Attributes:
        network: The network.
        limits: Lower and upper voltage limit [pu].
        losses_outside: Sums complex power into terminals, shape (n_envs, n_terminals), to the losses of the branches
            that lie in no zone or lead into one, shape (n_envs, 1): those that no zone's intake has a part in.
        level_weights: How often what each voltage, then each loading, is beyond its limit counts in
            ``shared_violation_pu`` and ``shared_overload_pu`` of all zones together, 0 of neutrals and of all but
            one of lines in series, shape (n_nodes +
            n_branches,).
        results: All that was measured of zones and network, then every voltage and loading, then what was handed in
            beside them, one row for each environment, shape (n_envs, n_columns); each take fills it anew. Whoever
            wants some of it takes its columns in one go; properties are copies of parts of it.
        beside: Parts of ``results`` that stand beside what was measured, of the widths that :meth:`watch` was told of.
        columns: Columns of ``results`` by the name of the property; complex power takes two columns, real first.

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
        device_buses: Iterable[str] = (),
    ) -> None:
        self.network, self.limits = network, (v_min_pu, v_max_pu)
        lowest, highest = node_limits(network, v_min_pu, v_max_pu)
        self._n_zones = n_zones = len(zones)
        n_nodes, b = len(network.nodes), network.branches
        phases = [()] * n_zones if phases is None else [tuple(own) for own in phases]
        # where no node is in a zone a mean would divide by 0
        nodes = [network.nodes_within(buses, own) for buses, own in zip(zones, phases, strict=True)]
        if not all(map(len, nodes)):
            raise ValueError("a zone has no node")
        first = b.terminal_bus[np.searchsorted(b.terminal_branch, np.arange(len(b.names)))]
        inside = (network.among(buses, first) for buses in zones)
        carried = (_carries(network, own) if own else True for own in phases)
        branches = [np.flatnonzero(own & carries) for own, carries in zip(inside, carried, strict=True)]
        # one product gives zones, zones with their part of what is in none, and the network, of nodes then of branches
        counted = count_once(network, device_buses)
        once = [own[counted[own]] for own in branches]
        both = [*_group(nodes, np.ones(n_nodes, dtype=bool)), *_group(once, counted, n_nodes)]
        self._sums = GroupSums(both, n_nodes + len(b.names) + 1)
        self.level_weights = _sum_weights(
            both[n_zones : 2 * n_zones] + both[3 * n_zones + 1 : -1], n_nodes + len(b.names)
        )
        self.level_weights[network.neutrals] = 0.0
        # no conversion at each take
        intake = [_weighted(network.intake(list(zone))) for zone in zones]
        self._intake = GroupSums(intake, len(b.terminal_bus), complex)
        self._limited = np.array([zone for zone in range(n_zones) if phases[zone]], dtype=np.int64)
        conductors = [_weighted(network.conductor_intake(list(zones[zone]), phases[zone])) for zone in self._limited]
        self._conductor_intake = GroupSums(conductors, len(b.row_node), complex)
        self.losses_outside = GroupSums([_find_outside(network, zones)], len(b.terminal_bus), complex)
        nodes.append(np.arange(n_nodes))
        live = [np.setdiff1d(own, network.neutrals) for own in nodes]
        self._node_groups = [a if len(a) else b for a, b in zip(live, nodes, strict=True)]
        # where no branch is, the loading of one that nothing flows through is looked at
        self._branch_groups = [own if len(own) else np.array([len(b.names)]) for own in branches]
        self._n_nodes, n_both = n_nodes, n_nodes + len(b.names) + 1
        # every constant has the full shape: a ufunc takes twice as long where it must broadcast
        self._high, self._low = np.ones((n_envs, n_both)), np.full((n_envs, n_both), -np.inf)
        self._high[:, :n_nodes], self._low[:, :n_nodes] = highest, lowest
        self._zero = np.zeros((n_envs, n_both))
        self._three_phase = _three_phase_nodes(network)
        self._buses = network.node_bus[self._three_phase[:, 0] - 1]
        self._least_v = np.full(n_envs * len(self._three_phase), 1e-9)  # no bus that is dead divides by 0
        self._snapshot = Snapshot.allocate(n_envs, network, 0, conductors=bool(len(self._limited)))
        self.watch([], [])

    def watch(
        self,
        node_groups: Sequence[IntArray],
        branch_groups: Sequence[IntArray],
        widths: Sequence[int | tuple[int, int]] = (),
        metered: Sequence[IntArray] = (),
    ) -> None:
        """Take means of voltages and highest loadings of more groups, in the same passes as those of the zones.

        Args:
            node_groups: Nodes of each group, one or more.
            branch_groups: Branches of each group, one or more.
            widths: How many numbers each array has that :meth:`take` puts beside what it measures; ``(m, n)`` stands
                for one of shape (m, n_envs, n).
            metered: Nodes of each group whose lowest and highest voltages are taken too, with the means.
        """
        nodes, n_zones = [*self._node_groups, *metered, *node_groups], self._n_zones
        groups = [*nodes, *(self._n_nodes + own for own in (*self._branch_groups, *branch_groups))]
        members, starts, sizes = _chain(groups)
        ends = np.append(starts, len(members)).tolist()
        # lowest of zones, network and what is metered, means of all groups of nodes, highest of every group
        n_lowest, n_means, n_envs = n_zones + 1 + len(metered), len(nodes), len(self._high)
        self._lowest_end, self._means_end = ends[n_lowest], ends[n_means]
        self._starts, self._lowest_starts, self._means_starts = starts, starts[:n_lowest], starts[:n_means]
        self._per_size = np.tile(1.0 / sizes[:n_means], (n_envs, 1))
        levels = self._n_nodes, len(self._high[0]) - self._n_nodes
        n_beside = sum(int(np.prod(width)) for width in widths)
        self.columns = columns = _lay_out(
            n_zones, len(metered), len(node_groups), len(branch_groups), *levels, n_beside
        )
        self._members = columns["v_pu"].start + members
        self._to = _Parts.of(np.zeros((n_envs, columns["beside"].stop)), columns, widths)
        self.beside = self._to.beside
        self.take(self._snapshot)

    def take(self, snapshot: Snapshot, energised: BoolArray | None = None, beside: Sequence[FloatArray] = ()) -> None:
        """Measure a snapshot; results stay until the next.

        Args:
            snapshot: The solved state.
            energised: Whether a source feeds each node, shape (n_envs, n_nodes), all where not given; those that none
                feeds violate no limit and count in no voltage of a zone that has others.
            beside: Numbers to put into ``results`` after all that is measured, of the widths that :meth:`watch` was
                told of; the last ones may be left out.
        """
        dead = None if energised is None or b"\0" not in energised.tobytes() else ~energised
        self._snapshot, self._dead, to = snapshot, dead, self._to
        self.results, amounts, counts = to.whole, *to.excess
        # into parts of one array: to put as many arrays side by side takes twice as long
        to.v_pu[...], to.loading_pu[...] = snapshot.v_pu, snapshot.loading_pu
        beyond = np.subtract(to.levels, self._high)
        self._beyond = np.maximum(beyond, np.subtract(self._low, to.levels), out=beyond)
        if dead is not None:
            beyond[:, : self._n_nodes][dead] = -self.limits[0]
        np.sign(np.maximum(beyond, self._zero, out=amounts), out=counts)
        to.sums[0][...], to.sums[1][...] = self._sums.of(to.both).reshape(2, len(beyond), -1)
        chosen = to.whole.take(self._members, 1)
        np.minimum.reduceat(chosen[:, : self._lowest_end], self._lowest_starts, axis=1, out=to.lowest)
        np.add.reduceat(chosen[:, : self._means_end], self._means_starts, axis=1, out=to.means)
        np.multiply(to.means, self._per_size, out=to.means)
        np.maximum.reduceat(chosen, self._starts, axis=1, out=to.highest)
        if dead is not None:
            self._leave_out(chosen, dead, to.lowest, to.means)
        to.kva[...] = self._intake.of(snapshot.terminal_kva)
        if len(self._limited):
            to.kva[:, self._limited] = self._conductor_intake.of(snapshot.conductor_kva)
        to.source[...], to.losses[...] = snapshot.source_kva, snapshot.losses_kw
        for part, values in zip(to.beside, beside, strict=False):
            part[...] = values

    def add(self, values: FloatArray, place: int = -1) -> None:
        """Put one of what stands beside, the last or another, into ``results``: it is made of what was measured."""
        self._to.beside[place][...] = values

    def _leave_out(self, chosen: FloatArray, dead: BoolArray, lowest: FloatArray, means: FloatArray) -> None:
        """Take lowest and mean voltages anew without the nodes that nothing feeds; 0 where a zone has no other."""
        starts, end = self._lowest_starts, self._lowest_end  # zones and network come first
        own = self._members[:end] - self.columns["v_pu"].start
        fed, members = ~dead.take(own, axis=1), chosen[:, :end]
        np.minimum.reduceat(np.where(fed, members, np.inf), starts, axis=1, out=lowest)
        lowest[np.isinf(lowest)] = 0.0
        counts = np.add.reduceat(fed, starts, axis=1, dtype=np.float64)
        means[:, : len(starts)] = np.add.reduceat(members * fed, starts, axis=1) / np.maximum(counts, 1.0)

    def find_places(self, name: str) -> IntArray:
        """Return where the columns of a name lie in ``results`` laid flat, shape (n_envs, n_columns of it).

        One gather with many of these takes them into any shape. They hold until :meth:`watch` is told of more groups.
        """
        return np.arange(self.results.size).reshape(self.results.shape)[:, self.columns[name]]

    def count_beyond(self, levels_pu: FloatArray) -> FloatArray:
        """Return how many nodes are more than each level outside the limits, shape (n_levels, n_envs)."""
        outside = self._to.excess[0][:, : self._n_nodes]
        found: FloatArray = np.add.reduce(outside > levels_pu[:, None, None], axis=2, dtype=np.float64)
        return found

    @property
    def level_limits(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest that voltages, then loadings, may be [pu], each shape (n_nodes + n_branches,)."""
        return self._low[0, :-1].copy(), self._high[0, :-1].copy()

    # parts of what was measured, by the names of the field

    zone_violation_pu = _Columns("Sum of what the nodes of each zone are outside the limits [pu].")
    shared_violation_pu = _Columns("The same with an equal part of the nodes in no zone.")
    violation_sum_pu = _Column("Sum of ``violation_pu``.")
    zone_violation_count = _Columns("Nodes of each zone outside the limits.")
    violation_count = _Column("Nodes outside the limits.")
    shared_overload_pu = _Columns("Sum of what branches of each zone carry above 1 pu, with an equal part of others.")
    overload_sum_pu = _Column("Sum of what branches carry above 1 pu.")
    zone_overload_count = _Columns("Overloaded branches by zone.")
    overload_count = _Column("Branches above their normal rating.")
    zone_v_min_pu = _Columns("Lowest voltage of each zone [pu].")
    v_min_pu = _Column("Lowest node voltage [pu].")
    zone_v_max_pu = _Columns("Highest voltage of each zone [pu].")
    v_max_pu = _Column("Highest node voltage [pu].")
    zone_v_mean_pu = _Columns("Mean voltage of each zone [pu].")
    watched_mean_pu = _Columns("Mean voltages of what :meth:`watch` was told of [pu].")
    watched_loading_pu = _Columns("Highest loadings of what :meth:`watch` was told of.")
    zone_loading_pu = _Columns("Highest loading by zone.")

    @property
    def violation_pu(self) -> FloatArray:
        """How far each node is outside the limits [pu], shape (n_envs, n_nodes)."""
        return self._to.excess[0][:, : self._n_nodes].copy()

    @property
    def zone_kva(self) -> npt.NDArray[np.complex128]:
        """Complex power imported by each zone [kVA], shape (n_envs, n_zones)."""
        return self.results[:, self.columns["zone_kva"]].copy().view(np.complex128)

    @property
    def worst_node(self) -> IntArray:
        """Node farthest outside the limits, or nearest to one, shape (n_envs,)."""
        worst: IntArray = self._beyond[:, : self._n_nodes].argmax(axis=1)
        return worst

    @property
    def unbalance_pu(self) -> FloatArray:
        """Highest negative over positive sequence voltage of a three-phase bus, shape (n_envs,)."""
        if not len(self._three_phase):
            return np.zeros(len(self._snapshot.v))
        highest: FloatArray = np.maximum.reduce(self.sequence_unbalance_pu, axis=1)
        return highest

    @property
    def sequence_unbalance_pu(self) -> FloatArray:
        """Negative over positive sequence voltage of each three-phase bus, shape (n_envs, n_buses); 0 of dead ones.

        Source:
            IEC 61000-4-30, 5.7.1.
        """
        phasors = self._snapshot.v.take(self._three_phase, 1)
        sequence = np.abs(phasors.reshape(-1, 3).dot(_TO_SEQUENCE))
        return self._without_dead(sequence[:, 1] / np.maximum(sequence[:, 0], self._least_v))

    @property
    def line_unbalance_pu(self) -> FloatArray:
        """Farthest that a line-to-line voltage of each three-phase bus is from their mean, over it, as above.

        Source:
            NEMA MG 1, 14.36, which the annex on unbalance of ANSI C84.1 uses.
        """
        phasors = self._snapshot.v.take(self._three_phase, 1).reshape(-1, 3)
        lines = np.abs(phasors - phasors[:, [1, 2, 0]])
        mean = np.maximum(lines.mean(axis=1), self._least_v)
        return self._without_dead(np.abs(lines - mean[:, None]).max(axis=1) / mean)

    @property
    def three_phase_buses(self) -> IntArray:
        """The buses that have phases 1, 2 and 3, shape (n_buses,)."""
        return self._buses

    def _without_dead(self, ratio: FloatArray) -> FloatArray:
        """Return a ratio of all environments' three-phase buses by environment, 0 of those that nothing feeds."""
        ratio = ratio.reshape(len(self._snapshot.v), -1)
        if self._dead is not None:
            ratio[self._dead.take(self._three_phase - 1, axis=1).any(axis=2)] = 0.0
        return ratio


def _lay_out(
    n_zones: int, n_metered: int, n_nodes: int, n_branches: int, n_voltages: int, n_loadings: int, n_beside: int
) -> dict[str, slice]:
    """Return the columns of ``Metrics.results`` by name, in order; so many groups of nodes and branches are watched."""
    sizes: dict[str, int] = {}
    for what, whole in _SUMS.items():
        sizes |= {f"zone_{what}": n_zones, f"shared_{what}": n_zones, whole: 1}
    sizes |= {"zone_v_min_pu": n_zones, "v_min_pu": 1, "metered_min_pu": n_metered}
    sizes |= {"zone_v_mean_pu": n_zones, "v_mean_pu": 1, "metered_mean_pu": n_metered, "watched_mean_pu": n_nodes}
    sizes |= {"zone_v_max_pu": n_zones, "v_max_pu": 1, "metered_max_pu": n_metered, "watched_max_pu": n_nodes}
    sizes |= {"zone_loading_pu": n_zones, "watched_loading_pu": n_branches}
    sizes |= {"zone_kva": 2 * n_zones, "source_kva": 2, "losses_kw": 1}
    sizes |= {"v_pu": n_voltages, "loading_pu": n_loadings - 1, "no_branch": 1, "beside": n_beside}
    ends = np.cumsum([*sizes.values()]).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def node_limits(network: Network, low: float, high: float) -> tuple[FloatArray | float, FloatArray | float]:
    """Return the limits of the nodes' voltages [pu]: none of neutrals, shape (n_nodes,); one number without any."""
    if not len(network.neutrals):
        return low, high
    limits = np.empty((2, len(network.nodes)))
    limits[0], limits[1] = low, high
    limits[0, network.neutrals], limits[1, network.neutrals] = -np.inf, np.inf
    return limits[0], limits[1]


def _group(groups: Sequence[IntArray], counted: BoolArray, first: int = 0) -> list[tuple[IntArray, FloatArray | float]]:
    """Return what sums things by zone, by zone with an equal part of what is in none, and over all, each with weights.

    Args:
        groups: The things of each zone, those that count.
        counted: Whether each thing counts.
        first: Place of the first thing.
    """
    count = np.bincount(np.concatenate([np.empty(0, dtype=np.int64), *groups]), minlength=len(counted))
    rest = np.flatnonzero((count == 0) & counted)
    weight = 1.0 / max(len(groups), 1)
    shared = [(np.concatenate([own, rest]) + first, np.repeat([1.0, weight], [len(own), len(rest)])) for own in groups]
    return [*((own + first, 1.0) for own in groups), *shared, (np.flatnonzero(counted) + first, 1.0)]


def _sum_weights(groups: Sequence[tuple[IntArray, FloatArray | float]], n: int) -> FloatArray:
    """Return the sum of the weights that each of n things has in some groups, shape (n,)."""
    total = np.zeros(n)
    for places, weights in groups:
        np.add.at(total, places, weights)
    return total


def _find_outside(network: Network, zones: Sequence[Sequence[int]]) -> tuple[IntArray, float]:
    """Return the terminals of branches that lie in no zone or lead into one, with their weight in a sum."""
    b = network.branches
    real = b.terminal_bus >= 0
    of_branch = np.bincount(b.terminal_branch, weights=real, minlength=len(b.names))
    within = np.zeros(len(b.names), dtype=bool)
    for zone in zones:
        inside = network.among(zone, b.terminal_bus) & real
        within |= np.bincount(b.terminal_branch, weights=inside, minlength=len(b.names)) == of_branch
    return np.flatnonzero(~within[b.terminal_branch]), 1.0


def _weighted(weights: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return where weights are not 0, and these."""
    places = np.flatnonzero(weights)
    return places, weights[places]


def _chain(groups: Sequence[IntArray]) -> tuple[IntArray, IntArray, IntArray]:
    """Return groups of indices one after the other, where each starts, and how long each is."""
    sizes = np.array([len(group) for group in groups], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
    return np.concatenate([np.empty(0, dtype=np.int64), *groups]), starts, sizes


def _carries(network: Network, phases: Sequence[int]) -> BoolArray:
    """Return whether the first terminal of each branch has a node of some phases, shape (n_branches,)."""
    b = network.branches
    fed_by = np.concatenate([[0], network.served_phase])
    ends = np.append(b.terminal_rows, len(b.row_node))[np.searchsorted(b.terminal_branch, np.arange(len(b.names))) + 1]
    before = np.concatenate([[0], np.cumsum(np.isin(fed_by[b.row_node], list(phases)))])
    carries: BoolArray = before[ends] > before[b.branch_rows]
    return carries


def _three_phase_nodes(network: Network) -> IntArray:
    """Return the entries of ``Snapshot.v`` of each bus with phases 1, 2 and 3, shape (n_buses, 3)."""
    nodes = np.flatnonzero(network.is_phase)
    at = np.zeros((len(network.buses), 4), dtype=np.int64)
    at[network.node_bus[nodes], network.node_phase[nodes]] = nodes + 1
    buses, first = np.unique(network.node_bus[nodes], return_index=True)
    found: IntArray = at[buses[first.argsort()], 1:]
    return found[(found > 0).all(axis=1)]
