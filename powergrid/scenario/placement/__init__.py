"""Bring a scenario to a feeder that it was not made for: by name, by a map, by rules; all that has no place is told."""

from __future__ import annotations

from powergrid.scenario.placement.host import place_host
from powergrid.scenario.placement.swap import place
from powergrid.scenario.placement.wishes import RULES, PlacedSpec, PlacementSpec

__all__ = ["RULES", "PlacedSpec", "PlacementSpec", "place", "place_host"]
