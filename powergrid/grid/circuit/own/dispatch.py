"""Dispatchers of generators that act: they move what a shape multiplies, and what they moved stays for the next step.

The engine's own would add to what is written, which has the shape in it already, and forgets nothing at a reset. So
they are reckoned here, as ``Sample`` of OpenDSS's GenDispatcher does it. Only circuits with such controls take part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from powergrid.grid.engine import Engine, FloatArray, Handle, PowerReader
from powergrid.grid.feeder.network import FeederControl

_KEYS = ("kW", "kvar")
#: What the engine lets them set at least [kW], [kvar].
_LEAST = np.array([[1.0], [0.0]])


class _Dispatcher:
    """What one dispatcher looks at, and whom it moves.

    Args:
        engine: The engine that holds the circuit.
        handle: The control.
        places: Of the generators that are left to it, among those of all.
        weights: Of each.
    """

    def __init__(self, engine: Engine, handle: Handle, places: Sequence[int], weights: Sequence[float]) -> None:
        class_name, name = engine.get_reference(handle, "GenDispatcher", "Element")
        element = engine.handles(class_name)[name]
        terminal, conductors = engine.get_int(handle, "GenDispatcher", "Terminal"), engine.terminals(element)[1]
        self._reader = PowerReader([element])
        self._terminal = slice((terminal - 1) * conductors, terminal * conductors)
        limits = [engine.get_float(handle, "GenDispatcher", key) for key in ("kWLimit", "kvarLimit")]
        self._limits, self._band = np.array(limits), engine.get_float(handle, "GenDispatcher", "kWBand") / 2.0
        self._places, self._shares = np.array(places), np.array(weights) / (sum(weights) or 1.0)

    def correct(self, base: FloatArray) -> FloatArray:
        """Return what its generators are to be set to, from the solved circuit, shape (2, n_generators)."""
        drawn = complex(self._reader.fetch()[self._terminal].sum())
        excess = np.array([drawn.real, drawn.imag]) - self._limits
        excess[np.abs(excess) <= self._band] = 0.0
        moved = base.copy()
        own = np.maximum(base[:, self._places] + excess[:, None] * self._shares, _LEAST)
        moved[:, self._places] = np.where(excess[:, None] != 0.0, own, base[:, self._places])
        return moved


class Dispatch:
    """The dispatchers of one circuit, and what they have set generators to.

    Args:
        engine: The engine that holds the circuit.
        controls: Those that act, each with the generators left to it.
        weights: Weight of each generator, by the control's name.
    """

    def __init__(
        self, engine: Engine, controls: Sequence[FeederControl], weights: Mapping[str, Sequence[float]]
    ) -> None:
        self._names = list(dict.fromkeys(target.partition(".")[2] for each in controls for target in each.targets))
        generators, place = engine.handles("Generator"), {name: i for i, name in enumerate(self._names)}
        handles = [generators[name] for name in self._names]
        known, self._dispatchers = engine.handles("GenDispatcher"), list[_Dispatcher]()
        for control in controls:
            places = [place[target.partition(".")[2]] for target in control.targets]
            self._dispatchers.append(_Dispatcher(engine, known[control.name], places, weights[control.name]))
            engine.disable(known[control.name], "GenDispatcher")
        self._writers = [engine.bulk_writer("Generator", key, handles) for key in _KEYS]
        self._engine, self._handles = engine, handles
        self.base = self._read()
        self._nominal = self.base.copy()

    def _read(self) -> FloatArray:
        return np.stack([self._engine.get_all_floats(self._handles, "Generator", key) for key in _KEYS])

    def follow(self, nominal: Mapping[str, tuple[float, float]]) -> None:
        """Take what is written of each generator every step at a multiplier of 1 [kW], [kvar]."""
        self._nominal = np.array([nominal[name] for name in self._names]).T

    def start(self) -> None:
        """Take what shapes multiply generators by from what is written, and write it times what they were set to."""
        written = self._read()
        self._level = np.divide(written, self._nominal, out=np.ones_like(written), where=self._nominal != 0.0)
        self.write()

    def write(self) -> None:
        """Write what generators are set to, times what their shapes multiply it by."""
        for writer, values in zip(self._writers, self.base * self._level, strict=True):
            writer.values[:] = values
            writer.write()

    def look(self) -> FloatArray:
        """Return what generators are to be set to, from the solved circuit, shape (2, n_generators)."""
        moved = self.base
        for dispatcher in self._dispatchers:
            moved = dispatcher.correct(moved)
        return moved

    def act(self, moved: FloatArray) -> bool:
        """Take what :meth:`look` gave for the next :meth:`write`; say whether that is new."""
        changed = not np.array_equal(moved, self.base)
        self.base = moved
        return changed
