"""What policies came to under stresses: a matrix of policies and stresses, as tables, as a page, in a few sentences."""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from powergrid.evaluation.drawing.charts import find_looks
from powergrid.evaluation.report.tables import as_table
from powergrid.evaluation.statistics import CONFIDENCE
from powergrid.evaluation.stresses.spec import UNDISTURBED, WORST, Stress
from powergrid.evaluation.studies.charts import draw_bars
from powergrid.evaluation.studies.compare import NAMES, Comparison, Sentence, compare, name_title, write_number
from powergrid.evaluation.studies.sections import Cell, Section
from powergrid.evaluation.studies.summary import Summary
from powergrid.files import make_folder, replacing, write_whole
from powergrid.quantities import QUANTITIES
from powergrid.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

#: Measures of the matrix, what a reader calls them, and whether more of it is better.
SHOWN = {
    "range_a_node_hours": ("Node-hours outside range A", False),
    "operations": ("Moves of switchgear", False),
    "losses_kwh": ("Losses [kWh]", False),
    "import_peak_kw": ("Peak import [kW]", False),
    "overload_branch_hours": ("Branch-hours above rating", False),
    "unserved_kwh": ("Demand that was not served [kWh]", False),
    "reward": ("Reward", True),
}
_MEASURES = tuple(QUANTITIES[name] for name in SHOWN)
_FIRST = "range_a_node_hours"
_COLUMNS = (
    *("stress", "policy", "measure", "unit", "mean", "undisturbed", "against", "difference", "half_interval", "days"),
    "unfinished_days",
)
_CAVEAT = (
    f"Means of a day. Differences are paired day by day, with {CONFIDENCE:.0%} intervals of Student's t over the days; "
    "what intervals do not tell apart is not claimed. Nothing was trained anew: policies see the numbers that they saw "
    "in training, scaled as then. Nodes that an outage leaves dark have no voltage and count in no range; their demand "
    "is not served. Missing readings are those of policies: baselines act on the grid itself."
)


@dataclass(frozen=True)
class StressReport:
    """What policies made of the same days as they are and under each stress.

    Attributes:
        scenario: The scenario as it is.
        subjects: Names of the policies that it is about.
        against: Names of those they are compared with, the most important first.
        stresses: The stresses by name.
        summaries: What the days of each policy came to, by stress and policy; ``undisturbed`` is the first.
        facts: Where all this comes from: digests, versions, days, seed.
        notes: What has to be known of a policy's days, by policy.
    """

    scenario: Scenario
    subjects: tuple[str, ...]
    against: tuple[str, ...]
    stresses: Mapping[str, Stress]
    summaries: Mapping[str, Mapping[str, Summary]]
    facts: Mapping[str, Any]
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody who played."""
        return (*self.subjects, *self.against)

    @functools.cached_property
    def days(self) -> pd.DataFrame:
        """A row for each stress, policy and day, with the columns of a report's days."""
        import pandas as pd

        frames = [
            own.days().assign(stress=stress, policy=name)
            for stress, by_policy in self.summaries.items()
            for name, own in by_policy.items()
        ]
        whole = pd.concat(frames, ignore_index=True)
        return whole[["stress", "policy", *(c for c in whole.columns if c not in ("stress", "policy"))]]

    def comparisons(self) -> dict[tuple[str, str, str], list[Comparison]]:
        """Return the measures of each policy beside each of those compared with, by stress, policy and the other."""
        return self._compared

    @functools.cached_property
    def _compared(self) -> dict[tuple[str, str, str], list[Comparison]]:
        days = {str(stress): own for stress, own in self.days.groupby("stress", sort=False)}
        return {
            (stress, one, two): compare(days[stress], one, two, _MEASURES)
            for stress in self.summaries
            for one in self.names
            for two in self.against
            if one != two
        }

    @functools.cached_property
    def cells(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """What stands at each stress, policy and measure, see :meth:`matrix`."""
        days, compared, found = self.days, self.comparisons(), {}
        means = {key: own[[*SHOWN]].mean() for key, own in days.groupby(["stress", "policy"], sort=False)}
        left = {key: int((~own).sum()) for key, own in days.groupby(["stress", "policy"], sort=False)["finished"]}
        first = next(iter(self.against), "")
        for stress in self.summaries:
            for policy in self.names:
                own = {each.measure.name: each for each in compared.get((stress, policy, first), ())}
                for measure in _MEASURES:
                    name, each = measure.name, own.get(measure.name)
                    gap = (np.nan, np.nan, 0) if each is None else (*each.difference, each.n_days)
                    values = float(means[stress, policy][name]), float(means[UNDISTURBED, policy][name])
                    row = (stress, policy, name, measure.unit, *values, first, *gap, left[stress, policy])
                    found[stress, policy, name] = dict(zip(_COLUMNS, row, strict=True))
        return found

    def matrix(self) -> pd.DataFrame:
        """Return a row for each stress, policy and measure: mean, that of undisturbed days, difference to the first.

        The difference is that to the first of ``against``, paired by day over the days that both finished, with half
        its 95 % interval.
        """
        import pandas as pd

        return pd.DataFrame(list(self.cells.values()), columns=_COLUMNS)

    def verdicts(self) -> dict[str, list[Sentence]]:
        """Return what may be said of each policy; nothing that the days do not tell."""
        return {name: list(self._judge(name)) for name in self.subjects}

    def _judge(self, policy: str) -> Iterator[Sentence]:
        means = self.days.groupby(["stress", "policy"], sort=False)[_FIRST].mean()
        own = means.xs(policy, level="policy")
        called, n_days = NAMES.get(policy, policy), self.facts["days"]
        told = ", ".join(f"{NAMES.get(o, o)} {write_number(means[UNDISTURBED, o])}" for o in self.against)
        yield Sentence(
            f"On {n_days} undisturbed {'day' if n_days == 1 else 'days'} {called} had "
            f"{write_number(own[UNDISTURBED])} node-hours a day outside range A of ANSI C84.1; {told}."
        )
        if policy in self.notes:
            yield Sentence(self.notes[policy])
        rest = own.drop(UNDISTURBED)
        if len(rest) and not rest.any():
            yield Sentence("It has none under any stress.")
        elif len(rest):
            hardest = str(rest.idxmax())
            yield Sentence(
                f"Most node-hours it has under {hardest}: {write_number(rest[hardest])}, "
                f"{write_number(rest[hardest] - own[UNDISTURBED], sign=True)} against undisturbed days."
            )
        idle = [stress for stress in self.stresses if self._is_idle(stress)]
        if idle:
            yield Sentence(f"Nothing here depends on what {', '.join(idle)} changes: all days are as undisturbed ones.")
        compared = self.comparisons()
        for other in self.against:
            yield from self._weigh(other, {s: compared[s, policy, other] for s in self.stresses if s not in idle})

    def _is_idle(self, stress: str) -> bool:
        """Whether everybody's days are the same under a stress as without it."""
        # events are solved by a way of their own, to the same voltages within the solver's tolerance
        own = ((cell["mean"], cell["undisturbed"]) for key, cell in self.cells.items() if key[0] == stress)
        near = self.scenario.solver.tolerance
        return all(math.isclose(now, before, rel_tol=near, abs_tol=near) for now, before in own)

    def _weigh(self, other: str, found: Mapping[str, Sequence[Comparison]]) -> Iterator[Sentence]:
        """Say under which stresses it is better, worse and not told apart, by node-hours."""
        signs: dict[int, list[str]] = {-1: [], 1: [], 0: []}
        for stress, measures in found.items():
            sign = next((each.sign for each in measures if each.measure.name == _FIRST), 0)
            signs[sign].append(stress)
        name, words = NAMES.get(other, other), {-1: "fewer", 1: "more"}
        parts = [
            f"{words[sign]} under {len(signs[sign])} of {len(found)} stresses ({', '.join(signs[sign])})"
            for sign in (-1, 1)
            if signs[sign]
        ]
        even = f"not told apart under {', '.join(signs[0])}" if signs[0] else ""
        even = "not told apart under any stress" if len(signs[0]) == len(found) > 1 else even
        if found:
            yield Sentence(f"Node-hours against {name}: {'; '.join(filter(None, (*parts, even)))}.")

    # -- shown

    def table(self) -> Table:
        """Return the matrix as a table of the command line, stress by stress; it fits 80 columns."""
        first = next(iter(self.against), "")
        unserved = self._any("unserved_kwh")
        title = f"{self.scenario.name}: {self.facts['days']} days of the {self.facts['split']} split"
        caption = f"means of a day; ± 95 % interval of the difference to {first}, paired by day"
        heads = ["stress\n  policy", "outside A\nnode-h", f"less\n{first}", "moves", "losses\nkWh", "peak\nkW"]
        heads += [*(["unserved\nkWh"] if unserved else []), "reward"]
        rows = list[Sequence[str]]()
        for stress in self.summaries:
            rows.append((stress, *[""] * (len(heads) - 1)))
            for policy in self.names:
                own = {name: self.cells[stress, policy, name] for name in SHOWN}
                left = int(own[_FIRST]["unfinished_days"])
                rows.append((
                    f"  {policy}" + (f" ({left} days unfinished)" if left else ""),
                    f"{own[_FIRST]['mean']:.1f}",
                    "" if policy == first else _with_interval(own[_FIRST]),
                    f"{own['operations']['mean']:.1f}",
                    f"{own['losses_kwh']['mean']:.0f}",
                    f"{own['import_peak_kw']['mean']:.0f}",
                    *([f"{own['unserved_kwh']['mean']:.0f}"] if unserved else []),
                    f"{own['reward']['mean']:.2f}",
                ))  # fmt: skip
        return as_table(title, heads, rows, caption=caption)

    def as_html(self) -> str:
        """Return the matrix as one page that needs nothing else, also to be printed."""
        from jinja2 import Environment

        here = importlib.resources.files("powergrid.evaluation.studies")
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(here.joinpath("report.html.jinja").read_text(encoding="utf-8"))
        named = {name: NAMES.get(name, name) for name in self.subjects}
        facts = self.facts
        return template.render(
            title=name_title(self.subjects, f"on {self.scenario.name} under stress"),
            subtitle=f"{facts['days']} days of the {facts['split']} split, {len(self.stresses)} stresses, "
            f"feeder {facts['feeder']}",
            css=here.joinpath("report.css").read_text(encoding="utf-8"),
            verdicts={named[name]: sentences for name, sentences in self.verdicts().items()},
            caveat=_CAVEAT,
            sections=list(self._sections()),
            facts={key.replace("_", " "): value for key, value in facts.items()},
        )

    def _sections(self) -> Iterator[Section]:
        bars = {s: {p: self.cells[s, p, _FIRST]["mean"] for p in self.names} for s in self.summaries}
        label = "Node-hours outside range A by stress and policy"
        picture = draw_bars(
            bars, find_looks(self.names), unit="node-hours a day outside range A; less is better", label=label
        )
        yield Section("Stress by stress", picture=picture, keep=True)
        first = next(iter(self.against), "")
        for measure, (words, more) in SHOWN.items():
            if not self._any(measure):
                continue
            rows = [
                [Cell(stress, self._describe(stress)),
                 *(_as_cell(self.cells[stress, policy, measure], more) for policy in self.names)]
                for stress in self.summaries
            ]  # fmt: skip
            note = f"Below each mean the 95 % interval of the difference to {first}; green is better, red is worse."
            yield Section(words, heads=["stress", *self.names], rows=rows, note=note if first else "")

    def _describe(self, stress: str) -> str:
        own = self.stresses.get(stress)
        if own is None:
            return ""
        line = f" ({self.facts['line_out']})" if WORST in (own.outage or ()) and "line_out" in self.facts else ""
        return own.description + line

    def _any(self, measure: str) -> bool:
        return any(own["mean"] for key, own in self.cells.items() if key[2] == measure)

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``stress.html``, ``stress.json`` (verdict, stresses, facts), and ``days`` and ``matrix`` as tables.

        Tables are CSV and Parquet; each file is whole or not there, and the folder is made.
        """
        folder = Path(folder)
        make_folder(folder)
        kept = {
            "facts": dict(self.facts),
            "notes": dict(self.notes),
            "verdicts": {name: [str(each) for each in told] for name, told in self.verdicts().items()},
            "stresses": {n: s.model_dump(mode="json", exclude_defaults=True) for n, s in self.stresses.items()},
        }
        files = {"stress.html": self.as_html(), "stress.json": json.dumps(kept, indent=1) + "\n"}
        tables = {"days": self.days, "matrix": self.matrix()}
        files |= {f"{name}.csv": table.to_csv(index=False, lineterminator="\n") for name, table in tables.items()}
        for file, text in files.items():
            write_whole(folder / file, text)
        for name, table in tables.items():
            with replacing(folder / f"{name}.parquet") as place:
                table.to_parquet(place, index=False)
        return [folder / file for file in (*files, *(f"{name}.parquet" for name in tables))]


def _with_interval(row: Mapping[str, Any]) -> str:
    mean, half = float(row["difference"]), float(row["half_interval"])
    if not np.isfinite(mean):
        return ""
    digits = 1 if max(abs(mean), abs(half) if np.isfinite(half) else 0.0) < 99.95 else 0
    return f"{mean:+.{digits}f}" + (f" ± {half:.{digits}f}" if np.isfinite(half) else "")


def _as_cell(row: Mapping[str, Any], more_is_better: bool) -> Cell:
    mean, half = float(row["difference"]), float(row["half_interval"])
    text = write_number(float(row["mean"]))
    if not np.isfinite(half):
        return Cell(text)
    interval = f"{write_number(mean - half, sign=True)} to {write_number(mean + half, sign=True)}"
    told = abs(mean) > half and abs(mean) > 1e-9
    kind = "" if not told else "better" if (mean > 0.0) == more_is_better else "worse"
    return Cell(text, interval, kind)
