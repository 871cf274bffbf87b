"""Worker processes play what one thread plays, fail as it does, and leave nothing behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import powergrid
from powergrid.envs import GridVectorEnv
from powergrid.errors import ActionError, ConvergenceError, EngineError, ScenarioError
from powergrid.scenario import load_scenario
from tests.envs.worlds import every_kind, shaky


def sample(space: Any, n: int, rng: np.random.Generator) -> Any:
    """Draw a batch of actions."""
    if isinstance(space, gym.spaces.Dict):
        return {key: sample(part, n, rng) for key, part in space.items()}
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(-1.0, 1.0, (n, *space.shape)).astype(np.float32)
    return rng.integers(0, space.nvec, (n, len(space.nvec)))


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, tuple):
        for value, too in zip(one, other, strict=True):
            assert_same(value, too)
    else:
        np.testing.assert_array_equal(one, other)


def assert_divergence_is_named(env: GridVectorEnv, culprit: int) -> None:
    """Let one environment of a shaky world diverge: it is named among all, and play goes on."""
    env.reset(seed=0)
    calm = env.neutral_actions()
    wild = {name: values.copy() for name, values in calm.items()}
    wild["A"][culprit] = 1.0  # more than the bus can carry
    with pytest.raises(ConvergenceError, match=f"environment {culprit}, day"):
        env.step(wild)
    env.reset(seed=0)
    env.step(calm)  # every process is asked and answers once a step, whoever failed
    assert np.isfinite(env.step(calm)[1]).all()


@pytest.mark.parametrize("scenario", ["ieee34_ieee13", "every_kind"])
def test_processes_play_bit_for_bit_what_inline_plays(make_vector, tmp_path: Path, scenario: str) -> None:
    source: Any = every_kind("ieee13", tmp_path) if scenario == "every_kind" else scenario
    short = load_scenario(source, {"episode_length": 7})
    inline, other = make_vector(short, 5), make_vector(short, 5, backend="processes", workers=2)
    rng = np.random.default_rng(1)
    assert_same(inline.reset(seed=[9, 3, 5, 8, 2]), other.reset(seed=[9, 3, 5, 8, 2]))
    for step in range(16):
        actions = {agent: sample(space, 5, rng) for agent, space in inline.single_action_space.items()}
        assert_same(inline.step(actions), other.step(actions))
        assert_same(inline.infos(), other.infos())
        assert_same(inline.days, other.days)
        if step == 9:  # from here on environments are over at different steps
            mask = np.array([False, True, False, False, False])
            assert_same(*(env.reset(options={"reset_mask": mask, "day": 30}) for env in (inline, other)))
    assert_same(inline.neutral_actions(), other.neutral_actions())
    assert inline.info_dicts(4) == other.info_dicts(4)
    assert other.describe().actions.equals(inline.describe().actions)
    with pytest.raises(AttributeError, match="only 'inline' has one here"):
        _ = other.task


def test_error_of_a_worker_is_raised_with_type_and_message_and_play_goes_on(make_vector) -> None:
    env = make_vector("ieee13_mg", 4, backend="processes", workers=2)
    assert len(multiprocessing.active_children()) == 1  # the caller plays too
    with pytest.raises(ScenarioError, match="day 99999 is outside the profiles"):
        env.reset(seed=0, options={"day": 99999})
    with pytest.raises(ScenarioError, match="unknown option 'dya'"):
        env.reset(seed=0, options={"dya": 3})
    env.reset(seed=0)
    actions = env.neutral_actions()
    agent = env.possible_agents[0]
    with pytest.raises(ActionError, match="environment 3"):
        env.step({**actions, agent: actions[agent] * np.array([[0], [0], [0], [np.nan]])})
    seen, *_ = env.step(actions)
    assert all(np.isfinite(observed).all() for observed in seen.values())


@pytest.mark.parametrize("culprit", [0, 3])  # the caller's own slice, a worker's
@pytest.mark.parametrize("backend", ["inline", "processes"])
def test_divergence_names_the_environment_among_all(make_vector, backend: str, culprit: int) -> None:
    env = make_vector(shaky("raise"), 4, backend=backend, **({} if backend == "inline" else {"workers": 2}))
    assert_divergence_is_named(env, culprit)


def test_processes_more_than_processors_play_the_same(make_vector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)  # nobody watches, all sleep
    inline, other = make_vector("ieee13_mg", 3), make_vector("ieee13_mg", 3, backend="processes", workers=3)
    assert_same(inline.reset(seed=2), other.reset(seed=2))
    actions = inline.neutral_actions()
    for _ in range(3):
        assert_same(inline.step(actions), other.step(actions))


def test_wrong_backend_tells_what_there_is() -> None:
    with pytest.raises(ScenarioError, match=r"unknown backend 'process'.*processes"):
        GridVectorEnv("ieee13_mg", 2, backend="process")  # type: ignore[arg-type]
    with pytest.raises(ScenarioError, match="'inline' has none; choose backend 'processes'"):
        GridVectorEnv("ieee13_mg", 2, workers=2)
    for view in ("agents", "central"):
        with pytest.raises(ScenarioError, match=r"backend 'threads' is gone; use 'processes'.* or 'inline'"):
            powergrid.make_vector("ieee13_mg", 2, view=view, backend="threads")  # type: ignore[call-overload]
    with pytest.raises(ScenarioError) as raised:
        powergrid.make_vector("ieee13_mg", 0, workers=2)
    assert len(raised.value.problems) == 2


def test_wrong_scenario_is_told_before_a_worker_starts(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="unknown tariff 'nobody'"):
        GridVectorEnv(load_scenario("ieee13_mg", {"profiles.tariff": "nobody"}), 2, backend="processes")
    assert multiprocessing.active_children() == []


def test_killed_worker_gives_a_clear_error_and_ends_the_others(make_vector) -> None:
    env = make_vector("ieee13_mg", 3, backend="processes", workers=2)
    env.reset(seed=0)
    actions = env.neutral_actions()
    victim = max(multiprocessing.active_children(), key=lambda child: child.name)
    os.kill(victim.pid or 0, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"worker process 1 with environments 2\.\.2 ended with exit code -9"):
        env.step(actions)
    assert multiprocessing.active_children() == []
    with pytest.raises(EngineError, match="build the environment anew"):
        env.step(actions)


def test_worker_that_hangs_is_killed_after_the_time_that_is_given(make_vector) -> None:
    env = make_vector("ieee13_mg", 3, backend="processes", workers=2, timeout_s=3.0)
    env.reset(seed=0)
    victim = max(multiprocessing.active_children(), key=lambda child: child.name)
    os.kill(victim.pid or 0, signal.SIGSTOP)
    with pytest.raises(EngineError, match=r"worker process 1 with environments 2\.\.2 gave no answer within 3 s"):
        env.step(env.neutral_actions())
    assert multiprocessing.active_children() == []


def test_environment_pickles_by_being_built_anew(make_vector) -> None:
    env = make_vector("ieee13_mg", 3, backend="processes", workers=2)
    again = pickle.loads(pickle.dumps(env))
    try:
        assert (again.backend, again.num_envs, again.metadata) == ("processes", 3, env.metadata)
        assert_same(again.reset(seed=4), env.reset(seed=4))
    finally:
        again.close()


def test_forgotten_environment_ends_its_workers() -> None:
    env = GridVectorEnv("ieee13_mg", 2, backend="processes", workers=2)
    env.reset(seed=0)
    assert len(multiprocessing.active_children()) == 1  # the other half is played here
    del env
    gc.collect()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("how", ["pass", "del env", "raise SystemExit(3)", "os.kill(os.getpid(), 9)"])
def test_nothing_is_left_however_the_program_ends(tmp_path: Path, how: str) -> None:
    script = tmp_path / "play.py"
    script.write_text(
        "import multiprocessing, os\n"
        "from powergrid.envs import GridVectorEnv\n"
        "if __name__ == '__main__':\n"
        "    env = GridVectorEnv('ieee13_mg', 3, backend='processes', workers=3)\n"
        "    env.reset(seed=0)\n"
        "    env.step(env.neutral_actions())\n"
        "    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        f"    {how}\n",
        encoding="utf-8",
    )
    shared = set(Path("/dev/shm").glob("pym-*")) if Path("/dev/shm").is_dir() else set()
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert run.stderr == ""
    pids = [int(pid) for pid in run.stdout.split()]
    assert len(pids) == 2
    for _ in range(100):
        if not any(_runs(pid) for pid in pids):
            break
        time.sleep(0.1)
    assert not any(_runs(pid) for pid in pids)
    if Path("/dev/shm").is_dir():
        assert set(Path("/dev/shm").glob("pym-*")) <= shared


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
