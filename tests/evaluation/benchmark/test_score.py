"""Scores, intervals and the page, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.errors import ScenarioError
from powergrid.evaluation.benchmark import Benchmark, Entrant, Result, play_task, read_benchmark, read_result
from powergrid.evaluation.benchmark.page import METHODS, estimate_minutes, find_open, make_page, takes
from powergrid.evaluation.benchmark.play import summarise
from powergrid.evaluation.benchmark.score import score_results


@pytest.fixture
def files(benchmark: Benchmark, baseline: Result, trained: Path, tmp_path: Path) -> list[Path]:
    return [baseline.write(tmp_path), play_task(benchmark, "small", Entrant("no_control")).write(tmp_path), trained]


def test_summary_is_as_worked_out_by_hand() -> None:
    played = {"0": {"reward": [1.0, 3.0]}, "1": {"reward": [2.0, 4.0]}}
    found = summarise(played, 100.0, {"no_control": [0.0, 1.0], "optimum": [4.0, 5.0]})
    assert (found.reward, found.reward_by_seed) == (2.5, {"0": 2.0, "1": 3.0})
    assert (found.gain_usd_per_day, found.regret_usd_per_day) == (200.0, 200.0)
    assert (found.score, found.score_by_seed) == (0.5, {"0": 0.375, "1": 0.625})


def test_summary_without_an_optimum_has_no_score() -> None:
    found = summarise({"-": {"reward": [1.0, 3.0]}}, 100.0, {"no_control": [0.0, 1.0]})
    assert (found.gain_usd_per_day, found.regret_usd_per_day, found.score) == (150.0, None, None)


def test_rows_stand_by_reward_with_what_the_summaries_say(benchmark: Benchmark, files: list[Path]) -> None:
    board = score_results(benchmark, files)
    rows = board.rows["small"]
    assert [row.reward.value for row in rows] == sorted((row.reward.value for row in rows), reverse=True)
    for row in rows:
        summary = row.result.summary
        assert row.score is not None
        assert row.regret_usd is not None
        assert row.score.value == pytest.approx(summary.score, rel=1e-6)
        assert row.regret_usd.value == pytest.approx(summary.regret_usd_per_day, rel=1e-6)
        assert row.score.low <= row.score.value <= row.score.high
    nothing = next(row for row in rows if row.result.player.name == "no_control")
    assert nothing.score == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)  # on every draw of days
    assert nothing.better_days is not None
    assert next(row for row in rows if row.result.player.name == "rule_based").better_days is None


def test_interval_of_two_days_is_from_the_one_to_the_other(
    benchmark: Benchmark, baseline: Result, tmp_path: Path
) -> None:
    (row,) = score_results(benchmark, [baseline.write(tmp_path)]).rows["small"]
    by_day = (np.array(baseline.results["-"]["reward"]) - benchmark.rewards_of("small")["no_control"]) / 0.5
    assert row.score is not None
    assert (row.score.low, row.score.high) == pytest.approx((by_day.min(), by_day.max()), rel=1e-5)


def test_overall_score_of_one_task_is_its_own(benchmark: Benchmark, files: list[Path]) -> None:
    overall = {each.name: each for each in score_results(benchmark, files).overall}
    assert set(overall) == {"rule_based", "no_control", "mine"}
    assert {each.tasks for each in overall.values()} == {1}
    assert overall["mine"].score.value == pytest.approx(read_result(files[2]).summary.score, rel=1e-6)


def test_results_that_do_not_go_together_are_refused(benchmark: Benchmark, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "twice").mkdir()
    twice = read_result(files[0]).write(tmp_path / "twice")
    other = read_result(files[1]).model_copy(update={"task_digest": "0" * 64}).write(tmp_path / "twice")
    with pytest.raises(ScenarioError, match="2 problems") as error:
        score_results(benchmark, [*files, twice, other])
    assert [each.code for each in error.value.details] == ["taken", "task-changed"]
    (tmp_path / "none").mkdir()
    with pytest.raises(ScenarioError, match="there are no results"):
        score_results(benchmark, [tmp_path / "none"])


def test_page_has_what_was_run_and_what_was_not(benchmark: Benchmark, files: list[Path]) -> None:
    page = make_page(score_results(benchmark, files))
    played, left = page.split("## Not run yet")
    assert "| mine (2 seeds) |" in played
    assert "- `mine`: PPO, 1,000 environment steps, at most 1.0 minutes a seed, default settings\n" in played
    assert "run small --policy native`" in left
    assert "--policy rule_based" not in left
    assert ("powergrid benchmark run small --policy native", None) in find_open(score_results(benchmark, files))
    assert "| `powergrid benchmark run small --train ppo --policies independent` | 4 min |" in left  # 2 seeds of 2 min


def test_estimate_is_of_the_rate_and_at_most_the_budget() -> None:
    shipped, method = read_benchmark(), METHODS[0]
    for task in shipped.tasks.values():
        assert 0.0 < estimate_minutes(task, method) <= task.minutes
        assert estimate_minutes(task, method, 96) <= estimate_minutes(task, method)
    assert takes(shipped.tasks["ieee13_mg"], METHODS[-1])
    assert not takes(shipped.tasks["ieee13_voltvar"], METHODS[-1])  # taps are no continuous actions
