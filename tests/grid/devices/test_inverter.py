"""Inverters: the kVA circle and IEEE 1547-2018 Table 7 by hand, then laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powergrid.grid.devices import InverterSpec
from tests.grid.devices.fleets import make_exogenous, make_fleet, observe, projected, take_step


def inverter(**keys: Any) -> InverterSpec:
    """100 kW of panels behind 100 kVA, unless told otherwise."""
    return InverterSpec.model_validate({"kind": "inverter", "bus": "675", "p_max_kw": 100, "s_max_kva": 100} | keys)


def test_project_half_share_takes_half_of_the_sun() -> None:
    fleet = make_fleet({"pv": inverter()}, dt_h=0.5)
    take_step(fleet, [[0.0]], sun_kw=60)
    assert fleet.p_kw[0, 0] == pytest.approx(30)
    assert fleet.terms["curtailed_kwh"][0, 0] == pytest.approx(15)
    assert observe(fleet)["pv", "available_kw"] == pytest.approx(60)
    assert not projected(fleet)[0, 0]


def test_project_not_curtailable_has_no_action_and_takes_all() -> None:
    fleet = make_fleet({"pv": inverter(curtailable=False)})
    assert fleet.actions == ()
    take_step(fleet, np.zeros((1, 0)), sun_kw=60)
    assert fleet.p_kw[0, 0] == pytest.approx(60)


def test_project_more_panels_than_inverter_clips_and_counts_it() -> None:
    fleet = make_fleet({"pv": inverter(s_max_kva=80)})
    take_step(fleet, [[1.0]], sun_kw=100)
    assert fleet.p_kw[0, 0] == pytest.approx(80)
    assert projected(fleet)[0, 0]
    assert fleet.terms["curtailed_kwh"][0, 0] == pytest.approx(20)


def test_rating_left_out_is_a_tenth_above_the_panels() -> None:
    fleet = make_fleet({"pv": inverter(s_max_kva=None, reactive="kva")})
    assert fleet.actions[1].high == pytest.approx(110)


def test_project_watt_priority_gives_reactive_what_remains() -> None:
    fleet = make_fleet({"pv": inverter(reactive="kva")})
    take_step(fleet, [[1.0, 1.0]], sun_kw=80)
    assert (fleet.p_kw[0, 0], fleet.q_kvar[0, 0]) == pytest.approx((80, 60))


def test_project_var_priority_gives_active_what_remains() -> None:
    fleet = make_fleet({"pv": inverter(reactive="kva", priority="var")})
    take_step(fleet, [[1.0, -0.8]], sun_kw=80)
    assert (fleet.p_kw[0, 0], fleet.q_kvar[0, 0]) == pytest.approx((60, -80))
    assert fleet.requested_p_kw[0, 0] == pytest.approx(80)
    assert fleet.terms["curtailed_kwh"][0, 0] == pytest.approx(20)


@pytest.mark.parametrize(
    ("category", "sun_kw", "absorbs", "injects"),
    [
        ("category_a", 50, -25, 44),
        ("category_b", 50, -44, 44),
        ("category_a", 20, -25, 44),
        ("category_b", 10, -22, 22),  # half of 20 % of rated: half of the capability
        ("category_a", 10, -12.5, 22),
        ("category_b", 5, -11, 11),
        ("category_b", 4.9, 0, 0),  # below 5 % none is required
        ("category_a", 0, 0, 0),
    ],
)
def test_project_category_limits_are_table_7(category: str, sun_kw: float, absorbs: float, injects: float) -> None:
    fleet = make_fleet({"pv": inverter(reactive=category)})
    take_step(fleet, [[1.0, -1.0]], sun_kw=sun_kw)
    assert fleet.q_kvar[0, 0] == pytest.approx(absorbs)
    take_step(fleet, [[1.0, 1.0]], sun_kw=sun_kw)
    assert fleet.q_kvar[0, 0] == pytest.approx(injects)


def test_project_power_factor_limits_reactive_power() -> None:
    fleet = make_fleet({"pv": inverter(reactive="kva", power_factor_min=0.8)})
    take_step(fleet, [[1.0, 1.0]], sun_kw=40)
    assert (fleet.p_kw[0, 0], fleet.q_kvar[0, 0]) == pytest.approx((40, 30))  # tan of acos 0.8 is 0.75


def test_neutral_takes_all_the_sun_at_unity_factor() -> None:
    fleet = make_fleet({"a": inverter(reactive="category_a"), "b": inverter(), "c": inverter(curtailable=False)})
    take_step(fleet, fleet.neutral(make_exogenous(n=3)), sun_kw=70)
    np.testing.assert_allclose(fleet.p_kw, [[70, 70, 70]])
    np.testing.assert_allclose(fleet.q_kvar, 0, atol=1e-12)


inverters = st.builds(
    inverter,
    p_max_kw=st.floats(1, 1e4),
    s_max_kva=st.none() | st.floats(1, 1e4),
    curtailable=st.booleans(),
    reactive=st.sampled_from(["none", "kva", "category_a", "category_b"]),
    priority=st.sampled_from(["watt", "var"]),
    power_factor_min=st.none() | st.floats(0.5, 1),
)


@given(
    specs=st.lists(inverters, min_size=1, max_size=4),
    sun=st.floats(0, 1.5),
    wishes=st.lists(st.floats(-1.5, 1.5), min_size=8, max_size=8),
)
def test_any_inverters_any_wishes_keep_sun_circle_capability_and_factor(
    specs: list[InverterSpec], sun: float, wishes: list[float]
) -> None:
    fleet = make_fleet({f"pv{i}": spec for i, spec in enumerate(specs)}, n_envs=1)
    take_step(fleet, wishes[: len(fleet.actions)], sun_kw=[sun * float(spec.p_max_kw or 0) for spec in specs])
    for i, spec in enumerate(specs):
        p_max = float(spec.p_max_kw or 0)
        s = spec.s_max_kva or 1.1 * p_max
        p, q = fleet.p_kw[0, i], fleet.q_kvar[0, i]
        assert 0 <= p <= min(sun, 1) * p_max * (1 + 1e-12)
        assert p * p + q * q <= s * s * (1 + 1e-9)
        absorbs, injects = {"none": (0, 0), "kva": (1, 1), "category_a": (0.25, 0.44), "category_b": (0.44, 0.44)}[
            spec.reactive
        ]
        assert -absorbs * s * (1 + 1e-9) <= q <= injects * s * (1 + 1e-9)
        if spec.power_factor_min:
            tangent = np.sqrt(1 - spec.power_factor_min**2) / spec.power_factor_min
            assert abs(q) <= p * tangent + 1e-6 * s
        available = min(sun, 1) * p_max
        assert fleet.terms["curtailed_kwh"][0, i] + p == pytest.approx(available, abs=1e-9 * p_max)


@given(spec=inverters, sun=st.floats(0, 1), wish=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_project_of_a_feasible_setpoint_changes_nothing(
    spec: InverterSpec, sun: float, wish: tuple[float, float]
) -> None:
    fleet = make_fleet({"pv": spec})
    exo = make_exogenous(sun_kw=sun * float(spec.p_max_kw or 0))
    fleet.project(np.array([wish[: len(fleet.actions)]]), exo)
    p, q = fleet.p_kw.copy(), fleet.q_kvar.copy()
    again = []
    for action in fleet.actions:
        if action.name == "p_kw":  # the share of the sun; the nudge keeps rounding from falling below 5 %
            available = fleet.available_kw[0, 0]
            again.append(2 * p[0, 0] / available * (1 + 1e-12) - 1 if available else 1.0)
        else:
            again.append(2 * (q[0, 0] - action.low) / (action.high - action.low) - 1)
    fleet.project(np.array([again]), exo)
    s = spec.s_max_kva or 1.1 * float(spec.p_max_kw or 0)
    np.testing.assert_allclose(fleet.p_kw, p, atol=1e-6 * s)
    np.testing.assert_allclose(fleet.q_kvar, q, atol=1e-6 * s)
