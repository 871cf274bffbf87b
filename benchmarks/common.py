"""What the benchmarks share: the machine's line, repetitions in turn, ratios of one run, tables."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from powergrid.grid.engine import engine_version

Times = dict[str, list[float]]


def machine_line(*packages: str) -> str:
    """Name the machine, and the versions of what is measured on it."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    parts = [
        f"{platform.machine()}, {os.cpu_count()} CPUs{load}, Python {platform.python_version()}, {engine_version()}"
    ]
    return ", ".join([*parts, *(f"{package} {version(package)}" for package in packages)])


def make_parser(doc: str | None, scenarios: Sequence[str], rounds: int, **kwargs: str) -> argparse.ArgumentParser:
    """Make a parser of the options that benchmarks share: SCENARIO ..., --rounds and --quick."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=list(scenarios), metavar=kwargs.get("metavar", "SCENARIO"))
    parser.add_argument("--rounds", type=int, default=rounds, help="repetitions, in turn")
    parser.add_argument("--quick", action="store_true", help="the first scenario, two rounds: shows that it runs")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line; ``--quick`` cuts scenarios and rounds."""
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.scenarios = min(args.rounds, 2), args.scenarios[:1]
    return args


def take_turns(rounds: int, plays: Mapping[str, Callable[[], float]]) -> Times:
    """Let each play once a round, so that a drifting machine meets all alike, and give the seconds of each."""
    times: Times = {name: [] for name in plays}
    gc.collect()
    for _ in range(rounds):
        for name, play in plays.items():
            times[name].append(play())
    return times


def median_ratio(times: Mapping[str, Sequence[float]], what: str, base: str) -> float:
    """Return the median over the rounds of one time over another of the same round."""
    return statistics.median(a / b for a, b in zip(times[what], times[base], strict=True))


class Table:
    """Print rows under headings as they come.

    Args:
        columns: Heading and format of each column, as ``("step us", "9.1f")``.
    """

    def __init__(self, *columns: tuple[str, str]) -> None:
        self._formats = []
        headings = []
        for heading, form in columns:
            kind, text = form[-1], form[:-1]
            width = max(len(heading), int(text.partition(".")[0] or 0))
            precision = f".{text.partition('.')[2]}" if "." in text else ""
            self._formats.append(f"{width}{precision}{kind}")
            headings.append(f"{heading:{'<' if kind == 's' else '>'}{width}s}")
        print(" ".join(headings), flush=True)

    def add(self, *cells: object) -> None:
        """Print a row."""
        print(" ".join(f"{cell:{form}}" for cell, form in zip(cells, self._formats, strict=True)), flush=True)


def print_table(
    scenarios: Sequence[str], measure: Callable[[str], Sequence[object]], *columns: tuple[str, str]
) -> None:
    """Print a row for each scenario as soon as it is measured: its name, and the cells of it under their headings."""
    table = Table(("scenario", "18s"), *columns)
    for name in scenarios:
        table.add(name, *measure(name))
