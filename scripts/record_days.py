"""Record played days of every shipped scenario, face and baseline, and compare them with an earlier record.

A record is one JSON file: for each play the SHA-256 of all its bits, and for each of its arrays one number, its
product with fixed weights, which tells a change of any entry by its size. ``tests/days.json`` is the record
that the tests hold the code against. Uses the public classes alone, so that it records other versions too.

Usage::

    python scripts/record_days.py --out FILE [--only TEXT] [--against FILE]

A record of a version that wants a difference is made anew with ``--out tests/days.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.evaluation import baseline_names, evaluate

Arrays = dict[str, npt.NDArray[Any]]
Record = dict[str, dict[str, Any]]

MODES = ("distributed", "centralized")
SPLITS = ("train", "validation", "test")
N_ENVS = 3
WORKERS = {"inline": None, "processes": 2}


def list_plays() -> dict[str, Callable[[], Arrays]]:
    """Return every play by its name, for example ``networked ieee13_mg distributed test``."""
    plays: dict[str, Callable[[], Arrays]] = {}
    for name in powergrid.list_scenarios():
        for mode in MODES:
            for split in SPLITS:
                plays[f"networked {name} {mode} {split}"] = partial(play_networked, name, mode, split)
        plays[f"parallel {name}"] = partial(play_parallel, name)
        plays[f"central {name}"] = partial(play_central, name)
        for backend in ("inline", "processes"):
            plays[f"vector {backend} {name}"] = partial(play_vector, name, backend)
            plays[f"central vector {backend} {name}"] = partial(play_central_vector, name, backend)
        for baseline in baseline_names():
            plays[f"baseline {baseline} {name}"] = partial(play_baseline, name, baseline)
    return plays


def play_networked(name: str, mode: str, split: str) -> Arrays:
    """Play a drawn day of random actions through ``NetworkedGridEnv``."""
    env = NetworkedGridEnv({"env_name": name, "mode": mode, "split": split})
    try:
        for i, agent in enumerate(env.possible_agents):
            env.action_spaces[agent].seed(i)
        seen = _Columns()
        observations, infos = env.reset(seed=7)
        over = False
        while True:
            seen.add_dict("observation", observations)
            seen.add_infos(infos)
            seen.add("v_pu", env.task.simulation.snapshot.v_pu[0])
            seen.add("setpoints", env.task.simulation.setpoints[:, 0])
            if over:
                return seen.arrays()
            actions = {agent: env.action_spaces[agent].sample() for agent in env.possible_agents}
            observations, rewards, terminateds, truncateds, infos = env.step(actions)
            seen.add_dict("reward", rewards)
            seen.add("violations and cost", [env.count_violations(), env.compute_cost()])
            over = terminateds["__all__"] or truncateds["__all__"]
    finally:
        env.close()


def play_parallel(name: str) -> Arrays:
    """Play a drawn day of random actions through PettingZoo's parallel API."""
    env = powergrid.make(name)
    try:
        for i, agent in enumerate(env.possible_agents):
            env.action_space(agent).seed(i)
        seen = _Columns()
        observations, infos = env.reset(seed=7)
        while True:
            seen.add_dict("observation", observations)
            seen.add_infos(infos)
            if not env.agents:
                return seen.arrays()
            actions = {agent: env.action_space(agent).sample() for agent in env.agents}
            observations, rewards, _, _, infos = env.step(actions)
            seen.add_dict("reward", rewards)
    finally:
        env.close()


def play_central(name: str) -> Arrays:
    """Play a drawn day of random actions as one controller."""
    env = powergrid.make_central(name)
    try:
        env.action_space.seed(3)
        seen = _Columns()
        observation, info = env.reset(seed=7)
        over = False
        while True:
            seen.add("observation", observation)
            seen.add_infos({"": info})
            if over:
                return seen.arrays()
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            seen.add("reward", [reward])
            over = terminated or truncated
    finally:
        env.close()


def play_vector(name: str, backend: Any) -> Arrays:
    """Play a day and a bit of random actions in several environments at once, through an end of an episode."""
    env = powergrid.make_vector(name, N_ENVS, backend=backend, workers=WORKERS[backend])
    try:
        spaces = env.single_action_space
        for i, space in enumerate(spaces.values()):
            space.seed(i)
        seen = _Columns()
        observations, _ = env.reset(seed=7)
        after = None
        while after is None or after:
            seen.add_dict("observation", observations)
            for column, values in zip(env.info_names, np.moveaxis(env.infos(), -1, 0), strict=True):
                seen.add(f"info {column}", values)
            actions = {agent: _stack([space.sample() for _ in range(N_ENVS)]) for agent, space in spaces.items()}
            observations, rewards, terminated, truncated, final = env.step(actions)
            seen.add("reward", rewards)
            seen.add("over", terminated | truncated)
            if final:
                seen.add_dict("final observation", final["final_obs"])
            after = 3 if final and after is None else None if after is None else after - 1
        return seen.arrays()
    finally:
        env.close()


def play_central_vector(name: str, backend: Any) -> Arrays:
    """Play a day and a bit of random actions as one controller in several environments at once."""
    env = powergrid.make_vector(name, N_ENVS, view="central", backend=backend, workers=WORKERS[backend])
    try:
        env.action_space.seed(3)
        seen = _Columns()
        observations, infos = env.reset(seed=7)
        after = None
        while after is None or after:
            seen.add("observation", observations)
            seen.add_infos({"": {key: values for key, values in infos.items() if not key.startswith("_")}})
            observations, rewards, terminated, truncated, infos = env.step(env.action_space.sample())
            seen.add("reward", rewards)
            over = terminated | truncated
            seen.add("over", over)
            after = 3 if over.any() and after is None else None if after is None else after - 1
        return seen.arrays()
    finally:
        env.close()


def play_baseline(name: str, baseline: str) -> Arrays:
    """Play one day of the test split by a baseline and return the row of its report."""
    frame = evaluate({"env_name": name}, [baseline], split="test", days=1).frame
    numbers = frame.select_dtypes(["number", "bool"])
    return {f"row {column}": numbers[column].to_numpy(dtype=np.float64) for column in numbers.columns}


class _Columns:
    """Rows by name as they come."""

    def __init__(self) -> None:
        self._rows: dict[str, list[npt.NDArray[Any]]] = {}

    def add(self, name: str, values: Any) -> None:
        self._rows.setdefault(name, []).append(np.array(values, dtype=np.float64).ravel())

    def add_dict(self, name: str, by_agent: Mapping[str, Any]) -> None:
        for agent, values in by_agent.items():
            self.add(f"{name} {agent}", values)

    def add_infos(self, infos: Mapping[str, Mapping[str, Any]]) -> None:
        by_name: dict[str, list[Any]] = {}
        for info in infos.values():
            for key, value in info.items():
                if np.asarray(value).dtype.kind in "biuf":  # texts are compared nowhere
                    by_name.setdefault(key, []).append(value)
        for key, values in by_name.items():
            self.add(f"info {key}", values)

    def arrays(self) -> Arrays:
        return {name: np.concatenate(rows) for name, rows in self._rows.items()}


def _stack(actions: list[Any]) -> Any:
    if isinstance(actions[0], Mapping):
        return {key: np.stack([action[key] for action in actions]) for key in actions[0]}
    return np.stack(actions)


def digest(arrays: Arrays) -> dict[str, Any]:
    """Return the hash of all bits and one number for each array."""
    bits, numbers = hashlib.sha256(), {}
    for name in sorted(arrays):
        values = np.nan_to_num(arrays[name].astype(np.float64), nan=-7.0, posinf=-8.0, neginf=-9.0)
        bits.update(name.encode() + values.tobytes())
        weights = 1.0 + np.sin(np.arange(values.size) * 12.9898)  # no two neighbours weigh the same
        numbers[name] = [values.size, float(np.abs(values).sum()), float((values * weights).sum())]
    return {"bits": bits.hexdigest()[:16], "numbers": numbers}


def record(only: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the digest of each play whose name holds a text."""
    for name, play in list_plays().items():
        if all(word in name.split() or word in name for word in only.split()):
            yield name, digest(play())


def find_differences(name: str, now: Mapping[str, Any], then: Mapping[str, Any], tolerance: float) -> list[str]:
    """Return what differs between two digests of a play, beyond a tolerance relative to the sum of magnitudes."""
    if now["bits"] == then["bits"]:
        return []
    found = []
    for key in sorted({*now["numbers"], *then["numbers"]}):
        if key not in now["numbers"] or key not in then["numbers"]:
            found.append(f"{name}: {key!r} is {'gone' if key not in now['numbers'] else 'new'}")
            continue
        (n, size, value), (n_then, size_then, value_then) = now["numbers"][key], then["numbers"][key]
        scale = max(size_then, 1.0)
        off = max(abs(value - value_then), abs(size - size_then)) / scale
        if n != n_then or not off <= tolerance:
            found.append(f"{name}: {key!r} differs by {off:.1e} ({n} and {n_then} numbers)")
    return found


def main() -> int:
    """Record, and compare where an earlier record is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to keep the record")
    parser.add_argument("--only", default="", help="only plays whose name holds these words")
    parser.add_argument("--against", type=Path, help="an earlier record to compare with")
    parser.add_argument("--tolerance", type=float, default=1e-12, help="relative, where bits differ")
    args = parser.parse_args()
    then: Record = json.loads(args.against.read_text()) if args.against else {}
    taken: Record = {}
    problems: list[str] = []
    same = 0
    for name, found in record(args.only):
        taken[name] = found
        if not args.against:
            print(name, found["bits"], flush=True)
            continue
        if name not in then:
            problems.append(f"{name}: not in the earlier record")
            continue
        problems += find_differences(name, found, then[name], args.tolerance)
        same += found["bits"] == then[name]["bits"]
    if args.out:
        lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in sorted(taken.items())]
        args.out.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if args.against:
        print("\n".join([*problems, f"{same} of {len(taken)} plays agree to the bit; {len(problems)} differences"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
