"""Say which limit made a setpoint other than what was asked; the limits themselves are the devices' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from powergrid.advice.answer import Cut

#: Differences that are no cut, in parts of what was asked or in kW.
_SAME = 1e-9
#: How near to a limit a setpoint lies that the limit made.
_NEAR = 1e-6


def explain_power(fleet: Any, device: int, quantity: str, asked: float, given: float) -> tuple[Cut, ...]:
    """Return why a device's power is not what was asked; nothing where it is."""
    if abs(given - asked) <= _SAME * max(1.0, abs(asked)):
        return ()
    if quantity == "q_kvar":
        return (_explain_reactive(fleet, device, given),)
    return (_ACTIVE[fleet.kind](fleet, device, asked, given),)


def explain_position(fleet: Any, device: int, asked: int, given: int) -> tuple[Cut, ...]:
    """Return why switchgear does not move as far as was asked; nothing where it does."""
    if asked == given:
        return ()
    spec, before = fleet.specs[device], int(fleet.previous_position[0, device])
    locked, left = int(fleet.locked_steps[0, device]), int(fleet.moves_left[0, device])
    if spec.dwell_steps and locked:
        return (Cut("dwell", f"moved lately; {locked} of {spec.dwell_steps} steps of rest are left"),)
    if spec.moves_per_day and abs(given - before) == left:
        return (Cut("moves_per_day", f"{left} of {spec.moves_per_day} moves a day are left"),)
    return (Cut("moves_per_step", f"at most {getattr(spec, 'moves_per_step', None) or 1} at once"),)


def _explain_reactive(fleet: Any, device: int, given: float) -> Cut:
    p_kw, squared = float(fleet.p_kw[0, device]), float(fleet.circle[0][device])
    if p_kw * p_kw + given * given >= squared * (1.0 - _NEAR):
        return Cut("kva", f"{squared**0.5:g} kVA hold no more beside {p_kw:.4g} kW")
    if fleet.kind == "generator" and not fleet.next_on[0, device]:
        return Cut("off", "it is off")
    return Cut("capability", f"its reactive capability at {p_kw:.4g} kW")


def _explain_storage(fleet: Any, device: int, asked: float, given: float) -> Cut:
    least, most = fleet.room_kw[:, 0, device]
    spec, soc = fleet.specs[device], float(fleet.soc[0, device])
    window = f"at state of charge {soc:.3f}, within {spec.soc_min:g}..{spec.soc_max:g}, {least:.4g}..{most:.4g} kW"
    return Cut("soc", f"{window} can be held for the step")


def _explain_inverter(fleet: Any, device: int, asked: float, given: float) -> Cut:
    q_kvar, squared = float(fleet.q_kvar[0, device]), float(fleet.circle[0][device])
    if given * given + q_kvar * q_kvar >= squared * (1.0 - _NEAR):
        return Cut("kva", f"{squared**0.5:g} kVA hold no more beside {q_kvar:.4g} kvar")
    return Cut("rating", "its rating, or the limit of its active power")


def _explain_generator(fleet: Any, device: int, asked: float, given: float) -> Cut:
    spec, before = fleet.specs[device], float(fleet.previous_p_kw[0, device])
    if spec.ramp_kw_per_min is not None and abs(given - before) > 0.0:
        step = spec.ramp_kw_per_min * 60.0 * fleet.dt_h
        if abs(abs(given - before) - step) <= _NEAR * max(1.0, step):
            return Cut("ramp", f"{step:g} kW a step from {before:.4g} kW")
    if not fleet.next_on[0, device]:
        return Cut("minimum", f"less than half of its least power of {spec.p_min_kw:g} kW is off")
    if abs(given - spec.p_min_kw) <= _NEAR * max(1.0, given):
        return Cut("minimum", f"its least power is {spec.p_min_kw:g} kW")
    return Cut("ramp" if spec.ramp_kw_per_min is not None else "rating", "what it can reach in the step")


def _explain_load(fleet: Any, device: int, asked: float, given: float) -> Cut:
    owed, most = float(fleet.owed_kwh[0, device]), fleet.specs[device].owed_max_kwh
    return Cut("debt", f"{owed:.4g} of at most {most:g} kWh are owed")


_ACTIVE: dict[str, Callable[[Any, int, float, float], Cut]] = {
    "storage": _explain_storage,
    "inverter": _explain_inverter,
    "generator": _explain_generator,
    "flexible_load": _explain_load,
    "ev_charger": lambda fleet, device, asked, given: Cut("cars", "what the cars that are there can take"),
    "building": lambda fleet, device, asked, given: Cut("air", "what its flows and its discharge temperature take"),
}
