"""Trainings of several seeds within a budget: what is trained is left, what stopped goes on, what differs is told."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.training.runs.records import end_killed_session, find_changed_settings, read_effort, read_manifest
from powergrid.training.runs.seeds import Recipe, find_runs, fit_settings

SMALL: dict[str, Any] = {
    "num_env_runners": 0, "num_envs_per_env_runner": 1, "train_batch_size": 96, "minibatch_size": 96, "num_epochs": 1,
    "hidden": [8], "validate_every": 0,
}  # fmt: skip
IMITATE = {**SMALL, "preset": "imitate", "imitation_days": 1, "imitation_rounds": 2, "imitation_passes": 1}


def test_iterations_are_those_that_a_budget_of_steps_has_with_what_is_imitated() -> None:
    plain = fit_settings("ieee13_mg", "ppo", SMALL, 960)
    assert plain.iterations == 10
    imitating = fit_settings("ieee13_mg", "ppo", IMITATE, 960)
    assert (imitating.iterations, imitating.demonstrations, imitating.lr) == (6, "rule_based", 2e-4)
    assert Recipe("ieee13_mg", "ppo", "shared", imitating, 1.0).env_steps == 960  # 4 days of 96 steps, and 6
    assert fit_settings("ieee13_mg", "ppo", {**IMITATE, "iterations": 2}, 960).iterations == 2
    assert (
        fit_settings("ieee13_mg", "ppo", {**IMITATE, "imitation_days": None, "iterations": 9999}, 921_600).iterations
        == 8800
    )  # 200 days
    assert fit_settings("ieee13_mg", "sac", {"steps_per_iteration": 192}, 960).iterations == 5


def test_budget_that_is_not_enough_is_told() -> None:
    with pytest.raises(ScenarioError, match=r"imitating takes 384 (.|\n)*an iteration 96; the budget is 400"):
        fit_settings("ieee13_mg", "ppo", IMITATE, 400)
    with pytest.raises(ScenarioError, match="sac has no preset 'imitate'"):
        fit_settings("ieee13_mg", "sac", {"preset": "imitate"}, 960)


@pytest.fixture(scope="module")
def stopped(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A run of one seed that somebody interrupted."""
    settings = fit_settings("ieee13_mg", "ppo", {**IMITATE, "iterations": 3}, 960)
    recipe, folder = Recipe("ieee13_mg", "ppo", "shared", settings, 5.0), tmp_path_factory.mktemp("runs") / "mg-3"
    (run,) = find_runs(recipe, {3: folder})
    assert (run.state, run.minutes) == ("open", 5.0)
    with pytest.raises(PowerGridError, match="interrupted; the same command goes on with it"):
        run.train(lambda report: os.kill(os.getpid(), signal.SIGINT) if report.iteration == 1 else None)
    return recipe, folder


@pytest.mark.slow
def test_run_that_stopped_goes_on_and_one_that_is_trained_is_left(stopped: tuple[Recipe, Path]) -> None:
    recipe, folder = stopped
    (run,) = find_runs(recipe, {3: folder})
    assert run.state == "stopped"
    assert 0.0 < run.minutes < 5.0
    result = run.train()
    assert (result.stopped, result.iterations, result.env_steps) == ("finished", 3, 3 * 96)
    (run,) = find_runs(recipe, {3: folder})
    assert run.state == "trained"
    manifest = read_manifest(folder)
    env_steps, minutes = read_effort(folder, manifest)
    assert env_steps == 3 * 96 + 4 * 96
    assert 5.0 - run.minutes == pytest.approx(minutes)
    assert find_changed_settings(manifest)["imitation_days"] == 1
    assert "seed" not in find_changed_settings(manifest)


@pytest.mark.slow
def test_run_that_was_trained_otherwise_is_told_by_what_differs(stopped: tuple[Recipe, Path]) -> None:
    _, folder = stopped
    other = fit_settings("ieee13_mg", "ppo", {**IMITATE, "iterations": 3, "lr": 0.01, "checkpoint_every": 7}, 960)
    asked = Recipe("ieee13_mg", "ppo", "independent", other, 5.0)
    with pytest.raises(ScenarioError) as raised:
        find_runs(asked, {4: folder})
    told = str(raised.value)
    assert "seed is 3, asked for is 4" in told
    assert "lr is 0.0002, asked for is 0.01" in told
    assert "policies are {'MG1': 'grid_policy', 'MG2': 'grid_policy'}, asked for are {'MG1': 'MG1_policy'" in told
    assert "checkpoint_every" not in told
    with pytest.raises(ScenarioError, match="algorithm is ppo, asked for is sac"):
        find_runs(Recipe("ieee13_mg", "sac", "shared", fit_settings("ieee13_mg", "sac", {}, 9600), 5.0), {3: folder})


@pytest.mark.slow
def test_run_with_proposals_is_found_as_it_was_trained(ray_session: None, tmp_path: Path) -> None:
    asked = {**SMALL, "preset": "residual", "iterations": 1, "envs_per_day": 1}
    settings = fit_settings("ieee13_mg", "ppo", asked, 960)
    recipe = Recipe("ieee13_mg", "ppo", "shared", settings, 5.0)
    find_runs(recipe, {0: tmp_path / "mg-0"})[0].train()
    assert [run.state for run in find_runs(recipe, {0: tmp_path / "mg-0"})] == ["trained"]


def test_session_that_was_killed_ends_when_it_last_wrote(tmp_path: Path) -> None:
    began = {"start": "2026-01-01T00:00:00+00:00", "from_iteration": 0}
    assert end_killed_session(tmp_path, {"sessions": [began]})["sessions"][0]["end"] == began["start"]
    (tmp_path / "progress.csv").write_text("iteration\n1\n", encoding="utf-8")
    os.utime(tmp_path / "progress.csv", (0, 1767225660))  # a minute after midnight, UTC
    (ended,) = end_killed_session(tmp_path, {"sessions": [began]})["sessions"]
    assert (ended["end"], ended["stopped"]) == ("2026-01-01T00:01:00.000+00:00", "killed")
    whole = {"sessions": [{**began, "end": "2026-01-01T00:00:09+00:00", "stopped": "finished"}]}
    assert json.dumps(end_killed_session(tmp_path, whole)) == json.dumps(whole)
