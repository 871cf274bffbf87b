"""Predictive control by shooting: draw sequences of actions, play each from now on, do what the best begins with.

The environment is its own model (``clone``, then ``set_state``), so it knows demand and sun of the steps to come; what
that is worth is what the last line tells. A controller in the field would draw them from a forecast.

Usage::

    python examples/shooting.py [SCENARIO] [STEPS]
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

import powergrid
from powergrid.envs import CentralGridEnv

HORIZON, DRAWS = 4, 24


def plan(model: CentralGridEnv, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return the first action of the best of several sequences, the neutral one among them."""
    moment, neutral = model.get_state(), model.neutral_action()
    best, chosen = -np.inf, neutral
    for draw in range(DRAWS):
        spread = 0.0 if draw == 0 else rng.choice([0.1, 0.4])
        total, first = 0.0, neutral
        for ahead in range(HORIZON):
            action = np.clip(model.neutral_action() + rng.normal(0.0, spread, neutral.shape), -1.0, 1.0)
            first = action if ahead == 0 else first
            _, reward, terminated, truncated, _ = model.step(action.astype(np.float32))
            total += reward
            if terminated or truncated:
                break
        model.set_state(moment)
        if total > best:
            best, chosen = total, first
    return np.asarray(chosen, np.float32)


def play(scenario: str, n_steps: int) -> tuple[float, float]:
    """Return the sum of rewards of a day's first steps with the plans, and with devices left to themselves."""
    env = powergrid.make_central(scenario, actions="box", split="test")
    model, returns = env.clone(), []
    for plans in (True, False):
        env.reset(seed=0)
        rng, total = np.random.default_rng(0), 0.0
        for _ in range(n_steps):
            model.set_state(env.get_state())
            total += env.step(plan(model, rng) if plans else env.neutral_action())[1]
        returns.append(total)
    env.close()
    model.close()
    return returns[0], returns[1]


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "ieee13_mg"
    planned, left = play(name, int(sys.argv[2]) if len(sys.argv) > 2 else 96)
    print(f"{name}: {planned:.3f} with plans of {HORIZON} steps, {left:.3f} with devices left to themselves")
