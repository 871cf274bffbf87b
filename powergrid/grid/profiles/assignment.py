"""Which demand series each load plays: its own where one belongs to it, else one drawn by class, seed and name."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, describe_unknown, list_names
from powergrid.grid.feeder.network import fits
from powergrid.grid.profiles.profiles import Profiles

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LARGE_LOAD_KW = 100.0
COMMERCIAL_CHANCE = {"large": 0.75, "small": 0.2}


def assign_series(
    load_names: Sequence[str],
    load_kw: Sequence[float] | FloatArray,
    classes: Mapping[str, str] | None,
    profiles: Profiles,
    seed: int,
) -> IntArray:
    """Return each load a demand series: its own, or its class by rule and its variant by a hash of seed and name.

    A series that belongs to a load (by ``load_series``, or by having its name) is that load's alone, unless a rule
    gives the load another by its full name. For all others
    the outcome depends on the seed, the load's own name and its own kW only, not on the other loads or their order.
    Without a rule the class is ``"mixed"``: a load of 100 kW or more is commercial with chance 0.75, a smaller one
    with chance 0.2, else residential. Where the series have not both of these classes, any series may be drawn.

    Args:
        load_names: Names of the loads; letter case does not matter.
        load_kw: Rated power of each load [kW], shape (n_loads,).
        classes: Class (or name of one series) by load name or ``fnmatch`` pattern; a full name goes before patterns,
            an earlier pattern before a later one. The class may be ``"mixed"``.
        profiles: The series.
        seed: Seed of the draw.

    Returns:
        Index of the series of each load, shape (n_loads,).

    Raises:
        ScenarioError: With every class that does not exist and every name or pattern that fits no load, or all loads
            for which no series is left.
    """
    members = _group_series(profiles.demand_names)
    rules = {pattern.lower(): name for pattern, name in (classes or {}).items()}
    lowered = [name.lower() for name in load_names]
    _require_known(rules, members, load_names, profiles)
    own = _find_own_series(lowered, profiles)
    taken = set(own.values())
    series, without = np.empty(len(lowered), dtype=np.int64), []
    for i, (load, kw) in enumerate(zip(lowered, load_kw, strict=True)):
        if load in own and load not in rules:
            series[i] = own[load]
            continue
        matches = [load] if load in rules else [pattern for pattern in rules if fits(load, pattern)]
        name = rules[matches[0]] if matches else "mixed"
        if name == "mixed":
            name = _draw_class(seed, load, kw, members)
        candidates = members[name] if name else list(range(len(profiles.demand_names)))
        if taken and (len(candidates) > 1 or not matches):  # what a rule names alone is no draw
            candidates = [index for index in candidates if index not in taken]
        if candidates:
            series[i] = candidates[int(_draw(seed, load, "variant") * len(candidates))]
        else:
            without.append(load_names[i])
    if without:
        problem = f"{list_names(without)} have no series, and all {len(own)} there are belong to other loads"
        raise ScenarioError(
            f"profiles {profiles.name!r}",
            [f"{problem}; add a column for each, or let 'powergrid profiles import' take the shipped year's"],
        )
    return series


def _require_known(
    rules: Mapping[str, str], members: Mapping[str, Sequence[int]], load_names: Sequence[str], profiles: Profiles
) -> None:
    """Raise where rules name a class or load, or the profiles a load, that there is none of."""
    lowered = [name.lower() for name in load_names]
    problems = []
    for pattern, name in rules.items():
        if name not in members and name != "mixed":
            problems.append(f"{pattern!r}: " + describe_unknown("class", name, [*members, "mixed"]))
        if not any(fits(load, pattern) for load in lowered):
            problems.append(describe_unknown("load", pattern, load_names))
    absent = sorted(set(profiles.load_series) - set(lowered))
    if absent:
        told = f"{list_names(absent)}: measured, and the feeder has no such loads; import the tables for this feeder"
        raise ScenarioError(f"profiles {profiles.name!r}", [told])
    if problems:
        raise ScenarioError("load classes", problems)


def _find_own_series(loads: Sequence[str], profiles: Profiles) -> dict[str, int]:
    """Return the index of the series of each load, in lower case, that one belongs to."""
    index = {name.lower(): i for i, name in enumerate(profiles.demand_names)}
    found = {load: index[load] for load in loads if load in index}
    return found | {load: index[profiles.load_series[load].lower()] for load in loads if load in profiles.load_series}


def _group_series(names: Sequence[str]) -> dict[str, list[int]]:
    """Group series by class, what precedes a final ``_<number>``; each is also a class of its own by its full name."""
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        stem, _, number = name.rpartition("_")
        members.setdefault(stem if stem and number.isdigit() else name, []).append(index)
    return members | {name: [index] for index, name in enumerate(names) if name not in members}


def _draw_class(seed: int, load: str, kw: float, classes: Container[str]) -> str:
    """Return a load's class by chance, empty where there are no series of both."""
    chance = COMMERCIAL_CHANCE["large" if kw >= LARGE_LOAD_KW else "small"]
    drawn = "commercial" if _draw(seed, load, "class") < chance else "residential"
    return drawn if "commercial" in classes and "residential" in classes else ""


def _draw(seed: int, name: str, purpose: str) -> float:
    """Draw from [0, 1) by a hash that is the same in every process and on every machine."""
    digest = hashlib.sha256(f"{seed}|{purpose}|{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2.0**48  # exact: a float holds 53 bits
