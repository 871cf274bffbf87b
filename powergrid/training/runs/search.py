"""What tuning varies: for each algorithm a small space of settings, and draws from it; it trains nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.training.rllib.algorithm_settings import fields_of, resolve_algorithm_settings
from powergrid.training.runs.settings import ALIASES

DIGITS = 3  # of a drawn number, so that what is printed is what was trained with


@dataclass(frozen=True)
class Choice:
    """One of some values, all as likely."""

    values: tuple[Any, ...]

    def draw(self, random: np.random.Generator) -> Any:
        """Draw a value."""
        return self.values[int(random.integers(len(self.values)))]

    def __str__(self) -> str:
        return ", ".join(str(value) for value in self.values)


@dataclass(frozen=True)
class Range:
    """A number between two bounds, drawn evenly or, where ``log``, evenly in its logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def values(self) -> tuple[float, float]:
        """Return the bounds."""
        return self.low, self.high

    def draw(self, random: np.random.Generator) -> float | int:
        """Draw a number of :data:`DIGITS` significant digits; it stays inside the bounds."""
        if self.whole:
            return int(random.integers(int(self.low), int(self.high) + 1))
        if self.log:
            drawn = float(np.exp(random.uniform(np.log(self.low), np.log(self.high))))
        else:
            drawn = float(random.uniform(self.low, self.high))
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"


Dimension = Choice | Range

_ON_POLICY: dict[str, Dimension] = {
    "lr": Range(1e-4, 3e-3, log=True),
    "entropy_coeff": Range(3e-4, 3e-2, log=True),
    "gamma": Choice((0.95, 0.98, 0.99, 0.995)),
    "lambda_": Choice((0.9, 0.95, 0.98, 1.0)),
    "minibatch_size": Choice((192, 384, 768, 1536)),
    "num_epochs": Choice((6, 12, 20)),
    "clip_param": Choice((0.1, 0.2, 0.3)),
}
_OFF_POLICY: dict[str, Dimension] = {
    "lr": Range(1e-4, 1e-3, log=True),
    "gamma": Choice((0.95, 0.98, 0.99, 0.995)),
    "train_batch_size": Choice((128, 256, 512)),
    "updates_per_step": Choice((0.125, 0.25, 0.5)),
}
#: What each algorithm is tuned over where nothing else is asked for.
SPACES: dict[str, dict[str, Dimension]] = {
    "ppo": _ON_POLICY,
    "mappo": _ON_POLICY,
    "sac": {**_OFF_POLICY, "tau": Choice((0.002, 0.005, 0.01, 0.02)), "initial_alpha": Range(0.01, 1.0, log=True)},
    "dqn": {
        **_OFF_POLICY,
        "target_network_update_freq": Choice((500, 1000, 2000, 4000)),
        "epsilon_steps": Choice((20_000, 50_000, 100_000)),
    },
}


def search_space(
    algorithm: str, fixed: Mapping[str, Any] | None = None, search: Sequence[str] = ()
) -> dict[str, Dimension]:
    """Return the settings to vary and what each may be.

    Args:
        algorithm: ``"ppo"``, ``"mappo"``, ``"sac"`` or ``"dqn"``.
        fixed: Settings that hold for every trial; they are not varied, and of the space's own choices those that
            do not go with them are left out.
        search: What to vary instead of the whole space: ``"lr"``, ``"lr=1e-4..1e-2"`` or ``"gamma=[0.98, 0.99]"``.

    Raises:
        ScenarioError: The algorithm or a setting is unknown, a range is none, or a value in it is refused.
    """
    if algorithm not in SPACES:
        raise ScenarioError("algorithm", [describe_unknown("algorithm", str(algorithm), SPACES)])
    kept = {ALIASES.get(name, name): value for name, value in (fixed or {}).items()}
    _, problems = resolve_algorithm_settings(algorithm, kept)
    if problems:
        raise ScenarioError("training settings", problems)
    if not search:
        fitting = {
            name: _what_fits(algorithm, name, dimension, kept)
            for name, dimension in SPACES[algorithm].items()
            if name not in kept
        }
        return {name: dimension for name, dimension in fitting.items() if len(dimension.values) > 1}
    space: dict[str, Dimension] = {}
    for item in search:
        try:
            name, dimension = _read_item(algorithm, item)
        except ValueError as error:
            problems.append(str(error))
            continue
        if name in kept or name in space:
            problems.append(f"{name!r} is {'fixed by a setting' if name in kept else 'given twice'}; give it once")
        problems += [why for value in dimension.values for why in _refusals(algorithm, name, value, kept)]
        space[name] = dimension
    if problems:
        raise ScenarioError("--search", problems)
    return space


def draw_trials(
    space: Mapping[str, Dimension], samples: int, seed: int, first: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return what is varied in each trial: in the first trial the settings as they are, in the others what is drawn.

    Args:
        space: What is varied.
        samples: Number of trials, at least 1.
        seed: Seed of the draws.
        first: The settings as they are.
    """
    random = np.random.default_rng(seed)
    drawn = [{name: dimension.draw(random) for name, dimension in space.items()} for _ in range(samples - 1)]
    return [{name: first[name] for name in space}, *drawn]


def space_table(algorithm: str) -> str:
    """Return an algorithm's space as a Markdown table, the one in ``docs/training.md``."""
    rows = ["| setting | drawn from |", "|---|---|"]
    rows += [f"| `{name}` | {dimension} |" for name, dimension in SPACES[algorithm].items()]
    return "\n".join(rows) + "\n"


def _read_item(algorithm: str, item: str) -> tuple[str, Dimension]:
    """Read one ``NAME``, ``NAME=LOW..HIGH`` or ``NAME=[A, B]``; a ValueError says what is wrong with it."""
    given, sign, text = item.partition("=")
    name = ALIASES.get(given.strip(), given.strip())
    fields = fields_of(algorithm)
    if name not in fields:
        raise ValueError(describe_unknown("setting", given.strip(), [*SPACES[algorithm], *fields]))
    own = SPACES[algorithm].get(name)
    if not sign:
        if own is None:
            raise ValueError(f"{name!r} has no range of its own; give one, {name}=LOW..HIGH or {name}=[A, B]")
        return name, own
    bounds = re.fullmatch(r"\s*(\S+?)\s*\.\.\s*(\S+)\s*", text)
    try:
        if bounds:
            whole = not set(".e") & set(bounds[1] + bounds[2])
            log = isinstance(own, Range) and own.log
            low, high = float(bounds[1]), float(bounds[2])
            if low < high and (low > 0 or not log):
                return name, Range(low, high, log=log, whole=whole)
        else:
            values = tuple(_read_list(text))
            if len(values) > 1:
                return name, Choice(values)
    except ValueError:
        pass
    raise ValueError(f"{item!r} is no range; give {name}=LOW..HIGH, two numbers, or {name}=[A, B], a list")


def _read_list(text: str) -> Iterator[Any]:
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(text) from error
    if not isinstance(values, list):
        raise ValueError(text)
    for value in values:
        try:
            yield float(value) if isinstance(value, str) else value  # 1e-4 is a string to YAML 1.1
        except ValueError:
            yield value


def _refusals(algorithm: str, name: str, value: Any, fixed: Mapping[str, Any]) -> list[str]:
    return resolve_algorithm_settings(algorithm, {**fixed, name: value})[1]


def _what_fits(algorithm: str, name: str, dimension: Dimension, fixed: Mapping[str, Any]) -> Dimension:
    if isinstance(dimension, Range):
        return dimension
    return Choice(tuple(value for value in dimension.values if not _refusals(algorithm, name, value, fixed)))
