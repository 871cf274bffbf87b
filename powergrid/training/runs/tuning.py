"""Tune an algorithm's settings on a scenario: Ray Tune runs trials, each a training run with a folder of its own."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.training.rllib.agents import (
    EnvClass,
    Policies,
    as_env_config,
    available_cpus,
    default_env,
    plan_policies,
    probe_env,
    travelling_config,
)
from powergrid.training.rllib.algorithm_settings import dump_settings, make_algorithm_settings
from powergrid.training.runs.loop import stop_signals
from powergrid.training.runs.records import start_of_session
from powergrid.training.runs.run import scenario_name
from powergrid.training.runs.search import Dimension, draw_trials, search_space
from powergrid.training.runs.session import ray_session
from powergrid.training.runs.trial_runs import fit_trials, run_trials
from powergrid.training.runs.trials import TRIALS, Trial, TrialBook, TuneProgress, ranked

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger("powergrid.training")

BEST, MANIFEST = "best.yaml", "tune.json"


@dataclass(frozen=True)
class TuneResult:
    """Tell what tuning came to.

    Attributes:
        folder: Where the trials' run folders and the tables are.
        trials: All trials, in the order of their numbers.
        space: What was varied.
        fixed: The settings that all trials have in common.
        stopped: ``"finished"`` or ``"interrupted"``.
    """

    folder: Path
    trials: Sequence[Trial]
    space: Mapping[str, Dimension]
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
        search: What to vary; see :func:`powergrid.training.runs.search.search_space`.
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
    _refuse_what_cannot_be_ranked(env, env_config, policies, chosen, space)
    drawn = draw_trials(space, samples, seed, dump_settings(chosen))
    trials = [Trial(number, settings) for number, settings in enumerate(drawn)]
    runners = max(chosen.num_env_runners or 0, 0)
    place = _find_place(Path(out_dir).expanduser(), name, env_config)
    with ExitStack() as stack:
        session = stack.enter_context(ray_session(verbose=verbose, address=address))
        interrupted = stack.enter_context(stop_signals())
        given = {
            "env_config": env_config, "fixed": fixed, "algorithm": algorithm, "policies": policies,
            "folder": str(place), "env": env, "verbose": verbose,
            "travelling": travelling_config(env, env_config) if session.shared else None,
        }  # fmt: skip
        at_once, told = fit_trials(concurrent, runners, available_cpus(), samples)
        for sentence in told:
            logger.warning("%s", sentence)
        place.mkdir(parents=True, exist_ok=True)
        _write_manifest(place, given, space, seed, samples, address)
        book = TrialBook(place, trials, tuple(space), progress)
        book.write()
        run_trials(given, book, at_once, runners, interrupted.is_set)
        book.close()
    if all(trial.state == "failed" for trial in trials):
        raise PowerGridError(f"every trial failed; the first one's cause:\n{trials[0].error}")
    result = TuneResult(place, trials, space, fixed, "interrupted" if interrupted.is_set() else "finished")
    if result.best is not None:
        (place / BEST).write_text(yaml.safe_dump(result.best_settings, sort_keys=False))
    return result


def _refuse_what_cannot_be_ranked(
    env: EnvClass, env_config: Mapping[str, Any], policies: Policies, chosen: Any, space: Mapping[str, Dimension]
) -> None:
    _, problems = plan_policies(probe_env(env, env_config, step=True), policies, chosen)
    if not chosen.validate_every:
        problems = [*problems, "validate_every = 0: tuning ranks by validation, so there must be one"]
    if not space:
        problems = [*problems, "nothing is left to vary; fix fewer settings or name some with --search"]
    if problems:
        raise ScenarioError("tuning", problems)


def _find_place(out_dir: Path, name: str | None, env_config: Mapping[str, Any]) -> Path:
    """Return the folder that the tuning shall have, where none is yet; it makes none."""
    if name is not None and (Path(name).name != name or name in {".", ".."}):
        raise ScenarioError("name", [f"{name!r} is no folder name; use --out for the place"])
    wanted = name or f"tune-{scenario_name(env_config)}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = (out_dir / wanted).resolve()
    if (folder / TRIALS).exists():
        raise ScenarioError(str(folder), ["a tuning is there already; choose another name"])
    return folder


def _write_manifest(
    folder: Path,
    given: Mapping[str, Any],
    space: Mapping[str, Dimension],
    seed: int,
    samples: int,
    address: str | None,
) -> None:
    told = {
        **{name: given[name] for name in ("env_config", "fixed", "algorithm", "policies")},
        "env": f"{given['env'].__module__}:{getattr(given['env'], '__qualname__', '')}",
        "space": {name: str(dimension) for name, dimension in space.items()},
        "seed": seed,
        "samples": samples,
        **start_of_session(0, address),
    }
    (folder / MANIFEST).write_text(json.dumps(told, indent=1, default=str) + "\n")
