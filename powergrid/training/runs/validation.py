"""Short greedy rollouts on the validation split, to choose the best checkpoint; reports are in evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from powergrid.training.policies.inference import Policy
from powergrid.training.rllib.agents import EnvClass
from powergrid.training.rllib.metrics import EpisodeTotals


class Validation:
    """Play the same episodes of the validation split each time it is asked."""

    def __init__(self, env: EnvClass, env_config: Mapping[str, Any], *, split: str, episodes: int, seed: int) -> None:
        self._env = env({**env_config, "split": split})
        self._seeds = [seed + i for i in range(episodes)]

    def score(self, policy: Policy) -> dict[str, float]:
        """Return ``episode_return_mean`` and the mean of every metric, each as ``validation/<name>``."""
        returns: list[float] = []
        metrics: dict[str, list[float]] = {}
        for seed in self._seeds:
            episode_return, totals = self._play(policy, seed)
            returns.append(episode_return)
            for name, value in totals.result().items():
                metrics.setdefault(f"validation/{name}", []).append(value)
        means = {name: float(np.mean(values)) for name, values in metrics.items()}
        return {"validation/episode_return_mean": float(np.mean(returns)), **means}

    def _play(self, policy: Policy, seed: int) -> tuple[float, EpisodeTotals]:
        observations, _ = self._env.reset(seed=seed)
        infos: dict[str, list[Mapping[str, Any]]] = {}
        total, over = 0.0, False
        while not over:
            observations, rewards, terminateds, truncateds, step_infos = self._env.step(policy.act(observations))
            total += float(sum(rewards.values()))
            for agent, info in step_infos.items():
                infos.setdefault(agent, []).append(info)
            over = bool(terminateds["__all__"] or truncateds["__all__"])
        totals = EpisodeTotals()
        for agent, rows in infos.items():
            totals.add(agent, rows)
        return total, totals

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
