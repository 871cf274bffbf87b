"""What the commands of a feeder say by themselves, what the engine makes of them, and what its elements are then."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from powergrid.check.report import Recorder
from powergrid.errors import EngineError, FeederError, list_names, nearest_names, shorten
from powergrid.grid.engine import Engine, FloatArray, Handle, classify_refusal
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import IntArray
from powergrid.grid.feeder.preparation import (
    RECORDERS,
    about_recorders,
    complete_circuit,
    find_user_models,
    say_user_model,
    takes_admittances,
)
from powergrid.grid.feeder.ratings import PLACEHOLDERS, Ratings
from powergrid.grid.feeder.reading.defined import Defined
from powergrid.grid.feeder.reading.statements import cut
from powergrid.grid.feeder.reading.syntax import DESCRIBING, VERBS, Command, describe_unknown_command
from powergrid.grid.feeder.timing import read_shapes
from powergrid.grid.feeder.windings import find_tap_changers

_MACHINE_VERBS = ("doscmd", "fileedit", "formedit", "cd", "quit", "save", "dump", "newactor", "connect", "disconnect")
_CONTINUATION = "~"
#: What a circuit begins with.
_SOURCE = "vsource.source"
_SHOWN_NAMES = 4
_POWER_CLASSES = ("Load", "Generator", "PVSystem", "Storage")
_KV_CLASSES = (*_POWER_CLASSES, "Capacitor")
_NUMBERS = {
    "Load": ("kW", "kvar"),
    "Generator": ("kW", "kvar"),
    "PVSystem": ("Pmpp", "kVA"),
    "Storage": ("kWRated", "kWhRated"),
    "Line": ("Length",),
}
_CONTROLLABLE = ("RegControl", "Capacitor", "CapControl", "Storage", "PVSystem", "Generator", "SwtControl")
_REFERENCE = re.compile(r"""\b(\w+)\s?["']([^"'\s]+)["']|\b(\w+)\.([^"':\s]+)""")
_KV_TOLERANCE = 0.1


class Definitions:
    """Where the elements of a feeder are defined.

    Attributes:
        first: ``class.name``, lower case, to the command that defines it first.
        again: Commands that define a name which is taken, with the name.
    """

    def __init__(self, commands: Iterable[Command]) -> None:
        self.first: dict[str, Command] = {}
        self.again: list[tuple[str, Command]] = []
        self._texts: dict[str, list[str]] = {}
        active = ""
        for command in commands:
            if (name := _defined_name(command)) is not None:
                active = name
                if self.first.setdefault(name, command) is not command:
                    self.again.append((name, command))
            elif command.verb == "edit" and (edited := _name_in(command)) is not None:
                active = edited
            elif command.verb != _CONTINUATION:
                continue
            self._texts.setdefault(active, []).append(command.text.lower())

    @property
    def one_circuit(self) -> bool:
        """Whether the files define one circuit, and one only."""
        return _SOURCE in self.first and all(name != _SOURCE for name, _ in self.again)

    def place(self, element: str) -> str:
        """Return ``file:line`` of ``class.name``, empty where the files do not define it."""
        command = self.first.get(element.lower())
        return command.where if command else ""

    def says(self, element: str, *properties: str) -> bool:
        """Whether the commands of an element set a property; the names are regular expressions."""
        text = " ".join(self._texts.get(element.lower(), ()))
        return any(re.search(rf"(?<![\w%])(?:{each})\s*=", text) for each in properties)


def _defined_name(command: Command) -> str | None:
    """Return the ``class.name`` that a command defines, lower case; the source for a circuit."""
    named = _name_in(command) if command.verb == "new" else None
    return _SOURCE if named is not None and named.startswith("circuit.") else named


def _name_in(command: Command) -> str | None:
    """Return the ``class.name`` that follows the verb, lower case, whatever quotes it is in."""
    parts = cut(command.text)[1:2]
    owner, dot, name = parts[0].value.strip().lower().partition(".") if parts else ("", "", "")
    return f"{owner}.{name}" if dot and owner.isidentifier() and name else None


def check_files(feeder: Feeder, recorder: Recorder) -> Definitions:
    """Take down what is wrong with the commands before any is run, and return what they define."""
    definitions = Definitions(feeder.commands)
    _find_misplaced(feeder, recorder)
    for command in itertools.compress(feeder.commands, about_recorders(feeder.commands)):
        recorder.find("left-out", f"{shorten(command.text)!r} is not run: nobody reads it", command.where)
    for note in feeder.notes:
        recorder.find(note.code, note.text, note.where, remedy=note.remedy)
    built_in = Defined()
    # OpenDSS ignores edits of what does not exist without a word: the circuit is then another than the file says.
    for command in feeder.commands:
        name = _name_in(command) if command.verb == "edit" else None
        owner, _, own = (name or "").partition(".")
        if name is None or name in definitions.first or built_in.has(owner, own):
            continue
        near = nearest_names(name, (each for each in definitions.first if each.startswith(f"{owner}.")))
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        message = f"{shorten(command.text)!r} edits an element that is not defined{hint}"
        recorder.find("unknown-name", message, command.where)
    for name, command in definitions.again:
        if name == _SOURCE:
            text = f"{shorten(command.text)!r} begins a second circuit; the first begins at {definitions.place(name)}"
            recorder.find("duplicate-name", text, command.where, remedy="a master file holds one circuit")
    return definitions


def _find_misplaced(feeder: Feeder, recorder: Recorder) -> None:
    """Take down what the files say beside describing a circuit, and what became of it."""
    dropped = 0
    kept: dict[str, set[str]] = {}
    for command in feeder.commands:
        kept.setdefault(command.where, set()).add(command.text)
    binary: set[Path] = set()
    no_circuit = recorder.report.of_code("no-circuit")  # then it is another kind of file
    for command in feeder.left_out:
        beside = kept.get(command.where, set())  # what else of the line is run
        verb, text, where = command.verb, shorten(command.text), command.where
        if verb in ("clear", "clearall"):
            if dropped:
                recorder.find("dropped-circuit", f"{dropped} commands before {text!r} are dropped", where)
            dropped = 0
        elif beside and command.text not in beside and verb != "set":
            recorder.find("writing-property", f"{text!r} would write a file", where)
        elif verb not in VERBS and not command.assigns:
            if "\0" in command.text and command.file not in binary:
                binary.add(command.file)
                recorder.find("unreadable-file", "holds binary data", where)
            elif command.file not in binary and not no_circuit:
                recorder.find("unknown-command", describe_unknown_command(command), where)
        elif (verb in DESCRIBING or command.assigns) and verb != "set" and verb not in _MACHINE_VERBS:
            dropped += 1
        else:
            code = "shell-command" if verb in _MACHINE_VERBS else "left-out"
            recorder.find(code, f"{text!r} is not run", where)


@dataclass
class Model:
    """A feeder as far as it was compiled.

    Attributes:
        handles: Enabled elements: class as the engine writes it to lower-case name to handle.
        refused: ``class.name`` of elements that the engine refused.
        hopeless: Whether it cannot be solved, which may crash the engine.
        broken: Whether elements are missing in it, so that what it solves to says nothing.
    """

    feeder: Feeder
    engine: Engine
    definitions: Definitions
    recorder: Recorder
    broken: bool = False
    hopeless: bool = False
    handles: dict[str, dict[str, Handle]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def each(self, *classes: str) -> Iterator[tuple[str, str, Handle]]:
        """Yield class, ``class.name`` in lower case and handle of the enabled elements of some classes."""
        for class_name in classes:
            for name, handle in self.handles[class_name].items():
                yield class_name, f"{class_name}.{name}".lower(), handle

    def find(self, code: str, message: str, element: str = "", *, remedy: str = "") -> None:
        """Take down a finding where an element is defined, or at the master file; nothing more on what is refused."""
        if element.lower() not in self.refused:
            self.recorder.find(code, message, self.definitions.place(element) or self.feeder.master, remedy=remedy)


def compile_all(model: Model) -> None:
    """Run every command and take down every refusal; what is refused is skipped with its continuation lines."""
    engine, refused, folder = model.engine, "", None
    definitions, recorder = model.definitions, model.recorder
    engine.clear()
    run = [not about for about in about_recorders(model.feeder.commands)]
    for command in itertools.compress(model.feeder.commands, run):
        # What goes on about a refused element would be refused too, or be of another one.
        name = _name_in(command) if refused and command.verb == "edit" else None
        if refused and (command.verb == _CONTINUATION or name == refused):
            continue
        refused = ""
        recorder.at(shorten(command.text), command.where)
        try:
            if command.file.parent != folder:
                folder = command.file.parent
                engine.set_folder(folder)
            engine.command(command.text)
        except EngineError as error:
            model.broken = True
            refused = _name_in(command) or ""
            _take_refusal(model, command, error)
    engine.leave_folder()
    if not model.broken:
        try:
            for note in complete_circuit(model.feeder, engine):
                model.find("completed", note)
        except FeederError as error:
            model.broken = model.hopeless = True
            recorder.find_all(error.details, error.where)
    said = {finding.where for finding in recorder.report.findings}
    twice = model.feeder.settings.get("allowduplicates", "").lower()[:1] in ("y", "t")
    remedy = "none needed: AllowDuplicates keeps both; only the first is found by its name" if twice else ""
    for name, command in definitions.again:  # refused above unless the feeder allows it
        if command.where not in said and not _records(name):
            message = f"{name!r} is defined at {definitions.place(name)} already"
            recorder.find("duplicate-name", message, command.where, severity="warning", remedy=remedy)


def _records(element: str) -> bool:
    """Whether ``class.name``, lower case, is a meter or monitor: those are left out."""
    return element.partition(".")[0] in map(str.lower, RECORDERS)


def _take_refusal(model: Model, command: Command, error: EngineError) -> None:
    """Take down what the engine refused: the command, or the element elsewhere that it stumbled over."""
    definitions, own, code = model.definitions, _defined_name(command), classify_refusal(error)
    named = (f"{a or c}.{b or d}".lower() for a, b, c, d in _REFERENCE.findall(error.brief))
    element = next((name for name in named if name in definitions.first), "")
    message = f"{error.brief} (OpenDSS error {error.number})"
    if code != "duplicate-name":
        model.refused.add(own or element)
    elif own and own in definitions.first:
        message += f"; it is defined at {definitions.place(own)}"
    elsewhere = definitions.place(element) if own is None else ""
    shown = message if elsewhere else f"{shorten(command.text)!r}: {message}"
    model.recorder.find(code, shown, elsewhere or command.where)


def check_elements(model: Model) -> None:
    """Count the elements and take down what each says by itself."""
    engine = model.engine
    model.handles = {name: engine.handles(name) for name in engine.element_classes()}
    handles = {name: own for name, own in model.handles.items() if own}
    controllable = {name: list(handles[name]) for name in _CONTROLLABLE if name in handles}
    switches = [name for name, h in handles.get("Line", {}).items() if engine.get_int(h, "Line", "Switch")]
    tapped = [each.regulator.transformer for each in find_tap_changers(engine, model.handles) if not each.note]
    controllable |= {"Line (switch)": switches} if switches else {}
    controllable |= {"Transformer (taps)": tapped} if tapped else {}
    counts = {name: len(own) for name, own in handles.items()}
    model.recorder.state(elements=counts, controllable=controllable, name=model.feeder.name)
    if not controllable:
        model.find("not-controllable", "no regulator, capacitor, storage, PV, generator or switch")
    # Handles are of enabled elements only.
    enabled = {element for _, element, _ in model.each(*handles)}
    classes = {name.lower() for name in model.handles}
    for name in model.definitions.first:
        if name.partition(".")[0] in classes and name not in enabled and not (model.broken or _records(name)):
            model.find("disabled", f"{name} is disabled", name)
    _check_numbers(model)
    _check_ratings(model)
    others = [
        e for c, e, handle in model.each("Storage", "PVSystem", "Generator") if engine.get_int(handle, c, "Model") > 1
    ]
    if others:
        text = f"{list_names(others, _SHOWN_NAMES)}: of another Model than 1"
        model.find("played-otherwise", f"{text}; as devices they deliver the power asked for", others[0])
    if takes_admittances(engine):
        text = "LoadModel=Admittance: loads, generators, storage and panels are constant impedances (model 2)"
        model.find("played-otherwise", f"{text}; devices deliver the power asked for")
    loads = [handle for _, _, handle in model.each("Load")]
    bare = sum(not any(engine.get_text(load, "Load", each) for each in ("Yearly", "Daily")) for load in loads)
    if bare:
        model.find("no-load-shape", f"{bare} of {len(loads)} loads follow no LoadShape")
    shapes, _ = read_shapes(engine, model.handles)
    for problem in shapes.find_problems(np.arange(len(shapes))):
        model.find("load-shape", f"{problem}: demand is that of the profiles")
    for name, text in shapes.find_drifting():
        remedy = "have it end with a day: hour 24 behind 0 to 23, or as many points as fill one"
        model.find("load-shape", text, f"loadshape.{name}", remedy=remedy)
    for shape in np.flatnonzero((shapes.counts == 0) & (shapes.npts == 0)).tolist():
        name = shapes.names[shape]
        model.find(
            "load-shape",
            f"LoadShape {name!r} has no points (no npts before mult): it is 1 throughout",
            f"loadshape.{name}",
        )


def _check_numbers(model: Model) -> None:
    """Take down numbers that are not finite, and elements for no voltage."""
    for class_name, element, handle in model.each(*_NUMBERS):
        for name in _NUMBERS[class_name]:
            value = model.engine.get_float(handle, class_name, name)
            if not math.isfinite(value):
                model.find("not-finite", f"{element} has {name} = {value}", element)
    for class_name, element, handle in model.each(*_KV_CLASSES):
        kv = model.engine.get_float(handle, class_name, "kV")
        if not kv > 0.0:  # so written, NaN is caught as well
            model.find("zero-kv", f"{element} has kV = {kv:g}", element)
    for element in find_user_models(model.engine):
        text, remedy = say_user_model(element)
        model.find("no-user-model", text, element, remedy=remedy)
    for _, element, _ in model.each(*_POWER_CLASSES):
        if model.definitions.place(element) and not model.definitions.says(element, r"bus\w*", "like"):
            model.find("no-bus", f"{element} has no bus", element)


def check_admittances(model: Model) -> None:
    """Take down elements whose impedances are not finite; the admittance matrix must have been built."""
    for _, element, handle in model.each("Line", "Transformer", "AutoTrans", "Reactor", "Capacitor"):
        if not np.isfinite(model.engine.yprim(handle)).all():
            model.find("not-finite", f"{element} has an admittance that is not finite", element)


def _check_ratings(model: Model) -> None:
    """Take down the branches that the model gives no rating, once a class, and transformers without a voltage."""
    for class_name, names in Ratings(model.engine).find_unrated(model.handles):
        elements = [f"{class_name}.{name}".lower() for name in names]
        few = list_names(elements, _SHOWN_NAMES)
        text = f"{len(names)} {class_name}{'s' * (len(names) != 1)} without {PLACEHOLDERS[class_name]}: {few}"
        model.find("no-rating", text, elements[0])
    for _, element, _ in model.each("Transformer"):
        definitions = model.definitions
        if definitions.place(element) and not definitions.says(element, "kvs?", "like", r"xf\w*"):
            model.find("base-kv", f"{element} has no kV; OpenDSS takes 12.47 kV for all its windings", element)


def check_base_kv(
    model: Model,
    node_bus: list[str],
    base_kv: Mapping[str, float],
    angles: FloatArray,
    neutrals: Sequence[int] | IntArray = (),
) -> None:
    """Compare the kV of elements with the base of their bus.

    Args:
        model: The compiled model, its admittance matrix built.
        node_bus: Bus name of each node.
        base_kv: Line-to-neutral base of each bus [kV]; buses without are left out.
        angles: Voltage angle of each node [rad], for elements between two phases.
        neutrals: Nodes that stand at 0 V.
    """
    engine = model.engine
    phasors = np.concatenate([[0.0], [base_kv.get(bus, math.nan) for bus in node_bus] * np.exp(1j * angles)])
    phasors[np.asarray(neutrals, dtype=np.int64) + 1] = 0.0

    def compare(element: str, handle: Handle, terminal: int, what: str, kv: float) -> None:
        n_conductors = engine.terminals(handle)[1]
        nodes = engine.node_ref(handle)[terminal * n_conductors : (terminal + 1) * n_conductors]
        live = nodes[nodes > 0]
        if not len(live):
            return
        bus = node_bus[int(live[0]) - 1]
        # OpenDSS's kV is line to line for two and three phases, across its two nodes for one.
        if engine.phases(handle) > 1:
            expected = math.sqrt(3.0) * base_kv.get(bus, math.nan)
        else:
            expected = abs(phasors[nodes[0]] - (phasors[nodes[1]] if len(nodes) > 1 else 0.0))
        if kv > 0.0 and expected > 0.0 and abs(kv / expected - 1.0) > _KV_TOLERANCE:
            model.find("base-kv", f"{element} has {what} {kv:g} at bus {bus!r}, where it is {expected:.4g}", element)

    for class_name, element, handle in model.each(*_KV_CLASSES):
        if class_name == "Capacitor" and engine.node_ref(handle)[engine.phases(handle) :].any():
            continue  # in series, or between phases
        compare(element, handle, 0, "kV", engine.get_float(handle, class_name, "kV"))
    for _, element, handle in model.each("Transformer"):
        for winding, kv in enumerate(engine.get_floats(handle, "Transformer", "kVs")):
            compare(element, handle, winding, f"winding {winding + 1} kV", kv)
