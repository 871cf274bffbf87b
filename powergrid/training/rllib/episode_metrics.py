"""What RLlib tells of episodes that ended, logged once for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.utils import metrics as names


class EpisodeRecords:
    """Add up lengths and returns of episodes, pieces that were given before included.

    Args:
        done: The last pieces of episodes that are over.
        before: Earlier pieces by the episode's name; those of the episodes in ``done`` are taken out.
    """

    def __init__(self, done: Sequence[Any], before: dict[str, list[Any]]) -> None:
        self._numbers: dict[str, list[float]] = {
            names.EPISODE_LEN_MEAN: [], names.EPISODE_RETURN_MEAN: [], names.EPISODE_DURATION_SEC_MEAN: []
        }  # fmt: skip
        self._by_name: dict[str, dict[str, list[float]]] = {
            names.EPISODE_AGENT_RETURN_MEAN: {}, names.EPISODE_AGENT_STEPS: {}, names.EPISODE_MODULE_RETURN_MEAN: {}
        }  # fmt: skip
        for episode in done:
            self._add([*before.pop(episode.id_, ()), episode])

    def _add(self, pieces: Sequence[Any]) -> None:
        returns: dict[str, float] = {}
        steps: dict[str, float] = {}
        modules: dict[str, float] = {}
        for piece in pieces:
            for agent, own in piece.agent_episodes.items():
                gained = float(own.get_return())
                returns[str(agent)] = returns.get(str(agent), 0.0) + gained
                steps[str(agent)] = steps.get(str(agent), 0.0) + len(own)
                modules[own.module_id] = modules.get(own.module_id, 0.0) + gained
        self._numbers[names.EPISODE_LEN_MEAN].append(sum(map(len, pieces)))
        self._numbers[names.EPISODE_RETURN_MEAN].append(sum(returns.values()))
        self._numbers[names.EPISODE_DURATION_SEC_MEAN].append(sum(piece.get_duration_s() for piece in pieces))
        for name, found in zip(self._by_name, (returns, steps, modules), strict=True):
            for key, value in found.items():
                self._by_name[name].setdefault(key, []).append(value)

    def log(self, metrics: Any, config: Any) -> None:
        """Log means, least and most of the newest episodes, under RLlib's names.

        Args:
            metrics: RLlib's logger of the runner.
            config: The runner's configuration, which says how many episodes count.
        """
        if not self._numbers[names.EPISODE_LEN_MEAN]:
            return
        window = max(1, math.ceil(config.metrics_num_episodes_for_smoothing / (config.num_env_runners or 1)))
        newest = {name: values[-window:] for name, values in self._numbers.items()}
        means: dict[str, Any] = {name: float(np.mean(values)) for name, values in newest.items()}
        for name, by_name in self._by_name.items():
            means[name] = _means(by_name, window)
        metrics.log_dict(means, window=window)
        for extreme, least, most in (
            (names.EPISODE_LEN_MEAN, names.EPISODE_LEN_MIN, names.EPISODE_LEN_MAX),
            (names.EPISODE_RETURN_MEAN, names.EPISODE_RETURN_MIN, names.EPISODE_RETURN_MAX),
        ):
            metrics.log_value(least, min(newest[extreme]), reduce="min", window=window)
            metrics.log_value(most, max(newest[extreme]), reduce="max", window=window)


def _means(by_name: Mapping[str, Sequence[float]], window: int) -> dict[str, float]:
    return {key: float(np.mean(values[-window:])) for key, values in by_name.items()}
