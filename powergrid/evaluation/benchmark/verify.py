"""Check a result against what its days come to when they are played again; a number that was altered is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from powergrid.errors import Problem, list_names
from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.benchmark.play import (
    NO_SEED,
    Entrant,
    Played,
    Progress,
    play_entrant,
    summarise,
)
from powergrid.evaluation.benchmark.result import Result, shorten_number
from powergrid.evaluation.benchmark.tasks import Benchmark, find_sees_problems
from powergrid.evaluation.players import Policy
from powergrid.evaluation.report import describe_versions
from powergrid.files import read_bytes
from powergrid.grid.profiles.profiles import pick_days

#: How far a number may be off, of itself and at least: seven digits are written, and another processor adds up
#: float32 products of a network in another order.
TOLERANCE = 1e-5
#: Differing numbers that are told one by one.
_MOST_TOLD = 8
#: The files of a policy, in the order in which they are hashed.
POLICY_FILES = ("policy.json", "weights.npz")
#: What no replay can tell.
UNVERIFIED = (
    "how long and on what a policy was trained, and with which seed: its run says so",
    "that no test day was used in training or to choose among policies",
    "machine, command and versions",
)


@dataclass(frozen=True)
class Verdict:
    """What became of a result.

    Attributes:
        problems: Why it is refused; none where it stands.
        days: Days that were played again.
        notes: What has to be known of the check.
    """

    problems: tuple[Problem, ...]
    days: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def stands(self) -> bool:
        """Whether nothing was found against it."""
        return not self.problems


def verify_result(
    benchmark: Benchmark,
    result: Result,
    policies: Mapping[str, Policy],
    weights: Mapping[str, str],
    *,
    days: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Play a result's days again and compare every number.

    Args:
        benchmark: The benchmark.
        result: What is claimed.
        policies: The policies beside it, by seed; none for a baseline.
        weights: SHA-256 of each policy's files as they are.
        days: How many of the days are played again, spread evenly; all if not given.
        progress: Called with the number of days played and to play.

    Raises:
        ScenarioError: What is here is not the task that was frozen.
    """
    problems = list(check_result(benchmark, result, weights))
    if problems:
        return Verdict(tuple(problems), (), ())
    task = benchmark.find(result.task)
    task.require_unchanged(result.task)
    replayed = list(result.days) if days is None else [int(day) for day in pick_days(np.array(result.days), days)]
    entrant = Entrant(result.player.name, policies, result.player.sees)
    found = play_entrant(benchmark, task, entrant, days=replayed, progress=progress)
    problems = list(compare_days(benchmark, result, found, replayed))
    scenario = task.build_played(result.player.sees)
    usd = shorten_number(len(scenario.agents) / scenario.reward.scale)
    if usd != result.usd_per_reward:
        problems.append(Problem("number-differs", "usd_per_reward", f"is {result.usd_per_reward}, not {usd}"))
    return Verdict(tuple(problems), tuple(replayed), tuple(_say_versions(result)))


def check_result(benchmark: Benchmark, result: Result, weights: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with a result without playing a day: it is damaged, of another task, or not complete."""
    if result.digest != result.take_digest():
        yield Problem(
            "digest-differs",
            "digest",
            f"is {result.digest[:12] or 'not there'}, that of the content {result.take_digest()[:12]}",
            "the file was changed after it was written",
        )
    if result.benchmark != benchmark.full_name or result.task not in benchmark.tasks:
        text = f"{result.task} of {result.benchmark} is no task of {benchmark.full_name}"
        yield Problem("unknown-task", "task", text)
        return
    pinned = {"task_digest": benchmark.digest(result.task)}
    pinned |= {f"digests.{name}": each for name, each in benchmark.find(result.task).digests.model_dump().items()}
    told = {"task_digest": result.task_digest, **{f"digests.{name}": each for name, each in result.digests.items()}}
    for name in dict.fromkeys((*pinned, *told)):
        if pinned.get(name) != told.get(name):
            came, here = (str(each.get(name, "not there"))[:12] for each in (told, pinned))
            yield Problem("task-changed", name, f"is {came}, of the task {here}")
    yield from find_sees_problems(result.player.sees)
    yield from _check_days(benchmark, result)
    yield from _check_player(benchmark, result, weights)
    references = benchmark.rewards_of(result.task)
    yield from _compare_summary(result, references)


def _check_days(benchmark: Benchmark, result: Result) -> Iterator[Problem]:
    if tuple(result.days) != benchmark.days.test:
        yield Problem("days-differ", "days", "are not those of the task", "play all of its days, in their order")
    if result.seed != benchmark.day_seed:
        yield Problem("days-differ", "seed", f"is {result.seed}, of the benchmark {benchmark.day_seed}")
    for seed, own in result.results.items():
        for metric in dict.fromkeys((*benchmark.metrics, *own)):
            count = len(own.get(metric, ()))
            if metric not in benchmark.metrics or count != len(benchmark.days.test):
                there = f"{count} numbers; the task has {len(benchmark.days.test)} days"
                text = there if metric in benchmark.metrics else "is no metric of the benchmark"
                yield Problem("incomplete", f"results.{seed}.{metric}", text)


def _check_player(benchmark: Benchmark, result: Result, weights: Mapping[str, str]) -> Iterator[Problem]:
    player = result.player
    if player.kind == "baseline":
        if player.name not in BASELINES:
            yield Problem("unknown-policy", "player.name", f"{player.name!r} is no baseline here")
        if set(result.results) != {NO_SEED}:
            yield Problem("incomplete", "results", f"a baseline has no seeds, but there are {list(result.results)}")
        return
    seeds, task = [str(seed) for seed in benchmark.training_seeds], benchmark.find(result.task)
    if player.name in BASELINES:
        yield Problem("taken", "player.name", f"{player.name!r} is the name of a baseline", "give it another one")
    if sorted(result.results) != sorted(seeds):
        text = f"has seeds {list_names(list(result.results))}; the benchmark asks for {', '.join(seeds)}"
        yield Problem("incomplete", "results", text)
    for seed in result.results:
        came, there = player.weights.get(seed, "not there"), weights.get(seed, "not there")
        if came != there or there == "not there":
            text = f"is {came[:12]}, that of the policy beside the file {there[:12]}"
            yield Problem("weights-differ", f"player.weights.{seed}", text, f"it has to lie in {result.stem}/{seed}")
        if (own := player.training.get(seed)) is None:
            yield Problem("incomplete", f"player.training.{seed}", "is not there")
        elif not task.holds(own.env_steps, own.minutes):
            text = f"took {own.env_steps:,} steps and {own.minutes:g} minutes"
            given = f"the task gives {task.env_steps:,} steps and {task.minutes:g} minutes"
            yield Problem("over-budget", f"player.training.{seed}", f"{text}; {given}")


def compare_days(benchmark: Benchmark, result: Result, found: Played, replayed: Sequence[int]) -> Iterator[Problem]:
    """Yield which numbers of days are not those that came out as they were played again."""
    place = {day: i for i, day in enumerate(result.days)}
    differ = [
        Problem("number-differs", f"results.{seed}.{metric}, day {day}", f"is {claimed:.7g}, played again {here:.7g}")
        for seed, own in result.results.items()
        for metric in benchmark.metrics
        for day, here in zip(replayed, found[seed][metric], strict=True)
        if not is_close(claimed := own[metric][place[day]], here)
    ]
    yield from differ[:_MOST_TOLD]
    if len(differ) > _MOST_TOLD:
        yield Problem("number-differs", "results", f"{len(differ) - _MOST_TOLD} more numbers differ")


def _compare_summary(result: Result, references: Mapping[str, Sequence[float]]) -> Iterator[Problem]:
    try:
        here = summarise(result.results, result.usd_per_reward, references).model_dump()
    except (KeyError, ValueError):  # what is missing is told already
        return
    for key, claimed in result.summary.model_dump().items():
        if not _alike(claimed, here[key]):
            yield Problem("number-differs", f"summary.{key}", f"is {claimed}, worked out again {here[key]}")


def _alike(claimed: Any, here: Any) -> bool:
    if isinstance(claimed, Mapping) and isinstance(here, Mapping):
        return set(claimed) == set(here) and all(_alike(claimed[key], here[key]) for key in here)
    if claimed is None or here is None:
        return claimed is here
    return is_close(claimed, here)


def is_close(claimed: float, here: float) -> bool:
    """Tell whether two numbers are the same within :data:`TOLERANCE` of themselves, at least of 1."""
    return abs(claimed - here) <= TOLERANCE * max(1.0, abs(here))


def _say_versions(result: Result) -> Iterator[str]:
    here = describe_versions()
    other = [f"{name} {result.versions.get(name)}, here {now}" for name, now in here.items()
             if result.versions.get(name) != now]  # fmt: skip
    if other:
        yield f"made with other versions: {list_names(other)}"


def weights_folders(file: str | Path, result: Result) -> dict[str, Path]:
    """Return where the policies of a result lie, by seed: beside its file, or beside that of another task of theirs."""
    place, found = Path(file).parent, dict[str, Path]()
    for seed, sha in result.player.weights.items():
        own = place / result.stem / seed
        found[seed] = own if own.is_dir() else find_policy(place, result.player.name, seed, sha) or own
    return found


def find_policy(place: Path, player: str, seed: str, sha: str) -> Path | None:
    """Return a folder of a player's policy, beside a result of whatever task, that holds the files of a SHA-256."""
    folders = {str(own): own for own in sorted(place.glob(f"*.{player}/{seed}"))}
    return next((folders[name] for name, hashed in hash_policies(folders).items() if hashed == sha), None)


def hash_policy(folder: Path) -> str:
    """Return the SHA-256 of a policy's two files, one after the other.

    Raises:
        PowerGridError: A file is not there.
    """
    digest = hashlib.sha256()
    for name in POLICY_FILES:
        digest.update(read_bytes(folder / name))
    return digest.hexdigest()


def hash_policies(folders: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each policy that is there, by seed."""
    found = {}
    for seed, folder in folders.items():
        if all((folder / name).is_file() for name in POLICY_FILES):
            found[seed] = hash_policy(folder)
    return found
