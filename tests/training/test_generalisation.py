"""Train on one feeder, or on several, and play on feeders that were never seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from powergrid.evaluation import evaluate_feeders
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.training import load_policy, train
from tests.training.conftest import TINY

SMALL = TINY | {"iterations": 1, "train_batch_size": 32, "minibatch_size": 16, "validation_episodes": 1}


@pytest.mark.parametrize("seen", [["ieee13"], ["ieee13", "ieee34"]])
def test_policy_trained_on_some_feeders_plays_on_others(seen: list[str], ray_session: None, tmp_path: Path) -> None:
    config = {"env_name": "ieee13_mg", "feeders": seen, "placement": {"rule": "load"}, "episode_length": 8}
    result = train(config, SMALL, out_dir=tmp_path, name="run")
    manifest = json.loads((result.folder / "run.json").read_text())
    assert manifest["digests"]["feeders"] == {name: read_feeder(name).digest for name in seen}
    policy = load_policy(result.folder)
    assert policy.feeders == manifest["digests"]["feeders"]
    found = evaluate_feeders(config, ["no_control", ("run", policy)], ["ieee13", "ieee34", "ieee123"], days=1)
    assert found.trained_on == {"run": tuple(seen)}
    for report in found.reports.values():
        rows = report.frame.query("policy == 'run'")
        assert rows["finished"].all()
        assert np.isfinite(rows["reward"]).all()
        assert rows["cost_usd"].to_list() != report.frame.query("policy == 'no_control'")["cost_usd"].to_list()
