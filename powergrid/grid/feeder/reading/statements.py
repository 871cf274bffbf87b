"""Cut a line of OpenDSS text as the engine cuts it, and write statements so that nobody can cut them otherwise.

Knows text and the engine's schema, not files: nothing in here reads a disk or starts a circuit.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from powergrid.grid.engine import property_kinds

#: What is only text for the engine: quotes around it or not, it is one and the same.
_WORD = re.compile(r"[\w.%+*^:-]+")
#: Unrolled, so that it is linear: a word up to a blank, comma, ``=`` or comment, that begins with no quote.
_BARE = r"(?:[^ \t,=!/\"'(\[{][^ \t,=!/]*|/(?!/)[^ \t,=!/]*)(?:/(?!/)[^ \t,=!/]*)*"
_QUOTED = r"\"[^\"]*\"|'[^']*'|\([^)]*\)|\[[^\]]*\]|\{[^}]*\}"
#: ``name=value`` or a value, as the engine's parser goes on after each (ParserDel.pas of DSS C-API 0.14.5): behind a
#: quoted value it does not skip blanks before it looks for a comma, so that one further on stands for an empty value.
_PARAMETER = re.compile(
    rf"({_BARE}|{_QUOTED})[ \t]*=[ \t]*(?:({_BARE})[ \t]*([,=]?)|({_QUOTED})([,=]?))[ \t]*"
    rf"|({_BARE}|{_QUOTED})[ \t]*,?[ \t]*"
)
#: A definition that can be read in one way only, and is written in that way already.
_PLAIN_NEW = re.compile(
    r"[Nn][Ee][Ww] (\w+)\.([\w.%+*^:-]+)"
    r"((?: [\w%-]+=(?:[\w.%+*^:-]+|\[ *[\w.%+*^:|-][\w.%+*^:|, -]*\]|\( *[\w.%+*^:|-][\w.%+*^:|, -]*\)))*)",
    re.ASCII,
)
_EMPTY_BETWEEN = re.compile(", *,")
_COMMENT = re.compile("!|//")
_EMPTY_PART = re.compile(r"^[ \t]*,|,[ \t]*,")
#: A quote that opens behind a class and its dot, where it quotes nothing for OpenDSS, and that a blank has cut off.
_CUT_NAME = re.compile("(\\w+)\\.([\"'])([^\"']*)", re.ASCII)
_QUOTES = {'"': '"', "'": "'", "(": ")", "[": "]", "{": "}"}
#: Blanks that are none for OpenDSS, and what cannot be seen: control characters, no-break and other spaces, marks of
#: direction, halves of characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\xa0\u1680\u180e\u2000-\u200b\u2028-\u202f\u205f-\u2069\u3000\ufeff\ud800-\udfff]"
)
#: What the engine's parser puts in place of these by itself.
_INTRINSIC = frozenset(
    (
        "@lastfile",
        "@lastexportfile",
        "@lastshowfile",
        "@lastplotfile",
        "@lastredirectfile",
        "@lastcompilefile",
        "@result",
    )
)
#: Types of properties whose value is a list: the engine cuts it once more.
_LISTS = ("Array", "Matrix", "List", "Complex", "Buses", "VArray")
_NUMBERS = ("Double", "Integer")


class Unclear(ValueError):  # noqa: N818  # no error of a user's: it becomes a Problem with its line
    """A line whose meaning is not certain; the text says why, ``found`` what is certain before that."""

    def __init__(self, text: str, found: Sequence[Parameter] = ()) -> None:
        super().__init__(text)
        self.found = tuple(found)


class Parameter(NamedTuple):
    """One ``name=value`` or bare value of a line.

    Attributes:
        name: Name as written, without quotes; empty where there is none.
        value: Value without its quotes.
        opener: The quote or bracket before the value, empty where there is none: numbers in quotes are calculated.
    """

    name: str
    value: str
    opener: str = ""

    def written(self) -> str:
        """The parameter as the engine understands it in one way only."""
        value = _write_token(self.value, self.opener)
        return f"{_write_name(self.name)}={value}" if self.name else value


def cut(text: str) -> list[Parameter]:
    """Cut a line into parameters, up to a comment.

    Raises:
        Unclear: a second ``=``, an empty parameter, a quote that stays open or is cut off, a blank that is none for
            OpenDSS.
    """
    unseen = _UNSEEN.search(text)
    if unseen is not None and not _COMMENT.search(text, 0, unseen.start()):
        raise _unseen(unseen[0])
    found: list[Parameter] = []
    position, end = len(text) - len(text.lstrip(" \t")), len(text)
    while position < end:
        match = _PARAMETER.match(text, position)
        if match is None:
            _stop(text, position, found)
            break
        name, bare, after_bare, quoted, after_quoted, alone = match.groups()
        if alone is not None:
            found.append(Parameter("", *_unquote(alone)))
        elif "=" in (after_bare, after_quoted):
            raise Unclear(f"{match[0].strip()!r} has a second '='")
        else:
            found.append(Parameter(_unquote(name)[0], *_unquote(bare if quoted is None else quoted)))
        position = match.end()
    # What ends an edit for OpenDSS without a word; at the end of a line it ends nothing.
    while found and not found[-1].value:
        found.pop()
    empty = next((each for each in found if not each.value), None)
    if empty is not None:
        raise Unclear(f"{empty.name or 'a parameter'!r} is empty: OpenDSS takes nothing that stands behind it")
    if '."' in text or ".'" in text:
        _refuse_cut_name(found)
    if unseen is not None and unseen.start() < position:
        raise _unseen(unseen[0])
    return found


def _refuse_cut_name(parameters: Iterable[Parameter]) -> None:
    for named in filter(None, (_CUT_NAME.fullmatch(each.value) for each in parameters if not each.opener)):
        owner, quote, name = named.groups()
        whole = f"{quote}{owner}.{name} ...{quote}"
        raise Unclear(f"for OpenDSS {named[0]} ends at the blank; quote class and name together, {whole}")


def match_plain_new(text: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Return class, name and names of properties, class and names in lower case, of a ``new`` that needs no cutting.

    None where :func:`cut` has to say what it means, or :func:`write` to write it otherwise.
    """
    match = _PLAIN_NEW.fullmatch(text)
    if match is None:
        return None
    class_name, name, given = match.groups()
    if "," in given and _EMPTY_BETWEEN.search(given):
        return None
    names = [each.rpartition(" ")[2].lower() for each in given.split("=")]
    return class_name.lower(), name, tuple(names[:-1])  # a "=" stands behind names alone


def _unseen(character: str) -> Unclear:
    return Unclear(f"it holds the character U+{ord(character):04X}, which is neither a letter nor a blank to OpenDSS")


def _stop(text: str, position: int, found: Sequence[Parameter]) -> None:
    """Raise unless what stops the cutting is a comment, or a comma that nothing follows."""
    rest = text[position:]
    after = rest[1:].lstrip(" \t")
    if rest[0] == "=":
        named = found[-1].value if found else ""
        if after[:1] in _QUOTES and after[:1]:
            raise Unclear(f"the {after[0]} after {named!r} is never closed", found)
        raise Unclear(f"{named!r} has no value behind its '='")
    if rest[0] in _QUOTES:
        raise Unclear(f"the {rest[0]} before {rest[1:20]!r} is never closed", found)
    if rest[0] == "," and after and not after.startswith(("!", "//")):
        raise Unclear("a parameter is empty: OpenDSS takes nothing that stands behind it")


def _unquote(token: str) -> tuple[str, str]:
    """Return a token without its quotes, and the quote that it began with."""
    return (token[1:-1], token[0]) if token[0] in _QUOTES else (token, "")


def quote(text: str, openers: str = "\"'([{") -> str | None:
    """Put a text between quotes that it does not hold itself, None where it holds all of them."""
    return next((each + text + _QUOTES[each] for each in openers if _QUOTES[each] not in text), None)


def _write_token(value: str, opener: str = "") -> str:
    """Write a name or value: a bare word as it is, others in their own quotes or in some that they do not hold.

    Raises:
        Unclear: it holds all kinds of quotes.
    """
    if not opener and _WORD.fullmatch(value):
        return value
    if opener and _QUOTES[opener] not in value:
        return opener + value + _QUOTES[opener]
    quoted = quote(value)
    if quoted is None:
        raise Unclear(f"{value!r} holds all kinds of quotes, and cannot be handed to OpenDSS")
    return quoted


_write_name = functools.lru_cache(maxsize=4096)(_write_token)


def write(verb: str, *given: Parameter) -> str:
    """Write a statement."""
    return " ".join([verb, *(each.written() for each in given)])


# -- variables


class Variables:
    """What ``var`` defines: put in place here, so that the engine never sees one."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, str]] = {}

    def define(self, given: Iterable[Parameter]) -> None:
        """Take the parameters of a ``var``."""
        for each in given:
            if not each.name.startswith("@"):
                raise Unclear(f"{each.name or each.value!r} is no variable: their names begin with '@'")
            value = self.replace(each)
            self._values[each.name.lower()] = (value.value, value.opener)

    def replace(self, given: Parameter) -> Parameter:
        """Put the value of a variable where a parameter's value begins with one, as OpenDSS does."""
        if given.value[:1] != "@":
            return given
        value, opener = self._replace(given.value, given.opener)
        return given._replace(value=value, opener=opener)

    def _replace(self, value: str, opener: str) -> tuple[str, str]:
        dot = value.find("^") if "^" in value else value.find(".")
        name = (value if dot < 0 else value[:dot]).lower()
        if name in _INTRINSIC:
            raise Unclear(f"{value!r} is what OpenDSS keeps of its last file or result")
        if name not in self._values:
            return value, opener
        text, own = self._values[name]
        return text + value[len(name) :], opener or own

    def replace_inside(self, given: Parameter) -> Parameter:
        """Put values where the parts of a list or calculation begin with a variable."""
        if not given.opener or "@" not in given.value:
            return given
        parts = cut(given.value)
        replaced = [self.replace(part) for part in parts]
        if replaced == parts:
            return given
        if "|" in given.value:
            raise Unclear(f"{given.value!r} has a variable inside a matrix")
        inner = " ".join(part.written() for part in replaced)
        return given._replace(value=inner, opener=given.opener if _QUOTES[given.opener] not in inner else "[")


# -- properties


class Property(NamedTuple):
    """A property that a statement sets.

    Attributes:
        name: Its full name in the engine's schema, lower case; as written where the class has none such.
        kind: Its type in the schema, empty where the class has none such.
        given: What is given for it, under its full name.
    """

    name: str
    kind: str
    given: Parameter


#: Classes of which OpenDSS takes no abbreviations.
_IN_FULL = ("growthshape",)


@functools.cache
def _names(class_name: str) -> tuple[str, ...]:
    return tuple(property_kinds().get(class_name, ()))


@functools.lru_cache(maxsize=4096)
def expand(word: str, words: tuple[str, ...]) -> str:
    """Return the word that an abbreviation means, as OpenDSS reads it, empty where none."""
    word = word.lower()
    if word in words:
        return word
    return next((full for full in words if word and full.startswith(word)), "")


def find_properties(class_name: str, given: Iterable[Parameter]) -> list[Property]:
    """Find which properties of a class parameters set: by name, its beginning or place.

    Raises:
        Unclear: a value stands behind the last property.
    """
    names = _names(class_name)
    found: list[Property] = []
    place = 0
    for each in given:
        if each.name:
            full, place, kind = _find(class_name, each.name)
        elif place < len(names):
            full, place, kind = _find(class_name, names[place])
        elif names:
            raise Unclear(f"{each.value!r} stands behind the last property of {class_name}")
        else:
            full, kind = "", ""
        # As it was written where that is its name in other letters: so errors show what a user knows.
        written = each if not full or each.name.lower() == full else Parameter(full, each.value, each.opener)
        found.append(Property(full or each.name.lower(), kind, written))
    return found


@functools.lru_cache(maxsize=4096)
def _find(class_name: str, written: str) -> tuple[str, int, str]:
    """Return name, place from 1 and type of the property that a name or its beginning means, empty and 0 where none."""
    names = _names(class_name)
    full = expand(written, names)
    if not full or (class_name in _IN_FULL and full != written.lower()):
        return "", 0, ""  # OpenDSS counts on from there
    return full, names.index(full) + 1, property_kinds()[class_name][full]


@functools.cache
def is_cut(kind: str) -> bool:
    """Whether the engine cuts quoted values of properties of a type once more: lists, and numbers to calculate."""
    return kind.startswith(_NUMBERS) or any(each in kind for each in _LISTS)


def find_empty_part(value: str) -> None:
    """Raise where a part of a list is empty: some lists end there for OpenDSS, in others it is 0.

    Raises:
        Unclear: a part is empty.
    """
    if "," in value and _EMPTY_PART.search(value):
        raise Unclear(f"a part of the list {value!r} is empty")
