"""What a compiled feeder consists of, as data: tables, and how it hangs together. Knows no engine and no time."""

from powergrid.grid.feeder.network.network import Network, describe_missing_phases, fits
from powergrid.grid.feeder.network.series import count_once
from powergrid.grid.feeder.network.shapes import BoolArray, FloatArray, IntArray
from powergrid.grid.feeder.network.tables import (
    BY_LEVEL,
    BY_NOTHING,
    BY_PRICE,
    Branches,
    Dispatch,
    Driven,
    FeederControl,
    Loads,
    Sources,
)

__all__ = [
    "BY_LEVEL", "BY_NOTHING", "BY_PRICE", "BoolArray", "Branches", "Dispatch", "Driven", "FeederControl", "FloatArray",
    "IntArray", "Loads", "Network", "Sources", "count_once", "describe_missing_phases", "fits",
]  # fmt: skip
