"""Where a grid is measured: which buses have a meter, and who is near whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem, list_names
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.network import Network

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_WHERE = "telemetry.metered_buses"


def find_metered(
    network: Network, buses: Sequence[str], zones: Mapping[str, IntArray], problems: list[Problem]
) -> tuple[BoolArray, list[IntArray]]:
    """Return which nodes are measured, and the nodes that voltages of each zone, then the network, are taken from.

    Args:
        network: The network.
        buses: Names of the buses with a meter.
        zones: Nodes of each zone, by its name.
        problems: Where zones without a meter are told.
    """
    measured = np.isin(network.node_bus, [network.bus_index[bus.lower()] for bus in buses])
    measured[network.neutrals] = False
    own = {name: nodes[measured[nodes]] for name, nodes in zones.items()}
    problems += [
        Problem("no-meter", _WHERE, f"no bus in the zone of agent {name!r} is metered", _remedy(network, zones[name]))
        for name, nodes in own.items()
        if not len(nodes)
    ]
    return measured, [*own.values(), np.flatnonzero(measured)]


def _remedy(network: Network, nodes: IntArray) -> str:
    buses = dict.fromkeys(network.buses[bus] for bus in network.node_bus[nodes].tolist())
    return f"add one of {list_names(list(buses))}"


def find_places(spec: Any, circuit: Circuit) -> list[int]:
    """Return the buses that a device is at: where it is tied to the grid; both ends of a branch."""
    network, element = circuit.network, getattr(spec, "element", None)
    if not element:
        return [network.bus_index[spec.bus.lower()]]
    class_name, _, name = element.lower().partition(".")
    if class_name == "regcontrol":
        class_name, name = "transformer", network.regulators[network.regulator_controls.index(name)]
    for tapped in (class_name, "autotrans"):
        if f"{tapped}.{name}" in network.branch_index:
            return list(network.branches.buses[network.branch_index[f"{tapped}.{name}"]])
    nodes = circuit.engine.node_ref(circuit.engine.handles(class_name)[name])
    return sorted({int(bus) for bus in network.node_bus[nodes[nodes > 0] - 1]})


def find_near(network: Network, buses: Sequence[int], hops: int) -> list[int]:
    """Return the buses that are up to so many closed branches away from some."""
    near = set(buses)
    for _ in range(hops):
        more = {other for bus in near for other in network.graph.neighbors(bus)} - near
        if not more:
            break
        near |= more
    return sorted(near)
