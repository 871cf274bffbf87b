"""From a feeder's files to a compiled circuit and its description as data: read, refuse, compose, compile, keep."""

from __future__ import annotations

from powergrid.grid.feeder.feeder import Feeder, list_feeders, models_folder, read_feeder

__all__ = ["Feeder", "list_feeders", "models_folder", "read_feeder"]
