"""What each series of a user's tables is of: loads of the feeder, the sun, a price; by the map, else by its name."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from powergrid.errors import Problem, describe_unknown, list_names
from powergrid.grid.feeder.network import Network
from powergrid.measurements.tables import MeasuredTable, own_rows
from powergrid.measurements.units import UNITS, UnitSpec, split_unit
from powergrid.measurements.vocabulary import ColumnSpec, ImportMap

FloatArray = npt.NDArray[np.float64]

_WEATHER = {
    "pv": "pv",
    "solar": "pv",
    "sun": "pv",
    "irradiance": "irradiance",
    "ghi": "irradiance",
    "poa": "irradiance",
    "temperature": "temperature",
    "temp": "temperature",
    "t_air": "temperature",
}
#: What the whole feeder, measured at its source, is called.
_HEAD = ("head", "feeder head")
_OWN_UNIT = {"pv_pu": "pu", "irradiance_pu": "kw/m2", "temperature_c": "c"}
#: From where on a column's name is so like a load's that the report asks.
_LIKE = 0.75
#: What may be measured of each target.
_DEMAND = ("kw", "kvar", "kva", "kwh", "kvarh", "a", "kv", "pu")
_ALLOWED = {
    "pv": ("pu", "kw", "kwh"),
    "irradiance": ("irradiance", "pu"),
    "temperature": ("temperature",),
    "price": ("price",),
}


@dataclass
class Series:
    """One series and what it is of.

    Attributes:
        name, where: Its column or meter, and its table.
        spec: Its entry in the map, found or made up.
        unit: Its unit.
        target: What it is of, in words.
        loads: The loads that it is the demand of, by index; none of sun and prices.
        kv: Base voltage where it is measured, line to line [kV]; 0 where that is not certain.
        values: Its numbers in its unit, at the table's rows.
        step_minutes: Length of a row [min].
        stamps: What of its row a stamp is, ``auto``, ``start`` or ``end``.
    """

    name: str
    where: str
    spec: ColumnSpec
    unit: UnitSpec
    target: str
    loads: tuple[int, ...]
    kv: float
    values: pd.Series[float]
    step_minutes: int
    stamps: str = "auto"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.where}: {self.name!r}"

    @property
    def quantity(self) -> str:
        """What of its target it measures: active (or what becomes that), reactive, or volts."""
        return {"kvar": "reactive", "kvarh": "reactive", "kv": "volts"}.get(self.unit.kind, "active")

    @property
    def kind(self) -> str:
        """What it is of in one word: demand, price, or that of the weather."""
        return self.spec.weather or ("price" if self.spec.price else "demand")


def find_targets(
    tables: Sequence[MeasuredTable], spec: ImportMap, network: Network, problems: list[str]
) -> tuple[list[Series], list[str]]:
    """Return the series that are of something, and the columns that are of nothing.

    Args:
        tables: The tables.
        spec: The map; what it does not name is known by its own name: that of a load, of the head, or what the weather
            is called.
        network: The feeder.
        problems: Gets what is wrong with the map, and what has no unit.
    """
    found, unused = list[Series](), list[str]()
    known = {name for table in tables for name in (*table.names, *table.labels, *table.unread)}
    asked = [name for name, entry in spec.columns.items() if entry is not None and name not in known]
    problems += ["columns: " + describe_unknown("column", name, sorted(known)) for name in asked]
    given = [network.find("load", name, "energy_kwh") for name in spec.energy_kwh]
    problems += [str(each) for each in given if isinstance(each, Problem)]
    targets: dict[str, tuple[str, tuple[int, ...]]] = {}
    for table in tables:
        for name, problem in table.unread.items():
            if spec.columns.get(name) or _know(name, network) or _know(split_unit(name)[0], network):
                problems.append(problem)
            else:
                unused.append(f"{table.where}: {name} (no numbers)")
        for i, (name, label) in enumerate(zip(table.names, table.labels, strict=True)):
            stem, unit = split_unit(label)
            if name in spec.columns:
                entry = spec.columns[name]
            else:  # a load may be called as a unit ends: x_kw is load x_kw before it is load x in kW
                whole = _know(name, network)
                entry = whole or (_know(stem, network) if name == label else None)
                unit = None if whole is not None and whole.load and name == label else unit
            if entry is None:
                near = difflib.get_close_matches(stem.lower(), network.loads.names, 1, _LIKE)
                like = f" (is it load {near[0]!r}?)" if near else ""
                unused += [f"{table.where}: {name}{like}"] if name not in spec.columns else []
                continue
            if name not in targets:
                targets[name] = _find_loads(entry, spec, network, f"columns.{name}", problems)
            where = f"{table.where}: {name!r}"
            unit = _pick_unit(entry, unit, label, table.spec, where, problems)
            if unit is None:
                continue
            title, loads = targets[name]
            kv = _find_kv(entry, loads, network) if unit.kind in ("a", "kv") else 0.0
            if unit.kind == "a" and loads and not kv:
                problems.append(f"{where}: A of {title} have no certain voltage; say 'kv', line to line")
            numbers, step = own_rows(table.values.iloc[:, i], table.step_minutes, where, problems)
            stamps = table.spec.time.stamps
            found.append(Series(name, table.where, entry, unit, title, loads, kv, numbers, step, stamps))
    return found, unused


def _know(name: str, network: Network) -> ColumnSpec | None:
    """Return what a name alone says: a load's name is that load, as ``671``, ``Load.671`` or ``demand_pu:671``."""
    kind, sign, rest = name.partition(":")
    bare = name.lower().removeprefix("load.").strip()
    if sign and kind.lower() in ("demand_pu", "load_pu", "demand_kw", "demand_kvar"):
        bare = rest.lower()
    if bare in network.loads.names:
        return ColumnSpec(load=(bare,))
    low = name.lower()
    if low in _OWN_UNIT:
        return ColumnSpec(weather=_WEATHER[low.rpartition("_")[0]], unit=_OWN_UNIT[low])
    if low in _WEATHER:
        return ColumnSpec(weather=_WEATHER[low])
    if low.replace("_", " ") in _HEAD:
        return ColumnSpec(head=True)
    if low.startswith("price"):
        return ColumnSpec(price=rest or "price", unit="USD/kWh" if kind.lower() == "price_usd_per_kwh" else None)
    return None


def _pick_unit(
    entry: ColumnSpec, told: UnitSpec | None, label: str, spec: ImportMap, title: str, problems: list[str]
) -> UnitSpec | None:
    """Return the unit of a series: its entry's, its column's or, of demand, the map's; it is never guessed."""
    kind = entry.weather or ("price" if entry.price else "demand")
    allowed = _ALLOWED.get(kind, _DEMAND)
    name = entry.unit or (told.name if told else None) or (spec.unit if kind == "demand" else None)
    if name is None and label.partition(":")[0].lower() in ("demand_pu", "load_pu", "demand_kw", "demand_kvar"):
        name = label.partition(":")[0].rpartition("_")[2]
    units = [unit.name for unit in UNITS.values() if unit.kind in allowed]
    if name is None:
        problems.append(f"{title}: the unit is not said; give 'unit', one of {', '.join(units)}")
        return None
    unit = UNITS.get(name.lower(), told)
    if unit is None or unit.kind not in allowed:
        problems.append(f"{title}: {name} is no unit of {kind}; allowed: {', '.join(units)}")
        return None
    return unit


def _find_loads(
    entry: ColumnSpec, spec: ImportMap, network: Network, where: str, problems: list[str]
) -> tuple[str, tuple[int, ...]]:
    """Return what an entry is of in words, and its loads by index."""
    found, title = list[int](), ""
    loads = network.loads
    if entry.weather or entry.price:
        return entry.weather or f"price {entry.price}", ()
    if entry.load:
        title = f"load {list_names(entry.load, 4)}"
        found += _indices((network.find("load", name, where) for name in entry.load), problems)
    elif entry.site is not None:
        title = f"bus {entry.site}"
        for bus in _indices([network.find_bus(entry.site, where=where)], problems):
            found += np.flatnonzero(loads.bus == bus).tolist()
    elif entry.head:
        title = "feeder head"
        found += np.flatnonzero(network.tree.depth[loads.bus] >= 0).tolist()
    elif entry.class_ is not None:
        title = f"class {entry.class_}"
        patterns = [pattern.lower() for pattern, of in spec.classes.items() if of == entry.class_]
        found += [i for i, name in enumerate(loads.names) if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
        if not patterns:
            unknown = describe_unknown("class", entry.class_, sorted(set(spec.classes.values())))
            problems.append(f"{where}: {unknown}; 'classes: {{PATTERN: {entry.class_}}}' says which loads are of it")
            return title, ()
    else:
        transformer = str(entry.transformer).lower().removeprefix("transformer.")
        element = entry.meter if entry.meter is not None else f"transformer.{transformer}"
        title = f"behind {element}"
        for branch in _indices([network.find("branch", element, where)], problems):
            found += _behind(branch, network)
    if not found and len(problems) == 0:
        problems.append(f"{where}: {title} has no load")
    return title, tuple(dict.fromkeys(found))


def _find_kv(entry: ColumnSpec, loads: Sequence[int], network: Network) -> float:
    """Return the voltage that amperes are of, line to line [kV], 0 where the model does not say it for certain."""
    if entry.kv is not None:
        return entry.kv
    buses = {int(network.loads.bus[load]) for load in loads}
    if entry.head:
        buses = {network.source_bus}
    elif entry.meter is not None or entry.transformer is not None:
        branch = network.find("branch", entry.meter or f"transformer.{entry.transformer}")
        buses = set() if isinstance(branch, Problem) else {bus for bus in network.branches.buses[branch] if bus >= 0}
    volts = np.unique(np.round(network.v_base[network.nodes_of(sorted(buses))], 3))
    return float(volts[0]) * np.sqrt(3.0) / 1000.0 if len(volts) == 1 else 0.0


def _indices(found: Iterable[int | Problem], problems: list[str]) -> list[int]:
    several = list(found)
    problems += [str(each) for each in several if isinstance(each, Problem)]
    return [each for each in several if not isinstance(each, Problem)]


def _behind(branch: int, network: Network) -> list[int]:
    """Return the loads that are fed through a branch, the side that is farther from the source."""
    depth = network.tree.depth
    buses = [bus for bus in network.branches.buses[branch] if depth[bus] >= 0]
    if not buses:
        return []
    far = max(buses, key=lambda bus: depth[bus])
    inside = network.downstream(network.buses[far])
    return [int(i) for i in np.flatnonzero(np.isin(network.loads.bus, inside))]


def group_columns(series: Sequence[Series], spec: ImportMap, problems: list[str]) -> list[list[Series]]:
    """Group the series of demand by the loads that they are of: one each of kW and kvar, or one a phase.

    Args:
        series: The series of demand.
        spec: Says whether several of one quantity add up.
        problems: Gets loads that two columns are of in the same quantity.
    """
    groups: dict[tuple[int, ...], list[Series]] = {}
    for each in series:
        groups.setdefault(tuple(sorted(each.loads)), []).append(each)
    for members in groups.values():
        seen: dict[tuple[str, int | None], Series] = {}
        for each in members:
            other = seen.setdefault((each.quantity, each.spec.phase), each)
            if other is not each and (spec.same_target == "error" or each.quantity == "volts"):
                problems.append(
                    f"{each.title} and {other.title} are both of {each.target}; leave one out (null), say 'phase' "
                    "where they are of its phases, or 'same_target: add' where they add up, as customers' meters do"
                )
        target = members[0].target
        phases = {quantity: {phase for of, phase in seen if of == quantity} for quantity, _ in seen}
        if any(None in several and len(several) > 1 for several in phases.values()):
            problems.append(f"{members[0].title}: {target} has columns with and without 'phase'")
        if "active" not in phases:
            told = " and ".join("kvar" if of == "reactive" else "kV" for of in phases)
            problems.append(f"{members[0].title}: {target} has {told} and no kW or A")
        elif "volts" in phases and not any(each.unit.kind == "a" for each in members):
            problems.append(f"{members[0].title}: {target} has kV and no A that are at it; leave the kV out (null)")
    return list(groups.values())
