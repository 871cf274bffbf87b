"""A slice of the environments: some that one task steps, writing what it sees into rows of shared arrays.

Every backend plays slices: one for all environments, or one in each worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import Agent
from powergrid.envs.channels import View
from powergrid.envs.core import GridTask

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
ViewName = Literal["agents", "central"]
#: What starts the stream of draws of an environment: None goes on with it, an empty tuple takes any, else the numbers.
Entropy = tuple[int, ...] | None

_ALIGNMENT = 64


@dataclass(frozen=True)
class Layout:
    """What is the same for all environments of a scenario, and how many there are.

    Attributes:
        n_envs: Number of environments.
        n_actions: Length of the action vector of one environment.
        n_observed: Length of what is seen of one environment.
        agents: The agents.
        info_names: Names of the last axis of infos.
        nodes: Names of the network's nodes, shape (n_nodes,).
        owned: Columns of the action vector that agents set.
        same_step: Whether an environment that is over starts anew within the step.
    """

    n_envs: int
    n_actions: int
    n_observed: int
    agents: tuple[Agent, ...]
    info_names: tuple[str, ...]
    nodes: npt.NDArray[np.object_]
    owned: IntArray
    same_step: bool

    @classmethod
    def of(cls, task: GridTask, view: ViewName, n_envs: int, *, same_step: bool) -> Layout:
        """Read the layout off a task of the scenario."""
        agents = tuple(task.agents)
        owned = np.sort(np.concatenate([c for agent in agents for c in (agent.continuous, agent.discrete)]))
        n_observed = sum(len(columns) for columns in _seen(task, view))
        return cls(
            n_envs=n_envs,
            n_actions=task.action_buffer().shape[1],
            n_observed=n_observed,
            agents=agents,
            info_names=task.info_names,
            nodes=np.array(task.simulation.network.nodes, dtype=object),
            owned=owned,
            same_step=same_step,
        )


class Board:
    """The arrays that slices and their reader share; environments are the first axis of each.

    Attributes:
        actions: Action vectors to play, shape (n_envs, n_actions).
        observations: What is seen after the step, shape (n_envs, n_observed), float32.
        rewards: Reward of the last step, shape (n_envs, n_agents).
        terminated, truncated: How the last step ended, shape (n_envs,).
        infos: Terms and metrics of the last step, where they were asked for, shape (n_envs, n_agents, n_infos).
        final_observations, final_infos: The same of environments that started anew within the step.
        neutral: Actions that leave every device to itself, where they were asked for, shape (n_envs, n_actions).
        day: Day of the profiles each environment plays, shape (n_envs,).
        worst_node: Node farthest outside the band, shape (n_envs,).
        final_days, final_worst_nodes: The same of environments that started anew within the step.
    """

    def __init__(self, layout: Layout, buffer: Any = None) -> None:
        n, n_agents, n_infos = layout.n_envs, len(layout.agents), len(layout.info_names)
        raw = np.zeros(self.n_bytes(layout), dtype=np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)
        self._raw, self._at = raw, 0
        self.actions: FloatArray = self._take((n, layout.n_actions), np.float64)
        self.neutral: FloatArray = self._take((n, layout.n_actions), np.float64)
        self.rewards: FloatArray = self._take((n, n_agents), np.float64)
        self.infos: FloatArray = self._take((n, n_agents, n_infos), np.float64)
        self.final_infos: FloatArray = self._take((n, n_agents, n_infos), np.float64)
        self.day: IntArray = self._take((n,), np.int64)
        self.worst_node: IntArray = self._take((n,), np.int64)
        self.final_days: IntArray = self._take((n,), np.int64)
        self.final_worst_nodes: IntArray = self._take((n,), np.int64)
        self.observations: npt.NDArray[np.float32] = self._take((n, layout.n_observed), np.float32)
        self.final_observations: npt.NDArray[np.float32] = self._take((n, layout.n_observed), np.float32)
        self.terminated: BoolArray = self._take((n,), np.bool_)
        self.truncated: BoolArray = self._take((n,), np.bool_)

    @staticmethod
    def n_bytes(layout: Layout) -> int:
        """Return the size of the buffer that a board of a layout needs, generously."""
        n_agents, n_infos = len(layout.agents), len(layout.info_names)
        doubles = 2 * layout.n_actions + n_agents * (1 + 2 * n_infos) + 4
        return layout.n_envs * (8 * doubles + 8 * layout.n_observed + 2) + 16 * _ALIGNMENT

    def rows(self, first: int, last: int) -> Board:
        """Return the same arrays for some of the environments."""
        part = object.__new__(Board)
        arrays = {name: array for name, array in vars(self).items() if not name.startswith("_")}
        vars(part).update({name: array[first:last] for name, array in arrays.items()})
        return part

    def _take(self, shape: tuple[int, ...], kind: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        part = self._raw[self._at : self._at + size].view(kind).reshape(shape)
        self._at += -(-size // _ALIGNMENT) * _ALIGNMENT
        return part


class Slice:
    """Play some of the environments on a task of its own.

    Args:
        task: The task, with as many environments as the board has rows.
        layout: What all environments have in common.
        view: What is seen: each agent's channels one agent after the other, or every channel once.
        board: The slice's rows of the shared arrays.
        first: Number of the slice's first environment among all.
    """

    def __init__(self, task: GridTask, layout: Layout, view: ViewName, board: Board, first: int = 0) -> None:
        self.task = task
        task.simulation.first_env = first
        self.board, self._same_step = board, layout.same_step
        self._view = View(task.channels.table, _seen(task, view), task.n_envs)
        whole = len(layout.owned) == layout.n_actions
        self._owned: IntArray | slice = slice(None) if whole else layout.owned
        self._rngs: dict[int, np.random.Generator] = {}

    def reset(self, entropies: Mapping[int, Entropy], options: Mapping[str, Any]) -> None:
        """Start episodes in the environments that are named, counted within the slice."""
        for env, entropy in entropies.items():
            if entropy is not None:
                self._rngs[env] = np.random.default_rng(list(entropy) if entropy else None)
        self._restart(list(entropies), options)
        self._show()

    def step(self) -> None:
        """Play the actions on the board and write there what came of them."""
        task, board = self.task, self.board
        task.action_buffer()[:, self._owned] = board.actions[:, self._owned]
        task.step()
        board.rewards[:] = task.rewards
        board.terminated[:] = task.terminated
        np.logical_and(task.truncated, ~task.terminated, out=board.truncated)
        over = board.terminated | board.truncated
        if self._same_step and over.any():
            board.final_observations[:] = self._view.gather(task.channels.values)
            board.final_infos[:] = task.infos()
            board.final_days[:] = task.simulation.day
            board.final_worst_nodes[:] = task.metrics.worst_node
            self._restart(np.flatnonzero(over).tolist())
        self._show()

    def infos(self) -> None:
        """Write terms and metrics of the last step on the board."""
        self.board.infos[:] = self.task.infos()

    def neutral(self) -> None:
        """Write the actions on the board that leave every device to itself."""
        self.board.neutral[:] = self.task.simulation.neutral()

    def info_dicts(self, env: int) -> dict[str, dict[str, Any]]:
        """Return the infos of one environment, counted within the slice, as agents' dicts."""
        return self.task.info_dicts(env)

    def close(self) -> None:
        """Release the engines."""
        self.task.close()

    def _restart(self, envs: Sequence[int], options: Mapping[str, Any] | None = None) -> None:
        self.task.reset_all(envs, [self._rngs[env] for env in envs], options)

    def _show(self) -> None:
        task, board = self.task, self.board
        board.observations[:] = self._view.gather(task.channels.values)
        board.day[:] = task.simulation.day
        board.worst_node[:] = task.metrics.worst_node


def _seen(task: GridTask, view: ViewName) -> list[IntArray]:
    if view == "central":
        return [np.arange(len(task.channels.table))]
    return [agent.observed for agent in task.agents]
