"""What all fleets do alike: tables, columns, observing, copying; no physics of any kind of device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices.ledger import Ledger, find_places
from powergrid.grid.devices.projection import Projection, Request
from powergrid.grid.devices.spec import (
    ActionSpec,
    BoolArray,
    Columns,
    DeviceSpec,
    Exogenous,
    FloatArray,
    IntArray,
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

    Raises:
        ValueError: A rating is missing, with the device and the key.
    """

    kind: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[tuple[str, ...]] = ()
    numbers: ClassVar[tuple[str, ...]] = ()  # rows of the ledger that a kind has

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
        self._ledger = Ledger((), 0, 0)
        self._beside: list[npt.NDArray[Any]] = []  # what is remembered and not in the ledger

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
    def _allocate(self, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
        """Make the arrays of a kind; give the array behind each name in ``states``."""

    @abstractmethod
    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        """Fill the zeroed arrays of some environments, a generator each, with what they start from."""

    def allocate(self, n_envs: int, ledger: Ledger | None = None) -> None:
        """Make the arrays for ``n_envs`` environments; `reset` each one before use.

        Args:
            n_envs: Number of environments.
            ledger: Where the fleet's numbers live, with its devices as columns; one of its own if unset.
        """
        self.n_envs = n_envs
        self._ledger = Ledger(self.numbers, n_envs, self.n) if ledger is None else ledger
        self._watched = []
        for name, array in self._allocate((n_envs, self.n)).items():
            columns, owners = self._columns(self.states, name)
            if isinstance(owners, slice):
                self._watched.append((columns, array[:, owners], None))
            else:
                self._watched.append((columns, array, owners))
        kept = [*(getattr(self, name) for name in self.memory), *self.terms.values()]
        self._beside = [array for array in kept if not np.may_share_memory(array, self._ledger.values)]

    def reset(self, env: int, rng: np.random.Generator) -> None:
        """Put one environment at its start; what is random comes from ``rng`` alone."""
        self.reset_all(slice(env, env + 1), [rng])

    def reset_all(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        """Put some environments at their start; what is random comes from the generator of each."""
        self._ledger.values[:, rows] = 0.0
        for array in self._beside:
            array[rows] = 0
        self._start(rows, rngs)

    def observe(self, out: FloatArray) -> None:
        """Write the states, in physical units, into ``out`` of shape (n_envs, n_states)."""
        for columns, array, owners in self._watched:
            out[:, columns] = array if owners is None else array[:, owners]

    def find_states(self, ledger: Ledger) -> IntArray | None:
        """Return where each state lies among a ledger's numbers, shape (n_envs, n_states); None if any does not."""
        places = np.zeros((self.n_envs, len(self.states)), dtype=np.int64)
        for columns, array, owners in self._watched:
            if array.size and not np.shares_memory(array, ledger.values):
                return None
            found = find_places(ledger.values, array)
            places[:, columns] = found if owners is None else found[:, owners]
        return places

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


#: The rows of a ledger that all fleets with power have, first of all and in this order.
POWER_NUMBERS = ("p_kw", "q_kvar", "requested_p_kw", "requested_q_kvar", "delivered_p_kw", "delivered_q_kvar")


class PowerFleet(DeviceFleet[S]):
    """A fleet with active and reactive power, positive into the grid.

    Attributes:
        p_kw: Feasible setpoints [kW], shape (n_envs, n).
        q_kvar: Feasible setpoints [kvar], shape (n_envs, n).
        requested_p_kw: What the action asked [kW], shape (n_envs, n).
        requested_q_kvar: What the action asked [kvar], shape (n_envs, n).
        delivered_p_kw: What the solved grid says was delivered in the last step [kW], shape (n_envs, n).
        delivered_q_kvar: The same for reactive power [kvar], shape (n_envs, n).
        request: What actions mean, after `allocate`.
        circle: Apparent-power rating, squared [kVA²], infinite where q is no agent's, and 1 where p has priority in
            it, else 0, shape (2, n); after `allocate`.
        reactive: Whether an agent decides the reactive power of any device.
    """

    numbers: ClassVar[tuple[str, ...]] = POWER_NUMBERS
    memory: ClassVar[tuple[str, ...]] = POWER_NUMBERS
    #: Whether active power gives way to reactive power, after the kVA circle was kept; see :meth:`give_way`.
    gives_way: bool = False

    def allocate(self, n_envs: int, ledger: Ledger | None = None) -> None:
        """Make the arrays for ``n_envs`` environments; see :meth:`DeviceFleet.allocate`."""
        ledger = Ledger(self.numbers, n_envs, self.n) if ledger is None else ledger
        block = ledger.block(POWER_NUMBERS)
        self.p_kw, self.q_kvar, self.requested_p_kw, self.requested_q_kvar = block[:4]
        self.delivered_p_kw, self.delivered_q_kvar = block[4:]
        self.request, self.circle = self._find_requests(), np.stack([np.full(self.n, np.inf), np.ones(self.n)])
        self.reactive = False
        super().allocate(n_envs, ledger)
        self._alone = Projection([self], [slice(0, len(self.actions))], block[:4], len(self.actions))

    @property
    def projected(self) -> BoolArray:
        """Whether what was asked had to change to be feasible, shape (n_envs, n)."""
        kept: BoolArray = np.isclose(self.p_kw, self.requested_p_kw, rtol=1e-9, atol=1e-9)
        kept &= np.isclose(self.q_kvar, self.requested_q_kvar, rtol=1e-9, atol=1e-9)
        return ~kept

    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Turn actions, shape (n_envs, n_actions), into feasible setpoints."""
        self._alone.project(action, exo)

    def advance(self, p_kw: FloatArray, q_kvar: FloatArray, exo: Exogenous) -> None:
        """Move on by one step in which ``p_kw`` and ``q_kvar``, shape (n_envs, n), were delivered."""
        self.delivered_p_kw[...] = p_kw
        self.delivered_q_kvar[...] = q_kvar
        self.move_on(exo)

    @abstractmethod
    def limit(self, exo: Exogenous) -> None:
        """Turn requests into setpoints within the kind's own limits, all but what the kVA circle leaves for q."""

    @abstractmethod
    def move_on(self, exo: Exogenous) -> None:
        """Move on by one step in which what is in ``delivered_p_kw`` and ``delivered_q_kvar`` was delivered."""

    def give_way(self) -> None:
        """Let active power give way to reactive power, in kinds that have it."""

    def _find_requests(self) -> Request:
        """Say what the actions mean: power in physical units, where a kind does not say otherwise."""
        columns = np.full((2, self.n), -1.0)
        gain, offset, low, high = np.zeros((4, 2, self.n))
        for column, row in enumerate(self.actions):
            place = int(row.name == "q_kvar"), self.names.index(row.device)
            columns[place], gain[place], offset[place] = column, row.gain, row.offset
            low[place], high[place] = row.low, row.high
        return Request(columns, gain, offset, low, high)

    def _limit_reactive(self, s_max_kva: FloatArray, p_first: FloatArray | None = None) -> None:
        """Hold reactive power to a kVA circle [kVA], where agents decide it; by 0 to all of it, else to what p leaves.

        Args:
            s_max_kva: Apparent-power rating, shape (n,).
            p_first: 1 where active power has priority, shape (n,); everywhere if unset.
        """
        decided = self.request.columns[1] >= 0
        self.reactive = bool(decided.any())
        self.circle[0] = np.where(decided, s_max_kva * s_max_kva, np.inf)
        if p_first is not None:
            self.circle[1] = p_first


def pack_columns(index: Sequence[int]) -> Columns:
    """Return an index as a slice where evenly spaced (a view, several times faster), else as an array."""
    if not index:
        return slice(0, 0)
    step = index[1] - index[0] if len(index) > 1 else 1
    if step > 0 and list(index) == list(range(index[0], index[-1] + 1, step)):
        return slice(index[0], index[-1] + 1, step)
    return np.array(index, dtype=np.int64)
