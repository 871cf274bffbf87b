"""The volt-var scenarios: something to decide, a controller that decides it, agents that train."""

from __future__ import annotations

import pytest

from powergrid.evaluation import evaluate
from powergrid.scenario import REWARD_WEIGHTS, load_scenario


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
    never = {"generation_cost_usd", "unserved_kwh", "curtailed_kwh"}  # terms of other kinds of devices
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
