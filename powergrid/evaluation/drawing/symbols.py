"""The symbols of a one-line diagram: their strokes, which elements have one, and where there is room for it.

A symbol is strokes around the origin in units of a radius, with fills behind them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from powergrid.grid.feeder.network import Network

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Strokes = list[FloatArray]

#: Up to this many elements of a class, each has its symbol.
_FEW_SYMBOLS = 40


def _circle(x: float, y: float, radius: float) -> FloatArray:
    turn = np.linspace(0.0, 2.0 * np.pi, 25)
    return np.column_stack([x + radius * np.cos(turn), y + radius * np.sin(turn)])


def _line(*points: tuple[float, float]) -> FloatArray:
    return np.array(points, dtype=np.float64)


_SQUARE = _line((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))
_WAVE = np.column_stack([np.linspace(-0.6, 0.6, 21), 0.4 * np.sin(np.linspace(0.0, 2.0 * np.pi, 21))])
_ROUND = _circle(0, 0, 1)

#: Strokes of each symbol; the first is also its outline, filled where :data:`KINDS` says so.
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
    "building": [_SQUARE, _line((-0.6, -0.7), (-0.6, 0.2), (0, 0.7), (0.6, 0.2), (0.6, -0.7), (-0.6, -0.7))],
}  # fmt: skip
SYMBOLS["capacitor_off"] = SYMBOLS["capacitor"]
#: What each symbol means and what it is filled with, in the order of the panel.
KINDS = {
    "source": ("source", "white"), "transformer": ("transformer", "white"), "regulator": ("regulator", "white"),
    "switch_closed": ("switch, closed", "#333333"), "switch_open": ("switch or line, open", "white"),
    "capacitor": ("capacitor", ""), "capacitor_off": ("capacitor, off", ""), "storage": ("storage", "#d9f2d9"),
    "inverter": ("PV or other inverter", "#fff3c4"), "generator": ("generator", "#e8e0f5"),
    "flexible_load": ("flexible load", "#e3ecf7"), "ev_charger": ("EV charger", "#d6f1f5"),
    "building": ("cooled building", "#e3f5ec"),
}  # fmt: skip


def find_symbols(network: Network, closed: BoolArray, moved: Collection[int]) -> dict[str, list[list[int]]]:
    """Return what has a symbol besides sources and devices, by kind: branches that join the same buses share one.

    Args:
        network: The feeder.
        closed: Whether each branch is closed, shape (n_branches,).
        moved: Branches that devices move.
    """
    b = network.branches
    regulated = {f"{kind}.{name}" for name in network.regulators for kind in ("transformer", "autotrans")}
    found: dict[str, dict[frozenset[int], list[int]]] = {}  # single-phase banks are one symbol
    for branch, name in enumerate(b.names):
        kind, buses = name.partition(".")[0], b.buses[branch]
        symbol = ""
        if kind == "capacitor":
            symbol = "capacitor" if closed[branch] else "capacitor_off"
        elif kind in ("transformer", "autotrans"):
            symbol = "regulator" if name in regulated or branch in moved else "transformer"
        elif kind == "line" and (not closed[branch] or b.is_switch[branch] or branch in moved):
            symbol = "switch_closed" if closed[branch] else "switch_open"
        if symbol and (len(buses) > 1 or kind == "capacitor"):
            found.setdefault(symbol, {}).setdefault(frozenset(buses), []).insert(0, branch)
    return {kind: list(places.values()) for kind, places in found.items()}


def thin_out(network: Network, kind: str, branches: list[int]) -> list[int]:
    """Leave out what there is too much of: service transformers, and closed switches."""
    if len(branches) <= _FEW_SYMBOLS or kind in ("regulator", "switch_open"):
        return branches
    if kind == "transformer":
        kv = np.zeros(len(network.buses))
        kv[network.node_bus] = np.round(network.v_base / 1000.0, 3)  # to the volt: what is one level comes out alike
        high = [n for n in branches if (kv[network.branches.buses[n]] == kv.max()).any()]
        return high if len(high) <= _FEW_SYMBOLS else []
    return branches if kind.startswith("capacitor") else []


def free_way(network: Network, xy: FloatArray, bus: int) -> tuple[float, float]:
    """Return the direction in which a bus, placed with the others, has no branch, of the compass's eight the freest."""
    ends = [e for buses in network.branches.buses if bus in buses for e in buses if e != bus]
    ways = np.array([(np.cos(t), np.sin(t)) for t in np.linspace(0.0, 2.0 * np.pi, 8, endpoint=False) + np.pi])
    apart = xy[ends] - xy[bus]
    apart /= np.maximum(np.hypot(*apart.T)[:, None], 1e-9)
    # Rounded, so that of ways as free the first is taken: left, where a tree has nothing and a map usually little.
    x, y = ways[int(np.argmin(np.round((ways @ apart.T).max(axis=1, initial=-1.0), 3)))]
    return float(x), float(y)
