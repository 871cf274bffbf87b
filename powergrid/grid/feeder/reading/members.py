"""Lists of elements that a control is for: each member as this engine takes it, with its class or without.

Of some lists it dies where a member is written otherwise; of others it takes what it does not know for nobody.
"""

from __future__ import annotations

from typing import NamedTuple

from powergrid.errors import describe_unknown
from powergrid.grid.feeder.reading.defined import Defined
from powergrid.grid.feeder.reading.statements import Parameter, Unclear, cut, quote


class _Members(NamedTuple):
    """What a list is of: the classes, whether members are written with theirs, whether they have to be there before."""

    classes: tuple[str, ...]
    in_full: bool = False
    at_once: bool = False


#: Lists and single names of elements whose class the property tells; tried one by one on DSS C-API 0.14.5.
_MEMBERS = {
    ("invcontrol", "derlist"): _Members(("PVSystem", "Storage"), in_full=True, at_once=True),
    ("invcontrol", "pvsystemlist"): _Members(("PVSystem",), at_once=True),
    ("expcontrol", "derlist"): _Members(("PVSystem",), at_once=True),
    ("expcontrol", "pvsystemlist"): _Members(("PVSystem",), at_once=True),
    ("storagecontroller", "elementlist"): _Members(("Storage",), at_once=True),
    ("gendispatcher", "genlist"): _Members(("Generator",)),
    ("espvlcontrol", "pvsystemlist"): _Members(("PVSystem",)),
    ("espvlcontrol", "storagelist"): _Members(("Storage",)),
    ("espvlcontrol", "localcontrollist"): _Members(("ESPVLControl",)),
    ("upfccontrol", "upfclist"): _Members(("UPFC",)),
    ("regcontrol", "transformer"): _Members(("Transformer", "AutoTrans")),
    ("capcontrol", "capacitor"): _Members(("Capacitor",)),
}


def lists_members(class_name: str, name: str) -> bool:
    """Whether a property names elements of which this engine expects the class, or that they go without."""
    return (class_name, name) in _MEMBERS


def name_members(class_name: str, name: str, given: Parameter, defined: Defined) -> tuple[Parameter, list[str]]:
    """Return a list of elements as the engine takes it, and what is wrong with it.

    Raises:
        Unclear: it is no list of names.
    """
    wanted = _MEMBERS[class_name, name]
    parts = cut(given.value)
    if any(part.name for part in parts):
        return given, []  # of a file, or what is refused elsewhere
    wrong: list[str] = []
    named = [_name(part.value, wanted, defined, wrong) for part in parts]
    if named == [part.value for part in parts]:
        return given, wrong
    inner = " ".join(Parameter("", each).written() for each in named)
    whole = quote(inner, "[({") if len(named) > 1 else None
    if len(named) > 1 and whole is None:
        raise Unclear(f"{given.value!r} holds all kinds of brackets")
    return given._replace(value=inner if whole else named[0], opener=whole[0] if whole else ""), wrong


def _name(written: str, wanted: _Members, defined: Defined, wrong: list[str]) -> str:
    """Return the name of a member as the engine takes it; as it is where there is none, with what is wrong noted."""
    prefix, dot, behind = written.partition(".")
    own = next((each for each in wanted.classes if dot and each.lower() == prefix.strip().lower()), None)
    bare = [each for each in wanted.classes if defined.has(each.lower(), written)]
    if own is not None and not bare:
        if wanted.at_once and not defined.has(own.lower(), behind):
            wrong.append(describe_unknown(own, behind, defined.names(own.lower())))
        return f"{own}.{behind}" if wanted.in_full else behind
    if len(bare) == 1:
        return f"{bare[0]}.{written}" if wanted.in_full else written
    if bare and wanted.in_full:
        wrong.append(f"{written!r} may be {' or '.join(f'{each}.{written}' for each in bare)}: name its class")
    elif wanted.at_once:
        known = [f"{each}.{name}" if wanted.in_full else name for each in wanted.classes for name in
                 defined.names(each.lower())]  # fmt: skip
        wrong.append(describe_unknown(" or ".join(wanted.classes), written, known))
    return written
