"""Rules of demand that can wait: cars and flexible loads."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from powergrid.rules.fleet_rule import FleetRule
from powergrid.rules.ruled import RuledTask
from powergrid.rules.shared import Shared

FloatArray = npt.NDArray[np.float64]


class EvChargerRule(FleetRule):
    """Charge in the cheapest of the hours to come; else only as much as finishes every car just in time."""

    def __init__(self, task: RuledTask, fleet: Any, shared: Shared) -> None:
        super().__init__(task, fleet, shared)
        self._ahead = [max(1, round(spec.stay_hours_mean / 2.0 / self.dt_h)) for spec in fleet.specs]
        # below the limit by anything
        self._short = shared.gauges.follow("zone_v_min_pu", self.zone, task.metrics.limits[0], -1.0)
        self._cheap = np.ones((task.n_envs, task.simulation.options.horizon_steps + 1, fleet.n), dtype=bool)

    def reset(self, task: RuledTask, env: int) -> None:
        """Find the steps that are as cheap as any of those to come until half a stay is over."""
        super().reset(task, env)
        price = task.simulation.day_price[env, :-1]  # no step is played on the last row, it repeats the one before
        for ahead in set(self._ahead):
            coming = np.append(price, np.full(ahead, np.inf))
            least = np.lib.stride_tricks.sliding_window_view(coming, ahead + 1).min(axis=1)
            self._cheap[env, :-1].T[np.equal(self._ahead, ahead)] = price <= least + 1e-9

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what it remembers: which steps are cheap as well."""
        return [*super().memories(), self._cheap]

    def write(self, task: RuledTask) -> None:
        """Ask for shares of the power that cars can take."""
        cheap = self._cheap[task.simulation.env_index, task.simulation.step_index]
        # A zone short of voltage gets its cars' reserve first.
        cheap &= self.shared.gauges.parts[:, self._short] <= 0.0
        self.ask("share", np.where(cheap, 1.0, self.fleet.urgency))


class FlexibleLoadRule(FleetRule):
    """Put off demand while it is dear and can be made up later for less; pay back as soon as it is cheap."""

    start: ClassVar[dict[str, float]] = {
        "demand_kw": 0.0
    }  # before the first step none is known, and nothing is put off

    def __init__(self, task: RuledTask, fleet: Any, shared: Shared) -> None:
        super().__init__(task, fleet, shared)
        self._share_min, self._share_max, self._owed_max = (
            self.tile([getattr(spec, key) for spec in fleet.specs])
            for key in ("share_min", "share_max", "owed_max_kwh")
        )
        self._cheaper = np.zeros((task.n_envs, task.simulation.options.horizon_steps + 1))
        self._dear = np.zeros(self._cheaper.shape, dtype=bool)

    def reset(self, task: RuledTask, env: int) -> None:
        """Find which steps are dear, and after each how many are cheaper than it by a tenth."""
        super().reset(task, env)
        price = task.simulation.day_price[env, :-1]  # no step is played on the last row, it repeats the one before
        self._dear[env, :-1] = price > 1.1 * price.mean()
        self._cheaper[env, :-1] = [np.count_nonzero(price[i + 1 :] < 0.9 * now) for i, now in enumerate(price)]
        self._dear[env, -1], self._cheaper[env, -1] = self._dear[env, -2], 0.0

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what it remembers: which steps are dear as well."""
        return [*super().memories(), self._cheaper, self._dear]

    def write(self, task: RuledTask) -> None:
        """Ask for shares of demand."""
        simulation, owed = task.simulation, self.fleet.owed_kwh
        now = simulation.env_index, simulation.step_index
        demand = self.memory["demand_kw"]
        np.copyto(demand, self.fleet.demand_kw, where=self.fleet.demand_kw > 0.0)
        cheaper, pays = self._cheaper[now][:, None], self._dear[now][:, None]
        per_step = demand * self.dt_h
        makeup = self.constants.payback_share * (self._share_max - 1.0) * per_step * cheaper
        room = np.minimum(makeup, self._owed_max) - owed
        dear = pays & (room > 0.0)
        cut = np.minimum(1.0 - self._share_min, room / np.maximum(per_step, 1e-9))
        payback = np.minimum(self._share_max - 1.0, owed / np.maximum(per_step, 1e-9))
        held = pays & (owed < makeup)
        share = np.where(dear, 1.0 - cut, np.where(held, 1.0, 1.0 + payback))
        self.ask("share", share)
