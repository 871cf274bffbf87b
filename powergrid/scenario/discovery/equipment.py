"""What a compiled feeder has that could be controlled, with the ratings the model gives, and where: plain data.

Reads a circuit once; decides nothing about who controls what.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np

from powergrid.errors import Problem
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.injections import read_ratings
from powergrid.grid.engine import Engine, FloatArray, Handle
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.windings import TAPPED_CLASSES, Regulator, find_tap_changers

#: What feeds or stores power, by the key of ``discover``: its class, and what is read beside its ratings.
_SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "storage": (
        "Storage",
        {
            "stored_percent": "%stored",
            "reserve_percent": "%reserve",
            "eta_charge_percent": "%EffCharge",
            "eta_discharge_percent": "%EffDischarge",
        },
    ),
    "pv": ("PVSystem", {}),
    "generators": ("Generator", {}),
}
#: The key of ``discover`` that takes elements of a class, named as devices name it.
_KEYS = {theirs.lower(): key for key, (theirs, _) in _SOURCES.items()}
_KEYS |= {"capacitor": "capacitors", "line": "switches"}
#: What opens a line by itself on a fault: protection, which nobody dispatches.
_PROTECTION = ("Fuse", "Recloser", "Relay")
_LOCKED = "Lock=yes"
_OPEN = "open in the model"
#: OpenDSS's ordinal of connections between phases.
_DELTA = 1
#: Line-to-line voltage up to which a bus is a house's [V]: no device goes there where there is medium voltage.
_LOW_VOLTAGE = 1000.0


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
    """A feeder as data: what it has to control, and where.

    Attributes:
        feeder: The feeder's name.
        network: The network.
        elements: What could be controlled besides loads, by the key of ``discover`` that takes it, in the feeder's
            order. The note of a tap changer says why it is not taken for one that moves under load.
        series_capacitors: Names of the capacitors that lie in series.
        delta_loads: Whether each load is tied between phases, shape (n_loads,).
        length_pu: Electrical length of each branch, the magnitude of its impedance [pu on 1 MVA], shape (n_branches,).
    """

    feeder: str
    network: Network
    elements: Mapping[str, tuple[Element, ...]]
    series_capacitors: tuple[str, ...]
    delta_loads: tuple[bool, ...]
    length_pu: FloatArray

    # -- what there is

    @cached_property
    def _by_name(self) -> dict[str, Element]:
        return {element.name.lower(): element for kind in self.elements.values() for element in kind}

    def find(self, name: str) -> Element | None:
        """Return the element of a ``class.name``, None if there is none; a regulated transformer is its control."""
        class_name, _, rest = name.lower().partition(".")
        network = self.network
        if class_name == "transformer" and rest in network.regulators:
            class_name, rest = "regcontrol", network.regulator_controls[network.regulators.index(rest)]
        if class_name == "load":
            load = network.find("load", rest)
            return None if isinstance(load, Problem) else self._load(load)
        return self._by_name.get(f"{class_name}.{rest}")

    def has(self, name: str) -> bool:
        """Whether there is a ``class.name`` that a device could be bound to."""
        class_name, _, rest = name.lower().partition(".")
        # A scenario may bind any line and capacitor, more of them than discovery would take.
        bound = {"line": self.network.switches, "capacitor": self.network.capacitors}
        return rest in bound[class_name] if class_name in bound else self.find(name) is not None

    @cached_property
    def tap_changers(self) -> tuple[Element, ...]:
        """Transformers without a regulator control that are taken for tap changers under load."""
        return tuple(element for element in self.elements["tap_changers"] if not element.note)

    @cached_property
    def flexible_loads(self) -> tuple[Element, ...]:
        """All loads, each of which could defer demand: made when asked for, feeders have thousands."""
        return tuple(map(self._load, range(len(self.network.loads.names))))

    def _load(self, load: int) -> Element:
        network, loads = self.network, self.network.loads
        phases, ratings = phases_served(network, loads.nodes[load]), {"p_max_kw": float(loads.kw[load])}
        return Element(f"Load.{loads.names[load]}", int(loads.bus[load]), phases, ratings)

    def by_distance(self, class_name: str) -> list[Element]:
        """Return the elements of a class that a device may be bound to, the nearest to the source first."""
        if class_name in ("regcontrol", "transformer", "autotrans"):
            return self.in_order((*self.elements["regulators"], *self.tap_changers))
        known = self.flexible_loads if class_name == "load" else self.elements.get(_KEYS.get(class_name, ""), ())
        return self.in_order(known)

    def in_order(self, elements: Iterable[Element]) -> list[Element]:
        """Return elements, each once, the nearest to the source first."""
        once = {element.name.lower(): element for element in elements}
        return sorted(once.values(), key=lambda element: float(self.distance[element.bus]))

    # -- where it is

    @cached_property
    def bus_phases(self) -> tuple[tuple[int, ...], ...]:
        """Phase numbers of each bus's nodes that a device can be tied to: 1 to 3 alone."""
        found: list[set[int]] = [set() for _ in self.network.buses]
        for node in np.flatnonzero(self.network.is_phase).tolist():
            found[int(self.network.node_bus[node])].add(int(self.network.node_phase[node]))
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

    @cached_property
    def distance(self) -> FloatArray:
        """Electrical distance of each bus from the source, as part of the farthest's; 1 where nothing feeds it."""
        found = nx.single_source_dijkstra_path_length(self.lengths, self.network.source_bus)
        farthest = max(found.values()) or 1.0
        return np.array([found.get(bus, farthest) / farthest for bus in range(len(self.network.buses))])

    @cached_property
    def volts(self) -> FloatArray:
        """Line-to-neutral base voltage of each bus [V], shape (n_buses,)."""
        volts = np.ones(len(self.network.buses))
        volts[self.network.node_bus] = np.maximum(self.network.v_base, 1.0)  # neutrals may have none
        return volts

    @cached_property
    def load_kw(self) -> FloatArray:
        """Nominal demand at each bus [kW], shape (n_buses,)."""
        loads = self.network.loads
        return np.bincount(loads.bus, np.abs(loads.kw), len(self.network.buses)).astype(np.float64)

    @cached_property
    def total_kw(self) -> float:
        """Nominal demand of the feeder [kW]."""
        return float(self.load_kw.sum())

    def describe(self, bus: int) -> str:
        """Say a bus with what it has."""
        kv = self.volts[bus] * 3**0.5 / 1000.0
        phases = ".".join(map(str, self.bus_phases[bus]))
        return f"{self.network.buses[bus]} (phases {phases}, {kv:.3g} kV, {self.load_kw[bus]:.0f} kW)"

    def hosts(self, buses: Iterable[int]) -> list[int]:
        """Return the fed buses among some that may take a device: not the source's, medium voltage if there is any."""
        usable = [bus for bus in buses if self.network.tree.depth[bus] >= 0 and self.bus_phases[bus]]
        usable = [bus for bus in usable if bus != self.network.source_bus] or usable
        return [bus for bus in usable if self.volts[bus] * 3**0.5 > _LOW_VOLTAGE] or usable

    def demand_at(self, buses: Sequence[int], zone: Iterable[int]) -> FloatArray:
        """Return the nominal demand of a zone by the bus of some that it hangs on: its own, or the nearest one above.

        Returns:
            Demand [kW], shape (n_buses,).
        """
        above, place = self.network.tree.above, {bus: i for i, bus in enumerate(buses)}
        found = np.zeros(len(place))
        for bus in zone:
            at = bus
            while at >= 0 and at not in place:
                at = int(above[at])
            if at >= 0:
                found[place[at]] += self.load_kw[bus]
        return found


def read_equipment(circuit: Circuit) -> Equipment:
    """Read what a compiled feeder has to control."""
    engine, network = circuit.engine, circuit.network
    banks = list(_capacitors(engine, circuit))
    # As compiled: controls that do not act on this circuit have been disabled since.
    tapped = {class_name: circuit.handles[class_name] for class_name in ("RegControl", *TAPPED_CLASSES)}
    elements: dict[str, Iterable[Element]] = {
        "regulators": _regulators(engine, circuit),
        "tap_changers": (
            _winding(network, each.regulator, _find_open(engine, each.regulator.handle) or each.note, each.kva)
            for each in find_tap_changers(engine, tapped)
        ),
        "capacitors": (bank for bank in banks if bank.note != "series"),
        "switches": _switches(network),
        **{key: _sources(circuit, *source) for key, source in _SOURCES.items()},
    }
    return Equipment(
        feeder=circuit.feeder.name,
        network=network,
        elements={key: tuple(own) for key, own in elements.items()},
        series_capacitors=tuple(bank.name for bank in banks if bank.note == "series"),
        delta_loads=tuple(
            (engine.get_all_ints(list(circuit.handles["Load"].values()), "Load", "Conn") == _DELTA).tolist()
        ),
        length_pu=_lengths(circuit),
    )


def phases_served(network: Network, nodes: Iterable[int]) -> tuple[int, ...]:
    """Return the phases of the source, 1 to 3, that feed some nodes."""
    return tuple(sorted({int(network.served_phase[node]) for node in nodes} & {1, 2, 3}))


def _at(network: Network, name: str, nodes: Sequence[int], ratings: Mapping[str, float], note: str = "") -> Element:
    """Return an element that acts on some nodes; one that is tied to ground alone goes to the source."""
    bus = int(network.node_bus[nodes[0]]) if nodes else network.source_bus
    return Element(name, bus, phases_served(network, nodes), ratings, note)


def _terminal_nodes(network: Network, branch: int) -> list[list[int]]:
    """Return the nodes of each terminal of a branch, ground left out."""
    b = network.branches
    first = int(np.searchsorted(b.terminal_branch, branch))
    last = int(np.searchsorted(b.terminal_branch, branch, side="right"))
    ends = np.append(b.terminal_rows, len(b.row_node))
    rows = [b.row_node[ends[terminal] : ends[terminal + 1]] for terminal in range(first, last)]
    return [(row[row > 0] - 1).tolist() for row in rows]


def _winding(network: Network, tapped: Regulator, note: str = "", kva: float = 0.0) -> Element:
    """Return the element that moves a winding: its regulator control, else the transformer itself."""
    transformer = f"{tapped.class_name}.{tapped.transformer}"
    nodes = _terminal_nodes(network, network.branch_index[transformer.lower()])[tapped.winding - 1]
    taps = {"winding": float(tapped.winding), "tap_min": float(tapped.lowest), "tap_max": float(tapped.highest)}
    name = f"RegControl.{tapped.control}" if tapped.control else transformer
    return _at(network, name, nodes, {"s_max_kva": kva, **taps}, note)


def _regulators(engine: Engine, circuit: Circuit) -> Iterator[Element]:
    """Return the windings that regulator controls move; the note says why one cannot move."""
    held = {} if circuit.feeder.controls_off else {c.name: c.idle for c in circuit.network.controls if c.idle}
    for each in circuit.switchgear.regulators:
        if each.control:
            note = _find_open(engine, each.handle) or held.get(each.control, "")
            note = note or ("its winding has one tap" if each.lowest == each.highest else "")
            yield _winding(circuit.network, each, note)


def _find_open(engine: Engine, handle: Handle) -> str:
    """Say that an element is open, in one phase at least; nothing where it is not."""
    return _OPEN if engine.any_open(handle) else ""


def _capacitors(engine: Engine, circuit: Circuit) -> Iterator[Element]:
    network, handles = circuit.network, engine.handles("Capacitor")
    for name, steps in zip(network.capacitors, circuit.switchgear.steps_max.tolist(), strict=True):
        ends = _terminal_nodes(network, network.branch_index[f"capacitor.{name}"])
        live = [nodes for nodes in ends if nodes]
        buses = {int(network.node_bus[node]) for nodes in live for node in nodes}
        note = "series" if len(buses) > 1 else ""
        ratings = {"steps": float(steps), "kvar": float(engine.get_floats(handles[name], "Capacitor", "kvar").sum())}
        yield _at(network, f"Capacitor.{name}", live[0] if live else [], ratings, note)


def _sources(circuit: Circuit, class_name: str, read: Mapping[str, str]) -> Iterator[Element]:
    engine, network = circuit.engine, circuit.network
    stated_kw = dict(zip(network.elements["Generator"], network.sources.generator_kw.tolist(), strict=True))
    handles = engine.handles(class_name)
    for (name, handle), ratings in zip(
        handles.items(), read_ratings(engine, class_name, list(handles.values())), strict=True
    ):
        ref = engine.node_ref(handle)  # 0 is ground, node i is entry i - 1
        ratings |= {ours: engine.get_float(handle, class_name, theirs) for ours, theirs in read.items()}
        if class_name == "Generator":  # now it is what a dispatcher of the feeder's made of it
            ratings["p_max_kw"] = stated_kw[name]
        yield _at(network, f"{class_name}.{name}", (ref[ref > 0] - 1).tolist(), ratings, _find_open(engine, handle))


def _switches(network: Network) -> Iterator[Element]:
    """Find the lines that are meant to be switched: by their own flag, by a SwtControl, or open as compiled."""
    controlled, protected = _moved_by(network, "SwtControl"), _moved_by(network, *_PROTECTION)
    locked = {target for control in network.controls if control.idle == _LOCKED for target in control.targets}
    b = network.branches
    for branch, (full, closed) in enumerate(zip(b.names, b.closed.tolist(), strict=True)):
        class_name, _, name = full.partition(".")
        if class_name != "line":
            break  # lines come first
        if not (b.is_switch[branch] or full in controlled or not closed):
            continue
        ends = _terminal_nodes(network, branch)
        if any(not nodes for nodes in ends):
            continue
        depth = [int(network.tree.depth[network.node_bus[nodes[0]]]) for nodes in ends]
        bases = [float(network.v_base[nodes[0]]) for nodes in ends]
        phases = [tuple(int(network.served_phase[node]) for node in nodes) for nodes in ends]
        note = f"protected by {protected[full]}" if full in protected else ""
        note = note or (f"locked by {controlled[full]}" if full in locked else "")
        if not closed and min(depth) < 0:
            note = note or "leads to buses that nothing feeds"
        elif abs(bases[0] - bases[1]) > 0.05 * bases[0] or phases[0] != phases[1]:  # closing it is a short circuit
            note = note or "its ends differ in voltage or in the order of phases"
        ratings = {"closed": float(closed), "branch": float(branch)}
        yield _at(network, f"Line.{name}", ends[0 if depth[0] > depth[1] else 1], ratings, note)


def _moved_by(network: Network, *classes: str) -> dict[str, str]:
    """Return what controls of some classes move, ``class.name`` in lower case, and the first that does."""
    found: dict[str, str] = {}
    for class_name in classes:
        for control in network.controls:
            if control.class_name == class_name:
                found |= {each: f"{class_name}.{control.name}" for each in control.targets if each not in found}
    return found


def _lengths(circuit: Circuit) -> FloatArray:
    """Take each branch's largest transfer admittance between its first two terminals as its electrical length."""
    # In pu, so that lengths on both sides of a transformer can be added up.
    network, b = circuit.network, circuit.network.branches
    v_of = np.concatenate([[0.0], network.v_base])
    sizes = np.diff(np.append(b.branch_rows, len(b.row_node)))
    terminals = np.bincount(b.terminal_branch, minlength=len(b.names))
    length_pu, entries = np.zeros(len(b.names)), circuit.branch_entries()
    starts = np.cumsum(sizes * sizes) - sizes * sizes
    for size, count in {(int(s), int(n)) for s, n in zip(sizes, terminals, strict=True) if n > 1}:
        alike, per = np.flatnonzero((sizes == size) & (terminals == count)), size // count
        # Entries come column by column: what joins row i of the first terminal and column j of the second.
        place = (np.arange(per, 2 * per) * size)[None, :] + np.arange(per)[:, None]
        v = v_of[b.row_node[b.branch_rows[alike][:, None] + np.arange(2 * per)]]
        transfer = np.abs(entries[starts[alike][:, None, None] + place]) * (v[:, :per, None] * v[:, None, per:])
        largest = transfer.max(axis=(1, 2), initial=0.0)
        length_pu[alike] = np.divide(1e6, largest, out=np.zeros_like(largest), where=largest > 0.0)
    return length_pu
