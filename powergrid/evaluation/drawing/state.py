"""What is drawn: a network, one solved state of it, and who owns what; from a scenario or from a bare feeder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation.baselines import BASELINES
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.simulation import Simulation
from powergrid.scenario import Scenario, load_scenario, scenario_from_config

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class PlacedDevice(NamedTuple):
    """Where a device sits: at a bus, or on a branch that it moves; the other is -1."""

    kind: str
    bus: int = -1
    branch: int = -1


@dataclass(frozen=True)
class GridState:
    """One solved state of a feeder, with what stands on it.

    Attributes:
        network: The feeder.
        v_pu: Node voltages [pu], shape (n_nodes,).
        closed: Whether each branch is closed, shape (n_branches,).
        title: Feeder or scenario, and the time.
        zones: Bus indices by agent.
        devices: Devices by name.
        band: Limits of the voltage [pu].
    """

    network: Network
    v_pu: FloatArray
    closed: BoolArray
    title: str
    zones: Mapping[str, Sequence[int]] = field(default_factory=dict)
    devices: Mapping[str, PlacedDevice] = field(default_factory=dict)
    band: tuple[float, float] = (0.95, 1.05)

    @property
    def energised(self) -> BoolArray:
        """Whether each node has a voltage to speak of, shape (n_nodes,)."""
        # What no source feeds floats near zero, not at it.
        return np.asarray(self.v_pu > 0.1)


def look_at_feeder(reference: str, *, trust: bool = False) -> GridState:
    """Solve a bare feeder as it stands, its own controls free.

    Args:
        reference: Name of a shipped feeder or path of a master file.
        trust: As :func:`~powergrid.grid.feeder.feeder.read_feeder` takes it.

    Raises:
        FeederError: the feeder is not there, does not compile or does not solve.
    """
    feeder = read_feeder(reference, trust=trust)
    circuit = Circuit(feeder)
    try:
        network = circuit.network
        # The engine's first voltage is that of ground.
        v_pu = np.abs(circuit.engine.voltages(len(network.nodes))[1:]) / network.v_base
        return GridState(network, v_pu, closed_branches(circuit), f"{feeder.name}, as the model stands")
    finally:
        circuit.close()


def look_at_scenario(
    env_config: Mapping[str, Any] | Scenario, *, day: int | None = None, step: int | None = None
) -> GridState:
    """Play a day of a scenario without control up to a step.

    Args:
        env_config: As for ``NetworkedGridEnv``, or a scenario.
        day: Day of the profiles, from their first; the first of the scenario's split if not given.
        step: Steps played; half the episode if not given. 0 is the state after reset.

    Raises:
        ScenarioError: the settings, the day or the step are wrong.
        FeederError: the feeder does not compile or solve.
    """
    scenario = load_scenario(env_config) if isinstance(env_config, Scenario) else scenario_from_config(env_config)
    horizon = scenario.episode_length
    steps = horizon // 2 if step is None else step
    if not 0 <= steps <= horizon:
        raise ScenarioError("options", [f"step {steps} is outside the episode; allowed: 0..{horizon}"])
    task = GridTask(scenario)
    try:
        day = int(task.simulation.days[0]) if day is None else day
        task.reset(0, np.random.default_rng([0, max(day, 0)]), {"day": day})
        player = BASELINES["no_control"].make(0)
        player.reset(task, 0)
        for _ in range(steps):
            task.action_buffer()[:] = player.act(task)
            task.step()
        return _read_state(task, day, steps)
    finally:
        task.close()


def _read_state(task: GridTask, day: int, steps: int) -> GridState:
    scenario, simulation = task.scenario, task.simulation
    network, circuit = simulation.network, simulation.circuits[0]
    minutes = max(steps - 1, 0) * scenario.step_minutes  # a step's solve is of the row that it started from
    time = simulation.profiles.start.astype("datetime64[D]") + np.timedelta64(day * 1440 + minutes, "m")
    return GridState(
        network=network,
        v_pu=simulation.snapshot.v_pu[0].copy(),
        closed=closed_branches(circuit),
        title=f"{scenario.name}, {str(time).replace('T', ' ')} (day {day}, step {steps} without control)",
        zones={name: spec.zone.find_buses(network) for name, spec in scenario.agents.items()},
        devices=place_devices(simulation),
        band=(scenario.voltage.v_min_pu, scenario.voltage.v_max_pu),
    )


def closed_branches(circuit: Circuit) -> BoolArray:
    """Return whether each branch is closed now: lines by their switch, capacitors by their steps."""
    network = circuit.network
    closed = network.branches.closed.copy()
    index = network.branch_index
    closed[[index[f"line.{name}"] for name in network.switches]] = circuit.closed.astype(bool)
    closed[[index[f"capacitor.{name}"] for name in network.capacitors]] = circuit.steps_on > 0
    return closed


def place_devices(simulation: Simulation) -> dict[str, PlacedDevice]:
    """Return where each device of a simulation stands, by name."""
    return {name: _place(spec, simulation.circuits[0]) for name, spec in simulation.devices.items()}


def _place(spec: Any, circuit: Circuit) -> PlacedDevice:
    network = circuit.network
    element = getattr(spec, "element", None)
    if not element:
        return PlacedDevice(spec.kind, bus=network.bus_index[spec.bus.lower()])
    class_name, _, name = element.lower().partition(".")
    if class_name == "regcontrol":
        class_name, name = "transformer", network.regulators[network.regulator_controls.index(name)]
    for tapped in (class_name, "autotrans"):
        if f"{tapped}.{name}" in network.branch_index:
            return PlacedDevice(spec.kind, branch=network.branch_index[f"{tapped}.{name}"])
    handle = circuit.engine.handles(class_name)[name]
    nodes = circuit.engine.node_ref(handle)
    return PlacedDevice(spec.kind, bus=int(network.node_bus[nodes[nodes > 0][0] - 1]))
