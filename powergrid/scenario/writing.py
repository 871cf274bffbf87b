"""Write a scenario as a commented YAML file that a user can edit and that loads to the same scenario."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from powergrid.errors import ScenarioError
from powergrid.grid.feeder.feeder import list_feeders
from powergrid.scenario.model import Scenario
from powergrid.scenario.vocabulary import SHIPPED_SOURCES

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


def write_scenario(scenario: Scenario, path: str | Path, notes: Sequence[str] = ()) -> Path:
    """Write a scenario as commented YAML, without the keys that say what they would say anyway.

    Args:
        scenario: The scenario.
        path: The file, made or replaced; ends with ``.yaml`` or ``.yml``.
        notes: What was found on the feeder and left out, written at the top.

    Raises:
        ScenarioError: the suffix is another, the file cannot be written, or the profiles are a DataFrame.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ScenarioError(str(path), ["a scenario file ends with .yaml or .yml"])
    source = scenario.profiles.source
    if not isinstance(source, str | Path):
        raise ScenarioError(str(path), ["profiles.source: a DataFrame cannot be written; save it as CSV or Parquet"])
    data = scenario.model_dump(mode="json", exclude_defaults=True, exclude={"profiles", "devices"})
    data["feeder"] = _from_folder(scenario.feeder, path.absolute().parent, list_feeders())
    if scenario.feeders:
        folder = path.absolute().parent
        data["feeders"] = {_from_folder(name, folder, list_feeders()): w for name, w in scenario.feeders.items()}
    if scenario.model_root is not None:
        data["model_root"] = _from_folder(scenario.model_root, path.absolute().parent, ())
    profiles = scenario.profiles.model_dump(mode="json", exclude_defaults=True, exclude={"source"})
    if source != "builtin":
        profiles["source"] = _from_folder(str(source), path.absolute().parent, SHIPPED_SOURCES)
    if profiles:
        data["profiles"] = profiles
    data["devices"] = {
        name: {"kind": spec.kind, **spec.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})}
        for name, spec in scenario.devices.items()
    }
    try:
        path.write_text(_compose(data, notes), encoding="utf-8")
    except OSError as error:
        raise ScenarioError(str(path), [f"cannot be written: {error.strerror}"]) from None
    return path


def _from_folder(reference: str, folder: Path, names: Sequence[str]) -> str:
    """Write a path from a folder on, where that is possible; leave names as they are."""
    if reference in names:
        return reference
    target = Path(reference).expanduser().absolute()
    try:
        written = os.path.relpath(target, folder)
    except ValueError:  # another drive
        return str(target)
    found = folder / written
    return Path(written).as_posix() if found.exists() and found.samefile(target) else str(target)


def _compose(data: dict[str, Any], notes: Sequence[str]) -> str:
    """Lay out the keys in the order of the vocabulary, a device and an agent a line."""
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
                lines += textwrap.indent(_flow({name: value})[1:-1], "  ").splitlines()
        else:
            lines += yaml.safe_dump({key: data[key]}, sort_keys=False, allow_unicode=True, width=_WIDTH).splitlines()
    return "\n".join(lines) + "\n"


def _flow(value: dict[str, Any]) -> str:
    """Write a value in flow style, without the line break at the end."""
    dumped: str = yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True, default_flow_style=True, width=_WIDTH, indent=4
    )
    return dumped.strip()
