"""What people write short: patterns, removal, an engineer's words for kinds, buses that YAML reads as numbers."""

from __future__ import annotations

from typing import Any

import pytest

from powergrid.errors import ScenarioError
from powergrid.scenario import load_scenario
from powergrid.scenario.shorthand import KIND_ALIASES


def test_a_pattern_changes_all_devices_that_fit_and_later_changes_win() -> None:
    change = {"devices.regulator_*.cost_usd_per_operation": 0.5, "devices.regulator_2.cost_usd_per_operation": 0.7}
    devices = load_scenario("ieee13_voltvar", change).devices
    prices = [devices[f"regulator_{i}"].cost_usd_per_operation for i in (1, 2, 3)]
    assert prices == [0.5, 0.7, 0.5]
    assert devices["capacitor_1"] == load_scenario("ieee13_voltvar").devices["capacitor_1"]


def test_null_takes_a_device_from_its_agent_and_an_agent_without_devices_goes() -> None:
    left = load_scenario("ieee13_voltvar", {"devices.battery_1": None, "devices.capacitor_2": None})
    assert list(left.devices) == ["capacitor_1", "regulator_1", "regulator_2", "regulator_3"]
    assert {name: agent.devices for name, agent in left.agents.items()} == {
        "capacitors": ("capacitor_1",),
        "regulators": ("regulator_1", "regulator_2", "regulator_3"),
    }
    storm = {"kind": "price_spike", "factor": 3.0, "at_hour": 3.0, "duration_hours": 2.0}
    with_event = load_scenario("ieee13_mg", {"events": {"storm": storm}})
    assert not load_scenario(with_event, {"events.storm": None}).events


def test_the_same_of_what_is_discovered() -> None:
    there = load_scenario("ieee13").devices
    left = load_scenario("ieee13", {"devices": {"reg*": {"cost_usd_per_operation": 0.7}, "cap1": None}})
    assert set(left.devices) == set(there) - {"cap1"}
    assert {left.devices[name].cost_usd_per_operation for name in ("reg1", "reg2", "reg3")} == {0.7}
    assert "cap1" not in [device for agent in left.agents.values() for device in agent.devices]


@pytest.mark.parametrize("scenario", ["ieee13_voltvar", "ieee13"])
def test_what_fits_nothing_is_told_once_with_all_else(scenario: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(scenario, {"devices": {"valve_*": {"dwell_steps": 1}, "battery_9": None}})
    assert [str(problem).partition(" '")[0] for problem in caught.value.problems] == ["devices: unknown device"] * 2
    assert "'valve_*'" in str(caught.value)
    assert "'battery_9'" in str(caught.value)


@pytest.mark.parametrize("kind", ["Battery", "BESS", "battery-storage"])
def test_kinds_may_have_an_engineers_names_and_buses_may_be_numbers(kind: str) -> None:
    device: dict[str, Any] = {"kind": kind, "bus": 675, "e_max_kwh": 10.0, "p_max_kw": 5.0}
    zone = {"pcc": 671, "zone": {"downstream_of": 671, "until": [680]}}
    keys = {"devices.b": device, "agents.new": {"devices": ["b"], **zone}, "telemetry.metered_buses": [671, "675"]}
    scenario = load_scenario("ieee13_mg", keys)
    assert scenario.telemetry is not None
    assert scenario.telemetry.metered_buses == ("671", "675")
    assert (scenario.devices["b"].kind, scenario.devices["b"].bus) == ("storage", "675")
    assert (scenario.agents["new"].pcc, scenario.agents["new"].zone.until) == ("671", ("680",))


def test_a_float_is_no_bus() -> None:
    device = {"kind": "battery", "bus": 671.1, "e_max_kwh": 10.0, "p_max_kw": 5.0}
    with pytest.raises(ScenarioError, match=r"devices\.b\.bus: input should be a valid string, not 671\.1"):
        load_scenario("ieee13_mg", {"devices.b": device})


def test_aliases_are_names_of_no_kind() -> None:
    kinds = {device.kind for device in load_scenario("ieee123_mg").devices.values()}
    assert not kinds & set(KIND_ALIASES)


def test_agents_may_be_underscored_wherever_they_are_named() -> None:
    telemetry = {
        "readings": {"late": {"channels": ["MG1.*", "ess_1.*"], "delay_minutes": 15}},
        "messages": {"news": {"sender": "MG1", "to": ["MG2"], "channels": ["MG1.v_min_pu"]}},
    }
    scenario = load_scenario("ieee13_mg", {"telemetry": telemetry, "agent_names": "underscored"})
    assert list(scenario.agents) == ["MG_1", "MG_2"]
    assert scenario.telemetry is not None
    assert scenario.telemetry.readings["late"].channels == ("MG_1.*", "ess_1.*")
    news = scenario.telemetry.messages["news"]
    assert (news.sender, news.to, news.channels) == ("MG_1", ("MG_2",), ("MG_1.v_min_pu",))
    assert load_scenario(scenario, {"seed": 1}).agents == scenario.agents
    names = load_scenario("ieee13_voltvar", {"agent_names": "underscored"}).agents
    assert list(names) == ["capacitors", "regulators", "batteries"]


def test_two_agents_of_one_name_are_told() -> None:
    agents = {"MG_1": {"devices": ["ess_1"]}}
    with pytest.raises(ScenarioError, match=r"agents.MG1: is 'MG_1' with agent_names: underscored, as another is"):
        load_scenario("ieee13_mg", {"agents": agents, "agent_names": "underscored"})
