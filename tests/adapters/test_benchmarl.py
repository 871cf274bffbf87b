"""BenchMARL's task on a scenario; run where BenchMARL is, which is an environment of its own."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("benchmarl")

from powergrid.adapters.benchmarl import GridTaskClass


def test_a_task_is_the_scenario_in_lockstep() -> None:
    task = GridTaskClass("ieee13_mg", episode_length=4)
    with closing(task.get_env_fun(2, continuous_actions=True, seed=0, device="cpu")()) as env:
        assert task.max_steps(env) == 4
        assert task.group_map(env) == {"agents": ["MG1", "MG2"]}
        specs: Any = task.observation_spec(env)
        assert specs["agents", "observation"].shape == (2, 28)
        assert task.action_spec(env)["agents", "action"].shape == (2, 5)
        assert env.rollout(4)["next", "agents", "reward"].shape == (2, 4, 2, 1)
        assert task.action_mask_spec(env) is None


def test_masks_of_positions_are_told_apart_from_what_is_seen() -> None:
    keys: dict[str, Any] = {"agents": "per_device", "plain_discrete": True, "action_masks": "observations"}
    task = GridTaskClass("ieee13_voltvar", **keys)
    with closing(task.get_env_fun(2, continuous_actions=False, seed=0, device="cpu")()) as env:
        masks, seen = task.action_mask_spec(env), task.observation_spec(env)
        assert set(masks.keys()) == set(seen.keys()) == set(env.group_map)
        for group, names in env.group_map.items():
            assert list(seen[group].keys()) == ["observation"]
            assert masks[group, "action_mask"].shape == (len(names), task.action_spec(env)[group, "action"].n)
