"""When the admittance matrix of one circuit is built, and how much of it; and what its branches' admittances are.

Knows what moved, not why. Equal positions give the same matrix bit for bit, whatever came before.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from powergrid.grid.circuit.flows import BranchLayout
from powergrid.grid.circuit.injections import Setpoints
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
        layout: Where the branches' own admittances lie.
        yprims: Primitive admittance matrix of each branch [S], in the order of the table.
        capacitors: Branches that are capacitors.

    Attributes:
        entries: Conjugate admittances of all branches [mS], as the layout has them, shape (n_entries,).
        version: Counts up whenever entries change, so that whoever copied them knows.
        stale: Whether something moved since the matrix was built.
        factorised: Whether it was solved with since it was built whole; only then does it take single entries.
    """

    def __init__(
        self,
        engine: Engine,
        setpoints: Setpoints,
        layout: BranchLayout,
        yprims: Iterable[ComplexArray],
        capacitors: Sequence[int],
    ) -> None:
        self._engine, self._setpoints, self._layout = engine, setpoints, layout
        ties = layout.find_ties(capacitors)
        self._all_tied = all(len(places) for places in ties)
        self._ties = np.concatenate([np.empty(0, dtype=np.int64), *ties])
        self._tie_starts = np.cumsum([0, *map(len, ties)])[:-1].astype(np.int64)
        self.stale = self.factorised = False
        self._whole = self._stepped = True
        self._branches: list[tuple[int, Handle, Hashable]] = []
        self._known: dict[int, dict[Hashable, ComplexArray]] = {}
        self.entries = np.zeros(len(layout.columns), dtype=complex)
        for branch, block in enumerate(yprims):
            self.entries[layout.entries_of(branch)] = _per_kv(block)
        self.version = 1

    def note_step(self, branch: int, handle: Handle, position: Hashable) -> None:
        """Note that a tap or a capacitor's steps were written, and all that is set there now."""
        self._branches.append((branch, handle, position))
        self.stale = self._stepped = True

    def note_change(self, branch: int, handle: Handle) -> None:
        """Note that anything else changed an element's admittance, or the engine itself did; branch -1 is none."""
        if branch >= 0:
            self._branches.append((branch, handle, None))
            self._known.pop(branch, None)
        else:
            self._known.clear()
        self.stale = self._whole = True

    def update(self, *, put_back: bool = True) -> None:
        """Bring into the matrix what moved since it was built; see :meth:`build`."""
        if self._whole or not self.factorised or self._engine.y_wants_rebuild:
            self.build(put_back=put_back)
        else:
            self._engine.update_y()
            self.stale = self._stepped = False
            self._take_over()

    def build(self, *, put_back: bool = True) -> None:
        """Build the matrix whole.

        Args:
            put_back: Write the setpoints again that were written before; else that is for the caller.
        """
        kept = self._setpoints.swap_in_start()
        self._engine.build_y(stepped=self._stepped)
        if put_back:
            self._setpoints.write(kept)
        self._engine.keep_y()
        self._take_over()
        self.stale = self.factorised = self._stepped = False
        self._whole = not self._all_tied  # and then reduceat, which knows no empty slices, is not asked
        if self._all_tied:
            self._whole = not np.logical_or.reduceat(self.entries[self._ties] != 0.0, self._tie_starts).all()

    def refresh(self) -> None:
        """Take over the admittances that changed in a solve in which the feeder's own controls acted."""
        self._stepped = True  # what they moved last may wait for the next matrix
        self._take_over()

    def _take_over(self) -> None:
        """Take over the admittances that changed; the engine makes them with its matrix, not before."""
        for branch, handle, position in self._branches:
            known = self._known.setdefault(branch, {})
            if position is None:
                found = _per_kv(self._engine.yprim(handle))
            elif position in known:
                found = known[position]
            else:
                found = known[position] = _per_kv(self._engine.yprim(handle))
            self.entries[self._layout.entries_of(branch)] = found
            self.version += 1
        self._branches.clear()


def _per_kv(yprim: ComplexArray) -> ComplexArray:
    """Return a branch's admittance [S] as it stands among the entries."""
    entries: ComplexArray = 1e-3 * yprim.conj().ravel()
    return entries
