"""Where buses, names and symbols go: the model's coordinates, what is missing filled in, a tree where there are none.

It draws nothing. Lengths on the page are in points, 72 to the inch, as matplotlib has its text sizes.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import spsolve

from powergrid.grid.feeder.network import Network

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Below this share of buses with coordinates of their own, a tree tells more than a map.
_LEAST_KNOWN = 0.25

#: Width and margin of the drawing, and the least and most of its height [points].
WIDTH, MARGIN, HEIGHTS = 11.0 * 72.0, 34.0, (6.0 * 72.0, 11.0 * 72.0)
#: Up to this many buses, each has its name and room around it.
FEW_BUSES = 150
# The first place tried is up and to the right of what a name belongs to, where maps have it.
_TURNS = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False) + np.pi / 4.0


def place_on_page(network: Network, closed: BoolArray) -> tuple[FloatArray, float]:
    """Place every bus on the page, so that symbols and names have their room.

    Args:
        network: The feeder.
        closed: Whether each branch is closed, shape (n_branches,).

    Returns:
        Places, shape (n_buses, 2), and the height of the drawing [points].
    """
    xy, is_map = lay_out(network)
    span = np.ptp(xy, axis=0)
    inner = WIDTH - 2.0 * MARGIN
    if is_map:
        scale = np.full(2, inner / max(span[0], 1e-9 * max(span[1], 1.0)))
        height = float(np.clip(span[1] * scale[1] + 2.0 * MARGIN, *HEIGHTS))
        scale[:] = min(scale[0], (height - 2.0 * MARGIN) / max(span[1], 1e-12))
    else:
        height = float(np.clip(span[1] * 30.0 + 2.0 * MARGIN, *HEIGHTS))
        scale = np.array([inner, height - 2.0 * MARGIN]) / np.maximum(span, 1e-12)
    middle = np.array([WIDTH, height]) / 2.0
    places = (xy - xy.min(axis=0) - span / 2.0) * np.where(span > 0.0, scale, 0.0) + middle
    if len(network.buses) <= FEW_BUSES:
        places = _push_apart(places, _least_distances(network, closed))
        span = np.ptp(places, axis=0)
        # Pushed apart they may have left the page: shrunk to fit it, never grown.
        room = np.minimum(1.0, (np.array([WIDTH, height]) - 2.0 * MARGIN) / np.maximum(span, 1e-9))
        places = (places - places.min(axis=0) - span / 2.0) * room + middle
    return places, height


def _least_distances(network: Network, closed: BoolArray) -> FloatArray:
    """Return how near buses may come to each other: a symbol between two needs its room."""
    b, few = network.branches, len(network.buses) <= 60
    least = np.full((len(network.buses),) * 2, 19.0 if few else 13.0)
    for branch, buses in enumerate(b.buses):
        if not b.names[branch].startswith("line.") or b.is_switch[branch] or not closed[branch]:
            for other in buses[1:]:
                least[buses[0], other] = least[other, buses[0]] = 36.0 if few else 22.0
    return least


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
    xy = np.full((graph.number_of_nodes(), 2), np.nan)
    row = 0.0
    for start in [root, *range(len(xy))]:
        if np.isfinite(xy[start, 0]):
            continue
        tree = nx.bfs_tree(graph, start)
        order = list(nx.dfs_preorder_nodes(tree, start))
        leaves = dict.fromkeys(order, 1)
        for bus in reversed(order):
            leaves[bus] = max(1, sum(leaves[child] for child in tree.successors(bus)))
        # Small branches first: what goes far ends below, and lines cross least.
        tree = nx.DiGraph(sorted(tree.edges, key=lambda edge: (leaves[edge[1]], edge[1])))
        tree.add_node(start)
        for bus in nx.dfs_preorder_nodes(tree, start):
            above = next(tree.predecessors(bus), None)
            xy[bus, 0] = 0.0 if above is None else xy[above, 0] + 1.0
            if not tree.out_degree(bus):
                xy[bus, 1] = -row
                row += 1.0
        for bus in reversed(order):
            if tree.out_degree(bus):
                xy[bus, 1] = np.mean([xy[child, 1] for child in tree.successors(bus)])
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
    # The usual length of a branch; coordinates may be feet, metres or the pixels of some picture.
    stride = float(np.median([x for x in lengths if x > 0.0] or [np.ptp(xy[known], axis=0).max() / 20.0]))
    missing = graph.subgraph(np.flatnonzero(~known).tolist())
    laplacian = nx.laplacian_matrix(graph, nodelist=range(len(xy))).tocsr().astype(float)
    for part in map(sorted, nx.connected_components(missing)):
        around = sorted({other for bus in part for other in graph[bus]} - set(part))
        if len(around) > 1:  # each at the mean of its neighbours, all of the part at once
            inner, outer = laplacian[part][:, part], laplacian[part][:, around]
            xy[part] = spsolve(inner.tocsc(), -outer @ xy[around]).reshape(len(part), 2)
            located.update(part)
    _hang_on(graph, xy, located, 0.6 * stride)
    alone = [bus for bus in range(len(xy)) if bus not in located]
    if alone:  # islands without coordinates: a row below the map
        low, width = np.nanmin(xy, axis=0), float(np.ptp(xy[known], axis=0).max())
        xy[alone] = low + np.column_stack([np.linspace(0.0, width, len(alone)), np.full(len(alone), -2.0 * stride)])
    return xy


def _hang_on(graph: nx.Graph[int], xy: FloatArray, located: set[int], stride: float) -> None:
    """Place what hangs on a located bus, one stride further, where there is most room."""
    waiting = sorted(located)
    for bus in waiting:  # grows while it is walked
        for other in sorted(set(graph[bus]) - located):
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


def _push_apart(places: FloatArray, least: FloatArray) -> FloatArray:
    """Move places, shape (n, 2), nearer than the least distance of their pair apart, the others hardly."""
    places, turn = places.copy(), np.arange(len(places)) * 2.4
    way = np.stack([np.cos(turn), np.sin(turn)], axis=1)  # coincident places leave each other in different directions
    for _ in range(60):
        apart = places[:, None, :] - places[None, :, :]
        distance = np.hypot(apart[..., 0], apart[..., 1])
        np.fill_diagonal(distance, np.inf)
        near = distance < 0.98 * least
        if not near.any():
            break
        same = (near & (distance < 1e-9))[..., None]
        unit = np.where(same, way[:, None, :] - way[None, :, :], apart / np.maximum(distance, 1e-9)[..., None])
        places += 0.5 * (unit * np.where(near, least - np.minimum(distance, least), 0.0)[..., None]).sum(axis=1)
    return places


def _joined(network: Network) -> nx.Graph[int]:
    """Return the buses joined by all branches, open ones too: they are drawn as well."""
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(network.buses)))
    for buses in network.branches.buses:
        graph.add_edges_from((buses[0], other) for other in buses[1:])
    return graph


class Room:
    """The free room of a drawing; all lengths in points.

    Args:
        width: Width of the drawing.
        height: Height of the drawing.
    """

    def __init__(self, width: float, height: float) -> None:
        self._size = np.array([width, height])
        self._taken = np.empty((0, 5))

    def take(self, centres: FloatArray, half: float | FloatArray, weight: float = 1.0) -> None:
        """Take boxes of some half width, or half width and height, around places, shape (n, 2); a light one less so."""
        boxes = np.hstack([centres - half, centres + half, np.full((len(centres), 1), weight)])
        self._taken = np.vstack([self._taken, boxes])

    def take_segments(self, segments: FloatArray) -> None:
        """Take what some straight lines cover, shape (n, 2, 2); names cover them more readily than anything else."""
        for start, end in segments:
            count = max(2, int(np.hypot(*(end - start)) / 5.0))
            self.take(start + np.linspace(0.0, 1.0, count)[:, None] * (end - start), 1.5, weight=0.3)

    def find(
        self, anchor: FloatArray, width: float, height: float, reach: tuple[float, ...], most: float = np.inf
    ) -> FloatArray | None:
        """Find and take the place near an anchor that covers least, what is outside the drawing included.

        Args:
            anchor: What the box belongs to.
            width: Width of the box.
            height: Height of the box.
            reach: Gaps between anchor and box that are tried.
            most: Covered area that is still accepted.

        Returns:
            The centre of the box, None if all places cover more than ``most``.
        """
        half = np.array([width, height]) / 2.0
        gap = np.repeat(reach, len(_TURNS))
        way = np.tile(np.column_stack([np.cos(_TURNS), np.sin(_TURNS)]), (len(reach), 1))
        centres = anchor + way * (gap[:, None] + half)
        low, high = centres - half, centres + half
        sides = np.minimum(high[:, None, :], self._taken[None, :, 2:4]) - np.maximum(
            low[:, None, :], self._taken[None, :, :2]
        )
        covered = (np.maximum(sides, 0.0).prod(axis=2) * self._taken[:, 4]).sum(axis=1)
        # Nothing on the page is as bad as leaving it.
        covered += 100.0 * (np.maximum(-low, 0.0) + np.maximum(high - self._size, 0.0)).sum(axis=1)
        best = int(np.argmin(covered + 0.15 * gap))  # of places that cover alike, the nearest
        if covered[best] > most:
            return None
        self.take(centres[best : best + 1], half)
        return np.asarray(centres[best])


def text_size(text: str, size: float) -> tuple[float, float]:
    """Estimate width and height of a line of text [points]."""
    return 0.62 * size * len(text) + 2.0, 1.2 * size
