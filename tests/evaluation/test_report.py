from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from powergrid.cli import main
from powergrid.evaluation import EvaluationReport, confidence_interval, evaluate


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return evaluate({"env_name": "ieee13_mg"}, ["no_control", "rule_based"], days=3, seed=2)


def test_interval_agrees_with_a_hand_calculation_and_with_scipy() -> None:
    # mean 3, s = sqrt(10 / 4) = 1.5811, t(0.975, 4) = 2.7764: 2.7764 * 1.5811 / sqrt(5) = 1.9632
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = confidence_interval(values)
    assert found.mean == pytest.approx(3.0)
    assert found.half == pytest.approx(1.9632, abs=1e-4)
    low, high = stats.t.interval(0.95, 4, loc=3.0, scale=stats.sem(values))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert str(found) == "3.00 ± 1.96"


def test_interval_of_one_day_has_no_width() -> None:
    found = confidence_interval([4.0])
    assert np.isnan(found.half)
    assert str(found) == "4.00"


def test_difference_is_paired_by_day(report: EvaluationReport) -> None:
    by_day = report.frame.pivot(index="day", columns="policy", values="reward")
    expected = stats.ttest_rel(by_day["no_control"], by_day["rule_based"]).confidence_interval(0.95)
    found = report.difference("no_control", "rule_based")
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((expected.low, expected.high))


def test_table_has_a_row_for_each_policy_and_fits_80_columns(report: EvaluationReport) -> None:
    out = io.StringIO()
    Console(width=80, file=out).print(report.table())
    shown = out.getvalue()
    assert "USD/day" in shown
    assert "node-h/day" in shown
    assert "kWh/day" in shown
    line = next(line for line in shown.splitlines() if "no_control" in line)
    assert f"{report.summary()['no_control']['cost_usd_per_day']:.0f}" in line
    assert str(report.reward("no_control")) in line
    assert str(report.difference("no_control", "rule_based")) in line
    assert "best" in next(line for line in shown.splitlines() if "rule_based" in line)


def test_grid_table_has_the_worst_of_all_days_within_80_columns(report: EvaluationReport) -> None:
    out = io.StringIO()
    Console(width=80, file=out).print(report.grid_table())
    rows = report.frame.query("policy == 'rule_based'")
    line = next(line for line in out.getvalue().splitlines() if "rule_based" in line)
    expected = [rows["v_min_pu"].min(), rows["v_max_pu"].max(), 100 * rows["loading_max_pu"].max()]
    expected += [rows["overload_branch_hours"].mean(), rows["import_peak_kw"].max(), rows["operations"].mean()]
    assert [float(cell) for cell in line.split()[1:]] == pytest.approx(expected, abs=0.5)


def test_parts_of_the_reward_add_up_to_it(report: EvaluationReport) -> None:
    for policy in report.kinds:
        parts = report.reward_parts(policy)
        assert sum(parts.values()) == pytest.approx(report.reward(policy).mean)
        assert "divergence" not in parts
        assert parts["energy_cost_usd"] < 0.0 < parts["reference_cost_usd"]
    out = io.StringIO()
    Console(width=80, file=out).print(report.parts_table())
    assert "voltage_violation_pu" in out.getvalue()


def test_parts_of_a_reward_have_the_penalty_of_days_that_diverged() -> None:
    found = evaluate({"env_name": "ieee13_mg", "solver": {"max_iterations": 6}}, ["random"], days=2)
    assert found.reward_parts("random")["divergence"] < 0.0
    assert sum(found.reward_parts("random").values()) == pytest.approx(found.reward("random").mean)


def test_markdown_holds_the_same_cells(report: EvaluationReport) -> None:
    lines = report.to_markdown().splitlines()
    assert len(lines) == 4
    assert all(line.count("|") == 7 for line in lines)
    assert str(report.reward("rule_based")) in lines[3]


def test_native_that_moved_nothing_is_told_wherever_its_numbers_are(report: EvaluationReport, tmp_path: Path) -> None:
    frame, kinds = report.frame.replace("rule_based", "native"), dict.fromkeys(("no_control", "native"), "baseline")
    moved = EvaluationReport(frame.assign(operations=1.0), kinds, report.provenance)
    still = EvaluationReport(frame.assign(operations=0.0), kinds, report.provenance)
    assert moved.notes == report.notes == ()
    (note,) = still.notes
    assert "native moved no tap" in note
    assert still.to_markdown().endswith(f"|\n\n{note}\n")
    assert note in str(still.table().caption)
    still.write(tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["notes"] == [note]


def test_files_hold_rows_summary_and_provenance(report: EvaluationReport, tmp_path: Path) -> None:
    files = report.write(tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["evaluation.csv", "evaluation.json"]
    assert sorted(file.name for file in files[0].parent.iterdir()) == ["evaluation.csv", "evaluation.json"]
    frame = pd.read_csv(files[0])
    assert len(frame) == 6
    assert frame["reward"].to_numpy() == pytest.approx(report.frame["reward"].to_numpy())
    kept = json.loads(files[1].read_text())
    assert kept["provenance"]["seed"] == 2
    assert kept["provenance"]["days"] == report.frame["day"].to_list()[:3]
    assert len(kept["provenance"]["scenario_digest"]) == 64
    assert {"powergrid", "python", "dss-python-backend"} <= set(kept["provenance"]["versions"])
    assert kept["best_baseline"] == "rule_based"
    means = report.frame.query("policy == 'no_control'").mean(numeric_only=True)
    assert kept["policies"]["no_control"]["cost_usd_per_day"] == pytest.approx(means["cost_usd"])
    assert kept["policies"]["no_control"]["reward_over_best_baseline"] < 0.0


def test_json_of_one_day_has_null_where_there_is_no_interval(tmp_path: Path) -> None:
    report = evaluate({"env_name": "ieee13_mg"}, ["no_control"], days=1)
    kept = json.loads(report.write(tmp_path)[1].read_text())
    assert kept["policies"]["no_control"]["reward_half_interval"] is None


def test_sums_are_of_24_hours_where_episodes_are_shorter() -> None:
    config = {"env_name": "ieee13_mg", "episode_length": 24}
    report = evaluate(config, ["no_control"], days=2)
    found = report.summary()["no_control"]["import_kwh_per_day"]
    assert found == pytest.approx(4.0 * report.frame["import_kwh"].mean())


def test_command_prints_the_table_and_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["evaluate", "ieee13_mg", "--policy", "no_control", "--policy", "rule_based", "--days", "2",
              "--out", str(tmp_path)])  # fmt: skip
    assert not raised.value.code
    shown = capsys.readouterr().out
    assert "ieee13_mg: 2 days of the test split" in shown
    assert "no_control" in shown
    assert (tmp_path / "evaluation.csv").is_file()
    assert (tmp_path / "evaluation.json").is_file()


def test_command_with_an_unknown_policy_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["evaluate", "ieee13_mg", "--policy", "no_contrl"])
    assert raised.value.code == 1
    assert "unknown policy 'no_contrl' (did you mean 'no_control'?)" in capsys.readouterr().err
