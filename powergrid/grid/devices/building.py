"""Offices that are cooled: five thermal zones, air flows and a discharge temperature in, electric power out.

Linear dynamics of a building with the air system of a large office; no heating, no humidity, no people of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from powergrid.grid.devices.fleet import PowerFleet, Powers, Request
from powergrid.grid.devices.spec import ActionSpec, Exogenous, FloatArray, PlacedSpec, Rows, StateSpec

#: Zones 1 to 5: what stays of a temperature after a step of five minutes, and kelvins a step for each kelvin that it is
#: warmer outside, each kg K/s of cooler air blown in, each kelvin that the neighbour is warmer, each kW of sun.
#: Source: the identified five-zone model of NREL's PowerGridworld (Biagioni et al., ACM e-Energy 2022, arXiv
#: 2111.05969), which names no unit of the sun; taken as kW.
_STAYS = np.array([0.9961, 0.998, 0.99402, 0.9941, 0.99673])
_OUTSIDE = np.array([0.0027886, 0.0030471, 0.0040229, 0.0055396, 0.0015872])
_AIR = np.array([0.01273, 0.031063, 0.013401, 0.03525, 0.0043806])
_NEIGHBOUR = np.array([0.0080364, 0.01201, 0.0044284, 0.0029069, 0.001])
_SUN = np.array([0.015767, 0.022105, 0.012504, 0.021674, 0.0080219])
#: The neighbour of each zone, and the temperature that zones tend to with what people and machines give [°C].
_NEXT = np.array([4, 4, 3, 2, 2])
_MEAN_C = 25.604
_MODEL_STEP_H = 5.0 / 60.0
#: Flow of air into each zone, least and largest [kg/s], and temperature of that air [°C]. Same source.
FLOW_MIN_KG_S, FLOW_MAX_KG_S = (0.22, 0.22, 0.22, 0.22, 0.32), (2.2, 2.2, 2.2, 2.2, 3.2)
DISCHARGE_C = (10.0, 16.0)
#: Power of the fans by the cube of all the flow, and at rest [kW/(kg/s)³], [kW]. Same source.
_FAN, _FAN_IDLE_KW = 0.0076, 4.8865
#: Specific heat of air, with which its heat is power; 1 where the source has it [kJ/(kg K)].
_AIR_KJ_PER_KG_K = 1.0
#: By how much of its range a design day is cooler than its peak, hour by hour from 1 on.
#: Source: ASHRAE Handbook Fundamentals 2021, chapter 14, table 6.
_COOLER = (0.88, 0.92, 0.95, 0.98, 1.0, 0.98, 0.91, 0.74, 0.55, 0.38, 0.23, 0.13,
           0.05, 0.0, 0.0, 0.06, 0.14, 0.24, 0.39, 0.5, 0.59, 0.68, 0.75, 0.82)  # fmt: skip
_N_ZONES = 5
_ZONES = tuple(f"zone_{i}_c" for i in range(1, _N_ZONES + 1))
#: Temperatures beyond which the linear model means nothing [°C], and power below which a building is off [kW].
_RANGE_C, _TINY_KW = (10.0, 45.0), 1e-9


class BuildingSpec(PlacedSpec):
    """What YAML may say about a cooled building; its day is a design day of ASHRAE, its sun that of the profiles."""

    element_classes: ClassVar[tuple[str, ...]] = ("Load",)
    drawn: ClassVar[tuple[str, ...]] = (
        *("scale", "temp_min_c", "temp_max_c", "temp_initial_c", "solar_gain_kw", "cop", "power_factor"),
    )

    kind: Literal["building"] = Field(description="Kind of the device.")
    scale: float = Field(
        default=1.0, gt=0, description="How many such buildings it stands for: multiplies power, not temperatures."
    )
    temp_min_c: float = Field(default=22.0, ge=10, le=40, description="Lower end of the comfort band.")
    temp_max_c: float = Field(default=28.0, ge=10, le=40, description="Upper end of the comfort band.")
    temp_initial_c: float = Field(default=27.0, ge=10, le=40, description="Temperature of all zones at the start.")
    outdoor_max_c: float = Field(default=35.0, ge=-20, le=50, description="Highest outdoor temperature of the day.")
    outdoor_range_k: float = Field(default=11.0, ge=0, le=30, description="By how much the night is cooler than that.")
    solar_gain_kw: float = Field(default=2.0, ge=0, description="Sun into each zone when panels have full sun.")
    cop: float = Field(
        default=1.0, gt=0, le=10, description="Heat that the chiller moves for each kWh; 1 in the source of the model."
    )
    power_factor: float = Field(default=1.0, gt=0, le=1, description="Power factor, inductive.")

    def find_problems(self) -> Iterable[str]:
        """Yield what contradicts between the keys."""
        yield from super().find_problems()
        if not self.temp_min_c < self.temp_max_c:
            yield f"temp_min_c {self.temp_min_c:g} is not below temp_max_c {self.temp_max_c:g}"

    @property
    def p_max_kw(self) -> float:
        """Most power that it draws: all the air at its coldest on the hottest hour [kW]."""
        flow = sum(FLOW_MAX_KG_S)
        heat_kw = max(0.0, _AIR_KJ_PER_KG_K * flow * (self.outdoor_max_c - DISCHARGE_C[0]))
        return self.scale * (_FAN * flow**3 + _FAN_IDLE_KW + heat_kw / self.cop)


class BuildingFleet(PowerFleet[BuildingSpec]):
    """All the cooled buildings: zones drift with weather and neighbours, and cool air costs power.

    With zones ``z`` of temperature T, air of flow m and temperature D, outdoors O and sun S, a step of five minutes is
    ``T' = 25.604 + a(T - 25.604) + b(O - T) + c m (D - T) + d (T_next - T) + e S`` zone by zone; longer or shorter
    steps play as many of these as they have, at least one, with coefficients of their length. Power is
    ``scale (0.0076 M³ + 4.8865 + max(0, M (O - D)) / cop)``, M the flow into all zones.

    Attributes:
        zone_1_c, ..., zone_5_c: Temperature of each zone [°C], shape (n_envs, n).
        outdoor_c: Outdoor temperature of the step to come [°C], shape (n_envs, n).
        first_step: Step of the day that step 0 is, read at `reset`, shape (n_envs,).
        flow_kg_s: Flow of air into each zone, as set, shape (n_envs, n, 5).
        discharge_c: Temperature of that air, as set [°C], shape (n_envs, n).

    Source:
        Biagioni et al., PowerGridworld, ACM e-Energy 2022, arXiv 2111.05969, and its repository.
    """

    kind: ClassVar[str] = "building"
    reads: ClassVar[bool] = True
    limited: ClassVar[tuple[str, ...]] = ("flow_kg_s", "discharge_c")
    memory: ClassVar[tuple[str, ...]] = (*_ZONES, "outdoor_c", "flow_kg_s", "discharge_c")

    def __init__(self, devices: Mapping[str, BuildingSpec], dt_h: float, horizon_steps: int, n_envs: int = 1) -> None:
        super().__init__(devices, dt_h, horizon_steps, n_envs)
        actions, states = [], []
        for name, spec in devices.items():
            for i, (low, high) in enumerate(zip(FLOW_MIN_KG_S, FLOW_MAX_KG_S, strict=True), start=1):
                actions.append(ActionSpec(name, f"flow_{i}", "kg/s", low, high))
            actions.append(ActionSpec(name, "discharge", "°C", *DISCHARGE_C))
            states += [StateSpec(name, zone, "°C", *_RANGE_C) for zone in _ZONES]
            states.append(StateSpec(name, "outdoor_c", "°C", spec.outdoor_max_c - 30.0, spec.outdoor_max_c + 1.0))
            states.append(StateSpec(name, "p_kw", "kW", -spec.p_max_kw, 0.0))
        self._take_tables(actions, states)
        self._set_constants()
        for zone in _ZONES:
            setattr(self, zone, self._zeros())
        self.outdoor_c, self.discharge_c = self._zeros(), self._zeros()
        self.flow_kg_s = np.zeros((n_envs, self.n, _N_ZONES))
        self.terms = {"hvac_kwh": self._zeros(), "discomfort_k2h": self._zeros()}

    def _set_constants(self) -> None:
        """Fold the model, the step's length and the weather of the day into the constants of the hot path."""
        rows = [(row.low, row.high) for row in self.actions]
        low, high = np.array(rows).reshape(self.n, _N_ZONES + 1, 2).transpose(2, 0, 1)
        self._gain, self._offset = (high - low) / 2.0, (high + low) / 2.0
        self._parts = max(1, round(self.dt_h / _MODEL_STEP_H))
        length = self.dt_h / self._parts / _MODEL_STEP_H
        self._stays = _STAYS**length
        # of what drives a zone for a step, as much as it would leave of it in steps of five minutes
        self._driven = (1.0 - self._stays) / (1.0 - _STAYS)
        self._scale, self._cop = self._values("scale"), self._values("cop")
        self._low_c, self._high_c = (self._values(key)[..., None] for key in ("temp_min_c", "temp_max_c"))
        self._initial_c = self._values("temp_initial_c")
        self._solar_kw = self._values("solar_gain_kw")[..., None]
        self._kvar_per_kw = np.tan(np.arccos(self._values("power_factor")))
        self.first_step = np.zeros(self.n_envs, dtype=np.int64)
        n_steps = self.horizon_steps + 1 + int(np.ceil(24.0 / self.dt_h))  # an episode may start at any of a day
        hours = (np.arange(n_steps) * self.dt_h) % 24.0
        cooler = np.interp(hours, np.arange(25), [_COOLER[-1], *_COOLER])
        peak, span = (np.array([getattr(s, key) for s in self.specs]) for key in ("outdoor_max_c", "outdoor_range_k"))
        self._outdoor_c = peak - cooler[:, None] * span

    def _find_request(self) -> Request:
        """Say that no action is a power: :meth:`read` takes them."""
        return Request(np.full((2, self.n), -1.0), *np.zeros((4, 2, self.n)))

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        for zone in _ZONES:
            getattr(self, zone)[rows] = self._initial_c[rows]
        self.outdoor_c[rows] = self._outdoor_c[self.first_step[rows]]

    def zones_c(self) -> FloatArray:
        """Return the temperature of every zone [°C], shape (n_envs, n, 5)."""
        return np.stack([getattr(self, zone) for zone in _ZONES], axis=2)

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions of thermostats with a supply air reset, shape (n_envs, n_actions).

        The flow into a zone rises from its least in the middle of the comfort band to its largest at the upper end, and
        the air gets colder with the zone that is nearest to that end.
        """
        middle = (self._low_c + self._high_c) / 2.0
        share = np.clip((self.zones_c() - middle) / (self._high_c - middle), 0.0, 1.0)
        action = np.zeros((self.n_envs, self.n, _N_ZONES + 1))
        action[:, :, :_N_ZONES] = 2.0 * share - 1.0
        action[:, :, _N_ZONES] = 1.0 - 2.0 * share.max(axis=2)
        return action.reshape(self.n_envs, -1)

    def read(self, action: FloatArray) -> None:
        """Take flows and discharge temperatures from actions, shape (n_envs, n_actions)."""
        asked = action.reshape(self.n_envs, self.n, _N_ZONES + 1)
        asked = np.clip(asked, -1.0, 1.0) * self._gain + self._offset
        self.flow_kg_s, self.discharge_c = asked[:, :, :_N_ZONES].copy(), asked[:, :, _N_ZONES].copy()

    def limit(self, own: Powers, exo: Exogenous) -> None:
        """Set the power that flows and discharge temperature take; whatever is asked is feasible."""
        flow = self.flow_kg_s.sum(axis=2)
        heat_kw = np.maximum(0.0, _AIR_KJ_PER_KG_K * flow * (self.outdoor_c - self.discharge_c))
        own.asked_p_kw[...] = -self._scale * (_FAN * flow**3 + _FAN_IDLE_KW + heat_kw / self._cop)
        own.p_kw[...] = own.asked_p_kw
        own.asked_q_kvar[...] = own.asked_p_kw * self._kvar_per_kw
        own.q_kvar[...] = own.asked_q_kvar

    def move_on(self, own: Powers, exo: Exogenous) -> None:
        """Let zones warm and cool for a step; air flows as far as its power was delivered."""
        served = np.clip(own.delivered_p_kw / np.minimum(own.p_kw, -_TINY_KW), 0.0, 1.0)
        zones, flow = self.zones_c(), self.flow_kg_s * served[..., None]
        sun_kw = self._solar_kw * (0.0 if exo.sun_pu is None else exo.sun_pu[:, None, None])
        outdoor, discharge = self.outdoor_c[..., None], self.discharge_c[..., None]
        for _ in range(self._parts):
            driven = _OUTSIDE * (outdoor - zones) + _AIR * flow * (discharge - zones)
            driven += _NEIGHBOUR * (zones[:, :, _NEXT] - zones) + _SUN * sun_kw
            zones = np.clip(_MEAN_C + self._stays * (zones - _MEAN_C) + self._driven * driven, *_RANGE_C)
        for i, zone in enumerate(_ZONES):
            setattr(self, zone, zones[:, :, i].copy())
        row = np.minimum(exo.step + 1, self.horizon_steps) + self.first_step
        self.outdoor_c = self._outdoor_c.take(row, axis=0)
        beyond = np.maximum(np.maximum(zones - self._high_c, self._low_c - zones), 0.0)
        self.terms = {
            "hvac_kwh": -own.delivered_p_kw * self.dt_h,
            "discomfort_k2h": (beyond * beyond).sum(axis=2) * self._scale * self.dt_h,
        }
