"""Numbers for a page: rounded to what a reader can see, as differences from step to step, packed in one text."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import numpy as np
import numpy.typing as npt

_KINDS: dict[str, type[np.integer[Any]]] = {"uint8": np.uint8, "int16": np.int16, "uint16": np.uint16}


class Packing:
    """Collect arrays over steps and pack them.

    Attributes:
        parts: What was collected, by name: ``kind``, ``shape``, ``start`` (byte), and ``scale``, one for each thing or
            for all, by which a whole number is to be multiplied.
    """

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, Any]] = {}
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, name: str, values: npt.NDArray[Any], step: float, kind: str = "uint16") -> None:
        """Add numbers of shape (n_steps, n_things), in whole steps; what lies beyond the kind's range is its end."""
        limits = np.iinfo(_KINDS[kind])
        whole = np.clip(np.rint(np.nan_to_num(values / step)), limits.min, limits.max).astype(_KINDS[kind])
        self._keep(name, kind, whole, [step])

    def add_scaled(self, name: str, values: npt.NDArray[Any]) -> None:
        """Add numbers of shape (n_steps, n_things), each thing by 1/30,000 of its largest; the lowest number is NaN."""
        largest = np.nanmax(np.abs(np.where(np.isnan(values), 0.0, values)), axis=0, initial=0.0)
        scale = np.where(largest > 0.0, largest / 30_000.0, 1.0)
        whole = np.where(np.isnan(values), -32768, np.rint(np.nan_to_num(values) / scale)).astype(np.int16)
        self._keep(name, "int16", whole, [float(f"{each:.6g}") for each in scale.tolist()])

    def _keep(self, name: str, kind: str, whole: npt.NDArray[Any], scale: list[float]) -> None:
        # as differences, which are small and alike; they wrap around, as the sums of them will
        content = np.diff(whole, axis=0, prepend=np.zeros((1, whole.shape[1]), whole.dtype)).astype(whole.dtype)
        if self._size % 2:  # where numbers of two bytes may begin
            self._chunks.append(b"\0")
            self._size += 1
        self.parts[name] = {"kind": kind, "shape": list(whole.shape), "start": self._size, "scale": scale}
        # thing by thing, little end first, as browsers have it
        data = np.ascontiguousarray(content.T).astype(content.dtype.newbyteorder("<")).tobytes()
        self._chunks.append(data)
        self._size += len(data)

    def pack(self) -> str:
        """Return all that was added, compressed, as a text."""
        return base64.b64encode(gzip.compress(b"".join(self._chunks), compresslevel=9, mtime=0)).decode("ascii")
