"""Measure what imperfect information costs: the same days under blocks of telemetry, by baselines and trained policies.

Baselines read the grid directly, so only what happens to setpoints costs them anything. With ``--train``, policies are
trained with readings and setpoints as they are and under ``late``, for each seed in each mode, and all are played on
the days of the test split under each; trainings that are there already are taken as they are. Differences between the
two ways of training, and between the modes, are paired by seed and day, with 95 % intervals over both. Then those
trained with all as it is, in the first mode, are played with each group of readings, and setpoints, less than perfect
in one way at a time.

Usage::

    python scripts/score_telemetry.py ieee13_voltvar --days 30
    python scripts/score_telemetry.py ieee13_voltvar --days 30 --train --seeds 0 1 2 --iterations 120
    python scripts/score_telemetry.py ieee34_mg --days 63 --baselines --train --iterations 30 --modes distributed
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid import load_policy
from powergrid.evaluation.rollout import evaluate
from powergrid.evaluation.statistics import confidence_interval
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
#: The same by the columns of played days.
COLUMNS = {"reward": "reward", "node-hours": "violation_node_hours", "moves": "operations"}
Blocks = dict[str, dict[str, Any]]
Table = dict[str, npt.NDArray[np.float64]]


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
        words += [word for setting in asked.setting for word in ("--setting", setting)]
        subprocess.run(
            [sys.executable, "-m", "powergrid.cli", *words, "--name", run.name, "--out", str(asked.out)], check=True
        )
    return run


def parts(asked: argparse.Namespace, step_minutes: int) -> Blocks:
    """Return a block for each group of readings, and setpoints, that are less than perfect in one way."""
    devices = load_scenario(asked.scenario).devices
    groups = {
        "voltages": ["*v_*_pu"],
        "powers and loadings": ["*_kw", "*_kvar", "*loading_pu"],
        "devices": [f"{device}.*" for device in devices],
        "all readings": ["*"],
    }
    ways: Blocks = {
        "2 steps late": {"delay_minutes": 2 * step_minutes},
        "20 % lost": {"loss": 0.2},
        "every 4 steps": {"every_minutes": 4 * step_minutes},
    }
    errors: Blocks = {"class 1.0": {"accuracy": "class_1_0"}, "5 % noise": {"noise": 0.05}}
    found: Blocks = {"as they are": {}}
    for name, channels in groups.items():
        for way, link in (ways | errors).items():
            found[f"{name}, {way}"] = {"readings": {"group": {"channels": channels, **link}}}
    return found | {f"setpoints, {way}": {"setpoints": {"all": link}} for way, link in ways.items()}


def played(runs: Mapping[str, Sequence[Path]], scenario: Mapping[str, Any], days: int) -> dict[str, Table]:
    """Play runs, and return what each name's came to by measure, each of shape (n_seeds, n_days)."""
    policies = [(f"{name} {i}", load_policy(run)) for name, own in runs.items() for i, run in enumerate(own)]
    frame = evaluate(scenario, policies, days=days).frame.set_index(["policy", "day"]).sort_index()
    by_name = {name: [f"{name} {i}" for i in range(len(own))] for name, own in runs.items()}
    return {
        name: {key: np.array([frame.loc[each, column] for each in own]) for key, column in COLUMNS.items()}
        for name, own in by_name.items()
    }


def compare(asked: argparse.Namespace, step_minutes: int) -> dict[str, Sequence[Path]]:
    """Train both ways in each mode, write what each comes to under each block, and return the runs of the first."""
    ways: Blocks = {"as they are": {}, "late and lost": late(step_minutes)}
    runs: dict[str, dict[str, Sequence[Path]]] = {}
    for mode in asked.modes:
        told = zip(("exact", "late"), ways.items(), strict=True)
        runs[mode] = {f"trained {way}": [train(name, block, mode, seed, asked) for seed in asked.seeds]
                      for name, (way, block) in told}  # fmt: skip
    print(f"\n| readings and setpoints | policy | {' | '.join(COLUMNS)} |\n|{'---|' * (2 + len(COLUMNS))}")
    for way, block in ways.items():
        found = {
            mode: played(own, {"env_name": asked.scenario, "mode": mode, "telemetry": block}, asked.days)
            for mode, own in runs.items()
        }
        for mode, each in found.items():
            for name, table in each.items():
                _write(way, f"{mode}, {name}", [f"{table[key].mean():.3f}" for key in COLUMNS])
            exact, own = each.values()
            _write(way, f"{mode}: the second less the first", _differences(own, exact))
        for name in next(iter(found.values())) if len(found) > 1 else ():
            one, other = (each[name] for each in found.values())
            _write(way, f"{' less '.join(reversed(found))}, {name}", _differences(other, one))
    return dict([next(iter(runs[asked.modes[0]].items()))])


def main(arguments: Sequence[str] | None = None) -> None:
    """Play, and write tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--baselines", nargs="*", default=list(BASELINES), help="who plays without training, or nobody")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE", help="of trainings; repeatable")
    parser.add_argument("--modes", nargs="+", default=["distributed", "centralized"])
    parser.add_argument("--out", type=Path, default=Path("runs"))
    asked = parser.parse_args(arguments)
    step_minutes = load_scenario(asked.scenario).step_minutes
    print(f"| setpoints | policy | {' | '.join(MEASURES)} |\n|{'---|' * (2 + len(MEASURES))}")
    for name, setpoints in blocks(step_minutes).items() if asked.baselines else ():
        given = {"env_name": asked.scenario, "telemetry": {"setpoints": setpoints}}
        for policy, row in evaluate(given, asked.baselines, days=asked.days).summary().items():
            _write(name, f"`{policy}`", [f"{row[key]:.3g}" for key in MEASURES.values()])
    if not asked.train:
        return
    runs, plain = compare(asked, step_minutes), Table()
    print(f"\n| one way | {' | '.join(COLUMNS)} | differences |\n|{'---|' * (2 + len(COLUMNS))}")
    for name, block in parts(asked, step_minutes).items():
        given = {"env_name": asked.scenario, "mode": asked.modes[0], "telemetry": block}
        (table,) = played(runs, given, asked.days).values()
        plain = plain or table
        means = [f"{table[key].mean():.3f}" for key in COLUMNS]
        _write(name, " | ".join(means), ["; ".join(_differences(table, plain))])


def _differences(ours: Table, theirs: Table) -> list[str]:
    found = [confidence_interval(ours[key] - theirs[key]) for key in COLUMNS]  # a seed draws the same days for both
    return [f"{mean:+.3f} ± {half:.3f}" for mean, half in found]


def _write(told: str, policy: str, cells: Sequence[str]) -> None:
    print(f"| {told} | {policy} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
