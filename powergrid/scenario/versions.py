"""Versions of shipped scenarios: which there are, and whether a scenario is one as it was frozen."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from powergrid.scenario.model import Scenario

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # from Python 3.11 on

_NAMED = re.compile(r"(?P<name>.+)-v(?P<version>\d+)")


def _folder() -> Traversable:
    return importlib.resources.files("powergrid") / "scenarios"


def list_scenarios() -> list[str]:
    """Name the shipped scenarios, each of them its newest version."""
    stems = sorted(entry.name[:-5] for entry in _folder().iterdir() if entry.name.endswith(".yaml"))
    return [stem for stem in stems if not _NAMED.fullmatch(stem)]


def list_versions() -> list[str]:
    """Name every version of every shipped scenario, as in ``ieee13_mg-v1``."""
    return sorted(frozen())


def find_file(name: str) -> str | None:
    """Return the file of a shipped scenario, by its name or with a version; None where there is none."""
    if name in list_scenarios():
        return f"{name}.yaml"
    if name not in frozen():
        return None
    file = f"{name}.yaml"
    # The newest stands under the bare name, earlier ones under their own.
    return file if (_folder() / file).is_file() else f"{name.rpartition('-v')[0]}.yaml"


@functools.cache
def frozen() -> Mapping[str, Mapping[str, str]]:
    """Return the SHA-256 of scenario, feeder and profiles by version, as they were when it was frozen."""
    table: dict[str, dict[str, str]] = json.loads((_folder() / "frozen.json").read_text(encoding="utf-8"))
    return table


def take_digests(scenario: Scenario) -> dict[str, str]:
    """Return the SHA-256 that a version is held by: of the scenario with all that it reads, and of the parts."""
    return {
        "scenario": scenario.digest(),
        "feeder": scenario.read_feeder().digest,
        "profiles": scenario.read_profiles().digest(),
    }


def name_version(scenario: Scenario) -> str:
    """Return what a scenario is called where it matters which: ``ieee13_mg-v1``, with ``, changed`` where it is not.

    The split and the seed are no change: whoever evaluates sets them. Neither is it that agents are shown an outlook or
    what rules would do: nothing that is played differs by it.
    """
    named = scenario.versioned_name
    if scenario.version is None:
        return named
    as_frozen: dict[str, Any] = {"split": "train", "seed": None, "outlook": None, "proposals": None}
    held = frozen().get(named, {}).get("scenario")
    return named if scenario.model_copy(update=as_frozen).digest() == held else f"{named}, changed"
