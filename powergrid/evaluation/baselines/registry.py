"""Policies that nobody trained: nothing, the feeder's own controls, chance, engineers' rules, and the optimum.

A baseline acts on the whole batch of a :class:`GridTask` at once. How days are played is in ``rollout``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.evaluation.baselines.receding import Receding
from powergrid.evaluation.baselines.unaided import NoControl, RandomActions, leave_to_feeder, leave_to_itself
from powergrid.evaluation.baselines.volt_var import VoltVar, leave_gear_to_feeder
from powergrid.evaluation.optimum import Foresight
from powergrid.rules import RuleBased
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]


class Baseline(Protocol):
    """What plays a task without having been trained."""

    def reset(self, task: GridTask, env: int) -> None:
        """Get ready for the episode that an environment has just started."""

    def act(self, task: GridTask) -> FloatArray:
        """Return the actions of the step to come, shape (n_envs, n_actions)."""


@dataclass(frozen=True)
class BaselineEntry:
    """How a baseline is made, and what has to be known of it.

    Attributes:
        make: Makes it, given the seed of an evaluation.
        overrides: The overrides by which it changes a scenario.
        knows: What it knows when it acts; whatever plans a day knows what was measured, too.
        foresight: Whether it knows the day beforehand: it is no bar, for nobody could play so.
        optimum: Whether it is what others are scored by.
        named: Whether it is played only where it is named, as it takes its time.
    """

    make: Callable[[int], Baseline]
    overrides: Callable[[Scenario], Mapping[str, Any]] = lambda scenario: {}  # as it is
    knows: str = "what was measured"
    foresight: bool = False
    optimum: bool = False
    named: bool = False


def _usual() -> list[Baseline]:
    return [NoControl(), RuleBased()]


BASELINES: dict[str, BaselineEntry] = {
    "no_control": BaselineEntry(lambda seed: NoControl(), leave_to_itself),
    "native": BaselineEntry(lambda seed: NoControl(), leave_to_feeder),
    "volt_var": BaselineEntry(lambda seed: VoltVar(), leave_gear_to_feeder),
    "rule_based": BaselineEntry(lambda seed: RuleBased(), knows="prices of the day, the sun of the next step"),
    "random": BaselineEntry(RandomActions),
    "greedy": BaselineEntry(
        lambda seed: Receding(_usual, "perfect", horizon_h=0.0, replan_h=0.0, first_rounds=4, rounds=3, radius=2.0),
        knows="the model of the grid, sun and demand of the next step, the day's mean price",
        named=True,
    ),
    "mpc": BaselineEntry(
        lambda seed: Receding(_usual, seed=seed),
        knows="the model of the grid, prices of the day, sun and demand of the next step, yesterday",
        named=True,
    ),
    "mpc_perfect": BaselineEntry(
        lambda seed: Receding(_usual, "perfect", seed=seed), knows="the model of the grid, the day", foresight=True,
        named=True,
    ),
    "optimum": BaselineEntry(
        lambda seed: Foresight(_usual, seed), knows="the model of the grid, the day", foresight=True, optimum=True,
        named=True,
    ),
}  # fmt: skip
"""The baselines by name."""


def baseline_names() -> list[str]:
    """Name the baselines that are played where nobody names any: all that could be had and take no time."""
    return [name for name, entry in BASELINES.items() if not entry.named]
