from __future__ import annotations

import numpy as np
import pytest

from powergrid.grid.devices import GeneratorSpec, StorageSpec
from powergrid.rules.planning import GeneratorPlanner, StoragePlanner

E_MAX_KWH = 100.0


def battery(**keys: object) -> StorageSpec:
    data = {"kind": "storage", "bus": "1", "e_max_kwh": E_MAX_KWH, "p_max_kw": 50.0, "soc_min": 0.0, "soc_max": 1.0}
    return StorageSpec.model_validate(data | {"eta_charge": 1.0, "eta_discharge": 1.0} | keys)


def play(
    spec: StorageSpec, price: np.ndarray, final: float, spread: float = 0.0, dt_h: float = 1.0
) -> tuple[np.ndarray, float]:
    planner = StoragePlanner([spec], dt_h)
    plans = planner.plan(price, final, spread)[None]
    soc, powers = spec.soc_initial, []
    for step in range(len(price)):
        p = planner.power(plans, np.array([step]), np.array([[soc]])).item()
        powers.append(p)
        soc -= (p / spec.eta_discharge if p > 0 else p * spec.eta_charge) * dt_h / E_MAX_KWH
    return np.array(powers), soc


def test_battery_buys_cheap_and_sells_dear() -> None:
    # Two hours cheap, two in between, two dear; 50 kW fill the half of 100 kWh that is empty in one hour.
    spec, price = battery(), np.array([0.1, 0.1, 0.2, 0.2, 0.4, 0.4])
    powers, soc = play(spec, price, 0.2)
    assert powers[:2].sum() == pytest.approx(-50.0)
    assert powers[4:].sum() == pytest.approx(100.0)
    assert soc == pytest.approx(0.0)


def test_battery_with_spread_shares_power_among_hours_that_cost_alike() -> None:
    spec, price = battery(), np.array([0.1, 0.1, 0.4, 0.4])
    powers, _ = play(spec, price, 0.25, 0.02)
    assert powers == pytest.approx([-25.0, -25.0, 50.0, 50.0])


@pytest.mark.parametrize("keys", [{"eta_charge": 0.8, "eta_discharge": 0.8}, {"wear_usd_per_kwh": 0.06}])
def test_battery_whose_losses_or_wear_eat_the_difference_idles(keys: dict[str, float]) -> None:
    # Into the cell for 0.10 / 0.8 = 0.125 or 0.10 + 0.06, out of it for 0.15 · 0.8 = 0.12 or 0.15 - 0.06.
    spec, price = battery(**keys), np.array([0.10, 0.10, 0.15, 0.15])
    powers, _ = play(spec, price, 0.122)
    assert np.abs(powers).max() == 0.0


def test_batteries_of_many_environments_each_go_by_their_own_day_step_and_charge() -> None:
    rng, specs = (
        np.random.default_rng(3),
        [battery(), battery(p_charge_max_kw=20.0, soc_min=0.2, wear_usd_per_kwh=0.01)],
    )
    planner, prices = StoragePlanner(specs, 0.5), rng.uniform(0.0, 0.5, (3, 24))
    plans = np.stack([planner.plan(price, 0.2, 0.02) for price in prices])
    steps, soc = np.array([0, 23, 11]), rng.uniform(-0.1, 1.1, (3, 2))
    together = planner.power(plans, steps, soc)
    for env, step in enumerate(steps):
        alone = planner.power(plans[env : env + 1], np.array([step]), soc[env : env + 1])
        np.testing.assert_array_equal(together[env], alone[0])
        for device, spec in enumerate(specs):
            one = StoragePlanner([spec], 0.5)
            own = one.power(one.plan(prices[env], 0.2, 0.02)[None], np.array([step]), soc[env : env + 1, device, None])
            assert together[env, device] == own.item()
    assert not planner.power(np.full_like(plans, planner.idle), steps, soc).any()


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
    plan, on, ran = GeneratorPlanner([spec], 1.0).plan(price), False, []
    for step in range(len(price)):
        on = bool(plan[step, int(on), 0] > 0.0)
        ran.append(on)
    assert ran == [False, False, False, False, True, True, False]


def test_generator_power_meets_price_with_marginal_cost() -> None:
    # 2·a·p + b = price: p = (0.2 - 0.1) / (2 · 0.0005) = 100 kW; at 0.4 the limit of 150 kW.
    spec = GeneratorSpec.model_validate(
        {"kind": "generator", "bus": "1", "p_max_kw": 150, "cost_b_usd_per_kwh": 0.1, "cost_a_usd_per_kw2h": 0.0005}
    )
    plan = GeneratorPlanner([spec], 1.0).plan(np.array([0.2, 0.4]))
    assert plan[:, 1, 0] == pytest.approx([100.0, 150.0])
