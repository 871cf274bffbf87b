"""The leaderboard as a page: what results say, and what nobody has run yet with the command and its estimated time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.benchmark.score import Leaderboard, Row, show_overall, show_row, show_whole
from powergrid.evaluation.benchmark.tasks import Benchmark, Task
from powergrid.evaluation.report import as_markdown
from powergrid.grid.devices.switchgear import SwitchgearSpec
from powergrid.plain import read_yaml


@dataclass(frozen=True)
class Method:
    """A way to train that the leaderboard asks for, as ``run --train`` takes it."""

    algorithm: str
    policies: str = "shared"
    preset: str = "fast"

    @property
    def name(self) -> str:
        """Its name on the leaderboard, and in those of runs."""
        return f"{self.algorithm}_{self.policies}" + ("" if self.preset == "fast" else f"_{self.preset}")

    @property
    def options(self) -> str:
        """The options of ``powergrid benchmark run``."""
        policies = "" if self.policies == "shared" else f" --policies {self.policies}"
        return f"--train {self.algorithm}{policies}" + ("" if self.preset == "fast" else f" --preset {self.preset}")


METHODS = (
    Method("ppo"), Method("ppo", preset="imitate"), Method("ppo", "independent"), Method("mappo"), Method("sac")
)  # fmt: skip
_HEAD = """# Leaderboard

What the results in `docs/benchmark` say of [PowerGrid-Bench](benchmark.md). The page is made of these files by
`powergrid benchmark score docs/benchmark --page docs/leaderboard.md`; a test keeps it in step.

`score` is 0 for `no_control` and 1 for the [optimum](evaluation.md#the-optimum) that was found for each day, `regret`
what a day costs all agents above that optimum. In brackets are 95 % intervals: days are drawn again, and seeds where
something was trained ([how](evaluation.md#several-seeds)). `better days` says how probable it is that a policy gets
more than `rule_based` on a day. Rewards of different tasks do not compare; scores do. `powergrid benchmark verify`
and the file of a row play it again, and refuse it where a number differs
([what is checked](benchmark.md#what-is-checked)).
"""


def make_page(board: Leaderboard) -> str:
    """Return the leaderboard as Markdown."""
    return "\n".join([_HEAD, *_say_overall(board), *_say_tasks(board), *_say_open(board)])


def _say_overall(board: Leaderboard) -> Iterator[str]:
    yield "## All tasks\n"
    if not board.overall:
        yield "No optimum is known yet, so there are no scores.\n"
        return
    known = [name for name in board.benchmark.tasks if "optimum" in board.benchmark.rewards_of(name)]
    yield (
        f"Interquartile mean of scores over tasks and seeds, of the tasks whose optimum is known: {', '.join(known)}. "
        "In brackets only seeds are drawn again, neither tasks nor days. Who played fewer of these tasks stands below, "
        "by a mean over other tasks: such rows do not compare.\n"
    )
    yield as_markdown(("policy", "tasks", "score"), [show_overall(each) for each in board.overall], 1)


def _say_tasks(board: Leaderboard) -> Iterator[str]:
    for name, rows in board.rows.items():
        task = board.benchmark.tasks[name]
        yield f"## {name}\n"
        yield f"{task.title}. {_say_what(task)}\n"
        headings = (
            "policy",
            "reward",
            "score",
            "regret, USD/day",
            "better days, %",
            "over no_control, USD/day",
            "cost, USD/day",
            "outside, node-h/day",
        )
        yield as_markdown(headings, [(*show_row(row), *_show_more(row)) for row in rows], 1)
        yield from () if task.shifted else _say_trainings(rows)


def _say_trainings(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how the rows were trained, as their results tell: settings of the first seed, minutes of the longest."""
    lines = []
    for player in (row.result.player for row in rows if row.result.player.kind == "trained"):
        first, *_ = own = list(player.training.values())
        changed = ", ".join(f"`{key}={value}`" for key, value in first.settings.items()) or "default settings"
        took = f"{first.env_steps:,} environment steps, at most {max(each.minutes for each in own):.1f} minutes a seed"
        lines.append(f"- `{player.name}`: {first.algorithm.upper()}, {took}, {changed}\n")
    yield from ["".join(lines)] if lines else []


def _show_more(row: Row) -> tuple[str, ...]:
    result, shown = row.result, ["" if row.gain_usd is None else show_whole(row.gain_usd)]
    for metric, digits in (("cost_usd", 0), ("violation_node_hours", 1)):
        values = [value for own in result.results.values() for value in own[metric]]
        shown.append(f"{sum(values) / len(values):.{digits}f}")
    return tuple(shown)


def _say_what(task: Task) -> str:
    if not task.shifted:
        return f"Trained on and played: `{task.scenario}`."
    stress = task.stress.model_dump(exclude_defaults=True, exclude={"description"}) if task.stress else {}
    told = [f"feeder `{task.feeder}`" if task.feeder else "", *(f"`{key}: {value}`" for key, value in stress.items())]
    return f"Trained on `{task.scenario}`; played with {' and '.join(filter(None, told))}."


def _say_open(board: Leaderboard) -> Iterator[str]:
    yield "## Not run yet\n"
    rows = [(f"`{command}`", say_minutes(minutes)) for command, minutes in find_open(board)]
    if not rows:
        yield "Nothing.\n"
        return
    yield (
        "Each command trains what is not there yet, one run for each seed, and plays it; runs of a scenario serve its "
        f"shifted tasks too. Times are those of {len(board.benchmark.training_seeds)} seeds one after the other, from "
        f"the rate that was measured on {_read_estimates()['machine']}, at most the task's budget. `powergrid "
        "benchmark score docs/benchmark --left` prints them.\n"
    )
    yield as_markdown(("command", "time"), rows, 1)


def find_open(board: Leaderboard) -> Iterator[tuple[str, float | None]]:
    """Yield the command of each row that nobody has run yet, and its minutes; None where they were not measured."""
    benchmark = board.benchmark
    refused = {(name, baseline) for baseline, names in _read_estimates()["refused"].items() for name in names}
    for name, task in benchmark.tasks.items():
        there = {each.player.name for each in board.results.get(name, ())}
        command = f"powergrid benchmark run {name}"
        for baseline in BASELINES:
            if baseline not in there and (name, baseline) not in refused:
                yield f"{command} --policy {baseline}", estimate_play(benchmark, name, baseline)
        for method in METHODS:
            if method.name not in there and takes(task, method):
                minutes = estimate_minutes(task, method) * len(benchmark.training_seeds)
                yield f"{command} {method.options}", minutes


def takes(task: Task, method: Method) -> bool:
    """Tell whether a method can learn a task: SAC has continuous actions alone."""
    if method.algorithm != "sac":
        return True
    scenario = task.build_trained()
    gear = (
        isinstance(scenario.devices[name], SwitchgearSpec) for each in scenario.agents.values() for name in each.devices
    )
    return not any(gear)


def _read_estimates() -> dict[str, Any]:
    """Return how fast trainings go, how long a day of each baseline takes, and on what machine."""
    found: dict[str, Any] = read_yaml(Path(str(resources.files("powergrid.evaluation.benchmark"))) / "estimates.yaml")
    return found


def estimate_minutes(task: Task, method: Method, env_steps: int | None = None) -> float:
    """Return how long one seed takes to train [min]: by a measured rate, at most the budget.

    Args:
        task: The task.
        method: How it is trained.
        env_steps: Environment steps that it takes; the budget's if not given.
    """
    rate = _read_estimates()["env_steps_per_s"].get(task.scenario, {}).get(method.algorithm)
    steps = task.env_steps if env_steps is None else env_steps
    return task.minutes if rate is None else min(task.minutes, steps / rate / 60.0)


def estimate_play(benchmark: Benchmark, name: str, baseline: str) -> float | None:
    """Return how long a baseline takes to play all days of a task [min]; None where that was not measured."""
    s_per_day = _read_estimates()["baseline_s_per_day"].get(name, {}).get(baseline)
    return None if s_per_day is None else float(s_per_day) * len(benchmark.days.test) / 60.0


def say_minutes(minutes: float | None) -> str:
    """Return a time as text."""
    if minutes is None:
        return "not measured"
    return f"{max(minutes, 1.0):.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
