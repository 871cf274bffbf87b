"""What reading and compiling a feeder found out, kept by content: in this process, and on disk for the others.

Two kinds of entries, both data that come back bit for bit; nothing is unpickled, and what cannot be read is made again.

A *scan* is what reading a feeder's files gave. It is taken only where every file still has the content, and every name
still leads to the file, that were read; only what was not refused is kept. So files are read and hashed each time, but
neither cut into commands nor checked again.

A *network* is the description of a compiled circuit. A circuit itself is built anew each time, since what OpenDSS
writes of one (``ToJSON``) leads to other bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from powergrid.grid.engine import engine_version
from powergrid.grid.engine.cache_folder import UNREADABLE, alone, made_by, open_entry, write_entry
from powergrid.grid.feeder.network import Branches, FeederControl, Loads, Network
from powergrid.grid.feeder.reader import Reference, Scan, is_allowed, resolve
from powergrid.grid.feeder.syntax import Command

_MAX_IN_MEMORY = 32
_TABLES = {table.__name__: table for table in (Network, Branches, FeederControl, Loads)}

_Kept = TypeVar("_Kept")

_scans: OrderedDict[str, Scan] = OrderedDict()
_networks: OrderedDict[str, Network] = OrderedDict()


def forget() -> None:
    """Drop what this process remembers; the files stay."""
    _scans.clear()
    _networks.clear()


def _remember(memory: OrderedDict[str, _Kept], key: str, kept: _Kept) -> None:
    memory[key] = kept
    memory.move_to_end(key)
    while len(memory) > _MAX_IN_MEMORY:
        memory.popitem(last=False)


def _hash(*parts: str) -> str:
    """Return the key of an entry: the engine and the code that made it belong to it, since both may change."""
    # File names on Linux are bytes: those that are no UTF-8 reach Python as lone surrogates.
    written = "\0".join((engine_version(), made_by(), *parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(written).hexdigest()


# -- scans


class Place(NamedTuple):
    """Which feeder is read, and what it may reach.

    Attributes:
        master: The master file.
        root: Folder outside of which no file is read, unless trusted.
        shipped: Folder that may be read besides.
        trust: Whether the model may do what it wants.
    """

    master: Path
    root: Path
    shipped: Path
    trust: bool

    @property
    def key(self) -> str:
        """The hash of all that reading depends on besides the files."""
        return _hash(*map(str, self))


def recall_scan(place: Place) -> Scan | None:
    """Return what reading the same files gave before, here or in another process, None where none did."""
    scan = _scans.get(place.key)
    if scan is None or not _is_still_so(scan, place):
        scan = _read_scan(place.key)
        if scan is None or place.master not in scan.files or not _is_still_so(scan, place):
            return None
    _remember(_scans, place.key, scan)
    return scan


def keep_scan(place: Place, scan: Scan) -> None:
    """Keep what reading gave; for what had no problems only."""
    _remember(_scans, place.key, scan)
    with contextlib.suppress(ValueError):  # a text that is not one line, from a file name of several
        write_entry("scan", place.key, json.dumps(_encode_scan(scan)), {})


def scanning_alone(place: Place) -> contextlib.AbstractContextManager[None]:
    """Let no other process read the same feeder; see :func:`~powergrid.grid.engine.cache_folder.alone`."""
    return alone("scan", place.key)


def _is_still_so(scan: Scan, place: Place) -> bool:
    """Whether each name leads where it led, and each file holds what it held."""
    for target, led in scan.looked.items():
        real = resolve(target)
        allowed = real is not None and is_allowed(real, *place[1:]) and os.path.isfile(target)
        if (str(real) if allowed else "") != led:
            return False
    try:
        # By content: an editor can keep both size and time of a file.
        return all(
            str(resolve(file)) == real and hashlib.sha256(file.read_bytes()).digest() == digest
            for file, (digest, real) in scan.files.items()
        )
    except OSError:
        return False


def _read_scan(key: str) -> Scan | None:
    with open_entry("scan", key) as entry:
        if entry is None:
            return None
        try:
            return _decode_scan(json.loads(entry[0]))
        except UNREADABLE:
            return None


def _encode_scan(scan: Scan) -> dict[str, Any]:
    files = dict.fromkeys(command.file for command in (*scan.commands, *scan.left_out))
    index = {file: position for position, file in enumerate(files)}
    return {
        "digest": scan.digest,
        "files": [[str(file), digest.hex(), real] for file, (digest, real) in scan.files.items()],
        "looked": [[str(target), real] for target, real in scan.looked.items()],
        "references": [[r.where, r.written, r.target and str(r.target)] for r in scan.references],
        "places": list(map(str, files)),
        "commands": _columns(scan.commands, index),
        "left_out": _columns(scan.left_out, index),
    }


def _columns(commands: Sequence[Command], index: Mapping[Path, int]) -> list[Any]:
    # All texts as one, cut at line ends again when it is read.
    if any("\n" in command.text for command in commands):
        raise ValueError("a command of several lines")
    return [[index[c.file] for c in commands], [c.line for c in commands], "\n".join(c.text for c in commands)]


def _decode_scan(data: dict[str, Any]) -> Scan:
    files = list(map(Path, data["places"]))
    return Scan(
        commands=_commands(data["commands"], files),
        left_out=_commands(data["left_out"], files),
        digest=str(data["digest"]),
        files={Path(file): (bytes.fromhex(digest), real) for file, digest, real in data["files"]},
        looked={Path(target): real for target, real in data["looked"]},
        references=tuple(Reference(where, name, target and Path(target)) for where, name, target in data["references"]),
    )


def _commands(columns: list[Any], files: list[Path]) -> tuple[Command, ...]:
    of, lines, texts = columns
    if not of:
        return ()
    return tuple(Command(files[p], line, text) for p, line, text in zip(of, lines, texts.split("\n"), strict=True))


# -- networks


def recall_network(content: str) -> Network | None:
    """Return the description of what was compiled before, here or in another process, None where it was not.

    Its arrays are shared and cannot be written.

    Args:
        content: All that the circuit is built of, empty for a feeder that is not of files.
    """
    if not content:
        return None
    key = _hash(content)
    network = _networks.get(key) or _read_network(key)
    if network is not None:
        _remember(_networks, key, network)
    return network


def keep_network(content: str, network: Network) -> None:
    """Keep a description, whose arrays cannot be written from here on."""
    _freeze(network)
    if content:
        key, arrays = _hash(content), dict[str, npt.NDArray[Any]]()
        _remember(_networks, key, network)
        write_entry("network", key, json.dumps(encode_network(network, arrays)), arrays)


def describing_alone(content: str) -> contextlib.AbstractContextManager[None]:
    """Let no other process describe the same; see :func:`~powergrid.grid.engine.cache_folder.alone`."""
    return alone("network", _hash(content)) if content else contextlib.nullcontext()


def _read_network(key: str) -> Network | None:
    with open_entry("network", key) as entry:
        if entry is None:
            return None
        try:
            network = _decode_network(json.loads(entry[0]), entry[1])
        except UNREADABLE:
            return None
    if not isinstance(network, Network):
        return None
    _freeze(network)
    return network


def encode_network(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Return a network, or what it holds, as JSON that refers to arrays by name; the arrays are added to a dict."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if dataclasses.is_dataclass(value):
        fields = {f.name: encode_network(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"table": type(value).__name__, "fields": fields}
    if isinstance(value, tuple | list):
        if all(isinstance(item, str) for item in value):
            return {"names": list(value)}
        return {"tuple": [encode_network(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"pairs": [[encode_network(k, arrays), encode_network(v, arrays)] for k, v in value.items()]}
    if value is None or isinstance(value, str | bool | int | float):
        return {"value": value}
    raise TypeError(f"a network holds a {type(value).__name__}, which the cache does not know")


def _decode_network(data: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    ((kind, content), *_) = data.items()
    if kind == "array":
        return arrays[content]
    if kind == "table":
        return _TABLES[content](**{name: _decode_network(entry, arrays) for name, entry in data["fields"].items()})
    if kind == "names":
        return tuple(content)
    if kind == "tuple":
        return tuple(_decode_network(item, arrays) for item in content)
    if kind == "pairs":
        return {_decode_network(k, arrays): _decode_network(v, arrays) for k, v in content}
    return content


def _freeze(value: Any) -> None:
    """Keep arrays from being written: every circuit of a feeder in this process has the same ones."""
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
