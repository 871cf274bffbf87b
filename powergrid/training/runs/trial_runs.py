"""Run a tuning's trials with Ray Tune, each in a process of its own; what comes of them goes into the book."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ray import tune as ray_tune

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.scenario.bundle import Bundle
from powergrid.training.policies.trust import SIGNATURE_FILE, sign
from powergrid.training.runs.loop import VALIDATION_SCORE, IterationReport
from powergrid.training.runs.records import MANIFEST, write_manifest
from powergrid.training.runs.run import train, trust_claims
from powergrid.training.runs.trials import TrialBook

RUN = "run"  # what a trial reports its run folder under
TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's run folder has its records
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours lets the iterations under way end
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a feeder's path counts from where the command was given
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_trials(
    given: Mapping[str, Any], book: TrialBook, at_once: int, runners: int, interrupted: Callable[[], bool]
) -> None:
    """Have Tune run the trials of a book.

    Args:
        given: What all trials have in common, as :func:`run_trial` reads it.
        book: The trials.
        at_once: Most trials at once.
        runners: Processes that each trial samples with, beside its own.
        interrupted: Whether somebody has asked to stop; asked after every iteration of a trial.
    """
    points = [
        {"number": trial.number, "name": trial.folder, "drawn": trial.drawn, "given": dict(given)}
        for trial in book.trials
    ]
    one = ray_tune.with_resources(run_trial, ray_tune.PlacementGroupFactory([{"CPU": 1.0}] * (1 + runners)))
    with tempfile.TemporaryDirectory(prefix="pg-") as unused, _environment(TUNE_ENVIRONMENT):
        ray_tune.Tuner(
            one,
            param_space={"trial": ray_tune.grid_search(points)},
            tune_config=ray_tune.TuneConfig(max_concurrent_trials=at_once),
            run_config=ray_tune.RunConfig(
                name="tune",
                storage_path=unused,
                verbose=0,
                callbacks=[_Booking(book, given["env_config"])],
                stop=_Asked(interrupted),
            ),
        ).fit()


def fit_trials(wanted: int | None, runners: int, cpus: int, samples: int) -> tuple[int, list[str]]:
    """Choose how many trials run at once: Tune waits, without a message, for a trial that finds no free CPU.

    Args:
        wanted: The number asked for, None for any.
        runners: Processes that each trial samples with, beside its own.
        cpus: What Ray has.
        samples: Number of trials.

    Returns:
        The number, and a sentence where it is less than what was wanted.

    Raises:
        ScenarioError: Not even one trial finds its CPUs.
    """
    each = 1 + runners
    if each > cpus:
        problem = f"num_env_runners = {runners}: a trial needs {each} CPUs and Ray has {cpus}; at most {cpus - 1}"
        raise ScenarioError("tuning", [problem])
    fitting = cpus // each
    if wanted is None or wanted <= fitting:
        return min(wanted or fitting, samples), []
    return min(fitting, samples), [
        f"{wanted} trials at once need {wanted * each} CPUs and Ray has {cpus}: {fitting} at once."
    ]


def run_trial(config: Mapping[str, Any]) -> None:
    """Train one trial and report each iteration to Tune; this runs in a process of Ray's.

    On a Ray that others have, on whatever machine, the run folder goes to the tuning with the last report.
    """
    trial, began = config["trial"], time.monotonic()
    given = trial["given"]

    def report(row: IterationReport) -> None:
        ray_tune.report(
            {
                "iterations": row.iteration,
                "env_steps": row.env_steps,
                "time_s": round(time.monotonic() - began, 3),
                "validation_return": row.metrics.get(VALIDATION_SCORE, math.nan),
            }
        )

    travelling = given["travelling"]
    with ExitStack() as stack:
        out_dir = (
            given["folder"]
            if travelling is None
            else stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-trial-"))
        )
        try:
            train(
                given["env_config"] if travelling is None else travelling, {**given["fixed"], **trial["drawn"]},
                algorithm=given["algorithm"], policies=given["policies"], out_dir=out_dir, name=trial["name"],
                progress=report, verbose=given["verbose"], env=given["env"],
            )  # fmt: skip
        except PowerGridError as error:
            ray_tune.report({"error": f"{type(error).__name__}: {error}"})
        if travelling is not None:
            ray_tune.report({RUN: pack_run(Path(out_dir) / trial["name"])})


def pack_run(folder: Path) -> Bundle:
    """Take a run folder along by content."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return Bundle.of({file.relative_to(folder).as_posix(): file.read_bytes() for file in files})


def bring_home(run: Bundle, folder: Path, env_config: Mapping[str, Any]) -> None:
    """Write a run folder that another machine packed, as if the run had been made here, by this user."""
    run.write(folder)
    manifest = {**json.loads((folder / MANIFEST).read_text()), "env_config": dict(env_config)}
    write_manifest(folder, manifest)
    for signature in folder.rglob(SIGNATURE_FILE):
        sign(signature.parent, trust_claims(manifest))


class _Asked(ray_tune.Stopper):
    """Stop all trials where somebody has asked to."""

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self._interrupted = interrupted

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._interrupted()

    def stop_all(self) -> bool:
        return self._interrupted()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it, to restore an experiment that we restore nothing of


class _Booking(ray_tune.Callback):
    """Write down what trials report and how they end."""

    def __init__(self, book: TrialBook, env_config: Mapping[str, Any]) -> None:
        self._book, self._env_config = book, env_config

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if RUN in result:
            bring_home(result[RUN], self._book.folder / self._book.trials[_number(trial)].folder, self._env_config)
            trial.last_result.pop(RUN, None)  # Tune keeps it, and saves it
        else:
            self._book.take(_number(trial), result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._book.end(_number(trial))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._book.end(_number(trial), error=str(trial.get_error() or "the trial's process died"))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _number(trial: Any) -> int:
    return int(trial.config["trial"]["number"])


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block, but for those that the user has set."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
