"""Objects own their arrays: any may be bound to an equal copy in mid-episode, and the day stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from powergrid.envs.core import GridTask
from powergrid.scenario import load_scenario
from tests.envs.worlds import every_kind, play_steps


def make_task(folder: Path, n_envs: int) -> GridTask:
    """Return a started task with devices of all eight kinds; half a day of long steps sees sun and cars."""
    path = folder / "every_kind.yaml"
    path.write_text(yaml.safe_dump(every_kind("ieee13", folder) | {"step_minutes": 60}))
    task = GridTask(load_scenario(path), n_envs)
    task.reset_all(range(n_envs), [np.random.default_rng(env) for env in range(n_envs)], {"day": 190})
    return task


def play(task: GridTask, steps: range) -> list[bytes]:
    """Play some steps; return every bit of what agents get and devices are set to."""
    return [bits for _ in play_steps(task, steps) for bits in look(task)]


def look(task: GridTask) -> list[bytes]:
    states = [array for fleet in task.simulation.fleets for array in fleet.state_dict().values()]
    arrays = [*task.observe(), task.rewards, task.infos(), task.simulation.setpoints, task.simulation.snapshot.v]
    return [array.tobytes() for array in (*arrays, *states)]


def rebind(owner: Any, *, public: bool = False) -> int:
    """Bind every attribute that is an array to an equal copy, where it can be bound; return how many were."""
    bound = 0
    of_class = [name for name, value in vars(type(owner)).items() if isinstance(value, property)]
    for name in dict.fromkeys((*vars(owner), *of_class)):
        array = getattr(owner, name)
        if not isinstance(array, np.ndarray) or (public and name.startswith("_")):
            continue
        if name in of_class:
            with pytest.raises(AttributeError):
                setattr(owner, name, array.copy())
        else:
            setattr(owner, name, array.copy())
            bound += 1
    return bound


@pytest.mark.parametrize("n_envs", [1, 2])
def test_arrays_bound_to_equal_copies_in_mid_episode_change_no_bit(tmp_path: Path, n_envs: int) -> None:
    plain, rebound = make_task(tmp_path, n_envs), make_task(tmp_path, n_envs)
    simulation = rebound.simulation
    assert len({fleet.kind for fleet in simulation.fleets}) == 8
    for steps in (range(9), range(9, 13), range(13, 18)):
        assert play(plain, steps) == play(rebound, steps)
        for owner in (*simulation.fleets, rebound.metrics, simulation.snapshot):
            assert rebind(owner) > 3, owner
        assert rebind(simulation, public=True) > 3
    for task in (plain, rebound):
        task.reset(0, np.random.default_rng(7), {"day": 191})
    assert look(plain) == look(rebound)
    assert play(plain, range(3)) == play(rebound, range(3))
    plain.close()
    rebound.close()


def test_arrays_of_different_objects_share_no_memory(tmp_path: Path) -> None:
    task = make_task(tmp_path, 2)
    play(task, range(3))
    owners = [*task.simulation.fleets, task.metrics, task.simulation.snapshot]
    arrays = [[value for value in vars(owner).values() if isinstance(value, np.ndarray)] for owner in owners]
    for i, own in enumerate(arrays):
        for others in arrays[:i]:
            assert not any(np.may_share_memory(a, b) and np.shares_memory(a, b) for a in own for b in others)
    task.close()
