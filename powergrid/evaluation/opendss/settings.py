"""Settings of OpenDSS's own controls that do as nearly as they can what a policy did, as commands with what they fit.

``curves`` fits the numbers; whether the settings hold on other days is for ``comparison`` to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.opendss.curves import (
    Threshold,
    fit_band,
    fit_hours,
    fit_threshold,
    fit_volt_var,
    jump,
)
from powergrid.evaluation.opendss.elements import DeviceElement
from powergrid.evaluation.opendss.script import FLAT, number, quoted
from powergrid.evaluation.replay import DayRecording

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Reactive power below this part of the rating is none.
_NO_Q_PU = 1e-3
#: Voltages below it are of what is not fed [pu].
_DEAD_PU = 0.1
#: A control of a bank has to be right in so much more of the steps than one that never switches.
_WORTH_SWITCHING = 0.02
#: What relays of regulators are set in [V], the tap's usual step [pu], and what R and X are said for [A].
_BASE_V, _A_STEP, _CT_AMPS = 120.0, 0.2 / 32, 100.0


@dataclass(frozen=True)
class Fit:
    """What stands for one device in plain OpenDSS.

    Attributes:
        device: Its name.
        element: ``Class.name`` of what does its work.
        replaces: ``Class.name`` of the element that it takes the place of as played, or empty.
        control: What moves it, in a few words.
        how: How well that fits what the policy did on the days fitted.
        commands: The settings.
    """

    device: str
    element: str
    replaces: str
    control: str
    how: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """All that was fitted.

    Attributes:
        fits: By device.
        left: Why a device is left as the policy had it, by its name.
    """

    fits: Mapping[str, Fit]
    left: Mapping[str, str]

    def text(self) -> str:
        """Return the settings as an OpenDSS script, which follows the feeder and the demand of a day."""
        lines = ["! Settings fitted to what a policy did. Each says how well it fits on the days fitted."]
        for fit in self.fits.values():
            lines += [f"! {fit.device}: {fit.control}; {fit.how}", *fit.commands]
        lines += [f"! {name}: {why}" for name, why in self.left.items()]
        return "\n".join(lines) + "\n"


def fit_settings(days: Sequence[DayRecording], elements: Mapping[str, DeviceElement]) -> Settings:
    """Fit the settings of each device's control to days that a policy played.

    Args:
        days: The days, of one scenario and one policy.
        elements: What each device is in the circuit.
    """
    fits, left = dict[str, Fit](), dict[str, str]()
    for name, element in elements.items():
        fit = _FITS.get(element.kind)
        found = _NO_CONTROL.get(element.kind, "") if fit is None else fit(name, element, days)
        if isinstance(found, str):
            left[name] = f"{found}; as the policy had it"
        else:
            fits[name] = found
    return Settings(fits, left)


_NO_CONTROL = {
    "switch": "OpenDSS has no control that decides when to switch a line",
    "ev_charger": "OpenDSS has no control that charges cars",
    "flexible_load": "OpenDSS has no control that shifts a load",
    "building": "OpenDSS has no control that cools a building",
}


# -- what sets power


def _fit_inverter(name: str, element: DeviceElement, days: Sequence[DayRecording]) -> Fit:
    spec = days[0].specs[name]
    p_max = float(spec.p_max_kw)
    s_max = float(spec.s_max_kva or 1.1 * p_max)
    own = element.class_name == "PVSystem"
    full = element.full_name if own else f"PVSystem.{_own_name(name)}"
    priority = "yes" if spec.priority == "watt" else "no"
    rating = (
        f"kVA={number(s_max)} Pmpp={number(p_max)} irradiance=1 kvarMax={number(s_max)} kvarMaxAbs={number(s_max)} "
        f"%PminNoVars=0 %PminkvarMax=0 WattPriority={priority} daily={sun_shape(name)}"
    )
    commands = [_place(element, full, f"{rating} {_OBEDIENT}", own=own)]
    if not own:
        commands.append(f"Edit {quoted(element.full_name)} enabled=no")
    lost = sum(
        float(np.maximum(d.devices.of(name, "available_kw") - d.devices.of(name, "p_kw"), 0.0).sum()) for d in days
    )
    offered = sum(float(d.devices.of(name, "available_kw").sum()) for d in days)
    how = f"gives all the sun, of which the policy took {100.0 * (1.0 - lost / max(offered, 1e-9)):.1f} %"
    curve, said = _volt_var(name, element, full, days, s_max)
    return Fit(name, full, "" if own else element.full_name, f"all the sun{said[0]}", f"{how}{said[1]}",
               (*commands, *curve))  # fmt: skip


def _fit_storage(name: str, element: DeviceElement, days: Sequence[DayRecording]) -> Fit:
    spec = days[0].specs[name]
    own = element.class_name == "Storage"
    full = element.full_name if own else f"Storage.{_own_name(name)}"
    charge = float(spec.p_charge_max_kw or spec.p_max_kw)
    p_max = max(float(spec.p_max_kw), charge)
    s_max = float(spec.s_max_kva or p_max)
    most = float(spec.e_max_kwh) * spec.soc_max  # OpenDSS's own full is where the device's window ends
    shape, explained = _by_time_of_day([d.devices.of(name, "p_kw") / p_max for d in days])
    rating = (
        f"kVA={number(s_max)} kWRated={number(p_max)} kWhRated={number(most)} "
        f"%Stored={number(100.0 * spec.soc_initial / spec.soc_max)} "
        f"%Reserve={number(100.0 * spec.soc_min / spec.soc_max)} "
        f"%EffCharge={number(100.0 * spec.eta_charge)} %EffDischarge={number(100.0 * spec.eta_discharge)} "
        f"%IdlingkW={number(100.0 * spec.standby_loss_kw / p_max)} %Charge=100 %Discharge=100 kvarMax={number(s_max)} "
        f"kvarMaxAbs={number(s_max)} %PminNoVars=0 %PminkvarMax=0 effcurve={FLAT}_curve dispmode=follow "
        f"daily={_schedule(name)}"
    )
    commands = [_write_shape(name, days[0], shape), _place(element, full, f"{rating} {_OBEDIENT}", own=own)]
    if not own:
        commands.append(f"Edit {quoted(element.full_name)} enabled=no")
    curve, said = _volt_var(name, element, full, days, s_max)
    how = f"the schedule explains {100.0 * explained:.0f} % of the variance of its kW{said[1]}"
    return Fit(name, full, "" if own else element.full_name, f"daily schedule of kW{said[0]}", how, (*commands, *curve))


def _fit_generator(name: str, element: DeviceElement, days: Sequence[DayRecording]) -> Fit | str:
    if element.class_name != "Generator":
        return f"{element.full_name} takes no schedule of a generator"
    p, explained = _by_time_of_day([d.devices.of(name, "p_kw") for d in days])
    q, _ = _by_time_of_day([d.devices.of(name, "q_kvar") for d in days])
    base_p, base_q = float(np.abs(p).max()) or 1.0, float(np.abs(q).max()) or 1.0
    shape = _write_shape(name, days[0], p / base_p, q / base_q)
    rating = f"kW={number(base_p)} kvar={number(base_q)} status=variable daily={_schedule(name)}"
    commands = (shape, f"Edit {quoted(element.full_name)} {rating}")
    how = f"the schedule explains {100.0 * explained:.0f} % of the variance of its kW"
    return Fit(name, element.full_name, element.full_name, "daily schedule of kW and kvar", how, commands)


#: Nothing stands between what an element is told and what it gives, but its ratings.
_OBEDIENT = "model=1 vminpu=0.2 vmaxpu=2 %CutIn=0 %CutOut=0 controlmode=gfl"


_VOLT_VAR = (
    "voltage_curvex_ref=rated RefReactivePower=VARMAX deltaQ_Factor=0.4 VarChangeTolerance=0.001 "
    "VoltageChangeTolerance=0.0001 monVoltageCalc=AVG"
)


def _place(element: DeviceElement, full: str, properties: str, *, own: bool) -> str:
    if full.startswith("PVSystem."):
        properties += f" effcurve={FLAT}_curve p-tcurve={FLAT}_curve"
    if own:
        return f"Edit {quoted(full)} {properties}"
    return (
        f'New {quoted(full)} bus1="{element.bus}" phases={element.phases} kV={number(element.kv)} '
        f"conn={element.connection} {properties}"
    )


def _volt_var(
    name: str, element: DeviceElement, full: str, days: Sequence[DayRecording], s_max: float
) -> tuple[list[str], tuple[str, str]]:
    """Return the curve and the control of an inverter's reactive power, and what it is and how it fits."""
    v_pu = np.concatenate([_voltage(d, element) for d in days])
    q_pu = np.concatenate([d.devices.of(name, "q_kvar") for d in days]) / s_max
    fed = v_pu > _DEAD_PU
    if not fed.any() or np.abs(q_pu[fed]).max() < _NO_Q_PU:
        return [f"Edit {quoted(full)} pf=1"], ("", "")
    curve = fit_volt_var(v_pu[fed], q_pu[fed])
    x, y = [0.5, *curve.v_pu.tolist(), 1.5], [float(curve.q_pu[0]), *curve.q_pu.tolist(), float(curve.q_pu[-1])]
    own = _own_name(name)
    points = f"New XYCurve.{own}_voltvar npts={len(x)} xarray={_array(x)} yarray={_array(y)}"
    control = f"New InvControl.{own} DERList=[{full}] mode=VOLTVAR vvc_curve1={own}_voltvar {_VOLT_VAR}"
    return [points, control], (
        " and a volt-var curve",
        f", the curve {100.0 * curve.explained:.0f} % of that of its kvar",
    )


def _voltage(day: DayRecording, element: DeviceElement) -> FloatArray:
    """Return the mean voltage of an element's nodes [pu], shape (n_steps,)."""
    mean: FloatArray = day.nodes["v_pu"][:, element.nodes].mean(axis=1)
    return mean


def _by_time_of_day(days: Sequence[FloatArray]) -> tuple[FloatArray, float]:
    """Return the mean of each step over the days, and the part of the variance that it explains."""
    stacked = np.array(days)
    mean: FloatArray = stacked.mean(axis=0)
    variance = float(stacked.var())
    return mean, 1.0 - float(((stacked - mean) ** 2).mean()) / variance if variance > 1e-12 else 1.0


def _write_shape(name: str, day: DayRecording, mult: FloatArray, qmult: FloatArray | None = None) -> str:
    q = "" if qmult is None else f" qmult={_array(qmult.tolist())}"
    return (
        f"New LoadShape.{_schedule(name)} npts={len(mult)} minterval={number(float(day.step_minutes))} "
        f"mult={_array(mult.tolist())}{q}"
    )


def _array(values: Sequence[float]) -> str:
    return f"[{' '.join(number(round(value, 6)) for value in values)}]"


def _own_name(name: str) -> str:
    return "powergrid_" + "".join(c if c.isalnum() else "_" for c in name.lower())


def _schedule(name: str) -> str:
    return f"{_own_name(name)}_schedule"


def sun_shape(name: str) -> str:
    """Return what the shape of the sun that an inverter gets on a day is called."""
    return f"{_own_name(name)}_sun"


# -- switchgear


def _fit_regulator(name: str, element: DeviceElement, days: Sequence[DayRecording]) -> Fit | str:
    positions = [d.devices.of(name, "position") for d in days]
    if len(np.unique(np.concatenate(positions))) == 1:
        tap = positions[0][0]
        return f"it stays at position {tap:g} in all steps fitted, so that nothing tells when to move"
    v_pu = np.concatenate([_regulated(d, element) for d in days])
    fed = v_pu > _DEAD_PU
    if not fed.any():
        return "it is never fed"
    volts = v_pu[fed] * _BASE_V * _base_of(days[0], element)
    amps = [np.concatenate([_amps(d, element, key) for d in days])[fed] for key in ("p_kw", "q_kvar")]
    found = fit_band(volts, amps[0], amps[1], _BASE_V * _A_STEP)
    drop = (
        f" R={number(round(found.r * _CT_AMPS, 4))} X={number(round(found.x * _CT_AMPS, 4))} CTprim={_CT_AMPS:g}"
        if found.r or found.x
        else ""
    )
    command = (
        f"New RegControl.{_own_name(name)} transformer={quoted(element.name)} winding={element.winding} "
        f"vreg={number(round(found.vreg, 3))} band={number(round(found.band, 3))} ptratio={number(element.ptratio)} "
        f"delay=30{drop}"
    )
    how = f"the policy held that band in {100.0 * found.held:.0f} % of the steps"
    control = f"RegControl vreg {found.vreg:.2f} V, band {found.band:.2f} V{drop}"
    return Fit(name, element.full_name, "", control, how, (command,))


def _regulated(day: DayRecording, element: DeviceElement) -> FloatArray:
    """Return the voltage that a regulator's relay looks at: that of the first phase, between two where it is so."""
    nodes = element.nodes[:1] if element.phases > 1 and element.connection == "wye" else element.nodes
    mean: FloatArray = day.nodes["v_pu"][:, nodes].mean(axis=1)
    return mean


def _amps(day: DayRecording, element: DeviceElement, key: str) -> FloatArray:
    """Return the part of the current in a winding's conductors that is active or reactive, their mean [A]."""
    place = day.branches.names.index(element.full_name.lower())
    kv = element.kv * (3.0**0.5 if element.phases > 1 else 1.0)  # of all phases together
    amps: FloatArray = day.branches[key][:, place] / kv
    return amps


def _base_of(day: DayRecording, element: DeviceElement) -> float:
    """Return what 1 pu of the nodes is in parts of the winding's own voltage."""
    volts = float(day.feeder_network.v_base[element.nodes].mean())
    between = element.connection == "delta" or (element.phases == 1 and len(element.nodes) == 2)
    return volts * (3.0**0.5 if between else 1.0) / (element.ptratio * _BASE_V)


def _fit_capacitor(name: str, element: DeviceElement, days: Sequence[DayRecording]) -> Fit | str:
    states: list[IntArray] = [(d.devices.of(name, "steps_on") > 0.0).astype(np.int64) for d in days]
    every = np.concatenate(states)
    if every.min() == every.max():
        return f"it is {'on' if every[0] else 'off'} in all steps fitted, so that nothing tells when to switch"
    starts = [int(state[0]) for state in states]
    volts = [_voltage(d, element) * _BASE_V for d in days]
    hours = [np.asarray((np.arange(d.n_steps) + 1.0) * (d.step_minutes / 60.0) % 24.0, np.float64) for d in days]
    candidates = [
        fit_threshold("voltage", volts, states, starts, max(jump(volts, states), 0.0)),
        fit_hours(hours, states),
    ]
    if element.feeding:
        place = days[0].branches.names.index(element.feeding)
        kvar = [d.branches["q_kvar"][:, place] for d in days]
        candidates.append(fit_threshold("kvar", kvar, states, starts, max(-jump(kvar, states), 0.0)))
    best = max(candidates, key=lambda each: each.agreed)
    always = float(max(every.mean(), 1.0 - every.mean()))
    if best.agreed < always + _WORTH_SWITCHING:
        return (
            f"no voltage, kvar or hour says more of it than that it is {'on' if every.mean() > 0.5 else 'off'} mostly"
        )
    how = f"says what the policy did in {100.0 * best.agreed:.0f} % of the steps, always the same would in "
    how += f"{100.0 * always:.0f} %"
    control = f"CapControl by {best.kind}, on {best.on:.4g}, off {best.off:.4g}"
    return Fit(name, element.full_name, "", control, how, (_cap_control(name, element, best),))


def _cap_control(name: str, element: DeviceElement, found: Threshold) -> str:
    measured = element.feeding if found.kind == "kvar" else element.full_name
    return (
        f"New CapControl.{_own_name(name)} capacitor={quoted(element.name)} element={quoted(measured)} terminal=1 "
        f"type={found.kind} ONsetting={number(round(found.on, 4))} OFFsetting={number(round(found.off, 4))} "
        f"PTratio={number(element.ptratio)} CTratio=1 DeadTime=0 delay=15 delayoff=15"
    )


_FITS: Mapping[str, Callable[[str, DeviceElement, Sequence[DayRecording]], Fit | str]] = {
    "inverter": _fit_inverter,
    "storage": _fit_storage,
    "generator": _fit_generator,
    "regulator": _fit_regulator,
    "capacitor": _fit_capacitor,
}
