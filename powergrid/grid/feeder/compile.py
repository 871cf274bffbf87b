"""From a feeder's commands to a compiled circuit and its description as data.

Runs once a circuit; knows neither devices nor setpoints.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import EngineError, FeederError, Problem, list_names
from powergrid.grid.engine import (
    TOO_MANY_CONTROL_ITERATIONS,
    Engine,
    FloatArray,
    Handle,
    IntArray,
    classify_refusal,
)
from powergrid.grid.engine.cache_folder import Arrays, Cache
from powergrid.grid.feeder.feeder import CIRCUIT, Feeder
from powergrid.grid.feeder.grounding import find_floating, find_neutrals
from powergrid.grid.feeder.known_points import define_shape, find_known
from powergrid.grid.feeder.network import BoolArray, Branches, Dispatch, Driven, FeederControl, Loads, Network, Sources
from powergrid.grid.feeder.network.shapes import Shapes
from powergrid.grid.feeder.preparation import (
    RECORDERS,
    about_recorders,
    complete_circuit,
    spell_out_admittances,
    take_out_opened,
)
from powergrid.grid.feeder.ratings import Ratings
from powergrid.grid.feeder.reading.syntax import DESCRIBING
from powergrid.grid.feeder.timing import (
    DRIVEN_PROPERTIES,
    Folded,
    fold_multipliers,
    read_load_rules,
    read_mode,
    read_shapes,
)
from powergrid.grid.feeder.trial import admit
from powergrid.grid.feeder.windings import TAPPED_CLASSES, Handles, find_regulators

#: Delivering element classes, in the order of the branch table.
BRANCH_CLASSES = ("Line", "Transformer", "AutoTrans", "Reactor", "Capacitor")
#: Element classes that a scenario can bind a device to.
BINDABLE_CLASSES = ("Load", "Generator", "Storage", "PVSystem", "Capacitor", *TAPPED_CLASSES, "RegControl", "Line")
SOURCE_CLASSES = ("Vsource", "Isource")
#: Classes of what is tied to buses and read by nobody.
_SELDOM = ("Fault", "IndMach012", "GICLine", "GICsource", "GICTransformer", "UPFC", "VCCS", "VSConverter")
#: OpenDSS's ordinals of length units, 0 is none, in km.
_KM = {1: 1.609344, 2: 0.3048, 3: 1.0, 4: 1e-3, 5: 0.3048e-3, 6: 25.4e-6, 7: 1e-5, 8: 1e-6}
_TABLES = {
    table.__name__: table for table in (Network, Branches, Dispatch, Driven, FeederControl, Loads, Shapes, Sources)
}
_LAST_NODE = 2**15 - 1
_GROWS = re.compile("loadm|growth|year", re.IGNORECASE)
#: Keys of descriptions on disk, beside names from the feeder: these hold no such character.
_TABLE, _ARRAY, _NAN = "\0table", "\0array", "\0nan"


def compile_feeder(feeder: Feeder, engine: Engine) -> tuple[str, ...]:
    """Build a feeder in an engine, command by command, or from data where it was composed.

    A foreign one of which this user has not compiled this content before is first tried in a process of its own.

    Returns:
        What its model leaves out and was added, a sentence each.

    Raises:
        FeederError: OpenDSS refused a command, with file, line, number and text; the circuit cannot be solved; or the
            trial did not come through.
    """
    written = feeder.unchanged or feeder  # what is added to it is of the project's own writing
    watcher = admit(written, functools.partial(networks.keep_packed, written.key))
    engine.clear()
    if feeder.circuit:
        _build_from_data(feeder, engine)
    else:
        _run_commands(feeder, engine, watcher)
    return complete_circuit(feeder, engine)


def _run_commands(feeder: Feeder, engine: Engine, watcher: Callable[[int], None] | None) -> None:
    file = folder = None
    # For each new element OpenDSS goes through a tenth of all names of its class, so that a model takes it time in
    # proportion to the square of its size; but where it is told that names may come twice, and here none does.
    looks_up = feeder.names_differ
    try:
        out = about_recorders(feeder.commands)
        known = networks.recall(feeder.key) if feeder.digest else None
        shapes = {} if known is None else find_known(feeder.commands, known.shapes)
        for number, command in enumerate(feeder.commands, 1):
            if out[number - 1]:
                continue
            if watcher is not None:
                watcher(number)
            if command.file is not file and command.file.parent != folder:
                folder = command.file.parent
                engine.set_folder(folder)
            file = command.file
            # Command by command, redirects already followed: a refusal then has the file and line of the user's.
            try:
                if (shape := shapes.get(number - 1)) is None:
                    engine.command(command.text)
                else:
                    define_shape(engine, shape)
            except EngineError as error:
                if error.number == TOO_MANY_CONTROL_ITERATIONS and command.verb not in DESCRIBING:
                    engine.command("get number")  # a trusted Solve; the engine goes on after the next command
                    continue
                problem = Problem(classify_refusal(error), "", f"{command.text.strip()!r}: {error}")
                raise FeederError(command.where, [problem]) from None
            if looks_up and CIRCUIT.match(command.text):
                looks_up = False
                engine.command("set allowduplicates=yes")
        if feeder.names_differ and not looks_up:
            engine.command("set allowduplicates=no")
        if watcher is not None:
            watcher(len(feeder.commands) + 1)
    finally:
        engine.leave_folder()


def _build_from_data(feeder: Feeder, engine: Engine) -> None:
    circuit = json.loads(feeder.circuit)
    try:
        engine.from_json(circuit)
        for capacitor in circuit.get("Capacitor", ()):
            if "States" in capacitor and capacitor.get("Enabled", True):  # which the engine reads as all on
                engine.set_capacitor_states(capacitor["Name"], capacitor["States"])
    except EngineError as error:
        problem = Problem(classify_refusal(error), "composed circuit", str(error))
        raise FeederError(str(feeder.master), [problem]) from None


def prepare_circuit(feeder: Feeder, engine: Engine, *, tolerance: float, max_iterations: int) -> Folded:
    """Take out of a compiled circuit what only costs time or stands between a setpoint and the power drawn.

    Meters and monitors are disabled. The circuit's load multiplier and its year's growth become part of the loads, so
    that what is written as demand is what is drawn. Under ``LoadModel=Admittance`` loads and generators become constant
    impedances.

    Args:
        feeder: What it was compiled of.
        engine: The engine that holds it.
        tolerance, max_iterations: As of :meth:`Engine.prepare`.

    Returns:
        What the multipliers were.

    Raises:
        FeederError: an element is open in a way that cannot be played: with file and line.
    """
    # Nobody reads them, and with energy meters time steps in the engine take 3 to 8 times as long.
    for class_name in RECORDERS:
        if engine.handles(class_name):
            engine.command(f"batchedit {class_name}..* enabled=no")
    engine.prepare(tolerance=tolerance, max_iterations=max_iterations)
    spell_out_admittances(engine)
    take_out_opened(feeder, engine)
    try:
        return fold_multipliers(engine, feeder.settings)
    except ValueError as error:
        named = [c.where for c in (*feeder.commands, *feeder.left_out) if c.verb == "set" and _GROWS.search(c.text)]
        raise FeederError(str(feeder.master), [Problem("bad-value", named[-1] if named else "", str(error))]) from None


def read_handles(engine: Engine) -> dict[str, dict[str, Handle]]:
    """Return the handles of all elements that are read or written: class to lower-case name to handle."""
    classes = dict.fromkeys((*BINDABLE_CLASSES, *BRANCH_CLASSES, *SOURCE_CLASSES, *DRIVEN_PROPERTIES))
    return {name: engine.handles(name) for name in classes}


def read_base_voltages(feeder: Feeder, engine: Engine) -> dict[str, float]:
    """Return the line-to-neutral base voltage of each bus [kV].

    Raises:
        FeederError: a bus that is part of the circuit has none.
    """
    # Only buses with a node need a base: the bus list also has those that the file merely names.
    bus_kv = {name: kv for name, (kv, _, _) in engine.buses().items()}
    buses = dict.fromkeys(name.rpartition(".")[0] for name in engine.node_names())
    if not buses:
        text = "no base voltages: end it with 'Set VoltageBases=[...]', 'CalcVoltageBases'"
        raise FeederError(str(feeder.master), [Problem("no-base-kv", "", text)])
    missing = [name for name in buses if bus_kv.get(name, 0.0) <= 0.0]
    if missing:
        text = f"no base voltage at {list_names(missing)}"
        remedy = (
            "is its level in 'Set VoltageBases=[...]', and does 'CalcVoltageBases' come last? Else name it: "
            f"'SetkVBase Bus={missing[0]} kVLL=...'"
        )
        raise FeederError(str(feeder.master), [Problem("no-base-kv", "", text, remedy)])
    return bus_kv


def known_network(feeder: Feeder) -> Network | None:
    """Return the description, of arrays that are shared, of a feeder that this user compiled before, if it was."""
    network = networks.recall(feeder.key) if feeder.digest else None
    return None if network is None else _with_microgrids(feeder, network)


def describing_alone(feeder: Feeder) -> AbstractContextManager[None]:
    """Let no other process describe the same feeder meanwhile: workers that start together compile it once."""
    return networks.alone(feeder.key)


def _with_microgrids(feeder: Feeder, network: Network) -> Network:
    """Add what the feeder itself says of its microgrids: that is not kept."""
    return replace(network, microgrids=feeder.microgrids) if feeder.microgrids else network


def encode_network(network: Network) -> tuple[str, Arrays]:
    """Return a network as JSON that refers to arrays by name, and the arrays, which cannot be written from here on."""
    arrays: dict[str, npt.NDArray[Any]] = {}

    def spell(value: Any) -> dict[str, Any]:
        if not isinstance(value, np.ndarray):
            return {_TABLE: type(value).__name__, **{f.name: getattr(value, f.name) for f in fields(value)}}
        # Every circuit of a feeder in this process has the same ones.
        value.setflags(write=False)
        if value.dtype == np.float64 and value.ndim == 1 and np.isnan(value).all():  # of most shapes the kvar and hours
            return {_NAN: len(value)}
        arrays[f"a{len(arrays)}"] = value
        return {_ARRAY: f"a{len(arrays) - 1}"}

    return json.dumps(network, default=spell), arrays


def _decode_network(text: str, arrays: Arrays) -> Network:
    def build(data: dict[str, Any]) -> Any:
        if _ARRAY in data:
            array = arrays[data[_ARRAY]]
            array.setflags(write=False)
            return array
        if _NAN in data:
            array = np.full(data[_NAN], np.nan)
            array.setflags(write=False)
            return array
        data = {name: _as_tuples(value) if type(value) is list else value for name, value in data.items()}
        return _TABLES[data.pop(_TABLE)](**data) if _TABLE in data else data

    network = json.loads(text, object_hook=build)
    if not isinstance(network, Network):
        raise TypeError("the entry is of something else")
    return network


def _as_tuples(value: list[Any]) -> tuple[Any, ...]:
    """Return lists as what they were before JSON; of thousands of names most hold none."""
    return tuple([_as_tuples(each) if type(each) is list else each for each in value])


#: Descriptions of compiled circuits. A circuit itself is built anew each time: what OpenDSS writes of one (``ToJSON``)
#: leads to other bits.
networks = Cache("network", encode_network, _decode_network)


def read_network(
    feeder: Feeder,
    engine: Engine,
    handles: Handles,
    sources: Sources,
    controls: tuple[FeederControl, ...] = (),
    notes: tuple[str, ...] = (),
) -> Network:
    """Return the description of a compiled, solved circuit: that of the same feeder compiled before, if any.

    What the feeder's own protection opened while solving is read anew: it may depend on the devices placed.

    Raises:
        FeederError: a bus has no base voltage.
    """
    known = known_network(feeder)
    n_branches = sum(len(handles[class_name]) for class_name in BRANCH_CLASSES)
    # Devices that were placed add nodes or branches: then what is known is of another circuit.
    if known is None or known.nodes != engine.node_names() or len(known.branches.names) != n_branches:
        # Read only now: what the file says after CalcVoltageBases becomes a bus while the circuit is solved.
        bus_kv = read_base_voltages(feeder, engine)
        try:
            network = describe_network(engine, handles, bus_kv, controls, [m.source for m in feeder.microgrids])
        except FeederError as error:
            raise FeederError(str(feeder.master), list(error.details)) from None
        network = replace(network, sources=sources, shape_mode=read_mode(feeder.settings), notes=notes)
        if feeder.digest:
            networks.keep(feeder.key, network)
        return _with_microgrids(feeder, network)
    closed, open_rows = _read_openings(engine, handles, known.branches.branch_rows)
    if np.array_equal(closed, known.branches.closed) and np.array_equal(open_rows, known.branches.open_rows):
        return known
    return replace(known, branches=replace(known.branches, closed=closed, open_rows=open_rows))


def describe_network(
    engine: Engine,
    handles: Handles,
    bus_kv: Mapping[str, float],
    controls: tuple[FeederControl, ...] = (),
    forming: Sequence[str] = (),
) -> Network:
    """Read a compiled, solved circuit into a network description.

    Raises:
        FeederError: a node's number is beyond those that OpenDSS has.
    """
    nodes = engine.node_names()
    bus_names = [name.rpartition(".")[0] for name in nodes]
    buses = tuple(dict.fromkeys(bus_names))
    index = {name: i for i, name in enumerate(buses)}
    node_bus = np.array([index[name] for name in bus_names])
    node_phase = np.array([int(name.rpartition(".")[2]) for name in nodes])
    if len(nodes) and node_phase.min() < 0:  # the engine keeps 16 bits of a number
        wrapped = [bus_names[node] for node in np.flatnonzero(node_phase < 0)]
        text = f"bus {wrapped[0]!r} has a node beyond {_LAST_NODE}, the last that OpenDSS has"
        raise FeederError("circuit", [Problem("bad-value", "", text, "number its nodes anew")])
    v_base = np.array([bus_kv[name] * 1000.0 for name in bus_names])
    xy = {name: place for name, (_, *place) in engine.buses().items()}
    source = next(handle for name in SOURCE_CLASSES for handle in handles[name].values())
    regulators = find_regulators(engine, handles)
    shapes, shapes_of = read_shapes(engine, handles)
    network = Network(
        nodes=nodes,
        node_bus=node_bus,
        node_phase=node_phase,
        v_base=v_base,
        buses=buses,
        bus_xy=np.array([xy[name] for name in buses], dtype=float),
        source_bus=_first_bus(engine.node_ref(source), node_bus),
        source_nodes=_source_nodes(engine, handles, forming),
        branches=_describe_branches(engine, handles, node_bus),
        loads=_describe_loads(engine, handles["Load"], node_bus, index),
        regulators=tuple(regulator.transformer for regulator in regulators),
        regulator_controls=tuple(regulator.control for regulator in regulators),
        capacitors=tuple(handles["Capacitor"]),
        switches=tuple(handles["Line"]),
        elements={name: tuple(handles[name]) for name in BINDABLE_CLASSES},
        shapes=shapes,
        shapes_of=shapes_of,
        controls=controls,
        tapped=_find_tapped(engine, handles, node_bus),
    )
    neutrals = find_neutrals(engine, handles, network, engine.voltages(len(nodes))[1:])
    return replace(network, neutrals=neutrals, floating=find_floating(engine, handles, network))


def _find_tapped(engine: Engine, handles: Handles, node_bus: IntArray) -> IntArray:
    """Return the buses to which something else than lines is tied, in order."""
    # RegControls are tied to what they move. Of a class that nobody plays there may be something too.
    known = {name: own for name, own in handles.items() if name not in ("Line", "RegControl")}
    others = {name: engine.handles(name) for name in _SELDOM if name not in known}
    found = [engine.node_ref(handle) for own in (*known.values(), *others.values()) for handle in own.values()]
    nodes = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *found]))
    return np.unique(node_bus[nodes[nodes > 0] - 1])


def _source_nodes(engine: Engine, handles: Handles, forming: Sequence[str]) -> IntArray:
    """Return the indices of the nodes that voltage sources are tied to, in order; forming sources are open as yet."""
    refs = [engine.node_ref(handle) for name, handle in handles["Vsource"].items() if name not in forming]
    nodes = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *refs]))
    return nodes[nodes > 0] - 1


def _first_bus(node_ref: IntArray, node_bus: IntArray) -> int:
    """Return the bus of the first conductor that is not grounded, -1 where all are."""
    return int(_first_buses(node_ref, np.array([len(node_ref)]), node_bus)[0])


def _first_buses(node_ref: IntArray, sizes: IntArray, node_bus: IntArray) -> IntArray:
    """Return the bus of the first of each one's conductors that is not grounded, -1 where all are, shape (n,)."""
    owner, live = np.repeat(np.arange(len(sizes)), sizes), np.flatnonzero(node_ref > 0)
    found = np.full(len(sizes), -1, dtype=np.int64)
    found[owner[live[::-1]]] = node_bus[node_ref[live[::-1]] - 1]  # the first comes last, and stays
    return found


def _describe_branches(engine: Engine, handles: Handles, node_bus: IntArray) -> Branches:
    branches = [handle for class_name in BRANCH_CLASSES for handle in handles[class_name].values()]
    phases, n_terminals, n_conductors = engine.get_all_terminals(branches)
    row_node, sizes = engine.get_all_node_refs(branches), np.repeat(n_conductors, n_terminals)
    ratings = Ratings(engine)
    rated = [ratings.read_all(class_name, list(handles[class_name].values())) for class_name in BRANCH_CLASSES]
    others = len(branches) - len(handles["Line"])  # lines come first
    length_km, has_unit, is_switch = _read_lengths(engine, list(handles["Line"].values()))
    branch_rows = _starts(n_terminals * n_conductors)
    closed, open_rows = _read_openings(engine, handles, branch_rows)
    return Branches(
        names=tuple(f"{c}.{name}".lower() for c in BRANCH_CLASSES for name in handles[c]),
        norm_amps=np.concatenate(rated),
        phases=phases,
        row_node=row_node,
        branch_rows=branch_rows,
        terminal_rows=_starts(sizes),
        terminal_branch=np.repeat(np.arange(len(branches)), n_terminals),
        terminal_bus=_first_buses(row_node, sizes, node_bus),
        closed=closed,
        # What is no line has no length, so that its unit is not missing.
        length_km=np.concatenate([length_km, np.zeros(others)]),
        has_length_unit=np.concatenate([has_unit, np.ones(others, dtype=np.bool_)]),
        is_switch=np.concatenate([is_switch, np.zeros(others, dtype=np.bool_)]),
        open_rows=open_rows,
    )


def _read_openings(engine: Engine, handles: Handles, first_rows: IntArray) -> tuple[BoolArray, IntArray]:
    """Return which branches are closed at least in part, and the rows of those whose conductor is open.

    Of transformers that have a winding in delta no row is given: what is open on one side is fed from two phases of
    the other.
    """
    branches = [handle for class_name in BRANCH_CLASSES for handle in handles[class_name].values()]
    opened = np.flatnonzero(engine.open_among(branches)).tolist()
    closed, rows = np.ones(len(branches), dtype=np.bool_), list[int]()
    classes = [class_name for class_name in BRANCH_CLASSES for _ in handles[class_name]] if opened else []
    for branch in opened:
        class_name, handle = classes[branch], branches[branch]
        closed[branch] = not engine.is_open(handle)
        by_phase = class_name not in TAPPED_CLASSES or not engine.get_ints(handle, class_name, "Conns").any()
        if closed[branch] and by_phase:
            width, first = engine.terminals(handle)[1], int(first_rows[branch])
            rows += [first + (terminal - 1) * width + phase - 1 for terminal, phase in engine.open_places(handle)]
    return closed, np.array(rows, dtype=np.int64)


def _starts(sizes: IntArray) -> IntArray:
    """Return where each of some parts begins that lie one behind the other."""
    return np.cumsum(sizes, dtype=np.int64) - sizes


def _read_lengths(engine: Engine, lines: Sequence[Handle]) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Read the lengths of lines [km], whether each has a unit, and whether it is a switch."""
    # Without a unit of its own a line is in its line code's: OpenDSS multiplies the two as they are.
    units, codes = engine.get_all_ints(lines, "Line", "Units"), list(engine.handles("LineCode").values())
    of_code = dict(
        zip(map(engine.address, codes), engine.get_all_ints(codes, "LineCode", "Units").tolist(), strict=True)
    )
    of_code[0] = 0
    given = np.array(
        [of_code[code] for code in engine.get_all_references(lines, "Line", "LineCode").tolist()], dtype=np.int64
    )
    units = np.where(units == 0, given, units)
    km = np.array([_KM.get(unit, 1.0) for unit in range(max(units.max(initial=0), *_KM) + 1)])
    has_unit = np.isin(units, list(_KM))
    is_switch = engine.get_all_ints(lines, "Line", "Switch") != 0
    return engine.get_all_floats(lines, "Line", "Length") * km[units], has_unit, is_switch


def _describe_loads(
    engine: Engine, handles: Mapping[str, Handle], node_bus: IntArray, bus_index: Mapping[str, int]
) -> Loads:
    loads = list(handles.values())
    ref, (_, n_terminals, n_conductors) = engine.get_all_node_refs(loads), engine.get_all_terminals(loads)
    sizes = n_terminals * n_conductors
    ends = np.cumsum(np.bincount(np.repeat(np.arange(len(loads)), sizes)[ref > 0], minlength=len(loads)))
    live = (ref[ref > 0] - 1).tolist()
    fixed, fixed_q, actual_q_per_kw = read_load_rules(engine, loads)
    bus = _first_buses(ref, sizes, node_bus)
    for load in np.flatnonzero(bus < 0).tolist():  # at ground alone: it is where its name says
        bus[load] = bus_index.get(engine.get_text(loads[load], "Load", "Bus1").partition(".")[0].lower(), 0)
    return Loads(
        names=tuple(handles),
        bus=bus,
        kw=engine.get_all_floats(loads, "Load", "kW"),
        kvar=engine.get_all_floats(loads, "Load", "kvar"),
        nodes=tuple(tuple(live[first:end]) for first, end in itertools.pairwise([0, *ends.tolist()])),
        fixed=fixed,
        fixed_q=fixed_q,
        actual_q_per_kw=actual_q_per_kw,
    )
