"""What the faces of many environments have in common."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from powergrid.envs.backends.board import ViewName
from powergrid.envs.backends.lockstep import Backend, BackendName, find_backend_problems
from powergrid.envs.backends.processes import open_backend
from powergrid.envs.episode import Kept
from powergrid.errors import ScenarioError
from powergrid.scenario import Scenario, load_scenario


class VectorFace(Kept):
    """What plays many environments has a backend, its board and days; a pickle builds it anew from its options."""

    _own: dict[str, Any]
    num_envs: int
    metadata: dict[str, Any]

    def _open(
        self,
        scenario: Scenario | str | Path | Mapping[str, Any],
        num_envs: int,
        view: ViewName,
        problems: Sequence[str] = (),
        *,
        autoreset_mode: AutoresetMode,
        backend: BackendName,
        workers: int | None,
        timeout_s: float | None,
    ) -> None:
        """Build the environments.

        Raises:
            ScenarioError: with ``problems`` of options of one face, and all that is wrong with the others.
        """
        problems = [*problems, *find_backend_problems(num_envs, backend, workers, timeout_s, autoreset_mode)]
        if problems:
            raise ScenarioError(type(self).__name__, problems)
        self.scenario, self.num_envs, self.backend = load_scenario(scenario), num_envs, backend
        self.metadata = {"render_modes": [], "autoreset_mode": autoreset_mode}
        how: dict[str, Any] = {"autoreset_mode": autoreset_mode, "backend": backend}
        self._options = {**how, "workers": workers, "timeout_s": timeout_s, **self._own}
        self._slices = open_backend(
            backend, self.scenario, view, num_envs, autoreset=autoreset_mode, workers=workers,
            worker_index=self._own.get("worker_index"), timeout_s=timeout_s,
        )  # fmt: skip
        self._board = self._slices.board

    @property
    def days(self) -> npt.NDArray[np.int64]:
        """Day of the profiles each environment plays, shape (num_envs,); reused at each call."""
        return self._board.day

    @property
    def _player(self) -> Backend:
        return self._slices

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), **self._options), (self.scenario, self.num_envs), self._moment()
