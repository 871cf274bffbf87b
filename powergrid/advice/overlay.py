"""Write readings over the state of an environment, each to where it holds that number, and read them off it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.advice.catalogue import Catalogue
from powergrid.envs.core import GridTask, State

Values = Mapping[int, float]

#: What holds a reading of a fleet that its own table of states does not hold.
_OF_FLEETS = ("set_p", "port_owed_kwh", "port_steps_left", "port_asked_kwh")
#: Power from which on a generator runs [kW].
_RUNNING_KW = 1e-3


class Overlay:
    """Write readings into states of a task.

    Args:
        task: The task.
        catalogue: What may be read of it.

    Attributes:
        of_fleets: Places of the readings of what fleets go on from.
        column_of: Column of each channel, by its name.
    """

    def __init__(self, task: GridTask, catalogue: Catalogue) -> None:
        self.task, self.catalogue = task, catalogue
        readings = catalogue.readings
        self.of_fleets = [place for place, r in enumerate(readings) if r.target in ("state", *_OF_FLEETS)]
        self.column_of = {channel.name: column for column, channel in enumerate(task.channels.table)}
        self._place_of = {reading.name: place for place, reading in enumerate(readings)}
        fleets = task.simulation.fleets
        self._generators = [name for fleet in fleets if fleet.kind == "generator" for name in fleet.names]

    def complete(self, values: Values) -> dict[int, float]:
        """Add what follows from readings of a generator's power, where nothing says otherwise."""
        whole, place_of = dict(values), self._place_of
        for name in self._generators:
            if (power := values.get(place_of[f"{name}.p_kw"])) is not None:
                whole.setdefault(place_of[f"{name}.set_p_kw"], max(power, 0.0))
                whole.setdefault(place_of[f"{name}.on"], float(power > _RUNNING_KW))
        return whole

    def write_known(self, state: State, values: Values, row: int) -> None:
        """Write what is known of the step to come, and the loads that the model is to draw.

        Loads that were read go on drawing that, which makes the demand of their zones where nothing else says it.
        """
        days, read = state.simulation["days"], self.write_loads(state, values, max(row - 1, 0), row)
        if read.any():
            demand_kw = self.task.channels.sum_loads(days["day_load_kw"][:, row])[0]
            for name, own, kw in zip(self.task.scenario.agents, self.task.channels.loads_in.T, demand_kw, strict=True):
                if read[own > 0.0].any():
                    state.channels[0, row, self.column_of[f"{name}.demand_kw"]] = kw
        for place, number in values.items():
            reading = self.catalogue.readings[place]
            if reading.target == "known":
                state.channels[0, row, reading.where[0]] = number
                if reading.name == "world.sun_pu":
                    days["day_pv_pu"][0, row] = number
                if reading.name == "world.price_usd_per_kwh":
                    days["day_price"][0, row] = state.simulation["clock"]["day_paid_price"][0, row] = number

    def write_loads(self, state: State, values: Values, first: int, last: int) -> npt.NDArray[np.bool_]:
        """Write what loads draw into the rows of the day from one to another; return whose active power was read."""
        days, read = state.simulation["days"], np.zeros(len(self.task.simulation.network.loads.names), dtype=bool)
        for place, number in values.items():
            reading = self.catalogue.readings[place]
            if reading.target == "load":
                which, load = reading.where
                read[load] |= which == 0
                days[("day_load_kw", "day_load_kvar")[which]][0, first : last + 1, load] = number
        return read

    def write_snapshot(self, state: State, values: Values) -> None:
        """Write voltages and flows."""
        snapshot = state.simulation["snapshot"]
        for place, number in values.items():
            target, where = self.catalogue.readings[place].target, self.catalogue.readings[place].where
            if target == "node":
                snapshot["v_pu"][0, where[0]] = number
            elif target == "p":
                snapshot["terminal_kva"].real[0, where[0]] = number
            elif target == "q":
                snapshot["terminal_kva"].imag[0, where[0]] = number
            elif target == "loading":
                snapshot["loading_pu"][0, where[0]] = number

    def write_delivered(self, state: State, values: Values) -> None:
        """Write what devices deliver."""
        for place, number in values.items():
            reading = self.catalogue.readings[place]
            if reading.target == "delivered":
                state.simulation["power"]["delivered"][reading.where[0], 0, reading.where[1]] = number

    def write_fleets(self, state: State, values: Values) -> None:
        """Write states of devices: where what holds one is part of what a fleet goes on from."""
        fleets, own = self.task.simulation.fleets, state.simulation["fleets"]
        stations: set[tuple[int, int]] = set()
        for place in self.of_fleets:
            if place not in values:
                continue
            reading, number = self.catalogue.readings[place], values[place]
            f, *rest = reading.where
            memory = own[f]
            if reading.target == "set_p":
                memory["previous_p_kw"][0, rest[0]] = number
            elif reading.target != "state":  # of a port
                memory[reading.target][0, rest[0], rest[1]] = number
            else:
                attribute, device = fleets[f].held[rest[0]]
                if attribute in memory:
                    memory[attribute][0, device] = number
                elif fleets[f].kind == "ev_charger":
                    stations.add((f, device))
                if attribute == "previous_position":
                    for name in ("position", "requested_position"):
                        memory[name][0, device] = number
                elif attribute == "on":
                    memory["next_on"][0, device] = number
        for f, device in stations:
            if self._place_of[f"{fleets[f].names[device]}.port1.owed_kwh"] not in values:
                self._fill_ports(own[f], fleets[f], device, values)

    def _fill_ports(self, memory: dict[str, Any], fleet: Any, device: int, values: Values) -> None:
        """Share what is owed at a station evenly among as many cars as are there, all with the same time left."""
        name, spec = fleet.names[device], fleet.specs[device]
        owed = values.get(self._place_of[f"{name}.owed_kwh"], 0.0)
        cars = int(values.get(self._place_of[f"{name}.connected"], float(owed > 0.0)))
        full_steps = owed / max(cars, 1) / (spec.p_max_kw * spec.eta_charge * fleet.dt_h)
        urgency = values.get(self._place_of[f"{name}.urgency"], 1.0)
        left = max(1.0, np.ceil(full_steps / max(urgency * min(full_steps, 1.0), 1e-6))) if cars else 0.0
        for attribute, number in (("port_owed_kwh", owed / max(cars, 1)), ("port_steps_left", min(left, 1e4))):
            memory[attribute][0, device] = 0.0
            memory[attribute][0, device, :cars] = number
        memory["port_asked_kwh"][0, device] = memory["port_owed_kwh"][0, device]

    def write_results(self, values: Values) -> None:
        """Write what is read of zones and stations themselves over what was measured just now."""
        readings, fleets = self.catalogue.readings, self.task.simulation.fleets
        places, results = self.task.channels.places, self.task.metrics.results
        for place, number in values.items():
            reading = readings[place]
            if reading.target == "channel":
                results[0, places[reading.where[0]]] = number
            elif reading.target == "state" and fleets[reading.where[0]].kind == "ev_charger":  # sums over ports
                results[0, places[self.column_of[reading.name]]] = number


def readings_of(task: GridTask, catalogue: Catalogue, *, kinds: Collection[str] = ()) -> dict[str, float]:
    """Return all that can be read of the one environment of a task, by name: what a perfect meter would tell.

    Args:
        task: The task, after a reset or a step.
        catalogue: What may be read of it.
        kinds: Only readings of these targets; all if none is given.
    """
    simulation = task.simulation
    snapshot, row, channels = simulation.snapshot, int(simulation.step_index[0]), task.channels.state()
    seen = task.channels.values[0]
    taken: dict[str, float] = {}
    for reading in catalogue.readings:
        target, where = reading.target, reading.where
        if kinds and target not in kinds:
            continue
        if target == "known":
            number = channels[0, row, where[0]]
        elif target == "channel":
            number = seen[where[0]]
        elif target == "node":
            number = snapshot.v_pu[0, where[0]]
        elif target in ("p", "q"):
            number = getattr(snapshot.terminal_kva, "real" if target == "p" else "imag")[0, where[0]]
        elif target == "loading":
            number = snapshot.loading_pu[0, where[0]]
        elif target == "load":
            number = (simulation.day_load_kw, simulation.day_load_kvar)[where[0]][0, max(row - 1, 0), where[1]]
        elif target == "delivered":
            number = simulation.delivered[where[0], 0, where[1]]
        else:
            number = _read_fleet(simulation.fleets[where[0]], target, where[1:])
        taken[reading.name] = float(number)
    return taken


def _read_fleet(fleet: Any, target: str, where: Sequence[int]) -> float:
    if target == "set_p":
        return float(fleet.previous_p_kw[0, where[0]])
    if target != "state":
        return float(getattr(fleet, target)[0, where[0], where[1]])
    attribute, device = fleet.held[where[0]]
    return float(getattr(fleet, attribute)[0, device])
