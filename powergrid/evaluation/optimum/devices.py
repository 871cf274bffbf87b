"""What devices mean to a linear program: what they carry from step to step, and what is counted by moves, runs or cars.

All of it is read from the specs and the states of a task; prices are what the reward loses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask, State

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: What batteries and customers carry from step to step, by fleet.
_CARRIED = {"storage": "soc", "flexible_load": "owed_kwh"}
#: How far an action goes from one end to the other.
SPAN = 2.0
#: A car that gets less gets nothing [kW].
LEAST_KW = 1e-3


@dataclass(frozen=True)
class Place:
    """Where a device is: its fleet, its place in it, and, where it acts, the column of its action."""

    fleet: int
    own: int
    column: int = -1

    def of(self, state: State, name: str) -> FloatArray:
        """Return what a state of one environment holds of the device."""
        held: FloatArray = state.simulation["fleets"][self.fleet][name][0, self.own]
        return held


@dataclass(frozen=True)
class Carried:
    """What a battery or a customer carries into the next step: state of charge, or energy owed [kWh].

    Attributes:
        at: The device.
        name: Name of it in the fleet.
        low, high: Between what it stays.
        kwh: Energy of a unit of it, 0 of what is owed.
    """

    at: Place
    name: str
    low: float
    high: float
    kwh: float


@dataclass(frozen=True)
class Gear:
    """What moves in steps, and how it may.

    Attributes:
        at: The device.
        price: What a position moved takes from the reward.
        dwell_steps: Steps that must pass between two steps with a move.
        most_at_once: Most positions moved in a step.
        most_per_day: Most positions moved in a day.
    """

    at: Place
    price: float
    dwell_steps: int
    most_at_once: float
    most_per_day: float


@dataclass(frozen=True)
class Unit:
    """A generator that costs something to start or to keep running; its action counts from 0, off, to 2, all power.

    Attributes:
        at: The device.
        least: Least that it runs at.
        jump: How far it may go up or down in a step.
        start_price, step_price: What a start, and each step of running, takes from the reward.
    """

    at: Place
    least: float
    jump: float
    start_price: float
    step_price: float


@dataclass(frozen=True)
class Park:
    """A car park whose cars give nothing back.

    Attributes:
        at: The device.
        port_kw: Most power of a port [kW].
        half_kw: Half of what all ports take [kW].
        kwh_per_kw: What a car gets in a step for each kW [kWh].
    """

    at: Place
    port_kw: float
    half_kw: float
    kwh_per_kw: float

    def cars(self, state: State, n_steps: int) -> Iterator[tuple[int, int, float, float, int]]:
        """Yield first step, step after the last, energy asked for, what comes in time after [kWh], and port, by car."""
        first = int(state.simulation["clock"]["step_index"][0])
        came, stay = (self.at.of(state, name) for name in ("port_owed_kwh", "port_steps_left"))
        tables = (state.simulation["fleets"][self.at.fleet][name][0] for name in ("arriving_kwh", "stay_steps"))
        arriving, staying = (table[first + 1 : first + n_steps, self.at.own] for table in tables)
        asked, left = np.vstack([came[None], arriving]), np.vstack([stay[None], staying])
        for begin, port in zip(*np.nonzero(asked > 0.0), strict=True):
            end = int(begin + left[begin, port])
            later = max(end - n_steps, 0) * self.port_kw * self.kwh_per_kw
            yield int(begin), min(end, n_steps), float(asked[begin, port]), later, int(port)

    def shares(self, states: Sequence[State]) -> tuple[FloatArray, BoolArray, BoolArray]:
        """Return what the car at each port got between states, and whether it is next to get more, or less.

        The least time to spare is served first, so that little more power goes to a car that got a part of what it can
        take, else to the first of those that got nothing, else to who was full and is so no more; and little less is
        taken from it, else from the last that got all. Each of shape (n_states - 1, n_ports); it holds of cars that are
        there in both states.
        """
        owed, left = (np.array([self.at.of(s, name) for s in states]) for name in ("port_owed_kwh", "port_steps_left"))
        got = np.clip((owed[:-1] - owed[1:]) / self.kwh_per_kw, 0.0, self.port_kw)
        owed, spare = owed[:-1], left[:-1] - owed[:-1] / (self.port_kw * self.kwh_per_kw)
        none, all_ = got < LEAST_KW, got > self.port_kw - LEAST_KW
        part = ~none & ~all_
        between = part & (owed - got * self.kwh_per_kw > LEAST_KW)
        edge = ~between.any(axis=1, keepdims=True)
        waits = none & (owed > 0.0)
        full = none & ~waits & (left[:-1] > 0.0) & ~waits.any(axis=1, keepdims=True)
        first = _only_least(np.where(waits, spare, np.inf)) | full
        last = _only_least(np.where(all_, -spare, np.inf))
        return got, part | (edge & first), part | (edge & last)


def _only_least(values: FloatArray) -> BoolArray:
    """Return of each row which column has the least value, none where all are infinite."""
    found: BoolArray = np.arange(values.shape[1]) == values.argmin(axis=1)[:, None]
    return found & np.isfinite(values)


@dataclass(frozen=True)
class Devices:
    """All devices of a task by what they mean to a program.

    Attributes:
        carried, gear, units, parks: Those of each kind; one may be of two.
        switches: Columns of what opens and closes lines.
        capacitors: Columns of capacitors' steps.
        owned: Whether an action is an agent's, shape (n_actions,); the others are left to themselves.
        left: Whether one is left as a baseline has it, shape (n_actions,): it is nobody's, or that of cars that give
            back.
        discrete: Whether an action is the number of a position, shape (n_actions,).
        low, high: Least and most that each action may be, shape (n_actions,).
    """

    carried: tuple[Carried, ...]
    gear: tuple[Gear, ...]
    units: tuple[Unit, ...]
    parks: tuple[Park, ...]
    switches: tuple[int, ...]
    capacitors: tuple[int, ...]
    owned: BoolArray
    left: BoolArray
    discrete: BoolArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, task: GridTask, weights: Mapping[str, float]) -> Devices:
        """Sort the devices of a task; ``weights`` is what a unit of each term takes from the reward."""
        fleets, actions = task.simulation.fleets, task.simulation.actions
        places = {name: (f, i) for f, fleet in enumerate(fleets) for i, name in enumerate(fleet.names)}
        owned = np.zeros(len(actions), dtype=bool)
        for agent in task.agents:
            owned[np.concatenate([agent.continuous, agent.discrete]).astype(np.int64)] = True
        left = ~owned
        gear, units, parks = list[Gear](), list[Unit](), list[Park]()
        for column, action in enumerate(actions):
            fleet, own = places[action.device]
            at, spec = Place(fleet, own, column), fleets[fleet].specs[own]
            if hasattr(fleets[fleet], "position"):
                gear.append(_gear(at, spec, weights["switching_wear_usd"], action.n - 1.0))
            elif spec.kind == "generator" and action.name == "p_kw":
                units += _units(at, spec, weights["generation_cost_usd"], task.simulation.dt_h)
            elif spec.kind == "ev_charger" and spec.v2g:
                left[column] = True
            elif spec.kind == "ev_charger":
                kwh_per_kw = spec.eta_charge * task.simulation.dt_h
                parks.append(Park(at, spec.p_max_kw, spec.ports * spec.p_max_kw / SPAN, kwh_per_kw))
        discrete = np.array([action.discrete for action in actions], dtype=bool)
        high = np.array([action.n - 1.0 if action.discrete else 1.0 for action in actions])
        carried = tuple(_carried(task))
        switches, capacitors = (
            tuple(each.at.column for each in gear if fleets[each.at.fleet].kind == kind)
            for kind in ("switch", "capacitor")
        )
        low, parts = np.where(discrete, 0.0, -1.0), (carried, tuple(gear), tuple(units), tuple(parks))
        return cls(*parts, switches, capacitors, owned, left, discrete, low, high)


def _carried(task: GridTask) -> Iterator[Carried]:
    for place, fleet in enumerate(task.simulation.fleets):
        name = _CARRIED.get(fleet.kind)
        for own, spec in enumerate(fleet.specs if name else ()):
            at = Place(place, own)
            if fleet.kind == "storage":
                yield Carried(at, "soc", spec.soc_min, spec.soc_max, float(spec.e_max_kwh))
            else:
                yield Carried(at, "owed_kwh", 0.0, float(spec.owed_max_kwh), 0.0)


def _gear(at: Place, spec: Any, weight: float, positions: float) -> Gear:
    at_once = getattr(spec, "moves_per_step", None) or positions
    return Gear(at, weight * spec.cost_usd_per_operation, spec.dwell_steps, at_once, spec.moves_per_day or np.inf)


def _units(at: Place, spec: Any, weight: float, dt_h: float) -> Iterator[Unit]:
    per_kw = SPAN / float(spec.p_max_kw)
    ramp = np.inf if spec.ramp_kw_per_min is None else spec.ramp_kw_per_min * 60.0 * dt_h
    unit = Unit(
        at,
        spec.p_min_kw * per_kw,
        max(spec.p_min_kw, ramp) * per_kw,
        weight * spec.start_cost_usd,
        weight * spec.cost_c_usd_per_h * dt_h,
    )
    if unit.least or unit.start_price or unit.step_price:
        yield unit


def as_actions(task: GridTask, plan: FloatArray) -> FloatArray:
    """Return the actions that do what a plan says, both of shape (n_envs, n_actions).

    They are the plan itself but for car parks. There an action is a part of what those cars can take that are there
    now, so that it means another power with every car that has charged: a plan says the part of all ports' power.
    """
    fleets = task.simulation.fleets
    if not any(fleet.kind == "ev_charger" for fleet in fleets):
        return plan
    actions, places = plan.copy(), {name: (f, i) for f in fleets for i, name in enumerate(f.names)}
    for column, action in enumerate(task.simulation.actions):
        fleet, own = places[action.device]
        if fleet.kind != "ev_charger" or (spec := fleet.specs[own]).v2g:
            continue
        most_kw = fleet.port_owed_kwh[:, own] / (spec.eta_charge * task.simulation.dt_h)
        most_kw = np.minimum(most_kw, spec.p_max_kw).sum(axis=1)
        asked_kw = (plan[:, column] + 1.0) / SPAN * spec.ports * spec.p_max_kw
        share = np.divide(asked_kw, most_kw, out=np.zeros_like(most_kw), where=most_kw > 0.0)
        actions[:, column] = SPAN * np.clip(share, 0.0, 1.0) - 1.0
    return actions
