"""Sums by group: a dense product of few numbers and a sparse one of many give the same."""

from __future__ import annotations

import numpy as np
import pytest

from powergrid.grid import sums
from powergrid.grid.sums import GroupSums

GROUPS = [(np.array([0, 3]), 1.0), (np.array([1]), np.array([-0.5])), (np.empty(0, dtype=np.int64), 1.0)]


@pytest.mark.parametrize("most_dense", [0, 1000])
@pytest.mark.parametrize("dtype", [float, complex])
def test_sums_of_groups_dense_and_sparse_are_the_weighted_members(
    monkeypatch: pytest.MonkeyPatch, most_dense: int, dtype: type
) -> None:
    monkeypatch.setattr(sums, "_MOST_DENSE", most_dense)
    values = np.arange(24, dtype=dtype).reshape(2, 3, 4) * (1j if dtype is complex else 1.0)
    of = GroupSums(GROUPS, 4, dtype).of
    expected = np.stack([values[..., 0] + values[..., 3], -0.5 * values[..., 1], 0.0 * values[..., 0]], axis=-1)
    assert np.array_equal(of(values), expected)
    assert np.array_equal(of(values[0]), expected[0])
    assert of(values[0]).dtype == dtype


@pytest.mark.parametrize("most_dense", [0, 10**6])
def test_sums_of_one_row_are_bit_for_bit_those_of_many(monkeypatch: pytest.MonkeyPatch, most_dense: int) -> None:
    monkeypatch.setattr(sums, "_MOST_DENSE", most_dense)
    rng = np.random.default_rng(0)
    of = GroupSums([(np.sort(rng.permutation(500)[:100]), rng.random(100)) for _ in range(7)], 500).of
    rows = rng.standard_normal((5, 500))
    if not most_dense:
        assert all(np.array_equal(of(rows)[[i]], of(rows[[i]])) for i in range(5))
    assert np.allclose(of(rows), np.stack([of(row[None])[0] for row in rows]), rtol=1e-13, atol=1e-13)


def test_no_groups_and_no_numbers_give_empty_sums() -> None:
    assert GroupSums([], 4).of(np.ones((2, 4))).shape == (2, 0)
    assert GroupSums([(np.empty(0, dtype=np.int64), 1.0)], 0).of(np.ones((2, 0))).tolist() == [[0.0], [0.0]]
