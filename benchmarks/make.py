"""Make environments of large feeders of our own making: what ``make`` takes of processor time over OpenDSS's compile.

Each feeder is a tree of three-phase lines with single-phase loads that follow LoadShapes, capacitors, regulators and
panels. In new processes, in turn: OpenDSS alone reads and solves it, ``make`` with nothing kept, ``make`` with all
kept, and steps over their floor. Processor time is that of the process itself; what the trial of a foreign feeder takes
in a process of its own (once for each content and user) stands in a column of its own.

Usage: python -m benchmarks.make [--loads 600 6000] [--nodes-per-load 2] [--devices 30] [--agents 0] [--rounds 3]
       [--profile]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Table, machine_line

_WORKER = """
import json, os, resource, sys, time
import numpy as np
import powergrid, powergrid.envs.parallel, powergrid.scenario
from powergrid.grid.engine import Engine
how, master, keys = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def spent():
    return time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
Engine().close()
begin = spent()
if how == "engine":
    engine = Engine()
    engine.set_folder(os.path.dirname(master))
    engine.command(f'redirect "{master}"')
    engine.solve()
    told = {"nodes": len(engine.node_names())}
else:
    if how == "profile":
        import cProfile, pstats
        profile = cProfile.Profile()
        profile.enable()
    env = powergrid.make(master, **keys)
    if how == "profile":
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        pstats.Stats(profile).sort_stats("cumtime").print_stats(60)
    told = {"agents": len(env.possible_agents), "devices": len(env.scenario.devices)}
end = spent()
told |= {"own": end[0] - begin[0], "trial": end[1] - begin[1]}
if how == "warm":
    from benchmarks.floor import Floor, record_day
    env.reset(seed=0)
    told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for i, space in enumerate(env.action_spaces.values()):
        space.seed(i)
    actions = [{agent: space.sample() for agent, space in env.action_spaces.items()} for _ in range(STEPS)]
    floor = Floor(env.task, record_day(env, actions))
    least = np.full((2, STEPS), np.inf)
    for _ in range(PLAYS):
        env.reset(options={"day": 200})
        floor.circuit.reset()
        for i, (action, step) in enumerate(zip(actions, floor.steps)):
            laps = [time.process_time()]
            env.step(action)
            laps.append(time.process_time())
            floor.write(step), floor.circuit.solve(), floor.read_by_matrix()
            laps.append(time.process_time())
            least[:, i] = np.minimum(least[:, i], np.diff(laps))
    told["step"], told["floor"] = least.mean(axis=1).tolist()
print("@" + json.dumps(told))
"""
#: Steps of which the least time of some plays is taken, in turn with their floor.
_STEPS, _PLAYS = 12, 6


def lines_of(n_loads: int, nodes_per_load: int, n_panels: int, n_shapes: int = 40, points: int = 8760) -> Iterator[str]:
    """Yield the lines of a feeder with its loads, three nodes a bus, and panels evenly among its buses."""
    yield "Clear"
    yield "New Circuit.large basekv=12.47 pu=1.03 mvasc3=20000 mvasc1=21000"
    yield "New LineCode.lc nphases=3 r1=.06 x1=.12 r0=.2 x0=.4 c1=3 c0=2 units=km normamps=600"
    for i in range(n_shapes):
        values = " ".join(f"{0.3 + 0.6 * ((h * 7 + i * 13) % 24) / 24:.3f}" for h in range(points))
        yield f"New LoadShape.s{i} npts={points} interval=1 mult=[{values}]"
    yield "New Transformer.sub buses=[sourcebus b0] conns=[delta wye] kvs=[12.47 12.47] kvas=[60000 60000] xhl=4"
    yield "New RegControl.reg transformer=sub winding=2 vreg=122 band=3 ptratio=60"
    n_buses = max(1, n_loads * nodes_per_load // 3)
    for i in range(1, n_buses):
        yield f"New Line.l{i} bus1=b{(i - 1) // 3} bus2=b{i} linecode=lc length=.02 units=km"
    for i in range(n_loads):
        bus, kw = i * n_buses // n_loads, 15000.0 / n_loads
        yield f"New Load.d{i} bus1=b{bus}.{i % 3 + 1} phases=1 kv=7.2 kw={kw:.4f} pf=.96 yearly=s{i % n_shapes}"
    for i in range(n_panels):
        bus, kva = i * n_buses // n_panels, 5000.0 / n_panels
        yield f"New PVSystem.p{i} bus1=b{bus} kv=12.47 kva={kva:.3f} pmpp={kva:.3f} daily=s0"
    yield f"New Capacitor.bank bus1=b{n_buses // 2} kv=12.47 kvar=1200"
    yield "Set VoltageBases=[12.47]"
    yield "CalcVoltageBases"
    yield "Solve"


def run(how: str, master: Path, keys: dict[str, object], cache: str) -> dict[str, float]:
    """Return what a new process tells that does one thing."""
    worker = _WORKER.replace("STEPS", str(_STEPS)).replace("PLAYS", str(_PLAYS))
    command = [sys.executable, "-c", worker, how, str(master), json.dumps(keys)]
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    env = os.environ | {"POWERGRID_CACHE": cache, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    if how == "profile":
        print(done.stdout)
    return dict(json.loads(done.stdout.rpartition("@")[2]))


def price(n_loads: int, args: argparse.Namespace, table: Table) -> None:
    """Add a row of what a feeder of a size takes."""
    keys: dict[str, object] = {"discover": {"max_per_kind": args.devices}}
    if args.agents:
        keys["agents"] = {"layout": "per_zone", "zones": args.agents}
    with tempfile.TemporaryDirectory() as folder:
        master = Path(folder) / "large.dss"
        master.write_text("\n".join(lines_of(n_loads, args.nodes_per_load, args.devices)) + "\n")
        told: dict[str, list[dict[str, float]]] = {"engine": [], "cold": [], "warm": []}
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory() as cache:
                for how, laps in told.items():
                    laps.append(run(how, master, keys, cache))
        if args.profile:
            with tempfile.TemporaryDirectory() as cache:
                for _ in ("cold", "warm"):
                    run("profile", master, keys, cache)

    def ratio(how: str, key: str = "own") -> float:
        return statistics.median(
            lap[key] / engine["own"] for lap, engine in zip(told[how], told["engine"], strict=True)
        )

    warm, engine = told["warm"][-1], told["engine"][-1]
    table.add(n_loads, int(engine["nodes"]), int(warm["devices"]), int(warm["agents"]),
              statistics.median(lap["own"] for lap in told["engine"]), ratio("cold"), ratio("warm"),
              ratio("cold", "trial"), 1e3 * warm["step"],
              statistics.median(lap["step"] / lap["floor"] for lap in told["warm"]), warm["peak_mb"])  # fmt: skip


def main() -> None:
    """Price all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, nargs="+", default=[600, 6000])
    parser.add_argument("--nodes-per-load", type=int, default=2)
    parser.add_argument("--devices", type=int, default=30)
    parser.add_argument("--agents", type=int, default=0, help="number of zones with an agent each; by size if 0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print where a cold and a warm make spend their time")
    args = parser.parse_args()
    print(machine_line("numpy"))
    table = Table(("loads", "7d"), ("nodes", "7d"), ("devices", "7d"), ("agents", "6d"), ("engine s", "8.2f"),
                  ("cold / engine", "8.2f"), ("warm / engine", "8.2f"), ("trial / engine", "8.2f"),
                  ("step ms", "8.2f"), ("step / floor", "8.2f"), ("peak MB", "8.0f"))  # fmt: skip
    for n_loads in args.loads:
        price(n_loads, args, table)


if __name__ == "__main__":
    main()
