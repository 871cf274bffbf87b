"""The table of quantities: what is reported stands in it, what stands in it is reported, and days add up as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.evaluation import evaluate
from powergrid.quantities import EVALUATION, MONEY_TERMS, QUANTITIES, STEP, TERMS, TRAINING, over_episode
from powergrid.scenario import load_scenario
from powergrid.training.rllib.metrics import EpisodeTotals, RunningTotals
from powergrid.training.runs.records import stable_metrics

OF_STEP = {quantity.name: quantity for quantity in STEP}
SHIPPED = [pytest.param(name, marks=pytest.mark.slow if "8500" in name else ()) for name in powergrid.list_scenarios()]
OUTAGE = {"kind": "line_outage", "at_step": 0, "duration_steps": 8}


def infos_of_every_face(name: str, **overrides: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the infos of a step of each face."""
    networked = NetworkedGridEnv({"env_name": name, **overrides})
    networked.reset(seed=0)
    yield from networked.step(networked.neutral_actions())[4].values()
    networked.close()
    parallel = powergrid.make(name, **overrides)
    parallel.reset(seed=0)
    yield from parallel.step({a: parallel.action_space(a).sample() for a in parallel.agents})[4].values()
    parallel.close()
    central = powergrid.make_central(name, **overrides)
    central.reset(seed=0)
    yield central.step(central.neutral_action())[4]
    central.close()
    vector = powergrid.make_vector(name, 2, **overrides)
    vector.reset(seed=0)
    yield dict(zip(vector.info_names, vector.infos()[0, 0], strict=True))
    vector.close()
    one = powergrid.make_vector(name, 2, view="central", **overrides)
    told = one.reset(seed=0)[1]
    yield {key: value for key, value in told.items() if not key.startswith("_")}
    one.close()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_that_a_shipped_scenario_reports_is_in_the_table(name: str) -> None:
    for infos in infos_of_every_face(name):
        assert set(infos) <= set(OF_STEP)
    env = NetworkedGridEnv({"env_name": name})
    tables = env.describe()
    of_buildings = ("hvac_kwh", "discomfort_k2h")  # no shipped scenario has any
    asked = [term for term in TERMS if env.scenario.weight_of(term) and term not in of_buildings]
    counted = tuple(term for term in TERMS if not QUANTITIES[term].where or term in asked)
    assert tuple(tables.rewards["term"]) == counted
    for row in tables.infos.to_dict("records"):
        told = OF_STEP[row["name"]]
        assert (row["unit"], row["meaning"]) == (told.unit, told.meaning)


def test_every_number_of_a_step_in_the_table_is_reported_by_some_scenario() -> None:
    told: set[str] = set()
    for infos in infos_of_every_face("ieee34_ieee13", infos="full"):
        told |= set(infos)
    for infos in infos_of_every_face("ieee13_mg", infos="full", events={"storm": OUTAGE | {"element": "Line.671684"}}):
        told |= set(infos)
    several = NetworkedGridEnv(
        {"env_name": "ieee13_mg", "feeders": ["ieee13", "ieee34"], "placement.rule": "load", "infos": "full"}
    )
    told |= set(several.reset(seed=0)[1]["MG1"])
    several.close()
    told |= set(
        NetworkedGridEnv({"env_name": "ieee13_mg", "reward.goal": "peak", "never_worse_than": "native"}).reset(seed=0)[
            1
        ]["MG1"]
    )
    preset = NetworkedGridEnv({"env_name": "ieee13_voltvar", "reward.preset": "powergym_13bus_soc"})
    told |= set(preset.reset(seed=0)[1]["batteries"])
    preset.close()
    every_cost = ["node_hours", "branch_hours", "voltage_violation_pu", "overload_pu", "unserved_kwh"]
    drawn = {"feeders": ["ieee13", "ieee34"], "placement": {"rule": "load"}, "observations": "full"}
    one = powergrid.make_central("ieee13_mg", **drawn, costs={"of": every_cost})
    told |= set(one.reset(seed=0)[1])
    one.close()
    office = {
        "name": "office",
        "feeder": "ieee13",
        "devices": {"office": {"kind": "building", "bus": "675"}},
        "agents": {"A": {"devices": ["office"], "zone": {"buses": ["675"]}, "pcc": "675"}},
        "reward": {"preset": "powergridworld_buildings"},
    }
    cooled = NetworkedGridEnv(load_scenario(office))
    told |= set(cooled.reset(seed=0)[1]["A"])
    cooled.close()
    texts = {quantity.name for quantity in STEP if quantity.unit == "text"}
    assert set(OF_STEP) - texts <= told <= set(OF_STEP)


def test_older_names_are_the_same_numbers(in_a_storm: NetworkedGridEnv) -> None:
    env = in_a_storm
    infos = env.step(env.neutral_actions())[4]["MG1"]
    assert infos["dead_nodes"] > 0.0
    assert infos["dark_nodes"] == infos["dead_nodes"]
    assert infos["unserved_kw"] * env.scenario.step_minutes / 60.0 == pytest.approx(infos["network_unserved_kwh"])
    for quantity in STEP:
        assert not quantity.alias_of or not QUANTITIES[quantity.alias_of].alias_of


@pytest.fixture
def in_a_storm() -> Iterator[NetworkedGridEnv]:
    env = NetworkedGridEnv({"env_name": "ieee34_ieee13", "events": {"storm": OUTAGE | {"element": "Line.l27"}}})
    env.reset(seed=0)
    yield env
    env.close()


def test_kept_names_are_told_without_events_too() -> None:
    env = NetworkedGridEnv({"env_name": "ieee34_ieee13"})
    infos = env.reset(seed=0)[1]["MG1"]
    env.close()
    assert {"dead_nodes", "network_unserved_kwh"} <= set(infos)
    assert "events_on" not in infos


@pytest.mark.parametrize("limited", [False, True])
def test_an_evaluation_has_the_columns_of_the_table_and_no_others(limited: bool) -> None:
    keys = {"never_worse_than": "native"} if limited else {}
    frame = evaluate({"env_name": "ieee13_voltvar", "episode_length": 2, **keys}, ["rule_based"], days=1).frame
    patterns = {"reward:": "reward:<agent>", "handed_back:": "handed_back:<device>"}
    columns = dict.fromkeys(
        next((pattern for first, pattern in patterns.items() if name.startswith(first)), name) for name in frame.columns
    )
    left_out = ("a weight",) if limited else ("a weight", "`never_worse_than`")
    assert tuple(columns) == tuple(quantity.name for quantity in EVALUATION if not quantity.where.endswith(left_out))


def test_a_training_records_the_names_of_the_table() -> None:
    learned = {"policy_loss": 0.1, "qf_loss": 0.2, "qf_mean": 0.3, "alpha_value": 0.4}
    result = {
        "env_runners": {"agent_episode_returns_mean": {"MG1": 1.0}, "custom": {"v": 1.0, "MG1": {"v": 1.0}}},
        "learners": {
            "p1": learned,
            "p2": learned,
            "__all_modules__": {"episode_cost": {"cost": 1.0}, "multiplier": {"cost": 0.1}},
        },
    }
    counted = {"iteration", "time_s", "env_steps", "env_steps_per_s"}  # by the loop, from the clock
    told = [quantity.name for quantity in TRAINING]
    patterns = {name: re.sub("<agent>", "MG1", re.sub("<policy>", "p[12]", name)) for name in told}
    patterns = {name: re.sub("<name>|<cost>", r"\\w+", pattern) for name, pattern in patterns.items()}
    found = [*stable_metrics(result), *counted]
    for name in found:
        assert any(re.fullmatch(pattern, name) for pattern in patterns.values()), name
    for name, pattern in patterns.items():
        assert name.startswith("validation/") or any(re.fullmatch(pattern, each) for each in found), name


def test_a_day_adds_up_as_the_table_says_in_training_and_in_evaluation() -> None:
    """Added up by hand: sums over steps, means of them, the last one."""
    scenario = load_scenario("ieee13_mg", {"split": "test"})
    row = evaluate(scenario, ["no_control"], days=1).frame.iloc[0]
    env = NetworkedGridEnv({"env_name": "ieee13_mg", "split": "test"})
    env.reset(seed=0, options={"day": int(row["day"])})
    steps = [env.step(env.neutral_actions())[4] for _ in range(scenario.episode_length)]
    agents, names = env.possible_agents, [*env.task.info_names, "day"]
    env.close()
    table = np.array([[[step[agent][name] for name in names] for agent in agents] for step in steps])
    by_hand = {"sum": table.sum(axis=0), "mean": table.mean(axis=0), "last": table[-1]}
    pieces, running = EpisodeTotals(), RunningTotals(1, agents, names)
    for agent in agents:
        pieces.add(agent, [step[agent] for step in steps])
    for values in table:
        running.add(values[None, :, :-1], values[None, 0, -1].astype(int))
    whole, arrays = pieces.result(), dict(zip(running.keys, running.result(0), strict=True))
    for column, name in enumerate(names):
        for i, agent in enumerate(agents):
            expected = by_hand[OF_STEP[name].daily][i, column]
            assert whole[f"{agent}/{name}"] == pytest.approx(expected, rel=1e-12, abs=1e-12)
            assert arrays[agent, name] == pytest.approx(expected, rel=1e-12, abs=1e-12)
    for term in TERMS:
        assert OF_STEP[term].daily == "sum"
        if term in names:
            assert row[term] == pytest.approx(by_hand["sum"][:, names.index(term)].sum(), rel=1e-9, abs=1e-9)
    money = sum(by_hand["sum"][:, names.index(term)].sum() for term in MONEY_TERMS)
    assert row["cost_usd"] == pytest.approx(money)
    assert row["operations"] == by_hand[OF_STEP["operations"].daily][0, names.index("operations")]


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ("sum", ["repair_cost", "import_kwh", "own_violations", "tap_operations"]),
        ("mean", ["fuel_usd_per_kwh", "own_v_pu", "load_kw", "violations_share"]),
        ("last", ["own_cycles"]),
    ],
)
def test_a_number_of_the_users_own_adds_up_by_its_name(how: str, names: list[str]) -> None:
    assert not set(names) & set(OF_STEP)
    assert {over_episode(name) for name in names} == {how}
