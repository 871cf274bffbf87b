"""A day's decisions as a linear program: how much better a day can be made by small changes, as far as slopes hold."""

from __future__ import annotations

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
#: How long the search for whole positions may take [s], and how near to the best it has to come.
_SEARCH_S, _GAP = 5.0, 1e-3


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
        low, high = (0.0, spec.n - 1.0) if spec.discrete else (-1.0, 1.0)
        for way, sign in enumerate((1.0, -1.0)):
            moved = np.clip(actions[:, column] + sign * (1.0 if spec.discrete else _SMALL), low, high)
            changed = actions.copy()
            changed[:, column] = moved
            found = base.slope_to(day.step(state, changed), moved - actions[:, column])
            smooth[way, column], levels[way, column], carried[way, column] = found
    smooth_carried, carried_carried = np.zeros((n_carried, steps)), np.zeros((n_carried, steps, n_carried))
    for which in range(n_carried):
        span = day.carried_high[which] - day.carried_low[which]
        change = np.full(steps, _SMALL_CARRIED * (span if np.isfinite(span) else 10.0))
        sides = []
        for sign in (1.0, -1.0):
            own, _, on = base.slope_to(day.step(day.carry(state, which, sign * change), actions), sign * change)
            sides.append((sign * own, sign * on))
        # Where a limit stops one side, actions give way there; the other is what the program's own bounds go on from.
        upper = sides[0][1][:, which] >= sides[1][1][:, which]
        smooth_carried[which] = np.where(upper, sides[0][0], sides[1][0])
        carried_carried[which] = np.where(upper[:, None], sides[0][1], sides[1][1])
    return Slopes(smooth, levels, carried, smooth_carried, carried_carried, base.levels, base.carried)


class _Rows:
    """Gather the rows of a sparse matrix."""

    def __init__(self) -> None:
        self._parts: list[tuple[IntArray, IntArray, FloatArray]] = []
        self.low: list[FloatArray] = []
        self.high: list[FloatArray] = []
        self.n = 0

    def open(self, low: FloatArray, high: FloatArray) -> IntArray:
        """Add rows with their bounds; return their numbers."""
        rows = np.arange(self.n, self.n + len(low))
        self.n += len(low)
        self.low.append(low)
        self.high.append(high)
        return rows

    def put(self, rows: IntArray, columns: IntArray, values: FloatArray | float) -> None:
        """Put one value in each of some rows."""
        values = np.broadcast_to(np.asarray(values, dtype=np.float64), rows.shape)
        told = values != 0.0
        self._parts.append((rows[told], columns[told], values[told]))

    def constraint(self, n_columns: int) -> LinearConstraint | None:
        """Return all rows as one constraint."""
        if not self.n:
            return None
        rows, columns, values = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        matrix = sparse.csr_array((values, (rows, columns)), shape=(self.n, n_columns))
        return LinearConstraint(matrix, np.concatenate(self.low), np.concatenate(self.high))


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
    actions = trajectory.actions
    steps, n = actions.shape
    specs = day.task.simulation.actions
    top = np.array([spec.n - 1.0 if spec.discrete else 1.0 for spec in specs])
    bottom = np.array([0.0 if spec.discrete else -1.0 for spec in specs])
    up = np.clip(np.minimum(top - actions, radius), 0.0, None)
    down = np.clip(np.minimum(actions - bottom, radius), 0.0, None)
    size, n_carried = steps * n, slopes.held.shape[1]
    at = np.arange(size).reshape(steps, n)  # of a change upwards; that downwards is ``size`` further
    kept = 2 * size + np.arange(steps * n_carried).reshape(steps, n_carried)
    cost = [-slopes.smooth[0].T.ravel(), -slopes.smooth[1].T.ravel(), np.zeros(steps * n_carried)]
    lowest = [np.zeros(2 * size), np.minimum(day.carried_low - slopes.held, 0.0).ravel()]
    highest = [up.ravel(), down.ravel(), np.maximum(day.carried_high - slopes.held, 0.0).ravel()]
    rows, n_columns = _Rows(), 2 * size + steps * n_carried
    _carry_on(rows, slopes, at, size, kept)
    # what is carried from a step counts in the next
    cost[2] = np.vstack([-slopes.smooth_carried.T[1:], -day.left_value[None, :]]).ravel()
    reach = np.einsum("ats,a->ts", np.abs(slopes.levels).max(axis=0), np.minimum(radius, top - bottom))
    for sign, limit in ((1.0, day.high), (-1.0, day.low)):
        excess = sign * (slopes.base - limit)
        near = (excess > -reach) & (day.weights > 0.0) & (reach > 1e-9) & np.isfinite(limit) & (slopes.base > 1e-3)
        step, level = np.nonzero(near)
        beyond = n_columns + np.arange(len(step))
        own = rows.open(np.full(len(step), -np.inf), -excess[step, level])
        rows.put(own, beyond, -1.0)
        for column in range(n):
            for way in (0, 1):
                rows.put(own, way * size + at[step, column], sign * slopes.levels[way, column, step, level])
        cost.append(day.weights[level])
        lowest.append(np.zeros(len(step)))
        highest.append(np.full(len(step), np.inf))
        n_columns += len(step)
        # what is beyond now is counted in the reward already
    if day.left_weight.any():  # how far batteries end from where they started
        off = slopes.held[-1] - day.carried_start
        apart = n_columns + np.arange(n_carried)
        for sign in (1.0, -1.0):
            own = rows.open(np.full(n_carried, -np.inf), -sign * off)
            rows.put(own, apart, -1.0)
            rows.put(own, kept[-1], sign)
        cost.append(day.left_weight)
        lowest.append(np.zeros(n_carried))
        highest.append(np.full(n_carried, np.inf))
        n_columns += n_carried
    moves = _count_moves(rows, day, actions, at, size, n_columns)
    if len(moves):
        cost.append(moves)
        lowest.append(np.zeros(len(moves)))
        highest.append(np.full(len(moves), np.inf))
        n_columns += len(moves)
    whole = np.zeros(n_columns)
    gear = np.array([spec.discrete for spec in specs])
    whole[: 2 * size] = np.tile(np.tile(gear, steps), 2)
    found = milp(
        np.concatenate(cost),
        integrality=whole if gear.any() else None,
        bounds=Bounds(np.concatenate(lowest), np.concatenate(highest)),
        constraints=rows.constraint(n_columns),
        options={"time_limit": _SEARCH_S, "mip_rel_gap": _GAP},
    )
    if found.x is None:
        return np.zeros_like(actions), 0.0
    change = (found.x[:size] - found.x[size : 2 * size]).reshape(steps, n)
    now = _now(day, slopes, actions)
    return change, now - float(found.fun)


def _now(day: StackedDay, slopes: Slopes, actions: FloatArray) -> float:
    """Return what is beyond limits and moved as it is, of what the program's cost counts."""
    v = slopes.base
    beyond = np.maximum(v - day.high, 0.0) + np.where(v > 1e-3, np.maximum(day.low - v, 0.0), 0.0)
    apart = np.abs(slopes.held[-1] - day.carried_start) @ day.left_weight
    return float((beyond * day.weights).sum()) + float(apart) + _moved(day, actions)


def _carry_on(rows: _Rows, slopes: Slopes, at: IntArray, size: int, kept: IntArray) -> None:
    """Say what is carried on from each step: what came, and what was done."""
    steps, n_carried = kept.shape
    for own in range(n_carried):
        numbers = rows.open(np.zeros(steps), np.zeros(steps))
        rows.put(numbers, kept[:, own], 1.0)
        for came in range(n_carried):
            rows.put(numbers[1:], kept[:-1, came], -slopes.carried_carried[came, 1:, own])
        for column in range(at.shape[1]):
            for way in (0, 1):
                rows.put(numbers, way * size + at[:, column], -slopes.carried[way, column, :, own])


def _gear(day: StackedDay) -> list[tuple[int, float, float]]:
    """Return the column of each action of gear that wears, what a move costs, and where it starts."""
    fleets = {name: (fleet, i) for fleet in day.task.simulation.fleets for i, name in enumerate(fleet.names)}
    found = []
    for column, spec in enumerate(day.task.simulation.actions):
        fleet, place = fleets[spec.device]
        price = getattr(fleet.specs[place], "cost_usd_per_operation", 0.0)
        if spec.discrete and price:
            found.append((column, float(price) * day.move_weight, float(fleet._initial[0, place] - fleet._low[0, place])))
    return found


def _moved(day: StackedDay, actions: FloatArray) -> float:
    return sum(
        float(np.abs(np.diff(actions[:, column], prepend=start)).sum()) * price for column, price, start in _gear(day)
    )


def _count_moves(rows: _Rows, day: StackedDay, actions: FloatArray, at: IntArray, size: int, first: int) -> FloatArray:
    """Add what each move costs; return the costs of the columns that are added."""
    costs: list[Any] = []
    steps = len(actions)
    for column, price, start in _gear(day):
        moves = first + len(costs) * steps + np.arange(steps)
        before = np.diff(actions[:, column], prepend=start)
        for sign in (1.0, -1.0):
            own = rows.open(np.full(steps, -np.inf), -sign * before)
            rows.put(own, moves, -1.0)
            for way, direction in ((0, sign), (1, -sign)):
                rows.put(own, way * size + at[:, column], direction)
                rows.put(own[1:], way * size + at[:-1, column], -direction)
        costs.append(np.full(steps, price))
    return np.concatenate(costs) if costs else np.zeros(0)
