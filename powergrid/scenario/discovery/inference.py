"""Infer what a scenario leaves out: devices, agents, profiles, reward; and tell what a feeder has and was left."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.survey import Element, Survey, survey
from powergrid.grid.feeder.feeder import Feeder, read_feeder
from powergrid.grid.profiles.profiles import find_shape_problems
from powergrid.scenario.discovery.agents import form_agents
from powergrid.scenario.discovery.der import place_der
from powergrid.scenario.discovery.devices import Device, find_devices
from powergrid.scenario.discovery.start import infer_start
from powergrid.scenario.discovery.wishes import LAYOUTS, AddDerSpec, DiscoverSpec, LayoutSpec, Wish

W = TypeVar("W", bound=Wish)

#: A mean price and a quarter of an hour, by which rewards are scaled to the feeder [USD/kWh], [h].
_PRICE, _HOURS = 0.12, 0.25
#: The weighted bill of a step of the whole feeder, in rewards.
_BILL_IN_REWARD = 0.2
#: Price of a violation by 1 pu of every node, in bills of a step.
_VIOLATION_IN_BILLS = 120.0


@dataclass(frozen=True)
class Inference:
    """What was inferred.

    Attributes:
        data: The scenario as plain data, with nothing left to infer.
        notes: One sentence for each thing that was found and left out, with the key that includes it.
    """

    data: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """What would be discovered on a feeder.

    Attributes:
        devices: Device, kind, where it sits, phases.
        agents: By layout, each agent's devices and number of buses.
        notes: What was found and left out, with the key that includes it; or what can be added.
    """

    devices: tuple[tuple[str, str, str, tuple[int, ...]], ...]
    agents: dict[str, dict[str, tuple[tuple[str, ...], int]]]
    notes: tuple[str, ...]


def leaves_something(data: Mapping[str, Any]) -> bool:
    """Say whether a scenario's data leave devices or agents to be inferred."""
    devices, agents = data.get("devices"), data.get("agents")
    return (
        devices in (None, "discover")
        or lays_over(devices)
        or agents is None
        or isinstance(agents, str)
        or is_layout(agents)
        or any(data.get(key) is not None for key in ("discover", "add_der"))
    )


def lays_over(devices: Any) -> bool:
    """Say whether a value of ``devices`` has keys of devices that are to be discovered, and no devices in full."""
    return (
        isinstance(devices, Mapping)
        and bool(devices)
        and all(isinstance(spec, Mapping) and not {"kind", "bus", "element"} & set(spec) for spec in devices.values())
    )


def is_layout(agents: Any) -> bool:
    """Say whether a value of ``agents`` is a layout with its settings, and not agents by name."""
    return isinstance(agents, Mapping) and isinstance(agents.get("layout"), str)


@functools.lru_cache(maxsize=16)
def _survey_by_digest(master: str, digest: str, model_root: Path | None, trust: bool) -> Survey:
    circuit = Circuit(read_feeder(master, model_root=model_root, trust=trust))
    try:
        return survey(circuit)
    finally:
        circuit.close()


def survey_of(feeder: Feeder) -> Survey:
    """Compile a feeder once in this process and give what it has to control."""
    return _survey_by_digest(str(feeder.master), feeder.digest, feeder.model_root, feeder.trust)


def infer(feeder: Feeder, data: Mapping[str, Any], where: str) -> Inference:
    """Fill in what a scenario's data leave out.

    Args:
        feeder: The feeder that the data name.
        data: A scenario's data; ``devices`` may be missing or ``discover``, ``agents`` missing or a layout.
        where: What errors call the scenario.

    Raises:
        ScenarioError: a wish is wrong, names what the feeder lacks, or there is nothing to control.
        FeederError: the feeder does not compile or solve.
    """
    problems: list[str] = []
    discover = _read_wish(DiscoverSpec, "discover", data.get("discover"), problems)
    add_der = _read_wish(AddDerSpec, "add_der", data["add_der"], problems) if data.get("add_der") is not None else None
    layout = _read_layout(data.get("agents"), problems)
    laid_over: Mapping[str, Any] = data["devices"] if lays_over(data.get("devices")) else {}
    discovers = data.get("devices") in (None, "discover") or bool(laid_over)
    if isinstance(data.get("devices"), str) and not discovers:
        problems.append(f"devices: {describe_unknown('word', data['devices'], ['discover'])}")
    if data.get("discover") is not None and not discovers:
        problems.append("discover: devices are given; leave them out, or write devices: discover")
    for key, value in (("devices", data.get("devices")), ("agents", data.get("agents"))):
        if not isinstance(value, Mapping | str | None):
            word = "discover" if key == "devices" else ", ".join(LAYOUTS)
            raise ScenarioError(where, [f"{key}: give them by name, or a word ({word}), not {value!r}"])
    if (discovers or add_der is not None) and layout is None:
        given = ", ".join(map(str, data["agents"]))
        problems.append(
            f"agents: {given} are given, but which devices there are is not; use one of {', '.join(LAYOUTS)}"
        )
    if problems:
        raise ScenarioError(where, problems)
    found, notes, hints, inferred = survey_of(feeder), list[str](), list[str](), dict(data)
    if discovers:
        findings = find_devices(found, discover)
        devices, notes, hints = findings.devices, findings.notes, findings.hints
        problems += findings.problems
        inferred["devices"] = {}
    else:
        devices = [_locate(found, name, spec) for name, spec in data["devices"].items()]
        inferred["devices"] = dict(data["devices"])
    if add_der is not None:
        devices = [*devices, *place_der(found, add_der, {device.name for device in devices})]
    names = [device.name for device in devices]
    problems += [f"devices: {describe_unknown('device', name, names)}" for name in laid_over if name not in names]
    devices = [replace(device, spec=device.spec | dict(laid_over.get(device.name, {}))) for device in devices]
    if not devices and not problems:
        problems.append(nothing_to_control(found, notes))
    if problems:
        raise ScenarioError(where, problems)
    inferred["devices"] |= {device.name: device.spec for device in devices if device.name not in inferred["devices"]}
    if layout is not None:
        inferred["agents"] = form_agents(found, devices, layout)
        if layout.layout == "single":
            inferred.setdefault("mode", "centralized")
    if discovers:
        _infer_profiles(found, inferred, notes)
        _infer_reward(found, inferred)
        infer_start(feeder, found.network, inferred)
        inferred.setdefault("description", f"What was discovered on {found.feeder}.")
    for key in ("discover", "add_der"):
        inferred.pop(key, None)
    return Inference(inferred, (*notes, *hints))


def nothing_to_control(found: Survey, notes: Sequence[str]) -> str:
    """Say that a feeder has nothing to control, and what can be added and how."""
    left = f" Found and left out: {'; '.join(notes)}." if notes else ""
    names = [element.name.partition(".")[2] for element in found.tap_changers]
    taps = (
        f" Transformers with taps: {len(names)}; discover: {{tap_changers: [{names[0]}]}} takes one." if names else ""
    )
    return (
        "the feeder has nothing that agents could control: no RegControl, no switchable capacitor, no Storage, "
        f"PVSystem or Generator with a rating.{left}{taps} Add panels and batteries with --add-der 0.3 (or "
        "add_der: {penetration: 0.3}), list devices under devices, or let loads defer demand with discover: "
        "{flexible_loads: 10}"
    )


def summarise(feeder: Feeder | Circuit) -> Summary:
    """Tell what would be discovered on a feeder, and the agents of every layout.

    Args:
        feeder: The feeder, or a circuit compiled from it.
    """
    found = survey(feeder) if isinstance(feeder, Circuit) else survey_of(feeder)
    findings = find_devices(found, DiscoverSpec())
    devices, notes = findings.devices, [*findings.notes, *findings.hints]
    agents: dict[str, dict[str, tuple[tuple[str, ...], int]]] = {}
    for layout in LAYOUTS if devices else ():
        formed = form_agents(found, devices, LayoutSpec(layout=layout))
        agents[layout] = {
            name: (tuple(agent["devices"]), _count_buses(found, agent["zone"])) for name, agent in formed.items()
        }
    if not devices:
        notes = [nothing_to_control(found, findings.notes)]
    rows = tuple((d.name, str(d.spec["kind"]), str(d.spec.get("element")), d.phases) for d in devices)
    return Summary(rows, agents, tuple(notes))


def _count_buses(found: Survey, zone: Mapping[str, Any]) -> int:
    network = found.network
    if "buses" in zone:
        return len(zone["buses"])
    inside = set(network.downstream(zone["downstream_of"]))
    return len(inside.difference(*(network.downstream(bus) for bus in zone.get("until", ()))))


def _read_wish(model: type[W], key: str, value: Any, problems: list[str]) -> W:
    """Read a wish, or note what is wrong with it."""
    try:
        return model.model_validate({} if value is None else value)
    except ValidationError as error:
        for entry in error.errors(include_url=False):
            place = ".".join([key, *(str(part) for part in entry["loc"] if part in model.model_fields)])
            if entry["type"] == "extra_forbidden":
                line = f"{key}: {describe_unknown('key', entry['loc'][-1], model.model_fields)}"
            elif entry["type"] == "missing":
                line = f"{place}: is required"
            else:
                line = f"{place}: {entry['msg'][0].lower()}{entry['msg'][1:]}, not {entry.get('input')!r:.60}"
            problems.append(line)
        return cast(W, model.model_construct())


def _read_layout(agents: Any, problems: list[str]) -> LayoutSpec | None:
    """Read how agents are to be formed; None where they are given."""
    if agents is None:
        return LayoutSpec(layout="per_zone")
    if isinstance(agents, str):
        if agents not in LAYOUTS:
            problems.append(f"agents: {describe_unknown('layout', agents, LAYOUTS)}")
            return LayoutSpec(layout="per_zone")
        return LayoutSpec(layout=agents)
    return _read_wish(LayoutSpec, "agents", agents, problems) if is_layout(agents) else None


def _locate(found: Survey, name: str, spec: Any) -> Device:
    """Find where a given device acts; one that cannot be found goes to the source, its errors are told elsewhere."""
    network = found.network
    spec = dict(spec) if isinstance(spec, Mapping) else {}
    bus = network.source_bus
    phases: tuple[int, ...] = (1, 2, 3)
    element = str(spec.get("element") or "").lower()
    if str(spec.get("bus") or "").lower() in network.bus_index:
        bus = network.bus_index[str(spec["bus"]).lower()]
        numbers = spec.get("phases") or (1, 2, 3)
        nodes = [int(node) for node in network.nodes_of([bus]) if int(network.node_phase[node]) in numbers]
        phases = _served(found, nodes)
    elif element.startswith("load.") and element[5:] in network.loads.names:
        load = network.loads.names.index(element[5:])
        bus, phases = int(network.loads.bus[load]), _served(found, network.loads.nodes[load])
    elif element:
        known = _elements(found)
        if element.startswith("transformer.") and element[12:] in network.regulators:
            element = f"regcontrol.{network.regulator_controls[network.regulators.index(element[12:])]}"
        if element in known:
            bus, phases = known[element].bus, known[element].phases
        elif element in network.branches.names:
            b = network.branches
            ends = b.terminal_bus[b.terminal_branch == b.names.index(element)]
            bus = max((int(end) for end in ends if end >= 0), key=lambda end: network.depth.get(end, -1))
    return Device(name, spec, bus, phases)


def _served(found: Survey, nodes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({int(found.network.served_phase[node]) for node in nodes} & {1, 2, 3}))


def _elements(found: Survey) -> dict[str, Element]:
    gear = (found.regulators, found.tap_changers, found.capacitors, found.switches)
    kinds = (*gear, found.storage, found.pv, found.generators)
    return {element.name.lower(): element for kind in kinds for element in kind}


def _infer_profiles(found: Survey, inferred: dict[str, Any], notes: list[str]) -> None:
    """Let loads follow the model's own LoadShapes where it has any that can be used."""
    profiles = inferred.get("profiles")
    if profiles is None:
        profiles = {}
    if not isinstance(profiles, Mapping) or "source" in profiles or not found.network.load_shapes:
        return
    wrong = find_shape_problems(found.network)
    if wrong:
        notes.append(f"the model's LoadShapes are not followed, demand is the shipped one: {'; '.join(wrong)}")
    else:
        inferred["profiles"] = {**profiles, "source": "loadshapes"}


def _infer_reward(found: Survey, inferred: dict[str, Any]) -> None:
    """Scale rewards and the price of violations to the feeder's demand and number of nodes.

    The bill of a quarter-hour at nominal demand is a reward of 0.2; all nodes 0.01 pu outside cost 1.2 of that bill.
    """
    peak_kw = max(float(abs(found.network.loads.kw).sum()), 10.0)
    bill_usd = peak_kw * _PRICE * _HOURS
    penalty = _VIOLATION_IN_BILLS * bill_usd / len(found.network.nodes)
    inferred.setdefault("penalty", float(f"{penalty:.2g}"))
    reward = inferred.get("reward")
    if reward is None or (isinstance(reward, Mapping) and "scale" not in reward):
        inferred["reward"] = {**(reward or {}), "scale": float(f"{_BILL_IN_REWARD / bill_usd:.2g}")}
