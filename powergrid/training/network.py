"""Where a policy starts from: near doing nothing, and quiet; the networks are RLlib's own."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule


class QuietStartModule(DefaultPPOTorchRLModule):
    """Start RLlib's PPO module as one policy everywhere: a chosen mean and spread of each continuous action.

    ``model_config`` may hold ``initial_mean`` (one number per continuous action) and ``initial_log_std``, both in
    units of the normalised action; they count where the action space is a Box. The last policy layer starts 100 times
    smaller than RLlib makes it, so that the first policy hardly depends on what is observed.

    Source:
        Andrychowicz et al., What Matters In On-Policy Reinforcement Learning?, ICLR 2021, on the last policy layer
        and the first spread.
    """

    def setup(self) -> None:
        """Build the networks, then quieten the last policy layer."""
        super().setup()  # type: ignore[no-untyped-call]
        pi: Any = self.pi
        last: Any = [layer for layer in pi.modules() if isinstance(layer, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.zero_()
            if isinstance(self.action_space, gym.spaces.Box):
                self._start_box(last)

    def _start_box(self, last: Any) -> None:
        space: Any = self.action_space
        n_actions = space.shape[0]
        settings: Any = self.model_config
        mean, log_std = settings.get("initial_mean"), settings.get("initial_log_std")
        if mean is not None:
            last.bias[:n_actions] = torch.as_tensor(mean, dtype=last.bias.dtype)
        if log_std is not None:
            free = getattr(self.pi, "log_std", None)
            (last.bias[n_actions:] if free is None else free).fill_(log_std)
