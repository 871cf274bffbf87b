"""Try feeders: check each, make it in every layout, play random steps, evaluate baselines; print what came of it.

Nothing is written, and a feeder that fails does not keep the others from being tried: its row ends with the error.
Times are the least of what was met over the layouts, a step's the median of an episode's.

Usage: python benchmarks/feeders.py [FEEDER ...] [--layouts per_zone,single] [--steps 96] [--days 2] [--add-der 0.3]
       [--timeout 300] [--markdown]

A feeder with nothing to control is tried again with panels and batteries added.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import powergrid
from benchmarks.common import machine_line
from powergrid.check import check_feeder
from powergrid.errors import PowerGridError
from powergrid.evaluation import evaluate
from powergrid.scenario.discovery import LAYOUTS

#: What is added to a feeder with nothing to control.
ADDED = {"penetration": 0.3}
POLICIES = ("no_control", "random")
_SHORT = {"regulator": "reg", "capacitor": "cap", "storage": "ess", "inverter": "pv", "generator": "gen",
          "switch": "sw", "flexible_load": "flex"}  # fmt: skip
HEADINGS = (
    "feeder", "buses", "nodes", "loads", "kW", "devices", "agents", "check", "check [s]", "first make [s]",
            "make [s]", "reset [ms]", "step [ms]", "solved steps", "lowest V [pu]", "violations [%]",
    "error",
)  # fmt: skip


@dataclass
class Trial:
    """What came of one feeder.

    Attributes:
        feeder: Its name or path.
        verdict: Errors and warnings of the check.
        check_s: How long the check took [s].
        size: Buses, nodes, loads, and their nominal demand [kW].
        devices: Number of devices by kind.
        agents: Number of agents by layout.
        make_s: How long each layout took to make [s], in the order made.
        reset_s: How long each layout took to reset [s].
        step_s: Median of each layout's steps [s].
        steps: Steps played, and how many of them were solved.
        v_min_pu: Lowest voltage of random play [pu].
        violations: Share of node voltages outside the band, by policy.
        errors: What failed, a line each.
    """

    feeder: str
    verdict: str = ""
    check_s: float = float("nan")
    size: tuple[int, int, int, float] = (0, 0, 0, 0.0)
    devices: Counter[str] = field(default_factory=Counter)
    agents: dict[str, int] = field(default_factory=dict)
    make_s: list[float] = field(default_factory=list)
    reset_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    steps: tuple[int, int] = (0, 0)
    v_min_pu: float = float("inf")
    violations: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        """Return the cells of its row, under HEADINGS."""
        buses, nodes, loads, kw = self.size
        devices = ", ".join(f"{count} {_SHORT.get(kind, kind)}" for kind, count in self.devices.items())
        played, solved = self.steps
        return [
            self.feeder,
            *(str(number) if buses else "" for number in (buses, nodes, loads, round(kw))),
            devices,
            "/".join(map(str, self.agents.values())),
            self.verdict,
            f"{self.check_s:.1f}",
            f"{self.make_s[0]:.2f}" if self.make_s else "",
            f"{min(self.make_s):.2f}" if self.make_s else "",
            f"{1e3 * min(self.reset_s):.1f}" if self.reset_s else "",
            f"{1e3 * min(self.step_s):.2f}" if self.step_s else "",
            f"{solved} of {played}" if played else "",
            f"{self.v_min_pu:.2f}" if played else "",
            " / ".join(f"{100 * share:.1f}" for share in self.violations.values()),
            "; ".join(dict.fromkeys(self.errors)),
        ]


def try_feeder(
    feeder: str,
    layouts: tuple[str, ...] = LAYOUTS,
    steps: int = 96,
    days: int = 2,
    timeout_s: float = 300.0,
    **keys: Any,
) -> Trial:
    """Check a feeder, play it at random in every layout and evaluate baselines on it.

    Args:
        feeder: Name of a shipped feeder, or path of a master file.
        layouts: Layouts of agents to play.
        steps: Steps to play in each.
        days: Days that each baseline plays.
        timeout_s: When the check gives up [s].
        keys: Scenario keys to set besides, for example ``add_der``.
    """
    trial = Trial(feeder)
    report = check_feeder(feeder, timeout_s=timeout_s)
    trial.check_s = report.seconds
    found = Counter(finding.severity for finding in report.findings)
    told = [f"{found[severity]} {severity}{'s' * (found[severity] > 1)}" for severity in ("error", "warning")]
    trial.verdict = ", ".join(each for each in told if each[0] != "0") or "fine"
    if report.outcome != "complete":
        trial.verdict = f"{report.outcome} at {report.last_command}"
    for layout in layouts:
        try:
            play(trial, layout, steps, {"agents": layout, **keys})
        except PowerGridError as error:
            trial.errors.append(" ".join(str(error).split()))
    if trial.agents and days:
        try:
            told_of = evaluate({"env_name": feeder, **keys}, POLICIES, days=days)
            shares = told_of.frame.groupby("policy")["violation_share"].mean()
            trial.violations = {policy: float(shares[policy]) for policy in POLICIES}
        except PowerGridError as error:
            trial.errors.append(" ".join(str(error).split()))
    return trial


def play(trial: Trial, layout: str, steps: int, keys: dict[str, Any]) -> None:
    """Play random steps in one layout and add to a trial what came of them."""
    start = time.perf_counter()
    env = powergrid.make(trial.feeder, **keys)
    try:
        trial.make_s.append(time.perf_counter() - start)
        network = env.task.simulation.network
        trial.size = (len(network.buses), len(network.nodes), len(network.loads.names), float(network.loads.kw.sum()))
        trial.devices = Counter(spec.kind for spec in env.scenario.devices.values())
        trial.agents[layout] = len(env.possible_agents)
        for agent in env.possible_agents:
            env.action_space(agent).seed(1)
        start = time.perf_counter()
        env.reset(seed=0)
        trial.reset_s.append(time.perf_counter() - start)
        taken, solved, lowest = [], 0, trial.v_min_pu
        for _ in range(steps):
            if not env.agents:
                env.reset()
            actions = {agent: env.action_space(agent).sample() for agent in env.agents}
            start = time.perf_counter()
            observations, rewards, terminations, _, infos = env.step(actions)
            taken.append(time.perf_counter() - start)
            solved += not any(terminations.values())
            lowest = min(lowest, *(float(info["network_v_min_pu"]) for info in infos.values()))
            outside = [agent for agent, seen in observations.items() if not env.observation_space(agent).contains(seen)]
            if outside:
                trial.errors.append(f"{layout}: observations of {', '.join(outside)} left their space")
            if not np.isfinite(list(rewards.values())).all():
                trial.errors.append(f"{layout}: rewards are not finite")
        trial.steps = (trial.steps[0] + steps, trial.steps[1] + solved)
        trial.step_s.append(statistics.median(taken))
        trial.v_min_pu = lowest
    finally:
        env.close()


def as_table(trials: list[Trial]) -> str:
    """Return a Markdown table of trials, columns without a cell left out."""
    rows = [trial.cells() for trial in trials]
    kept = [i for i in range(len(HEADINGS)) if any(row[i] for row in rows)]
    lines = [[HEADINGS[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_lines(trial: Trial) -> str:
    """Return a line for each cell of a trial that has something in it."""
    cells = zip(HEADINGS, trial.cells(), strict=True)
    return "\n".join(f"{heading:>15}  {cell}" for heading, cell in cells if cell)


def main() -> None:
    """Try the feeders that were named, the shipped ones if none was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("feeders", nargs="*", help="shipped feeders by name, or master files")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="layouts of agents, with commas")
    parser.add_argument("--steps", type=int, default=96, help="random steps in each layout")
    parser.add_argument("--days", type=int, default=2, help="days that each baseline plays; 0 for none")
    parser.add_argument("--add-der", type=float, metavar="PENETRATION", help="place panels and batteries")
    parser.add_argument("--timeout", type=float, default=300.0, help="when a check gives up [s]")
    parser.add_argument("--quick", action="store_true", help="one feeder, one layout, 8 steps: shows that it runs")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table, else a line for each number")
    given = parser.parse_args()
    if given.quick:
        given.feeders, given.layouts, given.steps, given.days = given.feeders[:1] or ["ieee13"], "single", 8, 1
    keys = {} if given.add_der is None else {"add_der": {"penetration": given.add_der}}
    print(machine_line(), file=sys.stderr)
    trials = []
    with tempfile.TemporaryDirectory() as folder:  # first makes shall find nothing kept from before
        os.environ["POWERGRID_CACHE"] = folder
        for feeder in given.feeders or powergrid.list_feeders():
            layouts = tuple(given.layouts.split(","))
            name = Path(feeder).stem if feeder.lower().endswith(".dss") else feeder
            tried = [try_feeder(feeder, layouts, given.steps, given.days, given.timeout, **keys)]
            tried[0].feeder = f"{name} + DER" if keys else name
            if not tried[0].agents and not keys:
                tried.append(try_feeder(feeder, layouts, given.steps, given.days, given.timeout, add_der=ADDED))
                tried[1].feeder = f"{name} + DER"
            trials += tried
            if not given.markdown:
                print("\n\n".join(as_lines(trial) for trial in tried), end="\n\n", flush=True)
    if given.markdown:
        print(as_table(trials))


if __name__ == "__main__":
    main()
