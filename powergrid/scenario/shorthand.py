"""What people write short: patterns and removal among changes, an engineer's words for kinds, numbers as bus names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.devices import SPECS
from powergrid.grid.feeder.network import fits
from powergrid.plain import merge

#: Sections whose keys are names of things, of which a change may name several by a pattern or remove one by null.
_NAMED = {"devices": "device", "agents": "agent", "events": "event", "microgrids": "microgrid"}
#: What engineers call a kind of device, in lower case with ``_`` between words.
KIND_ALIASES = {
    **dict.fromkeys(("battery", "bess", "ess", "battery_storage"), "storage"),
    **dict.fromkeys(("pv", "pvsystem", "solar", "pv_inverter"), "inverter"),
    **dict.fromkeys(("genset", "diesel", "dispatchable_generator"), "generator"),
    **dict.fromkeys(("ev", "evse", "charger", "charging_station"), "ev_charger"),
    **dict.fromkeys(("hvac", "office", "cooled_building"), "building"),
    **dict.fromkeys(("interruptible_load", "deferrable_load", "demand_response"), "flexible_load"),
    **dict.fromkeys(("cap", "capacitor_bank", "capbank", "capcontrol"), "capacitor"),
    **dict.fromkeys(("reg", "regcontrol", "voltage_regulator", "tap_changer", "ltc", "oltc", "vr"), "regulator"),
    **dict.fromkeys(("breaker", "recloser", "sectionalizer", "tie", "tie_switch"), "switch"),
}
#: A name that ends with a number which nothing parts from it.
_NUMBERED = re.compile(r"^(.*[^\W\d_])(\d+)$")
#: Keys that name buses, where YAML reads ``675`` as a number.
_BUS_KEYS = frozenset({"bus", "buses", "downstream_of", "until", "pcc", "entry", "metered_buses"})


def changes_discovered(devices: Any) -> bool:
    """Say whether a value of ``devices`` has keys of devices that are to be discovered, and no devices in full."""
    # null leaves out what is discovered, too
    specs = devices.values() if isinstance(devices, Mapping) and devices else (...,)
    return all(
        spec is None or (isinstance(spec, Mapping) and not {"kind", "bus", "element"} & set(spec)) for spec in specs
    )


def _is_pattern(name: object) -> bool:
    """Say whether a name stands for all that fit it."""
    return isinstance(name, str) and any(each in name for each in "*?[")


def spread(changes: Mapping[str, Any], names: Sequence[str], what: str, where: str) -> tuple[dict[str, Any], list[str]]:
    """Return changes with each pattern spread over the names that fit it, later ones last, and what fits nothing.

    Args:
        changes: What shall change by name or pattern; None removes.
        names: The names that there are.
        what: The kind of thing that they name.
        where: The key they stand under.
    """
    spread_out, problems = dict[str, Any](), list[str]()
    for key, change in changes.items():
        fitting = [name for name in names if fits(name, key)] if _is_pattern(key) else [key]
        if not fitting or (change is None and key not in names and not _is_pattern(key)):
            problems.append(f"{where}: {describe_unknown(what, key, names)}")
        for name in fitting:
            spread_out[name] = merge(spread_out.get(name), change)
    return spread_out, problems


def spread_changes(data: Mapping[str, Any], change: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a change of a scenario's data with the patterns in it spread over the names in the data.

    Raises:
        ScenarioError: A pattern fits nothing, or what shall go is not there; all of it.
    """
    spread_out, problems = dict(change), list[str]()
    for section, what in _NAMED.items():
        there, changes = data.get(section), change.get(section)
        if isinstance(there, Mapping) and isinstance(changes, Mapping):
            spread_out[section], wrong = spread(changes, list(map(str, there)), what, section)
            problems += wrong
    if problems:
        raise ScenarioError(where, problems)
    return spread_out


def settle(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scenario's data as everything else expects them.

    What is null among things by name goes, from agents too, and an agent that is left without devices with it. Kinds
    have our names, and buses that are numbers are texts.
    """
    settled = dict(data)
    for section in _NAMED:
        if isinstance(own := data.get(section), Mapping):
            settled[section] = {
                name: _name_buses(value) if isinstance(value, Mapping) else value
                for name, value in own.items()
                if value is not None or (section == "devices" and changes_discovered(own))
            }
    if isinstance(telemetry := data.get("telemetry"), Mapping):
        settled["telemetry"] = _name_buses(telemetry)
    devices = settled.get("devices")
    if isinstance(devices, Mapping) and not changes_discovered(devices):
        settled["devices"] = {name: _name_kind(spec) for name, spec in devices.items()}
        gone = {name for name, spec in data["devices"].items() if spec is None}
        if gone and isinstance(settled.get("agents"), Mapping):
            settled["agents"] = dict(_without(settled["agents"], gone))
    return settled


def name_agents(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a scenario's data with ``_`` before the number that ends an agent's name, where `agent_names` asks for it.

    Raises:
        ScenarioError: Two agents come to one name.
    """
    agents = data.get("agents")
    if data.get("agent_names") != "underscored" or not isinstance(agents, Mapping):
        return dict(data)
    names = {str(name): _NUMBERED.sub(r"\1_\2", str(name)) for name in agents}
    twice = sorted(name for name, new in names.items() if new != name and new in names)
    if twice:
        told = [f"agents.{name}: is {names[name]!r} with agent_names: underscored, as another is" for name in twice]
        raise ScenarioError(where, told)
    named = {**data, "agents": {names[str(name)]: spec for name, spec in agents.items()}}
    if isinstance(telemetry := data.get("telemetry"), Mapping):
        channels = {name: new for name, new in names.items() if name not in (data.get("devices") or ())}
        renamed = {"channels": channels, "sender": names, "to": names}  # by the key of a group
        parts = {part: _rename(telemetry[part], renamed) for part in ("readings", "messages") if part in telemetry}
        named["telemetry"] = {**telemetry, **parts}
    return named


def _rename(groups: Any, renamed: Mapping[str, Mapping[str, str]]) -> Any:
    """Return groups of telemetry with new names where those of agents stand, also before the dot of a channel."""

    def change(value: Any, names: Mapping[str, str]) -> Any:
        if isinstance(value, list | tuple):
            return [change(each, names) for each in value]
        first, *rest = str(value).split(".", 1)
        return ".".join((names.get(first, first), *rest)) if isinstance(value, str) else value

    if not isinstance(groups, Mapping):
        return groups
    return {
        group: {k: change(v, renamed[k]) if k in renamed else v for k, v in own.items()}
        if isinstance(own, Mapping)
        else own
        for group, own in groups.items()
    }


def _name_buses(value: Any, key: str = "") -> Any:
    """Return a value with the numbers that stand for buses as texts."""
    if isinstance(value, Mapping):
        return {name: _name_buses(each, str(name)) for name, each in value.items()}
    if isinstance(value, list | tuple) and key in _BUS_KEYS:
        return [_name_buses(each, key) for each in value]
    # A float has lost digits by now: 671.10 would be another bus.
    return str(value) if key in _BUS_KEYS and isinstance(value, int) and not isinstance(value, bool) else value


def _name_kind(spec: Any) -> Any:
    kind = spec.get("kind") if isinstance(spec, Mapping) else None
    if not isinstance(kind, str) or kind in SPECS:
        return spec
    plain = kind.strip().lower().replace("-", "_").replace(" ", "_")
    return {**spec, "kind": plain if plain in SPECS else KIND_ALIASES.get(plain, kind)}


def _without(agents: Mapping[str, Any], gone: set[str]) -> Iterable[tuple[str, Any]]:
    """Yield the agents by name without some devices."""
    for name, agent in agents.items():
        own = agent.get("devices") if isinstance(agent, Mapping) else None
        if not isinstance(own, list | tuple) or not gone & {each for each in own if isinstance(each, str)}:
            yield name, agent
        elif kept := [each for each in own if each not in gone]:
            yield name, {**agent, "devices": kept}
