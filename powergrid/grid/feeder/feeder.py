"""A feeder on disk: find it, and read it, from its files or from what reading these very files gave before.

By default a feeder writes nothing, loads no library and reads no file outside its root.

What reading gave is kept. It is taken only where every file still has the content, and every name still leads to the
file, that were read; only what was not refused is kept. So files are read and hashed each time, but neither cut into
commands nor checked again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path

from powergrid.errors import FeederError, PowerGridError, Problem, describe_unknown
from powergrid.files import path_of, real_path
from powergrid.grid.engine import engine_version
from powergrid.grid.engine.cache_folder import Arrays, Cache, made_by
from powergrid.grid.feeder.microgrid import Microgrid
from powergrid.grid.feeder.reading.files import (
    FOLDER,
    MOST_BYTES,
    NO_FOLDER,
    Place,
    Reference,
    default_root,
    lead,
    remedy,
    resolve,
)
from powergrid.grid.feeder.reading.reader import Scan, read_files
from powergrid.grid.feeder.reading.syntax import Command, describe_unknown_command, find_unknown

__all__ = [
    "Command", "Feeder", "Place", "Reference", "entry_key", "find_feeder", "list_feeders", "list_references",
    "locate_feeder", "models_folder", "read_feeder", "scan_feeder", "scans",
]  # fmt: skip

#: What begins a circuit, as the reader writes it.
CIRCUIT = re.compile(r"New [\"'(\[{]?circuit\.", re.IGNORECASE)

_MOST_READ = 8


@dataclass(frozen=True)
class Feeder:
    """A feeder read from disk.

    Attributes:
        name: Short name: the folder of a shipped feeder, the file's stem of another.
        master: The master file.
        commands: What is run, in order, redirects already followed.
        left_out: What the files also say and is not run (Solve, Show, Export ...).
        digest: SHA-256 over the content of all files read, data files included, and over ``trust``.
        circuit: The circuit as the engine's own data (JSON) where it was composed, else empty: then it is ``commands``.
        microgrids: What was tied to it, where it was composed.
        model_root: Folder outside of which nothing was read, unless trusted.
        trust: Whether the model may do what it wants.
        ignore_case: Whether a name may lead to a file in other letters.
        files: All files it consists of, in the order they were first read.
        settings: Last value of each option that ``Set`` or ``Solve`` gives, run or not, as text by its full lower-case
            name: ``{"mode": "daily", "%growth": "2.5"}``, the last last; of a composed one the host's.
        notes: What was understood otherwise than it is written, with file and line.
        names_differ: Whether no two circuit elements of a class have one name, for certain.
        unchanged: The feeder as its files have it, where elements were added to it or values changed.
    """

    name: str
    master: Path
    commands: tuple[Command, ...]
    left_out: tuple[Command, ...]
    digest: str
    circuit: str = ""
    microgrids: tuple[Microgrid, ...] = ()
    model_root: Path | None = None
    trust: bool = False
    ignore_case: bool = False
    files: tuple[Path, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: tuple[Problem, ...] = ()
    names_differ: bool = False
    unchanged: Feeder | None = None

    @functools.cached_property
    def key(self) -> str:
        """The key of all that what is compiled of it depends on."""
        return entry_key(self.digest, *(command.text for command in self.commands), self.circuit)

    @property
    def controls_off(self) -> bool:
        """Whether the model holds its own controls still: ``Set ControlMode=OFF``."""
        return self._control_mode.startswith("o")

    @property
    def controls_wait(self) -> bool:
        """Whether the delays of the model's own controls pass from step to step: ``ControlMode=time``, or duty mode."""
        return self._control_mode.startswith("t")

    @property
    def _control_mode(self) -> str:
        """What the model says last of its controls, in lower case; duty mode has them wait until told otherwise."""
        said = [key for key in self.settings if key in ("mode", "controlmode")]
        if said and said[-1] == "mode" and self.settings["mode"].strip("\"' ").lower().startswith("du"):
            return "time"
        return self.settings.get("controlmode", "").strip("\"' ").lower()


def models_folder() -> Path:
    """Return the folder of the shipped feeders: inside an installed package, or beside it in a checkout."""
    package = Path(str(importlib.resources.files("powergrid")))
    installed = package / "dss_models"
    return installed if installed.is_dir() else package.parent / "dss_models"


def list_feeders() -> list[str]:
    """Name the shipped feeders."""
    return sorted(master.parent.name for master in models_folder().glob("*/Master.dss"))


def find_feeder(reference: str | Path) -> Path:
    """Turn a shipped feeder's name or a path into the path of its master file.

    Raises:
        FeederError: nothing is there; with the nearest shipped name or file name.
    """
    try:
        path = path_of(reference)
    except PowerGridError as error:
        raise FeederError("feeder", [Problem("no-feeder", "", str(error))]) from None
    shipped = models_folder() / str(reference) / "Master.dss"
    if re.fullmatch(r"[\w-]+", str(reference)) and shipped.is_file():
        return shipped
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        masters = sorted(p.name for p in path.iterdir() if p.suffix.lower() == ".dss")
        raise _not_found(path, f"is a folder; name its master file, one of: {', '.join(masters) or 'none'}")
    if path.parent != Path() and path.parent.is_dir():
        names = [p.name for p in path.parent.iterdir() if p.suffix.lower() == ".dss"]
        raise _not_found(path, describe_unknown("file", path.name, names))
    if path.parent != Path():
        there = next(folder for folder in path.parents if folder.is_dir())
        missing = path.parts[len(there.parts)]
        folders = [p.name for p in there.iterdir() if p.is_dir()]
        raise _not_found(path, f"{describe_unknown('folder', missing, folders)} in {there.absolute()}")
    raise _not_found(reference, describe_unknown("feeder", reference, list_feeders()) + ", or a path to a .dss")


def _not_found(reference: str | Path, text: str) -> FeederError:
    return FeederError(str(reference), [Problem("no-feeder", "", text)])


def read_feeder(
    reference: str | Path, *, model_root: str | Path | None = None, trust: bool = False, ignore_case: bool = False
) -> Feeder:
    """Read a feeder: the master file and all that it redirects to or takes data from.

    Args:
        reference: Name of a shipped feeder (``"ieee13"``) or path of a master file.
        model_root: Folder outside of which no file is read, links followed. By default what
            :func:`~powergrid.grid.feeder.reading.files.default_root` says, mostly the folder above the master file's.
        trust: Let the model do what it says: read and write anywhere, load program libraries, run all commands but
            those that open windows or a shell, end the session or change its folder.
        ignore_case: Let a name lead to a file in other letters where there is none in just these, as on Windows.

    Raises:
        FeederError: a file is missing, unreadable or outside the root, or a command is not allowed or not known;
            all of them, each with file and line.
    """
    place = locate_feeder(reference, model_root, trust, ignore_case)
    key = entry_key(*map(str, place))

    def recall() -> Scan | None:
        return scans.recall(key, lambda scan: _is_still_so(scan, place))

    scan = recall()
    if scan is None:
        with scans.alone(key):
            scan = recall()  # another process may have read it meanwhile
            if scan is None:
                scan, problems, _ = read_files(place)
                problems = [*(problems or _find_missing_circuit(scan)), *_find_unknown_commands(scan)]
                if problems:
                    raise FeederError(str(place.master), problems)
                scans.keep(key, scan)
    return _feeder_of(place, scan)


def scan_feeder(
    reference: str | Path, *, model_root: str | Path | None = None, trust: bool = False, ignore_case: bool = False
) -> tuple[Feeder, list[Problem]]:
    """Read a feeder as far as it can be read, for looking at what is wrong with it.

    Returns:
        The feeder, without what was refused, and the problems that :func:`read_feeder`, which takes the same
        arguments, raises.

    Raises:
        FeederError: there is no such feeder, or it lies outside its root.
    """
    place = locate_feeder(reference, model_root, trust, ignore_case)
    scan, problems, _ = read_files(place)
    return _feeder_of(place, scan), problems or _find_missing_circuit(scan)


def list_references(feeder: Feeder) -> list[Reference]:
    """Return what a feeder's commands name of files, read anew."""
    return read_files(locate_feeder(feeder.master, feeder.model_root, feeder.trust, feeder.ignore_case))[2]


def locate_feeder(
    reference: str | Path, model_root: str | Path | None, trust: bool, ignore_case: bool = False
) -> Place:
    """Find the master file, and the folder outside of which nothing is read; takes what :func:`read_feeder` takes.

    Raises:
        FeederError: there is no such feeder, or it lies outside its root.
    """
    master = find_feeder(reference)
    root = default_root(master) if model_root is None else real_path(model_root)
    if not root.is_dir() and root != master.resolve():
        text = f"model_root {str(model_root)!r} is not a folder"
        raise FeederError(str(master), [Problem("no-feeder", "", text)])
    if model_root is not None and not trust and not master.resolve().is_relative_to(root):
        text = f"lies outside the model_root {root}"
        raise FeederError(str(master), [Problem("outside-root", "", text, remedy(root, master.resolve()))])
    return Place(master, root, models_folder().resolve(), trust, ignore_case)


def _find_missing_circuit(scan: Scan) -> list[Problem]:
    if any(CIRCUIT.match(command.text) for command in scan.commands):
        return []
    return [Problem("no-circuit", "", "no 'New Circuit.<name>' in it: this is not a master file")]


def _find_unknown_commands(scan: Scan) -> Iterator[Problem]:
    if not _find_missing_circuit(scan):  # else it is another kind of file
        for command in find_unknown(scan.commands, scan.left_out):
            yield Problem("unknown-command", command.where, describe_unknown_command(command))


#: What was read last at a place, and the feeder that it is.
_read_last: dict[Place, tuple[Scan, Feeder]] = {}


def _feeder_of(place: Place, scan: Scan) -> Feeder:
    """Return the feeder of a scan: the same one, with what it has worked out of itself, as long as the scan is."""
    scan_then, feeder = _read_last.get(place, (None, None))
    if feeder is not None and scan_then is scan:
        return feeder
    master = place.master
    feeder = Feeder(
        name=master.parent.name if master.name == "Master.dss" else master.stem,
        master=master,
        commands=scan.commands,
        left_out=scan.left_out,
        digest=scan.digest,
        model_root=place.root,
        trust=place.trust,
        ignore_case=place.ignore_case,
        files=tuple(scan.files),
        settings=scan.settings,
        notes=scan.notes,
        names_differ=scan.names_differ,
    )
    if len(_read_last) >= _MOST_READ:
        _read_last.clear()
    _read_last[place] = scan, feeder
    return feeder


# -- what reading gave, kept


def entry_key(*parts: str) -> str:
    """Return the key of what is kept of something: the engine and the code that made it belong to it."""
    # File names on Linux are bytes: those that are no UTF-8 reach Python as lone surrogates.
    written = "\0".join((engine_version(), made_by(), *parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(written).hexdigest()


def _is_still_so(scan: Scan, place: Place) -> bool:
    """Whether each name leads where it led, and each file holds what it held."""
    if place.master not in scan.files:
        return False
    for target, led in scan.looked.items():
        if led in (FOLDER, NO_FOLDER):
            if os.path.isdir(target) != (led == FOLDER):
                return False
        elif lead(place, target) != led:
            return False
    try:
        # By content: an editor can keep both size and time of a file.
        return all(
            str(resolve(file)) == real
            and file.stat().st_size <= MOST_BYTES
            and hashlib.sha256(file.read_bytes()).digest() == digest
            for file, (digest, real) in scan.files.items()
        )
    except OSError:
        return False


def _encode_scan(scan: Scan) -> tuple[str, Arrays]:
    places = list(dict.fromkeys(command.file for command in (*scan.commands, *scan.left_out)))
    index = {file: position for position, file in enumerate(places)}
    data = {
        "digest": scan.digest,
        "files": [[str(file), digest.hex(), real] for file, (digest, real) in scan.files.items()],
        "looked": [[str(target), real] for target, real in scan.looked.items()],
        # A file's name once, not with each of its commands: there are thousands.
        "places": list(map(str, places)),
        # By column: thousands of short lists take longer to read.
        **{
            key: [[index[c.file] for c in own], [c.line for c in own], [c.text for c in own]]
            for key, own in (("commands", scan.commands), ("left_out", scan.left_out))
        },
        "settings": dict(scan.settings),
        "notes": [astuple(note) for note in scan.notes],
        "names_differ": scan.names_differ,
    }
    return json.dumps(data), {}


def _decode_scan(text: str, _: Arrays) -> Scan:
    data = json.loads(text)
    places = list(map(Path, data["places"]))
    commands, left_out = (
        tuple(map(Command, [places[place] for place in data[key][0]], *data[key][1:]))
        for key in ("commands", "left_out")
    )
    files = {Path(file): (bytes.fromhex(digest), real) for file, digest, real in data["files"]}
    looked = {Path(target): real for target, real in data["looked"]}
    return Scan(
        commands,
        left_out,
        str(data["digest"]),
        files,
        looked,
        data["settings"],
        tuple(Problem(*n) for n in data["notes"]),
        data["names_differ"] is True,
    )


scans = Cache("scan", _encode_scan, _decode_scan)
