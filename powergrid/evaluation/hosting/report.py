"""What a study of hosting capacity came to: tables, a page with maps, pictures, and a few lines for a terminal."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from powergrid.evaluation.drawing.charts import find_looks
from powergrid.evaluation.hosting.additions import MEANINGS
from powergrid.evaluation.hosting.heat_map import HeatMap
from powergrid.evaluation.hosting.limits import LIMITS, Limit
from powergrid.evaluation.hosting.sweep import UNSOLVED, Part, Point, Sweep
from powergrid.evaluation.report.tables import as_table
from powergrid.evaluation.studies.charts import draw_bars
from powergrid.evaluation.studies.year import write_databases
from powergrid.files import write_whole
from powergrid.grid.feeder.network import Network

if TYPE_CHECKING:
    from rich.table import Table

_UNSOLVED_MEANS = "no power flow is found"
#: What the page says besides its numbers.
_READING = (
    "The capacity is the largest size below the first at which an element is beyond one of these limits, and farther "
    "than it ever is without additions on these days. It is of the days that were looked at and of this model; of "
    "others it promises nothing."
)
_MAP_READING = (
    "Each load bus alone, all of the size there, found by halving, as if more never broke less. A ring: nothing broke "
    "up to the largest size."
)


@dataclass(frozen=True)
class Hosting:
    """How much a feeder holds, by control and placement.

    Attributes:
        limits: The limits that were looked at.
        binding: Names of those that make up the capacity.
        sizes: The sizes [kW].
        network: The feeder.
        parts: What was kept.
        facts: Where all this comes from.
    """

    limits: tuple[Limit, ...]
    binding: tuple[str, ...]
    sizes: tuple[float, ...]
    network: Network
    parts: Sequence[Part]
    facts: Mapping[str, Any]

    @property
    def controls(self) -> list[str]:
        """Who played, in the order given."""
        return list(dict.fromkeys(part.control for part in self.parts))

    def _sweeps(self, *, alone: bool = False) -> Iterator[Sweep]:
        return (sweep for part in self.parts for sweep in part.sweeps if sweep.is_whole != alone)

    @cached_property
    def capacity(self) -> pd.DataFrame:
        """A row for each control and placement: capacity [kW], and what breaks first, where, when."""
        return pd.DataFrame([self._tell(sweep, self.binding) for sweep in self._sweeps()])

    @cached_property
    def causes(self) -> pd.DataFrame:
        """The same for each limit alone: up to which size it holds."""
        rows = [
            self._tell(sweep, (limit.name,)) | {"limit": limit.name, "unit": limit.unit}
            for sweep in self._sweeps()
            for limit in self.limits
        ]
        return pd.DataFrame(rows)

    @cached_property
    def buses(self) -> pd.DataFrame:
        """A row for each control and load bus, everything at that bus; empty where no map was asked for."""
        rows = [
            {"bus": next(iter(sweep.shares)), **self._tell(sweep, self.binding)} for sweep in self._sweeps(alone=True)
        ]
        return pd.DataFrame(rows).drop(columns=["placement", "seed", "n_buses"], errors="ignore")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return all tables by name: capacity, causes, points, buses, already_broken, limits."""
        points = [
            {"control": sweep.control, "placement": sweep.placement, "seed": sweep.seed, "kw": point.kw, "limit": name,
             **breach.model_dump()}
            for sweep in self._sweeps()
            for point in sweep.points
            for name, breach in point.breaches.items()
        ]  # fmt: skip
        base = {part.control: part.base for part in self.parts}
        broken = [
            {"control": control, "limit": name, "steps_times_elements": breach.new, "worst": breach.value,
             "where": breach.where, "when": breach.when}
            for control, own in base.items()
            for name, breach in own.items()
        ]  # fmt: skip
        limits = [
            {"limit": each.name, "low": each.low, "high": each.high, "unit": each.unit, "meaning": each.meaning,
             "source": each.source, "in_capacity": each.name in self.binding}
            for each in self.limits
        ]  # fmt: skip
        whole = {
            "capacity": self.capacity,
            "causes": self.causes,
            "points": pd.DataFrame(points),
            "buses": self.buses,
            "already_broken": pd.DataFrame(broken),
            "limits": pd.DataFrame(limits).replace([float("-inf")], None),
        }
        return {name: table for name, table in whole.items() if len(table.columns)}

    def _tell(self, sweep: Sweep, limits: Sequence[str]) -> dict[str, Any]:
        kw, point = sweep.capacity(limits)
        return {
            "control": sweep.control,
            "placement": sweep.placement,
            "seed": sweep.seed,
            "n_buses": len(sweep.shares),
            "capacity_kw": kw,
            "nothing_broke": point is None,
            **_tell_break(point, limits),
        }

    # -- in words

    def verdicts(self) -> list[str]:
        """Return a sentence for each control and placement."""
        told = []
        for row in self.capacity.to_dict("records"):
            name = _label(row)
            if row["nothing_broke"]:
                told.append(f"{name}: {row['capacity_kw']:,.0f} kW or more, nothing broke up to there.")
            else:
                told.append(f"{name}: {row['capacity_kw']:,.0f} kW; at {row['breaks_at_kw']:,.0f} kW {_say(row)}.")
        return told

    def table(self) -> Table:
        """Return the capacity as a table for a terminal of 80 columns."""
        rows = []
        for row in self.capacity.to_dict("records"):
            held = f"{'>=' if row['nothing_broke'] else ''}{row['capacity_kw']:,.0f}"
            broken = "" if row["nothing_broke"] else f"{row['breaks_at_kw']:,.0f}"
            rows.append(
                (row["control"], _place_of(row), held, broken, row["first_limit"], _value_of(row), row["where"])
            )
        headings = ("control", "placement", "holds kW", "breaks kW", "first broken", "value", "where")
        return as_table("Hosting capacity", headings, rows, texts={"control", "placement", "first broken", "where"})

    def cause_table(self) -> Table:
        """Return the size up to which each limit holds as a table for a terminal."""
        headings = ["control", "placement", *(limit.name for limit in self.limits)]
        return as_table("Up to which kW each limit holds", headings, self._cause_rows(), texts=headings[:2])

    def _cause_rows(self) -> Iterator[list[str]]:
        for _, own in self.causes.groupby(["control", "placement", "seed"], sort=False, dropna=False):
            rows = own.to_dict("records")
            told = [f"{'>=' if row['nothing_broke'] else ''}{row['capacity_kw']:,.0f}" for row in rows]
            yield [rows[0]["control"], _place_of(rows[0]), *told]

    # -- in files

    def maps(self) -> dict[str, HeatMap]:
        """Return the map of each control, by its name; none where no bus was looked at alone."""
        found: dict[str, HeatMap] = {}
        rows = self.buses.to_dict("records")
        most_kw = max((float(row["capacity_kw"]) for row in rows), default=0.0) or self.sizes[0]
        for control in self.controls if rows else ():
            own = {str(row["bus"]): row for row in rows if row["control"] == control}
            capacity = {bus: float(row["capacity_kw"]) for bus, row in own.items()}
            told = {
                bus: f"{bus}: {row['capacity_kw']:,.0f} kW"
                + (" or more" if row["nothing_broke"] else f"; at {row['breaks_at_kw']:,.0f} kW {_say(row)}")
                for bus, row in own.items()
            }
            ends = {bus for bus, row in own.items() if row["nothing_broke"]}
            found[control] = HeatMap(self.network, capacity, told, ends, most_kw, f"each bus, {control},")
        return found

    def as_html(self) -> str:
        """Return the report as one page that needs nothing else, also to be printed."""
        from jinja2 import Environment

        here = importlib.resources.files(__package__)
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(here.joinpath("hosting.html.jinja").read_text(encoding="utf-8"))
        css = importlib.resources.files("powergrid.evaluation.studies").joinpath("report.css")
        bars: dict[str, dict[str, float]] = {}
        for row in self.capacity.to_dict("records"):
            bars.setdefault(_place_of(row), {})[row["control"]] = row["capacity_kw"]
        maps = self.maps()
        unit = "kW that the feeder holds, by placement; more is better"
        return template.render(
            title=f"Hosting capacity of {self.facts['feeder']}",
            subtitle=f"{self.facts['kind']}: {MEANINGS[self.facts['kind']]}. Days {self.facts['dates']}.",
            css=css.read_text(encoding="utf-8"),
            verdicts=self.verdicts(),
            reading=_READING,
            map_reading=_MAP_READING,
            bars=draw_bars(
                bars, find_looks(self.controls), unit=unit, label="Hosting capacity by placement and control"
            ),
            heads=[limit.name for limit in self.limits],
            causes=list(self._cause_rows()),
            maps={name: each.as_svg() for name, each in maps.items()},
            scale=next((HeatMap.scale_svg(each.most_kw) for each in maps.values()), ""),
            broken=[row for row in self.tables()["already_broken"].to_dict("records") if row["steps_times_elements"]],
            limits=self.limits,
            binding=self.binding,
            facts={key.replace("_", " "): value for key, value in self.facts.items()},
        )

    def write(self, folder: Path) -> None:
        """Write ``report.html``, a PNG of each map, and each table as Parquet and CSV, all of them as SQLite."""
        tables = self.tables()
        for name, table in tables.items():
            write_whole(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
        write_databases(tables, folder / "hosting.sqlite")
        for name, each in self.maps().items():
            each.save(folder / f"map_{name.strip('/').replace('/', '_')}.png")
        write_whole(folder / "report.html", self.as_html())


def _tell_break(point: Point | None, limits: Sequence[str]) -> dict[str, Any]:
    """Return what breaks at a size: of several limits the first in the order given."""
    told: dict[str, Any] = {"breaks_at_kw": None, "first_limit": "", "value": None, "where": "", "when": "", "also": ""}
    if point is None:
        return told
    first, *others = point.breaks(limits)
    told |= {"breaks_at_kw": point.kw, "first_limit": first, "also": ", ".join(others)}
    if first == UNSOLVED:
        return told | {"where": _UNSOLVED_MEANS}
    breach = point.breaches[first]
    return told | {"value": breach.value, "where": breach.where, "when": breach.when}


def _label(row: Mapping[Any, Any]) -> str:
    return f"{row['control']}, {_place_of(row)}"


def _place_of(row: Mapping[Any, Any]) -> str:
    seed = row["seed"]
    return row["placement"] if seed is None or seed != seed else f"{row['placement']} {int(seed)}"


def _value_of(row: Mapping[Any, Any]) -> str:
    value = row["value"]
    if value is None or value != value:
        return ""
    return f"{value:,.0f}" if row["first_limit"] == "reverse_power" else f"{value:.4f}"


def _say(row: Mapping[Any, Any]) -> str:
    """Say what breaks first, with value, place and time."""
    if row["first_limit"] == UNSOLVED:
        return _UNSOLVED_MEANS
    also = f", and {row['also']}" if row["also"] else ""
    unit = LIMITS[row["first_limit"]].unit
    return f"{row['first_limit']} breaks{also}: {_value_of(row)} {unit} at {row['where']}, {row['when']}"
