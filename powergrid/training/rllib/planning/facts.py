"""What training must know of an environment, read from one that is built for that; it decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from powergrid.envs.observations.graph import GraphForm
from powergrid.scenario import as_env_config
from powergrid.training.policies.positions import find_proposed, find_standing
from powergrid.training.policies.spaces import position_counts
from powergrid.training.rllib.planning.env_config import EnvClass


@dataclass(frozen=True)
class EnvFacts:
    """Tell what training must know of an environment."""

    agents: tuple[str, ...]
    observation_spaces: Mapping[str, gym.Space[Any]]
    action_spaces: Mapping[str, gym.Space[Any]]
    scenario: Any
    neutral_actions: Mapping[str, Any] = field(default_factory=dict)
    #: For each agent, of each of its positions the entry of its observation that tells where the device stands, or -1.
    standing: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: For each agent, of each of its continuous actions the entry of its observation that tells what is proposed.
    proposed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: How the graph lies in what each agent observes, where it observes one.
    graphs: Mapping[str, GraphForm] = field(default_factory=dict)


def probe_env(env: EnvClass, env_config: Mapping[str, Any], *, step: bool = False) -> EnvFacts:
    """Build the environment once, read its agents and spaces, and close it.

    Args:
        env: The environment's class.
        env_config: Its configuration.
        step: Also take one random step, so that an environment that cannot step says so here
            and not in a worker's log.
    """
    instance = env(as_env_config(env_config))
    try:
        neutral: Mapping[str, Any] = {}
        standing, proposed = dict[str, tuple[int, ...]](), dict[str, tuple[int, ...]]()
        if step or hasattr(instance, "neutral_actions"):
            seen, _ = instance.reset(seed=0)
        if hasattr(instance, "neutral_actions"):
            neutral = instance.neutral_actions()  # now, before anything has moved
            if hasattr(instance, "describe"):
                standing = _find_standing(instance, seen, neutral)
        graphs, scenario = {}, getattr(instance, "scenario", None)
        if getattr(scenario, "proposals", None) is not None:
            proposed = _find_proposed(instance)
        if getattr(scenario, "observations", None) == "graph":
            graphs = {agent: form for agent, (_, form) in instance.describe().graphs.items()}
        if step:
            instance.step({agent: instance.action_spaces[agent].sample() for agent in instance.agents})
        return EnvFacts(
            agents=tuple(instance.possible_agents),
            observation_spaces=dict(instance.observation_spaces),
            action_spaces=dict(instance.action_spaces),
            scenario=scenario,
            neutral_actions=neutral,
            standing=standing,
            proposed=proposed,
            graphs=graphs,
        )
    finally:
        instance.close()


def _find_standing(env: Any, seen: Mapping[str, Any], neutral: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return where each agent sees its devices stand; nothing of agents whose positions cannot be told apart."""
    tables = env.describe()
    found: dict[str, tuple[int, ...]] = {}
    for agent, space in env.action_spaces.items():
        counts = position_counts(space)
        if not counts or agent not in neutral or isinstance(space, gym.spaces.Discrete):
            continue
        if not isinstance(env.observation_spaces[agent], gym.spaces.Box):  # refused later, by its name
            continue
        actions, observations = (rows[rows["agent"] == agent] for rows in (tables.actions, tables.observations))
        discrete = actions[actions["part"] == "discrete"]
        found[agent] = find_standing(
            dict(zip(discrete["position"], discrete["name"], strict=True)),
            dict(zip(observations["name"], observations["position"], strict=True)),
            np.asarray(seen[agent]),
            np.ravel(neutral[agent]["discrete"] if isinstance(space, gym.spaces.Dict) else neutral[agent]),
            counts,
        )
    return found


def _find_proposed(env: Any) -> dict[str, tuple[int, ...]]:
    """Return where each agent sees what rules propose for its continuous actions."""
    tables, found = env.describe(), dict[str, tuple[int, ...]]()
    for agent in env.action_spaces:
        actions, observations = (rows[rows["agent"] == agent] for rows in (tables.actions, tables.observations))
        numbers = actions[actions["part"] == "continuous"]
        found[agent] = find_proposed(
            dict(zip(numbers["position"], numbers["name"], strict=True)),
            dict(zip(observations["name"], observations["position"], strict=True)),
        )
    return found
