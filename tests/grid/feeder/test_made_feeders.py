"""Feeders that ``scripts/make_feeders.py`` makes: the same for a seed, sound, playable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.feeder.feeder import read_feeder
from scripts.make_feeders import LEAST_NODES, MOST_NODES, write_feeder


def test_equal_seeds_write_equal_files_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("one", 4), ("again", 4), ("other", 5)):
        write_feeder(tmp_path / name, seed)
    one, again, other = ({f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in ("one", "again", "other"))
    assert set(one) == {"Master.dss", "BusCoords.csv"}
    assert one == again
    assert one["Master.dss"] != other["Master.dss"]


@pytest.mark.parametrize("seed", range(10))
def test_made_feeder_is_radial_and_plays_a_day_within_plausible_voltages(seed: int, tmp_path: Path) -> None:
    master = write_feeder(tmp_path, seed)
    network = network_of(read_feeder(master))
    assert LEAST_NODES <= len(network.nodes) - 6 <= MOST_NODES  # without source and substation
    fed = {ends[1] for ends in network.branches.buses if len(ends) > 1}
    assert len(fed) == len(network.buses) - 1  # each from one other
    env = NetworkedGridEnv({"feeder": str(master), "native_controls": True})
    kinds = {spec.kind for spec in env.task.scenario.devices.values()}
    assert {"regulator", "capacitor", "inverter", "storage"} <= kinds
    env.reset(seed=0)
    lowest, highest = np.inf, 0.0
    for step in range(96):
        _, _, terminated, _, infos = env.step(env.neutral_actions())
        told = next(iter(infos.values()))
        assert (told["converged"], terminated["__all__"]) == (1.0, False), step
        lowest, highest = min(lowest, told["network_v_min_pu"]), max(highest, told["network_v_max_pu"])
        assert not told["network_overloads"]
    env.close()
    assert 0.88 < lowest < highest < 1.06


def test_made_feeder_is_played_by_its_own_loadshapes(tmp_path: Path) -> None:
    env = powergrid.make(write_feeder(tmp_path, 2), profiles={"source": "loadshapes"})
    env.reset(seed=0)
    for agent in env.possible_agents:
        env.action_space(agent).seed(0)
    for _ in range(8):
        rewards = env.step({agent: env.action_space(agent).sample() for agent in env.agents})[1]
        assert np.isfinite(list(rewards.values())).all()
    env.close()
