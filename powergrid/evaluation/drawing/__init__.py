"""Draw a solved feeder, the one-line diagram and the voltage profile over distance; and learning curves.

``state`` says what is drawn, ``layout`` where buses go, ``labels`` where names go, ``symbols`` what elements look
like. Importing this package is cheap: matplotlib loads when something is drawn, needs no display and keeps no state.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from powergrid.evaluation.drawing.curves import Curve, draw_learning_curves
    from powergrid.evaluation.drawing.diagram import draw_network
    from powergrid.evaluation.drawing.picture import check_suffix, save
    from powergrid.evaluation.drawing.profile import draw_voltage_profile, trace_voltages
    from powergrid.evaluation.drawing.state import GridState, PlacedDevice, look_at_feeder, look_at_scenario

_HOME = {
    "Curve": "curves",
    "GridState": "state",
    "PlacedDevice": "state",
    "check_suffix": "picture",
    "draw_learning_curves": "curves",
    "draw_network": "diagram",
    "draw_voltage_profile": "profile",
    "look_at_feeder": "state",
    "look_at_scenario": "state",
    "save": "picture",
    "trace_voltages": "profile",
}

__all__ = [
    "Curve",
    "GridState",
    "PlacedDevice",
    "check_suffix",
    "draw_learning_curves",
    "draw_network",
    "draw_voltage_profile",
    "look_at_feeder",
    "look_at_scenario",
    "save",
    "trace_voltages",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
