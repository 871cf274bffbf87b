"""Play baselines on the tasks of PowerGrid-Bench, freeze what tasks are pinned to, and write the leaderboard's page.

``--freeze`` is for a new version of the benchmark alone: it writes the digests and days of ``tasks.yaml`` anew.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from powergrid.errors import PowerGridError
from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.benchmark import Entrant, Task, play_task, read_benchmark, read_result
from powergrid.evaluation.benchmark.page import make_page
from powergrid.evaluation.benchmark.play import summarise
from powergrid.evaluation.benchmark.score import find_files, score_results
from powergrid.evaluation.benchmark.tasks import REFERENCES, TASKS, Benchmark
from powergrid.files import write_whole
from powergrid.grid.profiles.profiles import builtin_profiles, split_days

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "leaderboard.md"
RESULTS = ROOT / "docs" / "benchmark"
PACKAGE = ROOT / "powergrid" / "evaluation" / "benchmark"
#: Whom scores are counted from.
ENDS = ("no_control", "optimum")


def freeze() -> None:
    """Write the days of the splits and the digests of what is here into ``tasks.yaml``."""
    file = PACKAGE / TASKS
    text = file.read_text(encoding="utf-8")
    profiles = builtin_profiles()
    for split in ("train", "validation"):
        spans = _as_spans(split_days(profiles, split=split).tolist())
        text = re.sub(rf"^  {split}: .*$", f"  {split}: {json.dumps(spans)}", text, flags=re.MULTILINE)
    played = split_days(profiles, split="test")[1::3].tolist()
    text = re.sub(r"^  test: .*$", f"  test: {json.dumps(played)}", text, flags=re.MULTILINE)
    text = re.sub(r"^    digests:\n(      \w+: \w+\n)+", "", text, flags=re.MULTILINE)
    for name, data in yaml.safe_load(text)["tasks"].items():
        digests = Task.model_validate({**data, "digests": dict.fromkeys(_DIGESTS, "")}).take_digests()
        lines = "".join(f"      {key}: {digest}\n" for key, digest in digests.items())
        head, body = re.split(rf"(?<=^  {name}:\n)", text, maxsplit=1, flags=re.MULTILINE)
        text = f"{head}    digests:\n{lines}{body}"
    write_whole(file, text)
    read_benchmark.cache_clear()


_DIGESTS = ("trained", "played", "feeder", "profiles")


def _as_spans(days: Sequence[int]) -> list[list[int]]:
    spans: list[list[int]] = []
    for day in days:
        if spans and spans[-1][1] == day - 1:
            spans[-1][1] = day
        else:
            spans.append([day, day])
    return spans


def play(benchmark: Benchmark, tasks: Iterable[str], policies: Sequence[str], anew: bool) -> None:
    """Play baselines on tasks and keep each result, where it is not there yet or of another task."""
    for name in tasks:
        for policy in policies:
            if not anew and _is_there(benchmark, name, policy):
                continue
            command, begin = ["powergrid", "benchmark", "run", name, "--policy", policy], time.monotonic()
            try:
                result = play_task(benchmark, name, Entrant(policy), command=shlex.join(command))
            except PowerGridError as error:
                print(f"{name} {policy}: {error}", flush=True)
                continue
            file = result.write(RESULTS)
            print(f"{file.name}: {result.summary.reward:.4f} in {time.monotonic() - begin:.0f} s", flush=True)


def _is_there(benchmark: Benchmark, name: str, policy: str) -> bool:
    file = RESULTS / f"{name}.{policy}.json"
    return file.is_file() and read_result(file).task_digest == benchmark.digest(name)


def keep_references(benchmark: Benchmark) -> None:
    """Write the rewards that scores are counted from, of the results that are there, into the package."""
    kept: dict[str, Any] = {}
    for name in benchmark.tasks:
        there = [policy for policy in ENDS if _is_there(benchmark, name, policy)]
        if there:
            rewards = {
                policy: read_result(RESULTS / f"{name}.{policy}.json").results["-"]["reward"] for policy in there
            }
            kept[name] = {"task_digest": benchmark.digest(name), "rewards": rewards}
    tasks = [
        f' "{name}": {{"task_digest": "{each["task_digest"]}", "rewards": {{\n'
        + ",\n".join(f'  "{policy}": {json.dumps(values)}' for policy, values in each["rewards"].items())
        + "}}"
        for name, each in kept.items()
    ]
    write_whole(PACKAGE / REFERENCES, "{\n" + ",\n".join(tasks) + "\n}\n")


def sum_up_again(benchmark: Benchmark) -> None:
    """Work the summaries of all results out again, from the references that there are now."""
    for file in find_files([RESULTS]):
        result = read_result(file)
        references = benchmark.rewards_of(result.task) if result.task in benchmark.tasks else {}
        summary = summarise(result.results, result.usd_per_reward, references)
        if summary != result.summary:
            result.model_copy(update={"summary": summary}).sealed().write(RESULTS)


def main() -> int:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--freeze", action="store_true", help="write days and digests into tasks.yaml first")
    parser.add_argument("--tasks", nargs="*", help="tasks, all if not given")
    parser.add_argument("--policies", nargs="*", default=list(BASELINES), help="baselines, all if not given")
    parser.add_argument("--anew", action="store_true", help="play also what is there")
    asked = parser.parse_args()
    if asked.freeze:
        freeze()
    benchmark = read_benchmark()
    RESULTS.mkdir(exist_ok=True)
    play(benchmark, asked.tasks or benchmark.tasks, asked.policies, asked.anew)
    keep_references(benchmark)
    read_benchmark.cache_clear()
    sum_up_again(read_benchmark())
    write_whole(PAGE, make_page(score_results(read_benchmark(), [RESULTS])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
