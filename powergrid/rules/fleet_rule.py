"""What rules of all kinds of devices have in common: which devices are whose, where they ask, what they remember."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices.spec import ActionSpec
from powergrid.rules.ruled import RuledTask
from powergrid.rules.shared import Shared

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Actions(NamedTuple):
    """The actions of one name that agents decide over.

    Attributes:
        place: Where they stand.
        device: The places of their devices in the fleet, None where they are all of it in order.
    """

    place: slice
    device: IntArray | None

    def pick(self, values: FloatArray) -> FloatArray:
        """Return the columns of these devices, shape (n_envs, len(device))."""
        return values if self.device is None else values.take(self.device, 1)


class FleetRule:
    """The rule of one fleet; it asks for the devices that have an agent.

    Args:
        task: The task.
        fleet: The fleet.
        shared: What all rules share.

    Attributes:
        start: What the rule remembers of each device within an episode, and what that starts from.
        memory: What it remembers now, shape (n_envs, n).
        mine: 1 where an agent decides over a device's active power, shape (n_envs, n).
        acts: Actions by name, of those that are an agent's.
    """

    start: ClassVar[dict[str, float]] = {}

    def __init__(self, task: RuledTask, fleet: Any, shared: Shared) -> None:
        self.fleet, self.shared, self.constants, self.dt_h = fleet, shared, shared.constants, task.simulation.dt_h
        self.n_envs = task.n_envs
        owner = {device: index for index, agent in enumerate(task.agents) for device in agent.devices}
        self.zone = np.array([owner.get(name, 0) for name in fleet.names], dtype=np.int64)
        self.acts: dict[str, Actions] = {}
        self.mine = self.tile([0.0] * fleet.n)
        for name in ("p_kw", "q_kvar", "share", "tap", "steps_on"):
            rows = [self.read_unit(row) for row in fleet.actions
                    if row.name == name and row.device in owner and shared.setpoints.knows(row)]  # fmt: skip
            if rows:
                device = np.array([fleet.names.index(row.device) for row in rows], dtype=np.int64)
                whole = np.array_equal(device, np.arange(fleet.n))
                if name == "p_kw":
                    self.mine[:, device] = 1.0
                reactive = name == "q_kvar"
                place = shared.droop.add(rows, self.zone[device]) if reactive else shared.setpoints.add(rows)
                self.acts[name] = Actions(place, None if whole else device)
        self.all_mine = bool(self.mine.all())
        self.memory = {name: np.full((task.n_envs, fleet.n), value) for name, value in self.start.items()}

    def read_unit(self, action: ActionSpec) -> ActionSpec:
        """Return an action with the bounds of what the rule asks for it."""
        return action

    def tile(self, values: Any) -> FloatArray:
        """Return a number of each device for each environment: array code takes half as long as with one row."""
        return np.tile(np.asarray(values, dtype=np.float64), (self.n_envs, 1))

    def own(self, power_kw: FloatArray) -> FloatArray:
        """Return the power of those whose active power an agent decides over, 0 of the others."""
        return power_kw if self.all_mine else power_kw * self.mine

    def ratings(self, key: str, factor: float = 1.0) -> FloatArray:
        """Return a rating of each device, where it has none its largest power times a factor, shape (n_envs, n)."""
        return self.tile([float(getattr(spec, key) or factor * spec.p_max_kw) for spec in self.fleet.specs])

    def look_ahead(self, task: RuledTask) -> None:
        """Tell the limiter what is about to be given, before any rule writes."""

    def prices(self, task: RuledTask, env: int) -> FloatArray:
        """Return the day's price of each step, 0 where the scenario lets nobody pay for energy [USD/kWh]."""
        paid: FloatArray = task.simulation.day_price[env, :-1] * task.scenario.weight_of("energy_cost_usd")
        return paid

    def reset(self, task: RuledTask, env: int) -> None:
        """Get ready for the day that an environment has just started."""
        for name, value in self.start.items():
            self.memory[name][env] = value

    def memories(self) -> list[npt.NDArray[Any]]:
        """Return what it remembers, arrays with environments first."""
        return [*self.memory.values()]

    def write(self, task: RuledTask) -> None:
        """Ask for the step to come."""
        raise NotImplementedError

    def ask(self, name: str, values: FloatArray) -> None:
        """Ask for the actions of a name, in their unit, given for all of the fleet."""
        if name in self.acts:
            own = self.acts[name]
            self.shared.setpoints.values[:, own.place] = own.pick(values)

    def leave_room(self, p_kw: FloatArray, s_squared: FloatArray, zeros: FloatArray) -> None:
        """Tell the volt-var droop what active power leaves of a kVA circle, shapes (n_envs, n)."""
        if "q_kvar" in self.acts:
            room = s_squared - p_kw * p_kw
            np.sqrt(np.maximum(room, zeros, out=room), out=room)
            self.set_room(room)

    def set_room(self, room_kvar: FloatArray) -> None:
        """Tell the volt-var droop how much reactive power there is room for, shape (n_envs, n)."""
        own = self.acts["q_kvar"]
        self.shared.droop.room_kvar[:, own.place] = own.pick(room_kvar)
