"""What rules of all kinds of devices share in a step: what zones are gauged at, what is asked, the volt-var droop.

Each holds what all rules want of it side by side, so that a step of many devices of several kinds takes one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices.spec import ActionSpec
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


class Gauges:
    """Tell how far what was measured of zones is on the way from one number to another.

    Args:
        task: The task.

    Attributes:
        parts: From 0 to 1, a column for each that is followed, shape (n_envs, n).
    """

    def __init__(self, task: RuledTask) -> None:
        self._n_envs, self._metrics = task.n_envs, task.metrics
        self._places = np.empty(0, dtype=np.int64)
        self._none, self._span = np.empty((2, task.n_envs, 0))
        self.parts = self._none

    def follow(self, name: str, zone: IntArray, none: float, span: float) -> slice:
        """Follow a column of the metrics in zones from where it counts nothing on, a span up or down to all.

        Returns:
            Where it stands in ``parts``.
        """
        before, columns = len(self._places), self._metrics.columns[name]
        width = 2 if name == "zone_kva" else 1  # complex: its real part is taken
        self._places = np.append(self._places, columns.start + width * zone)
        added = np.ones((self._n_envs, len(zone)))
        self._none, self._span = np.hstack([self._none, added * none]), np.hstack([self._span, added * span])
        self._zeros, self._ones = np.zeros_like(self._none), np.ones_like(self._none)
        return slice(before, len(self._places))

    def look(self) -> None:
        """Take what was measured of the last solve."""
        if len(self._places):
            self.parts = parts = self._metrics.results.take(self._places, 1)
            parts -= self._none
            parts /= self._span
            np.minimum(np.maximum(parts, self._zeros, out=parts), self._ones, out=parts)


class Setpoints:
    """Hold what rules ask in the units of actions, and return it as agents give actions.

    Args:
        task: The task.

    Attributes:
        values: What is asked, shape (n_envs, n).
        low, high: Bounds of the actions, as ``values``.
    """

    def __init__(self, task: RuledTask) -> None:
        self._column = {(row.device, row.name): i for i, row in enumerate(task.simulation.actions)}
        self._columns = np.empty(0, dtype=np.int64)
        self.values, self.low, self.high = np.empty((3, task.n_envs, 0))
        self._most = np.empty(0)

    def add(self, rows: Sequence[ActionSpec]) -> slice:
        """Take in actions, and return where they stand."""
        before, one = len(self._columns), np.ones((len(self.values), len(rows)))
        self._columns = np.append(self._columns, [self._column[row.device, row.name] for row in rows]).astype(np.int64)
        self.low = np.hstack([self.low, one * [row.low for row in rows]])
        self.high = np.hstack([self.high, one * [row.high for row in rows]])
        self.values = self.low.copy()
        self._most = np.append(self._most, [row.n - 1.0 for row in rows])
        self._span = np.where(self.high > self.low, self.high - self.low, 1.0)
        self._ones = np.ones_like(self.low)
        self._minus_ones, self._twos = -self._ones, 2.0 * self._ones
        self._discrete = np.flatnonzero(self._most >= 0.0)
        self._order = np.argsort(self._columns)
        return slice(before, len(self._columns))

    def knows(self, row: ActionSpec) -> bool:
        """Return whether an action is one of the task's."""
        return (row.device, row.name) in self._column

    def read(self, task: RuledTask) -> FloatArray:
        """Return the task's actions, those that no rule asks left to themselves, shape (n_envs, n_actions)."""
        if not len(self._columns):
            return task.simulation.neutral()
        asked = self.values - self.low
        asked *= self._twos
        asked /= self._span
        asked -= self._ones
        np.minimum(np.maximum(asked, self._minus_ones, out=asked), self._ones, out=asked)
        if len(self._discrete):
            at = self._discrete
            asked[:, at] = np.rint((asked[:, at] + 1.0) / 2.0 * self._most[at])
        if len(self._columns) == len(self._column):
            return asked.take(self._order, 1)
        action = task.simulation.neutral()
        action[:, self._columns] = asked
        return action


class Droop:
    """Move reactive power of every device by a droop with damping.

    Args:
        task: The task.
        constants: The constants of the rules.
        gauges, setpoints: What is known, and where it asks.

    Attributes:
        room_kvar: What active power leaves of each device's capability, written by rules before, shape (n_envs, n).
        asked_kvar: What it asks before that, shape (n_envs, n).
        place: Where it stands in the setpoints, once seated.
    """

    def __init__(self, task: RuledTask, constants: RuleConstants, gauges: Gauges, setpoints: Setpoints) -> None:
        self._constants, self._gauges, self._setpoints = constants, gauges, setpoints
        self.room_kvar, self.asked_kvar = np.empty((2, task.n_envs, 0))
        self._rows: list[ActionSpec] = []
        self._zones: list[int] = []

    def add(self, rows: Sequence[ActionSpec], zone: IntArray) -> slice:
        """Take in reactive power of devices in zones, and return where it stands in ``room_kvar``."""
        before = len(self._rows)
        self._rows += rows
        self._zones += zone.tolist()
        self.room_kvar, self.asked_kvar = np.zeros((2, len(self.room_kvar), len(self._rows)))
        return slice(before, len(self._rows))

    def seat(self) -> None:
        """Begin: all devices are known."""
        (v1, v2, v3, v4), zone = self._constants.volt_var_pu, np.array(self._zones, dtype=np.int64)
        self._inject = self._gauges.follow("zone_v_min_pu", zone, v2, v1 - v2)
        self._absorb = self._gauges.follow("zone_v_max_pu", zone, v3, v4 - v3)
        self.place = self._setpoints.add(self._rows)
        self._step = np.full_like(self.room_kvar, self._constants.volt_var_step)

    def write(self) -> None:
        """Move reactive power a part of the way to the droop's."""
        if not self._rows:
            return
        parts, setpoints, asked, place = self._gauges.parts, self._setpoints, self.asked_kvar, self.place
        move = parts[:, self._inject] * setpoints.high[:, place]
        move += parts[:, self._absorb] * setpoints.low[:, place]
        # Measurements are a step old, and an undamped droop of large inverters swings.
        move -= asked
        move *= self._step
        asked += move
        np.minimum(np.maximum(asked, -self.room_kvar, out=move), self.room_kvar, out=setpoints.values[:, place])


@dataclass(frozen=True)
class Shared:
    """What rules of one task share: its constants, the limiter of exports, and what the others say of themselves."""

    constants: RuleConstants
    limiter: ExportLimiter
    gauges: Gauges
    setpoints: Setpoints
    droop: Droop

    @classmethod
    def of(cls, task: RuledTask, constants: RuleConstants) -> Shared:
        """Make it for a task."""
        gauges, setpoints = Gauges(task), Setpoints(task)
        droop = Droop(task, constants, gauges, setpoints)
        return cls(constants, ExportLimiter(task, constants.export_pu), gauges, setpoints, droop)

    def reset(self, env: int) -> None:
        """Start an environment from what its devices give before its first step."""
        self.limiter.reset(env)
        self.droop.asked_kvar[env] = 0.0

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what is remembered from step to step, arrays with environments first."""
        return [*self.limiter.memories(), self.droop.asked_kvar]
