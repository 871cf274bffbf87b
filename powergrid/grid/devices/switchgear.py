"""Equipment that moves in steps: capacitor banks, tap changers and switches; what they do is the engine's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from powergrid.grid.devices.fleet import DeviceFleet
from powergrid.grid.devices.spec import (
    ActionSpec,
    BoolArray,
    BoundSpec,
    Exogenous,
    FloatArray,
    IntArray,
    Rows,
    StateSpec,
)

#: Positions on either side of neutral where OpenDSS is told no other range.
_USUAL_TAPS = 16
#: More positions than anything moves in a day.
_NO_LIMIT = 1 << 30


class SwitchgearSpec(BoundSpec):
    """What YAML may say about anything that moves in steps."""

    native: ClassVar[bool] = True
    drawn: ClassVar[tuple[str, ...]] = ("dwell_steps", "moves_per_day", "cost_usd_per_operation")

    dwell_steps: int = Field(default=0, ge=0, description="Steps that must pass between two steps with a move.")
    moves_per_day: int | None = Field(
        default=None, ge=1, description="Most positions moved in 24 hours of an episode; no limit if unset."
    )
    cost_usd_per_operation: float = Field(default=0.0, ge=0, description="Cost of wear for each position moved.")


class CapacitorSpec(SwitchgearSpec):
    """What YAML may say about a capacitor bank."""

    element_classes: ClassVar[tuple[str, ...]] = ("Capacitor",)
    drawn: ClassVar[tuple[str, ...]] = (*SwitchgearSpec.drawn, "steps_initial", "moves_per_step")

    kind: Literal["capacitor"] = Field(description="Kind of the device.")
    steps: int | None = Field(default=None, ge=1, description="Number of steps of the bank; the feeder's if unset.")
    steps_initial: int | None = Field(
        default=None, ge=0, description="Steps on when an episode starts; the feeder's if unset."
    )
    moves_per_step: int | None = Field(
        default=None, ge=1, description="Most bank steps switched at once; no limit if unset."
    )

    def find_problems(self) -> Iterable[str]:
        """Yield what contradicts between the keys."""
        yield from super().find_problems()
        if self.steps is not None and self.steps_initial is not None and self.steps_initial > self.steps:
            yield f"steps_initial {self.steps_initial} is outside 0..steps = 0..{self.steps}"


class RegulatorSpec(SwitchgearSpec):
    """What YAML may say about a voltage regulator or an on-load tap changer."""

    element_classes: ClassVar[tuple[str, ...]] = ("AutoTrans", "Transformer", "RegControl")
    drawn: ClassVar[tuple[str, ...]] = (*SwitchgearSpec.drawn, "tap_initial", "moves_per_step")

    kind: Literal["regulator"] = Field(description="Kind of the device.")
    winding: int | None = Field(
        default=None,
        ge=1,
        description="Winding of a transformer whose tap moves; if unset, that of its RegControl, else the one whose "
        "tap is off nominal or has a range of its own, else the second.",
    )
    tap_min: int | None = Field(default=None, le=0, description="Lowest tap; the feeder's if unset.")
    tap_max: int | None = Field(default=None, ge=0, description="Highest tap; the feeder's if unset.")
    tap_initial: int | None = Field(default=None, description="Tap when an episode starts; the feeder's if unset.")
    moves_per_step: int | None = Field(default=None, ge=1, description="Most taps moved at once; no limit if unset.")

    def find_problems(self) -> Iterable[str]:
        """Yield what contradicts between the keys."""
        yield from super().find_problems()
        if self.winding is not None and self.element.lower().startswith("regcontrol."):
            yield f"winding {self.winding} goes with a transformer; {self.element!r} has its own"
        if self.tap_min == self.tap_max and self.tap_min is not None:
            yield f"tap_min {self.tap_min} is not below tap_max {self.tap_max}"
        low, high = self.range
        if self.tap_initial is not None and not low <= self.tap_initial <= high:
            yield f"tap_initial {self.tap_initial} is outside tap_min..tap_max = {low}..{high}"

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest tap, OpenDSS's usual ones where they are the feeder's and not known yet."""
        low = -_USUAL_TAPS if self.tap_min is None else self.tap_min
        return low, _USUAL_TAPS if self.tap_max is None else self.tap_max


class SwitchSpec(SwitchgearSpec):
    """What YAML may say about a line that can be opened."""

    element_classes: ClassVar[tuple[str, ...]] = ("Line",)
    drawn: ClassVar[tuple[str, ...]] = (*SwitchgearSpec.drawn, "closed_initial")

    kind: Literal["switch"] = Field(description="Kind of the device.")
    closed_initial: bool | None = Field(
        default=None, description="Whether it is closed when an episode starts; the feeder's if unset."
    )


G = TypeVar("G", bound=SwitchgearSpec)


class SwitchgearFleet(DeviceFleet[G]):
    """Everything that moves in steps: how far and how often it may.

    Attributes:
        position: Feasible position: steps on, tap, or 0 open and 1 closed, shape (n_envs, n).
        requested_position: What the action asked, shape (n_envs, n).
        previous_position: Positions before the step, shape (n_envs, n).
        operations: Positions moved since reset, shape (n_envs, n).
        locked_steps: Steps during which no move is allowed, shape (n_envs, n).
        moves_left: Positions that may still be moved in the day, shape (n_envs, n).
    """

    state_name: ClassVar[str]
    memory: ClassVar[tuple[str, ...]] = (
        *("position", "requested_position", "previous_position", "operations", "locked_steps", "moves_left"),
    )
    # a step ends with what was set, so that is what is seen
    held_in: ClassVar[Mapping[str, str]] = dict.fromkeys(("steps_on", "tap", "closed"), "previous_position")

    def __init__(self, devices: Mapping[str, G], dt_h: float, horizon_steps: int, n_envs: int = 1) -> None:
        super().__init__(devices, dt_h, horizon_steps, n_envs)
        ranges = np.array([self._range(spec) for spec in self.specs], dtype=np.int64).reshape(-1, 4)
        actions, states = [], []
        for (name, spec), (low, high, _, _) in zip(devices.items(), ranges.tolist(), strict=True):
            actions.append(ActionSpec(name, self.state_name, "", float(low), float(high), n=high - low + 1))
            states.append(StateSpec(name, self.state_name, "", float(low), float(high)))
            if spec.dwell_steps:
                states.append(StateSpec(name, "locked_steps", "steps", 0.0, float(spec.dwell_steps)))
            if spec.moves_per_day:
                states.append(StateSpec(name, "moves_left", "operations", 0.0, float(spec.moves_per_day)))
        self._take_tables(actions, states)
        self._low, self._high, self._initial, self._moves = (np.tile(column, (n_envs, 1)) for column in ranges.T)
        self._dwell = self._values("dwell_steps").astype(np.int64)
        self._back, self._zero = -self._moves, np.zeros_like(self._moves)
        self._dwells = bool(self._dwell.any())
        budgets = [spec.moves_per_day for spec in self.specs]
        self._budgeted, self._steps_per_day = any(budgets), round(24.0 / dt_h)
        self._budget = np.tile([budget or _NO_LIMIT for budget in budgets], (n_envs, 1)).astype(np.int64)
        self._limited = self._dwells or self._budgeted or bool((self._moves < self._high - self._low).any())
        self._price = self._values("cost_usd_per_operation")
        nothing = np.zeros((n_envs, self.n), np.int64)
        self.position, self.requested_position, self.previous_position = (nothing.copy() for _ in range(3))
        self.operations, self.locked_steps, self.moves_left = nothing.copy(), nothing, self._budget.copy()
        self.terms = {"operations": self._zeros(), "switching_wear_usd": self._zeros()}

    @property
    def highest(self) -> IntArray:
        """Highest position that each may have now, shape (n_envs, n)."""
        return self._high

    @abstractmethod
    def _range(self, spec: G) -> tuple[int, int, int, int]:
        """Return lowest, highest and initial position, and the most positions moved in one step."""

    def _start(self, rows: Rows, rngs: Sequence[np.random.Generator]) -> None:
        initial = self._initial[rows]
        self.position[rows] = self.requested_position[rows] = self.previous_position[rows] = initial
        self.moves_left[rows] = self._budget[rows]

    def follow(self, env: int, rows: IntArray, position: IntArray) -> None:
        """Put some devices of one environment where the feeder's own controls have moved them in this step."""
        self.position[env, rows] = self.requested_position[env, rows] = position

    def start_from_here(self, env: int, rows: IntArray) -> None:
        """Take the positions of some devices as those an episode starts from."""
        self.previous_position[env, rows] = self.position[env, rows]

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the actions that move nothing, shape (n_envs, n_actions)."""
        return (self.previous_position - self._low).astype(np.float64)

    def reach(self) -> tuple[FloatArray, FloatArray]:
        """Return the lowest and the highest position that each may go to now, as index, shape (n_envs, n)."""
        stands, down, up = self.previous_position, self._back, self._moves
        if self._dwells:
            free = self.locked_steps == self._zero
            down, up = down * free, up * free
        if self._budgeted:
            down, up = np.maximum(down, -self.moves_left), np.minimum(up, self.moves_left)
        lowest, highest = np.maximum(stands + down, self._low), np.minimum(stands + up, self.highest)
        return (lowest - self._low).astype(np.float64), (highest - self._low).astype(np.float64)

    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Limit what is asked to the range, to what may move at once and to what may move already.

        Args:
            action: Index of the position, 0 for the lowest, shape (n_envs, n).
            exo: Not read: switchgear minds no weather.
        """
        asked = np.rint(action).astype(np.int64) + self._low
        self.requested_position = np.minimum(np.maximum(asked, self._low), self._high)
        if not self._limited:
            self.position = self.requested_position.copy()
            return
        move = np.minimum(np.maximum(self.requested_position - self.previous_position, self._back), self._moves)
        if self._dwells:
            move = move * (self.locked_steps == self._zero)
        if self._budgeted:
            move = np.minimum(np.maximum(move, -self.moves_left), self.moves_left)
        self.position = self.previous_position + move

    def advance(self, exo: Exogenous) -> None:
        """Count and price the moves of the step, and lock what has moved."""
        moved = np.abs(self.position - self.previous_position)
        self.previous_position = self.position  # the next projection makes another
        counted = np.empty(moved.shape)
        counted[...] = moved  # takes a third of what astype does
        self.terms = {"operations": counted, "switching_wear_usd": counted * self._price}
        self.operations = self.operations + moved
        if self._dwells:
            left = self.locked_steps - (self.locked_steps > self._zero)
            self.locked_steps = np.maximum(left, (moved > self._zero) * self._dwell)
        if self._budgeted:
            # what the feeder's own controls move, or an event, may take more than is left
            left = np.maximum(self.moves_left - moved, self._zero)
            new_day = (exo.step + 1) % self._steps_per_day == 0
            self.moves_left = np.where(new_day[:, None], self._budget, left)


class CapacitorFleet(SwitchgearFleet[CapacitorSpec]):
    """All the capacitor banks; the position is the number of steps on."""

    kind: ClassVar[str] = "capacitor"
    required: ClassVar[tuple[str, ...]] = ("steps", "steps_initial")
    state_name: ClassVar[str] = "steps_on"

    def _range(self, spec: CapacitorSpec) -> tuple[int, int, int, int]:
        steps = int(spec.steps or 0)
        return 0, steps, int(spec.steps_initial or 0), spec.moves_per_step or steps


class RegulatorFleet(SwitchgearFleet[RegulatorSpec]):
    """All the tap changers; the position is the tap."""

    kind: ClassVar[str] = "regulator"
    required: ClassVar[tuple[str, ...]] = ("tap_initial",)
    state_name: ClassVar[str] = "tap"

    def _range(self, spec: RegulatorSpec) -> tuple[int, int, int, int]:
        low, high = spec.range
        return low, high, int(spec.tap_initial or 0), spec.moves_per_step or high - low


class SwitchFleet(SwitchgearFleet[SwitchSpec]):
    """All the switches; the position is 0 open or 1 closed."""

    kind: ClassVar[str] = "switch"
    required: ClassVar[tuple[str, ...]] = ("closed_initial",)
    state_name: ClassVar[str] = "closed"

    def _range(self, spec: SwitchSpec) -> tuple[int, int, int, int]:
        return 0, 1, int(spec.closed_initial or False), 1

    def hold_open(self, env: int, held: BoolArray) -> None:
        """Keep switches of an environment open until told otherwise; that they open so is no operation of theirs.

        Args:
            env: Which environment.
            held: Which are kept open; the others may move again, shape (n,).
        """
        self._high[env] = ~held
        self.previous_position[env, held] = self.position[env, held] = 0
