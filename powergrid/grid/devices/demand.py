"""Demand that can give way: loads that defer energy and owe it, and charging stations for cars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from powergrid.grid.devices.fleet import PowerFleet
from powergrid.grid.devices.projection import Request
from powergrid.grid.devices.sessions import Sessions, lay_out
from powergrid.grid.devices.spec import (
    ActionSpec,
    BoundSpec,
    Exogenous,
    FloatArray,
    IntArray,
    PlacedSpec,
    Rows,
    StateSpec,
)

_TINY = 1e-9


class FlexibleLoadSpec(BoundSpec):
    """What YAML may say about a load that can shift its demand in time."""

    element_classes: ClassVar[tuple[str, ...]] = ("Load",)

    kind: Literal["flexible_load"] = Field(description="Kind of the device.")
    share_min: float = Field(default=0.6, ge=0, le=1, description="Least share of its demand the load takes.")
    share_max: float = Field(default=1.3, ge=1, description="Largest share of its demand, when it pays back.")
    owed_max_kwh: float = Field(gt=0, description="Most energy the load may owe at any time.")

    def find_problems(self) -> Iterable[str]:
        """Yield what contradicts between the keys."""
        yield from super().find_problems()
        if not self.share_min < self.share_max:
            yield f"share_min {self.share_min:g} is not below share_max {self.share_max:g}"


class FlexibleLoadFleet(PowerFleet[FlexibleLoadSpec]):
    """All the flexible loads: what is not taken now is owed, and only what is owed is paid back.

    Attributes:
        owed_kwh: Energy put off and not yet paid back, 0..owed_max_kwh [kWh], shape (n_envs, n).
        q_per_kw: Reactive over active demand of each load, read by `allocate`, shape (n,).
    """

    kind: ClassVar[str] = "flexible_load"
    memory: ClassVar[tuple[str, ...]] = (*PowerFleet.memory, "owed_kwh", "share", "demand_kw", "_cut")
    numbers: ClassVar[tuple[str, ...]] = (*PowerFleet.numbers, "owed_kwh", "share", "demand_kw", "deferred_kwh")

    def __init__(
        self,
        devices: Mapping[str, FlexibleLoadSpec],
        dt_h: float,
        horizon_steps: int,
        q_per_kw: npt.ArrayLike = 0.0,
        demand_max_kw: npt.ArrayLike = np.inf,
    ) -> None:
        """Make the fleet.

        Args:
            devices: Spec of each load by its name.
            dt_h: Length of a step [h].
            horizon_steps: Steps of an episode.
            q_per_kw: Reactive over active demand of each load, scalar or shape (n,).
            demand_max_kw: Largest demand of each load, the bound of its state [kW], scalar or shape (n,).
        """
        super().__init__(devices, dt_h, horizon_steps)
        self.q_per_kw: FloatArray = np.broadcast_to(np.asarray(q_per_kw, dtype=np.float64), (self.n,)).copy()
        demand = np.broadcast_to(np.asarray(demand_max_kw, dtype=np.float64), (self.n,))
        actions, states = [], []
        for (name, spec), demand_high in zip(devices.items(), demand.tolist(), strict=True):
            actions.append(ActionSpec(name, "share", "pu", spec.share_min, spec.share_max))
            states.append(StateSpec(name, "owed_kwh", "kWh", 0.0, spec.owed_max_kwh))
            states.append(StateSpec(name, "share", "pu", spec.share_min, spec.share_max))
            states.append(StateSpec(name, "demand_kw", "kW", 0.0, demand_high))
        self.actions, self.states = tuple(actions), tuple(states)

    def _precompute(self) -> None:
        """Fold limits and the step's length into the constants of the hot path."""
        low, high = self._values("share_min"), self._values("share_max")
        # The hot path reckons in the cut of demand, 1 - share: zero for a load left to itself.
        self._half, self._mid = (high - low) / 2, 1 - (high + low) / 2
        self._owed_max = self._values("owed_max_kwh")
        self._room_slope, self._room_span = np.full_like(low, -1 / self.dt_h), self._owed_max / self.dt_h
        self._hours, self._tiny = np.full_like(low, self.dt_h), np.full_like(low, _TINY)
        self._zero, self._one = np.zeros_like(low), np.ones_like(low)
        self._kvar_per_kw = self._tile(self.q_per_kw)

    def _allocate(self, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
        self._precompute()
        ledger = self._ledger
        self.owed_kwh, self.share, self.demand_kw = ledger["owed_kwh"], ledger["share"], ledger["demand_kw"]
        self.share[...] = 1.0
        self._cut, self._room = np.zeros(shape), np.zeros(shape)
        self._deferred = ledger["deferred_kwh"]
        self.terms = {"deferred_kwh": self._deferred}
        return {"owed_kwh": self.owed_kwh, "share": self.share, "demand_kw": self.demand_kw}

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        self.share[rows] = 1.0

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions for share 1, shape (n_envs, n_actions)."""
        return self._mid / self._half

    def _find_requests(self) -> Request:
        """Say what the actions mean: a cut of demand, 1 - share."""
        request = super()._find_requests()
        low, high = (np.array([getattr(spec, key) for spec in self.specs]) for key in ("share_min", "share_max"))
        request.gain[0], request.offset[0] = -(high - low) / 2, 1 - (high + low) / 2
        request.low[0], request.high[0] = 1 - high, 1 - low
        return request

    def limit(self, exo: Exogenous) -> None:
        """Limit the asked share so that the energy owed stays between 0 and ``owed_max_kwh``.

        Sets ``p_kw = -share·demand`` and the reactive power of the load's own power factor.
        """
        demand, cut, room = exo.demand_kw, self._cut, self._room
        np.multiply(self.requested_p_kw, demand, out=cut)
        np.subtract(cut, demand, out=self.requested_p_kw)
        np.multiply(self.owed_kwh, self._room_slope, out=room)
        np.maximum(cut, room, out=cut)
        np.minimum(cut, np.add(room, self._room_span, out=room), out=cut)
        np.subtract(cut, demand, out=self.p_kw)
        np.multiply(self.requested_p_kw, self._kvar_per_kw, out=self.requested_q_kvar)
        np.multiply(self.p_kw, self._kvar_per_kw, out=self.q_kvar)

    def move_on(self, exo: Exogenous) -> None:
        """Book the energy put off or paid back.

        What is owed follows the share that was set: what the grid's voltage does to the delivered power of
        a load is no debt of its owner.
        """
        self.demand_kw[...] = exo.demand_kw
        owed, share, work = self.owed_kwh, self.share, self._room
        np.divide(self._cut, np.maximum(exo.demand_kw, self._tiny, out=work), out=share)
        np.subtract(self._one, share, out=share)
        np.add(owed, np.multiply(self._cut, self._hours, out=work), out=owed)
        np.minimum(np.maximum(owed, self._zero, out=owed), self._owed_max, out=owed)
        np.maximum(work, self._zero, out=self._deferred)

    def settle(self) -> FloatArray:
        """Return the energy still owed, which nobody will serve if the episode ends now [kWh], (n_envs, n)."""
        return self.owed_kwh.copy()


class EvChargerSpec(PlacedSpec):
    """What YAML may say about a charging station; the distributions are normal and cut at four deviations."""

    element_classes: ClassVar[tuple[str, ...]] = ("Load",)

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


#: Sums over the ports of a station, rows of the ledger that follow each other: of what is seen of the cars, then of
#: what they owed at the end of the step before anyone left, and after.
_PORT_SUMS = (
    *("ports_most_kw", "ports_owed_kwh", "ports_urgency", "ports_connected"),
    *("ports_before_kwh", "ports_after_kwh"),
)


class EvChargerFleet(PowerFleet[EvChargerSpec]):
    """All the charging stations: the least laxity is served first, at unity power factor.

    The sessions of an episode are drawn at `reset`; nothing random happens after.

    Attributes:
        owed_kwh: Energy the connected cars still ask for, station by station [kWh], shape (n_envs, n).
        connected: Number of connected cars, shape (n_envs, n).
        urgency: Share of the possible power that finishes every car just in time, 0..1, shape (n_envs, n).
        start_hour: Hour of the day of step 0, read at `reset` [h], shape (n_envs,).
    """

    kind: ClassVar[str] = "ev_charger"
    memory: ClassVar[tuple[str, ...]] = (
        *PowerFleet.memory,
        *("_arriving", "_stay", "_owed", "_asked", "_left", "_port_kw"),
        *("_most", "_least", "_most_kw", "_least_kw", "owed_kwh", "connected", "urgency"),
    )
    numbers: ClassVar[tuple[str, ...]] = (*PowerFleet.numbers, *_PORT_SUMS, "unserved_kwh", "charged_kwh")

    def __init__(
        self, devices: Mapping[str, EvChargerSpec], dt_h: float, horizon_steps: int, start_hour: float = 0.0
    ) -> None:
        """Make the fleet.

        Args:
            devices: Spec of each station by its name.
            dt_h: Length of a step [h].
            horizon_steps: Steps of an episode.
            start_hour: Hour of the day of step 0 [h].
        """
        super().__init__(devices, dt_h, horizon_steps)
        actions, states = [], []
        for name, spec in devices.items():
            p_max = spec.ports * spec.p_max_kw
            actions.append(ActionSpec(name, "share", "pu", -1.0 if spec.v2g else 0.0, 1.0))
            states.append(StateSpec(name, "connected", "", 0.0, float(spec.ports)))
            states.append(StateSpec(name, "owed_kwh", "kWh", 0.0, spec.ports * spec.energy_max_kwh))
            states.append(StateSpec(name, "p_kw", "kW", -p_max, p_max if spec.v2g else 0.0))
            states.append(StateSpec(name, "urgency", "pu", 0.0, 1.0))
        self.actions, self.states = tuple(actions), tuple(states)
        self._start_hour = float(start_hour)
        self._ports = max((spec.ports for spec in self.specs), default=1)
        self._v2g = any(spec.v2g for spec in self.specs)
        self._sessions: dict[float, Sessions] = {}

    def _precompute(self) -> None:
        """Fold ratings and the step's length into the constants of the hot path."""
        self._zero, self._one = self._tile(np.zeros(self.n)), self._tile(np.ones(self.n))
        self._tiny = np.full_like(self._zero, _TINY)
        # Ports are padded to the largest station: what is not there never sees a car.
        p_max, eta, gives = (
            np.repeat(self._values(key)[..., None], self._ports, axis=2) for key in ("p_max_kw", "eta_charge", "v2g")
        )
        self._port_max, self._give_max = p_max, p_max * gives
        self._kwh_per_kw, self._kwh_per_given_kw = eta * self.dt_h, self.dt_h / eta
        self._kw_per_kwh, self._given_kw_per_kwh = 1 / self._kwh_per_kw, 1 / self._kwh_per_given_kw
        self._steps_per_kwh = 1 / (p_max * self._kwh_per_kw)
        self._port_zero, self._port_one = np.zeros_like(p_max), np.ones_like(p_max)
        self._env = np.arange(self.n_envs)
        self._first_row = self._env * (self.horizon_steps + 1)
        self._next_step = np.minimum(np.arange(1, self.horizon_steps + 2), self.horizon_steps)
        first_port = (np.arange(self.n_envs * self.n) * self._ports).reshape(self.n_envs, self.n, 1)
        self._first_port = np.repeat(first_port, self._ports, axis=2)
        self._station_of_port = self._first_port // self._ports

    def _allocate(self, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
        self._precompute()
        ports = (*shape, self._ports)
        sizes = [spec.ports for spec in self.specs]
        of_station = [i * self._ports + np.arange(size) for i, size in enumerate(sizes)]
        self._port_columns = np.concatenate(of_station)
        tables = (shape[0], self.horizon_steps + 1, self.n, self._ports)
        self.start_hour = np.full(shape[0], self._start_hour)
        self._arriving, self._stay = np.zeros(tables), np.zeros(tables)
        self._arriving_rows, self._stay_rows = (t.reshape(-1, *ports[1:]) for t in (self._arriving, self._stay))
        self._asked, self._left, self._port_kw, self._arrived = (np.zeros(ports) for _ in range(4))
        self._least, self._work, self._sorted, self._given, self._room = (np.zeros(ports) for _ in range(5))
        # what is summed over ports, all in one pass, and the sums
        self._of_ports, self._sums = np.zeros((len(_PORT_SUMS), *ports)), self._ledger.block(_PORT_SUMS)
        self._most, self._owed, self._urgent, self._there, self._before, self._after = self._of_ports
        self._most_kw, self.owed_kwh, self.urgency, self.connected, self._before_kwh, self._after_kwh = self._sums
        self._least_kw, self._taken, self._set_kw = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._unserved, self._charged = self._ledger["unserved_kwh"], self._ledger["charged_kwh"]
        self.terms = {"unserved_kwh": self._unserved, "charged_kwh": self._charged}
        return {
            "connected": self.connected,
            "owed_kwh": self.owed_kwh,
            "p_kw": self.delivered_p_kw,
            "urgency": self.urgency,
        }

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        envs = self._env[rows]
        for hour in set(self.start_hour[rows].tolist()):
            own = np.flatnonzero(self.start_hour[rows] == hour).tolist()
            self._draw(hour, envs[own], [rngs[i] for i in own])
        self._owed[rows] = self._asked[rows] = self._arriving[rows, 0]
        self._left[rows] = self._stay[rows, 0]
        self._look()

    def _draw(self, hour: float, envs: IntArray, rngs: Sequence[np.random.Generator]) -> None:
        """Draw the sessions of environments whose step 0 is at an hour of the day, and lay them out."""
        if hour not in self._sessions:
            self._sessions[hour] = Sessions(self.specs, self.dt_h, self.horizon_steps, hour)
        n_steps, width = self.horizon_steps + 1, self.n * self._ports
        starts = np.add.outer(envs * (n_steps * width), self._port_columns).reshape(-1)
        tables = self._arriving.reshape(-1), self._stay.reshape(-1)
        lay_out(self._sessions[hour].draw(rngs), starts, width, n_steps, *tables)

    def _look(self) -> None:
        """Take stock of the connected cars: what they can take or give, and how urgent they are."""
        owed, left, most, urgent, urgency = self._owed, self._left, self._most, self._urgent, self.urgency
        np.multiply(owed, self._kw_per_kwh, out=most)
        # Mean power that finishes each car just in time; a port without a car owes nothing.
        np.divide(most, np.maximum(left, self._port_one, out=urgent), out=urgent)
        np.minimum(most, self._port_max, out=most)
        if self._v2g:
            least = np.subtract(self._asked, owed, out=self._least)
            np.multiply(least, self._given_kw_per_kwh, out=least)
            np.minimum(np.maximum(least, self._port_zero, out=least), self._give_max, out=least)
            np.add.reduce(least, axis=2, out=self._least_kw)
        np.sign(left, out=self._there)
        np.add.reduce(self._of_ports, axis=3, out=self._sums)
        np.divide(urgency, np.maximum(self._most_kw, self._tiny, out=self._taken), out=urgency)
        np.minimum(urgency, self._one, out=urgency)

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions for charging at full power, shape (n_envs, n_actions)."""
        return np.ones((self.n_envs, self.n))

    def _find_requests(self) -> Request:
        """Say what the actions mean: a share of what the connected cars can take, or give back."""
        request = super()._find_requests()
        half = np.array([1.0 if spec.v2g else 0.5 for spec in self.specs])
        request.gain[0], request.offset[0] = half, 1 - half
        request.low[0], request.high[0] = 1 - half - half, 1.0
        return request

    def limit(self, exo: Exogenous) -> None:
        """Turn shares into station power and give it to the ports, least laxity first.

        The share is of what the connected cars can take in this step, below 0 of what they can give back, so
        every request is feasible. Laxity is the time left less the time full power needs.
        """
        share = self.requested_p_kw
        if not np.count_nonzero(self.connected):
            self._port_kw.fill(0.0)
            self.p_kw.fill(-0.0)  # the bits that what follows would give
            share.fill(-0.0)
            return
        taken = np.maximum(share, self._zero, out=self._taken)
        np.multiply(taken, self._most_kw, out=taken)
        laxity = np.multiply(self._owed, self._steps_per_kwh, out=self._work)
        np.subtract(self._left, laxity, out=laxity)
        order = laxity.argsort(2, "stable")
        np.add(order, self._first_port, out=order)
        self._share_out(taken, self._most, order, self._port_kw)
        if self._v2g:
            given = np.multiply(np.minimum(share, self._zero), self._least_kw)
            giving = np.empty_like(self._port_kw)
            self._share_out(np.negative(given), self._least, order[..., ::-1], giving)
            np.subtract(self._port_kw, giving, out=self._port_kw)
            np.add(taken, given, out=taken)
        np.negative(taken, out=self.p_kw)
        self.requested_p_kw[...] = self.p_kw

    def _share_out(self, total: FloatArray, most: FloatArray, order: IntArray, out: FloatArray) -> None:
        """Return ports, in order, as much as they can take until the station's total is spent.

        Args:
            total: What there is to give [kW], shape (n_envs, n).
            most: What each port can take [kW], shape (n_envs, n, ports).
            order: Flat indices of ports, first served first, shape (n_envs, n, ports).
            out: What each port gets [kW], written, C-contiguous, shape (n_envs, n, ports).
        """
        sorted_most, given, room = most.take(order, None, self._sorted, "clip"), self._given, self._room
        total.take(self._station_of_port, None, room, "clip")
        np.subtract(room, np.add.accumulate(sorted_most, 2, None, given), out=given)
        np.add(given, sorted_most, out=given)
        np.minimum(np.maximum(given, self._port_zero, out=given), sorted_most, out=given)
        out.put(order, given, "clip")

    def move_on(self, exo: Exogenous) -> None:
        """Charge the cars with what was delivered, see off who leaves and let in who comes.

        Energy that a car still owes when it leaves, at the end of this step, is ``unserved_kwh`` of this step.
        """
        row = np.add(self._next_step.take(exo.step), self._first_row)
        if not np.count_nonzero(self.connected):
            left = self._stay_rows.take(row, 0, self._left, "clip")
            if not np.count_nonzero(left):  # nobody is here and nobody comes
                self._charged.fill(0.0)
                self._unserved.fill(0.0)
                return
        owed, asked, power, before, after = self._owed, self._asked, self._work, self._before, self._after
        # The grid may deliver a little more or less than was set; every port gets its part of that. Where nothing was
        # set, no port has.
        p_kw, ratio = self.p_kw, self._set_kw
        np.copysign(np.maximum(np.absolute(p_kw, out=ratio), self._tiny, out=ratio), p_kw, out=ratio)
        np.divide(self.delivered_p_kw, ratio, out=ratio)
        np.multiply(self._port_kw, ratio.take(self._station_of_port, None, power, "clip"), out=power)
        if self._v2g:
            given = np.multiply(power, self._kwh_per_given_kw)
            np.minimum(np.multiply(power, self._kwh_per_kw, out=power), given, out=power)
            np.minimum(np.subtract(owed, power, out=owed), asked, out=owed)
        else:
            np.subtract(owed, np.multiply(power, self._kwh_per_kw, out=power), out=owed)
        np.maximum(owed, self._port_zero, out=before)
        # 1 for who stays beyond this step, 0 for who leaves; a port without a car owes nothing
        stays = np.minimum(np.subtract(self._left, self._port_one, out=power), self._port_one, out=power)
        np.multiply(before, stays, out=after)
        self._charged[...] = self.owed_kwh
        arrived = self._arriving_rows.take(row, 0, self._arrived, "clip")
        np.add(after, arrived, out=owed)
        if self._v2g:
            np.add(np.multiply(asked, stays, out=asked), arrived, out=asked)
        self._stay_rows.take(row, 0, self._left, "clip")
        self._look()
        np.subtract(self._charged, self._before_kwh, out=self._charged)
        np.subtract(self._before_kwh, self._after_kwh, out=self._unserved)

    def settle(self) -> FloatArray:
        """Return the energy that connected cars can no longer get even at full power [kWh], (n_envs, n)."""
        possible = self._left * self._port_max * self._kwh_per_kw
        short: FloatArray = np.maximum(self._owed - possible, 0.0).sum(axis=2)
        return short
