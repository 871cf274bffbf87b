"""Rules of what gives or takes power as its agent says: panels, batteries and generators."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices.spec import ActionSpec
from powergrid.rules.fleet_rule import FleetRule
from powergrid.rules.planning import SOC_POINTS, GeneratorPlanner, StoragePlanner
from powergrid.rules.ruled import RuledTask
from powergrid.rules.shared import Shared

FloatArray = npt.NDArray[np.float64]

#: Bytes of plans that are kept, by the day's prices: a tariff has a few days that differ, a market hundreds.
_KEPT_BYTES = 2**24


class InverterRule(FleetRule):
    """All the sun, less what volt-watt droop and limiter take; reactive power by the volt-var droop."""

    start: ClassVar[dict[str, float]] = {"share": 1.0}

    def __init__(self, task: RuledTask, fleet: Any, shared: Shared) -> None:
        super().__init__(task, fleet, shared)
        self._p_max, self._s_max = self.ratings("p_max_kw"), self.ratings("s_max_kva", 1.1)
        self._s_squared, self._base = self._s_max**2, np.minimum(self._p_max, self._s_max)
        self._category = self.tile([spec.reactive.startswith("category") for spec in fleet.specs]) > 0.0
        # Where no power factor is asked, the tangent is as good as none.
        factor = np.array([spec.power_factor_min or 0.0 for spec in fleet.specs])
        self._tangent = self.tile(np.where(factor > 0, np.sqrt(1 - factor**2) / np.where(factor > 0, factor, 1.0), 1e6))
        self._zeros, self._ones = np.zeros_like(self._p_max), np.ones_like(self._p_max)
        first, last = self.constants.volt_watt_pu
        self._over = shared.gauges.follow("zone_v_max_pu", self.zone, first, last - first)

    def read_unit(self, action: ActionSpec) -> ActionSpec:
        """Return the action on power with the bounds of what it is, a share of the sun."""
        return dataclasses.replace(action, low=0.0, high=1.0) if action.name == "p_kw" else action

    def look_ahead(self, task: RuledTask) -> None:
        """Tell the limiter what the volt-watt droop leaves of the sun to come."""
        c, asked = self.constants, self.memory["share"]
        move = self.shared.gauges.parts[:, self._over] * (1.0 - c.volt_watt_floor)
        np.subtract(self._ones, move, out=move)
        move -= asked
        move *= c.volt_var_step
        asked += move
        self._sun_kw = self.sun_kw(task)
        self._would_kw = self._sun_kw * (asked if self.all_mine else np.where(self.mine > 0.0, asked, self._ones))
        self.shared.limiter.expect("inverter", self._would_kw)

    def write(self, task: RuledTask) -> None:
        """Ask for shares of the sun."""
        sun_kw = self._sun_kw
        p = self._would_kw - self.shared.limiter.lower("inverter", self.own(self._would_kw))
        share = np.where(sun_kw > 0.0, p / np.maximum(sun_kw, 1e-9), self._ones)
        self.ask("p_kw", share)
        if "q_kvar" in self.acts:
            self.set_room(self.reactive_room(sun_kw, share))

    def sun_kw(self, task: RuledTask) -> FloatArray:
        """Return what the sun offers in the step to come, shape (n_envs, n) [kW]."""
        sun = task.simulation.day_pv_pu.reshape(-1).take(task.simulation.row)
        offered: FloatArray = np.minimum(np.maximum(sun, 0.0), 1.0)[:, None] * self._p_max
        return offered

    def reactive_room(self, sun_kw: FloatArray, share: FloatArray) -> FloatArray:
        """Return the reactive power that a share of the sun leaves room for, shapes (n_envs, n) [kvar]."""
        p = np.minimum(sun_kw * share, self._s_max)
        room = np.sqrt(np.maximum(self._s_squared - p * p, self._zeros))
        np.minimum(room, p * self._tangent, out=room)
        # Capability of the categories: none below 5 % of the rating, in proportion up to 20 %, all above.
        part = p / self._base
        scale = np.where(part < 0.05, self._zeros, np.minimum(part / 0.2, self._ones))
        allowed: FloatArray = np.where(self._category, np.minimum(room, scale * 0.44 * self._s_max), room)
        return allowed


class StorageRule(FleetRule):
    """Charge in cheap hours and discharge in dear ones where that pays; help where the zone is in trouble."""

    start: ClassVar[dict[str, float]] = {"support": 0.0}

    def __init__(self, task: RuledTask, fleet: Any, shared: Shared) -> None:
        super().__init__(task, fleet, shared)
        self._planner = StoragePlanner(fleet.specs, self.dt_h)
        horizon = task.simulation.options.horizon_steps
        self._plans = np.full((task.n_envs, horizon, fleet.n, SOC_POINTS), self._planner.idle, dtype=np.uint8)
        self._plan_day = functools.lru_cache(_KEPT_BYTES // self._plans[0].nbytes)(self._plan)
        self._discharge, self._charge = self.ratings("p_max_kw"), self.ratings("p_charge_max_kw")
        rated = [spec.s_max_kva or max(spec.p_max_kw, spec.p_charge_max_kw or 0.0) for spec in fleet.specs]
        self._s_squared = self.tile(rated) ** 2
        self._e_max, eta_c, self._eta_d, self._soc_min, self._soc_max = (
            self.tile([getattr(spec, key) for spec in fleet.specs])
            for key in ("e_max_kwh", "eta_charge", "eta_discharge", "soc_min", "soc_max")
        )
        self._per_step, self._minus_charge = eta_c * self.dt_h, -self._charge
        self._zeros, self._ones = np.zeros_like(eta_c), np.ones_like(eta_c)
        self._sunny = _find_sunny_agents(task)[self.zone]
        (low, high), (v_span, loading_span) = task.metrics.limits, self.constants.support_pu
        follow = shared.gauges.follow
        self._short = follow("zone_v_min_pu", self.zone, low, -v_span)
        self._over = follow("zone_v_max_pu", self.zone, high, v_span)
        self._overload = follow("zone_loading_pu", self.zone, 1.0, loading_span)
        self._imports = follow("zone_kva", self.zone, 0.0, 1.0)

    def reset(self, task: RuledTask, env: int) -> None:
        """Plan the day by its prices."""
        super().reset(task, env)
        self._plans[env] = self._plan_day(self.prices(task, env).tobytes())

    def _plan(self, prices: bytes) -> npt.NDArray[np.uint8]:
        """Return the plan of a day by its prices, from a tariff or a day-ahead market: known at midnight."""
        price = np.frombuffer(prices)
        mean = float(price.mean())
        level = abs(mean)
        hour = (np.arange(len(price)) * self.dt_h) % 24.0
        # From 8:30 to 16:30: what is not charged then is curtailed or lifts the zone's voltage.
        noon = np.maximum(np.cos((hour - 12.5) * (np.pi / 8.0)), 0.0)
        known = price[:, None] - self.constants.noon_share * level * noon[:, None] * self._sunny
        return self._planner.plan(known, mean, self.constants.spread_share * level)

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what it remembers: its plans as well."""
        return [*super().memories(), self._plans]

    def write(self, task: RuledTask) -> None:
        """Ask for active power by plan and need."""
        soc, parts, zeros = self.fleet.soc, self.shared.gauges.parts, self._zeros
        need = parts[:, self._short] - parts[:, self._over]
        # An overload asks for discharging where the zone imports; where it exports, the limiter says how much.
        need += (parts[:, self._imports] > zeros) * parts[:, self._overload]
        np.minimum(need, self._ones, out=need)  # above -1 it is
        support = self.memory["support"]
        need -= support
        need *= self.constants.support_step
        support += need
        p = np.where(support > zeros, self._discharge, self._charge)
        p *= support
        step = np.minimum(task.simulation.step_index, self._plans.shape[1] - 1)
        p += self._planner.power(self._plans, step, soc)
        np.minimum(np.maximum(p, self._minus_charge, out=p), self._discharge, out=p)
        # Within what the window of the state of charge allows in one step.
        most = np.maximum(soc - self._soc_min, zeros) * self._e_max * self._eta_d / self.dt_h
        least = np.minimum(soc - self._soc_max, zeros) * self._e_max / self._per_step
        np.minimum(np.maximum(p, least, out=p), most, out=p)
        limiter = self.shared.limiter
        limiter.expect("storage", p)
        p = p - limiter.lower("storage", self.own(p - np.maximum(least, self._minus_charge)))
        self.ask("p_kw", p)
        self.leave_room(p, self._s_squared, zeros)


class GeneratorRule(FleetRule):
    """Run while the price pays fuel and start."""

    def __init__(self, task: RuledTask, fleet: Any, shared: Shared) -> None:
        super().__init__(task, fleet, shared)
        self._planner = GeneratorPlanner(fleet.specs, self.dt_h)
        self._plans = np.zeros((task.n_envs, task.simulation.options.horizon_steps, 2, fleet.n))
        self._plan_day = functools.lru_cache(_KEPT_BYTES // self._plans[0].nbytes)(self._plan)
        self._s_squared = self.ratings("s_max_kva", 1.25) ** 2
        ramps = [spec.ramp_kw_per_min for spec in fleet.specs]
        self._ramp = self.tile([np.inf if ramp is None else ramp * 60.0 * self.dt_h for ramp in ramps])
        self._ramps = bool(np.isfinite(self._ramp).any())
        # a start goes to the least power at once, however slow the ramp
        self._jump = np.maximum([spec.p_min_kw for spec in fleet.specs], self._ramp)
        self._zeros = np.zeros_like(self._jump)

    def reset(self, task: RuledTask, env: int) -> None:
        """Plan the day by its prices."""
        super().reset(task, env)
        self._plans[env] = self._plan_day(self.prices(task, env).tobytes())

    def _plan(self, prices: bytes) -> FloatArray:
        return self._planner.plan(np.frombuffer(prices))

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what it remembers: its plans as well."""
        return [*super().memories(), self._plans]

    def write(self, task: RuledTask) -> None:
        """Ask for active power."""
        on = self.fleet.on > 0.5
        step = np.minimum(task.simulation.step_index, self._plans.shape[1] - 1)
        planned = self._plans[task.simulation.env_index, step]
        p = np.where(on, planned[:, 1], planned[:, 0])
        if self._ramps:
            p = self._within_ramps(p, on)
        self.ask("p_kw", p)
        if "q_kvar" in self.acts:
            room = np.sqrt(np.maximum(self._s_squared - p * p, self._zeros))
            self.set_room(room * (p > self._zeros))

    def _within_ramps(self, p: FloatArray, on: npt.NDArray[np.bool_]) -> FloatArray:
        """Return what ramps allow, so that no rule's request is moved and counted as projection."""
        previous, jump = self.fleet.previous_p_kw, self._jump
        lowered = previous - self._ramp
        ceiling = np.where(on, previous + self._ramp, jump)
        floor = np.where(previous > jump, lowered, self._zeros)
        allowed: FloatArray = np.maximum(
            np.minimum(p, ceiling), np.where(p > self._zeros, np.maximum(floor, lowered), floor)
        )
        return allowed


def _find_sunny_agents(task: RuledTask) -> FloatArray:
    """Return 1 for agents whose inverters are rated above all the demand of their zone, shape (n_agents,)."""
    simulation = task.simulation
    demand = simulation.network.loads.kw @ task.channels.loads_in * simulation.options.load_scale
    specs = [[simulation.devices[name] for name in agent.devices] for agent in task.agents]
    rated = [sum(float(spec.p_max_kw) for spec in own if spec.kind == "inverter") for own in specs]
    return np.asarray(np.array(rated) > demand, dtype=np.float64)
