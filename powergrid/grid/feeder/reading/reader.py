"""Read a feeder's files into statements: what each line means, what is left out, what is refused.

What is handed to the engine is only what was understood, written anew: never a line as it came. Knows text and files,
not electricity, and nothing of where feeders are found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from powergrid.errors import Problem, nearest_names, shorten
from powergrid.grid.engine import property_kinds
from powergrid.grid.feeder.reading import syntax
from powergrid.grid.feeder.reading.defined import SOURCE, WHOLE_CLASS, Defined
from powergrid.grid.feeder.reading.file_names import FileNames
from powergrid.grid.feeder.reading.files import MOST_LINES, MOST_REDIRECTS, TRUSTING, Files, Place, Reference, resolve
from powergrid.grid.feeder.reading.members import lists_members, name_members
from powergrid.grid.feeder.reading.numbers import find_rounded, find_wrong_number, is_suspect, may_hold_wrong
from powergrid.grid.feeder.reading.options import Options
from powergrid.grid.feeder.reading.statements import (
    Parameter,
    Property,
    Unclear,
    Variables,
    cut,
    expand,
    find_empty_part,
    find_properties,
    is_cut,
    match_plain_new,
    quote,
    write,
)
from powergrid.grid.feeder.reading.syntax import Command

_CONTINUATIONS = ("more", "m", "~")
_DEEPEST = 100  # redirects inside each other
_SWITCHING = ("enable", "disable", "open", "close", "select")
#: What OpenDSS crashes at, or reads beside, before the others are set: values of a sensor that it has not tied to its
#: element yet, bases of buses that are not named yet.
_LATE = {"sensor": ("kws", "kvars"), "invcontrol": ("monbusesvbase",)}
#: Commands of which all that follows is taken as it is: names, numbers, options of their own.
_MEASURES = ("setbusxy", "setkvbase")


@dataclass(frozen=True)
class Scan:
    """What reading a feeder's files gave.

    Attributes:
        commands: What is run, in order, redirects already followed; each text as the engine is handed it.
        left_out: What the files also say and is not run.
        digest: SHA-256 over the content of all files read and over ``trust``.
        files: SHA-256 and real path, links followed, of each file, in the order they were first read.
        looked: Real path of each place where a file was looked for, empty where none may be read there.
        settings: Last value of each option of ``Set`` and ``Solve``, run or not, by its full lower-case name, in the
            order in which they were given last.
        notes: What was understood otherwise than it is written.
        names_differ: Whether no two circuit elements of a class have one name, for certain.
    """

    commands: tuple[Command, ...]
    left_out: tuple[Command, ...]
    digest: str
    files: Mapping[Path, tuple[bytes, str]]
    looked: Mapping[Path, str]
    settings: Mapping[str, str]
    notes: tuple[Problem, ...] = ()
    names_differ: bool = False


def read_files(place: Place) -> tuple[Scan, list[Problem], list[Reference]]:
    """Read a master file and all that it redirects to or takes data from, as far as it can be read.

    Returns:
        What was read, without what was refused; the problems, each with file and line, their codes those of
        ``powergrid check``; and what the commands name of files.
    """
    reader = _Reader(place)
    reader.read(place.master, ())
    own = reader.files
    files = {file: (digest, str(resolve(file))) for file, digest in own.hashes.items()}
    said = (tuple(reader.commands), tuple(reader.left_out), own.digest(), files, own.looked)
    differ = reader.defined.all_differ and "allowduplicates" not in reader.options.settings
    return Scan(*said, reader.options.settings, tuple(reader.notes), differ), own.problems, own.references


class _Reader:
    """Walk a master file and its redirects, turning lines into statements."""

    def __init__(self, place: Place) -> None:
        self.trust = place.trust
        self.files = Files(place)
        self.commands: list[Command] = []
        self.left_out: list[Command] = []
        self.notes: list[Problem] = []
        self.options = Options(trust=place.trust)
        self.defined, self._variables = Defined(), Variables()
        self._n_lines = self._n_redirects = 0
        self._is_like = False  # whether the active element is one that another was made like
        self._is_odd = False  # whether a line of the file that is read may hold a number that means another
        self._names = FileNames(self.files, self._variables)

    def read(self, file: Path, above: tuple[Path, ...]) -> None:
        """Take all commands of a file."""
        above = (*above, file.resolve())
        raw = self.files.read(file, str(file))
        if raw is not None:
            self._n_lines, self._n_redirects = self._n_lines + raw.count(b"\n"), self._n_redirects + 1
            if self._n_lines > MOST_LINES or self._n_redirects > MOST_REDIRECTS:
                raise self.files.too_much(str(file))
            self.files.enter(file)
            was_odd, self._is_odd = self._is_odd, may_hold_wrong(raw)
            for command in syntax.split(file, syntax.decode(raw)):
                try:
                    self._take(command, above)
                except Unclear as error:
                    # What the line is of may be another element than it seems: so is what the next ones are of.
                    self.defined.active = None
                    self._refuse("unclear", command, f"{shorten(command.text)!r}: {error}")
            self._is_odd = was_odd

    def _refuse(self, code: str, command: Command, text: str, remedy: str = "") -> None:
        self.files.refuse(code, command.where, text, remedy)

    def _note(self, code: str, command: Command, text: str, remedy: str = "") -> None:
        self.notes.append(Problem(code, command.where, text, remedy))

    def _take(self, command: Command, above: tuple[Path, ...]) -> None:
        """Sort one command: understood and written anew, left out, or a problem."""
        if self._take_plain(command):
            return
        verb = command.verb
        if command.assigns:
            self._take_assignment(command)
        elif verb in syntax.EDITING:
            self._take_edit(command, verb)
        elif verb in syntax.INCLUDES:
            self._include(command, verb, above)
        elif verb in syntax.CLEARING:
            self.left_out += [*self.commands, command]  # what came before is another circuit
            self.commands.clear()
            self.options.settings.clear()
            self.defined.clear()
        elif verb == "set":
            self._take_options(command)
        elif verb == "cd":
            self._move(command, self._first(command))
        elif verb == "solve":
            self._take_solve(command)
        elif verb in syntax.NEVER_RUN or verb not in syntax.VERBS:
            self._leave_out(command)
        elif verb in syntax.REWRITING and not self.trust:
            text = f"{verb} makes another circuit of this one"
            self._refuse("rewriting-command", command, text, "run it in OpenDSS and save the result")
        elif verb in syntax.COORDINATES:
            self._take_coordinates(command, verb)
        elif verb == "var":
            self._variables.define(cut(command.text)[1:])
        elif verb in _SWITCHING:
            self._take_switching(command, verb)
        elif verb in syntax.DESCRIBING:
            self._emit(command, write(_spell(command, verb), *(self._parameters(command) if verb in _MEASURES else ())))
            self.defined.active = None
        elif self.trust:
            self._emit(command, write(_spell(command, verb), *self._parameters(command)))
            self.defined.active = None
        else:
            self._leave_out(command)

    def _take_plain(self, command: Command) -> bool:
        """Take what nearly all lines of a large feeder are, in a quarter of the time that any other takes.

        A ``new`` with all properties by name and without a character that could mean anything else is handed on as it
        is written, where the properties do nothing but describe.

        Returns:
            Whether it is such a line.
        """
        plain = match_plain_new(command.text)
        if plain is None or (self._is_odd and is_suspect(command.text)):
            return False
        class_name, name, given = plain
        if class_name == "circuit" or class_name in _LATE or not syntax.only_describe(class_name, given):
            return False
        self._is_like = False
        self.defined.add(class_name, name)
        self.commands.append(command)
        return True

    def _emit(self, command: Command, text: str) -> None:
        self.commands.append(Command(command.file, command.line, text))

    def _leave_out(self, command: Command) -> None:
        """Note what is not run; what it would have made the active element is not known."""
        self.left_out.append(command)
        if command.verb in syntax.VERBS and command.verb != "//":
            self.defined.active = None

    def _parameters(self, command: Command) -> list[Parameter]:
        """Cut what follows the verb into parameters, variables replaced."""
        given = cut(command.text)[1:]
        return [self._variables.replace(each) for each in given] if "@" in command.text else given

    def _first(self, command: Command) -> str:
        """Return the first value behind the verb."""
        given = self._parameters(command)
        return given[0].value if given else ""

    # -- edits

    def _take_edit(self, command: Command, verb: str) -> None:
        """Take ``new``, ``edit``, ``batchedit`` or a continuation."""
        given = self._parameters(command)
        if verb in _CONTINUATIONS:
            self._edit_active(command, given)
            return
        class_name, name = self._target(given)
        self._is_like = False
        if verb == "batchedit":
            self._edit_batch(command, class_name, name, given[1:])
        elif class_name == "circuit" and verb == "edit":
            self._note("left-out", command, f"{shorten(command.text)!r} does nothing in OpenDSS", "edit Vsource.source")
        else:
            owner = SOURCE[0] if class_name == "circuit" else class_name
            properties = find_properties(owner, given[1:])
            if verb == "new":
                self.defined.add(*(SOURCE if class_name == "circuit" else (class_name, name)))
            else:
                self.defined.activate(class_name, name)
            late = _LATE.get(class_name, ())
            later = [each for each in properties if each.name in late] if late else []
            properties = [each for each in properties if each not in later] if later else properties
            target = f"{given[0].value.partition('.')[0]}.{name}"
            if properties or not later or verb == "new":  # which makes the element, whatever it says
                self._edit(command, _spell(command, verb), target, owner, properties)
            if later:
                self._edit(command, "Edit", target, owner, later)

    def _target(self, given: Sequence[Parameter]) -> tuple[str, str]:
        """Return class, lower case, and name of the element that a command names first."""
        if not given or (given[0].name and not "object".startswith(given[0].name.lower())):
            raise Unclear("it names no element: Class.name comes first")
        class_name, dot, name = given[0].value.partition(".")
        name = self._variables.replace(Parameter("", name)).value
        if not dot or not class_name.strip() or not name:
            raise Unclear(f"{given[0].value!r} is no Class.name, and what OpenDSS takes for the missing is not certain")
        return class_name.strip().lower(), name

    def _edit_active(self, command: Command, given: Sequence[Parameter]) -> None:
        """Take an edit that names no element."""
        active = self.defined.active
        if active is None:
            raise Unclear("which element it edits is not certain; name it: Edit Class.name ...")
        class_name, name = active
        if not given:
            return
        properties = find_properties(class_name, given)
        if self._is_like:  # which nobody expects; both engines do so
            text = f"{shorten(command.text)!r} edits {class_name}.{name}: like= made it the active element"
            self._note("mapped", command, text, "name the element: Edit Class.name ...")
        target = f"{class_name}.{self.defined.spelling(class_name, name)}"
        # Of several elements of one name only the active one can be meant, which none but OpenDSS can tell apart.
        twice = self.defined.is_twice(class_name, name)
        self._edit(command, "~" if twice else "Edit", "" if twice else target, class_name, properties)

    def _edit_batch(self, command: Command, class_name: str, pattern: str, given: Sequence[Parameter]) -> None:
        """Take a ``batchedit``: as it is where it is of a whole class, else as an edit of each element."""
        if class_name not in property_kinds():
            raise Unclear(f"there is no class {class_name!r}")
        properties = find_properties(class_name, given)
        if pattern in WHOLE_CLASS:
            self._edit(command, "BatchEdit", f"{class_name}..*", class_name, properties)
        else:
            texts = self._texts_of(command, class_name, properties)
            for name in self.defined.match(class_name, pattern):
                self._emit(command, write("Edit", Parameter("", f"{class_name}.{name}"), *texts))
        self.defined.active = None

    def _take_assignment(self, command: Command) -> None:
        """Take ``Class.name.property=value`` or ``property=value``, and what follows on the line."""
        given = [self._variables.replace(each) for each in cut(command.text)]
        if not given:
            raise Unclear("there is nothing behind its '='")
        first, *rest = given
        if '"' in first.value:
            raise Unclear("its value holds a quote that OpenDSS would put it into; use Edit Class.name ...")
        class_name, dot, behind = first.name.partition(".")
        name, second, own = behind.partition(".")
        if not dot:
            self._edit_active(command, [first, *rest])
            return
        if not second or not own or name.startswith("@"):
            raise Unclear(f"{first.name!r} is no Class.name.property")
        class_name = class_name.strip().lower()
        if not self.defined.has(class_name, name):
            self.defined.active = None
            near = nearest_names(name, self.defined.names(class_name))
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            self._refuse("unknown-name", command, f"{shorten(command.text)!r} edits what is not defined{hint}")
            return
        self.defined.activate(class_name, name)
        self._is_like = False
        self._edit_active(command, [first._replace(name=own), *rest])

    def _edit(self, command: Command, verb: str, target: str, class_name: str, properties: Sequence[Property]) -> None:
        """Write an edit of an element without what would write a file; refuse what would load a program."""
        given = self._texts_of(command, class_name, properties)
        if (like := [own.given.value for own in properties if own.kind == "MakeLike"]) and self.defined.active:
            self.defined.activate(class_name, like[-1])
            self._is_like = True
        if given or not properties or verb.lower() == "new":
            self._emit(command, write(verb, *([Parameter("", target)] if target else []), *given))

    def _texts_of(self, command: Command, class_name: str, properties: Sequence[Property]) -> list[Parameter]:
        """Return what may be set of properties, as it is handed to the engine."""
        return [each for own in properties if (each := self._check(command, class_name, own)) is not None]

    def _check(self, command: Command, class_name: str, own: Property) -> Parameter | None:
        """Return one property as it is handed to the engine, None where it is not."""
        given = own.given
        if found := find_wrong_number(own.name, own.kind, given):
            code, text, remedy = found
            self._refuse(code, command, f"{shorten(given.written())!r}: {text}", remedy)
            return None
        if rounded := find_rounded(own.kind, given):
            self._note("mapped", command, f"{given.written()} {rounded}")
        if not given.opener and syntax.only_describes(class_name, own.name):
            return given
        equivalent = syntax.find_equivalent(class_name, own.name, given.value)
        if equivalent is not None:
            name, value = equivalent
            what = f"is {name} here" if name else "says nothing of a power flow, and is left out"
            text = f"{given.written()} of EPRI's OpenDSS {what}"
            self._note("mapped", command, text)
            if not name:
                return None
            given = Parameter(name, value, given.opener or ("[" if " " in value else ""))
        elif class_name == "fuse" and own.name == "action":
            raise Unclear(f"{given.written()} is neither open nor close")
        cuts = is_cut(own.kind)
        if cuts and given.opener:
            given = self._variables.replace_inside(given)
            find_empty_part(given.value)
        danger = syntax.find_danger(class_name, own.name, given.value)
        if danger == "file":
            return self._names.data_file(command, given)
        if danger == "maps" or (danger == "writes" and not self.trust):
            self.left_out.append(replace(command, text=own.given.written()))
            return None
        if danger == "library":
            if not self.trust:
                text = f"{own.given.name} loads a program library, which is not allowed"
                self._refuse("program-library", command, text, TRUSTING)
                return None
            self.files.references.append(Reference(command.where, given.value, None))
        if danger == "rewrites" and not self.trust:
            self._refuse("rewriting-command", command, f"{given.written()} makes another circuit")
            return None
        if given.opener and "=" in given.value:
            return self._names.array(command, given, is_free=own.kind == "String")
        if not lists_members(class_name, own.name):
            return given
        given, wrong = name_members(class_name, own.name, given, self.defined)
        for each in wrong:
            self._refuse("unknown-name", command, f"{shorten(own.given.written())!r}: {each}")
        return None if wrong else given

    # -- other commands

    def _take_switching(self, command: Command, verb: str) -> None:
        """Take a command that switches an element, or makes it the active one."""
        given = self._parameters(command)
        class_name, name = self._target(given)
        if class_name == "circuit":
            return
        self._is_like = False
        if verb in ("open", "close"):
            numbers = [each._replace(name="") for each in given[1:]]
            for number in numbers:
                if found := find_wrong_number("", "Integer", number):
                    code, text, remedy = found
                    self._refuse(code, command, f"{shorten(command.text)!r}: {text}", remedy)
                    return
            self._emit(command, write(_spell(command, verb), Parameter("", f"{class_name}.{name}"), *numbers))
        elif verb in ("enable", "disable"):
            if "enabled" not in property_kinds().get(class_name, ()):
                raise Unclear(f"{class_name!r} is no class of elements that can be {verb}d")
            names = self.defined.names(class_name) if name == "*" else [name]
            for each in names:
                enabled = Parameter("enabled", "yes" if verb == "enable" else "no")
                self._emit(command, write("Edit", Parameter("", f"{class_name}.{each}"), enabled))
        elif not self.defined.has(class_name, name):
            self._refuse("unknown-name", command, f"{shorten(command.text)!r} selects what is not defined")
        self.defined.activate(class_name, name)

    def _take_solve(self, command: Command) -> None:
        """Keep the options of a ``solve``, which is run where the feeder is trusted."""
        try:
            given = self._parameters(command)
        except Unclear:
            if self.trust:
                raise
            given = []
        self.options.take(given)
        if self.trust:
            self._emit(command, write(_spell(command, "solve"), *given))
        else:
            self.left_out.append(command)
        self.defined.active = None

    def _take_options(self, command: Command) -> None:
        """Take the options of a ``set`` that describe the circuit."""
        try:
            given = self._parameters(command)
        except Unclear as error:
            # A comment that begins with a quote, behind options that are not run anyway.
            names = [expand(each.name, syntax.OPTIONS) for each in error.found[1:]]
            if not names or any(not name or self.options.is_run(name) for name in names):
                raise
            self.left_out.append(command)
            return
        run: list[Parameter] = []
        left: list[Parameter] = []
        for name, each in self.options.take(given):
            if name in syntax.NAMING_OPTIONS:
                self.defined.follow_set(name, each.value)
                self._is_like = False
            elif name in syntax.FINDING_OPTIONS:
                self.defined.active = None  # a shape may be the active element from here on
            if name in syntax.NAMING_OPTIONS:
                continue
            if name == "datapath":
                self._move(command, each.value)
            elif self.options.is_run(name):
                named = each if each.name.lower() == name else each._replace(name=name)
                named = self._variables.replace_inside(named)
                checked = self._names.array(command, named) if each.opener and "=" in each.value else named
                run += [] if checked is None else [checked]
            else:
                left.append(each)
            if name == "allowduplicates":
                self.defined.allow_duplicates = each.value.strip().lower()[:1] in ("y", "t")
        if run:
            self._emit(command, write(_spell(command, "set"), *run))
        if left or not given:
            text = command.text if len(left) == len(given) else write(_spell(command, "set"), *left)
            self.left_out.append(replace(command, text=text))

    # -- files

    def _move(self, command: Command, folder: str) -> None:
        """Let names count from another folder from here on, as OpenDSS does."""
        if not self._names.move(command, folder):
            self.left_out.append(command if command.verb == "cd" else replace(command, text=f"set datapath={folder}"))

    def _include(self, command: Command, verb: str, above: tuple[Path, ...]) -> None:
        target = self._names.find(command, self._first(command), f"{verb} of", ending=".dss")
        if target is None:
            return
        if target.resolve() in above:
            self._refuse("redirect-circle", command, f"{command.text.strip()!r} redirects in a circle")
            return
        if len(above) >= _DEEPEST:
            self._refuse("refused", command, f"{shorten(command.text)!r} is inside {_DEEPEST} other redirects")
            return
        folders = self.files.folders
        self.read(target, above)
        if verb == "compile":  # names count from its folder from here on
            self.files.enter(target)
        else:
            self.files.folders = folders

    def _take_coordinates(self, command: Command, verb: str) -> None:
        target = self._names.find(command, self._first(command), f"{verb} of")
        text = self._names.data(command, target, text_only=True) if target is not None else None
        if text is not None:
            self._emit(command, f"{_spell(command, verb)} {quote(text)}")


def _spell(command: Command, verb: str) -> str:
    """Return a verb as it is written where that is the whole word, as errors show it; else the whole word."""
    word = re.split(r"[ \t,]", command.text, maxsplit=1)[0]
    return word if word.lower() == verb else verb.capitalize()
