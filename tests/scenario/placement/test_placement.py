"""Scenarios on feeders that they were not made for: what is told, what rules and maps place, and that it plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import powergrid
from powergrid.errors import ScenarioError
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.scenario import Scenario, load_scenario, write_scenario
from powergrid.scenario.discovery.survey import equipment_of

RULES = ("load", "distance", "phase")


def swap(name: Any, feeder: str, **placement: Any) -> Scenario:
    return load_scenario(name, {"feeder": feeder, "placement": placement})


def problems_of(name: Any, feeder: str, **placement: Any) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        swap(name, feeder, **placement).simulate()
    return caught.value.problems


def buses_below(feeder: str, scenario: Scenario, agent: str) -> set[str]:
    network = network_of(read_feeder(feeder))
    return {network.buses[bus] for bus in scenario.agents[agent].zone.find_buses(network)}


def test_swap_without_rule_lists_all_that_has_no_place_with_what_is_like_it() -> None:
    with pytest.raises(ScenarioError) as caught:
        powergrid.make("ieee13_mg", feeder="ieee34")
    found = caught.value.problems
    own = load_scenario("ieee13_mg")
    keys = [problem.split(":")[0] for problem in found]
    assert {f"devices.{name}.bus" for name in own.devices} <= set(keys)
    assert keys.count("norm_amps") == len(own.norm_amps)
    assert keys.count("taps") == len(own.taps)
    assert {"agents.MG1.zone.downstream_of", "agents.MG1.pcc", "agents.MG2.zone.buses", "agents.MG2.pcc"} <= set(keys)
    assert len(found) == len(own.devices) + len(own.norm_amps) + len(own.taps) + 2 + 5
    assert "placement" in str(caught.value)
    of_battery = next(problem for problem in found if problem.startswith("devices.ess_1.bus"))
    # like 675 (three phases, 843 kW, far from the source) are the heaviest three-phase buses of the feeder's end
    assert "890 (phases 1.2.3, 4.16 kV, 450 kW)" in of_battery
    assert "844 (phases 1.2.3, 24.9 kV, 405 kW)" in of_battery
    regulator = next(problem for problem in found if problem.startswith("taps: 'reg2'"))
    assert regulator.index("creg1b") < regulator.index("creg2b")  # of its phase, the nearest to the source first


def test_swap_of_a_single_phase_device_offers_buses_with_its_phase() -> None:
    scenario = load_scenario("ieee13_mg", {"devices.ess_1.bus": "611", "devices.ess_1.phases": [3]})
    line = next(p for p in problems_of(scenario, "ieee123") if p.startswith("devices.ess_1.bus"))
    offered = [part.split(" (phases ")[1].split(",")[0] for part in line.split("most like it: ")[1].split("), ")]
    assert len(offered) == 3
    assert all("3" in phases.split(".") for phases in offered)


def test_swap_to_a_copy_of_the_feeder_changes_nothing(tmp_path: Path) -> None:
    master = tmp_path / "copy.dss"
    master.write_text(f'Redirect "{read_feeder("ieee13").master}"\nNew Load.more Bus1=680.1 Phases=1 kV=2.4 kW=1\n')
    moved = load_scenario("ieee13_mg", {"feeder": str(master), "model_root": "/"})
    own = load_scenario("ieee13_mg")
    assert (moved.devices, moved.agents, moved.taps) == (own.devices, own.agents, own.taps)
    assert (moved.penalty, moved.reward) == (own.penalty, own.reward)
    assert moved.placed.home == "ieee13"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("name", "feeder"),
    [(name, feeder) for name in ("ieee13_mg", "ieee34_mg", "ieee123_mg")
     for feeder in ("ieee13", "ieee34", "ieee37", "ieee123") if name != f"{feeder}_mg"],
)  # fmt: skip
def test_rule_places_every_device_in_its_agents_own_zone(name: str, feeder: str, rule: str) -> None:
    home = load_scenario(name)
    moved = swap(name, feeder, rule=rule)
    network = network_of(read_feeder(feeder))
    assert list(moved.devices) == list(home.devices)
    assert {n: a.devices for n, a in moved.agents.items()} == {n: a.devices for n, a in home.agents.items()}
    seen: set[str] = set()
    for agent, spec in moved.agents.items():
        zone = buses_below(feeder, moved, agent)
        assert not zone & seen  # zones share no bus
        seen |= zone
        assert spec.pcc in zone
        for device in spec.devices:
            own = moved.devices[device]
            if getattr(own, "bus", None) is not None:
                assert own.bus in zone
                has = set(network.node_phase[network.nodes_of([network.bus_index[own.bus]])].tolist())
                assert set(own.phases) <= has
            else:
                load = network.loads.names.index(str(own.element).partition(".")[2])
                assert network.buses[network.loads.bus[load]] in zone
    assert len(seen) == len(network.buses)
    assert moved == swap(name, feeder, rule=rule)  # the same every time
    assert load_scenario(moved) == moved
    assert load_scenario(yaml.safe_load(moved.to_yaml())) == moved


def test_rule_load_draws_by_seed_and_distance_does_not() -> None:
    def sites(rule: str) -> set[str]:
        return {str({n: d.bus for n, d in swap("ieee13_mg", "ieee123", rule=rule, seed=s).devices.items()})
                for s in range(4)}  # fmt: skip

    assert len(sites("load")) > 1
    assert len(sites("distance")) == 1


def test_rule_load_prefers_buses_with_demand() -> None:
    """Over many seeds, the chance of a bus is its share of the zone's demand, laterals counted where they leave."""
    drawn = [swap("ieee13_mg", "ieee123", rule="load", seed=seed).devices["ess_1"].bus for seed in range(60)]
    scenario = swap("ieee13_mg", "ieee123", rule="load")
    network = network_of(read_feeder("ieee123"))
    zone = scenario.agents["MG1"].zone.find_buses(network)
    loaded = set(network.loads.bus.tolist())
    direct = sum(network.bus_index[str(bus)] in loaded for bus in drawn) / len(drawn)
    uniform = sum(bus in loaded for bus in zone) / len(zone)
    at = [network.bus_index[str(bus)] for bus in drawn]
    near = sum(bool(loaded & {bus, *np.flatnonzero(network.tree.above == bus).tolist()}) for bus in at)
    assert near == len(drawn)  # nothing is drawn where neither it nor a neighbour below has demand
    assert direct > 0.3
    assert 0.0 < uniform < 1.0


def test_rule_distance_keeps_the_order_along_the_zone() -> None:
    moved = swap("ieee34_mg", "ieee123", rule="distance")
    equipment = equipment_of(read_feeder("ieee123"))
    assert moved.placed.moves["devices.ess_2.bus"][2] == "rule distance"
    depth = equipment.network.tree.depth
    at = equipment.network.bus_index
    home = network_of(read_feeder("ieee34"))
    pairs = [(home.tree.depth[home.bus_index[b]], depth[at[moved.devices[n].bus]]) for n, b in
             (("pv_2", "840"), ("ess_2", "844"))]  # fmt: skip
    assert all(new > depth[at[moved.agents["MG2"].pcc]] for _, new in pairs)  # the feeder's end stays an end


def test_scaling_is_the_ratio_of_nominal_demand() -> None:
    own, moved = load_scenario("ieee13_mg"), swap("ieee13_mg", "ieee34", rule="load")
    here, there = (network_of(read_feeder(name)) for name in ("ieee13", "ieee34"))
    ratio = there.loads.kw.sum() / here.loads.kw.sum()
    assert moved.placed.load_ratio == pytest.approx(ratio, rel=1e-3)
    for device, key in (("ess_1", "e_max_kwh"), ("ess_1", "s_max_kva"), ("pv_2", "p_max_kw"), ("gen_1", "p_min_kw")):
        now, was = getattr(moved.devices[device], key), getattr(own.devices[device], key)
        assert now == pytest.approx(was * ratio, rel=1e-3)
    # a generator of half the size costs half as much at the same share of its power
    full = [g.cost_a_usd_per_kw2h * g.p_max_kw**2 for g in (own.devices["gen_1"], moved.devices["gen_1"])]
    assert full[1] == pytest.approx(full[0] * ratio, rel=2e-3)
    assert moved.reward.scale == pytest.approx(own.reward.scale / ratio, rel=1e-3)
    assert moved.penalty == pytest.approx(own.penalty * ratio * len(here.nodes) / len(there.nodes), rel=1e-3)
    same = swap("ieee13_mg", "ieee34", rule="load", scale_ratings=False, scale_rewards=False)
    assert same.devices["ess_1"].e_max_kwh == own.devices["ess_1"].e_max_kwh
    assert (same.reward, same.penalty) == (own.reward, own.penalty)
    assert same.devices["ess_1"].bus == moved.devices["ess_1"].bus


def test_map_goes_before_the_rule_and_takes_the_zone_with_it() -> None:
    moved = swap("ieee13_mg", "ieee34", rule="load", map={675: 890})
    assert moved.devices["ess_1"].bus == moved.devices["pv_1"].bus == "890"
    assert moved.placed.moves["devices.ess_1.bus"] == ("675", "890", "map")
    assert "890" in buses_below("ieee34", moved, "MG1")
    assert moved.placed.moves["devices.gen_1.bus"][2] == "rule load"


def test_map_alone_places_all_and_scales_nothing() -> None:
    names = {"675": "890", "680": "888", "671": "888", "632": "834", "633": "842", "634": "844", "645": "846",
             "646": "848", "regcontrol.reg1": "RegControl.creg2a", "regcontrol.reg2": "RegControl.creg2b",
             "regcontrol.reg3": None}  # fmt: skip
    lines = {"line.692675": None}
    moved = swap("ieee13_mg", "ieee34", map=names | lines)
    own = load_scenario("ieee13_mg")
    assert [d.bus for d in moved.devices.values()] == ["890", "890", "888", "844", "842", "842"]
    assert moved.agents["MG2"].zone.buses == ("842", "844", "846", "848")
    assert moved.agents["MG1"].pcc == "888"
    assert moved.taps == {"creg2a": 3, "creg2b": 0}
    assert moved.norm_amps == {}
    assert moved.devices["ess_1"].e_max_kwh == own.devices["ess_1"].e_max_kwh
    assert moved.penalty == own.penalty


def test_map_with_wrong_names_is_told_all_at_once() -> None:
    found = problems_of("ieee13_mg", "ieee34", rule="load", map={"675": "899", "999": "890", "632": "834"})
    assert any(p.startswith("placement.map.675: no bus '899' on ieee34; most like it: ") for p in found)
    assert any("does not refer to '999'" in p for p in found)


def test_map_to_nothing_leaves_a_device_out() -> None:
    moved = swap("ieee13_mg", "ieee34", rule="load", map={"680": None})
    assert "gen_1" not in moved.devices
    assert moved.agents["MG1"].devices == ("ess_1", "pv_1")
    assert "devices.gen_1: left out by the map" in moved.placed.left_over


def test_regulators_and_capacitors_follow_the_order_of_distance_and_the_rest_is_listed() -> None:
    data = load_scenario("ieee13_mg").model_dump() | {
        "devices": {
            "reg": {"kind": "regulator", "element": "RegControl.reg2"},
            "cap": {"kind": "capacitor", "element": "Capacitor.cap1"},
        },
        "agents": {"A": {"devices": ["reg", "cap"], "zone": {"downstream_of": "650"}, "pcc": "650"}},
        "taps": {},
    }
    moved = swap(data, "ieee34", rule="distance")
    assert str(moved.devices["reg"].element) == "RegControl.creg1b"  # of phase 2, the first from the source
    assert str(moved.devices["cap"].element).lower() in ("capacitor.c844", "capacitor.c848")
    left = " ".join(moved.placed.left_over)
    assert "creg2b" in left
    assert "creg1b" not in left


def test_taps_of_a_regulator_whose_place_takes_a_transformer_without_one_are_left_over(tmp_path: Path) -> None:
    master = tmp_path / "Master.dss"
    master.write_text(
        "New Circuit.tapped basekv=12.47\n"
        "New Transformer.sub windings=2 buses=(sourcebus a) conns=(delta wye) kvs=(12.47 4.16) kvas=(5000 5000) xhl=5"
        " taps=(1 1.025)\n"
        "New Line.l1 bus1=a bus2=b r1=0.2 x1=0.3 length=1 units=km\n"
        "New Line.l2 bus1=b bus2=c r1=0.2 x1=0.3 length=1 units=km\n"
        "New Load.b bus1=b kv=4.16 kw=900\nNew Load.c bus1=c kv=4.16 kw=600\n"
        "Set VoltageBases=[12.47 4.16]\nCalcVoltageBases\n"
    )
    scenario = swap("ieee13_mg", str(master), rule="load")
    assert scenario.taps == {}
    left = "taps.reg1: no control moves the taps of 'sub', which start as the model has them"
    assert left in scenario.placed.left_over
    env = powergrid.make(scenario)
    env.reset(seed=0)
    assert env.step({agent: env.action_space(agent).sample() for agent in env.agents})[0]
    env.close()


def test_element_without_counterpart_is_a_problem_until_it_is_left_out() -> None:
    assert any(
        "devices.flex_" in problem
        for problem in problems_of("ieee34_mg", "ieee123", map={"Load.s844": "Load.s76a"})
        if "has no counterpart" in problem
    )


def test_three_wire_feeder_gets_devices_between_phases() -> None:
    moved = swap("ieee123_mg", "ieee37", rule="load")
    assert {device.connection for device in moved.devices.values()} == {"delta"}


def test_events_follow_to_what_is_most_like_their_places() -> None:
    own = load_scenario(
        "ieee13_mg",
        {"events": {"cut": {"kind": "line_outage", "element": "Line.671684", "at_hour": 3, "duration_hours": 1},
                    "short": {"kind": "fault", "bus": "675", "at_hour": 9},
                    "heat": {"kind": "load_step", "factor": 1.2, "at_hour": 12, "duration_hours": 2}}},
    )  # fmt: skip
    moved = swap(own, "ieee123", rule="load")
    network = network_of(read_feeder("ieee123"))
    assert moved.events["cut"].element[0] in network.branches.names
    assert moved.events["short"].bus[0] in network.buses
    assert moved.events["heat"] == own.events["heat"]
    env = powergrid.make(moved)
    try:
        env.reset(seed=0)
    finally:
        env.close()


def test_too_many_agents_for_a_feeder_is_told(tmp_path: Path) -> None:
    master = tmp_path / "two.dss"
    master.write_text(
        "New Circuit.two basekv=12.47 bus1=a\nNew Line.l1 bus1=a bus2=b length=1\n"
        "New Load.one bus1=b kv=12.47 kw=100\nSet VoltageBases=[12.47]\nCalcVoltageBases\n"
    )
    found = problems_of("ieee123_mg", str(master), rule="load")
    assert any("can be cut into 2 zones" in problem and "5 agents" in problem for problem in found)


@pytest.mark.parametrize("feeder", ["ieee34", "ieee37", "ieee123"])
def test_placed_scenario_plays_and_its_actions_act(feeder: str) -> None:
    env = powergrid.make(swap("ieee13_mg", feeder, rule="load"))
    try:
        env.reset(seed=1, options={"day": 171})
        low = env.step({agent: -np.ones(env.action_space(agent).shape, np.float32) for agent in env.agents})[4]
        env.reset(seed=1, options={"day": 171})
        high = env.step({agent: np.ones(env.action_space(agent).shape, np.float32) for agent in env.agents})[4]
        for agent in ("MG1", "MG2"):
            assert high[agent]["converged"]
            assert high[agent]["delivered_kw"] - low[agent]["delivered_kw"] > 100.0
    finally:
        env.close()


def test_record_of_a_placed_scenario_is_shown_and_written(tmp_path: Path) -> None:
    moved = swap("ieee13_mg", "ieee34", rule="load")
    env = powergrid.make(moved)
    try:
        table = env.describe().placement
    finally:
        env.close()
    row = table.query("key == 'devices.ess_1.bus'").iloc[0]
    assert (row["was"], row["is"], row["why"]) == ("675", moved.devices["ess_1"].bus, "rule load")
    assert table["key"].str.contains("creg2a").any()  # left over
    written = write_scenario(moved, tmp_path / "moved.yaml")
    assert load_scenario(written) == moved
    assert moved.digest() == load_scenario(moved, {"placement.seed": 5}).digest()  # the wish is done with


def test_placed_scenario_can_be_placed_again() -> None:
    first = swap("ieee13_mg", "ieee34", rule="load")
    second = load_scenario(first, {"feeder": "ieee123"})
    assert second.placed.home == "ieee34"
    assert second.devices["ess_1"].e_max_kwh == pytest.approx(
        swap("ieee13_mg", "ieee123", rule="load").devices["ess_1"].e_max_kwh, rel=2e-3
    )


def test_home_in_a_file_places_without_an_override() -> None:
    data = load_scenario("ieee13_mg").model_dump()
    moved = load_scenario(data | {"feeder": "ieee34", "placement": {"rule": "distance", "home": "ieee13"}})
    assert moved == swap("ieee13_mg", "ieee34", rule="distance").model_copy(update={"placement": moved.placement})
    assert moved.placement.home is None


def test_unknown_rule_or_key_of_placement_is_told_with_what_is_allowed() -> None:
    found = problems_of("ieee13_mg", "ieee13", rule="lode")
    assert any("placement.rule" in problem and "'load'" in problem for problem in found)
    found = problems_of("ieee13_mg", "ieee13", ruler="load")
    assert any("did you mean 'rule'" in problem for problem in found)


def test_zone_mapped_to_a_bus_that_is_nowhere_is_told_with_the_rest() -> None:
    found = problems_of("ieee13_mg", "ieee34", map={"671": "999"})
    assert any(problem.startswith("placement.map.671: no bus '999' on ieee34") for problem in found)
    assert any(problem.startswith("devices.pv_2.bus: bus '633' is not on ieee34") for problem in found)


def test_zone_that_is_not_on_the_old_feeder_either_is_told() -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario("ieee13_mg", {"feeder": "ieee34", "placement.rule": "load", "agents.MG1.pcc": "67x"})
    assert caught.value.where == "ieee13_mg.yaml on ieee13"
    assert caught.value.problems[0].startswith("agents.MG1: unknown bus '67x' (did you mean")
