from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.naive import ALLOWED_REWARD, ALLOWED_V_PU, MODES, Pair

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("mode", MODES)
def test_naive_bridge_plays_to_our_voltages_and_rewards(mode: str) -> None:
    pair = Pair("ieee13_voltvar")
    v_pu, reward = pair.compare(int(pair.days[40]), pair.draw_actions(mode, seed=3))
    pair.close()
    assert 0.0 < v_pu < ALLOWED_V_PU
    assert reward < ALLOWED_REWARD


def test_naive_bridge_with_another_tap_is_told_apart() -> None:
    pair = Pair("ieee13_voltvar")
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
    machine, headings, *rows = done.stdout.splitlines()
    assert "DSS C-API" in machine
    assert "episodes" in headings
    assert [row.split()[:2] for row in rows] == [["ieee13_voltvar", mode] for mode in MODES]
