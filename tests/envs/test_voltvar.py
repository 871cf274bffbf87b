"""The volt-var scenarios: something to decide, a controller that decides it, agents that train."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from powergrid.evaluation import evaluate
from powergrid.scenario import REWARD_WEIGHTS, load_scenario

PAGE = Path(__file__).parents[2] / "docs" / "voltvar.md"


@pytest.mark.parametrize(
    ("name", "days"),
    [
        ("ieee13_voltvar", 6),
        ("ieee34_voltvar", 6),
        ("ieee123_voltvar", 6),
        pytest.param("ieee8500_voltvar", 2, marks=pytest.mark.slow),
    ],
)
def test_scenario_left_alone_violates_and_the_feeder_s_own_controls_remove_most(name: str, days: int) -> None:
    frame = evaluate({"env_name": name}, ["no_control", "native", "random"], days=days).frame.set_index("policy")
    share = frame["violation_share"].groupby("policy").mean()
    assert share["no_control"] >= 0.02
    assert share["native"] < 0.5 * share["no_control"]
    assert frame["converged_share"].min() == 1.0  # random actions included
    rewards = frame["reward"].groupby("policy").mean()
    assert rewards["native"] > rewards["no_control"] > rewards["random"]


@pytest.mark.parametrize("name", ["ieee13_voltvar", "ieee34_voltvar", "ieee123_voltvar", "ieee8500_voltvar"])
def test_weights_leave_voltage_losses_and_control_only(name: str) -> None:
    scenario = load_scenario(name)
    weights = {term: scenario.weight_of(term) for term in REWARD_WEIGHTS}
    kinds = {spec.kind for spec in scenario.devices.values()}
    assert kinds == {"capacitor", "regulator", "storage"}
    never = {
        "generation_cost_usd",
        "unserved_kwh",
        "curtailed_kwh",
        "discomfort_k2h",
    }  # terms of other kinds of devices
    assert {term for term, weight in weights.items() if weight and term not in never} == {
        "voltage_violation_pu", "losses_kwh", "switching_wear_usd", "storage_wear_usd", "soc_deviation_kwh"
    }  # fmt: skip


def test_rules_choose_levels_that_a_discrete_battery_has() -> None:
    report = evaluate({"env_name": "ieee13_voltvar"}, ["rule_based"], days=2)
    assert report.frame["storage_cycles"].min() > 0.1


def test_layout_by_zone_gives_the_same_team_reward_for_the_same_actions() -> None:
    zones = {
        "head": {"devices": ["regulator_1", "regulator_2", "regulator_3"],
                 "zone": {"downstream_of": "rg60", "until": ["671"]}, "pcc": "rg60"},
        "end": {"devices": ["capacitor_1", "capacitor_2", "battery_1"], "zone": {"downstream_of": "671"}, "pcc": "671"},
    }  # fmt: skip
    by_class = load_scenario("ieee13_voltvar")
    by_zone = load_scenario({**by_class.to_dict(), "agents": zones})
    totals = [
        evaluate(scenario, ["native"], days=3).frame.filter(like="reward:").sum(axis=1).to_numpy()
        for scenario in (by_class, by_zone)
    ]
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
def test_python_block_of_the_page_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block, PAGE.name, "exec"), {})
    assert "Error" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ieee13_voltvar", "ieee34_voltvar", "ieee123_voltvar", "ieee8500_voltvar"])
def test_page_states_the_scenario_s_weights(name: str) -> None:
    scenario, page = load_scenario(name), PAGE.read_text(encoding="utf-8")
    large = name == "ieee8500_voltvar"
    stated = {
        "penalty": scenario.penalty,
        "reward.weights.soc_deviation_kwh": scenario.weight_of("soc_deviation_kwh"),
        "reward.weights.losses_kwh": scenario.weight_of("losses_kwh"),
        "reward.scale": scenario.reward.scale,
    }
    stated |= {
        f"{key}` of a {kind}": getattr(spec, key)
        for spec in scenario.devices.values()
        for kind, key in (("capacitor", "cost_usd_per_operation"), ("regulator", "cost_usd_per_operation"))
        if spec.kind == kind
    }
    for key, value in stated.items():
        row = next(line for line in page.splitlines() if f"`{key}" in line)
        assert float(row.split("|")[4 if large else 3]) == value


@pytest.mark.slow
@pytest.mark.parametrize("policies", ["shared", "independent"])
def test_agents_of_classes_train(policies: str, ray_session: None, tmp_path: Path) -> None:
    from powergrid.training import train

    settings = {"num_env_runners": 0, "num_envs_per_env_runner": 2, "train_batch_size": 96, "minibatch_size": 48,
                "num_epochs": 2, "hidden": [16, 16], "validation_episodes": 1, "iterations": 2}  # fmt: skip
    run = train({"env_name": "ieee13_voltvar"}, settings, policies=policies, out_dir=tmp_path, name="classes")
    assert (run.stopped, run.iterations) == ("finished", 2)
    assert np.isfinite(run.metrics["episode_return_mean"])
    names = {path.name for path in (run.folder).rglob("*_policy*")}
    expected = {f"{agent}_policy" for agent in ("capacitors", "regulators", "batteries")}
    assert names >= (expected if policies == "independent" else {f"grid_policy_{i}" for i in (1, 2, 3)})
