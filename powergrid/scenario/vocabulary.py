"""The parts of a scenario: what each key may say. Plain validated data; builds nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from powergrid.grid.devices.spec import Phase
from powergrid.grid.feeder.network import Network
from powergrid.quantities import REWARD_TERMS

Mode = Literal["distributed", "centralized"]
#: What ``profiles.source`` may be besides a user's own table.
SHIPPED_SOURCES = ("builtin", "loadshapes")
#: Weight of each reward term where a scenario says nothing [USD per unit of the term].
REWARD_WEIGHTS = {term.name: term.weight for term in REWARD_TERMS if term.weight is not None}
if TYPE_CHECKING:
    RewardTerm = str
else:  # pydantic refuses any other key; a type checker wants names spelt out, and they are told once, in the table
    RewardTerm = Literal[tuple(REWARD_WEIGHTS)]


class Part(BaseModel):
    """A part of a scenario: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class ZoneSpec(Part):
    """Which buses an agent may see."""

    buses: tuple[str, ...] = Field(default=(), description="Buses of the zone by name.")
    downstream_of: str | None = Field(default=None, description="Bus; the zone is all that is fed through it.")
    until: tuple[str, ...] = Field(default=(), description="Buses from which on the zone belongs to somebody else.")
    phases: tuple[Phase, ...] = Field(
        default=(), description="Phases of the source, 1 to 3, whose nodes are of the zone; all if unset."
    )
    microgrid: str | None = Field(default=None, description="Microgrid by name; the zone is all its buses.")

    @model_validator(mode="after")
    def _one_way(self) -> ZoneSpec:
        if bool(self.buses) + (self.downstream_of is not None) + (self.microgrid is not None) != 1:
            raise ValueError("give exactly one of buses, downstream_of and microgrid")
        return self

    def find_buses(self, network: Network) -> list[int]:
        """Return the bus indices of the zone."""
        if self.microgrid is not None:
            own = next(m for m in network.microgrids if m.name == self.microgrid)
            return sorted(network.bus_index[bus] for bus in own.buses)
        if self.downstream_of is None:
            return sorted({network.bus_index[bus.lower()] for bus in self.buses})
        inside = set(network.downstream(self.downstream_of))
        for bus in self.until:
            inside -= set(network.downstream(bus))
        return sorted(inside)

    def names(self) -> Iterable[str]:
        """Name every bus that the zone refers to."""
        yield from self.buses
        yield from self.until
        if self.downstream_of is not None:
            yield self.downstream_of


class AgentSpec(Part):
    """Who decides over what, and what it may see."""

    devices: tuple[str, ...] = Field(min_length=1, description="Devices that the agent decides over.")
    zone: ZoneSpec = Field(description="Buses that the agent may see.")
    pcc: str = Field(description="Point of common coupling: the bus where the zone meets the rest.")


class ProfilesSpec(Part):
    """Where demand, sun and prices come from."""

    source: Any = Field(
        default="builtin",
        description="`builtin`, `loadshapes` (the feeder's own), a CSV or Parquet file, or a DataFrame.",
    )
    tariff: str = Field(default="time_of_use", description="Name of the price series.")
    load_classes: dict[str, str] = Field(
        default_factory=dict, description="Demand class by load name or pattern; others are drawn by `load_seed`."
    )
    load_seed: int = Field(default=0, ge=0, description="Seed of the draw of demand series for loads.")
    price_ahead_hours: tuple[float, ...] = Field(
        default=(1.0, 2.0, 4.0, 6.0, 9.0, 12.0), description="How far ahead agents know the price [h]."
    )

    @field_validator("price_ahead_hours")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0.0 < hours <= 48.0 for hours in value):
            raise ValueError(f"hours {value} are not all within 0..48")
        return value


class VoltageSpec(Part):
    """The band that node voltages shall stay in."""

    v_min_pu: float = Field(default=0.95, gt=0.5, lt=1.0, description="Lower limit [pu].")
    v_max_pu: float = Field(default=1.05, gt=1.0, lt=1.5, description="Upper limit [pu].")


class DivergenceSpec(Part):
    """What happens when the power flow does not converge."""

    policy: Literal["terminate", "hold", "raise"] = Field(
        default="terminate", description="End the episode, hold the last state, or raise ConvergenceError."
    )
    penalty: float = Field(default=50.0, ge=0, description="Taken from every agent's reward at such a step.")


class RewardSpec(Part):
    """How the named terms of the reward are weighed; each weight multiplies a cost, so it lowers the reward."""

    weights: dict[RewardTerm, float] = Field(
        default_factory=dict, description="Weight of each term [USD per unit of the term]; unnamed terms keep theirs."
    )
    scale: float = Field(default=0.01, gt=0, description="Factor that turns weighted USD into reward.")


class ReconfigurationSpec(Part):
    """Rules for switch devices; a move against them does not happen, and infos count it as held."""

    radial: Literal["keep", "free"] = Field(
        default="keep", description="Keep the network radial, or let switches close loops."
    )
    keep_served: bool = Field(default=False, description="Refuse to open what feeds load; only with `radial: keep`.")


class SolverSpec(Part):
    """How the power flow is solved."""

    tolerance: float = Field(default=1e-5, gt=0, le=1e-2, description="Convergence tolerance [pu].")
    max_iterations: int = Field(default=100, ge=2, description="Limit of power-flow and of control iterations.")
