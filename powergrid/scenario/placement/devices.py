"""Where the devices and zones of agents go on another feeder: buses, phases, elements, ratings, new cuts."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from powergrid.scenario.discovery.agents import cut_zones, whole_feeder
from powergrid.scenario.discovery.devices import significant
from powergrid.scenario.discovery.equipment import Element, Equipment
from powergrid.scenario.placement.names import Names, join, places_along
from powergrid.scenario.vocabulary import ZoneSpec

_REACTIVE = ("q_inject_max_kvar", "q_absorb_max_kvar")
#: Keys of a device that grow with its feeder's demand, by kind.
_GROWS: dict[str, tuple[str, ...]] = {
    "storage": ("e_max_kwh", "p_max_kw", "p_charge_max_kw", "s_max_kva", "standby_loss_kw", *_REACTIVE),
    "inverter": ("p_max_kw", "p_limit_kw", "s_max_kva", *_REACTIVE),
    "generator": (
        "p_min_kw",
        "p_max_kw",
        "s_max_kva",
        "ramp_kw_per_min",
        "cost_c_usd_per_h",
        "start_cost_usd",
        *_REACTIVE,
    ),
    "building": ("scale",),
}


class Zones:
    """Place the agents of a scenario.

    Args:
        names: Finds names and keeps the record.

    Attributes:
        agents: The agents, with zones and points of common coupling of the new feeder.
        buses: Buses of each agent's zone there; an agent whose zone has no place is missing.
    """

    def __init__(self, names: Names) -> None:
        self.names, self.home, self.there = names, names.home, names.there
        self.agents = {name: copy.deepcopy(dict(agent)) for name, agent in names.data["agents"].items()}
        self.buses: dict[str, list[int]] = {}
        self.owner = {device: agent for agent, spec in self.agents.items() for device in spec["devices"]}
        # A map of all that zones and points of common coupling name leaves a rule nothing to decide.
        by_name = names.options.rule is None or all(
            bus.lower() in names.map
            for agent in self.agents.values()
            for bus in (*zone_names(agent["zone"]), agent["pcc"])
        )
        if by_name:
            for name, agent in self.agents.items():
                self._rename_zone(name, agent)
        else:
            self._partition()

    def buses_of(self, device: str) -> list[int]:
        """Return the buses where a device may be placed: its agent's zone, else all that is fed."""
        return self.buses.get(self.owner.get(device, ""), sorted(self.there.network.tree.order.tolist()))

    def leave_out(self, dropped: Iterable[str]) -> None:
        """Take devices from their agents; an agent that has none left is a problem."""
        gone = set(dropped)
        for name, agent in self.agents.items():
            agent["devices"] = [device for device in agent["devices"] if device not in gone]
            if not agent["devices"]:
                self.names.problems.append(f"agents.{name}: placement.map leaves out all of its devices")

    def _rename_zone(self, name: str, agent: dict[str, Any]) -> None:
        """Find the buses of a zone one by one."""
        zone, key, before = agent["zone"], f"agents.{name}.zone", len(self.names.problems)
        for part in ("buses", "until"):
            zone[part] = [self.names.bus(f"{key}.{part}", bus) or bus for bus in zone[part]]
            self.names.moves.pop(f"{key}.{part}", None)  # of many buses the record would hold the last
        if (top := zone["downstream_of"]) is not None:
            zone["downstream_of"] = self.names.bus(f"{key}.downstream_of", top) or top
        agent["pcc"] = self.names.bus(f"agents.{name}.pcc", agent["pcc"]) or agent["pcc"]
        # A bus that the map leads nowhere is a problem of the map, told before.
        there = all(bus.lower() in self.there.network.bus_index for bus in (*zone_names(zone), agent["pcc"]))
        if there and len(self.names.problems) == before:
            self.buses[name] = zone_buses(self.there, zone)

    def _partition(self) -> None:
        """Cut the new feeder for the agents; one whose zone is the whole old feeder gets the whole new one.

        An agent with devices at buses that were mapped gets the zone of the first of them; the others are matched by
        rank: by demand (``load``), by the distance of the point of common coupling (``distance``), or by the number
        of three-phase buses (``phase``).
        """
        home, there, network = self.home, self.there, self.there.network
        ranks: dict[str, float] = {}
        for name, agent in self.agents.items():
            buses = zone_buses(home, agent["zone"])
            if len(buses) >= len(home.network.tree.order):
                self._set_zone(name, agent, whole_feeder(network), network.source_bus, range(len(network.buses)))
            else:
                ranks[name] = self._rank(home, home.network.bus_index[agent["pcc"].lower()], buses)
        if not ranks:
            return
        zones = cut_zones(there, np.flatnonzero(there.load_kw > 0.0).tolist(), len(ranks))
        if len(zones) < len(ranks):  # too few have loads of their own
            zones = cut_zones(there, range(len(network.buses)), len(ranks))
        if len(zones) < len(ranks):
            self.names.problems.append(
                f"agents: {there.feeder} can be cut into {len(zones)} zones with a point of common coupling each, "
                f"and there are {len(ranks)} agents; take a larger feeder or fewer agents"
            )
            return
        zones.sort(key=lambda zone: self._rank(there, zone.root, zone.buses))
        found = {}
        for device, agent_name in self.owner.items():
            new = self.names.map.get(str(self.names.data["devices"][device].get("bus") or "").lower())
            bus = network.bus_index.get((new or "").lower())
            own = next((zone for zone in zones if bus in zone.buses), None)
            if agent_name in ranks and agent_name not in found and own is not None:
                found[agent_name] = own
                zones.remove(own)
        left = sorted((name for name in ranks if name not in found), key=ranks.__getitem__)
        for name, zone in (found | dict(zip(left, zones, strict=False))).items():
            self._set_zone(name, self.agents[name], zone.data, zone.root, zone.buses)

    def _rank(self, feeder: Equipment, root: int, buses: Sequence[int]) -> float:
        match self.names.options.rule:
            case "load":
                return float(feeder.load_kw[list(buses)].sum())
            case "distance":
                return float(feeder.distance[root])
        return float(sum(len(feeder.bus_phases[bus]) == 3 for bus in buses))

    def _set_zone(
        self, name: str, agent: dict[str, Any], zone: Mapping[str, Any], root: int, buses: Iterable[int]
    ) -> None:
        old, new, why = agent["pcc"], self.there.network.buses[root], f"rule {self.names.options.rule}"
        phases = agent["zone"]["phases"]
        self.names.moves[f"agents.{name}.zone"] = (_say_zone(agent["zone"]), _say_zone(zone), why)
        self.names.moves[f"agents.{name}.pcc"] = (old, new, why)
        agent["zone"] = {"buses": (), "downstream_of": None, "until": ()} | dict(zone) | {"phases": phases}
        agent["pcc"] = new
        self.buses[name] = list(buses)
        for bus in (*zone_names(self.names.data["agents"][name]["zone"]), old):
            self.names.used.add(bus.lower())


def zone_names(zone: Mapping[str, Any]) -> list[str]:
    """Return every bus that a zone names."""
    return ZoneSpec(**zone).names()


def zone_buses(feeder: Equipment, zone: Mapping[str, Any]) -> list[int]:
    """Return the bus indices of a zone on its feeder."""
    return ZoneSpec(**zone).find_buses(feeder.network)


def _say_zone(zone: Mapping[str, Any]) -> str:
    if zone.get("downstream_of") is None:
        return f"buses {', '.join(zone['buses'])}"
    until = f" until {', '.join(zone['until'])}" if zone.get("until") else ""
    return f"downstream of {zone['downstream_of']}{until}"


class Devices:
    """Place the devices of a scenario.

    Args:
        names: Finds names and keeps the record.
        zones: The agents' zones on the new feeder.

    Attributes:
        placed: The devices, without those that the map leaves out or that have no place.
    """

    def __init__(self, names: Names, zones: Zones) -> None:
        self.names, self.home, self.there, self._zones = names, names.home, names.there, zones
        self._taken: set[str] = set()
        options = names.options
        scale = options.rule is not None if options.scale_ratings is None else options.scale_ratings
        given: dict[str, dict[str, Any]] = names.data["devices"]
        found: dict[str, dict[str, Any]] = {}
        at = {name: str(spec.get("bus") or spec.get("element") or "").lower() for name, spec in given.items()}
        for name in sorted(given, key=lambda name: at[name] not in names.map):  # what the map takes, no rule may
            spec = dict(given[name])
            if self._bind(name, spec, scale=scale) if spec.get("bus") is None else self._place_at_bus(name, spec):
                found[name] = _scale_device(spec, names.ratio) if scale else spec
        self.placed = {name: found[name] for name in given if name in found}

    def _place_along(self, device: str, bus: int) -> float:
        """Return how far along its agent's zone a bus of the old feeder is."""
        along, agent = dict[int, float](), self.names.data["agents"].get(self._zones.owner.get(device))
        if agent is not None:
            pcc = self.home.network.bus_index[agent["pcc"].lower()]
            along = places_along(self.home, sorted({pcc, *zone_buses(self.home, agent["zone"])}))
        return along.get(bus, float(self.home.distance[bus]))

    def _place_at_bus(self, name: str, spec: dict[str, Any]) -> bool:
        key, old, network = f"devices.{name}.bus", str(spec["bus"]), self.there.network
        phases = tuple(spec.get("phases", (1, 2, 3)))
        rule, zone = self.names.options.rule, self._zones.buses_of(name)
        if self.names.drop(name, old):
            return False
        new: str | None = None
        if rule is None or old.lower() in self.names.map:
            new = self.names.bus(key, old, phases)
        elif zone:
            place = self._place_along(name, self.home.network.bus_index[old.lower()])
            new = self.names.site(key, name, old, phases, place, zone)
        if new is None:
            return False
        spec["bus"] = new
        self._connect(name, spec, network.bus_index[new.lower()])
        return True

    def _connect(self, name: str, spec: dict[str, Any], bus: int) -> None:
        """Reduce a device's phases to those of its bus, and tie it between phases where the loads there are."""
        phases, connection = tuple(spec["phases"]), spec["connection"]
        has = self.there.bus_phases[bus]
        # Where the bus has none of them, as many of its own.
        spec["phases"] = tuple(phase for phase in phases if phase in has) or has[: len(phases)]
        between = self.there.delta_loads
        if self.names.options.rule is not None and between and all(between):  # a feeder without a neutral
            spec["connection"] = "delta"
        if len(spec["phases"]) == 1:  # between phases takes two
            spec["connection"] = "wye"
        if spec["phases"] != phases:
            self.names.moves[f"devices.{name}.phases"] = (join(phases), join(spec["phases"]), "what the bus has")
        if spec["connection"] != connection:
            self.names.moves[f"devices.{name}.connection"] = (connection, spec["connection"], "as all loads there")

    def _bind(self, name: str, spec: dict[str, Any], *, scale: bool) -> bool:
        """Find the element that stands for the one a device is bound to."""
        key, old = f"devices.{name}.element", str(spec["element"])
        if self.names.drop(name, old):
            return False
        new, why = self._element(name, old)
        if new is None:
            lacks = f"{old!r} has no counterpart on {self.there.feeder}{self.names.like(old)}"
            self.names.problems.append(f"{key}: {lacks}")
            return False
        self.names.moves[key] = (old, new, why)
        spec["element"] = new
        if spec["kind"] == "capacitor" and why != "same name":
            spec["steps"] = spec["steps_initial"] = None  # the new bank's own
        if spec["kind"] == "regulator" and why != "same name":
            spec["winding"] = None  # the new transformer's own
        if spec["kind"] == "flexible_load" and scale:
            was, now = self.home.find(old), self.there.find(new)
            if was is not None and now is not None and was.ratings["p_max_kw"] > 0.0 < now.ratings["p_max_kw"]:
                spec["owed_max_kwh"] = significant(
                    spec["owed_max_kwh"] * now.ratings["p_max_kw"] / was.ratings["p_max_kw"]
                )
        return True

    def _element(self, device: str, old: str) -> tuple[str | None, str]:
        class_name = old.lower().partition(".")[0]
        if old.lower() in self.names.map:
            new = str(self.names.mapped(old))
            if (element := self.there.find(new)) is not None:
                self._taken.add(element.name)
            return (new if self.there.has(new) else None), "map"
        if self.names.options.rule is None:
            return (old, "same name") if self.there.has(old) else (None, "")
        if class_name == "load":
            load = self._pick_load(device, old)
            return (None, "") if load is None else (load.name, f"rule {self.names.options.rule}")
        own = self.home.find(old)
        matched = self.names.in_order("regcontrol" if class_name in ("transformer", "autotrans") else class_name)
        element = None if own is None else matched.get(own.name.lower())
        return (None, "") if element is None else (element.name, "order of distance")

    def _pick_load(self, device: str, old: str) -> Element | None:
        """Take the load of a device's zone that stands for another feeder's, None where all are taken.

        ``load`` takes the nearest in size relative to the feeder's demand, ``distance`` the one as far along, ``phase``
        the nearest in size of those on as many phases.
        """
        zone, there, rule = self._zones.buses_of(device), self.there, self.names.options.rule
        load = self.home.find(old)
        own = frozenset(zone)
        inside = [e for e in there.by_distance("load") if e.bus in own and e.ratings["p_max_kw"] > 0.0]
        free = [e for e in inside if e.name not in self._taken]
        if load is None or not free:
            return None
        along, place = places_along(there, zone), self._place_along(device, load.bus)
        wanted = load.ratings["p_max_kw"] * there.total_kw / max(self.home.total_kw, 1e-9)

        def unlike(element: Element) -> tuple[float, float]:
            size = abs(element.ratings["p_max_kw"] - wanted)
            if rule == "distance":
                return abs(along[element.bus] - place), size
            return abs(len(element.phases) - len(load.phases)) if rule == "phase" else 0.0, size

        found = min(free, key=unlike)
        self._taken.add(found.name)
        return found


def _scale_device(spec: Mapping[str, Any], ratio: float) -> dict[str, Any]:
    """Multiply a device's ratings, so that it is to its feeder what it was to the other; prices, times, shares stay."""
    scaled, kind = dict(spec), str(spec.get("kind"))
    for key in _GROWS.get(kind, ()):
        if scaled.get(key) is not None:
            scaled[key] = significant(scaled[key] * ratio)
    if kind == "generator":  # one of twice the power has, for the same cost per kWh, half the quadratic term
        scaled["cost_a_usd_per_kw2h"] = significant(scaled["cost_a_usd_per_kw2h"] / ratio)
    if kind == "ev_charger":
        scaled["ports"] = max(1, round(scaled["ports"] * ratio))
    return scaled
