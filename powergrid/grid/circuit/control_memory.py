"""What the feeder's own controls remember from step to step: kept as in OpenDSS, begun anew, and put back.

Inverter controls go on from the reactive power of the step before and follow mean voltages, storage controllers know
whether their fleet charges, regulators whether power flows back. The engine tells and takes none of it. So an episode
begins with controls that are made to forget, and a state is put back by playing the episode's steps once more.
"""

from __future__ import annotations

from collections.abc import Sequence

from powergrid.grid.circuit.circuit import Circuit, State
from powergrid.grid.circuit.own_storage import OwnStorage
from powergrid.grid.engine import FloatArray, Handle, PowerReader
from powergrid.grid.feeder.network import FeederControl

#: Controls of power that remember, in any mode; regulators do where power may flow back.
_REMEMBERING = ("InvControl", "ExpControl", "StorageController")
#: OpenDSS's ordinal of StorageController.ModeDischarge in which, outside its modes of time, a fleet stands still.
_BY_SHAPE = 2
#: One solve: the circuit before it, all that was written, and the hour; None where a step ended.
Entry = tuple[State, list[FloatArray], float] | None


def find_remembering(circuit: Circuit) -> list[FeederControl]:
    """Return the controls acting in a circuit that go from one step into the next."""
    engine, found = circuit.engine, []
    for control in circuit.controls.controls:
        remembers = control.class_name in _REMEMBERING
        if control.class_name == "RegControl":
            handle = engine.handles("RegControl")[control.name]
            remembers = any(engine.get_int(handle, "RegControl", key) for key in ("Reversible", "Cogen"))
        if remembers:
            found.append(control)
    return found


class ControlMemory:
    """Keep what the controls of one circuit remember.

    Args:
        circuit: The circuit.
        controls: Those that remember.
        storage: Its batteries that are no device, where it has any.
        dt_h: Length of a step [h].
    """

    def __init__(
        self, circuit: Circuit, controls: Sequence[FeederControl], storage: OwnStorage | None, dt_h: float
    ) -> None:
        self._circuit, self._storage, self._log = circuit, storage, list[Entry]()
        engine = circuit.engine
        self._fleets, self._turning = (
            [engine.handles(class_name)[c.name] for c in controls if c.class_name == class_name]
            for class_name in ("StorageController", "RegControl")
        )
        self._mode = engine.property_index("StorageController", "ModeDischarge")
        self._trigger = engine.property_index("StorageController", "TimeDischargeTrigger")
        self._threshold = engine.property_index("RegControl", "RevThreshold")
        self._winding, self._tap_winding = (
            engine.property_index("RegControl", key) for key in ("Winding", "TapWinding")
        )
        self._regulated = [self._read_regulated(handle) for handle in self._turning]
        # A file that solves leaves controls that have acted once.
        said = (*circuit.feeder.commands, *circuit.feeder.left_out)
        self._solved = any(command.text.lstrip().lower().startswith("solv") for command in said)
        self._dt_h, self._compiled_h = dt_h, engine.step_hours
        circuit.controls.remember()
        self.forget()
        if storage is not None:  # which the fleets' controllers had moved
            storage.start_from_here()

    def _read_regulated(self, control: Handle) -> tuple[PowerReader, slice, list[int]]:
        """Return what reads a regulator's transformer, its conductors at the regulated winding, and the windings."""
        engine = self._circuit.engine
        class_name, name = engine.get_reference(control, "RegControl", "Transformer")
        transformer = engine.handles(class_name)[name]
        windings = [engine.get_int(control, "RegControl", key) for key in ("Winding", "TapWinding")]
        n, first = engine.terminals(transformer)[1], windings[0] - 1
        return PowerReader([transformer]), slice(first * n, (first + 1) * n), windings

    # -- an episode

    def begin(self) -> None:
        """Have the controls remember what they do of the model as it stands; the circuit stays where it is."""
        circuit = self._circuit
        kept = circuit.state()
        self.forget()
        if self._solved:
            self._move_to_compiled()
            circuit.engine.step_hours = self._compiled_h
            circuit.solve(controls=True)
            self._idle_fleets()  # as OpenDSS does where a mode is set
        if self._storage is not None:
            self._storage.take_others()
        circuit.engine.step_hours = self._dt_h
        if self._storage is None:  # what batteries of agents hold is told elsewhere
            circuit.engine.set_interval(0.0)
        circuit.restore(kept)

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

    def _stop_fleets(self) -> None:
        """Have controllers whose batteries are full forget that these were spent."""
        if self._storage is not None:
            self._storage.fill()
        self._act(1, 2)
        self._idle_fleets()
        if self._storage is not None:
            self._storage.write()

    def _idle_fleets(self) -> None:
        """Have storage controllers idle their fleets; other controls rest meanwhile, if they did."""
        engine, trigger = self._circuit.engine, self._trigger
        modes = [engine.get_int(handle, "StorageController", "ModeDischarge") for handle in self._fleets]
        times = [engine.get_number(handle, trigger) for handle in self._fleets]  # which some modes set, where written
        for handle in self._fleets:
            engine.set_int(handle, self._mode, _BY_SHAPE)
        if self._fleets:
            self._act(2)
        for handle, mode, time in zip(self._fleets, modes, times, strict=True):
            engine.set_int(handle, self._mode, mode)
            engine.set_float(handle, trigger, time)

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
        self._log.append((self._circuit.state(), values, hours))

    def end_step(self) -> None:
        """Let the controls look at what a step came to, after a solve that converged."""
        self._log.append(None)
        if self._storage is None:
            self._circuit.engine.finish_step()

    def undo(self) -> None:
        """Forget the solves since the last step ended; the circuit's own state is to be put back then."""
        log = self.state()
        while log and log[-1] is not None:
            log.pop()
        self.restore(log)

    # -- state

    def state(self) -> list[Entry]:
        """Copy what the controls remember: all that was played since the episode began."""
        return list(self._log)

    def restore(self, state: Sequence[Entry]) -> None:
        """Put a :meth:`state` back; call before the circuit's own and that of its batteries."""
        circuit = self._circuit
        self.begin()
        for entry in state:
            if entry is None:
                if self._storage is not None:
                    self._storage.advance()
                self.end_step()
                continue
            before, values, hours = entry
            circuit.restore(before)
            if self._storage is not None:
                self._storage.write()
            circuit.setpoints.write(values)
            circuit.keep_y()
            circuit.controls.prepare(hours)
            self._log.append(entry)
            circuit.run(controls=True)
