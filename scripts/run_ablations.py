"""Train every lever of learning alone, and all of them together, over several seeds and for as many steps.

Gone on with where it was stopped. What each comes to on the test days is measured afterwards, by the command that is
printed at the end. Days of the optimum to imitate are recorded first, of the training split; those of rules are played
by each training.

Usage::

    python scripts/run_ablations.py ieee13_mg --seeds 0 1 2 --steps 184320 --out runs
    python scripts/run_ablations.py ieee13_mg --only from_scratch outlook imitate_rules
    python scripts/run_ablations.py ieee34_mg --list
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from powergrid.training.runs.settings import make_settings

#: Words that each lever adds to `powergrid train`; {optimum} is a folder of demonstrations.
GENTLE = ["--setting", "lr=3e-4", "--setting", "entropy_coeff=0"]
RULES = ["--preset", "imitate", "--setting", "imitation_days=120"]
LEVERS: dict[str, list[str]] = {
    "from_scratch": [],
    "outlook": ["--set", "outlook={}"],
    "outlook_persistence": ["--set", "outlook={forecast: persistence}"],
    "spread_of_state": ["--setting", "free_log_std=false"],
    "spread_led": ["--setting", "final_log_std=-3"],
    "imitate_optimum": ["--setting", "demonstrations={optimum}", *GENTLE],
    "imitate_rules": RULES,
    "imitate_rules_outlook": [*RULES, "--set", "outlook={}"],
    "residual": ["--preset", "residual"],
    "residual_hard_days": [
        *("--preset", "residual", "--setting", "hard_days=0.5", "--setting", "proposals_coeff=3"),
        *("--setting", "initial_log_std=-3", "--setting", "final_log_std=-4.5"),
    ],
    "recurrent": ["--setting", "network=gru"],
    "gentle": GENTLE,
    "wide": ["--setting", "hidden=[256, 256]"],
    "far_sighted": ["--setting", "gamma=0.997", "--setting", "lambda_=0.97"],
    "day_ends": ["--setting", "bootstrap_horizon=false"],
    "rate_by_kl": ["--setting", "lr_kl_target=0.01"],
    "together": [
        *("--set", "outlook={}", "--setting", "demonstrations={optimum}", *GENTLE),
        *("--setting", "final_log_std=-3", "--setting", "bootstrap_horizon=false"),
    ],
    "together_rules": [
        *(*RULES, "--set", "outlook={}"),
        *("--setting", "final_log_std=-3", "--setting", "bootstrap_horizon=false"),
    ],
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Record, train, and say how to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=LEVERS, default=list(LEVERS), metavar="LEVER")
    parser.add_argument("--steps", type=int, default=184_320, help="of the environment, in each training")
    parser.add_argument("--minutes", type=float, help="most of each training")
    parser.add_argument("--optimum-days", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--list", action="store_true", help="print the commands and run none")
    asked = parser.parse_args(arguments)
    shown = asked.out / "demonstrations" / f"{asked.scenario}-optimum"
    if any("{optimum}" in word for own in asked.only for word in LEVERS[own]):
        words = ["demonstrate", asked.scenario, "--policy", "optimum", "--days", str(asked.optimum_days)]
        _run([*words, "--out", str(shown)], only_say=asked.list)
    runs = []
    for seed in asked.seeds:  # all levers of a seed before the next: whoever stops has them all alike
        for lever in asked.only:
            name = f"{asked.scenario}-{lever}-{seed}"
            runs.append(asked.out / name)
            if (asked.out / name / "run.json").is_file():
                if not _is_finished(asked.out / name):
                    _run(["train", "--resume", str(asked.out / name), "--test-days", "0"], only_say=asked.list)
                continue
            words = [word.replace("{optimum}", str(shown)) for word in LEVERS[lever]]
            if "--preset" not in words:  # each lever alone, from scratch but for it
                words = ["--preset", "fast", *words]
            batch = make_settings("ppo", {"preset": words[words.index("--preset") + 1]}).train_batch_size
            fixed = ["--seed", str(seed), "--iterations", str(asked.steps // batch), "--test-days", "0"]
            limit = [] if asked.minutes is None else ["--minutes", str(asked.minutes)]
            place = ["--out", str(asked.out), "--name", name]
            _run(["train", asked.scenario, *fixed, *limit, *words, *place], only_say=asked.list)
    measured = ["measure", asked.scenario, "--as", f"{asked.scenario}_ablations", "--ablations", "--runs"]
    print("Measure them with:", shlex.join(["python", "scripts/make_results.py", *measured, *map(str, runs)]))


def _is_finished(run: Path) -> bool:
    """Whether a run has ended as it was asked to."""
    return json.loads((run / "run.json").read_text())["sessions"][-1].get("stopped") in ("finished", "time limit")


def _run(words: Sequence[str], *, only_say: bool) -> None:
    print(shlex.join(["powergrid", *words]), flush=True)
    if not only_say:
        subprocess.run([sys.executable, "-m", "powergrid.cli", *words], check=True)


if __name__ == "__main__":
    main()
