"""Show a training run, or a tuning's trials, on a terminal, or line by line elsewhere; it computes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from powergrid.training.runs.loop import IterationReport

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's from Python 3.11 on

    from powergrid.training.runs.tune import Trial


class _Display:
    """A bar that is there while its context is, on a terminal; elsewhere lines alone."""

    def __init__(self, console: Console, what: str, *columns: ProgressColumn, total: int | None = None) -> None:
        told = (*columns, TextColumn("{task.fields[told]}"), TimeElapsedColumn())
        self._console, self._on_terminal = console, console.is_terminal
        self._bar = Progress(
            TextColumn(what), BarColumn(bar_width=24), *told,
            console=console, transient=True, disable=not self._on_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(what, total=total, told="starting Ray")

    def __enter__(self) -> Self:
        self._bar.start()
        if not self._on_terminal:
            self._console.print("Starting Ray ...", highlight=False)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


class TrainingDisplay(_Display):
    """Follow a run: return, violations, cost, environment steps per second and time left.

    Use it as a context manager and pass it to :func:`powergrid.training.train` as ``progress``.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, "training", MofNCompleteColumn())

    def __call__(self, report: IterationReport) -> None:
        """Show one iteration."""
        told = describe_report(report)
        self._bar.update(self._task, completed=report.iteration, total=report.iterations, told=told)
        if not self._on_terminal:
            head = f"iteration {report.iteration}/{report.iterations}"
            self._console.print(f"{head}  {told}", highlight=False, soft_wrap=True)


class TuningDisplay(_Display):
    """Follow a tuning: trials done, the newest validation and the best.

    Use it as a context manager and pass it to :func:`powergrid.training.tune` as ``progress``.
    """

    def __init__(self, console: Console, samples: int, iterations: int) -> None:
        super().__init__(console, "tuning", total=samples * iterations)
        self._iterations = iterations
        self._shown: dict[int, tuple[str, float]] = {}

    def __call__(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Show what a trial has new."""
        over = sum(each.over for each in trials)
        scores = [each.validation_return for each in trials if not math.isnan(each.validation_return)]
        told = f"{over}/{len(trials)} trials  best {_number(max(scores, default=math.nan))}"
        done = sum(each.iterations if each.state == "running" else self._iterations
                   for each in trials if each.state != "waiting")  # fmt: skip
        self._bar.update(self._task, completed=done, told=told)
        known = self._shown.get(trial.number) == (trial.state, trial.validation_return)
        if known or (trial.state == "running" and trial.iterations == self._iterations):
            return
        self._shown[trial.number] = (trial.state, trial.validation_return)
        if not self._on_terminal or trial.state != "running":
            what = (
                f"validation {_number(trial.validation_return)}"
                if trial.state != "failed"
                else trial.cause or "no cause was told"
            )
            self._console.print(
                f"trial {trial.number} {trial.state}, iteration {trial.iterations}/{self._iterations}  {what}  {told}",
                highlight=False, soft_wrap=True, markup=False,
            )  # fmt: skip


def describe_report(report: IterationReport) -> str:
    """Say in one line how training stands."""
    metrics = report.metrics
    parts = [f"return {_number(metrics.get('episode_return_mean', math.nan))}"]
    if "validation/episode_return_mean" in metrics:
        parts.append(f"validation {_number(metrics['validation/episode_return_mean'])}")
    for word, label in (("violations", "violations"), ("cost_usd", "cost USD/agent")):
        name = _first_metric(metrics, word)
        if name:
            parts.append(f"{label} {_number(metrics[name])}")
    parts.append(f"{report.env_steps_per_s:,.0f} env-steps/s")
    parts.append(f"{_duration(report.left_s)} left")
    return "  ".join(parts)


def _first_metric(metrics: Mapping[str, float], ending: str) -> str | None:
    """Find the metric over all agents that ends so, the shortest name first."""
    found = [name for name in metrics if name.startswith("custom/") and name.count("/") == 1 and name.endswith(ending)]
    return min(found, key=len) if found else None


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
