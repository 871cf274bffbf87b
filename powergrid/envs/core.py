"""The decision problem, batched: seeds and days in, observations, rewards and infos out as arrays.

The one core behind every environment class. It knows no learning library; dicts per agent are made from its arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import Agent, build_agents, ownership
from powergrid.envs.observations import Channels, View
from powergrid.envs.rewards import Rewards, place_terms
from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.devices.fleet import pack_columns
from powergrid.grid.metrics import Metrics
from powergrid.quantities import (
    AGENT_EVENT_METRICS,
    AGENT_METRICS,
    ISLAND_METRICS,
    MONEY_TERMS,
    NETWORK_EVENT_METRICS,
    NETWORK_METRICS,
    TERMS,
)
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]

CLOSED = "the environment is closed; build it anew"
#: How many metrics are of the zones, and how many from ``delivered_kw`` to ``cycles`` are summed of the devices'.
_OF_ZONES, _OF_DEVICES = 5, 7
#: How far a setpoint must have been moved to count as projected [kW, kvar].
_NOTICED = 1e-6


class GridTask:
    """Play a scenario in n environments.

    Args:
        scenario: The scenario.
        n_envs: Number of independent environments, stepped in lockstep.

    Attributes:
        agents: The agents, in the scenario's order.
        rewards: Reward of the last step, shape (n_envs, n_agents).
        terminated: Whether the last step ended the episode by divergence, shape (n_envs,).
        truncated: Whether the last step was the last of the horizon, shape (n_envs,).
        info_names: Names of the columns of :meth:`infos`.
        agent_metrics, network_metrics: What infos hold besides the reward terms.
    """

    def __init__(self, scenario: Scenario, n_envs: int = 1) -> None:
        self.scenario, self._closed = scenario, False
        self.simulation = simulation = scenario.simulate(n_envs)
        network = simulation.network
        zones = [spec.zone.find_buses(network) for spec in scenario.agents.values()]
        phases = [spec.zone.phases for spec in scenario.agents.values()]
        zone_nodes = [network.nodes_within(*zone) for zone in zip(zones, phases, strict=True)]
        _check_zones(scenario, zone_nodes)
        band = scenario.voltage
        self.metrics = Metrics(network, zones, band.v_min_pu, band.v_max_pu, n_envs, phases)
        self._islands = None
        if simulation.islands is not None and (network.microgrids or simulation.supply is None):
            self._islands = simulation.islands  # else infos tell of outages, and nothing can island
        names = list(scenario.agents)
        self.channels = Channels(
            simulation,
            self.metrics,
            names,
            [network.bus_index[spec.pcc.lower()] for spec in scenario.agents.values()],
            phases,
            [network.load_shares(*zone) for zone in zip(zones, phases, strict=True)],
            [max(1, round(hours / simulation.dt_h)) for hours in scenario.profiles.price_ahead_hours],
            zone_nodes,
            summary=scenario.observations == "summary",
        )
        self._outages = self.channels.outages
        self.agents: list[Agent] = build_agents(scenario, simulation.actions, self.channels)
        self._view = View(self.channels.table, [agent.observed for agent in self.agents], n_envs)
        owners = [spec.devices for spec in scenario.agents.values()]
        self._rewards = Rewards(scenario, simulation, self.metrics, owners, self.channels.loads_in)
        self._owned = ownership(owners, simulation.device_names)
        self._throughput = place_terms(simulation, ["throughput_kwh"])
        self._of_devices = np.zeros((_OF_DEVICES, n_envs, len(self._owned)))
        owned_devices = {device for own in owners for device in own}
        self._all_owned = all(name in owned_devices for name in simulation.device_names)
        self.agent_metrics = AGENT_METRICS + (AGENT_EVENT_METRICS if self._outages else ())
        self.network_metrics = NETWORK_METRICS + (NETWORK_EVENT_METRICS if self._outages else ())
        self.network_metrics += ISLAND_METRICS if self._islands is not None else ()
        switches = next((fleet for fleet in simulation.fleets if fleet.kind == "switch"), None)
        self._switches_owned = None if switches is None else ownership(owners, switches.names)
        self._own_names = (*TERMS, *(metric.name for metric in self.agent_metrics))
        self._shared_names = tuple(metric.name for metric in self.network_metrics)
        self._n_own = len(self._own_names)
        self._names = names
        self.info_names = (*self._own_names, *self._shared_names)
        self._info_by_name = np.zeros((len(self.info_names), n_envs, len(names)))
        self._info = self._info_by_name.transpose(1, 2, 0)
        first, last = len(TERMS) + _OF_ZONES, len(TERMS) + _OF_ZONES + _OF_DEVICES
        self._info_of_zones = self._info_by_name[len(TERMS) : first]
        self._info_of_devices = self._info_by_name[first:last].reshape(-1, len(names))
        self._info_of_held = self._info_by_name[last] if self._outages is not None else None
        self._action = np.zeros((n_envs, len(simulation.actions)))
        self._money_terms = [TERMS.index(term) for term in MONEY_TERMS]
        self.rewards = self._rewards.rewards
        self.terminated = np.zeros(n_envs, dtype=bool)
        self.truncated = np.zeros(n_envs, dtype=bool)

    @property
    def n_envs(self) -> int:
        """Number of environments."""
        return self.simulation.n_envs

    def reset(self, env: int, rng: np.random.Generator, options: Mapping[str, Any] | None = None) -> None:
        """Start an episode in one environment.

        Args:
            env: Which environment.
            rng: Draws the day and everything else that is random in the episode.
            options: ``day`` picks the day of the profiles.

        Raises:
            ScenarioError: an option is unknown or wrong, the power flow does not converge at the start, or the task is
                closed.
        """
        self.reset_all([env], [rng], options)

    def reset_all(
        self, envs: Sequence[int], rngs: Sequence[np.random.Generator], options: Mapping[str, Any] | None = None
    ) -> None:
        """Start an episode in several environments, each with a generator of its own; see :meth:`reset`."""
        self.require_open()
        chosen = dict(options or {})
        day = chosen.pop("day", None)
        problems = [describe_unknown("option", key, ["day"]) for key in chosen]
        if day is not None and (isinstance(day, bool) or not isinstance(day, int | np.integer)):
            problems.append(f"day {day!r} is not a whole number")
        if problems:
            raise ScenarioError("options", problems)
        self.simulation.reset_all(envs, rngs, None if day is None else int(day))
        self._measure()
        rows = pack_columns(envs)
        zone_kw = np.matmul(self.simulation.day_load_kw[rows], self.channels.loads_in)
        self._rewards.start(rows, zone_kw)
        self.channels.start_day(rows, zone_kw)
        self.terminated[rows] = self.truncated[rows] = False
        self.channels.fill()

    def action_buffer(self) -> FloatArray:
        """Return the action matrix to fill, devices of no agent left to themselves, shape (n_envs, n_actions)."""
        if not self._all_owned:
            self._action[:] = self.simulation.neutral()
        return self._action

    def step(self) -> None:
        """Play the actions in :meth:`action_buffer`.

        Raises:
            ConvergenceError: the power flow did not converge and the scenario says ``raise``.
            ScenarioError: the task is closed.
        """
        self.require_open()
        simulation = self.simulation
        simulation.step(self._action)
        self._measure()
        np.equal(simulation.step_index, simulation.last_step, out=self.truncated)
        self._rewards.take(self.truncated)
        self.rewards = self._rewards.rewards
        if simulation.options.divergence == "terminate":
            np.logical_not(simulation.snapshot.converged, out=self.terminated)
        self.channels.fill()

    def _measure(self) -> None:
        self.metrics.take(self.simulation.snapshot, self.simulation.energised)

    def observe(self) -> list[npt.NDArray[np.float32]]:
        """Return fresh arrays of what each agent sees, each of shape (n_envs, n_observed)."""
        return self._view.look(self.channels.values)

    def observation_dict(self, env: int) -> dict[str, npt.NDArray[np.float32]]:
        """Return the observations of one environment by agent."""
        seen = self._view.gather(self.channels.values)[env]
        return {name: seen[own] for name, own in zip(self._names, self._view.parts, strict=True)}

    def infos(self) -> FloatArray:
        """Return terms and metrics of the last step, shape (n_envs, n_agents, len(info_names)); reused at each call."""
        self._take_agent_infos()
        for row, values in zip(self._info_by_name[self._n_own :], self._network_infos(), strict=True):
            row[:] = values[:, None]
        return self._info

    def _take_agent_infos(self) -> None:
        """Fill in the columns that differ between agents."""
        self._info_by_name[: len(TERMS)] = self._rewards.by_term
        simulation, metrics, of_zones, of_devices = self.simulation, self.metrics, self._info_of_zones, self._of_devices
        of_zones[0], of_zones[1], of_zones[2] = (
            metrics.zone_violation_count,
            metrics.zone_v_min_pu,
            metrics.zone_v_max_pu,
        )
        of_zones[3], of_zones[4] = metrics.zone_overload_count, metrics.zone_kva.real
        delivered, n_power = simulation.snapshot.device_kva, simulation.setpoints.shape[2]
        of_devices[0, :, :n_power], of_devices[1, :, :n_power] = delivered.real, delivered.imag
        of_devices[2:4, :, :n_power] = moved = np.abs(simulation.requested - simulation.setpoints)
        of_devices[4, :, :n_power] = np.maximum(moved[0], moved[1]) > _NOTICED
        for fleet, term, _, own in self._throughput:
            of_devices[5, :, own], of_devices[6, :, own] = fleet.terms[term], fleet.cycles
        np.dot(of_devices.reshape(-1, len(self._owned)), self._owned, self._info_of_devices)
        if self._info_of_held is not None and self._switches_owned is not None and simulation.supply is not None:
            np.matmul(simulation.supply.held, self._switches_owned, out=self._info_of_held)

    def _network_infos(self) -> tuple[npt.NDArray[Any], ...]:
        """Return the columns that agents share, in the order of ``network_metrics``, each of shape (n_envs,)."""
        metrics, simulation = self.metrics, self.simulation
        snapshot = simulation.snapshot
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
            *(() if self._outages is None else self._outages.network_infos()),
            *(() if self._islands is None else self._islands.describe(snapshot.forming_kva)),
        )

    def info_dicts(self, env: int) -> dict[str, dict[str, Any]]:
        """Return the infos of one environment as agents' dicts: terms, metrics and labels."""
        self._take_agent_infos()
        shared: list[Any] = [float(values[env]) for values in self._network_infos()]
        labels = self.info_labels(env)
        shared += labels.values()
        keys = (*self.info_names, *labels)
        rows = zip(self._names, self._info[env, :, : self._n_own].tolist(), strict=True)
        return {name: dict(zip(keys, row + shared, strict=True)) for name, row in rows}

    def info_labels(self, env: int) -> dict[str, Any]:
        """Return what infos of one environment hold besides :meth:`infos`: the day, and names where they are wanted.

        Names are no numbers, which libraries that stack infos refuse; so the scenario's ``infos`` asks for them.
        """
        labels: dict[str, Any] = {"day": int(self.simulation.day[env])}
        if self.scenario.infos == "full":
            labels["worst_node"] = self.simulation.network.nodes[int(self.metrics.worst_node[env])]
            if self._outages is not None:
                labels["events"] = self._outages.name_events(env)
        return labels

    def money(self) -> FloatArray:
        """Return the money the last step cost each agent, stored energy left out [USD], shape (n_envs, n_agents)."""
        money: FloatArray = self._rewards.terms[:, :, self._money_terms].sum(axis=2)
        return money

    def require_open(self) -> None:
        """Refuse to go on once the engines are released: a call into one that is gone ends the process.

        Raises:
            ScenarioError: the task is closed.
        """
        if self._closed:
            raise ScenarioError(self.scenario.name, [CLOSED])

    def close(self) -> None:
        """Release the engines; may come more than once."""
        if not self._closed:
            self._closed = True
            self.simulation.close()


def _check_zones(scenario: Scenario, zones: Sequence[npt.NDArray[np.int64]]) -> None:
    empty = [name for name, nodes in zip(scenario.agents, zones, strict=True) if not len(nodes)]
    if empty:
        raise ScenarioError(scenario.name, [f"agents.{name}: its zone has no bus" for name in empty])
