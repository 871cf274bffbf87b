"""What needs no thought: nothing, the feeder's own controls, chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.grid.circuit.circuit import network_of
from powergrid.scenario import Scenario, model

FloatArray = npt.NDArray[np.float64]


class NoControl:
    """Leave every device to itself.

    Storage idles, inverters give all the sun at unity power factor, generators stay off, cars charge at once,
    flexible loads take what they want, switchgear stays where it is.
    """

    def reset(self, task: GridTask, env: int) -> None:
        """Nothing to get ready."""

    def act(self, task: GridTask) -> FloatArray:
        """Return the neutral actions."""
        return task.simulation.neutral()


def leave_to_itself(scenario: Scenario) -> dict[str, Any]:
    """Return the overrides that leave what nobody moves where it is: without a limit that hands devices back."""
    return {} if scenario.never_worse_than is None else {"never_worse_than": None}


def leave_to_feeder(scenario: Scenario) -> dict[str, Any]:
    """Return the overrides that leave a feeder to itself: its own controls, and what the model says of its elements."""
    devices = model.leave_to_feeder(scenario.devices, network_of(scenario.read_feeder()).controls)
    return {"native_controls": True, "devices": devices, **leave_to_itself(scenario)}


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
        # In the order of the devices, whoever owns them: another layout of agents meets the same draws.
        owned = np.sort(np.concatenate([part for agent in task.agents for part in (agent.continuous, agent.discrete)]))
        sizes = np.array([spec.n for spec in task.simulation.actions])[owned]
        # One stream for each environment: what is drawn does not depend on how many play at once.
        drawn = np.stack([self._streams[env].random(len(owned)) for env in range(task.n_envs)])
        action[:, owned] = np.where(sizes > 0, np.floor(drawn * sizes), 2.0 * drawn - 1.0)
        return action
