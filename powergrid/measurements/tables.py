"""From a user's table, long or wide, to one regular series a column or meter; it knows neither loads nor units."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, describe_unknown, list_names
from powergrid.grid.profiles.table_files import TEXT_SUFFIXES, open_table
from powergrid.measurements.times import Findings, find_step, place_rows, read_stamps, to_standard_time
from powergrid.measurements.vocabulary import STANDARD, ImportMap, LongSpec, for_table

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]

_TIME_NAMES = (
    "time",
    "timestamp",
    "datetime",
    "date_time",
    "date time",
    "date/time",
    "date",
    "zeit",
    "zeitstempel",
    "datum",
)
_ID_NAMES = ("meter", "meter_id", "meterid", "id", "load", "name", "sensor", "device", "site", "mpan", "esiid", "point")

#: Rows of a stamp on average, from which on a table is a long one, also where meters are numbers; part of rows that may
#: come twice in one.
_OF_ONE_STAMP, _OF_NUMBERS, _REPEATED = 1.05, 1.5, 0.01

#: Rows that follow each other at another distance than is usual, from which on these are no single gaps.
_LONG_RUN = 24


class Meter(NamedTuple):
    """Whose a row of a long table is: the meter's name and what the number is, empty where the table does not say."""

    name: str
    quantity: str


@dataclass
class MeasuredTable:
    """One table, its rows in standard time.

    Attributes:
        where: What messages call it.
        step_minutes: Length of a row [min].
        values: A series a column, NaN where a row is missing; the index are the starts of all rows from first to last.
        names: Name of each series: its column, or its meter of a long table.
        labels: Name of the column that its numbers stood in, which may say the unit.
        source: Name of the file, its SHA-256 and number of rows, for the record.
        spec: The map, with what it says of this table alone.
        unread: What keeps columns from being numbers, by their names: a problem of those that are of something.
    """

    where: str
    step_minutes: int
    values: pd.DataFrame
    names: list[str]
    labels: list[str]
    source: dict[str, Any] = field(default_factory=dict)
    spec: ImportMap = field(default_factory=ImportMap)
    unread: dict[str, str] = field(default_factory=dict)


def name_tables(sources: Sequence[str | Path | pd.DataFrame]) -> list[str]:
    """Return what messages and the map call tables: files by their names, DataFrames by their places."""
    one = "the DataFrame" if len(sources) == 1 else "DataFrame {}"
    return [Path(s).name if isinstance(s, str | Path) else one.format(i) for i, s in enumerate(sources, 1)]


def read_measured(
    source: str | Path | pd.DataFrame,
    spec: ImportMap,
    problems: list[str],
    notes: list[str],
    where: str = "the DataFrame",
) -> MeasuredTable | None:
    """Read one table; None where problems keep it from being one.

    Args:
        source: A file, see :func:`open_table`, or a DataFrame.
        spec: Says what cannot be told from the table itself.
        problems, notes: Get what is wrong, and what was found and is worth telling.
        where: What messages and the map call it.
    """
    spec, found = for_table(spec, where), Findings(where, problems, notes)
    frame, record = _open(source, spec, found)
    if frame is None:
        return None
    n_before = len(problems)
    stamp_names = _find_stamps(frame, spec, found)
    if stamp_names is None:
        return None
    stamps = frame[stamp_names[0]]
    if len(stamp_names) > 1:
        parts = frame[stamp_names]
        stamps = parts.astype(str).fillna("").agg(" ".join, axis=1).where(parts.notna().all(axis=1))
    long = _find_long(frame, stamp_names, spec, found)
    used = list(long.values) if long else [name for name in frame.columns if name not in stamp_names]
    if long is None:
        used = [name for name in used if name not in spec.columns or spec.columns[name] is not None]
    title = f"{where}: column {' and '.join(map(repr, stamp_names))}"
    read = read_stamps(stamps, spec.time, replace(found, where=title))
    numbers, unread = _take_numbers(frame, used, spec.missing, found)
    problems += unread.values() if numbers.empty else ()
    if len(problems) > n_before or read is None:
        return None
    key, meters = _number_meters(frame, long)
    times = to_standard_time(read, spec.time, key, found)
    step = 0 if times is None else find_step(times, found)
    if times is None or not step:
        return None
    times = place_rows(times, read.local, step, spec.time, found)
    if times is None or _has_repeated(times, key, meters, numbers, found):
        return None
    table = _lay_out(times, key, meters, numbers, step, where)
    _look_for_changed_clocks(table, read.ahead_min, spec, problems)
    table.source, table.spec, table.unread = record, spec, unread
    return None if len(problems) > n_before else table


def _open(
    source: str | Path | pd.DataFrame, spec: ImportMap, found: Findings
) -> tuple[pd.DataFrame | None, dict[str, Any]]:
    """Return the table with names of columns as text, and the record of it; its first line is found."""
    import pandas as pd

    if isinstance(source, str | Path):
        path = Path(source)
        if path.name.lower().endswith((*TEXT_SUFFIXES, ".xlsx")):
            found.first_line = 2 + spec.skip_rows
        try:
            frame = open_table(
                path, str(source), decimal=spec.decimal, sheet=spec.sheet, missing=spec.missing, skip=spec.skip_rows
            )
        except ScenarioError as error:
            found.problems += [f"{error.where}: {problem}" for problem in error.problems]
            return None, {}
        record: dict[str, Any] = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    else:
        frame, record = source, {"file": "a DataFrame"}
    if isinstance(frame.index, pd.PeriodIndex):
        frame = frame.set_axis(frame.index.to_timestamp())
    if isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.rename_axis(str(frame.index.name or "time")).reset_index()
    # Of a sheet whose heads are numbers, 611.0 is 611.
    names = (int(name) if isinstance(name, float) and name.is_integer() else name for name in frame.columns)
    frame = frame.set_axis([str(name).strip() for name in names], axis=1)
    frame = frame.dropna(how="all", axis=1)
    filled = frame.notna().any(axis=1).to_numpy()
    frame = frame.iloc[: len(filled) - int(filled[::-1].argmax()) if filled.any() else 0].reset_index(drop=True)
    if not len(frame):
        found.refuse("the table has no rows")
        return None, record
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    if twice:
        found.refuse(f"column {list_names([repr(name) for name in twice])} comes twice")
        return None, record
    return frame, record | {"rows": len(frame)}


def _find_stamps(frame: pd.DataFrame, spec: ImportMap, found: Findings) -> list[str] | None:
    import pandas as pd

    if spec.time.column:
        unknown = [name for name in spec.time.column if name not in frame.columns]
        for name in unknown:
            found.refuse("time.column: " + describe_unknown("column", name, frame.columns))
        return None if unknown else list(spec.time.column)
    by_name = {name.lower(): name for name in frame.columns}
    for date, hour in itertools.product(("date", "datum"), ("time", "hour", "hour ending", "he", "zeit", "stunde")):
        if date in by_name and hour in by_name:
            return [by_name[date], by_name[hour]]
    likely = [by_name[name] for name in _TIME_NAMES if name in by_name]
    likely += [name for name in frame.columns if pd.api.types.is_datetime64_any_dtype(frame[name])]
    likely += [name for name in frame.columns if "time" in name.lower() or "date" in name.lower()]
    if likely:
        return likely[:1]
    found.refuse(f"no column of time; say time.column, one of {list_names(list(frame.columns))}")
    return None


def _find_long(frame: pd.DataFrame, stamps: Sequence[str], spec: ImportMap, found: Findings) -> LongSpec | None:
    """Return where a long table has what; None of a wide one."""
    import pandas as pd

    others = [name for name in frame.columns if name not in stamps]
    if spec.long is None:
        by_name = {name.lower(): name for name in others}
        ids = [by_name[name] for name in _ID_NAMES if name in by_name]
        # In a wide table a stamp comes twice where clocks are set back, and only then.
        per_stamp = len(frame) / max(1, len(frame[list(stamps)].drop_duplicates()))
        texts = [name for name in others if not pd.api.types.is_numeric_dtype(frame[name])]
        if not ids and per_stamp >= _OF_ONE_STAMP:
            # Texts that tell the rows of each stamp apart say whose these are, whatever their column is called.
            ids = [name for name in texts if frame.duplicated([*stamps, name]).mean() < _REPEATED]
        if not ids or pd.api.types.is_float_dtype(frame[ids[0]]):
            return None
        if per_stamp < (_OF_ONE_STAMP if ids[0] in texts else _OF_NUMBERS) and frame[ids[0]].nunique() > 1:
            return None
        long = LongSpec(id=ids[0])
    else:
        long = spec.long
    wanted = [long.id, *long.values, *([] if long.quantity is None else [long.quantity])]
    unknown = [name for name in wanted if name not in others]
    for name in unknown:
        found.refuse("long: " + describe_unknown("column", name, others))
    if unknown:
        return None
    values = long.values or tuple(name for name in others if name not in (long.id, long.quantity))
    if long.quantity is not None and len(values) > 1:
        found.refuse(f"long.quantity goes with one column of long.values, not {list_names(list(values))}")
        return None
    return long.model_copy(update={"values": values})


def _take_numbers(
    frame: pd.DataFrame, names: Sequence[str], missing: Sequence[str], found: Findings
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return columns as numbers, NaN where there is none, and what is said of those that hold what is no number."""
    import pandas as pd

    numbers, unread = dict[str, FloatArray](), dict[str, str]()
    for name in names:
        column = frame[name]
        if pd.api.types.is_bool_dtype(column):
            unread[name] = (
                f"{found.where}: column {name!r} holds true and false, not numbers; 'columns: {{{name}: null}}' leaves "
                "it out"
            )
            continue
        if not pd.api.types.is_numeric_dtype(column):
            column = column.mask(column.isin(["", *missing]))
            tried = pd.to_numeric(column, errors="coerce")
            bad = np.flatnonzero((tried.isna() & column.notna()).to_numpy())
            if len(bad):
                unread[name] = (
                    f"{found.where}: column {name!r}: {len(bad)} values are no numbers, the first in line "
                    f"{found.first_line + bad[0]}: {str(column.iloc[int(bad[0])])[:40]!r}; 'missing' names "
                    f"texts that stand for none, 'columns: {{{name}: null}}' leaves the column out"
                )
                continue
            column = tried
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        numbers[name] = np.where(np.isfinite(values), values, np.nan)
    return pd.DataFrame(numbers, index=frame.index), unread


def _number_meters(frame: pd.DataFrame, long: LongSpec | None) -> tuple[npt.NDArray[np.int64], list[Meter]]:
    """Return which meter each row is of, and what these are; one without a name where the table is wide."""
    import pandas as pd

    if long is None:
        return np.zeros(len(frame), dtype=np.int64), [Meter("", "")]
    ids = frame[long.id]
    if pd.api.types.is_float_dtype(ids) and (ids.dropna() % 1 == 0).all():
        ids = ids.astype("Int64")  # a column of whole numbers with one empty cell
    names = ids.astype(str).str.strip()
    if long.quantity is None:
        key, found = pd.factorize(names)
        return np.asarray(key, dtype=np.int64), [Meter(str(name), "") for name in found]
    key, pairs = pd.factorize(pd.MultiIndex.from_arrays([names, frame[long.quantity].astype(str).str.strip()]))
    return np.asarray(key, dtype=np.int64), [Meter(*map(str, each)) for each in pairs]


def _has_repeated(
    times: npt.NDArray[np.datetime64],
    key: npt.NDArray[np.int64],
    meters: list[Meter],
    numbers: pd.DataFrame,
    found: Findings,
) -> bool:
    """Whether a row comes twice with different values; one that is the same twice is told only."""
    import pandas as pd

    rows = pd.DataFrame({"key": key, "time": times})
    again = np.flatnonzero(rows.duplicated().to_numpy())
    if not len(again):
        return False
    both = pd.concat([rows, numbers.set_axis(range(numbers.shape[1]), axis=1).reset_index(drop=True)], axis=1)
    other = np.setdiff1d(again, np.flatnonzero(both.duplicated().to_numpy()))
    if not len(other):
        found.note(f"{len(again)} rows come twice with the same values and count once")
        return False
    row = int(other[0])
    first = int(np.flatnonzero((rows["key"] == key[row]) & (rows["time"] == times[row]))[0])
    of = f" of meter {meters[key[row]].name!r}" if meters[key[row]].name else ""
    one, two = both.iloc[first, 2:], both.iloc[row, 2:]
    column = int((one.ne(two) & ~(one.isna() & two.isna())).to_numpy().argmax())
    shown = [f"{values.iloc[column]:g} in line {found.first_line + at}" for values, at in ((one, first), (two, row))]
    found.refuse(
        f"{len(other)} stamps{of} come twice with different values, the first is {times[row]} with "
        f"{numbers.columns[column]!r} {' and '.join(shown)}; if clocks are set back then, say time.zone, as "
        "America/New_York, else keep one of each"
    )
    return True


def _lay_out(
    times: npt.NDArray[np.datetime64],
    key: npt.NDArray[np.int64],
    meters: list[Meter],
    numbers: pd.DataFrame,
    step: int,
    where: str,
) -> MeasuredTable:
    """Put each series on all rows from the first to the last."""
    import pandas as pd

    whole = pd.DatetimeIndex(
        np.arange(times.min(), times.max() + np.timedelta64(step * 60, "s"), np.timedelta64(step * 60, "s"))
    )
    place = ((times - times.min()).astype(np.int64) // (step * 60)).astype(np.int64)
    values, names, labels = [], [], []
    for label in numbers.columns:
        block = np.full((len(whole), len(meters)), np.nan)
        block[place, key] = numbers[label].to_numpy()
        values.append(block)
        names += [meter.name or str(label) for meter in meters]
        labels += [meter.quantity or str(label) for meter in meters]
    table = np.concatenate(values, axis=1) if values else np.empty((len(whole), 0))
    some = ~np.isnan(table).all(axis=0)
    kept = np.flatnonzero(some)
    frame = pd.DataFrame(table[:, kept], index=whole)
    return MeasuredTable(where, step, frame, [names[i] for i in kept], [labels[i] for i in kept])


def own_rows(values: pd.Series, step_minutes: int, title: str, problems: list[str]) -> tuple[pd.Series, int]:
    """Return a series at the rows that it has, and their length [min]: the table's, or more where it is coarser.

    Args:
        values: It, at all rows of the table.
        step_minutes: Length of these [min].
        title: What problems call it.
        problems: Gets one where its rows are of one length first and of another later.
    """
    known = np.flatnonzero(values.notna().to_numpy())
    apart = np.diff(known)
    if not len(apart):
        return values, step_minutes
    usual = int(np.bincount(apart).argmax())
    if usual > 1 and (apart == usual).mean() > 0.5 and (known % usual == known[0] % usual).all():
        return values.iloc[known[0] % usual :: usual], step_minutes * usual
    turns = np.flatnonzero(np.diff(apart, prepend=0, append=0) != 0)
    for begin, end in itertools.pairwise(turns.tolist()):
        if apart[begin] > 1 and end - begin >= _LONG_RUN:
            problems.append(
                f"{title}: from {values.index[known[begin]]} on {end - begin} rows are {apart[begin] * step_minutes} "
                f"min apart, where most are {usual * step_minutes} min: bring all of it to one length first"
            )
            break
    return values, step_minutes


def _look_for_changed_clocks(table: MeasuredTable, ahead_min: FloatArray, spec: ImportMap, problems: list[str]) -> None:
    """Tell an hour that is missing where clocks are set forward, of a table that says nothing of its zone."""
    if spec.time.zone is not None or spec.time.clock is not None or not np.isnan(ahead_min).all():
        return
    missing = table.values.index[table.values.isna().all(axis=1)]
    for time in missing:
        # the whole hour from 1, 2 or 3 o'clock on a Sunday in spring, of either half of the Earth, and it alone
        if time.day_of_week == 6 and time.month in (3, 4, 9, 10) and time.hour in (1, 2, 3) and time.minute == 0:
            hour = missing[(missing >= time.floor("D")) & (missing < time.floor("D") + np.timedelta64(1, "D"))]
            if len(hour) * table.step_minutes == 60 and (hour.hour == time.hour).all():
                problems.append(
                    f"{table.where}: the hour of {time} is missing, as where clocks are set forward; say time.zone, as "
                    f"America/New_York, or '{STANDARD}' if the clock never changes"
                )
                return
