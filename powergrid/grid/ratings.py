"""What the feeder's own elements say of their ratings, for devices that are bound to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from powergrid.errors import Problem, describe_unknown
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.devices.spec import DeviceSpec
from powergrid.grid.engine import Engine, Handle

_SWITCHGEAR = ("capacitor", "regulator", "switch")

Reader = Callable[[Engine, Handle], float]


def _number(class_name: str, key: str) -> Reader:
    return lambda engine, handle: engine.get_float(handle, class_name, key)


#: Key of a spec: how an element of a class answers it.
_RATINGS: dict[str, dict[str, Reader]] = {
    "storage": {
        "e_max_kwh": _number("Storage", "kWhRated"),
        "p_max_kw": _number("Storage", "kWRated"),
        "s_max_kva": _number("Storage", "kVA"),
    },
    "pvsystem": {"p_max_kw": _number("PVSystem", "Pmpp"), "s_max_kva": _number("PVSystem", "kVA")},
    "generator": {"p_max_kw": _number("Generator", "kW"), "s_max_kva": _number("Generator", "kVA")},
    "load": {"p_max_kw": _number("Load", "kW")},
}


def fill_ratings(name: str, spec: Any, circuit: Circuit) -> tuple[Any, list[str]]:
    """Complete a bound device's spec with what its element says; keys the user gave stay.

    Returns:
        The completed spec, and the problems: an element that the feeder lacks.
    """
    if not getattr(spec, "element", None):
        return spec, []
    class_name, _, element = spec.element.lower().partition(".")
    if spec.kind in _SWITCHGEAR:
        return _fill_switchgear(name, spec, class_name, element, circuit)
    found = circuit.network.find_element(spec.element.lower(), f"device {name!r}")
    if isinstance(found, Problem):
        return spec, [str(found)]
    handles = circuit.engine.handles(class_name)
    readers = _RATINGS.get(class_name, {})
    update = {
        key: value
        for key, read in readers.items()
        if _open(spec, key) and (value := read(circuit.engine, handles[element])) > 0.0
    }
    return spec.model_copy(update=update), []


def find_switchgear(spec: Any, circuit: Circuit) -> int:
    """Return the place of a capacitor, regulator or switch in the circuit's own arrays, -1 where it has none."""
    if spec.kind == "regulator":
        return circuit.switchgear.find_regulator(spec.element.lower(), spec.winding or 0)
    class_name, _, element = spec.element.lower().partition(".")
    names = _switchgear_names(class_name, circuit)
    return names.index(element) if element in names else -1


def find_shared_switchgear(devices: Mapping[str, Any], circuit: Circuit) -> list[str]:
    """List the devices whose capacitor, regulator or switch is another device's already."""
    problems, owner = [], dict[tuple[str, int], str]()
    for name, spec in devices.items():
        if spec.kind in _SWITCHGEAR and (place := find_switchgear(spec, circuit)) >= 0:
            first = owner.setdefault((spec.kind, place), name)
            if first != name:
                problems.append(f"device {name!r}: {spec.element} already belongs to device {first!r}")
    return problems


def _switchgear_names(class_name: str, circuit: Circuit) -> tuple[str, ...]:
    network = circuit.network
    return {
        "capacitor": network.capacitors,
        "transformer": network.elements["Transformer"],
        "autotrans": network.elements["AutoTrans"],
        "regcontrol": network.regulator_controls,
        "line": network.switches,
    }[class_name]


def _fill_switchgear(name: str, spec: Any, class_name: str, element: str, circuit: Circuit) -> tuple[Any, list[str]]:
    index = find_switchgear(spec, circuit)
    if index < 0 and spec.kind == "regulator" and element in _switchgear_names(class_name, circuit):
        problem = circuit.switchgear.find_winding_problem(spec.element, spec.winding)
        return spec, [f"device {name!r}: {spec.element}: {problem}"]
    if index < 0:
        return spec, [
            f"device {name!r}: {describe_unknown(class_name, element, _switchgear_names(class_name, circuit))}"
        ]
    update: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    if spec.kind == "capacitor":
        update = {"steps": int(circuit.switchgear.steps_max[index]), "steps_initial": int(circuit.steps_on[index])}
        limits = {"steps": int(circuit.switchgear.steps_max[index])}
    elif spec.kind == "regulator":
        limits = {"tap_min": int(circuit.switchgear.tap_min[index]), "tap_max": int(circuit.switchgear.tap_max[index])}
        update = {"tap_initial": int(circuit.taps[index])} | limits
    else:
        update = {"closed_initial": bool(circuit.closed[index])}
    update = {key: value for key, value in update.items() if _open(spec, key)}
    if spec.control == "opendss":  # the feeder's control knows no limits but the element's
        update |= limits
    elif beyond := _find_beyond(spec, limits):
        return spec, [f"device {name!r}: {problem} of {spec.element}" for problem in beyond]
    filled = spec.model_copy(update=update)
    if spec.kind == "regulator" and spec.tap_initial is not None:
        low, high = filled.range
        if not low <= spec.tap_initial <= high:
            given = f"tap_initial {spec.tap_initial} is outside tap_min..tap_max = {low}..{high} of {spec.element}"
            return filled, [f"device {name!r}: {given}"]
    return filled, []


def _find_beyond(spec: Any, limits: Mapping[str, Any]) -> list[str]:
    """Return the limits of a spec that its element cannot reach: moves there would be counted and never made."""
    if spec.kind == "capacitor" and spec.steps is not None and spec.steps > limits["steps"]:
        return [f"steps {spec.steps} are more than the {limits['steps']}"]
    low, high = limits.get("tap_min", 0), limits.get("tap_max", 0)
    given = {key: getattr(spec, key) for key in ("tap_min", "tap_max") if key in limits}
    return [
        f"{key} {tap} is outside {low}..{high}"
        for key, tap in given.items()
        if tap is not None and not low <= tap <= high
    ]


def _open(spec: DeviceSpec, key: str) -> bool:
    """Whether a spec has a key and leaves it to the element."""
    return key in type(spec).model_fields and getattr(spec, key) is None
