"""What a scenario may say about events; plain data, no network and no time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_range(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
"""One name or pattern (``*`` and ``?``), or several."""
StepRange = Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], BeforeValidator(_as_range)]
"""A number of steps, or the least and the most."""
HourRange = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], BeforeValidator(_as_range)]
"""A number of hours, or the least and the most."""


class EventSpec(BaseModel):
    """When an event happens; each kind adds what.

    It starts at ``at_step`` or ``at_hour``, else at a step drawn from ``between_hours`` (the whole episode where that
    is not given). It happens once at most, in an episode or not by ``probability``, or as often as ``rate_per_day``
    makes it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    branch_event: ClassVar[bool] = False

    at_step: int | None = Field(default=None, ge=0, description="Step it starts with.")
    at_hour: float | None = Field(default=None, ge=0, description="Hour of the episode it starts at.")
    between_hours: tuple[float, float] | None = Field(
        default=None, description="Hours of the episode between which its start is drawn."
    )
    probability: float = Field(default=1.0, gt=0, le=1, description="Probability that it happens in an episode.")

    rate_per_day: float | None = Field(
        default=None, gt=0, le=48, description="How often it happens on average in 24 hours, at random; each by itself."
    )

    @model_validator(mode="after")
    def _check(self) -> EventSpec:
        problems = list(self.find_problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def find_problems(self) -> Iterable[str]:
        """Yield everything wrong between the keys; kinds extend it."""
        given = [key for key in ("at_step", "at_hour", "between_hours") if getattr(self, key) is not None]
        if len(given) > 1:
            yield f"give at most one of at_step, at_hour and between_hours, not {' and '.join(given)}"
        if self.rate_per_day is not None:
            clash = [key for key in ("at_step", "at_hour") if getattr(self, key) is not None]
            clash += ["probability"] if self.probability != 1.0 else []
            if clash:
                yield f"rate_per_day draws how often and when; leave out {' and '.join(clash)}"
        for key in ("between_hours", "duration_steps", "duration_hours", "repair_steps"):
            value = getattr(self, key, None)
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                yield f"{key} {list(value)} does not go from the least to the most"


class LastingSpec(EventSpec):
    """An event that ends after a time of its own, or with the episode."""

    duration_steps: StepRange | None = Field(default=None, description="Steps it lasts, or least and most to draw.")
    duration_hours: HourRange | None = Field(default=None, description="Hours it lasts, or least and most to draw.")

    def find_problems(self) -> Iterable[str]:
        """Yield everything wrong between the keys."""
        yield from super().find_problems()
        if self.duration_steps is not None and self.duration_hours is not None:
            yield "give at most one of duration_steps and duration_hours; with neither it lasts to the episode's end"


class LineOutageSpec(LastingSpec):
    """A line or transformer is out of service: open at its first terminal in all phases."""

    branch_event: ClassVar[bool] = True

    kind: Literal["line_outage"] = Field(description="Kind of the event.")
    element: Names = Field(description="`Line.name` or `Transformer.name`; of several, or of a pattern, one is drawn.")


class GeneratorOutageSpec(LastingSpec):
    """A device, or a generating element of the feeder that is no device, delivers nothing."""

    branch_event: ClassVar[bool] = True

    kind: Literal["generator_outage"] = Field(description="Kind of the event.")
    device: Names | None = Field(default=None, description="Device with power; of several one is drawn.")
    element: Names | None = Field(
        default=None, description="`Generator.name` or `PVSystem.name` of the feeder; of several one is drawn."
    )

    def find_problems(self) -> Iterable[str]:
        """Yield everything wrong between the keys."""
        yield from super().find_problems()
        if (self.device is None) == (self.element is None):
            yield f"give exactly one of device and element, not {'neither' if self.device is None else 'both'}"


class FaultSpec(EventSpec):
    """A short circuit that lasts until switching takes the voltage off it, and then until it is repaired."""

    branch_event: ClassVar[bool] = True

    kind: Literal["fault"] = Field(description="Kind of the event.")
    bus: Names = Field(description="Bus it strikes; of several, or of a pattern, one is drawn.")
    phases: tuple[Annotated[int, Field(ge=1, le=3)], ...] | None = Field(
        default=None, min_length=1, description="Phases it strikes; all that the bus has if unset."
    )
    r_ohm: float = Field(default=0.01, gt=0, description="Resistance of the fault in each phase [ohm].")
    grounded: bool = Field(default=True, description="To ground; else between two phases.")
    cleared_by: str = Field(
        default="nearest",
        description="What opens: `nearest` (the nearest switch on the way to the source, else the nearest line), "
        "`agents` (nothing does by itself), or a `Line.name` or `Transformer.name`.",
    )
    clearing_steps: int = Field(default=0, ge=0, description="Steps with the fault on before that opens.")
    repair_steps: StepRange = Field(
        default=(8, 8), description="Steps without voltage until it is repaired, or least and most to draw."
    )

    def find_problems(self) -> Iterable[str]:
        """Yield everything wrong between the keys."""
        yield from super().find_problems()
        if self.phases is not None and len(set(self.phases)) != len(self.phases):
            yield f"phases {list(self.phases)} repeats a phase"
        if not self.grounded and (self.phases is None or len(self.phases) != 2):
            yield "a fault that is not grounded takes two phases"


class LoadStepSpec(LastingSpec):
    """Demand is multiplied by a factor."""

    kind: Literal["load_step"] = Field(description="Kind of the event.")
    loads: Names = Field(default=("*",), description="Loads by name or pattern; all of them.")
    factor: float = Field(ge=0, description="Factor on their demand.")


class PvStepSpec(LastingSpec):
    """Sun is multiplied by a factor: a cloud."""

    kind: Literal["pv_step"] = Field(description="Kind of the event.")
    factor: float = Field(ge=0, le=2, description="Factor on the power that the sun offers.")


class PriceSpikeSpec(LastingSpec):
    """The price of energy is multiplied by a factor, unannounced."""

    kind: Literal["price_spike"] = Field(description="Kind of the event.")
    factor: float = Field(ge=0, le=1000, description="Factor on the price of the tariff.")


AnyEventSpec = Annotated[
    LineOutageSpec | GeneratorOutageSpec | FaultSpec | LoadStepSpec | PvStepSpec | PriceSpikeSpec,
    Field(discriminator="kind"),
]
"""Any event, told apart by its ``kind``."""

EVENTS: dict[str, type[EventSpec]] = {
    "line_outage": LineOutageSpec,
    "generator_outage": GeneratorOutageSpec,
    "fault": FaultSpec,
    "load_step": LoadStepSpec,
    "pv_step": PvStepSpec,
    "price_spike": PriceSpikeSpec,
}
"""The spec of each kind."""


def widen_price(events: Mapping[str, Any], low: float, high: float) -> tuple[float, float]:
    """Return the bounds of a price [USD/kWh] that events may multiply, several at a time."""
    factors = [spec.factor for spec in events.values() if spec.kind == "price_spike"]
    least, most = (math.prod(bound(1.0, factor) for factor in factors) for bound in (min, max))
    reached = [price * factor for price in (low, high) for factor in (least, most)]
    return min(reached), max(reached)
