"""Policies that nobody trained: nothing, the feeder's own controls, chance, and engineers' rules.

A baseline acts on the whole batch of a :class:`GridTask` at once. How days are played is in ``rollout``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from powergrid.envs.task import GridTask
from powergrid.evaluation.rules import RuleBased
from powergrid.grid.ratings import find_switchgear

FloatArray = npt.NDArray[np.float64]


class Baseline(Protocol):
    """What plays a task without having been trained."""

    def reset(self, task: GridTask, env: int) -> None:
        """Get ready for the episode that an environment has just started."""

    def act(self, task: GridTask) -> FloatArray:
        """Give the actions of the step to come, shape (n_envs, n_actions)."""


class NoControl:
    """Leave every device to itself.

    Storage idles, inverters give all the sun at unity power factor, generators stay off, cars charge at once,
    flexible loads take what they want, switchgear stays where it is.
    """

    def reset(self, task: GridTask, env: int) -> None:
        """Nothing to get ready."""

    def act(self, task: GridTask) -> FloatArray:
        """Give the neutral actions."""
        return task.simulation.neutral()


class NativeControls:
    """Do as :class:`NoControl`, and let switchgear follow the feeder's own regulator and capacitor controls.

    It needs a task of a scenario with ``native_controls: true``. Switchgear that agents own is told to stay where
    the feeder's controls have put it.
    """

    def reset(self, task: GridTask, env: int) -> None:
        """Nothing to get ready."""

    def act(self, task: GridTask) -> FloatArray:
        """Give the neutral actions, with the switchgear where it now is."""
        simulation = task.simulation
        action = simulation.neutral()
        column = 0
        for fleet in simulation.fleets:
            columns = range(column, column + len(fleet.actions))
            column = columns.stop
            if fleet.kind not in ("regulator", "capacitor"):
                continue
            for place, spec in zip(columns, fleet.specs, strict=True):
                bounds = simulation.actions[place]
                for env, circuit in enumerate(simulation.circuits):
                    positions = circuit.taps if fleet.kind == "regulator" else circuit.steps_on
                    now = float(positions[find_switchgear(spec, circuit)])
                    action[env, place] = np.clip(now, bounds.low, bounds.high) - bounds.low
        return action


class RandomActions:
    """Draw every agent's action evenly from its space, from one stream an episode.

    Args:
        seed: With the day it starts the stream.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._streams: dict[int, np.random.Generator] = {}

    def reset(self, task: GridTask, env: int) -> None:
        """Start the stream of the day that the environment plays."""
        self._streams[env] = np.random.default_rng([self._seed, int(task.simulation.day[env]), 1])

    def act(self, task: GridTask) -> FloatArray:
        """Draw the actions."""
        action = task.simulation.neutral()
        owned = np.sort(np.concatenate([part for agent in task.agents for part in (agent.continuous, agent.discrete)]))
        sizes = np.array([spec.n for spec in task.simulation.actions])[owned]
        drawn = np.stack([self._streams[env].random(len(owned)) for env in range(task.n_envs)])
        action[:, owned] = np.where(sizes > 0, np.floor(drawn * sizes), 2.0 * drawn - 1.0)
        return action


@dataclass(frozen=True)
class BaselineEntry:
    """How a baseline is made, and what it changes in the scenario."""

    make: Callable[[int], Baseline]
    overrides: Mapping[str, Any] = field(default_factory=dict)


BASELINES: dict[str, BaselineEntry] = {
    "no_control": BaselineEntry(lambda seed: NoControl()),
    "native": BaselineEntry(lambda seed: NativeControls(), {"native_controls": True}),
    "rule_based": BaselineEntry(lambda seed: RuleBased()),
    "random": BaselineEntry(RandomActions),
}
"""The baselines by name."""


def baseline_names() -> list[str]:
    """Name the baselines."""
    return list(BASELINES)
