"""What a compiled feeder solves to: base voltages, islands, convergence and its remedies, voltages, loadings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from powergrid.check.elements import Model, check_admittances, check_base_kv
from powergrid.check.extremes import check_extremes
from powergrid.check.report import CHECKS, Snapshot
from powergrid.errors import EngineError, FeederError, list_names, nearest_names
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.snapshot import Snapshot as Solved
from powergrid.grid.engine import Engine, FloatArray
from powergrid.grid.feeder.compile import (
    SOURCE_CLASSES,
    compile_feeder,
    describe_network,
    prepare_circuit,
    read_handles,
)  # fmt: skip
from powergrid.grid.feeder.network import BoolArray, IntArray, Network
from powergrid.grid.feeder.reading.syntax import COORDINATES
from powergrid.grid.options import SimulationOptions
from powergrid.grid.outages.connectivity import Connectivity
from powergrid.grid.profiles.profiles import builtin_profiles, find_shape_problems, follow_loadshapes
from powergrid.scenario.as_played import Played, as_played, tell_devices
from powergrid.scenario.discovery import summarise

_TOLERANCE = 1e-5
_ITERATIONS = 100  # OpenDSS's own limit is too low for the 34-, 123- and 8500-node feeders
_MORE_ITERATIONS = 1000
#: Solves after which controls that still move are taken to hunt, and in which they are watched.
_MORE_SOLVES = 6
_ITERATE = f"maxiterations={_MORE_ITERATIONS} maxcontroliter={_MORE_ITERATIONS}"
_MULTIPLIERS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
_V_LOW, _V_HIGH = 0.95, 1.05
_V_DEAD = 0.5  # what nothing feeds converges silently near 0 pu
#: OpenDSS calls some flows converged that are nonsense, up to 1e8 pu.
_SANE_V_PU = 5.0
_SHOWN_BUSES = 6


def check_solution(model: Model) -> None:
    """Look at the circuit as a whole; what needs a sound one is left where elements are missing."""
    engine, recorder, report = model.engine, model.recorder, model.recorder.report
    if not any(model.handles[name] for name in SOURCE_CLASSES):
        model.find("no-source", "no enabled Vsource or Isource: nothing feeds the circuit", "vsource.source")
    if model.hopeless or report.of_code("impossible-element") or report.of_code("no-user-model"):
        return  # to build the admittance matrix again may crash
    try:
        engine.build_y(voltages=True)
        check_admittances(model)
        nodes = engine.node_names()
        buses = engine.buses()
    except EngineError as error:
        if not report.errors:
            model.find("impossible-element", str(error))
        return
    node_bus = [name.rpartition(".")[0] for name in nodes]
    names = list(dict.fromkeys(node_bus))
    recorder.state(n_buses=len(names), n_nodes=len(nodes), sources=_describe_sources(model, node_bus))
    base_kv = {name: buses[name][0] for name in names if buses[name][0] > 0.0}
    _check_bases(model, names, base_kv)
    _check_coordinates(model, names, [name for name in names if math.isnan(buses[name][1])])
    if not base_kv or any(map(report.of_code, ("not-finite", "zero-kv", "no-source"))):
        return
    try:
        prepare_circuit(model.feeder, engine, tolerance=_TOLERANCE, max_iterations=_ITERATIONS)
    except FeederError as error:
        recorder.find_all(error.details, error.where)
        return
    converged = not model.broken and _solve(model)  # without what was refused it may crash, and says nothing
    # Row 0 of the engine's voltages is ground.
    phases = np.array([int(name.rpartition(".")[2]) for name in nodes])
    nominal: FloatArray = np.deg2rad(-120.0 * (phases - 1))
    angles = np.angle(engine.voltages(len(nodes))[1:]) if converged else nominal
    everywhere = {name: base_kv.get(name, math.nan) for name in names}
    try:
        network = describe_network(engine, read_handles(engine), everywhere)
    except FeederError as error:
        recorder.find_all(error.details, str(model.feeder.master))
        return
    fed, islands = _split(model, network)
    fed_names = {network.buses[bus] for bus in fed}
    fed_kv = {name: kv for name, kv in base_kv.items() if name in fed_names}
    check_base_kv(model, node_bus, fed_kv, angles, network.neutrals if converged else ())
    if model.broken:
        return  # what the missing elements would feed or draw is not known
    _check_islands(model, network, fed, islands)
    if not converged and not report.of_code("not-usable"):
        _try_remedies(model, np.isin(network.node_bus, sorted(fed)) & ~network.is_neutral)
    elif not report.errors:
        _check_controls(model)
        _check_snapshot(model, fed)


def _describe_sources(model: Model, node_bus: list[str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for name, handle in model.handles["Vsource"].items():
        bus = next((node_bus[int(node) - 1] for node in model.engine.node_ref(handle) if node > 0), "")
        kv, pu = (model.engine.get_float(handle, "Vsource", key) for key in ("BasekV", "pu"))
        found.append({"name": name, "bus": bus, "kv": kv, "pu": pu})
    return found


def _check_coordinates(model: Model, names: list[str], without: list[str]) -> None:
    if not without:
        return
    read = next((command for command in model.feeder.commands if command.verb in COORDINATES), None)
    if len(without) < len(names):
        some = f"{len(without)} of {len(names)} have none: {_list(without, '', '')}"
        model.find("no-coordinates", some)
    elif read is None:
        model.find("no-coordinates", "no bus has any")
    else:
        text = "BusCoords gives no bus any: it takes lines of bus, x, y parted by commas, tabs or blanks"
        model.recorder.find("no-coordinates", text, read.where)


def _check_bases(model: Model, names: list[str], base_kv: dict[str, float]) -> None:
    levels = Counter(round(kv * math.sqrt(3.0), 4) for kv in base_kv.values())
    model.recorder.state(voltage_levels=sorted(levels.items(), reverse=True))
    missing = [name for name in names if name not in base_kv]
    if missing and not model.broken and not any(map(model.recorder.report.of_code, ("not-finite", "zero-kv"))):
        which = "any bus" if not base_kv else _list(missing, "bus", "buses")
        model.find("no-base-kv", f"no base voltage at {which}")


def _list(names: list[str], one: str, many: str) -> str:
    return f"{one if len(names) == 1 else many} {list_names([*map(repr, names)], _SHOWN_BUSES)}".strip()


def _split(model: Model, network: Network) -> tuple[set[int], list[list[int]]]:
    """Return the buses that a source feeds, and the parts that none does."""
    handles = [handle for _, _, handle in model.each(*SOURCE_CLASSES)]
    sources = {int(network.node_bus[n - 1]) for handle in handles for n in model.engine.node_ref(handle) if n > 0}
    parts = list(nx.connected_components(network.graph))
    fed: set[int] = set().union(*(part for part in parts if part & sources))
    return fed, [sorted(part) for part in parts if not part & sources]


def _check_islands(model: Model, network: Network, fed: set[int], islands: list[list[int]]) -> None:
    """Take down what no source feeds."""
    names = [[network.buses[bus] for bus in part] for part in islands]
    model.recorder.state(islands=names)
    real = [network.buses[bus] for bus in sorted(fed)]
    for island, buses in zip(islands, names, strict=True):
        loads = np.flatnonzero(np.isin(network.loads.bus, island)).tolist()
        for load in loads:
            element, bus = f"load.{network.loads.names[load]}", network.buses[int(network.loads.bus[load])]
            near = nearest_names(bus, real) if len(island) == 1 else []
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            text = f"{element} ({network.loads.kw[load]:.4g} kW) is at bus {bus!r}, which nothing feeds{hint}"
            model.find("not-fed", text, element)
        if not loads:
            element = _any_element(model, set(island), network.node_bus)
            model.find("isolated-bus", f"nothing feeds {_list(buses, 'bus', 'buses')}", element)


def _any_element(model: Model, wanted: set[int], node_bus: IntArray) -> str:
    """Return an element at some buses, for its place in the files."""
    for _, element, handle in model.each(*model.handles):
        if any(node > 0 and int(node_bus[node - 1]) in wanted for node in model.engine.node_ref(handle)):
            return element
    return ""


def _solve(model: Model) -> bool:
    """Solve as a :class:`Circuit` does: the feeder's own controls free unless the model holds them, then held."""
    engine, free = model.engine, not model.feeder.controls_off
    try:
        return any(engine.solve(controls=free) for _ in range(3)) or engine.solve()
    except EngineError as error:  # which says more than that it does not converge
        model.find("not-usable", str(error))
        return False


def _check_controls(model: Model) -> None:
    """Take down which controls of the feeder's own move to and fro without end at nominal demand."""
    engine, handles = model.engine, model.handles
    for _ in range(_MORE_SOLVES):
        if not engine.hunted:
            return
        engine.solve(controls=True)

    def positions() -> dict[str, list[int]]:
        taps = {f"regcontrol.{name}": [engine.get_int(h, "RegControl", "TapNum")] for name, h in regulators.items()}
        return taps | {f"capcontrol.{name}": engine.get_ints(h, "Capacitor", "States").tolist() for name, h in banks}

    regulators = handles["RegControl"]
    each = ((name, engine.get_object(h, "CapControl", "Capacitor")) for name, h in handles["CapControl"].items())
    banks = [(name, bank) for name, bank in each if bank is not None]
    seen = [positions()]
    for limit in range(2, 2 + _MORE_SOLVES):  # so that each way of a move is seen
        engine.command(f"set maxcontroliter={limit}")
        engine.solve(controls=True)
        seen.append(positions())
    engine.command(f"set maxcontroliter={_ITERATIONS}")
    moving = [name for name in seen[0] if any(each[name] != seen[0][name] for each in seen)]
    for name in moving or [""]:
        text = f"{name or 'some control'} moves to and fro at nominal demand, {_ITERATIONS} times and no end"
        model.find("hunting", text, name)


def _try_remedies(model: Model, fed: BoolArray) -> None:
    """Try the usual remedies on the fed nodes, one by one and together, each on a circuit of its own."""
    tried: dict[str, str] = {}

    def attempt(what: str, *options: str, controls: bool = False) -> None:
        tried[what] = _attempt(model, fed, what, options, controls=controls)

    attempt(f"{_MORE_ITERATIONS} iterations", _ITERATE, controls=True)
    attempt("controls held")
    attempt("Newton's method", "algorithm=newton")
    attempt("loads as constant impedance", "loadmodel=admittance")
    for multiplier in _MULTIPLIERS:
        what = f"LoadMult {multiplier:g}"
        attempt(what, f"loadmult={multiplier}", controls=True)
        if tried[what] or multiplier == _MULTIPLIERS[-1]:
            break
        del tried[what]  # of those that do not help, only the last is told
    if not any(tried.values()):
        what = "all of it: more iterations, controls held, constant impedance, LoadMult 0.5"
        attempt(what, _ITERATE, "loadmodel=admittance", "loadmult=0.5")
    outcomes = {what: f"converges, {outcome}" if outcome else "does not converge" for what, outcome in tried.items()}
    model.recorder.state(remedies=list(outcomes.items()))
    helped = [f"{what} ({outcome})" for what, outcome in tried.items() if outcome]
    said = "it converges with " + ", or with ".join(helped) if helped else "nothing of what is usual helps"
    model.find("no-convergence", "at nominal demand", remedy=said)


def _attempt(model: Model, fed: BoolArray, what: str, options: Sequence[str], *, controls: bool) -> str:
    """Compile the feeder anew, set options and solve; give the lowest voltage in words, empty where it fails."""
    model.recorder.at(f"solving with {what}")
    engine = Engine()  # a new one: where a solve diverged, the garbage stays as the next start
    try:
        compile_feeder(model.feeder, engine)
        prepare_circuit(model.feeder, engine, tolerance=_TOLERANCE, max_iterations=_ITERATIONS)
        for option in options:
            engine.command(f"set {option}")
        converged = engine.solve(controls=controls and not model.feeder.controls_off)
        nodes, buses = engine.node_names(), engine.buses()
        bases = np.array([1000.0 * buses[name.rpartition(".")[0]][0] or math.nan for name in nodes])
        v_pu = np.abs(engine.voltages(len(nodes))[1:] / bases)[fed]
    except (EngineError, FeederError):
        return ""
    finally:
        engine.close()
    return f"lowest voltage {np.nanmin(v_pu):.3f} pu" if converged and np.nanmax(v_pu) < _SANE_V_PU else ""


def _check_snapshot(model: Model, fed: set[int]) -> None:
    """Build the circuit as an environment does, and look at its voltages and loadings."""
    model.recorder.at("building the circuit")
    try:
        circuit = Circuit(model.feeder)
    except FeederError as error:
        for problem in error.details:
            code = problem.code if problem.code in CHECKS else "not-usable"
            model.find(code, str(replace(problem, remedy="")), remedy=problem.remedy)
        return
    specs = _form_agents(model, circuit)
    _check_loose_stars(model, circuit.network)
    network = circuit.network
    solved = Solved.allocate(1, network, 0)
    circuit.solve()
    circuit.read(solved, 0)
    v_pu, loading = solved.v_pu[0], solved.loading_pu[0]
    looked_at = np.isin(network.node_bus, sorted(fed)) & ~network.is_neutral
    energised = Connectivity(network).look(network.branches.closed).energised
    dead = looked_at & ~energised & (v_pu < _V_DEAD)
    looked_at &= ~dead
    _check_voltages(model, network, np.where(looked_at, v_pu, 1.0))
    _check_dead_nodes(model, network, dead)
    for branch in np.argsort(-loading):
        if loading[branch] > 1.0:
            name = network.branches.names[branch]
            model.find("overload", f"{name} at {100.0 * loading[branch]:.0f} % of its rating", name)
    places = np.flatnonzero(looked_at)
    if not len(places):
        return
    low, high = places[np.argmin(v_pu[places])], places[np.argmax(v_pu[places])]
    busiest = int(np.argmax(loading)) if loading.any() else -1
    model.recorder.state(
        snapshot=Snapshot(
            v_min_pu=float(v_pu[low]), v_min_node=network.nodes[low],
            v_max_pu=float(v_pu[high]), v_max_node=network.nodes[high],
            demand_kw=float(network.loads.kw.sum()), source_kw=float(solved.source_kva[0].real),
            losses_kw=float(solved.losses_kw[0]),
            loading_max_pu=float(loading[busiest]) if busiest >= 0 else None,
            loading_max_branch=network.branches.names[busiest] if busiest >= 0 else "",
        )
    )  # fmt: skip
    circuit.close()
    if specs:
        check_extremes(model, specs)


def _check_loose_stars(model: Model, network: Network) -> None:
    """Take down what would be a device in star where nothing leads to ground."""
    loose, engine = set(network.floating.tolist()), model.engine
    for _, element, handle in model.each("Storage", "PVSystem", "Generator"):
        n_phases, ref = engine.phases(handle), engine.node_ref(handle).tolist()
        if len(ref) > n_phases and ref[n_phases] == 0 and {node - 1 for node in ref[:n_phases]} <= loose:
            bus = network.buses[int(network.node_bus[ref[0] - 1])]
            played = "as a device it is in delta" if n_phases == 3 else "its power has no return"
            text = f"{element} is in star at bus {bus!r}, from which nothing leads to ground: {played}"
            model.find("played-otherwise", text, element)


def _form_agents(model: Model, circuit: Circuit) -> Mapping[str, Mapping[str, Any]]:
    """Take down the agents that each layout would form, and what would be left out; return the devices' specs."""
    model.recorder.at("forming agents")
    summary = summarise(circuit)
    formed = {
        layout: {name: list(devices) for name, (devices, _) in agents.items()}
        for layout, agents in summary.agents.items()
    }
    model.recorder.state(agents=formed, as_played=_tell_played(circuit.network, summary.specs))
    for note in summary.notes if summary.devices else ():
        model.find("not-discovered", note)
    return summary.specs


def _tell_played(network: Network, specs: Mapping[str, Mapping[str, Any]]) -> list[Played]:
    """Return how each element would be played on what is discovered, with demand as discovery takes it."""
    profiles = builtin_profiles()
    if (network.followed_by("Load") >= 0).any() and not find_shape_problems(network):
        profiles = follow_loadshapes(network, profiles)
    return as_played(network, profiles, SimulationOptions(), tell_devices(specs))


def _check_voltages(model: Model, network: Network, v_pu: FloatArray) -> None:
    """Take down the buses outside the band, farthest out first."""
    outside = np.maximum(_V_LOW - v_pu, v_pu - _V_HIGH)
    worst: dict[int, int] = {}  # by bus
    for node in np.argsort(-outside, kind="stable").tolist():
        if outside[node] > 0.0:
            worst.setdefault(int(network.node_bus[node]), node)
    branches = network.branches
    # A bus has no place in the files; a branch that ends there has.
    ends = dict(zip(branches.terminal_bus.tolist(), branches.terminal_branch.tolist(), strict=True))
    for bus, node in worst.items():
        element = branches.names[ends[bus]] if bus in ends else ""
        model.find("voltage", f"{network.nodes[node]} at {v_pu[node]:.4f} pu", element)


def _check_dead_nodes(model: Model, network: Network, dead: BoolArray) -> None:
    """Take down loads on phases that do not come as far as their bus, and such phases without any."""
    if not dead.any():
        return
    dead = dead.copy()
    for _, element, handle in model.each("Load"):
        nodes = [int(node) - 1 for node in model.engine.node_ref(handle)[: model.engine.phases(handle)] if node > 0]
        out = [network.nodes[node] for node in nodes if dead[node]]
        if out:
            model.find("not-fed", f"{element} is at {', '.join(out)}, a phase that nothing feeds", element)
            dead[nodes] = False
    if dead.any():
        names = [network.nodes[node] for node in np.flatnonzero(dead)]
        model.find("isolated-bus", f"nothing feeds {_list(names, 'node', 'nodes')}")
