"""Open a user's table, whatever wrote it: encoding, separator and decimal sign are told from the file itself.

It knows neither columns nor units. pandas is imported only where a table is opened.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from powergrid.errors import ScenarioError, nearest_names
from powergrid.files import DAMAGED, decode_text

if TYPE_CHECKING:
    import pandas as pd

TEXT_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".txt")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".xlsx")
_SEPARATORS = (",", ";", "\t", "|")
_SAMPLE_LINES = 200
_COMMA_NUMBER = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)?,\d+([eE][+-]?\d+)?")
_POINT_NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?\.\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_POINT_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")


def open_table(
    path: Path, where: str, *, decimal: str = "auto", sheet: str | int = 0, missing: Sequence[str] = (), skip: int = 0
) -> pd.DataFrame:
    """Return a table as its file holds it, numbers as numbers where a whole column is.

    Args:
        path: A ``.csv``, ``.csv.gz``, ``.tsv``, ``.txt``, ``.parquet`` or ``.xlsx`` file. Text may be UTF-8, UTF-16 or
            UTF-32, with or without a mark, else it is read as Windows-1252; columns are separated by ``,``, ``;``, a
            tab or ``|``.
        where: What errors call the file.
        decimal: ``"."``, ``","`` or ``"auto"``, which looks at the numbers.
        sheet: Sheet of an Excel file, by name or from 0.
        skip: Lines of text or of a sheet above the names of the columns.
        missing: Texts that stand for a missing number, besides those that pandas knows.

    Raises:
        ScenarioError: the file is not there, is no table, or the decimal sign cannot be told.
    """
    import pandas as pd

    kind = _kind_of(path, where)
    try:
        if kind == ".parquet":
            if importlib.util.find_spec("pyarrow") is None:
                raise ScenarioError(where, ["Parquet needs pyarrow: pip install pyarrow, or save the table as CSV"])
            return pd.read_parquet(path, engine="pyarrow")
        if kind == ".xlsx":
            if importlib.util.find_spec("openpyxl") is None:
                raise ScenarioError(where, ["Excel needs openpyxl: pip install openpyxl, or save the sheet as CSV"])
            return pd.read_excel(path, sheet_name=sheet, engine="openpyxl", na_values=list(missing), skiprows=skip)
        return _read_text_table(decode_text(_read_bytes(path, kind)), where, decimal, missing, skip)
    # pandas and pyarrow derive their parse errors from ValueError.
    except (*DAMAGED, OSError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise ScenarioError(where, [f"not a readable table: {told}"]) from error


def _kind_of(path: Path, where: str) -> str:
    """Return the ending of a file's name, or say what keeps it from being read."""
    if not os.path.isfile(path):  # of a name that is too long it says no, and Path.is_file() raises
        folder = path.parent
        if os.path.isdir(path):
            raise ScenarioError(where, ["is a folder; name the table that is in it"])
        if not os.path.isdir(folder):
            raise ScenarioError(where, [f"no such file, and there is no folder {str(folder)!r}"])
        names = sorted(p.name for p in folder.iterdir() if p.name.lower().endswith(SUFFIXES))
        near = nearest_names(path.name, names) or names[:3]
        remedy = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else "the folder holds no table"
        raise ScenarioError(where, [f"no such file ({remedy})"])
    for kind in SUFFIXES:
        if path.name.lower().endswith(kind):
            return kind
    raise ScenarioError(where, [f"cannot tell the format from the name; allowed endings: {', '.join(SUFFIXES)}"])


def _read_bytes(path: Path, kind: str) -> bytes:
    if kind == ".csv.gz":
        with gzip.open(path) as file:
            return file.read()
    return path.read_bytes()


def _read_text_table(text: str, where: str, decimal: str, missing: Sequence[str], skip: int) -> pd.DataFrame:
    import pandas as pd

    if "\0" in text:
        raise ScenarioError(where, ["not a readable table: it holds zero bytes, as no text does"])
    text = "\n".join(text.splitlines()[skip:]) if skip else text
    separator = find_separator(text)
    if decimal == "auto":
        decimal = _find_decimal(text, separator, where)
    # In pieces, as by default, pandas may give one column two types. It would take the points of a date for those
    # between thousands: these are ours.
    frame = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        decimal=decimal,
        low_memory=False,
        skipinitialspace=True,
        na_values=list(missing),
    )
    for i, column in enumerate(frame.columns):
        if not pd.api.types.is_numeric_dtype(frame.dtypes.iloc[i]):
            frame[column] = _read_marked(frame.iloc[:, i], decimal)
    return frame


def _read_marked(column: pd.Series, decimal: str) -> pd.Series:
    """Return a column of texts with numbers for those that have a decimal comma or signs between thousands."""
    import pandas as pd

    group = {",": ".", ".": ","}[decimal]
    number = re.compile(rf"\s*[+-]?(\d{{1,3}}(\{group}\d{{3}})*|\d+)(\{decimal}\d+)?\s*")
    # Stamps and names of meters come many times each.
    with_sign = [cell for cell in column.unique() if isinstance(cell, str) and "," in cell and number.fullmatch(cell)]
    if not with_sign:
        return column
    marked = column.isin(with_sign)
    plain = column[marked].str.replace(group, "", regex=False).str.replace(decimal, ".", regex=False)
    mixed = column.astype(object).where(~marked, pd.to_numeric(plain).reindex(column.index))
    return pd.to_numeric(mixed) if pd.to_numeric(mixed, errors="coerce").notna().eq(mixed.notna()).all() else mixed


def find_separator(text: str) -> str:
    """Return what separates columns: what splits the first lines into the same number of cells, the largest."""
    lines = [line for line in text.splitlines()[:_SAMPLE_LINES] if line.strip()]
    best, most = ",", 1
    for separator in _SEPARATORS:
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=separator))
        width, times = max(widths.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        # "1,5;2,5" is split at commas as evenly as at semicolons: the head, which has no numbers, decides.
        if width > most and times >= 0.9 * len(lines) and separator in lines[0]:
            best, most = separator, width
    return best


def _find_decimal(text: str, separator: str, where: str) -> str:
    """Return the decimal sign of a text table, by numbers that can only have one.

    Raises:
        ScenarioError: all that have a comma may be thousands as well, or both signs are used.
    """
    lines = text.splitlines()[1 : _SAMPLE_LINES + 1]
    if not any("," in line for line in lines) or (separator == "," and not any('"' in line for line in lines)):
        return "."
    comma = point = doubtful = ""
    for row in csv.reader(lines, delimiter=separator):
        for cell in map(str.strip, row):
            if _THOUSANDS.fullmatch(cell):
                doubtful = doubtful or cell
            elif "," in cell and _COMMA_NUMBER.fullmatch(cell):
                comma = comma or cell
            elif "." in cell and _POINT_NUMBER.fullmatch(cell) and not _POINT_THOUSANDS.fullmatch(cell):
                point = point or cell
    if comma and point:
        raise ScenarioError(where, [f"numbers have two decimal signs, as {comma!r} and {point!r}; write them one way"])
    if doubtful and not comma and not point:
        either = f"{doubtful.replace(',', '')} or {doubtful.replace(',', '.')}"
        remedy = "'powergrid profiles import --decimal' says which"
        raise ScenarioError(where, [f"{doubtful!r} may be {either}, and no other number tells; {remedy}"])
    return "," if comma else "."
