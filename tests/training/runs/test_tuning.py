from __future__ import annotations

import csv
import os
import re
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from ray import tune as ray_tune
from ray.tune.search.sample import Categorical
from typer.main import get_command

from powergrid.cli import app, main
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.training import load_policy, tune
from powergrid.training.runs.search_space import (
    SPACES,
    describe_domain,
    draw_trials,
    limits,
    search_space,
)
from powergrid.training.runs.settings import SETTINGS, make_settings
from powergrid.training.runs.tune import fit_trials
from tests.training.conftest import TINY, rows_of, start_driver, wait_for
from tests.training.toy import ToyGridEnv

FAST = {**{name: value for name, value in TINY.items() if name != "num_env_runners"}, "validate_every": 1}


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_every_draw_from_a_space_is_a_setting_that_the_algorithm_takes(algorithm: str) -> None:
    space = search_space(algorithm)
    assert 4 <= len(space) <= 8
    defaults = make_settings(algorithm).model_dump()
    first, *drawn = draw_trials(space, 60, 1, defaults)
    assert first == {name: defaults[name] for name in space}
    for settings in drawn:
        taken = make_settings(algorithm, settings).model_dump()
        assert {name: taken[name] for name in space} == settings
    for name, domain in space.items():
        seen = [settings[name] for settings in drawn]
        if isinstance(domain, Categorical):
            assert set(seen) == set(domain.categories)
        else:
            low, high = limits(domain)
            assert low <= min(seen) < max(seen) <= high
            assert len(set(seen)) > 40


def test_logarithmic_range_draws_as_much_below_its_geometric_mean_as_above() -> None:
    trials = draw_trials({"lr": ray_tune.loguniform(1e-4, 1e-2)}, 2001, 0, {"lr": 1e-3})
    drawn = np.array([settings["lr"] for settings in trials[1:]])
    assert np.mean(drawn < 1e-3) == pytest.approx(0.5, abs=0.04)
    assert all(float(f"{value:.3g}") == value for value in drawn)  # what is printed is what was trained with


def test_draws_with_the_same_seed_are_the_same_and_with_another_differ() -> None:
    space = search_space("ppo")
    defaults = make_settings("ppo").model_dump()
    assert draw_trials(space, 5, 3, defaults) == draw_trials(space, 5, 3, defaults)
    assert draw_trials(space, 5, 3, defaults)[1:] != draw_trials(space, 5, 4, defaults)[1:]


def test_fixed_settings_leave_the_space_and_limit_what_depends_on_them() -> None:
    space = search_space("ppo", {"lr": 1e-3, "train_batch_size": 400, "sgd_minibatch_size": 100})
    assert not {"lr", "minibatch_size"} & set(space)
    fixed = {"train_batch_size": 800, "minibatch_size": 100}
    assert "minibatch_size" not in search_space("ppo", fixed)
    assert search_space("ppo", {"train_batch_size": 1000})["minibatch_size"].categories == [192, 384, 768]


def test_search_takes_names_ranges_and_lists() -> None:
    given = ["lr=1e-4..1e-2", "gamma=[0.98, 0.99]", "num_epochs=2..8", "clip_param", "hidden=[[64, 64], [128, 128]]"]
    assert {name: describe_domain(domain) for name, domain in search_space("ppo", {}, given).items()} == {
        "lr": "0.0001 to 0.01, logarithmic",
        "gamma": "0.98, 0.99",
        "num_epochs": "2 to 8",
        "clip_param": "0.1, 0.2, 0.3",
        "hidden": "[64, 64], [128, 128]",
    }
    drawn = draw_trials(search_space("ppo", {}, given), 40, 0, make_settings("ppo").model_dump())
    assert {settings["num_epochs"] for settings in drawn[1:]} == set(range(2, 9))


def test_search_with_wrong_items_names_all_of_them() -> None:
    with pytest.raises(ScenarioError) as raised:
        search_space(
            "ppo",
            {"gamma": 0.9},
            ["learning_rate", "entropy_coef", "hidden", "lr=3..1", "gamma", "clip_param=[-1, 0.2]", "tau", "lambda_=x"],
        )
    told = "\n".join(raised.value.problems)
    assert "unknown setting 'entropy_coef' (did you mean 'entropy_coeff'" in told
    assert "unknown setting 'learning_rate'" in told
    assert "'hidden' has no range of its own; give one, hidden=LOW..HIGH or hidden=[A, B]" in told
    assert "'lr=3..1' is no range" in told
    assert "'gamma' is fixed by a setting" in told
    assert "clip_param = -1" in told
    assert "unknown setting 'tau'" in told
    assert "'lambda_=x' is no range" in told
    assert len(raised.value.problems) == 8


def test_more_trials_at_once_than_cpus_are_cut_down_with_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    assert fit_trials(None, 0, cpus=2, samples=8) == 2
    assert fit_trials(None, 0, cpus=16, samples=3) == 3
    assert fit_trials(1, 1, cpus=2, samples=8) == 1
    assert not caplog.messages
    assert fit_trials(4, 1, cpus=4, samples=8) == 2
    assert caplog.messages == ["4 trials at once need 8 CPUs and Ray has 4: 2 at once."]
    with pytest.raises(ScenarioError, match="a trial needs 3 CPUs and Ray has 2; at most 1"):
        fit_trials(None, 2, cpus=2, samples=8)


def test_tuning_that_could_not_rank_or_vary_anything_is_refused(tmp_path: Path) -> None:
    fixed = {name: limits(SPACES["ppo"][name])[0] for name in SPACES["ppo"]}
    with pytest.raises(ScenarioError) as raised:
        tune({}, {**FAST, **fixed, "minibatch_size": 96, "validate_every": 0}, env=ToyGridEnv, out_dir=tmp_path)
    assert "tuning ranks by validation" in str(raised.value)
    assert "nothing is left to vary" in str(raised.value)
    with pytest.raises(ScenarioError, match="did you mean 'sac'"):
        tune({}, FAST, env=ToyGridEnv, algorithm="sacc", out_dir=tmp_path)
    with pytest.raises(ScenarioError, match="not 'nope'"):
        tune("ieee13_mg", {**FAST, "validation_split": "nope"}, out_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_name_on_the_command_line_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", "ieee13_mg", "--search", "entropy_coef"])
    assert ended.value.code == 1
    assert "did you mean 'entropy_coeff'" in capsys.readouterr().err


def test_space_of_mappo_is_that_of_ppo() -> None:
    assert SPACES["mappo"] == SPACES["ppo"]


@pytest.mark.slow
def test_tuning_ranks_trials_by_validation_and_keeps_each_as_a_run(ray_session: None, tmp_path: Path) -> None:
    told: list[tuple[int, str]] = []
    result = tune(
        {}, {**FAST, "validation_episodes": 2}, samples=3, iterations=2, search=["lr=1e-6..1e-2", "gamma=[0.5, 0.9]"],
        env=ToyGridEnv, out_dir=tmp_path, name="t", progress=lambda trial, _: told.append((trial.number, trial.state)),
    )  # fmt: skip
    assert [(trial.state, trial.iterations, trial.env_steps) for trial in result.trials] == [("finished", 2, 768)] * 3
    assert result.trials[0].drawn == {"lr": 1e-3, "gamma": 0.99}
    assert {(number, "finished") for number in range(3)} <= set(told)
    rows = rows_of(tmp_path / "t", "trials.csv")
    for trial, row in zip(result.trials, rows, strict=True):
        with (tmp_path / "t" / row["folder"] / "progress.csv").open(newline="") as stream:
            scores = [float(line["validation/episode_return_mean"]) for line in csv.DictReader(stream)]
        assert float(row["validation_return"]) == pytest.approx(max(scores))
        assert trial.last_validation_return == pytest.approx(scores[-1])
    best = result.best
    assert best is not None
    assert best.validation_return == max(trial.validation_return for trial in result.trials)
    settings = yaml.safe_load((tmp_path / "t" / "best.yaml").read_text())
    assert {name: settings[name] for name in best.drawn} == best.drawn
    assert make_settings("ppo", settings).iterations == 2
    assert set(load_policy(tmp_path / "t" / best.folder).policy_of) == {"MG1", "MG2"}
    with pytest.raises(ScenarioError, match="a tuning is there already"):
        tune({}, FAST, env=ToyGridEnv, out_dir=tmp_path, name="t")


@pytest.mark.slow
def test_tuning_whose_every_trial_fails_says_why(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(PowerGridError, match=r"every trial failed(.|\n)*the toy grid is broken"):
        tune({"break_at": 5}, FAST, samples=2, iterations=2, env=ToyGridEnv, out_dir=tmp_path, name="t")
    rows = rows_of(tmp_path / "t", "trials.csv")
    assert [row["state"] for row in rows] == ["failed", "failed"]
    assert "the toy grid is broken" in rows[0]["error"]


@pytest.mark.slow
def test_command_tunes_a_scenario_and_prints_a_command_that_trains(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["train_batch_size=384", "minibatch_size=192", "validation_episodes=1", "hidden=[16, 16]"]
    main_and_end(
        "tune", "ieee13_mg", "--samples", "2", "--iterations", "1", "--concurrent", "5", "--seed", "4", "--out",
        str(tmp_path), "--set", "load_scale=1.05", "--search", "lr", *[w for s in small for w in ("--setting", s)],
    )  # fmt: skip
    shown = capsys.readouterr()
    assert "5 trials at once need 5 CPUs and Ray has 2: 2 at once." in " ".join(shown.err.split())
    assert "2/2 trials" in shown.out
    (line,) = [line for line in shown.out.splitlines() if line.startswith("powergrid train")]
    _, name, *arguments = shlex.split(line)
    context = get_command(app).commands[name].make_context(name, arguments)
    assert context.params["overrides"] == ["load_scale=1.05"]
    given = dict(item.split("=") for item in context.params["settings"])
    (folder,) = tmp_path.iterdir()
    rows = rows_of(folder, "trials.csv")
    best = max(rows, key=lambda row: float(row["validation_return"]))
    assert float(given["lr"]) == float(best["lr"])
    assert given["hidden"] == "[16, 16]"
    for row in rows:
        scenario = yaml.safe_load((folder / row["folder"] / "scenario.yaml").read_text())
        assert scenario["load_scale"] == 1.05


def main_and_end(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


@pytest.mark.slow
def test_interrupted_tuning_keeps_what_was_reached_and_leaves_no_process(tmp_path: Path) -> None:
    code = (
        "from powergrid.training import tune\n"
        "from tests.training.runs.test_tuning import FAST\n"
        "from tests.training.toy import ToyGridEnv\n"
        f"result = tune({{}}, FAST, samples=500, iterations=3, concurrent=1, env=ToyGridEnv,\n"
        f"              out_dir={str(tmp_path)!r}, name='t')\n"
        "print(result.stopped)\n"
    )
    process = start_driver(code)
    wait_for(lambda: any(row["validation_return"] for row in rows_of(tmp_path / "t", "trials.csv")[1:]), process)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends Ctrl-C to the workers too
    output, errors = process.communicate(timeout=120)
    assert output.split() == ["interrupted"], errors
    assert re.sub(r"\s+", " ", errors).strip() == "Stopping after this iteration; once more to stop at once."
    rows = rows_of(tmp_path / "t", "trials.csv")
    states = [row["state"] for row in rows]
    assert states[0] == "finished"
    assert set(states[-400:]) == {"stopped"}
    assert int(rows[0]["iterations"]) == 3
    assert load_policy(tmp_path / "t" / "trial_000").policy_of == {"MG1": "grid_policy", "MG2": "grid_policy"}
    done = [row for row in rows if row["state"] == "finished"]
    best = max(done, key=lambda row: float(row["validation_return"]))
    assert yaml.safe_load((tmp_path / "t" / "best.yaml").read_text())["lr"] == float(best["lr"])
