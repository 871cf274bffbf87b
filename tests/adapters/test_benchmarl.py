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
