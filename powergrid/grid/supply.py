"""Who is fed and who is not, as events strike and switches move: between the fleets' setpoints and the circuits.

Only simulations with events or rules of reconfiguration have one. What costs time is done where something changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit import Circuit
from powergrid.grid.devices import SwitchFleet
from powergrid.grid.energised import Connectivity
from powergrid.grid.events.effects import Effect, list_effects
from powergrid.grid.events.targets import pick
from powergrid.grid.events.timetable import Timetable
from powergrid.grid.faults import Fault
from powergrid.grid.reconfiguration import Reconfiguration

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Below this voltage [pu] contactors drop out: what a load should have got counts as unserved.
DROP_OUT_V_PU = 0.5
_LAST_PHASE = 3


class Supply:
    """Follow events, outages and what they leave without supply, in n environments.

    Args:
        circuits: The circuits; filled by the owner up to one an environment.
        events: Spec of each event by name.
        faults: The faults built into the circuits, by event.
        device_names: Devices with power, in the order of device arrays.
        switches: The switch devices and their places among the network's lines, or None.
        radial: Whether switching keeps the network radial.
        keep_served: Whether switching keeps fed load fed.
        dt_h: Length of a step [h].
        horizon_steps: Steps of an episode.
        n_envs: Number of environments.

    Attributes:
        timetable: When events happen.
        effects: What each event does at each of its targets.
        on: Events that are on, shape (n_envs, n_events).
        dead: Nodes that nothing feeds, shape (n_envs, n_nodes).
        dead_share: Part of each load that nothing feeds, shape (n_envs, n_loads).
        unserved_kwh: Demand of the last step that was not served, shape (n_envs, n_loads); what flexible loads and
            vehicles are owed is not in it.
        held: Switches that reconfiguration kept where they were, shape (n_envs, n_switches).
        device_on: 0 where a device is tripped or has no supply, else 1, shape (n_envs, n_devices).
    """

    memory: ClassVar[tuple[str, ...]] = (
        *("on", "dead", "dead_share", "unserved_kwh", "held", "device_on", "_last", "_out", "_waiting", "_tripped"),
        *("_positions", "_disturbed"),
    )

    def __init__(
        self,
        circuits: Sequence[Circuit],
        events: Mapping[str, Any],
        faults: Mapping[str, Sequence[Fault]],
        device_names: Sequence[str],
        switches: tuple[SwitchFleet, IntArray] | None,
        *,
        radial: bool,
        keep_served: bool,
        dt_h: float,
        horizon_steps: int,
        n_envs: int,
    ) -> None:
        self._circuits, self._dt_h, self._horizon = circuits, dt_h, horizon_steps
        circuit, network = circuits[0], circuits[0].network
        self.network = network
        branch_index = {name: i for i, name in enumerate(network.branches.names)}
        self._lines = np.array([branch_index[f"line.{name}"] for name in network.switches], dtype=np.int64)
        self._fleet: SwitchFleet | None = switches[0] if switches else None
        self._places: IntArray = switches[1] if switches else np.empty(0, dtype=np.int64)
        self._switches = self._lines[self._places]
        self._unbound_lines = np.setdiff1d(np.arange(len(self._lines)), self._places)
        self._other_branches = np.setdiff1d(np.arange(len(network.branches.names)), self._lines)
        self.connectivity = Connectivity(network)
        nodes = dict(zip(device_names, circuit.device_nodes, strict=True))
        bound = [injection.element.lower() for injection in circuit.injections if injection.element]
        self.effects = list_effects(
            events, faults, network, nodes, bound, self._switches.tolist(), circuit.isolation.nodes_at
        )
        self.timetable = Timetable(events, [len(e) for e in self.effects], dt_h, horizon_steps, n_envs)
        self._specs = tuple(events.values())
        self._first_target = np.cumsum([0, *map(len, self.effects)])[:-1].astype(np.int64)
        nodes_at = [
            [*effect.nodes, *[effect.nodes[0]] * 3][:3] if effect.fault else [0] * 3
            for e in self.effects
            for effect in e
        ]
        self._fault_nodes = np.array(nodes_at, dtype=np.int64).reshape(-1, 3)
        self._has_faults = bool(self.timetable.is_fault.any())
        self._set_up_rules(radial, keep_served)
        self._device_nodes = [own[network.node_phase[own] <= _LAST_PHASE] for own in nodes.values()]
        self._countable = np.ones(len(network.loads.names))
        self._countable[circuit.load_of_device[circuit.load_of_device >= 0]] = 0.0
        self._allocate(n_envs, len(device_names))
        self._steps = [self._load_step(spec) for spec in self._specs]

    def _set_up_rules(self, radial: bool, keep_served: bool) -> None:
        network = self.network
        self._base = network.branches.closed.copy()
        if self._fleet is not None:
            self._base[self._switches] = [bool(spec.closed_initial) for spec in self._fleet.specs]
        max_loops = self.connectivity.look(self._base).loops
        self._rules: Reconfiguration | None = None
        if radial:
            self._rules = Reconfiguration(self.connectivity, self._switches, max_loops, keep_served=keep_served)

    def _allocate(self, n_envs: int, n_devices: int) -> None:
        network, n_events = self.network, len(self._specs)
        n_branches, n_loads = len(network.branches.names), len(network.loads.names)
        self.on = np.zeros((n_envs, n_events), dtype=bool)
        self._last = np.zeros((n_envs, 2 * n_events), dtype=bool)
        self._out, self._waiting = np.zeros((2, n_envs, n_branches), dtype=bool)
        self._tripped = np.zeros((n_envs, n_devices), dtype=bool)
        self.dead = np.zeros((n_envs, len(network.nodes)), dtype=bool)
        self.dead_share, self.unserved_kwh = np.zeros((2, n_envs, n_loads))
        self.device_on = np.ones((n_envs, n_devices))
        self.held = np.zeros((n_envs, len(self._places)), dtype=bool)
        self._positions = np.full((n_envs, len(self._places)), -1, dtype=np.int64)
        self._disturbed = np.zeros(n_envs, dtype=bool)
        rows = [[node for node in own if network.node_phase[node] <= _LAST_PHASE] or [0] for own in network.loads.nodes]
        self._load_rows = np.concatenate([np.empty(0, dtype=np.int64), *map(np.array, rows)]).astype(np.int64)
        self._load_starts = np.cumsum([0, *map(len, rows)])[:-1].astype(np.int64)
        self._per_load = 1.0 / np.array([len(own) for own in rows], dtype=np.float64)

    def _load_step(self, spec: Any) -> IntArray:
        names = self.network.loads.names
        picked = pick(spec.loads, names) if spec.kind == "load_step" else []
        return np.array([names.index(name) for name in picked], dtype=np.int64)

    # -- an episode

    def reset(
        self, env: int, rng: np.random.Generator, load_kw: FloatArray, load_kvar: FloatArray, sun: FloatArray
    ) -> None:
        """Draw the events of an episode and lay those of load and sun out on its day.

        Args:
            env: Which environment.
            rng: Draws them.
            load_kw: Demand of the day, changed in place [kW], shape (horizon + 1, n_loads).
            load_kvar: The same for reactive power [kvar].
            sun: Sun of the day, changed in place [pu], shape (horizon + 1,).
        """
        table = self.timetable
        table.draw(env, rng)
        for i, spec in enumerate(self._specs):
            first, last = int(table.start[env, i]), int(table.end[env, i])
            rows = slice(first, last + (last == self._horizon))  # the row after the last repeats it
            if spec.kind == "load_step" and first < self._horizon:
                load_kw[rows, self._steps[i]] *= spec.factor
                load_kvar[rows, self._steps[i]] *= spec.factor
            elif spec.kind == "pv_step" and first < self._horizon:
                sun[rows] *= spec.factor
        for array in (self.on, self._last, self._out, self._waiting, self._tripped, self.held, self._disturbed):
            array[env] = False
        self.unserved_kwh[env] = 0.0
        if self._fleet is not None:
            self._fleet.hold_open(env, self.held[env])
            self._positions[env] = self._fleet.position[env]
        self._follow(env, self._closed(env))

    def act(self, step: IntArray, setpoints: FloatArray) -> None:
        """Let events strike, switching keep its rules, and devices without supply deliver nothing.

        Call after fleets have projected and before circuits are written.

        Args:
            step: Step of each environment, shape (n_envs,).
            setpoints: Setpoints of the devices, changed in place, shape (2, n_envs, n_devices).
        """
        self.on = on = self.timetable.happening(step)
        now = np.concatenate((on, self.timetable.clearing(step, on)), axis=1)
        changed = (now != self._last).any(axis=1)
        for env in np.flatnonzero(changed).tolist():
            self._strike(env, now[env])
        self._last = now
        fleet = self._fleet
        if fleet is not None:
            self.held[:] = False
            changed |= (fleet.position != self._positions).any(axis=1)
        changed |= self._waiting.any(axis=1)
        for env in np.flatnonzero(changed).tolist():
            self._reconfigure(env)
        self.mask(setpoints)

    def mask(self, setpoints: FloatArray) -> None:
        """Let devices that are tripped or without supply deliver nothing; setpoints shape (2, n_envs, n_devices)."""
        np.multiply(setpoints, self.device_on, out=setpoints)

    def measure(self, step: IntArray, v_pu: FloatArray, demand_kw: FloatArray) -> None:
        """Count what was not served, and go on with repairs.

        Args:
            step: The step that was solved, of each environment, shape (n_envs,).
            v_pu: Solved voltages [pu], shape (n_envs, n_nodes).
            demand_kw: Demand of the days [kW], shape (n_envs, horizon + 1, n_loads).
        """
        if not self._disturbed.any():
            self.unserved_kwh[:] = 0.0
            return
        low = (v_pu < DROP_OUT_V_PU) | self.dead
        share = np.add.reduceat(low.take(self._load_rows, axis=1), self._load_starts, axis=1, dtype=np.float64)
        share *= self._per_load * self._countable
        share[~self._disturbed] = 0.0
        np.multiply(share, demand_kw[np.arange(len(step)), step], out=self.unserved_kwh)
        self.unserved_kwh *= self._dt_h
        if self._has_faults:
            at = self._fault_nodes[self.target_rows()]
            without = self.dead[np.arange(len(step))[:, None, None], at]
            self.timetable.repair(self.on, np.logical_and.reduce(without, axis=2))

    def target_rows(self) -> IntArray:
        """Give the row of each event's drawn target among all targets of all events, shape (n_envs, n_events)."""
        rows: IntArray = self._first_target + self.timetable.target
        return rows

    # -- what changes

    def effect_of(self, env: int, event: int) -> Effect:
        """Give what an event does at the target drawn for an environment."""
        return self.effects[event][int(self.timetable.target[env, event])]

    def _strike(self, env: int, now: BoolArray) -> None:
        """Bring about the events that are on: branches out, devices tripped, faults."""
        n_events = len(self._specs)
        out, tripped = np.zeros_like(self._out[env]), np.zeros_like(self._tripped[env])
        struck, elements = [], []
        for event in np.flatnonzero(now[:n_events]).tolist():
            effect = self.effect_of(env, event)
            if effect.fault:
                struck.append(effect.fault)
            if not effect.fault or now[n_events + event]:
                out[list(effect.branches)] = True
            if effect.device >= 0:
                tripped[effect.device] = True
            if effect.tripped:
                elements.append(effect.tripped)
        if self._rules is not None:  # what is repaired comes back when it closes no loop
            self._waiting[env] = (self._waiting[env] | self._out[env]) & ~out & self._base
            self._waiting[env, self._switches] = False
        self._out[env], self._tripped[env] = out, tripped
        self._disturbed[env] = bool(struck)
        names = self.network.branches.names
        opened = [names[i] for i in self._other_branches[out[self._other_branches]]]
        self._circuits[env].isolation.write(opened, struck, elements)
        if self._fleet is not None:
            self._fleet.hold_open(env, out[self._switches])

    def _reconfigure(self, env: int) -> None:
        """Hold the switches to the rules and find who is fed."""
        fleet, rules = self._fleet, self._rules
        if fleet is not None:
            if rules is not None:
                asked = fleet.position[env].copy()
                fleet.position[env] = rules.project(fleet.settled[env], asked, self._closed(env))
                self.held[env] = asked != fleet.position[env]
            self._positions[env] = fleet.position[env]
        closed = self._closed(env)
        if rules is not None:
            for branch in np.flatnonzero(self._waiting[env]).tolist():
                if rules.may_close(branch, closed):
                    self._waiting[env, branch] = False
                    closed[branch] = True
        self._follow(env, closed)

    def _closed(self, env: int) -> BoolArray:
        closed: BoolArray = self._base.copy()
        if self._fleet is not None:
            closed[self._switches] = self._fleet.position[env] > 0
        closed &= ~(self._out[env] | self._waiting[env])
        return closed

    def _follow(self, env: int, closed: BoolArray) -> None:
        """Take over a topology: who is fed, lines that are no devices, the voltages that the solve starts from."""
        topology, circuit = self.connectivity.look(closed), self._circuits[env]
        np.logical_not(topology.energised, out=self.dead[env])
        self.dead_share[env] = topology.dead_share
        self.device_on[env] = [
            not tripped and bool(topology.energised[nodes].all())
            for tripped, nodes in zip(self._tripped[env].tolist(), self._device_nodes, strict=True)
        ]
        on_fault = bool((self.on[env] & self.timetable.is_fault).any())
        self._disturbed[env] = on_fault or bool(topology.dead_share.any())
        lines = circuit.closed.copy()
        lines[self._unbound_lines] = closed[self._lines[self._unbound_lines]]
        lines[self._places[self._out[env, self._switches]]] = 0
        circuit.write_closed(lines)
        circuit.restart(self.dead[env])

    # -- state

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copy everything the future depends on, besides what circuits and fleets hold."""
        own = {name: getattr(self, name).copy() for name in self.memory}
        return own | {f"timetable.{name}": getattr(self.timetable, name).copy() for name in self.timetable.memory}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put a :meth:`state` back, after those of circuits and fleets."""
        for name in self.memory:
            getattr(self, name)[...] = state[name]
        for name in self.timetable.memory:
            getattr(self.timetable, name)[...] = state[f"timetable.{name}"]
        if self._fleet is not None:
            for env, out in enumerate(self._out):
                self._fleet.hold_open(env, out[self._switches])
