"""An agent: its slice of the action vector and the channels it sees."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from powergrid.envs.masks import ActionMasks, add_mask
from powergrid.envs.observations.channels import Channels
from powergrid.errors import ActionError, ScenarioError, describe_unknown, find_number_problems, show_briefly
from powergrid.grid.simulation import Simulation
from powergrid.grid.telemetry import find_near, find_places
from powergrid.scenario import Scenario

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

ActionForm = Literal["auto", "multidiscrete", "box", "mixed"]

#: Owner of the channels of the whole network's graph.
NETWORK_GRAPH = "network graph"
_TOLERANCE = 1e-4
#: Name of the one agent that decides over what all agents do.
_NAME = "central"


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
        plain: Whether one position, if it is all there is to decide, is a number and no array of one.
        masked: Whether the agent sees an action mask beside the channels, where it has positions.
    """

    name: str
    devices: tuple[str, ...]
    observed: IntArray
    continuous: IntArray
    discrete: IntArray
    sizes: IntArray
    plain: bool = False
    masked: bool = False

    @property
    def observation_space(self) -> gym.spaces.Space[Any]:
        """What the agent sees: scaled channels, each in [-1, 1], and the mask of its positions if it is to."""
        box = gym.spaces.Box(-1.0, 1.0, (len(self.observed),), np.float32)
        return add_mask(box, self.masks.size) if self.masked and self.masks.size else box

    @property
    def action_space(self) -> gym.spaces.Space[Any]:
        """What the agent decides: a Box, a MultiDiscrete or Discrete, or a Dict of Box and MultiDiscrete."""
        box = gym.spaces.Box(-1.0, 1.0, (len(self.continuous),), np.float32)
        if self.is_one:
            return gym.spaces.Discrete(int(self.sizes[0]))
        positions = gym.spaces.MultiDiscrete(self.sizes) if len(self.sizes) else None
        if positions is None:
            return box
        if not len(self.continuous):
            return positions
        return gym.spaces.Dict({"continuous": box, "discrete": positions})

    @property
    def is_one(self) -> bool:
        """Whether all that the agent decides is one number, a position."""
        return self.plain and len(self.sizes) == 1 and not len(self.continuous)

    @functools.cached_property
    def masks(self) -> ActionMasks:
        """Which of its positions can be had, all positions of the first action first."""
        return ActionMasks(self.discrete, self.sizes)

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
        if self.is_one:
            return self._write_part(action, out, self.discrete, "", one=True)
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
            vector: The action vector of one environment, shape (n_actions,), or of several, environments first.
        """
        continuous = vector[..., self.continuous].astype(np.float32)
        discrete = np.rint(vector[..., self.discrete]).astype(np.int64)
        if not len(self.discrete):
            return continuous
        if self.is_one:
            return discrete[..., 0]
        return {"continuous": continuous, "discrete": discrete} if len(self.continuous) else discrete

    def _write_part(
        self, action: Any, out: FloatArray, columns: IntArray, what: str, *, one: bool = False
    ) -> list[str]:
        where = f"agent {self.name!r}: {what}"
        try:
            values = np.asarray(action, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):  # the last of an int beyond all floats
            return [f"{where}action is not numbers but {show_briefly(action):.60}"]
        shape = () if one else columns.shape
        if values.shape != shape:
            return [f"{where}action has shape {values.shape}, expected {shape}"]
        values = np.atleast_1d(values)
        if columns is self.discrete:
            wrong = ~((values >= 0) & (values < self.sizes) & (values == np.rint(values)))
            if wrong.any():
                i = int(wrong.argmax())
                at = "" if one else f"[{i}]"
                return [f"{where}action{at} is {values[i]:g}; allowed are the whole numbers 0..{self.sizes[i] - 1}"]
        elif not np.abs(values).max(initial=0.0) <= 1.0 + _TOLERANCE:  # NaN fails too
            i = int((~(np.abs(values) <= 1.0 + _TOLERANCE)).argmax())
            return [f"{where}action[{i}] is {values[i]:g}; allowed is -1..1"]
        out[columns] = values
        return []


def graph_owner(agent: str) -> str:
    """Return the owner of the channels of what an agent sees as a graph."""
    return f"{agent} graph"


def build_agents(scenario: Scenario, simulation: Simulation, channels: Channels) -> list[Agent]:
    """Make the agents of a scenario from the two tables."""
    agents, actions = [], simulation.actions
    columns, actions_of = channels.columns_by_owner(), dict[str, list[int]]()
    for i, action in enumerate(actions):
        actions_of.setdefault(action.device, []).append(i)
    for name, spec in scenario.agents.items():
        own = sorted(i for device in set(spec.devices) for i in actions_of.get(device, ()))
        continuous = [i for i in own if not actions[i].discrete]
        discrete = [i for i in own if actions[i].discrete]
        idle = [name for name in spec.devices if scenario.devices[name].control != "agent"]
        acting = {actions[i].device for i in own}
        # in table order: of the devices without a channel nothing is seen
        seen = sorted((columns[device][0], device) for device in {*acting, *idle} if device in columns)
        devices = tuple(device for _, device in seen)
        of_devices = sorted(column for device in devices for column in columns[device])
        hops = None if scenario.telemetry is None else scenario.telemetry.hops
        zone = columns.get(name, ()) if hops is None else _find_near(simulation, spec.devices, hops, channels)
        observed = [*columns["world"], *zone, *of_devices]
        if scenario.mode == "centralized":
            observed += [i for i in channels.shown.tolist() if channels.table[i].owner not in ("world", NETWORK_GRAPH)]
        observed += columns.get(NETWORK_GRAPH if scenario.mode == "centralized" else graph_owner(name), ())
        agents.append(
            Agent(
                name=name,
                devices=devices,
                observed=np.array(observed, dtype=np.int64),
                continuous=np.array(continuous, dtype=np.int64),
                discrete=np.array(discrete, dtype=np.int64),
                sizes=np.array([actions[i].n for i in discrete], dtype=np.int64),
                plain=scenario.plain_discrete,
                masked=scenario.action_masks == "observations",
            )
        )
    return agents


def _find_near(simulation: Simulation, devices: Sequence[str], hops: int, channels: Channels) -> list[int]:
    """Return the columns of what is measured at buses up to so many branches away from some devices."""
    network = simulation.network
    at = [bus for name in devices for bus in find_places(simulation.devices[name], simulation.circuits[0])]
    own = tuple(f"network.{network.buses[bus]}." for bus in find_near(network, at, hops))
    return [i for i in channels.shown.tolist() if channels.table[i].name.startswith(own)]


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


def ownership(owners: Sequence[Sequence[str]], devices: Sequence[str]) -> FloatArray:
    """Return 1 where an agent owns a device, shape (n_devices, n_agents).

    Args:
        owners: Names of each agent's devices.
        devices: Names of the devices.
    """
    owned, place = np.zeros((len(devices), len(owners))), {name: i for i, name in enumerate(devices)}
    for agent, own in enumerate(owners):
        owned[[place[name] for name in own if name in place], agent] = 1.0
    return owned


class ActionWriter:
    """Put the actions of all agents into action vectors, checked in one pass.

    Args:
        agents: The agents.
        n_envs: Number of environments, the first axis of every action; None for one whose actions have no such axis.
    """

    def __init__(self, agents: Sequence[Agent], n_envs: int | None = None) -> None:
        self.agents, self._n_envs = tuple(agents), n_envs
        columns = [part for agent in agents for part in (agent.continuous, agent.discrete) if len(part)]
        self._columns = np.concatenate([np.empty(0, dtype=np.int64), *columns])
        # every constant has the full shape: a ufunc takes longer where it must broadcast
        shape = (n_envs or 1, len(self._columns))
        self._values, self._work = np.zeros(shape), np.zeros(shape)
        self._low, self._high = np.full(shape, -1.0 - _TOLERANCE), np.full(shape, 1.0 + _TOLERANCE)
        self._parts: list[tuple[str, str | None, tuple[int, ...], FloatArray]] = []
        whole: list[int] = []
        first = 0
        for agent in agents:
            both = bool(len(agent.continuous)) and bool(len(agent.discrete))
            for key, own in (("continuous", agent.continuous), ("discrete", agent.discrete)):
                if not len(own):
                    continue
                part = slice(first, first + len(own))
                values = self._values[:, first] if agent.is_one else self._values[:, part]
                values = values if n_envs is not None else values[:1].reshape(values.shape[1:])
                self._parts.append((agent.name, key if both else None, values.shape, values))
                if own is agent.discrete:
                    self._low[:, part], self._high[:, part] = -_TOLERANCE, agent.sizes - 1.0 + _TOLERANCE
                    whole += range(part.start, part.stop)
                first += len(own)
        self._whole = np.array(whole, dtype=np.int64) if whole else None
        # where every column is some agent's, one gather fills them in a third of the time
        order = self._columns.argsort()
        self._order = order if np.array_equal(self._columns[order], np.arange(len(order))) else None

    def write(self, actions: Mapping[str, Any], out: FloatArray) -> None:
        """Put actions by agent into ``out``, shape (n_envs, n_actions).

        Raises:
            ActionError: with every problem of every agent in every environment.
        """
        if self._take(actions) and self._allowed():
            if self._order is not None and out.shape == self._values.shape:
                self._values.take(self._order, 1, out, "clip")
            else:
                out[:, self._columns] = self._values
        else:
            self._write_each(actions, out)  # slow: takes lists too, and says what is wrong if anything is

    def read(self, matrix: FloatArray) -> dict[str, Any]:
        """Return the actions that action vectors stand for, as :meth:`write` takes them, shape (n_envs, n_actions)."""
        vectors = matrix[0] if self._n_envs is None else matrix
        return {agent.name: agent.read_action(vectors) for agent in self.agents}

    def _take(self, actions: Mapping[str, Any]) -> bool:
        """Gather all actions, where they are arrays of the right shapes."""
        try:
            if len(actions) != len(self.agents):
                return False
            for name, key, shape, values in self._parts:
                action = actions[name] if key is None else actions[name][key]
                if action.shape != shape or (key is not None and len(actions[name]) != 2):
                    return False
                values[...] = action
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            return False
        return True

    def _allowed(self) -> bool:
        values, work = self._values, self._work
        # NaN fails too; a look for a zero byte takes a third of what numpy's own functions do on a few values
        if b"\0" in np.logical_and(values >= self._low, values <= self._high).tobytes():
            return False
        if self._whole is None:
            return True
        same = np.equal(np.rint(values, out=work), values)[:, self._whole]
        return bool(np.count_nonzero(same) == same.size)

    def _write_each(self, actions: Mapping[str, Any], out: FloatArray) -> None:
        if not isinstance(actions, Mapping):
            raise ActionError("actions", [f"expected one action for each agent by its name, not {actions!r:.60}"])
        names = [agent.name for agent in self.agents]
        problems = [f"agent {name!r} has no action" for name in names if name not in actions]
        problems += [f"unknown agent {n!r}; agents are {', '.join(names)}" for n in actions if n not in names]
        for agent in self.agents:
            if agent.name not in actions:
                continue
            action = actions[agent.name]
            if self._n_envs is None:
                problems += agent.write_action(action, out[0])
            elif (rows := _split_rows(action, self._n_envs)) is None:
                problems.append(f"agent {agent.name!r}: actions do not have {self._n_envs} environments first")
            else:
                found = ((env, agent.write_action(row, out[env])) for env, row in enumerate(rows))
                problems += [f"environment {env}: {problem}" for env, own in found for problem in own]
        if problems:
            raise ActionError("actions", problems)


def _split_rows(action: Any, n: int) -> list[Any] | None:
    """Return a batch as one action for each environment, None where it is not a batch of n."""
    if isinstance(action, Mapping):
        parts = {key: _split_rows(value, n) for key, value in action.items()}
        if any(rows is None for rows in parts.values()):
            return None
        return [{key: rows[env] for key, rows in parts.items() if rows is not None} for env in range(n)]
    try:
        return list(action) if len(action) == n else None
    except TypeError:
        return None


def find_form_problems(actions: object, levels: object) -> list[str]:
    """Say what is wrong with a form of the action space."""
    problems = []
    if not isinstance(actions, str) or actions not in get_args(ActionForm):
        problems.append(f"actions: {describe_unknown('form', actions, get_args(ActionForm))}")
    return problems + find_number_problems(2, 100_000, levels=levels)


class CentralActions:
    """Read actions of one controller that decides over what all agents do.

    Args:
        agents: The agents.
        form: Form of the action space.
        levels: Number of values of a continuous action in the form ``multidiscrete``.
        n_envs: As :class:`ActionWriter` has it.

    Attributes:
        space: The action space of one environment.
        masks: Which positions of it can be had, levels of batteries' continuous power among them.
    """

    def __init__(self, agents: Sequence[Agent], form: ActionForm, levels: int, n_envs: int | None = None) -> None:
        own = _as_one(agents)
        self._columns, self._sizes = _columns(own)
        self._binned = np.where(self._sizes > 0, self._sizes, levels)
        none, plain = np.array([], dtype=np.int64), own.plain
        mixed = len(own.continuous) > 0 and len(own.discrete) > 0
        self._form = ("box" if mixed else "mixed") if form == "auto" else form
        agent = {
            "mixed": own,
            "box": Agent(_NAME, (), none, self._columns, none, none),
            "multidiscrete": Agent(_NAME, (), none, none, self._columns, self._binned, plain),
        }[self._form]
        binned = self._sizes[np.searchsorted(self._columns, agent.discrete)] == 0
        self.masks = ActionMasks(agent.discrete, agent.sizes, binned)
        self._writer, self._one = ActionWriter([agent], n_envs), n_envs is None
        self.space: gym.spaces.Space[Any] = agent.action_space

    def write(self, action: Any, out: FloatArray) -> None:
        """Put actions into action vectors, shape (n_envs, n_actions).

        Raises:
            ActionError: an action has a wrong shape, type or value; all of them.
        """
        values = out if self._form == "mixed" else np.zeros(out.shape)
        self._writer.write({_NAME: action}, values)
        if values is not out:
            self._convert(values, out)

    def read(self, matrix: FloatArray) -> Any:
        """Return the actions that action vectors stand for, as :meth:`write` takes them, shape (n_envs, n_actions)."""
        if self._form == "mixed":
            return self._writer.read(matrix)[_NAME]
        return self._revert(matrix[0] if self._one else matrix)

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
        chosen = np.where(self._sizes > 0, values, np.rint((values + 1.0) / 2.0 * (self._binned - 1))).astype(np.int64)
        return chosen[..., 0] if isinstance(self.space, gym.spaces.Discrete) else chosen


def _as_one(agents: Sequence[Agent]) -> Agent:
    """Return the agent that owns what all agents own."""
    continuous = np.sort(np.concatenate([agent.continuous for agent in agents]))
    discrete = np.concatenate([agent.discrete for agent in agents])
    order = np.argsort(discrete)
    sizes = np.concatenate([agent.sizes for agent in agents])[order]
    devices = tuple(name for agent in agents for name in agent.devices)
    plain = agents[0].plain
    return Agent(_NAME, devices, np.array([], dtype=np.int64), continuous, discrete[order], sizes, plain)


def _columns(agent: Agent) -> tuple[IntArray, IntArray]:
    """Return the columns of an agent's actions in table order, and how many positions each has, 0 for none."""
    columns = np.concatenate([agent.continuous, agent.discrete])
    sizes = np.concatenate([np.zeros_like(agent.continuous), agent.sizes])
    order = np.argsort(columns)
    return columns[order], sizes[order]
