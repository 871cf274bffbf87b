"""Start workers: what a process spends on a feeder where nothing is kept, and where another process has kept it.

Prices the parts of a worker's start in new processes, in turn, as processor time: to read the feeder, to have its
description, and to build a circuit, of which the engine's own commands are a part priced alone. Then lets workers
start together, with an empty cache and with none, and adds up what they spend.

Usage: python benchmarks/compile.py [FEEDER ...] [--rounds N] [--workers N] [--quick]     (feeders: names or .dss files)
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import Table, machine_line, make_parser, median_ratio, parse

FEEDERS = ("ieee8500", "ieee123")
PARTS = ("read", "describe", "build", "commands")
_WORKER = """
import json, sys, time
from powergrid.grid.circuit.circuit import Circuit, network_of
from powergrid.grid.feeder.compile import compile_feeder
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.feeder import read_feeder
laps = []
def lap(): laps.append(time.process_time())
print("ready", flush=True)
sys.stdin.readline()
lap(); feeder = read_feeder(sys.argv[1])
lap(); network_of(feeder)
lap(); circuit = Circuit(feeder)
lap(); engine = Engine() if sys.argv[2] == "alone" else None
lap(); engine and compile_feeder(feeder, engine)
lap(); print(json.dumps([laps[1] - laps[0], laps[2] - laps[1], laps[3] - laps[2], laps[5] - laps[4]]))
"""


def start(feeder: str, cache: str, how: str, n: int = 1) -> tuple[list[list[float]], float]:
    """Let workers start together, and give what each spent on each part, and how long the last took [s]."""
    command = [sys.executable, "-c", _WORKER, feeder, how]
    environment = os.environ | {"POWERGRID_CACHE": cache}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    workers = [subprocess.Popen(command, text=True, env=environment, **pipes) for _ in range(n)]  # type: ignore[call-overload]
    for worker in workers:
        worker.stdout.readline()  # its imports are done
    begin = time.perf_counter()
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    told = [json.loads(worker.stdout.readline()) for worker in workers]
    seconds = time.perf_counter() - begin
    for worker in workers:
        worker.communicate()
    return told, seconds


def price_parts(feeders: Sequence[str], rounds: int) -> None:
    """Print what the parts of a start cost a process that finds nothing kept, and the next one."""
    table = Table(("feeder", "14s"), ("kept", "8s"), *((f"{part} ms", "8.1f") for part in PARTS), ("sum ms", "8.1f"),
                  ("of the first", "8.2f"))  # fmt: skip
    for feeder in feeders:
        sums: dict[str, list[float]] = {"nothing": [], "all": []}
        parts: dict[str, list[list[float]]] = {"nothing": [], "all": []}
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as cache:
                for kept, spent in parts.items():
                    ((told,), _) = start(feeder, cache, "alone")
                    spent.append(told)
                    sums[kept].append(sum(told[:3]))
        for kept, spent in parts.items():
            medians = [1e3 * statistics.median(column) for column in zip(*spent, strict=True)]
            total = 1e3 * statistics.median(sums[kept])
            table.add(Path(feeder).stem, kept, *medians, total, median_ratio(sums, kept, "nothing"))


def price_workers(feeders: Sequence[str], rounds: int, n: int) -> None:
    """Print what workers spend that start together, with an empty cache and without one."""
    table = Table(("feeder", "14s"), ("workers", "4d"), ("without cpu s", "8.2f"), ("with cpu s", "8.2f"),
                  ("with / without", "8.2f"), ("wall with / without", "8.2f"))  # fmt: skip
    for feeder in feeders:
        spent: dict[str, list[float]] = {"with": [], "without": []}
        walls: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as cache:
                for how, place in (("without", ""), ("with", cache)):
                    told, seconds = start(feeder, place, "together", n)
                    spent[how].append(sum(sum(each) for each in told))
                    walls[how].append(seconds)
        medians = [statistics.median(spent[how]) for how in ("without", "with")]
        ratios = [median_ratio(times, "with", "without") for times in (spent, walls)]
        table.add(Path(feeder).stem, n, *medians, *ratios)


def main() -> None:
    """Price starts and print both tables."""
    parser = make_parser(__doc__, FEEDERS, 5, metavar="FEEDER")
    parser.add_argument("--workers", type=int, default=16, help="workers that start together")
    args = parse(parser)
    print(machine_line("numpy"))
    price_parts(args.scenarios, args.rounds)
    print()
    price_workers(args.scenarios, max(1, args.rounds // 2), args.workers)


if __name__ == "__main__":
    main()
