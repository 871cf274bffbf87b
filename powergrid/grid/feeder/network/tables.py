"""The tables of a compiled feeder: its branches, loads, sources, and what the feeder's own controls move."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from powergrid.grid.feeder.network.shapes import SHAPE_MODES, BoolArray, FloatArray, IntArray, ShapeMode, Shapes


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

    @cached_property
    def wires(self) -> IntArray:
        """Which nodes each branch joins, closed or not: branch, node, other node, shape (3, n_wires)."""
        sizes = np.diff(np.append(self.terminal_rows, len(self.row_node)))
        branch = np.repeat(self.terminal_branch, sizes)
        conductor = np.arange(len(self.row_node)) - np.repeat(self.terminal_rows, sizes)
        first = self.branch_rows[branch] + conductor
        # Conductors beyond the phases are neutrals.
        joins = (
            (first != np.arange(len(first)))
            & (conductor < self.phases[branch])
            & (self.row_node > 0)
            & (self.row_node[first] > 0)
        )
        # Node numbers behind one phase say nothing of the phase: both legs of a split-phase winding are fed by one.
        wound = [
            k
            for k in np.flatnonzero(self.phases == 1).tolist()
            if self.names[k].startswith(("transformer.", "autotrans."))
        ]
        joins &= ~np.isin(branch, wound)
        pairs = list[tuple[int, int, int]]()
        ends, starts = self.terminal_rows + sizes, np.searchsorted(self.terminal_branch, np.arange(len(self.names) + 1))
        for k in wound:
            rows = [self.row_node[self.terminal_rows[t] : ends[t]] for t in range(starts[k], starts[k + 1])]
            live = [(row[row > 0] - 1).tolist() for row in rows]
            for terminal in live[1:]:
                firsts = live[0] if len(live[0]) == len(terminal) else live[0][:1] * len(terminal)
                pairs += [(k, one, other) for one, other in zip(firsts, terminal, strict=False)]
        plain = np.stack([branch[joins], self.row_node[first[joins]] - 1, self.row_node[joins] - 1])
        found = np.concatenate([plain, np.array(pairs, dtype=np.int64).reshape(-1, 3).T], axis=1)
        return found[:, np.argsort(found[0], kind="stable")]


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
