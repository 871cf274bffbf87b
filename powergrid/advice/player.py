"""Who acts in advice, and the readings that a model of the grid would send when it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from powergrid.advice.advisor import Advisor, Player
from powergrid.advice.files import write_rows
from powergrid.advice.overlay import readings_of
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError, describe_unknown
from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.replay.recording import pick_day
from powergrid.evaluation.rollout import PolicyPlayer
from powergrid.evaluation.trained import fit_sights
from powergrid.files import path_of
from powergrid.grid.profiles.profiles import split_days
from powergrid.scenario import Scenario, load_scenario

#: What an operator's meters send: no sums over zones, and nothing that only a model knows.
_METERED = ("known", "node", "p", "q", "loading", "state", "delivered")


def find_player(scenario: Scenario, run: str) -> tuple[Scenario, Callable[[GridTask], Player]]:
    """Return the scenario that is acted on, and what makes who acts: a baseline by its name, or the policy of a run.

    Args:
        scenario: The scenario.
        run: A baseline's name, a run folder, a checkpoint or an exported policy.

    Raises:
        ScenarioError: it is neither.
        PowerGridError: there is no policy that can be read.
    """
    if run in BASELINES:
        entry = BASELINES[run]
        changed = entry.overrides(scenario)
        return (load_scenario(scenario, changed) if changed else scenario), lambda task: entry.make(0)
    if not path_of(run).exists():
        raise ScenarioError("advice", [describe_unknown("policy", run, BASELINES)])
    from powergrid.training import load_policy  # only now: baselines alone need no torch

    policy = load_policy(run)

    def seat(task: GridTask) -> Player:
        # scaled as in training, whatever else the scenario says now
        return PolicyPlayer(policy, fit_sights({Path(run).name: policy}, task)[Path(run).name])

    return scenario, seat


def play_readings(advisor: Advisor, file: str | Path, date: str | None = None) -> Path:
    """Play a day of the model under the advisor's own advice, and write what meters would tell at each step.

    Args:
        advisor: The advisor; it is used for the day.
        file: Where readings go: ``.csv``, ``.parquet``, ``.json`` or ``.jsonl``.
        date: The day; the first of the test split if None.

    Raises:
        ScenarioError: the date is not in the profiles, or the suffix is none of these.
    """
    scenario = advisor.task.scenario
    task = GridTask(scenario)
    try:
        profiles = task.simulation.profiles
        day = int(split_days(profiles, None, "test")[0]) if date is None else pick_day(profiles, date)
        task.reset(0, np.random.default_rng([0, day]), {"day": day})
        begin = profiles.start.astype("datetime64[s]") + np.timedelta64(day, "D")
        rows: list[dict[str, Any]] = []
        for step in range(task.simulation.options.horizon_steps):
            now = begin + np.timedelta64(round(step * scenario.step_minutes * 60), "s")
            rows.append({"time": str(now), **readings_of(task, advisor.catalogue, kinds=_METERED)})
            advisor.advise(rows[-1])
            task.action_buffer()[:] = advisor.action
            task.step()
    finally:
        task.close()
    return write_rows(rows, Path(file).expanduser())
