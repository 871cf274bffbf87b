"""The central view of many environments: what Gymnasium's own vector environment does with single ones."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import powergrid
from powergrid.errors import ActionError, ScenarioError
from powergrid.scenario import load_scenario
from tests.envs.worlds import every_kind

FORMS = ["auto", "multidiscrete", "box", "mixed"]
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]


@pytest.fixture
def close() -> Iterator[Any]:
    """Close what is made."""
    made: list[Any] = []

    def keep(env: Any) -> Any:
        made.append(env)
        return env

    yield keep
    for env in made:
        env.close()


def both(close: Any, scenario: Any, n: int, mode: AutoresetMode, **keys: Any) -> tuple[Any, Any]:
    """Make the batched environment and Gymnasium's own of as many single ones."""
    ours = close(powergrid.make_vector(scenario, n, view="central", autoreset_mode=mode, **keys))
    single = {key: value for key, value in keys.items() if key in ("actions", "levels")}
    makers = [lambda: powergrid.make_central(scenario, **single) for _ in range(n)]
    return ours, close(SyncVectorEnv(makers, autoreset_mode=mode))


def assert_alike(ours: Any, theirs: Any, where: str = "") -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in theirs.items():
            assert_alike(ours[key], value, f"{where}.{key}")
    elif theirs.dtype == object:
        assert all((a is None) == (b is None) for a, b in zip(ours, theirs, strict=True)), where
        for a, b in zip(ours, theirs, strict=True):
            if isinstance(b, np.ndarray):
                np.testing.assert_allclose(a, b, atol=2e-6, err_msg=where)
            else:
                assert a == b, where
    else:
        assert ours.shape == theirs.shape, where
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=2e-6, err_msg=where)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode.name))
@pytest.mark.parametrize(("scenario", "keys"), [("ieee13_mg", {}), ("every_kind", {}), ("ieee34_ieee13", {})])
def test_central_vector_plays_what_gymnasiums_own_plays(
    close: Any, tmp_path: Path, scenario: str, keys: dict[str, Any], mode: AutoresetMode
) -> None:
    source: Any = every_kind("ieee13", tmp_path) if scenario == "every_kind" else scenario
    ours, theirs = both(close, load_scenario(source, {"episode_length": 4}), 3, mode, **keys)
    assert isinstance(ours, VectorEnv)
    for space in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
        assert getattr(ours, space) == getattr(theirs, space)
    assert ours.metadata["autoreset_mode"] is mode
    for mine, own in zip(ours.reset(seed=5), theirs.reset(seed=5), strict=True):
        assert_alike(mine, own)
    ours.action_space.seed(0)
    for _ in range(11):
        actions = ours.action_space.sample()
        moment = ours.step(actions)
        for mine, own in zip(moment, theirs.step(actions), strict=True):
            assert_alike(mine, own)
        assert ours.observation_space.contains(moment[0])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_actions_is_read_as_the_single_one_is(close: Any, tmp_path: Path, form: Any) -> None:
    scenario = load_scenario(every_kind("ieee13", tmp_path), {"episode_length": 6})
    ours, theirs = both(close, scenario, 2, AutoresetMode.NEXT_STEP, actions=form, levels=5)
    assert ours.action_space == theirs.action_space
    ours.reset(seed=1)
    theirs.reset(seed=1)
    ours.action_space.seed(1)
    for _ in range(5):
        actions = ours.action_space.sample()
        for mine, own in zip(ours.step(actions)[:2], theirs.step(actions)[:2], strict=True):
            assert_alike(mine, own)
    neutral = ours.neutral_actions()
    assert ours.action_space.contains(neutral)
    for env, single in enumerate(theirs.envs):
        alone = single.unwrapped.neutral_action()
        picked = {key: part[env] for key, part in neutral.items()} if isinstance(neutral, dict) else neutral[env]
        for mine, own in zip(*(v.values() if isinstance(v, dict) else [v] for v in (picked, alone)), strict=True):
            np.testing.assert_allclose(mine, own, atol=1e-6)


def test_disabled_autoreset_leaves_resets_to_the_caller(close: Any) -> None:
    scenario = load_scenario("ieee13_voltvar", {"episode_length": 2})
    env = close(powergrid.make_vector(scenario, 2, view="central", autoreset_mode=AutoresetMode.DISABLED))
    env.reset(seed=0)
    neutral = env.neutral_actions()
    env.step(neutral)
    assert env.step(neutral)[3].all()
    with pytest.raises(ScenarioError, match="environments 0, 1 are over"):
        env.step(neutral)
    _, infos = env.reset(options={"reset_mask": np.array([True, False]), "day": 40})
    assert infos["day"].tolist() == [40, 0]
    assert infos["_day"].tolist() == [True, False]
    with pytest.raises(ScenarioError, match="environments 1 are over"):
        env.step(neutral)
    env.reset(options={"reset_mask": np.array([False, True])})
    env.step(neutral)


def test_wrong_actions_and_arguments_are_told(close: Any) -> None:
    with pytest.raises(ScenarioError) as raised:
        powergrid.make_vector("ieee13_voltvar", 0, view="central", actions="boxes", levels=1, backend="thread")
    assert len(raised.value.problems) == 4
    with pytest.raises(ScenarioError, match=r"unknown view 'centre'.*central"):
        powergrid.make_vector("ieee13_voltvar", 2, view="centre")  # type: ignore[call-overload]
    env = close(powergrid.make_vector("ieee13_voltvar", 2, view="central", actions="box"))
    with pytest.raises(ScenarioError, match=r"call reset\(\) before step\(\)"):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    actions = env.neutral_actions()
    actions[1, 0] = np.nan
    with pytest.raises(ActionError, match=r"environment 1: .*action\[0\] is nan"):
        env.step(actions)
    with pytest.raises(ActionError, match="do not have 2 environments first"):
        env.step(actions[:1])


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode.name))
def test_backends_play_the_same(close: Any, mode: AutoresetMode) -> None:
    scenario = load_scenario("ieee13_mg", {"episode_length": 3})
    inline = close(powergrid.make_vector(scenario, 3, view="central", autoreset_mode=mode))
    processes = close(
        powergrid.make_vector(scenario, 3, view="central", autoreset_mode=mode, backend="processes", workers=2)
    )
    envs = [inline, processes, close(pickle.loads(pickle.dumps(inline)))]
    first, *others = [env.reset(seed=2) for env in envs]
    assert all(data_equivalence(first, other, exact=True) for other in others)
    inline.action_space.seed(3)
    for _ in range(8):
        actions = inline.action_space.sample()
        first, *others = [env.step(actions) for env in envs]
        for other in others:
            for mine, own in zip(first, other, strict=True):
                assert_alike(mine, own)
                if isinstance(own, np.ndarray):
                    np.testing.assert_array_equal(mine, own)
