"""From a compiled feeder to a scenario's plain data: devices, zones, agents, profiles, reward."""

from __future__ import annotations

from powergrid.scenario.discovery.inference import infer, is_layout, leaves_something, summarise
from powergrid.scenario.discovery.options import LAYOUTS, AddDerSpec, DiscoverSpec, LayoutSpec

__all__ = [
    "LAYOUTS",
    "AddDerSpec",
    "DiscoverSpec",
    "LayoutSpec",
    "infer",
    "is_layout",
    "leaves_something",
    "summarise",
]
