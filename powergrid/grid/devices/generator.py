"""Dispatchable generators: minimum output, ramps, starts and fuel; no minimum up or down times."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from powergrid.grid.devices.fleet import PowerFleet, Powers, Request
from powergrid.grid.devices.spec import ActionSpec, Exogenous, FloatArray, PowerSpec, Rows, StateSpec


class GeneratorSpec(PowerSpec):
    """What YAML may say about a generator; fuel costs ``a·p² + b·p + c`` in USD/h while it runs."""

    element_classes: ClassVar[tuple[str, ...]] = ("Generator",)
    modelled: ClassVar[bool] = True
    ratings: ClassVar[tuple[str, ...]] = ("p_max_kw",)
    drawn: ClassVar[tuple[str, ...]] = (
        *("p_min_kw", "p_max_kw", "s_max_kva", "ramp_kw_per_min", "cost_a_usd_per_kw2h", "cost_b_usd_per_kwh"),
        *("cost_c_usd_per_h", "start_cost_usd", "initially_on"),
    )

    kind: Literal["generator"] = Field(description="Kind of the device.")
    p_min_kw: float = Field(default=0.0, ge=0, description="Least power while running.")
    p_max_kw: float | None = Field(default=None, gt=0, description="Largest power.")
    s_max_kva: float | None = Field(
        default=None, gt=0, description="Apparent-power rating; 1.25 times `p_max_kw` (power factor 0.8) if unset."
    )
    ramp_kw_per_min: float | None = Field(
        default=None, gt=0, description="Fastest change of power while running; no limit if unset."
    )
    cost_a_usd_per_kw2h: float = Field(default=0.0, ge=0, description="Quadratic part of the fuel cost.")
    cost_b_usd_per_kwh: float = Field(default=0.0, ge=0, description="Linear part of the fuel cost.")
    cost_c_usd_per_h: float = Field(default=0.0, ge=0, description="Constant part of the fuel cost, while running.")
    start_cost_usd: float = Field(default=0.0, ge=0, description="Cost of each start.")
    reactive: bool = Field(default=False, description="Whether an agent decides reactive power as well.")
    initially_on: bool = Field(default=False, description="Whether it runs, at `p_min_kw`, when an episode starts.")

    def find_problems(self) -> Iterable[str]:
        """Yield what contradicts between the keys."""
        yield from super().find_problems()
        if self.p_max_kw is not None and self.p_min_kw > self.p_max_kw:
            yield f"p_min_kw {self.p_min_kw:g} is above p_max_kw {self.p_max_kw:g}; allowed is at most that"
        if self.p_max_kw is not None and self.s_max_kva is not None and self.p_max_kw > self.s_max_kva:
            yield f"p_max_kw {self.p_max_kw:g} is above s_max_kva {self.s_max_kva:g}; allowed is at most that"


class GeneratorFleet(PowerFleet[GeneratorSpec]):
    """All the generators: on or off first, then ramp and limits, then the kVA circle.

    Attributes:
        on: 1 while running, 0 while off, shape (n_envs, n).
        next_on: The same for the step that was projected last, shape (n_envs, n).
        previous_p_kw: Setpoint of the last step, from which ramps are counted [kW], shape (n_envs, n).
    """

    kind: ClassVar[str] = "generator"
    required: ClassVar[tuple[str, ...]] = ("p_max_kw",)
    limited: ClassVar[tuple[str, ...]] = ("next_on",)
    memory: ClassVar[tuple[str, ...]] = ("on", "previous_p_kw", "next_on")

    def __init__(self, devices: Mapping[str, GeneratorSpec], dt_h: float, horizon_steps: int, n_envs: int = 1) -> None:
        super().__init__(devices, dt_h, horizon_steps, n_envs)
        actions, states = [], []
        for name, spec in devices.items():
            p_max = float(spec.p_max_kw or 0.0)
            s = 1.25 * p_max if spec.s_max_kva is None else spec.s_max_kva
            actions.append(ActionSpec(name, "p_kw", "kW", 0.0, p_max))
            states.append(StateSpec(name, "p_kw", "kW", 0.0, p_max))
            states.append(StateSpec(name, "on", "", 0.0, 1.0))
            if spec.reactive:
                actions.append(ActionSpec(name, "q_kvar", "kvar", *spec.q_range(s, s)))
                states.append(StateSpec(name, "q_kvar", "kvar", *spec.q_range(s, s)))
        self._take_tables(actions, states)
        self._set_constants()
        self.on, self.next_on, self.previous_p_kw = self._zeros(), self._zeros(), self._zeros()
        self.terms = {"generation_cost_usd": self._zeros(), "starts": self._zeros()}

    def _set_constants(self) -> None:
        """Fold ratings, ramps and costs into the constants of the hot path."""
        p_max, p_min = self._values("p_max_kw"), self._values("p_min_kw")
        s = self._tile([spec.s_max_kva or 1.25 * float(spec.p_max_kw or 0.0) for spec in self.specs])
        self._square_ratings(s[0])
        self._zero = self._zeros()
        self._p_max = np.minimum(p_max, s)
        self._p_min = np.minimum(p_min, self._p_max)
        self._on_initial = self._values("initially_on")
        self._on_from = np.maximum(p_min / 2, 1e-9 * p_max)
        ramps = [spec.ramp_kw_per_min for spec in self.specs]
        step_min = 60 * self.dt_h
        self._ramp = np.minimum(self._tile([np.inf if ramp is None else ramp * step_min for ramp in ramps]), p_max)
        self._jump = np.maximum(self._p_min, self._ramp)
        self._jump_less_ramp = self._jump - self._ramp
        self._ramps = bool((self._ramp < p_max).any())
        dt = self.dt_h
        self._a, self._b = self._values("cost_a_usd_per_kw2h") * dt, self._values("cost_b_usd_per_kwh") * dt
        self._c, self._start_usd = self._values("cost_c_usd_per_h") * dt, self._values("start_cost_usd")

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        self.on[rows] = self.next_on[rows] = on = self._on_initial[rows]
        power = on * self._p_min[rows]
        self.p_kw[rows] = self.requested_p_kw[rows] = self.previous_p_kw[rows] = self.delivered_p_kw[rows] = power

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions for off and 0 kvar, shape (n_envs, n_actions)."""
        return self._left_alone

    @functools.cached_property
    def _left_alone(self) -> FloatArray:
        return self._tile([-1.0 if row.name == "p_kw" else -row.offset / row.gain for row in self.actions])

    def _find_request(self) -> Request:
        """Say what the actions mean: power, held to the kVA rating."""
        request = super()._find_request()
        s = [np.inf if spec.s_max_kva is None else spec.s_max_kva for spec in self.specs]
        np.minimum(request.high[0], s, out=request.high[0])
        return request

    def limit(self, own: Powers, exo: Exogenous) -> None:
        """Limit what is asked to on/off, ramp and output limits; the kVA circle comes after.

        Below half of ``p_min_kw`` (or at 0) off is asked, up to ``p_min_kw`` that. While running, power
        changes by at most the ramp; a start may reach, and a stop may leave from, the larger of ``p_min_kw``
        and the ramp; from higher up a generator told to stop ramps down first. One whose element has a shape gives no
        more than that offers, and is off where that is less than ``p_min_kw``.
        """
        asked, p_kw = own.asked_p_kw, own.p_kw
        previous, floor, ceiling = self.previous_p_kw, self._p_min, self._p_max
        wanted = asked >= self._on_from
        if self._ramps:  # else nothing stands between two setpoints, and these are the limits themselves
            wanted |= previous > self._jump
            # Off, the ceiling is the jump from 0; running, it is the ramp from the last setpoint.
            ceiling = np.minimum(previous + self._jump - self.on * self._jump_less_ramp, ceiling)
            floor = np.maximum(floor, previous - self._ramp)
        if exo.supplied_kw is not None:  # whatever the ramp: less wind is less wind
            ceiling = np.minimum(ceiling, exo.supplied_kw)
            wanted &= (ceiling >= self._p_min) & (ceiling > 0.0)
        self.next_on = on = np.empty(previous.shape)
        on[...] = wanted  # takes a third of what astype does
        np.minimum(np.maximum(asked, floor, out=p_kw), ceiling, out=p_kw)
        np.multiply(p_kw, on, out=p_kw)
        if self.reactive:
            np.multiply(own.q_kvar, on, out=own.q_kvar)

    def move_on(self, own: Powers, exo: Exogenous) -> None:
        """Pay for the delivered power and for starts."""
        p_kw = own.delivered_p_kw
        starts = np.maximum(self.next_on - self.on, self._zero)
        self.on, self.previous_p_kw = self.next_on, own.p_kw.copy()
        cost = (p_kw * self._a + self._b) * p_kw + self.on * self._c + starts * self._start_usd
        self.terms = {"generation_cost_usd": cost, "starts": starts}
