"""What a compiled circuit says that the engine, or a step that keeps its matrix, would play as something else.

Each is said by other means that play it as meant, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from powergrid.errors import EngineError, FeederError, Problem
from powergrid.grid.engine import Engine, Handle
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.statements import cut
from powergrid.grid.feeder.syntax import Command

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


def take_out_opened(engine: Engine) -> None:
    """Say by properties what ``Open`` leaves of loads and generators, which the engine plays otherwise than is meant.

    Of an open load it reads memory that was never written; open in part, it is a constant impedance. An open generator
    feeds on in DSS C-API, in EPRI's engine it is off.

    Raises:
        EngineError: a load in delta, or a generator, is open in part.
    """
    for class_name in ("Load", "Generator"):
        for name, element in engine.handles(class_name).items():
            if not engine.any_open(element):
                continue
            n_phases, is_open = engine.phases(element), {phase for _, phase in engine.open_places(element)}
            left = [i for i in range(n_phases) if i + 1 not in is_open]
            if not left:
                engine.disable(element, class_name)
            elif class_name == "Generator":
                raise EngineError(f"Generator.{name} is open in part; write what is left of it as a generator")
            else:
                _keep_phases(engine, name, element, left)


def _keep_phases(engine: Engine, name: str, load: Handle, left: Sequence[int]) -> None:
    """Make a load one on some of its phases, given by their places."""
    n_phases = engine.phases(load)
    if engine.get_text(load, "Load", "Conn").lower().startswith(("d", "ll")):
        raise EngineError(f"Load.{name} is in delta and open in part; write what is left of it as a load")
    engine.set_open(load, is_open=False)
    bus, *nodes = engine.get_text(load, "Load", "Bus1").split(".")
    numbers = nodes or [str(i + 1) for i in range(n_phases)]
    ends = ".".join([bus, *(numbers[i] for i in left), *numbers[n_phases:]])
    share, kv = len(left) / n_phases, engine.get_float(load, "Load", "kV")
    kw, kvar = (share * engine.get_float(load, "Load", key) for key in ("kW", "kvar"))
    kv *= 3.0**-0.5 if len(left) == 1 < n_phases else 1.0
    engine.edit(load, f'phases={len(left)} bus1="{ends}" kv={kv!r} kw={kw!r} kvar={kvar!r} model=2')
