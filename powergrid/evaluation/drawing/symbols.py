"""What elements look like: strokes around the origin in units of a radius, and fills behind them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Strokes = list[FloatArray]


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
