"""Charging stations: energy and queues by hand, then laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powergrid.grid.devices import EvChargerSpec
from powergrid.grid.devices.ev_charger import Sessions, find_days
from tests.grid.devices.fleets import make_exogenous, make_fleet, observe, take_step

#: A spec takes numbers between 1e-12 and 1e9, and 0.
nothing = st.just(0.0)


def station(**keys: Any) -> EvChargerSpec:
    """Two ports of 10 kW without losses; a car at 2 o'clock for 4 h asking 20 kWh, unless told otherwise."""
    base = {
        "kind": "ev_charger", "bus": "692", "ports": 2, "p_max_kw": 10, "eta_charge": 1.0, "sessions_per_day": 1,
        "arrival_hour_mean": 2, "arrival_hour_std": 0, "stay_hours_mean": 4, "stay_hours_std": 0,
        "energy_kwh_mean": 20, "energy_kwh_std": 0,
    }  # fmt: skip
    return EvChargerSpec.model_validate(base | keys)


def test_cars_arrive_charge_and_leave_on_time() -> None:
    fleet = make_fleet({"s": station()})
    connected, owed, power = [], [], []
    for step in range(8):
        connected.append(observe(fleet)["s", "connected"][0])
        owed.append(observe(fleet)["s", "owed_kwh"][0])
        take_step(fleet, [[1.0]], step=step)
        power.append(fleet.p_kw[0, 0])
    assert connected == [0, 0, 2, 2, 2, 2, 0, 0]
    assert owed == pytest.approx([0, 0, 40, 20, 0, 0, 0, 0])
    assert power == pytest.approx([0, 0, -20, -20, 0, 0, 0, 0])


def test_unserved_counts_what_is_owed_when_cars_leave() -> None:
    fleet = make_fleet({"s": station(eta_charge=0.8)})
    unserved = []
    for step in range(8):
        # A quarter of the possible 20 kW for one hour, 4 kWh in the cars, then nothing.
        take_step(fleet, [[-0.5 if step == 2 else -1.0]], step=step)
        unserved.append(fleet.terms["unserved_kwh"][0, 0])
    assert unserved == pytest.approx([0, 0, 0, 0, 0, 36, 0, 0])


def test_urgency_is_the_share_that_finishes_just_in_time() -> None:
    fleet = make_fleet({"s": station()})
    take_step(fleet, [[1.0]], step=0)
    take_step(fleet, [[1.0]], step=1)
    assert observe(fleet)["s", "urgency"] == pytest.approx(20 / 4 / 10)
    for step in range(2, 4):
        take_step(fleet, [[-1.0]], step=step)
    assert observe(fleet)["s", "urgency"] == pytest.approx(1.0)
    for step in range(4, 6):
        take_step(fleet, [[1.0]], step=step)
    assert fleet.terms["unserved_kwh"][0, 0] == 0


def test_project_serves_least_laxity_first() -> None:
    fleet = make_fleet({"s": station(ports=3)})
    fleet.load_state_dict(
        fleet.state_dict()
        | {"port_owed_kwh": np.array([[[20.0, 20.0, 5.0]]]), "port_steps_left": np.array([[[8.0, 3.0, 1.0]]])}
        | {"port_asked_kwh": np.full((1, 1, 3), 20.0)}
    )  # hours of laxity: 6, 1, 0.5
    fleet.project(np.array([[0.0]]), make_exogenous())
    np.testing.assert_allclose(fleet.port_kw, [[[0, 7.5, 5]]])  # half of 25 kW
    assert fleet.p_kw[0, 0] == pytest.approx(-12.5)


def test_v2g_gives_back_only_what_was_charged_here() -> None:
    fleet = make_fleet({"s": station(v2g=True, eta_charge=0.8, ports=1, stay_hours_mean=8)})
    power, owed = [], []
    for step, action in enumerate([0, 0, -1, 1, 1, -1, -1, -1]):
        take_step(fleet, [[float(action)]], step=step)
        power.append(fleet.p_kw[0, 0])
        owed.append(fleet.owed_kwh[0, 0])
    # Nothing to give on arrival; 8 kWh an hour in; 10 kW out takes 12.5 kWh; then 3.5 kWh give 2.8 kW.
    assert power == pytest.approx([0, 0, 0, -10, -10, 10, 2.8, 0])
    assert owed == pytest.approx([0, 20, 20, 12, 4, 16.5, 20, 20])


def test_advance_with_less_delivered_than_set_charges_less() -> None:
    fleet = make_fleet({"s": station(arrival_hour_mean=0)})
    exo = make_exogenous()
    fleet.project(np.array([[1.0]]), exo)
    fleet.advance(np.array([[-15.0]]), np.array([[0.0]]), exo)
    assert fleet.owed_kwh[0, 0] == pytest.approx(25)
    assert fleet.terms["charged_kwh"][0, 0] == pytest.approx(15)


def test_unserved_at_end_counts_what_full_power_can_no_longer_give() -> None:
    fleet = make_fleet({"s": station(arrival_hour_mean=0)}, horizon=3)
    for step in range(3):
        take_step(fleet, [[-1.0]], step=step)
    np.testing.assert_allclose(fleet.unserved_at_end_kwh(), [[20]])  # two cars, 20 kWh each, one hour of 10 kW left


def test_reset_with_a_car_in_progress_owes_the_rest_of_its_stay() -> None:
    fleet = make_fleet({"s": station()}, start_hour=5.0)
    seen = observe(fleet)
    assert seen["s", "connected"] == 2
    assert seen["s", "owed_kwh"] == pytest.approx(2 * 20 / 4)  # arrived at 2, leaves at 6


def test_reset_same_seed_draws_the_same_sessions_and_another_seed_others() -> None:
    spec = station(arrival_hour_std=3, stay_hours_std=1, energy_kwh_std=4)
    fleet = make_fleet({"s": spec}, n_envs=3)
    fleet.reset(2, np.random.default_rng(0))
    np.testing.assert_array_equal(fleet.arriving_kwh[0], fleet.arriving_kwh[2])
    assert not np.array_equal(fleet.arriving_kwh[0], fleet.arriving_kwh[1])


def test_sessions_over_a_year_has_the_means_asked_for() -> None:
    spec = station(
        ports=10, sessions_per_day=0.5, arrival_hour_mean=9, arrival_hour_std=1, energy_kwh_std=3, stay_hours_mean=8
    )
    fleet = make_fleet({"s": spec}, dt_h=0.25, horizon=365 * 96)
    arriving, remaining = fleet.arriving_kwh[0, :, 0], fleet.stay_steps[0, :, 0]
    step, port = np.nonzero(arriving)
    assert len(step) / 3650 == pytest.approx(0.5, abs=0.03)  # 3650 coins: one deviation is 0.008
    assert np.mean(step % 96) / 4 == pytest.approx(9 - 0.125, abs=0.1)  # arrivals are counted from their step's start
    assert arriving[step, port].mean() == pytest.approx(20, abs=0.3)
    assert (remaining[step, port] == 32).all()


def test_sessions_drawn_together_are_those_of_each_generator_alone() -> None:
    specs = [station(ports=3, arrival_hour_std=3, stay_hours_std=2, energy_kwh_std=4), station(ports=2)]
    sessions = Sessions(specs, 0.25, 96, 0.0)
    together = sessions.draw([np.random.default_rng(seed) for seed in range(4)])
    assert len(together.place) > 4 * 5
    for seed in range(4):
        own = together.place // 5 == seed
        place, *alone = sessions.draw([np.random.default_rng(seed)])
        np.testing.assert_array_equal(together.place[own] - 5 * seed, place)
        for part, expected in zip(together[1:], alone, strict=True):
            np.testing.assert_array_equal(part[own], expected)


def test_sessions_never_hold_two_cars_at_a_port() -> None:
    spec = station(ports=4, sessions_per_day=3, arrival_hour_std=4, stay_hours_mean=9, stay_hours_std=3)
    visits = Sessions([spec], 0.5, 240, 0.0).draw([np.random.default_rng(0)])
    for port in range(4):
        begin, end = visits.begin[visits.place == port], visits.end[visits.place == port]
        assert len(begin) > 3
        assert (begin[1:] >= end[:-1]).all()
        assert (end > begin).all()


chargers = st.builds(
    station,
    ports=st.integers(1, 4),
    eta_charge=st.floats(0.5, 1),
    v2g=st.booleans(),
    sessions_per_day=nothing | st.floats(1e-6, 4),
    arrival_hour_mean=nothing | st.floats(1e-6, 24),
    arrival_hour_std=nothing | st.floats(1e-6, 4),
    stay_hours_mean=st.floats(0.5, 12),
    stay_hours_std=nothing | st.floats(1e-6, 4),
    energy_kwh_mean=st.floats(0.5, 80),
    energy_kwh_std=nothing | st.floats(1e-6, 20),
)


@given(specs=st.lists(chargers, min_size=1, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_any_stations_charged_at_full_power_leave_nobody_unserved(specs: list[EvChargerSpec], seed: int) -> None:
    fleet = make_fleet({f"s{i}": spec for i, spec in enumerate(specs)}, dt_h=0.5, horizon=48)
    fleet.reset(0, np.random.default_rng(seed))
    for step in range(48):
        take_step(fleet, fleet.neutral(make_exogenous()), step=step)
        np.testing.assert_allclose(fleet.terms["unserved_kwh"], 0, atol=1e-9)
    np.testing.assert_allclose(fleet.unserved_at_end_kwh(), 0, atol=1e-9)


@given(specs=st.lists(chargers, min_size=1, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_any_stations_any_wishes_close_the_books(specs: list[EvChargerSpec], seed: int) -> None:
    fleet = make_fleet({f"s{i}": spec for i, spec in enumerate(specs)}, dt_h=0.5, horizon=48)
    rng = np.random.default_rng(seed)
    fleet.reset(0, rng)
    asked = fleet.port_owed_kwh.sum(axis=2)
    charged, unserved = np.zeros((1, fleet.n)), np.zeros((1, fleet.n))
    bounds = np.array([[row.low, row.high] for row in fleet.states])
    for step in range(48):
        take_step(fleet, rng.uniform(-1.2, 1.2, (1, fleet.n)), step=step)
        asked += fleet.arriving_kwh[:, step + 1].sum(axis=2)
        charged += fleet.terms["charged_kwh"]
        unserved += fleet.terms["unserved_kwh"]
        np.testing.assert_allclose(charged + unserved + fleet.owed_kwh, asked, atol=1e-6)
        np.testing.assert_allclose(fleet.port_kw.sum(axis=2), -fleet.p_kw, atol=1e-9)
        seen = np.zeros((1, len(fleet.states)))
        fleet.observe(seen)
        assert (seen[0] >= bounds[:, 0] - 1e-9).all()
        assert (seen[0] <= bounds[:, 1] + 1e-9).all()


@given(specs=st.lists(chargers, min_size=1, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_any_stations_charge_the_same_alone_and_beside_others(specs: list[EvChargerSpec], seed: int) -> None:
    """A fleet that has no car at all may take shorter ways than one with cars in another environment."""
    devices = {f"s{i}": spec for i, spec in enumerate(specs)}
    alone, beside = (make_fleet(devices, dt_h=0.5, horizon=48, n_envs=n) for n in (1, 3))
    alone.reset(0, np.random.default_rng(seed))
    beside.reset(1, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    for step in range(48):
        actions = rng.uniform(-1.2, 1.2, (3, len(alone.actions)))
        for fleet, wishes in ((alone, actions[1:2]), (beside, actions)):
            exo = make_exogenous(fleet.n_envs, step=step, n=fleet.n)
            fleet.project(wishes, exo)
            fleet.advance(0.99 * fleet.p_kw + 1e-12, fleet.q_kvar, exo)  # no grid gives just what was set
        for name in ("owed_kwh", "connected", "urgency", "p_kw", "requested_p_kw", "port_owed_kwh", "port_kw"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(beside, name)[1], err_msg=name)
        for name, term in alone.terms.items():
            np.testing.assert_array_equal(term[0], beside.terms[name][1], err_msg=name)


@given(
    begin=nothing | st.floats(1e-6, 24),
    hours=st.floats(1, 200),
    mean=nothing | st.floats(1e-6, 24),
    reach=nothing | st.floats(1e-6, 40),
    stay=nothing | st.floats(1e-6, 80),
)
def test_days_hold_every_car_that_may_be_there(
    begin: float, hours: float, mean: float, reach: float, stay: float
) -> None:
    arrival = np.array([[[mean - reach]], [[mean + reach]]])
    first, last = find_days(begin, begin + hours, arrival, np.array([[stay]]))
    assert 24 * first + mean + reach + stay <= begin + 1e-9  # all its cars have left
    assert 24 * (first + 1) + mean + reach + stay > begin - 1e-9  # some of the next day's have not
    assert 24 * last + mean - reach <= begin + hours + 1e-9
    assert 24 * (last + 1) + mean - reach > begin + hours - 1e-9
