"""One compiled feeder with devices on it: names to handles once, then bulk writes, a solve, bulk reads.

Knows neither time nor devices' physics: it takes setpoints and returns what the solved circuit delivered. Many of them
side by side are ``circuits``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import FeederError, Problem
from powergrid.garbage import put_off_collection
from powergrid.grid.circuit.admittance import Admittance, BranchLayout
from powergrid.grid.circuit.compiled import compile_circuit
from powergrid.grid.circuit.injections import Injection, Setpoints
from powergrid.grid.circuit.lines import LineMatrices, read_lines, write_lines
from powergrid.grid.circuit.out_of_service import Fault, OutOfService, Protection
from powergrid.grid.circuit.own.controls import (
    ControlPlan,
)
from powergrid.grid.circuit.snapshot import Snapshot, SnapshotReader
from powergrid.grid.circuit.switchgear import Switchgear
from powergrid.grid.engine import ComplexArray, FloatArray, Handle, IntArray, PowerReader
from powergrid.grid.feeder.compile import (
    BRANCH_CLASSES,
    SOURCE_CLASSES,
    describing_alone,
    known_network,
)
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Network

__all__ = ["Circuit", "Injection", "Snapshot", "network_of"]

State = dict[str, npt.NDArray[Any]]
BoolArray = npt.NDArray[np.bool_]

#: A power flow that ends above it has diverged: OpenDSS says that it converged all the same.
SANE_V_PU = 5.0
_DEAD_V_PU = 0.01
_DEAD_V = 1e-3


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
            so, each with the number of its winding, or 0; see :meth:`Switchgear.find_regulator`.

    Attributes:
        handles: Handle of each element by class and name.
        v: The engine's own node voltages, ground first [V], shape (n_nodes + 1,).
        setpoints: What writes demand and devices' power.
        switchgear: The positions of all switchgear, and what moves it.
        admittance: The circuit's matrix.
        out_of_service: What events take out.
        protection: What the feeder's own protection opened.
        powers: Reads what the feeder's own sources, forming sources and devices draw, in this order.
        ratings: What the model says of the element of each device that is one, by the device's name and key.
        load_of_device: Place of the load that each device replaces, -1 where it replaces none, shape (n_devices,).
        file_solves: Whether the file itself says ``Solve``.
        compiled_storage: 1 where a battery discharges as compiled, -1 where it charges, 0 where it idles.
        compiled_positions: Where regulators and capacitors stood before any control acted, where it matters.
        own_moves: Positions that the feeder's own controls moved in the last solve.
        forming: 1 where a microgrid's forming source is on, in the order of the microgrids that have one.
        source_nodes: Nodes that the other sources are tied to.

    Raises:
        FeederError: the feeder does not compile or does not converge as it stands, or an injection names
            a bus or element that it lacks (all of them at once, with the nearest names).
    """

    @put_off_collection()
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
        self.feeder, self.injections = feeder, tuple(injections)
        plan = plan or ControlPlan()
        self._arguments: dict[str, Any] = {
            "faults": tuple(faults),
            "tolerance": tolerance,
            "max_iterations": max_iterations,
            "plan": plan,
            "tapped": tuple(tapped),
        }
        known = network_of(feeder) if injections else None
        compiled = compile_circuit(feeder, self.injections, known, plan, faults, tolerance, max_iterations)
        self.engine, self.handles, self.network = compiled.engine, compiled.handles, compiled.network
        self.controls, self.ratings, self._targets = compiled.controls, compiled.ratings, compiled.targets
        self.compiled_storage, self.compiled_positions = compiled.storage, compiled.positions
        # A file that solves leaves controls and batteries that have acted once.
        texts = (command.text.lstrip().lower() for command in (*feeder.commands, *feeder.left_out))
        self.file_solves = any(text.startswith("solv") for text in texts)
        self._bind_sources()
        self.setpoints = Setpoints(self.engine, self.handles["Load"], self.injections, self._targets)
        self.load_of_device = self.setpoints.load_of_device
        layout = BranchLayout(self.network.branches)
        yprims, observed = self.engine.yprims(self._branches), bool(self.controls.controls)
        self.admittance = Admittance(self.engine, self.setpoints, layout, yprims, observed=observed)
        self._bind_switchgear(compiled.fault_names, tapped)
        self._keep_start()

    # -- building

    def _bind_sources(self) -> None:
        self.v, self._per_v_base = self.engine.voltages(len(self.network.nodes)), 1.0 / self.network.v_base
        forming = [microgrid.source for microgrid in self.feeder.microgrids if microgrid.source]
        self._formers = [self.handles["Vsource"][name] for name in forming]
        sources = [handle for c in SOURCE_CLASSES for name, handle in self.handles[c].items() if name not in forming]
        self.source_nodes = np.unique(np.concatenate([self._nodes_of(handle) for handle in sources]))
        self.forming = np.zeros(len(forming), dtype=np.int64)
        self._n_sources = len(sources)
        self.powers = PowerReader([*sources, *self._formers, *[handle for _, handle in self._targets]])
        self._drawn: ComplexArray = np.zeros(self.powers.size, dtype=complex)
        self._reader: SnapshotReader | None = None

    def _nodes_of(self, handle: Handle) -> IntArray:
        """Return the nodes that an element is tied to."""
        ref = self.engine.node_ref(handle)
        return ref[ref > 0] - 1

    def _bind_switchgear(self, fault_names: Sequence[str], tapped: Sequence[tuple[str, int]]) -> None:
        engine, network, note = self.engine, self.network, self.admittance.note_change
        acting, led = self.controls.capacitors, self.controls.led
        self.switchgear = Switchgear(engine, self.handles, network, acting, self.admittance, tapped, led)
        self.own_moves = 0
        self.protection = Protection(engine, self.controls.controls, self.handles, network, note)
        self.out_of_service = OutOfService(engine, self.handles, fault_names, network.branch_index, note)

    def _keep_start(self) -> None:
        # So that the start and what comes after a reset stand on the same admittance matrix.
        if not self.admittance.built:
            self.admittance.build()
        self.engine.solve()
        highest = self._highest_v_pu()
        if not _DEAD_V_PU < highest < SANE_V_PU:  # NaN compares false; OpenDSS says that it converged all the same
            text = f"the power flow ends at {highest:.3g} pu at most"
            remedy = "look for parts without a path to ground, impedances of 0, and controls of the feeder's own"
            raise FeederError(str(self.feeder.master), [Problem("no-convergence", "", text, remedy)])
        self._v_good, self._sound, self._given_up = self.v.copy(), True, False
        self._line_matrices: LineMatrices | None = None
        self._start = self.state()
        self.switchgear.keep_start()

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

    def follow(self, background: Sequence[tuple[str, str, Sequence[str]]]) -> None:
        """Prepare the bulk writes of elements that are no device: class, property and names of each write."""
        for class_name, key, names in background:
            first = self.network.sources.slips if key == "slip" else None
            self.setpoints.follow(class_name, key, [self.handles[class_name][name] for name in names], first)
        if self.controls.dispatch is not None:
            sources, known = self.network.sources, self.network.elements["Generator"]
            nominal = zip(sources.generator_kw.tolist(), sources.generator_kvar.tolist(), strict=True)
            self.controls.dispatch.follow(dict(zip(known, nominal, strict=True)))

    def keep_y(self) -> None:
        """Tell the engine that setpoints left the admittance matrix as it was, which it would build anew."""
        if not self.admittance.stale:
            self.engine.keep_y()

    def write_forming(self, closed: IntArray) -> None:
        """Take the forming sources off (0) or put them on (1) that differ, shape (n_forming,)."""
        if np.count_nonzero(closed != self.forming):
            for i in np.flatnonzero(closed != self.forming).tolist():
                self.engine.set_open(self._formers[i], is_open=not closed[i])
                self.forming[i] = closed[i]
                self.admittance.note_change(-1, self._formers[i])

    def read_forming_kw(self) -> FloatArray:
        """Return what each forming source delivers [kW], shape (n_forming,); call after a solve that converged."""
        delivered: FloatArray = -self.powers.read()[self._n_sources :][: len(self.forming)].real
        return delivered

    def solve(self, *, controls: bool = False, limit: Callable[[], bool] | None = None) -> bool:
        """Solve; on failure put the last good voltages back, so that the next solve starts sound.

        Args:
            controls: Let the feeder's own controls act, those that the plan leaves to it.
            limit: Called once these have acted; corrects what they set beyond a device's own limits, and says
                whether it had to. If so the flow is solved once more with the controls held.

        Returns:
            Whether the power flow converged to finite voltages.
        """
        sound = self.run(controls=controls, limit=limit) and self._highest_v_pu() < SANE_V_PU  # NaN compares false
        sound = sound or self.rescue()
        if sound:
            self.accept()
        else:
            self.fall_back()
        return sound

    def run(self, *, controls: bool = False, limit: Callable[[], bool] | None = None) -> bool:
        """Solve and leave the voltages as they come: whether they are sound is for the caller.

        Args:
            controls, limit: As of :meth:`solve`.

        Returns:
            Whether the engine says that the power flow converged. :meth:`accept` or :meth:`fall_back` has to follow.
        """
        if controls and self.controls.set_power:  # these leave setpoints of theirs in the matrix
            self.admittance.build()
        elif self.admittance.stale:
            self.admittance.update()
        self._sound = self._given_up = False
        try:
            if not controls:
                return self.engine.solve()
            self.admittance.built = False  # controls may have the engine build it, with what they set
            converged, self.own_moves = self.controls.solve(self.switchgear, self.admittance, limit)
            return converged
        except BaseException:
            self.fall_back()
            raise

    def rescue(self) -> bool:
        """Solve again what failed, from the voltages of the start: with the setpoints in the matrix, then without.

        The feeder's own controls are held where they got to. What is found is as good a solution as any, only the way
        there is longer: fixed-point iterations from far away, or with powers far from those of the matrix, may diverge
        where there is a solution, as behind a delta winding without a neutral.

        Returns:
            Whether the power flow converged to finite voltages now. As after :meth:`run`, which has to come before,
            :meth:`accept` or :meth:`fall_back` has to follow.
        """
        if self._given_up:
            return False
        flat = np.where(np.absolute(self._v_good) > _DEAD_V, self._start["v"], self._v_good)  # what is dead stays so
        for build in (self.engine.build_y, self.admittance.build):
            build()
            self.v[:] = flat
            self.admittance.demand_build()  # the next solve has the usual matrix again
            if self.engine.solve() and self._highest_v_pu() < SANE_V_PU:
                return True
        self._given_up = True
        return False

    def accept(self) -> None:
        """Keep the voltages of a solve: those to fall back to."""
        self._v_good[:] = self.v
        self._sound = True

    def fall_back(self) -> None:
        """Put the last good voltages back after a solve that failed, so that the next one starts sound."""
        self._sound = False
        self.v[:] = self._v_good

    def restart(self, dead: BoolArray, woken: BoolArray | None = None) -> None:
        """Let the next solve start from the voltages of the start, and from none at nodes that nothing feeds.

        Args:
            dead: Nodes that nothing feeds, shape (n_nodes,).
            woken: Nodes that start so, the others from where they are; all if not given, shape (n_nodes,).
        """
        nodes, v_nodes = slice(None) if woken is None else woken, self.v[1:]
        v_nodes[nodes] = self._start["v"][1:][nodes]
        v_nodes[dead] = 0.0

    def read(self, snapshot: Snapshot, env: int = 0) -> None:
        """Fill one environment's rows of a snapshot from the solved circuit.

        After a solve that failed, the rows are those of the last good voltages.
        """
        if self._reader is None:
            self._reader = self.make_reader(1)
        self._reader.write_admittances(0, self.admittance.entries)
        v = self.v[None]
        self._keep_drawn()
        self._reader.read(
            snapshot.rows(env, env + 1), v, self._reader.magnitudes(v), -self._drawn[None], [self.forming]
        )

    def make_reader(self, n_envs: int) -> SnapshotReader:
        """Return what reads n such circuits."""
        return SnapshotReader(self.network, self.powers.starts, self._n_sources, len(self._formers), n_envs)

    def _keep_drawn(self) -> None:
        if self._sound:  # else the engine's powers are those of a solve that failed, or of before a restore
            self._drawn[:] = self.powers.fetch()

    def _highest_v_pu(self) -> float:
        """Return the highest voltage [pu]."""
        return float(np.maximum.reduce(np.absolute(self.v[1:]) * self._per_v_base))

    # -- the start, and ratings

    def reset(self) -> None:
        """Write the start back: taps, steps, switches, voltages. Nothing is compiled."""
        if self.protection.replayed:  # else it forgets with every state that is put back
            self.protection.forget()
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
        self.start_at(taps, steps_on)
        if not self.solve():
            problem = Problem("no-convergence", "", "the power flow does not converge from the positions given")
            raise FeederError(str(self.feeder.master), [problem])
        self._keep_start()

    def set_ratings(self, norm_amps: Mapping[str, float], scale: float = 1.0) -> None:
        """Replace normal ratings [A] by branch name ``class.name``, and multiply all of them by a factor.

        Raises:
            FeederError: a branch is not in the feeder, or a rating not above 0 (all of them).
        """
        branches = self.network.branches
        found = (self.network.find("branch", name) for name in norm_amps)
        problems = [branch for branch in found if isinstance(branch, Problem)]
        problems += [
            Problem("bad-value", f"branch {n!r}", f"a rating of {amps:g} A is not above 0")
            for n, amps in norm_amps.items()
            if amps <= 0
        ]
        if problems:
            raise FeederError(str(self.feeder.master), problems)
        if not norm_amps and scale == 1.0:
            return
        rated = branches.norm_amps.copy()
        for name, amps in norm_amps.items():
            rated[self.network.branch_index[name.lower()]] = amps
        rated *= scale
        self.network = replace(self.network, branches=replace(branches, norm_amps=rated))
        self._reader = None

    def scale_lines(self, r: float, x: float) -> None:
        """Multiply what lines that are no switch had as compiled: resistances, and reactances."""
        if self._line_matrices is None:
            self._line_matrices = read_lines(self.engine, self.handles["Line"])
        for name, text in write_lines(self._line_matrices, r, x):
            handle = self.handles["Line"][name]
            self.engine.edit(handle, text)
            self.admittance.note_change(self.network.branch_index[f"line.{name}"], handle)

    def start_at(self, taps: Mapping[str, int], steps_on: Mapping[str, int]) -> None:
        """Put regulators and capacitors at some positions, those of the start that no device moves; see :meth:`reset`.

        Raises:
            FeederError: a position is not in range; all of them.
        """
        new, problems = self.switchgear.find_positions(taps, steps_on)
        if problems:
            raise FeederError(str(self.feeder.master), problems)
        self.switchgear.write_taps(new[0])
        self.switchgear.write_steps(new[1])

    # -- what there is

    @property
    def taps(self) -> IntArray:
        """Tap positions from neutral, shape (n_regulators,)."""
        return self.switchgear.taps

    @property
    def steps_on(self) -> IntArray:
        """Steps on of each capacitor, shape (n_capacitors,)."""
        return self.switchgear.steps_on

    @property
    def closed(self) -> IntArray:
        """1 where a switch is closed, shape (n_switches,)."""
        return self.switchgear.closed

    @property
    def may_open(self) -> bool:
        """Whether controls of the feeder's own act that may have opened a branch in the last solve."""
        return self.controls.opening and self.controls.acted

    def handle_of(self, device: int) -> Handle:
        """Return the element that carries a device's power."""
        return self._targets[device][1]

    def branch_entries(self) -> ComplexArray:
        """Return the branches' primitive admittance matrices [S], each column by column, in the order of the table."""
        return self.engine.yprims(self._branches)

    @property
    def _branches(self) -> list[Handle]:
        """The element of each branch, in the order of the branch table."""
        return [handle for class_name in BRANCH_CLASSES for handle in self.handles[class_name].values()]

    @property
    def device_nodes(self) -> list[IntArray]:
        """Indices of the nodes that each device is tied to, in the order of the injections."""
        return [self._nodes_of(handle) for _, handle in self._targets]

    # -- state

    def state(self) -> State:
        """Return what the next solve and read depend on besides the setpoints."""
        self._keep_drawn()
        return {
            "v": self.v.copy(),
            "drawn": self._drawn.copy(),
            **self.switchgear.state(),
            **self.protection.state(),
            **self.out_of_service.state(),
            "forming": self.forming.copy(),
            **({} if self.controls.dispatch is None else {"dispatched": self.controls.dispatch.base.copy()}),
        }

    def restore(self, state: State) -> None:
        """Put a :meth:`state` back."""
        if self.protection.restore(state):
            self.switchgear.notice_lines()
        self.switchgear.restore(state)
        self.out_of_service.restore(state)
        self.write_forming(state["forming"])
        if self.controls.dispatch is not None:
            self.controls.dispatch.base = state["dispatched"].copy()
        self.v[:] = self._v_good[:] = state["v"]
        self._drawn, self._sound = state["drawn"].copy(), False  # the engine's powers are those of its last solve
        if self.admittance.stale:
            self.admittance.update()

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Circuit, **self._arguments), (self.feeder, self.injections)


def network_of(feeder: Feeder) -> Network:
    """Return a feeder's description; it is compiled only where no process of this user has done so before.

    Raises:
        FeederError: it does not compile, or does not converge as it stands.
    """
    known = known_network(feeder)
    if known is not None:
        return known
    with describing_alone(feeder):
        known = known_network(feeder)  # another process may have compiled it meanwhile
        if known is not None:
            return known
        circuit = Circuit(feeder)
        try:
            return circuit.network
        finally:
            circuit.close()
