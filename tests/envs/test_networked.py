"""NetworkedGridEnv as RLlib sees it: ends of episodes, divergence, pickling, closing, subclassing, memory."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.rllib.env.env_context import EnvContext

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ActionError, ConvergenceError, ScenarioError
from tests.envs.worlds import Moment, all_that_moves, digest, draw_actions, every_kind, fill_actions, play, shaky

MakeEnv = Callable[..., NetworkedGridEnv]


class CustomEnv(NetworkedGridEnv):
    """As the training guide has it."""

    def step(self, actions):  # type: ignore[no-untyped-def]
        obs, rewards, terms, truncs, infos = super().step(actions)

        # Add custom metrics
        for agent_id in self.agents:
            infos[agent_id]["voltage_violations"] = self.count_violations()
            infos[agent_id]["energy_cost"] = self.compute_cost()

        return obs, rewards, terms, truncs, infos


def test_subclass_that_adds_metrics_finds_every_agent_at_every_step() -> None:
    env = CustomEnv({"env_name": "ieee13_mg", "mode": "distributed"})
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(96):
        _, _, _, truncateds, infos = env.step(draw_actions(env, rng))
        for info in infos.values():
            assert info["voltage_violations"] == env.count_violations() == info["network_violations"]
            assert info["energy_cost"] == env.compute_cost()
    assert truncateds == {"__all__": True}
    copy = pickle.loads(pickle.dumps(env))
    assert type(copy) is CustomEnv
    copy.close()
    env.close()


def test_episode_shorter_than_a_day_ends_at_its_length(make_env: MakeEnv) -> None:
    env = make_env(episode_length=4)
    flags = [moment.truncateds for moment in play(env, seed=0, steps=4)]
    assert flags == [{}, *[{"__all__": False}] * 3, {"__all__": True}]


def test_episode_of_two_days_goes_on_past_midnight(make_env: MakeEnv) -> None:
    env = make_env(episode_length=48, step_minutes=60, split="all")
    truncateds: Any = {}
    for t, (_, _, _, truncateds, _) in enumerate(play(env, seed=0, steps=48, options={"day": 3})):  # noqa: B007
        price, demand = env.task.channels.values[0, [4, 11]]
        hour = 3 * 24 + min(t, 47)
        assert price == env.task.simulation.profiles.price_usd_per_kwh["time_of_use"][hour]
        assert demand > 0
    assert truncateds == {"__all__": True}


def test_step_after_the_end_raises(make_env: MakeEnv) -> None:
    env = make_env(episode_length=1)
    list(play(env, seed=0, steps=1))
    with pytest.raises(ScenarioError, match=r"no episode is being played; call reset\(\) before step\(\)"):
        env.step(fill_actions(env, 0.0))
    list(play(env, steps=1))


# divergence ------------------------------------------------------------------------------------------------------


def test_divergence_policy_terminate_ends_the_episode_with_the_penalty(make_env: MakeEnv) -> None:
    env = make_env(shaky("terminate"))
    env.reset(seed=0)
    before = env.step(fill_actions(env, 0.0))
    observations, rewards, terminateds, truncateds, infos = env.step(fill_actions(env, 1.0))
    assert (terminateds, truncateds) == ({"__all__": True}, {"__all__": False})
    check_diverged(env, before, observations, rewards, infos)


def test_divergence_policy_hold_goes_on_from_the_last_good_state(make_env: MakeEnv) -> None:
    env = make_env(shaky("hold"))
    env.reset(seed=0)
    before = env.step(fill_actions(env, 0.0))
    for _ in range(3):
        observations, rewards, terminateds, truncateds, infos = env.step(fill_actions(env, 1.0))
        assert (terminateds, truncateds) == ({"__all__": False}, {"__all__": False})
        check_diverged(env, before, observations, rewards, infos)
    *_, infos = env.step(fill_actions(env, 0.0))
    assert infos["A"]["converged"] == 1.0
    assert infos["A"]["source_p_kw"] != before[4]["A"]["source_p_kw"]


def check_diverged(env: NetworkedGridEnv, before: Any, observations: Any, rewards: Any, infos: Any) -> None:
    """The grid's state is the last good one, the penalty is taken, nothing is NaN."""
    for agent, info in infos.items():
        assert env.observation_spaces[agent].contains(observations[agent])
        assert info["converged"] == 0.0
        for name in ("zone_v_min_pu", "source_p_kw", "network_losses_kw", "delivered_kw"):
            assert info[name] == before[4][agent][name]
        weighed = sum(info[term] * env.scenario.weight_of(term) for term in env.describe().rewards["term"])
        assert rewards[agent] == pytest.approx(-env.scenario.reward.scale * weighed - 7.0)
        assert all(np.isfinite(value) for value in info.values() if isinstance(value, float))


def test_divergence_policy_raise_says_where(make_env: MakeEnv) -> None:
    env = make_env(shaky("raise"))
    env.reset(seed=0, options={"day": 9})
    env.step(fill_actions(env, 0.0))
    with pytest.raises(
        ConvergenceError, match=r"feeder 'ieee13': the power flow did not converge in environment 0, day 9, step 1"
    ):
        env.step(fill_actions(env, 1.0))
    fresh = make_env(shaky("raise"))
    assert digest(idle(env)) == digest(idle(fresh))


def idle(env: NetworkedGridEnv) -> Any:
    observations, infos = env.reset(seed=3)
    yield Moment(observations, {}, {}, {}, infos)
    for _ in range(10):
        yield Moment(*env.step(fill_actions(env, 0.0)))


def test_divergence_at_the_last_step_is_termination_only(make_env: MakeEnv) -> None:
    env = make_env(shaky(episode_length=1))
    env.reset(seed=0)
    _, _, terminateds, truncateds, _ = env.step(fill_actions(env, 1.0))
    assert (terminateds, truncateds) == ({"__all__": True}, {"__all__": False})


# pickling, closing, memory ---------------------------------------------------------------------------------------


def test_pickle_of_an_environment_rebuilds_it(tmp_path: Path, make_env: MakeEnv) -> None:
    for env in (make_env("ieee13_mg", split="test"), make_env(every_kind("ieee13", tmp_path))):
        copy = pickle.loads(pickle.dumps(env))
        assert copy.scenario == env.scenario
        assert digest(play(copy, seed=4, steps=30)) == digest(play(env, seed=4, steps=30))
        copy.close()


def test_pickle_of_a_workers_environment_keeps_its_stream() -> None:
    context = EnvContext({"env_name": "ieee13_mg"}, worker_index=2)
    first, second = NetworkedGridEnv(context), NetworkedGridEnv(context)
    copy = pickle.loads(pickle.dumps(second))
    pickle.loads(pickle.dumps(context))
    assert digest(play(copy, seed=1, steps=3)) == digest(play(second, seed=1, steps=3))
    assert digest(play(first, seed=1, steps=3)) != digest(play(second, seed=1, steps=3))
    for env in (first, second, copy):
        env.close()


def test_close_twice_is_harmless(make_env: MakeEnv) -> None:
    env = make_env()
    env.close()
    env.close()
    with pytest.raises(ScenarioError, match="closed"):
        env.reset()


def test_count_violations_and_compute_cost_of_an_unknown_agent_name_the_known(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset(seed=0)
    for ask in (env.count_violations, env.compute_cost):
        with pytest.raises(ActionError, match=r"unknown agent 'MG3' \(did you mean 'MG2' or 'MG1'\?\)"):
            ask("MG3")


def read_rss_mb() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def measure_growth(config: dict[str, Any], steps: int, resets: int) -> float:
    """Return how much a process that plays so many steps grows after a warm-up [MB]."""
    env = NetworkedGridEnv(config | {"divergence": {"policy": "hold"}})
    rng = np.random.default_rng(0)
    actions = [draw_actions(env, rng) for _ in range(64)]
    env.reset(seed=0)

    def work(steps: int, resets: int) -> None:
        for reset in range(resets):
            env.reset()
            for step in range(steps // resets):
                if env.step(actions[(reset + step) % 64])[3]["__all__"]:
                    env.reset()

    work(1000, 20)
    before = read_rss_mb()
    work(steps, resets)
    return read_rss_mb() - before


def find_growth(world: str, folder: Path, steps: int, resets: int) -> float:
    """Measure it in a process of its own: what others freed would hide what this one keeps."""
    configs: dict[str, dict[str, Any]] = {
        "shipped": {"env_name": "ieee13_mg"},
        "every kind": {"scenario": every_kind("ieee13", folder)},
        "all that moves": {"scenario": all_that_moves()},
        "own controls": {"env_name": "ieee13_mg", "native_controls": True},
    }
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(measure_growth, configs[world], steps, resets).result()


WORLDS = pytest.mark.parametrize("world", ["shipped", "every kind", "all that moves", "own controls"])
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


@NEEDS_PROC
@WORLDS
def test_memory_over_3000_steps_and_60_resets_stays(world: str, tmp_path: Path) -> None:
    assert find_growth(world, tmp_path, 3000, 60) < 1.0


@pytest.mark.slow
@NEEDS_PROC
def test_memory_over_100000_steps_and_1000_resets_grows_less_than_5_mb(tmp_path: Path) -> None:
    assert find_growth("shipped", tmp_path, 100_000, 1000) < 5.0


@pytest.mark.slow
@NEEDS_PROC
@pytest.mark.parametrize("world", ["every kind", "all that moves", "own controls"])
def test_memory_grows_no_more_in_a_step_whatever_is_in_the_scenario(world: str, tmp_path: Path) -> None:
    assert find_growth(world, tmp_path, 25_000, 250) < 1.25
