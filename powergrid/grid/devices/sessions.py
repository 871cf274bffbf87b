"""Charging sessions: who comes to which port, how long and for how much energy, drawn for whole episodes at once.

Knows neither power nor the grid; what becomes of the cars is the fleet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from powergrid.grid.devices.spec import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from powergrid.grid.devices.demand import EvChargerSpec

#: Where the normal distributions are cut, in deviations.
_CUT = 4.0


class Visits(NamedTuple):
    """The cars that find a free port during some episodes, each array of shape (n_visits,).

    Attributes:
        place: Episode times number of ports plus port.
        begin: Step from which the car is there, 0 where it came before the episode.
        end: Step at which it leaves, maybe after the episode.
        energy_kwh: Energy it asks for in the episode [kWh].
    """

    place: IntArray
    begin: IntArray
    end: IntArray
    energy_kwh: FloatArray


class Sessions:
    """Draw the charging sessions of stations, all their ports and any number of episodes in one pass.

    A car that finds its port taken goes elsewhere. A car asks for no more than full power can give during
    its stay. A car that came before the episode is there at step 0 and asks for the part of its energy that
    belongs to the rest of its stay.

    Args:
        specs: The stations.
        dt_h: Length of a step [h].
        horizon_steps: Steps of an episode.
        start_hour: Hour of the day of step 0 [h].
    """

    def __init__(self, specs: Sequence[EvChargerSpec], dt_h: float, horizon_steps: int, start_hour: float) -> None:
        self._horizon, self._dt_h, self._start_hour = horizon_steps, dt_h, start_hour
        sizes = [spec.ports for spec in specs]
        self.n_ports = sum(sizes)

        def of_ports(key: str) -> FloatArray:
            return np.repeat(np.array([getattr(spec, key) for spec in specs], dtype=np.float64), sizes)[:, None]

        arrival_std, stay_std, stay_mean = (
            of_ports("arrival_hour_std"),
            of_ports("stay_hours_std"),
            of_ports("stay_hours_mean"),
        )
        arrival_mean, reach = of_ports("arrival_hour_mean"), _CUT * arrival_std
        first_day, last_day = find_days(
            start_hour - dt_h,
            start_hour + (horizon_steps + 1) * dt_h,
            np.stack([arrival_mean - reach, arrival_mean + reach]),
            np.maximum(stay_mean + _CUT * stay_std, dt_h),
        )
        per_day = max(int(np.ceil(spec.sessions_per_day)) for spec in specs)
        day = np.repeat(np.arange(first_day, last_day + 1), per_day)
        self._shape = (self.n_ports, len(day))
        # constants have the full shape (n_ports, n_draws): a ufunc that broadcasts takes twice the time on so little
        self._per_day, self._sessions_per_day = float(per_day), self._fill(of_ports("sessions_per_day"))
        # arrival, stay and energy are each a mean plus a deviation times what is drawn, shape (3, n_ports, n_draws)
        means = (day * 24 + arrival_mean, stay_mean, of_ports("energy_kwh_mean"))
        self._mean = np.stack([self._fill(mean) for mean in means])
        self._std = np.stack([self._fill(std) for std in (arrival_std, stay_std, of_ports("energy_kwh_std"))])
        self._p_max_kw, self._eta = self._fill(of_ports("p_max_kw")), self._fill(of_ports("eta_charge"))
        # one draw a day that never reaches into the next day's comes in order of arrival already
        self._in_order = per_day <= 1 and 2.0 * _CUT * float(arrival_std.max()) <= 24.0

    def _fill(self, values: FloatArray) -> FloatArray:
        return np.array(np.broadcast_to(values, self._shape))

    def draw(self, rngs: Sequence[np.random.Generator]) -> Visits:
        """Draw the visits of one episode from each generator."""
        shape = (len(rngs), *self._shape)
        chance, drawn = np.empty(shape), np.empty((len(rngs), 3, *self._shape))
        for i, rng in enumerate(rngs):
            rng.random(out=chance[i])
            rng.standard_normal(out=drawn[i])
        np.minimum(np.maximum(drawn, -_CUT, out=drawn), _CUT, out=drawn)
        np.multiply(drawn, self._std, out=drawn)
        np.add(drawn, self._mean, out=drawn)
        arrive, stay, energy = drawn[:, 0], drawn[:, 1], drawn[:, 2]
        comes = np.multiply(chance, self._per_day, out=chance) < self._sessions_per_day
        np.divide(np.subtract(arrive, self._start_hour, out=arrive), self._dt_h, out=arrive)
        np.floor(arrive, out=arrive)
        np.divide(stay, self._dt_h, out=stay)
        np.maximum(np.rint(stay, out=stay), 1.0, out=stay)
        most = np.multiply(stay, self._dt_h)
        np.multiply(np.multiply(most, self._p_max_kw, out=most), self._eta, out=most)
        np.minimum(np.maximum(energy, 0.0, out=energy), most, out=energy)
        if not self._in_order:
            order = np.argsort(arrive, axis=2, kind="stable")
            arrive, stay, energy = (np.take_along_axis(values, order, 2) for values in (arrive, stay, energy))
            comes = np.take_along_axis(comes, order, 2)
        return self._admit(arrive, stay, energy, comes)

    def _admit(self, arrive: FloatArray, stay: FloatArray, energy: FloatArray, comes: BoolArray) -> Visits:
        """Let cars in, in order of arrival, where their port is free; keep who is there during the episode."""
        leave = np.add(arrive, stay)
        if np.count_nonzero(arrive[..., 1:] < leave[..., :-1]):  # else nobody finds a port taken
            free_at = np.full(arrive.shape[:2], -np.inf)
            for k in range(arrive.shape[2]):
                fits = comes[..., k]
                np.logical_and(fits, arrive[..., k] >= free_at, out=fits)
                np.copyto(free_at, leave[..., k], where=fits)
        seen = np.logical_and(comes, leave > 0.0, out=comes)
        np.logical_and(seen, arrive <= self._horizon, out=seen)
        at = seen.reshape(-1).nonzero()[0]
        begin, end, length, asked = (values.take(at) for values in (arrive, leave, stay, energy))
        np.maximum(begin, 0.0, out=begin)
        np.multiply(asked, end - begin, out=asked)
        np.divide(asked, length, out=asked)
        return Visits(at // arrive.shape[2], begin.astype(np.int64), end.astype(np.int64), asked)


def find_days(begin_hour: float, end_hour: float, arrival: FloatArray, stay_hours: FloatArray) -> tuple[int, int]:
    """Return the first and the last day, from that of the start, of whose cars any may be there during an episode.

    One day more comes before them, whose cars may hold a port until the others come.

    Args:
        begin_hour, end_hour: Hour of the start and of the end, both from the midnight before the start, widened by a
            step for what is rounded.
        arrival: Earliest and latest hour of arrival at each port, shape (2, n_ports, 1).
        stay_hours: Longest stay at each port, shape (n_ports, 1).
    """
    earliest, latest = arrival
    first = np.floor((begin_hour - latest - stay_hours) / 24.0).min()
    last = np.floor((end_hour - earliest) / 24.0).max()
    return int(first), int(last)


def lay_out(visits: Visits, starts: IntArray, width: int, n_steps: int, arriving: FloatArray, stay: FloatArray) -> None:
    """Write visits into tables by step, which hold 0 where no car is.

    Args:
        visits: The visits.
        starts: Place in the tables of step 0 of each port of each episode, shape (n_episodes * n_ports,).
        width: How far one step of the tables is from the next.
        n_steps: Number of steps that the tables have.
        arriving: Written with the energy that each car asks for at the step it comes [kWh], flat.
        stay: Written with the steps until the present car leaves, flat.
    """
    first, begin, end = starts.take(visits.place), visits.begin, visits.end
    arriving[first + begin * width] = visits.energy_kwh
    lengths = np.minimum(end, n_steps) - begin
    ends = np.add.accumulate(lengths)
    if not len(ends):
        return
    # of each step of each visit its number, from the first of the visit's on
    step = np.arange(int(ends[-1]))
    np.subtract(step, (ends - lengths - begin).repeat(lengths), out=step)
    left = end.repeat(lengths)
    np.subtract(left, step, out=left)
    np.multiply(step, width, out=step)
    np.add(step, first.repeat(lengths), out=step)
    stay[step] = left


def draw_sessions(
    specs: Sequence[EvChargerSpec], dt_h: float, horizon_steps: int, start_hour: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw the charging sessions of stations for one episode as tables; see :class:`Sessions`.

    Args:
        specs: The stations.
        dt_h: Length of a step [h].
        horizon_steps: Steps of an episode.
        start_hour: Hour of the day of step 0 [h].
        rng: Source of everything random.

    Returns:
        Energy a car that arrives asks for [kWh], and steps until the present car leaves (0: no car), each of
        shape (horizon_steps + 1, n_ports), station by station.
    """
    sessions = Sessions(specs, dt_h, horizon_steps, start_hour)
    n_steps, n_ports = horizon_steps + 1, sessions.n_ports
    arriving, stay = np.zeros((n_steps, n_ports)), np.zeros((n_steps, n_ports))
    lay_out(sessions.draw([rng]), np.arange(n_ports), n_ports, n_steps, arriving.reshape(-1), stay.reshape(-1))
    return arriving, stay
