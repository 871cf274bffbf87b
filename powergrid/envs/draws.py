"""The numbers that each episode draws anew: by the scenario's ranges, a curriculum, or the options of a reset."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from powergrid.errors import Problem, ScenarioError, describe_unknown
from powergrid.scenario import Scenario
from powergrid.scenario.ranges import (
    DRAWABLE,
    Distribution,
    Path,
    find_ranges,
    find_value_problems,
    is_distribution,
    is_whole,
    resolve,
)

#: Values by the parts of a scenario's key.
Values = dict[Path, Any]


class Draws:
    """Draw an episode's numbers.

    What one number comes to depends on the generator and its key alone: to draw another beside, or to fix it, shifts
    nothing else, and a scenario that draws nothing takes nothing from the generator.

    Args:
        scenario: Says what is drawn, and what all other numbers are.

    Attributes:
        given: What a curriculum draws by instead, as :meth:`change` took it.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario, self.given = scenario, dict[str, Any]()
        self._own, _ = find_ranges(scenario, scenario.ranges)
        self._now: dict[Path, Any] = dict(self._own)

    @property
    def any(self) -> bool:
        """Whether anything is drawn where a reset says nothing."""
        return bool(self._now)

    def change(self, ranges: Mapping[str, Any]) -> None:
        """Draw by these from the next reset on, and by the scenario's where they say nothing.

        Args:
            ranges: Distributions, or numbers that all episodes have, by key; nested or with dots.

        Raises:
            ScenarioError: a key cannot be drawn, or a value is wrong; all of them.
        """
        found = self.read(ranges)
        self.given, self._now = dict(ranges), {**self._own, **found}

    def read(self, given: Mapping[str, Any]) -> Values:
        """Return what keys of a curriculum mean: a value, or what it is drawn from.

        Raises:
            ScenarioError: a key cannot be drawn, or a value is wrong; all of them.
        """
        if not isinstance(given, Mapping):
            raise ScenarioError("ranges", [f"give them by key, for example {{'load_scale': 1.1}}, not {given!r}"])
        found, problems = self._find(given)
        if problems:
            raise ScenarioError("ranges", problems)
        return found

    def read_options(self, options: Mapping[str, Any]) -> tuple[int | None, Values]:
        """Return the day that a reset's options ask for, and what their other keys mean, as :meth:`read`.

        Raises:
            ScenarioError: an option is unknown or wrong; all of them.
        """
        day, others = options.get("day"), {key: value for key, value in options.items() if key != "day"}
        # what is no key of a scenario at all is an option that is not there, `day` being one of those that are
        unknown = [key for key in others if str(key).partition(".")[0] not in type(self._scenario).model_fields]
        problems: list[Problem | str] = [describe_unknown("option", key, ("day", *DRAWABLE)) for key in unknown]
        found, wrong = self._find({key: value for key, value in others.items() if key not in unknown})
        problems += wrong
        if day is not None and (isinstance(day, bool) or not isinstance(day, int | np.integer)):
            problems.append(f"day {day!r} is not a whole number")
        if problems:
            raise ScenarioError("options", problems)
        return None if day is None else int(day), found

    def _find(self, given: Mapping[str, Any]) -> tuple[Values, list[Problem]]:
        """Return what keys mean, and what is wrong with any."""
        found, problems = Values(), list[Problem]()
        for key, value in _flatten(given):
            if is_distribution(value) or isinstance(value, Distribution | Mapping):
                drawn, wrong = find_ranges(self._scenario, {key: value})
                problems += wrong
                found |= drawn
                continue
            paths = resolve(self._scenario, key)
            if isinstance(paths, Problem):
                problems.append(paths)
                continue
            for path in paths:
                plain = value.item() if isinstance(value, np.generic) else value
                wrong_values = find_value_problems(self._scenario, path, plain, alone=True)
                problems += [Problem("bad-value", ".".join(path), line) for line in wrong_values]
                found[path] = plain
        return found, problems

    def draw(self, rngs: Sequence[np.random.Generator], chosen: Mapping[Path, Any]) -> list[Values]:
        """Return the numbers of an episode for each generator, those that are not the scenario's.

        Args:
            rngs: One number is taken from each, where anything is drawn.
            chosen: What these episodes have or draw by instead, as of :meth:`read`.
        """
        by = {**self._now, **chosen}
        random = any(isinstance(each, Distribution) for each in (*self._now.values(), *chosen.values()))
        seeds = [int(rng.integers(1 << 62)) for rng in rngs] if random else [0] * len(rngs)
        return [{path: self._draw_one(seed, path, each) for path, each in by.items()} for seed in seeds]

    def _draw_one(self, seed: int, path: Path, by: Any) -> Any:
        if not isinstance(by, Distribution):
            return by
        stream = np.random.default_rng([seed, zlib.crc32(".".join(path).encode())])
        return by.draw(float(stream.random()), whole=is_whole(self._scenario, path))


def tell(values: Mapping[Path, Any]) -> dict[str, float]:
    """Return drawn numbers as infos have them, ``drawn.`` before the key."""
    return {f"drawn.{'.'.join(path)}": float(value) for path, value in values.items()}


def as_options(values: Mapping[Path, Any] | None) -> dict[str, Any]:
    """Return drawn numbers as the options of a reset that is to have the same."""
    return {".".join(path): value for path, value in (values or {}).items()}


def _flatten(given: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield keys with dots and what stands there; what is meant as a distribution is looked into no further."""
    for key, value in given.items():
        name = f"{before}{key}"
        leaf = is_distribution(value) or not isinstance(value, Mapping) or not value or name in DRAWABLE
        if leaf or set(value) & set(Distribution.model_fields):
            yield name, value
        else:
            yield from _flatten(value, f"{name}.")
