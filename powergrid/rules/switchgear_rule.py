"""The rule of regulators and capacitors."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from powergrid.grid.fleets import find_switchgear
from powergrid.grid.simulation import Simulation
from powergrid.rules.fleet_rule import FleetRule
from powergrid.rules.ruled import RuledTask
from powergrid.rules.shared import Shared

FloatArray = npt.NDArray[np.float64]

#: From which part of what it lifts somewhere on a regulator lowers elsewhere: coupling of lines is below a tenth.
_BOTH_WAYS = 0.25


class SwitchgearRule(FleetRule):
    """Raise or lower the zone's voltage by one position where it nears a limit, then rest."""

    start: ClassVar[dict[str, float]] = {"rest_steps": 0.0}

    def __init__(self, task: RuledTask, fleet: Any, shared: Shared) -> None:
        super().__init__(task, fleet, shared)
        # a row for each environment, as all that it remembers: on a circuit that was restored nothing is to be tried
        self._lifts = np.tile([_lifts(task.simulation, spec) for spec in fleet.specs], (task.n_envs, 1))
        columns = task.metrics.columns
        self._v_min, self._v_max = (columns[name].start + self.zone for name in ("zone_v_min_pu", "zone_v_max_pu"))
        self._rest_steps = max(1, round(self.constants.switch_rest_h / self.dt_h))

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what it remembers: which way its devices move voltages as well."""
        return [*super().memories(), self._lifts]

    def write(self, task: RuledTask) -> None:
        """Ask for positions."""
        (v_low, v_high), measured = task.metrics.limits, task.metrics.results
        margin = self.constants.switch_margin_pu
        short = v_low + margin - measured.take(self._v_min, 1)
        over = measured.take(self._v_max, 1) - v_high + margin
        # Only where the other side keeps the room that one move takes.
        up, down = (short > 0.0) & (short > over + 2 * margin), (over > 0.0) & (over > short + 2 * margin)
        move = up.astype(np.int64) - down
        rest = self.memory["rest_steps"]
        move = move * (rest == 0) * (self.fleet.locked_steps == 0)
        rest[:] = np.where(move != 0, self._rest_steps, np.maximum(rest - 1, 0))
        self.ask("tap" if self.fleet.kind == "regulator" else "steps_on", self.fleet.position + move * self._lifts)


def _lifts(simulation: Simulation, spec: Any) -> int:
    """Say whether voltages rise with a position (1), fall (-1), or do both (0), as where regulators are in open delta.

    It is tried on the circuit as it stands. What a regulator that lifts one phase and lowers another does to the lowest
    and the highest voltage of all no rule knows: moved by these, it is driven to its end.
    """
    if spec.kind != "regulator":
        return 1
    circuit = simulation.circuits[0]
    place, state, before = find_switchgear(spec, circuit), circuit.state(), np.abs(circuit.v[1:])
    taps = circuit.taps.copy()
    step = 1 if taps[place] < circuit.switchgear.tap_max[place] else -1
    taps[place] += step
    circuit.switchgear.write_taps(taps)
    circuit.solve()
    change = step * (np.abs(circuit.v[1:]) - before)[before > 0.0] / before[before > 0.0]
    circuit.restore(state)
    rise, fall = float(change.max(initial=0.0)), -float(change.min(initial=0.0))
    if min(rise, fall) > _BOTH_WAYS * max(rise, fall):
        return 0
    return 1 if rise >= fall else -1
