"""Rules of demand that can wait: cars and flexible loads."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from powergrid.rules.export_limiter import ExportLimiter
from powergrid.rules.fleet_rule import FleetRule, RuleConstants
from powergrid.rules.ruled import RuledTask

FloatArray = npt.NDArray[np.float64]


class EvChargerRule(FleetRule):
    """Charge in the cheapest of the hours to come; else only as much as finishes every car just in time."""

    def __init__(
        self, task: RuledTask, fleet: Any, constants: RuleConstants, limiter: ExportLimiter | None = None
    ) -> None:
        super().__init__(task, fleet, constants, limiter)
        self._ahead = [max(1, round(spec.stay_hours_mean / 2.0 / self.dt_h)) for spec in fleet.specs]

    def write(self, task: RuledTask, action: FloatArray) -> None:
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

    def __init__(
        self, task: RuledTask, fleet: Any, constants: RuleConstants, limiter: ExportLimiter | None = None
    ) -> None:
        super().__init__(task, fleet, constants, limiter)
        self._share_min, self._share_max, self._owed_max = np.array([
            (spec.share_min, spec.share_max, spec.owed_max_kwh) for spec in fleet.specs
        ]).T  # fmt: skip

    def write(self, task: RuledTask, action: FloatArray) -> None:
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
