"""Read a feeder's files: their commands with file and line, what is left out, what is refused.

A model is a program; what it may reach is decided here, before anything is compiled. Knows text and files, not
electricity, and nothing of where feeders are found.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from powergrid.errors import Problem, nearest_names
from powergrid.grid.feeder import syntax
from powergrid.grid.feeder.syntax import Command, Parameter

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_NAMING = ("type", "class", "element", "object")  # options that change what is edited next
_SWITCHING = ("open", "close", "enable", "disable", "select")


@dataclass(frozen=True)
class Reference:
    """A file that a command names: where it does so, how it is written, and the file; None for a program library."""

    where: str
    written: str
    target: Path | None


@dataclass(frozen=True)
class Scan:
    """What reading a feeder's files gave.

    Attributes:
        commands: What is run, in order, redirects already followed.
        left_out: What the files also say and is not run.
        digest: SHA-256 over the content of all files read and over ``trust``.
        files: SHA-256 and real path, links followed, of each file, in the order they were first read.
        looked: Real path of each place where a file was looked for, empty where none may be read there.
        settings: Last value of each option of ``Set`` and ``Solve``, run or not, by its full lower-case name.
    """

    commands: tuple[Command, ...]
    left_out: tuple[Command, ...]
    digest: str
    files: Mapping[Path, tuple[bytes, str]]
    looked: Mapping[Path, str]
    settings: Mapping[str, str]


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

    def allows(self, real: Path) -> bool:
        """Whether a file may be read: anything in the root, and the shipped feeders, which hold nothing private."""
        return self.trust or real.is_relative_to(self.root) or real.is_relative_to(self.shipped)


def read_files(place: Place) -> tuple[Scan, list[Problem], list[Reference]]:
    """Read a master file and all that it redirects to or takes data from, as far as it can be read.

    Returns:
        What was read, without what was refused; the problems, each with file and line, their codes those of
        ``powergrid check``; and what the commands name of files.
    """
    reader = _Reader(place)
    reader.read(place.master, ())
    files = {file: (digest, str(resolve(file))) for file, digest in reader.hashes.items()}
    left_out = tuple(reader.left_out)
    scan = Scan(tuple(reader.commands), left_out, reader.digest(), files, reader.looked, reader.settings)
    return scan, reader.problems, reader.references


def resolve(file: Path) -> Path | None:
    """Return the real path of a file, links followed, None where there can be none."""
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that cannot be one
        return None


def remedy(root: Path, wanted: Path) -> str:
    """Say which key allows a file outside the root."""
    try:
        common = os.path.commonpath([root, wanted.parent])
    except ValueError:  # another drive
        return "'trust: true' allows it"
    return f"'model_root: {common}' or 'trust: true' allows it"


class _Reader:
    """Walk a master file and its redirects, sorting commands."""

    def __init__(self, place: Place) -> None:
        self.place, self.trust = place, place.trust
        self.looked: dict[Path, str] = {}
        self.commands: list[Command] = []
        self.left_out: list[Command] = []
        self.problems: list[Problem] = []
        self.hashes: dict[Path, bytes] = {}
        self.references: list[Reference] = []
        self.settings: dict[str, str] = {}
        self._order = hashlib.sha256()
        self._variables: dict[str, str] = {}
        self._class: str | None = None  # of the element that is edited next

    def digest(self) -> str:
        """Return a hash over all contents in the order they were read; where the files lie does not matter."""
        digest = self._order.copy()
        if self.trust:
            digest.update(b"trusted")
        return digest.hexdigest()

    def _open(self, file: Path, where: str, shown: str = "") -> bytes | None:
        """Read a file and note its content, or the problem."""
        try:
            raw = file.read_bytes()
        except OSError as error:
            self._refuse("unreadable-file", where, f"{shown}cannot be read: {error.strerror}")
            return None
        self.hashes[file] = hashlib.sha256(raw).digest()
        self._order.update(self.hashes[file])
        return raw

    def read(self, file: Path, above: tuple[Path, ...]) -> None:
        """Take all commands of a file."""
        above = (*above, file)
        raw = self._open(file, str(file))
        if raw is not None:
            for command in syntax.split(file, syntax.decode(raw)):
                self._take(command, above)

    def _take(self, command: Command, above: tuple[Path, ...]) -> None:
        """Sort one command: run as written, run in part, left out, or a problem."""
        verb = command.verb
        if verb in syntax.EDITING or command.assigns:
            self._take_edit(command)
        elif verb in syntax.INCLUDES:
            self._include(command, above)
        elif verb in syntax.CLEARING:
            self.left_out += [*self.commands, command]  # what came before is another circuit
            self.commands.clear()
            self.settings.clear()
        elif verb == "solve":
            self._note_settings(command)
            (self.commands if self.trust else self.left_out).append(command)
        elif verb in syntax.NEVER_RUN or verb not in syntax.VERBS:
            self.left_out.append(command)
        elif verb in syntax.REWRITING and not self.trust:
            text = f"{verb} makes another circuit of this one"
            self._refuse("rewriting-command", command.where, text, "run it in OpenDSS and save the result")
        elif verb == "set":
            self._take_options(command)
        elif verb in syntax.COORDINATES:
            self._take_coordinates(command)
        elif verb in syntax.DESCRIBING or self.trust:
            self._take_other(command, verb)
        else:
            self.left_out.append(command)

    def _take_other(self, command: Command, verb: str) -> None:
        """Take a command that edits no properties, and follow what it makes the active element."""
        if verb == "var":
            self._variables.update(
                (p.name.lower(), self._value_of(p.value)) for p in syntax.after_verb(command.text) if p.name
            )
        else:
            first = next(iter(self._values(syntax.after_verb(command.text))), None)
            named = first is not None and "." in first.value and verb in _SWITCHING
            self._class = syntax.class_of(first.value) if named and first is not None else None
        self.commands.append(command)

    # -- edits

    def _take_edit(self, command: Command) -> None:
        """Take an edit of an element without what would write a file, and refuse what would load a program."""
        given = self._edited(command)
        if self._class == "sensor" and command.verb == "new":
            # OpenDSS crashes at kWs and kvars of a sensor that it has not tied to its element yet.
            first, later = syntax.set_apart(command.text)
            if later:
                self._take_edit(replace(command, text=first))
                self._take_edit(replace(command, text=later))
                return
        if syntax.is_plain(command.text, self._class):
            self.commands.append(command)
            return
        changes: list[tuple[Parameter, str]] = []
        for parameter, danger in syntax.find_dangers(given, self._class):
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
                text = f"{shown} loads a program library, which is not allowed"
                self._refuse("program-library", command.where, text, "'trust: true' allows it")
            elif danger == "rewrites":
                text = f"{shown}={parameter.value} makes another circuit of this one"
                self._refuse("rewriting-command", command.where, text)
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

    def _edited(self, command: Command) -> Iterator[Parameter]:
        """Note the class that an edit is of, and return its parameters."""
        if command.assigns:
            walk = self._values(syntax.parameters(command.text))
            first = next(walk)
            owner, _, name = first.name.rpartition(".")
            if "." in owner:
                self._class = syntax.class_of(owner)
            return itertools.chain([first._replace(name=name)], walk)
        walk = self._values(syntax.after_verb(command.text))
        if command.verb in ("more", "m", "~"):
            return walk
        target = next(walk, None)
        if target is not None and "." in target.value:
            self._class = syntax.class_of(target.value)
        return walk

    def _values(self, given: Iterator[Parameter]) -> Iterator[Parameter]:
        """Replace the variables among parameters by their values."""
        for parameter in given:
            yield parameter._replace(value=self._value_of(parameter.value)) if "@" in parameter.value else parameter

    def _value_of(self, written: str) -> str:
        """Replace a variable by its value, as OpenDSS does where a value begins with one."""
        name = re.match(r"@[^.^]*", written)
        if name is None or name[0].lower() not in self._variables:
            return written
        return syntax.unquote(self._variables[name[0].lower()]) + written[name.end() :]

    # -- options

    def _take_options(self, command: Command) -> None:
        """Take the options of a ``set`` that describe the circuit."""
        given = self._note_settings(command)
        allowed = [self._may_set(p) for p in given]
        for describing, kept in ((True, self.commands), (False, self.left_out)):
            chosen = [p for p, may in zip(given, allowed, strict=True) if may is describing]
            if len(chosen) == len(given) and (given or not describing):
                kept.append(command)
            elif chosen:
                written = " ".join(f"{p.name}={command.text[p.value_start : p.end]}" for p in chosen)
                kept.append(replace(command, text=f"set {written}"))

    def _note_settings(self, command: Command) -> list[Parameter]:
        """Keep the options of a ``set`` or ``solve`` as data, whether it is run or not, and return them."""
        given = [p for p in self._values(syntax.after_verb(command.text)) if p.name]
        names = ((syntax.expand(p.name, syntax.OPTIONS), p.value.strip()) for p in given)
        self.settings.update((name, value) for name, value in names if name)
        return given

    def _may_set(self, option: Parameter) -> bool:
        full = syntax.expand(option.name, syntax.OPTIONS)
        if full in _NAMING:
            names_class = full in ("type", "class") or "." in option.value
            self._class = syntax.class_of(option.value) if names_class else self._class
        return full in syntax.DESCRIBING_OPTIONS or (
            self.trust and full in syntax.OPTIONS and full not in syntax.NEVER_SET
        )

    # -- files

    def _include(self, command: Command, above: tuple[Path, ...]) -> None:
        target = self._find_named(command)
        if target is None:
            return
        if target.resolve() in (file.resolve() for file in above):
            self._refuse("redirect-circle", command.where, f"{command.text.strip()!r} redirects in a circle")
            return
        self.read(target, above)

    def _take_coordinates(self, command: Command) -> None:
        target = self._find_named(command)
        text = self._data(command, target, text_only=True) if target is not None else None
        if text is not None:
            self.commands.append(replace(command, text=f"{command.verb} {text}"))

    def _find_named(self, command: Command) -> Path | None:
        """Resolve the file whose name follows the verb."""
        first = next(self._values(syntax.after_verb(command.text)), None)
        return self._find(command, first.value if first is not None else "", f"{command.verb} of")

    def _data_file(self, command: Command, parameter: Parameter) -> str | None:
        """Check the data file that a value names, and return the value that names just that file."""
        shown = f"{parameter.name}: data from" if parameter.name else "data from"
        array = syntax.file_of_array(parameter.value)
        if array is None:
            target = self._find(command, parameter.value.strip(), shown, is_data=True)
            return self._data(command, target, text_only="csv" in parameter.name.lower()) if target else None
        how, written, rest = array
        target = self._find(command, self._value_of(written).strip(), shown, is_data=True)
        # The whole array gets brackets, so that quotes are left for the name in it.
        inner = self._data(command, target, text_only=how in ("file", "csvfile"), openers="\"'") if target else None
        return self._quote(command, f"{how}={inner}{rest}", "([{\"'", written) if inner else None

    def _data(self, command: Command, target: Path, *, text_only: bool, openers: str = "\"'([{") -> str | None:
        """Take a data file into the digest, and return its full name in quotes; nothing else will be opened for it."""
        raw = self._open(target, command.where, f"{target}: ")
        if raw is None:
            return None
        # OpenDSS skips the mark of UTF-8 in coordinates; in an array it is error 705.
        if text_only and raw.startswith(_BYTE_ORDER_MARKS[command.verb in syntax.COORDINATES :]):
            text = f"{target} begins with a byte order mark, which OpenDSS takes for data"
            self._refuse("unreadable-file", command.where, text, "save it as plain UTF-8 or ASCII")
            return None
        return self._quote(command, str(target), openers, str(target))

    def _quote(self, command: Command, text: str, openers: str, name: str) -> str | None:
        quoted = syntax.quote(text, openers)
        if quoted is None:
            self._refuse("refused", command.where, f"the name {name!r} holds too many kinds of quotes for OpenDSS")
        return quoted

    def _find(self, command: Command, written: str, what: str, *, is_data: bool = False) -> Path | None:
        """Resolve the file that a command names, or note the problem."""
        outside: Path | None = None
        folders = dict.fromkeys((command.file.parent, command.file.resolve().parent))  # the second where it is a link
        for folder in folders:
            target = folder / written.replace("\\", "/")
            self.looked[target] = ""
            real = resolve(target)
            if real is None:
                continue
            if not self.place.allows(real):
                outside = outside or real
            elif os.path.isfile(target):  # Path.is_file raises where a folder may not be entered
                self.looked[target] = str(real)
                tidy = Path(os.path.normpath(target))
                found = tidy if tidy.resolve() == real else target
                self.references.append(Reference(command.where, written, found))
                return found
        if outside is not None:
            text = f"{what} a file outside the model_root {self.place.root}: {written!r}"
            self._refuse("outside-root", command.where, text, remedy(self.place.root, outside))
        else:
            hint, is_case = _nearest(next(iter(folders)), written)
            code = "file-case" if is_case else "missing-data-file" if is_data else "missing-file"
            self._refuse(code, command.where, f"{what} a missing file {written!r}{hint}")
        return None

    def _refuse(self, code: str, where: str, text: str, remedy: str = "") -> None:
        self.problems.append(Problem(code, where, text, remedy))


def _nearest(folder: Path, written: str) -> tuple[str, bool]:
    """Return the hint for a file that is not there, and whether only the letter case of its name is wrong.

    The hint is the same name in other letters, else a near one in its folder.
    """
    parts = written.replace("\\", "/").split("/")
    real: list[str] = []
    for place, part in enumerate(parts):
        try:
            names = [".", "..", *sorted(p.name for p in folder.joinpath(*real).iterdir())]
        except (OSError, ValueError):
            return "", False
        # A feeder written on Windows, where letter case does not matter.
        same = part if part in names else next((name for name in names if name.lower() == part.lower()), None)
        if same is None:
            near = nearest_names(part, names[2:]) if place == len(parts) - 1 else []
            return (f" (did you mean {'/'.join([*real, near[0]])!r}?)" if near else ""), False
        real.append(same)
    if real == parts:
        return "", False
    return f" (did you mean {'/'.join(real)!r}? Letter case matters here)", True
