"""From an environment and settings to a checked RLlib PPOConfig; it trains nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.scenario import pack_env_config
from powergrid.training.rllib.recovery import PROBE_S
from powergrid.training.runs.settings import TrainSettings

if TYPE_CHECKING:
    from powergrid.training.rllib.algorithm import PPOConfig

logger = logging.getLogger("powergrid.training")

EnvClass = Callable[[dict[str, Any]], Any]
Policies = str | Mapping[str, str]
SHARED_POLICY = "grid_policy"
#: Width of the bell that positions are first drawn from, in positions and as a part of the range.
_LEAST_WIDTH, _WIDTH = 0.6, 0.1


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


def as_env_config(scenario: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return the env_config of a scenario's name or path; a mapping is one already."""
    return dict(scenario) if isinstance(scenario, Mapping) else {"env_name": str(scenario)}


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


def probe_env(env: EnvClass, env_config: Mapping[str, Any], *, step: bool = False) -> EnvFacts:
    """Build the environment once, read its agents and spaces, and close it.

    Args:
        env: The environment's class.
        env_config: Its configuration.
        step: Also take one random step, so that an environment that cannot step says so here
            and not in a worker's log.
    """
    instance = env(dict(env_config))
    try:
        neutral: Mapping[str, Any] = {}
        if step or hasattr(instance, "neutral_actions"):
            instance.reset(seed=0)
        if hasattr(instance, "neutral_actions"):
            neutral = instance.neutral_actions()  # now, before anything has moved
        if step:
            instance.step({agent: instance.action_spaces[agent].sample() for agent in instance.agents})
        return EnvFacts(
            agents=tuple(instance.possible_agents),
            observation_spaces=dict(instance.observation_spaces),
            action_spaces=dict(instance.action_spaces),
            scenario=getattr(instance, "scenario", None),
            neutral_actions=neutral,
        )
    finally:
        instance.close()


def share_policies(facts: EnvFacts) -> dict[str, str]:
    """Return agents with equal spaces one policy: ``grid_policy`` where all are equal, else ``grid_policy_1`` and on.

    Where there are several, a warning says who shares which.
    """
    groups: list[list[str]] = []
    for agent in facts.agents:
        for group in groups:
            mate = group[0]
            if (
                facts.observation_spaces[agent] == facts.observation_spaces[mate]
                and facts.action_spaces[agent] == facts.action_spaces[mate]
            ):
                group.append(agent)
                break
        else:
            groups.append([agent])
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
    return share_policies(facts) if policies == "shared" else policy_names(policies, facts.agents)


def policy_names(policies: Policies, agents: tuple[str, ...]) -> dict[str, str]:
    """Return each agent its policy's name.

    Args:
        policies: ``"shared"`` (all agents use ``grid_policy``), ``"independent"`` (agent ``MG1``
            uses ``MG1_policy``) or a mapping from agent to policy name.
        agents: The environment's agents.

    Raises:
        ScenarioError: An agent has no policy, or the mapping names an agent that is not there.
    """
    if policies == "shared":
        return dict.fromkeys(agents, SHARED_POLICY)
    if policies == "independent":
        return {agent: f"{agent}_policy" for agent in agents}
    if isinstance(policies, str):
        raise ScenarioError("policies", [describe_unknown("choice", policies, ["shared", "independent"])])
    problems = [describe_unknown("agent", agent, agents) for agent in policies if agent not in agents]
    for agent in agents:
        name = policies.get(agent)
        if name is None:
            problems.append(f"agent {agent!r} has no policy; map it to one of {sorted(set(policies.values()))}")
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
    return [f"action space {space} is not supported; use a float Box, Discrete, MultiDiscrete or a Dict of these"]


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


def ppo_config(
    env_config: str | Path | Mapping[str, Any],
    *,
    env: EnvClass | None = None,
    policies: Policies = "shared",
    preset: str = "fast",
    **settings: Any,
) -> PPOConfig:
    """Return an RLlib ``PPOConfig`` that is ready to build, for any scenario.

    Args:
        env_config: The environment's configuration, or a scenario's name or path.
        env: The environment's class, :class:`powergrid.envs.NetworkedGridEnv` where none is given.
        policies: ``"shared"`` (one ``grid_policy``, or one for each group of agents with equal spaces),
            ``"independent"`` (``<agent>_policy``) or a mapping from agent to policy name.
        preset: What holds where no setting says otherwise: ``"fast"``, the defaults of :class:`TrainSettings`, or
            ``"page"``, the hyper-parameters long recommended on the Training page.
        **settings: Fields of :class:`TrainSettings`, under their own or their older RLlib names.

    Raises:
        ScenarioError: With every unknown setting, refused value, missing policy and unequal space.
    """
    from powergrid.training.rllib.builders import algorithm_config

    config: PPOConfig = algorithm_config(env_config, "ppo", env=env, policies=policies, preset=preset, **settings)
    return config


def build_config(
    env: EnvClass,
    env_config: Mapping[str, Any],
    facts: EnvFacts,
    policy_of: Mapping[str, str],
    settings: TrainSettings,
) -> PPOConfig:
    """Put checked parts together into a ``PPOConfig`` on RLlib's new API stack."""
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

    from powergrid.training.rllib.algorithm import PPOConfig

    config: Any = PPOConfig()
    prepare_config(config, env, env_config, facts, policy_of, settings)
    names = dict.fromkeys(reversed(list(policy_of.values())))
    specs = {name: module_spec(name, facts, policy_of, settings) for name in names}
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    if settings.learner == "grid":
        from powergrid.training.rllib.learner import GridPPOLearner

        config.learners(learner_class=GridPPOLearner)
    checked: PPOConfig = config.training(**_learning(settings))
    return checked


def prepare_config(
    config: Any,
    env: EnvClass,
    env_config: Mapping[str, Any],
    facts: EnvFacts,
    policy_of: Mapping[str, str],
    settings: TrainSettings,
) -> None:
    """Set what is the same for every algorithm: environment, policies, runners, fault tolerance, callbacks."""
    from powergrid.training.rllib.callbacks import GridMetricsCallback

    runners, warning = fit_env_runners(settings.num_env_runners, available_cpus())
    if warning:
        logger.warning(warning)
    mates = {name: agent for agent, name in reversed(list(policy_of.items()))}
    policies: dict[str, Any] = {
        name: (None, facts.observation_spaces[agent], facts.action_spaces[agent], {}) for name, agent in mates.items()
    }
    (
        config.multi_agent(policies=policies, policy_mapping_fn=AgentMapping(policy_of))
        .environment(
            env,
            env_config=dict(env_config),
            disable_env_checking=True,  # the check resets every env with seed 42
            normalize_actions=settings.normalize_actions,
            clip_actions=settings.clip_actions,
        )
        .framework("torch")
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=settings.num_envs_per_env_runner,
            rollout_fragment_length=settings.rollout_fragment_length,
            sample_timeout_s=settings.sample_timeout_s,
            **_env_runner(env, settings, facts.scenario),
            **({"env_to_module_connector": mean_std_filter} if settings.observation_filter == "mean_std" else {}),
        )
        .fault_tolerance(
            restart_failed_env_runners=True,
            restart_failed_sub_environments=True,
            delay_between_env_runner_restarts_s=0,
            env_runner_health_probe_timeout_s=PROBE_S,
        )
        .callbacks(GridMetricsCallback)
        .debugging(seed=settings.seed, log_level="ERROR")
    )


def mean_std_filter(env: Any = None, spaces: Any = None, device: Any = None) -> Any:
    """Return RLlib's connector that scales each agent's observations by their running mean and spread."""
    from ray.rllib.connectors.env_to_module import MeanStdFilter

    return MeanStdFilter(multi_agent=True)


def module_spec(name: str, facts: EnvFacts, policy_of: Mapping[str, str], settings: TrainSettings) -> Any:
    """Say what network a policy has and where it starts: part of the way to leaving its devices to themselves."""
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from powergrid.training.rllib.network import QuietStartModule

    agents = [agent for agent, policy in policy_of.items() if policy == name]
    box = all(isinstance(facts.action_spaces[agent], gym.spaces.Box) for agent in agents)
    model: dict[str, Any] = {
        "fcnet_hiddens": list(settings.hidden),
        "fcnet_activation": settings.activation,
        "free_log_std": settings.free_log_std and box,
        "vf_share_layers": False,
        "initial_log_std": settings.initial_log_std,
    }
    neutral = [facts.neutral_actions[agent] for agent in agents if agent in facts.neutral_actions]
    if neutral:
        model["initial_bias"] = initial_bias(facts.action_spaces[agents[0]], neutral, settings.initial_neutral).tolist()
    return RLModuleSpec(module_class=QuietStartModule, model_config=model)


def initial_bias(space: Any, neutral: Sequence[Any], share: float) -> NDArray[np.float64]:
    """Return what the last policy layer starts from so that devices are left nearly to themselves.

    Of a continuous action it is the mean, of a position the logits of a bell around the neutral one, a tenth of the
    range wide; both as ``share`` of the way from the middle, or from all positions alike.

    Args:
        space: The action space.
        neutral: The neutral action of each agent that shares the policy, in that space.
        share: 0 is no preference, 1 is neutral.

    Returns:
        Means and logits in the order of the space's parts, without the spreads, shape (n,).
    """
    if isinstance(space, gym.spaces.Dict):
        parts = [initial_bias(part, [each[name] for each in neutral], share) for name, part in space.spaces.items()]
        return np.concatenate(parts)
    if isinstance(space, gym.spaces.Box):
        return np.asarray(share * np.mean(neutral, axis=0), dtype=np.float64).ravel()
    sizes = [int(space.n)] if isinstance(space, gym.spaces.Discrete) else space.nvec.tolist()
    middle = np.mean(np.asarray(neutral, dtype=np.float64).reshape(len(neutral), -1), axis=0)
    logits = []
    for size, position in zip(sizes, middle.tolist(), strict=True):
        width = max(_LEAST_WIDTH, _WIDTH * size)
        logits.append(-share * (np.arange(size) - position) ** 2 / (2.0 * width**2))
    return np.concatenate(logits)


def _env_runner(env: EnvClass, settings: TrainSettings, scenario: Any) -> dict[str, Any]:
    """Return the argument of ``PPOConfig.env_runners`` that chooses the runner."""
    if settings.env_runner == "stock":
        return {}
    if env is not default_env():
        logger.info("%s is not powergrid's own environment: RLlib's stock runner samples it.", env)
        return {}
    if getattr(scenario, "feeders", None):
        logger.info("Environments draw a feeder each: RLlib's stock runner samples them.")
        return {}
    from powergrid.training.rllib.env_runner import GridEnvRunner

    return {"env_runner_cls": GridEnvRunner}


def _learning(settings: TrainSettings) -> dict[str, Any]:
    """Return the arguments of ``PPOConfig.training``."""
    lr: Any = settings.lr
    if settings.lr_end is not None:
        lr = [[0, settings.lr], [settings.iterations * settings.train_batch_size, settings.lr_end]]
    return {
        "lr": lr,
        "train_batch_size_per_learner": settings.train_batch_size,
        "minibatch_size": settings.minibatch_size,
        "num_epochs": settings.num_epochs,
        "gamma": settings.gamma,
        "lambda_": settings.lambda_,
        "clip_param": settings.clip_param,
        "vf_clip_param": float("inf") if settings.vf_clip_param is None else settings.vf_clip_param,
        "vf_loss_coeff": settings.vf_loss_coeff,
        "entropy_coeff": settings.entropy_coeff,
        "use_kl_loss": settings.use_kl_loss,
        "kl_coeff": settings.kl_coeff,
        "kl_target": settings.kl_target,
        "grad_clip": settings.grad_clip,
    }
