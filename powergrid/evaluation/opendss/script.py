"""A played day as OpenDSS commands: the demand as LoadShapes, all else as edits step by step. It plays nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.opendss.played import OpenPlace, PlayedDay, Positions, Series

FloatArray = npt.NDArray[np.float64]

#: Names of the files, in the order in which they are read.
MASTER, FEEDER, DEMAND, RECORDERS, DAY = "Master.dss", "Feeder.dss", "Demand.dss", "Recorders.dss", "Day.dss"
SETTINGS, SUN = "Settings.dss", "Sun.dss"
FLAT = "powergrid_flat"
_QUOTES = (('"', '"'), ("'", "'"), ("(", ")"), ("[", "]"), ("{", "}"))
#: What makes an element do as it is told where the feeder's own controls led it: constant power, no limits in between.
_OBEY = {
    "Generator": "model=1 vminpu=0.2 vmaxpu=2 status=fixed maxkvar=1e9 minkvar=-1e9",
    "Storage": "model=1 vminpu=0.2 vmaxpu=2 %reserve=0 %cutin=0 %cutout=0 controlmode=gfl",
    "PVSystem": (
        "model=1 vminpu=0.2 vmaxpu=2 %cutin=0 %cutout=0 %pmpp=100 controlmode=gfl "
        f"effcurve={FLAT}_curve p-tcurve={FLAT}_curve"
    ),
}
#: What the engine itself moves on between steps, so that it is said in each.
_ALWAYS = ("kWhStored",)
_DRAGGED = ("kW", "kvar", "MaxKVAR", "MinKVAR")
#: Multipliers are told apart to this many digits; far fewer would do.
_DIGITS = 13


def quoted(name: str) -> str:
    """Return a full name as a command takes it: names may hold blanks and brackets."""
    opening, closing = next((quotes for quotes in _QUOTES if quotes[1] not in name), _QUOTES[0])
    return f"{opening}{name}{closing}"


def number(value: float) -> str:
    """Return a number as short as it can be without a loss."""
    if value == 0.0:
        return "0"
    return np.format_float_positional(value, trim="-") if 1e-4 <= abs(value) < 1e7 else repr(value)


def write_master(day: PlayedDay, *, recorders: bool) -> str:
    """Return the master file."""
    lines = [
        f"! What {day.policy} does in {day.scenario} on {day.date}: {day.n_steps} steps of {day.step_minutes} min.",
        "! OpenDSS alone plays it: its own controls are off, Day.dss says what moves when.",
        "Clear",
        f"Redirect {FEEDER}",
        f"Redirect {DEMAND}",
        *([f"Redirect {RECORDERS}"] if recorders else []),
        f"Redirect {DAY}",
    ]
    return "\n".join(lines) + "\n"


def write_feeder(day: PlayedDay) -> str:
    """Return the feeder as it stood at the start of the day."""
    # Its first line holds the time of writing.
    body = [line for line in day.feeder.splitlines() if not line.startswith("! Last saved")]
    head = f"! The feeder of {day.scenario} as it was played, at the start of the day."
    return "\n".join([head, *body]) + "\n"


# -- demand


def write_demand(day: PlayedDay) -> str:
    """Return each load's demand over the day, as LoadShapes and the loads that follow them."""
    written = {s.key.lower(): s for s in day.series if s.class_name == "Load"}
    lines = [
        "! Demand over the day: multipliers of each load's kW and kvar. Loads that draw alike have one shape.",
        f"New LoadShape.{FLAT} npts=1 interval=1 mult=[1]",
        f"New XYCurve.{FLAT}_curve npts=2 xarray=[0 1] yarray=[1 1]",
    ]
    lines += _write_stillness(day)
    if not written:
        return "\n".join(lines) + "\n"
    shapes: dict[bytes, str] = {}
    edits = []
    kw, kvar = written["kw"], written["kvar"]
    for column, name in enumerate(kw.names):
        base = [_base(series.values[:, column]) for series in (kw, kvar)]
        scaled = (series.values[:, column] / b for series, b in zip((kw, kvar), base, strict=True))
        mult = [np.round(values, _DIGITS) + 0.0 for values in scaled]  # no negative zeros
        key = b"".join(each.tobytes() for each in mult)
        if key not in shapes:
            shapes[key] = f"powergrid_demand_{len(shapes) + 1}"
            lines += _write_shape(shapes[key], day, *mult)
        edits.append(
            f"Edit {quoted(f'Load.{name}')} kW={number(base[0])} kvar={number(base[1])} status=variable "
            f"daily={shapes[key]}"
        )
    return "\n".join([*lines, *edits]) + "\n"


def _base(values: FloatArray) -> float:
    """Return what multipliers of a series are of: its largest value, 1 where there is none."""
    largest = float(values[np.abs(values).argmax()])
    return largest or 1.0


def _write_shape(name: str, day: PlayedDay, mult: FloatArray, qmult: FloatArray) -> Iterator[str]:
    yield f"New LoadShape.{name} npts={day.n_steps} minterval={day.step_minutes}"
    yield from _write_array("mult", mult)
    if not np.array_equal(mult, qmult):
        yield from _write_array("qmult", qmult)


def _write_array(key: str, values: FloatArray) -> Iterator[str]:
    text = [number(float(value)) for value in values]
    yield f"~ {key}=[{' '.join(text)}]"


def _write_stillness(day: PlayedDay) -> Iterator[str]:
    """Yield what keeps shapes of the model's own from moving an element: Day.dss says what it does."""
    storages = {name for series in day.series if series.class_name == "Storage" for name in series.names}
    for class_name, names in day.daily.items():
        for name in names:
            if class_name not in ("Load", "Vsource"):
                yield f"Edit {quoted(f'{class_name}.{name}')} daily={FLAT}"
    yield from _write_sources(day)
    for name in sorted(storages):
        yield f"Edit {quoted(f'Storage.{name}')} dispmode=external"
    for element in day.led:
        yield f"Edit {quoted(element)} {_OBEY[element.partition('.')[0]]}"


def _write_sources(day: PlayedDay) -> Iterator[str]:
    """Yield a shape for each source that has one: its values take the place of pu, and it cannot be taken away."""
    for series in day.series:
        shaped = day.daily.get("Vsource", ()) if series.class_name == "Vsource" else ()
        for name, values in zip(series.names, series.values.T, strict=True):
            if name in shaped:
                shape = f"powergrid_source_{shaped.index(name) + 1}"
                yield from _write_shape(shape, day, values, values)
                yield f"Edit {quoted(f'Vsource.{name}')} daily={shape}"


# -- the day


def write_day(day: PlayedDay, *, fitted: Collection[str] = (), controls: str = "off") -> str:
    """Return the steps of the day: what is edited before each, a solve, and the voltages in a file.

    Args:
        day: The day.
        fitted: ``Class.name`` of the elements that settings move instead.
        controls: OpenDSS's control mode.
    """
    lines = [
        "! Step by step: what moves, then a solve. Voltages go to voltages_NNN.csv.",
        f"Set mode=daily stepsize={day.step_minutes}m number=1 hour=0 sec=0 controlmode={controls}",
        "Set maxiterations=1000 maxcontroliter=100 tolerance=1e-9",
    ]
    others = {name.lower() for name in fitted}
    told = {
        (series.class_name, name, series.key): value
        for series in day.series if series.start is not None
        for name, value in zip(series.names, series.start.tolist(), strict=True)
    }  # fmt: skip
    # The feeder's text says nothing of the steps of capacitors, nor of what is open.
    lines += [f"Edit {quoted(f'Capacitor.{n}')} states={_states(s)}" for n, s in day.start.states.items()]
    lines += _order("Open", day.start.opened)
    before = _leave_out(day.start, others)
    for step, positions in enumerate(day.positions):
        minutes = (step + 1) * day.step_minutes
        handed_back = ", handed back to the feeder's own controls" if step + 1 in day.handed_back else ""
        lines.append(f"! step {step + 1}, to {minutes // 60:02d}:{minutes % 60:02d}{handed_back}")
        after = _leave_out(positions, others)
        lines += _write_moves(before, after)
        lines += _write_values(day.series, step, told, others)
        lines += ["Solve", f"Export Voltages voltages_{step + 1:03d}.csv"]
        before = after
    return "\n".join(lines) + "\n"


def _leave_out(positions: Positions, others: Collection[str]) -> Positions:
    if not others:
        return positions
    return Positions(
        {place: tap for place, tap in positions.taps.items() if place[0].lower() not in others},
        {name: states for name, states in positions.states.items() if f"capacitor.{name}" not in others},
        frozenset(place for place in positions.opened if place[0].lower() not in others),
    )


def _write_moves(before: Positions, after: Positions) -> Iterator[str]:
    """Yield what brings switchgear from one position to another."""
    for (name, winding), tap in after.taps.items():
        if before.taps[name, winding] != tap:
            yield f"Edit {quoted(name)} wdg={winding} tap={number(tap)}"
    for name, states in after.states.items():
        if before.states[name] != states:
            yield f"Edit {quoted(f'Capacitor.{name}')} states={_states(states)}"
    yield from _order("Close", before.opened - after.opened)
    yield from _order("Open", after.opened - before.opened)


def _order(verb: str, places: Iterable[OpenPlace]) -> Iterator[str]:
    for name, terminal, phase in sorted(places):
        yield f"{verb} {quoted(name)} {terminal}{f' {phase}' if phase else ''}"


def _states(states: Iterable[int]) -> str:
    return f"[{' '.join(map(str, states))}]"


def _write_values(
    series: Iterable[Series], step: int, told: dict[tuple[str, str, str], float], others: Collection[str] = ()
) -> Iterator[str]:
    """Yield the edits of a step that say anything new; ``told`` keeps what was said last, ``others`` say nothing."""
    edits: dict[str, list[str]] = {}
    for each in series:
        if each.class_name == "Load":
            continue
        for name, value in zip(each.names, each.values[step].tolist(), strict=True):
            place = (each.class_name, name, each.key)
            if others and f"{each.class_name}.{name}".lower() in others:
                continue
            if told.get(place) != value or each.key in _ALWAYS:
                told[place] = value
                edits.setdefault(f"{each.class_name}.{name}", []).append(each.key)
    yield from (f"Edit {quoted(element)} {_assign(element, keys, told)}" for element, keys in edits.items())


def _assign(element: str, keys: Iterable[str], told: Mapping[tuple[str, str, str], float]) -> str:
    class_name, _, name = element.partition(".")
    said = dict.fromkeys(keys)
    if {"kW", "kvar"} & set(said):
        # kW drags kvar along, and kvar its limits: one that changes says those that hang on it, in this order.
        known = [key for key in _DRAGGED if (class_name, name, key) in told]
        said = dict.fromkeys([*(key for key in said if key not in _DRAGGED), *known])
    return " ".join(f"{key}={number(told[class_name, name, key])}" for key in said)
