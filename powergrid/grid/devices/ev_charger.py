"""Charging stations: cars that come, ask for energy and leave; the least laxity is served first.

The sessions of whole episodes are drawn at once; nothing random happens after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from powergrid.grid.devices.fleet import PowerFleet, Powers, Request
from powergrid.grid.devices.spec import (
    ActionSpec,
    BoolArray,
    Exogenous,
    FloatArray,
    IntArray,
    PlacedSpec,
    Rows,
    StateSpec,
)

#: Power below which a station counts as set to nothing [kW].
_TINY_KW = 1e-9
#: Where the normal distributions are cut, in deviations.
_CUT = 4.0
#: How many sets of constants of sessions are kept.
_MOST_KEPT = 64


class EvChargerSpec(PlacedSpec):
    """What YAML may say about a charging station; the distributions are normal and cut at four deviations."""

    element_classes: ClassVar[tuple[str, ...]] = ("Load",)
    drawn: ClassVar[tuple[str, ...]] = (
        *("p_max_kw", "eta_charge", "sessions_per_day", "arrival_hour_mean", "arrival_hour_std"),
        *("stay_hours_mean", "stay_hours_std", "energy_kwh_mean", "energy_kwh_std"),
    )

    kind: Literal["ev_charger"] = Field(description="Kind of the device.")
    ports: int = Field(ge=1, description="Number of cars that can charge at once.")
    p_max_kw: float = Field(gt=0, description="Largest power of each port.")
    eta_charge: float = Field(default=0.92, gt=0, le=1, description="Share of energy that reaches, or leaves, a car.")
    v2g: bool = Field(default=False, description="Whether cars can give back what they charged here.")
    sessions_per_day: float = Field(default=1.0, ge=0, description="Mean number of cars that come to a port each day.")
    arrival_hour_mean: float = Field(default=18.0, ge=0, le=24, description="Mean hour of arrival.")
    arrival_hour_std: float = Field(default=2.0, ge=0, description="Standard deviation of the hour of arrival.")
    stay_hours_mean: float = Field(default=10.0, gt=0, description="Mean length of a stay.")
    stay_hours_std: float = Field(default=2.0, ge=0, description="Standard deviation of the length of a stay.")
    energy_kwh_mean: float = Field(default=12.0, gt=0, description="Mean energy a car asks for.")
    energy_kwh_std: float = Field(default=4.0, ge=0, description="Standard deviation of the energy a car asks for.")

    @property
    def energy_max_kwh(self) -> float:
        """Most energy that one car can ask for [kWh]."""
        return self.energy_kwh_mean + 4 * self.energy_kwh_std


class _OfPorts(NamedTuple):
    """What is summed over the ports of each station, side by side: one sum of it all takes half of what two do.

    Attributes:
        whole: All of it, shape (6, n_envs, n, ports); the others are its parts.
        most_kw, owed_kwh: What each car can take, and what it still asks for.
        needed_kw: Mean power that finishes each car just in time.
        connected: 1 where a car is.
        before_kwh, after_kwh: What was owed at the end of the last step before anyone left, and after.
    """

    whole: FloatArray
    most_kw: FloatArray
    owed_kwh: FloatArray
    needed_kw: FloatArray
    connected: FloatArray
    before_kwh: FloatArray
    after_kwh: FloatArray


class EvChargerFleet(PowerFleet[EvChargerSpec]):
    """All the charging stations: the least laxity is served first, at unity power factor.

    Stations are padded to as many ports as the largest has: a port that is not there never sees a car.

    Attributes:
        owed_kwh: Energy the connected cars still ask for, station by station [kWh], shape (n_envs, n).
        connected: Number of connected cars, shape (n_envs, n).
        urgency: Share of the possible power that finishes every car just in time, 0..1, shape (n_envs, n).
        start_hour: Hour of the day of step 0, read at `reset` [h], shape (n_envs,).
        arriving_kwh: Energy that a car which comes at a step asks for [kWh], (n_envs, horizon_steps + 1, n, ports).
        stay_steps: Steps until the car present at a step leaves, 0 without one, shape as ``arriving_kwh``.
        port_owed_kwh, port_asked_kwh: What each car still asks for, and what it came with [kWh], (n_envs, n, ports).
        port_steps_left: Steps until it leaves, shape (n_envs, n, ports).
        port_kw: What each port was set to take [kW], shape (n_envs, n, ports).
    """

    kind: ClassVar[str] = "ev_charger"
    memory: ClassVar[tuple[str, ...]] = (
        *("arriving_kwh", "stay_steps", "port_owed_kwh", "port_asked_kwh", "port_steps_left", "port_kw"),
    )

    def __init__(
        self,
        devices: Mapping[str, EvChargerSpec],
        dt_h: float,
        horizon_steps: int,
        n_envs: int = 1,
        start_hour: float = 0.0,
    ) -> None:
        """Make the fleet.

        Args:
            devices: Spec of each station by its name.
            dt_h: Length of a step [h].
            horizon_steps: Steps of an episode.
            n_envs: Number of environments.
            start_hour: Hour of the day of step 0 [h].
        """
        super().__init__(devices, dt_h, horizon_steps, n_envs)
        actions, states = [], []
        for name, spec in devices.items():
            p_max = spec.ports * spec.p_max_kw
            actions.append(ActionSpec(name, "share", "pu", -1.0 if spec.v2g else 0.0, 1.0))
            states.append(StateSpec(name, "connected", "", 0.0, float(spec.ports)))
            states.append(StateSpec(name, "owed_kwh", "kWh", 0.0, spec.ports * spec.energy_max_kwh))
            states.append(StateSpec(name, "p_kw", "kW", -p_max, p_max if spec.v2g else 0.0))
            states.append(StateSpec(name, "urgency", "pu", 0.0, 1.0))
        self._take_tables(actions, states)
        self._ports = max((spec.ports for spec in self.specs), default=1)
        self._v2g = any(spec.v2g for spec in self.specs)
        self._sessions: dict[tuple[float, tuple[EvChargerSpec, ...]], Sessions] = {}
        self._set_constants()
        self.start_hour = np.full(n_envs, float(start_hour))
        ports, tables = (n_envs, self.n, self._ports), (n_envs, horizon_steps + 1, self.n, self._ports)
        self.arriving_kwh, self.stay_steps = np.zeros(tables), np.zeros(tables)
        self.port_owed_kwh, self.port_asked_kwh = np.zeros(ports), np.zeros(ports)
        self.port_steps_left, self.port_kw = np.zeros(ports), np.zeros(ports)
        self.terms = {"unserved_kwh": self._zeros(), "charged_kwh": self._zeros()}
        self._look()

    def _set_constants(self) -> None:
        """Fold ratings and the step's length into the constants of the hot path."""
        p_max, eta, gives = (
            np.repeat(self._values(key)[..., None], self._ports, axis=2) for key in ("p_max_kw", "eta_charge", "v2g")
        )
        self._port_max, self._give_max = p_max, p_max * gives
        self._kwh_per_kw, self._kwh_per_given_kw = eta * self.dt_h, self.dt_h / eta
        self._kw_per_kwh, self._given_kw_per_kwh = 1 / self._kwh_per_kw, 1 / self._kwh_per_given_kw
        self._steps_per_kwh = 1 / (p_max * self._kwh_per_kw)
        self._env = np.arange(self.n_envs)
        # a row of a table by its number takes a third of what it takes by environment and step
        self._rows_of_ports, self._first_row = (-1, self.n, self._ports), self._env * (self.horizon_steps + 1)
        self._next_step = np.minimum(np.arange(1, self.horizon_steps + 2), self.horizon_steps)
        self._zero, self._one, self._tiny_kw = self._zeros(), self._zeros() + 1.0, self._zeros() + _TINY_KW
        self._least_set_kw = -self._tiny_kw
        self._port_zero, self._port_one = np.zeros_like(p_max), np.ones_like(p_max)
        self._nobody = self._zero.tobytes()
        of_ports = np.zeros((6, *p_max.shape))
        self._of_ports = _OfPorts(of_ports, *of_ports)
        first_port = (np.arange(self.n_envs * self.n) * self._ports).reshape(self.n_envs, self.n, 1)
        self._first_port = np.repeat(first_port, self._ports, axis=2)
        # a number of each station for each of its ports: to gather it takes half of what to broadcast it does
        self._station = self._first_port // self._ports
        of_station = [i * self._ports + np.arange(spec.ports) for i, spec in enumerate(self.specs)]
        self._port_columns = np.concatenate(of_station)

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        envs = self._env[rows]
        alike = dict[tuple[float, tuple[EvChargerSpec, ...]], list[int]]()
        for i, (env, hour) in enumerate(zip(envs.tolist(), self.start_hour[rows].tolist(), strict=True)):
            alike.setdefault((hour, self.specs_of(env)), []).append(i)
        for (hour, specs), own in alike.items():
            self._draw(hour, specs, envs[own], [rngs[i] for i in own])
        self.port_owed_kwh[rows] = self.port_asked_kwh[rows] = self.arriving_kwh[rows, 0]
        self.port_steps_left[rows] = self.stay_steps[rows, 0]
        self._look()

    def _draw(
        self, hour: float, specs: tuple[EvChargerSpec, ...], envs: IntArray, rngs: Sequence[np.random.Generator]
    ) -> None:
        """Draw the sessions of environments whose step 0 is at an hour of the day, and lay them out."""
        if (hour, specs) not in self._sessions:
            if len(self._sessions) >= _MOST_KEPT:  # numbers that are drawn seldom come again
                self._sessions.clear()
            self._sessions[hour, specs] = Sessions(specs, self.dt_h, self.horizon_steps, hour)
        n_steps, width = self.horizon_steps + 1, self.n * self._ports
        starts = np.add.outer(envs * (n_steps * width), self._port_columns).reshape(-1)
        tables = self.arriving_kwh.reshape(-1), self.stay_steps.reshape(-1)
        lay_out(self._sessions[hour, specs].draw(rngs), starts, width, n_steps, *tables)

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Return to what `state_dict` copied, from a fleet of the same devices and environments."""
        super().load_state_dict(state)
        self._look()

    def _look(self) -> FloatArray:
        """Take stock of the connected cars: what they can take or give, and how urgent they are.

        Returns:
            The sums over ports of all that is summed, in the order of :class:`_OfPorts`, shape (6, n_envs, n).
        """
        owed, left, to = self.port_owed_kwh, self.port_steps_left, self._of_ports
        full = owed * self._kw_per_kwh
        np.minimum(full, self._port_max, out=to.most_kw)
        to.owed_kwh[...] = owed
        # a port without a car owes nothing
        np.divide(full, np.maximum(left, self._port_one), out=to.needed_kw)
        np.sign(left, out=to.connected)
        if self._v2g:
            least = (self.port_asked_kwh - owed) * self._given_kw_per_kwh
            self._least = np.minimum(np.maximum(least, self._port_zero), self._give_max)
            self._least_kw = np.add.reduce(self._least, axis=2)
        sums: FloatArray = np.add.reduce(to.whole, axis=3)
        self._most_kw, self.owed_kwh, self.connected = sums[0], sums[1], sums[3]
        # to look at the bytes of so few numbers takes a quarter of what NumPy takes to count
        self._anyone = self.connected.tobytes() != self._nobody
        self.urgency = np.minimum(sums[2] / np.maximum(self._most_kw, self._tiny_kw), self._one)
        return sums

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions for charging at full power, shape (n_envs, n_actions)."""
        return np.ones((self.n_envs, self.n))

    def _find_request(self) -> Request:
        """Say what the actions mean: a share of what the connected cars can take, or give back."""
        request = super()._find_request()
        half = np.array([1.0 if spec.v2g else 0.5 for spec in self.specs])
        request.gain[0], request.offset[0] = half, 1 - half
        request.low[0], request.high[0] = 1 - half - half, 1.0
        return request

    def limit(self, own: Powers, exo: Exogenous) -> None:
        """Turn shares into station power and give it to the ports, least laxity first.

        The share is of what the connected cars can take in this step, below 0 of what they can give back, so
        every request is feasible. Laxity is the time left less the time full power needs.
        """
        if not self._anyone:
            self.port_kw = np.zeros_like(self.port_kw)
            own.p_kw[...] = own.asked_p_kw[...] = -0.0  # the bits that what follows would give
            return
        # where no station gives back, no share is below 0
        share = np.maximum(own.asked_p_kw, self._zero) if self._v2g else own.asked_p_kw
        taken, most = share * self._most_kw, self._of_ports.most_kw
        laxity = self.port_steps_left - self.port_owed_kwh * self._steps_per_kwh
        order = laxity.argsort(axis=2, kind="stable") + self._first_port
        self.port_kw = _share_out(taken.take(self._station), most, order, self._port_zero)
        if self._v2g:
            given = np.minimum(own.asked_p_kw, self._zero) * self._least_kw
            self.port_kw = self.port_kw - _share_out(
                (-given).take(self._station), self._least, order[..., ::-1], self._port_zero
            )
            taken = taken + given
        own.asked_p_kw[...] = np.negative(taken, out=own.p_kw)

    def move_on(self, own: Powers, exo: Exogenous) -> None:
        """Charge the cars with what was delivered, see off who leaves and let in who comes.

        Energy that a car still owes when it leaves, at the end of this step, is ``unserved_kwh`` of this step.
        """
        row = self._next_step.take(exo.step) + self._first_row
        steps_left = self.stay_steps.reshape(self._rows_of_ports).take(row, 0)
        if not self._anyone and not np.count_nonzero(steps_left):  # nobody is here, nobody comes
            self.port_steps_left = steps_left
            self.terms = {"unserved_kwh": self._zeros(), "charged_kwh": self._zeros()}
            return
        # The grid may deliver a little more or less than was set; every port gets its part of that. Where nothing was
        # set, no port has.
        if self._v2g:
            set_kw = np.copysign(np.maximum(np.abs(own.p_kw), self._tiny_kw), own.p_kw)
        else:  # no power is set above 0
            set_kw = np.minimum(own.p_kw, self._least_set_kw)
        power = self.port_kw * np.divide(own.delivered_p_kw, set_kw, out=set_kw).take(self._station)
        if self._v2g:
            charged = np.minimum(power * self._kwh_per_kw, power * self._kwh_per_given_kw)
            owed = np.minimum(self.port_owed_kwh - charged, self.port_asked_kwh)
        else:
            owed = np.subtract(self.port_owed_kwh, np.multiply(power, self._kwh_per_kw, out=power), out=power)
        to = self._of_ports
        owed = np.maximum(owed, self._port_zero, out=to.before_kwh)
        # 1 for who stays beyond this step, 0 for who leaves; a port without a car owes nothing
        stays = self.port_steps_left - self._port_one
        np.minimum(stays, self._port_one, out=stays)
        staying = np.multiply(owed, stays, out=to.after_kwh)
        arrived = self.arriving_kwh.reshape(self._rows_of_ports).take(row, 0)
        owed_kwh = self.owed_kwh
        self.port_owed_kwh = staying + arrived
        if self._v2g:
            self.port_asked_kwh = self.port_asked_kwh * stays + arrived
        self.port_steps_left = steps_left
        sums = self._look()
        before_kwh = sums[4]
        self.terms = {"unserved_kwh": before_kwh - sums[5], "charged_kwh": owed_kwh - before_kwh}

    def unserved_at_end_kwh(self) -> FloatArray:
        """Return the energy that connected cars can no longer get even at full power [kWh], (n_envs, n)."""
        possible = self.port_steps_left * self._port_max * self._kwh_per_kw
        short: FloatArray = np.maximum(self.port_owed_kwh - possible, 0.0).sum(axis=2)
        return short


def _share_out(total_kw: FloatArray, most_kw: FloatArray, order: IntArray, zero: FloatArray) -> FloatArray:
    """Return what ports get, who in order take as much as they can until the station's total is spent [kW].

    Args:
        total_kw: What there is to give at the station of each port [kW], shape (n_envs, n, ports); written over.
        most_kw: What each port can take [kW], shape (n_envs, n, ports).
        order: Flat indices of ports, first served first, shape (n_envs, n, ports).
        zero: Zeros of the same shape, which take a ufunc less than the number 0 does.
    """
    wanted = most_kw.take(order)
    given = np.add.accumulate(wanted, axis=2)  # until every place of it is written over
    left = np.subtract(total_kw, given, out=total_kw)
    np.add(left, wanted, out=left)
    given.put(order, np.minimum(np.maximum(left, zero, out=left), wanted, out=left))
    return given


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
