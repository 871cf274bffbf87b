"""Elements of a compiled circuit out of service: what events take out, and what the feeder's own protection opened.

For what switches of the feeder do not do: faults, transformers, generating elements, single phases. Costs nothing until
used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.engine import Engine, Handle
from powergrid.grid.feeder.compile import BRANCH_CLASSES
from powergrid.grid.feeder.network import FeederControl, Network
from powergrid.grid.feeder.windings import Handles

#: Properties that make an element of a class generate, in the order in which they are written.
_GENERATING = {"Generator": ("kW", "kvar"), "PVSystem": ("Irradiance",)}

#: Protection of the feeder's own, which acts beyond the solve in which it trips.
PROTECTION = ("Fuse", "Relay", "Recloser")
#: What a state holds.
_KEYS = ("opened", "struck", "tripped")

IntArray = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]


def find_generating(writes: Iterable[tuple[str, str, Sequence[str]]]) -> dict[str, list[tuple[int, int]]]:
    """Return which writes, and which of their columns, make each element generate, by ``class.name`` in lower case.

    Args:
        writes: Class, property and names of elements of each write.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for place, (class_name, key, names) in enumerate(writes):
        if key in _GENERATING.get(class_name, ()):
            for column, name in enumerate(names):
                found.setdefault(f"{class_name}.{name}".lower(), []).append((place, column))
    return found


def reset_protection(engine: Engine, handles: Handles) -> bool:
    """Have all protection put what it opens where it normally is, and forget that it tripped; say whether any had.

    As the engine does where its mode is set.
    """
    known = {f"{c}.{name}".lower(): handle for c in BRANCH_CLASSES for name, handle in handles[c].items()}
    moved = False
    for class_name in PROTECTION:
        for name, handle in engine.handles(class_name).items():
            owner, opened = engine.get_reference(handle, class_name, "SwitchedObj")
            branch = known.get(f"{owner}.{opened}".lower())
            before = engine.open_places(branch) if branch is not None else ()
            engine.reset_protection(class_name, name)
            moved |= branch is not None and engine.open_places(branch) != before
    return moved


@dataclass(frozen=True)
class Fault:
    """A short circuit that may strike: a resistance at a bus.

    Attributes:
        bus: Bus name.
        phases: Phase numbers.
        r_ohm: Resistance in each phase [ohm].
        grounded: To ground; else between the two phases.
    """

    bus: str
    phases: tuple[int, ...]
    r_ohm: float
    grounded: bool = True


def place_faults(engine: Engine, faults: Sequence[Fault]) -> list[str]:
    """Build faults into a compiled circuit, open until they strike; return each element's name, lower case."""
    names = []
    for number, fault in enumerate(faults):
        name = f"powergrid_{number}"
        if fault.grounded:
            nodes = ".".join(map(str, fault.phases))
            ends = f'bus1="{fault.bus}.{nodes}" phases={len(fault.phases)}'
        else:
            first, second = fault.phases
            ends = f'bus1="{fault.bus}.{first}" bus2="{fault.bus}.{second}" phases=1'
        engine.command(f"new Fault.{name} {ends} r={fault.r_ohm!r}")
        engine.set_open(engine.handles("Fault")[name], is_open=True)
        names.append(name)
    return names


class OutOfService:
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

    @property
    def tripped(self) -> Iterable[str]:
        """``class.name`` of the generating elements that deliver nothing."""
        return self._tripped.keys()

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


class Protection:
    """Put the protection that acts in a circuit, and the branches that it opens, where they were.

    It remembers beyond a solve that it has tripped, and opens single phases, which a switch's position does not tell.
    What it counts, and what it waits for, no state holds.

    Args:
        engine: The engine that holds the circuit.
        controls: The feeder's controls that act.
        handles: The circuit's elements.
        network: What it consists of.
        note_moved: Is told branch and handle of what changed.

    Attributes:
        replayed: Whether it comes to know what it knew by playing an episode once more, so that it must not forget
            where a :meth:`state` is put back.
    """

    replayed = False

    def __init__(
        self,
        engine: Engine,
        controls: Sequence[FeederControl],
        handles: Handles,
        network: Network,
        note_moved: Callable[[int, Handle], None],
    ) -> None:
        acting = [control for control in controls if control.class_name in PROTECTION]
        self._engine, self._note_moved, self._branches = engine, note_moved, network.branches
        self._controls = [(control.class_name, control.name) for control in acting]
        moved = dict.fromkeys(target for control in acting for target in control.targets)
        known = {f"{c}.{name}".lower(): handle for c in BRANCH_CLASSES for name, handle in handles[c].items()}
        self._opened = [(network.branch_index[name], known[name]) for name in moved if name in known]
        self._sizes = [engine.terminals(handle) for _, handle in self._opened]
        rows = [network.branches.branch_rows[branch] + np.arange(n * width)
                for (branch, _), (n, width) in zip(self._opened, self._sizes, strict=True)]  # fmt: skip
        self._rows = np.concatenate([np.empty(0, dtype=np.int64), *rows])

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copy which conductors of the branches are open, terminal by terminal; nothing where no protection acts."""
        return (
            {"open_conductors": np.concatenate([np.empty(0, dtype=np.bool_), *self._read()])} if self._controls else {}
        )

    def _read(self) -> list[npt.NDArray[np.bool_]]:
        """Return which conductors of each branch are open."""
        found = []
        for (_, handle), (n, width) in zip(self._opened, self._sizes, strict=True):
            row = np.zeros(n * width, dtype=np.bool_)
            for terminal, phase in self._engine.open_places(handle):
                row[(terminal - 1) * width + phase - 1] = True
            found.append(row)
        return found

    def open_rows(self) -> IntArray:
        """Return the rows of the network's branches whose conductor is open, those open as compiled among them."""
        compiled = self._branches.open_rows
        if not self._opened:
            return compiled
        others = compiled[~np.isin(compiled, self._rows)]
        return np.concatenate([others, self._rows[np.concatenate(self._read())]])

    def forget(self) -> None:
        """Make the protection forget; its branches are where they normally are then."""
        before = self._read()
        self._reset()
        for (branch, handle), row, was in zip(self._opened, self._read(), before, strict=True):
            if not np.array_equal(row, was):
                self._note_moved(branch, handle)

    def _reset(self) -> None:
        for class_name, name in self._controls:
            self._engine.reset_protection(class_name, name)

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Put a :meth:`state` back, and make the protection forget unless it is replayed; say whether there is any.

        Call before the positions of switches are written.
        """
        if not self._controls:
            return False
        before = self._read()
        if self.replayed:
            if np.array_equal(np.concatenate(before), state["open_conductors"]):
                return True
        else:
            self._reset()
        rows = np.split(state["open_conductors"], np.cumsum([len(row) for row in before])[:-1])
        for row, (branch, handle), (_, width), was in zip(rows, self._opened, self._sizes, before, strict=False):
            self._engine.set_open(handle, is_open=False)
            places = [(int(i) // width + 1, int(i) % width + 1) for i in np.flatnonzero(row)]
            self._engine.open_at(handle, places)
            if not np.array_equal(row, was):
                self._note_moved(branch, handle)
        return True
