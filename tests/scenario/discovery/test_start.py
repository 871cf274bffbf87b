"""Where episodes on a discovered feeder start."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.own.controls import ControlPlan
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.profiles.profiles import builtin_profiles
from powergrid.scenario import load_scenario


@pytest.mark.parametrize("name", ["ieee13", "ieee34", "ieee123"])
def test_start_of_a_discovered_feeder_is_where_its_own_controls_settle_at_mean_demand(name: str) -> None:
    scenario = load_scenario(name)
    mean = float(builtin_profiles().demand_pu.mean())
    engine = Engine()
    try:
        for command in read_feeder(name).commands:
            if "buscoords" not in command.text.lower():
                engine.set_folder(command.file.parent)
                engine.command(command.text)
        engine.leave_folder()
        engine.command(f"set loadmult={mean!r} maxiterations=100 maxcontroliter=100 tolerance=1e-5")
        for _ in range(12):
            engine.command("solve")
        taps = {name: int(engine.command(f"? regcontrol.{name}.tapnum")) for name in engine.handles("RegControl")}
    finally:
        engine.close()
    assert set(scenario.taps) == set(taps)
    # a control is content anywhere in its band: coming from nominal demand, or up from neutral, a few taps apart
    assert all(abs(scenario.taps[name] - taps[name]) <= 3 for name in taps)


def test_start_of_a_discovered_feeder_satisfies_its_own_controls_at_mean_demand() -> None:
    scenario = load_scenario("ieee123")
    circuit = Circuit(read_feeder("ieee123"), plan=ControlPlan(others=True))
    try:
        at_nominal = circuit.taps.copy()
        loads, mean = circuit.network.loads, float(builtin_profiles().demand_pu.mean())
        circuit.start_from(scenario.taps, scenario.steps_on)
        circuit.write_demand(loads.kw * mean, loads.kvar * mean)
        assert circuit.solve(controls=True)
        assert circuit.own_moves == 0
        assert not np.array_equal(circuit.taps, at_nominal)
    finally:
        circuit.close()


def test_start_given_by_the_user_is_kept() -> None:
    assert load_scenario("ieee13", {"taps": {"reg1": 7}}).taps == {"reg1": 7}


def test_start_with_the_users_own_demand_is_where_the_controls_settle_at_its_mean() -> None:
    times = pd.date_range("2018", periods=96 * 14, freq="15min")
    light = pd.DataFrame({"demand_pu:house": np.tile([0.3, 0.5], 96 * 7), "price_usd_per_kwh": 0.1}, index=times)
    scenario = load_scenario("ieee123", {"profiles": {"source": light}})
    circuit = Circuit(read_feeder("ieee123"), plan=ControlPlan(others=True))
    try:
        loads = circuit.network.loads
        circuit.start_from(scenario.taps, scenario.steps_on)
        circuit.write_demand(0.4 * loads.kw, 0.4 * loads.kvar)
        assert circuit.solve(controls=True)
        assert circuit.own_moves == 0
    finally:
        circuit.close()
    assert load_scenario("ieee123", {"profiles": {"source": light * [2.0, 1.0]}}).taps != scenario.taps


def test_start_with_demand_that_cannot_be_read_is_the_models() -> None:
    wrong = pd.DataFrame({"load:house": np.ones(96 * 14)}, index=pd.date_range("2018", periods=96 * 14, freq="15min"))
    assert load_scenario("ieee13", {"profiles": {"source": wrong}}).taps == {}
