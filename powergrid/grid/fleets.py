"""The fleets of a simulation: devices by kind on a compiled circuit, their ratings and their places in its arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import FeederError, Problem, ScenarioError
from powergrid.grid.circuit.circuit import Circuit, Injection
from powergrid.grid.circuit.own.controls import find_control_problems
from powergrid.grid.devices import FLEETS, ActionSpec, Exogenous, PowerFleet
from powergrid.grid.devices.fleet import PowerTable
from powergrid.grid.devices.spec import DeviceSpec, Rows
from powergrid.grid.feeder.network import Network
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.episode_days import Days

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ComplexArray = npt.NDArray[np.complex128]
ByKind = dict[str, dict[str, Any]]

#: How far a setpoint must be moved to count [kW, kvar].
_NOTICED = 1e-6
_SWITCHGEAR = ("capacitor", "regulator", "switch")
#: Limits of elements that may be 0; a rating of 0 is none.
_MAY_BE_0 = ("q_inject_max_kvar", "q_absorb_max_kvar")


class Fleets:
    """All the fleets of a simulation as one: actions in, setpoints out, and what the grid delivered back.

    Args:
        by_kind: What :func:`sort_devices` gave.
        circuit: A circuit with what :func:`place_devices` gave on it.
        options: Step, horizon and demand.
        days: The days that are played.
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

    def __init__(self, by_kind: ByKind, circuit: Circuit, options: SimulationOptions, days: Days, n_envs: int) -> None:
        filled = _fill_devices(by_kind, circuit)
        self._n_envs = n_envs
        self.devices = {name: spec for group in filled.values() for name, spec in group.items()}
        self.all: list[Any] = []
        self.power: list[tuple[Any, slice]] = []
        self.switchgear: list[tuple[Any, IntArray, str]] = []
        self._columns: list[tuple[Any, slice]] = []
        self._kvar_per_kw = np.zeros(0)
        self._extra = dict[str, dict[str, Any]]()
        self._own_numbers = False
        self._own_kvar_per_kw: FloatArray | None = None
        actions = self._build(filled, circuit, options, days)
        of_power = self._columns[: len(self.power)]
        self._of_switchgear = self._columns[len(self.power) :]
        columns_of_power = [columns for _, columns in of_power]
        self.table = PowerTable([fleet for fleet, _ in of_power], columns_of_power, n_envs, len(actions))
        decided = [i for i, action in enumerate(actions) if self.devices[action.device].control == "agent"]
        self._decided = None if len(decided) == len(actions) else np.array(decided, dtype=np.int64)
        self.actions = tuple(actions[i] for i in decided)
        self._inverters, self._generators, self._buildings = (
            next((fleet for fleet in self.all if fleet.kind == kind), None)
            for kind in ("inverter", "generator", "building")
        )
        self._sun_pu: FloatArray | None = None
        self._supplied_kw: FloatArray | None = None
        self._flexible_loads = [
            circuit.load_of_device[own] for fleet, own in self.power if fleet.kind == "flexible_load"
        ]
        self._nothing = np.zeros((n_envs, 0))
        if self._inverters is not None and days.profiles.pv_pu is None:
            problem = "inverters need pv_pu, or irradiance_pu with temperature_c; the series have neither"
            raise ScenarioError(f"profiles {days.profiles.name!r}", [problem])

    def _build(self, filled: ByKind, circuit: Circuit, options: SimulationOptions, days: Days) -> list[ActionSpec]:
        """Build the fleets, power before switchgear, and return what all of their devices can be asked."""
        actions: list[ActionSpec] = []
        first, dt_h = 0, options.step_minutes / 60.0
        for kind, cls in FLEETS.items():
            if not filled[kind]:
                continue
            own = slice(first, first + len(filled[kind]))
            extra = _describe_loads(circuit, own, days) if kind == "flexible_load" else {}
            self._extra[kind] = extra
            self._kvar_per_kw = extra.get("q_per_kw", self._kvar_per_kw)
            fleet = cls(filled[kind], dt_h, options.horizon_steps, self._n_envs, **extra)
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
        return actions

    def start_day(self, days: Days) -> None:
        """Lay out what the days offer each device, so that a step takes one row of it."""
        if self._inverters is not None:
            p_max_kw = self._rated_kw(self._inverters, days)
            self._sun_kw = days.pv_pu.reshape(-1, 1) * p_max_kw
            if days.offered is not None:
                own_kw = days.offered.reshape(self._sun_kw.shape) * np.where(days.says_kw[0], 1.0, p_max_kw)
                self._sun_kw = np.where(np.isnan(own_kw), self._sun_kw, own_kw)
        if self._buildings is not None:
            self._sun_pu = days.pv_pu.reshape(-1)
        if self._generators is not None and days.supplied is not None:
            p_max_kw = self._rated_kw(self._generators, days)
            own_kw = days.supplied.reshape(-1, p_max_kw.shape[-1]) * np.where(days.says_kw[1], 1.0, p_max_kw)
            self._supplied_kw = np.where(np.isnan(own_kw), np.inf, own_kw)
        if self._flexible_loads:
            kw, kvar = (each[:, self._flexible_loads[0]] for each in days.load_rows)
            # Where kvar have a series of their own, each row has its own power factor.
            own = np.divide(kvar, kw, out=np.tile(self._kvar_per_kw, (len(kw), 1)), where=np.abs(kw) > 1e-9)
            self._demand_kw, self._own_kvar_per_kw = kw, None if np.allclose(own, self._kvar_per_kw) else own

    def _rated_kw(self, fleet: Any, days: Days) -> FloatArray:
        """Return what devices are rated for [kW], shape (n,), or row by row of the days where environments differ."""
        if not self._own_numbers:
            return np.array([float(spec.p_max_kw) for spec in fleet.specs])
        of_envs = [[float(spec.p_max_kw) for spec in fleet.specs_of(env)] for env in range(self._n_envs)]
        return np.repeat(np.array(of_envs), days.pv_pu.shape[1], axis=0)

    def take_numbers(self, env: int, numbers: Mapping[str, Mapping[str, Any]]) -> None:
        """Let devices of one environment have numbers of their own from its next reset on.

        Args:
            env: Which environment.
            numbers: By device, values by key; all others have those of their spec.
        """
        self._own_numbers, powers = True, {id(fleet): own for fleet, own in self.power}
        for fleet in self.all:
            own = {
                name: type(spec).model_validate({**spec.model_dump(), **numbers[name]}) if name in numbers else spec
                for name, spec in zip(fleet.names, fleet.specs, strict=True)
            }
            if tuple(own.values()) != fleet.specs_of(env):
                one = fleet.take_specs(env, own, **self._extra[fleet.kind])
                if id(fleet) in powers:
                    self.table.take_ratings(env, powers[id(fleet)], one.circle)

    def start_at(self, env: int, hour: float, first_step: int) -> None:
        """Tell the devices of one environment at what hour of the day, and with which step of it, it starts."""
        for fleet in self.all:
            if fleet.kind == "ev_charger":
                fleet.start_hour[env] = hour
            elif fleet.kind == "building":
                fleet.first_step[env] = first_step

    def look_out(self, step: IntArray, row: IntArray) -> Exogenous:
        """Return what a step of the days offers, the rows of all environments' days laid end to end."""
        sun_kw = self._nothing if self._inverters is None else self._sun_kw.take(row, 0)
        demand_kw = self._demand_kw.take(row, 0) if self._flexible_loads else self._nothing
        own = self._own_kvar_per_kw
        supplied = None if self._supplied_kw is None else self._supplied_kw.take(row, 0)
        sun_pu = None if self._sun_pu is None else self._sun_pu.take(row)
        return Exogenous(step, sun_kw, demand_kw, None if own is None else own.take(row, 0), supplied, sun_pu)

    def neutral(self, exo: Exogenous) -> FloatArray:
        """Return the agents' actions that leave every device to itself, shape (n_envs, n_actions)."""
        action = self._neutral(exo)
        return action if self._decided is None else action[:, self._decided]

    def _neutral(self, exo: Exogenous) -> FloatArray:
        """Return the same for all devices, those that no agent moves included."""
        parts = [fleet.neutral(exo) for fleet in self.all]
        return np.concatenate(parts, axis=1) if parts else self._nothing

    def reach(self, held: Callable[[BoolArray], BoolArray | None]) -> tuple[FloatArray, FloatArray]:
        """Return the least and the most that each agents' action can ask now and get, shape (n_envs, n_actions) each.

        Args:
            held: Says which switches rules of switching would hold, of those that may move, shape (n_envs, n_switches).
        """
        parts = []
        for fleet in self.all:
            least, most = fleet.reach()
            if fleet.kind == "switch":
                decided = np.array([spec.control == "agent" for spec in fleet.specs])
                keeps = held((least < most) & decided)
                if keeps is not None:
                    stands = fleet.previous_position.astype(np.float64)
                    least, most = (np.where(keeps, stands, each) for each in (least, most))
            parts.append((least, most))
        if not parts:
            return self._nothing, self._nothing
        whole = tuple(np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        least, most = whole if self._decided is None else (each[:, self._decided] for each in whole)
        return least, most

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

    def settings(self, rows: IntArray) -> list[npt.NDArray[Any]]:
        """Copy what the devices of some environments are set to in this step."""
        limited = [getattr(fleet, name)[rows] for fleet, _ in self.power for name in fleet.limited]
        return [self.table.setpoints[:, rows], *limited, *(fleet.position[rows] for fleet, _, _ in self.switchgear)]

    def set_again(self, rows: IntArray, settings: list[npt.NDArray[Any]], chosen: BoolArray) -> None:
        """Put :meth:`settings` back in those environments of them that are chosen."""
        powers, *others = settings
        self.table.setpoints[:, rows[chosen]] = powers[:, chosen]
        homes = [(fleet, name) for fleet, _ in self.power for name in fleet.limited]
        homes += [(fleet, "position") for fleet, _, _ in self.switchgear]
        for (fleet, name), kept in zip(homes, others, strict=True):
            getattr(fleet, name)[rows[chosen]] = kept[chosen]

    def hand_back(self, rows: IntArray, exo: Exogenous, native: Fleets) -> FloatArray:
        """Set the agents' devices of some environments to what they do where the feeder is left to itself.

        Switchgear goes to where it stands there. Those with power are left to themselves; an element of the feeder does
        what the model has it do there, as far as its energy here allows.

        Args:
            rows: The environments.
            exo: What the step offers; actions were projected before.
            native: The same devices there, after the same step.

        Returns:
            1 where a device is set to something else than before, shape (n_rows, n_devices).
        """
        table = self.table
        asked, before = table.requested[:, rows], table.setpoints[:, rows]
        self.leave_alone(rows, exo)
        self._follow_model(rows, native)
        table.requested[:, rows] = asked  # what was asked stays what was asked
        changed = [(np.abs(table.setpoints[:, rows] - before) > _NOTICED).any(axis=0)]
        for (fleet, _, kind), (theirs, _, _) in zip(self.switchgear, native.switchgear, strict=True):
            decided, frozen = (
                np.array([spec.control == control for spec in fleet.specs]) for control in ("agent", "frozen")
            )
            was, goal = fleet.position[rows], np.where(frozen, fleet.position[rows], theirs.position[rows])
            if kind == "switch":  # what protection holds open stays open
                goal = np.minimum(goal, fleet.highest[rows])
            fleet.position[rows] = goal
            changed.append((goal != was) & decided)
        return np.concatenate(changed, axis=1).astype(np.float64)

    def _follow_model(self, rows: IntArray, native: Fleets) -> None:
        """Let elements of the feeder that are agents' do what the model has them do in other fleets."""
        for fleet, own in self.power:
            moved = [
                i
                for i, (name, spec) in enumerate(zip(fleet.names, fleet.specs, strict=True))
                if spec.control == "agent" and native.devices[name].control == "model"
            ]
            if not moved:
                continue
            here, there = np.ix_(rows, np.array(moved)), np.ix_(rows, own.start + np.array(moved))
            p_kw, q_kvar = native.table.delivered[0][there], native.table.delivered[1][there]
            if fleet.kind == "storage":
                p_kw = np.minimum(np.maximum(p_kw, fleet.room_kw[0][here]), fleet.room_kw[1][here])
            if fleet.kind == "generator":
                fleet.next_on[here] = p_kw != 0.0
            self.table.p_kw[there], self.table.q_kvar[there] = p_kw, q_kvar

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
        if spec.control == "model":
            return Injection(name, element=element, as_modelled=True)
        properties, led = "", spec.kind == "storage" and spec.control == "opendss"
        if led:  # so that its controller reckons with our energy
            properties = f"%reserve={100.0 * spec.soc_min:g}"
            properties += "" if spec.e_max_kwh is None else f" kwhrated={spec.e_max_kwh!r}"
        return Injection(name, element=element, properties=properties, led=led)
    return Injection(name, bus=spec.bus, phases=tuple(spec.phases), connection=spec.connection)


def _describe_loads(circuit: Circuit, own: slice, days: Days) -> dict[str, FloatArray]:
    """Return what a fleet of flexible loads has to know of the loads that it is."""
    bound = circuit.load_of_device[own]
    base_kw, base_kvar = (base[bound] for base in days.load_base)
    return {
        "q_per_kw": base_kvar / np.maximum(base_kw, 1e-9),
        "demand_max_kw": days.load_max_kw[bound],
    }


def find_device_problems(devices: Mapping[str, Any], network: Network, where: str = "device {!r}") -> Iterator[Problem]:
    """Yield what devices refer to and a feeder lacks: buses and their phases, elements, controls of the feeder's own.

    Args:
        devices: Spec of each device by name.
        network: The feeder's network.
        where: Names the place of a problem, given the device's name.
    """
    found: list[int | Problem] = []
    for name, spec in devices.items():
        if (bus := getattr(spec, "bus", None)) is not None:
            found.append(network.find_bus(bus, getattr(spec, "phases", ()), where.format(name)))
        if (element := getattr(spec, "element", None)) is not None:
            found.append(network.find_element(element, where.format(name)))
    yield from (each for each in found if isinstance(each, Problem))
    bound = {where.format(name): spec for name, spec in devices.items() if getattr(spec, "element", None)}
    yield from find_control_problems(bound, network.controls)


def _fill_devices(by_kind: ByKind, circuit: Circuit) -> ByKind:
    """Complete the specs of bound devices with what their elements say."""
    devices = {name: spec for group in by_kind.values() for name, spec in group.items()}
    problems = [*find_device_problems(devices, circuit.network)]
    filled: ByKind = {}
    for kind, group in by_kind.items():
        filled[kind] = {}
        for name, spec in group.items():
            filled[kind][name], found = _fill_ratings(name, spec, circuit)
            problems += found
    problems += _find_shared_switchgear(devices, circuit)
    if problems:
        raise FeederError(str(circuit.feeder.master), problems)
    return filled


def _fill_ratings(name: str, spec: Any, circuit: Circuit) -> tuple[Any, list[Problem]]:
    """Complete a bound device's spec with what its element says; keys the user gave stay.

    Returns:
        The completed spec, and what is wrong with it on its element; one that the feeder lacks is told elsewhere.
    """
    element = (getattr(spec, "element", None) or "").lower()
    if not element or isinstance(circuit.network.find_element(element), Problem):
        return spec, []
    if spec.kind in _SWITCHGEAR:
        return _fill_switchgear(name, spec, circuit)
    found = circuit.ratings.get(name, {})
    update = {key: value for key, value in found.items() if _open(spec, key) and (value > 0.0 or key in _MAY_BE_0)}
    return spec.model_copy(update=update), []


def find_switchgear(spec: Any, circuit: Circuit) -> int:
    """Return the place of a capacitor, regulator or switch in the circuit's own arrays, -1 where it has none."""
    if spec.kind == "regulator":
        return circuit.switchgear.find_regulator(spec.element.lower(), spec.winding or 0)
    found = circuit.network.find_element(spec.element)
    return -1 if isinstance(found, Problem) else found


def _find_shared_switchgear(devices: Mapping[str, Any], circuit: Circuit) -> list[Problem]:
    """List the devices whose capacitor, regulator or switch is another device's already."""
    problems, owner = [], dict[tuple[str, int], str]()
    for name, spec in devices.items():
        if spec.kind in _SWITCHGEAR and (place := find_switchgear(spec, circuit)) >= 0:
            first = owner.setdefault((spec.kind, place), name)
            if first != name:
                text = f"{spec.element} already belongs to device {first!r}"
                problems.append(Problem("name-taken", f"device {name!r}", text))
    return problems


def _fill_switchgear(name: str, spec: Any, circuit: Circuit) -> tuple[Any, list[Problem]]:
    index, where = find_switchgear(spec, circuit), f"device {name!r}"
    if index < 0:  # a transformer, of which no winding can be moved
        problem = circuit.switchgear.find_winding_problem(spec.element, spec.winding)
        return spec, [Problem("unknown-winding", where, f"{spec.element}: {problem}")]
    update: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    if spec.kind == "capacitor":
        update = {"steps": int(circuit.switchgear.steps_max[index]), "steps_initial": int(circuit.steps_on[index])}
        limits = {"steps": int(circuit.switchgear.steps_max[index])}
    elif spec.kind == "regulator":
        limits = {"tap_min": int(circuit.switchgear.tap_min[index]), "tap_max": int(circuit.switchgear.tap_max[index])}
        update = {"tap_initial": int(circuit.taps[index])} | limits
    else:
        update = {"closed_initial": bool(circuit.closed[index])}
    update = {key: value for key, value in update.items() if _open(spec, key)}
    if spec.control == "opendss":  # the feeder's control knows no limits but the element's
        update |= limits
    elif beyond := _find_beyond(spec, limits):
        return spec, [Problem("bad-value", where, f"{problem} of {spec.element}") for problem in beyond]
    filled = spec.model_copy(update=update)
    if spec.kind == "switch":
        return filled, []
    key, ends = ("tap_initial", "tap_min..tap_max") if spec.kind == "regulator" else ("steps_initial", "0..steps")
    (low, high), starts = filled.range if spec.kind == "regulator" else (0, filled.steps), getattr(filled, key)
    if low <= starts <= high:
        return filled, []
    whose = "" if getattr(spec, key) is not None else f", where the feeder starts; give {key}"
    given = f"{key} {starts} is outside {ends} = {low}..{high} of {spec.element}{whose}"
    return filled, [Problem("bad-value", where, given)]


def _find_beyond(spec: Any, limits: Mapping[str, Any]) -> list[str]:
    """Return the limits of a spec that its element cannot reach: moves there would be counted and never made."""
    if spec.kind == "capacitor" and spec.steps is not None and spec.steps > limits["steps"]:
        return [f"steps {spec.steps} are more than the {limits['steps']}"]
    low, high = limits.get("tap_min", 0), limits.get("tap_max", 0)
    given = {key: getattr(spec, key) for key in ("tap_min", "tap_max") if key in limits}
    return [
        f"{key} {tap} is outside {low}..{high}"
        for key, tap in given.items()
        if tap is not None and not low <= tap <= high
    ]


def _open(spec: DeviceSpec, key: str) -> bool:
    """Whether a spec has a key and leaves it to the element."""
    return key in type(spec).model_fields and getattr(spec, key) is None
