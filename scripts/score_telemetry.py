"""Measure what imperfect information costs: the same days under blocks of telemetry, by baselines and trained policies.

Baselines read the grid directly, so only what happens to setpoints costs them anything. With ``--train``, policies are
trained with readings and setpoints as they are and under ``LATE``, for each seed in both modes, and all are played on
the days of the test split under each; trainings that are there already are taken as they are.

Usage::

    python scripts/score_telemetry.py ieee13_voltvar --days 30
    python scripts/score_telemetry.py ieee13_voltvar --days 30 --train --seeds 0 1 2 --iterations 120
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from powergrid import load_policy
from powergrid.evaluation.rollout import evaluate
from powergrid.scenario import load_scenario

#: How many steps late, and what part is lost, of readings and setpoints of a policy that is trained for it.
STEPS_LATE, LOSS = 2, 0.2
BASELINES = ("native", "rule_based", "greedy")
MEASURES = {
    "reward": "reward_mean",
    "node-hours": "violation_node_hours_per_day",
    "moves": "operations_per_day",
    "losses_kwh": "losses_kwh_per_day",
}
Blocks = dict[str, dict[str, Any]]


def blocks(step_minutes: int) -> Blocks:
    """Return what may happen to setpoints, by name, for a scenario with steps of some length."""
    return {
        "as they are": {},
        "1 step late": {"all": {"delay_minutes": step_minutes}},
        "2 steps late": {"all": {"delay_minutes": 2 * step_minutes}},
        "20 % lost, held": {"all": {"loss": 0.2}},
        "20 % lost, left alone": {"all": {"loss": 0.2, "fallback": "neutral"}},
        "every 4 steps": {"all": {"every_minutes": 4 * step_minutes}},
    }


def late(step_minutes: int) -> dict[str, Any]:
    """Return the block of readings and setpoints that come late or not at all."""
    link = {"delay_minutes": STEPS_LATE * step_minutes, "loss": LOSS}
    return {"readings": {"all": link}, "setpoints": {"all": link}}


def train(name: str, block: Mapping[str, Any], mode: str, seed: int, asked: argparse.Namespace) -> Path:
    """Train a policy under a block, where that is not done, and return its run."""
    run: Path = asked.out / f"{asked.scenario}-telemetry-{name}-{mode}-{seed}"
    if not (run / "run.json").is_file():
        words = ["train", asked.scenario, "--set", f"mode={mode}", "--seed", str(seed), "--test-days", "0"]
        words += ["--set", f"telemetry={json.dumps(block)}", "--iterations", str(asked.iterations)]
        subprocess.run(
            [sys.executable, "-m", "powergrid.cli", *words, "--name", run.name, "--out", str(asked.out)], check=True
        )
    return run


def trained(asked: argparse.Namespace, step_minutes: int) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Train both ways in both modes and yield what each comes to under each block: block, policy, numbers."""
    ways: Blocks = {"exact": {}, "late": late(step_minutes)}
    for mode in ("distributed", "centralized"):
        runs = {way: [train(way, block, mode, seed, asked) for seed in asked.seeds] for way, block in ways.items()}
        for told, given in ways.items():
            for way, own in runs.items():
                policies = [(f"{way}-{run.name[-1]}", load_policy(run)) for run in own]
                report = evaluate(
                    {"env_name": asked.scenario, "mode": mode, "telemetry": given}, policies, days=asked.days
                )
                for row in report.summary().values():
                    yield f"readings and setpoints {told}", f"{mode}, trained {way}", row


def main(arguments: Sequence[str] | None = None) -> None:
    """Play, and write tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    asked = parser.parse_args(arguments)
    step_minutes = load_scenario(asked.scenario).step_minutes
    print(f"| setpoints | policy | {' | '.join(MEASURES)} |\n|{'---|' * (2 + len(MEASURES))}")
    for name, setpoints in blocks(step_minutes).items():
        given = {"env_name": asked.scenario, "telemetry": {"setpoints": setpoints}}
        for policy, row in evaluate(given, BASELINES, days=asked.days).summary().items():
            _write(name, f"`{policy}`", row)
    if asked.train:
        for told, policy, numbers in trained(asked, step_minutes):
            _write(told, policy, numbers)


def _write(told: str, policy: str, row: Mapping[str, Any]) -> None:
    print(f"| {told} | {policy} | {' | '.join(f'{row[key]:.3g}' for key in MEASURES.values())} |", flush=True)


if __name__ == "__main__":
    main()
