"""Where episodes on a discovered feeder start: the switchgear as its own controls leave it at the mean demand.

A model stands as its controls settle at nominal demand, which a day seldom reaches: taps that are right there lift
light loads far above the band, and would make leaving things alone look worse than it is.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import PowerGridError
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.own_controls import ControlPlan
from powergrid.grid.feeder.feeder import Feeder
from powergrid.grid.feeder.network import Network
from powergrid.grid.profiles.profiles import builtin_profiles, shape_of_loads

FloatArray = npt.NDArray[np.float64]
Positions = tuple[dict[str, int], dict[str, int]]

_MOST_SOLVES = 12


def infer_start(feeder: Feeder, network: Network, inferred: dict[str, Any]) -> None:
    """Add ``taps`` and ``steps_on`` to a scenario's data where these and the demand are not the user's own."""
    profiles = inferred.get("profiles")
    source = profiles.get("source", "builtin") if isinstance(profiles, Mapping) else "builtin"
    scale = inferred.get("load_scale", 1.0)
    gear = network.regulator_controls or network.capacitors
    if not isinstance(source, str) or source not in ("builtin", "loadshapes"):
        return
    if not isinstance(scale, int | float) or not 0.0 < scale <= 100.0:  # which is told elsewhere
        return
    if not gear or inferred.get("taps") or inferred.get("steps_on"):
        return
    found = _settled(feeder, source == "loadshapes", float(scale))
    if found is not None:
        taps, steps_on = found
        inferred |= {key: dict(value) for key, value in (("taps", taps), ("steps_on", steps_on)) if value}


@functools.lru_cache(maxsize=16)
def _settled(feeder: Feeder, by_shapes: bool, scale: float) -> Positions | None:
    """Let a feeder's own controls settle at the mean demand; None where they do not, or the flow does not converge."""
    circuit = Circuit(feeder, plan=ControlPlan(others=True))
    try:
        network = circuit.network
        share = scale * (_mean_by_shape(network) if by_shapes else float(builtin_profiles().demand_pu.mean()))
        circuit.write_demand(network.loads.kw * share, network.loads.kvar * share)
        for _ in range(_MOST_SOLVES):
            if not circuit.solve(controls=True):
                return None
            if not circuit.own_moves:
                break
        circuit.start_from({}, {})  # so that what was found also solves with the controls held
        taps = dict(zip(network.regulator_controls, circuit.taps.tolist(), strict=True))
        return taps, dict(zip(network.capacitors, circuit.steps_on.tolist(), strict=True))
    except PowerGridError:
        return None
    finally:
        circuit.close()


def _mean_by_shape(network: Network) -> FloatArray:
    means = {name: float(np.mean(values)) for name, (values, _) in network.load_shapes.items()}
    return np.array([means.get(shape, 1.0) for shape in shape_of_loads(network).values()])
