"""Ratings, rewards and prices of a scenario, made to the size of another feeder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Keys of a device that grow with the feeder, by kind; those of the second list grow as its inverse.
_GROWS: dict[str, tuple[str, ...]] = {
    "storage": ("e_max_kwh", "p_max_kw", "p_charge_max_kw", "s_max_kva", "standby_loss_kw"),
    "inverter": ("p_max_kw", "s_max_kva"),
    "generator": ("p_min_kw", "p_max_kw", "s_max_kva", "ramp_kw_per_min", "cost_c_usd_per_h", "start_cost_usd"),
}
_SHRINKS: dict[str, tuple[str, ...]] = {"generator": ("cost_a_usd_per_kw2h",)}


def scale_device(spec: Mapping[str, Any], ratio: float) -> dict[str, Any]:
    """Multiply a device's ratings, so that it is to its feeder what it was to the other.

    A car park gets more or fewer ports, a generator's quadratic cost shrinks as its power grows; prices, times and
    shares stay.
    """
    scaled = dict(spec)
    kind = str(spec.get("kind"))
    for key in _GROWS.get(kind, ()):
        if scaled.get(key) is not None:
            scaled[key] = short(scaled[key] * ratio)
    for key in _SHRINKS.get(kind, ()):
        if scaled.get(key) is not None:
            scaled[key] = short(scaled[key] / ratio)
    if kind == "ev_charger":
        scaled["ports"] = max(1, round(scaled["ports"] * ratio))
    return scaled


def short(value: float) -> float:
    """Keep four digits of a number."""
    return float(f"{value:.4g}")
