"""What evaluations came to, on one feeder or on several: tables to read, rows to work with, files; it plays nothing."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import powergrid
from powergrid.evaluation.statistics import CONFIDENCE, Interval, confidence_interval
from powergrid.files import make_folder, write_whole
from powergrid.quantities import EVALUATION, TERMS

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from powergrid.scenario import Scenario

# What the numbers can depend on besides PowerGrid and Python.
_DISTRIBUTIONS = ("numpy", "pandas", "scipy", "opendssdirect.py", "dss-python-backend")
_FEEDER_HEADINGS = ("feeder", "policy", "trained on it", "reward", "over no_control", "score", "violations, node-h/day")
_STILL = "native moved no tap, capacitor step or switch on any day; is something holding the feeder's controls?"
_HEADINGS = ("policy", "cost, USD/day", "violations, node-h/day", "losses, kWh/day", "reward", "over best, baseline")

_GRID_HEADINGS = (
    "policy",
    "lowest, pu",
    "highest, pu",
    "loading, %",
    "overload, branch-h/day",
    "peak, kW",
    "moves, 1/day",
)
_DIVERGED = "divergence"
#: Devices that a note names at most.
_MOST_NAMED = 4
#: What sums of many terms may be off by.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class EvaluationReport:
    """What several policies made of the same days.

    Attributes:
        frame: One row for each policy and day; see ``docs/evaluation.md`` for the columns.
        kinds: ``baseline``, ``optimum`` or ``policy`` by name, in the order of evaluation.
        provenance: Scenario and its digest, profiles' digest, versions, split, days, seed.
    """

    frame: pd.DataFrame
    kinds: Mapping[str, str]
    provenance: Mapping[str, Any]

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Mapping[str, Any]],
        kinds: Mapping[str, str],
        *,
        scenario: Scenario,
        split: str,
        days: Sequence[int],
        seed: int,
        differences: Mapping[str, Sequence[str]] | None = None,
    ) -> EvaluationReport:
        """Make a report from the rows of :func:`play_days`, each with its ``policy``.

        ``differences`` is what differs from training, by policy.
        """
        import pandas as pd

        provenance = {
            "scenario": scenario.name,
            "feeder": scenario.feeder,
            "placed": bool(scenario.placed.home),
            "scenario_digest": scenario.digest(),
            "profiles_digest": scenario.read_profiles().digest(),
            "split": split,
            "days": [int(day) for day in days],
            "seed": seed,
            "reward_scale": scenario.reward.scale,
            "reward_weights": {term: scenario.weight_of(term) * scenario.reward.scale for term in TERMS},
            "confidence": CONFIDENCE,
            "versions": describe_versions(),
            **({"differs_from_training": dict(differences)} if differences else {}),
        }
        return cls(pd.DataFrame(list(rows)), dict(kinds), provenance)

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the highest mean reward, None where none was played."""
        baselines = [name for name, kind in self.kinds.items() if kind == "baseline"]
        return max(baselines, key=lambda name: self.reward(name).mean, default=None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known to read the numbers, a sentence each."""
        still = "native" in self.kinds and not self._of("native")["operations"].any()
        limited = (self._say_handed_back(name) for name in self.kinds if "handed_back" in self.frame)
        return (*((_STILL,) if still else ()), *filter(None, limited))

    def _say_handed_back(self, name: str) -> str:
        """Say how often a policy's devices were handed back to the feeder's own controls, nothing where never."""
        rows = self._of(name)
        to_day = 24.0 / rows["hours"]
        per_day = {
            column.partition(":")[2]: float((rows[column] * to_day).mean())
            for column in rows.columns
            if column.startswith("handed_back")
        }
        steps = per_day.pop("", 0.0)
        if not steps > 0.0:  # NaN of those that no limit holds
            return ""
        most = sorted(((count, device) for device, count in per_day.items() if count > 0.0), reverse=True)[:_MOST_NAMED]
        devices = ", ".join(f"{device} {count:.1f}" for count, device in most)
        return f"{name} was handed back to the feeder's own controls in {steps:.1f} steps a day ({devices})"

    def reward(self, policy: str) -> Interval:
        """Return a policy's mean reward of an episode, over agents and days, with its interval."""
        return confidence_interval(self._of(policy)["reward"])

    def difference(self, policy: str, other: str) -> Interval:
        """Return by how much a policy's reward is higher than another's, paired day by day, with its interval."""
        # Days differ far more by season than by policy: the difference on each day is what tells policies apart.
        mine, theirs = (self._of(name).set_index("day")["reward"] for name in (policy, other))
        return confidence_interval(mine - theirs.loc[mine.index])

    @property
    def optimum(self) -> str | None:
        """What played the days knowing them beforehand, None where nothing did."""
        return next((name for name, kind in self.kinds.items() if kind == "optimum"), None)

    def score(self, policy: str) -> float | None:
        """Return how much of what lies between ``no_control``, 0, and the optimum, 1, a policy reaches.

        Of mean rewards; None where one of the two was not played, or nothing lies between them.
        """
        if self.optimum is None or "no_control" not in self.kinds:
            return None
        nothing = self.reward("no_control").mean
        span = self.reward(self.optimum).mean - nothing
        return (self.reward(policy).mean - nothing) / span if span > 0.0 else None

    def regret_usd(self, policy: str) -> Interval:
        """Return what a policy's episode costs all agents above the optimum's [USD], paired by day.

        Raises:
            ValueError: The optimum was not played.
        """
        if self.optimum is None:
            raise ValueError("the optimum was not played")
        n_agents = sum(column.startswith("reward:") for column in self.frame.columns)
        short, usd = self.difference(self.optimum, policy), n_agents / self.provenance["reward_scale"]
        return Interval(short.mean * usd, short.half * usd)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return means over days, sums as of 24 hours, the worst of all days, and rewards with intervals, by policy."""
        best = self.best_baseline
        return {name: self._summarise(name, best) for name in self.kinds}

    def table(self) -> Table:
        """Return the table of the command line: one row for each policy."""
        facts = self.provenance
        place = f" on {Path(facts['feeder']).stem}" if facts["placed"] else ""
        title = f"{facts['scenario']}{place}: {len(facts['days'])} days of the {facts['split']} split"
        caption = "; ".join(("± 95 % interval, Student's t over days; differences are paired by day", *self.notes))
        headings = [heading.replace(", ", "\n") for heading in _HEADINGS]
        return _as_table(title, caption, headings, self._cells(), n_names=1, min_width=10)

    def grid_table(self) -> Table:
        """Return what the grid went through as a table of the command line: the worst of all days, and moves a day."""
        rows = [
            (
                name,
                f"{found['v_min_pu']:.3f}",
                f"{found['v_max_pu']:.3f}",
                f"{100.0 * found['loading_max_pu']:.0f}",
                f"{found['overload_branch_hours_per_day']:.1f}",
                f"{self._of(name)['import_peak_kw'].max():.0f}",
                f"{found['operations_per_day']:.1f}",
            )
            for name, found in self.summary().items()
        ]
        caption = "voltage, loading and peak: the worst of all days"
        headings = [heading.replace(", ", "\n") for heading in _GRID_HEADINGS]
        return _as_table("on the grid", caption, headings, rows, n_names=1, min_width=10)

    def optimum_table(self) -> Table:
        """Return how near each policy comes to the optimum, as a table of the command line."""
        rows = []
        for name in self.kinds:
            score, regret = self.score(name), self.regret_usd(name)
            shown = f"{regret.mean:.0f}" + (f" ± {regret.half:.0f}" if np.isfinite(regret.half) else "")
            rows.append((name, str(self.reward(name)), "" if score is None else f"{score:.2f}", shown))
        caption = "score: 0 is no_control, 1 the optimum of each day, known beforehand; regret is paired by day"
        headings = ["policy", "reward", "score", "regret\nUSD/episode"]
        return _as_table("beside the optimum", caption, headings, rows, n_names=1, min_width=10)

    def reward_parts(self, policy: str) -> dict[str, float]:
        """Return what each term with a weight adds to a policy's mean reward of an episode, negative where it costs.

        They add up to it; what is left, the penalty of days that diverged, is ``divergence``.
        """
        rows, weights = self._of(policy), self.provenance["reward_weights"]
        n_agents = sum(column.startswith("reward:") for column in rows.columns)
        parts = {
            term: -weight * float(rows[term].mean()) / n_agents
            for term, weight in weights.items()
            if weight and term in rows
        }
        left = self.reward(policy).mean - sum(parts.values())
        return parts if abs(left) < _ROUNDING else {**parts, _DIVERGED: left}

    def parts_table(self) -> Table:
        """Return the parts of the reward as a table of the command line: a row for each term that adds anything."""
        parts = {name: self.reward_parts(name) for name in self.kinds}
        terms = [term for term in (*TERMS, _DIVERGED) if any(abs(own.get(term, 0.0)) >= 5e-3 for own in parts.values())]
        # no -0.00 where a term is weighed and never came up
        rows = [
            (term, *(f"{own.get(term, 0.0):.2f}".replace("-0.00", "0.00") for own in parts.values())) for term in terms
        ]
        rows.append(("reward", *(f"{self.reward(name).mean:.2f}" for name in parts)))
        caption = "what each term, times its weight, adds to the reward of an episode, mean over agents"
        return _as_table("parts of the reward", caption, ["term", *parts], rows, n_names=1, min_width=10)

    def to_markdown(self) -> str:
        """Return the same table as Markdown."""
        lines = _as_markdown([heading.replace("best, ", "best ") for heading in _HEADINGS], self._cells(), n_texts=1)
        return "\n".join((lines, *(f"{note}\n" for note in self.notes)))

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``evaluation.csv`` (a row for each policy and day) and ``evaluation.json`` (summary, provenance).

        Each file is whole or not there; the folder is made.
        """
        kept: dict[str, Any] = {"provenance": dict(self.provenance), "best_baseline": self.best_baseline}
        kept |= {"policies": self.summary(), **({"notes": self.notes} if self.notes else {})}
        return _write_tables(Path(folder), "evaluation", self.frame, kept)

    def _of(self, policy: str) -> pd.DataFrame:
        return self.frame[self.frame["policy"] == policy]

    def _summarise(self, name: str, best: str | None) -> dict[str, Any]:
        rows = self._of(name)
        reward = self.reward(name)
        to_day = 24.0 / rows["hours"]  # an episode may be shorter than a day, or cut short by divergence
        found: dict[str, Any] = {
            "kind": self.kinds[name],
            "days": len(rows),
            "finished_days": int(rows["finished"].sum()),
            "reward_mean": reward.mean,
            "reward_half_interval": reward.half,
        }
        if best is not None and name != best:
            gain = self.difference(name, best)
            found |= {"reward_over_best_baseline": gain.mean, "reward_over_best_baseline_half_interval": gain.half}
        if self.optimum is not None:
            regret = self.regret_usd(name)
            found |= {"score": self.score(name), "regret_usd": regret.mean, "regret_usd_half_interval": regret.half}
        suffixes = {"per_day": "_per_day", "mean": "_mean", "max": "", "min": ""}
        for how, suffix in suffixes.items():
            for column in (quantity.name for quantity in EVALUATION if quantity.summarised == how):
                if column not in rows:
                    continue
                values = rows[column] * to_day if how == "per_day" else rows[column]
                found[column + suffix] = float(values.agg("mean" if how == "per_day" else how))
        found["worst_node"] = str(rows["worst_node"].to_list()[int(rows["violation_max_pu"].to_numpy().argmax())])
        return found

    def _cells(self) -> list[tuple[str, ...]]:
        best = self.best_baseline
        rows: list[tuple[str, ...]] = []
        for name, found in self.summary().items():
            unfinished = found["days"] - found["finished_days"]
            gain = "" if best is None else "best" if name == best else f"{self.difference(name, best)}"
            rows.append((
                name + (f" ({unfinished} days not finished)" if unfinished else ""),
                f"{found['cost_usd_per_day']:.0f}",
                f"{found['violation_node_hours_per_day']:.1f}",
                f"{found['losses_kwh_per_day']:.0f}",
                str(self.reward(name)),
                gain,
            ))  # fmt: skip
        return rows


@dataclass(frozen=True)
class FeederComparison:
    """What policies came to on several feeders.

    Attributes:
        reports: The evaluation on each feeder, by its name.
        trained_on: Names of the evaluated feeders that each trained policy saw in training; policies that do not say
            are left out.
        placements: By feeder, the rule or map that placed the scenario there; empty where it was made for it.
    """

    reports: Mapping[str, EvaluationReport]
    trained_on: Mapping[str, tuple[str, ...]]
    placements: Mapping[str, str]

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each feeder, policy and day; columns as in ``EvaluationReport.frame``, ``feeder`` first."""
        import pandas as pd

        frames = [report.frame.assign(feeder=name) for name, report in self.reports.items()]
        whole = pd.concat(frames, ignore_index=True)
        return whole[["feeder", *(column for column in whole.columns if column != "feeder")]]

    def summary(self) -> list[dict[str, Any]]:
        """Return a row for each feeder and policy.

        ``score`` is (reward - that of ``no_control``) / (that of the best baseline - that of ``no_control``): 0 is as
        good as doing nothing, 1 as the best baseline; None where one was not played or nothing lies between them.
        ``trained_on_it`` is None for baselines and policies that do not say.
        """
        return [self._row(feeder, policy) for feeder, report in self.reports.items() for policy in report.kinds]

    def table(self) -> Table:
        """Return the summary as a table of the command line; what is gained over ``no_control`` is in the files."""
        shown = [place for place, heading in enumerate(_FEEDER_HEADINGS) if heading != "over no_control"]  # 80 columns
        headings = [_FEEDER_HEADINGS[place].replace(" on", "\non").replace(", ", "\n") for place in shown]
        rows = [[row[place] for place in shown] for row in self._cells()]
        caption = "score: 0 is no_control, 1 the best baseline on that feeder"
        return _as_table("by feeder", caption, headings, rows, n_names=2, n_texts=3, min_width=11)

    def to_markdown(self) -> str:
        """Return the summary as Markdown."""
        return _as_markdown(_FEEDER_HEADINGS, self._cells(), n_texts=3)

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``feeders.csv`` (a row for each feeder and policy), ``feeders.json`` and a folder for each feeder."""
        import pandas as pd

        rows = self.summary()
        kept = {"trained_on": dict(self.trained_on), "placements": dict(self.placements), "summary": rows}
        files = _write_tables(Path(folder), "feeders", pd.DataFrame(rows), kept)
        for name, report in self.reports.items():
            files += report.write(Path(folder) / name)
        return files

    def _row(self, feeder: str, policy: str) -> dict[str, Any]:
        report = self.reports[feeder]
        reward, best = report.reward(policy), report.best_baseline
        found: dict[str, Any] = {
            "feeder": feeder,
            "policy": policy,
            "trained_on_it": feeder in self.trained_on[policy] if policy in self.trained_on else None,
            "reward_mean": reward.mean,
            "reward_half_interval": reward.half,
            "over_no_control": None,
            "over_no_control_half_interval": None,
            "score": None,
            "violation_node_hours_per_day": report.summary()[policy]["violation_node_hours_per_day"],
        }
        if "no_control" in report.kinds and best is not None:
            nothing = report.reward("no_control").mean
            span = report.reward(best).mean - nothing
            if policy != "no_control":
                gain = report.difference(policy, "no_control")
                found |= {"over_no_control": gain.mean, "over_no_control_half_interval": gain.half}
            if span > 0.0:
                found["score"] = (reward.mean - nothing) / span
        return found

    def _cells(self) -> list[tuple[str, ...]]:
        cells: list[tuple[str, ...]] = []
        for row in self.summary():
            report = self.reports[row["feeder"]]
            gain = report.difference(row["policy"], "no_control") if row["over_no_control"] is not None else ""
            cells.append((
                row["feeder"],
                row["policy"],
                {None: "", True: "yes", False: "unseen"}[row["trained_on_it"]],
                str(report.reward(row["policy"])),
                str(gain),
                "" if row["score"] is None else f"{row['score']:.2f}",
                f"{row['violation_node_hours_per_day']:.1f}",
            ))  # fmt: skip
        return cells


def describe_versions() -> dict[str, str]:
    """Return the versions of what numbers depend on."""
    found = {"powergrid": powergrid.__version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with suppress(PackageNotFoundError):  # a checkout may run on what no package manager put there
            found[name] = version(name)
    return found


def _as_table(
    title: str, caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *,
    n_names: int, n_texts: int = 0, min_width: int,
) -> Table:  # fmt: skip
    """Return a table of names, which are folded where they are long, other texts, and numbers, which are never cut."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, box=SIMPLE, caption=caption)
    for place, heading in enumerate(headings):
        if place < n_names:
            table.add_column(heading, overflow="fold", min_width=min_width)
        else:
            table.add_column(heading, justify="left" if place < n_texts else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], n_texts: int) -> str:
    """Return a table as Markdown, the first columns as texts and the others, to the right, as numbers."""
    rule = "|" + "---|" * n_texts + "---:|" * (len(headings) - n_texts)
    return "\n".join([f"| {' | '.join(headings)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _write_tables(folder: Path, name: str, frame: pd.DataFrame, kept: Mapping[str, Any]) -> list[Path]:
    """Write ``<name>.csv`` and ``<name>.json``, each whole or not at all; the folder is made."""
    make_folder(folder)
    # JSON has no NaN: where there is no number it says null.
    plain = json.loads(json.dumps(kept), parse_constant=lambda _: None)
    texts = {
        f"{name}.csv": frame.to_csv(index=False, lineterminator="\n"),
        f"{name}.json": json.dumps(plain, indent=1, allow_nan=False) + "\n",
    }
    for file, text in texts.items():
        write_whole(folder / file, text)
    return [folder / file for file in texts]
