"""The optimum of a day is right where it can be had by hand, is never beaten, and is what the environment gives."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation import BASELINES, evaluate
from powergrid.evaluation.optimum import Optimum, find_optimum
from powergrid.evaluation.optimum.program import improve
from powergrid.evaluation.optimum.slopes import find_slopes
from powergrid.evaluation.optimum.stacked import StackedDay
from powergrid.scenario import load_scenario

#: A stiff feeder: losses and voltages count for nothing.
STIFF = """
New Circuit.stiff basekv=12.47 pu=1.0 r1=0.0001 x1=0.0001 r0=0.0001 x0=0.0001
New Line.l bus1=sourcebus bus2=b length=0.001 r1=0.001 x1=0.001 r0=0.001 x0=0.001 c1=0 c0=0 normamps=10000
New Load.x bus1=b kV=12.47 kW=500 pf=1
Set VoltageBases=[12.47]
CalcVoltageBases
"""
HOURLY = {"split": "test", "step_minutes": 60, "episode_length": 24}


def starters() -> list[Any]:
    return [BASELINES[name].make(0) for name in ("no_control", "rule_based")]


def battery(folder: Path, prices: list[float], **more: Any) -> dict[str, Any]:
    """Write a stiff feeder with a price by the hour; return a scenario of one battery on it."""
    (folder / "Master.dss").write_text(STIFF)
    times = pd.date_range("2024-01-01", periods=24 * 3, freq="h")
    table = pd.DataFrame({"demand_pu:x": 1.0, "price_usd_per_kwh": np.tile(prices, 3)}, index=times)
    table.index.name = "time"
    table.to_csv(folder / "table.csv")
    spec = {"kind": "storage", "bus": "b", "e_max_kwh": 100.0, "p_max_kw": 50.0, "soc_initial": 0.5, "soc_min": 0.0,
            "soc_max": 1.0, "eta_charge": 0.9, "eta_discharge": 0.9, **more}  # fmt: skip
    return {
        "name": "arbitrage", "feeder": str(folder / "Master.dss"),
        "profiles": {"source": str(folder / "table.csv"), "tariff": "price"},
        "split": "all", "step_minutes": 60, "episode_length": 24, "devices": {"bess": spec},
        "agents": {"A": {"devices": ["bess"], "zone": {"buses": ["b"]}, "pcc": "b"}},
        "reward": {"scale": 1.0},
    }  # fmt: skip


def solve(scenario: Any, day: int = 1) -> Optimum:
    with closing(StackedDay(load_scenario(scenario))) as stacked:
        stacked.open(day)
        return find_optimum(stacked, starters()[:1])


def test_arbitrage_of_a_battery_is_that_of_a_linear_program_by_hand(tmp_path: Path) -> None:
    prices = [0.1] * 12 + [0.5] * 6 + [0.2] * 6
    found = solve(battery(tmp_path, prices))
    # Of 100 kWh half are in it. It is filled at 0.1, emptied at 0.5, and filled again at 0.2: what the day leaves in it
    # is worth the mean price, and 0.9 of that is more than 0.2.
    mean = float(np.mean(prices))
    assert 0.9 * mean > 0.2
    gain = 100 * 0.9 * 0.5 - 50 / 0.9 * 0.1 - 100 / 0.9 * 0.2 + (100 - 50) * mean
    assert found.reward - found.start == pytest.approx(gain, rel=1e-3)
    assert found.promised < 1e-3 * gain


def test_optimum_moves_gear_only_where_that_pays(tmp_path: Path) -> None:
    with closing(StackedDay(load_scenario("ieee13_voltvar", {"split": "test"}))) as stacked:
        stacked.open(14)
        found = find_optimum(stacked, starters(), rounds=6)
        assert found.reward > found.start + 0.1
        assert stacked.play(lambda step: found.actions[step], planned=False).reward == pytest.approx(
            found.reward, abs=1e-9
        )
        columns = [gear.at.column for gear in stacked.devices.gear]
        assert len(columns) == 5
        moves = np.abs(np.diff(found.actions[:, columns], axis=0)).sum()
        assert 0 < moves < 40


@pytest.fixture(scope="module")
def evaluated() -> Any:
    """Play two days of the 13-node microgrids, hour by hour, with all baselines and the optimum."""
    scenario = {"env_name": "ieee13_mg", **HOURLY}
    return evaluate(scenario, ["no_control", "rule_based", "random", "optimum"], days=2, n_envs=2)


def test_no_baseline_beats_the_optimum_on_any_day(evaluated: Any) -> None:
    rewards = evaluated.frame.pivot(index="day", columns="policy", values="reward")
    for name in ("no_control", "rule_based", "random"):
        assert (rewards["optimum"] > rewards[name] + 0.01).all(), name


def test_score_and_regret_are_counted_from_no_control_and_the_optimum(evaluated: Any) -> None:
    assert evaluated.score("no_control") == 0.0
    assert evaluated.score("optimum") == 1.0
    assert 0.0 < evaluated.score("rule_based") < 1.0
    # 500 USD are 1, mean over two agents
    short = evaluated.reward("optimum").mean - evaluated.reward("rule_based").mean
    assert evaluated.regret_usd("rule_based").mean == pytest.approx(1000.0 * short)
    assert evaluated.best_baseline == "rule_based"
    assert evaluated.summary()["rule_based"]["score"] == evaluated.score("rule_based")


def test_steps_from_any_state_on_are_planned_alike() -> None:
    scenario = load_scenario("ieee13_mg", HOURLY)
    with closing(GridTask(scenario, 2)) as task, closing(StackedDay(scenario, most_steps=3)) as stacked:
        for env, day in enumerate((14, 20)):
            task.reset(env, np.random.default_rng(env), {"day": day})
        for _ in range(17):
            task.action_buffer()[...] = task.simulation.neutral()
            task.step()
        stacked.open_at(stacked.state_of(task, 1))
        found = find_optimum(stacked, starters()[:1], rounds=3)
        assert (stacked.n_steps, len(found.actions)) == (3, 3)
        assert found.reward > found.start
        won = 0.0
        for step in range(3):
            task.action_buffer()[...] = found.actions[step]
            task.step()
            won += float(task.rewards[1].mean())
        assert won == pytest.approx(found.reward, abs=1e-9)
        stacked.open_at(stacked.state_of(task, 0))
        for _ in range(2):
            task.step()
        stacked.open_at(stacked.state_of(task, 0))
        assert stacked.n_steps == 2


def test_small_change_brings_what_its_slopes_promise() -> None:
    with closing(StackedDay(load_scenario("ieee13_mg", HOURLY))) as stacked:
        stacked.open(20)
        start = stacked.play(lambda step: stacked.task.simulation.neutral()[0])
        reach = np.full(start.plan.shape[1], 0.004)
        change, promised = improve(stacked, start, find_slopes(stacked, start), reach)
        played = stacked.play(lambda step: np.clip(start.plan[step] + change[step], -1.0, 1.0))
        assert promised > 0.0
        assert played.reward - start.reward == pytest.approx(promised, rel=0.05)


@pytest.mark.parametrize(
    ("source", "changes", "said"),
    [
        ("ieee13_mg", {"native_controls": True}, "controls of the feeder's own"),
        ("ieee13_mg", {"never_worse_than": "native"}, "handed back"),
    ],
)
def test_day_that_no_linear_program_tells_is_refused(source: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        evaluate({"env_name": source, **HOURLY, **changes}, ["optimum"], days=1)
