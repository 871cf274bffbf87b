"""What every device kind shares: the base of its spec and the tables of its actions and states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class DeviceSpec(BaseModel):
    """What YAML may say about any device; each kind adds its own keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class ActionSpec:
    """One scalar that an agent decides.

    Continuous actions arrive normalised in [-1, 1] and stand for ``low..high`` in ``unit``; discrete
    ones arrive as the integers 0..n-1 and stand for ``low + index``.
    """

    device: str
    name: str
    unit: str
    low: float
    high: float
    n: int = 0

    @property
    def discrete(self) -> bool:
        """Whether the action is an integer position."""
        return self.n > 0


@dataclass(frozen=True)
class StateSpec:
    """One observable number of a device: bounds are physical, in ``unit``."""

    device: str
    name: str
    unit: str
    low: float
    high: float


@dataclass
class Exogenous:
    """The outside world during one step, for every environment.

    Attributes:
        step: Step of the episode, 0-based, shape (n_envs,).
        sun_kw: Power the sun offers each inverter [kW], shape (n_envs, n_inverters).
        demand_kw: What each flexible load would take untouched [kW], >= 0, shape (n_envs, n_flexible_loads).
    """

    step: IntArray
    sun_kw: FloatArray
    demand_kw: FloatArray


@dataclass(frozen=True)
class Placement:
    """Where a device sits, for the circuit: at a bus (added) or on an element (bound)."""

    bus: str | None = None
    phases: tuple[int, ...] = field(default=())
    element: str | None = None


DiscreteOrContinuous = Literal["discrete", "continuous"]
