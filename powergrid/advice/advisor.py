"""A policy for a grid that runs: readings in, feasible setpoints out, step by step; nothing it is sent makes it fail.

This is what the service and the command are made of, and what a federate of another protocol would be.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from powergrid.advice.answer import Advice, By, Cut, Setpoint
from powergrid.advice.catalogue import Catalogue
from powergrid.advice.coverage import Coverage
from powergrid.advice.cuts import explain_position, explain_power
from powergrid.advice.readings import SoundReadings, check_readings, read_time
from powergrid.advice.twin import POSITIONS, Twin
from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError, ScenarioError, describe_unknown
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Fallback = Literal["hold", "native", "none"]
FALLBACKS = ("hold", "native", "none")
#: Readings of devices, which time makes wrong: these are moved on, never kept.
_OF_DEVICES = ("state", "delivered", "set_p", "port_owed_kwh", "port_steps_left", "port_asked_kwh")
#: What must be known of a device of each kind for its limits to hold.
_ESSENTIAL = {
    "storage": ("soc",),
    "generator": ("p_kw",),
    "flexible_load": ("owed_kwh",),
    "ev_charger": ("owed_kwh",),
    "building": tuple(f"zone_{i}_c" for i in range(1, 6)),
    "capacitor": ("steps_on",),
    "regulator": ("tap",),
    "switch": ("closed",),
}
#: Kinds that may be left to themselves whatever their state is: 0 kW, all the demand, all the cars.
_SAFE_ALONE = ("storage", "flexible_load", "ev_charger", "inverter")


class Player(Protocol):
    """What acts: a policy or a baseline."""

    def reset(self, task: GridTask, env: int) -> None:
        """Get ready for the day that an environment has just started."""

    def act(self, task: GridTask) -> FloatArray:
        """Return the actions of the step to come, shape (n_envs, n_actions)."""


@dataclass(frozen=True)
class AdvisorOptions:
    """When the policy is not listened to, and what takes its place.

    Attributes:
        fallback: ``hold`` keeps setpoints and positions as far as limits allow, ``native`` leaves devices to their own
            controls, ``none`` gives no setpoint.
        max_age_minutes: How long a reading stands in for the next [min]; two steps if None.
        min_coverage: Least part of what an agent sees that must be measured, 0..1.
        follows: Whether devices do what was advised where nothing was read of them; else they stay as they were.
    """

    fallback: Fallback = "hold"
    max_age_minutes: float | None = None
    min_coverage: float = 0.5
    follows: bool = True

    def find_problems(self) -> list[str]:
        """Return what is wrong with them."""
        problems = [] if self.fallback in FALLBACKS else [describe_unknown("fallback", self.fallback, FALLBACKS)]
        if not 0.0 <= self.min_coverage <= 1.0:
            problems.append(f"min_coverage {self.min_coverage:g} is outside 0..1")
        if self.max_age_minutes is not None and not 0.0 <= self.max_age_minutes <= 1e6:
            problems.append(f"max_age_minutes {self.max_age_minutes:g} is outside 0..1e6")
        return problems


class Advisor:
    """Advise one grid.

    Args:
        scenario: The scenario that the policy was trained on.
        player: What acts, or what makes that for the task which stands behind the advice.
        options: When it is not listened to.

    Attributes:
        catalogue: What may be read.
        task: The environment behind it, in the state of the last advice.
        action: The actions behind the last advice, as environments take them, shape (1, n_actions).

    Raises:
        ScenarioError: the options are wrong, or the policy does not fit the scenario.
        FeederError: the feeder does not compile or solve.
    """

    def __init__(
        self,
        scenario: Scenario,
        player: Player | Callable[[GridTask], Player],
        options: AdvisorOptions | None = None,
    ) -> None:
        self.options = options or AdvisorOptions()
        if problems := self.options.find_problems():
            raise ScenarioError("advice", problems)
        # readings that come are late and lost by themselves: what a scenario says of that is not said again
        self.task = GridTask(load_scenario(scenario, {"split": "all", "telemetry": None}))
        self._player = player(self.task) if callable(player) else player
        self.catalogue = Catalogue(self.task)
        self._twin, self._coverage = Twin(self.task, self.catalogue), Coverage(self.task, self.catalogue)
        self.step_minutes = float(self.task.scenario.step_minutes)
        given = self.options.max_age_minutes
        self.max_age_minutes = 2.0 * self.step_minutes if given is None else given
        n = len(self.catalogue.readings)
        self._last, self._read_at, self._fresh = np.zeros(n), np.full(n, -np.inf), np.zeros(n, dtype=bool)
        self._place_of = {reading.name: place for place, reading in enumerate(self.catalogue.readings)}
        self._of_device = np.array([r.target in _OF_DEVICES for r in self.catalogue.readings], dtype=bool)
        self._home = {name: (fleet, i) for fleet in self.task.simulation.fleets for i, name in enumerate(fleet.names)}
        self._owner = {d: name for name, spec in self.task.scenario.agents.items() for d in spec.devices}
        self._essential = self._find_essential()
        self.action = self.task.simulation.neutral()
        self._day = -1

    def advise(self, readings: Any, time: Any = None) -> Advice:
        """Return the setpoints of the step that begins with some readings.

        Args:
            readings: Numbers by name, as :func:`powergrid.advice.readings.check_readings` takes them; whatever else it
                is, advice is given without it.
            time: When they are of; what the readings say, or else the clock, if None.
        """
        sound = check_readings(readings, self.catalogue)
        when = self._settle_time(time, sound)
        minutes = float(when.astype("datetime64[s]").astype(np.int64)) / 60.0
        self._fresh = fresh = self._remember(sound, minutes)
        values = {place: float(self._last[place]) for place in np.flatnonzero(fresh).tolist()}
        if not self._twin.move_on(when, values, follows=self.options.follows):
            self._read_at[self._of_device & ~fresh] = -np.inf  # what was known of devices is too long ago
        age = minutes - self._read_at
        good = fresh | (~self._of_device & (age <= self.max_age_minutes))
        self._twin.look({place: float(self._last[place]) for place in np.flatnonzero(good).tolist()})
        known = {name: bool(self._knows(name, age)) for name in self._home}
        coverage = self._coverage.measured(good)
        of_agents = {name: float(coverage[own].mean()) for name, own in self._coverage.of_agents.items() if len(own)}
        action, fallbacks = self._act(of_agents, sound)
        inputs = self._coverage.inputs(fresh, good, known)
        setpoints = self._settle(action, fallbacks, known)
        return Advice(
            time=when,
            valid_minutes=self.step_minutes,
            setpoints=setpoints,
            inputs=inputs,
            coverage=of_agents,
            fallbacks=fallbacks,
            problems=tuple(sound.problems),
            profile_date=str(self.task.simulation.profiles.start.astype("datetime64[D]") + self._twin.day),
        )

    def read_now(self, name: str) -> float | None:
        """Return what the last readings said of one of the catalogue's names, None where they did not."""
        place = self._place_of.get(name)
        return float(self._last[place]) if place is not None and self._fresh[place] else None

    def range_of(self, action: Any) -> tuple[float, float]:
        """Return the least and largest setpoint of an action, in the setpoint's own unit."""
        if action.name != "share":
            return action.low, action.high
        fleet, _ = self._home[action.device]
        state = next(s for s in fleet.states if s.device == action.device and s.name in ("p_kw", "demand_kw"))
        return (state.low, state.high) if state.name == "p_kw" else (-state.high * action.high, 0.0)

    def compare_outcomes(self) -> None:
        """Reckon from now on what advice and what was done come to, in the model; see :attr:`outcomes`."""
        self._twin.compares = True

    @property
    def outcomes(self) -> tuple[dict[str, float], dict[str, float]] | None:
        """What the step that ended last comes to in the model, as advised and as done; None where nobody knows."""
        return self._twin.outcomes

    def close(self) -> None:
        """Release the engine; may come more than once."""
        self.task.close()

    # -- time and readings

    def _settle_time(self, time: Any, sound: SoundReadings) -> np.datetime64:
        asked = read_time(time)
        if time is not None and asked is None:
            sound.tell("time-unreadable", "time", "cannot be read", "write 2026-07-01T14:00, on the feeder's clock")
        when = sound.time if asked is None else asked
        if when is None:
            when = np.datetime64(datetime.datetime.now(), "s")
            sound.tell("time-missing", "time", f"not given; the clock of this machine says {when}")
        behind = self._twin.elapsed(when)
        if behind < 0:
            text = f"{when} is {-behind} steps before the last advice; what devices did since stays counted"
            sound.tell("time-backwards", "time", text)
        return when

    def _remember(self, sound: SoundReadings, minutes: float) -> BoolArray:
        """Keep what was read, and return which readings are of this very step."""
        fresh, old = np.zeros(len(self._last), dtype=bool), 0
        for place, number in sound.values.items():
            own = sound.times.get(place)
            at = minutes if own is None else float(own.astype(np.int64)) / 60.0
            name = self.catalogue.readings[place].name
            if at > minutes + self.step_minutes:
                sound.tell("reading-from-future", name, f"is of {own}, after the time of advice; it is left out")
                continue
            if minutes - at > self.max_age_minutes:
                old += 1
                sound.tell("reading-stale", name, f"is of {own}, more than {self.max_age_minutes:g} min ago")
                continue
            self._last[place], self._read_at[place] = number, min(at, minutes)
            fresh[place] = minutes - at < self.step_minutes
        return fresh

    def _find_essential(self) -> dict[str, list[int]]:
        place_of, found = self._place_of, {}
        for name, (fleet, device) in self._home.items():
            own = [place_of[f"{name}.{state}"] for state in _ESSENTIAL.get(fleet.kind, ())]
            if fleet.kind == "ev_charger":  # port by port, or the station as a whole
                own += [place_of[f"{name}.port{port + 1}.owed_kwh"] for port in range(fleet.specs[device].ports)]
            found[name] = own
        return found

    def _knows(self, name: str, age: FloatArray) -> bool:
        """Whether a device's state was read lately enough for its limits to hold."""
        recent = [age[place] <= self.max_age_minutes for place in self._essential[name]]
        if self._home[name][0].kind == "ev_charger":
            return recent[0] or all(recent[1:])
        return all(recent)

    # -- what to do

    def _act(self, coverage: dict[str, float], sound: SoundReadings) -> tuple[FloatArray, dict[str, str]]:
        """Return what the policy wants, and whose place the fallback takes and why."""
        task, simulation = self.task, self.task.simulation
        neutral, fallbacks = simulation.neutral(), dict[str, str]()
        what = f"fallback {self.options.fallback!r} takes over"
        for agent in task.agents:
            share = coverage.get(agent.name, 1.0)
            if share < self.options.min_coverage:
                least = f"at least {self.options.min_coverage:.0%} are needed"
                fallbacks[agent.name] = f"{share:.0%} of what it sees is measured, {least}; {what}"
            elif not self._twin.converged and share < 1.0:
                fallbacks[agent.name] = f"the model does not solve, so what is not measured is not known; {what}"
            elif self._twin.step >= simulation.options.horizon_steps:
                fallbacks[agent.name] = f"it was never trained at this time of the day; {what}"
        if not self._twin.converged:
            sound.tell("model-not-solved", "model", "the power flow does not converge with what was read")
        try:
            if self._twin.day != self._day:
                self._day = self._twin.day
                self._player.reset(task, 0)
            with np.errstate(all="ignore"):
                task.propose()
                action = np.array(self._player.act(task), dtype=np.float64)
            if not np.isfinite(action).all():
                raise PowerGridError("an action is not finite")
        except PowerGridError as error:
            sound.tell("policy-failed", "policy", str(error))
            action = neutral
            fallbacks |= {agent.name: f"the policy failed: {error}; {what}" for agent in task.agents}
        return action, fallbacks

    def _settle(self, wanted: FloatArray, fallbacks: dict[str, str], known: dict[str, bool]) -> tuple[Setpoint, ...]:
        """Turn what is wanted into feasible setpoints, fallbacks in their place."""
        simulation = self.task.simulation
        by: dict[str, By] = {}
        for name, agent in self._owner.items():
            by[name] = self.options.fallback if agent in fallbacks else "policy"
            if name in known and not known[name]:
                by[name] = self.options.fallback
                fallbacks[name] = f"its state was not read lately; fallback {self.options.fallback!r} takes over"
        action, held = wanted.copy(), self._hold()
        for column, spec in enumerate(simulation.actions):
            if by.get(spec.device, "none") != "policy" or spec.device in self._twin.moved:
                unknown = not known.get(spec.device, True)
                action[0, column] = (simulation.neutral() if unknown else held)[0, column]
        simulation.project(action)
        self.action = action
        return tuple(
            self._setpoint(column, spec, wanted, by[spec.device], known[spec.device])
            for column, spec in enumerate(simulation.actions)
            if spec.device in by
        )

    def _hold(self) -> FloatArray:
        """Return the actions that keep positions and powers, shape (1, n_actions)."""
        simulation = self.task.simulation
        action = simulation.neutral()
        for column, spec in enumerate(simulation.actions):
            fleet, device = self._home[spec.device]
            row = {"p_kw": 0, "q_kvar": 1}.get(spec.name)
            if row is None or (row == 0 and fleet.kind == "inverter"):
                continue
            last = (fleet.delivered_p_kw, fleet.delivered_q_kvar)[row][0, device]
            value = (float(last) - spec.offset) / spec.gain
            value = float(np.rint(value)) if spec.discrete else value
            action[0, column] = min(max(value, 0.0 if spec.discrete else -1.0), spec.n - 1.0 if spec.discrete else 1.0)
        return action

    def _setpoint(self, column: int, spec: Any, wanted: FloatArray, by: By, known: bool) -> Setpoint:
        fleet, device = self._home[spec.device]
        common: dict[str, Any] = {
            "device": spec.device,
            "kind": fleet.kind,
            "agent": self._owner[spec.device],
            "by": by,
        }
        silent = by in ("native", "none") or (not known and fleet.kind not in _SAFE_ALONE)
        if spec.name in POSITIONS:
            now, position = int(fleet.previous_position[0, device]), int(fleet.position[0, device])
            asked = int(np.rint(wanted[0, column])) + int(spec.low)
            cuts = explain_position(fleet, device, asked, position) if by == "policy" else ()
            if spec.device in self._twin.moved and by == "policy" and asked != position:
                cuts = (Cut("moves_per_step", "it has moved in this step already"),)
            return Setpoint(
                quantity=spec.name, unit="", now=float(now) if known else None,
                asked=float(asked) if by == "policy" else None, set=None if silent else float(position),
                pu=None if silent else self._tap_pu(fleet, device, position), cuts=cuts, **common,
            )  # fmt: skip
        quantity = "q_kvar" if spec.name == "q_kvar" else "p_kw"
        row = int(quantity == "q_kvar")
        given, last, asked_power = (
            float(both[row][0, device])
            for both in (
                (fleet.p_kw, fleet.q_kvar),
                (fleet.delivered_p_kw, fleet.delivered_q_kvar),
                (fleet.requested_p_kw, fleet.requested_q_kvar),
            )
        )
        return Setpoint(
            quantity=quantity, unit="kvar" if row else "kW", now=last,
            asked=asked_power if by == "policy" else None, set=None if silent else given + 0.0,
            cuts=explain_power(fleet, device, quantity, asked_power, given) if by == "policy" else (), **common,
        )  # fmt: skip

    def _tap_pu(self, fleet: Any, device: int, position: int) -> float | None:
        if fleet.kind != "regulator":
            return None
        spec, switchgear = fleet.specs[device], self.task.simulation.circuits[0].switchgear
        regulator = switchgear.regulators[switchgear.find_regulator(spec.element.lower(), spec.winding or 0)]
        return round(float(regulator.neutral_pu + regulator.step_pu * position), 6)
