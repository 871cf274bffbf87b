"""A feeder on disk: find it, read its commands with file and line, leave out what does not describe a circuit.

A model is a program; what it may reach is decided here, before anything is compiled: by default it writes nothing,
loads no library and reads no file outside its root. Knows text and files, not electricity.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from powergrid.errors import FeederError, describe_unknown, nearest_names
from powergrid.grid.commands import (
    CLEARING,
    COORDINATES,
    DESCRIBING,
    DESCRIBING_OPTIONS,
    EDITING,
    INCLUDES,
    NEVER_RUN,
    NEVER_SET,
    OPTIONS,
    REWRITING,
    VERBS,
    Command,
    Parameter,
    after_verb,
    class_of,
    decode,
    describe_unknown_command,
    expand,
    file_argument,
    file_of_array,
    find_dangers,
    find_unknown,
    is_plain,
    parameters,
    quote,
    set_apart,
    split,
    unquote,
)
from powergrid.grid.microgrid import Microgrid

__all__ = [
    "Command", "Feeder", "Reference", "find_feeder", "list_feeders", "models_folder", "read_feeder", "scan_feeder",
]  # fmt: skip

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_CIRCUIT = re.compile(r"\s*new\s+(object\s*=\s*)?\"?circuit\.", re.IGNORECASE)
_NAMING = ("type", "class", "element", "object")  # options that change what is edited next
_SWITCHING = ("open", "close", "enable", "disable", "select")


@dataclass(frozen=True)
class Reference:
    """A file that a command names: where it does so, how it is written, and the file; None for a program library."""

    where: str
    written: str
    target: Path | None


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
        files: All files it consists of, in the order they were first read.
        references: What its commands name of them.
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
    files: tuple[Path, ...] = ()
    references: tuple[Reference, ...] = ()


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
    try:
        path = Path(reference).expanduser()
    except RuntimeError:
        raise FeederError(str(reference), ["nobody has a home folder of that name"]) from None
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        masters = sorted(p.name for p in path.iterdir() if p.suffix.lower() == ".dss")
        raise FeederError(str(path), [f"is a folder; name its master file, one of: {', '.join(masters) or 'none'}"])
    if path.parent != Path() and path.parent.is_dir():
        names = [p.name for p in path.parent.iterdir() if p.suffix.lower() == ".dss"]
        raise FeederError(str(path), [describe_unknown("file", path.name, names)])
    raise FeederError(str(reference), [describe_unknown("feeder", reference, list_feeders()) + ", or a path to a .dss"])


def read_feeder(reference: str | Path, *, model_root: str | Path | None = None, trust: bool = False) -> Feeder:
    """Read a feeder: the master file and all that it redirects to or takes data from.

    Args:
        reference: Name of a shipped feeder (``"ieee13"``) or path of a master file.
        model_root: Folder outside of which no file is read, links followed. By default the folder above the master
            file's own, since what several feeders share usually lies beside them.
        trust: Let the model do what it says: read and write anywhere, load program libraries, run all commands but
            those that open windows or a shell, end the session or change its folder.

    Raises:
        FeederError: a file is missing, unreadable or outside the root, or a command is not allowed or not known;
            all of them, each with file and line.
    """
    feeder, problems = scan_feeder(reference, model_root=model_root, trust=trust)
    if any(map(_begins_circuit, feeder.commands)):  # else it is another kind of file
        unknown = find_unknown(feeder.commands, feeder.left_out)
        problems += [f"{command.where}: {describe_unknown_command(command)}" for command in unknown]
    if problems:
        raise FeederError(str(feeder.master), problems)
    return feeder


def scan_feeder(
    reference: str | Path, *, model_root: str | Path | None = None, trust: bool = False
) -> tuple[Feeder, list[str]]:
    """Read a feeder as far as it can be read, for looking at what is wrong with it.

    Args:
        reference: As for :func:`read_feeder`.
        model_root: As for :func:`read_feeder`.
        trust: As for :func:`read_feeder`.

    Returns:
        The feeder, without what was refused, and the problems that :func:`read_feeder` raises.

    Raises:
        FeederError: there is no such feeder, or it lies outside its root.
    """
    master = find_feeder(reference)
    root = master.resolve().parent.parent if model_root is None else Path(model_root).expanduser().resolve()
    if not root.is_dir():
        raise FeederError(str(master), [f"model_root {str(model_root)!r} is not a folder"])
    reader = _Reader(root, trust)
    if model_root is not None and not trust and not master.resolve().is_relative_to(root):
        raise FeederError(str(master), [f"lies outside the model_root {root}; {_remedy(root, master.resolve())}"])
    reader.read(master, ())
    problems = reader.problems
    if not problems and not any(map(_begins_circuit, reader.commands)):
        problems = ["no 'New Circuit.<name>' in it: this is not a master file"]
    name = master.parent.name if master.name == "Master.dss" else master.stem
    feeder = Feeder(
        name=name,
        master=master,
        commands=tuple(reader.commands),
        left_out=tuple(reader.left_out),
        digest=reader.digest(),
        model_root=root,
        trust=trust,
        files=tuple(reader.hashes),
        references=tuple(reader.references),
    )
    return feeder, problems


def _begins_circuit(command: Command) -> bool:
    return _CIRCUIT.match(command.text) is not None


def _remedy(root: Path, wanted: Path) -> str:
    """Say which key allows a file outside the root."""
    try:
        common = os.path.commonpath([root, wanted.parent])
    except ValueError:  # another drive
        return "'trust: true' allows it"
    return f"'model_root: {common}' or 'trust: true' allows it"


class _Reader:
    """Walk a master file and its redirects, sorting commands."""

    def __init__(self, root: Path, trust: bool) -> None:
        self.root, self.trust, self._shipped = root, trust, models_folder().resolve()
        self.commands: list[Command] = []
        self.left_out: list[Command] = []
        self.problems: list[str] = []
        self.hashes: dict[Path, bytes] = {}
        self.references: list[Reference] = []
        self._order = hashlib.sha256()
        self._variables: dict[str, str] = {}
        self._class: str | None = None  # of the element that is edited next

    def digest(self) -> str:
        """Give a hash over all contents in the order they were read; where the files lie does not matter."""
        digest = self._order.copy()
        if self.trust:
            digest.update(b"trusted")
        return digest.hexdigest()

    def _open(self, file: Path, where: str) -> bytes | None:
        """Read a file and note its content, or the problem."""
        try:
            raw = file.read_bytes()
        except OSError as error:
            self.problems.append(f"{where}: cannot be read: {error.strerror}")
            return None
        self.hashes[file] = hashlib.sha256(raw).digest()
        self._order.update(self.hashes[file])
        return raw

    def read(self, file: Path, above: tuple[Path, ...]) -> None:
        """Take all commands of a file."""
        above = (*above, file)
        raw = self._open(file, str(file))
        if raw is not None:
            for command in split(file, decode(raw)):
                self._take(command, above)

    def _take(self, command: Command, above: tuple[Path, ...]) -> None:
        """Sort one command: run as written, run in part, left out, or a problem."""
        verb = command.verb
        if verb in EDITING or command.assigns:
            self._take_edit(command)
        elif verb in INCLUDES:
            self._include(command, above)
        elif verb in CLEARING:
            self.left_out += [*self.commands, command]  # what came before is another circuit
            self.commands.clear()
        elif verb in NEVER_RUN or verb not in VERBS:
            self.left_out.append(command)
        elif verb in REWRITING and not self.trust:
            self.problems.append(
                f"{command.where}: {verb} makes another circuit of this one; run it in OpenDSS and save the result"
            )
        elif verb == "set":
            self._take_options(command)
        elif verb in COORDINATES:
            self._take_coordinates(command)
        elif verb in DESCRIBING or self.trust:
            self._take_other(command, verb)
        else:
            self.left_out.append(command)

    def _take_other(self, command: Command, verb: str) -> None:
        """Take a command that edits no properties, and follow what it makes the active element."""
        if verb == "var":
            self._variables.update(
                (p.name.lower(), self._value_of(p.value)) for p in after_verb(command.text) if p.name
            )
        else:
            first = next(iter(self._values(after_verb(command.text))), None)
            named = first is not None and "." in first.value and verb in _SWITCHING
            self._class = class_of(first.value) if named and first is not None else None
        self.commands.append(command)

    # -- edits

    def _take_edit(self, command: Command) -> None:
        """Take an edit of an element without what would write a file, and refuse what would load a program."""
        given = self._edited(command)
        if self._class == "sensor" and command.verb == "new":
            first, later = set_apart(command.text)
            if later:
                self._take_edit(replace(command, text=first))
                self._take_edit(replace(command, text=later))
                return
        if given is None or is_plain(command.text, self._class):
            self.commands.append(command)
            return
        changes: list[tuple[Parameter, str]] = []
        for parameter, danger in find_dangers(given, self._class):
            shown = parameter.name or parameter.value
            if danger == "file":
                text = self._data_file(command, parameter)
                if text is not None:
                    changes.append((parameter, text))
            elif danger == "maps":
                changes.append((parameter, ""))
            elif self.trust:
                if danger == "library":
                    self.references.append(Reference(command.where, parameter.value, None))
            elif danger == "library":
                self.problems.append(
                    f"{command.where}: {shown} loads a program library, which is not allowed; 'trust: true' allows it"
                )
            elif danger == "rewrites":
                self.problems.append(f"{command.where}: {shown}={parameter.value} makes another circuit of this one")
            else:
                changes.append((parameter, ""))
        text = command.text
        for parameter, new in reversed(changes):
            if new:
                text = text[: parameter.value_start] + new + text[parameter.end :]
            else:
                self.left_out.append(replace(command, text=command.text[parameter.start : parameter.end]))
                text = text[: parameter.start] + " " + text[parameter.end :]
        self.commands.append(replace(command, text=text))

    def _edited(self, command: Command) -> list[Parameter] | None:
        """Note the class an edit is of and give its parameters; None where it can be told that none matters."""
        text, verb = command.text, command.verb
        if command.assigns:
            given = list(self._values(parameters(text)))
            owner, _, name = given[0].name.rpartition(".")
            if "." in owner:
                self._class = class_of(owner)
            return [given[0]._replace(name=name), *given[1:]]
        if verb in ("more", "m", "~"):
            return None if is_plain(text, self._class) else list(self._values(after_verb(text)))
        walk = iter(self._values(after_verb(text)))
        target = next(walk, None)
        if target is not None and "." in target.value:
            self._class = class_of(target.value)
        return None if is_plain(text, self._class) else list(walk)

    def _values(self, given: Iterator[Parameter]) -> Iterator[Parameter]:
        """Replace the variables among parameters by their values."""
        for parameter in given:
            yield parameter._replace(value=self._value_of(parameter.value)) if "@" in parameter.value else parameter

    def _value_of(self, written: str) -> str:
        """Replace a variable by its value, as OpenDSS does where a value begins with one."""
        name = re.match(r"@[^.^]*", written)
        if name is None or name[0].lower() not in self._variables:
            return written
        return unquote(self._variables[name[0].lower()]) + written[name.end() :]

    # -- options

    def _take_options(self, command: Command) -> None:
        """Take the options of a ``set`` that describe the circuit."""
        given = [p for p in self._values(after_verb(command.text)) if p.name]
        allowed = [self._may_set(p) for p in given]
        for describing, kept in ((True, self.commands), (False, self.left_out)):
            chosen = [p for p, may in zip(given, allowed, strict=True) if may is describing]
            if len(chosen) == len(given) and (given or not describing):
                kept.append(command)
            elif chosen:
                written = " ".join(f"{p.name}={command.text[p.value_start : p.end]}" for p in chosen)
                kept.append(replace(command, text=f"set {written}"))

    def _may_set(self, option: Parameter) -> bool:
        full = expand(option.name, OPTIONS)
        if full in _NAMING:
            names_class = full in ("type", "class") or "." in option.value
            self._class = class_of(option.value) if names_class else self._class
        return full in DESCRIBING_OPTIONS or (self.trust and full in OPTIONS and full not in NEVER_SET)

    # -- files

    def _include(self, command: Command, above: tuple[Path, ...]) -> None:
        target = self._find(command, self._value_of(file_argument(command.text)), f"{command.verb} of")
        if target is None:
            return
        if target.resolve() in (file.resolve() for file in above):
            self.problems.append(f"{command.where}: {command.text.strip()!r} redirects in a circle")
            return
        self.read(target, above)

    def _take_coordinates(self, command: Command) -> None:
        target = self._find(command, self._value_of(file_argument(command.text)), f"{command.verb} of")
        if target is not None:
            text = self._data(command, target, text_only=True)
            if text is not None:
                self.commands.append(replace(command, text=f"{command.verb} {text}"))

    def _data_file(self, command: Command, parameter: Parameter) -> str | None:
        """Check the data file that a value names and give the value that names just that file."""
        shown = f"{parameter.name}: data from" if parameter.name else "data from"
        array = file_of_array(parameter.value)
        if array is None:
            target = self._find(command, parameter.value.strip(), shown)
            return self._data(command, target, text_only="csv" in parameter.name.lower()) if target else None
        how, written, rest = array
        target = self._find(command, self._value_of(written).strip(), shown)
        inner = self._data(command, target, text_only=how in ("file", "csvfile"), openers="\"'") if target else None
        text = quote(f"{how}={inner}{rest}", "([{\"'") if inner else None
        if inner and text is None:
            self.problems.append(f"{command.where}: the name {written!r} holds too many kinds of quotes for OpenDSS")
        return text

    def _data(self, command: Command, target: Path, *, text_only: bool, openers: str = "\"'([{") -> str | None:
        """Take a data file into the digest and give its full name in quotes; nothing else will be opened for it."""
        raw = self._open(target, f"{command.where}: {target}")
        if raw is None:
            return None
        if text_only and raw.startswith(_BYTE_ORDER_MARKS[command.verb in COORDINATES :]):
            self.problems.append(
                f"{command.where}: {target} begins with a byte order mark, which OpenDSS takes for data; "
                "save it as plain UTF-8 or ASCII"
            )
            return None
        quoted = quote(str(target), openers)
        if quoted is None:
            self.problems.append(
                f"{command.where}: the name {str(target)!r} holds too many kinds of quotes for OpenDSS"
            )
        return quoted

    def _is_allowed(self, real: Path) -> bool:
        """Whether a file may be read: anything in the root, and the shipped feeders, which hold nothing private."""
        return self.trust or real.is_relative_to(self.root) or real.is_relative_to(self._shipped)

    def _find(self, command: Command, written: str, what: str) -> Path | None:
        """Resolve the file that a command names, or note the problem."""
        outside: Path | None = None
        folders = dict.fromkeys((command.file.parent, command.file.resolve().parent))  # the second where it is a link
        for folder in folders:
            target = folder / written.replace("\\", "/")
            try:
                real = target.resolve()
            except (OSError, RuntimeError, ValueError):  # links in a circle, a name that cannot be one
                continue
            if not self._is_allowed(real):
                outside = outside or real
            elif os.path.isfile(target):  # Path.is_file raises where a folder may not be entered
                tidy = Path(os.path.normpath(target))
                found = tidy if tidy.resolve() == real else target
                self.references.append(Reference(command.where, written, found))
                return found
        if outside is not None:
            self.problems.append(
                f"{command.where}: {what} a file outside the model_root {self.root}: {written!r}; "
                + _remedy(self.root, outside)
            )
        else:
            hint = _nearest(next(iter(folders)), written)
            self.problems.append(f"{command.where}: {what} a missing file {written!r}{hint}")
        return None


def _nearest(folder: Path, written: str) -> str:
    """Give the hint for a file that is not there: the same name in other letters, else a near one in its folder."""
    parts = written.replace("\\", "/").split("/")
    real: list[str] = []
    for place, part in enumerate(parts):
        try:
            names = [".", "..", *sorted(p.name for p in folder.joinpath(*real).iterdir())]
        except (OSError, ValueError):
            return ""
        same = part if part in names else next((name for name in names if name.lower() == part.lower()), None)
        if same is None:
            near = nearest_names(part, names[2:]) if place == len(parts) - 1 else []
            return f" (did you mean {'/'.join([*real, near[0]])!r}?)" if near else ""
        real.append(same)
    return f" (did you mean {'/'.join(real)!r}? Letter case matters here)" if real != parts else ""
