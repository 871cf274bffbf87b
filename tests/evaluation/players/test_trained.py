"""A trained policy on another scenario than that of its training: what is said, what it sees, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import powergrid
from powergrid.cli import main
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation import evaluate, record_day
from powergrid.evaluation.players.trained import find_differences
from powergrid.scenario import load_scenario

#: A run of ieee13_mg, one iteration.
OLDER_RUN = Path(__file__).parents[2] / "training" / "runs" / "data" / "run_010"
SHORT_KEYS = {"episode_length": 4}
SHORT = {"env_name": "ieee13_mg", **SHORT_KEYS}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run, as if it had been trained on the scenario as it ships today."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(OLDER_RUN, folder)
    scenario = load_scenario("ieee13_mg")
    (folder / "scenario.yaml").write_text(scenario.to_yaml())
    manifest = json.loads((folder / "run.json").read_text())
    manifest["digests"] = {
        "scenario": scenario.digest(),
        "feeder": scenario.read_feeder().digest,
        "feeders": scenario.feeder_digests(),
        "profiles": scenario.read_profiles().digest(),
    }
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


class Spy:
    """Act as a policy does and keep what it saw."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.seen = policy, list[dict[str, np.ndarray]]()
        self.digests, self.trained_scenario, self.spaces = policy.digests, policy.trained_scenario, policy.spaces

    def act(self, observations: Mapping[str, np.ndarray]) -> Any:
        self.seen.append(dict(observations))
        return self.policy.act(observations)


def told(run: Path, **keys: Any) -> dict[str, tuple[str, str]]:
    policy = powergrid.load_policy(run)
    return {each.what: each[1:] for each in find_differences(policy, load_scenario("ieee13_mg", keys))}


def test_nothing_is_said_where_nothing_differs_but_the_days(run: Path) -> None:
    assert told(run) == told(run, split="test") == {}


def test_a_run_of_another_version_of_the_scenario_is_told_so() -> None:
    found = told(OLDER_RUN)
    assert found["version"] == ("unset", "1")
    assert found["reward: weight of reactive_kvarh"] == ("0", "0.005")


def test_everything_that_differs_is_told_once(run: Path) -> None:
    changes = {
        "load_scale": 1.5,
        "mode": "centralized",
        "devices": {"pv_*": {"reactive": "kva"}, "ess_1": {"p_max_kw": 500}, "gen_2": None},
        "voltage": {"v_max_pu": 1.06},
        "profiles": {"tariff": "wholesale"},
        "events": {"storm": {"kind": "line_outage", "element": "Line.*"}},
        "penalty": 50,
    }
    found = told(run, **changes)
    assert found["load_scale"] == ("1.06", "1.5")
    assert found["mode"] == ("distributed", "centralized")
    assert found["devices.ess_1.p_max_kw"] == ("800", "500")
    assert found["devices.pv_1, pv_2.reactive"][1] == "kva"
    assert found["devices.gen_2"] == ("generator", "not there")
    assert found["voltage.v_max_pu"] == ("1.05", "1.06")
    assert found["profiles.tariff"] == ("time_of_use", "wholesale")
    assert found["events.storm"] == ("not there", "line_outage")
    assert found["reward: weight of voltage_violation_pu"] == ("300", "50")
    assert found["reward: weight of overload_pu"] == ("150", "25")
    assert found["agents.MG1.actions"][1].startswith("ess_1.p_kw (-500 to 500 kW), pv_1.q_kvar")
    assert found["agents.MG1.observations"][1].endswith("scaled as in training")
    assert found["agents.MG1.observations seen"] == ("28", "the same; 84 more are not")


def test_feeder_and_series_are_told_by_their_content(run: Path) -> None:
    policy = powergrid.load_policy(OLDER_RUN)  # of a feeder whose ratings were others
    found = {each.what: each for each in find_differences(policy, load_scenario("ieee13_mg"))}
    assert found["feeder"].trained == "another of digest a3b42e3a"
    times = pd.date_range("2018-01-01", periods=96, freq="15min")
    table = pd.DataFrame({"time": times, "demand_pu:all": 0.5, "price_usd_per_kwh:time_of_use": 0.1})
    assert told(run, profiles={"source": table})["profiles"] == ("builtin", "a DataFrame")
    other = {each.what: each for each in find_differences(powergrid.load_policy(run), load_scenario("ieee34_mg"))}
    assert other["feeder"][1:] == ("ieee13", "ieee34")


def test_policy_goes_on_and_sees_what_it_saw_scaled_as_in_training(run: Path) -> None:
    grown = {"load_scale": 2.5, "mode": "centralized", "events": {"dear": {"kind": "price_spike", "factor": 3.0}}}
    spy = Spy(powergrid.load_policy(run))
    report = evaluate(SHORT | grown, [("run", spy)], days=1)
    assert len(report.provenance["differs_from_training"]["run"]) == 8  # also what agents see, and the length of days
    trained, played = (
        GridTask(load_scenario("ieee13_mg")),
        GridTask(load_scenario("ieee13_mg", grown | {"episode_length": 4})),
    )
    try:
        played.reset(0, np.random.default_rng(0), {"day": int(report.frame["day"].iloc[0])})
        now = dict(zip([c.name for c in played.channels.table], played.channels.values[0], strict=True))
        for agent in trained.agents:
            table = [trained.channels.table[i] for i in agent.observed]
            expected = [np.clip(2.0 * (now[c.name] - c.low) / (c.high - c.low) - 1.0, -1.0, 1.0) for c in table]
            np.testing.assert_allclose(spy.seen[0][agent.name], expected, atol=1e-6)
    finally:
        trained.close()
        played.close()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"devices": {"gen_1": None}}, "MG1.*does not see gen_1.p_kw"),
        ({"agents": "single"}, "is no agent of the policy, which has MG1, MG2"),
        ({"devices": {"ess_1": {"reactive": False}}}, "MG1.*acts by 4 numbers here; the policy by 5 numbers"),
        ({"observations": "summary", "profiles": {"price_ahead_hours": [1]}}, "does not see world.price_ahead_2h"),
    ],
)
def test_spaces_that_do_not_fit_are_refused_before_anybody_plays(run: Path, keys: dict[str, Any], said: str) -> None:
    played: list[int] = []
    players = ["no_control", ("run", powergrid.load_policy(run))]
    with pytest.raises(ScenarioError, match=said) as error:
        evaluate(SHORT | keys, players, days=1, progress=lambda done, total: played.append(done))
    assert {each.code for each in error.value.details} == {"spaces-differ"}
    assert "training" in error.value.details[-1].remedy
    assert not played


def test_policy_whose_scenario_cannot_be_read_is_held_to_its_spaces(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "scenario.yaml").write_text("devices: 3\n")
    policy = powergrid.load_policy(folder)
    (found,) = find_differences(policy, load_scenario("ieee13_mg", {"load_scale": 2.0}))
    assert found.trained.startswith("cannot be read")
    with pytest.raises(ScenarioError, match="sees 27 numbers here; the policy takes 28"):
        evaluate(SHORT | {"profiles": {"price_ahead_hours": [1, 2, 4, 6, 9]}}, [("run", policy)], days=1)


def test_commands_list_what_differs(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    more = ["--set", "episode_length=4", "--set", "load_scale=1.1"]
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "ieee13_mg", "--policy", str(run), "--days", "1", *more])
    assert ended.value.code == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "run was trained on something else; what differs in ieee13_mg:"
    assert lines[1:] == [
        "  episode_length: 4; in training 96",
        "  load_scale: 1.1; in training 1.06",
        "  agents.MG1.observations: MG1.demand_kw (0 to 3255.12 kW), scaled as in training; in training other bounds",
        "  agents.MG2.observations: MG2.demand_kw (0 to 1056 kW), scaled as in training; in training other bounds",
    ]


def test_recordings_say_what_differs(run: Path) -> None:
    (recording,) = record_day(SHORT | {"load_scale": 1.1}, [("run", powergrid.load_policy(run))], 3)
    assert any("load_scale (1.1, not 1.06)" in note for note in recording.notes)


class Watcher:
    """Leave everything mid-range, and keep what is seen."""

    def __init__(self, scenario_file: Path) -> None:
        self.trained_scenario, self.digests, self.widths = scenario_file, dict[str, Any](), set[int]()

    def act(self, observations: Mapping[str, np.ndarray]) -> Any:
        self.widths |= {len(seen) for seen in observations.values()}
        return {agent: np.zeros(5, np.float32) for agent in observations}


def test_each_policy_is_shown_the_outlook_of_its_training_and_plays_the_same(run: Path, tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(load_scenario("ieee13_mg", {"outlook": {}, **SHORT_KEYS}).to_yaml())
    foresees, plain = Watcher(tmp_path / "scenario.yaml"), ("plain", powergrid.load_policy(run))
    shown = evaluate(SHORT, [plain, ("foresees", foresees)], days=1).frame.set_index("policy")
    again = evaluate({**SHORT, "outlook": {}}, [plain, ("foresees", foresees)], days=1).frame.set_index("policy")
    assert foresees.widths == {28 + 17}
    pd.testing.assert_frame_equal(shown, again)
    assert [each.what for each in find_differences(foresees, load_scenario("ieee13_mg", SHORT_KEYS))] == []
