"""What tables of evaluations look like, in a terminal, as Markdown and in files, and what their numbers depend on."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import powergrid
from powergrid.files import make_folder, write_whole

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

# What the numbers can depend on besides PowerGrid and Python.
_DISTRIBUTIONS = ("numpy", "pandas", "scipy", "opendssdirect.py", "dss-python-backend")


def describe_versions() -> dict[str, str]:
    """Return the versions of what numbers depend on."""
    found = {"powergrid": powergrid.__version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with suppress(PackageNotFoundError):  # a checkout may run on what no package manager put there
            found[name] = version(name)
    return found


def as_table(
    title: str, caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *,
    n_names: int, n_texts: int = 0, min_width: int,
) -> Table:  # fmt: skip
    """Return a table of names, which are folded where they are long, other texts, and numbers, which are never cut."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, box=SIMPLE, caption=caption)
    for place, heading in enumerate(headings):
        if place < n_names:
            table.add_column(heading, overflow="fold", min_width=min_width)
        else:
            table.add_column(heading, justify="left" if place < n_texts else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def as_narrow_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], texts: Collection[str], min_width: int = 0
) -> Table:
    """Return a table for 80 columns: ``texts``, by heading, are folded where they are long, numbers are never cut."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, box=SIMPLE, padding=(0, 0, 0, 1), pad_edge=False)
    for heading in headings:
        if heading in texts:
            table.add_column(heading, overflow="fold", min_width=min_width)
        else:
            table.add_column(heading, justify="right", overflow="fold", no_wrap=True)
    for row in rows:
        table.add_row(*row)
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
