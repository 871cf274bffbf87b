"""What OpenDSS saves of a circuit in a way that it cannot read back (DSS C-API 0.14.5), put right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from powergrid.grid.engine.bulk import Handle
from powergrid.grid.engine.elements import Elements

#: Of which of these a capacitor is made, the one that is written last says.
_OF_CAPACITORS = ("kvar", "Cuf", "CMatrix")
_BUS = re.compile(r" VBus=\S+", re.IGNORECASE)
#: What the engine writes of a number that is not finite, which is no JSON; texts are passed over.
_NO_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|[+-]?(?:nan|inf)\b', re.IGNORECASE)
#: Matrices that are saved, as text and as data, from memory that nobody filled.
_MATRICES = {"Reactor": ("RMatrix", "XMatrix"), "Capacitor": ("CMatrix",), "Fault": ("GMatrix",)}


def complete_saved(elements: Elements, text: str) -> str:
    """Return a saved circuit that reads back as the circuit that it was.

    Some matrices are saved from memory that nobody filled. ``NumSteps`` of a capacitor, where it comes after kvar,
    divides what was saved divided already. To a control of capacitors no bus is known by name as yet. A sensor ends the
    process that reads and solves it.

    Args:
        elements: The circuit.
        text: What the engine saved of it.
    """
    lines, late = list[str](), list[str]()
    for line in text.splitlines():
        if line.startswith('New "CapControl.') and (bus := _BUS.search(line)):
            late.append(f'Edit "{line.split(chr(34))[1]}"{bus[0]}')
            line = _BUS.sub("", line)
        if not line.startswith('New "Sensor.'):
            lines.append(line)
    return "\n".join([*lines, *_say_again(elements), *(["MakeBusList", *late] if late else [])]) + "\n"


def read_data(elements: Elements, text: str) -> dict[str, Any]:
    """Return a circuit that the engine wrote as data, with the matrices that elements have.

    Args:
        elements: The circuit.
        text: What the engine wrote of it.

    Raises:
        ValueError: A number is not finite.
    """
    try:
        circuit, finite = dict(json.loads(text)), True
    except ValueError:
        # memory that nobody filled may hold anything; what stands there for good is found once it is replaced
        circuit = dict(json.loads(_NO_NUMBER.sub(lambda found: found[0] if found[0][0] == '"' else "NaN", text)))
        finite = False
    for class_name, keys in _MATRICES.items():
        handles = elements.handles(class_name)
        for element in circuit.get(class_name, ()):
            for key in element.keys() & keys:
                element[key] = _rows(elements, handles[element["Name"].lower()], class_name, key)
    if not finite:
        json.dumps(circuit, allow_nan=False)
    return circuit


def _say_again(elements: Elements) -> Iterator[str]:
    for class_name in ("Reactor", "Fault"):
        keys = _MATRICES[class_name]
        for name, handle in elements.handles(class_name).items():
            if elements.is_written(handle, class_name, keys):
                said = " ".join(f"{key}={_array(elements, handle, class_name, key)}" for key in keys)
                yield f'Edit "{class_name}.{name}" {said}'
    for name, handle in elements.handles("Capacitor").items():
        last = max(_OF_CAPACITORS, key=lambda key: elements.written_at(handle, "Capacitor", key))
        stepped = elements.get_int(handle, "Capacitor", "NumSteps") > 1
        if elements.written_at(handle, "Capacitor", last) and (stepped or last == "CMatrix"):
            yield f'Edit "Capacitor.{name}" {last}={_array(elements, handle, "Capacitor", last)}'


def _array(elements: Elements, handle: Handle, class_name: str, key: str) -> str:
    """Return an array, or a square matrix row by row, as a command takes it."""
    rows = _rows(elements, handle, class_name, key)
    return f"[{' | '.join(' '.join(map(repr, row)) for row in rows)}]"


def _rows(elements: Elements, handle: Handle, class_name: str, key: str) -> list[list[float]]:
    """Return a square matrix row by row; an array is one row."""
    values = elements.get_floats(handle, class_name, key).tolist()
    n = elements.phases(handle) if key.endswith("Matrix") else len(values)
    return [values[i : i + n] for i in range(0, len(values), n)]
