"""From measured groups of loads to kW and kvar of each load: meters first, what is left of a head to the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from powergrid.errors import list_names
from powergrid.grid.feeder.network import Network
from powergrid.measurements.targets import Series
from powergrid.measurements.units import LARGER
from powergrid.measurements.vocabulary import ImportMap

FloatArray = npt.NDArray[np.float64]

#: Part of a head's peak by which meters may exceed it for their own errors.
_METER_ERROR = 0.02
_OFTEN = 0.05
#: Part by which a feeder's usual voltage may be off the model's, to be known as that.
_VOLTS_OFF = 0.12


@dataclass
class Group:
    """The columns of one target.

    Attributes:
        series: They.
        loads: Its loads, by index.
        p_kw, q_kvar: Its demand, shape (n_rows,); q_kvar is None where nothing says it.
        phase_kw, phase_kvar: The same by phase of the source, 1 to 3, where it is measured so; else empty.
        parts_kw: What of its demand each of several columns is, by ``id`` of the series; empty where one is all of it.
        dealt: Loads that its demand, or what meters leave of it, went to.
    """

    series: Sequence[Series]
    loads: tuple[int, ...]
    p_kw: FloatArray
    q_kvar: FloatArray | None
    phase_kw: Mapping[int, FloatArray] = field(default_factory=dict)
    phase_kvar: Mapping[int, FloatArray] = field(default_factory=dict)
    parts_kw: Mapping[int, FloatArray] = field(default_factory=dict)
    dealt: list[int] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.series[0].target

    @property
    def has_losses(self) -> bool:
        """Whether it is measured before the lines and transformers that its loads are behind."""
        spec = self.series[0].spec
        return spec.head or spec.meter is not None or spec.transformer is not None


def to_power(
    series: Sequence[Series], values: Mapping[int, FloatArray], network: Network, problems: list[str]
) -> Group:
    """Return the kW and kvar of one target, and those of its phases where these are measured.

    Args:
        series: The columns of it.
        values: Their numbers by ``id`` of the series, in the unit of their kind, shape (n_rows,) each.
        network: The feeder: what A, kVA and pu are of.
        problems: Gets measured voltages that are not those of where the A are.
    """
    loads = list(series[0].loads)
    rated_kw, rated_kvar = float(network.loads.kw[loads].sum()), float(network.loads.kvar[loads].sum())
    # By phase; the first is of columns that are of no single one.
    active, apparent, reactive = np.zeros((3, 4, len(next(iter(values.values())))))
    volts = {e.spec.phase or 0: _to_ground(e, values[id(e)], problems) for e in series if e.quantity == "volts"}
    n_phases = max(1, sum(each.spec.phase is not None and each.unit.kind == "pu" for each in series))
    parts = dict[int, FloatArray]()
    of = {name: {e.spec.phase or 0 for e in series if e.quantity == name} for name in ("active", "reactive")}
    for each in series:
        number, phase = values[id(each)], each.spec.phase or 0
        if each.quantity == "reactive":
            reactive[phase] += number
        elif each.unit.kind in ("kva", "a"):
            kv = volts.get(phase, volts.get(0, np.mean(list(volts.values()), axis=0) if volts else None))
            parts[id(each)] = number * (_kva_per_a(each, network, kv) if each.unit.kind == "a" else 1.0)
            apparent[phase] += parts[id(each)]
        elif each.quantity == "active":
            parts[id(each)] = number * (rated_kw / n_phases if each.unit.kind == "pu" else 1.0)
            active[phase] += parts[id(each)]
    given = active + apparent
    factor = next((each.spec.power_factor for each in series if each.spec.power_factor is not None), None)
    if of["reactive"]:
        active += _beside_kvar(apparent, reactive, series[0], of["active"] == of["reactive"], problems)
    else:
        rated = float(np.hypot(rated_kw, rated_kvar))
        active += apparent * (factor if factor is not None else rated_kw / rated if rated > 0.0 else 1.0)
        if factor is not None:
            reactive = (-1.0 if rated_kvar < 0.0 else 1.0) * active * np.tan(np.arccos(factor))
            of["reactive"] = of["active"]
    # Of kVA and A in kW: as of all in their phase.
    in_kw = np.divide(active, given, out=np.zeros_like(active), where=given != 0.0)
    phase_of = {id(each): each.spec.phase or 0 for each in series}
    return Group(
        series,
        series[0].loads,
        active.sum(axis=0),
        reactive.sum(axis=0) if of["reactive"] else None,
        {phase: active[phase] for phase in of["active"] if phase},
        {phase: reactive[phase] for phase in of["reactive"] if phase},
        {key: part * in_kw[phase_of[key]] for key, part in parts.items()} if len(parts) > 1 else {},
    )


def _beside_kvar(kva: FloatArray, kvar: FloatArray, series: Series, by_phase: bool, problems: list[str]) -> FloatArray:
    """Return the kW that kVA are beside measured kvar, each by phase, shape (4, n_rows).

    Args:
        kva, kvar: They, the first row of no single phase.
        series: A column of the target.
        by_phase: Whether both are of the same phases; else the whole is split as the kVA are.
        problems: Gets kvar beyond the kVA.
    """
    s, q = (kva, np.where(kva > 0.0, kvar, 0.0)) if by_phase else (kva.sum(axis=0)[None], kvar.sum(axis=0)[None])
    beyond = (np.abs(q) > (1.0 + _METER_ERROR) * s) & (s > 0.0)
    if beyond.any(axis=0).mean() > _OFTEN:
        problems.append(
            f"{series.title}: kvar of {series.target} are more than its kVA in {int(beyond.any(axis=0).sum())} of "
            f"{s.shape[1]} rows, as {np.abs(q)[beyond][0]:.4g} of {s[beyond][0]:.4g}; look at their units, or 'kv'"
        )
    kw: FloatArray = np.sqrt(np.maximum(s**2 - q**2, 0.0))
    return kw if by_phase else kw * np.divide(kva, s, out=np.zeros_like(kva), where=s > 0.0)


def _to_ground(series: Series, measured_kv: FloatArray, problems: list[str]) -> FloatArray:
    """Return a measured voltage as that to ground [kV]; by the model's, it is this or that line to line."""
    usual, base = float(np.median(measured_kv)), series.kv
    for ratio in (np.sqrt(3.0), 1.0):
        if base and abs(usual * np.sqrt(3.0) / ratio / base - 1.0) < _VOLTS_OFF:
            return measured_kv / ratio
    known = f"{base:.4g} kV line to line or {base / np.sqrt(3.0):.4g} to ground" if base else "no certain voltage"
    problems.append(
        f"{series.title}: {usual:.4g} kV is its median, where {series.target} has {known}; say its unit or 'kv'"
    )
    return measured_kv


def _kva_per_a(series: Series, network: Network, v_kv: FloatArray | None = None) -> FloatArray:
    """Return the kVA of one ampere: of each conductor where a column is of all phases of its loads.

    Args:
        series: The amperes.
        network: The feeder.
        v_kv: Voltage to ground at each row [kV], shape (n_rows,); the model's base voltage if None.
    """
    nodes = list(network.loads.nodes[series.loads[0]]) if network.loads.nodes else []
    base_kv = series.kv / np.sqrt(3.0)
    n = 1 if series.spec.phase is not None else 3 if len(series.loads) > 1 else max(1, len(nodes))
    # Between two conductors is their voltage: twice that to ground behind a split winding, else root 3 times.
    ratio = {1: 1.0, 2: 2.0 if base_kv < 0.15 else np.sqrt(3.0)}.get(n, 3.0)
    return np.asarray(ratio * (base_kv if v_kv is None else v_kv), dtype=np.float64)


def deal_out(
    groups: Sequence[Group], spec: ImportMap, network: Network, problems: list[str], notes: list[str]
) -> dict[int, tuple[FloatArray, FloatArray | None]]:
    """Return the kW and kvar of each load that is measured or has its part of a measured sum.

    The smallest groups come first, so that a load's own meter is kept; what a larger one shows beyond the loads in it
    that have their demand already is dealt out among the others, by kVA or by energy; phase by phase where it is
    measured so.

    Args:
        groups: The targets.
        spec: How sums are dealt out.
        network: The feeder.
        problems, notes: Get what cannot be dealt out, and what became of the rest.
    """
    loads, found = network.loads, dict[int, tuple[FloatArray, FloatArray | None]]()
    part = _phase_parts(network)
    for group in sorted(groups, key=lambda g: len(g.loads)):
        _find_wrong_phases(group, part, network, problems)
        group.dealt = [load for load in group.loads if load not in found]
        if all(each.unit.kind == "pu" for each in group.series):
            rated = max(float(loads.kw[list(group.loads)].sum()), 1e-9)
            for load in group.dealt:
                found[load] = group.p_kw / rated * loads.kw[load], group.q_kvar if len(group.loads) == 1 else None
        elif len(group.loads) == 1 and not group.has_losses:
            found[group.loads[0]] = (group.p_kw, group.q_kvar)
        else:
            found |= _deal_sum(group, found, part, spec, network, problems, notes)
    return found


def _find_wrong_phases(group: Group, part: FloatArray, network: Network, problems: list[str]) -> None:
    """Add a problem where a target is measured on a phase that none of its loads is on."""
    on = {phase for phase in (1, 2, 3) if part[list(group.loads), phase - 1].any()}
    # Of one load a phase may be the number of its node too: legs of a split winding are nodes 1 and 2.
    nodes = network.loads.nodes[group.loads[0]] if len(group.loads) == 1 and network.loads.nodes else ()
    also = {int(network.node_phase[node]) for node in nodes}
    for each in group.series:
        if each.spec.phase is not None and each.spec.phase not in on | also:
            phases = " and ".join(map(str, sorted(on)))
            problems.append(f"{each.title}: {group.title} is on phase {phases}, and 'phase' says {each.spec.phase}")


def _deal_sum(
    group: Group,
    found: Mapping[int, tuple[FloatArray, FloatArray | None]],
    part: FloatArray,
    spec: ImportMap,
    network: Network,
    problems: list[str],
    notes: list[str],
) -> dict[int, tuple[FloatArray, FloatArray | None]]:
    """Return the kW and kvar of the loads among which a sum, or what meters leave of it, is dealt out."""
    sources = {kind: network.elements.get(kind, ()) for kind in ("PVSystem", "Generator", "Storage")}
    if any(sources.values()):
        named = ", ".join(f"{len(names)} {kind}" for kind, names in sources.items() if names)
        note = f"what generation behind it gives is missing from a meter of several loads; the model has {named}"
        notes += [] if note in notes else [note]
    own = {load: (p, follow_power_factor(load, p, network) if q is None else q) for load, (p, q) in found.items()}
    left = 1.0 - spec.losses_percent / 100.0 if group.has_losses else 1.0
    kw = _take_metered(group, group.phase_kw, group.p_kw * left, left, {k: v[0] for k, v in own.items()}, part)
    if not group.dealt:
        notes.append(
            f"{group.title}: all its loads have their own meters; they leave {kw.sum(axis=0).mean():.3g} kW of a mean "
            f"of {group.p_kw.mean():.3g} kW, which no load takes"
        )
        return {}
    if spec.negative != "keep":
        kw = _refuse_short(group, kw, problems, notes)
    weights = _shares(group.dealt, group.title, spec, network, problems)
    dealt_kw = _spread(group, group.phase_kw, kw, weights, part, "kW", problems, notes)
    if group.q_kvar is None:
        return {load: (p_kw, None) for load, p_kw in zip(group.dealt, dealt_kw, strict=True)}
    kvar = _take_metered(group, group.phase_kvar, group.q_kvar * left, left, {k: v[1] for k, v in own.items()}, part)
    dealt_kvar = _spread(group, group.phase_kvar, kvar, weights, part, "kvar", problems, notes)
    return {load: (p, q) for load, p, q in zip(group.dealt, dealt_kw, dealt_kvar, strict=True)}


def _phase_parts(network: Network) -> FloatArray:
    """Return which part of each load is on phases 1 to 3 of the source, shape (n_loads, 3)."""
    part = np.full((len(network.loads.names), 3), 1.0 / 3.0)
    for load, nodes in enumerate(network.loads.nodes):
        of = [phase for phase in network.served_phase[list(nodes)].tolist() if 1 <= phase <= 3]
        if of:
            part[load] = np.bincount(of, minlength=4)[1:] / len(of)
    return part


def _take_metered(
    group: Group,
    phases: Mapping[int, FloatArray],
    total: FloatArray,
    left: float,
    own: Mapping[int, FloatArray],
    part: FloatArray,
) -> FloatArray:
    """Return what the loads that have their demand leave of a sum, by phase where it is, shape (1 or 3, n_rows)."""
    zero = np.zeros_like(total)
    rest = np.array([phases.get(phase, zero) * left for phase in (1, 2, 3)]) if phases else total[None]
    for load in group.loads:
        if load in own:
            rest = rest - (part[load][:, None] if phases else 1.0) * own[load]
    return np.asarray(rest, dtype=np.float64)


def _refuse_short(group: Group, rest: FloatArray, problems: list[str], notes: list[str]) -> FloatArray:
    """Return what is left of a sum, never below 0; where meters show more than it too often, that is a problem."""
    for row, left in enumerate(rest):
        whole = group.phase_kw.get(row + 1, group.p_kw) if len(rest) > 1 else group.p_kw
        title = f"{group.title}{f', phase {row + 1}' if len(rest) > 1 else ''}"
        short = left < -_METER_ERROR * float(np.abs(whole).max())
        if short.mean() > _OFTEN:
            units = {LARGER.get(each.unit.name, "") for each in group.series if each.quantity == "active"}
            thousand = units.pop() if len(units) == 1 and (1000.0 * whole + left - whole).min() >= 0.0 else ""
            remedy = f"is its unit {thousand}?" if thousand else "look at units and at which loads are behind it"
            problems.append(
                f"{title}: the meters of its loads show more than itself in {int(short.sum())} of {len(short)} "
                f"rows, by {-left.min():.4g} kW at most; {remedy}"
            )
        elif (left < -1e-9 * float(np.abs(whole).max())).any():
            notes.append(f"{title}: meters show more than itself in {int((left < 0.0).sum())} rows; taken for 0")
    return np.maximum(rest, 0.0)


def _spread(
    group: Group,
    phases: Mapping[int, FloatArray],
    rest: FloatArray,
    weights: FloatArray,
    parts: FloatArray,
    unit: str,
    problems: list[str],
    notes: list[str],
) -> FloatArray:
    """Return what each load takes of a sum, in proportion to its weight, shape (n_dealt, n_rows).

    Of a sum by phase each load takes what its phases do: by a factor of each phase and the mean of these of loads on
    several, such that every phase is met. Where that would turn the sign of a phase's factor, loads on several phases
    cannot follow, and the factors are only as far from the phases' own ratios as they may be; the sum is met always.
    """
    part = parts[group.dealt] if phases else np.ones((len(weights), 1))
    of_phase = part.T @ weights
    lacking = [phase for phase in (1, 2, 3) if phases and phase not in phases and (part[:, phase - 1] > 0.0).any()]
    if lacking:
        n_loads = int((part[:, lacking[0] - 1] > 0.0).sum())
        problems.append(
            f"{group.title}: phase {lacking[0]} is not among its columns of {unit}, and {n_loads} of its loads are on "
            "it; name the columns of all its phases"
        )
        return np.zeros((len(weights), rest.shape[1]))
    for row in np.flatnonzero((of_phase <= 0.0) & np.any(rest != 0.0, axis=1)).tolist():
        notes.append(
            f"{group.title}, phase {row + 1}: no load without a meter is on it; a mean of {rest[row].mean():.3g} "
            f"{unit} goes to none"
        )
        rest[row] = 0.0
    ratio = np.divide(rest, of_phase[:, None], out=np.zeros_like(rest), where=of_phase[:, None] > 0.0)
    exact = np.linalg.pinv(part.T @ (weights[:, None] * part), hermitian=True) @ rest
    met = np.isclose(of_phase @ exact, rest.sum(axis=0), rtol=1e-9, atol=1e-12)
    turned = exact * ratio < 0.0
    reach = np.divide(ratio, ratio - exact, out=np.ones_like(ratio), where=turned).min(axis=0) * met
    dealt = weights[:, None] * (part @ (ratio + reach * (exact - ratio)))
    off = np.abs(part.T @ dealt - rest)
    if off.max() > 0.01 * np.abs(rest).max():
        notes.append(
            f"{group.title}: loads on several phases cannot follow its phases in {int((reach < 1.0).sum())} of "
            f"{rest.shape[1]} rows; their sum is kept, and a phase is off by {off.max():.3g} {unit} at most"
        )
    return np.asarray(dealt, dtype=np.float64)


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
