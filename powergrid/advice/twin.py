"""The grid that is advised, as the environment holds it: what was read, and in between what the model reckons.

It is the environment itself (a :class:`GridTask`), put into the state that readings describe: observations, limits and
setpoints are the environment's own, and no formula of them stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from powergrid.advice.catalogue import Catalogue
from powergrid.advice.overlay import Overlay
from powergrid.envs.core import GridTask, State
from powergrid.errors import PowerGridError
from powergrid.grid.profiles.profiles import Profiles

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Values = Mapping[int, float]

#: What of switchgear says where it stands.
POSITIONS = ("tap", "steps_on", "closed")


class Twin:
    """Follow a grid step by step.

    Args:
        task: A task of one environment, of all days; it is used up.
        catalogue: What may be read of it.

    Attributes:
        task: The task, in the state of the last :meth:`look`.
        step: Step of the day that setpoints are for.
        day: Day of the profiles that stands for the date, -1 before the first.
        converged: Whether the model solved at the last look.
        moved: Devices that were read to have moved within the step, after its first look.
        compares: Whether to reckon what advice and what was done would have come to.
        outcomes: Both, of the step that ended last, by the names of ``OUTCOMES``; None where it is not known.
    """

    def __init__(self, task: GridTask, catalogue: Catalogue) -> None:
        self.task, self.catalogue = task, catalogue
        self.step, self.day, self.converged = 0, -1, False
        self._date: np.datetime64 | None = None
        self._number: int | None = None
        self._steps_per_day = max(1, round(24 * 60 / task.scenario.step_minutes))
        self.moved: set[str] = set()
        self.compares = False
        self.outcomes: tuple[dict[str, float], dict[str, float]] | None = None
        self._peak_kw = 0.0
        self._base: dict[int, IntArray] = {}
        self._overlay = Overlay(task, catalogue)

    def number_of(self, time: np.datetime64) -> int:
        """Return the number of the step that a time is in, counted from 1970."""
        day, second = divmod(int(time.astype("datetime64[s]").astype(np.int64)), 24 * 3600)
        step = int(second // (60.0 * self.task.scenario.step_minutes))
        return day * self._steps_per_day + min(step, self._steps_per_day - 1)

    def elapsed(self, time: np.datetime64) -> int:
        """Return how many steps a time is after the last look, 0 where there was none."""
        return 0 if self._number is None else self.number_of(time) - self._number

    def move_on(self, time: np.datetime64, values: Values, *, follows: bool) -> bool:
        """Go on to the step of a time: what was done since is what was read, else what was advised.

        Args:
            time: The time.
            values: What was read at it, by place in the catalogue.
            follows: Whether what was not read did what was advised; else it stayed as it was.

        Returns:
            Whether devices are known from before; not at first, nor after more than a day.
        """
        elapsed, date = self.elapsed(time), time.astype("datetime64[D]")
        task, simulation = self.task, self.task.simulation
        self.outcomes = None if elapsed else self.outcomes
        if elapsed < 0:  # a clock that was put back: what is counted stays counted
            return True
        known = self._number is not None and elapsed <= self._steps_per_day
        moved: dict[int, IntArray] = {}
        if known and elapsed > 0:
            advised = None
            if self.compares and elapsed == 1:
                state, row = task.state(), int(simulation.step_index[0])
                self._overlay.write_loads(state, values, row, row)  # by now it is known what they drew
                task.restore(state)
                advised = self._reckon()
            if not follows:
                self._leave()
            moved = self._take_done(values)
            if advised is not None:
                delivered = self._delivered_kva(values)
                simulation.powers.setpoints[:, 0] = delivered[0].real, delivered[0].imag
                self.outcomes = advised, self._reckon()
            for _ in range(elapsed):
                simulation.follow(self._delivered_kva(values))
        if elapsed > 0 or self._number is None:
            self._base.clear()
        self._number = self.number_of(time)
        self.step = self._number % self._steps_per_day
        if date != self._date:
            self._start_day(date, known, moved if elapsed > 1 else {})
        return known

    def look(self, values: Values) -> None:
        """Put all that was read over what the model reckons, and measure it.

        Args:
            values: What was read and is still good, by place in the catalogue.
        """
        task, row = self.task, min(self.step, self.task.simulation.options.horizon_steps)
        values = self._overlay.complete(values)
        state = task.state()
        self._overlay.write_fleets(state, values)
        self._overlay.write_known(state, values, row)
        _set_clock(state, max(row - 1, 0))
        task.restore(state)
        try:
            self.converged = bool(task.simulation.solve()[0])
        except PowerGridError:  # what OpenDSS says to a state that no grid is in
            self.converged = False
        state = task.state()
        _set_clock(state, row)
        self._overlay.write_fleets(state, values)  # the feeder's own controls may have moved some in the solve
        self._overlay.write_snapshot(state, values)
        self._overlay.write_delivered(state, values)
        task.restore(state)
        self._notice_moves()
        self._overlay.write_results(values)
        if "world.peak_import_kw" in self._overlay.column_of:
            self._follow_peak(row)

    def _notice_moves(self) -> None:
        """Notice what moved after the first look of the step: it has had its move."""
        self.moved = set()
        for f, fleet in enumerate(self.task.simulation.fleets):
            if hasattr(fleet, "previous_position"):
                base = self._base.setdefault(f, fleet.previous_position.copy())
                self.moved |= {fleet.names[i] for i in np.flatnonzero(fleet.previous_position[0] != base[0])}

    # -- what has happened since

    def _follow_peak(self, row: int) -> None:
        """Follow the highest import of the day so far, where it is seen and was not read itself."""
        task, column_of = self.task, self._overlay.column_of
        source, peak = (task.channels.places[column_of[n]] for n in ("network.source_p_kw", "world.peak_import_kw"))
        results = task.metrics.results
        self._peak_kw = max(self._peak_kw, float(results[0, peak]), float(results[0, source]) if row else 0.0)
        results[0, peak] = self._peak_kw

    def _reckon(self) -> dict[str, float]:
        """Solve the step to come with what is set, and return what it comes to; nothing changes."""
        task, state = self.task, self.task.state()
        with suppress(PowerGridError):
            task.simulation.solve()
        task.channels.measure()
        metrics, snapshot = task.metrics, task.simulation.snapshot
        numbers = {
            "violations": metrics.violation_count, "v_min_pu": metrics.v_min_pu, "v_max_pu": metrics.v_max_pu,
            "losses_kw": snapshot.losses_kw, "source_p_kw": snapshot.source_kva.real,
        }  # fmt: skip
        found = {name: float(values[0]) for name, values in numbers.items()}
        task.restore(state)
        return found

    def _leave(self) -> None:
        """Undo what was advised: devices stay as they were."""
        simulation = self.task.simulation
        for fleet in simulation.fleets:
            if hasattr(fleet, "previous_position"):
                fleet.position = fleet.previous_position.copy()
        simulation.powers.setpoints[...] = simulation.powers.delivered

    def _take_done(self, values: Values) -> dict[int, IntArray]:
        """Take positions that were read for those of the step that has ended; return how far each fleet moved."""
        moved: dict[int, IntArray] = {}
        for f, fleet in enumerate(self.task.simulation.fleets):
            if not hasattr(fleet, "previous_position"):
                continue
            position = fleet.position.copy()
            for place in self._overlay.of_fleets:
                reading = self.catalogue.readings[place]
                if place in values and reading.where[0] == f and reading.name.rpartition(".")[2] in POSITIONS:
                    position[0, fleet.held[reading.where[1]][1]] = int(values[place])
            fleet.position, fleet.previous_position = position, self._base[f].copy()
            moved[f] = np.abs(position - fleet.previous_position)
        return moved

    def _delivered_kva(self, values: Values) -> npt.NDArray[np.complex128]:
        """Return what devices delivered in the step that has ended: what was read, else what they were set to."""
        both = self.task.simulation.powers.setpoints.copy()
        for place, number in values.items():
            reading = self.catalogue.readings[place]
            if reading.target == "delivered":
                both[reading.where[0], 0, reading.where[1]] = number
        delivered: npt.NDArray[np.complex128] = both[0] + 1j * both[1]
        return delivered

    def _start_day(self, date: np.datetime64, known: bool, moved: Mapping[int, IntArray]) -> None:
        """Start the day that stands for a date, with the devices as they are where that is known.

        What was moved at some time since the last look counts for the new day as well.
        """
        task, simulation = self.task, self.task.simulation
        kept = [fleet.state_dict() for fleet in simulation.fleets]
        powers = simulation.powers.state()
        self._peak_kw = 0.0
        self._date, self.day = date, _find_day(simulation.profiles, simulation.days, date)
        task.reset(0, np.random.default_rng([0, self.day]), {"day": self.day})
        state = task.state()
        weekday = int(date.astype("datetime64[D]").astype(np.int64) + 3) % 7
        state.channels[0, :, self._overlay.column_of["world.weekend"]] = float(weekday >= 5)
        if known:
            for f, (fleet, own) in enumerate(zip(state.simulation["fleets"], kept, strict=True)):
                budget = fleet.get("moves_left")
                fleet.update(own)
                if budget is not None:
                    fleet["moves_left"] = np.maximum(budget - moved.get(f, 0), 0)
            state.simulation["power"].update(powers)
        task.restore(state)


def _set_clock(state: State, row: int) -> None:
    state.simulation["clock"]["step_index"] = np.array([row])


def _find_day(profiles: Profiles, eligible: npt.NDArray[np.int64], date: np.datetime64) -> int:
    """Return the day of the profiles that stands for a date: itself, else the same of another year, or the nearest.

    Args:
        profiles: The profiles.
        eligible: Days that may be played.
        date: The date.
    """
    first = profiles.start.astype("datetime64[D]")
    dates = first + np.asarray(eligible)
    same = np.flatnonzero(dates == date)
    if len(same):
        return int(eligible[same[0]])
    of_year = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    own = int((date - date.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64))
    apart = np.abs(of_year - own)
    return int(eligible[np.minimum(apart, 365 - apart).argmin()])
