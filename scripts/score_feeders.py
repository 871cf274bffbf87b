"""Score feeders: which that OpenDSS solves by itself become an environment, and how true to OpenDSS that one is.

For each master under the folders, in processes of its own with limits of time and memory:

- whether OpenDSS alone compiles and solves it (else nothing is expected of it),
- whether ``make`` turns it into an environment, or says that nothing can be controlled and what can be added,
- how many of 96 steps with random actions solve (with panels and batteries added where there is nothing to control),
- how far a day under the feeder's own controls, with no device, is from OpenDSS's own mode: each element, relative to
  its peak.

Usage: python scripts/score_feeders.py FOLDER_OR_MASTER ... [--out FILE] [--jobs 2] [--limit-s 240] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import powergrid
from powergrid.errors import PowerGridError
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.engine import Engine, PowerReader
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.network.shapes import ShapeMode
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.profiles import builtin_profiles, follow_loadshapes
from powergrid.grid.simulation import Simulation

_STAGES = ("engine", "make", "random", "native")
_CIRCUIT = re.compile(rb"^\s*new\s+(object\s*=\s*)?[\"'(\[{]?circuit\.|^\s*(redirect|compile)\b", re.I | re.M)
_PLAYS = re.compile(r"\s*solve\b.*\bmode\s*=\s*[dy]", re.I)
_NO_PART = re.compile(r"\s*(solve|show|export|plot)\b|\s*(!|//)", re.I)
_CLASSES = ("Vsource", "Load", "Generator", "PVSystem", "Storage", "Isource", "IndMach012", "VCCS", "VSConverter")
_NOTHING = "nothing that agents could control"
_MEMORY_BYTES = 8 << 30
_WITHIN = 1e-6
_TIGHT = 1e-9


# -- one master, in a process of its own


def _redirected(master: Path) -> Engine:
    """Compile a master as it stands in an engine of its own; of one that plays days itself, as it stands before these.

    Its controls remember them: a regulator that turned when power flowed back, say.
    """
    engine = Engine()
    engine.set_folder(master.parent)
    lines = master.read_text(errors="replace").splitlines()
    if not any(_PLAYS.match(line) for line in lines):
        engine.command(f'redirect "{master}"')
        return engine
    for line in lines:
        if line.strip() and not _NO_PART.match(line):
            engine.command(line)
    engine.command("set mode=snapshot")
    engine.command("solve")
    return engine


def try_engine(master: Path) -> dict[str, Any]:
    """Say whether OpenDSS alone compiles and solves a master."""
    engine = _redirected(master)
    nodes = engine.node_names()
    for option in ("mode=snapshot", "maxiterations=100", "maxcontroliter=100"):
        engine.command(f"set {option}")
    engine.command("solve")
    nodes = engine.node_names()
    solved = engine.command("get mode") and engine.solve() and bool(np.isfinite(engine.voltages(len(nodes))).all())
    return {"engine": "solves" if solved and nodes else "does not solve", "nodes": len(nodes)}


def make(master: Path, **keys: Any) -> tuple[Any, str]:
    """Return an environment of a master, and how it came about."""
    try:
        return powergrid.make(master, **keys), "environment"
    except PowerGridError as error:
        if _NOTHING not in str(error):
            raise
        try:
            return powergrid.make(master, add_der={"penetration": 0.3}, **keys), "says what can be added"
        except PowerGridError as second:  # said all the same
            return None, f"says what can be added; which fails: {' '.join(str(second).split())[:300]}"


def play_random(env: Any, steps: int = 96) -> int:
    """Return how many steps with random actions solve."""
    for agent in env.possible_agents:
        env.action_space(agent).seed(1)
    env.reset(seed=0)
    solved = 0
    for _ in range(steps):
        if not env.agents:
            env.reset()
        _, rewards, terminations, _, _ = env.step({a: env.action_space(a).sample() for a in env.agents})
        solved += not any(terminations.values()) and bool(np.isfinite(list(rewards.values())).all())
    return solved


def play_native(master: Path) -> dict[str, Any]:
    """Return, for each class, how far a day under the feeder's own controls is from the engine's own mode."""
    feeder = read_feeder(master)
    network, profiles = network_of(feeder), builtin_profiles()
    shaped = any((network.followed_by(c) >= 0).any() for c in network.shapes_of)
    engine = _redirected(master)
    mode = _mode_of(network, engine)
    if not (network.followed_by("Load", mode) >= 0).any():
        return {"mode": mode, "shaped": False, "worst": {}, "equal": False}
    options = SimulationOptions(step_minutes=60, horizon_steps=24, split="all", native_controls=True, tolerance=_TIGHT)
    profiles = follow_loadshapes(network, profiles, mode if network.shape_mode == "own" else None)
    simulation = Simulation(feeder, {}, profiles, options)
    simulation.reset(0, np.random.default_rng(0), day=0)
    ours = simulation.circuits[0].engine
    shared = [(c, name) for c in _CLASSES for name in engine.handles(c) if name in ours.handles(c)]
    readers = [PowerReader([each.handles(c)[name] for c, name in shared]) for each in (ours, engine)]
    for option in (f"tolerance={_TIGHT}", "maxiterations=100", "maxcontroliter=100"):
        engine.command(f"set {option}")
    _stand_alike(ours, engine)
    engine.command(f"set mode={mode} stepsize=60m number=1 hour=0 sec=0")
    found: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(24):
        simulation.step(simulation.neutral())
        found[0].append(readers[0].read().copy())
        engine.command("solve")
        found[1].append(readers[1].read().copy())
    return {"mode": mode, "shaped": shaped, **_compare(shared, *map(np.array, found))}


def _compare(shared: list[tuple[str, str]], ours: Any, engines: Any) -> dict[str, Any]:
    """Return the worst of each class, and how many elements are off."""
    off = np.abs(ours - engines).max(axis=0) / np.maximum(1.0, np.abs(engines).max(axis=0))
    worst: dict[str, Any] = {}
    for error, step, (c, name) in zip(off, np.abs(ours - engines).argmax(axis=0), shared, strict=True):
        n, most, _ = worst.get(c, (0, -1.0, ""))
        i = shared.index((c, name))
        text = f"{name} at step {step}: {ours[step, i]:.5g}, OpenDSS {engines[step, i]:.5g}"
        bad = not error <= _WITHIN
        worst[c] = (n + bad, max(most, float(error)), text if not error <= most else worst[c][2])
    return {"worst": worst, "equal": bool((off <= _WITHIN).all())}


def _stand_alike(one: Engine, other: Engine) -> None:
    """Put taps and capacitors of another engine where those of one are; what stands alike is not touched.

    An edit has the engine build its matrix anew, after which generators of model 3 break Kirchhoff's law in it.
    """
    for class_name, key in (("Transformer", "Taps"), ("Capacitor", "States")):
        for name, handle in one.handles(class_name).items():
            known = other.handles(class_name).get(name)
            wanted = one.get_text(handle, class_name, key)
            if known is not None and other.get_text(known, class_name, key) != wanted:
                values = " ".join(map(repr, one.get_floats(handle, class_name, key).tolist())) if key == "Taps" else ""
                other.command(f'edit "{class_name}.{name}" {key}=[{values or wanted.strip("[] ")}]')


def _mode_of(network: Network, engine: Engine) -> ShapeMode:
    if network.shape_mode != "own":
        return network.shape_mode
    loads = engine.handles("Load").values()
    written = any(engine.get_text(h, "Load", "Yearly") != engine.get_text(h, "Load", "Daily") for h in loads)
    return "yearly" if written else "daily"


def one(master: Path) -> None:
    """Go through all stages of one master, a line of JSON each as far as it gets."""

    def tell(**what: Any) -> None:
        print("\n@" + json.dumps(what), flush=True)

    stage = "make"
    try:
        env, how = make(master)
        tell(make=how)
        if env is None:
            return
        network, stage = env.task.simulation.network, "random"
        tell(loads=len(network.loads.names), random=play_random(env))
        env.close()
        stage = "native"
        tell(native=play_native(master))
    except PowerGridError as error:
        tell(**{stage: f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"})
    except BaseException as error:  # noqa: BLE001  # what is no error of ours is what is looked for
        tell(**{stage: f"UNTYPED {type(error).__name__}: {' '.join(str(error).split())[:400]}"})


# -- all of them


def find_masters(places: list[str]) -> Iterator[Path]:
    """Yield the files that may be masters: those that begin a circuit, or redirect to one that does."""
    for place in map(Path, places):
        files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix.lower() == ".dss")
        yield from (file.resolve() for file in files if _CIRCUIT.search(file.read_bytes()))


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def score(master: Path, limit_s: float) -> dict[str, Any]:
    """Return what came of a master."""
    row: dict[str, Any] = {"master": str(master)}
    for stage in ("engine", "rest"):
        command = [sys.executable, str(Path(__file__).resolve()), "--one", stage, str(master)]
        with tempfile.TemporaryDirectory() as scratch:  # a cache of its own: what crashed must not count as known
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, errors="replace", timeout=limit_s, preexec_fn=_limit,
                    env=os.environ | {"POWERGRID_CACHE": scratch}, check=False,
                )  # fmt: skip
                told, code = done.stdout, str(done.returncode)
            except subprocess.TimeoutExpired as error:
                told, code = (error.stdout or b"").decode(errors="replace"), "TIMEOUT"
        for line in told.splitlines():
            if line.startswith("@"):
                row |= json.loads(line[1:])
        if code != "0":
            missing = next((s for s in (_STAGES[:1] if stage == "engine" else _STAGES[1:]) if s not in row), "native")
            row[missing] = f"UNTYPED exit {code}"
        if row.get("engine") != "solves":
            break
    return row


def verdicts(row: dict[str, Any]) -> dict[str, bool | None]:
    """Return what of a row counts as passed, None where it does not apply."""
    if row.get("engine") != "solves":
        return {}
    made = str(row.get("make", ""))
    native = row.get("native")
    return {
        "make": made.startswith(("environment", "says what can be added")),
        "random": None if row.get("random") is None else row["random"] == 96,
        "native": _is_equal(made, native),
    }


def _is_equal(made: str, native: Any) -> bool | None:
    if not made.startswith(("environment", "says")) or made.partition(";")[2]:
        return None
    if isinstance(native, dict):
        return native["equal"] if native["shaped"] else None  # without shapes demand is the shipped profiles'
    return False


def report(rows: list[dict[str, Any]]) -> str:
    """Return the table, the totals and what failed with its words."""
    solves = [row for row in rows if row.get("engine") == "solves"]
    home = os.path.commonpath([row["master"] for row in rows]) if rows else ""
    passed = [(row, verdicts(row)) for row in solves]
    lines = [f"{len(rows)} masters, {len(solves)} that OpenDSS alone compiles and solves"]
    for stage in _STAGES[1:]:
        own = [v[stage] for _, v in passed if v.get(stage) is not None]
        lines.append(f"  {stage:7s} {sum(map(bool, own))} of {len(own)}")
    steps = [row["random"] for row in solves if isinstance(row.get("random"), int)]
    lines.append(f"  random steps that solve: {sum(steps)} of {96 * len(steps)}")
    off = Counter(c for row in solves if isinstance(row.get("native"), dict)
                  for c, (n, _, _) in row["native"]["worst"].items() if n)  # fmt: skip
    lines.append(f"  masters with a class that is off under native: {dict(off)}")
    for row, verdict in passed:
        name = os.path.relpath(row["master"], home)
        marks = "".join({True: "+", False: "-", None: "."}[verdict.get(stage)] for stage in _STAGES[1:])
        lines.append(f"{marks} {name}  [{row.get('nodes')} nodes, {row.get('random', '-')} steps]")
        failed = [stage for stage in _STAGES[1:] if verdict.get(stage) is False and stage != "native"]
        lines += [f"      {stage}: {row.get(stage)}" for stage in failed]
        if verdict.get("native") is False:
            native = row.get("native")
            if not isinstance(native, dict):
                lines.append(f"      native: {native}")
                continue
            for c, (n, most, text) in native["worst"].items():
                if n:
                    lines.append(f"      native ({native['mode']}): {n} {c} off, most {most:.2g}: {text}")
    lines.append("not solved by OpenDSS alone (nothing expected):")
    lines += [f"  {os.path.relpath(r['master'], home)}: {r.get('engine')}" for r in rows if r.get("engine") != "solves"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Score all masters and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", help="folders and masters")
    parser.add_argument("--one", choices=("engine", "rest"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write the table there as well")
    parser.add_argument("--json", type=Path, help="write what was found there as data")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=240.0, help="time of each process [s]")
    args = parser.parse_args()
    if args.one == "engine":
        try:
            told = try_engine(Path(args.places[0]))
        except PowerGridError as error:
            told = {"engine": f"refused: {' '.join(str(error).split())[:200]}"}
        print("\n@" + json.dumps(told))
        return
    if args.one:
        one(Path(args.places[0]))
        return
    masters = list(dict.fromkeys(find_masters(args.places)))
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(lambda master: score(master, args.limit_s), masters))
    text = report(rows)
    print(text)
    if args.out:
        args.out.write_text(text)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
