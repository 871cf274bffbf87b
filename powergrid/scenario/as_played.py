"""What moves each element of a feeder as it is played: an agent, a control of its own, a shape, a series, nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from powergrid.grid.feeder.network import BY_LEVEL, BY_PRICE, FeederControl, Network, Sources
from powergrid.grid.feeder.network.shapes import FloatArray, IntArray
from powergrid.grid.options import SimulationOptions
from powergrid.grid.outages.connectivity import Connectivity
from powergrid.grid.profiles.background import SELF_DISPATCHED
from powergrid.grid.profiles.demand import Demand
from powergrid.grid.profiles.profiles import Profiles

_SHOWN = 3
#: Classes of which shapes move one number, and what is said of those without one.
_STANDS = {"Vsource": "its pu stands", "Isource": "its current stands", "IndMach012": "its kW stand"}


class Played(NamedTuple):
    """How one element is played.

    Attributes:
        element: ``Class.name``, the name in lower case.
        moved_by: ``agent``, ``own control``, ``shape``, ``profile`` or ``nothing``.
        by: The device, control, LoadShape or series; or why nothing moves it.
        peak_kw: The most that it draws or delivers [kW], NaN where that is not known or means nothing.
    """

    element: str
    moved_by: str
    by: str
    peak_kw: float


def as_played(
    network: Network,
    profiles: Profiles,
    options: SimulationOptions,
    devices: Mapping[str, tuple[str, str, str, float]],
    *,
    native: bool = False,
) -> list[Played]:
    """Return how each element is played, loads first.

    Args:
        network: The feeder.
        profiles: The exogenous series.
        options: What a scenario says of demand.
        devices: By name the kind, ``class.name`` of the element, ``control`` and greatest power [kW] of each device;
            those that are placed at a bus are left out.
        native: Whether the feeder's own controls move what is no device.
    """
    taken = {
        element.lower(): _by_device(name, control, peak)
        for name, (_, element, control, peak) in devices.items()
        if element and control != "model"
    }
    return [
        *_loads(network, profiles, options, taken),
        *_sources(network, profiles, taken, native),
        *_storage(network, profiles, taken, native),
        *_switchgear(network, taken, native),
    ]


def summarise_played(played: Sequence[Played]) -> list[str]:
    """Return a few lines that say the same by class and what moves it, however many elements there are."""
    groups: dict[tuple[str, str], list[Played]] = {}
    for row in played:
        groups.setdefault((row.element.partition(".")[0], row.moved_by), []).append(row)
    lines = []
    for (class_name, moved_by), rows in groups.items():
        counts = Counter(row.by for row in rows)
        few = [f"{by} ({n})" if n > 1 else by for by, n in counts.most_common(_SHOWN)]
        more = f" and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else ""
        peaks = [row.peak_kw for row in rows if row.peak_kw == row.peak_kw]
        peak = f"; peaks add up to {sum(peaks):,.0f} kW" if peaks else ""
        lines.append(f"{len(rows):,} {class_name} by {moved_by}: {', '.join(few)}{more}{peak}")
    return lines


def _by_device(name: str, control: str, peak_kw: float) -> tuple[str, str, float]:
    """Return what moves the element of a device, by what, and its peak."""
    movers = {"agent": ("agent", name), "opendss": ("own control", f"as device {name}")}
    return (*movers.get(control, ("nothing", f"device {name} is frozen")), peak_kw)


def _loads(
    network: Network, profiles: Profiles, options: SimulationOptions, taken: Mapping[str, tuple[str, str, float]]
) -> Iterator[Played]:
    demand = Demand(profiles, options, network)
    names, shapes, base = network.loads.names, network.shapes.names, demand.max_kw.tolist()
    dead = Connectivity(network).look(network.branches.closed).dead_share.tolist()
    rows = zip(names, demand.shape.tolist(), demand.constant.tolist(), demand.series.tolist(), base, dead, strict=True)
    for name, shape, constant, series, peak, dead_share in rows:
        fed = "; no source feeds it" if dead_share == 1.0 else ""
        if (own := taken.get(f"load.{name}")) is not None:
            yield Played(f"Load.{name}", *own)
        elif shape >= 0:
            yield Played(f"Load.{name}", "shape", f"LoadShape {shapes[shape]}{fed}", peak)
        elif constant:
            yield Played(f"Load.{name}", "nothing", f"Status=fixed{fed}", peak)
        elif profiles.shape_mode is not None:
            yield Played(f"Load.{name}", "nothing", f"no LoadShape{fed}", peak)
        else:
            yield Played(f"Load.{name}", "profile", f"demand {profiles.demand_names[series]}{fed}", peak)


def _sources(
    network: Network, profiles: Profiles, taken: Mapping[str, tuple[str, str, float]], native: bool
) -> Iterator[Played]:
    """Yield voltage sources, generators and panels; what moves these is what ``Background`` writes."""
    mode, sources = profiles.shape_mode or network.shape_mode, network.sources
    for class_name, stands in _STANDS.items():
        for name, shape in zip(
            network.names_of(class_name), network.followed_by(class_name, mode).tolist(), strict=True
        ):
            moved = ("shape", f"LoadShape {network.shapes.names[shape]}") if shape >= 0 else ("nothing", stands)
            yield Played(f"{class_name}.{name}", *moved, np.nan)
    generators = np.where(sources.generator_fixed, -1, network.followed_by("Generator", mode))
    panels = network.followed_by("PVSystem", mode)
    sun = "profile" if profiles.pv_pu is not None else "nothing"
    nothing = ["Status=fixed" if fixed else "no LoadShape" for fixed in sources.generator_fixed.tolist()]
    waits = _describe_dispatch(sources)
    generator_kw = sources.generator_kw * np.where(sources.generator_fixed, 1.0, sources.generator_factor)
    panel_kw = sources.panel_kw * sources.irradiance
    if profiles.own_sun:
        panels = np.full_like(panels, -1)
    tables: list[tuple[str, IntArray, FloatArray, str, list[str]]] = [
        ("Generator", generators, generator_kw, "nothing", nothing),
        (
            "PVSystem",
            panels,
            panel_kw,
            sun,
            ["sun of the profiles" if sun == "profile" else "no LoadShape"] * len(panels),
        ),
    ]
    for class_name, followed, kw, otherwise, why in tables:
        peaks = network.shapes.peaks(np.maximum(followed, 0)) if len(network.shapes) else np.ones(len(followed))
        for i, name in enumerate(network.elements.get(class_name, ())):
            full, when = f"{class_name}.{name}", waits[i] if class_name == "Generator" else ""
            if (own := taken.get(full.lower())) is not None:
                yield Played(full, *own)
            elif followed[i] >= 0:
                peak = float(peaks[i]) if network.shapes.use_actual[followed[i]] else float(kw[i] * peaks[i])
                yield Played(full, "shape", f"LoadShape {network.shapes.names[followed[i]]}{when}", peak)
            elif when:
                yield Played(full, "own control", when.removeprefix(", "), float(kw[i]))
            elif class_name == "Generator" and any(full.lower() in each.targets for each in network.controls):
                yield Played(full, *_by_control(network, full.lower(), native), float(kw[i]))
            else:
                yield Played(full, otherwise, why[i], float(kw[i]))


def _describe_dispatch(sources: Sources) -> list[str]:
    """Return what else moves each generator: the level of demand, a price, its fuel."""
    names = {BY_LEVEL: "demand", BY_PRICE: "price"}
    rows = zip(sources.dispatch.by.tolist(), sources.dispatch.at.tolist(), sources.fuel_kwh.tolist(), strict=True)
    return [
        (f", off while {names[by]} is below {at:g}" if by else "")
        + (", until its fuel is spent" if full == full else "")
        for by, at, full in rows
    ]


def _storage(
    network: Network, profiles: Profiles, taken: Mapping[str, tuple[str, str, float]], native: bool
) -> Iterator[Played]:
    names = network.elements.get("Storage", ())
    followed = network.followed_by("Storage", profiles.shape_mode or network.shape_mode)
    by_shape = np.isin(network.sources.storage_mode, SELF_DISPATCHED)
    modes = network.sources.storage_mode.tolist()
    for name, shape, alone, mode in zip(names, followed.tolist(), by_shape.tolist(), modes, strict=True):
        full = f"Storage.{name}"
        if (own := taken.get(full.lower())) is not None:
            yield Played(full, *own)
        elif alone:
            signal = {BY_LEVEL: "its triggers, by the level of demand", BY_PRICE: "its triggers, by the price"}.get(
                mode
            )
            by = signal or (f"LoadShape {network.shapes.names[shape]}" if shape >= 0 else "its triggers")
            yield Played(full, "shape" if shape >= 0 and not signal else "own control", by, np.nan)
        else:
            yield Played(full, *_by_control(network, full.lower(), native), np.nan)


def _switchgear(network: Network, taken: Mapping[str, tuple[str, str, float]], native: bool) -> Iterator[Played]:
    for transformer, control in zip(network.regulators, network.regulator_controls, strict=True):
        names = (f"regcontrol.{control}", f"transformer.{transformer}", f"autotrans.{transformer}")
        known = next((taken[name] for name in names if name in taken), None)
        moved = known[:2] if known else next(
            (_moved(each, native) for each in network.controls
             if each.class_name == "RegControl" and each.name == control), ("nothing", "no control"),
        )  # fmt: skip
        yield Played(f"RegControl.{control}", *moved, np.nan)
    for name in network.capacitors:
        moved = taken.get(f"capacitor.{name}", ())[:2] or _by_control(network, f"capacitor.{name}", native)
        yield Played(f"Capacitor.{name}", *moved, np.nan)
    controlled = {target for control in network.controls for target in control.targets}
    for name in network.switches:
        full = f"line.{name}"
        if full in taken or full in controlled:
            moved = taken.get(full, ())[:2] or _by_control(network, full, native)
            yield Played(f"Line.{name}", *moved, np.nan)


def _by_control(network: Network, element: str, native: bool) -> tuple[str, str]:
    """Return what a control of the feeder makes of an element."""
    own = [control for control in network.controls if element in control.targets]
    able = [control for control in own if not control.idle]
    return _moved((able or own)[0], native) if own else ("nothing", "no control of its own, no device")


def _moved(control: FeederControl, native: bool) -> tuple[str, str]:
    name = f"{control.class_name}.{control.name}"
    if control.idle:
        return "nothing", f"{name} cannot move: {control.idle}"
    return ("own control", name) if native else ("nothing", f"{name} acts with native_controls")


def tell_devices(specs: Mapping[str, Mapping[str, object]]) -> dict[str, tuple[str, str, str, float]]:
    """Return what :func:`as_played` asks of devices, of specs as a scenario has them."""
    told = {}
    for name, spec in specs.items():
        peak = spec.get("p_max_kw")
        kw = float(peak) if isinstance(peak, int | float) else np.nan
        told[name] = (str(spec["kind"]), str(spec.get("element") or ""), str(spec.get("control", "agent")), kw)
    return told
