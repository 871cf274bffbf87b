"""What a compiled feeder has that could be controlled, with the ratings the model gives: plain data.

Reads a circuit once; decides nothing about who controls what.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import networkx as nx
import numpy as np

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.engine import Engine, FloatArray
from powergrid.grid.feeder.feeder import Feeder, read_feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.windings import TAPPED_CLASSES, Regulator, TapChanger, find_tap_changers

#: Classes whose elements feed or store power, and the ratings that are read: our name to theirs.
_SOURCES: dict[str, dict[str, str]] = {
    "Storage": {
        "e_max_kwh": "kWhRated",
        "p_max_kw": "kWRated",
        "s_max_kva": "kVA",
        "stored_percent": "%stored",
        "reserve_percent": "%reserve",
        "eta_charge_percent": "%EffCharge",
        "eta_discharge_percent": "%EffDischarge",
    },
    "PVSystem": {"p_max_kw": "Pmpp", "s_max_kva": "kVA"},
    "Generator": {"p_max_kw": "kW", "s_max_kva": "kVA"},
}
#: What opens a line by itself on a fault: protection, which nobody dispatches.
_PROTECTION = ("Fuse", "Recloser", "Relay")


@dataclass(frozen=True)
class Element:
    """An element of the feeder that a device could be bound to.

    Attributes:
        name: ``Class.name``, the name in lower case.
        bus: Index of the bus it acts on; of a line, of its far end as seen from the source.
        phases: Phases of the source that feed it there.
        ratings: What the model says of it, by name with the unit.
        note: What else is worth knowing, empty where nothing is.
    """

    name: str
    bus: int
    phases: tuple[int, ...]
    ratings: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class Equipment:
    """A feeder as data, with what it has to control.

    Attributes:
        feeder: The feeder's name.
        network: The network.
        regulators: Regulator controls.
        capacitors: Shunt capacitors.
        series_capacitors: Names of the capacitors that lie in series.
        storage, pv, generators: Elements that store or feed power.
        switches: Lines meant to be switched, and lines that are open as compiled.
        tap_changers: Transformers with taps and no regulator control; the note says why one is not taken for a tap
            changer under load.
        delta_loads: Whether each load is tied between phases, shape (n_loads,).
        length_pu: Electrical length of each branch, the magnitude of its impedance [pu on 1 MVA], shape (n_branches,).
    """

    feeder: str
    network: Network
    regulators: tuple[Element, ...]
    capacitors: tuple[Element, ...]
    series_capacitors: tuple[str, ...]
    storage: tuple[Element, ...]
    pv: tuple[Element, ...]
    generators: tuple[Element, ...]
    switches: tuple[Element, ...]
    tap_changers: tuple[Element, ...]
    delta_loads: tuple[bool, ...]
    length_pu: FloatArray

    @cached_property
    def loads(self) -> tuple[Element, ...]:
        """Loads with their nominal demand, in the feeder's order."""
        loads = self.network.loads
        return tuple(
            Element(f"Load.{name}", int(bus), phases_served(self.network, nodes), {"p_max_kw": float(kw)})
            for name, bus, nodes, kw in zip(loads.names, loads.bus, loads.nodes, loads.kw, strict=True)
        )

    @cached_property
    def _by_name(self) -> dict[str, Element]:
        switchgear = (self.regulators, self.tap_changers, self.capacitors, self.switches)
        kinds = (*switchgear, self.storage, self.pv, self.generators, self.loads)
        return {element.name.lower(): element for kind in kinds for element in kind}

    def find(self, name: str) -> Element | None:
        """Return the element of a ``class.name``, None if there is none; a regulated transformer is its control."""
        class_name, _, rest = name.lower().partition(".")
        network = self.network
        if class_name == "transformer" and rest in network.regulators:
            class_name, rest = "regcontrol", network.regulator_controls[network.regulators.index(rest)]
        return self._by_name.get(f"{class_name}.{rest}")

    @cached_property
    def bus_phases(self) -> tuple[tuple[int, ...], ...]:
        """Phase numbers of each bus's nodes that a device can be tied to: 1 to 3 alone."""
        found: list[set[int]] = [set() for _ in self.network.buses]
        for bus, phase in zip(self.network.node_bus.tolist(), self.network.node_phase.tolist(), strict=True):
            found[bus] |= {phase} & {1, 2, 3}
        return tuple(tuple(sorted(own)) for own in found)

    @cached_property
    def lengths(self) -> nx.Graph[int]:
        """Buses joined by the closed branches, with their electrical length as weight."""
        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(self.network.graph)
        for one, other, data in self.network.graph.edges(data=True):
            # Switches have next to no impedance: a little more keeps fewer hops the nearer.
            graph.add_edge(one, other, weight=float(self.length_pu[data["branch"]]) + 1e-9)
        return graph


def equipment_of(feeder: Feeder) -> Equipment:
    """Return what a feeder has to control; compiled once in a process, for that takes seconds on a large one."""
    return _equipment_by_digest(str(feeder.master), feeder.digest, feeder.model_root, feeder.trust)


@functools.lru_cache(maxsize=16)
def _equipment_by_digest(master: str, digest: str, model_root: Path | None, trust: bool) -> Equipment:
    circuit = Circuit(read_feeder(master, model_root=model_root, trust=trust))
    try:
        return read_equipment(circuit)
    finally:
        circuit.close()


def read_equipment(circuit: Circuit) -> Equipment:
    """Read what a compiled feeder has to control."""
    engine, network = circuit.engine, circuit.network
    regulators = tuple(_regulator(network, each) for each in circuit.regulators if each.control)
    banks = tuple(_capacitors(engine, circuit))
    tapped = {class_name: engine.handles(class_name) for class_name in ("RegControl", *TAPPED_CLASSES)}
    return Equipment(
        feeder=circuit.feeder.name,
        network=network,
        regulators=regulators,
        capacitors=tuple(bank for bank in banks if bank.note != "series"),
        series_capacitors=tuple(bank.name for bank in banks if bank.note == "series"),
        storage=tuple(_sources(engine, network, "Storage")),
        pv=tuple(_sources(engine, network, "PVSystem")),
        generators=tuple(_sources(engine, network, "Generator")),
        switches=tuple(_switches(engine, network)),
        tap_changers=tuple(_tap_changer(network, each) for each in find_tap_changers(engine, tapped)),
        delta_loads=tuple(
            engine.get_text(handle, "Load", "Conn").lower().startswith(("d", "ll"))
            for handle in engine.handles("Load").values()
        ),
        length_pu=_lengths(circuit),
    )


def phases_served(network: Network, nodes: Iterable[int]) -> tuple[int, ...]:
    """Return the phases of the source, 1 to 3, that feed some nodes."""
    return tuple(sorted({int(network.served_phase[node]) for node in nodes} & {1, 2, 3}))


def _terminal_nodes(network: Network, branch: int) -> list[list[int]]:
    """Return the nodes of each terminal of a branch, ground left out."""
    b = network.branches
    first = int(np.searchsorted(b.terminal_branch, branch))
    last = int(np.searchsorted(b.terminal_branch, branch, side="right"))
    ends = np.append(b.terminal_rows, len(b.row_node))
    rows = [b.row_node[ends[terminal] : ends[terminal + 1]] for terminal in range(first, last)]
    return [(row[row > 0] - 1).tolist() for row in rows]


def _regulator(network: Network, regulator: Regulator) -> Element:
    bus, phases = _winding_place(network, regulator)
    return Element(f"RegControl.{regulator.control}", bus, phases, _tap_range(regulator))


def _tap_changer(network: Network, tapped: TapChanger) -> Element:
    regulator = tapped.regulator
    bus, phases = _winding_place(network, regulator)
    ratings = {"s_max_kva": tapped.kva, "winding": float(regulator.winding), **_tap_range(regulator)}
    return Element(f"{regulator.class_name}.{regulator.transformer}", bus, phases, ratings, tapped.note)


def _tap_range(regulator: Regulator) -> dict[str, float]:
    return {"tap_min": float(regulator.lowest), "tap_max": float(regulator.highest)}


def _winding_place(network: Network, regulator: Regulator) -> tuple[int, tuple[int, ...]]:
    """Return the bus of a winding, and the phases of the source that feed it there."""
    branch = network.branch_index[f"{regulator.class_name}.{regulator.transformer}".lower()]
    nodes = _terminal_nodes(network, branch)[regulator.winding - 1]
    return (int(network.node_bus[nodes[0]]) if nodes else network.source_bus), phases_served(network, nodes)


def _capacitors(engine: Engine, circuit: Circuit) -> Iterator[Element]:
    network = circuit.network
    controlled = {
        engine.get_text(handle, "CapControl", "Capacitor").lower().rpartition(".")[2]
        for handle in engine.handles("CapControl").values()
    }
    handles = engine.handles("Capacitor")
    for name, steps in zip(network.capacitors, circuit.switchgear.steps_max.tolist(), strict=True):
        ends = _terminal_nodes(network, network.branch_index[f"capacitor.{name}"])
        live = [nodes for nodes in ends if nodes]
        nodes = live[0] if live else []
        bus = int(network.node_bus[nodes[0]]) if nodes else network.source_bus
        buses = {int(network.node_bus[node]) for nodes in live for node in nodes}
        note = "series" if len(buses) > 1 else "" if name in controlled else "no CapControl"
        ratings = {"steps": float(steps), "kvar": float(engine.get_floats(handles[name], "Capacitor", "kvar").sum())}
        yield Element(f"Capacitor.{name}", bus, phases_served(network, nodes), ratings, note)


def _sources(engine: Engine, network: Network, class_name: str) -> Iterator[Element]:
    for name, handle in engine.handles(class_name).items():
        ref = engine.node_ref(handle)
        nodes = (ref[ref > 0] - 1).tolist()
        bus = int(network.node_bus[nodes[0]]) if nodes else network.source_bus
        ratings = {key: engine.get_float(handle, class_name, theirs) for key, theirs in _SOURCES[class_name].items()}
        yield Element(f"{class_name}.{name}", bus, phases_served(network, nodes), ratings)


def _switches(engine: Engine, network: Network) -> Iterator[Element]:
    """Find the lines that are meant to be switched: by their own flag, by a SwtControl, or open as compiled."""
    controlled = _controlled_lines(engine, ("SwtControl",))
    protected = _controlled_lines(engine, _PROTECTION)
    b = network.branches
    for branch, (full, closed) in enumerate(zip(b.names, b.closed.tolist(), strict=True)):
        class_name, _, name = full.partition(".")
        if class_name != "line":
            break  # lines come first
        if not (b.is_switch[branch] or name in controlled or not closed):
            continue
        ends = _terminal_nodes(network, branch)
        if any(not nodes for nodes in ends):
            continue
        buses = [int(network.node_bus[nodes[0]]) for nodes in ends]
        depth = [network.depth.get(bus, -1) for bus in buses]
        far = 0 if depth[0] > depth[1] else 1
        bases = [float(network.v_base[nodes[0]]) for nodes in ends]
        phases = [tuple(int(network.served_phase[node]) for node in nodes) for nodes in ends]
        note = protected.get(name, "")
        if not closed and min(depth) < 0:
            note = note or "leads to buses that nothing feeds"
        elif abs(bases[0] - bases[1]) > 0.05 * bases[0] or phases[0] != phases[1]:
            note = note or "its ends differ in voltage or in the order of phases"
        ratings = {"closed": float(closed), "branch": float(branch)}
        yield Element(f"Line.{name}", buses[far], phases_served(network, ends[far]), ratings, note)


def _controlled_lines(engine: Engine, classes: tuple[str, ...]) -> dict[str, str]:
    """Return the lines that elements of some classes switch, and what switches them."""
    found: dict[str, str] = {}
    for class_name in classes:
        for name, handle in engine.handles(class_name).items():
            target = engine.get_text(handle, class_name, "SwitchedObj")
            owner, _, line = target.lower().rpartition(".")
            if owner in ("", "line"):
                found.setdefault(line, f"{class_name}.{name}")
    return found


def _lengths(circuit: Circuit) -> FloatArray:
    """Take each branch's largest transfer admittance between its first two terminals as its electrical length."""
    network, b = circuit.network, circuit.network.branches
    v_of = np.concatenate([[0.0], network.v_base])
    sizes = np.diff(np.append(b.branch_rows, len(b.row_node)))
    terminals = np.bincount(b.terminal_branch, minlength=len(b.names))
    length_pu = np.zeros(len(b.names))
    for branch, (block, first, size) in enumerate(
        zip(circuit.branch_admittances(), b.branch_rows.tolist(), sizes.tolist(), strict=True)
    ):
        if terminals[branch] < 2:
            continue
        per = size // int(terminals[branch])
        v = v_of[b.row_node[first : first + size]]
        transfer = np.abs(block[:per, per : 2 * per]) * np.outer(v[:per], v[per : 2 * per])
        largest = float(transfer.max(initial=0.0))
        length_pu[branch] = 1e6 / largest if largest > 0.0 else 0.0
    return length_pu
