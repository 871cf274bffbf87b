"""Which environment is trained, and what its configuration says for training; it builds none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from powergrid.errors import ScenarioError
from powergrid.scenario import pack_env_config, scenario_from_config
from powergrid.training.rllib.sampling.hard_days import weigh_days
from powergrid.training.runs.settings import TrainSettings

EnvClass = Callable[[dict[str, Any]], Any]


def default_env() -> EnvClass:
    """Return the environment that is trained where none is named."""
    from powergrid.envs import NetworkedGridEnv

    env: EnvClass = NetworkedGridEnv
    return env


def travelling_config(env: Any, env_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the env_config for processes that may be on other machines; only powergrid's environments know bundles.

    Raises:
        ScenarioError: A feeder refers to files that do not travel.
    """
    if not (isinstance(env, type) and issubclass(env, default_env())):  # type: ignore[arg-type]
        return dict(env_config)
    return pack_env_config(env_config)


def show_proposals(env: EnvClass, env_config: Mapping[str, Any], settings: TrainSettings) -> dict[str, Any]:
    """Return an env_config by which agents see whose setpoints their policies add to, as the settings have it.

    Raises:
        ScenarioError: The environment is not powergrid's own.
    """
    if settings.proposals is None:
        return dict(env_config)
    if env is not default_env():
        raise ScenarioError("training settings", [f"proposals: {env} is not powergrid's own environment; leave it out"])
    return {**env_config, "proposals": settings.proposals}


def draw_hard_days(env: EnvClass, env_config: Mapping[str, Any], settings: TrainSettings) -> dict[str, Any]:
    """Return an env_config by which episodes draw days as the settings have it; its own weights of days stay.

    Raises:
        ScenarioError: The environment is not powergrid's own, or has several feeders.
    """
    if not settings.hard_days:
        return dict(env_config)
    if env is not default_env():
        raise ScenarioError("training settings", [f"hard_days: {env} is not powergrid's own environment; leave it out"])
    scenario = scenario_from_config(env_config)
    if scenario.feeders:
        told = "hard_days: days are hard by feeder, and the scenario has several; set it to 0"
        raise ScenarioError("training settings", [told])
    if scenario.day_weights:
        return dict(env_config)
    return {**env_config, "day_weights": weigh_days(scenario, settings.hard_days)}
