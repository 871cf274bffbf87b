"""What the feeder's own controls remember from step to step: kept as in OpenDSS, begun anew, and put back.

Inverter controls go on from the reactive power of the step before and follow mean voltages, storage controllers know
whether their fleet charges, regulators whether power flows back, those of capacitors that a signal leads what they did.
The engine tells and takes none of it. So an episode begins with controls that are made to forget, and a state is put
back by playing the episode's steps once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from powergrid.grid.circuit.circuit import Circuit, State
from powergrid.grid.circuit.own.controls import follows_signal
from powergrid.grid.circuit.own.storage import LedBatteries, OwnStorage
from powergrid.grid.engine import FloatArray, Handle, PowerReader
from powergrid.grid.feeder.network import FeederControl
from powergrid.grid.feeder.network.shapes import ShapeMode
from powergrid.grid.feeder.timing import SHAPED_CLASSES

#: Controls of power that remember, in any mode; regulators do where power may flow back.
_REMEMBERING = ("InvControl", "ExpControl", "StorageController")
#: OpenDSS's ordinal of StorageController.ModeDischarge in which its own shape leads a fleet, and which shape does so
#: in what mode, the first that there is.
_BY_SHAPE = 2
_SHAPES: Mapping[ShapeMode, tuple[str, ...]] = {
    "own": ("Yearly", "Daily"),
    "daily": ("Daily",),
    "yearly": ("Yearly", "Daily"),
    "duty": ("Duty", "Daily"),
}
#: Name of a shape of our own that idles a fleet.
_IDLE = "powergrid idle"


class Solved(NamedTuple):
    """One solve: the circuit before it, all that was written, the hour, and of batteries that are devices two more.

    Attributes:
        told: What the engine was told of their energy [%], None where there are none.
        held: What they were held to [kW], None where what controllers asked could be had.
    """

    before: State
    values: list[FloatArray]
    hours: float
    told: FloatArray | None
    held: FloatArray | None = None


class Remembered(NamedTuple):
    """What controls remember: what devices' batteries were told at first, and all solves; None where a step ended."""

    told: FloatArray | None
    log: list[Solved | None]


def find_remembering(circuit: Circuit) -> list[FeederControl]:
    """Return the controls acting in a circuit that go from one step into the next."""
    engine, found = circuit.engine, []
    if circuit.feeder.controls_wait:  # all of them, what waits for its time
        return list(circuit.controls.controls)
    for control in circuit.controls.controls:
        remembers = control.class_name in _REMEMBERING
        if control.class_name == "RegControl":
            handle = engine.handles("RegControl")[control.name]
            remembers = any(engine.get_int(handle, "RegControl", key) for key in ("Reversible", "Cogen"))
        if control.class_name == "CapControl":
            remembers = follows_signal(engine, engine.handles("CapControl")[control.name])
        if remembers:
            found.append(control)
    return found


class ControlMemory:
    """Keep what the controls of one circuit remember.

    Args:
        circuit: The circuit.
        controls: Those that remember.
        storage: Its batteries that are no device, where it has any.
        led: Its batteries that are devices led by controllers, where it has any.
        dt_h: Length of a step [h].
        mode: Which of its shapes a controller follows that has several.
    """

    def __init__(
        self,
        circuit: Circuit,
        controls: Sequence[FeederControl],
        storage: OwnStorage | None,
        led: LedBatteries | None,
        dt_h: float,
        mode: ShapeMode,
    ) -> None:
        self._circuit, self._storage, self._led = circuit, storage, led
        self._log, self._told = list[Solved | None](), None if led is None else led.look()
        engine = circuit.engine
        self._fleets, self._turning = (
            [engine.handles(class_name)[c.name] for c in controls if c.class_name == class_name]
            for class_name in ("StorageController", "RegControl")
        )
        self._limiting = any(control.class_name == "InvControl" for control in controls)
        self._shaped = self._follow_shapes(mode)
        self._threshold = engine.property_index("RegControl", "RevThreshold")
        self._winding, self._tap_winding = (
            engine.property_index("RegControl", key) for key in ("Winding", "TapWinding")
        )
        self._regulated = [self._read_regulated(handle) for handle in self._turning]
        self._dt_h, self._compiled_h = dt_h, engine.step_hours
        self._waiting = circuit.feeder.controls_wait
        if self._waiting:
            engine.command("set controlmode=time")
        circuit.controls.remember(waiting=self._waiting, period_h=math.lcm(24, *self._shape_hours()))
        circuit.protection.replayed = True
        self.forget()
        if storage is not None:  # which the fleets' controllers had moved
            storage.start_from_here()

    def _follow_shapes(self, mode: ShapeMode) -> list[tuple[Handle, Handle | None]]:
        """Get controllers ready that follow a shape of their own; return each with the one that it follows.

        The engine has them look at it in modes in which it would lead all other elements by theirs too, beside what is
        written. So these lose theirs, and the one mode left is daily.
        """
        engine, found = self._circuit.engine, []
        for handle in self._fleets:
            if engine.get_int(handle, "StorageController", "ModeDischarge") == _BY_SHAPE:
                shapes = (engine.get_object(handle, "StorageController", key) for key in _SHAPES[mode])
                found.append((handle, next((shape for shape in shapes if shape is not None), None)))
        if found:
            for class_name in SHAPED_CLASSES:
                for key in ("Daily", "TDaily")[: 1 + (class_name == "PVSystem")]:
                    for handle in engine.handles(class_name).values():
                        if engine.get_object(handle, class_name, key) is not None:
                            engine.set_object(handle, engine.property_index(class_name, key), None)
            engine.command(f'new "LoadShape.{_IDLE}" npts=1 interval=1 mult=[0]')
            engine.enter_daily_mode()
        return found

    def _shape_hours(self) -> list[int]:
        """Return after how many hours each shape that leads a fleet begins anew."""
        engine, shapes = self._circuit.engine, [shape for _, shape in self._shaped if shape is not None]
        lengths = [
            engine.get_int(s, "LoadShape", "NPts") * engine.get_float(s, "LoadShape", "Interval") for s in shapes
        ]
        return [max(1, round(length)) for length in lengths]

    def _show_shapes(self, *, idle: bool = False) -> None:
        """Have controllers see their shapes, or one that idles their fleets."""
        engine = self._circuit.engine
        for handle, shape in self._shaped:
            seen = engine.handles("LoadShape")[_IDLE] if idle else shape
            engine.set_object(handle, engine.property_index("StorageController", "Daily"), seen)

    def _read_regulated(self, control: Handle) -> tuple[PowerReader, slice, list[int]]:
        """Return what reads a regulator's transformer, its conductors at the regulated winding, and the windings."""
        engine = self._circuit.engine
        class_name, name = engine.get_reference(control, "RegControl", "Transformer")
        transformer = engine.handles(class_name)[name]
        windings = [engine.get_int(control, "RegControl", key) for key in ("Winding", "TapWinding")]
        n, first = engine.terminals(transformer)[1], windings[0] - 1
        return PowerReader([transformer]), slice(first * n, (first + 1) * n), windings

    # -- an episode

    def begin(self, told: FloatArray | None = None) -> None:
        """Have the controls remember what they do of the model as it stands; the circuit stays where it is.

        Args:
            told: What devices' batteries hold then [%]; what they do now if unset.
        """
        circuit = self._circuit
        if self._led is not None:
            self._told = self._led.look() if told is None else told
        kept = circuit.state()
        self.forget()
        if circuit.file_solves:
            self._move_to_compiled()
            circuit.engine.step_hours = self._compiled_h
            circuit.solve(controls=True)
            self._reset_controls()  # as OpenDSS does where a mode is set
        if self._storage is not None:
            self._storage.take_others()
        self._show_shapes()
        circuit.engine.step_hours = self._dt_h
        if self._storage is None:  # what devices hold is told
            circuit.engine.interval_hours = 0.0
        if self._waiting:
            self._reset_controls()
        circuit.restore(kept)
        if self._waiting:
            circuit.controls.start_waiting()

    def _move_to_compiled(self) -> None:
        """Put regulators and capacitors where the model has them, before any control acted."""
        gear = self._circuit.switchgear
        positions = gear.state()
        for key, compiled in self._circuit.compiled_positions.items():
            positions[key][: len(compiled)] = compiled
        gear.restore(positions)

    def forget(self) -> None:
        """Put circuit and batteries where they start, and have the controls know nothing."""
        circuit = self._circuit
        self._show_shapes(idle=True)
        self._free_inverters()
        circuit.reset()
        circuit.setpoints.write(circuit.setpoints.start)
        if self._storage is not None:
            self._storage.reset()
        circuit.engine.set_clock(0.0)
        self._log.clear()
        if self._fleets:
            self._stop_fleets()
        if self._turning:
            self._turn_forward()
        circuit.controls.forget()
        circuit.switchgear.follow()  # what acted meanwhile may have moved some
        circuit.reset()

    def _free_inverters(self) -> None:
        """Take limits back that controls of inverters set: only the end of a step does, here one of no length."""
        engine = self._circuit.engine
        if self._limiting:
            hours = engine.interval_hours
            engine.interval_hours = 0.0
            engine.finish_step()
            engine.interval_hours = hours

    def _stop_fleets(self) -> None:
        """Have controllers whose batteries are full forget that these were spent."""
        for batteries in (self._storage, self._led):
            if batteries is not None:
                batteries.fill()
        self._act(1, 2)
        self._reset_controls()
        if self._storage is not None:
            self._storage.write()
        self._tell(self._told)

    def _tell(self, percent: FloatArray | None) -> None:
        if self._led is not None and percent is not None:
            self._led.tell(percent)

    def _reset_controls(self) -> None:
        """Reset all controls, as OpenDSS does where a mode is set: fleets idle, whatever their rates are by now."""
        self._circuit.engine.reset_controls()
        self._circuit.switchgear.follow()

    def _turn_forward(self) -> None:
        """Have regulators find that power flows forward, as it does before the first solve.

        All at once, for those whose power flows back would turn meanwhile; these look at their other winding.
        """
        engine = self._circuit.engine
        engine.solve()
        thresholds = [engine.get_number(handle, self._threshold) for handle in self._turning]
        for handle, (reader, side, (winding, tapped)) in zip(self._turning, self._regulated, strict=True):
            forward_kw = -float(reader.fetch()[side].sum().real)
            engine.set_float(handle, self._threshold, abs(forward_kw) / 2.0)
            if forward_kw < 0.0:
                engine.set_int(handle, self._winding, 2 if winding == 1 else 1)
                engine.set_int(handle, self._tap_winding, tapped)
        self._act(1)
        for handle, (_, _, (winding, tapped)), threshold in zip(
            self._turning, self._regulated, thresholds, strict=True
        ):
            engine.set_int(handle, self._winding, winding)
            engine.set_int(handle, self._tap_winding, tapped)
            engine.set_float(handle, self._threshold, threshold)

    def _act(self, *turns: int) -> None:
        """Let the controls look at the voltages as they are, and act, as in some turns of a solve."""
        engine = self._circuit.engine
        engine.start_controls()
        for turn in turns:
            engine.act_controls(turn)
            engine.finish_actions()

    def note(self, hours: float) -> None:
        """Keep how the circuit comes into a solve, so that it can be played once more."""
        values = [writer.values.copy() for writer in self._circuit.setpoints.writers]
        told = None if self._led is None else self._led.look()
        self._log.append(Solved(self._circuit.state(), values, hours, told))

    def note_held(self, kw: FloatArray) -> None:
        """Keep what devices' batteries were held to in that solve [kW]."""
        if (last := self._log[-1]) is not None:
            self._log[-1] = last._replace(held=kw)

    def end_step(self) -> None:
        """Let the controls look at what a step came to, after a solve that converged."""
        self._log.append(None)
        if self._storage is None:
            self._circuit.engine.finish_step()

    def undo(self) -> None:
        """Forget the solves since the last step ended; the circuit's own state is to be put back then."""
        kept = self.state()
        while kept.log and kept.log[-1] is not None:
            kept.log.pop()
        self.restore(kept)

    # -- state

    def state(self) -> Remembered:
        """Copy what the controls remember: all that was played since the episode began."""
        return Remembered(self._told, list(self._log))

    def restore(self, state: Remembered) -> None:
        """Put a :meth:`state` back; call before the circuit's own and that of its batteries."""
        self.begin(state.told)
        for solved in state.log:
            if solved is not None:
                self._solve_again(solved)
                continue
            if self._storage is not None:
                self._storage.advance()
            self.end_step()

    def _solve_again(self, solved: Solved) -> None:
        circuit = self._circuit
        limit: Callable[[], bool] | None = None
        circuit.restore(solved.before)
        if self._storage is not None:
            self._storage.write()
        circuit.setpoints.write(solved.values)
        circuit.keep_y()
        self._tell(solved.told)
        if self._led is not None:
            limit = partial(self._led.hold, solved.held)
        circuit.controls.prepare(solved.hours)
        self._log.append(solved)
        circuit.run(controls=True, limit=limit)
