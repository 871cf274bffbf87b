"""Switch positions that keep a network radial: what is asked, made feasible; knows no engine and no time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from powergrid.grid.outages.connectivity import Connectivity, Topology

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Reconfiguration:
    """Keep switches where they are whose move would close a loop, or take the voltage off load.

    Args:
        connectivity: Answers what hangs together.
        switches: Branch of each switch, shape (n_switches,).
        max_loops: Loops that there may be.
        keep_served: Whether load that is fed stays so.
    """

    def __init__(self, connectivity: Connectivity, switches: IntArray, max_loops: int, *, keep_served: bool) -> None:
        self._connectivity, self._switches = connectivity, switches
        self._max_loops, self._keep_served = max_loops, keep_served

    def project(self, before: IntArray, asked: IntArray, closed: BoolArray, faulted: IntArray) -> IntArray:
        """Return the positions nearest to those asked that are feasible.

        Switches that offend stay as they were, in the order of the table: first closings, the last one first, then
        openings, the first one first.

        Args:
            before: Positions before, shape (n_switches,).
            asked: Positions asked for, shape (n_switches,).
            closed: Whether each branch is closed; the switches' entries are not read, shape (n_branches,).
            faulted: Nodes with a fault on, shape (n_faulted,).

        Returns:
            Feasible positions, shape (n_switches,).
        """
        positions = asked.copy()
        now = self._look(positions, closed, faulted)
        for i in np.flatnonzero(asked > before)[::-1].tolist():
            if now.loops <= self._max_loops:
                break
            positions[i] = 0
            kept = self._look(positions, closed, faulted)
            if kept.loops < now.loops:
                now = kept
            else:
                positions[i] = 1
        if self._keep_served:
            dead = self._look(before, closed, faulted).dead_share
            for i in np.flatnonzero(asked < before).tolist():
                if not (now.dead_share > dead).any():
                    break
                positions[i] = 1
                kept = self._look(positions, closed, faulted)
                if kept.loops <= self._max_loops and kept.dead_share.sum() < now.dead_share.sum():
                    now = kept
                else:
                    positions[i] = 0
        return positions

    def may_close(self, branch: int, closed: BoolArray) -> bool:
        """Whether one more branch can close and the network stay radial; ``closed`` has all entries."""
        more = closed.copy()
        more[branch] = True
        return self._connectivity.look(more).loops <= max(self._max_loops, self._connectivity.look(closed).loops)

    def _look(self, positions: IntArray, closed: BoolArray, faulted: IntArray) -> Topology:
        at = closed.copy()
        at[self._switches] = positions.astype(bool)
        return self._connectivity.look(at, faulted)
