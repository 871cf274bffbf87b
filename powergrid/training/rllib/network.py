"""Where a policy starts from: near doing nothing, and quiet; the networks are RLlib's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT


class QuietStartModule(DefaultPPOTorchRLModule):
    """Start RLlib's PPO module as one policy everywhere: chosen means and spreads, and chosen odds of positions.

    ``model_config`` may hold ``initial_bias`` (a mean for each continuous action, in units of the normalised action, a
    logit for each position, in the order of the parts) and ``initial_log_std``. The last policy layer starts 100
    times smaller than RLlib makes it, so that the first policy hardly depends on what is observed.

    Source:
        Andrychowicz et al., What Matters In On-Policy Reinforcement Learning?, ICLR 2021, on the last policy layer
        and the first spread.
    """

    def setup(self) -> None:
        """Build the networks, then quieten the last policy layer."""
        super().setup()  # type: ignore[no-untyped-call]
        quicken(self)
        pi: Any = self.pi
        last: Any = [layer for layer in pi.modules() if isinstance(layer, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.zero_()
            settings: Any = self.model_config
            self._start(last, settings.get("initial_bias"), settings.get("initial_log_std"))

    def train(self, mode: bool = True) -> Any:
        """Enter or leave training mode; RLlib asks for it at every pass, and to walk the layers takes as long."""
        return super().train(mode) if self.training != mode else self

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Act by the policy's layers alone: RLlib's own pass computes the value network's too, and drops them."""
        encoder: Any = self.encoder
        if not hasattr(encoder, "actor_encoder") or self.is_stateful():
            shared: dict[str, Any] = super()._forward(batch, **kwargs)
            return shared
        pi: Any = self.pi
        return {Columns.ACTION_DIST_INPUTS: pi(encoder.actor_encoder(batch)[ENCODER_OUT])}

    def _start(self, last: Any, bias: list[float] | None, log_std: float | None) -> None:
        free = getattr(self.pi, "log_std", None)
        if free is not None and log_std is not None:
            free.fill_(log_std)
        given, entry = 0, 0  # places in the chosen numbers, and in the layer, which has spreads as well
        for kind, size in _parts(self.action_space):
            if bias is not None:
                chosen = torch.as_tensor(bias[given : given + size], dtype=last.bias.dtype)
                last.bias[entry : entry + size] = chosen
            given, entry = given + size, entry + size
            if kind == "box" and free is None:
                if log_std is not None:
                    last.bias[entry : entry + size] = log_std
                entry += size


class FastTanh(torch.nn.Tanh):
    """A hidden layer's tanh, by NumPy where it is learnt on a CPU: torch's takes several times as long there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return tanh of every entry; within 4 units in the last place of torch's where NumPy's is taken."""
        if not (torch.is_grad_enabled() and x.requires_grad) or x.device.type != "cpu" or x.dtype is not torch.float32:
            return super().forward(x)
        result: torch.Tensor = _NumpyTanh.apply(x)  # type: ignore[no-untyped-call]
        return result


class _NumpyTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grads[0], y)


def quicken(module: torch.nn.Module) -> None:
    """Put :class:`FastTanh` in the place of every tanh of a module."""
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            if type(layer) is torch.nn.Tanh:
                setattr(parent, name, FastTanh())


def _parts(space: Any) -> Iterator[tuple[str, int]]:
    """Return the parts of an action space in the order of the distribution's inputs: kind and number of inputs."""
    if isinstance(space, gym.spaces.Dict):
        for part in space.spaces.values():
            yield from _parts(part)
    elif isinstance(space, gym.spaces.Box):
        yield "box", int(np.prod(space.shape))
    else:
        yield "positions", int(space.n if isinstance(space, gym.spaces.Discrete) else np.sum(space.nvec))
