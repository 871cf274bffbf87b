from __future__ import annotations

import csv
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.cli import main
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation import baseline_returns
from powergrid.evaluation.drawing.charts import Curve, draw_learning_curves, draw_profiles, mean_curve
from powergrid.evaluation.statistics import Profile
from powergrid.grid.profiles.profiles import pick_days, split_days
from powergrid.scenario import load_scenario
from powergrid.training.runs.loop import VALIDATION_SEED, open_validation, validation_days
from powergrid.training.runs.records import VALIDATION_SCORE, read_curves
from powergrid.training.runs.settings import make_settings

SCENARIO = {"env_name": "ieee13_mg", "episode_length": 8}


def make_run(folder: Path, *, scores: list[str], policies: dict[str, str] | None = None, digest: str = "d") -> Path:
    """Write what of a run folder curves are read from."""
    folder.mkdir(parents=True)
    with (folder / "progress.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["iteration", "env_steps", "episode_return_mean", VALIDATION_SCORE])
        writer.writerows([i + 1, 100 * (i + 1), -i, score] for i, score in enumerate(scores))
    manifest = {
        "scenario": "ieee13_mg", "env_config": SCENARIO, "algorithm": "ppo", "digests": {"scenario": digest},
        "policies": policies or {"MG1": "grid_policy", "MG2": "grid_policy"}, "settings": {"validation_episodes": 3},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def test_curves_hold_the_points_that_have_a_number_and_say_how_runs_train(tmp_path: Path) -> None:
    shared = make_run(tmp_path / "a", scores=["", "-2.5", "", "-1.5"])
    own = make_run(tmp_path / "b", scores=["-3.0", ""], policies={"MG1": "MG1_policy", "MG2": "MG2_policy"})
    first, second = read_curves([shared, own])
    assert (first.label, second.label) == ("PPO shared", "PPO independent")
    assert first.env_steps.tolist() == [200.0, 400.0]
    assert first.values.tolist() == [-2.5, -1.5]
    assert second.values.tolist() == [-3.0]


def test_runs_that_cannot_be_drawn_are_all_named(tmp_path: Path) -> None:
    sound = make_run(tmp_path / "a", scores=["-1"])
    empty = make_run(tmp_path / "b", scores=[""], digest="other")
    with pytest.raises(ScenarioError) as raised:
        read_curves([sound, empty])
    told = "\n".join(raised.value.problems)
    assert "has no number yet" in told
    assert "different scenarios" in told
    with pytest.raises(ScenarioError, match=r"unknown column 'episode_return' \(did you mean 'episode_return_mean'"):
        read_curves([sound], "episode_return")
    with pytest.raises(PowerGridError, match="no such run"):
        read_curves([tmp_path / "nothing"])


def test_mean_runs_over_the_steps_that_all_have_and_between_points_by_lines() -> None:
    one = Curve(np.array([0.0, 100.0, 200.0]), np.array([0.0, 2.0, 4.0]))
    other = Curve(np.array([50.0, 150.0]), np.array([1.0, 5.0]))
    mean = mean_curve([one, other])
    assert mean.env_steps.tolist() == [50.0, 100.0, 150.0]
    assert mean.values.tolist() == [1.0, 2.5, 4.0]  # (1 + 1) / 2, (2 + 3) / 2, (3 + 5) / 2


def test_picture_has_a_line_for_each_run_its_mean_and_each_level() -> None:
    curve = Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    figure = draw_learning_curves({"A": [curve, curve], "B": [curve]}, levels={"rule_based": 0.5})
    (axes,), (legend,) = figure.axes, figure.legends
    assert len(axes.lines) == 2 + 1 + 1 + 1
    assert [text.get_text() for text in legend.get_texts()] == ["A, mean of 2", "B", "rule_based"]


def test_no_two_lines_look_the_same_where_there_are_more_than_colours() -> None:
    points = np.array([0.0, 1.0])
    names = ["no_control", "optimum", *(f"run {i}" for i in range(20))]
    curves = draw_learning_curves({name: [Curve(points, points)] for name in names})
    profiles = draw_profiles({name: Profile(points, points, points, points) for name in names}, *names[:2])
    for figure in (curves, profiles):
        lines = figure.axes[0].lines
        assert len({(str(line.get_color()), str(line.get_linestyle())) for line in lines}) == len(names)


@pytest.mark.parametrize(("split", "chosen"), [("validation", []), ("test", []), ("validation", [33, 208, 110])])
def test_baselines_play_the_very_days_of_the_validation(split: str, chosen: list[int]) -> None:
    settings = {"validation_episodes": 3, "validation_split": split}
    told = {"validation_days": chosen} if chosen else {}  # a run from before they were chosen does not say which
    days = validation_days({"env_config": SCENARIO, "settings": settings, **told})
    assert days == (chosen or days)
    found = baseline_returns(SCENARIO, ["no_control"], days)
    env = NetworkedGridEnv({**SCENARIO, "split": split})
    returns = []
    for i in range(3):
        _, infos = env.reset(seed=VALIDATION_SEED + i, options={"day": chosen[i]} if chosen else None)
        assert infos["MG1"]["day"] == days[i]
        total, over = 0.0, False
        while not over:
            _, rewards, _, truncateds, _ = env.step(env.neutral_actions())
            total, over = total + sum(rewards.values()), truncateds["__all__"]
        returns.append(total)
    env.close()
    assert found["no_control"] == pytest.approx(np.mean(returns), rel=1e-9)


def test_validation_plays_days_over_the_whole_split_and_an_older_run_those_it_drew() -> None:
    manifest: dict[str, Any] = {"env_config": SCENARIO, "sessions": []}
    there = split_days(load_scenario("ieee13_mg").read_profiles(), split="validation")
    for n, days in ((3, pick_days(there, 3).tolist()), (50, [*there, *there[:8]])):
        with closing(
            open_validation(NetworkedGridEnv, manifest, make_settings("ppo", {"validation_episodes": n}))
        ) as v:
            assert v.played() == days
        assert manifest["validation_days"] == days[: len(there)]
        manifest["sessions"] = [{}]  # resumed, with more episodes
    del manifest["validation_days"]
    settings = make_settings("ppo", {"validation_episodes": 3})
    with closing(open_validation(NetworkedGridEnv, manifest, settings)) as validation:
        assert validation.played() == validation_days({"env_config": SCENARIO, "settings": {"validation_episodes": 3}})
        assert validation.days == manifest["validation_days"] == []


def test_command_draws_runs_with_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / f"seed{i}", scores=["-2.0", f"-1.{i}"]) for i in range(3)]
    picture = tmp_path / "curves.png"
    with pytest.raises(SystemExit) as ended:
        main(["curves", *map(str, runs), "--baseline", "no_control", "--out", str(picture)])
    assert not ended.value.code
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.split() == [str(picture)]
    with pytest.raises(SystemExit) as ended:
        main(["curves", str(runs[0]), "--out", str(tmp_path / "curves.pdf")])
    assert ended.value.code == 1
