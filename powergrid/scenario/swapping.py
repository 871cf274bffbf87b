"""From one feeder to another: when a scenario is brought there, and what its several feeders make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.feeder.feeder import Feeder, list_feeders, read_feeder
from powergrid.scenario.discovery import leaves_something
from powergrid.scenario.model import Scenario
from powergrid.scenario.placement import PlacementSpec, place, place_host

Validate = Callable[[Mapping[str, Any], str], Scenario]


def settle_feeder(
    data: Mapping[str, Any], base: Mapping[str, Any], overrides: Mapping[str, Any], where: str, validate: Validate
) -> dict[str, Any]:
    """Bring a scenario's data to its feeder where they were made for another one.

    Args:
        data: The scenario's data, overrides merged in.
        base: The data without overrides; their feeder is the one that names are of.
        overrides: What was overridden.
        where: What errors call the scenario.
        validate: Checks whole data.

    Raises:
        ScenarioError: something has no place on the feeder; all of it, with what is most like it there.
    """
    settled = dict(data)
    feeders = settled.get("feeders")
    first = next(iter(feeders), None) if isinstance(feeders, list | tuple | dict) else None
    origin = base.get("feeder") or (first if "feeders" in base else None)
    if feeders:
        if leaves_something(data):
            raise ScenarioError(
                where, ["feeders: with several of them devices and agents have to be given, so that spaces are equal"]
            )
        settled.setdefault("observations", "summary")
        if "feeder" not in overrides or "feeders" in overrides:
            settled.setdefault("feeder", origin or first)
            return settled
        del settled["feeders"]
    target, wish = settled.get("feeder"), _read_wish(settled.get("placement"))
    home = wish.home or (origin if "feeder" in overrides else None)
    if home is None or target is None or str(home) == str(target) or leaves_something(data):
        return settled
    if wish.rule is None and not wish.map and not data.get("microgrids"):
        return settled | {"placed": {"home": str(home)}}  # names fit, or the simulation tells which do not
    return _bring(settled, base, overrides, str(home), str(target), wish, where, validate)


def scenarios_by_feeder(scenario: Scenario) -> dict[str, Scenario]:
    """Return the scenario on each of its feeders, in their order; itself where it has one alone.

    Raises:
        ScenarioError: something has no place on a feeder; all of it, feeder by feeder.
    """
    from powergrid.scenario.loading import load_scenario

    if not scenario.feeders:
        return {scenario.feeder: scenario}
    found, problems = dict[str, Scenario](), list[str]()
    for name in scenario.feeders:
        try:
            found[name] = load_scenario(scenario, {"feeder": name})
        except ScenarioError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if problems:
        raise ScenarioError(scenario.name, problems)
    return found


def pick_feeder(scenario: Scenario, name: Any) -> str:
    """Return the feeder of a scenario's several that a name means.

    Raises:
        ScenarioError: it is none of them.
    """
    if name not in scenario.feeders:
        raise ScenarioError("options", [describe_unknown("feeder", name, scenario.feeders)])
    return str(name)


def _read_wish(value: Any) -> PlacementSpec:
    try:
        return PlacementSpec.model_validate({} if value is None else value)
    except ValidationError:
        return PlacementSpec()  # what is wrong with it is told when the whole scenario is checked


def _bring(
    data: dict[str, Any],
    base: Mapping[str, Any],
    overrides: Mapping[str, Any],
    home: str,
    target: str,
    wish: PlacementSpec,
    where: str,
    validate: Validate,
) -> dict[str, Any]:
    at_home = validate(data | {"feeder": home}, where)
    old = _read(home, base)
    if target in list_feeders() and "model_root" not in overrides:
        data = data | {"model_root": None}
    new = _read(target, data)
    if new.digest == old.digest:
        return data
    bring = place_host if at_home.microgrids else place
    moved, record = bring(at_home.model_dump(), old, new, wish, where)
    kept = {key: moved[key] for key in ("model_root", "trust") if key in moved} | {
        key: data[key] for key in ("model_root", "trust") if key in data
    }
    return (
        moved
        | kept
        | {
            "feeder": target,
            "placement": wish.model_dump() | {"home": None},
            "placed": record | {"home": home},
        }
    )


def _read(reference: str, data: Mapping[str, Any]) -> Feeder:
    root = None if reference in list_feeders() else data.get("model_root")
    return read_feeder(reference, model_root=root, trust=data.get("trust") is True)
