"""What is learnt to be worth at the end of a day: what an estimate says, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from powergrid.training import algorithm_config
from powergrid.training.runs.session import RaySession, build_algorithm
from tests.training.toy import STEPS, ToyGridEnv

pytestmark = pytest.mark.usefixtures("ray_session")

SETTINGS: dict[str, Any] = {
    "num_env_runners": 0, "num_envs_per_env_runner": 1, "train_batch_size": STEPS, "minibatch_size": 32,
    "num_epochs": 1, "hidden": [8],
}  # fmt: skip


@pytest.mark.parametrize(("algorithm", "bootstrap"), [("ppo", True), ("ppo", False), ("mappo", False)])
def test_an_estimate_follows_what_the_horizon_cut_only_where_it_is_asked_for(algorithm: str, bootstrap: bool) -> None:
    config = algorithm_config({}, algorithm, env=ToyGridEnv, bootstrap_horizon=bootstrap, **SETTINGS)
    built = build_algorithm(config, RaySession(None))
    try:
        learner = built.learner_group._learner
        for ends in (False, True):  # 60 steps that were cut, then the day's other 36
            episodes = built.env_runner.sample(num_timesteps=60 if not ends else STEPS - 60)
            (episode,) = episodes
            assert episode.is_truncated == ends
            last = sorted(float(e.get_rewards(-1)) for e in episode.agent_episodes.values())
            batch = learner._learner_connector(
                rl_module=learner.module, batch={}, episodes=episodes, shared_data={}, metrics=learner.metrics
            )["grid_policy"]
            length = len(batch["rewards"]) // 2  # RLlib adds a step to each agent's, for the estimate
            targets = np.sort(batch["value_targets"].numpy()[length - 2 :: length])
            bare = np.allclose(targets, last, atol=1e-6)
            assert bare == (ends and not bootstrap)
    finally:
        built.stop()
