"""Charts: node voltages over the distance from the source, learning curves of runs, and how policies compare."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.drawing.state import GridState
from powergrid.evaluation.statistics import Estimate, Profile
from powergrid.grid.feeder.network import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

PHASES = "ABC"
#: Colours of phases A, B, C that people with red-green blindness tell apart.
PHASE_COLOURS = ("#1f1f1f", "#d6502d", "#2a78c2")
#: Line-to-line voltage below which a bus is secondary [V].
SECONDARY_V = 1000.0
_LIMIT: dict[str, Any] = {"color": "#b00020", "linestyle": "--", "linewidth": 1.0}
_MOST_MARKED = 600
_MUCH_WITHOUT_UNIT = 0.01
#: Colours of policies and of groups of runs, told apart as above.
_COLOURS = ("#2a78c2", "#d6502d", "#3f9a6b", "#8a5fb0", "#b08a1e", "#1f1f1f")
_DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (5, 1)))
#: Colour and dashes, in the order in which they are taken: where colours begin again, the line is another.
_LOOKS = [(colour, dashes) for dashes in ("-", *_DASHES[:3]) for colour in _COLOURS]


def find_looks(names: Iterable[str], taken: Mapping[str, tuple[str, str]] | None = None) -> dict[str, tuple[str, str]]:
    """Return colour and dashes (``-``, ``--``, ``:`` or ``-.``) of what a chart shows, the same for the same order.

    Args:
        names: What is shown.
        taken: The looks of what has one already, which nothing else gets as long as others are left.
    """
    has = taken or {}
    free = itertools.cycle([look for look in _LOOKS if look not in has.values()] or _LOOKS)
    return {name: has[name] if name in has else next(free) for name in names}


@dataclass(frozen=True)
class VoltageTraces:
    """The nodes and what joins them, ready to be drawn.

    Attributes:
        distance_km: Distance of each node from the source, infinite where none leads, shape (n_nodes,).
        phase: Phase that feeds each node: 0, 1, 2 for A, B, C, -1 for neutrals and what is fed by none, shape
            (n_nodes,). The legs of a centre-tapped secondary have the phase of its transformer.
        secondary: Whether each node is below 1 kV, shape (n_nodes,).
        shown: Whether each node is drawn, shape (n_nodes,).
        joined: Pairs of nodes that a closed branch joins in one phase, both shown, shape (n_pairs, 2).
    """

    distance_km: FloatArray
    phase: IntArray
    secondary: BoolArray
    shown: BoolArray
    joined: IntArray


def trace_voltages(state: GridState) -> VoltageTraces:
    """Find distance, phase and neighbours of every node."""
    network = state.network
    pairs = network.wires(state.closed)[1:].T
    distance = network.distances_km(state.closed)[network.node_bus]
    phase = np.where(network.is_phase & np.isfinite(distance), network.served_phase - 1, -1)
    shown = (phase >= 0) & state.energised
    joined = pairs[shown[pairs].all(axis=1)]
    secondary = network.v_base * 3.0**0.5 < SECONDARY_V
    return VoltageTraces(distance, phase, secondary, shown, joined)


def draw_voltage_profile(state: GridState) -> Figure:
    """Draw node voltages over the distance from the source, one colour a phase.

    Nodes below 1 kV are drawn lighter. Jumps are transformers and regulators.
    """
    from matplotlib.figure import Figure

    traces = trace_voltages(state)
    figure = Figure(figsize=(11.0, 6.0), layout="constrained")
    axes = figure.add_subplot()
    for secondary in (True, False):  # thousands of secondaries first, or they would hide the feeder
        for phase in range(3):
            _draw_phase(axes, state, traces, phase, secondary)
    for limit in state.band:
        axes.axhline(limit, **_LIMIT, zorder=1)
    hidden = int(np.count_nonzero(state.network.is_phase & ~traces.shown))
    axes.set_title(state.title + (f"; {hidden} nodes without supply left out" if hidden else ""), loc="left")
    axes.set(xlabel=_name_distance(state.network), ylabel="voltage [pu]")
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    values = [*state.v_pu[traces.shown].tolist(), *state.band]
    margin = 0.06 * (max(values) - min(values))
    axes.set_ylim(min(values) - margin, max(values) + margin)
    _add_legend(axes, state, traces)
    return figure


def _draw_phase(axes: Axes, state: GridState, traces: VoltageTraces, phase: int, secondary: bool) -> None:
    from matplotlib.collections import LineCollection

    name, colour = f"{PHASES[phase]}-{'secondary' if secondary else 'primary'}", PHASE_COLOURS[phase]
    own = np.flatnonzero(traces.shown & (traces.phase == phase) & (traces.secondary == secondary))
    places = np.column_stack([traces.distance_km, state.v_pu])
    # what leads to a secondary node is drawn with it
    of_pair = traces.joined[
        (traces.phase[traces.joined[:, 0]] == phase) & (traces.secondary[traces.joined].any(axis=1) == secondary)
    ]
    width, clear, dot, order = (0.5, 0.3, 0.45, 2) if secondary else (1.4, 1.0, 1.0, 3)
    lines = LineCollection(
        list(places[of_pair]), colors=colour, linewidths=width, alpha=clear, zorder=order, gid=f"lines-{name}"
    )
    axes.add_collection(lines)
    # On feeders of thousands of nodes larger dots would be one blot.
    few = len(state.network.nodes) <= _MOST_MARKED
    size = (7.0 if secondary else 12.0) if few else (0.6 if secondary else 1.0)
    x, y = places[own].T
    axes.scatter(x, y, s=size, color=colour, alpha=dot, linewidths=0, zorder=order + 1, gid=f"nodes-{name}")


def _add_legend(axes: Axes, state: GridState, traces: VoltageTraces) -> None:
    from matplotlib.lines import Line2D

    looks = [
        {"color": PHASE_COLOURS[phase], "marker": "o", "markersize": 4, "label": f"phase {PHASES[phase]}"}
        for phase in np.unique(traces.phase[traces.shown]).tolist()
    ]
    if (traces.secondary & traces.shown).any():
        looks.append({"color": "#333333", "alpha": 0.4, "linewidth": 0.7, "marker": "o", "markersize": 3,
                      "label": "below 1 kV"})  # fmt: skip
    band = "band {:g}..{:g} pu".format(*state.band)
    handles = [Line2D([], [], **look) for look in [*looks, {**_LIMIT, "label": band}]]
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _name_distance(network: Network) -> str:
    branches = network.branches
    bare = ~branches.has_length_unit
    # OpenDSS takes a line without a unit as it finds it; where all lack one, no length on the axis is a kilometre.
    total, without = float(branches.length_km.sum()), float(branches.length_km[bare].sum())
    if total and without >= (1.0 - _MUCH_WITHOUT_UNIT) * total:
        return "distance from the source [the model's length unit, which it does not give]"
    if without > _MUCH_WITHOUT_UNIT * total:
        count = int(np.count_nonzero(bare))
        return f"distance from the source [km]; {count} line{'s' * (count > 1)} without a unit taken as km"
    return "distance from the source [km]"


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
    """Return the mean of one alike run or more, over the steps that all of them have; by straight lines between."""
    # Only where all runs were: a mean of fewer would jump where one ends.
    first, last = max(curve.env_steps[0] for curve in curves), min(curve.env_steps[-1] for curve in curves)
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
    looks = find_looks(groups)
    for label, curves in groups.items():
        colour, dashes = looks[label]
        if len(curves) > 1:
            for curve in curves:
                axes.plot(curve.env_steps, curve.values, color=colour, linewidth=0.8, alpha=0.4)
            label = f"{label}, mean of {len(curves)}"
        mean = mean_curve(curves)
        axes.plot(mean.env_steps, mean.values, color=colour, linestyle=dashes, linewidth=2.2, label=label)
    for (label, value), dashes in zip((levels or {}).items(), itertools.cycle(_DASHES), strict=False):
        axes.axhline(value, color="#666666", linestyle=dashes, linewidth=1.2, label=label)
    axes.set(xlabel="environment steps", ylabel=value_label, title=title)
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
    _finish(axes)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def draw_profiles(profiles: Mapping[str, Profile], zero: str, one: str) -> Figure:
    """Draw which part of seeds and days each policy is above each score, with 95 % intervals.

    Args:
        profiles: By name; thresholds are scores.
        zero, one: Who has a score of 0 and of 1.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    looks = find_looks(name for name in profiles if name not in (zero, one))
    for name, own in profiles.items():
        if name in (zero, one):  # what all are measured by is no news: thin and grey, and takes no colour
            grey: dict[str, Any] = {"color": "#8a8a8a", "linewidth": 1.2, "linestyle": ":" if name == zero else "--"}
            axes.plot(own.thresholds, own.share, label=name, **grey)
            continue
        colour, dashes = looks[name]
        axes.plot(own.thresholds, own.share, color=colour, linestyle=dashes, linewidth=2.2, label=name)
        axes.fill_between(own.thresholds, own.low, own.high, color=colour, alpha=0.15, linewidth=0.0)
    axes.set(
        xlabel=f"score of a day: 0 is {zero}, 1 {one}", ylabel="part of seeds and days above it", ylim=(-0.02, 1.02)
    )
    _finish(axes)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def draw_improvements(improvements: Mapping[str, Estimate], than: str) -> Figure:
    """Draw how probable it is that each policy is better than a certain one on a day, with 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 0.9 + 0.42 * len(improvements)), layout="constrained")
    axes = figure.add_subplot()
    for place, own in enumerate(improvements.values()):
        colour = "#8a8a8a" if own.low <= 0.5 <= own.high else _COLOURS[2] if own.value > 0.5 else _COLOURS[1]
        axes.plot([own.low, own.high], [place, place], color=colour, linewidth=7.0, alpha=0.35, solid_capstyle="butt")
        axes.plot([own.value], [place], color=colour, marker="|", markersize=15, markeredgewidth=2.5)
    axes.axvline(0.5, color="#666666", linestyle="--", linewidth=1.0)
    axes.set_yticks(range(len(improvements)), list(improvements))
    axes.set(xlabel=f"probability of a higher reward than {than} on a day", xlim=(-0.02, 1.02))
    axes.set_ylim(len(improvements) - 0.5, -0.5)
    _finish(axes)
    return figure


def _finish(axes: Axes) -> None:
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
