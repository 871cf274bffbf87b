"""Train on a scenario with several seeds and tell how nodes outside range A and moves compare with its own controls.

What ``docs/results.md`` says of volt-var scenarios is what this prints, as a table in Markdown: means over days of the
test split, and differences from ``native`` paired by day, each with its 95 % interval (Student's t). A run that is
there already is not trained again, so that a call that was stopped goes on with the next one.

Usage::

    python scripts/record_voltvar.py ieee13_voltvar ieee34_voltvar ieee123_voltvar --seeds 0 1 2 --out runs
    python scripts/record_voltvar.py path/to/Master.dss --goal taps --days 63
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from powergrid.errors import PowerGridError
from powergrid.evaluation import confidence_interval, evaluate
from powergrid.training import load_policy, train

BASELINES = ["native", "no_control", "rule_based"]
#: Columns of an evaluation, what they are called, and how many decimals they have.
MEASURES = {
    "violation_node_hours": ("node-h outside", 1),
    "operations": ("moves", 1),
    "losses_kwh": ("losses, kWh", 0),
    "storage_cycles": ("battery cycles", 2),
}
#: Those whose difference from the feeder's own controls is told.
COMPARED = ("violation_node_hours", "operations")


def main() -> None:
    """Train what is not trained yet, evaluate, and print a table for each scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+", help="scenarios or feeders, by name or file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--days", type=int, default=63, help="days of the test split")
    parser.add_argument("--goal", help="aim by name; the scenario's own weights if unset")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    asked = parser.parse_args()
    for scenario in asked.scenarios:
        env_config: dict[str, Any] = {"env_name": scenario}
        if asked.goal:
            env_config["reward.goal"] = asked.goal
        runs = [train_once(env_config, Path(scenario).stem, seed, asked.iterations, asked.out) for seed in asked.seeds]
        print(tell(env_config, runs, asked.days), flush=True)


def train_once(env_config: dict[str, Any], name: str, seed: int, iterations: int, out: Path) -> Path:
    """Return the folder of a run, trained now unless it is there."""
    folder = out / f"{name}-{seed}"
    if not (folder / "checkpoints" / "best").is_file():
        train(env_config, {"seed": seed, "iterations": iterations}, out_dir=out, name=folder.name)
    return folder


def tell(env_config: dict[str, Any], runs: list[Path], days: int) -> str:
    """Return the table of what runs and baselines come to on the same days."""
    players: list[Any] = [*BASELINES, *((run.name, load_policy(run)) for run in runs)]
    report = evaluate(env_config, players, split="test", days=days)
    by_policy = dict(tuple(report.frame.groupby("policy", sort=False)))
    native = by_policy["native"].set_index("day")
    if not all(frame["finished"].all() for frame in by_policy.values()):
        raise PowerGridError("a day diverged; its sums are those of fewer hours, and nothing can be compared with them")
    heads = ["policy"]
    for column, (head, _) in MEASURES.items():
        heads += [head, "less native's"] if column in COMPARED else [head]
    lines = [f"{env_config['env_name']}, {len(native)} test days, a day:", ""]
    lines += [f"| {' | '.join(heads)} |", f"|---{'|---:' * (len(heads) - 1)}|"]
    for name, frame in by_policy.items():
        row, own = [str(name)], frame.set_index("day")
        for column, (_, decimals) in MEASURES.items():
            row.append(f"{own[column].mean():.{decimals}f}")
            if column in COMPARED:
                mean, half = confidence_interval(own[column] - native[column])
                row.append("" if name == "native" else f"{mean:+.{decimals}f} ± {half:.{decimals}f}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
