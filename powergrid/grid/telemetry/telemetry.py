"""All that lies between a simulation and those who decide, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem, ScenarioError
from powergrid.grid.metrics import Metrics
from powergrid.grid.telemetry.links import IntArray, find_together
from powergrid.grid.telemetry.messages import Messages
from powergrid.grid.telemetry.meters import find_metered
from powergrid.grid.telemetry.readings import Drawn, Measured, Readings
from powergrid.grid.telemetry.ring import Ring
from powergrid.grid.telemetry.setpoints import Setpoints
from powergrid.grid.telemetry.spec import TelemetrySpec

FloatArray = npt.NDArray[np.float64]

#: What everybody knows without a meter: clock and calendar, and who one is.
_KNOWN = ("time_of_day_sin", "time_of_day_cos", "weekend", "season_sin", "season_cos", "hours_left", "is_")


class Telemetry:
    """Tell what is measured, and pass on what is asked, as a scenario says.

    Args:
        spec: What it says.
        table: What is measured; None where that is known without a meter.
        metrics: What measures it.
        zones: Nodes of each zone, by its name.
        devices: Kind and agent of each device that an agent owns, by name.
        columns: Device of each action, shape (n_actions,).
        n_envs: Number of environments.
        n_times: Steps of an episode, and one for the state after the last.
        step_minutes: Length of a step [min].
        name: What messages call it.

    Attributes:
        passes_on: Whether devices go by ``follow``, else by what they are asked.
        look: Writes what is told in a step: ``places``, then ``marks``; see :meth:`Ring.tell`.
        follow: Returns what devices go by in a step; see :meth:`Setpoints.follow`.
        places: Places in ``table`` of what ``look`` writes first, shape (n_told,).
        sources: Places in ``table`` of what messages tell, shape (n_heard,).
        marks: What follows there: ages, what is missing, which actions will be sent, what is heard.
        width: How many numbers ``look`` writes of each environment.
        unmetered: Places in ``table`` of what nobody measures.
        metered: Places in ``table`` of the voltages of zones and network that are those of metered buses: lowest of
            zones and network, their highest, means of zones.
        metered_nodes: Nodes of these, of each zone and of the network; none where all are.

    Raises:
        ScenarioError: a group names nothing, or a zone has no meter.
    """

    def __init__(
        self,
        spec: TelemetrySpec,
        table: Sequence[Measured | None],
        metrics: Metrics,
        zones: Mapping[str, IntArray],
        devices: Mapping[str, tuple[str, str]],
        columns: Sequence[str],
        n_envs: int,
        n_times: int,
        step_minutes: int,
        name: str,
    ) -> None:
        size, problems = (n_times, step_minutes), list[Problem]()
        index = {each.name: place for place, each in enumerate(table) if each is not None}
        self.unmetered, self.metered, self.metered_nodes = frozenset[int](), np.empty(0, np.int64), list[IntArray]()
        if spec.metered_buses is not None:
            measured, self.metered_nodes = find_metered(metrics.network, spec.metered_buses, zones, problems)
            quantities = [(own, owner) for own in ("v_min_pu", "v_max_pu") for owner in (*zones, "network")]
            quantities += [("v_mean_pu", zone) for zone in zones]
            self.metered = np.array([index[f"{owner}.{own}"] for own, owner in quantities], dtype=np.int64)
            silent = [f"network.{metrics.network.nodes[node]}.v_pu" for node in np.flatnonzero(~measured).tolist()]
            self.unmetered = frozenset(index[node] for node in silent if node in index)
        known = {place for place, each in enumerate(table) if each is not None and _is_known(each)} | self.unmetered
        told = [each if place not in known else None for place, each in enumerate(table)]
        owners = {agent: [name for name, (_, owner) in devices.items() if owner == agent] for agent in zones}
        self._messages = messages = Messages(spec.messages, told, owners, *size, problems)
        self._readings = readings = Readings(told, spec.readings, *size, problems, messages.sources.tolist())
        kinds = {name: kind for name, (kind, _) in devices.items()}
        together = find_together(n_envs, n_times)
        arguments = n_envs, n_times, together, step_minutes, problems
        self._setpoints = setpoints = Setpoints(spec.setpoints, kinds, columns, *arguments)
        if problems:
            raise ScenarioError(name, problems)
        self.places, self.sources = readings.places, messages.sources
        self.marks = [*readings.marks, *setpoints.marks, *messages.heard, *messages.news.marks]
        place = {each: i for i, each in enumerate(self.places.tolist())}
        self._sources = np.array([place[each] for each in messages.sources.tolist()], dtype=np.int64)
        self.width = len(self.places) + len(self.marks)
        self._ring = self._make_ring(n_envs, n_times, together)
        self.passes_on = setpoints.late
        self.look, self.follow = self._ring.tell, setpoints.follow

    def _make_ring(self, n_envs: int, n_times: int, together: Mapping[bytes, int]) -> Ring:
        readings, news = self._readings, self._messages.news
        steps = [np.concatenate([readings.resolution, readings.resolution[self._sources]])]
        steps.append(np.concatenate([np.zeros(len(self.places)), news.resolution]))
        # what a reading shows that is missing, and then a message: told in so many bits, the first is no middle
        middles = np.tile(np.concatenate([readings.middle, news.middle]), (2, 1))
        coarse, last = news.resolution > 0.0, middles[0, len(self.places) :]
        last[coarse] = np.rint(last[coarse] / news.resolution[coarse]) * news.resolution[coarse]
        n_marks = len(self.marks) - len(self._messages.heard)
        return Ring(n_envs, n_times, together, middles, n_marks, self.width, inexact=readings.inexact, rounding=steps)

    def start(self, envs: Sequence[int], rngs: Sequence[np.random.Generator]) -> None:
        """Draw the episodes of some environments, each with a generator of its own."""
        for env, rng in zip(envs, rngs, strict=True):
            of_readings, of_setpoints, of_messages = rng.spawn(3)
            self._setpoints.start(env, of_setpoints)
            if self.width:
                self._lay(env, self._readings.draw(of_readings), self._messages.news.draw(of_messages))

    def _lay(self, env: int, readings: Drawn, news: Drawn) -> None:
        """Say where lies what is told in an episode of one environment: a message is a reading that came before."""
        ring, sources, n_told = self._ring, self._sources, len(self.places)
        told, heard = np.arange(n_told), n_told + np.arange(len(sources))
        places = ring.places_of(env, readings.step, told)
        np.copyto(places, ring.middles_of(0, told), where=readings.masked)
        step = readings.step[news.step, sources]
        said = ring.places_of(env, step, heard)
        np.copyto(said, ring.middles_of(0, heard), where=readings.masked[news.step, sources])
        np.copyto(said, ring.middles_of(1, heard), where=news.masked)
        marks = ring.marks_of(env)
        own = len(self._readings.marks) + len(self._setpoints.marks)
        ring.marks[:, env] = np.concatenate([readings.marks, self._setpoints.decides, news.marks], axis=1)
        ring.newest[:, env] = np.concatenate([places, marks[:, :own], said, marks[:, own:]], axis=1)
        if ring.factor is not None and readings.factor is not None:
            ring.factor[:, env] = np.concatenate([readings.factor, readings.factor[:, sources]], axis=1)

    def state(self) -> dict[str, Any]:
        """Copy what was drawn and sent."""
        return {name: {key: each.copy() for key, each in own.items()} for name, own in self._arrays().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put a :meth:`state` back."""
        for name, own in self._arrays().items():
            for key, array in own.items():
                array[...] = state[name][key]
        self._setpoints.resume()

    def _arrays(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        return {"readings": self._ring.arrays(), "setpoints": self._setpoints.kept()}


def _is_known(measured: Measured) -> bool:
    return measured.name.removeprefix(f"{measured.owner}.").startswith(_KNOWN)
