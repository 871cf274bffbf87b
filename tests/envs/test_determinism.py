"""Equal seeds give equal bits, wherever and after whatever; different seeds, workers and environments do not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.rllib.env.env_context import EnvContext

import powergrid
from powergrid.envs import GridTask, NetworkedGridEnv
from tests.envs.worlds import digest, every_kind, fill_actions, play, shaky

MakeEnv = Callable[..., NetworkedGridEnv]
ROOT = Path(__file__).parents[2]

CHILD = """
import powergrid
from tests.envs.worlds import digest, play

env = powergrid.make({scenario!r})
print(digest(play(env, seed=11)), digest(play(env, steps=20)))
env.close()
"""


def draw_days(env: Any, seed: int | None, episodes: int = 6) -> list[int]:
    """Reset several times, with a seed the first time; give the days."""
    infos = [env.reset(seed=seed if i == 0 else None)[1] for i in range(episodes)]
    return [next(iter(info.values()))["day"] for info in infos]


def test_trajectory_same_seed_is_bitwise_equal_in_another_environment(
    shipped: str, mode: str, make_env: MakeEnv
) -> None:
    first = digest(play(make_env(shipped, mode=mode), seed=3))
    other = make_env("ieee13_mg", load_scale=0.7)
    list(play(other, seed=8, steps=30))
    assert digest(play(make_env(shipped, mode=mode), seed=3)) == first
    assert digest(play(make_env(shipped, mode=mode), seed=4)) != first


def test_trajectory_after_other_episodes_is_bitwise_equal(
    every_kind_scenario: dict[str, Any], make_env: MakeEnv
) -> None:
    env = make_env(every_kind_scenario)
    first = digest(play(env, seed=3))
    list(play(env, seed=8, steps=41, actions=9))  # ends in the middle of a day, switchgear moved
    other = make_env(every_kind_scenario)
    list(play(other, seed=5, steps=7))
    assert digest(play(env, seed=3)) == first
    assert digest(play(other, seed=3)) == first


def test_trajectory_interleaved_with_another_environment_is_bitwise_equal(make_env: MakeEnv) -> None:
    alone = [digest(iter([moment])) for moment in play(make_env(), seed=3, steps=40)]
    one, two = play(make_env(), seed=3, steps=40), play(make_env(load_scale=0.8), seed=9, steps=40)
    assert [digest(iter([a])) for a, _ in zip(one, two, strict=True)] == alone


def test_trajectory_after_a_divergence_is_bitwise_equal_to_a_fresh_one(make_env: MakeEnv) -> None:
    env = make_env(shaky())
    env.reset(seed=1)
    assert env.step(fill_actions(env, 1.0))[2] == {"__all__": True}
    fresh = make_env(shaky())
    idle = fill_actions(env, 0.0)
    for seed in (1, None):
        (seen, infos), (expected, expected_infos) = env.reset(seed=seed), fresh.reset(seed=seed)
        assert infos == expected_infos
        for _ in range(5):
            for agent in env.agents:
                np.testing.assert_array_equal(seen[agent], expected[agent])
            (seen, rewards, *_, infos), (expected, expected_rewards, *_, expected_infos) = (
                env.step(idle),
                fresh.step(idle),
            )
            assert rewards == expected_rewards
            assert infos == expected_infos


def test_trajectory_in_four_processes_is_bitwise_equal(make_env: MakeEnv, tmp_path: Path) -> None:
    scenarios: list[Any] = ["ieee13_mg", every_kind("ieee13", tmp_path)]
    children = []
    for number, scenario in enumerate(scenarios * 2):
        surroundings = os.environ | {"PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": str(1 + number // 2)}
        command = [sys.executable, "-c", CHILD.format(scenario=scenario)]
        children.append(subprocess.Popen(command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, text=True))
    outputs = [child.communicate(timeout=120)[0].split() for child in children]
    for scenario, *found in zip(scenarios, outputs[:2], outputs[2:], strict=True):
        env = make_env(scenario)
        expected = [digest(play(env, seed=11)), digest(play(env, steps=20))]
        assert found == [expected, expected]  # PettingZoo's environment there, RLlib's here


def test_reset_without_seed_goes_on_with_the_stream(make_env: MakeEnv) -> None:
    env = make_env()
    days = draw_days(env, 5, episodes=20)
    assert len(set(days)) > 12
    assert draw_days(env, 5, episodes=20) == days
    assert draw_days(env, 6, episodes=20) != days


def test_scenario_seed_starts_the_first_reset_only(make_env: MakeEnv) -> None:
    days = draw_days(make_env(seed=5), None)
    assert days == draw_days(make_env(), 5)
    env = make_env(seed=5)
    assert draw_days(env, None) == days
    assert draw_days(env, None) != days  # goes on
    assert draw_days(make_env(seed=5), 6) == draw_days(make_env(), 6) != days


def test_reset_without_any_seed_differs_from_run_to_run(make_env: MakeEnv) -> None:
    assert draw_days(make_env(), None) != draw_days(make_env(), None)


def test_split_draws_days_of_its_own(make_env: MakeEnv) -> None:
    drawn = {split: set(draw_days(make_env(split=split), 0, 30)) for split in ("train", "validation", "test")}
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]


@pytest.mark.parametrize("day", [0, 7, 364, np.int64(7), np.int32(7)])
def test_reset_day_given_plays_that_day_of_any_split(day: Any, make_env: MakeEnv) -> None:
    env = make_env()
    _, infos = env.reset(seed=0, options={"day": day})
    assert infos["MG1"]["day"] == int(day)
    assert type(infos["MG1"]["day"]) is int


def make_workers(seed: int | None, workers: int = 3, envs: int = 3) -> list[list[int]]:
    """Make and seed environments as RLlib does, environment i of worker w with seed + w + i; give their days."""
    days = []
    for worker in range(workers):
        context = EnvContext({"env_name": "ieee13_mg"}, worker_index=worker, num_workers=workers - 1)
        group = [NetworkedGridEnv(context) for _ in range(envs)]
        days += [draw_days(env, 42 if seed is None else seed + worker + i, episodes=8) for i, env in enumerate(group)]
        for env in group:
            env.close()
    return days


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_rllib_workers_play_independent_streams(seed: int | None) -> None:
    """None stands for an unseeded run, in which RLlib's environment check resets all with 42."""
    days = make_workers(seed)
    assert len({tuple(stream) for stream in days}) == len(days)
    shared = [sum(a == b for a, b in zip(one, two, strict=True)) for i, one in enumerate(days) for two in days[:i]]
    assert max(shared) <= 3  # eight draws out of 260 days
    assert make_workers(seed) == days


def assert_close(now: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Equal but for the last bits: sums of matrices of other shapes are rounded in another order."""
    np.testing.assert_allclose(now, expected, rtol=tolerance, atol=tolerance)


def test_task_of_several_environments_equals_single_ones(tmp_path: Path) -> None:
    """Batched or alone, in lockstep or not: each environment plays as if the others were not there."""
    scenario = powergrid.load_scenario(every_kind("ieee13", tmp_path))
    rng = np.random.default_rng(0)
    batch, singles = GridTask(scenario, 3), [GridTask(scenario) for _ in range(3)]
    streams = [[np.random.default_rng(i) for i in range(3)] for _ in range(2)]
    actions = batch.simulation.actions
    for env in range(3):
        batch.reset(env, streams[0][env])
        singles[env].reset(0, streams[1][env])
    for step in range(130):
        positions = rng.integers(0, [max(spec.n, 1) for spec in actions], (3, len(actions)))
        action = np.where([spec.discrete for spec in actions], positions, rng.uniform(-1, 1, positions.shape))
        batch.action_buffer()[:] = action
        batch.step()
        rewards, truncated = batch.rewards.copy(), batch.truncated.copy()
        restarts = [env for env in range(3) if truncated[env] or step == 10 + 20 * env]
        infos = batch.infos().copy()
        for env in restarts:
            batch.reset(env, streams[0][env])
        for env, single in enumerate(singles):
            single.action_buffer()[:] = action[env]
            single.step()
            assert_close(single.rewards[0], rewards[env])
            assert_close(single.infos()[0], infos[env])
            assert single.truncated[0] == truncated[env]
            if env in restarts:
                single.reset(0, streams[1][env])
        later = batch.infos()
        for env, single in enumerate(singles):
            for seen, alone in zip(batch.observe(), single.observe(), strict=True):
                assert_close(seen[env], alone[0], 1e-6)
            assert_close(later[env], single.infos()[0])
    for task in (batch, *singles):
        task.close()
