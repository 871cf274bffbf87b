"""What befalls a feeder during an episode: outages, faults, and steps of load, sun and price.

``spec`` is what a scenario may say, ``targets`` what it means on a feeder, ``timetable`` what happens when, drawn by
the episode's seed, ``supply`` what it does to a simulation: what is out, tripped and at fault, which switches may move.
"""

from __future__ import annotations

from powergrid.grid.outages.events import EVENTS, AnyEventSpec, EventSpec

__all__ = ["EVENTS", "AnyEventSpec", "EventSpec"]
