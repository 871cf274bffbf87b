"""Fits of what a control of OpenDSS can say to what a policy did: curves, bands, thresholds. It knows no device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, lsq_linear

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_BINS = 12
#: Voltages nearer than this are one point of a curve [pu]: steeper ones make inverters hunt.
_NEAR_PU = 0.002
#: The least band is so many steps of the tap: of less than two a regulator would swing.
_LEAST_STEPS = 2.0
_WORTH_COMPENSATION = 0.8
#: How much of a bank's own effect lies between its settings besides.
_APART = 0.25
_QUANTILES = np.linspace(0.02, 0.98, 13)
_HOURS = 24


@dataclass(frozen=True)
class VoltVar:
    """A volt-var curve.

    Attributes:
        v_pu, q_pu: Its points, voltage rising, reactive power falling.
        explained: Part of the variance of the reactive power that it explains, 0..1.
    """

    v_pu: FloatArray
    q_pu: FloatArray
    explained: float


def fit_volt_var(v_pu: FloatArray, q_pu: FloatArray) -> VoltVar:
    """Fit a curve along which reactive power does not rise with voltage, by isotonic regression.

    Args:
        v_pu, q_pu: Voltage, and reactive power in parts of the rating, each shape (n,).
    """
    order = np.argsort(v_pu, kind="stable")
    bins = [part for part in np.array_split(order, min(_BINS, len(order))) if len(part)]
    v, q, n = list[float](), list[float](), list[float]()
    for part in bins:
        at = float(v_pu[part].mean())
        if v and at - v[-1] < _NEAR_PU:  # one point with the one before
            total = n[-1] + len(part)
            v[-1] += (at - v[-1]) * len(part) / total
            q[-1] += (float(q_pu[part].mean()) - q[-1]) * len(part) / total
            n[-1] = total
        else:
            v.append(at)
            q.append(float(q_pu[part].mean()))
            n.append(float(len(part)))
    level = np.asarray(isotonic_regression(q, weights=n, increasing=False).x)
    at_v = np.array(v)
    left = q_pu - np.interp(v_pu, at_v, level)
    variance = float(q_pu.var())
    explained = max(0.0, 1.0 - float((left**2).mean()) / variance) if variance > 1e-12 else 1.0
    return VoltVar(at_v, np.clip(level, -1.0, 1.0), explained)


@dataclass(frozen=True)
class Band:
    """A regulator's setting and band, with line drop compensation.

    Attributes:
        vreg, band: On the base of the relay [V].
        r, x: Compensation by active and reactive current [V per A].
        held: Part of the steps in which the policy held it, 0..1.
    """

    vreg: float
    band: float
    r: float
    x: float
    held: float


def fit_band(volts: FloatArray, active_amps: FloatArray, reactive_amps: FloatArray, step_volts: float) -> Band:
    """Fit the band within which a regulator held its voltage in nine steps of ten.

    The voltage may rise with the current where that narrows the band by a fifth.

    Args:
        volts: Regulated voltage in each step on the base of the relay, shape (n,).
        active_amps, reactive_amps: Current through it, shape (n,).
        step_volts: What a step of the tap changes.
    """
    plain = _hold(volts, 0.0, 0.0, step_volts)
    columns = np.stack([np.ones(len(volts)), active_amps, reactive_amps], axis=1)
    bounds = [-np.inf, 0.0, 0.0], np.inf
    _, r, x = lsq_linear(columns, volts, bounds=bounds).x.tolist()
    compensated = _hold(volts - r * active_amps - x * reactive_amps, r, x, step_volts)
    return compensated if compensated.band < _WORTH_COMPENSATION * plain.band else plain


def _hold(left: FloatArray, r: float, x: float, step_volts: float) -> Band:
    low, high = np.quantile(left, [0.05, 0.95])
    vreg, band = float(low + high) / 2.0, max(float(high - low), _LEAST_STEPS * step_volts)
    return Band(vreg, band, r, x, float((np.abs(left - vreg) <= band / 2.0).mean()))


@dataclass(frozen=True)
class Threshold:
    """When a capacitor is on and when off.

    Attributes:
        kind: ``voltage``, ``kvar`` or ``time``.
        on, off: Where it is switched on and off [V, kvar or h].
        agreed: Part of the steps in which it says what the policy did, 0..1.
    """

    kind: str
    on: float
    off: float
    agreed: float


def fit_threshold(
    kind: str, signal: Sequence[FloatArray], states: Sequence[IntArray], starts: Sequence[int], effect: float
) -> Threshold:
    """Fit the two settings of a control that switches on to one side of a signal and off to the other.

    Args:
        kind: ``voltage`` switches on below, ``kvar`` above.
        signal: What is measured in each step, day by day.
        states: 0 or 1 in each step, day by day.
        starts: State before each day.
        effect: By how much being on raises a voltage, or lowers kvar.
    """
    sign = 1.0 if kind == "voltage" else -1.0
    # As if it were off, and so that it is switched on below: what it does to the signal itself is taken out.
    bare = [sign * (values - sign * effect * on) for values, on in zip(signal, states, strict=True)]
    levels = np.quantile(np.concatenate(bare), _QUANTILES)
    on_at, off_at = (each.reshape(-1) for each in np.meshgrid(levels, levels, indexing="ij"))
    # Measured while off, while on it is higher by the effect; nearer to each other it would swing.
    kept = on_at + _APART * effect <= off_at
    on_at, off_at = (on_at[kept], off_at[kept]) if kept.any() else (levels[:1], levels[-1:])
    right, n = np.zeros(len(on_at)), 0
    for values, did, start in zip(bare, states, starts, strict=True):
        state = np.full(len(on_at), bool(start))
        for value, now in zip(values.tolist(), did.tolist(), strict=True):
            state = np.where(state, value <= off_at, value < on_at)
            right += state == bool(now)
        n += len(values)
    best = int(right.argmax())
    on, off = sign * on_at[best], sign * (off_at[best] + effect)
    return Threshold(kind, float(on), float(off), float(right[best] / max(n, 1)))


def fit_hours(hours: Sequence[FloatArray], states: Sequence[IntArray]) -> Threshold:
    """Fit the hours at which a clock switches on and off.

    Args:
        hours: Hour of the day at the end of each step, day by day.
        states: 0 or 1 in each step, day by day.
    """
    hour, state = np.concatenate(hours), np.concatenate(states).astype(np.bool_)
    best = Threshold("time", 0.0, 0.0, -1.0)
    for on, off in permutations(map(float, range(_HOURS)), 2):
        says = (hour >= on) & (hour < off) if on < off else (hour >= on) | (hour < off)
        agreed = float((says == state).mean())
        if agreed > best.agreed:
            best = Threshold("time", on, off, agreed)
    return best


def count_moves(positions: IntArray) -> int:
    """Return by how many positions switchgear was moved, shape (n_steps, n)."""
    return int(np.abs(np.diff(positions, axis=0)).sum())


def jump(signal: Sequence[FloatArray], states: Sequence[IntArray]) -> float:
    """Return by how much a signal rises as the state goes from 0 to 1, the median over all changes; 0 without any."""
    rises = [
        (after - before) * (on - off)
        for values, state in zip(signal, states, strict=True)
        for (before, after), (off, on) in zip(
            pairwise(values.tolist()), pairwise(state.tolist()), strict=True
        )
        if on != off
    ]  # fmt: skip
    return float(np.median(rises)) if rises else 0.0
