"""What of all that is measured is told, and when: readings that are late, lost, rounded and not exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem
from powergrid.grid.telemetry.links import BoolArray, IntArray, Link, assign
from powergrid.grid.telemetry.spec import MessagesSpec, ReadingsSpec

FloatArray = npt.NDArray[np.float64]


class Measured(Protocol):
    """What is said of a number that is measured."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def owner(self) -> str: ...  # noqa: D102


class Mark(NamedTuple):
    """A number that tells of readings: their age, or whether they are missing; fields as those of channels."""

    name: str
    unit: str
    low: float
    high: float
    owner: str


class Drawn(NamedTuple):
    """What an episode has drawn of some numbers.

    Attributes:
        step: The step in which what is told was sent, shape (n_times, n_told).
        masked: Whether it is not shown, shape (n_times, n_told).
        factor: What it is multiplied by as it is sent, shape (n_times, n_told); None for nothing.
        marks: Shape (n_times, n_marks).
    """

    step: IntArray
    masked: BoolArray
    factor: FloatArray | None
    marks: FloatArray


class _Group(NamedTuple):
    spec: ReadingsSpec | MessagesSpec
    link: Link
    own: IntArray  # places among all that is told
    sender: IntArray  # by whom each of them is sent
    n_senders: int
    marks: slice


class Readings:
    """Say which numbers are told of a step, those of which step, and how exact.

    What is sent together, the numbers of a device, a zone, or a bus, is late or lost together. The state that an
    episode begins with is known to all.

    Args:
        table: What is measured; None where that is no reading.
        specs: The groups.
        n_times: Steps of an episode, and one for the state after the last.
        step_minutes: Length of a step [min].
        problems: Where groups are told that name nothing.
        besides: Places in ``table`` of what is told as it comes where no group says otherwise.

    Attributes:
        places: Places in ``table`` of what is told, shape (n_told,).
        middle: The middle of the bounds of each.
        resolution: What each is a multiple of, 0 for any number.
        marks: What tells of it, their ages, and whether they are missing.
        late: Whether anything ever is told otherwise than as it comes, but for errors.
        inexact: Whether there are errors.
    """

    def __init__(
        self,
        table: Sequence[Measured | None],
        specs: Mapping[str, ReadingsSpec] | Mapping[str, MessagesSpec],
        n_times: int,
        step_minutes: int,
        problems: list[Problem],
        besides: Sequence[int] = (),
    ) -> None:
        self._n_times, self._step_minutes = n_times, step_minutes
        patterns = {name: spec.channels for name, spec in specs.items()}
        found = assign(
            "channel", "telemetry.readings", ["" if each is None else each.name for each in table], patterns, problems
        )
        active = {name: own for name, own in found.items() if not specs[name].idle}
        places = [place for own in active.values() for place in own.tolist()]
        self.places = np.array(
            [*places, *(each for each in dict.fromkeys(besides) if each not in places)], dtype=np.int64
        )
        self.marks, self._groups = list[Mark](), list[_Group]()
        first = 0
        for name, own in active.items():
            self._add(name, specs[name], _pick(table, own), np.arange(first, first + len(own)))
            first += len(own)
        told = _pick(table, self.places)
        self.middle = np.array([(each.low + each.high) / 2.0 for each in told])
        self.resolution = np.zeros(len(told))
        for group in self._groups:
            own_steps = [group.spec.find_resolution(told[i].low, told[i].high) for i in group.own.tolist()]
            self.resolution[group.own] = own_steps
        self.late = any(not group.spec.ideal for group in self._groups)
        self.inexact = any(group.spec.spread or group.spec.bias for group in self._groups)

    def _add(self, name: str, spec: ReadingsSpec | MessagesSpec, own: Sequence[Measured], places: IntArray) -> None:
        senders = dict.fromkeys(_sender(each) for each in own)
        owners = {_sender(each): each.owner for each in own}
        link, first = Link(spec, self._step_minutes), len(self.marks)
        if spec.age:
            most = link.longest + link.every * (4 if spec.loss else 1)
            high = float(min(most, self._n_times) * self._step_minutes)
            self.marks += [Mark(f"{s}.{name}_age_min", "min", 0.0, high, owners[s]) for s in senders]
        if spec.on_loss != "hold":
            self.marks += [Mark(f"{s}.{name}_missing", "", 0.0, 1.0, owners[s]) for s in senders]
        index = {sender: i for i, sender in enumerate(senders)}
        sender = np.array([index[_sender(each)] for each in own], dtype=np.int64)
        self._groups.append(_Group(spec, link, places, sender, len(senders), slice(first, len(self.marks))))

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw an episode of one environment."""
        n_times, shape = self._n_times, (self._n_times, len(self.places))
        steps = np.arange(n_times)[:, None]
        step, masked = np.broadcast_to(steps, shape).copy(), np.zeros(shape, dtype=bool)
        factor = np.ones(shape) if self.inexact else None
        marks = np.zeros((n_times, len(self.marks)))
        for group, own_rng in zip(self._groups, rng.spawn(len(self._groups)), strict=True):
            spec, own = group.spec, group.own
            newest, missing = group.link.draw(own_rng, n_times, group.n_senders, first=0)
            step[:, own] = newest[:, group.sender]
            if spec.on_loss == "mask":
                masked[:, own] = missing[:, group.sender]
            if factor is not None:
                factor[:, own] = _draw_errors(own_rng, spec, n_times, len(own))
            told = [(steps - newest) * float(self._step_minutes)] if spec.age else []
            told += [] if spec.on_loss == "hold" else [missing.astype(np.float64)]
            if told:
                marks[:, group.marks] = np.concatenate(told, axis=1)
        return Drawn(step, masked, factor, marks)


def _pick(table: Sequence[Measured | None], places: IntArray) -> list[Measured]:
    return [each for place in places.tolist() if (each := table[place]) is not None]


def _sender(measured: Measured) -> str:
    """Return by whom a number is sent: the bus of a node's voltage, what a graph has of a bus, else its owner."""
    parts = measured.name.removeprefix(f"{measured.owner}.").split(".")
    return ".".join([measured.owner, *(parts[:-2] if len(parts) > 2 else parts[:-1])])


def _draw_errors(rng: np.random.Generator, spec: ReadingsSpec | MessagesSpec, n_times: int, n: int) -> FloatArray:
    """Draw what each reading is multiplied by, shape (n_times, n)."""
    factor = np.ones((n_times, n))
    if spec.bias:
        factor += spec.bias * rng.standard_normal(n)
    if spec.spread:
        factor += spec.spread * rng.standard_normal((n_times, n))
    return factor
