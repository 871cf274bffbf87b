"""From measured groups of loads to kW and kvar of each load: meters first, what is left of a head to the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from powergrid.errors import list_names
from powergrid.grid.feeder.network import Network
from powergrid.measurements.targets import Series
from powergrid.measurements.vocabulary import ImportMap

FloatArray = npt.NDArray[np.float64]

#: Part of a head's peak by which meters may exceed it for their own errors.
_METER_ERROR = 0.02
_OFTEN = 0.05


@dataclass
class Group:
    """The columns of one target.

    Attributes:
        series: They.
        loads: Its loads, by index.
        p_kw, q_kvar: Its demand, shape (n_rows,); q_kvar is None where nothing says it.
        dealt: Loads that its demand, or what meters leave of it, went to.
    """

    series: Sequence[Series]
    loads: tuple[int, ...]
    p_kw: FloatArray
    q_kvar: FloatArray | None
    dealt: list[int] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.series[0].target


def to_power(series: Sequence[Series], values: Mapping[int, FloatArray], network: Network) -> Group:
    """Return the kW and kvar of one target, its phases added.

    Args:
        series: The columns of it.
        values: Their numbers by ``id`` of the series, in the unit of their kind, shape (n_rows,) each.
        network: The feeder: what A, kVA and pu are of.
    """
    loads = list(series[0].loads)
    rated_kw, rated_kvar = float(network.loads.kw[loads].sum()), float(network.loads.kvar[loads].sum())
    zero = np.zeros(len(next(iter(values.values()))))
    active, apparent, reactive = zero.copy(), zero.copy(), zero.copy()
    n_phases = max(1, sum(each.spec.phase is not None and each.unit.kind == "pu" for each in series))
    for each in series:
        number = values[id(each)]
        if each.unit.kind in ("kvar", "kvarh"):
            reactive += number
        elif each.unit.kind in ("kva", "a"):
            apparent += number * (kva_per_a(each, network) if each.unit.kind == "a" else 1.0)
        else:
            active += number * (rated_kw / n_phases if each.unit.kind == "pu" else 1.0)
    has_kvar = any(each.unit.kind in ("kvar", "kvarh") for each in series)
    factor = next((each.spec.power_factor for each in series if each.spec.power_factor is not None), None)
    if apparent.any():
        if has_kvar:
            active += np.sqrt(np.maximum(apparent**2 - reactive**2, 0.0))
        else:
            rated = float(np.hypot(rated_kw, rated_kvar))
            active += apparent * (factor if factor is not None else rated_kw / rated if rated > 0.0 else 1.0)
    if factor is not None and not has_kvar:
        sign = -1.0 if rated_kvar < 0.0 else 1.0
        return Group(series, series[0].loads, active, sign * active * np.tan(np.arccos(factor)))
    return Group(series, series[0].loads, active, reactive if has_kvar else None)


def kva_per_a(series: Series, network: Network) -> float:
    """Return the kVA of one ampere: of each conductor where a column is of all phases of its loads."""
    nodes = list(network.loads.nodes[series.loads[0]]) if network.loads.nodes else []
    v_base = series.kv * 1000.0 / np.sqrt(3.0)
    n = 1 if series.spec.phase is not None else 3 if len(series.loads) > 1 else max(1, len(nodes))
    # Between two conductors is their voltage: twice that to ground behind a split winding, else root 3 times.
    ratio = {1: 1.0, 2: 2.0 if v_base < 150.0 else np.sqrt(3.0)}.get(n, 3.0)
    return float(ratio * v_base / 1000.0)


def deal_out(
    groups: Sequence[Group], spec: ImportMap, network: Network, problems: list[str], notes: list[str]
) -> dict[int, tuple[FloatArray, FloatArray | None]]:
    """Return the kW and kvar of each load that is measured or has its part of a measured sum.

    The smallest groups come first, so that a load's own meter is kept; what a larger one shows beyond the loads in it
    that have their demand already is dealt out among the others, by kVA or by energy.

    Args:
        groups: The targets.
        spec: How sums are dealt out.
        network: The feeder.
        problems, notes: Get what cannot be dealt out, and what became of the rest.
    """
    loads, found = network.loads, dict[int, tuple[FloatArray, FloatArray | None]]()
    for group in sorted(groups, key=lambda g: len(g.loads)):
        open_loads = [load for load in group.loads if load not in found]
        if all(each.unit.kind == "pu" for each in group.series):
            rated = max(float(loads.kw[list(group.loads)].sum()), 1e-9)
            for load in open_loads:
                found[load] = group.p_kw / rated * loads.kw[load], group.q_kvar if len(group.loads) == 1 else None
            group.dealt = open_loads
            continue
        if len(group.loads) == 1:
            found[group.loads[0]] = (group.p_kw, group.q_kvar)
            group.dealt = list(group.loads)
            continue
        sources = {kind: network.elements.get(kind, ()) for kind in ("PVSystem", "Generator", "Storage")}
        if any(sources.values()):
            named = ", ".join(f"{len(names)} {kind}" for kind, names in sources.items() if names)
            note = f"what generation behind it gives is missing from a meter of several loads; the model has {named}"
            notes += [] if note in notes else [note]
        rest_kw, rest_kvar = _take_metered(group, found, spec, network)
        if not open_loads:
            notes.append(
                f"{group.title}: all its loads have their own meters; they leave {rest_kw.mean():.3g} kW of a mean of "
                f"{group.p_kw.mean():.3g} kW, which no load takes"
            )
            continue
        short = rest_kw < -_METER_ERROR * float(np.abs(group.p_kw).max())
        if short.mean() > _OFTEN and spec.negative != "keep":
            problems.append(
                f"{group.title}: the meters of its loads show more than itself in {int(short.sum())} of {len(short)} "
                f"rows, by {-rest_kw.min():.4g} kW at most; look at units and at which loads are behind it"
            )
        elif spec.negative != "keep" and (rest_kw < 0.0).any():
            notes.append(
                f"{group.title}: meters show more than itself in {int((rest_kw < 0.0).sum())} rows; taken for 0"
            )
            rest_kw = np.maximum(rest_kw, 0.0)
        share = _shares(open_loads, group.title, spec, network, problems)
        for load, part in zip(open_loads, share, strict=True):
            found[load] = (part * rest_kw, None if rest_kvar is None else part * rest_kvar)
        group.dealt = open_loads
    return found


def _take_metered(
    group: Group, found: Mapping[int, tuple[FloatArray, FloatArray | None]], spec: ImportMap, network: Network
) -> tuple[FloatArray, FloatArray | None]:
    """Return what is left of a sum beyond losses and the loads that have their demand."""
    rest_kw = group.p_kw * (1.0 - spec.losses_percent / 100.0)
    rest_kvar = None if group.q_kvar is None else group.q_kvar.copy()
    for load in group.loads:
        if load in found:
            p_kw, q_kvar = found[load]
            rest_kw = rest_kw - p_kw
            if rest_kvar is not None:
                rest_kvar -= follow_power_factor(load, p_kw, network) if q_kvar is None else q_kvar
    return rest_kw, rest_kvar


def follow_power_factor(load: int, p_kw: FloatArray, network: Network) -> FloatArray:
    """Return the kvar of a load at the model's power factor; of a load of 0 kW, which has none, the model's kvar."""
    rated_kw, rated_kvar = float(network.loads.kw[load]), float(network.loads.kvar[load])
    return p_kw * (rated_kvar / rated_kw) if rated_kw else np.full(len(p_kw), rated_kvar)


def _shares(loads: Sequence[int], title: str, spec: ImportMap, network: Network, problems: list[str]) -> FloatArray:
    """Return the part of each load, which add up to 1."""
    names = [network.loads.names[load] for load in loads]
    if spec.allocate == "energy":
        energy = {name.lower(): value for name, value in spec.energy_kwh.items()}
        without = [name for name in names if name not in energy]
        if without:
            problems.append(f"{title}: energy_kwh lacks {list_names(without)}, which have no meter and take part of it")
        weights = np.array([energy.get(name, 0.0) for name in names])
    else:
        weights = np.hypot(network.loads.kw[list(loads)], network.loads.kvar[list(loads)])
    if weights.sum() <= 0.0:
        if not (spec.allocate == "energy" and without):
            problems.append(
                f"{title}: its loads without a meter ({list_names(names)}) have no {spec.allocate} to deal it out by"
            )
        return np.full(len(names), 1.0 / len(names))
    return np.asarray(weights / weights.sum(), dtype=np.float64)
