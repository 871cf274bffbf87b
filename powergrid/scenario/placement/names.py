"""What a name of the old feeder is on the new one; what moved, what has no place and what is left over."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from powergrid.scenario.discovery.equipment import Element, Equipment
from powergrid.scenario.placement.sites import like_branch, like_bus, like_element, match_elements
from powergrid.scenario.vocabulary import PlacementSpec


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
            known = new is None or (
                (self.there.has(new) or new.lower() in self.there.network.branches.names)
                if "." in old
                else new.lower() in self.there.network.bus_index
            )
            if not known:
                kind = "element" if "." in old else "bus"
                self.problems.append(f"placement.map.{old}: no {kind} {new!r} on {self.there.feeder}{self.like(old)}")
            if "." in old and new is not None and old.split(".")[0] != new.lower().split(".")[0]:
                self.problems.append(f"placement.map.{old}: {new!r} is of another class")

    def like(self, name: str, phases: Sequence[int] = ()) -> str:
        """Say what is most like a bus or ``class.name`` of the old feeder."""
        if "." in name:
            element = self.home.find(name)
            alike = [] if element is None else like_element(element, self.home, self.there)
            shown = [_say(e, self.there) for e in alike] or like_branch(name, self.home, self.there)
        else:
            bus = self.home.network.bus_index.get(name.lower())
            nearest = [] if bus is None else like_bus(self.home, bus, phases or self.home.bus_phases[bus], self.there)
            shown = [self.there.describe(other) for other in nearest]
        return f"; most like it: {', '.join(shown)}" if shown else "; there is nothing like it"

    def bus(self, key: str, name: str, phases: Sequence[int] = ()) -> str | None:
        """Return the bus that stands for one by the map or by its own name; None, with a problem, where none does."""
        network = self.there.network
        mapped = self.map.get(name.lower())
        if mapped is not None:
            self.used.add(name.lower())
            new, why = mapped, "map"
        else:
            new, why = name, "same name"
        if new.lower() not in network.bus_index:
            if mapped is None:
                self.problems.append(f"{key}: bus {name!r} is not on {self.there.feeder}{self.like(name, phases)}")
            return None
        has = self.there.bus_phases[network.bus_index[new.lower()]]
        missing = [phase for phase in phases if phase not in has]
        if missing and (mapped is None or not has):
            self.problems.append(
                f"{key}: bus {new!r} of {self.there.feeder} has phases {list(has)}, not {missing}"
                f"{self.like(name, phases)}"
            )
            return None
        self.moves[key] = (name, new, why)
        return new

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

    def in_order(self, class_name: str) -> dict[str, Element]:
        """Match all elements of a class that the scenario refers to and does not map."""
        if class_name not in self._matched:
            prefix, key = f"{class_name}.", {"regcontrol": "taps", "capacitor": "steps_on"}.get(class_name, "")
            named = {f"{prefix}{name.lower()}" for name in self.data[key]} if key else set()
            bound = [str(spec["element"]) for spec in self.data["devices"].values() if spec.get("element")]
            own = [element for name in bound if (element := self.home.find(name)) is not None]
            named |= {element.name.lower() for element in own}
            mapped = {str(new).lower() for new in self.map.values()}
            known = self.home.by_distance(class_name)
            if class_name == "regcontrol":  # the tap changers that only a scenario takes for such
                known = self.home.in_order([*known, *(e for e in own if e in self.home.elements["tap_changers"])])
            self._matched[class_name] = match_elements(
                [e for e in known if e.name.lower() in named - set(self.map)],
                [e for e in self.there.by_distance(class_name) if e.name.lower() not in mapped],
            )
        return self._matched[class_name]

    def struck(self, key: str, old: str, known: Sequence[str]) -> str:
        """Return what an event strikes: what fits the name or pattern, or what is most like it where a rule places."""
        if old.lower() in self.map and self.map[old.lower()] is not None:
            return str(self.mapped(old))
        if self.options.rule is None or any(sign in old for sign in "*?"):
            new = old if any(fnmatch.fnmatchcase(each, old.lower()) for each in known) else None
        elif "." in old:
            new = next(iter(like_branch(old, self.home, self.there, 1)), None)
        else:
            bus = self.home.network.bus_index.get(old.lower())
            alike = [] if bus is None else like_bus(self.home, bus, self.home.bus_phases[bus], self.there, 1)
            new = self.there.network.buses[alike[0]] if alike else None
        if new is None:
            self.problems.append(f"{key}: {old!r} is not on {self.there.feeder}{self.like(old)}")
            return old
        self.moves[f"{key} {old}"] = (old, new, "most like it" if new != old else "same name")
        return new

    def note_left_over(self) -> None:
        """Note regulators and capacitors of the new feeder that nothing stands for."""
        used = {str(move[1]).lower().partition(".")[2] or str(move[1]).lower() for move in self.moves.values()}
        for class_name in ("regcontrol", "capacitor"):
            rest = [e.name for e in self.there.by_distance(class_name) if e.name.lower().partition(".")[2] not in used]
            if rest:
                self.left.append(f"{', '.join(rest)} of {self.there.feeder}: as the feeder has them")

    def check_used(self) -> None:
        """See that everything that is mapped is something that the scenario refers to."""
        for name in self.map:
            if name not in self.used:
                self.problems.append(f"placement.map: the scenario does not refer to {name!r}, so it maps nothing")


def _say(element: Element, feeder: Equipment) -> str:
    size = f", {element.ratings['p_max_kw']:.0f} kW" if element.ratings.get("p_max_kw") else ""
    bus = feeder.network.buses[element.bus]
    return f"{element.name} (bus {bus}, phases {join(element.phases)}{size})"


def join(phases: Iterable[int]) -> str:
    """Write phases as OpenDSS does."""
    return ".".join(map(str, phases))
