"""What infos hold: every reward term and metric of the last step, for each agent, and names where they are wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import ownership
from powergrid.envs.observations import OutageView
from powergrid.envs.rewards import Rewards, place_terms
from powergrid.grid.metrics import Metrics
from powergrid.grid.simulation import Simulation
from powergrid.quantities import (
    AGENT_EVENT_METRICS,
    AGENT_METRICS,
    ISLAND_METRICS,
    NETWORK_EVENT_METRICS,
    NETWORK_METRICS,
    SUPPLY_METRICS,
    TERMS,
)
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]

#: How many metrics are of the zones, and how many from ``delivered_kw`` to ``cycles`` are summed of the devices'.
_OF_ZONES, _OF_DEVICES = 5, 7
#: Parts of what was measured that are the metrics of the zones; of complex power it is the real one.
_ZONE_PARTS = ("zone_violation_count", "zone_v_min_pu", "zone_v_max_pu", "zone_overload_count", "zone_kva")
#: How far a setpoint must have been moved to count as projected [kW, kvar].
_NOTICED = 1e-6


class Infos:
    """Collect terms and metrics of the last step.

    Args:
        scenario: Says who owns what, and whether names are wanted.
        simulation: The simulation.
        metrics: Its metrics.
        rewards: Its reward terms.
        outages: What is told of events, None where the simulation does not follow who is fed.

    Attributes:
        agent_metrics, network_metrics: What infos hold besides the reward terms.
        names: Names of the numbers: terms, the agent's metrics, those of the network.
    """

    def __init__(
        self,
        scenario: Scenario,
        simulation: Simulation,
        metrics: Metrics,
        rewards: Rewards,
        outages: OutageView | None,
    ) -> None:
        self._agents, self._full = tuple(scenario.agents), scenario.infos == "full"
        self._simulation, self._metrics, self._rewards, self._outages = simulation, metrics, rewards, outages
        # where nothing can island, infos tell of outages alone: the metrics of islands would say the same again
        can_island = bool(simulation.network.microgrids) or simulation.events is None
        self._islands = simulation.islands if can_island else None
        self.agent_metrics = AGENT_METRICS + (AGENT_EVENT_METRICS if outages else ())
        self.network_metrics = NETWORK_METRICS + (SUPPLY_METRICS if simulation.islands is not None else ())
        self.network_metrics += NETWORK_EVENT_METRICS if outages else ()
        self.network_metrics += ISLAND_METRICS if self._islands is not None else ()
        self._n_own = len(TERMS) + len(self.agent_metrics)
        self.names = (*TERMS, *(metric.name for metric in (*self.agent_metrics, *self.network_metrics)))
        owners = [spec.devices for spec in scenario.agents.values()]
        self._owned = ownership(owners, simulation.device_names)
        self._throughput = [(fleet, own) for fleet, _, _, own in place_terms(simulation, ["throughput_kwh"])]
        self._of_devices = np.zeros((_OF_DEVICES, simulation.n_envs, len(self._owned)))
        zone_places = [metrics.find_places(name) for name in _ZONE_PARTS[:-1]]
        self._zone_places = np.array([*zone_places, metrics.find_places(_ZONE_PARTS[-1])[:, ::2]])
        switches = next((fleet for fleet in simulation.fleets if fleet.kind == "switch"), None)
        self._switches_owned = None if switches is None else ownership(owners, switches.names)
        # name by name: what is written at once lies side by side
        self._by_name = np.zeros((len(self.names), simulation.n_envs, len(self._agents)))

    def take(self) -> FloatArray:
        """Return the numbers, shape (n_envs, n_agents, len(names)); reused at each call."""
        self._take_own()
        for row, values in zip(self._by_name[self._n_own :], self._of_network(), strict=True):
            row[:] = values[:, None]
        return self._by_name.transpose(1, 2, 0)

    def dicts(self, env: int) -> dict[str, dict[str, Any]]:
        """Return the infos of one environment by agent: numbers and labels."""
        self._take_own()
        shared: list[Any] = [float(values[env]) for values in self._of_network()]
        labels = self.labels(env)
        shared += labels.values()
        keys = (*self.names, *labels)
        rows = zip(self._agents, self._by_name[: self._n_own, env].T.tolist(), strict=True)
        return {name: dict(zip(keys, row + shared, strict=True)) for name, row in rows}

    def labels(self, env: int) -> dict[str, Any]:
        """Return what infos of one environment hold besides the numbers: the day, and names where they are wanted.

        Names are no numbers, which libraries that stack infos refuse; so the scenario's ``infos`` asks for them.
        """
        labels: dict[str, Any] = {"day": int(self._simulation.day[env])}
        if self._full:
            labels["worst_node"] = self._simulation.network.nodes[int(self._metrics.worst_node[env])]
            if self._outages is not None:
                labels["events"] = self._outages.name_events(env)
        return labels

    def _take_own(self) -> None:
        """Fill in what differs between agents."""
        simulation, metrics, out, of_devices = self._simulation, self._metrics, self._by_name, self._of_devices
        first, last = len(TERMS) + _OF_ZONES, len(TERMS) + _OF_ZONES + _OF_DEVICES
        out[: len(TERMS)] = self._rewards.by_term
        metrics.results.take(self._zone_places, None, out[len(TERMS) : first], "clip")
        n_power, n_envs = simulation.setpoints.shape[2], simulation.n_envs
        delivered = simulation.snapshot.device_kva.view(np.float64).reshape(n_envs, n_power, 2)
        of_devices[:2, :, :n_power] = delivered.transpose(2, 0, 1)
        moved = np.abs(simulation.requested - simulation.setpoints)
        of_devices[2:4, :, :n_power] = moved
        of_devices[4, :, :n_power] = np.maximum(moved[0], moved[1]) > _NOTICED
        for fleet, own in self._throughput:
            of_devices[5, :, own], of_devices[6, :, own] = fleet.terms["throughput_kwh"], fleet.cycles
        # two axes: a product of three is slower
        owned, of_agents = of_devices.reshape(-1, len(self._owned)), out[first:last].reshape(-1, len(self._agents))
        np.dot(owned, self._owned, of_agents)
        if self._outages is not None and self._switches_owned is not None and simulation.events is not None:
            held = simulation.events.held
            out[last] = np.matmul(held, self._switches_owned) if np.count_nonzero(held) else 0.0

    def _of_network(self) -> tuple[npt.NDArray[Any], ...]:
        """Return what agents share, in the order of ``network_metrics``, each of shape (n_envs,)."""
        metrics, simulation = self._metrics, self._simulation
        snapshot, islands = simulation.snapshot, simulation.islands
        return (
            metrics.violation_count,
            metrics.violation_sum_pu,
            metrics.v_min_pu,
            metrics.v_max_pu,
            metrics.overload_count,
            snapshot.losses_kw,
            metrics.unbalance_pu,
            snapshot.source_kva.real,
            simulation.operations,
            simulation.paid_price,
            snapshot.converged,
            *(() if islands is None else (islands.total_unserved_kw() * simulation.dt_h, islands.dark_nodes)),
            *(() if self._outages is None else (self._outages.n_on,)),
            *(() if self._islands is None else self._islands.describe(snapshot.forming_kva)),
        )
