"""Search the constants of ``rule_based`` on training days of shipped scenarios, and keep what was tried.

One set of constants for all scenarios. One constant after the other, each tried at every value of its grid with the
others as they stand, and again from the first until a whole pass changes none, ``--passes`` times at most. What counts
is the mean over scenarios of the reward above ``no_control`` on training days, in parts of what the first constants
have there, or of half of what ``no_control`` loses where that is more; a value is taken where the mean rises by more
than ``LEAST``. No validation or test day is played.

The record holds the constants, the grid, the days and every score.

Usage::

    python scripts/tune_rules.py [--days 6] [--passes 1] [--scenario NAME ...] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from powergrid.envs.core import GridTask
from powergrid.evaluation.baselines import NoControl, RuleBased, RuleConstants
from powergrid.evaluation.rollout import play_days
from powergrid.grid.profiles.profiles import pick_days
from powergrid.scenario import load_scenario

SCENARIOS = (
    *("ieee13_mg", "ieee34_mg", "ieee123_mg", "ieee34_ieee13"),
    *("ieee13_voltvar", "ieee34_voltvar"),
)
#: What each constant is tried at; voltages of the droop lie in what IEEE Std 1547-2018 allows category B.
GRID: dict[str, Sequence[Any]] = {
    "export_pu": (0.93, 0.97, 1.0, 10.0),
    "volt_var_pu": (
        *((0.92, 0.98, 1.02, 1.08), (0.92, 0.96, 1.04, 1.08), (0.94, 0.97, 1.04, 1.06)),
        *((0.95, 0.98, 1.03, 1.06), (0.94, 0.96, 1.045, 1.06)),
    ),
    "noon_share": (0.0, 0.15, 0.3),
    "support_pu": ((0.02, 0.2), (0.04, 0.2)),
    "volt_var_step": (0.15, 0.25, 0.4),
    "switch_margin_pu": (0.0, 0.005, 0.01),
}
#: From which rise of the score on a value is taken: less is chance.
LEAST = 0.003


class Trials:
    """Score constants on the same training days of each scenario.

    Args:
        tasks: A task for each scenario by name, an environment for each day.
        days: The days of each.
    """

    def __init__(self, tasks: Mapping[str, GridTask], days: Mapping[str, Sequence[int]]) -> None:
        self._tasks, self._days = tasks, days
        self._nothing = {name: self._mean(name, NoControl()) for name in tasks}
        self._first: dict[str, float] = {}

    def _mean(self, name: str, player: Any) -> float:
        return float(np.mean([row["reward"] for row in play_days(self._tasks[name], player, self._days[name])]))

    def play(self, constants: RuleConstants) -> tuple[float, dict[str, float]]:
        """Return the score, and the mean reward on each scenario; see the module."""
        rewards = {name: self._mean(name, RuleBased(constants)) for name in self._tasks}
        self._first = self._first or rewards
        nothing, first = self._nothing, self._first
        spans = {name: max(abs(first[name] - nothing[name]), 0.5 * abs(nothing[name])) for name in rewards}
        return float(np.mean([(rewards[name] - nothing[name]) / spans[name] for name in rewards])), rewards


def search(trials: Trials, start: RuleConstants, passes: int) -> tuple[RuleConstants, list[dict[str, Any]]]:
    """Return the best constants that were found, and each that was tried with its score."""
    best, (score, rewards) = start, trials.play(start)
    tried = [{"constants": asdict(best), "score": score, "rewards": rewards}]
    seen, changed = {best}, True
    while changed and passes:
        changed, passes = False, passes - 1
        for name, values in GRID.items():
            candidates = [c for value in values if (c := replace(best, **{name: value})) not in seen]
            for candidate in candidates:
                seen.add(candidate)
                found, rewards = trials.play(candidate)
                tried.append({"changed": {name: getattr(candidate, name)}, "score": found, "rewards": rewards})
                print(f"{name} {getattr(candidate, name)}: {found:.4f}", flush=True)
                if found > score + LEAST:
                    best, score, changed = candidate, found, True
    return best, tried


def main() -> None:
    """Search, and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=6, help="training days of each scenario")
    parser.add_argument("--passes", type=int, default=1, help="passes over all constants at most")
    parser.add_argument("--scenario", action="append", help="one of these alone; repeatable")
    parser.add_argument("--out", type=Path, help="where to keep the record")
    args = parser.parse_args()
    with ExitStack() as stack:
        tasks, days, digests = {}, {}, {}
        for name in args.scenario or SCENARIOS:
            scenario = load_scenario(name, {"split": "train"})
            task = tasks[name] = stack.enter_context(closing(GridTask(scenario, args.days)))
            days[name] = pick_days(task.simulation.days, args.days).tolist()
            digests[name] = scenario.digest()
        best, tried = search(Trials(tasks, days), RuleConstants(), args.passes)
    record = {
        "constants": asdict(best), "grid": GRID, "least": LEAST, "passes": args.passes, "days": days,
        "scenario_digests": digests, "tried": tried,
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(asdict(best), indent=1))


if __name__ == "__main__":
    main()
