"""Scenario files: which there are, reading them, writing one that a user can edit, and where they name other files."""

from __future__ import annotations

import functools
import importlib.resources
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.files import path_of, reason_of, replacing
from powergrid.grid.feeder.feeder import list_feeders
from powergrid.plain import Foreign, as_plain, parse_yaml, read_yaml
from powergrid.scenario.model import Scenario
from powergrid.scenario.versions import find_file, list_scenarios, list_versions
from powergrid.scenario.vocabulary import SHIPPED_SOURCES

#: Takes what is written and which key it stands under, and gives what shall stand there.
Change = Callable[[str | Path, str], Any]

_WIDTH = 110
#: What stands above a key.
_COMMENTS = {
    "feeder": "Master file, from this file's folder, or the name of a shipped feeder.",
    "feeders": "Each episode draws one of these, by weight.",
    "placement": "How devices and zones are placed on a feeder that they were not made for.",
    "placed": "What was placed how, and what is left over; a record that nothing reads.",
    "mode": "distributed: agents see their zone; centralized: every node of the network too.",
    "penalty": "USD per pu of voltage violation, summed over nodes, each step.",
    "profiles": "Where demand, sun and prices come from.",
    "reward": "scale turns USD into reward.",
    "devices": "Ratings are the model's where it has them; delete a device to leave it to the feeder.",
    "agents": "A device belongs to at most one agent; a bus may be in several zones.",
}


def _name_kind(value: Any) -> str:
    return repr(value) if isinstance(value, Foreign) else f"a {type(value).__name__}"


def as_env_config(config: Any) -> dict[str, Any]:
    """Return an ``env_config`` as a dict, with what stands for one: a scenario's name or path, a scenario, nothing.

    Raises:
        ScenarioError: It is nothing of these.
    """
    if config is None:
        return {}
    if isinstance(config, str | Path):
        return {"env_name": str(config)}
    if isinstance(config, Scenario):
        return {"scenario": config}
    if not isinstance(config, Mapping):
        kind = _name_kind(as_plain(config, "env_config"))
        raise ScenarioError("env_config", [f"is {kind}; give keys with values, or the name or path of a scenario"])
    return dict(config)


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
    source = as_plain(source, "scenario")
    if isinstance(source, Mapping):
        name = source.get("name")
        return name if isinstance(name, str) else "scenario", dict(source)
    if not isinstance(source, str | Path):
        wanted = "give the name of a scenario or feeder, the path of a file, or keys with values"
        raise ScenarioError("scenario", [f"is {_name_kind(source)}; {wanted}"])
    path = Path(source)
    is_file = is_scenario_file(path)
    if is_file:
        if not os.path.isfile(path):  # of a path that is too long it says no, and Path.is_file() raises
            names = [p.name for p in path.parent.glob("*.y*ml")] if os.path.isdir(path.parent) else []
            raise ScenarioError(str(path), [describe_unknown("file", path.name, names)])
        data, where = read_yaml(path), str(path)
    else:
        file = find_file(str(source))
        if file is None and (path.suffix.lower() == ".dss" or os.path.isdir(path) or str(source) in list_feeders()):
            return str(source), {"feeder": str(source)}
        if file is None:
            known = [*list_scenarios(), *list_versions(), *list_feeders()]
            if path.suffix and os.path.isdir(path.parent):  # meant as a file
                beside = sorted(path.parent.iterdir())
                known += [str(each) for each in beside if is_scenario_file(each) or each.suffix.lower() == ".dss"]
            raise ScenarioError(str(source), [describe_unknown("scenario", source, known)])
        entry = importlib.resources.files("powergrid") / "scenarios" / file
        where = f"{source}.yaml"
        data = parse_yaml(entry.read_text(encoding="utf-8"), where)
    if not isinstance(data, dict):
        raise ScenarioError(where, [f"holds {_name_kind(data)}, not keys with values"])
    if is_file:
        data = map_paths(data, functools.partial(_resolve, path.absolute().parent))
    return where, data


def _resolve(folder: Path, written: str | Path, key: str) -> str | Path:
    """Let a path of a scenario file count from its own folder."""
    text = str(written)
    if key == "profiles":
        return written if text in SHIPPED_SOURCES else _join(folder, text)
    # A bare name is a shipped feeder's, also where a folder of that name lies beside the file.
    return _join(folder, text) if key == "model_root" or text.lower().endswith(".dss") or "/" in text else written


def _join(folder: Path, written: str) -> str:
    """Return the path that counts from a folder, without ``..`` where that means the same file."""
    # Behind a link it does not: .. leads to the folder above the link's target.
    path = folder / path_of(written)
    plain = Path(os.path.normpath(path))
    same = path.exists() and plain.exists() and path.samefile(plain)
    return str(plain if same else path)


def write_scenario(
    scenario: Scenario, path: str | Path, notes: Sequence[str] = (), *, keep_edited: bool = False
) -> Path:
    """Write a scenario as commented YAML, without the keys that say what they would say anyway.

    Args:
        scenario: The scenario.
        path: The file, made or replaced; ends with ``.yaml`` or ``.yml``.
        notes: What was found on the feeder and left out, written at the top.
        keep_edited: Refuse to replace a file that holds anything else than would be written.

    Raises:
        ScenarioError: the suffix is another, the file cannot be written or is to be kept, or the profiles are a
            DataFrame.
    """
    path = path_of(path)
    if not is_scenario_file(path):
        raise ScenarioError(str(path), ["a scenario file ends with .yaml or .yml"])
    if not isinstance(scenario.profiles.source, str | Path | list | tuple):
        raise ScenarioError(str(path), ["profiles.source: a DataFrame cannot be written; save it as CSV or Parquet"])
    folder, data = path.absolute().parent, scenario.model_dump(mode="json", exclude_defaults=True, exclude={"devices"})
    data = map_paths(data, lambda written, key: _from_folder(str(written), folder, key))
    data["devices"] = {
        name: {"kind": spec.kind, **spec.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})}
        for name, spec in scenario.devices.items()
    }
    text = _compose(data, notes)
    try:
        if keep_edited and path.is_file() and path.read_bytes() != text.encode("utf-8"):
            kept = "is there already and holds something else, edits perhaps: name another file, or move it away"
            raise ScenarioError(str(path), [kept])
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScenarioError(str(path), [f"cannot be written: {reason_of(error)}"]) from None
    return path


def _from_folder(reference: str, folder: Path, key: str) -> str:
    """Write a path from a folder on, where that is possible; leave names as they are."""
    if key != "model_root" and reference in (SHIPPED_SOURCES if key == "profiles" else list_feeders()):
        return reference
    target = path_of(reference).absolute()
    try:
        written = os.path.relpath(target, folder)
    except ValueError:  # another drive
        return str(target)
    found = folder / written
    return Path(written).as_posix() if found.exists() and found.samefile(target) else str(target)


def _compose(data: dict[str, Any], notes: Sequence[str]) -> str:
    """Lay out the keys in the order of the vocabulary, a device and an agent a line."""
    style: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": _WIDTH}
    lines = [f"# {data['name']}: everything about an environment. docs/scenarios.md explains the keys."]
    if notes:
        lines += ["#", "# Found on the feeder and left out:"]
        for note in notes:
            wrapped = textwrap.wrap(note, _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
            lines += [f"# {'-' if i == 0 else ' '} {line}" for i, line in enumerate(wrapped)]
    for key in Scenario.model_fields:
        if key not in data:
            continue
        if key in _COMMENTS:
            lines += ["", f"# {_COMMENTS[key]}"]
        if key in ("devices", "agents"):
            lines.append(f"{key}:")
            for name, value in data[key].items():
                flow = yaml.safe_dump({name: value}, default_flow_style=True, indent=4, **style).strip()
                lines += textwrap.indent(flow[1:-1], "  ").splitlines()  # its braces are those of the block
        else:
            lines += yaml.safe_dump({key: data[key]}, **style).splitlines()
    return "\n".join(lines) + "\n"


def map_paths(data: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Change every value of a scenario or an ``env_config`` that may name a file; nothing else, and not in place.

    Args:
        data: Its keys may be dotted, as in ``"profiles.source"``.
        change: Called with the value and its key: ``env_name`` or ``scenario``, ``feeder`` (also those of
            ``feeders`` and a placement's ``home``), ``microgrid``, ``model_root`` or ``profiles`` (sources and map).
    """
    return {key: _walk(value, str(key).split("."), change) for key, value in data.items()}


def _walk(value: Any, at: list[str], change: Change) -> Any:
    key: str
    match at:
        case ["scenario"] if isinstance(value, Mapping):
            return map_paths(value, change)
        case ["feeders"] if isinstance(value, Mapping):
            return {_walk(each, ["feeder"], change): weight for each, weight in value.items()}
        case ["feeders"] if isinstance(value, list | tuple):
            return [_walk(each, ["feeder"], change) for each in value]
        case ["profiles", "map"] if isinstance(value, Mapping):
            return value
        case ["profiles" | "placement" | "microgrids", *_] if isinstance(value, Mapping):
            return {name: _walk(part, [*at, *str(name).split(".")], change) for name, part in value.items()}
        case ["profiles", "source"] if isinstance(value, list | tuple):
            return [_walk(each, at, change) for each in value]
        case ["env_name" | "scenario" | "feeder" | "model_root" as key] | ["profiles" as key, "source" | "map"]:
            pass
        case ["placement", "home"]:
            key = "feeder"
        case ["microgrids", _, "feeder"]:
            key = "microgrid"
        case _:
            return value
    return change(value, key) if isinstance(value, str | Path) else value
