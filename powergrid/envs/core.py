"""The decision problem, batched: seeds and days in, observations, rewards and infos out as arrays.

The one core behind every environment class. It knows no learning library; dicts per agent are made from its arrays.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from powergrid.envs.agents import NETWORK_GRAPH, Agent, build_agents, graph_owner
from powergrid.envs.draws import Draws, Values, tell
from powergrid.envs.infos import Infos
from powergrid.envs.masks import add_masks
from powergrid.envs.observations.channels import Channels
from powergrid.envs.observations.graph import GraphView
from powergrid.envs.observations.view import View
from powergrid.envs.rewards.optional import PeakImport
from powergrid.envs.rewards.rewards import Rewards
from powergrid.errors import ScenarioError
from powergrid.garbage import put_off_collection
from powergrid.grid.devices.fleet import pack_columns
from powergrid.grid.feeder.network import Network
from powergrid.grid.metrics import Metrics
from powergrid.grid.simulation import Simulation
from powergrid.quantities import Quantity
from powergrid.rules import Proposals, list_proposed, name_proposed
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

CLOSED = "the environment is closed; build it anew"
#: What is said of a state that does not fit.
OF_ANOTHER = (
    "the state is of another scenario, feeder or size; build the environment of the same scenario and number of "
    "environments"
)


@dataclass(frozen=True)
class State:
    """All that a task's future depends on, with what its last step gave; plain arrays, made to be put back.

    Attributes:
        fits: What tasks it can be put back into have in common, as a digest.
        simulation: Circuits, devices, clock and day.
        rewards: Terms and rewards, and what they are counted from.
        channels: What is known of the day, shape (n_envs, horizon_steps + 1, n_known).
        terminated, truncated: How the last step ended, shape (n_envs,).
        telemetry: What is on its way, empty where nothing is.
        proposals: What rules remember, empty where none are shown.
        drawn: Numbers that each environment has in place of the scenario's, by the parts of the key; None for nothing.
    """

    fits: str
    simulation: Mapping[str, Any]
    rewards: Mapping[str, FloatArray]
    channels: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    proposals: Mapping[str, Any] = field(default_factory=dict)
    drawn: tuple[Values, ...] | None = None


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
        proposed: Names of the channels of what rules propose, none where that is not shown.
        draws: What each episode draws anew.
        drawn: What the episode of each environment has drawn, by the parts of the key; None where nothing ever was.
    """

    @put_off_collection()
    def __init__(self, scenario: Scenario, n_envs: int = 1) -> None:
        self.scenario, self._closed = scenario, False
        self.simulation = simulation = scenario.simulate(n_envs)
        network = simulation.network
        zones = [spec.zone.find_buses(network) for spec in scenario.agents.values()]
        phases = [spec.zone.phases for spec in scenario.agents.values()]
        zone_nodes = [network.nodes_within(*zone) for zone in zip(zones, phases, strict=True)]
        pccs = [network.bus_index[spec.pcc.lower()] for spec in scenario.agents.values()]
        pcc_nodes = _find_pcc_nodes(network, pccs, phases)
        _check_zones(scenario, zone_nodes)
        band = scenario.voltage
        added = [str(getattr(spec, "bus", None) or "") for spec in scenario.devices.values()]
        self.metrics = Metrics(network, zones, band.v_min_pu, band.v_max_pu, n_envs, phases, added)
        owned = {device: name for name, spec in scenario.agents.items() for device in spec.devices}
        proposed = [] if scenario.proposals is None else list_proposed(simulation.actions, owned)
        self.proposed = [name_proposed(simulation.actions[column]) for column in proposed]
        self._peak = PeakImport(n_envs) if scenario.weight_of("peak_rise_kw") else None
        self.channels = Channels(
            simulation,
            self.metrics,
            list(scenario.agents),
            pccs,
            pcc_nodes,
            [network.load_shares(*zone) for zone in zip(zones, phases, strict=True)],
            [max(1, round(hours / simulation.dt_h)) for hours in scenario.profiles.price_ahead_hours],
            zone_nodes,
            summary=scenario.observations != "full",
            peak_kw=None if self._peak is None else self._peak.kw,
            forecasts=None if scenario.outlook is None else scenario.outlook.forecasts,
            telemetry=scenario.telemetry,
            owned={device: (scenario.devices[device].kind, agent) for device, agent in owned.items()},
            graph=_show_graphs(scenario, simulation, zones) if scenario.observations == "graph" else None,
            proposed=proposed,
        )
        self._telemetry = self.channels.telemetry
        self._delayed = self._telemetry is not None and self._telemetry.passes_on
        self.agents: list[Agent] = build_agents(scenario, simulation, self.channels)
        self._proposals = Proposals(self) if scenario.proposals is not None else None
        self._view = View(self.channels, [agent.observed for agent in self.agents], n_envs)
        owners = [spec.devices for spec in scenario.agents.values()]
        in_zones = self.channels.loads_in, zone_nodes, pcc_nodes
        self._rewards = Rewards(scenario, simulation, self.metrics, owners, *in_zones, self._peak)
        self._infos = Infos(scenario, simulation, self.metrics, self._rewards, self.channels.outages)
        self._all_owned = all(name in owned for name in simulation.device_names)
        self._action = np.zeros((n_envs, len(simulation.actions)))
        self.info_names = self._infos.names
        self.rewards = self._rewards.rewards
        self.draws = Draws(scenario)
        self.drawn: list[Values] | None = None
        self.terminated = np.zeros(n_envs, dtype=bool)
        self.truncated = np.zeros(n_envs, dtype=bool)

    @property
    def n_envs(self) -> int:
        """Number of environments."""
        return self.simulation.n_envs

    @property
    def info_metrics(self) -> tuple[Quantity, ...]:
        """What infos hold besides the reward terms: the agent's metrics, then those of the network."""
        return (*self._infos.agent_metrics, *self._infos.network_metrics)

    def reset(self, env: int, rng: np.random.Generator, options: Mapping[str, Any] | None = None) -> None:
        """Start an episode in one environment.

        Args:
            env: Which environment.
            rng: Draws the day and everything else that is random in the episode.
            options: ``day`` picks the day of the profiles; a key of the scenario gives its number for this episode, or
                what it is drawn from, see :class:`powergrid.envs.draws.Draws`.

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
        day, chosen = self.draws.read_options(read_options(options))
        if chosen or self.draws.any or self.drawn is not None:
            self._draw(envs, rngs, chosen)
        self.simulation.reset_all(envs, rngs, day)
        rows = pack_columns(envs)
        zone_kw = self.channels.sum_loads(self.simulation.day_load_kw[rows])
        self._rewards.start(rows, zone_kw)
        if self._peak is not None:
            self._peak.start(rows)
        # children, so that nothing else that is random changes by what is foreseen or told
        drawing = self.scenario.outlook is not None or self._telemetry is not None
        children = [rng.spawn(1)[0] for rng in rngs] if drawing else []
        self.channels.start_day(rows, zone_kw, children)
        if self._telemetry is not None:
            self._telemetry.start(envs, children)
        self.terminated[rows] = self.truncated[rows] = False
        self.channels.measure()
        if self._proposals is not None:
            self._proposals.start(envs)
            self.channels.tell_proposals(self._proposals.values)

    def check_options(self, options: Mapping[str, Any] | None) -> None:
        """Refuse options of a reset that are wrong, and change nothing.

        Raises:
            ScenarioError: as :meth:`reset`.
        """
        self.require_open()
        day, _ = self.draws.read_options(read_options(options))
        if day is not None:
            self.simulation.calendar.require_day(day)

    def _draw(self, envs: Sequence[int], rngs: Sequence[np.random.Generator], chosen: Values) -> None:
        """Let environments have the numbers of the episodes that they start."""
        for env, values in zip(envs, self.draws.draw(rngs, chosen), strict=True):
            self._take_numbers(env, values)

    def _take_numbers(self, env: int, values: Values) -> None:
        if self.drawn is None:
            if not values:
                return
            self.drawn = [Values() for _ in range(self.n_envs)]
        self.drawn[env] = values
        try:
            self.simulation.take_numbers(env, values)
        except ValidationError as error:  # each number is right by itself, and they contradict each other
            told = [" and ".join(str(entry.get("ctx", {}).get("error", entry["msg"])).splitlines())
                    for entry in error.errors(include_url=False)]  # fmt: skip
            raise ScenarioError("options", [f"what is drawn contradicts: {line}" for line in told]) from None
        self._rewards.take_numbers(env, values)

    def action_buffer(self) -> FloatArray:
        """Return the action matrix to fill, devices of no agent left to themselves, shape (n_envs, n_actions)."""
        # rewritten each step: what leaves a device to itself follows sun and demand
        if not self._all_owned:
            self._action[:] = self.simulation.neutral()
        return self._action

    def step(self) -> None:
        """Play the actions in :meth:`action_buffer`.

        Raises:
            ConvergenceError: the power flow did not converge and the scenario says ``raise``.
            ScenarioError: the task is closed.
        """
        if self._closed:
            self.require_open()
        simulation, action = self.simulation, self._action
        if self._telemetry is not None and self._delayed:
            action = self._telemetry.follow(action, simulation.row, simulation.neutral)
        simulation.step(action)
        if self._peak is not None:
            self._peak.follow(simulation.snapshot.source_kva.real)
        # the solve of this step and what is known of the next, for which the clock has turned already
        self.channels.measure()
        if self._proposals is not None:
            self.propose()
        # before the rewards: the last step counts what is owed and how far batteries ended from their start
        np.equal(simulation.step_index, simulation.last_step, out=self.truncated)
        self._rewards.take(self.truncated)
        self.rewards = self._rewards.rewards
        if simulation.options.divergence == "terminate":
            np.logical_not(simulation.snapshot.converged, out=self.terminated)

    def propose(self) -> None:
        """Ask rules about the step to come, where their proposals are shown; a step does so once it is solved."""
        if self._proposals is not None:
            self._proposals.follow()
            self.channels.tell_proposals(self._proposals.values)

    def observe(self) -> list[npt.NDArray[np.float32]]:
        """Return fresh arrays of what each agent sees, each of shape (n_envs, n_observed)."""
        return self._view.look()

    def observation_dict(self, env: int) -> dict[str, Any]:
        """Return the observations of one environment by agent, with action masks if they are to have them."""
        seen = self._view.gather()[env]
        own = {name: seen[own] for name, own in zip(self.scenario.agents, self._view.parts, strict=True)}
        return own if self.scenario.action_masks != "observations" else add_masks(own, self.action_masks(env))

    def infos(self) -> FloatArray:
        """Return terms and metrics of the last step, shape (n_envs, n_agents, len(info_names)); reused at each call."""
        return self._infos.take()

    @property
    def told(self) -> list[int] | None:
        """Columns of :meth:`infos` that dicts of infos hold, None for all."""
        return self._infos.told

    def info_dicts(self, env: int) -> dict[str, dict[str, Any]]:
        """Return the infos of one environment as agents' dicts: terms, metrics and labels."""
        infos = self._infos.dicts(env)
        if self.scenario.action_masks == "infos":
            for name, mask in self.action_masks(env).items():
                infos[name]["action_mask"] = mask.astype(np.int8)
        own = self.drawn_labels(env)
        for info in infos.values() if own else ():
            info.update(own)
        return infos

    def action_masks(self, env: int) -> dict[str, BoolArray]:
        """Return which positions agents can have in the step to come, by agent; none of who has no positions."""
        reach = self.simulation.reach()
        return {agent.name: agent.masks.read(reach)[env] for agent in self.agents if agent.masks.size}

    def info_labels(self, env: int) -> dict[str, Any]:
        """Return what infos of one environment hold besides :meth:`infos`: the day, and names where they are wanted."""
        return self._infos.labels(env) | self.drawn_labels(env)

    def drawn_labels(self, env: int) -> dict[str, float]:
        """Return what the episode of one environment has drawn, as infos hold it: ``drawn.`` before the key."""
        return {} if self.drawn is None or self.told is not None else tell(self.drawn[env])

    def money(self) -> FloatArray:
        """Return the money the last step cost each agent, stored energy left out [USD], shape (n_envs, n_agents)."""
        return self._rewards.money()

    def state(self) -> State:
        """Copy all that the episodes from here on depend on, and what the last step gave.

        What draws the next day is not part of it: that is the generator which :meth:`reset` is given.
        """
        return State(
            self._fits,
            self.simulation.state(),
            self._rewards.state(),
            self.channels.state(),
            self.terminated.copy(),
            self.truncated.copy(),
            {} if self._telemetry is None else self._telemetry.state(),
            {} if self._proposals is None else self._proposals.state(),
            None if self.drawn is None else tuple(dict(values) for values in self.drawn),
        )

    def restore(self, state: State) -> None:
        """Return to a :meth:`state`, of this task or of another of the same scenario and number of environments.

        Observations, rewards and infos are those of then, and what follows is the same bit for bit; but see
        :class:`powergrid.grid.circuit.own.devices.ControlledDevices` for batteries that the feeder controls.

        Raises:
            ScenarioError: the task is closed, or the state is of another scenario or number of environments, or none.
        """
        self.require_fit(state)
        for env in range(self.n_envs if state.drawn is not None or self.drawn is not None else 0):
            self._take_numbers(env, dict(state.drawn[env]) if state.drawn is not None else Values())
        self.simulation.restore(state.simulation)
        self._rewards.restore(state.rewards)
        self.rewards = self._rewards.rewards
        self.channels.restore(state.channels)
        if self._telemetry is not None:
            self._telemetry.restore(state.telemetry)
        self.terminated[:], self.truncated[:] = state.terminated, state.truncated
        self.channels.measure()
        if self._proposals is not None:
            self._proposals.restore(state.proposals)
            self.channels.tell_proposals(self._proposals.values)

    def require_fit(self, state: State) -> None:
        """Refuse a state that :meth:`restore` could not go back to.

        Raises:
            ScenarioError: as there.
        """
        self.require_open()
        if not isinstance(state, State):
            raise ScenarioError(self.scenario.name, [f"{type(state).__name__} given; take what state() gave"])
        if state.fits != self._fits:
            raise ScenarioError(self.scenario.name, [OF_ANOTHER])

    @functools.cached_property
    def _fits(self) -> str:
        """Tell apart tasks whose states differ in form or meaning: rewards and days may differ, the rest may not."""
        simulation = self.simulation
        names = (
            simulation.feeder.digest, simulation.network.nodes, simulation.devices, self.info_names,
            [channel.name for channel in self.channels.table], simulation.options.horizon_steps,
            self.scenario.step_minutes, self.n_envs, self.scenario.never_worse_than, self.scenario.native_controls,
        )  # fmt: skip
        told = "" if self._telemetry is None else repr(self.scenario.telemetry)
        return hashlib.sha256((repr(names) + told).encode()).hexdigest()

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


def _show_graphs(scenario: Scenario, simulation: Simulation, zones: Sequence[list[int]]) -> GraphView:
    """Return each agent's zone as a graph, or the whole network where agents see all of it."""
    graphs: dict[str, tuple[Sequence[int] | None, Sequence[str] | None]] = {NETWORK_GRAPH: (None, None)}
    if scenario.mode == "distributed":
        owned = zip(scenario.agents.items(), zones, strict=True)
        graphs = {graph_owner(name): (zone, spec.devices) for (name, spec), zone in owned}
    room = scenario.graph
    size = (None, None) if room is None else (room.max_buses, room.max_branches)
    return GraphView(simulation, graphs, size, scenario.telemetry)


def _find_pcc_nodes(
    network: Network, pccs: Sequence[int], phases: Sequence[Sequence[int]]
) -> list[npt.NDArray[np.int64]]:
    """Return the nodes of each agent's point of common coupling, of its zone's phases where any is there."""
    found = [(network.nodes_within([bus], own), bus) for bus, own in zip(pccs, phases, strict=True)]
    return [nodes if len(nodes) else network.nodes_within([bus]) for nodes, bus in found]


def read_options(options: Any) -> dict[str, Any]:
    """Return the options of a reset, by name.

    Raises:
        ScenarioError: they have no names.
    """
    if not isinstance(options, Mapping | None):
        raise ScenarioError("options", [f"give them by name, for example {{'day': 3}}, not a {type(options).__name__}"])
    return dict(options or {})


def _check_zones(scenario: Scenario, zones: Sequence[npt.NDArray[np.int64]]) -> None:
    empty = [name for name, nodes in zip(scenario.agents, zones, strict=True) if not len(nodes)]
    if empty:
        raise ScenarioError(scenario.name, [f"agents.{name}: its zone has no bus" for name in empty])
