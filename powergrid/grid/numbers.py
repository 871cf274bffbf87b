"""Numbers that one environment has in place of the scenario's: what each changes, all of it at a reset, none in a step.

Factors on arrays where that is enough; of the engine only what is its own: impedances of lines, positions at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from powergrid.errors import Problem, ScenarioError
from powergrid.grid.circuit.circuits import Circuits
from powergrid.grid.fleets import Fleets
from powergrid.grid.options import SimulationOptions
from powergrid.grid.outages.events import Events
from powergrid.grid.profiles.episode_days import Days

#: Values by the parts of a scenario's key, as in ("devices", "ess_1", "soc_initial").
Values = Mapping[tuple[str, ...], Any]
_LINES = (("feeder_changes", "scale", "line_r"), ("feeder_changes", "scale", "line_x"))


class Numbers:
    """Let environments have numbers of their own.

    Args:
        options: The numbers that all others have.
        days: The days that are played.
        devices: The devices.
        circuits: The circuits.
        events: The events, None where there are none.
        lines: Factors on the resistance and the reactance of lines that the circuits were compiled with.
    """

    def __init__(
        self,
        options: SimulationOptions,
        days: Days,
        devices: Fleets,
        circuits: Circuits,
        events: Events | None,
        lines: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self._options, self._days, self._devices = options, days, devices
        self._circuits, self._events, self._compiled_lines = circuits, events, lines
        self._now: list[Values] = [{} for _ in range(len(circuits))]
        self._base_amps = circuits[0].network.branches.norm_amps

    def take(self, env: int, values: Values) -> None:
        """Let an environment have some numbers from its next reset on, and the scenario's where nothing is said.

        Raises:
            ScenarioError: a branch is unknown, or has no rating that could be another.
            ValidationError: numbers of a device contradict each other.
        """
        before = self._now[env]
        if values == before:
            return
        changed = {path for path in {*before, *values} if before.get(path) != values.get(path)}
        sections = {path[0] for path in changed}
        options, days = self._options, self._days
        days.load_scale[env] = values.get(("load_scale",), options.load_scale)
        days.price_scale[env] = values.get(("profiles", "price_scale"), options.price_scale)
        if "devices" in sections:
            own = dict[str, dict[str, Any]]()
            for path, value in values.items():
                if path[0] == "devices":
                    own.setdefault(path[1], {})[path[2]] = value
            self._devices.take_numbers(env, own)
        hour = float(values.get(("start_hour",), options.start_hour))
        days.first_step[env] = days.step_at(hour)
        self._devices.start_at(env, hour, days.step_at(hour))  # after its devices, which are told by it
        if sections & {"rating_scale", "norm_amps"}:
            self._rate(env, values)
        if any(path in changed for path in _LINES):
            r, x = (values.get(path, one) / one for path, one in zip(_LINES, self._compiled_lines, strict=True))
            self._circuits[env].scale_lines(r, x)
        if "events" in sections and self._events is not None:
            self._events.take_numbers(env, {path[1:]: v for path, v in values.items() if path[0] == "events"})
        self._now[env] = dict(values)

    def start(self, env: int) -> None:
        """Put what no device moves at the positions an environment starts from, once its circuit is at its start."""
        taps, steps = ({p[1]: v for p, v in self._now[env].items() if p[0] == kind} for kind in ("taps", "steps_on"))
        if taps or steps:
            self._circuits[env].start_at(taps, steps)

    def _rate(self, env: int, values: Values) -> None:
        network = self._circuits[0].network
        amps = self._base_amps.copy()
        scale = values.get(("rating_scale",), self._options.rating_scale)
        problems = list[Problem]()
        for path, value in values.items():
            if path[0] == "norm_amps":
                branch = network.find("branch", path[1], "norm_amps")
                if isinstance(branch, Problem):
                    problems.append(branch)
                elif self._base_amps[branch] <= 0.0:
                    text, remedy = "has no rating, so that none can be drawn", "give it one by norm_amps, and the range"
                    problems.append(Problem("no-rating", f"norm_amps.{path[1]}", text, f"{remedy} under ranges"))
                else:
                    amps[branch] = value * self._options.rating_scale
        if problems:
            raise ScenarioError("ranges", problems)
        self._circuits.set_ratings(env, np.asarray(amps * (scale / self._options.rating_scale)))
