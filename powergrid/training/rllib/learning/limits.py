"""Costs kept to a limit: how much each weighs against the reward, led by what an episode costs; it steps nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from powergrid.errors import PowerGridError

#: The column of sampled steps with what each limited cost came to, in the order of the limits.
COSTS = "costs"


class CostLimits:
    """Take limited costs out of sampled rewards, each by a multiplier that is learnt.

    An agent is rewarded by ``(r - sum_k w_k c_k / d_k) / (1 + sum_k w_k)``, with its own reward ``r`` and costs ``c_k``
    of a step, limits ``d_k`` and multipliers ``w_k``. Before each update ``w_k`` goes by ``lr * (J_k / d_k - 1)`` and
    not below 0, where ``J_k`` is what an episode costs all agents on the steps that are learnt from; the bracket counts
    as 1 at most, so that a policy far beyond a limit does not leave a weight that takes as long to go down again.

    Args:
        limits: The most that an episode shall cost all agents in the mean, > 0, by the name that infos have for it.
        lr: What a multiplier changes by at most in one update.

    Attributes:
        multipliers: By name; 0 at first.

    Source:
        Ray, Achiam and Amodei, Benchmarking Safe Exploration in Deep Reinforcement Learning, 2019, PPO-Lagrangian; with
        one critic of reward and costs as in Tessler et al., Reward Constrained Policy Optimization, ICLR 2019.
    """

    def __init__(self, limits: Mapping[str, float], lr: float) -> None:
        self.limits, self.lr = dict(limits), lr
        self.multipliers = dict.fromkeys(limits, 0.0)
        self._length = 0.0  # steps of an episode, the mean of those that ended last

    def take(self, episodes: Sequence[Any]) -> dict[str, float]:
        """Lead the multipliers by sampled episodes, then put what is learnt from in place of their rewards.

        Args:
            episodes: Pieces of RLlib's multi-agent episodes, with arrays; nothing has been added to them yet.

        Returns:
            What an episode cost, by name; nothing before one has ended.

        Raises:
            PowerGridError: Neither columns nor infos tell a cost.
        """
        pieces = [own for episode in episodes for own in episode.agent_episodes.values()]
        costs = [self._costs_of(own) for own in pieces]
        ended = [episode.env_t for episode in episodes if episode.is_terminated or episode.is_truncated]
        self._length = float(np.mean(ended)) if ended else self._length
        steps = sum(map(len, episodes))
        told: dict[str, float] = {}
        if self._length and steps:
            by_name = np.sum([each.sum(axis=0) for each in costs], axis=0) / steps * self._length
            told = dict(zip(self.limits, by_name.tolist(), strict=True))
            for name, cost in told.items():
                change = self.lr * min(cost / self.limits[name] - 1.0, 1.0)
                self.multipliers[name] = max(self.multipliers[name] + change, 0.0)
        self._weigh(pieces, costs)
        return told

    def _weigh(self, pieces: Sequence[Any], costs: Sequence[NDArray[np.float64]]) -> None:
        weights = np.array([self.multipliers[name] / limit for name, limit in self.limits.items()])
        whole = 1.0 + sum(self.multipliers.values())
        for own, each in zip(pieces, costs, strict=True):
            buffer = own.rewards
            rewards = np.array(buffer.data, dtype=np.float64)  # a copy: episodes share the sampled column
            now = slice(buffer.lookback, buffer.lookback + len(own))
            rewards[now] = (rewards[now] - each @ weights) / whole
            buffer.data = rewards if buffer.finalized else rewards.tolist()

    def _costs_of(self, own: Any) -> NDArray[np.float64]:
        """Return what an agent's steps cost, shape (steps, limits)."""
        column = own.extra_model_outputs.pop(COSTS, None)  # which nothing else learns from
        if column is not None:
            return np.asarray(column.get(slice(0, len(own))), dtype=np.float64)
        try:  # entry 0 is the reset's, or the last of the piece before
            rows = [[float(info[name]) for name in self.limits] for info in own.get_infos()[1:]]
        except KeyError as error:
            told = f"cost_limit: infos of agent {own.agent_id} have no {error.args[0]!r}"
            raise PowerGridError(f"{told}, which is to be kept to a limit") from None
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.limits))

    def get_state(self) -> dict[str, Any]:
        """Return what learning goes on from."""
        return {"multipliers": dict(self.multipliers), "length": self._length}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there; a cost that was not limited then begins at 0."""
        stored = state["multipliers"]
        self.multipliers = {name: float(stored.get(name, 0.0)) for name in self.limits}
        self._length = float(state["length"])
