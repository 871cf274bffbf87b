"""Infer what a scenario leaves out: devices, agents, profiles, reward, start; tell what a feeder has and was left."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from powergrid.errors import PowerGridError, ScenarioError, describe_unknown
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.devices.spec import Spec
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.network.shapes import SHAPE_MODES, ShapeMode
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.demand import Demand
from powergrid.grid.profiles.imported import is_imported, read_imported
from powergrid.grid.profiles.profiles import (
    Profiles,
    builtin_profiles,
    find_shape_problems,
    follow_loadshapes,
    read_profiles,
)
from powergrid.scenario.discovery.agents import form_agents
from powergrid.scenario.discovery.devices import Device, Findings, place_der, significant
from powergrid.scenario.discovery.equipment import Equipment, phases_served, read_equipment
from powergrid.scenario.discovery.survey import Survey, equipment_of
from powergrid.scenario.shorthand import changes_discovered, spread
from powergrid.scenario.vocabulary import LAYOUTS, AddDerSpec, DiscoverSpec, LayoutSpec, ZoneSpec, explain

#: A mean price and a quarter of an hour, by which rewards are scaled to the feeder [USD/kWh], [h].
_PRICE, _HOURS = 0.12, 0.25
#: The weighted bill of a step of the whole feeder, in rewards.
_BILL_IN_REWARD = 0.2
#: Price of a violation by 1 pu of every node, in bills of a step.
_VIOLATION_IN_BILLS = 120.0


_STEP_MINUTES = 15  # a scenario's default
#: What a move wears and how long a device rests after it, where the feeder's model, as OpenDSS has it, says nothing:
#: USD for each position [USD], rest [min]. A bank discharges before it may close again; a tap waits for the voltage.
_WEAR = {"capacitor": (0.2, 60.0), "regulator": (0.05, 30.0)}
#: Wear of batteries [USD] for each kWh charged or discharged.
_WEAR_USD_PER_KWH = 0.02


@dataclass(frozen=True)
class Summary:
    """What would be discovered on a feeder.

    Attributes:
        devices: Device, kind, where it sits, phases.
        agents: By layout, each agent's devices and number of buses.
        notes: What was found and left out, with the key that includes it; or what can be added.
        specs: What each device would say of itself.
    """

    devices: tuple[tuple[str, str, str, tuple[int, ...]], ...]
    agents: dict[str, dict[str, tuple[tuple[str, ...], int]]]
    notes: tuple[str, ...]
    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def leaves_something(data: Mapping[str, Any]) -> bool:
    """Say whether a scenario's data leave devices or agents to be inferred."""
    devices, agents = data.get("devices"), data.get("agents")
    return (
        devices in (None, "discover")
        or changes_discovered(devices)
        or agents is None
        or isinstance(agents, str)
        or is_layout(agents)
        or any(data.get(key) is not None for key in ("discover", "add_der"))
    )


def is_layout(agents: Any) -> bool:
    """Say whether a value of ``agents`` is a layout with its settings, and not agents by name."""
    return isinstance(agents, Mapping) and isinstance(agents.get("layout"), str)


def infer(feeder: Feeder, data: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a scenario's data with what they leave out filled in from the feeder, and a sentence for what is left.

    Args:
        feeder: The feeder that the data name.
        data: A scenario's data; ``devices`` may be missing or ``discover``, ``agents`` missing or a layout.
        where: What errors call the scenario.

    Raises:
        ScenarioError: an option is wrong, names what the feeder lacks, or there is nothing to control.
        FeederError: the feeder does not compile or solve.
    """
    left, changes = _read_options(data, where)
    with contextlib.closing(Survey(feeder)) as survey:
        return _fill_in(survey, data, left, changes, where)


def _fill_in(
    survey: Survey, data: Mapping[str, Any], left: _LeftOpen, changes: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    equipment, notes, hints, filled = survey.equipment, list[str](), list[str](), dict(data)
    problems: list[str] = []
    if left.discover is not None:
        findings = Findings(equipment, left.discover)
        devices, notes, hints, problems = findings.devices, findings.notes, findings.hints, findings.problems
        given: dict[str, Any] = {}
    else:
        given = dict(data["devices"])
        devices = [_locate(equipment, name, spec) for name, spec in given.items()]
    if left.add_der is not None:
        devices = [*devices, *place_der(equipment, left.add_der, {device.name for device in devices})]
    names = [device.name for device in devices]
    changes, unknown = spread(changes, names, "device", "devices")
    lacking = [name for name, change in changes.items() if name not in names and change is not None]
    problems += [*unknown, *(f"devices: {describe_unknown('device', name, names)}" for name in lacking)]
    minutes = data.get("step_minutes")
    wear = {device.name: _wear_of(device.spec, minutes) for device in devices if device.name not in given}
    devices = [
        replace(device, spec=device.spec | wear.get(device.name, {}) | dict(changes.get(device.name, {})))
        for device in devices
        if changes.get(device.name, {}) is not None
    ]
    if not devices and not problems:
        problems.append(_nothing_to_control(equipment, notes))
    if problems:
        raise ScenarioError(where, problems)
    filled["devices"] = {device.name: device.spec for device in devices} | given
    if left.agents is not None:
        filled["agents"] = form_agents(equipment, devices, left.agents)
        if left.agents.layout == "single":
            filled.setdefault("mode", "centralized")
    if left.discover is not None:
        _infer_profiles(equipment, filled, notes)
        _infer_reward(equipment, filled)
        _infer_start(survey, filled)
        filled.setdefault("description", f"What was discovered on {equipment.feeder}.")
    for key in ("discover", "add_der"):
        filled.pop(key, None)
    return filled, (*equipment.network.notes, *notes, *hints)


class _LeftOpen(Spec):
    """What a scenario says of what it leaves to be inferred."""

    discover: DiscoverSpec | None = None
    add_der: AddDerSpec | None = None
    agents: LayoutSpec | None = None


def _read_options(data: Mapping[str, Any], where: str) -> tuple[_LeftOpen, Mapping[str, Any]]:
    """Read what a scenario says of what it leaves out.

    Returns:
        What to discover (None where devices are given), what to add, how to form agents (None where they are given),
        and keys of discovered devices that the scenario changes, by device.
    """
    given, agents = data.get("devices"), data.get("agents")
    layouts = ", ".join(LAYOUTS)
    for key, value, words in (("devices", given, "discover"), ("agents", agents, layouts)):
        if not isinstance(value, Mapping | str | None):
            raise ScenarioError(where, [f"{key}: give them by name, or a word ({words}), not {value!r}"])
    problems: list[str] = []
    if isinstance(agents, str) and agents not in LAYOUTS:
        problems.append(f"agents: {describe_unknown('layout', agents, LAYOUTS)}")
        agents = None
    layout = agents if is_layout(agents) else None  # with agents by name there is none
    if not isinstance(agents, Mapping):
        layout = {"layout": agents or "per_zone"}
    asked = {"discover": data.get("discover"), "add_der": data.get("add_der"), "agents": layout}
    changes = given if isinstance(given, Mapping) and changes_discovered(given) else {}
    discovers = given in (None, "discover") or bool(changes)
    left = _LeftOpen()
    try:
        left = _LeftOpen.model_validate(asked)
    except ValidationError as error:
        problems = [line for _, line in explain(error, _LeftOpen, asked)] + problems
    if isinstance(given, str) and not discovers:
        problems.append(f"devices: {describe_unknown('word', given, ['discover'])}")
    if asked["discover"] is not None and not discovers:
        problems.append("discover: devices are given; leave them out, or write devices: discover")
    if (discovers or asked["add_der"] is not None) and layout is None:
        names = ", ".join(map(str, data["agents"]))
        problems.append(f"agents: {names} are given, but which devices there are is not; use one of {layouts}")
    if problems:
        raise ScenarioError(where, problems)
    discover = (left.discover or DiscoverSpec()) if discovers else None
    return left.model_copy(update={"discover": discover}), changes


def _nothing_to_control(equipment: Equipment, notes: Sequence[str]) -> str:
    """Say that a feeder has nothing to control, and what can be added and how."""
    left = f" Found and left out: {'; '.join(notes)}." if notes else ""
    names = [element.name.partition(".")[2] for element in equipment.elements["tap_changers"]]
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
    equipment = read_equipment(feeder) if isinstance(feeder, Circuit) else equipment_of(feeder)
    findings = Findings(equipment, DiscoverSpec())
    devices, notes = findings.devices, [*equipment.network.notes, *findings.notes, *findings.hints]
    agents: dict[str, dict[str, tuple[tuple[str, ...], int]]] = {}
    for layout in LAYOUTS if devices else ():
        formed = form_agents(equipment, devices, LayoutSpec(layout=layout))
        zones = {name: ZoneSpec(**agent["zone"]).find_buses(equipment.network) for name, agent in formed.items()}
        agents[layout] = {name: (tuple(agent["devices"]), len(zones[name])) for name, agent in formed.items()}
    if not devices:
        notes = [_nothing_to_control(equipment, findings.notes)]
    rows = tuple((d.name, str(d.spec["kind"]), str(d.spec.get("element")), d.phases) for d in devices)
    return Summary(rows, agents, tuple(notes), {device.name: device.spec for device in devices})


def _locate(equipment: Equipment, name: str, spec: Any) -> Device:
    """Find where a given device acts; one that cannot be found goes to the source, its errors are told elsewhere."""
    network = equipment.network
    spec = dict(spec) if isinstance(spec, Mapping) else {}
    element = str(spec.get("element") or "").lower()
    if (bus := network.bus_index.get(str(spec.get("bus") or "").lower())) is not None:
        numbers = spec.get("phases") or (1, 2, 3)
        nodes = [int(node) for node in network.nodes_of([bus]) if int(network.node_phase[node]) in numbers]
        return Device(name, spec, bus, phases_served(network, nodes))
    if (known := equipment.find(element)) is not None:
        return Device(name, spec, known.bus, known.phases)
    ends = network.branches.buses[network.branch_index[element]] if element in network.branch_index else ()
    far = max(ends, key=lambda end: network.tree.depth[end], default=network.source_bus)
    return Device(name, spec, far, (1, 2, 3))


def _infer_profiles(equipment: Equipment, filled: dict[str, Any], notes: list[str]) -> None:
    """Let loads follow the model's own LoadShapes where it has any that can be used."""
    profiles = filled.get("profiles")
    if profiles is None:
        profiles = {}
    if not isinstance(profiles, Mapping) or "source" in profiles:
        return
    mode = _shape_mode(profiles)
    if not (equipment.network.followed_by("Load", mode) >= 0).any():
        return
    wrong = find_shape_problems(equipment.network, mode)
    if wrong:
        notes.append(f"the model's LoadShapes are not followed, demand is the shipped one: {'; '.join(wrong)}")
    else:
        filled["profiles"] = {**profiles, "source": "loadshapes"}


def _shape_mode(profiles: Mapping[str, Any]) -> ShapeMode | None:
    mode = profiles.get("shape_mode")
    return mode if mode in SHAPE_MODES else None  # what is wrong with it is told elsewhere


def _wear_of(spec: Mapping[str, Any], step_minutes: Any) -> dict[str, Any]:
    """Return what moves of a device found on a feeder cost and how long it rests after one."""
    kind = spec["kind"]
    if kind == "storage":
        return {"wear_usd_per_kwh": _WEAR_USD_PER_KWH}
    if kind not in _WEAR:
        return {}
    price, rest_minutes = _WEAR[kind]
    whole = isinstance(step_minutes, int) and step_minutes > 0  # else it is told elsewhere
    rest = math.ceil(rest_minutes / (step_minutes if whole else _STEP_MINUTES)) - 1
    return {"cost_usd_per_operation": price} | ({"dwell_steps": rest} if rest else {})


def _infer_reward(equipment: Equipment, filled: dict[str, Any]) -> None:
    """Scale rewards and the price of violations to the feeder's demand and number of nodes."""
    # The bill of a quarter-hour at nominal demand is a reward of 0.2; all nodes 0.01 pu outside cost 1.2 of that bill.
    peak_kw = max(float(abs(equipment.network.loads.kw).sum()), 10.0)
    bill_usd = peak_kw * _PRICE * _HOURS
    penalty = _VIOLATION_IN_BILLS * bill_usd / len(equipment.network.nodes)
    filled.setdefault("penalty", significant(penalty, 2))
    reward = filled.get("reward")
    # a preset has weights and a scale of its own
    if reward is None or (isinstance(reward, Mapping) and reward.get("preset") is None):
        usual = {"goal": "balanced", "scale": significant(_BILL_IN_REWARD / bill_usd, 2)}
        filled["reward"] = {**usual, **(reward or {})}


def _infer_start(survey: Survey, filled: dict[str, Any]) -> None:
    """Add ``taps`` and ``steps_on`` as the feeder's own controls leave them at the mean demand.

    Where these are the user's own, or demand comes of tables with a map, nothing is added.
    """
    network, profiles = survey.equipment.network, filled.get("profiles")
    source = profiles.get("source", "builtin") if isinstance(profiles, Mapping) else "builtin"
    scale = filled.get("load_scale", 1.0)
    movable = network.regulator_controls or network.capacitors
    if not isinstance(scale, int | float) or not 0.0 < scale <= 100.0:  # which is told elsewhere
        return
    if survey.feeder.controls_off or not movable or filled.get("taps") or filled.get("steps_on"):
        return
    # A model stands as its controls leave it at nominal demand, which a day seldom reaches: taps that are right there
    # lift light loads far above the band, and would make leaving things alone look worse than it is.
    mode = _shape_mode(profiles) if isinstance(profiles, Mapping) else None
    if not (isinstance(source, str) and source == "builtin"):
        series = _read_demand(network, profiles, source, mode)
        if series is None:
            return
        kw, kvar = Demand(series, SimulationOptions(load_scale=float(scale)), network).mean()
    else:
        share = float(scale) * float(builtin_profiles().demand_pu.mean())
        kw, kvar = network.loads.kw * share, network.loads.kvar * share
    filled |= {key: dict(value) for key, value in survey.positions_at(kw, kvar).items() if value}


def _read_demand(network: Network, profiles: Any, source: Any, mode: ShapeMode | None) -> Profiles | None:
    """Return the series that demand follows; None where they cannot be read, which is told elsewhere, or need a map."""
    if isinstance(source, str) and source == "loadshapes":
        return follow_loadshapes(network, builtin_profiles(demand=False), mode)
    if "map" in profiles:
        return None
    with contextlib.suppress(PowerGridError):
        imported = isinstance(source, str | Path) and is_imported(source)
        return read_imported(source) if imported else read_profiles(source)
    return None
