"""The models as they circulate, every layout: they are made, play at random, and stay in their spaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.check import check_feeder
from powergrid.errors import ScenarioError
from powergrid.evaluation import evaluate
from powergrid.scenario.discovery import LAYOUTS

UPSTREAM = Path(__file__).parents[3].parent / "shared" / "upstream-feeders"
SMALL = (
    "13Bus/IEEE13Nodeckt.dss",
    "34Bus/ieee34Mod1.dss",
    "34Bus/ieee34Mod2.dss",
    "37Bus/ieee37.dss",
    "123Bus/IEEE123Master.dss",
)
LARGE = ("8500-Node/Master.dss", "8500-Node/Master-unbal.dss", "ckt5/Master_ckt5.dss")
BARE = "4Bus-YY-Bal/4Bus-YY-Bal.DSS"

pytestmark = pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the models as they circulate are not here")


def play(master: str, steps: int, **keys: Any) -> Mapping[str, Any]:
    """Play random actions; give the partition of buses and how many steps diverged."""
    env = powergrid.make(UPSTREAM / master, **keys)
    try:
        network = env.task.simulation.network
        observations, _ = env.reset(seed=0)
        for agent in env.possible_agents:
            env.action_space(agent).seed(1)
        diverged, lowest = 0, []
        for _ in range(steps):
            if not env.agents:
                env.reset()
            actions = {agent: env.action_space(agent).sample() for agent in env.agents}
            observations, rewards, terminations, _, infos = env.step(actions)
            diverged += any(terminations.values())
            assert all(env.observation_space(agent).contains(seen) for agent, seen in observations.items())
            assert np.isfinite(list(rewards.values())).all()
            lowest.append(next(iter(infos.values()))["network_v_min_pu"])
        owned = [bus for agent in env.scenario.agents.values() for bus in agent.zone.find_buses(network)]
        return {"diverged": diverged, "owned": sorted(owned), "buses": len(network.buses), "lowest": min(lowest)}
    finally:
        env.close()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("master", SMALL)
def test_small_feeder_plays_96_random_steps(master: str, layout: str) -> None:
    played = play(master, 96, agents=layout)
    assert played["diverged"] == 0
    assert played["lowest"] > 0.3  # no part of it is ever cut off
    if layout == "per_zone":
        assert played["owned"] == list(range(played["buses"]))


@pytest.mark.parametrize("layout", ["per_zone", "per_phase"])
@pytest.mark.parametrize("master", [*SMALL, BARE])
def test_small_feeder_with_added_der_plays(master: str, layout: str) -> None:
    assert play(master, 24, agents=layout, add_der={"penetration": 0.3})["diverged"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("master", LARGE)
def test_large_feeder_plays_random_steps(master: str, layout: str) -> None:
    played = play(master, 4, agents=layout)
    assert played["diverged"] == 0
    if layout == "per_zone":
        assert played["owned"] == list(range(played["buses"]))


def test_feeder_without_devices_says_what_to_add() -> None:
    with pytest.raises(ScenarioError, match="--add-der"):
        powergrid.make(UPSTREAM / BARE)


@pytest.mark.parametrize("master", SMALL)
def test_small_feeder_is_usable_and_evaluated(master: str) -> None:
    assert check_feeder(UPSTREAM / master).exit_code() == 0
    frame = evaluate({"feeder": str(UPSTREAM / master)}, ["no_control", "random"], days=1).frame
    assert (frame["converged_share"] == 1.0).all()


@pytest.mark.slow
@pytest.mark.parametrize("master", LARGE)
def test_large_feeder_is_usable_and_evaluated(master: str) -> None:
    assert check_feeder(UPSTREAM / master).exit_code() == 0
    config = {"feeder": str(UPSTREAM / master), "episode_length": 8}
    assert (evaluate(config, ["no_control", "random"], days=1).frame["converged_share"] == 1.0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_baselines_play_ieee123_in_every_layout(layout: str) -> None:
    config = {"feeder": str(UPSTREAM / SMALL[-1]), "agents": layout, "episode_length": 8}
    assert evaluate(config, ["no_control", "native", "rule_based", "random"], days=1).table().row_count == 4
