"""Who decides over which devices and sees which part of the feeder: by zone, device, class, phase, or one for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from powergrid.grid.circuit.survey import Survey
from powergrid.scenario.discovery.devices import Device
from powergrid.scenario.discovery.wishes import LayoutSpec
from powergrid.scenario.discovery.zones import cut_zones, default_count, nearest_device, whole_feeder

_CLASS_NAMES = {"storage": "batteries", "switch": "switches"}
_PHASE_NAMES = {1: "phase_a", 2: "phase_b", 3: "phase_c"}

Agents = dict[str, dict[str, Any]]


def form_agents(survey: Survey, devices: Sequence[Device], wish: LayoutSpec) -> Agents:
    """Form the agents of a layout, as a scenario says them; each device belongs to at most one.

    Every agent has something to decide: what the feeder's own controls move, or nobody, forms no agent by itself.
    """
    form = {
        "per_zone": _per_zone,
        "per_device": _per_device,
        "per_class": _per_class,
        "per_phase": _per_phase,
        "single": _single,
    }
    deciding = {device.name for device in devices if _is_decided(device)} or {device.name for device in devices}
    agents = form[wish.layout](survey, devices, wish)
    return {name: agent for name, agent in agents.items() if not deciding.isdisjoint(agent["devices"])}


def _is_decided(device: Device) -> bool:
    return str(device.spec.get("control", "agent")) == "agent"


def _decided(devices: Sequence[Device]) -> list[Device]:
    """Return the devices that an agent decides over; all of them where there are none, which is told elsewhere."""
    return [device for device in devices if _is_decided(device)] or list(devices)


def _per_zone(survey: Survey, devices: Sequence[Device], wish: LayoutSpec) -> Agents:
    """Return every zone an agent; each bus is in one zone."""
    network = survey.network
    count = wish.zones or default_count(network)
    agents: Agents = {}
    for number, zone in enumerate(cut_zones(survey, [device.bus for device in _decided(devices)], count), start=1):
        inside = set(zone.buses)
        own = [device.name for device in devices if device.bus in inside]
        agents[f"zone_{number}"] = {"devices": own, "zone": zone.data, "pcc": network.buses[zone.root]}
    return agents


def _per_device(survey: Survey, devices: Sequence[Device], wish: LayoutSpec) -> Agents:
    """Return every device an agent, which sees the buses that are electrically nearer to it than to other devices.

    Devices at one bus share its zone; a device that is not tied to all phases sees its own phases of it.
    """
    network, devices = survey.network, _decided(devices)
    near = nearest_device(survey, [device.bus for device in devices])
    agents: Agents = {}
    for device in devices:
        buses = [
            network.buses[bus] for bus in sorted({device.bus, *(b for b, own in near.items() if own == device.bus)})
        ]
        zone: dict[str, Any] = {"buses": buses}
        if device.phases and device.phases != (1, 2, 3):
            zone["phases"] = list(device.phases)
        agents[device.name] = {"devices": [device.name], "zone": zone, "pcc": network.buses[device.bus]}
    return agents


def _per_class(survey: Survey, devices: Sequence[Device], wish: LayoutSpec) -> Agents:
    """Return every kind of devices an agent, which sees the buses that are electrically nearer to these than to others.

    Kinds with devices at one bus share what is nearest to it.
    """
    network = survey.network
    kinds = {device.spec["kind"] for device in _decided(devices)}
    devices = [device for device in devices if device.spec["kind"] in kinds]
    near = nearest_device(survey, [device.bus for device in devices])
    agents: Agents = {}
    for kind in dict.fromkeys(str(device.spec["kind"]) for device in devices):
        own = [device for device in devices if device.spec["kind"] == kind]
        at = {device.bus for device in own}
        buses = sorted(at | {bus for bus, nearest in near.items() if nearest in at})
        agents[_CLASS_NAMES.get(kind, f"{kind}s")] = {
            "devices": [device.name for device in own],
            "zone": {"buses": [network.buses[bus] for bus in buses]},
            "pcc": network.buses[own[0].bus],
        }
    return agents


def _per_phase(survey: Survey, devices: Sequence[Device], wish: LayoutSpec) -> Agents:
    """Return every phase an agent over its single-phase devices, and one agent the devices of several phases."""
    network = survey.network
    pcc = network.buses[network.source_bus]
    agents: Agents = {}
    for phase, name in _PHASE_NAMES.items():
        own = [device.name for device in devices if device.phases == (phase,)]
        agents[name] = {"devices": own, "zone": {**whole_feeder(network), "phases": [phase]}, "pcc": pcc}
    several = [device for device in devices if len(device.phases) != 1]
    name = "three_phase" if all(len(device.phases) == 3 for device in several) else "multi_phase"
    own = [device.name for device in several]
    agents[name] = {"devices": own, "zone": whole_feeder(network), "pcc": pcc}
    return agents


def _single(survey: Survey, devices: Sequence[Device], wish: LayoutSpec) -> Agents:
    """Return one agent everything."""
    network = survey.network
    own = [device.name for device in devices]
    return {"grid": {"devices": own, "zone": whole_feeder(network), "pcc": network.buses[network.source_bus]}}
