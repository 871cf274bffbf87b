"""Actions of many environments as arrays: one agent's batch in and out of the action matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import Agent

FloatArray = npt.NDArray[np.float64]


class ActionWriter:
    """Put one agent's actions of all environments into the action matrix."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._both = bool(len(agent.continuous)) and bool(len(agent.discrete))
        self._last = agent.sizes - 1

    def write(self, action: Any, out: FloatArray) -> bool:
        """Write a batch; False where something is wrong with it."""
        agent = self.agent
        if self._both:
            return (
                len(action) == 2
                and self._write_continuous(action["continuous"], out)
                and self._write_discrete(action["discrete"], out)
            )
        return (self._write_discrete if len(agent.discrete) else self._write_continuous)(action, out)

    def read(self, matrix: FloatArray) -> Any:
        """Return the agent's part of the matrix, as :meth:`write` takes it."""
        continuous = matrix[:, self.agent.continuous].astype(np.float32)
        discrete = np.rint(matrix[:, self.agent.discrete]).astype(np.int64)
        if self._both:
            return {"continuous": continuous, "discrete": discrete}
        return discrete if len(self.agent.discrete) else continuous

    def _write_continuous(self, action: Any, out: FloatArray) -> bool:
        values = np.asarray(action, dtype=np.float64)
        columns = self.agent.continuous
        if values.shape != (len(out), len(columns)) or not np.abs(values).max(initial=0.0) <= 1.0 + 1e-4:
            return False  # NaN is not <= either
        out[:, columns] = values
        return True

    def _write_discrete(self, action: Any, out: FloatArray) -> bool:
        values = np.asarray(action, dtype=np.float64)
        columns = self.agent.discrete
        if values.shape != (len(out), len(columns)):
            return False
        if not ((values >= 0) & (values <= self._last) & (values == np.rint(values))).all():
            return False
        out[:, columns] = values
        return True


def split_rows(action: Any, n: int) -> list[Any] | None:
    """Return a batch as one action for each environment, None where it is not a batch of n."""
    if isinstance(action, Mapping):
        parts = {key: split_rows(value, n) for key, value in action.items()}
        if any(rows is None for rows in parts.values()):
            return None
        return [{key: rows[env] for key, rows in parts.items() if rows is not None} for env in range(n)]
    try:
        return list(action) if len(action) == n else None
    except TypeError:
        return None
