"""Engineers' rules for every kind of device, from what an agent knows of its own zone and from the day's tariff.

No rule sees beyond its agent: the voltage extremes, loading and import of its zone, its own devices, the sun of the
step to come and the prices of the day. How the constants were set is in ``docs/evaluation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.evaluation.baselines.planning import GeneratorPlan, StoragePlan
from powergrid.grid.fleets import find_switchgear
from powergrid.grid.simulation import Simulation

#: From which part of what it lifts somewhere on a regulator lowers elsewhere: coupling of lines is below a tenth.
_BOTH_WAYS = 0.25

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


class Actions(NamedTuple):
    """The actions of one name that agents decide over.

    Attributes:
        column: Columns of the action matrix.
        device: The places of their devices in the fleet.
        low, high: Their bounds, in their unit.
    """

    column: IntArray
    device: IntArray
    low: FloatArray
    high: FloatArray

    def write(self, values: FloatArray, action: FloatArray) -> None:
        """Write values of the fleet in their unit as normalised actions, -1 for ``low`` and 1 for ``high``."""
        normalised = 2.0 * (values[:, self.device] - self.low) / (self.high - self.low) - 1.0
        action[:, self.column] = np.clip(normalised, -1.0, 1.0)


class FleetRule:
    """The rule of one fleet; it writes the actions of the devices that have an agent.

    Args:
        task: The task.
        fleet: The fleet.
        constants: The constants of the rules.

    Attributes:
        start: What the rule remembers of each device within an episode, and what that starts from.
        memory: What it remembers now, shape (n_envs, n).
        acts: Actions by name; of a name that is no agent's, empty.
    """

    start: ClassVar[dict[str, float]] = {}

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        self.fleet, self.constants, self.dt_h = fleet, constants, task.simulation.dt_h
        owner = {device: index for index, agent in enumerate(task.agents) for device in agent.devices}
        self.zone = np.array([owner.get(name, 0) for name in fleet.names], dtype=np.int64)
        column = {(row.device, row.name): i for i, row in enumerate(task.simulation.actions)}
        self.acts: dict[str, Actions] = {}
        for name in ("p_kw", "q_kvar", "share", "tap", "steps_on"):
            rows = [row for row in fleet.actions if row.name == name and row.device in owner]
            found = [(column[key], fleet.names.index(row.device), row.low, row.high)
                     for row in rows if (key := (row.device, name)) in column]  # fmt: skip
            columns, devices, low, high = np.array(found, dtype=float).reshape(-1, 4).T
            self.acts[name] = Actions(columns.astype(np.int64), devices.astype(np.int64), low, high)
        self.memory = {name: np.full((task.n_envs, fleet.n), value) for name, value in self.start.items()}

    def ratings(self, key: str, factor: float = 1.0) -> FloatArray:
        """Return a rating of each device, where it has none its largest power times a factor."""
        return np.array([float(getattr(spec, key) or factor * spec.p_max_kw) for spec in self.fleet.specs])

    def reset(self, task: GridTask, env: int) -> None:
        """Get ready for the day that an environment has just started."""
        for name, value in self.start.items():
            self.memory[name][env] = value

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write the actions of the step to come."""
        raise NotImplementedError


class ReactiveRule(FleetRule):
    """Volt-var droop with damping, for every fleet that has reactive power."""

    start: ClassVar[dict[str, float]] = {"q_kvar": 0.0}

    def write_reactive(self, task: GridTask, room_kvar: FloatArray, action: FloatArray) -> None:
        """Move reactive power a part of the way to the droop's.

        Args:
            task: The task.
            room_kvar: What active power leaves of each device's capability, shape (n_envs, n) [kvar].
            action: The actions, written.
        """
        _, device, low, high = self.acts["q_kvar"]
        zone, asked = self.zone[device], self.memory["q_kvar"]
        v1, v2, v3, v4 = self.constants.volt_var_pu
        inject = np.clip((v2 - task.metrics.zone_v_min_pu[:, zone]) / (v2 - v1), 0.0, 1.0)
        absorb = np.clip((task.metrics.zone_v_max_pu[:, zone] - v3) / (v4 - v3), 0.0, 1.0)
        goal = inject * high + absorb * low
        # Measurements are a step old, and an undamped droop of large inverters swings.
        asked[:, device] += self.constants.volt_var_step * (goal - asked[:, device])
        self.acts["q_kvar"].write(np.clip(asked, -room_kvar, room_kvar), action)


class InverterRule(ReactiveRule):
    """All the sun, less what the volt-watt droop takes; reactive power by the volt-var droop."""

    start: ClassVar[dict[str, float]] = {"q_kvar": 0.0, "share": 1.0}

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._p_max, self._s_max = self.ratings("p_max_kw"), self.ratings("s_max_kva", 1.1)
        self._category = np.array([spec.reactive.startswith("category") for spec in fleet.specs])
        # Where no power factor is asked, the tangent is as good as none.
        factor = np.array([spec.power_factor_min or 0.0 for spec in fleet.specs])
        self._tangent = np.where(factor > 0, np.sqrt(1 - factor**2) / np.where(factor > 0, factor, 1.0), 1e6)

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write shares of the sun and reactive power."""
        c, (column, device, _, _) = self.constants, self.acts["p_kw"]
        first, last = c.volt_watt_pu
        over = np.clip((task.metrics.zone_v_max_pu[:, self.zone] - first) / (last - first), 0.0, 1.0)
        asked = self.memory["share"]
        asked += c.volt_var_step * (1.0 - (1.0 - c.volt_watt_floor) * over - asked)
        share = np.ones_like(asked)
        share[:, device] = asked[:, device]
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

    start: ClassVar[dict[str, float]] = {"q_kvar": 0.0, "support": 0.0}

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._plans: list[StoragePlan | None] = [None] * task.n_envs
        self._levels = np.array([spec.levels or 0 for spec in fleet.specs], dtype=np.int64)
        self._discharge, self._charge = self.ratings("p_max_kw"), self.ratings("p_charge_max_kw")
        rated = [spec.s_max_kva or max(spec.p_max_kw, spec.p_charge_max_kw or 0.0) for spec in fleet.specs]
        self._s_max = np.array(rated, dtype=float)
        self._e_max, self._eta_c, self._eta_d, self._soc_min, self._soc_max = np.array([
            (spec.e_max_kwh, spec.eta_charge, spec.eta_discharge, spec.soc_min, spec.soc_max) for spec in fleet.specs
        ]).T  # fmt: skip
        self._sunny = find_sunny_agents(task)[self.zone]

    def reset(self, task: GridTask, env: int) -> None:
        """Plan the day by its prices."""
        super().reset(task, env)
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
        support = self.memory["support"]
        support += c.support_step * (need - support)
        reach = np.where(support > 0.0, self._discharge, self._charge)
        p = np.clip(planned + support * reach, -self._charge, self._discharge)
        # Within what the window of the state of charge allows in one step.
        most = np.maximum(soc - self._soc_min, 0.0) * self._e_max * self._eta_d / self.dt_h
        least = -np.maximum(self._soc_max - soc, 0.0) * self._e_max / (self._eta_c * self.dt_h)
        p = np.clip(p, least, most)
        self.acts["p_kw"].write(p, action)
        column, device, _, _ = self.acts["p_kw"]
        sizes = self._levels[device]
        levels = np.rint((action[:, column] + 1.0) / 2.0 * (sizes - 1))
        action[:, column] = np.where(sizes > 0, levels, action[:, column])
        self.write_reactive(task, np.sqrt(np.maximum(self._s_max**2 - p * p, 0.0)), action)


class GeneratorRule(ReactiveRule):
    """Run while the price pays fuel and start."""

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._plans: list[GeneratorPlan | None] = [None] * task.n_envs
        self._s_max = self.ratings("s_max_kva", 1.25)
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
        self.acts["p_kw"].write(p, action)
        room = np.sqrt(np.maximum(self._s_max**2 - p * p, 0.0)) * (p > 0.0)
        self.write_reactive(task, room, action)


class EvChargerRule(FleetRule):
    """Charge in the cheapest of the hours to come; else only as much as finishes every car just in time."""

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._ahead = [max(1, round(spec.stay_hours_mean / 2.0 / self.dt_h)) for spec in fleet.specs]

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write shares of the power that cars can take."""
        price, step = task.simulation.day_price, task.simulation.step_index
        last = price.shape[1] - 1  # no step is played on the last row, it repeats the one before
        cheap = np.zeros((task.n_envs, self.fleet.n), dtype=bool)
        for env in range(task.n_envs):
            for place, ahead in enumerate(self._ahead):
                coming = price[env, step[env] : min(int(step[env]) + ahead + 1, last)]
                cheap[env, place] = not len(coming) or coming[0] <= coming.min() + 1e-9
        share = np.where(cheap, 1.0, self.fleet.urgency)
        # A zone short of voltage gets its cars' reserve first.
        share = np.where(task.metrics.zone_v_min_pu[:, self.zone] < task.metrics.limits[0], self.fleet.urgency, share)
        self.acts["share"].write(share, action)


class FlexibleLoadRule(FleetRule):
    """Put off demand while it is dear and can be made up later for less; pay back as soon as it is cheap."""

    start: ClassVar[dict[str, float]] = {
        "demand_kw": 0.0
    }  # before the first step none is known, and nothing is put off

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._share_min, self._share_max, self._owed_max = np.array([
            (spec.share_min, spec.share_max, spec.owed_max_kwh) for spec in fleet.specs
        ]).T  # fmt: skip

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write shares of demand."""
        simulation, owed = task.simulation, self.fleet.owed_kwh
        price, step = simulation.day_price, simulation.step_index
        last = price.shape[1] - 1
        demand = self.memory["demand_kw"]
        np.copyto(demand, self.fleet.demand_kw, where=self.fleet.demand_kw > 0.0)
        now = price[simulation.env_index, np.minimum(step, last - 1)]
        later = np.arange(price.shape[1])[None, :] > step[:, None]
        later[:, last:] = False
        mean = price[:, :-1].mean(axis=1)
        cheaper = (later & (price < 0.9 * now[:, None])).sum(axis=1)[:, None]
        per_step = demand * self.dt_h
        makeup = self.constants.payback_share * (self._share_max - 1.0) * per_step * cheaper
        room = np.minimum(makeup, self._owed_max) - owed
        dear = (now > 1.1 * mean)[:, None] & (room > 0.0)
        cut = np.minimum(1.0 - self._share_min, room / np.maximum(per_step, 1e-9))
        payback = np.minimum(self._share_max - 1.0, owed / np.maximum(per_step, 1e-9))
        held = (now > 1.1 * mean)[:, None] & (owed < makeup)
        share = np.where(dear, 1.0 - cut, np.where(held, 1.0, 1.0 + payback))
        self.acts["share"].write(share, action)


class SwitchgearRule(FleetRule):
    """Raise or lower the zone's voltage by one position where it nears a limit, then rest."""

    start: ClassVar[dict[str, float]] = {"rest_steps": 0.0}

    def __init__(self, task: GridTask, fleet: Any, constants: RuleConstants) -> None:
        super().__init__(task, fleet, constants)
        self._lifts = np.array([_lifts(task.simulation, spec) for spec in fleet.specs])
        self._rest_steps = max(1, round(constants.switch_rest_h / self.dt_h))

    def write(self, task: GridTask, action: FloatArray) -> None:
        """Write positions."""
        column, device, low, high = self.acts["tap" if self.fleet.kind == "regulator" else "steps_on"]
        v_low, v_high = task.metrics.limits
        margin = self.constants.switch_margin_pu
        short = (v_low + margin - task.metrics.zone_v_min_pu)[:, self.zone]
        over = (task.metrics.zone_v_max_pu - v_high + margin)[:, self.zone]
        # Only where the other side keeps the room that one move takes.
        move = np.where((short > 0.0) & (short > over + 2 * margin), 1, 0)
        move -= np.where((over > 0.0) & (over > short + 2 * margin), 1, 0)
        rest = self.memory["rest_steps"]
        move = move * (rest == 0) * (self.fleet.locked_steps == 0)
        rest[:] = np.where(move != 0, self._rest_steps, np.maximum(rest - 1, 0))
        goal = self.fleet.position[:, device] + (move * self._lifts)[:, device]
        action[:, column] = np.clip(goal, low, high) - low


def _lifts(simulation: Simulation, spec: Any) -> int:
    """Say whether voltages rise with a position (1), fall (-1), or do both (0), as where regulators are in open delta.

    It is tried on the circuit as it stands. What a regulator that lifts one phase and lowers another does to the lowest
    and the highest voltage of all no rule knows: moved by these, it is driven to its end.
    """
    if spec.kind != "regulator":
        return 1
    circuit = simulation.circuits[0]
    place, state, before = find_switchgear(spec, circuit), circuit.state(), np.abs(circuit.v[1:])
    taps = circuit.taps.copy()
    step = 1 if taps[place] < circuit.switchgear.tap_max[place] else -1
    taps[place] += step
    circuit.write_taps(taps)
    circuit.solve()
    change = step * (np.abs(circuit.v[1:]) - before)[before > 0.0] / before[before > 0.0]
    circuit.restore(state)
    rise, fall = float(change.max(initial=0.0)), -float(change.min(initial=0.0))
    if min(rise, fall) > _BOTH_WAYS * max(rise, fall):
        return 0
    return 1 if rise >= fall else -1


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
