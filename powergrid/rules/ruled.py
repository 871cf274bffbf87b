"""What rules ask of the task that they play in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from powergrid.grid.metrics import Metrics
from powergrid.grid.simulation import Simulation
from powergrid.scenario import Scenario


class RuledAgent(Protocol):
    """Who decides over devices."""

    @property
    def devices(self) -> Sequence[str]:
        """Names of its devices."""


class Zones(Protocol):
    """Where agents' zones lie."""

    @property
    def loads_in(self) -> npt.NDArray[np.float64]:
        """Part of each load that is in a zone, shape (n_loads, n_zones)."""


class RuledTask(Protocol):
    """A decision problem in n environments, as :class:`powergrid.envs.core.GridTask` is one."""

    @property
    def n_envs(self) -> int:
        """Number of environments."""

    @property
    def scenario(self) -> Scenario:
        """The scenario."""

    @property
    def simulation(self) -> Simulation:
        """What is simulated."""

    @property
    def metrics(self) -> Metrics:
        """What was measured of the last solve."""

    @property
    def channels(self) -> Zones:
        """Where agents' zones lie."""

    @property
    def agents(self) -> Sequence[RuledAgent]:
        """The agents, one for each zone."""
