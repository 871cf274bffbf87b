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
    BoolArray,
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
        state_arrays: Attributes that hold the states, of shape (n_envs, n); side by side, those of ``state_places`` are
            the states in order, so that one gather reads all fleets.
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
        self.specs: tuple[S, ...] = tuple(devices.values())
        self.n, self.n_envs = len(self.names), n_envs
        self.dt_h = float(dt_h)
        self.horizon_steps = int(horizon_steps)
        self.actions: tuple[ActionSpec, ...] = ()
        self.states: tuple[StateSpec, ...] = ()
        self.terms: dict[str, FloatArray] = {}

    def _take_tables(self, actions: Sequence[ActionSpec], states: Sequence[StateSpec]) -> None:
        """Take the tables of what is decided and observed, for :meth:`observe` to find its columns."""
        self.actions, self.states = tuple(actions), tuple(states)
        self._observed: list[tuple[Columns, Columns, str]] = []
        for name in dict.fromkeys(state.name for state in states):
            found = [(i, self.names.index(state.device)) for i, state in enumerate(states) if state.name == name]
            columns, owners = (pack_columns(index) for index in zip(*found, strict=True))
            self._observed.append((columns, owners, self.held_in.get(name, name)))
        kept = [name for _, _, name in self._observed]
        self.state_arrays = tuple(kept)
        self.state_places = np.zeros(len(states), dtype=np.int64)
        for i, (columns, owners, _) in enumerate(self._observed):
            self.state_places[columns] = i * self.n + np.arange(self.n)[owners]

    @property
    @abstractmethod
    def projected(self) -> BoolArray:
        """Whether what was asked had to change to be feasible, shape (n_envs, n)."""

    @abstractmethod
    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions that leave every device to itself, shape (n_envs, n_actions)."""

    @abstractmethod
    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Turn actions, shape (n_envs, n_actions), into feasible setpoints."""

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
        for columns, owners, name in self._observed:
            out[:, columns] = getattr(self, name)[:, owners]

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """Copy everything that the future depends on, and what the last step counted."""
        terms = {f"terms.{name}": term.copy() for name, term in self.terms.items()}
        return {name: getattr(self, name).copy() for name in self.memory} | terms

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Return to what `state_dict` copied, from a fleet of the same devices and environments."""
        for name in self.memory:
            setattr(self, name, np.array(state[name], dtype=getattr(self, name).dtype))
        self.terms = {name: np.array(state[f"terms.{name}"], dtype=np.float64) for name in self.terms}

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


class Requests:
    """Read what actions ask of the devices of some fleets, all in one pass.

    Fleet by fleet the same reading takes about 3 % of a whole step of ``ieee13_mg``.

    Args:
        requests: What the actions of each fleet mean.
        columns: Columns of the action matrix that each fleet has.
        n_envs: Number of environments.
        n_actions: Width of the action matrix.
    """

    def __init__(self, requests: Sequence[Request], columns: Sequence[slice], n_envs: int, n_actions: int) -> None:
        column, *scaling = (np.concatenate(parts, axis=1) for parts in zip(*requests, strict=True))
        starts = np.repeat([own.start for own in columns], [request.columns.shape[1] for request in requests])
        column = np.where(column < 0, 0, column + starts).astype(np.int64)
        self._places = column[:, None, :] + n_actions * np.arange(n_envs)[None, :, None]
        self._gain, self._offset, self._low, self._high = (
            np.repeat(constant[:, None, :], n_envs, axis=1) for constant in scaling
        )
        self._acts = n_actions > 0

    def read(self, action: FloatArray) -> FloatArray:
        """Return what actions, shape (n_envs, n_actions), ask: active, then reactive, shape (2, n_envs, n_devices)."""
        if not self._acts:
            return self._offset.copy()
        # "clip" needs no check of its own: the places are within the matrix
        asked = action.take(self._places, mode="clip") * self._gain + self._offset
        return np.asarray(np.minimum(np.maximum(asked, self._low), self._high))


class Projection:
    """Turn actions into feasible setpoints of some fleets: requests and the kVA circle in one pass over all of them.

    Fleet by fleet the circle takes about 4 % of a whole step of ``ieee13_mg``.

    Args:
        fleets: The fleets, in the order of their devices.
        columns: Columns of the action matrix that each fleet has.
        n_envs: Number of environments.
        n_actions: Width of the action matrix.

    Source:
        IEEE Std 1547-2018, 5.2 (active power has priority, unless a device says otherwise).
    """

    def __init__(
        self, fleets: Sequence[PowerFleet[Any]], columns: Sequence[slice], n_envs: int, n_actions: int
    ) -> None:
        self._requests = Requests([fleet.request for fleet in fleets], columns, n_envs, n_actions)
        ends = np.cumsum([fleet.n for fleet in fleets]).tolist()
        self._fleets = [(fleet, slice(end - fleet.n, end)) for fleet, end in zip(fleets, ends, strict=True)]
        self._giving = [fleet for fleet in fleets if fleet.gives_way]
        self._reactive = any(fleet.reactive for fleet in fleets)
        self._s2, p_first = np.concatenate([np.repeat(f.circle[:, None, :], n_envs, axis=1) for f in fleets], axis=2)
        self._p_first = None if p_first.all() else p_first
        self._zero = np.zeros_like(self._s2)

    def project(self, action: FloatArray, exo: Exogenous) -> tuple[FloatArray, FloatArray]:
        """Set the fleets to actions, shape (n_envs, n_actions); return setpoints and what was asked.

        Each is active, then reactive power, shape (2, n_envs, n_devices); the fleets keep their parts of both.
        """
        requested = self._requests.read(action)
        setpoints = np.empty_like(requested)
        p, q, asked_p, asked_q = setpoints[0], setpoints[1], requested[0], requested[1]
        q[...] = asked_q
        for fleet, own in self._fleets:
            fleet.p_kw, fleet.q_kvar = p[:, own], q[:, own]
            fleet.requested_p_kw, fleet.requested_q_kvar = asked_p[:, own], asked_q[:, own]
            fleet.limit(exo)
        if self._reactive:
            squared = p * p if self._p_first is None else p * p * self._p_first
            room = np.sqrt(np.maximum(self._s2 - squared, self._zero))
            np.maximum(np.minimum(q, room), -room, out=q)
        for fleet in self._giving:
            fleet.give_way()
        return setpoints, requested


class PowerFleet(DeviceFleet[S]):
    """A fleet with active and reactive power, positive into the grid.

    Attributes:
        p_kw: Feasible setpoints [kW], shape (n_envs, n).
        q_kvar: Feasible setpoints [kvar], shape (n_envs, n).
        requested_p_kw: What the action asked [kW], shape (n_envs, n).
        requested_q_kvar: What the action asked [kvar], shape (n_envs, n).
        delivered_p_kw: What the solved grid says was delivered in the last step [kW], shape (n_envs, n).
        delivered_q_kvar: The same for reactive power [kvar], shape (n_envs, n).
        request: What actions mean.
        circle: Apparent-power rating, squared [kVA²], infinite where no agent decides reactive power, and 1 where
            active power has priority in it, else 0, shape (2, n).
        gives_way: Whether active power gives way to reactive power in any device; see :meth:`give_way`.
        reactive: Whether an agent decides the reactive power of any device.
    """

    #: Attributes that a projection assigns.
    limited: ClassVar[tuple[str, ...]] = ("p_kw", "q_kvar", "requested_p_kw", "requested_q_kvar")
    memory: ClassVar[tuple[str, ...]] = (*limited, "delivered_p_kw", "delivered_q_kvar")
    held_in: ClassVar[Mapping[str, str]] = {"p_kw": "delivered_p_kw", "q_kvar": "delivered_q_kvar"}

    def __init__(self, devices: Mapping[str, S], dt_h: float, horizon_steps: int, n_envs: int = 1) -> None:
        super().__init__(devices, dt_h, horizon_steps, n_envs)
        self.p_kw, self.q_kvar, self.requested_p_kw, self.requested_q_kvar = (self._zeros() for _ in range(4))
        self.delivered_p_kw, self.delivered_q_kvar = self._zeros(), self._zeros()

    def _take_tables(self, actions: Sequence[ActionSpec], states: Sequence[StateSpec]) -> None:
        super()._take_tables(actions, states)
        self.request = self._find_request()
        self.reactive = bool((self.request.columns[1] >= 0).any())
        self.circle, self.gives_way = np.stack([np.full(self.n, np.inf), np.ones(self.n)]), False

    @property
    def projected(self) -> BoolArray:
        """Whether what was asked had to change to be feasible, shape (n_envs, n)."""
        kept: BoolArray = np.isclose(self.p_kw, self.requested_p_kw, rtol=1e-9, atol=1e-9)
        kept &= np.isclose(self.q_kvar, self.requested_q_kvar, rtol=1e-9, atol=1e-9)
        return ~kept

    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Turn actions, shape (n_envs, n_actions), into feasible setpoints."""
        self._alone.project(action, exo)

    @functools.cached_property
    def _alone(self) -> Projection:
        return Projection([self], [slice(0, len(self.actions))], self.n_envs, len(self.actions))

    def advance(self, p_kw: FloatArray, q_kvar: FloatArray, exo: Exogenous) -> None:
        """Move on by one step in which ``p_kw`` and ``q_kvar``, shape (n_envs, n), were delivered; keeps the arrays."""
        self.delivered_p_kw, self.delivered_q_kvar = p_kw, q_kvar
        self._advance(exo)

    @abstractmethod
    def limit(self, exo: Exogenous) -> None:
        """Write ``p_kw`` and limit ``q_kvar``, which holds what is asked, within the kind's own limits.

        What the kVA circle leaves for reactive power comes after, for all fleets at once.
        """

    def give_way(self) -> None:
        """Let active power give way to reactive power, where that has priority in the kVA circle."""

    @abstractmethod
    def _advance(self, exo: Exogenous) -> None:
        """Move on by one step in which what is in ``delivered_p_kw`` and ``delivered_q_kvar`` was delivered."""

    def _find_request(self) -> Request:
        """Say what the actions mean: power in physical units, where a kind does not say otherwise."""
        columns = np.full((2, self.n), -1.0)
        gain, offset, low, high = np.zeros((4, 2, self.n))
        for column, row in enumerate(self.actions):
            place = int(row.name == "q_kvar"), self.names.index(row.device)
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
