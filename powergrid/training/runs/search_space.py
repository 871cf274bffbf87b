"""What tuning varies: for each algorithm a space of Ray Tune's domains, and draws from it; it trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import yaml
from ray import tune as ray_tune
from ray.tune.search.sample import Categorical, Domain, Float, Integer

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.training.runs.settings import (
    ALIASES,
    fields_of,
    make_settings,
    resolve_settings,
)

DIGITS = 3  # of a drawn number, so that what is printed is what was trained with

# Ranges are those within which runs of the shipped scenarios learn at all; batches divide a day of 96 steps.
_ON_POLICY: dict[str, Domain] = {
    "lr": ray_tune.loguniform(1e-4, 3e-3),
    "entropy_coeff": ray_tune.loguniform(3e-4, 3e-2),
    "gamma": ray_tune.choice([0.95, 0.98, 0.99, 0.995]),
    "lambda_": ray_tune.choice([0.9, 0.95, 0.98, 1.0]),
    "minibatch_size": ray_tune.choice([192, 384, 768, 1536]),
    "num_epochs": ray_tune.choice([6, 12, 20]),
    "clip_param": ray_tune.choice([0.1, 0.2, 0.3]),
}
_OFF_POLICY: dict[str, Domain] = {
    "lr": ray_tune.loguniform(1e-4, 1e-3),
    "gamma": ray_tune.choice([0.95, 0.98, 0.99, 0.995]),
    "train_batch_size": ray_tune.choice([128, 256, 512]),
    "updates_per_step": ray_tune.choice([0.125, 0.25, 0.5]),
}
#: What each algorithm is tuned over where nothing else is asked for.
SPACES: dict[str, dict[str, Domain]] = {
    "ppo": _ON_POLICY,
    "mappo": _ON_POLICY,
    "sac": {
        **_OFF_POLICY,
        "tau": ray_tune.choice([0.002, 0.005, 0.01, 0.02]),
        "initial_alpha": ray_tune.loguniform(0.01, 1.0),
    },
    "dqn": {
        **_OFF_POLICY,
        "target_network_update_freq": ray_tune.choice([500, 1000, 2000, 4000]),
        "epsilon_steps": ray_tune.choice([20_000, 50_000, 100_000]),
    },
}


def search_space(
    algorithm: str, fixed: Mapping[str, Any] | None = None, search: Sequence[str] = ()
) -> dict[str, Domain]:
    """Return the settings to vary and the domain of each.

    Args:
        algorithm: ``"ppo"``, ``"mappo"``, ``"sac"`` or ``"dqn"``.
        fixed: Settings that every trial has; choices of the space that do not go with them are left out.
        search: What to vary instead of the whole space: ``"lr"``, ``"lr=1e-4..1e-2"`` or ``"gamma=[0.98, 0.99]"``.

    Raises:
        ScenarioError: The algorithm or a setting is unknown, a range is none, or a value in it is refused.
    """
    kept = {ALIASES.get(name, name): value for name, value in (fixed or {}).items()}
    make_settings(algorithm, kept)

    def refusals(name: str, value: Any) -> list[str]:
        return resolve_settings(algorithm, {**kept, name: value})[1]

    space: dict[str, Domain] = {}
    problems: list[str] = []
    asked: list[Any] = list(search) if isinstance(search, list | tuple) else [search]
    for name, domain in () if asked else SPACES[algorithm].items():
        if isinstance(domain, Categorical):
            domain = ray_tune.choice([value for value in domain.categories if not refusals(name, value)])
        if name not in kept and len(limits(domain)) > 1:
            space[name] = domain
    for item in asked:
        try:
            name, domain = _read_item(algorithm, item)
        except ValueError as error:
            problems.append(str(error))
            continue
        if name in kept or name in space:
            problems.append(f"{name!r} is {'fixed by a setting' if name in kept else 'given twice'}; give it once")
        problems += [why for value in limits(domain) for why in refusals(name, value)]
        space[name] = domain
    if problems:
        raise ScenarioError("--search", problems)
    return space


def draw_trials(
    space: Mapping[str, Domain], samples: int, seed: int, first: Mapping[str, Any]
) -> list[dict[str, Any]]:  # fmt: skip
    """Return what is varied in each trial: first the settings as they are, then what is drawn."""
    # Drawn here and not by Tune's own generator: that one draws a trial when it starts, and the table of trials
    # shows all of them from the beginning.
    random = np.random.default_rng(seed)

    def draw(domain: Domain) -> Any:
        value = domain.sample(random_state=random)
        if not isinstance(domain, Float):
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), domain.lower), domain.upper)  # rounding may step over a bound

    drawn = [{name: draw(domain) for name, domain in space.items()} for _ in range(samples - 1)]
    return [{name: first[name] for name in space}, *drawn]


def limits(domain: Domain) -> list[Any]:
    """Return the values of a choice, or the lowest and the highest number of a range."""
    if isinstance(domain, Integer):
        return [domain.lower, domain.upper - 1]  # Tune's integers end before their upper bound, its floats at it
    assert isinstance(domain, Float | Categorical)
    return [domain.lower, domain.upper] if isinstance(domain, Float) else list(domain.categories)


def describe_domain(domain: Domain) -> str:
    """Say in words what a setting is drawn from."""
    if isinstance(domain, Categorical):
        return ", ".join(str(value) for value in domain.categories)
    low, high = limits(domain)
    return f"{low:g} to {high:g}{', logarithmic' if _is_logarithmic(domain) else ''}"


def _is_logarithmic(domain: Domain) -> bool:
    return str(domain.get_sampler()) == "LogUniform"  # the samplers' classes are private


def _read_item(algorithm: str, item: str) -> tuple[str, Domain]:
    """Read one ``NAME``, ``NAME=LOW..HIGH`` or ``NAME=[A, B]``; a ValueError says what is wrong with it."""
    if not isinstance(item, str):
        raise ValueError(f"a {type(item).__name__} is no text such as NAME, NAME=LOW..HIGH or NAME=[A, B]")
    given, sign, text = (part.strip() for part in item.partition("="))
    name, fields = ALIASES.get(given, given), fields_of(algorithm)
    if name not in fields:
        raise ValueError(describe_unknown("setting", given, [*SPACES[algorithm], *fields]))
    own = SPACES[algorithm].get(name)
    if not sign:
        if own is None:
            raise ValueError(f"{name!r} has no range of its own; give one, {name}=LOW..HIGH or {name}=[A, B]")
        return name, own
    with suppress(ValueError, yaml.YAMLError):
        low, dots, high = text.partition("..")
        if not dots:
            values = yaml.safe_load(text)
            if isinstance(values, list) and len(values) > 1:
                return name, ray_tune.choice([_as_number(value) for value in values])
        elif float(low) < float(high):
            if not set(".e") & set(low + high):  # both are whole numbers
                return name, ray_tune.randint(int(low), int(high) + 1)
            if own is None or isinstance(own, Categorical) or not _is_logarithmic(own):
                return name, ray_tune.uniform(float(low), float(high))
            if float(low) > 0:
                return name, ray_tune.loguniform(float(low), float(high))
    raise ValueError(f"{item!r} is no range; give {name}=LOW..HIGH, two numbers, or {name}=[A, B], a list")


def _as_number(value: Any) -> Any:
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value  # 1e-4 is a string to YAML 1.1
    return value
