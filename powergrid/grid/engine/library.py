"""The engine's library, loaded so that any thread may enter it.

A thread that calls OpenDSS for the first time looks up the locale in the environment, through the array of pointers
that held it when the library was loaded. The C library frees that array when variables are added, and then the call
ends the process with a segmentation fault. So the library is shown an array that stays.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["ffi", "lib", "threads_may_enter"]

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
    from dss_python_backend import ffi, lib

#: Whether a thread may enter the engine that has not done so before, whatever became of the environment since.
threads_may_enter: bool = _is_first and _lasts and sys.platform == "linux"
