"""The two tables of an environment, actions and observations, and all around them, as DataFrames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from powergrid.envs.agents import NETWORK_GRAPH, graph_owner
from powergrid.envs.core import GridTask
from powergrid.envs.observations.graph import GraphForm, GraphSource, GridGraph, graph_of_buses, graph_of_phases
from powergrid.quantities import QUANTITIES, REWARD_TERMS
from powergrid.scenario import Scenario, scenarios_by_feeder
from powergrid.scenario.as_played import Played, as_played, tell_devices

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Description:
    """Tables that say what an environment is.

    Attributes:
        agents: Agent, devices, buses in its zone, numbers of observations and actions.
        devices: Device, kind, where it sits, owner.
        actions: Agent, position in its action, name, kind, unit, bounds that -1..1 or 0..n-1 stand for.
        observations: Agent, position in its observation, name, unit, bounds that -1..1 stand for, owner.
        rewards: Term that is counted, unit, weight [USD per unit], meaning.
        infos: Name, unit, meaning of the numbers in ``infos[agent]``.
        as_played: Element, what moves it (``agent``, ``own control``, ``shape``, ``profile``, ``nothing``), by which
            or why, the most that it draws or delivers [kW].
        placement: What was moved to bring the scenario to its feeder: key, what stood
            there, what stands there now, why; and what is left over. Empty where it was made for it.
    """

    agents: pd.DataFrame
    devices: pd.DataFrame
    actions: pd.DataFrame
    observations: pd.DataFrame
    rewards: pd.DataFrame
    infos: pd.DataFrame
    as_played: pd.DataFrame
    placement: pd.DataFrame
    _source: GraphSource = field(repr=False)
    _seen: Mapping[str, tuple[GridGraph, GraphForm]] = field(repr=False)

    @property
    def graph(self) -> GridGraph:
        """The feeder as a graph of buses and branches: edge index, features of nodes and edges in a stated order."""
        return graph_of_buses(self._source)

    @property
    def phase_graph(self) -> GridGraph:
        """The feeder as a graph of its nodes, phase by phase."""
        return graph_of_phases(self._source.network)

    @property
    def graphs(self) -> Mapping[str, tuple[GridGraph, GraphForm]]:
        """What each agent sees as a graph, and how that lies in its observation; with ``observations: graph``."""
        return self._seen


def describe(task: GridTask) -> Description:
    """Make the tables of a task.

    Raises:
        ScenarioError: it is closed.
    """
    import pandas as pd

    task.require_open()

    return Description(
        agents=pd.DataFrame(_agents(task)),
        devices=pd.DataFrame(_devices(task)),
        actions=pd.DataFrame(_actions(task)),
        observations=pd.DataFrame(_observations(task)),
        rewards=pd.DataFrame(_rewards(task)),
        infos=pd.DataFrame(
            {"name": told.name, "unit": told.unit, "meaning": told.meaning}
            for told in map(QUANTITIES.__getitem__, task.info_names)
        ),
        as_played=pd.DataFrame(_as_played(task), columns=Played._fields),
        placement=pd.DataFrame(_placement(task), columns=["key", "was", "is", "why"]),
        _source=GraphSource.of(task.simulation),
        _seen=_see_graphs(task),
    )


def _see_graphs(task: GridTask) -> dict[str, tuple[GridGraph, GraphForm]]:
    view, seen = task.channels.graph, dict[str, tuple[GridGraph, GraphForm]]()
    if view is None:
        return seen
    for agent in task.agents:
        owner = NETWORK_GRAPH if task.scenario.mode == "centralized" else graph_owner(agent.name)
        seen[agent.name] = view.graphs[owner], view.form(len(agent.observed))
    return seen


def describe_scenario(scenario: Scenario) -> Description:
    """Make the tables of a scenario, on its first feeder where it has several, on a task that is built for that."""
    task = GridTask(next(iter(scenarios_by_feeder(scenario).values())))
    try:
        return describe(task)
    finally:
        task.close()


def _as_played(task: GridTask) -> list[Played]:
    simulation, specs = task.simulation, task.simulation.devices
    devices = tell_devices({name: spec.model_dump() for name, spec in specs.items()})
    native = task.scenario.native_controls
    return as_played(simulation.network, simulation.profiles, simulation.options, devices, native=native)


def _placement(task: GridTask) -> list[tuple[str, ...]]:
    placed = task.scenario.placed
    return [(key, *move) for key, move in placed.moves.items()] + [(left, "", "", "") for left in placed.left_over]


def _agents(task: GridTask) -> list[dict[str, object]]:
    network = task.simulation.network
    return [
        {
            "agent": agent.name,
            "devices": ", ".join(agent.devices),
            "zone_buses": len(task.scenario.agents[agent.name].zone.find_buses(network)),
            "pcc": task.scenario.agents[agent.name].pcc,
            "observations": len(agent.observed),
            "actions": len(agent.continuous) + len(agent.discrete),
        }
        for agent in task.agents
    ]


def _devices(task: GridTask) -> list[dict[str, object]]:
    owner = {device: agent.name for agent in task.agents for device in agent.devices}
    return [
        {
            "device": name,
            "kind": spec.kind,
            "at": getattr(spec, "element", None) or f"bus {spec.bus}",
            "owner": owner.get(name, ""),
        }
        for name, spec in task.simulation.devices.items()
    ]


def _actions(task: GridTask) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for agent in task.agents:
        for part, columns in (("continuous", agent.continuous), ("discrete", agent.discrete)):
            for position, column in enumerate(columns.tolist()):
                spec = task.simulation.actions[column]
                name = f"{spec.device}.{spec.name}"
                rows.append({"agent": agent.name, "part": part, "position": position, "name": name,
                             "unit": spec.unit, "low": spec.low, "high": spec.high, "n": spec.n})  # fmt: skip
    return rows


def _observations(task: GridTask) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for agent in task.agents:
        for position, column in enumerate(agent.observed.tolist()):
            channel = task.channels.table[column]
            rows.append({"agent": agent.name, "position": position, "name": channel.name, "unit": channel.unit,
                         "low": channel.low, "high": channel.high, "owner": channel.owner})  # fmt: skip
    return rows


def _rewards(task: GridTask) -> list[dict[str, object]]:
    return [
        {"term": term.name, "unit": term.unit, "weight": task.scenario.weight_of(term.name), "meaning": term.meaning}
        for term in REWARD_TERMS
        if term.name in task.info_names
    ]
