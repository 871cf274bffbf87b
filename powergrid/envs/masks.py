"""Action masks: which positions can be asked in the step to come and are delivered as asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from powergrid.errors import ActionError, ScenarioError, show_briefly
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
#: The least and the most of each action, see :meth:`powergrid.grid.simulation.Simulation.reach`.
Reach = tuple[FloatArray, FloatArray]


class ActionMasks:
    """Say which positions of some actions can be had now, one position after the other as ``MaskablePPO`` wants them.

    Args:
        columns: Column of the action vector of each action, in the order of the action space.
        sizes: Positions that each has to choose from, shape (n,).
        binned: Whether these are levels of a continuous action, evenly spaced from -1 to 1, shape (n,).

    Attributes:
        size: Length of a mask: all positions of all actions.
    """

    def __init__(self, columns: IntArray, sizes: IntArray, binned: BoolArray | None = None) -> None:
        self.size = int(sizes.sum())
        self._columns = np.repeat(columns, sizes)
        self._firsts = np.cumsum([0, *sizes[:-1].tolist()])[: len(sizes)]
        positions = np.arange(self.size) - np.repeat(self._firsts, sizes)
        levels = 2.0 * positions / np.maximum(np.repeat(sizes, sizes) - 1, 1) - 1.0
        self._values = positions.astype(np.float64)
        if binned is not None:
            self._values = np.where(np.repeat(binned, sizes), levels, self._values)

    def read(self, reach: Reach) -> BoolArray:
        """Return which positions can be had, shape (n_envs, size).

        Args:
            reach: The least and the most of each action, see :meth:`powergrid.grid.simulation.Simulation.reach`.
        """
        least, most = (each[:, self._columns] for each in reach)
        mask: BoolArray = (self._values >= least) & (self._values <= most)
        if self.size and not np.logical_or.reduceat(mask, self._firsts, axis=1).all():
            self._admit_nearest(mask, np.maximum(least - self._values, self._values - most))
        return mask

    def _admit_nearest(self, mask: BoolArray, missed_by: FloatArray) -> None:
        """Admit what comes nearest where none of the levels of a continuous action is within reach."""
        ends = [*self._firsts[1:].tolist(), self.size]
        for first, last in zip(self._firsts.tolist(), ends, strict=True):
            for env in np.flatnonzero(~mask[:, first:last].any(axis=1)).tolist():
                mask[env, first + int(missed_by[env, first:last].argmin())] = True


def add_mask(space: gym.spaces.Space[Any], size: int) -> gym.spaces.Dict:
    """Return the space of what is seen with a mask of some length beside it, as RLlib and PettingZoo have it."""
    return gym.spaces.Dict({"observations": space, "action_mask": gym.spaces.Box(0, 1, (size,), np.int8)})


def add_masks(seen: Mapping[str, Any], masks: Mapping[str, BoolArray]) -> dict[str, Any]:
    """Return what agents see with the masks of those that have one beside it, as in :func:`add_mask`."""
    return {
        name: {"observations": own, "action_mask": masks[name].astype(np.int8)} if name in masks else own
        for name, own in seen.items()
    }


def as_sample_mask(space: gym.spaces.Space[Any], mask: npt.NDArray[Any]) -> Any:
    """Return a flat mask as the ``sample`` of its action space takes it.

    Args:
        space: The action space.
        mask: As ``action_masks()`` or ``action_mask`` have it, shape (n,).

    Raises:
        ActionError: it has another length, or other values than 0 and 1.
    """
    if isinstance(space, gym.spaces.Dict):
        return {name: as_sample_mask(part, mask) for name, part in space.spaces.items()}
    if not isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return None
    given, size = np.asarray(mask), gym.spaces.flatdim(space)
    if given.shape != (size,):
        raise ActionError("mask", [f"has shape {given.shape}, expected ({size},), of all positions of {space}"])
    if not np.isin(given, (0, 1)).all():
        odd = show_briefly(given[~np.isin(given, (0, 1))][0].item())
        raise ActionError("mask", [f"holds {odd}; allowed are 0 and 1, true and false"])
    own = given.astype(np.int8)
    return own if isinstance(space, gym.spaces.Discrete) else tuple(np.split(own, np.cumsum(space.nvec)[:-1]))


class MaskTeller:
    """Tell action masks of one controller beside what it sees, or in its infos, as the scenario says.

    Args:
        scenario: The scenario.
        masks: Which of the controller's positions can be had.

    Attributes:
        beside: Where masks are told unasked: ``none`` where there is nothing to mask.
    """

    def __init__(self, scenario: Scenario, masks: ActionMasks) -> None:
        self._scenario, self._masks = scenario, masks
        self.beside = scenario.action_masks if self._masks.size else "none"

    def extend(self, n_observed: int) -> gym.spaces.Space[Any]:
        """Return the observation space of one environment in which so many numbers are seen."""
        box = gym.spaces.Box(-1.0, 1.0, (n_observed,), np.float32)
        return add_mask(box, self._masks.size) if self.beside == "observations" else box

    def show(self, seen: npt.NDArray[np.float32], reach: Reach) -> Any:
        """Return observations, shape (n_envs, n_observed), as in that space."""
        if self.beside != "observations":
            return seen
        return {"observations": seen, "action_mask": self.read(reach).astype(np.int8)}

    def read(self, reach: Reach) -> BoolArray:
        """Return masks, shape (n_envs, n).

        Raises:
            ScenarioError: no action has positions in this form.
        """
        if not self._masks.size:
            problem = (
                "no action has positions to mask; choose actions='multidiscrete', or 'mixed' where devices have any"
            )
            raise ScenarioError(self._scenario.name, [problem])
        return self._masks.read(reach)
