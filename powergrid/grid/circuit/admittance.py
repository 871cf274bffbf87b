"""When the admittance matrix of one circuit is built, and how much of it; and what its branches' admittances are.

Knows what moved, not why. Equal positions give the same matrix bit for bit, whatever came before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.injections import Setpoints
from powergrid.grid.engine import ComplexArray, Engine, Handle
from powergrid.grid.feeder.network import Branches

BoolArray = npt.NDArray[np.bool_]
#: An entry of the matrix: row, column, real and imaginary part [S].
_Entry: TypeAlias = tuple[int, int, float, float]
#: How many positions of a branch are remembered: turns ratios that controls add up differ in the last bit at times.
_MOST_SEEN = 256


class BranchLayout:
    """Where the admittances of one circuit's branches lie in a flat array, block after block.

    Args:
        branches: The branch table.

    Attributes:
        columns: Node of each entry, ground 0, shape (n_entries,).
        row_starts: First entry of each row, and the number of all, shape (n_rows + 1,).
        by_columns: Where each entry is if each block lies column by column, shape (n_entries,).
    """

    def __init__(self, branches: Branches) -> None:
        n_rows = len(branches.row_node)
        sizes = np.diff(np.append(branches.branch_rows, n_rows))
        ends = np.cumsum([0, *(sizes * sizes)])
        self._ends: list[int] = ends.tolist()
        row_sizes = np.repeat(sizes, sizes)  # a row for each conductor, an entry in it for each of its branch
        self.row_starts = np.concatenate([[0], np.cumsum(row_sizes)])
        within = np.arange(self.row_starts[-1]) - np.repeat(self.row_starts[:-1], row_sizes)
        first = np.repeat(np.repeat(branches.branch_rows, sizes), row_sizes)
        self.columns = branches.row_node[(first + within).astype(np.int64)].astype(np.int64)
        row_in_block = np.repeat(np.arange(n_rows) - np.repeat(branches.branch_rows, sizes), row_sizes)
        begin = np.repeat(np.repeat(ends[:-1], sizes), row_sizes)
        self.by_columns = begin + within * np.repeat(row_sizes, row_sizes) + row_in_block

    def entries_of(self, branch: int) -> slice:
        """Return the places of a branch's entries."""
        return slice(self._ends[branch], self._ends[branch + 1])

    def nodes_of(self, branch: int) -> frozenset[int]:
        """Return the nodes of a branch, ground left out."""
        return frozenset(self.columns[self.entries_of(branch)].tolist()) - {0}

    def places_of(self, branch: int, which: BoolArray) -> list[tuple[int, int]]:
        """Return row and column in the circuit's matrix of some of a branch's entries, those to ground left out."""
        size = math.isqrt(len(which))
        nodes = self.columns[self.entries_of(branch)][:size].tolist()
        pairs = itertools.product(nodes, nodes)
        return [pair for pair, wanted in zip(pairs, which.tolist(), strict=True) if wanted and all(pair)]


class Admittance:
    """Keep the matrix a function of the switchgear alone.

    The engine puts the setpoints of the moment into what it builds. They change neither the solution nor what is
    read, but the way there: with those of the start, equal positions, setpoints and voltages lead bit for bit to equal
    results, whatever came before.

    Where taps and capacitor steps come to a position that the matrix was built with before, the entries that it had
    then are put back, and the matrix stays factorised but for its numbers. All else builds it whole: so do positions
    at which an entry comes or goes, as with a capacitor that alone ties two nodes.

    Args:
        engine: The engine that holds the circuit.
        setpoints: What writes loads and devices.
        layout: Where the branches' own admittances lie.
        yprims: Primitive admittance matrices of the branches [S], in the order of the table, as of ``Engine.yprims``.
        observed: Whether the engine itself is asked for currents of branches, as its controls do. It makes a branch's
            own admittance anew only with the whole matrix.

    Attributes:
        entries: Conjugate admittances of all branches [mS], as the layout has them, shape (n_entries,).
        version: Counts up whenever entries change, so that whoever copied them knows.
        stale: Whether something moved since the matrix was built.
        whole: Whether anything but taps and capacitor steps did.
        built: Whether the matrix is as it was built whole, and nothing moved since.
    """

    def __init__(
        self,
        engine: Engine,
        setpoints: Setpoints,
        layout: BranchLayout,
        yprims: ComplexArray,
        *,
        observed: bool,
    ) -> None:
        self._engine, self._setpoints, self._layout, self._observed = engine, setpoints, layout, observed
        self.stale, self.whole, self.built = False, True, False
        self._moved: dict[int, Handle] = {}
        # of each branch that was moved in steps: where it is, the branches with nodes in common, the entries that it
        # has a part in, by positions these in the matrix and its own admittances
        self._position: dict[int, Hashable] = {}
        self._neighbours: dict[int, list[int]] = {}
        self._places: dict[int, list[tuple[int, int]]] = {}
        self._seen: dict[int, dict[Hashable, tuple[list[_Entry], ComplexArray]]] = {}
        self._there: dict[int, list[_Entry]] = {}  # of those put back since the matrix was built
        self.entries = _per_kv(yprims[layout.by_columns])
        self.version = 1

    def note_step(self, branch: int, handle: Handle, position: Hashable) -> None:
        """Note that a tap or a capacitor's steps were written, and all that is set there now."""
        if branch not in self._position:
            nodes = self._layout.nodes_of(branch)
            self._neighbours[branch] = [b for b in self._seen if not nodes.isdisjoint(self._layout.nodes_of(b))]
            for other in self._neighbours[branch]:
                self._neighbours[other].append(branch)
                self._seen[other].clear()
            self._places[branch], self._seen[branch] = [], {}
        self._position[branch], self._moved[branch] = position, handle
        self.stale, self.built = True, False

    def note_change(self, branch: int, handle: Handle) -> None:
        """Note that anything else changed an element's admittance, or the engine itself did; branch -1 is none."""
        nodes = self._layout.nodes_of(branch) if branch >= 0 else None
        for other, seen in self._seen.items():
            if seen and (nodes is None or not nodes.isdisjoint(self._layout.nodes_of(other))):
                seen.clear()
        if branch >= 0:
            self._moved[branch] = handle
        self.demand_build()

    def demand_build(self) -> None:
        """Have the matrix built whole before the next solve."""
        self.stale, self.whole, self.built = True, True, False

    def update(self, *, put_back: bool = True) -> None:
        """Bring into the matrix what moved since it was built; see :meth:`build`."""
        if self.whole or not self._put_back_entries():
            self.build(put_back=put_back)

    def _put_back_entries(self) -> bool:
        """Put the entries into the matrix that it had when what moved was last there; say whether that is known."""
        if self._observed:
            return False
        written: list[_Entry] = []
        for branch in self._moved:
            kept = self._seen[branch].get(self._key(branch))
            if kept is None:
                return False
            entries, own = kept
            # what is there already is left: to write an entry takes 1 us
            there = self._there.get(branch)
            written += [new for new, old in zip(entries, there, strict=True) if new != old] if there else entries
            self._there[branch] = entries
            for other in self._neighbours[branch]:
                self._there.pop(other, None)
            self.entries[self._layout.entries_of(branch)] = own
        if not self._engine.write_entries(written):
            return False
        self.version += 1
        self._moved.clear()
        self._engine.keep_y()
        self.stale = False
        return True

    def _key(self, branch: int) -> Hashable:
        """Return what the entries of a branch depend on that is moved in steps."""
        position = self._position[branch]
        others = self._neighbours[branch]
        return (position, *[self._position[other] for other in others]) if others else position

    def build(self, *, put_back: bool = True) -> None:
        """Build the matrix whole.

        Args:
            put_back: Write the setpoints again that were written before; else that is for the caller.
        """
        self._there.clear()
        self._setpoints.write_start()
        self._engine.build_y()
        if put_back:
            self._setpoints.write_again()
        self._engine.keep_y()
        moved = list(self._moved)
        self.refresh()
        for branch in () if self._observed else moved:
            if branch in self._seen:
                self._remember(branch)
        self.stale, self.whole, self.built = False, False, True

    def refresh(self) -> None:
        """Take over the admittances of branches that changed; the engine makes them with its matrix, not before."""
        for branch, handle in self._moved.items():
            places, seen, key = self._layout.entries_of(branch), self._seen.get(branch), None
            if seen is not None:
                key = self._key(branch)
                if key in seen:
                    self.entries[places] = seen[key][1]
                    continue
            own = self.entries[places] = _per_kv(self._engine.yprim(handle))
            if seen is not None and self._observed:
                if len(seen) >= _MOST_SEEN:
                    seen.clear()
                seen[key] = [], own
        if self._moved:
            self.version += 1
            self._moved.clear()

    def _remember(self, branch: int) -> None:
        """Remember what the matrix has where a branch is now."""
        own, seen, key = self.entries[self._layout.entries_of(branch)], self._seen[branch], self._key(branch)
        if key in seen:
            return
        known = self._places[branch]
        places = self._places[branch] = sorted({*known, *self._layout.places_of(branch, own != 0.0)})
        if len(places) > len(known) or len(seen) >= _MOST_SEEN:
            seen.clear()
        values = self._engine.read_entries(places)
        if values and all(values):  # 0 is an entry that this matrix lacks and others may have
            seen[key] = [(*place, v.real, v.imag) for place, v in zip(places, values, strict=True)], own.copy()


def _per_kv(yprim: ComplexArray) -> ComplexArray:
    """Return a branch's admittance [S] as it stands among the entries."""
    entries: ComplexArray = 1e-3 * yprim.conj().ravel()
    return entries
