"""The one-line diagram: branches, symbols, zones, devices, and buses coloured by voltage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.drawing.layout import FEW_BUSES, WIDTH, Room, place_on_page, text_size
from powergrid.evaluation.drawing.state import GridState
from powergrid.evaluation.drawing.symbols import BLACK, FILLED, INK, draw_panel, stroke, voltage_colours
from powergrid.grid.feeder.network import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

_PANEL, _TITLE = 2.4 * 72.0, 42.0
#: Up to this many elements of a class, each has its symbol.
_FEW_SYMBOLS = 40
_LEVEL_COLOURS = ("#1a1a1a", "#4f6272", "#9b8b6c", "#b3b3b3")
_ZONE_HUES = ("#1f77b4", "#ff9f1c", "#2ca02c", "#9467bd", "#d1495b", "#17a2b8", "#8c6d31", "#e377c2", "#7f7f7f",
              "#bcbd22")  # fmt: skip


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


def bus_voltages_kv(network: Network) -> FloatArray:
    """Return the nominal line-to-line voltage of each bus [kV], to the volt, so that levels come out alike."""
    bus_kv = np.zeros(len(network.buses))
    bus_kv[network.node_bus] = np.round(network.v_base * 3.0**0.5 / 1000.0, 3)
    return bus_kv


def _level_colour(level: int) -> str:
    return _LEVEL_COLOURS[min(level, len(_LEVEL_COLOURS) - 1)]


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
        self.shown: dict[str, None] = {}
        self.worst = worst_voltages(state)
        self.bus_kv = bus_voltages_kv(self.network)
        levels, self.level = np.unique(-self.bus_kv, return_inverse=True)  # 0 is the highest
        self.level_names = [f"{-kv:.4g} kV" for kv in levels.tolist()]
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
        live = self.state.v_pu[self.state.energised & (self.network.node_phase <= 3)]
        span = f"{live.min():.3f}..{live.max():.3f} pu, " if live.size else ""
        text = f"{span}{outside} of {len(worst)} buses outside the band"
        height = self.figure.get_figheight() * 72.0
        self.figure.text(0.015, 1.0 - 16.0 / height, self.state.title, fontsize=13, weight="bold", va="center")
        self.figure.text(
            0.015, 1.0 - 33.0 / height, text + (f", {dead} without voltage" if dead else ""), fontsize=9.5, va="center"
        )
        levels = [(name, _level_colour(i)) for i, name in enumerate(self.level_names)]
        draw_panel(self.panel, list(self.shown), levels, band, dead=dead > 0, ringed=outside > 0)
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
            colours = [_level_colour(i) for i in lower.tolist()]
            style = (0, (3, 3)) if name.startswith("open") else "solid"
            self._add_lines(list(segments), name, color=colours, linewidths=widths, linestyle=style, zorder=2)
            if self.small:
                self.room.take_segments(segments)

    def _draw_buses(self) -> None:
        colour_map, norm = voltage_colours(self.state.band)
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
        lines.set_gid(name)  # the name of the group in an SVG
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
        b, level = self.network.branches, self.level
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
            centre = self.room.find_any(anchor, width, 2.0 * radius + 2.0, (8.0, 16.0, 26.0, 40.0, 60.0))
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
