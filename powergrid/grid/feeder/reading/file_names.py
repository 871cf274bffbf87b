"""Turn the names of files in statements into those of just the files that may be read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from powergrid.errors import shorten
from powergrid.grid.feeder.reading import syntax
from powergrid.grid.feeder.reading.files import Files
from powergrid.grid.feeder.reading.statements import Parameter, Unclear, Variables, cut, expand, quote
from powergrid.grid.feeder.reading.syntax import Command

#: A first line that is none of numbers, and lines of which each is a number with a decimal comma: columns to OpenDSS.
_HEADING = re.compile(rb"\s*((?!nan|inf|e[+-]?\d)[A-Za-z_#][^\r\n]*)", re.IGNORECASE)
_DECIMAL_COMMAS = re.compile(rb"(?:\s*[+-]?\d+(?:,\d+)?\s*(?:[\r\n]|\Z))+\Z")
_BEFORE_COMMA = re.compile(rb"([+-]?\d+),")
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class FileNames:
    """Resolve the files that statements name, so that the engine opens these and no other.

    Args:
        files: What may be read, and where names count from.
        variables: What ``var`` defines.
    """

    def __init__(self, files: Files, variables: Variables) -> None:
        self._files, self._variables = files, variables
        self._stayed: list[str] = []  # what would have moved the folder that names count from

    def move(self, command: Command, folder: str) -> bool:
        """Let names count from another folder from here on, if it is there."""
        moved = self._files.move(folder)
        if not moved:
            self._stayed.append(f"{command.where}: {shorten(command.text)!r} names no folder that is here")
        return moved

    def find(
        self, command: Command, written: str, what: str, *, is_data: bool = False, ending: str = ""
    ) -> Path | None:
        """Resolve the file that a command names, or note the problem, and what may be why."""
        before = len(self._files.problems)
        found = self._files.find(command.where, written, what, is_data=is_data, ending=ending)
        if found is None and self._stayed:
            for place in range(before, len(self._files.problems)):
                problem = self._files.problems[place]
                self._files.problems[place] = replace(problem, text=f"{problem.text} ({self._stayed[-1]})")
        return found

    def data_file(self, command: Command, given: Parameter) -> Parameter | None:
        """Check the data file that a property names, and return the property with just that file."""
        target = self.find(command, given.value.strip(), f"{given.name}: data from", is_data=True)
        text_only = "csv" in given.name.lower()
        text = self.data(command, target, text_only=text_only) if target is not None else None
        return None if text is None else Parameter(given.name, text, '"' if '"' not in text else given.opener)

    def array(self, command: Command, given: Parameter, *, is_free: bool = False) -> Parameter | None:
        """Check the file that an array is read from, and return the array of just that file.

        ``is_free`` says that the value is any text, in which an ``=`` may stand.
        """
        try:
            first, *rest = cut(given.value) or [Parameter("", "")]
        except Unclear:
            if not is_free:
                raise
            return given
        how = expand(first.name, syntax.DATA_FILES) if first.name else ""
        if not how:
            if not is_free and any(each.name for each in (first, *rest)):
                raise Unclear(f"{given.name or 'its value'} has an '=' in quotes: {given.value!r}")
            return given
        if any(expand(each.name, syntax.FILE_OPTIONS) == "" for each in rest if each.name):
            raise Unclear(f"{given.value!r} says more of a file than its column and header")
        written = self._variables.replace(first).value.strip()
        target = self.find(command, written, f"{given.name}: data from" if given.name else "data from", is_data=True)
        is_text = how in ("file", "csvfile")
        text = self.data(command, target, text_only=is_text, alone=is_text and not rest) if target is not None else None
        if text is None:
            return None
        # The whole array gets brackets, so that quotes are left for the name in it.
        named = quote(text, "\"'")
        inner = " ".join([f"{first.name}={named}", *(each.written() for each in rest)])
        whole = quote(inner, "([{") if named is not None else None
        if whole is None:
            self._refuse_quotes(command, text)
            return None
        return given._replace(value=inner, opener=whole[0])

    def data(self, command: Command, target: Path, *, text_only: bool, alone: bool = False) -> str | None:
        """Take a data file into the digest, and return its full name; nothing else will be opened for it.

        ``alone`` says that it is one column of numbers and nothing else.
        """
        raw = self._files.read(target, command.where, f"{target}: ")
        if raw is None:
            return None
        # OpenDSS skips the mark of UTF-8 in coordinates; in an array it is error 705.
        if text_only and raw.startswith(_BYTE_ORDER_MARKS[command.verb in syntax.COORDINATES :]):
            text = f"{target} begins with a byte order mark, which OpenDSS takes for data"
            self._files.refuse("unreadable-file", command.where, text, "save it as plain UTF-8 or ASCII")
            return None
        if alone and (wrong := _find_no_column(raw)) is not None:
            self._files.refuse("bad-value", command.where, f"{target.name} {wrong[0]}", wrong[1])
            return None
        if quote(str(target)) is None:
            self._refuse_quotes(command, str(target))
            return None
        return str(target)

    def _refuse_quotes(self, command: Command, name: str) -> None:
        self._files.refuse("refused", command.where, f"the name {name!r} holds too many kinds of quotes for OpenDSS")


def _find_no_column(raw: bytes) -> tuple[str, str] | None:
    """Say why a file is not the column of numbers that OpenDSS takes it for, and what mends it."""
    first = raw[: raw.find(b"\n") if b"\n" in raw else len(raw)]
    if heading := _HEADING.match(first):
        said = shorten(heading[1].decode("utf-8", "replace").strip())
        return f"begins with {said!r}, which is no number", "take the heading out, or write (file=..., header=yes)"
    if b"," in raw and b"." not in raw and _DECIMAL_COMMAS.match(raw):
        before = _BEFORE_COMMA.findall(raw)
        if len(set(before)) < len(before):  # a column of hours names each once
            told = "holds decimal commas, behind which OpenDSS sees another column"
            return told, "write points; else say which column"
    return None
