"""Price one environment step in engine floors, and one reset in steps, both from one run.

The floor is what no environment can avoid: write every demand and setpoint in bulk, solve, read voltages, loadings
and losses, by calls on the engine alone. It plays the very numbers that the environment's step played.

Usage: python benchmarks/step.py [SCENARIO ...] [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from powergrid.envs import NetworkedGridEnv
from powergrid.envs.task import GridTask
from powergrid.grid.circuit import Circuit
from powergrid.grid.engine import engine_version
from powergrid.grid.snapshot import Snapshot

STEPS = 96


class Floor:
    """Replay a recorded day on a circuit of its own with engine calls alone."""

    def __init__(self, task: GridTask, demand: Any, setpoints: Any) -> None:
        simulation = task.simulation
        self.circuit = circuit = Circuit(simulation.feeder, simulation.circuits[0].injections)
        circuit.set_ratings(simulation.options.norm_amps)
        circuit.start_from(simulation.options.taps, simulation.options.steps_on)
        self._demand, self._setpoints = demand, setpoints
        self._snapshot = Snapshot.allocate(1, circuit.network, len(circuit.injections))
        direct = circuit.engine.direct
        self._all_loadings = direct.PDElements.AllPctNorm
        self._losses = direct.Circuit.Losses

    def play(self, read: Callable[[], None]) -> float:
        """Play the day and give the seconds it took."""
        circuit = self.circuit
        circuit.reset()
        start = time.perf_counter()
        for (kw, kvar), (p_kw, q_kvar) in zip(self._demand, self._setpoints, strict=True):
            circuit.write_demand(kw, kvar)
            circuit.write_injections(p_kw, q_kvar)
            circuit.solve()
            read()
        return time.perf_counter() - start

    def read_by_matrix(self) -> None:
        """Read everything through the one sparse product."""
        self.circuit.read(self._snapshot, 0)

    def read_by_engine(self) -> None:
        """Read loadings and losses through the engine's own calls; voltages are there after the solve."""
        self._all_loadings()
        self._losses()


def record(env: NetworkedGridEnv, actions: list[dict[str, Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    """Play a day once and keep demands, setpoints and voltages of every step."""
    simulation = env.task.simulation
    demand, setpoints, voltages = [], [], []
    load_of_device = simulation.circuits[0].load_of_device
    bound = np.flatnonzero(load_of_device >= 0)
    bound_loads = load_of_device[bound]
    env.reset(options={"day": 200})
    for action in actions:
        row = int(simulation.step_index[0])
        env.step(action)
        kw, kvar = simulation.day_load_kw[0, row].copy(), simulation.day_load_kvar[0, row].copy()
        kw[bound_loads] = -simulation.p_kw[0, bound]  # what these draw is a device's to say
        kvar[bound_loads] = -simulation.q_kvar[0, bound]
        demand.append((kw, kvar))
        setpoints.append((simulation.p_kw[0].copy(), simulation.q_kvar[0].copy()))
        voltages.append(simulation.snapshot.v_pu[0].copy())
    return demand, setpoints, voltages


def play_env(env: NetworkedGridEnv, actions: list[dict[str, Any]]) -> float:
    """Play a day through the environment and give the seconds its steps took."""
    env.reset(options={"day": 200})
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return time.perf_counter() - start


def play_resets(env: NetworkedGridEnv, n: int) -> float:
    """Reset n times to drawn days and give the seconds it took."""
    start = time.perf_counter()
    for _ in range(n):
        env.reset()
    return time.perf_counter() - start


def measure(name: str, rounds: int) -> str:
    """Measure one scenario and give its row."""
    env = NetworkedGridEnv({"env_name": name})
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = [
        {agent: rng.uniform(-1.0, 1.0, space.shape).astype(np.float32) for agent, space in env.action_spaces.items()}
        for _ in range(STEPS)
    ]
    demand, setpoints, voltages = record(env, actions)
    floor = Floor(env.task, demand, setpoints)
    floor.play(floor.read_by_matrix)
    difference = float(np.abs(floor._snapshot.v_pu[0] - voltages[-1]).max())
    times: dict[str, list[float]] = {"env": [], "matrix": [], "engine": [], "reset": []}
    gc.collect()
    for _ in range(rounds):  # interleaved, so that a drifting machine meets all alike
        times["env"].append(play_env(env, actions) / STEPS)
        times["matrix"].append(floor.play(floor.read_by_matrix) / STEPS)
        times["engine"].append(floor.play(floor.read_by_engine) / STEPS)
        times["reset"].append(play_resets(env, STEPS // 4) / (STEPS // 4))
    best = [min(pair) for pair in zip(times["matrix"], times["engine"], strict=True)]
    ratio = statistics.median(e / f for e, f in zip(times["env"], best, strict=True))
    reset = statistics.median(r / e for r, e in zip(times["reset"], times["env"], strict=True))
    network = env.task.simulation.network
    row = (
        f"{name:12s} {len(network.nodes):6d} {len(network.loads.names):6d} {statistics.median(best) * 1e6:9.1f} "
        f"{statistics.median(times['env']) * 1e6:9.1f} {ratio:12.2f} {reset:12.2f} {difference:10.1e}"
    )
    env.close()
    return row


def main() -> None:
    """Measure scenarios and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=["ieee13_mg", "ieee34_mg", "ieee123_mg"])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {engine_version()}")
    print(f"{'scenario':12s} {'nodes':>6s} {'loads':>6s} {'floor us':>9s} {'step us':>9s} ", end="")
    print(f"{'step/floor':>12s} {'reset/step':>12s} {'|dV| pu':>10s}")
    for name in args.scenarios:
        print(measure(name, args.rounds), flush=True)


if __name__ == "__main__":
    main()
