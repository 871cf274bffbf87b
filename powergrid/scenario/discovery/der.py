"""Place panels and batteries on a feeder up to a penetration: seeded, at load buses, on the phases there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from powergrid.errors import ScenarioError
from powergrid.grid.circuit.survey import Survey
from powergrid.scenario.discovery.devices import Device, name_device
from powergrid.scenario.discovery.wishes import AddDerSpec

#: Most sites where none are asked for.
MOST_SITES = 24


def place_der(survey: Survey, wish: AddDerSpec, taken: set[str]) -> list[Device]:
    """Place panels and batteries.

    Buses are drawn without replacement, by chance in proportion to their nominal demand; so is the panels' power
    among them. Each site gets a battery beside its panels. They are tied to the phases of the bus, between phases
    where a load there is, else to ground.

    Args:
        survey: The feeder.
        wish: How much and where from.
        taken: Names of devices there are already; those placed are added.

    Raises:
        ScenarioError: the feeder has no load to measure the penetration by.
    """
    network, loads = survey.network, survey.network.loads
    demand: dict[int, float] = {}
    delta: set[int] = set()
    phases = {int(bus): _phases(survey, int(bus)) for bus in set(loads.bus.tolist())}
    for bus, kw, between in zip(loads.bus.tolist(), loads.kw.tolist(), survey.delta_loads, strict=True):
        if kw > 0.0 and phases[bus]:
            demand[bus] = demand.get(bus, 0.0) + kw
            if between:
                delta.add(bus)
    if not demand:
        raise ScenarioError(
            survey.feeder, ["add_der: the feeder has no load with active power, so there is no penetration"]
        )
    buses = sorted(demand)
    weights = np.array([demand[bus] for bus in buses])
    n_sites = wish.sites or min(MOST_SITES, max(1, round(len(buses) ** 0.5)))
    rng = np.random.default_rng(wish.seed)
    drawn = rng.choice(len(buses), size=min(n_sites, len(buses)), replace=False, p=weights / weights.sum())
    chosen = sorted(drawn.tolist())
    total_kw = wish.penetration * float(loads.kw.sum())
    shares = weights[chosen] / weights[chosen].sum()
    placed = []
    for place, share in zip(chosen, shares.tolist(), strict=True):
        bus = buses[place]
        p_kw = float(f"{total_kw * share:.4g}")
        where: dict[str, Any] = {"bus": network.buses[bus]}
        if phases[bus] != (1, 2, 3):
            where["phases"] = list(phases[bus])
        if bus in delta and len(phases[bus]) > 1:
            where["connection"] = "delta"
        served = tuple(sorted(set(network.served_phase[network.nodes_of([bus])].tolist()) & {1, 2, 3}))
        pv = {"kind": "inverter", **where, "p_max_kw": p_kw, "reactive": "category_b"}
        placed.append(Device(name_device(network.buses[bus], "pv", taken), pv, bus, served))
        if wish.storage_share > 0.0:
            power = float(f"{wish.storage_share * p_kw:.4g}")
            energy = float(f"{power * wish.storage_hours:.4g}")
            ess = {"kind": "storage", **where, "e_max_kwh": energy, "p_max_kw": power, "reactive": True}
            placed.append(Device(name_device(network.buses[bus], "ess", taken), ess, bus, served))
    return placed


def _phases(survey: Survey, bus: int) -> tuple[int, ...]:
    """Return the phases of a bus that a device can be tied to."""
    network = survey.network
    return tuple(sorted(set(network.node_phase[network.nodes_of([bus])].tolist()) & {1, 2, 3}))
