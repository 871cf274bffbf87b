"""Files that may be anybody's: read with an error of ours, written whole or not at all; what they mean it knows not."""

from __future__ import annotations

import codecs
import errno
import io
import json
import math
import os
import socket
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from powergrid.errors import PowerGridError

Form = TypeVar("Form", bound=BaseModel)

#: Most that is read of one file [bytes]: the largest of ours, a policy of some large networks, has a tenth of it.
MAX_BYTES = 512 * 1024**2
_MAX_JSON_BYTES = 64 * 1024**2
#: What libraries may raise of a damaged file beside ``OSError``.
DAMAGED = (ValueError, LookupError, TypeError, EOFError, ArithmeticError, NotImplementedError, RuntimeError,
            MemoryError, SyntaxError, zlib.error, zipfile.BadZipFile)  # fmt: skip
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16, so it is asked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOCK_FILE = ".in-use"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_PICKLED = "holds Python objects, which are not loaded"


def reason_of(error: BaseException) -> str:
    """Say on one line what went wrong with a file, without the file's name."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(said).split())[:300] or type(error).__name__


def path_of(written: str | Path) -> Path:
    """Return the path that a name of the user's means, ``~`` being a home, whether anything is there or not.

    Raises:
        PowerGridError: It can be no path, is of nobody's home, or may not be looked at.
    """
    try:
        path = Path(written).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)
        return path
    except OSError as error:
        if error.errno == errno.ELOOP:  # links in a circle: for Path.exists nothing is there
            return path
        raise PowerGridError(f"{str(written)[:300]!r}: is no path: {reason_of(error)}") from None
    except RuntimeError:
        raise PowerGridError(f"{str(written)[:300]!r}: is no path: nobody has a home folder of that name") from None
    except ValueError as error:  # a null character
        raise PowerGridError(f"{str(written)[:300]!r}: is no path: {reason_of(error)}") from None


def real_path(written: str | Path) -> Path:
    """Return the absolute path that a name of the user's leads to: links are followed as far as they lead anywhere.

    Raises:
        PowerGridError: It can be no path, or is of nobody's home.
    """
    try:
        return path_of(os.path.realpath(path_of(written)))
    except OSError as error:
        raise PowerGridError(f"{str(written)[:300]!r}: is no path: {reason_of(error)}") from None


def read_bytes(file: Path, most: int = MAX_BYTES) -> bytes:
    """Return a file's content.

    Raises:
        PowerGridError: It cannot be read, or is larger than anything that is meant here.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe or a device may have no end
            raise PowerGridError(f"{file}: cannot be read: it is no regular file")
        with file.open("rb") as stream:
            content = stream.read(most + 1)
    except (OSError, ValueError, MemoryError) as error:  # a path with a null character is a ValueError
        raise PowerGridError(f"{file}: cannot be read: {reason_of(error)}") from None
    if len(content) > most:
        raise PowerGridError(f"{file}: is larger than the {most / 1e6:,.0f} MB that are read")
    return content


def decode_text(content: bytes) -> str:
    """Return the text that bytes mean: by their mark, else as UTF-16 where every other byte is 0, UTF-8 or cp1252."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding)
    head = content[:4096]
    # Latin letters and digits leave the high byte of UTF-16 at 0, which no other text has.
    for encoding, high in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if head and high.count(0) > 0.4 * len(high):
            return content.decode(encoding)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # Windows-1252 is Latin-1 with letters where Latin-1 has control characters; five bytes mean nothing in it.
        try:
            return content.decode("cp1252")
        except UnicodeDecodeError:
            return content.decode("latin-1")


def read_json(file: Path, form: type[Form]) -> Form:
    """Return what a JSON file holds, of the form that it shall have.

    Raises:
        PowerGridError: It cannot be read, is not JSON, or has another form; with every place and what came there.
    """
    content = read_bytes(file, _MAX_JSON_BYTES)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:  # not JSON, not text, or a number of thousands of digits
        raise PowerGridError(f"{file}: is not JSON: {reason_of(error)}") from None
    try:
        return form.model_validate(data)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}, not {repr(each['input'])[:60]}"
            for each in error.errors(include_url=False)
        ]
        raise PowerGridError(f"{file}: is not what was written: {'; '.join(lines[:8])}") from None


def read_arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an ``.npz`` file; nothing is unpickled and no more memory taken than the file has content.

    Raises:
        PowerGridError: It cannot be read, is no such file, or holds what is no array of numbers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(file))) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_BYTES:  # a bomb is small until it is unpacked
                raise ValueError(f"unpacks to more than {MAX_BYTES / 1e6:,.0f} MB")
            return {entry.filename.removesuffix(".npy"): _read_array(archive.read(entry)) for entry in entries}
    except (*DAMAGED, OSError) as error:
        raise PowerGridError(f"{file}: no arrays that can be read: {reason_of(error)}") from None


def _read_array(content: bytes) -> npt.NDArray[Any]:
    """Read one ``.npy``, which may claim more than it holds."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the array's format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, kind = read(stream)
    if kind.hasobject:
        raise ValueError(_PICKLED)
    if kind.itemsize * math.prod(shape) != len(content) - stream.tell():
        raise ValueError(f"an array of shape {shape} and {kind}, in {len(content) - stream.tell()} bytes")
    flat = np.frombuffer(content, kind, offset=stream.tell()).copy()
    return flat.reshape(shape, order="F" if by_columns else "C")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield the path to write to in place of a file, which becomes the file when the block ends.

    Where the block raises, or the disk is full, the file is what it was before; who reads meanwhile finds that too.
    """
    target = real_path(file) if file.is_symlink() else file
    if target.exists() and not target.is_file():  # a device or a pipe is written to, never replaced
        yield target
        return
    # Its suffix stays: some writers choose the format by it.
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: who reads it meanwhile, or after a kill, finds the one before.

    Raises:
        PowerGridError: It cannot be written.
    """
    with telling(file), replacing(file) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def append_whole(file: Path, content: str | bytes) -> None:
    """Append to a file all or nothing: what a full disk took of it is cut off again.

    Raises:
        PowerGridError: It cannot be written.
    """
    with telling(file), file.open("ab", buffering=0) as stream:
        end = stream.tell()
        left = memoryview(content.encode() if isinstance(content, str) else content)
        try:
            while left:
                left = left[stream.write(left) :]
        except BaseException:
            with suppress(OSError):
                stream.truncate(end)
            raise


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold a folder for the block; whoever asks for it meanwhile, in this process or another, is told at once.

    Raises:
        PowerGridError: It is held; with the number of the process that holds it. Or it cannot be written to.
    """
    file = folder / _LOCK_FILE
    lock = FileLock(file, timeout=0)
    try:
        holder = file.read_text(errors="replace").strip() if file.exists() else ""
        lock.acquire()
    except (Timeout, RuntimeError):  # the second where this very thread holds it
        who = f"process {holder}" if holder else "another process"
        raise PowerGridError(f"{folder}: is in use by {who}; wait until it has ended, or choose another name") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise PowerGridError(f"{folder}: cannot be written: {reason_of(error)}") from error
        yield  # a file system without locks
        return
    try:
        with telling(folder):
            file.write_text(f"{os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        with suppress(OSError):
            file.unlink()  # first: one that is unlinked while free may be another's by then
        lock.release()


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where there is none.

    Raises:
        PowerGridError: It cannot be made.
    """
    with telling(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def telling(place: str | Path) -> Iterator[None]:
    """Let what the disk or the folder refuses in the block be an error of ours.

    Raises:
        PowerGridError: Something could not be written; with what refused it.
    """
    try:
        yield
    except OSError as error:
        raise PowerGridError(f"{error.filename or place}: cannot be written: {reason_of(error)}") from error
