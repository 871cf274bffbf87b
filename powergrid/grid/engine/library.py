"""The engine's library: loaded so that any thread may enter it, and what it says of itself, read once a process.

A thread that calls OpenDSS for the first time looks up the locale in the environment, through the array of pointers
that held it when the library was loaded. The C library frees that array when variables are added, and then the call
ends the process with a segmentation fault. So the library is shown an array that stays.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cffi

from powergrid.grid.engine.cache_folder import Arrays, Cache, made_by

__all__ = [
    "PRIVATE_NAMES", "element_classes", "engine_version", "ffi", "forget", "lib", "names_of", "new_context", "numbers",
    "property_kinds", "property_tables", "property_type", "solver", "text_of", "threads_may_enter",
]  # fmt: skip

#: What is used of the engine's Python packages beyond their documentation: package, the version that it was tried
#: with, and the names. Nearly all goes through the functions of the C library itself (``dss_python_backend.lib``),
#: whose bulk calls and handles no package offers; a test looks for each that is called in here.
PRIVATE_NAMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "dss_python_backend": (
        "0.14.5",
        ("dss_python_backend.lib", "dss_python_backend.ffi", "dss_python_backend._dss_capi.__file__"),
    ),
    "dss_python": ("0.15.7", ("dss._cffi_api_util.CffiApiUtil",)),  # for Engine.direct only
    "opendssdirect.py": ("0.9.4", ("opendssdirect.OpenDSSDirect.OpenDSSDirect",)),  # likewise
}

_kept: list[Any] = []  # for as long as the library may look at it, which is as long as the process


@contextmanager
def _lasting_environment() -> Iterator[bool]:
    """Let the C library's environment be a copy that is never freed; say whether it is one."""
    try:
        environ = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ")
    except (OSError, ValueError, TypeError):
        yield False
        return
    before, entries = environ.value, list[bytes]()
    pointers = ctypes.cast(before, ctypes.POINTER(ctypes.c_char_p)) if before else (None,)
    while (entry := pointers[len(entries)]) is not None:
        entries.append(entry)
    copy = (ctypes.c_char_p * (len(entries) + 1))(*entries, None)
    _kept.append(copy)
    environ.value = ctypes.addressof(copy)
    try:
        yield True
    finally:
        environ.value = before


_is_first = "dss_python_backend" not in sys.modules
with _lasting_environment() as _lasts:
    from dss_python_backend import _dss_capi, ffi, lib

#: Whether a thread may enter the engine that has not done so before, whatever became of the environment since.
threads_may_enter: bool = _is_first and _lasts and sys.platform == "linux"

#: What is called of the engine's sparse solver: handle of the matrix, row and column, values. Through cffi such a call
#: takes half of what it does through ctypes, and a step that moves switchgear makes dozens.
_SOLVER_CALLS = """
    uint32_t SetOptions(uintptr_t, uint64_t);
    uint32_t FactorSparseMatrix(uintptr_t);
    uint32_t GetMatrixElement(uintptr_t, uint32_t, uint32_t, double *);
    uint32_t ZeroiseMatrixElement(uintptr_t, uint32_t, uint32_t);
    uint32_t IncrementMatrixElement(uintptr_t, uint32_t, uint32_t, double, double);
"""
_KIND = "schema"


class _Property(NamedTuple):
    """A property: its name in commands and in data, number, type, the class that it refers to, whether it is a file."""

    name: str
    in_data: str
    number: int
    kind: str
    refers_to: str
    is_file: bool


class _Class(NamedTuple):
    """A class of elements, and its properties in the engine's order."""

    name: str
    number: int
    properties: tuple[_Property, ...]


def new_context() -> Any:
    """Make a context; the first one of a process moves it to where it was when the library was loaded, so move back."""
    try:
        here = os.getcwd()
    except FileNotFoundError:  # somebody has removed it; there is nothing to go back to
        return lib.ctx_New()
    context = lib.ctx_New()
    os.chdir(here)
    return context


def text_of(pointer: Any) -> str:
    """Return a string of the engine's, empty where there is none."""
    return ffi.string(pointer).decode("utf-8", "replace") if pointer != ffi.NULL else ""


def names_of(pointers: Iterable[Any]) -> list[str]:
    """Return names of the engine's in lower case, thousands of them in half the time that they take one by one."""
    # No name holds a line end, which would end its command.
    return b"\n".join(map(ffi.string, pointers)).decode("utf-8", "replace").lower().split("\n")


def _load_solver() -> Any:
    """Load the sparse solver that the engine brings along; None where it cannot be reached."""
    try:
        # Through the engine's own library, whose dependency it is: its file has another name in each build. Windows
        # does not look a function up in dependencies.
        declared = cffi.FFI()
        declared.cdef(_SOLVER_CALLS)
        found = declared.dlopen(_dss_capi.__file__)
        for name in dir(found):
            getattr(found, name)
    except (OSError, AttributeError):
        return None
    return found


solver = _load_solver()


def _decode_classes(text: str, _: Arrays) -> list[_Class]:
    return [_Class(name, number, tuple(map(_Property._make, own))) for name, number, own in json.loads(text)]


# Kept, since to read it takes as long as to compile a small feeder.
_schema = Cache(_KIND, lambda classes: (json.dumps(classes), {}), _decode_classes)


@functools.cache
def _classes() -> list[_Class]:
    """Return the engine's classes with their properties."""
    key = hashlib.sha256(f"{engine_version()}\0{made_by()}".encode()).hexdigest()
    classes = _schema.recall(key)
    if classes is None:
        classes = [_Class._make(_read_class(entry)) for entry in _raw_schema()["classes"]]
        _schema.keep(key, classes)
    return classes


def _raw_schema() -> dict[str, Any]:
    context = new_context()
    try:
        lib.ctx_DSS_Start(context, 0)
        return dict(json.loads(text_of(lib.DSS_ExtractSchema(context, 0))))
    finally:
        lib.ctx_Dispose(context)


def _read_class(entry: dict[str, Any]) -> tuple[str, int, tuple[_Property, ...]]:
    """Take what is used of a class out of the schema, its properties in the engine's order."""
    own = (
        _Property(
            prop["name"].lower(),
            prop["altName"].lower(),
            int(prop["index"]),
            str(prop["type"]),
            prop["params"][1] if isinstance(prop["params"][1], str) else "",  # else an address or a size
            "IsFilename" in prop["flags"],
        )
        for prop in entry["properties"]
    )
    return entry["name"], int(entry["index"]), tuple(sorted(own, key=lambda prop: prop.number))


@functools.cache
def property_tables() -> dict[str, dict[str, bool]]:
    """Return the properties of every element class in the engine's order, and whether each names a file; lower case."""
    return {each.name.lower(): {prop.name: prop.is_file for prop in each.properties} for each in _classes()}


@functools.cache
def property_kinds() -> dict[str, dict[str, str]]:
    """Return the properties of every element class in the engine's order, and the type of each; names lower case."""
    return {each.name.lower(): {prop.name: prop.kind for prop in each.properties} for each in _classes()}


@functools.cache
def numbers() -> tuple[dict[str, int], dict[tuple[str, str], int], dict[tuple[str, str], tuple[str, str]]]:
    """Read the numbers of the engine's classes, its properties, and their types by the names that data have."""
    classes = {each.name.lower(): each.number for each in _classes()}
    properties, types = {}, {}
    for each in _classes():
        for prop in each.properties:
            properties[each.name.lower(), prop.name] = prop.number
            types[each.name.lower(), prop.in_data] = (prop.kind, prop.refers_to)
    return classes, properties, types


def property_type(class_name: str, key: str) -> tuple[str, str]:
    """Return the type of a property by its name in ``Engine.to_json``, and the class that it refers to if any.

    Both are as the engine's schema writes them, the type empty where the class has no such property.
    """
    return numbers()[2].get((class_name.lower(), key.lower()), ("", ""))


@functools.cache
def element_classes() -> tuple[str, ...]:
    """Name the classes of circuit elements, as the engine writes them."""
    names = [each.name for each in _classes()]
    return tuple(name for name in names if (name.lower(), "enabled") in numbers()[1])


def forget() -> None:
    """Drop what this process remembers of the engine's classes; the files stay."""
    _schema.forget()
    for function in (_classes, property_kinds, property_tables, numbers, element_classes):
        function.cache_clear()


@functools.cache
def engine_version() -> str:
    """Return the version of the OpenDSS engine library, as it states it itself."""
    context = new_context()
    try:
        lib.ctx_DSS_Start(context, 0)
        text = text_of(lib.ctx_DSS_Get_Version(context))
        return " ".join(text.split()[:5]).replace(" Library version", "")  # the rest is build options
    finally:
        lib.ctx_Dispose(context)
