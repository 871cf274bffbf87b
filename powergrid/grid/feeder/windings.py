"""Windings whose tap can be moved: those of regulator controls, and those that none moves.

Reads a compiled circuit; moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from powergrid.grid.engine import Engine, Handle

Handles = Mapping[str, Mapping[str, Handle]]

#: Classes of elements with tapped windings.
TAPPED_CLASSES = ("Transformer", "AutoTrans")
#: What says how far a tap goes, and what OpenDSS takes where a file says nothing of it: ±10 % in 33 positions.
_RANGE = ("MinTap", "MaxTap", "NumTaps")
_DEFAULT_RANGE = (0.9, 1.1, 32)
_LOW_VOLTAGE_KV = 1.0
_SECONDARY = 2


@dataclass(frozen=True)
class Regulator:
    """A tapped winding.

    Attributes:
        control: Name of the regulator control that moves it, empty where none does.
        transformer, class_name, handle: The transformer; its class is ``Transformer`` or ``AutoTrans``.
        winding: Number of the tapped winding.
        neutral_pu, step_pu: Tap at position 0, and change a position [pu].
        lowest, highest: Range of positions.
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

    @property
    def element(self) -> str:
        """``class.name`` of the transformer, lower case."""
        return f"{self.class_name}.{self.transformer}".lower()


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
    for control, own in handles["RegControl"].items():
        tapped, name = engine.get_reference(own, "RegControl", "Transformer")
        if name in handles.get(tapped, {}):
            winding = winding_moved_by(engine, own)
            if (tapped, name, winding) not in found:
                handle = handles[tapped][name]
                taps = _read_windings(engine, tapped, handle)[winding - 1]
                found[tapped, name, winding] = taps.describe(control, tapped, name, handle, winding)
    return list(found.values())


def winding_moved_by(engine: Engine, control: Handle) -> int:
    """Return the number of the winding whose tap a regulator control moves."""
    # TapWinding is not above 0 where the file does not give it: then the winding that is watched moves.
    given = engine.get_int(control, "RegControl", "TapWinding")
    return given if given > 0 else engine.get_int(control, "RegControl", "Winding")


def read_winding(engine: Engine, handles: Handles, element: str, winding: int) -> Regulator | str:
    """Read a winding that no regulator control moves.

    Args:
        engine, handles: The engine that holds the circuit, and the circuit's elements.
        element: ``class.name`` of the transformer.
        winding: Number of the winding; 0 is the one whose tap is off nominal, else the one with a range of its own,
            else the secondary.

    Returns:
        The winding, or why its tap cannot be moved.
    """
    owner, _, name = element.lower().partition(".")  # a name may have dots, a class has none
    class_name = next((c for c in TAPPED_CLASSES if c.lower() == owner and name in handles[c]), None)
    if class_name is None:
        return "it is not in the feeder"
    handle = handles[class_name][name]
    windings = _read_windings(engine, class_name, handle)
    if winding > len(windings):
        return f"it has {len(windings)} windings, so no winding {winding}"
    number = winding or _pick_winding(windings)
    problem = windings[number - 1].find_problem(number)
    return problem or windings[number - 1].describe("", class_name, name, handle, number)


def find_tap_changers(engine: Engine, handles: Handles) -> Iterator[TapChanger]:
    """Return every transformer with taps of which no regulator control moves any, with its most likely winding.

    Those are taken for tap changers under load that join medium voltages and say so: they have a tap range of their
    own, or stand off the nominal tap, or have the same voltage on both sides, which only a voltage regulator has.
    """
    # OpenDSS gives every transformer 33 taps: most that have some in the model have none, or are set off load.
    regulated = {(r.class_name, r.transformer) for r in find_regulators(engine, handles)}
    for class_name in TAPPED_CLASSES:
        for name, handle in handles[class_name].items():
            if (class_name, name) in regulated:
                continue
            windings = _read_windings(engine, class_name, handle)
            number = _pick_winding(windings)
            if not windings[number - 1].find_problem(number):
                kva = float(engine.get_floats(handle, class_name, "kVAs")[0])
                regulator = windings[number - 1].describe("", class_name, name, handle, number)
                yield TapChanger(regulator, kva, _find_doubt(engine, class_name, handle, windings))


def _find_doubt(engine: Engine, class_name: str, handle: Handle, windings: Sequence[_Winding]) -> str:
    """Say why a transformer is not taken for a tap changer under load; nothing where it is."""
    kvs = engine.get_floats(handle, class_name, "kVs")[:2]
    if min(kvs) < _LOW_VOLTAGE_KV:
        return "below 1 kV, where taps are set off load"
    if any(w.has_own_range or w.tap != 1.0 for w in windings) or engine.is_written(handle, class_name, _RANGE):
        return ""
    if class_name == "Transformer" and abs(kvs[1] - kvs[0]) < 0.01 * kvs[0]:
        return ""
    return "the model says nothing of their taps"


class _Winding(NamedTuple):
    """The taps of a winding: where it stands, lowest and highest [pu], and the number of steps between these."""

    tap: float
    low: float
    high: float
    steps: int

    @property
    def has_own_range(self) -> bool:
        """Whether it has another range than OpenDSS gives it."""
        return (self.low, self.high, self.steps) != _DEFAULT_RANGE

    @property
    def moves(self) -> bool:
        """Whether its tap has several positions."""
        # NumTaps counts the steps between MinTap and MaxTap: positions are one more.
        return self.steps >= 2 and self.high > self.low

    def find_problem(self, number: int) -> str:
        """Say why its tap cannot be moved, nothing where it can."""
        tap, low, high, steps = self
        if not self.moves:
            return f"winding {number} has one tap: NumTaps={steps}, MinTap={low:g}, MaxTap={high:g}"
        # Half a step: taps in files are rounded.
        margin = (high - low) / (2 * steps)
        if not low - margin < tap < high + margin:
            return f"winding {number} stands at tap {tap:g}, outside MinTap..MaxTap = {low:g}..{high:g}"
        return ""

    def describe(self, control: str, class_name: str, transformer: str, handle: Handle, number: int) -> Regulator:
        """Return it as what is moved; positions are counted as ``RegControl.TapNum`` does, 0 at mid-range."""
        steps = max(1, self.steps)
        neutral, step, half = (self.high + self.low) / 2.0, (self.high - self.low) / steps, steps // 2
        return Regulator(control, transformer, class_name, handle, number, neutral, step, -half, half)


def _read_windings(engine: Engine, class_name: str, handle: Handle) -> list[_Winding]:
    taps = (engine.get_floats(handle, class_name, key).tolist() for key in ("Taps", "MinTap", "MaxTap"))
    return list(map(_Winding, *taps, engine.get_ints(handle, class_name, "NumTaps").tolist()))


def _pick_winding(windings: Sequence[_Winding]) -> int:
    """Return the number of the one whose tap is off nominal, else that with a range of its own, else the secondary."""
    movable = [(number, winding) for number, winding in enumerate(windings, start=1) if winding.moves]
    off_nominal = [number for number, winding in movable if winding.tap != 1.0]
    own_range = [number for number, winding in movable if winding.has_own_range]
    return [*off_nominal, *own_range, min(_SECONDARY, len(windings))][0]
