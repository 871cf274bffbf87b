"""A run folder written by version 0.1.0 (``data/run_010``: one iteration, two layers of 8) still acts and goes on."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import powergrid
from powergrid.training import PPO, resume
from powergrid.training.rllib.ppo import HOMES, older_module_names
from powergrid.training.runs.records import read_curves

DATA = Path(__file__).parent / "data"


def test_policy_of_an_older_run_gives_the_same_actions() -> None:
    recorded = json.loads((DATA / "run_010_actions.json").read_text())
    actions = powergrid.load_policy(DATA / "run_010").act(
        {agent: np.array(seen, np.float32) for agent, seen in recorded["observations"].items()}
    )
    for agent, expected in recorded["actions"].items():
        np.testing.assert_allclose(actions[agent], expected, rtol=0, atol=1e-6)


def test_curve_of_an_older_run_is_read() -> None:
    (curve,) = read_curves([DATA / "run_010"], "episode_return_mean")
    assert (curve.label, curve.env_steps.tolist()) == ("PPO shared", [192.0])


def test_older_run_resumes_with_trust(ray_session: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = shutil.copytree(DATA / "run_010", tmp_path / "run")
    with pytest.raises(powergrid.PowerGridError, match="trust"):
        resume(run, iterations=2)
    result = resume(run, iterations=2, trust=True)
    assert (result.iterations, result.env_steps) == (2, 2 * 192)
    assert "The scenario has changed" in caplog.text  # the shipped feeder has other ratings since


def test_checkpoint_of_an_older_run_is_an_algorithm_again(ray_session: None) -> None:
    algorithm = PPO.from_checkpoint(DATA / "run_010" / "checkpoints" / "iteration_000001", trust=True)
    try:
        assert algorithm.iteration == 1
        assert type(algorithm.config).__module__ == "powergrid.training.rllib.ppo"
    finally:
        algorithm.stop()


def test_older_names_are_known_only_while_a_checkpoint_is_restored() -> None:
    before = dict(sys.modules)
    old = b"cpowergrid.training.config\nAgentMapping\n."
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(old)
    with older_module_names():
        assert pickle.loads(old).__module__ == "powergrid.training.rllib.planning.policies"
        with pytest.raises(AttributeError, match="Nothing"):
            pickle.loads(b"cpowergrid.training.config\nNothing\n.")
    assert not {f"powergrid.training.{name}" for name in HOMES} & (set(sys.modules) - set(before))
