"""From a compiled feeder to a scenario's plain data: devices, zones, agents, profiles, reward."""

from __future__ import annotations

from powergrid.scenario.discovery.inference import (
    Inference,
    Summary,
    infer,
    is_layout,
    leaves_something,
    summarise,
    survey_of,
)
from powergrid.scenario.discovery.wishes import LAYOUTS, AddDerSpec, DiscoverSpec, LayoutSpec

__all__ = [
    "LAYOUTS",
    "AddDerSpec",
    "DiscoverSpec",
    "Inference",
    "LayoutSpec",
    "Summary",
    "infer",
    "is_layout",
    "leaves_something",
    "summarise",
    "survey_of",
]
