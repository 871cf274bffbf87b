"""Who is fed and who is not, and what is served: for switches, outages, faults and forming sources alike.

What nothing feeds is held at 0 V and its demand counted as not served. A part that a forming source feeds is kept
within that source's rating. Knows neither agents nor prices, nor why a branch is open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.devices import SwitchFleet
from powergrid.grid.feeder.network import Network
from powergrid.grid.outages.connectivity import Connectivity, FormingSource, Island, Topology

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: What a load should have got at less [pu] counts as unserved.
DROP_OUT_V_PU = 0.5
_CLOSE_ENOUGH = 1e-3  # of the rating: how far below it a limited source may stay
_MAX_CORRECTIONS = 8  # a day of the shipped islands takes fewer than four solves a step
#: What an environment is due before its next solve, the greater one where there are both reasons.
_LOOK, _START_OVER = 1, 2


class _Asked(NamedTuple):
    """What one environment asks of its circuit: loads and devices [kW], [kvar]."""

    load_kw: FloatArray
    load_kvar: FloatArray
    p_kw: FloatArray
    q_kvar: FloatArray


class Islands:
    """Follow who is fed in n environments, and solve circuits that may have been taken apart.

    While a microgrid's tie is open and no other way leads to another source, its forming source holds its voltage,
    unless a fault is in its reach. Where the island asks for more than the source may give, all consumption in it, of
    loads and of devices, is cut by one factor; where it offers more than the source may take, all generation of
    devices is. Either factor is found by solving again, losses included, until the source is within 0.1 % of its
    rating and not above. Where nothing feeds a phase of a device it delivers nothing.

    Args:
        circuits: The circuits, one an environment.
        switches: The switch devices and their places among the network's lines, or None.
        vehicles: Loads whose unserved demand is counted elsewhere: what cars lack is known as they leave.

    Attributes:
        connectivity: Answers who is fed, for all environments.
        lines: Branch of each of the network's lines, shape (n_lines,).
        fleet: The switch devices, None without any.
        places: Place of each among the lines, shape (n_switches,).
        switches: Branch of each switch device, shape (n_switches,).
        out: Branches that are out of service whatever switches say, shape (n_envs, n_branches).
        faulted: Nodes with a fault on, shape (n_envs, n_nodes).
        tripped: Devices that deliver nothing whatever feeds them, shape (n_envs, n_devices).
        energised: Whether a source feeds each node, shape (n_envs, n_nodes); the one answer for all environments.
        dead_share: Part of each load that nothing feeds, shape (n_envs, n_loads).
        dark_nodes: Nodes that nothing feeds, neutrals left out: those have no voltage to lack; shape (n_envs,).
        device_on: 0 where a device is tripped or not fed, else 1, shape (n_envs, n_devices).
        served: Factor on each load's demand as it was asked of the circuit, shape (n_envs, n_loads).
        unserved_kw: Demand of the last step that is not served, without supply, shed in an island or below 0.5 pu,
            vehicles left out [kW], shape (n_envs, n_loads).
        islanded: Whether each microgrid with a forming source runs on it, shape (n_envs, n_forming).
        looks: Counts up whenever who is fed may have changed.
        solves: Power flows solved so far in circuits with islands, those that found the factors included.
    """

    memory: ClassVar[tuple[str, ...]] = (
        *("out", "faulted", "tripped", "energised", "dead_share", "device_on", "served", "unserved_kw", "islanded"),
        *("dark_nodes", "_positions", "_due", "_apart"),
    )

    def __init__(
        self,
        circuits: Sequence[Circuit],
        switches: tuple[SwitchFleet, IntArray] | None,
        vehicles: IntArray,
    ) -> None:
        self._circuits = circuits
        circuit, network = circuits[0], circuits[0].network
        branch_index = network.branch_index
        self.lines = np.array([branch_index[f"line.{name}"] for name in network.switches], dtype=np.int64)
        self.fleet: SwitchFleet | None = switches[0] if switches else None
        self.places: IntArray = switches[1] if switches else np.empty(0, dtype=np.int64)
        self.switches: IntArray = self.lines[self.places]
        sources = []
        for microgrid in network.microgrids:
            if (forming := microgrid.forming) is not None:
                entry = network.nodes_of([network.bus_index[microgrid.entry]])
                tie = branch_index[f"line.{microgrid.tie}"]
                sources.append(FormingSource(tie, entry, forming.p_min_kw, forming.p_max_kw))
        bound = circuit.load_of_device >= 0
        self.connectivity = Connectivity(network, circuit.source_nodes, sources, circuit.device_nodes, bound)
        self._bound_devices = np.flatnonzero(bound)
        self._bound_loads = circuit.load_of_device[self._bound_devices]
        # a car's lack is known as it leaves: counted here as well it would be paid for twice
        self._countable = np.ones(len(network.loads.names))
        self._countable[vehicles] = 0.0
        self._allocate(network, len(bound), len(sources), len(circuits))
        self.solves = self.looks = 0

    def _allocate(self, network: Network, n_devices: int, n_forming: int, n_envs: int) -> None:
        n_loads, n_nodes = len(network.loads.names), len(network.nodes)
        self.out = np.zeros((n_envs, len(network.branches.names)), dtype=np.bool_)
        self.energised = np.ones((n_envs, n_nodes), dtype=np.bool_)
        self.faulted = np.zeros((n_envs, n_nodes), dtype=np.bool_)
        self.tripped = np.zeros((n_envs, n_devices), dtype=np.bool_)
        self.device_on = np.ones((n_envs, n_devices))
        self.served = np.ones((n_envs, n_loads))
        self.dead_share, self.unserved_kw = np.zeros((2, n_envs, n_loads))
        self.dark_nodes = np.zeros(n_envs)
        self.islanded = np.zeros((n_envs, n_forming), dtype=np.bool_)
        self._positions = np.full((n_envs, len(self.switches)), -1, dtype=np.int64)
        self._due = np.full(n_envs, _START_OVER, dtype=np.int64)
        self._apart = np.zeros(n_envs, dtype=np.bool_)
        self._asked_kw = np.zeros((n_envs, len(self._bound_loads)))
        self._parts: list[tuple[Island, ...]] = [()] * n_envs
        self._seen: dict[int, tuple[BoolArray, IntArray]] = {}  # what was closed and open when last looked at
        self._limited: set[int] = set()
        self._searches: dict[int, tuple[_Asked, list[_Search]]] = {}

    # -- who is fed

    @property
    def apart(self) -> bool:
        """Whether anything is not fed, at fault, tripped or islanded in any environment."""
        return bool(np.count_nonzero(self._apart))

    @property
    def limited(self) -> Collection[int]:
        """Environments in which sources form islands, whose rating limits what is fed."""
        return self._limited

    def closed(self, env: int) -> BoolArray:
        """Return whether each branch connects its terminals once the switches stand as asked, shape (n_branches,)."""
        circuit = self._circuits[env]
        closed: BoolArray = circuit.network.branches.closed.copy()
        closed[self.lines] = circuit.closed != 0
        if self.fleet is not None:
            closed[self.switches] = self.fleet.position[env] > 0
        closed &= ~self.out[env]
        return closed

    def notice(self, env: int, *, start_over: bool = False) -> None:
        """Have an environment looked at before its next solve, which starts from the episode's voltages if told."""
        self._due[env] = max(int(self._due[env]), _START_OVER if start_over else _LOOK)

    def start(self, env: int, setpoints: FloatArray) -> None:
        """Start an episode of one environment with nothing out, tripped or at fault; see :meth:`act`."""
        self.out[env] = self.faulted[env] = self.tripped[env] = False
        self.notice(env, start_over=True)
        self._follow(env)
        self._asked_kw[env] = -setpoints[0, env, self._bound_devices]
        setpoints[:, env] *= self.device_on[env]

    def act_again(self, env: int, setpoints: FloatArray) -> None:
        """Follow what one environment's devices are set to anew in the same step; see :meth:`act`."""
        self.notice(env)
        self._follow(env)
        self._asked_kw[env] = -setpoints[0, env, self._bound_devices]
        setpoints[:, env] *= self.device_on[env]

    def act(self, setpoints: FloatArray) -> None:
        """Follow what has changed; call after fleets have projected and before circuits are written.

        Args:
            setpoints: Setpoints of the devices, changed in place, shape (2, n_envs, n_devices).
        """
        if self.fleet is not None:
            moved = self.fleet.position != self._positions
            if np.count_nonzero(moved):
                np.maximum(self._due, moved.any(axis=1), out=self._due)
        if np.count_nonzero(self._due):
            for env in np.flatnonzero(self._due).tolist():
                self._follow(env)
        if self.apart:
            np.negative(setpoints[0][:, self._bound_devices], out=self._asked_kw)
            np.multiply(setpoints, self.device_on, out=setpoints)

    def _follow(self, env: int) -> None:
        was_dark, circuit = ~self.energised[env], self._circuits[env]
        topology = self._look(env)
        circuit.write_forming(topology.forming.astype(np.int64))
        dark = ~topology.energised
        if self._due[env] == _START_OVER:
            # one that nothing feeds converges all the same, to anything near 0 V, so it is put there
            circuit.restart(dark)
        elif np.count_nonzero(was_dark | dark):
            circuit.restart(dark, was_dark & topology.energised)
        if self.fleet is not None:
            self._positions[env] = self.fleet.position[env]
        self._due[env] = 0
        # a device that lacks a phase is off whole: an inverter without a grid must not form one
        tripped, on = self.tripped[env], self.device_on[env]
        np.logical_and(topology.fed, ~tripped, out=on, casting="unsafe")
        parts = (dark, tripped, self.faulted[env], topology.forming)
        self._apart[env] = any(np.count_nonzero(part) for part in parts) or not on.all()
        self.served[env], self.unserved_kw[env] = 1.0, 0.0

    def _look(self, env: int) -> Topology:
        """Take over who is fed by whom."""
        closed, open_rows = self.closed(env), self._circuits[env].protection.open_rows()
        topology = self.connectivity.look(closed, np.flatnonzero(self.faulted[env]), open_rows)
        self._seen[env] = closed, open_rows
        self.energised[env], self.dead_share[env] = topology.energised, topology.dead_share
        self.dark_nodes[env], self.islanded[env] = topology.n_dark, topology.forming
        self._parts[env] = topology.islands
        (self._limited.add if topology.islands else self._limited.discard)(env)
        self.looks += 1
        return topology

    # -- one environment

    def limit(
        self,
        load_kw: FloatArray,
        load_kvar: FloatArray,
        p_kw: FloatArray,
        q_kvar: FloatArray,
        envs: Collection[int] | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Cut what exceeds the rating of a forming source before circuits are written, losses not yet reckoned with.

        Args:
            load_kw, load_kvar: What loads ask for, cut in place [kW], [kvar], each shape (n_envs, n_loads).
            p_kw, q_kvar: What devices shall deliver [kW], [kvar], each shape (n_envs, n_devices).
            envs: Which environments; all if not given.

        Returns:
            What devices are to be set to, as ``p_kw`` and ``q_kvar``.
        """
        p_set, q_set = p_kw.copy(), q_kvar.copy()
        for env in self._limited if envs is None else self._limited.intersection(envs):
            asked = _Asked(load_kw[env].copy(), load_kvar[env].copy(), p_kw[env].copy(), q_kvar[env].copy())
            searches = [_Search(island, asked.load_kw, asked.p_kw) for island in self._parts[env]]
            self._searches[env] = asked, searches
            self.served[env] = 1.0
            if not any(search.cuts for search in searches):
                continue
            load_kw[env], load_kvar[env], p_set[env], q_set[env] = self._cut(env, asked, searches)
        return p_set, q_set

    def _cut(self, env: int, asked: _Asked, searches: Sequence[_Search]) -> _Asked:
        """Apply the factors found so far."""
        served = self.served[env]
        p_kw, q_kvar = asked.p_kw.copy(), asked.q_kvar.copy()
        for search in searches:
            served[search.island.loads] = search.consumption
            if search.cuts:
                search.limit(p_kw, q_kvar)
        return _Asked(asked.load_kw * served, asked.load_kvar * served, p_kw, q_kvar)

    def solve(self, env: int, circuit: Circuit, solve: Callable[[], bool]) -> bool:
        """Solve a circuit that is written as :meth:`limit` says until every forming source is within its rating.

        Args:
            env: Which environment it is.
            circuit: The circuit.
            solve: Solves the circuit as it is written, and says whether it converged.

        Returns:
            Whether the power flow converged.
        """
        asked, searches = self._searches.pop(env)
        moves = 0
        for left in range(_MAX_CORRECTIONS - 1, -1, -1):
            converged = solve()
            self.solves += 1
            moves += circuit.own_moves
            circuit.own_moves = moves
            if not converged:
                return False
            p_kw = circuit.read_forming_kw()
            changed = [search.correct(float(p_kw[search.island.place])) for search in searches]
            if not left or not any(changed):
                break  # before the next cut: what was solved is what was written
            cut = self._cut(env, asked, searches)
            circuit.write_demand(cut.load_kw, cut.load_kvar)
            circuit.write_injections(cut.p_kw, cut.q_kvar)
        return True

    def notice_solved(self, converged: BoolArray, envs: Sequence[int] | None = None) -> None:
        """Have environments looked at whose power flow did not converge, or whose own protection opened lines."""
        for env in range(len(converged)) if envs is None else envs:
            if not converged[env]:
                self.notice(env, start_over=True)
            elif self._circuits[env].may_open and self._have_opened(env):
                self.notice(env)
                if not self.islanded.size:  # at once: what lost its supply in this step is counted so in this step
                    self._look(env)
                    self._apart[env] |= not self.energised[env].all()

    def _have_opened(self, env: int) -> bool:
        """Whether the feeder's own controls have opened or closed any conductor since an environment was looked at."""
        closed, open_rows = self._seen[env]
        same_rows = np.array_equal(self._circuits[env].protection.open_rows(), open_rows)
        return not (same_rows and np.array_equal(self.closed(env), closed))

    # -- what is served

    def count_all(self, v_pu: FloatArray, day_load_kw: FloatArray, step: IntArray) -> None:
        """Count what each environment's solved step did not serve; see :meth:`count`."""
        if self.apart:
            for env in np.flatnonzero(self._apart).tolist():
                self.count(env, v_pu[env], day_load_kw[env, step[env]])

    def count(self, env: int, v_pu: FloatArray, demand_kw: FloatArray) -> None:
        """Count what an environment's solved step did not serve.

        Args:
            env: Which environment.
            v_pu: Solved voltages [pu], shape (n_nodes,).
            demand_kw: Demand of the day in that step [kW], shape (n_loads,); of devices that are loads, what they
                asked for counts.
        """
        if not self._apart[env]:
            return
        served, unserved = self.served[env], self.unserved_kw[env]
        # below half their voltage contactors drop out, fed or not
        dark = (v_pu < DROP_OUT_V_PU) | ~self.energised[env]
        if np.count_nonzero(dark):
            served = served * (1.0 - self.connectivity.loads.share(dark))
        elif not np.count_nonzero(served != 1.0):  # an island that has enough
            unserved[:] = 0.0
            return
        asked = np.maximum(demand_kw, 0.0)
        if self._bound_loads.size:
            asked[self._bound_loads] = np.maximum(self._asked_kw[env], 0.0)
        np.multiply(1.0 - served, asked * self._countable, out=unserved)

    def total_unserved_kw(self) -> FloatArray:
        """Return the demand of the last step that is not served, of all loads [kW], shape (n_envs,)."""
        if not self.apart:
            return np.zeros(len(self._apart))
        total: FloatArray = np.add.reduce(self.unserved_kw, axis=1)
        return total

    def describe(self, forming_kva: npt.NDArray[np.complex128]) -> tuple[FloatArray, ...]:
        """Return islands, power of their sources [kW], demand not served [kW] and dark nodes, each shape (n_envs,)."""
        islands = forming_kw = np.zeros(len(self._apart))
        if self._limited or np.count_nonzero(forming_kva):  # of a step that diverged, what was before it is still told
            islands = np.add.reduce(self.islanded, axis=1, dtype=np.float64)
            forming_kw = np.add.reduce(forming_kva.real, axis=1)
        return islands, forming_kw, self.total_unserved_kw(), self.dark_nodes

    # -- state

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copy everything the future depends on, besides what circuits and fleets hold."""
        return {name: getattr(self, name).copy() for name in self.memory}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put a :meth:`state` back, after those of circuits and fleets."""
        for name in self.memory:
            getattr(self, name)[...] = state[name]
        for env, due in enumerate(self._due.tolist()):
            if not due:  # else it is looked at before its next solve anyway
                self._look(env)
        self.looks += 1


class _Search:
    """Find the factor on an island's consumption, or on its generation, that keeps its source within its rating."""

    def __init__(self, island: Island, demand_kw: FloatArray, p_kw: FloatArray) -> None:
        self.island, source = island, island.source
        self._low, self._high = source.p_min_kw, source.p_max_kw
        own: list[float] = p_kw[island.devices].tolist()  # so few that numpy's functions take longer
        offered = sum(kw for kw in own if kw > 0.0)
        asked = float(np.add.reduce(np.maximum(demand_kw[island.loads], 0.0))) - sum(kw for kw in own if kw < 0.0)
        self.consumption, self.generation, self._slope = 1.0, 1.0, 0.0
        # without losses, which the solves bring in: one side may yet turn out to be beyond its limit
        self._short = asked - offered > self._high
        self._over = offered - asked > -self._low
        if self._short:
            self._slope, self.consumption = asked, (self._high + offered) / asked
        elif self._over:
            self._slope, self.generation = -offered, (asked - self._low) / offered
        self._asked, self._offered = asked, offered
        self._last: tuple[float, float] | None = None

    @property
    def cuts(self) -> bool:
        """Whether either factor is to be found."""
        return self._short or self._over

    def limit(self, p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Apply the factors to the devices of the island, in place; reactive power goes with consumption only."""
        devices = self.island.devices
        own = p_kw[devices]
        factor = np.where(own < 0.0, self.consumption, self.generation)
        p_kw[devices] = own * factor
        q_kvar[devices] *= np.where(own < 0.0, self.consumption, 1.0)

    def correct(self, source_kw: float) -> bool:
        """Take what the source gives with the present factors; say whether they had to change."""
        low, high = self._low, self._high
        slack = _CLOSE_ENOUGH * max(high, -low)
        if not self._short and not self._over:
            if low - 1e-9 <= source_kw <= high:
                return False
            self._short, self._over = source_kw > high, source_kw < low
            self._slope = self._asked if self._short else -self._offered
        factor = self.consumption if self._short else self.generation
        # the middle of what is close enough, so that a small error of the secant stays within it
        aim = high - 0.5 * slack if self._short else low + 0.5 * slack
        if abs(source_kw - aim) <= 0.5 * slack or (factor >= 1.0 and low <= source_kw <= high):
            return False
        # the secant through the last two solves, unless they say that more load draws less
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
