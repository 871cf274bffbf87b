"""Stamps of any clock: what they say for certain is taken, what they do not is an error that names the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powergrid.errors import ScenarioError
from powergrid.measurements import import_profiles
from powergrid.measurements.tables import MeasuredTable, read_measured
from powergrid.measurements.vocabulary import ImportMap, read_map
from tests.measurements.conftest import make_times

NEW_YORK = "America/New_York"


def read(table: Any, notes: list[str] | None = None, **keys: Any) -> MeasuredTable:
    problems = list[str]()
    found = read_measured(table, read_map(keys), problems, [] if notes is None else notes)
    if problems:
        raise ScenarioError("table", problems)
    assert found is not None
    return found


def read_times(stamps: Any, values: Any = None, **keys: Any) -> MeasuredTable:
    stamps = list(stamps)
    return read(pd.DataFrame({"Timestamp": stamps, "x": np.arange(len(stamps)) if values is None else values}), **keys)


TIMES = make_times("2024-01-01", days=20, step=60)


@pytest.mark.parametrize(
    "form",
    [
        *("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y/%m/%d %H:%M:%S.000", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M"),
        *("%m/%d/%Y %H:%M", "%m/%d/%y %I:%M %p", "%d.%m.%y %H:%M:%S", "%m-%d-%Y %I:%M:%S %p"),
    ],
)
def test_dates_of_any_notation_are_told_by_numbers_that_can_only_be_one(form: str) -> None:
    assert (read_times(TIMES.strftime(form)).values.index == TIMES).all()


def test_dates_that_may_be_either_are_refused_with_the_remedy() -> None:
    stamps = make_times("2024-03-04", days=2).strftime("%m/%d/%Y %H:%M")
    with pytest.raises(ScenarioError, match=r"'03/04/2024 00:00' in line 0 may be month and day .*format: us"):
        read_times(stamps)
    assert str(read_times(stamps, time={"format": "us"}).values.index[0]) == "2024-03-04 00:00:00"
    assert (
        str(read_times(["04/03/2024 00:00", "04/03/2024 01:00"], time={"format": "eu"}).values.index[0])[:10]
        == "2024-03-04"
    )
    with pytest.raises(ScenarioError, match=r"days come first in line 0 \('13/01/2024'\) and second in line 1"):
        read_times(["13/01/2024", "01/13/2024"])


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (["2024-01-01 00:00", None, "2024-01-01 02:00"], "no stamp in line 1"),
        ([45292.0, None, 45292.5], "no stamp in line 1"),
        (["2024-02-30 00:00", "2024-03-01 00:00"], "1 stamps do not exist, the first in line 0: '2024-02-30 00:00'"),
        (["2024-02-01 25:00", "2024-03-01 00:00"], "do not exist"),
        (["2024-02-01 00:00", "gestern"], "1 stamps cannot be read, the first in line 1: 'gestern'; time.format says"),
        (["01-Jan-2024 00:00", "01-Jan-2024 01:00"], "'%d-%b-%Y %H:%M'"),
        ([1704067200, 1704070800], "holds numbers, as 1704067200; say time.format: unix"),
        (["2024-01-01 00:00"], "1 stamps; a table holds at least a day"),
        (["2024-01-01 00:00", "2024-01-01 00:00:20", "2024-01-01 00:00:40"], "mostly 0.333333 min apart"),
        (["2024-01-01 00:00Z", "2024-01-01 01:00"], "line 1 says no zone, as others do"),
        (["2024-01-01 00:00+01:00", "2024-07-01 00:00+02:00"], r"\+1 h and \+2 h from UTC; say time.zone"),
        (["2024-01-01 00:00", "2024-01-01 00:30", "2024-01-01 01:10", "2024-01-01 01:30"], "lie between rows of"),
    ],
)
def test_stamps_that_are_wrong_say_where_and_what_helps(stamps: list[Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        read_times(stamps)


def test_own_notation_unix_time_and_two_columns() -> None:
    own = TIMES.strftime("%d-%b-%Y %H:%M")
    assert (read_times(own, time={"format": "%d-%b-%Y %H:%M"}).values.index == TIMES).all()
    seconds = TIMES.to_numpy().astype("datetime64[s]").astype(np.int64)
    assert (read_times(seconds, time={"format": "unix"}).values.index == TIMES).all()
    assert (read_times(seconds * 1000, time={"format": "unix_ms"}).values.index == TIMES).all()
    two = pd.DataFrame({"Date": TIMES.strftime("%d.%m.%Y"), "Time": TIMES.strftime("%H:%M"), "x": 1.0})
    assert (read(two).values.index == TIMES).all()
    with pytest.raises(ScenarioError, match="'Date' and 'Time': no stamp in line 2"):
        read(two.assign(Time=two["Time"].where(two.index != 2)))
    ends = [
        f"{time - pd.Timedelta(hours=1):%Y-%m-%d} {(time.hour - 1) % 24 + 1}:00"
        for time in TIMES + pd.Timedelta(hours=1)
    ]
    assert (read_times(ends, time={"stamps": "end"}).values.index == TIMES).all()  # 24:00 is the end of a day


# clocks that change ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("zone", "day", "hours"), [(NEW_YORK, "2024-11-03", 25), ("Europe/Berlin", "2024-10-27", 25)])
@pytest.mark.parametrize("step", [15, 60])
def test_hour_that_comes_twice_is_two_hours_of_standard_time(zone: str, day: str, hours: int, step: int) -> None:
    start = pd.Timestamp(day) - pd.Timedelta(days=1)
    aware = pd.date_range(start.tz_localize(zone), periods=72 * 60 // step, freq=f"{step}min")
    wall = aware.tz_localize(None)
    assert (wall.normalize() == pd.Timestamp(day)).sum() == hours * 60 // step
    notes = list[str]()
    table = read_times(wall.strftime("%Y-%m-%d %H:%M"), notes=notes, time={"zone": zone})
    assert table.values.iloc[:, 0].tolist() == list(range(len(wall)))
    assert table.values.index[0] == wall[0] - pd.Timedelta(hours=1)
    assert table.values.index[-1] == wall[-1]
    assert any(f"clocks of {zone} are set back: {120 // step} rows" in note for note in notes)
    # the same without a zone is refused, by the stamps that come twice
    with pytest.raises(ScenarioError, match=r"stamps come twice.*if clocks are set back then, say time.zone"):
        read_times(wall.strftime("%Y-%m-%d %H:%M"))
    # and newest first, or with what is ahead of UTC written out, it is the same table
    for stamps, values in ((wall[::-1], np.arange(len(wall))[::-1]), (aware.map(lambda time: time.isoformat()), None)):
        assert read_times(stamps, values, time={"zone": zone}).values.equals(table.values)


def test_hour_that_is_skipped_leaves_no_gap_and_is_told_where_no_zone_is() -> None:
    aware = pd.date_range("2024-03-09", periods=71, freq="h", tz=NEW_YORK)
    wall = aware.tz_localize(None).strftime("%Y-%m-%d %H:%M")
    table = read_times(wall, time={"zone": NEW_YORK})
    assert table.values.iloc[:, 0].tolist() == list(range(71))
    with pytest.raises(ScenarioError, match="the hour of 2024-03-10 02:00:00 is missing, as where"):
        read_times(wall)
    assert read_times(wall, time={"zone": "standard"}).values.isna().sum().sum() == 1
    naive = pd.date_range("2024-03-09", periods=72, freq="h").strftime("%Y-%m-%d %H:%M")
    with pytest.raises(ScenarioError, match=r"1 stamps do not exist on a clock of America/New_York.*line 26; if"):
        read_times(naive, time={"zone": NEW_YORK})
    utc = read_times(naive, time={"zone": NEW_YORK, "clock": "UTC"})
    assert utc.values.index[0] == pd.Timestamp("2024-03-08 19:00")


def test_long_table_has_its_double_hour_meter_by_meter() -> None:
    aware = pd.date_range("2024-11-02", periods=73, freq="h", tz=NEW_YORK)
    wall = aware.tz_localize(None)
    long = pd.concat(
        [pd.DataFrame({"time": wall, "id": name, "kWh": np.arange(73.0) + i}) for i, name in enumerate("ab")]
    )
    shuffled = long.sort_values("time", kind="stable")
    for frame in (long, shuffled):
        table = read(frame, time={"zone": NEW_YORK})
        assert table.names == ["a", "b"]
        assert table.values.iloc[:, 1].tolist() == (np.arange(73.0) + 1).tolist()


@settings(max_examples=25, deadline=None)
@given(
    zone=st.sampled_from([NEW_YORK, "Europe/London", "Australia/Sydney", "America/Santiago"]),
    start=st.dates(min_value=pd.Timestamp("2015-01-01").date(), max_value=pd.Timestamp("2025-01-01").date()),
)
def test_any_clock_gives_every_hour_once_at_the_right_time(zone: str, start: Any) -> None:
    aware = pd.date_range(pd.Timestamp(start, tz="UTC"), periods=200 * 24, freq="h").tz_convert(zone)
    table = read_times(aware.tz_localize(None), time={"zone": zone, "stamps": "start"})
    assert table.values.iloc[:, 0].tolist() == list(range(200 * 24))
    standard = min(time.utcoffset() for time in (aware[0].replace(month=1, day=1), aware[0].replace(month=7, day=1)))
    assert table.values.index[0] == aware[0].tz_convert("UTC").tz_localize(None) + standard


# rows ------------------------------------------------------------------------------------------------------------


def test_stamps_at_the_end_of_rows_are_told_and_moved() -> None:
    ends = TIMES + pd.Timedelta(hours=1)
    with pytest.raises(ScenarioError, match=r"as where they are the end of their rows; say time\.stamps: end"):
        read_times(ends)
    assert (read_times(ends, time={"stamps": "end"}).values.index == TIMES).all()
    assert (read_times(ends, time={"stamps": "start"}).values.index == ends).all()


def test_rows_in_any_order_with_gaps_jitter_and_copies_find_their_place() -> None:
    order = np.random.default_rng(0).permutation(len(TIMES))
    kept = np.delete(order, [3, 4])
    stamps = (TIMES + pd.to_timedelta(np.arange(len(TIMES)) % 40, "s"))[kept]
    notes = list[str]()
    frame = pd.DataFrame({"time": stamps, "x": kept.astype(float)})
    table = read(pd.concat([frame, frame.tail(2)]), notes)
    values = table.values.iloc[:, 0]
    assert np.flatnonzero(values.isna()).tolist() == sorted(order[[3, 4]])
    assert values.dropna().to_numpy().tolist() == np.flatnonzero(values.notna()).tolist()
    assert "2 rows come twice with the same values and count once" in notes[1]
    assert "stamps moved to whole 60 min, by 39 s at most" in notes[0]
    frame.loc[len(frame)] = [stamps[0], -1.0]
    with pytest.raises(ScenarioError, match="1 stamps come twice"):
        read(frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(x=[True] * len(f)), "holds true and false"),
        (
            lambda f: f.assign(x=f.x.astype(str).where(f.index != 4, "n/a?")),
            r"1 values are no numbers, the first in line 4: 'n/a\?'",
        ),
        (lambda f: f.drop(columns="time"), "no column of time; say time.column, one of x"),
        (lambda f: f.iloc[:0], "the table has no rows"),
    ],
)
def test_tables_that_are_wrong_say_what_helps(change: Callable[[pd.DataFrame], pd.DataFrame], message: str) -> None:
    frame = pd.DataFrame({"time": TIMES, "x": np.arange(len(TIMES), dtype=float)})
    with pytest.raises(ScenarioError, match=message):
        read(change(frame))


def test_texts_that_stand_for_nothing_are_gaps(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = "\n".join(f"{time:%d.%m.%Y %H:%M};{'Bad' if i == 3 else f'1,{i}'}" for i, time in enumerate(TIMES))
    file.write_bytes(f"Zeit;Häuser\n{rows}\n".encode("cp1252"))
    with pytest.raises(ScenarioError, match="the first in line 5: 'Bad'; 'missing' names texts"):
        read(file)
    table = read(file, missing=["Bad"])
    assert table.names == ["Häuser"]
    assert table.values.iloc[:, 0].isna().sum() == 1
    assert table.values.iloc[4, 0] == 1.4


def test_empty_map_is_all_defaults() -> None:
    assert read_map(None) == read_map({}) == ImportMap()


@pytest.mark.parametrize(
    ("zone", "hours"),
    [("Asia/Kolkata", 5.5), ("Australia/Adelaide", 9.5), ("America/St_Johns", -3.5), ("Asia/Kathmandu", 5.75)],
)
@pytest.mark.parametrize("stamped", ["clock", "offset", "aware"])
def test_hours_of_utc_begin_at_half_hours_of_a_zone_that_is_half_an_hour_off(
    zone: str, hours: float, stamped: str
) -> None:
    utc = pd.date_range("2024-01-10", periods=72, freq="h")
    local = utc + pd.Timedelta(hours=hours)  # standard time, whatever the season
    told = {"clock": utc.strftime("%Y-%m-%d %H:%M"), "offset": utc.strftime("%Y-%m-%dT%H:%M:%SZ"), "aware": utc}
    stamps = told[stamped].tz_localize("UTC") if stamped == "aware" else told[stamped]
    clock = {"clock": "UTC"} if stamped == "clock" else {}
    table = read_times(stamps, time={"zone": zone, **clock})
    assert (table.values.index == local).all()
    assert table.step_minutes == 60


def test_rows_at_half_hours_keep_their_energy_and_place_in_the_day(feeder: Path) -> None:
    utc = pd.date_range("2023-12-31 18:00", periods=24 * 4, freq="h")
    kw = 20.0 + np.arange(len(utc)) % 7
    table = pd.DataFrame({"time": utc.strftime("%Y-%m-%d %H:%M"), "e1 [kWh]": kw})
    imported = import_profiles(table, feeder, {"time": {"zone": "Asia/Kolkata", "clock": "UTC"}})
    profiles = imported.profiles
    assert profiles.step_minutes == 30
    assert str(profiles.start) == "2024-01-01T00:00"  # the first row begins at 23:30 of the day before
    demand = profiles.demand_pu[:, profiles.demand_names.index("e1")] * profiles.load_base["e1"][0]
    assert demand == pytest.approx(np.repeat(kw, 2)[1 : 1 + len(demand)])
    coarse = import_profiles(table, feeder, {"time": {"zone": "Asia/Kolkata", "clock": "UTC"}, "step_minutes": 60})
    assert coarse.profiles.demand_pu[:, 0] == pytest.approx(profiles.demand_pu[:, 0].reshape(-1, 2).mean(axis=1))


def test_tables_of_several_clocks_and_forms_have_keys_of_their_own(feeder: Path, tmp_path: Path) -> None:
    times = make_times("2024-03-18", days=14)  # clocks of Adelaide are set back on 7 April, not within
    kw, sun = 30.0 + times.hour.to_numpy(), np.clip(np.sin((times.hour - 6) / 12 * np.pi), 0, None).to_numpy()
    summer = times + pd.Timedelta(hours=1)  # its clock in March is ahead of standard time
    pd.DataFrame({"Zeit": summer.strftime("%d.%m.%Y %H:%M"), "Zähler": 7, "Wert": kw}).to_csv(
        tmp_path / "ami.csv", sep=";", decimal=",", index=False, encoding="cp1252"
    )
    plant = (times - pd.Timedelta(hours=4)).strftime("%m/%d/%Y %H:%M")  # Kolkata is 4 h behind Adelaide's standard
    (tmp_path / "pv.csv").write_text(
        "Plant 7\n" + pd.DataFrame({"time": plant, "AC": sun * 500}).to_csv(index=False), encoding="utf-16"
    )
    tables = {
        "ami.csv": {"long": {"id": "Zähler"}, "unit": "kWh"},
        "pv.csv": {"time": {"clock": "Asia/Kolkata", "format": "us"}, "skip_rows": 1},
    }
    columns = {"7": "e1", "AC": {"weather": "pv", "rated_kw": 500, "unit": "kW"}}
    keys: dict[str, Any] = {
        "time": {"zone": "Australia/Adelaide", "stamps": "start"},
        "tables": tables,
        "columns": columns,
    }
    profiles = import_profiles([tmp_path / "ami.csv", tmp_path / "pv.csv"], feeder, keys).profiles
    assert (str(profiles.start), profiles.n_days) == ("2024-03-18T00:00", 14)
    assert profiles.demand_pu[:, 0] * 60 == pytest.approx(kw)
    assert profiles.pv_pu == pytest.approx(sun, abs=1e-9)
    with pytest.raises(ScenarioError, match=r"tables: unknown table 'pv.xlsx' \(did you mean 'pv.csv'"):
        import_profiles([tmp_path / "ami.csv", tmp_path / "pv.csv"], feeder, {"tables": {"pv.xlsx": {}}})
    with pytest.raises(ScenarioError, match=r"tables\.pv\.csv\.time\.zone: a feeder has one zone"):
        import_profiles(tmp_path / "pv.csv", feeder, {"tables": {"pv.csv": {"time": {"zone": "UTC"}}}})
    with pytest.raises(ScenarioError, match=r"unknown key 'skiprows' \(did you mean 'skip_rows'"):
        read_map({"tables": {"pv.csv": {"skiprows": 1}}})


def test_clock_that_never_changes_beside_one_that_does(feeder: Path) -> None:
    times = make_times("2024-07-01", days=7)
    wall = (times + pd.Timedelta(hours=1)).strftime("%Y-%m-%d %H:%M")
    tables = [
        pd.DataFrame({"time": stamps, column: peak + times.hour})
        for stamps, column, peak in ((wall, "e1_kW", 20.0), (times, "w1_kW", 5.0))
    ]
    keys = {"time": {"zone": NEW_YORK, "stamps": "start"}, "tables": {"DataFrame 2": {"time": {"clock": "standard"}}}}
    profiles = import_profiles(tables, feeder, keys).profiles
    base = profiles.load_base
    assert profiles.demand_pu[:, 0] * base["e1"][0] == pytest.approx(20.0 + times.hour)
    assert profiles.demand_pu[:, 1] * base["w1"][0] == pytest.approx(5.0 + times.hour)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("excel", "holds numbers, as 45292.0; say time.format: excel, if these are days"),
        ("unix", "holds numbers, as 1704067200; say time.format: unix, if these are seconds since 1970"),
        ("unix_ms", "holds numbers, as 1704067200000; say time.format: unix_ms"),
        (
            "%Y%m%d%H%M",
            "holds numbers, as 202401010000; say time.format: '%Y%m%d%H%M', if these are the digits",
        ),
    ],
)
def test_stamps_that_are_numbers_are_asked_about_and_taken_as_said(form: str, told: str) -> None:
    seconds = ((TIMES - pd.Timestamp(0)) // pd.Timedelta(seconds=1)).to_numpy()
    stamps = {
        "excel": (TIMES - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1),
        "unix": seconds,
        "unix_ms": seconds * 1000,
        "%Y%m%d%H%M": TIMES.strftime("%Y%m%d%H%M").astype(np.int64),
    }[form]
    with pytest.raises(ScenarioError) as caught:
        read_times(stamps)
    assert told in str(caught.value)
    zone = {"zone": "UTC"} if form.startswith("unix") else {}
    assert (read_times(stamps, time={"format": form, **zone}).values.index == TIMES).all()
    if form != "%Y%m%d%H%M":
        with pytest.raises(ScenarioError, match="is none of "):
            read_times(np.asarray(stamps) * (1e9 if form != "unix_ms" else 1e3), time={"format": form})
