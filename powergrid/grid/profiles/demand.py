"""What each load draws over a day: by its own LoadShape, by a series of the profiles, or its nominal demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.feeder.network import BoolArray, Loads, Network, fits
from powergrid.grid.feeder.network.shapes import SHAPE_MODES
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.assignment import assign_series
from powergrid.grid.profiles.profiles import FLAT, Profiles

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Demand:
    """Say what each load draws at each step of a day.

    A load whose status is fixed draws its nominal demand, and one of model 6 or 7 its nominal kvar, unless a rule of
    the scenario names it. Where the profiles are the feeder's LoadShapes, every other load follows its own, or none.

    Args:
        profiles: The exogenous series, in steps of the simulation.
        options: Step, horizon, classes and scale of demand.
        network: The feeder.

    Attributes:
        series: Demand series of each load, shape (n_loads,); of a load with a LoadShape it says nothing.
        max_kw: What each load draws at most, shape (n_loads,) [kW].
        shape: Place of the LoadShape that each load follows, -1 where it follows none, shape (n_loads,).
        constant: Whether a load draws its nominal demand by its own word, shape (n_loads,).

    Raises:
        ScenarioError: a rule names a class or a load that there is none of.
    """

    def __init__(self, profiles: Profiles, options: SimulationOptions, network: Network) -> None:
        self._profiles, self._shapes = profiles, network.shapes
        loads, classes = network.loads, options.load_classes
        ruled = _find_rules(loads.names, classes)
        shaped = np.isin(np.array(loads.names, dtype=object), list(options.shaped_loads))
        if profiles.shape_mode is None:
            own = np.where(shaped, network.followed_by("Load", "daily"), -1)
            self.series = assign_series(loads.names, loads.kw, classes or None, profiles, options.load_seed)
            measured = {*profiles.load_series, *(name.lower() for name in profiles.demand_names)}
            named = np.array([bool(rule) or load in measured for rule, load in zip(ruled, loads.names, strict=True)])
        else:
            own = network.followed_by("Load", profiles.shape_mode).copy()
            self.series = np.zeros(len(own), dtype=np.int64)
            named = np.array([bool(rule) for rule in ruled])
            place = _find_shapes(classes, network)
            own[named.astype(np.bool_)] = [place[rule] for rule in ruled if rule]
        # What the scenario says of a load, or a table has measured, goes before the feeder.
        self._measured = profiles.owned(loads, classes) | shaped
        self._scale = options.load_scale
        scale = np.where(self._measured, 1.0, self._scale)
        base = profiles.base_of(loads, classes)
        if profiles.shape_mode is not None and network.sources.load_factors.size:
            factors = network.sources.load_factors[SHAPE_MODES.index(profiles.shape_mode)]
            base = (base[0] * factors, base[1] * np.where(loads.fixed_q, 1.0, factors))
        self._choose_columns(own, named.astype(np.bool_), loads, base, scale)

    def _choose_columns(
        self, own: IntArray, named: BoolArray, loads: Loads, base: tuple[FloatArray, FloatArray], scale: FloatArray
    ) -> None:
        """Choose a column for the active and reactive demand of each load, and what it is multiplied by.

        Columns are the series of the profiles, those of kvar, 1, and the active and reactive values of the shapes.

        Args:
            own: Place of the shape that each load follows, -1 for none, shape (n_loads,).
            named: Whether something other than the feeder says what it draws, shape (n_loads,).
            loads: The load table.
            base: What 1.0 is for each load [kW], [kvar].
            scale: Factor on demand, shape (n_loads,); 1.0 of what was measured.
        """
        fixed, fixed_q = loads.fixed & ~named, loads.fixed_q & ~named
        shapes, profiles, n_series = self._shapes, self._profiles, len(self._profiles.demand_names)
        self.shape = own = np.where(fixed, -1, own)
        self.constant = fixed
        self._used, place = np.unique(own[own >= 0], return_inverse=True)
        one = n_series if profiles.demand_kvar_pu is None else 2 * n_series
        kw_column, kvar_column = self.series.copy(), self.series + (one - n_series)
        kw_column[own >= 0] = one + 1 + place
        kvar_column[own >= 0] = one + 1 + len(self._used) + place
        kw_column[fixed] = kvar_column[fixed] = kvar_column[fixed_q] = one
        actual = np.zeros(len(own), dtype=np.bool_)
        actual[own >= 0] = shapes.use_actual[own[own >= 0]]
        kw, kvar = np.where(actual, 1.0, base[0]), np.where(actual & ~fixed_q, 1.0, base[1])
        self._columns, self._nominal = (kw_column, kvar_column), (kw * scale, kvar * scale)
        self._unscaled = kw, kvar
        # OpenDSS goes by the power factor where actual values of kvar are 0 or not given.
        self._by_factor = np.flatnonzero(actual & ~fixed_q)
        self._q_per_kw = loads.actual_q_per_kw[self._by_factor]
        self._plain = one == n_series and not (fixed.any() or fixed_q.any() or self._used.size)
        top = np.full(len(own), profiles.demand_pu.max(initial=0.0))
        top[own >= 0] = shapes.peaks(self._used)[place]
        self.max_kw = kw * (top * scale)

    def lay_out(self, day: int, kw: FloatArray, kvar: FloatArray, load_scale: float | None = None) -> None:
        """Fill in what loads draw from midnight of a day on [kW], [kvar], each shape (n_steps, n_loads).

        Args:
            day: The day.
            kw, kvar: Are filled.
            load_scale: Factor on nominal demand, where not that of the options.
        """
        profiles, (kw_column, kvar_column) = self._profiles, self._columns
        nominal = self._nominal
        if load_scale is not None and load_scale != self._scale:
            scale = np.where(self._measured, 1.0, load_scale)
            nominal = self._unscaled[0] * scale, self._unscaled[1] * scale
        first = day * profiles.rows_per_day
        rows = slice(first, first + len(kw))
        if self._plain:
            profiles.demand_pu[rows].take(kw_column, 1, kw, "clip")
            np.multiply(kw, nominal[1], out=kvar)
            np.multiply(kw, nominal[0], out=kw)
            return
        p, q = self._shapes.sample(self._used, profiles.step_ends(day, len(kw)))
        demand, reactive = profiles.demand_pu[rows], profiles.demand_kvar_pu
        series = (demand,) if reactive is None else (demand, reactive[rows])
        columns = np.concatenate([*series, np.ones((len(kw), 1)), p, q], axis=1)
        np.multiply(columns[:, kw_column], nominal[0], out=kw)
        np.multiply(columns[:, kvar_column], nominal[1], out=kvar)
        if self._by_factor.size:
            own = kvar[:, self._by_factor]
            lacks = np.isnan(own) | (own == 0.0)
            kvar[:, self._by_factor] = np.where(lacks, kw[:, self._by_factor] * self._q_per_kw, own)

    def measured_range(self, loads_in: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return the lowest and the highest demand of zones over all days [kW], None where no load has its own series.

        Args:
            loads_in: Part of each load that is in each zone, shape (n_loads, n_zones).
        """
        if not self._profiles.load_base:
            return None
        # series by series: the demand of all loads over a year is a large array
        weights = np.zeros((self._profiles.demand_pu.shape[1], loads_in.shape[1]))
        np.add.at(weights, self.series, self._nominal[0][:, None] * loads_in)
        zone_kw = self._profiles.demand_pu @ weights
        return zone_kw.min(axis=0), zone_kw.max(axis=0)

    def mean(self) -> tuple[FloatArray, FloatArray]:
        """Return what each load draws on average over all the days [kW], [kvar], each shape (n_loads,)."""
        profiles = self._profiles
        p, q = self._shapes.means(self._used)
        series = [s.mean(axis=0) for s in (profiles.demand_pu, profiles.demand_kvar_pu) if s is not None]
        columns = np.concatenate([*series, np.ones(1), p, q])
        kw, kvar = (columns[column] * most for column, most in zip(self._columns, self._nominal, strict=True))
        own = kvar[self._by_factor]
        kvar[self._by_factor] = np.where(np.isnan(own), kw[self._by_factor] * self._q_per_kw, own)
        return kw, kvar


def _find_rules(names: Sequence[str], classes: Mapping[str, str]) -> list[str]:
    """Return the rule that each load falls under, empty where none: its name, else the first pattern that fits."""
    rules = {rule.lower(): rule for rule in classes}
    if not rules:
        return [""] * len(names)
    return [rules.get(name) or next((own for low, own in rules.items() if fits(name, low)), "") for name in names]


def _find_shapes(classes: Mapping[str, str], network: Network) -> dict[str, int]:
    """Return the place of the shape that each rule gives its loads, -1 for their nominal demand.

    Raises:
        ScenarioError: With every shape that there is not and every name or pattern that fits no load.
    """
    place = {FLAT: -1} | {name: i for i, name in enumerate(network.shapes.names)}
    problems = [
        f"{rule!r}: {describe_unknown('class', name, place)}"
        for rule, name in classes.items()
        if name.lower() not in place
    ]
    problems += [
        describe_unknown("load", rule, network.loads.names)
        for rule in classes
        if not any(fits(name, rule.lower()) for name in network.loads.names)
    ]
    if problems:
        raise ScenarioError("load classes", problems)
    return {rule: place[name.lower()] for rule, name in classes.items()}
