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
from powergrid.evaluation.baselines import BASELINES, baseline_names
from powergrid.evaluation.players import Policy, PolicyPlayer
from powergrid.evaluation.players.trained import fit_sights
from powergrid.evaluation.replay.recording import pick_day
from powergrid.grid.profiles.profiles import split_days
from powergrid.scenario import Scenario, load_scenario

#: What an operator's meters send: no sums over zones, and nothing that only a model knows.
_METERED = ("known", "node", "p", "q", "loading", "state", "delivered")


def find_player(scenario: Scenario, policy: str | tuple[str, Policy]) -> tuple[Scenario, Callable[[GridTask], Player]]:
    """Return the scenario that is acted on, and what makes who acts.

    Args:
        scenario: The scenario.
        policy: A baseline's name; or a name and a policy, as :func:`powergrid.load_policy` returns it, which sees what
            it saw in training, scaled as in training.

    Raises:
        ScenarioError: there is no such baseline.
    """
    if isinstance(policy, str):
        if policy not in baseline_names():
            raise ScenarioError("advice", [describe_unknown("policy", policy, baseline_names())])
        entry = BASELINES[policy]
        changed = entry.overrides(scenario)
        return (load_scenario(scenario, changed) if changed else scenario), lambda task: entry.make(0)
    name, trained = policy
    return scenario, lambda task: PolicyPlayer(trained, fit_sights({name: trained}, task)[name])


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
