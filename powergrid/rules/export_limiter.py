"""An export limiter: how much less each device gives so that nothing on its way to the source carries too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices.fleet import PowerFleet
from powergrid.rules.ruled import RuledTask

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Least part of its active power that a branch is reckoned to have room for where reactive power fills it.
_LEAST_PART = 0.5


class ExportLimiter:
    """Say how much less agents' batteries and panels shall give, from what was measured on their way to the source.

    An agent knows loading and flow of the branches from each of its devices to the source. Where one that exports is
    above the target, what is behind it gives less in the next step: first batteries, which charge, then panels. What
    sun and plans are about to change is reckoned with. Of a branch outside its zone an agent answers for its part of
    what flows there.

    Args:
        task: The task.
        target_pu: Loading that exports are held to.

    Attributes:
        lower_kw: By how much each device gives less in the step to come, by kind, shape (n_envs, n) [kW].
    """

    def __init__(self, task: RuledTask, target_pu: float) -> None:
        self._target_pu, n_envs = target_pu, task.n_envs
        self._fleets = {f.kind: f for f in task.simulation.fleets if f.kind in ("storage", "inverter")}
        owner = {device: agent for agent, own in enumerate(task.agents) for device in own.devices}
        ways = {kind: _find_ways(task, fleet, owner) for kind, fleet in self._fleets.items()}
        pairs = sorted({pair for own in ways.values() for way in own for pair in way})
        self._agent, self._branch = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        at = {pair: place for place, pair in enumerate(pairs)}
        self._before: dict[str, FloatArray] = {}  # 1 where a device is behind a branch, shape (n_devices, n_pairs)
        self._ways: dict[str, tuple[IntArray, IntArray]] = {}  # of each device one after the other, and their starts
        for kind, own in ways.items():
            # one more than there are, on which nothing ever is to be lowered
            places = [[*(at[pair] for pair in way), len(pairs)] for way in own]
            starts = np.cumsum([0, *map(len, places)])[:-1]
            self._ways[kind] = np.array([each for way in places for each in way], dtype=np.int64), starts
            behind = np.zeros((len(pairs) + 1, len(own)))
            for device, way in enumerate(places):
                behind[way, device] = 1.0
            self._before[kind] = behind[:-1].T
        self._terminal = _face_source(task, self._branch)
        # What is free on a branch is free once for all agents behind it.
        self._even_share = 1.0 / np.bincount(self._branch, minlength=1)[self._branch]
        inside = _lie_inside(task, self._agent, self._branch)
        self._even_share, self._outside = np.where(inside, 1.0, self._even_share), ~inside
        self.lower_kw = {kind: np.zeros((n_envs, fleet.n)) for kind, fleet in self._fleets.items()}
        self._would_kw = {kind: np.zeros((n_envs, fleet.n)) for kind, fleet in self._fleets.items()}
        self._excess_kw = np.zeros((n_envs, len(pairs)))
        self._zeros, self._part = np.zeros_like(self._excess_kw), np.zeros((n_envs, len(pairs) + 1))
        self._zone_kw = task.metrics.columns["zone_kva"].start + 2 * self._agent  # real part first

    def reset(self, env: int) -> None:
        """Start from what an environment's devices give before its first step."""
        for kind, fleet in self._fleets.items():
            self.lower_kw[kind][env] = 0.0
            self._would_kw[kind][env] = fleet.delivered_p_kw[env]

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what it remembers from step to step, arrays with environments first."""
        return [*self.lower_kw.values(), *self._would_kw.values()]

    def look(self, task: RuledTask) -> None:
        """Take what was measured; what they would give next is told by :meth:`expect`."""
        snapshot, zeros = task.simulation.snapshot, self._zeros
        kva, loading = snapshot.terminal_kva.take(self._terminal, 1), snapshot.loading_pu.take(self._branch, 1)
        flow_kw, flow_kvar = kva.real, kva.imag
        part = self._target_pu / np.maximum(loading, 1e-6)
        most = np.maximum((np.abs(kva) * part) ** 2 - flow_kvar**2, zeros)
        most_kw = np.maximum(np.sqrt(most), _LEAST_PART * part * np.abs(flow_kw))
        room_kw = np.where(loading > zeros, most_kw + flow_kw, np.inf)
        # Before the first step, as where a branch has no rating or imports a lot, nothing is to be held back.
        share = self._even_share
        if (beyond := room_kw < zeros).any():
            export_kw = np.maximum(-task.metrics.results.take(self._zone_kw, 1), zeros)
            own_part = np.minimum(export_kw / np.maximum(-flow_kw, 1e-6), 1.0)
            share = np.where(beyond & self._outside, own_part, share)
        applied = [self.lower_kw[kind] @ before for kind, before in self._before.items() if self.lower_kw[kind].any()]
        self._excess_kw = sum(applied, start=zeros) - room_kw * share

    def expect(self, kind: str, would_kw: FloatArray) -> None:
        """Reckon with what all devices of a kind would give in the step to come, shape (n_envs, n) [kW]."""
        # What they would give more than in the last step comes on top of what was measured.
        before = self._would_kw[kind]
        self._excess_kw += (would_kw - before) @ self._before[kind]
        before[...] = would_kw

    def lower(self, kind: str, most_kw: FloatArray) -> FloatArray:
        """Return by how much the devices of a kind give less in the step to come; batteries are asked before panels.

        Args:
            kind: ``storage`` or ``inverter``.
            most_kw: By how much each can give less at most, shape (n_envs, n) [kW].
        """
        lower, before = self.lower_kw[kind], self._before[kind]
        wanted = np.fmax(self._excess_kw, self._zeros)  # of what has no rating it is -inf or no number
        if not wanted.any():
            lower[...] = 0.0
            return lower
        part, (ways, starts) = self._part, self._ways[kind]
        np.divide(wanted, np.maximum(most_kw @ before, 1e-9), out=part[:, :-1])
        share = np.minimum(np.maximum.reduceat(part.take(ways, 1), starts, axis=1), 1.0)
        np.multiply(share, np.maximum(most_kw, 0.0), out=lower)
        self._excess_kw -= lower @ before
        return lower


def _find_ways(task: RuledTask, fleet: PowerFleet[Any], owner: Mapping[str, int]) -> list[list[tuple[int, int]]]:
    """Return the agent and branch of each branch between each device and the source, none of what is nobody's."""
    network, nodes = task.simulation.network, task.simulation.circuits[0].device_nodes
    place = {name: i for i, name in enumerate(task.simulation.power_device_names)}
    ways: list[list[tuple[int, int]]] = []
    for name in fleet.names:
        bus = network.buses[network.node_bus[nodes[place[name]][0]]]
        ways.append([(owner[name], b) for b in network.feeding_branches(bus)] if name in owner else [])
    return ways


def _face_source(task: RuledTask, branches: IntArray) -> IntArray:
    """Return the terminal of each branch that is nearest to the source, shape (n_branches,)."""
    network = task.simulation.network
    b, depth = network.branches, network.tree.depth
    found = []
    for branch in branches.tolist():
        own = np.flatnonzero((b.terminal_branch == branch) & (b.terminal_bus >= 0))
        found.append(int(own[np.argmin(depth[b.terminal_bus[own]])]))
    return np.array(found, dtype=np.int64)


def _lie_inside(task: RuledTask, agents: IntArray, branches: IntArray) -> npt.NDArray[np.bool_]:
    """Return whether each branch lies in the zone of an agent."""
    network, specs = task.simulation.network, [*task.scenario.agents.values()]
    zones: Sequence[set[int]] = [set(spec.zone.find_buses(network)) for spec in specs]
    pairs = zip(agents.tolist(), branches.tolist(), strict=True)
    return np.array([set(network.branches.buses[b]) <= zones[a] for a, b in pairs], dtype=bool)
