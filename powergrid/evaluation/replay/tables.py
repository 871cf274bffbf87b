"""A recorded day as a table of plain rows, and as a Parquet or CSV file; it plays and draws nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.evaluation.replay.recording import DayRecording, RecordedTable
from powergrid.files import make_folder, replacing, telling

if TYPE_CHECKING:
    import pyarrow as pa

TableFormat = Literal["parquet", "csv"]
#: Key of a Parquet file's metadata that holds what is not in its rows.
FACTS = b"powergrid"


def _to_table(recording: DayRecording) -> pa.Table:
    """Return a recorded day with a row for each number of each step.

    Columns are ``owner`` (node, bus, branch, switchgear, device, agent, network, action or channel), ``name``,
    ``quantity``, ``unit``, ``step``, ``time`` and ``value``. Steps run fastest, so that what belongs to one thing is
    together; a thing that has no such number in any step has no rows of it. Where nodes are always fed none says so.
    """
    import pyarrow as pa

    parts = [part for table in recording.tables for part in _parts(table)]
    steps, n = np.arange(recording.n_steps, dtype=np.int32), recording.n_steps
    rows = np.array([len(names) * n for *_, names, _ in parts])

    def repeat(texts: list[str]) -> Any:
        kinds, codes = np.unique(np.array(texts, dtype=object), return_inverse=True)
        return pa.DictionaryArray.from_arrays(np.repeat(codes, rows).astype(np.int32), pa.array(kinds, pa.string()))

    all_names = list(dict.fromkeys(name for *_, names, _ in parts for name in names))
    code = {name: place for place, name in enumerate(all_names)}
    codes = np.repeat([code[name] for *_, names, _ in parts for name in names], n).astype(np.int32)
    count = int(rows.sum()) // n
    columns = {
        "owner": repeat([owner for owner, *_ in parts]),
        "name": pa.DictionaryArray.from_arrays(codes, pa.array(all_names, pa.string())),
        "quantity": repeat([quantity for _, quantity, *_ in parts]),
        "unit": repeat([unit for _, _, unit, *_ in parts]),
        "step": pa.array(np.tile(steps, count)),
        "time": pa.array(np.tile(recording.times.astype("datetime64[s]"), count)),
        "value": pa.array(np.concatenate([values.T.reshape(-1) for *_, values in parts])),
    }
    return pa.table(columns).replace_schema_metadata({FACTS: json.dumps(_describe(recording))})


def write_recording(recording: DayRecording, file: str | Path) -> Path:
    """Write a recorded day, whole or not at all, as its suffix says: ``.parquet`` or ``.csv``.

    A Parquet file keeps every digit, and under the key ``powergrid`` of its metadata who played which day of what, as
    JSON. The folder is made.

    Raises:
        ScenarioError: the suffix is neither.
        PowerGridError: the file cannot be written.
    """
    path = Path(file).expanduser()
    kind = path.suffix.lower().removeprefix(".")
    if kind not in get_args(TableFormat):
        raise ScenarioError(str(file), [describe_unknown("format", kind, get_args(TableFormat))])
    make_folder(path.parent)
    table = _to_table(recording)
    with telling(path), replacing(path) as temporary:
        if kind == "csv":
            from pyarrow import csv

            csv.write_csv(table, temporary)
        else:
            from pyarrow import parquet

            # what is read together lies together, and voltages differ in their last bytes only
            parquet.write_table(
                table,
                temporary,
                compression="zstd",
                use_dictionary=["owner", "name", "quantity", "unit", "step", "time"],
                column_encoding={"value": "BYTE_STREAM_SPLIT"},
            )
    return path


def _parts(table: RecordedTable) -> Iterator[tuple[str, str, str, list[str], npt.NDArray[np.float64]]]:
    """Yield owner, quantity, unit, names and values, shape (n_steps, n_names), of what a table has numbers of."""
    for quantity, values in table.values.items():
        if quantity == "energised" and values.all():
            continue
        has = np.flatnonzero(np.isfinite(values).any(axis=0))
        if len(has):
            names = [table.names[place] for place in has.tolist()]
            yield table.owner, quantity, table.units[quantity], names, values[:, has]


def _describe(recording: DayRecording) -> dict[str, Any]:
    """Return what a recorded day is, besides its numbers."""
    plain = (
        "policy",
        "kind",
        "scenario",
        "feeder",
        "day",
        "date",
        "split",
        "step_minutes",
        "finished",
        "band",
        "notes",
    )
    return {name: getattr(recording, name) for name in plain} | {
        "notes": recording.notes,
        "totals": recording.totals(),
    }
