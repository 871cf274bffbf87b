"""FittedEnv: an environment as its policies see it, where their spaces are not its agents' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from powergrid.training.rllib.fitting import FIT_KEY, AgentFit

_RllibEnv: Any = MultiAgentEnv


class FittedEnv(_RllibEnv):  # type: ignore[misc]
    """Wrap an environment so that its agents have the spaces that their policies need.

    Everything else is the environment's own, which ``inner`` is.

    Args:
        config: The environment's configuration, and under :data:`FIT_KEY` what :func:`fit_config` put there.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        fit = config[FIT_KEY]
        self.inner: Any = fit["env"](_inner_config(config))
        self.fits: dict[str, AgentFit] = dict(fit["fits"])
        self.possible_agents = list(self.inner.possible_agents)
        self.agents = list(self.possible_agents)
        self.observation_spaces = dict(fit["observation_spaces"])
        self.action_spaces = dict(fit["action_spaces"])

    def get_observation_space(self, agent_id: str) -> Any:
        """Return the observation space of an agent."""
        return self.observation_spaces[agent_id]

    def get_action_space(self, agent_id: str) -> Any:
        """Return the action space of an agent."""
        return self.action_spaces[agent_id]

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """Start an episode."""
        observations, infos = self.inner.reset(seed=seed, options=options)
        return self._observe(observations), infos

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Play one step."""
        own = {agent: self._act(agent, action) for agent, action in actions.items()}
        observations, *rest = self.inner.step(own)
        return (self._observe(observations), *rest)

    def close(self) -> None:
        """Close the environment."""
        self.inner.close()

    def _observe(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        return {
            agent: self.fits[agent].observe(np.asarray(seen)[None])[0] if agent in self.fits else seen
            for agent, seen in observations.items()
        }

    def _act(self, agent: str, action: Any) -> Any:
        if agent not in self.fits:
            return action
        one = {name: np.asarray(part)[None] for name, part in action.items()} if isinstance(action, Mapping) else None
        return first(self.fits[agent].act(np.asarray(action)[None] if one is None else one))


def first(actions: Any) -> Any:
    """Take the first of many actions."""
    return {name: first(part) for name, part in actions.items()} if isinstance(actions, Mapping) else actions[0]


def fit_config(
    env: Any,
    env_config: Mapping[str, Any],
    fits: Mapping[str, AgentFit],
    observation_spaces: Mapping[str, gym.Space[Any]],
    action_spaces: Mapping[str, gym.Space[Any]],
) -> dict[str, Any]:
    """Return the configuration of a :class:`FittedEnv`."""
    fit = {
        "env": env,
        "fits": dict(fits),
        "observation_spaces": dict(observation_spaces),
        "action_spaces": dict(action_spaces),
    }
    return {**env_config, FIT_KEY: fit}


def _inner_config(config: Mapping[str, Any]) -> Any:
    """Return the environment's own configuration.

    One object for all environments of a worker, as RLlib gives one: the environment counts its births on it.
    """
    inner = getattr(config, "_powergrid_inner", None)
    if inner is None:
        own = {key: value for key, value in config.items() if key != FIT_KEY}
        if not isinstance(config, EnvContext):
            return own
        context: Any = config
        inner = EnvContext(
            own,
            worker_index=context.worker_index,
            vector_index=context.vector_index,
            num_workers=context.num_workers,
            recreated_worker=context.recreated_worker,
        )
        context._powergrid_inner = inner
    return inner
