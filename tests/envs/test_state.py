"""A state put back is the moment it was taken: what was seen then, and all that follows, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from powergrid.envs import GridTask
from powergrid.errors import ScenarioError
from powergrid.scenario import load_scenario
from tests.envs.worlds import every_kind, play_steps, shaky

LASTING: dict[str, Any] = {"duration_steps": [3, 20]}
EVENTS: dict[str, Any] = {
    "line": {"kind": "line_outage", "element": "Line.*", **LASTING},
    "short": {"kind": "fault", "bus": "*", "r_ohm": 0.02, "clearing_steps": 1, "repair_steps": [2, 9]},
    "cloud": {"kind": "pv_step", "factor": 0.2, **LASTING},
    "dear": {"kind": "price_spike", "factor": 3.0, **LASTING},
}
WORLDS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "plain": ("ieee13_mg", {}),
    "summary": ("ieee34_voltvar", {"observations": "summary"}),
    "islands": ("ieee34_ieee13", {}),
    "events": ("ieee13_mg", {"events": EVENTS, "reconfiguration": {}}),
    "every kind": ("every kind", {}),
    "every kind with events": ("every kind", {"events": EVENTS, "reconfiguration": {}}),
    "native": ("every kind", {"native_controls": True, "devices.reg.control": "opendss"}),
    "divergence": ("shaky", {}),
    "limit": ("ieee13_voltvar", {"never_worse_than": "native"}),
    "limit with events": ("every kind", {"events": EVENTS, "reconfiguration": {}, "never_worse_than": "native"}),
}


@pytest.fixture
def make_task(tmp_path: Any) -> Iterator[Any]:
    """Make tasks of a world; they are closed at the end."""
    made: list[GridTask] = []

    def make(world: str, n_envs: int) -> GridTask:
        name, keys = WORLDS[world]
        data: Any = every_kind("ieee13", tmp_path) if name == "every kind" else shaky() if name == "shaky" else name
        made.append(GridTask(load_scenario(data, keys), n_envs))
        return made[-1]

    yield make
    for task in made:
        task.close()


def start(task: GridTask, seed: int, day: int) -> None:
    task.reset_all(range(task.n_envs), [np.random.default_rng([seed, env]) for env in range(task.n_envs)], {"day": day})


def play(task: GridTask, steps: range) -> list[bytes]:
    """Play steps and return every bit of what they give."""
    return [bits for _ in play_steps(task, steps) for bits in look(task)]


def look(task: GridTask) -> list[bytes]:
    arrays = [*task.observe(), task.rewards, task.infos(), task.money(), task.terminated, task.truncated]
    return [array.tobytes() for array in (*arrays, np.asarray([task.metrics.violation_count]))]


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("world", WORLDS)
def test_restored_task_goes_on_as_it_did(world: str, n_envs: int, make_task: Any) -> None:
    task, other = make_task(world, n_envs), make_task(world, n_envs)
    start(task, 3, 171)
    horizon = task.simulation.options.horizon_steps
    middle, end = horizon // 2, min(horizon, horizon // 2 + 20)
    play(task, range(middle))
    state, then = task.state(), look(task)
    after = play(task, range(middle, end))
    task.restore(state)
    assert look(task) == then
    assert play(task, range(middle, end)) == after
    start(other, 8, 20)  # elsewhere, on another day, after other steps
    play(other, range(5))
    other.restore(state)
    assert look(other) == then
    assert play(other, range(middle, end)) == after


def test_state_of_a_start_and_of_an_end_are_states_too(make_task: Any) -> None:
    task = make_task("plain", 1)
    start(task, 3, 171)
    fresh = task.state()
    whole = play(task, range(96))
    over, last = task.state(), look(task)
    assert over.truncated.all()
    task.restore(fresh)
    assert play(task, range(96)) == whole
    start(task, 4, 20)
    task.restore(over)
    assert look(task) == last


def test_state_stays_as_it_was_taken(make_task: Any) -> None:
    task = make_task("every kind", 1)
    start(task, 3, 171)
    state = task.state()
    first = play(task, range(3))
    for _ in range(2):
        task.restore(state)
        assert play(task, range(3)) == first


def test_restore_of_a_closed_task_is_refused(make_task: Any) -> None:
    task = make_task("plain", 1)
    start(task, 0, 0)
    state = task.state()
    task.close()
    with pytest.raises(ScenarioError, match="closed"):
        task.restore(state)
