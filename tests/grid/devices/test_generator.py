"""Generators: ramps, starts and fuel by hand, then laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powergrid.grid.devices import GeneratorSpec
from tests.grid.devices.fleets import make_exogenous, make_fleet, normalise, observe, take_step

#: A spec takes numbers between 1e-12 and 1e9, and 0.
nothing = st.just(0.0)


def generator(**keys: Any) -> GeneratorSpec:
    """20 to 100 kW without ramp, unless told otherwise."""
    return GeneratorSpec.model_validate({"kind": "generator", "bus": "680", "p_min_kw": 20, "p_max_kw": 100} | keys)


@pytest.mark.parametrize(("asked", "given_kw"), [(0, 0), (9, 0), (10, 20), (15, 20), (20, 20), (60, 60), (100, 100)])
def test_project_around_minimum_output_is_off_or_minimum(asked: float, given_kw: float) -> None:
    fleet = make_fleet({"g": generator()})
    take_step(fleet, normalise(fleet, p_kw=asked))
    assert fleet.p_kw[0, 0] == pytest.approx(given_kw)
    assert observe(fleet)["g", "on"] == (given_kw > 0)


def test_project_with_ramp_climbs_and_descends_by_the_ramp() -> None:
    fleet = make_fleet({"g": generator(ramp_kw_per_min=1)}, dt_h=0.25)  # 15 kW a step
    seen = []
    for asked in (100, 100, 100, 0, 0, 0):
        take_step(fleet, normalise(fleet, p_kw=asked))
        seen.append(fleet.p_kw[0, 0])
    # A start reaches the minimum; 35 and 50 are above what a stop may leave from, so it ramps down first.
    np.testing.assert_allclose(seen, [20, 35, 50, 35, 20, 0])


def test_project_with_fast_ramp_starts_beyond_the_minimum() -> None:
    fleet = make_fleet({"g": generator(ramp_kw_per_min=2)}, dt_h=0.25)  # 30 kW a step
    take_step(fleet, normalise(fleet, p_kw=100))
    assert fleet.p_kw[0, 0] == pytest.approx(30)


def test_advance_pays_quadratic_fuel_and_the_start_once() -> None:
    keys = {"cost_a_usd_per_kw2h": 0.001, "cost_b_usd_per_kwh": 0.2, "cost_c_usd_per_h": 3, "start_cost_usd": 5}
    fleet = make_fleet({"g": generator(**keys)}, dt_h=0.5)
    take_step(fleet, normalise(fleet, p_kw=50))
    fuel = (0.001 * 2500 + 0.2 * 50 + 3) * 0.5
    assert fleet.terms["generation_cost_usd"][0, 0] == pytest.approx(fuel + 5)
    assert fleet.terms["starts"][0, 0] == 1
    take_step(fleet, normalise(fleet, p_kw=50))
    assert fleet.terms["generation_cost_usd"][0, 0] == pytest.approx(fuel)
    assert fleet.terms["starts"][0, 0] == 0
    take_step(fleet, normalise(fleet, p_kw=0))
    assert fleet.terms["generation_cost_usd"][0, 0] == 0


def test_reset_initially_on_runs_at_the_minimum_without_a_start() -> None:
    fleet = make_fleet({"g": generator(initially_on=True, ramp_kw_per_min=1, start_cost_usd=5)}, dt_h=0.25)
    assert observe(fleet)["g", "p_kw"] == 20
    take_step(fleet, normalise(fleet, p_kw=100))
    assert fleet.p_kw[0, 0] == pytest.approx(35)
    assert fleet.terms["starts"][0, 0] == 0


def test_project_reactive_only_while_running_and_within_circle() -> None:
    fleet = make_fleet({"g": generator(reactive=True, s_max_kva=100)})
    take_step(fleet, normalise(fleet, p_kw=0, q_kvar=50))
    assert fleet.q_kvar[0, 0] == 0
    take_step(fleet, normalise(fleet, p_kw=60, q_kvar=-100))
    assert (fleet.p_kw[0, 0], fleet.q_kvar[0, 0]) == pytest.approx((60, -80))


def test_neutral_switches_off() -> None:
    fleet = make_fleet({"g": generator(initially_on=True, reactive=True)})
    take_step(fleet, fleet.neutral(make_exogenous()))
    assert (fleet.p_kw[0, 0], fleet.q_kvar[0, 0], fleet.on[0, 0]) == (0, 0, 0)


generators = st.builds(
    generator,
    p_min_kw=nothing | st.floats(1e-6, 50),
    p_max_kw=st.floats(50, 500),
    ramp_kw_per_min=st.none() | st.floats(0.1, 20),
    initially_on=st.booleans(),
    reactive=st.booleans(),
    cost_b_usd_per_kwh=nothing | st.floats(1e-6, 1),
    start_cost_usd=nothing | st.floats(1e-6, 100),
)
wishes = st.lists(st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)), min_size=1, max_size=12)


@given(spec=generators, wishes=wishes, dt_h=st.sampled_from([1 / 60, 0.25, 1.0]))
def test_any_generator_any_wishes_keeps_ramp_limits_and_circle(spec: GeneratorSpec, wishes: Any, dt_h: float) -> None:
    fleet = make_fleet({"g": spec}, dt_h=dt_h)
    p_max = float(spec.p_max_kw or 0)
    ramp = p_max if spec.ramp_kw_per_min is None else spec.ramp_kw_per_min * 60 * dt_h
    was, was_on = fleet.p_kw[0, 0], fleet.on[0, 0]
    for wish in wishes:
        take_step(fleet, wish[: len(fleet.actions)])
        p, q, on = fleet.p_kw[0, 0], fleet.q_kvar[0, 0], fleet.on[0, 0]
        assert (spec.p_min_kw - 1e-9 <= p <= p_max * (1 + 1e-12)) if on else p == q == 0
        allowed = ramp if on and was_on else max(ramp, spec.p_min_kw)
        assert abs(p - was) <= allowed + 1e-9
        assert p * p + q * q <= (1.25 * p_max) ** 2 * (1 + 1e-9)
        assert fleet.terms["starts"][0, 0] == (on and not was_on)
        cost = spec.cost_b_usd_per_kwh * p * dt_h + spec.start_cost_usd * fleet.terms["starts"][0, 0]
        assert fleet.terms["generation_cost_usd"][0, 0] == pytest.approx(cost, abs=1e-9)
        was, was_on = p, on


@given(spec=generators, first=st.floats(-1, 1), wish=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_project_of_a_feasible_setpoint_changes_nothing(
    spec: GeneratorSpec, first: float, wish: tuple[float, float]
) -> None:
    fleet = make_fleet({"g": spec}, dt_h=0.25)
    take_step(fleet, [first, 0.0][: len(fleet.actions)])
    exo = make_exogenous()
    fleet.project(np.array([wish[: len(fleet.actions)]]), exo)
    p, q = fleet.p_kw.copy(), fleet.q_kvar.copy()
    fleet.project(normalise(fleet, p_kw=p[0], q_kvar=q[0]), exo)
    np.testing.assert_allclose(fleet.p_kw, p, atol=1e-6)
    np.testing.assert_allclose(fleet.q_kvar, q, atol=1e-3)
