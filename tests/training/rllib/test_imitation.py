"""Policies that begin as an imitation do what was shown, their critics know its worth, and PPO goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation.demonstrations import record_demonstrations
from powergrid.training import algorithm_config, imitate
from powergrid.training.runs.session import RaySession, build_algorithm
from powergrid.training.runs.settings import make_settings
from powergrid.training.runs.train import train

pytestmark = pytest.mark.usefixtures("ray_session")

SMALL: dict[str, Any] = {
    "num_env_runners": 0, "num_envs_per_env_runner": 2, "train_batch_size": 16, "minibatch_size": 16, "num_epochs": 1,
    "hidden": [32], "initial_log_std": -3.0,
}  # fmt: skip
HOURS = {"episode_length": 8, "reward.scale": 1.0}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two days of rules, of continuous actions and of positions beside them."""
    return {
        name: record_demonstrations(
            {"env_name": name, **HOURS}, tmp_path_factory.mktemp("shown") / name, policy="rule_based", days=2
        )
        for name in ("ieee13_mg", "ieee13_voltvar")
    }


@pytest.mark.parametrize(("name", "algorithm", "rounds"), [("ieee13_mg", "mappo", 2), ("ieee13_voltvar", "ppo", 1)])
def test_policies_do_what_was_shown_and_critics_know_its_worth(
    shown: dict[str, Path], name: str, algorithm: str, rounds: int
) -> None:
    config = algorithm_config({"env_name": name, **HOURS}, algorithm, seed=0, **SMALL)
    built = build_algorithm(config, RaySession(None))
    try:
        came = imitate(built, shown[name], rounds=rounds, passes=200)
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


def test_what_cannot_imitate_is_told_before_anything_is_learnt(shown: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"build the algorithm, then powergrid\.training\.imitate"):
        algorithm_config("ieee13_mg", demonstrations="days")
    with pytest.raises(PowerGridError, match="no demonstrations"):
        train("ieee13_mg", {"demonstrations": str(tmp_path)}, out_dir=tmp_path)
    for other in ({"observation_filter": "mean_std"}, {"share_unequal": True}):
        with pytest.raises(ScenarioError, match="demonstrations do not go with"):
            make_settings("ppo", {"demonstrations": "days", **other})
    with pytest.raises(ScenarioError, match="sac has no setting 'demonstrations'"):
        make_settings("sac", {"demonstrations": "days"})
    assert not list(tmp_path.iterdir())
