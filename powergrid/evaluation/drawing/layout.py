"""Where buses go: the model's coordinates, what is missing filled in, or a tree where there are none."""

from __future__ import annotations

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from powergrid.grid.feeder.network import Network

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Below this share of buses with coordinates of their own, a tree tells more than a map.
_LEAST_KNOWN = 0.25


def lay_out(network: Network) -> tuple[FloatArray, bool]:
    """Return every bus a place.

    Returns:
        Places, shape (n_buses, 2), all finite, and whether they are a map, so that both axes have one scale.
    """
    graph = _joined(network)
    known = np.asarray(np.isfinite(network.bus_xy).all(axis=1))
    distinct = len(np.unique(network.bus_xy[known], axis=0))
    if distinct < 2 or distinct < _LEAST_KNOWN * len(network.buses):
        return place_as_tree(graph, network.source_bus), False
    return fill_places(graph, network.bus_xy, known), True


def place_as_tree(graph: nx.Graph[int], root: int) -> FloatArray:
    """Lay a network out from left to right: x counts branches from the root, leaves have a row each.

    Args:
        graph: Buses 0 .. n - 1.
        root: The bus on the left; what hangs together without it comes below.
    """
    n = graph.number_of_nodes()
    xy = np.zeros((n, 2))
    row = 0.0
    seen: set[int] = set()
    for start in [root, *range(n)]:
        if start in seen:
            continue
        tree = nx.bfs_tree(graph, start)
        seen.update(tree)
        order = list(nx.dfs_preorder_nodes(tree, start))
        leaves = dict.fromkeys(order, 1)
        for bus in reversed(order):
            leaves[bus] = max(1, sum(leaves[child] for child in tree.successors(bus)))
        first = {start: row}
        row += leaves[start]
        for bus in order:
            below = first[bus]
            for child in sorted(tree.successors(bus), key=lambda child: (leaves[child], child)):
                first[child] = below
                below += leaves[child]
                xy[child, 0] = xy[bus, 0] + 1.0
        for bus in reversed(order):
            children = list(tree.successors(bus))
            xy[bus, 1] = np.mean([xy[child, 1] for child in children]) if children else -first[bus]
    return xy


def fill_places(graph: nx.Graph[int], bus_xy: FloatArray, known: BoolArray) -> FloatArray:
    """Place buses without coordinates: between their neighbours, or beside the last bus that has some.

    Args:
        graph: Buses 0 .. n - 1.
        bus_xy: Coordinates, shape (n_buses, 2).
        known: Whether those of a bus are to be kept, shape (n_buses,).
    """
    xy = np.where(known[:, None], bus_xy, np.nan)
    located = set(np.flatnonzero(known).tolist())
    lengths = [float(np.hypot(*(xy[a] - xy[b]))) for a, b in graph.edges if a in located and b in located]
    stride = float(np.median([x for x in lengths if x > 0.0] or [np.ptp(xy[known], axis=0).max() / 20.0]))
    missing = graph.subgraph(np.flatnonzero(~known).tolist())
    for part in list(nx.connected_components(missing)):
        around = {other for bus in part for other in graph[bus] if other in located}
        if len(around) > 1:
            _fill_between(graph, sorted(part), xy)
            located |= part
    _hang_on(graph, xy, located, 0.6 * stride)
    alone = [bus for bus in range(len(xy)) if bus not in located]
    if alone:  # islands without coordinates: a row below the map
        low, width = np.nanmin(xy, axis=0), float(np.ptp(xy[known], axis=0).max())
        xy[alone] = low + np.column_stack([np.linspace(0.0, width, len(alone)), np.full(len(alone), -2.0 * stride)])
    return xy


def _fill_between(graph: nx.Graph[int], part: list[int], xy: FloatArray) -> None:
    """Put each bus of a part at the mean of its neighbours, all at once."""
    index = {bus: i for i, bus in enumerate(part)}
    rows, columns, values = list(index.values()), list(index.values()), [float(graph.degree[bus]) for bus in part]
    right = np.zeros((len(part), 2))
    for bus, i in index.items():
        for other in graph[bus]:
            if other in index:
                rows.append(i)
                columns.append(index[other])
                values.append(-1.0)
            elif np.isfinite(xy[other, 0]):
                right[i] += xy[other]
            else:
                values[i] -= 1.0
    matrix = coo_array((values, (rows, columns)), shape=(len(part), len(part))).tocsc()
    xy[part] = np.asarray(spsolve(matrix, right)).reshape(len(part), 2)


def _hang_on(graph: nx.Graph[int], xy: FloatArray, located: set[int], stride: float) -> None:
    """Place what hangs on a located bus, one stride further, where there is most room."""
    waiting = sorted(located)
    for bus in waiting:  # grows while it is walked
        new = [other for other in sorted(graph[bus]) if other not in located]
        for other in new:
            angles = sorted(
                float(np.arctan2(*(xy[near] - xy[bus])[::-1]))
                for near in graph[bus]
                if near in located and (xy[near] != xy[bus]).any()
            )
            gaps = np.diff([*angles, angles[0] + 2.0 * np.pi]) if angles else np.array([2.0 * np.pi])
            widest = int(np.argmax(gaps))
            angle = (angles[widest] if angles else 0.0) + gaps[widest] / 2.0
            xy[other] = xy[bus] + stride * np.array([np.cos(angle), np.sin(angle)])
            located.add(other)
            waiting.append(other)


def push_apart(places: FloatArray, least: FloatArray, rounds: int = 60) -> FloatArray:
    """Move places that are too near to each other apart, the others hardly.

    Args:
        places: Places, shape (n, 2).
        least: Least distance of each pair, symmetric, shape (n, n).
        rounds: How often to push at most.
    """
    places = places.copy()
    for _ in range(rounds):
        apart = places[:, None, :] - places[None, :, :]
        distance = np.hypot(apart[..., 0], apart[..., 1])
        np.fill_diagonal(distance, np.inf)
        near = distance < 0.98 * least
        if not near.any():
            break
        turn = np.arange(len(places)) * 2.4  # coincident places leave each other in different directions
        way = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        same = near & (distance < 1e-9)
        unit = np.where(
            same[..., None], way[:, None, :] - way[None, :, :], apart / np.maximum(distance, 1e-9)[..., None]
        )
        places += 0.5 * (unit * np.where(near, least - np.minimum(distance, least), 0.0)[..., None]).sum(axis=1)
    return places


def _joined(network: Network) -> nx.Graph[int]:
    """Return the buses joined by all branches, open ones too: they are drawn as well."""
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(network.buses)))
    for buses in network.branches.buses:
        graph.add_edges_from((buses[0], other) for other in buses[1:])
    return graph
