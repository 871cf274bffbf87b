"""The files of a policy, which may be anybody's: what ``policy.json`` and ``weights.npz`` hold, checked when read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from powergrid.errors import PowerGridError
from powergrid.training.policies.memory import GatedMemory
from powergrid.training.policies.messages import MessagePassing
from powergrid.training.policies.positions import ProposedMeans, StandingPositions
from powergrid.training.policies.spaces import AgentFit

Arrays = Mapping[str, NDArray[Any]]
#: The activations that there are, by their names.
Activation = Literal["tanh", "relu", "elu", "swish", "linear"]
_Count = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True)  # what a later version adds is let pass: the format says what may be read


class StoredDiscrete(_Stored):
    """A choice among n."""

    kind: Literal["Discrete"]
    n: Annotated[_Count, Field(ge=1)]
    start: Annotated[int, Field(strict=True, ge=-(2**31), le=2**31)] = 0

    def restore(self) -> gym.Space[Any]:
        """Return the space."""
        return gym.spaces.Discrete(self.n, start=self.start)


class StoredMultiDiscrete(_Stored):
    """Several choices."""

    kind: Literal["MultiDiscrete"]
    nvec: Annotated[list[Annotated[_Count, Field(ge=1)]], Field(min_length=1)]

    def restore(self) -> gym.Space[Any]:
        """Return the space."""
        return gym.spaces.MultiDiscrete(self.nvec)


class StoredBox(_Stored):
    """Numbers between bounds."""

    kind: Literal["Box"]
    low: list[Any]
    high: list[Any]
    dtype: Literal["float32", "float64", "int8", "int16", "int32", "int64"]

    def restore(self) -> gym.Space[Any]:
        """Return the space."""
        low, high = (np.array(bound, np.float64) for bound in (self.low, self.high))
        if np.isnan(low).any() or np.isnan(high).any() or low.shape != high.shape or not (low <= high).all():
            raise ValueError("the bounds of a Box do not go from the least to the most")
        kind = np.dtype(self.dtype)
        return gym.spaces.Box(low.astype(kind), high.astype(kind), dtype=kind.type)


class StoredDict(_Stored):
    """Spaces by name."""

    kind: Literal["Dict"]
    spaces: list[tuple[str, StoredBox | StoredDiscrete | StoredMultiDiscrete]]

    def restore(self) -> gym.Space[Any]:
        """Return the space."""
        return gym.spaces.Dict({name: part.restore() for name, part in self.spaces})


StoredSpace = Annotated[StoredBox | StoredDict | StoredDiscrete | StoredMultiDiscrete, Field(discriminator="kind")]


class StoredFit(_Stored):
    """What lies between an agent's own spaces and its policy's."""

    own_space: StoredSpace
    own_width: _Count
    width: _Count
    place: _Count
    places: _Count
    flat: bool = False

    def restore(self, action_space: gym.Space[Any]) -> AgentFit:
        """Return the fit of an agent whose policy acts in a space."""
        numbers = (self.own_width, self.width, self.place, self.places)
        return AgentFit(self.own_space.restore(), *numbers, action_space, self.flat)


class StoredStanding(_Stored):
    """How a network tells positions from where devices stand."""

    columns: Annotated[list[_Count], Field(min_length=1)]
    firsts: list[_Count]
    counts: list[Annotated[_Count, Field(ge=1, le=1_000_000)]]
    curves: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    width: _Count

    def restore(self, weights: list[NDArray[np.float32]], inputs: int) -> StandingPositions:
        """Return it for a network of these weights and inputs; a ValueError says what does not fit."""
        columns, firsts, counts = (tuple(part) for part in (self.columns, self.firsts, self.counts))
        standing = StandingPositions(columns, firsts, counts, tuple(self.curves), self.width)
        ends = [0, *(first + count for first, count in zip(firsts, counts, strict=False))]
        apart = all(end <= first for end, first in zip(ends, [*firsts, self.width], strict=False))
        if len({len(columns), len(firsts), len(counts), len(self.curves)}) > 1 or not apart or max(columns) >= inputs:
            raise ValueError(f"positions that stand at {columns} of {inputs} entries do not fit")
        if standing.outputs != weights[-1].shape[0]:
            raise ValueError(f"the network gives {weights[-1].shape[0]} numbers, its positions need {standing.outputs}")
        return standing


class StoredProposed(_Stored):
    """What a network adds to, and how much of it counts as nothing."""

    columns: Annotated[list[_Count], Field(min_length=1)]
    deadband: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def restore(self, inputs: int) -> ProposedMeans:
        """Return it for a network of so many inputs; a ValueError says what does not fit."""
        if max(self.columns) >= inputs:
            raise ValueError(f"what is proposed at {self.columns} of {inputs} entries does not fit")
        return ProposedMeans(tuple(self.columns), self.deadband)


class StoredGraph(_Stored):
    """The graph that a network's first layers pass messages over."""

    n_own: _Count
    n_nodes: Annotated[_Count, Field(ge=1, le=100_000)]
    n_edges: Annotated[_Count, Field(ge=1, le=100_000)]
    width: Annotated[_Count, Field(ge=1, le=16_384)]
    rounds: Annotated[_Count, Field(ge=1, le=64)]
    n_flags: Annotated[_Count, Field(le=64)] = 0

    def restore(self) -> MessagePassing:
        """Return it."""
        if self.n_own < self.n_nodes * self.n_flags:
            raise ValueError(f"{self.n_own} entries hold no {self.n_flags} flags of {self.n_nodes} buses each")
        return MessagePassing(**self.model_dump())


class StoredMemory(_Stored):
    """What a network remembers."""

    place: _Count
    width: Annotated[_Count, Field(ge=1, le=16_384)]

    def restore(self) -> GatedMemory:
        """Return it."""
        return GatedMemory(self.place, self.width)


class StoredPolicy(_Stored):
    """What ``policy.json`` says."""

    # 2: with filters of observations, 3: with agents' own spaces; a reader of less leaves them out. 4: with positions
    # from where devices stand. 5: with messages over graphs. 6: with what rules propose. 7: with a memory
    format: Literal[1, 2, 3, 4, 5, 6, 7, 8]
    policy_of: dict[str, str]
    networks: dict[str, Annotated[list[Activation], Field(min_length=1, max_length=256)]]
    action_spaces: dict[str, StoredSpace]
    normalize_actions: bool
    clip_actions: bool
    filters: dict[str, Annotated[float, Field(gt=0)]] = {}
    fits: dict[str, StoredFit] = {}
    standing: dict[str, StoredStanding] = {}
    graphs: dict[str, StoredGraph] = {}
    proposed: dict[str, StoredProposed] = {}
    memories: dict[str, StoredMemory] = {}


def describe_space(space: gym.Space[Any]) -> dict[str, Any]:
    """Return a space as JSON holds it.

    Raises:
        PowerGridError: It is of a kind that no policy has.
    """
    if isinstance(space, gym.spaces.Dict):
        return {"kind": "Dict", "spaces": [[name, describe_space(part)] for name, part in space.spaces.items()]}
    if isinstance(space, gym.spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist()}
    if isinstance(space, gym.spaces.Box):
        return {"kind": "Box", "low": space.low.tolist(), "high": space.high.tolist(), "dtype": str(space.dtype)}
    raise PowerGridError(f"action space {space} is not supported")


def take_layers(
    arrays: Arrays, name: str, count: int, graph: MessagePassing | None = None, memory: GatedMemory | None = None
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Return the weights and biases of a network, layers that fit each other; a ValueError says what does not."""
    takes = dict(enumerate([own for own, _ in graph.layers] + [graph.outputs] if graph else []))
    gives = dict(enumerate([own for _, own in graph.layers] if graph else []))
    if graph and memory:
        raise ValueError(f"{name!r} has messages over a graph and a memory; no network has both")
    if graph and count < len(takes):
        raise ValueError(f"{name!r} has {count} layers; its messages over a graph take {len(takes)}")
    if memory and count < memory.place + 3:
        raise ValueError(f"{name!r} has {count} layers; a memory after {memory.place} takes {memory.place + 3}")
    weights = [_take(arrays, f"{name}/{i}/weight", np.float32, 2) for i in range(count)]
    biases = [_take(arrays, f"{name}/{i}/bias", np.float32, 1) for i in range(count)]
    if memory:
        at, told = memory.place, weights[memory.place].shape[1]
        gives |= {at: 3 * memory.width, at + 1: 3 * memory.width}
        takes |= {at + 1: memory.width, at + 2: told + memory.width}
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        given = takes[i] if i in takes else weights[i - 1].shape[0] if i else weight.shape[1]
        if i in gives and len(bias) != gives[i]:
            whose = "memory takes" if memory else "messages take"
            raise ValueError(f"layer {i} of {name!r} gives {len(bias)} numbers, its {whose} {gives[i]}")
        if weight.shape != (len(bias), given) or not weight.size:
            raise ValueError(f"layer {i} of {name!r} is {weight.shape} with {len(bias)} biases, after {given} inputs")
    return weights, biases


def take_filter(arrays: Arrays, agent: str, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and divisor of an agent's filter; a ValueError says what is wrong with them."""
    mean, divisor = (_take(arrays, f"filter/{agent}/{part}", np.float64, 1) for part in ("mean", "divisor"))
    if mean.shape != (width,) or divisor.shape != (width,) or not (divisor > 0.0).all():
        raise ValueError(f"filter of {agent!r}: means {mean.shape} and divisors {divisor.shape} above 0 of {width}")
    return mean, divisor


def _take(arrays: Arrays, name: str, kind: Any, ndim: int) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"array {name!r} is missing")
    array = arrays[name]
    if array.dtype.kind != "f" or array.ndim != ndim:
        raise ValueError(f"array {name!r} is {array.dtype} of shape {array.shape}, not {ndim}-dimensional numbers")
    with np.errstate(over="ignore"):
        taken = np.ascontiguousarray(array, dtype=kind)
    bad = int(np.count_nonzero(~np.isfinite(taken)))
    if bad:
        raise ValueError(f"array {name!r}: {bad} of {taken.size} numbers are not finite; the policy is damaged")
    return taken
