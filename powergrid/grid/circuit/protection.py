"""Fuses, relays and reclosers that act in one circuit: what they remember, and the conductors that they opened.

They remember beyond a solve that they have tripped, and open single phases, which a switch's position does not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.engine import Engine, Handle
from powergrid.grid.feeder.network import FeederControl

_CLASSES = ("Fuse", "Relay", "Recloser")


class Protection:
    """Put the protection that acts in a circuit, and the lines that it opens, where they were.

    Args:
        engine: The engine that holds the circuit.
        controls: The feeder's controls that act.
        lines: Handle of each line by name.
        branch_index: Branch by ``class.name`` in lower case.
        note_moved: Is told branch and handle of what changed.
    """

    def __init__(
        self,
        engine: Engine,
        controls: Sequence[FeederControl],
        lines: Mapping[str, Handle],
        branch_index: Mapping[str, int],
        note_moved: Callable[[int, Handle], None],
    ) -> None:
        acting = [control for control in controls if control.class_name in _CLASSES]
        self._engine, self._note_moved = engine, note_moved
        self._controls = [(control.class_name, control.name) for control in acting]
        moved = dict.fromkeys(target for control in acting for target in control.targets)
        names = [target for target in moved if target.startswith("line.") and target[5:] in lines]
        self._lines = [(branch_index[name], lines[name[5:]]) for name in names]
        sizes = [engine.terminals(handle)[0] * engine.phases(handle) for _, handle in self._lines]
        self._shape = (len(sizes), max(sizes, default=0))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copy which conductors of the lines are open, terminal by terminal; nothing where no protection acts."""
        if not self._controls:
            return {}
        is_open = np.zeros(self._shape, dtype=np.bool_)
        for row, (_, handle) in zip(is_open, self._lines, strict=True):
            phases = self._engine.phases(handle)
            for terminal, phase in self._engine.open_places(handle):
                row[(terminal - 1) * phases + phase - 1] = True
        return {"open_conductors": is_open}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Make the protection forget, and put a :meth:`state` back; say whether there is any.

        Call before the positions of switches are written.
        """
        if not self._controls:
            return False
        before = self.state()["open_conductors"]
        for class_name, name in self._controls:
            self._engine.reset_protection(class_name, name)
        for row, (branch, handle), was in zip(state["open_conductors"], self._lines, before, strict=True):
            phases = self._engine.phases(handle)
            self._engine.set_open(handle, is_open=False)
            places = [(int(i) // phases + 1, int(i) % phases + 1) for i in np.flatnonzero(row)]
            self._engine.open_at(handle, places)
            if not np.array_equal(row, was):
                self._note_moved(branch, handle)
        return True
