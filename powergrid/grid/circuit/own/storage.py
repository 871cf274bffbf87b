"""Batteries that no agent has: those that are no device, by shape, trigger or controller, and devices that one leads.

What the former hold is the engine's own reckoning, so that losses and idling are the model's; it is part of a circuit's
state. What devices hold is their fleet's, and the engine is told. Only circuits with such batteries take part.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.circuits import Circuits
from powergrid.grid.devices import StorageFleet
from powergrid.grid.engine import FloatArray, Handle, IntArray, PowerReader

#: OpenDSS's ordinals of Storage.DispMode: by whoever writes it; by the sign and size of the shape.
_EXTERNAL, _FOLLOW = 3, 4
#: How far beyond a limit a delivered power may be and count as within it, in parts of it; the solver leaves some.
_TOLERANCE = 1e-6
#: How close to an end of its range a state of charge counts as there, in parts of it: what rounding leaves.
_ROUNDING = 1e-9


class OwnStorage:
    """Follow the batteries of one circuit.

    Args:
        circuit: The circuit.
        led: Names of those that shapes and triggers lead.
        names: Names of all that are no device; the others are a controller's, or stand still.
        dt_h: Length of a step [h].
    """

    def __init__(self, circuit: Circuit, led: Sequence[str], names: Sequence[str], dt_h: float) -> None:
        self._engine, engine, self._dt_h = circuit.engine, circuit.engine, dt_h
        handles: list[Handle] = [circuit.handles["Storage"][name] for name in names]
        self._handles, own = handles, [circuit.handles["Storage"][name] for name in led]
        place = {name: i for i, name in enumerate(names)}
        self._led = np.array([place[name] for name in led], dtype=np.int64)

        def number(key: str) -> FloatArray:
            return engine.get_all_floats(own, "Storage", key)

        self._follows = engine.get_all_ints(own, "Storage", "DispMode") == _FOLLOW
        self._rated_kw, self._rated_kwh = number("kWRated"), number("kWhRated")
        self._reserve_kwh = number("%Reserve") / 100.0 * self._rated_kwh
        self._out_kw, self._in_kw = (number(key) / 100.0 * self._rated_kw for key in ("%Discharge", "%Charge"))
        self._discharge_at, self._charge_at = number("DischargeTrigger"), number("ChargeTrigger")
        self._charge_hour = number("TimeChargeTrig")
        self.take()
        if not circuit.file_solves:  # what the engine's first look at the level of demand or the price came to
            rows = [i for i, name in enumerate(circuit.handles["Storage"]) if name in place]
            self._mode = circuit.compiled_storage[rows]
        for handle in own:  # else the engine has those that follow at full power, for in its snapshot is no shape
            engine.set_int(handle, engine.property_index("Storage", "DispMode"), _EXTERNAL)
        self._start = self.state()
        self._writer = engine.bulk_writer("Storage", "kWhStored", handles)
        self._full_kwh = engine.get_all_floats(handles, "Storage", "kWhRated")
        others = [handle for name, handle in circuit.handles["Storage"].items() if name not in set(names)]
        # The engine reckons for all batteries; what those of agents hold is told elsewhere.
        self._others = engine.bulk_writer("Storage", "kWhStored", others) if others else None
        if self._others is not None:
            self._others.values[:] = engine.get_all_floats(others, "Storage", "kWhStored")
        engine.interval_hours = dt_h

    def take(self) -> None:
        """Take what each battery holds [kWh], and 1 where it discharges, -1 where it charges, 0 where it idles."""
        self._stored_kwh = self._engine.get_all_floats(self._handles, "Storage", "kWhStored")
        self._mode = self._engine.get_all_ints(self._handles, "Storage", "State")

    def take_others(self) -> None:
        """Take the same of those that are not led: these did nothing."""
        kept = self._mode[self._led]
        self.take()
        self._mode[self._led] = kept

    def decide(self, level: FloatArray, hour: float) -> FloatArray:
        """Return what each battery that is led is to deliver in a step [kW], shape (n_led,).

        Args:
            level: Value of its shape, 1 where it has none, shape (n_led,).
            hour: Hour at which the step ends.

        Source:
            ``CheckStateTriggerLevel`` of OpenDSS's Storage.
        """
        stored, before = self._stored_kwh[self._led], self._mode[self._led]
        full, spent = stored >= self._rated_kwh, stored <= self._reserve_kwh
        by_sign = np.where((level > 0.0) & ~spent, 1, np.where((level < 0.0) & ~full, -1, 0))
        mode, charge, discharge = before.copy(), self._charge_at, self._discharge_at
        mode[(mode == -1) & (charge != 0.0) & ((charge < level) | full)] = 0
        mode[(mode == 1) & (discharge != 0.0) & ((discharge > level) | spent)] = 0
        idle = mode == 0
        discharges = idle & (discharge != 0.0) & (discharge < level) & ~spent
        charges = idle & ~discharges & (charge != 0.0) & (charge > level) & ~full
        # It looks at the clock only while idle.
        on_time = idle & (self._charge_hour > 0.0) & (np.abs(hour % 24.0 - self._charge_hour) < self._dt_h)
        mode = np.where(discharges, 1, np.where(charges | on_time, -1, mode))
        mode[on_time] = -1
        untriggered = (charge == 0.0) & (discharge == 0.0)
        mode = np.where(self._follows, by_sign, np.where(untriggered, before, mode))
        self._mode[self._led] = mode
        power = np.where(self._follows, np.abs(level) * self._rated_kw, np.where(mode > 0, self._out_kw, self._in_kw))
        asked: FloatArray = mode.astype(np.float64) * power
        return asked

    def write(self) -> None:
        """Tell the engine what each battery holds; it has them idle below the reserve and when full."""
        self._writer.values[:] = self._stored_kwh
        self._writer.write()

    def fill(self) -> None:
        """Tell the engine that all are full, until :meth:`write`."""
        self._writer.values[:] = self._full_kwh
        self._writer.write()

    def advance(self) -> None:
        """Let the engine reckon what each battery holds after a step that converged."""
        self._engine.finish_step()
        self.take()
        if self._others is not None:
            self._others.write()

    def start_from_here(self) -> None:
        """Take what the batteries hold and do now for what they start from."""
        self.take_others()
        self._start = self.state()

    def reset(self) -> None:
        """Put the batteries back to how the model has them."""
        self.restore(self._start)

    def state(self) -> tuple[FloatArray, IntArray]:
        """Copy what the future depends on."""
        return self._stored_kwh.copy(), self._mode.copy()

    def restore(self, state: tuple[FloatArray, IntArray]) -> None:
        """Put a :meth:`state` back."""
        self._stored_kwh, self._mode = state[0].copy(), state[1].copy()
        self.write()  # first: one that is spent or full takes no other state
        number = self._engine.property_index("Storage", "State")
        for handle, mode in zip(self._handles, self._mode.tolist(), strict=True):
            self._engine.set_int(handle, number, mode)


class Batteries:
    """Follow the batteries of every circuit that are no device.

    Args:
        circuits: The circuits.
        led: Names of those that shapes and triggers lead.
        names: Names of all that are no device.
        writes: What is written of elements that are no device.
        dt_h: Length of a step [h].

    Attributes:
        own: The batteries of each circuit.
    """

    def __init__(
        self,
        circuits: Circuits,
        led: Sequence[str],
        names: Sequence[str],
        writes: Sequence[tuple[str, str, Sequence[str]]],
        dt_h: float,
    ) -> None:
        self.own, self._dt_h = [OwnStorage(circuit, led, names, dt_h) for circuit in circuits], dt_h
        place = next((i for i, (class_name, _, _) in enumerate(writes) if class_name == "Storage"), None)
        self._values = np.zeros((len(self.own), 0))
        if place is not None:
            self._values = circuits.background_values(place, len(writes))

    def decide(self, envs: Sequence[int], day: IntArray, step: IntArray) -> None:
        """Turn the levels of shapes that were taken for some environments into the power that is written."""
        for env in envs:
            hour = 24.0 * int(day[env]) + (int(step[env]) + 1) * self._dt_h
            own = self.own[env]
            own.write()
            self._values[env] = own.decide(self._values[env], hour)

    def advance(self, converged: npt.NDArray[np.bool_]) -> None:
        """Move on by one step, where it converged."""
        for own, sound in zip(self.own, converged.tolist(), strict=True):
            if sound:
                own.advance()

    def reset(self, env: int) -> None:
        """Put the batteries of one environment back to how the model has them."""
        self.own[env].reset()

    def state(self) -> list[tuple[FloatArray, IntArray]]:
        """Copy what the future depends on."""
        return [own.state() for own in self.own]

    def restore(self, state: Sequence[tuple[FloatArray, IntArray]]) -> None:
        """Put a :meth:`state` back."""
        for own, kept in zip(self.own, state, strict=True):
            own.restore(kept)


def lead_batteries(
    circuits: Circuits, writes: Sequence[tuple[str, str, Sequence[str]]], devices: Collection[str], dt_h: float
) -> Batteries | None:
    """Get the batteries ready that are no device, where there are any.

    Args:
        circuits: The circuits.
        writes: What is written of elements that are no device.
        devices: ``class.name``, lower case, of the elements that are devices.
        dt_h: Length of a step [h].
    """
    names = [name for name in circuits[0].network.elements["Storage"] if f"storage.{name}" not in devices]
    led = [name for class_name, _, own in writes if class_name == "Storage" for name in own]
    return Batteries(circuits, led, names, writes, dt_h) if names else None


class LedBatteries:
    """Devices of one circuit under storage controllers: tell these their energy, hold what they ask to what there is.

    Args:
        circuit: The circuit.
        fleet: The fleet that they are part of.
        rows: Which of it.
        first: Place of the fleet's first device in the device arrays.
        env: Which environment the circuit is.

    Attributes:
        held: What they were held to in the last solve [kW], shape (n_rows,); None where what was asked could be had.
    """

    def __init__(self, circuit: Circuit, fleet: StorageFleet, rows: IntArray, first: int, env: int) -> None:
        self._fleet, self._rows, self._env = fleet, rows, env
        specs = [fleet.specs[i] for i in rows.tolist()]
        self._soc_min, self._soc_max = (np.array([getattr(s, key) for s in specs]) for key in ("soc_min", "soc_max"))
        engine, handles = circuit.engine, [circuit.handle_of(first + i) for i in rows.tolist()]
        self._percent = engine.bulk_writer("Storage", "%stored", handles)
        self._setpoints = engine.bulk_writer("Storage", "kW", handles)
        self._rates = [engine.bulk_writer("Storage", key, handles) for key in ("%Charge", "%Discharge")]
        self._engine, self._handles = engine, handles
        self._reader = PowerReader(handles)
        self.held: FloatArray | None = None

    def look(self) -> FloatArray:
        """Return what the engine is to be told [%]: spent at the end that is kept, full at the other."""
        soc = self._fleet.soc[self._env, self._rows]
        spent = np.abs(soc - self._soc_min) <= _ROUNDING * self._soc_min
        told = np.where(spent, self._soc_min * (1.0 - _ROUNDING), soc)
        found: FloatArray = 100.0 * np.where(soc >= self._soc_max * (1.0 - _ROUNDING), 1.0, told)
        return found

    def tell(self, percent: FloatArray) -> None:
        """Write states of charge, and have the rates that controllers set where batteries were held to others."""
        if self.held is not None:
            for writer in self._rates:
                writer.write()
        self.held = None
        self._percent.values[:] = percent
        self._percent.write()

    def fill(self) -> None:
        """Write full batteries, which have controllers forget that these were spent."""
        self.tell(np.full(len(self._rows), 100.0))

    def limit(self) -> bool:
        """Hold what controllers ask to what power ratings and the energy left allow in this step; say whether it was.

        Call after they acted.
        """
        asked = -self._reader.read().real
        least, most = (room[self._env, self._rows] for room in self._fleet.room_kw)
        held = np.minimum(np.maximum(asked, least), most)
        if np.abs(held - asked).max() <= _TOLERANCE * np.maximum(1.0, np.abs(asked)).max():
            return False
        return self.hold(held)

    def hold(self, kw: FloatArray | None) -> bool:
        """Write what batteries are held to, as :attr:`held` had it; say whether there is anything."""
        self.held = kw
        if kw is None:
            return False
        for writer, key in zip(self._rates, ("%Charge", "%Discharge"), strict=True):
            writer.values[:] = self._engine.get_all_floats(self._handles, "Storage", key)
        self._setpoints.values[:] = kw
        self._setpoints.write()
        return True
