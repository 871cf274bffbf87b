"""The training loop: iterate, record, checkpoint, validate, stop cleanly; what the algorithm does is RLlib's."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from powergrid.errors import PowerGridError
from powergrid.files import reason_of
from powergrid.grid.profiles.profiles import pick_days
from powergrid.training.policies.export import policy_of_algorithm
from powergrid.training.policies.inference import Policy
from powergrid.training.rllib.config import build_algorithm_config
from powergrid.training.rllib.metrics import EPISODE_COST, EpisodeTotals
from powergrid.training.rllib.planning.env_config import EnvClass, default_env, travelling_config
from powergrid.training.rllib.planning.facts import EnvFacts
from powergrid.training.rllib.ppo import older_module_names
from powergrid.training.rllib.sampling.curriculum import Curriculum
from powergrid.training.runs.checkpoints import Checkpoints, find_checkpoint, trust_claims
from powergrid.training.runs.records import (
    PROGRESS,
    VALIDATION_SCORE,
    EventFile,
    ProgressFile,
    losses_are_finite,
    now,
    stable_metrics,
    start_of_session,
    write_manifest,
)
from powergrid.training.runs.session import RaySession, build_algorithm, ray_session, stop_algorithm
from powergrid.training.runs.settings import TrainSettings, make_settings

logger = logging.getLogger("powergrid.training")

#: Iterations in a row that teach nothing after which training ends: where something fails, and where processes are
#: killed as often as they come back, each time after up to a minute.
MAX_BAD_ITERATIONS, MAX_LOST_ITERATIONS = 3, 12
VALIDATION_SEED = 20_000
#: Where a run's manifest has the days that its validation plays.
_DAYS = "validation_days"
#: Of a checkpoint that has not scored.
_NO_RANK = (-math.inf, -math.inf)


@dataclass(frozen=True)
class IterationReport:
    """Tell how training stands after an iteration; ``metrics`` is the row of ``progress.csv``."""

    iteration: int
    iterations: int
    env_steps: int
    env_steps_per_s: float
    elapsed_s: float
    left_s: float
    metrics: Mapping[str, float]


Progress = Callable[[IterationReport], None]


@dataclass(frozen=True)
class RunResult:
    """Tell what a run came to."""

    folder: Path
    iterations: int  # that the run has in all, those before a resume too
    env_steps: int  # likewise
    stopped: str  # "finished", "time limit" or "interrupted"
    metrics: Mapping[str, float]  # the last iteration's row of progress.csv
    latest: Path  # the newest checkpoint
    best: Path  # the best one, the newest where none has scored


@dataclass
class Plan:
    """Everything a loop needs to know before it starts, checked."""

    folder: Path
    manifest: dict[str, Any]
    settings: TrainSettings
    env: EnvClass
    facts: EnvFacts
    validation: Validation | None
    time_limit_s: float | None
    progress: Progress | None
    verbose: bool
    address: str | None
    restore: Path | None = None  # the checkpoint to go on from
    state: Mapping[str, Any] = field(default_factory=dict)  # what the loop stored in it
    began: float = field(default_factory=time.monotonic)  # from when the time limit counts


def run_loop(plan: Plan) -> RunResult:
    """Train as planned, on the cluster at the plan's address, or on a Ray started for it unless one is running."""
    first = int(plan.state.get("iteration", 0))
    entry = start_of_session(first, plan.address)
    plan.manifest["sessions"].append(entry)
    write_manifest(plan.folder, plan.manifest)
    try:
        with ExitStack() as stack:
            if plan.validation is not None:
                stack.callback(plan.validation.close)
            session = stack.enter_context(ray_session(verbose=plan.verbose, address=plan.address))
            interrupted = stack.enter_context(stop_signals())
            env_config = plan.manifest["env_config"]
            if session.shared:
                env_config = travelling_config(plan.env, env_config)
            policy_of = plan.manifest["policies"]
            config = build_algorithm_config(plan.env, env_config, plan.facts, policy_of, plan.settings)
            algorithm = build_algorithm(config, session)
            stack.callback(stop_algorithm, algorithm)
            if plan.restore:
                _restore(algorithm, plan.restore)
                if plan.settings.curriculum is not None:
                    Curriculum(plan.settings.curriculum)(algorithm=algorithm)  # RLlib calls back where Tune restores
            elif plan.settings.demonstrations is not None:
                _imitate(plan, algorithm)
            training = _Training(plan, algorithm, session)
            result = training.run(interrupted)
        entry["stopped"] = result.stopped
        entry["to_iteration"] = result.iterations
    except BaseException as error:
        entry["stopped"] = f"{type(error).__name__}: {error}".splitlines()[0]
        entry["end"] = now()
        with suppress(PowerGridError):  # where the disk is full, that is what is told
            write_manifest(plan.folder, plan.manifest)
        raise
    entry["end"] = now()
    write_manifest(plan.folder, plan.manifest)
    return result


def _imitate(plan: Plan, algorithm: Any) -> None:
    """Let the policies imitate what the settings name, and write down what came of it."""
    from powergrid.training.rllib.learning.imitation import imitate

    s = plan.settings
    began = time.monotonic()
    days = s.days_imitated
    how = {"days": days, "rounds": s.imitation_rounds, "passes": s.imitation_passes, "seed": int(s.seed or 0)}
    came = imitate(algorithm, str(s.demonstrations), **how)
    took_s = time.monotonic() - began
    plan.manifest["imitation"] = {**asdict(came), "took_s": round(took_s, 1)}
    told = "Imitated %d days in %.0f s: they bring %.3f a day where %.3f was shown; PPO goes on from there."
    logger.info(told, came.days, took_s, came.reached, came.shown)


def _restore(algorithm: Any, checkpoint: Path) -> None:
    """Set the algorithm to a checkpoint's state.

    Raises:
        PowerGridError: The checkpoint is damaged, or of another algorithm or scenario.
    """
    try:
        with older_module_names():
            algorithm.restore_from_path(str(checkpoint.resolve()))
    except Exception as error:  # what unpickling a damaged file, or a state of other shapes, may raise is anything
        raise PowerGridError(f"{checkpoint}: cannot be resumed from: {reason_of(error)}") from error
    weights = {name: algorithm.get_module(name).state_dict() for name in algorithm.config.policies}
    bad = sorted({name for name, arrays in weights.items() for array in arrays.values() if not array.isfinite().all()})
    if bad:
        raise PowerGridError(f"{checkpoint}: cannot be resumed from: weights of {', '.join(bad)} are not finite")


class Validation:
    """Play the same greedy episodes of the validation split each time it is asked, to choose the best checkpoint.

    Args:
        env: The environment's class.
        env_config: Its configuration.
        settings: How many episodes, and of which split.
        days: Days to play, one an episode; none: drawn by seed, maybe one twice. If None, days spread evenly over the
            split where the environment is powergrid's own on one feeder, drawn by seed elsewhere.
    """

    def __init__(
        self,
        env: EnvClass,
        env_config: Mapping[str, Any],
        settings: TrainSettings,
        days: Sequence[int] | None = None,
    ) -> None:
        known = isinstance(env, type) and issubclass(env, default_env())  # type: ignore[arg-type]
        told = {"infos": "numbers"} if known else {}  # they are what a validation tells
        self._env = env({**env_config, "split": settings.validation_split, **told})
        n = settings.validation_episodes
        if days is None and known and not self._env.task.scenario.feeders:
            days = pick_days(self._env.task.simulation.days, n).tolist()
        #: The days it was told to play, or chose; none where they are drawn by seed.
        self.days = list(days or ())
        days_of = [{"day": self.days[i % len(self.days)]} if self.days else None for i in range(n)]
        self._starts = [{"seed": VALIDATION_SEED + i, "options": day} for i, day in enumerate(days_of)]

    def score(self, policy: Policy) -> dict[str, float]:
        """Return ``episode_return_mean`` and the mean of every metric, each as ``validation/<name>``."""
        episodes = [self._play(policy, start) for start in self._starts]
        names = dict.fromkeys(name for episode in episodes for name in episode)
        return {
            f"validation/{name}": float(np.mean([episode[name] for episode in episodes if name in episode]))
            for name in names
        }

    def played(self) -> list[int]:
        """Return the day of each episode."""
        first = [self._env.reset(**start)[1] for start in self._starts]
        return [int(next(iter(infos.values()))["day"]) for infos in first]

    def _play(self, policy: Policy, start: Mapping[str, Any]) -> dict[str, float]:
        observations, _ = self._env.reset(**start)
        policy.reset()
        infos: dict[str, list[Mapping[str, Any]]] = {}
        total, over = 0.0, False
        while not over:
            observations, rewards, terminateds, truncateds, step_infos = self._env.step(policy.act(observations))
            total += float(sum(rewards.values()))
            for agent, info in step_infos.items():
                infos.setdefault(agent, []).append(info)
            over = bool(terminateds["__all__"] or truncateds["__all__"])
        totals = EpisodeTotals()
        for agent, rows in infos.items():
            totals.add(agent, rows)
        return {"episode_return_mean": total, **totals.result()}

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


def open_validation(env: EnvClass, manifest: dict[str, Any], settings: TrainSettings) -> Validation | None:
    """Return the validation that settings ask for, None for none; a split that is unknown is refused here.

    It plays the days that the manifest names, which is written what it chose where the manifest is new.
    """
    if not settings.validate_every:
        return None
    # runs from before days were chosen go on with those that were drawn
    drawn = bool(manifest["sessions"]) and not manifest.get(_DAYS)
    validation = Validation(env, manifest["env_config"], settings, [] if drawn else None)
    manifest[_DAYS] = validation.days
    return validation


def validation_days(manifest: Mapping[str, Any]) -> list[int]:
    """Return the days that a run's validation plays, for baselines to play the same."""
    settings = make_settings(manifest.get("algorithm", "ppo"), manifest["settings"])
    with closing(Validation(default_env(), manifest["env_config"], settings, manifest.get(_DAYS, []))) as validation:
        return validation.played()


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; the second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        logger.warning("Stopping after this iteration; once more to stop at once.")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def rank_checkpoint(
    metrics: Mapping[str, float], limits: Mapping[str, float], agents: Sequence[str], *, validated: bool
) -> tuple[float, float]:
    """Return what the better of two checkpoints has more of: what keeps to limits of costs goes first, then return.

    Args:
        metrics: The iteration's.
        limits: By the names that infos have for what is limited.
        agents: Whose costs add up.
        validated: Whether days of validation decide, or what was sampled.
    """
    score = metrics.get(VALIDATION_SCORE if validated else "episode_return_mean", math.nan)
    excess = 0.0
    for name, limit in limits.items():
        parts = [f"validation/{agent}/{name}" for agent in agents] if validated else [f"{EPISODE_COST}/{name}"]
        excess = float(np.maximum(excess, sum(metrics.get(part, math.nan) for part in parts) / limit - 1.0))
    return (-excess, score) if math.isfinite(score) and math.isfinite(excess) else _NO_RANK


class _Training:
    """One loop under way."""

    def __init__(self, plan: Plan, algorithm: Any, session: RaySession) -> None:
        self.plan, self.algorithm, self.session = plan, algorithm, session
        self.iteration = int(plan.state.get("iteration", 0))
        self.env_steps = int(plan.state.get("env_steps", 0))
        best: float | None = plan.state.get("best_score")
        #: Of the best checkpoint, minus what it is beyond limits of costs, and its return.
        self.best = _NO_RANK if best is None else (-float(plan.state.get("best_excess", 0.0)), best)
        self.before_s = float(plan.state.get("elapsed_s", 0.0))
        self.bad, self.failures, self.losses, self.saved = 0, 0.0, 0.0, self.iteration
        self.good_until_s = time.time()
        self.began = time.monotonic()
        self.checkpoints = Checkpoints(plan.folder, plan.settings.keep_checkpoints, trust_claims(plan.manifest))
        self.progress = ProgressFile(plan.folder / PROGRESS, after_iteration=self.iteration)
        self.events = EventFile(plan.folder, after_step=self.env_steps + 1 if plan.restore else None)

    def run(self, interrupted: threading.Event) -> RunResult:
        """Iterate until the iterations are done, the time is up or someone asks to stop."""
        settings, limit = self.plan.settings, self.plan.time_limit_s
        metrics: dict[str, float] = {}
        stopped = "interrupted" if interrupted.is_set() else ""
        while not stopped:
            start = time.monotonic()
            result = self._iterate()
            if self.iteration >= settings.iterations:
                stopped = "finished"
            elif limit is not None and time.monotonic() - self.plan.began >= limit:
                stopped = "time limit"
            elif interrupted.is_set():
                stopped = "interrupted"
            metrics = self._record(result, time.monotonic() - start, last=bool(stopped))
        if self.saved != self.iteration or self.plan.restore is None:
            self._save(metrics)
        latest, best = find_checkpoint(self.plan.folder, ("latest",)), find_checkpoint(self.plan.folder)
        return RunResult(self.plan.folder, self.iteration, self.env_steps, stopped, metrics, latest, best)

    def _iterate(self) -> dict[str, Any]:
        """Run one iteration of RLlib and check that it did something."""
        try:
            result: dict[str, Any] = self.algorithm.train()
        except Exception as error:
            told = f"training stopped at iteration {self.iteration + 1}; the cause:\n{self._why(error)}"
            raise PowerGridError(told) from error
        self.iteration += 1
        sampled = float(result.get("env_runners", {}).get("num_env_steps_sampled", math.nan))
        if sampled > 0 and losses_are_finite(result):
            self.bad, self.good_until_s = 0, time.time()
        else:
            self.bad += 1
        if sampled > 0:
            self.env_steps += int(sampled)
        # With all its processes dead RLlib goes on without steps and without an exception, until some are back; and
        # a reward of NaN trains on in silence to weights of NaN.
        if self.bad >= MAX_BAD_ITERATIONS and (self.bad >= MAX_LOST_ITERATIONS or not self._only_killed(sampled)):
            what = "no environment steps came in" if not sampled > 0 else "the loss was not a finite number"
            raise PowerGridError(f"{what} for {self.bad} iterations; the newest cause:\n{self._why(None)}")
        return result

    def _only_killed(self, sampled: float) -> bool:
        """Whether no steps came for no more than that processes were killed: they leave no traceback, and come back."""
        return not sampled > 0 and not self.session.newest_traceback(self.good_until_s)

    def _why(self, error: BaseException | None) -> str:
        # What RLlib raises has often an empty message, with the cause chained to it or in a worker's log alone.
        told = self.session.explain()
        if told:
            return told
        while error is not None and (error.__cause__ or error.__context__):
            error = error.__cause__ or error.__context__
        return f"{type(error).__name__}: {error}" if error else "(no traceback was left; --verbose shows all output)"

    def _record(self, result: dict[str, Any], took_s: float, *, last: bool) -> dict[str, float]:
        """Write the iteration down; validate and checkpoint where it is time to."""
        settings = self.plan.settings
        metrics = stable_metrics(result)
        if self.plan.validation is not None and (last or self.iteration % settings.validate_every == 0):
            metrics.update(self.plan.validation.score(policy_of_algorithm(self.algorithm)))
        elapsed = time.monotonic() - self.began
        sampled = float(result.get("env_runners", {}).get("num_env_steps_sampled", 0) or 0)
        speed = sampled / took_s if sampled > 0 else 0.0
        row = {
            "iteration": self.iteration,
            "time_s": round(self.before_s + elapsed, 3),
            "env_steps": self.env_steps,
            "env_steps_per_s": round(speed, 1),
            **metrics,
        }
        self.progress.add(row)
        self.events.add({key: value for key, value in row.items() if key != "iteration"}, result, self.env_steps)
        self._warn_of_failures(metrics)
        better = VALIDATION_SCORE in metrics and self._rank(metrics) > self.best
        if last or better or self.iteration % settings.checkpoint_every == 0:
            self._save(metrics)
        if self.plan.progress is not None:
            self.plan.progress(self._report(row, elapsed, speed))
        return row

    def _rank(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        limits, agents = self.plan.settings.cost_limits, self.plan.facts.agents
        return rank_checkpoint(metrics, limits, agents, validated=self.plan.validation is not None)

    def _save(self, metrics: Mapping[str, float]) -> None:
        """Write a checkpoint and move ``best`` where this one is better."""
        rank = self._rank(metrics)
        better = rank > self.best
        if better:
            self.best = rank
        excess, score = -self.best[0], self.best[1]
        state = {
            "env_steps": self.env_steps,
            "elapsed_s": round(self.before_s + time.monotonic() - self.began, 3),
            "best_score": score if math.isfinite(score) else None,
            **({"best_excess": excess} if self.plan.settings.cost_limits and math.isfinite(excess) else {}),
        }
        saved = self.checkpoints.save(self.algorithm, policy_of_algorithm(self.algorithm), self.iteration, state)
        self.saved = self.iteration
        if better:
            self.checkpoints.mark_best(saved)

    def _warn_of_failures(self, metrics: Mapping[str, float]) -> None:
        """Say that environments fail and are made anew, or that processes die: training goes on without those steps."""
        if metrics["env_step_failures"] > self.failures == 0:
            logger.warning("Environments failed and were started anew; the newest cause:\n%s", self._why(None))
        self.failures = metrics["env_step_failures"]
        if metrics["env_runner_losses"] > self.losses:
            logger.warning(
                "A sampling process was lost in iteration %d, with the steps it had under way: %d at work, %d lost so "
                "far, %d back. Training goes on.",
                self.iteration,
                *(metrics[name] for name in ("env_runners", "env_runner_losses", "env_runner_restarts")),
            )
        self.losses = metrics["env_runner_losses"]

    def _report(self, row: Mapping[str, float], elapsed: float, speed: float) -> IterationReport:
        done = self.iteration - int(self.plan.state.get("iteration", 0))
        left = (self.plan.settings.iterations - self.iteration) * elapsed / max(done, 1)
        if self.plan.time_limit_s is not None:
            left = min(left, max(self.plan.time_limit_s - (time.monotonic() - self.plan.began), 0.0))
        total = self.plan.settings.iterations
        return IterationReport(self.iteration, total, self.env_steps, speed, elapsed, left, dict(row))
