"""The pictures of a data report, as SVG in the page: a calendar of the days, and demand by day and by time of day."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CSS = """
body{font:15px/1.45 system-ui,sans-serif;color:#1b2733;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 1rem}h2{font-size:1.1rem;margin:1.8rem 0 .6rem}
dl{display:grid;grid-template-columns:6rem 1fr;gap:.25rem 1rem;margin:0}dt{color:#5b6b7a}dd{margin:0}
svg{display:block;width:100%;height:auto;margin:.6rem 0}svg text{font:11px system-ui,sans-serif;fill:#5b6b7a}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;width:100%}
th,td{text-align:left;padding:.3rem .5rem;border-bottom:1px solid #e3e8ee;vertical-align:top}
td:first-child{min-width:8rem}small{color:#5b6b7a}
th{color:#5b6b7a;font-weight:600;white-space:nowrap}.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
ul{margin:0;padding-left:1.2rem}.kept{fill:#2f7d5b}.out{fill:#d9683b}.band{fill:#2b6cb0;opacity:.22}
.mean{stroke:#2b6cb0;fill:none;stroke-width:1.4}.rated{stroke:#5b6b7a;stroke-dasharray:5 4}.axis{stroke:#cfd8e0}
.gone{fill:#d9683b;opacity:.25}
@media(max-width:900px){
table{font-size:12px}th{white-space:normal}th,td{padding:.25rem .3rem}td:first-child{min-width:5rem}}
"""
_KEY = (
    '<svg style="display:inline;width:11px;margin:0" viewBox="0 0 11 11"><rect class="{kind}" width="11" height="11" '
    'rx="2"/></svg> {told} &nbsp; '
)
_KINDS = (("kept", "kept"), ("out", "left out"))
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def draw_calendar(start: str, n_days: int, left_out: Collection[int]) -> str:
    """Return a square a day, weeks as columns: kept or left out.

    Args:
        start: First day, as ``2024-01-31``.
        n_days: Number of days.
        left_out: Days that are left out, from day 0.
    """
    first = np.datetime64(start)
    lead = (int(first.astype(np.int64)) + 3) % 7  # 1970-01-01 was a Thursday
    size, rows, top = 14, 7, 18
    # A year is 53 columns; longer spans go on below.
    per_band, weeks = 56, -(-(n_days + lead) // 7)
    height = -(-weeks // per_band) * (rows * size + top + 6)
    shapes = []
    for day in range(n_days):
        date = first + day
        week, weekday = divmod(day + lead, 7)
        band, column = divmod(week, per_band)
        x, y = 34 + column * size, band * (rows * size + top + 6) + top + weekday * size
        kind, told = ("out", "left out") if day in left_out else ("kept", "kept")
        title = f"<title>{date} {told}</title>"
        shapes.append(f'<rect class="{kind}" x="{x}" y="{y}" width="11" height="11" rx="2">{title}</rect>')
        if str(date).endswith("-01") or (day == 0 and int(str(date)[-2:]) < 20):
            month = _MONTHS[int(str(date)[5:7]) - 1]
            shapes.append(f'<text x="{x}" y="{y - weekday * size - 6}">{month} {str(date)[2:4]}</text>')
    shapes += [
        f'<text x="0" y="{top + 10 + i * size}">{name}</text>' for i, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"))
    ]
    legend = "".join(_KEY.format(kind=kind, told=told) for kind, told in _KINDS[: 1 + bool(left_out)])
    picture = f'<svg viewBox="0 0 830 {height}" role="img" aria-label="Days kept and left out">{"".join(shapes)}</svg>'
    return f"{picture}<p>{legend}</p>"


def draw_days(daily: FloatArray, start: str, rated_kw: float, left_out: Collection[int]) -> str:
    """Return the measured demand of each day from its lowest to its highest, its mean, and the rating.

    Args:
        daily: Lowest, mean and highest demand [kW], shape (n_days, 3).
        start: First day.
        rated_kw: Rating of the loads that are measured [kW].
        left_out: Days that are left out, from day 0.
    """
    n = len(daily)
    labels = {float(day): str(np.datetime64(start) + day) for day in range(0, n, max(1, -(-n // 8)))}
    title = "Measured demand of each day [kW]: from lowest to highest, mean as a line; days left out are shaded."
    return f"<p>{title}</p>{_draw_band(daily, labels, rated_kw, left_out, 'Demand of each day')}"


def draw_clock(of_day: FloatArray, rated_kw: float) -> str:
    """Return the measured demand by the time of the day, from its lowest to its highest, its mean, and the rating.

    Args:
        of_day: Lowest, mean and highest demand [kW] of each row of a day, shape (rows_per_day, 3).
        rated_kw: Rating of the loads that are measured [kW].
    """
    n = len(of_day)
    labels = {n * hour / 24: f"{hour}:00" for hour in range(0, 24, 3)}
    title = "Measured demand by the time of the day [kW]: from lowest to highest, mean as a line."
    return f"<p>{title}</p>{_draw_band(of_day, labels, rated_kw, (), 'Demand by the time of the day')}"


def _draw_band(
    band: FloatArray, labels: Mapping[float, str], rated_kw: float, shaded: Collection[int], name: str
) -> str:
    """Return a band with its mean over some intervals, and labels where they begin."""
    n, left, width, high, bottom = len(band), 60, 770, 200, 224
    top_kw = max(float(band[:, 2].max()), rated_kw, 1e-9) * 1.08
    low_kw = min(float(band[:, 0].min()), 0.0) * 1.08

    def x(place: float) -> float:
        return left + place * width / n

    def y(kw: float) -> float:
        return 10 + (top_kw - kw) / (top_kw - low_kw) * (high - 10)

    # a step an interval, so that a single one is a bar
    edges = np.repeat(np.arange(n + 1), 2)[1:-1].tolist()
    low, mean, most = (
        [f"{x(e):.1f},{y(kw):.1f}" for e, kw in zip(edges, np.repeat(values, 2).tolist(), strict=True)]
        for values in band.T
    )
    parts = [f'<rect class="gone" x="{x(d):.1f}" y="10" width="{width / n:.2f}" height="{high - 10}"/>' for d in shaded]
    parts.append(f'<polygon class="band" points="{" ".join(most + low[::-1])}"/>')
    parts.append(f'<polyline class="mean" points="{" ".join(mean)}"/>')
    for kw in _ticks(low_kw, top_kw):
        parts.append(f'<line class="axis" x1="{left}" x2="{left + width}" y1="{y(kw):.1f}" y2="{y(kw):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(kw) + 4:.1f}" text-anchor="end">{kw:,g}</text>')
    if rated_kw > 0.0:
        parts.append(
            f'<line class="rated" x1="{left}" x2="{left + width}" y1="{y(rated_kw):.1f}" y2="{y(rated_kw):.1f}"/>'
        )
        parts.append(
            f'<text x="{left + width}" y="{y(rated_kw) - 5:.1f}" text-anchor="end">rated {rated_kw:,.0f} kW</text>'
        )
    parts += [f'<text x="{x(place):.1f}" y="{bottom}">{text}</text>' for place, text in labels.items()]
    return f'<svg viewBox="0 0 850 232" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    """Return four or so round numbers of a range."""
    raw = (high - low) / 4
    size = 10 ** np.floor(np.log10(raw))
    step = float(next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw))
    return [float(f"{tick:.6g}") for tick in np.arange(np.ceil(low / step) * step, high, step)]
