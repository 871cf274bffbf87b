"""Train on one feeder, or on several, and play on feeders that were never seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from powergrid.envs import NetworkedGridEnv
from powergrid.evaluation import evaluate_feeders
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.training import load_policy, train
from scripts import score_generalisation as study
from tests.training.conftest import TINY

UPSTREAM = Path(__file__).parents[2].parent / "shared" / "upstream-feeders"
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


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="no upstream feeders beside the checkout")
def test_all_feeders_of_the_study_are_played_in_equal_spaces(tmp_path: Path) -> None:
    scenario, seen, unseen = study.write_inputs(tmp_path, UPSTREAM)
    assert (len(seen), len(unseen), len({*seen, *unseen})) == (10, 5, 15)
    for sees in study.SEES.values():
        spaces = []
        for feeder in (*seen.values(), *unseen.values()):
            env = NetworkedGridEnv({"env_name": str(scenario), "feeder": feeder, **sees})
            spaces.append((*env.observation_spaces.values(), *env.action_spaces.values()))
            env.close()
        assert all(each == spaces[0] for each in spaces)


def test_study_without_the_feeders_of_opendss_says_where_to_find_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"not there: .*ieee34Mod1.dss, .*ieee37.dss; --upstream takes the folder"):
        study.write_inputs(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_table_of_the_study_has_means_and_spread_over_seeds() -> None:
    rows = [
        {"feeder": feeder, "policy": policy, "reward": reward, "hours": 2.0}
        for feeder, add in (("a", 0.0), ("b", 1.0))
        for policy, reward in (("native", -1.0 + add), ("graph-0", 1.0 + add), ("graph-1", 3.0 + add))
    ]
    assert study.table(rows, ["native", "graph"]).splitlines()[2:] == [
        "| a | -1.00 (2.0) | 2.00 ± 1.41 (2.0) |",
        "| b | 0.00 (2.0) | 3.00 ± 1.41 (2.0) |",
        "| mean | -0.50 (2.0) | 2.50 ± 1.41 (2.0) |",
    ]


def test_study_compares_with_the_rules_day_by_day() -> None:
    rows = [
        {"feeder": feeder, "policy": policy, "day": day, "reward": reward + add + day, "hours": 2.0 * reward}
        for feeder, add in (("a", 0.0), ("b", 1.0))
        for policy, reward in (("rule_based", 1.0), ("graph-0", 1.5), ("graph-1", 1.5))
        for day in (3, 7)
    ]
    rows[-1]["reward"] += 1.0  # graph-1 on b, one day of four
    assert study.compare(rows, ["graph"]).splitlines()[2:] == [
        "| a | +0.500 ± 0.000 (+1.00 ± 0.00) |",
        "| b | +0.750 ± 3.177 (+1.00 ± 0.00) |",
        "| mean | +0.625 ± 1.588 (+1.00 ± 0.00) |",
    ]
