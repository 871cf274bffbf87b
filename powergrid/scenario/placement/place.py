"""Bring a scenario to another feeder, by name, by a map and by rules; all that has no place there is told at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from powergrid.errors import Problem, ScenarioError
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import fits
from powergrid.scenario.discovery.devices import significant
from powergrid.scenario.discovery.survey import equipment_of
from powergrid.scenario.placement.devices import Devices, Zones, zone_names
from powergrid.scenario.placement.names import Names
from powergrid.scenario.vocabulary import PlacementSpec

_HINT = "give placement.map, or a rule: placement: {rule: load}, distance or phase"
#: Keys by name of what the feeder has.
_NAMED = ("taps", "steps_on", "norm_amps")
#: A microgrid's tie has all phases.
_PHASES = (1, 2, 3)


def place(
    data: Mapping[str, Any], home: Feeder, there: Feeder, options: PlacementSpec, where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Bring a scenario to another feeder; of one with microgrids these are tied to it, and what is in them stays.

    Args:
        data: The whole scenario as plain data, valid on its own feeder.
        home: The feeder that its names are of.
        there: The feeder it shall be played on.
        options: How.
        where: What errors call the scenario.

    Returns:
        The data with the names of the new feeder, and a record of what moved and what is left over.

    Raises:
        ScenarioError: with everything that has no place, each with what is most like it on the new feeder.
        FeederError: a feeder does not compile or solve.
    """
    of_host, inside = _split(data)
    if data["microgrids"] and options.scale_rewards is None:
        # The microgrids' demand is part of what rewards are scaled to, and stays.
        options = options.model_copy(update={"scale_rewards": False})
    names = Names(of_host, equipment_of(home), equipment_of(there), options)
    microgrids = {name: {**m, "bus": _tie(names, name, str(m["bus"]))} for name, m in data["microgrids"].items()}
    _check_home(names, where)
    zones = Zones(names)
    placed = Devices(names, zones).placed
    zones.leave_out(names.dropped)  # known once devices are placed, which asks for zones
    moved = _move_keys(names) | _scale_rewards(names) | {"devices": placed, "agents": zones.agents}
    names.problems += [  # now that all have asked for their names
        f"placement.map: the scenario does not refer to {name!r}, so it maps nothing"
        for name in names.map
        if name not in names.used
    ]
    if names.problems:
        title = f"{where} on {names.there.feeder}"
        raise ScenarioError(f"{title} ({_HINT})" if options.rule is None else title, names.problems)
    names.note_left_over()
    for key, own in inside.items():
        moved[key] = moved[key] | own
        if key in ("devices", "agents"):  # in the order that they had: actions and spaces follow it
            moved[key] = {name: moved[key][name] for name in data[key] if name in moved[key]}
    record = {  # for those who read the scenario; nothing else does
        "home": str(data["feeder"]),
        "load_ratio": significant(names.ratio),
        "moves": names.moves,
        "left_over": tuple(names.left),
    }
    return {**data, **moved, "microgrids": microgrids}, record


def _check_home(names: Names, where: str) -> None:
    """See that the buses whose place on the old feeder is asked for are on it.

    Raises:
        ScenarioError: some are not; all of them.
    """
    named = [(f"agents.{n}", b) for n, a in names.data["agents"].items() for b in (*zone_names(a["zone"]), a["pcc"])]
    if names.options.rule is not None:
        at = {name: str(spec["bus"]) for name, spec in names.data["devices"].items() if spec.get("bus") is not None}
        named += [(f"devices.{name}", bus) for name, bus in at.items() if bus.lower() not in names.map]
    found = [names.home.network.find_bus(bus, where=key) for key, bus in named]
    if problems := [each for each in found if isinstance(each, Problem)]:
        raise ScenarioError(f"{where} on {names.home.feeder}", dict.fromkeys(problems))


def _tie(names: Names, microgrid: str, old: str) -> str:
    """Find the bus of the new host for a microgrid's tie."""
    key, rule = f"microgrids.{microgrid}.bus", names.options.rule
    if rule is None or old.lower() in names.map or old.lower() not in names.home.network.bus_index:
        return names.bus(key, old, _PHASES) or old
    place = float(names.home.distance[names.home.network.bus_index[old.lower()]])
    return names.site(key, microgrid, old, _PHASES, place, sorted(names.there.network.tree.order.tolist()))


def _split(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Part a scenario into what is on the host and what is in its microgrids."""
    prefixes = tuple(f"{name.lower()}_" for name in data["microgrids"])
    inside: dict[str, dict[str, Any]] = {
        "devices": {n: d for n, d in data["devices"].items() if _is_inside(d.get("bus") or d.get("element"), prefixes)},
        "agents": {n: a for n, a in data["agents"].items() if a["zone"].get("microgrid")},
        "events": {n: e for n, e in data["events"].items() if prefixes and _strikes_inside(e, prefixes)},
        **{key: {n: v for n, v in data[key].items() if _is_inside(n, prefixes)} for key in _NAMED},
    }
    rest = {key: {n: v for n, v in data[key].items() if n not in own} for key, own in inside.items()}
    for name, agent in rest["agents"].items():
        named = [device for device in agent["devices"] if device in inside["devices"]]
        if named or any(_is_inside(bus, prefixes) for bus in zone_names(agent["zone"])):
            problem = f"agents.{name}: is on the host and in a microgrid, so it cannot be brought to another host"
            raise ScenarioError("placement", [f"{problem}; write the scenario for that one"])
    return {**data, **rest, "microgrids": {}}, inside


def _is_inside(name: Any, prefixes: tuple[str, ...]) -> bool:
    """Whether a bus, a load or a ``class.name`` is a microgrid's."""
    written = str(name).lower()  # with dots of its own, maybe
    return written.startswith(prefixes) or written.partition(".")[2].startswith(prefixes)


def _strikes_inside(event: Mapping[str, Any], prefixes: tuple[str, ...]) -> bool:
    """Whether an event strikes nothing on the host by name."""
    named = [each for key in ("bus", "element", "loads") for each in event.get(key) or () if each != "*"]
    return all(_is_inside(each, prefixes) for each in named)


def _move_keys(names: Names) -> dict[str, Any]:
    """Bring the keys that name what a feeder has: taps, steps, ratings, classes of loads, events."""
    network, moved = names.there.network, dict[str, Any]()
    for key, class_name, known in (
        ("taps", "regcontrol", network.regulator_controls),
        ("steps_on", "capacitor", network.capacitors),
    ):
        moved[key] = _rename(names, key, class_name, names.data[key], known)
    norm_amps = {}
    for name, amps in names.data["norm_amps"].items():
        new = names.mapped(name) if name.lower() in names.map else name
        if new is not None and new.lower() in network.branches.names:
            norm_amps[new] = amps
        elif names.options.rule is not None or name.lower() in names.map:
            names.left.append(f"norm_amps.{name}: ratings are the new feeder's own")
        else:
            names.problems.append(f"norm_amps: {name!r} is not on {names.there.feeder}{names.like(name)}")
    moved["norm_amps"] = norm_amps
    classes, loads = {}, network.loads.names
    for pattern, demand in names.data["profiles"]["load_classes"].items():
        if any(fits(load, pattern) for load in loads):
            classes[pattern] = demand
        elif names.options.rule is not None:
            names.left.append(f"profiles.load_classes.{pattern}: no load of the new feeder is called so")
        else:
            names.problems.append(f"profiles.load_classes: no load of {names.there.feeder} is called {pattern!r}")
    moved["profiles"] = names.data["profiles"] | {"load_classes": classes}
    moved["events"] = {name: _move_event(names, name, event) for name, event in names.data["events"].items()}
    return moved


def _move_event(names: Names, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Let an event strike what is there: names and patterns that fit stay, others follow the map or the rule."""
    network, event = names.there.network, dict(given)
    sources = [f"{kind}.{each}" for kind, own in network.elements.items() for each in own]
    known: dict[str, Sequence[str]] = {
        "bus": network.buses,
        "element": [*network.branches.names, *(each.lower() for each in sources)],
        "loads": network.loads.names,
    }
    for key, there in known.items():
        if event.get(key) is not None:
            event[key] = tuple(names.struck(f"events.{name}.{key}", each, there) for each in event[key])
    if str(event.get("cleared_by", "nearest")) not in ("nearest", "agents"):
        event["cleared_by"] = names.struck(f"events.{name}.cleared_by", event["cleared_by"], known["element"])
    gone = [device for device in event.get("device") or () if device in names.dropped]
    names.problems += [f"events.{name}.device: {device!r} is left out by the map" for device in gone]
    return event


def _rename(names: Names, key: str, class_name: str, given: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    moved: dict[str, Any] = {}
    for name, value in given.items():
        full = f"{class_name}.{name.lower()}"
        if full in names.map:
            mapped = names.mapped(full)
            new, why = (None if mapped is None else mapped.partition(".")[2]), "map"
        elif names.options.rule is None:
            new, why = (name if name.lower() in known else None), "same name"
        else:
            element = names.in_order(class_name).get(full)
            new, why = (None if element is None else element.name.partition(".")[2]), "order of distance"
        if new is not None and new.lower() not in known:  # a transformer that no RegControl moves
            names.left.append(f"{key}.{name}: no control moves the taps of {new!r}, which start as the model has them")
        elif new is not None:
            moved[new] = value
            names.moves[f"{key}.{name}"] = (name, new, why)
        elif names.options.rule is None and full not in names.map:
            names.problems.append(f"{key}: {name!r} is not on {names.there.feeder}{names.like(full)}")
        else:
            names.left.append(f"{key}.{name}: has no counterpart on {names.there.feeder}")
    return moved


def _scale_rewards(names: Names) -> dict[str, Any]:
    """Let the reward's scale follow the feeder's demand, and the price of a violation its number of nodes as well."""
    wanted = names.options.scale_rewards
    if not (names.options.rule is not None if wanted is None else wanted):
        return {}
    # Violations are summed over nodes, so a feeder of twice the nodes has twice as many for the same state.
    nodes = len(names.home.network.nodes) / len(names.there.network.nodes)
    reward, penalty = names.data["reward"], names.data["penalty"]
    scale, price = significant(reward["scale"] / names.ratio), significant(penalty * names.ratio * nodes)
    why = "nominal demand and number of nodes"
    names.moves["reward.scale"] = (f"{reward['scale']:g}", f"{scale:g}", why)
    names.moves["penalty"] = (f"{penalty:g}", f"{price:g}", why)
    return {"reward": reward | {"scale": scale}, "penalty": price}
