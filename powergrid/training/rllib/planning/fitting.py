"""Spaces as policies need them: padded where unequal agents share one, flat and scaled where an algorithm asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from powergrid.training.policies.spaces import AgentFit, fit_policy, flattened, plain_fit
from powergrid.training.rllib.planning.facts import EnvFacts
from powergrid.training.runs.settings import DqnSettings, SacSettings, TrainSettings


def unequal_mates(facts: EnvFacts, policy_of: Mapping[str, str], settings: TrainSettings) -> list[list[str]]:
    """Group the agents that share a policy although their spaces differ, where that is asked for."""
    if not settings.share_unequal:
        return []
    groups: dict[str, list[str]] = {}
    for agent in facts.agents:
        groups.setdefault(policy_of[agent], []).append(agent)
    return [
        mates
        for mates in groups.values()
        if any(facts.observation_spaces[a] != facts.observation_spaces[mates[0]] for a in mates)
        or any(facts.action_spaces[a] != facts.action_spaces[mates[0]] for a in mates)
    ]


def fit_agents(
    facts: EnvFacts, policy_of: Mapping[str, str], settings: TrainSettings
) -> tuple[EnvFacts, dict[str, AgentFit]]:
    """Return the facts as the policies see them, padded where unequal agents share one, flat for DQN; and the fits."""
    widths = {agent: int(np.prod(facts.observation_spaces[agent].shape or ())) for agent in facts.agents}
    fits: dict[str, AgentFit] = {}
    for mates in unequal_mates(facts, policy_of, settings):
        fits |= fit_policy(mates, facts.action_spaces, widths)
    needed = [agent for agent in facts.agents if agent not in fits and _needs_fit(facts.action_spaces[agent], settings)]
    fits |= {agent: plain_fit(facts.action_spaces[agent], widths[agent]) for agent in needed}
    if isinstance(settings, DqnSettings):
        by_policy = {a: [fits[m] for m in fits if policy_of[m] == policy_of[a]] for a in fits}
        fits = {agent: flattened(fit, by_policy[agent]) for agent, fit in fits.items()}  # RLlib's takes one Discrete
    if not fits:
        return facts, {}
    seen = dict(facts.observation_spaces)
    for agent, fit in fits.items():
        seen[agent] = _observed(fit, [facts.observation_spaces[a] for a in fits if policy_of[a] == policy_of[agent]])
    actions = {**facts.action_spaces, **{agent: fit.action_space for agent, fit in fits.items()}}
    neutral = {
        agent: fits[agent].undo(action) if agent in fits else action for agent, action in facts.neutral_actions.items()
    }
    own: dict[str, Any] = {
        name: {agent: told for agent, told in getattr(facts, name).items() if agent not in fits}
        for name in ("standing", "proposed")
    }
    facts = replace(facts, observation_spaces=seen, action_spaces=actions, neutral_actions=neutral, **own)
    return facts, fits


def _needs_fit(space: gym.Space[Any], settings: TrainSettings) -> bool:
    """Whether an agent that shares with its equals needs its actions translated."""
    if isinstance(settings, DqnSettings):
        return not isinstance(space, gym.spaces.Discrete) or bool(space.start)
    if isinstance(settings, SacSettings):
        return not isinstance(space, gym.spaces.Box) or not (
            len(space.shape) == 1 and bool(np.all(space.low == -1.0) and np.all(space.high == 1.0))
        )
    return False


def _observed(fit: AgentFit, spaces: list[gym.Space[Any]]) -> gym.Space[Any]:
    """Return the observation space of a fit: the widest bounds of those that share it, then the one-hot."""
    if not fit.places:
        return spaces[0]
    low, high = np.zeros(fit.width, np.float32), np.zeros(fit.width, np.float32)
    for space in spaces:
        box: Any = space
        low[: len(box.low)] = np.minimum(low[: len(box.low)], box.low)
        high[: len(box.high)] = np.maximum(high[: len(box.high)], box.high)
    who = np.zeros(fit.places, np.float32)
    return gym.spaces.Box(np.concatenate([low, who]), np.concatenate([high, who + 1.0]), dtype=np.float32)
