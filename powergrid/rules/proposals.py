"""What rules would do next, for those who decide to see: a number for each action that is somebody's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices.spec import ActionSpec
from powergrid.rules.rule_based import RuleBased
from powergrid.rules.ruled import RuledTask

FloatArray = npt.NDArray[np.float64]


def list_proposed(actions: Sequence[ActionSpec], devices: Iterable[str]) -> list[int]:
    """Return the columns of the actions that rules propose: those of the devices that agents decide over."""
    owned = set(devices)
    return [column for column, action in enumerate(actions) if action.device in owned]


def name_proposed(action: ActionSpec) -> str:
    """Return the name that what is proposed for an action is seen by."""
    return f"{action.device}.proposed_{action.name}"


class Proposals:
    """Follow what rules would do in the step to come, whatever is done.

    Rules remember: how far a droop has come, what was held back. So they are asked once a step, and anew of
    environments that start an episode.

    Args:
        task: The task.

    Attributes:
        values: What they propose, in the units of the actions, shape (n_envs, n_proposed).
    """

    def __init__(self, task: RuledTask) -> None:
        self._task, self._rules = task, RuleBased()
        actions = task.simulation.actions
        self._columns = list_proposed(actions, [name for agent in task.agents for name in agent.devices])
        own = [actions[column] for column in self._columns]
        # of an action that is a number 0 is the middle, of a position the first
        middle = [each.low if each.discrete else (each.low + each.high) / 2.0 for each in own]
        self._gain, self._offset = (np.tile(row, (task.n_envs, 1)) for row in ([each.gain for each in own], middle))
        self.values: FloatArray = self._offset.copy()

    def start(self, envs: Sequence[int]) -> None:
        """Ask rules about the first step of environments that have just started an episode."""
        others = np.setdiff1d(np.arange(self._task.n_envs), envs)
        kept, values = self._rules.state() if len(others) else [], self.values
        for env in envs:
            self._rules.reset(self._task, env)
        self.follow()
        if len(others):  # asked already
            self._rules.restore(kept, self._task, others)
            self.values[others] = values[others]

    def follow(self) -> None:
        """Ask rules about the step to come, once the last is solved and measured."""
        self.values = self._rules.act(self._task).take(self._columns, 1) * self._gain + self._offset

    def state(self) -> dict[str, Any]:
        """Copy what rules remember, and what they propose."""
        return {"rules": self._rules.state(), "values": self.values.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Return to a :meth:`state`."""
        self._rules.restore(state["rules"], self._task)
        self.values = state["values"].copy()
