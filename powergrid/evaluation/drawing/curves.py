"""Learning curves: what runs reached over the steps they took, alike runs in one colour with their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

#: Colours that people with red-green blindness tell apart; more groups begin again.
_COLOURS = ("#2a78c2", "#d6502d", "#3f9a6b", "#8a5fb0", "#b08a1e", "#1f1f1f")
_DASHES = ("--", ":", "-.", (0, (5, 1)))


@dataclass(frozen=True)
class Curve:
    """One number of a run over its steps.

    Attributes:
        env_steps: Environment steps taken, rising, shape (n,).
        values: The number then, shape (n,).
    """

    env_steps: FloatArray
    values: FloatArray


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean of alike runs, over the steps that all of them have; between points by straight lines.

    Args:
        curves: One or more, of one point or more each.
    """
    last = min(float(curve.env_steps[-1]) for curve in curves)
    first = max(float(curve.env_steps[0]) for curve in curves)
    points = np.unique(np.concatenate([curve.env_steps for curve in curves]))
    points = points[(points >= first) & (points <= last)]
    values = np.array([np.interp(points, curve.env_steps, curve.values) for curve in curves])
    return Curve(points, values.mean(axis=0))


def draw_learning_curves(
    groups: Mapping[str, Sequence[Curve]],
    *,
    title: str = "",
    value_label: str = "episode return",
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Draw runs as thin lines and the mean of each group as a thick one.

    Args:
        groups: The runs of each group, by what stands in the legend.
        title: What stands above.
        value_label: What the numbers are, with their unit.
        levels: Numbers to compare with, such as baselines', drawn across.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for place, (label, curves) in enumerate(groups.items()):
        _draw_group(axes, label, curves, _COLOURS[place % len(_COLOURS)])
    for place, (label, value) in enumerate((levels or {}).items()):
        axes.axhline(value, color="#666666", linestyle=_DASHES[place % len(_DASHES)], linewidth=1.2, label=label)
    axes.set(xlabel="environment steps", ylabel=value_label, title=title)
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _draw_group(axes: Axes, label: str, curves: Sequence[Curve], colour: str) -> None:
    if len(curves) > 1:
        for curve in curves:
            axes.plot(curve.env_steps, curve.values, color=colour, linewidth=0.8, alpha=0.4)
        label = f"{label}, mean of {len(curves)}"
    mean = mean_curve(curves)
    axes.plot(mean.env_steps, mean.values, color=colour, linewidth=2.2, label=label)
