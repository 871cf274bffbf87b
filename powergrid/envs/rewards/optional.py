"""Terms that are counted only where they have a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import ownership
from powergrid.grid.devices.spec import Rows
from powergrid.grid.metrics import Metrics
from powergrid.grid.simulation import Simulation

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class PeakImport:
    """Follow the highest import of each episode so far.

    Args:
        n_envs: Number of environments.

    Attributes:
        kw: The highest import of the episode so far, 0 at its start, shape (n_envs, 1) [kW].
        rise_kw: How far the last step rose above what was the highest, shape (n_envs, 1) [kW].
    """

    def __init__(self, n_envs: int) -> None:
        self.kw, self.rise_kw = np.zeros((2, n_envs, 1))

    def start(self, rows: Rows) -> None:
        """Forget the episodes of some environments."""
        self.kw[rows] = self.rise_kw[rows] = 0.0

    def follow(self, import_kw: FloatArray) -> None:
        """Take the import of a step, shape (n_envs,)."""
        highest = np.maximum(self.kw, import_kw[:, None])
        np.subtract(highest, self.kw, out=self.rise_kw)
        self.kw[...] = highest


class OtherTerms:
    """Count the terms of other libraries' rewards that have a weight, after everything else of a step.

    Args:
        simulation: The simulation.
        metrics: Its metrics.
        owners: Names of each agent's devices.
        zone_nodes: Nodes of each agent's zone.
        pcc_nodes: Nodes of each agent's point of common coupling, of the phases of its zone.
        rows: Where each of the terms goes, by its name, shape (n_envs, n_agents).

    Source:
        Fan, Lee and Wang, PowerGym, arXiv 2109.03970: the highest and the lowest voltage of each bus, losses over what
        the source gives, moves, discharge over rating and, at the day's end, the state of charge.
    """

    def __init__(
        self,
        simulation: Simulation,
        metrics: Metrics,
        owners: Sequence[Sequence[str]],
        zone_nodes: Sequence[IntArray],
        pcc_nodes: Sequence[IntArray],
        rows: Mapping[str, FloatArray],
    ) -> None:
        self._simulation, self._metrics, self._rows = simulation, metrics, rows
        groups, weights = _group_by_bus(simulation.network.node_bus, zone_nodes)
        self._nodes, self._weights = np.concatenate(groups), weights
        self._starts = np.cumsum([0, *map(len, groups[:-1])])
        self._pcc_nodes, self._pcc_starts = np.concatenate(pcc_nodes), np.cumsum([0, *map(len, pcc_nodes[:-1])])
        self._gear = [(f, ownership(owners, f.names)) for f in simulation.fleets if "operations" in f.terms]
        self._storage = next((f for f in simulation.fleets if f.kind == "storage"), None)
        if self._storage is not None:
            self._own_storage = ownership(owners, self._storage.names)
            p_max = [float(spec.p_max_kw) for spec in self._storage.specs]
            self._p_max = np.tile(p_max, (simulation.n_envs, 1))

    def take_ratings(self, env: int) -> None:
        """Count discharge by what the batteries of one environment are rated for."""
        if self._storage is not None:
            self._p_max[env] = [float(spec.p_max_kw) for spec in self._storage.specs_of(env)]

    def take(self, soc_initial: FloatArray, ends: BoolArray) -> None:
        """Count the step that was solved; see :meth:`Rewards.take`."""
        if "bus_extremes_pu" in self._rows:
            self._rows["bus_extremes_pu"][...] = multiply_rows(self._find_extremes(), self._weights)
        if "connection_violation_pu" in self._rows:
            outside = self._metrics.violation_pu[:, self._pcc_nodes]
            np.maximum.reduceat(outside, self._pcc_starts, axis=1, out=self._rows["connection_violation_pu"])
        if "losses_share" in self._rows:
            snapshot, row = self._simulation.snapshot, self._rows["losses_share"]
            source_kw = snapshot.source_kva.real
            share = np.divide(snapshot.losses_kw, source_kw, out=np.zeros_like(source_kw), where=source_kw > 0.0)
            row[...] = (np.clip(share, 0.0, 1.0) / row.shape[1])[:, None]
        if "gear_moves" in self._rows:
            self._rows["gear_moves"][...] = sum(multiply_rows(f.terms["operations"], own) for f, own in self._gear)
        if self._storage is None:
            return
        if "discharge_share" in self._rows:
            set_to = np.maximum(self._storage.p_kw, 0.0) / self._p_max
            self._rows["discharge_share"][...] = multiply_rows(set_to, self._own_storage)
        if "soc_deviation_share" in self._rows:
            deviation = np.abs(self._storage.soc - soc_initial) * ends[:, None]
            self._rows["soc_deviation_share"][...] = multiply_rows(deviation, self._own_storage)

    def _find_extremes(self) -> FloatArray:
        """Return what each bus's highest and lowest voltage are outside the band [pu], shape (n_envs, n_groups)."""
        outside, above = self._metrics.violation_pu, self._simulation.snapshot.v_pu > 1.0
        parts = ((outside * on)[:, self._nodes] for on in (above, ~above))
        highest, lowest = (np.maximum.reduceat(part, self._starts, axis=1) for part in parts)
        return np.asarray(highest + lowest)


class PaidTerms:
    """Count what else somebody has to pay for, where it has a weight: shared losses, reactive power, imbalance.

    Args:
        simulation: The simulation.
        metrics: Its metrics.
        owners: Names of each agent's devices.
        rows: Where each of the terms goes, by its name, shape (n_envs, n_agents).
    """

    NAMES = ("shared_losses_usd", "reactive_kvarh", "infeasible_kwh")

    def __init__(
        self, simulation: Simulation, metrics: Metrics, owners: Sequence[Sequence[str]], rows: Mapping[str, FloatArray]
    ) -> None:
        self._simulation, self._losses, self._rows = simulation, metrics.losses_outside, rows
        names = simulation.power_device_names
        self._hours = ownership(owners, names) * simulation.dt_h
        # what customers draw by their power factor is nobody's decision
        decided = {action.device for action in simulation.actions if action.name == "q_kvar"}
        self._reactive_hours = self._hours * np.array([[name in decided] for name in names], dtype=np.float64)

    def take(self, usd_per_kw: FloatArray) -> None:
        """Count the step that was solved, of which a kW cost this much, shape (n_envs, n_agents)."""
        rows, powers = self._rows, self._simulation.powers
        if "shared_losses_usd" in rows:
            # row by row: the same bits for any number of environments
            lost_kw = self._losses.of(self._simulation.snapshot.terminal_kva[:, None])[:, 0].real
            np.multiply(lost_kw / usd_per_kw.shape[1], usd_per_kw, out=rows["shared_losses_usd"])
        if "reactive_kvarh" in rows:
            rows["reactive_kvarh"][...] = multiply_rows(np.abs(powers.delivered[1]), self._reactive_hours)
        if "infeasible_kwh" in rows:
            rows["infeasible_kwh"][...] = multiply_rows(np.abs(powers.requested[0] - powers.setpoints[0]), self._hours)


def multiply_rows(of_loads: FloatArray, owners: FloatArray) -> FloatArray:
    """Return ``of_loads @ owners`` row by row: many loads add up to the same bits for any number of environments."""
    product: FloatArray = np.matmul(of_loads[:, None, :], owners)[:, 0]
    return product


def _group_by_bus(node_bus: IntArray, zone_nodes: Sequence[IntArray]) -> tuple[list[IntArray], FloatArray]:
    """Return the nodes of each bus, zone by zone and then in no zone, and what each agent counts of the bus.

    Returns:
        The groups, and 1 for the zone's agent or an equal part for all, shape (n_groups, n_agents).
    """
    n_agents = len(zone_nodes)
    nowhere = np.setdiff1d(np.arange(len(node_bus)), np.concatenate(zone_nodes))
    counts = [*np.eye(n_agents), np.full(n_agents, 1.0 / n_agents)]
    groups, weights = list[IntArray](), list[FloatArray]()
    for nodes, count in zip((*zone_nodes, nowhere), counts, strict=True):
        groups += [nodes[node_bus[nodes] == bus] for bus in np.unique(node_bus[nodes])]
        weights += [count] * (len(groups) - len(weights))
    return groups, np.array(weights)
