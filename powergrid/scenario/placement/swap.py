"""Bring a scenario's devices, zones and keys to another feeder, by name, by a map and by rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from powergrid.errors import ScenarioError
from powergrid.grid.feeder.feeder import Feeder
from powergrid.scenario.discovery.equipment import equipment_of
from powergrid.scenario.placement.devices import Devices
from powergrid.scenario.placement.keys import Keys
from powergrid.scenario.placement.names import Names
from powergrid.scenario.placement.scaling import short
from powergrid.scenario.placement.sites import Sites
from powergrid.scenario.placement.wishes import PlacementSpec
from powergrid.scenario.placement.zones import Zones

_HINT = "give placement.map, or a rule: placement: {rule: load}, distance or phase"


def place(
    data: Mapping[str, Any], home: Feeder, there: Feeder, wish: PlacementSpec, where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Bring a scenario to another feeder.

    Args:
        data: The whole scenario as plain data, valid on its own feeder.
        home: The feeder that its names are of.
        there: The feeder it shall be played on.
        wish: How.
        where: What errors call the scenario.

    Returns:
        The data with the names of the new feeder, and a record of what moved and what is left over.

    Raises:
        ScenarioError: with everything that has no place, each with what is most like it on the new feeder.
        FeederError: a feeder does not compile or solve.
    """
    return settle(
        Names(data, Sites(home.name, equipment_of(home)), Sites(there.name, equipment_of(there)), wish), where
    )


def settle(names: Names, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find what stands for all that a scenario names; as :func:`place`."""
    data, there, wish = names.data, names.there, names.wish
    zones = Zones(names)
    devices = Devices(names, zones)
    zones.leave_out(names.dropped)
    keys = Keys(names)
    names.check_used()
    if names.problems:
        title = f"{where} on {there.name}"
        raise ScenarioError(f"{title} ({_HINT})" if wish.rule is None else title, names.problems)
    names.note_left_over()
    record = {
        "home": str(data["feeder"]),
        "load_ratio": short(names.ratio),
        "moves": names.moves,
        "left_over": tuple(names.left),
    }
    return {**data, **keys.moved, "devices": devices.placed, "agents": zones.agents}, record
