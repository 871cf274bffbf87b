"""Windings whose tap can be moved: those of regulator controls, and those that none moves.

Reads a compiled circuit; moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from powergrid.grid.engine import Engine, Handle

Handles = Mapping[str, Mapping[str, Handle]]

#: Classes of elements with tapped windings.
TAPPED_CLASSES = ("Transformer", "AutoTrans")
#: What says how far a tap goes, and what OpenDSS takes where a file says nothing of it.
_RANGE = ("MinTap", "MaxTap", "NumTaps")
_DEFAULT_RANGE = (0.9, 1.1, 32)
_LOW_VOLTAGE_KV = 1.0
_SECONDARY = 2


@dataclass(frozen=True)
class Regulator:
    """A tapped winding.

    Attributes:
        control: Name of the regulator control that moves it, empty where none does.
        transformer: Name of the transformer.
        class_name: ``Transformer`` or ``AutoTrans``.
        handle: The transformer.
        winding: Number of the tapped winding.
        neutral_pu: Tap at position 0 [pu].
        step_pu: Change a position [pu].
        lowest: Lowest position.
        highest: Highest position.
    """

    control: str
    transformer: str
    class_name: str
    handle: Handle
    winding: int
    neutral_pu: float
    step_pu: float
    lowest: int
    highest: int


@dataclass(frozen=True)
class TapChanger:
    """The tapped winding of a transformer that no regulator control moves.

    Attributes:
        regulator: The winding.
        kva: Rating of the transformer.
        note: Why it is not taken for one that changes taps under load; empty where it is.
    """

    regulator: Regulator
    kva: float
    note: str


def find_regulators(engine: Engine, handles: Handles) -> list[Regulator]:
    """Find the windings that the feeder's regulator controls move, each once, in the order of the controls."""
    found: dict[tuple[str, str, int], Regulator] = {}
    for control, handle in handles["RegControl"].items():
        tapped, name = find_tapped(handles, engine.get_text(handle, "RegControl", "Transformer"))
        if tapped:
            # TapWinding is not above 0 where the file does not give it: then the winding that is watched moves.
            winding = max(0, engine.get_int(handle, "RegControl", "TapWinding"))
            winding = winding or engine.get_int(handle, "RegControl", "Winding")
            if (tapped, name, winding) not in found:
                taps = _Taps.read(engine, tapped, handles[tapped][name])
                found[tapped, name, winding] = taps.describe(tapped, name, winding, control)
    return list(found.values())


def find_tapped(handles: Handles, written: str) -> tuple[str, str]:
    """Return class and name of a transformer named with or without its class; an empty class where there is none."""
    class_name, _, name = written.lower().rpartition(".")
    there = [c for c in TAPPED_CLASSES if name in handles[c] and class_name in ("", c.lower())]
    return (there[0] if there else ""), name


def read_winding(engine: Engine, handles: Handles, element: str, winding: int) -> Regulator | str:
    """Read a winding that no regulator control moves.

    Args:
        engine: The engine that holds the circuit.
        handles: The circuit's elements.
        element: ``class.name`` of the transformer.
        winding: Number of the winding; 0 is the one whose tap is off nominal, else the one with a range of its own,
            else the secondary.

    Returns:
        The winding, or why its tap cannot be moved.
    """
    class_name, name = find_tapped(handles, element)
    if not class_name:
        return "it is not in the feeder"
    taps = _Taps.read(engine, class_name, handles[class_name][name])
    if winding > len(taps.tap):
        return f"it has {len(taps.tap)} windings, so no winding {winding}"
    winding = winding or taps.pick_winding()
    problem = taps.find_problem(winding)
    return problem or taps.describe(class_name, name, winding, "")


def find_tap_changers(engine: Engine, handles: Handles) -> Iterator[TapChanger]:
    """Return every transformer with taps of which no regulator control moves any, with its most likely winding.

    OpenDSS gives every transformer 33 taps, so most that have some in the model have none, or are set off load. Those
    are taken for tap changers under load that join medium voltages and say so: they have a tap range of their own, or
    stand off the nominal tap, or have the same voltage on both sides, which only a voltage regulator has.
    """
    regulated = {(r.class_name, r.transformer) for r in find_regulators(engine, handles)}
    for class_name in TAPPED_CLASSES:
        for name, handle in handles[class_name].items():
            if (class_name, name) not in regulated:
                taps = _Taps.read(engine, class_name, handle)
                winding = taps.pick_winding()
                if not taps.find_problem(winding):
                    kva = float(engine.get_floats(handle, class_name, "kVAs")[0])
                    doubt = _find_doubt(engine, class_name, taps)
                    yield TapChanger(taps.describe(class_name, name, winding, ""), kva, doubt)


def _find_doubt(engine: Engine, class_name: str, taps: _Taps) -> str:
    """Say why a transformer is not taken for a tap changer under load; nothing where it is."""
    kvs = engine.get_floats(taps.handle, class_name, "kVs")[:2]
    if min(kvs) < _LOW_VOLTAGE_KV:
        return "below 1 kV, where taps are set off load"
    if any(taps.own_range) or any(tap != 1.0 for tap in taps.tap) or engine.is_written(taps.handle, class_name, _RANGE):
        return ""
    if class_name == "Transformer" and abs(kvs[1] - kvs[0]) < 0.01 * kvs[0]:
        return ""
    return "the model says nothing of their taps"


class _Taps(NamedTuple):
    """The taps of a transformer, winding by winding: where each stands, lowest and highest [pu], and their number."""

    handle: Handle
    tap: list[float]
    low: list[float]
    high: list[float]
    steps: list[int]

    @classmethod
    def read(cls, engine: Engine, class_name: str, handle: Handle) -> _Taps:
        """Read the taps of a transformer."""
        tap, low, high = (engine.get_floats(handle, class_name, key).tolist() for key in ("Taps", "MinTap", "MaxTap"))
        return cls(handle, tap, low, high, engine.get_ints(handle, class_name, "NumTaps").tolist())

    @property
    def own_range(self) -> list[bool]:
        """Whether each winding has another range than OpenDSS gives it."""
        return [written != _DEFAULT_RANGE for written in zip(self.low, self.high, self.steps, strict=True)]

    def pick_winding(self) -> int:
        """Return the winding whose tap is off nominal, else the one with a range of its own, else the secondary."""
        # NumTaps counts the steps between MinTap and MaxTap: positions are one more.
        movable = [n >= 2 and high > low for low, high, n in zip(self.low, self.high, self.steps, strict=True)]
        for marked in ([tap != 1.0 for tap in self.tap], self.own_range):
            for winding, (own, moves) in enumerate(zip(marked, movable, strict=True), start=1):
                if own and moves:
                    return winding
        return min(_SECONDARY, len(self.tap))

    def find_problem(self, winding: int) -> str:
        """Say why the tap of a winding cannot be moved, nothing where it can."""
        tap, low, high, n = (column[winding - 1] for column in (self.tap, self.low, self.high, self.steps))
        if n < 2 or not high > low:
            return f"winding {winding} has one tap: NumTaps={n}, MinTap={low:g}, MaxTap={high:g}"
        # Half a step: taps in files are rounded.
        margin = (high - low) / (2 * n)
        if not low - margin < tap < high + margin:
            return f"winding {winding} stands at tap {tap:g}, outside MinTap..MaxTap = {low:g}..{high:g}"
        return ""

    def describe(self, class_name: str, transformer: str, winding: int, control: str) -> Regulator:
        """Return a winding; its positions are counted as ``RegControl.TapNum`` does, 0 at mid-range."""
        low, high, n_taps = self.low[winding - 1], self.high[winding - 1], max(1, self.steps[winding - 1])
        step, neutral = (high - low) / n_taps, (high + low) / 2.0
        half = n_taps // 2
        return Regulator(control, transformer, class_name, self.handle, winding, neutral, step, -half, half)
