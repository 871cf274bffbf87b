"""What does not go of an environment, its policies and settings together, all of it before anything is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.training.policies.spaces import box_size, position_counts
from powergrid.training.rllib.planning.facts import EnvFacts
from powergrid.training.rllib.planning.fitting import fit_agents, unequal_mates
from powergrid.training.rllib.planning.policies import Policies, policies_of, policy_names
from powergrid.training.rllib.sampling.curriculum import Curriculum
from powergrid.training.runs.settings import DqnSettings, SacSettings, TrainSettings

SEVERAL_FEEDERS = "policies of a scenario with several feeders cannot imitate (demonstrations); leave one out"


def plan_policies(facts: EnvFacts, policies: Policies, settings: TrainSettings) -> tuple[dict[str, str], list[str]]:
    """Return each agent its policy, and say what does not go.

    Returns:
        The policy of each agent, and one sentence for each problem.
    """
    try:
        share = isinstance(policies, str) and policies == "shared" and settings.share_unequal
        policy_of = policy_names("shared", facts.agents) if share else policies_of(policies, facts)
    except ScenarioError as error:
        return {}, list(error.problems)
    problems = _fit_problems(facts, policy_of, settings) + action_problems(facts, settings)
    problems += _limit_problems(facts, settings)
    if settings.proposals is not None and not any(facts.proposed.values()):
        problems.append("proposals: agents decide positions alone, and only numbers are added; leave it out")
    elif not any(facts.proposed.values()):
        idle = [name for name in ("proposals_coeff", "proposals_deadband") if getattr(settings, name)]
        problems += [
            f"{name}: nothing is proposed that a policy could add to; set proposals, or leave it out" for name in idle
        ]
    if settings.curriculum is not None:
        problems += Curriculum(settings.curriculum).find_problems(facts.scenario)
    if settings.network == "graph" and set(facts.graphs) != set(facts.agents):
        problems.append("network 'graph': agents observe no graph; set observations: graph in the scenario")
    if not problems:
        fitted, _ = fit_agents(facts, policy_of, settings)
        problems = space_problems(fitted, policy_of) + _filter_problems(fitted, settings)
    if settings.demonstrations is not None and getattr(facts.scenario, "feeders", None):
        problems.append(SEVERAL_FEEDERS)
    return policy_of, problems


def _limit_problems(facts: EnvFacts, settings: TrainSettings) -> list[str]:
    """Say why costs that are to be kept to limits are not told; an environment of one's own tells what it likes."""
    if settings.cost_limit is None or not hasattr(facts.scenario, "costs"):
        return []
    named = list(settings.cost_limit) if isinstance(settings.cost_limit, dict) else []
    if facts.scenario.costs is None:
        line = f"costs: {{of: [{', '.join(named or ['node_hours'])}], in_reward: false}}"
        return [f"cost_limit: the scenario tells no costs; add `{line}` to it"]
    problems = [describe_unknown("cost", name, facts.scenario.costs.of) for name in named]
    problems = [line for name, line in zip(named, problems, strict=True) if name not in facts.scenario.costs.of]
    if facts.scenario.infos == "none":
        problems.append("infos: none leaves costs out; `infos: terms` has them and little else")
    return [f"cost_limit: {line}" for line in problems]


def space_problems(facts: EnvFacts, policy_of: Mapping[str, str]) -> list[str]:
    """Say where agents with unequal spaces share a policy, and which spaces PPO cannot learn on."""
    problems: list[str] = []
    first: dict[str, str] = {}
    for agent in facts.agents:
        mate = first.setdefault(policy_of[agent], agent)
        for kind, spaces in (("observation", facts.observation_spaces), ("action", facts.action_spaces)):
            if spaces[agent] != spaces[mate]:
                problems.append(
                    f"policy {policy_of[agent]!r} is shared by agents with unequal {kind} spaces: "
                    f"{mate!r} has {spaces[mate]}, {agent!r} has {spaces[agent]}; "
                    "give them policies of their own (policies='independent') or equal spaces"
                )
        observation = facts.observation_spaces[agent]
        # RLlib has no default encoder of a Dict, and says so where the processes start
        if not isinstance(observation, gym.spaces.Box) or len(observation.shape or ()) != 1:
            problems.append(f"agent {agent!r}: observation space {observation} is not a 1-D Box")
        problems.extend(f"agent {agent!r}: {why}" for why in _action_problems(facts.action_spaces[agent]))
    return problems


def _filter_problems(facts: EnvFacts, settings: TrainSettings) -> list[str]:
    """Say where RLlib's filter cannot serve the agents: it asserts, in a worker, that all observe the same width."""
    shapes = {agent: space.shape for agent, space in facts.observation_spaces.items()}
    if settings.observation_filter == "none" or len(set(shapes.values())) == 1:
        return []
    return [f"observation_filter 'mean_std' needs observations of one shape for all agents; they have {shapes}"]


def _action_problems(space: gym.Space[Any]) -> list[str]:
    if isinstance(space, gym.spaces.Dict):
        return [why for part in space.spaces.values() for why in _action_problems(part)]
    if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return []
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return []
    # RLlib's catalog has no distribution for the rest, such as MultiBinary and a Box of whole numbers
    return [f"action space {space} is not supported; use a float Box, Discrete, MultiDiscrete or a Dict of these"]


def action_problems(facts: EnvFacts, settings: TrainSettings) -> list[str]:
    """Say which agents' actions an algorithm cannot learn, and what can."""
    problems: list[str] = []
    for agent in facts.agents:
        space = facts.action_spaces[agent]
        counts, boxes = position_counts(space), box_size(space)
        if isinstance(settings, SacSettings) and (counts or not boxes):
            problems.append(
                f"agent {agent!r}: sac learns continuous actions alone, not {space}; use ppo or mappo, or dqn where "
                "there are only positions"
            )
        elif isinstance(settings, DqnSettings) and (boxes or not counts):
            problems.append(
                f"agent {agent!r}: dqn learns positions alone, not {space}; use sac, ppo or mappo, or give storage "
                "`levels`"
            )
        elif isinstance(settings, DqnSettings) and math.prod(counts) > settings.max_flat_actions:
            problems.append(
                f"agent {agent!r}: dqn gives each combination of positions a number, and {' x '.join(map(str, counts))}"
                f" = {math.prod(counts):,} is more than max_flat_actions = {settings.max_flat_actions:,}; give each "
                "device an agent (agents: per_device), or use ppo or mappo"
            )
    return problems


def _fit_problems(facts: EnvFacts, policy_of: Mapping[str, str], settings: TrainSettings) -> list[str]:
    """Say what cannot be padded or scaled: a shared policy of unequal agents needs flat observations and bounds."""
    problems: list[str] = []
    for agent in (agent for mates in unequal_mates(facts, policy_of, settings) for agent in mates):
        seen, space = facts.observation_spaces[agent], facts.action_spaces[agent]
        if not isinstance(seen, gym.spaces.Box) or len(seen.shape or ()) != 1:
            problems.append(f"agent {agent!r}: share_unequal pads 1-D Boxes, not the observation space {seen}")
        if not _bounded(space):
            problems.append(f"agent {agent!r}: share_unequal needs bounds of every action; {space} has none")
    return problems


def _bounded(space: gym.Space[Any]) -> bool:
    if isinstance(space, gym.spaces.Dict):
        return all(_bounded(part) for part in space.spaces.values())
    return not isinstance(space, gym.spaces.Box) or bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
