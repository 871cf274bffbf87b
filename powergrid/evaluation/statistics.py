"""How sure a number is, over the seeds of trainings and over days; everything that compares policies asks here.

Scores come as arrays of shape (n_seeds, n_days): every seed of a training has played the same days. What is drawn again
is drawn from the same random numbers every time, so that the same scores give the same interval. It knows no policies.

Source:
    Agarwal, Schwarzer, Castro, Courville, Bellemare: Deep reinforcement learning at the edge of the statistical
    precipice. NeurIPS 2021. Statistics, profiles and the draws ``of each task`` are those of its library, rliable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
#: From scores of shape (..., n_seeds, n_days) to a number each, shape (...).
Statistic = Callable[[FloatArray], FloatArray]
#: What a seed's scores are draws of: one training that plays all days, or one training for each column.
Draws = Literal["of all days", "of each task"]

CONFIDENCE = 0.95
#: Times that scores are drawn again for an interval: its ends are sure to about a hundredth of its width.
N_DRAWS = 5000
#: Part of all scores that the interquartile mean leaves out at either end.
_QUARTER = 0.25


class Interval(NamedTuple):
    """A mean and how sure it is.

    Attributes:
        mean: The mean.
        half: Half the width of the 95 % interval, NaN where there is one value only.
    """

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.half:.2f}" if np.isfinite(self.half) else "")


class Estimate(NamedTuple):
    """A statistic of scores and the ends of its 95 % interval, which need not lie evenly around it.

    Attributes:
        value: The statistic of all scores.
        low, high: The ends, NaN where there is nothing to draw from.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}" + (f" [{self.low:.2f}, {self.high:.2f}]" if np.isfinite(self.low) else "")


class Profile(NamedTuple):
    """Which part of all scores lies above each threshold, with the ends of its 95 % interval.

    Attributes:
        thresholds: The thresholds, shape (n,).
        share: Part of all scores that lies above, 0 to 1, shape (n,).
        low, high: Its interval at each threshold by itself, NaN where there is nothing to draw from, shape (n,).
    """

    thresholds: FloatArray
    share: FloatArray
    low: FloatArray
    high: FloatArray


def confidence_interval(values: npt.ArrayLike) -> Interval:
    """Return the mean and the half-width of its two-sided 95 % interval by Student's t.

    Seeds and days both are draws: of another training, and of another day, the mean would be another. So with several
    seeds the interval holds what both bring, and is never narrower for a seed more that says the same.

    Args:
        values: One value a day, shape (n_days,), or for each seed too, shape (n_seeds, n_days). They are taken as
            independent draws; days of one week are alike, so the truth is wider.

    Source:
        One seed: mean ± t(0.975, n - 1) · s / √n, s the sample's standard deviation. Several: the grand mean of the
        two-way random model, its variance (MS_seeds + MS_days - MS_rest) / (n_seeds · n_days), degrees of freedom by
        Satterthwaite (Biometrics Bulletin 2, 1946); components below 0 are taken as 0.
    """
    from scipy import stats

    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    n_seeds, n_days = table.shape
    mean = float(table.mean())
    if min(n_seeds, n_days) == 1:
        if table.size == 1:
            return Interval(mean, float("nan"))
        t = float(stats.t.ppf(0.5 + CONFIDENCE / 2.0, table.size - 1))
        return Interval(mean, t * float(table.std(ddof=1)) / table.size**0.5)
    by_seed, by_day = table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_day + mean
    free = np.array([n_seeds - 1, n_days - 1, (n_seeds - 1) * (n_days - 1)])
    of_rest = float((rest**2).sum()) / free[2]
    of_seeds = max(n_days * float(by_seed.var(ddof=1)), of_rest)
    of_days = max(n_seeds * float(by_day.var(ddof=1)), of_rest)
    variance = of_seeds + of_days - of_rest
    if variance == 0.0:
        return Interval(mean, 0.0)
    degrees = variance**2 / float((np.array([of_seeds, of_days, of_rest]) ** 2 / free).sum())
    # The approximation goes below what either brings alone where the rest is all there is.
    t = float(stats.t.ppf(0.5 + CONFIDENCE / 2.0, max(degrees, float(free[:2].min()))))
    return Interval(mean, t * (variance / table.size) ** 0.5)


def difference_interval(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> Interval:
    """Return by how much our mean is above theirs, paired day by day, with its interval over seeds and days.

    Args:
        ours, theirs: One value a day, or for each seed too, as for :func:`confidence_interval`; the days have to be the
            same, in the same order, the seeds not as many.
    """
    one, two = (np.atleast_2d(np.asarray(each, dtype=np.float64)) for each in (ours, theirs))
    if len(two) == 1:
        return confidence_interval(one - two)
    if len(one) == 1:
        mean, half = confidence_interval(two - one)
        return Interval(-mean, half)
    # Seeds are of different trainings and no pairs: what theirs bring is added, as of independent draws.
    found, of_theirs = confidence_interval(one - two.mean(axis=0)), confidence_interval(two.mean(axis=1))
    return Interval(found.mean, float(np.hypot(found.half, of_theirs.half)))


# -- statistics: of scores of shape (..., n_seeds, n_days), one number each


def mean(scores: FloatArray) -> FloatArray:
    """Return the mean of all scores."""
    return np.asarray(scores.mean(axis=(-2, -1)))


def interquartile_mean(scores: FloatArray) -> FloatArray:
    """Return the mean of the middle half of all scores, whatever seed or day they are of."""
    from scipy import stats

    whole = scores.reshape(*scores.shape[:-2], -1)
    return np.asarray(stats.trim_mean(whole, proportiontocut=_QUARTER, axis=-1))


def median(scores: FloatArray) -> FloatArray:
    """Return the median over days of what the seeds came to in the mean."""
    return np.asarray(np.median(scores.mean(axis=-2), axis=-1))


def optimality_gap(scores: FloatArray, threshold: float = 1.0) -> FloatArray:
    """Return by how much scores are below a threshold in the mean; what is above it counts as being at it."""
    return np.asarray(threshold - np.minimum(scores, threshold).mean(axis=(-2, -1)))


#: What is told of scores, by the name that files give it.
STATISTICS: Mapping[str, Statistic] = {
    "mean": mean,
    "iqm": interquartile_mean,
    "median": median,
    "optimality_gap": optimality_gap,
}


# -- intervals by drawing again


def estimate(scores: npt.ArrayLike, statistic: Statistic, draws: Draws = "of all days") -> Estimate:
    """Return a statistic of scores with its 95 % interval, by drawing seeds and days again (percentile bootstrap).

    Of few seeds that differ much it is too narrow, as every bootstrap is: see ``docs/evaluation.md`` for by how much.

    Args:
        scores: A score for each seed and day, shape (n_seeds, n_days), or (n_days,) of one seed; or for each run and
            task.
        statistic: Which one, as those of :data:`STATISTICS`.
        draws: ``of all days``: a seed is one training, which plays all days, so seeds are drawn whole, and days too.
            ``of each task``: columns are tasks with trainings of their own, so in each the runs are drawn by
            themselves, and tasks stay (stratified).
    """
    table = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    low, high = _draw_again(table, statistic, draws)
    return Estimate(float(statistic(table)), float(low), float(high))


def performance_profile(scores: npt.ArrayLike, thresholds: npt.ArrayLike, draws: Draws = "of all days") -> Profile:
    """Return which part of all scores lies above each threshold, with intervals as of :func:`estimate`.

    Where a curve lies above another's everywhere, its policy is better at every part of its days.
    """
    table, at = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(thresholds, dtype=np.float64)

    def count(drawn: FloatArray) -> FloatArray:
        whole = drawn.reshape(*drawn.shape[:-2], -1)
        return np.stack([(whole > threshold).mean(axis=-1) for threshold in at.tolist()], axis=-1)

    return Profile(at, count(table), *_draw_again(table, count, draws))


def probability_of_improvement(ours: npt.ArrayLike, theirs: npt.ArrayLike, draws: Draws = "of all days") -> Estimate:
    """Return how probable it is that one training of ours is better than one of theirs on a day, with its interval.

    Ties count half. Of runs that are all alike it is 0.5, and 1 where any of ours is better on any day; then, and where
    none ever is, the interval is that of as many heads in a row as there are days (Clopper and Pearson), for nothing
    that is drawn again can be otherwise.

    Args:
        ours, theirs: A score for each seed and day, shape (n_seeds, n_days); the days have to be the same, in the same
            order, the seeds not as many.
        draws: As for :func:`estimate`; the days that are drawn are the same for both.

    Source:
        Mann and Whitney's U over the number of pairs, mean over days.
    """
    one, two = (np.atleast_2d(np.asarray(each, dtype=np.float64)) for each in (ours, theirs))
    wins = (one[:, None] > two) + 0.5 * (one[:, None] == two)  # (n_ours, n_theirs, n_days)
    value, rng = float(wins.mean()), np.random.default_rng(0)
    n_ours, n_theirs, n_days = wins.shape
    if max(n_ours, n_theirs, n_days if draws == "of all days" else 1) == 1:
        return Estimate(value, float("nan"), float("nan"))
    if draws == "of all days":
        shares = [_draw_shares(rng, n) for n in wins.shape]
        drawn = np.einsum("ri,rj,rd,ijd->r", *shares, wins, optimize=True)
    else:
        by_task = [
            np.einsum("ri,rj,ij->r", _draw_shares(rng, n_ours), _draw_shares(rng, n_theirs), wins[:, :, task])
            for task in range(n_days)
        ]
        drawn = np.mean(by_task, axis=0)
    low, high = (float(end) for end in np.quantile(drawn, _ENDS))
    if draws == "of all days" and value in (0.0, 1.0):
        sure = _ENDS[0] ** (1.0 / n_days)
        low, high = (0.0, 1.0 - sure) if value == 0.0 else (sure, 1.0)
    return Estimate(value, low, high)


_ENDS = (0.5 - CONFIDENCE / 2.0, 0.5 + CONFIDENCE / 2.0)


def _draw_shares(rng: np.random.Generator, n: int) -> FloatArray:
    """Draw n of n, many times, and return which part of each draw each one is, shape (n_draws, n)."""
    drawn: FloatArray = rng.multinomial(n, np.full(n, 1.0 / n), size=N_DRAWS) / n
    return drawn


def _draw_again(table: FloatArray, statistic: Statistic, draws: Draws) -> tuple[FloatArray, FloatArray]:
    """Return the ends of a statistic's interval, NaN where there is nothing to draw from."""
    n_seeds, n_days = table.shape
    if n_seeds == 1 and (n_days == 1 or draws == "of each task"):
        nothing = np.full_like(statistic(table), np.nan)
        return nothing, nothing
    rng = np.random.default_rng(0)
    if draws == "of all days":
        seeds = rng.integers(n_seeds, size=(N_DRAWS, n_seeds, 1))
        days = rng.integers(n_days, size=(N_DRAWS, 1, n_days))
    else:
        seeds, days = rng.integers(n_seeds, size=(N_DRAWS, n_seeds, n_days)), np.arange(n_days)
    low, high = np.quantile(statistic(table[seeds, days]), _ENDS, axis=0)
    return low, high
