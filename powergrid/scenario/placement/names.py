"""What a name of the old feeder is on the new one: by the map, by its own name, by rules, and what is most like it.

Keeps the record of what moved, what has no place and what is left over. The same every time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from powergrid.grid.feeder.network import fits
from powergrid.scenario.discovery.equipment import Element, Equipment
from powergrid.scenario.vocabulary import PlacementSpec

#: How many of what is most like a name are told.
_SHOWN = 3


class Names:
    """Find what stands for a scenario's names on another feeder, and keep the record.

    Args:
        data: The whole scenario as plain data.
        home: The feeder that its names are of.
        there: The new feeder.
        options: How names are found.

    Attributes:
        problems: What has no place.
        moves: By key: what stood there, what stands there now, and why.
        left: What has no counterpart on either feeder.
        dropped: Devices that the map leaves out.
        used: Names of the map that the scenario refers to.
        ratio: Nominal demand of the new feeder over that of the old one.
    """

    def __init__(self, data: Mapping[str, Any], home: Equipment, there: Equipment, options: PlacementSpec) -> None:
        self.data, self.home, self.there, self.options = data, home, there, options
        self.map = {key.lower(): value for key, value in options.map.items()}
        self.used: set[str] = set()
        self.problems: list[str] = []
        self.moves: dict[str, tuple[str, ...]] = {}
        self.left: list[str] = []
        self.dropped: set[str] = set()
        self.ratio = there.total_kw / home.total_kw if home.total_kw > 0.0 and there.total_kw > 0.0 else 1.0
        self._matched: dict[str, dict[str, Element]] = {}
        self._check_map()

    def _check_map(self) -> None:
        """See that what is mapped to is there."""
        for old, new in self.map.items():
            kind = "element" if "." in old else "bus"
            if new is None:
                continue
            if kind == "bus":
                known = new.lower() in self.there.network.bus_index
            else:
                known = self.there.has(new) or new.lower() in self.there.network.branch_index
            if not known:
                self.problems.append(f"placement.map.{old}: no {kind} {new!r} on {self.there.feeder}{self.like(old)}")
            if kind == "element" and old.split(".")[0] != new.lower().split(".")[0]:
                self.problems.append(f"placement.map.{old}: {new!r} is of another class")

    # -- by the map, by name, by a rule

    def mapped(self, name: str) -> str | None:
        """Return what the map has for a name that is in it."""
        self.used.add(name.lower())
        return self.map[name.lower()]

    def drop(self, name: str, old: str) -> bool:
        """Leave a device out where the map says so."""
        if old.lower() not in self.map or self.map[old.lower()] is not None:
            return False
        self.used.add(old.lower())
        self.dropped.add(name)
        self.left.append(f"devices.{name}: left out by the map")
        return True

    def bus(self, key: str, name: str, phases: Sequence[int] = ()) -> str | None:
        """Return the bus that stands for one by the map or by its own name; None, with a problem, where none does."""
        mapped = self.map.get(name.lower())
        new = name if mapped is None else str(self.mapped(name))
        index = self.there.network.bus_index.get(new.lower())
        if index is None:
            if mapped is None:  # else it is a problem of the map, told before
                self.problems.append(f"{key}: bus {name!r} is not on {self.there.feeder}{self.like(name, phases)}")
            return None
        has = self.there.bus_phases[index]
        missing = [phase for phase in phases if phase not in has]
        # Who maps a device to a bus means it: its phases are reduced to those that are there.
        if missing and (mapped is None or not has):
            lacks = f"bus {new!r} of {self.there.feeder} has phases {list(has)}, not {missing}"
            self.problems.append(f"{key}: {lacks}{self.like(name, phases)}")
            return None
        self.moves[key] = (name, new, "same name" if mapped is None else "map")
        return new

    def site(self, key: str, name: str, old: str, phases: Sequence[int], place: float, zone: Sequence[int]) -> str:
        """Return the bus of a zone where something goes by the rule.

        ``load`` draws one with chances by the demand of the zone that hangs on it; ``distance`` takes the one that is
        as far along its zone as ``place``, 0 to 1; ``phase`` draws one of those with just these phases.
        """
        there, rule, wanted = self.there, self.options.rule, set(phases)
        hosts = there.hosts(zone) or list(zone)
        # Those with all the phases where the zone has any, else with most of them.
        common = [len(wanted & set(there.bus_phases[bus])) for bus in hosts]
        most = max(common)
        fits = [bus for bus, count in zip(hosts, common, strict=True) if count == most]
        if rule == "distance":
            along = places_along(there, zone)
            bus = min(fits, key=lambda bus: (abs(along[bus] - place), bus))
        else:
            if rule == "phase":
                fits = [bus for bus in fits if set(there.bus_phases[bus]) == wanted] or fits
            weights = there.demand_at(fits, zone) if rule == "load" else np.ones(len(fits))
            if not weights.sum() > 0.0:
                weights = np.ones(len(fits))
            # By name, so that a device goes to the same bus whatever others there are; and not by hash(), which
            # Python salts, so that it does in every process.
            rng = np.random.default_rng([self.options.seed, zlib.crc32(name.encode())])
            bus = int(rng.choice(fits, p=weights / weights.sum()))
        self.moves[key] = (old, there.network.buses[bus], f"rule {rule}")
        return there.network.buses[bus]

    def in_order(self, class_name: str) -> dict[str, Element]:
        """Match all elements of a class that the scenario refers to and does not map, by order of distance."""
        if class_name not in self._matched:
            key = {"regcontrol": "taps", "capacitor": "steps_on"}.get(class_name, "")
            named = {f"{class_name}.{name.lower()}" for name in self.data[key]} if key else set()
            bound = [str(spec["element"]) for spec in self.data["devices"].values() if spec.get("element")]
            own = [element for name in bound if (element := self.home.find(name)) is not None]
            named |= {element.name.lower() for element in own}
            mapped = {str(new).lower() for new in self.map.values()}
            known = self.home.by_distance(class_name)
            if class_name == "regcontrol":  # the tap changers that only a scenario takes for such
                known = self.home.in_order([*known, *(e for e in own if e in self.home.elements["tap_changers"])])
            self._matched[class_name] = _match(
                [e for e in known if e.name.lower() in named - set(self.map)],
                [e for e in self.there.by_distance(class_name) if e.name.lower() not in mapped],
            )
        return self._matched[class_name]

    def struck(self, key: str, old: str, known: Sequence[str]) -> str:
        """Return what an event strikes: what fits the name or pattern, or what is most like it where a rule places."""
        if self.map.get(old.lower()) is not None:
            return str(self.mapped(old))
        if self.options.rule is None or (any(sign in old for sign in "*?") and old.lower() not in known):
            new = old if any(fits(each, old) for each in known) else None
        elif "." in old:
            new = next(iter(self._like_branch(old)), None)
        else:
            new = next((self.there.network.buses[bus] for bus in self._like_bus(old)), None)
        if new is None:
            self.problems.append(f"{key}: {old!r} is not on {self.there.feeder}{self.like(old)}")
            return old
        self.moves[f"{key} {old}"] = (old, new, "most like it" if new != old else "same name")
        return new

    # -- what is most like what

    def like(self, name: str, phases: Sequence[int] = ()) -> str:
        """Say what is most like a bus or ``class.name`` of the old feeder."""
        if "." in name:
            shown = [_say(e, self.there) for e in self._like_element(name)[:_SHOWN]] or self._like_branch(name)[:_SHOWN]
        else:
            shown = [self.there.describe(bus) for bus in self._like_bus(name, phases)[:_SHOWN]]
        return f"; most like it: {', '.join(shown)}" if shown else "; there is nothing like it"

    def _like_bus(self, name: str, phases: Sequence[int] = ()) -> list[int]:
        """Return the buses that may take a device, the most like one of home first: phases, voltage, place, demand."""
        home, there = self.home, self.there
        bus = home.network.bus_index.get(name.lower())
        if bus is None:
            return []
        wanted = set(phases or home.bus_phases[bus])
        share = float(home.load_kw[bus]) / max(home.total_kw, 1e-9)

        def unlike(other: int) -> tuple[int, float, int]:
            level = abs(float(np.log(there.volts[other] / home.volts[bus])))
            far = abs(float(there.distance[other] - home.distance[bus]))
            heavy = abs(float(there.load_kw[other]) / max(there.total_kw, 1e-9) - share)
            return len(wanted - set(there.bus_phases[other])), 0.5 * level + far + heavy, other

        return sorted(there.hosts(range(len(there.bus_phases))), key=unlike)

    def _like_element(self, name: str) -> list[Element]:
        """Return the elements of the same class, the most like one of home first: phases, then rating and distance."""
        own, there = self.home.find(name), self.there
        if own is None:
            return []
        found = there.by_distance(own.name.lower().partition(".")[0])
        largest = max((e.ratings.get("p_max_kw", 0.0) for e in found), default=0.0) or 1.0
        size = own.ratings.get("p_max_kw", 0.0) * there.total_kw / max(self.home.total_kw, 1e-9)

        def unlike(element: Element) -> tuple[int, float]:
            far = abs(float(there.distance[element.bus] - self.home.distance[own.bus]))
            far += abs(element.ratings.get("p_max_kw", 0.0) - size) / largest
            return len(set(own.phases) - set(element.phases)), far

        return sorted(found, key=unlike)

    def _like_branch(self, name: str) -> list[str]:
        """Return the closed branches of the same class, the most like one of home first: phases, then distance."""
        index = self.home.network.branch_index.get(name.lower())
        if index is None:
            return []
        phases, far = _far_end(self.home, index)
        branches, class_name = self.there.network.branches, name.lower().partition(".")[0]

        def unlike(branch: int) -> tuple[int, float]:
            other_phases, other_far = _far_end(self.there, branch)
            return abs(other_phases - phases), abs(other_far - far)

        same = [i for i, other in enumerate(branches.names) if other.startswith(f"{class_name}.")]
        return [branches.names[i] for i in sorted((i for i in same if branches.closed[i]), key=unlike)]

    # -- at the end

    def note_left_over(self) -> None:
        """Note regulators and capacitors of the new feeder that nothing stands for."""
        used = {str(move[1]).lower().partition(".")[2] or str(move[1]).lower() for move in self.moves.values()}
        for class_name in ("regcontrol", "capacitor"):
            rest = [e.name for e in self.there.by_distance(class_name) if e.name.lower().partition(".")[2] not in used]
            if rest:
                self.left.append(f"{', '.join(rest)} of {self.there.feeder}: as the feeder has them")


def places_along(feeder: Equipment, zone: Sequence[int]) -> dict[int, float]:
    """Return how far along a zone each of its buses is: 0 nearest to the source, 1 farthest."""
    far = feeder.distance[list(zone)]
    near, span = float(far.min()), float(np.ptp(far)) or 1.0
    return {bus: (float(feeder.distance[bus]) - near) / span for bus in zone}


def _match(home: Iterable[Element], there: Iterable[Element]) -> dict[str, Element]:
    """Match elements in their order, with one of the same phases, else of as many, else the first; each once."""
    left, found = list(there), dict[str, Element]()
    for element in home:
        same = next((e for e in left if e.phases == element.phases), None)
        alike = next((e for e in left if len(e.phases) == len(element.phases)), None)
        if best := same or alike or next(iter(left), None):
            found[element.name.lower()] = best
            left.remove(best)
    return found


def _far_end(feeder: Equipment, branch: int) -> tuple[int, float]:
    """Return a branch's number of phases and how far its far end is."""
    b = feeder.network.branches
    return int(b.phases[branch]), max((float(feeder.distance[bus]) for bus in b.buses[branch]), default=0.0)


def _say(element: Element, feeder: Equipment) -> str:
    size = f", {element.ratings['p_max_kw']:.0f} kW" if element.ratings.get("p_max_kw") else ""
    return f"{element.name} (bus {feeder.network.buses[element.bus]}, phases {join(element.phases)}{size})"


def join(phases: Iterable[int]) -> str:
    """Write phases as OpenDSS does."""
    return ".".join(map(str, phases))
