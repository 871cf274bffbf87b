"""A closed environment says so; it used to end the process, since its engine was called into once it was gone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import powergrid
from powergrid.envs import GridTask, GridVectorEnv, NetworkedGridEnv
from powergrid.errors import ScenarioError
from powergrid.scenario import load_scenario

FACES: dict[str, Callable[[], Any]] = {
    "networked": lambda: NetworkedGridEnv({"env_name": "ieee13_mg"}),
    "parallel": lambda: powergrid.make("ieee13_mg"),
    "central": lambda: powergrid.make_central("ieee13_mg"),
    "vector": lambda: GridVectorEnv("ieee13_mg", 2),
    "vector in processes": lambda: GridVectorEnv("ieee13_mg", 2, backend="processes", workers=2),
    "several feeders": lambda: powergrid.make("ieee13_mg", feeders=["ieee13", "ieee34"], placement={"rule": "load"}),
    "central vector": lambda: powergrid.make_vector("ieee13_mg", 2, view="central"),
}


def sample(env: Any) -> Any:
    """Return actions that leave every device to itself."""
    if hasattr(env, "neutral_actions"):
        return env.neutral_actions()
    return env.neutral_action() if hasattr(env, "neutral_action") else dict.fromkeys(env.possible_agents, [0.0] * 5)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("started", [True, False])
def test_step_and_reset_of_a_closed_environment_are_refused(face: str, started: bool) -> None:
    env = FACES[face]()
    if started:
        env.reset(seed=0)
    actions = sample(env)
    env.close()
    env.close()
    for act in (lambda: env.step(actions), lambda: env.reset(seed=0), lambda: env.reset()):
        with pytest.raises(ScenarioError, match="the environment is closed"):
            act()


@pytest.mark.parametrize("face", ["networked", "parallel", "central", "vector", "several feeders"])
def test_tables_of_a_closed_environment_are_refused_and_those_made_before_stay(face: str) -> None:
    env = FACES[face]()
    made = env.describe()
    env.close()
    for ask in (env.describe, lambda: env.set_ranges({})):
        with pytest.raises(ScenarioError, match="the environment is closed"):
            ask()
    assert len(made.graph.node_features)


def test_step_after_the_last_step_of_a_closed_parallel_environment_is_refused() -> None:
    env = powergrid.make("ieee13_mg", episode_length=1)
    env.reset(seed=0)
    env.step(sample(env))
    assert env.step({}) == ({}, {}, {}, {}, {})
    env.close()
    with pytest.raises(ScenarioError, match="the environment is closed"):
        env.step({})


def test_task_that_is_closed_refuses_to_go_on() -> None:
    task = GridTask(load_scenario("ieee13_mg"))
    task.close()
    with pytest.raises(ScenarioError, match="ieee13_mg: the environment is closed; build it anew"):
        task.step()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copy_of_a_closed_environment_plays(again: Callable[[Any], Any]) -> None:
    env = powergrid.make("ieee13_mg")
    env.close()
    anew = again(env)
    try:
        anew.reset(seed=0)
        assert set(anew.step(sample(anew))[0]) == set(anew.possible_agents)
    finally:
        anew.close()
