"""The tasks of a scenario's feeders, and what is seen of whichever is played in as many entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask, read_options
from powergrid.envs.observations.view import View, order_alike
from powergrid.errors import ScenarioError
from powergrid.scenario import Scenario, pick_feeder, scenarios_by_feeder

IntArray = npt.NDArray[np.int64]


class FeederTasks:
    """Build a scenario's tasks, feeder by feeder; of a scenario with one feeder, the one.

    Args:
        scenario: The scenario.
        n_envs: Number of environments; each task has as many rows as few draws of so many exceed.

    Attributes:
        tasks: Tasks by feeder, as the scenario names them.
        scenarios: The scenario on each of them.

    Raises:
        ScenarioError: something has no place on a feeder, or spaces differ between feeders; all of it.
    """

    def __init__(self, scenario: Scenario, n_envs: int = 1) -> None:
        self._scenario = scenario
        self.tasks: dict[str, GridTask] = {}
        self.scenarios: dict[str, Scenario] = {}
        problems: list[str] = []
        weights = np.array(list(scenario.feeders.values()) or [1.0])
        self._chances = weights / weights.sum()
        # three standard deviations above the mean of the draws: one task in some hundred resets needs more
        spread = np.sqrt(n_envs * self._chances * (1.0 - self._chances))
        rows = np.clip(np.ceil(n_envs * self._chances + 3.0 * spread), 1, n_envs).astype(int).tolist()
        try:
            self.scenarios = scenarios_by_feeder(scenario)
            for (name, own), n_rows in zip(self.scenarios.items(), rows, strict=True):
                try:
                    self.tasks[name] = GridTask(own, n_rows)
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

    @property
    def several(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self._scenario.feeders)

    @property
    def first(self) -> GridTask:
        """The task of the first feeder."""
        return next(iter(self.tasks.values()))

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any] | None]:
        """Return the feeder of an episode, and the options that are left.

        Args:
            rng: Draws the feeder where ``options`` does not name it; untouched where there is one alone.
            options: ``feeder`` picks the feeder.
        """
        if not self.several:
            return next(iter(self.tasks)), options
        left = read_options(options)
        name = left.pop("feeder", None)
        if name is None:
            name = list(self.tasks)[int(rng.choice(len(self.tasks), p=self._chances))]
        return pick_feeder(self._scenario, name), left

    def check(self, options: Mapping[str, Any] | None) -> None:
        """Refuse options of a reset that are wrong, and change nothing.

        Raises:
            ScenarioError: as :meth:`GridTask.reset`, or the feeder is none of these.
        """
        left, task = read_options(options), self.first
        if self.several and (name := left.pop("feeder", None)) is not None:
            task = self.tasks[pick_feeder(self._scenario, name)]
        task.check_options(left)

    def label(self, task: GridTask) -> dict[str, Any]:
        """Return the feeder of a task as infos hold it: nothing where no names are wanted."""
        return {"feeder": task.scenario.feeder} if self._scenario.infos == "full" else {}

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


class WholeView:
    """See every channel of the feeder that is played, in as many entries whichever it is.

    What all feeders have comes first, in the order of the first; then what each has for itself, and zeros.

    Args:
        tasks: The tasks, one for each feeder.

    Attributes:
        width: Number of entries.
        even: Whether all feeders have as many.
    """

    def __init__(self, tasks: Iterable[GridTask]) -> None:
        own = list(tasks)
        columns = order_whole(own)
        self.width, self.even = max(map(len, columns)), len(set(map(len, columns))) == 1
        self._views = {
            id(task): View(task.channels, [seen], task.n_envs) for task, seen in zip(own, columns, strict=True)
        }

    def gather(self, task: GridTask) -> npt.NDArray[np.float32]:
        """Return what is seen of the first environment of a task, shape (width,)."""
        seen: npt.NDArray[np.float32] = self._views[id(task)].gather()[0]
        return seen if len(seen) == self.width else np.pad(seen, (0, self.width - len(seen)))

    def count(self, task: GridTask) -> int:
        """Return how many entries are the feeder's own; what follows them is padding."""
        return int(self._views[id(task)].parts[0].stop)


def order_whole(tasks: Sequence[GridTask]) -> list[IntArray]:
    """Return the columns of what can be seen on each feeder, those of all first."""
    columns = order_alike([task.channels.table for task in tasks])
    return [own[np.isin(own, task.channels.shown)] for own, task in zip(columns, tasks, strict=True)]
