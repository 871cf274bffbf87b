"""What each event does where: the tables from an event and its drawn target to branches, devices, faults and loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.circuit.injections import Fault
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.outages import targets

IntArray = npt.NDArray[np.int64]


class Effect(NamedTuple):
    """What one event does at one of its targets.

    Attributes:
        place: What it befalls, as infos name it.
        branches: Branches that are out of service; of a fault those that clear it.
        device: Device that delivers nothing, -1 for none.
        tripped: Generating element of the feeder that delivers nothing, empty for none.
        fault: Fault that is on, empty for none.
        nodes: Nodes by which it is told whose zone it is in, and whether a fault has voltage.
    """

    place: str
    branches: tuple[int, ...] = ()
    device: int = -1
    tripped: str = ""
    fault: str = ""
    nodes: tuple[int, ...] = ()


def find_faults(feeder: Feeder, events: Mapping[str, Any]) -> dict[str, list[Fault]]:
    """Return the faults that each fault event may be, one a bus."""
    of_faults = {name: spec for name, spec in events.items() if spec.kind == "fault"}
    return {name: targets.faults_of(spec, network_of(feeder)) for name, spec in of_faults.items()}


def list_effects(
    events: Mapping[str, Any],
    faults: Mapping[str, Sequence[Fault]],
    network: Network,
    devices: Mapping[str, IntArray],
    bound: Sequence[str],
    switches: Sequence[int],
    nodes_at: Callable[[str], IntArray],
) -> list[list[Effect]]:
    """Return what each event does at each of its targets, by event.

    Args:
        events: Spec of each event by name.
        faults: The faults built into the circuit, by event, in its order.
        network: The network.
        devices: Nodes of each device with power, by name, in the order of device arrays.
        bound: Elements that are devices, ``class.name`` in lower case.
        switches: Branches that are switch devices.
        nodes_at: Gives the nodes of an element ``class.name``.
    """
    numbers = {id(fault): i for i, fault in enumerate(f for of_event in faults.values() for f in of_event)}
    found: list[list[Effect]] = []
    for name, spec in events.items():
        if spec.kind == "line_outage":
            effects = [
                Effect(network.branches.names[i], branches=(i,), nodes=_far_end(network, i))
                for i in targets.branches_of(spec, network)
            ]
        elif spec.kind == "fault":
            effects = [_fault_effect(spec, fault, numbers[id(fault)], network, switches) for fault in faults[name]]
        elif spec.kind == "generator_outage" and spec.device is not None:
            order = list(devices)
            effects = [
                Effect(device, device=order.index(device), nodes=tuple(devices[device].tolist()))
                for device in targets.pick(spec.device, order)
            ]
        elif spec.kind == "generator_outage":
            effects = [
                Effect(element, tripped=element, nodes=tuple(nodes_at(element).tolist()))
                for element in targets.elements_of(spec, network, bound)
            ]
        else:
            effects = [Effect("")]
        found.append(effects)
    return found


def _fault_effect(spec: Any, fault: Fault, number: int, network: Network, switches: Sequence[int]) -> Effect:
    at = network.node_bus == network.bus_index[fault.bus.lower()]
    nodes = np.flatnonzero(at & np.isin(network.node_phase, fault.phases))
    clearing = targets.clearing_branches(spec, fault, network, switches)
    return Effect(fault.bus, tuple(clearing), fault=f"fault.powergrid_{number}", nodes=tuple(nodes.tolist()))


def _far_end(network: Network, branch: int) -> tuple[int, ...]:
    """Return the nodes at a branch's last terminal, by which it belongs to the zone that it feeds."""
    b = network.branches
    rows = np.append(b.terminal_rows, len(b.row_node))
    last = int(np.flatnonzero(b.terminal_branch == branch)[-1])
    nodes = b.row_node[rows[last] : rows[last + 1]]
    return tuple((nodes[nodes > 0] - 1).tolist())
