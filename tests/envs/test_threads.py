"""Threads play what one thread plays, where circuits are only written and solved; elsewhere they are refused.

Everything that solves in several threads runs in a process of its own here, so that a fault of the engine would fail
one test and not end the run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.envs import CentralVectorEnv, GridVectorEnv
from powergrid.errors import ScenarioError
from tests.envs.test_backends import assert_divergence_is_named, assert_same, sample
from tests.envs.worlds import shaky

ROOT = Path(__file__).resolve().parents[2]


def play_both(scenario: str, n_envs: int, workers: int) -> None:
    """Play two days and a reset of some, inline and in threads, and compare everything."""
    inline = GridVectorEnv(scenario, n_envs)
    threads = GridVectorEnv(scenario, n_envs, backend="threads", workers=workers)
    rng = np.random.default_rng(1)
    seeds = list(range(n_envs))
    assert_same(inline.reset(seed=seeds), threads.reset(seed=seeds))
    steps = inline.task.simulation.options.horizon_steps
    for step in range(2 * steps + 5):
        actions = {agent: sample(space, n_envs, rng) for agent, space in inline.single_action_spaces.items()}
        assert_same(inline.step(actions), threads.step(actions))
        assert_same(inline.infos(), threads.infos())
        if step == steps // 2:
            mask = np.arange(n_envs) % 2 == 1
            assert_same(*(env.reset(options={"reset_mask": mask}) for env in (inline, threads)))
    assert threads.describe().actions.equals(inline.describe().actions)
    assert threads.task.simulation.n_envs == n_envs
    inline.close()
    threads.close()


def play_wildly() -> None:
    """Let one environment of either thread diverge; it is named, and play goes on."""
    for culprit in (0, 3):
        env = GridVectorEnv(shaky("raise"), 4, backend="threads", workers=2)
        assert_divergence_is_named(env, culprit)
        env.close()


def play_centrally() -> None:
    """Play the central view in threads, and leave without closing."""
    inline = CentralVectorEnv("ieee13_voltvar", 4)
    threads = powergrid.make_vector("ieee13_voltvar", 4, view="central", backend="threads", workers=2)
    assert_same(inline.reset(seed=3)[0], threads.reset(seed=3)[0])
    inline.action_space.seed(0)
    for _ in range(30):
        actions = inline.action_space.sample()
        assert_same(inline.step(actions)[:4], threads.step(actions)[:4])


@pytest.mark.parametrize(
    "call",
    ["play_both('ieee13_mg', 5, 2)", "play_both('ieee123_voltvar', 4, 2)", "play_both('ieee34_mg', 3, 3)",
     "play_wildly()", "play_centrally()"],
)  # fmt: skip
def test_threads_play_bit_for_bit_what_inline_plays(call: str) -> None:
    code = f"import tests.envs.test_threads as t; t.{call}; print('the same')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stderr[-2000:]


@pytest.mark.parametrize("scenario", ["ieee34_ieee13", "own controls"])
def test_threads_that_would_find_nothing_to_share_are_refused(scenario: str) -> None:
    source: Any = scenario
    if scenario == "own controls":
        source = powergrid.load_scenario("ieee13_voltvar", {"devices.regulator_1.control": "opendss"})
    with pytest.raises(ScenarioError, match="each is played by itself: choose backend 'processes' or 'inline'"):
        GridVectorEnv(source, 2, backend="threads", workers=2)


def test_thread_enters_the_engine_after_the_environment_has_moved() -> None:
    """A new thread's first call reads the environment that the library was loaded with; it must still be there."""
    code = """
import os, threading
os.environ["POWERGRID_TEST"] = "the array moves to where it can be freed"
from powergrid.grid.engine import Engine
engine = Engine()
engine.command("new circuit.c")
for i in range(3000):  # it moves on as it grows, and where it was is written over
    os.environ[f"POWERGRID_TEST_{i}"] = "x" * 50
filled = [bytes([255]) * size for size in range(16, 4096, 8) for _ in range(20)]
solved = []
for _ in range(20):
    thread = threading.Thread(target=lambda: solved.append(engine.solve()))
    thread.start()
    thread.join()
print(all(solved), len(solved))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True 20\n"), done.stderr[-2000:]


def test_threads_are_refused_where_another_loaded_the_engine() -> None:
    code = """
import dss_python_backend, powergrid
from powergrid.errors import ScenarioError
try:
    powergrid.make_vector("ieee13_mg", 2, backend="threads", workers=2)
except ScenarioError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "import powergrid before opendssdirect" in done.stdout, done.stderr[-2000:]
