"""A folder of the user's cache: entries of text and arrays, found by their key, whole or not at all.

What cannot be read is not there, and what cannot be written is left: it is only a cache. Nothing is unpickled. Knows
nothing of what the entries mean.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import stat
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from filelock import BaseFileLock, FileLock

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

#: Environment variable: another folder, or empty for none.
FOLDER_VARIABLE = "POWERGRID_CACHE"
#: What decoding an entry may raise that is not as it should be.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, NotImplementedError, MemoryError,
              zipfile.BadZipFile)  # fmt: skip
#: How many entries are kept.
MAX_FILES = 4096
_MAX_BYTES = 256 * 1024**2
_ABANDONED_AFTER_S = 3600.0
#: How long a process waits for another that makes the same entry [s].
PATIENCE_S = 10.0
_LOOK_AGAIN_AFTER_S = 0.01
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_IN_MEMORY = 32
#: Each array of an entry begins at a multiple of so many bytes.
_ALIGNED = 16

Kept = TypeVar("Kept")


def cache_folder() -> Path | None:
    """Return the folder of the cache, None where it is switched off or there is no place for it."""
    written = os.environ.get(FOLDER_VARIABLE)
    try:
        if written is not None:
            return Path(written).expanduser().absolute() if written else None
        base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
        return Path(base) / "powergrid" if base else Path.home() / ".cache" / "powergrid"
    except RuntimeError:  # nobody's home
        return None


@functools.cache
def made_by() -> str:
    """Name the release, the libraries and the code of ``powergrid.grid``: an entry that others made is not found."""
    code = hashlib.sha256()
    with contextlib.suppress(OSError):  # not installed as files: the release has to do
        for path in sorted(Path(__file__).parents[1].rglob("*.py")):
            code.update(path.read_bytes())
    try:
        release = importlib.metadata.version("powergrid-dss")
    except importlib.metadata.PackageNotFoundError:
        release = "unknown"
    return f"{release} numpy {np.__version__} {code.hexdigest()}"


def _read_entry(kind: str, key: str) -> tuple[str, Arrays] | None:
    """Return the text and the arrays of an entry, None where there is none that can be read.

    An entry of another user, or that others could have written, is none: a feeder's commands are not checked again.
    """
    folder = cache_folder()
    if folder is None:
        return None
    try:
        with (folder / f"{kind}-{key}.npz").open("rb") as stream:
            if not _is_own(os.fstat(stream.fileno())):
                raise PermissionError
            found = _read_packed(stream)
            with contextlib.suppress(OSError):
                os.utime(stream.name)  # the oldest go first
    except _UNREADABLE:
        return None
    return found


def _is_own(status: os.stat_result) -> bool:
    if sys.platform == "win32":
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_MAY_WRITE


def _write_entry(kind: str, key: str, text: str, arrays: Arrays) -> None:
    """Write an entry under another name and move it: who reads finds all of it or nothing."""
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f"{key[:16]}-", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                write_packed(stream, text, arrays)
            os.replace(name, folder / f"{kind}-{key}.npz")
        except BaseException:
            os.unlink(name)
            raise
        _prune(folder)
    except OSError:  # read-only, full, no folder
        return


def write_packed(stream: IO[bytes], text: str, arrays: Arrays) -> None:
    """Write text and arrays as entries are written: all arrays end to end, which are read in a third of the time."""
    layout, parts = list[tuple[str, str, tuple[int, ...], int]](), list[bytes]()
    for name, array in arrays.items():
        layout.append((name, array.dtype.str, array.shape, array.nbytes))
        parts += [array.tobytes(), bytes(-array.nbytes % _ALIGNED)]
    whole = {"text": text.encode(), "layout": json.dumps(layout).encode(), "data": b"".join(parts)}
    np.savez(stream, allow_pickle=False, **{name: np.frombuffer(each, dtype=np.uint8) for name, each in whole.items()})


def _read_packed(stream: IO[bytes]) -> tuple[str, Arrays]:
    """Return text and arrays as :func:`write_packed` wrote them; raises what ``_UNREADABLE`` lists."""
    with np.load(stream, allow_pickle=False) as entries:
        text, layout, data = (entries[name] for name in ("text", "layout", "data"))
    arrays, at = dict[str, npt.NDArray[Any]](), 0
    for name, kind, shape, n_bytes in json.loads(bytes(layout)):
        arrays[name] = data[at : at + n_bytes].view(kind).reshape(shape)
        at += n_bytes + -n_bytes % _ALIGNED
    return bytes(text).decode(), arrays


@contextlib.contextmanager
def alone(kind: str, key: str) -> Iterator[None]:
    """Make an entry while no other process does: who comes later waits, and should then look for it first.

    Nobody waits for long, and where locks cannot be had nobody waits at all: then the work is done twice.
    """
    folder = cache_folder()
    with contextlib.ExitStack() as held:
        if folder is not None:
            with contextlib.suppress(OSError, RuntimeError):  # read-only or in use for long; held by this thread
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                lock = FileLock(folder / f"{kind}-{key[:32]}.lock", timeout=PATIENCE_S, mode=0o600)
                lock.acquire(poll_interval=_LOOK_AGAIN_AFTER_S)
                held.callback(_release, lock)
        yield


def _release(lock: BaseFileLock) -> None:
    """Free a lock; its file goes first, because one that is unlinked while free may be another's by then."""
    with contextlib.suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()


def _prune(folder: Path) -> None:
    """Remove the entries used longest ago until the cache is within its bounds; others may do so at the same time."""
    entries = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError):
            status = file.stat()
            if file.suffix == ".npz":
                entries.append((status.st_mtime, status.st_size, file))
            elif file.suffix in (".tmp", ".lock") and status.st_mtime < time.time() - _ABANDONED_AFTER_S:
                file.unlink()
    entries.sort(key=lambda entry: entry[0], reverse=True)
    n_bytes = 0
    for place, (_, size, file) in enumerate(entries):
        n_bytes += size
        if place and (n_bytes > _MAX_BYTES or place >= MAX_FILES):  # the newest stays, however large
            with contextlib.suppress(OSError):
                file.unlink()


class Cache(Generic[Kept]):
    """One kind of entry, kept by key: in this process, and on disk for the others; bit for bit what was made.

    Args:
        kind: What the names of its files begin with.
        encode: Return an entry as text and arrays.
        decode: Return the entry that text and arrays are of; one of what ``_UNREADABLE`` lists where they are of none.
    """

    def __init__(
        self, kind: str, encode: Callable[[Kept], tuple[str, Arrays]], decode: Callable[[str, Arrays], Kept]
    ) -> None:
        self._kind, self._encode, self._decode = kind, encode, decode
        self._memory: dict[str, Kept] = {}

    def recall(self, key: str, is_valid: Callable[[Kept], bool] = lambda _: True) -> Kept | None:
        """Return what was kept here or by another process, None where nothing was that is valid."""
        for read in (self._memory.get, self._read):
            kept = read(key)
            if kept is not None and is_valid(kept):
                self._remember(key, kept)
                return kept
        return None

    def keep(self, key: str, kept: Kept) -> None:
        """Keep an entry, on disk if it can be."""
        self._remember(key, kept)
        _write_entry(self._kind, key, *self._encode(kept))

    def keep_packed(self, key: str, packed: bytes) -> None:
        """Keep an entry that another process made, as :func:`write_packed` wrote it; nothing where it is none."""
        with contextlib.suppress(*_UNREADABLE):
            text, arrays = _read_packed(io.BytesIO(packed))
            self._remember(key, self._decode(text, arrays))
            _write_entry(self._kind, key, text, arrays)

    def alone(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Make an entry while no other process does; see :func:`alone`."""
        return alone(self._kind, key)

    def forget(self) -> None:
        """Drop what this process remembers; the files stay."""
        self._memory.clear()

    def _remember(self, key: str, kept: Kept) -> None:
        self._memory.pop(key, None)  # so that the one used longest ago is the first
        self._memory[key] = kept
        while len(self._memory) > _MAX_IN_MEMORY:
            del self._memory[next(iter(self._memory))]

    def _read(self, key: str) -> Kept | None:
        entry = _read_entry(self._kind, key)
        try:
            return None if entry is None else self._decode(*entry)
        except _UNREADABLE:
            return None
