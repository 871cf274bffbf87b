"""What elements and voltages look like, and the panel that says so beside the diagram.

A symbol is strokes around the origin in units of a radius, with fills behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap, Normalize

FloatArray = npt.NDArray[np.float64]
Strokes = list[FloatArray]

_ROW = 17.5
_SCALE_HEIGHT = 130.0
_LOW = ("#2b0a5c", "#5b2bd1")
_WITHIN = ("#58aee0", "#8fd694", "#f5c542")
_HIGH = ("#e0301e", "#6d0010")


def _circle(x: float, y: float, radius: float) -> FloatArray:
    turn = np.linspace(0.0, 2.0 * np.pi, 25)
    return np.column_stack([x + radius * np.cos(turn), y + radius * np.sin(turn)])


def _line(*points: tuple[float, float]) -> FloatArray:
    return np.array(points, dtype=np.float64)


_SQUARE = _line((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))
_WAVE = np.column_stack([np.linspace(-0.6, 0.6, 21), 0.4 * np.sin(np.linspace(0.0, 2.0 * np.pi, 21))])
_ROUND = _circle(0, 0, 1)

#: Strokes of each symbol; the first is also its outline, filled where :data:`FILLED` says so.
SYMBOLS: dict[str, Strokes] = {
    "source": [_ROUND, _WAVE],
    "transformer": [_circle(-0.55, 0, 0.9), _circle(0.55, 0, 0.9)],
    "regulator": [_ROUND, _line((-1.3, -1.3), (1.3, 1.3)), _line((0.6, 1.25), (1.3, 1.3), (1.25, 0.6))],
    "switch_closed": [0.75 * _SQUARE],
    "switch_open": [0.75 * _SQUARE],
    "capacitor": [_line((-0.25, -1), (-0.25, 1)), _line((0.25, -1), (0.25, 1)), _line((0.25, 0), (1.2, 0)),
                  _line((1.2, -0.6), (1.2, 0.6)), _line((1.5, -0.3), (1.5, 0.3))],
    "storage": [_SQUARE, _line((-0.7, 0), (-0.2, 0)), _line((-0.2, -0.6), (-0.2, 0.6)),
                _line((0.2, -0.3), (0.2, 0.3)), _line((0.2, 0), (0.7, 0))],
    "inverter": [_SQUARE, _line((-1, 1), (0, 0.1), (1, 1)), _line((0, 0.1), (0, -0.6)),
                 _line((-0.3, -0.3), (0, -0.65), (0.3, -0.3))],
    "generator": [_ROUND, np.column_stack([0.5 * np.cos(np.linspace(0.7, 5.7, 17)),
                                           0.55 * np.sin(np.linspace(0.7, 5.7, 17))]),
                  _line((0.42, -0.32), (0.42, 0), (0.05, 0))],
    "flexible_load": [_SQUARE, _line((0, 0.7), (0, -0.1)),
                      _line((-0.5, -0.05), (0.5, -0.05), (0, -0.7), (-0.5, -0.05))],
    "ev_charger": [_SQUARE, _line((0.15, 0.75), (-0.35, -0.05), (0.35, 0.05), (-0.15, -0.75))],
}  # fmt: skip
SYMBOLS["capacitor_off"] = SYMBOLS["capacitor"]
FILLED = {
    "source": "white",
    "regulator": "white",
    "transformer": "white",
    "switch_closed": "#333333",
    "switch_open": "white",
    "storage": "#d9f2d9",
    "inverter": "#fff3c4",
    "generator": "#e8e0f5",
    "flexible_load": "#e3ecf7",
    "ev_charger": "#d6f1f5",
}
BLACK = "#222222"
#: Colours of strokes that are not black.
INK = {"capacitor_off": "#b0b0b0"}
MEANING = {
    "source": "source",
    "transformer": "transformer",
    "regulator": "regulator",
    "switch_closed": "switch, closed",
    "switch_open": "switch or line, open",
    "capacitor": "capacitor",
    "capacitor_off": "capacitor, off",
    "storage": "storage",
    "inverter": "PV or other inverter",
    "generator": "generator",
    "flexible_load": "flexible load",
    "ev_charger": "EV charger",
}


def stroke(kind: str, centre: FloatArray, radius: float, way: tuple[float, float] = (1.0, 0.0)) -> Strokes:
    """Return a symbol's strokes at a place, turned so that its x axis points along ``way``."""
    turn = np.array([[way[0], way[1]], [-way[1], way[0]]])
    return [np.asarray(centre) + radius * (line @ turn) for line in SYMBOLS[kind]]


def voltage_colours(band: tuple[float, float]) -> tuple[LinearSegmentedColormap, Normalize]:
    """Return the colours of voltages: pale within the band, strong from its limits on."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    low, high = band
    margin = (high - low) / 2.0
    ends = low - margin, high + margin
    # Both limits stand twice: the colour jumps there, so that a bus just outside cannot pass for one inside.
    stops = np.array([ends[0], low, low, (low + high) / 2.0, high, high, ends[1]])
    places = (stops - ends[0]) / (ends[1] - ends[0])
    colours = [*_LOW, *_WITHIN, *_HIGH]
    scale = LinearSegmentedColormap.from_list("voltage", list(zip(places.tolist(), colours, strict=True)), N=400)
    return scale, Normalize(*ends, clip=True)


def draw_panel(
    panel: Axes,
    kinds: Sequence[str],
    levels: Sequence[tuple[str, str]],
    band: tuple[float, float],
    *,
    dead: bool,
    ringed: bool,
) -> None:
    """Explain a diagram.

    Args:
        panel: Axes in points, empty.
        kinds: Symbols that the diagram shows.
        levels: Name and colour of each voltage level.
        band: Limits of the voltage [pu].
        dead: Whether buses without voltage are shown.
        ringed: Whether buses outside the band are shown.
    """
    from matplotlib.collections import LineCollection, PolyCollection

    row = panel.get_ylim()[1] - 14.0

    def write(text: str) -> None:
        nonlocal row
        panel.text(44.0, row, text, fontsize=8.5, va="center", parse_math=False)
        row -= _ROW

    for name, colour in levels:
        panel.plot([12.0, 34.0], [row, row], color=colour, linewidth=2.2)
        write(name)
    for i, text in enumerate(("one phase", "two phases", "three phases")):
        panel.plot([12.0, 34.0], [row, row], color="#4f6272", linewidth=(0.8, 1.4, 2.0)[i])
        write(text)
    for kind in (kind for kind in MEANING if kind in kinds):
        lines = stroke(kind, np.array([23.0, row]), 6.0)
        if kind in FILLED:
            # Both windings hide the line beneath them; of the others the first stroke is the outline.
            fills = lines[: 2 if kind == "transformer" else 1]
            panel.add_collection(PolyCollection(fills, facecolors=FILLED[kind], edgecolors="none"))
        panel.add_collection(LineCollection(lines, color=INK.get(kind, BLACK), linewidths=0.9))
        write(MEANING[kind])
    if ringed:
        panel.scatter([23.0], [row], s=50, c="#5b2bd1", edgecolors="black", linewidths=1.2)
        panel.scatter([34.0], [row], s=50, c="#e0301e", edgecolors="black", linewidths=1.2)
        write("bus outside the band")
    if dead:
        panel.scatter([23.0], [row], s=34, c="white", edgecolors="#999999", linewidths=0.8)
        write("bus without voltage")
    _draw_scale(panel, band, row - 8.0)


def _draw_scale(panel: Axes, band: tuple[float, float], top: float) -> None:
    from matplotlib.cm import ScalarMappable

    colours, norm = voltage_colours(band)
    # What the legend's rows leave of the panel; a scale below 60 points has no room for its five numbers.
    height = float(np.clip(top - 40.0, 60.0, _SCALE_HEIGHT))
    bottom = max(top - height - 12.0, 12.0)
    axes = panel.inset_axes((16.0, bottom, 14.0, height), transform=panel.transData)
    figure = panel.get_figure()
    assert figure is not None
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=axes, extend="both")
    low, high = band
    bar.set_ticks([norm.vmin or 0.0, low, (low + high) / 2.0, high, norm.vmax or 0.0])
    bar.ax.tick_params(labelsize=8)
    bar.set_label("worst phase of the bus [pu]", fontsize=8.5)
    for limit in band:
        bar.ax.axhline(limit, color="black", linewidth=1.2)
