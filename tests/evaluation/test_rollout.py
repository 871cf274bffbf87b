from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from powergrid.errors import ActionError, ScenarioError
from powergrid.evaluation import EvaluationReport, evaluate, record_day
from powergrid.grid.profiles.profiles import pick_days
from powergrid.scenario import load_scenario
from tests.evaluation.worlds import ALL_KINDS


class Zeros:
    """Act with zeros of the right shape."""

    def __init__(self, shape: int = 5) -> None:
        self.shape = shape
        self.seen: list[Mapping[str, Any]] = []

    def act(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        self.seen.append(observations)
        return {agent: np.zeros(self.shape) for agent in observations}


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return evaluate({"env_name": "ieee13_mg"}, ["no_control", "native", "rule_based", "random"], days=4)


def test_days_are_spread_evenly_and_never_repeat() -> None:
    days = np.arange(100, 163)
    assert pick_days(days, 3).tolist() == [110, 131, 152]
    assert pick_days(days, 1).tolist() == [131]
    assert pick_days(days, 63).tolist() == days.tolist()
    assert pick_days(days, 500).tolist() == days.tolist()
    for count in range(1, 64):
        assert len(set(pick_days(days, count).tolist())) == count


def test_every_policy_plays_the_same_days_of_the_split(report: EvaluationReport) -> None:
    days = {name: rows["day"].tolist() for name, rows in report.frame.groupby("policy")}
    assert len({tuple(played) for played in days.values()}) == 1
    test_days = load_scenario("ieee13_mg", {"split": "test"}).simulate().days
    assert set(days["random"]) <= set(test_days.tolist())


def test_rule_based_beats_no_control_and_random(report: EvaluationReport) -> None:
    reward = {name: report.reward(name).mean for name in report.kinds}
    assert report.best_baseline == "rule_based"
    assert reward["rule_based"] > reward["native"] > reward["no_control"] > reward["random"]
    summary = report.summary()
    assert summary["rule_based"]["violation_share_mean"] < 0.5 * summary["no_control"]["violation_share_mean"]


@pytest.mark.parametrize(("scenario", "least_share"), [("ieee34_mg", 0.02), ("ieee123_mg", 0.001)])
def test_shipped_scenarios_have_something_to_decide(scenario: str, least_share: float) -> None:
    found = evaluate({"env_name": scenario}, ["no_control", "rule_based"], days=4).summary()
    idle, rule = found["no_control"], found["rule_based"]
    assert least_share <= idle["violation_share_mean"] <= 0.10
    assert idle["v_min_pu"] < 0.95
    assert rule["violation_share_mean"] < 0.5 * idle["violation_share_mean"]
    spent = rule["cost_usd_per_day"] + rule["stored_energy_usd_per_day"]
    assert spent < 0.95 * idle["cost_usd_per_day"]


def test_day_of_no_control_agrees_with_adding_up_by_hand(report: EvaluationReport) -> None:
    from powergrid.envs.parallel import ParallelGridEnv

    row = report.frame.query("policy == 'no_control'").iloc[1]
    env = ParallelGridEnv(load_scenario("ieee13_mg"))
    env.reset(seed=0, options={"day": int(row["day"])})
    rewards, cost, hours, losses, worst = 0.0, 0.0, 0.0, 0.0, 0.0
    while env.agents:
        action = env.task.simulation.neutral()[0]
        given = {agent.name: action[agent.continuous] for agent in env.task.agents}
        _, reward, _, _, infos = env.step(given)
        rewards += sum(reward.values()) / 2
        cost += sum(info["energy_cost_usd"] + info["shared_losses_usd"] for info in infos.values())
        hours += infos["MG1"]["network_violations"] * 0.25
        losses += infos["MG1"]["network_losses_kw"] * 0.25
        worst = max(worst, infos["MG1"]["network_v_max_pu"] - 1.05, 0.95 - infos["MG1"]["network_v_min_pu"])
    env.close()
    assert row["reward"] == pytest.approx(rewards)
    assert row["cost_usd"] == pytest.approx(cost)
    assert row["violation_node_hours"] == pytest.approx(hours)
    assert row["violation_share"] == pytest.approx(hours * 4 / 96 / 41)
    assert row["losses_kwh"] == pytest.approx(losses)
    assert row["violation_max_pu"] == pytest.approx(worst)


def test_evaluation_is_deterministic_and_independent_of_n_envs() -> None:
    # Three days in batches of one, two (the second not full) and four; cars are drawn by seed and day.
    policies = ["rule_based", "random"]
    frames = [evaluate({"scenario": ALL_KINDS}, policies, days=3, seed=5, n_envs=n).frame for n in (1, 2, 4)]
    again = evaluate({"scenario": ALL_KINDS}, policies, days=3, seed=5, n_envs=4).frame
    pd.testing.assert_frame_equal(frames[2], again, check_exact=True)
    for other in frames[:2]:
        pd.testing.assert_frame_equal(frames[2], other, check_exact=True)


def test_seed_changes_what_is_random() -> None:
    rewards = [evaluate({"scenario": ALL_KINDS}, ["random"], days=1, seed=s).frame["reward"].iloc[0] for s in (0, 1)]
    assert rewards[0] != rewards[1]


def test_policy_object_plays_with_observations_of_each_agent() -> None:
    policy = Zeros()
    done: list[tuple[int, int]] = []
    found = evaluate(
        load_scenario("ieee13_mg"), ["no_control", ("zeros", policy)], days=2, progress=lambda i, n: done.append((i, n))
    )
    assert done == [(2, 4), (4, 4)]
    assert found.kinds == {"no_control": "baseline", "zeros": "policy"}
    assert set(policy.seen[0]) == {"MG1", "MG2"}
    assert policy.seen[0]["MG1"].dtype == np.float32
    curtailed = found.frame.query("policy == 'zeros'")["curtailed_kwh"]
    assert (curtailed > 100.0).all()  # 0 is half of the sun


def test_policy_with_wrong_actions_is_told_so() -> None:
    with pytest.raises(ActionError, match=r"agent 'MG1': action has shape \(3,\), expected \(5,\)"):
        evaluate({"env_name": "ieee13_mg"}, [("three", Zeros(3))], days=1)


def test_diverged_day_is_counted_as_not_finished() -> None:
    config = {"env_name": "ieee13_mg", "load_scale": 3.5, "solver": {"max_iterations": 6}}  # too few for such demand
    found = evaluate(config, ["random"], days=2)
    assert not found.frame["finished"].all()
    assert (found.frame["converged_share"] < 1.0).any()
    assert "not finished" in found.to_markdown()


@pytest.mark.parametrize(
    ("policies", "keys", "told"),
    [
        (["rule_basd"], {}, "unknown policy 'rule_basd' (did you mean 'rule_based'?)"),
        (["x"], {}, "unknown policy 'x'; allowed: no_control, native, volt_var, rule_based, random, "),
        (["random", "random"], {}, "policy 'random' is given 2 times"),
        ([], {}, "give at least one policy"),
        (["random"], {"days": 0}, "days 0 is not a whole number of at least 1"),
        (["random"], {"days": 2.5}, "days 2.5 is not a whole number of at least 1"),
        (["random"], {"days": []}, "days 0 is not a whole number of at least 1"),
        (["random"], {"days": [[1], [2, 3]]}, "days: [1] is no day; give whole numbers, counted from the first of"),
        (["random"], {"days": np.zeros((2, 2))}, "is no day; give whole numbers, counted from the first of"),
        (["random"], {"days": "12"}, "days '12' is not a whole number of at least 1"),
        (["random"], {"days": [-1]}, "days: -1 is no day; give whole numbers, counted from the first of"),
        (["random"], {"days": None}, "days is None; leave it out, or give a number"),
        (["random"], {"seed": None}, "seed is None; leave it out, or give a number"),
        ([("mine", Zeros)], {}, "policy 'mine' is the class Zeros; give one that is made of it"),
        ([("mine", SimpleNamespace(act=dict, view="both"))], {}, "policy 'mine': unknown view 'both'; allowed: agents"),
        (["random"], {"n_envs": 0}, "n_envs 0 is not a whole number of at least 1"),
        (["random"], {"split": "tset"}, "split"),
    ],
)
def test_wrong_use_says_what_is_allowed(policies: list[Any], keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        evaluate({"env_name": "ieee13_mg"}, policies, **keys)
    assert told in str(raised.value)


def test_all_wrong_policies_are_told_at_once() -> None:
    with pytest.raises(ScenarioError) as raised:
        evaluate({"env_name": "ieee13_mg"}, ["nativ", "random", "random"])
    assert len(raised.value.problems) == 2


def test_settings_need_one_scenario() -> None:
    with pytest.raises(ScenarioError, match="exactly one of 'env_name'"):
        evaluate({}, ["random"])


def test_importing_and_evaluating_needs_no_ray_and_no_torch() -> None:
    code = (
        "import sys\n"
        "import powergrid.evaluation as e\n"
        "assert not {'numpy', 'pandas', 'scipy', 'opendssdirect'} & set(sys.modules)\n"
        "e.evaluate({'env_name': 'ieee13_mg'}, ['no_control'], days=1).table()\n"
        "assert not {'ray', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_an_episode_draws_is_a_column(tmp_path: Path) -> None:
    ranges = {"load_scale": {"uniform": [0.8, 1.3]}, "devices.ess_1.soc_initial": {"choice": [0.3, 0.7]}}
    config = {"env_name": "ieee13_mg", "episode_length": 2, **ranges}
    report = evaluate(config, ["no_control", "native"], days=3, n_envs=2)
    report.write(tmp_path)
    names = ["drawn.load_scale", "drawn.devices.ess_1.soc_initial"]
    rows = pd.read_csv(tmp_path / "evaluation.csv").set_index(["policy", "day"])[names]
    np.testing.assert_array_equal(rows.loc["no_control"], rows.loc["native"])  # all meet the same
    assert rows["drawn.load_scale"].between(0.8, 1.3).all()
    assert rows["drawn.load_scale"].nunique() == 3
    recording = record_day(config, ["no_control"], int(rows.index[0][1]))[0]
    assert [recording.totals()[name] for name in names] == rows.iloc[0].tolist()
    plain = evaluate({"env_name": "ieee13_mg", "episode_length": 2}, ["no_control"], days=1)
    assert not any("drawn" in name for name in plain.frame)
