"""Moments of every face: kept, gone back to, copied and pickled; what follows is the same to the bit."""

from __future__ import annotations

import copy
import pickle
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import powergrid
from powergrid.envs import CentralVectorEnv, GridVectorEnv, NetworkedGridEnv
from powergrid.errors import ScenarioError
from tests.envs.conftest import close_after

FACES: dict[str, Callable[..., Any]] = {
    "networked": lambda scenario, **keys: NetworkedGridEnv({"env_name": scenario, **keys}),
    "parallel": powergrid.make,
    "central": powergrid.make_central,
    "vector": lambda scenario, **keys: GridVectorEnv(powergrid.load_scenario(scenario, keys), 2),
    "processes": lambda scenario, **keys: GridVectorEnv(
        powergrid.load_scenario(scenario, keys), 2, backend="processes", workers=2
    ),
    "central vector": lambda scenario, **keys: CentralVectorEnv(powergrid.load_scenario(scenario, keys), 2),
    "central vector, same step": lambda scenario, **keys: CentralVectorEnv(
        powergrid.load_scenario(scenario, keys), 2, autoreset_mode=AutoresetMode.SAME_STEP
    ),
}
EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = {"episode_length": 6}


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    """Make an environment of a face; it is closed at the end."""
    yield from close_after(lambda face, scenario="ieee13_mg", **keys: FACES[face](scenario, **keys))


def draw(env: Any, rng: np.random.Generator) -> Any:
    """Draw an action of whatever form the face takes."""
    space = spaces.Dict(env.action_spaces) if hasattr(env, "action_spaces") else env.action_space
    space.seed(int(rng.integers(1 << 30)))
    return space.sample()


def plain(given: Any) -> Any:
    """Turn whatever an environment gave into nested tuples of bytes and values, to be compared to the bit."""
    if isinstance(given, dict):
        return tuple((name, plain(value)) for name, value in given.items())
    if isinstance(given, list | tuple):
        return tuple(map(plain, given))
    if isinstance(given, np.ndarray):
        return plain(given.tolist()) if given.dtype == object else (given.shape, given.tobytes())
    return given


def play(env: Any, n_steps: int, seed: int) -> list[Any]:
    """Play some steps by drawn actions, starting anew where an episode is over, and return all that came."""
    rng, told = np.random.default_rng(seed), []
    for _ in range(n_steps):
        told.append(plain(env.step(draw(env, rng))))
        ended = hasattr(env, "_episode") and not env._episode.playing
        told.append(plain(env.reset()) if ended else None)
    return told


#: What moves state beside the grid: late and lost readings and setpoints, drawn numbers, events, positions that rest.
UNSTEADY: dict[str, Any] = {
    "telemetry": {
        "readings": {"all": {"delay_minutes": 30, "loss": 0.3, "on_loss": "both", "noise": 0.02, "age": True}},
        "setpoints": {"all": {"delay_minutes": 15, "loss": 0.2, "fallback": "neutral"}},
    },
    "load_scale": {"uniform": [0.8, 1.2]},
    "events": {"cloud": {"kind": "pv_step", "factor": 0.2, "rate_per_day": 40.0, "duration_steps": [1, 3]}},
}


@pytest.fixture(scope="module")
def pairs() -> Iterator[dict[str, tuple[Any, Any]]]:
    """Two environments of some faces, in which much is drawn."""
    made = {face: [FACES[face]("ieee13_mg", **SHORT, **UNSTEADY) for _ in range(2)] for face in ("parallel", "vector")}
    yield {face: (one, other) for face, (one, other) in made.items()}
    for own in made.values():
        for env in own:
            env.close()


@given(
    face=st.sampled_from(["parallel", "vector"]),
    seeds=st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
    steps=st.tuples(*[st.integers(0, 14)] * 3),
)
@settings(max_examples=40)
def test_a_state_is_the_moment_wherever_and_whenever_it_is_put_back(
    pairs: dict[str, tuple[Any, Any]], face: str, seeds: tuple[int, int], steps: tuple[int, int, int]
) -> None:
    """Taken after any number of steps and put back after any others, there and in another environment."""
    (env, other), (before, aside, after) = pairs[face], steps
    env.reset(seed=seeds[0])
    other.reset(seed=seeds[1])
    play(env, before, seeds[0] % 1000)
    kept = env.get_state()
    followed = play(env, after, 1)
    play(other, aside, 2)
    seen = plain(other.set_state(kept))
    assert play(other, after, 1) == followed
    assert plain(env.set_state(kept)) == seen
    assert play(env, after, 1) == followed


@pytest.mark.parametrize("face", FACES)
def test_a_branch_played_twice_is_the_same_and_the_trunk_untouched(face: str, make: Any) -> None:
    env, other = make(face, **SHORT), make(face, **SHORT)
    env.reset(seed=3)
    other.reset(seed=3)
    assert play(env, 4, 1) == play(other, 4, 1)
    kept = env.get_state()
    branch = play(env, 9, 2)  # beyond the end: the next day is drawn, too
    env.set_state(kept)
    assert play(env, 9, 2) == branch
    seen = env.set_state(kept)
    assert plain(seen) == plain(other.set_state(pickle.loads(pickle.dumps(kept))))
    assert play(env, 9, 5) == play(other, 9, 5)  # the trunk goes on as if there had been no branch


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("again", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env)), lambda env: env.clone()])
def test_copies_carry_the_episode(face: str, again: Callable[[Any], Any], make: Any) -> None:
    if face == "processes" and again is not copy.deepcopy:
        pytest.skip("one way is enough for workers")
    env = make(face, **SHORT)
    env.reset(seed=3)
    play(env, 2, 1)
    twin = again(env)
    try:
        assert type(twin) is type(env)
        assert getattr(twin, "agents", None) == getattr(env, "agents", None)
        followed = play(twin, 8, 2)
        assert play(env, 8, 2) == followed
    finally:
        twin.close()


def test_state_goes_to_an_environment_of_another_split_and_reward(make: Any) -> None:
    env, model = make("central"), make("central", split="train", **{"reward.scale": 1.0})
    env.reset(seed=0, options={"day": 3})
    play(env, 3, 0)
    observation, info = model.set_state(env.get_state())
    assert info["day"] == 3
    np.testing.assert_array_equal(observation, env.set_state(env.get_state())[0])


def test_several_feeders_return_to_the_one_that_was_played(make: Any) -> None:
    env = make("networked", feeders=["ieee13", "ieee34"], placement={"rule": "load"}, infos="full", **SHORT)
    env.reset(seed=0, options={"feeder": "ieee34"})
    play(env, 2, 0)
    kept = env.get_state()
    followed = play(env, 9, 1)
    env.reset(options={"feeder": "ieee13"})
    _, infos = env.set_state(kept)
    assert infos["MG1"]["feeder"] == "ieee34"
    assert play(env, 9, 1) == followed


def test_a_state_that_does_not_fit_is_refused_with_the_remedy(make: Any) -> None:
    env, other, shorter = make("parallel"), make("parallel", "ieee34_mg"), make("parallel", **SHORT)
    for each in (env, other, shorter):
        each.reset(seed=0)
    before = plain(env.set_state(env.get_state()))
    for wrong in (other.get_state(), shorter.get_state()):
        with pytest.raises(ScenarioError, match="the state is of another scenario, feeder or size; build"):
            env.set_state(wrong)
    with pytest.raises(ScenarioError, match="dict given; take what get_state"):
        env.set_state({})
    assert plain(env.set_state(env.get_state())) == before
    larger = make("parallel", **{"devices.ess_1.e_max_kwh": 9000.0})
    larger.set_ranges({"load_scale": 1.1})
    with pytest.raises(ScenarioError, match="the state is of another scenario"):
        larger.set_state(env.get_state())
    larger.reset(seed=0)
    assert larger.get_state().ranges == {"load_scale": 1.1}  # nothing is changed by what is refused
    two, three = make("vector"), FACES["vector"]("ieee13_mg")
    three.close()
    two.reset(seed=0)
    with pytest.raises(ScenarioError, match="EpisodeState given; take what"):
        two.set_state(env.get_state())
    with pytest.raises(ScenarioError, match="closed"):
        three.get_state()
    processes = make("processes")
    processes.reset(seed=0)
    with pytest.raises(ScenarioError, match="2 environments in 2 parts and 2 environments in 1 parts; build"):
        two.set_state(processes.get_state())


@pytest.mark.parametrize("face", ["networked", "central", "vector", "central vector"])
@pytest.mark.parametrize("feeders", [["ieee13"], ["ieee13", "ieee34"]], ids=["one", "two"])
def test_a_reset_that_is_refused_changes_nothing(make: Any, face: str, feeders: list[str]) -> None:
    several = {"feeders": feeders, "placement": {"rule": "load"}} if len(feeders) > 1 else {}
    env, same = (make(face, load_scale={"uniform": [0.8, 1.2]}, **SHORT, **several) for _ in range(2))
    for each in (env, same):
        each.reset(seed=4)
        play(each, 2, 0)
    for wrong in ({"day": 999}, {"load_scale": -1.0}, {"dya": 3}, {"feeder": "ieee37"}):
        for seed in (9, None, -1):
            with pytest.raises(ScenarioError):
                env.reset(seed=seed, options=wrong)
    assert play(env, 9, 1) == play(same, 9, 1)


@pytest.mark.parametrize("face", ["parallel", "vector"])
def test_states_of_one_feeder_and_of_several_do_not_fit_each_other(make: Any, face: str) -> None:
    one, several = make(face, "ieee34_mg"), make(face, feeders=["ieee13", "ieee34"], placement={"rule": "load"})
    one.reset(seed=0)
    several.reset(seed=0)
    before = plain(several.set_state(several.get_state()))
    for env, other in ((one, several), (several, one)):
        with pytest.raises(ScenarioError, match="the state is of another scenario, feeder or size; build"):
            env.set_state(other.get_state())
    assert plain(several.set_state(several.get_state())) == before


@pytest.mark.parametrize(
    ("name", "scenario", "n_steps"), [("tree_search", "ieee13_voltvar", 18), ("shooting", "ieee13_mg", 6)]
)
def test_examples_that_plan_do_better_than_to_leave_devices(name: str, scenario: str, n_steps: int) -> None:
    example = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    planned, left = example["play"](scenario, n_steps)
    assert planned > left
