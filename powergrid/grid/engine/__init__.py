"""One OpenDSS context: sandboxed text commands, handles, bulk reads and writes, solves.

The only package that knows the engine's. It knows no feeders, devices or agents. Names become handles once, after
compiling; nothing in here looks a name up while stepping.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from powergrid.errors import EngineError
from powergrid.grid.engine.bulk import BulkWriter, ComplexArray, FloatArray, Handle, IntArray, PowerReader
from powergrid.grid.engine.context import classify_refusal
from powergrid.grid.engine.elements import Elements
from powergrid.grid.engine.library import (
    engine_version,
    ffi,
    lib,
    names_of,
    property_kinds,
    property_tables,
    property_type,
    solver,
    text_of,
    threads_may_enter,
)
from powergrid.grid.engine.saved import complete_saved, read_data

__all__ = [
    "TOO_MANY_CONTROL_ITERATIONS",
    "BulkWriter",
    "ComplexArray",
    "Engine",
    "FloatArray",
    "Handle",
    "IntArray",
    "PowerReader",
    "classify_refusal",
    "engine_version",
    "property_kinds",
    "property_tables",
    "property_type",
    "threads_may_enter",
]

_REUSE_NOTHING, _REUSE_SYMBOLIC_FACTORISATION = 0, 2
_WHOLE_MATRIX = 2
#: Of DSSSaveFlags: base voltages as they are, options, all in one file, in the order of definition. Not ToString, which
#: returns memory that is freed already.
_SAVED = 2 | 4 | 32 | 64
TOO_MANY_CONTROL_ITERATIONS = 485
_TOO_MANY_TEXT = "Max Control Iterations"  # the number is 99 where the limit is hit outside a text command


class Engine(Elements):
    """Own one OpenDSS context with its circuit; several live in one process without touching each other.

    The process's working directory never changes, nothing is written outside a temporary folder, and
    no editor, form or shell command can run.

    Attributes:
        hunted: Whether controls did not come to rest in the last :meth:`solve`, and were held where they got to.
    """

    hunted = False

    _lags = False  # whether elements' own admittances are of before entries were written
    _solve_with_controls = lib.ctx_Solution_Solve

    @property
    def direct(self) -> Any:
        """The same context through OpenDSSDirect's own interface, for looking around by hand."""
        if self._lags:
            self.build_y()
        return super().direct

    # -- the circuit

    def prepare(self, *, tolerance: float, max_iterations: int) -> None:
        """Set the solution options that belong to a compiled circuit.

        Args:
            tolerance: Convergence tolerance of the fixed-point iteration [pu].
            max_iterations: Limit of power-flow and of control iterations.
        """
        # Not controlmode=time: without a time step its controls never act. Not daily: dearer with meters.
        for option in ("mode=snapshot", "controlmode=static", "number=1"):
            self.command(f"set {option}")
        lib.ctx_Solution_Set_Tolerance(self._context, tolerance)
        lib.ctx_Solution_Set_MaxIterations(self._context, max_iterations)
        lib.ctx_Solution_Set_MaxControlIterations(self._context, max_iterations)
        # Else taps and capacitor steps are put into the matrix entry by entry, where each entry that is looked up leaks
        # 32 B for ever (UpdateYMatrix of 0.14.5): 1 to 2 kB a step with 5 devices moving. See write_entries.
        lib.ctx_YMatrix_Set_SolverOptions(self._context, _REUSE_NOTHING)
        self.check()

    def enter_daily_mode(self) -> None:
        """Have controls that look at daily shapes do so; elements have to have none, whose levels are written.

        Solving still is a snapshot's: no time passes.
        """
        for option in ("mode=daily", "controlmode=static", "number=1"):
            self.command(f"set {option}")
        self._solve_with_controls = lib.ctx_Solution_SolveSnap  # what it is in a snapshot; else a day is played

    @property
    def load_multiplier(self) -> float:
        """The circuit's multiplier of all loads whose status is variable."""
        return float(lib.ctx_Solution_Get_LoadMult(self._context))

    @load_multiplier.setter
    def load_multiplier(self, value: float) -> None:
        lib.ctx_Solution_Set_LoadMult(self._context, value)

    @property
    def generator_multiplier(self) -> float:
        """The circuit's multiplier of all generators whose status is not fixed."""
        return float(lib.ctx_Solution_Get_GenMult(self._context))

    @property
    def year(self) -> int:
        """The year that loads have grown to; 0 is none."""
        return int(lib.ctx_Solution_Get_Year(self._context))

    @year.setter
    def year(self, value: int) -> None:
        lib.ctx_Solution_Set_Year(self._context, value)

    @property
    def growth_percent(self) -> float:
        """By how much loads without a GrowthShape grow each year [%]."""
        return float(lib.ctx_Solution_Get_pctGrowth(self._context))

    def to_json(self) -> dict[str, Any]:
        """Return the whole circuit as data, as OpenDSS writes it.

        Raises:
            EngineError: there is no circuit, or a number in it is not finite.
        """
        pointer = lib.ctx_Circuit_ToJSON(self._context, 0)  # the context's own buffer: not ours to dispose
        self.check()
        try:
            return read_data(self, text_of(pointer))
        except ValueError:
            raise EngineError("a number in the circuit is not finite") from None

    def from_json(self, circuit: Mapping[str, Any]) -> None:
        """Build a circuit from data as :meth:`to_json` gives them, in place of the one that is there.

        Raises:
            EngineError: OpenDSS refused them.
        """
        self.clear()
        lib.ctx_Circuit_FromJSON(self._context, json.dumps(circuit).encode("utf-8"), 0)
        self.check()

    def to_dss(self) -> str:
        """Return the circuit as it stands as commands that build it in any OpenDSS.

        What is open is not in it, nor which steps of capacitors are on.

        Raises:
            EngineError: there is no circuit.
        """
        with tempfile.TemporaryDirectory(prefix="powergrid-") as folder:
            file = Path(folder) / "Circuit.dss"
            lib.ctx_Circuit_Save(self._context, os.fsencode(file), _SAVED)
            self.check()
            return complete_saved(self, file.read_text(encoding="utf-8", errors="surrogateescape"))

    def buses(self) -> dict[str, tuple[float, float, float]]:
        """Return each bus's line-to-neutral base voltage [kV], 0 where none, and coordinates, NaN where none."""
        context, count = self._context, int(lib.ctx_Circuit_Get_NumBuses(self._context))
        self.check()
        buses = lib.Alt_Bus_GetListPtr(context)
        names = names_of(lib.Alt_Bus_Get_Name(context, buses[i]) for i in range(count)) if count else []
        kv, x, y = (self._ask_buses(buses, count, f"Alt_Bus_Get_{name}") for name in ("kVBase", "X", "Y"))
        placed = [lib.Alt_Bus_Get_CoordDefined(context, buses[i]) for i in range(count)]
        return {
            name: (of_bus, *(place if has_place else (math.nan, math.nan)))
            for name, of_bus, has_place, *place in zip(names, kv, placed, x, y, strict=True)
        }

    def _ask_buses(self, buses: Any, count: int, name: str) -> list[float]:
        """Return one number of each bus."""
        ask = ffi.addressof(lib, name)
        lib.Alt_BusBatch_GetFloat64FromFunc(self._context, self._result, self._result_dims, buses, count, ask)
        self.check()
        found: list[float] = self._floats().tolist()
        return found

    def node_names(self) -> tuple[str, ...]:
        """Return the ``bus.node`` names in the order of :meth:`voltages`, lower case."""
        names = ffi.new("char***")
        dims = ffi.new("int32_t[4]")
        # AllNodeNames has another order than the voltages.
        lib.ctx_Circuit_Get_YNodeOrder(self._context, names, dims)
        try:
            self.check()
            return tuple(names_of(names[0][0 : dims[0]])) if dims[0] else ()
        finally:
            lib.DSS_Dispose_PPAnsiChar(names, dims[1])

    def voltages(self, n_nodes: int) -> ComplexArray:
        """Return the engine's own node voltages [V] without a copy, shape (n_nodes + 1,).

        Entry 0 is ground. The view is valid until the circuit gets a new bus or is compiled again.
        """
        lib.ctx_YMatrix_getVpointer(self._context, self._v_pointer)
        return np.frombuffer(ffi.buffer(self._v_pointer[0], 16 * (n_nodes + 1)), dtype=np.complex128)

    def set_clock(self, hours: float) -> None:
        """Tell the controls what time it is [h]; nothing advances."""
        lib.ctx_Solution_Set_Hour(self._context, int(hours))
        # Rounded, so that what is due at the end of some steps is due there however hours came about.
        lib.ctx_Solution_Set_Seconds(self._context, round((hours - int(hours)) * 3600.0, 6))

    @property
    def step_hours(self) -> float:
        """How long a step is for controls [h]; to set it sets the interval too."""
        return float(lib.ctx_Solution_Get_StepSize(self._context)) / 3600.0

    @step_hours.setter
    def step_hours(self, hours: float) -> None:
        lib.ctx_Solution_Set_StepSize(self._context, hours * 3600.0)

    @property
    def interval_hours(self) -> float:
        """For how long batteries lose and gain in a step that :meth:`finish_step` ends [h]."""
        return float(lib.ctx_Solution_Get_IntervalHrs(self._context))

    @interval_hours.setter
    def interval_hours(self, hours: float) -> None:
        lib.ctx_Solution_Set_IntervalHrs(self._context, hours)

    def finish_step(self) -> None:
        """Let batteries lose and gain what they delivered and took in the last solve, and controls remember it."""
        lib.ctx_Solution_Cleanup(self._context)
        self.keep_y()

    def push_action(self) -> None:
        """Let an action that does nothing be due now, after which the flow is solved again."""
        hour, seconds = (get(self._context) for get in (lib.ctx_Solution_Get_Hour, lib.ctx_Solution_Get_Seconds))
        lib.ctx_CtrlQueue_ClearActions(self._context)  # those carried out are kept for whoever asks
        lib.ctx_CtrlQueue_Push(self._context, hour, seconds, 0, 0)

    def clear_actions(self) -> None:
        """Forget the actions of controls that are still waiting."""
        lib.ctx_CtrlQueue_ClearQueue(self._context)

    def finish_actions(self) -> None:
        """Carry out the actions of controls that are still waiting."""
        lib.ctx_CtrlQueue_DoAllQueue(self._context)

    def keep_y(self) -> None:
        """Tell the engine that the last writes left the admittance matrix as it was."""
        lib.ctx_YMatrix_Set_SystemYChanged(self._context, 0)

    def build_y(self, *, voltages: bool = False) -> None:
        """Build the admittance matrix now, of what is written so far; voltages stay.

        Args:
            voltages: Make room for the voltages too, which are 0 then: has to be where elements came since the last
                solve, or those of new nodes are written past the end.
        """
        lib.ctx_Solution_BuildYMatrix(self._context, _WHOLE_MATRIX, int(voltages))
        self._lags = False
        self.keep_y()
        self.check()

    def read_entries(self, places: Sequence[tuple[int, int]]) -> list[complex]:
        """Return entries of the admittance matrix [S] by row and column, as :meth:`voltages` has the nodes.

        Returns:
            The entries, 0 where the matrix has none; none at all where the solver cannot be reached.
        """
        if solver is None:
            return []
        matrix, value = self._matrix(), ffi.new("double[2]")
        solver.FactorSparseMatrix(matrix)  # before it is factorised the matrix is a list of parts
        found = []
        for row, column in places:
            solver.GetMatrixElement(matrix, row, column, value)
            found.append(complex(value[0], value[1]))
        return found

    def write_entries(self, entries: Sequence[tuple[int, int, float, float]]) -> bool:
        """Put entries into the admittance matrix that it has; the next solve factorises its numbers alone.

        Args:
            entries: Row, column, real and imaginary part [S] of each.

        Returns:
            Whether all could be put there; else the matrix has to be built.
        """
        if solver is None or self._direct is not None:
            return False
        matrix, zero, add = self._matrix(), solver.ZeroiseMatrixElement, solver.IncrementMatrixElement
        solver.SetOptions(matrix, _REUSE_SYMBOLIC_FACTORISATION)
        self._lags = True
        for row, column, re, im in entries:  # noqa: SIM110  # a generator takes half as long again
            if not (zero(matrix, row, column) and add(matrix, row, column, re, im)):
                return False
        return True

    def _matrix(self) -> int:
        """Return the solver's number of the admittance matrix, another one after each build."""
        return int(ffi.cast("uintptr_t", lib.ctx_YMatrix_Get_Handle(self._context)))

    # -- solving

    def solve(self, *, controls: bool = False) -> bool:
        """Solve the power flow and say whether it converged.

        Args:
            controls: Let the feeder's own controls act; else they are held.

        Raises:
            EngineError: OpenDSS reported something else than too many control iterations.
        """
        (self._solve_with_controls if controls else lib.ctx_Solution_SolveNoControl)(self._context)
        self.hunted = bool(self._error[0])
        if self.hunted:
            self._recover()
            lib.ctx_Solution_SolveNoControl(self._context)  # with the controls where they got to
            self.check()
        return bool(lib.ctx_Solution_Get_Converged(self._context))

    def solve_by_itself(self) -> bool:
        """Solve with the feeder's own controls acting, and what they move put into the matrix entry by entry."""
        lib.ctx_YMatrix_Set_SolverOptions(self._context, _REUSE_SYMBOLIC_FACTORISATION)
        try:
            return self.solve(controls=True)
        finally:
            lib.ctx_YMatrix_Set_SolverOptions(self._context, _REUSE_NOTHING)

    def start_controls(self) -> None:
        """Let the feeder's own controls begin anew; then :meth:`solve` and :meth:`act_controls` take turns."""
        lib.ctx_Solution_InitSnap(self._context)

    def reset_controls(self) -> None:
        """Put all controls of the feeder's own back to where they begin, as far as the engine does so."""
        self.command("reset controls")

    def act_controls(self, turn: int) -> bool:
        """Let the feeder's own controls look at the solved circuit and act; say whether any did.

        Args:
            turn: How often they were asked since :meth:`start_controls`, this time included.
        """
        lib.ctx_Solution_Set_ControlIterations(self._context, turn)  # inverter controls look at it
        lib.ctx_Solution_Sample_DoControlActions(self._context)  # not CheckControls, which builds the matrix
        self.check()
        return not lib.ctx_Solution_Get_ControlActionsDone(self._context)

    def _recover(self) -> None:
        """Go on after too many control iterations: the engine refuses to solve until the next text command."""
        number = int(self._error[0])
        message = text_of(lib.ctx_Error_Get_Description(self._context)).strip()
        self._error[0] = 0
        self.command("get number")
        if number != TOO_MANY_CONTROL_ITERATIONS and _TOO_MANY_TEXT not in message:
            raise EngineError(message, number)

    @property
    def iterations(self) -> int:
        """Power-flow iterations of the last solve."""
        return int(lib.ctx_Solution_Get_Iterations(self._context))
