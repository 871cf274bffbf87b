"""What was inferred, written as a file to edit: it loads to the same scenario from any place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from powergrid.errors import ScenarioError
from powergrid.grid.feeder.feeder import models_folder
from powergrid.scenario import explain_config, load_scenario, write_scenario
from powergrid.scenario.discovery import LAYOUTS
from tests.scenario.discovery.models import LOOPED, write


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keys", [{}, {"add_der": {"penetration": 0.3}}, {"discover": {"switches": "all"}}])
def test_written_scenario_loads_to_the_same(tmp_path: Path, layout: str, keys: dict[str, Any]) -> None:
    master = write(tmp_path / "a net", LOOPED, "mästare.dss")
    scenario, notes = explain_config({"feeder": str(master), "agents": layout, **keys})
    path = write_scenario(scenario, tmp_path / "mine.yaml", notes)
    again = load_scenario(path)
    assert again == scenario
    assert again.digest() == scenario.digest()
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert data["feeder"] == "a net/mästare.dss"
    assert "discover" not in data
    assert all(f"# - {note[:40]}" in path.read_text(encoding="utf-8") for note in notes)


@pytest.mark.parametrize("name", ["ieee13_mg", "ieee34_mg", "ieee123_mg"])
def test_written_shipped_scenario_loads_to_the_same(tmp_path: Path, name: str) -> None:
    scenario = load_scenario(name)
    assert load_scenario(write_scenario(scenario, tmp_path / "mine.yaml")) == scenario


def test_written_scenario_beside_or_below_its_feeder_finds_it(tmp_path: Path) -> None:
    shutil.copytree(models_folder() / "ieee13", tmp_path / "models" / "net")
    scenario = load_scenario(tmp_path / "models" / "net" / "Master.dss", {"agents": "single"})
    (tmp_path / "studies").mkdir()
    path = write_scenario(scenario, tmp_path / "studies" / "one.yaml")
    assert yaml.safe_load(path.read_text())["feeder"] == "../models/net/Master.dss"
    assert load_scenario(path) == scenario
    shutil.move(tmp_path / "models", tmp_path / "studies" / ".." / "elsewhere")
    with pytest.raises(Exception, match=r"unknown folder 'models'; allowed: elsewhere, studies"):
        load_scenario(path).simulate()


def test_a_written_file_can_leave_devices_to_discovery_again(tmp_path: Path) -> None:
    master = write(tmp_path, LOOPED)
    (tmp_path / "mine.yaml").write_text(
        "feeder: Master.dss\ndevices: discover\nagents: {layout: per_zone, zones: 2}\ndiscover: {generators: false}\n"
        "add_der: {penetration: 0.2, sites: 1}\n"
    )
    scenario = load_scenario(tmp_path / "mine.yaml")
    assert len(scenario.agents) == 2
    assert "gen_diesel" not in scenario.devices
    assert scenario == load_scenario(
        master,
        {
            "agents": {"layout": "per_zone", "zones": 2},
            "discover": {"generators": False},
            "add_der": {"penetration": 0.2, "sites": 1},
        },
    )


def test_write_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    scenario = load_scenario("ieee13")
    with pytest.raises(ScenarioError, match=r"ends with \.yaml"):
        write_scenario(scenario, tmp_path / "mine.txt")
    with pytest.raises(ScenarioError, match="cannot be written"):
        write_scenario(scenario, tmp_path / "nowhere" / "mine.yaml")
    index = pd.date_range("2023-01-02", periods=96, freq="15min", name="time")
    table = pd.DataFrame({"demand_pu:flat": 0.5, "price_usd_per_kwh:mine": 0.2}, index=index)
    held = load_scenario(scenario, {"profiles": {"source": table, "tariff": "mine"}})
    with pytest.raises(ScenarioError, match="a DataFrame cannot be written"):
        write_scenario(held, tmp_path / "mine.yaml")


def test_written_microgrids_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    shutil.copytree(models_folder() / "ieee13", tmp_path / "village")
    scenario = load_scenario("ieee34_ieee13", {"microgrids.MG1.feeder": str(tmp_path / "village" / "Master.dss")})
    path = write_scenario(scenario, tmp_path / "mine.yaml")
    microgrids = yaml.safe_load(path.read_text())["microgrids"]
    assert [each["feeder"] for each in microgrids.values()] == ["village/Master.dss", "ieee13", "ieee13"]
    assert load_scenario(path) == scenario
