"""Train policies on ten feeders and play them on five that they never saw, beside baselines.

Two microgrids, whose policy is shared, are placed by demand on every feeder. One policy sees what every feeder has in
as many numbers (``observations: summary``), the other its zone as a graph besides and reads that by message passing
(``network: graph``), a third adds to what rules propose (``preset: residual``); all else is equal. Most are made
(``make_feeders.py``), all are small enough for zones of ``ROOM`` buses. Trainings that are there already are taken as
they are. Two feeders are those that OpenDSS itself comes with, which are not copied here: ``--upstream`` is the folder
of its test feeders (``IEEETestCases`` of an installation, or of https://github.com/dss-extensions/electricdss-tst).

Usage::

    python scripts/score_generalisation.py --upstream IEEETestCases --seeds 0 1 2 --steps 184320 --days 10
    python scripts/score_generalisation.py --upstream IEEETestCases --sees residual --more path/to/Master.dss
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from make_feeders import write_feeder

from powergrid import load_policy
from powergrid.evaluation import evaluate_feeders
from powergrid.evaluation.report import as_markdown
from powergrid.evaluation.statistics import confidence_interval
from powergrid.training.runs.settings import make_settings

#: Shipped feeders, masters of OpenDSS's own, and seeds of made ones, that are trained on; and those that are not.
SEEN = ("ieee13", "34Bus/ieee34Mod1.dss", 0, 1, 2, 3, 6, 7, 8, 12)
UNSEEN = ("37Bus/ieee37.dss", 11, 16, 18, 19)
#: Buses, and branches, of the largest zone that is played.
ROOM = 22
BASELINES = ("no_control", "native", "volt_var", "rule_based")
SETTINGS = {"hidden": [64, 64], "num_epochs": 6, "num_env_runners": 0, "validate_every": 0, "checkpoint_every": 1000}
SEES: dict[str, dict[str, Any]] = {
    "summary": {"observations": "summary"},
    "graph": {"observations": "graph", "graph": {"max_buses": ROOM, "max_branches": ROOM}},
    "residual": {"observations": "summary"},
}
#: What else is not the same for all of them.
LEARNS: dict[str, dict[str, Any]] = {
    "summary": {},
    "graph": {"network": "graph"},
    "residual": {"preset": "residual"},
}
SCENARIO = """\
name: feeders_mg
description: Two microgrids keep voltages in the band and bills low on whichever feeder the day is played.
feeder: ieee13
placement: {rule: load, seed: 0}
native_controls: true
penalty: 300.0
reward: {scale: 0.002}
devices:
  ess_1: {kind: storage, bus: "675", e_max_kwh: 2400, p_max_kw: 600, s_max_kva: 900, reactive: true,
          wear_usd_per_kwh: 0.005}
  pv_1: {kind: inverter, bus: "675", p_max_kw: 1500, s_max_kva: 1800, reactive: kva}
  ess_2: {kind: storage, bus: "633", e_max_kwh: 1200, p_max_kw: 300, s_max_kva: 450, reactive: true,
          wear_usd_per_kwh: 0.005}
  pv_2: {kind: inverter, bus: "633", p_max_kw: 800, s_max_kva: 960, reactive: kva}
agents:
  MG1: {devices: [ess_1, pv_1], zone: {downstream_of: "671"}, pcc: "671"}
  MG2: {devices: [ess_2, pv_2], zone: {buses: ["633", "634", "645", "646"]}, pcc: "632"}
"""


def write_inputs(out: Path, upstream: Path) -> tuple[Path, dict[str, str], dict[str, str]]:
    """Write the scenario and the made feeders; return its file and both lists of feeders by name.

    Args:
        out: The folder that is written to.
        upstream: The folder of the test feeders that OpenDSS comes with.

    Raises:
        SystemExit: A master is not there, with what to do.
    """
    wanted = [upstream / each for each in (*SEEN, *UNSEEN) if isinstance(each, str) and "/" in each]
    if absent := [str(each) for each in wanted if not each.is_file()]:
        raise SystemExit(
            f"not there: {', '.join(absent)}; --upstream takes the folder of the test feeders that OpenDSS comes with, "
            "IEEETestCases of an installation or of https://github.com/dss-extensions/electricdss-tst"
        )
    out.mkdir(parents=True, exist_ok=True)
    scenario = out / "feeders_mg.yaml"
    scenario.write_text(SCENARIO)
    seen, unseen = ({_name(each): _find(each, out, upstream) for each in asked} for asked in (SEEN, UNSEEN))
    return scenario, seen, unseen


def _name(feeder: str | int) -> str:
    return (
        f"made_{feeder}" if isinstance(feeder, int) else f"{Path(feeder).stem} (OpenDSS)" if "/" in feeder else feeder
    )


def _find(feeder: str | int, out: Path, upstream: Path) -> str:
    if isinstance(feeder, int):
        return str(write_feeder(out / f"made_{feeder}", feeder).resolve())
    return str((upstream / feeder).resolve()) if "/" in feeder else feeder


def train(scenario: Path, feeders: Mapping[str, str], sees: str, seed: int, asked: argparse.Namespace) -> Path:
    """Train a policy on all feeders, where that is not done, and return its run."""
    run: Path = asked.out / f"generalisation-{sees}-{seed}"
    if not (run / "run.json").is_file():
        words = ["train", str(scenario), "--set", f"feeders={json.dumps([*feeders.values()])}", "--seed", str(seed)]
        words += [
            "--iterations",
            str(asked.steps // make_settings("ppo", LEARNS[sees]).train_batch_size),
            "--test-days",
            "0",
            "--name",
            run.name,
            "--out",
            str(asked.out),
        ]
        for key, value in SEES[sees].items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        for name, value in {**SETTINGS, **LEARNS[sees]}.items():
            words += ["--setting", f"{name}={json.dumps(value)}"]
        subprocess.run([sys.executable, "-m", "powergrid.cli", *words], check=True)
    return run


def score(scenario: Path, feeders: Mapping[str, str], asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Play every policy on feeders and yield a row for each day of each: reward and node-hours outside the band."""
    runs = {sees: [asked.out / f"generalisation-{sees}-{seed}" for seed in asked.seeds] for sees in asked.sees}
    players: dict[str, list[Any]] = {"summary": list(BASELINES)}
    for sees, own in runs.items():
        players.setdefault(sees, []).extend((f"{sees}-{run.name[-1]}", load_policy(run)) for run in own)
    names = {path: name for name, path in feeders.items()}
    for sees, policies in ((sees, each) for sees, each in players.items() if each):
        for path, name in names.items():  # one by one: made masters all have the same file name
            found = evaluate_feeders({"env_name": str(scenario), **SEES[sees]}, policies, [path], days=asked.days)
            (report,) = found.reports.values()
            played = report.frame[["policy", "day", "reward", "violation_node_hours"]]
            for policy, day, reward, hours in played.itertuples(index=False):
                yield {"feeder": name, "policy": policy, "day": day, "reward": reward, "hours": hours}


def table(rows: Sequence[Mapping[str, Any]], policies: Sequence[str]) -> str:
    """Return a table of feeders by policies: reward (node-hours outside the band), the mean over all at the end."""
    feeders = list(dict.fromkeys(row["feeder"] for row in rows))
    lines: list[list[str]] = []
    for feeder in [*feeders, "mean"]:
        cells = [feeder]
        for policy in policies:
            own = [r for r in rows if r["policy"].split("-")[0] == policy and feeder in (r["feeder"], "mean")]
            reward, hours = (np.array([r[key] for r in own]) for key in ("reward", "hours"))
            seeds = sorted({r["policy"] for r in own})
            by_seed = [np.mean([r["reward"] for r in own if r["policy"] == seed]) for seed in seeds]
            spread = f" ± {np.std(by_seed, ddof=1):.2f}" if len(by_seed) > 1 else ""
            cells.append(f"{reward.mean():.2f}{spread} ({hours.mean():.1f})")
        lines.append(cells)
    return as_markdown(("feeder", *policies), lines, 1)


def compare(rows: Sequence[Mapping[str, Any]], policies: Sequence[str], to: str = "rule_based") -> str:
    """Return by how much rewards (node-hours) are above those of a baseline, feeder by feeder and in the mean.

    Differences are paired by feeder and day, with 95 % intervals over seeds and days: of these feeders, not of others.
    """
    frame = pd.DataFrame(rows)
    feeders = list(dict.fromkeys(frame["feeder"]))
    lines: list[list[str]] = []
    for feeder in [*feeders, "mean"]:
        own = frame if feeder == "mean" else frame[frame["feeder"] == feeder]
        cells = [feeder]
        for policy in policies:
            found = []
            for key in ("reward", "hours"):
                days = own.pivot_table(index="policy", columns="day", values=key)  # the mean over feeders
                seeds = days[days.index.str.startswith(f"{policy}-")]
                found.append(confidence_interval(seeds.to_numpy() - days.loc[to].to_numpy()))
            (reward, reward_half), (hours, hours_half) = found
            cells.append(f"{reward:+.3f} ± {reward_half:.3f} ({hours:+.2f} ± {hours_half:.2f})")
        lines.append(cells)
    return as_markdown(("feeder", *policies), lines, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not there, play, and write a table of unseen and one of seen feeders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path, required=True, help="folder of the feeders that OpenDSS comes with")
    parser.add_argument("--sees", nargs="+", default=list(SEES), choices=list(SEES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="none: baselines alone")
    parser.add_argument("--steps", type=int, default=184_320, help="of the environment, in each training")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument(
        "--more", nargs="*", default=[], help="further masters to play, unseen; zones of up to 22 buses"
    )
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    asked = parser.parse_args(arguments)
    scenario, seen, unseen = write_inputs(asked.out / "generalisation", asked.upstream)
    for seed in asked.seeds:
        for sees in asked.sees:
            train(scenario, seen, sees, seed, asked)
    if asked.train_only:
        return
    unseen |= {Path(each).parent.name: each for each in asked.more if Path(each).is_file()}
    for name, feeders in (("unseen", unseen), ("seen in training", seen)):
        rows = list(score(scenario, feeders, asked))
        (asked.out / f"generalisation-{name.split()[0]}.json").write_text(json.dumps(rows, indent=1) + "\n")
        print(f"\n{name}: reward of a day (node-hours outside the band), ± standard deviation over seeds\n")
        print(table(rows, [*BASELINES, *(asked.sees if asked.seeds else ())]), end="", flush=True)
        if asked.seeds:
            print(f"\n{name}: less those of rule_based, with 95 % intervals over seeds and days\n")
            print(compare(rows, asked.sees), end="", flush=True)


if __name__ == "__main__":
    main()
