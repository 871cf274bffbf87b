"""What the engine says of itself: its classes, their properties, its version. Read once a process."""

from __future__ import annotations

import functools
import json
import os
from typing import Any

from dss_python_backend import ffi, lib


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
    """Give a string of the engine's, empty where there is none."""
    return ffi.string(pointer).decode("utf-8", "replace") if pointer != ffi.NULL else ""


@functools.cache
def _raw_schema() -> dict[str, Any]:
    context = new_context()
    try:
        lib.ctx_DSS_Start(context, 0)
        return dict(json.loads(text_of(lib.DSS_ExtractSchema(context, 0))))
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
def numbers() -> tuple[dict[str, int], dict[tuple[str, str], int], dict[tuple[str, str], tuple[str, str]]]:
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
    """Give the type of a property by its name in ``Engine.to_json``, and the class that it refers to if any.

    Both are as the engine's schema writes them, the type empty where the class has no such property.
    """
    return numbers()[2].get((class_name.lower(), key.lower()), ("", ""))


@functools.cache
def element_classes() -> tuple[str, ...]:
    """Name the classes of circuit elements, as the engine writes them."""
    names = [entry["name"] for entry in _raw_schema()["classes"]]
    return tuple(name for name in names if (name.lower(), "enabled") in numbers()[1])


@functools.cache
def engine_version() -> str:
    """Give the version of the OpenDSS engine library, as it states it itself."""
    context = new_context()
    try:
        lib.ctx_DSS_Start(context, 0)
        text = text_of(lib.ctx_DSS_Get_Version(context))
        return " ".join(text.split()[:5]).replace(" Library version", "")  # the rest is build options
    finally:
        lib.ctx_Dispose(context)
