"""Costs that are kept to a limit: what they weigh, what is learnt from, and what is told where it does not go."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.training import algorithm_config, resume, train, tune
from powergrid.training.rllib.learning.limits import CostLimits
from powergrid.training.runs.checkpoints import read_state
from powergrid.training.runs.loop import rank_checkpoint
from powergrid.training.runs.session import RaySession, build_algorithm
from powergrid.training.runs.settings import make_settings
from tests.training.conftest import TINY, rows_of
from tests.training.toy import ToyGridEnv

SCENARIO = {"env_name": "ieee13_mg", "costs": {"of": ["node_hours"], "in_reward": False}}


class Costly(ToyGridEnv):
    """What an agent's first action is above 0 brings as much reward, and costs as much."""

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        seen, _, terminateds, truncateds, infos = super().step(actions)
        first = {agent: float(np.clip(action[0], -1.0, 1.0)) for agent, action in actions.items()}
        for agent, info in infos.items():
            info["cost"] = max(first[agent], 0.0)
        return seen, {agent: value / 50.0 for agent, value in first.items()}, terminateds, truncateds, infos


@pytest.fixture
def build(ray_session: None) -> Iterator:
    built: list[Any] = []

    def make(env_config: Any = None, env: Any = Costly, algorithm: str = "ppo", **settings: Any) -> Any:
        config = algorithm_config(env_config or {}, algorithm, env=env, **{**TINY, **settings})
        built.append(build_algorithm(config, RaySession(None)))
        return built[-1]

    yield make
    for algorithm in built:
        algorithm.stop()


def limits_of(algorithm: Any) -> CostLimits:
    found: CostLimits = algorithm.learner_group._learner.limits
    return found


def test_a_cost_weighs_more_while_it_is_above_its_limit_and_nothing_below(build: Any) -> None:
    algorithm = build(cost_limit=4.0, cost_lr=0.5)
    limits, weights = limits_of(algorithm), []
    for most in (4.0, 4.0, 1000.0, 1000.0, 1000.0):
        limits.limits["cost"] = most
        told = algorithm.train()["learners"]["__all_modules__"]
        before = weights[-1] if weights else 0.0
        change = 0.5 * min(told["episode_cost"]["cost"] / most - 1.0, 1.0)
        weights.append(told["multiplier"]["cost"])
        assert weights[-1] == pytest.approx(max(before + change, 0.0))
    assert weights[0] == 0.5  # twice the limit and more count as twice
    assert 0.5 < weights[1] > weights[2]
    assert weights[-1] == 0.0


def test_what_is_learnt_from_has_the_costs_taken_out(build: Any) -> None:
    algorithm = build(cost_limit=2.0)
    limits = limits_of(algorithm)
    limits.multipliers["cost"], limits.lr = 3.0, 0.0
    episodes = algorithm.env_runner.sample(num_timesteps=384)
    before = [np.array(own.get_rewards()) for episode in episodes for own in episode.agent_episodes.values()]
    costs = [
        np.array([info["cost"] for info in own.get_infos()[1:]])
        for episode in episodes
        for own in episode.agent_episodes.values()
    ]
    told = limits.take(episodes)
    after = [np.array(own.get_rewards()) for episode in episodes for own in episode.agent_episodes.values()]
    for was, cost, now in zip(before, costs, after, strict=True):
        assert now == pytest.approx((was - 3.0 * cost / 2.0) / 4.0)
    assert told["cost"] == pytest.approx(sum(map(np.sum, costs)) / len(episodes))  # whole days of all agents


@pytest.mark.parametrize("fragment", [96, 40])
def test_powergrids_runner_tells_costs_as_infos_do(build: Any, fragment: int) -> None:
    how = {"num_envs_per_env_runner": 2, "cost_limit": {"node_hours": 1.0}, "cost_lr": 0.1, "hidden": [8]}
    told = []
    for runner in ("grid", "stock"):
        algorithm = build(SCENARIO, env=None, env_runner=runner, **how)
        limits, weights = limits_of(algorithm), []
        for _ in range(2 if fragment == 96 else 5):
            episodes = algorithm.env_runner.sample(num_timesteps=2 * fragment)
            costs = limits.take(episodes)
            weights.append(dict(limits.multipliers))
            assert bool(costs) == (fragment == 96 or len(weights) > 2)  # no day has ended before
        told.append(weights)
        assert all("costs" not in own.extra_model_outputs for e in episodes for own in e.agent_episodes.values())
    assert told[0][-1]["cost_node_hours"] > 0.0
    if fragment == 96:  # else they act by other draws
        assert told[0][0] == told[1][0]


@pytest.mark.slow
def test_costs_come_from_runners_in_other_processes(build: Any) -> None:
    """Two days of each of two processes: what they cost is what those say who counted them there."""
    how = {"num_env_runners": 2, "num_envs_per_env_runner": 2, "cost_limit": {"node_hours": 1.0}, "cost_lr": 0.1}
    result = build(SCENARIO, env=None, **how).train()
    told, counted = result["learners"]["__all_modules__"], result["env_runners"]["custom"]
    assert result["env_runners"]["num_episodes"] == 4
    whole = sum(counted[agent]["cost_node_hours"] for agent in ("MG1", "MG2"))
    assert told["episode_cost"]["cost_node_hours"] == pytest.approx(whole)
    assert told["multiplier"]["cost_node_hours"] == pytest.approx(0.1 * min(whole - 1.0, 1.0))
    assert whole > 1.0


def test_a_run_goes_on_with_what_costs_weigh(tmp_path: Path, ray_session: None) -> None:
    settings = {**TINY, "iterations": 2, "cost_limit": 1.0, "cost_lr": 0.07, "validate_every": 0}
    first = train({}, settings, env=Costly, out_dir=tmp_path, name="first")
    assert first.metrics["multiplier/cost"] == pytest.approx(0.14)
    assert read_state(first.latest)["best_excess"] == pytest.approx(first.metrics["episode_cost/cost"] - 1.0, rel=0.5)
    more = resume(first.folder, iterations=3)
    assert more.metrics["multiplier/cost"] == 0.07 + 0.07 + 0.07  # to the bit
    assert [row["multiplier/cost"] for row in rows_of(first.folder)] == ["0.07", "0.14", "0.21"]


@pytest.mark.parametrize("algorithm", ["ppo", "mappo"])
def test_a_restored_learner_goes_on_to_the_bit(build: Any, algorithm: str, tmp_path: Path) -> None:
    how = {"algorithm": algorithm, "cost_limit": 3.0, "seed": 5}
    one, other = build(**how), build(**{**how, "seed": 6})
    one.train()
    one.save_to_path(str(tmp_path / "moment"))
    other.restore_from_path(str(tmp_path / "moment"))
    assert limits_of(other).get_state() == limits_of(one).get_state()
    episodes = one.env_runner.sample(num_timesteps=384)
    told = [limits_of(each).take(copy.deepcopy(episodes)) for each in (one, other)]
    assert told[0] == told[1]
    assert limits_of(other).get_state() == limits_of(one).get_state()


def test_the_best_checkpoint_keeps_to_limits_before_it_brings_more() -> None:
    def rank(score: float, *costs: float) -> tuple[float, float]:
        agents = ("a", "b")
        metrics = {f"validation/{agent}/cost": cost for agent, cost in zip(agents, costs, strict=True)}
        metrics["validation/episode_return_mean"] = score
        return rank_checkpoint(metrics, {"cost": 4.0}, agents, validated=True)

    assert rank(1.0, 1.0, 2.0) > rank(0.5, 0.0, 0.0) > rank(9.0, 3.0, 2.0) > rank(10.0, 3.0, 3.0)
    assert rank(math.nan, 0.0, 0.0) == rank(1.0, math.nan, 0.0) < rank(-9.0, 50.0, 50.0)


def test_what_cannot_be_limited_is_told(tmp_path: Path) -> None:
    limits = {"cost_limit": {"node_hours": 2.0}}
    with pytest.raises(ScenarioError, match=r"tells no costs; add `costs: \{of: \[node_hours\], in_reward: false\}`"):
        train("ieee13_mg", limits, out_dir=tmp_path)
    with pytest.raises(ScenarioError, match=r"unknown cost 'branch_hours'.*node_hours"):
        train(SCENARIO, {"cost_limit": {"branch_hours": 2.0}}, out_dir=tmp_path)
    with pytest.raises(ScenarioError, match="`infos: terms` has them"):
        train({**SCENARIO, "infos": "none"}, limits, out_dir=tmp_path)
    with pytest.raises(ScenarioError, match="cost_limit: RLlib's own learner does not do that"):
        make_settings("ppo", {**limits, "learner": "stock"})
    with pytest.raises(ScenarioError, match="sac has no setting 'cost_limit'"):
        make_settings("sac", limits)
    with pytest.raises(ScenarioError, match="tuning ranks by return alone"):
        tune(SCENARIO, limits, out_dir=tmp_path)
    for wrong in (0.0, {"node_hours": -1.0}, {}):
        with pytest.raises(ScenarioError, match="cost_limit"):
            make_settings("ppo", {"cost_limit": wrong})
    assert list(tmp_path.iterdir()) == []


def test_infos_without_the_cost_are_told(build: Any) -> None:
    algorithm = build(env=ToyGridEnv, cost_limit=1.0)
    with pytest.raises(PowerGridError, match=r"infos of agent MG\d have no 'cost'"):
        algorithm.train()


@pytest.mark.slow
def test_a_limit_that_ppo_breaks_is_kept_to(tmp_path: Path, ray_session: None) -> None:
    how = {**TINY, "iterations": 60, "lr": 5e-3, "validate_every": 5, "cost_lr": 0.05, "seed": 0}
    limited = {"cost_limit": 20.0}
    reached = []
    for name, more in (("free", {}), ("limited", limited)):
        run = train({}, {**how, **more}, env=Costly, out_dir=tmp_path, name=name)
        row = rows_of(run.folder)[-1]
        reached.append(sum(float(row[f"validation/{agent}/cost"]) for agent in ("MG1", "MG2")))
    assert reached[0] > 100.0  # of 192 that there are
    assert reached[1] < 25.0
    assert read_state(run.best)["best_excess"] == 0.0
