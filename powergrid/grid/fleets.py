"""The fleets of a simulation: devices by kind on a compiled circuit, and their places in its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import FeederError, ScenarioError
from powergrid.grid.circuit.circuit import Circuit, Injection
from powergrid.grid.circuit.own_controls import find_control_problems
from powergrid.grid.devices import FLEETS, ActionSpec, Exogenous, PowerFleet
from powergrid.grid.devices.fleet import PowerTable
from powergrid.grid.devices.spec import Rows
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.profiles import Profiles
from powergrid.grid.ratings import fill_ratings, find_shared_switchgear, find_switchgear

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ComplexArray = npt.NDArray[np.complex128]
ByKind = dict[str, dict[str, Any]]


class Fleets:
    """All the fleets of a simulation as one: actions in, setpoints out, and what the grid delivered back.

    Args:
        by_kind: What :func:`sort_devices` gave.
        circuit: A circuit with what :func:`place_devices` gave on it.
        options: Step, horizon and demand.
        profiles: The exogenous series.
        n_envs: Number of environments.

    Attributes:
        devices: Spec of each device with its ratings, by kind, then as given.
        all: The fleets by kind.
        power: Those with power, each with its places among the injections.
        table: What those were asked, set to and delivered.
        switchgear: Those of switchgear, each with its places in the circuit's arrays and its kind.
        actions: What agents decide.

    Raises:
        FeederError: an element or a control of the feeder that it lacks, or that is two devices' (all of them).
        ScenarioError: there are inverters and the profiles have no sun.
    """

    def __init__(
        self, by_kind: ByKind, circuit: Circuit, options: SimulationOptions, profiles: Profiles, n_envs: int
    ) -> None:
        filled = _fill_devices(by_kind, circuit)
        self._n_envs = n_envs
        self.devices = {name: spec for group in filled.values() for name, spec in group.items()}
        self.all: list[Any] = []
        self.power: list[tuple[Any, slice]] = []
        self.switchgear: list[tuple[Any, IntArray, str]] = []
        actions: list[ActionSpec] = []
        self._columns: list[tuple[Any, slice]] = []
        first = 0
        for kind, cls in FLEETS.items():
            if not filled[kind]:
                continue
            own = slice(first, first + len(filled[kind]))
            extra = _describe_loads(circuit, own, options, profiles) if kind == "flexible_load" else {}
            fleet = cls(filled[kind], options.step_minutes / 60.0, options.horizon_steps, n_envs, **extra)
            columns = slice(len(actions), len(actions) + len(fleet.actions))
            actions += fleet.actions
            self.all.append(fleet)
            self._columns.append((fleet, columns))
            first = own.stop
            if isinstance(fleet, PowerFleet):
                self.power.append((fleet, own))
            else:
                places = np.array([find_switchgear(spec, circuit) for spec in fleet.specs])
                self.switchgear.append((fleet, places, kind))
        of_power = self._columns[: len(self.power)]
        self._of_switchgear = self._columns[len(self.power) :]
        columns_of_power = [columns for _, columns in of_power]
        self.table = PowerTable([fleet for fleet, _ in of_power], columns_of_power, n_envs, len(actions))
        decided = [i for i, action in enumerate(actions) if self.devices[action.device].control == "agent"]
        self._decided = None if len(decided) == len(actions) else np.array(decided, dtype=np.int64)
        self.actions = tuple(actions[i] for i in decided)
        self._inverters = next((fleet for fleet in self.all if fleet.kind == "inverter"), None)
        self._flexible_loads = [
            circuit.load_of_device[own] for fleet, own in self.power if fleet.kind == "flexible_load"
        ]
        self._nothing = np.zeros((n_envs, 0))
        if self._inverters is not None and profiles.pv_pu is None:
            problem = "inverters need pv_pu, or irradiance_pu with temperature_c; the series have neither"
            raise ScenarioError(f"profiles {profiles.name!r}", [problem])

    def start_day(self, pv_pu: FloatArray, load_kw: FloatArray) -> None:
        """Lay out what the days offer each device, so that a step takes one row of it.

        Args:
            pv_pu: What the sun offers, in parts of the panels' rating, shape (n_envs, n_rows).
            load_kw: Demand of each load [kW], shape (n_envs, n_rows, n_loads).
        """
        if self._inverters is not None:
            p_max_kw = np.array([float(spec.p_max_kw) for spec in self._inverters.specs])
            self._sun_kw = pv_pu.reshape(-1, 1) * p_max_kw
        if self._flexible_loads:
            self._demand_kw = load_kw.reshape(-1, load_kw.shape[2])[:, self._flexible_loads[0]]

    def look_out(self, step: IntArray, row: IntArray) -> Exogenous:
        """Return what a step of the days offers, the rows of all environments' days laid end to end."""
        sun_kw = self._nothing if self._inverters is None else self._sun_kw.take(row, 0)
        demand_kw = self._demand_kw.take(row, 0) if self._flexible_loads else self._nothing
        return Exogenous(step, sun_kw, demand_kw)

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the agents' actions that leave every device to itself, shape (n_envs, n_actions)."""
        action = self._neutral(exo)
        return action if self._decided is None else action[:, self._decided]

    def _neutral(self, exo: Exogenous) -> FloatArray:
        """Return the same for all devices, those that no agent moves included."""
        parts = [fleet.neutral(exo) for fleet in self.all]
        return np.concatenate(parts, axis=1) if parts else self._nothing

    def project(self, action: FloatArray, exo: Exogenous) -> None:
        """Turn the agents' actions, shape (n_envs, n_actions), into feasible setpoints and positions."""
        if self._decided is not None:
            decided, action = action, self._neutral(exo)
            action[:, self._decided] = decided
        self.table.project(action, exo)
        for fleet, columns in self._of_switchgear:
            fleet.project(action[:, columns], exo)

    def leave_alone(self, rows: Rows, exo: Exogenous) -> None:
        """Set the neutral power of some environments' devices; those of the others keep what they were set to."""
        others = np.ones(self._n_envs, dtype=bool)
        others[rows] = False
        table = self.table
        before = [{name: getattr(fleet, name) for name in fleet.limited} for fleet, _ in self.power]
        powers = table.state()
        table.project(self._neutral(exo), exo)
        if not others.any():
            return
        for name, array in powers.items():
            getattr(table, name)[:, others] = array[:, others]
        for (fleet, _), kept in zip(self.power, before, strict=True):
            for name, array in kept.items():
                getattr(fleet, name)[others] = array[others]

    def start(self, rows: Rows, device_kva: ComplexArray, exo: Exogenous) -> None:
        """Take what the devices of some environments delivered before the first step, shape (n_envs, n_devices)."""
        self.table.delivered[:, rows] = device_kva[rows].real, device_kva[rows].imag
        for fleet, _ in self.power:
            if fleet.kind == "flexible_load":
                fleet.demand_kw[rows] = exo.demand_kw[rows]

    def advance(self, device_kva: ComplexArray, exo: Exogenous) -> None:
        """Move on by one step in which the devices delivered some powers [kVA], shape (n_envs, n_devices)."""
        self.table.advance(device_kva, exo)
        for fleet, _ in self._of_switchgear:
            fleet.advance(exo)


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


def _describe_loads(
    circuit: Circuit, own: slice, options: SimulationOptions, profiles: Profiles
) -> dict[str, FloatArray]:
    """Return what a fleet of flexible loads has to know of the loads that it is."""
    loads, bound = circuit.network.loads, circuit.load_of_device[own]
    rated_kw = loads.kw[bound]
    return {
        "q_per_kw": loads.kvar[bound] / np.maximum(rated_kw, 1e-9),
        "demand_max_kw": rated_kw * (profiles.demand_pu.max() * options.load_scale),
    }


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
