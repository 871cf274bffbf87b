"""Several feeders in lockstep: what each environment plays is what it would play alone, bit for bit, on every face."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import powergrid
from powergrid.envs import GridVectorEnv, NetworkedGridEnv
from powergrid.errors import ScenarioError
from tests.envs.conftest import close_after

Make = Callable[..., Any]
KEYS: dict[str, Any] = {
    "feeders": {"ieee13": 3, "ieee34": 1}, "placement": {"rule": "load"}, "infos": "full", "episode_length": 4,
}  # fmt: skip
N = 3


@pytest.fixture
def make() -> Iterator[Make]:
    """Make many environments of several feeders; they are closed at the end."""

    def build(face: str, **keys: Any) -> Any:
        if face == "alone":
            return NetworkedGridEnv({"env_name": "ieee13_mg", **KEYS})
        if face == "central":
            return powergrid.make_central("ieee13_mg", **KEYS, **keys)
        n = keys.pop("n", N)
        return powergrid.make_vector("ieee13_mg", n, view=face, **KEYS, **keys)

    yield from close_after(build)


def draw(env: GridVectorEnv, rng: np.random.Generator) -> dict[str, Any]:
    spaces = env.single_action_space.items()
    return {name: rng.uniform(-1.0, 1.0, (env.num_envs, *space.shape)).astype(np.float32) for name, space in spaces}


def feeders(env: GridVectorEnv) -> list[str]:
    return [str(env.info_dicts(i)["MG1"]["feeder"]) for i in range(env.num_envs)]


@pytest.mark.parametrize("backend", ["inline", "processes"])
def test_many_environments_play_what_each_plays_alone(make: Make, backend: str) -> None:
    several = make("agents", backend=backend, **({"workers": 2} if backend == "processes" else {}))
    alone, rng, played = [make("alone") for _ in range(N)], np.random.default_rng(0), list[list[str]]()
    seen, _ = several.reset(seed=3)
    for i, env in enumerate(alone):
        first = env.reset(seed=3 + i)[0]
        assert all(np.array_equal(first[agent], seen[agent][i]) for agent in first)
    for _ in range(14):
        played.append(feeders(several))
        actions = draw(several, rng)
        seen, rewards, _, truncated, final = several.step(actions)
        infos = final.get("final_info", several.infos())
        for i, env in enumerate(alone):
            own, paid, _, over, told = env.step({agent: action[i] for agent, action in actions.items()})
            assert over["__all__"] == truncated[i]
            for a, agent in enumerate(own):
                assert np.array_equal((final["final_obs"] if truncated[i] else seen)[agent][i], own[agent])
                assert rewards[i, a] == paid[agent]
                for column, name in enumerate(several.info_names):
                    assert infos[i, a, column] == told[agent].get(name, 0.0), name
            if truncated[i]:
                env.reset()
            else:
                assert several.info_dicts(i) == told
        for agent, neutral in several.neutral_actions().items():
            assert np.array_equal(neutral, np.stack([env.neutral_actions()[agent] for env in alone]))
    assert any(len(set(own)) == 2 for own in zip(*played, strict=True))  # some went from one feeder to the other


def test_more_draws_of_a_feeder_than_expected_are_played_all_the_same(make: Make) -> None:
    several = make("agents", n=6)
    several.reset(seed=0)
    alike, _ = several.reset(seed=0, options={"feeder": "ieee34", "day": 9})
    assert feeders(several) == ["ieee34"] * 6
    assert all(np.ptp(seen, axis=0).max() == 0.0 for seen in alike.values())  # one day of one feeder six times
    with pytest.raises(ScenarioError, match="unknown feeder 'ieee37'"):
        several.reset(options={"feeder": "ieee37"})


def test_moments_of_several_feeders_are_kept_copied_and_pickled(make: Make) -> None:
    several, rng = make("agents"), np.random.default_rng(1)
    several.reset(seed=3)
    several.step(draw(several, rng))
    kept, coming = pickle.loads(pickle.dumps(several.get_state())), [draw(several, rng) for _ in range(9)]
    twin = copy.deepcopy(several)
    try:
        paths = []
        for env in (several, twin):
            paths.append([env.step(actions) for actions in coming])
            env.set_state(kept)
            paths.append([env.step(actions) for actions in coming])
    finally:
        twin.close()
    first, *others = paths
    for other in others:
        for (seen, rewards, *ends), (again, paid, *over) in zip(first, other, strict=True):
            assert all(np.array_equal(seen[agent], again[agent]) for agent in seen)
            assert np.array_equal(rewards, paid)
            assert np.array_equal(ends[1], over[1])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_one_controller_sees_feeders_of_any_size_in_one_space(make: Make, mode: AutoresetMode) -> None:
    many = powergrid.make_vector("ieee13_mg", N, view="central", autoreset_mode=mode, observations="full", **KEYS)
    alone = [make("central", observations="full") for _ in range(N)]
    try:
        seen, infos = many.reset(seed=3)
        waiting = [False] * N
        for i, env in enumerate(alone):
            own, told = env.reset(seed=3 + i)
            assert np.array_equal(own, seen[i])
            assert (seen[i, told["observed"] :] == 0.0).all()
            assert told["observed"] == infos["observed"][i]
        assert len(set(infos["observed"].tolist())) == 2
        for _ in range(10):
            actions = many.action_space.sample()
            seen, rewards, _, _, infos = many.step(actions)
            for i, env in enumerate(alone):
                if waiting[i] and mode is AutoresetMode.NEXT_STEP:
                    (own, told), paid, waiting[i] = env.reset(), 0.0, False
                else:
                    own, paid, _, waiting[i], told = env.step(actions[i])
                    if waiting[i] and mode is AutoresetMode.SAME_STEP:
                        assert np.array_equal(infos["final_obs"][i], own)
                        assert all(infos["final_info"][name][i] == told[name] for name in ("feeder", "observed"))
                        own, told = env.reset()
                assert np.array_equal(own, seen[i])
                assert paid == rewards[i]
                assert {name: infos[name][i] for name in told} == told
    finally:
        many.close()
