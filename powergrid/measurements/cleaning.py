"""A series in the unit of its kind, with outliers and gaps treated by rule; what was done is counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from powergrid.grid.profiles.tables import PRICE_PREFIX
from powergrid.measurements.targets import Series
from powergrid.measurements.vocabulary import GapRule, ImportMap, OutlierRule

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

WEEK = pd.Timedelta(days=7)
#: Beyond what a series is in another unit than is said, where the map has no ``limits``: of demand in parts of the
#: loads' rating, of the sun in parts of the panels', of prices in USD/kWh.
LIMITS = {"demand_pu": 20.0, "pv_pu": 2.0, PRICE_PREFIX: 5.0}
#: No tariff is usually above this, and none stays below that [USD/kWh].
_USUAL_PRICE, _LEAST_PRICE = 1.0, 0.002
#: What panels may take at night, in parts of their rating.
_AT_NIGHT = 0.05
#: Values that make a unit wrong, not outliers, are more than this part of all.
_MANY = 0.005


@dataclass
class Cleaned:
    """What was found in a series and done to it, in rows of its table.

    Attributes:
        rows: Rows there are.
        missing: Rows without a number, before anything was done.
        filled: Of these, filled by the rule.
        outliers: Values beyond the bound, and what became of them, in words.
        first_outlier: The first of them with its time, in words.
        negative: Values below 0 that were set to 0.
    """

    rows: int
    missing: int = 0
    filled: int = 0
    outliers: int = 0
    first_outlier: str = ""
    negative: int = 0


def convert(series: Series, problems: list[str]) -> pd.Series[float]:
    """Return a series in the unit of its kind: kW, kvar, kVA, A, pu, 1000 W/m2, deg C or USD/kWh."""
    values = (series.values + series.unit.offset) * series.unit.factor
    if series.unit.kind not in ("kwh", "kvarh"):
        return values
    if series.spec.reading == "register":
        # A counter is read at the stamp: a row's energy is what it has grown by when the next row begins.
        grown = values.diff() if series.stamps == "end" else -values.diff(-1)
        values = grown.where(grown >= 0.0)  # it began anew, or was exchanged
    else:
        known = values.dropna()
        rises = (known.diff().dropna() > 0.0).mean() if len(known) > 48 else 0.0
        if rises > 0.5 and known.is_monotonic_increasing:
            problems.append(
                f"{series.title}: never falls from {known.iloc[0]:g} to {known.iloc[-1]:g} {series.unit.name}, as a "
                "counter does; say 'reading: register'"
            )
    return values / (series.step_minutes / 60.0)


def check_sign(
    values: pd.Series[float], series: Series, spec: ImportMap, done: Cleaned, problems: list[str]
) -> pd.Series[float]:
    """Return demand with values below 0 as the map wants them."""
    below = values < 0.0
    if not below.any() or spec.negative == "keep":
        return values
    if spec.negative == "zero":
        done.negative = int(below.sum())
        return values.mask(below, 0.0)
    first = values[below].index[0]
    problems.append(
        f"{series.title}: {int(below.sum())} values below 0, the first {values[first]:g} {_unit(series)} at {first}; "
        "demand is what a load takes: say 'negative: keep' where the meter is behind panels, or 'negative: zero'"
    )
    return values


def check_sun(
    values: pd.Series[float], series: Series, spec: ImportMap, done: Cleaned, problems: list[str]
) -> pd.Series[float]:
    """Return sun without what an inverter takes at night; where it is below 0 by more, its sign is a problem."""
    below = values < -_AT_NIGHT
    if below.any() and spec.negative == "error":
        first = values[below].index[0]
        problems.append(
            f"{series.title}: {int(below.sum())} values below 0, the first {values[first]:.4g} {_unit(series)} at "
            f"{first}; sun is what panels give: turn its sign, or say 'negative: zero'"
        )
    done.negative = int((values < 0.0).sum())
    return values.clip(lower=0.0)


def check_unit(
    values: pd.Series[float], series: Series, most: float, remedy: str, problems: list[str], notes: list[str]
) -> pd.Series[float]:
    """Return a series without single values that cannot be; where many cannot, its unit is another: a problem.

    Args:
        values: The series in the unit of its kind.
        series: What it is of.
        most: Largest number that is plausible, infinite where none is known.
        remedy: What a problem says the unit may be.
        problems: Gets it.
        notes: Gets what single values were.
    """
    beyond = values.abs() > most
    if not beyond.any():
        return values
    peak = int(np.nanargmax(values.abs().to_numpy()))
    if beyond.sum() <= max(1.0, _MANY * len(values)) and len(values) > 96:
        notes.append(
            f"{series.title}: {int(beyond.sum())} values beyond {most:g} {_unit(series)} are taken for gaps, the "
            f"highest {values.iloc[peak]:g} at {values.index[peak]:%Y-%m-%d %H:%M}"
        )
        return values.mask(beyond)
    problems.append(
        f"{series.title}: {int(beyond.sum())} values beyond {most:g} {_unit(series)}, the highest "
        f"{values.iloc[peak]:g} at {values.index[peak]}; {remedy}"
    )
    return values


def check_price(values: pd.Series[float], series: Series, problems: list[str]) -> None:
    """Add a problem where a price's numbers are all plausible, and it as a whole is not."""
    usual, most = float(values.abs().median()), float(values.abs().max())
    if usual > _USUAL_PRICE or 0.0 < most < _LEAST_PRICE:
        problems.append(
            f"{series.title}: {values.median():.3g} USD/kWh is its median and {most:.3g} the most, read as "
            f"{series.unit.name}; {'ct/MWh, USD/MWh or ct/kWh' if usual > _USUAL_PRICE else 'ct/kWh or USD/kWh'} "
            "would be usual prices: say its 'unit', or limits.price_usd_per_kwh where it is meant"
        )


def treat_outliers(values: pd.Series[float], rule: OutlierRule, done: Cleaned) -> pd.Series[float]:
    """Return a series with what is far from the median of its hour of the day as the rule wants it."""
    hour = values.index.hour  # type: ignore[attr-defined]
    middle = values.groupby(hour).transform("median")
    away = (values - middle).abs()
    # A series that hardly moves at some hour would have any move there for an outlier.
    floor = 0.02 * float(values.abs().quantile(0.95)) if values.notna().any() else 0.0
    reach = rule.spread * np.maximum(1.4826 * away.groupby(hour).transform("median"), max(floor, 1e-9))
    far = away > reach
    done.outliers = int(far.sum())
    if not done.outliers:
        return values
    first = values[far].index[0]
    done.first_outlier = f"{values[first]:g} at {first:%Y-%m-%d %H:%M}, where {middle[first]:g} is usual"
    if rule.rule == "gap":
        return values.mask(far)
    return values.clip(middle - reach, middle + reach) if rule.rule == "clip" else values


def fill_gaps(values: pd.Series[float], rule: GapRule, step_minutes: int, done: Cleaned) -> pd.Series[float]:
    """Return a series with gaps filled by the rule; what it does not fill stays missing."""
    missing = values.isna()
    done.missing = int(missing.sum())
    if not done.missing or rule.rule == "leave_out":
        return values
    if rule.rule == "interpolate":
        run = (~missing).cumsum()
        length = missing.groupby(run).transform("sum") * step_minutes
        filled = values.interpolate(limit_area="inside").where(~missing | (length <= rule.longest_minutes))
    else:
        filled = values.fillna(values.shift(freq=WEEK).reindex(values.index))
        filled = filled.fillna(values.shift(freq=-WEEK).reindex(values.index))
    done.filled = int((missing & filled.notna()).sum())
    return filled


def _unit(series: Series) -> str:
    names = {"kwh": "kW", "kvarh": "kvar", "kw": "kW", "kvar": "kvar", "kva": "kVA", "a": "A", "kv": "kV"}
    names["price"] = "USD/kWh"
    return names.get(series.unit.kind, "pu" if series.kind != "temperature" else "deg C")
