"""What policies came to on several feeders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powergrid.evaluation.report.evaluation import EvaluationReport
from powergrid.evaluation.report.tables import as_markdown, as_table, write_tables

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_HEADINGS = ("feeder", "policy", "trained on it", "reward", "over no_control", "score", "violations, node-h/day")


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

    def each_seed(self) -> FeederComparison:
        """Return the same with a row for each seed of a training."""
        return replace(self, reports={name: report.each_seed() for name, report in self.reports.items()})

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
        return [self._row(feeder, policy) for feeder, report in self.reports.items() for policy in report.names]

    def table(self) -> Table:
        """Return the summary as a table of the command line; what is gained over ``no_control`` is in the files."""
        shown = [place for place, heading in enumerate(_HEADINGS) if heading != "over no_control"]  # 80 columns
        headings = [_HEADINGS[place].replace(" on", "\non").replace(", ", "\n") for place in shown]
        rows = [[row[place] for place in shown] for row in self._cells()]
        caption = "score: 0 is no_control, 1 the best baseline on that feeder"
        return as_table("by feeder", headings, rows, texts=headings[:3], caption=caption)

    def to_markdown(self) -> str:
        """Return the summary as Markdown."""
        return as_markdown(_HEADINGS, self._cells(), n_texts=3)

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``feeders.csv`` (a row for each feeder and policy), ``feeders.json`` and a folder for each feeder."""
        import pandas as pd

        rows = self.summary()
        kept = {"trained_on": dict(self.trained_on), "placements": dict(self.placements), "summary": rows}
        files = write_tables(Path(folder), "feeders", pd.DataFrame(rows), kept)
        for name, report in self.reports.items():
            files += report.write(Path(folder) / name)
        return files

    def _row(self, feeder: str, policy: str) -> dict[str, Any]:
        report = self.reports[feeder]
        reward, best = report.reward(policy), report.best_baseline
        first = report.groups.get(policy, (policy,))[0]  # trained on the same, all of them
        found: dict[str, Any] = {
            "feeder": feeder,
            "policy": policy,
            "trained_on_it": feeder in self.trained_on[first] if first in self.trained_on else None,
            "reward_mean": reward.mean,
            "reward_half_interval": reward.half,
            "over_no_control": None,
            "over_no_control_half_interval": None,
            "score": None,
            "violation_node_hours_per_day": report.measure(policy)["violation_node_hours_per_day"],
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
