"""Optima of days, each found once and kept for every process: in memory, and in the user's cache folder."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import powergrid
from powergrid.envs.core import GridTask
from powergrid.envs.draws import Draws, Values, tell
from powergrid.evaluation.optimum.foresight import Optimum, Starter, find_optimum, require_foreseeable
from powergrid.evaluation.optimum.stacked import FloatArray, StackedDay
from powergrid.grid.engine.cache_folder import Cache, made_by
from powergrid.scenario import Scenario

#: Rooms and files of the package on which an optimum depends beside ``powergrid.grid`` and what a scenario says.
_CODE = ("envs", "rules", "evaluation/baselines", "evaluation/optimum", "quantities.py")


class Optima:
    """Find the optima of a scenario's days, each once: what is kept by content, of any process, is not found again.

    Args:
        scenario: The scenario; of which split it plays days makes no difference.
        starters: Makes the baselines that each search starts from.
        seed: Seed of what is random in a day, that of the episode.
    """

    def __init__(self, scenario: Scenario, starters: Callable[[], Sequence[Starter]], seed: int = 0) -> None:
        self._scenario, self._starters, self._seed = scenario, starters, seed
        names = [type(each).__qualname__ for each in starters()]
        digest = scenario.model_copy(update={"split": "all"}).digest()
        self._same = [digest, seed, names, made_by(), _code()]
        self._day: StackedDay | None = None
        self._draws = Draws(scenario)

    def kept(self, day: int) -> Optimum | None:
        """Return the optimum of a day where it was found before, by whatever process."""
        return _KEPT.recall(self._key(day, self._draw(day)))

    def _draw(self, day: int) -> Values:
        """Return what an evaluation draws for a day."""
        return self._draws.draw([np.random.default_rng([self._seed, int(day)])], {})[0]

    def _key(self, day: int, drawn: Values) -> str:
        told = [sorted(tell(drawn).items())] if drawn else []
        return hashlib.sha256(json.dumps([*self._same, int(day), *told]).encode()).hexdigest()

    def of(self, day: int, drawn: Values | None = None) -> Optimum:
        """Return the optimum of a day of the profiles.

        Args:
            day: The day.
            drawn: Numbers that the episode has in place of the scenario's; those of an evaluation if not given.

        Raises:
            ScenarioError: The scenario has what no program tells, see :func:`require_foreseeable`.
        """
        drawn = self._draw(day) if drawn is None else drawn
        key = self._key(day, drawn)
        if (kept := _KEPT.recall(key)) is not None:
            return kept
        with _KEPT.alone(key):  # another process may be at it
            if (kept := _KEPT.recall(key)) is None:
                kept = self._find(day, drawn)
                _KEPT.keep(key, kept)
        return kept

    def _find(self, day: int, drawn: Values) -> Optimum:
        if self._day is None:
            task = GridTask(self._scenario, 1)
            try:
                require_foreseeable(task)  # before a circuit is compiled for each step
            finally:
                task.close()
            self._day = StackedDay(self._scenario)
        self._day.open(day, self._seed, drawn)
        return find_optimum(self._day, self._starters())

    def close(self) -> None:
        """Release the engines."""
        if self._day is not None:
            self._day.close()
            self._day = None


class Foresight:
    """Play the optimum of each day, found when the day starts: what nobody can do who does not know it beforehand.

    Args:
        starters: Makes the baselines that each search starts from.
        seed: Seed of what is random in a day, that of the episode.
    """

    def __init__(self, starters: Callable[[], Sequence[Starter]], seed: int = 0) -> None:
        self._starters, self._seed = starters, seed
        self._plans: dict[int, FloatArray] = {}
        self._optima: Optima | None = None
        self._scenario: Scenario | None = None

    def reset(self, task: GridTask, env: int) -> None:
        """Find the optimum of the day that an environment has just started.

        Raises:
            ScenarioError: The scenario has what no program tells.
        """
        if self._optima is None or self._scenario is not task.scenario:
            if self._optima is not None:
                self._optima.close()
            self._optima, self._scenario = self.optima(task.scenario), task.scenario
        drawn = None if task.drawn is None else task.drawn[env]
        self._plans[env] = self._optima.of(int(task.simulation.day[env]), drawn).actions

    def optima(self, scenario: Scenario) -> Optima:
        """Return what finds the optima that are played."""
        return Optima(scenario, self._starters, self._seed)

    def act(self, task: GridTask) -> FloatArray:
        """Return the actions of the step to come."""
        action = task.simulation.neutral()
        for env, plan in self._plans.items():
            action[env] = plan[min(int(task.simulation.step_index[env]), len(plan) - 1)]
        return action


@functools.cache
def _code() -> str:
    """Return a hash of the code that an optimum depends on, see ``_CODE``."""
    package, code = Path(powergrid.__file__).parent, hashlib.sha256()
    for part in _CODE:
        for file in sorted((package / part).rglob("*.py")) or [package / part]:
            if file.is_file():  # else not installed as files: the release, which is in made_by, has to do
                code.update(file.read_bytes())
    return code.hexdigest()


def _encode(found: Optimum) -> tuple[str, Mapping[str, npt.NDArray[Any]]]:
    told = asdict(found)
    return json.dumps({name: value for name, value in told.items() if name != "actions"}), {"actions": found.actions}


def _decode(text: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Optimum:
    return Optimum(np.array(arrays["actions"]), **json.loads(text))


_KEPT: Cache[Optimum] = Cache("optimum", _encode, _decode)
