"""The elements of a context's circuit: names to handles, their properties, what is open. Nothing here solves."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import EngineError
from powergrid.grid.engine import library
from powergrid.grid.engine.bulk import BulkWriter, ComplexArray, ContinuingWriter, FloatArray, Handle, IntArray
from powergrid.grid.engine.context import Context
from powergrid.grid.engine.library import ffi, lib, names_of, text_of

#: What a name may stand between in a command: it ends at the closing one, so that must not be in it.
_QUOTES = (('"', '"'), ("'", "'"), ("(", ")"), ("[", "]"), ("{", "}"))


class Elements(Context):
    """Read and write elements one by one, for building and for switchgear that moved."""

    # -- names, once after compiling

    @staticmethod
    def element_classes() -> tuple[str, ...]:
        """Name the classes of circuit elements, as the engine writes them."""
        return library.element_classes()

    @staticmethod
    @functools.lru_cache(maxsize=4096)
    def property_index(class_name: str, property_name: str) -> int:
        """Return the engine's number of a property, letter case ignored."""
        try:
            return library.numbers()[1][class_name.lower(), property_name.lower()]
        except KeyError:
            raise EngineError(f"OpenDSS has no property {class_name}.{property_name}") from None

    def handles(self, class_name: str) -> dict[str, Handle]:
        """Return the enabled elements of a class: lower-case name to handle, in the engine's order."""
        names, handles, batch = self._all_elements(class_name)
        if not handles:
            return {}
        number = library.numbers()[1].get((class_name.lower(), "enabled"), 0)
        enabled = np.ones(len(handles), dtype=np.bool_)
        if number:
            lib.Batch_GetInt32(self._index_result, self._index_dims, batch, len(handles), number)
            enabled = self._ints() != 0
        self.check()
        if enabled.all() and len(found := dict(zip(names, handles, strict=True))) == len(names):
            return found
        found = {}
        for i in np.flatnonzero(enabled).tolist():
            name = names[i]
            found[name if name not in found else f"{name}#{i + 1}"] = handles[i]  # AllowDuplicates
        return found

    def _all_elements(self, class_name: str) -> tuple[tuple[str, ...], list[Handle], Any]:
        """Return names and handles of all elements of a class, read anew once there are more."""
        key = class_name.lower()
        index = library.numbers()[0][key]
        count = lib.Obj_GetCount(self._context, index)
        if self._direct is not None or key not in self._known or len(self._known[key][1]) != count:
            # By position: to select a missing element by name only says -1, and the one before stays active.
            handles = [lib.Obj_GetHandleByIdx(self._context, index, place) for place in range(1, count + 1)]
            names = tuple(names_of(map(lib.Obj_GetName, handles))) if handles else ()
            self._known[key] = names, handles, ffi.new("void*[]", handles)
        return self._known[key]

    def newest(self, class_name: str, name: str) -> Handle:
        """Return the element of a name that the last command defined or, where it was there, edited."""
        index = library.numbers()[0][class_name.lower()]
        handle = lib.Obj_GetHandleByIdx(self._context, index, lib.Obj_GetCount(self._context, index))
        is_new = text_of(lib.Obj_GetName(handle)).lower() == name.lower()
        return handle if is_new else self.handles(class_name)[name.lower()]

    def get_float(self, handle: Handle, class_name: str, name: str) -> float:
        """Read a number of an element."""
        return float(lib.Obj_GetFloat64(handle, self.property_index(class_name, name)))

    @staticmethod
    def get_number(handle: Handle, property_index: int) -> float:
        """Read a number of an element by the property's number."""
        return float(lib.Obj_GetFloat64(handle, property_index))

    def get_int(self, handle: Handle, class_name: str, name: str) -> int:
        """Read a whole number or an option's ordinal of an element."""
        return int(lib.Obj_GetInt32(handle, self.property_index(class_name, name)))

    def get_text(self, handle: Handle, class_name: str, name: str) -> str:
        """Read any property of an element as OpenDSS prints it."""
        pointer = lib.Obj_GetAsString(handle, self.property_index(class_name, name))
        try:
            return text_of(pointer)
        finally:
            lib.DSS_Dispose_String(pointer)

    def get_floats(self, handle: Handle, class_name: str, name: str) -> FloatArray:
        """Read an array of an element."""
        lib.Obj_GetFloat64Array(self._result, self._result_dims, handle, self.property_index(class_name, name))
        self.check()
        return self._floats()

    def get_ints(self, handle: Handle, class_name: str, name: str) -> IntArray:
        """Read an array of whole numbers of an element."""
        lib.Obj_GetInt32Array(self._index_result, self._index_dims, handle, self.property_index(class_name, name))
        self.check()
        return self._ints()

    def get_names(self, handle: Handle, class_name: str, name: str) -> list[str]:
        """Read a list of names of an element, each as it is written: a name may hold blanks, commas and brackets."""
        names, dims = ffi.new("char***"), ffi.new("int32_t[4]")
        lib.Obj_GetStringArray(names, dims, handle, self.property_index(class_name, name))
        try:
            self.check()
            return [text_of(names[0][i]) for i in range(dims[0])]
        finally:
            lib.DSS_Dispose_PPAnsiChar(names, dims[1])

    def get_reference(self, handle: Handle, class_name: str, name: str) -> tuple[str, str]:
        """Return class, as OpenDSS writes it, and lower-case name of what a property refers to; both empty if nothing.

        The engine is asked for the object, not for its text: names hold dots, and the class may be left out.
        """
        found = lib.Obj_GetObject(handle, self.property_index(class_name, name))
        if found == ffi.NULL:
            return "", ""
        return text_of(lib.Obj_GetClassName(found)), text_of(lib.Obj_GetName(found)).lower()

    def get_object(self, handle: Handle, class_name: str, name: str) -> Handle | None:
        """Return the object that a property of an element refers to, None where to none."""
        found = lib.Obj_GetObject(handle, self.property_index(class_name, name))
        return None if found == ffi.NULL else found

    def is_written(self, handle: Handle, class_name: str, names: Sequence[str]) -> bool:
        """Whether the model says any of some properties of an element itself, be it what the engine takes anyway."""
        return any(self.written_at(handle, class_name, name) for name in names)

    def written_at(self, handle: Handle, class_name: str, name: str) -> int:
        """Return at what place among an element's properties the model says one, 0 where it does not."""
        return max(int(lib.Obj_GetPropSeqPtr(handle)[self.property_index(class_name, name)]), 0)

    # -- of all elements of a class at once: feeders have thousands of loads

    def get_all_floats(self, handles: Sequence[Handle], class_name: str, name: str) -> FloatArray:
        """Read a number of many elements of a class, shape (n,)."""
        if not handles:
            return np.empty(0)
        batch = ffi.new("void*[]", list(handles))
        number = self.property_index(class_name, name)
        lib.Batch_GetFloat64(self._result, self._result_dims, batch, len(handles), number)
        self.check()
        return self._floats()

    def get_all_ints(self, handles: Sequence[Handle], class_name: str, name: str) -> IntArray:
        """Read a whole number or an option's ordinal of many elements of a class, shape (n,)."""
        if not handles:
            return np.empty(0, dtype=np.int64)
        batch = ffi.new("void*[]", list(handles))
        number = self.property_index(class_name, name)
        lib.Batch_GetInt32(self._index_result, self._index_dims, batch, len(handles), number)
        self.check()
        return self._ints()

    def get_all_references(self, handles: Sequence[Handle], class_name: str, name: str) -> IntArray:
        """Return the address of the object that a property of many elements refers to, 0 for none, shape (n,)."""
        if not handles:
            return np.empty(0, dtype=np.int64)
        batch, found = ffi.new("void*[]", list(handles)), ffi.new("void***")
        lib.Batch_GetObject(found, self._index_dims, batch, len(handles), self.property_index(class_name, name))
        try:
            self.check()
            return np.frombuffer(ffi.buffer(found[0], 8 * len(handles)), dtype=np.int64).copy()
        finally:
            lib.DSS_Dispose_PPointer(found)

    @staticmethod
    def address(handle: Handle) -> int:
        """Return what tells an element from all others of its circuit: two names may be spelled alike."""
        return int(ffi.cast("intptr_t", handle))

    def written_order(self, handles: Sequence[Handle], class_name: str, name: str) -> IntArray:
        """Return when the model last wrote a property of each element, counted from 1; 0 where it never did."""
        if not handles:
            return np.empty(0, dtype=np.int64)
        batch = ffi.new("void*[]", list(handles))
        lib.Batch_GetPropSeq(self._index_result, self._index_dims, batch, len(handles))
        self.check()
        raw = np.frombuffer(ffi.buffer(self._index_result[0], self._index_dims[0] * 4), dtype=np.int32)
        return raw.reshape(len(handles), -1)[:, self.property_index(class_name, name)].astype(np.int64)

    def any_written(self, handles: Sequence[Handle], class_name: str, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether the model says any of some properties of each element itself; see :meth:`is_written`."""
        found = np.zeros(len(handles), dtype=np.bool_)
        for name in names:
            found |= self.written_order(handles, class_name, name) > 0
        return found

    def get_all_terminals(self, handles: Sequence[Handle]) -> tuple[IntArray, IntArray, IntArray]:
        """Return the number of phases, of terminals and of conductors in each of many elements, each shape (n,)."""
        if not handles:
            return (np.empty(0, dtype=np.int64),) * 3
        batch, found = ffi.new("void*[]", list(handles)), list[IntArray]()
        for name in ("Alt_CE_Get_NumPhases", "Alt_CE_Get_NumTerminals", "Alt_CE_Get_NumConductors"):
            ask = ffi.addressof(lib, name)
            lib.Batch_GetInt32FromFunc(self._index_result, self._index_dims, batch, len(handles), ask)
            found.append(self._ints())
        self.check()
        return found[0], found[1], found[2]

    def get_all_node_refs(self, handles: Sequence[Handle]) -> IntArray:
        """Return :meth:`node_ref` of many elements, one behind the other."""
        ask, result, dims, read = lib.Alt_CE_Get_NodeRef, self._index_result, self._index_dims, ffi.buffer
        parts = list[bytes]()
        for handle in handles:
            ask(result, dims, handle)
            parts.append(read(result[0], 4 * dims[0])[:])
        return np.frombuffer(b"".join(parts), dtype=np.int32).astype(np.int64)

    def node_ref(self, handle: Handle) -> IntArray:
        """Return the row of :meth:`voltages` that each conductor of an element is tied to, terminal by terminal."""
        lib.Alt_CE_Get_NodeRef(self._index_result, self._index_dims, handle)
        return self._ints()

    def yprim(self, handle: Handle) -> ComplexArray:
        """Return the primitive admittance matrix of an element [S], shape (n_conductors, n_conductors)."""
        lib.Alt_CE_Get_YPrim(self._result, self._result_dims, handle)
        flat = self._floats().view(np.complex128)
        size = round(len(flat) ** 0.5)
        return flat.reshape(size, size, order="F")

    def yprims(self, handles: Sequence[Handle]) -> ComplexArray:
        """Return the primitive admittance matrices of many elements [S], each column by column, one after the other."""
        parts = []
        for handle in handles:
            lib.Alt_CE_Get_YPrim(self._result, self._result_dims, handle)
            parts.append(bytes(ffi.buffer(self._result[0], 8 * self._result_dims[0])))
        return np.frombuffer(b"".join(parts), dtype=np.complex128)

    @staticmethod
    def phases(handle: Handle) -> int:
        """Return the number of phases of an element."""
        return int(lib.Alt_CE_Get_NumPhases(handle))

    @staticmethod
    def terminals(handle: Handle) -> tuple[int, int]:
        """Return the number of terminals of an element and of conductors in each."""
        return int(lib.Alt_CE_Get_NumTerminals(handle)), int(lib.Alt_CE_Get_NumConductors(handle))

    def bulk_writer(self, class_name: str, name: str, handles: Sequence[Handle], *, keep_y: bool = True) -> BulkWriter:
        """Prepare the bulk write of one property; ``keep_y`` leaves the admittance matrix as it is."""
        return BulkWriter(handles, self.property_index(class_name, name), keep_y=keep_y)

    def continuing_writer(
        self, class_name: str, name: str, handles: Sequence[Handle], first: FloatArray
    ) -> ContinuingWriter:
        """Prepare the bulk write of a property from which elements seek on; the model has it at ``first``."""
        return ContinuingWriter(handles, self.property_index(class_name, name), first)

    def edit(self, handle: Handle, properties: str) -> None:
        """Edit one element by a command's properties.

        Raises:
            EngineError: OpenDSS refused them.
        """
        name = text_of(lib.Obj_GetFullName(handle))
        opening, closing = next((quotes for quotes in _QUOTES if quotes[1] not in name), _QUOTES[0])
        self.command(f"edit {opening}{name}{closing} {properties}")

    @contextmanager
    def edited_at_once(self, handle: Handle) -> Iterator[None]:
        """Have what is written to an element count as one edit: the engine reckons what follows of it at the end."""
        lib.Obj_BeginEdit(handle)
        try:
            yield
        finally:
            lib.Obj_EndEdit(handle, 1)
            self.check()

    def disable(self, handle: Handle, class_name: str) -> None:
        """Take an element out of the circuit."""
        self.set_int(handle, self.property_index(class_name, "enabled"), 0)

    # -- single writes, for switchgear that moved

    def set_float(self, handle: Handle, property_index: int, value: float) -> None:
        """Write a number of one element; the admittance matrix is rebuilt where it depends on it."""
        lib.Obj_SetFloat64(handle, property_index, value, 0)

    def set_int(self, handle: Handle, property_index: int, value: int) -> None:
        """Write a whole number of one element."""
        lib.Obj_SetInt32(handle, property_index, value, 0)

    def set_object(self, handle: Handle, property_index: int, other: Handle | None) -> None:
        """Have a property of one element refer to another object, or to none."""
        lib.Obj_SetObject(handle, property_index, ffi.NULL if other is None else other, 0)
        self.check()

    def set_names(self, handle: Handle, property_index: int, names: Sequence[str]) -> None:
        """Write a list of names of one element."""
        kept = [ffi.new("char[]", name.encode("utf-8")) for name in names]
        lib.Obj_SetStringArray(handle, property_index, ffi.new("char*[]", kept), len(kept), 0)

    def set_floats(self, handle: Handle, property_index: int, values: Sequence[float] | FloatArray) -> None:
        """Write an array of one element."""
        data = np.ascontiguousarray(values, dtype=np.float64)
        lib.Obj_SetFloat64Array(handle, property_index, ffi.cast("double*", ffi.from_buffer(data)), len(data), 0)

    def set_capacitor_states(self, name: str, states: Sequence[int]) -> None:
        """Switch the steps of a capacitor, 1 is on; ``Obj_SetInt32Array`` leaves them as they are, silently."""
        data = np.asarray(states, dtype=np.int32)
        lib.ctx_Capacitors_Set_Name(self._context, name.encode("utf-8"))
        self.check()
        lib.ctx_Capacitors_Set_States(self._context, ffi.cast("int32_t*", ffi.from_buffer(data)), len(data))

    def reset_protection(self, class_name: str, name: str) -> None:
        """Let a fuse, relay or recloser forget that it tripped; it puts its line where it normally is."""
        getattr(lib, f"ctx_{class_name}s_Set_Name")(self._context, name.encode("utf-8"))
        self.check()
        getattr(lib, f"ctx_{class_name}s_Reset")(self._context)

    def set_open(self, handle: Handle, *, is_open: bool) -> None:
        """Open the phases of an element's first terminal, or close all phases of all its terminals."""
        if is_open:
            lib.Alt_CE_Open(handle, 1, 0)
        else:
            for terminal in range(1, self.terminals(handle)[0] + 1):
                lib.Alt_CE_Close(handle, terminal, 0)

    def open_at(self, handle: Handle, places: Sequence[tuple[int, int]]) -> None:
        """Open single phases of an element, each given as (terminal, phase) from 1."""
        for terminal, phase in places:
            lib.Alt_CE_Open(handle, terminal, phase)

    def open_places(self, handle: Handle, *, neutrals: bool = False) -> tuple[tuple[int, int], ...]:
        """Return the (terminal, phase) places, from 1, where an element is open; those of neutrals if asked."""
        conductors = self.terminals(handle)[1] if neutrals else self.phases(handle)
        return tuple(
            (terminal, phase)
            for terminal in range(1, self.terminals(handle)[0] + 1)
            if lib.Alt_CE_IsOpen(handle, terminal, 0)  # whether any is
            for phase in range(1, conductors + 1)
            if lib.Alt_CE_IsOpen(handle, terminal, phase)
        )

    def any_open(self, handle: Handle) -> bool:
        """Whether any phase of any terminal of an element is open."""
        return self.open_among([handle])[0]

    @staticmethod
    def open_among(handles: Sequence[Handle]) -> list[bool]:
        """Whether any phase of any terminal of each of some elements is open."""
        is_open, n_terminals = lib.Alt_CE_IsOpen, lib.Alt_CE_Get_NumTerminals
        # Terminal by terminal without a generator for each: feeders have thousands of elements of one or two.
        return [
            bool(
                is_open(handle, 1, 0)
                or ((n := n_terminals(handle)) > 1 and is_open(handle, 2, 0))
                or (n > 2 and any(is_open(handle, terminal, 0) for terminal in range(3, n + 1)))
            )
            for handle in handles
        ]

    def closed_among(self, handles: Sequence[Handle]) -> list[bool]:
        """Whether each of some elements is not open in all phases of a terminal; see :meth:`is_open`."""
        some = zip(handles, self.open_among(handles), strict=True)
        return [not (some_open and self.is_open(handle)) for handle, some_open in some]

    def is_open(self, handle: Handle) -> bool:
        """Whether a terminal of an element is open in all phases."""
        places = self.open_places(handle)
        if not places:
            return False
        count = Counter(terminal for terminal, _ in places)
        return self.phases(handle) in count.values()
