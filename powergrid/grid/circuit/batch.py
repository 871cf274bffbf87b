"""Circuits of one feeder side by side: array code once for all of them, calls on the engine one after the other.

For circuits that are written, solved and read as they are; where controls or islands act in between, each circuit is
played by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from powergrid.grid.circuit.circuit import SANE_V_PU, BoolArray, Circuit
from powergrid.grid.circuit.flows import BranchFlows
from powergrid.grid.circuit.setpoints import SetpointTable
from powergrid.grid.circuit.snapshot import Snapshot
from powergrid.grid.crew import Crew
from powergrid.grid.engine import FloatArray, IntArray


class CircuitBatch:
    """Write, solve and read n circuits in lockstep.

    Args:
        circuits: The circuits, one an environment, with the same devices.
        snapshot: Is filled; each circuit's last good voltages are its row from here on.
        n_threads: Number of threads that write and solve circuits, the caller's among them.
    """

    def __init__(self, circuits: Sequence[Circuit], snapshot: Snapshot, n_threads: int = 1) -> None:
        self._circuits, self._snapshot = circuits, snapshot
        first = circuits[0]
        self._table = SetpointTable([circuit.setpoints for circuit in circuits])
        self._flows = BranchFlows.stack([circuit.flows for circuit in circuits])
        self._readers = [circuit.powers for circuit in circuits]
        n_sources = first.n_sources
        self._starts = np.append(0, first.powers.starts[n_sources:])  # all sources as one
        self._drawn = np.zeros((len(circuits), first.powers.size), dtype=complex)
        self._v_now, self._level = np.zeros_like(snapshot.v), np.zeros_like(snapshot.v_pu)
        self._v_nodes = self._v_now[:, 1:]
        self._scale = np.tile(1.0 / first.network.v_base, (len(circuits), 1))
        self._terminal_kw = snapshot.terminal_kva.real
        self._converged = np.zeros(len(circuits), dtype=bool)
        for env, circuit in enumerate(circuits):
            circuit.keep_in(snapshot.v[env], snapshot.v_pu[env])
        n_threads = min(n_threads, len(circuits))
        self._crew = Crew(n_threads, len(circuits)) if n_threads > 1 else None

    def fill_demand(self, day_kw: FloatArray, day_kvar: FloatArray, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Take each circuit's row of what loads ask for; give what will be written, to be changed in place.

        Args:
            day_kw, day_kvar: What loads ask for [kW], [kvar], shape (n_rows, n_loads).
            rows: Row of each circuit, shape (n_envs,).
        """
        return self._table.fill_demand(day_kw, day_kvar, rows)

    def fill_injections(self, p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Take the devices' setpoints, positive into the grid [kW], [kvar], each shape (n_envs, n_devices)."""
        self._table.fill_injections(p_kw, q_kvar)

    def play(self, move: Callable[[int], None]) -> BoolArray:
        """Write what was filled in to all circuits, solve and read them.

        Args:
            move: Moves the switchgear of one circuit.

        Returns:
            Whether each power flow converged, as :meth:`read`.
        """
        if self._crew is None:
            self._play(move, 0, len(self._circuits))
        else:
            self._crew.share(functools.partial(self._play, move))
        return self.read()

    def _play(self, move: Callable[[int], None], first: int, last: int) -> None:
        """Write and solve some of the circuits, by calls on the engine that concern nobody else's."""
        for env in range(first, last):
            self.write(env)
            move(env)
            self.solve(env)

    def close(self) -> None:
        """End the threads, where there are more than the caller's."""
        if self._crew is not None:
            self._crew.close()

    def write(self, env: int) -> None:
        """Write what was filled in to one circuit, before its switchgear."""
        self._table.write(env)
        self._circuits[env].keep_y()

    def solve(self, env: int) -> None:
        """Solve one circuit whose setpoints and switchgear are written, and take voltages and powers."""
        self._converged[env] = self._circuits[env].solve_into(self._v_now[env])
        self._drawn[env] = self._readers[env].fetch()

    def read(self) -> BoolArray:
        """Fill the snapshot with what was solved, all circuits in one pass.

        Returns:
            Whether each power flow converged to finite voltages, shape (n_envs,). Where not, its rows stay as they
            were, and the next solve starts from the last good voltages.
        """
        snapshot, v, level = self._snapshot, self._v_now, self._level
        np.multiply(np.absolute(self._v_nodes, out=level), self._scale, out=level)
        sound: BoolArray = np.maximum.reduce(level, axis=1) < SANE_V_PU  # NaN compares false
        np.logical_and(sound, self._converged, out=sound)
        if np.count_nonzero(sound) < len(sound):
            self._read_sound(sound)
            return sound
        snapshot.v[...], snapshot.v_pu[...] = v, level
        self._read_flows()
        return sound

    def _read_flows(self) -> None:
        snapshot = self._snapshot
        self._flows.read(snapshot.v, snapshot.terminal_kva, snapshot.loading_pu)
        if snapshot.conductor_kva.size:
            snapshot.conductor_kva.reshape(-1)[...] = self._flows.conductor_kva
        np.add.reduce(self._terminal_kw, axis=1, out=snapshot.losses_kw)
        drawn = np.add.reduceat(self._drawn, self._starts, axis=1)
        np.negative(drawn[:, 1:], out=snapshot.device_kva)
        np.negative(drawn[:, 0], out=snapshot.source_kva)

    def _read_sound(self, sound: BoolArray) -> None:
        """Fill the rows of the circuits that converged; put the others back where they last did."""
        snapshot, failed = self._snapshot, ~sound
        for env in np.flatnonzero(failed).tolist():
            self._circuits[env].fall_back()
        kept = {name: array[failed].copy() for name, array in vars(snapshot).items()}
        snapshot.v[sound], snapshot.v_pu[sound] = self._v_now[sound], self._level[sound]
        self._read_flows()
        for name, rows in kept.items():
            getattr(snapshot, name)[failed] = rows
