"""Put a result and its policies into their place among the others, after all that can be told without playing."""

from __future__ import annotations

from pathlib import Path

from powergrid.errors import ScenarioError
from powergrid.evaluation.benchmark.result import Result
from powergrid.evaluation.benchmark.signing import signature_of
from powergrid.evaluation.benchmark.tasks import Benchmark
from powergrid.evaluation.benchmark.verify import (
    POLICY_FILES,
    check_result,
    find_policy,
    hash_policies,
    weights_folders,
)
from powergrid.files import make_folder, telling, write_whole


def submit_result(benchmark: Benchmark, file: Path, result: Result, place: Path) -> list[Path]:
    """Copy a result's file, its signature and its policies into a folder, and return what was written.

    Policies that lie there already, beside the result of another task that they play, are not copied again.

    Raises:
        ScenarioError: The result is damaged, of another task, not complete or over the budget; all of it.
        PowerGridError: Something cannot be read or written.
    """
    folders = weights_folders(file, result)
    problems = list(check_result(benchmark, result, hash_policies(folders)))
    if problems:
        raise ScenarioError(str(file), problems)
    player, goal = result.player, place / result.stem
    folders = {
        seed: own
        for seed, own in folders.items()
        if find_policy(place, player.name, seed, player.weights[seed]) in (None, goal / seed)
    }
    written = [_copy(own / name, goal / seed / name) for seed, own in folders.items() for name in POLICY_FILES]
    target = place / f"{result.stem}.json"
    signature = signature_of(file)
    written += [_copy(signature, signature_of(target))] if signature.is_file() else []
    return [*written, _copy(file, target)]  # last: where it lies, all that it needs does


def _copy(source: Path, target: Path) -> Path:
    if source.resolve() != target.resolve():
        make_folder(target.parent)
        with telling(source):
            write_whole(target, source.read_bytes())
    return target
