"""When the admittance matrix of one circuit is built, and how much of it; branch flows follow it.

Knows what moved, not why. Equal positions give the same matrix bit for bit, whatever came before.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from powergrid.grid.circuit.flows import BranchFlows
from powergrid.grid.circuit.setpoints import Setpoints
from powergrid.grid.engine import ComplexArray, Engine, Handle


class Admittance:
    """Keep the matrix a function of the switchgear alone.

    The engine puts the setpoints of the moment into what it builds. They change neither the solution nor what is
    read, but the way there: with those of the start, equal positions, setpoints and voltages lead bit for bit to equal
    results, whatever came before.

    Taps and capacitor steps are brought in entry by entry, and the matrix stays factorised but for its numbers. That
    is the matrix that would be built whole where no entry comes or goes with a capacitor: where other branches tie
    all nodes that it ties. All else, and all where that is not so, builds the matrix whole.

    Args:
        engine: The engine that holds the circuit.
        setpoints: What writes loads and devices.
        flows: The branch flows, which hold the branches' own admittances.
        capacitors: Branches that are capacitors.

    Attributes:
        stale: Whether something moved since it was built.
        factorised: Whether it was solved with since it was built whole; only then does it take single entries.
    """

    def __init__(self, engine: Engine, setpoints: Setpoints, flows: BranchFlows, capacitors: Sequence[int]) -> None:
        self._engine, self._setpoints, self._flows = engine, setpoints, flows
        self._ties = flows.find_ties(capacitors)
        self.stale = self.factorised = False
        self._whole = True
        self._branches: list[tuple[int, Handle, Hashable]] = []
        self._known: dict[int, dict[Hashable, ComplexArray]] = {}

    def note_step(self, branch: int, handle: Handle, position: Hashable) -> None:
        """Note that a tap or a capacitor's steps were written, and all that is set there now."""
        self._branches.append((branch, handle, position))
        self.stale = True

    def note_change(self, branch: int, handle: Handle) -> None:
        """Note that anything else changed an element's admittance, or the engine itself did; branch -1 is none."""
        if branch >= 0:
            self._branches.append((branch, handle, None))
            self._known.pop(branch, None)
        else:
            self._known.clear()
        self.stale = self._whole = True

    def update(self) -> None:
        """Bring into the matrix what moved since it was built."""
        if self._whole or not self.factorised or self._engine.y_wants_rebuild:
            self.build()
        else:
            self._engine.update_y()
            self.stale = False
            self.refresh_flows()

    def build(self) -> None:
        """Build the matrix whole."""
        kept = self._setpoints.swap_in_start()
        self._engine.build_y()
        self._setpoints.put_back(kept)
        self._engine.keep_y()
        self.refresh_flows()
        self.stale = self.factorised = False
        self._whole = not self._flows.has_ties(self._ties)

    def refresh_flows(self) -> None:
        """Take changed admittances into the branch flows; the engine makes them with its matrix, not before."""
        for branch, handle, position in self._branches:
            known = self._known.setdefault(branch, {})
            if position not in known:
                found = self._flows.per_kv(self._engine.yprim(handle))
                if position is None:
                    self._flows.refresh(branch, found)
                    continue
                known[position] = found
            self._flows.refresh(branch, known[position])
        self._branches.clear()
