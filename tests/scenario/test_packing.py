"""Scenarios on machines that have none of their files: what travels, what comes out there, what is refused."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ScenarioError
from powergrid.grid.feeder.feeder import models_folder
from powergrid.scenario import load_scenario, pack_env_config, scenario_from_config
from powergrid.scenario.bundle import Bundle

SMALL: dict[str, Any] = {
    "name": "mine",
    "feeder": "net/Master.dss",
    "split": "all",
    "episode_length": 8,
    "profiles": {"source": "series.csv", "tariff": "mine"},
    "devices": {"ess": {"kind": "storage", "bus": "675", "e_max_kwh": 100, "p_max_kw": 40}},
    "agents": {"A": {"devices": ["ess"], "zone": {"downstream_of": "671"}, "pcc": "671"}},
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of a user: scenario, feeder with a file in a folder beside it, table."""
    folder = tmp_path / "home"
    shutil.copytree(models_folder() / "ieee13", folder / "net")
    (folder / "shared").mkdir()
    (folder / "shared" / "shape.csv").write_text("0.5\n1.0\n")
    master = folder / "net" / "Master.dss"
    shape = "New LoadShape.own npts=2 interval=1 mult=(file=../shared/shape.csv)\n"
    master.write_text(master.read_text().replace("Set V", f"{shape}Set V", 1))
    index = pd.date_range("2023-01-02", periods=96, freq="15min")
    table = pd.DataFrame(
        {"demand_pu:flat": np.linspace(0.3, 0.8, 96), "price_usd_per_kwh:mine": 0.2, "pv_pu": 0.4}, index=index
    )
    table.to_csv(folder / "series.csv", index_label="time")
    (folder / "mine.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture
def abroad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path, Any], dict[str, Any]]:
    """Bring an env_config to a machine without the folder it was packed in, and with an empty cache."""

    def bring(folder: Path, config: Any) -> dict[str, Any]:
        packed = pickle.dumps(pack_env_config(config))
        folder.rename(folder.with_name("gone"))
        monkeypatch.setenv("POWERGRID_CACHE", str(tmp_path / "cache of another machine"))
        arrived: dict[str, Any] = pickle.loads(packed)
        return arrived

    return bring


def play(config: Any) -> list[Any]:
    env = NetworkedGridEnv(config)
    try:
        seen = [env.reset(seed=3)]
        for space in env.action_spaces.values():
            space.seed(0)
        seen += [env.step({a: s.sample() for a, s in env.action_spaces.items()}) for _ in range(4)]
    finally:
        env.close()
    return seen


CONFIGS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "scenario file": lambda home: {"env_name": str(home / "mine.yaml")},
    "feeder": lambda home: {
        "env_name": str(home / "net" / "Master.dss"), "agents": "per_zone", "add_der": {"penetration": 0.3},
        "episode_length": 8},
    "shipped scenario with a table": lambda home: {
        "env_name": "ieee13_mg", "profiles.source": str(home / "series.csv"), "profiles.tariff": "mine",
        "split": "all", "episode_length": 8},
    "data": lambda home: {"scenario": SMALL | {"feeder": str(home / "net" / "Master.dss"),
                                               "profiles": {"source": str(home / "series.csv"), "tariff": "mine"}}},
    "file with another root": lambda home: {"env_name": str(home / "mine.yaml"), "model_root": str(home.parent)},
    "several feeders": lambda home: {
        "env_name": "ieee13_mg", "feeders": {"ieee13": 1, str(home / "net" / "Master.dss"): 3}, "episode_length": 8,
        "placement": {"rule": "load"}},
}  # fmt: skip


@pytest.mark.parametrize("make", CONFIGS.values(), ids=CONFIGS.keys())
def test_packed_config_plays_the_same_where_none_of_its_files_are(make: Any, home: Path, abroad: Any) -> None:
    config = make(home)
    there = play(config)
    digest = scenario_from_config(config).digest()
    arrived = abroad(home, config)
    assert str(home) not in str(arrived)
    here = play(arrived)
    assert str(home) not in repr(scenario_from_config(arrived).to_dict())
    assert scenario_from_config(arrived).digest() == digest
    for ours, theirs in zip(there, here, strict=True):
        for agent, observation in ours[0].items():
            np.testing.assert_array_equal(observation, theirs[0][agent])
        if len(ours) > 2:
            assert ours[1] == theirs[1]


def test_config_without_files_of_its_own_is_left_as_it_is() -> None:
    for config in ({"env_name": "ieee13_mg", "mode": "centralized"}, {"feeder": "ieee34"}, {"env_name": "ieee13"}):
        assert pack_env_config(config) == config
    assert pack_env_config("ieee13_mg") == {"env_name": "ieee13_mg"}


def test_packed_config_still_takes_overrides_and_is_packed_once(home: Path, abroad: Any) -> None:
    arrived = abroad(home, home / "mine.yaml")
    assert pack_env_config(arrived) == arrived
    assert scenario_from_config({**arrived, "episode_length": 3, "voltage.v_min_pu": 0.9}).episode_length == 3


def test_only_what_is_read_travels_and_the_same_files_make_the_same_bundle(home: Path) -> None:
    (home / "secret.txt").write_text("not of the model")
    (home / "net" / "notes.dss").write_text("not redirected to")
    first, second = (pack_env_config(home / "mine.yaml")["bundle"] for _ in range(2))
    names = {file.relative_to(first.unpack()).as_posix() for file in first.unpack().rglob("*") if file.is_file()}
    assert {"scenario/mine.yaml", "0/home/net/Master.dss", "0/home/shared/shape.csv"} <= names
    assert not any("secret" in name or "notes" in name for name in names)
    assert (first.digest, first.unpack()) == (second.digest, second.unpack())
    (home / "shared" / "shape.csv").write_text("0.6\n1.0\n")
    assert pack_env_config(home / "mine.yaml")["bundle"].digest != first.digest


def test_feeder_that_refers_outside_of_what_travels_says_file_line_and_key(home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "library" / "codes.dss"
    outside.parent.mkdir()
    outside.write_text("New LineCode.one nphases=3\n")
    inside = home / "net" / "more.dss"
    inside.write_text("New LineCode.two nphases=3\n")
    master = home / "net" / "Master.dss"
    lines = master.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Set V"))
    lines[at:at] = ["Redirect ../../library/codes.dss", f"Redirect {inside}"]
    master.write_text("\n".join(lines))
    config = {"env_name": str(home / "mine.yaml"), "trust": True}
    assert load_scenario(home / "mine.yaml", {"trust": True}).read_feeder().trust  # here it is allowed
    with pytest.raises(ScenarioError) as caught:
        pack_env_config(config)
    left, absolute = caught.value.problems
    assert left.startswith(f"{master}:{at + 1}: '../../library/codes.dss' lies outside the model_root {home}")
    assert f"'model_root: {tmp_path}' takes it along" in left
    assert absolute.startswith(f"{master}:{at + 2}: '{inside}' is an absolute path")
    assert absolute.endswith("write it as 'more.dss'")
    lines[at + 1] = "Redirect more.dss"
    master.write_text("\n".join(lines))
    arrived = pack_env_config(config | {"model_root": str(tmp_path)})
    assert scenario_from_config(arrived).read_feeder().digest == load_scenario(
        home / "mine.yaml", {"trust": True}
    ).read_feeder().digest  # fmt: skip


def test_trust_does_not_travel_unasked(home: Path, abroad: Any, tmp_path: Path) -> None:
    arrived = abroad(home, home / "mine.yaml")
    scenario = scenario_from_config(arrived)
    feeder = scenario.read_feeder()
    assert not feeder.trust
    master = feeder.master
    assert master.is_relative_to(tmp_path / "cache of another machine")
    (tmp_path / "other.dss").write_text("New LineCode.x\n")
    master.write_text(master.read_text() + f"\nRedirect {tmp_path / 'other.dss'}\n")
    with pytest.raises(Exception, match="outside the model_root"):
        scenario.read_feeder()
    code = (
        "import pickle, sys; from powergrid.scenario import scenario_from_config; "
        "print(scenario_from_config(pickle.load(sys.stdin.buffer)).read_feeder().digest)"
    )
    next_process = subprocess.run(  # finds the copy changed, and makes it anew
        [sys.executable, "-c", code], input=pickle.dumps(arrived), capture_output=True, timeout=120, check=True
    )
    assert next_process.stdout.decode().strip() == feeder.digest


def test_links_of_a_model_travel_as_files(home: Path, abroad: Any) -> None:
    (home / "net" / "Codes.dss").write_text("New LineCode.linked nphases=3\n")
    (home / "link").symlink_to("net")
    master = home / "net" / "Master.dss"
    master.write_text(master.read_text().replace("Set V", "Redirect ../link/Codes.dss\nSet V", 1))
    before = scenario_from_config({"env_name": str(home / "mine.yaml")}).read_feeder().digest
    assert scenario_from_config(abroad(home, home / "mine.yaml")).read_feeder().digest == before


def test_bundle_that_was_changed_or_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    whole = Bundle.of({"a/b.dss": b"one"})
    other = Bundle.of({"a/b.dss": b"two"})
    with pytest.raises(ScenarioError, match="does not hold what its hash"):
        Bundle(whole.digest, other.archive).unpack()
    for name in ("../b.dss", "/b.dss", "a/../../b.dss"):
        with pytest.raises(ScenarioError, match="leaves its folder"):
            Bundle.of({name: b"one"}).unpack()
    with pytest.raises(ScenarioError, match="bundle: is a str"):
        scenario_from_config({"env_name": "ieee13_mg", "bundle": "x"})


def test_bundle_without_a_cache_lies_in_a_folder_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERGRID_CACHE", "")
    bundle = Bundle.of({"a.txt": b"one"}, ["empty"])
    folder = bundle.unpack()
    try:
        assert (folder / "a.txt").read_bytes() == b"one"
        assert (folder / "empty").is_dir()
        assert bundle.unpack() == folder
    finally:
        shutil.rmtree(folder)
