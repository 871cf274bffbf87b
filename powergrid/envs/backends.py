"""Many environments played in lockstep: in this process, or in several that share arrays with it.

The core of the vector faces. A backend plays slices, each some of the environments on a task of its own: one for all,
or one in each process. What a step takes and gives lies on a board, arrays with environments first.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from powergrid.envs.agents import Agent
from powergrid.envs.core import CLOSED, GridTask
from powergrid.envs.episode import NOT_STARTED, Entropy, Seed, Seeding, Stream
from powergrid.envs.observations import View
from powergrid.errors import ScenarioError, describe_unknown, find_number_problems
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
BackendName = Literal["inline", "processes"]
ViewName = Literal["agents", "central"]

#: What a step leaves on the board that is in no task.
SHOWN = ("rewards", "terminated", "truncated")
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


class Slice:
    """Play some of the environments on a task of its own.

    Args:
        task: The task, with as many environments as the board has rows.
        layout: What all environments have in common.
        view: What is seen: each agent's channels one agent after the other, or every channel once.
        board: The slice's rows of the shared arrays.
        first: Number of the slice's first environment among all.
    """

    @staticmethod
    def build(scenario: Scenario, n_envs: int) -> Any:
        """Build what a slice of so many environments plays on."""
        return GridTask(scenario, n_envs)

    @staticmethod
    def lay_out(
        tasks: Any, view: ViewName, n_envs: int, *, autoreset: AutoresetMode, worker_index: int | None = None
    ) -> Layout:
        """Read the layout of so many environments off what was built of them."""
        return Layout.of(tasks, view, n_envs, autoreset=autoreset, worker_index=worker_index)

    def __init__(self, task: Any, layout: Layout, view: ViewName, board: Board, first: int = 0) -> None:
        self.task: GridTask = task
        task.simulation.first_env = first
        self.board, self._same_step = board, layout.autoreset is AutoresetMode.SAME_STEP
        self._view = View(task.channels, find_seen(task, view), task.n_envs)
        self._masks = task.scenario.action_masks != "none"
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
            board.final_observations[:] = self._view.gather()
            board.final_infos[:] = task.infos()
            board.final_days[:] = task.simulation.day
            board.final_worst_nodes[:] = self._worst_node()
            if self._masks:
                board.final_least[:], board.final_most[:] = task.simulation.reach()
            self._restart(np.flatnonzero(over).tolist())
        self._show()

    def state(self) -> dict[str, Any]:
        """Copy the moment of these environments, with their streams of draws and what the last step gave."""
        streams = {env: Stream.of(rng) for env, rng in self._rngs.items()}
        shown = {name: getattr(self.board, name).copy() for name in SHOWN}
        ranges = dict(self.task.draws.given)
        return {"task": self.task.state(), "streams": streams, "shown": shown, "ranges": ranges}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`, and show it on the board."""
        self.change(state["ranges"])
        self.task.restore(state["task"])
        self._rngs = {env: stream.resume() for env, stream in state["streams"].items()}
        for name, values in state["shown"].items():
            getattr(self.board, name)[:] = values
        self._show()

    def change(self, ranges: Mapping[str, Any]) -> None:
        """Draw the episodes to come by other ranges."""
        if ranges or self.task.draws.given:
            self.task.draws.change(ranges)

    def drawn(self) -> list[dict[str, float]]:
        """Return what the episode of each environment has drawn, as infos have it."""
        return [self.task.drawn_labels(env) for env in range(self.task.n_envs)]

    def infos(self) -> None:
        """Write terms and metrics of the last step on the board."""
        self.board.infos[:] = self.task.infos()

    def neutral(self) -> None:
        """Write the actions on the board that leave every device to itself."""
        self.board.neutral[:] = self.task.simulation.neutral()

    def reach(self) -> None:
        """Write on the board what each action can ask now and get."""
        self.board.least[:], self.board.most[:] = self.task.simulation.reach()

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
        board.observations[:] = self._view.gather()
        board.day[:] = task.simulation.day
        board.worst_node[:] = self._worst_node()
        if self._masks:
            self.reach()

    def _worst_node(self) -> IntArray | int:
        # a pass over all nodes, for infos that are not asked for as a rule
        return self.task.metrics.worst_node if self.task.scenario.infos == "full" else 0


def find_seen(task: GridTask, view: ViewName) -> list[IntArray]:
    """Return the columns that a view is of: every one, or those of each agent."""
    if view == "central":
        return [task.channels.shown]
    return [agent.observed for agent in task.agents]


@dataclass(frozen=True)
class VectorState:
    """A moment of many environments in lockstep.

    Attributes:
        parts: State of each slice.
        bounds: First environment of each slice, and the one after its last.
        over: Environments that have ended and not started anew, shape (n_envs,).
    """

    parts: tuple[Mapping[str, Any], ...]
    bounds: tuple[tuple[int, int], ...]
    over: BoolArray


#: Most environments or processes that are built together.
MOST_ENVIRONMENTS = 100_000


class Backend(ABC):
    """Play n environments in slices; what they give is on the board.

    Args:
        scenario: The scenario.
        layout: What all environments have in common.
        board: The arrays, all environments in each.
        bounds: First environment of each slice, and the one after its last.

    Attributes:
        over: Environments that have ended and not started anew, shape (n_envs,).
    """

    def __init__(self, scenario: Scenario, layout: Layout, board: Board, bounds: list[tuple[int, int]]) -> None:
        self.layout, self.board, self.bounds = layout, board, bounds
        self._name, self.closed = scenario.name, False
        self._seeding = Seeding(scenario.seed, layout.n_envs, layout.worker_index)
        self._infos_wanted = self._infos_fresh = False
        self._may_draw, self._drawn = bool(scenario.ranges), list[dict[str, float]]()
        self.final_drawn: list[dict[str, float]] = []
        self.over: BoolArray = np.zeros(layout.n_envs, dtype=bool)

    def reset(self, seed: Seed, options: Mapping[str, Any] | None) -> BoolArray:
        """Start episodes, and say in which environments, shape (n_envs,).

        Args:
            seed: Starts streams of draws anew, as :class:`Seeding` has it.
            options: ``reset_mask`` picks the environments; the rest is the task's.

        Raises:
            ScenarioError: an option or a seed is wrong, the power flow does not converge, or it is closed.
        """
        self._require_open()
        entropies, left = self._seeding.read(seed, options)
        self._infos_fresh = False
        self._may_draw, self._drawn = self._may_draw or bool(left), []
        calls = []
        for first, last in self.bounds:
            own = {env - first: entropy for env, entropy in entropies.items() if first <= env < last}
            calls.append(("reset", own, left) if own else None)
        self._call(calls)
        self._seeding.started = True
        started = np.zeros(self.layout.n_envs, dtype=bool)
        started[list(entropies)] = True
        self.over &= ~started
        return started

    @property
    def started(self) -> bool:
        """Whether all environments were started once."""
        return self._seeding.started

    def state(self) -> VectorState:
        """Copy the moment of all environments.

        Raises:
            ScenarioError: it is closed.
        """
        self._require_open()
        parts = tuple(self._call([("state",)] * len(self.bounds)))
        return VectorState(parts, tuple(self.bounds), self.over.copy())

    def restore(self, state: VectorState) -> None:
        """Go back to a :meth:`state`, of these environments or of as many in the same slices.

        Raises:
            ScenarioError: it is none, or of another scenario, number of environments or of workers; or it is closed.
        """
        self._require_open()
        if not isinstance(state, VectorState):
            raise ScenarioError(self._name, [f"{type(state).__name__} given; take what get_state() gave"])
        if state.bounds != tuple(self.bounds):
            slices = " and ".join(f"{b[-1][1]} environments in {len(b)} parts" for b in (state.bounds, self.bounds))
            remedy = "build it with the same num_envs, backend and workers"
            raise ScenarioError(self._name, [f"the state and this differ: {slices}; {remedy}"])
        self._infos_fresh, self._may_draw, self._drawn = False, True, []
        self._call([("restore", part) for part in state.parts])
        self.over, self._seeding.started = state.over.copy(), True

    def change(self, ranges: Mapping[str, Any]) -> None:
        """Draw the episodes to come by other ranges, in every environment.

        Raises:
            ScenarioError: a key cannot be drawn, or a value is wrong; or it is closed.
        """
        self._require_open()
        self._may_draw = self._may_draw or bool(ranges)
        self._call([("change", ranges)] * len(self.bounds))

    def drawn(self) -> list[dict[str, float]]:
        """Return what the episode of each environment has drawn, by name as in infos; nothing where nothing draws."""
        if self._may_draw and not self._drawn:
            self._drawn = [own for part in self._call([("drawn",)] * len(self.bounds)) for own in part]
        return self._drawn

    def require_started(self) -> None:
        """Refuse to step what was never started, or is closed.

        Raises:
            ScenarioError: with the remedy.
        """
        self._require_open()
        if not self._seeding.started:
            raise ScenarioError(self._name, [NOT_STARTED])

    def _require_open(self) -> None:
        if self.closed:
            raise ScenarioError(self._name, [CLOSED])

    def step(self) -> None:
        """Play the actions on the board in every environment; with ``NEXT_STEP`` those that are over start instead."""
        ended = self.over if self.layout.autoreset is AutoresetMode.NEXT_STEP else None
        if ended is None or not ended.all():
            self._play()
        if ended is not None and ended.any():
            board, those = self.board, ended.copy()
            self.reset(None, {"reset_mask": those})
            board.rewards[those], board.terminated[those], board.truncated[those] = 0.0, False, False
        if self.layout.autoreset is not AutoresetMode.SAME_STEP:
            np.logical_or(self.board.terminated, self.board.truncated, out=self.over)

    def _play(self) -> None:
        self._infos_fresh = False
        before = self.drawn() if self.layout.autoreset is AutoresetMode.SAME_STEP else []
        self._step(infos=self._infos_wanted)
        if before and (self.board.terminated | self.board.truncated).any():
            self.final_drawn, self._drawn = before, []  # those that are over have started anew
        self._infos_fresh = self._infos_wanted

    def infos(self) -> FloatArray:
        """Return terms and metrics of the last step; once asked for, workers write them at every step."""
        if not self._infos_fresh:
            self._call([("infos",)] * len(self.bounds))
            self._infos_wanted = self._infos_fresh = True
        return self.board.infos

    def neutral(self) -> FloatArray:
        """Return the actions that leave every device to itself."""
        self._call([("neutral",)] * len(self.bounds))
        return self.board.neutral

    def reach(self) -> tuple[FloatArray, FloatArray]:
        """Return the least and the most that each action can ask now and get."""
        self._require_open()
        self._call([("reach",)] * len(self.bounds))
        return self.board.least, self.board.most

    def info_dicts(self, env: int) -> dict[str, dict[str, Any]]:
        """Return the infos of one environment as agents' dicts."""
        calls = [("info_dicts", env - first) if first <= env < last else None for first, last in self.bounds]
        found: dict[str, dict[str, Any]] = next(answer for answer in self._call(calls) if answer is not None)
        return found

    def complete_finals(self, over: BoolArray) -> None:
        """Fill in the finals of slices in which nothing was over: they are as what is seen now."""
        board = self.board
        idle = [(first, last) for first, last in self.bounds if not over[first:last].any()]
        if not idle:
            return
        infos = self.infos()
        for first, last in idle:
            board.final_observations[first:last] = board.observations[first:last]
            board.final_infos[first:last] = infos[first:last]
            board.final_days[first:last] = board.day[first:last]
            board.final_worst_nodes[first:last] = board.worst_node[first:last]
            board.final_observed[first:last] = board.observed[first:last]
            board.final_least[first:last] = board.least[first:last]
            board.final_most[first:last] = board.most[first:last]

    @abstractmethod
    def _step(self, *, infos: bool) -> None:
        """Step every slice, and let each write its infos if they are wanted."""

    @abstractmethod
    def _call(self, calls: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """Call a method of each slice by name, with its arguments, None for none, and return their answers."""

    @abstractmethod
    def _release(self) -> None:
        """Release engines and workers; may come more than once."""

    def close(self) -> None:
        """Release engines and workers."""
        self.closed = True
        self._release()


class Inline(Backend):
    """Play all environments in this process, as one slice.

    Args:
        scenario: The scenario.
        view: What is seen.
        n_envs: Number of environments.
        kind: What plays them.
        autoreset: When an environment that is over starts anew.
        worker_index: As :class:`Seeding` has it.
    """

    def __init__(
        self,
        scenario: Scenario,
        view: ViewName,
        n_envs: int,
        *,
        kind: type[Slice],
        autoreset: AutoresetMode,
        worker_index: int | None = None,
    ) -> None:
        tasks = kind.build(scenario, n_envs)
        layout = kind.lay_out(tasks, view, n_envs, autoreset=autoreset, worker_index=worker_index)
        super().__init__(scenario, layout, Board(layout), [(0, n_envs)])
        self.slice = kind(tasks, layout, view, self.board)

    def _step(self, *, infos: bool) -> None:
        self.slice.step()
        self._infos_wanted = False  # they cost nothing more on demand

    def _call(self, calls: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        return [call_slice(self.slice, call) for call in calls]

    def _release(self) -> None:
        self.slice.close()


def call_slice(part: Slice, call: tuple[Any, ...] | None) -> Any:
    """Call a method of a slice by name, with its arguments; None for none."""
    return None if call is None else getattr(part, call[0])(*call[1:])


def split_envs(n_envs: int, n_slices: int) -> list[tuple[int, int]]:
    """Cut environments into slices of like size: the first of each, and the one after its last."""
    return list(itertools.pairwise(round(i * n_envs / n_slices) for i in range(n_slices + 1)))


def find_backend_problems(
    num_envs: object, name: object, workers: object, timeout_s: object, autoreset: object
) -> list[str]:
    """Say what is wrong with a number of environments, a choice of backend and when they start anew."""
    problems = find_number_problems(1, MOST_ENVIRONMENTS, num_envs=num_envs)
    problems += find_number_problems(1, MOST_ENVIRONMENTS, workers=workers)
    if timeout_s is not None and (
        isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0.0 < timeout_s <= 1e6
    ):
        problems.append(f"timeout_s {timeout_s!r:.40} is not a time above 0, and at most 1e6 s")
    if num_envs is None:
        problems.append("num_envs: give the number of environments")
    if name == "threads":  # there was one, 1.1 to 1.8 times as fast as inline against 1.5 to 2.4 of processes
        problems.append("backend 'threads' is gone; use 'processes', which is faster and plays all, or 'inline'")
    elif name not in get_args(BackendName):
        problems.append(f"backend: {describe_unknown('backend', name, get_args(BackendName))}")
    if workers is not None and name == "inline":
        problems.append("workers: backend 'inline' has none; choose backend 'processes'")
    if not isinstance(autoreset, AutoresetMode):
        problems.append(f"autoreset_mode {autoreset!r:.40} is not one of gymnasium.vector.AutoresetMode")
    return problems
