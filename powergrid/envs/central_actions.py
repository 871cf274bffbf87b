"""The action space of the central view in each of its forms, for one environment or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import Agent
from powergrid.envs.batching import ActionWriter, split_rows
from powergrid.errors import describe_unknown

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ActionForm = Literal["auto", "multidiscrete", "box", "mixed"]

_NAME = "central"


def find_form_problems(actions: object, levels: object) -> list[str]:
    """Say what is wrong with a form of the action space."""
    problems = []
    if actions not in get_args(ActionForm):
        problems.append(f"actions: {describe_unknown('form', actions, get_args(ActionForm))}")
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
        problems.append(f"levels {levels!r} is not a whole number of at least 2")
    return problems


class CentralActions:
    """Read actions of one controller that decides over what all agents do.

    Args:
        agents: The agents.
        form: Form of the action space.
        levels: Number of values of a continuous action in the form ``multidiscrete``.

    Attributes:
        space: The action space of one environment.
    """

    def __init__(self, agents: Sequence[Agent], form: ActionForm, levels: int) -> None:
        own = _as_one(agents)
        self._columns, self._sizes = _columns(own)
        self._binned = np.where(self._sizes > 0, self._sizes, levels)
        none = np.array([], dtype=np.int64)
        mixed = len(own.continuous) > 0 and len(own.discrete) > 0
        self._form = ("box" if mixed else "mixed") if form == "auto" else form
        self._agent = {
            "mixed": own,
            "box": Agent(_NAME, (), none, self._columns, none, none),
            "multidiscrete": Agent(_NAME, (), none, none, self._columns, self._binned),
        }[self._form]
        self._writer = ActionWriter(self._agent)
        self.space: gym.spaces.Space[Any] = self._agent.action_space

    def write_one(self, action: Any, out: FloatArray) -> list[str]:
        """Put an action into the action vector of one environment, shape (n_actions,); give the problems."""
        if self._form == "mixed":
            return self._agent.write_action(action, out)
        values = np.zeros(len(out))
        problems = self._agent.write_action(action, values)
        self._convert(values, out)
        return problems

    def write(self, actions: Any, out: FloatArray) -> list[str]:
        """Put a batch of actions into action vectors, shape (n_envs, n_actions); give the problems."""
        values = out if self._form == "mixed" else np.zeros(out.shape)
        try:
            sound = self._writer.write(actions, values)
        except (KeyError, TypeError, ValueError, IndexError):
            sound = False
        if not sound:
            return self._find_problems(actions, out)
        if values is not out:
            self._convert(values, out)
        return []

    def read_one(self, vector: FloatArray) -> Any:
        """Return the action that an action vector stands for."""
        return self._agent.read_action(vector) if self._form == "mixed" else self._revert(vector)

    def read(self, matrix: FloatArray) -> Any:
        """Return the batch of actions that action vectors stand for, shape (n_envs, n_actions)."""
        return self._writer.read(matrix) if self._form == "mixed" else self._revert(matrix)

    def _convert(self, values: FloatArray, out: FloatArray) -> None:
        """Write what actions of the form mean as the devices' own, environments first where there are several."""
        chosen, sizes = values[..., self._columns], self._sizes
        if self._form == "box":
            share = (np.clip(chosen, -1.0, 1.0) + 1.0) / 2.0
            positions = np.minimum(np.floor(share * sizes), sizes - 1)
            out[..., self._columns] = np.where(sizes > 0, positions, chosen)
        else:
            out[..., self._columns] = np.where(sizes > 0, chosen, 2.0 * chosen / (self._binned - 1) - 1.0)

    def _revert(self, vector: FloatArray) -> Any:
        values = vector[..., self._columns]
        if self._form == "box":
            sizes = np.maximum(self._sizes, 1)
            return np.where(self._sizes > 0, (2.0 * values + 1.0) / sizes - 1.0, values).astype(np.float32)
        return np.where(self._sizes > 0, values, np.rint((values + 1.0) / 2.0 * (self._binned - 1))).astype(np.int64)

    def _find_problems(self, actions: Any, out: FloatArray) -> list[str]:
        rows = split_rows(actions, len(out))
        if rows is None:
            return [f"actions do not have {len(out)} environments first"]
        scratch = np.zeros(out.shape[1])
        problems = [
            f"environment {env}: {problem}"
            for env, row in enumerate(rows)
            for problem in self._agent.write_action(row, scratch)
        ]
        return problems or [f"actions are not a batch of {self.space}"]


def _as_one(agents: Sequence[Agent]) -> Agent:
    """Return the agent that owns what all agents own."""
    continuous = np.sort(np.concatenate([agent.continuous for agent in agents]))
    discrete = np.concatenate([agent.discrete for agent in agents])
    order = np.argsort(discrete)
    sizes = np.concatenate([agent.sizes for agent in agents])[order]
    devices = tuple(name for agent in agents for name in agent.devices)
    return Agent(_NAME, devices, np.array([], dtype=np.int64), continuous, discrete[order], sizes)


def _columns(agent: Agent) -> tuple[IntArray, IntArray]:
    """Return the columns of an agent's actions in table order, and how many positions each has, 0 for none."""
    columns = np.concatenate([agent.continuous, agent.discrete])
    sizes = np.concatenate([np.zeros_like(agent.continuous), agent.sizes])
    order = np.argsort(columns)
    return columns[order], sizes[order]
