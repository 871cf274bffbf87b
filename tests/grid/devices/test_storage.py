"""Batteries: energy by hand, then the laws that hold for every battery and every wish."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powergrid.grid.devices import StorageSpec
from tests.grid.devices.fleets import make_exogenous, make_fleet, normalise, observe, projected, take_step

#: A spec takes numbers between 1e-12 and 1e9, and 0.
nothing = st.just(0.0)


def battery(**keys: Any) -> StorageSpec:
    """100 kWh, 50 kW, 80 % each way, SOC 0.1..0.9 from 0.5, unless told otherwise."""
    base = {"kind": "storage", "bus": "671", "e_max_kwh": 100, "p_max_kw": 50, "eta_charge": 0.8, "eta_discharge": 0.8}
    return StorageSpec.model_validate(base | keys)


def test_advance_after_discharge_takes_energy_over_efficiency() -> None:
    fleet = make_fleet({"b": battery()}, dt_h=0.5)
    take_step(fleet, normalise(fleet, p_kw=16))
    assert fleet.p_kw[0, 0] == pytest.approx(16)
    assert fleet.soc[0, 0] == pytest.approx(0.5 - 16 * 0.5 / 0.8 / 100)  # 8 kWh out, 10 kWh from the cell


def test_advance_after_charge_stores_energy_times_efficiency() -> None:
    fleet = make_fleet({"b": battery()}, dt_h=0.5)
    take_step(fleet, normalise(fleet, p_kw=-20))
    assert fleet.soc[0, 0] == pytest.approx(0.5 + 20 * 0.5 * 0.8 / 100)  # 10 kWh in, 8 kWh in the cell


def test_project_discharge_beyond_window_stops_at_soc_min() -> None:
    fleet = make_fleet({"b": battery(soc_initial=0.3)})
    take_step(fleet, normalise(fleet, p_kw=50))
    assert fleet.p_kw[0, 0] == pytest.approx(16)  # 20 kWh in the cell above soc_min give 16 kWh
    assert fleet.requested_p_kw[0, 0] == pytest.approx(50)
    assert projected(fleet)[0, 0]
    assert fleet.soc[0, 0] == pytest.approx(0.1)


def test_project_charge_beyond_window_stops_at_soc_max() -> None:
    fleet = make_fleet({"b": battery(soc_initial=0.7)})
    take_step(fleet, normalise(fleet, p_kw=-50))
    assert fleet.p_kw[0, 0] == pytest.approx(-25)  # room for 20 kWh takes 25 kWh from the grid
    assert fleet.soc[0, 0] == pytest.approx(0.9)


def test_project_with_standby_leaves_energy_for_it() -> None:
    fleet = make_fleet({"b": battery(soc_initial=0.3, standby_loss_kw=4)})
    take_step(fleet, normalise(fleet, p_kw=50))
    assert fleet.p_kw[0, 0] == pytest.approx((20 - 4) * 0.8)
    assert fleet.soc[0, 0] == pytest.approx(0.1)


def test_standby_at_soc_min_drains_to_empty_and_never_forces_a_charge() -> None:
    fleet = make_fleet({"b": battery(soc_initial=0.1, standby_loss_kw=4)})
    seen = []
    for _ in range(4):
        take_step(fleet, normalise(fleet, p_kw=30))
        seen.append((fleet.p_kw[0, 0], fleet.soc[0, 0]))
    np.testing.assert_allclose(seen, [(0, 0.06), (0, 0.02), (0, 0), (0, 0)], atol=1e-12)


def test_project_reactive_beyond_circle_keeps_active_power() -> None:
    fleet = make_fleet({"b": battery(reactive=True, s_max_kva=50)})
    take_step(fleet, normalise(fleet, p_kw=30, q_kvar=-50))
    assert fleet.p_kw[0, 0] == pytest.approx(30)
    assert fleet.q_kvar[0, 0] == pytest.approx(-40)  # 3-4-5
    assert fleet.requested_q_kvar[0, 0] == pytest.approx(-50)
    assert projected(fleet)[0, 0]


def test_actions_with_unequal_powers_span_both_and_neutral_is_zero() -> None:
    fleet = make_fleet({"b": battery(p_charge_max_kw=30)})
    assert (fleet.actions[0].low, fleet.actions[0].high) == (-30, 50)
    take_step(fleet, fleet.neutral(make_exogenous()))
    assert fleet.p_kw[0, 0] == pytest.approx(0, abs=1e-12)
    take_step(fleet, [[-1.0]])
    assert fleet.p_kw[0, 0] == pytest.approx(-30)


def test_wear_and_cycles_count_throughput_on_the_ac_side() -> None:
    fleet = make_fleet({"b": battery(wear_usd_per_kwh=0.05)})
    take_step(fleet, normalise(fleet, p_kw=-20))
    assert fleet.terms["throughput_kwh"][0, 0] == pytest.approx(20)
    assert fleet.terms["storage_wear_usd"][0, 0] == pytest.approx(1.0)
    take_step(fleet, normalise(fleet, p_kw=12))
    assert fleet.terms["storage_wear_usd"][0, 0] == pytest.approx(0.6)
    assert fleet.cycles[0, 0] == pytest.approx(32 / (2 * 80))  # 80 kWh between soc_min and soc_max


def test_advance_with_less_delivered_than_set_moves_by_what_was_delivered() -> None:
    fleet = make_fleet({"b": battery()})
    exo = make_exogenous()
    fleet.project(normalise(fleet, p_kw=16), exo)
    fleet.advance(np.array([[8.0]]), np.array([[1.0]]), exo)
    assert fleet.soc[0, 0] == pytest.approx(0.4)
    assert observe(fleet)["b", "p_kw"] == pytest.approx(8)


def test_mixed_fleet_reads_each_column_of_its_device() -> None:
    fleet = make_fleet({"a": battery(), "b": battery(reactive=True), "c": battery(), "d": battery(reactive=True)})
    assert [(a.device, a.name) for a in fleet.actions] == [
        ("a", "p_kw"), ("b", "p_kw"), ("b", "q_kvar"), ("c", "p_kw"), ("d", "p_kw"), ("d", "q_kvar"),
    ]  # fmt: skip
    take_step(fleet, normalise(fleet, p_kw=[1, 2, 3, 4], q_kvar=[-5, 6]))
    np.testing.assert_allclose(fleet.p_kw, [[1, 2, 3, 4]])
    np.testing.assert_allclose(fleet.q_kvar, [[0, -5, 0, 6]])
    seen = observe(fleet)
    assert [seen[name, "p_kw"][0] for name in "abcd"] == pytest.approx([1, 2, 3, 4])
    assert (seen["b", "q_kvar"][0], seen["d", "q_kvar"][0]) == pytest.approx((-5, 6))


batteries = st.builds(
    battery,
    e_max_kwh=st.floats(1, 1e4),
    p_max_kw=st.floats(1, 1e4),
    p_charge_max_kw=st.none() | st.floats(1, 1e4),
    soc_min=nothing | st.floats(1e-6, 0.4),
    soc_max=st.floats(0.6, 1),
    soc_initial=st.floats(0.4, 0.6),
    eta_charge=st.floats(0.5, 1),
    eta_discharge=st.floats(0.5, 1),
    standby_loss_kw=nothing | st.floats(1e-6, 5),
    reactive=st.booleans(),
)
wishes = st.lists(st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)), min_size=1, max_size=12)


@given(spec=batteries, wishes=wishes, dt_h=st.sampled_from([1 / 60, 0.25, 1.0]))
def test_any_battery_any_wishes_keeps_window_circle_and_energy(spec: StorageSpec, wishes: Any, dt_h: float) -> None:
    fleet = make_fleet({"b": spec}, dt_h=dt_h)
    e_max = float(spec.e_max_kwh or 0)
    s = max(float(spec.p_max_kw or 0), spec.p_charge_max_kw or 0)
    for wish in wishes:
        before = fleet.soc[0, 0]
        take_step(fleet, wish[: len(fleet.actions)])
        p, q, soc = fleet.p_kw[0, 0], fleet.q_kvar[0, 0], fleet.soc[0, 0]
        low = spec.soc_min if spec.standby_loss_kw == 0 else 0.0
        assert low - 1e-9 <= soc <= spec.soc_max + 1e-9
        assert soc >= min(before - spec.standby_loss_kw * dt_h / e_max, spec.soc_min) - 1e-9
        assert p * p + q * q <= s * s * (1 + 1e-9)
        drawn = max(p, 0) * dt_h / spec.eta_discharge + min(p, 0) * dt_h * spec.eta_charge
        drawn += spec.standby_loss_kw * dt_h
        assert soc * e_max == pytest.approx(max(before * e_max - drawn, 0), abs=1e-9 * e_max)


@given(spec=batteries, wish=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_project_of_a_feasible_setpoint_changes_nothing(spec: StorageSpec, wish: tuple[float, float]) -> None:
    fleet = make_fleet({"b": spec})
    exo = make_exogenous()
    fleet.project(np.array([wish[: len(fleet.actions)]]), exo)
    p, q = fleet.p_kw.copy(), fleet.q_kvar.copy()
    fleet.project(normalise(fleet, p_kw=p[0], q_kvar=q[0]), exo)
    size = float(spec.p_max_kw or 0) + (spec.p_charge_max_kw or 0)
    np.testing.assert_allclose(fleet.p_kw, p, rtol=1e-9, atol=1e-9 * size)
    np.testing.assert_allclose(fleet.q_kvar, q, rtol=1e-6, atol=1e-6 * size)


def test_levels_stand_for_evenly_spaced_powers_from_full_charge_to_full_discharge() -> None:
    fleet = make_fleet({"b": battery(levels=5), "c": battery()})
    b, c = fleet.actions
    assert (b.discrete, b.n, b.low, b.high) == (True, 5, -50.0, 50.0)
    assert not c.discrete
    for index, p_kw in enumerate((-50.0, -25.0, 0.0, 25.0, 50.0)):
        fleet.project(np.array([[index, p_kw / 50.0]]), make_exogenous(n=2))
        assert fleet.requested_p_kw[0] == pytest.approx([p_kw, p_kw], abs=1e-12)


def test_levels_neutral_is_the_level_of_no_power() -> None:
    fleet = make_fleet({"b": battery(levels=33), "c": battery(levels=7, p_charge_max_kw=25)})
    neutral = fleet.neutral(make_exogenous(n=2))
    assert neutral.tolist() == [[16.0, 2.0]]
    take_step(fleet, neutral)
    assert fleet.p_kw == pytest.approx(np.zeros((1, 2)), abs=1e-12)
    assert fleet.soc == pytest.approx(np.full((1, 2), 0.5))


def test_levels_beyond_the_window_are_projected_like_any_power() -> None:
    fleet = make_fleet({"b": battery(levels=3, soc_initial=0.3)})
    take_step(fleet, np.array([[2.0]]))
    assert fleet.p_kw[0, 0] == pytest.approx(16)
    assert projected(fleet)[0, 0]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"levels": 4}, "levels 4 leaves no level for 0 kW; give an odd number, such as 5"),
        ({"levels": 2}, "greater than or equal to 3"),
        ({"levels": 5, "p_charge_max_kw": 25}, "levels 5 leaves no level for 0 kW between p_charge_max_kw 25 and"),
        ({"levels": 5, "p_charge_max_kw": 25, "p_max_kw": None, "bus": None, "element": "Storage.x"},
         "levels with p_charge_max_kw needs p_max_kw"),
    ],
)  # fmt: skip
def test_levels_without_one_for_no_power_are_refused(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        battery(**keys)
