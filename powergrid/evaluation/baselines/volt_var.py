"""What a grid code asks of every inverter: the default volt-var curve of IEEE Std 1547-2018, each at its own bus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.evaluation.baselines.unaided import leave_to_feeder
from powergrid.grid.feeder.changes import IEEE1547_B
from powergrid.rules import RuleConstants
from powergrid.rules.power_rules import InverterRule
from powergrid.rules.ruled import RuledTask
from powergrid.rules.shared import Shared
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]

#: Corners by category: voltage [pu of nominal] and reactive power [pu of the kVA rating], injection positive.
#: Source: IEEE Std 1547-2018, Table 8, default settings.
CURVES = {"category_a": ((0.90, 0.25), (1.00, 0.0), (1.10, -0.25)), "category_b": IEEE1547_B}
#: Part of the way to the curve in a step: it is followed within seconds, on voltages that are a step old here.
_STEP = 0.5


class VoltVarRule(InverterRule):
    """All the sun, and the reactive power that the curve asks for at the voltage of the inverter's own bus."""

    start: ClassVar[dict[str, float]] = {"q_kvar": 0.0, "share": 1.0}

    def __init__(self, task: RuledTask, fleet: Any, shared: Shared) -> None:
        super().__init__(task, fleet, shared)
        simulation = task.simulation
        neutral, of_device = simulation.network.is_neutral, simulation.circuits[0].device_nodes
        nodes = dict(zip(simulation.power_device_names, of_device, strict=True))
        self._nodes = [nodes[name][~neutral[nodes[name]]] for name in fleet.names]
        # The whole kVA circle is more than category B asks for.
        curves = [CURVES.get(spec.reactive, IEEE1547_B) for spec in fleet.specs]
        self._curves = [np.array(curve).T for curve in curves]

    def write(self, task: RuledTask) -> None:
        """Ask for all the sun, and reactive power."""
        share = np.ones_like(self.memory["share"])
        self.ask("p_kw", share)
        asked, v_pu = self.memory["q_kvar"], task.simulation.snapshot.v_pu
        for place, (nodes, (at_pu, q_pu)) in enumerate(zip(self._nodes, self._curves, strict=True)):
            goal = np.interp(v_pu[:, nodes].mean(axis=1), at_pu, q_pu) * self._s_max[:, place]
            asked[:, place] += _STEP * (goal - asked[:, place])
        if "q_kvar" in self.acts:
            own, setpoints = self.acts["q_kvar"], self.shared.setpoints
            room = self.reactive_room(self.sun_kw(task), share)
            setpoints.values[:, self.shared.droop.place][:, own.place] = own.pick(np.clip(asked, -room, room))


class VoltVar:
    """Leave everything to itself and the feeder's own controls, and let inverters follow the default curve.

    Category A where the scenario says so, else category B. Batteries idle, so that the standard asks nothing of them.
    """

    def __init__(self) -> None:
        self._task: GridTask | None = None
        self._rules: list[VoltVarRule] = []
        self._shared: Shared | None = None

    def reset(self, task: GridTask, env: int) -> None:
        """Get ready for the episode that an environment has just started."""
        if task is not self._task:
            self._task = task
            fleets = [fleet for fleet in task.simulation.fleets if fleet.kind == "inverter"]
            self._shared = shared = Shared.of(task, RuleConstants())
            self._rules = [VoltVarRule(task, fleet, shared) for fleet in fleets]
            shared.droop.seat()
        for rule in self._rules:
            rule.reset(task, env)

    def act(self, task: GridTask) -> FloatArray:
        """Return the actions of the step to come, shape (n_envs, n_actions)."""
        for rule in self._rules:
            rule.write(task)
        return task.simulation.neutral() if self._shared is None else self._shared.setpoints.read(task)


def leave_gear_to_feeder(scenario: Scenario) -> Mapping[str, Any]:
    """Return the overrides that leave a feeder to itself, but for inverters, which stay with their agents."""
    left = dict(leave_to_feeder(scenario))
    kinds = {name: spec.kind for name, spec in scenario.devices.items()}
    return left | {"devices": {name: own for name, own in left["devices"].items() if kinds[name] != "inverter"}}
