"""Generators that no agent has and that burn fuel: off once no more than their reserve is left, as in OpenDSS.

What each has left is reckoned here, as the engine does it in modes of its own alone. Only circuits with such
generators take part.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuits import Circuits
from powergrid.grid.engine import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]
FuelState = tuple[FloatArray, BoolArray]


class Fuel:
    """Follow the fuel of the generators of all circuits that have some.

    Args:
        circuits: The circuits.
        writes: What is written of elements that are no device.
        names: Of these generators, lower case.
        dt_h: Length of a step [h].

    Source:
        ``TakeSample`` and ``CheckOnFuel`` of OpenDSS's Generator.
    """

    def __init__(
        self, circuits: Circuits, writes: Sequence[tuple[str, str, Sequence[str]]], names: Sequence[str], dt_h: float
    ) -> None:
        network, n = circuits[0].network, len(circuits)
        there, own = ({name: i for i, name in enumerate(each)} for each in (network.elements["Generator"], names))
        sources, place = network.sources, [there[name] for name in names]
        self._full_kwh, self._dt_h = sources.fuel_kwh[place], dt_h
        start, self._reserve = sources.fuel_percent[:, place]
        # The engine multiplies what is written.
        self._delivered = np.where(sources.generator_fixed[place], 1.0, sources.generator_factor)
        self._off_kw = sources.generator_off_kw[place]
        #: Of each write: its values, its columns, and the generators that they are.
        self._written: list[tuple[FloatArray, IntArray, IntArray]] = []
        for i, (class_name, key, of_write) in enumerate(writes):
            kept = [(column, own[name]) for column, name in enumerate(of_write) if name in own]
            if class_name == "Generator" and kept:
                values = circuits.background_values(i, len(writes))
                self._written.append((values, *np.array(kept).T))
                if key == "kW":
                    self._kw = self._written[-1]
        self._start: FuelState = start.copy(), np.zeros(len(names), dtype=np.bool_)
        self._left_percent, self._spent = np.tile(start, (n, 1)), np.zeros((n, len(names)), dtype=np.bool_)
        self._asked_kw = np.zeros((n, len(names)))

    def decide(self, envs: Sequence[int], day: IntArray, step: IntArray) -> None:
        """Have those without fuel deliver nothing in some environments."""
        values, columns, which = self._kw
        for env in envs:
            self._asked_kw[env, which] = values[env, columns]
            if self._spent[env].any():
                for of_write, own, generators in self._written:
                    of_write[env, own[self._spent[env, generators]]] = 0.0

    def advance(self, converged: BoolArray) -> None:
        """Burn what was asked for in a step, where it converged: also of those that have none left, as the engine."""
        burnt = self._asked_kw * self._delivered * self._dt_h
        with np.errstate(divide="ignore", invalid="ignore"):  # a model may have fuel of 0 kWh
            left = (self._left_percent / 100.0 * self._full_kwh - burnt) / self._full_kwh * 100.0
        spent = left <= self._reserve
        on = (self._asked_kw != self._off_kw) & converged[:, None]
        self._left_percent = np.where(on, np.where(spent, self._reserve, left), self._left_percent)
        self._spent = np.where(on, spent, self._spent)

    def reset(self, env: int) -> None:
        """Put the fuel of one environment back to what the model has."""
        self._left_percent[env], self._spent[env] = self._start

    def state(self) -> FuelState:
        """Copy what the future depends on."""
        return self._left_percent.copy(), self._spent.copy()

    def restore(self, state: FuelState) -> None:
        """Put a :meth:`state` back."""
        self._left_percent, self._spent = state[0].copy(), state[1].copy()


def follow_fuel(
    circuits: Circuits, writes: Sequence[tuple[str, str, Sequence[str]]], devices: Collection[str], dt_h: float
) -> Fuel | None:
    """Follow the fuel of generators that are no device, where there are any that have some.

    Args:
        circuits, writes, dt_h: As of :class:`Fuel`.
        devices: ``class.name``, lower case, of the elements that are devices.
    """
    network = circuits[0].network
    burns = zip(network.elements["Generator"], network.sources.fuel_kwh.tolist(), strict=True)
    names = [name for name, full in burns if full == full and f"generator.{name}" not in devices]
    return Fuel(circuits, writes, names, dt_h) if names else None
