"""The numbers of devices side by side, so that one pass of array code serves devices of all kinds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from powergrid.grid.devices.spec import FloatArray, IntArray


class Ledger:
    """Keep one row for each quantity and one column for each device, for every environment.

    Args:
        names: Names of the quantities; each has one row, in the order in which names first come.
        n_envs: Number of environments.
        n_devices: Number of devices.

    Attributes:
        names: Name of each row but the last, which stays zero.
        values: The numbers, shape (n_rows, n_envs, n_devices); what a device has no number for stays zero.
    """

    def __init__(self, names: Iterable[str], n_envs: int, n_devices: int) -> None:
        self.names: tuple[str, ...] = tuple(dict.fromkeys(names))
        self.values: FloatArray = np.zeros((len(self.names) + 1, n_envs, n_devices))

    def part(self, columns: slice) -> Ledger:
        """Return the same ledger for some of the devices."""
        part = object.__new__(Ledger)
        part.names, part.values = self.names, self.values[:, :, columns]
        return part

    def __getitem__(self, name: str) -> FloatArray:
        """Return a row, shape (n_envs, n_devices)."""
        row: FloatArray = self.values[self.names.index(name)]
        return row

    def block(self, names: Sequence[str]) -> FloatArray:
        """Return rows that follow each other, shape (len(names), n_envs, n_devices)."""
        first = self.names.index(names[0])
        if self.names[first : first + len(names)] != tuple(names):
            raise ValueError(f"rows {', '.join(names)} do not follow each other")
        rows: FloatArray = self.values[first : first + len(names)]
        return rows

    def find(self, names: Sequence[str]) -> IntArray:
        """Return the place of each row; the row of zeros for those that are not kept."""
        places = {name: row for row, name in enumerate(self.names)}
        return np.array([places.get(name, len(self.names)) for name in names], dtype=np.int64)


def find_places(whole: FloatArray, part: FloatArray) -> IntArray:
    """Return where the numbers of a view lie among those of the contiguous array it is a view of, as flat indices.

    One gather with such indices reads many small views at once.
    """
    places = np.int64((part.ctypes.data - whole.ctypes.data) // whole.itemsize)
    for size, stride in zip(part.shape, part.strides, strict=True):
        places = np.add.outer(places, np.arange(size) * (stride // whole.itemsize))
    return np.asarray(places, dtype=np.int64)
