"""Days that a baseline plays to be imitated: what is kept is what was played, and is told from anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.evaluation.demonstrations import record_demonstrations
from powergrid.scenario import load_scenario
from powergrid.scenario.demonstrations import MANIFEST, digest_of_play, read_demonstrations, require_same

SHORT = {"env_name": "ieee13_mg", "episode_length": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of rules."""
    return record_demonstrations(SHORT, tmp_path_factory.mktemp("shown") / "days", policy="rule_based", days=2)


def test_kept_days_played_again_bring_what_the_evaluation_says(folder: Path) -> None:
    found = read_demonstrations(folder)
    report = evaluate(SHORT, ["rule_based"], split="train", days=2).frame.sort_values("day")
    assert found.days.tolist() == report["day"].tolist()
    np.testing.assert_allclose(found.rewards, report["reward"], atol=1e-9)
    task = GridTask(load_scenario("ieee13_mg", {"episode_length": 4}))
    try:
        for day, actions, reward in zip(found.days, found.actions, found.rewards, strict=True):
            task.reset(0, np.random.default_rng([0, day]), {"day": int(day)})
            total = 0.0
            for action in actions:
                task.action_buffer()[0] = action
                task.step()
                total += float(task.rewards[0].mean())
            assert total == pytest.approx(reward, abs=1e-9)
    finally:
        task.close()


def test_more_days_are_added_and_those_there_are_left_as_they_are(folder: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npz")}
    told: list[tuple[int, int]] = []
    record_demonstrations(SHORT, folder, policy="rule_based", days=2, progress=lambda *now: told.append(now))
    assert not told
    assert {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npz")} == before


def test_a_folder_of_other_days_and_what_cannot_be_imitated_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PowerGridError, match=r"holds days of ieee13_mg by rule_based that differ in policy; choose"):
        record_demonstrations(SHORT, folder, policy="no_control", days=1)
    with pytest.raises(PowerGridError, match="differ in played"):
        record_demonstrations({**SHORT, "penalty": 7.0}, folder, policy="rule_based", days=1)
    with pytest.raises(ScenarioError, match=r"days 0(.|\n)*no actions to imitate") as problems:
        record_demonstrations(SHORT, tmp_path / "new", policy="native", days=0)
    assert len(problems.value.problems) == 2
    step = {"kind": "load_step", "factor": 2.0, "at_hour": 0.5, "duration_hours": 0.25}
    with pytest.raises(ScenarioError, match="the optimum of such a day is not found yet"):
        record_demonstrations({**SHORT, "events": {"step": step}}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_damaged_missing_and_foreign_demonstrations_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PowerGridError, match="powergrid demonstrate SCENARIO --out"):
        read_demonstrations(tmp_path)
    (tmp_path / MANIFEST).write_text((folder / MANIFEST).read_text())
    with pytest.raises(PowerGridError, match="no day in it yet"):
        read_demonstrations(tmp_path)
    with (tmp_path / "3.npz").open("wb") as file:
        np.savez(file, actions=np.zeros((4, 2)), reward=0.0)
    with pytest.raises(PowerGridError, match=r"3\.npz: no day of finite actions of shape \(4, 10\)"):
        read_demonstrations(tmp_path)
    found = read_demonstrations(folder)
    with pytest.raises(ScenarioError) as told:
        require_same(found, load_scenario("ieee13_mg"), [*found.kept.actions[1:], "ess_9.p_kw"], 1)
    assert [what in problem for what, problem in zip(("other actions", "4 steps", "end with 0"), told.value.problems,
                                                     strict=True)] == [True] * 3  # fmt: skip


def test_what_is_played_has_one_digest_whoever_sees_it() -> None:
    scenario = load_scenario("ieee13_mg")
    seen_otherwise = {"mode": "centralized", "observations": "summary", "split": "test", "outlook": {}, "seed": 4}
    assert digest_of_play(scenario) == digest_of_play(load_scenario("ieee13_mg", seen_otherwise))
    for change in ({"penalty": 1.0}, {"load_scale": 1.0}, {"episode_length": 4}, {"reward": {"scale": 1.0}}):
        assert digest_of_play(scenario) != digest_of_play(load_scenario("ieee13_mg", change))
