"""Series of demand, sun and price: shipped, read or the feeder's own; split into days.

It knows neither engine nor agents. Every row is the mean over the interval that starts at its time stamp, in local
standard time.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.feeder.network import Loads, Network
from powergrid.grid.feeder.network.shapes import ShapeMode
from powergrid.grid.profiles.tables import MINUTES_PER_DAY, ProfileTable, derive_pv, read_table

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Split = Literal["train", "validation", "test", "all"]

# of every 17 weeks 12 train, 2 validate and 3 test; 17 and the 13 weeks of a season share no factor, so the pattern
# meets every season
CYCLE_WEEKS = 17
TEST_WEEKS = (2, 8, 14)
VALIDATION_WEEKS = (5, 11)
#: The series of loads that name no LoadShape: OpenDSS takes them at their nominal demand.
FLAT = "flat"


@dataclass(frozen=True, eq=False)
class Profiles:
    """Hold the exogenous series of a scenario, whole days from a midnight on.

    Attributes:
        name: Where the series come from.
        step_minutes: Length of a row [min]; divides a day.
        start: Midnight of day 0, local standard time.
        demand_pu: Demand per unit of each load's rated kW, shape (n_rows, n_series).
        demand_names: Name of each demand series; what precedes a final ``_<number>`` is its class.
        pv_pu: DC power per unit of a PV array's STC rating, shape (n_rows,); None where unknown.
        irradiance_pu: Irradiance on the modules per 1000 W/m2, shape (n_rows,); None where unknown.
        temperature_c: Air temperature [deg C], shape (n_rows,); None where unknown.
        price_usd_per_kwh: Price of energy by tariff [USD/kWh], each of shape (n_rows,).
        demand_kvar_pu: Reactive demand per unit of each load's rated kvar, shape (n_rows, n_series); None where it
            follows ``demand_pu``, at the power factor of the model.
        load_series: The series that belongs to a load, by the load's name in lower case.
        load_base: What 1.0 pu of its series is for a load that it belongs to [kW, kvar], where not the load's rating.
        left_out: Days that are never played, from day 0: what was measured on them cannot be used.
        shape_mode: In which mode loads follow their own LoadShapes in place of these series; None where they do not.
        own_sun: Whether ``pv_pu`` is of the user's own, so that it goes before the shapes that the model gives panels.
    """

    name: str
    step_minutes: int
    start: np.datetime64
    demand_pu: FloatArray
    demand_names: tuple[str, ...]
    pv_pu: FloatArray | None = None
    irradiance_pu: FloatArray | None = None
    temperature_c: FloatArray | None = None
    price_usd_per_kwh: Mapping[str, FloatArray] = field(default_factory=dict)
    demand_kvar_pu: FloatArray | None = None
    load_series: Mapping[str, str] = field(default_factory=dict)
    load_base: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()
    shape_mode: ShapeMode | None = None
    own_sun: bool = False

    def __post_init__(self) -> None:
        """Keep read-only views, so that no step can change the series and the caller's own arrays stay writeable."""
        prices: dict[str, FloatArray] = {}
        for name, values in self._series().items():
            view = values.view()
            view.flags.writeable = False
            kind, _, tariff = name.partition(":")
            if tariff:
                prices[tariff] = view
            else:
                object.__setattr__(self, kind, view)
        object.__setattr__(self, "price_usd_per_kwh", prices)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.demand_pu.shape[0])

    @property
    def rows_per_day(self) -> int:
        """Number of rows in a day."""
        return MINUTES_PER_DAY // self.step_minutes

    @property
    def n_days(self) -> int:
        """Number of whole days."""
        return self.n_rows // self.rows_per_day

    def step_ends(self, day: int, n_steps: int) -> FloatArray:
        """Return the hours at which the steps from midnight of a day on end: those by which OpenDSS counts them."""
        hours: FloatArray = 24.0 * day + np.arange(1.0, n_steps + 1.0) * (self.step_minutes / 60.0)
        return hours

    def _series(self) -> dict[str, FloatArray]:
        plain = {name: getattr(self, name) for name in ("demand_kvar_pu", "pv_pu", "irradiance_pu", "temperature_c")}
        series = {"demand_pu": self.demand_pu} | {key: value for key, value in plain.items() if value is not None}
        return series | {f"price_usd_per_kwh:{tariff}": value for tariff, value in self.price_usd_per_kwh.items()}

    def resample(self, step_minutes: int) -> Profiles:
        """Change the length of a row: coarser rows are means, finer rows hold their value.

        Energy is the same either way, since a row is a mean over its interval.

        Raises:
            ScenarioError: If the step is neither a whole divisor nor a whole multiple that divides a day.
        """
        if step_minutes == self.step_minutes:
            return self
        allowed = _allowed_steps(self.step_minutes)
        if step_minutes not in allowed:
            problem = f"step_minutes {step_minutes} does not fit rows of {self.step_minutes} min; allowed: "
            raise ScenarioError(f"profiles {self.name!r}", [problem + ", ".join(str(step) for step in allowed)])

        def change(values: FloatArray) -> FloatArray:
            if step_minutes < self.step_minutes:
                return np.repeat(values, self.step_minutes // step_minutes, axis=0)
            blocks = values.reshape(-1, step_minutes // self.step_minutes, *values.shape[1:])
            return np.asarray(blocks.mean(axis=1), dtype=np.float64)

        series = {name: change(values) for name, values in self._series().items()}
        prices = {tariff: series[f"price_usd_per_kwh:{tariff}"] for tariff in self.price_usd_per_kwh}
        return replace(
            self,
            step_minutes=step_minutes,
            demand_pu=series["demand_pu"],
            pv_pu=series.get("pv_pu"),
            irradiance_pu=series.get("irradiance_pu"),
            temperature_c=series.get("temperature_c"),
            price_usd_per_kwh=prices,
            demand_kvar_pu=series.get("demand_kvar_pu"),
        )

    def owned(self, loads: Loads, classes: Mapping[str, str]) -> BoolArray:
        """Return whether each load draws what was measured of it: no rule gives it another series by its name."""
        ruled = {name.lower() for name in classes} if self.load_base else set[str]()
        return np.array([load in self.load_base and load not in ruled for load in loads.names], dtype=np.bool_)

    def base_of(self, loads: Loads, classes: Mapping[str, str]) -> tuple[FloatArray, FloatArray]:
        """Return what 1.0 pu is for each load [kW, kvar]: its rating, or the base of the series that belongs to it.

        Args:
            loads: The load table.
            classes: Rules; a load that one gives another series by its name has its rating.
        """
        kw, kvar = loads.kw.copy(), loads.kvar.copy()
        for i in np.flatnonzero(self.owned(loads, classes)).tolist():
            kw[i], kvar[i] = self.load_base[loads.names[i]]
        return kw, kvar

    def digest(self) -> str:
        """Return a SHA-256 of the content, for a run's manifest; the name does not enter."""
        head: list[object] = [self.step_minutes, str(self.start.astype("datetime64[m]")), list(self.demand_names)]
        if self.load_series or self.left_out:  # run folders keep digests: those of other series stay what they were
            head += [sorted(self.load_series.items()), sorted(self.load_base.items()), list(self.left_out)]
        sha = hashlib.sha256(json.dumps(head).encode())
        if self.shape_mode is not None:  # the shapes are the feeder's, and in its digest
            sha.update(self.shape_mode.encode())
        for name, values in sorted(self._series().items()):
            sha.update(f"{name}{values.shape}".encode())
            sha.update(np.ascontiguousarray(values, dtype="<f8").tobytes())  # the same on machines of either byte order
        return sha.hexdigest()


def _allowed_steps(step_minutes: int) -> list[int]:
    finer = [step for step in range(1, step_minutes + 1) if step_minutes % step == 0]
    coarser = range(2 * step_minutes, MINUTES_PER_DAY + 1, step_minutes)
    return finer + [step for step in coarser if MINUTES_PER_DAY % step == 0]


@functools.lru_cache(maxsize=2)
def builtin_profiles(*, demand: bool = True) -> Profiles:
    """Return the year at 15 minutes that ships with the package, read-only and loaded once.

    Args:
        demand: Whether its demand is wanted, which is most of it; else all loads are flat.

    Source:
        ``scripts/make_profiles.py``; provenance and figures in ``docs/profiles.md``.
    """
    with (resources.files("powergrid") / "grid/profiles/profiles.npz").open("rb") as file, np.load(file) as archive:
        meta = json.loads(archive["meta"].tobytes())
        # division by the whole number of counts in a unit gives the decimal as written, multiplication may not
        quanta = {key: quantum for key, quantum in meta["quanta"].items() if demand or key != "demand_pu"}
        series = {key: archive[key] / round(1.0 / quantum) for key, quantum in quanta.items()}
    return Profiles(
        name=meta["name"],
        step_minutes=meta["step_minutes"],
        start=np.datetime64(meta["start"], "m"),
        demand_pu=np.ascontiguousarray(series["demand_pu"].T) if demand else np.ones((len(series["pv_pu"]), 1)),
        demand_names=tuple(meta["demand_names"]) if demand else (FLAT,),
        pv_pu=series["pv_pu"],
        irradiance_pu=series["irradiance_pu"],
        temperature_c=series["temperature_c"],
        price_usd_per_kwh=dict(zip(meta["tariffs"], series["price_usd_per_kwh"], strict=True)),
    )


def read_profiles(source: str | Path | pd.DataFrame, name: str | None = None) -> Profiles:
    """Read your own series from a CSV file, a Parquet file or a DataFrame.

    Columns: ``time`` (or a DatetimeIndex), ``demand_pu:<name>`` or ``load_pu:<name>``, ``pv_pu``, ``irradiance_pu``,
    ``temperature_c``, ``price_usd_per_kwh:<tariff>`` or ``price_usd_per_kwh``; ``demand_kvar_pu:<name>`` beside a
    ``demand_pu:<name>`` where reactive demand goes its own way. Without ``pv_pu`` it is derived from
    ``irradiance_pu`` and ``temperature_c``; where one of these is missing too it stays None.

    Raises:
        ScenarioError: With every problem of the table.
    """
    table = read_table(source, name)
    sun, air = table.plain.get("irradiance_pu"), table.plain.get("temperature_c")
    pv_pu = table.plain.get("pv_pu")
    if pv_pu is None and sun is not None and air is not None:
        pv_pu = derive_pv(sun, air)
    return Profiles(
        name=table.name,
        step_minutes=table.step_minutes,
        start=table.start,
        demand_pu=np.stack(list(table.demand_pu.values()), axis=1),
        demand_names=tuple(table.demand_pu),
        pv_pu=pv_pu,
        irradiance_pu=sun,
        temperature_c=air,
        price_usd_per_kwh=table.price_usd_per_kwh,
        demand_kvar_pu=_kvar_beside(table),
        own_sun=pv_pu is not None,
    )


def _kvar_beside(table: ProfileTable) -> FloatArray | None:
    """Return the reactive series beside the demand's, which are theirs too where a table has none."""
    if not table.demand_kvar_pu:
        return None
    return np.stack([table.demand_kvar_pu.get(name, kw) for name, kw in table.demand_pu.items()], axis=1)


def profiles_from_loadshapes(shapes: Mapping[str, tuple[FloatArray, float]], step_minutes: int) -> Profiles:
    """Make demand series out of a feeder's own LoadShapes.

    A shape runs from midnight and repeats, as it does in OpenDSS; the result has as many days as the longest shape
    begins, one where all are daily; day 0 is a Monday. Each row is the mean of the shape over it, so energy is kept.

    Args:
        shapes: Multipliers, shape (n_points,), and the interval between them [min], by name of the LoadShape.
        step_minutes: Length of a row [min]; divides a day.

    Raises:
        ScenarioError: With every shape that is empty, not finite or has no fixed interval.
    """
    problems = [] if shapes else ["the feeder has no LoadShape"]
    if step_minutes < 1 or MINUTES_PER_DAY % step_minutes:
        problems.append(f"step_minutes {step_minutes} does not divide a day of {MINUTES_PER_DAY} min")
    for name, (values, interval) in shapes.items():
        if not np.isfinite(interval) or interval <= 0.0:
            problems.append(f"LoadShape {name!r}: interval {interval:g} min; only a fixed interval > 0 can be used")
        if np.ndim(values) != 1 or np.size(values) == 0:
            problems.append(f"LoadShape {name!r}: multipliers of shape {np.shape(values)}, not a list of numbers")
        elif not np.isfinite(values).all():
            problems.append(f"LoadShape {name!r}: point {int(np.argmin(np.isfinite(values)))} is not finite")
    if problems:
        raise ScenarioError("profiles from LoadShapes", problems)
    longest = max(np.size(values) * interval for values, interval in shapes.values())
    n_days = max(1, int(np.ceil(longest / MINUTES_PER_DAY - 1e-9)))
    edges = np.arange(n_days * MINUTES_PER_DAY // step_minutes + 1, dtype=np.float64) * step_minutes
    series = [_average_shape(np.asarray(values, dtype=np.float64), step, edges) for values, step in shapes.values()]
    return Profiles("loadshapes", step_minutes, _A_MONDAY, np.stack(series, axis=1), tuple(shapes))


#: When day 0 begins, as shapes have no dates.
_A_MONDAY = np.datetime64("2018-01-01", "m")


def _average_shape(values: FloatArray, interval: float, edges: FloatArray) -> FloatArray:
    """Average a repeating step function between edges [min], by differences of its integral."""
    period = len(values) * interval
    integral = np.concatenate(([0.0], np.cumsum(values * interval)))
    turns = np.floor(edges / period + 1e-12)  # an edge at the end of a period belongs to the next
    rest = np.clip(edges - turns * period, 0.0, period)
    total = turns * integral[-1] + np.interp(rest, np.arange(len(values) + 1) * interval, integral)
    return np.asarray(np.diff(total) / np.diff(edges), dtype=np.float64)


def find_shape_problems(network: Network, mode: ShapeMode | None = None) -> list[str]:
    """List what keeps the feeder's LoadShapes from being followed, in the model's own mode if none is given."""
    used = [network.followed_by(name, mode) for name in network.shapes_of]
    places = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *used]))
    return list(network.shapes.find_problems(places[places >= 0]))


def follow_loadshapes(network: Network, base: Profiles, mode: ShapeMode | None = None) -> Profiles:
    """Return the base series with the feeder's LoadShapes in place of its demand.

    Each load follows its own shape, at whatever step is played; a load without one stays at its nominal demand.

    Args:
        network: The feeder.
        base: Gives days, sun, temperature and prices.
        mode: Which of their shapes elements follow; what the model itself says if not given.

    Raises:
        ScenarioError: no element follows a LoadShape, or one cannot be used.
    """
    followed = [network.followed_by(name, mode) for name in network.shapes_of]
    if not any((rows >= 0).any() for rows in followed):
        raise ScenarioError("profiles", ["source 'loadshapes': no load of the feeder names a LoadShape"])
    problems = find_shape_problems(network, mode)
    if problems:
        raise ScenarioError("profiles", [f"source 'loadshapes': {problem}" for problem in problems])
    demand, mode = np.ones((base.n_rows, 1)), mode or network.shape_mode
    return replace(base, name="loadshapes", demand_pu=demand, demand_names=(FLAT,), shape_mode=mode)


def split_days(profiles: Profiles | int, start: np.datetime64 | None = None, split: str = "all") -> IntArray:
    """Return the days of a split, as indices from day 0.

    Whole weeks from Monday on, by a pattern of 17: weeks 2, 8 and 14 test, 5 and 11 validate, the other 12 train.
    Days before the first Monday and after the last Sunday train. Of 3 to 5 whole weeks the last tests and the one
    before it validates. With fewer there is only ``"all"``. Days that are left out are in none.

    Args:
        profiles: The series, or their number of days.
        start: Midnight of day 0; needed with a number of days only.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.

    Raises:
        ScenarioError: If there is no such split or the series are too short to be split.
    """
    if isinstance(profiles, Profiles):
        n_days, start, left_out = profiles.n_days, profiles.start, profiles.left_out
    else:
        n_days, left_out = int(profiles), ()
    if split not in get_args(Split):
        raise ScenarioError("split", [describe_unknown("split", split, get_args(Split))])
    days = np.arange(n_days, dtype=np.int64)
    if split == "all":
        return np.setdiff1d(days, left_out)
    if start is None:
        raise ScenarioError("split", ["a number of days needs the date it starts at"])
    weekday = (int(start.astype("datetime64[D]").astype(np.int64)) + 3) % 7  # 1970-01-01 was a Thursday
    first_monday = -weekday % 7
    n_weeks = max(0, (n_days - first_monday) // 7)
    if n_weeks < 3:
        raise ScenarioError(
            "split",
            [f"{split!r} needs at least 3 whole weeks from Monday to Sunday, and there are {n_weeks}; use 'all'"],
        )
    weeks = np.arange(n_weeks)
    if n_weeks < 6:  # too few for the pattern, which tests and validates from the third and the sixth week on
        test, validation = weeks == n_weeks - 1, weeks == n_weeks - 2
    else:
        test, validation = (np.isin(weeks % CYCLE_WEEKS, picked) for picked in (TEST_WEEKS, VALIDATION_WEEKS))
    of_day = np.zeros(n_days, dtype=np.int64)
    of_day[first_monday : first_monday + 7 * n_weeks] = np.repeat(np.where(test, 2, np.where(validation, 1, 0)), 7)
    found = np.flatnonzero(of_day == ("train", "validation", "test").index(split)).astype(np.int64)
    return np.setdiff1d(found, left_out)


def pick_days(days: IntArray, count: int) -> IntArray:
    """Pick days spread evenly over what there is, all of it where there are fewer; the first of one."""
    if count >= len(days):
        return days
    # The middles of equal parts: neither the first nor the last day of a split stands for its season.
    picked: IntArray = days[np.rint((np.arange(count) + 0.5) * len(days) / count - 0.5).astype(np.int64)]
    return picked


def eligible_days(profiles: Profiles, split: str, horizon_steps: int, step_minutes: int | None = None) -> IntArray:
    """Return the days an episode may start on: all the days it covers lie in the split and in the series.

    Args:
        profiles: The series.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        horizon_steps: Steps of an episode, >= 1; an episode starts at midnight.
        step_minutes: Length of a step [min]; by default that of the series.

    Raises:
        ScenarioError: If an episode is longer than any block of days; says the longest possible.
    """
    minutes = profiles.step_minutes if step_minutes is None else step_minutes
    if horizon_steps < 1:
        raise ScenarioError("horizon_steps", [f"{horizon_steps} is below 1"])
    days = split_days(profiles, None, split)
    span = -(-horizon_steps * minutes // MINUTES_PER_DAY)
    # days in a row are those whose last index is span - 1 further on than the first
    first, last = days[: max(0, len(days) - span + 1)], days[span - 1 :]
    fits: IntArray = first[last - first == span - 1]
    if not len(days):
        raise ScenarioError("split", [f"{split!r} has no days: all {len(profiles.left_out)} of them are left out"])
    if not len(fits):
        blocks = np.split(days, np.flatnonzero(np.diff(days) > 1) + 1)
        longest = max(len(block) for block in blocks)
        problem = (
            f"{horizon_steps} steps of {minutes} min cover {span} days, more than any block of split {split!r};"
            f" the longest possible is {longest * MINUTES_PER_DAY // minutes} steps ({longest} days)"
        )
        raise ScenarioError("horizon_steps", [problem])
    return fits
