"""Cut a feeder into zones: at regulators, at switches and where it is electrically long; the same cuts every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from powergrid.grid.circuit.survey import Survey
from powergrid.grid.feeder.network import Network

#: How much better a place is for a cut than any other line: a zone behind a regulator has its own voltage.
_AT_REGULATOR, _AT_SWITCH = 3.0, 2.0


@dataclass(frozen=True)
class Zone:
    """A part of a feeder.

    Attributes:
        root: Index of the bus nearest to the source: its point of common coupling.
        buses: Indices of its buses, in order.
        data: What a scenario says of it.
    """

    root: int
    buses: tuple[int, ...]
    data: dict[str, Any]


def default_count(network: Network) -> int:
    """Return how many zones a feeder of this size gets at most: 2 up to about 70 buses, 4 of 130, 8 from 450 on."""
    return int(np.clip(round((len(network.buses) / 8.0) ** 0.5), 2, 8))


def cut_zones(survey: Survey, device_buses: Sequence[int], count: int) -> list[Zone]:
    """Cut a feeder into at most ``count`` zones that each have a device and, together, every bus once.

    The tree below the source is cut branch by branch, the zone with the most nodes, demand and devices first, where
    both parts get most: a branch weighs three times at a regulator, twice at a switch, and up to twice by its
    electrical length. Buses that nothing feeds go with the first zone.

    Args:
        survey: The feeder.
        device_buses: Bus index of each device.
        count: Most zones.

    Returns:
        The zones in the order of their roots from the source.
    """
    network = survey.network
    tree, source = network.tree, network.source_bus
    order = list(nx.dfs_preorder_nodes(tree, source))
    weight, devices = _weigh(network, device_buses)
    bonus = _bonus(survey)
    roots = [source]
    while len(roots) < count:
        best = max(
            (cut for root in roots for cut in [_best_cut(tree, order, root, roots, weight, devices, bonus)] if cut),
            default=None,
        )
        if best is None:
            break
        roots.append(-best[1])
    roots.sort(key=order.index)
    owner = _owners(tree, order, roots)
    unfed = [bus for bus in range(len(network.buses)) if bus not in owner]
    zones = []
    for root in roots:
        buses = sorted([bus for bus, own in owner.items() if own == root] + (unfed if root == source else []))
        until = [other for other in roots if other != root and owner_above(tree, owner, other) == root]
        zones.append(
            Zone(root, tuple(buses), _zone_data(network, root, buses, until, named=root == source and bool(unfed)))
        )
    return zones


def owner_above(tree: nx.DiGraph[int], owner: dict[int, int], root: int) -> int | None:
    """Return the zone that a zone hangs below."""
    above = next(iter(tree.predecessors(root)), None)
    return None if above is None else owner[above]


def whole_feeder(network: Network) -> dict[str, Any]:
    """Return the zone of all buses, as a scenario says it."""
    if len(network.tree) == len(network.buses):
        return {"downstream_of": network.buses[network.source_bus]}
    return {"buses": list(network.buses)}


def nearest_device(survey: Survey, device_buses: Sequence[int]) -> dict[int, int]:
    """Return for each bus the bus with a device that is electrically nearest; equally near, the first of the feeder.

    Buses that no device reaches are left out.
    """
    network = survey.network
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(network.graph)
    for one, other, data in network.graph.edges(data=True):
        graph.add_edge(one, other, weight=float(survey.distance[data["branch"]]) + 1e-9)
    sources = sorted(set(device_buses))
    paths = nx.multi_source_dijkstra_path(graph, sources)
    return {bus: path[0] for bus, path in paths.items()}


def _weigh(network: Network, device_buses: Sequence[int]) -> tuple[dict[int, float], dict[int, int]]:
    """Return what each bus weighs, by nodes, demand and devices in equal parts, and how many devices it has."""
    n = len(network.buses)
    nodes = np.bincount(network.node_bus, minlength=n) / len(network.nodes)
    demand = np.bincount(network.loads.bus, weights=np.abs(network.loads.kw), minlength=n)
    count = np.bincount(np.asarray(device_buses, dtype=np.int64), minlength=n)
    parts = [part / total for part in (demand, count) if (total := float(part.sum())) > 0.0]
    weight = nodes + sum(parts)
    return dict(enumerate(weight.tolist())), dict(enumerate(count.tolist()))


def _bonus(survey: Survey) -> dict[tuple[int, int], float]:
    """Return how good a place for a cut each hop between buses is, 1 or more."""
    network = survey.network
    regulated = {f"{kind}.{name}" for name in network.regulators for kind in ("transformer", "autotrans")}
    regulated |= {element.name.lower() for element in survey.tap_changers if not element.note}
    switches = {int(element.ratings["branch"]) for element in survey.switches}
    longest = float(survey.distance.max(initial=0.0)) or 1.0
    names = network.branches.names
    bonus = {}
    for one, other, data in network.graph.edges(data=True):
        branch = data["branch"]
        value = 1.0 + float(survey.distance[branch]) / longest
        if names[branch] in regulated:
            value = _AT_REGULATOR
        elif branch in switches:
            value = _AT_SWITCH
        bonus[one, other] = bonus[other, one] = value
    return bonus


def _best_cut(
    tree: nx.DiGraph[int],
    order: Sequence[int],
    root: int,
    roots: Sequence[int],
    weight: dict[int, float],
    devices: dict[int, int],
    bonus: dict[tuple[int, int], float],
) -> tuple[float, int] | None:
    """Return the best cut of the zone below a root: its score and, negated so that ties go to the first, its bus."""
    inside = _below(tree, root, set(roots) - {root})
    total = {bus: weight[bus] for bus in inside}
    owned = {bus: devices[bus] for bus in inside}
    for bus in reversed(inside):
        if bus != root:
            above = next(iter(tree.predecessors(bus)))
            total[above] += total[bus]
            owned[above] += owned[bus]
    cuts = [
        (min(total[bus], total[root] - total[bus]) * bonus[next(iter(tree.predecessors(bus))), bus], -bus)
        for bus in inside
        if bus != root and 0 < owned[bus] < owned[root]
    ]
    return max(cuts, default=None)


def _below(tree: nx.DiGraph[int], root: int, stops: set[int]) -> list[int]:
    """Return the buses below a root, from it down, without what lies behind the stops."""
    inside, waiting = [], [root]
    while waiting:
        bus = waiting.pop()
        inside.append(bus)
        waiting += [child for child in tree.successors(bus) if child not in stops]
    return inside


def _owners(tree: nx.DiGraph[int], order: Sequence[int], roots: Sequence[int]) -> dict[int, int]:
    """Return each fed bus the root of its zone."""
    owner: dict[int, int] = {}
    for bus in order:
        owner[bus] = bus if bus in roots else owner[next(iter(tree.predecessors(bus)))]
    return owner


def _zone_data(
    network: Network, root: int, buses: Sequence[int], until: Sequence[int], *, named: bool
) -> dict[str, Any]:
    """Say a zone in the shorter of two ways: what is fed through a bus up to others, or bus by bus."""
    names = network.buses
    if named or len(buses) <= 1 + len(until):
        return {"buses": [names[bus] for bus in buses]}
    return {"downstream_of": names[root]} | ({"until": [names[bus] for bus in until]} if until else {})
