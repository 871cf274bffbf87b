"""From the positions that fleets of switchgear want to the circuits that have to move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.devices.switchgear import SwitchgearFleet

IntArray = npt.NDArray[np.int64]


class Moves:
    """Move switchgear where it is not yet: one comparison for all circuits, and calls only for what moves.

    The positions of all circuits lie side by side from here on, each circuit's arrays being rows of these.

    Args:
        circuits: The circuits, one an environment.
        gear: The fleets, each with its places in the circuits' arrays and its kind.

    Attributes:
        count: Positions to be moved in each circuit, as found last, shape (n_envs,).
    """

    def __init__(self, circuits: Sequence[Circuit], gear: Sequence[tuple[SwitchgearFleet[Any], IntArray, str]]) -> None:
        now = {kind: np.array([circuit.gear.positions(kind) for circuit in circuits]) for _, _, kind in gear}
        for env, circuit in enumerate(circuits):
            for kind, positions in now.items():
                circuit.gear.keep_in(kind, positions[env])
        self._parts = [(fleet, now[kind], places, kind) for fleet, places, kind in gear]
        self._gears = [circuit.gear for circuit in circuits]
        self._wanted: dict[int, list[tuple[str, int, int]]] = {}
        self.count = np.zeros(len(circuits), dtype=np.int64)

    def find(self) -> None:
        """Compare all circuits with what is wanted, for :meth:`play`."""
        self._wanted.clear()
        self.count.fill(0)
        for fleet, now, places, kind in self._parts:
            position = fleet.position
            away = position - now.take(places, 1)
            if not np.count_nonzero(away):
                continue
            np.add(self.count, np.add.reduce(np.abs(away), axis=1), out=self.count)
            envs, columns = np.nonzero(away)
            goals = position[envs, columns]
            for env, place, goal in zip(envs.tolist(), places[columns].tolist(), goals.tolist(), strict=True):
                self._wanted.setdefault(env, []).append((kind, place, goal))

    def play(self, env: int) -> None:
        """Move what :meth:`find` found of one circuit."""
        if env in self._wanted:
            gear = self._gears[env]
            for kind, place, goal in self._wanted.pop(env):
                gear.move(kind, place, goal)
