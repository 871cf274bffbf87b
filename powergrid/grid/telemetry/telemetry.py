"""All that lies between a simulation and those who decide, as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem, ScenarioError
from powergrid.grid.metrics import Metrics
from powergrid.grid.telemetry.links import IntArray
from powergrid.grid.telemetry.messages import Messages
from powergrid.grid.telemetry.meters import Meters
from powergrid.grid.telemetry.readings import Measured, Readings
from powergrid.grid.telemetry.setpoints import Setpoints
from powergrid.grid.telemetry.spec import TelemetrySpec

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: What everybody knows without a meter: clock and calendar, and who one is.
_KNOWN = ("time_of_day_sin", "time_of_day_cos", "weekend", "season_sin", "season_cos", "hours_left", "is_")


class Telemetry:
    """Tell what is measured, and pass on what is asked, as a scenario says.

    Args:
        spec: What it says.
        table: What is measured.
        metrics: What measures it.
        zones: Nodes of each zone, by its name.
        devices: Kind and agent of each device that an agent owns, by name.
        columns: Device of each action, shape (n_actions,).
        n_envs: Number of environments.
        n_times: Steps of an episode, and one for the state after the last.
        step_minutes: Length of a step [min].
        name: What messages call it.

    Attributes:
        passes_on: Whether devices go by :meth:`follow`, else by what they are asked.
        places: Places in ``table`` of what :meth:`look` returns first, shape (n_told,).
        marks: What follows there: ages, what is missing, which actions will be sent.
        unmetered: Places in ``table`` of what nobody measures.

    Raises:
        ScenarioError: a group names nothing, or a zone has no meter.
    """

    def __init__(
        self,
        spec: TelemetrySpec,
        table: Sequence[Measured],
        metrics: Metrics,
        zones: Mapping[str, IntArray],
        devices: Mapping[str, tuple[str, str]],
        columns: Sequence[str],
        n_envs: int,
        n_times: int,
        step_minutes: int,
        name: str,
    ) -> None:
        size, problems = (n_envs, n_times, step_minutes), list[Problem]()
        index = {each.name: place for place, each in enumerate(table)}
        self.unmetered = frozenset[int]()
        self._meters, self._metered, at = None, np.empty(0, np.int64), list[int]()
        if spec.metered_buses is not None:
            self._meters = meters = Meters(metrics, spec.metered_buses, zones, problems)
            # in the order of Meters.look
            at = [index[f"{owner}.{own}"] for own in ("v_min_pu", "v_max_pu") for owner in (*zones, "network")]
            at += [index[f"{zone}.v_mean_pu"] for zone in zones]
            silent = [f"network.{metrics.network.nodes[node]}.v_pu" for node in np.flatnonzero(~meters.nodes).tolist()]
            self.unmetered = frozenset(index[node] for node in silent if node in index)
        known = {place for place, each in enumerate(table) if _is_known(each)} | self.unmetered
        told = [each if place not in known else None for place, each in enumerate(table)]
        owners = {agent: [name for name, (_, owner) in devices.items() if owner == agent] for agent in zones}
        self._messages = messages = Messages(spec.messages, told, owners, *size, problems)
        self._readings = Readings(told, spec.readings, *size, problems, [*at, *messages.sources.tolist()])
        kinds = {name: kind for name, (kind, _) in devices.items()}
        self._setpoints = Setpoints(spec.setpoints, kinds, columns, *size, problems)
        if problems:
            raise ScenarioError(name, problems)
        self.places = self._readings.places
        self.marks = [*self._readings.marks, *self._setpoints.marks, *messages.heard, *messages.news.marks]
        place = {each: i for i, each in enumerate(self.places.tolist())}
        self._metered = np.array([place[each] for each in at], dtype=np.int64)
        self._sources = np.array([place[each] for each in messages.sources.tolist()], dtype=np.int64)
        self._parts = [part for part in (self._readings, self._setpoints) if part.marks]
        self._links: dict[str, Readings | Setpoints]
        self._links = {"readings": self._readings, "setpoints": self._setpoints, "messages": messages.news}
        self.passes_on = self._setpoints.late

    @property
    def width(self) -> int:
        """How many numbers :meth:`look` returns of each environment."""
        return len(self.places) + len(self.marks)

    def start(self, envs: Sequence[int], rngs: Sequence[np.random.Generator]) -> None:
        """Draw the episodes of some environments, each with a generator of its own."""
        drawn = [rng.spawn(3) for rng in rngs]
        for i, part in enumerate(self._links.values()):
            part.start(envs, [own[i] for own in drawn])

    def look(self, values: FloatArray, row: IntArray, energised: BoolArray) -> FloatArray:
        """Return what is told in a step, then the ``marks``, shape (n_envs, width).

        Args:
            values: What ``places`` are now, shape (n_envs, n_told); written over.
            row: The step in the rows of all environments laid end to end, shape (n_envs,).
            energised: Whether a source feeds each node, shape (n_envs, n_nodes).
        """
        if self._meters is not None:
            values[:, self._metered] = self._meters.look(energised)
        told = self._readings.tell(values, row)
        found = [told, *(part.mark(row) for part in self._parts)]
        if len(self._sources):
            news = self._messages.news
            found.append(news.tell(told.take(self._sources, 1), row))
            found += [news.mark(row)] if news.marks else []
        return np.concatenate(found, axis=1) if len(found) > 1 else told

    def follow(self, action: FloatArray, row: IntArray, neutral: Callable[[], FloatArray]) -> FloatArray:
        """Return the actions that devices go by in a step, see :meth:`Setpoints.follow`."""
        return self._setpoints.follow(action, row, neutral)

    def state(self) -> dict[str, Any]:
        """Copy what was drawn and sent."""
        return {name: {key: array.copy() for key, array in part.kept().items()} for name, part in self._links.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put a :meth:`state` back."""
        for name, part in self._links.items():
            for key, array in part.kept().items():
                array[...] = state[name][key]


def _is_known(measured: Measured) -> bool:
    return measured.name.removeprefix(f"{measured.owner}.").startswith(_KNOWN)
