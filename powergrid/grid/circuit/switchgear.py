"""Switchgear of one compiled circuit: positions of taps, capacitors and switches, written only where they differ.

Knows neither agents nor costs: who may move what, and how often, is a fleet's to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem
from powergrid.grid.circuit.admittance import Admittance
from powergrid.grid.engine import Engine, Handle, IntArray
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.windings import (
    TAPPED_CLASSES,
    Handles,
    Regulator,
    find_regulators,
    read_winding,
)

#: Classes that open lines on their own.
_OPENERS = ("SwtControl", "Relay", "Recloser", "Fuse")


#: Where the positions of each device kind are kept.
_POSITIONS = {"regulator": "taps", "capacitor": "steps_on", "switch": "closed"}


class Switchgear:
    """Move the switchgear of one circuit.

    Args:
        engine: The engine that holds the circuit.
        handles: The circuit's elements.
        network: Its description.
        controlled: ``class.name`` of the capacitors that a control of the feeder moves.
        admittance: The circuit's matrix, which is told what moved.
        tapped: Transformers as ``class.name`` whose taps are moved besides, each with its winding or 0.
        led: Those of ``controlled`` whose control goes by a signal alone.

    Attributes:
        taps: Tap positions from neutral, shape (n_regulators,).
        tap_min, tap_max: Their ranges.
        tap_pu: Turns ratio of each tap [pu].
        steps_on: Steps on of each capacitor, shape (n_capacitors,).
        steps_max: Number of its steps.
        closed: 1 where a switch is closed, shape (n_switches,).
        regulators: The windings that regulator controls move, and after them those of ``tapped`` that none moves.
        capacitors: Handle, branch and the steps' states as compiled of each capacitor.
    """

    def __init__(
        self,
        engine: Engine,
        handles: Handles,
        network: Network,
        controlled: Collection[str],
        admittance: Admittance,
        tapped: Iterable[tuple[str, int]] = (),
        led: Collection[str] = (),
    ) -> None:
        self._engine, self._network, self._controlled, self._admittance = engine, network, controlled, admittance
        self._opened = frozenset(controlled).difference(led)
        branch_index = network.branch_index
        self._tap_properties = {
            name: (engine.property_index(name, "Wdg"), engine.property_index(name, "Tap")) for name in TAPPED_CLASSES
        }
        self._handles = handles
        self.regulators = self._find_windings(tapped)
        of = [branch_index[r.element] for r in self.regulators]
        self._tapped = [
            (r.handle, r.winding, of[i], [j for j in range(len(of)) if of[j] == of[i] and j != i],
             self._tap_properties[r.class_name])
            for i, r in enumerate(self.regulators)
        ]  # fmt: skip
        self._active_winding: dict[int, int] = {}
        self.tap_min = np.array([r.lowest for r in self.regulators], dtype=np.int64)
        self.tap_max = np.array([r.highest for r in self.regulators], dtype=np.int64)
        self.tap_pu = np.array(self._read_tap_pu(), dtype=np.float64)
        self.taps = self.read_taps()
        self.capacitors = [
            (handle, branch_index[f"capacitor.{name}"], engine.get_ints(handle, "Capacitor", "States"))
            for name, handle in handles["Capacitor"].items()
        ]
        self._open_compiled = [engine.open_places(handle) for handle, _, _ in self.capacitors]
        self.steps_on = np.array([self._steps_of(handle) for handle, _, _ in self.capacitors], dtype=np.int64)
        self._steps_compiled = self.steps_on.copy()
        self.steps_max = np.array([len(states) for _, _, states in self.capacitors], dtype=np.int64)
        lines = handles["Line"]
        self._lines = list(lines.values())
        opened = engine.open_among(self._lines)
        self._switches = [
            (handle, branch_index[f"line.{name}"], engine.open_places(handle) if is_open else ())
            for (name, handle), is_open in zip(lines.items(), opened, strict=True)
        ]
        closed = [not (is_open and engine.is_open(handle)) for handle, is_open in zip(self._lines, opened, strict=True)]
        self.closed = np.array(closed, dtype=np.int64)
        self._closed_compiled = self.closed.copy()
        self._lines_may_open = any(engine.handles(name) for name in _OPENERS)
        self._others = list(self._find_others()) if self._lines_may_open else []
        self.keep_start()

    def _find_windings(self, tapped: Iterable[tuple[str, int]]) -> tuple[Regulator, ...]:
        """Find the windings to be moved, and note where those of ``tapped`` are among them."""
        found = find_regulators(self._engine, self._handles)
        self._place_of: dict[tuple[str, int], int] = {}
        self._windings: dict[str, list[tuple[int, Regulator]]] = {}
        for place, of_control in enumerate(found):
            self._windings.setdefault(of_control.element, []).append((place, of_control))
        for element, winding in tapped:
            place = self._find_winding(element, winding)
            if place < 0:
                regulator = read_winding(self._engine, self._handles, element, winding)
                if isinstance(regulator, str):  # which is told with all else that is wrong with the devices
                    continue
                place = self._find_winding(element, regulator.winding)
                if place < 0:
                    place = len(found)
                    found.append(regulator)
                    self._windings.setdefault(regulator.element, []).append((place, regulator))
            self._place_of[element, winding] = place
        return tuple(found)

    def _find_others(self) -> Iterator[tuple[int, Handle]]:
        """Yield branch and handle of what else than lines the feeder's own controls may open."""
        for opener in _OPENERS:
            for handle in self._engine.handles(opener).values():
                class_name, name = self._engine.get_reference(handle, opener, "SwitchedObj")
                branch = self._network.branch_index.get(f"{class_name}.{name}".lower())
                if branch is not None and class_name != "Line":
                    yield branch, self._handles[class_name][name]

    def find_regulator(self, element: str, winding: int = 0) -> int:
        """Return the place of a winding among :attr:`regulators`, -1 where it has none.

        Args:
            element: ``class.name`` of a regulator control or of a transformer, lower case.
            winding: Number of the winding of a transformer; 0 is the one with a control, or the one that is tapped.
        """
        class_name, _, name = element.partition(".")
        if class_name == "regcontrol":
            found = self._network.find("regulator control", name)
            return -1 if isinstance(found, Problem) else found
        asked = (element, winding)
        return self._place_of[asked] if asked in self._place_of else self._find_winding(element, winding)

    def _find_winding(self, element: str, winding: int) -> int:
        """Return the place of a transformer's winding, of the first with a control where it is 0; -1 if it has none."""
        for place, regulator in self._windings.get(element, ()):
            if winding == regulator.winding or (winding == 0 and regulator.control):
                return place
        return -1

    def find_winding_problem(self, element: str, winding: int | None) -> str:
        """Say why a transformer's winding cannot be moved, nothing where it can."""
        found = read_winding(self._engine, self._handles, element, winding or 0)
        return found if isinstance(found, str) else ""

    def keep_start(self) -> None:
        """Take the taps as they are for those that episodes start from."""
        self._turns = []
        for i, regulator in enumerate(self.regulators):
            low, start = int(self.tap_min[i]), int(self.taps[i])
            turns = [
                float(regulator.neutral_pu + regulator.step_pu * tap) for tap in range(low, int(self.tap_max[i]) + 1)
            ]
            if 0 <= start - low < len(turns):
                turns[start - low] = float(self.tap_pu[i])  # which need not lie on a position exactly
            self._turns.append((low, turns))

    def positions(self, kind: str) -> IntArray:
        """Return the positions of all switchgear of a device kind; the circuit's own array."""
        array: IntArray = getattr(self, _POSITIONS[kind])
        return array

    # -- writing

    def move(self, kind: str, i: int, goal: int) -> None:
        """Move one that is not there yet.

        Args:
            kind: Its device kind.
            i: Its place among :meth:`positions`.
            goal: Tap from neutral, steps on, or 0 open and 1 closed; taps and steps are held to their range.
        """
        _MOVERS[kind](self, i, goal)

    def write_taps(self, taps: IntArray) -> None:
        """Move the regulators that are not yet there to a position in their range, shape (n_regulators,)."""
        for i in _find_moved(taps, self.taps):
            self.move("regulator", i, int(taps[i]))

    def _move_tap(self, i: int, tap: int) -> None:
        low, turns = self._turns[i]
        tap = min(max(tap, low), low + len(turns) - 1)
        if tap != self.taps[i]:
            self._write_tap(i, turns[tap - low])
            self.taps[i] = tap

    def _write_tap(self, i: int, tap_pu: float) -> None:
        handle, tap_property = self._choose_winding(i)
        self._engine.set_float(handle, tap_property, tap_pu)
        self._note_tap(i, tap_pu)

    def _choose_winding(self, i: int) -> tuple[Handle, int]:
        """Let a transformer's tap be that of a winding; return its handle and the property's number."""
        handle, winding, branch, _, (winding_property, tap_property) = self._tapped[i]
        if self._active_winding.get(branch) != winding:  # nothing else moves it once all is built
            self._engine.set_int(handle, winding_property, winding)
            self._active_winding[branch] = winding
        return handle, tap_property

    def _note_tap(self, i: int, tap_pu: float) -> None:
        handle, _, branch, others, _ = self._tapped[i]
        self.tap_pu[i] = tap_pu
        position = (tap_pu, *self.tap_pu[others].tolist()) if others else tap_pu
        self._admittance.note_step(branch, handle, (i, position))

    def write_steps(self, steps_on: IntArray) -> None:
        """Switch the capacitors that differ to a number of steps.

        Args:
            steps_on: Steps on, held to ``0 .. steps_max``, shape (n_capacitors,).
        """
        for i in _find_moved(steps_on, self.steps_on):
            self.move("capacitor", i, int(steps_on[i]))

    def _move_steps(self, i: int, on: int) -> None:
        handle, branch, compiled = self.capacitors[i]
        on = min(max(on, 0), len(compiled))
        if on == self.steps_on[i]:
            return
        as_compiled = on == self._steps_compiled[i]  # and so the very steps that are on there
        states = compiled.tolist() if as_compiled else [int(step < on) for step in range(len(compiled))]
        name = self._network.capacitors[i]
        self._engine.set_capacitor_states(name, states)
        # A capacitor control opens the terminal too, and goes by it; without one it has to be closed again.
        is_open = not on and f"capacitor.{name}" in self._opened
        if not self._engine.is_open(handle) if is_open else self._engine.any_open(handle):
            self._engine.set_open(handle, is_open=is_open)
        if as_compiled and not is_open:
            self._engine.open_at(handle, self._open_compiled[i])
            is_open = bool(self._open_compiled[i])
        self._admittance.note_step(branch, handle, (*states, is_open))
        self.steps_on[i] = on

    def notice_lines(self) -> None:
        """Take over which lines are closed after others than :meth:`write_closed` moved them."""
        self.closed[:] = self._read_closed()

    def write_closed(self, closed: IntArray) -> None:
        """Open (0) or close (1) the switches that differ, shape (n_switches,).

        A line that is open in single phases as compiled returns to just that in its compiled position.
        """
        for i in _find_moved(closed, self.closed):
            self.move("switch", i, int(closed[i]))

    def _move_switch(self, i: int, closed: int) -> None:
        handle, branch, places = self._switches[i]
        self._engine.set_open(handle, is_open=False)
        if closed == self._closed_compiled[i]:
            self._engine.open_at(handle, places)
        elif not closed:
            self._engine.set_open(handle, is_open=True)
        self._admittance.note_change(branch, handle)
        self.closed[i] = closed

    def follow(self) -> None:
        """Take over what the feeder's own controls moved."""
        for i, tap_pu in enumerate(self._read_tap_pu()):
            if tap_pu != self.tap_pu[i]:
                self._note_tap(i, tap_pu)
                self.taps[i] = self._tap_at(i, tap_pu)
        if self._controlled:
            for i, (handle, branch, _) in enumerate(self.capacitors):
                on = self._steps_of(handle)
                if on != self.steps_on[i]:
                    self._admittance.note_change(branch, handle)
                    self.steps_on[i] = on
        if self._lines_may_open:
            for branch, handle in [*((b, h) for h, b, _ in self._switches), *self._others]:
                self._admittance.note_change(branch, handle)
            self.closed[:] = self._read_closed()

    def count_moves(self, before: Mapping[str, npt.NDArray[Any]]) -> int:
        """Count the positions by which all is away from a :meth:`state`."""
        moves = 0
        for name in _POSITIONS.values():
            now = getattr(self, name)
            if now.tobytes() != before[name].tobytes():  # most are as they were, and this takes 0.2 us, a sum 4
                moves += int(np.abs(now - before[name]).sum())
        return moves

    # -- reading

    def find_positions(
        self, taps: Mapping[str, int], steps_on: Mapping[str, int]
    ) -> tuple[list[IntArray], list[Problem]]:
        """Read positions by name.

        Args:
            taps: Tap position from neutral by regulator control.
            steps_on: Steps on by capacitor.

        Returns:
            Taps and steps with these in place of the present ones, and the problems: unknown names, positions out of
            range.
        """
        problems: list[Problem] = []
        new = [self.taps.copy(), self.steps_on.copy()]
        for given, values, low, high, what in (
            (taps, new[0], self.tap_min, self.tap_max, "regulator control"),
            (steps_on, new[1], np.zeros_like(self.steps_max), self.steps_max, "capacitor"),
        ):
            for name, value in given.items():
                i = self._network.find(what, name)
                if isinstance(i, Problem):
                    problems.append(i)
                    continue
                values[i] = value
                if not low[i] <= value <= high[i]:
                    outside = f"{value} is outside {low[i]}..{high[i]}"
                    problems.append(Problem("bad-value", f"{what} {name!r}", outside))
        return new, problems

    def read_taps(self) -> IntArray:
        """Read the regulators' tap positions from the engine, shape (n_regulators,)."""
        taps = [self._tap_at(i, tap_pu) for i, tap_pu in enumerate(self._read_tap_pu())]
        return np.array(taps, dtype=np.int64)

    def _tap_at(self, i: int, tap_pu: float) -> int:
        """Return the position from neutral of a turns ratio."""
        regulator = self.regulators[i]
        return round((tap_pu - regulator.neutral_pu) / regulator.step_pu)

    def _read_tap_pu(self) -> list[float]:
        return [self._engine.get_number(*self._choose_winding(i)) for i in range(len(self.regulators))]

    def _steps_of(self, capacitor: Handle) -> int:
        if self._engine.is_open(capacitor):
            return 0
        return int(self._engine.get_ints(capacitor, "Capacitor", "States").sum())

    def _read_closed(self) -> IntArray:
        return np.array(self._engine.closed_among(self._lines), dtype=np.int64)

    # -- state

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copy all positions."""
        return {
            "taps": self.taps.copy(),
            "tap_pu": self.tap_pu.copy(),
            "steps_on": self.steps_on.copy(),
            "closed": self.closed.copy(),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put a :meth:`state` back."""
        for i in _find_moved(state["tap_pu"], self.tap_pu):
            self._write_tap(i, float(state["tap_pu"][i]))
        self.taps[:] = state["taps"]
        self.write_steps(state["steps_on"])
        self.write_closed(state["closed"])


def read_positions(engine: Engine, handles: Handles) -> dict[str, npt.NDArray[Any]]:
    """Return where the regulators and capacitors of a compiled circuit stand, as in :meth:`Switchgear.state`."""
    regulators = find_regulators(engine, handles)
    taps = [engine.get_floats(r.handle, r.class_name, "Taps")[r.winding - 1] for r in regulators]
    steps = [engine.get_ints(handle, "Capacitor", "States").sum() for handle in handles["Capacitor"].values()]
    return {"tap_pu": np.array(taps), "steps_on": np.array(steps, dtype=np.int64)}


def _find_moved(wanted: npt.NDArray[Any], now: npt.NDArray[Any]) -> Sequence[int]:
    """Return the places where positions differ; mostly none, which is soon told."""
    away = wanted != now
    found: list[int] = away.nonzero()[0].tolist() if np.count_nonzero(away) else []
    return found


#: What moves each device kind; not kept by an object, which would then refer to itself and live until collected.
_MOVERS = {"regulator": Switchgear._move_tap, "capacitor": Switchgear._move_steps, "switch": Switchgear._move_switch}
