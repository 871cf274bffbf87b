"""Demand by the feeder's own LoadShapes, in a year whose sun and prices come from elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powergrid.errors import ScenarioError
from powergrid.grid.feeder.network import Network
from powergrid.grid.profiles.profiles import Profiles, profiles_from_loadshapes

#: The series of loads that name no LoadShape: OpenDSS takes them at their nominal demand.
FLAT = "flat"


def find_shape_problems(network: Network) -> list[str]:
    """List what keeps the feeder's LoadShapes from being followed."""
    problems = []
    for name, (values, interval) in network.load_shapes.items():
        if not np.isfinite(interval) or interval <= 0.0:
            problems.append(f"LoadShape {name!r} has no fixed interval")
        elif not np.size(values):
            problems.append(f"LoadShape {name!r} has no points")
        elif not np.isfinite(values).all():
            stem, _, kw = name.rpartition("@")
            if stem and float(kw.removesuffix("kw")) == 0.0:
                problems.append(
                    f"LoadShape {stem!r} has actual values (UseActual=yes) and a load of 0 kW, to which they give no "
                    "multiplier; give that load its rated kW"
                )
            else:
                problems.append(f"LoadShape {name!r} has a point that is not finite")
    return problems


def follow_loadshapes(network: Network, base: Profiles) -> Profiles:
    """Return the base series with the feeder's LoadShapes as demand, repeated over all its days.

    Args:
        network: The feeder; its loads name their shapes.
        base: Gives days, sun, temperature and prices.

    Raises:
        ScenarioError: no load names a LoadShape, or one cannot be used.
    """
    if not network.load_shapes:
        raise ScenarioError("profiles", ["source 'loadshapes': no load of the feeder names a LoadShape"])
    problems = find_shape_problems(network)
    if problems:
        raise ScenarioError("profiles", [f"source 'loadshapes': {problem}" for problem in problems])
    shapes = profiles_from_loadshapes(network.load_shapes, base.step_minutes, base.start)
    rows = np.arange(base.n_rows) % shapes.n_rows
    demand = np.column_stack([shapes.demand_pu[rows], np.ones(base.n_rows)])
    return replace(base, name="loadshapes", demand_pu=demand, demand_names=(*shapes.demand_names, FLAT))


def shape_of_loads(network: Network) -> dict[str, str]:
    """Say which series of :func:`follow_loadshapes` each load follows, by load name."""
    return {load: shape or FLAT for load, shape in zip(network.loads.names, network.loads.shapes, strict=True)}
