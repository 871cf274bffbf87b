"""Solve with the feeder's own controls acting, and let the devices that are left to them follow.

Time and what devices hold stay ours: a controller of storage is told our state of charge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.own.memory import ControlMemory, find_remembering
from powergrid.grid.circuit.own.storage import Batteries, LedBatteries
from powergrid.grid.devices import StorageFleet
from powergrid.grid.feeder.network.shapes import ShapeMode

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class _Switchgear(NamedTuple):
    """Switchgear of one kind that the feeder's own controls move: rows of the fleet, places in the circuit."""

    fleet: Any
    rows: IntArray
    places: IntArray
    kind: str


class ControlledDevices:
    """Play the feeder's own controls in every environment.

    Args:
        circuits: The circuit of each environment; all have the same controls.
        power: Fleets with power, each with its places in the device arrays.
        switchgear: Fleets of switchgear, each with its places in the circuit's arrays and its kind.
        batteries: The batteries that are no device.
        dt_h: Length of a step [h].
        mode: Which of its shapes a control follows that has several.
    """

    def __init__(
        self,
        circuits: Sequence[Circuit],
        power: Sequence[tuple[Any, slice]],
        switchgear: Sequence[tuple[Any, IntArray, str]],
        batteries: Batteries | None,
        dt_h: float,
        mode: ShapeMode,
    ) -> None:
        self._circuits, self._dt_h = circuits, dt_h
        self._switchgear: list[_Switchgear] = []
        self._led: list[LedBatteries] = []
        self._memories: list[ControlMemory] = []
        for fleet, own in power:
            rows = _find_led(fleet)
            if isinstance(fleet, StorageFleet) and rows.size:
                self._led = [LedBatteries(circuit, fleet, rows, own.start, i) for i, circuit in enumerate(circuits)]
        for fleet, places, kind in switchgear:
            if (rows := _find_led(fleet)).size:
                self._switchgear.append(_Switchgear(fleet, rows, places[rows], kind))
        if controls := find_remembering(circuits[0]):
            none: Sequence[Any] = [None] * len(circuits)
            parts = zip(circuits, none if batteries is None else batteries.own, self._led or none, strict=True)
            self._memories = [ControlMemory(each, controls, own, led, dt_h, mode) for each, own, led in parts]

    def reset(self, env: int) -> None:
        """Make the controls of one environment forget; call before its circuit is put back, for they act once more."""
        if self._memories:
            self._memories[env].begin()

    def solve(self, env: int, day: int, step: int, *, checked: bool) -> bool:
        """Solve one environment with the controls acting, and put the devices left to them where these are now.

        Args:
            env: Which environment.
            day: Day of the profiles.
            step: Step of the episode, 0-based.
            checked: Whether voltages are looked at before the devices follow; else that is for the caller, as of
                :meth:`Circuit.run`.

        Returns:
            Whether the power flow converged.
        """
        circuit, led = self._circuits[env], self._led[env] if self._led else None
        if led is not None:
            led.tell(led.look())
        hours = 24.0 * day + (step + 1) * self._dt_h  # OpenDSS counts a step by its end
        if self._memories:
            self._memories[env].note(hours)
        circuit.controls.prepare(hours)
        limit = None if led is None else led.limit
        converged = (circuit.solve if checked else circuit.run)(controls=True, limit=limit)
        if led is not None and led.held is not None:
            self._memories[env].note_held(led.held)
        for fleet, rows, places, kind in self._switchgear:
            fleet.follow(env, rows, circuit.switchgear.positions(kind)[places])
        return converged

    def advance(self, converged: BoolArray) -> None:
        """End a step in the environments where it converged; call before batteries do."""
        if self._memories:
            for memory, sound in zip(self._memories, converged.tolist(), strict=True):
                if sound:
                    memory.end_step()

    def undo(self, env: int) -> None:
        """Have the controls of one environment forget a step that is played again; call before its circuit's own."""
        if self._memories:
            self._memories[env].undo()

    def start_from_here(self, env: int) -> None:
        """Take the positions that the controls found at the start of an episode for those it starts from."""
        if self._memories:
            self._memories[env].begin()
        for fleet, rows, _, _ in self._switchgear:
            fleet.start_from_here(env, rows)

    def state(self) -> dict[str, Any]:
        """Copy what the controls remember."""
        return {"memories": [memory.state() for memory in self._memories]} if self._memories else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Put a :meth:`state` back; call before the circuits' own."""
        for memory, kept in zip(self._memories, state.get("memories", ()), strict=True):
            memory.restore(kept)


def _find_led(fleet: Any) -> IntArray:
    """Return the devices of a fleet that are left to the feeder's controls."""
    return np.array([i for i, spec in enumerate(fleet.specs) if spec.control == "opendss"], dtype=np.int64)
