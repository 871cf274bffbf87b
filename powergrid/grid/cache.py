"""What compiling a feeder found out about it, kept by content: in this process, and on disk for the others.

Only the network description is kept: it is data, and comes back bit for bit. A circuit itself is built anew each
time, since what OpenDSS writes of one (``ToJSON``) leads to other bits. Nothing is unpickled; what cannot be read is
made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.engine import engine_version
from powergrid.grid.feeder import Feeder
from powergrid.grid.network import Branches, FeederControl, Loads, Network

#: Environment variable: another folder, or empty for none.
FOLDER_VARIABLE = "POWERGRID_CACHE"
_MAX_BYTES = 256 * 1024**2
_MAX_FILES = 512
_MAX_IN_MEMORY = 32
_ABANDONED_AFTER_S = 3600.0
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, NotImplementedError)
_MAKERS = (
    *("cache.py", "compile.py", "controls.py", "network.py", "windings.py", "engine/__init__.py"),
    "engine/elements.py",
)
_TABLES = {table.__name__: table for table in (Network, Branches, FeederControl, Loads)}

_in_memory: OrderedDict[str, Network] = OrderedDict()


def cache_folder() -> Path | None:
    """Give the folder of the cache, None where it is switched off or there is no place for it."""
    written = os.environ.get(FOLDER_VARIABLE)
    if written is not None:
        return Path(written).expanduser().absolute() if written else None
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(base) / "powergrid" if base else Path.home() / ".cache" / "powergrid"
    except RuntimeError:  # nobody's home
        return None


def recall(feeder: Feeder) -> Network | None:
    """Give the description of a feeder that was compiled before, here or in another process, None where it was not.

    Its arrays are shared and cannot be written.
    """
    key = _key(feeder)
    if key is None:
        return None
    if key not in _in_memory:
        network = _read(key)
        if network is None:
            return None
        _remember(key, network)
    _in_memory.move_to_end(key)
    return _with_microgrids(feeder, _in_memory[key])


def keep(feeder: Feeder, network: Network) -> Network:
    """Keep a feeder's description, and give it back with arrays that cannot be written."""
    _freeze(network)
    key = _key(feeder)
    if key is not None:
        _remember(key, network)
        _write(key, network)
    return _with_microgrids(feeder, network)


def _with_microgrids(feeder: Feeder, network: Network) -> Network:
    """Add what the feeder itself says of its microgrids: that is not kept."""
    return dataclasses.replace(network, microgrids=feeder.microgrids) if feeder.microgrids else network


def forget() -> None:
    """Drop what this process remembers; the files stay."""
    _in_memory.clear()


def _remember(key: str, network: Network) -> None:
    _in_memory[key] = network
    while len(_in_memory) > _MAX_IN_MEMORY:
        _in_memory.popitem(last=False)


def _key(feeder: Feeder) -> str | None:
    """Give the hash of all that a description depends on, None for a feeder that is not of files."""
    if not feeder.digest:
        return None
    key = hashlib.sha256(f"{_makers()}\n{feeder.digest}\n".encode())
    key.update("\n".join(command.text for command in feeder.commands).encode("utf-8", "surrogatepass"))
    key.update(feeder.circuit.encode("utf-8", "surrogatepass"))
    return key.hexdigest()


@functools.cache
def _makers() -> str:
    """Name engine, release and code that make a description: an entry of others is not found."""
    code = hashlib.sha256()
    for name in _MAKERS:
        with contextlib.suppress(OSError):  # not installed as files: the release has to do
            code.update((Path(__file__).parent / name).read_bytes())
    try:
        release = importlib.metadata.version("powergrid-dss")
    except importlib.metadata.PackageNotFoundError:
        release = "unknown"
    return f"{engine_version()} {release} numpy {np.__version__} {code.hexdigest()}"


# -- files


def _read(key: str) -> Network | None:
    folder = cache_folder()
    if folder is None:
        return None
    file = folder / f"{key}.npz"
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as entries:
            network = _decode(json.loads(bytes(entries["text"])), entries)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        NotImplementedError,
    ):
        return None
    if not isinstance(network, Network):
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # the oldest go first
    _freeze(network)
    return network


def _write(key: str, network: Network) -> None:
    """Write an entry under another name and move it: who reads finds all of it or nothing."""
    folder = cache_folder()
    if folder is None:
        return
    arrays: dict[str, npt.NDArray[Any]] = {}
    text = json.dumps(_encode(network, arrays)).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f"{key[:16]}-", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, allow_pickle=False, text=np.frombuffer(text, dtype=np.uint8), **arrays)
            os.replace(name, folder / f"{key}.npz")
        except BaseException:
            os.unlink(name)
            raise
        _prune(folder)
    except OSError:  # read-only, full, no folder: it is only a cache
        return


def _prune(folder: Path) -> None:
    """Remove the entries used longest ago until the cache is within its bounds; others may do so at the same time."""
    entries = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError):
            stat = file.stat()
            if file.suffix == ".npz":
                entries.append((stat.st_mtime, stat.st_size, file))
            elif file.suffix == ".tmp" and stat.st_mtime < time.time() - _ABANDONED_AFTER_S:
                file.unlink()
    entries.sort(key=lambda entry: entry[0], reverse=True)
    n_bytes = 0
    for place, (_, size, file) in enumerate(entries):
        n_bytes += size
        if place and (n_bytes > _MAX_BYTES or place >= _MAX_FILES):  # the newest stays, however large
            with contextlib.suppress(OSError):
                file.unlink()


# -- a network as JSON and arrays


def _encode(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Turn a table into JSON that refers to arrays by name."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if dataclasses.is_dataclass(value):
        fields = {f.name: _encode(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"table": type(value).__name__, "fields": fields}
    if isinstance(value, tuple | list):
        if all(isinstance(item, str) for item in value):
            return {"names": list(value)}
        return {"tuple": [_encode(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"pairs": [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]}
    if value is None or isinstance(value, str | bool | int | float):
        return {"value": value}
    raise TypeError(f"a network holds a {type(value).__name__}, which the cache does not know")


def _decode(data: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    ((kind, content), *_) = data.items()
    if kind == "array":
        return arrays[content]
    if kind == "table":
        return _TABLES[content](**{name: _decode(entry, arrays) for name, entry in data["fields"].items()})
    if kind == "names":
        return tuple(content)
    if kind == "tuple":
        return tuple(_decode(item, arrays) for item in content)
    if kind == "pairs":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in content}
    return content


def _freeze(value: Any) -> None:
    """Keep arrays that are shared from being written."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _freeze(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            _freeze(item)
    elif isinstance(value, tuple) and not (value and isinstance(value[0], str)):
        for item in value:
            _freeze(item)
