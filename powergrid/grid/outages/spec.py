"""What a scenario may say about events, and when by that they happen in an episode; knows no network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, model_validator
from scipy.special import pdtr

from powergrid.grid.devices.spec import Spec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Beyond how small a probability more occurrences of an event in an episode are left out.
_NEVER = 1e-6


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_range(value: Any) -> Any:
    # True is an int in Python, and no number of steps
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
"""One name or pattern (``*`` and ``?``), or several."""
StepRange = Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], BeforeValidator(_as_range)]
"""A number of steps, or the least and the most."""
HourRange = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], BeforeValidator(_as_range)]
"""A number of hours, or the least and the most."""


class EventSpec(Spec):
    """When an event happens; each kind adds what.

    It starts at ``at_step`` or ``at_hour``, else at a step drawn from ``between_hours`` (the whole episode where that
    is not given). It happens once at most, in an episode or not by ``probability``, or as often as ``rate_per_day``
    makes it.
    """

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


class Timetable:
    """The events of n environments.

    Args:
        specs: Spec of each event by name.
        n_targets: How many targets each event may have, of which one is drawn.
        dt_h: Length of a step [h].
        horizon_steps: Steps of an episode.
        n_envs: Number of environments.

    Attributes:
        names: Names of the events; one that has a rate is there as often as it may happen, from the second time on
            with its number, as ``storm#2``.
        of_event: Which of the events each is, shape (n_times,).
        start: First step of each event, the horizon where it does not happen, shape (n_envs, n_times).
        end: Step after its last by the timetable; a fault ends by repair, shape (n_envs, n_times).
        target: Which of its targets, shape (n_envs, n_times).
        repair_steps: Steps that a fault takes to repair, shape (n_envs, n_times).
        left_steps: Steps that are left of them; 1 for all other events, shape (n_envs, n_times).
    """

    memory: ClassVar[tuple[str, ...]] = ("start", "end", "target", "repair_steps", "left_steps")

    def __init__(
        self, specs: Mapping[str, Any], n_targets: Sequence[int], dt_h: float, horizon_steps: int, n_envs: int
    ) -> None:
        self._dt_h, self._horizon = dt_h, horizon_steps
        self._odds = [self._odds_of(spec) for spec in specs.values()]
        self._specs_by_event = tuple(specs.values())
        times = [range(len(odds)) for odds in self._odds]
        self.names = tuple(f"{name}#{k + 1}" if k else name for name, ks in zip(specs, times, strict=True) for k in ks)
        self.of_event = np.repeat(np.arange(len(times)), [len(ks) for ks in times])
        self._nth = [k for ks in times for k in ks]
        self._specs = tuple([*specs.values()][event] for event in self.of_event.tolist())
        self._n_targets = tuple(n_targets[event] for event in self.of_event.tolist())
        self.is_fault = np.array([spec.kind == "fault" for spec in self._specs], dtype=bool)
        self._clearing = np.array([getattr(spec, "clearing_steps", 0) for spec in self._specs], dtype=np.int64)
        shape = (n_envs, len(self.names))
        self.start, self.end, self.target, self.repair_steps, self.left_steps = np.zeros((5, *shape), dtype=np.int64)

    def draw(self, env: int, rng: np.random.Generator, specs: Sequence[Any] | None = None) -> None:
        """Draw the events of an episode; as many numbers whatever they say, so that one does not shift the others.

        Args:
            env: Which environment.
            rng: Draws them.
            specs: What is said of each event in it, where not what is said in all.
        """
        count = 0
        own = self._specs if specs is None else [specs[event] for event in self.of_event.tolist()]
        for i, (spec, n_targets) in enumerate(zip(own, self._n_targets, strict=True)):
            luck, when, how_long = rng.random(3)
            self.target[env, i] = rng.integers(n_targets)
            if self._nth[i] == 0:
                count = self._count(int(self.of_event[i]), spec, luck)
            start = self._start_of(spec, when) if self._nth[i] < count else self._horizon
            lasts = self._steps_of(spec, how_long)
            self.start[env, i] = start
            # a fault ends by repair alone, which who feeds it decides
            self.end[env, i] = self._horizon if lasts is None or self.is_fault[i] else min(start + lasts, self._horizon)
            self.repair_steps[env, i] = self.left_steps[env, i] = lasts if lasts and self.is_fault[i] else 1

    def _odds_of(self, spec: Any) -> FloatArray:
        """Return the probability that an event happens at most 0, 1, ... times, up to the most reckoned with."""
        if spec.rate_per_day is None:
            return np.array([1.0 - spec.probability])
        first, last = self._window(spec)
        mean = spec.rate_per_day * max(last - first + 1, 0) * self._dt_h / 24.0
        counts = np.arange(int(mean + 10.0 * mean**0.5) + 10, dtype=np.float64)
        odds: FloatArray = np.asarray(pdtr(counts, mean), dtype=np.float64)  # Poisson's distribution
        return odds[: max(1, int(np.searchsorted(odds, 1.0 - _NEVER)))]

    def _count(self, event: int, spec: Any, luck: float) -> int:
        """Return how often an event happens in an episode."""
        if spec.rate_per_day is None:
            return int(luck < spec.probability)
        odds = self._odds[event] if spec is self._specs_by_event[event] else self._odds_of(spec)
        return int(np.searchsorted(odds, luck, side="right"))

    def _window(self, spec: Any) -> tuple[int, int]:
        """Return the first and the last step that an event may start with."""
        first, last = spec.between_hours or (0.0, np.inf)
        low = int(np.ceil(first / self._dt_h - 1e-9))  # 8.3 h in steps of a minute are 498.00000000000006
        return low, int(min(np.floor(last / self._dt_h + 1e-9), self._horizon - 1))

    def _start_of(self, spec: Any, when: float) -> int:
        if spec.at_step is not None:
            return int(spec.at_step)
        if spec.at_hour is not None:
            return int(np.rint(spec.at_hour / self._dt_h))
        low, high = self._window(spec)
        return low + int(when * (max(high - low, 0) + 1))

    def _steps_of(self, spec: Any, how_long: float) -> int | None:
        """Return how long an event lasts, or a fault takes to repair; None is to the end."""
        steps = getattr(spec, "repair_steps", None) or getattr(spec, "duration_steps", None)
        hours = getattr(spec, "duration_hours", None)
        if steps is None and hours is not None:
            steps = tuple(max(1, round(value / self._dt_h)) for value in hours)
        if steps is None:
            return None
        low, high = steps
        return int(low + int(how_long * (high - low + 1)))

    def happening(self, step: IntArray) -> BoolArray:
        """Whether each event is on at a step of each environment, shape (n_envs, n_times)."""
        now = step[:, None]
        on: BoolArray = (self.start <= now) & (now < self.end) & (self.left_steps > 0)
        return on

    def clearing(self, step: IntArray, on: BoolArray) -> BoolArray:
        """Whether what clears each fault that is on has opened, shape (n_envs, n_times)."""
        opened: BoolArray = on & self.is_fault & (step[:, None] >= self.start + self._clearing)
        return opened

    def next_change(self, step: IntArray, on: BoolArray) -> IntArray:
        """Return the next step in which any event may begin, end or be cleared, shape (n_envs,).

        Args:
            step: Step of each environment, shape (n_envs,).
            on: Events that are on in it, shape (n_envs, n_times).
        """
        moments = np.concatenate((self.start, self.start + self._clearing, self.end), axis=1)
        later = np.where(moments > step[:, None], moments, self._horizon).min(axis=1, initial=self._horizon)
        # a fault may be repaired in any step, which who is fed decides
        soonest: IntArray = np.where((on & self.is_fault).any(axis=1), step + 1, later)
        return soonest

    def repair(self, on: BoolArray, without_voltage: BoolArray) -> None:
        """Go on with the repair of faults that have no voltage; one that gets it back is repaired from the start.

        Args:
            on: Events that are on, shape (n_envs, n_times).
            without_voltage: Events whose place has no voltage, shape (n_envs, n_times).
        """
        working = on & self.is_fault
        self.left_steps[:] = np.where(
            working, np.where(without_voltage, self.left_steps - 1, self.repair_steps), self.left_steps
        )
