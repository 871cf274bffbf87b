"""The optima of some days beside policies: played, priced by the model, and what may be left; tables and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.optimum.foresight import Optimum
from powergrid.evaluation.optimum.kept import Foresight, Optima
from powergrid.evaluation.players import Policy
from powergrid.evaluation.report import EvaluationReport
from powergrid.evaluation.report.tables import as_table, write_tables
from powergrid.evaluation.rollout import evaluate, read_scenario

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from powergrid.scenario import Scenario

#: Who is played beside the optimum in any case: the lower end of the scale.
LOWER, UPPER = "no_control", "optimum"
_CAPTION = (
    "model: the day as the linear program prices it, and what small changes of it still promise; on top: what it "
    "promises for changes of any size, as far as slopes hold: a size of what may be left, no proven bound"
)


@dataclass(frozen=True)
class OptimumReport:
    """The optima of some days, and what policies made of these.

    Attributes:
        evaluation: All of them as :func:`powergrid.evaluation.evaluate` played them, the optimum too.
        optima: The optimum of each day, by its number from the first of the profiles.
    """

    evaluation: EvaluationReport
    optima: Mapping[int, Optimum]

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each day: rewards by policy, and what there is to know of the optimum."""
        rewards = self.evaluation.frame.pivot(index=["day", "date"], columns="policy", values="reward")
        frame = rewards[list(self.evaluation.kinds)].reset_index().rename(columns={UPPER: "played"})
        for name in ("priced", "model", "promised", "rounds", "cpu_s"):
            frame[name] = [getattr(self.optima[int(day)], name) for day in frame["day"]]
        frame["difference"] = frame["played"] - frame["model"]
        return frame.rename_axis(columns=None)

    def table(self) -> Table:
        """Return the days as a table of the command line."""
        rows = [
            (str(row.date), f"{row[LOWER]:.3f}", f"{row.played:.4f}", f"{row.model:.4f}", f"{row.difference:+.5f}",
             f"{row.promised:.3f}", f"{row.cpu_s:.0f}")
            for _, row in self.frame.iterrows()
        ]  # fmt: skip
        headings = ["day", "no_\ncontrol", "optimum\nplayed", "\nmodel", "played\nless model", "on top", "time\ns"]
        title = f"{self.evaluation.provenance['scenario']}: the optimum of each day"
        return as_table(title, headings, rows, caption=_CAPTION)

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``optimum.csv`` (a row for each day) and ``optimum.json``, and what an evaluation writes."""
        kept = {"provenance": dict(self.evaluation.provenance), "policies": self.evaluation.summary()}
        rows: list[dict[str, Any]] = self.frame.to_dict("records")  # type: ignore[assignment]
        return [
            *write_tables(Path(folder), UPPER, self.frame, {**kept, "days": rows}),
            *self.evaluation.write(folder),
        ]


def find_optima(
    env_config: Mapping[str, Any] | Scenario,
    policies: Sequence[str | tuple[str, Policy]] = (),
    *,
    split: str = "test",
    days: int | Sequence[int] = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> OptimumReport:
    """Find the optimum of some days, play it in the environment, and play others beside it.

    Args:
        env_config, split, days, seed: As for :func:`powergrid.evaluation.evaluate`.
        policies: Who else is played; ``no_control`` and ``optimum`` are in any case.
        progress: Called with the number of episodes played and to play.

    Raises:
        ScenarioError: The settings are wrong, or the scenario has what no program tells.
    """
    scenario = read_scenario(env_config, split)
    others = [each for each in policies if each not in (LOWER, UPPER)]
    report = evaluate(scenario, [UPPER, LOWER, *others], split=split, days=days, seed=seed, progress=progress)
    # what was just found is kept
    with closing(_optima_of(scenario, seed)) as optima:
        found = {day: optima.of(day) for day in report.provenance["days"]}
    kinds = {name: report.kinds[name] for name in (*(name for name in report.kinds if name != UPPER), UPPER)}
    return OptimumReport(replace(report, kinds=kinds), found)


def _optima_of(scenario: Scenario, seed: int = 0) -> Optima:
    """Return what finds the optima that the baseline ``optimum`` plays."""
    foresight = BASELINES[UPPER].make(seed)
    if not isinstance(foresight, Foresight):
        raise TypeError(f"{UPPER} is played by {type(foresight).__name__}")
    return foresight.optima(scenario)


def recall_optima(scenario: Scenario, days: Sequence[int], seed: int = 0) -> dict[int, Optimum]:
    """Return the optimum of each day where all of them were found before; nothing else, and nothing is played."""
    optima = _optima_of(scenario, seed)
    found = {int(day): kept for day in days if (kept := optima.kept(int(day))) is not None}
    return found if len(found) == len(days) else {}
