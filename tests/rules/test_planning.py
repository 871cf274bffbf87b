from __future__ import annotations

import numpy as np
import pytest

from powergrid.grid.devices import GeneratorSpec, StorageSpec
from powergrid.rules.planning import GeneratorPlan, StoragePlan

E_MAX_KWH = 100.0


def battery(**keys: object) -> StorageSpec:
    data = {"kind": "storage", "bus": "1", "e_max_kwh": E_MAX_KWH, "p_max_kw": 50.0, "soc_min": 0.0, "soc_max": 1.0}
    return StorageSpec.model_validate(data | {"eta_charge": 1.0, "eta_discharge": 1.0} | keys)


def play(plan: StoragePlan, spec: StorageSpec, steps: int, dt_h: float = 1.0) -> tuple[np.ndarray, float]:
    soc, powers = spec.soc_initial, []
    for step in range(steps):
        p = float(plan.power(step, np.array([soc]))[0])
        powers.append(p)
        soc -= (p / spec.eta_discharge if p > 0 else p * spec.eta_charge) * dt_h / E_MAX_KWH
    return np.array(powers), soc


def test_battery_buys_cheap_and_sells_dear() -> None:
    # Two hours cheap, two in between, two dear; 50 kW fill the half of 100 kWh that is empty in one hour.
    spec, price = battery(), np.array([0.1, 0.1, 0.2, 0.2, 0.4, 0.4])
    powers, soc = play(StoragePlan([spec], price, 0.2, 1.0, 0.0), spec, 6)
    assert powers[:2].sum() == pytest.approx(-50.0)
    assert powers[4:].sum() == pytest.approx(100.0)
    assert soc == pytest.approx(0.0)


def test_battery_with_spread_shares_power_among_hours_that_cost_alike() -> None:
    spec, price = battery(), np.array([0.1, 0.1, 0.4, 0.4])
    powers, _ = play(StoragePlan([spec], price, 0.25, 1.0, 0.02), spec, 4)
    assert powers == pytest.approx([-25.0, -25.0, 50.0, 50.0])


@pytest.mark.parametrize("keys", [{"eta_charge": 0.8, "eta_discharge": 0.8}, {"wear_usd_per_kwh": 0.06}])
def test_battery_whose_losses_or_wear_eat_the_difference_idles(keys: dict[str, float]) -> None:
    # Into the cell for 0.10 / 0.8 = 0.125 or 0.10 + 0.06, out of it for 0.15 · 0.8 = 0.12 or 0.15 - 0.06.
    spec, price = battery(**keys), np.array([0.10, 0.10, 0.15, 0.15])
    powers, _ = play(StoragePlan([spec], price, 0.122, 1.0, 0.0), spec, 4)
    assert np.abs(powers).max() == 0.0


def test_generator_runs_while_the_price_pays_its_fuel_and_its_start() -> None:
    # 100 kW earn 5 USD in a dear hour; 60 kW lose 3 in a cheap one, too much to wait for the second time running.
    spec = GeneratorSpec.model_validate(
        {
            "kind": "generator",
            "bus": "1",
            "p_max_kw": 100,
            "p_min_kw": 60,
            "cost_b_usd_per_kwh": 0.15,
            "start_cost_usd": 8.0,
        }
    )
    price = np.array([0.1, 0.2, 0.1, 0.1, 0.2, 0.2, 0.1])
    plan = GeneratorPlan([spec], price, 1.0)
    on, ran = np.array([False]), []
    for step in range(len(price)):
        on = np.where(on, plan.run_if_on[step], plan.run_if_off[step])
        ran.append(bool(on[0]))
    assert ran == [False, False, False, False, True, True, False]


def test_generator_power_meets_price_with_marginal_cost() -> None:
    # 2·a·p + b = price: p = (0.2 - 0.1) / (2 · 0.0005) = 100 kW; at 0.4 the limit of 150 kW.
    spec = GeneratorSpec.model_validate(
        {"kind": "generator", "bus": "1", "p_max_kw": 150, "cost_b_usd_per_kwh": 0.1, "cost_a_usd_per_kw2h": 0.0005}
    )
    plan = GeneratorPlan([spec], np.array([0.2, 0.4]), 1.0)
    assert plan.p_kw[:, 0] == pytest.approx([100.0, 150.0])
