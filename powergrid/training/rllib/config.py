"""From an environment, an algorithm's name and settings to a checked RLlib configuration; it trains nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from powergrid.errors import ScenarioError
from powergrid.scenario import as_env_config, pack_env_config
from powergrid.training.policies.messages import MessagePassing
from powergrid.training.policies.positions import ProposedMeans, stand_by
from powergrid.training.policies.spaces import FIT_KEY, box_size
from powergrid.training.rllib.planning.env_config import EnvClass, default_env, draw_hard_days, show_proposals
from powergrid.training.rllib.planning.facts import EnvFacts, probe_env
from powergrid.training.rllib.planning.fitting import fit_agents
from powergrid.training.rllib.planning.policies import Policies, multi_agent_arguments
from powergrid.training.rllib.planning.problems import plan_policies
from powergrid.training.rllib.sampling.processes import available_cpus, fit_env_runners
from powergrid.training.runs.settings import (
    DqnSettings,
    MappoSettings,
    OffPolicySettings,
    SacSettings,
    TrainSettings,
    resolve_settings,
)

if TYPE_CHECKING:
    from powergrid.training.rllib.ppo import PPOConfig

logger = logging.getLogger("powergrid.training")

__all__ = ["algorithm_config", "build_algorithm_config", "pack_env_config", "ppo_config"]

#: Width of the bell that positions are first drawn from, in positions and as a part of the range.
_LEAST_WIDTH, _WIDTH = 0.6, 0.1
#: Weights of the entropy bonus. Positions have more entropy, 3.5 nats for 33 taps alike, and what a move brings is
#: little: at the first weight a policy of positions goes on moving what had better stay.
_ENTROPY, _ENTROPY_OF_POSITIONS = 0.003, 0.0005
#: Logarithm of the first spread of continuous actions, that of a policy that has learnt by imitation before, and that
#: of one which adds to what rules propose.
_LOG_STD, _LOG_STD_IMITATING, _LOG_STD_PROPOSED = -0.7, -1.6, -2.3
#: Environments of a process where nothing is said: more of them gain little and make each fragment of a day shorter.
_MOST_ENVIRONMENTS = 16


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
            ``"page"``, the hyper-parameters long recommended on the Training page. ``"imitate"`` is for
            :func:`powergrid.training.train`, for a configuration alone imitates nobody.
        **settings: Fields of :class:`TrainSettings`, under their own or their older RLlib names.

    Raises:
        ScenarioError: With every unknown setting, refused value, missing policy and unequal space.
    """
    config: PPOConfig = algorithm_config(env_config, "ppo", env=env, policies=policies, preset=preset, **settings)
    return config


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
    resolved, problems = resolve_settings(algorithm, settings)
    env = env or default_env()
    config = show_proposals(env, as_env_config(env_config), resolved)
    facts = probe_env(env, config)
    policy_of, wrong = plan_policies(facts, policies, resolved)
    if resolved.demonstrations is not None:
        wrong.append("demonstrations: build the algorithm, then powergrid.training.imitate(algorithm, folder)")
    if problems or wrong:
        raise ScenarioError(f"{algorithm}_config", problems + wrong)
    return build_algorithm_config(env, draw_hard_days(env, config, resolved), facts, policy_of, resolved)


@dataclass(frozen=True)
class _Parts:
    """What a configuration is made of, checked: the environment as its policies see it, who has which, and settings."""

    env: EnvClass
    env_config: Mapping[str, Any]
    facts: EnvFacts
    policy_of: Mapping[str, str]
    settings: Any


def build_algorithm_config(
    env: EnvClass,
    env_config: Mapping[str, Any],
    facts: EnvFacts,
    policy_of: Mapping[str, str],
    settings: TrainSettings,
) -> Any:
    """Put checked parts together into the configuration of the algorithm that the settings are of."""
    facts, fits = fit_agents(facts, policy_of, settings)
    if fits:
        from powergrid.training.rllib.sampling.environments import FittedEnv

        spaces = {"observation_spaces": facts.observation_spaces, "action_spaces": facts.action_spaces}
        env_config = {**env_config, FIT_KEY: {"env": env, "fits": fits, **spaces}}
        env = FittedEnv
    parts = _Parts(env, env_config, facts, policy_of, settings)
    return _off_policy_config(parts) if isinstance(settings, OffPolicySettings) else _on_policy_config(parts)


def _on_policy_config(parts: _Parts) -> PPOConfig:
    """Return the configuration of PPO, or of MAPPO: the same with a critic that sees what all agents see."""
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

    from powergrid.training.rllib.ppo import PPOConfig

    config: Any = PPOConfig()
    _prepare(config, parts)
    # a seed's first weights are drawn in this order
    names = dict.fromkeys(parts.policy_of[agent] for agent in reversed(parts.facts.agents))
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs={name: _module(name, parts) for name in names}))
    if parts.settings.learner == "grid":
        from powergrid.training.rllib.learner import GridPPOLearner

        led: dict[str, Any] = {
            "lr_kl_target": parts.settings.lr_kl_target,
            "log_std": _log_std_schedule(parts.settings),
            "envs_per_day": parts.settings.envs_per_day,
            "proposals_coeff": parts.settings.proposals_coeff,
        }
        if parts.settings.cost_limits:
            led["cost_limits"] = {"limits": parts.settings.cost_limits, "lr": parts.settings.cost_lr}
        config.learners(learner_class=GridPPOLearner, learner_config_dict=led)
    if parts.settings.entropy_coeff is None:
        config.multi_agent(
            algorithm_config_overrides_per_module={
                parts.policy_of[agent]: {"entropy_coeff": _ENTROPY_OF_POSITIONS}
                for agent in parts.facts.agents
                if not box_size(parts.facts.action_spaces[agent])
            }
        )
    joined = parts.facts.agents if isinstance(parts.settings, MappoSettings) else ()
    if joined or not parts.settings.bootstrap_horizon:
        from powergrid.training.rllib.modules import LearnerPieces

        config.learners(learner_connector=LearnerPieces(joined, ends=not parts.settings.bootstrap_horizon))
    checked: PPOConfig = config.training(**_on_policy_learning(parts.settings))
    return checked


def _prepare(config: Any, parts: _Parts) -> None:
    """Set what is the same for every algorithm: environment, policies, runners, callbacks."""
    from powergrid.training.rllib.metrics import GridMetricsCallback

    settings = parts.settings
    runners, warning = fit_env_runners(settings.num_env_runners, available_cpus())
    if warning:
        logger.warning(warning)
    (
        config.multi_agent(**multi_agent_arguments(parts.facts, parts.policy_of))
        .environment(
            parts.env,
            env_config=dict(parts.env_config),
            disable_env_checking=True,  # the check resets every env with seed 42
            normalize_actions=settings.normalize_actions,
            clip_actions=settings.clip_actions,
        )
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=_environments(settings, runners),
            rollout_fragment_length=settings.rollout_fragment_length,
            sample_timeout_s=settings.sample_timeout_s,
            **_env_runner(parts.env, settings),
            **({"env_to_module_connector": mean_std_filter} if settings.observation_filter == "mean_std" else {}),
        )
        .callbacks(GridMetricsCallback, **_led_ranges(settings))
        .debugging(seed=settings.seed, log_level="ERROR")
    )


def _led_ranges(settings: TrainSettings) -> dict[str, Any]:
    """Return the arguments of ``callbacks`` by which ranges follow the iterations."""
    if settings.curriculum is None:
        return {}
    from powergrid.training.rllib.sampling.curriculum import Curriculum

    # after each iteration, and wherever environments are new or an iteration is another one
    when = ("on_algorithm_init", "on_train_result", "on_env_runners_recreated", "on_checkpoint_loaded")
    return dict.fromkeys(when, Curriculum(settings.curriculum))


def _environments(settings: TrainSettings, runners: int) -> int:
    """Return how many environments a process steps together, where the settings leave it open."""
    fragment, batch = settings.rollout_fragment_length, settings.train_batch_size
    if settings.num_envs_per_env_runner or fragment == "auto" or isinstance(settings, OffPolicySettings):
        return settings.num_envs_per_env_runner or _MOST_ENVIRONMENTS
    steps = max(runners, 1) * int(fragment)  # that a request brings for each environment of a process
    # RLlib demands of a fragment length that was asked for that fragments make up the batch to a tenth
    return min(range(_MOST_ENVIRONMENTS, 0, -1), key=lambda count: -batch % (steps * count))  # least past the batch


def mean_std_filter(env: Any = None, spaces: Any = None, device: Any = None) -> Any:
    """Return RLlib's connector that scales each agent's observations by their running mean and spread."""
    from ray.rllib.connectors.env_to_module import MeanStdFilter

    return MeanStdFilter(multi_agent=True)


def _env_runner(env: EnvClass, settings: TrainSettings) -> dict[str, Any]:
    """Return the argument of ``PPOConfig.env_runners`` that chooses the runner."""
    if settings.env_runner == "stock":
        return {}
    if env is not default_env():
        logger.info("%s is not powergrid's own environment: RLlib's stock runner samples it.", env)
        return {}
    from powergrid.training.rllib.env_runner import GridEnvRunner

    return {"env_runner_cls": GridEnvRunner}


def _on_policy_learning(settings: TrainSettings) -> dict[str, Any]:
    """Return the arguments of ``PPOConfig.training``."""
    as_rllib = {"minibatch_size", "num_epochs", "gamma", "lambda_", "clip_param", "vf_loss_coeff"}
    as_rllib |= {"use_kl_loss", "kl_coeff", "kl_target", "grad_clip"}
    lr: Any = settings.lr
    if settings.lr_end is not None and settings.lr_kl_target is None:
        lr = [[0, settings.lr], [settings.iterations * settings.train_batch_size, settings.lr_end]]
    return {
        **settings.model_dump(include=as_rllib),
        "entropy_coeff": _ENTROPY if settings.entropy_coeff is None else settings.entropy_coeff,
        "lr": lr,
        "train_batch_size_per_learner": settings.train_batch_size,
        # RLlib clamps the squared error: past the cap its 10.0 leaves the value network without a gradient
        "vf_clip_param": math.inf if settings.vf_clip_param is None else settings.vf_clip_param,
    }


def _log_std_schedule(settings: TrainSettings) -> tuple[float, float, int] | None:
    """Return the spread's logarithm at first and at last, and the steps between, where it is not learnt."""
    if settings.final_log_std is None:
        return None
    return first_log_std(settings), settings.final_log_std, settings.iterations * settings.train_batch_size


def _module(name: str, parts: _Parts) -> Any:
    """Say what network a policy has and where it starts: part of the way to leaving its devices to themselves."""
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from powergrid.training.rllib.modules import CentralCriticModule, QuietStartModule, joint_width

    facts, settings = parts.facts, parts.settings
    agents = [agent for agent in facts.agents if parts.policy_of[agent] == name]
    box = all(isinstance(facts.action_spaces[agent], gym.spaces.Box) for agent in agents)
    model: dict[str, Any] = {
        "fcnet_hiddens": list(settings.hidden),
        "fcnet_activation": settings.activation,
        "free_log_std": settings.free_log_std
        and box,  # RLlib's free spread would take half of positions' logits for it
        "vf_share_layers": False,  # so that to act takes the policy's layers alone
        "initial_log_std": first_log_std(settings),
    }
    neutral = [facts.neutral_actions[agent] for agent in agents if agent in facts.neutral_actions]
    if neutral:
        model["initial_bias"] = initial_bias(facts.action_spaces[agents[0]], neutral, settings.initial_neutral).tolist()
        model |= _standing(facts, agents, settings, model["initial_bias"])
        model |= _proposed(facts, agents, settings, model["initial_bias"])
    if settings.network == "graph":
        form = facts.graphs[agents[0]]
        how = settings.graph_width, settings.graph_rounds, len(form.flags)
        model["graph"] = MessagePassing(form.n_own, form.n_nodes, form.n_edges, *how).describe()
    if settings.network == "gru":
        model |= {"memory": settings.gru_width, "max_seq_len": settings.max_seq_len}
    if not isinstance(settings, MappoSettings):
        return RLModuleSpec(module_class=QuietStartModule, model_config=model)
    widths = {agent: int(np.prod(facts.observation_spaces[agent].shape or ())) for agent in facts.agents}
    model |= {"joint_width": joint_width(widths, agents[0]), "critic_hiddens": list(settings.critic_hidden)}
    return RLModuleSpec(module_class=CentralCriticModule, model_config=model)


def first_log_std(settings: TrainSettings) -> float:
    """Return the logarithm of the first spread of continuous actions, where settings leave it open too."""
    if settings.initial_log_std is not None:
        return settings.initial_log_std
    if settings.proposals is not None:
        return _LOG_STD_PROPOSED
    return _LOG_STD if settings.demonstrations is None else _LOG_STD_IMITATING


def _standing(facts: EnvFacts, agents: Sequence[str], settings: TrainSettings, bias: list[float]) -> dict[str, Any]:
    """Return what a network needs to say positions from where devices stand; takes the bell around the first away."""
    told = {facts.standing.get(agent, ()) for agent in agents}
    columns = next(iter(told)) if len(told) == 1 else ()  # agents that share a policy and see it elsewhere: none
    # where observations are filtered, what the network sees is no position any more
    if settings.positions == "absolute" or settings.observation_filter != "none" or max(columns, default=-1) < 0:
        return {}
    space = facts.action_spaces[agents[0]]
    standing, stays = stand_by(space, columns, settings.initial_neutral)
    for first, count in zip(standing.firsts, standing.counts, strict=True):
        own = first - box_size(space)  # the chosen numbers are without the spreads
        bias[own : own + count] = [0.0] * count
    return {"standing": standing.describe(), "initial_stay": stays}


def _proposed(facts: EnvFacts, agents: Sequence[str], settings: TrainSettings, bias: list[float]) -> dict[str, Any]:
    """Return what a network needs to add to what rules propose; takes away where continuous actions start without."""
    told = {facts.proposed.get(agent, ()) for agent in agents}
    columns = next(iter(told)) if len(told) == 1 else ()
    if not columns or settings.observation_filter != "none":
        return {}
    bias[: len(columns)] = [0.0] * len(columns)
    return {"proposed": ProposedMeans(columns, settings.proposals_deadband).describe()}


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


def _off_policy_config(parts: _Parts) -> Any:
    """Return the configuration of SAC or DQN."""
    from powergrid.training.rllib.off_policy import ReplayDQNConfig, ReplaySACConfig

    settings = parts.settings
    config: Any = ReplaySACConfig() if isinstance(settings, SacSettings) else ReplayDQNConfig()
    _prepare(config, parts)
    network = {"fcnet_hiddens": list(settings.hidden), "fcnet_activation": settings.activation}
    config.rl_module(model_config={**network, "head_fcnet_hiddens": []})
    replay = {"buffer_capacity", "learning_starts", "updates_per_step", "store_buffer"}
    config.update_from_dict(settings.model_dump(include=replay))
    # an iteration is its steps: RLlib's of SAC takes a second at least, whatever that is in steps
    config.reporting(min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=settings.steps_per_iteration)
    return config.training(
        train_batch_size_per_learner=settings.train_batch_size,
        num_steps_sampled_before_learning_starts=settings.learning_starts,
        **settings.model_dump(include={"gamma", "n_step", "grad_clip"}),
        **_off_policy_learning(settings),
    )


def _off_policy_learning(settings: SacSettings | DqnSettings) -> dict[str, Any]:
    """Return the arguments of ``training`` that SAC and DQN have each for itself."""
    if isinstance(settings, SacSettings):
        own = {"alpha_lr", "twin_q", "tau", "initial_alpha", "target_entropy"}
        rates = {"lr": None, "actor_lr": settings.lr, "critic_lr": settings.lr}  # RLlib refuses one rate for all
        return {**rates, **settings.model_dump(include=own), "target_network_update_freq": 0}
    own = {"lr", "double_q", "dueling", "target_network_update_freq"}
    epsilon = [(0, settings.epsilon_start), (settings.epsilon_steps, settings.epsilon_end)]
    return {**settings.model_dump(include=own), "epsilon": epsilon}
