"""What is shown of events and of who is fed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from powergrid.grid.outages.events import Events
from powergrid.grid.simulation import Simulation

FloatArray = npt.NDArray[np.float64]


class OutageView:
    """Turn events and who is fed into channels and infos.

    Args:
        simulation: The simulation; it has events.
        events: Its events.
        zones: Names of the zones.
        nodes_in: Nodes of each zone.
        loads_in: Part of each load that is in each zone, shape (n_loads, n_zones).

    Attributes:
        channels: Name, unit, bounds and owner of each channel: ``<zone>.outages``, the outages and faults that are on
            in each zone, and ``<zone>.energised_share``, the part of its nominal load that is fed.
        n_on: Number of events that are on, as of the last :meth:`look`, shape (n_envs,).
    """

    def __init__(
        self,
        simulation: Simulation,
        events: Events,
        zones: Sequence[str],
        nodes_in: Sequence[npt.NDArray[np.int64]],
        loads_in: FloatArray,
    ) -> None:
        self._events = events
        self._in_zone = np.array(
            [[float(np.isin(effect.nodes, own).any()) for own in nodes_in] for e in events.effects for effect in e]
        ).reshape(-1, len(zones))
        most = [
            max(1, sum(any(np.isin(effect.nodes, own).any() for effect in e) for e in events.effects))
            for own in nodes_in
        ]
        kw = loads_in * simulation.network.loads.kw[:, None]
        self._load_share = kw / np.maximum(kw.sum(axis=0), 1e-9)
        outages = [(f"{z}.outages", "events", 0.0, float(n), z) for z, n in zip(zones, most, strict=True)]
        shares = [(f"{zone}.energised_share", "", 0.0, 1.0, zone) for zone in zones]
        self.channels = [*outages, *shares]
        self._seen_changes = self._seen_looks = -1
        self._channels = np.zeros((simulation.n_envs, len(self.channels)))
        self.n_on = np.zeros(simulation.n_envs, dtype=np.int64)

    def look(self) -> FloatArray:
        """Return the channels, shape (n_envs, 2 n_zones); taken anew only where they may have changed."""
        events, islands, n_zones = self._events, self._events.islands, self._channels.shape[1] // 2
        if events.changes != self._seen_changes:
            self._seen_changes = events.changes
            self.n_on = np.count_nonzero(events.on, axis=1)
            self._channels[:, :n_zones] = np.einsum("ij,ijk->ik", events.on, self._in_zone[events.target_rows()])
        if islands.looks != self._seen_looks:
            self._seen_looks = islands.looks
            self._channels[:, n_zones:] = 1.0 - np.matmul(islands.dead_share, self._load_share)
        return self._channels

    def name_events(self, env: int) -> dict[str, str]:
        """Return what is on in one environment: event by name, to the place it befalls."""
        events = self._events
        return {
            events.timetable.names[i]: events.effect_of(env, i).place for i in np.flatnonzero(events.on[env]).tolist()
        }
