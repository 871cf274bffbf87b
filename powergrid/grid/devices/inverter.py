"""Photovoltaic inverters: curtailment and reactive power under IEEE 1547; the sun comes from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from powergrid.grid.devices.fleet import PowerFleet
from powergrid.grid.devices.spec import ActionSpec, Exogenous, FloatArray, PlacedSpec, StateSpec

_ABSORB_PU = {"none": 0.0, "kva": 1.0, "category_a": 0.25, "category_b": 0.44}
_INJECT_PU = {"none": 0.0, "kva": 1.0, "category_a": 0.44, "category_b": 0.44}


class InverterSpec(PlacedSpec):
    """What YAML may say about a photovoltaic inverter."""

    element_classes: ClassVar[tuple[str, ...]] = ("PVSystem",)
    native: ClassVar[bool] = True
    ratings: ClassVar[tuple[str, ...]] = ("p_max_kw",)

    kind: Literal["inverter"] = Field(description="Kind of the device.")
    p_max_kw: float | None = Field(default=None, gt=0, description="Power of the panels in full sun.")
    s_max_kva: float | None = Field(
        default=None, gt=0, description="Apparent-power rating of the inverter; 1.1 times `p_max_kw` if unset."
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
    memory: ClassVar[tuple[str, ...]] = (*PowerFleet.memory, "available_kw")

    def __init__(self, devices: Mapping[str, InverterSpec], dt_h: float, horizon_steps: int) -> None:
        super().__init__(devices, dt_h, horizon_steps)
        actions, states = [], []
        for name, spec in devices.items():
            p_max = float(spec.p_max_kw or 0.0)
            s = 1.1 * p_max if spec.s_max_kva is None else spec.s_max_kva
            states.append(StateSpec(name, "available_kw", "kW", 0.0, p_max))
            states.append(StateSpec(name, "p_kw", "kW", 0.0, p_max))
            if spec.curtailable:
                actions.append(ActionSpec(name, "p_kw", "kW", 0.0, p_max))
            if spec.reactive != "none":
                low, high = -_ABSORB_PU[spec.reactive] * s, _INJECT_PU[spec.reactive] * s
                actions.append(ActionSpec(name, "q_kvar", "kvar", low, high))
                states.append(StateSpec(name, "q_kvar", "kvar", low, high))
        self.actions, self.states = tuple(actions), tuple(states)

    def _precompute(self) -> None:
        """Fold ratings and the reactive rules into the constants of the hot path."""
        self._p_max = self._values("p_max_kw")
        self._curtailable = any(spec.curtailable for spec in self.specs)
        s = self._tile([spec.s_max_kva or 1.1 * float(spec.p_max_kw or 0.0) for spec in self.specs])
        self._s, self._s2 = s, s * s
        self._p_rated = np.minimum(self._p_max, s)
        self._watt_first = self._tile([spec.priority == "watt" for spec in self.specs])
        self._var_first = 1 - self._watt_first
        self._any_var_first = bool(self._var_first.any())
        # Category capability against output: none under 5 %, in proportion up to 20 %, full above.
        category = self._tile([spec.reactive.startswith("category") for spec in self.specs]) > 0
        self._any_category = bool(category.any())
        self._scale_slope = np.where(category, 1 / (0.2 * self._p_rated), 0.0)
        self._scale_offset = np.where(category, 0.0, 1.0)
        self._scale_from = np.where(category, 0.05 * self._p_rated, 0.0)
        self._inject = self._tile([_INJECT_PU[spec.reactive] for spec in self.specs]) * s
        self._absorb = self._tile([-_ABSORB_PU[spec.reactive] for spec in self.specs]) * s
        factor = self._tile([spec.power_factor_min or 0.0 for spec in self.specs])
        self._any_factor = bool((factor > 0).any())
        sine = np.sqrt(1 - factor * factor)
        # Reactive power up to p·tan(phi) and s·sin(phi) keeps the factor even where p gives way to q.
        self._tangent = np.where(factor > 0, sine / np.where(factor > 0, factor, 1.0), 0.0)
        self._factor_floor = np.where(factor > 0, 0.0, s)
        self._factor_ceiling = np.where(factor > 0, s * sine, s)

    def _allocate(self, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
        self._set_up_actions()
        self._precompute()
        self._hours = np.full(shape, self.dt_h)
        self._share_half = np.full((shape[0], sum(spec.curtailable for spec in self.specs)), 0.5)
        self.available_kw, self._share = np.zeros(shape), np.ones(shape)
        self._room, self._scale = np.zeros(shape), np.zeros(shape)
        self._curtailed = np.zeros(shape)
        self.terms = {"curtailed_kwh": self._curtailed}
        return {"available_kw": self.available_kw, "p_kw": self.delivered_p_kw, "q_kvar": self.delivered_q_kvar}

    def _start(self, env: int, rng: np.random.Generator) -> None:
        """Start in the dark: nothing is remembered between episodes."""

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Give the actions for all the sun and 0 kvar, shape (n_envs, n_actions)."""
        action = np.ones((self.n_envs, len(self.actions)))
        action[:, self._q_columns] = -self._q_mid / self._q_half
        return action

    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Limit what is asked to the sun, the reactive capability and the kVA circle.

        The action on p is a share of what the sun offers: -1 is nothing, +1 is all of it.

        Source:
            IEEE Std 1547-2018, 5.2 and Table 7: reactive power of 44 % of the kVA rating injected, and 25 %
            (category A) or 44 % (category B) absorbed, from 20 % of rated active power on; in proportion to
            active power between 5 % and 20 %; below 5 % none is required, and here none is given.
        """
        available, p, share = self.available_kw, self.requested_p_kw, self._share
        np.minimum(np.maximum(exo.sun_kw, self._zero, out=available), self._p_max, out=available)
        if self._curtailable:
            asked = action[:, self._p_columns] * self._share_half
            share[:, self._p_owners] = np.add(asked, self._share_half, out=asked)
            np.minimum(np.maximum(share, self._zero, out=share), self._one, out=share)
            np.multiply(share, available, out=p)
        else:
            p[...] = available
        np.minimum(p, self._s, out=self.p_kw)
        if self._reactive:
            self._read_reactive(action)
            self._limit_reactive()

    def _limit_reactive(self) -> None:
        """Bring ``requested_q_kvar`` within capability, factor and circle; let p give way to var priority."""
        p, q, room, zero = self.p_kw, self.q_kvar, self._room, self._zero
        q[...] = self.requested_q_kvar
        if self._any_category:
            scale = np.multiply(p, self._scale_slope, out=self._scale)
            np.minimum(np.add(scale, self._scale_offset, out=scale), self._one, out=scale)
            np.multiply(scale, p >= self._scale_from, out=scale)
            np.maximum(q, np.multiply(scale, self._absorb, out=room), out=q)
            np.minimum(q, np.multiply(scale, self._inject, out=room), out=q)
        np.multiply(np.multiply(p, p, out=room), self._watt_first, out=room)
        np.subtract(self._s2, room, out=room)
        np.sqrt(np.maximum(room, zero, out=room), out=room)
        if self._any_factor:
            factor = np.add(p * self._tangent, self._factor_floor)
            np.minimum(room, np.minimum(factor, self._factor_ceiling, out=factor), out=room)
        np.minimum(q, room, out=q)
        np.maximum(q, np.negative(room, out=room), out=q)
        if self._any_var_first:
            np.multiply(np.multiply(q, q, out=room), self._var_first, out=room)
            np.subtract(self._s2, room, out=room)
            np.minimum(p, np.sqrt(np.maximum(room, zero, out=room), out=room), out=p)

    def advance(self, p_kw: FloatArray, q_kvar: FloatArray, exo: Exogenous) -> None:
        """Keep what was delivered and count what the sun offered in vain, shape (n_envs, n)."""
        self.delivered_p_kw[...] = p_kw
        self.delivered_q_kvar[...] = q_kvar
        lost = self._curtailed
        np.maximum(np.subtract(self.available_kw, p_kw, out=lost), self._zero, out=lost)
        np.multiply(lost, self._hours, out=lost)
