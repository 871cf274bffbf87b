"""Numbers that the engine takes for others without a word: beyond its whole numbers, or not finite.

A whole number beyond 32 bits wraps around in OpenDSS, a node's beyond 16: 4294967299 phases are 3, and bus ``b.65537``
is ``b.1``.
"""

from __future__ import annotations

import math
import re

from powergrid.grid.feeder.reading.statements import Parameter

_INTEGERS, _NUMBERS = ("Integer", "MappedInt"), ("Integer", "MappedInt", "Double", "Complex")
#: Types of one number, which the engine calculates where it stands in quotes.
_SINGLE = frozenset(
    ("Double", "Integer", "MappedIntEnum", "DoubleOnArray", "DoubleOnStructArray", "IntegerOnStructArray")
)
_LEAST, _MOST = -(2**31), 2**31 - 1
_MOST_NODE = 2**15 - 1
_MOST_DIGITS = 30  # more are no whole number of anybody's
#: Beyond it what the engine makes of a number, in another unit or squared, need not be finite any more.
_MOST_FLOAT = 1e150
#: Whole numbers that count, of which less than none is no number, though OpenDSS takes some.
_COUNTS = frozenset(
    """npts numharm nconds nphases phases windings numtaps numsteps seasons nvariables numfast shots numcust k
    ndc""".split()  # noqa: SIM905
)
_PART = re.compile(r"[^\s,|()\[\]{}\"']+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
#: What a number beyond reckoning is not written without.
_UNUSUAL = re.compile("[eEnN]|[0-9]{100}")
_BASES = {"$": 16, "0x": 16, "x": 16, "&": 8, "%": 2}
_NODE = re.compile(r"\.([+-]?[0-9]+)")
_CALCULATED = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "^": lambda x, y: x**y,
}
#: Without one of these, digits written as 0, no line of a file can hold such a number.
_TRACES = (b"0000000000", b"0e0", b".e0", b"nan", b"inf", b"ses=-", b"pts=-", b"ses=0.", b"pts=0.", b" *", b" ^")
_LETTERS = bytes.maketrans(b"123456789" + bytes(range(65, 91)), b"000000000" + bytes(range(97, 123)))
_TRACE_OF_NODE = re.compile(rb"us(?:[0-9]|es)?=[^=]*\.00000")
_SUSPECT = re.compile(
    r"us(?:[0-9]|es)?=[^=]*\.[0-9]{5}"
    r"|[=( ,|\[+-](?:nan|inf|[0-9](?:[0-9]{9}|[0-9.]*e[+0-9][0-9])|(?<=(?:ses|pts)=)[+0-9]*[-.])"
    r"| [*^]",
    re.IGNORECASE,
)
#: What counts and is seldom said, so that no plain line is looked at for it.
RARE_COUNTS = _COUNTS - {"npts", "phases", "nphases", "windings", "numtaps", "numcust"}


def may_hold_wrong(raw: bytes) -> bool:
    """Whether any line of a file may be one that :func:`is_suspect`: said of all lines in a tenth of the time."""
    plain = raw.translate(_LETTERS, b"+")
    return b"\0" in raw or any(trace in plain for trace in _TRACES) or _TRACE_OF_NODE.search(plain) is not None


def is_suspect(text: str) -> bool:
    """Whether a line may hold a wrong number."""
    return _SUSPECT.search(text) is not None


def find_wrong_number(name: str, kind: str, given: Parameter) -> tuple[str, str, str] | None:
    """Return code, text and remedy of what is wrong with a number that a property is set to; None where nothing is.

    Args:
        name: Full name of the property, lower case.
        kind: Its type in the engine's schema.
        given: What it is set to.
    """
    if kind.startswith("Bus"):
        wrong = next(
            (n for n in _NODE.findall(given.value) if len(n) > _MOST_DIGITS or not -1 < int(n) <= _MOST_NODE), ""
        )
        return ("bad-value", f"there is no node {wrong}", f"nodes are 0 to {_MOST_NODE}") if wrong else None
    if not kind.startswith(_NUMBERS):
        return None
    whole = kind.startswith(_INTEGERS)
    if not whole and not _UNUSUAL.search(given.value):
        return None
    parts = _PART.findall(given.value)
    if given.opener and kind in _SINGLE and len(parts) > 1:
        result = _calculate(parts)
        values = [] if result is None else [(given.value, result)]
    else:
        values = [(part, value) for part in parts if (value := _read(part, whole=whole)) is not None]
    for part, value in values:
        if not math.isfinite(value) or abs(value) > _MOST_FLOAT:
            return (
                "not-finite",
                f"{part!r} is no number to reckon with",
                "write one that is finite, and less than 1e150",
            )
        if whole and not _LEAST - 0.5 <= value < _MOST + 0.5:
            wraps = (round(value) + 2**31) % 2**32 - 2**31
            return "bad-value", f"{part!r} is beyond OpenDSS's whole numbers, and {wraps} to it", f"at most {_MOST}"
        if whole and name in _COUNTS and value < 0.0:
            return "bad-value", f"{part!r} is less than none", "write how many there are"
    return None


def find_rounded(kind: str, given: Parameter) -> str:
    """Say to what OpenDSS rounds what should be a whole number; nothing where it need not."""
    if not kind.startswith(_INTEGERS) or given.opener:
        return ""
    value = _read(given.value, whole=True)
    return "" if value is None or value == round(value) else f"is {round(value)} to OpenDSS, a whole number"


def _read(part: str, *, whole: bool) -> float | None:
    """Return the number that a part is, None where it is none."""
    if _NUMBER.fullmatch(part):
        return int(part) if len(part) < _MOST_DIGITS and part.lstrip("+-").isdigit() else float(part)
    base = next((prefix for prefix in _BASES if part.lower().startswith(prefix)), "") if whole else ""
    try:
        return float(int(part[len(base) :], _BASES[base])) if base else None
    except ValueError:
        return None


def _calculate(parts: list[str]) -> float | None:
    """Return what a calculation in reverse Polish notation comes to, None where it is of other than plain operators."""
    stack: list[float] = []  # not whole numbers, which may grow for ever
    try:
        for part in parts:
            if part in _CALCULATED:
                right, left = stack.pop(), stack.pop()
                stack.append(float(_CALCULATED[part](left, right)))
            elif (value := _read(part, whole=False)) is not None:
                stack.append(float(value))
            else:
                return None
    except OverflowError:
        return math.inf
    except (ArithmeticError, IndexError, TypeError):
        return None
    return stack[-1] if stack else None
