"""What policies came to on one feeder: tables to read, and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from powergrid.evaluation.report.numbers import DIVERGED, PlayedDays
from powergrid.evaluation.report.seeds import ONE_SEED, each_seed
from powergrid.evaluation.report.tables import as_markdown, as_table, describe_versions, write_tables
from powergrid.evaluation.statistics import CONFIDENCE, Estimate
from powergrid.quantities import TERMS, VIOLATION_LEVELS_PU, VIOLATION_SUFFIXES
from powergrid.scenario import name_version

if TYPE_CHECKING:
    from rich.table import Table

    from powergrid.scenario import Scenario

_STILL = (
    "native moved no tap, capacitor step or switch on any day: the feeder has no controls that would, their bands were "
    "kept, or something holds them (powergrid check names each under 'as played')"
)
_HEADINGS = ("policy", "cost, USD/day", "violations, node-h/day", "losses, kWh/day", "reward", "over best, baseline")

_GRID_HEADINGS = (
    "policy",
    "lowest, pu",
    "highest, pu",
    "loading, %",
    "overload, branch-h",
    f"beyond, {'/'.join(map(str, VIOLATION_LEVELS_PU))}",
    "peak, kW",
    "moves",
)
_SCORES = (
    "score: 0 is no_control, 1 the optimum of each day, known beforehand; middle half: without the best and worst "
    "quarter of days (interquartile mean); beats: on how many days; regret is paired by day; [ ] is the 95 % interval "
    "of seeds and days drawn again"
)
#: Devices that a note names at most.
_MOST_NAMED = 4


class EvaluationReport(PlayedDays):
    """What several policies made of the same days: numbers, and tables of them with a row for each of ``names``."""

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
        seeds: Mapping[str, int] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> EvaluationReport:
        """Make a report from the rows of :func:`play_days`, each with its ``policy``.

        By policy, ``differences`` is what differs from training, ``seeds`` the seed of it; ``groups`` has those of one
        training.
        """
        import pandas as pd

        provenance = {
            "scenario": scenario.name,
            "scenario_version": name_version(scenario),
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
            **say_telemetry(scenario),
            **({"seeds": dict(seeds)} if seeds else {}),
            **({"differs_from_training": dict(differences)} if differences else {}),
        }
        return cls(pd.DataFrame(list(rows)), dict(kinds), provenance, dict(groups or {}))

    def each_seed(self) -> EvaluationReport:
        """Return the same with a row for each seed of a training."""
        return replace(self, groups=each_seed(self.groups))

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known to read the numbers, a sentence each."""
        still = "native" in self.kinds and not self._of("native")["operations"].any()
        limited = (self._say_handed_back(name) for name in self.names if "handed_back" in self.frame)
        alone = any(len(self.seeds_of(name)) == 1 for name in self.names)
        told = [f"telemetry: {self.provenance['telemetry']}"] if "telemetry" in self.provenance else []
        return (*told, *((ONE_SEED,) if alone else ()), *((_STILL,) if still else ()), *filter(None, limited))

    @property
    def _interval(self) -> str:
        """What the intervals are over."""
        several = any(len(self.seeds_of(name)) > 1 for name in self.names)
        return f"± 95 % interval, Student's t over {'seeds and ' if several else ''}days"

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

    def table(self) -> Table:
        """Return the table of the command line: one row for each policy."""
        facts = self.provenance
        place = f" on {Path(facts['feeder']).stem}" if facts["placed"] else ""
        named = facts.get("scenario_version", facts["scenario"])
        title = f"{named}{place}: {len(facts['days'])} days of the {facts['split']} split"
        caption = "; ".join((f"{self._interval}; differences are paired by day", *self.notes))
        headings = [heading.replace(", ", "\n") for heading in _HEADINGS]
        return as_table(title, headings, self._cells(), caption=caption)

    def grid_table(self) -> Table:
        """Return what the grid went through as a table of the command line: the worst of all days, and moves a day."""
        rows = [
            (
                name,
                f"{found['v_min_pu']:.3f}",
                f"{found['v_max_pu']:.3f}",
                f"{100.0 * found['loading_max_pu']:.0f}",
                f"{found['overload_branch_hours_per_day']:.1f}",
                "/".join(f"{found[f'violation_node_hours{level}_per_day']:.1f}" for level in VIOLATION_SUFFIXES),
                f"{self._of(name)['import_peak_kw'].max():.0f}",
                f"{found['operations_per_day']:.1f}",
            )
            for name, found in ((name, self.measure(name)) for name in self.names)
        ]
        caption = (
            "voltage, loading, peak: the worst of all days; else a day; beyond: node-h outside by more pu than these"
        )
        headings = [heading.replace(", ", "\n") for heading in _GRID_HEADINGS]
        return as_table("on the grid", headings, rows, caption=caption)

    def optimum_table(self) -> Table:
        """Return how near each policy comes to the optimum, as a table of the command line."""
        rows, best = list[tuple[str, ...]](), self.best_baseline
        for name in self.names:
            regret, told = self.regret_usd(name), self.score_statistics(name) or {}
            shown = f"{regret.mean:.0f}" + (f" ± {regret.half:.0f}" if np.isfinite(regret.half) else "")
            better = "" if best is None or name == best else _say_percent(self.improvement(name, best))
            scores = (f"{told['mean'].value:.2f}", str(told["iqm"])) if told else ("", "")
            rows.append((name, *scores, better, shown))
        headings = ["policy", "score", "middle half", f"beats\n{best}, %" if best else "", "regret\nUSD/episode"]
        return as_table("beside the optimum", headings, rows, caption=_SCORES)

    def parts_table(self) -> Table:
        """Return the parts of the reward as a table of the command line: a row for each term that adds anything."""
        parts = {name: self.reward_parts(name) for name in self.names}
        terms = [term for term in (*TERMS, DIVERGED) if any(abs(own.get(term, 0.0)) >= 5e-3 for own in parts.values())]
        # no -0.00 where a term is weighed and never came up
        rows = [
            (term, *(f"{own.get(term, 0.0):.2f}".replace("-0.00", "0.00") for own in parts.values())) for term in terms
        ]
        rows.append(("reward", *(f"{self.reward(name).mean:.2f}" for name in parts)))
        caption = "what each term, times its weight, adds to the reward of an episode, mean over agents"
        return as_table("parts of the reward", ["term", *parts], rows, caption=caption)

    def to_markdown(self) -> str:
        """Return the same table as Markdown."""
        lines = as_markdown([heading.replace("best, ", "best ") for heading in _HEADINGS], self._cells(), n_texts=1)
        return "\n".join((lines, *(f"{note}\n" for note in self.notes)))

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``evaluation.csv`` (a row for each policy and day) and ``evaluation.json`` (summary, provenance).

        Both have each seed by itself; the summary has groups of seeds too. Each file is whole or not there; the folder
        is made.
        """
        kept: dict[str, Any] = {"provenance": dict(self.provenance), "best_baseline": self.best_baseline}
        kept |= {"policies": self.summary(), **({"notes": self.notes} if self.notes else {})}
        several = {name: members for name, members in self.groups.items() if len(members) > 1}
        if several:
            kept["groups"] = {name: {"policies": own, **self.summarise(name)} for name, own in several.items()}
        seeds, frame = self.provenance.get("seeds"), self.frame
        if seeds:
            frame = frame.assign(seed=frame["policy"].map(seeds).astype("Int64"))
            frame = frame[["policy", "seed", *(name for name in self.frame.columns if name != "policy")]]
        return write_tables(Path(folder), "evaluation", frame, kept)

    def _cells(self) -> list[tuple[str, ...]]:
        best = self.best_baseline
        rows: list[tuple[str, ...]] = []
        for name in self.names:
            found = self.measure(name)
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


def say_telemetry(scenario: Scenario) -> dict[str, str]:
    """Return in words what lies between grid and agents, as a fact of a report; nothing where nothing does."""
    said = "" if scenario.telemetry is None else scenario.telemetry.say()
    return {"telemetry": said} if said else {}


def _say_percent(share: Estimate) -> str:
    value, low, high = (100.0 * number for number in share)
    return f"{value:.0f}" + (f" [{low:.0f}, {high:.0f}]" if np.isfinite(low) else "")
