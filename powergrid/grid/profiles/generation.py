"""What generators that no agent has deliver over a day: by their shapes, and by the level of demand or price."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from powergrid.grid.feeder.network import BY_PRICE, Network
from powergrid.grid.feeder.network.shapes import ShapeMode

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: OpenDSS's models of generators whose kvar stay nominal, and of those that hold a voltage within limits of kvar.
_FIXED_Q_MODELS, _HOLDS_VOLTAGE = (4, 5), 3


class Generation:
    """Say what is written of generators.

    Args:
        network: The feeder.
        mode: Which of their shapes they follow.

    Attributes:
        followed: Place of the shape that each follows, -1 for none, shape (n_generators,).
        moved: Whether anything moves each, shape (n_generators,).
        holds_voltage: Whether each holds a voltage, within limits of kvar that a write of kW undoes,
            shape (n_generators,).
    """

    def __init__(self, network: Network, mode: ShapeMode) -> None:
        self._shapes, self._sources, self._mode = network.shapes, network.sources, mode
        sources = network.sources
        self.followed: IntArray = np.where(sources.generator_fixed, -1, network.followed_by("Generator", mode))
        self.moved = (self.followed >= 0) | (sources.dispatch.by > 0) | ~np.isnan(sources.fuel_kwh)
        dispatched = {name for each in network.controls if each.class_name == "GenDispatcher" for name in each.targets}
        if dispatched:
            names = network.elements.get("Generator", ())
            self.moved |= np.array([f"generator.{name}" in dispatched for name in names], dtype=np.bool_)
        self.holds_voltage = self.moved & (sources.generator_model == _HOLDS_VOLTAGE)

    def limits(self, places: IntArray, n_steps: int, key: str) -> FloatArray:
        """Return ``MaxKVAR`` or ``MinKVAR`` of some generators, shape (n_steps, n)."""
        return np.tile(self._sources.generator_kvar_limits[int(key == "MinKVAR"), places], (n_steps, 1))

    def lay_out(self, places: IntArray, hours: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what is written as kW and kvar of some generators, each shape (n_hours, n)."""
        sources, own = self._sources, self.followed[places]
        shaped, actual = own >= 0, np.zeros(len(own), dtype=np.bool_)
        p = q = np.ones((len(hours), len(own)))
        if shaped.all():
            p, q = self._shapes.sample(own, hours)
        elif shaped.any():
            p, q = p.copy(), p.copy()
            p[:, shaped], q[:, shaped] = self._shapes.sample(own[shaped], hours)
        actual[shaped] = self._shapes.use_actual[own[shaped]]
        # The engine multiplies all that is written but of fixed ones, and what a shape of actual values says not.
        undone = 1.0 / (sources.generator_factor or 1.0)
        kw = p * np.where(actual, undone, sources.generator_kw[places])
        kvar = np.nan_to_num(q) * np.where(actual, undone, sources.generator_kvar[places])
        fixed_q = np.isin(sources.generator_model[places], _FIXED_Q_MODELS)
        kvar[:, fixed_q] = sources.generator_kvar[places[fixed_q]]
        if sources.dispatch.by[places].any():
            off = self._find_off(places, hours)
            kw, kvar = np.where(off, sources.generator_off_kw[places], kw), np.where(off & ~fixed_q, 0.0, kvar)
        return kw, kvar

    def _find_off(self, places: IntArray, hours: FloatArray) -> npt.NDArray[np.bool_]:
        """Return when demand or price are below what some generators wait for, shape (n_hours, n)."""
        dispatch = self._sources.dispatch
        by, at = dispatch.by[places], dispatch.at[places]
        level, price = dispatch.levels(self._mode, hours)
        off: npt.NDArray[np.bool_] = (by > 0) & (np.where(by == BY_PRICE, price[:, None], level[:, None]) < at)
        return off
