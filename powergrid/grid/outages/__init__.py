"""What befalls a feeder during an episode: outages, faults, and steps of load, sun and price.

``spec`` is what a scenario may say, and when it happens, drawn by the episode's seed; ``effects`` what it means on a
feeder; ``events`` what it does to a simulation: what is out, tripped and at fault, which switches may move.
``connectivity`` says which nodes are energised for given switches, and which of these keep the network radial;
``islands`` follows that in n environments.
"""

from __future__ import annotations

from powergrid.grid.outages.spec import EVENTS, AnyEventSpec, EventSpec

__all__ = ["EVENTS", "AnyEventSpec", "EventSpec"]
