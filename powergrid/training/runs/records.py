"""What a run writes down, and reading it again: manifest, progress.csv, TensorBoard events; it decides nothing."""

from __future__ import annotations

import csv
import io
import json
import math
import pkgutil
import platform
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

import powergrid
from powergrid.errors import PowerGridError, ScenarioError, describe_unknown
from powergrid.files import append_whole, path_of, read_bytes, read_json, reason_of, write_whole
from powergrid.quantities import LEARNER_METRICS, REPLAY_METRICS, RUNNER_METRICS
from powergrid.scenario import scenario_from_config
from powergrid.training.rllib.metrics import CUSTOM, EPISODE_COST, MULTIPLIER, RETURN_ALIAS, mean_over_policies
from powergrid.training.rllib.planning.env_config import EnvClass
from powergrid.training.runs.checkpoints import say_missing
from powergrid.training.runs.settings import dump_settings, make_settings

MANIFEST = "run.json"
PROGRESS = "progress.csv"
_EVENTS_VERSION = "brain.Event:2"
VALIDATION_SCORE = "validation/episode_return_mean"
#: Distributions whose versions a result depends on, by the name that ``run.json`` gives them.
DISTRIBUTIONS = {
    **{name: name for name in ("ray", "torch", "numpy", "gymnasium")},
    "opendssdirect": "opendssdirect.py",
    "dss_engine": "dss-python-backend",
}


def now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond: what a run took is counted from it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _installed_versions() -> dict[str, str | None]:
    """Return the versions that a result depends on; None for what is not installed."""
    versions: dict[str, str | None] = {"powergrid": powergrid.__version__, "python": platform.python_version()}
    for name, distribution in DISTRIBUTIONS.items():
        try:
            versions[name] = version(distribution)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def git_commit() -> str | None:
    """Return the commit of PowerGrid's source tree, with ``+`` where it has changes; None outside of git."""
    source = Path(powergrid.__file__).parent
    try:
        asked = [
            subprocess.run(["git", "-C", str(source), *words], capture_output=True, text=True, timeout=10, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "--", "."])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return asked[0].stdout.strip() + ("+" if asked[1].stdout.strip() else "")


class _Manifest(BaseModel):
    """What ``run.json`` must hold; what else there is stays."""

    model_config = ConfigDict(extra="allow")

    scenario: str
    env: str = ""
    env_config: dict[str, Any]  # may be empty of an environment that is not ours
    algorithm: str = "ppo"
    policies: dict[str, str] = Field(min_length=1)
    settings: dict[str, Any] = {}
    digests: dict[str, Any] = {}
    sessions: list[dict[str, Any]] = []


def write_manifest(run_folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``run.json``, whole or not at all."""
    write_whole(run_folder / MANIFEST, json.dumps(manifest, indent=1, default=str) + "\n")


def read_manifest(run_folder: Path) -> dict[str, Any]:
    """Return what ``run.json`` says of a run.

    Raises:
        PowerGridError: It is missing or cannot be read.
    """
    try:
        return read_json(run_folder / MANIFEST, _Manifest).model_dump()
    except PowerGridError as error:
        if not run_folder.exists():
            raise PowerGridError(say_missing(run_folder)) from None
        raise PowerGridError(f"{run_folder}: no run that can be read: {error}") from error


def env_path(env: EnvClass) -> str:
    """Return how ``run.json`` names an environment's class."""
    return f"{env.__module__}:{getattr(env, '__qualname__', '')}"


def import_env(path: str) -> EnvClass:
    """Import the environment that ``run.json`` names; do so only for a run that is trusted.

    Raises:
        PowerGridError: It cannot be imported.
    """
    try:
        env: EnvClass = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise PowerGridError(f"the run's environment {path} cannot be imported: {error}") from error
    return env


def start_of_session(from_iteration: int, address: str | None = None) -> dict[str, Any]:
    """Return the manifest's entry of a start or a resume of training, on a cluster if it has an address."""
    return {
        "start": now(),
        "from_iteration": from_iteration,
        **({} if address is None else {"address": address}),
        "command": sys.argv,
        "versions": _installed_versions(),
        "git_commit": git_commit(),
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Return every finite number of a nested result under its path, ``a/b/c``."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        elif isinstance(value, bool | int | float | np.number) or (isinstance(value, np.ndarray) and value.ndim == 0):
            number = float(value)
            if math.isfinite(number):
                yield f"{prefix}{key}", number


def stable_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Pick the documented metrics out of RLlib's result, under names that do not follow RLlib's."""
    runners: Mapping[str, Any] = result.get("env_runners", {})
    policies = _policies(result)
    metrics = {name: float(runners.get(name, math.nan)) for name in RUNNER_METRICS}
    metrics[RETURN_ALIAS] = metrics["episode_return_mean"]
    metrics["episodes"] = float(runners.get("num_episodes_lifetime", 0) or 0)
    for agent, value in runners.get("agent_episode_returns_mean", {}).items():
        metrics[f"agent_return/{agent}"] = float(value)
    replayed = {name: theirs for name, theirs in REPLAY_METRICS.items() if any(theirs in m for m in policies.values())}
    for name, theirs in {**LEARNER_METRICS, **replayed}.items():
        metrics[name] = mean_over_policies(dict(result), theirs)
        if len(policies) > 1:
            told = {policy: learnt[theirs] for policy, learnt in policies.items() if theirs in learnt}
            metrics.update({f"{policy}/{name}": float(value) for policy, value in told.items()})
    of_all: Mapping[str, Any] = result.get("learners", {}).get("__all_modules__", {})
    for kind in (EPISODE_COST, MULTIPLIER):
        metrics.update({f"{kind}/{name}": float(value) for name, value in of_all.get(kind, {}).items()})
    metrics["env_step_failures"] = float(runners.get("num_env_step_failures", 0) or 0)
    metrics.update(_count_runners(result))
    metrics.update({f"{CUSTOM}/{name}": value for name, value in sorted(flatten(runners.get(CUSTOM, {})))})
    return metrics


def _count_runners(result: Mapping[str, Any]) -> dict[str, float]:
    """Count the processes that sample beside this one: those at work, how often one was lost, how often one is back."""
    faults = result.get("fault_tolerance", {})
    wanted = int(result.get("config", {}).get("num_env_runners") or 0)
    healthy = int(faults.get("num_healthy_workers", wanted))
    back = int(faults.get("num_remote_worker_restarts", 0))
    return {"env_runners": healthy, "env_runner_losses": back + wanted - healthy, "env_runner_restarts": back}


def _policies(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what RLlib reports of each policy's learning."""
    # "__all_modules__" stands among them: sums and means over policies, with keys of their own.
    learners: Mapping[str, Any] = result.get("learners", {})
    return {policy: metrics for policy, metrics in learners.items() if policy != "__all_modules__"}


def losses_are_finite(result: Mapping[str, Any]) -> bool:
    """Whether every policy's losses are finite; none are reported before a replay buffer holds enough to learn from."""
    losses = [
        float(metrics[name])
        for metrics in _policies(result).values()
        for name in ("policy_loss", "qf_loss")
        if name in metrics
    ]
    return all(math.isfinite(loss) for loss in losses)


class ProgressFile:
    """Append one row an iteration to ``progress.csv``; each row is on disk when ``add`` returns."""

    def __init__(self, file: Path, after_iteration: int = 0) -> None:
        """Open the file; rows of iterations past ``after_iteration`` are dropped: they are played again."""
        self.file = file
        rows = self._read()
        self.columns = list(rows[0]) if rows else []
        if rows:
            self._rewrite([row for row in rows if _iteration(row) <= after_iteration])

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; a new metric becomes a new column, empty in the rows before."""
        new = [name for name in row if name not in self.columns]
        if new:  # as losses are, before a replay buffer holds enough to learn from
            self.columns += new
            self._rewrite(self._read())
        line = io.StringIO(newline="")
        csv.DictWriter(line, self.columns, restval="").writerow({k: _shown(v) for k, v in row.items()})
        append_whole(self.file, line.getvalue())

    def _read(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        text = read_bytes(self.file).decode("utf-8", "replace").replace("\0", "")
        try:
            return list(csv.DictReader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise PowerGridError(f"{self.file}: is no table that can be read: {error}") from None

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.file, text.getvalue())


def _iteration(row: Mapping[str, Any]) -> int:
    try:
        return int(row["iteration"])
    except (KeyError, TypeError, ValueError):
        return sys.maxsize  # a row cut short by a kill


def _shown(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.8g}"


class EventFile:
    """Append TensorBoard events: the stable names, and RLlib's whole result below ``ray/``; an iteration or nothing.

    Raises:
        PowerGridError: They cannot be written.
    """

    # Ours, since an algorithm that is built and trained without Tune writes neither events nor a CSV file. And not
    # tensorboardX's SummaryWriter: it writes in a thread, which a full disk ends, and then waits for it for ever.
    def __init__(self, folder: Path, after_step: int | None = None) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self.file = folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        first = [Event(wall_time=time.time(), file_version=_EVENTS_VERSION)]
        if after_step is not None:  # what an interrupted session wrote from there on is not shown
            start = SessionLog(status=SessionLog.START)
            first += [Event(step=after_step, file_version=_EVENTS_VERSION), Event(step=after_step, session_log=start)]
        self._append(first)

    def add(self, metrics: Mapping[str, float], result: Mapping[str, Any], step: int) -> None:
        """Write one iteration at ``step`` environment steps."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        ours = {name: value for name, value in metrics.items() if math.isfinite(value)}
        theirs = flatten({key: part for key, part in result.items() if key != "config"})
        told, now_s = ours | {f"ray/{name}": value for name, value in theirs}, time.time()
        self._append(
            [Event(step=int(step), wall_time=now_s, summary=scalar(name, value)) for name, value in told.items()]
        )

    def _append(self, events: Sequence[Any]) -> None:
        from tensorboardX.record_writer import masked_crc32c

        framed = bytearray()  # each record with its length before it, and a checksum behind either
        for event in events:
            record = event.SerializeToString()
            length = struct.pack("<Q", len(record))
            for part in (length, record):
                framed += part + struct.pack("<I", masked_crc32c(part))
        append_whole(self.file, bytes(framed))


@dataclass(frozen=True)
class RunCurve:
    """One column of a run's ``progress.csv``."""

    run: Path
    label: str  # how it was trained: algorithm and policies
    manifest: dict[str, Any]
    env_steps: npt.NDArray[np.float64]  # environment steps taken at each point, shape (n,)
    values: npt.NDArray[np.float64]  # the column's numbers there, shape (n,)


def read_curves(runs: Sequence[str | Path], column: str = VALIDATION_SCORE) -> list[RunCurve]:
    """Read one column of several runs of one scenario, where it has numbers.

    Raises:
        ScenarioError: The runs are of several scenarios, or a run does not have the column; all of that.
        PowerGridError: A folder is no run.
    """
    curves: list[RunCurve] = []
    problems: list[str] = []
    told: list[str] = []
    scenarios: set[str] = set()
    for run in map(path_of, runs):
        manifest = read_manifest(run)
        scenarios.add(str(manifest["digests"].get("scenario", manifest["scenario"])))
        told.append(f"{run.name} of {manifest['scenario']}")
        try:  # pandas' own reading of numbers may miss the last digit
            table = pd.read_csv(io.BytesIO(read_bytes(run / PROGRESS)), dtype=str, encoding_errors="replace")
        except (ValueError, ArithmeticError, LookupError) as error:  # its parse errors are the first
            raise PowerGridError(f"{run / PROGRESS}: is no table that can be read: {reason_of(error)}") from None
        if column not in table:
            problems.append(f"{run}: {describe_unknown('column', column, [str(name) for name in table])}")
            continue
        points = _read_numbers(table, "env_steps", column)
        if points.empty:
            problems.append(f"{run}: column {column!r} has no number yet")
        curves.append(RunCurve(run, name_of_training(manifest), manifest, *points.to_numpy().T))
    if len(scenarios) > 1:
        problems.append(f"the runs are of different scenarios, whose returns do not compare: {', '.join(told)}")
    if problems:
        raise ScenarioError("curves", problems)
    return curves


def _read_numbers(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return the rows of columns of a table of texts in which all are finite numbers; none where one is missing."""
    texts = [table.get(name, pd.Series(dtype=str)) for name in columns]
    numbers = [pd.to_numeric(text, errors="coerce").astype(float) for text in texts]
    return pd.concat(numbers, axis=1).replace([-math.inf, math.inf], math.nan).dropna()


def count_imitation_steps(days: int, rounds: int, horizon: int) -> int:
    """Return the environment steps of imitation: the days as they are played to be shown, each round's, and the last.

    Args:
        days: Days that are imitated.
        rounds: Rounds of learning; policies act themselves in all but the first, which learns from the days shown.
        horizon: Steps of a day.
    """
    return days * horizon * (rounds + 2)


def end_killed_session(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest whose last session has an end: where it was killed, when it last wrote its progress."""
    *before, last = manifest["sessions"] or [{"end": now()}]
    file = run / PROGRESS
    if "end" not in last:
        written = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc) if file.is_file() else None
        last = {**last, "end": last["start"] if written is None else written.isoformat(timespec="milliseconds")}
        last.setdefault("stopped", "killed")
    return {**manifest, "sessions": [*before, last]}


def read_effort(run: Path, manifest: Mapping[str, Any]) -> tuple[int, float]:
    """Return the environment steps that a run took, those of imitation among them, and its minutes.

    Raises:
        PowerGridError: The table of its progress cannot be read, or the run has not ended.
    """
    minutes = read_minutes(run, manifest)
    steps = [curve.env_steps for curve in read_curves([run], "iteration")]
    imitated = 0
    if "imitation" in manifest:
        horizon = scenario_from_config(manifest["env_config"]).episode_length
        rounds = manifest["settings"].get("imitation_rounds", 1)
        imitated = count_imitation_steps(manifest["imitation"]["days"], rounds, horizon)
    return int(steps[0].max()) + imitated, minutes


def read_minutes(run: Path, manifest: Mapping[str, Any]) -> float:
    """Return the minutes that the sessions of a run took.

    Raises:
        PowerGridError: One has no end.
    """
    try:
        spans = [
            datetime.fromisoformat(each["end"]) - datetime.fromisoformat(each["start"]) for each in manifest["sessions"]
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise PowerGridError(f"{run}: has a session without an end: is it still training?") from error
    return sum(span.total_seconds() for span in spans) / 60.0


def find_changed_settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that are not the algorithm's defaults, its seed left out."""
    defaults = dump_settings(make_settings(manifest["algorithm"]))
    settings = {key: value for key, value in manifest["settings"].items() if key != "seed"}
    return {key: value for key, value in settings.items() if defaults.get(key, value) != value}


def name_of_training(manifest: dict[str, Any]) -> str:
    """Say in two words how a run trains: the algorithm, and whether agents share a policy."""
    agents, policies = len(manifest["policies"]), len(set(manifest["policies"].values()))
    kind = {agents: "independent", 1: "shared"}.get(policies, "grouped")
    return f"{str(manifest['algorithm']).upper()} {kind}"
