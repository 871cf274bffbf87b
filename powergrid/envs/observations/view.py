"""What some agents see: which channels, and how these are scaled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from powergrid.envs.observations.channels import Channel, Channels

IntArray = npt.NDArray[np.int64]


class View:
    """What some agents see: gathers their channels and scales them, for all of them in one go.

    Args:
        channels: The channels.
        columns: Columns of their table that each agent sees.
        n_envs: Number of environments.
        bounds: Lowest and highest value of each, one agent after the other, where not those of the table.

    Attributes:
        columns: What it was given: the columns that each agent sees.
        parts: Where what each agent sees lies in what :meth:`gather` gives.
    """

    def __init__(
        self,
        channels: Channels,
        columns: Sequence[IntArray],
        n_envs: int,
        bounds: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        seen, table, self.columns = np.concatenate(columns), channels.table, columns
        self._metrics, self._places = channels.metrics, channels.told[seen]
        own = np.array([(channel.low, channel.high) for channel in table])[seen] if bounds is None else np.array(bounds)
        low, high = own.T
        gain = 2.0 / (high - low)
        # every constant has the full shape: a ufunc takes twice as long where it must broadcast
        self._gain, self._offset = np.tile(gain, (n_envs, 1)), np.tile(-1.0 - low * gain, (n_envs, 1))
        self._low, self._high = np.full_like(self._gain, -1.0), np.ones_like(self._gain)
        self._seen = np.zeros_like(self._gain)
        ends = np.cumsum([len(own) for own in columns]).tolist()
        self.parts = [slice(end - len(own), end) for end, own in zip(ends, columns, strict=True)]

    def look(self) -> list[npt.NDArray[np.float32]]:
        """Return fresh arrays of what each agent sees: low..high as -1..1, clipped, shape (n_envs, n_observed)."""
        scaled = self.gather()
        return [scaled[:, own] for own in self.parts]

    def gather(self) -> npt.NDArray[np.float32]:
        """Return the same as one fresh array, one agent after the other, shape (n_envs, all that agents see)."""
        seen = self._metrics.results.take(self._places, 1, self._seen, "clip")
        np.multiply(seen, self._gain, out=seen)
        np.add(seen, self._offset, out=seen)
        np.minimum(np.maximum(seen, self._low, out=seen), self._high, out=seen)
        return seen.astype(np.float32)


def order_alike(tables: Sequence[Sequence[Channel]]) -> list[IntArray]:
    """Return the columns of several tables so that what all of them have comes first, in the first one's order."""
    places = [{channel.name: column for column, channel in enumerate(table)} for table in tables]
    shared = [channel.name for channel in tables[0] if all(channel.name in own for own in places)]
    common = set(shared)
    return [
        np.array(
            [*(own[name] for name in shared), *(c for name, c in own.items() if name not in common)], dtype=np.int64
        )
        for own in places
    ]
