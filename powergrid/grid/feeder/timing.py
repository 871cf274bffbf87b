"""What a compiled model says moves its elements in time: LoadShapes, their modes, growth.

Reads a circuit once. What of it is played, and when, is for ``grid.profiles``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from powergrid.grid.engine import Engine, FloatArray, Handle, IntArray
from powergrid.grid.feeder.network import BY_LEVEL, BY_NOTHING, BY_PRICE, Dispatch, Driven, Sources
from powergrid.grid.feeder.network.shapes import SHAPE_MODES, BoolArray, ShapeMode, Shapes

#: Classes whose elements follow shapes.
SHAPED_CLASSES = ("Load", "Generator", "PVSystem", "Storage", "Vsource", "Isource", "IndMach012")
#: Classes of which a shape moves one number, and that property.
DRIVEN_PROPERTIES = {"Vsource": "pu", "Isource": "amps", "IndMach012": "kW"}
#: Classes that OpenDSS plays by the daily shape in yearly mode where there is no yearly one. To a load it copies the
#: first daily shape instead; a generator stays at its rating.
_YEARLY_ELSE_DAILY = ("PVSystem", "Storage")
_DUTY_ELSE_DAILY = ("Load", "Generator", "PVSystem", "Storage", "Vsource", "Isource", "IndMach012")
#: OpenDSS's ordinals of Load.Status and Load.Model: no multiplier applies; reactive power stays nominal.
#: More than a demand is ever multiplied by.
_MOST_GROWN, _MOST_YEARS = 1e9, 10_000
#: Reactive power that no result shows [kvar].
_NEARLY_NONE = 1e-12
#: Ordinal of `Interpolation=Edge`.
_EDGE = 1
_FIXED, _EXEMPT = 1, 2
_FIXED_Q_MODELS = (6, 7)
#: OpenDSS's model of loads whose factors of voltage may follow a shape, and by what ``shapes_of`` knows it.
_CVR_MODEL, CVR_CURVE = 4, "Load.CVRCurve"
#: OpenDSS's models of generators that deliver on without fuel.
_FUELLESS_MODELS = (6, 7)
#: Classes of shapes, and the property that has the values of their points.
_VALUES = {"LoadShape": "PMult", "TShape": "Temp", "PriceShape": "Price"}


def read_mode(settings: Mapping[str, str]) -> ShapeMode:
    """Return the mode that a model says it is to be played in: of those that follow shapes, else ``own``."""
    mode = settings.get("mode", "").strip("\"' ").lower()
    if mode.startswith("y"):
        return "yearly"
    if mode.startswith("du"):
        return "duty"
    return "daily" if mode.startswith(("d", "p")) and not mode.startswith("dy") else "own"  # daily, peakday


def read_shapes(engine: Engine, handles: Mapping[str, Mapping[str, Handle]]) -> tuple[Shapes, dict[str, IntArray]]:
    """Read the LoadShapes that elements follow, and which each of them follows.

    Returns:
        The shapes, and by class the place of what each element follows, as ``Network.shapes_of``.
    """
    followed = {
        name: _find_followed(engine, name, list(handles[name].values())) for name in SHAPED_CLASSES if handles[name]
    }
    loads = list(handles["Load"].values())
    curved = np.zeros(len(loads), dtype=np.int64)
    of_model = np.flatnonzero(engine.get_all_ints(loads, "Load", "Model") == _CVR_MODEL).tolist()
    curved[of_model] = engine.get_all_references([loads[i] for i in of_model], "Load", "CVRcurve")
    if curved.any():  # the engine looks at it in yearly mode alone
        followed[CVR_CURVE] = np.stack([curved if mode in ("own", "yearly") else 0 * curved for mode in SHAPE_MODES])
    return _read_used(engine, "LoadShape", followed)


def read_sources(engine: Engine, handles: Mapping[str, Mapping[str, Handle]], folded: Folded) -> Sources:
    """Read generators and panels; before devices are placed on any of them, which changes what they say."""
    generators, panels = (list(handles[name].values()) for name in ("Generator", "PVSystem"))
    followed = {"PVSystem": _find_followed(engine, "PVSystem", panels, prefix="T")} if panels else {}
    temperatures, temperature_of = _read_used(engine, "TShape", followed)
    curves, curve_of = _read_curves(engine, panels)
    storage_mode = engine.get_all_ints(list(handles["Storage"].values()), "Storage", "DispMode")
    return Sources(
        generator_kw=engine.get_all_floats(generators, "Generator", "kW"),
        generator_kvar=_read_kvar(engine, generators),
        generator_fixed=engine.get_all_ints(generators, "Generator", "Status") == _FIXED,
        generator_factor=engine.generator_multiplier,
        generator_model=engine.get_all_ints(generators, "Generator", "Model"),
        generator_kvar_limits=np.stack(
            [engine.get_all_floats(generators, "Generator", key) for key in ("MaxKVAR", "MinKVAR")]
        ),
        fuel_kwh=_read_fuel(engine, generators),
        fuel_percent=np.stack([engine.get_all_floats(generators, "Generator", key) for key in ("%Fuel", "%Reserve")]),
        dispatch=_read_dispatch(engine, generators, storage_mode, folded.level),
        panel_kw=engine.get_all_floats(panels, "PVSystem", "Pmpp")
        * (engine.get_all_floats(panels, "PVSystem", "%Pmpp") / 100.0),
        irradiance=engine.get_all_floats(panels, "PVSystem", "Irradiance"),
        panel_temperature=engine.get_all_floats(panels, "PVSystem", "Temperature"),
        panel_ratings=_read_panel_ratings(engine, panels),
        curves=curves,
        curve_of=curve_of,
        temperatures=temperatures,
        driven={name: _read_driven(engine, name, handles[name]) for name in DRIVEN_PROPERTIES},
        slips=engine.get_all_floats(list(handles["IndMach012"].values()), "IndMach012", "slip"),
        load_factors=folded.loads,
        storage_mode=storage_mode,
        temperature_of=temperature_of.get("PVSystem", np.full((len(SHAPE_MODES), len(panels)), -1)),
    )


def _read_kvar(engine: Engine, generators: Sequence[Handle]) -> FloatArray:
    """Return the nominal kvar of generators; where dispatchers may set any, nearly none instead of none.

    They move what a shape multiplies, and what multiplies is read off what is written, which none would hide.
    """
    kvar = engine.get_all_floats(generators, "Generator", "kvar")
    return np.where(kvar == 0.0, _NEARLY_NONE, kvar) if engine.handles("GenDispatcher") else kvar


def _read_panel_ratings(engine: Engine, panels: Sequence[Handle]) -> FloatArray:
    """Read ``panel_ratings`` of :class:`Sources`."""
    found = np.stack([engine.get_all_floats(panels, "PVSystem", key) for key in ("Pmpp", "kVA", "%CutIn", "%CutOut")])
    for row, key in ((2, "%CutIn"), (3, "%CutOut")):  # 20 % where the model does not say: a placeholder
        found[row] *= engine.written_order(panels, "PVSystem", key) > 0
    return found


def _read_curves(
    engine: Engine, panels: Sequence[Handle]
) -> tuple[tuple[tuple[FloatArray, FloatArray], ...], IntArray]:
    """Read the curves of panels by temperature and of their efficiency, and which each has; as of :class:`Sources`."""
    used = np.stack([engine.get_all_references(panels, "PVSystem", key) for key in ("P-TCurve", "EffCurve")])
    known = {engine.address(handle): handle for handle in engine.handles("XYCurve").values()} if used.any() else {}
    place = {address: i for i, address in enumerate(dict.fromkeys(used[used != 0].tolist()))}
    axes = [tuple(engine.get_floats(known[a], "XYCurve", key) for key in ("XArray", "YArray")) for a in place]
    found = np.array([place.get(address, -1) for address in used.ravel().tolist()], dtype=np.int64)
    return tuple((x, y) for x, y in axes), found.reshape(used.shape)


def _read_fuel(engine: Engine, generators: Sequence[Handle]) -> FloatArray:
    """Return what a full tank of each generator holds [kWh], NaN where it needs none."""
    uses = engine.get_all_ints(generators, "Generator", "UseFuel") != 0
    uses &= ~np.isin(engine.get_all_ints(generators, "Generator", "Model"), _FUELLESS_MODELS)
    return np.where(uses, engine.get_all_floats(generators, "Generator", "FuelkWh"), np.nan)


def _read_dispatch(engine: Engine, generators: Sequence[Handle], storage_mode: IntArray, level: FloatArray) -> Dispatch:
    """Read which generators wait for a level of demand or a price, and what says these, also to batteries."""
    at = engine.get_all_floats(generators, "Generator", "DispValue")
    forced = engine.get_all_ints(generators, "Generator", "ForceOn") != 0
    by = np.where(forced | (at <= 0.0), BY_NOTHING, engine.get_all_ints(generators, "Generator", "DispMode"))
    if not (by.any() or np.isin(storage_mode, (BY_LEVEL, BY_PRICE)).any()):
        return Dispatch(by, at)
    names = [engine.command(f"get {option}").lower() for option in ("defaultdaily", "defaultyearly", "pricecurve")]
    shapes, prices = engine.handles("LoadShape"), engine.handles("PriceShape")
    return Dispatch(
        by,
        at,
        _read_points(engine, "LoadShape", [(name, shapes[name]) for name in names[:2]]),
        _read_points(engine, "PriceShape", [(name, prices[name]) for name in names[2:] if name in prices]),
        float(engine.command("get pricesignal")),
        level,
    )


def release_dispatch(engine: Engine, generators: Mapping[str, Handle], dispatch: Dispatch) -> None:
    """Have generators that wait for demand or price follow what is written: in the engine's snapshot is no time."""
    number = engine.property_index("Generator", "DispMode")
    for handle, by in zip(generators.values(), dispatch.by.tolist(), strict=True):
        if by != BY_NOTHING:
            engine.set_int(handle, number, BY_NOTHING)


def _read_driven(engine: Engine, class_name: str, handles: Mapping[str, Handle]) -> Driven:
    own, ones = list(handles.values()), np.ones(len(handles))
    nominal = engine.get_all_floats(own, class_name, DRIVEN_PROPERTIES[class_name])
    if class_name == "Isource":  # multiplied all the same
        return Driven(tuple(handles), nominal, nominal)
    if class_name == "Vsource":  # a shape's values take the place of its pu; actual ones are kV to ground
        phases = np.array([engine.phases(handle) for handle in own], dtype=np.float64)
        chord = np.where(phases > 1, 2.0 * np.sin(np.pi / np.maximum(phases, 2.0)), 1.0)
        return Driven(tuple(handles), ones, chord / engine.get_all_floats(own, class_name, "basekv"))
    return Driven(tuple(handles), nominal, ones)


def _find_followed(engine: Engine, class_name: str, handles: Sequence[Handle], prefix: str = "") -> IntArray:
    """Return the address of the shape that each element follows, 0 for none, in the order of ``SHAPE_MODES``.

    Args:
        engine, class_name, handles: The elements.
        prefix: What the names of the properties begin with.
    """
    keys = [prefix + mode for mode in ("daily", "yearly", "duty")]
    daily, yearly, duty = (engine.get_all_references(handles, class_name, key) for key in keys)
    written = engine.written_order(handles, class_name, keys[1]) > 0
    found = {
        # OpenDSS copies the first daily shape of a load to where its yearly one would be, and a later one not.
        "own": np.where(written & (yearly != 0), yearly, daily),
        "daily": daily,
        "yearly": np.where(yearly == 0, daily, yearly) if class_name in _YEARLY_ELSE_DAILY else yearly,
        "duty": np.where(duty == 0, daily, duty) if class_name in _DUTY_ELSE_DAILY else duty,
    }
    return np.stack([found[mode] for mode in SHAPE_MODES])


def _read_used(engine: Engine, kind: str, followed: Mapping[str, IntArray]) -> tuple[Shapes, dict[str, IntArray]]:
    """Read the shapes at some addresses, and put their places where the addresses are."""
    used = set(np.concatenate([np.empty(0, dtype=np.int64), *(rows.ravel() for rows in followed.values())]).tolist())
    if not used - {0}:
        return Shapes(), {}
    known = {engine.address(handle): (name, handle) for name, handle in engine.handles(kind).items()}
    place = {address: i for i, address in enumerate(address for address in known if address in used)}
    shapes = _read_points(engine, kind, [known[address] for address in place])
    number = np.vectorize(lambda address: place.get(address, -1), otypes=[np.int64])
    return shapes, {name: number(rows) for name, rows in followed.items()}


def _read_points(engine: Engine, kind: str, named: Sequence[tuple[str, Handle]]) -> Shapes:
    """Read the points of LoadShapes, TShapes or PriceShapes."""
    handles = [handle for _, handle in named]
    points, reactive, hours = [], [], []
    interval_h = engine.get_all_floats(handles, kind, "Interval")
    for handle, interval in zip(handles, interval_h.tolist(), strict=True):
        p = engine.get_floats(handle, kind, _VALUES[kind])
        q, hour = np.full(len(p), np.nan), np.full(len(p), np.nan)
        # Lists that are longer or shorter than the points there are the engine cuts, or fills with 0.
        own_q = engine.get_floats(handle, kind, "QMult")[: len(p)] if kind == "LoadShape" else np.empty(0)
        q[: len(own_q)] = own_q
        if not interval > 0.0:
            own_hour = engine.get_floats(handle, kind, "Hour")[: len(p)]
            hour[: len(own_hour)] = own_hour
        points.append(p)
        reactive.append(q)
        hours.append(hour)
    none = np.zeros(len(handles), dtype=np.int64)
    return Shapes(
        names=tuple(name for name, _ in named),
        first=np.cumsum([0, *map(len, points)], dtype=np.int64),
        p=np.concatenate([np.empty(0), *points]),
        q=np.concatenate([np.empty(0), *reactive]),
        hour=np.concatenate([np.empty(0), *hours]),
        interval_h=interval_h,
        use_actual=(engine.get_all_ints(handles, kind, "UseActual") if kind == "LoadShape" else none) != 0,
        npts=engine.get_all_ints(handles, kind, "NPts"),
        edge=(engine.get_all_ints(handles, kind, "Interpolation") if kind == "LoadShape" else none) == _EDGE,
    )


def read_load_rules(engine: Engine, loads: Sequence[Handle]) -> tuple[BoolArray, BoolArray, FloatArray]:
    """Return ``fixed``, ``fixed_q`` and ``actual_q_per_kw`` of loads, as of :class:`Loads`."""
    kw, kvar = (engine.get_all_floats(loads, "Load", key) for key in ("kW", "kvar"))
    # OpenDSS minds the power factor unless kvar came after it.
    by_factor = engine.written_order(loads, "Load", "PF") > engine.written_order(loads, "Load", "kvar")
    factor = engine.get_all_floats(loads, "Load", "PF")
    # Of 0 kW, which a shape of actual values may well be multiplied by, only the factor itself is left.
    tangent = np.sqrt(np.maximum(1.0 / np.square(np.where(factor == 0.0, 1.0, factor)) - 1.0, 0.0)) * np.sign(factor)
    ratio = np.where(by_factor, np.divide(kvar, kw, out=tangent, where=kw != 0.0), 0.0)
    fixed = engine.get_all_ints(loads, "Load", "Status") == _FIXED
    return fixed, np.isin(engine.get_all_ints(loads, "Load", "Model"), _FIXED_Q_MODELS), ratio


class Folded(NamedTuple):
    """What the circuit's multipliers were, in the order of ``SHAPE_MODES``.

    Attributes:
        level: What a level of demand is multiplied by, shape (n_modes,).
        loads: By how much the demand of each load differs from that in the model's own mode, shape (n_modes, n_loads);
            empty where by nothing.
    """

    level: FloatArray
    loads: FloatArray


def fold_multipliers(engine: Engine, settings: Mapping[str, str]) -> Folded:
    """Turn the circuit's load multiplier and its year's growth into part of the loads that mind them.

    Afterwards what is written as demand is what is drawn. Shapes of actual values mind neither, nor do their loads.

    Raises:
        ValueError: they multiply demand by more than any feeder's grows.
    """
    multiplier, engine.load_multiplier = engine.load_multiplier, 1.0
    year, engine.year = _year(settings, engine.year), 0
    yearly = np.array([mode == "yearly" for mode in SHAPE_MODES])
    level = np.where(yearly, 1.0, multiplier) * _growth_at(engine.growth_percent, year)
    _check_factors(level)
    loads = list(engine.handles("Load").values())
    if not loads or (multiplier == 1.0 and year == 0):
        return Folded(level, np.empty(0))
    status = engine.get_all_ints(loads, "Load", "Status")
    # Loads that are exempt are so in all modes but one.
    minds = (status != _FIXED) & (yearly[:, None] | (status != _EXEMPT))
    factors = np.where(minds, multiplier, 1.0) * _grow(engine, loads, year)
    _check_factors(factors)
    # Left as written: it counts whether power factor or kvar came last.
    shapes = list(engine.handles("LoadShape").values())
    actual = engine.get_all_ints(shapes, "LoadShape", "UseActual") != 0
    of_actual = [engine.address(shape) for shape, has in zip(shapes, actual.tolist(), strict=True) if has]
    factors[np.isin(_find_followed(engine, "Load", loads), of_actual) & (status != _FIXED)] = 1.0
    own = factors[SHAPE_MODES.index(read_mode(settings))]
    grown = [load for load, factor in zip(loads, own.tolist(), strict=True) if factor != 1.0]
    fixed_q = np.isin(engine.get_all_ints(grown, "Load", "Model"), _FIXED_Q_MODELS)
    scale_loads(engine, grown, own[own != 1.0], np.where(fixed_q, 1.0, own[own != 1.0]))
    differ = np.divide(factors, own, out=np.ones_like(factors), where=own != 0.0)
    return Folded(level, differ if (differ != 1.0).any() else np.empty(0))


def scale_loads(engine: Engine, loads: Sequence[Handle], kw: FloatArray | float, kvar: FloatArray | float) -> None:
    """Multiply the nominal demand of loads by a factor each, active and reactive."""
    if np.all(np.equal(kw, 1.0)) or not loads:
        return
    # Read both before either is written: kW drags kvar along.
    demand = {
        name: factor * engine.get_all_floats(loads, "Load", name) for name, factor in (("kW", kw), ("kvar", kvar))
    }
    for name, values in demand.items():
        writer = engine.bulk_writer("Load", name, loads, keep_y=False)
        writer.values[:] = values
        writer.write()


def _year(settings: Mapping[str, str], compiled: int) -> int:
    try:
        return int(float(settings["year"]))
    except (KeyError, ValueError, OverflowError):
        return compiled


def _growth_at(percent: float, year: int) -> float:
    try:
        return float((1.0 + percent / 100.0) ** (year - 1)) if year else 1.0
    except OverflowError:
        return np.inf


def _check_factors(factors: FloatArray) -> None:
    if not (np.abs(factors) <= _MOST_GROWN).all():
        raise ValueError(f"LoadMult, %growth and Year multiply demand by {np.nanmax(np.abs(factors)):g}")


def _grow(engine: Engine, loads: Sequence[Handle], year: int) -> FloatArray:
    """Return by how much the loads have grown in a year, by their GrowthShape or the circuit's rate."""
    if year == 0:
        return np.ones(len(loads))
    addresses = engine.get_all_references(loads, "Load", "Growth").tolist()
    grown = {0: _growth_at(engine.growth_percent, year)}
    for handle in engine.handles("GrowthShape").values():
        years = engine.get_floats(handle, "GrowthShape", "Year")
        by_year = engine.get_floats(handle, "GrowthShape", "Mult")
        factor, first = 1.0, round(years[0]) if len(years) else year
        if year - first > _MOST_YEARS:
            raise ValueError(f"Year={year} is {year - first} years after a GrowthShape begins")
        for before in range(first, year):  # each year grows from the one before
            factor *= float(by_year[max(int(np.searchsorted(years, before, side="right")) - 1, 0)])
        grown[engine.address(handle)] = factor
    return np.array([grown.get(address, 1.0) for address in addresses])
