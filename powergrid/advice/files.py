"""Readings from files, and advice into them: CSV, Parquet, Excel and JSON, one reading a row or one a column."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powergrid.errors import ScenarioError
from powergrid.files import make_folder, path_of, read_bytes, replacing, telling, write_whole
from powergrid.grid.profiles.table_files import SUFFIXES, open_table

if TYPE_CHECKING:
    import pandas as pd

_TIME_NAMES = ("time", "timestamp", "datetime")
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


def read_batches(file: str | Path) -> list[Any]:
    """Return the readings of a file, one batch a time, in order of time where all have one.

    Args:
        file: A table with a column ``time`` and a column for each reading; or with ``name``, ``value`` and, if wanted,
            ``time``, ``unit`` and ``quantity``, as a replay's table has them. Or JSON: what an ``/advise`` takes, or a
            list of such; ``.jsonl`` has one a line.

    Raises:
        ScenarioError: the file is not there or cannot be read, or is no such table.
    """
    path = path_of(file)
    if path.name.lower().endswith(JSON_SUFFIXES):
        return _read_json(path)
    if not path.name.lower().endswith(SUFFIXES):
        allowed = ", ".join((*JSON_SUFFIXES, *SUFFIXES))
        raise ScenarioError(str(file), [f"cannot tell the format from the name; allowed endings: {allowed}"])
    frame = open_table(path, str(file))
    frame.columns = [str(column).strip() for column in frame.columns]
    by_name = {column.lower(): column for column in frame.columns}
    if "name" in by_name and "value" in by_name:
        return _read_long(frame.rename(columns={column: key for key, column in by_name.items()}))
    time = next((by_name[name] for name in _TIME_NAMES if name in by_name), None)
    if frame.empty or (time is not None and len(frame.columns) == 1):
        raise ScenarioError(str(file), ["holds no readings; a column for each, or the columns name and value"])
    if time is None and len(frame) > 1:
        raise ScenarioError(str(file), [f"{len(frame)} rows and no column time, so nobody knows which is of when"])
    rows = frame.sort_values(time, kind="stable") if time is not None else frame
    return [
        {("time" if name == time else name): value for name, value in row.items() if value == value}
        for row in rows.to_dict("records")
    ]


def _read_json(path: Path) -> list[Any]:
    text = read_bytes(path).decode("utf-8-sig", "replace")
    try:
        if not path.name.lower().endswith(".json"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(str(path), [f"is no JSON: {error}"]) from None
    of_batches = isinstance(found, list) and any(isinstance(each, Mapping) and "name" not in each for each in found)
    return list(found) if of_batches else [found]


def _read_long(frame: pd.DataFrame) -> list[Any]:
    """Return the batches of a table with a row for each reading."""
    if "owner" in frame:  # a replay's table, of which only what can be read is taken
        frame = frame[frame["owner"].isin(["node", "branch", "device"])]
    names = frame["name"].astype(str)
    if "quantity" in frame:
        names = names + "." + frame["quantity"].astype(str)
    frame = frame.assign(name=names)[frame["value"].notna()]
    # where the quantity says the unit, as in p_kw, a column of units says the same again
    units = frame["unit"].tolist() if "unit" in frame and "quantity" not in frame else [None] * len(frame)
    rows = [
        {"name": name, "value": value, "unit": unit if isinstance(unit, str) else None}
        for name, value, unit in zip(frame["name"].tolist(), frame["value"].tolist(), units, strict=True)
    ]
    if "time" not in frame:
        return [{"readings": rows}]
    batches: dict[Any, list[Any]] = {}
    for time, row in zip(frame["time"].tolist(), rows, strict=True):
        batches.setdefault(time, []).append(row)
    return [{"time": time, "readings": batches[time]} for time in sorted(batches, key=str)]


def write_rows(rows: Sequence[Mapping[str, Any]], file: Path) -> Path:
    """Write rows as CSV, Parquet or JSON, as the suffix of the file says, whole or not at all.

    Raises:
        ScenarioError: the suffix is none of these.
        PowerGridError: the file cannot be written.
    """
    import pandas as pd

    suffix = file.suffix.lower()
    if suffix not in (".csv", ".parquet", ".json", ".jsonl"):
        raise ScenarioError(str(file), [f"cannot write {suffix or 'it'}; allowed: .csv, .parquet, .json, .jsonl"])
    make_folder(file.parent)
    if suffix == ".json":
        write_whole(file, json.dumps(list(rows), indent=1) + "\n")
    elif suffix == ".jsonl":
        write_whole(file, as_lines(rows))
    elif suffix == ".csv":
        write_whole(file, pd.DataFrame(list(rows)).to_csv(index=False))
    else:
        with telling(file), replacing(file) as temporary:
            pd.DataFrame(list(rows)).to_parquet(temporary, index=False)
    return file


def as_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as JSON, one a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_csv(rows: Sequence[Mapping[str, Any]], *, header: bool = True) -> str:
    """Return rows as CSV."""
    import pandas as pd

    out = io.StringIO()
    pd.DataFrame(list(rows)).to_csv(out, index=False, header=header)
    return out.getvalue()
