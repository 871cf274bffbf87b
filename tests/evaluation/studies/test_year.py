"""Studies of a span: days that go on from each other, parts that are kept and gone on with, files that agree."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.studies import year
from powergrid.evaluation.studies.summary import Summary
from powergrid.evaluation.studies.year import study_year
from powergrid.files import sole_use
from powergrid.scenario import load_scenario

SPAN: dict[str, Any] = {"begin": "2018-01-30", "end": "2018-02-02"}
CONFIG = {"env_name": "ieee13_voltvar"}
POLICIES = ["rule_based", "native"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("study") / "here"
    study_year(CONFIG, POLICIES, place, **SPAN)
    return place


@pytest.mark.parametrize("policy", POLICIES)
def test_days_of_a_month_go_on_from_each_other(policy: str, folder: Path) -> None:
    days = pd.read_parquet(folder / "days.parquet").query("policy == @policy")
    assert days["date"].tolist() == ["2018-01-30", "2018-01-31", "2018-02-01", "2018-02-02"]
    base = load_scenario("ieee13_voltvar", {"split": "all", "episode_length": 48})
    scenario = load_scenario(base, BASELINES[policy].overrides(base))
    task, player = GridTask(scenario), BASELINES[policy].make(0)
    day = int(days["day"].iloc[0])
    task.reset(0, np.random.default_rng([0, day]), {"day": day})
    player.reset(task, 0)
    source, moves = [], []
    for _ in range(48):
        task.action_buffer()[:] = player.act(task)
        task.step()
        source.append(float(task.simulation.snapshot.source_kva[0].real))
        moves.append(int(task.simulation.operations[0]))
    task.close()
    peaks = [max(source[:24]), max(source[24:])]
    assert days["import_peak_kw"].head(2).tolist() == pytest.approx(peaks)
    assert days["operations"].head(2).tolist() == [sum(moves[:24]), sum(moves[24:])]
    assert days["storage_cycles"].max() < 3.0  # each day's own, not the month's so far


def test_a_study_that_was_stopped_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[str] = []
    play = year.play_part

    def stop_at_third(*given: Any) -> Summary:
        if len(played) == 2:
            raise KeyboardInterrupt
        played.append(given[2].file)
        return play(*given)

    monkeypatch.setattr(year, "play_part", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        study_year(CONFIG, POLICIES, tmp_path, **SPAN)
    played.clear()
    monkeypatch.setattr(year, "play_part", lambda *given: played.append(given[2].file) or play(*given))
    done: list[tuple[int, int]] = []
    study_year(CONFIG, POLICIES, tmp_path, **SPAN, progress=lambda *given: done.append(given))
    assert played == ["native_2018-01_29-2.npz", "native_2018-02_31-2.npz"]
    assert done == [(6, 8), (8, 8)]
    for file in ("days.csv", "nodes.csv", "moves.csv", "terms.csv"):
        assert (tmp_path / file).read_text() == (folder / file).read_text()


def test_worker_processes_play_the_same(folder: Path, tmp_path: Path) -> None:
    study_year(CONFIG, POLICIES, tmp_path, **SPAN, workers=2)
    assert (tmp_path / "days.csv").read_text() == (folder / "days.csv").read_text()


def test_sqlite_and_parquet_hold_the_same(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "study.sqlite")) as database:
        names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        assert {"days", "nodes", "branches", "moves", "devices", "terms", "comparisons"} <= set(names)
        for name in names:
            table, other = pd.read_sql(f'select * from "{name}"', database), pd.read_parquet(folder / f"{name}.parquet")
            empty = {column: other.dtypes[column] for column in other if other[column].isna().all()}  # NULL has no type
            pd.testing.assert_frame_equal(table.astype(empty), other, check_dtype=False)


def test_another_study_in_the_folder_is_refused_and_other_policies_may_come_to_it(folder: Path) -> None:
    with pytest.raises(ScenarioError, match="holds a study of another scenario and seed"):
        study_year({**CONFIG, "load_scale": 1.1}, POLICIES, folder, **SPAN, seed=1)
    report = study_year(CONFIG, [*POLICIES, "no_control"], folder, **SPAN)
    assert report.against == ("native", "no_control")
    assert len(report.days) == 12


def test_two_at_once_and_a_damaged_part_are_told(folder: Path) -> None:
    with sole_use(folder), pytest.raises(PowerGridError, match="in use"):
        study_year(CONFIG, POLICIES, folder, **SPAN)
    part = folder / "parts" / "native_2018-01_29-2.npz"
    kept = part.read_bytes()
    part.write_bytes(kept[:200])
    with pytest.raises(PowerGridError, match=r"native_2018-01_29-2\.npz"):
        study_year(CONFIG, POLICIES, folder, **SPAN)
    part.write_bytes(kept)


def test_another_span_plays_what_it_lacks(folder: Path, tmp_path: Path) -> None:
    longer = SPAN | {"begin": "2018-01-29"}
    report = study_year(CONFIG, ["native"], folder, **longer)
    assert report.days["date"].tolist()[0] == "2018-01-29"
    study_year(CONFIG, ["native"], tmp_path, **longer)
    assert (tmp_path / "days.csv").read_text() == (folder / "days.csv").read_text()


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"begin": "2018-13-01"}, "from '2018-13-01' is no date; write it as 2018-01-01"),
        ({"begin": "2017-01-01", "end": "2020-01-01"}, "from 2017-01-01 is not in the profiles"),
        ({"begin": "2018-03-01", "end": "2018-02-01"}, "from 2018-03-01 is after to 2018-02-01"),
    ],
)
def test_a_span_that_cannot_be_is_told(span: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=message):
        study_year(CONFIG, ["native"], tmp_path / "new", **span)
    assert not (tmp_path / "new").exists()
