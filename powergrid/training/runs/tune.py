"""Tune an algorithm's settings on a scenario: Ray Tune runs trials, each a training run with a folder of its own."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from ray import tune as ray_tune
from ray.tune.logger import LoggerCallback
from ray.tune.search.sample import Domain

from powergrid.errors import PowerGridError, ScenarioError, find_number_problems
from powergrid.files import make_folder, write_whole
from powergrid.scenario import as_env_config
from powergrid.scenario.bundle import Bundle
from powergrid.training.rllib.planning.env_config import EnvClass, default_env, travelling_config
from powergrid.training.rllib.planning.facts import probe_env
from powergrid.training.rllib.planning.policies import Policies
from powergrid.training.rllib.sampling.processes import available_cpus
from powergrid.training.runs.checkpoints import SIGNATURE_FILE, sign, trust_claims
from powergrid.training.runs.loop import IterationReport, stop_signals
from powergrid.training.runs.records import VALIDATION_SCORE, env_path, read_manifest, start_of_session, write_manifest
from powergrid.training.runs.search_space import describe_domain, draw_trials, search_space
from powergrid.training.runs.session import environment_variables, ray_session
from powergrid.training.runs.settings import TrainSettings, dump_settings, make_settings
from powergrid.training.runs.train import check_plan, claim, scenario_name, train

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger("powergrid.training")

BEST, ASKED, TRIALS = "best.yaml", "tune.json", "trials.csv"
TOLD, RUN = "told", "run"  # what a trial reports: itself, and from another machine its run folder
TAKEN = "a tuning is there already; choose another name"
TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's run folder has progress.csv and TensorBoard events already
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours lets the iterations under way end
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a feeder's path counts from where the command was given
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a box even where verbose is 0
}


@dataclass
class Trial:
    """One trial and what it came to."""

    number: int  # from 0
    drawn: dict[str, Any]  # the settings that were varied, as they were drawn for it
    state: str = "waiting"  # then running, and in the end finished, stopped or failed
    validation_return: float = math.nan  # mean return of the validation episodes at its best checkpoint
    last_validation_return: float = math.nan
    iterations: int = 0
    env_steps: int = 0
    time_s: float = 0.0  # how long it trained
    error: str = ""  # why it failed

    @property
    def folder(self) -> str:
        """Return the name of its run folder."""
        return f"trial_{self.number:03d}"

    @property
    def cause(self) -> str:
        """Return the last line of its error."""
        return (self.error.splitlines() or [""])[-1]

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("finished", "stopped", "failed")


TuneProgress = Callable[[Trial, Sequence[Trial]], None]


@dataclass(frozen=True)
class TuneResult:
    """Tell what tuning came to."""

    folder: Path  # where the trials' run folders and the tables are
    trials: Sequence[Trial]  # in the order of their numbers
    space: Mapping[str, Domain]  # what was varied
    fixed: Mapping[str, Any]  # the settings that all trials have in common
    stopped: str  # "finished" or "interrupted"

    @property
    def best(self) -> Trial | None:
        """Return the finished trial with the highest validation return; None where none has finished."""
        return next((trial for trial in self._ranked() if trial.state == "finished"), None)

    @property
    def best_settings(self) -> dict[str, Any]:
        """Return the settings to train with, those of the best trial; without one, those given."""
        return {**self.fixed, **(self.best.drawn if self.best else {})}

    def table(self) -> Table:
        """Return the trials as a table, the best first, those without a validation last."""
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(box=SIMPLE, header_style="bold")
        for column in ("trial", "state", "validation return", "iterations", "time", "settings"):
            table.add_column(column, justify="left" if column in ("state", "settings") else "right")
        for trial in self._ranked():
            drawn = " ".join(f"{name}={value}" for name, value in trial.drawn.items())
            score = "-" if math.isnan(trial.validation_return) else f"{trial.validation_return:.4g}"
            table.add_row(str(trial.number), trial.state, score, str(trial.iterations), f"{trial.time_s:.0f} s", drawn)
        return table

    def _ranked(self) -> list[Trial]:
        return sorted(self.trials, key=lambda trial: (math.isnan(trial.validation_return), -trial.validation_return))


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
    """Train with several settings, the first as they are, and rank them by return on the validation split.

    Ctrl-C ends the iterations under way. What is not told here, :func:`powergrid.training.train` takes alike.

    Args:
        settings: Settings that every trial has; they are not varied.
        concurrent: Most trials at once; as many as there are CPUs for if None.
        seed: Seed of the draws, and of every trial's training where ``settings`` has no ``seed``.
        search: What to vary; see :func:`powergrid.training.runs.search_space.search_space`.
        progress: Called with a trial whenever it has something new, and with all trials.
        address: A Ray cluster, as for ``train``; the folder of a run comes here when the run ends.

    Raises:
        ScenarioError: The scenario, a setting, the policies or the search space are wrong.
        PowerGridError: Every trial failed; with the first one's cause.
    """
    problems = find_number_problems(1, samples=samples, iterations=iterations, concurrent=concurrent)
    if problems:
        raise ScenarioError("tuning", problems)
    fixed = {"seed": seed, "num_env_runners": 0, **(settings or {}), "iterations": iterations}
    space, chosen = search_space(algorithm, fixed, search), make_settings(algorithm, fixed)
    env, env_config = env or default_env(), as_env_config(scenario)
    facts = probe_env(env, env_config, step=True)
    check_plan("tuning", facts, policies, chosen, _why_unrankable(chosen, space, env, env_config))
    trials = [Trial(*each) for each in enumerate(draw_trials(space, samples, seed, dump_settings(chosen)))]
    how = {"algorithm": algorithm, "policies": policies, "env": env, "verbose": verbose}
    with (
        claim(out_dir, name, f"tune-{scenario_name(env_config)}", taken_by=TRIALS, remedy=TAKEN) as place,
        ray_session(verbose=verbose, address=address) as session,
        stop_signals() as interrupted,
    ):
        at_once = fit_trials(concurrent, chosen.num_env_runners or 0, available_cpus(), samples)
        asked = {"env_config": env_config, "fixed": fixed, "algorithm": algorithm, "policies": policies, "seed": seed}
        _write_asked(place, space, address, **asked, env=env_path(env), samples=samples)
        how["scenario"] = travelling_config(env, env_config) if session.shared else env_config
        home = None if session.shared else place  # of a machine that may not have it
        watch = _Watch(place, trials, env_config, progress, interrupted)
        _run_trials(watch, at_once, chosen.num_env_runners or 0, place=home, fixed=fixed, how=how)
        stopped = "interrupted" if interrupted.is_set() else "finished"
        return _conclude(TuneResult(place, trials, space, fixed, stopped))


def fit_trials(wanted: int | None, runners: int, cpus: int, samples: int) -> int:
    """Choose how many trials run at once, each of ``runners`` processes beside its own, on ``cpus`` CPUs.

    Raises:
        ScenarioError: Not even one trial finds its CPUs.
    """
    each = 1 + runners
    if each > cpus:  # Tune would wait for them, without a message
        problem = f"num_env_runners = {runners}: a trial needs {each} CPUs and Ray has {cpus}; at most {cpus - 1}"
        raise ScenarioError("tuning", [problem])
    fitting = cpus // each
    if wanted is not None and wanted > fitting:
        logger.warning(
            "%d trials at once need %d CPUs and Ray has %d: %d at once.", wanted, wanted * each, cpus, fitting
        )
    return min(wanted or fitting, fitting, samples)


def _run_trials(watch: _Watch, at_once: int, runners: int, **job: Any) -> None:
    """Have Tune run the trials; its own experiment folder is thrown away, since every trial leaves a run folder."""
    watch.write()
    bundles = ray_tune.PlacementGroupFactory([{"CPU": 1.0}] * (1 + runners))
    trainable = ray_tune.with_resources(ray_tune.with_parameters(_run_trial, trials=watch.trials, **job), bundles)
    with environment_variables(TUNE_ENVIRONMENT), tempfile.TemporaryDirectory(prefix="pg-") as unused:
        ray_tune.Tuner(
            trainable,
            param_space={"number": ray_tune.grid_search(list(range(len(watch.trials))))},
            tune_config=ray_tune.TuneConfig(max_concurrent_trials=at_once),
            run_config=ray_tune.RunConfig(name="tune", storage_path=unused, verbose=0, callbacks=[watch], stop=watch),
        ).fit()


def _run_trial(
    config: Mapping[str, Any],
    trials: Sequence[Trial],
    place: Path | None,
    fixed: Mapping[str, Any],
    how: dict[str, Any],
) -> None:
    """Train one trial and report it to Tune, in a process of Ray's that has its own copy of the trials.

    Without a ``place`` the process may be on any machine, and the run folder goes along with the last report.
    """
    trial, began = trials[config["number"]], time.monotonic()

    def report(row: IterationReport) -> None:
        trial.state, trial.iterations, trial.env_steps = "running", row.iteration, row.env_steps
        trial.time_s = round(time.monotonic() - began, 3)
        if VALIDATION_SCORE in row.metrics:
            trial.last_validation_return = row.metrics[VALIDATION_SCORE]
            trial.validation_return = float(np.fmax(trial.validation_return, trial.last_validation_return))
        ray_tune.report({TOLD: asdict(trial)})

    with ExitStack() as stack:
        out_dir = place or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-trial-")))
        try:
            settings = {"preset": "fast", **fixed, **trial.drawn}  # all that it varies begins alike
            done = train(settings=settings, out_dir=out_dir, name=trial.folder, progress=report, **how)
            trial.state = "finished" if done.stopped == "finished" else "stopped"
        except PowerGridError as error:  # raised on, it would come with Ray's own traceback around it
            trial.state, trial.error = "failed", f"{type(error).__name__}: {error}"
        last: dict[str, Any] = {TOLD: asdict(trial)}
        run = out_dir / trial.folder
        if place is None and run.exists():  # a Tune checkpoint would need storage that all machines share
            files = (file for file in run.rglob("*") if file.is_file())
            last[RUN] = Bundle.of({file.relative_to(run).as_posix(): file.read_bytes() for file in files})
        ray_tune.report(last)


@dataclass(eq=False)
class _Watch(LoggerCallback, ray_tune.Stopper):
    """Keep ``trials.csv``, bring home the run folders of other machines, and stop all trials where that is asked.

    Tune's own CSV logger writes a file for each trial that has begun; this one has all of them in one table.
    """

    folder: Path
    trials: Sequence[Trial]
    env_config: Mapping[str, Any]
    progress: TuneProgress | None
    interrupted: Event

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Take down what a trial reports."""
        ours = self.trials[trial.config["number"]]
        if RUN in result:
            _bring_home(result[RUN], self.folder / ours.folder, self.env_config)
            trial.last_result.pop(RUN, None)  # Tune keeps it, and saves it
        vars(ours).update(result.get(TOLD, {}))
        self._changed(ours)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Take down how a trial ended that did not come to say so."""
        ours = self.trials[trial.config["number"]]
        if not ours.over:
            ours.state = "failed" if failed else "stopped"
            ours.error = str(trial.get_error() or "the trial's process died") if failed else ""
            self._changed(ours)

    def on_experiment_end(self, trials: Sequence[Any], **info: Any) -> None:
        """Take down the trials that never began as stopped."""
        for trial in self.trials:
            trial.state = trial.state if trial.over else "stopped"
        self.write()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.interrupted.is_set()

    def stop_all(self) -> bool:  # those that wait too
        return self.interrupted.is_set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it, to restore an experiment that we restore nothing of; an event does not pickle

    def _changed(self, trial: Trial) -> None:
        self.write()
        if self.progress is not None:
            self.progress(trial, self.trials)

    def write(self) -> None:
        """Write ``trials.csv``, whole or not at all."""
        rows = []
        for trial in self.trials:
            told = {name: value for name, value in asdict(trial).items() if name not in ("drawn", "error")}
            rows.append({**told, **trial.drawn, "folder": trial.folder, "error": trial.cause})
        write_whole(self.folder / TRIALS, pd.DataFrame(rows).to_csv(index=False))


def _bring_home(run: Bundle, folder: Path, env_config: Mapping[str, Any]) -> None:
    """Write a run folder that another machine packed, as if the run had been made here, by this user."""
    run.write(folder)
    manifest = {**read_manifest(folder), "env_config": dict(env_config)}
    write_manifest(folder, manifest)
    for signature in folder.rglob(SIGNATURE_FILE):
        sign(signature.parent, trust_claims(manifest))


def _why_unrankable(
    settings: TrainSettings, space: Mapping[str, Domain], env: EnvClass, env_config: Mapping[str, Any]
) -> Iterator[str]:
    if settings.validate_every:  # a split that is not there is refused here, not by every trial in turn
        probe_env(env, {**env_config, "split": settings.validation_split})
    else:
        yield "validate_every = 0: tuning ranks by validation, so there must be one"
    if not space:
        yield "nothing is left to vary; fix fewer settings or name some with --search"
    if settings.cost_limit is not None:
        yield "cost_limit: tuning ranks by return alone, whatever it costs; train with a limit, or give costs a price"


def _write_asked(place: Path, space: Mapping[str, Domain], address: str | None, **asked: Any) -> None:
    told = {name: describe_domain(domain) for name, domain in space.items()}
    written = {**asked, "space": told, **start_of_session(0, address)}
    make_folder(place)
    write_whole(place / ASKED, json.dumps(written, indent=1, default=str) + "\n")


def _conclude(result: TuneResult) -> TuneResult:
    """Write ``best.yaml``, or say why there is no trial that it could be of."""
    if all(trial.state == "failed" for trial in result.trials):
        cause = result.trials[0].error
        raise PowerGridError(f"every trial failed; the first one's cause:{chr(10) if chr(10) in cause else ' '}{cause}")
    if result.best is not None:
        write_whole(result.folder / BEST, yaml.safe_dump(result.best_settings, sort_keys=False))
    return result
