"""What may be read of a grid: each reading by name, its unit, the range that can be true and that which was trained.

The names, and the numbers they stand for, are those of the environment: its channels, nodes, branches, loads, devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from powergrid.envs.core import GridTask
from powergrid.errors import nearest_names
from powergrid.measurements.units import find_unit, split_unit

#: What a name may begin with and need not.
_PREFIXES = ("network.", "world.", "bus.", "node.", "branch.", "device.")
#: Highest node voltage and loading that any meter can tell [pu].
_V_MOST_PU, _LOADING_MOST_PU = 3.0, 20.0
#: How often the nominal demand can flow, and a load draw.
_FLOW_FACTOR, _LOAD_FACTOR = 20.0, 50.0
#: Furthest from 0 that a price can be [USD/kWh].
_PRICE_MOST = 100.0
_LONGEST_NAME = 200
#: Whole numbers among states of devices.
_WHOLE = ("tap", "steps_on", "closed", "on", "locked_steps", "moves_left", "connected")
#: Channels that follow from the time alone.
OF_TIME = ("world.time_of_day_sin", "world.time_of_day_cos", "world.weekend")


class Reading(NamedTuple):
    """One number that may be read.

    Attributes:
        name: As it is written, unit at the end.
        unit: Its unit.
        low, high: Range outside of which it cannot be true.
        trained_low, trained_high: Range that the policy tells apart, NaN where it does not see the number itself.
        target: Where it goes: ``known`` of the step to come, ``channel``, ``node``, ``p``, ``q`` or ``loading`` of
            branches, ``load``, ``state`` or ``delivered`` of devices, ``port`` of charging stations.
        where: Place there.
        whole: Whether it is a whole number.
        meaning: What it is, where the name does not say it.
    """

    name: str
    unit: str
    low: float
    high: float
    trained_low: float
    trained_high: float
    target: str
    where: tuple[int, ...]
    whole: bool = False
    meaning: str = ""


class Meant(NamedTuple):
    """A reading that a name stands for, and what turns the given number into the reading's own unit."""

    place: int
    scale: float
    offset: float


class Catalogue:
    """Every reading of a task, and the readings that a name and a unit stand for.

    Args:
        task: The task whose environment is advised.

    Attributes:
        readings: All readings; a place among them is what the rest goes by.
    """

    def __init__(self, task: GridTask) -> None:
        self._task = task
        self.readings: tuple[Reading, ...] = tuple(self._list_all())
        self._by_name: dict[str, list[Meant]] = {}
        self._by_stem: dict[str, list[int]] = {}
        for place, reading in enumerate(self.readings):
            self._enter(reading.name, place)
        self._enter_buses()
        self._enter_taps()
        self._found: dict[tuple[str, str], list[Meant] | str] = {}

    def find(self, name: str, unit: str = "") -> list[Meant] | str:
        """Return the readings that a name stands for, or what is wrong with it.

        Args:
            name: A reading's name, in any letter case, with or without ``network.`` and the like before it; the name
                of a bus in place of a node's stands for all its nodes. A unit at its end, or ``unit``, may be any of
                the same kind: ``675.1.v_kv``, ``bess.p_mw``, ``bess.soc_percent``.
            unit: Unit of the number, where the name does not say it.
        """
        key = name[: _LONGEST_NAME + 1], unit[:_LONGEST_NAME]
        if key not in self._found:
            if len(self._found) > 20_000 + 4 * len(self.readings):  # whoever sends nonsense for days fills no memory
                self._found.clear()
            self._found[key] = self._find(*key)
        return self._found[key]

    def suggest(self, name: str) -> list[str]:
        """Return the readings whose name is most like a wrong one, best first, of those that begin alike."""
        key = _strip(name[:_LONGEST_NAME])
        alike = [reading.name for reading in self.readings if _strip(reading.name)[:1] == key[:1]]
        return nearest_names(key, alike[:2000], limit=2)

    # -- looking up

    def _find(self, name: str, unit: str) -> list[Meant] | str:
        if len(name) > _LONGEST_NAME:
            return f"a name of more than {_LONGEST_NAME} characters"
        key, given = _strip(name), find_unit(unit) if unit else None
        if unit and given is None:
            return f"unknown unit {unit!r}"
        stem, said = split_unit(key)
        if said is None and key[-2:] in ("_v", "_w", "_a"):  # elsewhere one letter is a phase as often as a unit
            stem, said = key[:-2], find_unit(key[-1])
        if key in self._by_name and given in (None, said):
            return self._by_name[key]
        places = [meant.place for meant in self._by_name[key]] if key in self._by_name else self._by_stem.get(stem)
        given = given or said
        if places is None or given is None:
            return "unknown"
        meant = [self._convert(place, given, ll=stem.endswith(".v_ll")) for place in places]
        if None in meant:
            return f"{given.name} is no unit of it; it is in {self.readings[places[0]].unit or 'plain numbers'}"
        return [each for each in meant if each is not None]

    def _convert(self, place: int, given: Any, *, ll: bool = False) -> Meant | None:
        reading = self.readings[place]
        own = find_unit(reading.unit) if reading.unit else None
        if reading.target == "node" and given.kind == "kv":
            base_v = float(self._task.simulation.network.v_base[reading.where[0]])
            return Meant(place, 1000.0 * given.factor / (base_v * (3.0**0.5 if ll else 1.0)), 0.0)
        if reading.target == "loading" and given.kind == "a":
            amps = float(self._task.simulation.network.branches.norm_amps[reading.where[0]])
            return Meant(place, given.factor / amps, 0.0) if amps > 0.0 else None
        if own is None or own.kind != given.kind:
            return None
        return Meant(place, 1.0 if own.factor == given.factor else given.factor / own.factor, 0.0)

    def _enter(self, name: str, place: int) -> None:
        key = _strip(name)
        self._by_name.setdefault(key, [Meant(place, 1.0, 0.0)])
        self._by_stem.setdefault(self._stem_of(key), [place])
        if self.readings[place].target == "loading":
            self._by_stem.setdefault(key.replace(".loading_pu", ".i"), [place])

    @staticmethod
    def _stem_of(name: str) -> str:
        stem, unit = split_unit(_strip(name))
        return stem if unit is not None else _strip(name)

    def _enter_buses(self) -> None:
        """Let the name of a bus stand for all its nodes."""
        network = self._task.simulation.network
        place_of = {reading.where[0]: i for i, reading in enumerate(self.readings) if reading.target == "node"}
        neutral = network.is_neutral
        for node, bus in enumerate(network.node_bus.tolist()):
            if neutral[node]:
                continue
            key, place = network.buses[bus].lower(), place_of[node]
            self._by_name.setdefault(f"{key}.v_pu", []).append(Meant(place, 1.0, 0.0))
            for stem in (f"{key}.v", f"{key}.v_ll"):
                self._by_stem.setdefault(stem, []).append(place)

    def _enter_taps(self) -> None:
        """Let taps be given as the turns ratio as well."""
        task = self._task
        switchgear = task.simulation.circuits[0].switchgear
        for place, reading in enumerate(self.readings):
            if reading.target == "state" and reading.name.endswith(".tap"):
                spec = task.simulation.devices[reading.name[: -len(".tap")]]
                regulator = switchgear.regulators[switchgear.find_regulator(spec.element.lower(), spec.winding or 0)]
                step = float(regulator.step_pu)
                if step:
                    meant = Meant(place, 1.0 / step, -float(regulator.neutral_pu) / step)
                    self._by_name.setdefault(_strip(f"{reading.name}_pu"), [meant])

    # -- listing

    def _list_all(self) -> Iterator[Reading]:
        task = self._task
        n_known = task.channels.state().shape[2]
        apart = {*OF_TIME, *task.proposed, *(f"{s.device}.{s.name}" for f in task.simulation.fleets for s in f.states)}
        nodes = {f"{node}.v_pu" for node in task.simulation.network.nodes}
        for column, channel in enumerate(task.channels.table):
            if channel.name in apart:
                continue
            if channel.owner == "network" and channel.name.removeprefix("network.") in nodes:
                continue
            target = "known" if column < n_known else "channel"
            yield Reading(channel.name, channel.unit, *_widen(channel), channel.low, channel.high, target, (column,))
        yield from self._list_grid()
        yield from self._list_devices()

    def _list_grid(self) -> Iterator[Reading]:
        network = self._task.simulation.network
        b, loads, nan = network.branches, network.loads, float("nan")
        table = {channel.name: channel for channel in self._task.channels.table}
        for i, node in enumerate(network.nodes):
            seen = table.get(f"network.{node}.v_pu")
            told = (seen.low, seen.high) if seen else (nan, nan)
            yield Reading(f"{node}.v_pu", "pu", 0.0, _V_MOST_PU, *told, "node", (i,))
        most = _FLOW_FACTOR * max(float(np.hypot(loads.kw.sum(), loads.kvar.sum())), 50.0)
        first = np.searchsorted(b.terminal_branch, np.arange(len(b.names)))
        for terminal, branch in enumerate(b.terminal_branch.tolist()):
            nth = terminal - int(first[branch]) + 1
            name = b.names[branch] + (f".{nth}" if nth > 1 else "")
            into = f"into its terminal {nth}"
            yield Reading(f"{name}.p_kw", "kW", -most, most, nan, nan, "p", (terminal,), meaning=into)
            yield Reading(f"{name}.q_kvar", "kvar", -most, most, nan, nan, "q", (terminal,), meaning=into)
        for branch, name in enumerate(b.names):
            yield Reading(f"{name}.loading_pu", "pu", 0.0, _LOADING_MOST_PU, nan, nan, "loading", (branch,))
        for i, name in enumerate(loads.names):
            reach = _LOAD_FACTOR * max(float(np.hypot(loads.kw[i], loads.kvar[i])), 1.0)
            yield Reading(f"load.{name}.p_kw", "kW", -reach, reach, nan, nan, "load", (0, i))
            yield Reading(f"load.{name}.q_kvar", "kvar", -reach, reach, nan, nan, "load", (1, i))

    def _list_devices(self) -> Iterator[Reading]:
        nan, first_power = float("nan"), 0
        for f, fleet in enumerate(self._task.simulation.fleets):
            for s, (state, (attribute, device)) in enumerate(zip(fleet.states, fleet.held, strict=True)):
                name, told, whole = f"{state.device}.{state.name}", (state.low, state.high), state.name in _WHOLE
                if attribute in ("delivered_p_kw", "delivered_q_kvar"):
                    most = 2.0 * max(abs(state.low), abs(state.high), 1.0)
                    where = int(attribute == "delivered_q_kvar"), first_power + device
                    yield Reading(name, state.unit, -most, most, *told, "delivered", where)
                else:
                    slack = 0.0 if whole or state.unit == "pu" else 1e-6 + 0.5 * (state.high - state.low)
                    low, high = state.low, state.high + slack
                    yield Reading(name, state.unit, low, high, *told, "state", (f, s), whole)
            if fleet.kind == "generator":
                for device, name in enumerate(fleet.names):
                    most, meaning = 2.0 * float(fleet.specs[device].p_max_kw), "the setpoint of the last step"
                    yield Reading(f"{name}.set_p_kw", "kW", 0.0, most, nan, nan, "set_p", (f, device), meaning=meaning)
            if fleet.kind == "ev_charger":
                yield from _list_ports(f, fleet)
            if hasattr(fleet, "request"):
                first_power += fleet.n


def _list_ports(f: int, fleet: Any) -> Iterator[Reading]:
    """Yield what may be read of each port of charging stations."""
    nan = float("nan")
    for device, (name, spec) in enumerate(zip(fleet.names, fleet.specs, strict=True)):
        most, hours = 2.0 * spec.energy_max_kwh, spec.stay_hours_mean + 4.0 * spec.stay_hours_std
        for port in range(spec.ports):
            where, of = (f, device, port), f"{name}.port{port + 1}"
            steps = np.ceil(2.0 * hours / fleet.dt_h) + fleet.horizon_steps
            owed, left = "what the car still asks for", "until the car leaves, 0 without one"
            yield Reading(f"{of}.owed_kwh", "kWh", 0.0, most, nan, nan, "port_owed_kwh", where, meaning=owed)
            yield Reading(f"{of}.steps_left", "steps", 0.0, steps, nan, nan, "port_steps_left", where, True, left)
            if spec.v2g:
                asked = "what the car came with"
                yield Reading(f"{of}.asked_kwh", "kWh", 0.0, most, nan, nan, "port_asked_kwh", where, meaning=asked)


def _widen(channel: Any) -> tuple[float, float]:
    """Return the range outside of which a channel's number cannot be true."""
    if channel.name.endswith("_usd_per_kwh"):
        return -_PRICE_MOST, _PRICE_MOST
    if channel.unit == "pu" and "loading" in channel.name:
        return 0.0, _LOADING_MOST_PU
    if channel.unit == "pu" and channel.name != "world.sun_pu":
        return 0.0, _V_MOST_PU
    if channel.unit in ("kW", "kvar"):
        most = 2.0 * _FLOW_FACTOR * max(abs(channel.low), abs(channel.high), 1.0)
        return -most, most
    return channel.low, max(channel.high, 1.5 * channel.high)


def _strip(name: str) -> str:
    """Return a name as it is looked up: in lower case, without what it may begin with."""
    key = name.strip().lower()
    for prefix in _PREFIXES:
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key
