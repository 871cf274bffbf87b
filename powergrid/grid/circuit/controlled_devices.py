"""Solve with the feeder's own controls acting, and let the devices that are left to them follow.

Time and energy stay ours: a controller of storage is told our state of charge, and nothing advances in the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.control_memory import ControlMemory, find_remembering
from powergrid.grid.circuit.own_storage import Batteries
from powergrid.grid.devices import StorageFleet
from powergrid.grid.engine import BulkWriter, PowerReader
from powergrid.grid.feeder.network.shapes import ShapeMode

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: How far beyond a limit a delivered power may be and count as within it, in parts of it; the solver leaves some.
_TOLERANCE = 1e-6


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
        dt_h: Length of a step [h].
    """

    def __init__(self, circuits: Sequence[Circuit], dt_h: float) -> None:
        self._circuits, self._dt_h = circuits, dt_h
        self._switchgear: list[_Switchgear] = []
        self._storage: _ControlledStorage | None = None
        self._memories: list[ControlMemory] = []

    def remember(self, batteries: Batteries | None, mode: ShapeMode) -> None:
        """Let controls that go from one step into the next do so; call once what follows them is known.

        Storage controllers of devices begin anew in each step: what their batteries hold is the fleet's.

        Args:
            batteries: The batteries that are no device.
            mode: Which of its shapes a control follows that has several.
        """
        controls = find_remembering(self._circuits[0])
        if controls and self._storage is None:
            own = [None] * len(self._circuits) if batteries is None else batteries.own
            self._memories = [
                ControlMemory(circuit, controls, storage, self._dt_h, mode)
                for circuit, storage in zip(self._circuits, own, strict=True)
            ]

    def follow_switchgear(self, fleet: Any, places: IntArray) -> None:
        """Let the switchgear of a fleet that is left to the feeder's controls follow them."""
        rows = np.array([i for i, spec in enumerate(fleet.specs) if spec.control == "opendss"], dtype=np.int64)
        if rows.size:
            self._switchgear.append(_Switchgear(fleet, rows, places[rows], fleet.kind))

    def follow_storage(self, fleet: StorageFleet, first: int) -> None:
        """Let the batteries of a fleet that are left to the feeder's controllers follow them.

        Args:
            fleet: The fleet.
            first: Place of its first device in the device arrays.
        """
        rows = [i for i, spec in enumerate(fleet.specs) if spec.control == "opendss"]
        if rows:
            self._storage = _ControlledStorage(self._circuits, fleet, np.array(rows), first)

    def reset(self, env: int) -> None:
        """Make the controls of one environment forget; call before its circuit is put back, for they act once more."""
        if self._memories:
            self._memories[env].begin()
        if self._storage is not None:
            self._storage.spent[env] = False
            self._storage.fill(env)
            self._circuits[env].controls.prepare(0.0)
            self._circuits[env].solve(controls=True)

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
        circuit, limit = self._circuits[env], None
        if self._storage is not None:
            self._storage.tell(env)
            limit = partial(self._storage.limit, env)
        hours = 24.0 * day + (step + 1) * self._dt_h  # OpenDSS counts a step by its end
        if self._memories:
            self._memories[env].note(hours)
        circuit.controls.prepare(hours)
        converged = (circuit.solve if checked else circuit.run)(controls=True, limit=limit)
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
        if self._memories:
            return {"memories": [memory.state() for memory in self._memories]}
        return {} if self._storage is None else {"spent": self._storage.spent.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put a :meth:`state` back; call before the circuits' own.

        What a storage controller remembers of a solve in which its batteries were spent is not part of it: from such
        a state the future is the same to the tolerance of the power flow, from all others bit for bit.
        """
        for memory, kept in zip(self._memories, state.get("memories", ()), strict=True):
            memory.restore(kept)
        if self._storage is not None:
            for env in range(len(self._circuits)):
                self.reset(env)
            self._storage.spent[...] = state["spent"]


class _ControlledStorage:
    """Batteries under storage controllers: tell the engine their energy, hold what it asks to what they have.

    A controller whose batteries are down to their reserve stops discharging until they are charged to its
    ``ResetLevel``. That memory is kept here, so that it belongs to the state of an environment, and the engine's own
    is switched off.

    Attributes:
        spent: Whether a controller waits for its batteries to be charged, shape (n_envs, n_controllers).
    """

    def __init__(self, circuits: Sequence[Circuit], fleet: StorageFleet, rows: IntArray, first: int) -> None:
        self._fleet, self._rows = fleet, rows
        self._energy = np.array([float(fleet.specs[i].e_max_kwh or 0.0) for i in rows])
        self._reserve = np.array([fleet.specs[i].soc_min for i in rows])
        elements = [str(fleet.specs[i].element).lower() for i in rows]
        self._soc: list[BulkWriter] = []
        self._setpoints: list[BulkWriter] = []
        self._readers: list[PowerReader] = []
        levels: list[float] = []
        for circuit in circuits:
            engine, handles = circuit.engine, [circuit.handle_of(first + int(i)) for i in rows]
            self._soc.append(engine.bulk_writer("Storage", "%stored", handles))
            self._setpoints.append(engine.bulk_writer("Storage", "kW", handles))
            self._readers.append(PowerReader(handles))
            mine = [c for c in circuit.controls.controls if c.class_name == "StorageController"]
            levels = []
            for control in mine:
                handle = engine.handles("StorageController")[control.name]
                levels.append(engine.get_float(handle, "StorageController", "ResetLevel"))
                engine.set_float(handle, engine.property_index("StorageController", "ResetLevel"), 0.0)
            self._member = np.array([[e in control.targets for e in elements] for control in mine], dtype=np.float64)
        self._total = self._member @ self._energy
        self._least = self._member @ (self._energy * self._reserve)
        self._level = np.maximum(np.array(levels) * self._total, self._least)
        self.spent = np.zeros((len(circuits), len(levels)), dtype=bool)

    def tell(self, env: int) -> None:
        """Write the state of charge, no more than the reserve where a controller waits for its batteries."""
        soc = self._fleet.soc[env, self._rows]
        left = self._member @ (soc * self._energy)
        spent = self.spent[env]
        spent[...] = (left <= self._least * (1 + 1e-9)) | (spent & (left < self._level))
        waits = spent @ self._member > 0.0
        self._soc[env].values[:] = 100.0 * np.where(waits, np.minimum(soc, self._reserve), soc)
        self._soc[env].write()

    def fill(self, env: int) -> None:
        """Write full, idle batteries: a controller that solves with these remembers nothing."""
        self._soc[env].values[:] = 100.0
        self._setpoints[env].values[:] = 0.0
        self._soc[env].write()
        self._setpoints[env].write()

    def limit(self, env: int) -> bool:
        """Hold what the controllers ask to what power ratings and the energy left allow in this step."""
        asked = -self._readers[env].read().real
        least, most = (room[env, self._rows] for room in self._fleet.room_kw)
        held = np.minimum(np.maximum(asked, least), most)
        if np.abs(held - asked).max() <= _TOLERANCE * np.maximum(1.0, np.abs(asked)).max():
            return False
        self._setpoints[env].values[:] = held
        self._setpoints[env].write()
        return True
