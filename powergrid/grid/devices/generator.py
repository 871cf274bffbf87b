"""Dispatchable generators: minimum output, ramps, starts and fuel; no minimum up or down times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from powergrid.grid.devices.fleet import PowerFleet
from powergrid.grid.devices.projection import Request
from powergrid.grid.devices.spec import ActionSpec, Exogenous, FloatArray, PlacedSpec, Rows, StateSpec


class GeneratorSpec(PlacedSpec):
    """What YAML may say about a generator; fuel costs ``a·p² + b·p + c`` in USD/h while it runs."""

    element_classes: ClassVar[tuple[str, ...]] = ("Generator",)
    ratings: ClassVar[tuple[str, ...]] = ("p_max_kw",)

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
        previous_p_kw: Setpoint of the last step, from which ramps are counted [kW], shape (n_envs, n).
    """

    kind: ClassVar[str] = "generator"
    required: ClassVar[tuple[str, ...]] = ("p_max_kw",)
    memory: ClassVar[tuple[str, ...]] = (*PowerFleet.memory, "on", "previous_p_kw", "_next_on")
    numbers: ClassVar[tuple[str, ...]] = (*PowerFleet.numbers, "on", "generation_cost_usd", "starts")

    def __init__(self, devices: Mapping[str, GeneratorSpec], dt_h: float, horizon_steps: int) -> None:
        super().__init__(devices, dt_h, horizon_steps)
        actions, states = [], []
        for name, spec in devices.items():
            p_max = float(spec.p_max_kw or 0.0)
            s = 1.25 * p_max if spec.s_max_kva is None else spec.s_max_kva
            actions.append(ActionSpec(name, "p_kw", "kW", 0.0, p_max))
            states.append(StateSpec(name, "p_kw", "kW", 0.0, p_max))
            states.append(StateSpec(name, "on", "", 0.0, 1.0))
            if spec.reactive:
                actions.append(ActionSpec(name, "q_kvar", "kvar", -s, s))
                states.append(StateSpec(name, "q_kvar", "kvar", -s, s))
        self.actions, self.states = tuple(actions), tuple(states)

    def _precompute(self) -> None:
        """Fold ratings, ramps and costs into the constants of the hot path."""
        p_max, p_min = self._values("p_max_kw"), self._values("p_min_kw")
        s = self._tile([spec.s_max_kva or 1.25 * float(spec.p_max_kw or 0.0) for spec in self.specs])
        self._zero, self._p_max = np.zeros_like(s), np.minimum(p_max, s)
        self._limit_reactive(s[0])
        self._p_min = np.minimum(p_min, self._p_max)
        self._on_initial = np.array([spec.initially_on for spec in self.specs], dtype=np.float64)
        self._on_from = np.maximum(p_min / 2, 1e-9 * p_max)
        ramps = [spec.ramp_kw_per_min for spec in self.specs]
        step_min = 60 * self.dt_h
        self._ramp = np.minimum(self._tile([np.inf if ramp is None else ramp * step_min for ramp in ramps]), p_max)
        self._jump = np.maximum(self._p_min, self._ramp)
        self._jump_less_ramp = self._jump - self._ramp
        dt = self.dt_h
        self._a, self._b = self._values("cost_a_usd_per_kw2h") * dt, self._values("cost_b_usd_per_kwh") * dt
        self._c, self._start_usd = self._values("cost_c_usd_per_h") * dt, self._values("start_cost_usd")

    def _allocate(self, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
        self._p_columns, _ = self._columns(self.actions, "p_kw")
        self._precompute()
        self.on, self.previous_p_kw, self._next_on = self._ledger["on"], np.zeros(shape), np.zeros(shape)
        self._floor, self._ceiling = np.zeros(shape), np.zeros(shape)
        self._asked_on, self._runs_on = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        self._cost, self._starts = self._ledger["generation_cost_usd"], self._ledger["starts"]
        self.terms = {"generation_cost_usd": self._cost, "starts": self._starts}
        return {"p_kw": self.delivered_p_kw, "on": self.on, "q_kvar": self.delivered_q_kvar}

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        self.on[rows] = self._next_on[rows] = self._on_initial
        power = self._on_initial * self._p_min[rows]
        self.p_kw[rows] = self.requested_p_kw[rows] = self.previous_p_kw[rows] = self.delivered_p_kw[rows] = power

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions for off and 0 kvar, shape (n_envs, n_actions)."""
        action = np.zeros((self.n_envs, len(self.actions)))
        action[:, self._p_columns] = -1.0
        return action

    def _find_requests(self) -> Request:
        """Say what the actions mean: power, held to the kVA rating."""
        request = super()._find_requests()
        s = [np.inf if spec.s_max_kva is None else spec.s_max_kva for spec in self.specs]
        np.minimum(request.high[0], s, out=request.high[0])
        return request

    def limit(self, exo: Exogenous) -> None:
        """Limit what is asked to on/off, ramp and output limits; the kVA circle comes after.

        Below half of ``p_min_kw`` (or at 0) off is asked, up to ``p_min_kw`` that. While running, power
        changes by at most the ramp; a start may reach, and a stop may leave from, the larger of ``p_min_kw``
        and the ramp; from higher up a generator told to stop ramps down first.
        """
        asked, p, previous, on = self.requested_p_kw, self.p_kw, self.previous_p_kw, self._next_on
        asked_on, runs_on = self._asked_on, self._runs_on
        np.greater_equal(asked, self._on_from, out=asked_on)
        on[...] = np.logical_or(asked_on, np.greater(previous, self._jump, out=runs_on), out=asked_on)
        np.maximum(asked, self._p_min, out=p)
        np.maximum(p, np.subtract(previous, self._ramp, out=self._floor), out=p)
        # Off, the ceiling is the jump from 0; running, it is the ramp from the last setpoint.
        ceiling = np.add(previous, self._jump, out=self._ceiling)
        np.subtract(ceiling, np.multiply(self.on, self._jump_less_ramp, out=self._floor), out=ceiling)
        np.minimum(np.minimum(p, ceiling, out=p), self._p_max, out=p)
        np.multiply(p, on, out=p)
        if self.reactive:
            np.multiply(self.q_kvar, on, out=self.q_kvar)

    def move_on(self, exo: Exogenous) -> None:
        """Pay for the delivered power and for starts."""
        p_kw = self.delivered_p_kw
        starts, cost = self._starts, self._cost
        np.maximum(np.subtract(self._next_on, self.on, out=starts), self._zero, out=starts)
        self.on[...] = self._next_on
        self.previous_p_kw[...] = self.p_kw
        np.add(np.multiply(p_kw, self._a, out=cost), self._b, out=cost)
        np.multiply(cost, p_kw, out=cost)
        np.add(cost, self.on * self._c, out=cost)
        np.add(cost, starts * self._start_usd, out=cost)
