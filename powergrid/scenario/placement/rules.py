"""The rules that place zones and devices on another feeder; the same outcome every time."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from powergrid.scenario.discovery.agents import Zone, cut_zones
from powergrid.scenario.discovery.equipment import Element
from powergrid.scenario.placement.sites import Sites
from powergrid.scenario.placement.wishes import Rule


def cut_into(sites: Sites, count: int) -> list[Zone]:
    """Cut a feeder into zones that all have loads; where there are too few such, into zones of any buses."""
    network = sites.equipment.network
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
