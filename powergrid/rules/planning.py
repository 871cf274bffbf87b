"""Plans of a day against a known price: when a battery or a generator earns most; it knows no grid.

Dynamic programming for a price taker, all the devices at once. What comes out is a rule, not a schedule: what to do
in each state, so that it still holds when something else moved the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices import GeneratorSpec, StorageSpec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
LevelArray = npt.NDArray[np.uint8]

SOC_POINTS = 41
POWER_LEVELS = 17


class StoragePlanner:
    """Say how much batteries shall charge or discharge at their states of charge, step by step.

    Args:
        specs: The batteries.
        dt_h: Length of a step [h].

    Attributes:
        idle: The level of no power, for states that nothing was planned for.
    """

    idle = POWER_LEVELS // 2

    def __init__(self, specs: Sequence[StorageSpec], dt_h: float) -> None:
        discharge, charge, e_max, eta_c, eta_d, low, high, wear = (
            np.array([_battery(spec) for spec in specs]).reshape(-1, 8).T
        )
        self._n, self._dt_h = len(specs), dt_h
        levels = np.linspace(-1.0, 1.0, POWER_LEVELS)[None, :]
        self._p = p = np.where(levels > 0.0, levels * discharge[:, None], levels * charge[:, None])
        self._wear, self._largest = np.abs(p) * wear[:, None], np.maximum(discharge, charge)[:, None]
        self._full_kwh = np.linspace(0.0, 1.0, SOC_POINTS)[None, :] * (e_max * (high - low))[:, None]
        taken = np.maximum(p / eta_d[:, None], p * eta_c[:, None]) * (dt_h / e_max[:, None])
        window = (high - low)[:, None, None]
        after = np.linspace(0.0, 1.0, SOC_POINTS)[None, :, None] - taken[:, None, :] / window
        # Rounding must not make the window's own limits infeasible: idling always is feasible.
        self._barred = np.where((after >= -1e-9) & (after <= 1.0 + 1e-9), 0.0, -np.inf)
        place = np.clip(after, 0.0, 1.0) * (SOC_POINTS - 1)
        left = np.minimum(place.astype(np.int64), SOC_POINTS - 2)
        self._to_right = place - left
        self._to_left = 1.0 - self._to_right
        self._left = np.arange(self._n)[:, None, None] * SOC_POINTS + left
        self._right = self._left + 1
        self._low, self._per_window = low, 1.0 / (high - low)
        self._first_level, self._first_point = np.arange(self._n) * POWER_LEVELS, np.arange(self._n) * SOC_POINTS

    def plan(
        self, price_usd_per_kwh: FloatArray, final_usd_per_kwh: float, spread_usd_per_kwh: float = 0.0
    ) -> LevelArray:
        """Return the best level of power in each state, shape (n_steps, n, SOC_POINTS), for :meth:`power`.

        Args:
            price_usd_per_kwh: Price of each step, shape (n_steps,) or, where it is not the same for all,
                (n_steps, n) [USD/kWh].
            final_usd_per_kwh: Worth of energy left in the cell at the end [USD/kWh].
            spread_usd_per_kwh: Price rise that full power itself is reckoned to cause; spreads power over hours that
                cost alike [USD/kWh].
        """
        n_steps, p = len(price_usd_per_kwh), self._p
        price = np.broadcast_to(np.asarray(price_usd_per_kwh).reshape(n_steps, -1), (n_steps, self._n))
        cost = self._wear + spread_usd_per_kwh * p * p / self._largest
        earned = ((price[:, :, None] * p - cost) * self._dt_h)[:, :, None, :]
        value = (self._full_kwh * final_usd_per_kwh).ravel()
        levels = np.empty((n_steps, self._n, SOC_POINTS), dtype=np.uint8)
        total, right = np.empty(self._left.shape), np.empty(self._left.shape)
        first = np.arange(len(value)) * POWER_LEVELS
        for step in range(n_steps - 1, -1, -1):  # Bellman's way: from the end of the day, its worth known
            value.take(self._left, out=total, mode="clip")  # which is never needed, and spares a copy
            value.take(self._right, out=right, mode="clip")
            total *= self._to_left
            right *= self._to_right
            total += right
            total += earned[step]
            total += self._barred
            best = total.argmax(axis=2)
            levels[step] = best
            value = total.take(first + best.ravel())
        return levels

    def power(self, plans: LevelArray, step: IntArray, soc: FloatArray) -> FloatArray:
        """Return the best power of environments, each by its plan, step and states of charge.

        Args:
            plans: A plan for each environment, shape (n_envs, n_steps, n, SOC_POINTS).
            step: Which step is to come, shape (n_envs,).
            soc: States of charge, shape (n_envs, n).

        Returns:
            Power into the grid, shape (n_envs, n) [kW].
        """
        place = np.minimum(np.maximum((soc - self._low) * self._per_window, 0.0), 1.0) * (SOC_POINTS - 1)
        left = np.minimum(place.astype(np.int64), SOC_POINTS - 2)
        share = place - left
        n_envs, n_steps = plans.shape[:2]
        left += ((np.arange(n_envs) * n_steps + step) * (self._n * SOC_POINTS))[:, None] + self._first_point
        level, levels = self._first_level, plans.reshape(-1)
        lower, upper = self._p.take(level + levels.take(left)), self._p.take(level + levels.take(left + 1))
        power: FloatArray = lower * (1.0 - share) + upper * share
        return power


def _battery(spec: StorageSpec) -> tuple[float, ...]:
    discharge = float(spec.p_max_kw or 0.0)
    charge = discharge if spec.p_charge_max_kw is None else spec.p_charge_max_kw
    e_max = float(spec.e_max_kwh or 0.0)
    return (
        discharge, charge, e_max, spec.eta_charge, spec.eta_discharge, spec.soc_min, spec.soc_max,
        spec.wear_usd_per_kwh,
    )  # fmt: skip


class GeneratorPlanner:
    """Say when generators shall run: while the price pays their fuel, and their start over the whole run.

    Args:
        specs: The generators.
        dt_h: Length of a step [h].
    """

    def __init__(self, specs: Sequence[GeneratorSpec], dt_h: float) -> None:
        rows = np.array([
            (s.cost_a_usd_per_kw2h, s.cost_b_usd_per_kwh, s.cost_c_usd_per_h, s.p_min_kw, float(s.p_max_kw or 0.0),
             s.start_cost_usd)
            for s in specs
        ]).reshape(-1, 6)  # fmt: skip
        self._costs, self._dt_h = tuple(rows.T), dt_h

    def plan(self, price_usd_per_kwh: FloatArray) -> FloatArray:
        """Return the best power in each step, 0 where it shall not run, of those that did not run before and that did.

        Args:
            price_usd_per_kwh: Price of each step, shape (n_steps,) [USD/kWh].

        Returns:
            Power, shape (n_steps, 2, n) [kW].
        """
        a, b, c, p_min, p_max, start = self._costs
        margin = np.asarray(price_usd_per_kwh)[:, None] - b
        best = np.where(a > 0.0, margin / np.maximum(2.0 * a, 1e-12), np.where(margin > 0.0, np.inf, 0.0))
        p_kw = np.clip(best, p_min, p_max)
        profit = (margin * p_kw - a * p_kw**2 - c) * self._dt_h
        started = profit - start
        # What the rest of the day is worth from each step on, to who ran in the step before it and who did not.
        on, off = np.zeros((2, len(profit) + 1, len(a)))
        for step in range(len(profit) - 1, -1, -1):
            np.maximum(profit[step] + on[step + 1], off[step + 1], out=on[step])
            np.maximum(started[step] + on[step + 1], off[step + 1], out=off[step])
        runs = started + on[1:] > off[1:], profit + on[1:] > off[1:]
        return np.stack([p_kw * run for run in runs], axis=1)
