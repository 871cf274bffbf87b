"""Readings that go missing on their way to a policy; the grid and all else go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from powergrid.envs.agents import ActionForm
from powergrid.grid.devices.spec import Spec

#: What an agent knows without a reading: the clock.
_KNOWN = frozenset({"world.time_of_day_sin", "world.time_of_day_cos", "world.weekend"})
#: Tells its draws apart from those of cars and of chance, which start from seed and day too.
_STREAM = 2


class MissingReadings(Spec):
    """How readings go missing: each by itself, for spells of random length."""

    share: float = Field(default=0.1, gt=0, lt=1, description="Part of the time that a reading is missing.")
    lasts_steps: float = Field(default=4.0, ge=1, le=10_000, description="Steps that it is missing for, on average.")
    shown: Literal["last", "zero"] = Field(
        default="last",
        description="What a policy sees meanwhile: the `last` value that came, or `zero`, the middle of the range that "
        "readings are scaled to.",
    )


class LossyPolicy:
    """Let a policy act on readings of which some are missing; it is played in one environment at a time.

    Args:
        policy: The policy.
        missing: How readings go missing.
        seed: With the day it starts the draws.
    """

    def __init__(self, policy: Any, missing: MissingReadings, seed: int) -> None:
        self._policy, self._missing, self._seed = policy, missing, seed
        self._may: dict[str, npt.NDArray[np.bool_]] = {}
        self.remembers = getattr(policy, "remembers", False)
        # what says what it was trained on, sees and takes
        for name in ("trained_scenario", "digests", "spaces", "view", "name", "masked"):
            if hasattr(policy, name):
                setattr(self, name, getattr(policy, name))

    @property
    def form(self) -> tuple[ActionForm, int]:
        """Form of the actions of one controller, and how many levels."""
        return getattr(self._policy, "form", ("auto", 33))

    def fit(self, task: Any, width: Any) -> Sequence[str]:
        """Say what of a task does not fit the policy."""
        fit = getattr(self._policy, "fit", None)
        told: Sequence[str] = () if fit is None else fit(task, width)
        return told

    def reset(self, task: Any, env: int) -> None:
        """Have it forget, where it remembers."""
        self._policy.reset(task, env)

    def start_day(self, day: int, channels: Mapping[str, Sequence[str]]) -> None:
        """Get ready for a day: all readings are there, and which go missing is drawn anew.

        Args:
            day: The day of the profiles.
            channels: Name of each number that an agent sees, by agent.
        """
        self._stream = np.random.default_rng([self._seed, day, _STREAM])
        self._may = {agent: np.array([name not in _KNOWN for name in names]) for agent, names in channels.items()}
        self._lost = {agent: np.zeros(len(may), dtype=np.bool_) for agent, may in self._may.items()}
        self._last: dict[str, npt.NDArray[Any]] = {}

    def act(self, observations: Any, *beside: Any) -> Any:
        """Return the actions on what is left of the observations, of agents by name or of one controller."""
        if not isinstance(observations, Mapping):
            return self._policy.act(self._lose("central", observations), *beside)
        return self._policy.act({name: self._lose(name, o) for name, o in observations.items()}, *beside)

    def _lose(self, agent: str, observed: npt.NDArray[Any]) -> npt.NDArray[Any]:
        missing, lost = self._missing, self._lost[agent]
        luck = self._stream.random(len(lost))
        end = 1.0 / missing.lasts_steps
        begin = min(end * missing.share / (1.0 - missing.share), 1.0)  # so that the share comes out in the long run
        if agent in self._last:
            lost = self._lost[agent] = np.where(lost, luck >= end, luck < begin) & self._may[agent]
        seen = np.where(lost, self._last[agent] if missing.shown == "last" and lost.any() else 0.0, observed)
        self._last[agent] = seen.astype(observed.dtype)
        return self._last[agent].copy()
