"""What training must know of an environment: its agents, their spaces, who shares a policy; it trains nothing."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np

from powergrid.envs.observations.graph import GraphForm
from powergrid.errors import ScenarioError, describe_unknown
from powergrid.scenario import as_env_config, pack_env_config, scenario_from_config
from powergrid.training.policies.positions import find_proposed, find_standing
from powergrid.training.policies.spaces import AgentFit, box_size, fit_policy, flattened, plain_fit, position_counts
from powergrid.training.rllib.curriculum import Curriculum
from powergrid.training.runs.settings import DqnSettings, SacSettings, TrainSettings

logger = logging.getLogger("powergrid.training")

EnvClass = Callable[[dict[str, Any]], Any]
Policies = str | Mapping[str, str]
SHARED_POLICY = "grid_policy"
SEVERAL_FEEDERS = "policies of a scenario with several feeders cannot imitate (demonstrations); leave one out"


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
    from powergrid.training.rllib.days import weigh_days

    if env is not default_env():
        raise ScenarioError("training settings", [f"hard_days: {env} is not powergrid's own environment; leave it out"])
    scenario = scenario_from_config(env_config)
    if scenario.feeders:
        told = "hard_days: days are hard by feeder, and the scenario has several; set it to 0"
        raise ScenarioError("training settings", [told])
    if scenario.day_weights:
        return dict(env_config)
    return {**env_config, "day_weights": weigh_days(scenario, settings.hard_days)}


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
    problems = fit_problems(facts, policy_of, settings) + action_problems(facts, settings)
    problems += limit_problems(facts, settings)
    if settings.proposals is not None and not any(facts.proposed.values()):
        problems.append("proposals: agents decide positions alone, and only numbers are added; leave it out")
    elif settings.proposals_coeff and not any(facts.proposed.values()):
        problems.append(
            "proposals_coeff: nothing is proposed that a policy could add to; set proposals, or leave it out"
        )
    if settings.curriculum is not None:
        problems += Curriculum(settings.curriculum).find_problems(facts.scenario)
    if settings.network == "graph" and set(facts.graphs) != set(facts.agents):
        problems.append("network 'graph': agents observe no graph; set observations: graph in the scenario")
    if not problems:
        fitted, _ = fit_agents(facts, policy_of, settings)
        problems = space_problems(fitted, policy_of) + filter_problems(fitted, settings)
    if settings.demonstrations is not None and getattr(facts.scenario, "feeders", None):
        problems.append(SEVERAL_FEEDERS)
    return policy_of, problems


def limit_problems(facts: EnvFacts, settings: TrainSettings) -> list[str]:
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


def share_policies(facts: EnvFacts) -> dict[str, str]:
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
    """Return each agent of an environment its policy's name; see :func:`policy_names` and :func:`share_policies`."""
    if isinstance(policies, str) and policies == "shared":
        return share_policies(facts)
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


def filter_problems(facts: EnvFacts, settings: TrainSettings) -> list[str]:
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


def fit_problems(facts: EnvFacts, policy_of: Mapping[str, str], settings: TrainSettings) -> list[str]:
    """Say what cannot be padded or scaled: a shared policy of unequal agents needs flat observations and bounds."""
    problems: list[str] = []
    for agent in (agent for mates in _unequal(facts, policy_of, settings) for agent in mates):
        seen, space = facts.observation_spaces[agent], facts.action_spaces[agent]
        if not isinstance(seen, gym.spaces.Box) or len(seen.shape or ()) != 1:
            problems.append(f"agent {agent!r}: share_unequal pads 1-D Boxes, not the observation space {seen}")
        if not _bounded(space):
            problems.append(f"agent {agent!r}: share_unequal needs bounds of every action; {space} has none")
    return problems


def _unequal(facts: EnvFacts, policy_of: Mapping[str, str], settings: TrainSettings) -> list[list[str]]:
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
    for mates in _unequal(facts, policy_of, settings):
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


def _bounded(space: gym.Space[Any]) -> bool:
    if isinstance(space, gym.spaces.Dict):
        return all(_bounded(part) for part in space.spaces.values())
    return not isinstance(space, gym.spaces.Box) or bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())


def available_cpus() -> int:
    """Count the CPUs that Ray has, or will have once it starts."""
    import ray

    if ray.is_initialized():
        return max(1, int(ray.cluster_resources().get("CPU", 1)))
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def fit_env_runners(wanted: int | None, cpus: int, reserved: int = 0) -> tuple[int, str | None]:
    """Choose the number of sampling processes that the CPUs can run.

    RLlib waits for ever, without a message, for a process that finds no free CPU.

    Args:
        wanted: The number asked for, None for any.
        cpus: What Ray has.
        reserved: CPUs that must be left, such as the one that a trial of Tune takes for itself.

    Returns:
        The number, and a sentence where it is less than what was wanted.
    """
    if wanted is None:  # beside a learner on two CPUs, processes gained a tenth and cost 10 s at the start
        return (0 if cpus <= 2 else min(cpus - 1, 8)), None
    fitting = max(cpus - reserved, 0)
    if wanted <= fitting:
        return wanted, None
    beside = f" beside {reserved} for Tune" if reserved else ""
    return fitting, f"{wanted} env runners need {wanted} CPUs{beside} and Ray has {cpus}: training with {fitting}."
