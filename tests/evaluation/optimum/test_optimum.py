"""The optimum of a day is right where it can be had by hand, is never beaten, and is what the environment gives."""

from __future__ import annotations

import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from powergrid.cli.evaluation import play
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation import BASELINES, evaluate
from powergrid.evaluation.baselines.unaided import NoControl
from powergrid.evaluation.optimum import Optima, Optimum, find_optimum
from powergrid.evaluation.optimum.explain import explain
from powergrid.evaluation.optimum.picture import draw_day
from powergrid.evaluation.optimum.program import improve
from powergrid.evaluation.optimum.report import find_optima, recall_optima
from powergrid.evaluation.optimum.slopes import find_slopes
from powergrid.evaluation.optimum.stacked import StackedDay
from powergrid.evaluation.studies.report import PlannerReport, report_days
from powergrid.evaluation.studies.sections import optimum_section
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
HALF_A_DAY = {**HOURLY, "episode_length": 12}


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


class Charging(NoControl):
    """Charge all day: the battery is full before noon and takes nothing more."""

    def act(self, task: GridTask) -> Any:
        return -np.ones((task.n_envs, len(task.simulation.actions)))


def test_full_battery_of_the_day_that_a_search_starts_from_hides_no_way(tmp_path: Path) -> None:
    scenario = load_scenario(battery(tmp_path, [0.1] * 4 + [0.5] * 4 + [0.1] * 4 + [0.5] * 4 + [0.3] * 8))
    with closing(StackedDay(scenario)) as stacked:
        stacked.open(1)
        found = [find_optimum(stacked, [starter]) for starter in (NoControl(), Charging())]
    assert found[1].reward == pytest.approx(found[0].reward, abs=1e-3 * (found[0].reward - found[0].start))


def test_cars_charge_when_that_is_cheapest_while_they_are_there(tmp_path: Path) -> None:
    prices = [0.5] * 12 + [0.2, 0.1] + [0.5] * 10
    spec = {"kind": "ev_charger", "bus": "b", "ports": 1, "p_max_kw": 7.4, "eta_charge": 0.92, "arrival_hour_mean": 8.0,
            "arrival_hour_std": 0.0, "stay_hours_mean": 8.0, "stay_hours_std": 0.0, "energy_kwh_mean": 12.0,
            "energy_kwh_std": 0.0}  # fmt: skip
    scenario = battery(tmp_path, prices)
    found = solve(
        {**scenario, "devices": {"park": spec}, "agents": {"A": {**scenario["agents"]["A"], "devices": ["park"]}}}
    )
    # It charges at once else, at 0.5; 7.4 kW an hour are what a port gives.
    asked = 12.0 / 0.92
    gain = asked * 0.5 - 7.4 * 0.1 - (asked - 7.4) * 0.2
    assert found.reward - found.start == pytest.approx(gain, rel=2e-3)
    assert found.model == pytest.approx(found.reward, abs=1e-3)


def test_generator_runs_where_the_price_pays_its_fuel_and_its_start(tmp_path: Path) -> None:
    prices = [0.1] * 4 + [0.3] + [0.1] * 7 + [0.5, 0.6] + [0.1] * 10
    spec = {"kind": "generator", "bus": "b", "p_max_kw": 100.0, "p_min_kw": 40.0, "cost_b_usd_per_kwh": 0.2,
            "start_cost_usd": 15.0, "cost_c_usd_per_h": 1.0}  # fmt: skip
    scenario = battery(tmp_path, prices)
    found = solve(
        {**scenario, "devices": {"gen": spec}, "agents": {"A": {**scenario["agents"]["A"], "devices": ["gen"]}}}
    )
    # Not for 10 USD at 0.3, which a start eats up; for 30 and 40 less a start and two hours of running.
    assert found.reward - found.start == pytest.approx(30.0 + 40.0 - 15.0 - 2 * 1.0, rel=2e-3)


def test_peak_is_priced_over_the_whole_day(tmp_path: Path) -> None:
    scenario = battery(tmp_path, [0.1] * 24, eta_charge=1.0, eta_discharge=1.0)
    found = solve({**scenario, "reward": {"scale": 1.0, "weights": {"peak_rise_kw": 1.0}}})
    # 500 kW all day: 100 kWh less what it starts with cannot be had, so that 50 kWh are spread over 24 hours
    assert found.reward - found.start == pytest.approx(50.0 / 24.0, rel=0.02)
    assert found.priced == pytest.approx(found.reward, abs=1e-3)


def test_optimum_moves_gear_only_where_that_pays(tmp_path: Path) -> None:
    with closing(StackedDay(load_scenario("ieee13_voltvar", {"split": "test"}))) as stacked:
        stacked.open(14)
        found = find_optimum(stacked, starters(), rounds=2)
        assert found.reward > found.start + 0.1
        assert stacked.play(lambda step: found.actions[step], planned=False).reward == pytest.approx(
            found.reward, abs=1e-9
        )
        columns = [gear.at.column for gear in stacked.devices.gear]
        assert len(columns) == 5
        moves = np.abs(np.diff(found.actions[:, columns], axis=0)).sum()
        assert 0 < moves < 40


@pytest.fixture(scope="module")
def found() -> Any:
    """Find the optima of two days of the 13-node microgrids, hour by hour, and play baselines beside them."""
    return find_optima({"env_name": "ieee13_mg", **HOURLY}, ["rule_based", "random"], days=2)


@pytest.fixture(scope="module")
def evaluated(found: Any) -> Any:
    return found.evaluation


def test_no_baseline_beats_the_optimum_on_any_day(evaluated: Any) -> None:
    rewards = evaluated.frame.pivot(index="day", columns="policy", values="reward")
    for name in ("no_control", "rule_based", "random"):
        assert (rewards["optimum"] > rewards[name] + 0.01).all(), name


def test_score_and_regret_are_counted_from_no_control_and_the_optimum(evaluated: Any) -> None:
    assert evaluated.score("no_control") == pytest.approx(0.0, abs=1e-12)
    assert evaluated.score("optimum") == pytest.approx(1.0, abs=1e-12)
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


def test_optimum_agrees_with_its_model_on_every_day(found: Any, tmp_path: Path) -> None:
    assert (found.frame["difference"].abs() < 1e-3).all()
    # another power flow of the same steps: alike but for its tolerance
    assert (found.frame["played"] - found.frame["priced"]).abs().max() < 1e-5
    assert (found.frame["promised"] < 0.02).all()
    found.write(tmp_path)
    kept = json.loads((tmp_path / "optimum.json").read_text())
    assert kept["policies"]["rule_based"]["score"] == pytest.approx(found.evaluation.score("rule_based"))
    assert [row["day"] for row in kept["days"]] == sorted(found.optima)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [("ieee34_mg", HALF_A_DAY), ("ieee13_voltvar", {}), ("ieee34_voltvar", {"episode_length": 8})],
)
def test_optimum_of_each_kind_of_scenario_is_beaten_by_nobody_and_agrees_with_its_model(
    name: str, changes: dict[str, Any]
) -> None:
    others = ["native", "volt_var", "rule_based", "random"]
    frame = find_optima({"env_name": name, **changes}, others, days=[178]).frame
    assert (frame["difference"].abs() < 1e-3).all()
    assert (frame[["no_control", *others]].max(axis=1) < frame["played"]).all()


def test_gap_of_a_policy_adds_up_to_its_regret(found: Any, tmp_path: Path) -> None:
    days = sorted(found.optima)
    gap, first = explain({"env_name": "ieee13_mg", **HOURLY}, "rule_based", days[:1], beside=["no_control"])
    rewards = found.frame.set_index("day").loc[days[0]]
    assert gap.usd == pytest.approx(1000.0 * (rewards["played"] - rewards["rule_based"]))
    assert [each.policy for each in first] == ["rule_based", "no_control", "optimum"]
    assert set(gap.by_device["device"]) == {"ess_1", "pv_1", "gen_1", "ess_2", "pv_2", "gen_2"}
    best = gap.by_device.set_index("device")["alone_usd"]
    assert best.max() > 0.2 * gap.usd
    console = Console(width=80, record=True, file=io.StringIO())
    for table in gap.tables():
        console.print(table)
    shown = console.export_text()
    assert "energy_cost_usd" in shown
    assert "…" not in shown
    draw_day(first, (0.95, 1.05), "a day").savefig(tmp_path / "day.png")


def test_optima_that_were_found_stand_in_evaluations_and_reports(found: Any, tmp_path: Path) -> None:
    scenario = load_scenario("ieee13_mg", HOURLY)
    days = sorted(found.optima)
    assert recall_optima(scenario, days) == found.optima
    assert not recall_optima(scenario, [*days, days[0] + 1])
    told = report_days(scenario, ["rule_based"], against=["no_control"], days=2)
    rows = {row[0].text: row for row in optimum_rows(told)}
    assert float(rows["rule_based"][2].text) == pytest.approx(found.evaluation.score("rule_based"), abs=5e-3)
    regret = float(rows["rule_based"][3].text.partition(" ")[0])
    assert regret == pytest.approx(found.evaluation.regret_usd("rule_based").mean, abs=0.5)
    assert "Beside the optimum" in told.as_html()
    assert play({"env_name": "ieee13_mg", **HOURLY}, ["no_control"], "test", 2, 0).optimum == "optimum"
    assert play({"env_name": "ieee13_mg", **HOURLY}, ["no_control"], "test", 1, 0).optimum is None


def optimum_rows(told: PlannerReport) -> Any:
    rewards = {name: told.summaries[name].days().set_index("date")["reward"] for name in told.names}
    return optimum_section(rewards, told.optima, 1000.0).rows


class Counted(NoControl):
    """Leave all as it is, and count how often that was asked."""

    asked = 0

    def act(self, task: GridTask) -> Any:
        Counted.asked += 1
        return super().act(task)


def test_optimum_that_was_found_is_not_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERGRID_CACHE", str(tmp_path / "cache"))
    scenario = load_scenario(battery(tmp_path, [0.1] * 12 + [0.5] * 12))
    for split, seed, times in (("all", 0, 24), ("test", 0, 24), ("all", 1, 48)):
        own = load_scenario(scenario, {"split": split})
        with closing(Optima(own, lambda: [Counted()], seed)) as optima:
            assert optima.of(1).reward > optima.of(1).start
        assert Counted.asked == times
    (tmp_path / "Master.dss").write_text(STIFF.replace("kW=500", "kW=600"))
    with closing(Optima(load_scenario(battery(tmp_path, [0.1] * 12 + [0.4] * 12)), lambda: [Counted()])) as optima:
        optima.of(1)
    assert Counted.asked == 72


def test_small_change_brings_what_its_slopes_promise() -> None:
    with closing(StackedDay(load_scenario("ieee13_mg", HOURLY))) as stacked:
        stacked.open(20)
        start = stacked.play(lambda step: stacked.task.simulation.neutral()[0])
        reach = np.full(start.plan.shape[1], 0.004)
        change, promised = improve(stacked, start, find_slopes(stacked, start), reach)
        played = stacked.play(lambda step: np.clip(start.plan[step] + change[step], -1.0, 1.0))
        assert promised > 0.0
        assert played.reward - start.reward == pytest.approx(promised, rel=0.05)


def test_optimum_of_a_day_that_draws_its_numbers_is_that_of_a_day_that_has_them() -> None:
    drawn: dict[str, Any] = {
        "load_scale": {"uniform": [0.8, 1.3]},
        "start_hour": {"choice": [0.0, 5.0]},
        "profiles.price_scale": {"uniform": [0.5, 2.0]},
        "devices.ess_*.soc_initial": {"uniform": [0.2, 0.8]},
        "feeder_changes.scale.line_r": {"uniform": [0.9, 1.5]},
    }
    config = {"env_name": "ieee13_mg", **HALF_A_DAY}
    report = evaluate({**config, **drawn}, ["no_control", "rule_based", "greedy", "mpc", "optimum"], days=2, n_envs=2)
    rewards = report.frame.pivot(index="day", columns="policy", values="reward")
    for name in ("no_control", "rule_based", "greedy", "mpc"):
        assert (rewards["optimum"] > rewards[name] - 1e-6).all()
    for name in ("greedy", "mpc"):
        assert (rewards[name] > rewards["no_control"]).all()
    for day, own in report.frame.query("policy == 'optimum'").set_index("day").iterrows():
        fixed = {key.removeprefix("drawn."): own[key] for key in own.index if key.startswith("drawn.")}
        assert len(fixed) == 6
        optimum = solve(load_scenario("ieee13_mg", {**HALF_A_DAY, **fixed}), int(day))
        assert own["reward"] == pytest.approx(optimum.reward, abs=0.01)
    assert len(recall_optima(load_scenario("ieee13_mg", {**HALF_A_DAY, **drawn}), rewards.index.tolist())) == 2


@pytest.mark.parametrize(
    ("source", "changes", "said"),
    [
        ("ieee13_mg", {"devices.ess_1.e_max_kwh": {"uniform": [500, 900]}}, "a range for devices.ess_1.e_max_kwh"),
        ("ieee13_mg", {"penalty": {"uniform": [50, 200]}}, "a range for penalty, which its program reads once"),
        ("ieee13_mg", {"native_controls": True}, "controls of the feeder's own"),
        ("ieee13_mg", {"never_worse_than": "native"}, "handed back"),
    ],
)
def test_day_that_no_linear_program_tells_is_refused(source: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        evaluate({"env_name": source, **HOURLY, **changes}, ["optimum"], days=1)
