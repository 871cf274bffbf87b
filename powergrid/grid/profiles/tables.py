"""Check a user's table of time series and take it apart; it knows neither engine nor environment.

pandas is imported only here, and only when a table is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, describe_unknown, nearest_names
from powergrid.grid.profiles.table_files import open_table

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]

TIME_COLUMN = "time"
DEMAND_PREFIXES = ("demand_pu", "load_pu")
KVAR_PREFIX = "demand_kvar_pu"
PRICE_PREFIX = "price_usd_per_kwh"
PLAIN_COLUMNS = ("pv_pu", "irradiance_pu", "temperature_c")
NON_NEGATIVE = ("demand_pu", "pv_pu", "irradiance_pu")
#: Beyond what no such number lies in its unit, and what it is then most likely.
PLAUSIBLE = {
    "demand_pu": (20.0, "it is per unit of a load's rated kW; 'powergrid profiles import' takes kW and kWh"),
    KVAR_PREFIX: (20.0, "it is per unit of a load's rated kvar; 'powergrid profiles import' takes kvar and kvarh"),
    "pv_pu": (2.0, "it is per unit of an array's rating; divide percent by 100, W/m2 by 1000, kW by the rated kW"),
    "irradiance_pu": (2.0, "it is per 1000 W/m2; divide W/m2 by 1000"),
    "temperature_c": (70.0, "it is in deg C; 0 deg C are 273.15 K and 32 deg F"),
    PRICE_PREFIX: (10.0, "it is in USD/kWh; divide USD/MWh by 1000, cents by 100"),
}
MINUTES_PER_DAY = 1440


@dataclass
class ProfileTable:
    """The checked columns of a table, each of shape (n_rows,)."""

    name: str
    step_minutes: int
    start: np.datetime64
    demand_pu: dict[str, FloatArray] = field(default_factory=dict)
    demand_kvar_pu: dict[str, FloatArray] = field(default_factory=dict)
    plain: dict[str, FloatArray] = field(default_factory=dict)
    price_usd_per_kwh: dict[str, FloatArray] = field(default_factory=dict)


def read_table(source: str | Path | pd.DataFrame, name: str | None = None) -> ProfileTable:
    """Read and check a CSV file, a Parquet file or a DataFrame.

    Raises:
        ScenarioError: With every problem of the table, or the reason it cannot be opened.
    """
    if isinstance(source, str | Path):
        where = str(source)
        frame = open_table(Path(source), where)
        name = name or Path(source).name.split(".")[0]
    else:
        where = "the profiles DataFrame"
        if not hasattr(source, "columns"):
            wanted = "give 'builtin', 'loadshapes', the path of a table, or a DataFrame"
            raise ScenarioError("profiles.source", [f"a {type(source).__name__} is no table; {wanted}"])
        frame = source
        name = name or "table"
    problems: list[str] = []
    times = _take_times(frame, problems)
    table = ProfileTable(name, 0, np.datetime64("NaT", "m"))
    if times is not None:
        table.start = times[0].astype("datetime64[m]") if len(times) else table.start
        table.step_minutes = _check_times(times, problems)
    for column in frame.columns:
        if column != TIME_COLUMN:
            _take_column(table, column, frame, times, problems)
    # a demand column that was refused has its own problem above; only its absence is one more
    if not any(str(column).partition(":")[0] in DEMAND_PREFIXES for column in frame.columns):
        problems.append(
            "no demand column; name at least one 'demand_pu:<name>', or say 'profiles.map' of a measured table"
        )
    problems += [
        f"column '{KVAR_PREFIX}:{alone}': " + describe_unknown("demand", alone, table.demand_pu)
        for alone in sorted(table.demand_kvar_pu.keys() - table.demand_pu.keys())
    ]
    if problems:
        raise ScenarioError(where, problems)
    return table


def derive_pv(irradiance_pu: FloatArray, temperature_c: FloatArray) -> FloatArray:
    """Estimate DC power per unit of STC rating from sun and air temperature.

    Args:
        irradiance_pu: Irradiance on the modules per 1000 W/m2.
        temperature_c: Air temperature [deg C], same shape.

    Source:
        Cell temperature by the NOCT relation, T_air + (NOCT - 20 degC) G / 800 W/m2 with NOCT 45 degC; power by
        PVWatts V5 (Dobos 2014, NREL/TP-6A20-62641) with -0.37 %/K, without losses.
    """
    cell_c = temperature_c + (45.0 - 20.0) * irradiance_pu / 0.8
    return np.asarray(np.maximum(irradiance_pu * (1.0 - 0.0037 * (cell_c - 25.0)), 0.0), dtype=np.float64)


def _take_times(frame: pd.DataFrame, problems: list[str]) -> npt.NDArray[np.datetime64] | None:
    """Find the time column or index; give it as datetime64[s] in local standard time, or None with a problem."""
    import pandas as pd

    if TIME_COLUMN in frame.columns:
        column = frame.loc[:, [TIME_COLUMN]].iloc[:, 0]
    elif isinstance(frame.index, pd.DatetimeIndex):
        column = pd.Series(frame.index)
    else:
        near = nearest_names(TIME_COLUMN, [str(c) for c in frame.columns], 1)
        hint = f" (is it {near[0]!r}?)" if near else ""
        problems.append(f"no column {TIME_COLUMN!r} and no DatetimeIndex{hint}")
        return None
    if not len(column):
        problems.append("the table has no rows")
        return None
    if pd.api.types.is_numeric_dtype(column):
        problems.append(f"column {TIME_COLUMN!r} holds numbers, not timestamps such as '2018-01-01 00:15'")
        return None
    mixed = f"column {TIME_COLUMN!r}: mixes time zones; give local standard time all year"
    try:
        with warnings.catch_warnings():  # pandas 2 warns of mixed time zones, pandas 3 refuses them
            warnings.simplefilter("ignore", FutureWarning)
            parsed = pd.to_datetime(column, errors="coerce", format=None if _is_time(column) else "ISO8601")
    except ValueError:
        problems.append(mixed)
        return None
    if not _is_time(parsed):
        problems.append(mixed)
        return None
    bad = np.flatnonzero(parsed.isna().to_numpy())
    if len(bad):
        problems.append(
            f"column {TIME_COLUMN!r}: {len(bad)} rows are no ISO 8601 timestamp, the first is row {bad[0]}:"
            f" {column.iloc[int(bad[0])]!r}; 'powergrid profiles import' reads other dates"
        )
        return None
    if parsed.dt.tz is not None:  # the local time is kept, which is what rows are in
        parsed = parsed.dt.tz_localize(None)
    return parsed.to_numpy().astype("datetime64[s]")


def _is_time(column: pd.Series) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_datetime64_any_dtype(column))


def _check_times(times: npt.NDArray[np.datetime64], problems: list[str]) -> int:
    """Return the step [min] of the rows; say where they are irregular, do not start at midnight or end inside a day."""
    first_day = times[0].astype("datetime64[D]")
    if times[0] != first_day:
        problems.append(f"the first row is {times[0]}; a table starts at midnight")
    if len(times) < 2:
        problems.append("one row; a table holds at least a whole day")
        return 0
    steps = np.diff(times).astype(np.int64)
    values, counts = np.unique(steps, return_counts=True)
    step = int(values[np.argmax(counts)])
    wrong = np.flatnonzero(steps != step)
    if len(wrong):
        row = int(wrong[0]) + 1
        what = "does not come after" if steps[row - 1] <= 0 else f"is {steps[row - 1] / 60:g} min after"
        problems.append(
            f"irregular step: row {row} ({times[row]}) {what} row {row - 1} ({times[row - 1]}),"
            f" where most rows are {step / 60:g} min apart; {len(wrong)} such places"
        )
    # days are laid out in whole rows
    if step <= 0 or step % 60 or MINUTES_PER_DAY * 60 % step:
        problems.append(f"a step of {step / 60:g} min; allowed are whole minutes that divide a day")
        return 0
    rows_per_day = MINUTES_PER_DAY * 60 // step
    if len(times) % rows_per_day and not len(wrong):
        left = len(times) % rows_per_day
        problems.append(
            f"not whole days: {len(times)} rows are {len(times) // rows_per_day} days of {rows_per_day} rows"
            f" and {left} rows left over; remove them or add {rows_per_day - left}"
        )
    return step // 60


def _take_column(
    table: ProfileTable,
    column: Hashable,
    frame: pd.DataFrame,
    times: npt.NDArray[np.datetime64] | None,
    problems: list[str],
) -> None:
    """Put one column in its place in the table, or say what is wrong with it."""
    text = str(column)
    kind, _, name = text.partition(":")
    if kind in DEMAND_PREFIXES:
        kind, home, key = "demand_pu", table.demand_pu, name or "demand"
    elif kind == KVAR_PREFIX:
        home, key = table.demand_kvar_pu, name or "demand"
    elif kind == PRICE_PREFIX:
        home, key = table.price_usd_per_kwh, name or "price"
    elif text in PLAIN_COLUMNS:
        kind, home, key = text, table.plain, text
    else:
        allowed = [
            TIME_COLUMN,
            "demand_pu:<name>",
            "load_pu:<name>",
            f"{KVAR_PREFIX}:<name>",
            *PLAIN_COLUMNS,
            PRICE_PREFIX,
        ]
        allowed.append(f"{PRICE_PREFIX}:<tariff>")
        problems.append(describe_unknown("column", text, allowed))
        return
    if key in home:
        problems.append(f"column {text!r}: a second column for {key!r}")
        return
    values = _take_numbers(text, frame.loc[:, [column]].iloc[:, 0], times, problems)
    if values is None:
        return
    if said := _find_implausible(text, kind, values, times):
        problems.append(said)
        return
    home[key] = values


def _find_implausible(text: str, kind: str, values: FloatArray, times: npt.NDArray[np.datetime64] | None) -> str | None:
    """Say what no column of a kind can hold: values below 0 or beyond what is plausible, None where there are none."""
    negative = np.flatnonzero(values < 0.0) if kind in NON_NEGATIVE else np.empty(0, dtype=np.int64)
    if len(negative):
        row = int(negative[0])
        return (
            f"column {text!r}: {len(negative)} negative values, the first {values[row]:g} in row {row}"
            f"{_time_of(times, row)}; it is never below 0"
        )
    most, remedy = PLAUSIBLE[kind]
    beyond = np.flatnonzero(np.abs(values) > most)
    if len(beyond):
        row = int(beyond[np.argmax(np.abs(values[beyond]))])
        return (
            f"column {text!r}: {len(beyond)} values beyond {most:g}, as {values[row]:g} in row {row}"
            f"{_time_of(times, row)}; {remedy}"
        )
    return None


def _take_numbers(
    text: str, column: pd.Series, times: npt.NDArray[np.datetime64] | None, problems: list[str]
) -> FloatArray | None:
    """Return a column as finite numbers, or None with a problem."""
    import pandas as pd

    dtype = column.dtype
    # pandas counts truth values among the numbers
    if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
        tried = pd.to_numeric(column, errors="coerce").isna() | pd.api.types.is_bool_dtype(dtype)
        rows = np.flatnonzero((tried & column.notna()).to_numpy())
        example = f"; row {rows[0]} holds {column.iloc[int(rows[0])]!r}" if len(rows) else ""
        problems.append(f"column {text!r}: holds {dtype}, not numbers{example}")
        return None
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row = int(bad[0])
        problems.append(
            f"column {text!r}: {len(bad)} values are missing or not finite, the first in row {row}"
            f"{_time_of(times, row)}"
        )
        return None
    return values


def _time_of(times: npt.NDArray[np.datetime64] | None, row: int) -> str:
    return "" if times is None else f" ({times[row]})"
