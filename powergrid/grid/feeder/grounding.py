"""Which nodes are neutral conductors, and which have no path to ground.

Asked once of a compiled, solved circuit; knows no time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from powergrid.grid.engine import ComplexArray, Engine, Handle, IntArray
from powergrid.grid.feeder.network import BoolArray, Branches, Network
from powergrid.grid.feeder.windings import Handles

#: Classes of elements that draw or give power.
_POWER_CLASSES = ("Load", "Generator", "Storage", "PVSystem")
_WOUND = ("transformer.", "autotrans.")
#: Below it a node may be a neutral, however its loads are spread; above it without any load, it is none [pu].
_LOW_V_PU, _NO_LOAD_V_PU = 0.5, 0.25
_LAST_PHASE = 3
#: Ties what hangs on nothing to ground, so that it has a voltage: 0 [S].
_LEAK_S = 1e-9


def find_neutrals(engine: Engine, handles: Handles, network: Network, v: ComplexArray) -> IntArray:
    """Return the nodes that are neutral conductors, whatever their number, in order.

    A neutral is at 0 V where nothing is loaded, at a bus that is fed, and neither source nor load lies between it and
    ground. What is dead because a switch is open is none.

    Args:
        engine, handles: The circuit, its admittances as solved.
        network: Its description.
        v: Its node voltages as solved [V], shape (n_nodes,).
    """
    low = np.abs(v) < _LOW_V_PU * network.v_base
    if not low.any():
        return np.empty(0, dtype=np.int64)
    at_rest = np.abs(_solve_without_load(engine, handles, network, v)) < _NO_LOAD_V_PU * network.v_base
    fed = np.zeros(len(network.buses), dtype=bool)
    fed[network.node_bus[~at_rest]] = True
    neutral: BoolArray = low & at_rest & (fed[network.node_bus] | (network.node_phase > _LAST_PHASE))
    neutral[_held(engine, handles, network)] = False
    for nodes in _loaded_to_ground(engine, handles):
        neutral[nodes] = False
    return np.flatnonzero(neutral & ~_behind_switches(network, at_rest))


def _solve_without_load(engine: Engine, handles: Handles, network: Network, v: ComplexArray) -> ComplexArray:
    """Return the node voltages [V] that the sources alone make, at what they stand at now."""
    b, n, own = network.branches, len(network.nodes), _by_name(handles)
    ends = np.append(b.branch_rows[1:], len(b.row_node))
    rows, columns, values = [np.arange(n)], [np.arange(n)], [np.full(n, _LEAK_S, dtype=complex)]
    for first, end, name in zip(b.branch_rows.tolist(), ends.tolist(), b.names, strict=True):
        nodes = b.row_node[first:end] - 1
        real = np.flatnonzero(nodes >= 0)
        block = engine.yprim(own[name])[np.ix_(real, real)]
        rows.append(np.repeat(nodes[real], len(real)))
        columns.append(np.tile(nodes[real], len(real)))
        values.append(block.ravel())
    y = coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n)).tocsc()
    held = np.zeros(n, dtype=bool)
    held[_held(engine, handles, network)] = True
    found = np.where(held, v, 0.0).astype(complex)
    free = np.flatnonzero(~held)
    if len(free) and held.any():
        found[free] = splu(y[free][:, free].tocsc()).solve(-(y[free] @ found))
    return found


def _held(engine: Engine, handles: Handles, network: Network) -> IntArray:
    """Return the nodes at the first terminals of sources; the second one is their star point, ground if not said."""
    firsts = [engine.node_ref(handle)[: engine.terminals(handle)[1]] - 1 for handle in handles["Vsource"].values()]
    return np.intersect1d(network.source_nodes, np.concatenate([np.empty(0, dtype=np.int64), *firsts]))


def _by_name(handles: Handles) -> dict[str, Handle]:
    """Return the handle of each element by ``class.name``, lower case."""
    return {f"{c}.{name}".lower(): handle for c, own in handles.items() for name, handle in own.items()}


def _loaded_to_ground(engine: Engine, handles: Handles) -> Iterator[IntArray]:
    """Yield the nodes of each element with power that lie between it and ground."""
    for class_name in _POWER_CLASSES:
        for handle in handles[class_name].values():
            ref, n_phases = engine.node_ref(handle), engine.phases(handle)
            if len(ref) > n_phases and ref[n_phases] == 0:
                yield ref[:n_phases][ref[:n_phases] > 0] - 1


def _behind_switches(network: Network, dead: BoolArray) -> BoolArray:
    """Say which nodes would be fed if lines that are open, be it in one phase, were closed."""
    n, lines = len(network.nodes), np.array([name.startswith("line.") for name in network.branches.names], dtype=bool)
    b = network.branches
    opened = [(one, other) for _, one, other in network.wires(lines & ~b.closed).T.tolist()]
    partly = np.zeros(len(lines), dtype=bool)
    partly[np.searchsorted(b.branch_rows, b.open_rows, side="right") - 1] = True
    at_open = set((b.row_node[b.open_rows] - 1).tolist())
    opened += [(one, other) for _, one, other in network.wires(lines & partly).T.tolist() if {one, other} & at_open]
    behind: BoolArray = np.zeros(n, dtype=bool)
    if opened:
        label = _label(n, [(one, other) for _, one, other in network.wires(lines).T.tolist()])
        touched = [one if dead[one] else other for one, other in opened if dead[one] != dead[other]]
        behind = np.isin(label, label[touched])
    return behind


def find_floating(engine: Engine, handles: Handles, network: Network) -> IntArray:
    """Return the nodes from which no conductor leads to ground, in order: behind a delta winding, or a loose star.

    Power in star has no return there; what is in delta, or between phases, has.
    """
    n, own, edges = len(network.nodes), _by_name(handles), list[tuple[int, int]]()
    grounded = network.source_nodes.tolist()
    for name, terminals in _terminals(network.branches):
        class_name, handle = name.partition(".")[0], own[name]
        if name.startswith(_WOUND):
            conns = engine.get_names(handle, class_name, "Conns")
            for conn, rows in zip(conns, terminals, strict=False):
                live = [node - 1 for node in rows if node > 0]
                edges += [(live[0], other) for other in live[1:]]
                if len(live) < len(rows) and not _is_delta(conn):  # of a delta the last conductor is not used
                    grounded += live
        elif class_name != "line" and _is_delta(engine.get_text(handle, class_name, "Conn")):
            continue
        for other in terminals[1:] if class_name != "transformer" else ():
            for u, v in zip(terminals[0], other, strict=False):
                if u > 0 and v > 0:
                    edges.append((u - 1, v - 1))
                elif not name.startswith(_WOUND):
                    grounded += [node - 1 for node in (u, v) if node > 0]
    label = _label(n, edges)
    return np.flatnonzero(~np.isin(label, label[np.array(grounded, dtype=np.int64)]))


def _terminals(b: Branches) -> Iterator[tuple[str, list[list[int]]]]:
    """Yield each branch and the nodes of its terminals, ground as 0."""
    found: list[list[list[int]]] = [[] for _ in b.names]
    for branch, rows in zip(b.terminal_branch.tolist(), np.split(b.row_node, b.terminal_rows[1:]), strict=False):
        found[branch].append(rows.tolist())
    return zip(b.names, found, strict=True)


def _is_delta(conn: str) -> bool:
    return conn.lower().startswith(("d", "ll"))


def _label(n: int, edges: list[tuple[int, int]]) -> IntArray:
    """Number the parts that nodes form by the edges between them."""
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n))
    label: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
    return label
