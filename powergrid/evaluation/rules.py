"""Engineers' rules for every kind of device, from what an agent knows of its own zone and from the day's tariff.

No rule sees beyond its agent: the voltage extremes, loading and import of its zone, its own devices, the sun of the
step to come and the prices of the day. How the constants were set is in ``docs/evaluation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.evaluation.planning import GeneratorPlan, StoragePlan
from powergrid.grid.ratings import find_switchgear
from powergrid.grid.simulation import Simulation

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RuleConstants:
    """The few numbers of the rules.

    Attributes:
        volt_var_pu: Voltages of full injection, none, none and full absorption; within the range that IEEE Std
            1547-2018, Table 8 allows category B, whose defaults are 0.92, 0.98, 1.02 and 1.08.
        volt_var_step: Part of the way to the droop's reactive power that a step goes.
        volt_watt_pu: Voltages from which output is reduced, and at which it is down to ``volt_watt_floor``;
            defaults of IEEE Std 1547-2018, Table 10, category B.
        volt_watt_floor: Least share of the sun left by the droop.
        support_pu: How far outside the band, and how far above a branch's rating, storage gives all it has.
        support_step: Part of the way that a step goes.
        spread_share: Price rise that full power of a battery is reckoned to cause, as a part of the mean price.
        noon_share: What charging at noon is reckoned to be worth beyond the price where the agent has more sun than
            its zone can take, as a part of the mean price.
        switch_margin_pu: How near to the limit of the band switchgear starts to move.
        switch_rest_h: Rest of a switch between two moves [h].
        payback_share: Part of what a flexible load can pay back in cheaper hours that it may owe.
    """

    # The standard's own defaults leave twice as many violations on ieee13_mg.
    volt_var_pu: tuple[float, float, float, float] = (0.95, 0.98, 1.03, 1.06)
    volt_var_step: float = 0.25
    volt_watt_pu: tuple[float, float] = (1.06, 1.10)
    volt_watt_floor: float = 0.2
    support_pu: tuple[float, float] = (0.02, 0.2)
    support_step: float = 0.4
    spread_share: float = 0.07
    noon_share: float = 0.3
    switch_margin_pu: float = 0.005
    switch_rest_h: float = 0.5
    payback_share: float = 0.5


class FleetRule:
    """The rule of one fleet; it writes the actions of the devices that have an agent.

    Args:
        task: The task.
        fleet: The fleet.
        constants: The constants of the rules.
    """

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        self.fleet, self.constants, self.dt_h = fleet, constants, task.simulation.dt_h
        owner = {device: index for index, agent in enumerate(task.agents) for device in agent.devices}
        self._owner = owner
        self.zone = np.array([owner.get(name, 0) for name in fleet.names], dtype=np.int64)
        self._columns = {(row.device, row.name): i for i, row in enumerate(task.simulation.actions)}

    def columns(self, name: str) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """Find the actions of a name: column, place in the fleet, and the bounds in their unit."""
        rows = [
            (self._columns[row.device, name], self.fleet.names.index(row.device), row.low, row.high)
            for row in self.fleet.actions
            if row.name == name and row.device in self._owner and (row.device, name) in self._columns
        ]
        column, device, low, high = (np.array([row[i] for row in rows], dtype=float) for i in range(4))
        return column.astype(np.int64), device.astype(np.int64), low, high

    def reset(self, task: GridTask, env: int) -> None:
        """Get ready for the day that an environment has just started."""

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write the actions of the step to come."""
        raise NotImplementedError


class ReactiveRule(FleetRule):
    """Volt-var droop with damping, for every fleet that has reactive power."""

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._q = self.columns("q_kvar")
        self._q_kvar = np.zeros((task.n_envs, len(self._q[0])))

    def reset(self, task: GridTask, env: int) -> None:
        """Start at unity power factor."""
        self._q_kvar[env] = 0.0

    def write_reactive(self, task: GridTask, room_kvar: FloatArray, action: FloatArray) -> None:
        """Move reactive power a part of the way to the droop's.

        Args:
            task: The task.
            room_kvar: What active power leaves of each device's capability, shape (n_envs, n) [kvar].
            action: The actions, written.
        """
        column, device, low, high = self._q
        if not len(column):
            return
        zone = self.zone[device]
        v1, v2, v3, v4 = self.constants.volt_var_pu
        inject = np.clip((v2 - task.metrics.zone_v_min_pu[:, zone]) / (v2 - v1), 0.0, 1.0)
        absorb = np.clip((task.metrics.zone_v_max_pu[:, zone] - v3) / (v4 - v3), 0.0, 1.0)
        goal = inject * high + absorb * low
        # Measurements are a step old, and an undamped droop of large inverters swings.
        self._q_kvar += self.constants.volt_var_step * (goal - self._q_kvar)
        room = room_kvar[:, device]
        q_kvar = np.clip(self._q_kvar, -room, room)
        action[:, column] = to_action(q_kvar, low, high)


class InverterRule(ReactiveRule):
    """All the sun, less what the volt-watt droop takes; reactive power by the volt-var droop."""

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._p = self.columns("p_kw")
        self._share = np.ones((task.n_envs, fleet.n))
        self._p_max = np.array([float(spec.p_max_kw) for spec in fleet.specs])
        self._s_max = np.array([spec.s_max_kva or 1.1 * float(spec.p_max_kw) for spec in fleet.specs])
        self._category = np.array([spec.reactive.startswith("category") for spec in fleet.specs])
        # Where no power factor is asked, the tangent is as good as none.
        factor = np.array([spec.power_factor_min or 0.0 for spec in fleet.specs])
        self._tangent = np.where(factor > 0, np.sqrt(1 - factor**2) / np.where(factor > 0, factor, 1.0), 1e6)

    def reset(self, task: GridTask, env: int) -> None:
        """Start with all the sun at unity power factor."""
        super().reset(task, env)
        self._share[env] = 1.0

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write shares of the sun and reactive power."""
        c = self.constants
        start, end = c.volt_watt_pu
        over = np.clip((task.metrics.zone_v_max_pu[:, self.zone] - start) / (end - start), 0.0, 1.0)
        self._share += c.volt_var_step * (1.0 - (1.0 - c.volt_watt_floor) * over - self._share)
        column, device, _, _ = self._p
        share = np.ones_like(self._share)
        share[:, device] = self._share[:, device]
        simulation = task.simulation
        sun = simulation.day_pv_pu[simulation.env_index, simulation.step_index]
        p = np.minimum(np.clip(sun, 0.0, 1.0)[:, None] * self._p_max * share, self._s_max)
        action[:, column] = 2.0 * share[:, device] - 1.0
        room = np.minimum(np.sqrt(np.maximum(self._s_max**2 - p * p, 0.0)), p * self._tangent)
        # Capability of the categories: none below 5 % of the rating, in proportion up to 20 %, all above.
        part = p / np.minimum(self._p_max, self._s_max)
        scale = np.where(part < 0.05, 0.0, np.minimum(part / 0.2, 1.0))
        room = np.where(self._category, np.minimum(room, scale * 0.44 * self._s_max), room)
        self.write_reactive(task, room, action)


class StorageRule(ReactiveRule):
    """Charge in cheap hours and discharge in dear ones where that pays; help where the zone is in trouble."""

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._p = self.columns("p_kw")
        self._plans: list[StoragePlan | None] = [None] * task.n_envs
        self._support = np.zeros((task.n_envs, fleet.n))
        specs = fleet.specs
        self._levels = np.array([spec.levels or 0 for spec in specs], dtype=np.int64)
        self._discharge = np.array([float(spec.p_max_kw) for spec in specs])
        self._charge = np.array([float(spec.p_charge_max_kw or spec.p_max_kw) for spec in specs])
        self._s_max = np.array([
            float(spec.s_max_kva or max(spec.p_max_kw, spec.p_charge_max_kw or 0.0)) for spec in specs
        ])  # fmt: skip
        self._e_max = np.array([float(spec.e_max_kwh) for spec in specs])
        self._eta_c = np.array([spec.eta_charge for spec in specs])
        self._eta_d = np.array([spec.eta_discharge for spec in specs])
        self._window = np.array([(spec.soc_min, spec.soc_max) for spec in specs]).T
        self._sunny = find_sunny_agents(task)[self.zone]

    def reset(self, task: GridTask, env: int) -> None:
        """Plan the day by its prices."""
        super().reset(task, env)
        self._support[env] = 0.0
        price = task.simulation.day_price[env, :-1]  # a tariff or a day-ahead market: known at midnight
        mean = float(price.mean())
        level = abs(mean)
        hour = (np.arange(len(price)) * self.dt_h) % 24.0
        # From 8:30 to 16:30: what is not charged then is curtailed or lifts the zone's voltage.
        noon = np.maximum(np.cos((hour - 12.5) * (np.pi / 8.0)), 0.0)
        known = price[:, None] - self.constants.noon_share * level * noon[:, None] * self._sunny
        self._plans[env] = StoragePlan(self.fleet.specs, known, mean, self.dt_h, self.constants.spread_share * level)

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write active power by plan and need, and reactive power."""
        c, soc = self.constants, self.fleet.soc
        step = task.simulation.step_index
        last = task.simulation.options.horizon_steps - 1
        planned = np.stack([
            plan.power(min(int(step[env]), last), soc[env]) if plan is not None else np.zeros(self.fleet.n)
            for env, plan in enumerate(self._plans)
        ])  # fmt: skip
        metrics, (v_span, loading_span) = task.metrics, c.support_pu
        low, high = metrics.limits
        short, over = (low - metrics.zone_v_min_pu) / v_span, (metrics.zone_v_max_pu - high) / v_span
        need = np.clip(short, 0.0, 1.0) - np.clip(over, 0.0, 1.0)
        # An overload asks for discharging where the zone imports and for charging where it exports.
        overload = np.clip((metrics.zone_loading_pu - 1.0) / loading_span, 0.0, 1.0)
        need += np.sign(metrics.zone_kva.real) * overload
        need = np.clip(need, -1.0, 1.0)[:, self.zone]
        self._support += c.support_step * (need - self._support)
        reach = np.where(self._support > 0.0, self._discharge, self._charge)
        p = self._keep(np.clip(planned + self._support * reach, -self._charge, self._discharge), soc)
        column, device, p_low, p_high = self._p
        action[:, column] = to_level(to_action(p[:, device], p_low, p_high), self._levels[device])
        self.write_reactive(task, np.sqrt(np.maximum(self._s_max**2 - p * p, 0.0)), action)

    def _keep(self, p_kw: FloatArray, soc: FloatArray) -> FloatArray:
        """Keep a request within what the window of the state of charge allows in one step."""
        soc_min, soc_max = self._window
        most = np.maximum(soc - soc_min, 0.0) * self._e_max * self._eta_d / self.dt_h
        least = -np.maximum(soc_max - soc, 0.0) * self._e_max / (self._eta_c * self.dt_h)
        return np.clip(p_kw, least, most)


class GeneratorRule(ReactiveRule):
    """Run while the price pays fuel and start."""

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._p = self.columns("p_kw")
        self._plans: list[GeneratorPlan | None] = [None] * task.n_envs
        self._s_max = np.array([spec.s_max_kva or 1.25 * float(spec.p_max_kw) for spec in fleet.specs])
        ramps = [spec.ramp_kw_per_min for spec in fleet.specs]
        self._ramp = np.array([np.inf if ramp is None else ramp * 60.0 * self.dt_h for ramp in ramps])
        self._p_min = np.array([spec.p_min_kw for spec in fleet.specs])

    def reset(self, task: GridTask, env: int) -> None:
        """Plan the day by its prices."""
        super().reset(task, env)
        self._plans[env] = GeneratorPlan(self.fleet.specs, task.simulation.day_price[env, :-1], self.dt_h)

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write active and reactive power."""
        # What ramps allow is asked, so that no rule's request is moved and counted as projection.
        on, previous = self.fleet.on > 0.5, self.fleet.previous_p_kw
        p = np.zeros_like(previous)
        for env, plan in enumerate(self._plans):
            if plan is not None:
                step = min(int(task.simulation.step_index[env]), len(plan.p_kw) - 1)
                run = np.where(on[env], plan.run_if_on[step], plan.run_if_off[step])
                p[env] = plan.p_kw[step] * run
        jump = np.maximum(self._p_min, self._ramp)  # a start goes to the least power at once, however slow the ramp
        ceiling = np.where(on, previous + self._ramp, jump)
        floor = np.where(previous > jump, previous - self._ramp, 0.0)
        p = np.maximum(np.minimum(p, ceiling), np.where(p > 0.0, np.maximum(floor, previous - self._ramp), floor))
        column, device, low, high = self._p
        action[:, column] = to_action(p[:, device], low, high)
        room = np.sqrt(np.maximum(self._s_max**2 - p * p, 0.0)) * (p > 0.0)
        self.write_reactive(task, room, action)


class EvChargerRule(FleetRule):
    """Charge in the cheapest of the hours to come; else only as much as finishes every car just in time."""

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._share = self.columns("share")
        self._ahead = [max(1, round(spec.stay_hours_mean / 2.0 / self.dt_h)) for spec in fleet.specs]

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write shares of the power that cars can take."""
        simulation = task.simulation
        column, device, low, high = self._share
        price, step = simulation.day_price, simulation.step_index
        last = price.shape[1] - 1  # no step is played on the last row, it repeats the one before
        cheap = np.zeros((task.n_envs, self.fleet.n), dtype=bool)
        for env in range(task.n_envs):
            for place, ahead in enumerate(self._ahead):
                coming = price[env, step[env] : min(int(step[env]) + ahead + 1, last)]
                cheap[env, place] = not len(coming) or coming[0] <= coming.min() + 1e-9
        share = np.where(cheap, 1.0, self.fleet.urgency)
        # A zone short of voltage gets its cars' reserve first.
        share = np.where(task.metrics.zone_v_min_pu[:, self.zone] < task.metrics.limits[0], self.fleet.urgency, share)
        action[:, column] = to_action(share[:, device], low, high)


class FlexibleLoadRule(FleetRule):
    """Put off demand while it is dear and can be made up later for less; pay back as soon as it is cheap."""

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._share = self.columns("share")
        self._share_max = np.array([spec.share_max for spec in fleet.specs])
        self._share_min = np.array([spec.share_min for spec in fleet.specs])
        self._owed_max = np.array([spec.owed_max_kwh for spec in fleet.specs])
        self._demand = np.zeros((task.n_envs, fleet.n))

    def reset(self, task: GridTask, env: int) -> None:
        """Know no demand yet."""
        self._demand[env] = 0.0

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write shares of demand."""
        simulation, owed = task.simulation, self.fleet.owed_kwh
        column, device, low, high = self._share
        price, step = simulation.day_price, simulation.step_index
        last = price.shape[1] - 1
        seen = self.fleet.demand_kw > 0.0
        # Before the first step no demand is known, and nothing is put off.
        self._demand = np.where(seen, self.fleet.demand_kw, self._demand)
        now = price[simulation.env_index, np.minimum(step, last - 1)]
        later = np.arange(price.shape[1])[None, :] > step[:, None]
        later[:, last:] = False
        mean = price[:, :-1].mean(axis=1)
        cheaper = (later & (price < 0.9 * now[:, None])).sum(axis=1)[:, None]
        per_step = self._demand * self.dt_h
        makeup = self.constants.payback_share * (self._share_max - 1.0) * per_step * cheaper
        room = np.minimum(makeup, self._owed_max) - owed
        dear = (now > 1.1 * mean)[:, None] & (room > 0.0)
        cut = np.minimum(1.0 - self._share_min, room / np.maximum(per_step, 1e-9))
        payback = np.minimum(self._share_max - 1.0, owed / np.maximum(per_step, 1e-9))
        held = (now > 1.1 * mean)[:, None] & (owed < makeup)
        share = np.where(dear, 1.0 - cut, np.where(held, 1.0, 1.0 + payback))
        action[:, column] = to_action(share[:, device], low, high)


class SwitchgearRule(FleetRule):
    """Raise or lower the zone's voltage by one position where it nears a limit, then rest."""

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        name = {"regulator": "tap", "capacitor": "steps_on"}[fleet.kind]
        self._position = self.columns(name)
        self._lifts = np.array([_lifts(task.simulation, spec) for spec in fleet.specs])
        self._rest = np.zeros((task.n_envs, fleet.n), dtype=np.int64)
        self._rest_steps = max(1, round(constants.switch_rest_h / self.dt_h))

    def reset(self, task: GridTask, env: int) -> None:
        """Be ready to move."""
        self._rest[env] = 0

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write positions."""
        column, device, low, high = self._position
        v_low, v_high = task.metrics.limits
        margin = self.constants.switch_margin_pu
        short = (v_low + margin - task.metrics.zone_v_min_pu)[:, self.zone]
        over = (task.metrics.zone_v_max_pu - v_high + margin)[:, self.zone]
        # Only where the other side keeps the room that one move takes.
        move = np.where((short > 0.0) & (short > over + 2 * margin), 1, 0)
        move -= np.where((over > 0.0) & (over > short + 2 * margin), 1, 0)
        move = move * (self._rest == 0) * (self.fleet.locked_steps == 0)
        self._rest = np.where(move != 0, self._rest_steps, np.maximum(self._rest - 1, 0))
        goal = self.fleet.position[:, device] + (move * self._lifts)[:, device]
        action[:, column] = np.clip(goal, low, high) - low


def _lifts(simulation: Simulation, spec: Any) -> int:
    """Say whether the voltage rises with a position (1), or falls (-1): with taps on the side of the source."""
    if spec.kind != "regulator":
        return 1
    circuit, network = simulation.circuits[0], simulation.network
    regulator = circuit.regulators[find_switchgear(spec, circuit)]
    buses = network.branches.buses[network.branch_index[f"{regulator.class_name}.{regulator.transformer}".lower()]]
    depth = [network.depth.get(bus, 0) for bus in buses]
    return -1 if regulator.winding <= len(depth) and depth[regulator.winding - 1] < max(depth) else 1


RULES: dict[str, type[FleetRule]] = {
    "storage": StorageRule,
    "inverter": InverterRule,
    "generator": GeneratorRule,
    "flexible_load": FlexibleLoadRule,
    "ev_charger": EvChargerRule,
    "capacitor": SwitchgearRule,
    "regulator": SwitchgearRule,
}
"""The rule of each kind of device; switches have none and stay as they are."""


class RuleBased:
    """Play every device by an engineer's rule that knows its own zone and the day's tariff.

    Args:
        constants: The constants of the rules.
    """

    def __init__(self, constants: RuleConstants | None = None) -> None:
        self.constants = constants or RuleConstants()
        self._task: GridTask | None = None
        self._rules: list[FleetRule] = []

    def reset(self, task: GridTask, env: int) -> None:
        """Get ready for the episode that an environment has just started."""
        if task is not self._task:  # rules hold what the devices of one task are
            self._task = task
            fleets = [fleet for fleet in task.simulation.fleets if fleet.kind in RULES]
            self._rules = [RULES[fleet.kind](task, fleet, self.constants) for fleet in fleets]
        for rule in self._rules:
            rule.reset(task, env)

    def act(self, task: GridTask) -> FloatArray:
        """Return the actions of the step to come, shape (n_envs, n_actions)."""
        action = task.simulation.neutral()
        for rule in self._rules:
            rule.write(task, action)
        return action


def find_sunny_agents(task: GridTask) -> FloatArray:
    """Return 1 for agents whose inverters are rated above all the demand of their zone, shape (n_agents,)."""
    simulation = task.simulation
    demand = simulation.network.loads.kw @ task.channels.loads_in * simulation.options.load_scale
    specs = [[simulation.devices[name] for name in agent.devices] for agent in task.agents]
    rated = [sum(float(spec.p_max_kw) for spec in own if spec.kind == "inverter") for own in specs]
    return np.asarray(np.array(rated) > demand, dtype=np.float64)


def to_action(value: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Turn values in their unit into normalised actions, -1 for ``low`` and 1 for ``high``."""
    normalised: FloatArray = np.clip(2.0 * (value - low) / (high - low) - 1.0, -1.0, 1.0)
    return normalised


def to_level(normalised: FloatArray, sizes: IntArray) -> FloatArray:
    """Turn normalised actions that have levels into the nearest one, of the action's ``sizes``; leave the others."""
    levels: FloatArray = np.rint((normalised + 1.0) / 2.0 * (sizes - 1))
    return np.where(sizes > 0, levels, normalised)
