"""The arrays that environments in lockstep share with whoever plays them, environments first, and how they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from powergrid.envs.agents import Agent
from powergrid.envs.core import GridTask

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
ViewName = Literal["agents", "central"]

_ALIGNMENT = 64  # bytes: every array begins at a cache line


@dataclass(frozen=True)
class Layout:
    """What is the same for all environments of a scenario, and how many there are.

    Attributes:
        n_envs: Number of environments.
        n_actions: Length of the action vector of one environment.
        n_observed: Length of what is seen of one environment.
        agents: The agents.
        info_names: Names of the last axis of infos.
        told: Which of them dicts of infos hold, None for all.
        nodes: Names of the network's nodes, those of several feeders one after the other, shape (n_nodes,).
        feeders: The feeder of each node, where the scenario has several, else None.
        even: Whether as much is seen of each feeder.
        owned: Columns of the action vector that agents set.
        autoreset: When an environment that is over starts anew.
        worker_index: Tells apart the streams of several workers, as RLlib numbers them.
    """

    n_envs: int
    n_actions: int
    n_observed: int
    agents: tuple[Agent, ...]
    info_names: tuple[str, ...]
    nodes: npt.NDArray[np.object_]
    owned: IntArray
    autoreset: AutoresetMode
    worker_index: int | None = None
    told: tuple[int, ...] | None = None
    feeders: npt.NDArray[np.object_] | None = None
    even: bool = True

    @classmethod
    def of(
        cls, task: GridTask, view: ViewName, n_envs: int, *, autoreset: AutoresetMode, worker_index: int | None = None
    ) -> Layout:
        """Read the layout off a task of the scenario."""
        agents = tuple(task.agents)
        owned = np.sort(np.concatenate([c for agent in agents for c in (agent.continuous, agent.discrete)]))
        n_observed = sum(len(columns) for columns in find_seen(task, view))
        return cls(
            n_envs=n_envs,
            n_actions=task.action_buffer().shape[1],
            n_observed=n_observed,
            agents=agents,
            info_names=task.info_names,
            nodes=np.array(task.simulation.network.nodes, dtype=object),
            owned=owned,
            autoreset=autoreset,
            worker_index=worker_index,
            told=None if task.told is None else tuple(task.told),
        )


class Board:
    """The arrays that slices and their reader share; environments are the first axis of each.

    Attributes:
        actions: Action vectors to play, shape (n_envs, n_actions).
        observations: What is seen after the step, shape (n_envs, n_observed), float32.
        rewards: Reward of the last step, shape (n_envs, n_agents).
        terminated, truncated: How the last step ended, shape (n_envs,).
        infos: Terms and metrics of the last step, where they were asked for, shape (n_envs, n_agents, n_infos).
        final_observations, final_infos, final_least, final_most: The same of environments that started anew within the
            step; of the last two where masks are given at every step.
        neutral: Actions that leave every device to itself, where they were asked for, shape (n_envs, n_actions).
        least, most: What each action can ask now and get, where that was asked for, shape (n_envs, n_actions).
        day: Day of the profiles each environment plays, shape (n_envs,).
        worst_node: Node farthest outside the band, where infos hold names, shape (n_envs,).
        observed: Entries that are seen of the feeder each environment plays, where feeders differ, shape (n_envs,).
        final_days, final_worst_nodes, final_observed: The same of environments that started anew within the step.
    """

    def __init__(self, layout: Layout, buffer: Any = None) -> None:
        n, n_agents, n_infos = layout.n_envs, len(layout.agents), len(layout.info_names)
        raw = np.zeros(self.n_bytes(layout), dtype=np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)
        self._raw, self._at = raw, 0
        self.actions: FloatArray = self._take((n, layout.n_actions), np.float64)
        self.neutral: FloatArray = self._take((n, layout.n_actions), np.float64)
        self.least: FloatArray = self._take((n, layout.n_actions), np.float64)
        self.most: FloatArray = self._take((n, layout.n_actions), np.float64)
        self.rewards: FloatArray = self._take((n, n_agents), np.float64)
        self.infos: FloatArray = self._take((n, n_agents, n_infos), np.float64)
        self.final_infos: FloatArray = self._take((n, n_agents, n_infos), np.float64)
        self.final_least: FloatArray = self._take((n, layout.n_actions), np.float64)
        self.final_most: FloatArray = self._take((n, layout.n_actions), np.float64)
        self.day: IntArray = self._take((n,), np.int64)
        self.worst_node: IntArray = self._take((n,), np.int64)
        self.observed: IntArray = self._take((n,), np.int64)
        self.final_days: IntArray = self._take((n,), np.int64)
        self.final_observed: IntArray = self._take((n,), np.int64)
        self.final_worst_nodes: IntArray = self._take((n,), np.int64)
        self.observations: npt.NDArray[np.float32] = self._take((n, layout.n_observed), np.float32)
        self.final_observations: npt.NDArray[np.float32] = self._take((n, layout.n_observed), np.float32)
        self.terminated: BoolArray = self._take((n,), np.bool_)
        self.truncated: BoolArray = self._take((n,), np.bool_)

    @staticmethod
    def n_bytes(layout: Layout) -> int:
        """Return the size of the buffer that a board of a layout needs, generously."""
        n_agents, n_infos = len(layout.agents), len(layout.info_names)
        doubles = 6 * layout.n_actions + n_agents * (1 + 2 * n_infos) + 6
        return layout.n_envs * (8 * doubles + 8 * layout.n_observed + 2) + 22 * _ALIGNMENT

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


def find_seen(task: GridTask, view: ViewName) -> list[IntArray]:
    """Return the columns that a view is of: every one, or those of each agent."""
    if view == "central":
        return [task.channels.shown]
    return [agent.observed for agent in task.agents]
