"""What rules propose, as agents see it: what the baseline does, once a step, whoever starts anew or is restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest

from powergrid.envs import GridVectorEnv, NetworkedGridEnv
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.rules import RuleBased
from powergrid.scenario import load_scenario

SHOWN = {"proposals": "rule_based"}
N = 3


@pytest.fixture
def build() -> Iterator[Callable[..., GridTask]]:
    with ExitStack() as stack:
        yield lambda name, keys=None: stack.enter_context(closing(GridTask(load_scenario(name, keys or {}), N)))


def start(task: GridTask, env: int, day: int) -> None:
    task.reset(env, np.random.default_rng([0, day]), {"day": day})


def proposed(task: GridTask) -> np.ndarray:
    """Return what is shown as actions, shape (n_envs, n_proposed), and compute them back from their units."""
    table, actions = [channel.name for channel in task.channels.table], task.simulation.actions
    values = task.channels.values[:, [table.index(name) for name in task.proposed]]
    by_name = {f"{action.device}.proposed_{action.name}": action for action in actions}
    own = [by_name[name] for name in task.proposed]
    first = np.array([each.low if each.discrete else (each.low + each.high) / 2 for each in own])
    return (values - first) / np.array([each.gain for each in own])


def columns(task: GridTask) -> list[int]:
    names = [f"{action.device}.proposed_{action.name}" for action in task.simulation.actions]
    return [names.index(name) for name in task.proposed]


@pytest.mark.parametrize("name", ["ieee13_mg", "ieee34_ieee13", "ieee13_voltvar", "ieee34_voltvar"])
def test_what_is_shown_is_what_the_baseline_does(name: str, build: Callable[..., GridTask]) -> None:
    shown, plain, again, rules = build(name, SHOWN), build(name), build(name, SHOWN), RuleBased()
    for env in range(N):
        start(shown, env, 9 * env + 2)
        start(plain, env, 9 * env + 2)
        rules.reset(plain, env)
    for step in range(70):
        action = rules.act(plain)
        np.testing.assert_allclose(proposed(shown), action[:, columns(shown)], atol=1e-12)
        tasks = [shown, plain] if step <= 40 else [shown, plain, again]
        for task in tasks:
            task.action_buffer()[:] = action
            task.step()
        np.testing.assert_array_equal(shown.rewards, plain.rewards)  # to be shown it changes nothing
        if step == 40:
            again.restore(shown.state())
        if step >= 40:
            np.testing.assert_array_equal(again.channels.values, shown.channels.values)
        if step == 50:  # one starts anew, and the others' rules are not asked twice
            for task in tasks:
                start(task, 1, 77)
            rules.reset(plain, 1)


def test_rules_remember_what_was_done_and_not_what_they_would_have(build: Callable[..., GridTask]) -> None:
    task = build("ieee13_mg", SHOWN)
    for env in range(N):
        start(task, env, 20)
    for _ in range(30):
        task.action_buffer()[0] = -1.0  # batteries full at once, sun curtailed
        task.action_buffer()[1:] = 0.0
        task.step()
    seen = proposed(task)
    assert np.abs(seen[0] - seen[1]).max() > 0.1
    np.testing.assert_array_equal(seen[1], seen[2])


def test_agents_see_them_scaled_as_their_actions(make_env: Callable[..., Any]) -> None:
    env, plain = make_env(**SHOWN), make_env()
    seen, _ = env.reset(seed=4)
    for agent, space in env.action_spaces.items():
        tables = env.describe()
        rows = tables.observations[(tables.observations["agent"] == agent)]
        own = rows[rows["name"].str.contains(".proposed_", regex=False)]
        actions = tables.actions[tables.actions["agent"] == agent]
        assert own["name"].str.replace("proposed_", "").tolist() == actions["name"].tolist()
        for key in ("unit", "low", "high"):
            assert own[key].tolist() == actions[key].tolist()
        assert len(own) == space.shape[0]
        assert env.observation_spaces[agent].shape[0] == plain.observation_spaces[agent].shape[0] + len(own)
        np.testing.assert_allclose(seen[agent][own["position"]], proposed(env.task)[0, _of(env.task, agent)], atol=1e-6)


def _of(task: GridTask, agent: str) -> list[int]:
    devices = next(each.devices for each in task.agents if each.name == agent)
    return [place for place, name in enumerate(task.proposed) if name.partition(".")[0] in devices]


@pytest.mark.parametrize("backend", ["inline", "processes"])
def test_many_environments_see_what_one_sees(backend: str, make_env: Callable[..., Any]) -> None:
    scenario = load_scenario("ieee13_mg", {"episode_length": 6, **SHOWN})
    with closing(GridVectorEnv(scenario, num_envs=3, backend=backend)) as many:
        many_seen, _ = many.reset(seed=[5, 6, 7])
        one = make_env(episode_length=6, **SHOWN)
        seen, _ = one.reset(seed=6)
        for _ in range(6):
            np.testing.assert_array_equal(many_seen["MG1"][1], seen["MG1"])
            many_seen, *_ = many.step({a: np.zeros((3, *s.shape), np.float32) for a, s in one.action_spaces.items()})
            seen, *_ = one.step({a: np.zeros(s.shape, np.float32) for a, s in one.action_spaces.items()})


def test_a_copy_in_mid_episode_is_proposed_the_same(make_env: Callable[..., Any]) -> None:
    env = make_env(**SHOWN)
    env.reset(seed=2)
    zero = {agent: np.zeros(space.shape, np.float32) for agent, space in env.action_spaces.items()}
    for _ in range(20):
        env.step(zero)
    with closing(env.clone()) as copy:
        for _ in range(5):
            ours, theirs = env.step(zero)[0], copy.step(zero)[0]
            for agent in zero:
                np.testing.assert_array_equal(ours[agent], theirs[agent])


def test_unset_it_is_no_part_of_what_a_scenario_is() -> None:
    plain, unset = load_scenario("ieee13_mg"), load_scenario("ieee13_mg", {"proposals": None})
    assert plain.digest() == unset.digest() != load_scenario("ieee13_mg", SHOWN).digest()


def test_rules_do_not_see_through_telemetry() -> None:
    with pytest.raises(ScenarioError, match="proposals: rules see what telemetry keeps back"):
        load_scenario(
            "ieee13_mg", {**SHOWN, "telemetry": {"readings": {"all": {"channels": ["*"], "delay_minutes": 15}}}}
        )
    assert load_scenario("ieee13_mg", {**SHOWN, "telemetry": {}}).proposals == "rule_based"


def test_nobody_else_proposes() -> None:
    with pytest.raises(ScenarioError, match="rule_based"):
        NetworkedGridEnv({"env_name": "ieee13_mg", "proposals": "greedy"})


def test_several_feeders_propose_for_the_one_that_is_played(make_env: Callable[..., Any]) -> None:
    env = make_env(feeders=["ieee13", "ieee34"], placement={"rule": "load"}, **SHOWN)
    for feeder in ("ieee13", "ieee34"):
        env.reset(seed=1, options={"feeder": feeder})
        rules = RuleBased()
        rules.reset(env.task, 0)
        np.testing.assert_allclose(proposed(env.task), rules.act(env.task)[:, columns(env.task)], atol=1e-12)
