"""Batteries that no agent and no controller has: charged and discharged as OpenDSS does it, by shape or by trigger.

What each holds is the engine's own reckoning, so that losses and idling are the model's; it is part of a circuit's
state. Only circuits with such batteries take part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.circuits import Circuits
from powergrid.grid.engine import FloatArray, Handle, IntArray

#: OpenDSS's ordinals of Storage.DispMode: by whoever writes it; by the sign and size of the shape.
_EXTERNAL, _FOLLOW = 3, 4


class _OwnStorage:
    """Follow the batteries of one circuit.

    Args:
        circuit: The circuit.
        names: Their names.
        dt_h: Length of a step [h].

    Attributes:
        stored_kwh: What each holds, shape (n,).
        mode: 1 where one discharges, -1 where it charges, 0 where it idles, shape (n,).
    """

    def __init__(self, circuit: Circuit, names: Sequence[str], dt_h: float) -> None:
        self._engine, engine = circuit.engine, circuit.engine
        handles: list[Handle] = [circuit.handles["Storage"][name] for name in names]
        self._handles, self._dt_h = handles, dt_h

        def number(key: str) -> FloatArray:
            return engine.get_all_floats(handles, "Storage", key)

        self._follows = engine.get_all_ints(handles, "Storage", "DispMode") == _FOLLOW
        self._rated_kw, self._rated_kwh = number("kWRated"), number("kWhRated")
        self._reserve_kwh = number("%Reserve") / 100.0 * self._rated_kwh
        self._out_kw, self._in_kw = (number(key) / 100.0 * self._rated_kw for key in ("%Discharge", "%Charge"))
        self._discharge_at, self._charge_at = number("DischargeTrigger"), number("ChargeTrigger")
        self._charge_hour = number("TimeChargeTrig")
        self.stored_kwh, self.mode = number("kWhStored"), engine.get_all_ints(handles, "Storage", "State")
        for handle in handles:  # else the engine has those that follow at full power, for in its snapshot is no shape
            engine.set_int(handle, engine.property_index("Storage", "DispMode"), _EXTERNAL)
        self._start = self.stored_kwh.copy(), self.mode.copy()
        self._writer = engine.bulk_writer("Storage", "kWhStored", handles)
        others = [h for name, h in circuit.handles["Storage"].items() if name not in set(names)]
        # The engine reckons for all batteries; what those of agents hold is told elsewhere.
        self._others = engine.bulk_writer("Storage", "kWhStored", others) if others else None
        if self._others is not None:
            self._others.values[:] = engine.get_all_floats(others, "Storage", "kWhStored")
        engine.set_interval(dt_h)

    def decide(self, level: FloatArray, hour: float) -> FloatArray:
        """Return what each battery is to deliver in a step [kW], shape (n,).

        Args:
            level: Value of its shape, 1 where it has none, shape (n,).
            hour: Hour at which the step ends.

        Source:
            ``CheckStateTriggerLevel`` of OpenDSS's Storage.
        """
        full, spent = self.stored_kwh >= self._rated_kwh, self.stored_kwh <= self._reserve_kwh
        by_sign = np.where((level > 0.0) & ~spent, 1, np.where((level < 0.0) & ~full, -1, 0))
        mode, charge, discharge = self.mode.copy(), self._charge_at, self._discharge_at
        mode[(mode == -1) & (charge != 0.0) & ((charge < level) | full)] = 0
        mode[(mode == 1) & (discharge != 0.0) & ((discharge > level) | spent)] = 0
        idle = mode == 0
        discharges = idle & (discharge != 0.0) & (discharge < level) & ~spent
        charges = idle & ~discharges & (charge != 0.0) & (charge > level) & ~full
        # It looks at the clock only while idle.
        on_time = idle & (self._charge_hour > 0.0) & (np.abs(hour % 24.0 - self._charge_hour) < self._dt_h)
        mode = np.where(discharges, 1, np.where(charges, -1, mode))
        mode[on_time & (mode != -1)] = -1
        untriggered = (charge == 0.0) & (discharge == 0.0)
        mode = np.where(self._follows, by_sign, np.where(untriggered, self.mode, mode))
        self.mode = mode
        power = np.where(self._follows, np.abs(level) * self._rated_kw, np.where(mode > 0, self._out_kw, self._in_kw))
        asked: FloatArray = mode.astype(np.float64) * power
        return asked

    def write(self) -> None:
        """Tell the engine what each battery holds; it has them idle below the reserve and when full."""
        self._writer.values[:] = self.stored_kwh
        self._writer.write()

    def advance(self) -> None:
        """Let the engine reckon what each battery holds after a step that converged."""
        engine = self._engine
        engine.finish_step()
        self.stored_kwh = engine.get_all_floats(self._handles, "Storage", "kWhStored")
        self.mode = engine.get_all_ints(self._handles, "Storage", "State")
        if self._others is not None:
            self._others.write()

    def reset(self) -> None:
        """Put the batteries back to how the model has them."""
        self.stored_kwh, self.mode = self._start[0].copy(), self._start[1].copy()

    def state(self) -> tuple[FloatArray, IntArray]:
        """Copy what the future depends on."""
        return self.stored_kwh.copy(), self.mode.copy()

    def restore(self, state: tuple[FloatArray, IntArray]) -> None:
        """Put a :meth:`state` back."""
        self.stored_kwh, self.mode = state[0].copy(), state[1].copy()


class Batteries:
    """Follow the batteries of every circuit that are no device.

    Args:
        circuits: The circuits.
        names: Their names.
        place: Place of what is written for them among the writes of the background.
        n_writes: Number of those writes.
        dt_h: Length of a step [h].
    """

    def __init__(self, circuits: Circuits, names: Sequence[str], place: int, n_writes: int, dt_h: float) -> None:
        self._own = [_OwnStorage(circuit, names, dt_h) for circuit in circuits]
        self._values, self._dt_h = circuits.background_values(place, n_writes), dt_h

    def decide(self, envs: Sequence[int], day: IntArray, step: IntArray) -> None:
        """Turn the levels of shapes that were taken for some environments into the power that is written."""
        for env in envs:
            hour = 24.0 * int(day[env]) + (int(step[env]) + 1) * self._dt_h
            own = self._own[env]
            own.write()
            self._values[env] = own.decide(self._values[env], hour)

    def advance(self, converged: npt.NDArray[np.bool_]) -> None:
        """Move on by one step, where it converged."""
        for own, sound in zip(self._own, converged.tolist(), strict=True):
            if sound:
                own.advance()

    def reset(self, env: int) -> None:
        """Put the batteries of one environment back to how the model has them."""
        self._own[env].reset()

    def state(self) -> list[tuple[FloatArray, IntArray]]:
        """Copy what the future depends on."""
        return [own.state() for own in self._own]

    def restore(self, state: Sequence[tuple[FloatArray, IntArray]]) -> None:
        """Put a :meth:`state` back."""
        for own, kept in zip(self._own, state, strict=True):
            own.restore(kept)


def lead_batteries(
    circuits: Circuits, writes: Sequence[tuple[str, str, Sequence[str]]], dt_h: float
) -> Batteries | None:
    """Get the batteries ready that the background writes, where there are any."""
    for place, (class_name, _, names) in enumerate(writes):
        if class_name == "Storage":
            return Batteries(circuits, names, place, len(writes), dt_h)
    return None
