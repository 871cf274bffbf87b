"""What of all that is measured is told, and when: readings that are late, lost, rounded and not exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem
from powergrid.grid.telemetry.links import IntArray, Link, assign
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


class _Group(NamedTuple):
    spec: ReadingsSpec | MessagesSpec
    link: Link
    own: IntArray  # places among all that is told
    sender: IntArray  # by whom each of them is sent
    n_senders: int
    marks: slice


class Readings:
    """Tell numbers as they arrive.

    What is sent together, the numbers of a device, a zone, or a bus, is late or lost together. The state that an
    episode begins with is known to all.

    Args:
        table: What is measured; None where that is no reading.
        specs: The groups.
        n_envs: Number of environments.
        n_times: Steps of an episode, and one for the state after the last.
        step_minutes: Length of a step [min].
        problems: Where groups are told that name nothing.
        besides: Places in ``table`` of what is told as it comes where no group says otherwise.

    Attributes:
        places: Places in ``table`` of what is told, shape (n_told,).
        marks: What tells of it, their ages, and whether they are missing.
    """

    def __init__(
        self,
        table: Sequence[Measured | None],
        specs: Mapping[str, ReadingsSpec] | Mapping[str, MessagesSpec],
        n_envs: int,
        n_times: int,
        step_minutes: int,
        problems: list[Problem],
        besides: Sequence[int] = (),
    ) -> None:
        self._n_envs, self._n_times, self._step_minutes = n_envs, n_times, step_minutes
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
        shape = (n_envs, n_times, len(told))
        late = any(not group.spec.ideal for group in self._groups)
        inexact = any(group.spec.spread or group.spec.bias for group in self._groups)
        # one row more, of the middle of the bounds, stands for what is missing
        self._middle = n_envs * n_times * len(told)
        self._sent = np.zeros((n_envs * n_times + 1, len(told))) if late else None
        self._newest = self._identity() if late else None
        if self._sent is not None:
            self._sent[-1] = [(each.low + each.high) / 2.0 for each in told]
        self._factor = np.ones(shape) if inexact else None
        self._shown_marks = np.zeros((n_envs, n_times, len(self.marks)))
        self._rounded, self._resolution = self._find_resolution(told)

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

    def _identity(self) -> IntArray:
        """Return where what is sent in each step will lie."""
        n_told = len(self.places)
        return np.arange(self._middle).reshape(self._n_envs, self._n_times, n_told)

    def _find_resolution(self, told: Sequence[Measured]) -> tuple[IntArray, FloatArray]:
        steps = np.zeros(len(told))
        for group in self._groups:
            steps[group.own] = [group.spec.find_resolution(told[i].low, told[i].high) for i in group.own.tolist()]
        columns = np.flatnonzero(steps)
        return columns, np.tile(steps[columns], (self._n_envs, 1))

    def start(self, envs: Sequence[int], rngs: Sequence[np.random.Generator]) -> None:
        """Draw the episodes of some environments, each with a generator of its own."""
        n_times, steps = self._n_times, np.arange(self._n_times)[:, None]
        for env, rng in zip(envs, rngs, strict=True):
            for group, own_rng in zip(self._groups, rng.spawn(len(self._groups)), strict=True):
                spec, own = group.spec, group.own
                newest, missing = group.link.draw(own_rng, n_times, group.n_senders, first=0)
                if self._newest is not None:
                    row = env * n_times + newest[:, group.sender]
                    where = row * len(self.places) + own
                    if spec.on_loss == "mask":
                        where = np.where(missing[:, group.sender], self._middle + own, where)
                    self._newest[env][:, own] = where
                if self._factor is not None:
                    self._factor[env][:, own] = _draw_errors(own_rng, spec, n_times, len(own))
                told = [(steps - newest) * float(self._step_minutes)] if spec.age else []
                told += [] if spec.on_loss == "hold" else [missing.astype(np.float64)]
                if told:
                    self._shown_marks[env][:, group.marks] = np.concatenate(told, axis=1)

    def tell(self, values: FloatArray, row: IntArray) -> FloatArray:
        """Return what is told in a step in which some values are measured, shape (n_envs, n_told).

        Args:
            values: What ``places`` are now, shape (n_envs, n_told); written over.
            row: The step in the rows of all environments laid end to end, shape (n_envs,).
        """
        n_told = len(self.places)
        if self._factor is not None:
            values *= self._factor.reshape(-1, n_told).take(row, 0, None, "clip")
        if len(self._rounded):
            values[:, self._rounded] = np.rint(values[:, self._rounded] / self._resolution) * self._resolution
        if self._sent is None or self._newest is None:
            return values
        self._sent[row] = values
        told: FloatArray = self._sent.reshape(-1).take(
            self._newest.reshape(-1, n_told).take(row, 0, None, "clip"), None, None, "clip"
        )
        return told

    def mark(self, row: IntArray) -> FloatArray:
        """Return the ``marks`` of a step, shape (n_envs, n_marks)."""
        marks: FloatArray = self._shown_marks.reshape(-1, len(self.marks)).take(row, 0)
        return marks

    def kept(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was drawn and sent, the arrays themselves."""
        kept = {"sent": self._sent, "newest": self._newest, "factor": self._factor, "marks": self._shown_marks}
        return {key: array for key, array in kept.items() if array is not None}


def _pick(table: Sequence[Measured | None], places: IntArray) -> list[Measured]:
    return [each for place in places.tolist() if (each := table[place]) is not None]


def _sender(measured: Measured) -> str:
    """Return by whom a number is sent: the bus of a node's voltage, else its owner."""
    rest = measured.name.removeprefix(f"{measured.owner}.")
    return f"{measured.owner}.{rest.rsplit('.', 2)[0]}" if rest.count(".") >= 2 else measured.owner


def _draw_errors(rng: np.random.Generator, spec: ReadingsSpec | MessagesSpec, n_times: int, n: int) -> FloatArray:
    """Draw what each reading is multiplied by, shape (n_times, n)."""
    factor = np.ones((n_times, n))
    if spec.bias:
        factor += spec.bias * rng.standard_normal(n)
    if spec.spread:
        factor += spec.spread * rng.standard_normal((n_times, n))
    return factor
