"""Readings of the environment's own steps give the environment's own setpoints; and what is doubted is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fuzz_advice import find_infeasible, fuzz, random_policy

from powergrid.advice import Advice, Advisor, AdvisorOptions, readings_of
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation.players import PolicyPlayer
from powergrid.scenario import Scenario, load_scenario

DAY = 200
#: All that meters send and no sum over a zone; of loads what they draw now, which a policy in training knows ahead.
METERED = ("known", "node", "p", "q", "loading", "state", "delivered", "set_p", "port_owed_kwh", "port_steps_left")
VOLTVAR = {
    "reward": {"goal": "peak"},  # agents then see the highest import so far, which no meter tells
    "devices": {
        "regulator_1": {"dwell_steps": 3, "moves_per_step": 1},
        "regulator_2": {"moves_per_day": 2, "moves_per_step": 2},
        "capacitor_1": {"dwell_steps": 2, "moves_per_day": 3},
    },
}


def world(name: str, overrides: dict[str, Any] | None = None) -> Scenario:
    return load_scenario(name, {"split": "all", **(overrides or {})})


class Follower:
    """An environment that a random policy plays, beside an advisor that is told its readings."""

    def __init__(self, scenario: Scenario, **options: Any) -> None:
        self.task = GridTask(scenario)
        self.player = PolicyPlayer(random_policy(self.task))
        self.advisor = Advisor(scenario, PolicyPlayer(random_policy(self.task)), AdvisorOptions(**options))
        self.task.reset(0, np.random.default_rng([0, DAY]), {"day": DAY})
        self.start = self.task.simulation.profiles.start.astype("datetime64[s]") + np.timedelta64(DAY, "D")

    def now(self) -> str:
        minutes = int(self.task.simulation.step_index[0]) * self.task.scenario.step_minutes
        return str(self.start + np.timedelta64(round(minutes * 60), "s"))

    def read(self, kinds: tuple[str, ...] = ()) -> dict[str, Any]:
        return {"time": self.now(), **readings_of(self.task, self.advisor.catalogue, kinds=kinds)}

    def step(self) -> None:
        self.task.action_buffer()[:] = self.player.act(self.task)
        self.task.step()

    def close(self) -> None:
        self.task.close()
        self.advisor.close()


@pytest.fixture(scope="module")
def microgrids() -> Iterator[Follower]:
    follower = Follower(world("ieee13_mg"))
    yield follower
    follower.close()


@pytest.mark.parametrize(
    ("name", "overrides", "steps"),
    [
        ("ieee13_mg", {"proposals": "rule_based"}, 96),
        ("ieee13_voltvar", VOLTVAR, 24),
        ("ieee34_ieee13", {}, 12),
        ("ieee123_mg", {}, 12),
    ],
)
def test_readings_of_the_environments_steps_give_its_own_setpoints_bit_for_bit(
    name: str, overrides: dict[str, Any], steps: int
) -> None:
    follower = Follower(world(name, overrides))
    cuts = 0
    for _ in range(steps):
        # a centralised agent sees import and losses of the network, which no other reading gives to the last bit
        kinds = (*METERED, "channel") if name == "ieee13_voltvar" else METERED
        readings = follower.read(kinds)
        peak = readings.pop("world.peak_import_kw", None)
        assert (peak is not None) == (name == "ieee13_voltvar")
        advice = follower.advisor.advise(readings)
        assert advice.problems == ()
        assert advice.fallbacks == {}
        for theirs, ours in zip(follower.task.observe(), follower.advisor.task.observe(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        follower.step()
        theirs, ours = follower.task.simulation, follower.advisor.task.simulation
        np.testing.assert_array_equal(ours.setpoints, theirs.setpoints)
        for own, fleet in zip(ours.fleets, theirs.fleets, strict=True):
            if hasattr(fleet, "position"):
                np.testing.assert_array_equal(own.position, fleet.position)
        given = {(each.device, each.quantity): each.set for each in advice.setpoints}
        for fleet in theirs.fleets:
            for i, device in enumerate(fleet.names):
                if (device, "p_kw") in given:
                    assert given[device, "p_kw"] == fleet.p_kw[0, i]
        assert list(find_infeasible(follower.advisor, advice)) == []
        cuts += sum(bool(each.cuts) for each in advice.setpoints)
    assert cuts  # limits were met on the way, so that they were compared
    follower.close()


@pytest.mark.parametrize("scenario", ["ieee13_mg", "ieee13_voltvar"])
def test_corrupted_readings_give_feasible_setpoints_and_no_exception(scenario: str) -> None:
    overrides = VOLTVAR if scenario == "ieee13_voltvar" else {}
    assert list(fuzz(world(scenario, overrides), 60, seed=1)) == []


def test_check_of_setpoints_notices_each_limit(microgrids: Follower) -> None:
    from dataclasses import replace

    advice = microgrids.advisor.advise(microgrids.read())
    for quantity, number in (("p_kw", 1e6), ("q_kvar", -1e6), ("p_kw", float("nan"))):
        wrong = tuple(replace(each, set=number) if each.quantity == quantity else each for each in advice.setpoints)
        assert list(find_infeasible(microgrids.advisor, replace(advice, setpoints=wrong)))


def by_device(advice: Advice, quantity: str) -> dict[str, Any]:
    return {each.device: each for each in advice.setpoints if each.quantity == quantity}


def test_without_state_of_charge_the_battery_idles_and_is_told(microgrids: Follower) -> None:
    advisor = Advisor(microgrids.task.scenario, microgrids.player)
    readings = {name: value for name, value in microgrids.read().items() if name != "ess_1.soc"}
    advice = advisor.advise(readings)
    battery = by_device(advice, "p_kw")["ess_1"]
    assert (battery.by, battery.set, battery.asked) == ("hold", 0.0, None)
    assert "state was not read" in advice.fallbacks["ess_1"]
    assert by_device(advice, "p_kw")["ess_2"].by == "policy"
    advisor.close()


def test_generator_of_unknown_output_gets_no_setpoint(microgrids: Follower) -> None:
    advisor = Advisor(microgrids.task.scenario, microgrids.player)
    readings = {name: value for name, value in microgrids.read().items() if not name.startswith("gen_1.")}
    generator = by_device(advisor.advise(readings), "p_kw")["gen_1"]
    assert (generator.by, generator.set) == ("hold", None)
    advisor.close()


@pytest.mark.parametrize("fallback", ["hold", "native", "none"])
def test_fallback_takes_over_where_too_little_is_measured(microgrids: Follower, fallback: str) -> None:
    advisor = Advisor(microgrids.task.scenario, microgrids.player, AdvisorOptions(fallback=fallback))
    read = microgrids.read()
    few = {name: read[name] for name in read if name == "time" or name.endswith((".soc", ".p_kw", ".q_kvar", ".on"))}
    few = {
        name: value
        for name, value in few.items()
        if name == "time" or name.split(".")[0] in advisor.task.simulation.device_names
    }
    advice = advisor.advise(few)
    assert set(advice.fallbacks) == {"MG1", "MG2"}
    assert all(fallback in why for why in advice.fallbacks.values())
    for each in advice.setpoints:
        assert each.by == fallback
        assert (each.set is None) == (fallback != "hold")
    assert advice.coverage["MG1"] < 0.5
    advisor.close()


def test_last_reading_stands_in_and_then_the_model(microgrids: Follower) -> None:
    advisor = Advisor(microgrids.task.scenario, microgrids.player, AdvisorOptions(min_coverage=0.0))
    full = microgrids.read()
    begin = np.datetime64(full["time"])
    quarter = np.timedelta64(15, "m")
    advisor.advise(full)
    origins = {}
    for count in (1, 2, 3):
        advice = advisor.advise({"time": str(begin + count * quarter), "ess_1.soc": full["ess_1.soc"]})
        origins[count] = {each.name: each.origin for each in advice.inputs}
    assert origins[1]["MG1.v_min_pu"] == origins[2]["MG1.v_min_pu"] == "last"
    assert origins[3]["MG1.v_min_pu"] == "model"
    assert origins[1]["world.price_usd_per_kwh"] == "last"
    assert origins[3]["world.price_usd_per_kwh"] == "profile"
    assert origins[3]["ess_2.soc"] == "nominal"
    advisor.close()


def test_state_of_charge_not_read_is_moved_on_by_what_was_set(microgrids: Follower) -> None:
    advisor = Advisor(microgrids.task.scenario, microgrids.player)
    full = microgrids.read()
    before = advisor.advise(full)
    later = {**full, "time": str(np.datetime64(full["time"]) + np.timedelta64(15, "m"))}
    later = {name: value for name, value in later.items() if not name.startswith("ess_1.")}
    advice = advisor.advise(later)
    spec = advisor.task.simulation.devices["ess_1"]
    p_kw = by_device(before, "p_kw")["ess_1"].set
    taken = p_kw / spec.eta_discharge if p_kw > 0 else p_kw * spec.eta_charge
    expected = full["ess_1.soc"] - taken * 0.25 / spec.e_max_kwh - spec.standby_loss_kw * 0.25 / spec.e_max_kwh
    soc = {each.name: each for each in advice.inputs}["ess_1.soc"]
    assert soc.origin == "model"
    assert p_kw != 0.0
    assert soc.value == pytest.approx(expected, abs=1e-9)
    assert by_device(advice, "p_kw")["ess_1"].by == "policy"
    advisor.close()


def test_value_beyond_the_trained_range_is_used_and_told(microgrids: Follower) -> None:
    advisor = Advisor(microgrids.task.scenario, microgrids.player)
    advice = advisor.advise({**microgrids.read(), "MG1.v_max_pu": 1.4, "world.price_usd_per_kwh": 30.0})
    inputs = {each.name: each for each in advice.inputs}
    assert (inputs["MG1.v_max_pu"].value, inputs["MG1.v_max_pu"].seen_as) == (1.4, 1.15)
    assert inputs["world.price_usd_per_kwh"].seen_as < 30.0
    assert inputs["MG1.v_min_pu"].seen_as is None
    assert any("outside the range that was trained" in doubt for doubt in advice.doubts())
    advisor.close()


def test_rest_and_moves_are_counted_from_what_positions_read(microgrids: Follower) -> None:
    follower = Follower(world("ieee13_voltvar", VOLTVAR), min_coverage=0.0)
    advisor, hour = follower.advisor, np.timedelta64(1, "h")
    full = {name: value for name, value in follower.read().items() if not name.endswith(("locked_steps", "moves_left"))}
    begin = np.datetime64(full["time"])
    taps = {"regulator_1": (0, 1, 1, 1, 1, 1), "regulator_2": (0, 1, 1, 1, 1, 1)}
    locked, left = [], []
    for count in range(6):
        read = {**full, "time": str(begin + count * hour)}
        read |= {f"{name}.tap": float(tap[count]) for name, tap in taps.items()}
        advice = advisor.advise(read)
        regulators = next(fleet for fleet in advisor.task.simulation.fleets if fleet.kind == "regulator")
        locked.append(int(regulators.locked_steps[0, 0]))
        left.append(int(regulators.moves_left[0, 1]))
        assert list(find_infeasible(advisor, advice)) == []
        if locked[-1]:
            assert by_device(advice, "tap")["regulator_1"].set == 1.0
    # someone moved both between the first two readings, whatever was advised
    assert locked == [0, 3, 2, 1, 0, 0]
    assert left == [2, 1, 1, 1, 1, 1]
    follower.close()


def test_what_moved_within_the_step_is_not_moved_again(microgrids: Follower) -> None:
    follower = Follower(world("ieee13_voltvar"), min_coverage=0.0)
    full = {**follower.read(), "regulator_1.tap": 0.0}
    first = follower.advisor.advise(full)
    asked = by_device(first, "tap")["regulator_1"].set
    assert asked is not None
    minute = str(np.datetime64(full["time"]) + np.timedelta64(10, "m"))
    again = by_device(follower.advisor.advise({**full, "time": minute, "regulator_1.tap": 1.0}), "tap")["regulator_1"]
    assert again.set == 1.0
    follower.close()


def test_station_read_as_a_whole_is_seen_as_read_and_shared_among_its_cars() -> None:
    follower = Follower(world("ieee123_mg"), min_coverage=0.0)
    name = next(fleet.names[0] for fleet in follower.advisor.task.simulation.fleets if fleet.kind == "ev_charger")
    read = follower.read(("known", "node", "state", "delivered"))
    read |= {f"{name}.connected": 2.0, f"{name}.owed_kwh": 9.0, f"{name}.urgency": 0.5}
    advice = follower.advisor.advise(read)
    station = next(fleet for fleet in follower.advisor.task.simulation.fleets if fleet.kind == "ev_charger")
    assert station.port_owed_kwh[0, 0, :2].tolist() == [4.5, 4.5]
    assert (station.port_owed_kwh[0, 0, 2:] == 0.0).all()
    assert {each.name: each.value for each in advice.inputs}[f"{name}.owed_kwh"] == 9.0
    assert by_device(advice, "p_kw")[name].by == "policy"
    assert list(find_infeasible(follower.advisor, advice)) == []
    follower.close()


def test_clock_that_goes_back_is_told(microgrids: Follower) -> None:
    advisor = Advisor(microgrids.task.scenario, microgrids.player)
    full = microgrids.read()
    advisor.advise(full)
    earlier = str(np.datetime64(full["time"]) - np.timedelta64(3, "h"))
    codes = [problem.code for problem in advisor.advise({**full, "time": earlier}).problems]
    assert codes == ["time-backwards"]
    advisor.close()


def test_date_beyond_the_profiles_has_a_day_that_stands_for_it(microgrids: Follower) -> None:
    advisor = Advisor(microgrids.task.scenario, microgrids.player)
    advice = advisor.advise({**microgrids.read(), "time": "2031-07-05T12:00"})
    assert advice.profile_date.endswith("-07-05")
    weekend = advisor.task.channels.values[0][[c.name for c in advisor.task.channels.table].index("world.weekend")]
    assert weekend == 1.0  # 5 July 2031 is a Saturday
    advisor.close()


def test_wrong_options_are_all_told() -> None:
    with pytest.raises(ScenarioError) as told:
        Advisor(world("ieee13_mg"), None, AdvisorOptions(fallback="holt", min_coverage=2.0))  # type: ignore[arg-type]
    assert len(told.value.problems) == 2
    assert "hold" in str(told.value)
