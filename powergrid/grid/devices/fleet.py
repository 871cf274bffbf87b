"""What all fleets do alike: tables, columns, observing, copying; no physics of any kind of device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices.spec import (
    ActionSpec,
    BoolArray,
    Columns,
    DeviceSpec,
    Exogenous,
    FloatArray,
    IntArray,
    StateSpec,
)

S = TypeVar("S", bound=DeviceSpec)


class DeviceFleet(ABC, Generic[S]):
    """All the devices of one kind as arrays whose first axis is the environment.

    Args:
        devices: Spec of each device by its name; ratings that a feeder's element has must be filled in.
        dt_h: Length of a step, > 0 [h].
        horizon_steps: Steps of an episode, >= 1.

    Raises:
        ValueError: A rating is missing, with the device and the key.
    """

    kind: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[tuple[str, ...]] = ()

    def __init__(self, devices: Mapping[str, S], dt_h: float, horizon_steps: int) -> None:
        for name, spec in devices.items():
            missing = [key for key in self.required if getattr(spec, key) is None]
            if missing:
                raise ValueError(
                    f"{self.kind} {name!r}: {', '.join(missing)} missing; give it, or bind an element that has it"
                )
        self.names: tuple[str, ...] = tuple(devices)
        self.specs: tuple[S, ...] = tuple(devices.values())
        self.n = len(self.names)
        self.dt_h = float(dt_h)
        self.horizon_steps = int(horizon_steps)
        self.actions: tuple[ActionSpec, ...] = ()
        self.states: tuple[StateSpec, ...] = ()
        self.terms: dict[str, FloatArray] = {}
        self.n_envs = 0
        self._watched: list[tuple[Columns, npt.NDArray[Any], IntArray | None]] = []

    @property
    @abstractmethod
    def projected(self) -> BoolArray:
        """Whether what was asked had to change to be feasible, shape (n_envs, n)."""

    @abstractmethod
    def neutral(self, exo: Exogenous) -> FloatArray:
        """Give the actions that leave every device to itself, shape (n_envs, n_actions)."""

    @abstractmethod
    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Turn actions, shape (n_envs, n_actions), into feasible setpoints."""

    @abstractmethod
    def _allocate(self, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
        """Make the arrays of a kind; give the array behind each name in ``states``."""

    @abstractmethod
    def _start(self, env: int, rng: np.random.Generator) -> None:
        """Fill the zeroed arrays of one environment with what it starts from."""

    def allocate(self, n_envs: int) -> None:
        """Make the arrays for ``n_envs`` environments; `reset` each one before use."""
        self.n_envs = n_envs
        self._watched = []
        for name, array in self._allocate((n_envs, self.n)).items():
            columns, owners = self._columns(self.states, name)
            if isinstance(owners, slice):
                self._watched.append((columns, array[:, owners], None))
            else:
                self._watched.append((columns, array, owners))

    def reset(self, env: int, rng: np.random.Generator) -> None:
        """Put one environment at its start; what is random comes from ``rng`` alone."""
        for name in self.memory:
            getattr(self, name)[env] = 0
        for term in self.terms.values():
            term[env] = 0.0
        self._start(env, rng)

    def observe(self, out: FloatArray) -> None:
        """Write the states, in physical units, into ``out`` of shape (n_envs, n_states)."""
        for columns, array, owners in self._watched:
            out[:, columns] = array if owners is None else array[:, owners]

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """Copy everything that the future depends on."""
        return {name: getattr(self, name).copy() for name in self.memory}

    def load_state_dict(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Return to what `state_dict` copied, from a fleet of the same devices and environments."""
        for name in self.memory:
            np.copyto(getattr(self, name), state[name])

    def _values(self, key: str) -> FloatArray:
        """Gather one key of every spec, repeated for every environment, shape (n_envs, n)."""
        return self._tile([getattr(spec, key) for spec in self.specs])

    def _tile(self, values: npt.ArrayLike) -> FloatArray:
        """Repeat a row for every environment.

        On arrays of a few numbers a ufunc takes 0.4 µs where shapes are equal and 1 µs where it must
        broadcast, so the constants of a step have the full shape (n_envs, n).
        """
        return np.tile(np.asarray(values, dtype=np.float64), (self.n_envs, 1))

    def _columns(self, table: Sequence[ActionSpec | StateSpec], name: str) -> tuple[Columns, Columns]:
        """Find the columns called ``name`` in a table and the devices that have them."""
        found = [(column, self.names.index(row.device)) for column, row in enumerate(table) if row.name == name]
        return pack_columns([column for column, _ in found]), pack_columns([owner for _, owner in found])


class PowerFleet(DeviceFleet[S]):
    """A fleet with active and reactive power, positive into the grid.

    Attributes:
        p_kw: Feasible setpoints [kW], shape (n_envs, n).
        q_kvar: Feasible setpoints [kvar], shape (n_envs, n).
        requested_p_kw: What the action asked [kW], shape (n_envs, n).
        requested_q_kvar: What the action asked [kvar], shape (n_envs, n).
        delivered_p_kw: What the solved grid says was delivered in the last step [kW], shape (n_envs, n).
        delivered_q_kvar: The same for reactive power [kvar], shape (n_envs, n).
    """

    memory: ClassVar[tuple[str, ...]] = (
        "p_kw",
        "q_kvar",
        "requested_p_kw",
        "requested_q_kvar",
        "delivered_p_kw",
        "delivered_q_kvar",
    )

    def allocate(self, n_envs: int, block: FloatArray | None = None) -> None:
        """Make the arrays for ``n_envs`` environments; `reset` each one before use.

        Args:
            n_envs: Number of environments.
            block: Where setpoints and then requests live, of p and then of q each, shape (4, n_envs, n); arrays of
                its own if unset.
        """
        shape = (n_envs, self.n)
        arrays: FloatArray = np.zeros((4, *shape)) if block is None else block
        self.p_kw: FloatArray = arrays[0]
        self.q_kvar: FloatArray = arrays[1]
        self.requested_p_kw: FloatArray = arrays[2]
        self.requested_q_kvar: FloatArray = arrays[3]
        self.delivered_p_kw, self.delivered_q_kvar = np.zeros(shape), np.zeros(shape)
        super().allocate(n_envs)

    @property
    def projected(self) -> BoolArray:
        """Whether what was asked had to change to be feasible, shape (n_envs, n)."""
        return ~(
            np.isclose(self.p_kw, self.requested_p_kw, rtol=1e-9, atol=1e-9)
            & np.isclose(self.q_kvar, self.requested_q_kvar, rtol=1e-9, atol=1e-9)
        )

    @abstractmethod
    def advance(self, p_kw: FloatArray, q_kvar: FloatArray, exo: Exogenous) -> None:
        """Move on by one step in which ``p_kw`` and ``q_kvar``, shape (n_envs, n), were delivered."""

    def _set_up_actions(self) -> None:
        """Prepare the mapping of actions; kinds with p and q call it when they allocate."""
        self._p_columns, self._p_owners = self._columns(self.actions, "p_kw")
        self._q_columns, self._q_owners = self._columns(self.actions, "q_kvar")
        rows = [row for row in self.actions if row.name == "q_kvar"]
        self._q_half = self._tile([(row.high - row.low) / 2 for row in rows])
        self._q_mid = self._tile([(row.high + row.low) / 2 for row in rows])
        self._q_low, self._q_high = self._q_mid - self._q_half, self._q_mid + self._q_half
        self._reactive = bool(rows)
        self._zero, self._one = np.zeros((self.n_envs, self.n)), np.ones((self.n_envs, self.n))

    def _read_reactive(self, action: FloatArray) -> None:
        """Turn the reactive columns of an action into ``requested_q_kvar``."""
        q = action[:, self._q_columns] * self._q_half
        np.add(q, self._q_mid, out=q)
        np.maximum(q, self._q_low, out=q)
        self.requested_q_kvar[:, self._q_owners] = np.minimum(q, self._q_high, out=q)


def limit_reactive_power(
    p_kw: FloatArray, q_kvar: FloatArray, s2_max_kva2: FloatArray, out: FloatArray | None = None
) -> FloatArray:
    """Keep reactive power within what active power leaves of the kVA circle.

    Args:
        p_kw: Active power, already within the circle [kW], shape (..., n).
        q_kvar: Requested reactive power [kvar], shape (..., n).
        s2_max_kva2: Apparent-power rating, squared [kVA²], shape (..., n).
        out: Where to write the answer.

    Returns:
        The feasible reactive power, sign kept [kvar], shape (..., n).

    Source:
        IEEE Std 1547-2018, 5.2 (active power has priority).
    """
    room = np.multiply(p_kw, p_kw)
    np.subtract(s2_max_kva2, room, out=room)
    np.sqrt(np.maximum(room, 0.0, out=room), out=room)
    limited = np.minimum(q_kvar, room, out=out)
    return np.maximum(limited, np.negative(room, out=room), out=limited)


def pack_columns(index: Sequence[int]) -> Columns:
    """Give an index as a slice where evenly spaced (a view, several times faster), else as an array."""
    if not index:
        return slice(0, 0)
    step = index[1] - index[0] if len(index) > 1 else 1
    if step > 0 and list(index) == list(range(index[0], index[-1] + 1, step)):
        return slice(index[0], index[-1] + 1, step)
    return np.array(index, dtype=np.int64)
