"""What follows from small changes of a day: every action at every step, up and down, in the environment itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import State
from powergrid.evaluation.optimum.devices import Park, Unit
from powergrid.evaluation.optimum.stacked import Outcome, StackedDay, Trajectory

FloatArray = npt.NDArray[np.float64]

#: By how much an action is changed to see what follows, of -1..1, and what is carried, of its range.
_SMALL, _SMALL_CARRIED = 0.02, 0.01
#: Where an action can change by less, nothing is seen: what the power flow's tolerance leaves open would be a slope.
_LEAST = 1e-3


@dataclass(frozen=True)
class Slopes:
    """What follows from small changes of each action, up and down, and of what is carried, at every step.

    Attributes:
        base: What the steps came to as they were.
        smooth: Reward for each unit, shape (2, n_actions, n_steps); the second for each unit downwards.
        levels: Voltages and loadings, shape (2, n_actions, n_steps, n_levels).
        carried: What is carried on, shape (2, n_actions, n_steps, n_carried).
        import_kw: Power from the source, shape (2, n_actions, n_steps).
        smooth_carried, carried_carried: The same for each unit of what is carried, up and down.
    """

    base: Outcome
    smooth: FloatArray
    levels: FloatArray
    carried: FloatArray
    import_kw: FloatArray
    smooth_carried: FloatArray
    carried_carried: FloatArray


def find_slopes(day: StackedDay, trajectory: Trajectory) -> Slopes:
    """Change every action at every step a little, up and down, and see what follows."""
    state, plan, devices = day.stand(trajectory), trajectory.plan, day.devices
    base = day.step(state, plan)
    steps, n_actions = plan.shape
    n_levels, n_carried = base.levels.shape[1], base.carried.shape[1]
    smooth, levels = np.zeros((2, n_actions, steps)), np.zeros((2, n_actions, steps, n_levels))
    carried, import_kw = np.zeros((2, n_actions, steps, n_carried)), np.zeros((2, n_actions, steps))
    units = {unit.at.column: unit for unit in devices.units}
    parks = {park.at.column: park for park in devices.parks}
    roomy = day.with_room(state) if devices.carried or parks else state
    before = day.step(roomy, plan) if roomy is not state else base
    for column in np.flatnonzero(~devices.left).tolist():
        small = 1.0 if devices.discrete[column] else _SMALL
        found = list[Outcome]()
        for sign in (1.0, -1.0):
            moved = np.clip(plan[:, column] + sign * small, devices.low[column], devices.high[column])
            if column in units:
                moved = _keep_running(units[column], plan[:, column], moved)
            elif column in parks:
                moved = np.minimum(moved, np.maximum(_most(parks[column], state, steps), plan[:, column]))
            found.append(_change(day, roomy, before, plan, column, moved))
        if column in units or column in parks:
            found = _as_one(found)
        for way, own in enumerate(found):
            sign = 1.0 - 2.0 * way
            smooth[way, column], import_kw[way, column] = sign * own.smooth, sign * own.import_kw
            levels[way, column], carried[way, column] = sign * own.levels, sign * own.carried
    of_carried = _change_carried(day, state, base, plan)
    return Slopes(base, smooth, levels, carried, import_kw, *of_carried)


def _change(
    day: StackedDay, state: State, before: Outcome, plan: FloatArray, column: int, moved: FloatArray
) -> Outcome:
    changed = plan.copy()
    moved = np.where(np.abs(moved - plan[:, column]) < _LEAST, plan[:, column], moved)
    changed[:, column] = moved
    if np.array_equal(changed, plan):
        return before.slope_to(before, np.zeros(len(plan)))
    after = day.step(state, changed)
    if column in day.devices.switches:
        # all voltages change, and no two of its positions: what follows for the limits is priced as it is
        beyond = day.price_beyond(after.levels) - day.price_beyond(before.levels)
        after = replace(after, smooth=after.smooth - beyond, levels=before.levels)
    return before.slope_to(after, moved - plan[:, column])


def _keep_running(unit: Unit, now: FloatArray, moved: FloatArray) -> FloatArray:
    """Return how a generator is changed: from where it is off to the least it runs at, else within what it runs at."""
    least = unit.least - 1.0
    off = now < least - 1e-9
    return np.where(off, np.where(moved > now, least, now), np.maximum(moved, least))


def _most(park: Park, state: State, n_steps: int) -> FloatArray:
    """Return the highest that a plan may ask of a park for the cars that are there, shape (n_steps,)."""
    left: FloatArray = state.simulation["fleets"][park.at.fleet]["port_steps_left"][:n_steps, park.at.own]
    most: FloatArray = (left > 0.0).sum(axis=1) * (park.port_kw / park.half_kw) - 1.0
    return most


def _as_one(found: list[Outcome]) -> list[Outcome]:
    """Return for both ways the slope of the one that could be gone, their mean where both could."""
    ways = [own.converged for own in found]
    share = [own / np.maximum(ways[0].astype(float) + ways[1], 1.0) for own in ways]

    def mean(name: str) -> FloatArray:
        parts = [getattr(own, name) for own in found]
        total: FloatArray = sum(
            part * weight.reshape(-1, *(1,) * (part.ndim - 1)) for part, weight in zip(parts, share, strict=True)
        )
        return total

    smooth, levels, carried = mean("smooth"), mean("levels"), mean("carried")
    both = Outcome(smooth, levels, carried, mean("import_kw"), mean("unserved_kwh"), ways[0] | ways[1])
    return [both, both]


def _change_carried(day: StackedDay, state: State, base: Outcome, plan: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Change what is carried at every step a little, and see what follows for the reward and for what is carried on."""
    steps, n_carried = base.carried.shape
    smooth, carried = np.zeros((n_carried, steps)), np.zeros((n_carried, steps, n_carried))
    for which, each in enumerate(day.devices.carried):
        change = np.full(steps, _SMALL_CARRIED * (each.high - each.low))
        sides = [
            base.slope_to(day.step(day.carry(state, which, sign * change), plan), sign * change) for sign in (1.0, -1.0)
        ]
        # Where a limit stops one side, actions give way there; the other is what the program's own bounds go on from.
        upper = sides[0].carried[:, which] >= sides[1].carried[:, which]
        smooth[which] = np.where(upper, sides[0].smooth, sides[1].smooth)
        carried[which] = np.where(upper[:, None], sides[0].carried, sides[1].carried)
    return smooth, carried
