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
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from powergrid.errors import Problem, describe_unknown
from powergrid.grid.feeder.microgrid import Microgrid
from powergrid.grid.feeder.shapes import SHAPE_MODES, ShapeMode, Shapes
from powergrid.grid.feeder.tree import Tree, grow

# Imported where it is used: a trial of a foreign feeder asks nothing of graphs, and would wait for it.
if TYPE_CHECKING:
    import networkx as nx

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Branches:
    """Lines, transformers and the other delivering elements, conductor by conductor.

    A row is one conductor of one terminal of one branch, in the order branch, terminal, conductor.

    Attributes:
        names: ``class.name``, lower case, shape (n_branches,).
        norm_amps: Normal rating [A], 0 where there is none, shape (n_branches,).
        phases: Number of phases, the first conductors of each terminal, shape (n_branches,).
        row_node: Node of each row, 0 is ground, node i is entry i - 1 of the node tables, shape (n_rows,).
        branch_rows: First row of each branch, shape (n_branches,).
        terminal_rows: First row of each terminal, shape (n_terminals,).
        terminal_branch: Branch of each terminal, shape (n_terminals,).
        terminal_bus: Bus index of each terminal, -1 where it is tied to ground only, shape (n_terminals,).
        closed: Whether the branch connects its terminals as compiled, at least in one phase, shape (n_branches,).
        length_km: Length of lines [km], 0 of other branches; where neither line nor line code gives a unit, the bare
            number, shape (n_branches,).
        has_length_unit: Whether a line's length has a unit; true of other branches, shape (n_branches,).
        is_switch: Whether the model calls a line a switch, shape (n_branches,).
        open_rows: Rows whose conductor is open as compiled while others of its branch are closed, shape (n_open,).
    """

    names: tuple[str, ...]
    norm_amps: FloatArray
    phases: IntArray
    row_node: IntArray
    branch_rows: IntArray
    terminal_rows: IntArray
    terminal_branch: IntArray
    terminal_bus: IntArray
    closed: BoolArray
    length_km: FloatArray
    has_length_unit: BoolArray
    is_switch: BoolArray
    open_rows: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @cached_property
    def buses(self) -> list[list[int]]:
        """The different buses that each branch is tied to, in the order of its terminals."""
        ends: list[list[int]] = [[] for _ in self.names]
        for branch, bus in zip(self.terminal_branch.tolist(), self.terminal_bus.tolist(), strict=True):
            if bus >= 0 and bus not in ends[branch]:
                ends[branch].append(bus)
        return ends


@dataclass(frozen=True)
class Loads:
    """The feeder's loads at their nominal demand.

    Attributes:
        names: Lower case, shape (n_loads,).
        bus: Bus index, shape (n_loads,).
        kw: Nominal active demand [kW], shape (n_loads,).
        kvar: Nominal reactive demand [kvar], shape (n_loads,).
        nodes: Indices of the nodes that each load is tied to; empty where that is not known.
        fixed: Whether a load draws its nominal demand whatever the time (Status=fixed), shape (n_loads,).
        fixed_q: Whether its reactive demand stays nominal (models 6 and 7), shape (n_loads,).
        actual_q_per_kw: What it draws beside the kW of a shape of actual values without kvar, by its power factor
            where the model gives one, else 0 [kvar/kW], shape (n_loads,).
    """

    names: tuple[str, ...]
    bus: IntArray
    kw: FloatArray
    kvar: FloatArray
    nodes: tuple[tuple[int, ...], ...] = ()
    fixed: BoolArray = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    fixed_q: BoolArray = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    actual_q_per_kw: FloatArray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Driven:
    """Elements of a class of which a shape moves one number, and nothing else.

    Attributes:
        names: Lower case, shape (n,).
        nominal: The number at a multiplier of 1, shape (n,).
        per_actual: The number for each unit of a shape of actual values, shape (n,).
    """

    names: tuple[str, ...]
    nominal: FloatArray
    per_actual: FloatArray


#: What a generator waits for: nothing, a level of demand, a price.
BY_NOTHING, BY_LEVEL, BY_PRICE = 0, 1, 2


@dataclass(frozen=True)
class Dispatch:
    """Which generators are on only while demand or price are high.

    Attributes:
        by: ``BY_LEVEL``, ``BY_PRICE`` or ``BY_NOTHING``, shape (n_generators,).
        at: Level of demand, or price [USD/MWh as the model has it], below which each is off, shape (n_generators,).
        references: The shapes that say the level in daily and in yearly mode.
        prices: The shape that says the price; none where it stands.
        price: The price that stands.
        factor: What the level is multiplied by in each of ``SHAPE_MODES``.
    """

    by: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    at: FloatArray = field(default_factory=lambda: np.empty(0))
    references: Shapes = field(default_factory=Shapes)
    prices: Shapes = field(default_factory=Shapes)
    price: float = 0.0
    factor: FloatArray = field(default_factory=lambda: np.ones(len(SHAPE_MODES)))

    def levels(self, mode: ShapeMode, hours: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return level of demand and price at some hours in a mode, each shape (n_hours,)."""
        which = np.array([len(self.references) - 1 if mode == "yearly" else 0])
        level = self.references.sample(which, hours)[0][:, 0] if len(self.references) else np.ones(len(hours))
        level = level * self.factor[SHAPE_MODES.index(mode)]
        first = np.zeros(1, dtype=np.int64)
        moves = len(self.prices) and mode != "duty"  # in which the engine does not look at it
        price = self.prices.sample(first, hours)[0][:, 0] if moves else np.full(len(hours), self.price)
        return level, price


@dataclass(frozen=True)
class Sources:
    """Generators, PVSystems and Storage as the model has them, each class in the order of ``Network.elements``.

    Attributes:
        generator_kw, generator_kvar: What generators deliver at a multiplier of 1, shape (n_generators,).
        generator_fixed: Whether a generator does so whatever the time (Status=fixed), shape (n_generators,).
        generator_factor: The circuit's multiplier of all generators that are not fixed (GenMult).
        generator_model: The number of each one's model, shape (n_generators,).
        generator_kvar_limits: Most and least kvar of each, which count in model 3 alone, shape (2, n_generators).
        fuel_kwh: What a full tank of each holds [kWh], NaN where a generator needs none, shape (n_generators,).
        fuel_percent: What each has of it, and how much stays in it [%], shape (2, n_generators).
        dispatch: Which generators are on only while demand or price are high.
        panel_kw: Most that panels give in full sun [kW], shape (n_panels,).
        irradiance: What panels get at a multiplier of 1 [kW/m2], shape (n_panels,).
        panel_temperature: What panels without a TShape have [deg C], shape (n_panels,).
        panel_ratings: Pmpp [kW], kVA, and %cutin and %cutout where written, else 0, of panels, shape (4, n_panels).
        curves: The XYCurves of panels, x and y of each.
        curve_of: Place in ``curves`` of each panel's P-TCurve and EffCurve, -1 for none, shape (2, n_panels).
        temperatures: The TShapes that panels follow, values in deg C.
        temperature_of: Place in ``temperatures`` of what each panel follows, as ``Network.shapes_of``.
        driven: Voltage and current sources and induction machines by class, those that form microgrids included.
        slips: The slip that each induction machine begins with, shape (n_machines,).
        load_factors: By how much the demand of each load differs from that in the model's own mode, in the order of
            ``SHAPE_MODES``, shape (n_modes, n_loads); empty where by nothing.
        storage_mode: OpenDSS's ordinal of DispMode, 0 by triggers and 4 by shape, shape (n_storage,).
    """

    generator_kw: FloatArray = field(default_factory=lambda: np.empty(0))
    generator_kvar: FloatArray = field(default_factory=lambda: np.empty(0))
    generator_fixed: BoolArray = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    generator_factor: float = 1.0
    generator_model: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    generator_kvar_limits: FloatArray = field(default_factory=lambda: np.empty((2, 0)))
    fuel_kwh: FloatArray = field(default_factory=lambda: np.empty(0))
    fuel_percent: FloatArray = field(default_factory=lambda: np.empty((2, 0)))
    dispatch: Dispatch = field(default_factory=Dispatch)
    panel_kw: FloatArray = field(default_factory=lambda: np.empty(0))
    irradiance: FloatArray = field(default_factory=lambda: np.empty(0))
    panel_temperature: FloatArray = field(default_factory=lambda: np.empty(0))
    panel_ratings: FloatArray = field(default_factory=lambda: np.empty((4, 0)))
    curves: tuple[tuple[FloatArray, FloatArray], ...] = ()
    curve_of: IntArray = field(default_factory=lambda: np.empty((2, 0), dtype=np.int64))
    temperatures: Shapes = field(default_factory=Shapes)
    temperature_of: IntArray = field(default_factory=lambda: np.empty((len(SHAPE_MODES), 0), dtype=np.int64))
    driven: dict[str, Driven] = field(default_factory=dict)
    slips: FloatArray = field(default_factory=lambda: np.empty(0))
    load_factors: FloatArray = field(default_factory=lambda: np.empty(0))
    storage_mode: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def generator_off_kw(self) -> FloatArray:
        """What is written of each generator that is off by demand or price [kW], shape (n_generators,)."""
        undone = np.where(self.generator_fixed, 1.0, 1.0 / (self.generator_factor or 1.0))
        return -1e-4 * self.generator_kw * undone  # the engine's number: so that it stays in the matrix


@dataclass(frozen=True)
class FeederControl:
    """A control that the feeder has of its own.

    Attributes:
        class_name: Its class, as OpenDSS writes it.
        name: Its name, lower case.
        targets: ``class.name``, lower case, of what it moves: one element under all its names for a control of
            switchgear, all its elements for one that sets power.
        idle: Why it moves nothing, as the model says; empty where it may act.
    """

    class_name: str
    name: str
    targets: tuple[str, ...]
    idle: str = ""


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
        _, one, other = wires = self._wires
        closed = self.branches.closed[wires[0]]
        one, other = one[closed], other[closed]
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

    def wires(self, closed: BoolArray | None = None) -> Iterator[tuple[int, int, int]]:
        """Return the pairs of nodes that closed branches join: branch, node, other node."""
        wires = self._wires
        chosen = wires[:, (self.branches.closed if closed is None else closed)[wires[0]]]
        return zip(*chosen.tolist(), strict=True)

    @cached_property
    def _wires(self) -> IntArray:
        """What :meth:`wires` returns of all branches, closed or not, shape (3, n_wires)."""
        b = self.branches
        sizes = np.diff(np.append(b.terminal_rows, len(b.row_node)))
        branch = np.repeat(b.terminal_branch, sizes)
        conductor = np.arange(len(b.row_node)) - np.repeat(b.terminal_rows, sizes)
        first = b.branch_rows[branch] + conductor
        # Conductors beyond the phases are neutrals.
        joins = (
            (first != np.arange(len(first)))
            & (conductor < b.phases[branch])
            & (b.row_node > 0)
            & (b.row_node[first] > 0)
        )
        # Node numbers behind one phase say nothing of the phase: both legs of a split-phase winding are fed by one.
        wound = [
            k for k in np.flatnonzero(b.phases == 1).tolist() if b.names[k].startswith(("transformer.", "autotrans."))
        ]
        joins &= ~np.isin(branch, wound)
        pairs = list[tuple[int, int, int]]()
        ends, starts = b.terminal_rows + sizes, np.searchsorted(b.terminal_branch, np.arange(len(b.names) + 1))
        for k in wound:
            rows = [b.row_node[b.terminal_rows[t] : ends[t]] for t in range(starts[k], starts[k + 1])]
            live = [(row[row > 0] - 1).tolist() for row in rows]
            for terminal in live[1:]:
                firsts = live[0] if len(live[0]) == len(terminal) else live[0][:1] * len(terminal)
                pairs += [(k, one, other) for one, other in zip(firsts, terminal, strict=False)]
        plain = np.stack([branch[joins], b.row_node[first[joins]] - 1, b.row_node[joins] - 1])
        found = np.concatenate([plain, np.array(pairs, dtype=np.int64).reshape(-1, 3).T], axis=1)
        return found[:, np.argsort(found[0], kind="stable")]

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
