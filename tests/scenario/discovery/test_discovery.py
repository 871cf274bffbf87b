"""What is found on a feeder, what is left with the key that includes it, and who gets it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ScenarioError
from powergrid.evaluation import evaluate
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.feeder import models_folder, read_feeder
from powergrid.scenario import Scenario, load_scenario
from powergrid.scenario.discovery import LAYOUTS, summarise
from powergrid.scenario.discovery.equipment import read_equipment
from powergrid.scenario.loading import complete
from tests.scenario.discovery.models import BARE, LOOPED, write


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("looped"), LOOPED)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bare"), BARE)


def kinds(scenario: Scenario) -> dict[str, str]:
    return {name: spec.kind for name, spec in scenario.devices.items()}


def notes(master: Path, **keys: Any) -> str:
    return "\n".join(complete({"feeder": str(master), **keys}, "test")[1])


def nodes_of(scenario: Scenario) -> dict[str, list[int]]:
    network = Circuit(read_feeder(scenario.feeder)).network
    return {
        name: network.nodes_within(agent.zone.find_buses(network), agent.zone.phases).tolist()
        for name, agent in scenario.agents.items()
    }


# -- what is found


def test_discovered_devices_have_the_ratings_of_the_model(looped: Path) -> None:
    devices = load_scenario(looped).devices
    assert list(devices) == ["ess_box", "pv_roof", "gen_diesel", "cap_bank", "reg_vr", "sw_s1", "sw_tie"]
    box, roof, diesel = (devices[name] for name in ("ess_box", "pv_roof", "gen_diesel"))
    assert (box.e_max_kwh, box.p_max_kw, box.s_max_kva) == (400, 100, 110)
    assert (box.soc_min, box.soc_initial) == (0.15, 0.6)
    assert (roof.p_max_kw, roof.s_max_kva) == (200, 220)
    assert (diesel.p_max_kw, diesel.s_max_kva) == (150, 180)
    assert devices["cap_bank"].steps == 2
    assert (devices["reg_vr"].tap_min, devices["reg_vr"].tap_max) == (-16, 16)
    assert (devices["sw_s1"].closed_initial, devices["sw_tie"].closed_initial) == (True, False)


def test_what_is_left_is_told_with_the_key_that_takes_it(looped: Path) -> None:
    told = notes(looped, discover={"max_per_kind": 1, "storage": False})
    assert "Capacitor.series: in series" in told
    assert "Line.s2 stay as they are: opening them would cut off what lies behind; discover.switches: all" in told
    assert "Storage.box left to the feeder; discover.storage: true takes them" in told
    assert "no load defers demand" in told
    assert "discover.flexible_loads: 10" in told


def test_max_per_kind_keeps_the_largest_and_names_the_rest(tmp_path: Path) -> None:
    more = "\n".join(f"New Generator.g{i} bus1=c kv=4.16 kW={kw} pf=1" for i, kw in enumerate((5, 500, 50)))
    master = write(tmp_path, LOOPED.replace("New Load.lc", f"{more}\nNew Load.lc"))
    scenario = load_scenario(master, {"discover.max_per_kind": 2})
    assert [name for name, kind in kinds(scenario).items() if kind == "generator"] == ["gen_diesel", "gen_g1"]
    assert "Generator.g0, Generator.g2 left to the feeder: more than discover.max_per_kind = 2" in notes(
        master, discover={"max_per_kind": 2}
    )
    named = load_scenario(master, {"discover": {"max_per_kind": 1, "generators": ["g*"]}})
    assert [name for name, kind in kinds(named).items() if kind == "generator"] == ["gen_g0", "gen_g1", "gen_g2"]


def test_switches_by_default_cut_nobody_off_whatever_is_opened(looped: Path) -> None:
    env = powergrid.make(looped, agents="per_device")
    env.reset(seed=0)
    base = env.task.simulation.neutral()[0]
    names = [spec.device for spec in env.task.simulation.actions]
    for states in ((0, 0), (0, 1), (1, 0), (1, 1)):
        vector = base.copy()
        vector[names.index("sw_s1")], vector[names.index("sw_tie")] = states
        env.step({agent.name: agent.read_action(vector) for agent in env.task.agents})
        assert env.task.metrics.v_min_pu[0] > 0.8, states
    env.close()


def test_switches_all_takes_the_one_that_cuts_off_and_it_does(looped: Path) -> None:
    env = powergrid.make(looped, agents="per_device", discover={"switches": "all"})
    env.reset(seed=0)
    vector = env.task.simulation.neutral()[0]
    vector[[spec.device for spec in env.task.simulation.actions].index("sw_s2")] = 0
    env.step({agent.name: agent.read_action(vector) for agent in env.task.agents})
    snapshot, islands = env.task.simulation.snapshot, env.task.simulation.islands
    assert snapshot.v_pu[0].min() < 0.1
    np.testing.assert_array_equal(~islands.energised[0], snapshot.v_pu[0] < 0.1)
    assert islands.unserved_kw[0].sum() > 0.0
    assert env.task.metrics.v_min_pu[0] > 0.9  # of what is fed
    env.close()


@pytest.mark.parametrize("guard", ["Fuse", "Recloser", "Relay"])
def test_a_protected_switch_is_not_dispatched_unless_named(tmp_path: Path, guard: str) -> None:
    extra = " type=current" if guard == "Relay" else ""
    master = write(tmp_path, LOOPED.replace("Set Volt", f"New {guard}.f monitoredobj=line.s1{extra}\nSet Volt"))
    assert "sw_s1" not in load_scenario(master).devices
    assert f"Line.s1 stay as they are: protected by {guard}.f" in notes(master)
    assert "sw_s1" in load_scenario(master, {"discover.switches": ["s1"]}).devices


def test_swtcontrol_makes_a_line_a_switch(tmp_path: Path) -> None:
    master = write(tmp_path, LOOPED.replace("Set Volt", "New SwtControl.c switchedobj=line.l4\nSet Volt"))
    devices = load_scenario(master).devices
    assert "sw_l4" in devices
    assert "sw_s1" not in devices  # with l4, the earlier of the two, open as well, e would be cut off


def test_flexible_loads_are_the_largest_or_those_named(looped: Path) -> None:
    largest = load_scenario(looped, {"discover.flexible_loads": 2})
    assert [name for name in largest.devices if name.startswith("flex")] == ["flex_lc", "flex_ld"]
    named = load_scenario(looped, {"discover.flexible_loads": ["lf"]})
    assert named.devices["flex_lf"].owed_max_kwh == 400


def test_wrong_wishes_are_told_all_at_once(looped: Path) -> None:
    with pytest.raises(ScenarioError) as raised:
        load_scenario(looped, {"discover": {"max_per_knd": 3}, "add_der": {"penetration": -1}, "agents": "per_zoen"})
    text = str(raised.value)
    assert "discover: unknown key 'max_per_knd' (did you mean 'max_per_kind'?)" in text
    assert "add_der.penetration: input should be greater than 0, not -1" in text
    assert "agents: unknown layout 'per_zoen' (did you mean 'per_zone'" in text
    with pytest.raises(ScenarioError, match=r"discover.pv: unknown PVSystem 'rof' \(did you mean 'roof'"):
        load_scenario(looped, {"discover.pv": ["rof"]})


def test_given_devices_get_the_layout_asked_for() -> None:
    scenario = load_scenario("ieee13_mg", {"agents": "per_device"})
    assert set(scenario.agents) == set(scenario.devices) == {"ess_1", "pv_1", "gen_1", "ess_2", "pv_2", "gen_2"}
    assert scenario.penalty == 300
    with pytest.raises(ScenarioError, match="discover: devices are given"):
        load_scenario("ieee13_mg", {"discover": {}})
    with pytest.raises(ScenarioError, match="agents: MG1, MG2 are given"):
        load_scenario("ieee13_mg", {"add_der": {"penetration": 0.3}})


# -- a feeder without anything to control


def test_feeder_without_devices_says_what_can_be_added_and_how(bare: Path) -> None:
    with pytest.raises(ScenarioError, match="nothing that agents could control") as raised:
        load_scenario(bare)
    assert "--add-der 0.3" in str(raised.value)
    assert "add_der: {penetration: 0.3}" in str(raised.value)
    assert "discover: {flexible_loads: 10}" in str(raised.value)


def test_add_der_reaches_the_penetration_and_is_seeded() -> None:
    first = load_scenario("ieee37", {"add_der": {"penetration": 0.4, "storage_share": 0.25}})
    sun = {n: s for n, s in first.devices.items() if s.kind == "inverter"}
    batteries = [s for s in first.devices.values() if s.kind == "storage"]
    assert sum(s.p_max_kw for s in sun.values()) == pytest.approx(0.4 * 2457, rel=1e-3)
    assert sum(s.p_max_kw for s in batteries) == pytest.approx(0.1 * 2457, rel=1e-3)
    assert all(s.e_max_kwh == pytest.approx(4 * s.p_max_kw, rel=1e-3) for s in batteries)
    assert all(s.connection == "delta" for s in sun.values())  # as the feeder's loads are
    again = load_scenario("ieee37", {"add_der": {"penetration": 0.4, "storage_share": 0.25}})
    other = load_scenario("ieee37", {"add_der": {"penetration": 0.4, "storage_share": 0.25, "seed": 1}})
    assert again == first
    assert set(other.devices) != set(first.devices)
    assert len(first.agents) == 2


def test_added_panels_deliver_their_sun(bare: Path) -> None:
    env = powergrid.make(bare, add_der={"penetration": 0.5})
    env.reset(seed=0, options={"day": 180})
    produced = 0.0
    for _ in range(96):
        neutral = env.task.simulation.neutral()[0]
        _, _, _, _, infos = env.step({agent.name: agent.read_action(neutral) for agent in env.task.agents})
        produced = max(produced, sum(info["delivered_kw"] for info in infos.values()))
    assert 100 < produced < 1.2 * 0.5 * 450
    env.close()


# -- who decides


@pytest.mark.parametrize("feeder", ["ieee13", "ieee34", "ieee123"])
def test_per_zone_gives_every_node_to_one_agent(feeder: str) -> None:
    scenario = load_scenario(feeder)
    owned = [node for nodes in nodes_of(scenario).values() for node in nodes]
    assert sorted(owned) == list(range(len(Circuit(read_feeder(feeder)).network.nodes)))
    assert sorted(device for agent in scenario.agents.values() for device in agent.devices) == sorted(scenario.devices)
    assert len(scenario.agents) > 1


def test_zones_of_ieee34_part_at_the_regulator_and_obey_their_number() -> None:
    assert {agent.pcc for agent in load_scenario("ieee34").agents.values()} == {"sourcebus", "852r", "834"}
    two = load_scenario("ieee34", {"agents": {"layout": "per_zone", "zones": 2}})
    assert {agent.pcc for agent in two.agents.values()} == {"sourcebus", "852r"}
    assert len(load_scenario("ieee34", {"agents": {"layout": "per_zone", "zones": 1}}).agents) == 1


def test_per_phase_agents_see_their_phase_and_three_phase_devices_have_their_own(looped: Path) -> None:
    scenario = load_scenario("ieee13", {"agents": "per_phase"})
    assert {name: agent.devices for name, agent in scenario.agents.items()} == {
        "phase_a": ("reg1",),
        "phase_b": ("reg2",),
        "phase_c": ("cap2", "reg3"),
        "three_phase": ("cap1",),
    }
    network = Circuit(read_feeder("ieee13")).network
    for name, phase in (("phase_a", 1), ("phase_b", 2), ("phase_c", 3)):
        assert set(network.node_phase[nodes_of(scenario)[name]].tolist()) == {phase}


def test_split_phase_legs_belong_to_the_phase_that_feeds_them(looped: Path) -> None:
    network = Circuit(read_feeder(looped)).network
    served = dict(zip(network.nodes, network.served_phase.tolist(), strict=True))
    assert (served["g.1"], served["g.2"]) == (2, 2)
    assert [served[f"d.{phase}"] for phase in (1, 2, 3)] == [1, 2, 3]


def test_per_class_gives_each_kind_an_agent_and_every_node_to_somebody() -> None:
    scenario = load_scenario("ieee34_voltvar", {"agents": "per_class"})
    shipped = load_scenario("ieee34_voltvar")
    owned = {name: set(agent.devices) for name, agent in scenario.agents.items()}
    assert owned == {name: set(agent.devices) for name, agent in shipped.agents.items()}
    nodes = nodes_of(scenario)
    network = Circuit(read_feeder("ieee34")).network
    assert set().union(*map(set, nodes.values())) == set(range(len(network.nodes)))
    for name, agent in scenario.agents.items():
        kind = {"capacitors": "844", "regulators": "814r", "batteries": "890"}[name]
        assert network.bus_index[kind] in agent.zone.find_buses(network)


def test_per_phase_imports_add_up_to_the_source() -> None:
    env = powergrid.make("ieee13", agents="per_phase")
    env.reset(seed=0)
    for agent in env.possible_agents:
        env.action_space(agent).seed(3)
    for _ in range(5):
        _, _, _, _, infos = env.step({agent: env.action_space(agent).sample() for agent in env.agents})
        source = infos["three_phase"]["source_p_kw"]
        of_phases = [infos[name]["import_kw"] for name in ("phase_a", "phase_b", "phase_c")]
        assert sum(of_phases) == pytest.approx(source, abs=0.5)
        assert infos["three_phase"]["import_kw"] == pytest.approx(source, abs=0.5)
        assert np.ptp(of_phases) > 10  # the feeder is unbalanced
        counts = [infos[name]["voltage_violations"] for name in ("phase_a", "phase_b", "phase_c")]
        assert sum(counts) == infos["three_phase"]["network_violations"]
    env.close()


def test_single_agent_sees_every_node(looped: Path) -> None:
    env = powergrid.make(looped, agents="single")
    seen = set(env.describe().observations["name"])
    assert env.possible_agents == ["grid"]
    assert {f"network.{node}.v_pu" for node in env.task.simulation.network.nodes} <= seen
    env.close()


def test_summarise_tells_devices_agents_and_what_was_left(looped: Path, bare: Path) -> None:
    summary = summarise(read_feeder(looped))
    assert [row[0] for row in summary.devices] == list(load_scenario(looped).devices)
    assert set(summary.agents) == set(LAYOUTS)
    assert sum(buses for _, buses in summary.agents["per_zone"].values()) == 9
    assert summary == summarise(Circuit(read_feeder(looped)))
    assert "--add-der" in summarise(read_feeder(bare)).notes[0]


# -- where it comes from


def test_every_way_to_name_a_feeder_gives_the_same_scenario(looped: Path) -> None:
    scenario = load_scenario(looped)
    env = NetworkedGridEnv({"feeder": str(looped)})
    assert env.scenario == scenario == load_scenario({"feeder": str(looped)})
    assert NetworkedGridEnv({"env_name": str(looped)}).scenario == scenario
    assert powergrid.make(str(looped), agents="per_zone").scenario == scenario
    assert load_scenario({"feeder": str(looped), "devices": "discover"}) == scenario
    env.close()


def test_discovery_depends_on_no_name(tmp_path: Path) -> None:
    """A shipped feeder under another name and in another place is the same to discovery."""
    shutil.copytree(models_folder() / "ieee123", tmp_path / "zzz")
    (tmp_path / "zzz" / "Master.dss").rename(tmp_path / "zzz" / "q.dss")
    here, there = load_scenario("ieee123"), load_scenario(tmp_path / "zzz" / "q.dss")
    assert here.devices == there.devices
    assert here.agents == there.agents
    assert there.name == "q"


def test_moves_of_what_is_discovered_wear_and_rest_unless_told_otherwise() -> None:
    devices = load_scenario("ieee123").devices
    regulators = {name: spec for name, spec in devices.items() if spec.kind == "regulator"}
    assert {(spec.cost_usd_per_operation, spec.dwell_steps) for spec in regulators.values()} == {(0.05, 1)}
    banks = [spec for spec in devices.values() if spec.kind == "capacitor"]
    assert {(spec.cost_usd_per_operation, spec.dwell_steps) for spec in banks} == {(0.2, 3)}
    name = next(iter(regulators))
    hourly = load_scenario("ieee123", {"step_minutes": 60, f"devices.{name}.cost_usd_per_operation": 0.3}).devices
    assert {spec.dwell_steps for spec in hourly.values()} == {0}
    assert hourly[name].cost_usd_per_operation == 0.3
    assert load_scenario("ieee123").reward.goal == "balanced"


def test_moves_that_cost_nothing_are_told() -> None:
    assert not load_scenario("ieee123").find_free_moves()
    free = {"reward.weights": {"switching_wear_usd": 0.0}}
    banks, regulators = sorted(load_scenario("ieee123", free).find_free_moves())
    assert "devices.cap_c83.cost_usd_per_operation" in banks
    assert regulators.startswith("moves of reg_creg")
    limited = {f"devices.{name}.moves_per_day": 4 for name in load_scenario("ieee123").devices}
    assert not load_scenario("ieee123", free | limited).find_free_moves()


def test_a_goal_that_is_asked_for_replaces_the_weights_there_were() -> None:
    assert load_scenario("ieee13_voltvar", {"reward.goal": "peak"}).weight_of("losses_kwh") == 0.0
    both = {"reward": {"goal": "peak", "weights": {"losses_kwh": 0.3}}}
    assert load_scenario("ieee13_voltvar", both).weight_of("losses_kwh") == 0.3
    kept = load_scenario("ieee13_voltvar")
    assert load_scenario(kept, {"penalty": 5.0}).weight_of("losses_kwh") == kept.weight_of("losses_kwh") > 0.0


def test_reward_scales_with_the_feeder() -> None:
    small, large = load_scenario("ieee13"), load_scenario("ieee123")
    # all nodes 0.01 pu outside cost 1.2 bills of a step, which are 0.24 of reward
    for scenario, nodes in ((small, 41), (large, 278)):
        assert scenario.penalty * scenario.reward.scale * nodes * 0.01 == pytest.approx(0.24, rel=0.1)


def test_equipment_measures_electrical_length_in_per_unit(looped: Path) -> None:
    circuit = Circuit(read_feeder(looped))
    distance = dict(zip(circuit.network.branches.names, read_equipment(circuit).length_pu.tolist(), strict=True))
    # phase a's transfer admittance of a 3x3 impedance, near 1 / |z1 + (z0 - z1) / 3|, on 4.16 kV and 1 MVA
    assert distance["line.l1"] == pytest.approx(abs(0.2 + 0.3j) / 4.16**2 * 3, rel=0.5)
    assert distance["line.s1"] < 0.01 * distance["line.l1"]
    circuit.close()


# -- baselines


@pytest.mark.parametrize("layout", LAYOUTS)
def test_baselines_play_every_layout(looped: Path, layout: str) -> None:
    config: Mapping[str, Any] = {"feeder": str(looped), "agents": layout, "episode_length": 24}
    report = evaluate(config, ["no_control", "native", "rule_based", "random"], days=1)
    assert report.table().row_count == 4


# -- who controls what is found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_discovered_device_is_left_to_the_feeder_by_its_key(looped: Path, layout: str) -> None:
    staged = {"devices.reg_vr.control": "opendss", "devices.gen_diesel.control": "frozen"}
    scenario = load_scenario(looped, {"agents": layout, **staged})
    assert list(scenario.devices) == list(load_scenario(looped).devices)
    assert (scenario.devices["reg_vr"].control, scenario.devices["gen_diesel"].control) == ("opendss", "frozen")
    env = NetworkedGridEnv({"scenario": scenario})
    env.reset(seed=0)
    assert not {"reg_vr.tap", "gen_diesel.p_kw"} & set(env.describe().actions["name"])
    assert not {"reg_vr", "gen_diesel"} & set(env.possible_agents)
    *_, infos = env.step(env.neutral_actions())
    assert next(iter(infos.values()))["converged"] == 1.0
    env.close()


def test_zones_are_cut_so_that_each_agent_has_something_to_decide(looped: Path) -> None:
    found = load_scenario(looped)
    idle = {name: {"control": "frozen"} for name in found.devices if name != "cap_bank"}
    scenario = load_scenario({"feeder": str(looped), "devices": idle, "agents": {"layout": "per_zone", "zones": 4}})
    assert list(scenario.agents) == ["zone_1"]
    assert set(scenario.agents["zone_1"].devices) == set(found.devices)


def test_key_of_a_device_that_is_not_found_names_the_nearest(looped: Path) -> None:
    with pytest.raises(ScenarioError, match=r"unknown device 'cap_bnk' \(did you mean 'cap_bank'"):
        load_scenario(looped, {"devices.cap_bnk.control": "frozen"})


@pytest.mark.parametrize("key", ["agents", "devices"])
@pytest.mark.parametrize("value", [3, [1, 2], True])
def test_devices_and_agents_of_another_type_are_told(looped: Path, key: str, value: Any) -> None:
    with pytest.raises(ScenarioError, match=rf"{key}: give them by name, or a word \((discover|per_zone).*not "):
        load_scenario({"name": "x", "feeder": str(looped), key: value})
