"""A tiny training from the command to the verdict: what is altered in its result is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from powergrid.cli import main
from powergrid.evaluation import benchmark as package
from powergrid.evaluation.benchmark import Benchmark, read_result
from powergrid.evaluation.benchmark.play import summarise
from powergrid.evaluation.benchmark.result import Result
from powergrid.evaluation.benchmark.verify import hash_policies, weights_folders

pytestmark = pytest.mark.slow
TINY = (
    "num_env_runners=0", "num_envs_per_env_runner=1", "train_batch_size=96", "minibatch_size=96", "num_epochs=1",
    "hidden=[8]", "validate_every=0", "imitation_days=1", "imitation_rounds=2", "imitation_passes=1", "iterations=1",
)  # fmt: skip
NAME = "small.ppo_shared_imitate"


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    return int(raised.value.code or 0)


def run_small(place: Path, *more: str) -> int:
    settings = [word for each in TINY for word in ("--setting", each)]
    where = ["--runs", str(place / "runs"), "--out", str(place / "results")]
    return call("benchmark", "run", "small", "--train", "ppo", "--preset", "imitate", *settings, *where, *more)


@pytest.fixture(scope="module")
def place(benchmark: Benchmark, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs`` of both seeds and ``results``."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "read_benchmark", lambda: benchmark)
        assert run_small(place) == 0
    return place


@pytest.fixture
def results(place: Path, tmp_path: Path, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the results, to be altered."""
    monkeypatch.setattr(package, "read_benchmark", lambda: benchmark)
    shutil.copytree(place / "results", tmp_path / "results")
    return tmp_path / "results"


def alter(results: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The result with something changed, by somebody who also puts the digest right."""
    file = results / f"{NAME}.json"
    data = read_result(file).model_dump(mode="json")
    change(data)
    return Result.model_validate(data).sealed().write(results)


def test_result_of_a_training_stands_and_says_how_it_was_trained(
    results: Path, benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    file = results / f"{NAME}.json"
    training = read_result(file).player.training
    assert sorted(training) == ["0", "1"]
    assert training["0"].env_steps == 96 + 4 * 96  # an iteration, and the day that is imitated four times
    assert training["0"].minutes < 2.0
    assert training["0"].settings["imitation_days"] == 1
    assert training["0"].differs == []
    assert call("benchmark", "verify", str(file), "--days", "2") == 0
    assert f"{file}: stands, 2 of 2 days played again" in capsys.readouterr().out.replace("\n", "")
    assert call("benchmark", "submit", str(file), "--into", str(results)) == 0


def test_what_is_trained_is_not_trained_again(place: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_result(results / f"{NAME}.json")
    assert run_small(place) == 0
    assert "0 of 2 trainings to do" in capsys.readouterr().out
    again = read_result(place / "results" / f"{NAME}.json")
    assert (again.results, again.player) == (before.results, before.player)


def test_dry_run_says_what_is_left_with_its_time_and_writes_nothing(
    place: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_small(results / "none", "--dry-run", "--policy", "rule_based") == 0
    told = capsys.readouterr().out
    assert "2 of 2 trainings to do, of 480 environment steps, about 2 min each on two cores, at most 2 min:" in told
    command = "powergrid train ieee13_mg --algorithm ppo --policies shared --seed 1 --out"
    assert command in " ".join(told.split())
    assert "then play 2 days of small with rule_based (" in told
    assert not (results / "none").exists()
    assert run_small(place, "--setting", "lr=0.5", "--dry-run") == 1
    assert "lr is 0.0002, asked for is 0.5" in capsys.readouterr().err


def _change_day(data: dict[str, Any], benchmark: Benchmark) -> None:
    data["results"]["1"]["reward"][0] += 0.001
    references = benchmark.rewards_of("small")
    data["summary"] = summarise(data["results"], data["usd_per_reward"], references).model_dump()


def _change_summary(data: dict[str, Any], benchmark: Benchmark) -> None:
    data["summary"]["score"] += 0.01


def _drop_seed(data: dict[str, Any], benchmark: Benchmark) -> None:
    for part in (data["results"], data["player"]["weights"], data["player"]["training"]):
        part.pop("1")
    references = benchmark.rewards_of("small")
    data["summary"] = summarise(data["results"], data["usd_per_reward"], references).model_dump()


def _train_longer(data: dict[str, Any], benchmark: Benchmark) -> None:
    data["player"]["training"]["0"]["env_steps"] = 1001


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_change_day, "results.1.reward, day 15: is"),
        (_change_summary, "summary.score: is"),
        (_drop_seed, "results: has seeds 0; the benchmark asks for 0, 1"),
        (_train_longer, "player.training.0: took 1,001 steps"),
    ],
)
def test_what_is_altered_is_refused_though_the_digest_is_put_right(
    results: Path, benchmark: Benchmark, capsys: pytest.CaptureFixture[str], change: Callable[..., None], told: str
) -> None:
    file = alter(results, lambda data: change(data, benchmark))
    assert call("benchmark", "verify", str(file), "--days", "2") == 1
    said = capsys.readouterr()
    assert told in " ".join(said.out.split())
    assert "REFUSED" in said.out


def test_weights_that_were_swapped_are_refused_though_their_hashes_are_put_right(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = results / f"{NAME}.json"
    folders = weights_folders(file, read_result(file))
    weights = {seed: (folder / "weights.npz").read_bytes() for seed, folder in folders.items()}
    assert weights["0"] != weights["1"]
    for seed, other in (("0", "1"), ("1", "0")):
        (folders[seed] / "weights.npz").write_bytes(weights[other])
    assert call("benchmark", "verify", str(file)) == 1
    assert "player.weights.0: is" in capsys.readouterr().out
    alter(results, lambda data: data["player"].update(weights=hash_policies(folders)))
    assert call("benchmark", "verify", str(file), "--days", "1") == 1
    assert "results.0.reward, day" in capsys.readouterr().out
