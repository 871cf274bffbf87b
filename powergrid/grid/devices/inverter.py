"""Photovoltaic inverters: curtailment and reactive power under IEEE 1547; the sun comes from outside."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from powergrid.grid.devices.fleet import PowerFleet, Powers, Request
from powergrid.grid.devices.spec import ActionSpec, Exogenous, FloatArray, PowerSpec, Rows, StateSpec

_ABSORB_PU = {"none": 0.0, "kva": 1.0, "category_a": 0.25, "category_b": 0.44}
_INJECT_PU = {"none": 0.0, "kva": 1.0, "category_a": 0.44, "category_b": 0.44}


class InverterSpec(PowerSpec):
    """What YAML may say about a photovoltaic inverter."""

    element_classes: ClassVar[tuple[str, ...]] = ("PVSystem", "Generator")
    native: ClassVar[bool] = True
    modelled: ClassVar[bool] = True
    ratings: ClassVar[tuple[str, ...]] = ("p_max_kw",)
    drawn: ClassVar[tuple[str, ...]] = ("p_max_kw", "s_max_kva", "p_limit_kw", "power_factor_min")

    kind: Literal["inverter"] = Field(description="Kind of the device.")
    p_max_kw: float | None = Field(default=None, gt=0, description="Power of the panels in full sun.")
    s_max_kva: float | None = Field(
        default=None, gt=0, description="Apparent-power rating of the inverter; 1.1 times `p_max_kw` if unset."
    )
    p_limit_kw: float | None = Field(
        default=None, gt=0, description="Most active power that the inverter lets through; its kVA rating if unset."
    )
    curtailable: bool = Field(default=True, description="Whether an agent may take less than the sun offers.")
    reactive: Literal["none", "kva", "category_a", "category_b"] = Field(
        default="none",
        description="Reactive power an agent decides: none, the whole kVA circle, or IEEE 1547-2018 Table 7.",
    )
    priority: Literal["watt", "var"] = Field(
        default="watt", description="Which power gives way last where the kVA circle cannot hold both."
    )
    power_factor_min: float | None = Field(
        default=None, gt=0, le=1, description="Lowest power factor reactive power may lead to; no limit if unset."
    )


class InverterFleet(PowerFleet[InverterSpec]):
    """All the inverters: the sun is the ceiling, then the kVA circle with watt or var priority.

    Attributes:
        available_kw: What the sun offered in the last step [kW], shape (n_envs, n).
    """

    kind: ClassVar[str] = "inverter"
    required: ClassVar[tuple[str, ...]] = ("p_max_kw",)
    limited: ClassVar[tuple[str, ...]] = ("available_kw",)
    memory: ClassVar[tuple[str, ...]] = ("available_kw",)

    def __init__(self, devices: Mapping[str, InverterSpec], dt_h: float, horizon_steps: int, n_envs: int = 1) -> None:
        super().__init__(devices, dt_h, horizon_steps, n_envs)
        actions, states = [], []
        for name, spec in devices.items():
            p_max = float(spec.p_max_kw or 0.0)
            s = 1.1 * p_max if spec.s_max_kva is None else spec.s_max_kva
            states.append(StateSpec(name, "available_kw", "kW", 0.0, p_max))
            states.append(StateSpec(name, "p_kw", "kW", 0.0, p_max))
            if spec.curtailable:
                actions.append(ActionSpec(name, "p_kw", "kW", 0.0, p_max))
            if spec.reactive != "none":
                low, high = spec.q_range(_ABSORB_PU[spec.reactive] * s, _INJECT_PU[spec.reactive] * s)
                actions.append(ActionSpec(name, "q_kvar", "kvar", low, high))
                states.append(StateSpec(name, "q_kvar", "kvar", low, high))
        self._take_tables(actions, states)
        self._set_constants()
        self.available_kw = self._zeros()
        self.terms = {"curtailed_kwh": self._zeros()}

    def _set_constants(self) -> None:
        """Fold ratings and the reactive rules into the constants of the hot path."""
        self._p_max = self._values("p_max_kw")
        s = self._tile([spec.s_max_kva or 1.1 * float(spec.p_max_kw or 0.0) for spec in self.specs])
        self._s2, self._zero, self._one, self._hours = s * s, 0.0 * s, 0.0 * s + 1.0, 0.0 * s + self.dt_h
        self._square_ratings(s[0])
        self.circle[1] = [spec.priority == "watt" for spec in self.specs]
        self._var_first = self._tile(1 - self.circle[1])
        self.gives_way = self.reactive and bool(self._var_first.any())
        # Category capability against output: none under 5 %, in proportion up to 20 %, full above.
        p_rated = np.minimum(self._p_max, s)
        category = self._tile([spec.reactive.startswith("category") for spec in self.specs]) > 0
        self._any_category = bool(category.any())
        self._scale_slope = np.where(category, 1 / (0.2 * p_rated), 0.0)
        self._scale_offset = np.where(category, 0.0, 1.0)
        self._scale_from = np.where(category, 0.05 * p_rated, 0.0)
        self._inject = self._tile([_INJECT_PU[spec.reactive] for spec in self.specs]) * s
        self._absorb = self._tile([-_ABSORB_PU[spec.reactive] for spec in self.specs]) * s
        limits = [np.inf if spec.p_limit_kw is None else spec.p_limit_kw for spec in self.specs]
        self._through = np.minimum(s, self._tile(limits))
        factor = self._tile([spec.power_factor_min or 0.0 for spec in self.specs])
        self._any_factor = bool((factor > 0).any())
        sine = np.sqrt(1 - factor * factor)
        # Reactive power up to p·tan(phi) and s·sin(phi) keeps the factor even where p gives way to q.
        self._tangent = np.where(factor > 0, sine / np.where(factor > 0, factor, 1.0), 0.0)
        self._factor_floor = np.where(factor > 0, 0.0, s)
        self._factor_ceiling = np.where(factor > 0, s * sine, s)

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        """Start in the dark: nothing is remembered between episodes."""

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions for all the sun and 0 kvar, shape (n_envs, n_actions)."""
        return self._left_alone

    @functools.cached_property
    def _left_alone(self) -> FloatArray:
        return self._tile([1.0 if row.name == "p_kw" else -row.offset / row.gain for row in self.actions])

    def _find_request(self) -> Request:
        """Say what the actions mean: that on p is a share of what the sun offers, all of it where p is no agent's."""
        request = super()._find_request()
        shares = request.columns[0] >= 0
        request.gain[0], request.offset[0] = 0.5 * shares, np.where(shares, 0.5, 1.0)
        request.low[0], request.high[0] = 1.0 - shares, 1.0
        return request

    def limit(self, own: Powers, exo: Exogenous) -> None:
        """Limit what is asked to the sun and to the reactive capability; the kVA circle comes after.

        The action on p is a share of what the sun offers: -1 is nothing, +1 is all of it.

        Source:
            IEEE Std 1547-2018, 5.2 and Table 7: reactive power of 44 % of the kVA rating injected, and 25 %
            (category A) or 44 % (category B) absorbed, from 20 % of rated active power on; in proportion to
            active power between 5 % and 20 %; below 5 % none is required, and here none is given.
        """
        self.available_kw = np.minimum(np.maximum(exo.sun_kw, self._zero), self._p_max)
        asked, p, q = own.asked_p_kw, own.p_kw, own.q_kvar
        np.minimum(np.multiply(asked, self.available_kw, out=asked), self._through, out=p)
        if self._any_category:
            scale = p * self._scale_slope
            np.minimum(np.add(scale, self._scale_offset, out=scale), self._one, out=scale)
            np.copyto(scale, self._zero, where=p < self._scale_from)
            np.minimum(np.maximum(q, scale * self._absorb, out=q), scale * self._inject, out=q)
        if self._any_factor:
            room = np.minimum(p * self._tangent + self._factor_floor, self._factor_ceiling)
            np.maximum(np.minimum(q, room), -room, out=q)

    def give_way(self, own: Powers) -> None:
        """Let active power give way where reactive power has priority."""
        p, q = own.p_kw, own.q_kvar
        np.minimum(p, np.sqrt(np.maximum(self._s2 - q * q * self._var_first, self._zero)), out=p)

    def move_on(self, own: Powers, exo: Exogenous) -> None:
        """Count what the sun offered in vain."""
        lost = np.maximum(self.available_kw - own.delivered_p_kw, self._zero)
        self.terms = {"curtailed_kwh": lost * self._hours}
