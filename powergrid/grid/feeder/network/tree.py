"""The tree of buses below the source of a feeder, as arrays: questions about it take no search through a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tree:
    """The buses that the source feeds, each below the one that it is reached through by the fewest branches.

    Attributes:
        order: The fed buses from the source on: all that are fed through one stand right behind it, shape (n_fed,).
        above: The bus above each, -1 of the source and of what nothing feeds, shape (n_buses,).
        branch: The branch between the two, of several side by side the last, -1 likewise, shape (n_buses,).
        depth: Number of branches between the source and each bus, -1 of what nothing feeds, shape (n_buses,).
        place: Where each bus stands in ``order``, -1 of what nothing feeds, shape (n_buses,).
        end: Place behind the last bus that is fed through each, shape (n_buses,).
    """

    order: IntArray
    above: IntArray
    branch: IntArray
    depth: IntArray
    place: IntArray
    end: IntArray

    def below(self, bus: int) -> IntArray:
        """Return a bus and all that are fed through it, in the tree's order; itself alone where nothing feeds it."""
        return self.order[self.place[bus] : self.end[bus]] if self.place[bus] >= 0 else np.array([bus])

    def way(self, bus: int) -> list[int]:
        """Return the buses from one up to the source, both included; itself alone where nothing feeds it."""
        found = [bus]
        while (bus := int(self.above[bus])) >= 0:
            found.append(bus)
        return found


def grow(n_buses: int, source: int, joined: IntArray) -> Tree:
    """Return the tree of a source; of several ways of one length to a bus it takes the first.

    Args:
        n_buses: Number of buses.
        source: The source's bus.
        joined: What joins two buses: branch, bus, other bus, shape (n, 3).
    """
    start, end = joined[:, 1:].ravel(), joined[:, :0:-1].ravel()
    by_start = np.argsort(start, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(start, minlength=n_buses))])
    graph = csr_array((np.ones(len(end)), end[by_start], first), shape=(n_buses, n_buses))
    by_depth, found = breadth_first_order(graph, source)
    above = np.where(found < 0, -1, found).astype(np.int64)
    # What is nearer to the source comes first: from the far end on for sizes, from the source on for depths and
    # places. As lists: a loop over the numbers of an array takes five times as long.
    up, walk = above.tolist(), by_depth.tolist()
    size, depth, place, free = [1] * n_buses, [-1] * n_buses, [-1] * n_buses, [1] * n_buses
    for bus in walk[:0:-1]:
        size[up[bus]] += size[bus]
    depth[source] = place[source] = 0
    for bus in walk[1:]:
        over = up[bus]
        depth[bus], place[bus] = depth[over] + 1, free[over]  # the place of what comes next below that one
        free[over] += size[bus]
        free[bus] = place[bus] + 1
    places = np.array(place)
    order = np.empty(len(walk), dtype=np.int64)
    order[places[by_depth]] = by_depth
    return Tree(order, above, _find_branches(above, joined), np.array(depth), places, places + np.array(size))


def _find_branches(above: IntArray, joined: IntArray) -> IntArray:
    """Return the last branch that joins each bus and the one above it, -1 where there is none, shape (n_buses,)."""
    branch, ends = joined[:, 0], np.sort(joined[:, 1:], axis=1)
    hops = np.sort(np.stack([above, np.arange(len(above))], axis=1), axis=1)
    keys, wanted = ends @ [len(above), 1], hops @ [len(above), 1]
    by_key = np.argsort(keys, kind="stable")
    last = np.searchsorted(keys[by_key], wanted, side="right") - 1
    return np.where(above >= 0, branch[by_key].take(last, mode="clip") if len(branch) else -1, -1)
