"""Let a baseline play days of training and keep what it did, for policies to imitate before they learn on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError, describe_unknown, find_number_problems
from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.jobs import run_jobs
from powergrid.evaluation.optimum.foresight import require_foreseeable
from powergrid.evaluation.rollout import play_steps, read_scenario, start_days
from powergrid.grid.profiles.profiles import pick_days
from powergrid.scenario import Scenario, load_scenario
from powergrid.scenario.demonstrations import Kept, begin, digest_of_play, keep_day

#: Days that one process plays before it tells so: to build a task takes a second or more.
_DAYS_PER_JOB = 4


def record_demonstrations(
    env_config: Mapping[str, Any] | Scenario,
    folder: str | Path,
    *,
    policy: str = "optimum",
    days: int = 60,
    split: str = "train",
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Play days with a baseline and keep their actions; days that are kept already are not played again.

    Args:
        env_config: As for :func:`powergrid.evaluation.evaluate`.
        folder: Where they are kept; it may hold some already, of the same scenario, policy and seed.
        policy: Name of a baseline; what it needs of the scenario changed (``native``) cannot be imitated.
        days: How many, spread evenly over the split; more can be asked for later.
        split: Which days: what is trained is to be judged on others.
        seed: Seed of what is random in a day, as in an evaluation.
        workers: Processes that play.
        progress: Called with the number of days done and in all.

    Returns:
        The folder.

    Raises:
        ScenarioError: The settings, the policy's name or the split are wrong, or no optimum can be found.
        PowerGridError: The folder holds days of something else, or cannot be written.
    """
    scenario = read_scenario(env_config, split)
    problems = find_number_problems(1, days=days, workers=workers) + find_number_problems(0, seed=seed)
    if policy not in BASELINES:
        problems.append(describe_unknown("policy", policy, BASELINES))
    elif "native_controls" in BASELINES[policy].overrides(scenario):
        problems.append(f"policy {policy!r} leaves the feeder to its own controls: there are no actions to imitate")
    if problems:
        raise ScenarioError("demonstrations", problems)
    with closing(GridTask(scenario)) as task:
        chosen = [int(day) for day in pick_days(task.simulation.days, days)]
        if policy == "optimum":
            require_foreseeable(task)  # before a folder is made
        names = [f"{spec.device}.{spec.name}" for spec in task.simulation.actions]
    kept = Kept(
        scenario=scenario.name, played=digest_of_play(scenario), policy=policy, seed=seed, actions=names,
        n_steps=scenario.episode_length,
    )  # fmt: skip
    place, there = begin(folder, kept)
    # in no order: whoever stops half-way has days of all seasons
    left = np.random.default_rng(0).permutation([day for day in chosen if day not in there]).tolist()
    parts = [left[i : i + _DAYS_PER_JOB] for i in range(0, len(left), _DAYS_PER_JOB)]
    done = len(chosen) - len(left)
    for which, _ in run_jobs(_record, [(scenario, policy, part, seed, place) for part in parts], workers):
        done += len(parts[which])
        if progress is not None:
            progress(done, len(chosen))
    return place


def _record(scenario: Scenario, policy: str, days: Sequence[int], seed: int, folder: Path) -> None:
    """Play days one after the other, and keep each as soon as it is over."""
    entry = BASELINES[policy]
    overrides = entry.overrides(scenario)
    player = entry.make(seed)
    with closing(GridTask(load_scenario(scenario, overrides) if overrides else scenario)) as task:
        for day in days:
            start_days(task, player, [day], seed)
            actions, reward = [], 0.0
            for action, _ in play_steps(task, player, 1):
                actions.append(action[0].copy())
                reward += float(task.rewards[0].mean())
            if len(actions) == scenario.episode_length:  # a day that diverged shows nothing
                keep_day(folder, day, np.array(actions), reward)
