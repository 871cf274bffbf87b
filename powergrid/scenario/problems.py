"""What is wrong with a scenario, told by key, value, what is allowed and the nearest remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from powergrid.errors import describe_unknown
from powergrid.grid.devices import SPECS
from powergrid.grid.feeder.microgrid import LineTie, MicrogridSpec, TransformerTie
from powergrid.grid.outages import EVENTS
from powergrid.scenario.vocabulary import REWARD_WEIGHTS, AgentSpec

Location = tuple[int | str, ...]

_TIES = {"transformer": TransformerTie, "line": LineTie}


def explain(error: ValidationError, whole: type[BaseModel]) -> list[tuple[Location, str]]:
    """Turn pydantic's findings into places and lines that name the key, what came and what is allowed."""
    found: list[tuple[Location, str]] = []
    for entry in error.errors(include_url=False):
        location, came = entry["loc"], entry.get("input")
        if location[:1] in (("devices",), ("events",)):  # after the name comes the kind
            location = location[:2] + location[3:]
        if location[:1] == ("microgrids",) and location[2:3] == ("tie",):  # and so after a tie
            location = location[:3] + location[4:]
        where = ".".join(str(part) for part in location)
        lines = []
        if entry["type"] == "extra_forbidden":
            owner = ".".join(str(part) for part in location[:-1])
            known = _allowed_keys(entry["loc"][:-1], whole)
            lines.append((f"{owner}: " if owner else "") + describe_unknown("key", location[-1], known))
        elif location[-1:] == ("[key]",):
            lines.append(f"{'.'.join(map(str, location[:-2]))}: {describe_unknown('key', came, REWARD_WEIGHTS)}")
        elif entry["type"] == "missing":
            lines.append(f"{where}: is required")
        elif entry["type"] in ("union_tag_invalid", "union_tag_not_found"):
            kind = came.get("kind") if isinstance(came, Mapping) else None
            tables: dict[str, Mapping[str, Any]] = {"devices": SPECS, "events": EVENTS}
            kinds = list(tables.get(str(location[0]), _TIES))
            unknown = describe_unknown("kind", kind, kinds)
            lines.append(f"{where}: {unknown if kind is not None else 'kind is required; one of ' + ', '.join(kinds)}")
        elif entry["type"] == "value_error":
            prefix = f"{where}: " if where else ""
            lines += [prefix + line for line in str(entry["ctx"]["error"]).splitlines()]
        else:
            shown = repr(came) if len(repr(came)) < 60 else f"{repr(came)[:57]}..."
            lines.append(f"{where}: {entry['msg'][0].lower()}{entry['msg'][1:]}, not {shown}")
        found += [(location, line) for line in lines]
    return found


def place_in(data: Any, location: Location) -> tuple[int, ...]:
    """Return where a location stands in the data, so that problems can be listed in reading order."""
    place: list[int] = []
    for part in location:
        keys = list(data) if isinstance(data, Mapping) else list(range(len(data))) if isinstance(data, list) else []
        place.append(keys.index(part) if part in keys else len(keys))
        data = data[part] if part in keys else None
    return tuple(place)


def find_ownership_problems(devices: Iterable[str], agents: Mapping[str, Iterable[str]]) -> list[str]:
    """List devices that do not exist or belong to two agents."""
    problems, owner, known = [], dict[str, str](), list(devices)
    for agent, owned in agents.items():
        for device in owned:
            if device not in known:
                problems.append(f"agents.{agent}: {describe_unknown('device', device, known)}")
            elif device in owner:
                problems.append(f"agents.{agent}: device {device!r} belongs to {owner[device]!r} already")
            owner[device] = agent
    return problems


def find_raw_ownership_problems(data: Mapping[str, Any]) -> list[str]:
    """Check ownership in data that is not valid otherwise, as far as it can be read."""
    devices, agents = data.get("devices"), data.get("agents")
    if not isinstance(devices, Mapping) or not isinstance(agents, Mapping):
        return []
    owned = {name: a.get("devices") for name, a in agents.items() if isinstance(a, Mapping)}
    return find_ownership_problems(devices, {n: d for n, d in owned.items() if isinstance(d, list | tuple)})


def _allowed_keys(location: Location, whole: type[BaseModel]) -> list[str]:
    """List the keys that may stand at a place of the scenario, as pydantic names places."""
    model: Any = whole
    if location[:1] in (("devices",), ("events",)):
        known: Mapping[str, Any] = SPECS if location[0] == "devices" else EVENTS
        model, location = known.get(str(location[2])) if len(location) > 2 else None, ()
    elif location[:1] == ("agents",):
        model, location = AgentSpec, location[2:]
    elif location[:1] == ("microgrids",):
        model, location = MicrogridSpec, location[2:]
        if location[:1] == ("tie",):
            model, location = _TIES.get(str(location[1])) if len(location) > 1 else None, ()
    for part in location:
        model = getattr(model, "model_fields", {})[part].annotation if part in model.model_fields else None
        model = next((each for each in get_args(model) if each is not type(None)), model)
    return list(getattr(model, "model_fields", {}))
