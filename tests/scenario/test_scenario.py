"""Scenarios: where they come from, how they are overridden, what they refer to, who they are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import FeederError, ScenarioError
from powergrid.grid.feeder.feeder import models_folder
from powergrid.grid.profiles.profiles import builtin_profiles
from powergrid.scenario import REWARD_WEIGHTS, Scenario, ZoneSpec, load_scenario

SMALL: dict[str, Any] = {
    "name": "small",
    "feeder": "ieee13",
    "devices": {"ess": {"kind": "storage", "bus": "675", "e_max_kwh": 100, "p_max_kw": 40}},
    "agents": {"A": {"devices": ["ess"], "zone": {"downstream_of": "671"}, "pcc": "671"}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a user: a scenario file, a feeder and a table beside it."""
    shutil.copytree(models_folder() / "ieee13", tmp_path / "net")
    index = pd.date_range("2023-01-02", periods=96, freq="15min")
    table = pd.DataFrame({"demand_pu:flat": 0.5, "price_usd_per_kwh:mine": 0.2}, index=index)
    table.to_csv(tmp_path / "series.csv", index_label="time")
    data = SMALL | {
        "name": "mine",
        "feeder": "net/Master.dss",
        "profiles": {"source": "series.csv", "tariff": "mine"},
        "split": "all",
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    return tmp_path


def test_list_scenarios_names_the_shipped_in_order() -> None:
    names = powergrid.list_scenarios()
    assert "ieee13_mg" in names
    assert names == sorted(names)
    assert [load_scenario(name).name for name in names] == names
    assert all(load_scenario(name).description for name in names)


def test_load_scenario_from_name_file_data_or_scenario_gives_the_same() -> None:
    by_name = powergrid.load_scenario("ieee13_mg")
    path = Path(powergrid.__file__).parent / "scenarios" / "ieee13_mg.yaml"
    for source in (path, str(path), yaml.safe_load(path.read_text()), by_name, by_name.to_dict()):
        assert load_scenario(source) == by_name
    assert load_scenario(by_name) == by_name
    assert load_scenario(yaml.safe_load(by_name.to_yaml())) == by_name


def test_load_scenario_file_finds_feeder_and_profiles_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    scenario = load_scenario(folder / "mine.yaml")
    assert scenario.read_feeder().master == folder / "net" / "Master.dss"
    assert scenario.read_profiles().demand_names == ("flat",)
    monkeypatch.chdir(folder)
    assert load_scenario("mine.yaml").read_feeder().digest == scenario.read_feeder().digest
    env = NetworkedGridEnv({"env_name": "mine.yaml"})
    env.reset(seed=0)
    *_, infos = env.step({"A": [0.5]})
    assert infos["A"]["price_usd_per_kwh"] == 0.2
    env.close()


def test_load_scenario_data_finds_paths_from_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    data = yaml.safe_load((folder / "mine.yaml").read_text())
    assert load_scenario(data).read_feeder().name == "net"
    absolute = load_scenario("mine.yaml", {"feeder": str(models_folder() / "ieee34" / "Master.dss")})
    assert absolute.read_feeder().name == "ieee34"


def test_load_scenario_model_root_counts_from_the_file_and_trust_opens_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "codes.dss"
    outside.write_text("New LineCode.lc nphases=3\n")
    master = folder / "net" / "Master.dss"
    master.write_text(master.read_text().replace("Set V", f"Redirect {outside}\nSet V", 1))
    monkeypatch.chdir(outside.parent)
    data = yaml.safe_load((folder / "mine.yaml").read_text())
    with pytest.raises(FeederError, match=r"outside the model_root .*whoever calls trusts it: --trust"):
        load_scenario(folder / "mine.yaml").simulate()
    assert load_scenario(folder / "mine.yaml", {"trust": True}).read_feeder().trust
    common = Path(os.path.commonpath([folder, outside]))
    (folder / "mine.yaml").write_text(yaml.safe_dump({**data, "model_root": os.path.relpath(common, folder)}))
    scenario = load_scenario(folder / "mine.yaml")
    assert scenario.read_feeder().model_root == common
    assert scenario.digest() == load_scenario(folder / "mine.yaml", {"model_root": "/"}).digest()
    assert scenario.digest() != load_scenario(folder / "mine.yaml", {"trust": True}).digest()
    from_here = load_scenario({**data, "feeder": str(master), "model_root": os.path.relpath("/")})
    assert from_here.read_feeder().model_root == Path("/")
    discovered = load_scenario({"feeder": str(master), "model_root": "/"})
    assert discovered.devices
    assert outside in discovered.read_feeder().files
    env = NetworkedGridEnv({"env_name": str(folder / "mine.yaml"), "trust": True, "model_root": None})
    env.reset(seed=0)
    env.close()


def test_load_scenario_missing_profiles_say_so(folder: Path) -> None:
    (folder / "series.csv").unlink()
    with pytest.raises(ScenarioError, match=r"series\.csv"):
        load_scenario(folder / "mine.yaml").simulate()


def test_overrides_nested_or_dotted_merge_into_what_is_there() -> None:
    base = load_scenario("ieee13_mg")
    nested = load_scenario("ieee13_mg", {"reward": {"scale": 0.5}, "devices": {"ess_1": {"e_max_kwh": 10}}})
    dotted = load_scenario("ieee13_mg", {"reward.scale": 0.5, "devices.ess_1.e_max_kwh": 10})
    assert nested == dotted
    assert nested.reward.scale == 0.5
    assert nested.reward.weights == base.reward.weights
    assert nested.devices["ess_1"].e_max_kwh == 10
    assert nested.devices["ess_1"].p_max_kw == base.devices["ess_1"].p_max_kw
    assert list(nested.devices) == list(base.devices)
    assert load_scenario(base, {"taps": {"reg1": 1}}).taps == {**base.taps, "reg1": 1}
    assert load_scenario("ieee13_mg", {"profiles.price_ahead_hours": [3]}).profiles.price_ahead_hours == (3.0,)
    assert base == load_scenario("ieee13_mg")  # nothing of it was changed


def test_overrides_in_env_config_reach_the_environment() -> None:
    env = NetworkedGridEnv(
        {"env_name": "ieee13_mg", "mode": "centralized", "episode_length": 4, "voltage.v_max_pu": 1.001, "seed": 3}
    )
    assert (env.scenario.mode, env.scenario.episode_length, env.scenario.seed) == ("centralized", 4, 3)
    env.reset()
    assert (
        env.count_violations()
        == ((env.task.simulation.snapshot.v_pu > 1.001) | (env.task.simulation.snapshot.v_pu < 0.95)).sum()
    )
    assert env.count_violations() > 0
    env.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"reward.scal": 1}, "reward: unknown key 'scal' (did you mean 'scale' or 'goal'?)"),
        ({"rewards.scale": 1}, "unknown key 'rewards' (did you mean 'reward' or 'share_reward'?)"),
        ({"devices.ess_9.e_max_kwh": 1}, "devices.ess_9: kind is required"),
        ({"devices.pv_1.e_max_kwh": 1}, "devices.pv_1: unknown key 'e_max_kwh'"),
        ({"agents.MG1.zone.buses": ["671"]}, "agents.MG1.zone: give exactly one of buses, downstream_of and microgrid"),
        ({"agents.MG1.devices": [["ess_1"]]}, "agents.MG1.devices.0: input should be a valid string"),
    ],
)
def test_overrides_wrong_say_where(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario("ieee13_mg", overrides)
    assert message in str(caught.value)


def test_device_or_agent_named_like_a_kind_or_key_is_told_apart() -> None:
    scenario = SMALL | {
        "devices": {"storage": SMALL["devices"]["ess"] | {"soc": 1}},
        "agents": {"zone": SMALL["agents"]["A"] | {"devices": ["storage"], "pc": "671"}},
    }
    with pytest.raises(ScenarioError) as caught:
        load_scenario(scenario)
    assert caught.value.problems == (
        "devices.storage: unknown key 'soc' (did you mean 'soc_min' or 'soc_max'?)",
        "agents.zone: unknown key 'pc' (did you mean 'pcc'?)",
    )


def test_zone_downstream_until_leaves_the_rest_to_others() -> None:
    network = load_scenario(SMALL).simulate().network

    def names(**keys: Any) -> set[str]:
        return {network.buses[i] for i in ZoneSpec(**keys).find_buses(network)}

    assert names(downstream_of="671") == {"671", "680", "684", "611", "652", "692", "675"}
    assert names(downstream_of="671", until=("692", "684")) == {"671", "680"}
    assert names(downstream_of="RG60", until=("632",)) == {"rg60"}
    assert names(buses=("675", "611")) == {"675", "611"}


def test_weight_of_a_term_is_the_scenarios_or_the_default_and_penalty_multiplies_violations() -> None:
    scenario = load_scenario(SMALL | {"penalty": 50, "reward": {"weights": {"overload_pu": 0.5, "losses_kwh": 0.1}}})
    assert scenario.weight_of("voltage_violation_pu") == 50 * REWARD_WEIGHTS["voltage_violation_pu"]
    assert scenario.weight_of("overload_pu") == 25
    assert scenario.weight_of("losses_kwh") == 0.1
    assert scenario.weight_of("energy_cost_usd") == REWARD_WEIGHTS["energy_cost_usd"]


def test_digest_follows_scenario_feeder_and_profiles_but_not_their_folder(folder: Path, tmp_path: Path) -> None:
    first = load_scenario(folder / "mine.yaml").digest()
    assert load_scenario(folder / "mine.yaml").digest() == first
    assert load_scenario(folder / "mine.yaml", {"load_scale": 1.1}).digest() != first
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved, ignore=shutil.ignore_patterns("moved"))
    assert load_scenario(moved / "mine.yaml").digest() == first
    series = (moved / "series.csv").read_text()
    (moved / "series.csv").write_text(series.replace("0.5", "0.6", 1))
    assert load_scenario(moved / "mine.yaml").digest() != first
    (moved / "series.csv").write_text(series)
    with (moved / "net" / "Loads.dss").open("a") as file:
        file.write("New Load.more Bus1=675.1 Phases=1 kV=2.4 kW=1\n")
    assert load_scenario(moved / "mine.yaml").digest() != first


def test_scenario_with_a_dataframe_writes_that_it_has_one() -> None:
    index = pd.date_range("2023-01-02", periods=96, freq="15min")
    table = pd.DataFrame({"demand_pu:flat": 0.5, "price_usd_per_kwh:mine": 0.2}, index=index)
    scenario = load_scenario(SMALL | {"profiles": {"source": table, "tariff": "mine"}, "split": "all"})
    assert yaml.safe_load(scenario.to_yaml())["profiles"]["source"] == "a DataFrame"
    copy = load_scenario(scenario, {"load_scale": 2.0})
    assert copy.read_profiles().digest() == scenario.read_profiles().digest()
    env = powergrid.make(copy)
    env.reset(seed=0)
    env.close()


def test_builtin_profiles_are_read_once() -> None:
    assert load_scenario("ieee13_mg").read_profiles() is builtin_profiles()


def test_make_takes_overrides_as_keywords() -> None:
    env = powergrid.make("ieee13_mg", split="test", episode_length=2)
    assert isinstance(env.scenario, Scenario)
    assert (env.scenario.split, env.scenario.episode_length) == ("test", 2)
    env.close()


def test_simulate_several_environments_share_one_description() -> None:
    simulation = load_scenario(SMALL).simulate(3)
    assert len(simulation.circuits) == simulation.n_envs == 3
    for env in range(3):
        simulation.reset(env, np.random.default_rng(env))
    assert simulation.snapshot.converged.all()
    simulation.close()


def test_scenario_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_scenario(SMALL).mode = "centralized"  # type: ignore[misc]


def test_feeder_that_is_no_master_says_so(tmp_path: Path) -> None:
    (tmp_path / "Lines.dss").write_text("New Line.a Bus1=1 Bus2=2\n")
    with pytest.raises(FeederError, match=r"no 'New Circuit\.<name>' in it: this is not a master file"):
        load_scenario(SMALL | {"feeder": str(tmp_path / "Lines.dss")}).simulate()


def test_loadshapes_of_the_feeder_as_source_drive_each_load_by_its_own(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "dss_models" / "ieee13" / "Master.dss"
    master = tmp_path / "shaped.dss"
    morning = " ".join(str(round(0.2 + 0.03 * hour, 2)) for hour in range(24))
    master.write_text(
        f'redirect "{shipped}"\n'
        f"new LoadShape.morning npts=24 interval=1 mult=({morning})\n"
        "edit Load.671 daily=morning\n"
    )
    scenario = load_scenario("ieee13_mg", {"feeder": str(master), "profiles": {"source": "loadshapes"}})
    simulation = scenario.simulate()
    simulation.reset(0, np.random.default_rng(0))
    loads = simulation.network.loads
    shaped, flat = loads.names.index("671"), loads.names.index("634a")
    hours = np.rint(np.arange(1, 97) / 4)  # the nearest point, which OpenDSS counts from 1, and the last at midnight
    expected = loads.kw[shaped] * scenario.load_scale * np.round(0.2 + 0.03 * ((hours - 1) % 24), 2)
    np.testing.assert_allclose(simulation.day_load_kw[0, :96, shaped], expected, rtol=1e-12)
    np.testing.assert_allclose(simulation.day_load_kw[0, :, flat], loads.kw[flat] * scenario.load_scale, rtol=1e-12)
    assert np.ptp(simulation.day_price[0]) >= 0.0
    assert scenario.digest() != load_scenario("ieee13_mg", {"feeder": str(master)}).digest()
    simulation.close()


def test_loadshapes_as_source_of_a_feeder_without_any_is_an_error() -> None:
    with pytest.raises(ScenarioError, match="no load of the feeder names a LoadShape"):
        load_scenario("ieee13_mg", {"profiles.source": "loadshapes"}).simulate()


def test_digest_is_the_one_that_runs_of_0_1_0_keep(tmp_path: Path) -> None:
    # Recorded with 0.1.0; the shipped scenarios have other ratings since.
    (tmp_path / "Master.dss").write_text(
        """Clear
New Circuit.street basekv=12.47 pu=1.02
New Line.head bus1=sourcebus bus2=a length=1 r1=0.2 x1=0.4 r0=0.4 x0=1.2 normamps=300
New Load.shop bus1=a kV=12.47 kW=400 kvar=100
New Capacitor.bank bus1=a kV=12.47 kvar=300
Set VoltageBases=[12.47]
CalcVoltageBases
"""
    )
    devices = {
        "ess": {"kind": "storage", "bus": "a", "e_max_kwh": 400.0, "p_max_kw": 100.0},
        "pv": {"kind": "inverter", "bus": "a", "p_max_kw": 200.0},
        "gen": {"kind": "generator", "bus": "a", "p_max_kw": 50.0},
        "bank": {"kind": "capacitor", "element": "Capacitor.bank"},
    }
    agents = {"grid": {"devices": list(devices), "zone": {"buses": ["a"]}, "pcc": "a"}}
    data = {"name": "street", "feeder": str(tmp_path / "Master.dss"), "devices": devices, "agents": agents}
    digest = load_scenario(data).digest()
    assert digest == "db7b9a211801ed13c9ac3f489177d460fd379c05b78e0a35923a90019edc1581"
    assert load_scenario(data, {"infos": "full"}).digest() == digest
