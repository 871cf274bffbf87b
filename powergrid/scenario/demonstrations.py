"""Days of a scenario as somebody played them, kept in a folder for a policy to imitate.

``demonstrations.json`` says what they are of, ``<day>.npz`` holds the actions of a day. Who plays them, and who learns
from them, it knows not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from powergrid.errors import PowerGridError, Problem, ScenarioError
from powergrid.files import make_folder, path_of, read_arrays, read_json, replacing, telling, write_whole
from powergrid.scenario.loading import load_scenario
from powergrid.scenario.model import Scenario

MANIFEST = "demonstrations.json"
#: Keys that say what agents see and how it is told, not what is played and what it is worth; alike for all.
_ASIDE: dict[str, Any] = {
    "name": "demonstrations", "description": "", "mode": "distributed", "observations": "full", "outlook": None,
    "graph": None, "proposals": None,
    "infos": "numbers", "split": "train", "day_weights": {}, "seed": None, "share_reward": False,
    "profiles.price_ahead_hours": [1.0],
}  # fmt: skip


class Kept(BaseModel):
    """What a folder's days are of.

    Attributes:
        scenario: The scenario's name.
        played: SHA-256 of what is played and what it is worth, whatever agents see of it; see :func:`digest_of_play`.
        policy: Who played.
        seed: Seed of what is random in a day.
        actions: Name of each action, ``device.quantity``, as a task takes them.
        n_steps: Steps of a day.
    """

    format: Literal[1] = 1
    scenario: str
    played: str
    policy: str
    seed: int = Field(ge=0)
    actions: list[str] = Field(min_length=1)
    n_steps: int = Field(ge=1)


@dataclass(frozen=True)
class Demonstrations:
    """Days as they were played.

    Attributes:
        folder: Where they are kept.
        kept: What they are of.
        days: Days of the profiles, shape (n_days,).
        actions: As a task takes them, shape (n_days, n_steps, n_actions).
        rewards: Reward of each day, mean over agents, shape (n_days,).
    """

    folder: Path
    kept: Kept
    days: npt.NDArray[np.int64]
    actions: npt.NDArray[np.float64]
    rewards: npt.NDArray[np.float64]


def digest_of_play(scenario: Scenario) -> str:
    """Return a SHA-256 of what is played and what it is worth: feeder, profiles, devices, rewards, not sight."""
    return load_scenario(scenario, _ASIDE).digest()


def begin(folder: str | Path, kept: Kept) -> tuple[Path, set[int]]:
    """Return a folder to keep days in, which is made, and the days that are there.

    Raises:
        PowerGridError: It holds days of something else, or cannot be written.
    """
    place = path_of(folder)
    if (place / MANIFEST).exists():
        there = read_json(place / MANIFEST, Kept)
        other = [name for name, value in there.model_dump().items() if value != getattr(kept, name)]
        if other:
            told = f"it holds days of {there.scenario} by {there.policy} that differ in {', '.join(other)}"
            raise PowerGridError(f"{place}: {told}; choose another folder")
        return place, {int(file.stem) for file in place.glob("*.npz") if file.stem.isdecimal()}
    make_folder(place)
    write_whole(place / MANIFEST, json.dumps(kept.model_dump(), indent=1) + "\n")
    return place, set()


def keep_day(folder: Path, day: int, actions: npt.NDArray[np.float64], reward: float) -> None:
    """Write a day that was played.

    Args:
        folder: As :func:`begin` gave it.
        day: Day of the profiles.
        actions: Shape (n_steps, n_actions).
        reward: The day's, mean over agents.
    """
    file = folder / f"{day}.npz"
    with telling(file), replacing(file) as temporary:
        np.savez(temporary, allow_pickle=False, actions=actions, reward=reward)


def read_demonstrations(folder: str | Path) -> Demonstrations:
    """Read the days that a folder keeps, in their order.

    Raises:
        PowerGridError: There are none, or a file is damaged or of another shape.
    """
    place = path_of(folder)
    if not (place / MANIFEST).is_file():
        raise PowerGridError(
            f"{place}: no demonstrations; `powergrid demonstrate SCENARIO --out {folder}` records them"
        )
    kept = read_json(place / MANIFEST, Kept)
    files = sorted((file for file in place.glob("*.npz") if file.stem.isdecimal()), key=lambda file: int(file.stem))
    if not files:
        raise PowerGridError(f"{place}: no day in it yet; `powergrid demonstrate` goes on where it was stopped")
    actions, rewards = [], []
    for file in files:
        arrays: Mapping[str, npt.NDArray[np.float64]] = read_arrays(file)
        played, reward = arrays.get("actions"), arrays.get("reward")
        wanted = (kept.n_steps, len(kept.actions))
        if played is None or reward is None or played.shape != wanted or not np.isfinite(played).all():
            raise PowerGridError(f"{file}: no day of finite actions of shape {wanted}, with its reward; delete it")
        actions.append(played)
        rewards.append(float(reward))
    days = np.array([int(file.stem) for file in files], dtype=np.int64)
    return Demonstrations(place, kept, days, np.array(actions, dtype=np.float64), np.array(rewards))


def require_same(found: Demonstrations, scenario: Scenario, actions: Sequence[str], n_days: int) -> None:
    """Refuse demonstrations whose actions are not a scenario's.

    Raises:
        ScenarioError: Actions, steps or days are others; all that is.
    """
    kept, problems = found.kept, []
    others = [name for name in kept.actions if name not in actions] + [n for n in actions if n not in kept.actions]
    if others or list(actions) != kept.actions:
        problems.append(f"they set other actions than {scenario.name}: {', '.join(others[:4]) or 'in another order'}")
    if kept.n_steps != scenario.episode_length:
        problems.append(f"they have days of {kept.n_steps} steps, {scenario.name} has {scenario.episode_length}")
    if found.days[-1] >= n_days:
        problems.append(f"they have a day {found.days[-1]}, the profiles end with {n_days - 1}")
    if problems:
        remedy = "record them on this scenario with `powergrid demonstrate`"
        raise ScenarioError(
            f"demonstrations {found.folder}", [Problem("other-demonstrations", "", each, remedy) for each in problems]
        )
