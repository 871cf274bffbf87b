"""The column map: what each column of a user's tables measures, and by what rules it is cleaned. Plain data."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.measurements.units import UNITS, find_unit
from powergrid.plain import Location, as_plain, explain, keys_at, merge, place_in, read_yaml

#: What a column may be of; each column says exactly one.
TARGETS = ("load", "site", "meter", "transformer", "head", "class", "weather", "price")
Weather = Literal["pv", "irradiance", "temperature"]
#: The clock shows standard time all the year, whatever hours are missing.
STANDARD = "standard"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _name(value: Any) -> Any:
    """Take a number, which YAML makes of a name that looks like it, for a name."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _names(value: Any) -> Any:
    """Take one name for a list of one."""
    return tuple(map(_name, value if isinstance(value, list | tuple) else [value]))


def _unit(value: Any) -> Any:
    if value is not None and find_unit(str(value)) is None:
        raise ValueError(describe_unknown("unit", value, [unit.name for unit in UNITS.values()], limit=40))
    return value


Name = Annotated[str, BeforeValidator(_name)]
Unit = Annotated[str | None, BeforeValidator(_unit)]


class ColumnSpec(_Part):
    """What a column measures, or a meter of a long table: one target and its unit."""

    load: Annotated[tuple[Name, ...], BeforeValidator(_names)] = Field(
        default=(), description="Load by name; of several, their sum, which is dealt out by `allocate`."
    )
    site: Name | None = Field(default=None, description="Bus; all loads that are on it.")
    meter: Name | None = Field(default=None, description="Line or transformer that the meter sits on, as `Line.l1`.")
    transformer: Name | None = Field(default=None, description="Transformer; all loads that are fed through it.")
    head: bool = Field(default=False, description="Whether it is the whole feeder, measured at its source.")
    class_: str | None = Field(default=None, alias="class", description="Class of loads, one of those in `classes`.")
    weather: Weather | None = Field(default=None, description="`pv`, `irradiance` or `temperature`.")
    price: str | None = Field(default=None, description="Price of energy; the name of the tariff.")
    unit: Unit = Field(default=None, description="Unit, where the column's name does not say it.")
    phase: int | None = Field(
        default=None, ge=1, le=3, description="Phase of the source; a sum's phases go to the loads on each."
    )
    power_factor: float | None = Field(default=None, gt=0, le=1, description="Where kvar is not measured; the model's.")
    kv: float | None = Field(default=None, gt=0, description="Voltage that A are of, line to line [kV]; the model's.")
    rated_kw: float | None = Field(default=None, gt=0, description="Rating of the panels whose kW or kWh these are.")
    reading: Literal["interval", "register"] = Field(
        default="interval", description="Whether kWh are those of each row, or the counter's own, which only grows."
    )

    @model_validator(mode="after")
    def _one_target(self) -> ColumnSpec:
        given = [name for name in TARGETS if getattr(self, "class_" if name == "class" else name)]
        if len(given) != 1:
            came = f"not {' and '.join(given)}" if given else "none is given"
            raise ValueError(f"give exactly one of {', '.join(TARGETS)}; {came}")
        return self


def _spec(value: Any) -> Any:
    """Take a bare name, or a list of them, for a load."""
    return {"load": value} if isinstance(value, str | int | list | tuple) and not isinstance(value, bool) else value


class TimeSpec(_Part):
    """How stamps are read: they end up as the start of each row, in standard time of the feeder's zone."""

    column: Annotated[tuple[Name, ...], BeforeValidator(_names)] = Field(
        default=(), description="Column of the stamps; two for date and time; found by name if unset."
    )
    format: str = Field(
        default="auto",
        description="`iso`, `us` (month first), `eu` (day first), `unix`, `unix_ms`, `excel` (days), or as "
        "`%d.%m.%y %H:%M`.",
    )
    zone: str | None = Field(
        default=None, description=f"Time zone of the feeder, as `America/New_York`; `{STANDARD}`: clocks never change."
    )
    clock: str | None = Field(
        default=None, description=f"Zone of the stamps, where not the feeder's, as `UTC`; `{STANDARD}`."
    )
    stamps: Literal["auto", "start", "end"] = Field(default="auto", description="What of its row a stamp is.")

    @field_validator("zone", "clock")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is None or value == STANDARD:
            return value
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            known = zoneinfo.available_timezones()
            unknown = describe_unknown("time zone", value, sorted(known), limit=3)
            raise ValueError(
                unknown if known else f"no time zones on this machine: pip install tzdata; {unknown}"
            ) from None
        return value


class LongSpec(_Part):
    """Where a long table, one row a stamp and meter, has what."""

    id: Name = Field(description="Column that names the meter; `columns` of the map are these names.")
    values: Annotated[tuple[Name, ...], BeforeValidator(_names)] = Field(
        default=(), description="Columns of numbers; all others if unset."
    )
    quantity: Name | None = Field(
        default=None, description="Column that says what each number is, as kWh or kvarh, with one column of numbers."
    )


class TableSpec(_Part):
    """What is so of one table only, in place of the same keys of the map."""

    unit: Unit = Field(default=None, description="Unit of demand, where neither column nor entry says one.")
    time: TimeSpec = TimeSpec()
    long: LongSpec | None = None
    decimal: Literal["auto", ".", ","] = "auto"
    sheet: str | int = 0
    skip_rows: int = Field(default=0, ge=0)
    missing: tuple[str, ...] = ()


class GapRule(_Part):
    """What becomes of rows that are missing."""

    rule: Literal["leave_out", "interpolate", "last_week"] = Field(
        default="leave_out",
        description="Leave out the day, draw a straight line, or take the same hours of the week before (or after).",
    )
    longest_minutes: int = Field(
        default=180,
        ge=1,
        description="Longest gap that `interpolate` closes; days with longer ones are left out [min].",
    )


class OutlierRule(_Part):
    """What becomes of values far from what is usual at their hour."""

    rule: Literal["report", "gap", "clip"] = Field(
        default="report", description="Keep them and say so, take them for gaps, or cut them back to the bound."
    )
    spread: float = Field(
        default=12.0, gt=1, description="Bound: so many robust deviations (1.4826 MAD) from the median of the hour."
    )


class ImportMap(_Part):
    """Everything that an import may be told."""

    columns: dict[Name, Annotated[ColumnSpec, BeforeValidator(_spec)] | None] = Field(
        default_factory=dict,
        description="What each column (or meter) is: a load's name, or keys; null leaves it out. Columns that are "
        "named like loads need no entry.",
    )
    unit: Unit = Field(default=None, description="Unit of demand, where neither column nor entry says one.")
    time: TimeSpec = TimeSpec()
    long: LongSpec | None = Field(default=None, description="Columns of a table with one row a stamp and meter.")
    tables: dict[Name, TableSpec] = Field(
        default_factory=dict,
        description="By a file's name (`DataFrame 1` of several): what is so of it alone of `unit`, `time`, `long`, "
        "`decimal`, `sheet`, `skip_rows` and `missing`.",
    )
    step_minutes: int | None = Field(
        default=None, ge=1, le=1440, description="Length of a row; the finest there is [min]."
    )
    decimal: Literal["auto", ".", ","] = Field(default="auto", description="Decimal sign of numbers in text.")
    sheet: str | int = Field(default=0, description="Sheet of an Excel file, by name or from 0.")
    skip_rows: int = Field(default=0, ge=0, description="Lines of text or of a sheet above the names of the columns.")
    missing: tuple[str, ...] = Field(default=(), description="Texts that stand for a missing number.")
    negative: Literal["error", "keep", "zero"] = Field(
        default="error", description="Demand below 0: refuse it, keep it (a meter behind panels), or set it to 0."
    )
    gaps: GapRule = GapRule()
    outliers: OutlierRule = OutlierRule()
    allocate: Literal["kva", "energy"] = Field(
        default="kva", description="By what the demand of several loads is dealt out among those without a meter."
    )
    energy_kwh: dict[Name, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="Energy of each load over any one time, for `allocate: energy` [kWh]."
    )
    losses_percent: float = Field(
        default=0.0, ge=0, lt=50, description="Part of the kW and kvar that a head, meter or transformer shows."
    )
    same_target: Literal["error", "add"] = Field(
        default="error",
        description="Several columns of one target and quantity: refuse them, or add them up, as customers' meters.",
    )
    classes: dict[Name, str] = Field(default_factory=dict, description="Class by load name or pattern.")
    limits: dict[Literal["demand_pu", "pv_pu", "price_usd_per_kwh"], Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Bounds of what is plausible, where those of the page are too narrow."
    )

    @model_validator(mode="after")
    def _one_zone(self) -> ImportMap:
        other = [name for name, table in self.tables.items() if table.time.zone not in (None, self.time.zone)]
        if other:
            raise ValueError(
                f"tables.{other[0]}.time.zone: a feeder has one zone, time.zone; that of a table's stamps is its "
                f"'clock', '{STANDARD}' where it never changes"
            )
        return self


def for_table(spec: ImportMap, name: str) -> ImportMap:
    """Return the map with what it says of one table in place of what it says of all."""
    own = spec.tables.get(name)
    if own is None:
        return spec
    change: dict[str, Any] = {key: getattr(own, key) for key in own.model_fields_set}
    if "time" in change:  # key by key
        change["time"] = spec.time.model_copy(update={key: getattr(own.time, key) for key in own.time.model_fields_set})
    return spec.model_copy(update=change)


def read_map(source: Any, where: str = "map", changes: Mapping[str, Any] | None = None) -> ImportMap:
    """Return the column map that a YAML file or plain data mean; an empty one for None.

    Args:
        source: Keys with values, the path of a YAML file, a map, or None.
        where: What errors call keys with values.
        changes: Keys that go before those of the source; mappings are merged into its.

    Raises:
        ScenarioError: the file cannot be read, or with every problem in it.
    """
    if isinstance(source, ImportMap):
        if not changes:
            return source
        source = source.model_dump(by_alias=True, exclude_unset=True)
    data = {} if source is None else as_plain(source, where)
    if isinstance(data, str | Path):
        where, data = str(data), read_yaml(Path(data).expanduser())
        data = {} if data is None else data
    if not isinstance(data, Mapping):
        raise ScenarioError(where, [f"holds a {type(data).__name__}, not keys with values"])
    data = merge(data, as_plain(changes or {}, where))
    problems: list[str] = []
    columns, rest = data.get("columns"), dict(data)
    if isinstance(columns, Mapping):
        rest["columns"] = {name: _read_column(str(name), entry, problems) for name, entry in columns.items()}
    try:
        read = ImportMap.model_validate(rest)
    except ValidationError as error:
        found = explain(error, rest, lambda location: keys_at(location, ImportMap))
        problems += [line for _, line in sorted(found, key=lambda problem: place_in(rest, problem[0]))]
    if problems:
        raise ScenarioError(where, problems)
    return read


def _read_column(name: str, entry: Any, problems: list[str]) -> ColumnSpec | None:
    # One by one, so that a key that does not exist is told with those of a column, whatever the column's name.
    data = _spec(entry)
    try:
        return data if data is None or isinstance(data, ColumnSpec) else ColumnSpec.model_validate(data)
    except ValidationError as error:
        found = explain(error, data, _column_keys)
        problems += [f"columns.{name}: {line}" for _, line in found]
        return None


def _column_keys(location: Location) -> list[str]:
    return [info.alias or name for name, info in ColumnSpec.model_fields.items()] if not location else []
