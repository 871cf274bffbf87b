"""Measurements are played as measured: what each column is, sums dealt out, what is missing from the year."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import powergrid
from powergrid.cli import main
from powergrid.errors import ScenarioError
from powergrid.grid.profiles.imported import read_imported
from powergrid.grid.profiles.profiles import Profiles, builtin_profiles
from powergrid.measurements import ImportMap, import_profiles
from powergrid.scenario import load_scenario
from powergrid.training import pack_env_config
from tests.measurements.conftest import make_kw, make_times

TIMES = make_times()


def kw_of(profiles: Profiles, load: str) -> np.ndarray:
    return profiles.demand_pu[:, profiles.demand_names.index(profiles.load_series[load])] * profiles.load_base[load][0]


def kvar_of(profiles: Profiles, load: str) -> np.ndarray:
    column = profiles.demand_names.index(profiles.load_series[load])
    pu = profiles.demand_pu if profiles.demand_kvar_pu is None else profiles.demand_kvar_pu
    return pu[:, column] * profiles.load_base[load][1]


def problems_of(table: Any, feeder: Path, **keys: Any) -> tuple[str, ...]:
    with pytest.raises(ScenarioError) as caught:
        import_profiles(table, feeder, keys)
    return caught.value.problems


def assert_whole(profiles: Profiles) -> None:
    """There are whole days, of finite numbers."""
    assert profiles.n_days >= 1
    assert len(profiles.demand_pu) == profiles.n_days * profiles.rows_per_day
    assert np.isfinite(profiles.demand_pu).all()


# played ----------------------------------------------------------------------------------------------------------


def test_imported_day_is_played_by_the_engine_with_exactly_its_kw_and_kvar(feeder: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"time": TIMES})
    for seed, (load, peak) in enumerate({"e1": 70, "e2": 25, "w1": 22, "w2": 35, "zero": 12}.items()):
        table[f"{load} [kW]"] = make_kw(TIMES, peak, seed)
        table[f"{load} [kvar]"] = np.round(np.linspace(-3, 9, len(TIMES)) + seed, 3)
    table.to_csv(tmp_path / "meters.csv", index=False)
    folder = import_profiles(tmp_path / "meters.csv", feeder).write(tmp_path / "mine")
    keys = {"source": str(folder)}
    env = powergrid.make(feeder, profiles=keys, step_minutes=60, episode_length=24, split="all", load_scale=1.3)
    env.reset(seed=0, options={"day": 9})
    simulation = env.task.simulation
    loads = simulation.network.loads.names
    engine = simulation.circuits[0].engine.direct
    for step in range(24):
        row = table.iloc[9 * 24 + step]
        env.step({agent: env.action_space(agent).sample() * 0 for agent in env.agents})
        for load in loads:
            engine.Circuit.SetActiveElement(f"load.{load}")
            n = engine.CktElement.NumPhases()
            powers = np.reshape(engine.CktElement.Powers(), (-1, 2))[:n].sum(axis=0)
            assert powers == pytest.approx([row[f"{load} [kW]"], row[f"{load} [kvar]"]], abs=2e-3), (step, load)
            at = loads.index(load)
            assert simulation.day_load_kw[0, step, at] == pytest.approx(row[f"{load} [kW]"], abs=1e-9)
            assert simulation.day_load_kvar[0, step, at] == pytest.approx(row[f"{load} [kvar]"], abs=1e-9)
    env.close()


def test_written_folder_reads_back_travels_and_is_checked(feeder: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50)})
    table.loc[30, "e1_kW"] = np.nan
    imported = import_profiles(table, feeder)
    folder = imported.write(tmp_path / "mine")
    assert sorted(file.name for file in folder.iterdir()) == [
        "profiles.json",
        "profiles.parquet",
        "report.html",
        "report.txt",
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "model"]
    back = read_imported(folder)
    assert back.digest() == imported.profiles.digest() == read_imported(folder / "profiles.json").digest()
    assert back.left_out == (1,)
    keys = {"env_name": str(feeder), "profiles.source": str(folder), "profiles.load_seed": 3}
    packed = load_scenario(feeder, {"profiles": {"source": str(folder)}}).digest()
    (tmp_path / "scenario.yaml").write_text(f"feeder: {feeder}\nprofiles: {{source: mine}}\n")
    assert load_scenario(tmp_path / "scenario.yaml").read_profiles().digest() == back.digest()
    assert packed == load_scenario(feeder, {"profiles": {"source": str(folder / "profiles.json")}}).digest()
    travelled = powergrid.envs.NetworkedGridEnv(pack_env_config(keys))
    assert travelled.task.simulation.profiles.load_series == {"e1": "e1"}
    travelled.close()
    imported.write(folder)  # an import replaces an import
    record = json.loads((folder / "profiles.json").read_text())
    (folder / "profiles.json").write_text(json.dumps(record | {"left_out": []}))
    with pytest.raises(ScenarioError, match="does not say what it did when it was written"):
        read_imported(folder)
    (folder / "profiles.json").write_text("{}")
    with pytest.raises(ScenarioError, match="is damaged"):
        read_imported(folder)
    (folder / "profiles.json").write_text(json.dumps(record))
    (folder / "profiles.parquet").write_bytes(b"else")
    with pytest.raises(ScenarioError, match="is not the table that its record is of"):
        read_imported(folder)


def test_write_leaves_what_is_no_import_alone_and_nothing_half_written(feeder: Path, tmp_path: Path) -> None:
    imported = import_profiles(pd.DataFrame({"time": TIMES, "e1_kW": 5.0 + TIMES.hour}), feeder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").touch()
    for place in (tmp_path / "mine", tmp_path / "mine" / "thesis.doc"):
        with pytest.raises(ScenarioError, match="holds no import"):
            imported.write(place)
    with pytest.raises(ScenarioError, match="cannot be written"):
        imported.write(tmp_path / "mine" / "thesis.doc" / "below")
    assert sorted(file.name for file in tmp_path.rglob("*") if "model" not in str(file)) == ["mine", "thesis.doc"]


def test_without_pyarrow_the_table_is_text(feeder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = import_profiles(pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50)}), feeder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    folder = imported.write(tmp_path / "mine")
    assert (folder / "profiles.csv.gz").is_file()
    assert read_imported(folder).digest() == imported.profiles.digest()


# what is what ----------------------------------------------------------------------------------------------------


def test_long_and_wide_tables_and_frames_of_the_same_meters_are_the_same(feeder: Path, tmp_path: Path) -> None:
    wide = pd.DataFrame({"time": TIMES, "e1": make_kw(TIMES, 50), "w1": make_kw(TIMES, 20, 1)})
    long = wide.melt(id_vars="time", var_name="meter_id", value_name="kW").sample(frac=1.0, random_state=1)
    wide.to_parquet(tmp_path / "wide.parquet")
    wanted = import_profiles(wide, feeder, {"unit": "kW"}).profiles
    for table in (long, tmp_path / "wide.parquet", wide.set_index("time")):
        assert import_profiles(table, feeder, {"unit": "kW"}).profiles.digest() == wanted.digest()
    meters = long.replace({"meter_id": {"e1": 4711, "w1": 4712}})
    named = import_profiles(meters, feeder, {"columns": {4711: "e1", "4712": {"load": "w1"}}}).profiles
    assert named.digest() == wanted.digest()


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("kW", 1.0), ("W", 1000.0), ("MW", 0.001), ("kWh", 0.25), ("MWh", 0.00025), ("pu", 1 / 60), ("%", 100 / 60)],
)
def test_any_unit_gives_the_same_kw(feeder: Path, unit: str, factor: float) -> None:
    times = make_times(step=15)
    kw = make_kw(times, 55)
    for table in (
        pd.DataFrame({"time": times, f"e1 ({unit})": kw * factor}),
        pd.DataFrame({"time": times, "e1": kw * factor}),
    ):
        profiles = import_profiles(table, feeder, {"unit": unit}).profiles
        assert kw_of(profiles, "e1") == pytest.approx(kw, abs=1e-9)
        assert kvar_of(profiles, "e1") == pytest.approx(kw / 3, abs=1e-9)


def test_amperes_and_kva_are_split_by_power_factor_or_by_measured_kvar(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1": 80.0 + TIMES.hour, "w1": 60.0 + TIMES.hour})
    profiles = import_profiles(table, feeder, {"unit": "A"}).profiles
    kva = np.sqrt(3) * 0.4 * table["e1"]
    assert kw_of(profiles, "e1") == pytest.approx(kva * 60 / np.hypot(60, 20))
    assert np.hypot(kw_of(profiles, "e1"), kvar_of(profiles, "e1")) == pytest.approx(kva)
    one = 0.4 / np.sqrt(3) * table["w1"]
    assert np.hypot(kw_of(profiles, "w1"), kvar_of(profiles, "w1")) == pytest.approx(one)
    spec = {
        "columns": {
            "e1": {"load": "e1", "unit": "kVA", "power_factor": 0.8},
            "w1": {"load": "w1", "unit": "A", "kv": 0.2},
        }
    }
    profiles = import_profiles(table, feeder, spec).profiles
    assert kw_of(profiles, "e1") == pytest.approx(0.8 * table["e1"])
    assert kvar_of(profiles, "e1") == pytest.approx(0.6 * table["e1"])
    spec = {"columns": {"e1": {"load": "e1", "unit": "kVA"}, "w1": {"load": "e1", "unit": "kvar"}}}
    profiles = import_profiles(table, feeder, spec).profiles
    assert kw_of(profiles, "e1") == pytest.approx(np.sqrt(table["e1"] ** 2 - table["w1"] ** 2))


def test_columns_of_the_phases_of_a_load_are_added(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "a": 80.0 + TIMES.hour, "b": 60.0 + TIMES.hour, "c": 10.0})
    columns = {name: {"load": "e1", "unit": "A", "phase": i} for i, name in enumerate("abc", 1)}
    profiles = import_profiles(table, feeder, {"columns": columns}).profiles
    kva = table[["a", "b", "c"]].sum(axis=1) * 0.4 / np.sqrt(3)
    assert np.hypot(kw_of(profiles, "e1"), kvar_of(profiles, "e1")) == pytest.approx(kva)


def test_counter_readings_are_the_energy_between_them(feeder: Path) -> None:
    kw = make_kw(TIMES, 50)
    register = 12345.6 + np.concatenate([[0.0], np.cumsum(kw)])
    times = TIMES.append(TIMES[-1:] + pd.Timedelta(hours=1))
    table = pd.DataFrame({"time": times, "e1_kWh": register})
    (problem,) = problems_of(table, feeder, limits={"demand_pu": 1e6})
    assert "as a counter does; say 'reading: register'" in problem
    spec = {"columns": {"e1_kWh": {"load": "e1", "reading": "register"}}}
    assert kw_of(import_profiles(table, feeder, spec).profiles, "e1") == pytest.approx(kw, abs=1e-6)


# sums of several loads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allocate", ["kva", "energy"])
def test_head_and_transformer_keep_meters_and_deal_out_the_rest(feeder: Path, allocate: str) -> None:
    own, street, head = make_kw(TIMES, 30), make_kw(TIMES, 60, 1) + 40, make_kw(TIMES, 60, 2) + 150
    table = pd.DataFrame({"time": TIMES, "e1": own, "T1": street, "SCADA": head})
    columns = {"T1": {"transformer": "t1"}, "SCADA": {"head": True}}
    energy = {"e2": 5.0, "w1": 100.0, "w2": 300.0, "zero": 0.0}
    keys = {
        "unit": "kW",
        "columns": columns,
        "allocate": allocate,
        "energy_kwh": energy if allocate == "energy" else {},
    }
    imported = import_profiles(table, feeder, keys)
    kw = {load: kw_of(imported.profiles, load) for load in ("e1", "e2", "w1", "w2", "zero")}
    assert kw["e1"] == pytest.approx(own)
    assert kw["e1"] + kw["e2"] == pytest.approx(street)
    assert sum(kw.values()) == pytest.approx(head)
    ratio = 3.0 if allocate == "energy" else 40 / np.hypot(20, 5)
    assert kw["w2"] == pytest.approx(ratio * kw["w1"])
    assert not kw["zero"].any()
    assert "SCADA [kW] -> feeder head (w1, w2, zero)" in imported.report.as_text()


def test_meter_site_class_and_list_of_loads_are_sums_of_the_right_ones(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "x": make_kw(TIMES, 60) + 10})
    east, west = {"e1", "e2"}, {"w1", "w2", "zero"}
    for entry, loads, more in (
        ({"meter": "Transformer.t2"}, west, {}),
        ({"meter": "Line.l1"}, east | west, {}),
        ({"site": "EAST"}, east, {}),
        ({"load": ["E1", "w1"]}, {"e1", "w1"}, {}),
        ({"class": "shops"}, {"e2", "w2"}, {"classes": {"?2": "shops"}}),
    ):
        profiles = import_profiles(table, feeder, {"unit": "kW", "columns": {"x": entry}, **more}).profiles
        assert set(profiles.load_series) == loads
        assert sum(kw_of(profiles, load) for load in loads) == pytest.approx(table["x"])


def test_head_below_its_meters_and_shares_that_are_unknown_are_told(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1": make_kw(TIMES, 50) + 10, "SCADA": make_kw(TIMES, 20)})
    keys = {"unit": "kW", "columns": {"SCADA": {"head": True}}}
    (problem,) = problems_of(table, feeder, **keys)
    assert "the meters of its loads show more than itself in 504 of 504 rows" in problem
    table["SCADA"] += 100
    (problem,) = problems_of(table, feeder, **keys, allocate="energy", energy_kwh={"e2": 4})
    assert "energy_kwh lacks w1, w2, zero" in problem


# the year's ------------------------------------------------------------------------------------------------------


def test_demand_sun_and_prices_each_alone_take_the_rest_from_the_shipped_year(feeder: Path) -> None:
    year = builtin_profiles()
    price = pd.DataFrame({"time": TIMES, "price spot [USD/MWh]": 40.0 + TIMES.hour})
    spec = {"columns": {"price spot [USD/MWh]": {"price": "spot"}}}
    imported = import_profiles(price, feeder, spec)
    profiles = imported.profiles
    assert profiles.price_usd_per_kwh["spot"][:3] == pytest.approx([0.040, 0.041, 0.042])
    assert list(profiles.price_usd_per_kwh) == ["spot"]
    assert profiles.demand_names == year.demand_names
    assert not profiles.load_series
    assert set(imported.report.shipped) == {"demand of e1, e2, w1, w2, zero, by class", "temperature", "sun"}
    sun = pd.DataFrame({"time": TIMES, "GHI [W/m2]": np.clip(900 * np.sin((TIMES.hour - 6) / 12 * np.pi), 0, None)})
    profiles = import_profiles(sun, feeder).profiles
    assert profiles.irradiance_pu is not None
    assert profiles.irradiance_pu.max() == pytest.approx(0.9)
    assert profiles.pv_pu is not None
    assert 0.7 < profiles.pv_pu.max() < 1.0
    assert set(profiles.price_usd_per_kwh) == {"time_of_use", "wholesale"}
    both = import_profiles([price, sun], feeder, spec).profiles
    assert both.irradiance_pu is not None
    assert list(both.price_usd_per_kwh) == ["spot"]


@pytest.mark.parametrize("start", ["2024-02-26", "2023-12-20", "2021-06-28"])
def test_shipped_days_are_of_the_same_date_and_day_of_the_week(feeder: Path, start: str) -> None:
    times = make_times(start, days=14)
    profiles = import_profiles(pd.DataFrame({"time": times, "e1_kW": 5.0 + times.hour}), feeder).profiles
    hourly = builtin_profiles().resample(60)
    assert profiles.pv_pu is not None
    assert hourly.pv_pu is not None
    for day, date in enumerate(times[::24]):
        same = pd.Timestamp(2018, date.month, 28 if (date.month, date.day) == (2, 29) else date.day).day_of_year - 1
        assert profiles.pv_pu[24 * day : 24 * day + 24].tolist() == hourly.pv_pu[24 * same : 24 * same + 24].tolist()
        price = profiles.price_usd_per_kwh["time_of_use"][24 * day : 24 * day + 24]
        weekend = {0.09, 0.15 if date.month in (6, 7, 8, 9) else 0.13}
        assert (set(np.round(price, 4)) <= weekend) == (date.day_of_week >= 5)


# units -----------------------------------------------------------------------------------------------------------


def test_every_wrong_unit_is_told_at_once_with_the_remedy(feeder: Path) -> None:
    hour = TIMES.hour.to_numpy()
    table = pd.DataFrame(
        {
            "time": TIMES,
            "e1 [kW]": 60_000.0 + 1000 * hour,
            "w1 [kW]": np.where(hour == 3, -2.0, 3.0),
            "price [USD/kWh]": 45.0 + hour,
            "pv_pu": 4.0 * hour,
            "temperature_c": 280.0 + hour,
        }
    )
    problems = problems_of(table, feeder)
    assert len(problems) == 5
    whole = "\n".join(problems)
    assert "1,312 times the rated 63.25 kVA of e1; say 'unit: W'?" in whole
    assert "21 values below 0, the first -2 kW at 2024-01-01 03:00:00" in whole
    assert "say 'unit: USD/MWh' or 'ct/kWh'" in whole
    assert "say 'unit: %' of percent, 'weather: irradiance' with 'unit: W/m2'" in whole
    assert "say 'unit: K' or 'unit: F'" in whole


def test_demand_far_too_small_for_the_model_is_told(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1": make_kw(TIMES, 50) / 1000})
    assert "is the unit MW?" in problems_of(table, feeder, unit="kW")[0]


def test_what_is_plausible_can_be_widened_and_what_is_negative_kept(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1": 3000.0 + TIMES.hour, "w1": TIMES.hour - 12.0})
    keys = {"unit": "kW", "limits": {"demand_pu": 60}}
    profiles = import_profiles(table, feeder, {**keys, "negative": "keep"}).profiles
    assert kw_of(profiles, "e1").max() == pytest.approx(3023)
    assert kw_of(profiles, "w1").min() == pytest.approx(-12)
    assert kw_of(import_profiles(table, feeder, {**keys, "negative": "zero"}).profiles, "w1").min() == 0


def test_unit_is_never_guessed(feeder: Path) -> None:
    (problem,) = problems_of(pd.DataFrame({"time": TIMES, "e1": make_kw(TIMES, 50)}), feeder)
    assert "the DataFrame: 'e1': the unit is not said; give 'unit', one of W, kW, MW" in problem


# the map ---------------------------------------------------------------------------------------------------------


def test_every_problem_of_a_map_is_told_at_once(feeder: Path, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(
        "columns:\n  a: {laod: e1}\n  b: {load: e1, site: east}\n  c: {load: e1, unit: kX}\n  d: {}\n"
        "gaps: {rule: guess}\ntime: {zone: Mars}\nlimits: {demand_pu: 0}\nunits: kW\n"
    )
    with pytest.raises(ScenarioError) as caught:
        import_profiles(pd.DataFrame({"time": TIMES, "e1": 1.0}), feeder, tmp_path / "map.yaml")
    assert len(caught.value.problems) >= 8
    told = str(caught.value)
    for part in (
        "columns.a: unknown key 'laod' (did you mean 'load'",
        "columns.b: give exactly one of",
        "columns.c",
        "gaps.rule",
    ):
        assert part in told


def test_every_reference_that_does_not_exist_is_told_at_once(feeder: Path) -> None:
    columns = {
        "a": {"load": "e9"},
        "b": {"site": "nowhere"},
        "c": {"meter": "Line.l9"},
        "d": {"transformer": "t9"},
        "e": {"class": "shops"},
        "nothing": "e1",
    }
    problems = problems_of(
        pd.DataFrame({"time": TIMES} | dict.fromkeys("abcde", 1.0)), feeder, unit="kW", columns=columns
    )
    assert len(problems) == 6
    assert problems[0] == "columns: unknown column 'nothing'; allowed: a, b, c, d, e"
    assert problems[1] == "columns.a: unknown load 'e9' (did you mean 'e2' or 'e1'?)"


def test_two_columns_of_one_load_and_kvar_alone_are_told(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1 [kW]": 1.0, "Load.e1 [kWh]": 1.0, "w1 [kvar]": 1.0})
    problems = problems_of(table, feeder)
    assert "are both of load e1; leave one out (null)" in problems[0]
    assert "load w1 has kvar and no kW" in problems[1]


@pytest.mark.parametrize("name", ["head kW", "Feeder head [kW]", "feeder_head_kW"])
def test_head_is_known_by_its_name(feeder: Path, name: str) -> None:
    times = make_times()
    imported = import_profiles(pd.DataFrame({"time": times, name: 80.0}), feeder)
    profiles = imported.profiles
    kw = sum(
        profiles.load_base[load][0] * profiles.demand_pu[0, profiles.demand_names.index(load)]
        for load in profiles.load_base
    )
    assert kw == pytest.approx(80.0, rel=1e-3)


def test_no_column_that_is_known_lists_both_sides(feeder: Path) -> None:
    (problem,) = problems_of(pd.DataFrame({"time": TIMES, "M1": 1.0, "M2": 2.0}), feeder)
    assert "no column is called like a load (e1, e2, w1, w2, zero)" in problem
    assert "say what one is, as --set 'columns.NAME.head=true' for the whole feeder" in problem
    assert "columns are the DataFrame: M1, the DataFrame: M2" in problem


def test_columns_that_are_not_used_are_in_the_report(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50), "status": 1.0, "comment": "ok"})
    report = import_profiles(table, feeder, {"columns": {"comment": None}}).report
    assert report.unused == ("the DataFrame: status",)


def test_long_table_that_says_the_quantity_of_each_row(feeder: Path) -> None:
    kw, kvar = make_kw(TIMES, 50), make_kw(TIMES, 9, 1)
    parts = [
        pd.DataFrame({"time": TIMES, "id": 7, "channel": name, "value": v})
        for name, v in (("kWh", kw), ("kvarh", kvar))
    ]
    long = {"id": "id", "quantity": "channel"}
    profiles = import_profiles(pd.concat(parts), feeder, {"columns": {7: "e1"}, "long": long}).profiles
    assert kw_of(profiles, "e1") == pytest.approx(kw)
    assert kvar_of(profiles, "e1") == pytest.approx(kvar)
    one = import_profiles(parts[0][["time", "id", "value"]], feeder, {"columns": {"7": "e1"}, "unit": "kW"}).profiles
    assert kw_of(one, "e1") == pytest.approx(kw)


def test_excel_is_read_as_any_table(feeder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    table = pd.DataFrame({"time": TIMES, "e1": make_kw(TIMES, 50)})
    with pd.ExcelWriter(tmp_path / "meters.xlsx") as writer:
        pd.DataFrame({"read me": ["nothing here"]}).to_excel(writer, sheet_name="Notes", index=False)
        table.to_excel(writer, sheet_name="Data", index=False)
    imported = import_profiles(tmp_path / "meters.xlsx", feeder, {"unit": "kW", "sheet": "Data"})
    assert imported.profiles.digest() == import_profiles(table, feeder, {"unit": "kW"}).profiles.digest()
    with pytest.raises(ScenarioError, match="Worksheet named 'Dta' not found"):
        import_profiles(tmp_path / "meters.xlsx", feeder, {"sheet": "Dta"})


def test_flexible_load_left_to_itself_draws_its_measured_kvar(feeder: Path, tmp_path: Path) -> None:
    kvar = np.linspace(-4, 12, len(TIMES))
    table = pd.DataFrame({"time": TIMES, "e1 [kW]": make_kw(TIMES, 50) + 5, "e1 [kvar]": kvar})
    folder = import_profiles(table, feeder).write(tmp_path / "mine")
    keys: dict[str, Any] = {"discover": {"flexible_loads": ["e1"], "capacitors": False}, "split": "all"}
    env = powergrid.make(feeder, profiles={"source": str(folder)}, step_minutes=60, episode_length=24, **keys)
    env.reset(seed=0, options={"day": 3})
    simulation = env.task.simulation
    for step in range(24):
        simulation.step(simulation.neutral())
        row = table.iloc[72 + step]
        assert simulation.setpoints[0, 0, 0] == pytest.approx(-row["e1 [kW]"])
        assert simulation.setpoints[1, 0, 0] == pytest.approx(-row["e1 [kvar]"])
    env.close()


def test_profiles_of_another_feeder_are_told(feeder: Path, tmp_path: Path) -> None:
    folder = import_profiles(pd.DataFrame({"time": TIMES, "e1_kW": 5.0 + TIMES.hour}), feeder).write(tmp_path / "mine")
    with pytest.raises(ScenarioError, match="e1: measured, and the feeder has no such loads"):
        powergrid.make("ieee13_mg", profiles={"source": str(folder)}, split="all")


def test_report_is_one_page_that_loads_nothing_and_escapes_names(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "<b>M&1</b>": make_kw(TIMES, 50), "T": make_kw(TIMES, 50) + 60})
    columns = {"<b>M&1</b>": "e1", "T": {"transformer": "t1"}}
    table.loc[40, "T"] = np.nan
    report = import_profiles(table, feeder, {"unit": "kW", "columns": columns}).report
    page = report.as_html()
    assert page.count("<svg") == 5
    assert "&lt;b&gt;M&amp;1&lt;/b&gt;" in page
    assert not any(word in page for word in ("<b>", "<script", "<link", "http", "url("))
    assert "2024-01-02 left out" in page
    assert max(map(len, report.as_text().splitlines())) <= 79
    assert report.as_dict()["left_out"] == {"2024-01-02": ("T",)}


# the command line ------------------------------------------------------------------------------------------------


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["profiles", "import", *map(str, words)])
    return int(ended.value.code or 0)


def test_command_writes_folder_and_report_and_says_how_to_play(
    feeder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"time": TIMES, "e1": make_kw(TIMES, 50) / 4}).to_csv("m.csv", index=False, sep=";", decimal=",")
    words = ("m.csv", "--feeder", feeder, "--out", "mine", "--unit", "MWh", "--set", "limits.demand_pu=1e6")
    assert run(*words, "--zone", "standard", "--report", "r.html") == 0
    shown = capsys.readouterr().out
    assert shown.endswith("In a scenario: profiles: {source: mine, tariff: time_of_use}\n")
    assert "Days       21 of 21, 2024-01-01 to 2024-01-21, rows of 60 min, standard time" in shown
    assert Path("r.html").read_text() == Path("mine/report.html").read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.csv", "mine", "model", "r.html"]
    assert run(*words, "--report", "r.pdf") == 2


def test_command_tells_every_problem_in_one_block_and_writes_nothing(
    feeder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"time": TIMES, "e1": "x", "w1": "y"}).to_csv("m.csv", index=False)
    assert run("m.csv", "n.csv", "--feeder", feeder, "--out", "mine") == 1
    told = capsys.readouterr().err
    assert told.startswith("ScenarioError: import of profiles has 3 problems\n")
    assert "m.csv: column 'e1': 504 values are no numbers, the first in line 2: 'x'" in told
    assert "n.csv: no such file (did you mean 'm.csv'?)" in told
    assert not Path("mine").exists()


# anything at all -------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3000)
    | st.floats()
    | st.sampled_from(["kW", "e1", "us", "UTC", "x", "end", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["load", "unit", "rule", "zone", "e1", "x", "id", "head", "column"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.dictionaries(st.sampled_from([*ImportMap.model_fields]), ANYTHING, max_size=4))
def test_any_map_imports_or_is_a_typed_error(feeder: Path, data: dict[str, Any]) -> None:
    table = pd.DataFrame({"time": TIMES[:72], "e1": 5.0 + TIMES[:72].hour, "x": 1.0})
    with suppress(ScenarioError):
        assert_whole(import_profiles(table, feeder, {"unit": "kW"} | data).profiles)


CELLS = st.sampled_from(
    ["2024-01-01 00:00", "2024-01-01 01:00", "1,5", "1.5", "-3", "nan", "1e308", "inf", "", "x", '"', "\0", "ä"]
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=6), sign=st.sampled_from(",;"))
def test_any_table_imports_or_is_a_typed_error(feeder: Path, rows: list[list[str]], sign: str) -> None:
    file = feeder.with_name("t.csv")
    file.write_text("\n".join([sign.join(["time", "e1", "w1"]), *(sign.join(row) for row in rows)]), encoding="utf-8")
    with suppress(ScenarioError):
        assert_whole(import_profiles(file, feeder, {"unit": "kW"}).profiles)


def test_amperes_of_a_sum_are_at_the_voltage_of_where_they_are_measured(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "x": 12.0 + TIMES.hour / 10})
    for entry, kv in (({"head": True}, 4.16), ({"meter": "Line.l1"}, 4.16), ({"site": "west"}, 0.4)):
        profiles = import_profiles(table, feeder, {"unit": "A", "columns": {"x": entry}}).profiles
        kva = np.sum(
            [np.hypot(kw_of(profiles, load), kvar_of(profiles, load)) for load in profiles.load_series], axis=0
        )
        assert kva == pytest.approx(np.sqrt(3) * kv * table["x"].to_numpy(), rel=0.02)  # power factors differ a little
    (problem,) = problems_of(table, feeder, unit="A", columns={"x": {"transformer": "t1"}})
    assert "A of behind transformer.t1 have no certain voltage; say 'kv', line to line" in problem
    assert import_profiles(table, feeder, {"unit": "A", "columns": {"x": {"transformer": "t1", "kv": 4.16}}})
    (problem,) = problems_of(table.assign(x=9000.0 + TIMES.hour), feeder, unit="A", columns={"x": "e1"})
    assert "times the rated 60 kW of load e1 at 0.4 kV" in problem


def test_lines_above_the_names_of_columns_are_skipped(feeder: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1": make_kw(TIMES, 50)})
    (tmp_path / "m.csv").write_text("Export of plant 7\n;;;\n" + table.to_csv(index=False, sep=";", decimal=","))
    imported = import_profiles(tmp_path / "m.csv", feeder, {"unit": "kW", "skip_rows": 2})
    assert imported.profiles.digest() == import_profiles(table, feeder, {"unit": "kW"}).profiles.digest()


KINDS = """
Clear
New Circuit.kinds basekv=4.16 pu=1.0 phases=3 bus1=source
New Line.l1 bus1=source bus2=mid length=0.5 units=km r1=0.1 x1=0.2 r0=0.3 x0=0.6 c1=0 c0=0
New LoadShape.s npts=24 interval=1 mult=(0.5 0.6 0.7 0.8 0.9 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 0.4)
New Load.x bus1=mid phases=3 kv=4.16 kw=60 kvar=20 daily=s
New Load.x_kw bus1=mid phases=3 kv=4.16 kw=30 kvar=10
New "Load.house 1.2" bus1=mid.1.2 phases=1 conn=delta kv=4.16 kw=30 kvar=10
New Load.fixed bus1=mid phases=3 kv=4.16 kw=30 kvar=10 status=fixed
New Load.exempt bus1=mid phases=3 kv=4.16 kw=30 kvar=10 status=exempt
New Load.m6 bus1=mid phases=3 kv=4.16 kw=30 kvar=10 model=6
New Load.m7 bus1=mid phases=3 kv=4.16 kw=30 kvar=10 model=7
New Load.neg bus1=mid phases=3 kv=4.16 kw=-30 kvar=5
New Load.pv bus1=mid phases=3 kv=4.16 kw=30 kvar=10
New Load.611 bus1=mid phases=3 kv=4.16 kw=30 kvar=10
Set VoltageBases=[4.16]
CalcVoltageBases
Set LoadMult=0.5
"""


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    (tmp_path / "kinds").mkdir()
    master = tmp_path / "kinds" / "kinds.dss"
    master.write_text(KINDS)
    return master


def test_measured_demand_is_drawn_whatever_the_model_says_of_status_model_shape_and_multiplier(kinds: Path) -> None:
    names = ("x", "x_kw", "house 1.2", "fixed", "exempt", "m6", "m7", "neg", "pv", "611")
    kw = {name: make_kw(TIMES, 25, i) + 2 for i, name in enumerate(names)}
    kvar = {name: make_kw(TIMES, 9, i + 20) - 3 for i, name in enumerate(names)}
    table = pd.DataFrame({"time": TIMES} | {f"{name} [kW]": kw[name] for name in names})
    table = table.assign(**{f"{name} [kvar]": kvar[name] for name in names})
    profiles: dict[str, Any] = {"source": table, "map": {}}
    keys: dict[str, Any] = {"split": "all", "step_minutes": 60, "episode_length": 24}
    env = powergrid.make(kinds, profiles=profiles, add_der={"penetration": 0.1}, **keys)
    env.reset(seed=0, options={"day": 5})
    simulation = env.task.simulation
    engine = simulation.circuits[0].engine.direct
    for step in range(24):
        env.step({agent: env.action_space(agent).sample() * 0 for agent in env.agents})
        for name in names:
            engine.Circuit.SetActiveElement(f"load.{name}")
            n = engine.CktElement.NumConductors() if name == "house 1.2" else engine.CktElement.NumPhases()
            powers = np.reshape(engine.CktElement.Powers(), (-1, 2))[:n].sum(axis=0)
            wanted = [kw[name][120 + step], kvar[name][120 + step]]
            # the kvar of model 7 are those of a reactance, which voltage moves
            assert powers == pytest.approx(wanted, abs=5e-3, rel=5e-3 if name == "m7" else 1e-6), (step, name)
    env.close()


def test_names_are_loads_first_whatever_they_look_like(kinds: Path) -> None:
    kw = make_kw(TIMES, 25)
    table = pd.DataFrame(
        {"time": TIMES, "x_kw": kw, "X": kw / 2, 611.0: kw / 3, "House 1.2 (W)": kw * 1e3, "pv": kw / 4}
    )
    profiles = import_profiles(table, kinds, {"unit": "kW"}).profiles
    wanted = {"x_kw": kw, "x": kw / 2, "611": kw / 3, "house 1.2": kw, "pv": kw / 4}
    assert profiles.load_series.keys() == wanted.keys()
    for load, values in wanted.items():
        assert kw_of(profiles, load) == pytest.approx(values)
    assert not profiles.own_sun


def test_any_index_or_pair_of_columns_of_time_is_taken_and_what_is_no_table_told(feeder: Path) -> None:
    kw = make_kw(TIMES, 50)
    wanted = import_profiles(pd.DataFrame({"time": TIMES, "e1": kw}), feeder, unit="kW").profiles.digest()
    date = TIMES.strftime("%Y-%m-%d")
    for table in (
        pd.DataFrame({"e1": kw}, index=TIMES.to_period("h")),
        pd.DataFrame({"e1": kw}, index=TIMES.rename("Datum")),
        pd.DataFrame({"Date": date, "Hour": TIMES.hour, "e1": kw}),
    ):
        assert import_profiles(table, feeder, unit="kW").profiles.digest() == wanted
    ending = pd.DataFrame({"Date": date, "Hour Ending": TIMES.hour + 1, "e1": kw})
    assert import_profiles(ending, feeder, unit="kW", time={"stamps": "end"}).profiles.digest() == wanted
    for table in (None, 7, [3.0], {"e1": kw}):
        with pytest.raises(ScenarioError, match="is no table; give the path of one, a DataFrame, or a list of them"):
            import_profiles(table, feeder, unit="kW")  # type: ignore[arg-type]
    with pytest.raises(ScenarioError, match="is a folder; name the table that is in it"):
        import_profiles(feeder.parent, feeder, unit="kW")


def test_set_of_any_key_is_a_key_of_the_map(
    feeder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"Meßstelle": "e1", "time": TIMES, "Wert": make_kw(TIMES, 50)}).to_csv("m.csv", index=False)
    words = ("m.csv", "--feeder", feeder, "--out", "mine", "--set", "tables={m.csv: {unit: kW, long: {id: Meßstelle}}}")
    assert run(*words) == 0
    assert run(*words, "--set", "feeder=x", "--set", "column_map=1") == 1
    told = capsys.readouterr().err
    assert "unknown key 'feeder'" in told
    assert "unknown key 'column_map' (did you mean 'columns'" in told


def test_texts_that_are_of_nothing_are_not_used_and_those_of_a_load_told(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50), "quality": "good", "valid": True})
    report = import_profiles(table, feeder).report
    assert report.unused == ("the DataFrame: quality (no numbers)", "the DataFrame: valid (no numbers)")
    (problem,) = problems_of(table, feeder, columns={"quality": "w1"}, unit="kW")
    assert "column 'quality': 504 values are no numbers, the first in line 0: 'good'" in problem
    (problem,) = problems_of(table.assign(Zero=True), feeder)
    assert "column 'Zero' holds true and false, not numbers" in problem
    (problem,) = problems_of(table[["time", "quality"]], feeder)
    assert "column 'quality': 504 values are no numbers" in problem
