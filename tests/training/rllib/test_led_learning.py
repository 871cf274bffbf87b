"""Spreads and learning rates that settings lead: they are what was asked for, and learning goes on by them."""

from __future__ import annotations

from typing import Any

import pytest

from powergrid.errors import ScenarioError
from powergrid.training import algorithm_config
from powergrid.training.runs.session import RaySession, build_algorithm
from powergrid.training.runs.settings import make_settings
from tests.training.toy import ToyGridEnv

SETTINGS: dict[str, Any] = {
    "num_env_runners": 0, "num_envs_per_env_runner": 2, "train_batch_size": 96, "minibatch_size": 32, "num_epochs": 2,
    "hidden": [8], "iterations": 4,
}  # fmt: skip


@pytest.mark.usefixtures("ray_session")
def test_spreads_fall_to_the_last_and_rates_follow_the_divergence(tmp_path: Any) -> None:
    led = {"initial_log_std": -1.0, "final_log_std": -2.0, "lr": 1e-3}
    for target, factor in ((1e3, 1.5), (1e-9, 1 / 1.5)):
        config = algorithm_config({}, env=ToyGridEnv, lr_kl_target=target, **led, **SETTINGS)
        built = build_algorithm(config, RaySession(None))
        try:
            for done in (1, 2):
                built.train()
                (_, optimizer), = built.learner_group._learner.get_optimizers_for_module("grid_policy")  # fmt: skip
                assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor**done)
                spread = built.get_module("grid_policy").pi.log_std  # of what samples next
                assert spread.tolist() == pytest.approx([-1.0 - done / 4] * 3)
        finally:
            built.stop()


def test_what_cannot_be_led_is_told() -> None:
    with pytest.raises(ScenarioError, match="final_log_std and lr_kl_target: RLlib's own learner does not"):
        make_settings("ppo", {"final_log_std": -2.0, "lr_kl_target": 0.01, "learner": "stock"})
    with pytest.raises(ScenarioError, match="leave free_log_std true"):
        make_settings("ppo", {"final_log_std": -2.0, "free_log_std": False})
