"""RLlib's minibatches as slices of tensors: the same rows in the same order, without its batch classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tree


class Rows(dict[str, Any]):
    """Columns of one policy's rows; like RLlib's ``SampleBatch``, it is as long as its rows are many."""

    def __init__(self, columns: Mapping[str, Any], count: int) -> None:
        super().__init__(columns)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class Minibatch:
    """What one gradient step learns from: rows by policy, as RLlib's ``MultiAgentBatch`` holds them."""

    policy_batches: dict[str, Rows]
    steps: int

    def env_steps(self) -> int:
        """Return the environment steps of the whole batch, which RLlib counts for each minibatch."""
        return self.steps


class Minibatches:
    """Go through the rows of every policy in passes, as RLlib's ``MiniBatchCyclicIterator`` does.

    Every minibatch has ``minibatch_size`` rows of each policy; one that reaches the end of a pass goes on with the
    first rows of the next. Rows are shuffled after each pass by NumPy's global generator, in RLlib's order of draws.

    Args:
        batches: Columns of tensors by policy, rows first.
        env_steps: Environment steps of the batch.
        minibatch_size: Rows of each policy in a minibatch.
        num_epochs: Passes over the rows of every policy, at least.
        shuffle: Whether to shuffle after each pass.
        num_minibatches: Number of minibatches; 0 for as many as the passes take.
    """

    def __init__(
        self,
        batches: Mapping[str, Mapping[str, Any]],
        env_steps: int,
        *,
        minibatch_size: int,
        num_epochs: int,
        shuffle: bool,
        num_minibatches: int = 0,
    ) -> None:
        self._columns = {policy: dict(columns) for policy, columns in batches.items()}
        self._sizes = {policy: _count(columns) for policy, columns in self._columns.items()}
        self._env_steps, self._size, self._shuffle = env_steps, minibatch_size, shuffle
        self._num_epochs, self._num_minibatches = num_epochs, num_minibatches

    def __iter__(self) -> Iterator[Minibatch]:
        start, passes, given = dict.fromkeys(self._columns, 0), dict.fromkeys(self._columns, 0), 0
        while given < self._num_minibatches or (not self._num_minibatches and min(passes.values()) < self._num_epochs):
            rows: dict[str, Rows] = {}
            for policy, size in self._sizes.items():
                parts: list[Any] = []
                begin, wanted = start[policy], self._size
                while begin + wanted >= size:
                    parts.append(self._slice(policy, begin, size))
                    wanted -= size - begin
                    begin = 0
                    passes[policy] += 1
                    if self._shuffle:
                        self._permute(policy)
                if wanted:
                    parts.append(self._slice(policy, begin, begin + wanted))
                start[policy] = begin + wanted
                rows[policy] = Rows(parts[0] if len(parts) == 1 else _join(parts), self._size)
            yield Minibatch(rows, self._env_steps)
            given += 1

    def _slice(self, policy: str, begin: int, end: int) -> dict[str, Any]:
        return {
            name: values[begin:end]
            if isinstance(values, torch.Tensor)
            else tree.map_structure(lambda part: part[begin:end], values)
            for name, values in self._columns[policy].items()
        }

    def _permute(self, policy: str) -> None:
        order = torch.from_numpy(np.random.permutation(self._sizes[policy]))  # noqa: NPY002 (RLlib's own draws)
        self._columns[policy] = tree.map_structure(
            lambda values: values[order.to(values.device)], self._columns[policy]
        )


def _count(columns: Mapping[str, Any]) -> int:
    return len(tree.flatten(columns)[0])


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = tree.map_structure(lambda *values: torch.cat(values), *parts)
    return joined
