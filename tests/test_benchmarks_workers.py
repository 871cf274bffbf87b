"""The model of docs/scaling.md: what its fit gets back, and what it says of more workers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.workers import IterationModel, fit_model

TRUE = IterationModel(s=400e-6, q=90e-6, c=4e-3, f=0.05)
GRID = [(workers, steps) for workers in (1, 2, 3) for steps in (1536, 3072, 6144)]


def test_fit_gets_back_the_constants_that_made_the_points() -> None:
    fitted = fit_model([(w, n, TRUE.seconds(w, n)) for w, n in GRID])
    assert (fitted.s, fitted.q, fitted.c, fitted.f) == pytest.approx((TRUE.s, TRUE.q, TRUE.c, TRUE.f), rel=1e-6)
    assert fitted.worst < 1e-6


def test_fit_of_noisy_points_predicts_beyond_them_and_says_how_far_off_they_are() -> None:
    rng = np.random.default_rng(0)
    fitted = fit_model([(w, n, TRUE.seconds(w, n) * rng.normal(1, 0.02)) for w, n in GRID])
    assert 0 < fitted.worst < 0.06
    assert min(fitted.s, fitted.q, fitted.c, fitted.f) >= 0
    for workers in (4, 8):
        assert fitted.seconds(workers, 6144) == pytest.approx(TRUE.seconds(workers, 6144), rel=0.15)


def test_model_of_an_iteration_has_its_hand_computed_time_best_number_and_cost() -> None:
    assert TRUE.seconds(4, 6144) == pytest.approx(0.6144 + 0.55296 + 0.016 + 0.05)
    assert TRUE.best_workers(6144) == pytest.approx(24.79, abs=0.01)
    assert TRUE.seconds(25, 6144) < min(TRUE.seconds(12, 6144), TRUE.seconds(50, 6144))
    assert TRUE.cpu_hours(4, 6144) == pytest.approx(4 * 1.23336 / 6144 * 1e6 / 3600)
