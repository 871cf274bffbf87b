"""Play the same policies on several feeders and tell which of these each policy was trained on; it trains nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powergrid.errors import ScenarioError
from powergrid.evaluation.report import EvaluationReport, plain, write_atomically
from powergrid.evaluation.rollout import Policy, evaluate
from powergrid.scenario import Scenario, load_scenario, scenario_from_config

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
        from rich.box import SIMPLE
        from rich.table import Table

        caption = "score: 0 is no_control, 1 the best baseline on that feeder"
        table = Table(title="by feeder", box=SIMPLE, caption=caption)
        shown = [place for place, heading in enumerate(_HEADINGS) if heading != "over no_control"]  # 80 columns
        for place in shown:
            heading = _HEADINGS[place].replace(" on", "\non").replace(", ", "\n")
            if place < 2:
                table.add_column(heading, overflow="fold", min_width=11)
            else:
                table.add_column(heading, justify="left" if place == 2 else "right", no_wrap=True)
        for row in self._cells():
            table.add_row(*(row[place] for place in shown))
        return table

    def to_markdown(self) -> str:
        """Return the summary as Markdown."""
        lines = ["| " + " | ".join(_HEADINGS) + " |", "|---|---|---|" + "---:|" * (len(_HEADINGS) - 3)]
        lines += ["| " + " | ".join(row) + " |" for row in self._cells()]
        return "\n".join(lines) + "\n"

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``feeders.csv`` (a row for each feeder and policy), ``feeders.json`` and a folder for each feeder."""
        import pandas as pd

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        rows = self.summary()
        kept = {"trained_on": dict(self.trained_on), "placements": dict(self.placements), "summary": rows}
        files = [
            write_atomically(target / "feeders.csv", pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")),
            write_atomically(target / "feeders.json", json.dumps(plain(kept), indent=1, allow_nan=False) + "\n"),
        ]
        for name, report in self.reports.items():
            files += report.write(target / name)
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
            gain = ""
            if row["over_no_control"] is not None:
                gain = str(report.difference(row["policy"], "no_control"))
            cells.append((
                row["feeder"],
                row["policy"],
                {None: "", True: "yes", False: "unseen"}[row["trained_on_it"]],
                str(report.reward(row["policy"])),
                gain,
                "" if row["score"] is None else f"{row['score']:.2f}",
                f"{row['violation_node_hours_per_day']:.1f}",
            ))  # fmt: skip
        return cells


def evaluate_feeders(
    env_config: Mapping[str, Any] | Scenario,
    policies: Sequence[str | tuple[str, Policy]],
    feeders: Sequence[str],
    *,
    split: str = "test",
    days: int = 30,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    n_envs: int = 4,
) -> FeederComparison:
    """Play the same days with every policy on several feeders.

    Args:
        env_config: As for :func:`evaluate`.
        policies: As for :func:`evaluate`. One with an attribute ``feeders``, digest by name, is told to be trained on
            these; :func:`powergrid.training.load_policy` reads it from the run.
        feeders: Names of shipped feeders, or paths of master files; none for all of the scenario's own. The scenario is
            placed on those it was not made for as its ``placement`` says, by demand where that says nothing.
        split: Which days.
        days: How many.
        seed: As for :func:`evaluate`.
        progress: Called with the number of episodes played and to play, feeder by feeder.
        n_envs: Episodes played at once.

    Raises:
        ScenarioError: the settings are wrong, or something has no place on a feeder.
        FeederError: a feeder does not compile or solve.
    """
    scenario = env_config if isinstance(env_config, Scenario) else scenario_from_config(env_config)
    asked = [str(each) for each in feeders] or list(scenario.feeders) or [scenario.feeder]
    twice = sorted({name for name in asked if asked.count(name) > 1})
    if twice:
        raise ScenarioError("feeders", [f"{name!r} is given {asked.count(name)} times" for name in twice])
    scenarios = {_label(name, asked): _on_feeder(scenario, name) for name in asked}
    reports = {}
    for place, (name, own) in enumerate(scenarios.items()):

        def advance(done: int, total: int, before: int = place) -> None:
            if progress is not None:
                progress(before * total + done, len(scenarios) * total)

        reports[name] = evaluate(own, policies, split=split, days=days, seed=seed, progress=advance, n_envs=n_envs)
    digests = {name: own.read_feeder().digest for name, own in scenarios.items()}
    trained_on = {
        player[0]: tuple(name for name, digest in digests.items() if digest in set(seen.values()))
        for player in policies
        if not isinstance(player, str) and (seen := getattr(player[1], "feeders", None))
    }
    placements = {name: _say_placement(own) for name, own in scenarios.items()}
    return FeederComparison(reports, trained_on, placements)


def _on_feeder(scenario: Scenario, name: str) -> Scenario:
    placement = scenario.placement
    if placement.rule is None and not placement.map:
        placement = placement.model_copy(update={"rule": "load"})
    return load_scenario(scenario, {"feeder": name, "placement": placement.model_dump()})


def _label(name: str, names: Sequence[str]) -> str:
    """Return a feeder's short name, the whole one where two have the same."""
    stems = [Path(each).stem for each in names]
    stem = Path(name).stem
    return stem if stems.count(stem) == 1 else name.replace("/", "_")


def _say_placement(scenario: Scenario) -> str:
    if not scenario.placed.home:
        return ""
    wish = scenario.placement
    return " and ".join(filter(None, ["map" if wish.map else "", f"rule {wish.rule}" if wish.rule else ""]))
