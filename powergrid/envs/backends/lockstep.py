"""What plays many environments slice by slice, and the one that does so in this process."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from gymnasium.vector import AutoresetMode

from powergrid.envs.backends.board import Board, BoolArray, FloatArray, Layout, ViewName
from powergrid.envs.backends.slices import Slice, call_slice
from powergrid.envs.core import CLOSED, read_options
from powergrid.envs.episode import NOT_STARTED, Entropy
from powergrid.errors import ScenarioError, describe_unknown, find_number_problems
from powergrid.grid.devices.spec import MOST_SEED
from powergrid.scenario import Scenario

BackendName = Literal["inline", "processes"]
Seed = int | Sequence[int | None] | None


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


class Seeding:
    """Turn the arguments of ``reset`` into environments and what starts each one's stream.

    Args:
        first_seed: The seed of a first reset without one.
        n_envs: Number of environments.
        worker_index: Tells apart the streams of several workers, as RLlib numbers them.

    Attributes:
        started: Whether all environments were started once.
    """

    def __init__(self, first_seed: int | None, n_envs: int, worker_index: int | None = None) -> None:
        self._seed, self._n_envs, self._worker_index = first_seed, n_envs, worker_index
        self.started = False

    def read(self, seed: Seed, options: Mapping[str, Any] | None) -> tuple[dict[int, Entropy], dict[str, Any]]:
        """Return what starts the stream of each environment to start, and the options that are left.

        Raises:
            ScenarioError: the mask or the seeds are wrong.
        """
        left = read_options(options)
        envs = self._pick_envs(left.pop("reset_mask", None))
        seeds = self._spread(seed)
        return {env: self._entropy(env, seeds[env]) for env in envs}, left

    def _entropy(self, env: int, own: int | None) -> Entropy:
        """Return the numbers that NetworkedGridEnv starts from with the seed, worker and place among the worker's."""
        if own is None and self.started:
            return None
        if own is None:
            own = self._seed if self._seed is None or self._worker_index is not None else self._seed + env
        if own is None:
            return ()
        return (int(own),) if self._worker_index is None else (int(own), self._worker_index, env)

    def _spread(self, seed: Seed) -> Sequence[int | None]:
        if seed is None:
            return [None] * self._n_envs
        seeds = list(seed) if isinstance(seed, list | tuple | np.ndarray) else None
        if seeds is not None and len(seeds) != self._n_envs:
            raise ScenarioError("seed", [f"{len(seeds)} seeds for {self._n_envs} environments"])
        each = {"seed": seed} if seeds is None else {f"seed[{env}]": own for env, own in enumerate(seeds)}
        problems = find_number_problems(0, MOST_SEED, **each)
        if problems:
            raise ScenarioError("seed", problems)
        return [int(seed) + env for env in range(self._n_envs)] if seeds is None else seeds  # type: ignore[arg-type]

    def _pick_envs(self, mask: Any) -> list[int]:
        if mask is None:
            return list(range(self._n_envs))
        chosen = np.asarray(mask)
        if chosen.shape != (self._n_envs,) or chosen.dtype != np.bool_:
            raise ScenarioError(
                "options", [f"reset_mask has shape {chosen.shape}, {chosen.dtype}; expected ({self._n_envs},), bool"]
            )
        if not self.started and not chosen.all():
            raise ScenarioError("options", ["reset_mask leaves out environments that were never started"])
        return np.flatnonzero(chosen).tolist()


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
