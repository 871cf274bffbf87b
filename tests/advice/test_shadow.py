"""Advice beside what was done, and the commands around it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fuzz_advice import random_policy

from powergrid.advice import Advisor, AdvisorOptions, readings_of
from powergrid.advice.shadow import COLUMNS, ShadowLog, read_log, summarise
from powergrid.cli import main
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation.players import PolicyPlayer
from powergrid.scenario import load_scenario

DAY = 120


def play(log: ShadowLog, task: GridTask, steps: int, day: int = DAY) -> list[float]:
    """Play a day as a policy of other weights has it, tell the log what is read, and return the lowest voltages."""
    other = PolicyPlayer(random_policy(task, seed=7))
    task.reset(0, np.random.default_rng([0, day]), {"day": day})
    begin = task.simulation.profiles.start.astype("datetime64[s]") + np.timedelta64(day, "D")
    lowest = []
    for step in range(steps):
        now = str(begin + np.timedelta64(round(step * task.scenario.step_minutes * 60), "s"))
        log.advise({"time": now, **readings_of(task, log.advisor.catalogue)})
        task.action_buffer()[:] = other.act(task)
        task.step()
        lowest.append(float(task.metrics.v_min_pu[0]))
    return lowest


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_log_says_what_was_advised_what_was_done_and_what_the_model_makes_of_both(tmp_path: Path, suffix: str) -> None:
    scenario, file = load_scenario("ieee13_mg", {"split": "all"}), tmp_path / f"log{suffix}"
    task = GridTask(scenario)
    advisor = Advisor(scenario, PolicyPlayer(random_policy(task)), AdvisorOptions(follows=False))
    lowest = play(ShadowLog(advisor, file), task, 4)
    logged = read_log(file)
    assert tuple(logged.columns) == COLUMNS
    per_step = len(task.simulation.actions) + 5
    assert len(logged) == 3 * per_step  # the last step has not ended yet
    of_network = logged[(logged["device"] == "network") & (logged["quantity"] == "v_min_pu")]
    # what the model reckons for what was done is what came, as its day is that of the grid
    assert of_network["done"].tolist() == pytest.approx(lowest[:3], abs=1e-5)
    assert not np.allclose(of_network["advised"], of_network["done"], atol=1e-5)
    powers = logged[logged["quantity"] == "p_kw"]
    assert (powers["done"] - powers["advised"]).tolist() == pytest.approx(powers["difference"].tolist())
    again = ShadowLog(advisor, file)  # gone on with
    play(again, task, 2, DAY + 1)
    assert len(again.read()) == 4 * per_step
    sums = summarise(again.read()).set_index(["device", "quantity"])
    assert sums.loc[("ess_1", "p_kw"), "compared"] == 4
    assert np.isnan(sums.loc[("network", "losses_kw"), "same_share"])
    task.close()
    advisor.close()


def test_log_that_cannot_be_written_leaves_advice_as_it_is(tmp_path: Path) -> None:
    scenario = load_scenario("ieee13_voltvar", {"split": "all"})
    task = GridTask(scenario)
    advisor = Advisor(scenario, PolicyPlayer(random_policy(task)))
    (tmp_path / "folder").mkdir()
    log = ShadowLog(advisor, tmp_path / "folder" / "log.csv")
    play(log, task, 1)
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").write_text("no folder any more")
    later = {"time": "2018-05-01T01:00", "readings": {}}
    advice = log.advise(later)
    assert [problem.code for problem in advice.problems] == ["log-not-written"]
    assert len(advice.setpoints) == 6
    task.close()
    advisor.close()


def test_sums_of_a_log_by_hand() -> None:
    rows: list[dict[str, Any]] = []
    for before, advised, done in ((0.0, 2.0, 1.0), (1.0, 1.0, 1.0), (1.0, None, 0.0)):
        rows.append(dict.fromkeys(COLUMNS) | {"device": "r", "kind": "regulator", "quantity": "tap", "unit": ""})
        rows[-1] |= {"before": before, "advised": advised, "done": done}
    (row,) = summarise(pd.DataFrame(rows)).to_dict("records")
    assert (row["steps"], row["compared"], row["same_share"]) == (3, 2, 0.5)
    assert (row["moves_advised"], row["moves_done"]) == (2.0, 1.0)
    assert (row["mean_advised"], row["mean_done"], row["mean_abs_difference"]) == (1.5, 1.0, 0.5)


@pytest.mark.parametrize(("name", "content"), [("log.txt", ""), ("log.csv", "a,b\n1,2\n"), ("log.jsonl", "{")])
def test_log_in_what_is_none_is_refused_before_advice(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)

    class Nobody:
        def compare_outcomes(self) -> None:
            pass

    with pytest.raises(ScenarioError, match="shadow log"):
        ShadowLog(Nobody(), tmp_path / name)  # type: ignore[arg-type]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_commands_write_an_example_advise_from_it_and_keep_a_shadow_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = GridTask(load_scenario("ieee13_voltvar"))
    random_policy(task).save(tmp_path / "policy")
    task.close()
    of_policy = ("advise", "policy", "ieee13_voltvar")
    assert run(*of_policy, "--example", "r.parquet", "--date", "2018-03-04") == 0
    assert len(pd.read_parquet("r.parquet")) == 24
    capsys.readouterr()
    assert run(*of_policy, "--readings", "r.parquet", "--format", "json") == 0
    advice = json.loads(capsys.readouterr().out)
    assert [each["time"][11:16] for each in advice[:2]] == ["00:00", "01:00"]
    assert all(each["problems"] == [] for each in advice)
    # the example was played under the same advice, so that at each step what stands is what was advised before
    taps = [[(each["set"], each["now"]) for each in step["setpoints"] if each["quantity"] == "tap"] for step in advice]
    for before, after in pairwise(taps):
        assert [advised for advised, _ in before] == [now for _, now in after]
    assert run(*of_policy, "--readings", "r.parquet", "--shadow", "log.csv") == 0
    shown = capsys.readouterr().out
    assert "advice against what was done" in shown
    assert max(map(len, shown.splitlines())) <= 80
    logged = read_log("log.csv")
    switched = logged[logged["quantity"].isin(["tap", "steps_on"])]
    assert (switched["advised"] == switched["done"]).all()
    assert run(*of_policy, "--readings", "r.parquet", "--out", "set.csv") == 0
    assert len(pd.read_csv("set.csv")) == 24 * 6
    assert run(*of_policy, "--spec") == 0
    assert "regulator_1 tap []  -16..16" in capsys.readouterr().out


def test_command_says_all_that_is_wrong_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("advise", "rule_based", "ieee13_voltvar", "--format", "xml", "--done", "x.csv") == 1
    told = capsys.readouterr().err
    assert "3 problems" in told
    assert "--readings" in told
    assert run("advise", "rule_based", "ieee13_voltvar", "--readings", "r.csv", "--fallback", "holt") == 1
    assert "hold" in capsys.readouterr().err
    assert run("advise", "rule_based", "--readings", "r.csv") == 1
    assert "of no scenario" in capsys.readouterr().err
