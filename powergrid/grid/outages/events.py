"""What events and rules of switching do to a simulation: what is out, tripped and at fault, which switches may move.

Only simulations with events or rules of reconfiguration have one; who is fed then is the islands' to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.out_of_service import Fault
from powergrid.grid.options import SimulationOptions
from powergrid.grid.outages.connectivity import Reconfiguration
from powergrid.grid.outages.effects import Effect, list_effects, pick
from powergrid.grid.outages.islands import Islands
from powergrid.grid.outages.spec import Timetable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Events:
    """Let events strike and hold switching to its rules, in n environments.

    Args:
        circuits: The circuits, one an environment.
        islands: Who is fed in them; told what events take out.
        options: The events, the rules of switching, step and horizon.
        faults: The faults built into the circuits, by event.
        device_names: Devices with power, in the order of device arrays.

    Attributes:
        islands: Who is fed, as given.
        timetable: When events happen.
        effects: What each event does at each of its targets.
        on: Events that are on, each time of one that happens several times by itself, shape (n_envs, n_times).
        held: Switches that reconfiguration kept where they were, shape (n_envs, n_switches).
        changes: Counts up whenever ``on`` or the targets may have changed.
    """

    memory: ClassVar[tuple[str, ...]] = ("on", "held", "_last", "_out", "_waiting")

    def __init__(
        self,
        circuits: Sequence[Circuit],
        islands: Islands,
        options: SimulationOptions,
        faults: Mapping[str, Sequence[Fault]],
        device_names: Sequence[str],
    ) -> None:
        self._circuits, self.islands = circuits, islands
        dt_h, self._horizon = options.step_minutes / 60.0, options.horizon_steps
        self._names, self._specs = tuple(options.events), tuple(options.events.values())
        self._own_specs = dict[int, tuple[Any, ...]]()
        self._fleet, self._switches = islands.fleet, islands.switches
        self.network = network = circuits[0].network
        self._other_branches = np.setdiff1d(np.arange(len(network.branches.names)), islands.lines)
        effects = list_effects(options.events, faults, circuits[0], device_names, self._switches.tolist())
        n_envs, n_targets = len(circuits), [len(of_event) for of_event in effects]
        self.timetable = table = Timetable(options.events, n_targets, dt_h, self._horizon, n_envs)
        self.effects = [effects[event] for event in table.of_event]
        self._first_target = np.cumsum([0, *map(len, self.effects)])[:-1].astype(np.int64)
        # three nodes of each fault, those of one with fewer phases more than once, so that they are one array
        nodes_at = [(effect.nodes * 3)[:3] if effect.fault else (0, 0, 0) for e in self.effects for effect in e]
        self._fault_nodes = np.array(nodes_at, dtype=np.int64).reshape(-1, 3)
        self._base = network.branches.closed.copy()
        if self._fleet is not None:
            self._base[self._switches] = [bool(spec.closed_initial) for spec in self._fleet.specs]
        self._rules: Reconfiguration | None = None
        if options.radial:
            loops = islands.connectivity.look(self._base).loops
            self._rules = Reconfiguration(islands.connectivity, self._switches, loops, keep_served=options.keep_served)
        self._allocate(n_envs)

    def _allocate(self, n_envs: int) -> None:
        table, names = self.timetable, self.network.loads.names
        self.on = np.zeros((n_envs, len(table.names)), dtype=bool)
        self._last = np.zeros((n_envs, 2 * len(table.names)), dtype=bool)
        self._strikes = np.tile([self._specs[event].kind != "price_spike" for event in table.of_event], 2).astype(bool)
        self._out, self._waiting = np.zeros((2, n_envs, len(self._base)), dtype=bool)
        self.held = np.zeros((n_envs, len(self._switches)), dtype=bool)
        picked = [pick(spec.loads, names) if spec.kind == "load_step" else [] for spec in self._specs]
        place = {name: i for i, name in enumerate(names)}
        self._stepped_loads = [np.array([place[name] for name in own], dtype=np.int64) for own in picked]
        # most steps are as the one before: to look at all events in each took 7 % of a step of ieee13_mg
        self._quiet_until = np.zeros(n_envs, dtype=np.int64)
        self._repairing = False
        self.changes = 0

    # -- an episode

    def take_numbers(self, env: int, numbers: Mapping[tuple[str, ...], Any]) -> None:
        """Let events of one environment have numbers of their own from its next reset on.

        Args:
            env: Which environment.
            numbers: Values by event and key; all others are those of its spec.
        """
        own = dict(zip(self._names, self._specs, strict=True))
        for (name, key), value in numbers.items():
            others = dict.fromkeys(
                ({"at_step", "at_hour", "between_hours"} if key.startswith("at_") else set()) - {key}
            )
            own[name] = own[name].model_copy(update={**others, key: value})
        self._own_specs[env] = tuple(own.values())

    def _specs_of(self, env: int) -> tuple[Any, ...]:
        return self._own_specs.get(env, self._specs)

    def reset(
        self,
        env: int,
        rng: np.random.Generator,
        load_kw: FloatArray,
        load_kvar: FloatArray,
        sun: Sequence[FloatArray],
        price: FloatArray,
    ) -> None:
        """Draw the events of an episode and lay those of load, sun and price out on its day.

        Args:
            env: Which environment.
            rng: Draws them.
            load_kw: Demand of the day, changed in place [kW], shape (horizon + 1, n_loads).
            load_kvar: The same for reactive power [kvar].
            sun: All that goes by the sun of the day, changed in place, each of horizon + 1 rows.
            price: Price of the day, changed in place [USD/kWh], shape (horizon + 1,).
        """
        table = self.timetable
        table.draw(env, rng, self._own_specs.get(env))
        for event, spec in enumerate(self._specs_of(env)):
            if spec.kind == "load_step":
                places = np.ix_(self._rows_of(env, event), self._stepped_loads[event])
                load_kw[places] *= spec.factor
                load_kvar[places] *= spec.factor
            elif spec.kind == "price_spike":
                price[self._rows_of(env, event)] *= spec.factor
        self.dim(env, sun)
        for array in (self.on, self._last, self._out, self._waiting, self.held):
            array[env] = False
        self._quiet_until[env] = 0
        self.changes += 1
        if self._fleet is not None:
            self._fleet.hold_open(env, self.held[env])

    def dim(self, env: int, sun: Sequence[FloatArray]) -> None:
        """Lay the events of sun out on the day of an environment, ``sun`` as of :meth:`reset`."""
        for event, spec in enumerate(self._specs_of(env)):
            if spec.kind == "pv_step":
                rows = self._rows_of(env, event)
                for values in sun:
                    values[rows] *= spec.factor

    def _rows_of(self, env: int, event: int) -> BoolArray:
        """Return the rows of a day on which an event is on, shape (horizon + 1,)."""
        table, rows = self.timetable, np.zeros(self._horizon + 1, dtype=bool)  # times that overlap count once
        for i in np.flatnonzero(table.of_event == event).tolist():
            rows[table.start[env, i] : table.end[env, i]] |= table.start[env, i] < self._horizon
        rows[-1] = rows[-2]  # as in the days: it is only looked ahead to
        return rows

    def act(self, step: IntArray) -> None:
        """Let events strike and switching keep its rules; call after fleets have projected, before the islands act.

        Args:
            step: Step of each environment, shape (n_envs,).
        """
        changed = np.zeros(len(step), dtype=bool)
        if np.count_nonzero(step >= self._quiet_until):
            changed = self._let_happen(step)
        if self._rules is not None:
            self._hold_to(self._rules, changed)

    def hold_again(self, env: int) -> None:
        """Hold one environment's switches to the rules where they are set anew in the same step."""
        if self._rules is not None:
            self._reconfigure(env, self._rules)

    def find_held(self, free: BoolArray) -> BoolArray | None:
        """Return which switches the rules would keep where they are; None where there are no rules.

        Args:
            free: Which may move as far as they go themselves, shape (n_envs, n_switches).
        """
        rules, fleet, islands = self._rules, self._fleet, self.islands
        if rules is None or fleet is None:
            return None
        held = np.zeros_like(free)
        for env in np.flatnonzero(free.any(axis=1)).tolist():
            faulted = np.flatnonzero(islands.faulted[env])
            held[env] = rules.find_held(fleet.previous_position[env], free[env], islands.closed(env), faulted)
        return held

    def _let_happen(self, step: IntArray) -> BoolArray:
        """Begin and end what is due; return in which environments anything did that matters to the circuit."""
        table = self.timetable
        self.on = on = table.happening(step)
        now = np.concatenate((on, table.clearing(step, on)), axis=1)
        # a price moves nothing in the circuit, which would be looked at and started over
        changed: BoolArray = ((now != self._last) & self._strikes).any(axis=1)
        for env in np.flatnonzero(changed).tolist():
            self._strike(env, now[env])
        self._last = now
        self._quiet_until = table.next_change(step, on)
        self._repairing = bool((on & table.is_fault).any())
        self.changes += 1
        return changed

    def _hold_to(self, rules: Reconfiguration, changed: BoolArray) -> None:
        """Hold the switches to the rules, in the environments where any moved or anything else changed."""
        if np.count_nonzero(self.held):
            self.held[:] = False
        if self._fleet is not None:
            moved = self._fleet.position != self._fleet.previous_position
            changed = changed | moved.any(axis=1) if np.count_nonzero(moved) else changed
        if np.count_nonzero(self._waiting):
            changed = changed | self._waiting.any(axis=1)
        if np.count_nonzero(changed):
            for env in np.flatnonzero(changed).tolist():
                self._reconfigure(env, rules)

    def measure(self, step: IntArray) -> None:
        """Go on with repairs in the steps that were solved, shape (n_envs,)."""
        if self._repairing:
            at = self._fault_nodes[self.target_rows()]
            without = ~self.islands.energised[np.arange(len(step))[:, None, None], at]
            self.timetable.repair(self.on, np.logical_and.reduce(without, axis=2))

    def target_rows(self) -> IntArray:
        """Return the row of each event's drawn target among all targets of all events, shape (n_envs, n_events)."""
        rows: IntArray = self._first_target + self.timetable.target
        return rows

    # -- what changes

    def effect_of(self, env: int, event: int) -> Effect:
        """Return what an event does at the target drawn for an environment."""
        return self.effects[event][int(self.timetable.target[env, event])]

    def _strike(self, env: int, now: BoolArray) -> None:
        """Bring about the events that are on: branches out, devices tripped, faults."""
        n_times, islands = len(self.timetable.names), self.islands
        out, tripped = np.zeros_like(self._out[env]), np.zeros_like(islands.tripped[env])
        struck, elements = [], []
        at_fault: list[int] = []
        for event in np.flatnonzero(now[:n_times]).tolist():
            effect = self.effect_of(env, event)
            if effect.fault and effect.fault not in struck:  # two times of one event may strike the same place
                struck.append(effect.fault)
                at_fault += effect.nodes
            if not effect.fault or now[n_times + event]:
                out[list(effect.branches)] = True
            if effect.device >= 0:
                tripped[effect.device] = True
            if effect.tripped:
                elements.append(effect.tripped)
        if self._rules is not None:  # what is repaired comes back when it closes no loop
            self._waiting[env] = (self._waiting[env] | self._out[env]) & ~out & self._base
            self._waiting[env, self._switches] = False  # those close when their agent says so
        self._out[env], islands.tripped[env] = out, tripped
        islands.faulted[env] = False
        islands.faulted[env, at_fault] = True
        if self._fleet is not None:
            self._fleet.hold_open(env, out[self._switches])
        self._take_out(env, struck, elements)
        islands.notice(env, start_over=True)

    def _reconfigure(self, env: int, rules: Reconfiguration) -> None:
        """Hold the switches to the rules, and close what waits where it closes no loop."""
        islands, fleet = self.islands, self._fleet
        faulted = np.flatnonzero(islands.faulted[env])
        if fleet is not None:
            asked = fleet.position[env].copy()
            fleet.position[env] = rules.project(fleet.previous_position[env], asked, islands.closed(env), faulted)
            self.held[env] = asked != fleet.position[env]
        closed = islands.closed(env)  # one after the other: two that were repaired may close one loop together
        for branch in np.flatnonzero(self._waiting[env]).tolist():
            if rules.may_close(branch, closed):
                self._waiting[env, branch] = False
                closed[branch] = True
                self._take_out(env)
                islands.notice(env)

    def _take_out(self, env: int, struck: Sequence[str] | None = None, tripped: Sequence[str] | None = None) -> None:
        """Open what is out or waits, and put what no longer does back as it was compiled."""
        islands, circuit = self.islands, self._circuits[env]
        out = self._out[env] | self._waiting[env]
        lines, changed = circuit.closed.copy(), (out != islands.out[env])[islands.lines]
        changed[islands.places] = False  # of switch devices the fleet knows the position
        lines[changed] = (self._base & ~out)[islands.lines[changed]]
        lines[islands.places[out[self._switches]]] = 0  # what protection opens is no operation of the agent's
        islands.out[env] = out
        circuit.switchgear.write_closed(lines)
        names = self.network.branches.names
        opened = [names[i] for i in self._other_branches[out[self._other_branches]]]
        circuit.out_of_service.write(opened, struck, tripped)

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
        self._quiet_until[:] = 0
        self._repairing = bool((self.on & self.timetable.is_fault).any())
        self.changes += 1
        if self._fleet is not None:  # whose state has positions, not what may be reached
            for env, out in enumerate(self._out):
                self._fleet.hold_open(env, out[self._switches])


def follow_supply(
    circuits: Sequence[Circuit],
    power: Sequence[tuple[Any, slice]],
    switchgear: Sequence[tuple[Any, IntArray, str]],
    faults: Mapping[str, Sequence[Fault]],
    options: SimulationOptions,
) -> tuple[Islands | None, Events | None]:
    """Follow who is fed, where switches, microgrids, events or the feeder's own protection may change it.

    Args:
        circuits: The circuits, one an environment.
        power: Fleets with power, each with its places in the device arrays.
        switchgear: Fleets of switchgear, each with its places in the circuit's arrays and its kind.
        faults: The faults built into the circuits, by event.
        options: The events and the rules of switching.
    """
    eventful = bool(options.events) or options.radial is not None
    switches = next(((fleet, places) for fleet, places, kind in switchgear if kind == "switch"), None)
    if not (eventful or circuits[0].network.microgrids or switches or circuits[0].controls.opening):
        return None, None
    vehicles = [circuits[0].load_of_device[columns] for fleet, columns in power if fleet.kind == "ev_charger"]
    of_loads = np.concatenate([np.empty(0, dtype=np.int64), *vehicles])
    islands = Islands(circuits, switches, of_loads[of_loads >= 0])
    if not eventful:
        return islands, None
    names = tuple(name for fleet, _ in power for name in fleet.names)
    return islands, Events(circuits, islands, options, faults, names)
