"""n circuits of one feeder side by side: write all, solve each, read all; one circuit is n = 1.

Array code runs once for all of them, calls on the engine one after the other. Where the feeder's own controls act in
one, or its power has to be found by solving again, that circuit alone is solved by another's hook in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from powergrid.grid.circuit.circuit import SANE_V_PU, BoolArray, Circuit, State
from powergrid.grid.circuit.injections import Injection
from powergrid.grid.circuit.out_of_service import Fault
from powergrid.grid.circuit.own.controls import ControlPlan
from powergrid.grid.circuit.snapshot import Snapshot
from powergrid.grid.engine import FloatArray, IntArray
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.options import SimulationOptions


class Circuits(Sequence[Circuit]):
    """Write, solve and read n circuits in lockstep.

    Args:
        circuits: The circuits, one an environment, with the same devices.
        snapshot: Is filled with what is solved.

    Attributes:
        load_kw: What loads were last asked to draw, those that are devices included [kW], shape (n_envs, n_loads).
        load_kvar: The same for reactive power [kvar].
    """

    def __init__(self, circuits: Sequence[Circuit], snapshot: Snapshot) -> None:
        self._circuits, self._snapshot = tuple(circuits), snapshot
        first, n = circuits[0], len(circuits)
        self._values = first.setpoints.allocate(n)
        self._writes = [
            [(writer.values, row, writer.write) for writer, row in zip(circuit.setpoints.writers, rows, strict=True)]
            for circuit, *rows in zip(circuits, *self._values, strict=True)
        ]
        # without them no list is made of what is nobody's
        self._any_forming = any(len(circuit.forming) for circuit in circuits)
        n_loads = len(first.network.loads.names)
        self.load_kw, self.load_kvar = self._values[:2] if n_loads else np.zeros((2, n, 0))
        self._bound_devices = np.flatnonzero(first.load_of_device >= 0)
        self._bound_loads = first.load_of_device[self._bound_devices]
        self._reader = first.make_reader(n)
        self._v = np.zeros_like(snapshot.v)
        self._delivered = np.zeros((n, first.powers.size), dtype=complex)
        self._converged, self._sane = [False] * n, np.full(n, SANE_V_PU)
        self._first_node = np.arange(n) * len(first.network.nodes)
        self._versions = [0] * n
        self._wanted: dict[int, list[tuple[str, int, int]]] = {}

    def __len__(self) -> int:
        return len(self._circuits)

    @overload
    def __getitem__(self, env: int) -> Circuit: ...
    @overload
    def __getitem__(self, env: slice) -> Sequence[Circuit]: ...
    def __getitem__(self, env: int | slice) -> Circuit | Sequence[Circuit]:
        return self._circuits[env]

    @property
    def own_moves(self) -> IntArray:
        """Positions that the feeder's own controls moved in the last solve, shape (n_envs,)."""
        return np.array([circuit.own_moves for circuit in self._circuits])

    # -- one step

    def fill_demand(
        self, day_kw: FloatArray, day_kvar: FloatArray, rows: IntArray, p_kw: FloatArray, q_kvar: FloatArray
    ) -> None:
        """Take what loads are to draw in all circuits at the next :meth:`solve`; may be changed in place then.

        Args:
            day_kw, day_kvar: What loads ask for [kW], [kvar], each shape (n_rows, n_loads).
            rows: Row of each circuit, shape (n_envs,).
            p_kw, q_kvar: The devices' setpoints, positive into the grid [kW], [kvar], each shape (n_envs, n_devices);
                those bound to a load replace its demand.
        """
        load_kw = day_kw.take(rows, 0, self.load_kw, "clip")
        load_kvar = day_kvar.take(rows, 0, self.load_kvar, "clip")
        if self._bound_loads.size:
            load_kw[:, self._bound_loads] = -p_kw[:, self._bound_devices]
            load_kvar[:, self._bound_loads] = -q_kvar[:, self._bound_devices]
        self._wanted.clear()

    def fill_injections(self, p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Take the devices' setpoints that are to be written; see :meth:`fill_demand`."""
        self._circuits[0].setpoints.fill_injections(self._values, p_kw, q_kvar)

    def fill_background(self, background: Sequence[FloatArray], rows: IntArray) -> None:
        """Take what elements do that are no device, in the order of :meth:`Circuit.follow`.

        Args:
            background: Values of each write, each shape (n_rows, n_elements).
            rows: Row of each circuit, shape (n_envs,).
        """
        for own, values in zip(background, self._values[len(self._values) - len(background) :], strict=True):
            own.take(rows, 0, values, "clip")

    def hold_tripped(self, generating: Mapping[str, Sequence[tuple[int, int]]], n_writes: int) -> None:
        """Let elements that an event has tripped do nothing, after :meth:`fill_background`.

        Args:
            generating: Write and column of what makes each element generate, by ``class.name`` in lower case.
            n_writes: Number of writes.
        """
        for env, circuit in enumerate(self._circuits):
            for element in circuit.out_of_service.tripped:
                for place, column in generating.get(element, ()):
                    self.background_values(place, n_writes)[env, column] = 0.0

    def background_values(self, place: int, n_writes: int) -> FloatArray:
        """Return the values of one of n writes of :meth:`fill_background`, to be changed in place."""
        return self._values[len(self._values) - n_writes + place]

    def aim(self, kind: str, places: IntArray, position: IntArray) -> IntArray | int:
        """Take where switchgear is to be moved at the next :meth:`solve`, after :meth:`fill_demand`.

        Args:
            kind: Its device kind.
            places: Its places among all of that kind, shape (n,).
            position: Wanted positions, shape (n_envs, n).

        Returns:
            Positions to be moved in each circuit, shape (n_envs,); 0 where nothing moves.
        """
        own_places, moves = places.tolist(), []
        # numbers of Python: a feeder has few of them, and array code took 9 us a kind whatever their number
        for env, goals in enumerate(position.tolist()):
            now = self._circuits[env].switchgear.positions(kind).tolist()
            away = [(place, goal) for place, goal in zip(own_places, goals, strict=True) if goal != now[place]]
            moves.append(sum([abs(goal - now[place]) for place, goal in away]))
            if away:
                self._wanted.setdefault(env, []).extend([(kind, place, goal) for place, goal in away])
        return np.array(moves) if any(moves) else 0

    def solve(
        self,
        envs: Sequence[int] | None = None,
        alone: Collection[int] = (),
        solve_alone: Callable[[int], bool] | None = None,
    ) -> None:
        """Write what was taken, move switchgear and solve; :meth:`read` has to follow.

        Args:
            envs: Which circuits; all if not given.
            alone: Those that are solved by ``solve_alone`` once they are written, which says whether it converged.
            solve_alone: Solves one circuit.
        """
        reader, converged, wanted = self._reader, self._converged, self._wanted
        for env in range(len(self._circuits)) if envs is None else envs:
            circuit = self._circuits[env]
            admittance = circuit.admittance
            stale = admittance.stale
            if env in wanted:
                for kind, place, goal in wanted[env]:
                    circuit.switchgear.move(kind, place, goal)
                # what moved just now goes into the matrix before setpoints are written, which building it would
                # overwrite; what moved since the last solve goes in after them, as only then does the engine build all
                # of it anew
                if admittance.stale and not stale:
                    admittance.update(put_back=False)
            for written, row, write in self._writes[env]:
                written[:] = row
                write()
            if not admittance.stale:
                circuit.engine.keep_y()
            if solve_alone is not None and env in alone:
                converged[env] = solve_alone(env)
            else:
                converged[env] = circuit.run()
            self._take(env)
            if admittance.version != self._versions[env]:
                reader.write_admittances(env, admittance.entries)
                self._versions[env] = admittance.version

    def _take(self, env: int) -> None:
        """Take voltages and powers out of an engine."""
        circuit = self._circuits[env]
        self._v[env] = circuit.v
        np.negative(circuit.powers.fetch(), out=self._delivered[env])

    def read(self, envs: Sequence[int] | None = None, *, whole: bool = False) -> BoolArray:
        """Fill the snapshot with what was solved, all circuits in one pass.

        Args:
            envs: The circuits that were solved; all if not given.
            whole: Whether the rows of the others may be filled anew too, since nobody looks at them.

        Returns:
            Whether each power flow converged to finite voltages, shape (n_envs,); True of those left out. Where not,
            its rows of the snapshot stay as they were, and its next solve starts from the last good voltages.
        """
        if envs is not None and len(envs) == len(self._circuits):
            envs = None
        snapshot, v = self._snapshot, self._v
        v_pu = self._reader.magnitudes(v)
        # the place of the highest, or of a NaN, is found in a fifth of the time that the highest itself is
        highest = v_pu.take(v_pu.argmax(axis=1) + self._first_node)
        sound: BoolArray = highest < self._sane  # NaN compares false
        forming = [circuit.forming for circuit in self._circuits] if self._any_forming else []
        sure = envs is None or whole
        if sure and False not in self._converged and False not in sound.tolist():  # as in nearly every step
            for circuit in self._circuits if envs is None else [self._circuits[env] for env in envs]:
                circuit.accept()
            self._reader.read(snapshot, v, v_pu, self._delivered, forming)
            return sound
        sound &= self._converged
        asked = np.zeros(len(self._circuits), dtype=bool)
        asked[slice(None) if envs is None else envs] = True
        for env in np.flatnonzero(asked & ~sound).tolist():
            if self._circuits[env].rescue():
                sound[env] = self._converged[env] = True
                self._take(env)
        v_pu = self._reader.magnitudes(v)
        fresh, sound = sound & asked, sound | ~asked
        for env in range(len(self._circuits)) if envs is None else envs:
            if fresh[env]:
                self._circuits[env].accept()
            else:
                self._circuits[env].fall_back()
        kept = {name: array[~fresh] for name, array in vars(snapshot).items()}
        v[~fresh], v_pu[~fresh], self._delivered[~fresh] = snapshot.v[~fresh], snapshot.v_pu[~fresh], 0.0
        self._reader.read(snapshot, v, v_pu, self._delivered, forming)
        for name, rows in kept.items():
            getattr(snapshot, name)[~fresh] = rows
        return sound

    def set_ratings(self, env: int, norm_amps: FloatArray) -> None:
        """Reckon one circuit's loadings by other ratings [A], shape (n_branches,), from its next read on."""
        self._reader.set_ratings(env, norm_amps)

    # -- state

    def state(self) -> list[State]:
        """Return what the next solve of each circuit depends on besides the setpoints."""
        return [circuit.state() for circuit in self._circuits]

    def restore(self, state: Sequence[State]) -> None:
        """Put a :meth:`state` back."""
        for circuit, kept in zip(self._circuits, state, strict=True):
            circuit.restore(kept)

    def close(self) -> None:
        """Release the engines."""
        for circuit in self._circuits:
            circuit.close()


def compile_circuits(
    feeder: Feeder,
    injections: Sequence[Injection],
    faults: Mapping[str, Sequence[Fault]],
    plan: ControlPlan,
    tapped: Sequence[tuple[str, int]],
    options: SimulationOptions,
) -> Iterator[Circuit]:
    """Compile a feeder as often as is asked for, with the ratings and the start that a simulation's options say.

    Args:
        feeder, injections, plan, tapped: As of :class:`Circuit`.
        faults: Short circuits that may strike, by event.
        options: Of the simulation.

    Raises:
        FeederError: As of :class:`Circuit`, :meth:`Circuit.set_ratings` and :meth:`Circuit.start_from`.
    """
    while True:
        circuit = Circuit(
            feeder,
            injections,
            faults=[fault for of_event in faults.values() for fault in of_event],
            tolerance=options.tolerance,
            max_iterations=options.max_iterations,
            plan=plan,
            tapped=tapped,
        )
        circuit.set_ratings(options.norm_amps, options.rating_scale)
        circuit.start_from(options.taps, options.steps_on)
        yield circuit
