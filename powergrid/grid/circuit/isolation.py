"""Take elements of a compiled circuit out of service and put them back as they were compiled.

For what switches of the feeder do not do: faults, transformers and generating elements. Costs nothing until used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from powergrid.grid.engine import Engine, Handle
from powergrid.grid.feeder.windings import Handles

#: Properties that make an element of a class generate, in the order in which they are written.
_GENERATING = {"Generator": ("kW", "kvar"), "PVSystem": ("Irradiance",)}

#: What a state holds.
_KEYS = ("opened", "struck", "tripped")

IntArray = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]


class Isolation:
    """Open elements and trip generating ones.

    Args:
        engine: The engine that holds the circuit.
        handles: The circuit's elements.
        faults: Names of the faults in it, open as compiled.
        branch_index: Branch by ``class.name`` in lower case.
        note_moved: Is told branch, -1 where it is none, and handle of what changed.
    """

    def __init__(
        self,
        engine: Engine,
        handles: Handles,
        faults: Iterable[str],
        branch_index: Mapping[str, int],
        note_moved: Callable[[int, Handle], None],
    ) -> None:
        self._engine, self._branch_index, self._note_moved = engine, branch_index, note_moved
        self._handles = {
            f"{class_name}.{name}".lower(): (class_name, handle)
            for class_name, of_class in handles.items()
            for name, handle in of_class.items()
        }
        known = engine.handles("Fault")
        self._faults = {f"fault.{name}": known[name] for name in faults}
        self._struck: frozenset[str] = frozenset()
        self._opened: dict[str, tuple[tuple[int, int], ...]] = {}  # where each was open as compiled
        self._tripped: dict[str, list[float]] = {}  # what each generated as compiled

    def write(
        self, opened: Iterable[str], struck: Iterable[str] | None = None, tripped: Iterable[str] | None = None
    ) -> None:
        """Bring about which elements are open, which faults are on and which generating elements stand still.

        Args:
            opened: ``class.name`` of the elements that are open.
            struck: ``fault.name`` of the faults that are on; those that are if not given.
            tripped: ``class.name`` of the generating elements that deliver nothing; those that do if not given.
        """
        opened = frozenset(opened)
        struck = self._struck if struck is None else frozenset(struck)
        tripped = self._tripped.keys() if tripped is None else frozenset(tripped)
        for name in sorted(self._struck ^ struck):
            self._engine.set_open(self._faults[name], is_open=name not in struck)
            self._note_moved(-1, self._faults[name])
        self._struck = struck
        for name in sorted(self._opened.keys() ^ opened):
            _, handle = self._handles[name]
            if name in opened:
                self._opened[name] = self._engine.open_places(handle)
                self._engine.set_open(handle, is_open=True)
            else:
                self._engine.set_open(handle, is_open=False)
                self._engine.open_at(handle, self._opened.pop(name))
            self._note_moved(self._branch_index.get(name, -1), handle)
        for name in sorted(self._tripped.keys() ^ tripped):
            class_name, handle = self._handles[name]
            keys = _GENERATING[class_name]
            if name in tripped:
                self._tripped[name] = [self._engine.get_float(handle, class_name, key) for key in keys]
                values = [0.0] * len(keys)
            else:
                values = self._tripped.pop(name)
            for key, value in zip(keys, values, strict=True):
                self._engine.set_float(handle, self._engine.property_index(class_name, key), value)
            self._note_moved(-1, handle)

    def nodes_at(self, name: str) -> IntArray:
        """Return the indices of the nodes that an element ``class.name`` is tied to."""
        refs = self._engine.node_ref(self._handles[name][1])
        return refs[refs > 0] - 1

    def state(self) -> dict[str, Names]:
        """Return what is out of service."""
        lists = {"opened": self._opened, "struck": self._struck, "tripped": self._tripped}
        return {key: np.array(sorted(names), dtype=np.str_) for key, names in lists.items()}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Put a :meth:`state` back."""
        if not (self._opened or self._struck or self._tripped or any(state[key].size for key in _KEYS)):
            return  # as at nearly every reset: nothing was out of service, and nothing is
        self.write(*([str(name) for name in state[key]] for key in _KEYS))
