"""The shipped year on the dates of somebody's measurements, for what was not measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.grid.profiles.profiles import Profiles, builtin_profiles
from powergrid.grid.profiles.tables import derive_pv

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class ShippedYear:
    """The shipped year laid out on other dates.

    The sun of a date is that of the same day and month. Demand and prices, which follow the week, are those of the
    nearest day of the same month that is the same day of the week.

    Args:
        start: First date.
        n_days: Number of days.
        step_minutes: Length of a row [min].

    Attributes:
        demand_pu, demand_names: Demand by class, shape (n_rows, n_series).
        prices: Tariffs by name, shape (n_rows,) each.
    """

    def __init__(self, start: np.datetime64, n_days: int, step_minutes: int) -> None:
        year = builtin_profiles()
        # rows of both lengths are made of rows of their greatest common divisor
        year = year.resample(math.gcd(year.step_minutes, step_minutes)).resample(step_minutes)
        dates = start + np.arange(n_days)
        first = year.start.astype("datetime64[D]")
        self._year, self._by_date = year, _rows(_same_date(dates, first), year)
        by_weekday = _rows(_same_weekday(dates, first), year)
        self.demand_pu, self.demand_names = year.demand_pu[by_weekday], year.demand_names
        self.prices = {name: values[by_weekday] for name, values in year.price_usd_per_kwh.items()}

    def complete_weather(self, measured: Mapping[str, FloatArray], taken: list[str]) -> dict[str, Any]:
        """Return sun and temperature: what was measured, what follows from it, else the year's.

        Args:
            measured: ``pv``, ``irradiance`` and ``temperature``, those that were.
            taken: Gets what is the year's.
        """
        year, sun, air, pv = self._year, measured.get("irradiance"), measured.get("temperature"), measured.get("pv")
        if air is None and year.temperature_c is not None:
            air = year.temperature_c[self._by_date]
            taken.append("temperature")
        if sun is None and pv is None and year.irradiance_pu is not None and year.pv_pu is not None:
            taken.append("sun")
            return {
                "pv_pu": year.pv_pu[self._by_date],
                "irradiance_pu": year.irradiance_pu[self._by_date],
                "temperature_c": air,
            }
        if pv is None and sun is not None and air is not None:
            pv = derive_pv(sun, air)
        return {"pv_pu": pv, "irradiance_pu": sun, "temperature_c": air}


def _rows(days: IntArray, year: Profiles) -> IntArray:
    return np.asarray((days[:, None] * year.rows_per_day + np.arange(year.rows_per_day)).ravel(), dtype=np.int64)


def _same_date(dates: npt.NDArray[np.datetime64], first: np.datetime64) -> IntArray:
    """Return the day of the year that starts at a date, of each date; 28 February of the 29th."""
    months = dates.astype("datetime64[M]")
    day = (dates - months.astype("datetime64[D]")).astype(np.int64)
    month = months.astype(np.int64) % 12
    begins = first.astype("datetime64[M]") + month
    length = ((begins + 1).astype("datetime64[D]") - begins.astype("datetime64[D]")).astype(np.int64)
    return np.asarray((begins.astype("datetime64[D]") + np.minimum(day, length - 1) - first).astype(np.int64))


def _same_weekday(dates: npt.NDArray[np.datetime64], first: np.datetime64) -> IntArray:
    """Return the nearest day of the same month and day of the week, of each date."""
    same = _same_date(dates, first)
    weekday = (dates.astype(np.int64) - (first.astype(np.int64) + same)) % 7
    ahead = np.where(weekday <= 3, weekday, weekday - 7)
    other = same + ahead
    leaves = (first + other).astype("datetime64[M]") != (first + same).astype("datetime64[M]")
    return np.asarray(np.where(leaves, np.where(ahead > 0, other - 7, other + 7), other), dtype=np.int64)
