"""Days as somebody plays them, many at once, and how hard each is: what the rules pay on it; RLlib plays none here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from powergrid.envs.core import GridTask
from powergrid.rules import RuleBased
from powergrid.scenario import Scenario, load_scenario

FloatArray = NDArray[np.float64]

#: Terms of the reward that make a day hard.
_PENALTIES = ("voltage_violation_pu", "overload_pu")
#: Days that are played at once.
_AT_ONCE = 16


@dataclass(frozen=True)
class PlayedDays:
    """Days that were played at once.

    Attributes:
        days: From the first of the profiles, shape (n,).
        actions: What was done, shape (n, n_steps, n_actions).
        rewards: Sum over the day, mean over agents, shape (n,).
        infos: Sums over the day and over agents of what infos tell, shape (n, n_infos).
        sound: Whether no power flow diverged, shape (n,).
    """

    days: NDArray[np.int64]
    actions: FloatArray
    rewards: FloatArray
    infos: FloatArray
    sound: NDArray[np.bool_]


def play_days(task: GridTask, player: Any, days: NDArray[np.int64], seed: int) -> Iterator[PlayedDays]:
    """Play days, as many at once as a task has environments.

    Args:
        task: The task.
        player: Who plays: ``reset(task, env)`` and ``act(task)``, as :class:`powergrid.rules.RuleBased` has them.
        days: Which, shape (n_days,).
        seed: Seed of days' randomness.
    """
    for part in np.split(days, range(task.n_envs, len(days), task.n_envs)):
        for env in range(task.n_envs):  # environments without a day of their own play the last one again
            day = int(part[min(env, len(part) - 1)])
            task.reset(env, np.random.default_rng([seed, day]), {"day": day})
            player.reset(task, env)
        actions = list[FloatArray]()
        rewards, infos = np.zeros(task.n_envs), np.zeros((task.n_envs, len(task.info_names)))
        sound = np.ones(task.n_envs, dtype=bool)
        for _ in range(task.scenario.episode_length):
            task.action_buffer()[:] = player.act(task)
            actions.append(task.action_buffer().copy())
            task.step()
            rewards += task.rewards.mean(axis=1)
            infos += task.infos().sum(axis=1)
            sound &= ~task.terminated
        n = len(part)
        yield PlayedDays(part, np.stack(actions, axis=1)[:n], rewards[:n], infos[:n], sound[:n])


def weigh_days(scenario: Scenario, part: float) -> dict[int, float]:
    """Return how often days of a scenario's split are to be drawn for some episodes to play hard ones.

    A day is as hard as what ``rule_based`` pays on it for violations and overloads; one that diverges tells nothing.

    Args:
        scenario: The scenario.
        part: Part of the episodes that draw days in proportion to that; the others draw all alike.

    Returns:
        Weights by day, 1 in the mean; none where the rules pay nothing on any day.
    """
    played = load_scenario(scenario, {"proposals": None, "day_weights": {}})
    with closing(GridTask(played, _AT_ONCE)) as task:
        days = task.simulation.days
        prices = np.array([played.weight_of(name) if name in _PENALTIES else 0.0 for name in task.info_names])
        played_days = play_days(task, RuleBased(), days, seed=0)
        paid = np.concatenate([np.where(each.sound, each.infos @ prices, 0.0) for each in played_days])
    if not paid.sum() > 0.0:
        return {}
    weights = 1.0 - part + part * paid / paid.mean()
    return {int(day): round(float(weight), 4) for day, weight in zip(days, weights, strict=True)}
