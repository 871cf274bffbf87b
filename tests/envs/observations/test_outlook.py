"""What agents see of themselves, the season and the hours to come: as stated, and no more than that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.grid.profiles.outlook import Forecasts
from powergrid.scenario import load_scenario

HOURS = {"hours": [1.0, 6.0]}
DAY, STEP = 150, 30


def look(outlook: Any, day: int = DAY, seed: int = 0, **keys: Any) -> tuple[dict[str, float], GridTask]:
    """Return the channels by name at noon of a day on which nothing is controlled, and the task, closed."""
    task = GridTask(load_scenario("ieee13_mg", {"outlook": outlook, "split": "all", **keys}))
    try:
        task.reset(0, np.random.default_rng(seed), {"day": day})
        for _ in range(STEP):
            task.action_buffer()[:] = task.simulation.neutral()
            task.step()
        return dict(zip((c.name for c in task.channels.table), task.channels.values[0].tolist(), strict=True)), task
    finally:
        task.close()


def test_without_error_the_day_ahead_is_the_mean_of_what_comes() -> None:
    seen, task = look({**HOURS, "sun_error": 0.0, "demand_error": 0.0})
    ahead = {1: slice(STEP, STEP + 4), 6: slice(STEP, STEP + 24)}
    for hours, rows in ahead.items():
        assert seen[f"world.sun_over_{hours}h_pu"] == pytest.approx(task.simulation.day_pv_pu[0, rows].mean())
        price = task.simulation.day_price[0, rows].mean()
        assert seen[f"world.price_over_{hours}h_usd_per_kwh"] == pytest.approx(price)
        zones = task.channels.sum_loads(task.simulation.day_load_kw)[0, rows].mean(axis=0)
        assert [seen[f"{zone}.demand_over_{hours}h_kw"] for zone in ("MG1", "MG2")] == pytest.approx(zones.tolist())
    assert seen["world.hours_left"] == pytest.approx(24.0 - STEP / 4)
    angle = 2.0 * np.pi * DAY / 365.25  # the profiles start on a first of January
    assert (seen["world.season_sin"], seen["world.season_cos"]) == pytest.approx((np.sin(angle), np.cos(angle)))
    assert [seen[f"MG1.is_{zone}"] for zone in ("MG1", "MG2")] == [1.0, 0.0]
    assert [seen[f"MG2.is_{zone}"] for zone in ("MG1", "MG2")] == [0.0, 1.0]


def test_persistence_is_the_day_before_whatever_comes() -> None:
    persistent = {**HOURS, "forecast": "persistence"}
    seen, _ = look(persistent)
    before, _ = look({**HOURS, "sun_error": 0.0, "demand_error": 0.0}, DAY - 1)
    for name in ("world.sun_over_6h_pu", "MG1.demand_over_1h_kw", "MG2.demand_over_6h_kw"):
        assert seen[name] == pytest.approx(before[name])
    struck = {"step": {"kind": "load_step", "loads": "*", "factor": 2.0, "at_hour": 8.0, "duration_hours": 4.0}}
    other, task = look({**HOURS, "sun_error": 0.0, "demand_error": 0.0}, events=struck)
    plain, _ = look({**HOURS, "sun_error": 0.0, "demand_error": 0.0})
    assert task.simulation.day_load_kw[0, STEP + 4].sum() > 0
    assert other["MG1.demand_over_6h_kw"] == pytest.approx(plain["MG1.demand_over_6h_kw"])  # nobody foresees events


def test_errors_have_the_stated_size_and_last_as_stated() -> None:
    forecasts = Forecasts(sun_error=0.15, demand_error=0.05, error_hours=3.0)
    comes = np.full((600, 96, 2), 10.0)
    foreseen = forecasts.foresee([np.random.default_rng(i) for i in range(600)], comes, comes, 0.25)
    errors = foreseen / comes - 1.0
    assert errors.std(axis=(0, 1)) == pytest.approx([0.15, 0.05], rel=0.05)
    assert errors.mean(axis=(0, 1)) == pytest.approx([0.0, 0.0], abs=0.01)
    later = np.mean(errors[:, :-12] * errors[:, 12:], axis=(0, 1)) / errors.var(axis=(0, 1))
    assert later == pytest.approx([np.exp(-1.0)] * 2, abs=0.06)


def test_errors_are_of_the_seed_and_move_nothing_else_that_is_random() -> None:
    first, again, other = (look(HOURS, seed=seed)[0]["world.sun_over_6h_pu"] for seed in (1, 1, 2))
    assert first == again != other
    draws = []
    for outlook in (None, HOURS):
        task = GridTask(load_scenario("ieee13_mg", {"outlook": outlook}))
        rng = np.random.default_rng(4)
        task.reset(0, rng)
        draws.append((int(task.simulation.day[0]), rng.random()))
        task.close()
    assert draws[0] == draws[1]


def test_what_is_wrong_with_an_outlook_is_told_at_once() -> None:
    with pytest.raises(ScenarioError) as told:
        load_scenario("ieee13_mg", {"outlook": {"hours": [0], "sun_error": -1, "forecst": "day_ahead"}})
    assert len(told.value.problems) == 3


def test_price_is_foreseen_as_stated() -> None:
    def price(**outlook: Any) -> float:
        return look({**HOURS, **outlook}, profiles={"tariff": "wholesale"})[0]["world.price_over_6h_usd_per_kwh"]

    before = look(HOURS, DAY - 1, profiles={"tariff": "wholesale"})[0]["world.price_over_6h_usd_per_kwh"]
    assert price(price_forecast="persistence") == pytest.approx(before)
    assert price(price_forecast="persistence") != price()
    assert price(price_error=0.2) != price() == pytest.approx(price(forecast="perfect"))
    comes = np.ones((400, 24))
    foreseen = Forecasts(price_error=0.2).foresee_price(
        [np.random.default_rng(i) for i in range(400)], comes, comes, 1.0
    )
    assert foreseen.std() == pytest.approx(0.2, rel=0.05)


def test_perfect_forecast_is_what_comes() -> None:
    exact, _ = look({**HOURS, "sun_error": 0.0, "demand_error": 0.0})
    perfect, _ = look({**HOURS, "forecast": "perfect"})
    assert perfect == exact
