"""From whatever was sent to sound readings: names, units, numbers and times checked one by one; nothing is raised.

What cannot be used is told as problems, with what would be right; the rest is used.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from powergrid.advice.catalogue import Catalogue, Reading
from powergrid.errors import Problem, show_briefly

_MOST_READINGS = 500_000
#: Problems that are told one by one; what is beyond is counted.
_MOST_PROBLEMS = 100
#: Problems with which the nearest name is looked for, which takes a while.
_MOST_SUGGESTIONS = 5
_LONGEST_NUMBER = 60
#: How far a number may be from the whole one that it is read as.
_NEARLY_WHOLE = 0.05
#: Room for what rounding does to a number that is at its limit.
_SLACK = 1e-9
_WORDS = {"closed": 1.0, "on": 1.0, "true": 1.0, "yes": 1.0, "open": 0.0, "off": 0.0, "false": 0.0, "no": 0.0}
#: Keys of readings that say when, or hold them all.
_TIME_KEYS = ("time", "timestamp", "datetime")


@dataclass
class SoundReadings:
    """What of the readings that were sent can be used.

    Attributes:
        time: Time that they all are of, None where none was given that can be read.
        values: Numbers in the readings' own units, by place in the catalogue.
        times: Time of those that say their own, by place.
        problems: What is wrong with the others.
    """

    time: np.datetime64 | None = None
    values: dict[int, float] = field(default_factory=dict)
    times: dict[int, np.datetime64] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def tell(self, code: str, where: str, text: str, remedy: str = "") -> None:
        """Note a problem; those beyond the first hundred are counted only."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(code, where, text, remedy))
            return
        last = self.problems[-1] if len(self.problems) > _MOST_PROBLEMS else None
        count = 1 + (int(last.text.split()[0]) if last else 0)
        self.problems[_MOST_PROBLEMS:] = [Problem("more-problems", "", f"{count} more problems of readings")]


def check_readings(given: Any, catalogue: Catalogue) -> SoundReadings:
    """Return what can be used of readings, whatever they are.

    Args:
        given: Numbers by name; or ``{"time": ..., "readings": ...}`` with such or with a list of mappings of ``name``,
            ``value`` and, if wanted, ``unit`` and ``time``; a number by name may be such a mapping too.
        catalogue: What may be read.
    """
    sound = SoundReadings()
    try:
        for name, value, unit, time in _flatten(given, sound):
            _take(name, value, unit, time, catalogue, sound)
    except RecursionError:
        sound.tell("readings-malformed", "readings", "nested too deeply", "give numbers by name")
    return sound


def _flatten(given: Any, sound: SoundReadings) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yield name, value, unit and time of each reading, and take the time that all are of."""
    if isinstance(given, Mapping) and "readings" in given:
        _take_time(next((given[key] for key in _TIME_KEYS if key in given), None), sound)
        given = given["readings"]
    if given is None:
        return
    if isinstance(given, Mapping):
        rows: Any = given.items()
    elif isinstance(given, list | tuple):
        rows = ((None, row) for row in given)
    else:
        text = f"{show_briefly(given):.60} is no mapping of names to numbers"
        sound.tell("readings-malformed", "readings", text, 'give {"675.1.v_pu": 0.98, ...}')
        return
    for count, (name, value) in enumerate(rows):
        if count >= _MOST_READINGS:
            sound.tell("too-many-readings", "readings", f"more than {_MOST_READINGS}; the rest is left out")
            return
        if isinstance(name, str) and name.strip().lower() in _TIME_KEYS:
            _take_time(value, sound)
        elif isinstance(value, Mapping):
            yield (
                (value.get("name") if name is None else name),
                value.get("value"),
                value.get("unit"),
                value.get("time"),
            )
        elif name is None:
            text = f"{show_briefly(value):.60} is no mapping of name and value"
            sound.tell("readings-malformed", f"readings[{count}]", text)
        else:
            yield name, value, None, None


def _take(name: Any, value: Any, unit: Any, time: Any, catalogue: Catalogue, sound: SoundReadings) -> None:
    """Take one reading, or tell what is wrong with it."""
    if not isinstance(name, str):
        sound.tell("reading-unknown", show_briefly(name)[:60], "the name of a reading is text")
        return
    shown = name if len(name) <= 60 else f"{name[:57]}..."
    meant = catalogue.find(name, unit if isinstance(unit, str) else "" if unit is None else show_briefly(unit)[:60])
    if isinstance(meant, str):
        near = catalogue.suggest(name) if len(sound.problems) < _MOST_SUGGESTIONS else []
        remedy = f"nearest: {near[0]}" if near else ""
        code = "reading-unknown" if meant == "unknown" or "name" in meant else "reading-unit"
        sound.tell(code, shown, "no such reading" if meant == "unknown" else meant, remedy)
        return
    own_time = None
    if time is not None and (own_time := read_time(time)) is None:
        text = f"time {show_briefly(time):.40} cannot be read; the reading is left out"
        sound.tell("reading-time", shown, text, "write 2026-07-01T14:00")
        return
    number = _read_number(value, whole=all(catalogue.readings[each.place].whole for each in meant))
    if isinstance(number, str):
        if number:
            sound.tell("reading-not-a-number" if "finite" not in number else "reading-not-finite", shown, number)
        return
    for place, scale, offset in meant:
        reading = catalogue.readings[place]
        own = _fit(number if scale == 1.0 and offset == 0.0 else number * scale + offset, reading)
        if isinstance(own, str):
            sound.tell("reading-implausible", shown, own)
        elif place in sound.values and sound.values[place] != own:
            sound.tell("reading-twice", shown, f"{reading.name} is given twice, differently; the first is taken")
        else:
            sound.values[place] = own
            if own_time is not None:
                sound.times[place] = own_time


def _fit(number: float, reading: Reading) -> float | str:
    """Return a number as the reading's own, or why it cannot be true."""
    if reading.whole:
        if abs(number - round(number)) > _NEARLY_WHOLE:
            return f"{number:g} is no whole number"
        number = float(round(number))
    slack = _SLACK * max(1.0, abs(reading.low), abs(reading.high))
    if not reading.low - slack <= number <= reading.high + slack:
        return f"{number:g} {reading.unit} cannot be; {reading.low:g}..{reading.high:g} can"
    return min(max(number, reading.low), reading.high)


def _read_number(value: Any, *, whole: bool) -> float | str:
    """Return a number, or what is wrong with it: nothing where it is simply not there."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = value.strip()
        if not text or text.lower() in ("na", "n/a", "null", "none", "-"):
            return ""
        if whole and text.lower() in _WORDS:
            return _WORDS[text.lower()]
        value = text if len(text) <= _LONGEST_NUMBER else None
    if isinstance(value, bool | np.bool_):
        return float(value) if whole else f"{value} is no number"
    if not isinstance(value, str | int | float | np.integer | np.floating | Decimal):
        return "no number"
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return f"{show_briefly(value):.60} is no number"
    return number if math.isfinite(number) else f"{number} is not finite"


def _take_time(value: Any, sound: SoundReadings) -> None:
    if value is None:
        return
    time = read_time(value)
    if time is None:
        text = f"{show_briefly(value):.40} cannot be read"
        sound.tell("time-unreadable", "time", text, "write 2026-07-01T14:00, on the feeder's clock")
    else:
        sound.time = time


def read_time(value: Any) -> np.datetime64 | None:
    """Return a time to the second, on its own clock; None where it is none of the years 1900 to 2199."""
    if isinstance(value, np.datetime64):
        value = None if np.isnat(value) else value.astype("datetime64[s]").item()
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            # before Python 3.11 no Z was read
            value = datetime.datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        except ValueError:
            return None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    try:
        if isinstance(value, datetime.datetime) and 1900 <= value.year <= 2199:
            return np.datetime64(value.replace(tzinfo=None), "s")
    except (ValueError, OverflowError):  # NaT of pandas is a datetime
        return None
    return None
