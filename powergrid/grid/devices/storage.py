"""Batteries behind an inverter: energy, efficiencies, standby and wear; no degradation of capacity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from powergrid.grid.devices.fleet import PowerFleet, Powers
from powergrid.grid.devices.spec import ActionSpec, Exogenous, FloatArray, PowerSpec, Rows, StateSpec

#: Power below which a battery that is led by a controller counts as idle, in parts of its rating.
_IDLE_SHARE = 1e-4
#: By how much a power may differ from what was asked and be the same [kW]; half of what infos call projected.
_SAME_KW = 5e-7


class StorageSpec(PowerSpec):
    """What YAML may say about a battery; powers and energies are on the AC side unless said otherwise."""

    element_classes: ClassVar[tuple[str, ...]] = ("Storage",)
    native: ClassVar[bool] = True
    modelled: ClassVar[bool] = True
    ratings: ClassVar[tuple[str, ...]] = ("e_max_kwh", "p_max_kw")
    drawn: ClassVar[tuple[str, ...]] = (
        *("e_max_kwh", "p_max_kw", "p_charge_max_kw", "s_max_kva", "soc_min", "soc_max", "soc_initial"),
        *("eta_charge", "eta_discharge", "standby_loss_kw", "wear_usd_per_kwh"),
    )

    kind: Literal["storage"] = Field(description="Kind of the device.")
    e_max_kwh: float | None = Field(default=None, gt=0, description="Energy of the full cell (SOC 1).")
    p_max_kw: float | None = Field(default=None, gt=0, description="Largest discharging power.")
    p_charge_max_kw: float | None = Field(
        default=None, gt=0, description="Largest charging power; as `p_max_kw` if unset."
    )
    s_max_kva: float | None = Field(
        default=None, gt=0, description="Apparent-power rating of the inverter; the larger power limit if unset."
    )
    soc_min: float = Field(default=0.1, ge=0, le=1, description="State of charge below which no discharge is allowed.")
    soc_max: float = Field(default=0.9, ge=0, le=1, description="State of charge above which no charge is allowed.")
    soc_initial: float = Field(default=0.5, ge=0, le=1, description="State of charge at the start of an episode.")
    eta_charge: float = Field(default=0.95, gt=0, le=1, description="Share of charged energy that reaches the cell.")
    eta_discharge: float = Field(default=0.95, gt=0, le=1, description="Share of cell energy that reaches the grid.")
    standby_loss_kw: float = Field(default=0.0, ge=0, description="Constant drain of the cell, until it is empty.")
    reactive: bool = Field(default=False, description="Whether an agent decides reactive power as well.")
    levels: int | None = Field(
        default=None,
        ge=3,
        description="Evenly spaced powers to choose from, full charge first, one of them 0; any power if unset.",
    )
    wear_usd_per_kwh: float = Field(
        default=0.0, ge=0, description="Cost of wear for each kWh charged or discharged, on the AC side."
    )

    def find_problems(self) -> Iterable[str]:
        """Yield what contradicts between the keys."""
        yield from super().find_problems()
        if not self.soc_min < self.soc_max:
            yield f"soc_min {self.soc_min:g} is not below soc_max {self.soc_max:g}"
        elif not self.soc_min <= self.soc_initial <= self.soc_max:
            yield f"soc_initial {self.soc_initial:g} is outside soc_min..soc_max = {self.soc_min:g}..{self.soc_max:g}"
        for key in ("p_max_kw", "p_charge_max_kw"):
            power = getattr(self, key)
            if power is not None and self.s_max_kva is not None and power > self.s_max_kva:
                yield f"{key} {power:g} is above s_max_kva {self.s_max_kva:g}; allowed is at most that"
        if self.levels is not None and self.p_charge_max_kw is None:
            if self.levels % 2 == 0:
                yield f"levels {self.levels} leaves no level for 0 kW; give an odd number, such as {self.levels + 1}"
        elif self.levels is not None and self.p_max_kw is None:
            yield "levels with p_charge_max_kw needs p_max_kw"
        elif self.levels is not None:
            idle = self._idle_level()
            if abs(idle - round(idle)) > 1e-6:
                yield (
                    f"levels {self.levels} leaves no level for 0 kW between p_charge_max_kw "
                    f"{self.p_charge_max_kw:g} and p_max_kw {self.p_max_kw:g}"
                )

    def _idle_level(self) -> float:
        """Return where among the levels 0 kW lies."""
        discharge, charge, _ = _fill_powers(self)
        return charge / (charge + discharge) * ((self.levels or 1) - 1)


class StorageFleet(PowerFleet[StorageSpec]):
    """All the batteries: SOC window first, then the power limits, then the kVA circle.

    Attributes:
        soc: State of charge, 0..1, shape (n_envs, n).
        cycles: Equivalent full cycles since reset: AC throughput over twice the energy between
            ``soc_min`` and ``soc_max``, shape (n_envs, n).
        room_kw: Least and largest power that SOC window and ratings allowed at the last projection [kW], shape
            (2, n_envs, n).
    """

    kind: ClassVar[str] = "storage"
    required: ClassVar[tuple[str, ...]] = ("e_max_kwh", "p_max_kw")
    memory: ClassVar[tuple[str, ...]] = ("soc", "cycles")

    def __init__(self, devices: Mapping[str, StorageSpec], dt_h: float, horizon_steps: int, n_envs: int = 1) -> None:
        super().__init__(devices, dt_h, horizon_steps, n_envs)
        actions, states = [], []
        for name, spec in devices.items():
            discharge, charge, s = _fill_powers(spec)
            actions.append(ActionSpec(name, "p_kw", "kW", -charge, discharge, n=spec.levels or 0))
            states.append(StateSpec(name, "soc", "pu", 0.0, 1.0))
            states.append(StateSpec(name, "p_kw", "kW", -charge, discharge))
            if spec.reactive:
                actions.append(ActionSpec(name, "q_kvar", "kvar", *spec.q_range(s, s)))
                states.append(StateSpec(name, "q_kvar", "kvar", *spec.q_range(s, s)))
        self._take_tables(actions, states)
        self._set_constants()
        self.soc, self.cycles, self.room_kw = self._zeros(), self._zeros(), np.zeros((2, n_envs, self.n))
        self.terms = {"throughput_kwh": self._zeros(), "storage_wear_usd": self._zeros()}

    def _set_constants(self) -> None:
        """Fold ratings, efficiencies and the step's length into the constants of the hot path."""
        powers = np.array([_fill_powers(spec) for spec in self.specs]).reshape(-1, 3)
        discharge, charge, s = (self._tile(column) for column in powers.T)
        idle = -np.array([row.offset for row in self.actions]) / np.array([row.gain for row in self.actions])
        self._idle = self._tile(np.where([row.discrete for row in self.actions], np.rint(idle), idle))
        self._p_high = discharge
        self._square_ratings(powers[:, 2])
        self._soc_initial = self._values("soc_initial")
        dt, e_max, standby = self.dt_h, self._values("e_max_kwh"), self._values("standby_loss_kw")
        soc_min, soc_max = self._values("soc_min"), self._values("soc_max")
        eta_c, eta_d = self._values("eta_charge"), self._values("eta_discharge")
        drain = standby * dt / e_max
        # Row 0: the least, that is the most charge, negative; row 1: the most that may be discharged.
        slope = np.stack([e_max / (eta_c * dt), e_max * eta_d / dt])
        self._least_slope, self._most_slope = slope[0].copy(), slope[1].copy()
        self._room_offset = slope * np.stack([-soc_max - drain, -soc_min - drain])
        self._room_low = np.stack([-np.minimum(charge, s), np.zeros_like(s)])
        self._room_high = np.stack([np.zeros_like(s), np.minimum(discharge, s)])
        self._zero, self._one, self._hours = self._zeros(), self._zeros() + 1.0, self._zeros() + dt
        self._soc_per_discharged_kw, self._soc_per_charged_kw = dt / (eta_d * e_max), dt * eta_c / e_max
        self._soc_drain = drain if drain.any() else None
        self._wear = self._values("wear_usd_per_kwh")
        self._cycles_per_kwh = 0.5 / ((soc_max - soc_min) * e_max)
        self._led = np.flatnonzero([spec.control == "opendss" for spec in self.specs])

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        self.soc[rows] = self._soc_initial[rows]

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions for 0 kW and 0 kvar, shape (n_envs, n_actions)."""
        return self._idle

    def limit(self, own: Powers, exo: Exogenous) -> None:
        """Limit what is asked to the SOC window after this step; the kVA circle comes after, p first.

        A discharge of p takes ``p·dt/eta_discharge`` from the cell, a charge adds ``|p|·dt·eta_charge``,
        standby takes its own. Standby alone never forces a charge: below ``soc_min`` p is 0 or charging.
        """
        self.room_kw = room = self._find_room()
        if self._led.size:
            self._continue_led(own)
        np.maximum(np.minimum(own.asked_p_kw, room[1], out=own.p_kw), room[0], out=own.p_kw)

    def reach(self) -> tuple[FloatArray, FloatArray]:
        """Return the least and the most power that each can be asked now and gives, in the units of its action."""
        least, most = super().reach()
        room = self._find_room()
        for column, row in enumerate(self.actions):
            if row.name == "p_kw":  # what the kVA circle leaves for reactive power depends on that
                low, high = ((each[:, self.places[row.device]] - row.offset) / row.gain for each in room)
                same = _SAME_KW / row.gain
                least[:, column], most[:, column] = np.maximum(low - same, least[:, column]), high + same
        return least, most

    def _find_room(self) -> FloatArray:
        """Return the least and the largest power that SOC window and ratings allow [kW], shape (2, n_envs, n)."""
        room: FloatArray = np.empty(self._room_low.shape)
        # a product for each: one that broadcasts takes longer than both
        np.multiply(self.soc, self._least_slope, out=room[0])
        np.multiply(self.soc, self._most_slope, out=room[1])
        np.add(room, self._room_offset, out=room)
        np.minimum(np.maximum(room, self._room_low, out=room), self._room_high, out=room)
        return room

    def _continue_led(self, own: Powers) -> None:
        """Let what the feeder's own controllers lead go on as it did; they decide from there in the solve."""
        led = self._led
        least, most = self.room_kw[:, :, led]
        last = own.delivered_p_kw[:, led]
        last = np.where(np.abs(last) > _IDLE_SHARE * self._p_high[:, led], last, 0.0)
        own.asked_p_kw[:, led] = np.minimum(np.maximum(last, least), most)

    def move_on(self, own: Powers, exo: Exogenous) -> None:
        """Move the cells on by one step of delivered power."""
        p_kw = own.delivered_p_kw
        # Of the two efficiencies the one that leaves less in the cell applies, whatever the sign.
        taken = np.maximum(p_kw * self._soc_per_discharged_kw, p_kw * self._soc_per_charged_kw)
        soc = self.soc - taken
        if self._soc_drain is not None:
            soc -= self._soc_drain
        self.soc = np.minimum(np.maximum(soc, self._zero, out=soc), self._one, out=soc)
        throughput = np.abs(p_kw) * self._hours
        self.terms = {"throughput_kwh": throughput, "storage_wear_usd": throughput * self._wear}
        self.cycles = self.cycles + throughput * self._cycles_per_kwh


def _fill_powers(spec: StorageSpec) -> tuple[float, float, float]:
    """Return the discharging, charging and apparent power of a battery with its defaults [kW, kW, kVA]."""
    discharge = float(spec.p_max_kw or 0.0)
    charge = discharge if spec.p_charge_max_kw is None else spec.p_charge_max_kw
    return discharge, charge, max(discharge, charge) if spec.s_max_kva is None else spec.s_max_kva
