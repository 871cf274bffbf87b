"""Profiles: the shipped year, users' tables, splits, the series of each load."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powergrid.errors import ScenarioError
from powergrid.grid.profiles.assignment import assign_series
from powergrid.grid.profiles.profiles import (
    Profiles,
    builtin_profiles,
    eligible_days,
    profiles_from_loadshapes,
    read_profiles,
    split_days,
)

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "powergrid" / "grid" / "profiles" / "profiles.npz"
SPLITS = ("train", "validation", "test")
MONDAY = np.datetime64("2018-01-01", "m")


def make_table(days: int = 2, step_minutes: int = 60) -> pd.DataFrame:
    time = pd.date_range("2021-06-01", periods=days * 1440 // step_minutes, freq=f"{step_minutes}min")
    hour = time.hour.to_numpy() + time.minute.to_numpy() / 60.0
    return pd.DataFrame(
        {
            "time": time,
            "demand_pu:school": 0.5 + 0.3 * np.sin(hour),
            "load_pu:bakery": 0.4,
            "irradiance_pu": np.clip(np.sin((hour - 6) / 12 * np.pi), 0, None),
            "temperature_c": 15.0 + hour / 4,
            "price_usd_per_kwh:flat": 0.2,
        }
    )


def problems_of(frame: pd.DataFrame) -> tuple[str, ...]:
    with pytest.raises(ScenarioError) as caught:
        read_profiles(frame)
    return caught.value.problems


# the shipped year ------------------------------------------------------------------------------------------------


def test_builtin_year_is_whole_and_starts_on_a_monday() -> None:
    profiles = builtin_profiles()
    assert profiles.n_rows == 35040
    assert (profiles.n_days, profiles.rows_per_day, profiles.step_minutes) == (365, 96, 15)
    assert profiles.start == MONDAY
    assert profiles.demand_pu.shape == (35040, 24)
    assert len(set(profiles.demand_names)) == 24
    assert set(profiles.price_usd_per_kwh) == {"time_of_use", "wholesale"}
    assert SHIPPED.stat().st_size < 3e6


def test_builtin_year_every_series_is_finite_moves_and_cannot_be_written() -> None:
    profiles = builtin_profiles()
    assert profiles.pv_pu is not None
    assert profiles.irradiance_pu is not None
    assert profiles.temperature_c is not None
    series = [*profiles.demand_pu.T, profiles.pv_pu, profiles.irradiance_pu, profiles.temperature_c]
    for values in (*series, *profiles.price_usd_per_kwh.values()):
        assert np.isfinite(values).all()
        # the tariff repeats from Monday to Friday; anything else differs from one day to the next
        assert (np.ptp(values.reshape(365, 96), axis=1) > 0).all()
        assert not values.flags.writeable
    for values in (*series, profiles.price_usd_per_kwh["wholesale"]):
        assert len(np.unique(values.reshape(365, 96), axis=0)) == 365


def test_builtin_demand_is_normalised_and_its_variants_differ() -> None:
    profiles = builtin_profiles()
    np.testing.assert_allclose(np.quantile(profiles.demand_pu, 0.995, axis=0), 1.0, atol=2e-4)
    assert profiles.demand_pu.min() > 0.05
    assert profiles.demand_pu.max() < 1.6
    mean = profiles.demand_pu.mean(axis=0)
    assert ((mean > 0.3) & (mean < 0.6)).all()
    for first in (0, 8, 16):
        correlation = np.atleast_2d(np.corrcoef(profiles.demand_pu[:, first : first + 8].T))[np.triu_indices(8, 1)]
        assert correlation.min() > 0.6  # one class
        assert correlation.max() < 0.98  # but not one customer


def test_builtin_demand_by_class_has_its_own_day() -> None:
    profiles = builtin_profiles()
    day = profiles.demand_pu.reshape(365, 96, 3, 8).mean(axis=(0, 3))
    assert 17 <= day[:, 0].argmax() / 4 <= 21  # households peak in the evening
    assert 8 <= day[:, 1].argmax() / 4 <= 14  # commerce by day
    week = profiles.demand_pu[: 52 * 672].reshape(52, 7, 96, 3, 8).mean(axis=(0, 2, 4))
    assert week[6, 1] < 0.6 * week[:5, 1].mean()  # and hardly on Sundays


def test_builtin_sun_is_down_at_night_and_highest_near_solar_noon() -> None:
    profiles = builtin_profiles()
    assert profiles.pv_pu is not None
    assert profiles.irradiance_pu is not None
    by_day = profiles.pv_pu.reshape(365, 96)
    assert (by_day[:, : 4 * 4] == 0).all()
    assert (by_day[:, 21 * 4 :] == 0).all()
    assert (by_day[:, 11 * 4 : 13 * 4].max(axis=1) > 0).all()
    # 79.95 W in the zone of 75 W: the sun is highest about 20 min after noon, within the equation of time of 16 min
    energy = profiles.irradiance_pu.reshape(365, 96).sum(axis=0)
    centre = float((energy * (np.arange(96) + 0.5) / 4).sum() / energy.sum())
    assert abs(centre - 12.33) < 0.35
    assert profiles.pv_pu.max() <= 1.05
    # 8 % of losses and some 3 % for warm cells leave about 0.89 of the irradiation [kWh/m2] as yield [kWh/kWp]
    assert 0.15 < profiles.pv_pu.mean() < 0.20
    assert 0.86 < profiles.pv_pu.sum() / profiles.irradiance_pu.sum() < 0.92


def test_builtin_pv_is_derated_by_temperature() -> None:
    profiles = builtin_profiles()
    assert profiles.pv_pu is not None
    assert profiles.irradiance_pu is not None
    assert profiles.temperature_c is not None
    bright = (profiles.irradiance_pu > 0.75) & (profiles.irradiance_pu < 0.9)
    yields = profiles.pv_pu[bright] / profiles.irradiance_pu[bright]
    air = profiles.temperature_c[bright]
    slope = np.polyfit(air, yields, 1)[0]
    assert -0.0045 < slope < -0.0025  # -0.37 % per kelvin of a yield of about 0.9


def test_builtin_prices_are_as_documented() -> None:
    prices = builtin_profiles().price_usd_per_kwh
    tou = prices["time_of_use"].reshape(365, 24, 4)
    assert tou[0, 17, 0] == 0.24
    assert tou[0, 12, 0] == 0.13
    assert tou[0, 3, 0] == 0.09
    assert tou[182, 17, 0] == 0.32
    assert tou[182, 12, 0] == 0.15
    assert tou[188, 17, 0] == 0.15  # Sunday, 8 July
    wholesale = prices["wholesale"]
    assert 0.03 < wholesale.mean() < 0.07
    assert 2 < (wholesale > 0.2).sum() / 4 < 100  # hours of spikes
    assert 2 < (wholesale < 0.005).sum() / 4 < 100  # hours of next to nothing
    assert wholesale.min() >= -0.02
    assert wholesale.max() <= 1.0


@pytest.mark.slow
def test_script_run_again_gives_the_shipped_file(tmp_path: Path) -> None:
    """Within one stored count (1e-4 pu) by the same packages, within 1 % of every annual mean by others."""
    if importlib.util.find_spec("pvlib") is None or importlib.util.find_spec("demandlib") is None:
        pytest.skip("needs the extra 'profiles'")
    made = tmp_path / "profiles.npz"
    script = str(ROOT / "scripts" / "make_profiles.py")
    subprocess.run([sys.executable, script, "--out", str(made)], check=True, capture_output=True, timeout=300)
    with np.load(made) as new, np.load(SHIPPED) as old:
        versions = [json.loads(archive["meta"].tobytes())["made_with"] for archive in (new, old)]
        assert set(new.files) == set(old.files)
        for key in set(old.files) - {"meta"}:
            a, b = new[key].astype(np.int64), old[key].astype(np.int64)
            assert a.shape == b.shape
            if versions[0] == versions[1]:
                assert np.abs(a - b).max() <= 1, key
            np.testing.assert_allclose(a.mean(axis=-1), b.mean(axis=-1), rtol=0.01, err_msg=key)


# resampling, digest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_minutes", [1, 5, 30, 60, 1440])
def test_resample_any_allowed_step_keeps_energy(step_minutes: int) -> None:
    profiles = read_profiles(make_table(days=3, step_minutes=15))
    changed = profiles.resample(step_minutes)
    assert (changed.n_days, changed.step_minutes) == (3, step_minutes)
    for name, before in profiles._series().items():
        after = changed._series()[name]
        np.testing.assert_allclose(after.sum(axis=0) * step_minutes, before.sum(axis=0) * 15, rtol=1e-12)
    assert changed.resample(step_minutes) is changed


def test_resample_coarser_takes_means_and_finer_holds() -> None:
    profiles = Profiles("two", 720, MONDAY, np.array([[1.0], [3.0]]), ("a",))
    assert profiles.resample(1440).demand_pu.tolist() == [[2.0]]
    assert profiles.resample(360).demand_pu.ravel().tolist() == [1.0, 1.0, 3.0, 3.0]


@pytest.mark.parametrize("step_minutes", [0, -15, 7, 10, 75, 2880])
def test_resample_misfitting_step_lists_what_is_allowed(step_minutes: int) -> None:
    with pytest.raises(ScenarioError, match=rf"step_minutes {step_minutes} does not fit rows of 15 min; allowed: 1, 3"):
        builtin_profiles().resample(step_minutes)


def test_digest_follows_content_and_not_name() -> None:
    table = make_table()
    first = read_profiles(table, name="a").digest()
    assert read_profiles(table, name="b").digest() == first
    assert pickle.loads(pickle.dumps(read_profiles(table))).digest() == first
    table["demand_pu:school"] += 1e-9
    assert read_profiles(table).digest() != first


def test_profiles_leave_the_callers_arrays_writeable() -> None:
    demand = np.ones((2, 1))
    profiles = Profiles("two", 720, MONDAY, demand, ("a",))
    assert demand.flags.writeable
    assert not profiles.demand_pu.flags.writeable


# users' tables ---------------------------------------------------------------------------------------------------


def test_read_same_table_by_every_way_gives_the_same_profiles(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    table = make_table()
    table["demand_pu:school"] = table["demand_pu:school"].round(4)
    table["irradiance_pu"] = table["irradiance_pu"].round(4)  # pandas 2 reads the last of 17 digits off by one
    table.to_csv(tmp_path / "mine.csv", index=False)
    table.to_csv(tmp_path / "mine.csv.gz", index=False)
    table.to_parquet(tmp_path / "mine.parquet")
    ways = [read_profiles(tmp_path / f"mine{ending}") for ending in (".csv", ".csv.gz", ".parquet")]
    ways += [read_profiles(table), read_profiles(table.set_index("time")), read_profiles(str(tmp_path / "mine.csv"))]
    assert len({profiles.digest() for profiles in ways}) == 1
    assert ways[0].name == "mine"
    assert ways[0].demand_names == ("school", "bakery")
    assert ways[0].start == np.datetime64("2021-06-01")
    assert ways[0].step_minutes == 60
    assert list(ways[0].price_usd_per_kwh) == ["flat"]


def test_read_pv_absent_is_derived_from_sun_and_temperature() -> None:
    table = make_table()
    pv_pu = read_profiles(table).pv_pu
    assert pv_pu is not None
    # by hand at noon: 18 degC air, 1000 W/m2, NOCT 45 degC -> cell 49.25 degC -> 1 - 0.0037 * 24.25
    assert pv_pu[12] == pytest.approx(0.910275)
    table["pv_pu"] = 0.5
    given = read_profiles(table).pv_pu
    assert given is not None
    assert (given == 0.5).all()


@pytest.mark.parametrize("missing", ["irradiance_pu", "temperature_c"])
def test_read_pv_not_derivable_is_none(missing: str) -> None:
    assert read_profiles(make_table().drop(columns=missing)).pv_pu is None


def test_read_plain_demand_and_price_columns_have_a_name() -> None:
    table = make_table()[["time"]].assign(load_pu=0.5, price_usd_per_kwh=0.1)
    profiles = read_profiles(table)
    assert profiles.demand_names == ("demand",)
    assert list(profiles.price_usd_per_kwh) == ["price"]


def test_read_time_zone_is_dropped() -> None:
    table = make_table()
    table["time"] = table["time"].dt.tz_localize("Etc/GMT+5")
    assert read_profiles(table).digest() == read_profiles(make_table()).digest()


def test_read_bad_table_reports_every_problem_at_once() -> None:
    table = make_table().rename(columns={"temperature_c": "temprature_c"})
    table.loc[3, "demand_pu:school"] = np.nan
    table.loc[9, "demand_pu:school"] = np.inf
    table.loc[5, "irradiance_pu"] = -0.1
    table["load_pu:bakery"] = table["load_pu:bakery"].astype(object)
    table.loc[2, "load_pu:bakery"] = "n/a"
    problems = problems_of(table.drop(index=10).reset_index(drop=True))
    assert len(problems) == 5
    assert problems[0].startswith("irregular step: row 10 (2021-06-01T11:00:00) is 120 min after row 9 (2021-06-01T09")
    assert "'demand_pu:school': 2 values are missing or not finite, the first in row 3 (2021-06-01T03" in problems[1]
    assert "'load_pu:bakery': holds object, not numbers; row 2 holds 'n/a'" in problems[2]
    assert "'irradiance_pu': 1 negative values, the first -0.1 in row 5" in problems[3]
    assert "unknown column 'temprature_c' (did you mean 'temperature_c'" in problems[4]


def test_read_without_time_says_what_is_nearest() -> None:
    problems = problems_of(make_table().rename(columns={"time": "Times"}))
    assert problems[0] == "no column 'time' and no DatetimeIndex (is it 'Times'?)"


def test_read_rows_left_over_says_how_many() -> None:
    assert problems_of(make_table().iloc[:-5]) == (
        "not whole days: 43 rows are 1 days of 24 rows and 19 rows left over; remove them or add 5",
    )


def test_read_repeated_time_says_where() -> None:
    table = make_table()
    table["time"] = table["time"].where(table.index != 4, table["time"].iloc[3])
    assert "row 4 (2021-06-01T03:00:00) does not come after row 3" in problems_of(table)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[2:26], "a table starts at midnight"),
        (lambda t: t.iloc[:0], "the table has no rows"),
        (lambda t: t.iloc[:1], "one row; a table holds at least a whole day"),
        (lambda t: t.assign(time=range(48)), "holds numbers, not timestamps"),
        (lambda t: t.assign(time="06/01/2021 00:00"), "48 rows are no ISO 8601 timestamp, the first is row 0"),
        (lambda t: t.assign(time=pd.date_range("2021", periods=48, freq="7min")), "a step of 7 min; allowed are"),
        (lambda t: t.drop(columns=["demand_pu:school", "load_pu:bakery"]), "no demand column"),
        (lambda t: t.assign(**{"demand_pu:bakery": 1.0}), "a second column for 'bakery'"),
        (lambda t: t.assign(**{"load_pu:bakery": True}), "holds bool, not numbers"),
        (
            lambda t: t.assign(time=["2021-06-01T00:00+01:00"] * 24 + ["2021-06-02T00:00+02:00"] * 24),
            "mixes time zones",
        ),
    ],
)
def test_read_bad_table_says_why(change, message: str) -> None:  # type: ignore[no-untyped-def]
    assert any(message in problem for problem in problems_of(change(make_table())))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "demand_pu:school",
            830.0,
            "20, as 830 in row 7 (2021-06-01T07:00:00); it is per unit of a load's rated",
        ),
        ("demand_kvar_pu:bakery", 90.0, "it is per unit of a load's rated kvar"),
        ("irradiance_pu", 800.0, "divide W/m2 by 1000"),
        ("pv_pu", 55.0, "divide percent by 100"),
        ("temperature_c", 288.15, "0 deg C are 273.15 K"),
        ("price_usd_per_kwh:flat", 45.0, "divide USD/MWh by 1000"),
        ("price_usd_per_kwh:flat", -45.0, "divide USD/MWh by 1000"),
    ],
)
def test_read_value_in_another_unit_names_the_remedy(column: str, value: float, message: str) -> None:
    frame = make_table().assign(pv_pu=0.1, **{"demand_kvar_pu:bakery": 0.5})
    frame.loc[7, column] = value
    (problem,) = problems_of(frame)
    assert problem.startswith(f"column {column!r}: 1 values beyond")
    assert message in problem


def test_read_reactive_demand_of_its_own_beside_that_of_others() -> None:
    mine = read_profiles(make_table().assign(**{"demand_kvar_pu:bakery": 0.5}))
    assert mine.demand_kvar_pu is not None
    bakery, school = (mine.demand_names.index(name) for name in ("bakery", "school"))
    assert set(mine.demand_kvar_pu[:, bakery].tolist()) == {0.5}
    assert mine.demand_kvar_pu[:, school].tolist() == mine.demand_pu[:, school].tolist()


def test_read_missing_file_names_the_nearest(tmp_path: Path) -> None:
    make_table().to_csv(tmp_path / "feeder_2021.csv", index=False)
    with pytest.raises(ScenarioError, match=r"no such file \(did you mean 'feeder_2021.csv'\?\)"):
        read_profiles(tmp_path / "feeder_2012.csv")
    with pytest.raises(ScenarioError, match=r"there is no folder"):
        read_profiles(tmp_path / "nowhere" / "feeder.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScenarioError, match=r"the folder holds no table"):
        read_profiles(tmp_path / "empty" / "feeder.csv")


@pytest.mark.parametrize(("name", "message"), [("a.ods", "cannot tell the format"), ("a.csv", "not a readable table")])
def test_read_unreadable_file_says_why(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(ScenarioError, match=message):
        read_profiles(tmp_path / name)


def test_read_parquet_without_pyarrow_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ScenarioError, match="Parquet needs pyarrow: pip install pyarrow"):
        read_profiles(tmp_path / "mine.parquet")


def test_import_and_builtin_year_need_no_pandas() -> None:
    code = "import sys; from powergrid.grid.profiles import builtin_profiles; builtin_profiles(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert not {"pandas", "pyarrow", "pvlib", "demandlib", "ray", "torch", "opendssdirect"} & set(loaded.split())


# LoadShapes ------------------------------------------------------------------------------------------------------


def test_loadshapes_daily_and_hourly_give_one_day() -> None:
    hourly = np.arange(24.0)
    profiles = profiles_from_loadshapes({"Default": (hourly, 60.0), "half": (np.array([0.2, 0.8]), 720.0)}, 30)
    assert (profiles.n_days, profiles.rows_per_day) == (1, 48)
    assert profiles.demand_names == ("Default", "half")
    np.testing.assert_allclose(profiles.demand_pu[:, 0], np.repeat(hourly, 2))
    np.testing.assert_allclose(profiles.demand_pu[:, 1], np.repeat([0.2, 0.8], 24))
    assert profiles.pv_pu is None


def test_loadshapes_shorter_repeat_up_to_the_longest() -> None:
    yearly, daily = np.random.default_rng(0).random(8760), np.random.default_rng(1).random(24)
    profiles = profiles_from_loadshapes({"yearly": (yearly, 60.0), "daily": (daily, 60.0)}, 60)
    assert profiles.n_days == 365
    np.testing.assert_allclose(profiles.demand_pu[:, 0], yearly)
    np.testing.assert_allclose(profiles.demand_pu[:, 1], np.tile(daily, 365))


def test_loadshapes_part_of_a_day_repeats_to_a_whole_one() -> None:
    profiles = profiles_from_loadshapes({"odd": (np.arange(36.0), 60.0)}, 60)
    assert profiles.n_days == 2
    np.testing.assert_allclose(profiles.demand_pu[36:, 0], np.arange(12.0), atol=1e-9)


@given(n=st.integers(1, 200), interval=st.sampled_from([1.0, 7.5, 15.0, 40.0, 60.0, 90.0]))
def test_loadshapes_any_interval_keeps_mean_and_range(n: int, interval: float) -> None:
    values = np.random.default_rng(n).random(n)
    profiles = profiles_from_loadshapes({"s": (values, interval)}, 15)
    assert profiles.n_rows == profiles.n_days * 96
    assert profiles.demand_pu.min() >= values.min() - 1e-9
    assert profiles.demand_pu.max() <= values.max() + 1e-9
    if (profiles.n_days * 1440 / (n * interval)).is_integer():
        assert profiles.demand_pu.mean() == pytest.approx(values.mean())


def test_loadshapes_bad_report_every_one() -> None:
    shapes = {"a": (np.ones(24), 0.0), "b": (np.array([1.0, np.nan]), 60.0), "c": (np.array([]), 60.0)}
    with pytest.raises(ScenarioError) as caught:
        profiles_from_loadshapes(shapes, 7)
    assert len(caught.value.problems) == 4
    with pytest.raises(ScenarioError, match="the feeder has no LoadShape"):
        profiles_from_loadshapes({}, 15)


# splits ----------------------------------------------------------------------------------------------------------


def test_split_builtin_year_is_a_partition_by_whole_weeks() -> None:
    days = {split: split_days(builtin_profiles(), None, split) for split in SPLITS}
    assert np.array_equal(np.sort(np.concatenate(list(days.values()))), split_days(builtin_profiles(), None, "all"))
    assert {split: len(found) for split, found in days.items()} == {"train": 260, "validation": 42, "test": 63}
    for split in ("validation", "test"):
        weeks = days[split].reshape(-1, 7)
        assert (weeks[:, 0] % 7 == 0).all()
        assert (np.diff(weeks, axis=1) == 1).all()


@pytest.mark.parametrize("split", SPLITS)
def test_split_builtin_year_has_every_season(split: str) -> None:
    dates = MONDAY.astype("datetime64[D]") + split_days(builtin_profiles(), None, split)
    month = dates.astype("datetime64[M]").astype(int) % 12 + 1
    seasons, counts = np.unique(month % 12 // 3, return_counts=True)
    assert seasons.tolist() == [0, 1, 2, 3]
    assert counts.min() >= 5


@given(n_days=st.integers(27, 800), start=st.integers(0, 20000))
def test_split_any_long_series_is_a_partition_from_mondays(n_days: int, start: int) -> None:
    first = np.datetime64("1990-01-01", "D") + start
    days = {split: split_days(n_days, first, split) for split in SPLITS}
    assert np.array_equal(np.sort(np.concatenate(list(days.values()))), np.arange(n_days))
    for split in ("validation", "test"):
        weeks = days[split].reshape(-1, 7)
        assert len(weeks) >= 1
        assert all((first + int(day)).item().weekday() == 0 for day in weeks[:, 0])


def test_split_week_cut_by_the_year_trains() -> None:
    # 1 January 2021 was a Friday: three days before the first Monday
    train = split_days(31, np.datetime64("2021-01-01"), "train")
    assert train.tolist() == [*range(17)]
    assert split_days(31, np.datetime64("2021-01-01"), "validation").tolist() == [*range(17, 24)]
    assert split_days(31, np.datetime64("2021-01-01"), "test").tolist() == [*range(24, 31)]


def test_split_too_short_or_unknown_is_refused_with_the_remedy() -> None:
    assert split_days(1, MONDAY, "all").tolist() == [0]
    with pytest.raises(ScenarioError, match="at least 3 whole weeks from Monday to Sunday, and there are 2; use 'all'"):
        split_days(20, MONDAY, "train")
    with pytest.raises(ScenarioError, match="unknown split 'validate' \\(did you mean 'validation'"):
        split_days(365, MONDAY, "validate")
    with pytest.raises(ScenarioError, match="needs the date it starts at"):
        split_days(365, None, "train")


@pytest.mark.parametrize("split", [*SPLITS, "all"])
@pytest.mark.parametrize(("horizon", "step", "span"), [(1, 15, 1), (96, 15, 1), (97, 15, 2), (24, 60, 1), (672, 15, 7)])
def test_eligible_days_cover_days_of_the_split_only(split: str, horizon: int, step: int, span: int) -> None:
    days = set(split_days(builtin_profiles(), None, split).tolist())
    found = eligible_days(builtin_profiles(), split, horizon, step).tolist()
    assert found == [day for day in sorted(days) if all(day + i in days for i in range(span))]
    assert found


def test_eligible_days_episode_too_long_says_the_longest() -> None:
    with pytest.raises(ScenarioError, match=r"cover 8 days.* the longest possible is 672 steps \(7 days\)"):
        eligible_days(builtin_profiles(), "test", 8 * 96)
    with pytest.raises(ScenarioError, match=r"the longest possible is 8760 steps \(365 days\)"):
        eligible_days(builtin_profiles(), "all", 8761, 60)
    with pytest.raises(ScenarioError, match="0 is below 1"):
        eligible_days(builtin_profiles(), "all", 0)


# series of the loads ---------------------------------------------------------------------------------------------

LOADS = [f"load_{i}" for i in range(200)]


def test_assign_same_seed_gives_the_same_in_any_order_and_company() -> None:
    profiles, kw = builtin_profiles(), np.linspace(1, 300, 200)
    first = assign_series(LOADS, kw, None, profiles, seed=3)
    assert np.array_equal(first, assign_series([n.upper() for n in LOADS], kw, None, profiles, seed=3))
    assert np.array_equal(first[::-1], assign_series(LOADS[::-1], kw[::-1], None, profiles, seed=3))
    assert np.array_equal(first[40:50], assign_series(LOADS[40:50], kw[40:50], None, profiles, seed=3))
    assert not np.array_equal(first, assign_series(LOADS, kw, None, profiles, seed=4))
    # a fact that holds in every process: Python's own hash would change from run to run
    assert assign_series(["671", "634a", "645"], [1155, 160, 170], None, profiles, 0).tolist() == [6, 7, 0]


def test_assign_without_rule_draws_by_size() -> None:
    names = builtin_profiles().demand_names
    for kw, low, high in ((10.0, 0.1, 0.3), (500.0, 0.65, 0.85)):
        drawn = [names[i] for i in assign_series(LOADS, np.full(200, kw), None, builtin_profiles(), 0)]
        commercial = np.mean([name.startswith("commercial") for name in drawn])
        assert low < commercial < high
        assert not any(name.startswith("agricultural") for name in drawn)
        assert len(set(drawn)) == 16  # every variant of both classes


def test_assign_rules_go_by_name_then_by_first_pattern() -> None:
    rules = {"LOAD_1*": "agricultural", "load_*": "residential", "load_11": "commercial", "load_12": "residential_5"}
    names = builtin_profiles().demand_names
    drawn = [names[i] for i in assign_series(LOADS, np.full(200, 500.0), rules, builtin_profiles(), 0)]
    assert drawn[10].startswith("agricultural")
    assert drawn[20].startswith("residential")
    assert drawn[11].startswith("commercial")
    assert drawn[12] == "residential_5"


def test_assign_on_own_series_draws_among_all() -> None:
    profiles = read_profiles(make_table())
    assert set(assign_series(LOADS, np.ones(200), None, profiles, 0)) == {0, 1}
    assert set(assign_series(LOADS, np.ones(200), {"*": "bakery"}, profiles, 0)) == {1}


def test_assign_wrong_rules_are_all_reported() -> None:
    with pytest.raises(ScenarioError) as caught:
        assign_series(["load_1"], [5.0], {"load_1": "residental", "laod_1": "commercial"}, builtin_profiles(), 0)
    first, second = caught.value.problems
    assert "unknown class 'residental' (did you mean 'residential'" in first
    assert "unknown load 'laod_1' (did you mean 'load_1'" in second


def test_assign_series_with_a_loads_name_is_that_loads_alone() -> None:
    mine = Profiles(
        "mine", 720, MONDAY, np.ones((2, 4)), ("B", "other_0", "other_1", "meter 7"), load_series={"d": "meter 7"}
    )
    loads, kw = ["a", "b", "c", "d"], np.full(4, 10.0)
    for seed in range(20):
        a, b, c, d = assign_series(loads, kw, None, mine, seed)
        assert (b, d) == (0, 3)
        assert {a, c} <= {1, 2}
        assert set(assign_series(loads, kw, {"*": "other"}, mine, seed)[[0, 2]]) <= {1, 2}
    # a rule by pattern leaves it, one by full name goes before it, and a series asked for by name is no draw
    assert assign_series(loads, kw, {"*": "other_0", "d": "B", "b": "other_1"}, mine, 0).tolist() == [1, 2, 1, 0]


def test_assign_when_every_series_belongs_to_a_load_the_others_are_told() -> None:
    mine = Profiles("mine", 720, MONDAY, np.ones((2, 2)), ("a", "b"))
    with pytest.raises(ScenarioError, match=r"c, d have no series, and all 2 there are belong to other"):
        assign_series(["a", "b", "c", "d"], np.ones(4), None, mine, 0)


def test_split_days_left_out_are_in_no_split() -> None:
    year = builtin_profiles()
    gap = replace(year, left_out=(0, 5, 100))
    for split in (*SPLITS, "all"):
        assert set(split_days(gap, split=split)) == set(split_days(year, split=split)) - {0, 5, 100}
    assert 4 not in eligible_days(gap, "train", 2 * 96)
    with pytest.raises(ScenarioError, match="all 365 of them are left out"):
        eligible_days(replace(year, left_out=tuple(range(365))), "all", 96)


def test_digest_of_measured_series_follows_whose_they_are() -> None:
    mine = Profiles("mine", 720, MONDAY, np.ones((2, 1)), ("a",))
    own = replace(mine, load_series={"a": "a"}, load_base={"a": (5.0, 1.0)})
    changed = (own, replace(own, load_base={"a": (6.0, 1.0)}), replace(own, left_out=(0,)))
    assert len({each.digest() for each in (mine, replace(own, demand_kvar_pu=np.ones((2, 1))), *changed)}) == 5
