"""From a name, a file, data or an ``env_config`` to a validated scenario, brought to the feeder it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.garbage import put_off_collection
from powergrid.grid.feeder.feeder import Feeder, list_feeders, read_feeder
from powergrid.plain import as_plain, merge, place_in
from powergrid.scenario.bundle import unpack_config
from powergrid.scenario.claims import settle_claims
from powergrid.scenario.discovery import infer, is_layout, leaves_something
from powergrid.scenario.files import is_scenario_file, read_source
from powergrid.scenario.model import Scenario
from powergrid.scenario.placement.place import place
from powergrid.scenario.ranges import forget_given, take_out
from powergrid.scenario.shorthand import changes_discovered, name_agents, settle, spread_changes
from powergrid.scenario.versions import list_scenarios
from powergrid.scenario.vocabulary import PlacementSpec, explain, find_ownership_problems


def load_scenario(
    source: str | Path | Mapping[str, Any] | Scenario, overrides: Mapping[str, Any] | None = None
) -> Scenario:
    """Load and validate a scenario.

    Args:
        source: Name of a shipped scenario or feeder, path of a YAML file or of a feeder's master file, the data
            itself, or a scenario. Devices and agents that are left out are discovered on the feeder.
        overrides: Keys to change. Mappings are merged into what is there, everything else replaces it;
            ``"reward.scale"`` is short for ``{"reward": {"scale": ...}}``.

    Raises:
        ScenarioError: with every problem found.
    """
    return _load(source, overrides)[0]


@put_off_collection()
def _load(
    source: str | Path | Mapping[str, Any] | Scenario, overrides: Mapping[str, Any] | None
) -> tuple[Scenario, tuple[str, ...]]:
    where, data = read_source(source)
    overrides = as_plain(dict(overrides or {}), where)
    if isinstance(source, str | Path) and is_scenario_file(source):
        data = settle_claims(Path(source), data, overrides)
    data, ranges = take_out(data, where)
    base, changed = data, set[str]()
    if (undone := _find_undone(overrides)) and isinstance(reward := data.get("reward"), Mapping):
        data = {**data, "reward": {key: value for key, value in reward.items() if key not in undone}}
    for key, value in overrides.items():
        nested: Any = value
        for part in reversed(str(key).split(".") if key != "ranges" else [key]):
            nested = {part: nested}
        nested, drawn = take_out(nested, where)
        if twice := sorted(set(drawn) & changed):
            raise ScenarioError(where, [f"{each}: is drawn by two of the changes; leave out one" for each in twice])
        changed |= set(drawn)
        ranges = forget_given(ranges, nested) | drawn
        if is_layout(data.get("agents")) != is_layout(nested.get("agents", data.get("agents"))):
            data = {k: v for k, v in data.items() if k != "agents"}  # agents by name and a layout do not mix
        data = merge(data, nested if changes_discovered(data.get("devices")) else spread_changes(data, nested, where))
    data = settle(data)
    if ranges:
        data["ranges"] = {key: value for key, value in ranges.items() if value is not None}
    data = _bring_to_feeder(data, base, overrides, where)
    data, notes = complete(data, where)
    return _validate(name_agents(data, where), where), notes


def _validate(data: Mapping[str, Any], where: str) -> Scenario:
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        problems = explain(error, Scenario, data)
        # Pydantic checks references only once all keys are right; then their place is the whole scenario, ().
        if all(entry["loc"] for entry in error.errors()):
            problems += [(("agents",), line) for line in find_ownership_problems(data)]
        problems.sort(key=lambda problem: place_in(data, problem[0]))
        raise ScenarioError(where, [line for _, line in problems]) from None


def complete(data: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fill in what a scenario's data leave to be discovered, and tell what was found on the feeder and left out."""
    reference = data.get("feeder")
    if not isinstance(reference, str | Path) or not leaves_something(data):
        return dict(data), ()
    root = data.get("model_root")
    feeder = read_feeder(
        reference,
        model_root=root if isinstance(root, str | Path) else None,
        trust=data.get("trust") is True,
        ignore_case=data.get("ignore_case") is True,
    )
    named = dict(data)
    # A folder or a relative path means this file from now on, wherever the scenario is read next.
    if str(reference) not in list_feeders():
        named["feeder"] = str(feeder.master)
    named.setdefault("name", feeder.name)
    return infer(feeder, named, where)


def scenario_from_config(config: Mapping[str, Any]) -> Scenario:
    """Turn an ``env_config`` into the scenario it means.

    Raises:
        ScenarioError: neither or both of ``env_name`` and ``scenario``, or whatever is wrong in the scenario.
    """
    return explain_config(config)[0]


def explain_config(config: Mapping[str, Any]) -> tuple[Scenario, tuple[str, ...]]:
    """Turn an ``env_config`` into the scenario it means, and say what was found on its feeder and left out.

    Returns:
        The scenario, and a sentence for each thing that discovery left out, with the key that includes it.

    Raises:
        ScenarioError: as :func:`scenario_from_config`.
    """
    settings = unpack_config(config)
    name, data = settings.pop("env_name", None), settings.pop("scenario", None)
    if name is None and data is None and settings.get("feeder") is not None:
        return _load({}, settings)
    if (name is None) == (data is None):
        names = ", ".join(list_scenarios())
        raise ScenarioError(
            "env_config", [f"give exactly one of 'env_name' (shipped: {names}) and 'scenario', or a 'feeder' alone"]
        )
    return _load(data if name is None else name, settings)


def scenarios_by_feeder(scenario: Scenario) -> dict[str, Scenario]:
    """Return the scenario on each of its feeders, in their order; itself where it has one alone.

    Raises:
        ScenarioError: something has no place on a feeder; all of it, feeder by feeder.
    """
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
    if not isinstance(name, str) or name not in scenario.feeders:
        raise ScenarioError("options", [describe_unknown("feeder", name, scenario.feeders)])
    return str(name)


def _find_undone(overrides: Mapping[str, Any]) -> set[str]:
    """Return the keys of a scenario's reward that a goal or a preset, where it is asked for, is not to be undone by."""
    reward = overrides.get("reward")
    asked = dict(reward) if isinstance(reward, Mapping) else {}
    asked |= {key: overrides[f"reward.{key}"] for key in ("goal", "preset") if f"reward.{key}" in overrides}
    undone = {"weights", "preset"} if asked.get("goal") is not None else set()
    return undone | ({"weights", "goal", "scale"} if asked.get("preset") is not None else set())


def _bring_to_feeder(
    data: Mapping[str, Any], base: Mapping[str, Any], overrides: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Bring a scenario's data, overrides merged in, to its feeder where they were made for that of ``base``.

    Raises:
        ScenarioError: something has no place on the feeder; all of it, with what is most like it there.
    """
    data, feeders = dict(data), data.get("feeders")
    first = next(iter(feeders), None) if isinstance(feeders, list | tuple | dict) else None
    origin = base.get("feeder") or (first if "feeders" in base else None)
    if feeders:
        # Each feeder would get other devices and agents.
        if leaves_something(data):
            raise ScenarioError(
                where, ["feeders: with several of them devices and agents have to be given, so that spaces are equal"]
            )
        data.setdefault("observations", "summary")
        if "feeder" not in overrides or "feeders" in overrides:
            data.setdefault("feeder", origin or first)
            return data
        del data["feeders"]
    target, options = data.get("feeder"), _read_placement(data.get("placement"))
    home = options.home or (origin if "feeder" in overrides else None)
    if home is None or target is None or str(home) == str(target) or leaves_something(data):
        return data
    if options.rule is None and not options.map and not data.get("microgrids"):
        return data | {"placed": {"home": str(home)}}  # names fit, or the simulation tells which do not
    # Placing reads the whole scenario, with all defaults, so it has to be right on its own feeder first.
    at_home = _validate(data | {"feeder": str(home)}, where)
    old = _read_feeder(str(home), base)
    if str(target) in list_feeders() and "model_root" not in overrides:
        data["model_root"] = None  # was the folder of the old feeder's files
    new = _read_feeder(str(target), data)
    if new.digest == old.digest:  # another name of the same files
        return data
    moved, record = place(at_home.model_dump(), old, new, options, where)
    return {
        **moved,
        **{key: data[key] for key in ("model_root", "trust", "ignore_case") if key in data},
        "feeder": str(target),
        "placement": options.model_dump() | {"home": None},
        "placed": record | {"home": str(home)},
    }


def _read_placement(value: Any) -> PlacementSpec:
    try:
        return PlacementSpec.model_validate({} if value is None else value)
    except ValidationError:
        return PlacementSpec()  # what is wrong with it is told when the whole scenario is checked


def _read_feeder(reference: str, data: Mapping[str, Any]) -> Feeder:
    root = None if reference in list_feeders() else data.get("model_root")
    own = {key: data.get(key) is True for key in ("trust", "ignore_case")}
    return read_feeder(reference, model_root=root, **own)
