"""Series of demand, sun and price: read, checked, dealt out to loads, cut into days."""

from __future__ import annotations

from powergrid.grid.profiles.assignment import assign_series
from powergrid.grid.profiles.profiles import (
    Profiles,
    builtin_profiles,
    eligible_days,
    profiles_from_loadshapes,
    read_profiles,
    split_days,
)

__all__ = [
    "Profiles",
    "assign_series",
    "builtin_profiles",
    "eligible_days",
    "profiles_from_loadshapes",
    "read_profiles",
    "split_days",
]
