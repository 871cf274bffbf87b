from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from powergrid.cli import main
from powergrid.cli.evaluation import spell_out
from powergrid.errors import ScenarioError
from powergrid.evaluation import EvaluationReport, confidence_interval, evaluate
from powergrid.evaluation.report.seeds import group_seeds, note_seeds
from powergrid.evaluation.report.tables import fold
from powergrid.quantities import VIOLATION_SUFFIXES


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


def test_tables_break_the_name_of_a_run_at_its_joints_within_80_columns(report: EvaluationReport) -> None:
    run = "ieee13_mg-20261130-180935"
    named = replace(
        report,
        frame=report.frame.replace({"policy": {"no_control": run}}),
        kinds={run: "policy", "rule_based": "baseline"},
    )
    for table in (named.table(), named.grid_table(), named.parts_table()):
        out = io.StringIO()
        Console(width=80, file=out).print(table)
        lines = out.getvalue().splitlines()
        assert max(map(len, lines)) <= 80
        told = re.findall(r"ieee13_mg-(?:\d{8}-)?(?!v)|\d{8}-\d{6}|(?<!\S)\d{6}(?!\S)", out.getvalue())
        assert "".join(told) == run
        assert len(told) <= 2


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("ieee13_mg-20261130-180935 (1 seed)", 40, ["ieee13_mg-20261130-180935 (1 seed)"]),
        ("ieee13_mg-20261130-180935 (1 seed)", 25, ["ieee13_mg-20261130-180935", "(1 seed)"]),
        ("ieee13_mg-20261130-180935 (1 seed)", 20, ["ieee13_mg-20261130-", "180935 (1 seed)"]),
        ("runs/a_b", 5, ["runs/", "a_b"]),
        ("native", 3, ["native"]),
        ("", 3, [""]),
    ],
)
def test_names_are_folded_behind_joints(name: str, width: int, lines: list[str]) -> None:
    assert fold(name, width).split("\n") == lines


def test_grid_table_has_the_worst_of_all_days_within_80_columns(report: EvaluationReport) -> None:
    out = io.StringIO()
    Console(width=80, file=out).print(report.grid_table())
    rows = report.frame.query("policy == 'rule_based'")
    line = next(line for line in out.getvalue().splitlines() if "rule_based" in line)
    expected = [rows["v_min_pu"].min(), rows["v_max_pu"].max(), 100 * rows["loading_max_pu"].max()]
    expected += [rows["overload_branch_hours"].mean(), rows["import_peak_kw"].max(), rows["operations"].mean()]
    cells = line.split()[1:]
    beyond = [rows[f"violation_node_hours{level}"].mean() for level in VIOLATION_SUFFIXES]
    assert [float(part) for part in cells.pop(4).split("/")] == pytest.approx(beyond, abs=0.05)
    assert [float(cell) for cell in cells] == pytest.approx(expected, abs=0.5)


def test_parts_of_the_reward_add_up_to_it(report: EvaluationReport) -> None:
    for policy in report.kinds:
        parts = report.reward_parts(policy)
        assert sum(parts.values()) == pytest.approx(report.reward(policy).mean)
        assert "divergence" not in parts
        assert parts["energy_cost_usd"] < 0.0 < parts["reference_cost_usd"]
    out = io.StringIO()
    Console(width=80, file=out).print(report.parts_table())
    assert "energy_cost_usd" in out.getvalue()


def test_parts_of_a_reward_have_the_penalty_of_days_that_diverged() -> None:
    found = evaluate({"env_name": "ieee13_mg", "load_scale": 3.5, "solver": {"max_iterations": 6}}, ["random"], days=2)
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
    assert "ieee13_mg-v1: 2 days of the test split" in shown
    assert "no_control" in shown
    made = {"evaluation.csv", "evaluation.json", "improvement.png", "profiles.png"}
    assert {file.name for file in tmp_path.iterdir()} == made


def test_command_with_an_unknown_policy_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["evaluate", "ieee13_mg", "--policy", "no_contrl"])
    assert raised.value.code == 1
    assert "unknown policy 'no_contrl' (did you mean 'no_control'?)" in capsys.readouterr().err


class Trained:
    """Act as one training of several: noise of its own, the same every day."""

    def __init__(self, seed: int, trained_as: str) -> None:
        self.seed, self.trained_as = seed, trained_as

    def act(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        rng = np.random.default_rng(self.seed)
        return {agent: rng.uniform(-0.3, 0.3, 5) for agent in observations}


@pytest.fixture(scope="module")
def seeded() -> EvaluationReport:
    players: list[Any] = ["no_control", "rule_based", *((f"mg-{seed}", Trained(seed, "ppo")) for seed in (0, 1, 2))]
    return evaluate({"env_name": "ieee13_mg"}, [*players, ("alone", Trained(0, "sac")), ("plain", Zeros())], days=2)


class Zeros:
    """Act with zeros, trained by nobody."""

    def act(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        return {agent: np.zeros(5) for agent in observations}


def test_seeds_of_one_training_are_one_row_with_an_interval_over_seeds_and_days(seeded: EvaluationReport) -> None:
    assert seeded.names == ("no_control", "rule_based", "mg (3 seeds)", "alone (1 seed)", "plain")
    by_hand = seeded.frame[seeded.frame["policy"].str.startswith("mg-")].pivot(index="policy", columns="day")["reward"]
    assert seeded.rewards("mg (3 seeds)") == pytest.approx(by_hand[seeded.provenance["days"]].to_numpy())
    assert seeded.reward("mg (3 seeds)") == confidence_interval(by_hand)
    best = seeded.rewards("rule_based")
    assert seeded.difference("mg (3 seeds)", "rule_based") == confidence_interval(by_hand.to_numpy() - best)
    of_days = {name: seeded.frame.query("policy == @name")["losses_kwh"].mean() for name in ("mg-0", "mg-1", "mg-2")}
    assert seeded.measure("mg (3 seeds)")["losses_kwh_per_day"] == pytest.approx(np.mean(list(of_days.values())))


def test_single_seeds_are_said_to_be_single_wherever_numbers_are(seeded: EvaluationReport, tmp_path: Path) -> None:
    assert seeded.notes == ("1 seed: no interval over seeds",)
    assert "over seeds and days" in str(seeded.table().caption)
    assert "1 seed: no interval over seeds" in str(seeded.table().caption)
    apart = seeded.each_seed()
    assert apart.names[2:] == ("mg-0 (1 seed)", "mg-1 (1 seed)", "mg-2 (1 seed)", "alone (1 seed)", "plain")
    assert apart.reward("mg-1 (1 seed)") == seeded.reward("mg-1")
    assert "over seeds" not in str(apart.table().caption).replace("no interval over seeds", "")
    files = seeded.write(tmp_path)
    frame = pd.read_csv(files[0])
    assert frame.query("policy == 'mg-2'")["seed"].eq(2).all()
    assert frame.query("policy == 'rule_based'")["seed"].isna().all()
    kept = json.loads(files[1].read_text())
    assert kept["notes"] == ["1 seed: no interval over seeds"]
    assert {"mg-0", "mg-1", "mg-2", "alone", "plain"} <= set(kept["policies"])
    assert kept["policies"]["mg-1"]["seeds"] == [1]
    assert "seeds" not in kept["policies"]["plain"]
    (group,) = kept["groups"].values()
    assert (group["policies"], group["seeds"], group["days"]) == (["mg-0", "mg-1", "mg-2"], [0, 1, 2], 6)
    assert group["better_than_best_baseline"]["low"] <= group["better_than_best_baseline"]["high"]


def test_groups_have_names_that_tell_them_apart() -> None:
    def group(*named: tuple[str, int, str]) -> list[str]:
        return list(group_seeds(["native", *((name, Trained(seed, of)) for name, seed, of in named)]))

    assert group(("a-0", 0, "x"), ("a-1", 1, "x"), ("a-2", 2, "y")) == ["a (2 seeds)", "a-2 (1 seed)"]
    assert group(("native-0", 0, "x"), ("native-1", 1, "x")) == ["native-0 to native-1 (2 seeds)"]
    assert group(("a", 0, "x"), ("b", 1, "x")) == ["a to b (2 seeds)"]
    assert group(("r1", 0, "x"), ("r2", 1, "x"), ("r3", 0, "y"), ("r4", 1, "y")) == [
        "r (2 seeds)",
        "r3 to r4 (2 seeds)",
    ]
    # the same training with the same seed is no draw of its own
    assert group(("a-0", 0, "x"), ("a-0b", 0, "x"), ("a-1", 1, "x")) == ["a (2 seeds)", "a-0b (1 seed)"]


def test_a_note_tells_how_much_of_a_training_is_seen() -> None:
    players: list[Any] = [
        "native",
        ("a-0", Trained(0, "x")),
        ("a-1", Trained(1, "x")),
        ("b", Trained(0, "y")),
        ("z", Zeros()),
    ]
    told = note_seeds(players)
    assert set(told) == {"a-0", "a-1", "b"}
    assert told["a-1"].startswith("It is one of 2 seeds of one training")
    assert told["b"].startswith("It is one seed of its training")


def test_scores_of_days_have_the_score_as_their_mean_and_1_for_the_reference() -> None:
    days, names = [3, 4, 5, 6], ["no_control", "rule_based", "optimum", "mg-0", "mg-1"]
    rewards = {"no_control": [-2.0, -1, -3, 0], "rule_based": [0.0, 0, -1, 0], "optimum": [1.0, 0.5, 0, 0.5],
               "mg-0": [0.5, 0, -0.5, 0.5], "mg-1": [1.0, 0.5, -1, 0]}  # fmt: skip
    rows = [{"policy": n, "day": d, "reward": r} for n in names for d, r in zip(days, rewards[n], strict=True)]
    frame = pd.DataFrame(rows)
    kinds = dict.fromkeys(names, "baseline") | {"optimum": "optimum", "mg-0": "policy", "mg-1": "policy"}
    found = EvaluationReport(frame, kinds, {"days": days}, {"mg (2 seeds)": ("mg-0", "mg-1")})
    # no_control -1.5, the optimum 0.5 in the mean: 2 lie between
    assert found.score("mg (2 seeds)") == pytest.approx((0.125 + 1.5) / 2.0)
    assert found.scores("mg-0") == pytest.approx(np.array([[0.75, 0.75, 0.75, 1.0]]))
    assert found.scores("optimum") == pytest.approx(np.ones((1, 4)))
    assert found.score("no_control") == pytest.approx(0.0)
    told = found.score_statistics("mg (2 seeds)")
    assert told is not None
    assert told["mean"].value == pytest.approx(found.score("mg (2 seeds)"))
    assert told["optimality_gap"].value == pytest.approx(1.0 - told["mean"].value)
    profile = found.profiles()["mg (2 seeds)"]
    assert profile.share[0] == 1.0
    assert profile.share[-1] == 0.0
    # rule_based is the best baseline: mg-0 beats it on days 3, 5, 6 and is its equal on 4, mg-1 on 3, 4, half on 5, 6
    assert found.improvement("mg (2 seeds)", "rule_based").value == pytest.approx((3.5 + 3.0) / 8.0)
    without = EvaluationReport(frame.query("policy != 'optimum'"), {**kinds, "optimum": "gone"}, {"days": days})
    assert without.score("mg-0") is None
    # the best baseline is what scores are of then: 1 of it, on each day
    assert without.scores("rule_based") == pytest.approx(np.ones((1, 4)))


def test_patterns_of_runs_are_spelt_out_and_one_that_fits_none_is_told(tmp_path: Path) -> None:
    for name in ("shared-1", "shared-0", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "shared.csv").touch()
    shared = [str(tmp_path / f"shared-{seed}") for seed in (0, 1)]
    assert spell_out(["native", str(tmp_path / "shared*"), "not_there"]) == ["native", *shared, "not_there"]
    with pytest.raises(ScenarioError, match=r"no run has a name like .*none-\*"):
        spell_out([str(tmp_path / "none-*")])
