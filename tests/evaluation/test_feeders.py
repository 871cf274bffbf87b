"""Evaluation on feeders that a policy never saw: tables, scores, what was trained on, files, the command."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from powergrid.cli import main
from powergrid.errors import ScenarioError
from powergrid.evaluation import FeederComparison, evaluate, evaluate_feeders
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.scenario import load_scenario

SHORT = {"env_name": "ieee13_mg", "episode_length": 8}


class Idle:
    """Do as little as a Box allows; says that it was trained on the 13-node feeder."""

    def __init__(self) -> None:
        self.feeders = {"ieee13": read_feeder("ieee13").digest}

    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, Any]:
        assert {len(seen) for seen in observations.values()} == {28}  # the same on every feeder
        return {agent: np.zeros(5, np.float32) for agent in observations}


@pytest.fixture(scope="module")
def comparison() -> FeederComparison:
    players = ["no_control", "rule_based", ("idle", Idle())]
    return evaluate_feeders(SHORT, players, ["ieee13", "ieee34", "ieee123"], days=2, seed=1)


def test_comparison_tells_feeders_that_were_seen_in_training(comparison: FeederComparison) -> None:
    assert comparison.trained_on == {"idle": ("ieee13",)}
    rows = {(row["feeder"], row["policy"]): row for row in comparison.summary()}
    assert [rows[feeder, "idle"]["trained_on_it"] for feeder in comparison.reports] == [True, False, False]
    assert rows["ieee34", "no_control"]["trained_on_it"] is None
    assert comparison.placements == {"ieee13": "", "ieee34": "rule load", "ieee123": "rule load"}


def test_comparison_plays_on_each_feeder_what_an_evaluation_there_plays(comparison: FeederComparison) -> None:
    scenario = load_scenario("ieee13_mg", {"feeder": "ieee34", "placement": {"rule": "load"}, "episode_length": 8})
    alone = evaluate(scenario, ["no_control"], days=2, seed=1)
    ours = comparison.reports["ieee34"].frame.query("policy == 'no_control'")
    assert ours["reward"].to_list() == alone.frame["reward"].to_list()
    assert comparison.reports["ieee34"].provenance["scenario_digest"] == alone.provenance["scenario_digest"]


def test_score_is_zero_without_control_and_one_for_the_best_baseline(comparison: FeederComparison) -> None:
    for feeder, report in comparison.reports.items():
        rows = {row["policy"]: row for row in comparison.summary() if row["feeder"] == feeder}
        nothing, best = (report.reward(name).mean for name in ("no_control", str(report.best_baseline)))
        if best == nothing:
            assert rows["idle"]["score"] is None
            continue
        assert rows["no_control"]["score"] == pytest.approx(0.0)
        assert rows[str(report.best_baseline)]["score"] == pytest.approx(1.0)
        by_hand = (report.reward("idle").mean - nothing) / (best - nothing)
        assert rows["idle"]["score"] == pytest.approx(by_hand)
        assert rows["idle"]["over_no_control"] == pytest.approx(report.reward("idle").mean - nothing)


def test_comparison_writes_its_tables_and_a_folder_for_each_feeder(
    comparison: FeederComparison, tmp_path: Path
) -> None:
    files = comparison.write(tmp_path)
    assert all(file.is_file() for file in files)
    summary = pd.read_csv(tmp_path / "feeders.csv")
    assert len(summary) == 9
    kept = json.loads((tmp_path / "feeders.json").read_text())
    assert kept["trained_on"] == {"idle": ["ieee13"]}
    assert (tmp_path / "ieee34" / "evaluation.json").is_file()
    assert comparison.to_markdown().count("unseen") == 2
    assert len(comparison.frame) == 3 * 3 * 2
    assert set(comparison.frame["feeder"]) == {"ieee13", "ieee34", "ieee123"}
    shown = io.StringIO()
    Console(width=80, file=shown).print(comparison.table())
    assert shown.getvalue().count("unseen") == 2
    assert "ieee123" in shown.getvalue()


def test_scenario_of_several_feeders_is_evaluated_on_all_of_them() -> None:
    config = SHORT | {"feeders": ["ieee13", "ieee34"], "placement": {"rule": "distance"}}
    found = evaluate_feeders(config, ["no_control"], [], days=1)
    assert list(found.reports) == ["ieee13", "ieee34"]
    assert found.placements["ieee34"] == "rule distance"
    with pytest.raises(ScenarioError, match="has several feeders"):
        evaluate(config, ["no_control"], days=1)


def test_feeder_given_twice_is_refused() -> None:
    with pytest.raises(ScenarioError, match="'ieee34' is given 2 times"):
        evaluate_feeders(SHORT, ["no_control"], ["ieee34", "ieee34"], days=1)


def test_command_prints_a_table_for_each_feeder_and_one_of_all(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "ieee13_mg", "--policy", "no_control", "--feeder", "ieee13", "--feeder", "ieee34",
              "--days", "1", "--set", "episode_length=4", "--out", str(tmp_path / "out")])  # fmt: skip
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "ieee13_mg-v1, changed on ieee34: 1 days" in shown
    assert "by feeder" in shown
    assert (tmp_path / "out" / "feeders.csv").is_file()
