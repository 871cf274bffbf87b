"""The fleets of a simulation: devices by kind on a compiled circuit, and their places in its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.errors import FeederError
from powergrid.grid.circuit.circuit import Circuit, Injection
from powergrid.grid.circuit.own_controls import find_control_problems
from powergrid.grid.devices import FLEETS, ActionSpec, FlexibleLoadFleet, PowerFleet
from powergrid.grid.devices.fleet import POWER_NUMBERS
from powergrid.grid.devices.ledger import Ledger
from powergrid.grid.devices.projection import Projection
from powergrid.grid.options import SimulationOptions
from powergrid.grid.ratings import fill_ratings, find_shared_switchgear, find_switchgear

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ByKind = dict[str, dict[str, Any]]


class Fleets(NamedTuple):
    """All the fleets of a simulation.

    Attributes:
        devices: Spec of each device with its ratings, by kind, then as given.
        all: The fleets by kind.
        power: Those with power, each with its columns of the actions and its places among the injections.
        gear: Those of switchgear, each with its columns, its places in the circuit's arrays and its kind.
        actions: The actions of all devices, those that no agent moves included.
        ledger: The numbers of all devices, those with power first; the fleets' own arrays are parts of it.
        projection: Turns the actions of all devices with power into setpoints, None without any.
    """

    devices: dict[str, Any]
    all: list[Any]
    power: list[tuple[Any, slice, slice]]
    gear: list[tuple[Any, slice, IntArray, str]]
    actions: tuple[ActionSpec, ...]
    ledger: Ledger
    projection: Projection | None


def sort_devices(devices: Mapping[str, Any]) -> ByKind:
    """Return devices by kind, in the order of the tables."""
    return {kind: {n: s for n, s in devices.items() if s.kind == kind} for kind in FLEETS}


def place_devices(by_kind: ByKind) -> list[Injection]:
    """Say where the power of each device that has any goes, in the order of the tables."""
    return [
        _place(name, spec)
        for kind, cls in FLEETS.items()
        if issubclass(cls, PowerFleet)
        for name, spec in by_kind[kind].items()
    ]


def find_tapped_devices(by_kind: ByKind) -> list[tuple[str, int]]:
    """Return the transformers whose taps devices move, each with its winding or 0, in the order of the tables."""
    bound = [(spec.element.lower(), spec.winding or 0) for spec in by_kind["regulator"].values()]
    return [(element, winding) for element, winding in bound if not element.startswith("regcontrol.")]


def _place(name: str, spec: Any) -> Injection:
    element = getattr(spec, "element", None)
    if element:
        properties = ""
        if spec.kind == "storage" and spec.control == "opendss":  # so that its controller reckons with our energy
            properties = f"%reserve={100.0 * spec.soc_min:g}"
            properties += "" if spec.e_max_kwh is None else f" kwhrated={spec.e_max_kwh!r}"
        return Injection(name, element=element, properties=properties)
    return Injection(name, bus=spec.bus, phases=tuple(spec.phases), connection=spec.connection)


def build_fleets(
    by_kind: ByKind, circuit: Circuit, options: SimulationOptions, demand_max_pu: float, n_envs: int
) -> Fleets:
    """Make the fleets of devices on a circuit that carries them.

    Args:
        by_kind: What :func:`sort_devices` gave.
        circuit: A circuit with what :func:`place_devices` gave on it.
        options: Step, horizon and demand.
        demand_max_pu: Highest demand in the profiles, in parts of the nominal.
        n_envs: Number of environments.

    Raises:
        FeederError: an element or a control of the feeder that it lacks, or that is two devices' (all of them).
    """
    filled = _fill_devices(by_kind, circuit)
    loads = circuit.network.loads
    devices = {name: spec for group in filled.values() for name, spec in group.items()}
    names = [*POWER_NUMBERS, *(name for kind, cls in FLEETS.items() if filled[kind] for name in cls.numbers)]
    ledger = Ledger(names, n_envs, len(devices))
    fleets = Fleets(devices, [], [], [], (), ledger, None)
    actions: tuple[ActionSpec, ...] = ()
    first = 0
    for kind, cls in FLEETS.items():
        if not filled[kind]:
            continue
        extra = {}
        if issubclass(cls, FlexibleLoadFleet):
            bound = circuit.load_of_device[first : first + len(filled[kind])]
            rated_kw = loads.kw[bound]
            extra["q_per_kw"] = loads.kvar[bound] / np.maximum(rated_kw, 1e-9)
            extra["demand_max_kw"] = rated_kw * (demand_max_pu * options.load_scale)
        fleet = cls(filled[kind], options.step_minutes / 60.0, options.horizon_steps, **extra)
        columns = slice(len(actions), len(actions) + len(fleet.actions))
        actions += fleet.actions
        fleets.all.append(fleet)
        own = slice(first, first + fleet.n)
        first += fleet.n
        fleet.allocate(n_envs, ledger.part(own))
        if isinstance(fleet, PowerFleet):
            fleets.power.append((fleet, columns, own))
        else:
            places = np.array([find_switchgear(spec, circuit) for spec in fleet.specs])
            fleets.gear.append((fleet, columns, places, kind))
    projection = None
    if fleets.power:
        block = ledger.block(POWER_NUMBERS)[:4, :, : len(circuit.injections)]
        of_power, columns_of = [fleet for fleet, _, _ in fleets.power], [columns for _, columns, _ in fleets.power]
        projection = Projection(of_power, columns_of, block, len(actions))
    return fleets._replace(actions=actions, projection=projection)


def _fill_devices(by_kind: ByKind, circuit: Circuit) -> ByKind:
    """Complete the specs of bound devices with what their elements say."""
    problems: list[str] = []
    filled: ByKind = {}
    for kind, group in by_kind.items():
        filled[kind] = {}
        for name, spec in group.items():
            filled[kind][name], found = fill_ratings(name, spec, circuit)
            problems += found
    devices = {name: spec for group in filled.values() for name, spec in group.items()}
    problems += find_shared_switchgear(devices, circuit)
    problems += [f"device {line}" for line in find_control_problems(devices, circuit.network.controls)]
    if problems:
        raise FeederError(str(circuit.feeder.master), problems)
    return filled
