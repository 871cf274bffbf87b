"""Trainings of one recipe with several seeds, each within a budget: what is trained is left, what stopped goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.scenario import scenario_from_config
from powergrid.training.rllib.planning.env_config import default_env, show_proposals
from powergrid.training.rllib.planning.facts import probe_env
from powergrid.training.runs.checkpoints import FOLDER, read_pointer
from powergrid.training.runs.loop import Progress, RunResult
from powergrid.training.runs.records import (
    MANIFEST,
    count_imitation_steps,
    end_killed_session,
    read_manifest,
    read_minutes,
)
from powergrid.training.runs.settings import TrainSettings, dump_settings, make_settings, settings_of_run
from powergrid.training.runs.train import check_plan, resume, train

#: How a session ended that had done what it was asked for.
_DONE = ("finished", "time limit")
#: Settings that may differ from those asked for and leave what is trained as it is.
_NO_MATTER = ("seed", "checkpoint_every", "keep_checkpoints", "sample_timeout_s")


@dataclass(frozen=True)
class Recipe:
    """How every seed is trained.

    Attributes:
        scenario: A scenario's name.
        algorithm: ``"ppo"``, ``"mappo"``, ``"sac"`` or ``"dqn"``.
        policies: ``"shared"`` or ``"independent"``.
        settings: Settings of the algorithm, without a seed; :func:`fit_settings` makes them keep to a budget of steps.
        minutes: Most minutes of a training, from its start.
    """

    scenario: str
    algorithm: str
    policies: str
    settings: TrainSettings
    minutes: float

    @property
    def env_steps(self) -> int:
        """Environment steps that a training takes, those of imitation among them."""
        return _per_iteration(self.settings) * self.settings.iterations + _imitated(self.scenario, self.settings)


@dataclass(frozen=True)
class SeedRun:
    """The run of one seed, as it is.

    Attributes:
        recipe: How it is trained.
        seed: Its seed.
        folder: Its run folder.
        state: ``open`` where there is none yet, ``stopped`` before it had its iterations or minutes, else ``trained``.
        minutes: What is left of the minutes of a training.
    """

    recipe: Recipe
    seed: int
    folder: Path
    state: Literal["open", "stopped", "trained"]
    minutes: float

    def train(self, progress: Progress | None = None) -> RunResult:
        """Train it, or go on with it where it stopped.

        Raises:
            ScenarioError: The scenario or a setting is wrong.
            PowerGridError: It cannot be trained, or was interrupted again.
        """
        limit = self.minutes * 60.0
        if self.state == "stopped":
            result = resume(self.folder, time_limit_s=limit, progress=progress)
        else:
            own, recipe = self.folder, self.recipe
            chosen = recipe.settings.model_copy(update={"seed": self.seed})
            result = train(
                recipe.scenario, chosen, algorithm=recipe.algorithm, policies=recipe.policies, out_dir=own.parent,
                name=own.name, time_limit_s=limit, progress=progress,
            )  # fmt: skip
        if result.stopped == "interrupted":
            raise PowerGridError(f"{self.folder}: the training was interrupted; the same command goes on with it")
        return result


def fit_settings(scenario: str, algorithm: str, settings: Mapping[str, Any], env_steps: int) -> TrainSettings:
    """Return settings with as many iterations as were asked for, or as a budget of environment steps allows.

    Args:
        scenario: A scenario's name.
        algorithm: ``"ppo"``, ``"mappo"``, ``"sac"`` or ``"dqn"``.
        settings: What was asked for, ``preset`` among it.
        env_steps: The budget; steps of days that are imitated are of it.

    Raises:
        ScenarioError: A setting is wrong, or the budget is not enough for one iteration.
    """
    without_end = make_settings(algorithm).model_copy(update={"iterations": env_steps})
    chosen = make_settings(algorithm, settings, base=without_end)
    steps = _per_iteration(chosen)
    chosen = chosen.model_copy(update={"iterations": min(chosen.iterations, max(env_steps // steps, 1))})
    left = env_steps - _imitated(scenario, chosen)
    if left < steps:
        text = f"imitating takes {env_steps - left:,} environment steps and an iteration {steps:,}"
        raise ScenarioError("training settings", [f"{text}; the budget is {env_steps:,}: set imitation_days lower"])
    return chosen.model_copy(update={"iterations": min(chosen.iterations, left // steps)})


def find_runs(recipe: Recipe, folders: Mapping[int, Path]) -> list[SeedRun]:
    """Return the run of each seed, as it is in its folder.

    Raises:
        ScenarioError: A run that is there was trained otherwise; with every setting that differs, of all runs.
        PowerGridError: A folder holds what is no run.
    """
    found, problems = [], list[str]()
    for seed, folder in folders.items():
        if not (folder / MANIFEST).is_file():
            found.append(SeedRun(recipe, seed, folder, "open", recipe.minutes))
            continue
        manifest = end_killed_session(folder, read_manifest(folder))
        problems += [f"{folder}: {each}" for each in _find_differences(recipe, seed, manifest)]
        ended = manifest["sessions"][-1].get("stopped") if manifest["sessions"] else None
        left = recipe.minutes - read_minutes(folder, manifest)
        state: Literal["stopped", "trained"] = "trained" if ended in _DONE or left <= 0.0 else "stopped"
        if read_pointer(folder / FOLDER, "latest") is None:
            problems.append(f"{folder}: stopped before its first checkpoint; remove it")
        found.append(SeedRun(recipe, seed, folder, state, left))
    if problems:
        raise ScenarioError("runs that are there", [*problems, "give what is asked for another --name, or remove them"])
    return found


def _find_differences(recipe: Recipe, seed: int, manifest: Mapping[str, Any]) -> Iterator[str]:
    if manifest["algorithm"] != recipe.algorithm:
        yield f"algorithm is {manifest['algorithm']}, asked for is {recipe.algorithm}"
        return
    there = dump_settings(settings_of_run(recipe.algorithm, manifest["settings"]))
    asked = dump_settings(recipe.settings)
    if manifest["settings"].get("seed") != seed:
        yield f"seed is {manifest['settings'].get('seed')}, asked for is {seed}"
    yield from (
        f"{key} is {there.get(key)}, asked for is {value}"
        for key, value in asked.items()
        if key not in _NO_MATTER and there.get(key) != value
    )
    told = show_proposals(default_env(), {"env_name": recipe.scenario}, recipe.settings)
    if scenario_from_config(manifest["env_config"]).digest() != scenario_from_config(told).digest():
        yield f"env_config is {manifest['env_config']}, asked for is {told}"
    policies = check_plan("training", probe_env(default_env(), told), recipe.policies, recipe.settings)
    if manifest["policies"] != policies:
        yield f"policies are {manifest['policies']}, asked for are {policies}"


def _per_iteration(settings: TrainSettings) -> int:
    return int(getattr(settings, "steps_per_iteration", settings.train_batch_size))


def _imitated(scenario: str, settings: TrainSettings) -> int:
    """Return the environment steps of imitation, none where nothing is imitated."""
    if settings.demonstrations is None:
        return 0
    days = settings.days_imitated
    return count_imitation_steps(
        days, settings.imitation_rounds, scenario_from_config({"env_name": scenario}).episode_length
    )
