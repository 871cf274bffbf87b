"""Price a telemetry block in parts of a step of the same environments without one: readings, setpoints, both, all.

Either plays the same day and its devices go by the same setpoints, step and observation, in turn; of each step counts
the least time of all rounds by the processor's clock, so that what else the machine does weighs little. Where memory
lies moves an environment's step by a hundredth, so that there are some of each.

Usage: python benchmarks/telemetry.py [SCENARIO ...] [--envs N ...] [--rounds N] [--copies N]
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks.common import machine_line, make_parser, parse, print_table
from powergrid.envs.core import GridTask
from powergrid.scenario import load_scenario

FloatArray = npt.NDArray[np.float64]

LATE = {"delay_minutes": 60, "loss": 0.1}
READINGS: dict[str, Any] = {"readings": {"all": {**LATE, "accuracy": "class_0_5"}}}
SETPOINTS: dict[str, Any] = {"setpoints": {"all": LATE}}


def blocks(name: str) -> list[dict[str, Any]]:
    """Return the blocks of a scenario; the last has everything that can be said but ``hops``."""
    scenario = load_scenario(name)
    buses = [bus for device in scenario.devices.values() if (bus := getattr(device, "bus", None))]
    agents, devices = list(scenario.agents), [f"{device}.*" for device in scenario.devices]
    field = {"channels": devices, **LATE, "on_loss": "both", "age": True}
    meters = {"channels": ["*v_*_pu"], "every_minutes": 60, "accuracy": "class_1_0", "bias": 0.01, "resolution": 0.001}
    rest = {"delay_spread_minutes": 60, "loss": 0.1, "on_loss": "mask"}
    everything = {
        "metered_buses": list(dict.fromkeys(buses)),
        "readings": {"field": field, "meters": meters, "rest": rest},
        "messages": {"talk": {"sender": agents[0], "channels": [f"{agents[0]}.v_*"], "loss": 0.1, "bits": 8}},
        "setpoints": {"all": {**LATE, "fallback": "neutral"}},
    }
    return [READINGS, SETPOINTS, READINGS | SETPOINTS, everything]


class Day:
    """A task and a day of actions for it, drawn where not given."""

    def __init__(self, name: str, telemetry: Any, n_envs: int, actions: FloatArray | None = None) -> None:
        self.task = task = GridTask(load_scenario(name, {"telemetry": telemetry}), n_envs)
        table, drawn = task.simulation.actions, np.random.default_rng(0)
        sizes = np.array([action.n if action.discrete else 0 for action in table])
        if actions is None:
            shares = drawn.random((task.simulation.options.horizon_steps, n_envs, len(table)))
            actions = np.where(sizes > 0, np.floor(shares * sizes), 2.0 * shares - 1.0)
        self._actions = actions
        self.step_s = np.full(len(actions), np.inf)

    def play(self) -> None:
        """Play it, and keep the least time of each step."""
        task, clock = self.task, time.thread_time
        task.reset_all(range(task.n_envs), [np.random.default_rng(env) for env in range(task.n_envs)], {"day": 200})
        for step, action in enumerate(self._actions):
            start = clock()
            task.action_buffer()[:] = action
            task.step()
            task.observe()
            self.step_s[step] = min(self.step_s[step], clock() - start)

    def record(self) -> FloatArray:
        """Play it, and return what devices went by, which the same without telemetry is to be asked."""
        followed, step = list[FloatArray](), self.task.simulation.step

        def keep(action: FloatArray) -> None:
            followed.append(action.copy())
            step(action)

        with mock.patch.object(self.task.simulation, "step", keep):
            self.play()
        return np.array(followed)


def measure(name: str, n_envs: int, rounds: int, copies: int) -> Sequence[float]:
    """Measure one scenario and give the cells of its row."""
    all_blocks = blocks(name)
    pairs = [
        (day := Day(name, block, n_envs), Day(name, None, n_envs, day.record()))
        for _ in range(copies)
        for block in all_blocks
    ]
    gc.collect()
    for _ in range(rounds):
        for pair in pairs:
            for day in pair:
                day.play()
    steps = np.array([[day.step_s.mean() for day in pair] for pair in pairs])
    times = steps.reshape(copies, len(all_blocks), 2).mean(axis=0).tolist()
    for pair in pairs:
        for day in pair:
            day.task.close()
    return n_envs, times[0][1] * 1e6, *(100.0 * (told / plain - 1.0) for told, plain in times)


def main() -> None:
    """Measure scenarios and print the table."""
    parser = make_parser(__doc__, ["ieee13_mg", "ieee34_mg", "ieee123_mg"], rounds=30)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 8, 16])
    args = parse(parser)
    print(machine_line())
    size = args.rounds, 1 if args.quick else args.copies
    heads = [(f"{each} %", "10.1f") for each in ("readings", "setpoints", "both", "all")]
    for n_envs in args.envs[:1] if args.quick else args.envs:
        print_table(args.scenarios, lambda name, n=n_envs: measure(name, n, *size),  # type: ignore[misc]
                    ("envs", "5d"), ("step us", "9.1f"), *heads)  # fmt: skip


if __name__ == "__main__":
    main()
