"""Everything about a simulation that is not its feeder, its devices or its profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

DivergencePolicy = Literal["terminate", "hold", "raise"]


@dataclass(frozen=True)
class SimulationOptions:
    """Everything about a simulation that is not the feeder, its devices or its profiles.

    Attributes:
        step_minutes: Length of a step [min].
        horizon_steps: Steps of an episode.
        split: Which days are drawn: train, validation, test or all.
        day_weights: How often by day, 1 where none is given.
        tariff: Name of the price series.
        load_scale: Factor on every load's nominal demand.
        price_scale: Factor on the price of the tariff.
        start_hour: Hour of the day of step 0 [h].
        latest_hour: Latest that it is drawn for any episode [h]; days are picked so that it fits.
        line_scales: Factors on resistance and reactance of lines that the feeder was changed by.
        load_classes: Demand class by load name or pattern; see :func:`assign_series`.
        shaped_loads: Names, lower case, of loads that follow their own LoadShape whatever the profiles are.
        load_seed: Seed of the draw of demand series for loads without a class.
        taps: Tap numbers at the start by regulator control, where not the feeder's own.
        steps_on: Capacitor steps at the start by capacitor, where not the feeder's own.
        norm_amps: Normal ratings [A] by branch, where not the feeder's own.
        rating_scale: Factor on the normal rating of every branch.
        native_controls: Let the feeder's own controls act on all that is no device.
        divergence: What a power flow that does not converge means.
        tolerance: Convergence tolerance of the power flow [pu].
        max_iterations: Limit of power-flow and control iterations.
        conductor_flows: Whether snapshots hold what flows in each conductor as well.
        events: Spec of each event by name.
        radial: Whether switching keeps the network radial; None follows neither that nor who is fed.
        keep_served: Whether switching keeps fed load fed; only where the network is kept radial.
    """

    step_minutes: int = 15
    horizon_steps: int = 96
    split: str = "train"
    day_weights: Mapping[int, float] = field(default_factory=dict)
    tariff: str = "time_of_use"
    load_scale: float = 1.0
    price_scale: float = 1.0
    start_hour: float = 0.0
    latest_hour: float = 0.0
    line_scales: tuple[float, float] = (1.0, 1.0)
    load_classes: Mapping[str, str] = field(default_factory=dict)
    shaped_loads: frozenset[str] = frozenset()
    load_seed: int = 0
    taps: Mapping[str, int] = field(default_factory=dict)
    steps_on: Mapping[str, int] = field(default_factory=dict)
    norm_amps: Mapping[str, float] = field(default_factory=dict)
    rating_scale: float = 1.0
    native_controls: bool = False
    divergence: DivergencePolicy = "terminate"
    tolerance: float = 1e-5
    max_iterations: int = 100
    conductor_flows: bool = False
    events: Mapping[str, Any] = field(default_factory=dict)
    radial: bool | None = None
    keep_served: bool = False
