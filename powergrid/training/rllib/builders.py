"""From an environment, an algorithm's name and settings to a checked RLlib configuration; it trains nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from powergrid.errors import ScenarioError
from powergrid.training.rllib.algorithm_settings import (
    DqnSettings,
    MappoSettings,
    OffPolicySettings,
    SacSettings,
    resolve_algorithm_settings,
)
from powergrid.training.rllib.config import (
    EnvClass,
    EnvFacts,
    Policies,
    as_env_config,
    build_config,
    default_env,
    filter_problems,
    module_spec,
    policies_of,
    policy_names,
    prepare_config,
    probe_env,
    space_problems,
)
from powergrid.training.rllib.fitting import AgentFit, box_size, fit_policy, flattened, plain_fit, position_counts
from powergrid.training.runs.settings import TrainSettings


@dataclass(frozen=True)
class FittedFacts:
    """What training sees of an environment: its facts after the agents' fits, and these."""

    facts: EnvFacts
    fits: Mapping[str, AgentFit]


def algorithm_config(
    env_config: str | Path | Mapping[str, Any],
    algorithm: str = "ppo",
    *,
    env: EnvClass | None = None,
    policies: Policies = "shared",
    **settings: Any,
) -> Any:
    """Return an RLlib configuration of an algorithm that is ready to build, for any scenario.

    Args:
        env_config: The environment's configuration, or a scenario's name or path.
        algorithm: ``"ppo"``, ``"mappo"`` (PPO with a critic that sees what all agents see), ``"sac"`` (continuous
            actions) or ``"dqn"`` (positions).
        env: The environment's class, :class:`powergrid.envs.NetworkedGridEnv` where none is given.
        policies: As in :func:`powergrid.training.ppo_config`.
        **settings: The algorithm's settings, under their own or their older RLlib names.

    Returns:
        RLlib's ``PPOConfig``, ``SACConfig`` or ``DQNConfig``, or a class derived from it.

    Raises:
        ScenarioError: With every unknown setting, refused value, missing policy and space that does not go.
    """
    resolved, problems = resolve_algorithm_settings(algorithm, settings)
    config = as_env_config(env_config)
    env = env or default_env()
    facts = probe_env(env, config)
    policy_of, wrong = plan_policies(facts, policies, resolved)
    if problems or wrong:
        raise ScenarioError(f"{algorithm}_config", problems + wrong)
    return build_algorithm_config(env, config, facts, policy_of, resolved)


def plan_policies(facts: EnvFacts, policies: Policies, settings: TrainSettings) -> tuple[dict[str, str], list[str]]:
    """Return each agent its policy, and say what does not go.

    Returns:
        The policy of each agent, and one sentence for each problem.
    """
    try:
        share = policies == "shared" and settings.share_unequal
        policy_of = policy_names("shared", facts.agents) if share else policies_of(policies, facts)
    except ScenarioError as error:
        return {}, list(error.problems)
    problems = fit_problems(facts, policy_of, settings) + action_problems(facts, settings)
    if not problems:
        fitted = fit_agents(facts, policy_of, settings).facts
        problems = space_problems(fitted, policy_of) + filter_problems(fitted, settings)
    return policy_of, problems


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


def fit_agents(facts: EnvFacts, policy_of: Mapping[str, str], settings: TrainSettings) -> FittedFacts:
    """Return the facts as the policies see them: padded where agents of unequal spaces share one, flat for DQN."""
    widths = {agent: int(np.prod(facts.observation_spaces[agent].shape or ())) for agent in facts.agents}
    fits: dict[str, AgentFit] = {}
    for mates in _unequal(facts, policy_of, settings):
        fits |= fit_policy(mates, facts.action_spaces, widths)
    needed = [agent for agent in facts.agents if agent not in fits and _needs_fit(facts.action_spaces[agent], settings)]
    fits |= {agent: plain_fit(facts.action_spaces[agent], widths[agent]) for agent in needed}
    if isinstance(settings, DqnSettings):
        by_policy = {a: [fits[m] for m in fits if policy_of[m] == policy_of[a]] for a in fits}
        fits = {agent: flattened(fit, by_policy[agent]) for agent, fit in fits.items()}
    if not fits:
        return FittedFacts(facts, {})
    seen = dict(facts.observation_spaces)
    for agent, fit in fits.items():
        seen[agent] = _observed(fit, [facts.observation_spaces[a] for a in fits if policy_of[a] == policy_of[agent]])
    actions = {**facts.action_spaces, **{agent: fit.action_space for agent, fit in fits.items()}}
    neutral = {
        agent: fits[agent].undo(action) if agent in fits else action for agent, action in facts.neutral_actions.items()
    }
    return FittedFacts(
        replace(facts, observation_spaces=seen, action_spaces=actions, neutral_actions=neutral), fits
    )  # fmt: skip


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


def build_algorithm_config(
    env: EnvClass,
    env_config: Mapping[str, Any],
    facts: EnvFacts,
    policy_of: Mapping[str, str],
    settings: TrainSettings,
) -> Any:
    """Put checked parts together into the configuration of the algorithm that the settings are of."""
    fitted = fit_agents(facts, policy_of, settings)
    facts = fitted.facts
    if fitted.fits:
        from powergrid.training.rllib.fitted_env import FittedEnv, fit_config

        env_config = fit_config(env, env_config, fitted.fits, facts.observation_spaces, facts.action_spaces)
        env = FittedEnv
    if isinstance(settings, OffPolicySettings):
        return _off_policy_config(env, env_config, facts, policy_of, settings)
    config: Any = build_config(env, env_config, facts, policy_of, settings)
    if isinstance(settings, MappoSettings):
        _centralise_critic(config, facts, policy_of, settings)
    return config


def _centralise_critic(
    config: Any, facts: EnvFacts, policy_of: Mapping[str, str], settings: MappoSettings
) -> None:  # fmt: skip
    """Turn the configuration of PPO into that of MAPPO."""
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

    from powergrid.training.rllib.mappo import CentralCriticModule, JoinAgents, joint_width

    widths = {agent: int(np.prod(facts.observation_spaces[agent].shape or ())) for agent in facts.agents}
    specs: dict[str, Any] = {}
    for agent in reversed(facts.agents):
        spec = module_spec(policy_of[agent], facts, policy_of, settings)
        spec.module_class = CentralCriticModule
        spec.model_config |= {
            "joint_width": joint_width(widths, agent),
            "critic_hiddens": list(settings.critic_hidden),
        }
        specs[policy_of[agent]] = spec
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    config.training(learner_connector=JoinAgents(facts.agents))


def _off_policy_config(
    env: EnvClass,
    env_config: Mapping[str, Any],
    facts: EnvFacts,
    policy_of: Mapping[str, str],
    settings: OffPolicySettings,
) -> Any:
    """Return the configuration of SAC or DQN."""
    from powergrid.training.rllib.offpolicy import ReplayDQNConfig, ReplaySACConfig

    config: Any = ReplaySACConfig() if isinstance(settings, SacSettings) else ReplayDQNConfig()
    prepare_config(config, env, env_config, facts, policy_of, settings)
    config.rl_module(
        model_config={
            "fcnet_hiddens": list(settings.hidden),
            "fcnet_activation": settings.activation,
            "head_fcnet_hiddens": [],
        }
    )
    config.replay(
        capacity=settings.buffer_capacity,
        learning_starts=settings.learning_starts,
        updates_per_step=settings.updates_per_step,
        store=settings.store_buffer,
    )
    config.reporting(
        min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=settings.steps_per_iteration
    )  # fmt: skip
    config.training(
        gamma=settings.gamma,
        train_batch_size_per_learner=settings.train_batch_size,
        n_step=settings.n_step,
        grad_clip=settings.grad_clip,
        num_steps_sampled_before_learning_starts=settings.learning_starts,
    )
    if isinstance(settings, SacSettings):
        config.training(
            lr=None,
            actor_lr=settings.lr,
            critic_lr=settings.lr,
            alpha_lr=settings.alpha_lr,
            twin_q=settings.twin_q,
            tau=settings.tau,
            initial_alpha=settings.initial_alpha,
            target_entropy=settings.target_entropy,
            target_network_update_freq=0,
        )
    elif isinstance(settings, DqnSettings):
        config.training(
            lr=settings.lr,
            double_q=settings.double_q,
            dueling=settings.dueling,
            epsilon=[(0, settings.epsilon_start), (settings.epsilon_steps, settings.epsilon_end)],
            target_network_update_freq=settings.target_network_update_freq,
        )
    return config
