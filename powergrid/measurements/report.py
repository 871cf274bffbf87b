"""The data report of an import, as text and as one HTML file that needs nothing else; it computes nothing new."""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, list_names
from powergrid.files import path_of
from powergrid.grid.profiles.profiles import Profiles
from powergrid.measurements.charts import CSS, draw_calendar, draw_clock, draw_days
from powergrid.measurements.cleaning import Cleaned
from powergrid.measurements.targets import Series
from powergrid.measurements.units import split_unit

FloatArray = npt.NDArray[np.float64]

_WIDTH = 78
_HEADINGS = (
    "column",
    "is",
    "unit",
    "range",
    "peak kW",
    "rated kW",
    "peak / rated",
    "kWh",
    "missing",
    "filled",
    "outliers",
)


@dataclass(frozen=True)
class SeriesLine:
    """What became of one column or meter.

    Attributes:
        column, table: Its name, and the file.
        target: What it is of.
        unit: Its unit.
        loads: Loads that its demand went to.
        peak_kw, rated_kw, energy_kwh: Its highest demand, the rating of its loads, and energy, of the days that are
            played; None of sun and prices.
        target_peak_kw: Highest demand of its target, which is more where several columns are parts of that.
        lowest, highest: Its smallest and largest number, in its unit.
        rows, missing, filled, outliers, negative: Rows of its table, and how many were what.
        first_outlier: The first of the outliers, in words.
    """

    column: str
    table: str
    target: str
    unit: str
    loads: tuple[str, ...]
    peak_kw: float | None
    rated_kw: float | None
    energy_kwh: float | None
    target_peak_kw: float | None
    lowest: float
    highest: float
    rows: int
    missing: int
    filled: int
    outliers: int
    negative: int
    first_outlier: str

    @classmethod
    def of(
        cls,
        series: Series,
        done: Cleaned,
        loads: Sequence[str] = (),
        p_kw: FloatArray | None = None,
        hours: float = 0.0,
        rated_kw: float = 0.0,
        part_kw: FloatArray | None = None,
    ) -> SeriesLine:
        """Tell of a series: what was found in it, and the demand [kW] that its target has on the days played.

        Args:
            series, done: It, and what was found.
            loads: Loads that its target's demand went to.
            p_kw: Demand of its target, shape (n_rows,); None of sun and prices.
            hours: Length of a row [h].
            rated_kw: Rating of its target's loads.
            part_kw: What of that demand it is itself, where it is not all.
        """
        own_kw = p_kw if part_kw is None else part_kw
        active = p_kw is not None and series.quantity == "active"
        return cls(
            column=series.name,
            table=series.where,
            target=f"{series.target}{f', phase {series.spec.phase}' if series.spec.phase else ''}",
            unit=series.unit.name,
            loads=tuple(loads),
            peak_kw=float(own_kw.max()) if active and own_kw is not None else None,
            rated_kw=float(rated_kw) if active else None,
            energy_kwh=float(own_kw.sum() * hours) if active and own_kw is not None else None,
            target_peak_kw=float(p_kw.max()) if active and p_kw is not None else None,
            lowest=float(series.values.min()),
            highest=float(series.values.max()),
            rows=done.rows,
            missing=done.missing,
            filled=done.filled,
            outliers=done.outliers,
            negative=done.negative,
            first_outlier=done.first_outlier,
        )

    def cells(self) -> tuple[str, ...]:
        """Return what a table shows, in the order of its headings."""
        ratio = self.target_peak_kw / self.rated_kw if self.target_peak_kw is not None and self.rated_kw else None
        counts = (f"{n:,}" if n else "" for n in (self.missing, self.filled, self.outliers))
        return (
            self.column,
            self.target,
            self.unit,
            f"{_number(self.lowest)} to {_number(self.highest)}",
            _number(self.peak_kw),
            _number(self.rated_kw),
            "" if ratio is None else f"{ratio:.2f}",
            _number(self.energy_kwh),
            *counts,
        )


@dataclass(frozen=True)
class DataReport:
    """What became of measurements: days, gaps, peaks against the model, and what is what.

    Attributes:
        feeder, clock, start, end, step_minutes, days: What it is of, and which time its rows are in.
        left_out: Days that are never played, each with the columns that lack something then.
        series: Each column.
        measured_loads, loads: How many loads are measured, of how many.
        peak_kw, peak_time, rated_kw, energy_kwh: Highest sum of what is measured, when, the rating of these loads, and
            their energy on the days that are played.
        shipped: What is the shipped year's.
        unused: Columns that are of nothing.
        notes: What else was found.
        daily: Lowest, mean and highest measured sum of each day [kW], shape (n_days, 3).
        of_day: The same by the time of the day, on the days that are played, shape (rows_per_day, 3).
    """

    feeder: str
    clock: str
    start: str
    end: str
    step_minutes: int
    days: int
    left_out: Mapping[str, tuple[str, ...]]
    series: tuple[SeriesLine, ...]
    measured_loads: int
    loads: int
    peak_kw: float
    peak_time: str
    rated_kw: float
    energy_kwh: float
    shipped: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]
    daily: FloatArray = field(repr=False)
    of_day: FloatArray = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, without its curves."""
        data = asdict(self)
        del data["daily"], data["of_day"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], daily: FloatArray, of_day: FloatArray) -> DataReport:
        """Return the report that plain data and its curves are of."""
        series = (SeriesLine(**{**line, "loads": tuple(line["loads"])}) for line in data["series"])
        told = {name: tuple(data[name]) for name in ("shipped", "unused", "notes")}
        left_out = {day: tuple(columns) for day, columns in data["left_out"].items()}
        return cls(**{**data, **told, "left_out": left_out, "series": tuple(series), "daily": daily, "of_day": of_day})

    def as_text(self) -> str:
        """Return it as text of at most 78 columns."""
        lines = [f"Data report: measurements for {self.feeder}", ""]
        for title, value in self._facts():
            lines += textwrap.wrap(value, _WIDTH, initial_indent=f"{title:<11}", subsequent_indent=" " * 11)
        lines += ["", "What is what"]
        told = set[tuple[str, ...]]()
        for line in self.series:
            text = _describe(line, with_loads=line.loads not in told)
            told.add(line.loads)
            lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="      ")
        for title, entries in self._lists():
            lines += ["", title]
            for entry in entries:
                lines += textwrap.wrap(entry, _WIDTH, initial_indent="  ", subsequent_indent="      ")
        return "\n".join(lines) + "\n"

    def as_html(self) -> str:
        """Return it as one HTML page that loads nothing."""
        facts = "".join(f"<dt>{html.escape(t)}</dt><dd>{html.escape(v)}</dd>" for t, v in self._facts())
        lists = "".join(
            f"<h2>{html.escape(title)}</h2><ul>{''.join(f'<li>{html.escape(entry)}</li>' for entry in entries)}</ul>"
            for title, entries in self._lists()
        )
        title = f"Data report: measurements for {html.escape(self.feeder)}"
        out = {int((np.datetime64(day) - np.datetime64(self.start)).astype(int)) for day in self.left_out}
        curve = draw_clock(self.of_day, self.rated_kw) if self.measured_loads else ""
        if self.measured_loads and self.days > 1:
            curve = draw_days(self.daily, self.start, self.rated_kw, out) + curve
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{CSS}</style></head><body><h1>{title}</h1><dl>{facts}</dl><h2>Days</h2>"
            f"{draw_calendar(self.start, self.days, out)}{curve}<h2>What is what</h2>{_write_table(self.series)}{lists}"
            "</body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write it as ``.html`` or as text, all of it or nothing.

        Raises:
            ScenarioError: the file cannot be written.
        """
        file = path_of(path).absolute()
        text = self.as_html() if file.suffix.lower() == ".html" else self.as_text()
        part = file.with_name(f".{file.name}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(file)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise ScenarioError(str(file), [f"cannot be written: {error.strerror}"]) from None
        return file

    def _facts(self) -> list[tuple[str, str]]:
        kept = self.days - len(self.left_out)
        facts = [
            (
                "Days",
                f"{kept} of {self.days}, {self.start} to {self.end}, rows of {self.step_minutes} min, {self.clock}",
            ),
            ("Loads", f"{self.measured_loads} of {self.loads} are measured or have their part of a measured sum"),
        ]
        if self.measured_loads:
            ratio = (
                f", {self.peak_kw / self.rated_kw:.2f} of their rated {self.rated_kw:,.1f} kW" if self.rated_kw else ""
            )
            facts += [
                ("Peak", f"{self.peak_kw:,.1f} kW at {self.peak_time}{ratio}"),
                ("Energy", f"{self.energy_kwh:,.0f} kWh on the days that are played"),
            ]
        return [
            *facts,
            ("Shipped", "; ".join(self.shipped) if self.shipped else "nothing is taken from the shipped year"),
        ]

    def _lists(self) -> list[tuple[str, list[str]]]:
        lists = [
            ("Days left out, and what lacks rows then", _group_days(self.left_out)),
            (
                "Outliers",
                [f"{s.column}: {s.outliers} values, first {s.first_outlier}" for s in self.series if s.outliers],
            ),
            ("Columns that are not used", list(self.unused)),
            ("Found", list(self.notes)),
        ]
        return [(title, entries) for title, entries in lists if entries]


def make_report(
    feeder: str,
    clock: str,
    profiles: Profiles,
    lines: Sequence[SeriesLine],
    left_out: Mapping[int, Sequence[str]],
    shipped: Sequence[str],
    unused: Sequence[str],
    notes: Sequence[str],
    total_kw: FloatArray,
    rated_kw: float,
    n_measured: int,
    n_loads: int,
) -> DataReport:
    """Return the report of an import.

    Args:
        feeder: Name of the feeder.
        clock: Which time rows are in, in words.
        profiles: What came of it.
        lines: Each column.
        left_out: Days from day 0, each with the columns that lack something.
        shipped, unused, notes: What is the shipped year's, what is of nothing, and what was found.
        total_kw: Sum of what is measured, shape (n_rows,); empty where no load is.
        rated_kw, n_measured, n_loads: Rating and number of the loads that are, and of all.
    """
    first = profiles.start.astype("datetime64[D]")
    daily = total_kw.reshape(profiles.n_days, -1) if len(total_kw) else np.zeros((profiles.n_days, 1))
    played = np.setdiff1d(np.arange(profiles.n_days), list(left_out))
    day, row = np.unravel_index(int(daily[played].argmax()), daily[played].shape)
    time = first + played[day] + np.timedelta64(int(row) * profiles.step_minutes, "m")
    return DataReport(
        feeder=feeder,
        clock=clock,
        start=str(first),
        end=str(first + profiles.n_days - 1),
        step_minutes=profiles.step_minutes,
        days=profiles.n_days,
        left_out={str(first + out): tuple(columns) for out, columns in left_out.items()},
        series=tuple(lines),
        measured_loads=n_measured,
        loads=n_loads,
        peak_kw=float(daily[played].max()),
        peak_time=str(time).replace("T", " "),
        rated_kw=rated_kw,
        energy_kwh=float(daily[played].sum() * profiles.step_minutes / 60.0),
        shipped=tuple(shipped),
        unused=tuple(unused),
        notes=tuple(notes),
        daily=_spans(daily, axis=1),
        of_day=_spans(daily[played], axis=0),
    )


def _spans(values: FloatArray, axis: int) -> FloatArray:
    """Return lowest, mean and highest values along an axis, shape (n, 3)."""
    return np.column_stack([values.min(axis=axis), values.mean(axis=axis), values.max(axis=axis)])


def _describe(line: SeriesLine, *, with_loads: bool) -> str:
    """Return a column's line of the text."""
    told = f"{line.column}{'' if split_unit(line.column)[1] else f' [{line.unit}]'} -> {line.target}"
    if not line.target.startswith("load"):
        told += f" ({list_names(list(line.loads), 6)})" if line.loads and with_loads else ""
    if line.peak_kw is not None:
        of = f" of {_number(line.rated_kw)} rated" if line.rated_kw else ""
        if line.target_peak_kw != line.peak_kw:
            of = f" ({_number(line.target_peak_kw)}{of} in all)"
        told += f": peak {_number(line.peak_kw)} kW{of}, {_number(line.energy_kwh)} kWh"
    else:
        told += f": {line.lowest:.4g} to {line.highest:.4g}"
    counts = {"missing": line.missing, "filled": line.filled, "outliers": line.outliers, "set to 0": line.negative}
    return told + "".join(f", {count:,} {name}" for name, count in counts.items() if count)


def _write_table(lines: Sequence[SeriesLine]) -> str:
    """Return the table of the columns, without what it has nothing of."""
    cells = [line.cells() for line in lines]
    shown = [i for i in range(len(_HEADINGS)) if any(row[i] for row in cells)]
    numeric = {i: ' class="n"' if i > 2 else "" for i in shown}
    head = "".join(f"<th{numeric[i]}>{_HEADINGS[i]}</th>" for i in shown)
    rows, told = [], set[tuple[str, ...]]()
    for line, row in zip(lines, cells, strict=True):
        texts = {i: html.escape(row[i]) for i in shown}
        if line.loads and line.loads not in told and not line.target.startswith("load"):
            told.add(line.loads)
            every, some = html.escape(", ".join(line.loads)), html.escape(list_names(list(line.loads), 6))
            texts[1] += f'<br><small title="{every}">{some}</small>'
        rows.append(f"<tr>{''.join(f'<td{numeric[i]}>{text}</td>' for i, text in texts.items())}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _group_days(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """Say which days are left out, those in a row together, and what lacks rows then."""
    runs: list[list[str]] = []
    for day in left_out:
        if runs and np.datetime64(day) - np.datetime64(runs[-1][-1]) == np.timedelta64(1, "D"):
            runs[-1].append(day)
        else:
            runs.append([day])
    told = []
    for run in runs[:40]:
        why = Counter(column for day in run for column in left_out[day])
        days = run[0] if len(run) == 1 else f"{run[0]} to {run[-1]} ({len(run)} days)"
        told.append(f"{days}: {list_names([name for name, _ in why.most_common()], 6)}")
    return told + ([f"and {len(runs) - 40} more such times"] if len(runs) > 40 else [])
