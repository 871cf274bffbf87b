"""What a scenario may say of its telemetry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from powergrid.errors import Problem
from powergrid.grid.devices.spec import Spec
from powergrid.grid.feeder.network import Network

#: Largest error of a reading by the class of its meter, in parts of the reading.
#: Source: IEC 62053-22 and IEC 61869 at rated load for the classes; for a PMU what vendors state of magnitudes, within
#: the 1 % of total vector error that IEEE C37.118.1 allows.
ACCURACY = {"class_0_5": 0.005, "class_1_0": 0.01, "pmu": 0.001}


class LinkSpec(Spec):
    """How often something is sent, how long it takes, and how much of it is lost."""

    every_minutes: int = Field(
        default=0, ge=0, le=1440, description="Time between two that are sent, from midnight [min]; 0: in every step."
    )
    delay_minutes: float = Field(
        default=0.0,
        ge=0,
        le=1440,
        description="Time on the way [min]; what arrives within a step counts from the next.",
    )
    delay_spread_minutes: float = Field(
        default=0.0, ge=0, le=1440, description="Time on the way beyond that at the most, drawn evenly each time [min]."
    )
    loss: float = Field(
        default=0.0, ge=0, lt=1, description="Part of what is sent that never arrives, drawn each time."
    )

    @property
    def ideal(self) -> bool:
        """Whether all that is sent arrives at once, in every step."""
        return not (self.every_minutes or self.delay_minutes or self.delay_spread_minutes or self.loss)

    def say(self) -> list[str]:
        """Return in words what is not perfect."""
        first, last = self.delay_minutes, self.delay_minutes + self.delay_spread_minutes
        found = [f"every {self.every_minutes} min"] if self.every_minutes else []
        found += [f"{first:g} to {last:g} min late"] if last > first else [f"{first:g} min late"] if first else []
        return found + ([f"{100.0 * self.loss:.3g} % lost"] if self.loss else [])

    def find_problems(self, where: str, step_minutes: int, horizon_minutes: float) -> Iterator[Problem]:
        """Yield what cannot be in steps and episodes of some length."""
        every, longest = self.every_minutes, self.delay_minutes + self.delay_spread_minutes
        if every % step_minutes:
            text = f"every_minutes {every} is no multiple of step_minutes {step_minutes}"
            remedy = f"take {max(1, round(every / step_minutes)) * step_minutes}, or 0 for every step"
            yield Problem("bad-value", where, text, remedy)
        if self.delay_minutes >= horizon_minutes or longest > 1440:
            text = f"a delay of {longest:g} min is longer than the episode of {horizon_minutes:g} min, or than a day"
            yield Problem("bad-value", where, text, "nothing would arrive: lower delay_minutes")


class NewsSpec(LinkSpec):
    """What is seen of numbers that are sent, where one is missing."""

    on_loss: Literal["hold", "mask", "both"] = Field(
        default="hold",
        description="What is seen where a reading is missing: the last one (`hold`), the middle of the bounds with a "
        "channel that says so (`mask`), or the last one with that channel (`both`).",
    )
    age: bool = Field(default=False, description="Whether a channel tells how old what is seen is [min].")


class ReadingsSpec(NewsSpec):
    """What becomes of some readings on their way to those who decide."""

    channels: tuple[str, ...] = Field(
        default=("*",),
        min_length=1,
        description="Names of channels, or patterns; a channel is of the first group that names it.",
    )
    accuracy: Literal["class_0_5", "class_1_0", "pmu"] | None = Field(
        default=None,
        description="Class of the meters: `noise` of a third of its largest error (0.5, 1 and 0.1 % of the reading).",
    )
    noise: float | None = Field(
        default=None, ge=0, le=1, description="Standard deviation of an error drawn for each reading, of the reading."
    )
    bias: float = Field(
        default=0.0, ge=0, le=1, description="The same of an error that stays for the episode, drawn for each channel."
    )
    resolution: float = Field(
        default=0.0, ge=0, description="Readings are multiples of it, in the unit of the channel; 0: any number."
    )

    def say(self) -> list[str]:
        """Return in words what is not perfect."""
        errors = {"noise": self.spread, "bias": self.bias}
        found = [f"{word} {100.0 * value:.2g} %" for word, value in errors.items() if value]
        return super().say() + found + ([f"in steps of {self.resolution:g}"] if self.resolution else [])

    @model_validator(mode="after")
    def _one_noise(self) -> ReadingsSpec:
        if self.accuracy is not None and self.noise is not None:
            raise ValueError(f"accuracy {self.accuracy!r} and noise {self.noise:g} both say how exact; leave out one")
        return self

    def find_resolution(self, low: float, high: float) -> float:
        """Return what readings of a channel are multiples of, 0 for any number."""
        return self.resolution

    @property
    def spread(self) -> float:
        """Standard deviation of the error of each reading, in parts of it."""
        return ACCURACY[self.accuracy] / 3.0 if self.accuracy is not None else self.noise or 0.0

    @property
    def idle(self) -> bool:
        """Whether all is seen as it is, and nothing more."""
        marked = self.age or self.on_loss != "hold"
        return self.ideal and not (self.spread or self.bias or self.resolution or marked)


class MessagesSpec(NewsSpec):
    """What one agent tells others of what it is told itself."""

    spread: ClassVar[float] = 0.0
    bias: ClassVar[float] = 0.0
    idle: ClassVar[bool] = False

    sender: str = Field(description="The agent that tells.")
    to: tuple[str, ...] = Field(default=(), description="Agents that hear it; all others if unset.")
    channels: tuple[str, ...] = Field(
        min_length=1, description="What it tells: names of channels of its zone and devices, or patterns."
    )
    bits: int | None = Field(
        default=None, ge=1, le=32, description="Bits of each number, between the bounds of its channel; exact if unset."
    )

    def find_resolution(self, low: float, high: float) -> float:
        """Return what numbers between some bounds are multiples of, 0 for any number."""
        return 0.0 if self.bits is None else (high - low) / (2**self.bits - 1)


class SetpointsSpec(LinkSpec):
    """What becomes of some setpoints on their way to the devices."""

    devices: tuple[str, ...] = Field(
        default=("*",),
        min_length=1,
        description="Names of devices, patterns, or kinds; a device is of the first group that names it.",
    )
    fallback: Literal["hold", "neutral"] = Field(
        default="hold",
        description="What a device does where a setpoint is missing: goes on with the last one (`hold`), or is left to "
        "itself until the next arrives (`neutral`). Before the first one it is left to itself.",
    )


class TelemetrySpec(Spec):
    """What agents are told of the grid and when, and when devices hear from agents."""

    metered_buses: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Buses where voltages are measured; those of zones and network are of these alone. All if unset.",
    )
    hops: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Agents see their devices, the world, and voltages of buses up to so many branches away from their "
        "devices (0: where these are) in place of their zone; with `mode: distributed`.",
    )
    readings: dict[str, ReadingsSpec] = Field(default_factory=dict, description="What agents see, by groups.")
    setpoints: dict[str, SetpointsSpec] = Field(default_factory=dict, description="What devices get, by groups.")
    messages: dict[str, MessagesSpec] = Field(default_factory=dict, description="What agents tell each other, by name.")

    @model_validator(mode="after")
    def _names_differ(self) -> TelemetrySpec:
        both = sorted(set(self.readings) & set(self.messages))
        if both:
            raise ValueError(f"readings and messages both have {both[0]!r}, which names channels; rename one")
        return self

    def say(self) -> str:
        """Return in words what is not perfect, empty where nothing is."""
        found = [] if self.metered_buses is None else [f"{len(self.metered_buses)} metered buses"]
        found += [] if self.hops is None else [f"{self.hops} hops"]
        groups: dict[str, Mapping[str, LinkSpec]]
        groups = {"readings": self.readings, "messages": self.messages, "setpoints": self.setpoints}
        for what, own in groups.items():
            told = ((name, group.say()) for name, group in own.items() if group.say() or what == "messages")
            found += [f"{what} {name} ({', '.join(words)})" if words else f"{what} {name}" for name, words in told]
        return "; ".join(found)

    @property
    def idle(self) -> bool:
        """Whether it changes nothing."""
        groups = [*self.readings.values()], [*self.setpoints.values()]
        silent = all(group.idle for group in groups[0]) and all(group.ideal for group in groups[1])
        return silent and self.metered_buses is None and self.hops is None and not self.messages

    def find_problems(self, network: Network, step_minutes: int, horizon_minutes: float) -> Iterator[Problem]:
        """Yield what cannot be on a network, in steps and episodes of some length."""
        for bus in self.metered_buses or ():
            found = network.find_bus(bus, where="telemetry.metered_buses")
            if isinstance(found, Problem):
                yield found
        groups: dict[str, Mapping[str, LinkSpec]]
        groups = {"readings": self.readings, "setpoints": self.setpoints, "messages": self.messages}
        for key, own in groups.items():
            for name, group in own.items():
                yield from group.find_problems(f"telemetry.{key}.{name}", step_minutes, horizon_minutes)
