from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import powergrid
from powergrid.cli import main
from powergrid.cli.replay import say_seen
from powergrid.grid.profiles.profiles import split_days
from powergrid.scenario import load_scenario
from powergrid.training.policies.inference import Network, Policy

SHORT = ["--set", "episode_length=8"]


def run_replay(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["replay", *arguments])
    assert end.value.code == 0


@pytest.fixture(scope="module")
def trained_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    env = powergrid.make("ieee13_mg")
    networks, spaces = {}, {}
    for agent in env.possible_agents:
        width, spaces[agent] = env.observation_space(agent).shape[0], env.action_space(agent)
        n = 2 * spaces[agent].shape[0]  # a mean and a spread each
        networks[agent] = Network((np.zeros((n, width), np.float32),), (np.zeros(n, np.float32),), ("linear",))
    env.close()
    run = tmp_path_factory.mktemp("runs") / "run"
    Policy(networks, {agent: agent for agent in spaces}, spaces).save(run / "policy")
    return run


def test_command_writes_a_table_for_each_policy_and_prints_the_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "day"
    run_replay("no_control", "native", "ieee13_mg", "--date", "2018-07-15", "--out", str(out), *SHORT)
    assert {file.name for file in out.glob("*.parquet")} == {
        "2018-07-15_no_control.parquet",
        "2018-07-15_native.parquet",
    }
    assert "2018-07-15_native.parquet" in (out / "2018-07-15.html").read_text(encoding="utf-8")
    told = capsys.readouterr().out
    assert "ieee13_mg on 2018-07-15, a day of the train split" in told
    row = next(line for line in told.splitlines() if line.strip().startswith("native"))
    assert len(row.split()) == 9  # none is cut off
    assert max(len(line) for line in told.splitlines() if str(out) not in line) <= 80
    assert pd.read_parquet(out / "2018-07-15_native.parquet")["step"].max() == 7


def test_command_plays_the_worst_days(tmp_path: Path) -> None:
    given = ["--worst", "2", "--by", "losses", "--format", "csv", "--set", "split=test"]
    run_replay("no_control", "ieee13_mg", *given, "--out", str(tmp_path), *SHORT)
    assert len(list(tmp_path.glob("*_no_control.csv"))) == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "say which day: one of --date, --day and --worst"),
        (["--day", "1", "--date", "2018-07-15"], "say which day"),
        (["--day", "1", "--format", "xls"], "unknown --format 'xls'"),
        (["--worst", "1", "--by", "size"], "by 'size'; allowed: violations, losses, peak, cost, moves"),
    ],
)
def test_command_says_what_is_wrong(given: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["replay", "no_control", "ieee13_mg", *given])
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("date", "split", "told"),
    [
        ("2018-07-15", "train", "This policy was trained on this day"),
        ("2018-01-16", "all", "This policy was trained on this day"),
        ("2018-02-07", "train", "This policy was chosen by its days of validation"),
        ("2018-01-16", "train", ""),
    ],
)
def test_command_says_where_a_policy_was_trained_on_the_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained_policy: Path, date: str, split: str, told: str
) -> None:
    run = tmp_path / "my_run"
    shutil.copytree(trained_policy, run)
    profiles = load_scenario("ieee13_mg").read_profiles().digest()
    manifest = {"scenario": "ieee13_mg", "policies": {"MG1": "p"}, "env_config": {"split": split}}
    (run / "run.json").write_text(json.dumps({**manifest, "digests": {"profiles": profiles, "feeder": ""}}))
    run_replay(str(run), "ieee13_mg", "--date", date, "--out", str(tmp_path / "out"), *SHORT)
    said = " ".join(capsys.readouterr().out.split())
    assert ("my_run: This policy" in said) is bool(told)
    assert told in said


def test_days_that_a_run_has_seen_are_counted(tmp_path: Path, trained_policy: Path) -> None:
    run = tmp_path / "my_run"
    shutil.copytree(trained_policy, run)
    profiles = load_scenario("ieee13_mg").read_profiles()
    manifest = {"scenario": "ieee13_mg", "policies": {"MG1": "p"}, "env_config": {"split": "train"}}
    (run / "run.json").write_text(json.dumps({**manifest, "digests": {"profiles": profiles.digest(), "feeder": ""}}))
    trained, unseen = (split_days(profiles, split=split)[0] for split in ("train", "test"))
    players = [("my_run", object()), "native"]
    told = say_seen([str(run), "native"], players, profiles, [int(unseen), int(trained)])
    assert list(told) == ["my_run"]
    assert told["my_run"].startswith("1 of these 2 days may not be new to it. Of the first: This policy was trained on")
    assert not say_seen([str(run)], players[:1], profiles, [int(unseen)])
