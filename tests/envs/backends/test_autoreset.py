"""When environments that are over start anew changes nothing of what they play."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import ClipReward, DictInfoToList, NormalizeObservation, RecordEpisodeStatistics
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import powergrid
from powergrid.envs.backends import ViewName
from powergrid.errors import ScenarioError
from tests.envs.conftest import close_after

N, HORIZON, STEPS = 3, 4, 11
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]
VIEWS: list[ViewName] = ["agents", "central"]
by_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode.name))


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[..., Any]]:
    """Make vector environments that are closed after the last test."""
    yield from close_after(powergrid.make_vector)


def pick(value: Any, env: int) -> Any:
    """Return one environment's part of what all have."""
    if isinstance(value, dict):
        return {name: pick(part, env) for name, part in value.items()}
    return value[env]


def stack(space: spaces.Space[Any], rows: list[Any]) -> Any:
    """Put actions of environments into one, as a batched space has it."""
    if isinstance(space, spaces.Dict):
        return {name: stack(part, [row[name] for row in rows]) for name, part in space.items()}
    return np.stack(rows)


def play(env: Any, seed: int, diverging: int | None) -> list[list[Any]]:
    """Return what each environment gives from step to step without resets, each with actions of its own."""
    same = env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    own = [np.random.default_rng([seed, i]) for i in range(env.num_envs)]
    seen, _ = env.reset(seed=seed)
    assert env.observation_space.contains(seen)
    if diverging is not None:
        env._slices.slice.task.simulation.day_load_kw[diverging, 2] = np.nan  # what no feeder can carry
    told: list[list[Any]] = [[pick(seen, i)] for i in range(env.num_envs)]
    over = np.zeros(env.num_envs, dtype=bool)
    for _ in range(STEPS * 2):
        starting = over & (not same)
        rows = []
        for i, rng in enumerate(own):
            env.single_action_space.seed(0 if starting[i] else int(rng.integers(1 << 30)))
            rows.append(env.single_action_space.sample())
        seen, rewards, terminated, truncated, infos = env.step(stack(env.single_action_space, rows))
        assert env.observation_space.contains(seen)
        assert not any(part[starting].any() for part in (rewards, terminated, truncated))
        over = terminated | truncated
        for i in np.flatnonzero(~starting):
            moment = (rewards[i], terminated[i], truncated[i])
            if same and over[i]:
                told[i] += [(pick(infos["final_obs"], i), *moment), pick(seen, i)]
            else:
                told[i].append((pick(seen, i), *moment))
        for i in np.flatnonzero(starting):
            told[i].append(pick(seen, i))
    return [each[: STEPS + 1] for each in told]


@pytest.mark.parametrize("view", VIEWS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30), diverging=st.none() | st.integers(0, N - 1))
def test_next_step_and_same_step_play_the_same_but_for_the_step_that_starts(
    made: dict[Any, Any], view: ViewName, seed: int, diverging: int | None
) -> None:
    following, within = (play(made[view, mode], seed, diverging) for mode in MODES)
    np.testing.assert_equal(following, within)


@pytest.fixture(scope="module")
def made(make: Callable[..., Any]) -> dict[Any, Any]:
    """An environment of each view and mode, of short days."""
    return {
        (view, mode): make("ieee13_mg", N, view=view, autoreset_mode=mode, episode_length=HORIZON)
        for view in VIEWS
        for mode in MODES
    }


@by_mode
@pytest.mark.parametrize("scenario", ["ieee13_mg", "ieee13_voltvar"])
@pytest.mark.parametrize("view", VIEWS)
def test_what_all_environments_see_and_do_is_in_batched_spaces(
    make: Callable[..., Any], view: ViewName, scenario: str, mode: AutoresetMode
) -> None:
    env = make(scenario, 2, view=view, autoreset_mode=mode, episode_length=2, action_masks="observations")
    assert env.metadata["autoreset_mode"] is mode
    env.action_space.seed(0)
    seen, _ = env.reset(seed=0)
    for _ in range(5):
        assert env.observation_space.contains(seen)
        for i in range(2):
            assert env.single_observation_space.contains(pick(seen, i))
        seen = env.step(env.action_space.sample())[0]
    assert env.action_space.contains(env.neutral_actions())


@pytest.mark.parametrize("view", VIEWS)
def test_every_scenario_stays_in_its_batched_spaces(shipped: str, view: ViewName) -> None:
    with closing(
        powergrid.make_vector(shipped, 2, view=view, autoreset_mode=AutoresetMode.NEXT_STEP, episode_length=2)
    ) as env:
        env.action_space.seed(0)
        seen, _ = env.reset(seed=0)
        for _ in range(4):
            assert env.observation_space.contains(seen)
            seen, rewards, *_ = env.step(env.action_space.sample())
        assert rewards.shape == ((2,) if view == "central" else (2, len(env.possible_agents)))


@by_mode
def test_gymnasiums_vector_wrappers_work_on_it_as_on_gymnasiums_own(
    make: Callable[..., Any], mode: AutoresetMode
) -> None:
    def wrap(env: Any) -> Any:
        wrapped = RecordEpisodeStatistics(env)
        if mode is AutoresetMode.NEXT_STEP:  # Gymnasium's own wrappers of observations refuse the other
            wrapped = NormalizeObservation(wrapped)
        return DictInfoToList(ClipReward(wrapped, -1e9, 1e9))

    keys: dict[str, Any] = {"scenario": "ieee13_voltvar", "episode_length": 4}
    ours = wrap(make(num_envs=3, view="central", autoreset_mode=mode, **keys))
    theirs = wrap(SyncVectorEnv([lambda: powergrid.make_central(**keys)] * 3, autoreset_mode=mode))
    ours.reset(seed=0)
    theirs.reset(seed=0)
    episodes = []
    for _ in range(10):
        actions = ours.action_space.sample()
        (seen, *_, infos), (others, *_, told) = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(seen, others, atol=1e-5)
        mine, own = ([each["episode"] for each in step if "episode" in each] for step in (infos, told))
        assert [each["r"] for each in mine] == pytest.approx([each["r"] for each in own])
        assert [each["l"] for each in mine] == [each["l"] for each in own]
        episodes += mine
    assert len(episodes) == 6
    theirs.close()


@pytest.mark.parametrize("view", VIEWS)
def test_a_moment_knows_which_environments_start_next(make: Callable[..., Any], view: ViewName) -> None:
    env = make("ieee13_mg", 2, view=view, autoreset_mode=AutoresetMode.NEXT_STEP, episode_length=2)
    env.reset(seed=0)
    actions = env.neutral_actions()
    env.step(actions)
    assert env.step(actions)[3].all()
    moment = env.get_state()
    after = env.step(actions)[:4]
    assert not after[1].any()
    env.reset(seed=5)
    env.set_state(moment)
    np.testing.assert_equal(env.step(actions)[:4], after)


def test_a_mode_that_is_none_is_told() -> None:
    with pytest.raises(ScenarioError) as raised:
        powergrid.make_vector("ieee13_mg", 0, autoreset_mode="next")  # type: ignore[call-overload]
    assert len(raised.value.problems) == 2
