"""What lies between a grid and who runs it: meters, the way of their readings, the way back of setpoints."""

from powergrid.grid.telemetry.meters import find_near, find_places
from powergrid.grid.telemetry.readings import Mark
from powergrid.grid.telemetry.spec import ReadingsSpec, SetpointsSpec, TelemetrySpec
from powergrid.grid.telemetry.telemetry import Telemetry

__all__ = ["Mark", "ReadingsSpec", "SetpointsSpec", "Telemetry", "TelemetrySpec", "find_near", "find_places"]
