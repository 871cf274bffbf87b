"""What the tests of devices share: an outside world and one step against an ideal grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.devices import FLEETS, Exogenous


def make_exogenous(n_envs: int = 1, step: int = 0, sun_kw: Any = 0.0, demand_kw: Any = 0.0, n: int = 1) -> Exogenous:
    """Return the outside world of a fleet of n devices."""
    return Exogenous(
        step=np.full(n_envs, step),
        sun_kw=np.broadcast_to(np.asarray(sun_kw, dtype=float), (n_envs, n)).copy(),
        demand_kw=np.broadcast_to(np.asarray(demand_kw, dtype=float), (n_envs, n)).copy(),
    )


def make_fleet(devices: Mapping[str, Any], dt_h: float = 1.0, horizon: int = 24, n_envs: int = 1, **extras: Any) -> Any:
    """Make the fleet of some specs of one kind, every environment reset with its own number as seed."""
    kind = next(iter(devices.values())).kind
    fleet = FLEETS[kind](devices, dt_h, horizon, n_envs, **extras)
    for env in range(n_envs):
        fleet.reset(env, np.random.default_rng(env))
    return fleet


def take_step(fleet: Any, action: Any, **world: Any) -> None:
    """Take one step against a grid that delivers exactly what was set."""
    exo = make_exogenous(fleet.n_envs, n=fleet.n, **world)
    action = np.asarray(action, dtype=float).reshape(fleet.n_envs, len(fleet.actions))
    fleet.project(action, exo)
    if hasattr(fleet, "p_kw"):
        fleet.advance(fleet.p_kw, fleet.q_kvar, exo)
    else:
        fleet.advance(exo)


def normalise(fleet: Any, **values: Any) -> npt.NDArray[np.float64]:
    """Turn physical values by action name, in the order of devices, into one row of actions."""
    iterators = {name: iter(np.atleast_1d(value)) for name, value in values.items()}
    row = []
    for spec in fleet.actions:
        value = float(next(iterators[spec.name]))
        if spec.discrete:
            row.append((value - spec.low) * (spec.n - 1) / (spec.high - spec.low))
        else:
            row.append(2 * (value - spec.low) / (spec.high - spec.low) - 1)
    return np.array([row])


def observe(fleet: Any) -> dict[tuple[str, str], npt.NDArray[np.float64]]:
    """Read the states by device and name, shape (n_envs,) each."""
    out = np.full((fleet.n_envs, len(fleet.states)), np.nan)
    fleet.observe(out)
    return {(spec.device, spec.name): out[:, column] for column, spec in enumerate(fleet.states)}


def projected(fleet: Any) -> npt.NDArray[np.bool_]:
    """Whether what was asked had to change to be feasible, shape (n_envs, n)."""
    if hasattr(fleet, "position"):
        return np.asarray(fleet.position != fleet.requested_position)
    kept = np.isclose(fleet.p_kw, fleet.requested_p_kw, rtol=1e-9, atol=1e-9)
    return np.asarray(~(kept & np.isclose(fleet.q_kvar, fleet.requested_q_kvar, rtol=1e-9, atol=1e-9)))
