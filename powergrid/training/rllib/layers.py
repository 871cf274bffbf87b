"""Layers of RLlib's modules here: encoders that look at a graph or back in time, and a tanh that takes less of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT

from powergrid.training.policies.inference import TORCH_LAYERS, paired
from powergrid.training.policies.memory import GatedMemory
from powergrid.training.policies.messages import MessagePassing

#: What is remembered, among the states of a module.
HELD = "held"


class GraphEncoder(torch.nn.Module):
    """Encode an observation by messages over its graph and a perceptron on what comes of them, for RLlib's heads.

    Args:
        graph: The graph and how messages pass.
        hidden: Width of each hidden layer after them; RLlib's head takes the last.
        activation: That of every layer.
    """

    def __init__(self, graph: MessagePassing, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        self.graph = graph
        self.layers = _layers([*graph.layers, *pairwise([graph.outputs, *hidden])], activation)

    def forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the encoding of the observations of a batch, as RLlib's encoders do."""
        seen = batch[Columns.OBS]
        return {ENCODER_OUT: self.graph.pass_messages(seen, paired(self.layers), torch)}


class MemoryEncoder(torch.nn.Module):
    """Encode sequences of observations by a perceptron, and beside it by a gated unit that remembers what it gave.

    Args:
        sizes: Entries of an observation, and the width of each hidden layer.
        activation: That of every hidden layer.
        width: How many numbers are remembered.
    """

    def __init__(self, sizes: Sequence[int], activation: str, width: int) -> None:
        super().__init__()
        self.layers = perceptron(sizes, activation)
        self.gru = torch.nn.GRU(sizes[-1], width, batch_first=True)
        self.gate = GatedMemory(len(sizes) - 1, width).gate

    def forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return encodings, shape (n, steps, last size + width), and what is remembered after the last step."""
        seen = self.layers(batch[Columns.OBS])
        remembered, held = self.gru(seen, batch[Columns.STATE_IN][HELD][None].contiguous())
        return {ENCODER_OUT: torch.cat((seen, remembered), -1), Columns.STATE_OUT: {HELD: held[0]}}

    def step(self, told: Any, held: Any) -> tuple[Any, Any]:
        """Return the encoding of one step, of what the perceptron gave, and what is remembered; learns nothing."""
        own = dict(self.gru.named_parameters())
        new, old = (
            torch.nn.functional.linear(x, own[f"weight_{name}_l0"], own[f"bias_{name}_l0"]).numpy()
            for x, name in ((told, "ih"), (held, "hh"))
        )
        held = torch.from_numpy(self.gate(new, old, held.numpy()))
        return torch.cat((told, held), -1), held


def perceptron(sizes: Sequence[int], activation: str) -> torch.nn.Sequential:
    """Return layers of these sizes, each with its activation."""
    return _layers(pairwise(sizes), activation)


def _layers(sizes: Iterable[tuple[int, int]], activation: str) -> torch.nn.Sequential:
    kind = getattr(torch.nn, TORCH_LAYERS[activation])
    return torch.nn.Sequential(*(part for size in sizes for part in (torch.nn.Linear(*size), kind())))


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
