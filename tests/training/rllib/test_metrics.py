from __future__ import annotations

import math

import pytest

from powergrid.training.rllib.metrics import EpisodeTotals


def test_totals_of_an_episode_in_pieces_equal_the_whole() -> None:
    steps = [{"cost_usd": 1.0 * i, "v_pu": 1 + i / 10, "cycles": i / 2, "text": "x"} for i in range(6)]
    whole, pieces = EpisodeTotals(), EpisodeTotals()
    whole.add("A", steps)
    pieces.add("A", steps[:1])
    pieces.add("A", steps[1:])
    assert pieces.result() == pytest.approx(whole.result())
    by_hand = {"cost_usd": 15.0, "v_pu": 1.25, "cycles": 2.5}
    assert whole.result() == pytest.approx({**by_hand, **{f"A/{name}": value for name, value in by_hand.items()}})


def test_totals_average_over_the_agents_that_report() -> None:
    totals = EpisodeTotals()
    totals.add("A", [{"cost_usd": 1.0}, {"cost_usd": 2.0}])
    totals.add("B", [{"cost_usd": 5.0, "soc": 0.5}, {"cost_usd": 0.0, "soc": 0.7}])
    result = totals.result()
    assert result["cost_usd"] == pytest.approx((3.0 + 5.0) / 2)
    assert result["soc"] == pytest.approx(0.6)


def test_totals_leave_out_missing_and_not_a_number() -> None:
    totals = EpisodeTotals()
    totals.add("A", [{"v_pu": math.nan, "late": 1.0}, {"v_pu": 1.1}, {"v_pu": 0.9}])
    totals.add("B", [{"never": math.nan}])
    assert totals.result() == pytest.approx({"v_pu": 1.0, "late": 1.0, "A/v_pu": 1.0, "A/late": 1.0})
