"""What a model leaves out, or says in a way that the engine, or a step that keeps its matrix, would play otherwise.

Base voltages that are missing are found; what records is left out; all else is said by other means that play it as
meant, or refused. What was added is said in a sentence.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence

from powergrid.errors import EngineError, FeederError, Problem, describe_unknown, list_names
from powergrid.grid.engine import Engine, Handle, classify_refusal
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.reading.statements import cut
from powergrid.grid.feeder.reading.syntax import EDITING, Command
from powergrid.grid.feeder.windings import TAPPED_CLASSES

#: Controls that open what they are told, and what OpenDSS plays as if it were closed from the second solve on.
_OPENERS, _FED_ON = ("SwtControl", "Relay", "Recloser", "Fuse"), ("Load", "Generator", "Isource")
#: What records and takes no part in the power flow. Nobody reads it.
RECORDERS = ("EnergyMeter", "Monitor")
_CONTINUATIONS = ("more", "m", "~")
#: Commands whose first word names what they are about.
_NAMING = ("new", "edit", "select", "enable", "disable", "open", "close")
#: Beside what records, a control that is not played, and with which this engine ends the process at times.
_NOT_RUN = (*RECORDERS, "ESPVLControl")
_OF_A_RECORDER = re.compile(rf"\s*(?:\w+\s+(?:object\s*=\s*)?)?[\"'(\[{{]?\s*({'|'.join(_NOT_RUN)})\.", re.IGNORECASE)
_MAY_ALLOCATE = re.compile(r"\W*a", re.IGNORECASE)
_SETS_BASES = re.compile(r"\bvoltageb\w*[\"')\]}]?\s*=", re.IGNORECASE)
#: Levels that are nearer to each other than this are one: 12.47 kV, and 7.2 kV times the root of 3.
_SAME_LEVEL = 0.01
#: A level that stands in no list is looked for nowhere near one that does: a bus takes the one nearest to its voltage.
_NEAR_LEVEL = 0.1


def about_recorders(commands: Sequence[Command]) -> list[bool]:
    """Return which commands are about meters and monitors, which nobody reads, or an ESPVLControl: they are not run.

    Of these some name what is not there, or one name twice. Energy meters stay where loads are allocated by them.
    """
    looks_so = _OF_A_RECORDER.match
    named = [looks_so(command.text) for command in commands]
    if not any(named):
        return [False] * len(commands)
    allocates = any(_MAY_ALLOCATE.match(command.text) and command.verb == "allocateloads" for command in commands)
    found, of_recorder = list[bool](), False
    for command, name in zip(commands, named, strict=True):
        # Its first word takes longer to read, and of thousands few look as if they were about a recorder.
        if name is not None or of_recorder:
            if command.verb in _NAMING or command.assigns:
                of_recorder = name is not None and not (name[1].lower() == "energymeter" and allocates)
            elif command.verb not in _CONTINUATIONS:
                of_recorder = False
        found.append(of_recorder)
    return found


def complete_circuit(feeder: Feeder, engine: Engine) -> tuple[str, ...]:
    """Complete a compiled circuit by the base voltages that its model leaves out.

    Returns:
        What was added, a sentence each.

    Raises:
        FeederError: it cannot be completed, or cannot be a circuit: with file and line.
    """
    looks = (_find_unsettled, _find_missing_members, _find_unwatchable_buses, _find_frequency_problems)
    if problems := [problem for look in looks for problem in look(feeder, engine)]:
        raise FeederError(str(feeder.master), problems)
    blind = tuple(_leave_out_blind_protection(engine))
    try:
        return (*blind, *_complete_base_voltages(feeder, engine))
    except EngineError as error:
        problem = Problem(classify_refusal(error), "", f"base voltages: {error}")
        raise FeederError(str(feeder.master), [problem]) from None


def _find_unsettled(feeder: Feeder, engine: Engine) -> Iterator[Problem]:
    """Yield the elements that the engine computes otherwise each time."""
    # DSS C-API 0.14.5 starts their power balance from currents that it allocates and never fills.
    for name in engine.handles("VSConverter"):
        where = _place(feeder, f"vsconverter.{name}")
        text = f"VSConverter.{name}: OpenDSS computes it from memory that it never fills, another result each time"
        yield Problem("impossible-element", where, text, "model it as a Generator, or with enabled=no")


def _find_missing_members(feeder: Feeder, engine: Engine) -> Iterator[Problem]:
    """Yield the generators that dispatchers list and that are not there: the first solve would crash."""
    known = engine.handles("Generator")
    for name, dispatcher in engine.handles("GenDispatcher").items():
        for each in engine.get_names(dispatcher, "GenDispatcher", "GenList"):
            if each.lower() not in known:
                where = _place(feeder, f"gendispatcher.{name}")
                text = f"GenDispatcher.{name}: GenList: {describe_unknown('enabled Generator', each, known)}"
                yield Problem("unknown-name", where, text)


def _find_unwatchable_buses(feeder: Feeder, engine: Engine) -> Iterator[Problem]:
    """Yield the buses of inverters' controls that the first solve would crash at, or take memory beyond a list for."""
    known: dict[str, None] = {}
    for name, control in engine.handles("InvControl").items():
        watched = engine.get_names(control, "InvControl", "MonBus")
        known = known or (dict.fromkeys(engine.node_names()) if watched else {})
        wrong = [each for each in watched if not _nodes_of(each) <= known.keys()]
        text = ", ".join(describe_unknown("node", each, known) for each in wrong)
        bases = engine.get_floats(control, "InvControl", "MonBusesVbase")
        if not wrong and (len(watched) != len(bases) or not (bases > 0.0).all()):
            text = f"{len(watched)} buses, and MonBusesVbase has no voltage for each"
        if watched and text:
            text, where = f"InvControl.{name}: MonBus: {text}", _place(feeder, f"invcontrol.{name}")
            yield Problem("bad-value", where, text, "MonBus=[bus.1.2.3] MonBusesVbase=[V]")


def _leave_out_blind_protection(engine: Engine) -> Iterator[str]:
    """Disable what would open an element that the engine feeds on all the same, and yield what was disabled."""
    for class_name in _OPENERS:
        for name, handle in engine.handles(class_name).items():
            owner, moved = engine.get_reference(handle, class_name, "SwitchedObj")
            if owner in _FED_ON:
                engine.disable(handle, class_name)
                yield f"{class_name}.{name} is left out: a {owner} that is open, as {owner}.{moved}, OpenDSS plays on"


def _nodes_of(bus: str) -> set[str]:
    """Return the nodes of ``bus.1.2``, lower case; of a bus without any itself, which is none."""
    name, *numbers = bus.lower().split(".")
    return {f"{name}.{number}" for number in numbers} or {name}


def _place(feeder: Feeder, element: str) -> str:
    """Return ``file:line`` of the first command that names ``class.name``, lower case; empty where none does."""
    return next((command.where for command in feeder.commands if element in command.text.lower()), "")


def _find_frequency_problems(feeder: Feeder, engine: Engine) -> Iterator[Problem]:
    """Yield that no source is of the frequency that the circuit is solved at: then all voltages are 0."""
    if not feeder.settings.keys() & {"defaultbasefrequency", "basefrequency"}:
        return
    solved = float(engine.command("get frequency"))
    classes = ("Vsource", "Isource")
    own = [engine.get_float(h, name, "Frequency") for name in classes for h in engine.handles(name).values()]
    if own and not any(abs(each - solved) < 1e-3 for each in own):
        where = next((c.where for c in reversed(feeder.commands) if "basefreq" in c.text.lower()), "")
        text = f"the circuit is solved at {solved:g} Hz and its source is of {own[0]:g} Hz, so that it gives 0 V"
        yield Problem("bad-value", where, text, "Set DefaultBaseFrequency stands before New Circuit")


def _complete_base_voltages(feeder: Feeder, engine: Engine) -> Iterator[str]:
    """Let CalcVoltageBases find what the model has not let it find, and yield what was done."""
    commands, given = feeder.commands, "voltagebases" in feeder.settings
    finding = (i for i in reversed(range(len(commands))) if commands[i].verb in ("calcvoltagebases", "setkvbase"))
    last = next(finding, -1)  # from the end, where it mostly stands
    later = commands[last + 1 :]
    anew = last < 0 or not given or any(map(_sets_levels, later))
    if feeder.circuit or not (anew or any(c.verb in EDITING or c.assigns for c in later)):
        return
    engine.command("makebuslist")  # what is defined after CalcVoltageBases is no bus yet
    before = {name: kv for name, (kv, _, _) in engine.buses().items()}
    missing = [name for name, kv in before.items() if kv <= 0.0]
    # Without VoltageBases the engine takes seven levels of its own, American ones.
    written = [float(kv) for kv in re.findall(r"[\d.eE+-]+", engine.command("get voltagebases"))] if given else []
    inferred = _infer_levels(engine, written)
    if not (anew or missing) or not (written or inferred):
        return
    engine.command(f"set voltagebases=[{', '.join(map(repr, sorted([*written, *inferred], reverse=True)))}]")
    engine.command("calcvoltagebases")
    if not anew or any(command.verb == "setkvbase" for command in commands):
        after = engine.buses()
        for name, kv in before.items():  # what the model found or set stays
            if kv > 0.0 and after[name][0] != kv:
                engine.command(f'setkvbase bus="{name}" kvln={kv!r}')
    why = f"{list_names(missing)} defined after CalcVoltageBases"
    if anew:
        why = "no CalcVoltageBases after the last VoltageBases" if given else "no VoltageBases"
    levels = [kv * 3**0.5 for kv, _, _ in engine.buses().values()]
    used = [
        kv for kv in sorted(inferred, reverse=True) if any(abs(kv / level - 1.0) < 1e-6 for level in levels if level)
    ]
    from_model = f", {', '.join(f'{kv:.4g}' for kv in used)} kV from sources and transformers" if used else ""
    yield f"{why}: base voltages found anew{from_model}"


def _sets_levels(command: Command) -> bool:
    return command.verb == "set" and _SETS_BASES.search(command.text) is not None


def _infer_levels(engine: Engine, known: Sequence[float]) -> list[float]:
    """Return the line-to-line voltages [kV] that sources and windings are for and that no known one is near to."""
    several, single = list[float](), list[float]()
    for class_name, key in (("Vsource", "BasekV"), *((each, "kVs") for each in TAPPED_CLASSES)):
        for handle in engine.handles(class_name).values():
            own = engine.get_floats(handle, class_name, key) if key == "kVs" else None
            kvs = [engine.get_float(handle, class_name, key)] if own is None else own.tolist()
            (single if engine.phases(handle) == 1 else several).extend(kvs)
    found: list[float] = []
    # What has one phase is for a voltage to neutral or between two phases, which its kV does not tell.
    either = [(kv * factor, _NEAR_LEVEL) for kv in single for factor in (3**0.5, 1.0)]
    for kv, margin in [*((kv, _SAME_LEVEL) for kv in several), *either]:
        near_known = any(abs(kv / level - 1.0) < _NEAR_LEVEL for level in known)
        if kv > 0.0 and not near_known and not any(abs(kv / level - 1.0) < margin for level in found):
            found.append(kv)
    return found


# -- what is played by other means than written

#: Classes of elements whose power is written or given by a shape.
_POWER_CLASSES = ("Load", "Generator", "Storage", "PVSystem")
#: The model of a class that means a program of the user's own, which is never loaded.
_USER_MODELS = {"Generator": 6, "PVSystem": 3, "Storage": 3}


def find_user_models(engine: Engine) -> list[str]:
    """Name the elements ``class.name``, lower case, of models that the user would have to write: none are loaded."""
    return [
        f"{class_name}.{name}".lower()
        for class_name, model in _USER_MODELS.items()
        for name, handle in engine.handles(class_name).items()
        if engine.get_int(handle, class_name, "Model") == model
    ]


def refuse_user_models(feeder: Feeder, engine: Engine) -> None:
    """Refuse a compiled circuit with elements that nothing can compute.

    Raises:
        FeederError: some are of a user's own model; each with file and line.
    """
    found = find_user_models(engine)
    if found:
        defined = {name: command.where for command in reversed(feeder.commands) if (name := _defined_by(command))}
        problems = [Problem("no-user-model", defined.get(name, ""), *say_user_model(name)) for name in found]
        raise FeederError(str(feeder.master), problems)


def say_user_model(element: str) -> tuple[str, str]:
    """Say what is wrong with an element of a user's own model, and the remedy."""
    own = _USER_MODELS[next(name for name in _USER_MODELS if name.lower() == element.partition(".")[0])]
    return f"{element} has Model={own}, a program of the user's own, and none is ever loaded", "give it Model=1"


def _defined_by(command: Command) -> str:
    """Return the ``class.name`` that a command defines, lower case, empty where it defines none."""
    first = next(iter(cut(command.text)[1:]), None) if command.verb == "new" else None
    return "" if first is None else first.value.strip().lower()


def takes_admittances(engine: Engine) -> bool:
    """Whether a feeder asks for ``LoadModel=Admittance``."""
    return engine.command("get loadmodel").lower().startswith("a")


def spell_out_admittances(engine: Engine) -> None:
    """Say ``LoadModel=Admittance`` by the model of each element: else powers are in the matrix, which steps keep."""
    if takes_admittances(engine):
        for class_name in _POWER_CLASSES:
            if engine.handles(class_name):
                engine.command(f"batchedit {class_name}..* model=2")  # constant impedance in all four
        engine.command("set loadmodel=powerflow")


def take_out_opened(feeder: Feeder, engine: Engine) -> None:
    """Say by properties what ``Open`` leaves of loads and generators, which the engine plays otherwise than is meant.

    Of an open load it reads memory that was never written; open in part, it is a constant impedance. An open generator
    feeds on in DSS C-API, in EPRI's engine it is off.

    Raises:
        FeederError: a generator is open in part, or a load at its neutral: with file and line.
    """
    problems = list[Problem]()
    for class_name in ("Load", "Generator"):
        known = engine.handles(class_name)
        opened = engine.open_among(list(known.values()))
        for name, element in itertools.compress(known.items(), opened):
            n_phases = engine.phases(element)
            is_open = {conductor - 1 for _, conductor in engine.open_places(element, neutrals=True)}
            left = [i for i in range(n_phases) if i not in is_open]
            in_delta = class_name == "Load" and engine.get_text(element, "Load", "Conn").lower().startswith(("d", "ll"))
            if not left or n_phases == 1:  # of one phase, be it open at either end
                engine.disable(element, class_name)
            elif class_name == "Generator" or (not in_delta and len(left) == n_phases):
                where, full = _place_opening(feeder, f"{class_name}.{name}".lower()), f"{class_name}.{name}"
                what = "open in part" if len(left) < n_phases else "open at its neutral"
                remedy = f"write what is left of it as a {class_name.lower()}"
                problems.append(Problem("impossible-element", where, f"{full} is {what}", remedy))
            elif in_delta:
                _keep_leg(engine, element, is_open)
            else:
                _keep_phases(engine, element, left)
    if problems:
        raise FeederError(str(feeder.master), problems)


def _place_opening(feeder: Feeder, element: str) -> str:
    """Return ``file:line`` of the last command that opens ``class.name``, lower case, else of the first about it."""
    opening = [c.where for c in feeder.commands if c.verb == "open" and element in c.text.lower()]
    return opening[-1] if opening else _place(feeder, element)


def _keep_phases(engine: Engine, load: Handle, left: Sequence[int]) -> None:
    """Make a load in star one on some of its phases, given by their places."""
    n_phases = engine.phases(load)
    engine.set_open(load, is_open=False)
    bus, *nodes = engine.get_text(load, "Load", "Bus1").split(".")
    numbers = nodes or [str(i + 1) for i in range(n_phases)]
    ends = ".".join([bus, *(numbers[i] for i in left), *numbers[n_phases:]])
    share, kv = len(left) / n_phases, engine.get_float(load, "Load", "kV")
    kw, kvar = (share * engine.get_float(load, "Load", key) for key in ("kW", "kvar"))
    kv *= 3.0**-0.5 if len(left) == 1 < n_phases else 1.0
    engine.edit(load, f'phases={len(left)} bus1="{ends}" kv={kv!r} kw={kw!r} kvar={kvar!r} model=2')


def _keep_leg(engine: Engine, load: Handle, is_open: Collection[int]) -> None:
    """Make a load in delta one between the two conductors that are not open; where only one is left, take it out.

    What lies between an open conductor and others is in series: of three legs one is left, and half of one beside it.
    """
    n_phases = engine.phases(load)
    left = [i for i in range(3) if i not in is_open]
    engine.set_open(load, is_open=False)
    if len(left) < 2:
        engine.disable(load, "Load")
        return
    bus, *nodes = engine.get_text(load, "Load", "Bus1").split(".")
    numbers = nodes or ["1", "2", "3"]
    ends = ".".join([bus, *(numbers[i] for i in left)])
    share = 0.25 if n_phases == 2 and 1 in is_open else 0.5  # of two legs one is left, or both in series
    kw, kvar = (share * engine.get_float(load, "Load", key) for key in ("kW", "kvar"))
    kv = engine.get_float(load, "Load", "kV")
    engine.edit(load, f'phases=1 conn=delta bus1="{ends}" kv={kv!r} kw={kw!r} kvar={kvar!r} model=2')
