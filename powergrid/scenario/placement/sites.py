"""Where things are on a feeder, what on another is most like them, and the rules that choose; the same every time."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from powergrid.scenario.discovery.agents import Zone, cut_zones
from powergrid.scenario.discovery.equipment import Element, Equipment
from powergrid.scenario.vocabulary import Rule


def like_bus(home: Equipment, bus: int, phases: Sequence[int], there: Equipment, count: int = 3) -> list[int]:
    """Return the buses of a feeder that are most like one of another: phases first, then voltage, distance, demand."""
    share = float(home.load_kw[bus]) / max(home.total_kw, 1e-9)

    def unlike(other: int) -> tuple[int, float]:
        missing = len(set(phases) - set(there.bus_phases[other]))
        level = abs(float(np.log(there.volts[other] / home.volts[bus])))
        far = abs(float(there.distance[other] - home.distance[bus]))
        heavy = abs(float(there.load_kw[other]) / max(there.total_kw, 1e-9) - share)
        return missing, 0.5 * level + far + heavy

    return sorted(there.hosts(range(len(there.bus_phases))), key=lambda other: (*unlike(other), other))[:count]


def like_element(home: Element, at: Equipment, there: Equipment, count: int = 3) -> list[Element]:
    """Return the elements of another feeder, of the same class, that are most like one: phases, rating, distance."""
    found = there.by_distance(home.name.lower().partition(".")[0])
    largest = max((e.ratings.get("p_max_kw", 0.0) for e in found), default=0.0) or 1.0
    own = home.ratings.get("p_max_kw", 0.0) * there.total_kw / max(at.total_kw, 1e-9)

    def unlike(element: Element) -> tuple[int, float]:
        missing = len(set(home.phases) - set(element.phases))
        far = abs(float(there.distance[element.bus] - at.distance[home.bus]))
        return missing, far + abs(element.ratings.get("p_max_kw", 0.0) - own) / largest

    return sorted(found, key=unlike)[:count]


def like_branch(name: str, home: Equipment, there: Equipment, count: int = 3) -> list[str]:
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


def _end_of(feeder: Equipment, branch: int) -> tuple[int, float]:
    """Return a branch's number of phases and how far its far end is."""
    branches = feeder.network.branches
    return int(branches.phases[branch]), max(
        (float(feeder.distance[bus]) for bus in branches.buses[branch]), default=0.0
    )


def cut_into(feeder: Equipment, count: int) -> list[Zone]:
    """Cut a feeder into zones that all have loads; where there are too few such, into zones of any buses."""
    network = feeder.network
    with_load = np.flatnonzero(feeder.load_kw > 0.0).tolist()
    zones = cut_zones(feeder, with_load, count)
    return zones if len(zones) == count else cut_zones(feeder, range(len(network.buses)), count)


def match_zones(
    rule: Rule,
    home: Equipment,
    home_zones: Mapping[str, tuple[int, Sequence[int]]],
    there: Equipment,
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

    def rank(feeder: Equipment, root: int, buses: Sequence[int]) -> float:
        if rule == "load":
            return float(feeder.load_kw[list(buses)].sum())
        if rule == "distance":
            return float(feeder.distance[root])
        return float(sum(len(feeder.bus_phases[bus]) == 3 for bus in buses))

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
    there: Equipment,
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
    fits = [bus for bus in hosts if wanted <= set(there.bus_phases[bus])]
    if not fits:
        most = max(len(wanted & set(there.bus_phases[bus])) for bus in hosts)
        fits = [bus for bus in hosts if len(wanted & set(there.bus_phases[bus])) == most]
    if rule == "distance":
        along = places_along(there, zone)
        return min(fits, key=lambda bus: (abs(along[bus] - place), bus))
    weights = there.demand_at(fits, zone)
    if rule == "phase":
        exact = [bus for bus in fits if set(there.bus_phases[bus]) == wanted]
        fits, weights = exact or fits, np.ones(len(exact or fits))
    if not weights.sum() > 0.0:
        weights = np.ones(len(fits))
    rng = np.random.default_rng([seed, zlib.crc32(device.encode())])
    return int(rng.choice(fits, p=weights / weights.sum()))


def places_along(feeder: Equipment, zone: Sequence[int]) -> dict[int, float]:
    """Return how far along a zone each of its buses is: 0 nearest to the source, 1 farthest."""
    far = feeder.distance[list(zone)]
    near, span = float(far.min()), float(np.ptp(far)) or 1.0
    return {bus: (float(feeder.distance[bus]) - near) / span for bus in zone}


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
    rule: Rule, load: Element, home: Equipment, place: float, there: Equipment, zone: Sequence[int], taken: set[str]
) -> Element | None:
    """Return the load of a zone that stands for another feeder's, None where all are taken.

    ``load`` takes the nearest in size relative to the feeder's demand, ``distance`` the one as far along, ``phase`` the
    nearest in size of those on as many phases.
    """
    inside = [e for e in there.by_distance("load") if e.bus in zone]
    free = [e for e in inside if e.name not in taken and e.ratings["p_max_kw"] > 0]
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
