"""What agents see: the table against the numbers, what is known of the step to come, what infos say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.envs.describe import Description
from powergrid.errors import ScenarioError
from powergrid.grid.profiles.profiles import Profiles, builtin_profiles
from tests.envs.worlds import average, fill_actions, play

MakeEnv = Callable[..., NetworkedGridEnv]


class Reader:
    """Turn observations back into physical numbers by the documented table alone."""

    def __init__(self, env: NetworkedGridEnv) -> None:
        self.tables = dict(iter(env.describe().observations.groupby("agent")))
        assert all(rows["position"].tolist() == list(range(len(rows))) for rows in self.tables.values())
        self.bounds = {
            agent: dict(zip(rows["name"], zip(rows["low"], rows["high"], strict=True), strict=True))
            for agent, rows in self.tables.items()
        }

    def read(self, observations: Any, agent: str) -> dict[str, float]:
        rows = self.tables[agent]
        low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
        values = low + (observations[agent].astype(float) + 1.0) / 2.0 * (high - low)
        return dict(zip(rows["name"], values.tolist(), strict=True))


@pytest.fixture(scope="module")
def year() -> Profiles:
    return builtin_profiles()


def test_observation_carries_what_is_known_of_the_step_to_come(
    shipped: str, mode: str, make_env: MakeEnv, year: Profiles
) -> None:
    env = make_env(shipped, mode=mode)
    reader = Reader(env)
    network = env.task.simulation.network
    tariff = average(year.price_usd_per_kwh[env.scenario.profiles.tariff], env)
    pv_pu, demand_pu, horizon = average(year.pv_pu, env), average(year.demand_pu, env), env.scenario.episode_length
    per_hour = 60 // env.scenario.step_minutes
    for t, moment in enumerate(play(env, seed=7)):
        for agent in env.possible_agents:
            first = horizon * moment.infos[agent]["day"]
            row = first + min(t, horizon - 1)  # what is beyond the horizon reads as its last row
            seen = reader.read(moment.observations, agent)
            assert seen["world.price_usd_per_kwh"] == pytest.approx(tariff[row], abs=1e-6)
            assert seen["world.sun_pu"] == pytest.approx(pv_pu[row], abs=1e-6)
            for hours in (1, 4, 12):
                ahead = tariff[min(row + per_hour * hours, first + horizon - 1)]
                assert seen[f"world.price_ahead_{hours}h_usd_per_kwh"] == pytest.approx(ahead, abs=1e-6)
            assert seen["world.time_of_day_sin"] == pytest.approx(np.sin(t * 2 * np.pi / horizon), abs=1e-6)
            own = np.isin(network.loads.bus, env.scenario.agents[agent].zone.find_buses(network))
            share = np.where(network.loads.fixed, 1.0, demand_pu[row][env.task.simulation.series])
            demand = share[own] @ network.loads.kw[own]
            shown = demand * env.scenario.load_scale
            assert seen[f"{agent}.demand_kw"] == pytest.approx(shown, rel=1e-5, abs=1e-3)


def test_observation_weekend_is_saturday_and_sunday(make_env: MakeEnv, year: Profiles) -> None:
    env = make_env()
    reader = Reader(env)
    first = year.start.astype("datetime64[D]").astype(object)
    for day in range(14):
        observations, _ = env.reset(seed=0, options={"day": day})
        seen = reader.read(observations, "MG1")["world.weekend"]
        assert seen == float((first.toordinal() + day) % 7 in (6, 0))  # ordinal 1 was a Monday


def test_observation_carries_the_solved_state_of_the_step(shipped: str, make_env: MakeEnv) -> None:
    env = make_env(shipped, mode="centralized", infos="full")
    reader = Reader(env)
    simulation = env.task.simulation
    network = simulation.network
    for moment in play(env, seed=7, steps=60):
        snapshot = simulation.snapshot
        for agent, spec in env.scenario.agents.items():
            seen, info = reader.read(moment.observations, agent), moment.infos[agent]
            zone = np.isin(network.node_bus, spec.zone.find_buses(network))
            pcc = network.node_bus == network.bus_index[spec.pcc.lower()]
            clipped = np.clip(snapshot.v_pu[0], 0.85, 1.15)
            assert seen[f"{agent}.v_min_pu"] == pytest.approx(clipped[zone].min(), abs=1e-6)
            assert seen[f"{agent}.v_max_pu"] == pytest.approx(clipped[zone].max(), abs=1e-6)
            assert seen[f"{agent}.v_mean_pu"] == pytest.approx(
                np.clip(snapshot.v_pu[0, zone].mean(), 0.85, 1.15), abs=1e-6
            )
            assert seen[f"{agent}.pcc_v_pu"] == pytest.approx(
                np.clip(snapshot.v_pu[0, pcc].mean(), 0.85, 1.15), abs=1e-6
            )
            assert info["zone_v_min_pu"] == snapshot.v_pu[0, zone].min()
            low, high = reader.bounds[agent][f"{agent}.import_kw"]
            assert seen[f"{agent}.import_kw"] == pytest.approx(np.clip(info["import_kw"], low, high), abs=0.01)
            for node, v_pu in zip(network.nodes, clipped, strict=True):
                assert seen[f"network.{node}.v_pu"] == pytest.approx(v_pu, abs=1e-6)
            power = dict(zip(simulation.power_device_names, snapshot.device_kva[0], strict=True))
            for device in spec.devices:
                if f"{device}.p_kw" in seen:
                    low, high = reader.bounds[agent][f"{device}.p_kw"]
                    assert seen[f"{device}.p_kw"] == pytest.approx(np.clip(power[device].real, low, high), abs=0.01)
            owned = sum(power.get(device, 0j) for device in spec.devices)
            assert info["delivered_kw"] == pytest.approx(owned.real)
            assert info["delivered_kvar"] == pytest.approx(owned.imag)
            assert info["source_p_kw"] == snapshot.source_kva[0].real
            assert info["network_losses_kw"] == snapshot.losses_kw[0]
            assert info["network_v_max_pu"] == snapshot.v_pu[0].max()
            worst = np.maximum(snapshot.v_pu[0] - 1.05, 0.95 - snapshot.v_pu[0]).argmax()
            assert info["worst_node"] == network.nodes[worst]


def test_observation_in_distributed_mode_has_no_channel_of_another_zone(shipped: str, make_env: MakeEnv) -> None:
    env = make_env(shipped, mode="distributed")
    table = env.describe().observations
    for agent, spec in env.scenario.agents.items():
        owners = set(table.query("agent == @agent")["owner"])
        assert owners == {"world", agent, *spec.devices}


def test_observation_at_reset_is_that_of_devices_left_to_themselves(
    every_kind_scenario: dict[str, Any], make_env: MakeEnv
) -> None:
    env = make_env(every_kind_scenario)
    reader = Reader(env)
    for seed in range(3):
        observations, infos = env.reset(seed=seed)
        seen = reader.read(observations, "South") | reader.read(observations, "North")
        assert seen["ess.soc"] == pytest.approx(0.5)
        assert seen["gen.on"] == pytest.approx(0.0, abs=1e-6)
        assert seen["flex.demand_kw"] > 1.0
        assert -seen["flex.demand_kw"] + seen["cars.p_kw"] == pytest.approx(infos["South"]["delivered_kw"], rel=0.1)
        assert seen["reg.tap"] == pytest.approx(3.0, abs=1e-5)
        assert infos["North"]["operations"] == 0.0
        assert infos["North"]["price_usd_per_kwh"] > 0.0


def test_bounds_of_every_channel_are_finite_and_apart(every_kind_scenario: dict[str, Any], make_env: MakeEnv) -> None:
    table = make_env(every_kind_scenario, mode="centralized").describe().observations
    assert np.isfinite(table[["low", "high"]].to_numpy()).all()
    assert (table["high"] > table["low"]).all()


def test_describe_tables_match_spaces_and_infos(shipped: str, mode: str, make_env: MakeEnv) -> None:
    env = make_env(shipped, mode=mode)
    tables: Description = env.describe()
    _, infos = env.reset(seed=0)
    for agent in env.possible_agents:
        assert (tables.observations["agent"] == agent).sum() == env.observation_spaces[agent].shape[0]
        own = fill_actions(env, 0.0)[agent]
        sizes = [len(part) for part in own.values()] if isinstance(own, dict) else [len(own)]
        assert (tables.actions["agent"] == agent).sum() == sum(sizes)
        row = tables.agents.set_index("agent").loc[agent]
        assert row["observations"] == env.observation_spaces[agent].shape[0]
        assert tuple(row["devices"].split(", ")) == env.task.agents[env.possible_agents.index(agent)].devices
        assert set(infos[agent]) == {*tables.infos["name"], "day"}
    for table in (tables.observations, tables.actions):
        assert not table.duplicated(["agent", "name", "position"]).any()
    assert set(tables.devices["device"]) == set(env.scenario.devices)
    assert tables.infos["meaning"].str.len().min() > 5
    named = tables.infos.set_index("name")["unit"]
    for suffix, unit in (("_kw", "kW"), ("_kvar", "kvar"), ("_kwh", "kWh"), ("_usd", "USD"), ("_pu", "pu")):
        own = [name for name in named.index if name.endswith(suffix) and "per" not in name and "_above_" not in name]
        assert set(named[own]) == {unit}


@pytest.mark.parametrize("infos", ["numbers", "full"])
def test_infos_hold_numbers_alone_unless_names_are_asked_for(infos: str, make_env: MakeEnv) -> None:
    """Texts and dicts in infos break libraries that stack infos into arrays."""
    outage = {"kind": "line_outage", "element": "Line.*", "at_step": 0, "duration_steps": 8}
    keys: dict[str, Any] = {"events": {"storm": outage}, "infos": infos}
    several = {"feeders": ["ieee13", "ieee34"], "placement": {"rule": "load"}, "infos": infos}
    names: set[str] = set()
    for env in (make_env("ieee13_mg", **keys), make_env("ieee13_mg", **several)):
        for moment in play(env, seed=1, steps=3):
            for info in moment.infos.values():
                names |= {name for name, value in info.items() if type(value) not in (int, float)}
    one, many = (
        powergrid.make_central("ieee13_mg", **keys),
        powergrid.make_vector("ieee13_mg", 2, view="central", **keys),
    )
    names |= {name for name, value in one.reset(seed=1)[1].items() if type(value) not in (int, float)}
    names |= {name for name, values in many.reset(seed=1)[1].items() if values.dtype == object}
    one.close()
    many.close()
    assert names == ({"worst_node", "events", "feeder"} if infos == "full" else set())


def test_infos_key_other_than_those_is_told(make_env: MakeEnv) -> None:
    with pytest.raises(ScenarioError, match=r"infos.*'numbers' or 'full'"):
        make_env("ieee13_mg", infos="all")
