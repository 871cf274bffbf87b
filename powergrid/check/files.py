"""What the files of a feeder say by themselves: references, commands that do not belong, names given twice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from powergrid.check.report import Recorder
from powergrid.errors import Problem, nearest_names
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.syntax import DESCRIBING, VERBS, Command, after_verb, describe_unknown_command

_MACHINE_VERBS = ("doscmd", "fileedit", "formedit", "cd", "quit", "save", "dump", "newactor", "connect", "disconnect")
_CONTINUATIONS = ("more", "m", "~")
_SHOWN = 72
#: What a circuit begins with.
SOURCE = "vsource.source"


class Definitions:
    """Where the elements of a feeder are defined.

    Attributes:
        first: ``class.name``, lower case, to the command that defines it first.
        again: Commands that define a name which is taken, with the name.
    """

    def __init__(self, commands: Iterable[Command]) -> None:
        self.first: dict[str, Command] = {}
        self.again: list[tuple[str, Command]] = []
        self._texts: dict[str, list[str]] = {}
        self._bus_order: dict[str, Command] = {}
        active = ""
        for command in commands:
            if (name := defined_name(command)) is not None:
                active = name
                if name in self.first:
                    self.again.append((name, command))
                else:
                    self.first[name] = command
            elif (edited := edited_name(command)) is not None:
                active = edited
            elif command.verb not in _CONTINUATIONS and not command.assigns:
                continue
            else:
                own = re.match(r"(\w+)\.(.+)\.\w+\s*=", command.text)
                active = f"{own[1]}.{own[2]}".lower() if own else active
            self._texts.setdefault(active, []).append(command.text.lower())

    def place(self, element: str) -> tuple[str, int]:
        """Return file and line of ``class.name``, empty and 0 where the files do not define it."""
        command = self.first.get(element.lower())
        return (str(command.file), command.line) if command else ("", 0)

    def says(self, element: str, *properties: str) -> bool:
        """Whether the commands of an element set a property; the names are regular expressions."""
        text = " ".join(self._texts.get(element.lower(), ()))
        return any(re.search(rf"(?<![\w%])(?:{each})\s*=", text) for each in properties)


def defined_name(command: Command) -> str | None:
    """Return the ``class.name`` that a command defines, lower case; the source for a circuit."""
    named = _named(command) if command.verb == "new" else None
    return SOURCE if named is not None and named.startswith("circuit.") else named


def edited_name(command: Command) -> str | None:
    """Return the ``class.name`` that a command edits by name, lower case."""
    return _named(command) if command.verb == "edit" else None


def _named(command: Command) -> str | None:
    """Return the ``class.name`` that follows the verb, whatever quotes it is in."""
    first = next(after_verb(command.text), None)
    owner, dot, name = first.value.strip().lower().partition(".") if first is not None else ("", "", "")
    return f"{owner}.{name}" if dot and owner.isidentifier() and name else None


def find_problems(problems: Iterable[Problem], recorder: Recorder, master: Path) -> None:
    """Take down what the reader of the files refused; its codes are those of findings."""
    for problem in problems:
        file, line = split_place(problem.where)
        recorder.find(problem.code, problem.message, file or master, line)


def split_place(where: str) -> tuple[str, int]:
    """Return file and line of ``file:line``, 0 where there is no line."""
    file, _, line = where.rpartition(":")
    return (file, int(line)) if file and line.isdigit() else (where, 0)


def find_misplaced(feeder: Feeder, recorder: Recorder) -> None:
    """Take down what the files say beside describing a circuit, and what became of it."""
    dropped = 0
    kept: dict[tuple[Path, int], set[str]] = {}
    for command in feeder.commands:
        kept.setdefault((command.file, command.line), set()).add(command.text)
    binary: set[Path] = set()
    no_circuit = recorder.report.of_code("no-circuit")  # then it is another kind of file
    for command in feeder.left_out:
        beside = kept.get((command.file, command.line), set())  # what else of the line is run
        file, line, text = command.file, command.line, shorten(command.text)
        verb = command.verb
        if verb in ("clear", "clearall"):
            if dropped:
                recorder.find("dropped-circuit", f"{dropped} commands before {text!r} are dropped", file, line)
            dropped = 0
        elif beside and command.text not in beside and verb != "set":
            recorder.find("writing-property", f"{text!r} would write a file", file, line)
        elif verb not in VERBS and not command.assigns:
            if "\0" in command.text and file not in binary:
                binary.add(file)
                recorder.find("unreadable-file", "holds binary data", file, line)
            elif file not in binary and not no_circuit:
                recorder.find("unknown-command", describe_unknown_command(command), file, line)
        elif verb in _MACHINE_VERBS:
            recorder.find("shell-command", f"{text!r} is not run", file, line)
        elif (verb in DESCRIBING or command.assigns) and verb != "set":
            dropped += 1
        else:
            recorder.find("left-out", f"{text!r} is not run", file, line)


def find_unknown_edits(feeder: Feeder, definitions: Definitions, recorder: Recorder) -> None:
    """Take down edits of elements that do not exist."""
    # OpenDSS ignores them without a word: the circuit is then another than the file says.
    for command in feeder.commands:
        name = edited_name(command)
        if name is None or name in definitions.first or name.startswith(("circuit.", "vsource.")):
            continue
        near = nearest_names(name, _of_class(name.partition(".")[0], definitions))
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        message = f"{shorten(command.text)!r} edits an element that is not defined{hint}"
        recorder.find("unknown-name", message, command.file, command.line)


def _of_class(class_name: str, definitions: Definitions) -> Iterator[str]:
    return (name for name in definitions.first if name.startswith(f"{class_name}."))


def is_continuation(command: Command) -> bool:
    """Whether a command goes on with the element before it."""
    return command.verb in _CONTINUATIONS


def shorten(text: str) -> str:
    """Cut a command to what fits on a line."""
    text = " ".join(text.split())
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 4] + " ..."
