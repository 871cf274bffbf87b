"""The days that environments play: demand, sun and price of a day laid out step by step, once at its start."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.feeder.network import Network
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.background import Background
from powergrid.grid.profiles.demand import Demand
from powergrid.grid.profiles.profiles import Profiles, eligible_days

FloatArray = npt.NDArray[np.float64]
Rows = slice | npt.NDArray[np.int64]


class Days:
    """Lay out days of profiles for n environments.

    Args:
        profiles: The exogenous series.
        options: Step, horizon, split, tariff and demand.
        network: The feeder.
        n_envs: Number of environments.
        inverters: ``class.name``, lower case, of the element of each inverter, empty where it has none.
        taken: The same of all elements that are devices.
        generators: The same as ``inverters`` of each generator.

    Attributes:
        profiles: The series in steps of the simulation.
        eligible: Days of the split, from the profiles' first.
        series: Demand series of each load, shape (n_loads,).
        load_max_kw: What each load draws at most, shape (n_loads,) [kW].
        load_base: What 1.0 pu is for each load [kW], [kvar].
        day: Day that each environment plays, -1 before the first, shape (n_envs,).
        load_scale, price_scale: Factors on nominal demand and on the price, read as a day starts, shape (n_envs,).
        first_step: Step of the day that step 0 is, read as a day starts, shape (n_envs,).
        load_kw, load_kvar: Demand of each load, shape (n_envs, horizon_steps + 1, n_loads).
        load_rows: The same two, environment after environment, shape (n_envs * (horizon_steps + 1), n_loads) each.
        price_usd_per_kwh: Price, shape (n_envs, horizon_steps + 1).
        pv_pu: What the sun offers, in parts of the panels' rating, shape (n_envs, horizon_steps + 1).
        offered: What the shapes of inverters' own elements offer them, in parts of their rating, NaN where they have
            none, shape (n_envs, horizon_steps + 1, n_inverters); None where none has any.
        supplied: The same as ``offered`` of generators.
        says_kw: Whether each column of ``offered``, and of ``supplied``, is kW.
        writes: Class, property and names of what is written every step of elements that are no device.
        background: The values of each, environment after environment, shape (n_envs * (horizon_steps + 1), n_elements).
        weekend: Whether each day of the profiles is a Saturday or a Sunday, shape (n_days,).

    Raises:
        ScenarioError: profiles, tariff, split or horizon do not fit each other.
    """

    def __init__(
        self,
        profiles: Profiles,
        options: SimulationOptions,
        network: Network,
        n_envs: int,
        inverters: Sequence[str] = (),
        taken: Collection[str] = (),
        generators: Sequence[str] = (),
    ) -> None:
        self._options = o = options
        self.profiles = profiles.resample(o.step_minutes)
        self._eligible = dict[int, npt.NDArray[np.int64]]()
        self._chances = dict[int, FloatArray | None]()  # by how many are eligible, where days have weights
        self.eligible = self._find_eligible(self.step_at(max(o.start_hour, o.latest_hour)))
        self._left_out = frozenset(self.profiles.left_out)
        self._price = _pick_tariff(self.profiles, o.tariff)
        self._demand = Demand(self.profiles, o, network)
        self.series, self.load_max_kw = self._demand.series, self._demand.max_kw
        self.load_base = self.profiles.base_of(network.loads, o.load_classes)
        rows, n_loads = o.horizon_steps + 1, len(network.loads.names)
        self.day = np.full(n_envs, -1, dtype=np.int64)
        self.load_scale, self.price_scale = np.full(n_envs, o.load_scale), np.full(n_envs, o.price_scale)
        self.first_step = np.full(n_envs, self.step_at(o.start_hour))
        self.load_kw = np.zeros((n_envs, rows, n_loads))
        self.load_kvar = np.zeros((n_envs, rows, n_loads))
        # the days of all environments laid end to end, the same memory
        laid_out = n_envs * rows, n_loads
        self.load_rows = self.load_kw.reshape(laid_out), self.load_kvar.reshape(laid_out)
        self.price_usd_per_kwh = np.zeros((n_envs, rows))
        self.pv_pu = np.zeros((n_envs, rows))
        self._background, self._inverters = Background(self.profiles, network, taken), tuple(inverters)
        self.writes = self._background.writes
        self.background = [np.zeros((n_envs * rows, len(names))) for _, _, names in self.writes]
        self._generators = tuple(generators)
        self.offered, self.supplied = (
            np.full((n_envs, rows, len(elements)), np.nan) if self._background.has_shape(elements) else None
            for elements in (self._inverters, self._generators)
        )
        self.says_kw = tuple(self._background.says_kw(elements) for elements in (self._inverters, self._generators))
        # observations look one step ahead, so that there is a row after the last, which repeats it
        self._row_of_step = np.minimum(np.arange(rows), o.horizon_steps - 1)
        start = int(self.profiles.start.astype("datetime64[D]").astype(np.int64))
        self.weekend = (start + np.arange(self.profiles.n_days) + 3) % 7 >= 5  # 1970-01-01 was a Thursday

    def start(self, rows: Rows, envs: Sequence[int], rngs: Sequence[np.random.Generator], day: int | None) -> None:
        """Lay out a day for some environments, drawn where none is given; the row after the last repeats it.

        Args:
            rows: The environments, as an index.
            envs: The same, one after the other.
            rngs: A generator for each.
            day: The day that all play, from the first of the profiles.

        Raises:
            ScenarioError: the day is not in the profiles.
        """
        profiles = self.profiles
        for env, rng in zip(envs, rngs, strict=True):
            picked = self.day[env] = self._pick(rng, day, int(self.first_step[env]))
            kw, kvar = self.load_kw[env], self.load_kvar[env]
            self._lay_out_demand(env, picked, kw[:-1], kvar[:-1])
            kw[-1], kvar[-1] = kw[-2], kvar[-2]
            self.lay_out_others(env)
        at = (self.day * profiles.rows_per_day + self.first_step)[rows, None] + self._row_of_step
        self.price_usd_per_kwh[rows] = self._price.take(at)
        if (self.price_scale != 1.0).any():
            self.price_usd_per_kwh[rows] *= self.price_scale[rows, None]
        if profiles.pv_pu is not None:
            self.pv_pu[rows] = profiles.pv_pu.take(at)

    def step_at(self, hour: float) -> int:
        """Return the step of a day that begins at an hour."""
        return round(hour * 60.0 / self._options.step_minutes)

    def _lay_out_demand(self, env: int, day: int, kw: FloatArray, kvar: FloatArray) -> None:
        """Fill in the demand of a day as an environment plays days: from its first step on, times its factor."""
        first, scale = int(self.first_step[env]), float(self.load_scale[env])
        if not first:
            self._demand.lay_out(day, kw, kvar, scale)
            return
        whole = np.zeros((2, first + len(kw), kw.shape[1]))
        self._demand.lay_out(day, whole[0], whole[1], scale)
        kw[...], kvar[...] = whole[:, first:]

    def measured_range(self, loads_in: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return the lowest and highest demand of zones, see :meth:`Demand.measured_range`."""
        return self._demand.measured_range(loads_in)

    def lay_out_others(self, env: int) -> None:
        """Lay out what elements other than loads do on the day that an environment plays."""
        day, rows = int(self.day[env]), len(self._row_of_step)
        if day < 0:
            return
        at = self._row_of_step + int(self.first_step[env])
        n_steps = int(at[-1]) + 1
        if self.writes:
            for own, values in zip(self.background, self._background.lay_out(day, n_steps), strict=True):
                own[env * rows : (env + 1) * rows] = values[at]
        if self.offered is not None:
            self.offered[env] = self._background.offered(self._inverters, day, n_steps)[at]
        if self.supplied is not None:
            self.supplied[env] = self._background.offered(self._generators, day, n_steps)[at]

    def own_sun(self, env: int) -> list[FloatArray]:
        """Return all but ``pv_pu`` that goes by the sun on an environment's day, each of horizon_steps + 1 rows."""
        rows = len(self._row_of_step)
        own = slice(env * rows, (env + 1) * rows)
        panels = [v[own] for v, (_, key, _) in zip(self.background, self.writes, strict=True) if key == "Irradiance"]
        return panels if self.offered is None else [*panels, self.offered[env]]

    @property
    def season(self) -> FloatArray:
        """Day of the year, 0..1, of the day that each environment plays, shape (n_envs,)."""
        dates = self.profiles.start.astype("datetime64[D]") + self.day
        return np.asarray((dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.float64) / 365.25)

    def foreseen(self, env: int) -> tuple[FloatArray, FloatArray]:
        """Return demand [kW] and sun of an environment's day by its profiles alone: no event is foreseen.

        Returns:
            Shapes (horizon_steps, n_loads) and (horizon_steps,).
        """
        n_steps, profiles, day = self._options.horizon_steps, self.profiles, int(self.day[env])
        kw, kvar = np.zeros((2, n_steps, self.load_kw.shape[2]))
        self._lay_out_demand(env, day, kw, kvar)
        first = day * profiles.rows_per_day + int(self.first_step[env])
        return kw, np.zeros(n_steps) if profiles.pv_pu is None else profiles.pv_pu[first : first + n_steps]

    def day_before(self, env: int) -> tuple[FloatArray, FloatArray]:
        """Return the same of the day before, over and over where the horizon is longer; of day 0 the last day's."""
        first, over = self._find_day_before(env)
        whole, first_step = over.max() + 1, int(self.first_step[env])
        kw, kvar = np.zeros((2, whole, self.load_kw.shape[2]))
        self._lay_out_demand(env, (first - first_step) // self.profiles.rows_per_day, kw, kvar)
        sun = np.zeros(whole) if self.profiles.pv_pu is None else self.profiles.pv_pu[first : first + whole]
        return kw[over], sun[over]

    def price_before(self, env: int) -> FloatArray:
        """Return the price of the day before in the same way [USD/kWh], shape (horizon_steps,)."""
        first, over = self._find_day_before(env)
        price: FloatArray = self._price[first + over]
        return price if self.price_scale[env] == 1.0 else price * self.price_scale[env]

    def _find_day_before(self, env: int) -> tuple[int, npt.NDArray[np.int64]]:
        """Return the first row of an environment's day before, and which of its rows each step has."""
        n_days, rows, day = self.profiles.n_days, self.profiles.rows_per_day, int(self.day[env])
        before = next((d % n_days for d in range(day - 1, day - n_days, -1) if d % n_days not in self._left_out), day)
        n_steps, first_step = self._options.horizon_steps, int(self.first_step[env])
        if first_step + min(rows, n_steps) > (n_days - before) * rows:
            before = day  # the last day of all has none after it, into which an episode could go on
        return before * rows + first_step, np.arange(n_steps) % min(rows, n_steps)

    def _find_eligible(self, first_step: int) -> npt.NDArray[np.int64]:
        """Return the days of the split on which an episode may start at a step."""
        o = self._options
        span = -(-(o.horizon_steps + first_step) * o.step_minutes // 1440)
        if span not in self._eligible:
            self._eligible[span] = eligible_days(self.profiles, o.split, o.horizon_steps + first_step)
        return self._eligible[span]

    def _chances_of(self, days: npt.NDArray[np.int64]) -> FloatArray | None:
        """Return how likely each of some days is drawn; None where none of them has a weight, so that draws stay."""
        if len(days) not in self._chances:
            named = self._options.day_weights
            weights = np.array([named.get(int(day), 1.0) for day in days])
            if not weights.sum() > 0.0:
                raise ScenarioError("day_weights", [f"all {len(days)} days of split {self._options.split!r} weigh 0"])
            told = any(int(day) in named for day in days)
            self._chances[len(days)] = weights / weights.sum() if told else None
        return self._chances[len(days)]

    def _pick(self, rng: np.random.Generator, day: int | None, first_step: int) -> int:
        o = self._options
        if day is None:
            # those that fit the latest start of all, so that the hour that is drawn moves no day
            latest = self.step_at(max(o.start_hour, o.latest_hour))
            days = self.eligible if first_step <= latest else self._find_eligible(first_step)
            chances = self._chances_of(days)
            return int(days[rng.integers(len(days))] if chances is None else rng.choice(days, p=chances))
        self.require_day(day, first_step)
        return int(day)

    def require_day(self, day: int, first_step: int = 0) -> None:
        """Refuse a day on which no episode can start at a step.

        Raises:
            ScenarioError: it is outside the profiles, or left out of them.
        """
        o = self._options
        # a day that starts later would run out of rows before its horizon
        last = self.profiles.n_days - -(-(o.horizon_steps + first_step) * o.step_minutes // 1440)
        if not 0 <= int(day) <= last:
            raise ScenarioError("options", [f"day {day} is outside the profiles; allowed: 0..{last}"])
        out = [d for d in self.profiles.left_out if int(day) <= d < int(day) + self.profiles.n_days - last]
        if out:
            raise ScenarioError("options", [f"day {out[0]} is left out of the profiles, as their data report says"])


def _pick_tariff(profiles: Profiles, tariff: str) -> FloatArray:
    if tariff not in profiles.price_usd_per_kwh:
        raise ScenarioError(
            f"profiles {profiles.name!r}",
            [f"{describe_unknown('tariff', tariff, profiles.price_usd_per_kwh)}; profiles.tariff names it"],
        )
    return np.asarray(profiles.price_usd_per_kwh[tariff], dtype=np.float64)
