"""n circuits with devices, profiles and a clock: setpoints in, solved snapshots out.

Useful without any learning: it knows no agents, no observations and no rewards.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from powergrid.errors import ConvergenceError, ScenarioError
from powergrid.grid.circuit.circuits import Circuits, compile_circuits
from powergrid.grid.circuit.out_of_service import find_generating
from powergrid.grid.circuit.own.controls import plan_controls
from powergrid.grid.circuit.own.devices import ControlledDevices
from powergrid.grid.circuit.own.fuel import follow_fuel
from powergrid.grid.circuit.own.machines import follow_slips
from powergrid.grid.circuit.own.storage import lead_batteries
from powergrid.grid.circuit.snapshot import Snapshot
from powergrid.grid.devices.fleet import pack_columns
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.fleets import Fleets, find_tapped_devices, place_devices, sort_devices
from powergrid.grid.numbers import Numbers, Values
from powergrid.grid.options import DivergencePolicy, SimulationOptions
from powergrid.grid.outages.connectivity import Connectivity
from powergrid.grid.outages.effects import find_faults
from powergrid.grid.outages.events import follow_supply
from powergrid.grid.profiles.episode_days import Days
from powergrid.grid.profiles.profiles import Profiles

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

__all__ = ["DivergencePolicy", "Simulation", "SimulationOptions"]

#: What a simulation itself goes on from, and what its days hold.
_CLOCK = ("step_index", "last_step", "day_paid_price", "paid_price", "operations")
_OF_DAYS = ("day", "day_load_kw", "day_load_kvar", "day_price", "day_pv_pu")


@dataclass
class HandedBack:
    """What is handed back to the feeder's own controls, where a limit has devices handed back.

    Attributes:
        release_steps: Steps that devices stay so after one that would have been worse.
        steps_left: Steps that they still stay so, shape (n_envs, 1).
        active: Whether devices were handed back in the last step, shape (n_envs,).
        changed: 1 where a device was set in it to something else than its actions said, shape (n_envs, n_devices).
    """

    release_steps: int
    steps_left: FloatArray
    active: BoolArray
    changed: FloatArray


class Simulation:
    """Step n copies of one feeder with its devices through days of profiles.

    Args:
        feeder: The feeder.
        devices: Spec of each device by name, in any order; tables are ordered by kind, then as given.
        profiles: The exogenous series.
        options: All the rest.
        n_envs: Number of independent copies.

    Attributes:
        fleets: The devices by kind.
        calendar: The days that are played, and what is known of them.
        powers: What those with power were asked, set to and delivered.
        snapshot: The last solved state.
        price_usd_per_kwh: Price of the row to come, shape (n_envs,).
        day_paid_price: ``day_price`` with what events make of it, shape (n_envs, horizon_steps + 1) [USD/kWh].
        paid_price: Price of the last step, shape (n_envs,) [USD/kWh].
        step_index: Steps taken since the last reset, shape (n_envs,).
        row: Row of the step to come in tables of all environments' days laid end to end, shape (n_envs,).
        played_row: The same of the last step.
        last_step: Steps of an episode, shape (n_envs,).
        operations: Positions moved by any switchgear in the last step, shape (n_envs,).
        islands: Who is fed, where switches, microgrids or events may take the circuit apart, else None.
        events: Events and rules of switching, where the options have any, else None.
        handed_back: What is handed back to the feeder's own controls, None where no limit says so.
        first_env: What messages call the first environment, where these are some of many.
        played: Environments that steps are solved of, where others wait for a reset; None for all.

    Raises:
        FeederError: a bus or element is unknown, or the feeder does not solve.
        ScenarioError: profiles, tariff, split or horizon do not fit each other.
    """

    handed_back: HandedBack | None = None

    def __init__(
        self,
        feeder: Feeder,
        devices: Mapping[str, Any],
        profiles: Profiles,
        options: SimulationOptions,
        n_envs: int = 1,
    ) -> None:
        self.feeder, self.options, self.n_envs = feeder, options, n_envs
        self.first_env = 0
        self.played: list[int] | None = None
        self.dt_h = options.step_minutes / 60.0
        by_kind = sort_devices(devices)
        injections, faults = place_devices(by_kind), find_faults(feeder, options.events)
        plan, tapped = plan_controls(devices, options.native_controls), find_tapped_devices(by_kind)
        circuits = compile_circuits(feeder, injections, faults, plan, tapped, options)
        first = next(circuits)
        self.network = first.network
        bound = [spec for spec in devices.values() if getattr(spec, "element", None) and spec.control != "model"]
        taken = {str(spec.element).lower() for spec in bound}
        inverters, generators = (
            [str(spec.element or "").lower() for spec in by_kind[kind].values()] for kind in ("inverter", "generator")
        )
        self._numbers: Numbers | None = None
        self.calendar = Days(profiles, options, self.network, n_envs, inverters, taken, generators)
        self._devices = Fleets(by_kind, first, options, self.calendar, n_envs)
        self.devices, self.fleets, self.actions = self._devices.devices, self._devices.all, self._devices.actions
        self.powers = self._devices.table
        self.device_names = tuple(self.devices)
        self.power_device_names = tuple(injection.name for injection in injections)
        n_power, conductors = len(injections), options.conductor_flows
        self.snapshot = Snapshot.allocate(n_envs, self.network, n_power, conductors=conductors)
        compiled = [first, *itertools.islice(circuits, n_envs - 1)]
        for circuit in compiled:
            circuit.follow(self.calendar.writes)
        self._generating = find_generating(self.calendar.writes)
        self.circuits = Circuits(compiled, self.snapshot)
        arguments = self.circuits, self.calendar.writes, taken, self.dt_h
        self._batteries = batteries = lead_batteries(*arguments)
        mode = profiles.shape_mode or self.network.shape_mode
        burns = mode != "duty"  # where the engine counts no energy
        own = (batteries, follow_fuel(*arguments) if burns else None, follow_slips(*arguments))
        self._stores = [each for each in own if each is not None]
        gear = self._devices.power, self._devices.switchgear
        may_act = bool(first.controls.controls)
        self._native = ControlledDevices(self.circuits, *gear, batteries, self.dt_h, mode) if may_act else None
        self.islands, self.events = follow_supply(self.circuits, *gear, faults, options)
        if self.islands is None:  # who is fed stays as it is
            topology = Connectivity(self.network).look(self.network.branches.closed)
            self._fed_as_compiled = np.tile(topology.energised, (n_envs, 1))
        self._allocate()

    def _allocate(self) -> None:
        n = self.n_envs
        self.day_paid_price = self.day_price.copy()
        self._first_row = np.arange(n) * self.day_price.shape[1]
        self.step_index, self.row = np.zeros(n, dtype=np.int64), self._first_row
        self.played_row = self.row
        self.last_step = np.full(n, self.options.horizon_steps)
        self.price_usd_per_kwh = self.paid_price = np.zeros(n)
        self.operations, self._no_moves = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.env_index, self._one_step = np.arange(n), np.ones(n, dtype=np.int64)
        self._devices.start_day(self.calendar)
        self._turn_clock()

    # what the days own

    @property
    def profiles(self) -> Profiles:
        """The exogenous series in steps of the simulation."""
        return self.calendar.profiles

    @property
    def days(self) -> IntArray:
        """Days of the split, from the profiles' first."""
        return self.calendar.eligible

    @property
    def series(self) -> IntArray:
        """Demand series of each load, shape (n_loads,)."""
        return self.calendar.series

    @property
    def day(self) -> IntArray:
        """Day of the profiles each environment plays, shape (n_envs,)."""
        return self.calendar.day

    @property
    def day_load_kw(self) -> FloatArray:
        """Demand of each load on that day [kW], shape (n_envs, horizon_steps + 1, n_loads)."""
        return self.calendar.load_kw

    @property
    def day_load_kvar(self) -> FloatArray:
        """The same for reactive power [kvar]."""
        return self.calendar.load_kvar

    @property
    def day_price(self) -> FloatArray:
        """Price of the day by the tariff, shape (n_envs, horizon_steps + 1) [USD/kWh]."""
        return self.calendar.price_usd_per_kwh

    @property
    def day_pv_pu(self) -> FloatArray:
        """What the sun offers on it, in parts of the panels' rating, shape (n_envs, horizon_steps + 1)."""
        return self.calendar.pv_pu

    @property
    def setpoints(self) -> FloatArray:
        """Feasible setpoints of the last step, active then reactive [kW, kvar], shape (2, n_envs, n_devices)."""
        return self.powers.setpoints

    @property
    def requested(self) -> FloatArray:
        """What was asked of the devices in the last step, as ``setpoints``."""
        return self.powers.requested

    @property
    def delivered(self) -> FloatArray:
        """What the solved grid says the devices delivered in the last step, as ``setpoints``."""
        return self.powers.delivered

    @property
    def energised(self) -> BoolArray:
        """Whether a source feeds each node, shape (n_envs, n_nodes)."""
        return self._fed_as_compiled if self.islands is None else self.islands.energised

    # -- playing

    def take_numbers(self, env: int, values: Values) -> None:
        """Let an environment have numbers of its own from its next reset on, see :class:`Numbers`.

        Args:
            env: Which environment.
            values: By the parts of the scenario's key; all others are the scenario's.
        """
        if self._numbers is None:
            if not values:
                return
            parts = self.options, self.calendar, self._devices, self.circuits, self.events
            self._numbers = Numbers(*parts, self.options.line_scales)
        self._numbers.take(env, values)

    @property
    def first_step(self) -> IntArray:
        """Step of the day that each environment's step 0 is, shape (n_envs,)."""
        return self.calendar.first_step

    def reset(self, env: int, rng: np.random.Generator, day: int | None = None) -> None:
        """Put one environment at the start of a day and solve it with its devices left to themselves.

        Args:
            env: Which environment.
            rng: Draws the day, where it is not given, and whatever is random in devices.
            day: Day of the profiles, from their first.

        Raises:
            ScenarioError: the day is not in the profiles, or the power flow does not converge at its start.
        """
        self.reset_all([env], [rng], day)

    def reset_all(self, envs: Sequence[int], rngs: Sequence[np.random.Generator], day: int | None = None) -> None:
        """Put several environments, each with a generator of its own, at the start of a day; see :meth:`reset`."""
        rows = pack_columns(envs)
        self.calendar.start(rows, envs, rngs, day)
        for fleet in self.fleets:
            fleet.reset_all(rows, rngs)
        self.step_index[rows] = 0
        self.day_paid_price[rows] = self.day_price[rows]
        for env, rng in zip(envs, rngs, strict=True):
            if self._native is not None:
                self._native.reset(env)
            self.circuits[env].reset()
            if self._numbers is not None:
                self._numbers.start(env)
            for store in self._stores:
                store.reset(env)
            if self.events is not None:
                sun = [self.day_pv_pu[env], *self.calendar.own_sun(env)]
                load_kw, load_kvar = self.day_load_kw[env], self.day_load_kvar[env]
                self.events.reset(env, rng, load_kw, load_kvar, sun, self.day_paid_price[env])
        self._devices.start_day(self.calendar)
        self._turn_clock()
        self.paid_price[rows] = self.price_usd_per_kwh[rows]
        self._devices.leave_alone(rows, self._exogenous)
        self._start(envs)
        self.snapshot.converged[rows] = True
        self.operations[rows] = 0
        self._devices.start(rows, self.snapshot.device_kva, self._exogenous)

    def _start(self, envs: Sequence[int]) -> None:
        """Solve some environments at the start of their day."""
        islands = self.islands
        if islands is not None:
            for env in envs:
                islands.start(env, self.setpoints)
        for env in np.flatnonzero(~self._play(envs)).tolist():
            self._refuse_start(env)
        for env in envs:
            if self._native is not None:
                self._native.start_from_here(env)
            if islands is not None:
                islands.count(env, self.snapshot.v_pu[env], self.day_load_kw[env, 0])

    def _refuse_start(self, env: int) -> NoReturn:
        problem = (
            f"the power flow does not converge at the start of day {self.day[env]} (load_scale "
            f"{self.options.load_scale:g}); lower load_scale or raise max_iterations"
        )
        raise ScenarioError(f"feeder {self.feeder.name!r}", [problem])

    @property
    def weekend(self) -> BoolArray:
        """Whether the day that each environment plays is a Saturday or a Sunday, shape (n_envs,)."""
        return self.calendar.weekend[self.day]

    def neutral(self) -> FloatArray:
        """Return the actions that leave every device to itself, shape (n_envs, n_actions)."""
        return self._devices.neutral(self._exogenous)

    def reach(self) -> tuple[FloatArray, FloatArray]:
        """Return the least and the most that each action can ask in the step to come and get.

        Told are what switchgear may move, by range, moves at once and in a day, dwell and rules of switching, and what
        batteries have room for; other actions have their whole range. Nobody knows of events before they strike.

        Returns:
            Two arrays in the units of actions, shape (n_envs, n_actions) each.
        """
        return self._devices.reach(lambda free: None if self.events is None else self.events.find_held(free))

    def step(self, action: FloatArray) -> None:
        """Move every environment by one step.

        Args:
            action: Normalised [-1, 1] or a position's index, in the order of ``actions``, finite,
                shape (n_envs, n_actions).

        Raises:
            ConvergenceError: the power flow did not converge and the policy is ``raise``.
        """
        exo, converged = self._exogenous, self.snapshot.converged
        self._devices.project(action, exo)
        self._play_step()
        if self.options.divergence == "raise" and False in converged.tolist():
            raise ConvergenceError(self._describe_divergence(int(converged.argmin())))
        if self._native is not None:
            self._native.advance(converged)
        for store in self._stores:
            store.advance(converged)
        self._devices.advance(self.snapshot.device_kva, exo)
        if self.events is not None:
            self.events.measure(self.step_index)
        self.paid_price, self.played_row = self.price_usd_per_kwh, self.row
        self.step_index = np.minimum(self.step_index + self._one_step, self.last_step)
        self._turn_clock()

    # -- a grid that others move, followed step by step

    def project(self, action: FloatArray) -> None:
        """Turn actions, as :meth:`step` takes them, into feasible setpoints and positions; nothing is played."""
        self._devices.project(action, self._exogenous)

    def solve(self) -> BoolArray:
        """Solve the present row with present setpoints and positions; return what converged, shape (n_envs,)."""
        if self.islands is not None:
            self.islands.act(self.setpoints)
        self.snapshot.converged[...] = self._play()
        return self.snapshot.converged

    def follow(self, device_kva: npt.NDArray[np.complex128]) -> None:
        """Move devices and clock on by a step in which some powers were delivered, shape (n_envs, n_devices) [kVA]."""
        self._devices.advance(device_kva, self._exogenous)
        self.step_index = np.minimum(self.step_index + self._one_step, self.last_step)
        self._turn_clock()

    # -- parts of a step

    def _play_step(self) -> None:
        """Solve all circuits with what devices are set to, and count what was moved and not served."""
        islands = self.islands
        if islands is not None:
            if self.events is not None:
                self.events.act(self.step_index)
            islands.act(self.setpoints)
        self.snapshot.converged[...] = self._play(self.played)
        if self._native is not None:
            self.operations += self.circuits.own_moves
        if islands is not None:
            islands.count_all(self.snapshot.v_pu, self.day_load_kw, self.step_index)

    def _play(self, envs: Sequence[int] | None = None) -> BoolArray:
        """Write, solve and read some or all circuits; return whether each power flow converged, shape (n_envs,)."""
        rows, circuits, islands = self.row, self.circuits, self.islands
        p_kw, q_kvar = self.powers.p_kw, self.powers.q_kvar
        circuits.fill_demand(*self.calendar.load_rows, rows, p_kw, q_kvar)
        if self.calendar.writes:
            circuits.fill_background(self.calendar.background, rows)
        if self.events is not None and self._generating:
            circuits.hold_tripped(self._generating, len(self.calendar.writes))
        for store in self._stores:
            hours = self.calendar.day, self.step_index + self.calendar.first_step
            store.decide(range(self.n_envs) if envs is None else envs, *hours)
        if islands is not None and islands.limited:
            p_kw, q_kvar = islands.limit(circuits.load_kw, circuits.load_kvar, p_kw, q_kvar, envs)
        circuits.fill_injections(p_kw, q_kvar)
        moves = self._no_moves
        for fleet, places, kind in self._devices.switchgear:
            moves = moves + circuits.aim(kind, places, fleet.position)
        if envs is None:
            self.operations[...] = moves
        else:
            self.operations[envs] = moves[envs]
        if self._native is not None:
            circuits.solve(envs, range(self.n_envs), self._solve_alone)
        elif islands is not None:
            circuits.solve(envs, islands.limited, self._solve_alone)
        else:
            circuits.solve(envs)
        converged = circuits.read(envs, whole=envs is self.played)
        if islands is not None:
            islands.notice_solved(converged, envs)
        return converged

    def _turn_clock(self) -> None:
        """Take the exogenous row of the current step."""
        self.row = self.step_index + self._first_row
        self.price_usd_per_kwh = self.day_paid_price.take(self.row)
        self._exogenous = self._devices.look_out(self.step_index, self.row)

    def _solve_alone(self, env: int) -> bool:
        """Solve one circuit that is written, with the feeder's own controls and within forming sources' limits."""
        circuit, islands, native = self.circuits[env], self.islands, self._native
        limited = islands is not None and env in islands.limited
        solve: Callable[[], bool] = circuit.solve
        if native is not None:
            day, step = int(self.calendar.day[env]), int(self.step_index[env] + self.calendar.first_step[env])
            solve = functools.partial(native.solve, env, day, step, checked=limited)
        return islands.solve(env, circuit, solve) if islands is not None and limited else solve()

    def _describe_divergence(self, env: int) -> str:
        return (
            f"feeder {self.feeder.name!r}: the power flow did not converge in environment {self.first_env + env}, "
            f"day {self.day[env]}, step {self.step_index[env]}"
        )

    # -- state

    def state(self) -> dict[str, Any]:
        """Copy everything the future depends on, and all that is reported of the last step.

        Random generators are whoever's who hands them to :meth:`reset_all`.
        """
        return {
            "circuits": self.circuits.state(),
            "fleets": [fleet.state_dict() for fleet in self.fleets],
            "power": self.powers.state(),
            "clock": {name: getattr(self, name).copy() for name in _CLOCK},
            "days": {name: getattr(self, name).copy() for name in _OF_DAYS},
            "snapshot": {name: value.copy() for name, value in vars(self.snapshot).items()},
            "controls": {} if self._native is None else self._native.state(),
            "stores": [store.state() for store in self._stores],
            "islands": {} if self.islands is None else self.islands.state(),
            "events": {} if self.events is None else self.events.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put a :meth:`state` back, of this simulation or another of the same scenario and number of environments."""
        for name, value in state["days"].items():
            getattr(self, name)[...] = value
        for env in range(self.n_envs):
            self.calendar.lay_out_others(env)
        for name, value in state["clock"].items():
            setattr(self, name, value.copy())
        for fleet, kept in zip(self.fleets, state["fleets"], strict=True):
            fleet.load_state_dict(kept)
        self.powers.restore(state["power"])
        if self._native is not None:  # before circuits: what their controllers forget takes a solve
            self._native.restore(state["controls"])
        self.circuits.restore(state["circuits"])
        for store, kept in zip(self._stores, state["stores"], strict=True):
            store.restore(kept)
        if self.islands is not None:
            self.islands.restore(state["islands"])
        if self.events is not None:
            self.events.restore(state["events"])
            for env in range(self.n_envs):
                self.events.dim(env, self.calendar.own_sun(env))
        self._devices.start_day(self.calendar)
        for name, value in state["snapshot"].items():
            getattr(self.snapshot, name)[...] = value
        self._turn_clock()

    def close(self) -> None:
        """Release the engines."""
        self.circuits.close()
