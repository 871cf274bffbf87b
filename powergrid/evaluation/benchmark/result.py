"""What one run of a task came to, as a JSON file that says all it came from; who made it is in ``signing``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from powergrid.errors import PowerGridError
from powergrid.evaluation.benchmark.tasks import hash_canonical
from powergrid.files import read_json, write_whole

#: Significant digits that a number is written with.
DIGITS = 7
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
#: A word that may stand in a file's name.
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,60}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(_Part):
    """How one policy was trained, as its run says: nobody can replay it, so it is a claim."""

    algorithm: str
    env_steps: int = Field(ge=0)
    minutes: Number = Field(ge=0)
    settings: dict[str, Any] = Field(default={}, description="Settings that are not the algorithm's defaults.")
    differs: list[str] = Field(default=[], description="What of the scenario differed from the task's, in training.")
    versions: dict[str, str | None] = {}


class Player(_Part):
    """Who played.

    Attributes:
        name: The name on the leaderboard.
        kind: A baseline by its name, or trained policies, one for each seed.
        sees: Keys of the scenario that change what agents see.
        weights: SHA-256 of each seed's policy, its two files one after the other.
        training: How each was trained.
    """

    name: Slug
    kind: Literal["baseline", "trained"]
    sees: dict[str, Any] = {}
    weights: dict[str, Sha] = {}
    training: dict[str, Training] = {}


class Summary(_Part):
    """What the days came to, all of it worked out from them and from the frozen references.

    Attributes:
        reward: Mean over seeds and days of an episode's reward, itself the mean over agents.
        reward_by_seed: The same of each seed.
        gain_usd_per_day: What all agents' day was better by than ``no_control``'s, mean over seeds and days.
        regret_usd_per_day: What it was worse by than the optimum's; None where there is no optimum.
        score: 0 as ``no_control``, 1 as the optimum, mean over seeds; None where there is no optimum.
        score_by_seed: The same of each seed.
    """

    reward: Number
    reward_by_seed: dict[str, Number]
    gain_usd_per_day: Number | None = None
    regret_usd_per_day: Number | None = None
    score: Number | None = None
    score_by_seed: dict[str, Number] = {}


class Result(_Part):
    """One run of one task.

    Attributes:
        format: Version of this form.
        benchmark, task, task_digest: What was played, and the SHA-256 of all that the task says.
        digests: Those that the task is pinned to.
        player: Who played.
        usd_per_reward: What a reward of 1, mean over agents, is for all agents together [USD].
        days: Days of the profiles.
        seed: Seed of what is random in a day.
        results: By seed of training, ``-`` of a baseline, the numbers of each day by metric.
        summary: What they came to.
        versions, machine, command: Of what made the file; as told.
        digest: SHA-256 of all else, as canonical JSON: tells a damaged file.
    """

    format: Literal[1] = 1
    benchmark: str
    task: str
    task_digest: Sha
    digests: dict[str, Sha]
    player: Player
    usd_per_reward: Number
    days: list[int]
    seed: int
    results: dict[str, dict[str, list[Number]]] = Field(min_length=1)
    summary: Summary
    versions: dict[str, str | None]
    machine: str
    command: str
    digest: str = ""

    @property
    def stem(self) -> str:
        """The name of its file, without what tells the kind: of task and player."""
        return f"{self.task}.{self.player.name}"

    def take_digest(self) -> str:
        """Return the digest that belongs to what the file says."""
        return hash_canonical(self.model_dump(mode="json", exclude={"digest"}))

    def sealed(self) -> Result:
        """Return it with its digest."""
        return self.model_copy(update={"digest": self.take_digest()})

    def write(self, folder: Path) -> Path:
        """Write ``TASK.PLAYER.json``, whole or not at all."""
        file = folder / f"{self.stem}.json"
        write_whole(file, _layout(self.model_dump(mode="json")))
        return file


def read_result(file: str | Path) -> Result:
    """Read a result.

    Raises:
        PowerGridError: It cannot be read or is none; with every place and what came there.
    """
    if Path(file).is_dir():
        raise PowerGridError(f"{file}: is a folder; give the .json file of a result")
    return read_json(Path(file), Result)


def shorten_number(value: Any) -> float:
    """Return a number as it is written."""
    number = float(value)
    return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else number


def _layout(data: Mapping[str, Any]) -> str:
    """Write JSON with one line for each series of numbers: small, and readable where it changes."""
    text = json.dumps({**data, "results": 0, "days": 0}, indent=1, allow_nan=False)
    series = [
        f'  "{seed}": {{\n' + ",\n".join(f'   "{name}": {json.dumps(values)}' for name, values in own.items()) + "\n  }"
        for seed, own in data["results"].items()
    ]
    text = text.replace('"results": 0', '"results": {\n' + ",\n".join(series) + "\n }", 1)
    return text.replace('"days": 0', f'"days": {json.dumps(data["days"])}', 1) + "\n"
