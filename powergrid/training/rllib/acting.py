"""How a policy acts for all its agents in all environments at once: RLlib's numbers, without its steps between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.connectors.module_to_env import GetActions
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead
from ray.rllib.utils.spaces.space_utils import clip_action, get_base_struct_from_space, unsquash_action

from powergrid.training.policies.extraction import actor_layers
from powergrid.training.rllib.mappo import CentralCriticModule
from powergrid.training.rllib.network import QuietStartModule

_HALF_LOG_TWO_PI = math.log(math.sqrt(2.0 * math.pi))


class PolicyActor:
    """Act by a policy's module, and fit its actions into the agents' bounds.

    Where the module is one of powergrid's perceptrons with one spread per action, its layers and its Gaussian are
    computed here, operation by operation as RLlib's objects do it, so that every bit is the same.

    Args:
        module: The policy's module.
        agents: The agents it acts for, whose spaces are equal.
        space: Their action space.
        device: Where the module is.
        normalize: Whether the module's [-1, 1] is scaled to the actions' bounds.
        clip: Whether actions are clipped to their bounds where they are not scaled.
    """

    def __init__(
        self, module: Any, agents: Sequence[str], space: gym.Space[Any], device: Any, *, normalize: bool, clip: bool
    ) -> None:
        self.agents = tuple(agents)
        self._module, self._device = module, device
        self._normalize, self._clip = normalize, clip
        self._struct = get_base_struct_from_space(space)
        self._get_actions: Any = GetActions()
        self._layers = _plain_layers(module)
        self._box = _bounds(space) if normalize else None

    def prepare(self) -> None:
        """Take in new weights, before the first step of a sample."""
        if self._layers is None:
            return
        with torch.no_grad():
            head = self._module.pi
            log_std, bound = head.log_std, head.log_std_clip_param_const
            self._log_std = (torch.clamp(log_std, -bound, bound) if head.clip_log_std else log_std).detach()[None]
            self._std = self._log_std.exp()
            self._twice_variance, self._log_of_std = 2 * self._std**2, self._std.log()

    def act(self, seen: Any, *, explore: bool, t: int) -> dict[str, Any]:
        """Return what the policy says, by RLlib's columns, each (n_envs, n_agents, ...), and the actions to play.

        Args:
            seen: Observations, shape (n_envs, n_agents, n_observed).
            explore: Whether to draw actions.
            t: Steps sampled so far, by which RLlib's modules may explore.
        """
        n, m = seen.shape[:2]
        rows = torch.from_numpy(seen.reshape(n * m, -1)).to(self._device)
        out = self._draw(rows) if explore and self._layers is not None else self._ask(rows, explore, t)
        columns = {name: _to_numpy(values, n, m) for name, values in out.items()}
        if Columns.ACTIONS_FOR_ENV not in columns:
            columns[Columns.ACTIONS_FOR_ENV] = self._fit(columns[Columns.ACTIONS])
        return columns

    def _ask(self, rows: Any, explore: bool, t: int) -> dict[str, Any]:
        """Let RLlib's module and its connector act."""
        batch = {Columns.OBS: rows}
        module = self._module
        out = module.forward_exploration(batch, t=t) if explore else module.forward_inference(batch)
        self._get_actions._get_actions(out, module, explore)
        return dict(out)

    def _draw(self, x: Any) -> dict[str, Any]:
        """Do what the layers, the head and the Gaussian of the module do."""
        with torch.inference_mode():
            for layer in self._layers or ():
                if isinstance(layer, torch.nn.Linear):
                    x = torch.nn.functional.linear(x, layer.weight, layer.bias)
                else:
                    x = torch.tanh(x) if isinstance(layer, torch.nn.Tanh) else layer(x)
            inputs = torch.cat([x, self._log_std.expand(len(x), -1)], dim=1)
            actions = torch.normal(x, self._std.expand_as(x))
            logp = -((actions - x) ** 2) / self._twice_variance - self._log_of_std - _HALF_LOG_TWO_PI
            return {
                Columns.ACTION_DIST_INPUTS: inputs,
                Columns.ACTIONS: actions,
                Columns.ACTION_LOGP: logp.sum(-1),
            }

    def _fit(self, actions: Any) -> Any:
        """Scale or clip actions into their bounds, as ``NormalizeAndClipActions`` does one by one."""
        if self._box is not None:
            low, width, high = self._box
            return np.minimum(np.maximum(low + (actions + 1.0) * width / 2.0, low), high)
        if self._normalize:
            return unsquash_action(actions, self._struct)
        return clip_action(actions, self._struct) if self._clip else actions


def _plain_layers(module: Any) -> list[Any] | None:
    """Return the layers from observation to mean, where the module does nothing else; None where it may."""
    known = type(module) in (QuietStartModule, CentralCriticModule) and type(module.pi) is TorchFreeLogStdMLPHead
    if not known or module.get_exploration_action_dist_cls() is not TorchDiagGaussian:
        return None
    return None if module.is_stateful() or not hasattr(module.encoder, "actor_encoder") else actor_layers(module)


def _bounds(space: gym.Space[Any]) -> tuple[Any, Any, Any] | None:
    """Return low, width and high of a Box of fractions that is bounded everywhere."""
    if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        return None
    if not (np.all(space.bounded_below) and np.all(space.bounded_above)):
        return None
    return space.low, space.high - space.low, space.high


def _to_numpy(values: Any, n_envs: int, n_agents: int) -> Any:
    """Turn tensors whose rows are agents within environments into arrays of shape (n_envs, n_agents, ...)."""
    if isinstance(values, Mapping):
        return {key: _to_numpy(part, n_envs, n_agents) for key, part in values.items()}
    array = values.detach().cpu().numpy()
    if array.dtype.itemsize == 8:  # RLlib keeps 32 bits of whole numbers and of fractions
        array = array.astype(np.int32 if array.dtype.kind == "i" else np.float32)
    return array.reshape(n_envs, n_agents, *array.shape[1:])


def pick_agent(values: Any, agent: int) -> Any:
    """Return one agent's part of columns of shape (n_envs, n_agents, ...)."""
    if isinstance(values, Mapping):
        return {key: pick_agent(part, agent) for key, part in values.items()}
    return values[:, agent]
