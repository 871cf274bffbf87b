"""Devices that agents decide over: one module a kind, spec beside physics; no engine and no learning."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from powergrid.grid.devices.building import BuildingFleet, BuildingSpec
from powergrid.grid.devices.ev_charger import EvChargerFleet, EvChargerSpec
from powergrid.grid.devices.fleet import DeviceFleet, PowerFleet
from powergrid.grid.devices.flexible_load import FlexibleLoadFleet, FlexibleLoadSpec
from powergrid.grid.devices.generator import GeneratorFleet, GeneratorSpec
from powergrid.grid.devices.inverter import InverterFleet, InverterSpec
from powergrid.grid.devices.spec import (
    ActionSpec,
    BoundSpec,
    DeviceSpec,
    Exogenous,
    PlacedSpec,
    SpecRow,
    StateSpec,
    spec_table,
)
from powergrid.grid.devices.storage import StorageFleet, StorageSpec
from powergrid.grid.devices.switchgear import (
    CapacitorFleet,
    CapacitorSpec,
    RegulatorFleet,
    RegulatorSpec,
    SwitchFleet,
    SwitchgearFleet,
    SwitchgearSpec,
    SwitchSpec,
)

AnyDeviceSpec = Annotated[
    StorageSpec
    | InverterSpec
    | GeneratorSpec
    | FlexibleLoadSpec
    | EvChargerSpec
    | BuildingSpec
    | CapacitorSpec
    | RegulatorSpec
    | SwitchSpec,
    Field(discriminator="kind"),
]
"""Any device, told apart by its ``kind``."""

FLEETS: dict[str, type[DeviceFleet[Any]]] = {
    fleet.kind: fleet
    for fleet in (
        StorageFleet,
        InverterFleet,
        GeneratorFleet,
        FlexibleLoadFleet,
        EvChargerFleet,
        BuildingFleet,
        CapacitorFleet,
        RegulatorFleet,
        SwitchFleet,
    )
}
"""The fleet of each kind, in the order in which devices appear in tables."""

SPECS: dict[str, type[DeviceSpec]] = {
    "storage": StorageSpec,
    "inverter": InverterSpec,
    "generator": GeneratorSpec,
    "flexible_load": FlexibleLoadSpec,
    "ev_charger": EvChargerSpec,
    "building": BuildingSpec,
    "capacitor": CapacitorSpec,
    "regulator": RegulatorSpec,
    "switch": SwitchSpec,
}
"""The spec of each kind, in the same order."""

__all__ = [
    "FLEETS",
    "SPECS",
    "ActionSpec",
    "AnyDeviceSpec",
    "BoundSpec",
    "BuildingFleet",
    "BuildingSpec",
    "CapacitorFleet",
    "CapacitorSpec",
    "DeviceFleet",
    "DeviceSpec",
    "EvChargerFleet",
    "EvChargerSpec",
    "Exogenous",
    "FlexibleLoadFleet",
    "FlexibleLoadSpec",
    "GeneratorFleet",
    "GeneratorSpec",
    "InverterFleet",
    "InverterSpec",
    "PlacedSpec",
    "PowerFleet",
    "RegulatorFleet",
    "RegulatorSpec",
    "SpecRow",
    "StateSpec",
    "StorageFleet",
    "StorageSpec",
    "SwitchFleet",
    "SwitchSpec",
    "SwitchgearFleet",
    "SwitchgearSpec",
    "spec_table",
]
