"""What lies between an agent's own spaces and those of its policy: padding, one-hot, one number for many positions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

#: The key of an env_config that tells the environment's class and each agent's fit; see fitted_env.
FIT_KEY = "__fit__"
CONTINUOUS, DISCRETE = "continuous", "discrete"
FloatArray = NDArray[np.float32]
Space = gym.Space[Any]


@dataclass(frozen=True)
class AgentFit:
    """Turn what an agent observes into what its policy takes, and what its policy gives into the agent's action.

    Observations are padded with zeros and followed by a one-hot of the agent. Continuous actions are cut to the
    agent's own and scaled from [-1, 1] to its bounds; a position past an agent's last one is its last one. Where
    ``flat`` is set, the policy gives one number for all positions together.
    """

    own_space: Space  # the agent's action space
    own_width: int  # entries that the agent observes
    width: int  # entries that the policy takes, without the one-hot
    place: int  # the agent's place in the one-hot
    places: int  # length of the one-hot; 0: there is none
    action_space: Space  # that of the policy
    flat: bool = False  # whether that is a Discrete of all combinations of the agent's positions

    def observe(self, observations: NDArray[Any]) -> FloatArray:
        """Return what the policy takes, shape (n, width + places), of what the agent observes, shape (n, own_width)."""
        fitted = np.zeros((len(observations), self.width + self.places), np.float32)
        fitted[:, : self.own_width] = observations
        if self.places:
            fitted[:, self.width + self.place] = 1.0
        return fitted

    def act(self, actions: Any) -> Any:
        """Return the agent's actions of the policy's; n is the first axis of both."""
        if self.flat:
            sizes = position_counts(self.own_space)
            picked = np.unravel_index(np.minimum(actions, math.prod(sizes) - 1), sizes)
            return _split(self.own_space, None, np.stack(picked, axis=1))
        if isinstance(self.action_space, gym.spaces.Dict):
            return _split(self.own_space, actions[CONTINUOUS], actions[DISCRETE])
        if isinstance(self.action_space, gym.spaces.Box):
            return _split(self.own_space, actions, None)
        return _split(self.own_space, None, np.reshape(actions, (len(actions), -1)))

    def undo(self, action: Any) -> Any:
        """Return the policy's action of one of the agent's; entries that the agent has not are 0."""
        continuous, positions = _join(self.own_space, action)
        if self.flat:
            return int(np.ravel_multi_index(tuple(positions), position_counts(self.own_space)))
        if isinstance(self.action_space, gym.spaces.Dict):
            parts = self.action_space.spaces
            return {
                CONTINUOUS: _padded(continuous, parts[CONTINUOUS]),
                DISCRETE: _padded(positions, parts[DISCRETE]),
            }
        return _padded(continuous if isinstance(self.action_space, gym.spaces.Box) else positions, self.action_space)


def fit_policy(agents: Sequence[str], spaces: Mapping[str, Space], widths: Mapping[str, int]) -> dict[str, AgentFit]:
    """Let agents of unequal spaces share a policy; ``widths`` is how many entries each observes."""
    width = max(widths[agent] for agent in agents)
    common = common_space([spaces[agent] for agent in agents])
    return {
        agent: AgentFit(spaces[agent], widths[agent], width, place, len(agents), common)
        for place, agent in enumerate(agents)
    }


def common_space(spaces: Sequence[Space]) -> Space:
    """Return the space that holds every one of some: the most entries, and in each place the most positions."""
    boxes = max(box_size(space) for space in spaces)
    counts = [position_counts(space) for space in spaces]
    most = [max((each[i] for each in counts if i < len(each)), default=1) for i in range(max(map(len, counts)))]
    box = gym.spaces.Box(-1.0, 1.0, (boxes,), np.float32)
    if not most:
        return box
    positions = gym.spaces.MultiDiscrete(most)
    return gym.spaces.Dict({CONTINUOUS: box, DISCRETE: positions}) if boxes else positions


def flattened(fit: AgentFit, mates: Sequence[AgentFit]) -> AgentFit:
    """Let one number stand for all positions of an agent, out of as many as the mate with the most has."""
    most = max(math.prod(position_counts(mate.own_space)) for mate in mates)
    return replace(fit, action_space=gym.spaces.Discrete(most), flat=True)


def plain_fit(space: Space, width: int) -> AgentFit:
    """Return the fit of an agent that shares with nobody: its own observation, its actions in [-1, 1]."""
    return AgentFit(space, width, width, 0, 0, common_space([space]))


def box_size(space: Space) -> int:
    """Count the continuous entries of an action space."""
    return sum(int(np.prod(leaf.shape or ())) for leaf in leaves(space) if isinstance(leaf, gym.spaces.Box))


def position_counts(space: Space) -> list[int]:
    """Return the number of positions of each discrete entry of an action space."""
    counts: list[int] = []
    for leaf in leaves(space):
        if not isinstance(leaf, gym.spaces.Box):
            counts += [int(n) for n in np.ravel(getattr(leaf, "nvec", getattr(leaf, "n", ())))]
    return counts


def leaves(space: Space) -> Iterator[Space]:
    """Return the parts of an action space that are no Dict, in order."""
    if isinstance(space, gym.spaces.Dict):
        for part in space.spaces.values():
            yield from leaves(part)
    else:
        yield space


def _split(space: Space, continuous: Any, positions: Any) -> Any:
    """Hand out columns to the parts of a space; scale and clip them to its bounds."""
    taken = [0, 0]

    def give(part: Space) -> Any:
        if isinstance(part, gym.spaces.Dict):
            return {name: give(each) for name, each in part.spaces.items()}
        if isinstance(part, gym.spaces.Box):
            size = int(np.prod(part.shape))
            columns = continuous[:, taken[0] : taken[0] + size].reshape(-1, *part.shape)
            taken[0] += size
            scaled = part.low + (np.clip(columns, -1.0, 1.0) + 1.0) * (part.high - part.low) / 2.0
            return np.clip(scaled, part.low, part.high).astype(part.dtype)
        sizes = np.array(position_counts(part))
        columns = np.minimum(positions[:, taken[1] : taken[1] + len(sizes)], sizes - 1)
        taken[1] += len(sizes)
        if isinstance(part, gym.spaces.Discrete):
            return columns[:, 0] + int(part.start)
        return columns

    return give(space)


def _join(space: Space, action: Any) -> tuple[list[float], list[int]]:
    """Gather an action's continuous entries, scaled to [-1, 1], and its positions."""
    continuous: list[float] = []
    positions: list[int] = []

    def take(part: Space, value: Any) -> None:
        if isinstance(part, gym.spaces.Dict):
            for name, each in part.spaces.items():
                take(each, value[name])
        elif isinstance(part, gym.spaces.Box):
            span = np.where(part.high > part.low, part.high - part.low, 1.0)
            continuous.extend(np.ravel(2.0 * (np.asarray(value) - part.low) / span - 1.0).tolist())
        else:
            first = int(part.start) if isinstance(part, gym.spaces.Discrete) else 0
            positions.extend(int(each) - first for each in np.ravel(value))

    take(space, action)
    return continuous, positions


def _padded(values: Sequence[float], space: Space) -> NDArray[Any]:
    padded = np.zeros(space.shape or (), space.dtype)
    padded[: len(values)] = values
    return padded
