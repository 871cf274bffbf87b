"""Which nodes a source feeds, and whether the network is radial, as switches open and branches fail.

A question of graphs, conductor by conductor; knows no engine, no time and no events. Answers are kept by topology, so
that asking again for positions seen before costs a look-up.
"""

from __future__ import annotations

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

_MAX_KEPT = 4096
_LAST_PHASE = 3


class Topology(NamedTuple):
    """What hangs together for one set of closed branches.

    Attributes:
        island: Number of the island that each node belongs to; all nodes that the feeder's sources feed have the same,
            whichever source it is, shape (n_nodes,).
        energised: Whether a source feeds the node, shape (n_nodes,).
        dead_share: Part of each load's phases that no source feeds, shape (n_loads,).
        loops: Independent loops, sources counted as joined: 0 where every phase is fed in one way alone.
        n_dark: Nodes that no source feeds, neutrals left out.
        forming: Whether each forming source is at work, shape (n_forming,); what it feeds is an island of its own.
    """

    island: IntArray
    energised: BoolArray
    dead_share: FloatArray
    loops: int
    n_dark: int
    forming: BoolArray


class FormingSource(NamedTuple):
    """A source that feeds what it is tied to while its tie is open and no other source does.

    Attributes:
        tie: Branch that ties it to the rest.
        nodes: Nodes that it holds at voltage, shape (n,).
        p_max_kw: Its rating; of several in one island the largest works, the others stay off.
    """

    tie: int
    nodes: IntArray
    p_max_kw: float


class Connectivity:
    """Answer what is fed, for any positions of a network's branches.

    Lines, reactors and series capacitors join their terminals conductor by conductor, transformers phase by phase. A
    branch that is open in single phases as compiled counts as closed.

    Args:
        network: The network.
        sources: Nodes that sources hold at voltage, shape (n_sources,); the feeder's own where not given.
        forming: Sources that form islands.
    """

    def __init__(
        self,
        network: Network,
        sources: Sequence[int] | IntArray | None = None,
        forming: Sequence[FormingSource] = (),
    ) -> None:
        self._network, self._forming = network, tuple(forming)
        self._by_rating = np.argsort([-source.p_max_kw for source in forming], kind="stable").tolist()
        self._n_nodes = n_nodes = len(network.nodes)
        self._edges, self._edge_branch = _join(network)
        given = network.source_nodes if sources is None else sources
        self._sources = np.unique(np.asarray(given, dtype=np.int64))
        roots = np.full(len(self._sources), n_nodes)
        self._root_edges = np.array([roots, self._sources])
        self._load_nodes = np.concatenate([np.empty(0, np.int64), *map(self._phase_nodes, network.loads.nodes)])
        sizes = [len(self._phase_nodes(nodes)) for nodes in network.loads.nodes]
        self._load_of_row = np.repeat(np.arange(len(sizes)), sizes)
        self._per_load = 1.0 / np.maximum(sizes, 1)
        self._kept: dict[bytes, Topology] = {}

    def _phase_nodes(self, nodes: Sequence[int]) -> IntArray:
        return np.array([node for node in nodes if self._network.node_phase[node] <= _LAST_PHASE], dtype=np.int64)

    def look(self, closed: BoolArray, faulted: Sequence[int] | IntArray = ()) -> Topology:
        """Return what hangs together.

        Args:
            closed: Whether each branch connects its terminals, shape (n_branches,).
            faulted: Nodes with a fault on, shape (n_faulted,). A forming source does not feed a fault: it trips.

        Returns:
            The topology; its arrays are shared and not to be written.
        """
        at_fault = np.asarray(faulted, dtype=np.int64)
        key = np.packbits(closed).tobytes() + at_fault.tobytes()
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            found = self._kept[key] = self._trace(closed, at_fault)
        return found

    def _trace(self, closed: BoolArray, faulted: IntArray) -> Topology:
        n = self._n_nodes + 1  # one more that stands for whatever feeds the sources
        edges = np.concatenate([self._edges[:, closed[self._edge_branch]], self._root_edges], axis=1)
        graph = coo_array((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(n, n))
        count, label = connected_components(graph, directed=False)
        island = label[:-1].astype(np.int64)
        energised: BoolArray = island == label[-1]
        loops = edges.shape[1] - n + int(count)
        forming = np.zeros(len(self._forming), dtype=np.bool_)
        for i in self._by_rating:
            source = self._forming[i]
            inside = np.isin(island, island[source.nodes])
            if closed[source.tie] or energised[source.nodes].any() or inside[faulted].any():
                continue
            loops += len(source.nodes) - len(np.unique(island[source.nodes]))
            island[inside] = island[source.nodes[0]]
            energised, forming[i] = energised | inside, True
        dead = np.bincount(self._load_of_row, ~energised[self._load_nodes], minlength=len(self._per_load))
        n_dark = int(np.count_nonzero(~energised) - np.count_nonzero(~energised[self._network.neutrals]))
        topology = Topology(island, energised, dead * self._per_load, loops, n_dark, forming)
        for array in (island, energised, topology.dead_share, forming):
            array.flags.writeable = False
        return topology


def _join(network: Network) -> tuple[IntArray, IntArray]:
    """Return the pairs of nodes that closed branches join, shape (2, n_edges), and the branch of each."""
    b = network.branches
    ends = np.append(b.terminal_rows, len(b.row_node))
    terminals: dict[int, list[IntArray]] = {}
    for terminal, branch in enumerate(b.terminal_branch.tolist()):
        terminals.setdefault(branch, []).append(b.row_node[ends[terminal] : ends[terminal + 1]])
    pairs: list[tuple[int, int, int]] = []
    for branch, of_branch in terminals.items():
        wound = b.names[branch].startswith(("transformer.", "autotrans."))
        # of a winding only the conductors that are not grounded, as one of them may be its second
        first, *others = [rows[rows > 0] if wound else rows for rows in of_branch]
        for other in others:
            pairs += [
                (int(u) - 1, int(v) - 1, branch)
                for u, v in zip(first, other, strict=False)
                if u > 0 and v > 0 and u != v
            ]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 3)
    return table[:, :2].T.copy(), table[:, 2].copy()
