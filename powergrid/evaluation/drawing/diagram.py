"""The one-line diagram: branches, symbols, zones, devices, buses coloured by voltage; and a panel that explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.drawing.layout import FEW_BUSES, WIDTH, Room, place_on_page, text_size
from powergrid.evaluation.drawing.state import GridState
from powergrid.evaluation.drawing.symbols import KINDS, SYMBOLS, Strokes, find_symbols, free_way, thin_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]
Place = tuple[FloatArray, tuple[float, float]]  # of a symbol: its centre, and where its x axis points

_PANEL, _TITLE, _ROW, _SCALE_HEIGHT = 2.4 * 72.0, 42.0, 17.5, 130.0
_LEVEL_COLOURS = ("#1a1a1a", "#4f6272", "#9b8b6c", "#b3b3b3")
_ZONE_HUES = ("#1f77b4", "#ff9f1c", "#2ca02c", "#9467bd", "#d1495b", "#17a2b8", "#8c6d31", "#e377c2", "#7f7f7f",
              "#bcbd22")  # fmt: skip
#: Colours of voltages below, within and above the band.
_VOLTAGES = ("#2b0a5c", "#5b2bd1", "#58aee0", "#8fd694", "#f5c542", "#e0301e", "#6d0010")


def draw_network(state: GridState) -> Figure:
    """Draw the one-line diagram of a solved feeder.

    A bus is coloured by the voltage of its phase farthest from the middle of the band; outside the band it is ringed.
    Large feeders lose names and the symbols of what they have many of.
    """
    return _Diagram(state).draw()


def worst_voltages(state: GridState) -> FloatArray:
    """Return each bus the voltage of its phase farthest from the middle of the band, NaN where dead [pu]."""
    network, worst = state.network, np.full(len(state.network.buses), np.nan)
    phases = np.flatnonzero(network.is_phase & state.energised)
    off = np.abs(state.v_pu - sum(state.band) / 2.0)
    phases = phases[np.argsort(off[phases], kind="stable")]
    worst[network.node_bus[phases]] = state.v_pu[phases]  # the farthest is written last
    return worst


def _add_strokes(axes: Axes, lines: Strokes, name: str = "", **look: Any) -> None:
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(lines, gid=name or None, **look))  # in an SVG, the name of the group


def _add_symbols(axes: Axes, kind: str, places: list[Place], radius: float, name: str = "", **look: Any) -> None:
    """Draw one kind of symbol at some places: fills first, strokes above."""
    from matplotlib.collections import PolyCollection

    fill, ink = KINDS[kind][1], "#b0b0b0" if kind == "capacitor_off" else "#222222"
    turned = [np.array([[x, y], [-y, x]]) for _, (x, y) in places]
    drawn = [[centre + radius * (line @ turn) for line in SYMBOLS[kind]]
             for (centre, _), turn in zip(places, turned, strict=True)]  # fmt: skip
    if fill:
        # Both windings hide the line beneath them; of the others the first stroke is the outline.
        fills = [line for lines in drawn for line in lines[: 2 if kind == "transformer" else 1]]
        below = {"zorder": look["zorder"] - 1} if look else {}
        axes.add_collection(PolyCollection(fills, facecolors=fill, edgecolors="none", **below))
    _add_strokes(axes, [line for lines in drawn for line in lines], name, color=ink, linewidths=0.9, **look)


def _voltage_colours(band: tuple[float, float]) -> tuple[LinearSegmentedColormap, Normalize]:
    """Return the colours of voltages: pale within the band, strong from its limits on."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    low, high = band
    margin = (high - low) / 2.0
    ends = low - margin, high + margin
    # Both limits stand twice: the colour jumps there, so that a bus just outside cannot pass for one inside.
    stops = np.array([ends[0], low, low, (low + high) / 2.0, high, high, ends[1]])
    places = (stops - ends[0]) / (ends[1] - ends[0])
    scale = LinearSegmentedColormap.from_list("voltage", list(zip(places.tolist(), _VOLTAGES, strict=True)), N=400)
    return scale, Normalize(*ends, clip=True)


class _Diagram:
    """One drawing in the making; all lengths in points."""

    def __init__(self, state: GridState) -> None:
        from matplotlib.figure import Figure

        self.state, self.network = state, state.network
        self.small = len(self.network.buses) <= FEW_BUSES
        self.xy, height = place_on_page(self.network, state.closed)
        full = WIDTH + _PANEL, height + _TITLE
        self.figure = Figure(figsize=(full[0] / 72.0, full[1] / 72.0), facecolor="white")
        self.axes = self._add_axes(0.0, WIDTH, height, full)
        self.panel = self._add_axes(WIDTH, _PANEL, height, full)
        self.room = Room(WIDTH, height)
        self.shown: set[str] = set()
        self.worst = worst_voltages(state)
        self.bus_kv = np.zeros(len(self.network.buses))
        # To the volt, so that what is one level comes out alike.
        self.bus_kv[self.network.node_bus] = np.round(self.network.v_base * 3.0**0.5 / 1000.0, 3)
        levels, self.level = np.unique(-self.bus_kv, return_inverse=True)  # 0 is the highest
        self.level_names = [f"{-kv:.4g} kV" for kv in levels.tolist()]
        self.colours = [_LEVEL_COLOURS[min(i, len(_LEVEL_COLOURS) - 1)] for i in range(len(levels))]
        self.radius = 6.0 if len(self.network.buses) <= 60 else 4.2

    def _add_axes(self, left: float, width: float, height: float, full: tuple[float, float]) -> Axes:
        axes = self.figure.add_axes((left / full[0], 0.0, width / full[0], height / full[1]))
        axes.set(xlim=(0.0, width), ylim=(0.0, height))
        axes.axis("off")
        return axes

    def draw(self) -> Figure:
        self._draw_branches()
        self._draw_buses()
        self._draw_symbols()
        self._draw_devices()
        self._draw_zones()
        if self.small:
            self._name_buses()
        worst, band = self.worst, self.state.band
        outside = int(np.count_nonzero((worst < band[0]) | (worst > band[1])))
        dead = int(np.count_nonzero(np.isnan(worst)))
        live = self.state.v_pu[self.state.energised & self.network.is_phase]
        span = f"{live.min():.3f}..{live.max():.3f} pu, " if live.size else ""
        text = f"{span}{outside} of {len(worst)} buses outside the band"
        height = self.figure.get_figheight() * 72.0
        self.figure.text(0.015, 1.0 - 16.0 / height, self.state.title, fontsize=13, weight="bold", va="center")
        self.figure.text(
            0.015, 1.0 - 33.0 / height, text + (f", {dead} without voltage" if dead else ""), fontsize=9.5, va="center"
        )
        self._draw_panel(dead=dead > 0, ringed=outside > 0)
        return self.figure

    # -- branches and buses

    def _draw_branches(self) -> None:
        """Draw what joins buses as straight lines: open lines dashed, secondaries thin."""
        b, closed = self.network.branches, self.state.closed
        groups: dict[str, list[tuple[int, int, int]]] = {}
        for branch, buses in enumerate(b.buses):
            kind = b.names[branch].partition(".")[0]
            group = "lines" if kind == "line" else "others"
            for other in buses[1:]:
                groups.setdefault(group if closed[branch] else f"open-{group}", []).append((branch, buses[0], other))
        factor = 1.0 if self.small else 0.55
        for name, edges in groups.items():
            table = np.array(edges)
            segments = self.xy[table[:, 1:]]
            lower = self.level[table[:, 1:]].max(axis=1)
            widths = factor * np.array([0.8, 0.8, 1.4, 2.0])[np.clip(b.phases[table[:, 0]], 0, 3)]
            widths[self.bus_kv[table[:, 2]] < 1.0] = 0.6 * factor
            colours = [self.colours[i] for i in lower.tolist()]
            style = (0, (3, 3)) if name.startswith("open") else "solid"
            self._add_lines(list(segments), name, color=colours, linewidths=widths, linestyle=style, zorder=2)
            if self.small:
                self.room.take_segments(segments)

    def _draw_buses(self) -> None:
        colour_map, norm = _voltage_colours(self.state.band)
        worst, (low, high) = self.worst, self.state.band
        outside = (worst < low) | (worst > high)
        size = 34.0 if len(worst) <= 60 else (20.0 if self.small else float(np.clip(16000.0 / len(worst), 4.5, 14.0)))
        plain, dead = np.flatnonzero(~outside & np.isfinite(worst)), np.flatnonzero(np.isnan(worst))
        for name, buses, grown, edge, width in (
            ("buses", plain, 1.0, "#333333", 0.4 if self.small else 0.0),
            ("buses-dead", dead, 1.0, "#999999", 0.8),
            ("buses-outside", np.flatnonzero(outside), 1.7, "black", 1.2 if self.small else 0.25),
        ):
            if not len(buses):
                continue
            colours: Any = "white" if name == "buses-dead" else colour_map(norm(worst[buses]))
            look: Any = {"edgecolors": edge, "linewidths": width, "zorder": 6, "gid": name}
            x, y = self.xy[buses].T
            self.axes.scatter(x, y, s=grown * size, c=colours, **look)
        self.room.take(self.xy, 0.6 * size**0.5)

    # -- symbols

    def _add_lines(self, segments: Strokes, name: str, **look: Any) -> None:
        _add_strokes(self.axes, segments, name, capstyle="round", **look)

    def _add_symbols(self, kind: str, places: list[Place], radius: float) -> None:
        if places:
            self.shown.add(kind)
            _add_symbols(self.axes, kind, places, radius, f"symbols-{kind}", capstyle="round", zorder=8)
            self.room.take(np.array([centre for centre, _ in places]), 1.2 * radius)

    def _draw_symbols(self) -> None:
        """Draw transformers, regulators, switches, capacitors and the source, of each kind as many as can be read."""
        network = self.network
        moved = {device.branch for device in self.state.devices.values()}
        found = find_symbols(network, self.state.closed, moved)
        for kind, places in found.items():
            branches = thin_out(network, kind, [members[0] for members in places])
            self._add_symbols(kind, [self._on_branch(branch, kind) for branch in branches], self.radius)
        way = free_way(network, self.xy, network.source_bus)
        gap = 2.2 * self.radius * (1.6 if not self.small else 1.0)
        centre = self.xy[network.source_bus] + gap * np.array(way)
        self._add_lines([np.array([self.xy[network.source_bus], centre])], "source-lead", color="#222222", zorder=5)
        self._add_symbols("source", [(centre, (1.0, 0.0))], self.radius * (1.1 if self.small else 2.0))

    def _on_branch(self, branch: int, kind: str) -> Place:
        """Return the middle of a branch and its direction, or a place beside the bus that it hangs on."""
        buses = self.network.branches.buses[branch]
        if len(buses) < 2:
            way = free_way(self.network, self.xy, buses[0])
            centre = self.xy[buses[0]] + 2.2 * self.radius * np.array(way)
            lead = np.array([self.xy[buses[0]], centre - 0.25 * self.radius * np.array(way)])
            self._add_lines([lead], "shunt-lead", color="#222222", linewidths=0.9, zorder=5)
            return centre, way
        start, end = self.xy[buses[0]], self.xy[buses[1]]
        length = float(np.hypot(*(end - start)))
        x, y = (end - start) / length if length and kind != "regulator" else (1.0, 0.0)
        return (start + end) / 2.0, (float(x), float(y))

    # -- devices, zones, names

    def _draw_devices(self) -> None:
        """Draw devices as symbols with their names, tied to their bus; switchgear gets its name only."""
        places: dict[str, list[Place]] = {}
        leads: list[FloatArray] = []
        size = 7.5 if self.small else 6.5
        radius = 6.0 if self.small else 5.0
        gear: dict[frozenset[int], list[str]] = {}
        for name, device in self.state.devices.items():
            if device.branch >= 0:
                gear.setdefault(frozenset(self.network.branches.buses[device.branch]), []).append(name)
                continue
            width = 2.0 * radius + 3.0 + text_size(name, size)[0]
            anchor = self.xy[device.bus]
            centre = self.room.find(anchor, width, 2.0 * radius + 2.0, (8.0, 16.0, 26.0, 40.0, 60.0))
            assert centre is not None  # however much it covers: a device is always shown
            side = -1.0 if centre[0] >= anchor[0] else 1.0  # the symbol stands on the side of its bus
            symbol = centre + np.array([side * (width / 2.0 - radius), 0.0])
            places.setdefault(device.kind, []).append((symbol, (1.0, 0.0)))
            leads.append(np.array([anchor, symbol]))
            text = symbol - np.array([side * (radius + 3.0), 0.0])
            self._write(name, text, size, gid=f"device-{name}", ha="left" if side < 0.0 else "right")
        if leads:
            self._add_lines(leads, "device-leads", color="#555555", linewidths=0.6, zorder=4)
        for kind, own in places.items():
            self._add_symbols(kind, own, radius)
        for buses, names in gear.items():
            self._label(self.xy[list(buses)].mean(axis=0), ", ".join(names), size, (7.0, 14.0, 24.0, 40.0), "device")

    def _draw_zones(self) -> None:
        """Draw a halo along what lies within each zone, and the agent's name."""
        from matplotlib.colors import to_rgb

        b = self.network.branches
        width = 22.0 if len(self.network.buses) <= 60 else (17.0 if self.small else 9.0)
        for number, (agent, buses) in enumerate(self.state.zones.items()):
            hue = np.array(to_rgb(_ZONE_HUES[number % len(_ZONE_HUES)]))
            # A mixture with white, not an alpha: where halos lie on each other, no seam shows.
            pale = tuple((0.22 * hue + 0.78).tolist())
            inside = set(buses)
            pairs = [[ends[0], other] for ends in b.buses for other in ends[1:] if {ends[0], other} <= inside]
            segments, own = [self.xy[pair] for pair in pairs], self.xy[sorted(inside)]
            x, y = own.T
            self.axes.scatter(x, y, s=width**2, color=pale, linewidths=0, zorder=0.5, gid=f"halo-{agent}")
            self._add_lines(segments, f"halo-lines-{agent}", color=pale, linewidths=width, zorder=0.5)
            centre = own.mean(axis=0)
            anchor = self.xy[min(inside, key=lambda bus: float(np.hypot(*(self.xy[bus] - centre))))]
            self._label(anchor, agent, 13.0, (6.0, 14.0, 26.0, 40.0, 60.0), "zone", weight="bold",
                        color=tuple((0.75 * hue).tolist()))  # fmt: skip

    def _name_buses(self) -> None:
        few = len(self.network.buses) <= 60
        size = 7.5 if few else 5.8
        reach = (3.0, 5.0, 8.0, 12.0, 16.0) if few else (3.0, 5.0, 8.0)
        for bus, name in enumerate(self.network.buses):
            self._label(self.xy[bus], name, size, reach, "bus", most=6.0, color="#333333")

    def _label(
        self, anchor: FloatArray, text: str, size: float, reach: tuple[float, ...], what: str, *,
        most: float = np.inf, **look: Any,
    ) -> None:  # fmt: skip
        """Write a name where it covers least, or not at all where it would cover more than ``most``."""
        centre = self.room.find(anchor, *text_size(text, size), reach, most)
        if centre is not None:
            self._write(text, centre, size, gid=f"{what}-{text}", ha="center", **look)

    def _write(self, text: str, place: FloatArray, size: float, *, gid: str, ha: str, **look: Any) -> None:
        # a pale box, no path effect: in an SVG that would turn text into outlines
        box = {"facecolor": "white", "alpha": 0.6, "edgecolor": "none", "pad": 0.3}
        x, y = place.tolist()
        self.axes.text(
            x, y, text, fontsize=size, ha=ha, va="center", zorder=9, parse_math=False, bbox=box, gid=gid, **look
        )

    # -- the panel

    def _draw_panel(self, *, dead: bool, ringed: bool) -> None:
        """Explain levels, phases and the symbols that are shown; dead buses and rings where there are any."""
        panel = self.panel
        row = panel.get_ylim()[1] - 14.0

        def write(text: str) -> None:
            nonlocal row
            panel.text(44.0, row, text, fontsize=8.5, va="center", parse_math=False)
            row -= _ROW

        bars = [(name, colour, 2.2) for name, colour in zip(self.level_names, self.colours, strict=True)]
        phases = zip(("one phase", "two phases", "three phases"), (0.8, 1.4, 2.0), strict=True)
        for name, colour, width in [*bars, *((name, "#4f6272", width) for name, width in phases)]:
            panel.plot([12.0, 34.0], [row, row], color=colour, linewidth=width)
            write(name)
        for kind, (meaning, _) in KINDS.items():
            if kind in self.shown:
                _add_symbols(panel, kind, [(np.array([23.0, row]), (1.0, 0.0))], 6.0)
                write(meaning)
        if ringed:
            for x, colour in ((23.0, "#5b2bd1"), (34.0, "#e0301e")):
                panel.scatter([x], [row], s=50, c=colour, edgecolors="black", linewidths=1.2)
            write("bus outside the band")
        if dead:
            panel.scatter([23.0], [row], s=34, c="white", edgecolors="#999999", linewidths=0.8)
            write("bus without voltage")
        self._draw_scale(row - 8.0)

    def _draw_scale(self, top: float) -> None:
        from matplotlib.cm import ScalarMappable

        colours, norm = _voltage_colours(self.state.band)
        # What the rows above leave of the panel; a scale below 60 points has no room for its five numbers.
        height = float(np.clip(top - 40.0, 60.0, _SCALE_HEIGHT))
        bottom = max(top - height - 12.0, 12.0)
        axes = self.panel.inset_axes((16.0, bottom, 14.0, height), transform=self.panel.transData)
        bar = self.figure.colorbar(ScalarMappable(norm, colours), cax=axes, extend="both")
        low, high = self.state.band
        bar.set_ticks([norm.vmin or 0.0, low, (low + high) / 2.0, high, norm.vmax or 0.0])
        bar.ax.tick_params(labelsize=8)
        bar.set_label("worst phase of the bus [pu]", fontsize=8.5)
        for limit in (low, high):
            bar.ax.axhline(limit, color="black", linewidth=1.2)
