"""Policies of a user's own: functions and classes beside baselines, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.errors import ActionError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.evaluation.callables import is_callable_reference, load_callable

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
        (f"{file.parent}/other.py:act", "there is no file"),
    ):
        with pytest.raises(ScenarioError, match=told):
            load_callable(reference)
    assert is_callable_reference("a.b:c")
    assert not is_callable_reference("runs/a")
