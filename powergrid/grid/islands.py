"""What opened switches leave behind: parts that a forming source feeds within its rating, and parts that are dark.

A part of the circuit without any source converges to anything near 0 V, silently; here it is known from the switches,
held at 0 V and its demand counted as not served. Knows neither agents nor prices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit import Circuit
from powergrid.grid.energised import Connectivity
from powergrid.grid.network import Network

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_CLOSE_ENOUGH = 1e-3  # of the rating: how far below it a limited source may stay
_MAX_CORRECTIONS = 8
_ENERGISED_PU = 0.1
_MOST_KEPT = 4096


@dataclass(frozen=True)
class _Island:
    """A part of the circuit that a forming source feeds.

    Attributes:
        source: Place of the source among the forming sources.
        p_min_kw: Least power of the source [kW].
        p_max_kw: Most power of the source [kW].
        loads: Loads in the island.
        devices: Devices in the island that are no loads.
    """

    source: int
    p_min_kw: float
    p_max_kw: float
    loads: IntArray
    devices: IntArray


@dataclass(frozen=True)
class _Layout:
    """What a set of switch positions makes of the circuit.

    Attributes:
        forming: 1 where a forming source is at work, shape (n_forming,).
        islands: The parts that those feed.
        dark: Nodes that nothing feeds, shape (n_nodes,).
        dark_loads: Loads with all their phases there.
        dark_devices: Devices with all their phases there that are no loads.
        dead_share: Part of each load's phases that is there, shape (n_loads,).
    """

    forming: IntArray
    islands: tuple[_Island, ...]
    dark: BoolArray
    dark_loads: IntArray
    dark_devices: IntArray
    dead_share: FloatArray

    @property
    def whole(self) -> bool:
        """Whether the host's sources feed everything."""
        return not self.islands and not self.dark.any()


class Islands:
    """Solve circuits that switches may have taken apart.

    While a microgrid's tie is open and no other way leads to the host's sources, its forming source holds its
    voltage. Where the island asks for more than the source may give, all consumption in it, of loads and of devices,
    is cut by one factor; where it offers more than the source may take, all generation of devices is. Either factor is
    found by solving again, losses included, until the source is within 0.1 % of its rating and not above.

    Args:
        network: The network.
        circuit: One of the circuits, for what the network does not say.
        n_envs: Number of environments.

    Attributes:
        served: Factor on each load's demand as it was asked of the circuit, shape (n_envs, n_loads).
        unserved_kw: Demand that is not served [kW], shape (n_envs, n_loads).
        dark: Nodes that nothing feeds, shape (n_envs, n_nodes).
        islanded: Whether each microgrid with a forming source runs on it, shape (n_envs, n_forming).
        solves: Power flows solved so far, those that found the factors included.
    """

    def __init__(self, network: Network, circuit: Circuit, n_envs: int) -> None:
        self._network = network
        index = {name: i for i, name in enumerate(network.branches.names)}
        self._switch_branch = np.array([index[f"line.{name}"] for name in network.switches], dtype=np.int64)
        self._source_nodes = circuit.source_nodes
        self._forming = [microgrid for microgrid in network.microgrids if microgrid.forming is not None]
        self._ratings = [
            (forming.p_min_kw, forming.p_max_kw)
            for microgrid in self._forming
            if (forming := microgrid.forming) is not None
        ]
        self._entries = [network.nodes_of([network.bus_index[m.entry]]) for m in self._forming]
        self._ties = np.array([network.switches.index(m.tie) for m in self._forming], dtype=np.int64)
        self._device_nodes, self._load_of_device = circuit.device_nodes, circuit.load_of_device
        self._layouts: dict[bytes, _Layout] = {}
        self._connections: dict[tuple[int, ...], Connectivity] = {}
        n_loads, n_nodes = len(network.loads.names), len(network.nodes)
        self.served = np.ones((n_envs, n_loads))
        self.unserved_kw = np.zeros((n_envs, n_loads))
        self.dark = np.zeros((n_envs, n_nodes), dtype=np.bool_)
        self.islanded = np.zeros((n_envs, len(self._forming)), dtype=np.bool_)
        self._apart = np.zeros(n_envs, dtype=np.bool_)
        self.solves = 0

    # -- one environment

    def solve(
        self,
        env: int,
        circuit: Circuit,
        demand: tuple[FloatArray, FloatArray],
        setpoints: tuple[FloatArray, FloatArray],
        solve: Callable[[], bool],
    ) -> bool:
        """Solve a circuit whose demand, setpoints and switches are written.

        Args:
            env: Which environment it is.
            circuit: The circuit.
            demand: What loads ask for [kW], [kvar], each shape (n_loads,).
            setpoints: What devices shall deliver [kW], [kvar], each shape (n_devices,).
            solve: Solves the circuit as it is written, and says whether it converged.

        Returns:
            Whether the power flow converged.
        """
        layout = self._layout(circuit.closed)
        circuit.write_forming(layout.forming)
        circuit.energise(layout.dark, _ENERGISED_PU)
        self.solves += 1
        if layout.whole:
            if self._apart[env]:
                self._apart[env] = self.dark[env] = self.islanded[env] = False
                self.served[env], self.unserved_kw[env] = 1.0, 0.0
            return solve()
        self._apart[env] = True
        self.dark[env], self.islanded[env] = layout.dark, layout.forming.astype(np.bool_)
        converged = self._solve_apart(env, circuit, layout, demand, setpoints, solve)
        lost = 1.0 - self.served[env] * (1.0 - layout.dead_share)
        np.multiply(lost, np.maximum(demand[0], 0.0), out=self.unserved_kw[env])
        return converged

    def _solve_apart(
        self,
        env: int,
        circuit: Circuit,
        layout: _Layout,
        demand: tuple[FloatArray, FloatArray],
        setpoints: tuple[FloatArray, FloatArray],
        solve: Callable[[], bool],
    ) -> bool:
        """Solve with dark parts switched off, until every forming source is within its rating."""
        searches = [_Search(island, demand[0], setpoints[0]) for island in layout.islands]
        moves = 0
        for _ in range(_MAX_CORRECTIONS):
            self._write(env, circuit, layout, searches, demand, setpoints)
            converged = solve()
            moves += circuit.own_moves
            circuit.own_moves = moves
            if not converged:
                return False
            p_kw = circuit.read_forming_kw()
            changed = [search.correct(float(p_kw[search.island.source])) for search in searches]
            if not any(changed):
                break
            self.solves += 1
        return True

    def _write(
        self,
        env: int,
        circuit: Circuit,
        layout: _Layout,
        searches: Sequence[_Search],
        demand: tuple[FloatArray, FloatArray],
        setpoints: tuple[FloatArray, FloatArray],
    ) -> None:
        served = self.served[env]
        served[:] = 1.0
        served[layout.dark_loads] = 0.0
        p_kw, q_kvar = setpoints[0].copy(), setpoints[1].copy()
        p_kw[layout.dark_devices] = q_kvar[layout.dark_devices] = 0.0
        for search in searches:
            served[search.island.loads] = search.consumption
            search.limit(p_kw, q_kvar)
        circuit.write_demand(demand[0] * served, demand[1] * served)
        circuit.write_injections(p_kw, q_kvar)

    def describe(self, forming_kva: npt.NDArray[np.complex128]) -> tuple[FloatArray, ...]:
        """Give islands, power of their sources [kW], demand not served [kW] and dark nodes, each shape (n_envs,)."""
        return (
            np.add.reduce(self.islanded, axis=1, dtype=np.float64),
            np.add.reduce(forming_kva.real, axis=1),
            np.add.reduce(self.unserved_kw, axis=1),
            np.add.reduce(self.dark, axis=1, dtype=np.float64),
        )

    # -- switches

    def _layout(self, closed: IntArray) -> _Layout:
        key = closed.tobytes()
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) >= _MOST_KEPT:
                self._layouts.clear()
            found = self._layouts[key] = self._take_apart(closed)
        return found

    def _take_apart(self, closed: IntArray) -> _Layout:
        """Find what is connected to what, and what feeds it."""
        network = self._network
        branch_closed = network.branches.closed.copy()
        branch_closed[self._switch_branch] = closed != 0
        topology = self._connected(()).look(branch_closed)
        fed = topology.energised.copy()
        forming, islands = np.zeros(len(self._forming), dtype=np.int64), []
        for source in np.argsort([-p_max for _, p_max in self._ratings], kind="stable").tolist():
            entry = self._entries[source]
            if closed[self._ties[source]] or fed[entry].any():
                continue  # a second source in the same island stays off
            inside = np.isin(topology.island, topology.island[entry])
            fed |= inside
            forming[source] = 1
            (p_min_kw, p_max_kw), (loads, devices) = self._ratings[source], self._within(inside)
            islands.append(_Island(source, p_min_kw, p_max_kw, loads, devices))
        topology = self._connected(tuple(np.flatnonzero(forming).tolist())).look(branch_closed)
        dark_loads, dark_devices = self._within(~topology.energised, whole=True)
        return _Layout(forming, tuple(islands), ~topology.energised, dark_loads, dark_devices, topology.dead_share)

    def _connected(self, forming: tuple[int, ...]) -> Connectivity:
        """Give the connections of the network with some forming sources at work."""
        if forming not in self._connections:
            sources = np.concatenate([self._source_nodes, *(self._entries[source] for source in forming)])
            self._connections[forming] = Connectivity(self._network, sources)
        return self._connections[forming]

    def _within(self, nodes: BoolArray, *, whole: bool = False) -> tuple[IntArray, IntArray]:
        """Give the loads, and the devices that are no loads, at some nodes: with any phase, or with the whole."""
        test = np.all if whole else np.any
        loads = [i for i, own in enumerate(self._network.loads.nodes) if test(nodes[list(own)])]
        devices = [i for i, own in enumerate(self._device_nodes) if self._load_of_device[i] < 0 and test(nodes[own])]
        return np.array(loads, dtype=np.int64), np.array(devices, dtype=np.int64)


class _Search:
    """Find the factor on an island's consumption, or on its generation, that keeps its source within its rating."""

    def __init__(self, island: _Island, demand_kw: FloatArray, p_kw: FloatArray) -> None:
        self.island = island
        own = p_kw[island.devices]
        asked = float(np.maximum(demand_kw[island.loads], 0.0).sum() - np.minimum(own, 0.0).sum())
        offered = float(np.maximum(own, 0.0).sum())
        self.consumption, self.generation, self._slope = 1.0, 1.0, 0.0
        self._short = asked - offered > island.p_max_kw
        self._over = offered - asked > -island.p_min_kw
        if self._short:
            self._slope, self.consumption = asked, (island.p_max_kw + offered) / asked
        elif self._over:
            self._slope, self.generation = -offered, (asked - island.p_min_kw) / offered
        self._asked, self._offered = asked, offered
        self._last: tuple[float, float] | None = None

    def limit(self, p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Apply the factors to the devices of the island, in place; reactive power goes with consumption only."""
        devices = self.island.devices
        own = p_kw[devices]
        factor = np.where(own < 0.0, self.consumption, self.generation)
        p_kw[devices] = own * factor
        q_kvar[devices] *= np.where(own < 0.0, self.consumption, 1.0)

    def correct(self, source_kw: float) -> bool:
        """Take what the source gives with the present factors; say whether they had to change."""
        low, high = self.island.p_min_kw, self.island.p_max_kw
        slack = _CLOSE_ENOUGH * max(high, -low)
        if not self._short and not self._over:
            if low - 1e-9 <= source_kw <= high:
                return False
            self._short, self._over = source_kw > high, source_kw < low
            self._slope = self._asked if self._short else -self._offered
        factor = self.consumption if self._short else self.generation
        aim = high - 0.5 * slack if self._short else low + 0.5 * slack
        if abs(source_kw - aim) <= 0.5 * slack or (factor >= 1.0 and low <= source_kw <= high):
            return False
        if self._last is not None and factor != self._last[0]:
            slope = (source_kw - self._last[1]) / (factor - self._last[0])
            self._slope = slope if slope * self._slope > 0.0 else self._slope
        self._last = (factor, source_kw)
        changed = min(max(factor + (aim - source_kw) / self._slope, 0.0), 1.0) if self._slope else factor
        if self._short:
            self.consumption = changed
        else:
            self.generation = changed
        return changed != factor
