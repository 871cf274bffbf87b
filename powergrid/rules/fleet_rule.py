"""What rules of all kinds of devices share: their constants, where their actions stand, and the volt-var droop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.rules.export_limiter import ExportLimiter
from powergrid.rules.ruled import RuledTask

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
        export_pu: Loading that exports are held to, of every rated branch between a device and the source.
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
    export_pu: float = 0.97
    support_pu: tuple[float, float] = (0.02, 0.2)
    support_step: float = 0.4
    spread_share: float = 0.07
    noon_share: float = 0.0
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
        limiter: Says how much less is to be given so that nothing on the way to the source is overloaded.

    Attributes:
        start: What the rule remembers of each device within an episode, and what that starts from.
        memory: What it remembers now, shape (n_envs, n).
        mine: 1 where an agent decides over a device's active power, shape (n,).
        acts: Actions by name; of a name that is no agent's, empty.
    """

    start: ClassVar[dict[str, float]] = {}

    def __init__(
        self, task: RuledTask, fleet: Any, constants: RuleConstants, limiter: ExportLimiter | None = None
    ) -> None:
        self.fleet, self.constants, self.dt_h = fleet, constants, task.simulation.dt_h
        self.limiter = limiter
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
        self.mine = np.isin(np.arange(fleet.n), self.acts["p_kw"].device).astype(np.float64)
        self.memory = {name: np.full((task.n_envs, fleet.n), value) for name, value in self.start.items()}

    def ratings(self, key: str, factor: float = 1.0) -> FloatArray:
        """Return a rating of each device, where it has none its largest power times a factor."""
        return np.array([float(getattr(spec, key) or factor * spec.p_max_kw) for spec in self.fleet.specs])

    def look_ahead(self, task: RuledTask) -> None:
        """Tell the limiter what is about to be given, before any rule writes."""

    def prices(self, task: RuledTask, env: int) -> FloatArray:
        """Return the day's price of each step, 0 where the scenario lets nobody pay for energy [USD/kWh]."""
        paid: FloatArray = task.simulation.day_price[env, :-1] * task.scenario.weight_of("energy_cost_usd")
        return paid

    def reset(self, task: RuledTask, env: int) -> None:
        """Get ready for the day that an environment has just started."""
        for name, value in self.start.items():
            self.memory[name][env] = value

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what it remembers, arrays with environments first."""
        return [*self.memory.values()]

    def write(self, task: RuledTask, action: FloatArray) -> None:
        """Write the actions of the step to come."""
        raise NotImplementedError


class ReactiveRule(FleetRule):
    """Volt-var droop with damping, for every fleet that has reactive power."""

    start: ClassVar[dict[str, float]] = {"q_kvar": 0.0}

    def write_reactive(self, task: RuledTask, room_kvar: FloatArray, action: FloatArray) -> None:
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
