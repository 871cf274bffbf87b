"""Gaps and outliers: what the rules do, that it is counted, and that no number is made up where none was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powergrid.errors import ScenarioError
from powergrid.measurements import import_profiles
from powergrid.measurements.cleaning import Cleaned, fill_gaps
from powergrid.measurements.vocabulary import GapRule
from tests.measurements.conftest import make_kw, make_times

TIMES = make_times()


def make_table(*gaps: slice) -> pd.DataFrame:
    table = pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50)})
    for gap in gaps:
        table.loc[gap.start : gap.stop - 1, "e1_kW"] = np.nan
    return table


def kw_of(imported: Any) -> np.ndarray:
    return np.asarray(imported.profiles.demand_pu[:, 0] * imported.profiles.load_base["e1"][0])


def test_days_with_gaps_are_left_out_and_nothing_else(feeder: Path) -> None:
    table = make_table(slice(30, 33), slice(100, 150))
    imported = import_profiles(table, feeder)
    assert imported.profiles.left_out == (1, 4, 5, 6)
    report = imported.report
    assert report.left_out["2024-01-02"] == ("e1_kW",)
    assert "17 of 21, 2024-01-01 to 2024-01-21, rows of 60 min" in report.as_text()
    assert "2024-01-05 to 2024-01-07 (3 days): e1_kW" in report.as_text()
    kept = ~np.isin(np.arange(21), imported.profiles.left_out)
    assert kw_of(imported).reshape(21, 24)[kept] == pytest.approx(table["e1_kW"].to_numpy().reshape(21, 24)[kept])


def test_short_gaps_are_interpolated_and_long_ones_left_out(feeder: Path) -> None:
    table = make_table(slice(30, 33), slice(100, 150))
    imported = import_profiles(table, feeder, {"gaps": {"rule": "interpolate"}})
    assert imported.profiles.left_out == (4, 5, 6)
    line = np.linspace(table["e1_kW"][29], table["e1_kW"][33], 5)[1:-1]
    assert kw_of(imported)[30:33] == pytest.approx(line)
    (told,) = imported.report.series
    assert (told.missing, told.filled) == (53, 3)
    longer = import_profiles(table, feeder, {"gaps": {"rule": "interpolate", "longest_minutes": 60 * 50}})
    assert longer.profiles.left_out == ()


def test_gaps_take_the_week_before_or_after(feeder: Path) -> None:
    table = make_table(slice(30, 33), slice(201, 210))
    kw = table["e1_kW"].to_numpy()
    imported = import_profiles(table, feeder, {"gaps": {"rule": "last_week"}})
    assert imported.profiles.left_out == ()
    assert kw_of(imported)[30:33] == pytest.approx(kw[30 + 168 : 33 + 168])
    assert kw_of(imported)[201:210] == pytest.approx(kw[33:42])


@given(
    missing=st.sets(st.integers(0, 335)),
    rule=st.sampled_from(["leave_out", "interpolate", "last_week"]),
    longest=st.integers(60, 600),
)
def test_filling_changes_no_number_that_is_there_and_counts_the_rest(
    missing: set[int], rule: Any, longest: int
) -> None:
    values = pd.Series(np.arange(336.0) ** 1.5, index=make_times(days=14))
    values.iloc[sorted(missing)] = np.nan
    done = Cleaned(len(values))
    filled = fill_gaps(values, GapRule(rule=rule, longest_minutes=longest), 60, done)
    there = values.notna()
    assert (filled[there] == values[there]).all()
    assert done.missing == len(missing)
    assert done.filled == len(missing) - int(filled.isna().sum())
    if rule != "last_week":
        assert filled.dropna().between(values.min(), values.max()).all()


def test_no_day_left_says_what_helps(feeder: Path) -> None:
    table = make_table(*(slice(24 * day + 3, 24 * day + 5) for day in range(21)))
    with pytest.raises(
        ScenarioError, match=r"no day is left: each of 21 lacks .*; most is missing of e1_kW \(42 of 504"
    ):
        import_profiles(table, feeder)


@pytest.mark.parametrize("rule", ["report", "gap", "clip"])
def test_outliers_are_told_and_treated_by_the_rule(feeder: Path, rule: str) -> None:
    table = make_table()
    table.loc[[50, 400], "e1_kW"] = [600.0, 0.0]
    imported = import_profiles(table, feeder, {"outliers": {"rule": rule}})
    (told,) = imported.report.series
    assert told.outliers == (2 if table["e1_kW"][401] > 25 else 1)
    assert told.first_outlier.startswith("600 at 2024-01-03 02:00, where ")
    assert imported.profiles.left_out == ((2, 16)[: told.outliers] if rule == "gap" else ())
    assert (kw_of(imported).max() > 500) == (rule == "report")


def test_single_value_that_cannot_be_is_a_gap_not_another_unit(feeder: Path) -> None:
    table = make_table()
    table.loc[50, "e1_kW"] = 1e6
    imported = import_profiles(table, feeder)
    assert imported.profiles.left_out == (2,)
    assert kw_of(imported).max() < 60


def test_tables_of_several_steps_meet_in_the_finest_or_in_the_one_asked_for(feeder: Path) -> None:
    fine, coarse = make_times(step=15), make_times(days=30)
    tables = [
        pd.DataFrame({"time": fine, "e1_kW": make_kw(fine, 50)}),
        pd.DataFrame({"time": coarse, "e2_kW": make_kw(coarse, 20), "price USD/kWh": 0.1}),
    ]
    imported = import_profiles(tables, feeder)
    assert (imported.profiles.step_minutes, imported.profiles.n_days) == (15, 21)
    second = imported.profiles.demand_pu[:, imported.profiles.demand_names.index("e2")] * 30
    assert second == pytest.approx(np.repeat(make_kw(coarse, 20)[: 21 * 24], 4))
    hourly = import_profiles(tables, feeder, {"step_minutes": 60}).profiles
    assert hourly.demand_pu[:, 0] * 60 == pytest.approx(make_kw(fine, 50).reshape(-1, 4).mean(axis=1))
    with pytest.raises(ScenarioError, match="rows of 60 min do not fit steps of 25 min"):
        import_profiles(tables, feeder, {"step_minutes": 25})
    with pytest.raises(ScenarioError, match="there is no whole day from midnight on that all tables have"):
        import_profiles([tables[0], tables[1].assign(time=make_times("2025-01-01", days=30))], feeder)


def problem_of(table: pd.DataFrame, feeder: Path, **keys: Any) -> str:
    with pytest.raises(ScenarioError) as caught:
        import_profiles(table, feeder, keys)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("price", "unit", "told"),
    [
        (4500.0, "USD/MWh", "4.51 USD/kWh is its median and 4.52 the most, read as USD/MWh; ct/MWh,"),
        (45.0, "USD/kWh", "say 'unit: USD/MWh' or 'ct/kWh'"),
        (0.00004, "USD/kWh", "the most, read as USD/kWh; ct/kWh or USD/kWh would be usual"),
        (0.045, "USD/MWh", "the most, read as USD/MWh; ct/kWh or USD/kWh would be usual"),
    ],
)
def test_prices_of_another_unit_are_told_and_those_that_are_meant_are_taken(
    feeder: Path, price: float, unit: str, told: str
) -> None:
    table = pd.DataFrame({"time": TIMES, "price": price * (1 + np.arange(len(TIMES)) % 2 / 250)})
    columns = {"price": {"price": "p", "unit": unit}}
    assert told in problem_of(table, feeder, columns=columns)
    assert import_profiles(table, feeder, {"columns": columns, "limits": {"price_usd_per_kwh": 100}})
    right = import_profiles(
        table.assign(price=4500.0), feeder, {"columns": {"price": {"price": "p", "unit": "ct/MWh"}}}
    )
    assert right.profiles.price_usd_per_kwh["p"] == pytest.approx(0.045)


def test_single_values_that_cannot_be_are_gaps_and_told(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50)})
    table.loc[30, "e1_kW"] = 5000.0
    report = import_profiles(table, feeder).report
    (note,) = report.notes
    assert note.endswith("1 values beyond 1264.91 kW are taken for gaps, the highest 5000 at 2024-01-02 06:00")
    assert list(report.left_out) == ["2024-01-02"]


def test_meters_of_other_lengths_in_one_table_are_each_of_their_own(feeder: Path) -> None:
    times = make_times(days=3, step=15)
    quarter, hour = make_kw(times, 50), make_kw(times[::4], 20, 1)
    long = pd.concat(
        [
            pd.DataFrame({"time": times, "meter": "e1", "kWh": quarter / 4}),
            pd.DataFrame({"time": times[::4], "meter": "w1", "kWh": hour}),
        ]
    )
    profiles = import_profiles(long, feeder).profiles
    assert profiles.step_minutes == 15
    assert profiles.demand_pu[:, 0] * profiles.load_base["e1"][0] == pytest.approx(quarter)
    assert profiles.demand_pu[:, 1] * profiles.load_base["w1"][0] == pytest.approx(np.repeat(hour, 4))


def test_rows_that_become_longer_on_the_way_are_told_with_where(feeder: Path) -> None:
    times = make_times(days=20, step=15)
    table = pd.DataFrame({"time": times, "e1_kWh": make_kw(times, 50) / 4})
    told = problem_of(pd.concat([table[:960], table[960::4]]), feeder)
    assert "from 2024-01-11 00:00:00 on 239 rows are 60 min apart, where most are 15 min: bring all of it" in told


def test_values_that_differ_at_one_stamp_are_told_with_both_lines(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50)})
    again = pd.concat([table, table[40:43], table[50:51].assign(e1_kW=77.0)])
    told = problem_of(again, feeder)
    assert f"1 stamps come twice with different values, the first is {TIMES[50].isoformat()} with 'e1_kW'" in told
    assert told.endswith(f"in line 50 and 77 in line {len(TIMES) + 3}; if clocks are set back then, say time.zone, "
                         "as America/New_York, else keep one of each")  # fmt: skip


def test_name_that_is_nearly_a_loads_is_asked_about_in_the_report(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50), "e11_kW": 1.0, "M1": 2.0})
    report = import_profiles(table, feeder).report
    assert report.unused == ("the DataFrame: e11_kW (is it load 'e1'?)", "the DataFrame: M1")


def test_units_that_are_too_small_name_the_larger_one(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1": make_kw(TIMES, 50)})
    assert "is the unit kW? limits.demand_pu says that it is meant" in problem_of(table, feeder, unit="W")
    assert "are these the right columns?" in problem_of(table.assign(e1=0.0), feeder, unit="kW")
    assert import_profiles(table, feeder, {"unit": "W", "limits": {"demand_pu": 20}})
    sun = table.assign(pv=np.clip(np.sin(TIMES.hour / 8), 0, None))
    columns = {"pv": {"weather": "pv", "unit": "kW"}}
    assert problem_of(sun, feeder, unit="kW", columns=columns).endswith("the rating of the panels whose power this is")


def test_sun_with_its_sign_turned_is_told_and_what_inverters_take_at_night_is_not(feeder: Path) -> None:
    sun = np.clip(np.sin((TIMES.hour.to_numpy() - 6) / 12 * np.pi), 0, None)
    columns = {"AC": {"weather": "pv", "unit": "kW", "rated_kw": 500}}
    told = problem_of(pd.DataFrame({"time": TIMES, "AC": -480.0 * sun}), feeder, columns=columns)
    assert told.endswith("sun is what panels give: turn its sign, or say 'negative: zero'")
    night = import_profiles(pd.DataFrame({"time": TIMES, "AC": 480.0 * sun - 2.0}), feeder, {"columns": columns})
    assert night.profiles.pv_pu == pytest.approx(np.clip(0.96 * sun - 0.004, 0, None))
    assert night.report.series[0].negative == int((sun * 480 < 2.0).sum())
    irradiance = pd.DataFrame({"time": TIMES, "GHI": 900 * sun})
    columns = {"GHI": {"weather": "irradiance", "unit": "kW/m2"}}
    assert problem_of(irradiance, feeder, columns=columns).endswith("it is in parts of 1000 W/m2: say 'unit: W/m2'")
