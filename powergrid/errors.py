"""The exception tree of PowerGrid; it knows nothing of grids, agents or files.

::

    PowerGridError
    ├── ScenarioError         the YAML or its references are wrong
    ├── FeederError           a feeder file is missing, refused, unsafe or does not solve
    ├── EngineError           OpenDSS refused a command
    │   └── ConvergenceError  the power flow did not converge
    └── ActionError           an action has a wrong agent, shape, type or value
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any


class PowerGridError(Exception):
    """Catch every error that PowerGrid raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, as data; ``str()`` of it is the line that errors show.

    Attributes:
        code: The kind of problem, stable, for programs to tell problems apart; empty where nobody has to.
        where: Place of it: ``file:line``, a key of the scenario; empty where the error itself says it.
        text: What came and what is allowed.
        remedy: What to do, empty where the text says it.
    """

    code: str
    where: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    @property
    def message(self) -> str:
        """What came, what is allowed and what to do, without the place."""
        return f"{self.text}; {self.remedy}" if self.remedy else self.text

    @classmethod
    def of(cls, problem: Problem | str) -> Problem:
        """Return a problem as it is, and a line of text as one without a code."""
        return problem if isinstance(problem, Problem) else cls("", "", str(problem))


class _ProblemsError(PowerGridError):
    """An error that carries every problem found, not just the first.

    Attributes:
        where: What the problems are of: a file, a scenario.
        details: The problems as data.
    """

    def __init__(self, where: str, problems: Iterable[Problem | str] = ()) -> None:
        self.where = where
        self.details = tuple(map(Problem.of, problems))
        # The arguments of an exception are what it is built anew of where it comes pickled from another process.
        super().__init__(where, self.details)

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems as lines of text."""
        return tuple(map(str, self.details))

    def __str__(self) -> str:
        problems = self.problems
        if not problems:
            return self.where
        if len(problems) == 1:
            return f"{self.where}: {problems[0]}"
        lines = "\n".join(f"  {problem}" for problem in problems)
        return f"{self.where} has {len(problems)} problems\n{lines}"


class ScenarioError(_ProblemsError):
    """Report every problem of a scenario file, of an env_config or of what they refer to."""


class FeederError(_ProblemsError):
    """Report a feeder that is missing, refused, unsafe or does not solve, with file, line and code of each problem."""

    details: tuple[Problem, ...]

    def __init__(self, where: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(where, problems)


class EngineError(PowerGridError):
    """Report what OpenDSS refused, with its own error number and text.

    Attributes:
        number: OpenDSS error number, 0 when the engine gave none.
        brief: The text on one line, without what OpenDSS wraps around it.
    """

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message, number)
        self.message = message
        self.number = number
        # Some messages are ten lines: "Error 303 Reported From ...", the command, "Error Description:", what was wrong,
        # "Probable Cause:". The command and the number are told anyway.
        described = re.findall(r"Error Description:\s*(.*?)\s*(?:Probable Cause:|$)", message, re.DOTALL)
        self.brief = " ".join((described[-1] if described else message).split())

    def __str__(self) -> str:
        return f"{self.brief} (OpenDSS error {self.number})" if self.number else self.brief


# Raised by us: OpenDSS diverges without an error, and garbage is where the next solve would start.
class ConvergenceError(EngineError):
    """Report a power flow that did not converge or gave non-finite voltages."""


class ActionError(_ProblemsError):
    """Report every wrong agent, shape, type or value in the actions of one step."""


def find_number_problems(least: int, most: int = 2**31 - 1, /, **given: object) -> list[str]:
    """Say which arguments are no whole numbers from ``least`` to ``most``; of what is not given, None, nothing."""
    return [
        f"{name} {show_briefly(value)} is not a whole number of at least {least}, and at most {most:,}"
        for name, value in given.items()
        if value is not None and not least <= _as_whole(value, least - 1) <= most
    ]


def _as_whole(value: Any, otherwise: int) -> int:
    """Return a whole number, of numpy's too; a truth value, which Python takes for one, is none."""
    try:
        return otherwise if isinstance(value, bool) else index(value)
    except TypeError:
        return otherwise


def show_briefly(value: object, write: Callable[[object], str] = repr) -> str:
    """Return a value as text of at most 200 characters, whatever object it is."""
    try:
        text = write(value)
    except Exception:  # noqa: BLE001 (of an object of somebody's own, or of more digits than Python writes)
        text = f"<a {type(value).__name__}>"
    return text if len(text) < 200 else f"{text[:197]}..."


def nearest_names(name: str, allowed: Iterable[str], limit: int = 3) -> list[str]:
    """Return the allowed names most like a wrong one, best first, letter case ignored."""
    # OpenDSS minds no letter case, and gives its own names back in lower case.
    by_key = {str(candidate).lower(): str(candidate) for candidate in allowed}
    close = difflib.get_close_matches(str(name).lower(), list(by_key), n=limit, cutoff=0.5)
    return [by_key[key] for key in close]


def describe_unknown(what: str, name: object, allowed: Iterable[str], limit: int = 12) -> str:
    """Say that a name is unknown, with the nearest remedy or what is allowed.

    Args:
        what: The kind of thing, for example ``"bus"``.
        name: What came.
        allowed: The names that exist.
        limit: How many allowed names are listed where none is near.
    """
    names = [str(candidate) for candidate in allowed]
    shown = repr(written := show_briefly(name, str))
    near = nearest_names(written, names)
    if near:
        return f"unknown {what} {shown} (did you mean {' or '.join(repr(n) for n in near)}?)"
    if not names:
        return f"unknown {what} {shown}; there is none"
    return f"unknown {what} {shown}; allowed: {list_names(names, limit)}"


def list_names(names: Sequence[str], limit: int = 8) -> str:
    """List some names, and say how many there are where not all are shown."""
    return ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")


def shorten(text: str) -> str:
    """Return a command as one printable line of at most 72 characters."""
    line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in " ".join(text.split()))
    return line if len(line) <= 72 else line[:68] + " ..."
