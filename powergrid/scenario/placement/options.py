"""What a scenario may say about its way to another feeder, and what came of it; plain validated data."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

Rule = Literal["load", "distance", "phase"]
#: By what rules devices and zones may be placed on another feeder.
RULES: tuple[Rule, ...] = get_args(Rule)


class PlacementSpec(BaseModel):
    """How devices and zones are placed on a feeder that they were not made for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Rule | None = Field(
        default=None,
        description="`load` (where demand is), `distance` (as far from the source) or `phase` (same phases); if unset, "
        "names must fit.",
    )
    map: dict[str, str | None] = Field(
        default_factory=dict,
        description="What a bus or `Class.name` of the old feeder is on the new one; null leaves a device out. Goes "
        "before the rule.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of what a rule draws.")
    scale_ratings: bool | None = Field(
        default=None,
        description="Whether ratings are multiplied by the ratio of the feeders' nominal demand; if unset, where a "
        "rule places.",
    )
    scale_rewards: bool | None = Field(
        default=None,
        description="Whether `reward.scale` and `penalty` follow nominal demand and number of nodes; if unset, where a "
        "rule places.",
    )
    home: str | None = Field(
        default=None, description="Feeder that the names are of; if unset, the one that `feeder` replaces."
    )

    @field_validator("map", mode="before")
    @classmethod
    def _plain_names(cls, value: Any) -> Any:
        """Take numbers for names, as YAML gives buses that are written without quotes."""
        if not isinstance(value, dict):
            return value
        plain = [(k, v) for k, v in value.items()]
        return {str(k) if type(k) is int else k: str(v) if type(v) is int else v for k, v in plain}


class PlacedSpec(BaseModel):
    """What came of placing a scenario on another feeder: a record, which nothing reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: str = Field(default="", description="Feeder that the scenario was made for; empty where it is this one.")
    load_ratio: float = Field(default=1.0, gt=0, description="Nominal demand of this feeder over that one's.")
    moves: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="By key: what stood there, what stands there now, and why."
    )
    left_over: tuple[str, ...] = Field(default=(), description="What has no counterpart on either feeder.")
