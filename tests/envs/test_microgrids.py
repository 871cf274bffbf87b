"""Microgrids in scenarios: their vocabulary, who pays for islands, what agents are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import FeederError, ScenarioError
from powergrid.grid.feeder.feeder import models_folder
from powergrid.scenario import Scenario, load_scenario
from tests.envs.worlds import fill_actions

MakeEnv = Callable[..., NetworkedGridEnv]


def open_tie(env: NetworkedGridEnv, agent: str) -> dict[str, Any]:
    actions = env.neutral_actions()
    actions[agent]["discrete"][:] = 0
    return actions


def play_until_evening(env: NetworkedGridEnv, day: int = 10) -> None:
    env.reset(seed=0, options={"day": day})
    for _ in range(72):
        env.step(env.neutral_actions())


def test_island_that_lacks_power_costs_its_own_agent(make_env: MakeEnv) -> None:
    env = make_env("ieee34_ieee13", split="all", microgrids={"MG2": {"forming": {"p_max_kw": 50}}})
    play_until_evening(env)
    _, rewards, _, _, infos = env.step(open_tie(env, "MG2"))
    own, other = infos["MG2"], infos["MG1"]
    assert own["unserved_kwh"] == pytest.approx(0.25 * own["unserved_kw"])
    assert own["unserved_kwh"] > 1.0
    assert other["unserved_kwh"] == infos["MG3"]["unserved_kwh"] == 0.0
    assert own["generation_cost_usd"] == pytest.approx(0.45 * 0.25 * own["forming_kw"])
    assert other["generation_cost_usd"] == 0.0
    assert own["energy_cost_usd"] == pytest.approx(0.0, abs=1e-7)  # nothing crosses an open tie
    assert own["import_kw"] == pytest.approx(0.0, abs=1e-6)
    assert 49.9 < own["forming_kw"] <= 50.0
    assert own["islands"] == 1.0
    assert own["dark_nodes"] == 0.0
    assert rewards["MG2"] < rewards["MG1"]


def test_dark_microgrid_is_unserved_demand_and_no_violation(make_env: MakeEnv) -> None:
    env = make_env("ieee34_ieee13", split="all", microgrids={"MG3": {"forming": None}})
    play_until_evening(env)
    observations, rewards, terminateds, _, infos = env.step(open_tie(env, "MG3"))
    own = infos["MG3"]
    assert own["dark_nodes"] == 38.0
    assert own["voltage_violations"] == 0.0
    assert own["voltage_violation_pu"] < 1.0  # its part of the host's
    assert own["unserved_kwh"] > 20.0
    assert own["unserved_kwh"] == pytest.approx(0.25 * own["unserved_kw"])
    assert -10.0 < rewards["MG3"] < -0.3
    assert not terminateds["__all__"]
    for agent, seen in observations.items():
        assert env.observation_spaces[agent].contains(seen)


def test_tie_of_nobody_leaves_what_lacks_to_the_zone_that_holds_it(make_env: MakeEnv) -> None:
    scenario = load_scenario("ieee34_ieee13").to_dict()
    for agent in scenario["agents"].values():
        agent["devices"] = [name for name in agent["devices"] if name != "tie_1"]
    scenario["agents"]["MG2"]["devices"].append("line")
    scenario["devices"]["line"] = {"kind": "switch", "element": "Line.l24"}  # behind it lies nearly all of the host
    scenario["devices"]["tie_1"]["closed_initial"] = False
    env = make_env(scenario)
    env.reset(seed=0)
    infos = env.step(env.neutral_actions())[4]
    assert infos["MG1"]["islands"] == 1.0
    assert infos["MG1"]["generation_cost_usd"] > 0.0
    assert infos["MG2"]["generation_cost_usd"] == 0.0
    actions = env.neutral_actions()
    actions["MG2"]["discrete"][:] = [1, 0]
    infos = env.step(actions)[4]
    dark = infos["MG1"]["dark_nodes"]
    assert dark > 100.0
    total = sum(info["unserved_kwh"] for info in infos.values())
    assert total == pytest.approx(0.25 * infos["MG1"]["unserved_kw"])
    assert infos["MG2"]["unserved_kwh"] > infos["MG1"]["unserved_kwh"] > 0.0  # its own, and a third of the host's


def test_describe_names_the_metrics_of_islands_only_where_there_may_be_some(make_env: MakeEnv) -> None:
    tied, plain = make_env("ieee34_ieee13").describe(), make_env("ieee34_mg").describe()
    assert {"islands", "forming_kw", "unserved_kw", "dark_nodes"} <= set(tied.infos["name"])
    assert not {"islands", "dark_nodes"} & set(plain.infos["name"])
    assert set(tied.agents["zone_buses"]) == {15}


def test_all_actions_at_their_lowest_keep_every_promise_of_islands(make_env: MakeEnv) -> None:
    env = make_env("ieee34_ieee13", split="all")
    env.reset(seed=0, options={"day": 171})
    for t in range(96):
        _, _, terminateds, _, infos = env.step(fill_actions(env, -1.0 if t % 2 else 1.0))
        assert not terminateds["__all__"]
        assert infos["MG1"]["islands"] == 3.0
        assert infos["MG1"]["forming_kw"] <= 450.0


def test_scenario_of_microgrids_survives_yaml_and_minds_its_files(tmp_path: Path) -> None:
    scenario = load_scenario("ieee34_ieee13")
    again = Scenario.model_validate(yaml.safe_load(scenario.to_yaml()))
    assert again == scenario
    assert again.digest() == scenario.digest()
    assert load_scenario("ieee34_ieee13", {"microgrids": {"MG1": {"bus": "854"}}}).digest() != scenario.digest()
    data = scenario.to_dict()
    for microgrid in data["microgrids"].values():
        microgrid["feeder"] = "campus/Master.dss"
    (tmp_path / "campus").symlink_to(models_folder() / "ieee13")
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(data))
    assert load_scenario(tmp_path / "site.yaml").digest() == scenario.digest()


def test_scenario_wrong_microgrids_are_told_all_at_once() -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(
            "ieee34_ieee13",
            {
                "microgrids": {
                    "MG1": {"tie": {"kind": "rope"}, "entri": "650"},
                    "MG2": {"tie": {"kva": 100}, "forming": {"p_max_kw": -1, "p_mx_kw": 3}},
                }
            },
        )
    for told in (
        "MG1.tie: unknown kind 'rope'",
        "MG1: unknown key 'entri' (did you mean 'entry'",
        "MG2.tie: unknown key 'kva'",
        "MG2.forming: unknown key 'p_mx_kw' (did you mean 'p_max_kw'",
        "MG2.forming.p_max_kw: input should be greater than 0, not -1",
    ):
        assert f"microgrids.{told}" in str(caught.value)


def test_outage_of_the_host_costs_who_stays_tied_and_not_who_leaves(make_env: MakeEnv) -> None:
    outage = {"kind": "line_outage", "element": "Line.l27", "at_step": 1, "duration_steps": 8}  # MG2, MG3 lie beyond
    env = make_env("ieee34_ieee13", split="all", events={"storm": outage}, reconfiguration={}, infos="full")
    env.reset(seed=0, options={"day": 171})
    env.step(env.neutral_actions())
    observations, rewards, terminateds, _, infos = env.step(open_tie(env, "MG2"))
    own, tied, total = infos["MG2"], infos["MG3"], 0.25 * infos["MG1"]["unserved_kw"]
    assert own["events"] == {"storm": "line.l27"}
    assert own["islands"] == 1.0
    assert own["network_unserved_kwh"] == pytest.approx(total)
    assert own["dead_nodes"] == own["dark_nodes"] > 100.0
    of_host = infos["MG1"]["unserved_kwh"]  # in nobody's zone: a third each
    assert own["unserved_kwh"] == pytest.approx(of_host)
    assert sum(info["unserved_kwh"] for info in infos.values()) == pytest.approx(total)
    day, network = env.task.simulation.day_load_kw[0, 1], env.task.simulation.network
    asked_kw = sum(kw for name, kw in zip(network.loads.names, day, strict=True) if name.startswith("mg3_"))
    assert tied["unserved_kwh"] - of_host == pytest.approx(0.25 * asked_kw)
    assert own["generation_cost_usd"] == pytest.approx(0.45 * 0.25 * own["forming_kw"])
    assert rewards["MG3"] < rewards["MG2"]
    assert not terminateds["__all__"]
    table = env.describe().observations
    for agent, share in (("MG2", 1.0), ("MG3", 0.0)):
        row = table[(table["agent"] == agent) & (table["name"] == f"{agent}.energised_share")].iloc[0]
        assert observations[agent][row["position"]] == pytest.approx(2.0 * share - 1.0)


def test_scenario_zone_of_an_unknown_microgrid_names_the_nearest() -> None:
    scenario = load_scenario("ieee34_ieee13", {"agents": {"MG1": {"zone": {"microgrid": "MG4"}}}})
    with pytest.raises(ScenarioError, match=r"agents\.MG1\.zone: unknown microgrid 'MG4' \(did you mean"):
        scenario.simulate()


def test_scenario_microgrid_that_does_not_fit_its_host_is_an_error() -> None:
    scenario = load_scenario("ieee34_ieee13", {"microgrids": {"MG1": {"bus": "851"}, "MG2": {"entry": "675"}}})
    with pytest.raises(FeederError) as caught:
        scenario.simulate()
    assert "microgrids.MG1.bus: unknown bus '851' (did you mean" in str(caught.value)
    assert "microgrids.MG2.entry: '675' would leave out" in str(caught.value)
