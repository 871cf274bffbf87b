"""Which environments a reset of many starts, and what their streams of draws start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from powergrid.envs.slices import Entropy
from powergrid.errors import ScenarioError
from powergrid.scenario import Scenario

Seed = int | Sequence[int | None] | None


class Seeding:
    """Turn the arguments of ``reset`` into environments and what starts each one's stream.

    Args:
        scenario: Its ``seed`` is that of a first reset without one.
        n_envs: Number of environments.
        worker_index: Tells apart the streams of several workers, as RLlib numbers them.

    Attributes:
        started: Whether all environments were started once.
    """

    def __init__(self, scenario: Scenario, n_envs: int, worker_index: int | None = None) -> None:
        self._seed, self._n_envs, self._worker_index = scenario.seed, n_envs, worker_index
        self.started = False

    def read(self, seed: Seed, options: Mapping[str, Any] | None) -> tuple[dict[int, Entropy], dict[str, Any]]:
        """Return what starts the stream of each environment to start, and the options that are left.

        Raises:
            ScenarioError: the mask or the seeds are wrong.
        """
        left = dict(options or {})
        envs = self._pick_envs(left.pop("reset_mask", None))
        seeds = self._spread(seed)
        return {env: self._entropy(env, seeds[env]) for env in envs}, left

    def _entropy(self, env: int, own: int | None) -> Entropy:
        """Return the numbers that NetworkedGridEnv starts from with the seed, worker and place among the worker's."""
        if own is None and self.started:
            return None
        if own is None:
            own = self._seed if self._seed is None or self._worker_index is not None else self._seed + env
        if own is None:
            return ()
        return (int(own),) if self._worker_index is None else (int(own), self._worker_index, env)

    def _spread(self, seed: Seed) -> Sequence[int | None]:
        if seed is None:
            return [None] * self._n_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + env for env in range(self._n_envs)]
        if len(seed) != self._n_envs:
            raise ScenarioError("seed", [f"{len(seed)} seeds for {self._n_envs} environments"])
        return seed

    def _pick_envs(self, mask: Any) -> list[int]:
        if mask is None:
            return list(range(self._n_envs))
        chosen = np.asarray(mask)
        if chosen.shape != (self._n_envs,) or chosen.dtype != np.bool_:
            raise ScenarioError(
                "options", [f"reset_mask has shape {chosen.shape}, {chosen.dtype}; expected ({self._n_envs},), bool"]
            )
        if not self.started and not chosen.all():
            raise ScenarioError("options", ["reset_mask leaves out environments that were never started"])
        return np.flatnonzero(chosen).tolist()
