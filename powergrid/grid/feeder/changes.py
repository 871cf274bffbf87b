"""What is added to a feeder, or changed of its values, before the engine gets it: the one door for that.

What a user writes becomes statements behind those of the feeder, by the same writer as all others: so they are part of
the feeder's digest, of what is kept of it, and of what is exported. Without a change the feeder is the same object.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from powergrid.errors import FeederError, Problem, describe_unknown
from powergrid.grid.devices.spec import Phase, Spec
from powergrid.grid.engine import Engine, FloatArray
from powergrid.grid.feeder.compile import compile_feeder
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.ratings import Ratings
from powergrid.grid.feeder.reading.statements import Parameter, write
from powergrid.grid.feeder.reading.syntax import Command

#: Where errors say that a change stands: the key of a scenario.
KEY = "feeder_changes"
#: Volt-var of DER of Category B: voltage [pu of nominal] and reactive power [pu of the kVA rating], injection positive.
#: Source: IEEE Std 1547-2018, table 8, default settings.
IEEE1547_B = ((0.92, 0.44), (0.98, 0.0), (1.02, 0.0), (1.08, -0.44))
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
_MOST_POINTS = 100_000
#: Volt-var acts with whatever the sun gives, and goes on at night only as far as OpenDSS has an inverter do.
_CUT_PERCENT = "0.1"


class _Placed(Spec):
    """What all that is added says of where it is."""

    bus: str = Field(description="Bus of the feeder.")
    phases: tuple[Phase, ...] = Field(
        default=(), max_length=3, description="Phases of the bus it connects to; all that the bus has if unset."
    )
    connection: Literal["wye", "delta"] = Field(default="wye", description="Connection between those phases.")
    shape: tuple[float, ...] = Field(
        default=(),
        max_length=_MOST_POINTS,
        description="Multipliers of a day, evenly spread over its 24 hours, repeated every day; as a LoadShape's.",
    )

    @field_validator("bus", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check_place(self) -> _Placed:
        if len(set(self.phases)) != len(self.phases):
            raise ValueError(f"phases {self.phases} repeats a phase")
        if self.connection == "delta" and len(self.phases) == 1:
            raise ValueError("connection 'delta' needs two or three phases")
        return self


class AddedPV(_Placed):
    """A PVSystem; without a shape it follows the sun of the profiles."""

    kind: Literal["pv"] = Field(description="Kind of what is added.")
    p_max_kw: float = Field(gt=0, description="Power of the panels at full sun [kW].")
    s_max_kva: float | None = Field(default=None, gt=0, description="Rating of the inverter; `p_max_kw` if unset.")
    pf: float = Field(default=1.0, ge=-1, le=1, description="Power factor; negative absorbs reactive power.")

    @field_validator("pf")
    @classmethod
    def _is_factor(cls, value: float) -> float:
        if abs(value) < 0.1:
            raise ValueError(f"pf {value:g} is no power factor; allowed are -1..-0.1 and 0.1..1")
        return value


class AddedStorage(_Placed):
    """A Storage that follows its shape: 1 discharges with all its power, -1 charges; without one it idles."""

    kind: Literal["storage"] = Field(description="Kind of what is added.")
    p_max_kw: float = Field(gt=0, description="Power it charges and discharges with at most [kW].")
    e_max_kwh: float = Field(gt=0, description="Energy it holds [kWh].")
    s_max_kva: float | None = Field(default=None, gt=0, description="Rating of the inverter; `p_max_kw` if unset.")
    soc: float = Field(default=0.5, ge=0, le=1, description="What it holds at the start.")


class AddedLoad(_Placed):
    """A Load of constant power; without a shape it draws as the scenario's profiles have it."""

    kind: Literal["load"] = Field(description="Kind of what is added.")
    p_kw: float = Field(gt=0, description="Nominal demand [kW].")
    pf: float = Field(default=1.0, ge=0.1, le=1, description="Power factor, inductive.")


class AddedVoltVar(Spec):
    """An InvControl that sets the reactive power of inverters by their voltage, within the power flow.

    It acts where the feeder's own controls do: with ``native_controls``, or as policy ``native``.
    """

    kind: Literal["volt_var"] = Field(description="Kind of what is added.")
    inverters: tuple[str, ...] = Field(
        default=(), description="Names of PV and storage added with it; all of these if unset."
    )
    curve: tuple[tuple[float, float], ...] = Field(
        default=IEEE1547_B,
        min_length=2,
        description="Voltage [pu] and reactive power [pu of the kVA rating], injection positive; by default that of "
        "IEEE 1547-2018, Category B.",
    )

    @field_validator("curve")
    @classmethod
    def _is_curve(cls, value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        voltages, powers = zip(*value, strict=True)
        if any(later <= earlier for earlier, later in itertools.pairwise(voltages)):
            raise ValueError(f"curve: voltages {list(voltages)} do not rise")
        if not any(powers) or max(map(abs, powers)) > 1.0:
            raise ValueError(f"curve: reactive powers {list(powers)} are not within -1..1, or all 0")
        return value


#: What can be added, by kind.
ADDED = {"pv": AddedPV, "storage": AddedStorage, "load": AddedLoad, "volt_var": AddedVoltVar}
Added = Annotated[AddedPV | AddedStorage | AddedLoad | AddedVoltVar, Field(discriminator="kind")]


class ScaleSpec(Spec):
    """Factors on values of what the feeder has; what is added is as it says."""

    load: float = Field(default=1.0, gt=0, le=100, description="Nominal demand of every load, kW and kvar.")
    line_r: float = Field(default=1.0, gt=0, le=100, description="Resistance of every line that is no switch.")
    line_x: float = Field(default=1.0, gt=0, le=100, description="Reactance of every line that is no switch.")


class FeederChanges(Spec):
    """What is added to a feeder and changed of it before it is compiled."""

    add: dict[str, Added] = Field(default_factory=dict, description="Elements that are added, by name; by `kind`.")
    scale: ScaleSpec = ScaleSpec()

    @property
    def is_empty(self) -> bool:
        """Whether the feeder stays as it is."""
        return self == _NOTHING

    def shaped_loads(self) -> frozenset[str]:
        """Return the names, lower case, of loads that follow a shape of their own whatever else says of demand."""
        return frozenset(n.lower() for n, each in self.add.items() if isinstance(each, AddedLoad) and each.shape)


_NOTHING = FeederChanges()


def change_feeder(feeder: Feeder, changes: FeederChanges, network: Network) -> Feeder:
    """Return a feeder with elements added and values changed; the same object where nothing is.

    Each addition becomes an element of its name: ``PVSystem.<name>``, ``Storage.<name>``, ``Load.<name>``,
    ``InvControl.<name>``; curves and shapes are ``XYCurve.powergrid_<name>`` and ``LoadShape.powergrid_<name>``.

    Args:
        feeder: The feeder, not composed of several.
        changes: What is added and changed.
        network: What the feeder consists of.

    Raises:
        FeederError: an addition names what the feeder lacks, or has the name of something it has; all of them.
    """
    if changes.is_empty:
        return feeder
    if feeder.circuit:
        raise FeederError(
            str(feeder.master), [Problem("not-usable", KEY, "is for a feeder before others are tied to it")]
        )
    if problems := list(_find_problems(changes, network)):
        raise FeederError(str(feeder.master), problems)
    texts = [*_scale(feeder, changes.scale), *_write_added(changes.add, network)]
    commands = [Command(feeder.master, 0, text) for text in texts]
    said = json.dumps(changes.model_dump(mode="json"), sort_keys=True)
    digest = hashlib.sha256(f"{feeder.digest}\0{said}".encode()).hexdigest()
    return replace(feeder, commands=(*feeder.commands, *commands), digest=digest, unchanged=feeder)


# -- checks


def _find_problems(changes: FeederChanges, network: Network) -> Iterator[Problem]:
    classes = {"pv": "pvsystem", "storage": "storage", "load": "load", "volt_var": "invcontrol"}
    taken = {f"{name.lower()}.{each}" for name, names in network.elements.items() for each in names}
    taken |= {f"{control.class_name}.{control.name}".lower() for control in network.controls}
    inverters = [name for name, each in changes.add.items() if isinstance(each, AddedPV | AddedStorage)]
    seen: dict[str, str] = {}
    for name, each in changes.add.items():
        where = f"{KEY}.add.{name}"
        if not _NAME.fullmatch(name):
            yield Problem("bad-name", where, "a name is letters, digits and '_', a letter first")
        if (other := seen.setdefault(name.lower(), name)) != name:
            yield Problem("bad-name", where, f"differs from {other!r} in letter case only")
        if f"{classes[each.kind]}.{name.lower()}" in taken:
            yield Problem(
                "name-taken", where, f"the feeder has {classes[each.kind]}.{name.lower()}", "give it another name"
            )
        if isinstance(each, _Placed):
            found = network.find_bus(each.bus, each.phases, f"{where}.bus")
            if isinstance(found, Problem):
                yield found
            elif not _phases_at(network, each):
                yield Problem("missing-phase", f"{where}.bus", f"bus {each.bus!r} has no phase 1, 2 or 3")
            elif each.connection == "delta" and len(_phases_at(network, each)) == 1:
                yield Problem(
                    "missing-phase", f"{where}.connection", "'delta' needs two or three phases, and here is one"
                )
            continue
        for inverter in each.inverters:
            if inverter not in inverters:
                unknown = describe_unknown("addition of kind pv or storage", inverter, inverters)
                yield Problem("unknown-name", f"{where}.inverters", unknown)
        if not inverters:
            yield Problem("unknown-name", where, "there is no pv and no storage among what is added for it to set")


def _phases_at(network: Network, placed: _Placed) -> tuple[int, ...]:
    """Return the phases that something connects to: those it names, else all of its bus."""
    if placed.phases:
        return placed.phases
    here = network.nodes_of([network.bus_index[placed.bus.lower()]])
    return tuple(sorted(int(phase) for phase in network.node_phase[here[network.is_phase[here]]]))


# -- statements


def _write_added(added: Mapping[str, Added], network: Network) -> Iterator[str]:
    controls = {name: each for name, each in added.items() if isinstance(each, AddedVoltVar)}
    everyone = tuple(name for name, each in added.items() if isinstance(each, AddedPV | AddedStorage))
    most = dict[str, float]()
    for control in controls.values():  # the curve says what its inverters are able to
        for name in control.inverters or everyone:
            most[name] = max(abs(power) for _, power in control.curve)
    for name, each in added.items():
        if isinstance(each, _Placed):
            if each.shape:
                yield _write_shape(name, each.shape)
            yield _write_element(name, each, network, most.get(name))
    for name, control in controls.items():
        yield from _write_control(name, control, added, control.inverters or everyone)


def _write_shape(name: str, shape: Sequence[float]) -> str:
    points = {"npts": str(len(shape)), "interval": repr(24.0 / len(shape)), "mult": shape}
    return _new("LoadShape", f"powergrid_{name}", points)


def _write_element(name: str, each: _Placed, network: Network, var_share: float | None) -> str:
    place = _connect(network, each)
    if each.shape:
        place["daily"] = place["yearly"] = f"powergrid_{name}"
    match each:
        case AddedPV():
            kva = each.s_max_kva or each.p_max_kw
            own: dict[str, Any] = {"pmpp": each.p_max_kw, "kva": kva, "irradiance": 1.0, "pf": each.pf}
            own |= {"%cutin": _CUT_PERCENT, "%cutout": _CUT_PERCENT}
            if var_share is not None:
                own |= {"kvarmax": var_share * kva, "kvarmaxabs": var_share * kva}
            return _new("PVSystem", name, {**place, **own})
        case AddedStorage():
            kva = each.s_max_kva or each.p_max_kw
            own = {"kwrated": each.p_max_kw, "kwhrated": each.e_max_kwh, "kva": kva, "%stored": 100.0 * each.soc}
            own |= {"%reserve": 0.0, "dispmode": "follow", "%idlingkw": 0.0, "state": "idling"}
            if var_share is not None:
                own |= {"kvarmax": var_share * kva, "kvarmaxabs": var_share * kva}
            return _new("Storage", name, {**place, **own})
        case AddedLoad():
            return _new("Load", name, {**place, "kw": each.p_kw, "pf": each.pf, "model": "1"})
    raise TypeError(type(each).__name__)


def _write_control(
    name: str, control: AddedVoltVar, added: Mapping[str, Added], inverters: Sequence[str]
) -> Iterator[str]:
    voltages, powers = zip(*control.curve, strict=True)
    most = max(map(abs, powers))
    curve = f"powergrid_{name}"
    shares = [power / most for power in powers]  # of what each is able to, which is its kvarmax
    yield _new("XYCurve", curve, {"npts": str(len(voltages)), "xarray": voltages, "yarray": shares})
    listed = [f"{'PVSystem' if isinstance(added[each], AddedPV) else 'Storage'}.{each}" for each in inverters]
    own: dict[str, Any] = {"derlist": listed, "mode": "VOLTVAR", "voltage_curvex_ref": "rated", "vvc_curve1": curve}
    yield _new("InvControl", name, own | {"refreactivepower": "VARMAX"})


def _connect(network: Network, placed: _Placed) -> dict[str, Any]:
    """Return the properties by which an element is tied to the phases of a bus."""
    bus, phases = placed.bus.lower(), _phases_at(network, placed)
    here = network.nodes_of([network.bus_index[bus]])
    returns = network.node_phase[np.intersect1d(here, network.neutrals)].tolist()
    connection = placed.connection
    if len(phases) > 1 and not returns and np.isin(here, network.floating).all():
        connection = "delta"  # nothing leads to ground: a star has no return
    between = connection == "delta" and len(phases) == 2
    n_phases = 1 if between else len(phases)
    kv = float(network.v_base[here[0]]) / 1000.0 * (1.0 if n_phases == 1 and not between else 3.0**0.5)
    numbers = (*phases, *(returns[:1] if connection == "wye" else ()))
    ends = ".".join([bus, *map(str, numbers)])
    return {"bus1": ends, "phases": str(n_phases), "conn": connection, "kv": kv}


def _new(class_name: str, name: str, properties: Mapping[str, Any]) -> str:
    return write("New", Parameter("", f"{class_name}.{name}"), *(_say(*each) for each in properties.items()))


def _say(key: str, value: Any) -> Parameter:
    """Return a property: text as it is, numbers so that they are read back bit by bit, several in brackets."""
    if isinstance(value, str):
        return Parameter(key, value)
    if isinstance(value, float):
        return Parameter(key, repr(value))
    return Parameter(key, " ".join(each if isinstance(each, str) else repr(float(each)) for each in value), "[")


def _scale(feeder: Feeder, scale: ScaleSpec) -> Iterator[str]:
    """Yield edits that multiply what a feeder says of its lines and loads, as OpenDSS understood it."""
    if scale == ScaleSpec():
        return
    with closing(Engine()) as engine:
        compile_feeder(feeder, engine)
        if scale.load != 1.0:
            yield from _scale_loads(engine, scale.load)
        if (scale.line_r, scale.line_x) != (1.0, 1.0):
            yield from _scale_lines(engine, scale.line_r, scale.line_x)


def _scale_lines(engine: Engine, r: float, x: float) -> Iterator[str]:
    lines = {n: line for n, line in engine.handles("Line").items() if not engine.get_int(line, "Line", "Switch")}
    rated = Ratings(engine).read_all("Line", list(lines.values())).tolist()
    for (name, line), amps in zip(lines.items(), rated, strict=True):
        # What is not written anew a line may lose that is of a code or geometry.
        given = [
            Parameter(key, as_matrix(factor * engine.get_floats(line, "Line", key)), "[")
            for key, factor in (("RMatrix", r), ("XMatrix", x), ("CMatrix", 1.0))
        ]
        given.append(Parameter("Units", engine.get_text(line, "Line", "Units")))  # last: else they are lost
        if amps:  # from here on the line is of no code that could say so
            given.append(Parameter("NormAmps", repr(amps)))
        yield write("Edit", Parameter("", f"Line.{name}"), *given)


def _scale_loads(engine: Engine, factor: float) -> Iterator[str]:
    for name, load in engine.handles("Load").items():
        # By its power factor kvar follows kW, and it goes on by that: what is written last counts.
        by_factor = engine.written_at(load, "Load", "PF") > engine.written_at(load, "Load", "kvar")
        keys = ("kW",) if by_factor else ("kW", "kvar")
        given = [Parameter(key, repr(factor * engine.get_float(load, "Load", key))) for key in keys]
        yield write("Edit", Parameter("", f"Load.{name}"), *given)


def as_matrix(values: FloatArray) -> str:
    """Return a square matrix as OpenDSS reads it back bit by bit."""
    rows = values.reshape(round(len(values) ** 0.5), -1).tolist()
    return " | ".join(" ".join(map(repr, row)) for row in rows)
