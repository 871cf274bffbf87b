"""One task for each feeder of a scenario, and the draw of the one that an episode plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.scenario import Scenario, pick_feeder, scenarios_by_feeder


class FeederTasks:
    """Hold a scenario's tasks, feeder by feeder; of a scenario with one feeder, the one.

    Args:
        scenario: The scenario.

    Attributes:
        tasks: Tasks by feeder, as the scenario names them.

    Raises:
        ScenarioError: something has no place on a feeder, or spaces differ between feeders; all of it.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.tasks: dict[str, GridTask] = {}
        problems: list[str] = []
        try:
            for name, own in scenarios_by_feeder(scenario).items():
                try:
                    self.tasks[name] = GridTask(own)
                except ScenarioError as error:
                    if not self.several:
                        raise
                    problems += [f"{name}: {problem}" for problem in error.problems]
            problems = problems or (_differences(self.tasks) if self.several else [])
            if problems:
                raise ScenarioError(scenario.name, problems)
        except BaseException:
            self.close()
            raise
        weights = np.array(list(scenario.feeders.values()) or [1.0])
        self._chances = weights / weights.sum()

    @property
    def several(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self._scenario.feeders)

    @property
    def first(self) -> GridTask:
        """The task of the first feeder."""
        return next(iter(self.tasks.values()))

    def draw(
        self, rng: np.random.Generator, options: Mapping[str, Any] | None
    ) -> tuple[GridTask, Mapping[str, Any] | None]:
        """Return the task of an episode, and the options that are left.

        Args:
            rng: Draws the feeder where ``options`` does not name it; untouched where there is one alone.
            options: ``feeder`` picks the feeder.
        """
        if not self.several:
            return self.first, options
        left = dict(options or {})
        name = left.pop("feeder", None)
        if name is None:
            name = list(self.tasks)[int(rng.choice(len(self.tasks), p=self._chances))]
        return self.tasks[pick_feeder(self._scenario, name)], left

    def infos(self, task: GridTask) -> dict[str, dict[str, Any]]:
        """Return a task's infos by agent, with the feeder where there are several."""
        infos = task.info_dicts(0)
        if self.several:
            for info in infos.values():
                info["feeder"] = task.scenario.feeder
        return infos

    def close(self) -> None:
        """Release all engines."""
        for task in self.tasks.values():
            task.close()


def _differences(tasks: Mapping[str, GridTask]) -> list[str]:
    """Say where agents see or decide other things on one feeder than on the first."""
    (home, first), *others = tasks.items()
    problems = []
    for name, task in others:
        for one, other in zip(first.agents, task.agents, strict=False):
            for kind in ("action", "observation"):
                mine, theirs = (getattr(agent, f"{kind}_space") for agent in (one, other))
                if mine != theirs:
                    problems.append(f"agent {one.name!r}: its {kind} space is {mine} on {home}, but {theirs} on {name}")
            seen, too = ([t.channels.table[i].name for i in a.observed] for t, a in ((first, one), (task, other)))
            if len(seen) == len(too) and seen != too:
                new = next(b for a, b in zip(seen, too, strict=True) if a != b)
                problems.append(f"agent {one.name!r}: it sees {new!r} on {name}, and something else there on {home}")
        if len(first.agents) != len(task.agents):
            problems.append(f"there are {len(first.agents)} agents on {home}, but {len(task.agents)} on {name}")
    return problems
