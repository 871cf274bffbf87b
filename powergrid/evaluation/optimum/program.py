"""A day's decisions as a linear program: how much better a day can be made by small changes, as far as slopes hold."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from powergrid.evaluation.optimum.stacked import StackedDay, Trajectory

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: By how much an action is changed to see what follows, of -1..1, and what is carried, of its range.
_SMALL, _SMALL_CARRIED = 0.02, 0.01
#: What nothing feeds has less voltage, and what an action moves by less it does not move [pu].
_DEAD_PU, _STILL_PU = 1e-3, 1e-9
#: How long the search for whole positions may take [s], and how near to the best it has to come.
_SEARCH_S, _GAP = 2.0, 1e-3


@dataclass(frozen=True)
class Slopes:
    """What follows from small changes of each action, up and down, and of what is carried, at every step.

    Attributes:
        smooth: Reward for each unit, shape (2, n_actions, n_steps); the second for each unit downwards.
        levels: Voltages and loadings, shape (2, n_actions, n_steps, n_levels).
        carried: What is carried on, shape (2, n_actions, n_steps, n_carried).
        smooth_carried, levels_carried, carried_carried: The same for each unit of what is carried, up and down.
        base: Levels as they are, shape (n_steps, n_levels).
        held: What is carried on as it is, shape (n_steps, n_carried).
    """

    smooth: FloatArray
    levels: FloatArray
    carried: FloatArray
    smooth_carried: FloatArray
    carried_carried: FloatArray
    base: FloatArray
    held: FloatArray


def find_slopes(day: StackedDay, trajectory: Trajectory) -> Slopes:
    """Change every action at every step a little, up and down, and see what follows."""
    state, actions = day.stand(trajectory), trajectory.actions
    base = day.step(state, actions)
    steps, n_actions = actions.shape
    n_levels, n_carried = base.levels.shape[1], base.carried.shape[1]
    smooth, levels = np.zeros((2, n_actions, steps)), np.zeros((2, n_actions, steps, n_levels))
    carried = np.zeros((2, n_actions, steps, n_carried))
    for column, spec in enumerate(day.task.simulation.actions):
        if day.left[column]:
            continue
        low, high = (0.0, spec.n - 1.0) if spec.discrete else (-1.0, 1.0)
        for way, sign in enumerate((1.0, -1.0)):
            moved = np.clip(actions[:, column] + sign * (1.0 if spec.discrete else _SMALL), low, high)
            changed = actions.copy()
            changed[:, column] = moved
            found = base.slope_to(day.step(state, changed), moved - actions[:, column])
            smooth[way, column], levels[way, column], carried[way, column] = found
    smooth_carried, carried_carried = np.zeros((n_carried, steps)), np.zeros((n_carried, steps, n_carried))
    for which in range(n_carried):
        change = np.full(steps, _SMALL_CARRIED * (day.carried_high[which] - day.carried_low[which]))
        sides = []
        for sign in (1.0, -1.0):
            own, _, on = base.slope_to(day.step(day.carry(state, which, sign * change), actions), sign * change)
            sides.append((sign * own, sign * on))
        # Where a limit stops one side, actions give way there; the other is what the program's own bounds go on from.
        upper = sides[0][1][:, which] >= sides[1][1][:, which]
        smooth_carried[which] = np.where(upper, sides[0][0], sides[1][0])
        carried_carried[which] = np.where(upper[:, None], sides[0][1], sides[1][1])
    return Slopes(smooth, levels, carried, smooth_carried, carried_carried, base.levels, base.carried)


class _Program:
    """A linear program that is put together part by part; costs are made least."""

    def __init__(self) -> None:
        self._cost: list[FloatArray] = []
        self._bounds: list[tuple[FloatArray, FloatArray]] = []
        self._rows: list[tuple[FloatArray, FloatArray]] = []
        self._parts: list[tuple[IntArray, IntArray, FloatArray]] = []
        self.n_columns = self.n_rows = 0

    def columns(self, cost: FloatArray, low: FloatArray, high: FloatArray) -> IntArray:
        """Add unknowns with their costs and bounds, of one shape; return their numbers in it."""
        numbers = self.n_columns + np.arange(cost.size).reshape(cost.shape)
        self.n_columns += cost.size
        self._cost.append(cost.ravel())
        self._bounds.append((low.ravel(), high.ravel()))
        return numbers

    def rows(self, low: FloatArray, high: FloatArray) -> IntArray:
        """Add rows with their bounds; return their numbers."""
        numbers = self.n_rows + np.arange(len(low))
        self.n_rows += len(low)
        self._rows.append((low, high))
        return numbers

    def put(self, rows: IntArray, columns: IntArray, values: FloatArray | float) -> None:
        """Put one value in each of some rows."""
        values = np.broadcast_to(np.asarray(values, dtype=np.float64), rows.shape)
        told = values != 0.0
        self._parts.append((rows[told], columns[told], values[told]))

    def solve(self, whole: IntArray) -> tuple[FloatArray, float] | None:
        """Return the unknowns and their cost, ``whole`` ones as whole numbers where that is found in time."""
        cost, (low, high) = np.concatenate(self._cost), map(np.concatenate, zip(*self._bounds, strict=True))
        rows, columns, values = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        matrix = sparse.csr_array((values, (rows, columns)), shape=(self.n_rows, self.n_columns))
        least, most = map(np.concatenate, zip(*self._rows, strict=True))
        constraint, bounds, found = LinearConstraint(matrix, least, most), Bounds(low, high), None
        if len(whole):
            integrality = np.zeros(self.n_columns, dtype=np.int64)
            integrality[whole] = 1
            limits: Any = {"time_limit": _SEARCH_S, "mip_rel_gap": _GAP}
            with _no_stdout():
                found = milp(cost, integrality=integrality, bounds=bounds, constraints=constraint, options=limits)
        if found is None or found.x is None:
            found = milp(cost, bounds=bounds, constraints=constraint)
        return None if found.x is None else (found.x, float(found.fun))


def improve(day: StackedDay, trajectory: Trajectory, slopes: Slopes, radius: FloatArray) -> tuple[FloatArray, float]:
    """Return the changes of the actions that promise most, and what they promise.

    Args:
        day: The day.
        trajectory: What was played.
        slopes: What follows from small changes of it.
        radius: How far each action may change, shape (n_actions,).

    Returns:
        Changes, shape (n_steps, n_actions), and the reward that they add if slopes hold.
    """
    actions, specs, program = trajectory.actions, day.task.simulation.actions, _Program()
    top = np.array([spec.n - 1.0 if spec.discrete else 1.0 for spec in specs])
    bottom = np.array([0.0 if spec.discrete else -1.0 for spec in specs])
    room = np.stack([np.minimum(top - actions, radius), np.minimum(actions - bottom, radius)])
    # changes upwards, then downwards, shape (2, n_steps, n_actions)
    at = program.columns(-slopes.smooth.swapaxes(1, 2), np.zeros_like(room), np.maximum(room, 0.0))
    kept = _carry_on(program, day, slopes, at)
    _hold_limits(program, day, slopes, at, np.minimum(radius, top - bottom))
    _end_as_begun(program, day, slopes, kept)
    _count_moves(program, day, actions, at)
    # Only where moves are counted does it matter that positions are whole: a level of power is rounded.
    found = program.solve(at[:, :, [column for column, _ in day.gear]].ravel())
    if found is None:
        return np.zeros_like(actions), 0.0
    chosen, cost = found
    return chosen[at[0]] - chosen[at[1]], _cost_now(day, slopes, actions) - cost


def _carry_on(program: _Program, day: StackedDay, slopes: Slopes, at: IntArray) -> IntArray:
    """Say what is carried on from each step: what came, and what was done; return the unknowns."""
    steps, n_carried = slopes.held.shape
    # it counts in the next step, and what the last one leaves is worth something
    worth = np.vstack([slopes.smooth_carried.T[1:], day.left_value[None, :]])
    low, high = np.minimum(day.carried_low - slopes.held, 0.0), np.maximum(day.carried_high - slopes.held, 0.0)
    kept = program.columns(-worth, low, high)
    for own in range(n_carried):
        rows = program.rows(np.zeros(steps), np.zeros(steps))
        program.put(rows, kept[:, own], 1.0)
        for came in range(n_carried):
            program.put(rows[1:], kept[:-1, came], -slopes.carried_carried[came, 1:, own])
        for column in range(at.shape[2]):
            for way in (0, 1):
                program.put(rows, at[way, :, column], -slopes.carried[way, column, :, own])
    return kept


def _hold_limits(program: _Program, day: StackedDay, slopes: Slopes, at: IntArray, radius: FloatArray) -> None:
    """Price what is beyond a limit, of every voltage and loading that can come there."""
    reach = np.einsum("ats,a->ts", np.abs(slopes.levels).max(axis=0), radius)
    fed = slopes.base > _DEAD_PU
    for sign, limit in ((1.0, day.high), (-1.0, day.low)):
        excess = sign * (slopes.base - limit)
        step, level = np.nonzero((excess > -reach) & (reach > _STILL_PU) & (day.weights > 0.0) & fed)
        beyond = program.columns(day.weights[level], np.zeros(len(step)), np.full(len(step), np.inf))
        rows = program.rows(np.full(len(step), -np.inf), -excess[step, level])
        program.put(rows, beyond, -1.0)
        for column in range(at.shape[2]):
            for way in (0, 1):
                program.put(rows, at[way, step, column], sign * slopes.levels[way, column, step, level])


def _end_as_begun(program: _Program, day: StackedDay, slopes: Slopes, kept: IntArray) -> None:
    """Price how far batteries end from where they started."""
    if not day.left_weight.any():
        return
    nothing = np.zeros(len(day.left_weight))
    apart, off = program.columns(day.left_weight, nothing, nothing + np.inf), slopes.held[-1] - day.carried_start
    for sign in (1.0, -1.0):
        rows = program.rows(nothing - np.inf, -sign * off)
        program.put(rows, apart, -1.0)
        program.put(rows, kept[-1], sign)


def _count_moves(program: _Program, day: StackedDay, actions: FloatArray, at: IntArray) -> None:
    """Price each move of gear from where it stands."""
    nothing = np.zeros(len(actions))
    for column, price in day.gear:
        moves = program.columns(nothing + price, nothing, nothing + np.inf)
        before = np.diff(actions[:, column], prepend=day.gear_start[column])
        for sign in (1.0, -1.0):
            rows = program.rows(nothing - np.inf, -sign * before)
            program.put(rows, moves, -1.0)
            for way, direction in ((0, sign), (1, -sign)):
                program.put(rows, at[way, :, column], direction)
                program.put(rows[1:], at[way, :-1, column], -direction)


def _cost_now(day: StackedDay, slopes: Slopes, actions: FloatArray) -> float:
    """Return what a program costs in which nothing is changed: what is beyond limits, left and moved as it is."""
    v = slopes.base
    beyond = np.maximum(v - day.high, 0.0) + np.where(v > _DEAD_PU, np.maximum(day.low - v, 0.0), 0.0)
    apart = np.abs(slopes.held[-1] - day.carried_start) @ day.left_weight
    moved = [np.abs(np.diff(actions[:, column], prepend=day.gear_start[column])).sum() for column, _ in day.gear]
    return float((beyond * day.weights).sum() + apart + np.dot(moved, [price for _, price in day.gear]))


@contextmanager
def _no_stdout() -> Iterator[None]:
    """Let nothing through to standard output meanwhile: HiGHS prints lines there that nobody can switch off."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
