"""An agent: its slice of the action vector and the channels it sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from powergrid.envs.channels import Channels
from powergrid.errors import ActionError, ScenarioError
from powergrid.grid.devices import ActionSpec
from powergrid.scenario import Scenario

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Agent:
    """Who decides over what and sees what.

    Attributes:
        name: The agent's name.
        devices: Names of its devices, in table order.
        observed: Columns of the channel table it sees, in order, shape (n_observed,).
        continuous: Columns of the action vector it sets with numbers in [-1, 1].
        discrete: Columns of the action vector it sets with positions.
        sizes: Number of positions of each discrete action.
    """

    name: str
    devices: tuple[str, ...]
    observed: IntArray
    continuous: IntArray
    discrete: IntArray
    sizes: IntArray

    @property
    def observation_space(self) -> gym.spaces.Box:
        """What the agent sees: scaled channels, each in [-1, 1]."""
        return gym.spaces.Box(-1.0, 1.0, (len(self.observed),), np.float32)

    @property
    def action_space(self) -> gym.spaces.Space[Any]:
        """What the agent decides: a Box, a MultiDiscrete, or a Dict of both."""
        box = gym.spaces.Box(-1.0, 1.0, (len(self.continuous),), np.float32)
        positions = gym.spaces.MultiDiscrete(self.sizes) if len(self.sizes) else None
        if positions is None:
            return box
        if not len(self.continuous):
            return positions
        return gym.spaces.Dict({"continuous": box, "discrete": positions})

    def write_action(self, action: Any, out: FloatArray) -> list[str]:
        """Put an action into the action vector of one environment.

        Args:
            action: As in ``action_space``.
            out: The action vector, shape (n_actions,).

        Returns:
            The problems; with any, ``out`` may be half written.
        """
        if not len(self.discrete):
            return self._write_part(action, out, self.continuous, "")
        if not len(self.continuous):
            return self._write_part(action, out, self.discrete, "")
        if not isinstance(action, Mapping) or set(action) != {"continuous", "discrete"}:
            keys = "'continuous' and 'discrete'"
            return [f"agent {self.name!r}: action is not a mapping with keys {keys} but {action!r:.60}"]
        return [
            *self._write_part(action["continuous"], out, self.continuous, "continuous: "),
            *self._write_part(action["discrete"], out, self.discrete, "discrete: "),
        ]

    def read_action(self, vector: FloatArray) -> Any:
        """Return the agent's part of an action vector, as in ``action_space``.

        Args:
            vector: The action vector of one environment, shape (n_actions,).
        """
        continuous = vector[self.continuous].astype(np.float32)
        discrete = np.rint(vector[self.discrete]).astype(np.int64)
        if not len(self.discrete):
            return continuous
        return {"continuous": continuous, "discrete": discrete} if len(self.continuous) else discrete

    def _write_part(self, action: Any, out: FloatArray, columns: IntArray, what: str) -> list[str]:
        where = f"agent {self.name!r}: {what}"
        try:
            values = np.asarray(action, dtype=np.float64)
        except (TypeError, ValueError):
            return [f"{where}action is not numbers but {action!r:.60}"]
        if values.shape != columns.shape:
            return [f"{where}action has shape {values.shape}, expected {columns.shape}"]
        if columns is self.discrete:
            wrong = ~((values >= 0) & (values < self.sizes) & (values == np.rint(values)))
            if wrong.any():
                i = int(wrong.argmax())
                return [f"{where}action[{i}] is {values[i]:g}; allowed are the whole numbers 0..{self.sizes[i] - 1}"]
        elif not np.abs(values).max(initial=0.0) <= 1.0 + _TOLERANCE:  # NaN fails too
            i = int((~(np.abs(values) <= 1.0 + _TOLERANCE)).argmax())
            return [f"{where}action[{i}] is {values[i]:g}; allowed is -1..1"]
        out[columns] = values
        return []


def build_agents(scenario: Scenario, actions: Sequence[ActionSpec], channels: Channels) -> list[Agent]:
    """Make the agents of a scenario from the two tables."""
    agents = []
    network = [i for i, c in enumerate(channels.table) if c.owner != "world"]
    for name, spec in scenario.agents.items():
        own = [i for i, action in enumerate(actions) if action.device in spec.devices]
        continuous = [i for i in own if not actions[i].discrete]
        discrete = [i for i in own if actions[i].discrete]
        idle = [name for name in spec.devices if scenario.devices[name].control != "agent"]
        acting = {actions[i].device for i in own}
        seen = (channel.owner for channel in channels.table)
        devices = tuple(dict.fromkeys(owner for owner in seen if owner in acting or owner in idle))
        observed = channels.columns_of(["world"]) + channels.columns_of([name]) + channels.columns_of(devices)
        if scenario.mode == "centralized":
            observed += network
        agents.append(
            Agent(
                name=name,
                devices=devices,
                observed=np.array(observed, dtype=np.int64),
                continuous=np.array(continuous, dtype=np.int64),
                discrete=np.array(discrete, dtype=np.int64),
                sizes=np.array([actions[i].n for i in discrete], dtype=np.int64),
            )
        )
    return agents


def require_actions(scenario: Scenario, agents: Sequence[Agent]) -> None:
    """Refuse agents that have nothing to decide: their action spaces would be empty.

    Raises:
        ScenarioError: with every such agent and the remedy.
    """
    idle = [agent.name for agent in agents if not len(agent.continuous) and not len(agent.discrete)]
    controlled = [n for n in idle if any(scenario.devices[d].control != "agent" for d in scenario.agents[n].devices)]
    problems = [
        f"agents.{name}: none of its devices ({', '.join(scenario.agents[name].devices)}) has control 'agent', so it "
        "has nothing to decide; leave the agent out, or set control: agent on one of them"
        for name in controlled
    ]
    if problems:
        raise ScenarioError(scenario.name, problems)


def write_actions(agents: Sequence[Agent], actions: Mapping[str, Any], out: FloatArray) -> None:
    """Put all agents' actions into the action vector of one environment.

    Raises:
        ActionError: with every problem of every agent.
    """
    problems = []
    if not isinstance(actions, Mapping):
        raise ActionError("actions", [f"expected one action for each agent by its name, not {actions!r:.60}"])
    if len(actions) != len(agents) or any(agent.name not in actions for agent in agents):
        names = [agent.name for agent in agents]
        missing = [name for name in names if name not in actions]
        unknown = [name for name in actions if name not in names]
        problems += [f"agent {name!r} has no action" for name in missing]
        problems += [f"unknown agent {name!r}; agents are {', '.join(names)}" for name in unknown]
    for agent in agents:
        if agent.name in actions:
            problems += agent.write_action(actions[agent.name], out)
    if problems:
        raise ActionError("actions", problems)


def ownership(owners: Sequence[Sequence[str]], devices: Sequence[str]) -> FloatArray:
    """Return 1 where an agent owns a device, shape (n_devices, n_agents).

    Args:
        owners: Names of each agent's devices.
        devices: Names of the devices.
    """
    owned = [[float(name in own) for own in owners] for name in devices]
    return np.array(owned).reshape(len(devices), len(owners))


class ActionWriter:
    """Put the actions of all agents of one environment into its action vector, checked in one pass.

    Args:
        agents: The agents.
    """

    def __init__(self, agents: Sequence[Agent]) -> None:
        self._agents = agents
        columns = [part for agent in agents for part in (agent.continuous, agent.discrete) if len(part)]
        self._columns = np.concatenate([np.empty(0, dtype=np.int64), *columns])
        low, high, whole = (np.zeros(len(self._columns)) for _ in range(3))
        self._values, self._work = np.zeros_like(low), np.zeros_like(low)
        self._parts: list[tuple[str, str | None, tuple[int, ...], FloatArray]] = []
        first = 0
        for agent in agents:
            both = bool(len(agent.continuous)) and bool(len(agent.discrete))
            for key, own in (("continuous", agent.continuous), ("discrete", agent.discrete)):
                if not len(own):
                    continue
                part = slice(first, first + len(own))
                self._parts.append((agent.name, key if both else None, own.shape, self._values[part]))
                low[part], high[part] = (0.0, agent.sizes - 1.0) if own is agent.discrete else (-1.0, 1.0)
                whole[part] = own is agent.discrete
                first += len(own)
        self._low, self._high = low - _TOLERANCE, high + _TOLERANCE
        self._whole = np.flatnonzero(whole) if whole.any() else None

    def write(self, actions: Mapping[str, Any], out: FloatArray) -> None:
        """Put the actions into ``out``, shape (n_actions,).

        Raises:
            ActionError: with every problem of every agent.
        """
        if self._take(actions) and self._allowed():
            out[self._columns] = self._values
        else:
            write_actions(self._agents, actions, out)  # slow, and says what is wrong if anything is

    def _take(self, actions: Mapping[str, Any]) -> bool:
        """Gather all actions, where they are arrays of the right shapes."""
        try:
            if len(actions) != len(self._agents):
                return False
            for name, key, shape, values in self._parts:
                action = actions[name] if key is None else actions[name][key]
                if action.shape != shape or (key is not None and len(actions[name]) != 2):
                    return False
                values[:] = action
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            return False
        return True

    def _allowed(self) -> bool:
        values, work = self._values, self._work
        if np.count_nonzero(values >= self._low) + np.count_nonzero(values <= self._high) < 2 * len(values):
            return False  # NaN fails too
        if self._whole is None:
            return True
        np.rint(values, out=work)
        return bool(np.count_nonzero((work == values)[self._whole]) == len(self._whole))
