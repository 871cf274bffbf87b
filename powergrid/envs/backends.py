"""Where environments are played: in this thread, in several, or in processes that share arrays with this one."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from powergrid.envs.core import GridTask
from powergrid.envs.slices import Board, BoolArray, Entropy, FloatArray, Layout, Slice, ViewName
from powergrid.errors import describe_unknown
from powergrid.scenario import Scenario

BackendName = Literal["inline", "threads", "processes"]


class Backend(ABC):
    """Play n environments in slices; what they give is on the board.

    Attributes:
        layout: What all environments have in common.
        board: The arrays, all environments in each.
        bounds: First environment of each slice, and the one after its last.
    """

    def __init__(self, layout: Layout, board: Board, bounds: list[tuple[int, int]]) -> None:
        self.layout, self.board, self.bounds = layout, board, bounds
        self._infos_wanted = self._infos_fresh = False

    def reset(self, entropies: Mapping[int, Entropy], options: Mapping[str, Any]) -> None:
        """Start episodes in the environments that are named; see :meth:`Slice.reset`."""
        self._infos_fresh = False
        calls = []
        for first, last in self.bounds:
            own = {env - first: entropy for env, entropy in entropies.items() if first <= env < last}
            calls.append(("reset", own, options) if own else None)
        self._call(calls)

    def step(self) -> None:
        """Play the actions on the board in every environment."""
        self._infos_fresh = False
        self._step(infos=self._infos_wanted)
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

    @abstractmethod
    def _step(self, *, infos: bool) -> None:
        """Step every slice, and let each write its infos if they are wanted."""

    @abstractmethod
    def _call(self, calls: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """Call a method of each slice by name, with its arguments, None for none; give what they return."""

    @abstractmethod
    def close(self) -> None:
        """Release engines and workers."""


class Inline(Backend):
    """Play all environments in this process, as one slice.

    Args:
        scenario: The scenario.
        view: What is seen.
        n_envs: Number of environments.
        same_step: Whether an environment that is over starts anew within the step.
        n_threads: Number of threads that share the calls on the engine; all else is the caller's.
    """

    def __init__(self, scenario: Scenario, view: ViewName, n_envs: int, *, same_step: bool, n_threads: int = 1) -> None:
        task = GridTask(scenario, n_envs, n_threads)
        layout = Layout.of(task, view, n_envs, same_step=same_step)
        super().__init__(layout, Board(layout), [(0, n_envs)])
        self.slice = Slice(task, layout, view, self.board)

    def _step(self, *, infos: bool) -> None:
        self.slice.step()
        self._infos_wanted = False  # they cost nothing more on demand

    def _call(self, calls: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        return [call_slice(self.slice, call) for call in calls]

    def close(self) -> None:
        """Release the engines."""
        self.slice.close()


def call_slice(part: Slice, call: tuple[Any, ...] | None) -> Any:
    """Call a method of a slice by name, with its arguments; None for none."""
    return None if call is None else getattr(part, call[0])(*call[1:])


def split_envs(n_envs: int, n_slices: int) -> list[tuple[int, int]]:
    """Cut environments into slices of like size: the first of each, and the one after its last."""
    return list(itertools.pairwise(round(i * n_envs / n_slices) for i in range(n_slices + 1)))


def count_workers(workers: int | None, n_envs: int) -> int:
    """Return the number of threads or processes: as asked, or one for each processor, never more than environments."""
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(workers, n_envs))


def open_backend(
    name: BackendName, scenario: Scenario, view: ViewName, n_envs: int, *, same_step: bool, workers: int | None
) -> Backend:
    """Build the environments on a backend."""
    if name == "inline":
        return Inline(scenario, view, n_envs, same_step=same_step)
    n_workers = count_workers(workers, n_envs)
    if name == "threads":
        return Inline(scenario, view, n_envs, same_step=same_step, n_threads=n_workers)
    from powergrid.envs.workers import Processes

    return Processes(scenario, view, n_envs, same_step=same_step, n_processes=n_workers)


def find_backend_problems(name: object, workers: object) -> list[str]:
    """Say what is wrong with a choice of backend."""
    problems = []
    if name not in get_args(BackendName):
        problems.append(f"backend: {describe_unknown('backend', name, get_args(BackendName))}")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        problems.append(f"workers {workers!r} is not a whole number above 0")
    elif workers is not None and name == "inline":
        problems.append(f"workers {workers}: backend 'inline' has none; choose backend 'threads' or 'processes'")
    return problems
