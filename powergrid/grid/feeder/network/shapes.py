"""The LoadShapes of a feeder as data, and their values at an hour: those that OpenDSS takes there.

Knows neither engine nor environment. An element refers to a shape by its place in the table, never by a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: What an element follows: in one of OpenDSS's modes, or, ``own``, the yearly shape where the model writes one, else
#: the daily one.
ShapeMode = Literal["own", "daily", "yearly", "duty"]
SHAPE_MODES: tuple[ShapeMode, ...] = get_args(ShapeMode)
#: How near to a point an hour counts as on it, where points stand at hours of their own [h]; OpenDSS's number.
_ON_POINT_H = 1e-5
_DAY_H, _YEAR_H = 24.0, 8760.0


@dataclass(frozen=True)
class Shapes:
    """LoadShapes, the points of all of them end to end.

    Attributes:
        names: Lower case, shape (n_shapes,).
        first: Place of each one's first point, and behind the last their number, shape (n_shapes + 1,).
        p: Multipliers, or kW where ``use_actual``, shape (n_points,).
        q: The same for reactive power, NaN where the shape has none of its own, shape (n_points,).
        hour: Where a point stands [h], NaN where points are evenly spaced, shape (n_points,).
        interval_h: Between points [h], 0 where they stand at hours of their own, shape (n_shapes,).
        use_actual: Whether values are kW and kvar, not multipliers, shape (n_shapes,).
        npts: Number of points that the model says there are, shape (n_shapes,).
        edge: Whether a value holds until the next point (``Interpolation=Edge``), shape (n_shapes,).
    """

    names: tuple[str, ...] = ()
    first: IntArray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    p: FloatArray = field(default_factory=lambda: np.empty(0))
    q: FloatArray = field(default_factory=lambda: np.empty(0))
    hour: FloatArray = field(default_factory=lambda: np.empty(0))
    interval_h: FloatArray = field(default_factory=lambda: np.empty(0))
    use_actual: BoolArray = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    npts: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    edge: BoolArray = field(default_factory=lambda: np.empty(0, dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.names)

    def points(self, shape: int) -> tuple[FloatArray, FloatArray]:
        """Return the active and reactive values of a shape, each shape (n_points,)."""
        own = slice(self.first[shape], self.first[shape + 1])
        return self.p[own], self.q[own]

    @cached_property
    def counts(self) -> IntArray:
        """Number of points that each shape has, shape (n_shapes,)."""
        counts: IntArray = np.diff(self.first)
        return counts

    def sample(self, which: IntArray, hours: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what OpenDSS takes of some shapes at some hours.

        Of evenly spaced points it takes the one nearest to the hour, the first at one interval after midnight and the
        last at midnight, over and over; between points at hours of their own it draws straight lines. Of a shape with
        edges it takes the last point before or at the hour, 0 before the first that stands at an hour of its own. A
        shape without points is 1 throughout.

        Args:
            which: Places of the shapes, shape (n,).
            hours: Hours since midnight of day 0, shape (n_hours,).

        Returns:
            Active and reactive values, each of shape (n_hours, n). Without reactive values of its own a shape of
            multipliers gives the active ones, one of actual values NaN.
        """
        counts, interval = self.counts[which], self.interval_h[which]
        even = (counts > 0) & (interval > 0.0)
        # np.rint rounds halves to even numbers, as the engine does.
        apart = hours[:, None] / np.where(even, interval, 1.0)
        place = np.where(self.edge[which], np.trunc(apart), np.rint(apart)).astype(np.int64)
        n = np.maximum(counts, 1)
        place = np.where(place > n, place % n, place)
        place = np.where(even & (n > 1), np.where(place == 0, n, place) - 1, 0)
        at = self.first[which] + place
        padded = len(self.p) == 0
        p = np.ones(at.shape) if padded else self.p.take(at, mode="clip")
        q = np.full(at.shape, np.nan) if padded else self.q.take(at, mode="clip")
        for column in np.flatnonzero((interval <= 0.0) & (counts > 1)).tolist():
            p[:, column], q[:, column] = self._draw_lines(int(which[column]), hours)
        p[:, counts == 0] = 1.0
        q[:, counts == 0] = 1.0
        lacks = np.isnan(q) & ~self.use_actual[which]
        return p, np.where(lacks, p, q)

    def _draw_lines(self, shape: int, hours: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the values of a shape whose points stand at hours of their own."""
        # Before the first point the engine goes up from 0 at midnight.
        hour = np.concatenate([[0.0], self.hour[self.first[shape] : self.first[shape + 1]]])
        p, q = (np.concatenate([[0.0], values]) for values in self.points(shape))
        last = hour[-1]
        rest = np.where(hours > last, hours - np.trunc(hours / last) * last, hours)
        after = np.clip(np.searchsorted(hour, rest - _ON_POINT_H, side="right"), 1, len(hour) - 1)
        length = hour[after] - hour[after - 1]
        on = (np.abs(hour[after] - rest) < _ON_POINT_H) | (length == 0.0)
        part = np.where(on, 1.0, (rest - hour[after - 1]) / np.where(on, 1.0, length))
        if self.edge[shape]:
            held = np.where(on, after, after - 1)
            # Off its points the engine gives no reactive value where the shape has none of its own.
            return p[held], np.where(on | ~np.isnan(q[held]), q[held], 0.0)
        return p[after - 1] + part * (p[after] - p[after - 1]), q[after - 1] + part * (q[after] - q[after - 1])

    def means(self, which: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return the mean active and reactive value of some shapes, as :meth:`sample` gives them, each shape (n,)."""
        p, q = np.ones(len(which)), np.ones(len(which))
        for i, shape in enumerate(which.tolist()):
            own_p, own_q = self.points(shape)
            if len(own_p):
                p[i], q[i] = own_p.mean(), own_q.mean()
        return p, np.where(np.isnan(q) & ~self.use_actual[which], p, q)

    def peaks(self, which: IntArray) -> FloatArray:
        """Return the highest magnitude of the active values of some shapes, 1 where one has no points, shape (n,)."""
        points = [self.points(shape)[0] for shape in which.tolist()]
        return np.array([np.abs(own).max() if len(own) else 1.0 for own in points])

    def find_drifting(self) -> Iterator[tuple[str, str]]:
        """Yield name and what is said of each shape that begins anew at another time on each day of a year."""
        for shape in np.flatnonzero(self.counts > 1).tolist():
            interval, last = self.interval_h[shape], float(self.hour[self.first[shape + 1] - 1])
            period = float(self.counts[shape] * interval) if interval > 0.0 else last
            in_a_day, days = _DAY_H / period if period > 0.0 else 1.0, period / _DAY_H
            if (
                period < _YEAR_H
                and min(abs(in_a_day - round(in_a_day)), abs(days - round(days))) * period > _ON_POINT_H
            ):
                name = self.names[shape]
                yield name, f"LoadShape {name!r} begins anew each {period:g} h, on every day at another hour of it"

    def find_problems(self, used: IntArray) -> Iterator[str]:
        """Yield what keeps some shapes from being followed."""
        unlike_q = self._count(np.isnan(self.q))
        wrong = (self._count(~np.isfinite(self.p)) > 0) | (self._count(np.isinf(self.q)) > 0)
        wrong |= (unlike_q > 0) & (unlike_q < self.counts)
        odd = wrong | ((self.counts == 0) & (self.npts > 0)) | ~(self.interval_h > 0.0)
        for shape in used[odd[used]].tolist():
            name, n = self.names[shape], int(self.counts[shape])
            hour = self.hour[self.first[shape] : self.first[shape + 1]]
            if not n:
                if self.npts[shape]:
                    yield f"LoadShape {name!r} has no multipliers for its {self.npts[shape]} points"
            elif not self.interval_h[shape] > 0.0 and n > 1 and not (np.diff(hour) > 0.0).all():
                yield f"LoadShape {name!r} has neither a fixed interval nor hours that increase"
            elif wrong[shape]:
                yield f"LoadShape {name!r} has a point that is not finite"

    def _count(self, points: BoolArray) -> IntArray:
        """Return how many points of each shape are among some."""
        if points.all() or not points.any():  # mostly so, and told in a tenth of the time
            return self.counts * int(points.any())
        counts: IntArray = np.diff(np.concatenate([[0], np.cumsum(points)])[self.first])
        return counts
