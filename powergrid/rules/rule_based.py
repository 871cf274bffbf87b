"""Engineers' rules for every kind of device, from what an agent knows of its own zone and from the day's tariff.

No rule sees beyond its agent: the voltage extremes, loading and import of its zone, its own devices, the sun of the
step to come and the prices of the day. How the constants were set is in ``docs/evaluation.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.rules.demand_rules import EvChargerRule, FlexibleLoadRule
from powergrid.rules.fleet_rule import FleetRule
from powergrid.rules.power_rules import GeneratorRule, InverterRule, StorageRule
from powergrid.rules.ruled import RuledTask
from powergrid.rules.shared import RuleConstants, Shared
from powergrid.rules.switchgear_rule import SwitchgearRule

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RULES: dict[str, type[FleetRule]] = {
    "storage": StorageRule,
    "inverter": InverterRule,
    "generator": GeneratorRule,
    "flexible_load": FlexibleLoadRule,
    "ev_charger": EvChargerRule,
    "capacitor": SwitchgearRule,
    "regulator": SwitchgearRule,
}
"""The rule of each kind of device; switches have none and stay as they are."""


class RuleBased:
    """Play every device by an engineer's rule that knows its own zone and the day's tariff.

    Args:
        constants: The constants of the rules.
    """

    def __init__(self, constants: RuleConstants | None = None) -> None:
        self.constants = constants or RuleConstants()
        self._task: RuledTask | None = None
        self._rules: list[FleetRule] = []
        self._shared: Shared | None = None

    def reset(self, task: RuledTask, env: int) -> None:
        """Get ready for the episode that an environment has just started."""
        if task is not self._task:
            self._seat(task)
        if self._shared is not None:
            self._shared.reset(env)
        for rule in self._rules:
            rule.reset(task, env)

    def _seat(self, task: RuledTask) -> None:
        """Make the rules of a task: they hold what its devices are."""
        self._task = task
        self._shared = shared = Shared.of(task, self.constants)
        fleets = sorted((f for f in task.simulation.fleets if f.kind in RULES), key=lambda f: f.kind != "storage")
        self._rules = [RULES[fleet.kind](task, fleet, shared) for fleet in fleets]
        shared.droop.seat()

    def act(self, task: RuledTask) -> FloatArray:
        """Return the actions of the step to come, shape (n_envs, n_actions)."""
        if (shared := self._shared) is None:
            return task.simulation.neutral()
        shared.gauges.look()
        shared.limiter.look(task)
        for rule in self._rules:
            rule.look_ahead(task)
        for rule in self._rules:
            rule.write(task)
        shared.droop.write()
        return shared.setpoints.read(task)

    def state(self) -> list[npt.NDArray[Any]]:
        """Copy what rules remember of each environment; nothing before the first episode."""
        return [own.copy() for own in self._memories()]

    def restore(self, state: Sequence[npt.NDArray[Any]], task: RuledTask, envs: IntArray | None = None) -> None:
        """Return to a :meth:`state` of this task or of one that is alike, of some environments or of all."""
        if task is not self._task:
            self._seat(task)
        rows = slice(None) if envs is None else envs
        for own, kept in zip(self._memories(), state, strict=bool(state)):
            own[rows] = kept[rows]

    def _memories(self) -> list[npt.NDArray[Any]]:
        remembering: list[FleetRule | Shared] = [*self._rules, *([] if self._shared is None else [self._shared])]
        return [own for each in remembering for own in each.memories()]
