"""Move taps and capacitors of a feeder by a search three steps deep, each branch played in the environment itself.

A moment is kept, every candidate is tried from it, and the first move of the best branch is played. The search knows
the demand of the next steps, as a controller in the field would not: it shows what moments are for, and what a model
that is perfect for 45 minutes is worth.

Usage::

    python examples/tree_search.py [SCENARIO] [STEPS]
"""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import MultiDiscrete

import powergrid
from powergrid.envs import CentralGridEnv

Action = npt.NDArray[Any]
DEPTH, WIDTH = 3, 3


def list_candidates(env: CentralGridEnv, standing: Action) -> list[Action]:
    """Return what is tried in a step: stay, or move one device by one position."""
    counts, found = cast(MultiDiscrete, env.action_space).nvec, [standing]
    for place, count in enumerate(counts):
        for to in (standing[place] - 1, standing[place] + 1):
            if 0 <= to < count:
                found.append(standing.copy())
                found[-1][place] = to
    return found


def search(env: CentralGridEnv, standing: Action, depth: int = DEPTH) -> tuple[float, Action]:
    """Return the best sum of rewards over the steps to come and the action it begins with; the moment stays as it is.

    Of each step all moves are tried, and the few that give most are followed.
    """
    moment, tried = env.get_state(), list[tuple[float, int, Action, object]]()
    for number, action in enumerate(list_candidates(env, standing)):
        _, reward, terminated, truncated, _ = env.step(action)
        tried.append((float(reward), number, action, None if terminated or truncated else env.get_state()))
        env.set_state(moment)
    best, chosen = -np.inf, standing
    for reward, _, action, after in sorted(tried, key=lambda each: (-each[0], each[1]))[:WIDTH]:
        total = reward
        if depth > 1 and after is not None:
            env.set_state(after)
            total += search(env, action, depth - 1)[0]
        if total > best:
            best, chosen = total, action
    env.set_state(moment)
    return best, chosen


def play(scenario: str, n_steps: int) -> tuple[float, float]:
    """Return the sum of rewards of a day's first steps with the search, and with devices left where they stand."""
    env = powergrid.make_central(scenario, actions="multidiscrete", battery="discrete", levels=3, split="test")
    returns = []
    for searches in (True, False):
        env.reset(seed=0)
        standing, total = env.neutral_action(), 0.0
        for _ in range(n_steps):
            if searches:
                _, standing = search(env, standing)
            total += env.step(standing)[1]
        returns.append(total)
    env.close()
    return returns[0], returns[1]


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "ieee13_voltvar"
    searched, left = play(name, int(sys.argv[2]) if len(sys.argv) > 2 else 24)
    print(f"{name}: {searched:.3f} with the search, {left:.3f} with devices left where they stand")
