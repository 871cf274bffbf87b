"""Which elements a feeder has defined so far, and which of them its next line edits, as far as that is certain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from powergrid.grid.engine import property_kinds
from powergrid.grid.feeder.reading.statements import Unclear

#: What is there before a feeder says anything, once it has a circuit; a test asks the engine.
_BUILT_IN = {
    "growthshape": ("default",),
    "loadshape": ("default",),
    "spectrum": ("default", "defaultload", "defaultgen", "defaultvsource", "linear", "pwm6", "dc6"),
    "tcc_curve": (
        "a", "d", "tlink", "klink", "uv1547", "ov1547", "mod_inv", "very_inv", "ext_inv", "definite",
    ),
    "vsource": ("source",),
}  # fmt: skip
#: What a circuit itself is an edit of.
SOURCE = ("vsource", "source")
WHOLE_CLASS = (".*", ".+")
#: Repetitions inside a repetition: to find that a name does not fit takes 2 to the power of its length.
_REPEATED_GROUP = re.compile(r"\)[*+]")
_MOST_WORK = 3e9
#: Names that are the same for OpenDSS only where they are for Python: of which it neither cuts nor folds anything.
_PLAIN_NAME = re.compile("[!-~]+")
#: Patterns that OpenDSS's regular expressions and Python's read alike.
_PLAIN_PATTERN = re.compile(r"(?:[\w :-]|\\[.dws]|\[\^?[\w .:-]+\]|[.*+?^$|()])+", re.ASCII)


class Defined:
    """The elements that are defined, by class and name, and the one that is active.

    Attributes:
        active: Class and name, lower case, of the element that a line without a name edits; None where not certain.
        last_class: Class that ``Set class`` named last.
        allow_duplicates: Whether the feeder may define a name twice.
        all_differ: Whether no circuit element was defined twice, for certain.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything, as OpenDSS does."""
        self.active: tuple[str, str] | None = None
        self.last_class = ""
        self.allow_duplicates = False
        self.all_differ = True
        self._names: dict[str, dict[str, str]] = {}
        self._twice: set[tuple[str, str]] = set()

    def follow_set(self, option: str, value: str) -> None:
        """Follow what ``set`` says is edited next; after a class alone it is not certain."""
        class_name, dot, name = value.partition(".")
        if option in ("type", "class"):
            self.active, self.last_class = None, value.strip().lower()
        elif dot:
            self.activate(class_name.strip().lower(), name)
        else:
            self.activate(self.last_class, value)

    def add(self, class_name: str, name: str) -> None:
        """Define an element and make it the active one."""
        own, lower = self._names.setdefault(class_name, {}), name.lower()
        if lower in own:
            if self.allow_duplicates:
                self._twice.add((class_name, lower))
            # What is no circuit element, a line code or shape, may be defined anew: OpenDSS looks for it by itself.
            self.all_differ &= "enabled" not in property_kinds().get(class_name, ())
        elif not _PLAIN_NAME.fullmatch(name):
            self.all_differ = False
        own.setdefault(lower, name)
        self.active = (class_name, lower)

    def activate(self, class_name: str, name: str) -> None:
        """Make an element the active one, if it is defined; else none is for certain."""
        self.active = (class_name, name.lower()) if self.has(class_name, name) else None

    def has(self, class_name: str, name: str) -> bool:
        """Whether an element is defined."""
        return name.lower() in self._names.get(class_name, ()) or name.lower() in _BUILT_IN.get(class_name, ())

    def names(self, class_name: str) -> list[str]:
        """Return the names of a class as they were written, in their order; built-in ones first."""
        return list(({each: each for each in _BUILT_IN.get(class_name, ())} | self._names.get(class_name, {})).values())

    def is_twice(self, class_name: str, name: str) -> bool:
        """Whether several elements have a name, so that it says for none of them but the active one which is meant."""
        return (class_name, name.lower()) in self._twice

    def spelling(self, class_name: str, name: str) -> str:
        """Return a name as it was written where it was defined."""
        return self._names.get(class_name, {}).get(name.lower(), name)

    def match(self, class_name: str, pattern: str) -> Iterator[str]:
        """Return the names of a class that a pattern of ``BatchEdit`` is found in, in their order.

        Raises:
            Unclear: the pattern is one that OpenDSS and Python may read differently.
        """
        names = self.names(class_name)
        if any(owner == class_name for owner, _ in self._twice):
            raise Unclear(f"several elements of {class_name} have one name, and a pattern may mean either")
        try:
            looked_for = re.compile(pattern, re.IGNORECASE | re.ASCII)
        except re.error as error:
            raise Unclear(
                f"{pattern!r} is no regular expression ({error}); all of a class are {class_name}..*"
            ) from None
        if not _PLAIN_PATTERN.fullmatch(pattern) or not all(map(str.isascii, names)):
            raise Unclear(f"the pattern {pattern!r} is not one of letters, digits, . * + ? ^ $ | ( ) [ ]")
        if _REPEATED_GROUP.search(pattern) or _work_of(pattern, names) > _MOST_WORK:
            raise Unclear(f"the pattern {pattern!r} may take for ever: repeat no group, and fewer letters")
        return (name for name in names if looked_for.search(name))


def _work_of(pattern: str, names: Sequence[str]) -> float:
    """Return how many places a pattern may be tried at, the worst that names can make of it."""
    repeated = sum(map(pattern.count, "*+"))
    return float(sum(float(len(name) + 1) ** min(repeated + 1, 8) for name in names))
