"""What agents are shown and told of events and of who is fed, where a scenario has events or rules of switching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.outages.supply import Supply
from powergrid.grid.simulation import Simulation

FloatArray = npt.NDArray[np.float64]


class OutageView:
    """Turn a supply into channels and infos.

    Args:
        simulation: The simulation; it has a supply.
        supply: Its supply.
        zones: Names of the zones.
        nodes_in: Nodes of each zone.
        loads_in: Part of each load that is in each zone, shape (n_loads, n_zones).

    Attributes:
        channels: Name, unit, bounds and owner of each channel: ``<zone>.outages``, the outages and faults that are on
            in each zone, and ``<zone>.energised_share``, the part of its nominal load that is fed.
    """

    def __init__(
        self,
        simulation: Simulation,
        supply: Supply,
        zones: Sequence[str],
        nodes_in: Sequence[npt.NDArray[np.int64]],
        loads_in: FloatArray,
    ) -> None:
        self._supply = supply
        self._in_zone = np.array(
            [[float(np.isin(effect.nodes, own).any()) for own in nodes_in] for e in supply.effects for effect in e]
        ).reshape(-1, len(zones))
        most = [
            max(1, sum(any(np.isin(effect.nodes, own).any() for effect in e) for e in supply.effects))
            for own in nodes_in
        ]
        kw = loads_in * simulation.network.loads.kw[:, None]
        self._load_share = kw / np.maximum(kw.sum(axis=0), 1e-9)
        outages = [(f"{z}.outages", "events", 0.0, float(n), z) for z, n in zip(zones, most, strict=True)]
        shares = [(f"{zone}.energised_share", "", 0.0, 1.0, zone) for zone in zones]
        self.channels = [*outages, *shares]
        self._n_zones = len(zones)

    def fill(self, out: FloatArray) -> None:
        """Write the channels, shape (n_envs, 2 n_zones)."""
        supply, n_zones = self._supply, self._n_zones
        out[:, :n_zones] = np.einsum("ij,ijk->ik", supply.on, self._in_zone[supply.target_rows()])
        np.matmul(supply.dead_share, self._load_share, out=out[:, n_zones:])
        np.subtract(1.0, out[:, n_zones:], out=out[:, n_zones:])

    def network_infos(self) -> tuple[npt.NDArray[Any], ...]:
        """Return the numbers in the order of ``NETWORK_EVENT_METRICS``, each of shape (n_envs,)."""
        supply = self._supply
        return (
            supply.unserved_kwh.sum(axis=1),
            supply.count_dead(),
            np.count_nonzero(supply.on, axis=1),
        )

    def name_events(self, env: int) -> dict[str, str]:
        """Return what is on in one environment: event by name, to the place it befalls."""
        supply = self._supply
        return {
            supply.timetable.names[i]: supply.effect_of(env, i).place for i in np.flatnonzero(supply.on[env]).tolist()
        }
