"""Who decides over which devices and sees which part of the feeder: layouts of agents, and the zones they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from powergrid.grid.engine import FloatArray, IntArray
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.network.tree import Tree
from powergrid.scenario.discovery.devices import Device
from powergrid.scenario.discovery.equipment import Equipment
from powergrid.scenario.vocabulary import LayoutSpec

_CLASS_NAMES = {"storage": "batteries", "switch": "switches"}
_PHASE_NAMES = {1: "phase_a", 2: "phase_b", 3: "phase_c"}

Agents = dict[str, dict[str, Any]]
#: By agent: devices, zone as a scenario says it, index of the bus that is its point of common coupling.
Formed = dict[str, tuple[Sequence[Device], dict[str, Any], int]]


def form_agents(equipment: Equipment, devices: Sequence[Device], options: LayoutSpec) -> Agents:
    """Form the agents of a layout, as a scenario says them; each device belongs to at most one.

    ``per_zone`` makes every zone an agent; each bus is in one zone. ``per_device`` and ``per_class`` make every device
    or kind of devices one, which sees the buses that are electrically nearer to it than to others; devices at one bus
    share what is nearest to it. ``per_phase`` makes every phase one over its single-phase devices, and one more of the
    devices of several phases; these and ``single`` see the whole feeder.

    Every agent has something to decide: what the feeder's own controls move, or nobody, forms no agent by itself.
    """
    network = equipment.network
    decided = [device for device in devices if str(device.spec.get("control", "agent")) == "agent"]
    decided = decided or list(devices)  # where there is none, an error tells so later
    formed: Formed
    match options.layout:
        case "per_zone":
            # 2 zones up to about 70 buses, 4 of 130, 8 from 450 on.
            count = options.zones or int(np.clip(round((len(network.buses) / 8.0) ** 0.5), 2, 8))
            zones = cut_zones(equipment, [d.bus for d in decided], count)
            formed = {
                f"zone_{number}": (_within(devices, zone.buses), zone.data, zone.root)
                for number, zone in enumerate(zones, start=1)
            }
        case "per_device" | "per_class":
            formed = _by_nearness(equipment, devices, decided, by_class=options.layout == "per_class")
        case "per_phase":
            formed = _by_phase(network, devices)
        case "single":
            formed = {"grid": (devices, whole_feeder(network), network.source_bus)}
    deciding = {device.name for device in decided}
    return {
        name: {"devices": [device.name for device in own], "zone": zone, "pcc": network.buses[pcc]}
        for name, (own, zone, pcc) in formed.items()
        if any(device.name in deciding for device in own)
    }


def _within(devices: Sequence[Device], buses: Sequence[int]) -> list[Device]:
    """Return the devices at some buses."""
    inside = frozenset(buses)
    return [device for device in devices if device.bus in inside]


def _by_nearness(
    equipment: Equipment, devices: Sequence[Device], decided: Sequence[Device], *, by_class: bool
) -> Formed:
    network, groups = equipment.network, dict[str, list[Device]]()
    kinds = {device.spec["kind"] for device in decided}
    for device in [d for d in devices if d.spec["kind"] in kinds] if by_class else decided:
        kind = str(device.spec["kind"])
        groups.setdefault(_CLASS_NAMES.get(kind, f"{kind}s") if by_class else device.name, []).append(device)
    # Sorted, so that a bus equally near to two goes to the first of the feeder. What no device reaches is left out.
    sources = sorted({device.bus for own in groups.values() for device in own})
    near = {bus: path[0] for bus, path in nx.multi_source_dijkstra_path(equipment.lengths, sources).items()}
    formed: Formed = {}
    for name, own in groups.items():
        at = {device.bus for device in own}
        buses = sorted(at | {bus for bus, nearest in near.items() if nearest in at})
        zone: dict[str, Any] = {"buses": [network.buses[bus] for bus in buses]}
        if not by_class and own[0].phases and own[0].phases != (1, 2, 3):
            zone["phases"] = list(own[0].phases)  # one that is not tied to all phases sees its own of them
        formed[name] = own, zone, own[0].bus
    return formed


def _by_phase(network: Network, devices: Sequence[Device]) -> Formed:
    whole, source = whole_feeder(network), network.source_bus
    formed: Formed = {
        name: ([device for device in devices if device.phases == (phase,)], {**whole, "phases": [phase]}, source)
        for phase, name in _PHASE_NAMES.items()
    }
    several = [device for device in devices if len(device.phases) != 1]
    name = "three_phase" if all(len(device.phases) == 3 for device in several) else "multi_phase"
    return formed | {name: (several, whole, source)}


def whole_feeder(network: Network) -> dict[str, Any]:
    """Return the zone of all buses, as a scenario says it."""
    if len(network.tree.order) == len(network.buses):  # else some are fed by nothing, and are downstream of no bus
        return {"downstream_of": network.buses[network.source_bus]}
    return {"buses": list(network.buses)}


#: How much better a place for a cut is than a short line: a zone behind a regulator has its own voltage.
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


def cut_zones(equipment: Equipment, device_buses: Sequence[int], count: int) -> list[Zone]:
    """Cut a feeder into at most ``count`` zones that each have a device and, together, every bus once.

    The tree below the source is cut branch by branch, where both parts get most nodes, demand and devices: a branch
    weighs three times at a regulator, twice at a switch, and up to twice by its electrical length. Zones come in the
    order of their roots from the source.
    """
    network, tree = equipment.network, equipment.network.tree
    parts = _Cutter(tree, *_weigh(network, device_buses), _bonus(equipment))
    while len(parts.roots) < count and parts.cut():
        pass
    owner, roots = parts.owner, sorted(parts.roots)
    owner_above = owner[tree.place[tree.above[tree.order]]]
    unfed = np.flatnonzero(tree.depth < 0).tolist()
    zones = []
    for root in roots:
        # Buses that nothing feeds go with the first zone, which then has to be said bus by bus.
        more = unfed if root == 0 else []
        buses = sorted(tree.order[owner == root].tolist() + more)
        until = [other for other in roots if other and owner_above[other] == root]
        data: dict[str, Any] = {"downstream_of": network.buses[tree.order[root]]}
        if until:
            data["until"] = [network.buses[tree.order[other]] for other in until]
        if more or len(buses) <= 1 + len(until):
            data = {"buses": [network.buses[bus] for bus in buses]}
        zones.append(Zone(int(tree.order[root]), tuple(buses), data))
    return zones


class _Cutter:
    """The parts that a tree has been cut into, each bus by its place in the tree's order.

    Args:
        tree: The tree.
        weight: What each bus weighs, shape (n_buses,).
        devices: How many devices it has, shape (n_buses,).
        bonus: How good a place for a cut the hop above it is, shape (n_buses,).

    Attributes:
        owner: The root of the part that each bus is in, shape (n_fed,).
        roots: The root of each part, the tree's first; as all of it by their places.
    """

    def __init__(self, tree: Tree, weight: FloatArray, devices: IntArray, bonus: FloatArray) -> None:
        self.owner = np.zeros(len(tree.order), dtype=np.int64)
        self.roots = [0]
        self._buses, self._end, self._bonus = tree.order, tree.end[tree.order], bonus[tree.order]
        self._above, self._weight = tree.place[tree.above[tree.order]].tolist(), weight[tree.order].tolist()
        self._below: list[list[int]] = [[] for _ in self._above]
        total, owned = self._weight.copy(), devices[tree.order].tolist()
        for bus in range(len(total) - 1, 0, -1):  # all that are below one come behind it
            above = self._above[bus]
            total[above] += total[bus]
            owned[above] += owned[bus]
            self._below[above].append(bus)
        self._total, self._owned = np.array(total), np.array(owned)
        self._best = {0: self._find_best(0)}

    def cut(self) -> bool:
        """Cut the tree where it is best cut next; return whether there was such a place."""
        best = max((cut for cut in self._best.values() if cut), default=None)
        if best is None:
            return False
        new, root = best[2], int(self.owner[best[2]])
        self.owner[new : self._end[new]][self.owner[new : self._end[new]] == root] = new
        self.roots.append(new)
        self._below[self._above[new]].remove(new)
        bus = new
        while bus != root:  # summed up anew, in the same order, so that parts that were equal stay so
            bus, total = self._above[bus], self._weight[self._above[bus]]
            for each in self._below[bus]:
                total += self._total[each]
            self._total[bus] = total
            self._owned[bus] -= self._owned[new]
        for part in (root, new):  # in the others the best place is where it was
            self._best[part] = self._find_best(part)
        return True

    def _find_best(self, root: int) -> tuple[float, int, int] | None:
        """Return the best cut of a part: its score, its bus negated so that ties go to the first, and its place."""
        inside = np.flatnonzero(self.owner[root : self._end[root]] == root)[1:] + root
        inside = inside[(self._owned[inside] > 0) & (self._owned[inside] < self._owned[root])]  # a device in each
        if not len(inside):
            return None
        score = np.minimum(self._total[inside], self._total[root] - self._total[inside]) * self._bonus[inside]
        first = np.lexsort([self._buses[inside], -score])[0]
        return float(score[first]), -int(self._buses[inside[first]]), int(inside[first])


def _weigh(network: Network, device_buses: Sequence[int]) -> tuple[FloatArray, IntArray]:
    """Return what each bus weighs, by nodes, demand and devices in equal parts, and how many devices it has."""
    n = len(network.buses)
    nodes = np.bincount(network.node_bus, minlength=n) / len(network.nodes)
    demand = np.bincount(network.loads.bus, weights=np.abs(network.loads.kw), minlength=n)
    count = np.bincount(np.asarray(device_buses, dtype=np.int64), minlength=n)
    parts = [part / total for part in (demand, count) if (total := float(part.sum())) > 0.0]
    return nodes + sum(parts), count


def _bonus(equipment: Equipment) -> FloatArray:
    """Return how good a place for a cut the hop above each bus is, 1 or more, shape (n_buses,)."""
    network = equipment.network
    regulated = {f"{kind}.{name}" for name in network.regulators for kind in ("transformer", "autotrans")}
    regulated |= {element.name.lower() for element in equipment.tap_changers}
    longest = float(equipment.length_pu.max(initial=0.0)) or 1.0
    values = np.append(1.0 + equipment.length_pu / longest, 1.0)  # the last where there is no hop
    values[[int(element.ratings["branch"]) for element in equipment.elements["switches"]]] = _AT_SWITCH
    values[[branch for branch, name in enumerate(network.branches.names) if name in regulated]] = _AT_REGULATOR
    bonus: FloatArray = values[network.tree.branch]
    return bonus
