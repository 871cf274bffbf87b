"""Scenarios with microgrids on another host: ties by name, by a map and by rules; microgrids stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from powergrid.errors import ScenarioError
from powergrid.scenario import Scenario, load_scenario

HOME = "ieee34_ieee13"


def moved(**overrides: Any) -> Scenario:
    return load_scenario(HOME, {"feeder": "ieee123"} | overrides)


def ties(scenario: Scenario) -> list[str]:
    return [str(spec.bus) for spec in scenario.microgrids.values()]


@pytest.mark.parametrize("rule", ["load", "distance", "phase"])
def test_rule_ties_microgrids_to_buses_of_the_new_host_and_they_play(rule: str) -> None:
    home, scenario = load_scenario(HOME), moved(placement={"rule": rule})
    assert scenario.devices == home.devices
    assert scenario.agents == home.agents
    assert (scenario.reward, scenario.penalty) == (home.reward, home.penalty)
    simulation = scenario.simulate()
    network = simulation.network
    simulation.reset(0, np.random.default_rng(0), 60)
    for bus, microgrid in zip(ties(scenario), network.microgrids, strict=True):
        index = network.bus_index[bus]
        assert {1, 2, 3} <= set(network.node_phase[network.node_bus == index].tolist())
        inside = {network.bus_index[name] for name in microgrid.buses}
        assert inside <= set(network.downstream(bus))
        assert len(inside) > 10
    for _ in range(4):
        simulation.step(simulation.neutral())
        assert simulation.snapshot.converged[0]
        assert simulation.snapshot.v_pu[0].min() > 0.8
    simulation.close()
    kept = {key: value for key, value in home.taps.items() if key.startswith("mg")}
    assert kept.items() <= scenario.taps.items()
    assert {key for key in scenario.taps if not key.startswith("mg")} <= set(network.regulator_controls)


def test_map_says_where_each_tie_goes() -> None:
    scenario = moved(placement={"rule": "distance", "map": {"850": "13", "858": "60", "834": "97"}})
    assert ties(scenario) == ["13", "60", "97"]
    assert scenario.placed.moves["microgrids.MG2.bus"] == ("858", "60", "map")
    assert load_scenario(scenario).simulate().network.bus_index["mg3_671"] > 0


def test_buses_given_with_the_host_stay() -> None:
    given = {f"microgrids.MG{i}.bus": bus for i, bus in ((1, "13"), (2, "60"), (3, "97"))}
    assert ties(moved(placement={"rule": "load"}, **given)) == ["13", "60", "97"]


def test_host_without_the_names_lists_every_tie_and_key_with_what_is_like_it() -> None:
    with pytest.raises(ScenarioError) as raised:
        moved()
    text = str(raised.value)
    for i, bus in ((1, "850"), (2, "858"), (3, "834")):
        assert f"microgrids.MG{i}.bus: bus {bus!r} is not on ieee123; most like it: " in text
    assert "taps: 'creg2c' is not on ieee123" in text
    assert "mg1_" not in text
    assert "placement: {rule: load}" in text


def test_tie_mapped_to_a_bus_that_is_not_there_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"placement\.map\.850: no bus '9999' on ieee123"):
        moved(placement={"rule": "load", "map": {"850": "9999"}})


def test_agent_on_both_sides_is_refused() -> None:
    agent = {"devices": ["ess_1", "pv_1", "gen_1", "tie_1"], "zone": {"buses": ["850", "mg1_671"]}, "pcc": "850"}
    data = load_scenario(HOME).to_dict() | {"name": "both"}
    data["agents"] = data["agents"] | {"MG1": agent}
    del data["placed"], data["profiles"]
    with pytest.raises(ScenarioError, match=r"agents\.MG1: is on the host and in a microgrid"):
        load_scenario(data, {"feeder": "ieee123", "placement": {"rule": "load"}})


def test_devices_and_agents_of_the_host_go_along() -> None:
    data: dict[str, Any] = load_scenario(HOME).to_dict() | {"name": "utility"}
    del data["placed"], data["profiles"]
    data["devices"] |= {"bank": {"kind": "storage", "bus": "860", "e_max_kwh": 500, "p_max_kw": 100}}
    data["agents"] |= {"Utility": {"devices": ["bank"], "zone": {"buses": ["860", "836"]}, "pcc": "860"}}
    scenario = load_scenario(data, {"feeder": "ieee123", "placement": {"rule": "distance"}})
    assert list(scenario.devices) == list(data["devices"])
    network = scenario.simulate().network
    assert str(scenario.devices["bank"].bus) in network.buses
    assert scenario.agents["Utility"].pcc in network.buses
    assert scenario.placed.moves["devices.bank.bus"][0] == "860"
