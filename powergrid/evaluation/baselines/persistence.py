"""A forecast that anybody has: the rest of the day as yesterday's, moved by how today went so far.

Prices are those of the day, a tariff or a day-ahead market. Nothing of the day to come goes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask, State
from powergrid.envs.draws import Values, as_options
from powergrid.errors import ScenarioError

FloatArray = npt.NDArray[np.float64]

#: Hours that today and yesterday are compared over, and in which what is found fades by a factor of e: of sun and of
#: demand. On training days the mean error of sun is 0.08 pu an hour ahead and 0.10 pu four hours ahead, of demand 0.02.
_WINDOW_H, _FADES_H = 1.0, {"day_pv_pu": 3.0, "day_load_kw": 6.0}
#: Least and most by which today may differ, and sun below which there is nothing to compare [pu].
_LEAST, _MOST, _DARK_PU = 0.2, 3.0, 0.02
#: How many days back there may be none that can be played, as where measurements were left out.
_DAYS_BACK = 7


@dataclass(frozen=True)
class Yesterday:
    """What the last day before an episode held, by the names of a state's parts; cars are a draw of their own.

    Attributes:
        days: Its demand, sun and number, of one environment.
        cars: Arrivals and stays by fleet, for steps to come; nothing of fleets that know none.
    """

    days: Mapping[str, Any]
    cars: Mapping[int, Mapping[str, FloatArray]]

    @classmethod
    def before(cls, task: GridTask, day: int, seed: int, drawn: Values | None = None) -> Yesterday:
        """Look it up.

        Args:
            task: A task of one environment that may be started anew.
            day: The day that is played.
            seed: With the day it starts the stream of the cars that are expected.
            drawn: Numbers that the day has in place of the scenario's; yesterday is taken to have had the same.

        Raises:
            ScenarioError: no day before it can be played.
        """
        for before in range(day - 1, max(day - _DAYS_BACK, 0) - 1, -1):
            try:
                task.reset(0, np.random.default_rng([seed, day, 2]), {"day": before, **as_options(drawn)})
            except ScenarioError:
                continue
            state = task.state().simulation
            fleets = enumerate(state["fleets"])
            cars = {f: {n: own[n] for n in ("arriving_kwh", "stay_steps")} for f, own in fleets if "stay_steps" in own}
            return cls(state["days"], cars)
        raise ScenarioError("mpc", [f"day {day} has no day before it to expect the same of; take a later one"])

    def forecast(self, state: State, dt_h: float) -> State:
        """Return a state of one environment whose steps to come are what is expected of them.

        What is known stays: all steps so far, the sun and demand of the next one, prices, and the cars that are there.
        """
        simulation = dict(state.simulation)
        now = int(simulation["clock"]["step_index"][0])
        today = {name: values.copy() for name, values in simulation["days"].items()}
        first = max(0, now + 1 - round(_WINDOW_H / dt_h))
        ahead_h = np.arange(today["day_pv_pu"].shape[1] - now - 1) * dt_h
        for name, fades_h in _FADES_H.items():
            recent, before = (float(own[name][0, first : now + 1].sum()) for own in (today, self.days))
            dark = name == "day_pv_pu" and before < _DARK_PU * (now + 1 - first)
            differs = 1.0 if dark or before <= 0.0 else float(np.clip(recent / before, _LEAST, _MOST))
            factor = 1.0 + (differs - 1.0) * np.exp(-ahead_h / fades_h)
            for own in (name, "day_load_kvar") if name == "day_load_kw" else (name,):
                expected = self.days[own][0, now + 1 :]
                today[own][0, now + 1 :] = expected * factor.reshape(-1, *[1] * (expected.ndim - 1))
        np.minimum(today["day_pv_pu"], max(1.0, float(self.days["day_pv_pu"].max())), out=today["day_pv_pu"])
        today["day"] = self.days["day"].copy()  # what else follows the day is yesterday's, too
        fleets = list(simulation["fleets"])
        for fleet, expected_cars in self.cars.items():
            fleets[fleet] = _expect_cars(fleets[fleet], expected_cars, now)
        return replace(state, simulation={**simulation, "days": today, "fleets": fleets})


def _expect_cars(fleet: Mapping[str, Any], expected: Mapping[str, FloatArray], now: int) -> dict[str, Any]:
    """Return a fleet's state in which cars to come are expected ones, at ports that nobody is at then."""
    rows = np.arange(fleet["stay_steps"].shape[1])[None, :, None, None]
    known = rows < now + np.maximum(fleet["port_steps_left"][:, None], 1.0)
    return {**fleet, **{name: np.where(known, fleet[name], expected[name]) for name in expected}}
