"""Rules of what gives or takes power as its agent says: panels, batteries and generators."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from powergrid.rules.export_limiter import ExportLimiter
from powergrid.rules.fleet_rule import ReactiveRule, RuleConstants
from powergrid.rules.planning import SOC_POINTS, GeneratorPlanner, StoragePlanner
from powergrid.rules.ruled import RuledTask

FloatArray = npt.NDArray[np.float64]

#: Bytes of plans that are kept, by the day's prices: a tariff has a few days that differ, a market hundreds.
_KEPT_BYTES = 2**24


class InverterRule(ReactiveRule):
    """All the sun, less what volt-watt droop and limiter take; reactive power by the volt-var droop."""

    start: ClassVar[dict[str, float]] = {"q_kvar": 0.0, "share": 1.0}

    def __init__(
        self, task: RuledTask, fleet: Any, constants: RuleConstants, limiter: ExportLimiter | None = None
    ) -> None:
        super().__init__(task, fleet, constants, limiter)
        self._p_max, self._s_max = self.ratings("p_max_kw"), self.ratings("s_max_kva", 1.1)
        self._category = np.array([spec.reactive.startswith("category") for spec in fleet.specs])
        # Where no power factor is asked, the tangent is as good as none.
        factor = np.array([spec.power_factor_min or 0.0 for spec in fleet.specs])
        self._tangent = np.where(factor > 0, np.sqrt(1 - factor**2) / np.where(factor > 0, factor, 1.0), 1e6)

    def look_ahead(self, task: RuledTask) -> None:
        """Tell the limiter what the volt-watt droop leaves of the sun to come."""
        c, device = self.constants, self.acts["p_kw"].device
        first, last = c.volt_watt_pu
        over = np.clip((task.metrics.zone_v_max_pu[:, self.zone] - first) / (last - first), 0.0, 1.0)
        asked = self.memory["share"]
        asked += c.volt_var_step * (1.0 - (1.0 - c.volt_watt_floor) * over - asked)
        share = np.ones_like(asked)
        share[:, device] = asked[:, device]
        self._would_kw = self.sun_kw(task) * share
        if self.limiter is not None:
            self.limiter.expect("inverter", self._would_kw)

    def write(self, task: RuledTask, action: FloatArray) -> None:
        """Write shares of the sun and reactive power."""
        (column, device, _, _), sun_kw = self.acts["p_kw"], self.sun_kw(task)
        p = self._would_kw.copy()
        if self.limiter is not None:
            p -= self.limiter.lower("inverter", self._would_kw * self.mine)
        share = np.where(sun_kw > 0.0, p / np.maximum(sun_kw, 1e-9), 1.0)
        action[:, column] = 2.0 * share[:, device] - 1.0
        self.write_reactive(task, self.reactive_room(task, share), action)

    def sun_kw(self, task: RuledTask) -> FloatArray:
        """Return what the sun offers in the step to come, shape (n_envs, n) [kW]."""
        simulation = task.simulation
        sun = simulation.day_pv_pu[simulation.env_index, simulation.step_index]
        offered: FloatArray = np.clip(sun, 0.0, 1.0)[:, None] * self._p_max
        return offered

    def reactive_room(self, task: RuledTask, share: FloatArray) -> FloatArray:
        """Return the reactive power that a share of the sun leaves room for, shapes (n_envs, n) [kvar]."""
        p = np.minimum(self.sun_kw(task) * share, self._s_max)
        room = np.minimum(np.sqrt(np.maximum(self._s_max**2 - p * p, 0.0)), p * self._tangent)
        # Capability of the categories: none below 5 % of the rating, in proportion up to 20 %, all above.
        part = p / np.minimum(self._p_max, self._s_max)
        scale = np.where(part < 0.05, 0.0, np.minimum(part / 0.2, 1.0))
        allowed: FloatArray = np.where(self._category, np.minimum(room, scale * 0.44 * self._s_max), room)
        return allowed


class StorageRule(ReactiveRule):
    """Charge in cheap hours and discharge in dear ones where that pays; help where the zone is in trouble."""

    start: ClassVar[dict[str, float]] = {"q_kvar": 0.0, "support": 0.0}

    def __init__(
        self, task: RuledTask, fleet: Any, constants: RuleConstants, limiter: ExportLimiter | None = None
    ) -> None:
        super().__init__(task, fleet, constants, limiter)
        self._planner = StoragePlanner(fleet.specs, self.dt_h)
        horizon = task.simulation.options.horizon_steps
        self._plans = np.full((task.n_envs, horizon, fleet.n, SOC_POINTS), self._planner.idle, dtype=np.uint8)
        self._plan_day = functools.lru_cache(_KEPT_BYTES // self._plans[0].nbytes)(self._plan)
        self._levels = np.array([spec.levels or 0 for spec in fleet.specs], dtype=np.int64)
        self._discharge, self._charge = self.ratings("p_max_kw"), self.ratings("p_charge_max_kw")
        rated = [spec.s_max_kva or max(spec.p_max_kw, spec.p_charge_max_kw or 0.0) for spec in fleet.specs]
        self._s_max = np.array(rated, dtype=float)
        self._e_max, self._eta_c, self._eta_d, self._soc_min, self._soc_max = np.array([
            (spec.e_max_kwh, spec.eta_charge, spec.eta_discharge, spec.soc_min, spec.soc_max) for spec in fleet.specs
        ]).T  # fmt: skip
        self._sunny = find_sunny_agents(task)[self.zone]

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

    def write(self, task: RuledTask, action: FloatArray) -> None:
        """Write active power by plan and need, and reactive power."""
        c, soc = self.constants, self.fleet.soc
        step = np.minimum(task.simulation.step_index, self._plans.shape[1] - 1)
        planned = self._planner.power(self._plans, step, soc)
        metrics, (v_span, loading_span) = task.metrics, c.support_pu
        low, high = metrics.limits
        short, over = (low - metrics.zone_v_min_pu) / v_span, (metrics.zone_v_max_pu - high) / v_span
        need = np.clip(short, 0.0, 1.0) - np.clip(over, 0.0, 1.0)
        # An overload asks for discharging where the zone imports; where it exports, the limiter says how much.
        overload = np.clip((metrics.zone_loading_pu - 1.0) / loading_span, 0.0, 1.0)
        need += (metrics.zone_kva.real > 0.0) * overload
        need = np.clip(need, -1.0, 1.0)[:, self.zone]
        support = self.memory["support"]
        support += c.support_step * (need - support)
        reach = np.where(support > 0.0, self._discharge, self._charge)
        p = np.clip(planned + support * reach, -self._charge, self._discharge)
        # Within what the window of the state of charge allows in one step.
        most = np.maximum(soc - self._soc_min, 0.0) * self._e_max * self._eta_d / self.dt_h
        least = -np.maximum(self._soc_max - soc, 0.0) * self._e_max / (self._eta_c * self.dt_h)
        p = np.clip(p, least, most)
        if self.limiter is not None:
            self.limiter.expect("storage", p)
            p = p - self.limiter.lower("storage", (p - np.maximum(least, -self._charge)) * self.mine)
        self.acts["p_kw"].write(p, action)
        column, device, _, _ = self.acts["p_kw"]
        sizes = self._levels[device]
        levels = np.rint((action[:, column] + 1.0) / 2.0 * (sizes - 1))
        action[:, column] = np.where(sizes > 0, levels, action[:, column])
        self.write_reactive(task, np.sqrt(np.maximum(self._s_max**2 - p * p, 0.0)), action)


class GeneratorRule(ReactiveRule):
    """Run while the price pays fuel and start."""

    def __init__(
        self, task: RuledTask, fleet: Any, constants: RuleConstants, limiter: ExportLimiter | None = None
    ) -> None:
        super().__init__(task, fleet, constants, limiter)
        self._planner = GeneratorPlanner(fleet.specs, self.dt_h)
        self._plans = np.zeros((task.n_envs, task.simulation.options.horizon_steps, 2, fleet.n))
        self._plan_day = functools.lru_cache(_KEPT_BYTES // self._plans[0].nbytes)(self._plan)
        self._s_max = self.ratings("s_max_kva", 1.25)
        ramps = [spec.ramp_kw_per_min for spec in fleet.specs]
        self._ramp = np.array([np.inf if ramp is None else ramp * 60.0 * self.dt_h for ramp in ramps])
        self._p_min = np.array([spec.p_min_kw for spec in fleet.specs])

    def reset(self, task: RuledTask, env: int) -> None:
        """Plan the day by its prices."""
        super().reset(task, env)
        self._plans[env] = self._plan_day(self.prices(task, env).tobytes())

    def _plan(self, prices: bytes) -> FloatArray:
        return self._planner.plan(np.frombuffer(prices))

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what it remembers: its plans as well."""
        return [*super().memories(), self._plans]

    def write(self, task: RuledTask, action: FloatArray) -> None:
        """Write active and reactive power."""
        # What ramps allow is asked, so that no rule's request is moved and counted as projection.
        on, previous = self.fleet.on > 0.5, self.fleet.previous_p_kw
        step = np.minimum(task.simulation.step_index, self._plans.shape[1] - 1)
        planned = self._plans[task.simulation.env_index, step]
        p = np.where(on, planned[:, 1], planned[:, 0])
        jump = np.maximum(self._p_min, self._ramp)  # a start goes to the least power at once, however slow the ramp
        ceiling = np.where(on, previous + self._ramp, jump)
        floor = np.where(previous > jump, previous - self._ramp, 0.0)
        p = np.maximum(np.minimum(p, ceiling), np.where(p > 0.0, np.maximum(floor, previous - self._ramp), floor))
        self.acts["p_kw"].write(p, action)
        room = np.sqrt(np.maximum(self._s_max**2 - p * p, 0.0)) * (p > 0.0)
        self.write_reactive(task, room, action)


def find_sunny_agents(task: RuledTask) -> FloatArray:
    """Return 1 for agents whose inverters are rated above all the demand of their zone, shape (n_agents,)."""
    simulation = task.simulation
    demand = simulation.network.loads.kw @ task.channels.loads_in * simulation.options.load_scale
    specs = [[simulation.devices[name] for name in agent.devices] for agent in task.agents]
    rated = [sum(float(spec.p_max_kw) for spec in own if spec.kind == "inverter") for own in specs]
    return np.asarray(np.array(rated) > demand, dtype=np.float64)
