"""The benchmark that ships is the one that was frozen, its results stand, and the leaderboard says what they say."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from powergrid.evaluation.benchmark import read_benchmark, read_result, verify_result
from powergrid.evaluation.benchmark.page import make_page
from powergrid.evaluation.benchmark.score import find_files, score_results, show_row
from powergrid.evaluation.benchmark.tasks import hash_canonical
from powergrid.evaluation.benchmark.verify import check_result, hash_policies, weights_folders
from powergrid.grid.profiles.profiles import builtin_profiles, split_days
from powergrid.training import load_policy

DOCS = Path(__file__).parents[3] / "docs"
FILES = find_files([DOCS / "benchmark"])
BENCHMARK = read_benchmark()
#: Over all tasks; what changes it is another version of the benchmark, with results of its own.
FROZEN = "7e4178cf5d3ce971669c489d6a1bd2ea3483aea23eac4a4e4c604fc5527cf230"


def test_tasks_are_those_that_were_frozen() -> None:
    digests = {name: BENCHMARK.digest(name) for name in BENCHMARK.tasks}
    assert len(digests) == 12
    assert (BENCHMARK.version, hash_canonical(digests)) == (1, FROZEN)


# Of the 8,500 nodes the tests of scenarios' versions hold the digest.
@pytest.mark.parametrize("name", [name for name in BENCHMARK.tasks if "8500" not in name])
def test_what_a_task_plays_is_what_it_is_pinned_to(name: str) -> None:
    task = BENCHMARK.tasks[name]
    task.require_unchanged(name)
    assert task.scenario.endswith("-v1")
    assert (task.digests.trained != task.digests.played) or task.shifted


def test_days_are_those_of_the_splits() -> None:
    profiles, days = builtin_profiles(), BENCHMARK.days
    for split, spans in (("train", days.train), ("validation", days.validation)):
        assert [day for first, last in spans for day in range(first, last + 1)] == split_days(
            profiles, split=split
        ).tolist()
    assert list(days.test) == split_days(profiles, split="test")[1::3].tolist()
    assert sorted(day % 7 for day in days.test) == sorted(list(range(7)) * 3)  # each weekday three times


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_result_is_whole_and_of_its_task(file: Path) -> None:
    result = read_result(file)
    assert file.name == f"{result.stem}.json"
    assert list(check_result(BENCHMARK, result, hash_policies(weights_folders(file, result)))) == []


@pytest.mark.parametrize("stem", ["ieee13_voltvar.rule_based", "ieee34_mg_load_growth.ppo_shared_imitate"])
def test_result_plays_again_to_the_same_numbers(stem: str) -> None:
    file = DOCS / "benchmark" / f"{stem}.json"
    folders = weights_folders(file, result := read_result(file))
    policies = {seed: load_policy(folder) for seed, folder in folders.items()}
    verdict = verify_result(BENCHMARK, result, policies, hash_policies(folders), days=2)
    assert verdict.stands, verdict.problems


def test_references_are_the_results_of_both_ends() -> None:
    for name in BENCHMARK.tasks:
        for policy, rewards in BENCHMARK.rewards_of(name).items():
            result = read_result(DOCS / "benchmark" / f"{name}.{policy}.json")
            assert rewards == result.results["-"]["reward"]
        assert "no_control" in BENCHMARK.rewards_of(name)


def test_leaderboard_is_what_the_results_say() -> None:
    page = (DOCS / "leaderboard.md").read_text(encoding="utf-8")
    remedy = "run powergrid benchmark score docs/benchmark --page docs/leaderboard.md"
    assert page == make_page(score_results(BENCHMARK, [DOCS / "benchmark"])), remedy


def test_tables_of_the_terminal_fit_into_80_columns_whole() -> None:
    board = score_results(BENCHMARK, [DOCS / "benchmark"])
    console = Console(width=80, record=True, file=StringIO())
    for table in board.tables():
        console.print(table)
    shown = console.export_text()
    for row in (row for rows in board.rows.values() for row in rows):
        for cell in show_row(row)[1:]:
            assert all(part in shown for part in cell.replace(" [", "\n[").split("\n"))
        assert row.result.player.name in shown
