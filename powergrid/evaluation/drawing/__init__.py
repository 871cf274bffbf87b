"""Draw a solved feeder, the one-line diagram and the voltage profile over distance; and learning curves.

``state`` says what is drawn, ``layout`` where buses and names go. matplotlib loads when something is drawn, needs no
display and keeps no state.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from powergrid.errors import ScenarioError
from powergrid.evaluation.drawing.charts import (
    Curve,
    draw_improvements,
    draw_learning_curves,
    draw_profiles,
    draw_voltage_profile,
    trace_voltages,
)
from powergrid.evaluation.drawing.diagram import draw_network
from powergrid.evaluation.drawing.state import GridState, PlacedDevice, look_at_feeder, look_at_scenario
from powergrid.files import path_of, reason_of, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Curve", "GridState", "PlacedDevice", "check_suffix", "draw_improvements", "draw_learning_curves", "draw_network",
    "draw_profiles", "draw_voltage_profile", "look_at_feeder", "look_at_scenario", "save", "trace_voltages",
]  # fmt: skip

_SUFFIXES = (".png", ".svg")


def check_suffix(file: str | Path) -> Path:
    """Return the path of a picture.

    Raises:
        ScenarioError: its suffix is neither .png nor .svg, or its folder is missing.
    """
    path = path_of(file)
    if path.suffix.lower() not in _SUFFIXES:
        raise ScenarioError(str(file), [f"a picture ends in {' or '.join(_SUFFIXES)}, not in {path.suffix!r}"])
    if not path.parent.is_dir():
        raise ScenarioError(str(file), [f"there is no folder {str(path.parent)!r}"])
    return path


def save(figure: Figure, file: str | Path, *, dpi: int = 150) -> Path:
    """Write a figure as PNG or SVG, by the suffix; equal figures give equal files.

    Args:
        figure: As ``draw_network`` and ``draw_voltage_profile`` give it.
        file: Where it goes.
        dpi: Resolution of a PNG [dots per inch].

    Raises:
        ScenarioError: the suffix is neither, or the file cannot be written.
    """
    import matplotlib as mpl

    path = check_suffix(file)
    kind = path.suffix.lower()[1:]
    with (
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "powergrid"}),  # names stay text
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # a box stands for it
        try:
            # No date and no version of matplotlib: a picture changes where what it shows does.
            told = {"Date": None} if kind == "svg" else {"Software": None}
            with replacing(path) as whole:
                figure.savefig(whole, format=kind, dpi=dpi, metadata=told)
        except OSError as error:
            raise ScenarioError(str(file), [f"cannot be written: {reason_of(error)}"]) from None
    return path
