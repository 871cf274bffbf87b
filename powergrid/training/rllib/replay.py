"""Replay of single transitions, as arrays: what off-policy algorithms learn from; it learns nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Columns as RLlib's learners of SAC and DQN read them.
OBS, NEXT_OBS, ACTIONS, REWARDS, TERMINATEDS, N_STEP, WEIGHTS = (
    "obs", "new_obs", "actions", "rewards", "terminateds", "n_step", "weights",
)  # fmt: skip


class TransitionBuffer:
    """Keep the newest transitions of one policy and draw from them uniformly.

    Args:
        capacity: Transitions to keep.
        n_step: Steps that a transition spans; fewer where the sampled piece of the episode ends before.
        gamma: Discount per step.
    """

    def __init__(self, capacity: int, n_step: int, gamma: float) -> None:
        self._capacity, self._n_step, self._gamma = capacity, n_step, gamma
        self._columns: dict[str, NDArray[Any]] = {}
        self._next = 0
        self.size = 0

    def add(self, obs: NDArray[Any], actions: NDArray[Any], rewards: NDArray[Any], *, terminated: bool) -> None:
        """Add the steps of a piece of one agent's episode.

        Args:
            obs: What was observed before each step and after the last one, shape (steps + 1, width).
            actions: Actions as the policy gave them, shape (steps, ...).
            rewards: Shape (steps,).
            terminated: Whether the last step ended the episode for good; at the end of the horizon it did not.
        """
        steps = len(rewards)
        if not steps:
            return
        reaches = np.minimum(np.arange(steps) + self._n_step, steps)
        spans = reaches - np.arange(steps)
        returns = np.zeros(steps)
        for ahead in range(self._n_step):
            within = spans > ahead
            returns[within] += self._gamma**ahead * np.asarray(rewards)[ahead:][: int(within.sum())]
        self._write(
            {
                OBS: np.asarray(obs[:-1], np.float32),
                NEXT_OBS: np.asarray(obs, np.float32)[reaches],
                ACTIONS: np.asarray(actions),
                REWARDS: returns.astype(np.float32),
                TERMINATEDS: (reaches == steps) & terminated,
                N_STEP: spans.astype(np.float32),
            }
        )

    def _write(self, rows: Mapping[str, NDArray[Any]]) -> None:
        newest = {name: values[-self._capacity :] for name, values in rows.items()}
        count = len(newest[REWARDS])
        for name, values in newest.items():
            if name not in self._columns:
                self._columns[name] = np.zeros((self._capacity, *values.shape[1:]), values.dtype)
        places = (self._next + np.arange(count)) % self._capacity
        for name, values in newest.items():
            self._columns[name][places] = values
        self._next = int((self._next + count) % self._capacity)
        self.size = min(self.size + count, self._capacity)

    def sample(self, count: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Draw transitions, each as likely as any other, with replacement."""
        places = rng.integers(0, self.size, count)
        drawn = {name: values[places] for name, values in self._columns.items()}
        return {**drawn, WEIGHTS: np.ones(count, np.float32)}

    def get_state(self) -> dict[str, Any]:
        """Return what is kept."""
        columns = {name: values[: self.size].copy() for name, values in self._columns.items()}
        return {"columns": columns, "next": self._next, "size": self.size}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`get_state` gave."""
        self._columns.clear()
        self._next = self.size = 0
        if state["size"]:
            self._write(state["columns"])
        self._next = int(state["next"]) % self._capacity


class Replay:
    """The transitions of every policy.

    Args:
        capacity: Transitions to keep of each policy.
        n_step: Steps that a transition spans.
        gamma: Discount per step.
        seed: Seed of what is drawn.
    """

    def __init__(self, capacity: int, n_step: int, gamma: float, seed: int | None) -> None:
        self._capacity, self._n_step, self._gamma = capacity, n_step, gamma
        self._rng = np.random.default_rng(seed)
        self.buffers: dict[str, TransitionBuffer] = {}
        self.env_steps = 0

    def add(self, episodes: Iterable[Any]) -> int:
        """Add sampled multi-agent episodes, or pieces of them; give how many environment steps they have."""
        steps = 0
        for episode in episodes:
            steps += len(episode)
            for piece in episode.agent_episodes.values():
                self._buffer(piece.module_id).add(
                    np.asarray(piece.get_observations()),
                    np.asarray(piece.get_actions()),
                    np.asarray(piece.get_rewards()),
                    terminated=bool(piece.is_terminated),
                )
        self.env_steps += steps
        return steps

    def _buffer(self, policy: str) -> TransitionBuffer:
        if policy not in self.buffers:
            self.buffers[policy] = TransitionBuffer(self._capacity, self._n_step, self._gamma)
        return self.buffers[policy]

    def sample(self, count: int) -> dict[str, dict[str, NDArray[Any]]]:
        """Draw as many transitions of each policy."""
        return {name: buffer.sample(count, self._rng) for name, buffer in sorted(self.buffers.items())}

    def get_state(self) -> dict[str, Any]:
        """Return all that is kept, and where the draw stands."""
        return {
            "buffers": {name: buffer.get_state() for name, buffer in self.buffers.items()},
            "env_steps": self.env_steps,
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`get_state` gave."""
        self.buffers.clear()
        for name, kept in state["buffers"].items():
            self._buffer(name).set_state(kept)
        self.env_steps = int(state["env_steps"])
        self._rng.bit_generator.state = state["rng"]
