"""Switchgear: dwell, moves and wear by hand, then laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powergrid.grid.devices import CapacitorSpec, RegulatorSpec, SwitchSpec
from tests.grid.devices.fleets import make_exogenous, make_fleet, observe, projected, take_step


def capacitor(**keys: Any) -> CapacitorSpec:
    base = {"kind": "capacitor", "element": "Capacitor.cap1", "steps": 4, "steps_initial": 1}
    return CapacitorSpec.model_validate(base | keys)


def regulator(**keys: Any) -> RegulatorSpec:
    return RegulatorSpec.model_validate(
        {"kind": "regulator", "element": "RegControl.reg1", "tap_initial": 3, "cost_usd_per_operation": 0.1} | keys
    )


def switch(**keys: Any) -> SwitchSpec:
    return SwitchSpec.model_validate({"kind": "switch", "element": "Line.sw1", "closed_initial": True} | keys)


def test_regulator_index_counts_from_the_lowest_tap_and_each_tap_wears() -> None:
    fleet = make_fleet({"r": regulator()})
    assert (fleet.actions[0].n, fleet.position[0, 0]) == (33, 3)
    take_step(fleet, [[0]])
    assert fleet.position[0, 0] == -16
    assert fleet.terms["operations"][0, 0] == 19
    assert fleet.terms["switching_wear_usd"][0, 0] == pytest.approx(1.9)
    take_step(fleet, [[32]])
    assert fleet.position[0, 0] == 16
    assert fleet.operations[0, 0] == 19 + 32
    assert observe(fleet)["r", "tap"] == 16


def test_moves_per_step_limits_one_step_towards_the_request() -> None:
    fleet = make_fleet({"c": capacitor(moves_per_step=2)})
    seen = []
    for asked in (4, 4, 0):
        take_step(fleet, [[asked]])
        seen.append((fleet.requested_position[0, 0], fleet.position[0, 0], bool(projected(fleet)[0, 0])))
    assert seen == [(4, 3, True), (4, 4, False), (0, 2, True)]


def test_moves_per_day_are_spent_and_come_back_after_a_day() -> None:
    fleet = make_fleet({"c": capacitor(moves_per_day=3), "d": capacitor()}, dt_h=6.0)
    positions, left = [], []
    for asked in (4, 0, 4, 0, 0, 4):  # four steps are a day
        take_step(fleet, [[asked, asked]], step=len(positions))
        positions.append(fleet.position[0].tolist())
        left.append(observe(fleet)["c", "moves_left"][0])
    assert positions == [[4, 4], [4, 0], [4, 4], [4, 0], [1, 0], [1, 4]]
    assert left == [0, 0, 0, 3, 0, 0]
    assert [state.name for state in fleet.states if state.device == "d"] == ["steps_on"]


def test_dwell_keeps_a_moved_switch_for_that_many_steps() -> None:
    fleet = make_fleet({"s": switch(dwell_steps=2)})
    positions, locked = [], []
    for asked in (0, 1, 1, 1, 1):
        take_step(fleet, [[asked]])
        positions.append(fleet.position[0, 0])
        locked.append(observe(fleet)["s", "locked_steps"][0])
    assert positions == [0, 0, 0, 1, 1]
    assert locked == [2, 1, 0, 2, 1]


def test_request_for_the_present_position_does_not_lock() -> None:
    fleet = make_fleet({"s": switch(dwell_steps=5)})
    take_step(fleet, [[1]])
    take_step(fleet, [[0]])
    assert fleet.position[0, 0] == 0


@pytest.mark.parametrize(("spec", "position"), [(capacitor(), 1), (regulator(), 3), (switch(), 1)])
def test_neutral_stays_where_it_is(spec: Any, position: int) -> None:
    fleet = make_fleet({"d": spec})
    take_step(fleet, fleet.neutral(make_exogenous()))
    assert fleet.position[0, 0] == position
    assert not projected(fleet)[0, 0]


@given(
    asked=st.lists(st.integers(-3, 40), min_size=1, max_size=20),
    dwell=st.integers(0, 3),
    moves=st.none() | st.integers(1, 33),
)
def test_any_regulator_any_wishes_keeps_range_moves_and_dwell(asked: list[int], dwell: int, moves: int | None) -> None:
    fleet = make_fleet({"r": regulator(dwell_steps=dwell, moves_per_step=moves)})
    was, moved_at = 3, []
    for step, index in enumerate(asked):
        take_step(fleet, [[index]], step=step)
        now = int(fleet.position[0, 0])
        assert -16 <= now <= 16
        assert abs(now - was) <= (moves or 32)
        assert fleet.terms["operations"][0, 0] == abs(now - was)
        if now != was:
            moved_at.append(step)
        was = now
    assert (np.diff(moved_at) > dwell).all()


@given(first=st.integers(0, 32), index=st.integers(0, 32), dwell=st.integers(0, 2), moves=st.integers(1, 33))
def test_project_of_a_feasible_position_changes_nothing(first: int, index: int, dwell: int, moves: int) -> None:
    fleet = make_fleet({"r": regulator(dwell_steps=dwell, moves_per_step=moves)})
    take_step(fleet, [[first]])
    fleet.project(np.array([[float(index)]]), make_exogenous())
    position = fleet.position.copy()
    fleet.project((position + 16).astype(float), make_exogenous())
    np.testing.assert_array_equal(fleet.position, position)
    assert not projected(fleet).any()
