"""What stays the same in a replay's diagram: where buses, symbols and their names stand; lengths in points, y down.

Places come from the drawing's own layout, so that a page and a picture of a feeder look alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.drawing.charts import trace_voltages
from powergrid.evaluation.drawing.layout import FEW_BUSES, WIDTH, Room, place_on_page, text_size
from powergrid.evaluation.drawing.symbols import KINDS, SYMBOLS, find_symbols, thin_out
from powergrid.evaluation.replay.recording import DayRecording

FloatArray = npt.NDArray[np.float64]

#: Up to this many buses their names are shown, and room is made for them.
_FEW_NAMES = 60
#: Up to this many devices each has its name and numbers beside it.
_FEW_DEVICES = 60
#: What names of things at the edge have besides the layout's own margin.
_EDGE = 22.0
_LINE = 1.25
_REACH = (5.0, 9.0, 14.0, 20.0, 28.0, 40.0, 56.0, 76.0)


def make_scene(recording: DayRecording) -> dict[str, Any]:
    """Return the diagram of a feeder as plain lists: buses, branches, nodes, symbols and where texts go."""
    return _Scene(recording).make()


class _Scene:
    def __init__(self, recording: DayRecording) -> None:
        self.recording, self.network = recording, recording.feeder_network
        self.state = recording.look(0)
        xy, height = place_on_page(self.network, self.state.closed)
        self.xy, self.width, self.height = xy + _EDGE, WIDTH + 2.0 * _EDGE, height + 2.0 * _EDGE
        n = len(self.network.buses)
        self.radius = 10.0 if n <= _FEW_NAMES else 6.5
        self.size = 13.0 if n <= _FEW_NAMES else 10.5
        self.name_size = 12.0 if n <= _FEW_NAMES else 5.6
        self.room = Room(self.width, self.height)
        self.switchgear: dict[str, list[int]] = {}  # by branch; a transformer may have several tapped windings
        for place, name in enumerate(recording.switchgear.names):
            branch = name if name in self.network.branch_index else name.rpartition(":")[0]
            self.switchgear.setdefault(branch, []).append(place)

    def make(self) -> dict[str, Any]:
        network, b = self.network, self.network.branches
        self.room.take(self.xy, 4.0)
        if len(network.buses) <= FEW_BUSES:
            pairs = [(buses[0], other) for buses in b.buses for other in buses[1:]]
            self.room.take_segments(self.xy[np.array(pairs, dtype=np.int64).reshape(-1, 2)])
        symbols = [*self._place_switchgear(), self._place_source(), *self._place_devices()]
        kv = np.zeros(len(network.buses))
        kv[network.node_bus] = np.round(network.v_base * 3.0**0.5 / 1000.0, 3)
        traces = trace_voltages(self.state)
        distance = np.where(np.isfinite(traces.distance_km), traces.distance_km, -1.0)
        return {
            "width": self.width,
            "height": round(self.height, 1),
            "radius": self.radius,
            "size": self.size,
            "nameSize": self.name_size,
            "buses": {
                "name": network.buses,
                "xy": _round(self._down(self.xy)),
                "kv": _round(kv, 3),
                "label": self._name_buses(),
            },
            "branches": {
                "name": b.names,
                "ends": [buses[:3] for buses in b.buses],
                "phases": b.phases.tolist(),
                "amps": _round(b.norm_amps),
                "closed": self.state.closed.astype(int).tolist(),
                "shapes": {kind: _paths(kind) for kind in KINDS},
            },
            "nodes": {
                "bus": network.node_bus.tolist(),
                "phase": traces.phase.tolist(),
                "number": network.node_phase.tolist(),
                "km": _round(distance[: len(network.nodes)], 4),
                "secondary": traces.secondary.astype(int).tolist(),
                "pairs": traces.joined.reshape(-1).tolist(),
            },
            "symbols": symbols,
        }

    def _down(self, places: FloatArray) -> FloatArray:
        return places * [1.0, -1.0] + [0.0, self.height]

    def _place_switchgear(self) -> list[dict[str, Any]]:
        """Place transformers, regulators, switches and capacitors, with what moves in each of them."""
        network, devices = self.network, list(self.recording.placed.items())
        moved = {device.branch for _, device in devices}
        symbols, texts = [], []
        # what hangs on one bus comes after: it has a choice of places
        found = sorted(find_symbols(network, self.state.closed, moved).items(), key=lambda each: "capacitor" in each[0])
        for kind, places in found:
            firsts = set(thin_out(network, kind, [members[0] for members in places]))
            for members in places:
                if members[0] not in firsts:
                    continue
                gear = [place for branch in members[::-1] for place in self.switchgear.get(self._name(branch), ())]
                own = [place for place, (_, device) in enumerate(devices) if device.branch in members]
                symbol = self._on_branch(members[0], kind) | {
                    "kind": kind.partition("_")[0], "branches": members[::-1], "gear": gear, "devices": own,
                }  # fmt: skip
                symbols.append(symbol)
                if gear or (own and kind.startswith("switch")):
                    names = [devices[place][0] for place in own] or [self._short(branch) for branch in members[::-1]]
                    texts.append((symbol, _shorten(names), len(" +16" * max(len(gear), 1))))
        for symbol, name, width in texts:  # once all symbols have their room
            self._label(symbol, np.array([symbol["x"], self.height - symbol["y"]]), name, width, lines=2)
        return symbols

    def _name(self, branch: int) -> str:
        return self.network.branches.names[branch]

    def _short(self, branch: int) -> str:
        return self._name(branch).partition(".")[2]

    def _on_branch(self, branch: int, kind: str) -> dict[str, Any]:
        """Return the middle of a branch and its direction, or a place beside the bus that it hangs on."""
        buses = self.network.branches.buses[branch]
        lead: list[float] = []
        if len(buses) < 2:
            centre = self._find_beside(buses[0])
            way = (centre - self.xy[buses[0]]) / np.hypot(*(centre - self.xy[buses[0]]))
            lead = _round(self._down(np.array([self.xy[buses[0]], centre - 0.25 * self.radius * way])).reshape(-1))
        else:
            start, end = self.xy[buses[0]], self.xy[buses[1]]
            length, centre = float(np.hypot(*(end - start))), (start + end) / 2.0
            way = (end - start) / length if length and kind != "regulator" else np.array([1.0, 0.0])
            self.room.take(centre[None, :], 1.25 * self.radius)
        return self._at(centre) | {"turn": round(float(np.degrees(np.arctan2(-way[1], way[0]))), 1), "lead": lead}

    def _find_beside(self, bus: int) -> FloatArray:
        """Find and take the place of a symbol that hangs on a bus."""
        width = 2.5 * self.radius
        centre = self.room.find(self.xy[bus], width, width, (0.6 * self.radius, 1.5 * self.radius, 3.0 * self.radius))
        assert centre is not None
        apart = centre - self.xy[bus]
        turn = np.round(np.arctan2(apart[1], apart[0]) / (np.pi / 4.0)) * (np.pi / 4.0)  # upright looks calm
        beside: FloatArray = self.xy[bus] + np.hypot(*apart) * np.array([np.cos(turn), np.sin(turn)])
        self.room.take(beside[None, :], 1.25 * self.radius)
        return beside

    def _at(self, centre: FloatArray) -> dict[str, Any]:
        x, y = self._down(centre)
        return {"x": round(float(x), 1), "y": round(float(y), 1)}

    def _place_source(self) -> dict[str, Any]:
        bus = self.network.source_bus
        centre = self._find_beside(bus)
        symbol = self._at(centre) | {"kind": "source", "branches": [], "gear": [], "devices": [], "turn": 0.0}
        symbol["lead"] = _round(self._down(np.array([self.xy[bus], centre])).reshape(-1))
        self._label(symbol, centre, "", len("10,000 kW"), lines=1)
        return symbol

    def _place_devices(self) -> list[dict[str, Any]]:
        """Place what stands at a bus, its name and numbers on the side away from it."""
        symbols, radius = [], self.radius
        placed = [(i, name, device) for i, (name, device) in enumerate(self.recording.placed.items())]
        alone = [each for each in placed if each[2].branch < 0]
        for place, name, device in alone:
            anchor = self.xy[device.bus]
            base = {"kind": device.kind, "branches": [], "gear": [], "devices": [place], "turn": 0.0}
            if len(alone) > _FEW_DEVICES:
                centre = anchor + 1.4 * radius * np.array([np.cos(place * 2.4), np.sin(place * 2.4)])
                symbols.append(self._at(centre) | base | {"lead": []})
                continue
            short = _shorten([name])
            text = max(text_size(short, self.size)[0], text_size("-1,000 kW 100 %", self.size)[0] * 0.85)
            width, height = 2.0 * radius + 5.0 + text, max(2.0 * radius + 2.0, 2.0 * _LINE * self.size)
            middle = self.room.find(anchor, width, height, (8.0, 14.0, 22.0, 32.0, 46.0, 64.0, 90.0))
            assert middle is not None  # however much it covers: a device is always shown
            side = -1.0 if middle[0] >= anchor[0] else 1.0  # the symbol stands on the side of its bus
            centre = middle + np.array([side * (width / 2.0 - radius), 0.0])
            lead = _round(self._down(np.array([anchor, centre])).reshape(-1))
            x, y = self._down(centre - np.array([side * (radius + 5.0), 0.0]))
            label = {"x": round(float(x), 1), "y": round(float(y), 1), "text": short, "lines": 2}
            label["anchor"] = "start" if side < 0.0 else "end"
            symbols.append(self._at(centre) | base | {"lead": lead, "label": label})
        return symbols

    def _label(self, symbol: dict[str, Any], anchor: FloatArray, name: str, width: int, lines: int) -> None:
        """Place the name and numbers of a symbol where they cover least."""
        text = max(text_size(name, self.size)[0], 0.58 * self.size * width)
        reach = tuple(self.radius + gap - 3.0 for gap in _REACH)
        centre = self.room.find(anchor, text, lines * _LINE * self.size, reach)
        if centre is not None:
            x, y = self._down(centre)
            symbol["label"] = {
                "x": round(float(x), 1), "y": round(float(y), 1), "text": name, "lines": lines, "anchor": "middle",
            }  # fmt: skip

    def _name_buses(self) -> list[list[float]]:
        """Return where the name of each bus stands, nothing where there is no room."""
        few, places = len(self.network.buses) <= _FEW_NAMES, list[list[float]]()
        if len(self.network.buses) > FEW_BUSES:
            return places
        size = self.name_size
        for bus, name in enumerate(self.network.buses):
            reach = (3.0, 5.0, 8.0, 12.0, 16.0, 22.0) if few else (2.0, 4.0, 7.0)
            centre = self.room.find(self.xy[bus], *text_size(name, size), reach, 8.0 if few else 6.0)
            places.append([] if centre is None else _round(self._down(centre)))
        return places


def _shorten(names: Sequence[str]) -> str:
    """Return names in one line: the first and the last where there are many, both ends of one that is long."""
    if sum(map(len, names)) <= 16:
        return " ".join(names)
    short = [name if len(name) <= 18 else f"{name[:9]}…{name[-6:]}" for name in names]
    return short[0] if len(names) == 1 else f"{short[0]} … {short[-1]}"


def _paths(kind: str) -> Mapping[str, Any]:
    """Return a symbol's strokes as paths of SVG in units of its radius, y down, and what it is filled with."""
    paths = ["M" + "L".join(f"{x:.3g},{-y:.3g}" for x, y in stroke.tolist()) for stroke in SYMBOLS[kind]]
    meaning, fill = KINDS[kind]
    return {"meaning": meaning, "fill": fill, "outlines": 2 if kind == "transformer" else 1, "paths": paths}


def _round(values: FloatArray, digits: int = 1) -> Any:
    return np.round(values, digits).tolist()
