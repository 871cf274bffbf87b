"""Policies of a user's own: functions and classes beside baselines, and what is wrong with them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.cli import main
from powergrid.errors import ActionError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.evaluation.players.callables import is_callable_reference, load_callable
from powergrid.evaluation.stresses.play import stress_days
from powergrid.evaluation.studies.year import digest_of

SCENARIO = {"env_name": "ieee13_mg", "episode_length": 6, "step_minutes": 240}
CODE = """
import numpy as np

def half(observations):
    return {agent: np.full(5, 0.5, np.float32) for agent in observations}

def short(observations):
    return {agent: np.zeros(2, np.float32) for agent in observations}

def no_number(observations):
    return {agent: np.full(5, np.nan, np.float32) for agent in observations}

def whole(observation):
    return np.full(10, 0.5, np.float32)

class Counting:
    def reset(self, episode):
        self.steps = 0

    def act(self, observations):
        self.steps += 1
        return {agent: np.full(5, 0.2 * self.steps - 0.6, np.float32) for agent in observations}

class Steering:
    def reset(self, episode):
        self.steps = 0

    def act(self, observation):
        self.steps += 1
        return np.tanh(observation[:10] * self.steps).astype(np.float32)

class Asking:
    def __init__(self, size):
        self.size = size

nothing = 3
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(CODE, encoding="utf-8")
    return path


def test_functions_classes_and_central_ones_play_the_same_days_as_baselines(file: Path) -> None:
    players = [(name, load_callable(f"{file}:{name}")) for name in ("half", "Counting")]
    players.append(("whole", load_callable(f"{file}:whole", "central")))
    reports = [evaluate(SCENARIO, ["no_control", *players], days=3, n_envs=n) for n in (1, 3)]
    rewards = [{name: rows["reward"].tolist() for name, rows in report.frame.groupby("policy")} for report in reports]
    assert rewards[0] == rewards[1]  # a memory of its own for each of the environments played at once
    np.testing.assert_allclose(rewards[0]["half"], rewards[0]["whole"])
    assert rewards[0]["half"] != rewards[0]["Counting"]


@pytest.mark.parametrize(
    ("name", "told"), [("short", r"own\.py:short(.|\n)*shape"), ("no_number", r"own\.py:no_number")]
)
def test_wrong_actions_are_told_with_whose_they_are(file: Path, name: str, told: str) -> None:
    with pytest.raises(ActionError, match=told):
        evaluate(SCENARIO, [("mine", load_callable(f"{file}:{name}"))], days=1)


def test_what_cannot_be_loaded_is_told(file: Path) -> None:
    for reference, told in (
        ("no_such_module_here:act", "is missing"),
        (f"{file}:haf", "did you mean 'half'"),
        (f"{file}:nothing", "neither act"),
        (f"{file}:Asking", "made without arguments here: missing a required argument: 'size'"),
        (f"{file.parent}/other.py:act", "there is no file"),
    ):
        with pytest.raises(ScenarioError, match=told):
            load_callable(reference)
    assert is_callable_reference("a.b:c")
    assert not is_callable_reference("runs/a")


@pytest.mark.parametrize(("name", "view"), [("half", "agents"), ("Counting", "agents"), ("Steering", "central")])
def test_it_is_the_same_in_another_process_until_its_file_is_another(tmp_path: Path, name: str, view: Any) -> None:
    path = tmp_path / "own.py"
    path.write_text(CODE, encoding="utf-8")
    policy = load_callable(f"{path}:{name}", view)
    again = pickle.loads(pickle.dumps(policy))
    first, other = (evaluate(SCENARIO, [("mine", each)], days=2).frame["reward"].tolist() for each in (policy, again))
    assert first == other
    assert digest_of(policy) == digest_of(again)
    path.write_text(CODE.replace("0.5", "0.6"), encoding="utf-8")
    assert digest_of(load_callable(f"{path}:{name}", view)) != digest_of(policy)


@pytest.mark.parametrize(("name", "view"), [("Counting", "agents"), ("Steering", "central")])
def test_it_plays_under_stresses(file: Path, name: str, view: Any) -> None:
    """Also with readings missing, and with events whose channels it does not see."""
    policy = (name, load_callable(f"{file}:{name}", view))
    report = stress_days(
        SCENARIO, [policy], ["missing_readings", "line_out"], against=["no_control"], days=1, command="powergrid stress"
    )
    rewards = report.days.query("policy == @name").set_index("stress")["reward"]
    changed = view == "central"  # the other acts on nothing that it sees
    assert (rewards["missing_readings"] != rewards["undisturbed"]) == changed
    assert rewards["line_out"] != rewards["undisturbed"]


def test_commands_play_a_central_one(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, short = f"{file}:Steering", ["--set", "episode_length=4", "--view", "central"]
    span = ["--from", "2018-07-15", "--to", "2018-07-16", "--workers", "1", "--set", "step_minutes=240"]
    for arguments, written in (
        (["replay", own, "no_control", "ieee13_mg", "--date", "2018-07-15", *short], "2018-07-15.html"),
        (["study", own, "no_control", "ieee13_mg", *span, "--view", "central"], "report.html"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--out", str(tmp_path / arguments[0])])
        assert ended.value.code == 0, capsys.readouterr().err
        assert "Steering" in (tmp_path / arguments[0] / written).read_text(encoding="utf-8")


def test_commands_print_names_as_they_are(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "ieee13_mg", "--policy", f"{file.parent}/other.py:x"])
    assert "other.py:x: there is no file" in capsys.readouterr().err
