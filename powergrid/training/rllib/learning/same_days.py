"""Environments that play the same day: seeds that make them alike, and advantages beyond their mean.

An advantage says by how much more an action brought than was expected. Most of what differs from the expected is the
day: sun, demand and what nobody decides. Environments that play the same day differ in nothing but what was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.evaluation.postprocessing import Postprocessing

#: Under what an episode notes whose day it plays.
SAME_DAY = "powergrid_same_day"

_Connector: Any = ConnectorV2


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
        lengths: dict[str, list[int]] = {}
        # in the order in which RLlib writes rows
        for piece in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            earlier = lengths.setdefault(piece.module_id, [])
            begin = sum(earlier)
            earlier.append(len(piece))
            day = days.get(piece.multi_agent_episode_id)
            key = piece.id_ if day is None else (day, piece.agent_id, piece.t_started)
            rows.setdefault(piece.module_id, {}).setdefault(key, []).append(slice(begin, begin + len(piece)))
        for policy, own in rows.items():
            if Postprocessing.ADVANTAGES not in batch.get(policy, {}):
                continue
            advantages = batch[policy][Postprocessing.ADVANTAGES]
            if advantages.ndim == 1:
                take_off_days(advantages, list(own.values()))
                continue
            there = _steps_in_sequences(lengths[policy], advantages.shape[1])
            steps = advantages.reshape(-1)[there]
            take_off_days(steps, list(own.values()))
            advantages.view(-1)[there] = steps
        return batch


def _steps_in_sequences(lengths: Sequence[int], sequence: int) -> NDArray[np.int64]:
    """Return where steps of pieces are in sequences that each piece is padded to whole ones of, shape (n_steps,)."""
    room = [-(-length // sequence) * sequence for length in lengths]
    begins = np.cumsum([0, *room])[:-1].tolist()
    return np.concatenate([begin + np.arange(n) for begin, n in zip(begins, lengths, strict=True)])


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
