"""Points of LoadShapes that an earlier compile of the same feeder read: handed over as numbers, not as text once more.

Of a model whose loads follow a year OpenDSS spends half of a compile on reading them, 0.3 us a number. What it is
handed is what it made of them itself, bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from powergrid.grid.engine import Engine
from powergrid.grid.feeder.network.shapes import FloatArray, Shapes
from powergrid.grid.feeder.reading.syntax import Command

_SIZES = re.compile(r"(?: (?:npts|interval|minterval|sinterval|useactual)=[\w.+-]+)*", re.ASCII | re.IGNORECASE)
#: A shape of which nothing is said but its points, their number, distance and unit.
_START = re.compile(rf"(new loadshape\.([\w.%+*^:-]+){_SIZES.pattern}) (p?mult)=([\[(])", _SIZES.flags)
_NUMBER = re.compile(r" npts=(\d+)", re.ASCII | re.IGNORECASE)
_THEN = re.compile(r" (qmult)=([\[(])", re.IGNORECASE)
_CLASS = "LoadShape"
_HEAD = 40  # letters of a command within which it says what it is of


class KnownShape(NamedTuple):
    """A LoadShape: the command up to its points, its name, and each list of points with what stands behind it."""

    head: str
    name: str
    lists: tuple[tuple[str, FloatArray, str], ...]


def find_known(commands: Sequence[Command], shapes: Shapes) -> dict[int, KnownShape]:
    """Return the shapes of which no other command says anything, by the place of the command that defines each."""
    found, names = dict[int, KnownShape](), set[str]()
    place_of = {name: place for place, name in enumerate(shapes.names)}
    for place, command in enumerate(commands if place_of else ()):
        start = command.text[:_HEAD].lower()
        if start[:1] == "~" or ("loadshape." in start and not start.startswith("new")):
            return {}  # what it edits has other points before than after
        cut = _cut(command.text) if start.startswith("new loadshape.") else None
        if cut is None:
            continue
        head, name, lists = cut
        if name.lower() in names:
            return {}
        names.add(name.lower())
        if name.lower() in place_of:
            points = zip(lists, shapes.points(place_of[name.lower()]), strict=False)
            known = KnownShape(head, name, tuple((key, values, behind) for (key, behind), values in points))
            stated = _NUMBER.findall(head)
            # As text the engine takes fewer points than it is told of, as numbers it does not.
            n = int(stated[-1]) if stated else None
            if all(len(v) and n in (None, len(v)) and np.isfinite(v).all() for _, v, _ in known.lists):
                found[place] = known
    return found


def _cut(text: str) -> tuple[str, str, list[tuple[str, str]]] | None:
    """Return head and name of a shape, and the name of each list of points with what stands behind it."""
    match, lists = _START.match(text), list[tuple[str, str]]()
    if match is None:
        return None
    head, name, key, opener = match.groups()
    at = match.end()
    while True:
        end = text.find("]" if opener == "[" else ")", at)
        behind = _SIZES.match(text, end + 1) if end >= 0 else None
        if behind is None:
            return None
        lists.append((key, behind[0]))
        if behind.end() == len(text):
            return head, name, lists
        then = _THEN.match(text, behind.end()) if len(lists) == 1 else None
        if then is None:
            return None
        (key, opener), at = then.groups(), then.end()


def define_shape(engine: Engine, known: KnownShape) -> None:
    """Define a LoadShape in an engine.

    Raises:
        EngineError: OpenDSS refused it.
    """
    engine.command(known.head)
    handle = engine.newest(_CLASS, known.name)
    for key, values, behind in known.lists:
        engine.set_floats(handle, engine.property_index(_CLASS, key), values)
        engine.check()
        if behind:
            engine.command(f"Edit {_CLASS}.{known.name}{behind}")
