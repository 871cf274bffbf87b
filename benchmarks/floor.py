"""Price the engine alone, part by part: what no environment around it can avoid in a step.

A step of the floor writes every demand and setpoint in bulk, solves, and reads voltages, loadings and losses, by calls
on the engine alone. It plays the very numbers that a step of the environment played.

Usage: python benchmarks/floor.py [SCENARIO ...] [--rounds N]
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import machine_line, make_parser, parse, print_table
from powergrid.envs import NetworkedGridEnv
from powergrid.envs.core import GridTask
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.snapshot import Snapshot
from powergrid.grid.engine.library import ffi, lib

MOST_STEPS = 96
PARTS = ("write", "solve", "read")
COLUMNS = (("nodes", "6d"), ("loads", "6d"), ("write us", "9.1f"), ("solve us", "9.1f"), ("engine reads", "12.1f"),
           ("matrix reads", "12.1f"), ("floor us", "9.1f"), ("steps/s", "9.0f"))  # fmt: skip


class Day(NamedTuple):
    """A day as it was played, step by step: kW and kvar of loads and of devices, where switchgear stood, voltages."""

    demand: list[Any]
    setpoints: list[Any]
    positions: list[Any]
    voltages: list[Any]


class Floor:
    """Replay a recorded day on a circuit of its own with engine calls alone.

    Args:
        task: The task whose day it is.
        day: What was recorded of it.
        tolerance: Of the power flow; the scenario's if unset [pu].

    Raises:
        SystemExit: the floor cannot play what the scenario plays.

    Attributes:
        steps: Demand, setpoints and positions of switchgear of every step.
        part_s: Seconds that each part of each step of the last :meth:`play` took, shape (n_steps, 3).
    """

    def __init__(self, task: GridTask, day: Day, *, tolerance: float | None = None) -> None:
        simulation = task.simulation
        if simulation.islands is not None or simulation.circuits[0].controls.controls:
            # 0.1.0 compared two networks on ieee34_ieee13: the floor knew no forming source and no shed load
            what = "switches, microgrids, events or controls of the feeder's own"
            raise SystemExit(f"{task.scenario.name}: the floor plays a network as it is written, none with {what}")
        self.circuit = circuit = Circuit(
            simulation.feeder,
            simulation.circuits[0].injections,
            tolerance=tolerance or simulation.options.tolerance,
            max_iterations=simulation.options.max_iterations,
        )
        circuit.set_ratings(simulation.options.norm_amps)
        circuit.start_from(simulation.options.taps, simulation.options.steps_on)
        self.steps = list(zip(day.demand, day.setpoints, day.positions, strict=True))
        self.part_s = np.zeros((len(self.steps), len(PARTS)))
        self._snapshot = Snapshot.allocate(1, circuit.network, len(circuit.injections))
        # Not through OpenDSSDirect, for which the engine would build its matrix whole whenever a tap moves.
        context, to = circuit.engine._context, [(ffi.new("double**"), ffi.new("int32_t[4]")) for _ in range(2)]
        self._all_loadings = functools.partial(lib.ctx_PDElements_Get_AllPctNorm, context, *to[0], 0)
        self._losses = functools.partial(lib.ctx_Circuit_Get_Losses, context, *to[1])

    def play(self, read: Callable[[], None]) -> float:
        """Play the day and give the seconds it took."""
        circuit, clock = self.circuit, time.perf_counter
        circuit.reset()
        start = clock()
        for step, parts in zip(self.steps, self.part_s, strict=True):
            at = clock()
            self.write(step)
            written = clock()
            circuit.solve()
            solved = clock()
            read()
            parts[:] = written - at, solved - written, clock() - solved
        return clock() - start

    def write(self, step: tuple[Any, Any, Any]) -> None:
        """Write demand, setpoints and positions of a step."""
        (kw, kvar), (p_kw, q_kvar), (taps, steps_on, closed) = step
        self.circuit.write_demand(kw, kvar)
        self.circuit.write_injections(p_kw, q_kvar)
        self.circuit.switchgear.write_taps(taps)
        self.circuit.switchgear.write_steps(steps_on)
        self.circuit.switchgear.write_closed(closed)

    def read_by_matrix(self) -> None:
        """Read everything through the one sparse product."""
        self.circuit.read(self._snapshot, 0)

    def read_by_engine(self) -> None:
        """Read loadings and losses through the engine's own calls; voltages are there after the solve."""
        self._all_loadings()
        self._losses()

    @property
    def v_pu(self) -> Any:
        """Voltages of the last step that :meth:`read_by_matrix` read [pu]."""
        return self._snapshot.v_pu[0]


def draw_actions(env: NetworkedGridEnv) -> list[dict[str, Any]]:
    """Draw random actions for a day, or for an episode that is shorter."""
    for i, space in enumerate(env.action_spaces.values()):
        space.seed(i)
    n = min(MOST_STEPS, env.task.simulation.options.horizon_steps)
    return [{agent: space.sample() for agent, space in env.action_spaces.items()} for _ in range(n)]


def record_day(env: NetworkedGridEnv, actions: list[dict[str, Any]]) -> Day:
    """Play a day once and keep what was asked and what came of it."""
    simulation = env.task.simulation
    day = Day([], [], [], [])
    circuit = simulation.circuits[0]
    bound = np.flatnonzero(circuit.load_of_device >= 0)
    bound_loads = circuit.load_of_device[bound]
    env.reset(options={"day": 200})
    for action in actions:
        row = int(simulation.step_index[0])
        env.step(action)
        kw, kvar = simulation.day_load_kw[0, row].copy(), simulation.day_load_kvar[0, row].copy()
        kw[bound_loads] = -simulation.setpoints[0, 0, bound]  # what these draw is a device's to say
        kvar[bound_loads] = -simulation.setpoints[1, 0, bound]
        day.demand.append((kw, kvar))
        day.setpoints.append((simulation.setpoints[0, 0].copy(), simulation.setpoints[1, 0].copy()))
        day.positions.append((circuit.taps.copy(), circuit.steps_on.copy(), circuit.closed.copy()))
        day.voltages.append(simulation.snapshot.v_pu[0].copy())
    return day


def start_day(name: str) -> tuple[NetworkedGridEnv, list[dict[str, Any]], Day]:
    """Return an environment of a scenario, random actions of a day, and the day as it was played by them."""
    env = NetworkedGridEnv({"env_name": name})
    env.reset(seed=0)
    actions = draw_actions(env)
    return env, actions, record_day(env, actions)


def measure(name: str, rounds: int) -> tuple[float, ...]:
    """Measure one scenario and give its cells: the least time of each part of each step over the rounds, their mean."""
    env, _, day = start_day(name)
    floor = Floor(env.task, day)
    by_engine, by_matrix = np.full_like(floor.part_s, np.inf), np.full_like(floor.part_s, np.inf)
    for _ in range(rounds):
        floor.play(floor.read_by_engine)
        np.minimum(by_engine, floor.part_s, out=by_engine)
        floor.play(floor.read_by_matrix)
        np.minimum(by_matrix, floor.part_s, out=by_matrix)
    write, solve, read_engine = by_engine.mean(axis=0) * 1e6
    read_matrix = by_matrix.mean(axis=0)[2] * 1e6
    total = write + solve + min(read_engine, read_matrix)
    network = env.task.simulation.network
    env.close()
    return len(network.nodes), len(network.loads.names), write, solve, read_engine, read_matrix, total, 1e6 / total


def main() -> None:
    """Measure scenarios and print the table."""
    args = parse(make_parser(__doc__, ["ieee13_mg", "ieee34_mg", "ieee123_mg"], rounds=30))
    print(machine_line())
    print_table(args.scenarios, lambda name: measure(name, args.rounds), *COLUMNS)


if __name__ == "__main__":
    main()
