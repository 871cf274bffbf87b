"""What a scenario may say about what is to be discovered, placed and who decides; plain validated data."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Layout = Literal["per_zone", "per_device", "per_class", "per_phase", "single"]
#: How agents may be formed.
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Names = tuple[str, ...]


class Options(BaseModel):
    """What a user may set: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DiscoverSpec(Options):
    """Which of the feeder's elements become devices.

    ``true`` takes all of a kind, the largest ``max_per_kind`` of them; a list of names or patterns takes just these,
    however many.
    """

    regulators: bool | Names = Field(default=True, description="Windings that a RegControl moves.")
    tap_changers: Literal["auto", "all", "none"] | Names = Field(
        default="auto",
        description="Transformers with taps and no RegControl: `auto` takes those between medium voltages for which "
        "the model gives a tap range or a tap off nominal, or whose sides have the same voltage.",
    )
    capacitors: bool | Names = Field(default=True, description="Shunt capacitors, with a CapControl or without.")
    storage: bool | Names = Field(default=True, description="Storage elements.")
    pv: bool | Names = Field(default=True, description="PVSystem elements.")
    generators: bool | Names = Field(default=True, description="Generator elements.")
    switches: Literal["auto", "all", "none"] | Names = Field(
        default="auto",
        description="Switchable lines: `auto` takes those that can be opened, all together, without an outage, and "
        "open ties that may be closed.",
    )
    flexible_loads: Annotated[int, Field(ge=0)] | Names = Field(
        default=0, description="Loads that may defer demand: the number of the largest, or names."
    )
    max_per_kind: int = Field(default=32, ge=1, description="Most devices of a kind; those with the highest rating.")


class AddDerSpec(Options):
    """How much sun and storage is placed on a feeder."""

    penetration: float = Field(gt=0, le=5, description="Rated power of all panels over the feeder's nominal demand.")
    storage_share: float = Field(
        default=0.5, ge=0, le=5, description="Rated power of each battery over that of the panels beside it."
    )
    storage_hours: float = Field(default=4.0, gt=0, le=48, description="Hours a battery lasts at its rated power [h].")
    sites: int | None = Field(
        default=None,
        ge=1,
        description="Number of buses that get panels; the root of the number of load buses if unset.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw of buses.")


class LayoutSpec(Options):
    """How agents are formed."""

    layout: Layout = Field(description="One agent a zone, a device, a kind of devices, a phase, or one in all.")
    zones: int | None = Field(
        default=None, ge=1, description="Most zones, with `per_zone`; by the size of the feeder if unset."
    )
