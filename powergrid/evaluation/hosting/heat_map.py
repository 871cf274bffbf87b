"""The one-line diagram with each load bus coloured by how much it holds, as SVG and as a picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.drawing import save
from powergrid.evaluation.drawing.layout import FEW_BUSES, WIDTH, place_on_page
from powergrid.grid.feeder.network import Network

FloatArray = npt.NDArray[np.float64]

#: Colours from nothing to the largest size, which people who tell few colours apart still tell apart (cividis).
_COLOURS = ((0, 34, 78), (63, 78, 110), (124, 123, 120), (187, 175, 113), (254, 232, 56))
_OTHER, _LINE = "#b8c2cc", "#8895a3"
_EDGE = 16.0


@dataclass(frozen=True)
class HeatMap:
    """How much each of some buses holds.

    Attributes:
        network: The feeder.
        capacity_kw: Capacity by bus [kW].
        told: What is said of each bus.
        open_ended: Buses at which nothing broke.
        most_kw: The largest size, which has the last colour [kW].
        title: What the picture is called.
    """

    network: Network
    capacity_kw: Mapping[str, float]
    told: Mapping[str, str]
    open_ended: Collection[str]
    most_kw: float
    title: str

    @cached_property
    def _page(self) -> tuple[FloatArray, float]:
        xy, height = place_on_page(self.network, self.network.branches.closed)
        places = xy * [1.0, -1.0] + [_EDGE, height + _EDGE]
        return places, height + 2.0 * _EDGE

    @property
    def _radius(self) -> float:
        return (
            7.0
            if len(self.network.buses) <= FEW_BUSES
            else max(2.4, 7.0 * (FEW_BUSES / len(self.network.buses)) ** 0.5)
        )

    def _lines(self) -> list[FloatArray]:
        xy, _ = self._page
        return [xy[[buses[0], other]] for buses in self.network.branches.buses for other in buses[1:]]

    def as_svg(self) -> str:
        """Return it as SVG; a bus says its capacity when pointed at."""
        xy, height = self._page
        way = "".join(
            f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" for (a, b), (c, d) in (each.tolist() for each in self._lines())
        )
        parts = [f'<path d="{way}" fill="none" stroke="{_LINE}" stroke-width="1.2"/>']
        source = xy[self.network.source_bus].tolist()
        parts.append(f'<rect x="{source[0] - 7:.1f}" y="{source[1] - 7:.1f}" width="14" height="14" fill="#fff" '
                     f'stroke="#1b2733" stroke-width="1.6"><title>source</title></rect>')  # fmt: skip
        names = len(self.network.buses) <= FEW_BUSES
        for bus, name in enumerate(self.network.buses):
            x, y = xy[bus].tolist()
            if name not in self.capacity_kw:
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{_OTHER}"><title>{escape(name)}</title></circle>'
                )
                continue
            kw, ring = self.capacity_kw[name], "#1b2733" if name in self.open_ended else "#fff"
            parts.append(
                f'<circle class="bus" tabindex="0" cx="{x:.1f}" cy="{y:.1f}" r="{self._radius:.1f}" '
                f'fill="{_colour(kw / self.most_kw)}" stroke="{ring}"><title>{escape(self.told[name])}</title></circle>'
            )
            if names:
                at = f'x="{x + self._radius + 2:.1f}"'
                parts.append(f'<text {at} y="{y - 3:.1f}">{escape(name)}</text>')
                parts.append(f'<text {at} y="{y + 9:.1f}" class="kw">{kw:,.0f}</text>')
        head = f'<svg viewBox="0 0 {WIDTH + 2 * _EDGE:.0f} {height:.0f}" role="img" aria-label="{escape(self.title)}">'
        return f"{head}{''.join(parts)}</svg>"

    @staticmethod
    def scale_svg(most_kw: float) -> str:
        """Return the scale of colours as SVG."""
        bars = "".join(
            f'<rect x="{10 + 3 * i}" y="2" width="3.2" height="12" fill="{_colour(i / 99)}"/>' for i in range(100)
        )
        ticks = "".join(f'<text x="{10 + 300 * part:.0f}" y="28" text-anchor="{side}">{part * most_kw:,.0f}</text>'
                        for part, side in ((0.0, "start"), (0.5, "middle"), (1.0, "end")))  # fmt: skip
        head = '<svg class="scale" viewBox="0 0 360 32" aria-label="scale in kW">'
        return f'{head}{bars}{ticks}<text x="318" y="13">kW</text></svg>'

    def save(self, file: Path) -> Path:
        """Draw it into a PNG or SVG file."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.collections import LineCollection
        from matplotlib.colors import LinearSegmentedColormap, Normalize
        from matplotlib.figure import Figure

        xy, height = self._page
        figure = Figure(figsize=(WIDTH / 72.0 + 1.0, height / 72.0 + 0.5), facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlim=(0.0, WIDTH + 2.0 * _EDGE), ylim=(height, 0.0))
        axes.axis("off")
        axes.set_title(f"How much {self.title} holds [kW]", loc="left", fontsize=12, weight="bold")
        axes.add_collection(LineCollection(self._lines(), colors=_LINE, linewidths=1.0, zorder=1))
        colours = LinearSegmentedColormap.from_list("capacity", [tuple(c / 255 for c in each) for each in _COLOURS])
        own = [self.network.bus_index[bus] for bus in self.capacity_kw]
        rings = ["#1b2733" if bus in self.open_ended else "#ffffff" for bus in self.capacity_kw]
        size, scale = (1.6 * self._radius) ** 2, Normalize(0.0, self.most_kw)
        look: dict[str, Any] = {
            "c": list(self.capacity_kw.values()),
            "cmap": colours,
            "norm": scale,
            "edgecolors": rings,
        }
        axes.scatter(xy[own, 0], xy[own, 1], s=size, zorder=3, **look)
        x, y = xy[self.network.source_bus]
        axes.scatter([x], [y], s=90, marker="s", c="white", edgecolors="#1b2733", zorder=2)
        if len(self.network.buses) <= FEW_BUSES:
            for bus in own:
                name = self.network.buses[bus]
                told = f"{name}\n{self.capacity_kw[name]:,.0f}"
                axes.annotate(told, xy[bus], (6, 0), textcoords="offset points", fontsize=8, va="center")
        figure.colorbar(ScalarMappable(scale, colours), ax=axes, shrink=0.5, label="kW")
        return save(figure, file)


def _colour(part: float) -> str:
    """Return the colour of a part of the largest size, 0 to 1."""
    at = float(np.clip(part, 0.0, 1.0)) * (len(_COLOURS) - 1)
    mixed = [np.interp(at, range(len(_COLOURS)), channel) for channel in zip(*_COLOURS, strict=True)]
    return "#" + "".join(f"{round(float(each)):02x}" for each in mixed)
