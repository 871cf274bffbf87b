from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from powergrid.errors import ScenarioError
from powergrid.evaluation import DayRecording, evaluate, find_worst_days, record_day
from powergrid.evaluation.replay.recording import find_split
from powergrid.evaluation.replay.tables import write_recording
from powergrid.grid.profiles.profiles import pick_days
from powergrid.quantities import RECORDED, STEP
from powergrid.scenario import load_scenario
from tests.evaluation.worlds import ALL_KINDS

POLICIES = ["no_control", "native", "rule_based", "random"]
SIX_HOURS: dict[str, Any] = {**ALL_KINDS, "episode_length": 24}


@pytest.fixture(scope="module")
def day() -> int:
    return int(pick_days(load_scenario(ALL_KINDS, {"split": "test"}).simulate().days, 1)[0])


@pytest.fixture(scope="module")
def recordings(day: int) -> list[DayRecording]:
    return record_day({"scenario": ALL_KINDS}, POLICIES, day, seed=3)


@pytest.fixture(scope="module")
def table(recordings: list[DayRecording], tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    file = write_recording(recordings[2], tmp_path_factory.mktemp("replay") / "day.parquet")
    return pd.read_parquet(file)


def test_every_column_of_an_evaluation_is_recomputed_from_the_recording(
    recordings: list[DayRecording], day: int
) -> None:
    report = evaluate({"scenario": ALL_KINDS}, POLICIES, days=1, seed=3, n_envs=1)
    assert report.frame["day"].unique().tolist() == [day]
    for recording, (_, row) in zip(recordings, report.frame.iterrows(), strict=True):
        totals = recording.totals()
        assert {"policy", *totals} == set(row.index)
        for name, value in totals.items():
            expected = row[name] if isinstance(value, str | bool) else pytest.approx(row[name], rel=1e-9, abs=1e-9)
            assert value == expected, (recording.policy, name)


def test_every_column_of_an_evaluation_is_recomputed_where_parts_are_dead_and_where_the_day_diverged() -> None:
    outage = {"kind": "line_outage", "element": "Line.671684", "at_hour": 2.0, "duration_hours": 3.0}
    dead = {**ALL_KINDS, "events": {"out": outage}}
    diverging = {"env_name": "ieee13_mg", "load_scale": 3.5, "solver": {"max_iterations": 6}}
    for config, given in (({"scenario": dead}, "rule_based"), (diverging, "random")):
        row = evaluate(config, [given], days=2, n_envs=1).frame.iloc[-1]
        recording = record_day(config, [given], int(row["day"]))[0]
        totals = recording.totals()
        assert totals == {
            name: value if isinstance(value, str | bool | np.bool_) else pytest.approx(value, rel=1e-9, abs=1e-9)
            for name, value in row.drop("policy").items()
        }
        assert recording.finished is (given == "rule_based")
        assert bool(recording.nodes["energised"].all()) is (given == "random")


def test_numbers_of_the_day_follow_from_the_rows_of_the_file(
    table: pd.DataFrame, recordings: list[DayRecording]
) -> None:
    totals = recordings[2].totals()

    def wide(owner: str, quantity: str) -> pd.DataFrame:
        rows = table[(table["owner"] == owner) & (table["quantity"] == quantity)]
        return rows.pivot(index="step", columns="name", values="value")

    v_pu = wide("node", "v_pu")
    outside = (v_pu - 1.05).clip(lower=0.0) + (0.95 - v_pu).clip(lower=0.0)
    assert totals["violation_node_hours"] == pytest.approx((outside > 0.0).to_numpy().sum() * 0.25)
    assert totals["violation_max_pu"] == pytest.approx(outside.to_numpy().max())
    assert totals["v_min_pu"] == pytest.approx(v_pu.to_numpy().min())
    assert totals["loading_max_pu"] == pytest.approx(wide("branch", "loading_pu").to_numpy().max())
    source = wide("network", "source_p_kw")["network"]
    assert totals["import_kwh"] == pytest.approx(source.sum() * 0.25)
    moves = wide("switchgear", "position").diff().abs().sum().sum() + wide("device", "operations").loc[0].sum()
    assert totals["operations"] == pytest.approx(moves)
    for term in ("energy_cost_usd", "curtailed_kwh", "losses_kwh", "unserved_kwh"):
        assert totals[term] == pytest.approx(wide("agent", term).to_numpy().sum())


def test_file_tells_what_it_is_and_has_a_unit_for_every_name(
    table: pd.DataFrame, recordings: list[DayRecording]
) -> None:
    assert list(table.columns) == ["owner", "name", "quantity", "unit", "step", "time", "value"]
    assert set(table["owner"]) == {table.owner for table in recordings[0].tables}
    assert table["time"].min() == pd.Timestamp(recordings[0].date)
    assert table.groupby(["owner", "quantity"], observed=True)["unit"].nunique().max() == 1
    known = {q.name for q in (*RECORDED, *STEP)}
    states = {"available_kw", "on", "connected", "owed_kwh", "urgency", "share", "demand_kw", "soc", "tap", "steps_on",
              "closed", "locked_steps", "starts", "charged_kwh", "deferred_kwh"}  # fmt: skip
    assert set(table["quantity"]) <= known | states
    assert not table["value"].isna().all()


def test_file_in_csv_has_the_same_rows(recordings: list[DayRecording], table: pd.DataFrame, tmp_path: Path) -> None:
    from pyarrow import parquet

    plain = pd.read_csv(write_recording(recordings[2], tmp_path / "new" / "day.csv"), keep_default_na=False)
    assert len(plain) == len(table)
    assert pd.to_numeric(plain["value"]).to_numpy() == pytest.approx(table["value"].to_numpy(), nan_ok=True)
    assert plain["name"].tolist() == table["name"].tolist()
    file = write_recording(recordings[0], tmp_path / "day.parquet")
    facts = json.loads(parquet.read_schema(file).metadata[b"powergrid"])
    assert (facts["policy"], facts["split"], facts["date"]) == ("no_control", "test", recordings[0].date)
    assert facts["totals"]["losses_kwh"] == recordings[0].totals()["losses_kwh"]
    with pytest.raises(ScenarioError, match=r"unknown format 'xlsx'"):
        write_recording(recordings[0], tmp_path / "day.xlsx")


def test_what_was_asked_is_kept_beside_what_was_set(recordings: list[DayRecording]) -> None:
    recording = recordings[3]  # random: asks for what no battery has
    asked, was_set = (recording.devices.of("ess", f"{how}_p_kw") for how in ("asked", "set"))
    assert np.abs(asked - was_set).max() > 1.0
    soc = recording.devices.of("ess", "soc")
    assert soc.min() >= 0.1 - 1e-6
    assert recording.actions.of("ess.p_kw", "asked") == pytest.approx(asked)
    assert recording.actions.of("ess.p_kw", "set") == pytest.approx(was_set)
    assert set(np.unique(recording.devices.of("tie", "position"))) == {0.0, 1.0}
    assert np.abs(recording.channels["observed"]).max() <= 1.0
    moved = np.abs(np.diff(recording.switchgear.of("transformer.reg1", "position")))
    assert moved.max() <= 1.0  # moves_per_step


@pytest.mark.parametrize("start_hour", [6.5, {"choice": [6.5]}])
def test_steps_have_the_times_that_they_are_played_at(start_hour: Any) -> None:
    """An episode of a day from half past six on, the next morning's sun at its end."""
    whole, later = (
        record_day({"env_name": "ieee13_mg", **keys}, ["no_control"], "2018-07-15")[0]
        for keys in ({"episode_length": 192}, {"start_hour": start_hour})
    )
    assert str(later.times[0]) == "2018-07-15T06:30"
    assert str(later.times[-1]) == "2018-07-16T06:15"
    assert later.date == "2018-07-15"
    first = whole.times.tolist().index(later.times[0].item())
    np.testing.assert_array_equal(later.network["sun_pu"], whole.network["sun_pu"][first : first + 96])
    assert later.totals()["date"] == "2018-07-15"


def test_a_day_is_found_by_its_date_in_whichever_split() -> None:
    profiles = load_scenario("ieee13_mg").read_profiles()
    for split, date in (("train", "2018-01-02"), ("validation", "2018-02-07"), ("test", "2018-01-16")):
        recording = record_day({"env_name": "ieee13_mg", "episode_length": 4}, ["no_control"], date)[0]
        assert (recording.date, recording.split, recording.n_steps) == (date, split, 4)
        assert find_split(profiles, recording.day) == split


@pytest.mark.parametrize(
    ("day", "told"),
    [
        ("2019-01-01", "2019-01-01 is not in the profiles 'builtin'; they have 2018-01-01 to 2018-12-31"),
        ("1.2.2018", "'1.2.2018' is no date; write it as 2018-01-01"),
        ("2018-02", "'2018-02' is no date"),
        (365, "day 365 is outside the profiles; allowed: 0..364"),
    ],
)
def test_a_day_that_is_not_there_is_told(day: int | str, told: str) -> None:
    with pytest.raises(ScenarioError) as error:
        record_day({"env_name": "ieee13_mg"}, ["no_control"], day)
    assert told in str(error.value)


def test_worst_days_are_those_of_the_evaluation() -> None:
    config = {"scenario": SIX_HOURS}
    frame = evaluate(config, ["no_control"], days=70).frame
    expected = frame.sort_values("import_peak_kw", ascending=False)["day"].head(3).tolist()
    assert find_worst_days(config, "no_control", 3, "peak") == expected
    with pytest.raises(ScenarioError, match="by 'size'; allowed: violations, losses, peak, cost, moves"):
        find_worst_days(config, "no_control", 3, "size")


def test_recording_names_are_documented_once() -> None:
    keys = [(q.owner, q.name) for q in RECORDED]
    assert len(keys) == len(set(keys))
