"""Model predictive control: the linear program of the optimum over the hours to come, planned anew as they pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.evaluation.baselines.persistence import Yesterday
from powergrid.evaluation.optimum import climb, play_best, require_foreseeable
from powergrid.evaluation.optimum.devices import as_actions
from powergrid.evaluation.optimum.foresight import Starter
from powergrid.evaluation.optimum.stacked import StackedDay
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]

Forecast = Literal["persistence", "perfect"]

#: How far plans by a forecast keep from the limits of voltages and of loadings [pu]: it errs.
_MARGIN_PU = (0.005, 0.05)


class Receding:
    """Plan the hours to come by what is expected of them, do the first of it, and plan anew.

    Each plan is the best that some rounds of the optimum's search find in a model of the grid that starts where the
    grid stands: from the plan before, or from the best of some baselines. What is left in batteries at the end of a
    plan is worth the day's mean price, as the reward has it at the end of the day.

    Args:
        starters: Makes the baselines that a first plan starts from.
        forecast: ``persistence``, see :class:`~powergrid.evaluation.baselines.persistence.Yesterday`; or ``perfect``,
            the day itself, which nobody has.
        horizon_h: Hours that a plan looks ahead, to the end of the day at most.
        replan_h: Hours after which the next is made.
        first_rounds, rounds: Rounds of the search, of the first plan of a day and of those after it.
        radius: How far actions may change in the first round, in parts of what the optimum starts with.
        seed: Of the cars that are expected.
    """

    def __init__(
        self,
        starters: Callable[[], Sequence[Starter]],
        forecast: Forecast = "persistence",
        *,
        horizon_h: float = 24.0,
        replan_h: float = 1.0,
        first_rounds: int = 12,
        rounds: int = 1,
        radius: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._starters, self._forecast, self._seed = starters, forecast, seed
        self._horizon_h, self._replan_h, self._radius = horizon_h, replan_h, radius
        self._rounds = {True: first_rounds, False: rounds}
        self._scenario: Scenario | None = None
        self._plans: dict[int, tuple[int, FloatArray]] = {}  # by environment: its first step, and what is done
        self._yesterdays: dict[int, Yesterday] = {}

    def reset(self, task: GridTask, env: int) -> None:
        """Forget the plan of an environment that has just started a day, and look up yesterday.

        Raises:
            ScenarioError: The scenario has what no linear program tells, or there is no yesterday.
        """
        if self._scenario is not task.scenario:
            require_foreseeable(task)
            self._dt_h = task.simulation.dt_h
            steps = max(1, min(round(self._horizon_h / self._dt_h), task.scenario.episode_length))
            # A whole day's steps are stepped together: of the rest of one, fewer cost less.
            sizes = sorted({steps, -(-steps // 2), -(-steps // 4)})
            self._days, self._scenario = [StackedDay(task.scenario, size) for size in sizes], task.scenario
            if self._forecast == "persistence":
                for day in self._days:
                    _keep_away(day, len(task.simulation.network.nodes))
        self._plans.pop(env, None)
        if self._forecast == "persistence":
            drawn = None if task.drawn is None else task.drawn[env]
            today = int(task.simulation.day[env])
            self._yesterdays[env] = Yesterday.before(self._days[0].task, today, self._seed, drawn)

    def act(self, task: GridTask) -> FloatArray:
        """Return the actions of the step to come, shape (n_envs, n_actions)."""
        every, plan = max(1, round(self._replan_h / self._dt_h)), task.simulation.neutral()
        for env in range(task.n_envs):
            step = int(task.simulation.step_index[env])
            if env not in self._plans or step % every == 0 or step >= self._plans[env][0] + len(self._plans[env][1]):
                self._plans[env] = step, self._make_plan(task, env, step)
            first, chosen = self._plans[env]
            plan[env] = chosen[step - first]
        return as_actions(task, plan)

    def _make_plan(self, task: GridTask, env: int, step: int) -> FloatArray:
        """Return what is to be done from a step on, shape (n_steps, n_actions)."""
        left, before = task.scenario.episode_length - step, self._plans.get(env)
        day = next((day for day in self._days if day.most_steps >= left), self._days[-1])
        state = day.state_of(task, env)
        if self._forecast == "persistence":
            state = self._yesterdays[env].forecast(state, self._dt_h)
        day.open_at(state)
        if before is None:
            best = play_best(day, self._starters())
        else:
            first, chosen = before
            best = day.play(lambda ahead: chosen[min(step - first + ahead, len(chosen) - 1)])
        best, *_ = climb(day, best, self._rounds[before is None], self._radius)
        return best.plan


def _keep_away(day: StackedDay, n_nodes: int) -> None:
    """Plan for limits that are narrower than they are."""
    v_pu, loading_pu = _MARGIN_PU
    margin = np.repeat([v_pu, loading_pu], [n_nodes, len(day.high) - n_nodes])
    day.low, day.high = day.low + margin, day.high - margin
