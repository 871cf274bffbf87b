"""Induction machines: each seeks its slip from where it was, so that one that was stalled stays so.

The engine goes on from the slip of its last solve. That memory is kept here, so that it belongs to the state of an
environment. Only circuits with such machines take part.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuits import Circuits
from powergrid.grid.engine import FloatArray, IntArray


class Slips:
    """Follow the slips of the induction machines of all circuits.

    Args:
        circuits: The circuits.
        place: Place of the write of slips.
        writes: What is written of elements that are no device.
    """

    def __init__(self, circuits: Circuits, place: int, writes: Sequence[tuple[str, str, Sequence[str]]]) -> None:
        names = writes[place][2]
        self._machines = [
            (circuit.engine, [circuit.handles["IndMach012"][name] for name in names]) for circuit in circuits
        ]
        self._values = circuits.background_values(place, len(writes))
        self._start = np.stack([self._read(env) for env in range(len(circuits))])
        self._slip = self._start.copy()

    def _read(self, env: int) -> FloatArray:
        engine, handles = self._machines[env]
        return engine.get_all_floats(handles, "IndMach012", "slip")

    def decide(self, envs: Sequence[int], day: IntArray, step: IntArray) -> None:
        """Have the machines of some environments begin from the slips of the step before."""
        self._values[envs] = self._slip[envs]

    def advance(self, converged: npt.NDArray[np.bool_]) -> None:
        """Take the slips of a step, where it converged."""
        for env in np.flatnonzero(converged).tolist():
            self._slip[env] = self._read(env)

    def reset(self, env: int) -> None:
        """Put the slips of one environment back to where the model's start has them."""
        self._slip[env] = self._start[env]

    def state(self) -> FloatArray:
        """Copy what the future depends on."""
        return self._slip.copy()

    def restore(self, state: FloatArray) -> None:
        """Put a :meth:`state` back."""
        self._slip = state.copy()


def follow_slips(
    circuits: Circuits, writes: Sequence[tuple[str, str, Sequence[str]]], devices: Collection[str], dt_h: float
) -> Slips | None:
    """Follow the slips of induction machines, where there are any; none of them is a device.

    Args:
        circuits, writes: As of :class:`Slips`.
        devices, dt_h: As of other elements that move by themselves.
    """
    place = next(
        (i for i, (class_name, key, _) in enumerate(writes) if (class_name, key) == ("IndMach012", "slip")), None
    )
    return None if place is None else Slips(circuits, place, writes)
