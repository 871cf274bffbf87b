"""Tables of measurements that a scenario names itself: mapped there, found from its file, imported once, travelling."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ScenarioError
from powergrid.measurements import import_profiles
from powergrid.scenario import load_scenario, write_scenario
from powergrid.training import pack_env_config
from tests.measurements.conftest import make_kw, make_times

TIMES = make_times()
MAP: dict[str, Any] = {"unit": "kW", "columns": {"M1": "e1", "SCADA": {"head": True}}}


@pytest.fixture
def folder(feeder: Path) -> Path:
    """A scenario's folder with two tables, a map and the feeder, none of them named by a whole path."""
    table = pd.DataFrame({"time": TIMES, "M1": make_kw(TIMES, 50), "SCADA": make_kw(TIMES, 60) + 130})
    home = feeder.parents[1]
    (home / "data").mkdir()
    table[["time", "M1"]].to_csv(home / "data" / "meters.csv", index=False, sep=";", decimal=",")
    table[["time", "SCADA"]].to_parquet(home / "data" / "scada.parquet")
    (home / "map.yaml").write_bytes(yaml.safe_dump(MAP).encode("utf-16"))
    for name, column_map in (("inline", MAP), ("file", "map.yaml")):
        source = ["data/meters.csv", "data/scada.parquet"]
        keys = {"feeder": "model/streets.dss", "split": "all", "profiles": {"source": source, "map": column_map}}
        (home / f"{name}.yaml").write_text(yaml.safe_dump(keys))
    return home


def test_tables_mapped_in_a_scenario_play_as_imported_from_wherever_it_is_read(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [folder / "data" / "meters.csv", folder / "data" / "scada.parquet"]
    wanted = import_profiles(tables, folder / "model" / "streets.dss", MAP).profiles.digest()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for name in ("inline.yaml", "file.yaml"):
        scenario = load_scenario(folder / name)
        assert scenario.read_profiles().digest() == wanted
        written = write_scenario(scenario, folder / "deeper.yaml")
        assert yaml.safe_load(written.read_text())["profiles"]["source"] == ["data/meters.csv", "data/scada.parquet"]
        assert load_scenario(written).digest() == scenario.digest() == load_scenario(folder / "inline.yaml").digest()
        assert "Loads      5 of 5" in scenario.import_measurements().report.as_text()
    packed = pack_env_config({"env_name": str(folder / "file.yaml")})
    shutil.rmtree(folder)
    env = NetworkedGridEnv(packed)
    assert env.task.simulation.profiles.step_minutes == 15
    assert set(env.task.simulation.profiles.load_series) == {"e1", "e2", "w1", "w2", "zero"}
    env.close()


def test_same_content_is_imported_once_and_other_content_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from powergrid.measurements.kept import imports

    monkeypatch.setenv("POWERGRID_CACHE", str(tmp_path_factory.mktemp("cache")))
    imports.forget()
    first = load_scenario(folder / "inline.yaml").import_measurements()
    imports.forget()  # as another process finds it
    with monkeypatch.context() as patch:
        patch.setattr("powergrid.measurements.kept.import_profiles", None)
        again = load_scenario(folder / "file.yaml").import_measurements()
        other = folder / "elsewhere.yaml"
        shutil.copytree(folder / "data", folder / "copy")
        other.write_text((folder / "inline.yaml").read_text().replace("data/", "copy/"))
        assert load_scenario(other).read_profiles().digest() == first.profiles.digest()
    assert again.profiles.digest() == first.profiles.digest()
    assert again.profiles.own_sun == first.profiles.own_sun
    assert again.report.as_html() == first.report.as_html()
    assert again.report.as_dict() == first.report.as_dict()
    text = (folder / "data" / "meters.csv").read_text()
    (folder / "data" / "meters.csv").write_text(text.replace(";2", ";3"))
    changed = load_scenario(folder / "inline.yaml")
    assert changed.read_profiles().digest() != first.profiles.digest()
    assert changed.digest() != load_scenario(other).digest()


def test_a_frame_in_python_is_mapped_too(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1 [kW]": make_kw(TIMES, 50)})
    env = powergrid.make(feeder, profiles={"source": table, "map": {}}, step_minutes=60, split="all")
    env.reset(seed=0, options={"day": 4})
    simulation = env.task.simulation
    at = simulation.network.loads.names.index("e1")
    assert simulation.day_load_kw[0, :24, at] == pytest.approx(table["e1 [kW]"][96:120].to_numpy(), abs=1e-9)
    env.close()


def test_what_is_wrong_with_map_or_source_is_told_by_its_key(folder: Path) -> None:
    scenario = folder / "inline.yaml"
    with pytest.raises(ScenarioError) as caught:
        load_scenario(scenario, {"profiles.map": {"unit": "kX", "colums": {}, "columns": {"M1": {"laod": "e1"}}}})
    told = str(caught.value)
    assert "profiles.map: columns.M1: unknown key 'laod' (did you mean 'load'" in told
    assert "unknown unit 'kX'" in told
    assert "unknown key 'colums' (did you mean 'columns'" in told
    for keys, text in (
        ({"profiles": {"map": None}}, "several tables are measurements; 'map' says"),
        ({"profiles": {"source": "builtin"}}, "map: goes with tables of measurements as 'source', not with 'builtin'"),
        ({"profiles": {"source": []}}, "an empty list"),
        ({"profiles": {"source": [3]}}, "source: 3 is no path of a table"),
        ({"profiles": {"map": "no_map.yaml"}}, "no_map.yaml: "),
        ({"profiles": {"map": 7}}, "profiles.map: holds a int, not keys with values"),
    ):
        with pytest.raises(ScenarioError, match=text):
            load_scenario(scenario, keys)
    with pytest.raises(ScenarioError, match=r"meterz.csv: no such file \(did you mean 'meters.csv'\?\)"):
        load_scenario(scenario, {"profiles.source": str(folder / "data" / "meterz.csv")}).read_profiles()
    with pytest.raises(ScenarioError, match=r"or say 'profiles\.map' of a measured table"):
        load_scenario(
            scenario, {"profiles.map": None, "profiles.source": str(folder / "data" / "meters.csv")}
        ).read_profiles()


def test_measured_sun_goes_before_the_shapes_of_the_models_panels(feeder: Path, tmp_path: Path) -> None:
    sun = np.clip(np.sin((TIMES.hour.to_numpy() - 6) / 12 * np.pi), 0, None)
    imported = import_profiles(pd.DataFrame({"time": TIMES, "pv_pu": sun}), feeder)
    assert imported.profiles.own_sun
    from powergrid.grid.profiles.imported import read_imported

    assert read_imported(imported.write(tmp_path / "mine")).own_sun
    assert not import_profiles(pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50)}), feeder).profiles.own_sun
