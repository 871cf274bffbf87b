"""What requests and answers hold, for the documentation of the interface."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from powergrid.advice.answer import Input, Setpoint
from powergrid.errors import Problem


class ReadingsData(BaseModel):
    """Readings of one time; numbers by name may also stand alone, without the key readings."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {"time": "2026-07-01T14:00", "readings": {"675.1.v_pu": 0.98, "battery_1.soc_percent": 55}}
        },
    )

    time: str | None = Field(None, description="When they are of, ISO 8601, on the feeder's clock; now if not given.")
    readings: dict[str, Any] | list[dict[str, Any]] = Field(
        description="Numbers by name, or mappings of name, value and, if wanted, unit and time; names as in /spec."
    )


class AdviceData(BaseModel):
    """Advice: see docs/advice.md for what each word means."""

    time: str
    valid_minutes: float
    setpoints: list[Setpoint]
    coverage: dict[str, float]
    fallbacks: dict[str, str]
    problems: list[Problem]
    inputs: list[Input]
    profile_date: str


class HealthData(BaseModel):
    """That it answers."""

    status: str
    version: str
    advice_given: int


class SpecData(BaseModel):
    """What is read and set."""

    scenario: str
    feeder: str
    step_minutes: float
    agents: dict[str, list[str]]
    fallback: str
    min_coverage: float
    max_age_minutes: float
    units: str
    readings: list[dict[str, Any]]
    setpoints: list[dict[str, Any]]


class LogData(BaseModel):
    """Advice beside what was done."""

    entries: list[dict[str, Any]]
    summary: list[dict[str, Any]]


class DoneData(BaseModel):
    """What was taken of what was said to be done."""

    taken: int
    problems: list[Problem]


class ErrorData(BaseModel):
    """An error."""

    error: Problem
