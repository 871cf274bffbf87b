"""Ways to write one property or option, some of them traps: what the reader makes of each, and what the engine does.

Generated from the engine's own schema. Runs in a process of its own, which a probe may end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from powergrid.errors import EngineError
from powergrid.grid.engine import Engine, property_kinds
from powergrid.grid.feeder.reading.files import Place
from powergrid.grid.feeder.reading.reader import read_files
from powergrid.grid.feeder.reading.syntax import OPTIONS

HEAD = """New Circuit.tiny basekv=12.47 pu=1.0 R1=0.01 X1=0.1
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4
New Load.a bus1=b kV=12.47 kW=200 kvar=100
New LoadShape.s npts=2 interval=1 mult=(1 2)
New XYCurve.c npts=2 xarray=(1 2) yarray=(1 2)
"""
#: Where these say so, the engine acts: nothing to compare.
_ACTIONS = ("action", "reset", "refuel", "clear", "kron", "wdgcurrents")
#: What this engine dies of, or fills with memory of its own, where an element has nothing else; with the class or not.
_UNSOUND = frozenset(
    """points xycurve.yarray xycurve.xarray wire cncable tscable cncables tscables derlist kws kvars fuse.like cmatrix
    rmatrix xmatrix gmatrix""".split()  # noqa: SIM905
)


class Probe(NamedTuple):
    """A line or two behind :data:`HEAD`, and whether the engine may be handed it as it is."""

    text: str
    is_harmless: bool


def _value_of(class_name: str, name: str, kind: str) -> str:
    """Return a value that a property likely takes, without blanks."""
    if name == "like":
        return "x"
    if "Enum" in kind or kind == "Enabled" or "Bool" in kind:
        return "yes"
    if "Bus" in kind:
        return "b"
    if "Reference" in kind:
        return "default"
    if kind in ("String", "StringList"):
        return "word"
    return "3"


def _is_unsound(class_name: str, name: str) -> bool:
    """Whether the engine cannot be asked what it makes of a property by itself."""
    return bool({name, f"{class_name}.{name}"} & _UNSOUND)


def _reaches_out(name: str, kind: str) -> bool:
    """Whether a property names a file or library, or is one that is taken out."""
    is_file = kind == "String" and any(each in name for each in ("file", "model", "dll"))
    return is_file or name in ("memorymapping", "debugtrace", "kws", "kvars")


def _abbreviate(name: str, names: list[str]) -> str:
    """Return the shortest beginning that still means a property."""
    for length in range(1, len(name) + 1):
        if next(each for each in names if each.startswith(name[:length])) == name:
            return name[:length]
    return name


def property_probes(secret: str) -> Iterator[Probe]:
    """Yield the probes of every property of every class."""
    for class_name, kinds in property_kinds().items():
        names = list(kinds)
        # OpenDSS dies of a geometry without conductors where it is written as data.
        new = f"New {class_name}.x" + " nconds=1 nphases=1" * (class_name == "linegeometry")
        for place, (name, kind) in enumerate(kinds.items()):
            if name in _ACTIONS:
                continue
            yield from _traps(new, name, _abbreviate(name, names), secret)
            if _is_unsound(class_name, name):
                continue
            value, short = _value_of(class_name, name, kind), _abbreviate(name, names)
            before = f"{names[place - 1]}={_value_of(class_name, names[place - 1], kinds[names[place - 1]])}"
            plain = not _reaches_out(name, kind)
            yield Probe(f"{new} {short}={value}", plain)
            yield Probe(f'{new}\t"{name.upper()}"\t=\t[{value}] , enabled=yes', plain and "enabled" in kinds)
            if place and names[place - 1] not in _ACTIONS and not _is_unsound(class_name, names[place - 1]):
                last = names[place - 1]
                yield Probe(f"{new},{before},({value})", plain and not _reaches_out(last, kinds[last]))
            yield Probe(f"{new}\nEdit Load.a kW=1\nSet class={class_name}\n~ {short}={value}", False)
            yield Probe(f"{new}\n{class_name}.x.{name}='{value}'", plain)
            yield Probe(f"Var @v={value}\n{new}\nBatchEdit {class_name}.^x$ {short}=@v", plain)


def _traps(new: str, name: str, short: str, secret: str) -> Iterator[Probe]:
    """Yield a second ``=``, a file in a list, an empty parameter, blanks that are none."""
    yield Probe(f"{new} {name}=a={secret}", False)
    yield Probe(f"{new} {name}=(0)={secret}", False)
    yield Probe(f"{new} {short}=(file={secret})", False)
    yield Probe(f"{new} {name}=['file' = \"{secret}\" , col=1]", False)
    yield Probe(f"{new}\x0b{name}=3\x0c{secret}", False)
    yield Probe(f"{new} {name}=(3) , {secret}", False)


def option_probes(secret: str) -> Iterator[Probe]:
    """Yield the probes of every option of ``Set``."""
    for place, name in enumerate(OPTIONS):
        short = _abbreviate(name, list(OPTIONS))
        yield Probe(f"Set {short}={secret}", False)
        yield Probe(f"Set {name}=(file={secret})", False)
        yield Probe(f"Set {name}=0={secret}", False)
        yield Probe(f"Set {OPTIONS[place - 1]}=0 {secret}\nSolve {name}={secret}", False)


class Judge:
    """Hold what the reader understood of a probe against what the engine makes of it."""

    def __init__(self, folder: Path, secret: Path) -> None:
        self._master = folder / "model" / "Master.dss"
        self._secret, self._outside = secret, secret.parent
        self._place = Place(self._master, self._master.parent, self._master.parent, trust=False)
        self._raw, self._canonical = Engine(), Engine()

    def judge(self, probe: Probe) -> str:
        """Return ``refused``, ``equal``, ``apart`` (nothing to compare), else what is wrong."""
        self._master.write_bytes((HEAD + probe.text + "\n").encode())
        scan, problems, _ = read_files(self._place)
        texts = [command.text for command in scan.commands]
        if problems:
            return "refused"
        os.utime(self._secret, (0, 0))
        understood = self._run(self._canonical, texts)
        if os.stat(self._secret).st_atime != 0 or os.listdir(self._outside) != [self._secret.name]:
            return f"reaches out: {texts[-1]}"
        if not probe.is_harmless or scan.notes:
            return "apart"
        meant = self._run(self._raw, (HEAD + probe.text).splitlines())
        return "equal" if meant == understood else _tell_apart(meant, understood)

    def _run(self, engine: Engine, texts: list[str]) -> tuple[list[int], object]:
        """Run commands and return the numbers of what was refused, and the circuit as data."""
        engine.clear()
        refused = []
        for text in texts:
            try:
                engine.command(text)
            except EngineError as error:
                refused.append(error.number)
        with contextlib.suppress(EngineError):
            circuit = engine.to_json()
            circuit["PreCommands"] = circuit["PreCommands"][1:]  # the first has the time
            return refused, circuit
        return refused, "not finite"


def _tell_apart(meant: object, understood: object, path: str = "") -> str:
    """Return where two trees differ first."""
    if isinstance(meant, dict) and isinstance(understood, dict):
        pairs = {key: (meant.get(key), understood.get(key)) for key in [*meant, *understood]}
    elif isinstance(meant, list | tuple) and isinstance(understood, list | tuple) and len(meant) == len(understood):
        pairs = dict(enumerate(zip(meant, understood, strict=True)))
    else:
        return f"{path}: {meant!r} is not {understood!r}"
    return next(_tell_apart(*pair, f"{path}/{key}") for key, pair in pairs.items() if pair[0] != pair[1])


def main(folder: str, first: str, step: str) -> None:
    """Judge every so-manieth probe from a number on; print each before it is judged, and its verdict."""
    secret = Path(folder) / "outside" / "secret.csv"
    judge = Judge(Path(folder), secret)
    probes = [*property_probes(str(secret)), *option_probes(str(secret))]
    for probe in probes[int(first) :: int(step)]:
        sys.stdout.write(json.dumps([probe.text, ""]) + "\n")
        sys.stdout.flush()
        sys.stdout.write(json.dumps([probe.text, judge.judge(probe)]) + "\n")
