from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.training import RunResult, load_policy, resume, train
from powergrid.training.runs.checkpoints import Checkpoints
from powergrid.training.runs.records import ProgressFile
from tests.training.conftest import TINY, rows_of, start_driver, wait_for
from tests.training.toy import ToyGridEnv

ROOT = Path(__file__).parents[3]


def test_train_leaves_a_complete_run_folder(trained: RunResult) -> None:
    assert (trained.stopped, trained.iterations, trained.env_steps) == ("finished", 3, 3 * 384)
    manifest = json.loads((trained.folder / "run.json").read_text())
    assert manifest["settings"]["train_batch_size"] == 384
    assert manifest["policies"] == {"MG1": "grid_policy", "MG2": "grid_policy"}
    session = manifest["sessions"][0]
    assert session["stopped"] == "finished"
    assert session["versions"]["ray"].startswith("2.60")
    assert session["end"] >= session["start"]
    assert yaml.safe_load((trained.folder / "scenario.yaml").read_text()) == {"env_name": "toy"}
    assert list(trained.folder.glob("events.out.tfevents.*"))


def test_train_writes_progress_under_stable_names(trained: RunResult) -> None:
    rows = rows_of(trained.folder)
    assert [row["iteration"] for row in rows] == ["1", "2", "3"]
    assert [row["env_steps"] for row in rows] == ["384", "768", "1152"]
    last = rows[-1]
    assert float(last["custom/energy_cost_usd"]) == pytest.approx(96.0)
    assert float(last["custom/MG2/energy_cost_usd"]) == pytest.approx(144.0)
    assert float(last["validation/energy_cost_usd"]) == pytest.approx(96.0)
    assert float(last["validation/MG1/voltage_violations"]) == pytest.approx(12.0)
    assert rows[0]["validation/episode_return_mean"] == ""
    assert float(last["policy_loss"]) == pytest.approx(trained.metrics["policy_loss"])
    assert float(last["agent_return/MG1"]) + float(last["agent_return/MG2"]) == pytest.approx(
        float(last["episode_return_mean"])
    )


def test_train_writes_tensorboard_events_under_the_same_names(trained: RunResult) -> None:
    from tensorboardX.proto import event_pb2

    (file,) = trained.folder.glob("events.out.tfevents.*")
    raw, tags, at = file.read_bytes(), {}, 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 8], "little")
        event = event_pb2.Event.FromString(raw[at + 12 : at + 12 + length])
        for value in event.summary.value:
            tags.setdefault(value.tag, {})[event.step] = value.simple_value
        at += 16 + length
    assert list(tags["episode_return_mean"]) == [384, 768, 1152]
    assert tags["custom/energy_cost_usd"][1152] == pytest.approx(96.0)
    assert "ray/learners/grid_policy/vf_loss" in tags


def test_train_keeps_the_newest_and_the_best_checkpoint(trained: RunResult) -> None:
    kept = {path.name for path in (trained.folder / "checkpoints").glob("*")}
    assert kept == {"latest", "best", trained.latest.name, trained.best.name}
    assert trained.latest.name == "iteration_000003"
    scores = {row["iteration"]: row["validation/episode_return_mean"] for row in rows_of(trained.folder)}
    best = max((float(score), int(iteration)) for iteration, score in scores.items() if score)
    assert trained.best.name == f"iteration_{best[1]:06d}"


def test_checkpoint_is_rllibs_own_too(trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.rllib.algorithms.ppo import PPO

    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path))
    algorithm = PPO.from_checkpoint(str(trained.latest))
    try:
        assert algorithm.iteration == 3
        assert algorithm.train()["training_iteration"] == 4
    finally:
        algorithm.stop()


def test_same_seed_gives_the_same_weights_in_processes_of_another_hash_seed(tmp_path: Path) -> None:
    """The order of a set of agents is another one in each process, and no part of the result."""
    settings = {
        **TINY,
        "num_envs_per_env_runner": 2,
        "iterations": 2,
        "validate_every": 0,
        "minibatch_size": 96,
    }  # 1 and 2 give the set of MG1 and MG2 another order
    code = (
        "import sys\nfrom powergrid.training import load_policy, train\n"
        f"run = train({{'env_name': 'ieee13_mg', 'episode_length': 12}}, {settings!r}, out_dir={str(tmp_path)!r},\n"
        "            name=sys.argv[1]).folder\n"
    )
    both = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        both.append(subprocess.Popen([sys.executable, "-c", code, seed], cwd=ROOT, env=environment))
    assert [each.wait() for each in both] == [0, 0]
    ours, theirs = (load_policy(tmp_path / seed).networks["grid_policy"] for seed in ("1", "2"))
    for one, other in zip((*ours.weights, *ours.biases), (*theirs.weights, *theirs.biases), strict=True):
        np.testing.assert_array_equal(one, other)


def test_resume_goes_on_where_the_run_stopped(ray_session: None, tmp_path: Path) -> None:
    settings = {**TINY, "validate_every": 0, "lr": 1e-3}
    first = train({"env_name": "toy"}, {**settings, "iterations": 2}, env=ToyGridEnv, out_dir=tmp_path, name="run")
    with (first.folder / "progress.csv").open("a") as stream:
        stream.write("3,99")  # what a kill after the checkpoint leaves
    second = resume(first.folder, iterations=4)
    assert (second.iterations, second.env_steps) == (4, 4 * 384)
    rows = rows_of(first.folder)
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["episodes"] for row in rows] == ["4", "8", "12", "16"]
    assert float(rows[2]["time_s"]) > float(rows[1]["time_s"])
    sessions = json.loads((first.folder / "run.json").read_text())["sessions"]
    assert [(s["from_iteration"], s["to_iteration"]) for s in sessions] == [(0, 2), (2, 4)]


def test_resume_restores_weights_and_optimiser(build, tmp_path: Path) -> None:
    import numpy as np

    first = build()
    for _ in range(2):
        first.train()
    first.save_to_path(str(tmp_path / "state"))
    second = build(seed=5)
    second.restore_from_path(str(tmp_path / "state"))
    learned = [a.learner_group._learner.module["grid_policy"].get_state() for a in (first, second)]
    for key, value in learned[0].items():
        np.testing.assert_array_equal(learned[1][key], value)
    acting = second.get_module("grid_policy").get_state()  # what samples; its critic is never used, nor kept up
    for key in (k for k in acting if "actor" in k or k.startswith("pi.")):
        np.testing.assert_array_equal(acting[key], learned[0][key])
    moments = [
        list(a.learner_group._learner.get_optimizer("grid_policy").state_dict()["state"].values())
        for a in (first, second)
    ]
    assert moments[0]
    for ours, theirs in zip(*moments, strict=True):
        assert float(ours["step"]) == float(theirs["step"]) > 0
        np.testing.assert_array_equal(ours["exp_avg"], theirs["exp_avg"])


def test_resumed_run_has_the_counters_schedule_and_optimiser_of_one_never_stopped(
    ray_session: None, tmp_path: Path
) -> None:
    settings = {**TINY, "iterations": 4, "validate_every": 0, "lr": 1e-3, "lr_end": 1e-4, "use_kl_loss": True,
                "observation_filter": "mean_std"}  # fmt: skip
    train({}, settings, env=ToyGridEnv, out_dir=tmp_path, name="whole")
    train({}, settings, env=ToyGridEnv, out_dir=tmp_path, name="stopped", progress=_StopIn(1))
    assert len(rows_of(tmp_path / "stopped")) == 2
    resume(tmp_path / "stopped")
    whole, stopped = rows_of(tmp_path / "whole"), rows_of(tmp_path / "stopped")
    for name in ("iteration", "env_steps", "episodes", "lr"):
        assert [row[name] for row in stopped] == [row[name] for row in whole]
    assert len({row["lr"] for row in whole}) == 4
    for name in ("policy_loss", "vf_loss", "entropy", "episode_reward_mean"):  # the same up to where it was stopped
        assert [row[name] for row in stopped[:2]] == [row[name] for row in whole[:2]]
    steps = [_optimiser_steps(tmp_path / name) for name in ("whole", "stopped")]
    assert steps[0] == steps[1] > 0


class _StopIn:
    """Ask a run to stop as Ctrl-C does; it ends the iteration that follows."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def __call__(self, report: object) -> None:
        if report.iteration == self.iteration:
            os.kill(os.getpid(), signal.SIGINT)


def _optimiser_steps(run: Path) -> int:
    import pickle

    (state,) = (run / "checkpoints" / "iteration_000004").rglob("learner/state.pkl")
    optimiser = pickle.loads(state.read_bytes())["optimizer"]["grid_policy_default_optimizer"]
    return int(optimiser["state"]["state"][0]["step"])


def test_resume_of_a_complete_run_says_what_to_ask_for(trained: RunResult) -> None:
    with pytest.raises(ScenarioError, match="3 iterations already"):
        resume(trained.folder)
    with pytest.raises(PowerGridError, match="no such run"):
        resume(trained.folder / "nowhere")


def test_train_into_a_run_that_is_there_refuses(trained: RunResult) -> None:
    with pytest.raises(ScenarioError, match="a run is there already"):
        train({"env_name": "toy"}, TINY, env=ToyGridEnv, out_dir=trained.folder.parent, name="toy")


def test_train_stops_when_the_time_is_up(ray_session: None, tmp_path: Path) -> None:
    settings = {**TINY, "iterations": 1000, "validate_every": 0}
    result = train({}, settings, env=ToyGridEnv, out_dir=tmp_path, time_limit_s=0.5)
    assert result.stopped == "time limit"
    assert 1 <= result.iterations < 100
    assert load_policy(result.folder)


def test_train_with_an_environment_that_cannot_step_raises_its_error(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the toy grid is broken"):
        train({"break_at": 0}, TINY, env=ToyGridEnv, out_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_train_with_a_validation_split_that_is_not_there_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(ScenarioError, match="split"):
        train("ieee13_mg", {**TINY, "validation_split": "validaton"}, out_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_progress_file_takes_new_columns_and_forgets_undone_rows(tmp_path: Path) -> None:
    file = tmp_path / "progress.csv"
    progress = ProgressFile(file)
    progress.add({"iteration": 1, "a": 0.5})
    progress.add({"iteration": 2, "a": float("nan"), "b": 3.0})
    assert rows_of(tmp_path) == [{"iteration": "1", "a": "0.5", "b": ""}, {"iteration": "2", "a": "", "b": "3"}]
    ProgressFile(file, after_iteration=1).add({"iteration": 2, "a": 1.25})
    assert rows_of(tmp_path) == [{"iteration": "1", "a": "0.5", "b": ""}, {"iteration": "2", "a": "1.25", "b": ""}]


def test_checkpoints_clear_away_what_a_kill_left_unfinished(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".unfinished-1-000004").mkdir(parents=True)
    Checkpoints(tmp_path, keep=1)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_a_checkpoint_and_no_process(tmp_path: Path, number: int) -> None:
    code = (
        "from powergrid.training import train\n"
        "from tests.training.conftest import TINY\n"
        "from tests.training.toy import ToyGridEnv\n"
        "settings = {**TINY, 'iterations': 100000, 'checkpoint_every': 100000, 'validate_every': 0}\n"
        f"result = train({{}}, settings, env=ToyGridEnv, out_dir={str(tmp_path)!r}, name='run')\n"
        "print(result.stopped, result.iterations)\n"
    )
    process = start_driver(code)
    wait_for(lambda: len(rows_of(tmp_path / "run")) > 1, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends Ctrl-C to the workers too
    else:
        process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    stopped, iterations = output.split()
    assert stopped == "interrupted"
    assert errors.strip() == "Stopping after this iteration; once more to stop at once."
    assert load_policy(tmp_path / "run").policy_of == {"MG1": "grid_policy", "MG2": "grid_policy"}
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text().strip() == f"iteration_{int(iterations):06d}"


def test_train_with_an_environment_that_fails_later_says_why(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(PowerGridError, match="the toy grid is broken"):
        train({"break_at": 5}, {**TINY, "iterations": 9, "validate_every": 0}, env=ToyGridEnv, out_dir=tmp_path)
    (manifest,) = tmp_path.glob("*/run.json")
    assert json.loads(manifest.read_text())["sessions"][0]["stopped"].startswith("PowerGridError: training stopped")


@pytest.mark.slow
def test_train_whose_worker_only_fails_stops_with_the_workers_traceback(tmp_path: Path) -> None:
    code = (
        "from powergrid.training import train\n"
        "from tests.training.conftest import TINY\n"
        "from tests.training.toy import ToyGridEnv\n"
        "settings = {**TINY, 'iterations': 100, 'validate_every': 0, 'num_env_runners': 1}\n"
        f"train({{'break_at': 5}}, settings, env=ToyGridEnv, out_dir={str(tmp_path)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.split("no environment steps came in for 3 iterations")[-1]
    assert "ValueError: the toy grid is broken" in last
