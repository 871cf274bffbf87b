"""Environments of a scenario with several feeders in lockstep: grouped by the feeder that each of them has drawn.

Every feeder has a task with as many rows as are likely to be drawn at once; an environment has one of them for an
episode. Rows that nobody has are not solved.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from powergrid.envs.backends.board import Board, BoolArray, IntArray, Layout, ViewName, find_seen
from powergrid.envs.backends.slices import SHOWN, Slice
from powergrid.envs.core import OF_ANOTHER, GridTask
from powergrid.envs.episode import Stream
from powergrid.envs.feeders import FeederTasks, WholeView, order_whole
from powergrid.envs.observations.view import View
from powergrid.errors import ScenarioError
from powergrid.quantities import QUANTITIES
from powergrid.scenario import Scenario


class _Group:
    """Some rows of one feeder: which environment has each, and how its numbers lie on the board.

    Args:
        feeder: The feeder.
        task: Plays it.
        first: The task of the first feeder, whose columns the board has.
        columns: What is seen of each environment, as :class:`View` takes it.
        layout: What all environments have in common.
        first_node: Place of the feeder's first node among those of all feeders.

    Attributes:
        envs: Environment of each row, -1 for none, shape (n_rows,).
        rows, theirs: The rows that are an environment's, and whose.
    """

    def __init__(
        self, feeder: str, task: GridTask, first: GridTask, columns: list[IntArray], layout: Layout, first_node: int
    ) -> None:
        self.feeder, self.task, self.first_node = feeder, task, first_node
        self.view = View(task.channels, columns, task.n_envs)
        self.envs = np.full(task.n_envs, -1)
        self.rows = self.theirs = np.empty(0, dtype=np.int64)
        self.started = False
        self.width = sum(map(len, columns))
        self._own, self._board = _action_columns(task), _action_columns(first)
        places = {name: place for place, name in enumerate(layout.info_names)}
        self.info_places = np.array([places[name] for name in task.info_names])

    def take(self, envs: Sequence[int]) -> list[int]:
        """Let environments have free rows, as many as there are, and return these."""
        free = np.flatnonzero(self.envs < 0)[: len(envs)]
        self.envs[free] = envs[: len(free)]
        self._note()
        return [int(row) for row in free]

    def release(self, envs: Iterable[int]) -> None:
        """Take back the rows of environments."""
        self.envs[np.isin(self.envs, list(envs))] = -1
        self._note()

    def assign(self, envs: IntArray) -> None:
        """Say whose each row is, shape (n_rows,)."""
        self.envs[:] = envs
        self._note()

    def _note(self) -> None:
        self.rows = np.flatnonzero(self.envs >= 0)
        self.theirs = self.envs[self.rows]
        self.task.simulation.played = None if len(self.rows) == len(self.envs) else self.rows.tolist()

    def start(
        self, rows: Sequence[int], rngs: Sequence[np.random.Generator], options: Mapping[str, Any] | None
    ) -> None:
        """Start episodes in some rows; at first also in those that nobody has, so that they hold sound numbers."""
        if not self.started:
            idle = [row for row in range(len(self.envs)) if row not in rows]
            rows, rngs = [*rows, *idle], [*rngs, *(copy.deepcopy(rngs[0]) for _ in idle)]
        self.task.reset_all(rows, rngs, options)
        self.started = True

    def step(self, actions: npt.NDArray[np.float64]) -> None:
        """Play the actions of all environments that are the group's."""
        self.task.action_buffer()[self.rows[:, None], self._own] = actions[self.theirs[:, None], self._board]
        self.task.step()

    def write_neutral(self, out: npt.NDArray[np.float64]) -> None:
        """Write the actions that leave every device to itself."""
        out[self.theirs[:, None], self._board] = self.task.simulation.neutral()[self.rows[:, None], self._own]

    def write_reach(self, least: npt.NDArray[np.float64], most: npt.NDArray[np.float64], rows: IntArray) -> None:
        """Write what each action can ask now and get, of some rows."""
        envs = self.envs[rows]
        for out, own in zip((least, most), self.task.simulation.reach(), strict=True):
            out[envs[:, None], self._board] = own[rows[:, None], self._own]

    def write_infos(self, out: npt.NDArray[np.float64], rows: IntArray) -> None:
        """Write terms and metrics of some rows; what the feeder has none of is 0."""
        envs, agents = self.envs[rows], np.arange(out.shape[1])
        out[envs] = 0.0
        out[envs[:, None, None], agents[:, None], self.info_places] = self.task.infos()[rows]


class FeederSlice(Slice):
    """Play some of the environments, each on the feeder that it draws at its reset.

    Args:
        tasks: The tasks of all feeders.
        layout: What all environments have in common.
        view: What is seen: each agent's channels one agent after the other, or every channel once.
        board: The slice's rows of the shared arrays.
        first: Number of the slice's first environment among all.
    """

    def __init__(self, tasks: Any, layout: Layout, view: ViewName, board: Board, first: int = 0) -> None:
        self._feeders: FeederTasks = tasks
        self.task, self.board, self._layout = tasks.first, board, layout
        self._same_step = layout.autoreset is AutoresetMode.SAME_STEP
        self._first, self._names = first, tasks.scenarios[next(iter(tasks.scenarios))].infos == "full"
        columns = [find_seen(task, view) for task in tasks.tasks.values()]
        if view == "central":
            columns = [[own] for own in order_whole(list(tasks.tasks.values()))]
        self._columns = dict(zip(tasks.tasks, columns, strict=True))
        nodes = np.cumsum([0, *(len(task.simulation.network.nodes) for task in tasks.tasks.values())]).tolist()
        self._first_nodes = dict(zip(tasks.tasks, nodes[:-1], strict=True))
        self._groups = [self._group(name, task) for name, task in tasks.tasks.items()]
        self._rngs: dict[int, np.random.Generator] = {}
        self._masks = self.task.scenario.action_masks != "none"

    @staticmethod
    def build(scenario: Scenario, n_envs: int) -> Any:
        """Build the tasks of all feeders, each with as many rows as few draws exceed."""
        return FeederTasks(scenario, n_envs)

    @staticmethod
    def lay_out(
        tasks: Any, view: ViewName, n_envs: int, *, autoreset: AutoresetMode, worker_index: int | None = None
    ) -> Layout:
        """Return what environments have in common, whichever feeder they play."""
        own: dict[str, GridTask] = tasks.tasks
        layout = Layout.of(tasks.first, view, n_envs, autoreset=autoreset, worker_index=worker_index)
        infos = dict.fromkeys(name for task in own.values() for name in task.info_names)
        nodes = {feeder: task.simulation.network.nodes for feeder, task in own.items()}
        changes: dict[str, Any] = {
            # of agents first, as they stand in those of each
            "info_names": tuple(sorted(infos, key=lambda name: QUANTITIES[name].of_agents == "same")),
            "nodes": np.array([node for each in nodes.values() for node in each], dtype=object),
            "feeders": np.array([feeder for feeder, each in nodes.items() for _ in each], dtype=object),
        }
        if tasks.first.told is not None:
            told = dict.fromkeys(task.info_names[column] for task in own.values() for column in task.told or ())
            changes["told"] = tuple(map(changes["info_names"].index, told))
        if view == "central":
            whole = WholeView(own.values())
            changes |= {"n_observed": whole.width, "even": whole.even}
        return dataclasses.replace(layout, **changes)

    def step(self) -> None:
        """Play the actions on the board and write there what came of them."""
        board, playing = self.board, [group for group in self._groups if len(group.rows)]
        for group in playing:
            group.step(board.actions)
            task, rows, envs = group.task, group.rows, group.theirs
            board.rewards[envs] = task.rewards[rows]
            board.terminated[envs] = task.terminated[rows]
            board.truncated[envs] = task.truncated[rows] & ~task.terminated[rows]
        over = board.terminated | board.truncated
        if self._same_step and over.any():
            for group in playing:
                self._write_finals(group, over)
            self._restart(np.flatnonzero(over).tolist())
        self._show()

    def state(self) -> dict[str, Any]:
        """Copy the moment of these environments, with their streams of draws and what the last step gave."""
        streams = {env: Stream.of(rng) for env, rng in self._rngs.items()}
        groups = [(group.feeder, group.envs.copy(), group.task.state()) for group in self._groups if group.started]
        shown = {name: getattr(self.board, name).copy() for name in SHOWN}
        return {"groups": groups, "streams": streams, "shown": shown, "ranges": dict(self.task.draws.given)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`, and show it on the board."""
        idle, found = list(self._groups), list[tuple[_Group, Any, Any]]()
        for feeder, envs, kept in state.get("groups", ((None, (), None),)):  # none of one feeder
            if feeder not in self._feeders.tasks:
                raise ScenarioError(self.task.scenario.name, [OF_ANOTHER])
            like = [group for group in idle if (group.feeder, len(group.envs)) == (feeder, len(envs))]
            group = like[0] if like else self._add(feeder, len(envs))
            idle = [each for each in idle if each is not group]
            group.task.require_fit(kept)  # before anything is changed
            found.append((group, envs, kept))
        self.change(state["ranges"])
        for group in self._groups:
            group.assign(np.full_like(group.envs, -1))
        for group, envs, kept in found:
            group.task.restore(kept)
            group.assign(envs)
            group.started = True
        self._rngs = {env: stream.resume() for env, stream in state["streams"].items()}
        for name, values in state["shown"].items():
            getattr(self.board, name)[:] = values
        self._show()

    def change(self, ranges: Mapping[str, Any]) -> None:
        """Draw the episodes to come by other ranges."""
        for group in self._groups:
            if ranges or group.task.draws.given:
                group.task.draws.change(ranges)

    def drawn(self) -> list[dict[str, float]]:
        """Return what the episode of each environment has drawn, as infos have it."""
        found = [dict[str, float]() for _ in range(len(self.board.day))]
        for group in self._groups:
            for env, row in zip(group.theirs.tolist(), group.rows.tolist(), strict=True):
                found[env] = group.task.drawn_labels(row)
        return found

    def infos(self) -> None:
        """Write terms and metrics of the last step on the board."""
        for group in self._groups:
            if len(group.rows):
                group.write_infos(self.board.infos, group.rows)

    def neutral(self) -> None:
        """Write the actions on the board that leave every device to itself."""
        for group in self._groups:
            if len(group.rows):
                group.write_neutral(self.board.neutral)

    def reach(self) -> None:
        """Write on the board what each action can ask now and get."""
        for group in self._groups:
            if len(group.rows):
                group.write_reach(self.board.least, self.board.most, group.rows)

    def info_dicts(self, env: int) -> dict[str, dict[str, Any]]:
        """Return the infos of one environment, counted within the slice, as agents' dicts."""
        group = next(group for group in self._groups if env in group.theirs)
        infos = group.task.info_dicts(int(group.rows[group.theirs == env][0]))
        label = self._feeders.label(group.task)
        return {agent: {**info, **label} for agent, info in infos.items()}

    def close(self) -> None:
        """Release the engines."""
        for group in self._groups:
            group.task.close()

    def _check(self, options: Mapping[str, Any]) -> None:
        self._feeders.check(options)

    def _restart(self, envs: Sequence[int], options: Mapping[str, Any] | None = None) -> None:
        """Let environments draw their feeders, and start them there."""
        drawn: dict[str, list[int]] = {}
        left: Mapping[str, Any] | None = None
        for env in envs:
            feeder, left = self._feeders.draw(self._rngs[env], options)
            drawn.setdefault(feeder, []).append(env)
        for group in self._groups:
            group.release(envs)
        for feeder, own in drawn.items():
            for group in [group for group in self._groups if group.feeder == feeder]:
                rows = group.take(own)
                if rows:
                    group.start(rows, [self._rngs[env] for env in own[: len(rows)]], left)
                own = own[len(rows) :]
            if own:  # more than were ever drawn at once
                group = self._add(feeder, len(own))
                group.start(group.take(own), [self._rngs[env] for env in own], left)

    def _show(self) -> None:
        board = self.board
        for group in self._groups:
            if not len(group.rows):
                continue
            envs, rows = group.theirs, group.rows
            board.observations[envs, : group.width] = group.view.gather()[rows]
            board.observations[envs, group.width :] = 0.0
            board.observed[envs] = group.width
            board.day[envs] = group.task.simulation.day[rows]
            board.worst_node[envs] = self._worst_nodes(group, rows)
        if self._masks:
            self.reach()

    def _write_finals(self, group: _Group, over: BoolArray) -> None:
        board, rows = self.board, group.rows[over[group.theirs]]
        envs = group.envs[rows]
        if not len(envs):
            return
        board.final_observations[envs, : group.width] = group.view.gather()[rows]
        board.final_observations[envs, group.width :] = 0.0
        board.final_observed[envs] = group.width
        group.write_infos(board.final_infos, rows)
        board.final_days[envs] = group.task.simulation.day[rows]
        board.final_worst_nodes[envs] = self._worst_nodes(group, rows)
        if self._masks:
            group.write_reach(board.final_least, board.final_most, rows)

    def _worst_nodes(self, group: _Group, rows: IntArray) -> IntArray | int:
        # a pass over all nodes, for infos that are not asked for as a rule; they tell the feeder too
        return group.first_node + group.task.metrics.worst_node[rows] if self._names else 0

    def _group(self, feeder: str, task: GridTask) -> _Group:
        task.simulation.first_env = self._first
        first_node = self._first_nodes[feeder]
        return _Group(feeder, task, self.task, self._columns[feeder], self._layout, first_node)

    def _add(self, feeder: str, n_rows: int) -> _Group:
        """Return a group of so many more rows of a feeder."""
        group = self._group(feeder, GridTask(self._feeders.scenarios[feeder], n_rows))
        if self.task.draws.given:
            group.task.draws.change(self.task.draws.given)
        self._groups.append(group)
        return group


def _action_columns(task: GridTask) -> IntArray:
    """Return the columns of the action vector that agents set, agent by agent."""
    return np.concatenate([part for agent in task.agents for part in (agent.continuous, agent.discrete)])
