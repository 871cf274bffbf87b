"""What tables of evaluations look like, in a terminal, as Markdown and in files, and what their numbers depend on."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import powergrid
from powergrid.files import make_folder, write_whole

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.table import Table

# What the numbers can depend on besides PowerGrid and Python.
_DISTRIBUTIONS = ("numpy", "pandas", "scipy", "opendssdirect.py", "dss-python-backend")
#: What a name may be broken behind.
_PIECES = re.compile(r"\([^()]*\) *|.+?(?:[-_/ ]+|$)")
#: The width that a column of texts has at least, where its words are that long, and that of a heading at most.
_NARROWEST, _HEADING = 10, 16


def describe_versions() -> dict[str, str]:
    """Return the versions of what numbers depend on."""
    found = {"powergrid": powergrid.__version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with suppress(PackageNotFoundError):  # a checkout may run on what no package manager put there
            found[name] = version(name)
    return found


def fold(name: str, width: int) -> str:
    """Return a name on lines of at most so many characters, which end behind joints: ``-``, ``_``, ``/`` or a space."""
    lines = [""]
    for piece in _PIECES.findall(name):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


class _Folded:
    """A text in a cell: where it is too long it goes on below, from a joint on and not from within a word if it can."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(fold(self.text, options.max_width), overflow="fold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(min(map(len, _PIECES.findall(self.text)), default=0), len(self.text))


def as_table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    texts: Collection[str] | None = None,
    caption: str | None = None,
) -> Table:
    """Return a table for 80 columns: numbers are never cut, and texts are folded where they are long.

    Args:
        title: What stands above.
        headings: Of the columns.
        rows: A cell for each column.
        texts: The headings of columns that are no numbers; the first one's where none is given.
        caption: What stands below.
    """
    from rich.box import SIMPLE
    from rich.table import Table

    # an edge would take two of the 80 columns; what it gives, a line between tables, the title begins with
    narrow: Any = {"box": SIMPLE, "padding": (0, 0, 0, 1), "pad_edge": False, "show_edge": False}
    table = Table(title=f"\n{title}", caption=caption, **narrow)
    texts, cells = headings[:1] if texts is None else texts, list(rows)
    for place, heading in enumerate(headings):
        if heading in texts:
            pieces = (len(piece.rstrip()) for row in cells for piece in _PIECES.findall(row[place]))
            table.add_column(heading, overflow="fold", min_width=min(max(pieces, default=0), _NARROWEST))
        else:
            shown = "\n".join(fold(line, _HEADING) for line in heading.split("\n"))
            table.add_column(shown, justify="right", no_wrap=True)
    for row in cells:
        named = zip(headings, row, strict=True)
        table.add_row(*(_Folded(cell) if heading in texts else cell for heading, cell in named))
    return table


def as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], n_texts: int) -> str:
    """Return a table as Markdown, the first columns as texts and the others, to the right, as numbers."""
    rule = "|" + "---|" * n_texts + "---:|" * (len(headings) - n_texts)
    return "\n".join([f"| {' | '.join(headings)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def write_tables(folder: Path, name: str, frame: pd.DataFrame, kept: Mapping[str, Any]) -> list[Path]:
    """Write ``<name>.csv`` and ``<name>.json``, each whole or not at all; the folder is made."""
    make_folder(folder)
    # JSON has no NaN: where there is no number it says null.
    plain = json.loads(json.dumps(kept), parse_constant=lambda _: None)
    texts = {
        f"{name}.csv": frame.to_csv(index=False, lineterminator="\n"),
        f"{name}.json": json.dumps(plain, indent=1, allow_nan=False) + "\n",
    }
    for file, text in texts.items():
        write_whole(folder / file, text)
    return [folder / file for file in texts]
