"""A day's decisions as a linear program: how much better a day can be made by small changes, as far as slopes hold.

Each term of the reward is priced here by slopes or by rows of its own; positions of gear and runs of generators are
whole numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.optimum.devices import LEAST_KW, SPAN, Gear, Park, Unit
from powergrid.evaluation.optimum.linear import LinearProgram
from powergrid.evaluation.optimum.slopes import Slopes
from powergrid.evaluation.optimum.stacked import DEAD_PU, StackedDay, Trajectory

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: What an action moves by less it does not move [pu].
_STILL_PU = 1e-9
#: How many nodes the search for whole numbers may take.
_NODES = 1
#: Generators start and stop only where their power may change by so much of -1..1.
_SWITCHING = 0.1


def improve(
    day: StackedDay, trajectory: Trajectory, slopes: Slopes, radius: FloatArray, *, whole: bool = True
) -> tuple[FloatArray, float]:
    """Return the changes of a plan that promise most, and what they promise.

    Args:
        day: The day.
        trajectory: What was played.
        slopes: What follows from small changes of it.
        radius: How far each action may change, shape (n_actions,); generators also between off and the least that they
            run at, where they may change by 0.1 or more.
        whole: Whether positions and runs are whole numbers.

    Returns:
        Changes, shape (n_steps, n_actions), and the reward that they add if slopes hold.
    """
    plan, devices, program = trajectory.plan, day.devices, LinearProgram()
    room = np.stack([np.minimum(devices.high - plan, radius), np.minimum(plan - devices.low, radius)])
    for unit in devices.units:
        room[:, :, unit.at.column] = _room_of_unit(unit, plan[:, unit.at.column], float(radius[unit.at.column]))
    room[:, :, devices.left] = 0.0
    # changes upwards, then downwards, shape (2, n_steps, n_actions)
    at = program.columns(-slopes.smooth.swapaxes(1, 2), 0.0, np.maximum(room, 0.0))
    kept = _carry_on(program, day, slopes, at)
    _hold_limits(program, day, slopes, at, room.max(axis=0))
    _end_as_begun(program, day, slopes, kept)
    _owe_what_can_be_paid(program, day, slopes, kept)
    for gear in devices.gear:
        _count_moves(program, day, gear, plan, at)
    _change_one_of(program, devices.capacitors, at)
    program.make_whole(at[:, :, devices.discrete & ~devices.left])
    for unit in devices.units:
        _run(program, day, unit, plan, at, float(radius[unit.at.column]))
    for park in devices.parks:
        _charge(program, day, park, trajectory, at, float(radius[park.at.column]))
    _cut_peak(program, day, slopes, at)
    found = program.solve(_NODES if whole else 0)
    if found is None:
        return np.zeros_like(plan), 0.0
    chosen, cost = found
    promised = _cost_now(day, slopes, plan) - cost
    if promised <= 0.0:  # a search for whole numbers that is cut short may find less than there is
        return np.zeros_like(plan), 0.0
    return chosen[at[0]] - chosen[at[1]], promised


def price(day: StackedDay, trajectory: Trajectory, slopes: Slopes) -> float:
    """Return what a program says that a day is worth as it is: the sum of all terms as it prices them."""
    came = np.array([float(each.at.of(day.begin, each.name)) for each in day.devices.carried])
    left = (slopes.base.carried[-1] - came) @ day.left_value
    return float(slopes.base.smooth.sum() + left) - _cost_now(day, slopes, trajectory.plan)


def _carry_on(program: LinearProgram, day: StackedDay, slopes: Slopes, at: IntArray) -> IntArray:
    """Say what is carried on from each step: what came, and what was done; return the unknowns."""
    held = slopes.base.carried
    steps, n_carried = held.shape
    # it counts in the next step, and what the last one leaves is worth something
    worth = np.vstack([slopes.smooth_carried.T[1:], day.left_value[None, :]])
    low, high = (np.array([getattr(each, name) for each in day.devices.carried]) for name in ("low", "high"))
    kept = program.columns(-worth, np.minimum(low - held, 0.0), np.maximum(high - held, 0.0))
    for own in range(n_carried):
        rows = program.rows(np.zeros(steps), np.zeros(steps))
        program.put(rows, kept[:, own], 1.0)
        for came in range(n_carried):
            program.put(rows[1:], kept[:-1, came], -slopes.carried_carried[came, 1:, own])
        for column in range(at.shape[2]):
            for way in (0, 1):
                program.put(rows, at[way, :, column], -slopes.carried[way, column, :, own])
    return kept


def _hold_limits(program: LinearProgram, day: StackedDay, slopes: Slopes, at: IntArray, room: FloatArray) -> None:
    """Price what is beyond a limit, of every voltage and loading that can come there."""
    levels = slopes.base.levels
    reach = np.einsum("ats,ta->ts", np.abs(slopes.levels).max(axis=0), room)
    for sign, limit in ((1.0, day.high), (-1.0, day.low)):
        excess = sign * (levels - limit)
        near = (excess > -reach) & (reach > _STILL_PU)
        step, level = np.nonzero(near & (day.weights > 0.0) & (levels > DEAD_PU))
        beyond = program.columns(day.weights[level], 0.0, np.inf)
        rows = program.rows(np.full(len(step), -np.inf), -excess[step, level])
        program.put(rows, beyond, -1.0)
        for column in range(at.shape[2]):
            for way in (0, 1):
                program.put(rows, at[way, step, column], sign * slopes.levels[way, column, step, level])


def _end_as_begun(program: LinearProgram, day: StackedDay, slopes: Slopes, kept: IntArray) -> None:
    """Price how far batteries end from where they started."""
    if not day.left_weight.any():
        return
    apart, off = program.columns(day.left_weight, 0.0, np.inf), slopes.base.carried[-1] - day.carried_start
    for sign in (1.0, -1.0):
        rows = program.rows(np.full(len(off), -np.inf), -sign * off)
        program.put(rows, apart, -1.0)
        program.put(rows, kept[-1], sign)


def _owe_what_can_be_paid(program: LinearProgram, day: StackedDay, slopes: Slopes, kept: IntArray) -> None:
    """Price what customers are owed after the last step beyond what can still be paid back."""
    own = np.flatnonzero(np.isfinite(day.payable_kwh))
    if not len(own):
        return
    overdue = program.columns(day.overdue_weight[own], 0.0, np.inf)
    rows = program.rows(np.full(len(own), -np.inf), (day.payable_kwh - slopes.base.carried[-1])[own])
    program.put(rows, overdue, -1.0)
    program.put(rows, kept[-1, own], 1.0)


def _moves(day: StackedDay, gear: Gear, plan: FloatArray) -> FloatArray:
    """Return how far gear moves in each step, up or down, from where it stands before the first."""
    action = day.task.simulation.actions[gear.at.column]
    stands = float(gear.at.of(day.begin, "previous_position")) - action.low
    return np.diff(plan[:, gear.at.column], prepend=stands)


def _count_moves(program: LinearProgram, day: StackedDay, gear: Gear, plan: FloatArray, at: IntArray) -> None:
    """Price each move of gear from where it stands, and keep to how far and how often it may."""
    before, column, steps = _moves(day, gear, plan), gear.at.column, len(plan)
    most = np.full(steps, max(gear.most_at_once, float(np.abs(before).max())))
    most[: int(gear.at.of(day.begin, "locked_steps"))] = 0.0
    moves = program.columns(np.full(steps, gear.price), 0.0, np.maximum(most, np.abs(before)))
    for sign in (1.0, -1.0):
        rows = program.rows(np.full(steps, -np.inf), -sign * before)
        program.put(rows, moves, -1.0)
        for way, direction in ((0, sign), (1, -sign)):
            program.put(rows, at[way, :, column], direction)
            program.put(rows[1:], at[way, :-1, column], -direction)
    if np.isfinite(gear.most_per_day):
        program.put(np.repeat(program.rows([-np.inf], [gear.most_per_day]), steps), moves, 1.0)
    if gear.dwell_steps and day.devices.high[column] == 1.0:  # one move takes all that a switch has
        for first in range(steps - 1):
            window = moves[first : first + gear.dwell_steps + 1]
            program.put(np.repeat(program.rows([-np.inf], [1.0]), len(window)), window, 1.0)


def _change_one_of(program: LinearProgram, columns: tuple[int, ...], at: IntArray) -> None:
    """Let one of several actions change in a step: two bring something else together than the sum of each alone."""
    if len(columns) > 1:
        rows = program.rows(np.full(at.shape[1], -np.inf), np.ones(at.shape[1]))
        for column in columns:
            for way in (0, 1):
                program.put(rows, at[way, :, column], 1.0)


def _room_of_unit(unit: Unit, plan: FloatArray, radius: float) -> FloatArray:
    """Return how far a generator may go up and down, shape (2, n_steps)."""
    power = plan + 1.0
    on = power > unit.least - 1e-9
    up = np.where(on, np.minimum(SPAN - power, radius), min(SPAN, unit.least + radius))
    return np.stack([up, power]) * (radius > 0.0)


def _runs(unit: Unit, plan: FloatArray) -> FloatArray:
    on: FloatArray = (plan[:, unit.at.column] + 1.0 > max(unit.least, 1e-9) - 1e-9).astype(np.float64)
    return on


def _run(program: LinearProgram, day: StackedDay, unit: Unit, plan: FloatArray, at: IntArray, radius: float) -> None:
    """Price starts and steps of a generator, which is off or gives at least its least."""
    now, column, steps = plan[:, unit.at.column] + 1.0, unit.at.column, len(plan)
    on = _runs(unit, plan)
    may = radius >= _SWITCHING
    runs = program.columns(np.full(steps, unit.step_price), on * (not may), np.maximum(on, float(may)), whole=may)
    starts = program.columns(np.full(steps, unit.start_price), 0.0, 1.0)
    came = np.zeros(steps)
    came[0] = float(unit.at.of(day.begin, "on"))
    rows = program.rows(-came, np.full(steps, np.inf))  # starts - runs + runs before >= 0
    program.put(rows, starts, 1.0)
    program.put(rows, runs, -1.0)
    program.put(rows[1:], runs[:-1], 1.0)
    least = np.where(on > 0.0, np.maximum(unit.least, now - radius), unit.least)
    most = np.where(on > 0.0, np.minimum(SPAN, now + radius), min(SPAN, unit.least + radius))
    for sign, bound in ((1.0, most), (-1.0, least)):
        rows = program.rows(np.full(steps, -np.inf), -sign * now)
        for way, direction in ((0, sign), (1, -sign)):
            program.put(rows, at[way, :, column], direction)
        program.put(rows, runs, -sign * bound)
    if unit.jump < SPAN:
        step = np.maximum(unit.jump, np.abs(np.diff(now)))
        rows = program.rows(-step - np.diff(now), step - np.diff(now))
        for way, direction in ((0, 1.0), (1, -1.0)):
            program.put(rows, at[way, 1:, column], direction)
            program.put(rows, at[way, :-1, column], -direction)


def _charge(
    program: LinearProgram, day: StackedDay, park: Park, trajectory: Trajectory, at: IntArray, radius: float
) -> None:
    """Share a car park's power out to its cars, each from its coming to its leaving; price what it leaves without."""
    plan = trajectory.plan
    cars = [car for car in park.cars(day.begin, len(plan)) if car[1] > car[0]]
    of_step = program.rows(*[-(plan[:, park.at.column] + 1.0) * park.half_kw] * 2)
    for way, sign in ((0, park.half_kw), (1, -park.half_kw)):
        program.put(of_step, at[way, :, park.at.column], sign)
    if not cars:
        return
    begin, end, asked, later, port = (np.array(each) for each in zip(*cars, strict=True))
    lengths = (end - begin).astype(np.int64)
    car = np.repeat(np.arange(len(cars)), lengths)
    step = np.concatenate([np.arange(*each) for each in zip(begin, end, strict=True)])
    leaves = (step + 1 == end[car]) & (later[car] == 0.0)
    low, high = _shares_of_cars(park, trajectory, radius * park.half_kw, step, port[car], leaves)
    power = program.columns(np.zeros(len(car)), low, high)
    program.put(of_step[step], power, -1.0)
    # what a car gets and lacks; the grid may have delivered a little more than was asked
    short, over = (program.columns(np.full(len(cars), day.weight_of["unserved_kwh"]), 0.0, np.inf) for _ in range(2))
    of_car = program.rows(np.maximum(asked - later, 0.0), asked)
    program.put(of_car[car], power, park.kwh_per_kw)
    program.put(of_car, short, 1.0)
    program.put(of_car, over, -1.0)


def _shares_of_cars(
    park: Park, trajectory: Trajectory, reach_kw: float, step: IntArray, port: IntArray, leaves: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Return between what the power of each car may be in each of its steps [kW].

    Where a park's power changes by less than a port's, the cars alone change whose turn it is; wider changes may bring
    any order. What a car got in the step in which it leaves is not known.
    """
    low, high = np.zeros(len(step)), np.full(len(step), park.port_kw)
    if reach_kw < park.port_kw:
        known = np.flatnonzero(~leaves)
        got, more, less = (each[step[known], port[known]] for each in park.shares((*trajectory.states, trajectory.end)))
        low[known] = np.maximum(got - reach_kw * less - LEAST_KW, 0.0)
        high[known] = np.minimum(got + reach_kw * more + LEAST_KW * (got > LEAST_KW), park.port_kw)
    return low, high


def _cut_peak(program: LinearProgram, day: StackedDay, slopes: Slopes, at: IntArray) -> None:
    """Price how far the highest import rises above what it was before the first step."""
    weight, steps = day.weight_of["peak_rise_kw"], len(slopes.base.import_kw)
    if not weight:
        return
    peak = program.columns(np.array([weight]), 0.0, np.inf)
    rows = program.rows(np.full(steps, -np.inf), _peak_before(day) - slopes.base.import_kw)
    program.put(rows, np.repeat(peak, steps), -1.0)
    for column in range(at.shape[2]):
        for way in (0, 1):
            program.put(rows, at[way, :, column], slopes.import_kw[way, column])


def _peak_before(day: StackedDay) -> float:
    return float(day.begin.rewards["peak_kw"][0, 0])


def _cost_now(day: StackedDay, slopes: Slopes, plan: FloatArray) -> float:
    """Return what a program costs in which nothing is changed: all that rows of their own price, as it is."""
    base = slopes.base
    weight_of = day.weight_of
    cost = float(day.price_beyond(base.levels).sum() + np.abs(base.carried[-1] - day.carried_start) @ day.left_weight)
    cost += float(day.overdue_weight @ np.maximum(base.carried[-1] - day.payable_kwh, 0.0))
    for gear in day.devices.gear:
        cost += float(np.abs(_moves(day, gear, plan)).sum()) * gear.price
    for unit in day.devices.units:
        on = _runs(unit, plan)
        starts = np.maximum(np.diff(on, prepend=float(unit.at.of(day.begin, "on"))), 0.0)
        cost += float(starts.sum()) * unit.start_price + float(on.sum()) * unit.step_price
    cost += float(base.unserved_kwh.sum()) * weight_of["unserved_kwh"]
    if weight_of["peak_rise_kw"]:
        cost += max(float(base.import_kw.max()) - _peak_before(day), 0.0) * weight_of["peak_rise_kw"]
    return cost
