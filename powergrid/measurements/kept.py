"""Measured tables that a scenario names itself: imported once for the same content, and kept in the user's cache."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from powergrid.grid.engine.cache_folder import Arrays, Cache, made_by
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.profiles.profiles import Profiles
from powergrid.measurements.importing import Imported, Table, import_profiles, list_tables
from powergrid.measurements.report import DataReport
from powergrid.measurements.vocabulary import ImportMap, read_map

_PLAIN = ("name", "step_minutes", "demand_names", "load_series", "load_base", "left_out", "own_sun")
_SERIES = ("demand_pu", "demand_kvar_pu", "pv_pu", "irradiance_pu", "temperature_c")


def import_kept(tables: Table | Sequence[Table], feeder: Feeder, column_map: Any) -> Imported:
    """Return what :func:`import_profiles` makes of tables; of the same ones it is made once.

    Args:
        tables: CSV, Parquet or Excel files or a DataFrame, long or wide.
        feeder: The feeder that the loads are of.
        column_map: What the columns are: keys of :class:`ImportMap`, or a YAML file of them.

    Raises:
        ScenarioError: with every problem of map and tables.
    """
    spec = read_map(column_map, "profiles.map")
    several = list_tables(tables)
    key = _key_of(several, feeder, spec)
    if key is None:
        return import_profiles(several, feeder, spec)
    found = imports.recall(key)
    if found is None:
        with imports.alone(key):
            found = imports.recall(key)
            if found is None:
                found = import_profiles(several, feeder, spec)
                imports.keep(key, found)
    return found


def _key_of(tables: Sequence[Table], feeder: Feeder, spec: ImportMap) -> str | None:
    """Return what an import is kept by: content of tables, map and feeder; None where a table cannot be read."""
    told = [_made_by(), feeder.digest, feeder.name, spec.model_dump_json(by_alias=True)]
    try:
        for table in tables:
            if isinstance(table, pd.DataFrame):
                told += [str(list(table.columns)), str(list(table.dtypes)), str(table.index.name)]
                told.append(hashlib.sha256(pd.util.hash_pandas_object(table).to_numpy().tobytes()).hexdigest())
            else:
                told += [Path(table).name, hashlib.sha256(Path(table).expanduser().read_bytes()).hexdigest()]
    except (OSError, ValueError, TypeError, AttributeError):  # whoever reads it says so
        return None
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@functools.cache
def _made_by() -> str:
    code = hashlib.sha256(made_by().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()


def _encode(imported: Imported) -> tuple[str, Arrays]:
    profiles = imported.profiles
    told = {name: getattr(profiles, name) for name in _PLAIN} | {"start": str(profiles.start)}
    told |= {"tariffs": list(profiles.price_usd_per_kwh), "record": imported.record}
    arrays = {name: values for name in _SERIES if (values := getattr(profiles, name)) is not None}
    arrays |= {f"price_{i}": values for i, values in enumerate(profiles.price_usd_per_kwh.values())}
    return json.dumps(told), {**arrays, "daily": imported.report.daily, "of_day": imported.report.of_day}


def _decode(text: str, arrays: Arrays) -> Imported:
    told = json.loads(text)
    series: dict[str, Any] = {name: arrays[name] for name in _SERIES if name in arrays}
    profiles = Profiles(
        name=told["name"],
        step_minutes=told["step_minutes"],
        start=np.datetime64(told["start"]),
        demand_names=tuple(told["demand_names"]),
        price_usd_per_kwh={tariff: arrays[f"price_{i}"] for i, tariff in enumerate(told["tariffs"])},
        load_series=told["load_series"],
        load_base={load: (base[0], base[1]) for load, base in told["load_base"].items()},
        left_out=tuple(told["left_out"]),
        own_sun=told["own_sun"],
        **series,
    )
    report = DataReport.from_dict(told["record"]["report"], arrays["daily"], arrays["of_day"])
    return Imported(profiles, report, told["record"])


imports = Cache("measured", _encode, _decode)
