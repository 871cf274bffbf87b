"""What events mean on a feeder: whom their names and patterns pick, and what each does there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem, describe_unknown
from powergrid.grid.circuit.circuit import Circuit, network_of
from powergrid.grid.circuit.out_of_service import Fault
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Network, fits

IntArray = npt.NDArray[np.int64]

#: Capacitors and reactors are branches as well, but no event takes them out.
OPENING_CLASSES = ("line", "transformer", "autotrans")
TRIPPING_CLASSES = ("generator", "pvsystem")


def pick(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return the names that some names or patterns mean, in the order of the names, letter case ignored."""
    wanted = list(patterns)
    return [name for name in names if any(fits(name.lower(), pattern) for pattern in wanted)]


def find_event_problems(
    events: Mapping[str, Any],
    network: Network,
    power_devices: Sequence[str],
    bound: Sequence[str],
    dt_h: float,
    hours: float,
) -> Iterable[Problem]:
    """Yield what events refer to and a feeder lacks.

    Args:
        events: Spec of each event by name.
        network: The feeder's network.
        power_devices: Names of the devices with power.
        bound: Elements that are devices already, ``class.name`` in lower case.
        dt_h: Length of a step [h].
        hours: Length of an episode [h].
    """
    openable, tripping = _openable(network), _tripping(network, ())
    for name, spec in events.items():
        where = f"events.{name}"
        element = ("branch", openable) if spec.kind == "line_outage" else ("generating element", tripping)
        kinds: dict[str, tuple[str, Sequence[str]]] = {
            "loads": ("load", network.loads.names),
            "device": ("device with power", power_devices),
            "bus": ("bus", network.buses),
            "element": element,
        }
        for key, (what, known) in kinds.items():
            for pattern in getattr(spec, key, None) or ():
                if not (found := pick([pattern], known)):
                    yield _unknown(what, pattern, known, where)
                elif known is tripping:
                    taken = [each for each in found if each in bound]
                    text = "{} is a device of the scenario; name it by device"
                    yield from (Problem("name-taken", where, text.format(each)) for each in taken)
        if spec.kind == "fault":
            yield from _find_fault_problems(spec, network, openable, where)
        start = (spec.between_hours or (0.0,))[0] if spec.at_hour is None else spec.at_hour
        start = start if spec.at_step is None else spec.at_step * dt_h
        if start >= hours:
            text = f"starts at {start:g} h, which is not within the episode's {hours:g} h"
            yield Problem("bad-value", where, text)


def _unknown(what: str, pattern: str, known: Iterable[str], where: str) -> Problem:
    """Return what :meth:`Network.find` does for a name, for one that may be a pattern or may mean some of a kind."""
    return Problem(f"unknown-{what.replace(' ', '-')}", where, describe_unknown(what, pattern, known))


def _find_fault_problems(spec: Any, network: Network, openable: Sequence[str], where: str) -> Iterable[Problem]:
    for bus in pick(spec.bus, network.buses):
        found = network.find_bus(bus, spec.phases or (), where)
        if isinstance(found, Problem):
            yield found
        elif not _phases_of(network, bus):
            yield Problem("missing-phase", where, f"bus {bus!r} has none of the phases 1, 2, 3")
    if spec.cleared_by not in ("nearest", "agents") and spec.cleared_by.lower() not in openable:
        yield _unknown("branch", spec.cleared_by, ["nearest", "agents", *openable], f"{where}: cleared_by")


def _openable(network: Network) -> list[str]:
    return [name for name in network.branches.names if name.partition(".")[0] in OPENING_CLASSES]


def _tripping(network: Network, bound: Iterable[str]) -> list[str]:
    elements = {class_name.lower(): names for class_name, names in network.elements.items()}
    every = [f"{class_name}.{name}" for class_name in TRIPPING_CLASSES for name in elements.get(class_name, ())]
    return [name for name in every if name not in bound]


def _phases_of(network: Network, bus: str) -> list[int]:
    phases = network.node_phase[network.node_bus == network.bus_index[bus.lower()]]
    return sorted(int(phase) for phase in phases if phase <= 3)  # beyond are neutrals


def _branches_of(spec: Any, network: Network) -> list[int]:
    """Return the branches that an outage may take out."""
    return [network.branch_index[name] for name in pick(spec.element, _openable(network))]


def _elements_of(spec: Any, network: Network, bound: Iterable[str]) -> list[str]:
    """Return the generating elements that an outage may trip."""
    return pick(spec.element, _tripping(network, set(bound)))


def _faults_of(spec: Any, network: Network) -> list[Fault]:
    """Return the faults that a fault event may be, one a bus."""
    return [
        Fault(bus, tuple(spec.phases or _phases_of(network, bus)), spec.r_ohm, spec.grounded)
        for bus in pick(spec.bus, network.buses)
    ]


def _clearing_branches(spec: Any, fault: Fault, network: Network, switches: Iterable[int]) -> list[int]:
    """Return the branches that open to clear a fault, side by side where there are several.

    Args:
        spec: The event's spec.
        fault: Where it strikes.
        network: The network.
        switches: Branches that are switch devices.
    """
    if spec.cleared_by == "agents":
        return []
    if spec.cleared_by != "nearest":
        return [network.branch_index[spec.cleared_by.lower()]]
    bus, own = network.bus_index[fault.bus.lower()], set(switches)
    if bus == network.source_bus or not nx.has_path(network.graph, network.source_bus, bus):
        return []
    way: list[int] = nx.shortest_path(network.graph, bus, network.source_bus)
    hops = [_branches_between(network, one, other) for one, other in itertools.pairwise(way)]
    # protection opens where a switch is, else at a line; a transformer or a reactor only where no line is on the way
    with_switch = [hop for hop in hops if own & {*hop}]
    of_lines = [hop for hop in hops if all(network.branches.names[i].startswith("line.") for i in hop)]
    return (with_switch or of_lines or hops)[0]


def _branches_between(network: Network, one: int, other: int) -> list[int]:
    b = network.branches
    at = [set(b.terminal_branch[b.terminal_bus == bus].tolist()) for bus in (one, other)]
    return sorted(branch for branch in at[0] & at[1] if b.closed[branch])


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
    return {name: _faults_of(spec, network_of(feeder)) for name, spec in of_faults.items()}


def list_effects(
    events: Mapping[str, Any],
    faults: Mapping[str, Sequence[Fault]],
    circuit: Circuit,
    device_names: Sequence[str],
    switches: Sequence[int],
) -> list[list[Effect]]:
    """Return what each event does at each of its targets, by event.

    Args:
        events: Spec of each event by name.
        faults: The faults built into the circuit, by event, in its order.
        circuit: The circuit.
        device_names: The devices with power, in the order of device arrays.
        switches: Branches that are switch devices.
    """
    network, nodes_at = circuit.network, circuit.out_of_service.nodes_at
    devices = dict(zip(device_names, circuit.device_nodes, strict=True))
    bound = [injection.element.lower() for injection in circuit.injections if injection.element]
    # by identity: two events may have equal faults, each built into the circuit by itself
    numbers = {id(fault): i for i, fault in enumerate(f for of_event in faults.values() for f in of_event)}
    found: list[list[Effect]] = []
    for name, spec in events.items():
        if spec.kind == "line_outage":
            effects = [
                Effect(network.branches.names[i], branches=(i,), nodes=_far_end(network, i))
                for i in _branches_of(spec, network)
            ]
        elif spec.kind == "fault":
            effects = [_fault_effect(spec, fault, numbers[id(fault)], network, switches) for fault in faults[name]]
        elif spec.kind == "generator_outage" and spec.device is not None:
            order = list(devices)
            effects = [
                Effect(device, device=order.index(device), nodes=tuple(devices[device].tolist()))
                for device in pick(spec.device, order)
            ]
        elif spec.kind == "generator_outage":
            effects = [
                Effect(element, tripped=element, nodes=tuple(nodes_at(element).tolist()))
                for element in _elements_of(spec, network, bound)
            ]
        else:
            effects = [Effect("")]
        found.append(effects)
    return found


def _fault_effect(spec: Any, fault: Fault, number: int, network: Network, switches: Sequence[int]) -> Effect:
    at = network.node_bus == network.bus_index[fault.bus.lower()]
    nodes = np.flatnonzero(at & np.isin(network.node_phase, fault.phases))
    clearing = _clearing_branches(spec, fault, network, switches)
    return Effect(fault.bus, tuple(clearing), fault=f"fault.powergrid_{number}", nodes=tuple(nodes.tolist()))


def _far_end(network: Network, branch: int) -> tuple[int, ...]:
    """Return the nodes at a branch's last terminal, by which it belongs to the zone that it feeds."""
    b = network.branches
    rows = np.append(b.terminal_rows, len(b.row_node))
    last = int(np.flatnonzero(b.terminal_branch == branch)[-1])
    nodes = b.row_node[rows[last] : rows[last + 1]]
    return tuple((nodes[nodes > 0] - 1).tolist())
