"""Several feeders become one circuit: a host, and microgrids that are tied to its buses.

Works on the circuits as the engine's own data, whose schema says of every property whether it names a bus, an element
or neither; text is never rewritten. Says nothing about when a tie is open.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx

from powergrid.errors import FeederError, Problem, describe_unknown, list_names
from powergrid.grid.engine import Engine, property_type
from powergrid.grid.feeder.compile import compile_feeder, read_base_voltages
from powergrid.grid.feeder.feeder import Feeder, read_feeder
from powergrid.grid.feeder.microgrid import (
    Data,
    LineTie,
    Microgrid,
    MicrogridSpec,
    describe_forming_source,
    describe_tie,
    place_beside,
)
from powergrid.grid.feeder.ratings import Ratings
from powergrid.grid.feeder.timing import fold_multipliers, scale_loads

_SOURCES = ("Vsource", "Isource")
_RECORDERS = ("EnergyMeter", "Monitor")
#: Options of a circuit that its elements are computed with, so that all parts must agree on them.
_SHARED_OPTIONS = (
    *("defaultbasefrequency", "earthmodel", "cktmodel", "loadmodel", "neglectloady", "longlinecorrection", "genmult"),
    *("seasonrating", "seasonsignal"),
)
_BUS_TYPES = ("Bus", "BusOnStructArray", "BusesOnStructArray")
_REFERENCE_TYPES = ("DSSObjectReference", "DSSObjectReferenceArray")
_OF_ANY_CLASS = "Element"  # what a property refers to: CktElement, PDElement
_CONDUCTORS = ("wiredata", "cndata", "tsdata")  # of which the engine's schema names the first alone
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
#: Classes that are more than wires: to leave one out would be to model another microgrid.
_CUSTOMERS = ("Load", "Generator", "Storage", "PVSystem", "IndMach012", "VSConverter", "VCCS", "UPFC")
_KV_TOLERANCE = 0.01  # of bases that are written with rounding (2.4 and 4.16/sqrt(3) kV)


def compose(
    host: Feeder, microgrids: Mapping[str, MicrogridSpec], read: Callable[[str], Feeder] = read_feeder
) -> Feeder:
    """Return a host feeder with microgrids tied to it, as one feeder.

    A microgrid's buses and elements get its name in lower case as a prefix (``mg1_671``, ``Load.mg1_671``), and its
    sources are left out, like energy meters and monitors. All else is exact. What ties microgrid ``MG1`` is
    ``Line.mg1_tie`` (the switch), for a transformer tie behind ``Transformer.mg1_tie`` at bus ``mg1_tie``; its
    forming source is ``Vsource.mg1_forming``, open as compiled.

    Args:
        host: The host feeder.
        microgrids: What is tied to it, by name.
        read: Reads the feeder that a spec names.

    Raises:
        FeederError: a feeder is wrong in itself, or they do not fit each other; all of it at once.
    """
    feeders = {name: read(spec.feeder) for name, spec in microgrids.items()}
    key = json.dumps({name: spec.model_dump(mode="json", exclude={"feeder"}) for name, spec in microgrids.items()})
    sha = hashlib.sha256(key.encode())
    for feeder in (host, *feeders.values()):
        sha.update(feeder.digest.encode())
    return _build(_Composition(sha.hexdigest(), host.master, host, feeders, dict(microgrids)))


@dataclass(frozen=True)
class _Composition:
    """Feeders and how they are tied; equal where the digest, which is of all that, and the host's file are."""

    digest: str
    master: Path
    host: Feeder = field(compare=False)
    feeders: dict[str, Feeder] = field(compare=False)
    specs: dict[str, MicrogridSpec] = field(compare=False)


# To compose compiles every feeder once: each environment of the same scenario would do so again.
@functools.lru_cache(maxsize=16)
def _build(tied: _Composition) -> Feeder:
    whole = _read_part(f"feeder {tied.host.name!r}", tied.host, 1.0)
    problems = [*_find_name_problems(tied.specs), *_find_duplicates(whole)]
    _spell_out_lists(whole.data)
    v_bases, microgrids = list(whole.v_bases_kv), list[Microgrid]()
    for name, spec in tied.specs.items():
        own = tied.feeders[name]
        part = _read_part(f"microgrids.{name}: feeder {own.name!r}", own, spec.load_scale)
        found = [*_find_duplicates(part), *_find_option_problems(whole, part)]
        found += _find_tie_problems(name, spec, whole, part)
        problems += found or _attach(whole, part, name, spec, microgrids)
        v_bases += [kv for kv in part.v_bases_kv if kv not in v_bases]
    if problems:
        raise FeederError(str(tied.host.master), problems)
    return Feeder(
        name=" + ".join([tied.host.name, *(f"{name} ({feeder.name})" for name, feeder in tied.feeders.items())]),
        master=tied.host.master,
        commands=(),
        left_out=tuple(c for feeder in (tied.host, *tied.feeders.values()) for c in feeder.left_out),
        digest=tied.digest,
        circuit=json.dumps(_assemble(whole, v_bases)),
        microgrids=tuple(microgrids),
        files=tuple(dict.fromkeys(f for feeder in (tied.host, *tied.feeders.values()) for f in feeder.files)),
        settings={k: v for k, v in tied.host.settings.items() if k != "year"},  # which its loads have grown by
    )


def _attach(whole: _Part, part: _Part, name: str, spec: MicrogridSpec, microgrids: list[Microgrid]) -> list[Problem]:
    """Take a microgrid into the whole; return the problems, with any of which the whole is of no use."""
    prefix, entry, bus = f"{name.lower()}_", _entry_of(spec, part), spec.bus.lower()
    cut = _cut_off_source(part, entry)
    lost = [f"{c}.{o['Name']}" for c in _CUSTOMERS for o in part.data.get(c, ()) if _key_of(c, o) in cut]
    if lost:
        text = f"{entry!r} would leave out {list_names(lost)}"
        return [Problem("entry-too-far", f"microgrids.{name}.entry", text, "name a bus nearer to the source")]
    _remove(part, cut)
    _spell_out_lists(part.data)
    data, opened = _rename(part, prefix)
    place_beside(data["Bus"], prefix + entry, whole.data["Bus"], spec.bus)
    buses = tuple(each["Name"].lower() for each in data["Bus"])
    phases, kv = sorted(part.nodes[entry]), (whole.kv[bus], part.kv[entry])
    tie = describe_tie(spec.tie, f"{prefix}tie", (bus, prefix + entry), phases, kv)
    added = {class_name: [element] for class_name, element in tie.items()}
    if "Transformer" in tie:
        own = next(each for each in data["Bus"] if each["Name"].lower() == prefix + entry)
        added["Bus"] = [{**own, "Name": f"{prefix}tie"}]
    if spec.forming is not None:
        source = f"{prefix}forming"
        added["Vsource"] = [describe_forming_source(spec.forming, source, prefix + entry, phases, kv[1])]
        opened.append(("Vsource", source, " 1"))
    problems, taken = [], _names_of(data)
    if clashing := [written.replace(prefix, "", 1) for key, written in _names_of(added).items() if key in taken]:
        text = f"{part.name} has {', '.join(clashing)}, a name that is kept for its tie"
        problems.append(Problem("name-taken", "", text, "rename it in the feeder"))
    for class_name, objects in added.items():
        data.setdefault(class_name, []).extend(objects)
    taken = _names_of(whole.data)
    if twice := sorted(written for key, written in _names_of(data).items() if key in taken):
        text = f"its names are taken already: {list_names(twice)}"
        problems.append(Problem("name-taken", f"microgrids.{name}", text, "give it another name"))
    if problems:
        return problems
    for class_name, objects in data.items():
        whole.data.setdefault(class_name, []).extend(objects)
    whole.opened.extend(opened)
    former = f"{prefix}forming" if spec.forming is not None else ""
    microgrids.append(Microgrid(name, buses, prefix + entry, f"{prefix}tie", former, spec.forming))
    return []


# -- checks


def _entry_of(spec: MicrogridSpec, part: _Part) -> str:
    return (spec.entry or _bus_name(part.data["Vsource"][0]["Bus1"])).lower()


def _find_name_problems(names: Iterable[str]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name in names:
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            text = "a name is letters, digits and '_', a letter first: it becomes a prefix"
            yield Problem("bad-name", f"microgrids.{name}", text)
        if (other := seen.setdefault(name.lower(), name)) != name:
            yield Problem("bad-name", f"microgrids.{name}", f"differs from {other!r} in letter case only")


def _find_duplicates(part: _Part) -> Iterator[Problem]:
    for class_name, objects in part.data.items():
        for name, count in Counter(o["Name"].lower() for o in objects).items():
            if count > 1:
                text = f"has {count} of {class_name}.{name}"
                yield Problem("duplicate-name", part.name, text, "elements need names of their own")


def _find_option_problems(host: _Part, part: _Part) -> Iterator[Problem]:
    for option, value in part.options.items():
        if value.lower() != host.options[option].lower():
            text = f"{part.name} has {option}={value}, {host.name} has {host.options[option]}"
            yield Problem("options-differ", "", text, "both need the same")


def _find_tie_problems(name: str, spec: MicrogridSpec, host: _Part, part: _Part) -> Iterator[Problem]:
    bus, entry, where = spec.bus.lower(), _entry_of(spec, part), f"microgrids.{name}"
    if entry not in part.nodes:
        yield Problem("unknown-bus", f"{where}.entry", describe_unknown("bus", spec.entry, part.nodes))
    if bus not in host.nodes:
        yield Problem("unknown-bus", f"{where}.bus", describe_unknown("bus", spec.bus, host.nodes))
        return
    if entry not in part.nodes:
        return
    missing = sorted(part.nodes[entry] - host.nodes[bus])
    if missing:
        text = f"{spec.bus!r} has phases {sorted(host.nodes[bus])}, not {missing} of the microgrid's {entry!r}"
        yield Problem("missing-phase", f"{where}.bus", text)
    here, there = host.kv[bus], part.kv[entry]
    if isinstance(spec.tie, LineTie) and abs(here - there) > _KV_TOLERANCE * here:
        levels = f"{here * 3**0.5:.4g} kV at {spec.bus!r} and {there * 3**0.5:.4g} kV at {entry!r}"
        remedy = "use 'kind: transformer', or another entry"
        yield Problem("levels-differ", f"{where}.tie", f"a line between {levels}", remedy)


# -- putting together


def _assemble(whole: _Part, v_bases_kv: Iterable[float]) -> Data:
    """Return the circuit as the engine reads it."""
    options = {key: value for key, value in whole.options.items() if value and key != "defaultbasefrequency"}
    # Lines compute their impedances with the earth model while they are made: it comes before them.
    earth_model = options.pop("earthmodel")
    controls = whole.data.get("CapControl", [])
    late = [(control["Name"], control.pop("VBus")) for control in controls if control.get("VBus")]
    bases = ", ".join(repr(kv) for kv in sorted(set(v_bases_kv), reverse=True))
    return {
        "Name": "powergrid",
        "DefaultBaseFreq": float(whole.options["defaultbasefrequency"]),
        "PreCommands": [f"Set earthmodel={earth_model}", f"Set VoltageBases=[{bases}]"],
        **whole.data,
        "PostCommands": [
            *(f"Set {key}={value}" for key, value in options.items()),
            *(["MakeBusList"] if late else []),  # without which the engine knows no bus by name
            *(f'Edit "CapControl.{name}" VBus="{bus}"' for name, bus in late),
            *(f'Open "{class_name}.{name}"{places}' for class_name, name, places in whole.opened),
        ],
    }


# -- a feeder as data


@dataclass(frozen=True)
class _Part:
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


def _read_part(name: str, feeder: Feeder, load_scale: float) -> _Part:
    """Compile a feeder and take it out of the engine as data, every load multiplied and at the demand it states.

    Raises:
        FeederError: the feeder does not compile, or has no base voltages.
    """
    engine = Engine()
    try:
        compile_feeder(feeder, engine)
        fold_multipliers(engine, feeder.settings)
        scale_loads(engine, list(engine.handles("Load").values()), load_scale, load_scale)
        kv = read_base_voltages(feeder, engine)
        nodes: dict[str, set[int]] = {}
        for node in engine.node_names():
            bus, _, phase = node.rpartition(".")
            nodes.setdefault(bus, set()).add(int(phase))
        raw = engine.to_json()
        _state_demand(raw.get("Load", []), engine)
        _drop_placeholders(raw.get("Line", []), engine)
        found = (_OPEN.match(line) for line in raw["PostCommands"])
        return _Part(
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


def _drop_placeholders(lines: Iterable[Data], engine: Engine) -> None:
    """Leave out ratings that no model gave: the engine writes those that a line took from its code as if one had."""
    handles, ratings = engine.handles("Line"), Ratings(engine)
    for line in lines:
        handle = handles.get(line["Name"].lower())
        rated = handle is None or ratings.read("Line", handle)
        for key in ("EmergAmps", "NormAmps", "Ratings"):  # of a line that is rated they come last, as none copies them
            if (value := line.pop(key, None)) is not None and rated:
                line[key] = value


def _is_class(key: str, value: Any) -> bool:
    return isinstance(value, list) and key not in ("PreCommands", "PostCommands")


def _key_of(class_name: str, element: Data) -> tuple[str, str]:
    """Return the class and the name of an element in lower case: files name both in any."""
    return class_name.lower(), element["Name"].lower()


def _names_of(data: Mapping[str, list[Data]]) -> dict[tuple[str, str], str]:
    """Return everything in a circuit's data by its key, as ``Class.name``."""
    return {_key_of(c, o): f"{c}.{o['Name'].lower()}" for c, objects in data.items() for o in objects}


# -- taking out


def _bus_name(written: str) -> str:
    """Return the bus of ``bus.node.node``, lower case."""
    return written.partition(".")[0].lower()


def _buses_of(class_name: str, element: Data) -> list[str]:
    """Return the buses that an element is connected to."""
    found: list[str] = []
    for key, value in element.items():
        if property_type(class_name, key)[0] in _BUS_TYPES:
            found += [_bus_name(bus) for bus in (value if isinstance(value, list) else [value]) if bus]
    return found


def _cut_off_source(part: _Part, entry: str) -> set[tuple[str, str]]:
    """Return the keys of the sources and of what lies between them and the entry."""
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
        _key_of(class_name, element)
        for class_name, objects in part.data.items()
        for element in objects
        if class_name in _SOURCES
        or (class_name == "Bus" and element["Name"].lower() in upstream)
        or not upstream.isdisjoint(_buses_of(class_name, element))
    }


def _remove(part: _Part, cut: set[tuple[str, str]]) -> None:
    """Take elements out of a part, then the controls that name one of them, then what names one of these."""
    while cut:
        for class_name, objects in part.data.items():
            objects[:] = [o for o in objects if _key_of(class_name, o) not in cut]
        part.opened[:] = [place for place in part.opened if (place[0].lower(), place[1].lower()) not in cut]
        cut = {
            _key_of(class_name, o)
            for class_name, objects in part.data.items()
            for o in objects
            if not cut.isdisjoint(_references(class_name, o))
        }


def _references(class_name: str, element: Data) -> Iterator[tuple[str, str]]:
    """Return the elements that an element names, as (class, name) in lower case, one for each class it may be of."""
    for key, value in element.items():
        if property_type(class_name, key)[0] in _REFERENCE_TYPES:
            for written in value if isinstance(value, list) else [value]:
                yield from _read_reference(class_name, key, str(written).lower())


def _read_reference(class_name: str, key: str, written: str) -> Iterator[tuple[str, str]]:
    """Return what a name in a property may mean, as (class, name): names hold dots, and may have the class before."""
    classes = _TEXT_ELEMENTS.get((class_name.lower(), key.lower()))
    classes = classes or tuple(re.findall(r"\w+", property_type(class_name, key)[1]))
    yield from ((each.lower(), written) for each in classes)
    owner, dot, name = written.partition(".")
    several = any(each.endswith(_OF_ANY_CLASS) for each in classes) or owner in _CONDUCTORS
    if dot and (several or owner in [each.lower() for each in classes]):
        yield owner, name


def _spell_out_lists(data: dict[str, list[Data]]) -> None:
    """Let controls that mean all elements of a class name them, so that they stay those of their own feeder."""
    for class_name, (key, classes) in _MEANS_ALL.items():
        every = [f"{c}.{o['Name']}" if len(classes) > 1 else o["Name"] for c in classes for o in data.get(c, ())]
        for control in data.get(class_name, ()):
            if not any(control.get(name) for name in (key, "PVSystemList")) and every:
                control[key] = list(every)


# -- renaming


def _rename(part: _Part, prefix: str) -> tuple[dict[str, list[Data]], list[tuple[str, str, str]]]:
    """Put a prefix before every bus and element of a part, wherever they are named."""
    own = _names_of(part.data).keys()
    data = {
        class_name: [
            {key: prefix + value if key == "Name" else _renamed(class_name, key, value, prefix, own)
             for key, value in o.items()}
            for o in objects
        ]
        for class_name, objects in part.data.items()
    }  # fmt: skip
    return data, [(class_name, prefix + name, places) for class_name, name, places in part.opened]


def _renamed(class_name: str, key: str, value: Any, prefix: str, own: Collection[tuple[str, str]]) -> Any:
    if isinstance(value, list):
        return [_renamed(class_name, key, each, prefix, own) for each in value]
    if not isinstance(value, str) or not value:
        return value
    place = (class_name.lower(), key.lower())
    kind = property_type(class_name, key)[0]
    if kind in _BUS_TYPES or place in _TEXT_BUSES or place == ("transformer", "bank"):
        return prefix + value
    if kind in _REFERENCE_TYPES or place in _TEXT_ELEMENTS:
        meant = next((each for each in _read_reference(class_name, key, value.lower()) if each in own), None)
        if meant is not None:  # else one of the engine's own
            before = len(value) - len(meant[1])
            return f"{value[:before]}{prefix}{value[before:]}"
    return value
