"""From a compiled feeder to a scenario's plain data: devices, zones, agents, profiles, reward."""

from __future__ import annotations

from powergrid.scenario.discovery.inference import infer, is_layout, leaves_something, summarise
from powergrid.scenario.vocabulary import LAYOUTS

__all__ = ["LAYOUTS", "infer", "is_layout", "leaves_something", "summarise"]
