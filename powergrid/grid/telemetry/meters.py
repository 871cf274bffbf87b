"""Where a grid is measured: voltages of zones by the buses that have a meter, and who is near whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem, list_names
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.network import Network
from powergrid.grid.metrics import Metrics

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_WHERE = "telemetry.metered_buses"


class Meters:
    """Take the voltages of zones and network from the buses that are metered.

    Args:
        metrics: What is measured of all.
        buses: Names of the buses with a meter.
        zones: Nodes of each zone, by its name.
        problems: Where zones without a meter are told.

    Attributes:
        nodes: Whether each node is measured, shape (n_nodes,).
    """

    def __init__(
        self, metrics: Metrics, buses: Sequence[str], zones: Mapping[str, IntArray], problems: list[Problem]
    ) -> None:
        self._metrics, network = metrics, metrics.network
        live = np.ones(len(network.nodes), dtype=bool)
        live[network.neutrals] = False
        self.nodes = np.isin(network.node_bus, [network.bus_index[bus.lower()] for bus in buses]) & live
        own = {name: nodes[self.nodes[nodes]] for name, nodes in zones.items()}
        problems += [
            Problem(
                "no-meter", _WHERE, f"no bus in the zone of agent {name!r} is metered", _remedy(network, zones[name])
            )
            for name, nodes in own.items()
            if not len(nodes)
        ]
        groups = [*own.values(), np.flatnonzero(self.nodes)]
        self._members = np.concatenate(groups)
        sizes = np.array([len(each) for each in groups])
        self._starts = np.append(0, np.cumsum(sizes)[:-1])
        self._sizes = sizes.astype(np.float64)

    def look(self, energised: BoolArray) -> FloatArray:
        """Return lowest voltages of zones and network, the highest of these, and means of zones [pu].

        Those that nothing feeds are left out, as they are where all is measured; 0 where a zone has no other.

        Args:
            energised: Whether a source feeds each node, shape (n_envs, n_nodes).

        Returns:
            Shape (n_envs, 3 n_zones + 2).
        """
        metrics, starts, n = self._metrics, self._starts, len(self._starts)
        v_pu = metrics.results.take(metrics.columns["v_pu"].start + self._members, 1)
        found = np.empty((len(v_pu), 3 * n))
        lowest, highest, means = found[:, :n], found[:, n : 2 * n], found[:, 2 * n :]
        np.maximum.reduceat(v_pu, starts, axis=1, out=highest)
        if b"\0" in energised.tobytes():
            fed = energised.take(self._members, 1)
            np.minimum.reduceat(np.where(fed, v_pu, np.inf), starts, axis=1, out=lowest)
            lowest[np.isinf(lowest)] = 0.0
            np.add.reduceat(v_pu * fed, starts, axis=1, out=means)
            means /= np.maximum(np.add.reduceat(fed, starts, axis=1, dtype=np.float64), 1.0)
        else:
            np.minimum.reduceat(v_pu, starts, axis=1, out=lowest)
            np.add.reduceat(v_pu, starts, axis=1, out=means)
            means /= self._sizes
        return found[:, :-1]


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
