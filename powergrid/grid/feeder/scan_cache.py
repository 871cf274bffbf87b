"""What reading a feeder's files gave, kept in this process and on disk for the others.

It is taken only where every file still has the content, and every name still leads to the file, that were read; only
what was not refused is kept. So files are read and hashed each time, but neither cut into commands nor checked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from powergrid.grid.engine import engine_version
from powergrid.grid.engine.store import UNREADABLE, alone, made_by, open_entry, write_entry
from powergrid.grid.feeder.reader import Reference, Scan, is_allowed, resolve
from powergrid.grid.feeder.syntax import Command

_KIND = "scan"
_MAX_IN_MEMORY = 32

_in_memory: OrderedDict[str, Scan] = OrderedDict()


def recall_scan(master: Path, root: Path, shipped: Path, trust: bool) -> Scan | None:
    """Return what reading the same files gave before, here or in another process, None where none did.

    Args:
        master: The master file.
        root: Folder outside of which no file is read, unless trusted.
        shipped: Folder that may be read besides.
        trust: Whether the model may do what it wants.
    """
    key = _key(master, root, shipped, trust)
    scan = _in_memory.get(key)
    if scan is not None and _is_still_so(scan, root, shipped, trust):
        _in_memory.move_to_end(key)
        return scan
    scan = _read(key)
    if scan is None or master not in scan.files or not _is_still_so(scan, root, shipped, trust):
        return None
    _remember(key, scan)
    return scan


def keep_scan(master: Path, root: Path, shipped: Path, trust: bool, scan: Scan) -> None:
    """Keep what reading gave; for what had no problems only."""
    key = _key(master, root, shipped, trust)
    _remember(key, scan)
    with contextlib.suppress(ValueError):  # a text that is not one line, from a file name of several
        write_entry(_KIND, key, json.dumps(_encode(scan)), {})


def scanning_alone(master: Path, root: Path, shipped: Path, trust: bool) -> contextlib.AbstractContextManager[None]:
    """Let no other process read the same feeder; see :func:`~powergrid.grid.engine.store.alone`."""
    return alone(_KIND, _key(master, root, shipped, trust))


def forget() -> None:
    """Drop what this process remembers; the files stay."""
    _in_memory.clear()


def _remember(key: str, scan: Scan) -> None:
    _in_memory[key] = scan
    _in_memory.move_to_end(key)
    while len(_in_memory) > _MAX_IN_MEMORY:
        _in_memory.popitem(last=False)


def _key(master: Path, root: Path, shipped: Path, trust: bool) -> str:
    """Return the hash of all that reading depends on besides the files: who read, where, and what was allowed."""
    parts = (engine_version(), made_by(), str(master), str(root), str(shipped), str(trust))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _is_still_so(scan: Scan, root: Path, shipped: Path, trust: bool) -> bool:
    """Whether each name leads where it led, and each file holds what it held."""
    for target, led in scan.looked.items():
        real = resolve(target)
        allowed = real is not None and is_allowed(real, root, shipped, trust) and os.path.isfile(target)
        if (str(real) if allowed else "") != led:
            return False
    try:
        return all(
            str(resolve(file)) == real and hashlib.sha256(file.read_bytes()).digest() == digest
            for file, (digest, real) in scan.files.items()
        )
    except OSError:
        return False


# -- a scan as JSON


def _read(key: str) -> Scan | None:
    with open_entry(_KIND, key) as entry:
        if entry is None:
            return None
        try:
            return _decode(json.loads(entry[0]))
        except UNREADABLE:
            return None


def _encode(scan: Scan) -> dict[str, Any]:
    places = {file: place for place, file in enumerate(dict.fromkeys(c.file for c in (*scan.commands, *scan.left_out)))}
    return {
        "digest": scan.digest,
        "files": [[str(file), digest.hex(), real] for file, (digest, real) in scan.files.items()],
        "looked": [[str(target), real] for target, real in scan.looked.items()],
        "references": [[r.where, r.written, r.target and str(r.target)] for r in scan.references],
        "places": list(map(str, places)),
        "commands": _columns(scan.commands, places),
        "left_out": _columns(scan.left_out, places),
    }


def _columns(commands: Sequence[Command], places: dict[Path, int]) -> list[Any]:
    if any("\n" in command.text for command in commands):
        raise ValueError("a command of several lines")
    return [[places[c.file] for c in commands], [c.line for c in commands], "\n".join(c.text for c in commands)]


def _decode(data: dict[str, Any]) -> Scan:
    places = list(map(Path, data["places"]))
    return Scan(
        commands=_commands(data["commands"], places),
        left_out=_commands(data["left_out"], places),
        digest=str(data["digest"]),
        files={Path(file): (bytes.fromhex(digest), real) for file, digest, real in data["files"]},
        looked={Path(target): real for target, real in data["looked"]},
        references=tuple(Reference(where, name, target and Path(target)) for where, name, target in data["references"]),
    )


def _commands(columns: list[Any], places: list[Path]) -> tuple[Command, ...]:
    of, lines, texts = columns
    if not of:
        return ()
    return tuple(Command(places[p], line, text) for p, line, text in zip(of, lines, texts.split("\n"), strict=True))
