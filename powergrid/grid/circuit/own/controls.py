"""The feeder's own controls: which there are, whom they move, and which of them act.

Works on a compiled circuit; knows neither agents nor time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from powergrid.errors import Problem, nearest_names
from powergrid.grid.circuit.admittance import Admittance
from powergrid.grid.circuit.own.dispatch import Dispatch
from powergrid.grid.circuit.switchgear import Switchgear
from powergrid.grid.engine import Engine, Handle
from powergrid.grid.feeder.network import FeederControl
from powergrid.grid.feeder.windings import winding_moved_by

#: Control classes that move switchgear, and the property that names what they move.
_SWITCHGEAR = {
    "RegControl": "Transformer",
    "CapControl": "Capacitor",
    "SwtControl": "SwitchedObj",
    "Relay": "SwitchedObj",
    "Recloser": "SwitchedObj",
    "Fuse": "SwitchedObj",
}
#: Control classes that set power, the property that lists whom, and the classes of whom one without a list takes all.
_POWER = {
    "InvControl": ("DERList", ("PVSystem", "Storage")),
    "ExpControl": ("PVSystemList", ("PVSystem",)),
    "StorageController": ("ElementList", ("Storage",)),
    "GenDispatcher": ("GenList", ("Generator",)),
}
#: Control classes that a kind of device can be left to.
CLASSES_OF_KIND: Mapping[str, tuple[str, ...]] = {
    "regulator": ("RegControl",),
    "capacitor": ("CapControl",),
    "switch": ("SwtControl", "Relay", "Recloser", "Fuse"),
    "inverter": ("InvControl", "ExpControl"),
    "storage": ("StorageController",),
}
#: Property by which a control of switchgear moves nothing, whether where it is not 0, and how a model says it.
_HOLDING = {"RegControl": ("MaxTapChange", False, "MaxTapChange=0"), "SwtControl": ("Lock", True, "Lock=yes")}
_OFF = "ControlMode=OFF"
#: What StorageControllers change of their own in some modes, by OpenDSS's ordinal of ModeDischarge, with what writing
#: it sets too.
_CHANGED_IN_MODE = {1: ("kWTarget", "kWBand", "kWThreshold"), 2: ("%RatekW", "%RateCharge")}
_DAY_H, _HOUR_S = 24, 3600.0
_MAX_LISTED = 8
_OTHER_CONTROLS = "else control is agent or frozen"


@dataclass(frozen=True)
class ControlPlan:
    """Who moves what in a circuit.

    Attributes:
        native: ``class.name``, lower case, of the elements that the feeder's own controls move.
        held: The same of the elements that these must leave alone: an agent moves them, or nobody.
        others: Whether the controls of all other elements act.
    """

    native: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    others: bool = False

    def moves(self, target: str) -> bool:
        """Whether the feeder's own controls may move an element."""
        return target in self.native or (self.others and target not in self.held)

    def select(self, control: FeederControl) -> FeederControl | None:
        """Return a control with the elements left to it, None where none is or it moves nothing."""
        if control.idle:
            return None
        if control.class_name in _SWITCHGEAR:  # several names of one winding
            own = set(control.targets)
            acts = bool(own & self.native) or (self.others and not own & self.held)
            return control if acts else None
        left = tuple(target for target in control.targets if self.moves(target))
        return replace(control, targets=left) if left else None


def plan_controls(devices: Mapping[str, Any], others: bool) -> ControlPlan:
    """Read off the devices who moves what.

    Args:
        devices: Spec of each device by name.
        others: Whether the controls of elements that are no device act.
    """
    bound = {name: target_of(spec) for name, spec in devices.items() if getattr(spec, "element", None)}
    native = frozenset(element for name, element in bound.items() if devices[name].control == "opendss")
    # What the model moves is as if it were no device.
    modelled = frozenset(element for name, element in bound.items() if devices[name].control == "model")
    return ControlPlan(native, frozenset(bound.values()) - native - modelled, others)


def target_of(spec: Any) -> str:
    """Return the name by which controls know what a bound device is: its element, of a winding with the number."""
    winding = getattr(spec, "winding", None)
    element = str(spec.element).lower()
    return _name_winding(element, winding) if winding else element


def find_control_problems(devices: Mapping[str, Any], controls: Sequence[FeederControl]) -> Iterable[Problem]:
    """Yield, device by device, what is to be left to a control that the feeder does not have."""
    for name, spec in devices.items():
        if spec.control != "opendss":
            continue
        classes = CLASSES_OF_KIND[spec.kind]
        able = [control for control in controls if control.class_name in classes]
        own = [control for control in able if target_of(spec) in control.targets]
        if any(not control.idle for control in own):
            continue
        if own:
            text = f"control 'opendss', but {own[0].class_name}.{own[0].name} moves nothing: {own[0].idle}"
            yield Problem("no-control", name, text, _OTHER_CONTROLS)
            continue
        there = [f"{control.class_name}.{control.name} ({control.targets[0]})" for control in able if control.targets]
        near = nearest_names(spec.element.lower(), [t for control in able for t in control.targets])
        more = ", ..." if len(there) > _MAX_LISTED else ""
        listed = f"the feeder has {', '.join(there[:_MAX_LISTED])}{more}" if there else "the feeder has none"
        remedy = f" (did you mean {near[0]!r}?)" if near else ""
        text = f"control 'opendss', but no {' or '.join(classes)} moves {spec.element!r}; {listed}{remedy}"
        yield Problem("no-control", name, text, _OTHER_CONTROLS)


def find_controls(engine: Engine, *, off: bool = False) -> tuple[FeederControl, ...]:
    """Find the enabled controls of a compiled circuit and what each moves.

    Args:
        engine: The engine that holds it.
        off: Whether the model holds them all.
    """
    found: list[FeederControl] = []
    windings: dict[tuple[str, int], str] = {}
    tapped: dict[str, int] = {}
    for class_name, key in _SWITCHGEAR.items():
        for name, handle in engine.handles(class_name).items():
            owner, moved = engine.get_reference(handle, class_name, key)
            target = f"{owner}.{moved}".lower()
            targets: tuple[str, ...] = (target,) if moved else ()
            if class_name == "RegControl" and moved:
                winding = winding_moved_by(engine, handle)
                first = windings.setdefault((target, winding), name)
                targets = (f"regcontrol.{first}", _name_winding(target, winding))
                if tapped.setdefault(target, winding) == winding:  # by its transformer's name the first is meant
                    targets = (*targets, target)
            idle = _OFF if off else _find_idle(engine, class_name, handle)
            found.append(FeederControl(class_name, name, targets, idle))
    for class_name, (key, owned) in _POWER.items():
        every = tuple(f"{each.lower()}.{name}" for each in owned for name in engine.handles(each))
        for name, handle in engine.handles(class_name).items():
            listed = engine.get_names(handle, class_name, key)
            # Only where elements of several classes can be listed does an entry have the class before the name.
            targets = tuple((each if len(owned) > 1 else f"{owned[0]}.{each}").lower() for each in listed)
            found.append(FeederControl(class_name, name, targets or every, _OFF if off else ""))
    return tuple(found)


def _find_idle(engine: Engine, class_name: str, handle: Handle) -> str:
    """Say by which property of its own a control of switchgear moves nothing; nothing where it may."""
    if class_name not in _HOLDING:
        return ""
    key, holds, words = _HOLDING[class_name]
    return words if bool(engine.get_int(handle, class_name, key)) is holds else ""


def _name_winding(element: str, winding: int) -> str:
    """Return the name of a winding; with blanks, for ``.2`` may be the end of a transformer's own name."""
    return f"{element} winding {winding}"


def free_power(engine: Engine, controls: Sequence[FeederControl], plan: ControlPlan) -> None:
    """Take devices' elements away from the controls that set power; before the first solve, for they leave traces.

    The others are left as they are where nothing of theirs is a device's.
    """
    for control in controls:
        if control.class_name not in _POWER or not plan.held & set(control.targets):
            continue
        left = tuple(target for target in control.targets if target not in plan.held)
        if left:
            _narrow(engine, control, left)
        else:
            _disable(engine, control)


def select_controls(engine: Engine, controls: Sequence[FeederControl], plan: ControlPlan) -> tuple[FeederControl, ...]:
    """Disable the controls that do not act; where none acts, leave all as they are, for they are never asked.

    Returns:
        The controls that act, each with the elements left to it.
    """
    chosen = [(control, plan.select(control)) for control in controls]
    acting = tuple(left for _, left in chosen if left is not None)
    if acting:
        for control, left in chosen:
            if left is None:
                _disable(engine, control)
            elif left.targets != control.targets:
                _narrow(engine, control, left.targets)
    return acting


def _disable(engine: Engine, control: FeederControl) -> None:
    if (handle := engine.handles(control.class_name).get(control.name)) is not None:
        engine.disable(handle, control.class_name)


def _narrow(engine: Engine, control: FeederControl, targets: Sequence[str]) -> None:
    """Let a control of several elements act on some; their weights go with them."""
    handle = engine.handles(control.class_name)[control.name]
    key, _ = _POWER[control.class_name]
    weights = _read_weights(engine, control, handle)
    with engine.edited_at_once(handle):  # else the sum of weights is that of as many ones
        engine.set_names(handle, engine.property_index(control.class_name, key), _listed(control.class_name, targets))
        if weights is not None:
            kept = [w for target, w in zip(control.targets, weights, strict=False) if target in targets]
            engine.set_floats(handle, engine.property_index(control.class_name, "Weights"), kept)


def _listed(class_name: str, targets: Sequence[str]) -> list[str]:
    """Write elements as a control's list takes them: with the class only where it may be one of several."""
    return [t if len(_POWER[class_name][1]) > 1 else t.partition(".")[2] for t in targets]


def _read_weights(engine: Engine, control: FeederControl, handle: Handle) -> list[float] | None:
    if control.class_name not in ("StorageController", "GenDispatcher"):
        return None
    weights = engine.get_floats(handle, control.class_name, "Weights").tolist()
    return weights if len(weights) == len(control.targets) else [1.0] * len(control.targets)


def _lead_dispatch(engine: Engine, dispatchers: Sequence[FeederControl]) -> Dispatch | None:
    """Get the dispatchers of generators ready that act, where there are any."""
    if not dispatchers:
        return None
    handles = engine.handles("GenDispatcher")
    weights = {each.name: _read_weights(engine, each, handles[each.name]) or [] for each in dispatchers}
    return Dispatch(engine, dispatchers, weights)


def follows_signal(engine: Engine, control: Handle) -> bool:
    """Whether a control of a capacitor follows a shape of its own (``Type=follow``)."""
    return engine.get_text(control, "CapControl", "Type").lower().startswith("follow")


def read_said(engine: Engine, controls: Sequence[FeederControl]) -> list[tuple[Handle, int, float]]:
    """Return what the model says of what its controls of power set: element, property and value of each.

    Call before the first solve.
    """
    places: list[tuple[Handle, str, str]] = []
    inverters: dict[tuple[str, str], None] = {}
    for control in controls:
        if control.class_name == "StorageController":
            handle = engine.handles("StorageController")[control.name]
            mode = engine.get_int(handle, "StorageController", "ModeDischarge")
            places += [(handle, "StorageController", key) for key in _CHANGED_IN_MODE.get(mode, ())]
        if control.class_name == "ExpControl":
            places.append((engine.handles("ExpControl")[control.name], "ExpControl", "Vreg"))
        if control.class_name in ("InvControl", "ExpControl"):
            for target in control.targets:
                kind, _, name = target.partition(".")
                inverters["PVSystem" if kind == "pvsystem" else "Storage", name] = None
    for class_name, name in inverters:
        if (inverter := engine.handles(class_name).get(name)) is not None:
            by_kvar = engine.written_at(inverter, class_name, "kvar") > engine.written_at(inverter, class_name, "pf")
            limit = ["%Pmpp"] if class_name == "PVSystem" else []
            places += [(inverter, class_name, key) for key in (*limit, "kvar" if by_kvar else "pf")]
    return [(h, engine.property_index(c, key), engine.get_float(h, c, key)) for h, c, key in places]


class ActingControls:
    """The controls that act in one circuit, made ready for each solve, and solving with them.

    Args:
        engine: The engine that holds the circuit.
        controls: The controls that act.
        max_turns: How often they may act in one solve.
        off: Whether the model holds all of its controls.
        said: What the model says of what controls of power set, as of :func:`read_said`.

    Attributes:
        controls: The same.
        capacitors: ``class.name`` of the capacitors that they switch.
        led: Those of them that a signal leads.
        set_power: Whether any sets power, so that the admittance matrix is not a function of switchgear alone.
        dispatch: Those that dispatch generators; None where none does.
        opening: Whether any may open a branch.
        acted: Whether any may have acted in the last solve.
    """

    def __init__(
        self,
        engine: Engine,
        controls: Sequence[FeederControl],
        max_turns: int,
        *,
        off: bool = False,
        said: Sequence[tuple[Handle, int, float]] = (),
    ) -> None:
        self.controls, self._said = tuple(controls), said
        self._engine, self._max_turns, self._off = engine, max_turns, off
        dispatchers = [control for control in controls if control.class_name == "GenDispatcher"]
        self.dispatch = _lead_dispatch(engine, dispatchers)
        self.opening, self.acted = any(c.class_name in CLASSES_OF_KIND["switch"] for c in controls), False
        self.set_power = any(control.class_name in _POWER for control in controls if control not in dispatchers)
        switched = [control for control in controls if control.class_name == "CapControl"]
        self.capacitors = frozenset(target for control in switched for target in control.targets)
        self._switching = [engine.handles("CapControl")[control.name] for control in switched]
        self._signalled = [handle for handle in self._switching if follows_signal(engine, handle)]
        self.led = frozenset(
            target
            for control, handle in zip(switched, self._switching, strict=True)
            for target in control.targets
            if handle in self._signalled
        )
        self._dead_time = engine.property_index("CapControl", "DeadTime")
        self._timed = any(self._follows_clock(control) for control in controls)
        self._lists: list[tuple[Handle, int, list[str], int, list[float] | None]] = []
        self._remembers = self._waiting = False
        self._dead_s = [engine.get_float(handle, "CapControl", "DeadTime") for handle in self._switching]
        self._clock_h = self._origin_h = 0.0
        self._first_h: float | None = None
        self._period_h = _DAY_H
        for control in controls:
            if control.class_name in _POWER and control not in dispatchers:
                handle = engine.handles(control.class_name)[control.name]
                key = engine.property_index(control.class_name, _POWER[control.class_name][0])
                weights = _read_weights(engine, control, handle)
                w_key = engine.property_index(control.class_name, "Weights") if weights is not None else 0
                self._lists.append((handle, key, _listed(control.class_name, control.targets), w_key, weights))

    def _follows_clock(self, control: FeederControl) -> bool:
        if control.class_name == "CapControl":
            handle = self._engine.handles("CapControl")[control.name]
            return self._engine.get_text(handle, "CapControl", "Type").lower().startswith(("time", "follow"))
        return control.class_name == "StorageController"

    def remember(self, *, waiting: bool, period_h: int = _DAY_H) -> None:
        """Let controls of power go from one solve into the next from now on, until they are told to :meth:`forget`.

        Args:
            waiting: Whether actions wait for their time, which may be in a later step.
            period_h: After how long it is all the same to them what time it is [h].
        """
        self._period_h = period_h
        self._remembers = self._timed = True
        self._waiting = waiting
        self.set_power = self.set_power or waiting  # what opens later has the engine build with the setpoints of then

    def prepare(self, hours: float) -> None:
        """Set the clock where a control minds it, and make controls forget the last solve, unless they remember.

        What controls of power remember of it (voltages, the reactive power before) depends on how the circuit came
        here, and so would the result, within their tolerance. Naming their elements anew makes them start over.

        Args:
            hours: Time since the profiles begin [h].
        """
        if self._waiting:
            self._first_h = hours // self._period_h * self._period_h if self._first_h is None else self._first_h
            self._clock_h = self._origin_h + hours - self._first_h
            self._engine.set_clock(self._clock_h)
            return
        if self._timed:
            self._engine.finish_actions()  # storage controllers leave some for later, and there is no later here
            self._engine.set_clock(hours)
        for handle in self._switching:  # so that they look at their capacitor, and know of no opening before
            if handle not in self._signalled:  # which go by what they did before
                self._engine.set_float(handle, self._dead_time, 0.0)
        if not self._remembers:
            self.forget()

    def start_waiting(self) -> None:
        """Have what waits forgotten: capacitors are looked at anew, and time goes on beyond the openings known of.

        It does so at the same time of day; which day it is minds no control that waits, but one that a shape leads.
        """
        longest_h = max((dead_s for dead_s in self._dead_s), default=0.0) / _HOUR_S
        self._origin_h = math.ceil((self._clock_h + longest_h) / self._period_h) * self._period_h
        self._first_h = None
        self._engine.clear_actions()
        for handle, dead_s in zip(self._switching, self._dead_s, strict=True):
            self._engine.set_float(handle, self._dead_time, dead_s)

    def forget(self) -> None:
        """Make controls of power start over, and put back what they set of their own and of their panels."""
        for handle, key, names, w_key, weights in self._lists:
            if weights is None:
                self._engine.set_names(handle, key, names)
                continue
            with self._engine.edited_at_once(handle):  # else the sum of weights is that of as many ones
                self._engine.set_names(handle, key, names)
                self._engine.set_floats(handle, w_key, weights)
        if self._remembers:
            for handle, key, value in self._said:
                self._engine.set_float(handle, key, value)
            for handle in self._signalled:
                self._engine.set_float(handle, self._dead_time, 0.0)

    def solve(
        self, gear: Switchgear, admittance: Admittance, limit: Callable[[], bool] | None = None
    ) -> tuple[bool, int]:
        """Solve and let the controls act in turn until they rest.

        Args:
            gear: Follows what they move.
            admittance: The circuit's matrix.
            limit: As of :meth:`Circuit.solve`.

        Returns:
            Whether the power flow converged, and by how many positions they moved what they move.
        """
        if self._off:  # the engine would ask them
            return self._engine.solve(), 0
        if self.dispatch is not None:
            self.dispatch.start()
        if self.capacitors and self.dispatch is None:
            before: dict[str, Any] | None = gear.state()
            # Controls of capacitors open terminals and are told their dead time, both of which make the engine build
            # the matrix with the setpoints of the moment: that way is kept as it is, though it leaks.
            converged = self._engine.solve_by_itself()
            gear.follow()
        else:
            converged, before = self._take_turns(gear, admittance)
        if converged and limit is not None and limit():
            converged = self._engine.solve()
        self.acted = before is not None
        moves = 0 if before is None else gear.count_moves(before)
        admittance.refresh()
        if moves and self.capacitors:
            admittance.demand_build()
        return converged, moves

    def _take_turns(self, gear: Switchgear, admittance: Admittance) -> tuple[bool, dict[str, Any] | None]:
        """Solve and let the controls act in turn: as the engine does it, but for what becomes of the matrix.

        What they moved comes into it as all else that moves. What they set or open is for the engine to build in:
        beyond a line that opened, on the way to 0 V, it converges with the loads of the moment in the matrix, and not
        always with those of the start.

        Returns:
            Whether the power flow converged, and the positions before, None where nothing acted, as in most steps.
        """
        engine, before = self._engine, None
        engine.start_controls()
        converged = engine.solve()
        for turn in range(1, self._max_turns):
            if not (converged and self._act(turn)):
                return converged, before
            before = gear.state() if before is None else before
            gear.follow()
            if not (self.set_power or admittance.whole):
                admittance.update()  # which puts setpoints back
            if self.dispatch is not None:
                self.dispatch.write()
            converged = engine.solve()
        return engine.solve(), before  # they hunt: held where they got to

    def _act(self, turn: int) -> bool:
        """Let all controls look at the solved circuit and act; say whether any did."""
        if self.dispatch is not None and self.dispatch.act(self.dispatch.look()):
            self._engine.push_action()  # as the engine's own do: the others wait for them, or act beside them
        return self._engine.act_controls(turn)
