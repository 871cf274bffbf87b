"""From tables of measurements to profiles that a scenario plays: read, cleaned, dealt out, completed from the year."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from powergrid.errors import ScenarioError, describe_unknown, list_names
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.feeder.feeder import Feeder, read_feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.profiles.imported import write_imported
from powergrid.grid.profiles.profiles import Profiles
from powergrid.grid.profiles.tables import MINUTES_PER_DAY, PRICE_PREFIX
from powergrid.measurements.allocation import Group, deal_out, follow_power_factor, to_power
from powergrid.measurements.cleaning import (
    LIMITS,
    Cleaned,
    check_price,
    check_sign,
    check_sun,
    check_unit,
    convert,
    fill_gaps,
    treat_outliers,
)
from powergrid.measurements.report import DataReport, SeriesLine, make_report
from powergrid.measurements.shipped import ShippedYear
from powergrid.measurements.tables import MeasuredTable, name_tables, read_measured
from powergrid.measurements.targets import Series, find_targets, group_columns
from powergrid.measurements.units import LARGER, SMALLER
from powergrid.measurements.vocabulary import STANDARD, ImportMap, read_map

FloatArray = npt.NDArray[np.float64]
Table = str | Path | pd.DataFrame

#: What of the weather goes before the shapes that the model gives its panels.
SUN = {"pv", "irradiance"}
#: No air was ever hotter [deg C].
_HOTTEST = 60.0
#: Below this part of the rated power of all measured loads, their highest demand is in another unit.
_LEAST = 0.002


@dataclass(frozen=True)
class Imported:
    """Profiles made of measurements.

    Attributes:
        profiles: The series, for :class:`powergrid.grid.simulation.Simulation` or to write.
        report: What became of the data.
        record: The same as plain data, with digests of tables and feeder.
    """

    profiles: Profiles
    report: DataReport
    record: Mapping[str, Any]

    @property
    def tariff(self) -> str:
        """Tariff for ``profiles.tariff`` of a scenario: the default where there is one, else the first measured."""
        names = list(self.profiles.price_usd_per_kwh)
        return "time_of_use" if "time_of_use" in names else names[0]

    def write(self, folder: str | Path) -> Path:
        """Write the folder that ``profiles.source`` of a scenario names: table, record and report.

        Raises:
            ScenarioError: there is something else, or it cannot be written; then nothing is.
        """
        texts = {"report.html": self.report.as_html(), "report.txt": self.report.as_text()}
        return write_imported(self.profiles, folder, self.record, texts)


def import_profiles(
    tables: Table | Sequence[Table],
    feeder: str | Path | Feeder,
    column_map: ImportMap | Mapping[str, Any] | str | Path | None = None,
    **keys: Any,
) -> Imported:
    """Make profiles of measured tables, exactly as measured.

    A series that is a load's belongs to that load; what is measured of several loads is dealt out among those without
    a meter of their own. Demand, sun and prices that are not measured are those of the shipped year.

    Args:
        tables: CSV, Parquet or Excel files or DataFrames, long or wide.
        feeder: The feeder that the loads are of, by name, path or as read.
        column_map: What the columns are, see :class:`ImportMap`: a YAML file, or its keys.
        keys: Keys of the map that go before those in it, as ``unit="kWh"``.

    Raises:
        ScenarioError: with every problem of map and tables.
        FeederError: the feeder cannot be read.
    """
    spec = read_map(column_map, changes=keys)
    read = feeder if isinstance(feeder, Feeder) else read_feeder(feeder)
    network = network_of(read)
    several = list_tables(tables)
    problems, notes = list[str](), list[str]()
    called = name_tables(several)
    tried = [read_measured(each, spec, problems, notes, name) for each, name in zip(several, called, strict=True)]
    measured = [table for table in tried if table is not None]
    problems += ["tables: " + describe_unknown("table", name, called) for name in spec.tables if name not in called]
    if not several:
        problems.append("no table is given")
    _raise(problems)
    series, unused = find_targets(measured, spec, network, problems)
    if not series and not problems:
        loads = list_names(network.loads.names)
        problems.append(
            f"no column is called like a load ({loads}) or like head, sun or price, and the map names none; columns "
            f"are {list_names(unused) or 'all left out by the map'}; say what one is, as --set "
            "'columns.NAME.head=true' for the whole feeder, or in a map"
        )
    _raise(problems)
    return _Import(spec, read, network, measured, series, unused, problems, notes).run()


def list_tables(tables: Table | Sequence[Table]) -> list[Table]:
    """Return one table or several as a list.

    Raises:
        ScenarioError: something is no table.
    """
    several: list[Any] = list(tables) if isinstance(tables, list | tuple) else [tables]
    wrong = [each for each in several if not isinstance(each, str | Path | pd.DataFrame)]
    if wrong:
        told = f"a {type(wrong[0]).__name__} is no table; give the path of one, a DataFrame, or a list of them"
        raise ScenarioError("import of profiles", [told])
    return several


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise ScenarioError("import of profiles", problems)


class _Import:
    """One import, from series in their units to profiles and report."""

    def __init__(
        self,
        spec: ImportMap,
        feeder: Feeder,
        network: Network,
        tables: Sequence[MeasuredTable],
        series: Sequence[Series],
        unused: Sequence[str],
        problems: list[str],
        notes: list[str],
    ) -> None:
        self.spec, self.feeder, self.network, self.tables = spec, feeder, network, tables
        self.series, self.unused, self.problems, self.notes = series, unused, problems, notes
        self.done = {id(each): Cleaned(len(each.values)) for each in series}
        self.peaks: dict[int, float] = {}

    def run(self) -> Imported:
        """Do it.

        Raises:
            ScenarioError: units are wrong, sums do not fit, or no day is left.
        """
        clean = {id(each): self._clean(each) for each in self.series}
        demand = [each for each in self.series if each.kind == "demand"]
        columns = group_columns(demand, self.spec, self.problems)
        self._find_twice()
        _raise(self.problems)
        step, start, n_days = self._span()
        _raise(self.problems)
        rows = n_days * MINUTES_PER_DAY // step
        aligned = {id(each): self._align(clean[id(each)], each, step, start, rows) for each in self.series}
        left_out = self._leave_out(aligned, rows, n_days, start)
        _raise(self.problems)
        values = {key: _fill_unplayed(series, rows // n_days) for key, series in aligned.items()}
        groups = [to_power(each, values, self.network, self.problems) for each in columns]
        self._check_amperes(groups)
        found = deal_out(groups, self.spec, self.network, self.problems, self.notes)
        self._check_total(found)
        _raise(self.problems)
        profiles, shipped = self._compose(found, values, step, start, n_days, tuple(left_out))
        report = self._report(profiles, groups, found, left_out, shipped)
        record: dict[str, Any] = {
            "feeder": self.feeder.name,
            "feeder_digest": self.feeder.digest,
            "report": report.as_dict(),
        }
        record["map"] = self.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        record["tables"] = [table.source for table in self.tables]
        return Imported(profiles, report, record)

    def _clean(self, series: Series) -> pd.Series[float]:
        spec, done = self.spec, self.done[id(series)]
        limits = LIMITS | dict(spec.limits)
        values = convert(series, self.problems)
        if series.kind == "demand":
            most, remedy = self._most(series, limits["demand_pu"])
            values = check_unit(values, series, most, remedy, self.problems, self.notes)
            if series.unit.kind not in ("kvar", "kvarh"):
                values = check_sign(values, series, spec, done, self.problems)
            values = treat_outliers(values, spec.outliers, done)
        elif series.kind in ("pv", "irradiance"):
            if series.unit.kind in ("kw", "kwh"):
                if series.spec.rated_kw is None:
                    self.problems.append(
                        f"{series.title}: say 'rated_kw', the rating of the panels whose power this is"
                    )
                    return values
                values = values / series.spec.rated_kw
            remedy = (
                "it is in parts of the panels' rating: say 'unit: %' of percent, 'weather: irradiance' with "
                "'unit: W/m2' of the sun itself"
                if series.kind == "pv"
                else "it is in parts of 1000 W/m2: say 'unit: W/m2'"
            )
            values = check_unit(values, series, limits["pv_pu"], remedy, self.problems, self.notes)
            values = check_sun(values, series, spec, done, self.problems)
        elif series.kind == "price":
            remedy = "it is in USD/kWh: say 'unit: USD/MWh' or 'ct/kWh', or widen limits.price_usd_per_kwh"
            values = check_unit(values, series, limits[PRICE_PREFIX], remedy, self.problems, self.notes)
            if PRICE_PREFIX not in spec.limits and (values.abs() <= limits[PRICE_PREFIX]).any():
                check_price(values, series, self.problems)
        else:
            values = check_unit(values, series, _HOTTEST, "say 'unit: K' or 'unit: F'", self.problems, self.notes)
        return fill_gaps(values, spec.gaps, series.step_minutes, done)

    def _most(self, series: Series, limit_pu: float) -> tuple[float, str]:
        """Return what is plausible of the demand of some loads in the series' unit, and what else it may be."""
        loads = list(series.loads)
        rated = float(np.hypot(self.network.loads.kw[loads].sum(), self.network.loads.kvar[loads].sum()))
        if series.unit.kind == "pu":
            return limit_pu, "it is in parts of the load's rated kW: say its unit, as kW or %"
        if series.unit.kind in ("a", "kv") or rated <= 0.0:
            return np.inf, ""
        named = list_names([self.network.loads.names[load] for load in loads], 3)
        peak = float(convert(series, []).abs().max()) / rated
        smaller = SMALLER.get(series.unit.name)
        unit = f"say 'unit: {smaller}'?" if smaller else "is it of this load?"
        return limit_pu * rated, (
            f"{peak:,.0f} times the rated {rated:,.4g} kVA of {named}; {unit} limits.demand_pu widens what is plausible"
        )

    def _find_twice(self) -> None:
        seen: dict[str, Series] = {}
        for each in self.series:
            if each.kind != "demand":
                other = seen.setdefault(each.target, each)
                if other is not each:
                    self.problems.append(f"{each.title} and {other.title} are both {each.target}; leave one out (null)")

    def _span(self) -> tuple[int, pd.Timestamp, int]:
        """Return the step [min], first midnight and number of whole days that all tables have."""
        tables = self.tables
        step = self.spec.step_minutes or min(math.gcd(t.step_minutes, _begins(t.values.index)) for t in tables)
        for table in tables:
            fits = step % table.step_minutes == 0 or table.step_minutes % step == 0
            if MINUTES_PER_DAY % step or not fits:
                self.problems.append(f"{table.where}: rows of {table.step_minutes} min do not fit steps of {step} min")
        first = max(table.values.index[0] for table in tables)
        last = min(table.values.index[-1] + pd.Timedelta(minutes=table.step_minutes) for table in tables)
        start, end = first.ceil("D"), last.floor("D")
        n_days = (end - start).days
        if n_days < 1:
            several = "; ".join(f"{t.where} {t.values.index[0]} to {t.values.index[-1]}" for t in tables)
            self.problems.append(f"there is no whole day from midnight on that all tables have: {several}")
        elif first != start or last != end:
            self.notes.append(
                f"parts of days at the ends are cut off: used are {start:%Y-%m-%d} up to {end:%Y-%m-%d}, 0:00"
            )
        return step, start, n_days

    def _align(self, values: pd.Series[float], series: Series, step: int, start: pd.Timestamp, rows: int) -> FloatArray:
        """Bring a series to the common rows: means of shorter ones, and longer ones hold their value."""
        own = series.step_minutes
        part = math.gcd(step, own, _begins(values.index))
        finer = pd.date_range(start, periods=rows * (step // part), freq=f"{part}min")
        held = values.reindex(finer, method="ffill", limit=own // part - 1) if own > part else values.reindex(finer)
        return np.asarray(held.to_numpy().reshape(rows, -1).mean(axis=1), dtype=np.float64)

    def _leave_out(
        self, aligned: Mapping[int, FloatArray], rows: int, n_days: int, start: pd.Timestamp
    ) -> dict[int, list[str]]:
        """Return the days on which something is missing still, each with the series that lack it."""
        days: dict[int, list[str]] = {}
        for each in self.series:
            lacking = np.isnan(aligned[id(each)]).reshape(n_days, -1).any(axis=1)
            for day in np.flatnonzero(lacking).tolist():
                days.setdefault(day, []).append(each.name)
        if len(days) == n_days:
            worst = sorted(self.series, key=lambda each: -int(np.isnan(aligned[id(each)]).sum()))
            told = [f"{each.name} ({int(np.isnan(aligned[id(each)]).sum())} of {rows} rows)" for each in worst[:5]]
            self.problems.append(
                f"no day is left: each of {n_days} lacks something; most is missing of {', '.join(told)}; say 'gaps: "
                "{rule: interpolate}' or 'last_week', or leave columns out (null)"
            )
        return dict(sorted(days.items()))

    def _check_amperes(self, groups: Sequence[Group]) -> None:
        most = (LIMITS | dict(self.spec.limits))["demand_pu"]
        for group in groups:
            rated, peak = float(self.network.loads.kw[list(group.loads)].sum()), float(group.p_kw.max())
            if any(each.unit.kind == "a" for each in group.series) and 0.0 < most * rated < peak:
                self.problems.append(
                    f"{group.series[0].title}: {peak / rated:,.0f} times the rated {rated:,.4g} kW of {group.title} at "
                    f"{group.series[0].kv:.4g} kV; is it of the other side of a transformer ('kv'), or is the unit mA?"
                )

    def _check_total(self, found: Mapping[int, tuple[FloatArray, FloatArray | None]]) -> None:
        rated = float(self.network.loads.kw[list(found)].sum()) if found else 0.0
        peak = float(np.sum([p_kw for p_kw, _ in found.values()], axis=0).max()) if found else 0.0
        if not found or rated <= 0.0 or peak >= _LEAST * rated or "demand_pu" in self.spec.limits:
            return
        units = Counter(each.unit.name for each in self.series if each.kind == "demand" and each.quantity == "active")
        larger = LARGER.get(units.most_common(1)[0][0])
        remedy = f"is the unit {larger}?" if larger and peak > 0.0 else "are these the right columns?"
        self.problems.append(
            f"the highest demand of all {len(found)} measured loads is {peak:.4g} kW, {peak / rated:.2g} of their "
            f"rated {rated:,.4g} kW; {remedy} limits.demand_pu says that it is meant"
        )

    def _compose(
        self,
        found: Mapping[int, tuple[FloatArray, FloatArray | None]],
        values: Mapping[int, FloatArray],
        step: int,
        start: pd.Timestamp,
        n_days: int,
        left_out: tuple[int, ...],
    ) -> tuple[Profiles, list[str]]:
        """Lay the measured series out beside those of the shipped year, and say which the latter are."""
        loads, taken = self.network.loads, list[str]()
        year = ShippedYear(np.datetime64(str(start.date()), "D"), n_days, step)
        own = {loads.names[load]: (load, *power) for load, power in sorted(found.items())}
        columns, reactive, base = list[FloatArray](), list[FloatArray](), dict[str, tuple[float, float]]()
        for name, (load, p_kw, q_kvar) in own.items():
            if q_kvar is None and not loads.kw[load]:
                q_kvar = follow_power_factor(load, p_kw, self.network)
            base_kw = float(loads.kw[load]) or float(np.abs(p_kw).max()) or 1.0
            base_kvar = float(loads.kvar[load]) or (0.0 if q_kvar is None else float(np.abs(q_kvar).max()) or 1.0)
            columns.append(p_kw / base_kw)
            reactive.append(columns[-1] if q_kvar is None else q_kvar / base_kvar)
            base[name] = (base_kw, base_kvar)
        names = tuple(own)
        without = [name for name in loads.names if name not in own]
        if without:
            taken.append(f"demand of {list_names(without, 6)}, by class")
            names = (*names, *year.demand_names)
            columns += list(year.demand_pu.T)
            reactive += list(year.demand_pu.T)
        has_kvar = any(power[2] is not None or not loads.kw[power[0]] for power in own.values())
        by_target = {each.target: values[id(each)] for each in self.series if each.kind != "demand"}
        weather = year.complete_weather(by_target, taken)
        prices = {each.spec.price: values[id(each)] for each in self.series if each.spec.price is not None}
        if not prices:
            taken.append(f"prices {' and '.join(year.prices)}")
        profiles = Profiles(
            name="measured",
            step_minutes=step,
            start=np.datetime64(str(start.date()), "m"),
            demand_pu=np.column_stack(columns),
            demand_names=names,
            price_usd_per_kwh=prices or year.prices,
            demand_kvar_pu=np.column_stack(reactive) if has_kvar else None,
            load_series={name: name for name in own},
            load_base=base,
            left_out=left_out,
            own_sun=bool(SUN & by_target.keys()),
            **weather,
        )
        return profiles, taken

    def _report(
        self,
        profiles: Profiles,
        groups: Sequence[Group],
        found: Mapping[int, tuple[FloatArray, FloatArray | None]],
        left_out: Mapping[int, Sequence[str]],
        shipped: Sequence[str],
    ) -> DataReport:
        loads = self.network.loads
        played = np.ones(profiles.n_rows, dtype=bool)
        for day in left_out:
            played[day * profiles.rows_per_day : (day + 1) * profiles.rows_per_day] = False
        hours = profiles.step_minutes / 60.0
        lines = []
        for group in groups:
            p_kw = group.p_kw[played]
            lines += [
                SeriesLine.of(
                    each,
                    self.done[id(each)],
                    [loads.names[load] for load in group.dealt],
                    p_kw,
                    hours,
                    loads.kw[list(group.loads)].sum(),
                    group.parts_kw[id(each)][played] if id(each) in group.parts_kw else None,
                )
                for each in group.series
            ]
        lines += [SeriesLine.of(each, self.done[id(each)]) for each in self.series if each.kind != "demand"]
        total = np.sum([p_kw for p_kw, _ in found.values()], axis=0) if found else np.zeros(0)
        rated = float(loads.kw[list(found)].sum()) if found else 0.0
        zone = self.spec.time.zone if self.spec.time.zone != STANDARD else None
        return make_report(
            self.feeder.name,
            f"standard time{f' of {zone}' if zone else ''}",
            profiles,
            lines,
            left_out,
            shipped,
            self.unused,
            self.notes,
            total,
            rated,
            len(found),
            len(loads.names),
        )


def _begins(index: pd.Index) -> int:
    """Return the minute of the day at which the first row begins: of a clock half an hour off, 30 past some hour."""
    return int(index[0].hour * 60 + index[0].minute)


def _fill_unplayed(values: FloatArray, rows_per_day: int) -> FloatArray:
    """Return a series with a number in each row of days that are left out, which nothing plays: the hour's mean."""
    missing = np.isnan(values)
    if not missing.any():
        return values
    days = np.where(missing, 0.0, values).reshape(-1, rows_per_day)
    n_known = (~missing).reshape(-1, rows_per_day).sum(axis=0)
    mean = np.divide(days.sum(axis=0), n_known, out=np.zeros(rows_per_day), where=n_known > 0)
    return np.where(missing, np.tile(mean, len(days)), values)
