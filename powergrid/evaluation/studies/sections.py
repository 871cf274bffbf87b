"""Sections of a report's page that show elements of the network, each from its table; they play nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from powergrid.evaluation.drawing.charts import find_looks
from powergrid.evaluation.report.numbers import PlayedDays
from powergrid.evaluation.statistics import confidence_interval
from powergrid.evaluation.studies.charts import Looks, draw_lines
from powergrid.evaluation.studies.compare import NAMES, write_number

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROWS, _MOST_TALL = 12, 5
#: Branches that are shown although they are never above their rating [pu].
_NEARLY_FULL = 0.5


@dataclass(frozen=True)
class Cell:
    """What stands in a field of a table: a text, a smaller one below it, how it is coloured, and where it leads."""

    text: str
    small: str = ""
    kind: str = ""
    link: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page: a title, what is said, a picture or a table, and whether it is kept on one printed page.

    Attributes:
        texts: Columns of the table, from the left, that hold texts.
    """

    title: str
    text: str = ""
    picture: str = ""
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    texts: int = 1
    note: str = ""
    keep: bool = False


_OUTSIDE = {
    "below_a_h": "h below A", "above_a_h": "h above A", "times_a": "times outside A",
    "longest_a_h": "longest h outside A", "below_b_h": "h below B", "above_b_h": "h above B",
    "longest_b_h": "longest h outside B",
}  # fmt: skip


def optimum_section(rewards: Mapping[str, pd.Series[float]], optima: Mapping[str, float], usd: float) -> Section:
    """Return how near each comes to what was to be had of the same days by whoever had known them beforehand.

    Args:
        rewards: Rewards of episodes, mean over agents, by policy and then by date.
        optima: Those of the optimum, by date.
        usd: What a reward of 1 is, of all agents [USD].
    """
    best = np.array([optima[str(date)] for date in next(iter(rewards.values())).index])
    nothing = rewards.get("no_control")
    span = 0.0 if nothing is None else float(best.mean() - nothing.mean())
    rows = []
    for name, own in rewards.items():
        regret = confidence_interval((best - own.to_numpy()) * usd)
        score = f"{1.0 - (best.mean() - own.mean()) / span:.2f}" if span > 0.0 else ""
        half = f" ± {regret.half:.0f}" if np.isfinite(regret.half) else ""
        rows.append([Cell(name), Cell(f"{own.mean():.2f}"), Cell(score), Cell(f"{regret.mean:.0f}{half}")])
    rows.append([Cell("optimum"), Cell(f"{best.mean():.2f}"), Cell("1.00" if span > 0.0 else ""), Cell("0")])
    text = (
        "The optimum knows each day beforehand: nobody can do so well who does not. Score: 0 is no_control, 1 the "
        "optimum. Regret: what a day costs all agents above the optimum's, with its 95 % interval."
    )
    heads = ["policy", "reward", "score", "regret, USD/episode"]
    return Section("Beside the optimum", text=text, heads=heads, rows=rows, keep=True)


def phase_section(names: Sequence[str], table: pd.DataFrame, n_days: int) -> Section:
    """Return how much is outside the ranges on each phase."""
    listed = _list_by_policy(names, table, "phase", sorted(set(table["phase"])), {"nodes": "nodes", **_OUTSIDE})
    note = "Phases are those of the source: both legs of a split-phase service have that of their primary."
    text = f"Node-hours over all {n_days} days."
    return Section("Outside the ranges, by phase", keep=True, texts=2, text=text, note=note, **listed)


def node_section(names: Sequence[str], table: pd.DataFrame) -> Section:
    """Return how long the worst nodes were outside the ranges, each with its phase."""
    title = "How long nodes were outside the ranges"
    outside = table.assign(outside=table["below_a_h"] + table["above_a_h"]).groupby("node", sort=False)["outside"].max()
    order = outside[outside > 0.0].sort_values(ascending=False, kind="stable").index.tolist()
    if not order:
        return Section(title, text="No node was outside range A on any of these days.", keep=True)
    phase = dict(zip(table["node"], table["phase"], strict=True))
    named = {node: f"{node}, phase {phase[node]}" for node in order}
    listed = _list_by_policy(names, table, "node", order[:_MOST_TALL], _OUTSIDE, named)
    text = f"Those with most hours outside range A of {len(order)} that were outside, over all days."
    return Section(title, texts=2, text=text, note=_say_left(order, "nodes.csv"), keep=True, **listed)


def unbalance_section(names: Sequence[str], table: pd.DataFrame) -> Section:
    """Return the buses with the most voltage unbalance, by both definitions that limits are written for."""
    title = "Voltage unbalance of buses with three phases"
    if not len(table):
        return Section(title, text="No bus has three phases.", keep=True)
    worst = table.groupby("bus", sort=False)[["sequence_above_h", "sequence_max_pu"]].max()
    order = worst.sort_values(["sequence_above_h", "sequence_max_pu"], ascending=False, kind="stable").index.tolist()
    shown = table.assign(**{f"{name}_percent": 100.0 * table[f"{name}_max_pu"] for name in ("sequence", "line")})
    columns = {
        "sequence_above_h": "h above 2 %, IEC", "sequence_percent": "highest %, IEC",
        "line_above_h": "h above 3 %, NEMA", "line_percent": "highest %, NEMA",
    }  # fmt: skip
    listed = _list_by_policy(names, shown, "bus", order[:_MOST_TALL], columns)
    note = f"{_UNBALANCE} {_say_left(order, 'unbalance.csv')}"
    return Section(title, texts=2, note=note, keep=True, **listed)


_UNBALANCE = (
    "IEC: negative over positive sequence voltage (IEC 61000-4-30), which EN 50160 holds to 2 %. NEMA: the farthest "
    "that a line-to-line voltage is from the mean of the three, over that mean (NEMA MG 1), of which the annex of ANSI "
    "C84.1 recommends 3 % at most at a meter without load."
)


def _list_by_policy(
    names: Sequence[str], table: pd.DataFrame, key: str, elements: Sequence[str], columns: Mapping[str, str],
    named: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return heads and rows of a table with a row for each element and policy, the elements in order."""
    rows = {(str(row[key]), str(row["policy"])): row for row in table.to_dict("records")}
    told = []
    for element in elements:
        name = (named or {}).get(element, element)
        for policy in names:
            row = rows.get((element, policy))
            numbers = ("" if row is None else _write(column, float(row[column])) for column in columns)
            told.append([Cell(name), Cell(policy), *map(Cell, numbers)])
            name = ""
    return {"heads": [key, "policy", *columns.values()], "rows": told}


def _write(column: str, value: float) -> str:
    """Write counts without and percentages with two decimals."""
    if column.endswith("_percent"):
        return f"{value:.2f}"
    return f"{value:,.0f}" if column == "nodes" or column.startswith("times_") else write_number(value)


def _say_left(order: Sequence[str], file: str) -> str:
    left = len(order) - _MOST_TALL
    return f"{left} more are in {file}." if left > 0 else ""


#: Columns of tables by element, the first what the rows are ordered by, and what each is called.
BRANCH_COLUMNS = {"overload_h": "h above rating", "loading_max_pu": "highest pu"}
HANDED_BACK_COLUMNS = {"steps_per_day": "steps a day", "most_a_day": "most a day"}
MOVE_COLUMNS = {"moves_per_day": "moves a day", "most_a_day": "most a day"}


def element_section(
    names: Sequence[str], table: pd.DataFrame, key: str, columns: Mapping[str, str], title: str
) -> Section:
    """Show the elements with most of something, policy by policy."""
    numbers: dict[str, dict[tuple[str, str], float]] = {}  # by element, of a policy and column
    for row in table.to_dict("records"):
        own = numbers.setdefault(str(row[key]), {})
        own |= {(str(row["policy"]), column): float(row[column]) for column in columns}
    # most of it first; branches that are nearly full are shown too
    first, second, *_ = columns
    most, near = (
        {e: max((v for (_, column), v in own.items() if column == counted), default=0.0) for e, own in numbers.items()}
        for counted in (first, second)
    )
    order = sorted(numbers, key=lambda element: (-most[element], -near[element]))
    order = [e for e in order if most[e] > 0.0 or (key == "branch" and near[e] > _NEARLY_FULL)]
    if not order:
        return Section(title, text="None on any of these days." if numbers else "There are none.", keep=True)
    heads = [key, *(f"{name}, {told}" for name in names for told in columns.values())]
    rows = []
    for element in order[:_MOST_ROWS]:
        found = (numbers[element].get((name, column)) for name in names for column in columns)
        # loadings are told apart by hundredths
        told = ("" if v is None else f"{v:.2f}" if key == "branch" and v < 10.0 else write_number(v) for v in found)
        rows.append([Cell(element), *map(Cell, told)])
    left = len(order) - len(rows)
    note = f"{left} more are in {_FILES[key]}." if left > 0 else ""
    return Section(title, heads=heads, rows=rows, note=note, keep=True)


_FILES = {"branch": "branches.csv", "element": "moves.csv", "device": "handed_back.csv"}


def device_section(names: Sequence[str], table: pd.DataFrame) -> Section:
    """Return the devices whose setpoints were moved the longest to be feasible."""
    title = "Setpoints that had to be moved"
    if not len(table):
        return Section(title, text="There are none.", keep=True)
    longest = table.groupby("device", sort=False)["projected_h"].max()
    order = longest[longest > 0.0].sort_values(ascending=False, kind="stable").index.tolist()
    if not order:
        return Section(title, text="None on any of these days.", keep=True)
    columns = {"projected_h": "h in which it was moved", "projected_kwh": "by kWh", "projected_kvarh": "by kvarh"}
    listed = _list_by_policy(names, table, "device", order[:_MOST_TALL], columns)
    return Section(title, texts=2, note=_say_left(order, "devices.csv"), keep=True, **listed)


def rank_sections(rewards: PlayedDays, looks: Looks) -> Iterator[Section]:
    """Yield how rewards compare day by day: performance profiles, and how often who beats the best baseline."""
    profiles, best = rewards.profiles(), rewards.best_baseline
    own = find_looks(rewards.names, looks)
    if len(profiles) > 1:
        zero, one = (NAMES.get(name, name) for name in rewards.scale)
        lines = {name: (profile.thresholds, 100.0 * profile.share) for name, profile in profiles.items()}
        picture = draw_lines(
            lines, own, x_label=f"score of a day: 0 is {zero}, 1 {one}", label="Performance profiles",
            y_label="Part of days with a higher score [%]; a line above another's is of a better policy",
        )  # fmt: skip
        note = (
            "The score of a day is 1 less what its reward is below that of 1, in parts of what 1 gains over 0 in the "
            "mean of all days."
        )
        yield Section("Rewards of all days", picture=picture, keep=True, note=note)
    others = [name for name in rewards.names if name != best]
    if best is not None and others and len(rewards.provenance["days"]) > 1:
        rows = []
        for name in others:
            found, gain = rewards.improvement(name, best), rewards.difference(name, best)
            kind = "better" if found.low > 0.5 else "worse" if found.high < 0.5 else ""
            share = Cell(f"{100.0 * found.value:.0f}", f"{100.0 * found.low:.0f} to {100.0 * found.high:.0f}", kind)
            sure = bool(np.isfinite(gain.half) and abs(gain.mean) > gain.half)
            interval = f"{gain.mean - gain.half:+.2f} to {gain.mean + gain.half:+.2f}".replace("-", "\N{MINUS SIGN}")
            mean = f"{gain.mean:+.2f}".replace("-", "\N{MINUS SIGN}")
            rows.append(
                [Cell(name), share, Cell(mean, interval, ("better" if gain.mean > 0.0 else "worse") if sure else "")]
            )
        heads = ["policy", f"a higher reward than {best}, % of days", f"reward less {best}"]
        note = "Below each number its 95 % interval, over seeds and days where there are several seeds."
        yield Section("Better than the best baseline, and how often", heads=heads, rows=rows, note=note, keep=True)
