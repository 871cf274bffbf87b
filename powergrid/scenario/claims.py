"""What a scenario file says that only who calls may decide: that its feeder is trusted, and which folders it reads.

A file may come from anywhere, and so may the run folder that holds one. What a caller gives as data or as overrides is
the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from powergrid.errors import PowerGridError, Problem, ScenarioError
from powergrid.files import real_path
from powergrid.grid.feeder.reading.files import is_gathering_place

#: Environment variable: folders whose scenario files may decide it after all, as a PATH.
TRUST_VARIABLE = "POWERGRID_TRUST"


def settle_claims(file: Path, data: Mapping[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """Return what a file may say of itself, what the caller says instead left out.

    Args:
        file: The file, or the folder of a run.
        data: Its keys, paths as absolute ones.
        given: The keys that the caller gives.

    Raises:
        ScenarioError: It says more than it may; with what the caller has to say for it.
    """
    if _may_decide(file):
        return dict(data)
    problems = {problem.where: problem for problem in _find_claims(file, data)}
    if wrong := [problem for key, problem in problems.items() if key not in given]:
        raise ScenarioError(str(file), wrong)
    return {key: value for key, value in data.items() if key not in problems}


def _may_decide(file: Path) -> bool:
    """Whether the user's environment lets a file decide what only who calls may decide."""
    folders = filter(None, os.environ.get(TRUST_VARIABLE, "").split(os.pathsep))
    real = real_path(file)
    return any(real.is_relative_to(real_path(folder)) for folder in folders)


def _find_claims(file: Path, data: Mapping[str, Any]) -> Iterator[Problem]:
    home = real_path(file).parent
    inner = data.get("scenario")  # of an env_config
    if isinstance(inner, Mapping):
        yield from _find_claims(file, inner)
    if data.get("trust") not in (None, False):
        yield _refuse("trust", True, "no file can give it to itself", home)
    root = data.get("model_root")
    if isinstance(root, str | Path) and not _is_near(Path(root), home):
        around = f"{str(root)!r} has no folder in common with this file but one where all sorts lie"
        yield _refuse("model_root", str(root), around, home)


def _refuse(key: str, value: object, text: str, home: Path) -> Problem:
    option = "--trust" if key == "trust" else f"--set {key}={value}"
    remedy = (
        f"whoever loads it may: {option}, {{{key!r}: {value!r}}} in the env_config or as override, "
        f"or {TRUST_VARIABLE}={home}"
    )
    return Problem("not-for-a-file", key, text, remedy)


def _is_near(root: Path, home: Path) -> bool:
    """Whether a folder and a file's have a folder in common that is somebody's own, not one where all sorts lie."""
    try:
        real = real_path(root)
        common = Path(os.path.commonpath([real, home]))
    except (PowerGridError, ValueError):  # no such home; another drive
        return False
    return not is_gathering_place(real) and not is_gathering_place(common)
