"""What a compiled feeder consists of: nodes, branches, loads, regulators, capacitors, and how they hang together.

Plain data and graph questions; knows no engine and no time.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from powergrid.errors import Problem, describe_unknown
from powergrid.grid.feeder.microgrid import Microgrid
from powergrid.grid.feeder.network.shapes import SHAPE_MODES, BoolArray, FloatArray, IntArray, ShapeMode, Shapes
from powergrid.grid.feeder.network.tables import Branches, FeederControl, Loads, Sources
from powergrid.grid.feeder.network.tree import Tree, grow

# Imported where it is used: a trial of a foreign feeder asks nothing of graphs, and would wait for it.
if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Network:
    """A feeder as data.

    Attributes:
        nodes: ``bus.phase`` names in the engine's order, shape (n_nodes,).
        node_bus: Bus index of each node, shape (n_nodes,).
        node_phase: Phase number of each node, shape (n_nodes,).
        v_base: Line-to-neutral base voltage [V] of each node, shape (n_nodes,).
        buses: Bus names, lower case, in the order of their first node.
        bus_xy: Coordinates, NaN where the feeder gives none, shape (n_buses, 2).
        source_bus: Index of the bus that the first source feeds.
        regulators: Names of the transformers that a RegControl moves, in the order of the controls; once a winding.
        regulator_controls: Names of those controls.
        capacitors: Capacitor names.
        switches: Names of all lines: each can be opened and closed.
        controls: The feeder's own controls, as compiled.
        shapes: The LoadShapes that elements follow.
        shapes_of: By class, the place in ``shapes`` of what each of its elements follows, -1 where it follows none: a
            row for each of ``SHAPE_MODES``, in the order of ``elements``, shape (n_modes, n_elements).
        sources: Its generators and panels.
        shape_mode: The mode that the model itself says (``Set Mode``), else ``own``.
        microgrids: Feeders that were tied to this one.
        notes: What the model leaves out and was added, a sentence each.
        elements: Lower-case names of all other devices that a scenario can bind: class to names.
        source_nodes: Nodes that voltage sources hold, shape (n_source_nodes,).
        neutrals: Neutral conductors, whatever their number: nodes at 0 V where nothing is loaded, which have no voltage
            to keep within limits, shape (n_neutrals,).
        floating: Nodes from which nothing leads to ground, as behind a delta winding, shape (n_floating,).
        tapped: Buses to which something else than lines is tied, as compiled, shape (n_tapped,).
    """

    nodes: tuple[str, ...]
    node_bus: IntArray
    node_phase: IntArray
    v_base: FloatArray
    buses: tuple[str, ...]
    bus_xy: FloatArray
    source_bus: int
    branches: Branches
    loads: Loads
    regulators: tuple[str, ...]
    regulator_controls: tuple[str, ...]
    capacitors: tuple[str, ...]
    switches: tuple[str, ...]
    elements: dict[str, tuple[str, ...]]
    shapes: Shapes = field(default_factory=Shapes)
    shapes_of: dict[str, IntArray] = field(default_factory=dict)
    sources: Sources = field(default_factory=Sources)
    shape_mode: ShapeMode = "own"
    source_nodes: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    neutrals: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    floating: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    tapped: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    controls: tuple[FeederControl, ...] = ()
    microgrids: tuple[Microgrid, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def bus_index(self) -> dict[str, int]:
        """Bus name to index."""
        return {name: index for index, name in enumerate(self.buses)}

    @cached_property
    def is_neutral(self) -> BoolArray:
        """Whether each node is a neutral conductor, shape (n_nodes,)."""
        found = np.zeros(len(self.nodes), dtype=bool)
        found[self.neutrals] = True
        return found

    @cached_property
    def is_phase(self) -> BoolArray:
        """Whether each node is of phase 1, 2 or 3, shape (n_nodes,)."""
        return ~self.is_neutral & (self.node_phase <= 3)

    @cached_property
    def branch_index(self) -> dict[str, int]:
        """Branch to index, by ``class.name`` in lower case."""
        return {name: index for index, name in enumerate(self.branches.names)}

    def names_of(self, class_name: str) -> tuple[str, ...]:
        """Return the names of the elements of a class that may follow shapes, lower case."""
        driven = self.sources.driven.get(class_name)
        return self.elements.get(class_name, ()) if driven is None else driven.names

    def followed_by(self, class_name: str, mode: ShapeMode | None = None) -> IntArray:
        """Return the place in ``shapes`` of what each element of a class follows, -1 for none, shape (n_elements,).

        Args:
            class_name: The class, as OpenDSS writes it.
            mode: The mode; the model's own if not given.
        """
        rows = self.shapes_of.get(class_name)
        if rows is None:
            return np.full(len(self.names_of(class_name)), -1)
        followed: IntArray = rows[SHAPE_MODES.index(mode or self.shape_mode)]
        return followed

    # -- what a name refers to: whoever reads a name from a user asks here, so that it is judged once

    @cached_property
    def _indices(self) -> dict[str, dict[str, int]]:
        """What can be referred to, by kind: lower-case name to index."""
        named = {
            "branch": self.branches.names,
            "load": self.loads.names,
            "regulator control": self.regulator_controls,
            **{class_name.lower(): names for class_name, names in self.elements.items()},
            "capacitor": self.capacitors,
            "line": self.switches,
        }
        indices = {kind: {name: index for index, name in enumerate(names)} for kind, names in named.items()}
        return indices | {"bus": self.bus_index}

    def find(self, kind: str, name: str, where: str = "") -> int | Problem:
        """Return the index of what a name refers to, or the problem ``unknown-<kind>`` with the nearest names.

        Args:
            kind: ``bus``, ``branch``, ``load``, ``capacitor``, ``line``, ``regulator control``, or
                another class of elements that a scenario can bind; letter case ignored, as in the name.
            name, where: The name, and where it was written, for the problem.
        """
        known = self._indices.get(kind.lower(), {})
        index = known.get(name.lower())
        if index is None:
            return Problem(f"unknown-{kind.lower().replace(' ', '-')}", where, describe_unknown(kind, name, known))
        return index

    def find_bus(self, name: str, phases: Sequence[int] = (), where: str = "") -> int | Problem:
        """Return the index of a bus, or the problem: ``unknown-bus``, or ``missing-phase`` where it lacks some."""
        bus = self.find("bus", name, where)
        if isinstance(bus, Problem) or not len(phases):
            return bus
        lacking = describe_missing_phases(name, phases, self.node_phase[self.node_bus == bus].tolist())
        return Problem("missing-phase", where, lacking) if lacking else bus

    def find_element(self, element: str, where: str = "") -> int | Problem:
        """Return the index of ``class.name`` among the elements of its class, or the problem, as :meth:`find` does."""
        class_name, _, name = element.partition(".")
        return self.find(class_name, name, where)

    def _bus(self, name: str) -> int:
        found = self.find("bus", name)
        if isinstance(found, Problem):
            raise KeyError(str(found))
        return found

    # -- how it hangs together

    @cached_property
    def graph(self) -> nx.Graph[int]:
        """Buses joined by the closed branches; edges carry the branch index."""
        import networkx as nx

        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(len(self.buses)))
        graph.add_edges_from((one, other, {"branch": branch}) for branch, one, other in self._joined())
        return graph

    def _joined(self, closed: BoolArray | None = None) -> Iterator[tuple[int, int, int]]:
        """Return the pairs of buses that a closed branch joins: branch, bus, other bus."""
        for branch in np.flatnonzero(self.branches.closed if closed is None else closed).tolist():
            first, *others = self.branches.buses[branch] or [-1]
            yield from ((branch, first, other) for other in others)

    def distances_km(self, closed: BoolArray | None = None) -> FloatArray:
        """Return how far each bus is from the source along the lines, the shortest way where there are several.

        Returns:
            Distances [km], infinite where nothing closed leads, shape (n_buses,). A line whose length has no unit
            counts with its bare number.
        """
        import networkx as nx

        graph: nx.MultiGraph[int] = nx.MultiGraph()  # of branches side by side the shortest counts
        graph.add_node(self.source_bus)
        # Dijkstra's algorithm takes no negative lengths; nothing keeps a file from having some.
        lengths = np.maximum(self.branches.length_km, 0.0).tolist()
        graph.add_edges_from((one, other, {"length": lengths[b]}) for b, one, other in self._joined(closed))
        distances = np.full(len(self.buses), np.inf)
        for bus, distance in nx.single_source_dijkstra_path_length(graph, self.source_bus, weight="length").items():
            distances[bus] = distance
        return distances

    @cached_property
    def tree(self) -> Tree:
        """The buses that the source feeds, each below the one it is reached through by the fewest branches."""
        joined = np.array(list(self._joined()), dtype=np.int64).reshape(-1, 3)
        return grow(len(self.buses), self.source_bus, joined)

    @cached_property
    def served_phase(self) -> IntArray:
        """Phase of the source, 1 to 3, that feeds each node, shape (n_nodes,).

        Behind a single-phase transformer both legs are of the phase of its primary, whatever their numbers; where the
        primary is tied between two phases, of the first. Nodes that nothing feeds have their own number.
        """
        phase, n = np.zeros(len(self.nodes), dtype=np.int64), len(self.nodes)
        waiting = [i for i in self.nodes_of([self.source_bus]).tolist() if 1 <= self.node_phase[i] <= 3]
        phase[waiting] = self.node_phase[waiting]
        _, one, other = self.wires()
        part = connected_components(coo_array((np.ones(len(one)), (one, other)), shape=(n, n)), directed=False)[1]
        fed = np.zeros(n, dtype=np.int64)
        fed[part[waiting]] = phase[waiting]
        if (fed[part[waiting]] == phase[waiting]).all():
            phase = fed[part]
        else:  # wired together across phases: the nearer to the source counts
            neighbours: list[list[int]] = [[] for _ in range(n)]
            for u, v in zip(one.tolist(), other.tolist(), strict=True):
                neighbours[u].append(v)
                neighbours[v].append(u)
            for node in waiting:  # grows while it is walked
                for near in neighbours[node]:
                    if not phase[near]:
                        phase[near] = phase[node]
                        waiting.append(near)
        return np.where(phase == 0, self.node_phase, phase)

    def wires(self, closed: BoolArray | None = None) -> IntArray:
        """Return what closed branches join: branch, node, other node, shape (3, n_wires)."""
        wires = self.branches.wires
        found: IntArray = wires[:, (self.branches.closed if closed is None else closed)[wires[0]]]
        return found

    def among(self, buses: Sequence[int], which: IntArray) -> BoolArray:
        """Return whether each of the bus indices in an array, -1 for none, is among some buses."""
        inside = np.zeros(len(self.buses) + 1, dtype=np.bool_)  # the last one is what -1 means
        inside[np.array(list(buses), dtype=np.int64)] = True
        return inside[which]

    def nodes_within(self, buses: Sequence[int], phases: Sequence[int] = ()) -> IntArray:
        """Return the nodes of some buses, of those fed by some phases where these are given, in node order."""
        inside = self.among(buses, self.node_bus)
        if len(phases):
            inside &= np.isin(self.served_phase, list(phases))
        return np.flatnonzero(inside)

    def load_shares(self, buses: Sequence[int], phases: Sequence[int] = ()) -> FloatArray:
        """Return the part of each load that is at some buses and phases, 0 to 1, shape (n_loads,)."""
        # OpenDSS splits a load of several phases equally, so the nodes have equal parts.
        share = self.among(buses, self.loads.bus).astype(np.float64)
        if len(phases):
            chosen = np.isin(self.served_phase, list(phases))
            for load, nodes in enumerate(self.loads.nodes):
                if share[load] and nodes:
                    share[load] = float(chosen[list(nodes)].mean())
        return share

    def downstream(self, bus: str) -> list[int]:
        """Return a bus and all that are fed through it; ``KeyError`` where there is no such bus."""
        found: list[int] = np.sort(self.tree.below(self._bus(bus))).tolist()
        return found

    def feeding_branches(self, bus: str) -> list[int]:
        """Return the branches from the source to a bus, those side by side too; ``KeyError`` likewise."""
        hops = itertools.pairwise(self.tree.way(self._bus(bus)))
        return sorted(branch for hop in hops for branch in self._between.get(frozenset(hop), ()))

    @cached_property
    def _between(self) -> dict[frozenset[int], list[int]]:
        """The branches between buses, by these."""
        found: dict[frozenset[int], list[int]] = {}
        for branch, buses in enumerate(self.branches.buses):
            found.setdefault(frozenset(buses), []).append(branch)
        return found

    def nodes_of(self, buses: list[int]) -> IntArray:
        """Return the node indices of some buses, in node order."""
        return np.flatnonzero(np.isin(self.node_bus, buses))

    def boundary(self, buses: list[int]) -> FloatArray:
        """Return what turns terminal flows into the power imported by some buses, shape (n_terminals,)."""
        # A terminal inside, of a branch that has one outside as well, counts -1: what flows into the branch there
        # leaves the set. Ground is neither.
        b = self.branches
        inside, real = self.among(buses, b.terminal_bus), b.terminal_bus >= 0
        n_inside = np.bincount(b.terminal_branch, weights=inside & real, minlength=len(b.names))
        n_real = np.bincount(b.terminal_branch, weights=real, minlength=len(b.names))
        crosses = (n_inside > 0) & (n_inside < n_real)
        return -(inside & crosses[b.terminal_branch]).astype(np.float64)

    def intake(self, buses: list[int]) -> FloatArray:
        """Return the weights of :meth:`boundary`, and of what the source gives where its bus is in the set."""
        weights = self.boundary(buses)
        if self.source_bus in buses:
            weights += self.branches.terminal_bus == self.source_bus
        return weights

    def conductor_intake(self, buses: list[int], phases: Sequence[int]) -> FloatArray:
        """Return the weights of :meth:`intake` for what flows in the conductors of some phases, shape (n_rows,)."""
        b = self.branches
        sizes = np.diff(np.append(b.terminal_rows, len(b.row_node)))
        # Row nodes count from 1; 0 is ground, which no phase feeds.
        fed_by = np.concatenate([[0], self.served_phase])
        return np.repeat(self.intake(buses), sizes) * np.isin(fed_by[b.row_node], list(phases))


def fits(name: str, pattern: str) -> bool:
    """Whether a name, in lower case, is meant by a name or ``fnmatch`` pattern; names hold ``[`` and ``*`` too."""
    return name == pattern.lower() or fnmatch.fnmatchcase(name, pattern.lower())


def describe_missing_phases(bus: str, phases: Sequence[int], has: Sequence[int]) -> str:
    """Say which of some phases a bus lacks, nothing where it has them all."""
    missing = sorted(set(phases) - set(has))
    return f"bus {bus!r} has phases {sorted(set(has))}, not {missing}" if missing else ""
