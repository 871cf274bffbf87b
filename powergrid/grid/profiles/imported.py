"""The folder that an import of measurements leaves and ``profiles.source`` names: a table of series and its record.

``profiles.parquet`` (``profiles.csv.gz`` where pyarrow is missing) holds the series, in columns as users' tables have
them and ``demand_kvar_pu:<name>``. ``profiles.json`` says whose they are, what 1.0 pu of them is, which days are never
played, and what they were made of.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError
from powergrid.files import path_of
from powergrid.grid.profiles.profiles import Profiles
from powergrid.grid.profiles.table_files import open_table
from powergrid.grid.profiles.tables import PLAIN_COLUMNS, PRICE_PREFIX

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]

#: What the record is called, and its form.
RECORD = "profiles.json"
_FORMAT = "powergrid profiles 1"
_DEMAND, _KVAR = "demand_pu", "demand_kvar_pu"


def is_imported(source: str | Path) -> bool:
    """Whether a path is that of an import's folder or record."""
    path = Path(source)
    return path.name == RECORD or os.path.isdir(path)  # of a name that is too long it says no, and Path.is_dir() raises


def write_imported(
    profiles: Profiles, folder: str | Path, record: Mapping[str, Any], texts: Mapping[str, str] | None = None
) -> Path:
    """Write profiles and their record as a folder, all of it or nothing.

    Args:
        profiles: The series.
        folder: Made, or replaced where it holds an earlier import or nothing.
        record: What they were made of, as plain data.
        texts: More files, by name.

    Returns:
        The folder.

    Raises:
        ScenarioError: the folder holds something else, or cannot be written.
    """
    target = path_of(folder).absolute()
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or (target / RECORD).is_file())):
        raise ScenarioError(str(target), ["is there and holds no import of profiles; name another folder"])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, on the same disk: a folder that was there is replaced in one move, or stays as it was.
        new = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ScenarioError(str(target), [f"cannot be written: {error.strerror}"]) from None
    try:
        new.chmod(0o777 & ~_umask())
        _write_files(profiles, new, record, texts or {})
        old = None
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)) / "old"
            target.rename(old)
        new.rename(target)
        if old is not None:
            shutil.rmtree(old.parent, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise ScenarioError(str(target), [f"cannot be written: {error.strerror or error}"]) from None
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_files(profiles: Profiles, folder: Path, record: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    frame = _as_table(profiles)
    if importlib.util.find_spec("pyarrow") is not None:
        table = folder / "profiles.parquet"
        frame.to_parquet(table, engine="pyarrow", index=False)
    else:
        table = folder / "profiles.csv.gz"
        # without the time of writing: the same series make the same file
        frame.to_csv(table, index=False, compression={"method": "gzip", "mtime": 0})
    data = {
        "format": _FORMAT,
        "name": profiles.name,
        "table": table.name,
        "table_sha256": _sha256(table),
        "digest": profiles.digest(),
        "start": str(profiles.start.astype("datetime64[D]")),
        "step_minutes": profiles.step_minutes,
        "days": profiles.n_days,
        "own_sun": profiles.own_sun,
        "left_out": [str(profiles.start.astype("datetime64[D]") + day) for day in profiles.left_out],
        "loads": {
            load: {"series": series, **dict(zip(("base_kw", "base_kvar"), profiles.load_base[load], strict=True))}
            for load, series in profiles.load_series.items()
        },
        **record,
    }
    data["record_sha256"] = _sha256_of(data)
    for name, text in {RECORD: json.dumps(data, indent=1, ensure_ascii=False) + "\n", **texts}.items():
        (folder / name).write_text(text, encoding="utf-8")


def _as_table(profiles: Profiles) -> pd.DataFrame:
    import pandas as pd

    one = np.timedelta64(profiles.step_minutes, "m")
    columns: dict[str, Any] = {"time": (profiles.start + np.arange(profiles.n_rows) * one).astype("datetime64[s]")}
    columns |= {f"{_DEMAND}:{name}": profiles.demand_pu[:, i] for i, name in enumerate(profiles.demand_names)}
    if profiles.demand_kvar_pu is not None:
        columns |= {f"{_KVAR}:{name}": profiles.demand_kvar_pu[:, i] for i, name in enumerate(profiles.demand_names)}
    columns |= {name: values for name in PLAIN_COLUMNS if (values := getattr(profiles, name)) is not None}
    columns |= {f"{PRICE_PREFIX}:{name}": values for name, values in profiles.price_usd_per_kwh.items()}
    return pd.DataFrame(columns)


def read_imported(source: str | Path) -> Profiles:
    """Read what :func:`write_imported` wrote.

    Args:
        source: The folder, or the record in it.

    Raises:
        ScenarioError: it is no import, is damaged, or was changed since.
    """
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    file = folder / RECORD
    if not file.is_file():
        raise ScenarioError(str(source), [f"holds no {RECORD}: it is no folder that 'powergrid profiles import' wrote"])
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise ScenarioError(str(file), [f"has the format {record['format']!r}, not {_FORMAT!r}: import it again"])
        table = folder / Path(str(record["table"])).name
        if not table.is_file():
            raise ScenarioError(str(file), [f"names the table {table.name!r}, which is not there: import it again"])
        if _sha256(table) != record["table_sha256"]:
            raise ScenarioError(str(table), ["is not the table that its record is of: import it again"])
        if _sha256_of(record) != record["record_sha256"]:
            raise ScenarioError(str(file), ["does not say what it did when it was written: import it again"])
        profiles = _take_apart(open_table(table, str(table), decimal="."), record)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ScenarioError(str(file), [f"is damaged ({told}): import it again"]) from None
    return profiles


def _take_apart(frame: pd.DataFrame, record: Mapping[str, Any]) -> Profiles:
    named: dict[str, dict[str, FloatArray]] = {}
    for column in frame.columns:
        kind, _, name = str(column).partition(":")
        if kind != "time":
            named.setdefault(kind, {})[name] = frame[column].to_numpy(dtype=np.float64)
    start = np.datetime64(record["start"], "m")
    demand, reactive = named[_DEMAND], named.get(_KVAR)
    loads = record["loads"]
    first = start.astype("datetime64[D]")
    return Profiles(
        name=str(record["name"]),
        step_minutes=int(record["step_minutes"]),
        start=start,
        demand_pu=np.column_stack(list(demand.values())),
        demand_names=tuple(demand),
        demand_kvar_pu=None if reactive is None else np.column_stack([reactive[name] for name in demand]),
        price_usd_per_kwh=named.get(PRICE_PREFIX, {}),
        load_series={load: str(each["series"]) for load, each in loads.items()},
        load_base={load: (float(each["base_kw"]), float(each["base_kvar"])) for load, each in loads.items()},
        left_out=tuple(int((np.datetime64(day, "D") - first).astype(np.int64)) for day in record["left_out"]),
        own_sun=record.get("own_sun") is True,
        pv_pu=named.get("pv_pu", {}).get(""),
        irradiance_pu=named.get("irradiance_pu", {}).get(""),
        temperature_c=named.get("temperature_c", {}).get(""),
    )


def _sha256_of(record: Mapping[str, Any]) -> str:
    told = {key: value for key, value in record.items() if key != "record_sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
