"""Scenarios and ways to play them that the tests of environments share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from powergrid.envs.core import GridTask
from powergrid.grid.engine import PowerReader
from powergrid.grid.feeder.feeder import find_feeder
from powergrid.grid.simulation import Simulation

#: Where the devices of :func:`every_kind` sit, feeder by feeder.
PLACES: dict[str, dict[str, str]] = {
    "ieee13": {
        "generator": "671", "storage": "680", "pv": "675", "car": "634", "load": "671", "kv": "4.16",
        "capacitor": "cap2", "regulator": "RegControl.reg1", "switch": "671684",
    },
    "ieee123": {
        "generator": "67", "storage": "57", "pv": "97", "car": "49", "load": "s47", "kv": "4.16",
        "capacitor": "c83", "regulator": "Transformer.reg4a", "switch": "sw5",
    },
}  # fmt: skip


def every_kind(feeder: str, folder: Path) -> dict[str, Any]:
    """Return a scenario with all eight kinds of devices; generator, storage and PV are elements of the feeder."""
    at = PLACES[feeder]
    master = folder / f"{feeder}_more.dss"
    master.write_text(
        f"""Redirect "{find_feeder(feeder)}"
New Generator.own_gen Bus1={at["generator"]} Phases=3 kV={at["kv"]} kW=500 kVA=600
New Storage.own_ess Bus1={at["storage"]} Phases=3 kV={at["kv"]} kWRated=250 kWhRated=1000 kVA=300
New PVSystem.own_pv Bus1={at["pv"]} Phases=3 kV={at["kv"]} Pmpp=400 kVA=440
"""
    )
    zones = {"ieee13": ("671", ["632", "633", "634", "645", "646"]), "ieee123": ("67", ["47", "48", "49", "50", "51"])}
    downstream, buses = zones[feeder]
    return {
        "name": f"{feeder}_every_kind",
        "feeder": str(master),
        "devices": {
            "ess": {"kind": "storage", "element": "Storage.own_ess", "reactive": True, "wear_usd_per_kwh": 0.01},
            "pv": {"kind": "inverter", "element": "PVSystem.own_pv", "reactive": "kva"},
            "gen": {"kind": "generator", "element": "Generator.own_gen", "p_min_kw": 50, "ramp_kw_per_min": 10,
                    "reactive": True, "cost_b_usd_per_kwh": 0.2, "start_cost_usd": 3},
            "flex": {"kind": "flexible_load", "element": f"Load.{at['load']}", "owed_max_kwh": 300},
            "cars": {"kind": "ev_charger", "bus": at["car"], "ports": 10, "p_max_kw": 11, "v2g": True,
                     "sessions_per_day": 2, "arrival_hour_mean": 12, "arrival_hour_std": 4},
            "cap": {"kind": "capacitor", "element": f"Capacitor.{at['capacitor']}", "dwell_steps": 3,
                    "cost_usd_per_operation": 1},
            "reg": {"kind": "regulator", "element": at["regulator"], "moves_per_step": 2, "tap_initial": 3},
            "sw": {"kind": "switch", "element": f"Line.{at['switch']}", "dwell_steps": 4},
        },
        "agents": {
            "North": {"devices": ["ess", "pv", "gen", "cap"], "zone": {"downstream_of": downstream}, "pcc": downstream},
            "South": {"devices": ["flex", "cars", "reg", "sw"], "zone": {"buses": buses}, "pcc": buses[0]},
        },
    }  # fmt: skip


def all_that_moves() -> dict[str, Any]:
    """Return a scenario in which all taps, capacitors and a switch of ieee13 may move in any step."""
    gear = {
        "cap1": {"kind": "capacitor", "element": "Capacitor.cap1"},
        "cap2": {"kind": "capacitor", "element": "Capacitor.cap2"},
        **{f"reg{i}": {"kind": "regulator", "element": f"RegControl.reg{i}"} for i in (1, 2, 3)},
        "sw": {"kind": "switch", "element": "Line.671684", "dwell_steps": 12},
    }
    agents = {"Feeder": {"devices": list(gear), "zone": {"downstream_of": "671"}, "pcc": "671"}}
    return {"name": "all_that_moves", "feeder": "ieee13", "devices": gear, "agents": agents}


def shaky(policy: str = "terminate", **keys: Any) -> dict[str, Any]:
    """Return a scenario in which full discharge of a giant battery at a weak, one-phase bus makes the solve diverge."""
    return {
        "name": "shaky",
        "feeder": "ieee13",
        "divergence": {"policy": policy, "penalty": 7.0},
        "devices": {
            "giant": {"kind": "storage", "bus": "611", "phases": [3], "e_max_kwh": 1e6, "p_max_kw": 60000},
            "small": {"kind": "storage", "bus": "634", "e_max_kwh": 400, "p_max_kw": 100, "reactive": True},
        },
        "agents": {
            "A": {"devices": ["giant"], "zone": {"buses": ["684", "611", "652"]}, "pcc": "684"},
            "B": {"devices": ["small"], "zone": {"buses": ["633", "634"]}, "pcc": "633"},
        },
    } | keys  # fmt: skip


def draw_action(space: gym.Space[Any], rng: np.random.Generator) -> Any:
    """Draw an action from a space by a generator of our own, so that it depends on nothing else."""
    if isinstance(space, gym.spaces.Dict):
        return {key: draw_action(inner, rng) for key, inner in space.spaces.items()}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return rng.integers(space.nvec)
    return rng.uniform(-1.0, 1.0, space.shape).astype(np.float32)


def draw_actions(env: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Draw one action for each agent."""
    return {agent: draw_action(env.action_spaces[agent], rng) for agent in env.possible_agents}


def fill_actions(env: Any, value: float) -> dict[str, Any]:
    """Return every agent the same number in every continuous action, and position 0."""

    def fill(space: gym.Space[Any]) -> Any:
        if isinstance(space, gym.spaces.Dict):
            return {key: fill(inner) for key, inner in space.spaces.items()}
        return np.full(space.shape, value if isinstance(space, gym.spaces.Box) else 0, dtype=space.dtype)

    return {agent: fill(env.action_spaces[agent]) for agent in env.possible_agents}


class Moment(NamedTuple):
    """What one step, or a reset, gave; a reset has no rewards and no flags."""

    observations: Mapping[str, Any]
    rewards: Mapping[str, float]
    terminateds: Mapping[str, bool]
    truncateds: Mapping[str, bool]
    infos: Mapping[str, Mapping[str, Any]]


def play(env: Any, *, seed: int | None = None, steps: int = 96, actions: int = 0, **reset: Any) -> Iterator[Moment]:
    """Reset and play random actions, to the end of the episode at most; the first moment is the reset."""
    observations, infos = env.reset(seed=seed, **reset)
    yield Moment(observations, {}, {}, {}, infos)
    rng = np.random.default_rng(actions)
    for _ in range(min(steps, env.scenario.episode_length)):
        yield Moment(*env.step(draw_actions(env, rng)))


def play_steps(task: GridTask, steps: range) -> Iterator[None]:
    """Step all environments of a task, each step with random actions of its own number."""
    for step in steps:
        rng, action = np.random.default_rng(step), task.action_buffer()
        for column, spec in enumerate(task.simulation.actions):
            action[:, column] = rng.integers(0, spec.n) if spec.discrete else rng.uniform(-1.0, 1.0, task.n_envs)
        task.step()
        yield


def digest(moments: Iterator[Moment]) -> str:
    """Return a SHA-256 over every bit of observations, rewards and infos, in the order of the agents."""
    sha = hashlib.sha256()
    for moment in moments:
        for agent, seen in moment.observations.items():
            sha.update(f"{agent}{seen.dtype}{seen.shape}".encode())
            sha.update(seen.tobytes())
        sha.update(repr([(agent, float(reward).hex()) for agent, reward in moment.rewards.items()]).encode())
        for agent, info in moment.infos.items():
            values = {key: value.hex() if isinstance(value, float) else value for key, value in info.items()}
            sha.update(f"{agent}{values}".encode())
    return sha.hexdigest()


def average(series: Any, env: Any) -> Any:
    """Average a series of quarter-hours over the environment's steps, first axis."""
    rows = env.scenario.step_minutes // 15
    return series.reshape(-1, rows, *series.shape[1:]).mean(axis=1)


def read_loads(simulation: Simulation, env: int = 0) -> Any:
    """Ask the engine what each load draws [kVA], shape (n_loads,)."""
    return PowerReader(list(simulation.circuits[env].engine.handles("Load").values())).read().copy()


def find_imbalance(simulation: Simulation, env: int = 0) -> float:
    """Return sources + devices - loads - losses [kW]; devices that are loads are among the loads."""
    snapshot = simulation.snapshot
    injecting = simulation.circuits[env].load_of_device < 0
    delivered = snapshot.device_kva[env, injecting].sum().real
    loads = read_loads(simulation, env).sum().real
    given = snapshot.source_kva[env].real + snapshot.forming_kva[env].real.sum()
    return float(given + delivered - loads - snapshot.losses_kw[env])
