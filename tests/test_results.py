from __future__ import annotations

from pathlib import Path
from typing import Any

import make_results
import numpy as np
import pandas as pd
import pytest
from make_results import BLOCK, PAGE, Measured, add, check_kept, check_played, keep, measure, read, render

from powergrid.errors import PowerGridError
from powergrid.evaluation import EvaluationReport, evaluate

DAYS = 2


class HoldStill:
    """A training's policy, as far as a measurement asks."""

    seed, trained_as = 0, "PPO shared"

    def act(self, observations: dict[str, Any]) -> dict[str, Any]:
        return {agent: np.zeros(5, np.float32) for agent in observations}


@pytest.fixture(scope="module")
def played() -> EvaluationReport:
    """Two days of baselines, and made of them an optimum and two seeds of a training."""
    report = evaluate({"env_name": "ieee13_mg"}, ["no_control", "rule_based"], days=DAYS)
    rule = report.frame[report.frame["policy"] == "rule_based"]
    more = {"optimum": 1.0, "mg-0": 0.4, "mg-1": 0.6, "alone": -0.1}
    frame = pd.concat([report.frame, *(rule.assign(policy=p, reward=rule["reward"] + by) for p, by in more.items())])
    kinds = {**report.kinds, "optimum": "optimum", **dict.fromkeys(("mg-0", "mg-1", "alone"), "policy")}
    groups = {"mg (2 seeds)": ("mg-0", "mg-1"), "alone (1 seed)": ("alone",)}
    seeds = {"mg-0": 0, "mg-1": 1, "alone": 0}
    return EvaluationReport(frame, kinds, {**report.provenance, "seeds": seeds}, groups)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(make_results, "KEPT", tmp_path)
    monkeypatch.setattr(make_results, "IMAGES", tmp_path)
    return tmp_path


def _measured(report: EvaluationReport, **facts: Any) -> Measured:
    how: dict[str, Any] = {"how": "PPO shared", "scenario_digest": None, "changed": {}, "env_steps": 921600}
    trained = {"mg (2 seeds)": how, "alone (1 seed)": {**how, "changed": {"lr": 0.01}}}
    return Measured("mg", report, {"command": "python scripts/make_results.py measure mg", "trained": trained, **facts})


def test_page_has_what_its_files_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page, "python scripts/make_results.py write"


def test_no_kept_policy_beats_the_optimum_on_any_day_and_all_days_are_of_the_test_split() -> None:
    for name in sorted({found["name"] for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))}):
        assert list(check_kept(read(name))) == []


def test_what_is_kept_is_read_as_it_was(played: EvaluationReport, folder: Path) -> None:
    keep(_measured(played))
    again = read("mg").report
    assert again.names == played.names
    for name in played.names:
        assert list(again.reward(name)) == pytest.approx(list(played.reward(name)), abs=1e-6)
        assert list(again.regret_usd(name)) == pytest.approx(list(played.regret_usd(name)), abs=1e-3)
    with pytest.raises(PowerGridError, match=r"make_results.py measure none"):
        read("none")


def test_tables_have_score_regret_intervals_and_say_what_is_one_seed(played: EvaluationReport, folder: Path) -> None:
    keep(_measured(played))
    page = "# Results\n\n<!-- mg: scores -->\nold\n<!-- end -->\n\n<!-- mg: grid -->\n<!-- end -->\nmore\n"
    page += "<!-- mg: pictures -->\n<!-- end -->\n<!-- mg: ablations -->\n<!-- end -->\n"
    made = render(page, draw=True)
    assert "\nold\n" not in made
    assert "more" in made
    assert "python scripts/make_results.py measure mg" in made
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.splitlines() if line[:1] == "|"]
    scores = {row[0].strip("*"): row for row in rows[:9]}
    # half of what the optimum has over rule_based is won
    nothing, rule = (played.reward(name).mean for name in ("no_control", "rule_based"))
    assert float(scores["mg (2 seeds)"][1]) == pytest.approx((rule + 0.5 - nothing) / (rule + 1.0 - nothing), abs=1e-3)
    assert scores["mg (2 seeds)"][3] == "500 ± 1271"  # 0.5 short for each of 2 agents, 500 USD a point; seeds ± 0.1
    assert scores["mg (2 seeds)"][5] == "+0.50 ± 1.27"
    assert "alone (1 seed)" in scores
    assert scores["optimum"][1] == "1.000"
    assert "`alone (1 seed)`: PPO shared, 921,600 environment steps, `lr=0.01`" in made
    assert "below `rule_based` (-0.10 to -0.10)" in made
    assert "not told apart from `rule_based`" in made
    assert {file.name for file in folder.glob("*.png")} == {"mg_profiles.png", "mg_improvement.png"}
    assert render(made) == made


def test_claims_that_days_contradict_are_told(played: EvaluationReport) -> None:
    assert list(check_kept(_measured(played))) == []
    better = played.frame.assign(reward=played.frame["reward"] + 2.0 * (played.frame["policy"] == "mg-1"))
    seen = {**played.provenance, "days": [0, 1]}
    told = [
        *check_kept(_measured(EvaluationReport(better, played.kinds, played.provenance, played.groups))),
        *check_kept(_measured(EvaluationReport(played.frame.assign(day=[0, 1] * 6), played.kinds, seen))),
        *check_kept(_measured(played, trained={"mg (2 seeds)": {"scenario_digest": "other"}})),
    ]
    assert len(told) == 3
    assert "mg-1 beats the optimum by 1.6000" in told[0]
    assert "days [0, 1] are not of the test split" in told[1]
    assert "was trained on another scenario" in told[2]


def test_days_that_come_to_something_else_are_told(folder: Path) -> None:
    kept = measure("ieee13_mg", "tiny", [], DAYS, ["native", "volt_var", "optimum", "random"])
    assert kept.report.names == ("no_control", "rule_based")
    assert list(check_played(kept, [], None)) == []
    off = kept.report.frame.assign(reward=kept.report.frame["reward"] + np.array([0.0, 0.0, 0.0, 1e-4]))
    changed = kept._replace(report=EvaluationReport(off, kept.report.kinds, kept.report.provenance))
    assert list(check_played(changed, [], 1)) == []  # the first day alone, which is as it was
    told = list(check_played(changed, ["runs/x"], None))
    assert told[0] == "tiny: runs/x was not measured"
    assert f"rule_based on day {kept.report.provenance['days'][1]} comes to" in told[1]
    assert told[1].endswith("measure tiny --add --policies rule_based")
    assert len(told) == 2


def test_runs_are_added_beside_what_is_kept_and_played_anew_where_they_are_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = measure("ieee13_mg", "tiny", [], DAYS, policies=["no_control", "rule_based"])
    monkeypatch.setattr(make_results, "_load", lambda runs: [(run, HoldStill()) for run in runs])
    monkeypatch.setattr(make_results, "describe_training", lambda members, runs: {"how": "by hand"})
    add("tiny", ["mine"])
    for _ in range(2):
        added = add("tiny", [], ["volt_var"])
        assert added.report.names == ("no_control", "volt_var", "rule_based", "mine (1 seed)")
        assert added.facts["trained"] == {"mine (1 seed)": {"how": "by hand"}}
        assert len(added.report.frame) == 4 * DAYS
        assert added.report.provenance["days"] == kept.report.provenance["days"]
    assert added.report.reward("rule_based") == kept.report.reward("rule_based")
    keep(
        kept._replace(
            report=EvaluationReport(
                kept.report.frame, kept.report.kinds, {**kept.report.provenance, "scenario_digest": "other"}
            )
        )
    )
    with pytest.raises(PowerGridError, match="scenario_digest was other, now"):
        add("tiny", [], ["volt_var"])
    with pytest.raises(PowerGridError, match="--policies greedy"):
        add("tiny", [])
