from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import powergrid
from benchmarks.common import Table, median_ratio, take_turns
from benchmarks.naive import ALLOWED_REWARD, ALLOWED_V_PU, MODES, Pair
from benchmarks.scaling import compose, fit_exponent
from powergrid.cli import main

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("mode", MODES)
def test_naive_bridge_plays_to_our_voltages_and_rewards(mode: str) -> None:
    pair = Pair("ieee13_voltvar", 2)
    v_pu, reward = pair.compare(int(pair.days[40]), pair.draw_actions(mode, seed=3))
    pair.close()
    assert 0.0 < v_pu < ALLOWED_V_PU
    assert reward < ALLOWED_REWARD


def test_naive_bridge_with_another_tap_is_told_apart() -> None:
    pair = Pair("ieee13_voltvar", 2)
    pair.naive._start[0]["reg1"] += 1
    v_pu, _ = pair.compare(int(pair.days[40]), pair.draw_actions("held", seed=3))
    pair.close()
    assert v_pu > 10 * ALLOWED_V_PU


@pytest.mark.parametrize("how", [["-m", "benchmarks.naive"], [str(FOLDER / "naive.py")]])
def test_benchmark_runs_as_a_file_and_as_a_module(how: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *how, "ieee13_voltvar", "--quick"],
        cwd=FOLDER.parent, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    machine, _, headings, *rows = done.stdout.splitlines()
    assert "DSS C-API" in machine
    assert "naive/vector" in headings
    assert [row.split()[:2] for row in rows] == [["ieee13_voltvar", mode] for mode in MODES]


# powergrid bench


def run_bench(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        main(["bench", *arguments])
    return int(raised.value.code or 0)


def test_bench_lists_every_benchmark_with_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    files = {file.stem for file in FOLDER.glob("*.py")} - {"__init__", "common"}
    assert {line.split()[0] for line in lines} == files
    assert all(len(line.split()) > 4 and line.rstrip().endswith((".", ";", ",", ":")) for line in lines)


def test_bench_runs_one_in_a_process_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_bench("floor", "--quick") == 0
    told = capfd.readouterr().out
    assert "== floor" in told
    assert "ieee13_mg" in told


def test_bench_of_an_unknown_name_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench("flor") == 1
    assert "did you mean 'floor'" in capsys.readouterr().err


def test_bench_outside_a_checkout_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(powergrid, "__file__", str(tmp_path / "powergrid" / "__init__.py"))
    assert run_bench("--list") == 1
    assert "they come with the source" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["step", "vector", "memory", "sampling", "feeders", "scaling", "telemetry", "training"]
)
def test_every_benchmark_runs_quickly(name: str) -> None:
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, "ieee13" in done.stdout) == (0, True), done.stderr


def test_solver_options_are_priced_and_tighter_tolerances_are_truer() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "solver.py"), "--quick"],
        cwd=FOLDER.parent, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    rows = [line for line in done.stdout.splitlines() if line.startswith("ieee13_voltvar")]
    off = {row[18:38].strip(): float(row.split()[-1]) for row in rows}
    tighter = ["tolerance 1e-4", "default: 1e-5", "tolerance 1e-6", "tolerance 1e-8"]
    assert [off[name] for name in tighter] == sorted((off[name] for name in tighter), reverse=True)
    assert 0.0 < off["tolerance 1e-8"] < 1e-7
    assert off["Newton, 1e-5"] == pytest.approx(off["default: 1e-5"], rel=0.5)


# what they share


def test_turns_are_taken_round_by_round_and_ratios_are_of_one_round() -> None:
    order: list[str] = []

    def play(name: str, seconds: Sequence[float]) -> float:
        order.append(name)
        return seconds[len(order) // 2 - (len(order) % 2 == 0)]

    times = take_turns(3, {"a": lambda: play("a", [2.0, 6.0, 40.0]), "b": lambda: play("b", [1.0, 2.0, 10.0])})
    assert order == ["a", "b"] * 3
    assert times == {"a": [2.0, 6.0, 40.0], "b": [1.0, 2.0, 10.0]}
    assert median_ratio(times, "a", "b") == 3.0


def test_table_lines_numbers_up_under_headings(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(("name", "8s"), ("wide heading", "5.1f"), ("n", "3d"))
    table.add("x", 2.25, 7)
    assert capsys.readouterr().out.splitlines() == ["name     wide heading   n", "x                 2.2   7"]


# scaling


def test_exponent_of_a_power_law_is_found_with_its_interval() -> None:
    sizes = np.array([10.0, 30.0, 100.0, 1000.0])
    exponent, half = fit_exponent(sizes, 3.0 * sizes**0.8)
    assert exponent == pytest.approx(0.8)
    assert half == pytest.approx(0.0, abs=1e-6)
    noisy, half = fit_exponent(sizes, 3.0 * sizes**0.8 * np.array([1.1, 0.9, 1.1, 0.9]))
    assert abs(noisy - 0.8) < half < 0.5


@pytest.mark.parametrize("n", [1, 5])
def test_composed_circuits_grow_by_a_microgrid_each(n: int) -> None:
    scenario = powergrid.load_scenario(compose(n))
    env = powergrid.make(scenario)
    env.reset(seed=0)
    assert len(env.possible_agents) == n
    env.close()


def test_starts_are_priced_with_and_without_what_is_kept() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "compile.py"), "ieee13", "--quick", "--workers", "2"],
        cwd=FOLDER.parent, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    machine, _, first, later, blank, _, workers = done.stdout.splitlines()
    assert "DSS C-API" in machine
    assert [row.split()[:2] for row in (first, later, workers)] == [
        ["ieee13", "nothing"], ["ieee13", "all"], ["ieee13", "2"]
    ]  # fmt: skip
    assert blank == ""
    read_ms = [float(row.split()[2]) for row in (first, later)]
    assert 0.0 < read_ms[1] < read_ms[0]
