"""Where devices go on another feeder: buses, phases, elements and ratings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from powergrid.scenario.placement.names import Names, join
from powergrid.scenario.placement.rules import fit_phases, pick_bus, pick_load, places_along
from powergrid.scenario.placement.scaling import scale_device, short
from powergrid.scenario.placement.sites import Sites
from powergrid.scenario.placement.zones import Zones, zone_buses


class Devices:
    """Place the devices of a scenario.

    Args:
        names: Finds names and keeps the record.
        zones: The agents' zones on the new feeder.

    Attributes:
        placed: The devices, without those that the map leaves out or that have no place.
    """

    def __init__(self, names: Names, zones: Zones) -> None:
        self._names, self._zones, self.there = names, zones, names.there
        self._taken: set[str] = set()
        self._along = {agent: _along_at_home(names.home, spec) for agent, spec in names.data["agents"].items()}
        wish = names.wish
        scale = wish.rule is not None if wish.scale_ratings is None else wish.scale_ratings
        given: dict[str, dict[str, Any]] = names.data["devices"]
        found: dict[str, dict[str, Any]] = {}
        for name, original in sorted(given.items(), key=lambda item: not self._is_mapped(item[1])):  # mapped ones first
            spec = dict(original)
            kept = (
                self._place_at_bus(name, spec) if spec.get("bus") is not None else self._bind(name, spec, scale=scale)
            )
            if kept:
                found[name] = scale_device(spec, names.ratio) if scale else spec
        self.placed = {name: found[name] for name in given if name in found}

    def _place_along(self, device: str, bus: int) -> float:
        """Return how far along its agent's zone a bus of the old feeder is."""
        return self._along.get(self._zones.owner.get(device, ""), {}).get(bus, float(self._names.home.distance[bus]))

    def _is_mapped(self, spec: Mapping[str, Any]) -> bool:
        return str(spec.get("bus") or spec.get("element") or "").lower() in self._names.map

    def _place_at_bus(self, name: str, spec: dict[str, Any]) -> bool:
        key, old, network = f"devices.{name}.bus", str(spec["bus"]), self.there.equipment.network
        phases = tuple(spec.get("phases", (1, 2, 3)))
        if self._names.drop(name, old):
            return False
        zone = self._zones.buses_of(name)
        if self._names.wish.rule is None or old.lower() in self._names.map or not zone:
            new = (
                self._names.bus(key, old, phases)
                if self._names.wish.rule is None or old.lower() in self._names.map
                else None
            )
            if new is None:
                return False
        else:
            bus = self._names.home.equipment.network.bus_index[old.lower()]
            place = self._place_along(name, bus)
            new = network.buses[
                pick_bus(self._names.wish.rule, name, phases, place, self.there, zone, self._names.wish.seed)
            ]
            self._names.moves[key] = (old, new, f"rule {self._names.wish.rule}")
        spec["bus"] = new
        self._connect(name, spec, network.bus_index[new.lower()])
        return True

    def _connect(self, name: str, spec: dict[str, Any], bus: int) -> None:
        """Reduce a device's phases to those of its bus, and tie it between phases where the loads there are."""
        phases, connection = tuple(spec["phases"]), spec["connection"]
        spec["phases"] = fit_phases(phases, self.there.phases[bus])
        if self._names.wish.rule is not None and self.there.three_wire:
            spec["connection"] = "delta"
        if len(spec["phases"]) == 1:
            spec["connection"] = "wye"
        if spec["phases"] != phases:
            self._names.moves[f"devices.{name}.phases"] = (join(phases), join(spec["phases"]), "what the bus has")
        if spec["connection"] != connection:
            self._names.moves[f"devices.{name}.connection"] = (connection, spec["connection"], "as all loads there")

    def _bind(self, name: str, spec: dict[str, Any], *, scale: bool) -> bool:
        """Find the element that stands for the one a device is bound to."""
        key, old = f"devices.{name}.element", str(spec["element"])
        if self._names.drop(name, old):
            return False
        new, why = self._element(name, old)
        if new is None:
            self._names.problems.append(
                f"{key}: {old!r} has no counterpart on {self.there.name}{self._names.like(old)}"
            )
            return False
        self._names.moves[key] = (old, new, why)
        spec["element"] = new
        if spec["kind"] == "capacitor" and why != "same name":
            spec["steps"] = spec["steps_initial"] = None  # the new bank's own
        if spec["kind"] == "regulator" and why != "same name":
            spec["winding"] = None
        if spec["kind"] == "flexible_load" and scale:
            was, now = self._names.home.equipment.find(old), self.there.equipment.find(new)
            if was is not None and now is not None and was.ratings["p_max_kw"] > 0.0 < now.ratings["p_max_kw"]:
                spec["owed_max_kwh"] = short(spec["owed_max_kwh"] * now.ratings["p_max_kw"] / was.ratings["p_max_kw"])
        return True

    def _element(self, device: str, old: str) -> tuple[str | None, str]:
        class_name = old.lower().partition(".")[0]
        if old.lower() in self._names.map:
            self._names.used.add(old.lower())
            new = str(self._names.map[old.lower()])
            self._taken.add(new.lower() if class_name != "load" else _canonical(new, self.there))
            return (new, "map") if self.there.has(new) else (None, "map")
        if self._names.wish.rule is None:
            return (old, "same name") if self.there.has(old) else (None, "")
        if class_name == "load":
            zone = self._zones.buses_of(device)
            load = self._names.home.equipment.find(old)
            if load is None or not zone:
                return None, ""
            place = self._place_along(device, load.bus)
            found = pick_load(self._names.wish.rule, load, self._names.home, place, self.there, zone, self._taken)
            if found is None:
                return None, ""
            self._taken.add(found.name)
            return found.name, f"rule {self._names.wish.rule}"
        element = self._names.in_order("regcontrol" if class_name in ("transformer", "autotrans") else class_name).get(
            "" if (own := self._names.home.equipment.find(old)) is None else own.name.lower()
        )
        return (None, "") if element is None else (element.name, "order of distance")


def _along_at_home(home: Sites, agent: Mapping[str, Any]) -> dict[int, float]:
    buses = zone_buses(home, agent["zone"])
    index = home.equipment.network.bus_index[agent["pcc"].lower()]
    return places_along(home, sorted({index, *buses}))


def _canonical(name: str, sites: Sites) -> str:
    element = sites.equipment.find(name)
    return name if element is None else element.name
