"""Bring a scenario whose microgrids are tied to one feeder to another host; what is a microgrid's own stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from powergrid.errors import ScenarioError
from powergrid.grid.feeder.feeder import Feeder
from powergrid.scenario.discovery.equipment import equipment_of
from powergrid.scenario.placement.names import Names
from powergrid.scenario.placement.rules import pick_bus
from powergrid.scenario.placement.sites import Sites
from powergrid.scenario.placement.swap import settle
from powergrid.scenario.placement.wishes import PlacementSpec

_PHASES = (1, 2, 3)
_NAMED = ("taps", "steps_on", "norm_amps")


def place_host(
    data: Mapping[str, Any], home: Feeder, there: Feeder, wish: PlacementSpec, where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tie a scenario's microgrids to another host feeder, and bring what is on the host itself along.

    Args:
        data: The whole scenario as plain data, valid on its own host.
        home: The host that its names are of.
        there: The new host.
        wish: How buses of ties, and all else on the host, are found.
        where: What errors call the scenario.

    Returns:
        The data with the names of the new host, and a record of what moved and what is left over.

    Raises:
        ScenarioError: with everything that has no place, each with what is most like it on the new host.
        FeederError: a host does not compile or solve.
    """
    prefixes = tuple(f"{name.lower()}_" for name in data["microgrids"])
    of_host, kept = _split(data, prefixes)
    if wish.scale_rewards is None:  # the microgrids' demand is part of what rewards are scaled to, and stays
        wish = wish.model_copy(update={"scale_rewards": False})
    names = Names(of_host, Sites(home.name, equipment_of(home)), Sites(there.name, equipment_of(there)), wish)
    microgrids = {
        name: {**spec, "bus": _tie(names, name, str(spec["bus"]))} for name, spec in data["microgrids"].items()
    }
    moved, record = settle(names, where)
    merged = {key: {**moved[key], **kept[key]} for key in kept}
    for key in ("devices", "agents"):  # in the order that they had
        merged[key] = {name: merged[key][name] for name in data[key] if name in merged[key]}
    whole = {key: moved[key] for key in ("reward", "penalty", "profiles")}
    return {**data, **whole, **merged, "microgrids": microgrids}, record


def _tie(names: Names, microgrid: str, old: str) -> str:
    """Find the bus of the new host for a microgrid's tie."""
    key, rule = f"microgrids.{microgrid}.bus", names.wish.rule
    if rule is None or old.lower() in names.map or old.lower() not in names.home.equipment.network.bus_index:
        return names.bus(key, old, _PHASES) or old
    network = names.there.equipment.network
    place = float(names.home.distance[names.home.equipment.network.bus_index[old.lower()]])
    bus = pick_bus(rule, microgrid, _PHASES, place, names.there, sorted(names.there.fed), names.wish.seed)
    names.moves[key] = (old, network.buses[bus], f"rule {rule}")
    return network.buses[bus]


def _split(data: Mapping[str, Any], prefixes: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Part a scenario into what is on the host and what is in its microgrids."""
    kept: dict[str, dict[str, Any]] = {
        "devices": {n: d for n, d in data["devices"].items() if _is_inside(d.get("bus") or d.get("element"), prefixes)},
        "agents": {n: a for n, a in data["agents"].items() if a["zone"].get("microgrid")},
        "events": {n: e for n, e in data["events"].items() if _strikes_inside(e, prefixes)},
        **{key: {n: v for n, v in data[key].items() if _is_inside(n, prefixes)} for key in _NAMED},
    }
    rest = {key: {n: v for n, v in data[key].items() if n not in own} for key, own in kept.items()}
    for name, agent in rest["agents"].items():
        inside = [device for device in agent["devices"] if device in kept["devices"]]
        zone = [*agent["zone"]["buses"], agent["zone"]["downstream_of"] or "", *agent["zone"]["until"]]
        if inside or any(_is_inside(bus, prefixes) for bus in zone):
            problem = f"agents.{name}: is on the host and in a microgrid, so it cannot be brought to another host"
            raise ScenarioError("placement", [f"{problem}; write the scenario for that one"])
    return {**data, **rest, "microgrids": {}}, kept


def _is_inside(name: Any, prefixes: tuple[str, ...]) -> bool:
    """Whether a bus or ``class.name`` is a microgrid's."""
    return str(name).lower().rpartition(".")[2].startswith(prefixes)


def _strikes_inside(event: Mapping[str, Any], prefixes: tuple[str, ...]) -> bool:
    """Whether an event strikes nothing on the host by name."""
    named = [each for key in ("bus", "element", "loads") for each in event.get(key) or () if each != "*"]
    return all(_is_inside(each, prefixes) for each in named)
