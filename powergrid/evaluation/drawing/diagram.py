"""The one-line diagram: branches, symbols, zones, devices, and buses coloured by voltage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.drawing.labels import Room, text_size
from powergrid.evaluation.drawing.layout import lay_out, push_apart
from powergrid.evaluation.drawing.panel import draw_panel, voltage_colours
from powergrid.evaluation.drawing.state import GridState
from powergrid.evaluation.drawing.symbols import BLACK, FILLED, INK, stroke

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

_WIDTH, _PANEL, _MARGIN, _TITLE = 11.0 * 72.0, 2.4 * 72.0, 34.0, 42.0
_HEIGHTS = (6.0 * 72.0, 11.0 * 72.0)
#: Up to this many buses, each has its name; and up to this many elements of a class, each has its symbol.
FEW_BUSES = 150
_FEW_SYMBOLS = 40
_LEVEL_COLOURS = ("#1a1a1a", "#4f6272", "#9b8b6c", "#b3b3b3")
_ZONE_HUES = (
    "#1f77b4",
    "#ff9f1c",
    "#2ca02c",
    "#9467bd",
    "#d1495b",
    "#17a2b8",
    "#8c6d31",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
)


def draw_network(state: GridState) -> Figure:
    """Draw the one-line diagram of a solved feeder.

    A bus is coloured by the voltage of its phase farthest from the middle of the band; outside the band it is ringed.
    Large feeders lose names and the symbols of what they have many of.

    Args:
        state: What is drawn.
    """
    return _Diagram(state).draw()


def worst_voltages(state: GridState) -> FloatArray:
    """Return each bus the voltage of its phase farthest from the middle of the band, NaN where dead [pu]."""
    network, worst = state.network, np.full(len(state.network.buses), np.nan)
    phases = np.flatnonzero((network.node_phase <= 3) & state.energised)
    off = np.abs(state.v_pu - sum(state.band) / 2.0)
    phases = phases[np.argsort(off[phases], kind="stable")]
    worst[network.node_bus[phases]] = state.v_pu[phases]  # the farthest is written last
    return worst


def level_names(state: GridState) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the voltage level of each bus, 0 is the highest, and the levels' names."""
    network = state.network
    bus_kv = np.zeros(len(network.buses))
    bus_kv[network.node_bus] = np.round(network.v_base * 3.0**0.5 / 1000.0, 3)
    levels, index = np.unique(-bus_kv, return_inverse=True)
    return index.astype(np.int64), [f"{-kv:.4g} kV" for kv in levels.tolist()]


class _Diagram:
    """One drawing in the making; all lengths in points."""

    def __init__(self, state: GridState) -> None:
        from matplotlib.figure import Figure

        self.state, self.network = state, state.network
        self.small = len(self.network.buses) <= FEW_BUSES
        self.xy, height = self._scale(*lay_out(self.network))
        full = _WIDTH + _PANEL, height + _TITLE
        self.figure = Figure(figsize=(full[0] / 72.0, full[1] / 72.0), facecolor="white")
        self.axes = self._add_axes(0.0, _WIDTH, height, full)
        self.panel = self._add_axes(_WIDTH, _PANEL, height, full)
        self.room = Room(_WIDTH, height)
        self.shown: dict[str, None] = {}
        self.radius = 6.0 if len(self.network.buses) <= 60 else 4.2

    def _scale(self, xy: FloatArray, is_map: bool) -> tuple[FloatArray, float]:
        """Turn places into points, and give the height of the drawing."""
        span = np.ptp(xy, axis=0)
        inner = _WIDTH - 2.0 * _MARGIN
        if is_map:
            scale = np.full(2, inner / max(span[0], 1e-9 * max(span[1], 1.0)))
            height = float(np.clip(span[1] * scale[1] + 2.0 * _MARGIN, *_HEIGHTS))
            scale[:] = min(scale[0], (height - 2.0 * _MARGIN) / max(span[1], 1e-12))
        else:
            height = float(np.clip(span[1] * 30.0 + 2.0 * _MARGIN, *_HEIGHTS))
            scale = np.array([inner, height - 2.0 * _MARGIN]) / np.maximum(span, 1e-12)
        scaled = (xy - xy.min(axis=0) - span / 2.0) * np.where(span > 0.0, scale, 0.0)
        places = scaled + np.array([_WIDTH, height]) / 2.0
        if self.small:
            places = push_apart(places, self._least_distances())
            span = np.ptp(places, axis=0)
            room = np.array([_WIDTH, height]) - 2.0 * _MARGIN
            places = (places - places.min(axis=0) - span / 2.0) * np.minimum(1.0, room / np.maximum(span, 1e-9))
            places = places + np.array([_WIDTH, height]) / 2.0
        return places, height

    def _least_distances(self) -> FloatArray:
        """Return how near buses may come to each other: a symbol between two needs its room."""
        b, few = self.network.branches, len(self.network.buses) <= 60
        least = np.full((len(self.network.buses),) * 2, 19.0 if few else 13.0)
        for branch, buses in enumerate(b.buses):
            if not b.names[branch].startswith("line.") or b.is_switch[branch] or not self.state.closed[branch]:
                for other in buses[1:]:
                    least[buses[0], other] = least[other, buses[0]] = 36.0 if few else 22.0
        return least

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
        worst, band = worst_voltages(self.state), self.state.band
        outside = int(np.count_nonzero((worst < band[0]) | (worst > band[1])))
        dead = int(np.count_nonzero(np.isnan(worst)))
        live = self.state.v_pu[self.state.energised & (self.network.node_phase <= 3)]
        span = f"{live.min():.3f}..{live.max():.3f} pu, " if live.size else ""
        text = f"{span}{outside} of {len(worst)} buses outside the band"
        height = self.figure.get_figheight() * 72.0
        self.figure.text(0.015, 1.0 - 16.0 / height, self.state.title, fontsize=13, weight="bold", va="center")
        self.figure.text(
            0.015, 1.0 - 33.0 / height, text + (f", {dead} without voltage" if dead else ""), fontsize=9.5, va="center"
        )
        colours, names = _LEVEL_COLOURS, level_names(self.state)[1]
        levels = [(name, colours[min(i, len(colours) - 1)]) for i, name in enumerate(names)]
        draw_panel(self.panel, list(self.shown), levels, band, dead=dead > 0, ringed=outside > 0)
        return self.figure

    # -- branches and buses

    def _draw_branches(self) -> None:
        """Draw what joins buses as straight lines: open lines dashed, secondaries thin."""
        b, closed = self.network.branches, self.state.closed
        level, _ = level_names(self.state)
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
            lower = level[table[:, 1:]].max(axis=1)
            widths = factor * np.array([0.8, 0.8, 1.4, 2.0])[np.clip(b.phases[table[:, 0]], 0, 3)]
            widths[self._is_secondary(table[:, 2])] = 0.6 * factor
            colours = [_LEVEL_COLOURS[min(i, len(_LEVEL_COLOURS) - 1)] for i in lower.tolist()]
            style = (0, (3, 3)) if name.startswith("open") else "solid"
            self._add_lines(list(segments), name, color=colours, linewidths=widths, linestyle=style, zorder=2)
            if self.small:
                self.room.take_segments(segments)

    def _is_secondary(self, buses: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        bus_kv = np.zeros(len(self.network.buses))
        bus_kv[self.network.node_bus] = self.network.v_base * 3.0**0.5 / 1000.0
        return np.asarray(bus_kv[buses] < 1.0)

    def _draw_buses(self) -> None:
        colour_map, norm = voltage_colours(self.state.band)
        worst, (low, high) = worst_voltages(self.state), self.state.band
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
            dots = self.axes.scatter(
                self.xy[buses, 0],
                self.xy[buses, 1],
                s=grown * size,
                c=colours,
                edgecolors=edge,
                linewidths=width,
                zorder=6,
            )
            dots.set_gid(name)
        self.room.take(self.xy, 0.6 * size**0.5)

    # -- symbols

    def _add_lines(self, segments: list[FloatArray], name: str, **look: Any) -> None:
        from matplotlib.collections import LineCollection

        lines = LineCollection(segments, capstyle="round", **look)
        lines.set_gid(name)
        self.axes.add_collection(lines)

    def _add_symbols(self, kind: str, places: list[tuple[FloatArray, tuple[float, float]]], radius: float) -> None:
        """Draw one kind of symbol at some places: fills first, strokes above."""
        from matplotlib.collections import PolyCollection

        if not places:
            return
        self.shown[kind] = None
        drawn = [stroke(kind, centre, radius, way) for centre, way in places]
        n_fills = 2 if kind == "transformer" else 1
        if kind in FILLED:
            fills = [line for lines in drawn for line in lines[:n_fills]]
            self.axes.add_collection(PolyCollection(fills, facecolors=FILLED[kind], edgecolors="none", zorder=7))
        strokes = [line for lines in drawn for line in lines]
        self._add_lines(strokes, f"symbols-{kind}", color=INK.get(kind, BLACK), linewidths=0.9, zorder=8)
        self.room.take(np.array([centre for centre, _ in places]), 1.2 * radius)

    def _draw_symbols(self) -> None:
        """Draw transformers, regulators, switches, capacitors and the source, of each kind as many as can be read."""
        b, network = self.network.branches, self.network
        regulated = {f"{kind}.{name}" for name in network.regulators for kind in ("transformer", "autotrans")}
        found: dict[str, dict[frozenset[int], int]] = {}
        moved = {device.branch for device in self.state.devices.values()}
        for branch, name in enumerate(b.names):
            kind, buses = name.partition(".")[0], b.buses[branch]
            if kind == "capacitor":
                symbol = "capacitor" if self.state.closed[branch] else "capacitor_off"
                found.setdefault(symbol, {})[frozenset(buses)] = branch
            elif len(buses) < 2:
                continue
            elif kind in ("transformer", "autotrans"):
                symbol = "regulator" if name in regulated or branch in moved else "transformer"
                found.setdefault(symbol, {})[frozenset(buses)] = branch
            elif kind == "line" and not self.state.closed[branch]:
                found.setdefault("switch_open", {})[frozenset(buses)] = branch
            elif kind == "line" and (b.is_switch[branch] or branch in moved):
                found.setdefault("switch_closed", {})[frozenset(buses)] = branch
        for kind, places in found.items():
            branches = self._thin_out(kind, list(places.values()))
            self._add_symbols(kind, [self._on_branch(branch, kind) for branch in branches], self.radius)
        # left of the bus, where a tree has nothing and a map usually little
        way = self._free_way(network.source_bus)
        gap = 2.2 * self.radius * (1.6 if not self.small else 1.0)
        centre = self.xy[network.source_bus] + gap * np.array(way)
        self._add_lines([np.array([self.xy[network.source_bus], centre])], "source-lead", color="#222222", zorder=5)
        self._add_symbols("source", [(centre, (1.0, 0.0))], self.radius * (1.1 if self.small else 2.0))

    def _thin_out(self, kind: str, branches: list[int]) -> list[int]:
        """Leave out what there is too much of: service transformers, and closed switches."""
        if len(branches) <= _FEW_SYMBOLS or kind in ("regulator", "switch_open"):
            return branches
        b, level = self.network.branches, level_names(self.state)[0]
        if kind == "transformer":
            high = [n for n in branches if 0 in level[b.buses[n]]]
            return high if len(high) <= _FEW_SYMBOLS else []
        return branches if kind.startswith("capacitor") else []

    def _on_branch(self, branch: int, kind: str) -> tuple[FloatArray, tuple[float, float]]:
        """Return the middle of a branch and its direction, or a place beside the bus that it hangs on."""
        buses = self.network.branches.buses[branch]
        if len(buses) < 2:
            way = self._free_way(buses[0])
            centre = self.xy[buses[0]] + 2.2 * self.radius * np.array(way)
            lead = np.array([self.xy[buses[0]], centre - 0.25 * self.radius * np.array(way)])
            self._add_lines([lead], "shunt-lead", color="#222222", linewidths=0.9, zorder=5)
            return centre, way
        start, end = self.xy[buses[0]], self.xy[buses[1]]
        length = float(np.hypot(*(end - start)))
        way = (float((end - start)[0] / length), float((end - start)[1] / length)) if length else (1.0, 0.0)
        return (start + end) / 2.0, way if kind != "regulator" else (1.0, 0.0)

    def _free_way(self, bus: int) -> tuple[float, float]:
        """Return the direction in which a bus has no branch, of the eight of the compass the freest."""
        ends = [e for buses in self.network.branches.buses if bus in buses for e in buses if e != bus]
        ways = np.array([(np.cos(t), np.sin(t)) for t in np.linspace(0.0, 2.0 * np.pi, 8, endpoint=False) + np.pi])
        if not ends:
            return float(ways[0, 0]), float(ways[0, 1])
        apart = self.xy[ends] - self.xy[bus]
        apart /= np.maximum(np.hypot(*apart.T)[:, None], 1e-9)
        way = ways[int(np.argmin(np.round((ways @ apart.T).max(axis=1), 3)))]
        return float(way[0]), float(way[1])

    # -- devices, zones, names

    def _draw_devices(self) -> None:
        """Draw devices as symbols with their names, tied to their bus; switchgear gets its name only."""
        places: dict[str, list[tuple[FloatArray, tuple[float, float]]]] = {}
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
            centre = self.room.settle(anchor, width, 2.0 * radius + 2.0, (8.0, 16.0, 26.0, 40.0, 60.0))
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
            pale = tuple((0.22 * hue + 0.78).tolist())
            inside = set(buses)
            segments = [
                self.xy[[ends[0], other]] for ends in b.buses for other in ends[1:] if {ends[0], other} <= inside
            ]
            own = self.xy[sorted(inside)]
            dots = self.axes.scatter(own[:, 0], own[:, 1], s=width**2, color=pale, linewidths=0, zorder=0.5)
            dots.set_gid(f"halo-{agent}")
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
        written = self.axes.text(
            place[0], place[1], text, fontsize=size, ha=ha, va="center", zorder=9, parse_math=False, bbox=box, **look
        )
        written.set_gid(gid)
