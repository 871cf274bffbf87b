"""Environments as RLlib's runners know them: many of one scenario as arrays, and one as its policies see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.vector.vector_multi_agent_env import VectorMultiAgentEnv

from powergrid.envs.vector import GridVectorEnv
from powergrid.scenario import Scenario
from powergrid.training.policies.spaces import FIT_KEY, AgentFit

_RllibVectorEnv: Any = VectorMultiAgentEnv


class GridVectorMultiAgentEnv(_RllibVectorEnv):  # type: ignore[misc]
    """Several environments of one scenario behind RLlib's vector interface.

    With lists of dicts it does what ``SyncVectorMultiAgentEnv`` does with that many ``NetworkedGridEnv``: same seeds,
    same days. With arrays it leaves resets to the caller; see :class:`powergrid.envs.GridVectorEnv`, which ``vector``
    is. ``envs`` holds a view of each environment: its agents and spaces.
    """

    def __init__(self, scenario: Scenario, num_envs: int, worker_index: int | None) -> None:
        self.vector = GridVectorEnv(
            scenario, num_envs, autoreset_mode=AutoresetMode.DISABLED, worker_index=worker_index
        )
        self.num_envs = num_envs
        self.metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": "next_step"}
        self.single_observation_spaces = dict(self.vector.single_observation_space)
        self.single_action_spaces = dict(self.vector.single_action_space)
        self.single_observation_space = gym.spaces.Dict({**self.single_observation_spaces})
        self.single_action_space = gym.spaces.Dict(self.single_action_spaces)
        self.envs = [_Place(self.vector, i) for i in range(num_envs)]
        self._over = np.zeros(num_envs, dtype=bool)

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """Start episodes; lists of observations and infos by agent."""
        observations, _ = self.vector.reset(seed=seed, options=options)
        self._over[:] = False
        return self._rows(observations), self._infos()

    def reset_arrays(self, *, seed: int | None = None, over: Any = None) -> tuple[Any, Any]:
        """Start episodes everywhere, or where ``over`` says; observations as arrays by agent."""
        return self.vector.reset(seed=seed, options=None if over is None else {"reset_mask": over})

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Play one step of arrays by agent, or of a list of one dict for each environment."""
        if isinstance(actions, Mapping):
            return self.vector.step(actions)
        return self._step_rows(actions)

    # RLlib's own runner steps by these where GridEnvRunner cannot sample: a whole iteration takes two thirds of what it
    # takes on as many environments by themselves (IEEE 13, MeanStdFilter, 16 environments)
    def _step_rows(self, actions: Sequence[Mapping[str, Any]]) -> tuple[Any, Any, Any, Any, Any]:
        over = self._over.copy()
        n, agents = self.num_envs, self.vector.possible_agents
        rewards = np.zeros((n, len(agents)))
        terminated, truncated = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        observations = None
        if not over.all():
            # as with RLlib's vectors: the step after an episode's last resets, whatever it is told to play
            idle = self.vector.neutral_actions() if over.any() else {}
            rows = [{name: _pick(idle, name, i) for name in agents} if over[i] else actions[i] for i in range(n)]
            batch = {name: _stack([row[name] for row in rows]) for name in agents}
            observations, rewards, terminated, truncated, _ = self.vector.step(batch)
        if over.any():
            observations, _ = self.vector.reset(options={"reset_mask": over})
            rewards[over] = 0.0
            terminated[over] = truncated[over] = False
        self._over = terminated | truncated
        return (
            self._rows(observations or {}),
            [dict(zip(agents, row, strict=True)) for row in rewards.tolist()],
            [{"__all__": flag} for flag in terminated.tolist()],
            # never agent by agent: where each is truncated RLlib takes the episode for terminated, and learns that
            # there is no value after the horizon
            [{"__all__": flag} for flag in truncated.tolist()],
            self._infos(),
        )

    def infos(self, env: int) -> dict[str, dict[str, Any]]:
        """Return the infos of one environment by agent."""
        return self.vector.info_dicts(env)

    def _rows(self, observations: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{name: seen[i] for name, seen in observations.items()} for i in range(self.num_envs)]

    def _infos(self) -> list[dict[str, dict[str, Any]]]:
        return [self.infos(i) for i in range(self.num_envs)]

    def close_extras(self, **kwargs: Any) -> None:
        """Release the engines."""
        self.vector.close()


class _Place:
    """One environment of several, as far as RLlib asks for it: who is in it and what they may do."""

    def __init__(self, vector: GridVectorEnv, index: int) -> None:
        self.index, self.scenario = index, vector.scenario
        self.possible_agents = self.agents = list(vector.possible_agents)
        self.observation_spaces = dict(vector.single_observation_space)
        self.action_spaces = dict(vector.single_action_space)

    @property
    def unwrapped(self) -> _Place:
        """This."""
        return self

    def get_observation_space(self, agent_id: str) -> Any:
        """Return the observation space of an agent."""
        return self.observation_spaces[agent_id]

    def get_action_space(self, agent_id: str) -> Any:
        """Return the action space of an agent."""
        return self.action_spaces[agent_id]


def _stack(rows: Sequence[Any]) -> Any:
    if isinstance(rows[0], Mapping):
        return {key: _stack([row[key] for row in rows]) for key in rows[0]}
    return np.stack([np.asarray(row) for row in rows])


def _pick(batch: Mapping[str, Any], name: str, env: int) -> Any:
    action = batch[name]
    return {key: part[env] for key, part in action.items()} if isinstance(action, Mapping) else action[env]


_RllibEnv: Any = MultiAgentEnv


class FittedEnv(_RllibEnv):  # type: ignore[misc]
    """Wrap an environment so that its agents have the spaces that their policies need.

    Everything else is the environment's own, which ``inner`` is.

    Args:
        config: The environment's configuration, and under :data:`FIT_KEY` its class as ``env``, the agents' ``fits``,
            and the ``observation_spaces`` and ``action_spaces`` that their policies see.
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
