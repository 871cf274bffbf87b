"""From a feeder's files to an engine that holds it with devices placed, solved as it stands and described; no step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from powergrid.errors import EngineError, FeederError, Problem
from powergrid.grid.circuit.injections import Injection, place_injections
from powergrid.grid.circuit.out_of_service import Fault, place_faults, reset_protection
from powergrid.grid.circuit.own.controls import (
    ActingControls,
    ControlPlan,
    find_controls,
    free_power,
    read_said,
    select_controls,
)
from powergrid.grid.circuit.switchgear import read_positions
from powergrid.grid.engine import Engine, Handle, IntArray
from powergrid.grid.feeder.compile import (
    SOURCE_CLASSES,
    compile_feeder,
    known_network,
    prepare_circuit,
    read_base_voltages,
    read_handles,
    read_network,
)
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.preparation import refuse_user_models
from powergrid.grid.feeder.timing import read_sources, release_dispatch
from powergrid.grid.feeder.windings import Handles


@dataclass(frozen=True)
class Compiled:
    """A feeder in an engine, as every episode of it starts.

    Attributes:
        engine: Holds it.
        handles: Handle of each element by class and name.
        network: The description.
        controls: The feeder's own controls, as far as they act.
        targets: Class and element of each device.
        ratings: What the model says of the element of each device that is one, by the device's name and key.
        storage: 1 where a battery discharges as compiled, -1 where it charges, 0 where it idles.
        positions: Where regulators and capacitors stood before any control acted, where it matters.
        fault_names: The engine's names of the short circuits that may strike.
    """

    engine: Engine
    handles: Handles
    network: Network
    controls: ActingControls
    targets: list[tuple[str, Handle]]
    ratings: dict[str, dict[str, float]]
    storage: IntArray
    positions: dict[str, npt.NDArray[Any]]
    fault_names: Sequence[str]


def compile_circuit(
    feeder: Feeder,
    injections: Sequence[Injection],
    network: Network | None,
    plan: ControlPlan,
    faults: Sequence[Fault],
    tolerance: float,
    max_iterations: int,
) -> Compiled:
    """Compile a feeder, place devices and short circuits in it, and solve it as it stands.

    Args:
        feeder: The feeder.
        injections: Where the devices' power goes.
        network: Its description, needed where there are any.
        plan: Which elements the feeder's own controls move.
        faults: Short circuits that may strike.
        tolerance: Convergence tolerance of the power flow [pu].
        max_iterations: Limit of power-flow and control iterations.

    Raises:
        FeederError: As of :class:`powergrid.grid.circuit.circuit.Circuit`.
    """
    engine = Engine()
    notes = compile_feeder(feeder, engine)
    refuse_user_models(feeder, engine)
    folded = prepare_circuit(feeder, engine, tolerance=tolerance, max_iterations=max_iterations)
    handles = read_handles(engine)
    if not any(handles[name] for name in SOURCE_CLASSES):
        text = "no enabled source: nothing feeds the circuit"
        raise FeederError(str(feeder.master), [Problem("no-source", "", text)])
    storage = engine.get_all_ints(list(handles["Storage"].values()), "Storage", "State")
    sources, bus_kv = read_sources(engine, handles, folded), dict[str, float]()
    if known_network(feeder) is None or not all(injection.element for injection in injections):
        bus_kv = read_base_voltages(feeder, engine)  # of a feeder that is known each bus has one
    controls = find_controls(engine, off=feeder.controls_off)
    targets, ratings = list[tuple[str, Handle]](), dict[str, dict[str, float]]()
    if network is not None:
        targets, ratings = place_injections(feeder, engine, injections, handles, bus_kv, network)
    said = read_said(engine, controls)
    positions = read_positions(engine, handles) if said else {}
    free_power(engine, controls, plan)
    fault_names = place_faults(engine, faults)
    _solve_start(feeder, engine, handles)
    release_dispatch(engine, handles["Generator"], sources.dispatch)
    selected = select_controls(engine, controls, plan)
    acting = ActingControls(engine, selected, max_iterations, off=feeder.controls_off, said=said)
    described = read_network(feeder, engine, handles, sources, controls, notes)
    return Compiled(engine, handles, described, acting, targets, ratings, storage, positions, fault_names)


def _solve_start(feeder: Feeder, engine: Engine, handles: Handles) -> None:
    """Solve the feeder as it stands, its own controls free unless it holds them: the start of every episode."""
    free = not feeder.controls_off
    try:
        solved = any(engine.solve(controls=free) for _ in range(3)) or engine.solve()
        # What nominal demand trips, which no hour need have, is whole again where OpenDSS begins to play.
        if reset_protection(engine, handles):
            solved = engine.solve()
        if solved:
            return
    except EngineError as error:
        problem = Problem("no-convergence", "", f"does not solve: {error}")
        raise FeederError(str(feeder.master), [problem]) from None
    problem = Problem("no-convergence", "", "the power flow does not converge at nominal demand")
    raise FeederError(str(feeder.master), [problem])
