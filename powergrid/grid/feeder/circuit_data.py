"""One feeder as the engine's data: read it, take elements out of it, rename everything in it.

The engine's schema says of every property whether it names a bus, an element or neither; text is never rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from scipy.spatial.distance import cdist

from powergrid.grid.engine import Engine, FloatArray, property_type
from powergrid.grid.feeder.compile import compile_feeder, fold_load_multiplier, read_base_voltages, scale_loads
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.microgrid import Data

_SOURCES = ("Vsource", "Isource")
_RECORDERS = ("EnergyMeter", "Monitor")
#: Options of a circuit that its elements are computed with, so that all parts must agree on them.
_SHARED_OPTIONS = (
    *("defaultbasefrequency", "earthmodel", "cktmodel", "loadmodel", "neglectloady", "longlinecorrection", "genmult"),
    *("seasonrating", "seasonsignal"),
)
_BUS_TYPES = ("Bus", "BusOnStructArray", "BusesOnStructArray")
_REFERENCE_TYPES = ("DSSObjectReference", "DSSObjectReferenceArray")
#: What names buses, or elements of a class, in plain text.
_TEXT_BUSES = {("regcontrol", "bus"), ("capcontrol", "vbus"), ("invcontrol", "monbus")}
_TEXT_ELEMENTS = {
    ("gendispatcher", "genlist"): ("Generator",),
    ("storagecontroller", "elementlist"): ("Storage",),
    ("upfccontrol", "upfclist"): ("UPFC",),
    ("espvlcontrol", "localcontrollist"): ("ESPVLControl",),
    ("espvlcontrol", "pvsystemlist"): ("PVSystem",),
    ("espvlcontrol", "storagelist"): ("Storage",),
    ("invcontrol", "derlist"): ("PVSystem", "Storage"),
    ("expcontrol", "derlist"): ("PVSystem",),
    ("expcontrol", "pvsystemlist"): ("PVSystem",),
}
#: Controls that mean all elements of some classes where they name none.
_MEANS_ALL = {
    "InvControl": ("DERList", ("PVSystem", "Storage")),
    "ExpControl": ("DERList", ("PVSystem",)),
    "StorageController": ("ElementList", ("Storage",)),
    "GenDispatcher": ("GenList", ("Generator",)),
}
_ALLOCATED = frozenset(("XfkVA", "kWh"))
_OPEN = re.compile(r"^Open\s+\"?([^.\s]+)\.(.+?)\"?((?:\s+\d+)+)\s*$", re.IGNORECASE)
_DRAWN_SIZE = 0.2  # of a microgrid beside its host, as a share of the host's extent, where both have coordinates
_DRAWN_GAP = 0.06  # room kept around it, likewise
_FLIPS = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
_DIRECTIONS = np.array([[np.cos(angle), np.sin(angle)] for angle in np.arange(8) * (np.pi / 4.0)])


@dataclass(frozen=True)
class Part:
    """One feeder as data.

    Attributes:
        name: How errors call it.
        data: Its classes of elements, each a list, and ``Bus``.
        opened: Places where elements are open: class, name, terminal and conductor as the engine wrote them.
        options: Circuit-wide options.
        v_bases_kv: Its base voltages.
        nodes: Nodes of each bus.
        kv: Line-to-neutral base voltage of each bus [kV].
    """

    name: str
    data: dict[str, list[Data]]
    opened: list[tuple[str, str, str]]
    options: dict[str, str]
    v_bases_kv: list[float]
    nodes: dict[str, set[int]]
    kv: dict[str, float]


def read_part(name: str, feeder: Feeder, load_scale: float) -> Part:
    """Compile a feeder and take it out of the engine as data, every load multiplied and at the demand it states.

    Raises:
        FeederError: the feeder does not compile, or has no base voltages.
    """
    engine = Engine()
    try:
        compile_feeder(feeder, engine)
        fold_load_multiplier(engine)
        scale_loads(engine, list(engine.handles("Load").values()), load_scale)
        kv = read_base_voltages(feeder, engine)
        nodes: dict[str, set[int]] = {}
        for node in engine.node_names():
            bus, _, phase = node.rpartition(".")
            nodes.setdefault(bus, set()).add(int(phase))
        raw = engine.to_json()
        _state_demand(raw.get("Load", []), engine)
        found = (_OPEN.match(line) for line in raw["PostCommands"])
        return Part(
            name=name,
            data={key: value for key, value in raw.items() if _is_class(key, value) and key not in _RECORDERS},
            opened=[(match[1], match[2], match[3]) for match in found if match],
            options={option: engine.command(f"get {option}") for option in _SHARED_OPTIONS},
            v_bases_kv=[float(kv) for kv in re.findall(r"[\d.eE+-]+", engine.command("get voltagebases"))],
            nodes=nodes,
            kv=kv,
        )
    finally:
        engine.close()


def _state_demand(loads: Iterable[Data], engine: Engine) -> None:
    """State the demand of allocated loads: the engine allocates by the order in which it once read the keys."""
    for load in loads:
        if load.get("Enabled", True) and not _ALLOCATED.isdisjoint(load):
            handle = engine.handles("Load")[load["Name"].lower()]
            for key in (*_ALLOCATED, "AllocationFactor", "CFactor", "kWhDays", "kVA", "PF"):
                load.pop(key, None)
            load.update({key: engine.get_float(handle, "Load", key) for key in ("kW", "kvar")})


def _is_class(key: str, value: Any) -> bool:
    return isinstance(value, list) and key not in ("PreCommands", "PostCommands")


def names_of(data: Mapping[str, list[Data]]) -> set[tuple[str, str]]:
    """Return the class and the lower-case name of everything in a circuit's data."""
    return {(class_name, o["Name"].lower()) for class_name, objects in data.items() for o in objects}


# -- taking out


def bus_name(written: str) -> str:
    """Return the bus of ``bus.node.node``, lower case."""
    return written.partition(".")[0].lower()


def _buses_of(class_name: str, element: Data) -> list[str]:
    """Return the buses that an element is connected to."""
    found: list[str] = []
    for key, value in element.items():
        if property_type(class_name, key)[0] in _BUS_TYPES:
            found += [bus_name(bus) for bus in (value if isinstance(value, list) else [value]) if bus]
    return found


def cut_off_source(part: Part, entry: str) -> set[tuple[str, str]]:
    """Find the sources and what lies between them and the entry, as (class, name)."""
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(part.nodes)
    sources: set[str] = set()
    for class_name, objects in part.data.items():
        for element in objects:
            buses = _buses_of(class_name, element)
            nx.add_path(graph, buses)
            if class_name in _SOURCES:
                sources.update(buses)
    graph.remove_node(entry)
    upstream: set[str] = set()
    for bus in sources - {entry}:
        upstream |= nx.node_connected_component(graph, bus)
    return {
        (class_name, element["Name"].lower())
        for class_name, objects in part.data.items()
        for element in objects
        if class_name in _SOURCES
        or (class_name == "Bus" and element["Name"].lower() in upstream)
        or not upstream.isdisjoint(_buses_of(class_name, element))
    }


def remove(part: Part, cut: set[tuple[str, str]]) -> None:
    """Take elements out of a part, and then the controls that name one of them."""
    cut = {(class_name.lower(), name) for class_name, name in cut}
    while True:
        for class_name, objects in part.data.items():
            objects[:] = [o for o in objects if (class_name.lower(), o["Name"].lower()) not in cut]
        more = {
            (class_name.lower(), o["Name"].lower())
            for class_name, objects in part.data.items()
            for o in objects
            if any(target in cut for target in _references(class_name, o))
        }
        part.opened[:] = [place for place in part.opened if (place[0].lower(), place[1].lower()) not in cut]
        if not more:
            return
        cut |= more


def _references(class_name: str, element: Data) -> Iterator[tuple[str, str]]:
    """Return the elements that an element names, as (class, name) in lower case, one for each class it may be of."""
    for key, value in element.items():
        kind, refers_to = property_type(class_name, key)
        if kind in _REFERENCE_TYPES:
            for written in value if isinstance(value, list) else [value]:
                owner, dot, name = str(written).lower().rpartition(".")
                classes = [owner] if dot else re.findall(r"\w+", refers_to.lower())
                yield from ((each, name) for each in classes)


def spell_out_lists(data: dict[str, list[Data]]) -> None:
    """Let controls that mean all elements of a class name them, so that they stay those of their own feeder."""
    for class_name, (key, classes) in _MEANS_ALL.items():
        every = [f"{c}.{o['Name']}" if len(classes) > 1 else o["Name"] for c in classes for o in data.get(c, ())]
        for control in data.get(class_name, ()):
            if not any(control.get(name) for name in (key, "PVSystemList")) and every:
                control[key] = list(every)


# -- renaming


def rename(part: Part, prefix: str) -> tuple[dict[str, list[Data]], list[tuple[str, str, str]]]:
    """Put a prefix before every bus and element of a part, wherever they are named."""
    own = {(class_name.lower(), name) for class_name, name in names_of(part.data)}
    names = {name for _, name in own}
    data = {
        class_name: [
            {"Name": prefix + o["Name"]}
            | {key: _renamed(class_name, key, value, prefix, own, names) for key, value in o.items() if key != "Name"}
            for o in objects
        ]
        for class_name, objects in part.data.items()
    }
    return data, [(class_name, prefix + name, places) for class_name, name, places in part.opened]


def _renamed(class_name: str, key: str, value: Any, prefix: str, own: set[tuple[str, str]], names: set[str]) -> Any:
    if isinstance(value, list):
        return [_renamed(class_name, key, each, prefix, own, names) for each in value]
    if not isinstance(value, str) or not value:
        return value
    place = (class_name.lower(), key.lower())
    kind, refers_to = property_type(class_name, key)
    if kind in _BUS_TYPES or place in _TEXT_BUSES or place == ("transformer", "bank"):
        return prefix + value
    if kind in _REFERENCE_TYPES or place in _TEXT_ELEMENTS:
        owner, dot, name = value.rpartition(".")
        classes = [owner] if dot else _TEXT_ELEMENTS.get(place) or re.findall(r"\w+", refers_to)
        if any((each.lower(), name.lower()) in own for each in classes):  # else one of the engine's own
            return f"{owner}{dot}{prefix}{name}"
    return value


def place_beside(buses: list[Data], entry: str, host_buses: list[Data], host_bus: str) -> None:
    """Draw a microgrid small and in free space near its host's bus, where both have coordinates."""
    placed = [bus for bus in buses if "X" in bus and "Y" in bus]
    around = [bus for bus in host_buses if "X" in bus and "Y" in bus]
    start = next((bus for bus in placed if bus["Name"].lower() == entry), None)
    target = next((bus for bus in around if bus["Name"].lower() == host_bus.lower()), None)
    if start is None or target is None:
        for bus in placed:
            del bus["X"], bus["Y"]
        return
    host, own = _positions(around), _positions(placed) - _positions([start])
    reach = float(np.ptp(host, axis=0).max()) or 1.0
    own *= _DRAWN_SIZE * reach / (float(np.ptp(own, axis=0).max()) or 1.0)
    ways = [
        _positions([target]) + _DRAWN_GAP * reach * length * away + own * flip
        for flip in _FLIPS
        for away in _DIRECTIONS
        for length in (1.0, 2.0, 3.0, 4.0)
    ]
    clear = [min(cdist(way, host).min() / (_DRAWN_GAP * reach), 1.0) for way in ways]
    apart = [float(np.linalg.norm(way.mean(axis=0) - _positions([target]))) / reach for way in ways]
    best = max(range(len(ways)), key=lambda i: (round(clear[i], 3), -round(apart[i], 3)))
    for bus, (x, y) in zip(placed, ways[best].tolist(), strict=True):
        bus.update(X=x, Y=y)


def _positions(buses: list[Data]) -> FloatArray:
    return np.array([[bus["X"], bus["Y"]] for bus in buses], dtype=np.float64)
