"""A memory among the layers of a network, step by step in numpy or torch; it learns nothing and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GatedMemory:
    """Carry numbers from step to step of an episode, and let the layers that follow see them beside the present.

    What the layers before it make of an observation goes on as it is, and to a gated recurrent unit beside it. At the
    start of an episode nothing is remembered: all numbers are 0.

    Attributes:
        place: How many layers come before it. The unit's are two: one of what comes in, one of what is remembered.
        width: Numbers that are remembered.

    Source:
        Cho et al., Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation,
        EMNLP 2014, in the form of ``torch.nn.GRU``.
    """

    place: int
    width: int

    def pass_on(
        self, observations: Any, held: Any, layers: Sequence[Callable[[Any], Any]], lib: Any = np
    ) -> tuple[Any, Any]:
        """Return what comes out of all layers, and what is remembered after it.

        Args:
            observations: Shape (n, inputs), of numpy or of torch.
            held: What was remembered before, shape (n, width).
            layers: Each with its activation.
            lib: ``numpy``, or ``torch``, whose operations an export writes down.
        """
        told = observations
        for layer in layers[: self.place]:
            told = layer(told)
        held = self.gate(layers[self.place](told), layers[self.place + 1](held), held, lib)
        told = lib.concatenate((told, held), -1)
        for layer in layers[self.place + 2 :]:
            told = layer(told)
        return told, held

    def gate(self, new: Any, old: Any, held: Any, lib: Any = np) -> Any:
        """Return what is remembered after a step, shape (n, width).

        Args:
            new, old: What the unit's two layers give, shape (n, 3 width): of resetting, of keeping, of what is new.
            held: What was remembered before.
            lib: ``numpy`` or ``torch``.
        """
        n = self.width
        sigmoid = _sigmoid if lib is np else lib.sigmoid
        # in the order of torch's own kernel, so that both come to the same bits
        reset, keep = sigmoid(old[..., :n] + new[..., :n]), sigmoid(old[..., n : 2 * n] + new[..., n : 2 * n])
        fresh = lib.tanh(new[..., 2 * n :] + old[..., 2 * n :] * reset)
        return (held - fresh) * keep + fresh

    def describe(self) -> dict[str, int]:
        """Return it as JSON holds it."""
        return asdict(self)


def _sigmoid(x: Any) -> Any:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # overflows nowhere
