"""Environments of one day meet the same sun, demand and draws, and advantages are what they got beyond their mean."""

from __future__ import annotations

import copy
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.rules import RuleBased
from powergrid.scenario import load_scenario
from powergrid.training import algorithm_config, train
from powergrid.training.rllib.learning.same_days import SAME_DAY, seeds_of_days, take_off_days
from powergrid.training.rllib.sampling.hard_days import play_days, weigh_days
from powergrid.training.runs.records import read_manifest
from powergrid.training.runs.session import RaySession, build_algorithm
from powergrid.training.runs.settings import make_settings

SMALL: dict[str, Any] = {
    "num_env_runners": 0, "num_envs_per_env_runner": 4, "envs_per_day": 2, "train_batch_size": 24,
    "minibatch_size": 24, "num_epochs": 1, "hidden": [8], "seed": 3,
}  # fmt: skip


def test_the_mean_of_a_day_is_taken_off_step_by_step_and_spreads_are_1() -> None:
    own = torch.tensor([1.0, 2.0, 3.0, 5.0, 8.0, 100.0, 7.0])
    take_off_days(own, [[slice(0, 2), slice(2, 5)], [slice(5, 6)], [slice(6, 7)]])
    # of 1, 2 and 3, 5, 8, whose day goes on alone in the third step; 100 and 7 have a day of their own
    before = torch.tensor([-1.0, -1.5, 1.0, 1.5, 0.0, 100.0, 7.0])
    torch.testing.assert_close(own, (before - before.mean()) / before.std())


def test_seeds_come_in_as_many_as_are_alike_and_differ_from_worker_to_worker() -> None:
    seeds = seeds_of_days(1, 0, 1, 7, 3)
    assert len(seeds) == 7
    assert seeds[0] == seeds[2] != seeds[3] == seeds[5] != seeds[6]
    assert not set(seeds) & set(seeds_of_days(1, 1, 1, 7, 3))
    assert not set(seeds) & set(seeds_of_days(1, 0, 2, 7, 3))
    assert max(seeds) < 2**31


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("algorithm", "policies", "network", "room"),
    [("ppo", "independent", {}, 4), ("mappo", "shared", {}, 4), ("ppo", "shared", {"network": "gru"}, 6)],
    ids=["independent", "mappo", "memory"],
)
def test_environments_of_a_day_begin_alike_and_their_advantages_cancel(
    algorithm: str, policies: str, network: dict[str, Any], room: int
) -> None:
    env_config = {"env_name": "ieee13_mg", "episode_length": 3, "outlook": {}}
    settings = {**SMALL, **network, "max_seq_len": 3, "policies": policies}
    built = build_algorithm(algorithm_config(env_config, algorithm, **settings), RaySession(None))
    try:
        sampled = built.env_runner.sample(num_timesteps=24, explore=True)
        days: dict[Any, list[Any]] = {}
        for episode in sampled:
            days.setdefault(episode.custom_data[SAME_DAY], []).append(episode)
        assert [len(own) for own in days.values()] == [2] * 4  # two days, and after three steps two more
        first = [own[0].get_observations(0)["MG1"] for own in days.values()]
        assert len({each.tobytes() for each in first}) == 4
        for one, other in days.values():
            for agent in ("MG1", "MG2"):
                np.testing.assert_array_equal(one.get_observations(0)[agent], other.get_observations(0)[agent])
                assert (one.get_actions(0)[agent] != other.get_actions(0)[agent]).any()
        learner = built.learner_group._learner
        batch = learner._learner_connector(
            rl_module=learner.module, batch={}, episodes=copy.deepcopy(sampled), shared_data={}, metrics=learner.metrics
        )
        for rows in batch.values():
            # episodes, agents, steps and RLlib's one behind them, and what pads them to two sequences
            advantages = rows["advantages"].reshape(8, -1, room)[..., :4]
            pairs = advantages[[0, 1, 4, 5]] + advantages[[1, 0, 5, 4]]
            assert float(advantages.std()) == pytest.approx(1.0, abs=0.01)
            assert float((pairs - pairs.mean()).abs().max()) < 1e-4
        assert all(np.isfinite(built.train()["learners"][each]["policy_loss"]) for each in built.config.policies)
    finally:
        built.stop()


def test_what_does_not_go_with_days_that_are_alike_is_told() -> None:
    with pytest.raises(ScenarioError, match="num_envs_per_env_runner 6 is no multiple of envs_per_day 4"):
        make_settings("ppo", {"envs_per_day": 4, "num_envs_per_env_runner": 6})
    with pytest.raises(ScenarioError, match="envs_per_day: RLlib's own runner and learner do not do that"):
        make_settings("ppo", {"envs_per_day": 4, "learner": "stock"})
    with pytest.raises(ScenarioError, match="sac has no setting 'envs_per_day'"):
        make_settings("sac", {"envs_per_day": 4})


def test_hard_days_are_those_on_which_the_rules_pay_and_are_drawn_as_often_as_asked() -> None:
    scenario = load_scenario("ieee13_mg", {"split": "validation"})
    hard = weigh_days(scenario, 0.5)
    assert len(hard) == 42
    assert np.mean(list(hard.values())) == pytest.approx(1.0, abs=1e-4)
    assert min(hard.values()) == 0.5  # the rules pay nothing there
    hardest = max(hard, key=hard.__getitem__)
    with closing(GridTask(scenario, 1)) as task:
        (played,) = play_days(task, RuleBased(), np.array([hardest]), seed=0)
        columns = [task.info_names.index(name) for name in ("voltage_violation_pu", "overload_pu")]
        paid = played.infos[0, columns] @ [scenario.weight_of(task.info_names[column]) for column in columns]
    assert paid > 100.0  # USD


def test_weights_of_days_go_into_the_configuration_and_the_scenarios_own_stay() -> None:
    config = algorithm_config({"env_name": "ieee13_mg", "split": "validation"}, **SMALL, hard_days=0.5)
    assert len(config.env_config["day_weights"]) == 42
    own = {"env_name": "ieee13_mg", "day_weights": {3: 2.0}}
    assert algorithm_config(own, **SMALL, hard_days=0.5).env_config["day_weights"] == {3: 2.0}
    several = {"env_name": "ieee13_mg", "feeders": ["ieee13"], "observations": "summary"}
    with pytest.raises(ScenarioError, match="hard_days: days are hard by feeder"):
        algorithm_config(several, **SMALL, hard_days=0.5)


def test_a_run_keeps_the_weights_of_its_days(ray_session: None, tmp_path: Path) -> None:
    config = {"env_name": "ieee13_mg", "split": "validation", "episode_length": 8, "start_hour": 18.0}
    asked = {**SMALL, "preset": "fast", "iterations": 1, "validate_every": 0, "hard_days": 0.5}
    run = train(config, asked, out_dir=tmp_path).folder
    kept = load_scenario(run / "scenario.yaml").day_weights
    assert len(set(kept.values())) > 1
    assert {int(day): weight for day, weight in read_manifest(run)["env_config"]["day_weights"].items()} == kept
