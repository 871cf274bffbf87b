"""Find room for names and symbols that shall not cover each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_TURNS = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False) + np.pi / 4.0


class Room:
    """The free room of a drawing; all lengths in points.

    Args:
        width: Width of the drawing.
        height: Height of the drawing.
    """

    def __init__(self, width: float, height: float) -> None:
        self._size = np.array([width, height])
        self._taken = np.empty((0, 5))

    def take(self, centres: FloatArray, half: float, weight: float = 1.0) -> None:
        """Take squares around some places; a lower weight is covered more readily."""
        centres = np.asarray(centres, dtype=np.float64).reshape(-1, 2)
        boxes = np.hstack([centres - half, centres + half, np.full((len(centres), 1), weight)])
        self._taken = np.vstack([self._taken, boxes])

    def take_segments(self, segments: FloatArray, half: float = 1.5, weight: float = 0.3, apart: float = 5.0) -> None:
        """Take what some straight lines cover, shape (n, 2, 2)."""
        for start, end in segments:
            count = max(2, int(np.hypot(*(end - start)) / apart))
            self.take(start + np.linspace(0.0, 1.0, count)[:, None] * (end - start), half, weight)

    def find(
        self, anchor: FloatArray, width: float, height: float, reach: tuple[float, ...], most: float = np.inf
    ) -> FloatArray | None:
        """Find and take the place near an anchor that covers least.

        Args:
            anchor: What the box belongs to.
            width: Width of the box.
            height: Height of the box.
            reach: Gaps between anchor and box that are tried.
            most: Covered area that is still accepted.

        Returns:
            The centre of the box, None if all places cover more than ``most``.
        """
        centre, covered = self._weigh(anchor, width, height, reach)
        if covered > most:
            return None
        self._take_box(centre, width, height)
        return centre

    def settle(self, anchor: FloatArray, width: float, height: float, reach: tuple[float, ...]) -> FloatArray:
        """Do as :meth:`find`, however much the best place covers."""
        centre, _ = self._weigh(anchor, width, height, reach)
        self._take_box(centre, width, height)
        return centre

    def _take_box(self, centre: FloatArray, width: float, height: float) -> None:
        half = np.array([width, height]) / 2.0
        self._taken = np.vstack([self._taken, [*(centre - half), *(centre + half), 1.0]])

    def _weigh(
        self, anchor: FloatArray, width: float, height: float, reach: tuple[float, ...]
    ) -> tuple[FloatArray, float]:
        """Return the centre of the best box and the area that it covers, what is outside the drawing included."""
        half = np.array([width, height]) / 2.0
        gap = np.repeat(reach, len(_TURNS))
        way = np.tile(np.column_stack([np.cos(_TURNS), np.sin(_TURNS)]), (len(reach), 1))
        centres = anchor + way * (gap[:, None] + half)
        low, high = centres - half, centres + half
        sides = np.minimum(high[:, None, :], self._taken[None, :, 2:4]) - np.maximum(
            low[:, None, :], self._taken[None, :, :2]
        )
        covered = (np.maximum(sides, 0.0).prod(axis=2) * self._taken[:, 4]).sum(axis=1)
        covered += 100.0 * (np.maximum(-low, 0.0) + np.maximum(high - self._size, 0.0)).sum(axis=1)
        best = int(np.argmin(covered + 0.15 * gap))
        return np.asarray(centres[best]), float(covered[best])


def text_size(text: str, size: float) -> tuple[float, float]:
    """Estimate width and height of a line of text [points]."""
    return 0.62 * size * len(text) + 2.0, 1.2 * size
