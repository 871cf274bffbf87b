"""A hard limit on what agents do: no step worse than under the feeder's own controls, which play the same day beside.

Knows no agents and no rewards: what is worse is counted in nodes, branches and kW.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from powergrid.grid.circuit.circuit import State
from powergrid.grid.metrics import node_limits
from powergrid.grid.numbers import Values
from powergrid.grid.simulation import BoolArray, FloatArray, HandedBack, IntArray, Simulation

#: By how much each number of ``_measure`` may be above theirs and count as no worse: what solves of one state differ
#: by, 1e-5 pu a node at the usual tolerance, more in loadings, as little voltage drives much current through a
#: transformer. Nodes and branches are counted.
_NOTICED = np.array([0.0, 1e-3, 0.0, 0.0, 1e-4, 1e-3, 1e-5, 1e-3])[:, None]
#: Which of these numbers are of voltages, and which of loadings; the others count always.
_OF = {"voltages": (2, 4, 6), "loadings": (3, 5, 7)}
#: Voltages that are no farther apart are of one state, whatever flips at a limit [pu].
_ONE_STATE_PU = 1e-4


class LimitedSimulation(Simulation):
    """Hand devices back to the feeder's own controls in the steps that agents would leave worse than these do.

    The days are played a second time beside, left to the own controls and the model (the baseline ``native``). A step
    is worse if its power flow does not converge and theirs does, or if it has more load without supply, more nodes
    outside the limits, more branches above their rating, or is farther beyond either, in sum or at the worst place. It
    is then solved once more, from the same start, with the devices as they stand there; where that is no better, as
    stored or owed energy may have it, the agents' step stays. Devices stay handed back for some steps more.

    Args:
        beside: The same simulation left to itself, with as many environments.
        limits: Lowest and highest node voltage [pu].
        release_steps: Steps that devices stay handed back after one that would have been worse.
        worse_in: What counts besides supply and convergence: ``voltages``, ``loadings`` or both.
        arguments: As of :class:`Simulation`.
    """

    handed_back: HandedBack

    def __init__(
        self,
        beside: Simulation,
        limits: tuple[float, float],
        release_steps: int,
        worse_in: Collection[str],
        *arguments: Any,
    ) -> None:
        super().__init__(*arguments)
        self._beside = beside
        self._left_out = [row for what, rows in _OF.items() if what not in worse_in for row in rows]
        self._low, self._high = node_limits(self.network, *limits)
        # where all is within its limits nobody asks what the own controls did, so they play when asked for
        self._behind = 0
        n = self.n_envs
        steps_left, changed = np.zeros((n, 1)), np.zeros((n, len(self.device_names)))
        self.handed_back = HandedBack(release_steps, steps_left, np.zeros(n, dtype=bool), changed)
        # Regulators and banks that are no device: these move only while all is handed back.
        gear = self.circuits[0].switchgear
        self._no_devices = {kind: np.ones(len(gear.positions(kind)), dtype=bool) for kind in ("regulator", "capacitor")}
        for _, places, kind in self._devices.switchgear:
            if kind in self._no_devices:
                self._no_devices[kind][places] = False
        self._before: list[State] = []
        self._stored: list[Any] = []

    def reset_all(self, envs: Sequence[int], rngs: Sequence[np.random.Generator], day: int | None = None) -> None:
        """Put several environments at the start of a day, and the same day beside; see :meth:`Simulation.reset`."""
        if len(envs) < self.n_envs:
            self._catch_up()
        self._behind = 0
        self._beside.reset_all(envs, copy.deepcopy(list(rngs)), day)  # before anything is drawn
        super().reset_all(envs, rngs, day)
        told = self.handed_back
        told.steps_left[envs], told.active[envs], told.changed[envs] = 0.0, False, 0.0

    def take_numbers(self, env: int, values: Values) -> None:
        """Let an environment have numbers of its own, and the same one beside; see :meth:`Simulation.take_numbers`."""
        super().take_numbers(env, values)
        self._beside.take_numbers(env, values)

    # -- parts of a step

    def _play_step(self) -> None:
        told = self.handed_back
        self._behind += 1
        told.changed[...] = 0.0
        told.active = told.steps_left[:, 0] > 0.0
        held = np.flatnonzero(told.active)
        if held.size:
            self._catch_up()
            self._hand_back(held)
        moves = self._align(held)
        super()._play_step()
        self.operations[held] += moves
        mine = self._measure(self)
        beyond: BoolArray = mine.any(axis=0) & ~told.active
        np.maximum(told.steps_left - 1.0, 0.0, out=told.steps_left)
        if beyond.any():
            self._judge(mine, beyond)

    def _play(self, envs: Sequence[int] | None = None) -> BoolArray:
        if envs is None:  # events have struck, and nothing has moved yet
            self._before = self.circuits.state()
            self._stored = [] if self._batteries is None else self._batteries.state()
        return super()._play(envs)

    def _judge(self, mine: FloatArray, beyond: BoolArray) -> None:
        """Play the step again where agents left the grid worse.

        Args:
            mine: What is wrong with it, as of :meth:`_measure`.
            beyond: Where that is to be held against the own controls, shape (n_envs,).
        """
        self._catch_up()
        theirs = self._measure(self._beside)
        theirs[:, ~self._beside.snapshot.converged] = np.inf
        worse = np.flatnonzero(beyond & (mine > theirs + _NOTICED).any(axis=0))
        if not worse.size:
            return
        told, asked = self.handed_back, self._devices.settings(worse)
        self._hand_back(worse)
        self._play_again(worse, handed_back=True)
        again = self._measure(self)
        apart_pu = np.abs(self.snapshot.v_pu - self._beside.snapshot.v_pu).max(axis=1)
        good = (again <= theirs + _NOTICED).all(axis=0) | (apart_pu < _ONE_STATE_PU)
        kept = np.array([good[env] or again[:, env].tolist() < mine[:, env].tolist() for env in worse.tolist()])
        told.active[worse[kept]], told.steps_left[worse[kept]] = True, told.release_steps
        if not kept.all():
            self._devices.set_again(worse, asked, ~kept)
            told.changed[worse[~kept]] = 0.0
            self._play_again(worse[~kept], handed_back=False)

    def _hand_back(self, rows: IntArray) -> None:
        """Set devices of some environments to what they do beside."""
        self.handed_back.changed[rows] = self._devices.hand_back(rows, self._exogenous, self._beside._devices)

    def _align(self, rows: IntArray) -> IntArray:
        """Move regulators and banks that are no device to where they stand beside; return positions moved in each."""
        moves = np.zeros(len(rows), dtype=np.int64)
        for i, env in enumerate(rows.tolist()):
            mine, theirs = (each.circuits[env].switchgear for each in (self, self._beside))
            for kind, free in self._no_devices.items():
                now, goal = mine.positions(kind), theirs.positions(kind)
                for place in np.flatnonzero(free & (now != goal)).tolist():
                    moves[i] += abs(int(goal[place] - now[place]))
                    mine.move(kind, place, int(goal[place]))
        return moves

    def _play_again(self, envs: IntArray, *, handed_back: bool) -> None:
        """Play the step of some environments once more, from the same start, with what devices are set to now.

        Args:
            envs: Which environments.
            handed_back: Whether these are handed back, so that what is to come is near what is beside.
        """
        circuits, islands = self.circuits, self.islands
        for env in envs.tolist():
            if self._native is not None:
                self._native.undo(env)
            circuits[env].restore(self._before[env])
            if self._batteries is not None:
                self._batteries.own[env].restore(self._stored[env])
            if self.events is not None:
                self.events.hold_again(env)
            if islands is not None:
                islands.act_again(env, self.setpoints)
            elif handed_back:
                circuits[env].v[:] = self._beside.circuits[env].v
        moves = self._align(envs) if handed_back else 0
        self.snapshot.converged[envs] = self._play(envs.tolist())[envs]
        self.operations[envs] += moves
        if self._native is not None:
            self.operations[envs] += circuits.own_moves[envs]
        if islands is not None:
            for env in envs.tolist():
                islands.count(env, self.snapshot.v_pu[env], self.day_load_kw[env, self.step_index[env]])

    def _catch_up(self) -> None:
        """Have the own controls play the steps that they were not asked about yet."""
        while self._behind:
            self._beside.step(self._beside.neutral())
            self._behind -= 1

    def _measure(self, simulation: Simulation) -> FloatArray:
        """Return what is wrong with a solved step, what matters most first, shape (8, n_envs).

        These are: not converged, load without supply [kW], nodes outside the limits, branches above their rating, by
        how much these are, summed up, and at most [pu]. Of a step that did not converge nothing else is known.
        """
        snapshot, islands = simulation.snapshot, simulation.islands
        outside = np.maximum(snapshot.v_pu - self._high, self._low - snapshot.v_pu)
        outside = np.where(simulation.energised, np.maximum(outside, 0.0), 0.0)
        over = np.maximum(snapshot.loading_pu - 1.0, 0.0)
        failed = ~snapshot.converged
        found = np.array([
            failed,
            np.zeros(len(failed)) if islands is None else islands.total_unserved_kw(),
            np.count_nonzero(outside, axis=1),
            np.count_nonzero(over, axis=1),
            outside.sum(axis=1),
            over.sum(axis=1),
            outside.max(axis=1),
            over.max(axis=1, initial=0.0),
        ], dtype=np.float64)  # fmt: skip
        found[1:, failed] = 0.0
        found[self._left_out] = 0.0
        return found

    # -- state

    def state(self) -> dict[str, Any]:
        """Copy everything the future depends on, see :meth:`Simulation.state`, and the same of what plays beside."""
        told = self.handed_back
        own = {name: getattr(told, name).copy() for name in ("steps_left", "active", "changed")}
        return super().state() | {"handed_back": own, "behind": self._behind, "beside": self._beside.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put a :meth:`state` back."""
        super().restore(state)
        for name, value in state["handed_back"].items():
            getattr(self.handed_back, name)[...] = value
        self._behind = state["behind"]
        self._beside.restore(state["beside"])

    def close(self) -> None:
        """Release the engines."""
        super().close()
        self._beside.close()
