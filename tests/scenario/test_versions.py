"""Shipped scenarios are what they were when their version was frozen, and say which version they are."""

from __future__ import annotations

from pathlib import Path

import pytest

import powergrid
from powergrid.errors import ScenarioError
from powergrid.scenario import list_scenarios, list_versions, load_scenario, name_version
from powergrid.scenario.versions import frozen, take_digests

SMALL = "ieee13_mg"


@pytest.mark.parametrize("name", list_versions())
def test_a_version_plays_what_it_played_when_it_was_frozen(name: str) -> None:
    held, found = frozen()[name], take_digests(load_scenario(name))
    changed = [part for part in ("feeder", "profiles", "scenario") if held[part] != found[part]]
    bare, _, version = name.rpartition("-v")
    assert not changed, (
        f"the {changed[0]} of {name} is not what was frozen, so that results on it no longer compare. If that is "
        f"meant: keep the file of before as powergrid/scenarios/{name}.yaml, set version: {int(version) + 1} in "
        f"{bare}.yaml, run scripts/freeze_scenarios.py and scripts/record_days.py, and say in CHANGELOG what changed"
    )


def test_every_shipped_scenario_is_frozen_and_named_by_its_version() -> None:
    for name in list_scenarios():
        scenario = load_scenario(name)
        assert scenario.version is not None
        assert name_version(scenario) == f"{name}-v{scenario.version}"
        assert load_scenario(f"{name}-v{scenario.version}") == scenario


def test_a_scenario_that_was_changed_says_so_and_another_split_is_no_change() -> None:
    assert name_version(load_scenario(SMALL, {"split": "test", "seed": 3})) == f"{SMALL}-v1"
    shown = {"outlook": {}, "proposals": "rule_based", "day_weights": {3: 2.0}}
    assert name_version(load_scenario("ieee13_mg", shown)) == "ieee13_mg-v1"
    assert name_version(load_scenario(SMALL, {"penalty": 7.0})) == f"{SMALL}-v1, changed"


def test_a_version_that_never_was_is_refused_with_those_that_are() -> None:
    with pytest.raises(ScenarioError, match=f"unknown scenario '{SMALL}-v99'.*did you mean.*{SMALL}-v1"):
        powergrid.load_scenario(f"{SMALL}-v99")


def test_a_scenario_of_ones_own_has_no_version(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    text = load_scenario(SMALL).to_yaml().replace("version: 1", "version: null").replace("name: ieee13_mg", "name: own")
    file.write_text(text)
    assert name_version(load_scenario(file)) == "own"
