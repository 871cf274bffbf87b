"""Demand by the feeder's own LoadShapes, in a year whose sun and prices come from elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powergrid.errors import ScenarioError
from powergrid.grid.network import Network
from powergrid.grid.profiles import Profiles, profiles_from_loadshapes

#: The series of loads that name no LoadShape: OpenDSS takes them at their nominal demand.
FLAT = "flat"


def follow_loadshapes(network: Network, base: Profiles) -> Profiles:
    """Give the base series with the feeder's LoadShapes as demand, repeated over all its days.

    Args:
        network: The feeder; its loads name their shapes.
        base: Gives days, sun, temperature and prices.

    Raises:
        ScenarioError: no load names a LoadShape, or one cannot be used.
    """
    if not network.load_shapes:
        raise ScenarioError("profiles", ["source 'loadshapes': no load of the feeder names a LoadShape"])
    shapes = profiles_from_loadshapes(network.load_shapes, base.step_minutes, base.start)
    rows = np.arange(base.n_rows) % shapes.n_rows
    demand = np.column_stack([shapes.demand_pu[rows], np.ones(base.n_rows)])
    return replace(base, name="loadshapes", demand_pu=demand, demand_names=(*shapes.demand_names, FLAT))


def shape_of_loads(network: Network) -> dict[str, str]:
    """Say which series of :func:`follow_loadshapes` each load follows, by load name."""
    return {load: shape or FLAT for load, shape in zip(network.loads.names, network.loads.shapes, strict=True)}
