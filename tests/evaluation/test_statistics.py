from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from powergrid.evaluation.statistics import (
    STATISTICS,
    Estimate,
    confidence_interval,
    difference_interval,
    estimate,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

FloatArray = npt.NDArray[np.float64]


def test_interval_agrees_with_student_s_own_example() -> None:
    # Student (Biometrika 6, 1908), Cushny and Peebles' hours of sleep gained by two drugs: in every textbook the paired
    # difference is 1.58 h, its interval 0.70 to 2.46 h.
    one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = confidence_interval(np.subtract(two, one))
    assert found.mean == pytest.approx(1.58)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((0.7001, 2.4599), abs=1e-4)


def test_interval_over_seeds_and_days_is_student_s_where_one_of_them_brings_nothing() -> None:
    days = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert confidence_interval(np.tile(days, (3, 1))) == pytest.approx(confidence_interval(days))
    assert confidence_interval(np.tile(days[:, None], (1, 7))) == pytest.approx(confidence_interval(days))
    assert confidence_interval(days[:, None]) == pytest.approx(confidence_interval(days))  # seeds on one day
    assert confidence_interval(np.ones((3, 4))) == (1.0, 0.0)


def test_interval_over_seeds_and_days_agrees_with_a_hand_calculation() -> None:
    # Means of seeds 2 and 4, of days 1, 3, 5; rests -1/2 +1/2, 0 0, +1/2 -1/2. MS_seeds = 3 * 2 = 6,
    # MS_days = 2 * 4 = 8, MS_rest = 4 * 0.25 / 2 = 0.5; variance 13.5 / 6, degrees 13.5² / (36 + 64 / 2 + 0.25 / 2).
    table = np.array([[-0.5, 2.0, 4.5], [2.5, 4.0, 5.5]])
    found = confidence_interval(table)
    assert found.mean == pytest.approx(3.0)
    assert found.half == pytest.approx(stats.t.ppf(0.975, 182.25 / 68.125) * (13.5 / 6.0) ** 0.5)


@pytest.mark.parametrize(("n_seeds", "of_seeds"), [(3, 0.02), (3, 0.1), (5, 0.1), (5, 0.02)])
def test_interval_over_seeds_and_days_holds_the_truth_as_often_as_it_says(n_seeds: int, of_seeds: float) -> None:
    rng, n = np.random.default_rng(1), 800
    tables = rng.normal(0.0, of_seeds, (n, n_seeds, 1)) + rng.normal(0.0, 0.2, (n, 1, 30))
    tables = tables + rng.normal(0.0, 0.1, (n, n_seeds, 30))
    found = [confidence_interval(table) for table in tables]
    held = np.mean([abs(each.mean) < each.half for each in found])
    assert held == pytest.approx(0.95, abs=0.02)
    # which an interval of all as so many days does not: the reason for this one
    naive = [confidence_interval(table.ravel()) for table in tables]
    assert np.mean([abs(each.mean) < each.half for each in naive]) < 0.8


def test_difference_is_paired_by_day_whoever_has_several_seeds() -> None:
    rng = np.random.default_rng(2)
    season = rng.normal(0.0, 3.0, 12)
    ours, theirs = season + rng.normal(0.5, 0.1, (4, 12)), season + rng.normal(0.0, 0.1, (3, 12))
    one, two, both = (difference_interval(*pair) for pair in ((ours, season), (season, ours), (ours, theirs)))
    assert one == pytest.approx(confidence_interval(ours - season))
    assert two == pytest.approx((-one.mean, one.half))
    assert both.mean == pytest.approx(ours.mean() - theirs.mean())
    assert one.half < 0.1
    # theirs are draws too: less sure than if their mean were known
    assert confidence_interval(ours - theirs.mean(axis=0)).half < both.half < 0.2


def test_statistics_agree_with_the_examples_of_rliable() -> None:
    # tests/rliable/metrics_test.py of google-research/rliable
    x, y = np.array([[1.0, 2], [2, 2], [1, 1], [2, 1]]), np.array([[1.0, 1], [2, 2], [3, 3]])
    for statistic, of_x, of_y in ((median, 1.5, 2.0), (mean, 1.5, 2.0), (interquartile_mean, 1.5, 2.0)):
        assert (statistic(x), statistic(y)) == pytest.approx((of_x, of_y))
    assert probability_of_improvement(x, y).value == pytest.approx(1.0 / 3.0)


def test_intervals_and_profile_agree_with_what_rliable_gives() -> None:
    # get_interval_estimates(reps=5000) and create_performance_profile of rliable 1.2.0 for the same scores
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.8, 0.1, (5, 6)), rng.normal(0.75, 0.1, (4, 6))
    expected = {"mean": (0.8058, 0.7690, 0.8448), "iqm": (0.7914, 0.7668, 0.8262), "median": (0.8097, 0.7679, 0.8392),
                "optimality_gap": (0.1987, 0.1638, 0.2329)}  # fmt: skip
    for name, numbers in expected.items():
        assert estimate(x, STATISTICS[name], "of each task") == pytest.approx(numbers, abs=2e-3)
    better = probability_of_improvement(x, y, "of each task")
    assert better == pytest.approx((0.575, 0.425, 0.71666667), abs=9e-3)
    profile = performance_profile(x, np.linspace(0.5, 1.0, 6), "of each task")
    assert profile.share == pytest.approx([1.0, 28 / 30, 27 / 30, 12 / 30, 5 / 30, 2 / 30])
    assert profile.low == pytest.approx([1.0, 0.83333333, 0.8, 0.23333333, 0.06666667, 0.0])
    assert profile.high == pytest.approx([1.0, 1.0, 1.0, 0.56666667, 0.3, 0.16666667])


def test_interquartile_mean_agrees_with_published_examples() -> None:
    # the two of Wikipedia's article, Interquartile mean
    assert interquartile_mean(np.array([[5.0, 8, 4, 38, 8, 6, 9, 7, 7, 3, 1, 6]])) == pytest.approx(6.5)
    assert interquartile_mean(np.array([[1.0, 3, 5, 7, 9, 11, 13, 15, 17]])) == pytest.approx(9.0)


def test_probability_of_improvement_agrees_with_published_examples() -> None:
    # Mann and Whitney's U of scipy's documentation (ages at diagnosis): 17 of 20 pairs
    males, females = np.array([[19.0], [22], [16], [29], [24]]), np.array([[20.0], [11], [17], [12]])
    assert probability_of_improvement(males, females).value == pytest.approx(0.85)
    # Aesop's race, T H H H H H T T T T T H: tortoises beat hares in 11 of 36 pairs
    order = np.array([place for place, who in enumerate("THHHHHTTTTTH") if who == "T"], dtype=float)
    hares = np.array([place for place, who in enumerate("THHHHHTTTTTH") if who == "H"], dtype=float)
    assert probability_of_improvement(-order[:, None], -hares[:, None]).value == pytest.approx(11.0 / 36.0)


def test_drawn_intervals_agree_with_efron_and_tibshirani() -> None:
    # An introduction to the bootstrap (1993), tables 2.1 and 2.2: survival of seven mice; the standard error of the
    # mean is 23.36 days, that of the median 37.83 days, by infinitely many draws.
    mice = np.array([[94.0, 197.0, 16.0, 38.0, 99.0, 141.0, 23.0]])
    found = estimate(mice, mean)
    assert found.value == pytest.approx(86.857, abs=1e-3)
    assert (found.high - found.low) / 2.0 == pytest.approx(1.96 * 23.36, rel=0.05)
    of_median = estimate(mice, median)
    assert of_median.value == 94.0
    # of seven the median is one of them: its interval ends at the second lowest and at the second highest
    assert (of_median.low, of_median.high) == (23.0, 141.0)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_draws_of_each_task_agree_with_scipy(statistic: Callable[[FloatArray], FloatArray]) -> None:
    scores = np.random.default_rng(3).normal(0.8, 0.1, (5, 6))
    # scipy draws each of several samples by itself: tasks as samples are Agarwal's stratified bootstrap
    referee = stats.bootstrap(
        tuple(scores.T), lambda *runs, axis: statistic(np.stack(runs, axis=axis)), n_resamples=5000, method="percentile"
    ).confidence_interval
    found = estimate(scores, statistic, "of each task")
    assert found[1:] == pytest.approx((referee.low, referee.high), abs=4e-3)
    assert found.value == pytest.approx(float(statistic(scores)))


def test_draws_of_all_days_keep_a_seed_whole() -> None:
    # Two trainings, one good on every day: what another two would come to is anything between them.
    found = estimate(np.array([[0.0] * 40, [1.0] * 40]), mean)
    assert found == Estimate(0.5, 0.0, 1.0)
    # as if each day had trainings of its own it would be sure
    apart = estimate(np.array([[0.0] * 40, [1.0] * 40]), mean, "of each task")
    assert 0.35 < apart.low < apart.high < 0.65


def test_what_cannot_be_drawn_again_has_no_interval() -> None:
    for found in (
        estimate([[0.5]], mean),
        estimate([[0.1, 0.9]], mean, "of each task"),
        probability_of_improvement([0.5], [0.1]),
        probability_of_improvement([[0.5, 0.1]], [[0.1, 0.7]], "of each task"),
    ):
        assert np.isnan(found.low)
        assert np.isnan(found.high)
        assert str(found) == f"{found.value:.2f}"
    assert np.isnan(performance_profile([0.5], [0.0, 1.0]).low).all()


def test_optimality_gap_counts_what_is_above_as_being_there() -> None:
    assert optimality_gap(np.array([[0.5, 1.5]])) == pytest.approx(0.25)
    assert optimality_gap(np.array([[0.5, 1.5]]), 2.0) == pytest.approx(1.0)


def test_profile_falls_from_all_to_none_within_its_interval() -> None:
    scores = np.random.default_rng(0).uniform(0.0, 1.0, (4, 25))
    found = performance_profile(scores, np.linspace(-0.1, 1.1, 13))
    assert found.share[0] == 1.0
    assert found.share[-1] == 0.0
    assert (np.diff(found.share) <= 0.0).all()
    assert found.share[5] == pytest.approx(np.mean(scores > 0.4))
    assert ((found.low <= found.share) & (found.share <= found.high)).all()
    assert (found.high - found.low)[6] > 0.05


def test_probability_of_improvement_of_the_same_is_a_half_and_of_what_is_better_everywhere_one() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 10))
    assert probability_of_improvement(scores, scores).value == 0.5
    # ten of ten: scipy.stats.binomtest(10, 10).proportion_ci() is 0.6915 to 1
    sure = stats.binomtest(10, 10).proportion_ci()
    assert probability_of_improvement(scores + 10.0, scores) == pytest.approx((1.0, sure.low, sure.high))
    assert probability_of_improvement(scores, scores + 10.0) == pytest.approx((0.0, 1.0 - sure.high, 1.0 - sure.low))
    assert probability_of_improvement(scores + 10.0, scores, "of each task") == pytest.approx((1.0, 1.0, 1.0))
    mixed = probability_of_improvement(scores + 0.3, scores)
    assert mixed.low < mixed.value < mixed.high
    tasks = probability_of_improvement(scores + 0.3, scores, "of each task")
    assert tasks.low < tasks.value < tasks.high


def test_the_same_scores_give_the_same_interval() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 10))
    for statistic in STATISTICS.values():
        assert estimate(scores, statistic) == estimate(scores, statistic)
