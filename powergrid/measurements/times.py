"""Stamps of any clock and notation, as the start of each row in standard time of the feeder's zone.

What a stamp does not say for certain is an error that names the key which says it: whether 03/04 is in March, whether
an hour that comes twice is the one that clocks repeat, whether a stamp is the start or the end of its row.
"""

from __future__ import annotations

import datetime
import zoneinfo
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from powergrid.measurements.vocabulary import STANDARD, TimeSpec

if TYPE_CHECKING:
    import pandas as pd

Times = npt.NDArray[np.datetime64]
FloatArray = npt.NDArray[np.float64]

MINUTES_PER_DAY = 1440
_STAMP = (
    r"^\s*(?P<a>\d{1,4})(?P<mark>[-/.])(?P<b>\d{1,2})[-/.](?P<c>\d{1,4})"
    r"(?:[T ,;]+(?P<H>\d{1,2})(?::(?P<M>\d{2}))?(?::(?P<S>\d{2})(?:[.,]\d+)?)?\s*(?P<half>[AaPp])?(?:\.?[Mm]\.?)?)?"
    r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?\s*$"
)
_FORMATS = ("iso", "us", "eu")
#: How stamps may be counted, and what is beyond the numbers of each.
_NUMBERS = {"excel": 200_000.0, "unix": 1e10, "unix_ms": 1e13}
_DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
#: Day 0 of Excel: so that days from March 1900 on are right, as it takes 1900 for a leap year.
_EXCEL = np.datetime64("1899-12-30", "s")


@dataclass(frozen=True)
class Stamps:
    """What stamps say: local time as written, and how far that is ahead of UTC [min], NaN where they do not say it."""

    local: Times
    ahead_min: FloatArray


@dataclass
class Findings:
    """What is found while a table is read.

    Attributes:
        where: What messages call it.
        problems: What is wrong.
        notes: What is worth telling.
        first_line: Line of the file, or row of the table, that its first stamp is in.
    """

    where: str
    problems: list[str]
    notes: list[str]
    first_line: int = 0

    def refuse(self, text: str) -> None:
        """Add a problem."""
        self.problems.append(f"{self.where}: {text}")

    def note(self, text: str) -> None:
        """Add a note."""
        self.notes.append(f"{self.where}: {text}")


def read_stamps(column: pd.Series, spec: TimeSpec, found: Findings) -> Stamps | None:
    """Return what the stamps of a table say, None with a problem.

    Args:
        column: The stamps, as a table holds them.
        spec: Their notation.
        found: Gets what is wrong with the column.
    """
    import pandas as pd

    if column.isna().any():
        found.refuse(f"no stamp in line {found.first_line + int(column.isna().to_numpy().argmax())}")
        return None
    if pd.api.types.is_datetime64_any_dtype(column):
        if column.dt.tz is None:
            local = column.to_numpy().astype("datetime64[s]")
            return Stamps(local, np.full(len(local), np.nan))
        local = column.dt.tz_localize(None).to_numpy().astype("datetime64[s]")
        utc = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[s]")
        return Stamps(local, (local - utc).astype(np.float64) / 60.0)
    counted = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if counted and "%" in spec.format:
        column = column.astype(np.int64)  # digits of a date, as 202401010015
    elif counted:
        return _read_epoch(column, spec, found)
    # A long table has each stamp once a meter: each is read once.
    codes, texts = pd.factorize(column.astype(str).str.strip())
    lines = found.first_line + np.unique(codes, return_index=True)[1]
    read = _read_texts(pd.Series(texts, lines), spec.format, found)
    return None if read is None else Stamps(read.local[codes], read.ahead_min[codes])


def _read_epoch(column: pd.Series, spec: TimeSpec, found: Findings) -> Stamps | None:
    numbers = column.to_numpy(dtype=np.float64)
    like = next((name for name, most in _NUMBERS.items() if numbers[0] < most), "unix_ms")
    if spec.format not in _NUMBERS:
        what = "days, as Excel counts them" if like == "excel" else "seconds since 1970, or thousandths of these"
        if digits := _DIGITS.get(len(str(column.iloc[0]))):
            like, what = f"'{digits}'", "the digits of dates"
        found.refuse(f"holds numbers, as {column.iloc[0]}; say time.format: {like}, if these are {what}")
        return None
    if not np.isfinite(numbers).all() or not 0.0 <= numbers.min() <= numbers.max() < _NUMBERS[spec.format]:
        found.refuse(f"{column.iloc[0]} is none of {spec.format}; say time.format: {like}?")
        return None
    if spec.format == "excel":  # days of a clock on the wall
        local = _EXCEL + np.round(numbers * 86400.0).astype("timedelta64[s]")
        return Stamps(np.asarray(local), np.full(len(numbers), np.nan))
    seconds = numbers / (1000.0 if spec.format == "unix_ms" else 1.0)
    return Stamps(seconds.astype("datetime64[s]"), np.zeros(len(seconds)))


def _read_texts(texts: pd.Series, form: str, found: Findings) -> Stamps | None:
    """Return what stamps say, each of them once, by the line that each comes in first."""
    import pandas as pd

    if form not in ("auto", *_FORMATS):
        if "%" not in form:
            allowed = ", ".join(("auto", *_FORMATS, *_NUMBERS))
            found.problems.append(f"time.format: {form!r} is none of {allowed} and has no %")
            return None
        parsed = pd.to_datetime(texts, format=form, errors="coerce", utc="%z" in form)
        bad = np.flatnonzero(parsed.isna().to_numpy())
        if len(bad):
            found.refuse(f"line {texts.index[bad[0]]} holds {texts.iloc[bad[0]]!r}, which is not as {form!r}")
            return None
        utc = parsed.dt.tz_localize(None).to_numpy().astype("datetime64[s]") if "%z" in form else parsed.to_numpy()
        return Stamps(utc.astype("datetime64[s]"), np.full(len(texts), 0.0 if "%z" in form else np.nan))
    parts = texts.str.extract(_STAMP)
    bad = np.flatnonzero(parts["a"].isna().to_numpy())
    if len(bad):
        found.refuse(
            f"{len(bad)} stamps cannot be read, the first in line {texts.index[bad[0]]}: {texts.iloc[bad[0]]!r}; "
            "time.format says how they are written, as '%d-%b-%Y %H:%M'"
        )
        return None
    a, b, c = (parts[name].to_numpy(dtype=np.int64) for name in "abc")
    order = form if form != "auto" else _find_order(a, b, parts["mark"].to_numpy(), texts, found)
    if order is None:
        return None
    year, month, day = (c, a, b) if order == "us" else (c, b, a) if order == "eu" else (a, b, c)
    return _compose(parts, (np.where(year < 100, year + 2000, year), month, day), texts, found)


def _find_order(
    a: npt.NDArray[np.int64],
    b: npt.NDArray[np.int64],
    mark: npt.NDArray[np.object_],
    texts: pd.Series,
    found: Findings,
) -> str | None:
    """Say whether dates begin with the year, the month or the day, by numbers that can only be one."""
    if (a > 31).all():
        return "iso"
    day_first, month_first = a > 12, b > 12
    if day_first.any() and month_first.any():
        one, other = int(day_first.argmax()), int(month_first.argmax())
        found.refuse(
            f"days come first in line {texts.index[one]} ({texts.iloc[one]!r}) and second in line "
            f"{texts.index[other]} ({texts.iloc[other]!r}); write dates one way"
        )
        return None
    if day_first.any() or (mark == ".").all():  # with points nobody writes the month first
        return "eu"
    if month_first.any():
        return "us"
    found.refuse(
        f"{texts.iloc[0]!r} in line {texts.index[0]} may be month and day or day and month, and no other date tells; "
        "say time.format: us (month first) or eu (day first)"
    )
    return None


def _compose(
    parts: pd.DataFrame, date: tuple[npt.NDArray[np.int64], ...], texts: pd.Series, found: Findings
) -> Stamps | None:
    year, month, day = date
    hour, minute, second = (parts[name].fillna("0").astype(int).to_numpy() for name in "HMS")
    half = parts["half"].fillna("").str.lower().to_numpy()
    hour = np.where(half == "p", hour % 12 + 12, np.where(half == "a", hour % 12, hour))
    # 24:00 is how many meters write the end of a day
    wrong = (month < 1) | (month > 12) | (day < 1) | (hour > 24) | (minute > 59) | (second > 60)
    wrong |= (hour == 24) & ((minute > 0) | (second > 0))
    safe = np.where(wrong, 1, month)
    first = (year.astype("datetime64[Y]") - 1970).astype("datetime64[M]") + (safe - 1)
    wrong |= day > ((first + 1).astype("datetime64[D]") - first.astype("datetime64[D]")).astype(np.int64)
    if wrong.any():
        row = int(wrong.argmax())
        found.refuse(
            f"{int(wrong.sum())} stamps do not exist, the first in line {texts.index[row]}: {texts.iloc[row]!r}"
        )
        return None
    local = first.astype("datetime64[D]") + (day - 1)
    local = local.astype("datetime64[s]") + (hour * 3600 + minute * 60 + second).astype("timedelta64[s]")
    zone = parts["zone"].fillna("").str.replace(":", "")
    ahead = np.full(len(local), np.nan)
    ahead[zone.isin(["Z", "UTC", "GMT"]).to_numpy()] = 0.0
    signed = zone.str.match(r"[+-]").to_numpy()
    if signed.any():
        told = zone[signed]
        minutes = told.str[1:3].astype(int) * 60 + told.str[3:5].astype(int)
        ahead[signed] = np.where(told.str[0] == "-", -minutes, minutes)
    return Stamps(local, ahead)


def to_standard_time(stamps: Stamps, spec: TimeSpec, key: npt.NDArray[np.int64], found: Findings) -> Times | None:
    """Return stamps in standard time of the feeder's zone, None with a problem.

    Where a clock is set back, the first of two equal stamps of a meter is in daylight saving, the second is not.

    Args:
        stamps: What the table says.
        spec: Zone of feeder and clock.
        key: The meter of each row, for stamps of several meters are alike.
        found: Gets what is wrong, and what is worth telling.
    """
    local, ahead = stamps.local, stamps.ahead_min
    told = ~np.isnan(ahead)
    if told.any() and not told.all():
        row = int((~told).argmax())
        found.refuse(f"line {found.first_line + row} says no zone, as others do; write all of them one way")
        return None
    zone = None if spec.zone in (None, STANDARD) else zoneinfo.ZoneInfo(str(spec.zone))
    if told.all():
        utc = local - (ahead * 60).astype("timedelta64[s]")
        if zone is None:
            if len(np.unique(ahead)) > 1:
                several = " and ".join(f"{value / 60:+g} h" for value in np.unique(ahead)[:3])
                found.refuse(f"stamps are {several} from UTC; say time.zone, as America/New_York")
                return None
            found.note(f"kept in the zone of the stamps, UTC{ahead[0] / 60:+g} h, all the year")
            return local
        return np.asarray(utc + _standard_offset(zone, local[0]))
    clock = zone if spec.clock is None else None if spec.clock == STANDARD else zoneinfo.ZoneInfo(spec.clock)
    if clock is None:
        return local
    utc_or_none = _localise(local, clock, key, found)
    if utc_or_none is None:
        return None
    return utc_or_none + _standard_offset(zone or clock, local[0])


def _standard_offset(zone: zoneinfo.ZoneInfo, when: np.datetime64) -> np.timedelta64:
    year = int(str(when)[:4])
    offsets = [datetime.datetime(year, month, 1, tzinfo=zone).utcoffset() for month in (1, 7)]
    return np.timedelta64(int(min(offset.total_seconds() for offset in offsets if offset is not None)), "s")


def _localise(local: Times, clock: zoneinfo.ZoneInfo, key: npt.NDArray[np.int64], found: Findings) -> Times | None:
    """Return wall-clock stamps in UTC, the hour that comes twice in the order of the rows."""
    import pandas as pd

    frame = pd.DataFrame({"key": key, "local": local})
    backwards = len(local) > 1 and local[-1] < local[0]
    frame = frame.iloc[::-1] if backwards else frame
    turn = frame.groupby(["key", "local"]).cumcount().sort_index().to_numpy()
    index = pd.DatetimeIndex(local)
    aware = index.tz_localize(clock, ambiguous=turn == 0, nonexistent="NaT")
    missing = np.flatnonzero(np.asarray(aware.isna()))
    if len(missing):
        row = int(missing[0])
        found.refuse(
            f"{len(missing)} stamps do not exist on a clock of {clock.key}, which is set forward then; the first is "
            f"{local[row]} in line {found.first_line + row}; if this table's clock never changes, say time.clock: "
            f"{STANDARD}"
        )
        return None
    other = index.tz_localize(clock, ambiguous=turn != 0, nonexistent="NaT")
    twice = np.flatnonzero(np.asarray(aware != other))
    if len(twice):
        of_meter = frame.iloc[twice] if not backwards else pd.DataFrame({"key": key, "local": local}).iloc[twice]
        single = int((of_meter.groupby(["key", "local"]).size() == 1).sum())
        found.note(f"clocks of {clock.key} are set back: {len(twice)} rows in the hours that come twice")
        if single:
            found.note(f"{single} of them come once only; taken for the first, and the second is a gap")
    utc: Times = np.asarray(aware.tz_convert("UTC").tz_localize(None), dtype="datetime64[s]")
    return utc


def find_step(times: Times, found: Findings) -> int:
    """Return the usual distance of stamps [min], 0 with a problem where no day can be laid out in it."""
    distinct = np.unique(times)
    if len(distinct) < 2:
        found.refuse(f"{len(distinct)} stamps; a table holds at least a day")
        return 0
    values, counts = np.unique(np.diff(distinct).astype(np.int64), return_counts=True)
    seconds = int(values[counts.argmax()])
    allowed = np.array([minutes for minutes in range(1, MINUTES_PER_DAY + 1) if MINUTES_PER_DAY % minutes == 0])
    near = int(allowed[np.abs(allowed * 60 - seconds).argmin()])
    # clocks of meters drift, and a reading a second late is usual
    if abs(near * 60 - seconds) > 0.02 * seconds:
        found.refuse(
            f"rows are mostly {seconds / 60:g} min apart; allowed are whole minutes that divide a day: bring "
            f"them to {near} min first"
        )
        return 0
    return near


def place_rows(times: Times, wall: Times, step: int, spec: TimeSpec, found: Findings) -> Times | None:
    """Return the start of the row that each stamp is of, on whole steps of its clock's day; None with a problem.

    Args:
        times, wall: The stamps in standard time, and as written.
        step: Length of a row [min].
        spec: Says what of its row a stamp is.
        found: Gets what is wrong, and what was moved.
    """
    first, last, one = wall.min(), wall.max(), np.timedelta64(step * 60, "s")
    # Whole hours of one clock are half hours of another: of all rows alike, so the rows begin there.
    shifts = np.unique((times - wall).astype(np.int64) % (step * 60))
    shift = int(shifts[0]) if len(shifts) == 1 else 0
    if spec.stamps == "end":
        times = times - one
    elif spec.stamps == "auto" and _of_day(first) == step * 60 and _of_day(last) == 0 and step < MINUTES_PER_DAY:
        found.refuse(
            f"the first stamp is {first} and the last {last}, as where they are the end of their rows; say "
            "time.stamps: end, or start"
        )
        return None
    since = (times - times.astype("datetime64[D]")).astype(np.int64) - shift
    off = (since + step * 30) % (step * 60) - step * 30
    far = np.flatnonzero(np.abs(off) > step * 15)
    if len(far):
        row = int(far[0])
        told = f"the first is {times[row]} in line {found.first_line + row}"
        found.refuse(f"{len(far)} stamps lie between rows of {step} min, {told}")
        return None
    if off.any():
        moved = int(np.count_nonzero(off))
        found.note(f"{moved} stamps moved to whole {step} min, by {np.abs(off).max()} s at most")
    placed: Times = times - off.astype("timedelta64[s]")
    return placed


def _of_day(time: np.datetime64) -> int:
    return int((time - time.astype("datetime64[D]")).astype(np.int64))
