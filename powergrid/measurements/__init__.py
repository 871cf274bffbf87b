"""Your measurements: tables of meters, weather and prices become profiles that a scenario plays as measured."""

from __future__ import annotations

from powergrid.measurements.importing import Imported, import_profiles
from powergrid.measurements.report import DataReport
from powergrid.measurements.vocabulary import ImportMap

__all__ = ["DataReport", "ImportMap", "Imported", "import_profiles"]
