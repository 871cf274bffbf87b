"""Where agents' zones lie on another feeder: bus by bus, or by a new cut of the feeder."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from powergrid.scenario.discovery.agents import Zone, whole_feeder
from powergrid.scenario.placement.names import Names
from powergrid.scenario.placement.rules import cut_into, match_zones
from powergrid.scenario.placement.sites import Sites


class Zones:
    """Place the agents of a scenario.

    Args:
        names: Finds names and keeps the record.

    Attributes:
        agents: The agents, with zones and points of common coupling of the new feeder.
        buses: Buses of each agent's zone there; an agent whose zone has no place is missing.
    """

    def __init__(self, names: Names) -> None:
        self._names, self.home, self.there = names, names.home, names.there
        self.agents = {name: copy.deepcopy(dict(agent)) for name, agent in names.data["agents"].items()}
        self.buses: dict[str, list[int]] = {}
        self.owner = {device: agent for agent, spec in self.agents.items() for device in spec["devices"]}
        by_name = names.wish.rule is None or all(
            bus.lower() in names.map
            for agent in self.agents.values()
            for bus in (*_zone_names(agent["zone"]), agent["pcc"])
        )
        if by_name:
            for name, agent in self.agents.items():
                self._rename_zone(name, agent)
        else:
            self._partition()

    def buses_of(self, device: str) -> list[int]:
        """Return the buses where a device may be placed: its agent's zone, else all that is fed."""
        return self.buses.get(self.owner.get(device, ""), sorted(self.there.fed))

    def leave_out(self, dropped: Iterable[str]) -> None:
        """Take devices from their agents; an agent that has none left is a problem."""
        gone = set(dropped)
        for name, agent in self.agents.items():
            agent["devices"] = [device for device in agent["devices"] if device not in gone]
            if not agent["devices"]:
                self._names.problems.append(f"agents.{name}: placement.map leaves out all of its devices")

    def _rename_zone(self, name: str, agent: dict[str, Any]) -> None:
        """Find the buses of a zone one by one."""
        zone, key, before = agent["zone"], f"agents.{name}.zone", len(self._names.problems)
        for part in ("buses", "until"):
            zone[part] = [self._names.bus(f"{key}.{part}", bus) or bus for bus in zone[part]]
            self._names.moves.pop(f"{key}.{part}", None)
        if zone["downstream_of"] is not None:
            zone["downstream_of"] = (
                self._names.bus(f"{key}.downstream_of", zone["downstream_of"]) or zone["downstream_of"]
            )
        agent["pcc"] = self._names.bus(f"agents.{name}.pcc", agent["pcc"]) or agent["pcc"]
        if len(self._names.problems) == before:
            self.buses[name] = zone_buses(self.there, zone)

    def _partition(self) -> None:
        """Cut the new feeder for the agents; one whose zone is the whole old feeder gets the whole new one."""
        rule, network = self._names.wish.rule, self.there.equipment.network
        assert rule is not None
        home_network = self.home.equipment.network
        cut: dict[str, tuple[int, list[int]]] = {}
        for name, agent in self.agents.items():
            buses = zone_buses(self.home, agent["zone"])
            if len(buses) >= len(self.home.fed):
                self._set_zone(name, agent, whole_feeder(network), network.source_bus, range(len(network.buses)))
            else:
                cut[name] = home_network.bus_index[agent["pcc"].lower()], buses
        zones = cut_into(self.there, len(cut)) if cut else []
        if len(zones) < len(cut):
            self._names.problems.append(
                f"agents: {self.there.name} can be cut into {len(zones)} zones with a point of common coupling each, "
                f"and there are {len(cut)} agents; take a larger feeder or fewer agents"
            )
            return
        fixed: dict[str, list[int]] = {name: [] for name in cut}
        for device, agent_name in self.owner.items():
            new = self._names.map.get(str(self._names.data["devices"][device].get("bus") or "").lower())
            if agent_name in fixed and new is not None and new.lower() in network.bus_index:
                fixed[agent_name].append(network.bus_index[new.lower()])
        found: dict[str, Zone] = match_zones(rule, self.home, cut, self.there, zones, fixed)
        for name, zone in found.items():
            self._set_zone(name, self.agents[name], zone.data, zone.root, zone.buses)

    def _set_zone(
        self, name: str, agent: dict[str, Any], zone: Mapping[str, Any], root: int, buses: Iterable[int]
    ) -> None:
        old, new = agent["pcc"], self.there.equipment.network.buses[root]
        phases = agent["zone"]["phases"]
        self._names.moves[f"agents.{name}.zone"] = (
            _say_zone(agent["zone"]),
            _say_zone(zone),
            f"rule {self._names.wish.rule}",
        )
        self._names.moves[f"agents.{name}.pcc"] = (old, new, f"rule {self._names.wish.rule}")
        agent["zone"] = {"buses": (), "downstream_of": None, "until": ()} | dict(zone) | {"phases": phases}
        agent["pcc"] = new
        self.buses[name] = list(buses)
        for bus in (*_zone_names(self._names.data["agents"][name]["zone"]), old):
            self._names.used.add(bus.lower())


def _zone_names(zone: Mapping[str, Any]) -> list[str]:
    up = [zone["downstream_of"]] if zone.get("downstream_of") is not None else []
    return [*zone.get("buses", ()), *up, *zone.get("until", ())]


def zone_buses(sites: Sites, zone: Mapping[str, Any]) -> list[int]:
    """Return the bus indices of a zone on its feeder."""
    network = sites.equipment.network
    if zone.get("downstream_of") is None:
        return sorted({network.bus_index[bus.lower()] for bus in zone["buses"]})
    inside = set(network.downstream(zone["downstream_of"]))
    return sorted(inside.difference(*(network.downstream(bus) for bus in zone.get("until", ()))))


def _say_zone(zone: Mapping[str, Any]) -> str:
    if zone.get("downstream_of") is None:
        return f"buses {', '.join(zone['buses'])}"
    until = f" until {', '.join(zone['until'])}" if zone.get("until") else ""
    return f"downstream of {zone['downstream_of']}{until}"
