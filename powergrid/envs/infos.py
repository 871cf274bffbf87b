"""What infos hold: every reward term and metric of the last step, for each agent, and names where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import ownership
from powergrid.envs.observations.outages import OutageView
from powergrid.envs.rewards.rewards import Rewards, place_terms
from powergrid.grid.metrics import Metrics
from powergrid.grid.simulation import Simulation
from powergrid.quantities import (
    AGENT_COST_METRICS,
    AGENT_EVENT_METRICS,
    AGENT_FALLBACK_METRICS,
    AGENT_METRICS,
    ISLAND_METRICS,
    NETWORK_EVENT_METRICS,
    NETWORK_FALLBACK_METRICS,
    NETWORK_METRICS,
    SUPPLY_METRICS,
    VIOLATION_LEVELS_PU,
)
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]

#: How many metrics are of the zones, and how many from ``delivered_kw`` to ``cycles`` are summed of the devices'.
_OF_ZONES, _OF_DEVICES = 5, 7
#: Parts of what was measured that are the metrics of the zones; of complex power it is the real one.
_ZONE_PARTS = ("zone_violation_count", "zone_v_min_pu", "zone_v_max_pu", "zone_overload_count", "zone_kva")
#: Those that are the metrics of the network, but for one that is not among them.
_NETWORK_PARTS = (
    *("violation_count", "violation_sum_pu", "v_min_pu", "v_max_pu", "overload_count", "losses_kw", "source_kva"),
)
#: From where on nodes outside the limits are counted once more [pu].
_LEVELS = np.array(VIOLATION_LEVELS_PU)
_VIOLATION = _NETWORK_PARTS.index("violation_sum_pu")
_UNBALANCE = [metric.name for metric in NETWORK_METRICS].index("network_unbalance_pu")
#: Costs that count what is beyond a limit: their place among the metrics of the zones, and the network's own number.
_COUNTED = {"node_hours": (0, "violation_count"), "branch_hours": (3, "overload_count")}
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
        told: Columns of :meth:`take` that dicts hold, None for all.
    """

    def __init__(
        self,
        scenario: Scenario,
        simulation: Simulation,
        metrics: Metrics,
        rewards: Rewards,
        outages: OutageView | None,
    ) -> None:
        self._agents, self._level = tuple(scenario.agents), scenario.infos
        self._simulation, self._metrics, self._outages = simulation, metrics, outages
        # where nothing can island, infos tell of outages alone: the metrics of islands would say the same again
        can_island = bool(simulation.network.microgrids) or simulation.events is None
        self._islands = simulation.islands if can_island else None
        limited = simulation.handed_back is not None
        costs = () if scenario.costs is None else scenario.costs.of
        told_costs = tuple(m for m in AGENT_COST_METRICS if costs and m.name in ("cost", *(f"cost_{c}" for c in costs)))
        n_terms = len(rewards.told)
        self.agent_metrics = AGENT_METRICS + (AGENT_EVENT_METRICS if outages else ())
        first_cost = n_terms + len(self.agent_metrics)
        of_costs = slice(first_cost, first_cost + len(told_costs))
        self.agent_metrics += told_costs + (AGENT_FALLBACK_METRICS if limited else ())
        self.network_metrics = NETWORK_METRICS + (SUPPLY_METRICS if simulation.islands is not None else ())
        self.network_metrics += NETWORK_EVENT_METRICS if outages else ()
        self.network_metrics += ISLAND_METRICS if self._islands is not None else ()
        self.network_metrics += NETWORK_FALLBACK_METRICS if limited else ()
        self._n_own = n_terms + len(self.agent_metrics)
        self.names = (*rewards.told, *(metric.name for metric in (*self.agent_metrics, *self.network_metrics)))
        self._split_names = self.names[: self._n_own], self.names[self._n_own :]
        self._pattern: dict[str, Any] = dict.fromkeys((*self.names, "day"))
        terms = range(n_terms) if self._level == "terms" else ()
        few = [*terms, *range(of_costs.start, of_costs.stop)]
        self.told: list[int] | None = few if self._level in ("none", "terms") else None
        self._few_names = [self.names[column] for column in few]
        self._bind_devices([spec.devices for spec in scenario.agents.values()])
        zone_places = [metrics.find_places(name) for name in _ZONE_PARTS[:-1]]
        self._zone_places = np.array([*zone_places, metrics.find_places(_ZONE_PARTS[-1])[:, ::2]])
        self._network_columns = np.array([metrics.columns[name].start for name in _NETWORK_PARTS])
        self._none_beyond = tuple(np.zeros((len(VIOLATION_LEVELS_PU), simulation.n_envs)))
        # name by name: what is written at once lies side by side
        self._by_name = np.zeros((len(self.names), simulation.n_envs, len(self._agents)))
        first, last = n_terms + _OF_ZONES, n_terms + _OF_ZONES + _OF_DEVICES
        self._own_terms, self._own_zones = self._by_name[:n_terms], self._by_name[n_terms:first]
        self._counted = rewards.by_term[:n_terms]
        self._own_devices = self._by_name[first:last].reshape(-1, len(self._agents))
        self._own_held, self._own_handed_back = self._by_name[last], self._by_name[self._n_own - 1]
        self._own_costs = self._by_name[of_costs]
        self._share = scenario.share_reward
        self._costs = [metric.name.removeprefix("cost_") for metric in told_costs[1:]]
        self._term_of = {term: row for row, term in enumerate(rewards.told)}

    def _bind_devices(self, owners: Sequence[Sequence[str]]) -> None:
        """Find whose devices are, and where what is summed of them is put."""
        simulation = self._simulation
        self._owned = ownership(owners, simulation.power_device_names)
        n_envs, n_power = simulation.n_envs, len(self._owned)
        # what is summed of the devices, number by number, and its parts
        self._of_devices = np.zeros((_OF_DEVICES, n_envs, n_power))
        self._flat_devices = self._of_devices.reshape(_OF_DEVICES * n_envs, n_power)
        self._delivered, self._moved, self._projected = self._of_devices[:2], self._of_devices[2:4], self._of_devices[4]
        self._moved_kw, self._moved_kvar = self._moved
        self._noticed = np.full((n_envs, n_power), _NOTICED)
        self._throughput = [
            (fleet, self._of_devices[5, :, own], self._of_devices[6, :, own])
            for fleet, _, _, own in place_terms(simulation, ["throughput_kwh"])
        ]
        switches = next((fleet for fleet in simulation.fleets if fleet.kind == "switch"), None)
        self._switches_owned = None if switches is None else ownership(owners, switches.names)
        limited = simulation.handed_back is not None
        self._all_owned = ownership(owners, simulation.device_names) if limited else None

    def take(self) -> FloatArray:
        """Return the numbers, shape (n_envs, n_agents, len(names)); reused at each call."""
        self._take_own()
        shared, n = self._by_name[self._n_own :], _UNBALANCE
        measured = self._metrics.results.take(self._network_columns, 1).T[:, :, None]
        shared[:n], shared[n + 1 : len(measured) + 1] = measured[:n], measured[n:]
        unbalance, *others = self._of_network(bool(measured[_VIOLATION].any()))
        shared[n] = unbalance[:, None]
        for row, values in zip(shared[len(measured) + 1 :], others, strict=True):
            row[:] = values[:, None]
        return self._by_name.transpose(1, 2, 0)

    def dicts(self, env: int) -> dict[str, dict[str, Any]]:
        """Return the infos of one environment by agent: numbers and labels."""
        if self.told is not None:
            return self._few_dicts(env)
        self._take_own()
        shared: list[Any] = self._metrics.results[env].take(self._network_columns).tolist()
        unbalance, *others = [float(values[env]) for values in self._of_network(shared[_VIOLATION] > 0.0)]
        shared.insert(_UNBALANCE, unbalance)
        shared += others
        own_names, shared_names = self._split_names
        # a copy of a dict that has all the keys takes two thirds of what to make one does
        pattern = self._pattern
        pattern.update(zip(shared_names, shared, strict=True))
        if self._level == "full":
            pattern.update(self.labels(env))
        else:
            pattern["day"] = int(self._simulation.day[env])
        infos = {}
        for name, row in zip(self._agents, self._by_name[: self._n_own, env].T.tolist(), strict=True):
            infos[name] = info = pattern.copy()
            info.update(zip(own_names, row, strict=True))
        return infos

    def _few_dicts(self, env: int) -> dict[str, dict[str, Any]]:
        """Return reward terms and costs, as far as they are asked for, without all that is measured beside them."""
        if not self._few_names:
            return {name: {} for name in self._agents}
        self._own_terms[...] = self._counted
        if self._costs:
            self._metrics.results.take(self._zone_places, None, self._own_zones, "clip")
            self._take_costs()
        rows = self._by_name[self.told, env].T.tolist()
        return {
            name: dict(zip(self._few_names, row, strict=True)) for name, row in zip(self._agents, rows, strict=True)
        }

    def _take_costs(self) -> None:
        """Fill in the costs of constrained learning, once terms and metrics of the zones are."""
        results, n_agents, dt_h = self._metrics.results, len(self._agents), self._simulation.dt_h
        for row, name in zip(self._own_costs[1:], self._costs, strict=True):
            if name in self._term_of:
                row[...] = self._own_terms[self._term_of[name]]
                continue
            place, whole = _COUNTED[name]
            counts = self._own_zones[place]
            elsewhere = results[:, self._metrics.columns[whole].start] - counts.sum(axis=1)
            row[...] = (counts + np.maximum(elsewhere, 0.0)[:, None] / n_agents) * dt_h
        if self._share:  # who is paid for all of it pays for all of it
            self._own_costs[1:] = self._own_costs[1:].mean(axis=-1, keepdims=True)
        np.add.reduce(self._own_costs[1:], axis=0, out=self._own_costs[0])

    def labels(self, env: int) -> dict[str, Any]:
        """Return what infos of one environment hold besides the numbers: the day, and names where they are wanted.

        Names are no numbers, which libraries that stack infos refuse; so the scenario's ``infos`` asks for them.
        """
        if self.told is not None:
            return {}
        labels: dict[str, Any] = {"day": int(self._simulation.day[env])}
        if self._level == "full":
            labels["worst_node"] = self._simulation.network.nodes[int(self._metrics.worst_node[env])]
            if self._outages is not None:
                labels["events"] = self._outages.name_events(env)
        return labels

    def _take_own(self) -> None:
        """Fill in what differs between agents."""
        simulation, moved, powers = self._simulation, self._moved, self._simulation.powers
        self._own_terms[...] = self._counted
        self._metrics.results.take(self._zone_places, None, self._own_zones, "clip")
        self._delivered[...] = powers.delivered
        np.abs(np.subtract(powers.requested, powers.setpoints, out=moved), out=moved)
        self._projected[...] = np.maximum(self._moved_kw, self._moved_kvar, out=self._projected) > self._noticed
        for fleet, throughput, cycles in self._throughput:
            throughput[...], cycles[...] = fleet.terms["throughput_kwh"], fleet.cycles
        self._flat_devices.dot(self._owned, self._own_devices)  # two axes: a product of three is slower
        if self._costs:
            self._take_costs()
        if self._outages is not None and self._switches_owned is not None and simulation.events is not None:
            held = simulation.events.held
            self._own_held[...] = np.matmul(held, self._switches_owned) if np.count_nonzero(held) else 0.0
        if simulation.handed_back is not None and self._all_owned is not None:
            self._own_handed_back[...] = np.matmul(simulation.handed_back.changed, self._all_owned)

    def _of_network(self, outside: bool) -> tuple[npt.NDArray[Any], ...]:
        """Return what agents share besides what was measured of the network, each of shape (n_envs,).

        Args:
            outside: Whether any node is outside its limits: in most steps none is, and there is nothing to count.
        """
        simulation, islands = self._simulation, self._simulation.islands
        return (
            self._metrics.unbalance_pu,
            simulation.operations,
            simulation.paid_price,
            simulation.snapshot.converged,
            *(self._metrics.count_beyond(_LEVELS) if outside else self._none_beyond),
            *(() if islands is None else (islands.total_unserved_kw() * simulation.dt_h, islands.dark_nodes)),
            *(() if self._outages is None else (self._outages.n_on,)),
            *(() if self._islands is None else self._islands.describe(simulation.snapshot.forming_kva)),
            *(() if simulation.handed_back is None else (simulation.handed_back.active,)),
        )
