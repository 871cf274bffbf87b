"""A feeder on disk: find it, read its commands with file and line, leave out what does not describe a circuit.

Knows text, not electricity: nothing in here starts the engine.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from powergrid.errors import FeederError, describe_unknown, nearest_names

_INCLUDES = ("redirect", "compile")
_COORDINATES = ("buscoords", "latlongcoords")
#: Verbs that describe a circuit; OpenDSS takes any unambiguous beginning of them. All others are left out.
_DESCRIBING = (
    *("new", "edit", "more", "m", "~", "set", "batchedit", "enable", "disable", "open", "close", "like"),
    *("calcvoltagebases", "setkvbase", "makebuslist", "setloadandgenkv", "allocateloads", "rephase"),
    *("interpolate", "uuids", "addbusmarker", "clearbusmarkers", *_COORDINATES),
)
#: Options of ``set`` that touch files, windows or the session rather than the circuit.
_LEFT_OUT_OPTIONS = frozenset(
    "datapath editor recorder showexport showreports demandinterval diverbose overloadreport voltexceptionreport "
    "case casename mode number hour sec stepsize time year controlmode maxiterations maxcontroliterations "
    "tolerance algorithm random log markcode qtplotoptions colorcycle marktransformers markcapacitors".split()
)
_ENCODINGS = ("utf-8-sig", "cp1252")


@dataclass(frozen=True)
class Command:
    """One line of a feeder: its text and where it stands."""

    file: Path
    line: int
    text: str

    @property
    def verb(self) -> str:
        """First word, lower case."""
        return re.split(r"[\s=]", self.text.lstrip(), maxsplit=1)[0].lower()

    @property
    def where(self) -> str:
        """``file:line``, as errors show it."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Feeder:
    """A feeder read from disk.

    Attributes:
        name: Short name: the folder of a shipped feeder, the file's stem of another.
        master: The master file.
        commands: What describes the circuit, in order, redirects already followed.
        left_out: What the files also say and is not run (Solve, Show, Export ...).
        digest: SHA-256 over all files read.
    """

    name: str
    master: Path
    commands: tuple[Command, ...]
    left_out: tuple[Command, ...]
    digest: str


def models_folder() -> Path:
    """Give the folder of the shipped feeders: inside an installed package, or beside it in a checkout."""
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
    shipped = models_folder() / str(reference) / "Master.dss"
    if re.fullmatch(r"[\w-]+", str(reference)) and shipped.is_file():
        return shipped
    path = Path(reference).expanduser()
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        masters = sorted(p.name for p in path.iterdir() if p.suffix.lower() == ".dss")
        raise FeederError(str(path), [f"is a folder; name its master file, one of: {', '.join(masters) or 'none'}"])
    if path.parent != Path() and path.parent.is_dir():
        names = [p.name for p in path.parent.iterdir() if p.suffix.lower() == ".dss"]
        raise FeederError(str(path), [describe_unknown("file", path.name, names)])
    raise FeederError(str(reference), [describe_unknown("feeder", reference, list_feeders()) + ", or a path to a .dss"])


def read_feeder(reference: str | Path) -> Feeder:
    """Read a feeder: the master file and all that it redirects to.

    Args:
        reference: Name of a shipped feeder (``"ieee13"``) or path of a master file.

    Raises:
        FeederError: a file is missing or unreadable; all of them, each with file and line.
    """
    master = find_feeder(reference)
    reader = _Reader()
    reader.read(master, ())
    if reader.problems:
        raise FeederError(str(master), reader.problems)
    if not any(re.match(r"\s*new\s+(object\s*=\s*)?\"?circuit\.", c.text, re.IGNORECASE) for c in reader.commands):
        raise FeederError(str(master), ["no 'New Circuit.<name>' in it: this is not a master file"])
    name = master.parent.name if master.name == "Master.dss" else master.stem
    return Feeder(name, master, tuple(reader.commands), tuple(reader.left_out), reader.hash.hexdigest())


class _Reader:
    """Walk a master file and its redirects, sorting commands."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.left_out: list[Command] = []
        self.problems: list[str] = []
        self.hash = hashlib.sha256()

    def read(self, file: Path, above: tuple[Path, ...]) -> None:
        try:
            raw = file.read_bytes()
        except OSError as error:
            self.problems.append(f"{file}: cannot be read: {error.strerror}")
            return
        self.hash.update(raw)
        for command in _commands(file, _decode(raw)):
            if _begins(command.verb, _INCLUDES):
                self._include(command, (*above, file))
            elif not _describes(command):
                self.left_out.append(command)
            elif not _begins(command.verb, _COORDINATES) or self._require(command) is not None:
                self.commands.append(command)

    def _include(self, command: Command, above: tuple[Path, ...]) -> None:
        target = self._require(command)
        if target is None:
            return
        if target in above:
            self.problems.append(f"{command.where}: {command.text.strip()!r} redirects in a circle")
            return
        self.read(target, above)

    def _require(self, command: Command) -> Path | None:
        """Resolve the file that a command names, or note the problem."""
        written = _argument(command.text)
        target = command.file.parent / written.replace("\\", "/")
        if target.is_file():
            return target
        folder = target.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        same = [n for n in names if n.lower() == target.name.lower()]
        near = same or nearest_names(target.name, names)
        remedy = f" (did you mean {near[0]!r}?{' Letter case matters here' if same else ''})" if near else ""
        self.problems.append(f"{command.where}: {command.verb} of a missing file {written!r}{remedy}")
        return None


def _decode(raw: bytes) -> str:
    for encoding in _ENCODINGS:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")


def _commands(file: Path, text: str) -> Iterator[Command]:
    """Split a file into commands: no comments, no blank lines."""
    in_block = False
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if in_block or line.startswith("/*"):
            in_block = "*/" not in line
            continue
        if line and not line.startswith(("!", "//")):
            yield Command(file, number, line)


def _argument(text: str) -> str:
    """Give the file name after a verb, without quotes or a trailing comment."""
    rest = text.strip().split(None, 1)
    written = rest[1].strip() if len(rest) > 1 else ""
    written = re.sub(r"^file\s*=\s*", "", written, flags=re.IGNORECASE)
    quoted = re.match(r"""^(["'])(.*?)\1|^\((.*?)\)|^\[(.*?)\]|^\{(.*?)\}""", written)
    if quoted:
        return next(group for group in quoted.groups()[1:] if group is not None)
    return re.split(r"\s*(?:!|//)|\s", written, maxsplit=1)[0]


def _begins(verb: str, full: tuple[str, ...]) -> bool:
    return any(name == verb or (len(verb) >= 4 and name.startswith(verb)) for name in full)


def _describes(command: Command) -> bool:
    """Whether a command describes a circuit: a known verb, or a property written as ``Class.name.key=value``."""
    if command.verb == "set":
        return not _only_left_out_options(command.text)
    return _begins(command.verb, _DESCRIBING) or bool(re.match(r"[\w%-]+\.[^\s=]+\s*=", command.text))


def _only_left_out_options(text: str) -> bool:
    options = re.findall(r"([%\w]+)\s*=", text.split("!")[0])
    return bool(options) and all(option.lower() in _LEFT_OUT_OPTIONS for option in options)
