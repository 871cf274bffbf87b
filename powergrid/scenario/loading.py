"""From a name, a YAML file, plain data or an ``env_config`` to a validated scenario."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.feeder.feeder import list_feeders, read_feeder
from powergrid.scenario.bundle import unpack_config
from powergrid.scenario.discovery import infer, is_layout, leaves_something
from powergrid.scenario.model import Scenario
from powergrid.scenario.paths import map_paths
from powergrid.scenario.problems import explain, find_raw_ownership_problems, place_in
from powergrid.scenario.swapping import settle_feeder
from powergrid.scenario.vocabulary import SHIPPED_SOURCES


def list_scenarios() -> list[str]:
    """Name the shipped scenarios."""
    folder = importlib.resources.files("powergrid") / "scenarios"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


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


def _load(
    source: str | Path | Mapping[str, Any] | Scenario, overrides: Mapping[str, Any] | None
) -> tuple[Scenario, tuple[str, ...]]:
    where, data = read_source(source)
    base = data
    for key, value in (overrides or {}).items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        if is_layout(data.get("agents")) != is_layout(nested.get("agents", data.get("agents"))):
            data = {k: v for k, v in data.items() if k != "agents"}  # agents by name and a layout do not mix
        data = _merge(data, nested)
    data = settle_feeder(data, base, overrides or {}, where, _validate)
    data, notes = complete(data, where)
    return _validate(data, where), notes


def _validate(data: Mapping[str, Any], where: str) -> Scenario:
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        problems = explain(error, Scenario)
        if all(entry["loc"] for entry in error.errors()):  # else the references are among them
            problems += [(("agents",), line) for line in find_raw_ownership_problems(data)]
        problems.sort(key=lambda problem: place_in(data, problem[0]))
        raise ScenarioError(where, [line for _, line in problems]) from None


def complete(data: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fill in what a scenario's data leave to be discovered; see :func:`powergrid.scenario.discovery.infer`.

    Returns:
        The data, and a sentence for each thing that was found on the feeder and left out.
    """
    reference = data.get("feeder")
    if not isinstance(reference, str | Path) or not leaves_something(data):
        return dict(data), ()
    root = data.get("model_root")
    feeder = read_feeder(
        reference, model_root=root if isinstance(root, str | Path) else None, trust=data.get("trust") is True
    )
    named = dict(data)
    if str(reference) not in list_feeders():
        named["feeder"] = str(feeder.master)
    named.setdefault("name", feeder.name)
    inference = infer(feeder, named, where)
    return inference.data, inference.notes


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


def is_scenario_file(source: str | Path) -> bool:
    """Whether a scenario's name or path is the path of a scenario file."""
    return Path(source).suffix.lower() in (".yaml", ".yml")


def read_source(source: str | Path | Mapping[str, Any] | Scenario) -> tuple[str, dict[str, Any]]:
    """Return what errors call a scenario, and its data before anything is discovered, paths as absolute ones.

    Raises:
        ScenarioError: there is no such scenario, or the file is not YAML.
    """
    if isinstance(source, Scenario):
        return source.name, source.model_dump()
    if isinstance(source, Mapping):
        return str(source.get("name", "scenario")), dict(source)
    path = Path(source)
    if is_scenario_file(path):
        if not path.is_file():
            names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
            raise ScenarioError(str(path), [describe_unknown("file", path.name, names)])
        text, where = path.read_text(encoding="utf-8"), str(path)
    else:
        shipped = str(source) in list_scenarios()
        if not shipped and (path.suffix.lower() == ".dss" or path.is_dir() or str(source) in list_feeders()):
            return str(source), {"feeder": str(source)}
        if not shipped:
            known = [*list_scenarios(), *list_feeders()]
            raise ScenarioError(str(source), [describe_unknown("scenario", source, known)])
        entry = importlib.resources.files("powergrid") / "scenarios" / f"{source}.yaml"
        text, where = entry.read_text(encoding="utf-8"), f"{source}.yaml"
    try:
        data = yaml.load(text, _Loader)  # a safe loader that minds repeated keys
    except yaml.YAMLError as error:
        raise ScenarioError(where, [f"is not YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(data, dict):
        raise ScenarioError(where, [f"holds a {type(data).__name__}, not keys with values"])
    if path.is_file():
        data = _resolve_paths(data, path.absolute().parent)
    return where, data


class _Loader(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error, not the loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"key {key.value!r} comes twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _resolve_paths(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Let paths of a scenario file count from its own folder."""

    def resolve(written: str | Path, key: str) -> str | Path:
        text = str(written)
        if key == "profiles":
            return written if text in SHIPPED_SOURCES else _join(folder, text)
        path = key == "model_root" or text.lower().endswith(".dss") or "/" in text
        return _join(folder, text) if path else written

    return map_paths(data, resolve)


def _join(folder: Path, written: str) -> str:
    """Return the path that counts from a folder, without ``..`` where leaving that out means the same file."""
    path = folder / Path(written).expanduser()
    plain = Path(os.path.normpath(path))
    same = path.exists() and plain.exists() and path.samefile(plain)
    return str(plain if same else path)


def _merge(base: Any, change: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        return {**base, **{key: _merge(base.get(key), value) for key, value in change.items()}}
    return change
