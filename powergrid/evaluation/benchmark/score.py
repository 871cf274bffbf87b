"""What several results say together: scores with intervals, task by task and over all of them; nothing is played."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem, ScenarioError
from powergrid.evaluation.benchmark.result import Result, read_result
from powergrid.evaluation.benchmark.tasks import Benchmark
from powergrid.evaluation.report.tables import as_table
from powergrid.evaluation.statistics import Estimate, estimate, interquartile_mean, mean, probability_of_improvement

if TYPE_CHECKING:
    from rich.table import Table

FloatArray = npt.NDArray[np.float64]
#: Whom "better days" are counted against.
BAR = "rule_based"


@dataclass(frozen=True)
class Row:
    """What a result came to beside the frozen references; None where the optimum of the task is not known.

    Attributes:
        result: The result.
        reward: Reward of a day, mean over agents.
        gain_usd: What a day of all agents is better by than ``no_control``'s [USD]; None where that is not known.
        score: 0 as ``no_control``, 1 as the optimum.
        regret_usd: What a day costs all agents above the optimum's [USD].
        better_days: How probable it is that a seed of it is better than ``rule_based`` on a day; None for that itself.
    """

    result: Result
    reward: Estimate
    gain_usd: Estimate | None
    score: Estimate | None
    regret_usd: Estimate | None
    better_days: Estimate | None


@dataclass(frozen=True)
class Overall:
    """What a player came to over the tasks whose optimum is known.

    Attributes:
        name: The player.
        tasks: How many of them it played.
        score: Interquartile mean of scores over tasks and seeds.
    """

    name: str
    tasks: int
    score: Estimate


@dataclass(frozen=True)
class Leaderboard:
    """Results of one benchmark, by task."""

    benchmark: Benchmark
    results: dict[str, list[Result]]

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The rows of each task that was played, the best first."""
        found = {}
        for task, results in self.results.items():
            bar = next((_rewards(each) for each in results if each.player.name == BAR), None)
            rows = [self._make_row(task, each, bar) for each in results]
            found[task] = sorted(rows, key=lambda row: -row.reward.value)
        return found

    @cached_property
    def overall(self) -> list[Overall]:
        """Everybody who played a task with a known optimum: those who played more first, then the better."""
        by_seed: dict[str, list[FloatArray]] = {}
        for task, results in self.results.items():
            for each in results:
                scores = self._scores(task, each)
                if scores is not None:
                    by_seed.setdefault(each.player.name, []).append(scores.mean(axis=1))
        found = []
        for name, own in by_seed.items():
            n_seeds = min(map(len, own))
            table = np.stack([each[:n_seeds] for each in own], axis=1)
            score = estimate(table, interquartile_mean, "of each task")
            found.append(Overall(name, len(own), score))
        return sorted(found, key=lambda each: (-each.tasks, -each.score.value))

    def _scores(self, task: str, result: Result) -> FloatArray | None:
        """Return the score of each seed and day, shape (n_seeds, n_days); None where the optimum is not known.

        What lies between the two ends is taken as of all days: on a day on which there is little to be had, its own
        would be near nothing.
        """
        rewards = self.benchmark.rewards_of(task)
        if {"no_control", "optimum"} - set(rewards):
            return None
        nothing, best = (np.array(rewards[name]) for name in ("no_control", "optimum"))
        span = best.mean() - nothing.mean()
        return None if span <= 0.0 else (_rewards(result) - nothing) / span

    def _make_row(self, task: str, result: Result, bar: FloatArray | None) -> Row:
        rewards, scores, best = _rewards(result), self._scores(task, result), self.benchmark.rewards_of(task)
        gain = regret = None
        if "no_control" in best:
            gain = estimate((rewards - np.array(best["no_control"])) * result.usd_per_reward, mean)
        if "optimum" in best:
            regret = estimate((np.array(best["optimum"]) - rewards) * result.usd_per_reward, mean)
        better = None if bar is None or result.player.name == BAR else probability_of_improvement(rewards, bar)
        return Row(
            result=result,
            reward=estimate(rewards, mean),
            gain_usd=gain,
            score=None if scores is None else estimate(scores, mean),
            regret_usd=regret,
            better_days=better,
        )

    def tables(self) -> list[Table]:
        """Return tables for the command line: one for each task, and one over all of them."""
        return [
            *(as_table(task, _HEADINGS, map(_in_two_lines, map(show_row, rows))) for task, rows in self.rows.items()),
            *([as_table("all tasks", _OVERALL, map(show_overall, self.overall))] if self.overall else []),
        ]


_HEADINGS = ("policy", "reward", "score", "regret\nUSD/day", "better\ndays, %")
_OVERALL = ("policy", "tasks", "score")


def score_results(benchmark: Benchmark, files: Iterable[str | Path]) -> Leaderboard:
    """Read results, of files or of all in a folder, and put them side by side.

    Raises:
        ScenarioError: There is none, or one is of another benchmark or task than is here; all of it.
        PowerGridError: A file is no result.
    """
    found: dict[str, list[Result]] = {}
    problems = []
    for file in find_files(files):
        result = read_result(file)
        if result.task not in benchmark.tasks or result.task_digest != benchmark.digest(result.task):
            text = f"is of {result.task} of {result.benchmark}, not of the task of that name here"
            problems.append(Problem("task-changed", str(file), text, "play it again: powergrid benchmark run"))
            continue
        if result.player.name in [each.player.name for each in found.get(result.task, ())]:
            problems.append(Problem("taken", str(file), f"{result.player.name} is there already for {result.task}"))
        found.setdefault(result.task, []).append(result)
    if not found and not problems:
        problems.append(Problem("nothing-there", "", "there are no results", "name files or a folder that holds some"))
    if problems:
        raise ScenarioError("powergrid benchmark", problems)
    return Leaderboard(benchmark, {task: found[task] for task in benchmark.tasks if task in found})


def find_files(given: Iterable[str | Path]) -> list[Path]:
    """Return the files of results: those given, and of a folder all that end in ``.json``, in order of their names."""
    found: list[Path] = []
    for each in map(Path, given):
        found += sorted(each.glob("*.json")) if each.is_dir() else [each]
    return found


def show_row(row: Row) -> tuple[str, ...]:
    """Return a row's cells as text."""
    seeds = len(row.result.results)
    return (
        row.result.player.name + (f" ({seeds} seeds)" if row.result.player.kind == "trained" else ""),
        str(row.reward),
        "" if row.score is None else str(row.score),
        "" if row.regret_usd is None else show_whole(row.regret_usd),
        "" if row.better_days is None else show_whole(row.better_days, 100.0),
    )


def _in_two_lines(cells: Iterable[str]) -> list[str]:
    return [cell.replace(" [", "\n[") for cell in cells]  # four intervals are wider than a terminal


def show_overall(each: Overall) -> tuple[str, ...]:
    """Return the cells of a row over all tasks as text."""
    return each.name, str(each.tasks), str(each.score)


def _rewards(result: Result) -> FloatArray:
    """Return a result's rewards, shape (n_seeds, n_days)."""
    return np.array([own["reward"] for own in result.results.values()], dtype=np.float64)


def show_whole(found: Estimate, factor: float = 1.0) -> str:
    """Return a number and its interval without decimals."""
    value, low, high = (
        f"{factor * each + 0.0:.0f}".replace("-0", "0") if abs(factor * each) < 0.5 else f"{factor * each:.0f}"
        for each in found
    )
    return f"{value} [{low}, {high}]"
