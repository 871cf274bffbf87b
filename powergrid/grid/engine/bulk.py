"""Bulk writes and reads: one property of many elements in one call, through buffers of our own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.engine.library import ffi, lib

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
IntArray = npt.NDArray[np.int64]
Handle = Any

#: Without this flag a write marks every element dirty: the admittance matrix is rebuilt and factorised at each solve,
#: which makes a step 2 to 13 times dearer. PVSystem and Storage ignore it (``Engine.keep_y`` is for them).
_AVOID_FULL_RECALC = 2


class BulkWriter:
    """Write one property of many elements of a class in a single call.

    Attributes:
        values: The buffer that is written, shape (n,); fill it in place, then call :meth:`write`.
        write: Sends the buffer to the engine.
    """

    __slots__ = ("_batch", "_flags", "_property", "values", "write")

    def __init__(self, handles: Sequence[Handle], property_index: int, *, keep_y: bool) -> None:
        self._batch = ffi.new("void*[]", list(handles))
        self._property = property_index
        self._flags = _AVOID_FULL_RECALC if keep_y else 0
        self.move_to(np.zeros(len(handles)))

    def move_to(self, values: FloatArray) -> None:
        """Write from another buffer from now on, shape (n,), contiguous."""
        self.values: FloatArray = values
        pointer = ffi.cast("double*", ffi.from_buffer(values))
        # All arguments are bound once: what is left to do in a step is the call itself. Operation 0 is "set".
        arguments = (self._batch, len(values), self._property, 0, pointer, self._flags)
        self.write: Callable[[], None] = functools.partial(lib.Batch_Float64Array, *arguments)


class ContinuingWriter(BulkWriter):
    """Write where an element goes on from, once all else of it is taken over from where it began.

    Elements that seek something (an induction machine its slip) reckon how fast to do so from where they are when they
    are edited. In the engine's own modes that is where the model had them; so they are put there, the edit ends, and
    only then comes what is written. Whatever else is written of them has to come before.

    Args:
        handles, property_index: As of :class:`BulkWriter`.
        first: Where the model has each, shape (n,).
    """

    __slots__ = ("_first",)

    def __init__(self, handles: Sequence[Handle], property_index: int, first: FloatArray) -> None:
        self._first = np.array(first, dtype=np.float64)
        super().__init__(handles, property_index, keep_y=True)

    def move_to(self, values: FloatArray) -> None:
        """Write from another buffer from now on, shape (n,), contiguous."""
        super().move_to(values)
        write, batch, n = self.write, self._batch, len(values)
        pointer = ffi.cast("double*", ffi.from_buffer(self._first))
        begin = functools.partial(lib.Batch_Float64Array, batch, n, self._property, 0, pointer, self._flags)

        def continue_from() -> None:
            begin()
            lib.Batch_EndEdit(batch, n, 1)
            lib.Batch_BeginEdit(batch, n)  # and none ends: what is written now has it reckon nothing anew
            write()

        self.write = continue_from


class PowerReader:
    """Read the terminal powers of many elements in a single call, summed per element.

    Attributes:
        starts: Where each element's conductors start in what :meth:`fetch` gives, shape (n,).
        size: Number of conductors of all elements.
    """

    __slots__ = ("_batch", "_count", "_dims", "_flat", "_pointer", "_result", "size", "starts")

    def __init__(self, handles: Sequence[Handle]) -> None:
        self._batch = ffi.new("void*[]", list(handles))
        self._count = len(handles)
        self._result = ffi.new("double**")
        self._dims = ffi.new("int32_t[4]")
        sizes = [int(lib.Alt_CE_Get_NumConductors(h)) * int(lib.Alt_CE_Get_NumTerminals(h)) for h in handles]
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.size = sum(sizes)
        self._pointer: Any = ffi.NULL
        self._flat: ComplexArray = np.empty(0, dtype=complex)

    def read(self) -> ComplexArray:
        """Return the complex power that each element draws from the circuit [kW + j kvar], shape (n,)."""
        return np.add.reduceat(self.fetch(), self.starts)

    def fetch(self) -> ComplexArray:
        """Return the same conductor by conductor, shape (size,): the engine's own numbers, overwritten by the next."""
        # Not Alt_CEBatch_Get_Losses, which corrupts the heap in 0.14.5.
        lib.Alt_CEBatch_Get_Powers(self._result, self._dims, self._batch, self._count)
        if self._result[0] != self._pointer:  # the engine keeps its buffer while the size stays
            self._pointer = self._result[0]
            self._flat = np.frombuffer(ffi.buffer(self._pointer, self._dims[0] * 8), dtype=np.complex128)
        return self._flat

    def __del__(self) -> None:
        if lib is not None and self._result[0] != ffi.NULL:
            lib.DSS_Dispose_PDouble(self._result)
