"""One OpenDSS context: its life, its text commands, its errors. It writes nothing beside the user's files."""

from __future__ import annotations

import functools
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from powergrid.errors import EngineError
from powergrid.grid.engine.bulk import FloatArray, IntArray
from powergrid.grid.engine.library import ffi, lib, new_context, text_of

#: OpenDSS's error numbers by what they are about; others are values that it refuses.
_REFUSALS = {
    "missing-data-file": (613, 70401, 242, 243, 58613, 58622),
    "unknown-property": (110, 263, 264, 302),
    "unknown-name": (401, 124, 245, 405, 904, 403, 10103, 14403, 661, 663, 665, 372, 37201, 524),
    "duplicate-name": (266,),
    "impossible-element": (183, 185),
}
_FILE_WORDS = ("could not be opened", "error opening file", "file not found", "no such file")
#: What commands begin with, as they are written here, that drop no element.
_DROPPING_NOTHING = ("edit ", "batchedit ", "set ", "get ", "new Fault.", "new Generator.", "new XYCurve.")
#: By thread, what disposes of its contexts that were closed in another.
_LEFT: dict[int, list[Callable[[], None]]] = {}


def classify_refusal(error: EngineError) -> str:
    """Return the code of what OpenDSS refused: ``unknown-name``, ``missing-data-file`` ..., else ``bad-value``."""
    # A refusal inside another command has the outer one's number; the inner one stands in the text only.
    nested = re.findall(r"Error (\d+) Reported From", error.message)
    number = int(nested[-1]) if nested else error.number
    # One number serves for several reasons in OpenDSS, which only its text tells apart.
    text = error.brief.lower()
    if any(words in text for words in _FILE_WORDS):
        return "missing-data-file"
    if "not found" in text or "not set" in text:
        return "unknown-name" if "object type" not in text else "unknown-property"
    if "wiredata is not" in text or "matrix inversion" in text:
        return "impossible-element"
    return next((code for code, numbers in _REFUSALS.items() if number in numbers), "bad-value")


def _drop(held: list[Any]) -> None:
    """Let go of an object here and now."""
    held.clear()


@functools.cache
def _output_folder() -> tempfile.TemporaryDirectory[str]:
    """Return the one folder of this process that the engine may write to; it goes with the process."""
    return tempfile.TemporaryDirectory(prefix="powergrid-engine-")


class Context:
    """Own one OpenDSS context; several live in one process without touching each other.

    It belongs to the thread that made it: disposing of it in another ends the process, and the garbage collector runs
    in whatever thread it likes. What is closed elsewhere is therefore kept until its own thread makes the next one.

    The process's working directory never changes, nothing is written outside a temporary folder, and
    no editor, form or shell command can run.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        for leave in _LEFT.pop(self._thread, ()):
            leave()
        self._context: Any = new_context()
        lib.ctx_DSS_Start(self._context, 0)
        self._error = lib.ctx_Error_Get_NumberPtr(self._context)
        self._direct: Any = None
        # Compile would change the folder of the whole process, a race between threads. The other three are what a file
        # could reach the machine by; forms and commands are off by default, which a later engine may change.
        lib.ctx_DSS_Set_AllowChangeDir(self._context, 0)
        lib.ctx_DSS_Set_AllowEditor(self._context, 0)
        lib.ctx_DSS_Set_AllowForms(self._context, 0)
        lib.ctx_DSS_Set_AllowDOScmd(self._context, 0)
        self._known: dict[str, tuple[tuple[str, ...], list[Any], Any]] = {}
        self._v_pointer = ffi.new("double**")
        self._result = ffi.new("double**")
        self._result_dims = ffi.new("int32_t[4]")
        self._index_result = ffi.new("int32_t**")
        self._index_dims = ffi.new("int32_t[4]")

    def command(self, text: str) -> str:
        """Run one text command and return its result.

        Raises:
            EngineError: OpenDSS refused it; with its number and text.
        """
        if self._known and not text.startswith(_DROPPING_NOTHING):
            self._known.clear()
        lib.ctx_Text_Set_Command(self._context, text.encode("utf-8"))
        self.check()
        return text_of(lib.ctx_Text_Get_Result(self._context))

    def check(self) -> None:
        """Raise what the engine holds as its last error, and clear it.

        Raises:
            EngineError: with OpenDSS's number and text.
        """
        number = int(self._error[0])
        if number:
            self._error[0] = 0
            raise EngineError(text_of(lib.ctx_Error_Get_Description(self._context)).strip(), number)

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
        """Release the context; views and handles of it are invalid from here on."""
        if self._context is not None:
            context, self._context, direct, self._direct = self._context, None, self._direct, None
            for pointer in (self._result, self._index_result):
                if pointer[0] != ffi.NULL:
                    (lib.DSS_Dispose_PDouble if pointer is self._result else lib.DSS_Dispose_PInteger)(pointer)
            # OpenDSSDirect's own wrapper, where there is one, disposes of the context it was given.
            leave = (
                functools.partial(lib.ctx_Dispose, context) if direct is None else functools.partial(_drop, [direct])
            )
            del direct
            if threading.get_ident() == self._thread:
                leave()
            else:
                _LEFT.setdefault(self._thread, []).append(leave)

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
