"""The pictures of a report, as SVG in the page: lines over an axis, and bars beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: Colour and dashes by name.
Looks = Mapping[str, tuple[str, str]]
#: Strokes and gaps of dashes.
_STROKES = {"--": "7 3", ":": "2 3", "-.": "9 3 2 3"}
#: Letters that have room beyond the end of an axis.
_SHORT = 4
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 270, 62, 14, 12, 40


def draw_lines(
    lines: Mapping[str, tuple[FloatArray, FloatArray]],
    looks: Looks,
    *,
    x_label: str,
    y_label: str,
    label: str,
    marks: Sequence[tuple[float, str]] = (),
    x_names: Sequence[str] = (),
) -> str:
    """Return lines over a common axis.

    Args:
        lines: x and y of each, by name.
        looks: Colour and dashes of each name, see :func:`powergrid.evaluation.drawing.charts.find_looks`.
        x_label, y_label: What the axes say.
        label: What the picture is for who cannot see it.
        marks: Values of x that are marked by a line, each with what it is.
        x_names: What stands at x = 0, 1, 2 ... instead of numbers.
    """
    xs, ys = (np.concatenate([pair[i] for pair in lines.values()]) for i in (0, 1))
    x_low, x_high = float(xs.min()), float(xs.max())
    x_high = x_high if x_high > x_low else x_low + 1.0
    y_ticks = _ticks(min(float(ys.min()), 0.0), float(ys.max()))
    y_low, y_high = y_ticks[0], y_ticks[-1]
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place_x(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (right - _LEFT)

    def place_y(y: float) -> float:
        return floor - (y - y_low) / (y_high - y_low) * (floor - _TOP)

    parts = []
    for tick in y_ticks:
        y = place_y(tick)
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:,g}</text>')
    for x, name in _name_x(x_low, x_high, x_names):
        # what stands at an end is not to be cut
        anchor = {x_low: "start", x_high: "end"}.get(x, "middle") if len(name) > _SHORT else "middle"
        parts.append(f'<text x="{place_x(x):.1f}" y="{floor + 16}" text-anchor="{anchor}">{escape(name)}</text>')
    for i, (x, name) in enumerate(marks):
        if x_low <= x <= x_high:
            at = place_x(x)
            parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{floor}"/>')
            side, shift = ("end", -4) if i % 2 == 0 else ("start", 4)
            parts.append(f'<text class="mark" x="{at + shift:.1f}" y="{_TOP + 9}" text-anchor="{side}">{name}</text>')
    for name, pair in lines.items():
        points = " ".join(f"{place_x(a):.1f},{place_y(b):.1f}" for a, b in np.stack(pair, axis=1).tolist())
        title = f"<title>{escape(name)}</title>"
        parts.append(f'<polyline {_as_line(looks[name])} points="{points}">{title}</polyline>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'
    key = _key({name: f'<path d="M0 6h26" {_as_line(looks[name])}/>' for name in lines})
    return f"<p class='unit'>{escape(y_label)}</p>{head}{''.join(parts)}</svg>{key}"


def draw_bars(rows: Mapping[str, Mapping[str, float]], looks: Looks, *, unit: str, label: str) -> str:
    """Return a group of bars for each row, one for each name in it, with its number.

    Args:
        rows: By row, the value of each name.
        looks: Colour and dashes of each name, see :func:`powergrid.evaluation.drawing.charts.find_looks`.
        unit: Unit of the values.
        label: What the picture is for who cannot see it.
    """
    values = [value for row in rows.values() for value in row.values()]
    low, high = min([*values, 0.0]), max([*values, 0.0])
    span = (high - low) or 1.0
    left, right, thick, gap = 250, _WIDTH - 70, 13, 12
    parts, y = [], 4.0

    def place(value: float) -> float:
        return left + (value - low) / span * (right - left)

    for row, by_name in rows.items():
        middle = y + len(by_name) * thick / 2 + 4
        parts.append(f'<text x="{left - 12}" y="{middle:.1f}" text-anchor="end">{escape(row)}</text>')
        for name, value in by_name.items():
            one, two = sorted((place(0.0), place(value)))
            told = f"{value:,.2f}" if abs(value) < 10 else f"{value:,.0f}"
            title = f"<title>{escape(name)}: {told} {escape(unit)}</title>"
            parts.append(
                f'<rect x="{one:.1f}" y="{y:.1f}" width="{max(two - one, 0.6):.1f}" height="{thick - 2}" '
                f"{_as_bar(looks[name])}>{title}</rect>"
            )
            parts.append(f'<text x="{two + 5:.1f}" y="{y + thick - 3:.1f}">{told}</text>')
            y += thick
        y += gap
    zero = place(0.0)
    parts.append(f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{y - gap + 4:.1f}"/>')
    names = dict.fromkeys(name for row in rows.values() for name in row)
    key = _key({name: f'<rect x="1" y="1" width="24" height="10" {_as_bar(looks[name])}/>' for name in names})
    head = f'<svg viewBox="0 0 {_WIDTH} {y:.0f}" role="img" aria-label="{escape(label)}">'
    return f"<p class='unit'>{escape(unit)}</p>{head}{''.join(parts)}</svg>{key}"


def _as_line(look: tuple[str, str]) -> str:
    """Return the attributes of a line."""
    dashes = f";stroke-dasharray:{_STROKES[look[1]]}" if look[1] in _STROKES else ""
    return f'class="line" style="stroke:{look[0]}{dashes}"'


def _as_bar(look: tuple[str, str]) -> str:
    """Return the attributes of a bar: full, or pale within an outline of dashes."""
    outline = f";fill-opacity:.35;stroke:{look[0]};stroke-dasharray:{_STROKES[look[1]]}" if look[1] in _STROKES else ""
    return f'style="fill:{look[0]}{outline}"'


def _key(shapes: Mapping[str, str]) -> str:
    """Return what each shape stands for, by name."""
    head = '<span class="key"><svg viewBox="0 0 26 12" aria-hidden="true">'
    keys = (f"{head}{shape}</svg>{escape(name)}</span>" for name, shape in shapes.items())
    return f"<p class='keys'>{''.join(keys)}</p>"


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers that enclose a range."""
    from matplotlib.ticker import MaxNLocator

    high = high if high > low else low + 1.0
    return [float(f"{tick:.6g}") for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]


def _name_x(low: float, high: float, names: Sequence[str]) -> list[tuple[float, str]]:
    """Return what stands along the x axis and where."""
    if not names:
        return [(tick, f"{tick:,g}") for tick in _ticks(low, high) if low <= tick <= high]
    step = max(1, -(-len(names) // 7))
    return [(float(i), names[i]) for i in range(0, len(names), step)]
