"""Play a task of PowerGrid-Bench: the same frozen days for everybody, in the real environment; nothing is trained."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation.benchmark.result import Player, Result, Summary, Training, shorten_number
from powergrid.evaluation.benchmark.tasks import Benchmark, Task, find_sees_problems
from powergrid.evaluation.players import Policy, find_players, seat_players
from powergrid.evaluation.players.trained import Sight
from powergrid.evaluation.report import describe_versions
from powergrid.evaluation.rollout import play_days

FloatArray = npt.NDArray[np.float64]
#: By seed, the numbers of each day by metric.
Played = dict[str, dict[str, list[float]]]
Progress = Callable[[int, int], None]
#: The one seed of who was not trained.
NO_SEED = "-"
#: Days played at once; what comes of them does not depend on it.
_AT_ONCE = 3


@dataclass(frozen=True)
class Entrant:
    """Who plays a task: a baseline by its name, or the policies of one method, one for each seed.

    Attributes:
        name: Its name on the leaderboard; a baseline's own.
        policies: What has ``act`` and, if it can, ``spaces``, by seed of training; none for a baseline.
        sees: Keys of the scenario that change what agents see, of :data:`powergrid.evaluation.benchmark.tasks.SEES`.
        weights: SHA-256 of each policy's files, by seed.
        training: How each policy was trained, by seed.
    """

    name: str
    policies: Mapping[str, Policy] = field(default_factory=dict)
    sees: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Training] = field(default_factory=dict)

    @property
    def player(self) -> Player:
        """What a result says of it."""
        return Player(
            name=self.name,
            kind="trained" if self.policies else "baseline",
            sees=dict(self.sees),
            weights=dict(self.weights),
            training=dict(self.training),
        )


class _Bare:
    """A policy by its files alone, as a verifier has it: nothing is asked of the run that it comes from."""

    def __init__(self, policy: Policy) -> None:
        self.act = policy.act
        if hasattr(policy, "spaces"):
            self.spaces = policy.spaces


def play_task(
    benchmark: Benchmark, name: str, entrant: Entrant, *, command: str = "", progress: Progress | None = None
) -> Result:
    """Play a task's days with an entrant and return the result, sealed by its digest.

    Args:
        benchmark: The benchmark.
        name: The task's name.
        entrant: Who plays.
        command: The command that asked for it, for the result to tell.
        progress: Called with the number of days played and to play.

    Raises:
        ScenarioError: The task is unknown or not what was frozen, the entrant is wrong or does not fit; all of it.
    """
    task = benchmark.find(name)
    task.require_unchanged(name)
    if problems := list(find_sees_problems(entrant.sees)):
        raise ScenarioError("powergrid benchmark", problems)
    scenario = task.build_played(entrant.sees)
    played = play_entrant(benchmark, task, entrant, progress=progress)
    usd = shorten_number(len(scenario.agents) / scenario.reward.scale)
    return Result(
        benchmark=benchmark.full_name,
        task=name,
        task_digest=benchmark.digest(name),
        digests=task.digests.model_dump(),
        player=entrant.player,
        usd_per_reward=usd,
        days=list(benchmark.days.test),
        seed=benchmark.day_seed,
        results=played,
        summary=summarise(played, usd, benchmark.rewards_of(name)),
        versions=dict(describe_versions()),
        machine=_describe_machine(),
        command=command,
    ).sealed()


def play_entrant(
    benchmark: Benchmark,
    task: Task,
    entrant: Entrant,
    *,
    days: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Played:
    """Play days of a task, all of its own if not given, and return each day's numbers, as they are written."""
    scenario, chosen = task.build_played(entrant.sees), list(benchmark.days.test if days is None else days)
    players: list[tuple[str, Any]] = [(seed, _Bare(policy)) for seed, policy in entrant.policies.items()]
    usual = _sight_in_training(task, entrant.sees) if players else None
    seated = players or find_players([entrant.name])
    found: Played = {}
    for label, grid, player in seat_players(scenario, seated, min(_AT_ONCE, len(chosen)), benchmark.day_seed, usual):
        rows: list[dict[str, Any]] = []
        for batch in np.split(np.array(chosen), range(_AT_ONCE, len(chosen), _AT_ONCE)):
            rows += play_days(grid, player, batch, benchmark.day_seed)
            if progress is not None:
                progress(len(found) * len(chosen) + len(rows), len(seated) * len(chosen))
        seed = label if players else NO_SEED
        found[seed] = {metric: [shorten_number(row[metric]) for row in rows] for metric in benchmark.metrics}
    return found


def _sight_in_training(task: Task, sees: Mapping[str, Any]) -> Sight:
    with closing(GridTask(task.build_trained(sees))) as grid:
        return Sight.of(grid)


def summarise(played: Played, usd_per_reward: float, references: Mapping[str, Sequence[float]]) -> Summary:
    """Return what days came to beside the frozen references.

    Args:
        played: By seed, the numbers of each day by metric.
        usd_per_reward: What a reward of 1, mean over agents, is for all agents [USD].
        references: Rewards of each day of ``no_control`` and ``optimum``, where they are there.
    """
    rewards = {seed: np.array(own["reward"]) for seed, own in played.items()}
    mean = float(np.mean(list(rewards.values())))
    nothing, best = (np.array(references[name]) if name in references else None for name in ("no_control", "optimum"))
    scores: dict[str, float] = {}
    if nothing is not None and best is not None and best.mean() > nothing.mean():
        span = best.mean() - nothing.mean()
        scores = {seed: float((own.mean() - nothing.mean()) / span) for seed, own in rewards.items()}
    return Summary(
        reward=shorten_number(mean),
        reward_by_seed={seed: shorten_number(own.mean()) for seed, own in rewards.items()},
        gain_usd_per_day=None if nothing is None else shorten_number((mean - nothing.mean()) * usd_per_reward),
        regret_usd_per_day=None if best is None else shorten_number((best.mean() - mean) * usd_per_reward),
        score=shorten_number(np.mean(list(scores.values()))) if scores else None,
        score_by_seed={seed: shorten_number(score) for seed, score in scores.items()},
    )


def _describe_machine() -> str:
    """Return the machine in words: processor architecture, cores and system."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}"
