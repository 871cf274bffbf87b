"""What branches may carry by the model itself; what OpenDSS fills in where a model says nothing is no rating."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.engine import Engine, FloatArray, Handle

BoolArray = npt.NDArray[np.bool_]

#: What a line takes its rating from where it has none of its own; the one that is written last counts.
_LINE_TYPES = ("LineCode", "Geometry", "Spacing")
#: A line code that is written writes these right behind it, in this order.
_COPIED = ("Ratings", "NormAmps", "EmergAmps")
_PLACEHOLDER_A = 400.0
_KVA = ("kVA", "kVAs", "NormHkVA")
#: How ``check`` calls the values that OpenDSS fills in.
PLACEHOLDERS = {
    "Line": "NormAmps (OpenDSS takes 400 A)",
    "Transformer": "kVA (OpenDSS takes 1000 kVA)",
    "AutoTrans": "kVA (OpenDSS takes 1000 kVA)",
    "Reactor": "NormAmps (OpenDSS takes what 100 kvar draw)",
}


class Ratings:
    """Tell ratings that a model gives from those that OpenDSS makes up.

    Args:
        engine: Holds the compiled circuit.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._codes = {name: engine.handles(name) for name in ("LineCode", "XfmrCode")}

    def read(self, class_name: str, handle: Handle) -> float:
        """Return the normal rating of a branch [A], 0 where the model gives none."""
        if not self._is_given(class_name, handle):
            return 0.0
        amps = self._engine.get_float(handle, class_name, "NormAmps")
        return amps if 0.0 < amps < math.inf else 0.0

    def read_all(self, class_name: str, handles: Sequence[Handle]) -> FloatArray:
        """Return the normal ratings of many branches of a class [A], as :meth:`read` does, shape (n,)."""
        if class_name != "Line" or not handles:
            return np.array([self.read(class_name, handle) for handle in handles], dtype=np.float64)
        amps = self._engine.get_all_floats(handles, "Line", "NormAmps")
        return np.where(self._are_given_lines(handles, amps) & (amps > 0.0) & (amps < math.inf), amps, 0.0)

    def find_unrated(self, handles: Mapping[str, Mapping[str, Handle]]) -> Iterator[tuple[str, list[str]]]:
        """Yield each class with branches that the model gives no rating, and their names; shunts never need any."""
        for class_name in PLACEHOLDERS:
            own = handles.get(class_name, {}).items()
            names = [name for name, handle in own if not (self.read(class_name, handle) or self._is_shunt(handle))]
            if names:
                yield class_name, names

    def _is_given(self, class_name: str, handle: Handle) -> bool:
        if class_name == "Line":
            amps = self._engine.get_all_floats([handle], "Line", "NormAmps")
            return bool(self._are_given_lines([handle], amps)[0])
        if class_name == "Reactor":
            # From kvar OpenDSS makes NormAmps; given by R, X, Z or L, from the 100 kvar that any Reactor begins with.
            by_kvar = () if self._is_shunt(handle) else ("kvar",)
            return self._engine.is_written(handle, class_name, ("NormAmps", *by_kvar))
        if class_name == "Capacitor":  # whose NormAmps are 1.35 times what it draws (600 kvar at 4.16 kV: 112.4 A)
            return False
        if self._engine.is_written(handle, class_name, _KVA):
            return True
        return class_name == "Transformer" and self._code_says(handle, class_name, "XfmrCode", _KVA)

    def _are_given_lines(self, lines: Sequence[Handle], amps: FloatArray) -> BoolArray:
        engine = self._engine
        before, own, behind, *at = (
            np.maximum(engine.written_order(lines, "Line", name), 0) for name in (*_COPIED, *_LINE_TYPES)
        )
        code = engine.get_all_references(lines, "Line", "LineCode")
        given_by_code = amps != _PLACEHOLDER_A  # which it had when it was taken, whatever it says since
        known, silent = self._codes["LineCode"].values(), 0
        for each in known:
            if not engine.is_written(each, "LineCode", ("NormAmps",)):
                silent += 1
            elif engine.get_float(each, "LineCode", "NormAmps") == _PLACEHOLDER_A:
                given_by_code = given_by_code | (code == engine.address(each))
        if not silent:  # made like another, or given impedances of its own later, a line no longer names its code
            given_by_code = given_by_code | (code == 0)
        # Of others than codes, conductors have -1 A where nothing is said.
        by_type = (np.argmax(at, axis=0) != _LINE_TYPES.index("LineCode")) & (np.max(at, axis=0) > 0)
        by_code = at[_LINE_TYPES.index("LineCode")]
        copied = (before == own - 1) & (behind == own + 1) & ((by_code == own - 2) | (by_code == 0))
        given: BoolArray = by_type | ((own > 0) & (~copied | given_by_code))
        return given

    def _code_says(self, handle: Handle, class_name: str, code_class: str, names: Sequence[str]) -> bool:
        """Whether the code that an element is of says any of some properties."""
        code = self._codes[code_class].get(self._engine.get_text(handle, class_name, code_class).lower())
        return code is not None and self._engine.is_written(code, code_class, names)

    def _is_shunt(self, handle: Handle) -> bool:
        """Whether a branch goes to ground alone: its voltage makes its current, so that it carries no load."""
        n_terminals, _ = self._engine.terminals(handle)
        ref = self._engine.node_ref(handle).reshape(n_terminals, -1)
        return n_terminals == 1 or not ref[1:].any()
