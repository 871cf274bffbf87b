"""What a compiled feeder solves to: base voltages, islands, convergence and its remedies, voltages, loadings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import networkx as nx
import numpy as np

from powergrid.check.elements import Model, check_admittances, check_base_kv
from powergrid.check.report import Snapshot
from powergrid.errors import EngineError, FeederError, nearest_names
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.snapshot import Snapshot as Solved
from powergrid.grid.engine import Engine, FloatArray
from powergrid.grid.feeder.compile import (
    SOURCE_CLASSES,
    compile_feeder,
    describe_network,
    prepare_circuit,
    read_handles,
)
from powergrid.grid.feeder.network import BoolArray, IntArray, Network
from powergrid.grid.outages.connectivity import Connectivity
from powergrid.scenario.discovery import summarise

_TOLERANCE = 1e-5
_ITERATIONS = 100  # OpenDSS's own limit is too low for the 34-, 123- and 8500-node feeders
_MORE_ITERATIONS = 1000
_ITERATE = f"maxiterations={_MORE_ITERATIONS} maxcontroliter={_MORE_ITERATIONS}"
_MULTIPLIERS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
_V_LOW, _V_HIGH = 0.95, 1.05
_V_DEAD = 0.5  # what nothing feeds converges silently near 0 pu
_LAST_PHASE = 3
#: OpenDSS calls some flows converged that are nonsense, up to 1e8 pu.
_SANE_V_PU = 5.0
_SHOWN_BUSES = 6


def check_solution(model: Model) -> None:
    """Look at the circuit as a whole; what needs a sound one is left where elements are missing."""
    engine = model.engine
    if not any(model.handles[name] for name in SOURCE_CLASSES):
        model.find("no-source", "no enabled Vsource or Isource: nothing feeds the circuit", "vsource.source")
    if model.recorder.report.of_code("impossible-element"):
        return  # to build the admittance matrix again may crash
    try:
        engine.build_y()
        check_admittances(model)
        nodes = engine.node_names()
        buses = engine.buses()
    except EngineError as error:
        if not model.recorder.report.errors:
            model.find("impossible-element", str(error))
        return
    node_bus = [name.rpartition(".")[0] for name in nodes]
    names = list(dict.fromkeys(node_bus))
    model.recorder.state(n_buses=len(names), n_nodes=len(nodes), sources=_sources(model, node_bus))
    base_kv = {name: buses[name][0] for name in names if buses[name][0] > 0.0}
    _check_bases(model, names, base_kv)
    _check_coordinates(model, [name for name in names if math.isnan(buses[name][1])], len(names))
    unsound = [code for code in ("not-finite", "zero-kv", "no-source") if model.recorder.report.of_code(code)]
    if unsound or not base_kv:
        return
    prepare_circuit(engine, tolerance=_TOLERANCE, max_iterations=_ITERATIONS)
    converged = _solve(engine)
    # Row 0 of the engine's voltages is ground.
    angles = np.angle(engine.voltages(len(nodes))[1:]) if converged else _nominal_angles(nodes)
    everywhere = {name: base_kv.get(name, math.nan) for name in names}
    network = describe_network(engine, read_handles(engine), everywhere)
    fed, islands = _split(model, network)
    fed_names = {network.buses[bus] for bus in fed}
    fed_kv = {name: kv for name, kv in base_kv.items() if name in fed_names}
    check_base_kv(model, node_bus, fed_kv, angles, network.neutrals if converged else ())
    if model.broken:
        return  # what the missing elements would feed or draw is not known
    _check_islands(model, network, fed, islands)
    if not converged:
        _try_remedies(model, np.isin(network.node_bus, sorted(fed)) & (network.node_phase <= _LAST_PHASE))
    elif not model.recorder.report.errors:
        _check_snapshot(model, fed)


def _nominal_angles(nodes: tuple[str, ...]) -> FloatArray:
    phases = np.array([int(name.rpartition(".")[2]) for name in nodes])
    return np.asarray(np.deg2rad(-120.0 * (phases - 1)), dtype=np.float64)


def _sources(model: Model, node_bus: list[str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for name, handle in model.handles["Vsource"].items():
        live = [int(node) for node in model.engine.node_ref(handle) if node > 0]
        found.append(
            {
                "name": name,
                "bus": node_bus[live[0] - 1] if live else "",
                "kv": model.engine.get_float(handle, "Vsource", "BasekV"),
                "pu": model.engine.get_float(handle, "Vsource", "pu"),
            }
        )
    return found


def _check_bases(model: Model, names: list[str], base_kv: dict[str, float]) -> None:
    levels: dict[float, int] = {}
    for kv in base_kv.values():
        level = round(kv * math.sqrt(3.0), 4)
        levels[level] = levels.get(level, 0) + 1
    model.recorder.state(voltage_levels=sorted(levels.items(), reverse=True))
    missing = [name for name in names if name not in base_kv]
    unsound = model.recorder.report.of_code("not-finite") or model.recorder.report.of_code("zero-kv")
    if missing and not unsound:
        which = "any bus" if not base_kv else _list(missing, "bus", "buses")
        model.find("no-base-kv", f"no base voltage at {which}")


def _check_coordinates(model: Model, without: list[str], n_buses: int) -> None:
    if without:
        which = "no bus has any" if len(without) == n_buses else f"{len(without)} of {n_buses} have none: "
        model.find("no-coordinates", which + ("" if len(without) == n_buses else _list(without, "", "")))


def _list(names: list[str], one: str, many: str) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN_BUSES])
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN_BUSES else ""
    return f"{one if len(names) == 1 else many} {shown}{more}".strip()


def _split(model: Model, network: Network) -> tuple[set[int], list[list[int]]]:
    """Return the buses that a source feeds, and the parts that none does."""
    node_bus = network.node_bus
    sources = {
        int(node_bus[node - 1])
        for name in SOURCE_CLASSES
        for handle in model.handles[name].values()
        for node in model.engine.node_ref(handle)
        if node > 0
    }
    fed: set[int] = set()
    islands: list[list[int]] = []
    for part in nx.connected_components(network.graph):
        if part & sources:
            fed |= part
        else:
            islands.append(sorted(part))
    return fed, islands


def _check_islands(model: Model, network: Network, fed: set[int], islands: list[list[int]]) -> None:
    """Take down what no source feeds."""
    node_bus = network.node_bus
    model.recorder.state(islands=[[network.buses[bus] for bus in part] for part in islands])
    real = [network.buses[bus] for bus in sorted(fed)]
    for island in islands:
        loads = np.flatnonzero(np.isin(network.loads.bus, island))
        names = [network.buses[bus] for bus in island]
        for load in loads.tolist():
            name = network.loads.names[load]
            bus = network.buses[int(network.loads.bus[load])]
            near = nearest_names(bus, real) if len(island) == 1 else []
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            kw = network.loads.kw[load]
            model.find("not-fed", f"load.{name} ({kw:.4g} kW) is at bus {bus!r}, which nothing feeds{hint}",
                       f"load.{name}")  # fmt: skip
        if not len(loads):
            model.find(
                "isolated-bus",
                f"nothing feeds {_list(names, 'bus', 'buses')}",
                _any_element(model, set(island), node_bus),
            )


def _any_element(model: Model, wanted: set[int], node_bus: IntArray) -> str:
    """Return an element at some buses, for its place in the files."""
    for class_name, handles in model.handles.items():
        for name, handle in handles.items():
            if any(node > 0 and int(node_bus[node - 1]) in wanted for node in model.engine.node_ref(handle)):
                return f"{class_name}.{name}"
    return ""


def _solve(engine: Engine) -> bool:
    """Solve as a :class:`Circuit` does: the feeder's own controls free, then held."""
    try:
        return any(engine.solve(controls=True) for _ in range(3)) or engine.solve()
    except EngineError:
        return False


def _try_remedies(model: Model, fed: BoolArray) -> None:
    """Try the usual remedies one by one and together, each on a circuit of its own, and say what helped.

    Args:
        model: What does not converge.
        fed: The nodes to look at, shape (n_nodes,).
    """
    tried: list[tuple[str, str]] = []
    remedies: tuple[tuple[str, tuple[str, ...], bool], ...] = (
        (f"{_MORE_ITERATIONS} iterations", (_ITERATE,), True),
        ("controls held", (), False),
        ("Newton's method", ("algorithm=newton",), False),
        ("loads as constant impedance", ("loadmodel=admittance",), False),
    )
    for what, options, controls in remedies:
        tried.append((what, _attempt(model, fed, what, options, controls=controls)))
    for multiplier in _MULTIPLIERS:
        what = f"LoadMult {multiplier:g}"
        outcome = _attempt(model, fed, what, (f"loadmult={multiplier}",), controls=True)
        if outcome or multiplier == _MULTIPLIERS[-1]:
            tried.append((what, outcome))
            break
    if not any(outcome for _, outcome in tried):
        what = "all of it: more iterations, controls held, constant impedance, LoadMult 0.5"
        together = (_ITERATE, "loadmodel=admittance", "loadmult=0.5")
        tried.append((what, _attempt(model, fed, what, together, controls=False)))
    model.recorder.state(
        remedies=[(what, f"converges, {outcome}" if outcome else "does not converge") for what, outcome in tried]
    )
    helped = [f"{what} ({outcome})" for what, outcome in tried if outcome]
    said = "it converges with " + ", or with ".join(helped) if helped else "nothing of what is usual helps"
    model.find("no-convergence", "at nominal demand", remedy=said)


def _attempt(model: Model, fed: BoolArray, what: str, options: Sequence[str], *, controls: bool) -> str:
    """Compile the feeder anew, set options and solve; give the lowest voltage in words, empty where it fails."""
    model.recorder.at("", 0, f"solving with {what}")
    engine = Engine()  # a new one: where a solve diverged, the garbage stays as the next start
    try:
        compile_feeder(model.feeder, engine)
        prepare_circuit(engine, tolerance=_TOLERANCE, max_iterations=_ITERATIONS)
        for option in options:
            engine.command(f"set {option}")
        converged = engine.solve(controls=controls)
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
    model.recorder.at("", 0, "building the circuit")
    try:
        circuit = Circuit(model.feeder)
    except FeederError as error:
        for problem in error.problems:
            model.find("not-usable", problem)
        return
    _form_agents(model, circuit)
    network = circuit.network
    solved = Solved.allocate(1, network, 0)
    circuit.solve()
    circuit.read(solved, 0)
    v_pu, loading = solved.v_pu[0], solved.loading_pu[0]
    # From node 4 on are neutrals, which have no voltage to keep.
    looked_at = np.isin(network.node_bus, sorted(fed)) & (network.node_phase <= _LAST_PHASE)
    energised = Connectivity(network).look(network.branches.closed).energised
    dead = looked_at & ~energised & (v_pu < _V_DEAD)
    looked_at &= ~dead
    _check_voltages(model, network, np.where(looked_at, v_pu, 1.0))
    _check_dead_nodes(model, network, dead)
    rated = np.array([name not in model.unrated for name in network.branches.names], dtype=bool) & (loading > 0.0)
    for branch in np.argsort(-loading):
        if rated[branch] and loading[branch] > 1.0:
            name = network.branches.names[branch]
            model.find("overload", f"{name} at {100.0 * loading[branch]:.0f} % of its rating", name)
    places = np.flatnonzero(looked_at)
    if not len(places):
        return
    low, high = places[np.argmin(v_pu[places])], places[np.argmax(v_pu[places])]
    busiest = int(np.argmax(np.where(rated, loading, -1.0))) if rated.any() else -1
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


def _form_agents(model: Model, circuit: Circuit) -> None:
    """Take down the agents that each layout would form, and what would be left out."""
    model.recorder.at("", 0, "forming agents")
    summary = summarise(circuit)
    model.recorder.state(
        agents={
            layout: {name: list(devices) for name, (devices, _) in agents.items()}
            for layout, agents in summary.agents.items()
        }
    )
    for note in summary.notes if summary.devices else ():
        model.find("not-discovered", note)


def _check_voltages(model: Model, network: Network, v_pu: FloatArray) -> None:
    """Take down the buses outside the band, farthest out first."""
    outside = np.maximum(_V_LOW - v_pu, v_pu - _V_HIGH)
    said: set[int] = set()
    first = _first_elements(model, network)
    for node in np.argsort(-outside, kind="stable"):
        bus = int(network.node_bus[node])
        if outside[node] <= 0.0:
            break
        if bus not in said:
            said.add(bus)
            model.find("voltage", f"{network.nodes[node]} at {v_pu[node]:.4f} pu", first.get(bus, ""))


def _first_elements(model: Model, network: Network) -> dict[int, str]:
    """Return a branch that ends at each bus, for its place in the files."""
    branches, found = network.branches, dict[int, str]()
    for branch, bus in zip(branches.terminal_branch.tolist(), branches.terminal_bus.tolist(), strict=True):
        found[bus] = branches.names[branch]
    return found


def _check_dead_nodes(model: Model, network: Network, dead: BoolArray) -> None:
    """Take down loads on phases that do not come as far as their bus."""
    if not dead.any():
        return
    for name, handle in model.handles["Load"].items():
        nodes = [int(node) - 1 for node in model.engine.node_ref(handle)[: model.engine.phases(handle)] if node > 0]
        out = [network.nodes[node] for node in nodes if dead[node]]
        if out:
            model.find("not-fed", f"load.{name} is at {', '.join(out)}, a phase that nothing feeds", f"load.{name}")
