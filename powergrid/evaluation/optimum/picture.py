"""A picture of one day: the optimum beside policies, by what batteries, panels, source and voltages do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from powergrid.evaluation.optimum.explain import PlayedDay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What is drawn, with its label.
_PANELS = (
    ("batteries_kw", "batteries [kW], discharging above 0"),
    ("charge", "charge of all batteries [of full]"),
    ("panels_kw", "panels, active power [kW]"),
    ("panels_kvar", "panels, reactive power [kvar]"),
    ("source_kw", "power from the source [kW]"),
    ("v_pu", "lowest and highest voltage [pu]"),
)
_COLOURS = ("#c2410c", "#2563eb", "#15803d", "#7c3aed")
_DASHES = ("-", "--", ":", "-.")
_OPTIMUM = "#111111"


def draw_day(days: Sequence[PlayedDay], limits: tuple[float, float], title: str) -> Figure:
    """Draw a day as several played it, the optimum, which comes last, in black.

    Args:
        days: The same day, by each of them.
        limits: Lowest and highest voltage that is allowed [pu].
        title: What stands above.
    """
    from matplotlib.figure import Figure

    there = [(name, label) for name, label in _PANELS if name == "v_pu" or name in days[0].series]
    n_rows, begin = -(-len(there) // 2), float(days[0].hours[0])
    end = begin + len(days[0].hours) * float(days[0].hours[1] - begin)
    figure = Figure(figsize=(11.0, 2.3 * n_rows + 0.8), layout="constrained")
    grid = figure.subplots(n_rows, 2, sharex=True, squeeze=False).ravel()
    for axes in grid[len(there) :]:
        axes.set_visible(False)
    for axes, (name, label) in zip(grid, there, strict=False):
        for place, day in enumerate(days):
            best = place == len(days) - 1
            again, own = divmod(place, len(_COLOURS))  # where colours begin again, the line is another
            style = {"color": _OPTIMUM if best else _COLOURS[own], "linewidth": 2.0 if best else 1.3}
            style["linestyle"] = "-" if best else _DASHES[again % len(_DASHES)]
            told = f"{day.policy} ({day.reward:.2f})" if axes is grid[0] else None
            for number, series in enumerate(("v_min_pu", "v_max_pu") if name == "v_pu" else (name,)):
                values = np.append(day.series[series], day.series[series][-1])
                axes.step(np.append(day.hours, end), values, where="post", label=told if not number else None, **style)
        if name == "v_pu":
            for limit in limits:
                axes.axhline(limit, color="#888888", linestyle="--", linewidth=0.9)
        axes.set_title(label, loc="left", fontsize=9)
        axes.grid(visible=True, color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(begin, end)
        axes.set_xticks(np.arange(begin, end + 0.1, 4.0))
    for axes in grid[max(len(there) - 2, 0) : len(there)]:
        axes.set_xlabel("hour of the day")
    figure.suptitle(title, fontsize=11)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure
