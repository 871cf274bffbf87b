"""Time what a planner asks for, command by command, on feeders from 13 to 8,500 nodes; print a table in Markdown.

Each command runs in a process of its own, one after another, as a planner would type it, on what is discovered on the
feeder: ``replay`` plays one day under two controllers, ``report`` ten days under three, with one replay beside it,
``study`` a week under two, ``hosting`` one day under two. Times are of the whole command; beside them stands the size
of the page that it leaves. Run it when nothing else runs. ``FOLDER`` holds OpenDSS's own test feeders, as EPRI gives
them out (``ckt5/Master_ckt5.dss``, ``8500-Node/Master.dss``); without it only what ships is measured.

Usage: python -m benchmarks.planners [FOLDER] [--only ieee13 ...] [--quick]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import powergrid
from benchmarks.common import machine_line
from powergrid.cli import app

SHIPPED = {"ieee13": "ieee13", "ieee123": "ieee123"}
UPSTREAM = {"ckt5": "ckt5/Master_ckt5.dss", "8500 nodes": "8500-Node/Master.dss"}
DATE, WEEK_END = "2018-07-14", "2018-07-20"
#: What is typed, and what the page is that it leaves, by what the table calls it.
COMMANDS: dict[str, tuple[list[str], str]] = {
    "replay, 1 day, 2 controllers": (["replay", "native", "rule_based", "FEEDER", "--date", DATE], f"{DATE}.html"),
    "report, 10 days, 3 controllers": (
        ["report", "rule_based", "FEEDER", "--days", "10", "--split", "all", "--against", "native", "--against",
         "no_control", "--replays", "1"],
        "report.html",
    ),
    "study, 7 days, 2 controllers": (
        ["study", "rule_based", "native", "FEEDER", "--from", DATE, "--to", WEEK_END],
        "report.html",
    ),
    "hosting capacity, 1 day, 2 controllers, PV spread evenly": (
        ["hosting", "FEEDER", "no_control", "native", "--date", DATE, "--at", "uniform", "--map", "0"],
        "report.html",
    ),
}  # fmt: skip


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of OpenDSS's own test feeders")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these feeders: ieee13, ieee123, ckt5, '8500 nodes'")
    parser.add_argument("--quick", action="store_true", help="ieee13 and replay alone: shows that it runs")
    args = parser.parse_args()
    feeders = SHIPPED | ({name: str(args.folder / file) for name, file in UPSTREAM.items()} if args.folder else {})
    if missing := [path for name, path in feeders.items() if name in UPSTREAM and not Path(path).is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")
    if unknown := set(args.only or ()) - set(feeders):
        parser.error(f"unknown {', '.join(sorted(unknown))}; there are {', '.join(feeders)}")
    asked = {name: path for name, path in feeders.items() if not args.only or name in args.only}
    there = {info.name or info.callback.__name__ for info in app.registered_commands if info.callback}
    commands = {told: command for told, command in COMMANDS.items() if command[0][0] in there}
    if args.quick:
        asked, commands = {"ieee13": "ieee13"}, dict(list(commands.items())[:1])
    print(machine_line() + "\n", flush=True)
    print(f"| feeder | nodes | {' | '.join(commands)} |\n|---|---|{'---|' * len(commands)}", flush=True)
    for name, path in asked.items():
        print(f"| {name} | {measure(path, commands)} |", flush=True)
    return 0


def measure(feeder: str, commands: Mapping[str, tuple[Sequence[str], str]]) -> str:
    """Return the cells of a feeder's row: nodes, then the time of each command and the size of its page."""
    env = powergrid.make(feeder)  # also compiles it once, as a planner has by then
    cells = [f"{len(env.task.simulation.network.nodes):,}"]
    env.close()
    for words, page in commands.values():
        with tempfile.TemporaryDirectory() as folder:
            typed = [feeder if word == "FEEDER" else word for word in words]
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "powergrid.cli", *typed, "--out", folder], capture_output=True, text=True
            )
            took = time.perf_counter() - begin
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                cells.append("failed")
                continue
            pages = sorted(Path(folder).glob(page)) or sorted(Path(folder).glob("*.html"))
            cells.append(f"{say_time(took)}, {say_size(pages[0].stat().st_size)}")
    return " | ".join(cells)


def say_time(seconds: float) -> str:
    """Write a time as seconds, or as minutes and seconds."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def say_size(n_bytes: int) -> str:
    """Write a size in MB, small ones in kB."""
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"


if __name__ == "__main__":
    raise SystemExit(main())
