"""From actions to feasible setpoints: what all kinds of devices with power do alike, in one pass over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from powergrid.grid.devices.spec import Exogenous, FloatArray

if TYPE_CHECKING:
    from powergrid.grid.devices.fleet import PowerFleet


class Request(NamedTuple):
    """How the actions of a fleet become requests: ``gain`` times action plus ``offset``, held to ``low .. high``.

    Attributes:
        columns: Column of each device's action on active and on reactive power, -1 for none, shape (2, n).
        gain, offset, low, high: What an action means, active and reactive, shape (2, n) each.
    """

    columns: FloatArray
    gain: FloatArray
    offset: FloatArray
    low: FloatArray
    high: FloatArray


class Projection:
    """Turn actions into feasible setpoints of fleets whose numbers lie side by side.

    Requests are read from the actions; each fleet limits them by its own physics; what is left of the kVA circle
    limits reactive power.

    Args:
        fleets: The fleets, in the order of their columns.
        columns: Columns of the action matrix that each fleet has.
        block: Setpoints, then requests, of p and then of q each, shape (4, n_envs, n_devices).
        n_actions: Width of the action matrix.

    Source:
        IEEE Std 1547-2018, 5.2 (active power has priority, unless a device says otherwise).
    """

    def __init__(
        self, fleets: Sequence[PowerFleet[Any]], columns: Sequence[slice], block: FloatArray, n_actions: int
    ) -> None:
        self._fleets = list(fleets)
        self._p, self._q, self._requested = block[0], block[1], block[2:]
        self._requested_q = block[3]
        n_envs = block.shape[1]
        of_fleets = [fleet.request for fleet in fleets]
        column, *scaling = (np.concatenate(parts, axis=1) for parts in zip(*of_fleets, strict=True))
        starts = np.repeat([own.start for own in columns], [fleet.n for fleet in fleets])
        column = np.where(column < 0, 0, column + starts).astype(np.int64)
        self._places = column[:, None, :] + n_actions * np.arange(n_envs)[None, :, None]
        # every constant has the full shape: a ufunc on few numbers takes twice as long where it must broadcast
        self._gain, self._offset, self._low, self._high = (
            np.repeat(constant[:, None, :], n_envs, axis=1) for constant in scaling
        )
        self._acts = n_actions > 0
        s2, p_first = np.concatenate([fleet.circle for fleet in fleets], axis=1)
        self._s2, p_first = np.tile(s2, (n_envs, 1)), np.tile(p_first, (n_envs, 1))
        self._p_first = None if (p_first == 1.0).all() else p_first
        self._reactive = any(fleet.reactive for fleet in fleets)
        self._room, self._zero = np.zeros_like(self._s2), np.zeros_like(self._s2)
        self._giving = [fleet for fleet in fleets if fleet.gives_way]

    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Turn actions, shape (n_envs, n_actions), into feasible setpoints."""
        requested = self._requested
        if self._acts:
            action.take(self._places, None, requested, "clip")
            np.multiply(requested, self._gain, out=requested)
            np.add(requested, self._offset, out=requested)
            np.maximum(requested, self._low, out=requested)
            np.minimum(requested, self._high, out=requested)
        else:
            requested[...] = self._offset
        if self._reactive:
            self._q[...] = self._requested_q
        for fleet in self._fleets:
            fleet.limit(exo)
        if self._reactive:
            self._limit_reactive()
        for fleet in self._giving:
            fleet.give_way()

    def _limit_reactive(self) -> None:
        """Keep reactive power within what active power leaves of the kVA circle, or within all of it."""
        p, q, room = self._p, self._q, self._room
        np.multiply(p, p, out=room)
        if self._p_first is not None:
            np.multiply(room, self._p_first, out=room)
        np.subtract(self._s2, room, out=room)
        np.sqrt(np.maximum(room, self._zero, out=room), out=room)
        np.minimum(q, room, out=q)
        np.maximum(q, np.negative(room, out=room), out=q)
