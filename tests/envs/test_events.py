"""What agents see, are told and pay when the feeder is struck; restoring load by switching."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.grid.feeder.feeder import find_feeder
from powergrid.grid.outages import EVENTS
from powergrid.scenario import load_scenario
from tests.envs.worlds import digest, find_imbalance, play

MakeEnv = Callable[..., NetworkedGridEnv]

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
FAULT = {"kind": "fault", "bus": "18", "at_step": 2, "repair_steps": 8}


@pytest.fixture
def restoration(tmp_path: Path) -> dict[str, Any]:
    """The 123-node feeder with its tie from 151 to 300 open, and two agents with a switch each."""
    master = tmp_path / "tied.dss"
    master.write_text(
        f"""Redirect "{find_feeder("ieee123")}"
New Line.tie Phases=3 Bus1=151 Bus2=300 Switch=yes R1=0.001 X1=0 R0=0.001 X0=0 C1=0 C0=0 Length=0.001 NormAmps=400
Open Line.tie 1
"""
    )
    return {
        "name": "restoration",
        "feeder": str(master),
        "trust": True,
        "episode_length": 16,
        "split": "all",
        "devices": {
            "sw3": {"kind": "switch", "element": "Line.sw3"},
            "tie": {"kind": "switch", "element": "Line.tie"},
        },
        "agents": {
            "West": {"devices": ["sw3"], "zone": {"downstream_of": "18"}, "pcc": "18"},
            "East": {"devices": ["tie"], "zone": {"downstream_of": "97"}, "pcc": "97"},
        },
        "events": {"short": FAULT},
        "infos": "full",
        "reconfiguration": {"radial": "keep"},
    }


def switch(sw3: int, tie: int) -> dict[str, Any]:
    return {"West": np.array([sw3]), "East": np.array([tie])}


def see(env: NetworkedGridEnv, observations: Mapping[str, Any], agent: str, name: str) -> float:
    row = env.describe().observations.query("agent == @agent and name == @name").iloc[0]
    share = (float(observations[agent][row["position"]]) + 1.0) / 2.0
    return float(row["low"] + share * (row["high"] - row["low"]))


def test_restoring_by_a_tie_serves_load_that_waiting_leaves_without(
    restoration: dict[str, Any], make_env: MakeEnv
) -> None:
    unserved = {}
    for name, after in (("wait", (1, 0)), ("restore", (0, 1))):
        env = make_env(restoration)
        env.reset(seed=1, options={"day": 60})
        total, paid = 0.0, 0.0
        for t in range(14):
            _, _, _, _, infos = env.step(switch(*((1, 0) if t < 3 else after)))
            total += infos["West"]["network_unserved_kwh"]
            paid += infos["West"]["unserved_kwh"]
            assert infos["West"]["converged"] == 1.0
            islands = env.task.simulation.islands
            assert islands is not None
            assert islands.connectivity.look(islands.closed(0)).loops == 0
            if t == 2:  # cleared at once; all behind 18 is dark
                assert infos["West"]["events"] == {"short": "18"}
                assert infos["East"]["unserved_kwh"] == 0.0
                dark = infos["West"]["network_unserved_kwh"]
            if t == 4:
                again = infos["West"]["network_unserved_kwh"]
                assert again < 0.5 * dark if name == "restore" else again > 0.8 * dark
        assert paid == pytest.approx(total)
        assert infos["West"]["network_unserved_kwh"] == 0.0  # repaired
        unserved[name] = total
    assert unserved["restore"] < 0.5 * unserved["wait"]


def test_tie_that_would_close_a_loop_is_held_and_told(restoration: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(restoration | {"events": {}})
    env.reset(seed=1)
    circuit = env.task.simulation.circuits[0]
    at = [circuit.network.switches.index(name) for name in ("sw3", "tie")]
    _, _, _, _, infos = env.step(switch(1, 1))
    assert circuit.closed[at].tolist() == [1, 0]
    assert (infos["East"]["held_switches"], infos["West"]["held_switches"]) == (1.0, 0.0)
    _, _, _, _, infos = env.step(switch(0, 1))  # open one, close the other
    assert circuit.closed[at].tolist() == [0, 1]
    assert infos["East"]["held_switches"] == 0.0
    assert infos["East"]["operations"] == 2.0
    _, _, _, _, infos = env.step(switch(1, 1))
    assert circuit.closed[at].tolist() == [0, 1]
    assert infos["West"]["held_switches"] == 1.0


def test_one_controller_is_told_what_was_held_of_every_agents_switches(restoration: dict[str, Any]) -> None:
    env = powergrid.make_central(restoration | {"events": {}})
    env.reset(seed=1)
    infos = env.step(np.array([1, 1]))[4]
    assert infos["held_switches"] == 1.0  # that of the second agent
    env.close()


def test_free_switching_closes_loops(restoration: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(restoration | {"events": {}}, reconfiguration={"radial": "free"})
    env.reset(seed=1)
    _, _, _, _, infos = env.step(switch(1, 1))
    network = env.task.simulation.network
    assert infos["East"]["held_switches"] == 0.0
    assert env.task.simulation.snapshot.loading_pu[0, network.branches.names.index("line.tie")] > 1e-3


def test_keep_served_refuses_to_open_what_feeds_load(restoration: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(restoration | {"events": {}}, reconfiguration={"keep_served": True})
    env.reset(seed=1)
    _, _, _, _, infos = env.step(switch(0, 0))
    assert infos["West"]["held_switches"] == 1.0
    assert infos["West"]["dead_nodes"] == 0.0
    _, _, _, _, infos = env.step(switch(0, 1))
    assert infos["West"]["held_switches"] == 0.0
    assert infos["West"]["dead_nodes"] == 0.0
    env = make_env(restoration | {"events": {}})
    env.reset(seed=1)
    _, _, _, _, infos = env.step(switch(0, 0))
    assert infos["West"]["dead_nodes"] > 20.0
    assert infos["West"]["unserved_kwh"] > 10.0


def test_agents_see_outages_and_energised_share_of_their_zone(restoration: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(restoration)
    observations, infos = env.reset(seed=1)
    assert infos["West"]["events"] == {}
    seen = []
    for _ in range(4):
        observations, _, _, _, infos = env.step(switch(1, 0))
        seen.append(
            [see(env, observations, a, f"{a}.{q}") for a in ("West", "East") for q in ("outages", "energised_share")]
        )
    np.testing.assert_allclose(seen[0], [0, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(seen[3], [1, 0, 0, 1], atol=1e-6)


def test_dead_nodes_violate_no_voltage_limit(restoration: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(restoration)
    env.reset(seed=1)
    for _ in range(4):
        _, _, _, _, infos = env.step(switch(1, 0))
    assert infos["West"]["dead_nodes"] > 40
    assert infos["West"]["voltage_violations"] == 0.0
    metrics, events = env.task.metrics, env.task.simulation.events
    assert events is not None
    assert not metrics.violation_pu[~env.task.simulation.energised].any()
    assert metrics.violation_sum_pu[0] == pytest.approx(metrics.violation_pu[env.task.simulation.energised].sum())
    assert infos["West"]["zone_v_min_pu"] == 0.0  # the whole zone
    assert infos["West"]["network_v_min_pu"] > 0.8
    assert infos["West"]["network_unbalance_pu"] < 0.1
    assert env.task.simulation.energised[0, env.task.simulation.network.nodes.index(infos["West"]["worst_node"])]


def test_unserved_energy_lowers_the_reward_of_the_zone_that_holds_the_load(
    restoration: dict[str, Any], make_env: MakeEnv
) -> None:
    rewards = {}
    for weight in (2.0, 5.0):
        env = make_env(restoration, **{"reward.weights": {"unserved_kwh": weight}})
        env.reset(seed=1)
        for _ in range(4):
            _, rewards[weight], _, _, infos = env.step(switch(1, 0))
    lost = infos["West"]["unserved_kwh"]
    scale = env.scenario.reward.scale
    assert rewards[2.0]["West"] - rewards[5.0]["West"] == pytest.approx(3.0 * lost * scale)
    assert rewards[2.0]["East"] == rewards[5.0]["East"]


def test_scenario_without_events_has_nothing_of_them(make_env: MakeEnv) -> None:
    env = make_env("ieee13_mg")
    env.reset(seed=0)
    assert env.task.simulation.events is None
    names = set(env.describe().observations["name"]) | set(env.describe().infos["name"])
    assert not any("outages" in name or "energised" in name or "dead" in name for name in names)


def test_shipped_scenario_with_drawn_events_is_deterministic_and_converges(make_env: MakeEnv) -> None:
    events = {
        "line": {"kind": "line_outage", "element": ["Line.671684", "Line.671692"], "duration_steps": [2, 8]},
        "short": {"kind": "fault", "bus": "6*", "repair_steps": [2, 6]},
        "trip": {"kind": "generator_outage", "device": "pv_*", "between_hours": [10, 14], "duration_hours": 1},
        "cloud": {"kind": "pv_step", "factor": 0.3, "between_hours": [8, 16], "duration_hours": [0.5, 2]},
        "more": {"kind": "load_step", "factor": 1.3, "duration_hours": [1, 4]},
    }
    one, other = (make_env("ieee13_mg", events=events) for _ in range(2))
    for seed in range(3):
        assert digest(play(one, seed=seed, actions=seed)) == digest(play(other, seed=seed, actions=seed))
        for moment in play(one, seed=seed, actions=seed):
            assert all(info["converged"] == 1.0 for info in moment.infos.values())
            for agent, seen in moment.observations.items():
                assert one.observation_spaces[agent].contains(seen)


@pytest.mark.parametrize("native", [False, True])
def test_every_kind_of_device_plays_through_every_kind_of_event(
    native: bool, every_kind_scenario: dict[str, Any], make_env: MakeEnv
) -> None:
    lasting = {"duration_steps": [3, 20]}
    events = {
        "line": {"kind": "line_outage", "element": "Line.*", **lasting},
        "other": {"kind": "line_outage", "element": "Line.*", **lasting},
        "short": {"kind": "fault", "bus": "*", "r_ohm": 0.02, "clearing_steps": 1, "repair_steps": [2, 9]},
        "trip": {"kind": "generator_outage", "device": "*", **lasting},
        "cloud": {"kind": "pv_step", "factor": 0.2, **lasting},
        "more": {"kind": "load_step", "factor": 1.4, **lasting},
    }
    env = make_env(
        every_kind_scenario | {"events": events, "native_controls": native, "reconfiguration": {}, "infos": "full"}
    )
    simulation = env.task.simulation
    outages = simulation.events
    assert outages is not None
    happened = set()
    for seed in range(2):
        for moment in play(env, seed=seed, actions=seed):
            for agent, info in moment.infos.items():
                assert info["converged"] == 1.0
                assert np.isfinite([value for value in info.values() if isinstance(value, float)]).all()
                assert env.observation_spaces[agent].contains(moment.observations[agent])
                happened |= set(info["events"])
            assert simulation.snapshot.v_pu[~simulation.energised].max(initial=0.0) < 0.25
            if not outages.on[0, outages.timetable.is_fault].any():  # what a fault burns is in no table
                assert abs(find_imbalance(simulation)) < 0.1
    assert happened == set(events)


def test_page_on_events_names_every_key_and_its_blocks_are_scenarios() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for kind, spec in EVENTS.items():
        for key in (kind, *spec.model_fields):
            assert f"`{key}`" in text or key == "kind", key
    blocks = [part.split("```")[0] for part in text.split("```yaml")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        load_scenario("ieee13_mg", yaml.safe_load(block)).simulate().close()


FOUR_WIRES = """
New Circuit.street basekv=10 bus1=s
New Transformer.t windings=2 buses=(s a.1.2.3.4) conns=(delta wye) kvs=(10 0.4) kvas=(250 250) xhl=4
New Reactor.earth bus1=a.4 bus2=a.0 phases=1 R=0.5 X=0
New LineCode.cable nphases=4 r1=0.3 x1=0.1 r0=0.9 x0=0.4 units=km
New Line.ab bus1=a.1.2.3.4 bus2=b.1.2.3.4 linecode=cable length=0.1 units=km
New Line.bc bus1=b.1.2.3.4 bus2=c.1.2.3.4 linecode=cable length=0.1 units=km
New Load.b bus1=b.1.4 phases=1 kv=0.23 kw=9
New Load.c bus1=c.2.4 phases=1 kv=0.23 kw=12
New Storage.s bus1=b.1.2.3 kv=0.4 kWrated=20 kWhrated=40
Set VoltageBases=[10 0.4]
CalcVoltageBases
"""


def test_neutral_conductors_are_never_counted_as_without_supply(tmp_path: Path) -> None:
    master = tmp_path / "Master.dss"
    master.write_text(FOUR_WIRES)
    outage = {"kind": "line_outage", "element": "Line.bc", "at_step": 1, "duration_steps": 1}
    env = NetworkedGridEnv({"feeder": str(master), "events": {"out": outage}})
    env.reset(seed=0)
    dead = []
    for _ in range(3):
        *_, infos = env.step(env.neutral_actions())
        dead.append((infos["zone_1"]["dead_nodes"], infos["zone_1"]["network_unserved_kwh"] > 0.0))
    env.close()
    assert dead == [(0.0, False), (3.0, True), (0.0, False)]
