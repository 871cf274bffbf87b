"""Actions told from what is observed: positions from where devices stand, numbers from what rules propose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from powergrid.grid.devices.switchgear import CapacitorFleet, RegulatorFleet, SwitchFleet
from powergrid.training.policies.spaces import box_size, position_counts

#: What stays where it was put until it is told otherwise, unlike a battery's power.
_STAYING = frozenset(fleet.state_name for fleet in (CapacitorFleet, RegulatorFleet, SwitchFleet))
#: Of a policy that has learnt nothing: how often a device stays, and the spread of how far it moves where not.
FIRST_STAY_SHARE, FIRST_MOVE_POSITIONS = 0.9, 2.0


@dataclass(frozen=True)
class StandingPositions:
    """Turn a network's outputs into logits of positions, which lean towards where each device stands.

    A network that gives one logit for each position has to learn anew, for every tap, that staying there is good; and
    until it has, it moves at every step. Here it gives two numbers more for each device that tells where it stands:
    what is added to the logit of that position, and what is added to all above it and taken from all below.

    Attributes:
        columns: Entry of the observation that tells where each device stands, -1..1 for its lowest and highest.
        firsts: Its first logit among the inputs of the action distribution.
        counts: Its number of positions.
        curves: What the square of a move takes from its logit.
        width: Number of inputs of the action distribution; the numbers more come after as many outputs.
    """

    columns: tuple[int, ...]
    firsts: tuple[int, ...]
    counts: tuple[int, ...]
    curves: tuple[float, ...]
    width: int

    @property
    def outputs(self) -> int:
        """How many numbers the network gives."""
        return self.width + 2 * len(self.columns)

    @cached_property
    def _constants(self) -> tuple[list[int], NDArray[Any], NDArray[Any]]:
        """Return each input's device, half the number of a device's moves, and by input what is multiplied with."""
        owner, place, mine, curve = np.zeros((4, self.width))
        for device, (first, count) in enumerate(zip(self.firsts, self.counts, strict=True)):
            own = slice(first, first + count)
            owner[own], place[own], mine[own], curve[own] = device, np.arange(count), 1.0, self.curves[device]
        half = (np.array(self.counts) - 1.0) / 2.0
        return owner.astype(int).tolist(), half.astype(np.float32), np.stack([place, mine, curve]).astype(np.float32)

    def place(self, outputs: Any, observations: Any, lib: Any = np) -> Any:
        """Return the inputs of the action distribution, shape (n, width).

        Args:
            outputs: What the network gives, shape (n, outputs), of numpy or of torch.
            observations: What it was given, shape (n, number observed).
            lib: ``numpy``, or ``torch``, whose operations an export writes down.
        """
        owner, half, by_input = self._constants
        if lib is not np:
            half, by_input = (lib.as_tensor(part, device=outputs.device) for part in (half, by_input))
        place, mine, curve = by_input
        stands = lib.round((observations[..., list(self.columns)] + 1.0) * half)
        away = (place - stands[..., owner]) * mine
        stay = outputs[..., self.width :: 2][..., owner] * mine
        above = outputs[..., self.width + 1 :: 2][..., owner]
        return outputs[..., : self.width] + stay * (away == 0) + above * lib.sign(away) - curve * away * away

    def describe(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class ProposedMeans:
    """Add what a network gives to the setpoints that rules propose, so that to do as they do is 0 everywhere.

    Where a bound is asked, or nothing, every bit that is added costs: noise around it costs the same wherever its
    mean is, so nothing draws the mean back. A deadband lets actions, drawn ones too, be as proposed where little is
    added.

    Attributes:
        columns: For each continuous action the entry of the observation that tells what is proposed, scaled alike.
        deadband: How far from what is proposed an action is as proposed; what is further is that much less far.

    Source:
        Silver et al., Residual Policy Learning, arXiv:1812.06298.
    """

    columns: tuple[int, ...]
    deadband: float = 0.0

    def place(self, inputs: Any, observations: Any, lib: Any = np) -> Any:
        """Return the inputs of the action distribution, means first, shape (n, width).

        Args:
            inputs: Those that the network gives, shape (n, width), of numpy or of torch.
            observations: What it was given, shape (n, number observed).
            lib: ``numpy``, or ``torch``, whose operations an export writes down.
        """
        means = len(self.columns)
        placed = inputs[..., :means] + observations[..., list(self.columns)]
        return lib.concatenate((placed, inputs[..., means:]), -1)

    def settle(self, actions: Any, observations: Any, lib: Any = np) -> Any:
        """Return what is played of actions, or of inputs whose means come first, shape (n, width): as :meth:`place`."""
        if not self.deadband:
            return actions
        means = len(self.columns)
        proposed = observations[..., list(self.columns)]
        added = actions[..., :means] - proposed
        settled = proposed + added - lib.clip(added, -self.deadband, self.deadband)
        return lib.concatenate((settled, actions[..., means:]), -1)

    def added(self, placed: Any, observations: Any) -> Any:
        """Return what a network gave that :meth:`place` added, shape (n, number of means)."""
        return placed[..., : len(self.columns)] - observations[..., list(self.columns)]

    def describe(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


def stand_by(space: gym.Space[Any], columns: tuple[int, ...], share: float) -> tuple[StandingPositions, list[float]]:
    """Return how positions of an action space lean towards where devices stand, and what staying is first worth.

    Args:
        space: The action space; its positions come after its continuous actions.
        columns: For each of its positions the entry of the observation that tells where the device stands, -1 where
            none does.
        share: 0: the first policy has no preference, 0.5: it stays nine times of ten, 1: more than that.

    Returns:
        The positions that have such an entry, and for each what staying adds to its logit at first.
    """
    width, firsts, counts, curves, stays = 2 * box_size(space), [], [], [], []
    curve = 2.0 * share / (2.0 * FIRST_MOVE_POSITIONS**2)
    for column, count in zip(columns, position_counts(space), strict=True):
        if column >= 0:
            firsts.append(width)
            counts.append(count)
            curves.append(curve)
            moves = sum(math.exp(-curve * (place - count // 2) ** 2) for place in range(count)) - 1.0
            odds = FIRST_STAY_SHARE / (1.0 - FIRST_STAY_SHARE)
            stays.append(2.0 * share * math.log(max(odds * moves, 1.0)))
        width += count
    told = tuple(column for column in columns if column >= 0)
    return StandingPositions(told, tuple(firsts), tuple(counts), tuple(curves), width), stays


def find_standing(
    actions: Mapping[int, str], observations: Mapping[str, int], observed: NDArray[Any], neutral: NDArray[Any],
    counts: list[int],
) -> tuple[int, ...]:  # fmt: skip
    """Return for each position of an agent's action the entry of its observation that tells where the device stands.

    Args:
        actions: Name of each position, ``device.tap`` or the like.
        observations: Entry of the observation by name.
        observed: What the agent sees.
        neutral: Its positions that move nothing.
        counts: Number of each.

    Returns:
        Entries, -1 where nothing of that name is observed or what is observed says something else.
    """
    columns = []
    for place, count in enumerate(counts):
        name = actions.get(place, "")
        column = observations.get(name, -1) if name.rpartition(".")[2] in _STAYING else -1
        stands = round((float(observed[column]) + 1.0) * (count - 1) / 2.0)
        columns.append(column if column >= 0 and stands == int(neutral[place]) else -1)
    return tuple(columns)


def find_proposed(actions: Mapping[int, str], observations: Mapping[str, int]) -> tuple[int, ...]:
    """Return for each continuous action of an agent the entry of its observation that tells what is proposed.

    Args:
        actions: Name of each, ``device.p_kw`` or the like, by its place.
        observations: Entry of the observation by name.

    Returns:
        Entries, none where what is proposed is not observed of all of them.
    """
    names = [actions[place].rpartition(".") for place in sorted(actions)]
    columns = [observations.get(f"{device}.proposed_{name}", -1) for device, _, name in names]
    return tuple(columns) if min(columns, default=-1) >= 0 else ()
