"""Who decides over which devices and sees which part of the feeder: layouts of agents, and the zones they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from powergrid.grid.feeder.network import Network
from powergrid.scenario.discovery.devices import Device
from powergrid.scenario.discovery.equipment import Equipment
from powergrid.scenario.vocabulary import LayoutSpec

_CLASS_NAMES = {"storage": "batteries", "switch": "switches"}
_PHASE_NAMES = {1: "phase_a", 2: "phase_b", 3: "phase_c"}

Agents = dict[str, dict[str, Any]]


def form_agents(equipment: Equipment, devices: Sequence[Device], options: LayoutSpec) -> Agents:
    """Form the agents of a layout, as a scenario says them; each device belongs to at most one.

    Every agent has something to decide: what the feeder's own controls move, or nobody, forms no agent by itself.
    """
    decided = [device for device in devices if str(device.spec.get("control", "agent")) == "agent"]
    decided = decided or list(devices)  # where there is none, an error tells so later
    match options.layout:
        case "per_zone":
            agents = _per_zone(equipment, devices, decided, options.zones)
        case "per_device":
            agents = _per_device(equipment, decided)
        case "per_class":
            agents = _per_class(equipment, devices, decided)
        case "per_phase":
            agents = _per_phase(equipment.network, devices)
        case "single":
            network = equipment.network
            agents = {"grid": _agent(network, devices, whole_feeder(network), network.source_bus)}
    deciding = {device.name for device in decided}
    return {name: agent for name, agent in agents.items() if not deciding.isdisjoint(agent["devices"])}


def _agent(network: Network, devices: Sequence[Device], zone: dict[str, Any], pcc: int) -> dict[str, Any]:
    return {"devices": [device.name for device in devices], "zone": zone, "pcc": network.buses[pcc]}


def _per_zone(equipment: Equipment, devices: Sequence[Device], decided: Sequence[Device], most: int | None) -> Agents:
    """Make every zone an agent; each bus is in one zone."""
    zones = cut_zones(equipment, [device.bus for device in decided], most or default_count(equipment.network))
    agents: Agents = {}
    for number, zone in enumerate(zones, start=1):
        own = [device for device in devices if device.bus in set(zone.buses)]
        agents[f"zone_{number}"] = _agent(equipment.network, own, zone.data, zone.root)
    return agents


def _per_device(equipment: Equipment, devices: Sequence[Device]) -> Agents:
    """Make every device an agent, which sees the buses that are electrically nearer to it than to other devices.

    Devices at one bus share its zone; a device that is not tied to all phases sees its own phases of it.
    """
    near = _nearest_device(equipment, devices)
    agents: Agents = {}
    for device in devices:
        zone = _zone_around(equipment.network, near, {device.bus})
        if device.phases and device.phases != (1, 2, 3):
            zone["phases"] = list(device.phases)
        agents[device.name] = _agent(equipment.network, [device], zone, device.bus)
    return agents


def _per_class(equipment: Equipment, devices: Sequence[Device], decided: Sequence[Device]) -> Agents:
    """Make every kind of devices an agent, which sees the buses that are electrically nearer to these than to others.

    Kinds with devices at one bus share what is nearest to it.
    """
    kinds = {device.spec["kind"] for device in decided}
    devices = [device for device in devices if device.spec["kind"] in kinds]
    near = _nearest_device(equipment, devices)
    agents: Agents = {}
    for kind in dict.fromkeys(str(device.spec["kind"]) for device in devices):
        own = [device for device in devices if device.spec["kind"] == kind]
        zone = _zone_around(equipment.network, near, {device.bus for device in own})
        agents[_CLASS_NAMES.get(kind, f"{kind}s")] = _agent(equipment.network, own, zone, own[0].bus)
    return agents


def _per_phase(network: Network, devices: Sequence[Device]) -> Agents:
    """Make every phase an agent over its single-phase devices, and one agent of the devices of several phases."""
    agents: Agents = {}
    for phase, name in _PHASE_NAMES.items():
        own = [device for device in devices if device.phases == (phase,)]
        agents[name] = _agent(network, own, {**whole_feeder(network), "phases": [phase]}, network.source_bus)
    several = [device for device in devices if len(device.phases) != 1]
    name = "three_phase" if all(len(device.phases) == 3 for device in several) else "multi_phase"
    agents[name] = _agent(network, several, whole_feeder(network), network.source_bus)
    return agents


def whole_feeder(network: Network) -> dict[str, Any]:
    """Return the zone of all buses, as a scenario says it."""
    if len(network.tree) == len(network.buses):
        return {"downstream_of": network.buses[network.source_bus]}
    return {"buses": list(network.buses)}


def _nearest_device(equipment: Equipment, devices: Sequence[Device]) -> dict[int, int]:
    """Return for each bus the bus with a device that is electrically nearest; equally near, the first of the feeder.

    Buses that no device reaches are left out.
    """
    sources = sorted({device.bus for device in devices})
    return {bus: path[0] for bus, path in nx.multi_source_dijkstra_path(equipment.lengths, sources).items()}


def _zone_around(network: Network, near: dict[int, int], at: set[int]) -> dict[str, Any]:
    buses = sorted(at | {bus for bus, nearest in near.items() if nearest in at})
    return {"buses": [network.buses[bus] for bus in buses]}


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


def cut_zones(equipment: Equipment, device_buses: Sequence[int], count: int) -> list[Zone]:
    """Cut a feeder into at most ``count`` zones that each have a device and, together, every bus once.

    The tree below the source is cut branch by branch, the zone with the most nodes, demand and devices first, where
    both parts get most: a branch weighs three times at a regulator, twice at a switch, and up to twice by its
    electrical length. Buses that nothing feeds go with the first zone.

    Args:
        equipment: What the feeder has.
        device_buses: Bus index of each device.
        count: Most zones.

    Returns:
        The zones in the order of their roots from the source.
    """
    network = equipment.network
    tree, source = network.tree, network.source_bus
    order = list(nx.dfs_preorder_nodes(tree, source))
    weight, devices = _weigh(network, device_buses)
    bonus = _bonus(equipment)
    roots = [source]
    while len(roots) < count:
        best = max(
            (cut for root in roots for cut in [_best_cut(tree, root, roots, weight, devices, bonus)] if cut),
            default=None,
        )
        if best is None:
            break
        roots.append(-best[1])
    roots.sort(key=order.index)
    above = {bus: next(iter(tree.predecessors(bus))) for bus in order if bus != source}
    owner: dict[int, int] = {}
    for bus in order:
        owner[bus] = bus if bus in roots else owner[above[bus]]
    unfed = [bus for bus in range(len(network.buses)) if bus not in owner]
    zones = []
    for root in roots:
        buses = sorted([bus for bus, own in owner.items() if own == root] + (unfed if root == source else []))
        until = [other for other in roots if other != source and owner[above[other]] == root]
        zones.append(
            Zone(root, tuple(buses), _zone_data(network, root, buses, until, named=root == source and bool(unfed)))
        )
    return zones


def _weigh(network: Network, device_buses: Sequence[int]) -> tuple[dict[int, float], dict[int, int]]:
    """Return what each bus weighs, by nodes, demand and devices in equal parts, and how many devices it has."""
    n = len(network.buses)
    nodes = np.bincount(network.node_bus, minlength=n) / len(network.nodes)
    demand = np.bincount(network.loads.bus, weights=np.abs(network.loads.kw), minlength=n)
    count = np.bincount(np.asarray(device_buses, dtype=np.int64), minlength=n)
    parts = [part / total for part in (demand, count) if (total := float(part.sum())) > 0.0]
    weight = nodes + sum(parts)
    return dict(enumerate(weight.tolist())), dict(enumerate(count.tolist()))


def _bonus(equipment: Equipment) -> dict[tuple[int, int], float]:
    """Return how good a place for a cut each hop between buses is, 1 or more."""
    network = equipment.network
    regulated = {f"{kind}.{name}" for name in network.regulators for kind in ("transformer", "autotrans")}
    regulated |= {element.name.lower() for element in equipment.tap_changers if not element.note}
    switches = {int(element.ratings["branch"]) for element in equipment.switches}
    longest = float(equipment.length_pu.max(initial=0.0)) or 1.0
    names = network.branches.names
    bonus = {}
    for one, other, data in network.graph.edges(data=True):
        branch = data["branch"]
        value = 1.0 + float(equipment.length_pu[branch]) / longest
        if names[branch] in regulated:
            value = _AT_REGULATOR
        elif branch in switches:
            value = _AT_SWITCH
        bonus[one, other] = bonus[other, one] = value
    return bonus


def _best_cut(
    tree: nx.DiGraph[int],
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


def _zone_data(
    network: Network, root: int, buses: Sequence[int], until: Sequence[int], *, named: bool
) -> dict[str, Any]:
    """Say a zone in the shorter of two ways: what is fed through a bus up to others, or bus by bus."""
    names = network.buses
    if named or len(buses) <= 1 + len(until):
        return {"buses": [names[bus] for bus in buses]}
    return {"downstream_of": names[root]} | ({"until": [names[bus] for bus in until]} if until else {})
