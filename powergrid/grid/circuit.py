"""A compiled feeder with devices on it: names to handles once, then bulk writes, one solve, bulk reads.

Knows neither time nor devices' physics: it takes setpoints and gives back what the solved circuit delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from powergrid.errors import EngineError, FeederError, describe_unknown
from powergrid.grid.engine import ComplexArray, Engine, FloatArray, Handle, IntArray, PowerReader
from powergrid.grid.feeder import Feeder
from powergrid.grid.network import Branches, Loads, Network

BoolArray = npt.NDArray[np.bool_]

#: Delivering element classes, in the order of the branch table; the last two count for losses only.
_BRANCH_CLASSES = ("Line", "Transformer", "AutoTrans", "Reactor", "Capacitor")
_BINDABLE = ("Load", "Generator", "Storage", "PVSystem", "Capacitor", "Transformer", "RegControl", "Line")
#: Classes that can carry a device's power, and the properties its active and reactive power go to.
_INJECTION_PROPERTIES = {
    "Generator": ("kW", "kvar"),
    "Storage": ("kW", "kvar"),
    "PVSystem": ("Irradiance", "kvar"),
    "Load": ("kW", "kvar"),
}
_SANE_V_PU = 5.0
TAP_STEP_PU = 0.00625


@dataclass(frozen=True)
class Injection:
    """Where a device puts its power: on an element of the feeder, or at a bus through one that is added.

    Attributes:
        name: The device's name.
        element: ``Class.name`` of an element that the feeder has, or empty.
        bus: Bus name where an element is added, or empty.
        phases: Phase numbers at that bus.
        connection: ``wye`` or ``delta``.
    """

    name: str
    element: str = ""
    bus: str = ""
    phases: tuple[int, ...] = (1, 2, 3)
    connection: str = "wye"


@dataclass
class Snapshot:
    """The solved state of n environments; the first axis is the environment.

    Attributes:
        v_pu: Node voltage magnitudes [pu], shape (n_envs, n_nodes).
        v: Node voltage phasors with ground first [V], shape (n_envs, n_nodes + 1).
        loading_pu: Branch current over normal rating, 0 where unrated, shape (n_envs, n_branches).
        terminal_kva: Complex power into each branch terminal [kVA], shape (n_envs, n_terminals).
        device_kva: Complex power each device delivered into the grid [kVA], shape (n_envs, n_devices).
        losses_kw: Losses of all delivering elements [kW], shape (n_envs,).
        source_kva: Complex power imported from the sources [kVA], shape (n_envs,).
        converged: Whether the last solve converged, shape (n_envs,).
    """

    v_pu: FloatArray
    v: ComplexArray
    loading_pu: FloatArray
    terminal_kva: ComplexArray
    device_kva: ComplexArray
    losses_kw: FloatArray
    source_kva: ComplexArray
    converged: BoolArray

    @classmethod
    def allocate(cls, n_envs: int, network: Network, n_devices: int) -> Snapshot:
        """Make a snapshot of zeros of the right shapes."""
        n_nodes, b = len(network.nodes), network.branches
        return cls(
            v_pu=np.zeros((n_envs, n_nodes)),
            v=np.zeros((n_envs, n_nodes + 1), dtype=complex),
            loading_pu=np.zeros((n_envs, len(b.names))),
            terminal_kva=np.zeros((n_envs, len(b.terminal_rows)), dtype=complex),
            device_kva=np.zeros((n_envs, n_devices), dtype=complex),
            losses_kw=np.zeros(n_envs),
            source_kva=np.zeros(n_envs, dtype=complex),
            converged=np.zeros(n_envs, dtype=bool),
        )


def compile_feeder(feeder: Feeder, engine: Engine) -> None:
    """Build a feeder in an engine, command by command.

    Raises:
        FeederError: OpenDSS refused a command; with file, line, number and text.
    """
    engine.clear()
    folder = None
    try:
        for command in feeder.commands:
            if command.file.parent != folder:
                folder = command.file.parent
                engine.set_folder(folder)
            try:
                engine.command(command.text)
            except EngineError as error:
                raise FeederError(command.where, [f"{command.text.strip()!r}: {error}"]) from None
    finally:
        engine.leave_folder()


class Circuit:
    """One feeder in one engine, with handles for everything that is written or read while stepping.

    Args:
        feeder: The feeder to compile.
        injections: Where the devices' power goes, in the order of all device arrays.
        tolerance: Convergence tolerance of the power flow [pu].
        max_iterations: Limit of power-flow and control iterations.

    Raises:
        FeederError: the feeder does not compile or does not converge as it stands, or an injection names
            a bus or element that it lacks (all of them at once, with the nearest names).
    """

    def __init__(
        self,
        feeder: Feeder,
        injections: Sequence[Injection] = (),
        *,
        tolerance: float = 1e-5,
        max_iterations: int = 100,
    ) -> None:
        self.feeder = feeder
        self.injections = tuple(injections)
        self._tolerance = tolerance
        self._max_iterations = max_iterations
        self.engine = Engine()
        compile_feeder(feeder, self.engine)
        for class_name in ("EnergyMeter", "Monitor"):
            if self.engine.handles(class_name):
                self.engine.command(f"batchedit {class_name}..* enabled=no")
        self.engine.prepare(tolerance=tolerance, max_iterations=max_iterations)
        self._handles = {name: self.engine.handles(name) for name in (*_BINDABLE, "AutoTrans", "Reactor", "Vsource")}
        bus_kv = {entry["Name"].lower(): float(entry.get("kVLN", 0.0)) for entry in self.engine.to_json()["Bus"]}
        self._add_injections(bus_kv)
        self._solve_start()
        self.network = _describe(self.engine, self._handles, bus_kv)
        self._bind_matrices()
        self._bind_writers()
        self._bind_switchgear()
        self._keep_start()

    # -- building

    def _add_injections(self, bus_kv: dict[str, float]) -> None:
        problems: list[str] = []
        self._targets: list[tuple[str, Handle]] = []
        for injection in self.injections:
            if injection.element:
                problems += self._bind_element(injection)
            else:
                problems += self._add_element(injection, bus_kv)
        if problems:
            raise FeederError(str(self.feeder.master), problems)
        added = self.engine.handles("Generator")
        self._targets = [(c, added[h] if isinstance(h, str) else h) for c, h in self._targets]

    def _bind_element(self, injection: Injection) -> list[str]:
        class_name, _, name = injection.element.partition(".")
        known = next((c for c in _INJECTION_PROPERTIES if c.lower() == class_name.lower()), None)
        if known is None:
            return [f"device {injection.name!r}: {describe_unknown('element class', class_name, _INJECTION_PROPERTIES)}"]
        if name.lower() not in self._handles[known]:
            return [f"device {injection.name!r}: {describe_unknown(known, name, self._handles[known])}"]
        handle = self._handles[known][name.lower()]
        if known == "Storage":
            self.engine.command(f"edit Storage.{name} %stored=50 %reserve=0 state=idling")
        self._targets.append((known, handle))
        return []

    def _add_element(self, injection: Injection, bus_kv: dict[str, float]) -> list[str]:
        bus = injection.bus.lower()
        if bus not in bus_kv:
            return [f"device {injection.name!r}: {describe_unknown('bus', injection.bus, bus_kv)}"]
        name = f"powergrid_{injection.name.lower()}"
        delta = injection.connection == "delta"
        n_phases = 1 if delta and len(injection.phases) == 2 else len(injection.phases)
        kv = bus_kv[bus] * (1.0 if n_phases == 1 and not delta else 3.0**0.5)
        if kv <= 0.0:
            return [f"device {injection.name!r}: bus {injection.bus!r} has no base voltage (CalcVoltageBases missing?)"]
        nodes = ".".join(str(phase) for phase in injection.phases)
        self.engine.command(
            f"new Generator.{name} bus1={bus}.{nodes} phases={n_phases} conn={injection.connection} kv={kv!r} "
            "kw=0 kvar=0 model=1 vminpu=0.2 vmaxpu=2 maxkvar=1e9 minkvar=-1e9"
        )
        self._targets.append(("Generator", name))  # the handle is taken when all are there
        return []

    def _solve_start(self) -> None:
        """Solve the feeder as it stands, its own controls free: the start of every episode."""
        for _ in range(3):
            if self.engine.solve(controls=True):
                return
        if not self.engine.solve():
            raise FeederError(str(self.feeder.master), ["the power flow does not converge at nominal demand"])

    def _bind_matrices(self) -> None:
        """Build the one sparse matrix that gives all branch currents from the node voltages."""
        branches = self.network.branches
        blocks = [self.engine.yprim(handle) for handle in self._branch_handles()]
        sizes = [len(block) for block in blocks]
        ends = np.concatenate([[first + n for _ in range(n)] for first, n in zip(branches.branch_rows, sizes, strict=True)])
        starts = np.concatenate([[first] * n for first, n in zip(branches.branch_rows, sizes, strict=True)])
        columns = [branches.row_node[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        indptr = np.concatenate([[0], np.cumsum([len(c) for c in columns])])
        n_nodes = len(self.network.nodes)
        self._yprim = csr_array(
            (np.concatenate([block.ravel() for block in blocks]), np.concatenate(columns), indptr),
            shape=(len(branches.row_node), n_nodes + 1),
        )
        first = np.cumsum([0, *[n * n for n in sizes]])
        self._yprim_slices = [slice(int(a), int(b)) for a, b in zip(first[:-1], first[1:], strict=True)]
        self._v = self.engine.voltages(n_nodes)
        self._v_pu_scale = 1.0 / self.network.v_base
        self._v_limit = _SANE_V_PU * float(self.network.v_base.max())
        self._row_node = branches.row_node
        rated = np.where(branches.norm_amps > 0.0, branches.norm_amps, np.inf)
        first_terminal = np.searchsorted(branches.terminal_branch, np.arange(len(branches.names)))
        self._loading_starts = branches.terminal_rows[first_terminal]
        n_rows = np.append(branches.terminal_rows, len(branches.row_node))[first_terminal + 1] - self._loading_starts
        self._loading_rows = np.concatenate(
            [np.arange(a, a + n) for a, n in zip(self._loading_starts.tolist(), n_rows.tolist(), strict=True)]
        )
        self._loading_starts = np.cumsum([0, *n_rows[:-1].tolist()])
        self._per_rating = 1.0 / rated

    def _branch_handles(self) -> list[Handle]:
        return [self._handles[c][n] for c, n in (_split(name) for name in self.network.branches.names)]

    def _bind_writers(self) -> None:
        loads = list(self._handles["Load"].values())
        self._load_kw = self.engine.bulk_writer("Load", "kW", loads) if loads else None
        self._load_kvar = self.engine.bulk_writer("Load", "kvar", loads) if loads else None
        position = {id_: i for i, id_ in enumerate(self._handles["Load"])}
        self.load_of_device = np.full(len(self._targets), -1)
        groups: dict[str, list[int]] = {}
        for device, ((class_name, _), injection) in enumerate(zip(self._targets, self.injections, strict=True)):
            if class_name == "Load":
                self.load_of_device[device] = position[injection.element.partition(".")[2].lower()]
            else:
                groups.setdefault(class_name, []).append(device)
        self._groups = []
        for class_name, devices in groups.items():
            p_name, q_name = _INJECTION_PROPERTIES[class_name]
            handles = [self._targets[device][1] for device in devices]
            scale = np.ones(len(devices))
            if class_name == "PVSystem":
                scale = np.array([1.0 / self.engine.get_float(h, "PVSystem", "Pmpp") for h in handles])
            p_writer = self.engine.bulk_writer(class_name, p_name, handles)
            q_writer = self.engine.bulk_writer(class_name, q_name, handles)
            self._groups.append((np.array(devices), scale, p_writer, q_writer))
        sources = list(self._handles["Vsource"].values())
        self._n_sources = len(sources)
        self._powers = PowerReader([*sources, *[handle for _, handle in self._targets]])

    def _bind_switchgear(self) -> None:
        engine, branch_index = self.engine, {name: i for i, name in enumerate(self.network.branches.names)}
        self._tap_property = engine.property_index("Transformer", "Tap")
        self._winding_property = engine.property_index("Transformer", "Wdg")
        self._states_property = engine.property_index("Capacitor", "States")
        self._regulators = []
        for control, transformer in zip(self.network.regulator_controls, self.network.regulators, strict=True):
            winding = self._control_winding(control)
            branch = branch_index[f"transformer.{transformer}"]
            self._regulators.append((self._handles["Transformer"][transformer], winding, branch))
        self._capacitors = [
            (handle, engine.get_int(handle, "Capacitor", "NumSteps"), branch_index[f"capacitor.{name}"])
            for name, handle in self._handles["Capacitor"].items()
        ]
        self._switches = [
            (self._handles["Line"][name], branch_index[f"line.{name}"]) for name in self.network.switches
        ]
        self.taps = self.read_taps()
        self.steps_on = self._read_steps()
        self.closed = self.network.branches.closed[[branch for _, branch in self._switches]].astype(np.int64)

    def _control_winding(self, control: str) -> int:
        handle = self._handles["RegControl"][control]
        tapped = self.engine.get_int(handle, "RegControl", "TapWinding")
        return tapped if tapped > 0 else self.engine.get_int(handle, "RegControl", "Winding")

    def _keep_start(self) -> None:
        self._v_start = self._v.copy()
        self._v_good = self._v.copy()
        self._taps_start, self._steps_start, self._closed_start = self.taps.copy(), self.steps_on.copy(), self.closed.copy()

    # -- one step

    def write_demand(self, kw: FloatArray, kvar: FloatArray) -> None:
        """Write what every load asks for [kW], [kvar], each shape (n_loads,)."""
        if self._load_kw is not None and self._load_kvar is not None:
            self._load_kw.values[:] = kw
            self._load_kvar.values[:] = kvar
            self._load_kw.write()
            self._load_kvar.write()

    def write_injections(self, p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Write the devices' setpoints, positive into the grid [kW], [kvar], each shape (n_devices,).

        Devices bound to a load are written with the demand instead. Call after :meth:`write_demand` and
        before any switchgear.
        """
        for devices, scale, p_writer, q_writer in self._groups:
            np.multiply(p_kw[devices], scale, out=p_writer.values)
            np.take(q_kvar, devices, out=q_writer.values)
            p_writer.write()
            q_writer.write()
        self.engine.keep_y()

    def write_taps(self, taps: IntArray) -> None:
        """Move the regulators that are not yet there, tap number from neutral, shape (n_regulators,)."""
        for i in np.flatnonzero(taps != self.taps):
            handle, winding, branch = self._regulators[i]
            self.engine.set_int(handle, self._winding_property, winding)
            self.engine.set_float(handle, self._tap_property, 1.0 + TAP_STEP_PU * int(taps[i]))
            self._refresh(branch, handle)
            self.taps[i] = taps[i]

    def write_steps(self, steps_on: IntArray) -> None:
        """Switch the capacitors that differ to a number of steps, shape (n_capacitors,)."""
        for i in np.flatnonzero(steps_on != self.steps_on):
            handle, n_steps, branch = self._capacitors[i]
            self.engine.set_ints(handle, self._states_property, [int(k < steps_on[i]) for k in range(n_steps)])
            self._refresh(branch, handle)
            self.steps_on[i] = steps_on[i]

    def write_closed(self, closed: IntArray) -> None:
        """Open (0) or close (1) the switches that differ, shape (n_switches,)."""
        for i in np.flatnonzero(closed != self.closed):
            handle, branch = self._switches[i]
            self.engine.set_open(handle, is_open=not closed[i])
            self._refresh(branch, handle)
            self.closed[i] = closed[i]

    def solve(self, *, controls: bool = False) -> bool:
        """Solve; on failure put the last good voltages back, so that the next solve starts sound.

        Returns:
            Whether the power flow converged to finite voltages.
        """
        converged = self.engine.solve(controls=controls)
        if controls:
            self._follow_controls()
        peak = np.abs(self._v).max()  # NaN compares false below
        if converged and peak < self._v_limit:
            self._v_good[:] = self._v
            return True
        self._v[:] = self._v_good
        return False

    def read(self, snapshot: Snapshot, env: int) -> None:
        """Fill one environment's rows of a snapshot from the solved circuit."""
        v = self._v
        v_pu = snapshot.v_pu[env]
        np.abs(v[1:], out=v_pu)
        v_pu *= self._v_pu_scale
        snapshot.v[env] = v
        current = self._yprim @ v
        power = v[self._row_node]
        power *= current.conj()
        power *= 1e-3
        branches = self.network.branches
        np.add.reduceat(power, branches.terminal_rows, out=snapshot.terminal_kva[env])
        snapshot.losses_kw[env] = power.real.sum()
        loading = snapshot.loading_pu[env]
        np.maximum.reduceat(np.abs(current[self._loading_rows]), self._loading_starts, out=loading)
        loading *= self._per_rating
        delivered = self._powers.read()
        np.negative(delivered[self._n_sources :], out=snapshot.device_kva[env])
        snapshot.source_kva[env] = -delivered[: self._n_sources].sum()

    def reset(self) -> None:
        """Write the start back: taps, steps, switches, voltages. Nothing is compiled."""
        self.write_taps(self._taps_start)
        self.write_steps(self._steps_start)
        self.write_closed(self._closed_start)
        self._v[:] = self._v_start
        self._v_good[:] = self._v_start

    # -- state

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Give what the next solve depends on besides the setpoints."""
        return {
            "v": self._v.copy(),
            "taps": self.taps.copy(),
            "steps_on": self.steps_on.copy(),
            "closed": self.closed.copy(),
        }

    def restore(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Put a :meth:`state` back."""
        self.write_taps(state["taps"])
        self.write_steps(state["steps_on"])
        self.write_closed(state["closed"])
        self._v[:] = state["v"]
        self._v_good[:] = state["v"]

    def read_taps(self) -> IntArray:
        """Read the regulators' tap numbers from the engine, shape (n_regulators,)."""
        taps = [
            self.engine.get_floats(handle, "Transformer", "Taps")[winding - 1]
            for handle, winding, _ in self._regulators
        ]
        return np.rint((np.array(taps, dtype=float) - 1.0) / TAP_STEP_PU).astype(np.int64)

    def _read_steps(self) -> IntArray:
        states = [self.engine.get_ints(handle, "Capacitor", "States").sum() for handle, _, _ in self._capacitors]
        return np.array(states, dtype=np.int64)

    def _follow_controls(self) -> None:
        """Take over what the feeder's own controls moved."""
        taps, steps = self.read_taps(), self._read_steps()
        for i in np.flatnonzero(taps != self.taps):
            self._refresh(self._regulators[i][2], self._regulators[i][0])
        for i in np.flatnonzero(steps != self.steps_on):
            self._refresh(self._capacitors[i][2], self._capacitors[i][0])
        self.taps[:], self.steps_on[:] = taps, steps

    def _refresh(self, branch: int, handle: Handle) -> None:
        """Take an element's changed admittance into the branch matrix."""
        self._yprim.data[self._yprim_slices[branch]] = self.engine.yprim(handle).ravel()

    def close(self) -> None:
        """Give the engine back."""
        self.engine.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.feeder, self.injections, self._tolerance, self._max_iterations)


def _rebuild(feeder: Feeder, injections: tuple[Injection, ...], tolerance: float, max_iterations: int) -> Circuit:
    return Circuit(feeder, injections, tolerance=tolerance, max_iterations=max_iterations)


def _split(branch: str) -> tuple[str, str]:
    class_name, _, name = branch.partition(".")
    return next(c for c in _BRANCH_CLASSES if c.lower() == class_name), name


def _describe(engine: Engine, handles: dict[str, dict[str, Handle]], bus_kv: dict[str, float]) -> Network:
    """Read a compiled, solved circuit into a network description."""
    nodes = engine.node_names()
    bus_names = [name.rpartition(".")[0] for name in nodes]
    buses = tuple(dict.fromkeys(bus_names))
    index = {name: i for i, name in enumerate(buses)}
    node_bus = np.array([index[name] for name in bus_names])
    base = np.array([bus_kv.get(name, 0.0) * 1000.0 for name in bus_names])
    if np.any(base <= 0.0):
        missing = sorted({name for name, volts in zip(bus_names, base, strict=True) if volts <= 0.0})
        raise FeederError("feeder", [f"bus {name!r} has no base voltage (CalcVoltageBases missing?)" for name in missing])
    xy = {e["Name"].lower(): (e.get("X", np.nan), e.get("Y", np.nan)) for e in engine.to_json()["Bus"]}
    source = next(iter(handles["Vsource"].values()))
    controls = {
        name: engine.get_text(handle, "RegControl", "Transformer").lower().rpartition(".")[2]
        for name, handle in handles["RegControl"].items()
    }
    return Network(
        nodes=nodes,
        node_bus=node_bus,
        node_phase=np.array([int(name.rpartition(".")[2]) for name in nodes]),
        v_base=base,
        buses=buses,
        bus_xy=np.array([xy[name] for name in buses], dtype=float),
        source_bus=int(node_bus[engine.node_ref(source)[0] - 1]),
        branches=_describe_branches(engine, handles, node_bus),
        loads=_describe_loads(engine, handles["Load"], node_bus),
        regulators=tuple(controls.values()),
        regulator_controls=tuple(controls),
        capacitors=tuple(handles["Capacitor"]),
        switches=tuple(handles["Line"]),
        elements={name: tuple(handles[name]) for name in _BINDABLE},
    )


def _describe_branches(engine: Engine, handles: dict[str, dict[str, Handle]], node_bus: IntArray) -> Branches:
    names: list[str] = []
    amps: list[float] = []
    closed: list[bool] = []
    rows: list[IntArray] = []
    terminal_rows: list[int] = []
    terminal_branch: list[int] = []
    terminal_bus: list[int] = []
    branch_rows: list[int] = []
    row = 0
    for class_name in _BRANCH_CLASSES:
        for name, handle in handles[class_name].items():
            refs = engine.node_ref(handle)
            n_terminals, n_conductors = engine.terminals(handle)
            branch_rows.append(row)
            for terminal in range(n_terminals):
                own = refs[terminal * n_conductors : (terminal + 1) * n_conductors]
                terminal_rows.append(row + terminal * n_conductors)
                terminal_branch.append(len(names))
                live = own[own > 0]
                terminal_bus.append(int(node_bus[live[0] - 1]) if len(live) else -1)
            names.append(f"{class_name}.{name}".lower())
            rated = class_name != "Capacitor"
            amps.append(engine.get_float(handle, class_name, "NormAmps") if rated else 0.0)
            closed.append(not engine.is_open(handle, n_terminals))
            rows.append(refs)
            row += len(refs)
    return Branches(
        tuple(names),
        np.array(amps),
        np.concatenate(rows),
        np.array(branch_rows),
        np.array(terminal_rows),
        np.array(terminal_branch),
        np.array(terminal_bus),
        np.array(closed),
    )


def _describe_loads(engine: Engine, handles: dict[str, Handle], node_bus: IntArray) -> Loads:
    shapes = [
        engine.get_text(h, "Load", "Yearly") or engine.get_text(h, "Load", "Daily") for h in handles.values()
    ]
    return Loads(
        names=tuple(handles),
        bus=np.array([int(node_bus[engine.node_ref(h)[0] - 1]) for h in handles.values()], dtype=np.int64),
        kw=np.array([engine.get_float(h, "Load", "kW") for h in handles.values()]),
        kvar=np.array([engine.get_float(h, "Load", "kvar") for h in handles.values()]),
        shapes=tuple(shape.lower() for shape in shapes),
    )
