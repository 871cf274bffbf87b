"""The tasks of PowerGrid-Bench as ``tasks.yaml`` has them, and how each becomes a scenario; nothing is played here."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from powergrid.errors import Problem, ScenarioError, describe_unknown
from powergrid.evaluation.rollout import put_on_feeder
from powergrid.evaluation.stresses.spec import Stress, put_under
from powergrid.grid.devices.spec import Spec
from powergrid.plain import explain, keys_at, read_yaml
from powergrid.scenario import Scenario, load_scenario
from powergrid.scenario.vocabulary import OutlookSpec

TASKS, REFERENCES = "tasks.yaml", "references.json"
#: Keys of a scenario that an entrant may choose, for they change what agents see and nothing of the grid.
SEES = ("mode", "observations", "outlook", "proposals")
#: How much longer than its minutes a training may take, for it ends its last iteration.
_LAST_ITERATION = 1.05
#: What of an outlook is not the entrant's.
_TASKS_OWN = ("sun_error", "demand_error", "error_hours")


class Digests(Spec):
    """What a task is pinned to, SHA-256 each."""

    trained: str = Field(description="Digest of the scenario that is trained on, days of training.")
    played: str = Field(description="Digest of the scenario that is played, days of the test.")
    feeder: str = Field(description="Digest of the files of the feeder that is played.")
    profiles: str = Field(description="Digest of the series that are played.")


class Task(Spec):
    """One task: what is trained on, with what budget, and what is played."""

    title: str = Field(description="What it asks, in a line.")
    scenario: str = Field(description="Scenario that policies are trained on.")
    env_steps: int = Field(ge=1, description="Most environment steps of a training.")
    minutes: float = Field(gt=0, description="Most minutes of a training, on two processor cores without a GPU.")
    feeder: str | None = Field(default=None, description="Another feeder that is played.")
    stress: Stress | None = Field(default=None, description="What is harder on the days that are played.")
    digests: Digests = Field(description="What it is pinned to.")

    @property
    def shifted(self) -> bool:
        """Whether what is played is not what is trained on."""
        return self.feeder is not None or self.stress is not None

    def build_trained(self, sees: Mapping[str, Any] | None = None) -> Scenario:
        """Return the scenario that is trained on."""
        return load_scenario(self.scenario, {**(sees or {}), "split": "train"})

    def build_played(self, sees: Mapping[str, Any] | None = None) -> Scenario:
        """Return the scenario that is played."""
        scenario = load_scenario(self.scenario, {**(sees or {}), "split": "test"})
        if self.feeder is not None:
            scenario = put_on_feeder(scenario, self.feeder)
        return scenario if self.stress is None else put_under(scenario, _with_own_files(self.stress))

    def take_digests(self) -> dict[str, str]:
        """Return the digests of what is here, those that a task is pinned to if nothing has changed."""
        played = self.build_played()
        return {
            "trained": self.build_trained().digest(),
            "played": played.digest(),
            "feeder": played.read_feeder().digest,
            "profiles": played.read_profiles().digest(),
        }

    def holds(self, env_steps: int, minutes: float) -> bool:
        """Whether a training kept to the budget; it stops after the iteration that passes its minutes."""
        return env_steps <= self.env_steps and minutes <= self.minutes * _LAST_ITERATION

    def require_unchanged(self, name: str) -> None:
        """Refuse to play what is not the task that was frozen.

        Raises:
            ScenarioError: A scenario, a feeder or a series here is another one; all of it.
        """
        pinned = self.digests.model_dump()
        problems = [
            Problem(
                "task-changed",
                f"tasks.{name}.digests.{what}",
                f"is {pinned[what][:12]}, what is here {digest[:12]}",
                "play it with the version of PowerGrid that it was frozen with, unchanged",
            )
            for what, digest in self.take_digests().items()
            if digest != pinned[what]
        ]
        if problems:
            raise ScenarioError("powergrid benchmark", problems)


class Days(Spec):
    """Days of the profiles, from the first, which is 0; of training and validation as spans."""

    train: tuple[tuple[int, int], ...] = Field(description="Days to train on, first and last of each span.")
    validation: tuple[tuple[int, int], ...] = Field(description="Days to choose by, first and last of each span.")
    test: tuple[int, ...] = Field(min_length=2, description="Days that are played.")


class References(BaseModel):
    """What scores of a task are counted from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_digest: str
    rewards: dict[str, list[float]]


class Benchmark(Spec):
    """All tasks, and what they have in common."""

    name: str = Field(description="Name of the benchmark.")
    version: int = Field(ge=1, description="Version; a task that changes makes another one.")
    days: Days = Field(description="Which days are for what.")
    training_seeds: tuple[int, ...] = Field(min_length=1, description="Seeds of what is trained.")
    day_seed: int = Field(ge=0, description="Seed of what is random in a day that is played.")
    metrics: dict[str, str] = Field(min_length=1, description="Numbers of each day, with their units.")
    tasks: dict[str, Task] = Field(min_length=1, description="Tasks by name.")
    references: dict[str, References] = Field(default_factory=dict, description="What scores are counted from.")

    @field_validator("tasks")
    @classmethod
    def _names_are_of_files(cls, tasks: dict[str, Task]) -> dict[str, Task]:
        if bad := [name for name in tasks if not name.isidentifier()]:
            raise ValueError(f"{', '.join(bad)}: a task's name is of letters, digits and underscores, as files are")
        return tasks

    @property
    def full_name(self) -> str:
        """Name and version, as results tell it."""
        return f"{self.name} v{self.version}"

    def find(self, name: str) -> Task:
        """Return a task by name.

        Raises:
            ScenarioError: There is none of that name.
        """
        if name not in self.tasks:
            unknown = describe_unknown("task", name, self.tasks)
            raise ScenarioError("powergrid benchmark", [Problem("unknown-task", "", unknown)])
        return self.tasks[name]

    def digest(self, name: str) -> str:
        """Return a SHA-256 over all that a task says, what tasks have in common included."""
        task = self.find(name)
        common = self.model_dump(mode="json", exclude={"tasks", "references"})
        return hash_canonical({**common, "task": task.model_dump(mode="json", exclude_defaults=True)})

    def rewards_of(self, name: str) -> dict[str, list[float]]:
        """Return the frozen rewards of each day of a task by ``no_control`` and ``optimum``; none of another task."""
        kept = self.references.get(name)
        return dict(kept.rewards) if kept is not None and kept.task_digest == self.digest(name) else {}


def hash_canonical(data: Any) -> str:
    """Return a SHA-256 over JSON with sorted keys and no spaces, which is the same wherever it is written."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.lru_cache(maxsize=4)
def read_benchmark(folder: str | Path | None = None) -> Benchmark:
    """Return the benchmark that ships with PowerGrid, or that of a folder: ``tasks.yaml``, ``references.json``.

    Raises:
        ScenarioError: The folder holds no benchmark; with every key that is wrong.
    """
    where = _own_folder() if folder is None else Path(folder)
    data = read_yaml(where / TASKS)
    if (where / REFERENCES).is_file():
        data = {**data, "references": json.loads((where / REFERENCES).read_text(encoding="utf-8"))}
    try:
        return Benchmark.model_validate(data)
    except ValidationError as error:
        told = explain(error, data, lambda location: keys_at(location, Benchmark))
        raise ScenarioError(str(where / TASKS), [line for _, line in told]) from None


def find_sees_problems(sees: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield which keys of a scenario an entrant may not choose, for they change more than what agents see.

    How far off a forecast is, is the task's to say: who chose that could choose to know the day beforehand.
    """
    for key in sees:
        if key not in SEES:
            yield Problem("not-to-choose", f"sees.{key}", "no entrant may change it", f"it may: {', '.join(SEES)}")
    usual, outlook = OutlookSpec().model_dump(), sees.get("outlook")
    given = outlook if isinstance(outlook, Mapping) else {}
    for key in _TASKS_OWN:
        if given.get(key, usual[key]) != usual[key]:
            text = f"is {given[key]}; how far off forecasts are is the task's to say"
            yield Problem("not-to-choose", f"sees.outlook.{key}", text, f"leave it at {usual[key]}")


def _own_folder() -> Path:
    return Path(str(resources.files("powergrid.evaluation.benchmark")))


def _with_own_files(stress: Stress) -> Stress:
    """Return a stress whose table of sun is looked for beside the tasks."""
    if not isinstance(stress.sun_of, str):
        return stress
    return stress.model_copy(update={"sun_of": str(_own_folder() / stress.sun_of)})
