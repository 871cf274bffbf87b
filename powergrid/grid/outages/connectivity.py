"""Which nodes a source feeds, whether the network is radial as switches open and branches fail, and what keeps it so.

A question of graphs, conductor by conductor; knows no engine, no time and no events. Answers are kept by topology, so
that asking again for positions seen before costs a look-up.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from powergrid.grid.feeder.network import Network

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Of 12 switches, each with its own positions, all are kept; random play of more does not fill the memory.
_MAX_KEPT = 4096


class FormingSource(NamedTuple):
    """A source that feeds what it is tied to while its tie is open and no other source does.

    Attributes:
        tie: Branch that ties it to the rest.
        nodes: Nodes that it holds at voltage, shape (n,).
        p_min_kw: Least power that it gives.
        p_max_kw: Its rating; of several in one island the largest works, the others stay off.
    """

    tie: int
    nodes: IntArray
    p_min_kw: float
    p_max_kw: float


class Island(NamedTuple):
    """A part of the circuit that a forming source feeds.

    Attributes:
        place: Place of the source among the forming sources.
        source: The source.
        loads: Loads in the island.
        devices: Devices in the island that are no loads.
    """

    place: int
    source: FormingSource
    loads: IntArray
    devices: IntArray


class Topology(NamedTuple):
    """What hangs together for one set of closed branches.

    Attributes:
        island: Number of the island that each node belongs to; all nodes that the feeder's sources feed have the same,
            whichever source it is, shape (n_nodes,).
        energised: Whether a source feeds the node, shape (n_nodes,).
        n_dark: Nodes that no source feeds, neutrals left out: those have no voltage to lack.
        dead_share: Part of each load's phases that no source feeds, shape (n_loads,).
        fed: Whether all phases of each device are fed, shape (n_devices,).
        loops: Independent loops, sources counted as joined: 0 where every phase is fed in one way alone.
        forming: Whether each forming source is at work, shape (n_forming,).
        islands: What each of those feeds, an island of its own.
    """

    island: IntArray
    energised: BoolArray
    n_dark: int
    dead_share: FloatArray
    fed: BoolArray
    loops: int
    forming: BoolArray
    islands: tuple[Island, ...]


class NodeGroups:
    """Nodes of loads or devices one after the other, neutrals left out; one that has no others is at its first."""

    def __init__(self, network: Network, nodes: Sequence[Sequence[int] | IntArray]) -> None:
        own = [[int(node) for node in of_one if not network.is_neutral[node]] or [0] for of_one in nodes]
        self._rows = np.array([node for of_one in own for node in of_one], dtype=np.int64)
        self._starts = np.cumsum([0, *map(len, own)])[:-1].astype(np.int64)
        self._parts = 1.0 / np.array([len(of_one) for of_one in own], dtype=np.float64)

    def share(self, of_nodes: BoolArray) -> FloatArray:
        """Return the part of each one's nodes that are among some, shape (n,)."""
        share: FloatArray = np.add.reduceat(of_nodes[self._rows], self._starts, dtype=np.float64) * self._parts
        return share


class Connectivity:
    """Answer what is fed, for any positions of a network's branches.

    Lines, reactors and series capacitors join their terminals conductor by conductor, transformers phase by phase. What
    is open in single phases joins the others.

    Args:
        network: The network.
        sources: Nodes that sources hold at voltage, shape (n_sources,); the feeder's own where not given.
        forming: Sources that form islands.
        devices: Nodes of each device.
        bound: Whether each device is a load of the network, shape (n_devices,).
    """

    def __init__(
        self,
        network: Network,
        sources: Sequence[int] | IntArray | None = None,
        forming: Sequence[FormingSource] = (),
        devices: Sequence[IntArray] = (),
        bound: BoolArray | None = None,
    ) -> None:
        self._network, self._forming = network, tuple(forming)
        self._by_rating = np.argsort([-source.p_max_kw for source in forming], kind="stable").tolist()
        self._n_nodes = n_nodes = len(network.nodes)
        self._edges, self._edge_branch, self._edge_rows = _join(network)
        given = network.source_nodes if sources is None else sources
        self._sources = np.unique(np.asarray(given, dtype=np.int64))
        roots = np.full(len(self._sources), n_nodes)
        self._root_edges = np.array([roots, self._sources])
        self.loads, self._devices = NodeGroups(network, network.loads.nodes), NodeGroups(network, devices)
        self._free = np.ones(len(devices), dtype=bool) if bound is None else ~bound
        self._kept: dict[bytes, Topology] = {}

    def look(
        self, closed: BoolArray, faulted: Sequence[int] | IntArray = (), open_rows: IntArray | None = None
    ) -> Topology:
        """Return what hangs together.

        Args:
            closed: Whether each branch connects its terminals, shape (n_branches,).
            faulted: Nodes with a fault on, shape (n_faulted,). A forming source does not feed a fault: it trips.
            open_rows: Rows of the network's branches whose conductor is open, those of the network where not given.

        Returns:
            The topology; its arrays are shared and not to be written.
        """
        at_fault = np.asarray(faulted, dtype=np.int64)
        open_rows = self._network.branches.open_rows if open_rows is None else open_rows
        key = b"".join((np.packbits(closed).tobytes(), at_fault.tobytes(), b"|", open_rows.tobytes()))
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            found = self._kept[key] = self._trace(closed, at_fault, open_rows)
        return found

    def _trace(self, closed: BoolArray, faulted: IntArray, open_rows: IntArray) -> Topology:
        n = self._n_nodes + 1  # one more that stands for whatever feeds the sources
        joins = closed[self._edge_branch]
        if open_rows.size:
            is_open = np.zeros(len(self._network.branches.row_node), dtype=np.bool_)
            is_open[open_rows] = True
            joins &= ~is_open[self._edge_rows].any(axis=0)
        edges = np.concatenate([self._edges[:, joins], self._root_edges], axis=1)
        graph = coo_array((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(n, n))
        count, label = connected_components(graph, directed=False)
        island = label[:-1].astype(np.int64)
        energised: BoolArray = island == label[-1]
        loops = edges.shape[1] - n + int(count)  # of any graph: edges beyond those of a spanning forest
        forming = np.zeros(len(self._forming), dtype=np.bool_)
        for i in self._by_rating:
            source = self._forming[i]
            inside = np.isin(island, island[source.nodes])
            # by way of another microgrid a source may feed it though its own tie is open
            if closed[source.tie] or energised[source.nodes].any() or inside[faulted].any():
                continue
            loops += len(source.nodes) - len(np.unique(island[source.nodes]))
            island[inside] = island[source.nodes[0]]
            energised, forming[i] = energised | inside, True
        dark = ~energised
        n_dark = int(np.count_nonzero(dark) - np.count_nonzero(dark[self._network.neutrals]))
        fed, dead_share = self._devices.share(dark) == 0.0, self.loads.share(dark)
        for array in (island, energised, dead_share, fed, forming):
            array.flags.writeable = False  # all that look at these positions get the same ones
        islands = tuple(self._islanded(i, island) for i in np.flatnonzero(forming).tolist())
        return Topology(island, energised, n_dark, dead_share, fed, loops, forming, islands)

    def _islanded(self, place: int, island: IntArray) -> Island:
        """Return what hangs together with a forming source, given the number of each node's island."""
        source = self._forming[place]
        inside = island == island[source.nodes[0]]
        devices = (self._devices.share(inside) > 0.0) & self._free
        return Island(place, source, np.flatnonzero(self.loads.share(inside)), np.flatnonzero(devices))


def _join(network: Network) -> tuple[IntArray, IntArray, IntArray]:
    """Return what closed branches join: pairs of nodes, shape (2, n_edges), the branch of each, and its rows."""
    b = network.branches
    sizes = np.diff(np.append(b.terminal_rows, len(b.row_node)))
    terminal = np.repeat(np.arange(len(sizes)), sizes)
    branch = b.terminal_branch[terminal]
    # of a winding only the conductors that are not grounded, as one of them may be its second
    wound = np.array([name.startswith(("transformer.", "autotrans.")) for name in b.names], dtype=np.bool_)
    row_node = b.row_node.astype(np.int64)
    row = np.flatnonzero(~wound[branch] | (row_node != 0))
    terminal, branch = terminal[row], branch[row]
    starts = np.searchsorted(terminal, np.arange(len(sizes)))
    place = np.arange(len(row)) - starts[terminal]  # of a conductor among its terminal's
    begins = np.zeros(len(b.names), dtype=np.int64)
    begins[b.terminal_branch[::-1]] = np.arange(len(sizes))[::-1]
    is_first = terminal == begins[branch]
    first = np.full((len(b.names), int(sizes.max(initial=0))), -1, dtype=np.int64)
    first[branch[is_first], place[is_first]] = row[is_first]
    rows = np.array([first[branch[~is_first], place[~is_first]], row[~is_first]])
    nodes = np.where(rows < 0, 0, row_node[rows])
    joined = (nodes > 0).all(axis=0) & (nodes[0] != nodes[1])
    return nodes[:, joined] - 1, branch[~is_first][joined], rows[:, joined]


class Reconfiguration:
    """Keep switches where they are whose move would close a loop, or take the voltage off load.

    Args:
        connectivity: Answers what hangs together.
        switches: Branch of each switch, shape (n_switches,).
        max_loops: Loops that there may be.
        keep_served: Whether load that is fed stays so.
    """

    def __init__(self, connectivity: Connectivity, switches: IntArray, max_loops: int, *, keep_served: bool) -> None:
        self._connectivity, self._switches = connectivity, switches
        self._max_loops, self._keep_served = max_loops, keep_served
        self._held: dict[tuple[bytes, ...], BoolArray] = {}

    def project(self, before: IntArray, asked: IntArray, closed: BoolArray, faulted: IntArray) -> IntArray:
        """Return the positions nearest to those asked that are feasible.

        Switches that offend stay as they were, in the order of the table: first closings, the last one first, then
        openings, the first one first.

        Args:
            before: Positions before, shape (n_switches,).
            asked: Positions asked for, shape (n_switches,).
            closed: Whether each branch is closed; the switches' entries are not read, shape (n_branches,).
            faulted: Nodes with a fault on, shape (n_faulted,).

        Returns:
            Feasible positions, shape (n_switches,).
        """
        positions = asked.copy()
        now = self._look(positions, closed, faulted)
        # one by one: the nearest of all feasible positions would take a search over all sets of switches
        for i in np.flatnonzero(asked > before)[::-1].tolist():
            if now.loops <= self._max_loops:
                break
            positions[i] = 0
            kept = self._look(positions, closed, faulted)
            if kept.loops < now.loops:
                now = kept
            else:
                positions[i] = 1
        if self._keep_served:
            dead = self._look(before, closed, faulted).dead_share
            for i in np.flatnonzero(asked < before).tolist():
                if not (now.dead_share > dead).any():
                    break
                positions[i] = 1
                kept = self._look(positions, closed, faulted)
                if kept.loops <= self._max_loops and kept.dead_share.sum() < now.dead_share.sum():
                    now = kept
                else:
                    positions[i] = 0
        return positions

    def find_held(self, before: IntArray, free: BoolArray, closed: BoolArray, faulted: IntArray) -> BoolArray:
        """Return which switches would stay as they were, moved alone and together with any one other.

        Args:
            before: Positions before, shape (n_switches,).
            free: Which may move, shape (n_switches,).
            closed, faulted: As in :meth:`project`.
        """
        key = tuple(each.tobytes() for each in (before, free, closed, faulted))
        held = self._held.get(key)
        if held is None:
            held = free.copy()
            places = np.flatnonzero(free).tolist()
            for moved in (*((i,) for i in places), *itertools.combinations(places, 2)):
                if held[list(moved)].any():
                    asked = before.copy()
                    asked[list(moved)] = 1 - asked[list(moved)]
                    held &= self.project(before, asked, closed, faulted) == before
            if len(self._held) >= _MAX_KEPT:
                self._held.clear()
            self._held[key] = held
        return held

    def may_close(self, branch: int, closed: BoolArray) -> bool:
        """Whether one more branch can close and the network stay radial; ``closed`` has all entries."""
        more = closed.copy()
        more[branch] = True
        return self._connectivity.look(more).loops <= max(self._max_loops, self._connectivity.look(closed).loops)

    def _look(self, positions: IntArray, closed: BoolArray, faulted: IntArray) -> Topology:
        at = closed.copy()
        at[self._switches] = positions.astype(bool)
        return self._connectivity.look(at, faulted)
