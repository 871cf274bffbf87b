"""Some of the environments on a task of their own: all of them, or those of one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from powergrid.envs.backends.board import Board, IntArray, Layout, ViewName, find_seen
from powergrid.envs.core import OF_ANOTHER, GridTask
from powergrid.envs.episode import Entropy, Stream
from powergrid.envs.observations.view import View
from powergrid.errors import ScenarioError
from powergrid.scenario import Scenario

#: What a step leaves on the board that is in no task.
SHOWN = ("rewards", "terminated", "truncated")


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
        if options:
            self._check(options)  # before any stream of draws is another
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
        if "task" not in state:  # of several feeders
            raise ScenarioError(self.task.scenario.name, [OF_ANOTHER])
        self.task.require_fit(state["task"])  # before anything is changed
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

    def _check(self, options: Mapping[str, Any]) -> None:
        self.task.check_options(options)

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


def call_slice(part: Slice, call: tuple[Any, ...] | None) -> Any:
    """Call a method of a slice by name, with its arguments; None for none."""
    return None if call is None else getattr(part, call[0])(*call[1:])
