"""What the engine makes of a feeder's commands, and what its elements say: refusals, ratings, voltages, numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from powergrid.check.files import Definitions, defined_name, is_continuation, shorten
from powergrid.check.report import Recorder
from powergrid.errors import EngineError
from powergrid.grid.engine import Engine, FloatArray, Handle, classify_refusal
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import IntArray
from powergrid.grid.feeder.windings import find_tap_changers

#: What the engine holds for a rating that the feeder does not give [A], [kVA].
_PLACEHOLDER_AMPS = 400.0
_PLACEHOLDER_KVA = 1000.0
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
_SQRT3 = math.sqrt(3.0)

Handles = Mapping[str, Mapping[str, Handle]]


@dataclass
class Model:
    """A feeder as far as it was compiled.

    Attributes:
        handles: Enabled elements: class as the engine writes it to lower-case name to handle.
        unrated: ``class.name`` of branches whose rating is the engine's placeholder.
        refused: ``class.name`` of elements that the engine refused.
        broken: Whether elements are missing in it, so that what it solves to says nothing.
    """

    feeder: Feeder
    engine: Engine
    definitions: Definitions
    recorder: Recorder
    broken: bool = False
    handles: dict[str, dict[str, Handle]] = field(default_factory=dict)
    unrated: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def find(self, code: str, message: str, element: str = "", *, severity: str = "", remedy: str = "") -> None:
        """Take down a finding where an element is defined, or at the master file; nothing more on what is refused."""
        if element.lower() in self.refused:
            return
        file, line = self.definitions.place(element)
        self.recorder.find(code, message, file or self.feeder.master, line, severity=severity, remedy=remedy)


def compile_all(model: Model) -> None:
    """Run every command and take down every refusal; what is refused is skipped with its continuation lines."""
    engine, refused, folder = model.engine, False, None
    engine.clear()
    for command in model.feeder.commands:
        # OpenDSS would put the continuation of a refused element to the element before.
        if refused and is_continuation(command):
            continue
        refused = False
        model.recorder.at(str(command.file), command.line, shorten(command.text))
        try:
            if command.file.parent != folder:
                folder = command.file.parent
                engine.set_folder(folder)
            engine.command(command.text)
        except EngineError as error:
            refused = model.broken = True
            code, message, element = _read_error(error, model.definitions)
            own = defined_name(command)
            place = model.definitions.place(element) if element and own is None else ("", 0)
            if code != "duplicate-name":
                model.refused.add(own or element)
            else:
                first = model.definitions.first.get(own or "")
                message += f"; it is defined at {first.where}" if first else ""
            file, line = place if place[0] else (str(command.file), command.line)
            shown = message if place[0] else f"{shorten(command.text)!r}: {message}"
            model.recorder.find(code, shown, file, line)
    engine.leave_folder()
    for name, command in model.definitions.again:  # refused above unless the feeder allows it
        said = {(finding.file, finding.line) for finding in model.recorder.report.findings}
        if (str(command.file), command.line) not in said:
            model.recorder.find(
                "duplicate-name", f"{name!r} is defined at {model.definitions.first[name].where} already",
                command.file, command.line, severity="warning",
            )  # fmt: skip


def _read_error(error: EngineError, definitions: Definitions) -> tuple[str, str, str]:
    """Return the kind of an engine's refusal, its text on one line, and the element that it names."""
    named = (f"{a or c}.{b or d}".lower() for a, b, c, d in _REFERENCE.findall(error.brief))
    element = next((name for name in named if name in definitions.first), "")
    return classify_refusal(error), f"{error.brief} (OpenDSS error {error.number})", element


def survey(model: Model) -> None:
    """Count the elements and take down what each says by itself."""
    engine = model.engine
    model.handles = {name: engine.handles(name) for name in engine.element_classes()}
    handles = {name: own for name, own in model.handles.items() if own}
    controllable = {name: list(handles[name]) for name in _CONTROLLABLE if name in handles}
    switches = [name for name, h in handles.get("Line", {}).items() if engine.get_int(h, "Line", "Switch")]
    if switches:
        controllable["Line (switch)"] = switches
    tapped = [each.regulator.transformer for each in find_tap_changers(engine, model.handles) if not each.note]
    if tapped:
        controllable["Transformer (taps)"] = tapped
    model.recorder.state(
        elements={name: len(own) for name, own in handles.items()}, controllable=controllable,
        name=model.feeder.name,
    )  # fmt: skip
    if not controllable:
        model.find("not-controllable", "no regulator, capacitor, storage, PV, generator or switch")
    # Handles are of enabled elements only.
    enabled = {f"{name}.{own}".lower() for name, all_own in handles.items() for own in all_own}
    classes = {name.lower() for name in model.handles}
    for name in model.definitions.first:
        if name.partition(".")[0] in classes and name not in enabled and not model.broken:
            model.find("disabled", f"{name} is disabled", name)
    _check_numbers(model)
    _check_ratings(model)
    _check_load_shapes(model)


def _check_numbers(model: Model) -> None:
    """Take down numbers that are not finite, and elements for no voltage."""
    for class_name, names in _NUMBERS.items():
        for name, handle in model.handles[class_name].items():
            for each in names:
                value = model.engine.get_float(handle, class_name, each)
                if not math.isfinite(value):
                    element = f"{class_name}.{name}".lower()
                    model.find("not-finite", f"{element} has {each} = {value}", element)
    for class_name in _KV_CLASSES:
        for name, handle in model.handles[class_name].items():
            kv = model.engine.get_float(handle, class_name, "kV")
            if not kv > 0.0:  # so written, NaN is caught as well
                element = f"{class_name}.{name}".lower()
                model.find("zero-kv", f"{element} has kV = {kv:g}", element)
    for class_name in _POWER_CLASSES:
        for name in model.handles[class_name]:
            element = f"{class_name}.{name}".lower()
            if model.definitions.place(element)[1] and not model.definitions.says(element, r"bus\w*", "like"):
                model.find("no-bus", f"{element} has no bus", element)


def check_admittances(model: Model) -> None:
    """Take down elements whose impedances are not finite; the admittance matrix must have been built."""
    for class_name in ("Line", "Transformer", "AutoTrans", "Reactor", "Capacitor"):
        for name, handle in model.handles[class_name].items():
            if not np.isfinite(model.engine.yprim(handle)).all():
                element = f"{class_name}.{name}".lower()
                model.find("not-finite", f"{element} has an admittance that is not finite", element)


def _check_ratings(model: Model) -> None:
    """Take down branches whose rating is what the engine assumes where a feeder says nothing."""
    definitions, engine = model.definitions, model.engine
    for name, handle in model.handles["Line"].items():
        element = f"line.{name}"
        sources = [element]
        for key in ("LineCode", "Geometry"):
            used = engine.get_text(handle, "Line", key).lower()
            if used:
                sources.append(f"{'linecode' if key == 'LineCode' else 'linegeometry'}.{used}")
        amps = engine.get_float(handle, "Line", "NormAmps")
        if amps == _PLACEHOLDER_AMPS and not any(
            definitions.says(each, r"norma\w*", "like", r"wire\w*") for each in sources
        ):
            model.unrated.add(element)
            model.find("no-rating", f"line.{name} has the placeholder of 400 A", element)
        elif not amps > 0.0:
            model.unrated.add(element)
            model.find("no-rating", f"line.{name} has NormAmps = {amps:g}", element)
    for name, handle in model.handles["Transformer"].items():
        element = f"transformer.{name}"
        if engine.get_floats(handle, "Transformer", "kVAs")[0] == _PLACEHOLDER_KVA and not definitions.says(
            element, r"kva\w*", "like", r"xf\w*"
        ):
            model.unrated.add(element)
            model.find("no-rating", f"{element} has the placeholder of 1000 kVA", element)
        if definitions.place(element)[1] and not definitions.says(element, "kvs?", "like", r"xf\w*"):
            model.find("base-kv", f"{element} has no kV; OpenDSS takes 12.47 kV for all its windings", element)


def _check_load_shapes(model: Model) -> None:
    loads = model.handles["Load"]
    if not loads:
        return
    shaped = sum(
        any(model.engine.get_text(handle, "Load", each) for each in ("Yearly", "Daily")) for handle in loads.values()
    )
    if shaped < len(loads):
        model.find("no-load-shape", f"{len(loads) - shaped} of {len(loads)} loads follow no LoadShape")


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

    def nominal(handle: Handle, terminal: int, phases: int) -> tuple[float, str]:
        n_conductors = engine.terminals(handle)[1]
        nodes = engine.node_ref(handle)[terminal * n_conductors : (terminal + 1) * n_conductors]
        live = nodes[nodes > 0]
        if not len(live):
            return math.nan, ""
        bus = node_bus[int(live[0]) - 1]
        # OpenDSS's kV is line to line for two and three phases, across its two nodes for one.
        if phases > 1:
            return _SQRT3 * base_kv.get(bus, math.nan), bus
        other = phasors[nodes[1]] if len(nodes) > 1 else 0.0
        return abs(phasors[nodes[0]] - other), bus

    def compare(code: str, element: str, what: str, kv: float, expected: float, bus: str) -> None:
        if kv > 0.0 and expected > 0.0 and abs(kv / expected - 1.0) > _KV_TOLERANCE:
            model.find(code, f"{element} has {what} {kv:g} at bus {bus!r}, where it is {expected:.4g}", element)

    for class_name in _KV_CLASSES:
        for name, handle in model.handles[class_name].items():
            if class_name == "Capacitor" and engine.node_ref(handle)[engine.phases(handle) :].any():
                continue  # in series, or between phases
            expected, bus = nominal(handle, 0, engine.phases(handle))
            compare("base-kv", f"{class_name.lower()}.{name}", "kV", engine.get_float(handle, class_name, "kV"),
                    expected, bus)  # fmt: skip
    for name, handle in model.handles["Transformer"].items():
        for winding, kv in enumerate(engine.get_floats(handle, "Transformer", "kVs")):
            expected, bus = nominal(handle, winding, engine.phases(handle))
            compare("base-kv", f"transformer.{name}", f"winding {winding + 1} kV", kv, expected, bus)
