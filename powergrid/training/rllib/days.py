"""Which days are played: the same one by several environments, hard ones more often, and all of a split by rules.

An advantage says by how much more an action brought than was expected. Most of what differs from the expected is the
day: sun, demand and what nobody decides. Environments that play the same day differ in nothing but what was tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.evaluation.postprocessing import Postprocessing

from powergrid.envs.core import GridTask
from powergrid.rules import RuleBased
from powergrid.scenario import Scenario, load_scenario

FloatArray = NDArray[np.float64]

#: Under what an episode notes whose day it plays.
SAME_DAY = "powergrid_same_day"
#: Terms of the reward that make a day hard.
_PENALTIES = ("voltage_violation_pu", "overload_pu")
#: Days that are played at once.
_AT_ONCE = 16

_Connector: Any = ConnectorV2


class DayBaselines(_Connector):  # type: ignore[misc]
    """Take off each advantage the mean over the environments that play the same day, agent by agent and step by step.

    It comes after RLlib's estimate of advantages, and scales them as that does. Episodes without the note, and those
    that are alone on their day, keep what they have.
    """

    reads_infos = False

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        """Change the advantages of every policy."""
        days = {episode.id_: episode.custom_data.get(SAME_DAY) for episode in episodes}
        rows: dict[str, dict[Any, list[slice]]] = {}
        ends: dict[str, int] = {}
        # in the order in which RLlib writes rows
        for piece in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            begin = ends.get(piece.module_id, 0)
            ends[piece.module_id] = begin + len(piece)
            day = days.get(piece.multi_agent_episode_id)
            key = piece.id_ if day is None else (day, piece.agent_id, piece.t_started)
            rows.setdefault(piece.module_id, {}).setdefault(key, []).append(slice(begin, ends[piece.module_id]))
        for policy, own in rows.items():
            if Postprocessing.ADVANTAGES in batch.get(policy, {}):
                take_off_days(batch[policy][Postprocessing.ADVANTAGES], list(own.values()))
        return batch


def take_off_days(advantages: Any, alike: Sequence[Sequence[slice]]) -> None:
    """Take the mean at each step off advantages that are alike in their day, and scale all to a spread of 1.

    Args:
        advantages: A tensor, written, shape (rows,).
        alike: Rows of episodes of the same day, for each day and agent; an episode may end before others.
    """
    for own in alike:
        if len(own) < 2:
            continue
        parts = [advantages[each] for each in own]
        padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=torch.nan)
        mean = padded.nanmean(dim=0)
        for each, part in zip(own, parts, strict=True):
            advantages[each] = part - mean[: len(part)]
    advantages -= advantages.mean()
    advantages /= advantages.std().clamp_min(1e-4)


def seeds_of_days(seed: int, worker: int, started: int, n_envs: int, alike: int) -> list[int]:
    """Return a seed for each environment, the same for so many in a row.

    Args:
        seed: The run's, or the runner's own.
        worker: The process among others.
        started: How often all environments were started anew.
        n_envs: Number of environments.
        alike: Environments that play the same days.
    """
    state: NDArray[Any] = np.random.SeedSequence([seed, worker, started]).generate_state(-(-n_envs // alike))
    return [int(own) >> 1 for own in np.repeat(state, alike)[:n_envs]]


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
