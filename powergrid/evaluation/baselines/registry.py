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
from powergrid.evaluation.baselines.rules import RuleBased
from powergrid.evaluation.baselines.unaided import NoControl, RandomActions, leave_to_feeder, leave_to_itself
from powergrid.evaluation.baselines.volt_var import VoltVar, leave_gear_to_feeder
from powergrid.evaluation.optimum import Foresight
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
    """How a baseline is made, the overrides by which it changes a scenario, and whether it knows the day beforehand."""

    make: Callable[[int], Baseline]
    overrides: Callable[[Scenario], Mapping[str, Any]] = lambda scenario: {}  # as it is
    foresight: bool = False


BASELINES: dict[str, BaselineEntry] = {
    "no_control": BaselineEntry(lambda seed: NoControl(), leave_to_itself),
    "native": BaselineEntry(lambda seed: NoControl(), leave_to_feeder),
    "volt_var": BaselineEntry(lambda seed: VoltVar(), leave_gear_to_feeder),
    "rule_based": BaselineEntry(lambda seed: RuleBased()),
    "random": BaselineEntry(RandomActions),
    "optimum": BaselineEntry(lambda seed: Foresight(lambda: [NoControl(), RuleBased()], seed), foresight=True),
}
"""The baselines by name."""


def baseline_names() -> list[str]:
    """Name the baselines that could be had: all but ``optimum``, which knows the day beforehand."""
    return [name for name, entry in BASELINES.items() if not entry.foresight]
