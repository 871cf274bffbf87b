"""Advice for a grid that runs: readings in, feasible setpoints out, and what was doubted, replaced and cut on the way.

Importing this package is cheap: engine and tables load on the first use of what needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from powergrid.advice.advisor import Advisor, AdvisorOptions
    from powergrid.advice.answer import Advice, Cut, Input, Setpoint
    from powergrid.advice.overlay import readings_of

__all__ = ["Advice", "Advisor", "AdvisorOptions", "Cut", "Input", "Setpoint", "readings_of"]

_HOME = {
    **dict.fromkeys(("Advisor", "AdvisorOptions"), "advisor"),
    **dict.fromkeys(("Advice", "Cut", "Input", "Setpoint"), "answer"),
    "readings_of": "overlay",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
