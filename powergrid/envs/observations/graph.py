"""The feeder as a graph: arrays for whoever computes on it, and the same as numbers that agents observe.

Nodes are buses, edges are branches, each once, the bus nearer to the source first. Names of networkx are in no array.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.simulation import Simulation
from powergrid.grid.sums import GroupSums
from powergrid.grid.telemetry import Mark, TelemetrySpec
from powergrid.scenario.discovery.equipment import Equipment
from powergrid.scenario.discovery.survey import equipment_of

if TYPE_CHECKING:
    import networkx as nx

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Feature(NamedTuple):
    """One number of every node or edge: name, unit, and what it is. Of padding it is 0."""

    name: str
    unit: str
    meaning: str


#: Of a bus, in this order; voltages, ``demand_kw``, ``p_kw`` and ``q_kvar`` change with time.
NODE_FEATURES = (
    Feature("present", "", "1, and 0 of padding"),
    Feature("v_1_pu", "pu", "voltage of phase 1, 1.0 where the bus lacks it"),
    Feature("v_2_pu", "pu", "the same of phase 2"),
    Feature("v_3_pu", "pu", "the same of phase 3"),
    Feature("phases", "", "number of phases"),
    Feature("v_base_kv", "kV", "nominal voltage, line to neutral"),
    Feature("distance", "", "electrical distance from the source, as a part of the farthest's"),
    Feature("nominal_kw", "kW", "nominal demand of the loads there"),
    Feature("demand_kw", "kW", "demand of the step to come"),
    Feature("storage_kva", "kVA", "rating of storage devices there"),
    Feature("inverter_kva", "kVA", "rating of inverters there"),
    Feature("other_kva", "kVA", "rating of other devices with power there"),
    Feature("p_kw", "kW", "active power that all of them delivered"),
    Feature("q_kvar", "kvar", "reactive power that all of them delivered"),
    Feature("own", "", "1 where the agent has a device with power"),
)
#: Of a branch, in this order; ``loading_pu`` changes with time.
EDGE_FEATURES = (
    Feature("present", "", "1, and 0 of padding"),
    Feature("transformer", "", "1 of transformers"),
    Feature("z_pu", "pu", "magnitude of the impedance, on the feeder's nominal demand as base"),
    Feature("rating_pu", "pu", "normal rating, in parts of the feeder's nominal demand; 0 where there is none"),
    Feature("closed", "", "1 where it is closed as compiled"),
    Feature("loading_pu", "pu", "loading, 1.0 at the normal rating"),
)
_X = {feature.name: place for place, feature in enumerate(NODE_FEATURES)}
_E = {feature.name: place for place, feature in enumerate(EDGE_FEATURES)}
_V_RANGE = (0.85, 1.15)
#: What numbers without a rating of their own are scaled by, so that none is 0 or beyond: pu, and kV.
_MOST_Z, _MOST_RATING, _MOST_KV = 0.2, 4.0, 25.0


@dataclass(frozen=True)
class GridGraph:
    """A feeder, or what an agent sees of it, as arrays.

    Attributes:
        nodes: Names of the nodes: buses, or ``bus.phase`` in :func:`graph_of_phases`, shape (n,).
        edges: ``class.name`` of each edge's branch, shape (m,).
        edge_index: Nodes that each edge joins, the one nearer to the source first, shape (2, m).
        node_features: Shape (n, len(node_names)), in physical units; what changes with time is 0, voltages 1.
        edge_features: Shape (m, len(edge_names)), likewise.
        node_names, edge_names: Names of the columns; see ``NODE_FEATURES`` and ``EDGE_FEATURES``.
    """

    nodes: tuple[str, ...]
    edges: tuple[str, ...]
    edge_index: IntArray
    node_features: FloatArray
    edge_features: FloatArray
    node_names: tuple[str, ...]
    edge_names: tuple[str, ...]

    def to_networkx(self) -> nx.MultiGraph[str]:
        """Return the same as a graph of networkx, features as attributes by their names."""
        import networkx as nx

        graph: nx.MultiGraph[str] = nx.MultiGraph()
        for node, row in zip(self.nodes, self.node_features.tolist(), strict=True):
            graph.add_node(node, **dict(zip(self.node_names, row, strict=True)))
        ends = [(self.nodes[one], self.nodes[other]) for one, other in self.edge_index.T.tolist()]
        for (one, other), name, row in zip(ends, self.edges, self.edge_features.tolist(), strict=True):
            graph.add_edge(one, other, key=name, **dict(zip(self.edge_names, row, strict=True)))
        return graph


class GraphSource(NamedTuple):
    """What graphs of a feeder are made of.

    Attributes:
        feeder: The feeder.
        network: What it consists of.
        devices: Name, kind, bus index and rating [kVA] of each device with power.
    """

    feeder: Feeder
    network: Network
    devices: tuple[tuple[str, str, int, float], ...]

    @classmethod
    def of(cls, simulation: Simulation) -> GraphSource:
        """Return what a simulation plays on."""
        network, nodes = simulation.network, simulation.circuits[0].device_nodes
        buses = [int(network.node_bus[own[0]]) for own in nodes]
        specs = [(name, simulation.devices[name]) for name in simulation.power_device_names]
        devices = [(name, spec.kind, bus, _rating_kva(spec)) for (name, spec), bus in zip(specs, buses, strict=True)]
        return cls(simulation.feeder, network, tuple(devices))


def graph_of_buses(
    source: GraphSource, buses: Sequence[int] | None = None, owned: Sequence[str] | None = None
) -> GridGraph:
    """Return buses and branches as a graph.

    Args:
        source: The feeder and its devices.
        buses: Indices of the buses; all where not given. Branches between two of them are its edges.
        owned: Names of the devices that ``own`` tells of; all where not given.
    """
    network, equipment = source.network, equipment_of(source.feeder)
    chosen = np.arange(len(network.buses)) if buses is None else np.array(sorted(buses), dtype=np.int64)
    place = {int(bus): i for i, bus in enumerate(chosen)}
    x = np.zeros((len(network.buses), len(NODE_FEATURES)))
    x[:, _X["present"]] = 1.0
    x[:, _X["v_1_pu"] : _X["v_3_pu"] + 1] = 1.0
    x[:, _X["phases"]] = [len(own) for own in equipment.bus_phases]
    x[:, _X["v_base_kv"]] = equipment.volts / 1000.0
    x[:, _X["distance"]] = equipment.distance
    np.add.at(x[:, _X["nominal_kw"]], network.loads.bus, network.loads.kw)
    for name, kind, bus, kva in source.devices:
        x[bus, _X.get(f"{kind}_kva", _X["other_kva"])] += kva
        x[bus, _X["own"]] = max(x[bus, _X["own"]], float(owned is None or name in owned))
    pairs = [
        (branch, *sorted((ends[0], other), key=lambda bus: (equipment.distance[bus], bus)))
        for branch, ends in enumerate(network.branches.buses)
        for other in ends[1:]
        if ends[0] in place and other in place
    ]
    branches = np.array([branch for branch, *_ in pairs], dtype=np.int64)
    return GridGraph(
        nodes=tuple(network.buses[bus] for bus in chosen),
        edges=tuple(network.branches.names[branch] for branch in branches),
        edge_index=np.array([[place[one], place[other]] for _, one, other in pairs], dtype=np.int64).reshape(-1, 2).T,
        node_features=x[chosen],
        edge_features=_edge_features(network, equipment, branches, [near for _, near, _ in pairs]),
        node_names=tuple(feature.name for feature in NODE_FEATURES),
        edge_names=tuple(feature.name for feature in EDGE_FEATURES),
    )


def _edge_features(network: Network, equipment: Equipment, branches: IntArray, near: Sequence[int]) -> FloatArray:
    """Return the features of branches, told the bus of each that is nearer to the source."""
    b, total_kw = network.branches, max(float(network.loads.kw.sum()), 1.0)
    e = np.zeros((len(branches), len(EDGE_FEATURES)))
    e[:, _E["present"]] = 1.0
    e[:, _E["transformer"]] = [b.names[branch].startswith(("transformer.", "autotrans.")) for branch in branches]
    e[:, _E["z_pu"]] = equipment.length_pu[branches] * total_kw / 3000.0  # from a base of 1 MVA a phase
    volts = equipment.volts[np.array(near, dtype=np.int64)]
    e[:, _E["rating_pu"]] = b.norm_amps[branches] * b.phases[branches] * volts / 1000.0 / total_kw
    e[:, _E["closed"]] = b.closed[branches]
    return e


def graph_of_phases(network: Network) -> GridGraph:
    """Return nodes (``bus.phase``) and what joins them as a graph, with voltage, phase and nominal demand of each."""
    branch, one, other = network.branches.wires
    nominal_kw = np.zeros(len(network.nodes))
    for nodes, kw in zip(network.loads.nodes, network.loads.kw.tolist(), strict=True):
        nominal_kw[list(nodes)] += kw / max(len(nodes), 1)
    return GridGraph(
        nodes=network.nodes,
        edges=tuple(network.branches.names[each] for each in branch),
        edge_index=np.stack([one, other]),
        node_features=np.column_stack([network.v_base / 1000.0, network.node_phase, nominal_kw]),
        edge_features=network.branches.closed[branch].astype(np.float64)[:, None],
        node_names=("v_base_kv", "phase", "nominal_kw"),
        edge_names=("closed",),
    )


@dataclass(frozen=True)
class GraphForm:
    """How a graph lies in an observation: an agent's own channels, then nodes, edge index and edges, each row by row.

    Attributes:
        n_own: Entries before the graph.
        n_nodes, n_edges: Nodes and edges that there is room for.
        flags: What tells of readings of each node, by name; the last of the agent's own channels, node by node.
    """

    n_own: int
    n_nodes: int
    n_edges: int
    flags: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Length of the observation."""
        n_x, n_e = self.n_nodes * len(NODE_FEATURES), self.n_edges * (2 + len(EDGE_FEATURES))
        return self.n_own + n_x + n_e

    def split(self, observation: Any) -> dict[str, Any]:
        """Return an observation as arrays; it may be of numpy or torch, with axes before its last.

        Returns:
            ``own`` (..., n_own), ``nodes`` (..., n_nodes, 15), ``edge_index`` (..., 2, n_edges) as whole numbers in
            the observation's own type, 0 of padding, and ``edges`` (..., n_edges, 6). Features are scaled to -1..1 as
            ``describe().observations`` says; the first one of each is 1, and 0 of padding.
        """
        lead, at = tuple(observation.shape[:-1]), self.n_own
        n_x, n_e = len(NODE_FEATURES), len(EDGE_FEATURES)
        ends = list(itertools.accumulate([at, self.n_nodes * n_x, 2 * self.n_edges, self.n_edges * n_e]))
        nodes, index, edges = (observation[..., first:last] for first, last in itertools.pairwise(ends))
        edges = edges.reshape((*lead, self.n_edges, n_e))
        index = (index.reshape((*lead, 2, self.n_edges)) + 1.0) * ((self.n_nodes - 1) / 2.0)
        first, n_flags = at - self.n_nodes * len(self.flags), len(self.flags)
        flags = {"flags": observation[..., first:at].reshape((*lead, self.n_nodes, n_flags))} if n_flags else {}
        return flags | {
            "own": observation[..., :at],
            "nodes": nodes.reshape((*lead, self.n_nodes, n_x)),
            "edge_index": index.round() * edges[..., None, :, 0],
            "edges": edges,
        }


class GraphView:
    """Turn graphs that agents see into channels: one graph for each owner, all with room for as many.

    Args:
        simulation: The simulation.
        graphs: Buses, and devices that are its own, by owner; None for all.
        size: Nodes and edges that there is room for; as many as there are where None.
        telemetry: What becomes of it; buses without a meter show a nominal voltage.

    Attributes:
        graphs: The graphs by owner.
        channels: Name, unit, bounds and owner of each channel, owner by owner.
        extra: Number of numbers that are measured for them, see :meth:`look`.
        flags: Names of what tells of readings of each node.

    Raises:
        ScenarioError: there is not room enough.
    """

    def __init__(
        self,
        simulation: Simulation,
        graphs: dict[str, tuple[Sequence[int] | None, Sequence[str] | None]],
        size: tuple[int | None, int | None],
        telemetry: TelemetrySpec | None = None,
    ) -> None:
        self._simulation, network = simulation, simulation.network
        buses = None if telemetry is None else telemetry.metered_buses
        metered = range(len(network.buses)) if buses is None else [network.bus_index[bus.lower()] for bus in buses]
        self._metered = frozenset(metered)
        self.flags = _name_flags(telemetry)
        self._n_buses = n_buses = len(network.buses)
        source = GraphSource.of(simulation)
        self.graphs = {owner: graph_of_buses(source, *each) for owner, each in graphs.items()}
        self.n_nodes = size[0] or max(len(graph.nodes) for graph in self.graphs.values())
        self.n_edges = size[1] or max(1, *(len(graph.edges) for graph in self.graphs.values()))
        self._require_room()
        self._demand = GroupSums(_by_group(network.loads.bus, n_buses), len(network.loads.names)).of
        self._powers = GroupSums(
            _by_group(np.array([bus for _, _, bus, _ in source.devices]), n_buses), len(source.devices)
        ).of
        # one after the other: demand, active and reactive power of every bus, and then what does not change
        self._constant = [0.0, 1.0]
        self._places: list[tuple[str, int]] = []
        self.channels: list[tuple[str, str, float, float, str]] = []
        self._marks: list[str] = []
        x = graph_of_buses(source).node_features
        self._most_kw = 1.2 * simulation.options.load_scale * max(float(x[:, _X["nominal_kw"]].max()), 1.0)
        self._most_kva = max(float(x[:, _X["storage_kva"] : _X["other_kva"] + 1].sum(axis=1).max()), 1.0)
        for owner, graph in self.graphs.items():
            self._add(owner, graph, network)
        self.extra = 3 * n_buses + len(self._constant)
        self._values = np.zeros((simulation.n_envs, self.extra))
        self._values[:, 3 * n_buses :] = self._constant

    def _require_room(self) -> None:
        problems = []
        for owner, graph in self.graphs.items():
            for what, key, there, room in (
                ("buses", "max_buses", len(graph.nodes), self.n_nodes),
                ("branches", "max_branches", len(graph.edges), self.n_edges),
            ):
                if there > room:
                    told = f"{there} {what} of the {owner}"
                    problems.append(f"graph.{key}: {room} is less than the {told}; set it to {there} or more")
        if problems:
            raise ScenarioError(self._simulation.feeder.name, problems)

    def form(self, width: int) -> GraphForm:
        """Return how a graph lies at the end of an observation of so many entries."""
        bare = GraphForm(0, self.n_nodes, self.n_edges)
        return GraphForm(width - bare.width, self.n_nodes, self.n_edges, self.flags)

    def look(self) -> FloatArray:
        """Return what is measured for the graphs, shape (n_envs, extra); reused at each call."""
        simulation, n = self._simulation, self._n_buses
        demand_kw = simulation.day_load_kw[simulation.env_index, simulation.step_index]
        self._values[:, :n] = self._demand(demand_kw)
        p_kw, q_kvar = simulation.powers.delivered
        self._values[:, n : 2 * n], self._values[:, 2 * n : 3 * n] = self._powers(p_kw), self._powers(q_kvar)
        return self._values

    @property
    def moving(self) -> list[bool]:
        """Whether each channel changes with time and is no flag: what telemetry makes something else of."""
        n_moving = 3 * self._n_buses
        return [
            kind in ("v_pu", "loading_pu") or (kind == "extra" and place < n_moving) for kind, place in self._places
        ]

    def tell(self, marks: Sequence[Mark]) -> list[tuple[str, str, float, float, str]]:
        """Return the ``channels``, those that show marks of telemetry with their bounds."""
        high = {mark.name: mark.high for mark in marks}
        return [(*row[:3], high.get(row[0], row[3]), row[4]) for row in self.channels]

    def places(self, extra: int, v_pu: int, loading_pu: int, marks: Mapping[str, int]) -> IntArray:
        """Return where each channel lies, told where the extra numbers, voltages, loadings and marks are."""
        constant = extra + 3 * self._n_buses
        first = {"extra": extra, "constant": constant, "v_pu": v_pu, "loading_pu": loading_pu}
        return np.array(
            [
                # what no group tells of is neither missing nor old
                marks.get(self._marks[place], constant) if kind == "mark" else first[kind] + place
                for kind, place in self._places
            ],
            dtype=np.int64,
        )

    # -- the table

    def _add(self, owner: str, graph: GridGraph, network: Network) -> None:
        bus_of = [network.bus_index[name] for name in graph.nodes]
        node_at = {
            (int(bus), int(phase)): node
            for node, (bus, phase) in enumerate(zip(network.node_bus, network.node_phase, strict=True))
            if network.is_phase[node]
        }
        self._add_flags(owner, bus_of)
        for i in range(self.n_nodes):
            for column, feature in enumerate(NODE_FEATURES):
                name = f"{owner}.node_{i}.{feature.name}"
                if i >= len(graph.nodes):
                    self._channel(name, feature.unit, (-1.0, 1.0), owner, "constant", 0)
                    continue
                bounds, source = self._node_source(feature.name, bus_of[i], node_at, len(network.buses))
                if source is None:
                    source = self._keep(float(graph.node_features[i, column]))
                self._channel(name, feature.unit, bounds, owner, *source)
        most = float(max(self.n_nodes - 1, 1))
        for row, end in enumerate(("from", "to")):
            for k in range(self.n_edges):
                at = float(graph.edge_index[row, k]) if k < len(graph.edges) else 0.0
                self._channel(f"{owner}.edge_{k}.{end}", "", (0.0, most), owner, *self._keep(at))
        branch_of = [network.branch_index[name] for name in graph.edges]
        for k in range(self.n_edges):
            for column, feature in enumerate(EDGE_FEATURES):
                name = f"{owner}.edge_{k}.{feature.name}"
                if k >= len(graph.edges):
                    self._channel(name, feature.unit, (-1.0, 1.0), owner, "constant", 0)
                elif feature.name == "loading_pu":
                    self._channel(name, feature.unit, (-2.0, 2.0), owner, "loading_pu", branch_of[k])
                else:
                    most_e = {"z_pu": _MOST_Z, "rating_pu": _MOST_RATING}.get(feature.name, 1.0)
                    kept = self._keep(float(graph.edge_features[k, column]))
                    self._channel(name, feature.unit, (-most_e, most_e), owner, *kept)

    def _add_flags(self, owner: str, bus_of: Sequence[int]) -> None:
        for i in range(self.n_nodes):
            for flag in self.flags:
                name, unit = f"{owner}.node_{i}.{flag}", "min" if flag.endswith("_min") else ""
                if flag == "measured" or i >= len(bus_of):
                    there = i < len(bus_of) and bus_of[i] in self._metered
                    self._channel(name, unit, (0.0, 1.0), owner, "constant", int(there))
                else:
                    self._marks.append(name)
                    self._channel(name, unit, (0.0, 1.0), owner, "mark", len(self._marks) - 1)

    def _node_source(
        self, feature: str, bus: int, node_at: dict[tuple[int, int], int], n_buses: int
    ) -> tuple[tuple[float, float], tuple[str, int] | None]:
        """Return bounds of a bus's number and where it is measured, None of what stays."""
        moving = {"demand_kw": (0, self._most_kw), "p_kw": (1, self._most_kva), "q_kvar": (2, self._most_kva)}
        if feature in moving:
            part, most = moving[feature]
            return (-most, most), ("extra", part * n_buses + bus)
        if feature.startswith("v_") and feature.endswith("_pu"):
            node = node_at.get((bus, int(feature[2])))
            return _V_RANGE, ("constant", 1) if node is None or bus not in self._metered else ("v_pu", node)
        most = {"nominal_kw": self._most_kw, "phases": 3.0, "v_base_kv": _MOST_KV}.get(feature, 1.0)
        most = self._most_kva if feature.endswith("_kva") else most
        return (-most, most), None

    def _keep(self, value: float) -> tuple[str, int]:
        self._constant.append(value)
        return "constant", len(self._constant) - 1

    def _channel(self, name: str, unit: str, bounds: tuple[float, float], owner: str, kind: str, place: int) -> None:
        self.channels.append((name, unit, *bounds, owner))
        self._places.append((kind, place))


def _name_flags(spec: TelemetrySpec | None) -> tuple[str, ...]:
    """Return the names of what tells of readings of each node: whether it is measured, and ages and gaps by group."""
    if spec is None:
        return ()
    groups = spec.readings.items()
    ages = [f"{name}_age_min" for name, group in groups if group.age]
    gaps = [f"{name}_missing" for name, group in groups if group.on_loss != "hold"]
    return (*(() if spec.metered_buses is None else ("measured",)), *ages, *gaps)


def _rating_kva(spec: Any) -> float:
    return float(getattr(spec, "s_max_kva", None) or getattr(spec, "p_max_kw", None) or 0.0)


def _by_group(group: IntArray, n: int) -> list[tuple[IntArray, float]]:
    return [(np.flatnonzero(group == i), 1.0) for i in range(n)]
