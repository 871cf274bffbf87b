"""Where devices put their power, on elements of the feeder or at buses by generators that are added.

Checks the names against the circuit, readies the elements, and writes demand and setpoints in bulk. Knows neither time
nor physics: values come in physical units and go out in those of the engine's properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from powergrid.errors import FeederError, Problem, describe_unknown
from powergrid.grid.engine import BulkWriter, Engine, FloatArray, Handle, IntArray
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import BoolArray, Network, describe_missing_phases
from powergrid.grid.feeder.windings import Handles

#: Classes that can carry a device's power, and the properties its active and reactive power go to.
INJECTION_PROPERTIES = {
    "Generator": ("kW", "kvar"),
    "Storage": ("kW", "kvar"),
    "PVSystem": ("Irradiance", "kvar"),
    "Load": ("kW", "kvar"),
}
_LAST_PHASE = 3
_FREE_KVA = 10.0
_CONNECTIONS = ("wye", "delta")
_FLAT = "powergrid_flat"
#: What stands between a setpoint and the power delivered and belongs to the device's own physics: cut-in and
#: idling thresholds, curves, voltage limits and control, circuit-wide multipliers. Ratings are kept.
_OBEY = {
    "Generator": "model=1 vminpu=0.2 vmaxpu=2 status=fixed dispmode=default maxkvar=1e9 minkvar=-1e9",
    "Storage": (
        "model=1 vminpu=0.2 vmaxpu=2 %stored=50 %reserve=0 %idlingkw=0 %cutin=0 %cutout=0 %pminnovars=0 "
        "%pminkvarmax=0 %kwrated=100 controlmode=gfl dispmode=default state=idling"
    ),
    "PVSystem": (
        "model=1 vminpu=0.2 vmaxpu=2 %cutin=0 %cutout=0 %pmpp=100 %pminnovars=0 %pminkvarmax=0 controlmode=gfl "
        "varfollowinverter=no "
        f"effcurve={_FLAT} p-tcurve={_FLAT}"
    ),
    "Load": "status=fixed",
}
#: Properties that bound reactive power, injected and absorbed, and what turns them into amounts.
_KVAR_LIMITS = {
    "Storage": (("kvarMax", 1.0), ("kvarMaxAbs", 1.0)),
    "PVSystem": (("kvarMax", 1.0), ("kvarMaxAbs", 1.0)),
    "Generator": (("MaxKVAR", 1.0), ("MinKVAR", -1.0)),
}


@dataclass(frozen=True)
class Injection:
    """Where a device puts its power: on an element of the feeder, or at a bus through one that is added.

    Attributes:
        name: The device's name.
        element: ``Class.name`` of an element that the feeder has, or empty.
        bus: Bus name where an element is added, or empty.
        phases: Phase numbers at that bus.
        connection: ``wye`` or ``delta``.
        properties: More to set on the element of the feeder, as OpenDSS text.
        as_modelled: Leave the element as the model has it: its power is read, and never written.
        led: A controller of the feeder's own sets the element, made ready as a device's: it is never written either.
    """

    name: str
    element: str = ""
    bus: str = ""
    phases: tuple[int, ...] = (1, 2, 3)
    connection: str = "wye"
    properties: str = ""
    as_modelled: bool = False
    led: bool = False


def place_injections(
    feeder: Feeder,
    engine: Engine,
    injections: Sequence[Injection],
    handles: Handles,
    bus_kv: Mapping[str, float],
    network: Network,
) -> tuple[list[tuple[str, Handle]], dict[str, dict[str, float]]]:
    """Ready the element of each injection in a compiled circuit.

    Args:
        feeder: The feeder, for errors.
        engine: The engine that holds it.
        injections: Where the devices' power goes.
        handles: The circuit's elements.
        bus_kv: Line-to-neutral base voltage of each bus [kV].
        network: What the circuit was without them: where its neutrals are, and what has no path to ground.

    Returns:
        Class and handle of each injection's element, in the order given, and what the model says of those that it has,
        by the injection's name; see :func:`read_ratings`.

    Raises:
        FeederError: injections name what the circuit lacks; all of them at once, with the nearest names.
    """
    split = [_split(injection.element) for injection in injections]
    of_class = {
        class_name: {i: own[name] for i, (c, name) in enumerate(split) if c == class_name and name in own}
        for class_name, own in handles.items()
        if class_name in INJECTION_PROPERTIES
    }
    problems = list(_find_problems(engine, injections, handles, bus_kv, of_class))
    if problems:
        raise FeederError(str(feeder.master), problems)
    if of_class["PVSystem"]:
        engine.command(f"new XYCurve.{_FLAT} npts=2 xarray=(0 1) yarray=(1 1)")
    ratings: dict[str, dict[str, float]] = {}
    limits: dict[int, str] = {}
    for class_name, own in of_class.items():
        said = read_ratings(engine, class_name, list(own.values()))
        ratings |= zip((injections[number].name for number in own), said, strict=True)
        limits |= zip(own, _free_ratings(engine, class_name, list(own.values())), strict=True)
    placed: list[tuple[str, str]] = []
    for number, (injection, (class_name, name)) in enumerate(zip(injections, split, strict=True)):
        if not injection.element:
            class_name, name = "Generator", f"powergrid_{number}_" + re.sub(r"[^a-z0-9]", "_", injection.name.lower())
            engine.command(f"new {class_name}.{name} {_added_generator(injection, bus_kv, network)}")
        elif not injection.as_modelled:
            handle = of_class[class_name][number]
            star = _close_star(engine, class_name, handle, network)
            engine.edit(handle, f"{_OBEY[class_name]} {limits[number]} {star} {injection.properties}")
        placed.append((class_name, name))
    now = {class_name: engine.handles(class_name) for class_name in INJECTION_PROPERTIES}
    return [(class_name, now[class_name][name]) for class_name, name in placed], ratings


def read_ratings(engine: Engine, class_name: str, handles: Sequence[Handle]) -> list[dict[str, float]]:
    """Return what elements of a class let devices on them do, by keys of their spec; what one leaves open is not in.

    Ratings are those of the engine; limits are those that the model says, for the engine's own (25 kvar of a Storage,
    a multiple of a Generator's kvar) are placeholders.

    Args:
        engine: The engine that holds them.
        class_name: Their class, as OpenDSS writes it.
        handles: The elements.
    """

    def read(key: str) -> FloatArray:
        return engine.get_all_floats(handles, class_name, key)

    every = np.ones(len(handles), dtype=np.bool_)
    if class_name == "Load":
        return [{"p_max_kw": kw} for kw in read("kW").tolist()]
    kva = read("kVA")
    found: dict[str, tuple[FloatArray, BoolArray]] = {}  # and which elements have it
    if class_name == "Storage":
        rated_kw = read("kWRated")
        most_kw = np.minimum(rated_kw * np.minimum(read("%kWRated"), 100.0) / 100.0, np.where(kva > 0.0, kva, np.inf))
        # As compiled, kW sets %Discharge too, and a StorageController both, to what it begins with.
        discharge, charge = (
            np.where(engine.any_written(handles, class_name, [key]), read(key), 100.0)
            for key in ("%Discharge", "%Charge")
        )
        p_max_kw = np.minimum(most_kw, rated_kw * discharge / 100.0)
        charge_kw = np.minimum(most_kw, rated_kw * charge / 100.0)
        found = {
            "e_max_kwh": (read("kWhRated"), every),
            "p_max_kw": (p_max_kw, every),
            "p_charge_max_kw": (charge_kw, charge_kw != p_max_kw),
            "standby_loss_kw": (np.maximum(rated_kw * read("%IdlingkW") / 100.0, 0.0), every),
        }
    elif class_name == "PVSystem":
        pmpp, percent = read("Pmpp"), read("%Pmpp")
        limited = (percent > 0.0) & (percent < 100.0)
        found = {"p_max_kw": (pmpp, every), "p_limit_kw": (pmpp * percent / 100.0, limited)}
        kva = np.where(engine.any_written(handles, class_name, ["kVA"]), kva, 0.0)  # 500 unless said: a placeholder
    else:
        found = {"p_max_kw": (read("kW"), every)}
    for key, (name, sign) in zip(("q_inject_max_kvar", "q_absorb_max_kvar"), _KVAR_LIMITS[class_name], strict=True):
        # One that is written stands for both.
        said = [name] if class_name == "Generator" else ["kvarMax", name]
        found[key] = np.maximum(sign * read(name), 0.0), engine.any_written(handles, class_name, said)
    found["s_max_kva"] = kva, every
    columns = [(key, values.tolist(), has.tolist()) for key, (values, has) in found.items()]
    return [{key: values[i] for key, values, has in columns if has[i]} for i in range(len(handles))]


def _free_ratings(engine: Engine, class_name: str, handles: Sequence[Handle]) -> list[str]:
    """Let inverters whose model says no kVA use all that their device does.

    A PVSystem has 500 kVA then, whatever its panels. Of a Storage OpenDSS takes the kVA from the kW, and leaves kvarMax
    at the 25 kvar that any new one begins with.
    """
    if class_name not in ("PVSystem", "Storage"):
        return [""] * len(handles)
    kva = engine.get_all_floats(handles, class_name, "kVA")
    kva_said, kvar_said = (
        engine.any_written(handles, class_name, names) for names in (["kVA"], ["kvarMax", "kvarMaxAbs"])
    )
    by_panels = class_name == "PVSystem"
    if by_panels:
        kva = np.maximum(_FREE_KVA * engine.get_all_floats(handles, class_name, "Pmpp"), kva)
    texts = []
    for each, says_kva, says_kvar in zip(kva.tolist(), kva_said.tolist(), kvar_said.tolist(), strict=True):
        own = f"kva={each} " if by_panels and not says_kva else ""
        texts.append(own if says_kva or says_kvar else f"{own}kvarMax={each} kvarMaxAbs={each}")
    return texts


def _split(element: str) -> tuple[str, str]:
    """Split ``Class.name``: the class as OpenDSS writes it, the name in lower case."""
    written, _, name = element.partition(".")
    known = next((c for c in INJECTION_PROPERTIES if c.lower() == written.lower()), written)
    return known, name.lower()


def _find_problems(
    engine: Engine,
    injections: Sequence[Injection],
    handles: Handles,
    bus_kv: Mapping[str, float],
    of_class: Mapping[str, Mapping[int, Handle]],
) -> Iterator[Problem]:
    opened, no_panels = set[int](), set[int]()
    for class_name, own in of_class.items():
        opened |= {
            number for number, is_open in zip(own, engine.open_among(list(own.values())), strict=True) if is_open
        }
        if class_name == "PVSystem":
            pmpp = engine.get_all_floats(list(own.values()), class_name, "Pmpp").tolist()
            no_panels |= {number for number, each in zip(own, pmpp, strict=True) if each <= 0.0}
    bus_phases: dict[str, list[int]] = {}
    for node in () if all(injection.element for injection in injections) else engine.node_names():
        bus, _, phase = node.rpartition(".")
        bus_phases.setdefault(bus, []).append(int(phase))
    taken: dict[tuple[str, str], str] = {}
    for number, injection in enumerate(injections):
        where = f"device {injection.name!r}"
        if not injection.element:
            yield from _bus_problems(injection, bus_phases, where)
            continue
        class_name, name = _split(injection.element)
        named = f"{class_name}.{name}"
        if class_name not in INJECTION_PROPERTIES:
            text = describe_unknown("element class", class_name, INJECTION_PROPERTIES)
            yield Problem("unknown-element-class", where, text)
        elif name not in handles[class_name]:
            text = describe_unknown(class_name, injection.element.partition(".")[2], handles[class_name])
            yield Problem(f"unknown-{class_name.lower()}", where, text)
        elif (class_name, name) in taken:
            yield Problem("name-taken", where, f"{named} already belongs to device {taken[class_name, name]!r}")
        elif number in opened:
            text = f"{named} is open in the model: its power would go nowhere"
            yield Problem("not-usable", where, text, "take Open out")
        elif number in no_panels:
            yield Problem("not-usable", where, f"{named} has Pmpp = 0 kW, so no irradiance can set its power")
        taken.setdefault((class_name, name), injection.name)


def _bus_problems(injection: Injection, bus_phases: Mapping[str, list[int]], where: str) -> Iterator[Problem]:
    bus, phases = injection.bus.lower(), injection.phases
    if bus not in bus_phases:
        yield Problem("unknown-bus", where, describe_unknown("bus", injection.bus, bus_phases))
        return
    if not phases or len(set(phases)) != len(phases):
        yield Problem("bad-value", where, f"phases are {list(phases)}", "give each phase once")
    if lacking := describe_missing_phases(injection.bus, phases, bus_phases[bus]):
        yield Problem("missing-phase", where, lacking)
    if injection.connection not in _CONNECTIONS:
        yield Problem("bad-value", where, describe_unknown("connection", injection.connection, _CONNECTIONS))
    elif injection.connection == "delta" and len(phases) not in (2, 3):
        yield Problem("bad-value", where, f"delta takes two or three phases, not {len(phases)}")


def _close_star(engine: Engine, class_name: str, handle: Handle, network: Network) -> str:
    """Have an element of three phases in delta where nothing leads to ground: its star has no return there."""
    if class_name == "Load" or not len(network.floating):
        return ""
    ref = engine.node_ref(handle)
    if engine.phases(handle) != _LAST_PHASE or len(ref) == _LAST_PHASE or ref[_LAST_PHASE] > 0:
        return ""
    return "conn=delta" if np.isin(ref[:_LAST_PHASE] - 1, network.floating).all() else ""


def _added_generator(injection: Injection, bus_kv: Mapping[str, float], network: Network) -> str:
    """Write the properties of the generator that carries a device's power: constant power, no limits of its own."""
    bus = injection.bus.lower()
    here = network.nodes_of([network.bus_index[bus]])
    returns = network.node_phase[np.intersect1d(here, network.neutrals)].tolist()
    connection = injection.connection
    if len(injection.phases) > 1 and not returns and np.isin(here, network.floating).all():
        connection = "delta"  # nothing leads to ground: a star has no return
    between = connection == "delta" and len(injection.phases) == 2
    n_phases = 1 if between else len(injection.phases)
    kv = bus_kv[bus] * (1.0 if n_phases == 1 and not between else 3.0**0.5)
    numbers = (*injection.phases, *(returns[:1] if connection == "wye" else ()))
    return (
        f'bus1="{bus}.{".".join(map(str, numbers))}" phases={n_phases} conn={connection} kv={kv!r} '
        "kw=0 kvar=0 model=1 vminpu=0.2 vmaxpu=2 maxkvar=1e9 minkvar=-1e9 status=fixed"
    )


class Setpoints:
    """Write what loads ask for and what devices are set to, of one circuit.

    Args:
        engine: The engine that holds the circuit.
        loads: Handle of each load by name, in the order of the load table.
        injections: Where each device's power goes.
        targets: Class and element that carries each device's power.

    Attributes:
        load_of_device: Place of the load that each device replaces, -1 where it replaces none, shape (n_devices,).
        written: Class, property and elements of each bulk write, in the order of ``writers``.
    """

    def __init__(
        self,
        engine: Engine,
        loads: Mapping[str, Handle],
        injections: Sequence[Injection],
        targets: Sequence[tuple[str, Handle]],
    ) -> None:
        self._engine = engine
        self._writers: list[BulkWriter] = []
        self._start: list[BulkWriter] = []
        self.written: list[tuple[str, str, tuple[Handle, ...]]] = []
        self._n_demand = 2 if loads else 0
        for key in ("kW", "kvar")[: self._n_demand]:
            self._bind("Load", key, list(loads.values()))
        position = {name: i for i, name in enumerate(loads)}
        self.load_of_device = np.full(len(targets), -1)
        groups: dict[str, list[int]] = {}
        for device, ((class_name, _), injection) in enumerate(zip(targets, injections, strict=True)):
            if class_name == "Load":
                self.load_of_device[device] = position[injection.element.partition(".")[2].lower()]
            elif not (injection.as_modelled or injection.led):
                groups.setdefault(class_name, []).append(device)
        self._groups = [self._bind_group(class_name, devices, targets) for class_name, devices in groups.items()]

    def _bind(self, class_name: str, key: str, handles: Sequence[Handle]) -> None:
        """Prepare a bulk write that starts from what the elements say."""
        self.written.append((class_name, key, tuple(handles)))
        for writers in (self._writers, self._start):
            writers.append(self._engine.bulk_writer(class_name, key, handles))
            writers[-1].values[:] = self._engine.get_all_floats(handles, class_name, key)

    def _bind_group(
        self, class_name: str, devices: list[int], targets: Sequence[tuple[str, Handle]]
    ) -> tuple[IntArray, FloatArray | None, int]:
        """Prepare the writes of one class of devices; return their places, what scales p, and the first write."""
        handles = [targets[device][1] for device in devices]
        scale = None
        if class_name == "PVSystem":  # whose active power is set by irradiance alone
            scale = np.array([1.0 / self._engine.get_float(handle, class_name, "Pmpp") for handle in handles])
        first = len(self._writers)
        for key in INJECTION_PROPERTIES[class_name]:
            self._bind(class_name, key, handles)
        return np.array(devices), scale, first

    def follow(self, class_name: str, key: str, handles: Sequence[Handle], first: FloatArray | None = None) -> None:
        """Write a property of elements that are no device too, after all others.

        Args:
            class_name, key, handles: What is written.
            first: Where the model has it, if elements seek on from what is written; see :class:`ContinuingWriter`.
        """
        if first is None:
            self._bind(class_name, key, handles)
            return
        for writers in (self._writers, self._start):
            writers.append(self._engine.continuing_writer(class_name, key, handles, first))
            writers[-1].values[:] = self._engine.get_all_floats(handles, class_name, key)

    def allocate(self, n: int) -> list[FloatArray]:
        """Return an array for each bulk write of n circuits, shape (n, n_elements), to be filled and then written."""
        return [np.zeros((n, len(writer.values))) for writer in self._writers]

    def fill_injections(self, values: Sequence[FloatArray], p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Take the devices' setpoints, positive into the grid [kW], [kvar], each shape (n, n_devices)."""
        for devices, scale, i in self._groups:
            p_kw.take(devices, 1, values[i], "clip")
            if scale is not None:
                np.multiply(values[i], scale, out=values[i])
            q_kvar.take(devices, 1, values[i + 1], "clip")

    def write(self, values: Sequence[FloatArray]) -> None:
        """Write one circuit's row of each array, in the order of :meth:`allocate`."""
        self._write_part(0, len(self._writers), values)

    @property
    def writers(self) -> list[BulkWriter]:
        """The bulk writes: demand, two where there are loads, then two for each class of devices, then others."""
        return self._writers

    def write_demand(self, kw: FloatArray, kvar: FloatArray) -> None:
        """Write what every load asks for [kW], [kvar], each shape (n_loads,)."""
        self._write_part(0, self._n_demand, (kw, kvar))

    def write_injections(self, p_kw: FloatArray, q_kvar: FloatArray) -> None:
        """Write the devices' setpoints, positive into the grid [kW], [kvar], each shape (n_devices,)."""
        for devices, scale, i in self._groups:
            p_set = p_kw[devices] if scale is None else p_kw[devices] * scale
            self._write_part(i, i + 2, (p_set, q_kvar[devices]))

    def _write_part(self, first: int, last: int, values: Sequence[FloatArray]) -> None:
        """Write some of the arrays, from the first on up to the last."""
        for writer, row in zip(self._writers[first:last], values, strict=False):
            writer.values[:] = row
            writer.write()

    @property
    def start(self) -> list[FloatArray]:
        """What the elements said as compiled, in the order of :meth:`allocate`."""
        return [writer.values for writer in self._start]

    def write_start(self) -> None:
        """Write what the elements said as compiled."""
        for writer in self._start:
            writer.write()

    def write_again(self) -> None:
        """Write what was written last, but for the start."""
        for writer in self._writers:
            writer.write()
