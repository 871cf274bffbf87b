"""Policies that begin as an imitation do what was shown, their critics know its worth, and PPO goes on from there."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation.demonstrations import record_demonstrations
from powergrid.scenario import load_scenario
from powergrid.scenario.demonstrations import read_demonstrations
from powergrid.training import algorithm_config, imitate
from powergrid.training.rllib.learning.imitation import _play_baseline
from powergrid.training.runs.session import RaySession, build_algorithm
from powergrid.training.runs.settings import make_settings
from powergrid.training.runs.train import resume, train

pytestmark = pytest.mark.usefixtures("ray_session")

SMALL: dict[str, Any] = {
    "num_env_runners": 0, "num_envs_per_env_runner": 2, "train_batch_size": 16, "minibatch_size": 16, "num_epochs": 1,
    "hidden": [32], "initial_log_std": -3.0,
}  # fmt: skip
HOURS = {"episode_length": 8, "reward.scale": 1.0}
MEMORY = {"network": "gru", "gru_width": 8, "max_seq_len": 8}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of rules that move batteries and positions."""
    place = tmp_path_factory.mktemp("shown") / "ieee13_voltvar"
    return record_demonstrations({"env_name": "ieee13_voltvar", **HOURS}, place, policy="rule_based", days=2)


@pytest.mark.parametrize(
    ("name", "algorithm", "rounds", "network"),
    [("ieee13_mg", "mappo", 2, {}), ("ieee13_voltvar", "ppo", 1, {}), ("ieee13_mg", "mappo", 2, MEMORY)],
    ids=["mappo", "ppo", "memory"],
)
def test_policies_do_what_was_shown_and_critics_know_its_worth(
    shown: Path, name: str, algorithm: str, rounds: int, network: dict[str, Any]
) -> None:
    config = algorithm_config({"env_name": name, **HOURS}, algorithm, seed=0, **SMALL, **network)
    built = build_algorithm(config, RaySession(None))
    try:
        whom = "rule_based" if name == "ieee13_mg" else shown
        came = imitate(built, whom, days=2, rounds=rounds, passes=200)
        assert came.days == 2
        assert max(*came.errors.values(), *came.missed.values()) < 0.1
        learner = built.learner_group._learner
        for each in built.config.policies:  # what samples is what learns on
            acting, learnt = built.get_module(each), learner.module[each].unwrapped().get_state(inference_only=True)
            assert all(np.array_equal(acting.state_dict()[key].numpy(), value) for key, value in learnt.items())
        if name == "ieee13_mg":  # rules that move taps are another matter: what they decide by is not all observed
            assert came.reached == pytest.approx(came.shown, rel=0.2)
            assert min(came.explained.values()) > 0.8
        result = built.train()["learners"]
        assert all(np.isfinite(result[each]["vf_loss"]) for each in built.config.policies)
    finally:
        built.stop()


def test_days_played_now_are_those_that_a_folder_keeps(shown: Path) -> None:
    kept = read_demonstrations(shown)
    with closing(GridTask(load_scenario("ieee13_voltvar", HOURS), 3)) as task:  # more environments than days
        played = _play_baseline(task, "rule_based", 2, kept.kept.seed)
        again = _play_baseline(task, "rule_based", 400, kept.kept.seed)
    assert played.kept == kept.kept
    assert set(played.days) <= set(again.days)
    assert len(again.days) == len(set(again.days)) == len(task.simulation.days)
    for day, actions, reward in zip(kept.days, kept.actions, kept.rewards, strict=True):
        (place,) = np.flatnonzero(again.days == day)
        np.testing.assert_array_equal(again.actions[place], actions)
        assert again.rewards[place] == pytest.approx(reward, abs=1e-9)


def test_a_training_plays_what_it_imitates_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    asked = {**SMALL, "demonstrations": "rule_based", "imitation_rounds": 1, "imitation_passes": 2, "iterations": 1}
    result = train({"env_name": "ieee13_mg", **HOURS}, {**asked, "validate_every": 0}, out_dir=tmp_path, name="run")
    came = json.loads((result.folder / "run.json").read_text())["imitation"]
    assert came["days"] == 1  # a third of the iterations, at least one
    assert np.isfinite([came["shown"], came["reached"]]).all()
    assert resume(result.folder, iterations=2).iterations == 2
    assert json.loads((result.folder / "run.json").read_text())["imitation"] == came


def test_what_cannot_imitate_is_told_before_anything_is_learnt(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"build the algorithm, then powergrid\.training\.imitate"):
        algorithm_config("ieee13_mg", demonstrations="days")
    with pytest.raises(PowerGridError, match="no demonstrations"):
        train("ieee13_mg", {"demonstrations": str(tmp_path)}, out_dir=tmp_path)
    with pytest.raises(ScenarioError, match=r"baseline 'rule_base' \(did you mean 'rule_based'\?\), and no folder"):
        train("ieee13_mg", {"demonstrations": "rule_base"}, out_dir=tmp_path)
    with pytest.raises(ScenarioError, match=r"allowed: rule_based, and no folder .*`powergrid demonstrate` records"):
        train("ieee13_mg", {"demonstrations": "optimum"}, out_dir=tmp_path)
    several = {"env_name": "ieee13_mg", "feeders": ["ieee13"], "observations": "summary"}
    with pytest.raises(ScenarioError, match="several feeders cannot imitate"):
        train(several, {"demonstrations": "rule_based"}, out_dir=tmp_path)
    for other in ({"observation_filter": "mean_std"}, {"share_unequal": True}):
        with pytest.raises(ScenarioError, match="demonstrations do not go with"):
            make_settings("ppo", {"demonstrations": "days", **other})
    with pytest.raises(ScenarioError, match="sac has no setting 'demonstrations'"):
        make_settings("sac", {"demonstrations": "days"})
    assert not list(tmp_path.iterdir())
