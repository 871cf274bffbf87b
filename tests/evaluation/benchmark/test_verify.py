"""A result that is played again: as it was it stands, and with one number altered it is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation.benchmark import Benchmark, Result, read_benchmark, read_result, verify_result
from powergrid.evaluation.benchmark.play import Entrant, Played, play_entrant, summarise
from powergrid.evaluation.benchmark.result import DIGITS
from powergrid.evaluation.benchmark.submit import submit_result
from powergrid.evaluation.benchmark.verify import (
    TOLERANCE,
    check_result,
    compare_days,
    hash_policies,
    is_close,
    weights_folders,
)
from powergrid.training.policies.inference import load_policy

METRICS = list(read_benchmark().metrics)


def codes(result: Result, benchmark: Benchmark) -> set[str]:
    """The kinds of problems that a baseline's result has."""
    return {each.code for each in verify_result(benchmark, result, {}, {}).problems}


@pytest.fixture(scope="session")
def again(benchmark: Benchmark) -> Played:
    """The days of the baseline, played again."""
    return play_entrant(benchmark, benchmark.tasks["small"], Entrant("rule_based"))


def alter(result: Result, change: Callable[[dict[str, Any]], None]) -> Result:
    """The result with something changed, by somebody who also puts the digest right."""
    data = result.model_dump(mode="json")
    change(data)
    return Result.model_validate(data).sealed()


def test_result_as_it_was_played_stands(benchmark: Benchmark, baseline: Result) -> None:
    verdict = verify_result(benchmark, baseline, {}, {})
    assert verdict.stands
    assert list(verdict.days) == baseline.days
    assert verdict.notes == ()


@pytest.mark.parametrize("metric", METRICS)
def test_altered_number_of_a_day_is_refused_though_digest_and_summary_are_put_right(
    benchmark: Benchmark, baseline: Result, again: Played, metric: str
) -> None:
    def change(data: dict[str, Any]) -> None:
        values = data["results"]["-"][metric]
        values[1] += 1.001 * TOLERANCE * max(1.0, abs(values[1])) + 1e-6
        if metric == "reward":
            references = benchmark.rewards_of("small")
            data["summary"] = summarise(data["results"], data["usd_per_reward"], references).model_dump()

    altered = alter(baseline, change)
    assert list(check_result(benchmark, altered, {})) == []
    assert list(compare_days(benchmark, baseline, again, baseline.days)) == []
    (problem,) = compare_days(benchmark, altered, again, baseline.days)
    assert (problem.code, problem.where) == ("number-differs", f"results.-.{metric}, day {baseline.days[1]}")


@pytest.mark.parametrize("key", ["reward", "gain_usd_per_day", "regret_usd_per_day", "score"])
def test_altered_number_of_the_summary_is_refused(benchmark: Benchmark, baseline: Result, key: str) -> None:
    def change(data: dict[str, Any]) -> None:
        data["summary"][key] *= 1.01

    assert codes(alter(baseline, change), benchmark) == {"number-differs"}


@pytest.mark.parametrize("key", ["reward_by_seed", "score_by_seed"])
def test_altered_number_of_a_seed_is_refused(benchmark: Benchmark, baseline: Result, key: str) -> None:
    def change(data: dict[str, Any]) -> None:
        data["summary"][key]["-"] += 0.01

    assert codes(alter(baseline, change), benchmark) == {"number-differs"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data.update(usd_per_reward=999.0), "number-differs"),
        (lambda data: data.update(seed=1), "days-differ"),
        (lambda data: data["days"].reverse(), "days-differ"),
        (lambda data: data["results"]["-"]["reward"].pop(), "incomplete"),
        (lambda data: data["results"]["-"].pop("losses_kwh"), "incomplete"),
        (lambda data: data["results"]["-"].update(more=[1.0, 2.0]), "incomplete"),
        (lambda data: data.update(results={"0": data["results"]["-"]}), "incomplete"),
        (lambda data: data.update(task="other"), "unknown-task"),
        (lambda data: data.update(benchmark="Small v2"), "unknown-task"),
        (lambda data: data.update(task_digest="0" * 64), "task-changed"),
        (lambda data: data["digests"].update(feeder="0" * 64), "task-changed"),
        (lambda data: data["player"].update(name="nobody"), "unknown-policy"),
        (lambda data: data["player"].update(sees={"load_scale": 0.5}), "not-to-choose"),
        (lambda data: data["player"].update(sees={"outlook": {"sun_error": 0.0}}), "not-to-choose"),
    ],
)
def test_anything_else_that_is_altered_is_refused(
    benchmark: Benchmark, baseline: Result, change: Callable[[dict[str, Any]], None], code: str
) -> None:
    assert code in codes(alter(baseline, change), benchmark)


def test_another_baseline_under_a_name_is_refused(benchmark: Benchmark, baseline: Result) -> None:
    found = codes(alter(baseline, lambda data: data["player"].update(name="native")), benchmark)
    assert found == {"number-differs"}


def test_damaged_file_is_told_by_its_digest(benchmark: Benchmark, baseline: Result) -> None:
    damaged = baseline.model_copy(update={"machine": "a better one"})
    assert codes(damaged, benchmark) == {"digest-differs"}


def test_number_within_the_tolerance_stands_and_what_is_written_is_within_it(
    benchmark: Benchmark, baseline: Result
) -> None:
    def change(data: dict[str, Any]) -> None:
        data["results"]["-"]["losses_kwh"][0] *= 1.0 + 0.5 * TOLERANCE

    assert codes(alter(baseline, change), benchmark) == set()
    assert 10.0**-DIGITS < TOLERANCE
    assert not is_close(0.0, 1.1 * TOLERANCE)


def test_fewer_days_are_those_asked_for(benchmark: Benchmark, baseline: Result) -> None:
    verdict = verify_result(benchmark, baseline, {}, {}, days=1)
    assert verdict.stands
    assert len(verdict.days) == 1


def test_other_versions_are_told_and_no_reason_to_refuse(benchmark: Benchmark, baseline: Result) -> None:
    older = alter(baseline, lambda data: data["versions"].update(numpy="1.0.0"))
    verdict = verify_result(benchmark, older, {}, {}, days=1)
    assert verdict.stands
    assert "numpy 1.0.0" in verdict.notes[0]


def test_policies_beside_a_result_are_what_is_played(benchmark: Benchmark, trained: Path) -> None:
    result = read_result(trained)
    folders = weights_folders(trained, result)
    policies = {seed: load_policy(folder) for seed, folder in folders.items()}
    assert verify_result(benchmark, result, policies, hash_policies(folders)).stands
    swapped = {"0": policies["1"], "1": policies["0"]}
    found = verify_result(benchmark, result, swapped, hash_policies(folders), days=1)
    assert {each.code for each in found.problems} == {"number-differs"}


def test_policy_that_was_changed_is_refused(benchmark: Benchmark, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path / "r")
    file = tmp_path / "r" / trained.name
    result = read_result(file)
    described = tmp_path / "r" / "small.mine" / "1" / "policy.json"
    described.write_text(described.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    problems = list(check_result(benchmark, result, hash_policies(weights_folders(file, result))))
    assert [(each.code, each.where) for each in problems] == [("weights-differ", "player.weights.1")]


def test_task_whose_scenario_has_changed_is_not_played(benchmark: Benchmark, baseline: Result) -> None:
    task = benchmark.tasks["small"]
    other = task.model_copy(update={"digests": task.digests.model_copy(update={"played": "0" * 64})})
    changed = benchmark.model_copy(update={"tasks": {"small": other}})
    moved = alter(
        baseline,
        lambda data: data.update(task_digest=changed.digest("small"), digests=other.digests.model_dump())
        or data.update(summary={**data["summary"], **dict.fromkeys(("gain_usd_per_day", "regret_usd_per_day", "score")),
                                "score_by_seed": {}}),
    )  # fmt: skip
    with pytest.raises(ScenarioError, match=r"tasks\.small\.digests\.played: is 000000000000, what is here"):
        verify_result(changed, moved, {}, {})


def test_submission_is_put_into_its_place(benchmark: Benchmark, trained: Path, tmp_path: Path) -> None:
    written = submit_result(benchmark, trained, read_result(trained), tmp_path)
    names = [str(each.relative_to(tmp_path)) for each in written]
    policies = [f"small.mine/{seed}/{name}" for seed in (0, 1) for name in ("policy.json", "weights.npz")]
    assert names == [*policies, "small.mine.json"]
    assert read_result(written[-1]) == read_result(trained)
    assert submit_result(benchmark, written[-1], read_result(written[-1]), tmp_path) == written  # where it is already


def test_policies_that_lie_beside_another_task_are_not_put_there_again(
    benchmark: Benchmark, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained.parent / "small.mine", tmp_path / "other.mine")
    assert submit_result(benchmark, trained, read_result(trained), tmp_path) == [tmp_path / trained.name]
    found = weights_folders(tmp_path / trained.name, read_result(trained))
    assert found == {seed: tmp_path / "other.mine" / seed for seed in ("0", "1")}
    (tmp_path / "other.mine" / "0" / "weights.npz").write_bytes(b"")  # what is not the same is not taken
    assert weights_folders(tmp_path / trained.name, read_result(trained))["0"] == tmp_path / "small.mine" / "0"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data["results"].pop("1"), "has seeds 0; the benchmark asks for 0, 1"),
        (lambda data: data["player"]["training"].pop("1"), "player.training.1: is not there"),
        (
            lambda data: data["player"]["training"]["0"].update(env_steps=1001),
            "took 1,001 steps and 1 minutes; the task gives 1,000",
        ),
        (lambda data: data["player"].update(name="elsewhere"), "it has to lie in small.elsewhere/0"),
        (lambda data: data["player"].update(name="native"), "'native' is the name of a baseline"),
    ],
)
def test_submission_that_is_not_complete_is_refused_and_nothing_written(
    benchmark: Benchmark, trained: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    folder = tmp_path / "from"
    shutil.copytree(trained.parent, folder)
    file = alter(read_result(trained), change).write(folder)
    with pytest.raises(ScenarioError, match=told):
        submit_result(benchmark, file, read_result(file), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_file_that_is_no_result_is_told_by_its_places(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"format": 2, "task": "small"}), encoding="utf-8")
    with pytest.raises(PowerGridError, match="format: Input should be 1"):
        read_result(file)


def test_what_is_written_is_what_is_read(baseline: Result, tmp_path: Path) -> None:
    file = baseline.write(tmp_path)
    assert file.name == "small.rule_based.json"
    assert read_result(file) == baseline
    assert len(file.read_text(encoding="utf-8").splitlines()) < 90  # a series is a line
