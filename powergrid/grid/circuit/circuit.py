"""A compiled feeder with devices on it: names to handles once, then bulk writes, one solve, bulk reads.

Knows neither time nor devices' physics: it takes setpoints and gives back what the solved circuit delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.errors import EngineError, FeederError, describe_unknown
from powergrid.grid.circuit.admittance import Admittance
from powergrid.grid.circuit.controls import ActingControls, ControlPlan, find_controls, free_power, select_controls
from powergrid.grid.circuit.faults import Fault, place_faults
from powergrid.grid.circuit.flows import BranchFlows
from powergrid.grid.circuit.injections import Injection, place_injections
from powergrid.grid.circuit.isolation import Isolation
from powergrid.grid.circuit.protection import Protection
from powergrid.grid.circuit.setpoints import Setpoints
from powergrid.grid.circuit.snapshot import Snapshot
from powergrid.grid.circuit.switchgear import Gear
from powergrid.grid.engine import ComplexArray, Engine, FloatArray, Handle, IntArray, PowerReader
from powergrid.grid.feeder.cache import describing_alone, recall
from powergrid.grid.feeder.compile import (
    BRANCH_CLASSES,
    SOURCE_CLASSES,
    compile_feeder,
    read_base_voltages,
    read_handles,
    recall_network,
    settle_options,
)
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.windings import Regulator

__all__ = ["Circuit", "Injection", "Snapshot", "compile_feeder", "network_of"]

State = dict[str, npt.NDArray[Any]]
BoolArray = npt.NDArray[np.bool_]

SANE_V_PU = 5.0
_DEAD_V_PU = 0.01


class _Rows(NamedTuple):
    """The rows of a snapshot that belong to one environment; the snapshot is kept, so that its identity is."""

    snapshot: Snapshot
    v_pu: FloatArray
    v: ComplexArray
    loading_pu: FloatArray
    terminal_kva: ComplexArray
    terminal_kw: FloatArray
    device_kva: ComplexArray
    forming_kva: ComplexArray
    conductor_kva: ComplexArray


class Circuit:
    """One feeder in one engine, with handles for everything that is written or read while stepping.

    Args:
        feeder: The feeder to compile.
        injections: Where the devices' power goes, in the order of all device arrays.
        faults: Short circuits that may strike; none is on as compiled.
        tolerance: Convergence tolerance of the power flow [pu].
        max_iterations: Limit of power-flow and control iterations.
        plan: Which elements the feeder's own controls move once an episode plays; none if unset. They all act
            where the start of episodes is found, except on the power of devices.
        tapped: Transformers as ``class.name``, lower case, whose taps are moved though no regulator control may do
            so, each with the number of its winding, or 0; see :meth:`Gear.find_regulator`.

    Attributes:
        gear: The positions of all switchgear, and what moves it.
        load_of_device: Place of the load that each device replaces, -1 where it replaces none, shape (n_devices,).
        own_moves: Positions that the feeder's own controls moved in the last solve.
        forming: 1 where a microgrid's forming source is on, in the order of the microgrids that have one.
        source_nodes: Nodes that the other sources are tied to.

    Raises:
        FeederError: the feeder does not compile or does not converge as it stands, or an injection names
            a bus or element that it lacks (all of them at once, with the nearest names).
    """

    def __init__(
        self,
        feeder: Feeder,
        injections: Sequence[Injection] = (),
        *,
        faults: Sequence[Fault] = (),
        tolerance: float = 1e-5,
        max_iterations: int = 100,
        plan: ControlPlan | None = None,
        tapped: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.feeder = feeder
        self.injections = tuple(injections)
        self.faults = tuple(faults)
        self._tolerance = tolerance
        self._max_iterations = max_iterations
        self._plan = plan or ControlPlan()
        self._tapped = tuple(tapped)
        self.engine = Engine()
        compile_feeder(feeder, self.engine)
        settle_options(self.engine, tolerance=tolerance, max_iterations=max_iterations)
        self._handles = read_handles(self.engine)
        if not any(self._handles[name] for name in SOURCE_CLASSES):
            raise FeederError(str(feeder.master), ["no enabled source: nothing feeds the circuit"])
        bus_kv = read_base_voltages(feeder, self.engine)
        controls = find_controls(self.engine)
        self._targets = place_injections(feeder, self.engine, self.injections, self._handles, bus_kv)
        free_power(self.engine, controls, self._plan)
        fault_names = place_faults(self.engine, self.faults)
        self._solve_start()
        self.controls = ActingControls(self.engine, select_controls(self.engine, controls, self._plan))
        self.network = recall_network(feeder, self.engine, self._handles, bus_kv, controls)
        self._bind_flows()
        self.setpoints = Setpoints(self.engine, self._handles["Load"], self.injections, self._targets)
        self.load_of_device = self.setpoints.load_of_device
        capacitors = [i for i, name in enumerate(self.network.branches.names) if name.startswith("capacitor.")]
        self._admittance = Admittance(self.engine, self.setpoints, self.flows, capacitors)
        self._bind_gear()
        branch_index, lines = self.network.branch_index, self._handles["Line"]
        note = self._admittance.note_change
        self.protection = Protection(self.engine, self.controls.controls, lines, branch_index, note)
        self.isolation = Isolation(self.engine, self._handles, fault_names, branch_index, note)
        self._keep_start()

    # -- building

    def _solve_start(self) -> None:
        """Solve the feeder as it stands, its own controls free: the start of every episode."""
        try:
            if any(self.engine.solve(controls=True) for _ in range(3)) or self.engine.solve():
                return
        except EngineError as error:
            raise FeederError(str(self.feeder.master), [f"does not solve: {error}"]) from None
        raise FeederError(str(self.feeder.master), ["the power flow does not converge at nominal demand"])

    def _bind_flows(self) -> None:
        branches, n_nodes = self.network.branches, len(self.network.nodes)
        handles = (
            self._handles[class_name][name] for class_name in BRANCH_CLASSES for name in self._handles[class_name]
        )
        self.flows = BranchFlows(branches, [self.engine.yprim(handle) for handle in handles], n_nodes)
        self._v = self.engine.voltages(n_nodes)
        self._v_nodes = self._v[1:]
        self._v_pu = np.zeros(n_nodes)
        self._v_pu_scale = 1.0 / self.network.v_base
        forming = [microgrid.source for microgrid in self.feeder.microgrids if microgrid.source]
        self._formers = [self._handles["Vsource"][name] for name in forming]
        sources = [handle for c in SOURCE_CLASSES for name, handle in self._handles[c].items() if name not in forming]
        self.source_nodes = np.unique(np.concatenate([self._nodes_of(handle) for handle in sources]))
        self.forming = np.zeros(len(forming), dtype=np.int64)
        self._n_host_sources, self.n_sources = len(sources), len(sources) + len(forming)
        self.powers = PowerReader([*sources, *self._formers, *[handle for _, handle in self._targets]])
        self._drawn: ComplexArray = np.zeros(self.n_sources + len(self._targets), dtype=complex)
        self._sound = True
        self._rows_of = (-1, -1)

    def _nodes_of(self, handle: Handle) -> IntArray:
        """Return the nodes that an element is tied to."""
        ref = self.engine.node_ref(handle)
        return ref[ref > 0] - 1

    def _bind_gear(self) -> None:
        acting = self.controls.capacitors
        self.gear = gear = Gear(self.engine, self._handles, self.network, acting, self._admittance, self._tapped)
        self.tap_min, self.tap_max, self.steps_max = gear.tap_min, gear.tap_max, gear.steps_max
        self.own_moves = 0

    def _keep_start(self) -> None:
        # So that the start and what comes after a reset stand on the same admittance matrix.
        self._admittance.build()
        self.engine.solve()
        self._admittance.factorised = True
        highest = self._take_voltages()
        if not _DEAD_V_PU < highest < SANE_V_PU:  # NaN compares false; OpenDSS says that it converged all the same
            remedy = "look for parts without a path to ground, impedances of 0, and controls of the feeder's own"
            raise FeederError(str(self.feeder.master), [f"the power flow ends at {highest:.3g} pu at most; {remedy}"])
        self._v_good = self._v.copy()
        self._start = self.state()
        self.gear.keep_start()

    # -- one step

    def write_demand(self, kw: FloatArray, kvar: FloatArray) -> None:
        """Write what every load asks for [kW], [kvar], each shape (n_loads,)."""
        self.setpoints.write_demand(kw, kvar)

    def write_injections(self, p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Write the devices' setpoints, positive into the grid [kW], [kvar], each shape (n_devices,).

        Devices bound to a load are written with the demand instead. Call after :meth:`write_demand`.
        """
        self.setpoints.write_injections(p_kw, q_kvar)
        self.keep_y()

    def keep_y(self) -> None:
        """Tell the engine that setpoints left the admittance matrix as it was; call after they are written."""
        if not self._admittance.stale:
            self.engine.keep_y()

    def write_taps(self, taps: IntArray) -> None:
        """Move the regulators that are not yet there; see :meth:`Gear.write_taps`."""
        self.gear.write_taps(taps)

    def write_steps(self, steps_on: IntArray) -> None:
        """Switch the capacitors that differ to a number of steps; see :meth:`Gear.write_steps`."""
        self.gear.write_steps(steps_on)

    def write_closed(self, closed: IntArray) -> None:
        """Open (0) or close (1) the switches that differ; see :meth:`Gear.write_closed`."""
        self.gear.write_closed(closed)

    def write_forming(self, closed: IntArray) -> None:
        """Take the forming sources off (0) or put them on (1) that differ, shape (n_forming,)."""
        if np.count_nonzero(closed != self.forming):
            for i in np.flatnonzero(closed != self.forming).tolist():
                self.engine.set_open(self._formers[i], is_open=not closed[i])
                self.forming[i] = closed[i]
                self._admittance.note_change(-1, self._formers[i])

    def read_forming_kw(self) -> FloatArray:
        """Return what each forming source delivers [kW], shape (n_forming,); call after a solve that converged."""
        self._drawn = self.powers.read()
        delivered: FloatArray = -self._drawn[self._n_host_sources : self.n_sources].real
        return delivered

    def solve(self, *, controls: bool = False, limit: Callable[[], bool] | None = None) -> bool:
        """Solve; on failure put the last good voltages back, so that the next solve starts sound.

        Args:
            controls: Let the feeder's own controls act, those that the plan leaves to it.
            limit: Called where these have settled; corrects what they set beyond a device's own limits, and says
                whether it had to. If so the flow is solved once more with the controls held.

        Returns:
            Whether the power flow converged to finite voltages.
        """
        if controls and self.controls.set_power:  # these leave setpoints of theirs in the matrix
            self._admittance.build()
        elif self._admittance.stale:
            self._admittance.update()
        self._sound = False
        try:
            converged = self.engine.solve(controls=controls)
            self._admittance.factorised = True
            if controls:
                if converged and limit is not None and limit():
                    converged = self.engine.solve()
                self.own_moves = self.gear.follow()
                self._admittance.refresh_flows()
            self._sound = converged and self._take_voltages() < SANE_V_PU  # NaN compares false
        finally:
            if not self._sound:
                self.fall_back()
        if self._sound:
            self._v_good[:] = self._v
        return self._sound

    def solve_into(self, v: ComplexArray) -> bool:
        """Solve with the controls held and give the voltages as they are; whether they are sound is for the caller.

        Args:
            v: Filled with the node voltages, ground first [V], shape (n_nodes + 1,).

        Returns:
            Whether the engine says that the power flow converged. Where the caller finds it did not to sound voltages,
            :meth:`fall_back` has to follow.
        """
        if self._admittance.stale:
            self._admittance.update()
        self._sound = False
        try:
            self._sound = self.engine.solve()
            self._admittance.factorised = True
        except BaseException:
            self.fall_back()
            raise
        v[:] = self._v
        return self._sound

    def fall_back(self) -> None:
        """Put the last good voltages back after a solve that failed, so that the next one starts sound."""
        self._sound = False
        self._v[:] = self._v_good
        self._take_voltages()

    def keep_in(self, v: ComplexArray, v_pu: FloatArray) -> None:
        """Keep the last good voltages and their magnitudes in rows of a snapshot from here on.

        Args:
            v: Node voltages with ground first [V], shape (n_nodes + 1,).
            v_pu: Their magnitudes [pu], shape (n_nodes,).
        """
        v[:], v_pu[:] = self._v_good, self._v_pu
        self._v_good, self._v_pu = v, v_pu

    def restart(self, dead: BoolArray, woken: BoolArray | None = None) -> None:
        """Let the next solve start from the voltages of the start, and from none at nodes that nothing feeds.

        Args:
            dead: Nodes that nothing feeds, shape (n_nodes,).
            woken: Nodes that start so, the others from where they are; all if not given, shape (n_nodes,).
        """
        nodes = slice(None) if woken is None else woken
        self._v_nodes[nodes] = self._start["v"][1:][nodes]
        self._v_nodes[dead] = 0.0

    def read(self, snapshot: Snapshot, env: int) -> None:
        """Fill one environment's rows of a snapshot from the solved circuit.

        After a solve that failed, the rows are those of the last good voltages.
        """
        if self._rows_of != (id(snapshot), env):
            self._take_rows(snapshot, env)
        rows = self._rows
        rows.v_pu[:], rows.v[:] = self._v_pu, self._v
        self.flows.read(self._v, rows.terminal_kva, rows.loading_pu)
        if rows.conductor_kva.size:
            rows.conductor_kva[:] = self.flows.conductor_kva
        snapshot.losses_kw[env] = np.add.reduce(rows.terminal_kw)
        if self._sound:
            self._drawn = self.powers.read()
        np.negative(self._drawn[self.n_sources :], out=rows.device_kva)
        snapshot.source_kva[env] = -np.add.reduce(self._drawn[: self._n_host_sources])
        if self._formers:
            drawn = self._drawn[self._n_host_sources : self.n_sources]
            np.multiply(drawn, -self.forming, out=rows.forming_kva)  # exactly 0 from those that are open

    def _take_rows(self, snapshot: Snapshot, env: int) -> None:
        """Keep one environment's rows of the snapshot that is read into at each step."""
        self._rows_of = (id(snapshot), env)
        self._rows = _Rows(
            snapshot,
            snapshot.v_pu[env],
            snapshot.v[env],
            snapshot.loading_pu[env],
            snapshot.terminal_kva[env],
            snapshot.terminal_kva[env].real,
            snapshot.device_kva[env],
            snapshot.forming_kva[env],
            snapshot.conductor_kva[env],
        )

    def reset(self) -> None:
        """Write the start back: taps, steps, switches, voltages. Nothing is compiled."""
        self.restore(self._start)

    def start_from(self, taps: Mapping[str, int], steps_on: Mapping[str, int]) -> None:
        """Let episodes start from given positions instead of those the feeder's own controls find.

        Args:
            taps: Tap position from neutral by regulator control.
            steps_on: Steps on by capacitor.

        Raises:
            FeederError: a name is not in the feeder, or a position not in range (all of them), or it does not
                converge so.
        """
        new, problems = self.gear.find_positions(taps, steps_on)
        if problems:
            raise FeederError(str(self.feeder.master), problems)
        self.write_taps(new[0])
        self.write_steps(new[1])
        if not self.solve():
            raise FeederError(str(self.feeder.master), ["the power flow does not converge from the positions given"])
        self._keep_start()

    def set_ratings(self, norm_amps: Mapping[str, float]) -> None:
        """Replace normal ratings [A] by branch name ``class.name``.

        Raises:
            FeederError: a branch is not in the feeder, or a rating not above 0 (all of them).
        """
        branches = self.network.branches
        problems = [describe_unknown("branch", n, branches.names) for n in norm_amps if n.lower() not in branches.names]
        problems += [
            f"branch {n!r}: a rating of {amps:g} A is not above 0" for n, amps in norm_amps.items() if amps <= 0
        ]
        if problems:
            raise FeederError(str(self.feeder.master), problems)
        if not norm_amps:
            return
        rated = branches.norm_amps.copy()
        for name, amps in norm_amps.items():
            rated[branches.names.index(name.lower())] = amps
        self.network = replace(self.network, branches=replace(branches, norm_amps=rated))
        self.flows.set_ratings(self.network.branches)

    def positions(self, kind: str) -> IntArray:
        """Return the positions of all switchgear of a device kind; the circuit's own array."""
        return self.gear.positions(kind)

    @property
    def taps(self) -> IntArray:
        """Tap positions from neutral, shape (n_regulators,)."""
        return self.gear.taps

    @property
    def steps_on(self) -> IntArray:
        """Steps on of each capacitor, shape (n_capacitors,)."""
        return self.gear.steps_on

    @property
    def closed(self) -> IntArray:
        """1 where a switch is closed, shape (n_switches,)."""
        return self.gear.closed

    def handle_of(self, device: int) -> Handle:
        """Return the element that carries a device's power."""
        return self._targets[device][1]

    @property
    def regulators(self) -> tuple[Regulator, ...]:
        """The windings that are moved: by regulator controls, in the order of the network's table, then the others."""
        return self.gear.regulators

    def branch_admittances(self) -> Iterator[ComplexArray]:
        """Return the primitive admittance matrix of each branch [S], in the order of the branch table."""
        for class_name in BRANCH_CLASSES:
            yield from map(self.engine.yprim, self._handles[class_name].values())

    @property
    def device_nodes(self) -> list[IntArray]:
        """Indices of the nodes that each device is tied to, in the order of the injections."""
        refs = [self.engine.node_ref(handle) for _, handle in self._targets]
        return [ref[ref > 0] - 1 for ref in refs]

    @property
    def capacitor_steps(self) -> tuple[int, ...]:
        """Number of steps of each capacitor, in the order of the network's table."""
        return tuple(self.steps_max.tolist())

    def _take_voltages(self) -> float:
        """Take the magnitudes of the engine's voltages and give the highest [pu]."""
        np.absolute(self._v_nodes, out=self._v_pu)
        np.multiply(self._v_pu, self._v_pu_scale, out=self._v_pu)
        return float(np.maximum.reduce(self._v_pu))

    # -- state

    def state(self) -> State:
        """Return what the next solve and read depend on besides the setpoints."""
        if self._sound:
            self._drawn = self.powers.read()
        return {
            "v": self._v.copy(),
            "drawn": self._drawn.copy(),
            **self.gear.state(),
            **self.protection.state(),
            **self.isolation.state(),
            "forming": self.forming.copy(),
        }

    def restore(self, state: State) -> None:
        """Put a :meth:`state` back."""
        if self.protection.restore(state):
            self.gear.notice_lines()
        self.gear.restore(state)
        self.isolation.restore(state)
        self.write_forming(state["forming"])
        self._v[:] = state["v"]
        self._v_good[:] = state["v"]
        self._drawn, self._sound = state["drawn"].copy(), False  # the engine's powers are those of its last solve
        self._take_voltages()
        if self._admittance.stale:
            self._admittance.update()

    def read_taps(self) -> IntArray:
        """Read the regulators' tap positions from the engine, shape (n_regulators,)."""
        return self.gear.read_taps()

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()

    def __reduce__(self) -> tuple[Any, ...]:
        kept = (self.feeder, self.injections, self.faults, self._tolerance, self._max_iterations, self._plan)
        return _rebuild, (*kept, self._tapped)


def network_of(feeder: Feeder) -> Network:
    """Return a feeder's description; it is compiled only where no process of this user has done so before.

    Raises:
        FeederError: it does not compile, or does not converge as it stands.
    """
    known = recall(feeder)
    if known is not None:
        return known
    with describing_alone(feeder):
        known = recall(feeder)  # another process may have compiled it meanwhile
        if known is not None:
            return known
        circuit = Circuit(feeder)
        try:
            return circuit.network
        finally:
            circuit.close()


def _rebuild(
    feeder: Feeder,
    injections: tuple[Injection, ...],
    faults: tuple[Fault, ...],
    tolerance: float,
    max_iterations: int,
    plan: ControlPlan,
    tapped: tuple[tuple[str, int], ...],
) -> Circuit:
    limits: dict[str, Any] = {"tolerance": tolerance, "max_iterations": max_iterations}
    return Circuit(feeder, injections, faults=faults, plan=plan, tapped=tapped, **limits)
