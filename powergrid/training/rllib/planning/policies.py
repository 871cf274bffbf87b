"""Who has which policy: by name, by mapping, or shared by agents with equal spaces; it checks no spaces."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.training.rllib.planning.facts import EnvFacts

logger = logging.getLogger("powergrid.training")

Policies = str | Mapping[str, str]
SHARED_POLICY = "grid_policy"


class AgentMapping:
    """Map each agent to its policy; RLlib's ``policy_mapping_fn``, and unlike a lambda it pickles by name."""

    def __init__(self, policy_of: Mapping[str, str]) -> None:
        self.policy_of = dict(policy_of)

    def __call__(self, agent_id: Any, episode: Any = None, **kwargs: Any) -> str:
        """Return an agent's policy."""
        try:
            return self.policy_of[agent_id]
        except KeyError:
            raise ScenarioError("policy mapping", [describe_unknown("agent", agent_id, self.policy_of)]) from None


def multi_agent_arguments(facts: EnvFacts, policy_of: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of RLlib's ``multi_agent``; without any, it fails on an environment of several agents."""
    mates = {name: agent for agent, name in reversed(list(policy_of.items()))}
    return {
        "policies": {
            name: (None, facts.observation_spaces[agent], facts.action_spaces[agent], {})
            for name, agent in mates.items()
        },
        "policy_mapping_fn": AgentMapping(policy_of),
    }


def _share_policies(facts: EnvFacts) -> dict[str, str]:
    """Return agents with equal spaces one policy: ``grid_policy`` where all are equal, else ``grid_policy_1`` and on.

    Where there are several, a warning says who shares which.
    """
    spaces = {agent: (facts.observation_spaces[agent], facts.action_spaces[agent]) for agent in facts.agents}
    groups: list[list[str]] = []
    for agent in facts.agents:
        mates = next((group for group in groups if spaces[group[0]] == spaces[agent]), None)
        if mates is None:
            mates = []  # in a list of groups: spaces cannot be a dict's keys
            groups.append(mates)
        mates.append(agent)
    if len(groups) == 1:
        return dict.fromkeys(facts.agents, SHARED_POLICY)
    names = {f"{SHARED_POLICY}_{number}": group for number, group in enumerate(groups, start=1)}
    told = "; ".join(f"{name} for {', '.join(group)}" for name, group in names.items())
    logger.warning(
        "Not all agents have equal spaces, so those that have share a policy: %s. For one policy: share_unequal=true.",
        told,
    )
    policy_of = {agent: name for name, group in names.items() for agent in group}
    return {agent: policy_of[agent] for agent in facts.agents}


def policies_of(policies: Policies, facts: EnvFacts) -> dict[str, str]:
    """Return each agent of an environment its policy's name; see :func:`policy_names` and :func:`_share_policies`."""
    if isinstance(policies, str) and policies == "shared":
        return _share_policies(facts)
    return policy_names(policies, facts.agents)


def policy_names(policies: Policies, agents: tuple[str, ...]) -> dict[str, str]:
    """Return each agent its policy's name.

    Args:
        policies: ``"shared"`` (all agents use ``grid_policy``), ``"independent"`` (agent ``MG1``
            uses ``MG1_policy``) or a mapping from agent to policy name.
        agents: The environment's agents.

    Raises:
        ScenarioError: An agent has no policy, or the mapping names an agent that is not there.
    """
    if isinstance(policies, str) and policies == "shared":
        return dict.fromkeys(agents, SHARED_POLICY)
    if isinstance(policies, str) and policies == "independent":
        return {agent: f"{agent}_policy" for agent in agents}
    if not isinstance(policies, Mapping):
        raise ScenarioError("policies", [describe_unknown("choice", policies, ["shared", "independent"])])
    problems = [describe_unknown("agent", agent, agents) for agent in policies if agent not in agents]
    there = sorted({name for name in policies.values() if isinstance(name, str)})
    for agent in agents:
        name = policies.get(agent)
        if name is None:
            problems.append(f"agent {agent!r} has no policy; map it to one of {there}")
        elif not isinstance(name, str) or not name or "/" in name or name.startswith("__"):
            problems.append(f"agent {agent!r}: {name!r} is no policy name; use letters, digits and '_'")
    if problems:
        raise ScenarioError("policies", problems)
    return {agent: policies[agent] for agent in agents}
