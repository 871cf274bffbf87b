"""What all fleets do alike: tables, requests, the kVA circle, observing, copying; no physics of any one kind.

A fleet owns its arrays: each stage of a step assigns new ones, and none is part of another object's. Constants of a
step have the full shape of what they meet: a ufunc takes up to twice as long where it must broadcast.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices.spec import (
    ActionSpec,
    Columns,
    DeviceSpec,
    Exogenous,
    FloatArray,
    Rows,
    StateSpec,
)

S = TypeVar("S", bound=DeviceSpec)


class DeviceFleet(ABC, Generic[S]):
    """All the devices of one kind as arrays whose first axis is the environment.

    Args:
        devices: Spec of each device by its name; ratings that a feeder's element has must be filled in.
        dt_h: Length of a step, > 0 [h].
        horizon_steps: Steps of an episode, >= 1.
        n_envs: Number of environments; `reset` each one before use.

    Attributes:
        names, specs: Name of each device, and what YAML said about it.
        n: Number of devices.
        actions, states: Tables of what is decided and of what is observed.
        held: Attribute that holds each state, of shape (n_envs, n), and the device's place in it.
        terms: What the last step counted and cost by name, each of shape (n_envs, n).

    Raises:
        ValueError: A rating is missing, with the device and the key.
    """

    kind: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    #: Attributes that the future depends on.
    memory: ClassVar[tuple[str, ...]] = ()
    #: Attribute that holds each state, by the state's name; the name itself where it is not here.
    held_in: ClassVar[Mapping[str, str]] = {}

    def __init__(self, devices: Mapping[str, S], dt_h: float, horizon_steps: int, n_envs: int = 1) -> None:
        for name, spec in devices.items():
            missing = [key for key in self.required if getattr(spec, key) is None]
            if missing:
                raise ValueError(
                    f"{self.kind} {name!r}: {', '.join(missing)} missing; give it, or bind an element that has it"
                )
        self.names: tuple[str, ...] = tuple(devices)
        self.places = {name: place for place, name in enumerate(devices)}
        self.specs: tuple[S, ...] = tuple(devices.values())
        self.n, self.n_envs = len(self.names), n_envs
        self.dt_h = float(dt_h)
        self.horizon_steps = int(horizon_steps)
        self.actions: tuple[ActionSpec, ...] = ()
        self.states: tuple[StateSpec, ...] = ()
        self.held: tuple[tuple[str, int], ...] = ()
        self.terms: dict[str, FloatArray] = {}
        self._own_specs: dict[int, tuple[S, ...]] = {}

    def _take_tables(self, actions: Sequence[ActionSpec], states: Sequence[StateSpec]) -> None:
        """Take the tables of what is decided and observed, and find what holds each state."""
        self.actions, self.states = tuple(actions), tuple(states)
        self.held = tuple((self.held_in.get(s.name, s.name), self.places[s.device]) for s in states)

    @abstractmethod
    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions that leave every device to itself, shape (n_envs, n_actions)."""

    @abstractmethod
    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Turn actions, shape (n_envs, n_actions), into feasible setpoints."""

    def reach(self) -> tuple[FloatArray, FloatArray]:
        """Return the least and the most that each action can ask now and get, shape (n_envs, n_actions) each.

        In the units of actions: a position's index, or -1..1. A kind that says nothing of it gets what there is.
        """
        return self._whole_range[0].copy(), self._whole_range[1].copy()

    @functools.cached_property
    def _whole_range(self) -> tuple[FloatArray, FloatArray]:
        lows = [0.0 if action.discrete else -1.0 for action in self.actions]
        highs = [action.n - 1.0 if action.discrete else 1.0 for action in self.actions]
        return self._tile(lows), self._tile(highs)

    @abstractmethod
    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        """Fill the zeroed arrays of some environments, a generator each, with what they start from."""

    def reset(self, env: int, rng: np.random.Generator) -> None:
        """Put one environment at its start; what is random comes from ``rng`` alone."""
        self.reset_all(slice(env, env + 1), [rng])

    def reset_all(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        """Put some environments at their start; what is random comes from the generator of each."""
        for array in (*(getattr(self, name) for name in self.memory), *self.terms.values()):
            array[rows] = 0
        self._start(rows, rngs)

    def observe(self, out: FloatArray) -> None:
        """Write the states, in physical units, into ``out`` of shape (n_envs, n_states)."""
        for column, (name, device) in enumerate(self.held):
            out[:, column] = getattr(self, name)[:, device]

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """Copy everything that the future depends on, and what the last step counted."""
        terms = {f"terms.{name}": term.copy() for name, term in self.terms.items()}
        return {name: getattr(self, name).copy() for name in self.memory} | terms

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Return to what `state_dict` copied, from a fleet of the same devices and environments."""
        for name in self.memory:
            setattr(self, name, np.array(state[name], dtype=getattr(self, name).dtype))
        self.terms = {name: np.array(state[f"terms.{name}"], dtype=np.float64) for name in self.terms}

    def specs_of(self, env: int) -> tuple[S, ...]:
        """Return what is said of the devices of one environment, which may have numbers of their own."""
        return self._own_specs.get(env, self.specs)

    def take_specs(self, env: int, devices: Mapping[str, S], **arguments: Any) -> DeviceFleet[S]:
        """Let the devices of one environment have the numbers of other specs from its next reset on.

        What actions ask for, and what is told of devices, stays by the specs that all have.

        Args:
            env: Which environment.
            devices: Spec of each device by its name, in the same order.
            **arguments: What the fleet was made with besides.

        Returns:
            A fleet of one environment with these specs, from which the numbers were taken.
        """
        self._own_specs[env] = tuple(devices.values())
        one, two = (type(self)(devices, self.dt_h, self.horizon_steps, n, **arguments) for n in (1, 2))
        for name, single in vars(one).items():
            pair, whole = getattr(two, name), getattr(self, name)
            if isinstance(single, bool) and single and not whole:
                setattr(self, name, True)  # says whether a part of the physics can be left out
            if single is None and isinstance(whole, np.ndarray):
                single, pair = (np.zeros((n, *whole.shape[1:])) for n in (1, 2))
            if name in self.memory or not isinstance(single, np.ndarray):
                continue
            axis = next((i for i, (n, m) in enumerate(zip(single.shape, pair.shape, strict=True)) if n != m), None)
            # what differs between environments says where they are, and nothing of devices
            if axis is None or not np.array_equal(pair.take(0, axis), pair.take(1, axis)):
                continue
            if whole is None:
                whole = np.zeros((*single.shape[:axis], self.n_envs, *single.shape[axis + 1 :]), single.dtype)
                setattr(self, name, whole)
            whole[(slice(None),) * axis + (env,)] = single.take(0, axis)
        return one

    def _zeros(self) -> FloatArray:
        """Return a number for each device of each environment."""
        return np.zeros((self.n_envs, self.n))

    def _values(self, key: str) -> FloatArray:
        """Gather one key of every spec, repeated for every environment, shape (n_envs, n)."""
        return self._tile([getattr(spec, key) for spec in self.specs])

    def _tile(self, values: npt.ArrayLike) -> FloatArray:
        """Repeat a row for every environment.

        On arrays of a few numbers a ufunc takes 0.4 µs where shapes are equal and 1 µs where it must
        broadcast, so the constants of a step have the full shape (n_envs, n).
        """
        return np.tile(np.asarray(values, dtype=np.float64), (self.n_envs, 1))


class Request(NamedTuple):
    """How the actions of a fleet become requests: ``gain`` times action plus ``offset``, held to ``low .. high``.

    Attributes:
        columns: Column of each device's action on active and on reactive power, -1 for none, shape (2, n).
        gain, offset, low, high: What an action means, active and reactive, shape (2, n) each.
    """

    columns: FloatArray
    gain: FloatArray
    offset: FloatArray
    low: FloatArray
    high: FloatArray


class Powers(NamedTuple):
    """One fleet's columns of a :class:`PowerTable`, to be read and written in place, shape (n_envs, n) each.

    Attributes:
        asked_p_kw, asked_q_kvar: What is asked of the devices, positive into the grid [kW], [kvar].
        p_kw, q_kvar: Feasible setpoints [kW], [kvar].
        delivered_p_kw, delivered_q_kvar: What the solved grid says was delivered [kW], [kvar].
    """

    asked_p_kw: FloatArray
    asked_q_kvar: FloatArray
    p_kw: FloatArray
    q_kvar: FloatArray
    delivered_p_kw: FloatArray
    delivered_q_kvar: FloatArray


class PowerTable:
    """Power of the devices of some fleets side by side: what was asked, set and delivered, active and then reactive.

    The one home of these numbers: a fleet's ``p_kw`` and the like are its columns of them, looked up when asked for.
    Requests and the kVA circle are taken in one pass over all fleets; fleet by fleet they took 7 % of a whole step of
    ``ieee13_mg``.

    Args:
        fleets: The fleets, in the order of their devices.
        columns: Columns of the action matrix that each fleet has.
        n_envs: Number of environments.
        n_actions: Width of the action matrix.

    Attributes:
        setpoints: Feasible setpoints [kW, kvar], shape (2, n_envs, n_devices); never bound anew.
        p_kw, q_kvar: The two parts of ``setpoints``: to take an array apart at each step takes 1 µs.
        requested: What was asked, as ``setpoints``.
        delivered: What the solved grid says was delivered, as ``setpoints``.

    Source:
        IEEE Std 1547-2018, 5.2 (active power has priority, unless a device says otherwise).
    """

    def __init__(
        self, fleets: Sequence[PowerFleet[Any]], columns: Sequence[slice], n_envs: int, n_actions: int
    ) -> None:
        n = sum(fleet.n for fleet in fleets)
        self.setpoints, self.requested, self.delivered = np.zeros((3, 2, n_envs, n))
        self.p_kw, self.q_kvar = self.setpoints
        self._asked_q_kvar, self._delivered_rows = self.requested[1], tuple(self.delivered)
        self._acts, self._reactive = n > 0 and n_actions > 0, any(fleet.reactive for fleet in fleets)
        self._parts: list[tuple[PowerFleet[Any], Powers]] = []
        first = 0
        for fleet in fleets:
            own = slice(first, first + fleet.n)
            fleet.bind(self, own)
            self._parts.append((fleet, Powers(*(row[:, own] for array in self.arrays for row in array))))
            first = own.stop
        self._reading = [(fleet, own) for fleet, own in zip(fleets, columns, strict=True) if fleet.reads]
        self._giving = [(fleet, own) for fleet, own in self._parts if fleet.gives_way]
        requests = [fleet.request for fleet in fleets] or [Request(*np.zeros((5, 2, 0)))]
        column, *scaling = (np.concatenate(parts, axis=1) for parts in zip(*requests, strict=True))
        starts = np.repeat([own.start for own in columns], [fleet.n for fleet in fleets]).astype(np.int64)
        column = np.where(column < 0, 0, column + starts).astype(np.int64)
        self._places = column[:, None, :] + n_actions * np.arange(n_envs)[None, :, None]
        self._gain, self._offset, self._low, self._high = (
            np.repeat(constant[:, None, :], n_envs, axis=1) for constant in scaling
        )
        circles = [fleet.circle for fleet in fleets] or [np.zeros((2, 0))]
        self._s2, p_first = np.repeat(np.concatenate(circles, axis=1)[:, None, :], n_envs, axis=1)
        self._p_first = None if p_first.all() else p_first
        self._zero, self._room = np.zeros_like(self._s2), np.zeros_like(self._s2)

    @property
    def arrays(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What was asked, set and delivered."""
        return self.requested, self.setpoints, self.delivered

    def read(self, action: FloatArray) -> None:
        """Take what actions, shape (n_envs, n_actions), ask into ``requested``."""
        asked = self.requested
        if not self._acts:
            asked[...] = self._offset
            return
        # "clip" needs no check of its own: the places are within the matrix
        action.take(self._places, None, asked, "clip")
        np.multiply(asked, self._gain, out=asked)
        np.add(asked, self._offset, out=asked)
        np.minimum(np.maximum(asked, self._low, out=asked), self._high, out=asked)

    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Turn actions, shape (n_envs, n_actions), into feasible setpoints."""
        self.read(action)
        for reading, columns in self._reading:
            reading.read(action[:, columns])
        p, q = self.p_kw, self.q_kvar
        q[...] = self._asked_q_kvar
        for fleet, own in self._parts:
            fleet.limit(own, exo)
        if self._reactive:
            room = np.multiply(p, p, out=self._room)
            if self._p_first is not None:
                np.multiply(room, self._p_first, out=room)
            np.sqrt(np.maximum(np.subtract(self._s2, room, out=room), self._zero, out=room), out=room)
            np.minimum(q, room, out=q)
            np.maximum(q, np.negative(room, out=room), out=q)
        for fleet, own in self._giving:
            fleet.give_way(own)

    def advance(self, device_kva: npt.NDArray[np.complex128], exo: Exogenous) -> None:
        """Move on by one step in which the devices delivered some powers [kVA], shape (n_envs, n_devices)."""
        p_kw, q_kvar = self._delivered_rows
        p_kw[...], q_kvar[...] = device_kva.real, device_kva.imag
        for fleet, own in self._parts:
            fleet.move_on(own, exo)

    def take_ratings(self, env: int, own: slice, circle: FloatArray) -> None:
        """Rate some devices of one environment anew: the squares [kVA²] of :attr:`PowerFleet.circle`."""
        self._s2[env, own] = circle[0]

    def state(self) -> dict[str, FloatArray]:
        """Copy the powers of the last step."""
        return {name: getattr(self, name).copy() for name in ("requested", "setpoints", "delivered")}

    def restore(self, state: Mapping[str, FloatArray]) -> None:
        """Put a :meth:`state` back."""
        for name, value in state.items():
            getattr(self, name)[...] = value


class PowerFleet(DeviceFleet[S]):
    """A fleet with active and reactive power, positive into the grid.

    Attributes:
        request: What actions mean.
        circle: Apparent-power rating, squared [kVA²], infinite where no agent decides reactive power, and 1 where
            active power has priority in it, else 0, shape (2, n).
        gives_way: Whether active power gives way to reactive power in any device; see :meth:`give_way`.
        reactive: Whether an agent decides the reactive power of any device.
    """

    #: Attributes that :meth:`limit` assigns and the next step reads.
    limited: ClassVar[tuple[str, ...]] = ()
    #: Whether actions are no powers, and :meth:`read` takes them.
    reads: ClassVar[bool] = False
    held_in: ClassVar[Mapping[str, str]] = {"p_kw": "delivered_p_kw", "q_kvar": "delivered_q_kvar"}
    _table: PowerTable | None = None
    _own = slice(None)

    def _take_tables(self, actions: Sequence[ActionSpec], states: Sequence[StateSpec]) -> None:
        super()._take_tables(actions, states)
        self.request = self._find_request()
        self.reactive = bool((self.request.columns[1] >= 0).any())
        self.circle, self.gives_way = np.stack([np.full(self.n, np.inf), np.ones(self.n)]), False

    def bind(self, table: PowerTable, own: slice) -> None:
        """Have the devices' powers in some columns of a table."""
        self._table, self._own = table, own

    @property
    def table(self) -> PowerTable:
        """Where the devices' powers are: beside those of other fleets, or alone."""
        if self._table is None:
            PowerTable([self], [slice(0, len(self.actions))], self.n_envs, len(self.actions))
        assert self._table is not None
        return self._table

    @property
    def p_kw(self) -> FloatArray:
        """Feasible setpoints [kW], shape (n_envs, n)."""
        return self.table.setpoints[0, :, self._own]

    @property
    def q_kvar(self) -> FloatArray:
        """Feasible setpoints [kvar], shape (n_envs, n)."""
        return self.table.setpoints[1, :, self._own]

    @property
    def requested_p_kw(self) -> FloatArray:
        """What the action asked [kW], shape (n_envs, n)."""
        return self.table.requested[0, :, self._own]

    @property
    def requested_q_kvar(self) -> FloatArray:
        """What the action asked [kvar], shape (n_envs, n)."""
        return self.table.requested[1, :, self._own]

    @property
    def delivered_p_kw(self) -> FloatArray:
        """What the solved grid says was delivered in the last step [kW], shape (n_envs, n)."""
        return self.table.delivered[0, :, self._own]

    @property
    def delivered_q_kvar(self) -> FloatArray:
        """The same for reactive power [kvar], shape (n_envs, n)."""
        return self.table.delivered[1, :, self._own]

    def reset_all(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        """Put some environments at their start; what is random comes from the generator of each."""
        for array in self.table.arrays:
            array[:, rows, self._own] = 0.0
        super().reset_all(rows, rngs)

    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Turn actions, shape (n_envs, n_actions), into feasible setpoints; of a fleet that is alone."""
        self.table.project(action, exo)

    def advance(self, p_kw: FloatArray, q_kvar: FloatArray, exo: Exogenous) -> None:
        """Move on by one step in which some powers, shape (n_envs, n), were delivered; of a fleet that is alone."""
        self.table.advance(p_kw + 1j * q_kvar, exo)

    def read(self, action: FloatArray) -> None:
        """Take the fleet's own actions, shape (n_envs, n_actions), where these are no powers; see ``reads``."""

    @abstractmethod
    def limit(self, own: Powers, exo: Exogenous) -> None:
        """Write ``p_kw`` and limit ``q_kvar``, which holds what is asked, within the kind's own limits.

        What the kVA circle leaves for reactive power comes after, for all fleets at once. A kind whose actions are
        shares turns what is asked into powers first.
        """

    def give_way(self, own: Powers) -> None:
        """Let active power give way to reactive power, where that has priority in the kVA circle."""

    @abstractmethod
    def move_on(self, own: Powers, exo: Exogenous) -> None:
        """Move on by one step in which what was set and what was delivered are known."""

    def _find_request(self) -> Request:
        """Say what the actions mean: power in physical units, where a kind does not say otherwise."""
        columns = np.full((2, self.n), -1.0)
        gain, offset, low, high = np.zeros((4, 2, self.n))
        for column, row in enumerate(self.actions):
            place = int(row.name == "q_kvar"), self.places[row.device]
            columns[place], gain[place], offset[place] = column, row.gain, row.offset
            low[place], high[place] = row.low, row.high
        return Request(columns, gain, offset, low, high)

    def _square_ratings(self, s_max_kva: FloatArray) -> None:
        """Square kVA ratings, shape (n,), where agents decide reactive power, for the kVA circle."""
        self.circle[0] = np.where(self.request.columns[1] >= 0, s_max_kva * s_max_kva, np.inf)


def pack_columns(index: Sequence[int]) -> Columns:
    """Return an index as a slice where evenly spaced (a view, several times faster), else as an array."""
    if not index:
        return slice(0, 0)
    step = index[1] - index[0] if len(index) > 1 else 1
    if step > 0 and list(index) == list(range(index[0], index[-1] + 1, step)):
        return slice(index[0], index[-1] + 1, step)
    return np.array(index, dtype=np.int64)
