"""Message passing over the graph that an agent sees, in numpy or torch, for feeders of any size; it learns nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from powergrid.envs.observations.graph import EDGE_FEATURES, NODE_FEATURES, GraphForm

_OWN = [feature.name for feature in NODE_FEATURES].index("own")
_N_X, _N_E = len(NODE_FEATURES), len(EDGE_FEATURES)


@dataclass(frozen=True)
class MessagePassing:
    """Turn an observation with a graph into as many numbers whatever the graph: its own, and two sums over buses.

    Each bus starts from its features. In each round every branch sends one message away from the source and one
    towards it, made of both its ends and its own features, and each bus takes the means of those that reach it. In
    the end come the agent's own channels, the mean over the buses of its devices, and the mean over all. Neither the
    order of buses and branches nor the room for more of them changes anything; weights are the same for all.

    Attributes:
        n_own: Entries of the observation before the graph.
        n_nodes, n_edges: Buses and branches that there is room for.
        width: Numbers that a bus holds.
        rounds: Rounds of messages: how many branches away a bus is heard of.
        n_flags: Flags of readings that each bus has, the last of the entries before the graph.
    """

    n_own: int
    n_nodes: int
    n_edges: int
    width: int
    rounds: int
    n_flags: int = 0

    @property
    def form(self) -> GraphForm:
        """How the graph lies in an observation."""
        return GraphForm(self.n_own, self.n_nodes, self.n_edges, tuple(map(str, range(self.n_flags))))

    @property
    def inputs(self) -> int:
        """Length of the observation."""
        return self.form.width

    @property
    def outputs(self) -> int:
        """How many numbers come out of it."""
        return self.n_own - self.n_nodes * self.n_flags + 2 * self.width

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Numbers that each layer takes and gives: of buses first, then of messages and of buses in each round."""
        rounds = [(2 * self.width + _N_E, 2 * self.width), (3 * self.width, self.width)] * self.rounds
        return [(_N_X + self.n_flags, self.width), *rounds]

    def pass_messages(self, observations: Any, layers: Sequence[Callable[[Any], Any]], lib: Any = np) -> Any:
        """Return what comes out of all layers: those of :attr:`layers`, and what follows on :attr:`outputs` numbers.

        Args:
            observations: Shape (n, inputs), of numpy or of torch.
            layers: Each with its activation.
            lib: ``numpy``, or ``torch``, whose operations an export writes down.
        """
        parts = self.form.split(observations)
        nodes, edges = parts["nodes"], parts["edges"]
        places = np.arange(self.n_nodes, dtype=np.float32)
        places = places if lib is np else lib.as_tensor(places, device=observations.device)
        # which bus each branch begins and ends at, one in each row, none in rows of padding; as products of matrices
        # these gather and sum the same in numpy, torch and every runtime of ONNX
        near, far = ((parts["edge_index"][:, end, :, None] == places) * edges[..., :1] for end in (0, 1))
        to_far, to_near = (ends.swapaxes(1, 2) / ends.sum(1)[..., None].clip(1.0) for ends in (far, near))
        own = parts["own"][..., : self.outputs - 2 * self.width]
        held = layers[0](lib.concatenate((nodes, parts["flags"]), -1) if self.n_flags else nodes)
        for message, update in zip(layers[1 : len(self.layers) : 2], layers[2 : len(self.layers) : 2], strict=True):
            sent = message(lib.concatenate((near @ held, far @ held, edges), -1))
            heard = (to_far @ sent[..., : self.width], to_near @ sent[..., self.width :])
            held = held + update(lib.concatenate((held, *heard), -1))
        summed = [_mean_over(held, nodes[..., column, None]) for column in (_OWN, 0)]
        told = lib.concatenate((own, *summed), -1)
        for layer in layers[len(self.layers) :]:
            told = layer(told)
        return told

    def complete(self, observations: Any) -> Any:
        """Return any numbers as what could be observed: every bus and branch there, branches between two buses."""
        seen, form = np.array(observations, np.float32), self.form
        first = form.n_own + self.n_nodes * _N_X
        rng, most = np.random.default_rng(0), max(self.n_nodes - 1, 1)
        ends = rng.integers(0, self.n_nodes, (len(seen), 2 * self.n_edges))
        seen[:, form.n_own : first : _N_X] = seen[:, form.n_own + _OWN : first : _N_X] = 1.0
        seen[:, first : first + 2 * self.n_edges] = 2.0 * ends / most - 1.0
        seen[:, first + 2 * self.n_edges :: _N_E] = 1.0
        return seen

    def describe(self) -> dict[str, int]:
        """Return it as JSON holds it."""
        return asdict(self)


def _mean_over(held: Any, chosen: Any) -> Any:
    """Return the mean over the buses that are chosen by 1, 0 where none is, shape (n, width)."""
    return (held * chosen).sum(1) / chosen.sum(1).clip(1.0)
