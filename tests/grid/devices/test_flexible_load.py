"""Flexible loads: owed energy by hand, then laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powergrid.grid.devices import FlexibleLoadSpec
from tests.grid.devices.fleets import make_exogenous, make_fleet, normalise, observe, projected, take_step

#: A spec takes numbers between 1e-12 and 1e9, and 0.
nothing = st.just(0.0)


def load(**keys: Any) -> FlexibleLoadSpec:
    """Share 0.6 to 1.3, at most 50 kWh owed, unless told otherwise."""
    return FlexibleLoadSpec.model_validate({"kind": "flexible_load", "element": "Load.671", "owed_max_kwh": 50} | keys)


def test_project_share_below_one_owes_what_is_not_taken() -> None:
    fleet = make_fleet({"l": load()}, dt_h=0.5, q_per_kw=0.5)
    take_step(fleet, normalise(fleet, share=0.7), demand_kw=100)
    assert fleet.p_kw[0, 0] == pytest.approx(-70)
    assert fleet.q_kvar[0, 0] == pytest.approx(-35)
    assert fleet.terms["deferred_kwh"][0, 0] == pytest.approx(15)
    seen = observe(fleet)
    assert (seen["l", "owed_kwh"], seen["l", "share"], seen["l", "demand_kw"]) == pytest.approx((15, 0.7, 100))
    np.testing.assert_allclose(fleet.unserved_at_end_kwh(), [[15]])


def test_project_share_above_one_pays_back_no_more_than_owed() -> None:
    fleet = make_fleet({"l": load()})
    take_step(fleet, normalise(fleet, share=0.9), demand_kw=100)  # owes 10 kWh
    take_step(fleet, normalise(fleet, share=1.3), demand_kw=100)
    assert fleet.p_kw[0, 0] == pytest.approx(-110)
    assert fleet.requested_p_kw[0, 0] == pytest.approx(-130)
    assert projected(fleet)[0, 0]
    assert fleet.owed_kwh[0, 0] == pytest.approx(0, abs=1e-12)
    take_step(fleet, normalise(fleet, share=1.3), demand_kw=100)
    assert fleet.p_kw[0, 0] == pytest.approx(-100)


def test_project_share_beyond_owed_max_is_raised() -> None:
    fleet = make_fleet({"l": load()})
    for p_kw, owed in ((-60, 40), (-90, 50), (-100, 50)):
        take_step(fleet, normalise(fleet, share=0.6), demand_kw=100)
        assert (fleet.p_kw[0, 0], fleet.owed_kwh[0, 0]) == pytest.approx((p_kw, owed))


def test_project_without_demand_moves_nothing_and_stays_finite() -> None:
    fleet = make_fleet({"l": load()})
    take_step(fleet, normalise(fleet, share=0.6), demand_kw=0)
    assert (fleet.p_kw[0, 0], fleet.owed_kwh[0, 0], fleet.share[0, 0]) == (0, 0, 1)


def test_neutral_load_takes_its_demand() -> None:
    fleet = make_fleet({"l": load()})
    take_step(fleet, fleet.neutral(make_exogenous()), demand_kw=80)
    assert fleet.p_kw[0, 0] == pytest.approx(-80)
    assert fleet.owed_kwh[0, 0] == pytest.approx(0, abs=1e-12)


@given(
    shares=st.lists(st.tuples(st.floats(-1.5, 1.5), st.floats(0, 1e4)), min_size=1, max_size=20),
    share_min=nothing | st.floats(1e-6, 0.95),
    share_max=st.floats(1.05, 2),
    owed_max=st.floats(0.1, 1e4),
)
def test_any_load_any_wishes_keeps_what_is_owed_and_closes_the_books(
    shares: list[tuple[float, float]], share_min: float, share_max: float, owed_max: float
) -> None:
    fleet = make_fleet({"l": load(share_min=share_min, share_max=share_max, owed_max_kwh=owed_max)}, dt_h=0.25)
    served = demanded = 0.0
    for action, demand in shares:
        take_step(fleet, [action], demand_kw=demand)
        p = fleet.p_kw[0, 0]
        assert 0 <= fleet.owed_kwh[0, 0] <= owed_max
        assert -share_max * demand - 1e-6 <= p <= -share_min * demand + 1e-6
        served, demanded = served - p * 0.25, demanded + demand * 0.25
        assert served + fleet.unserved_at_end_kwh()[0, 0] == pytest.approx(demanded, rel=1e-9, abs=1e-6)
        exo = make_exogenous(demand_kw=demand)
        fleet.project(np.array([[action]]), exo)
        before = fleet.p_kw.copy()
        fleet.project(normalise(fleet, share=-before[0] / demand if demand > 1e-3 else 1.0), exo)
        np.testing.assert_allclose(fleet.p_kw, before, rtol=1e-6, atol=1e-3)
