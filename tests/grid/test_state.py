from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from powergrid.grid.simulation import Simulation
from powergrid.scenario import load_scenario

STORM = {"kind": "line_outage", "element": "Line.692675", "at_step": 6, "duration_steps": 9}
CLOUD = {"kind": "pv_step", "factor": 0.4, "rate_per_day": 12, "duration_steps": 3}
FAULT = {"kind": "fault", "bus": "675", "at_step": 4, "clearing_steps": 1, "repair_steps": [3, 6]}
SPIKE = {"kind": "price_spike", "factor": 5.0, "at_step": 9, "duration_steps": 4}

SCENARIOS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("ieee13_mg", {}),
    "switchgear": ("ieee34_voltvar", {}),
    "own controls": ("ieee13_mg", {"native_controls": True}),
    "islands": ("ieee34_ieee13", {}),
    "events": ("ieee13_mg", {"events": {"storm": STORM, "cloud": CLOUD, "fault": FAULT, "spike": SPIKE}}),
}
N_ENVS, BEFORE, AFTER = 2, 5, 12


def simulate(case: str) -> Simulation:
    name, overrides = SCENARIOS[case]
    return load_scenario(name, overrides).simulate(N_ENVS)


def draw(simulation: Simulation, n: int) -> list[np.ndarray]:
    """Draw actions for n steps."""
    rng = np.random.default_rng(3)
    return [
        np.array([[rng.integers(a.n) if a.discrete else rng.uniform(-1.0, 1.0) for a in simulation.actions]] * N_ENVS)
        for _ in range(n)
    ]


def seen(simulation: Simulation) -> dict[str, bytes]:
    """Return all that is reported of a step, bit for bit."""
    found = {name: value.tobytes() for name, value in vars(simulation.snapshot).items()}
    for name in ("setpoints", "requested", "price_usd_per_kwh", "paid_price", "operations", "step_index", "day"):
        found[name] = getattr(simulation, name).tobytes()
    for fleet in simulation.fleets:
        found |= {f"{fleet.kind}.{name}": array.tobytes() for name, array in fleet.state_dict().items()}
    if simulation.islands is not None:
        found |= {f"islands.{name}": array.tobytes() for name, array in simulation.islands.state().items()}
    if simulation.events is not None:
        found |= {f"events.{name}": array.tobytes() for name, array in simulation.events.state().items()}
    return found


def play(simulation: Simulation, actions: list[np.ndarray]) -> list[dict[str, bytes]]:
    told = []
    for action in actions:
        simulation.step(action.astype(np.float64))
        told.append(seen(simulation))
    return told


@pytest.mark.parametrize("case", SCENARIOS)
def test_state_put_back_plays_on_bit_for_bit_in_this_instance_and_another(case: str) -> None:
    one, other = simulate(case), simulate(case)
    actions = draw(one, BEFORE + AFTER)
    one.reset_all(range(N_ENVS), [np.random.default_rng(seed) for seed in range(N_ENVS)])
    play(one, actions[:BEFORE])
    kept, at = one.state(), seen(one)
    expected = play(one, actions[BEFORE:])
    other.reset_all(range(N_ENVS), [np.random.default_rng(seed + 7) for seed in range(N_ENVS)])
    play(other, actions[:3])
    for simulation in (one, other):
        simulation.restore(kept)
        assert seen(simulation) == at
        assert play(simulation, actions[BEFORE:]) == expected
    one.close()
    other.close()
