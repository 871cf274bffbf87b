"""Values that are most likely wrong, and damage to data and bytes: what ``fuzz.py`` gives PowerGrid."""

from __future__ import annotations

import collections
import contextlib
import copy
import datetime
import random
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Random = random.Random


def _cycle() -> Any:
    loop: dict[Any, Any] = {}
    loop["again"] = [loop]
    return loop


def _deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


class _Strange:
    """An object whose every comparison and text fails."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("no text")


#: Makers of what may stand in place of a value.
NASTY: tuple[Callable[[Random], Any], ...] = (
    *(lambda _, v=v: v for v in (
        None, True, False, 0, 1, -1, 2, 96, 1e308, -1e308, 5e-324, 1e-300, float("inf"), float("-inf"), float("nan"),
        10**9, 10**18, 2**63, 2**64, 10**400, -(10**400), 0.5, 1.5, 1e6, 1e12, "", " ", "nan", "inf", "1e308", "yes",
        "\0", "\ud800", "a" * 5000, "../..", "/", "/dev/null", "/dev/zero", "/proc/self/mem", "~", "~nobody/x", "*",
        "[", "x.yaml", "x.dss", "x.csv", "ieee13", "ieee13_mg", "Storage.", "675", "rg60", b"bytes", b"\xff", 1j, ...,
        type, len, NotImplemented,
    )),
    lambda _: [], lambda _: {}, lambda _: (), lambda _: set(), lambda _: {"a", 1}, lambda _: frozenset((1, 2)),
    lambda _: [None], lambda _: {None: None}, lambda _: {1: 2}, lambda _: {(1, 2): 3}, lambda _: {"kind": "storage"},
    lambda _: [float("nan")], lambda _: [1e308, 1e308], lambda _: {"a": float("inf")}, lambda _: range(3),
    lambda _: _cycle(), lambda _: _deep(50), lambda _: _deep(3000), lambda _: _Strange(), lambda _: object(),
    lambda _: np.float64("nan"), lambda _: np.int64(-5), lambda _: np.array(1.5), lambda _: np.zeros(3),
    lambda _: np.zeros((2, 2)), lambda _: np.array([None, {}], dtype=object), lambda _: np.bool_(True),
    lambda _: np.datetime64("2018-01-01"), lambda _: pd.DataFrame({"a": [1]}), lambda _: pd.Series([1, 2]),
    lambda _: pd.NaT, lambda _: datetime.date(2018, 1, 1), lambda _: datetime.timedelta(1), lambda _: Path("x"),
    lambda _: Path("/dev/full"), lambda _: iter([1]), lambda _: (n for n in range(3)),
    lambda _: types.MappingProxyType({"a": 1}), lambda _: collections.UserDict({"a": 1}),
    lambda _: collections.deque([1]), lambda _: types.SimpleNamespace(a=1), lambda _: [[]] * 1000,
    lambda r: r.uniform(-1e3, 1e3), lambda r: r.randint(-10, 200), lambda r: 10.0 ** r.uniform(-320, 308),
    lambda r: "".join(map(chr, (r.randint(0, 0x2FF) for _ in range(r.randint(1, 12))))),
)  # fmt: skip


def nasty(random: Random) -> Any:
    """Make a value that is most likely wrong."""
    return random.choice(NASTY)(random)


def places_of(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the places of everything in nested mappings and lists."""
    inner = list(data.items()) if isinstance(data, dict) else list(enumerate(data)) if isinstance(data, list) else []
    if len(at) > 20:
        return []
    return [*([at] if at else []), *(place for key, value in inner for place in places_of(value, (*at, key)))]


def _copied(value: Any) -> Any:
    """Copy a value; what Python cannot copy is given itself."""
    with contextlib.suppress(TypeError, RuntimeError):  # a generator, a proxy; thousands of levels
        return copy.deepcopy(value)
    return value


def damage_data(data: Any, random: Random) -> Any:
    """Change, add, drop or swap a few things of nested data."""
    data = _copied(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = places_of(data)
        if not places:
            break
        *path, last = random.choice(places)
        home = data
        for key in path:
            home = home[key]
        match random.randint(0, 9):
            case 0 if isinstance(home, dict):
                del home[last]
            case 1 if isinstance(home, dict):
                home[random.choice(("", "x", 1, None, (1, 2), 1.5, "kind", b"b", "a.b", ".", "devices", "\0"))] = nasty(
                    random
                )
            case 2:
                other = data
                for key in random.choice(places):
                    other = other[key]
                home[last] = _copied(other)
            case _:
                home[last] = nasty(random)
    return data


def damage_bytes(content: bytes, random: Random) -> bytes:
    """Flip, drop, repeat or put in some bytes, or give others altogether."""
    match random.randint(0, 11):
        case 0:
            return content[: random.randrange(len(content) + 1)]
        case 1:
            return b""
        case 2:
            return random.randbytes(random.choice((1, 4, 100, 10_000)))
        case 3:
            return content + random.randbytes(random.randint(1, 50))
        case 4:
            return b"\0" * len(content)
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 100))):
        if not changed:
            break
        at = random.randrange(len(changed))
        match random.randint(0, 4):
            case 0:
                changed[at] ^= 1 << random.randrange(8)
            case 1:
                changed[at] = random.randrange(256)
            case 2:
                del changed[at : at + random.randint(1, 20)]
            case 3:
                changed[at:at] = random.randbytes(random.randint(1, 8))
            case 4:
                other = random.randrange(len(changed))
                changed[at : at + 8], changed[other : other + 8] = changed[other : other + 8], changed[at : at + 8]
    return bytes(changed)
