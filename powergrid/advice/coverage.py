"""How much of what a policy sees was measured: every channel's parts, and where each number is from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from powergrid.advice.answer import Input, Origin
from powergrid.advice.catalogue import OF_TIME, Catalogue
from powergrid.envs.core import GridTask

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Coverage:
    """Tell of each channel that agents see what it is made of.

    Args:
        task: The task.
        catalogue: What may be read of it.

    Attributes:
        seen: Columns of the channel table that any agent sees and that are read, not told by the time or by rules.
        of_agents: For each agent the places among ``seen``.
    """

    def __init__(self, task: GridTask, catalogue: Catalogue) -> None:
        self._task, self._readings = task, catalogue.readings
        table = task.channels.table
        place_of = {reading.name: place for place, reading in enumerate(catalogue.readings)}
        by_target: dict[str, dict[int, int]] = {}
        for place, reading in enumerate(catalogue.readings):
            if reading.target != "load":
                by_target.setdefault(reading.target, {})[reading.where[0]] = place
            elif reading.where[0] == 0:
                by_target.setdefault("load", {})[reading.where[1]] = place
        self._by_target = by_target
        observed = sorted({int(column) for agent in task.agents for column in agent.observed})
        names = {column: _reading_name(table[column].name) for column in observed}
        self.seen = [column for column in observed if table[column].name not in {*OF_TIME, *task.proposed}]
        self._own = np.array([place_of.get(names[column], -1) for column in self.seen], dtype=np.int64)
        self._made_of = [self._parts(column) for column in self.seen]
        index = {column: i for i, column in enumerate(self.seen)}
        self.of_agents = {
            agent.name: np.array([index[c] for c in agent.observed.tolist() if c in index], dtype=np.int64)
            for agent in task.agents
        }

    def measured(self, good: BoolArray) -> FloatArray:
        """Return which part of each channel of ``seen`` was read, 0..1, where ``good`` tells the readings that were."""
        share = np.array([good[own].mean() if len(own) else 0.0 for own in self._made_of])
        direct = (self._own >= 0) & good[self._own]
        share[direct] = 1.0
        return share

    def inputs(self, fresh: BoolArray, good: BoolArray, states_known: Mapping[str, bool]) -> tuple[Input, ...]:
        """Return what agents see, as it stands now.

        Args:
            fresh: Readings of this very step.
            good: Those and the last ones that stand in for others.
            states_known: Whether each device's state is known from readings before.
        """
        table, values, share = self._task.channels.table, self._task.channels.values[0], self.measured(good)
        new = self.measured(fresh)
        told = []
        for i, column in enumerate(self.seen):
            channel, value = table[column], float(values[column])
            beyond = not channel.low <= value <= channel.high
            seen_as = min(max(value, channel.low), channel.high) if beyond else None
            origin = self._origin(i, column, float(share[i]), float(new[i]), states_known)
            told.append(Input(channel.name, channel.unit, value, origin, float(share[i]), seen_as))
        return tuple(told)

    def _origin(self, i: int, column: int, share: float, new: float, states_known: Mapping[str, bool]) -> Origin:
        channel = self._task.channels.table[column]
        if share >= 1.0:
            return "reading" if new >= 1.0 else "last"
        if share > 0.0:
            return "partly"
        if self._own[i] >= 0 and self._readings[self._own[i]].target == "known":
            return "profile"
        if channel.owner in states_known and not states_known[channel.owner]:
            return "nominal"
        return "model"

    def _parts(self, column: int) -> IntArray:
        """Return the readings that a channel of the solved state is made of; none where it is a number of its own."""
        task, channel = self._task, self._task.channels.table[column]
        network, quantity = task.simulation.network, channel.name.rpartition(".")[2]
        target, which = "node", np.empty(0, dtype=np.int64)
        spec = task.scenario.agents.get(channel.owner)
        zone = spec.zone.find_buses(network) if spec is not None else list(range(len(network.buses)))
        phases = spec.zone.phases if spec is not None else ()
        if quantity in ("v_min_pu", "v_mean_pu", "v_max_pu", "violation_share") or quantity.endswith("_percent_pu"):
            which = np.setdiff1d(network.nodes_within(zone, phases), network.neutrals)
        elif quantity == "demand_kw" and spec is not None:
            agent = list(task.scenario.agents).index(channel.owner)
            target, which = "load", np.flatnonzero(task.channels.loads_in[:, agent])
        elif quantity == "pcc_v_pu" and spec is not None:
            bus = network.bus_index[spec.pcc.lower()]
            own = network.nodes_within([bus], phases)
            which = own if len(own) else network.nodes_of([bus])
        elif quantity in ("import_kw", "import_kvar") and not phases:
            target, which = ("p" if quantity == "import_kw" else "q"), np.flatnonzero(network.intake(list(zone)))
        elif quantity == "loading_pu" and spec is not None:
            b = network.branches
            first = b.terminal_bus[np.searchsorted(b.terminal_branch, np.arange(len(b.names)))]
            target, which = "loading", np.flatnonzero(network.among(zone, first))
        elif quantity == "upstream_loading_pu" and spec is not None:
            target, which = "loading", np.array(network.feeding_branches(spec.pcc.lower()) or [0], dtype=np.int64)
        places = self._by_target.get(target, {})
        return np.array([places[int(each)] for each in which], dtype=np.int64)


def _reading_name(channel: str) -> str:
    """Return the name that a channel has among the readings: a node's voltage goes by the node."""
    node = channel.removeprefix("network.")
    return node if node != channel and node.count(".") > 1 else channel
