"""Cooled buildings by hand: one step of each zone, power, comfort, weather, and what thermostats do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.grid.devices import BuildingSpec
from tests.grid.devices.fleets import make_exogenous, make_fleet, normalise

BUILDINGS = Path(__file__).parents[3] / "docs" / "ieee13_buildings.yaml"
#: One column each of the published model: A, then B of outside, air, neighbour and sun; neighbours count from 0.
PUBLISHED = [
    (0.9961, 0.0027886, 0.01273, 0.0080364, 0.015767, 4),
    (0.998, 0.0030471, 0.031063, 0.01201, 0.022105, 4),
    (0.99402, 0.0040229, 0.013401, 0.0044284, 0.012504, 3),
    (0.9941, 0.0055396, 0.03525, 0.0029069, 0.021674, 2),
    (0.99673, 0.0015872, 0.0043806, 0.001, 0.0080219, 2),
]
FIVE_MINUTES = 1 / 12


def make(dt_h: float = FIVE_MINUTES, horizon: int = 288, **keys: Any) -> Any:
    return make_fleet({"b": BuildingSpec(kind="building", bus="1", **keys)}, dt_h, horizon)


def play(
    fleet: Any, flows: list[float], discharge: float, sun: float = 0.0, step: int = 0, served: float = 1.0
) -> None:
    exo = make_exogenous(step=step)
    exo.sun_pu = np.array([sun])
    values = {f"flow_{i}": flow for i, flow in enumerate(flows, start=1)}
    fleet.project(normalise(fleet, **values, discharge=discharge), exo)
    fleet.advance(fleet.p_kw * served, fleet.q_kvar * served, exo)


def by_hand(temps: list[float], flows: list[float], discharge: float, outdoor: float, sun_kw: float) -> list[float]:
    after = []
    for z, (a, outside, air, next_to, sun, neighbour) in enumerate(PUBLISHED):
        x = a * (temps[z] - 25.604) + outside * (outdoor - temps[z]) + air * flows[z] * (discharge - temps[z])
        after.append(25.604 + x + next_to * (temps[neighbour] - temps[z]) + sun * sun_kw)
    return after


def test_zones_follow_the_published_model_step_by_step() -> None:
    fleet = make(solar_gain_kw=1.5)
    temps, rng = [27.0] * 5, np.random.default_rng(2)
    for step in range(24):
        flows, discharge, sun = [*rng.uniform(0.22, 2.2, 4), rng.uniform(0.32, 3.2)], rng.uniform(10, 16), rng.random()
        outdoor = float(fleet.outdoor_c[0, 0])
        temps = by_hand(temps, flows, discharge, outdoor, 1.5 * sun)
        play(fleet, flows, discharge, sun, step)
        assert fleet.zones_c()[0, 0].tolist() == pytest.approx(temps)


def test_power_is_the_cube_of_the_flow_and_the_heat_of_outdoor_air() -> None:
    fleet = make(scale=2.0, cop=4.0, power_factor=0.8, outdoor_max_c=30.0, outdoor_range_k=0.0)
    play(fleet, [1.0, 1.0, 1.0, 1.0, 2.0], 12.0)
    kw = 2.0 * (0.0076 * 6.0**3 + 4.8865 + 6.0 * (30.0 - 12.0) / 4.0)
    assert fleet.p_kw[0, 0] == pytest.approx(-kw)
    assert fleet.q_kvar[0, 0] == pytest.approx(-kw * 0.75)
    assert fleet.terms["hvac_kwh"][0, 0] == pytest.approx(kw / 12)
    cool = make(outdoor_max_c=8.0, outdoor_range_k=0.0)  # no heat to take out of air that is colder than wanted
    play(cool, [1.0, 1.0, 1.0, 1.0, 2.0], 12.0)
    assert cool.p_kw[0, 0] == pytest.approx(-(0.0076 * 6.0**3 + 4.8865))


def test_discomfort_is_the_square_of_kelvins_outside_the_band_of_either_side() -> None:
    least = [0.22, 0.22, 0.22, 0.22, 0.32]
    warm, cold = make(temp_max_c=25.0), make(temp_min_c=27.5)
    for fleet in (warm, cold):
        play(fleet, least, 16.0)
    zones = warm.zones_c()[0, 0]
    assert warm.terms["discomfort_k2h"][0, 0] == pytest.approx(((zones - 25.0) ** 2).sum() / 12)
    assert cold.terms["discomfort_k2h"][0, 0] == pytest.approx(((27.5 - zones) ** 2).sum() / 12)


def test_longer_steps_play_as_many_of_five_minutes() -> None:
    short, long = (make(dt_h, outdoor_range_k=0.0) for dt_h in (FIVE_MINUTES, 0.25))
    flows = [0.5, 0.6, 0.7, 0.8, 0.9]
    for _ in range(3):
        play(short, flows, 12.0, sun=0.4)
    play(long, flows, 12.0, sun=0.4)
    assert long.zones_c() == pytest.approx(short.zones_c())
    minute = make(1 / 60, outdoor_range_k=0.0, solar_gain_kw=0.0)
    for _ in range(5):
        play(minute, flows, 12.0)
    one = make(outdoor_range_k=0.0, solar_gain_kw=0.0)
    play(one, flows, 12.0)
    assert minute.zones_c() == pytest.approx(one.zones_c(), abs=0.02)


def test_day_is_a_design_day_with_its_peak_at_two_in_the_afternoon() -> None:
    fleet = make(1.0, 24, outdoor_max_c=35.0, outdoor_range_k=10.0)
    seen = [fleet.outdoor_c[0, 0]]
    for step in range(24):
        play(fleet, [0.22] * 4 + [0.32], 16.0, step=step)
        seen.append(fleet.outdoor_c[0, 0])
    assert (seen[14], seen[15], min(seen)) == pytest.approx((35.0, 35.0, 25.0))
    assert seen[5] == min(seen)
    assert seen[0] == seen[24] == pytest.approx(35.0 - 8.2)


def test_without_power_no_air_flows() -> None:
    dark = make()
    play(dark, [2.2, 2.2, 2.2, 2.2, 3.2], 10.0, served=0.0)
    outdoor = 35.0 - 0.82 * 11.0
    assert dark.zones_c()[0, 0].tolist() == pytest.approx(by_hand([27.0] * 5, [0.0] * 5, 10.0, outdoor, 0.0))
    assert dark.terms["hvac_kwh"][0, 0] == 0.0


def test_thermostats_keep_comfort_on_a_hot_day() -> None:
    fleet = make()
    for step in range(288):
        exo = make_exogenous(step=step)
        exo.sun_pu = np.array([max(0.0, np.sin((step / 288 - 0.25) * 2 * np.pi))])
        fleet.project(fleet.neutral(exo), exo)
        fleet.advance(fleet.p_kw, fleet.q_kvar, exo)
        assert fleet.terms["discomfort_k2h"].max() == 0.0
    assert 22.0 < fleet.zones_c().min() < fleet.zones_c().max() < 28.0


def test_a_building_in_a_scenario_is_read_back_from_the_grid_and_follows_the_sun() -> None:
    scenario = {
        "name": "office",
        "feeder": "ieee13",
        "step_minutes": 60,
        "episode_length": 24,
        "devices": {"office": {"kind": "hvac", "bus": "675", "phases": [3], "power_factor": 0.9}},
        "agents": {"A": {"devices": ["office"], "zone": {"buses": ["675"], "phases": [3]}, "pcc": "675"}},
        "reward": {"preset": "powergridworld_buildings"},
    }
    env = NetworkedGridEnv(powergrid.load_scenario(scenario))
    env.reset(seed=3)
    fleet = env.task.simulation.fleets[0]
    nodes = env.task.simulation.network.nodes
    for _ in range(24):
        _, rewards, _, _, infos = env.step(env.neutral_actions())
        info, v = infos["A"], env.task.simulation.snapshot.v_pu[0, nodes.index("675.3")]
        assert info["delivered_kw"] == pytest.approx(-info["hvac_kwh"], rel=1e-3)
        assert fleet.delivered_p_kw[0, 0] == pytest.approx(fleet.p_kw[0, 0], rel=1e-3)
        outside = max(0.0, 0.95 - v, v - 1.05)
        assert info["connection_violation_pu"] == pytest.approx(outside, abs=1e-12)
        paid = 0.1 * info["hvac_kwh"] + 0.8 * 12 * info["discomfort_k2h"] + 1e4 / 3 * outside
        assert rewards["A"] == pytest.approx(-paid)
    env.close()


def test_three_offices_share_what_their_node_is_outside_the_band_and_thermostats_alone_do_not_hold_it() -> None:
    env = NetworkedGridEnv({"env_name": str(BUILDINGS), "episode_length": 24})
    env.reset(seed=1, options={"day": 200})
    seen = []
    for _ in range(24):
        _, rewards, _, _, infos = env.step(env.neutral_actions())
        own = [infos[agent]["connection_violation_pu"] for agent in infos]
        assert len(own) == 3
        assert len(set(own)) == 1
        seen.append(own[0])
        for agent, info in infos.items():
            paid = 0.1 * info["hvac_kwh"] + 9.6 * info["discomfort_k2h"] + 1e4 / 3 * own[0]
            assert rewards[agent] == pytest.approx(-paid)
    assert max(seen) > 0.0
    env.close()
