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
BoolArray = npt.NDArray[np.bool_]

SOC_POINTS = 41
POWER_LEVELS = 17


class StoragePlan:
    """Say how much a battery shall charge or discharge at its state of charge, step by step.

    Args:
        specs: The batteries.
        price_usd_per_kwh: Price of each step, shape (n_steps,) or, where it is not the same for all,
            (n_steps, n) [USD/kWh].
        final_usd_per_kwh: Worth of energy left in the cell at the end [USD/kWh].
        dt_h: Length of a step [h].
        spread_usd_per_kwh: Price rise that full power itself is reckoned to cause; spreads power over hours that
            cost alike [USD/kWh].

    Attributes:
        p_kw: Best power into the grid, shape (n_steps, n, SOC_POINTS) [kW].
    """

    def __init__(
        self,
        specs: Sequence[StorageSpec],
        price_usd_per_kwh: FloatArray,
        final_usd_per_kwh: float,
        dt_h: float,
        spread_usd_per_kwh: float,
    ) -> None:
        discharge, charge, e_max, eta_c, eta_d, low, high, wear = (
            np.array([_battery(spec) for spec in specs]).reshape(-1, 8).T
        )
        n_steps = len(price_usd_per_kwh)
        price = np.broadcast_to(np.asarray(price_usd_per_kwh).reshape(n_steps, -1), (n_steps, len(specs)))
        levels = np.linspace(-1.0, 1.0, POWER_LEVELS)[None, :]
        p = np.where(levels > 0.0, levels * discharge[:, None], levels * charge[:, None])
        taken = np.maximum(p / eta_d[:, None], p * eta_c[:, None]) * (dt_h / e_max[:, None])
        window = (high - low)[:, None, None]
        after = np.linspace(0.0, 1.0, SOC_POINTS)[None, :, None] - taken[:, None, :] / window
        # Rounding must not make the window's own limits infeasible: idling always is feasible.
        feasible = (after >= -1e-9) & (after <= 1.0 + 1e-9)
        place = np.clip(after, 0.0, 1.0) * (SOC_POINTS - 1)
        left = np.minimum(place.astype(np.int64), SOC_POINTS - 2)
        right_share = place - left
        device = np.arange(len(specs))[:, None, None]
        cost = np.abs(p) * wear[:, None] + spread_usd_per_kwh * p * p / np.maximum(discharge, charge)[:, None]
        value = np.linspace(0.0, 1.0, SOC_POINTS)[None, :] * (e_max * (high - low))[:, None] * final_usd_per_kwh
        self.p_kw = np.zeros((len(price), len(specs), SOC_POINTS))
        for step in range(len(price) - 1, -1, -1):  # Bellman's way: from the end of the day, its worth known
            earned = (price[step][:, None] * p - cost) * dt_h
            later = value[device, left] * (1.0 - right_share) + value[device, left + 1] * right_share
            total = np.where(feasible, earned[:, None, :] + later, -np.inf)
            best = total.argmax(axis=2)
            self.p_kw[step] = p[device[:, :, 0], best]
            value = np.take_along_axis(total, best[:, :, None], axis=2)[:, :, 0]
        self._low, self._per_window = low, 1.0 / (high - low)

    def power(self, step: int, soc: FloatArray) -> FloatArray:
        """Return the best power at a state of charge, shape (n,) [kW]."""
        place = np.clip((soc - self._low) * self._per_window, 0.0, 1.0) * (SOC_POINTS - 1)
        left = np.minimum(place.astype(np.int64), SOC_POINTS - 2)
        device = np.arange(len(soc))
        table = self.p_kw[step]
        share = place - left
        power: FloatArray = table[device, left] * (1.0 - share) + table[device, left + 1] * share
        return power


def _battery(spec: StorageSpec) -> tuple[float, ...]:
    discharge = float(spec.p_max_kw or 0.0)
    charge = discharge if spec.p_charge_max_kw is None else spec.p_charge_max_kw
    e_max = float(spec.e_max_kwh or 0.0)
    return (
        discharge, charge, e_max, spec.eta_charge, spec.eta_discharge, spec.soc_min, spec.soc_max,
        spec.wear_usd_per_kwh,
    )  # fmt: skip


class GeneratorPlan:
    """Say when a generator shall run: while the price pays its fuel, and its start over the whole run.

    Args:
        specs: The generators.
        price_usd_per_kwh: Price of each step, shape (n_steps,) [USD/kWh].
        dt_h: Length of a step [h].

    Attributes:
        p_kw: Best power of each step if it runs, shape (n_steps, n) [kW].
        run_if_on, run_if_off: Whether it shall run in a step, by whether it ran before, shape (n_steps, n).
    """

    def __init__(self, specs: Sequence[GeneratorSpec], price_usd_per_kwh: FloatArray, dt_h: float) -> None:
        rows = np.array([
            (s.cost_a_usd_per_kw2h, s.cost_b_usd_per_kwh, s.cost_c_usd_per_h, s.p_min_kw, float(s.p_max_kw or 0.0),
             s.start_cost_usd)
            for s in specs
        ]).reshape(-1, 6)  # fmt: skip
        a, b, c, p_min, p_max, start = rows.T
        margin = np.asarray(price_usd_per_kwh)[:, None] - b
        best = np.where(a > 0.0, margin / np.maximum(2.0 * a, 1e-12), np.where(margin > 0.0, np.inf, 0.0))
        self.p_kw: FloatArray = np.clip(best, p_min, p_max)
        profit = (margin * self.p_kw - a * self.p_kw**2 - c) * dt_h
        n_steps = len(profit)
        self.run_if_on: BoolArray = np.zeros(profit.shape, dtype=bool)
        self.run_if_off: BoolArray = np.zeros(profit.shape, dtype=bool)
        on, off = np.zeros(len(specs)), np.zeros(len(specs))
        for step in range(n_steps - 1, -1, -1):
            self.run_if_on[step] = profit[step] + on > off
            self.run_if_off[step] = profit[step] - start + on > off
            on, off = np.maximum(profit[step] + on, off), np.maximum(profit[step] - start + on, off)
