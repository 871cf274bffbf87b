"""One OpenDSS context: sandboxed text commands, handles, bulk reads and writes, solves.

The only module that knows the engine's packages. It knows no feeders, devices or agents. Names become
handles once, after compiling; nothing in here looks a name up while stepping.
"""

from __future__ import annotations

import functools
import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from dss_python_backend import ffi, lib

from powergrid.errors import EngineError

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
IntArray = npt.NDArray[np.int64]
Handle = Any

_AVOID_FULL_RECALC = 2
_REUSE_SYMBOLIC_FACTORISATION = 2
_WHOLE_MATRIX = 2
TOO_MANY_CONTROL_ITERATIONS = 485
_TOO_MANY_TEXT = "Max Control Iterations"  # the number is 99 where the limit is hit outside a text command


def _text(pointer: Any) -> str:
    return ffi.string(pointer).decode("utf-8", "replace") if pointer != ffi.NULL else ""


@functools.cache
def _output_folder() -> tempfile.TemporaryDirectory[str]:
    """Give the one folder of this process that the engine may write to; it goes with the process."""
    return tempfile.TemporaryDirectory(prefix="powergrid-engine-")


@functools.cache
def _raw_schema() -> dict[str, Any]:
    context = lib.ctx_New()
    try:
        lib.ctx_DSS_Start(context, 0)
        return dict(json.loads(_text(lib.DSS_ExtractSchema(context, 0))))
    finally:
        lib.ctx_Dispose(context)


@functools.cache
def property_tables() -> dict[str, dict[str, bool]]:
    """Give the properties of every element class in the engine's order, and whether each names a file; lower case."""
    return {
        entry["name"].lower(): {
            prop["name"].lower(): "IsFilename" in prop["flags"]
            for prop in sorted(entry["properties"], key=lambda prop: int(prop["index"]))
        }
        for entry in _raw_schema()["classes"]
    }


@functools.cache
def _schema() -> tuple[dict[str, int], dict[tuple[str, str], int], dict[tuple[str, str], tuple[str, str]]]:
    """Read the numbers of the engine's classes, its properties, and their types by the names that data have."""
    schema = _raw_schema()
    classes = {entry["name"].lower(): int(entry["index"]) for entry in schema["classes"]}
    properties, types = {}, {}
    for entry in schema["classes"]:
        for prop in entry["properties"]:
            properties[entry["name"].lower(), prop["name"].lower()] = int(prop["index"])
            types[entry["name"].lower(), prop["altName"].lower()] = (str(prop["type"]), str(prop["params"][1]))
    return classes, properties, types


def property_type(class_name: str, key: str) -> tuple[str, str]:
    """Give the type of a property by its name in :meth:`Engine.to_json`, and the class that it refers to if any.

    Both are as the engine's schema writes them, the type empty where the class has no such property.
    """
    return _schema()[2].get((class_name.lower(), key.lower()), ("", ""))


@functools.cache
def _element_classes() -> tuple[str, ...]:
    names = [entry["name"] for entry in _raw_schema()["classes"]]
    return tuple(name for name in names if (name.lower(), "enabled") in _schema()[1])


@functools.cache
def engine_version() -> str:
    """Give the version of the OpenDSS engine library, as it states it itself."""
    engine = Engine()
    try:
        text = _text(lib.ctx_DSS_Get_Version(engine._context))
        return " ".join(text.split()[:5]).replace(" Library version", "")  # the rest is build options
    finally:
        engine.close()


class BulkWriter:
    """Write one property of many elements of a class in a single call.

    Attributes:
        values: The buffer that is written, shape (n,); fill it in place, then call :meth:`write`.
    """

    __slots__ = ("_batch", "_count", "_flags", "_pointer", "_property", "values")

    def __init__(self, handles: Sequence[Handle], property_index: int, *, keep_y: bool) -> None:
        self.values: FloatArray = np.zeros(len(handles))
        self._batch = ffi.new("void*[]", list(handles))
        self._count = len(handles)
        self._property = property_index
        self._flags = _AVOID_FULL_RECALC if keep_y else 0
        self._pointer = ffi.cast("double*", ffi.from_buffer(self.values))

    def write(self) -> None:
        """Send the buffer to the engine."""
        lib.Batch_Float64Array(self._batch, self._count, self._property, 0, self._pointer, self._flags)


class PowerReader:
    """Read the terminal powers of many elements in a single call, summed per element."""

    __slots__ = ("_batch", "_count", "_dims", "_flat", "_pointer", "_result", "_starts")

    def __init__(self, handles: Sequence[Handle]) -> None:
        self._batch = ffi.new("void*[]", list(handles))
        self._count = len(handles)
        self._result = ffi.new("double**")
        self._dims = ffi.new("int32_t[4]")
        sizes = [int(lib.Alt_CE_Get_NumConductors(h)) * int(lib.Alt_CE_Get_NumTerminals(h)) for h in handles]
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._pointer: Any = ffi.NULL
        self._flat: ComplexArray = np.empty(0, dtype=complex)

    def read(self) -> ComplexArray:
        """Give the complex power that each element draws from the circuit [kW + j kvar], shape (n,)."""
        lib.Alt_CEBatch_Get_Powers(self._result, self._dims, self._batch, self._count)
        if self._result[0] != self._pointer:  # the engine keeps its buffer while the size stays
            self._pointer = self._result[0]
            self._flat = np.frombuffer(ffi.buffer(self._pointer, self._dims[0] * 8), dtype=np.complex128)
        return np.add.reduceat(self._flat, self._starts)

    def __del__(self) -> None:
        if lib is not None and self._result[0] != ffi.NULL:
            lib.DSS_Dispose_PDouble(self._result)


class Engine:
    """Own one OpenDSS context; several live in one process without touching each other.

    The process's working directory never changes, nothing is written outside a temporary folder, and
    no editor, form or shell command can run.
    """

    def __init__(self) -> None:
        self._context: Any = lib.ctx_New()
        lib.ctx_DSS_Start(self._context, 0)
        self._error = lib.ctx_Error_Get_NumberPtr(self._context)
        self._direct: Any = None
        lib.ctx_DSS_Set_AllowChangeDir(self._context, 0)
        lib.ctx_DSS_Set_AllowEditor(self._context, 0)
        lib.ctx_DSS_Set_AllowForms(self._context, 0)
        lib.ctx_DSS_Set_AllowDOScmd(self._context, 0)
        self._v_pointer = ffi.new("double**")
        self._result = ffi.new("double**")
        self._result_dims = ffi.new("int32_t[4]")
        self._index_result = ffi.new("int32_t**")
        self._index_dims = ffi.new("int32_t[4]")

    # -- text, for building; never used while stepping

    def command(self, text: str) -> str:
        """Run one text command and give its result.

        Raises:
            EngineError: OpenDSS refused it; with its number and text.
        """
        lib.ctx_Text_Set_Command(self._context, text.encode("utf-8"))
        self.check()
        return _text(lib.ctx_Text_Get_Result(self._context))

    def check(self) -> None:
        """Raise what the engine holds as its last error, and clear it.

        Raises:
            EngineError: with OpenDSS's number and text.
        """
        number = int(self._error[0])
        if number:
            self._error[0] = 0
            raise EngineError(_text(lib.ctx_Error_Get_Description(self._context)).strip(), number)

    def clear(self) -> None:
        """Drop the circuit, keep the context."""
        self.command("clear")

    def set_folder(self, folder: Path) -> None:
        """Let relative file names in commands start at a folder; the process's own stays where it is."""
        lib.ctx_DSS_Set_DataPath(self._context, str(folder).encode("utf-8"))
        self.check()

    def leave_folder(self) -> None:
        """Send whatever the engine may still write to this process's temporary folder."""
        self.set_folder(Path(_output_folder().name))

    def prepare(self, *, tolerance: float, max_iterations: int) -> None:
        """Set the solution options that belong to a compiled circuit.

        Args:
            tolerance: Convergence tolerance of the fixed-point iteration [pu].
            max_iterations: Limit of power-flow and of control iterations.
        """
        for option in ("mode=snapshot", "controlmode=static", "number=1"):
            self.command(f"set {option}")
        lib.ctx_Solution_Set_Tolerance(self._context, tolerance)
        lib.ctx_Solution_Set_MaxIterations(self._context, max_iterations)
        lib.ctx_Solution_Set_MaxControlIterations(self._context, max_iterations)
        lib.ctx_YMatrix_Set_SolverOptions(self._context, _REUSE_SYMBOLIC_FACTORISATION)
        self.check()

    @property
    def load_multiplier(self) -> float:
        """The circuit's multiplier of all loads whose status is variable."""
        return float(lib.ctx_Solution_Get_LoadMult(self._context))

    @load_multiplier.setter
    def load_multiplier(self, value: float) -> None:
        lib.ctx_Solution_Set_LoadMult(self._context, value)

    # -- names, once after compiling

    @staticmethod
    def element_classes() -> tuple[str, ...]:
        """Name the classes of circuit elements, as the engine writes them."""
        return _element_classes()

    @staticmethod
    def property_index(class_name: str, property_name: str) -> int:
        """Give the engine's number of a property, letter case ignored."""
        try:
            return _schema()[1][class_name.lower(), property_name.lower()]
        except KeyError:
            raise EngineError(f"OpenDSS has no property {class_name}.{property_name}") from None

    def handles(self, class_name: str) -> dict[str, Handle]:
        """Give the enabled elements of a class: lower-case name to handle, in the engine's order."""
        index = _schema()[0][class_name.lower()]
        enabled = self.property_index(class_name, "enabled") if (class_name.lower(), "enabled") in _schema()[1] else 0
        found: dict[str, Handle] = {}
        for position in range(lib.Obj_GetCount(self._context, index)):
            handle = lib.Obj_GetHandleByIdx(self._context, index, position + 1)
            if not enabled or lib.Obj_GetInt32(handle, enabled):
                name = _text(lib.Obj_GetName(handle)).lower()
                found[name if name not in found else f"{name}#{position + 1}"] = handle  # AllowDuplicates
        self.check()
        return found

    def get_float(self, handle: Handle, class_name: str, name: str) -> float:
        """Read a number of an element."""
        return float(lib.Obj_GetFloat64(handle, self.property_index(class_name, name)))

    def get_int(self, handle: Handle, class_name: str, name: str) -> int:
        """Read a whole number or an option's ordinal of an element."""
        return int(lib.Obj_GetInt32(handle, self.property_index(class_name, name)))

    def get_text(self, handle: Handle, class_name: str, name: str) -> str:
        """Read any property of an element as OpenDSS prints it."""
        pointer = lib.Obj_GetAsString(handle, self.property_index(class_name, name))
        try:
            return _text(pointer)
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
        """Read a list of names of an element."""
        return [word for word in re.split(r"[\s,]+", self.get_text(handle, class_name, name).strip("[]() ")) if word]

    def to_json(self) -> dict[str, Any]:
        """Give the whole circuit as data, as OpenDSS writes it.

        Raises:
            EngineError: there is no circuit, or a number in it is not finite.
        """
        pointer = lib.ctx_Circuit_ToJSON(self._context, 0)  # the context's own buffer: not ours to dispose
        self.check()
        try:
            return dict(json.loads(_text(pointer)))
        except ValueError:  # it writes +Inf, which is no JSON
            raise EngineError("a number in the circuit is not finite") from None

    def from_json(self, circuit: Mapping[str, Any]) -> None:
        """Build a circuit from data as :meth:`to_json` gives them, in place of the one that is there.

        Raises:
            EngineError: OpenDSS refused them.
        """
        self.clear()
        lib.ctx_Circuit_FromJSON(self._context, json.dumps(circuit).encode("utf-8"), 0)
        self.check()

    def buses(self) -> dict[str, tuple[float, float, float]]:
        """Give each bus's line-to-neutral base voltage [kV], 0 where none, and coordinates, NaN where none."""
        names = ffi.new("char***")
        dims = ffi.new("int32_t[4]")
        lib.ctx_Circuit_Get_AllBusNames(self._context, names, dims)
        try:
            self.check()
            found = {}
            for i in range(dims[0]):
                lib.ctx_Circuit_SetActiveBusi(self._context, i)
                placed = lib.ctx_Bus_Get_Coorddefined(self._context)
                found[_text(names[0][i]).lower()] = (
                    float(lib.ctx_Bus_Get_kVBase(self._context)),
                    float(lib.ctx_Bus_Get_x(self._context)) if placed else math.nan,
                    float(lib.ctx_Bus_Get_y(self._context)) if placed else math.nan,
                )
            return found
        finally:
            lib.DSS_Dispose_PPAnsiChar(names, dims[1])

    def node_names(self) -> tuple[str, ...]:
        """Give the ``bus.node`` names in the order of :meth:`voltages`, lower case."""
        names = ffi.new("char***")
        dims = ffi.new("int32_t[4]")
        lib.ctx_Circuit_Get_YNodeOrder(self._context, names, dims)
        try:
            self.check()
            return tuple(_text(names[0][i]).lower() for i in range(dims[0]))
        finally:
            lib.DSS_Dispose_PPAnsiChar(names, dims[1])

    def voltages(self, n_nodes: int) -> ComplexArray:
        """Give the engine's own node voltages [V] without a copy, shape (n_nodes + 1,).

        Entry 0 is ground. The view is valid until the circuit gets a new bus or is compiled again.
        """
        lib.ctx_YMatrix_getVpointer(self._context, self._v_pointer)
        return np.frombuffer(ffi.buffer(self._v_pointer[0], 16 * (n_nodes + 1)), dtype=np.complex128)

    def node_ref(self, handle: Handle) -> IntArray:
        """Give the row of :meth:`voltages` that each conductor of an element is tied to, terminal by terminal."""
        lib.Alt_CE_Get_NodeRef(self._index_result, self._index_dims, handle)
        return self._ints()

    def yprim(self, handle: Handle) -> ComplexArray:
        """Give the primitive admittance matrix of an element [S], shape (n_conductors, n_conductors)."""
        lib.Alt_CE_Get_YPrim(self._result, self._result_dims, handle)
        flat = self._floats().view(np.complex128)
        size = round(len(flat) ** 0.5)
        return flat.reshape(size, size, order="F")

    @staticmethod
    def phases(handle: Handle) -> int:
        """Give the number of phases of an element."""
        return int(lib.Alt_CE_Get_NumPhases(handle))

    @staticmethod
    def terminals(handle: Handle) -> tuple[int, int]:
        """Give the number of terminals of an element and of conductors in each."""
        return int(lib.Alt_CE_Get_NumTerminals(handle)), int(lib.Alt_CE_Get_NumConductors(handle))

    def bulk_writer(self, class_name: str, name: str, handles: Sequence[Handle], *, keep_y: bool = True) -> BulkWriter:
        """Prepare the bulk write of one property; ``keep_y`` leaves the admittance matrix as it is."""
        return BulkWriter(handles, self.property_index(class_name, name), keep_y=keep_y)

    # -- single writes, for switchgear that moved

    def set_float(self, handle: Handle, property_index: int, value: float) -> None:
        """Write a number of one element; the admittance matrix is rebuilt where it depends on it."""
        lib.Obj_SetFloat64(handle, property_index, value, 0)

    def set_int(self, handle: Handle, property_index: int, value: int) -> None:
        """Write a whole number of one element."""
        lib.Obj_SetInt32(handle, property_index, value, 0)

    def set_names(self, handle: Handle, property_index: int, names: Sequence[str]) -> None:
        """Write a list of names of one element."""
        kept = [ffi.new("char[]", name.encode("utf-8")) for name in names]
        lib.Obj_SetStringArray(handle, property_index, ffi.new("char*[]", kept), len(kept), 0)

    def set_floats(self, handle: Handle, property_index: int, values: Sequence[float]) -> None:
        """Write an array of one element."""
        lib.Obj_SetFloat64Array(handle, property_index, ffi.new("double[]", list(values)), len(values), 0)

    def set_clock(self, hours: float) -> None:
        """Tell the controls what time it is [h]; nothing advances."""
        lib.ctx_Solution_Set_Hour(self._context, int(hours))
        lib.ctx_Solution_Set_Seconds(self._context, (hours - int(hours)) * 3600.0)

    def finish_actions(self) -> None:
        """Carry out the actions of controls that are still waiting."""
        lib.ctx_CtrlQueue_DoAllQueue(self._context)

    def set_capacitor_states(self, name: str, states: Sequence[int]) -> None:
        """Switch the steps of a capacitor, 1 is on; ``Obj_SetInt32Array`` leaves them as they are, silently."""
        data = np.asarray(states, dtype=np.int32)
        lib.ctx_Capacitors_Set_Name(self._context, name.encode("utf-8"))
        self.check()
        lib.ctx_Capacitors_Set_States(self._context, ffi.cast("int32_t*", ffi.from_buffer(data)), len(data))

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

    def open_places(self, handle: Handle) -> tuple[tuple[int, int], ...]:
        """Give the (terminal, phase) places, from 1, where an element is open."""
        return tuple(
            (terminal, phase)
            for terminal in range(1, self.terminals(handle)[0] + 1)
            if lib.Alt_CE_IsOpen(handle, terminal, 0)  # whether any is
            for phase in range(1, self.phases(handle) + 1)
            if lib.Alt_CE_IsOpen(handle, terminal, phase)
        )

    def is_open(self, handle: Handle) -> bool:
        """Whether a terminal of an element is open in all phases."""
        places = self.open_places(handle)
        if not places:
            return False
        count = Counter(terminal for terminal, _ in places)
        return self.phases(handle) in count.values()

    def keep_y(self) -> None:
        """Tell the engine that the last writes left the admittance matrix as it was."""
        lib.ctx_YMatrix_Set_SystemYChanged(self._context, 0)

    def build_y(self) -> None:
        """Build the admittance matrix now, of what is written so far; voltages stay.

        Twice: where something else changed as well, the engine leaves moved taps to the next time.
        """
        for _ in range(2):
            lib.ctx_Solution_BuildYMatrix(self._context, _WHOLE_MATRIX, 0)
        self.keep_y()
        self.check()

    # -- solving

    def solve(self, *, controls: bool = False) -> bool:
        """Solve the power flow and say whether it converged.

        Args:
            controls: Let the feeder's own controls act; else they are held.

        Raises:
            EngineError: OpenDSS reported something else than too many control iterations.
        """
        (lib.ctx_Solution_Solve if controls else lib.ctx_Solution_SolveNoControl)(self._context)
        if self._error[0]:
            self._recover()
            lib.ctx_Solution_SolveNoControl(self._context)  # with the controls where they got to
            self.check()
        return bool(lib.ctx_Solution_Get_Converged(self._context))

    def _recover(self) -> None:
        """Go on after too many control iterations: the engine refuses to solve until the next text command."""
        number = int(self._error[0])
        message = _text(lib.ctx_Error_Get_Description(self._context)).strip()
        self._error[0] = 0
        self.command("get number")
        if number != TOO_MANY_CONTROL_ITERATIONS and _TOO_MANY_TEXT not in message:
            raise EngineError(message, number)

    @property
    def iterations(self) -> int:
        """Power-flow iterations of the last solve."""
        return int(lib.ctx_Solution_Get_Iterations(self._context))

    # -- the outside

    @property
    def direct(self) -> Any:
        """The same context through OpenDSSDirect's own interface, for looking around by hand."""
        if self._direct is None:
            from dss._cffi_api_util import CffiApiUtil
            from opendssdirect.OpenDSSDirect import OpenDSSDirect

            self._direct = OpenDSSDirect(CffiApiUtil(ffi, lib, self._context))
        return self._direct

    def close(self) -> None:
        """Give the context back; views and handles of it are invalid from here on."""
        if self._context is not None:
            context, self._context, direct, self._direct = self._context, None, self._direct, None
            for pointer in (self._result, self._index_result):
                if pointer[0] != ffi.NULL:
                    (lib.DSS_Dispose_PDouble if pointer is self._result else lib.DSS_Dispose_PInteger)(pointer)
            if direct is None:  # else OpenDSSDirect's own wrapper disposes of the context it was given
                lib.ctx_Dispose(context)

    def __del__(self) -> None:
        if lib is not None and getattr(self, "_context", None) is not None:
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("an OpenDSS context does not pickle; pickle what it is built from")

    def _floats(self) -> FloatArray:
        return np.frombuffer(ffi.buffer(self._result[0], self._result_dims[0] * 8), dtype=np.float64).copy()

    def _ints(self) -> IntArray:
        raw = np.frombuffer(ffi.buffer(self._index_result[0], self._index_dims[0] * 4), dtype=np.int32)
        return raw.astype(np.int64)
