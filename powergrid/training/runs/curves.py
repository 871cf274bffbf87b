"""Read learning curves out of run folders; it draws nothing."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import PowerGridError, ScenarioError, describe_unknown
from powergrid.training.rllib.agents import default_env
from powergrid.training.runs.loop import VALIDATION_SCORE, VALIDATION_SEED
from powergrid.training.runs.records import PROGRESS, read_manifest

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunCurve:
    """One column of a run's ``progress.csv``.

    Attributes:
        run: The run folder.
        label: How it was trained: algorithm and policies.
        manifest: Its ``run.json``.
        env_steps: Environment steps taken at each point, shape (n,).
        values: The column's numbers there, shape (n,).
    """

    run: Path
    label: str
    manifest: dict[str, Any]
    env_steps: FloatArray
    values: FloatArray


def read_curves(runs: Sequence[str | Path], column: str = VALIDATION_SCORE) -> list[RunCurve]:
    """Read one column of several runs of one scenario, where it has numbers.

    Raises:
        ScenarioError: The runs are of several scenarios, or a run does not have the column; all of that.
        PowerGridError: A folder is no run.
    """
    read = [(Path(run).expanduser(), read_manifest(Path(run).expanduser())) for run in runs]
    problems = [f"{run}: {problem}" for run, manifest in read for problem in _find_problems(run, column)]
    scenarios = {str(manifest["digests"].get("scenario", manifest["scenario"])) for _, manifest in read}
    if len(scenarios) > 1:
        told = ", ".join(f"{run.name} of {manifest['scenario']}" for run, manifest in read)
        problems.append(f"the runs are of different scenarios, whose returns do not compare: {told}")
    if problems:
        raise ScenarioError("curves", problems)
    curves = []
    for run, manifest in read:
        points = np.array(list(_read_points(run, column)))
        curves.append(RunCurve(run, name_of_training(manifest), manifest, points[:, 0], points[:, 1]))
    return curves


def name_of_training(manifest: dict[str, Any]) -> str:
    """Say in two words how a run trains: the algorithm, and whether agents share a policy."""
    policies = set(manifest["policies"].values())
    kind = (
        "shared" if len(policies) == 1 else "independent" if len(policies) == len(manifest["policies"]) else "grouped"
    )
    return f"{str(manifest['algorithm']).upper()} {kind}"


def validation_days(manifest: dict[str, Any]) -> list[int]:
    """Return the days that a run's validation plays, for baselines to play the same."""
    env = default_env()({**manifest["env_config"], "split": "validation"})
    try:
        episodes = int(manifest["settings"]["validation_episodes"])
        resets = [env.reset(seed=VALIDATION_SEED + i)[1] for i in range(episodes)]
        return [int(next(iter(infos.values()))["day"]) for infos in resets]
    finally:
        env.close()


def _find_problems(run: Path, column: str) -> Iterator[str]:
    try:
        with (run / PROGRESS).open(newline="") as stream:
            names = next(csv.reader(stream), [])
    except OSError as error:
        raise PowerGridError(f"{run / PROGRESS}: cannot be read: {error.strerror}") from error
    if column not in names:
        yield describe_unknown("column", column, names)
    elif not any(True for _ in _read_points(run, column)):
        yield f"column {column!r} has no number yet"


def _read_points(run: Path, column: str) -> Iterator[tuple[float, float]]:
    with (run / PROGRESS).open(newline="") as stream:
        for row in csv.DictReader(stream):
            value = float(row[column]) if row.get(column) else math.nan
            if math.isfinite(value):
                yield float(row["env_steps"]), value
