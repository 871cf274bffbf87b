"""The panel beside the diagram: what symbols, lines and colours mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from powergrid.evaluation.drawing.symbols import BLACK, FILLED, INK, MEANING, stroke

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap, Normalize

_ROW = 17.5
_SCALE_HEIGHT = 130.0
_LOW = ("#2b0a5c", "#5b2bd1")
_WITHIN = ("#58aee0", "#8fd694", "#f5c542")
_HIGH = ("#e0301e", "#6d0010")


def voltage_colours(band: tuple[float, float]) -> tuple[LinearSegmentedColormap, Normalize]:
    """Return the colours of voltages: pale within the band, strong from its limits on."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    low, high = band
    margin = (high - low) / 2.0
    ends = low - margin, high + margin
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

    _, top = panel.get_ylim()
    row = top - 14.0

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
