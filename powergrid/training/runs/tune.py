"""Tune an algorithm's settings on a scenario: Ray Tune runs trials, each a training run with a folder of its own."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from ray import tune as ray_tune
from ray.tune.logger import LoggerCallback
from ray.tune.search.sample import Domain

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.scenario.bundle import Bundle
from powergrid.training.policies.trust import SIGNATURE_FILE, sign
from powergrid.training.rllib.agents import (
    EnvClass,
    Policies,
    as_env_config,
    available_cpus,
    default_env,
    travelling_config,
)
from powergrid.training.rllib.algorithm_settings import dump_settings, make_algorithm_settings
from powergrid.training.runs.loop import VALIDATION_SCORE, IterationReport, stop_signals
from powergrid.training.runs.records import MANIFEST, how_it_ended, start_of_session, write_manifest
from powergrid.training.runs.search_space import describe_domain, draw_trials, search_space
from powergrid.training.runs.session import ray_session
from powergrid.training.runs.settings import TrainSettings
from powergrid.training.runs.train import check_plan, env_path, place_of, scenario_name, train, trust_claims

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger("powergrid.training")

BEST, ASKED, TRIALS = "best.yaml", "tune.json", "trials.csv"
RUN = "run"  # what a trial reports its run folder under
TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's run folder has progress.csv and TensorBoard events already
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours lets the iterations under way end
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a feeder's path counts from where the command was given
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass
class Trial:
    """One trial and what it came to.

    Attributes:
        number: Its number, from 0; its run folder is ``trial_000`` and on.
        drawn: The settings that were varied, as they were drawn for it.
        state: ``"waiting"``, ``"running"``, ``"finished"``, ``"stopped"`` or ``"failed"``.
        validation_return: Mean return of the validation episodes at its best checkpoint; NaN before the first.
        last_validation_return: The same, of the last validation.
        iterations: Iterations it has.
        env_steps: Environment steps it has.
        time_s: How long it trained [s].
        error: Why it failed.
    """

    number: int
    drawn: dict[str, Any]
    state: str = "waiting"
    validation_return: float = math.nan
    last_validation_return: float = math.nan
    iterations: int = 0
    env_steps: int = 0
    time_s: float = 0.0
    error: str = ""

    @property
    def folder(self) -> str:
        """Return the name of its run folder."""
        return f"trial_{self.number:03d}"

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("finished", "stopped", "failed")


TuneProgress = Callable[[Trial, Sequence[Trial]], None]


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Sort trials by validation return, the best first, those without one last."""
    return sorted(trials, key=lambda trial: (math.isnan(trial.validation_return), -trial.validation_return))


@dataclass(frozen=True)
class TuneResult:
    """Tell what tuning came to.

    Attributes:
        folder: Where the trials' run folders and the tables are.
        trials: All trials, in the order of their numbers.
        space: What was varied, as Ray Tune's domains.
        fixed: The settings that all trials have in common.
        stopped: ``"finished"`` or ``"interrupted"``.
    """

    folder: Path
    trials: Sequence[Trial]
    space: Mapping[str, Domain]
    fixed: Mapping[str, Any]
    stopped: str

    @property
    def best(self) -> Trial | None:
        """Return the finished trial with the highest validation return; None where none has finished."""
        return next(iter(ranked([trial for trial in self.trials if trial.state == "finished"])), None)

    @property
    def best_settings(self) -> dict[str, Any]:
        """Return the settings to train with, those of the best trial; without one, those given."""
        return {**self.fixed, **(self.best.drawn if self.best else {})}

    def table(self) -> Table:
        """Return the trials as a table, the best first."""
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(box=SIMPLE, header_style="bold")
        for column in ("trial", "state", "validation return", "iterations", "time", "settings"):
            table.add_column(column, justify="left" if column in ("state", "settings") else "right")
        for trial in ranked(self.trials):
            drawn = " ".join(f"{name}={value}" for name, value in trial.drawn.items())
            score = "-" if math.isnan(trial.validation_return) else f"{trial.validation_return:.4g}"
            table.add_row(str(trial.number), trial.state, score, str(trial.iterations), f"{trial.time_s:.0f} s", drawn)
        return table


def tune(
    scenario: str | Path | Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    *,
    samples: int = 8,
    iterations: int = 100,
    concurrent: int | None = None,
    seed: int = 0,
    search: Sequence[str] = (),
    algorithm: str = "ppo",
    policies: Policies = "shared",
    out_dir: str | Path = "runs",
    name: str | None = None,
    progress: TuneProgress | None = None,
    verbose: bool = False,
    address: str | None = None,
    env: EnvClass | None = None,
) -> TuneResult:
    """Train with several settings and rank them by the return on the validation split.

    The first trial has the settings as they are, the others draws from the space, all of them the same training seed.
    The test split is not played. Ctrl-C ends the iterations under way and keeps what was reached.

    Args:
        scenario: A scenario's name or path, or an env_config.
        settings: Settings that every trial has; they are not varied.
        samples: Number of trials.
        iterations: Training iterations of each trial.
        concurrent: Most trials at once; as many as there are CPUs for if None.
        seed: Seed of the draws, and of every trial's training where ``settings`` has no ``seed``.
        search: What to vary; see :func:`powergrid.training.runs.search_space.search_space`.
        algorithm: ``"ppo"``, ``"mappo"``, ``"sac"`` or ``"dqn"``.
        policies: As :func:`powergrid.training.train` takes them.
        out_dir: Where the folder goes.
        name: The folder's name; by default ``tune-``, the scenario's name and the time.
        progress: Called with a trial whenever it has something new, and with all trials.
        verbose: Show what Ray and its workers print.
        address: Run the trials on the Ray cluster there, ``HOST:PORT`` of its head or ``auto``, and leave it running;
            the folder of a run comes here when the run ends.
        env: The environment's class; by default :class:`powergrid.envs.NetworkedGridEnv`.

    Raises:
        ScenarioError: The scenario, a setting, the policies or the search space are wrong.
        PowerGridError: Every trial failed; with the first one's cause.
    """
    fixed = {"seed": seed, "num_env_runners": 0, **(settings or {}), "iterations": iterations}
    space = search_space(algorithm, fixed, search)
    chosen = make_algorithm_settings(algorithm, fixed)
    env, env_config = env or default_env(), as_env_config(scenario)
    check_plan("tuning", env, env_config, policies, chosen, _why_unrankable(chosen, space))
    draws = draw_trials(space, samples, seed, dump_settings(chosen))
    trials = [Trial(number, drawn) for number, drawn in enumerate(draws)]
    runners = chosen.num_env_runners or 0
    place = place_of(out_dir, name, f"tune-{scenario_name(env_config)}")
    if (place / TRIALS).exists():
        raise ScenarioError(str(place), ["a tuning is there already; choose another name"])
    with ExitStack() as stack:
        session = stack.enter_context(ray_session(verbose=verbose, address=address))
        interrupted = stack.enter_context(stop_signals())
        at_once = fit_trials(concurrent, runners, available_cpus(), samples)
        travelling = travelling_config(env, env_config) if session.shared else None
        job = _Job(env_config, travelling, fixed, draws, algorithm, policies, str(place), env, verbose)
        place.mkdir(parents=True, exist_ok=True)
        _write_what_was_asked(place, job, space, seed, address)
        record = _TrialRecord(place, trials, env_config, progress)
        _run_trials(job, record, at_once, runners, interrupted.is_set)
        record.close()
    if all(trial.state == "failed" for trial in trials):
        raise PowerGridError(f"every trial failed; the first one's cause:\n{trials[0].error}")
    result = TuneResult(place, trials, space, fixed, "interrupted" if interrupted.is_set() else "finished")
    if result.best is not None:
        (place / BEST).write_text(yaml.safe_dump(result.best_settings, sort_keys=False))
    return result


def fit_trials(wanted: int | None, runners: int, cpus: int, samples: int) -> int:
    """Choose how many trials run at once: Tune waits, without a message, for a trial that finds no free CPU.

    Args:
        wanted: The number asked for, None for any.
        runners: Processes that each trial samples with, beside its own.
        cpus: What Ray has.
        samples: Number of trials.

    Raises:
        ScenarioError: Not even one trial finds its CPUs.
    """
    each = 1 + runners
    if each > cpus:
        problem = f"num_env_runners = {runners}: a trial needs {each} CPUs and Ray has {cpus}; at most {cpus - 1}"
        raise ScenarioError("tuning", [problem])
    fitting = cpus // each
    if wanted is not None and wanted > fitting:
        logger.warning(
            "%d trials at once need %d CPUs and Ray has %d: %d at once.", wanted, wanted * each, cpus, fitting
        )
    return min(wanted or fitting, fitting, samples)


@dataclass(frozen=True)
class _Job:
    """What all trials have in common, and the settings drawn for each."""

    env_config: Mapping[str, Any]
    travelling: Mapping[str, Any] | None  # the env_config with its files, where Ray may have machines without them
    fixed: Mapping[str, Any]
    draws: Sequence[Mapping[str, Any]]
    algorithm: str
    policies: Policies
    folder: str
    env: EnvClass
    verbose: bool


def _run_trials(
    job: _Job, record: _TrialRecord, at_once: int, runners: int, interrupted: Callable[[], bool]
) -> None:  # fmt: skip
    """Have Tune run the trials; its own experiment folder is thrown away, since every trial leaves a run folder."""
    bundles = [{"CPU": 1.0}] * (1 + runners)
    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(_run_trial, job=job), ray_tune.PlacementGroupFactory(bundles)
    )
    new = {name: value for name, value in TUNE_ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(new)
    try:
        with tempfile.TemporaryDirectory(prefix="pg-") as unused:
            ray_tune.Tuner(
                trainable,
                param_space={"number": ray_tune.grid_search(list(range(len(job.draws))))},
                tune_config=ray_tune.TuneConfig(max_concurrent_trials=at_once),
                run_config=ray_tune.RunConfig(
                    name="tune", storage_path=unused, verbose=0, callbacks=[record], stop=_Asked(interrupted)
                ),
            ).fit()
    finally:
        for name in new:
            os.environ.pop(name, None)


def _run_trial(config: Mapping[str, Any], job: _Job) -> None:
    """Train one trial and report each iteration to Tune; this runs in a process of Ray's.

    On a Ray that others have, on whatever machine, the run folder goes to the tuning with the last report.
    """
    number, began = int(config["number"]), time.monotonic()

    def report(row: IterationReport) -> None:
        score, took_s = row.metrics.get(VALIDATION_SCORE, math.nan), round(time.monotonic() - began, 3)
        ray_tune.report(
            {"iterations": row.iteration, "env_steps": row.env_steps, "time_s": took_s, "validation_return": score}
        )

    with ExitStack() as stack:
        out_dir, name = job.folder, f"trial_{number:03d}"
        if job.travelling is not None:
            out_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-trial-"))
        try:
            train(
                job.travelling or job.env_config, {**job.fixed, **job.draws[number]}, algorithm=job.algorithm,
                policies=job.policies, out_dir=out_dir, name=name, progress=report, verbose=job.verbose, env=job.env,
            )  # fmt: skip
        except PowerGridError as error:  # raised on, it would come with Ray's own traceback around it
            ray_tune.report({"error": f"{type(error).__name__}: {error}"})
        if job.travelling is not None:
            run = Path(out_dir) / name
            files = {file.relative_to(run).as_posix(): file.read_bytes() for file in run.rglob("*") if file.is_file()}
            ray_tune.report({RUN: Bundle.of(files)})  # a Tune checkpoint would need storage that all machines share


class _TrialRecord(LoggerCallback):
    """Write what trials report to ``trials.csv``, and bring home the run folders of other machines.

    Tune's own CSV logger writes a file for each trial that has begun; this one has all of them in one table.
    """

    def __init__(
        self, folder: Path, trials: list[Trial], env_config: Mapping[str, Any], progress: TuneProgress | None
    ) -> None:  # fmt: skip
        self._folder, self._trials, self._env_config, self._progress = folder, trials, env_config, progress
        self._write()

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Take down what a trial reports."""
        ours = self._trials[trial.config["number"]]
        if RUN in result:
            _bring_home(result[RUN], self._folder / ours.folder, self._env_config)
            trial.last_result.pop(RUN, None)  # Tune keeps it, and saves it
            return
        if result.get("error"):
            ours.state, ours.error = "failed", str(result["error"])
        elif "iterations" in result:
            ours.state, ours.time_s = "running", float(result["time_s"])
            ours.iterations, ours.env_steps = int(result["iterations"]), int(result["env_steps"])
            score = float(result["validation_return"])  # NaN where this iteration had no validation
            ours.last_validation_return = ours.last_validation_return if math.isnan(score) else score
            ours.validation_return = float(np.fmax(ours.validation_return, score))
        self._changed(ours)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Take down how a trial ended."""
        ours = self._trials[trial.config["number"]]
        if ours.over:
            return
        if failed:
            ours.state, ours.error = "failed", str(trial.get_error() or "the trial's process died")
        else:
            ours.state = "finished" if how_it_ended(self._folder / ours.folder) == "finished" else "stopped"
        self._changed(ours)

    def close(self) -> None:
        """Take down the trials that were under way, or never begun, as stopped."""
        for trial in self._trials:
            if not trial.over:
                trial.state = "stopped"
        self._write()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it, to restore an experiment that we restore nothing of

    def _changed(self, trial: Trial) -> None:
        self._write()
        if self._progress is not None:
            self._progress(trial, self._trials)

    def _write(self) -> None:
        rows = []
        for trial in self._trials:
            told = {name: value for name, value in asdict(trial).items() if name not in ("drawn", "error")}
            error = (trial.error.splitlines() or [""])[-1]
            rows.append({**told, **trial.drawn, "folder": trial.folder, "error": error})
        temporary = self._folder / f".{TRIALS}"
        pd.DataFrame(rows).to_csv(temporary, index=False)
        temporary.replace(self._folder / TRIALS)


class _Asked(ray_tune.Stopper):
    """Stop all trials, those that wait too, where somebody has asked to."""

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self._interrupted = interrupted

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._interrupted()

    def stop_all(self) -> bool:
        return self._interrupted()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # an event does not pickle


def _bring_home(run: Bundle, folder: Path, env_config: Mapping[str, Any]) -> None:
    """Write a run folder that another machine packed, as if the run had been made here, by this user."""
    run.write(folder)
    manifest = {**json.loads((folder / MANIFEST).read_text()), "env_config": dict(env_config)}
    write_manifest(folder, manifest)
    for signature in folder.rglob(SIGNATURE_FILE):
        sign(signature.parent, trust_claims(manifest))


def _why_unrankable(settings: TrainSettings, space: Mapping[str, Domain]) -> Iterator[str]:
    if not settings.validate_every:
        yield "validate_every = 0: tuning ranks by validation, so there must be one"
    if not space:
        yield "nothing is left to vary; fix fewer settings or name some with --search"


def _write_what_was_asked(
    folder: Path, job: _Job, space: Mapping[str, Domain], seed: int, address: str | None
) -> None:  # fmt: skip
    told = {
        **{name: getattr(job, name) for name in ("env_config", "fixed", "algorithm", "policies")},
        "env": env_path(job.env),
        "space": {name: describe_domain(domain) for name, domain in space.items()},
        "seed": seed,
        "samples": len(job.draws),
        **start_of_session(0, address),
    }
    (folder / ASKED).write_text(json.dumps(told, indent=1, default=str) + "\n")
