"""What may be said of a microgrid that is tied to a host feeder, and what becomes of it in the circuit; plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TransformerTie(_Part):
    """A transformer between the host's bus and the microgrid's, with the tie switch on the microgrid's side."""

    kind: Literal["transformer"] = Field(description="Kind of the tie.")
    s_max_kva: float = Field(gt=0, description="Rating [kVA].")
    x_percent: float = Field(default=5.75, gt=0, description="Leakage reactance [% of the rating].")
    r_percent: float = Field(default=1.0, ge=0, description="Resistance of both windings [% of the rating].")
    host_connection: Literal["wye", "delta"] = Field(
        default="wye", description="Connection on the host's side; the microgrid's is a grounded wye."
    )


class LineTie(_Part):
    """A line between buses of equal base voltage, which is the tie switch itself."""

    kind: Literal["line"] = Field(description="Kind of the tie.")
    length_km: float = Field(gt=0, description="Length [km].")
    r1_ohm_per_km: float = Field(ge=0, description="Positive-sequence resistance.")
    x1_ohm_per_km: float = Field(gt=0, description="Positive-sequence reactance.")
    r0_ohm_per_km: float = Field(ge=0, description="Zero-sequence resistance.")
    x0_ohm_per_km: float = Field(gt=0, description="Zero-sequence reactance.")
    c1_nf_per_km: float = Field(default=0.0, ge=0, description="Positive-sequence capacitance.")
    c0_nf_per_km: float = Field(default=0.0, ge=0, description="Zero-sequence capacitance.")
    norm_amps: float = Field(gt=0, description="Normal rating [A].")


class FormingSpec(_Part):
    """A grid-forming source at the microgrid's entry, at work while the tie is open."""

    p_max_kw: float = Field(gt=0, description="Most power it gives; beyond, consumption in the island is shed.")
    p_min_kw: float = Field(
        default=0.0, le=0, description="Least power, below 0 what it takes in; beyond, generation is curtailed."
    )
    v_pu: float = Field(default=1.0, gt=0.8, lt=1.2, description="Voltage it holds at the entry [pu].")
    cost_usd_per_kwh: float = Field(default=0.0, ge=0, description="Price of the energy it gives.")


class MicrogridSpec(_Part):
    """A feeder tied to a bus of the host feeder, under a prefix of its own."""

    feeder: str = Field(description="Name of a shipped feeder, or path of a master file.")
    bus: str = Field(description="Bus of the host feeder that it is tied to.")
    entry: str | None = Field(
        default=None,
        description="Its own bus where the tie ends; what lies between its source and that bus is left out. "
        "Its source's bus if unset.",
    )
    load_scale: float = Field(default=1.0, gt=0, le=100, description="Factor on the nominal demand of its loads.")
    tie: Annotated[TransformerTie | LineTie, Field(discriminator="kind")] = Field(
        description="How it is tied: `kind: transformer` or `kind: line`, each with keys of its own."
    )
    forming: FormingSpec | None = Field(
        default=None, description="Source that feeds it while the tie is open; without, it is dark then."
    )


@dataclass(frozen=True)
class Microgrid:
    """What became of a microgrid in a composed circuit.

    Attributes:
        name: As given, for example ``MG1``.
        buses: Its own buses under their new names.
        entry: The bus where the tie ends.
        tie: Name of the line that is the tie switch.
        source: Name of the Vsource that forms the grid while the tie is open, empty where it has none.
        forming: That source's ratings.
    """

    name: str
    buses: tuple[str, ...]
    entry: str
    tie: str
    source: str
    forming: FormingSpec | None
