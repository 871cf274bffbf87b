"""Several feeders in one scenario: equal spaces, the draw at reset, size-independent observations, pickling."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ScenarioError
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.scenario import load_scenario, write_scenario
from tests.envs.worlds import digest, draw_actions, find_imbalance, play

MakeEnv = Callable[..., NetworkedGridEnv]
FEEDERS = ["ieee13", "ieee34", "ieee123"]
SEVERAL: dict[str, Any] = {"feeders": FEEDERS, "placement": {"rule": "load"}, "infos": "full"}


def test_spaces_and_channels_are_equal_on_every_feeder(make_env: MakeEnv, mode: str) -> None:
    env = make_env("ieee13_mg", **SEVERAL, mode=mode)
    seen = []
    for feeder in FEEDERS:
        observations, infos = env.reset(seed=0, options={"feeder": feeder})
        assert {info["feeder"] for info in infos.values()} == {feeder}
        assert env.task.scenario.feeder == feeder
        for agent, observation in observations.items():
            assert env.observation_spaces[agent].contains(observation)
        table = env.describe().observations
        seen.append(list(zip(table["agent"], table["name"], table["unit"], strict=True)))
    assert seen[0] == seen[1] == seen[2]
    names = {name for _, name, _ in seen[0]}
    assert not any(name.endswith(".v_pu") for name in names)
    assert ("network.violation_share" in names) == (mode == "centralized")


def test_summary_channels_are_the_quantiles_of_the_node_voltages(make_env: MakeEnv) -> None:
    env = make_env("ieee13_mg", observations="summary", mode="centralized")
    for moment in play(env, seed=3, steps=5):
        assert moment.observations
        table = env.task.channels.table
        values = dict(zip([c.name for c in table], env.task.channels.values[0], strict=True))
        v_pu = env.task.simulation.snapshot.v_pu[0]
        for percent in (5, 25, 50, 75, 95):
            assert values[f"network.v_{percent:02d}_percent_pu"] == pytest.approx(
                np.percentile(v_pu, percent), abs=1e-12
            )
        assert values["network.v_mean_pu"] == pytest.approx(v_pu.mean())
        outside = np.mean((v_pu < 0.95) | (v_pu > 1.05))
        assert values["network.violation_share"] == pytest.approx(outside)


def test_observations_mean_the_same_whatever_the_size(make_env: MakeEnv) -> None:
    """At the same hour of the same day, demand reads alike on feeders whose kilowatts differ."""
    env = make_env("ieee13_mg", **SEVERAL, load_scale=1.0)
    demand, watts = [], []
    for feeder in FEEDERS:
        env.reset(seed=0, options={"feeder": feeder, "day": 100})
        for _ in range(72):
            seen = env.step(env.neutral_actions())[0]
        table = env.describe().observations.query("agent == 'MG1' and name == 'MG1.demand_kw'").iloc[0]
        demand.append(float(seen["MG1"][table["position"]]))
        watts.append(float(table["high"]))
    assert max(watts) > 1.5 * min(watts)
    assert max(demand) - min(demand) < 0.4
    assert np.ptp(demand) > 0.0


def test_reset_draws_feeders_by_weight_and_the_same_ones_for_a_seed(make_env: MakeEnv) -> None:
    config = SEVERAL | {"feeders": {"ieee13": 3, "ieee34": 1}, "episode_length": 1}

    def draw(env: NetworkedGridEnv) -> list[str]:
        env.reset(seed=7)
        return [str(env.reset()[1]["MG1"]["feeder"]) for _ in range(60)]

    first, second = draw(make_env("ieee13_mg", **config)), draw(make_env("ieee13_mg", **config))
    assert first == second
    assert 0.55 < first.count("ieee13") / 60 < 0.92


def test_episode_on_a_drawn_feeder_is_the_one_of_that_feeder_alone(make_env: MakeEnv) -> None:
    several = make_env("ieee13_mg", **SEVERAL)
    alone = make_env("ieee13_mg", feeder="ieee34", placement={"rule": "load"})
    for env in (several, several):  # another feeder in between leaves no trace
        env.reset(seed=1, options={"feeder": "ieee123"})
        env.step(draw_actions(env, np.random.default_rng(0)))
    options = {"day": 50}
    of_many = list(play(several, seed=2, steps=20, options=options | {"feeder": "ieee34"}))
    of_one = list(play(alone, seed=2, steps=20, options=options))
    for one, other in zip(of_many, of_one, strict=True):
        assert one.rewards == other.rewards
        assert all(np.array_equal(one.observations[a], other.observations[a]) for a in one.observations)
    assert digest(play(several, seed=5, steps=8)) == digest(play(several, seed=5, steps=8))


def test_step_keeps_the_power_balance_on_every_feeder(make_env: MakeEnv) -> None:
    env = make_env("ieee13_mg", **SEVERAL)
    for feeder in FEEDERS:
        for moment in play(env, seed=4, steps=12, options={"feeder": feeder}):
            if moment.rewards:
                simulation = env.task.simulation
                assert abs(find_imbalance(simulation)) < 1e-4 * simulation.network.loads.kw.sum()
        assert env.count_violations() == env.task.metrics.violation_count[0]


def test_env_of_several_feeders_passes_the_public_checkers(make_env: MakeEnv, make_parallel: Any) -> None:
    from pettingzoo.test import parallel_api_test
    from ray.rllib.utils.pre_checks.env import check_multiagent_environments

    check_multiagent_environments(make_env("ieee13_mg", **SEVERAL))
    parallel_api_test(make_parallel("ieee13_mg", **SEVERAL, episode_length=8), num_cycles=40)


def test_env_of_several_feeders_pickles(make_env: MakeEnv, make_parallel: Any) -> None:
    for env in (make_env("ieee13_mg", **SEVERAL), make_parallel("ieee13_mg", **SEVERAL)):
        copy = pickle.loads(pickle.dumps(env))
        try:
            for seed in range(3):
                first, second = env.reset(seed=seed)[1], copy.reset(seed=seed)[1]
                assert first == second
        finally:
            copy.close()


def test_scenario_of_several_feeders_survives_yaml_and_belongs_to_all_of_them(tmp_path: Path) -> None:
    scenario = load_scenario("ieee13_mg", SEVERAL)
    assert load_scenario(yaml.safe_load(scenario.to_yaml())) == scenario
    assert load_scenario(scenario) == scenario
    assert load_scenario(write_scenario(scenario, tmp_path / "several.yaml")) == scenario
    assert scenario.feeder_digests() == {name: read_feeder(name).digest for name in FEEDERS}
    fewer = load_scenario("ieee13_mg", SEVERAL | {"feeders": FEEDERS[:2]})
    weighed = load_scenario("ieee13_mg", SEVERAL | {"feeders": {"ieee13": 1, "ieee34": 1, "ieee123": 2}})
    assert len({scenario.digest(), fewer.digest(), weighed.digest(), load_scenario("ieee13_mg").digest()}) == 4
    alone = load_scenario(scenario, {"feeder": "ieee13"})
    assert (alone.feeders, alone.devices, alone.placed.home) == ({}, load_scenario("ieee13_mg").devices, "")


def test_digest_of_several_feeders_follows_their_content(tmp_path: Path) -> None:
    master = tmp_path / "own.dss"
    text = f'Redirect "{read_feeder("ieee13").master}"\n'
    master.write_text(text)
    config = SEVERAL | {"feeders": ["ieee13", str(master)], "model_root": "/"}
    before = load_scenario("ieee13_mg", config).digest()
    master.write_text(text + "Edit Load.671 kW=1000\n")
    assert load_scenario("ieee13_mg", config).digest() != before


def test_feeders_of_a_file_count_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "own.dss").write_text(f'Redirect "{read_feeder("ieee13").master}"\n')
    file = tmp_path / "two.yaml"
    data = load_scenario("ieee13_mg").to_dict() | {"feeders": ["ieee13", "own.dss"]}
    del data["feeder"], data["observations"]
    del data["model_root"]
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    scenario = load_scenario(file, {"model_root": "/"})  # which no file may say of itself
    assert list(scenario.feeders) == ["ieee13", str(tmp_path / "own.dss")]
    assert (scenario.feeder, scenario.observations) == ("ieee13", "summary")


def test_several_feeders_without_a_way_to_place_say_what_has_no_place_where() -> None:
    with pytest.raises(ScenarioError) as caught:
        NetworkedGridEnv({"env_name": "ieee13_mg", "feeders": FEEDERS})
    for feeder in FEEDERS[1:]:
        assert any(p.startswith(f"{feeder}: devices.ess_1.bus") for p in caught.value.problems)


def test_several_feeders_with_unequal_spaces_are_refused() -> None:
    data = load_scenario("ieee13_mg").model_dump() | {
        "devices": {"cap": {"kind": "capacitor", "element": "Capacitor.cap2"},
                    "ess": {"kind": "storage", "bus": "675", "e_max_kwh": 100, "p_max_kw": 50}},
        "agents": {"A": {"devices": ["cap", "ess"], "zone": {"downstream_of": "671"}, "pcc": "671"}},
    }  # fmt: skip
    two = {"feeders": ["ieee13", "ieee123"], "placement": {"rule": "load", "map": {"Capacitor.cap2": None}}}
    with pytest.raises(ScenarioError, match=r"action space is .* on ieee13, but .* on ieee123"):
        NetworkedGridEnv({"scenario": data, **two})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"feeders": ["ieee13", "ieee99"]}, "ieee99"),
        ({"feeders": {"ieee13": 0}}, "greater than 0"),
        ({"feeders": ["ieee13", "ieee34"], "mode": "centralized", "observations": "full"}, "use 'summary'"),
        ({"feeders": ["ieee13", "ieee34"], "agents": "per_zone"}, "have to be given"),
    ],
)
def test_wrong_feeders_are_told(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        NetworkedGridEnv({"env_name": "ieee13_mg", "placement": {"rule": "load"}, **keys})
    assert type(caught.value).__name__ in ("ScenarioError", "FeederError")


def test_options_with_a_feeder_that_is_not_among_them_are_refused(make_env: MakeEnv) -> None:
    several = make_env("ieee13_mg", **SEVERAL)
    for name in ("ieee37", ["ieee34"]):
        with pytest.raises(ScenarioError, match=r"unknown feeder .*ieee3"):
            several.reset(options={"feeder": name})
    with pytest.raises(ScenarioError, match="feeder: cannot be drawn: it is another circuit"):
        make_env("ieee13_mg").reset(options={"feeder": "ieee13"})


def test_simulation_of_several_feeders_says_to_pick_one() -> None:
    with pytest.raises(ScenarioError, match="has several feeders"):
        load_scenario("ieee13_mg", SEVERAL).simulate()
