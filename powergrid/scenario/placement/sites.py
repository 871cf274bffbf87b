"""Where things are on a feeder, what on another is most like them, and the rules that choose; the same every time."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np

from powergrid.grid.engine import FloatArray
from powergrid.grid.feeder.network import Network
from powergrid.scenario.discovery.agents import Zone, cut_zones
from powergrid.scenario.discovery.equipment import Element, Equipment
from powergrid.scenario.vocabulary import Rule

_LOW_VOLTAGE = 1000.0


@dataclass(frozen=True)
class Sites:
    """A feeder's buses and elements, measured.

    Attributes:
        name: What errors call the feeder.
        equipment: What it has.
    """

    name: str
    equipment: Equipment

    @property
    def network(self) -> Network:
        """The feeder's network."""
        return self.equipment.network

    @cached_property
    def distance(self) -> FloatArray:
        """Electrical distance of each bus from the source, as part of the farthest's; 1 where nothing feeds it."""
        network = self.network
        found = nx.single_source_dijkstra_path_length(self.equipment.lengths, network.source_bus)
        farthest = max(found.values()) or 1.0
        return np.array([found.get(bus, farthest) / farthest for bus in range(len(network.buses))])

    @cached_property
    def load_kw(self) -> FloatArray:
        """Nominal demand at each bus [kW], shape (n_buses,)."""
        network = self.network
        return np.bincount(network.loads.bus, np.abs(network.loads.kw), len(network.buses)).astype(np.float64)

    @cached_property
    def total_kw(self) -> float:
        """Nominal demand of the feeder [kW]."""
        return float(self.load_kw.sum())

    @cached_property
    def volts(self) -> FloatArray:
        """Line-to-neutral base voltage of each bus [V], shape (n_buses,)."""
        network = self.network
        volts = np.ones(len(network.buses))
        volts[network.node_bus] = np.maximum(network.v_base, 1.0)
        return volts

    @property
    def phases(self) -> tuple[tuple[int, ...], ...]:
        """Phase numbers of each bus's nodes, 1 to 3 alone."""
        return self.equipment.bus_phases

    @cached_property
    def three_wire(self) -> bool:
        """Whether all loads are tied between phases: such a feeder has no neutral to hold others."""
        return bool(self.equipment.delta_loads) and all(self.equipment.delta_loads)

    @cached_property
    def fed(self) -> frozenset[int]:
        """Buses that the source feeds."""
        return frozenset(self.network.tree)

    def describe(self, bus: int) -> str:
        """Say a bus with what it has."""
        kv = self.volts[bus] * 3**0.5 / 1000.0
        phases = ".".join(map(str, self.phases[bus]))
        return f"{self.network.buses[bus]} (phases {phases}, {kv:.3g} kV, {self.load_kw[bus]:.0f} kW)"

    def hosts(self, buses: Iterable[int]) -> list[int]:
        """Return the fed buses among some that may take a device: not the source's, medium voltage if there is any."""
        source = self.network.source_bus
        usable = [bus for bus in buses if bus in self.fed and self.phases[bus]]
        usable = [bus for bus in usable if bus != source] or usable
        return [bus for bus in usable if self.volts[bus] * 3**0.5 > _LOW_VOLTAGE] or usable

    def demand_at(self, buses: Sequence[int], zone: Iterable[int]) -> FloatArray:
        """Return the nominal demand of a zone by the bus of some that it hangs on: its own, or the nearest one above.

        Returns:
            Demand [kW], shape (n_buses,).
        """
        tree, place = self.network.tree, {bus: i for i, bus in enumerate(buses)}
        found = np.zeros(len(place))
        for bus in zone:
            at: int | None = bus
            while at is not None and at not in place:
                at = next(iter(tree.predecessors(at)), None) if at in tree else None
            if at is not None:
                found[place[at]] += self.load_kw[bus]
        return found

    def elements(self, class_name: str) -> list[Element]:
        """Return the elements of a class that a device may be bound to, in the order of their distance."""
        has = self.equipment
        tapped = (*has.regulators, *(element for element in has.tap_changers if not element.note))
        kinds: dict[str, Sequence[Element]] = {
            **dict.fromkeys(("regcontrol", "transformer", "autotrans"), tapped),
            "capacitor": has.capacitors,
            "storage": has.storage,
            "pvsystem": has.pv,
            "generator": has.generators,
            "line": has.switches,
            "load": has.loads,
        }
        return self.in_order(kinds.get(class_name, ()))

    def in_order(self, elements: Iterable[Element]) -> list[Element]:
        """Return elements, each once, in the order of their distance."""
        once = {element.name.lower(): element for element in elements}
        return sorted(once.values(), key=lambda element: float(self.distance[element.bus]))

    def has(self, name: str) -> bool:
        """Say whether there is a ``class.name`` that a device could be bound to."""
        class_name, _, rest = name.lower().partition(".")
        network = self.network
        if class_name == "line":
            return rest in network.switches
        if class_name == "capacitor":
            return rest in network.capacitors
        return self.equipment.find(name) is not None


def like_bus(home: Sites, bus: int, phases: Sequence[int], there: Sites, count: int = 3) -> list[int]:
    """Return the buses of a feeder that are most like one of another: phases first, then voltage, distance, demand."""
    share = float(home.load_kw[bus]) / max(home.total_kw, 1e-9)

    def unlike(other: int) -> tuple[int, float]:
        missing = len(set(phases) - set(there.phases[other]))
        level = abs(float(np.log(there.volts[other] / home.volts[bus])))
        far = abs(float(there.distance[other] - home.distance[bus]))
        heavy = abs(float(there.load_kw[other]) / max(there.total_kw, 1e-9) - share)
        return missing, 0.5 * level + far + heavy

    return sorted(there.hosts(range(len(there.phases))), key=lambda other: (*unlike(other), other))[:count]


def like_element(home: Element, at: Sites, there: Sites, count: int = 3) -> list[Element]:
    """Return the elements of another feeder, of the same class, that are most like one: phases, rating, distance."""
    found = there.elements(home.name.lower().partition(".")[0])
    largest = max((e.ratings.get("p_max_kw", 0.0) for e in found), default=0.0) or 1.0
    own = home.ratings.get("p_max_kw", 0.0) * there.total_kw / max(at.total_kw, 1e-9)

    def unlike(element: Element) -> tuple[int, float]:
        missing = len(set(home.phases) - set(element.phases))
        far = abs(float(there.distance[element.bus] - at.distance[home.bus]))
        return missing, far + abs(element.ratings.get("p_max_kw", 0.0) - own) / largest

    return sorted(found, key=unlike)[:count]


def like_branch(name: str, home: Sites, there: Sites, count: int = 3) -> list[str]:
    """Return the branches of another feeder, of the same class, that are most like one: phases, then distance."""
    names = home.network.branches.names
    if name.lower() not in names:
        return []
    phases, far = _end_of(home, names.index(name.lower()))
    class_name = name.lower().partition(".")[0]
    branches = there.network.branches

    def unlike(branch: int) -> tuple[int, float, int]:
        other_phases, other_far = _end_of(there, branch)
        return abs(other_phases - phases), abs(other_far - far), branch

    same = [i for i, other in enumerate(branches.names) if other.startswith(f"{class_name}.") and branches.closed[i]]
    return [branches.names[i] for i in sorted(same, key=unlike)[:count]]


def _end_of(sites: Sites, branch: int) -> tuple[int, float]:
    """Return a branch's number of phases and how far its far end is."""
    branches = sites.network.branches
    return int(branches.phases[branch]), max(
        (float(sites.distance[bus]) for bus in branches.buses[branch]), default=0.0
    )


def cut_into(sites: Sites, count: int) -> list[Zone]:
    """Cut a feeder into zones that all have loads; where there are too few such, into zones of any buses."""
    network = sites.network
    with_load = np.flatnonzero(sites.load_kw > 0.0).tolist()
    zones = cut_zones(sites.equipment, with_load, count)
    return zones if len(zones) == count else cut_zones(sites.equipment, range(len(network.buses)), count)


def match_zones(
    rule: Rule,
    home: Sites,
    home_zones: Mapping[str, tuple[int, Sequence[int]]],
    there: Sites,
    zones: Sequence[Zone],
    fixed: Mapping[str, Iterable[int]],
) -> dict[str, Zone]:
    """Return for each agent a zone of the new feeder.

    An agent with devices at buses that were mapped gets the zone of the first of them; the others are matched by rank:
    by demand (``load``), by the distance of the point of common coupling (``distance``), or by the number of
    three-phase buses (``phase``).

    Args:
        rule: The rule.
        home: The feeder that the agents are on.
        home_zones: Bus of the point of common coupling and buses of each agent's zone there.
        there: The new feeder.
        zones: Its zones, at least one for each agent.
        fixed: Buses of the new feeder where devices of an agent have to be.
    """

    def rank(sites: Sites, root: int, buses: Sequence[int]) -> float:
        if rule == "load":
            return float(sites.load_kw[list(buses)].sum())
        if rule == "distance":
            return float(sites.distance[root])
        return float(sum(len(sites.phases[bus]) == 3 for bus in buses))

    found: dict[str, Zone] = {}
    left = list(zones)
    for agent, buses in fixed.items():
        own = next((zone for bus in buses for zone in left if bus in zone.buses), None)
        if own is not None:
            found[agent] = own
            left.remove(own)
    agents = [agent for agent in home_zones if agent not in found]
    agents.sort(key=lambda agent: rank(home, *home_zones[agent]))
    left.sort(key=lambda zone: rank(there, zone.root, zone.buses))
    return found | dict(zip(agents, left, strict=False))


def pick_bus(
    rule: Rule,
    device: str,
    phases: Sequence[int],
    place: float,
    there: Sites,
    zone: Sequence[int],
    seed: int,
) -> int:
    """Return the bus of a zone where a device goes.

    Only buses with all its phases are looked at where the zone has any, and never low voltage where it has other.
    ``load`` draws one with chances by the demand of the zone that hangs on it; ``distance`` takes the one that is as
    far along its zone; ``phase`` draws one of those with just the device's phases.

    Args:
        rule: The rule.
        device: The device's name, which with the seed starts the draw.
        phases: Phases of the device.
        place: How far along its zone the device is at home, 0 to 1.
        there: The new feeder.
        zone: Buses of the agent's zone there.
        seed: Seed of the draw.
    """
    hosts = there.hosts(zone) or list(zone)
    wanted = set(phases)
    fits = [bus for bus in hosts if wanted <= set(there.phases[bus])]
    if not fits:
        most = max(len(wanted & set(there.phases[bus])) for bus in hosts)
        fits = [bus for bus in hosts if len(wanted & set(there.phases[bus])) == most]
    if rule == "distance":
        along = places_along(there, zone)
        return min(fits, key=lambda bus: (abs(along[bus] - place), bus))
    weights = there.demand_at(fits, zone)
    if rule == "phase":
        exact = [bus for bus in fits if set(there.phases[bus]) == wanted]
        fits, weights = exact or fits, np.ones(len(exact or fits))
    if not weights.sum() > 0.0:
        weights = np.ones(len(fits))
    rng = np.random.default_rng([seed, zlib.crc32(device.encode())])
    return int(rng.choice(fits, p=weights / weights.sum()))


def places_along(sites: Sites, zone: Sequence[int]) -> dict[int, float]:
    """Return how far along a zone each of its buses is: 0 nearest to the source, 1 farthest."""
    far = sites.distance[list(zone)]
    near, span = float(far.min()), float(np.ptp(far)) or 1.0
    return {bus: (float(sites.distance[bus]) - near) / span for bus in zone}


def fit_phases(wanted: Sequence[int], has: Sequence[int]) -> tuple[int, ...]:
    """Reduce a device's phases to what a bus has; where it has none of them, as many of its own."""
    common = tuple(phase for phase in wanted if phase in has)
    return common or tuple(has[: len(wanted)])


def match_elements(home: Sequence[Element], there: Sequence[Element]) -> dict[str, Element]:
    """Match elements of one class by order of distance, those of the same phases first; each is matched once.

    Returns:
        What stands for an element, by its lower-case name; elements too many are left out.
    """
    left, found = list(there), dict[str, Element]()
    for element in home:
        same = next((e for e in left if e.phases == element.phases), None)
        alike = next((e for e in left if len(e.phases) == len(element.phases)), None)
        best = same or alike or next(iter(left), None)
        if best is not None:
            found[element.name.lower()] = best
            left.remove(best)
    return found


def pick_load(
    rule: Rule, load: Element, home: Sites, place: float, there: Sites, zone: Sequence[int], taken: set[str]
) -> Element | None:
    """Return the load of a zone that stands for another feeder's, None where all are taken.

    ``load`` takes the nearest in size relative to the feeder's demand, ``distance`` the one as far along, ``phase`` the
    nearest in size of those on as many phases.
    """
    inside = set(zone)
    free = [e for e in there.elements("load") if e.bus in inside and e.name not in taken and e.ratings["p_max_kw"] > 0]
    if not free:
        return None
    along = places_along(there, zone)
    wanted = load.ratings["p_max_kw"] * there.total_kw / max(home.total_kw, 1e-9)

    def unlike(element: Element) -> tuple[float, float]:
        size = abs(element.ratings["p_max_kw"] - wanted)
        if rule == "distance":
            return abs(along[element.bus] - place), size
        if rule == "phase":
            return abs(len(element.phases) - len(load.phases)), size
        return size, 0.0

    return min(free, key=unlike)
